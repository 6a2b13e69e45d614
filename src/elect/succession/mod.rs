//! Which of the nodes of a replicated store is the primary, where the store is in memory or on disk and etcd decides: one of its nodes,
//! as a value.
//!
//! [`Candidate`](super::Candidate) is its sibling for stores that etcd keeps. There each write is safe whichever node carries it out, and the
//! key only routes. Here the data is with the nodes, so a primary has to have all that was promised.
//!
//! ```text
//!             the key is this node's                 the promotion is kept
//!   Apart ------------------------------> Promoting -----------------------> Leading
//!    ^  \ the primary is gone: a round     |  the lease may end, the key is    |  \
//!    |   v                                 |  gone or another's, a higher      |   v
//!    |  sealed, reported, chosen:          v  fence is seen: it steps down     v  Leaving: slaves get what is
//!    |  the key is taken      +------------+-----------------------------------+  on its way, then Over
//!    +------------------------+
//! ```
//!
//! # What stands in etcd
//!
//! The primary's key with its lease, a *record* that is written by the primary alone and compared on its last revision, and a report of
//! each node with that node's lease ([`keys`] has their forms). The **fence** is a number in the record: a node that takes the key
//! writes both in one transaction, with a fence above the last one and above the term of its store. The store is promoted with the
//! fence as its [term](crate::replica::Lineage::term). So greetings carry it, slaves compare it, and it is kept over restarts, as terms always were.
//!
//! # What is promised
//!
//! A write is **confirmed** when `c` slaves that count have acknowledged it to a primary that leads by its own clock. A slave counts while it
//! is a member in the record: the primary counts a new one once the record has it, and none that it wants to drop before the record is
//! written without it. Members are dropped when enough of the others have all that was confirmed so far.
//!
//! **No confirmed write is lost**, as long as a node has it that an election can see. The record's *base* says with which fence writes were
//! confirmed last, with which `c` and which `N` members. When the primary's key is gone a *round* begins, which is named by
//! the last fence `f`. A node that sees it is first sealed: its store acknowledges nothing any more to a primary whose fence is `f` or
//! lower, nor takes its greeting. Then it reports what it holds: all that the primary of some fence had once, with the number of that one's last
//! write that is here ([`Settled`](crate::replica::Settled)). That stays what it was while another primary brings the store up to date, as
//! what comes from there is newer, and becomes that one's when all has come. The key is taken by a transaction that compares the record, and that
//! nobody has the key. So:
//!
//! 1. Of a write that the base has confirmed, `c` members have acknowledged it, and at least one of these is among any `N - c + 1`. That one had
//!    the write before it was sealed, so its report is not behind it. Copies of one fence are prefixes of its writes (with newer values here
//!    and there), so the most advanced of them has the write.
//! 2. Once `N - c + 1` members are sealed, fewer than `c` are left: the former primary can confirm nothing more, whatever its
//!    clock says. What it may still say `:ok` to was acknowledged before that.
//! 3. The next primary has confirmed nothing until it has written itself as the base, with members that it has brought up to date. Until
//!    then it is an *heir* of the base, and so are those after it: a node that was brought up to date by any of them has all that the
//!    base has confirmed, and is enough alone. If no heir ever becomes the base, the next election is as if it had not been.
//! 4. The primary with the record's fence has everything itself, and does not wait for reports: it may have lost nothing but its
//!    lease, or, on disk, its process. A store that led with the base's fence, and has followed an heir since, is as good.
//! 5. A primary that ends in good order records the number of its last write: each copy of its fence that has come so far has everything, and
//!    is enough alone (`leave` says why).
//! 6. A node that has lost its data, or has never been brought up to date by a primary that the record knows, does not count. Its
//!    report ends with its lease; one that is out of date makes others more demanding, and nobody takes the key by it: a process goes by
//!    its own report alone. A store that is started again takes no primary's greeting before it has read the record.
//!
//! **Two primaries** do not confirm at once: by its own clock a primary leads no longer than its lease, less [`MARGIN`]; the key goes
//! when the lease has ended, or when the node is surely gone ([`Candidate`](super::Candidate) says when that is). Where a person deletes the key, 2. holds still.
//!
//! **Fences only rise**: the transaction compares the record that has the last one.
//!
//! With `c = 0` nothing is promised: the most advanced of the nodes that report within a short time is chosen. `is_lossy` chooses so
//! after a longer time where too few report, says so, and begins a new base; a person can have the same done ([`Input::Force`]). Where all nodes
//! that may have data of matter report that they have none, the store begins anew: nothing is there to wait for. These are the base, its
//! members and its heirs; what a primary before the base had, the base has had.
//!
//! Without etcd nothing is chosen: the primary takes no writes when its lease may have ended, and all go on to answer reads from
//! what they have.
//!
//! # How it is driven
//!
//! [`handle`](Succession::handle) an [`Input`] as it comes, and one by one carry out what [`poll_output`](Succession::poll_output) gives, before
//! the next input; at [`poll_timeout`](Succession::poll_timeout) hand in [`Input::Time`]. Before any of these, where there is a lease,
//! [`Input::LeaseUntil`] says until when it is held. A store's process has a value of its own: one that is started again is another.

