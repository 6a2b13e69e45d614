//! What must hold: after each event at the node where it was, and of all nodes once nothing breaks any more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvnode::distribution::RemoteProcess;
use kvnode::kv::SlaveEntry;
use kvnode::kv::figures::PrimaryFigures;
use kvnode::replica::{Lineage, PrimaryStanding, SlaveName, SlaveState, Standing};

use super::clients::{Asked, Call};
use super::drive;
use super::edits::Left;
use super::node::Life;
use super::shelf::Data;
use super::world::World;

/// What was seen of a node's store last.
#[derive(Default)]
pub struct Observed {
    pub incarnation: u64,
    changes: u64,
    pub data: Arc<Data>,
    seq: u64,
    lineage: Lineage,
    descent: Descent,
    /// The newest value of each key, under this lineage.
    seen: Data,
    /// What it holds has come down all of this lineage, and is not from before.
    is_of_lineage: bool,
    is_copying: bool,
    has_primary: bool,
    /// What the next copy drops is to be kept.
    reports: bool,
    /// It was once.
    has_reported: bool,
    /// It did not keep what a primary has sent.
    has_failed: bool,
    /// The same, in its life before: it may not be kept that it is done.
    may_report: bool,
    /// The same, and what it was reading then comes still.
    reports_late: bool,
    /// What it held when another was promoted in its place.
    own: Data,
    /// All of it has been.
    is_told: bool,
    /// A copy has taken the place of it, in memory.
    is_replaced: bool,
    /// It followed somebody when it was looked at last.
    has_primary_figures: bool,
    /// It has followed somebody in this life.
    was_slave: bool,
    /// What it has said to have of a primary, and what it held then.
    applied: Option<(u64, Arc<Data>)>,
    /// The last primary of which it has had everything, in this life.
    was_whole_of: Option<u64>,
    /// The nodes of the primaries since.
    above: BTreeSet<String>,
    /// What was kept of this, line by line.
    told: Vec<String>,
    /// The primary as it was then.
    figures: Option<PrimaryFigures>,
    /// What else it hung on when everything was checked last.
    looked: Option<Looked>,
}

/// All that what is checked of a node hangs on, beside its lineage and its primary: while it is the same, so is the outcome.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Looked {
    incarnation: u64,
    seq: u64,
    changes: u64,
    is_written: bool,
    /// How much is known of the primary.
    held_above: usize,
    /// Times that any store has changed its lineage.
    turns: u64,
    /// Calls so far.
    calls: u32,
}

/// What a store has held.
#[derive(Debug)]
pub struct Held {
    /// The number of its last write.
    seq: u64,
    data: Arc<Data>,
    /// It was what all these primaries had given, from the first one on.
    of: Option<Descent>,
}

/// The incarnations of a lineage, each with how often that store has changed its own: one that follows another and comes back is
/// not the primary that it was.
type Descent = Vec<(u64, u64)>;

/// What each store has held, by its incarnation.
pub type History = BTreeMap<u64, Vec<Held>>;

/// A life of a store that has a write, and how often it had changed its lineage by then.
#[derive(Clone, Debug)]
pub struct Had {
    pub incarnation: u64,
    pub turns: u64,
}

/// A write whose caller was told that slaves have it.
#[derive(Debug)]
pub struct Confirmed {
    /// The primary.
    pub incarnation: u64,
    /// How often that had changed its lineage by then.
    pub turns: u64,
    pub left: Vec<Left>,
    pub had: Vec<Had>,
}

/// The least that a replicated write takes.
const WRITE_BYTES_MIN: usize = 40;

impl World {
    /// A slave is sent no more than a window ahead.
    pub fn check_window(&self, node: usize, other: usize) {
        let most = self.window_bytes / WRITE_BYTES_MIN + 1;
        if self.waiting(other, node) <= most {
            return;
        }
        let under_way = self.under_way(other, node);
        assert!(under_way <= most, "{under_way} writes are under way from {node} to {other}");
    }

