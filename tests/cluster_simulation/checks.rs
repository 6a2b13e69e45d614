//! What must hold: after each event at the node where it was, and of all nodes once nothing breaks any more.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvnode::process::figures::{PrimaryFigures, StoreFigures};
use kvnode::replica::{Lineage, Refusal, Slave, SlaveName, SlaveState, Standing};

use super::clients::{Asked, Call};
use super::shelf::Data;
use super::world::World;

/// What was seen of a node's store last.
#[derive(Default)]
pub struct Observed {
    incarnation: u64,
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

impl World {
    /// The primary that a node's store follows.
    pub fn figures(&self, node: usize) -> Option<PrimaryFigures> {
        self.nodes[node].life.as_ref().and_then(|life| StoreFigures::primary(&*life.server))
    }

    pub fn lineage(&self, node: usize) -> Lineage {
        self.life(node).source().lineage().expect("a store has one")
    }

    /// The incarnation of the primary that a node's store follows, or has followed last.
    fn primary_of(lineage: &Lineage) -> Option<u64> {
        lineage.path.iter().rev().nth(1).copied()
    }

    /// Something may have changed at a node.
    pub fn check(&mut self, node: usize) {
        let figures = self.figures(node);
        let lineage = self.lineage(node);
        let life = self.nodes[node].life.as_ref().expect("it runs");
        let (shelf, seq) = (life.server.store(), life.source().seq());
        let observed = &mut self.observed[node];
        if observed.incarnation != life.incarnation {
            *observed = Observed { incarnation: life.incarnation, changes: u64::MAX, ..Observed::default() };
        }
        let before = Arc::clone(&observed.data);
        let mut is_new = observed.seq != seq;
        if observed.changes != shelf.changes() {
            observed.changes = shelf.changes();
            observed.data = Arc::new(shelf.data());
            is_new |= observed.data != before;
        }
        observed.seq = seq;
        let data = Arc::clone(&observed.data);
        let state = figures.as_ref().map(|figures| figures.state);
        if observed.lineage != lineage {
            *self.turns.entry(life.incarnation).or_default() += 1;
        }
        let turns = |incarnation: &u64| (*incarnation, self.turns.get(incarnation).copied().unwrap_or(0));
        let descent: Descent = lineage.path.iter().map(turns).collect();
        if observed.descent != descent {
            observed.seen.clear();
            observed.is_of_lineage = false;
            is_new = true;
        }
        let was_of_lineage = observed.is_of_lineage;
        match figures.as_ref().filter(|figures| figures.state == "following") {
            // A slave to which nothing is missing holds what its primary held after the write that it has come to.
            Some(figures) => {
                let primary = Self::primary_of(&lineage).expect("it has a primary");
                let above = &descent[..descent.len() - 1];
                let history = self.history.get(&primary).expect("a primary has been seen");
                let held = history.iter().rev().skip_while(|held| held.seq > figures.seq);
                let mut held =
                    held.take_while(|held| held.seq == figures.seq).filter(|held| held.data == data);
                let Some(last) = held.next() else {
                    let held: Vec<_> = history.iter().filter(|held| held.seq == figures.seq).collect();
                    panic!("{node} holds {data:?} after write {}; {primary:x} held {held:?}", figures.seq);
                };
                let is_of = |held: &Held| held.of.as_ref().is_some_and(|of| of == above);
                observed.is_of_lineage |= is_of(last) || held.any(is_of);
            }
            None => observed.is_of_lineage |= figures.is_none(),
        }
        if is_new || observed.is_of_lineage != was_of_lineage {
            tracing::debug!(node, seq, ?data, "holds");
            let of = observed.is_of_lineage.then(|| descent.clone());
            let history = self.history.entry(life.incarnation).or_default();
            history.push(Held { seq, data: Arc::clone(&data), of });
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
        let is_copying = state == Some("copying");
        assert!(!(observed.is_copying && is_copying) || data == before, "a copy is seen by half at {node}");
        self.counts.copying += u64::from(is_copying && !observed.is_copying);
        observed.is_copying = is_copying;
        // A primary in whose place another was promoted keeps elsewhere what it drops.
        let has_primary = figures.is_some();
        let is_new_rank = observed.lineage.rank() != lineage.rank();
        if is_new_rank {
            observed.reports = has_primary && (!observed.has_primary || observed.reports);
            self.counts.demotions += u64::from(has_primary && !observed.has_primary);
        }
        observed.has_primary = has_primary;
        let dropped = life.dropped.take();
        match shelf.take_replaced() {
            Some(before) => {
                self.counts.copies += 1;
                let lost = before.iter().filter(|(key, value)| data.get(key) != Some(value));
                let lost: Vec<String> = lost.map(|(key, value)| format!("{{{key}, {value}}}")).collect();
                let told: Vec<&str> = dropped.lines().collect();
                if std::mem::take(&mut observed.reports) {
                    assert_eq!(sorted(lost), sorted(told.iter().map(|&line| line.into()).collect()));
                    self.counts.reported += u64::from(!told.is_empty());
                } else {
                    assert!(told.is_empty(), "{told:?}");
                }
            }
            None => assert!(dropped.is_empty(), "{dropped}"),
        }
        observed.lineage = lineage;
        // Who has a write, to be confirmed or not.
        if let Some(figures) = figures.filter(|figures| figures.state == "following") {
            let primary = Self::primary_of(&observed.lineage).expect("it has a primary");
            let (life, incarnation) = (&self.observed[node], primary);
            for Call { asked, .. } in self.calls.values_mut() {
                if let Asked::Confirmed { incarnation: primary, seq, had, .. } = asked
                    && *primary == incarnation
                    && figures.seq >= *seq
                    && !had.contains(&life.incarnation)
                {
                    had.push(life.incarnation);
                }
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
                _ => {}
            }
        }
    }

    /// The node that a slave's name names.
    fn target(&self, slave: &Slave) -> usize {
        match slave.name() {
            SlaveName::Remote { node, .. } => self.node_named(node),
            SlaveName::Pid(pid) => self.node_named(&pid.node),
            name => panic!("{name}"),
        }
    }

    /// Whether nothing will change any more, as far as one can see: each slave is in step, or is rightly refused.
    pub fn is_settled(&self) -> bool {
        // One that was removed is told so, at the latest when it would be looked for again.
        let is_told = |node: usize| {
            self.life(node).follows.iter().flatten().all(|follow| follow.slave.state() != SlaveState::Dropped)
        };
        self.calls.is_empty()
            && (0..self.nodes.len()).all(is_told)
            && (0..self.nodes.len()).all(|node| {
                self.life(node).server.slaves().iter().all(|slave| match slave.standing() {
                    Standing::InStep { lag: 0 } => !slave.is_renewed(),
                    Standing::Refused(refusal) => self.is_right(node, self.target(slave), slave, refusal),
                    _ => false,
                })
            })
    }

    fn is_right(&self, node: usize, target: usize, slave: &Slave, refusal: Refusal) -> bool {
        let primary = self.figures(target);
        let (own, other) = (self.lineage(node), self.lineage(target));
        let is_primary = Self::primary_of(&other) == Some(own.incarnation());
        match refusal {
            Refusal::HasPrimary => {
                primary.is_some_and(|primary| primary.state != "gone")
                    && !is_primary
                    && own.rank() == other.rank()
            }
            Refusal::Superseded => other.rank() > own.rank(),
            Refusal::NotEmpty => {
                let source = self.life(node).source();
                slave.is_guarded() && source.is_fresh() && !self.observed[target].data.is_empty()
            }
            _ => false,
        }
    }

    /// Nothing breaks any more: what must hold of all.
    pub fn check_settled(&mut self) {
        let mut slaves_max = 0;
        for node in 0..self.nodes.len() {
            let mut followed = Vec::new();
            for slave in self.life(node).server.slaves() {
                let SlaveState::Following(at) = slave.state() else { continue };
                let target = self.node_of(&at);
                assert!(!followed.contains(&target), "one process is one slave");
                followed.push(target);
                slaves_max = slaves_max.max(followed.len());
                let (there, here) = (&self.observed[target].data, &self.observed[node].data);
                assert!(there == here, "{slave:?} of {node} is in step, and is not: {}", self.shown());
                let figures = self.figures(target).expect("it has a primary");
                assert_eq!((figures.state, figures.lag), ("following", 0));
                assert_eq!(*figures.node, *self.nodes[node].name);
                let mut path = self.lineage(node).path;
                path.push(self.life(target).incarnation);
                assert_eq!(self.lineage(target).path, path);
                assert_eq!(self.lineage(target).rank(), self.lineage(node).rank());
                assert!(!slave.may_be_stale());
            }
            // Who is followed and there says the same.
            if let Some(figures) = self.figures(node).filter(|figures| figures.state != "gone") {
                let primary = self.node_named(&figures.node);
                let is_its = |slave: &Arc<Slave>| matches!(slave.state(), SlaveState::Following(at) if self.node_of(&at) == node);
                assert!(
                    self.life(primary).server.slaves().iter().any(is_its),
                    "{node} waits for {primary} in vain"
                );
            }
        }
        let depth = (0..self.nodes.len()).map(|node| self.depth(node)).max().unwrap_or(0);
        self.counts.chains += u64::from(depth >= 2);
        self.counts.several += u64::from(slaves_max >= 2);
    }

    /// The primaries above a node. No store is, over others, its own slave.
    fn depth(&self, node: usize) -> usize {
        let (mut at, mut depth) = (node, 0);
        while let Some(figures) = self.figures(at).filter(|figures| figures.state != "gone") {
            at = self.node_named(&figures.node);
            depth += 1;
            assert!(depth < self.nodes.len(), "a cycle over {node}");
        }
        depth
    }

    /// Whether two stores were promoted apart from each other, and neither knows.
    pub fn are_two_apart(&self) -> bool {
        let is_promoted = |&node: &usize| self.nodes[node].life.is_some() && self.figures(node).is_none();
        let mut terms: Vec<u64> = (0..self.nodes.len())
            .filter(is_promoted)
            .map(|node| self.lineage(node).term)
            .filter(|&term| term > 0)
            .collect();
        terms.sort_unstable();
        terms.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Whether a node's store follows another's.
    pub fn follows(&self, node: usize, primary: usize) -> bool {
        self.figures(node).is_some_and(|figures| *figures.node == *self.nodes[primary].name)
    }

    /// All are one tree, below the one that was promoted last, or has the highest number of those: gives that.
    pub fn check_one_tree(&self) -> usize {
        let roots = self.roots();
        let &[root] = &roots[..] else { panic!("{roots:?} have no primary: {}", self.shown()) };
        let highest = (0..self.nodes.len()).map(|node| self.lineage(node).rank()).max();
        assert_eq!(Some(self.lineage(root).rank()), highest);
        root
    }

    /// The nodes whose stores have no primary that is there.
    fn roots(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|&node| self.depth(node) == 0).collect()
    }
}

fn sorted(mut lines: Vec<String>) -> Vec<String> {
    lines.sort();
    lines
}