mod choice;
mod event;
mod face;
mod force;
pub mod keys;
mod known;
mod leave;
mod planted;
mod report;
mod take;
mod tally;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use event::{Event, SteppedDown};
pub use face::{Change, Config, Entry, Input, Leader, Output, Role, Slave, Transacted, Transaction, View};
use force::Forced;
pub use force::NotForced;
pub use keys::{Holds, Key};
use known::Known;
use planted::{Rule, planted};
use take::{FOUND_AFTER, LOSSY_AFTER, NEW_LEASE, SAY_AFTER, SETTLE, SETTLE_FORMER, SETTLE_UNCONFIRMED};
use tally::Tally;

use super::contact::Contact;
use super::lease::{Lease, PAUSE};
use super::namesake::Namesake;
use super::{Life, MARGIN};
use crate::etf::Pid;

/// Behind a transaction that another was faster than.
const PAUSE_LOST: Duration = Duration::from_millis(30);
/// A store that could not be promoted leaves it to others for so long.
const UNFIT: Duration = Duration::from_secs(10);

/// How a node stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not lead.
    Apart,
    /// It has the key, and its store is promoted.
    Promoting { question: u64, fence: u64 },
    /// Its store is the primary.
    Leading { fence: u64 },
    /// Its store was the primary and takes nothing more; until then slaves get what is on its way.
    Leaving { fence: u64, until: Instant },
    /// It has ended.
    Over,
}

/// A choice of the next primary.
#[derive(Debug)]
struct Round {
    /// The fence of the primary that is gone; 0: there was none.
    after: u64,
    began: Instant,
    /// This node was without etcd just before, and so may the primary have been that is gone.
    is_after_outage: bool,
    /// The store is being sealed.
    question: u64,
    /// It is sealed, and holds this; with the term that it knows.
    sealed: Option<(Holds, u64)>,
    /// People know what it waits for.
    is_said: bool,
}

/// One node of a store in its elections. See the [module](self).
#[derive(Debug)]
pub struct Succession {
    config: Config,
    phase: Phase,
    since: Instant,
    lease: Lease,
    /// The fence that stood in etcd when it lost its last lease.
    lost_at: Option<u64>,
    /// `None`: nothing was told of the keys yet.
    known: Option<Known>,
    namesake: Namesake,
    contact: Option<Contact>,
    /// The lowest fence that the store takes, as far as it was told.
    floor: u64,
    round: Option<Round>,
    /// The transaction that is under way.
    under_way: Option<Transaction>,
    /// No other transaction before.
    not_before: Option<Instant>,
    /// The store leaves it to others until then.
    unfit_until: Option<Instant>,
    /// A fence that was seen elsewhere.
    outranked: u64,
    /// A person wants the store to be the primary, whatever is known of the others.
    forced: Option<Forced>,
    /// With this fence it leads only as something was given up, of which people are told then.
    manner: Option<(u64, Event)>,
    tally: Tally,
    /// The last fence that it led with; 0: none.
    has_led: u64,
    /// Processes that are the primary's slaves, as far as it has said.
    followed: Vec<Pid>,
    /// The primary that was told of last.
    told: Option<Option<Leader>>,
    /// A key that is not understood, and was told of.
    unreadable: Option<Key>,
    questions: u64,
    now: Instant,
    outputs: VecDeque<Output>,
}

impl Succession {
    /// Of a store's process that has just started. It asks for a lease at once.
    pub fn new(config: Config, now: Instant) -> Self {
        let tally = Tally::new(0, config.confirm, Arc::clone(&config.me.node));
        let mut succession = Self {
            config,
            phase: Phase::Apart,
            since: now,
            lease: Lease::None { ask_at: Some(now) },
            lost_at: None,
            known: None,
            namesake: Namesake::default(),
            contact: None,
            floor: 0,
            round: None,
            under_way: None,
            not_before: None,
            unfit_until: None,
            outranked: 0,
            forced: None,
            manner: None,
            tally,
            has_led: 0,
            followed: Vec::new(),
            told: None,
            unreadable: None,
            questions: 0,
            now,
            outputs: VecDeque::new(),
        };
        succession.decide(now);
        succession
    }