    /// Whom a store follows in a term that a promotion began: that store, or one that nobody led when it was followed.
    fn check_leader(&mut self, node: usize, figures: Option<&PrimaryFigures>, lineage: &Lineage) {
        let had_primary = self.observed[node].has_primary_figures;
        self.observed[node].has_primary_figures = figures.is_some();
        if figures.is_none() && had_primary {
            self.freed.insert(node);
        }
        if figures.is_none_or(|figures| figures.state == PrimaryStanding::Gone) {
            return;
        }
        let of = |life: u64| self.lives.get(&life).map(|name| self.node_named(name));
        if lineage.term > 0
            && self.observed[node].lineage != *lineage
            && let Some(root) = of(lineage.path[0])
        {
            let is_led = Some(root) == of(lineage.promoted) || self.freed.contains(&root);
            assert!(is_led, "{node} follows {root} in term {}, which was not promoted", lineage.term);
        }
    }

    /// Each of two stores the slave of the other: their writes would go round.
    fn check_circle(&self, node: usize, figures: Option<&PrimaryFigures>) {
        let Some(figures) = figures.filter(|figures| figures.state != PrimaryStanding::Gone) else { return };
        let primary = self.node_named(&figures.node);
        // A store that has removed a slave may follow that before it knows: nothing goes round then.
        let goes_round = self.takes(node, primary)
            && self.takes(primary, node)
            && self.streams(primary, node)
            && self.streams(node, primary);
        assert!(!goes_round, "{node} and {primary} follow each other");
    }

    /// Whether a node's store streams to another's.
    fn streams(&self, node: usize, other: usize) -> bool {
        let (Some(life), Some(there)) = (&self.nodes[node].life, &self.nodes[other].life) else {
            return false;
        };
        let slaves = life.server.slaves();
        slaves.iter().any(|slave| {
            matches!(slave.state(), SlaveState::Following(RemoteProcess::Pid(at))
                if at.node == there.store.pid.node && at.creation == there.store.pid.creation)
        })
    }

    /// Whether a node's store has another's as a slave, or is about to, and that takes it for its primary.
    fn takes(&self, node: usize, other: usize) -> bool {
        let Some(life) = &self.nodes[node].life else { return false };
        let is_there = self.figures(other).is_some_and(|figures| {
            figures.state != PrimaryStanding::Gone && *figures.node == *self.nodes[node].name
        });
        let name = &self.nodes[other].name;
        is_there && life.follows.iter().flatten().any(|follow| follow.is_slave_at(name))
    }

    /// A slave that is promoted still has what it was counted for in confirmed writes, and nobody else was above it since.
    fn check_promoted(&mut self, node: usize, lineage: &Lineage) {
        let observed = &self.observed[node];
        let (own, before) = (lineage.incarnation(), &observed.lineage);
        if lineage.promoted != own || before.rank() == lineage.rank() || before.path.is_empty() {
            return;
        }
        // One more for this promotion.
        let turns = self.turns.get(&own).copied().unwrap_or(0);
        for Confirmed { incarnation, turns: then, left, had } in &self.confirmed {
            let is_it = |had: &Had| had.incarnation == own && had.turns + 1 == turns;
            // A primary that has followed others since has dropped it itself.
            if !had.iter().any(is_it) || self.turns.get(incarnation) != Some(then) {
                continue;
            }
            for left in left {
                // What is done and waits in the order for a write with a lower number is not what its slaves have, and is there.
                let has = match &self.nodes[node].drive {
                    Some(drive) => drive::present(drive, left.key),
                    None => observed.data.get(&left.key).copied(),
                };
                assert!(
                    left.is_held(has, &self.deleted),
                    "{node} is promoted without {left:?} of {incarnation:x}, which it has confirmed: {has:?}"
                );
            }
            self.counts.held += 1;
        }
    }

    /// A store that was started without data takes nothing from the slaves that it was started with.
    fn check_protected(
        &mut self,
        node: usize,
        before: &Data,
        figures: Option<&PrimaryFigures>,
        lineage: &Lineage,
    ) {
        let is_new = Self::primary_of(&self.observed[node].lineage) != Self::primary_of(lineage);
        let Some(primary) = Self::primary_of(lineage).filter(|_| is_new && figures.is_some()) else { return };
        let is_first = self.led.insert((primary, node));
        let held = is_first && !before.is_empty() && self.is_written(node);
        let Some(figures) = figures.filter(|_| held) else { return };
        let primary = self.node_named(&figures.node);
        let Some(life) = &self.nodes[primary].life else { return };
        let is_it = life.incarnation == Self::primary_of(lineage).unwrap_or(0) && life.started_empty;
        let is_protected = life.protected.contains(&self.nodes[node].store_name());
        let was_filled = self.observed[primary].was_slave;
        assert!(
            !is_it || !is_protected || was_filled,
            "{node} holds {before:?}, and follows {primary}, which was started without anything"
        );
    }

    /// What a store says to have of a primary, it has: each key as it was then, or as it became later.
    fn check_applied(&mut self, node: usize, figures: Option<&PrimaryFigures>, lineage: &Lineage) {
        let Some(figures) = figures.filter(|figures| figures.seq > 0 && self.is_written(node)) else {
            return;
        };
        // Nothing has changed.
        let looked_at = (figures.seq, Arc::clone(&self.observed[node].data));
        let before = self.observed[node].applied.replace(looked_at.clone());
        if before.is_some_and(|before| before.0 == looked_at.0 && Arc::ptr_eq(&before.1, &looked_at.1)) {
            return;
        }
        // In this life: after a restart it goes by its note of how far it had come.
        if self.observed[node].was_whole_of != Self::primary_of(lineage) {
            return;
        }
        // One that has followed others itself has held what it gave nobody.
        let primary = Self::primary_of(lineage).filter(|primary| self.turns.get(primary) == Some(&1));
        let Some(history) = primary.and_then(|primary| self.history.get(&primary)) else { return };
        if figures.state == PrimaryStanding::Copying {
            return;
        }
        let data = &self.observed[node].data;
        let covers = |at: usize| {
            history[at].data.iter().all(|(key, value)| match data.get(key) {
                Some(has) => has >= value,
                None => history[at..].iter().any(|held| !held.data.contains_key(key)),
            })
        };
        let at = history.iter().enumerate().rev().skip_while(|(_, held)| held.seq > figures.seq);
        let mut at = at.take_while(|(_, held)| held.seq == figures.seq).peekable();
        if at.peek().is_some() {
            let is_covered = at.any(|(at, _)| covers(at));
            assert!(is_covered, "{node} says to have write {}, and holds {data:?}: {figures:?}", figures.seq);
        }
    }

    /// The primary that a node's store follows.
    pub fn figures(&self, node: usize) -> Option<PrimaryFigures> {
        self.nodes[node].life.as_ref().and_then(|life| life.server.primary())
    }

    pub fn lineage(&self, node: usize) -> Lineage {
        self.life(node).source().lineage()
    }

    /// The incarnation of the primary that a node's store follows, or has followed last.
    pub fn primary_of(lineage: &Lineage) -> Option<u64> {
        lineage.path.iter().rev().nth(1).copied()
    }

    /// Something may have changed at a node.
    pub fn check(&mut self, node: usize) {
        if self.nodes[node].is_beam {
            return self.note_beam_has_writes(node);
        }
        self.check_store(node);
        self.check_in_step(node);
    }