    /// Until when the store is the primary by its own clock, if nothing more is heard of its lease: before that it takes writes of
    /// callers, and confirms them. `None`: it is not the primary. To be compared with the clock before each write is taken, and before each
    /// is confirmed.
    pub fn leads_until(&self) -> Option<Instant> {
        match (&self.phase, self.lease) {
            (Phase::Leading { .. }, _) if planted(Rule::OwnClock) => Some(self.now + Duration::from_secs(60)),
            (Phase::Leading { .. }, Lease::Held { until, .. }) => until.checked_sub(MARGIN),
            _ => None,
        }
    }

    /// The fence with which it leads, as far as it knows at the time of its last input.
    pub const fn leads(&self) -> Option<u64> {
        if let Phase::Leading { fence } = self.phase { Some(fence) } else { None }
    }

    /// Whether the acknowledgements of a node's slave count.
    pub fn counts(&self, node: &str) -> bool {
        self.leads().is_some() && self.tally.counts(node)
    }

    /// Whether a node is there, as far as etcd says. The slave of another one may make room.
    pub fn is_there(&self, node: &str) -> bool {
        self.known.as_ref().is_none_or(|known| known.reports.contains_key(node))
    }

    /// Processes that are the primary's slaves, as far as it has said.
    pub fn followed(&self) -> &[Pid] {
        &self.followed
    }

    /// How it stands, to be shown.
    pub fn view(&self) -> View {
        let known = self.known.as_ref();
        let record = known.and_then(|known| known.record.record.as_ref());
        let leader = known.and_then(|known| known.leader().cloned());
        let role = match &self.phase {
            Phase::Promoting { .. } => Role::Promoting,
            Phase::Leading { .. } => Role::Primary,
            Phase::Leaving { .. } | Phase::Over => Role::Leaving,
            Phase::Apart if leader.is_some() => Role::Slave,
            Phase::Apart if record.is_some() => Role::Choosing,
            Phase::Apart => Role::Starting,
        };
        let count = self.round.as_ref().and_then(|_| Some(choice::count(record?, known?)));
        let missing =
            |count: &choice::Count| count.missing.iter().map(|missing| Arc::clone(&missing.node)).collect();
        View {
            role,
            since: self.since,
            fence: known.map_or(0, Known::fence),
            leader,
            members: record.map(|record| record.base.members.clone()).unwrap_or_default(),
            missing: count.as_ref().map(missing).unwrap_or_default(),
            round: count.map(|count| (count.counted, count.needed)),
        }
    }