    /// A slave that is shown as in step, and to which nothing is under way, follows this store and holds what that holds.
    fn check_in_step(&mut self, node: usize) {
        let mut seen = 0;
        for follow in self.life(node).follows.iter().flatten() {
            let at = {
                let machine = follow.slave.machine();
                let is_in_step = machine.standing() == Standing::InStep { lag: 0 };
                machine.followed_at().filter(|_| is_in_step).cloned()
            };
            let Some(at) = at else { continue };
            let other = self.node_named(&at.node);
            let is_idle = self.is_idle(node, other) && self.is_idle(other, node);
            let is_there =
                self.nodes[other].life.as_ref().is_some_and(|life| life.store.pid.creation == at.creation);
            if !is_idle || !is_there || !self.is_written(node) || !self.is_written(other) {
                continue;
            }
            let here = &self.observed[node].data;
            if self.nodes[other].is_beam {
                let server = &self.life(other).server;
                if !server.has_other_writers(&self.nodes[node].name) {
                    let there = server.data();
                    assert!(there == **here, "{at:?} of {node} is in step, and is not: {there:?}, {here:?}");
                    seen += 1;
                }
                continue;
            }
            let figures = self.figures(other);
            let is_its = figures.as_ref().is_some_and(|figures| *figures.node == *self.nodes[node].name);
            assert!(is_its, "{at:?} is shown as in step by {node}, and follows {figures:?}");
            let there = &self.observed[other].data;
            assert!(there == here, "{at:?} of {node} is in step, and is not: {there:?}, {here:?}");
            seen += 1;
        }
        self.counts.idle += seen;
    }

    fn check_store(&mut self, node: usize) {
        let figures = self.figures(node);
        let (lineage, life) = (self.lineage(node), self.life(node));
        let (incarnation, seq, changes) = (life.incarnation, life.source().seq(), life.server.changes());
        let has_dropped = !life.dropped.is_empty();
        self.check_circle(node, figures.as_ref());
        let above = Self::primary_of(&lineage).and_then(|primary| self.history.get(&primary));
        let looked = Looked {
            incarnation,
            seq,
            changes,
            is_written: self.is_written(node),
            held_above: above.map_or(0, Vec::len),
            turns: self.turned,
            calls: self.next_call,
        };
        let observed = &mut self.observed[node];
        let is_reporting = observed.reports || observed.may_report || observed.reports_late || has_dropped;
        let is_same =
            observed.looked == Some(looked) && observed.lineage == lineage && observed.figures == figures;
        if is_same && !is_reporting {
            return;
        }
        if observed.incarnation != incarnation {
            // A slave that is started again keeps what callers write to it before its primary finds it, too.
            let may_report = self.nodes[node].drive.as_ref().is_some_and(|drive| {
                observed.has_reported || observed.may_report || drive::waits_for_primary(drive)
            });
            *observed = Observed { incarnation, changes: u64::MAX, may_report, ..Observed::default() };
        }
        let before = Arc::clone(&observed.data);
        // Several that were kept back may go on at once: what it held between them is what its slaves come by.
        let is_late = observed.seq > 0 && self.nodes[node].drive.is_some();
        let between = observed.seq + 1..if is_late { seq } else { 0 };
        let between: Vec<(u64, Arc<Data>)> =
            between.map(|seq| (seq, Arc::new(self.life(node).server.data_at(seq)))).collect();
        let observed = &mut self.observed[node];
        if observed.changes != changes {
            let data = Arc::new(self.life(node).server.data());
            let observed = &mut self.observed[node];
            (observed.changes, observed.data) = (changes, data);
        }
        self.check_held(node, seq, &before, &between, figures.as_ref(), &lineage);
        self.check_dropped(node, figures.as_ref(), &lineage);
        self.check_leader(node, figures.as_ref(), &lineage);
        self.check_promoted(node, &lineage);
        self.check_protected(node, &before, figures.as_ref(), &lineage);
        self.check_applied(node, figures.as_ref(), &lineage);
        self.observed[node].lineage = lineage;
        self.note_who_has_writes(node, &between, figures.as_ref());
        (self.observed[node].figures, self.observed[node].looked) = (figures, Some(looked));
    }

    /// Whether nothing that the server has taken in is still to be written.
    fn is_written(&self, node: usize) -> bool {
        self.nodes[node].drive.as_ref().is_none_or(|drive| drive.waiting() == 0)
    }

    fn check_held(
        &mut self,
        node: usize,
        seq: u64,
        before: &Arc<Data>,
        between: &[(u64, Arc<Data>)],
        figures: Option<&PrimaryFigures>,
        lineage: &Lineage,
    ) {
        let (is_written, in_memory) = (self.is_written(node), self.nodes[node].drive.is_none());
        if !self.groups.is_empty() && is_written {
            self.check_whole(node, figures, lineage);
        }
        let observed = &mut self.observed[node];
        let (data, incarnation) = (Arc::clone(&observed.data), observed.incarnation);
        let mut is_new = observed.seq != seq || data != *before;
        observed.seq = seq;
        if observed.lineage != *lineage {
            let turns = self.turns.entry(incarnation).or_default();
            *turns += 1;
            self.turned += 1;
            if *turns > 1 {
                let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
                lives.for_each(|life| life.server.note_unsteady(&self.nodes[node].name));
            }
        }
        let turns = |incarnation: &u64| (*incarnation, self.turns.get(incarnation).copied().unwrap_or(0));
        let descent: Descent = lineage.path.iter().map(turns).collect();
        if observed.descent != descent {
            observed.seen.clear();
            observed.is_of_lineage = false;
            is_new = true;
        }
        let was_of_lineage = observed.is_of_lineage;
        match figures {
            // A slave to which nothing is missing holds what its primary held after the write that it has come to.
            Some(figures) if figures.state == PrimaryStanding::Following && is_written => {
                let primary = Self::primary_of(lineage).expect("it has a primary");
                let above = &descent[..descent.len() - 1];
                let history = self.history.get(&primary).expect("a primary has been seen");
                let held = history.iter().rev().skip_while(|held| held.seq > figures.seq);
                let held = held.take_while(|held| held.seq == figures.seq);
                let mut held = held.filter(|held| held.data == data);
                let Some(last) = held.next() else {
                    let held: Vec<_> = history.iter().filter(|held| held.seq == figures.seq).collect();
                    panic!("{node} holds {data:?} after write {}; {primary:x} held {held:?}", figures.seq);
                };
                let is_of = |held: &Held| held.of.as_ref().is_some_and(|of| of == above);
                observed.is_of_lineage |= is_of(last) || held.any(is_of);
            }
            Some(_) => {}
            None => observed.is_of_lineage |= is_written,
        }
        if is_new || observed.is_of_lineage != was_of_lineage {
            tracing::debug!(node, seq, ?data, "holds");
            let of = |is_of_lineage: bool| is_of_lineage.then(|| descent.clone());
            // What it held between was that of its primaries where it was so before already.
            let of_between = of(was_of_lineage);
            let history = self.history.entry(incarnation).or_default();
            let held = |(seq, data): &(u64, Arc<Data>)| Held {
                seq: *seq,
                data: Arc::clone(data),
                of: of_between.clone(),
            };
            history.extend(between.iter().map(held));
            history.push(Held { seq, data: Arc::clone(&data), of: of(observed.is_of_lineage) });
        }
        // A value never goes back while nobody else is above, from when it has come from the first of these.
        if observed.is_of_lineage {
            for (&key, &value) in &*data {
                let seen = observed.seen.insert(key, value).unwrap_or(0);
                assert!(seen <= value, "at {node} key {key} went back from {seen} to {value}");
            }
        }
        observed.descent = descent;
        // A reader sees what was there before a copy until that is whole.
        let is_copying = figures.is_some_and(|figures| figures.state == PrimaryStanding::Copying);
        let is_half = observed.is_copying && is_copying && in_memory && data != *before;
        assert!(!is_half, "a copy is seen by half at {node}");
        self.counts.copying += u64::from(is_copying && !observed.is_copying);
        observed.is_copying = is_copying;
    }

    /// What all have who have everything of a store that has never followed another: whole writes.
    fn check_whole(&self, node: usize, figures: Option<&PrimaryFigures>, lineage: &Lineage) {
        let root = match figures {
            None => Some(self.life(node).incarnation),
            Some(figures) if figures.state == PrimaryStanding::Following => Self::primary_of(lineage),
            Some(_) => None,
        };
        let is_it = |life: &&Life| Some(life.incarnation) == root && life.started_empty;
        let is_there = self.nodes.iter().filter_map(|node| node.life.as_ref()).any(|life| is_it(&life));
        // Where its lineage is being looked at first it is not noted yet.
        let turns = root.and_then(|root| self.turns.get(&root)).copied().unwrap_or(0);
        if is_there && turns <= 1 && !(figures.is_none() && self.observed[node].was_slave) {
            self.check_groups(node, &self.observed[node].data);
        }
    }