    /// Whether it has ended: there is nothing more to be done.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Time`] is to be handed in, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let round = self.round.iter().flat_map(|round| {
            let is_recorded = round.after > 0;
            let found = (!is_recorded).then_some(FOUND_AFTER);
            let waits = [SETTLE, SETTLE_FORMER, SETTLE_UNCONFIRMED, LOSSY_AFTER, SAY_AFTER]
                .map(|wait| is_recorded.then_some(wait));
            waits.into_iter().chain([found]).flatten().map(|wait| round.began + wait)
        });
        let leaving = if let Phase::Leaving { until, .. } = self.phase { Some(until) } else { None };
        let contact = self.contact.as_ref().and_then(Contact::due);
        let tally = self.leads().and_then(|_| self.tally.due());
        let forced = self.forced.as_ref().map(|forced| forced.until);
        let others = [self.not_before, self.unfit_until, forced, leaving, contact, tally];
        let others = others.into_iter().flatten();
        let all = self.lease.due().into_iter().flatten().chain(round).chain(others);
        // What was due before is done.
        all.filter(|at| *at > self.now).min().filter(|_| !self.is_over())
    }

    /// Something has come.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        if self.is_over() {
            return;
        }
        match input {
            Input::Keys { revision, entries } => {
                let before = self.known.take();
                if before.is_none() {
                    self.namesake.first_read(revision);
                }
                self.known = Some(Known::new(&self.config.me, revision, entries, before));
            }
            Input::RolledBack => self.known = None,
            Input::Changed(changes) => {
                if let Some(known) = &mut self.known {
                    changes.into_iter().for_each(|change| known.changed(change));
                }
            }
            Input::Granted { question, lease } => {
                lease.iter().for_each(|(lease, _)| self.namesake.leased(*lease));
                self.lease.granted(question, lease, now);
            }
            Input::LeaseUntil(until) => self.lease.told(until, now),
            Input::Transacted { question, answer } => self.transacted(question, answer, now),
            Input::Sealed { question, holds, term } => {
                if let Some(round) = self.round.as_mut().filter(|round| round.question == question) {
                    round.sealed = Some((holds, term));
                }
            }
            Input::Led { question, is_done } => self.led(question, is_done, now),
            Input::Slaves { seq, slaves } => self.tally.told_of(seq, slaves),
            Input::Fence(fence) => self.outranked = self.outranked.max(fence),
            Input::Connected { question, creation } => {
                self.contact.iter_mut().for_each(|contact| contact.connected(question, creation));
            }
            Input::NotConnected { question, is_gone } => {
                self.contact.iter_mut().for_each(|contact| contact.not_connected(question, is_gone, now));
            }
            Input::Disconnected { question } => {
                self.contact.iter_mut().for_each(|contact| contact.disconnected(question, now));
            }
            Input::Force => self.force(now),
            Input::ForceWithdrawn => self.forced = None,
            Input::Leave => self.leave(now),
            Input::Time => {}
        }
        self.decide(now);
    }

    fn transacted(&mut self, asked: u64, answer: Transacted, now: Instant) {
        let Some(transaction) = self.under_way.take_if(|under_way| under_way.question == asked) else {
            return;
        };
        self.not_before = None;
        self.tried(&transaction, answer);
        match answer {
            Transacted::Done { revision } => {
                let Some(known) = &mut self.known else { return };
                for key in &transaction.deletes {
                    known.gone(key, revision);
                }
                for (key, value, lease) in transaction.puts {
                    known.put(revision, Entry { key, value, mod_revision: revision, lease });
                }
            }
            // The watch tells what is another, or whether it was done.
            Transacted::Lost => self.not_before = Some(now + PAUSE_LOST),
            Transacted::Failed | Transacted::Refused => self.not_before = Some(now + PAUSE),
        }
    }

    fn led(&mut self, asked: u64, is_done: bool, now: Instant) {
        let Phase::Promoting { question, fence } = self.phase else { return };
        if question != asked {
            return;
        }
        if is_done && self.has_key(now) {
            self.enter(Phase::Leading { fence });
            self.has_led = fence;
            self.log(Event::Leads { fence });
            let record = self.known.as_ref().and_then(|known| known.record.record.as_ref());
            let (was, is) = (record.map(|record| record.base.confirm), self.config.confirm);
            if let Some(was) = was.filter(|was| *was != is) {
                self.log(Event::ConfirmDiffers { was, is });
            }
        } else if !is_done {
            self.unfit_until = Some(now + UNFIT);
            self.step_down(SteppedDown::Unfit);
        }
    }

    fn enter(&mut self, phase: Phase) {
        (self.phase, self.since) = (phase, self.now);
    }

    /// Does what follows from what is known.
    fn decide(&mut self, now: Instant) {
        if let Phase::Leaving { fence, until } = self.phase {
            return self.keep_leaving(fence, until, now);
        }
        if self.is_over() {
            return;
        }
        if self.lease.drop_ended(now) {
            let question = self.next_question();
            self.lease = Lease::Asked { question };
            self.outputs.push_back(Output::Lease { question });
            self.lost_at = self.known.as_ref().map(Known::fence);
        }
        self.not_before.take_if(|at| *at <= now);
        self.unfit_until.take_if(|at| *at <= now);
        self.keep_contact(now);
        self.keep_phase(now);
        self.keep_forced(now);
        self.keep_sealed(now);
        self.say_unreadable();
        self.say_namesake();
        if self.under_way.is_none() && self.not_before.is_none() {
            self.transact(now);
        }
        if self.leads().is_some() {
            self.count();
        }
        self.tell_of_leader();
    }

    /// Becomes the primary where the key is its own, and steps down where it is not.
    fn keep_phase(&mut self, now: Instant) {
        let fence = self.own_fence(now);
        match self.phase {
            Phase::Promoting { fence: has, .. } | Phase::Leading { fence: has } if fence != Some(has) => {
                let why = if self.outranked > has {
                    SteppedDown::Fence
                } else if self.lease.lasting(now).is_none() {
                    SteppedDown::Lease
                } else {
                    SteppedDown::Key
                };
                if !planted(Rule::KeyIsLost) || why == SteppedDown::Lease {
                    self.step_down(why);
                }
            }
            Phase::Apart => {
                if let Some(fence) = fence.filter(|_| self.unfit_until.is_none()) {
                    self.lead(fence);
                }
            }
            _ => {}
        }
    }

    fn lead(&mut self, fence: u64) {
        let Some(known) = &self.known else { return };
        let me = Life::of(&self.config.me);
        let former = known.record.record.iter().flat_map(|record| &record.former);
        let former = former.filter(|life| **life != me).cloned().collect();
        let others = known.reports.values().map(|key| &key.report.pid);
        let others: Vec<Pid> = others.filter(|pid| **pid != self.config.me).cloned().collect();
        self.followed.clone_from(&others);
        self.tally = Tally::new(fence, self.config.confirm, Arc::clone(&self.config.me.node));
        self.round = None;
        self.floor = self.floor.max(fence);
        let question = self.next_question();
        self.enter(Phase::Promoting { question, fence });
        self.told = None;
        if let Some((_, event)) = self.manner.take().filter(|(taken, _)| *taken == fence) {
            self.log(event);
        }
        self.outputs.push_back(Output::Lead { question, fence, former, others });
    }

    fn step_down(&mut self, why: SteppedDown) {
        let (Phase::Promoting { fence, .. } | Phase::Leading { fence }) = self.phase else { return };
        self.enter(Phase::Apart);
        self.end_force(why.into());
        let to = self.other().cloned();
        self.told = Some(to.clone());
        self.outputs.push_back(Output::StepDown { to });
        self.log(Event::SteppedDown { fence, why });
    }

    /// What counts at a primary, and which other processes are to be its slaves.
    fn count(&mut self) {
        let Some(known) = &self.known else { return };
        if let Some(record) = &known.record.record {
            self.tally.recorded(record);
            if let Some(counting) = self.tally.counting(record) {
                self.outputs.push_back(Output::Count(counting.clone()));
                self.outputs.push_back(Output::Log(Event::Counted(counting)));
            }
        }
        let all = known.reports.values().map(|key| &key.report.pid);
        let all: Vec<Pid> = all.filter(|pid| **pid != self.config.me).cloned().collect();
        let new = all.iter().filter(|pid| !self.followed.contains(pid));
        self.outputs.extend(new.cloned().map(Output::Follow));
        self.followed = all;
    }

    /// Seals the store against primaries that are gone, and begins a round or ends it.
    fn keep_sealed(&mut self, now: Instant) {
        let Some(known) = &self.known else { return };
        let is_choosing =
            self.phase == Phase::Apart && known.leader.is_none() && !known.record.is_unreadable();
        let after = known.fence();
        let goes_on = self.round.as_ref().is_some_and(|round| is_choosing && round.after == after);
        if goes_on {
            return;
        }
        self.round = None;
        if is_choosing {
            let question = self.next_question();
            let is_new = |since| now.duration_since(since) < NEW_LEASE;
            let is_after_outage = self.lost_at == Some(after) && self.lease.since().is_none_or(is_new);
            self.round =
                Some(Round { after, began: now, is_after_outage, question, sealed: None, is_said: false });
            self.floor = self.floor.max(after.saturating_add(1));
            self.outputs.push_back(Output::Seal { question, floor: self.floor });
            if after > 0 {
                self.log(Event::RoundBegan { after });
            }
        } else if self.phase == Phase::Apart && after > self.floor {
            self.floor = after;
            let question = self.next_question();
            self.outputs.push_back(Output::Seal { question, floor: after });
        }
    }

    /// Begins the next transaction, where one is to be.
    fn transact(&mut self, now: Instant) {
        let Some(lease) = self.lease.lasting(now) else { return };
        if self.depose(|of| of.is_free(lease)) || self.take(lease, now) || self.report(lease) {
            return;
        }
        if self.leads().is_some()
            && let Some(known) = &self.known
            && let Some(record) = &known.record.record
            && let Some(wanted) = self.tally.wanted(record, now)
        {
            let leader = known.leader.as_ref().map_or(0, |key| key.mod_revision);
            let compare = vec![(Key::Leader, leader), (Key::Record, known.record.mod_revision)];
            let puts = vec![(Key::Record, wanted.write(), 0)];
            self.begin(compare, puts, Vec::new());
        }
    }

    fn begin(&mut self, compare: Vec<(Key, i64)>, puts: Vec<(Key, Vec<u8>, i64)>, deletes: Vec<Key>) {
        let question = self.next_question();
        let compare = if planted(Rule::Compared) { Vec::new() } else { compare };
        let transaction = Transaction { question, compare, puts, deletes };
        self.under_way = Some(transaction.clone());
        self.outputs.push_back(Output::Transact(transaction));
    }

    /// Deletes the primary's key where its node is gone: then all nodes see that the round begins.
    fn depose(&mut self, is_due: impl FnOnce(&Self) -> bool) -> bool {
        let Some(key) = self.known.as_ref().and_then(|known| known.leader.as_ref()) else { return false };
        let compare = vec![(Key::Leader, key.mod_revision)];
        if !is_due(self) {
            return false;
        }
        self.begin(compare, Vec::new(), vec![Key::Leader]);
        true
    }

    /// Whether the primary's key is nobody's that is there.
    fn is_free(&self, lease: i64) -> bool {
        let Some(key) = self.known.as_ref().and_then(|known| known.leader.as_ref()) else { return false };
        let Some(Leader { pid, fence }) = &key.leader else { return key.lease == 0 };
        let is_own = *pid == self.config.me && key.lease == lease;
        let is_gone = || {
            let contact = self.contact.as_ref().filter(|contact| contact.is_with(&Life::of(pid)));
            contact.is_some_and(|contact| contact.is_gone(key.mod_revision))
        };
        // This node's with another lease, or an earlier process's of this node; or this one's, which could not be promoted, or where
        // another store leads by a person's hand.
        key.lease == 0
            || pid.node == self.config.me.node
                && !is_own
                && !self.is_namesake(pid, key.lease, key.mod_revision)
            || is_own && (self.unfit_until.is_some() || self.outranked > *fence)
            || is_gone()
    }

    /// Looks after the connection to the node of another that leads.
    fn keep_contact(&mut self, now: Instant) {
        let key = self.known.as_ref().and_then(|known| known.leader.as_ref());
        let other = key.and_then(|key| Some((Life::of(&key.leader.as_ref()?.pid), key.mod_revision)));
        let Some((life, revision)) = other.filter(|(life, _)| life.node != self.config.me.node) else {
            self.contact = None;
            return;
        };
        let contact = match self.contact.take().filter(|contact| contact.is_with(&life)) {
            Some(contact) => contact,
            None => Contact::new(life, revision, now),
        };
        let contact = self.contact.insert(contact);
        contact.seen(revision, now);
        if contact.wants_dial(now) {
            self.questions += 1;
            let (question, node) = contact.dial(self.questions);
            self.outputs.push_back(Output::Dial { question, node });
        }
    }

    /// The fence of the key, where it is this process's, with a lease that lasts.
    fn own_fence(&self, now: Instant) -> Option<u64> {
        let key = self.known.as_ref()?.leader.as_ref()?;
        let leader = key.leader.as_ref().filter(|leader| leader.pid == self.config.me)?;
        let is_held = self.lease.lasting(now) == Some(key.lease) && self.outranked <= leader.fence;
        is_held.then_some(leader.fence)
    }

    fn has_key(&self, now: Instant) -> bool {
        self.own_fence(now).is_some()
    }

    /// Another process that has the key.
    fn other(&self) -> Option<&Leader> {
        self.known.as_ref()?.leader().filter(|leader| leader.pid != self.config.me)
    }

    fn say_unreadable(&mut self) {
        let Some(known) = &self.known else { return };
        let key = if known.record.is_unreadable() {
            Some(Key::Record)
        } else {
            known.leader.as_ref().filter(|key| key.leader.is_none()).map(|_| Key::Leader)
        };
        if self.unreadable != key {
            self.unreadable.clone_from(&key);
            self.outputs.extend(key.map(|key| Output::Log(Event::Unreadable(key))));
        }
    }

    fn tell_of_leader(&mut self) {
        if self.phase != Phase::Apart {
            return;
        }
        let Some(known) = &self.known else { return };
        let leader = known.leader().filter(|leader| leader.pid != self.config.me).cloned();
        if self.told.as_ref() != Some(&leader) {
            self.told = Some(leader.clone());
            self.outputs.push_back(Output::LedBy(leader));
        }
    }

    fn log(&mut self, event: Event) {
        self.outputs.push_back(Output::Log(event));
    }

    const fn next_question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }
}

#[cfg(test)]
mod tests;