    /// A primary in whose place another was promoted keeps elsewhere what it drops.
    fn check_dropped(&mut self, node: usize, figures: Option<&PrimaryFigures>, lineage: &Lineage) {
        // All that is dropped was looked at, too.
        let is_written = self.is_written(node) && self.life(node).posts.work.lock().is_empty();
        let (life, drive) = (self.nodes[node].life.as_ref().expect("it runs"), &self.nodes[node].drive);
        let observed = &mut self.observed[node];
        let has_primary = figures.is_some();
        let is_new = has_primary && !observed.has_primary;
        let reported = observed.reports || observed.may_report || observed.reports_late;
        if is_new && std::mem::take(&mut observed.is_told) {
            // It was removed behind the copy, before all of that was written.
            observed.reports = false;
        }
        if is_new && std::mem::take(&mut observed.has_failed) && std::mem::take(&mut observed.reports) {
            // It is not known here whether it was removed before the end of the copy, or behind it.
            observed.may_report = true;
        }
        let fails = |figures: &PrimaryFigures| {
            matches!(figures.state, PrimaryStanding::Full | PrimaryStanding::Failing)
        };
        observed.has_failed |= figures.is_some_and(fails);
        // A deletion behind the end of a copy has failed: the next copy drops what that has left.
        observed.may_report |= reported && figures.is_some_and(fails);
        if observed.lineage.rank() != lineage.rank() {
            self.counts.demotions += u64::from(is_new);
            observed.reports = is_new || has_primary && observed.reports;
        }
        if is_new && observed.reports {
            observed.above.clear();
            // What an earlier copy has taken the place of is not what is dropped now.
            observed.is_replaced = false;
            observed.own = drive.as_ref().map_or_else(|| (*observed.data).clone(), drive::at_rest);
        }
        observed.above.extend(figures.map(|figures| figures.node.clone()));
        observed.has_primary = has_primary;
        observed.was_slave |= has_primary;
        let dropped = life.dropped.take();
        let keeps = observed.reports || reported;
        assert!(dropped.is_empty() || keeps, "{node} is none of those that keep: {dropped}");
        observed.reports_late = reported && !is_written;
        observed.has_reported |= observed.reports;
        let is_kept = |figures: &PrimaryFigures| figures.state == PrimaryStanding::Following && is_written;
        observed.may_report &= !figures.is_some_and(is_kept);
        observed.told.extend(dropped.lines().map(String::from));
        let replaced = life.server.take_replaced();
        self.counts.copies += u64::from(replaced.is_some());
        if !observed.reports {
            observed.told.clear();
            return;
        }
        observed.is_told |= figures.is_some_and(|figures| figures.state == PrimaryStanding::Following);
        observed.is_replaced |= replaced.is_some();
        let is_over = if drive.is_some() { observed.is_told } else { observed.is_replaced };
        if !is_over || !is_written {
            return;
        }
        // The last deletions of the copy were under way when another session began, or the primary removed it: it knows that these
        // are done once it has been brought up to date again.
        observed.may_report |= drive.is_some() && !figures.is_some_and(is_kept);
        (observed.reports, observed.is_told, observed.is_replaced) = (false, false, false);
        let told = std::mem::take(&mut observed.told);
        // What the new primaries have had too, in whatever life, may have been written over by these.
        let has = |key, value| {
            let is_above = |life| self.lives.get(life).is_some_and(|node| observed.above.contains(&**node));
            let mut histories = self.history.iter().filter(|(life, _)| is_above(life));
            histories.any(|(_, history)| history.iter().any(|held| held.data.get(&key) == Some(&value)))
        };
        for (&key, &value) in &observed.own {
            let is_kept = told.contains(&format!("{{{key}, {value}}}"));
            let is_lost = observed.data.get(&key) != Some(&value);
            assert!(
                is_kept || !is_lost || has(key, value) || self.ending.may_end(key, value),
                "{node} has dropped {{{key}, {value}}}: {told:?}"
            );
            self.counts.reported += u64::from(is_kept);
        }
    }

    /// Who has a write, to be confirmed or not.
    fn note_who_has_writes(
        &mut self,
        node: usize,
        between: &[(u64, Arc<Data>)],
        figures: Option<&PrimaryFigures>,
    ) {
        let observed = &mut self.observed[node];
        // Its store has kept what it says to have.
        let has = Self::primary_of(&observed.lineage).zip(figures).and_then(|(primary, figures)| {
            let is_whole = figures.state == PrimaryStanding::Following;
            is_whole.then(|| {
                observed.was_whole_of = Some(primary);
                (primary, figures.seq)
            })
        });
        for Call { asked, .. } in self.calls.values_mut() {
            let Asked::Confirmed { incarnation, seq, left, had, .. } = asked else { continue };
            if *incarnation == observed.incarnation && !left.is_empty() {
                let last = (observed.seq, Arc::clone(&observed.data));
                let is_done = |data: &Data| left.iter().all(|left| left.is_in(data));
                let mut held = between.iter().chain([&last]).filter(|(_, data)| is_done(data));
                *seq = seq.or_else(|| held.next().map(|(seq, _)| *seq));
            }
            let has_it = |(primary, last)| primary == *incarnation && seq.is_some_and(|seq| last >= seq);
            let incarnation = observed.incarnation;
            if has.is_some_and(has_it) && !had.iter().any(|had| had.incarnation == incarnation) {
                let turns = self.turns.get(&incarnation).copied().unwrap_or(0);
                had.push(Had { incarnation, turns });
            }
        }
    }

    /// Notes how the slaves of a node stand.
    pub fn count_standings(&mut self, node: usize) {
        for slave in self.life(node).server.slaves() {
            match slave.standing() {
                Standing::InStep { .. } => self.counts.in_step += 1,
                Standing::Gone { missed: Some(_) } => self.counts.gone_partial += 1,
                Standing::Gone { missed: None } => self.counts.gone_full += 1,
                Standing::Behind { .. } => self.counts.behind += 1,
                Standing::Full { .. } => self.counts.full += 1,
                _ => {}
            }
        }
    }

    /// The nodes whose servers a node's store streams to.
    pub fn followed_by(&self, node: usize) -> Vec<usize> {
        let slaves = self.life(node).server.slaves();
        let followed = slaves.iter().filter_map(|slave| match slave.state() {
            SlaveState::Following(at) => Some(self.node_of(&at)),
            _ => None,
        });
        followed.collect()
    }

    /// The node that a slave's name names.
    pub fn target(&self, slave: &SlaveEntry) -> Option<usize> {
        match slave.name() {
            SlaveName::Remote { node, .. } => Some(self.node_named(node)),
            SlaveName::Pid(pid) => Some(self.node_named(&pid.node)),
            SlaveName::Global(_) => self.holder_of(slave.name()),
            SlaveName::Local(_) => None,
        }
    }

    /// Whether a slave is followed where its name is.
    pub fn is_where_its_name_is(&self, slave: &SlaveEntry) -> bool {
        matches!(slave.state(), SlaveState::Following(at) if self.target(slave) == Some(self.node_of(&at)))
    }

    /// An Elixir server has a write, or what came after it under its key. Several primaries write over each other there.
    fn note_beam_has_writes(&mut self, node: usize) {
        let Some(life) = &self.nodes[node].life else { return };
        if !self.calls.values().any(|call| matches!(call.asked, Asked::Confirmed { .. })) {
            return;
        }
        let (incarnation, data, is_mixed) = (life.incarnation, life.server.data(), life.server.writers() > 1);
        for Call { asked, .. } in self.calls.values_mut() {
            let Asked::Confirmed { left, had, .. } = asked else { continue };
            let is_held = |left: &Left| left.is_held(data.get(&left.key).copied(), &self.deleted);
            let has = !left.is_empty() && left.iter().all(is_held);
            if (has || is_mixed) && !had.iter().any(|had| had.incarnation == incarnation) {
                had.push(Had { incarnation, turns: 0 });
            }
        }
    }
}
