//! What `kv/downstream` does for one slave, step by step: each `await` there is the end of a
//! turn here, so that anything may happen before the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvnode::distribution::{DistributionFlags, Outbound, RemoteProcess, ServerRef};
use kvnode::etf::{Pid, Reference, TermView};
use kvnode::kv::{FollowSlave, SlaveAdded, SlaveFeed};
use kvnode::process::{FedNode, Feed, Feeding, More, Outcome};
use kvnode::replica::{Dialect, Lineage, Refusal, Said, Slave, SlaveName, SlaveState, Source, Standing};
use parking_lot::Mutex;

use super::network::Item;
use super::node::frames_of;
use super::world::World;

/// As in `kv/downstream`.
const ADDED_LIMIT: Duration = Duration::from_secs(1);
const CROSSING_PAUSE_MILLIS: u64 = 10;
/// About what a replicated write takes as a frame.
const MESSAGE_BYTES: usize = 100;
/// As in `kv/downstream/greeting.rs`.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// What has come for the follower of a slave.
enum News {
    /// The monitor of the slave has fired.
    Down(Outcome),
    /// The greeting is answered: which, and how.
    Answer(u64, Outcome),
}

enum Phase {
    /// It is looked for again then.
    Pause(Instant),
    /// A node was asked where its name is.
    Finding { node: usize },
    /// It was found there, and is watched.
    Watching(Watch),
}

struct Watch {
    at: Pid,
    monitor: Reference,
    stage: Stage,
}

enum Stage {
    /// To be greeted.
    Found,
    /// Its node was asked what it is, when the store was this.
    Known(Lineage),
    Greeted {
        lineage: Lineage,
        session: u64,
        call: Reference,
        until: Instant,
    },
    /// It is about to have a slave itself: to be greeted again then.
    Crossing(Instant),
    Tended,
}

/// How a watch has ended.
#[derive(Debug)]
enum Left {
    Dropped,
    Renewed,
    Gone { is_down: bool },
    Refused(Refusal),
    NotGreeted,
}

/// The follower of one slave.
pub struct Follow {
    pub slave: Arc<Slave>,
    feed: Arc<SlaveFeed>,
    added: Option<SlaveAdded>,
    added_due: Instant,
    phase: Phase,
    /// Where it was watched last.
    watched: Option<Pid>,
    /// Counts what was asked of others: an answer to an earlier question is none.
    question: u64,
    news: Arc<Mutex<Vec<News>>>,
    poked: Arc<AtomicBool>,
    /// A repair goes on.
    goes_on: bool,
    /// The store has been told that a greeting is under way.
    under_way: bool,
}

impl Follow {
    pub fn new(FollowSlave { feed, added, .. }: FollowSlave, now: Instant) -> Self {
        Self {
            slave: Arc::clone(feed.slave()),
            feed,
            added,
            added_due: now + ADDED_LIMIT,
            phase: Phase::Pause(now),
            watched: None,
            question: 0,
            news: Arc::default(),
            poked: Arc::default(),
            goes_on: false,
            under_way: false,
        }
    }

    /// When it has something to do, if nothing else happens; `Some(now)`: it has.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let added = self.added.as_ref().map(|_| self.added_due);
        let phase = match &self.phase {
            _ if !self.news.lock().is_empty() => Some(now),
            Phase::Pause(until) => Some(*until),
            Phase::Finding { .. } => None,
            Phase::Watching(watch) => match watch.stage {
                Stage::Found | Stage::Known(_) => Some(now),
                Stage::Greeted { until, .. } | Stage::Crossing(until) => Some(until),
                Stage::Tended if self.goes_on || self.poked.load(Ordering::Relaxed) => Some(now),
                Stage::Tended => self.slave.acknowledge_due(),
            },
        };
        added.into_iter().chain(phase).min()
    }

    fn settle(&mut self, refusal: Option<Refusal>) -> bool {
        let Some(SlaveAdded(done)) = self.added.take() else { return false };
        done(refusal);
        true
    }
}

impl World {
    /// A turn of a follower; what it does then is carried out by the caller.
    pub fn turn(&mut self, node: usize, slot: usize) {
        let Some(mut follow) = self.life_mut(node).follows[slot].take() else { return };
        if self.now >= follow.added_due {
            follow.settle(None);
        }
        let goes_on = match &follow.phase {
            Phase::Pause(until) if self.now < *until => true,
            Phase::Pause(_) => self.find(node, slot, &mut follow),
            Phase::Finding { .. } => true,
            Phase::Watching(_) => self.watch_on(node, &mut follow),
        };
        if goes_on {
            self.life_mut(node).follows[slot] = Some(follow);
        } else {
            follow.settle(None);
        }
    }

    /// Looks for the slave; gives whether it is still followed.
    fn find(&mut self, node: usize, slot: usize, follow: &mut Follow) -> bool {
        if follow.slave.state() == SlaveState::Dropped {
            if let Some(at) = follow.watched.take()
                && !is_followed(self.life(node).source(), &follow.slave, &at)
                && self.is_up(node, self.node_named(&at.node))
            {
                self.bye(node, &follow.slave, &at);
            }
            return false;
        }
        let at = match follow.slave.name().clone() {
            SlaveName::Pid(pid) => Some(pid),
            SlaveName::Remote { name, node: host } if host != self.nodes[node].name => {
                let other = self.node_named(&host);
                if !self.connect(node, other) {
                    self.missing(node, follow, None);
                    return true;
                }
                follow.question += 1;
                follow.phase = Phase::Finding { node: other };
                let question = (slot, follow.question);
                self.send(node, other, Item::WhereIs { name, question });
                return true;
            }
            SlaveName::Remote { name, .. } | SlaveName::Local(name) => {
                self.life(node).registry.by_name(&name).map(|(_, process)| process.pid.clone())
            }
            SlaveName::Global(_) => unreachable!("no slave here is named so"),
        };
        self.found_at(node, follow, at)
    }

    /// A node has said where a name is.
    pub fn is_at(&mut self, node: usize, (slot, question): (usize, u64), at: Option<Pid>) {
        let Some(mut follow) = self.life_mut(node).follows[slot].take() else { return };
        let waits = matches!(follow.phase, Phase::Finding { .. }) && follow.question == question;
        if !waits || self.found_at(node, &mut follow, at) {
            self.life_mut(node).follows[slot] = Some(follow);
        } else {
            follow.settle(None);
        }
    }

    /// The connection to a node is lost: it does not say any more where names are.
    pub fn not_said(&mut self, node: usize, by: usize) {
        for slot in 0..self.life(node).follows.len() {
            let asked =
                |follow: &mut Box<Follow>| matches!(follow.phase, Phase::Finding { node } if node == by);
            if let Some(mut follow) = self.life_mut(node).follows[slot].take_if(asked) {
                self.missing(node, &mut follow, None);
                self.life_mut(node).follows[slot] = Some(follow);
            }
        }
    }

    fn found_at(&mut self, node: usize, follow: &mut Follow, at: Option<Pid>) -> bool {
        let Some(at) = at else {
            self.missing(node, follow, None);
            return true;
        };
        let life = self.life(node);
        if life.registry.by_owned_pid(&at).is_some_and(|process| process.is_sibling(&life.store)) {
            follow.slave.drop_out();
            life.source().slave_dropped();
            follow.settle(Some(Refusal::Itself));
            return false;
        }
        let other = self.node_named(&at.node);
        if other == node {
            // The node's connection to itself says at once that a former life's process is none.
            follow.slave.drop_out();
            return false;
        }
        if !self.connect(node, other) {
            self.missing(node, follow, None);
            return true;
        }
        let life = self.life(node);
        let monitor = life.registry.new_reference();
        let news = Arc::clone(&follow.news);
        news.lock().clear();
        life.waiters.expect(&monitor, &at.node, move |outcome| news.lock().push(News::Down(outcome)));
        let mut frames = Outbound::default();
        frames.monitor(&life.store.pid, &RemoteProcess::Pid(at.clone()), &monitor);
        self.send_frames(node, other, &mut frames);
        follow.watched = Some(at.clone());
        follow.phase = Phase::Watching(Watch { at, monitor, stage: Stage::Found });
        true
    }

    /// Goes on with a slave that was found.
    fn watch_on(&mut self, node: usize, follow: &mut Follow) -> bool {
        let news = std::mem::take(&mut *follow.news.lock());
        let mut answer = None;
        for news in news {
            match news {
                News::Down(outcome) => {
                    let is_down = matches!(outcome, Outcome::Down(_));
                    return self.leave(node, follow, Left::Gone { is_down });
                }
                News::Answer(question, outcome) if question == follow.question => answer = Some(outcome),
                News::Answer(..) => {}
            }
        }
        let Phase::Watching(watch) = &mut follow.phase else { return true };
        let left = match &watch.stage {
            Stage::Found => self.prepare_greeting(node, follow),
            Stage::Known(lineage) => {
                let lineage = lineage.clone();
                self.greet(node, follow, lineage);
                None
            }
            Stage::Greeted { .. } => self.greeted(node, follow, answer),
            Stage::Crossing(until) => {
                if self.now >= *until {
                    watch.stage = Stage::Found;
                }
                None
            }
            Stage::Tended => self.tend(node, follow),
        };
        left.is_none_or(|left| self.leave(node, follow, left))
    }

    fn prepare_greeting(&mut self, node: usize, follow: &mut Follow) -> Option<Left> {
        let life = self.life(node);
        let Phase::Watching(watch) = &mut follow.phase else { return None };
        if follow.slave.state() == SlaveState::Dropped {
            return Some(Left::Dropped);
        }
        let other = other_at(life.source(), &follow.slave, &watch.at, None);
        if other.is_some_and(|other| !outlives(&follow.slave, &other))
            && is_another(life.source(), &follow.slave, &watch.at, None)
        {
            return Some(Left::Dropped);
        }
        life.source().greeting(true);
        follow.under_way = true;
        watch.stage = Stage::Known(life.source().lineage()?);
        None
    }

    fn greet(&mut self, node: usize, follow: &mut Follow, lineage: Lineage) {
        let now = self.now;
        let life = self.life(node);
        let Phase::Watching(watch) = &mut follow.phase else { return };
        let (slave, source) = (&follow.slave, life.source());
        let session = slave.next_session(lineage.incarnation());
        let (seq, slaves) = (source.seq(), source.slaves());
        let fresh = slave.protects_data() && source.started_empty();
        let own_node = &self.nodes[node].name;
        let call = life.registry.new_reference();
        follow.question += 1;
        let (news, question) = (Arc::clone(&follow.news), follow.question);
        life.waiters.expect_reply(&call, &watch.at.node, move |outcome| {
            news.lock().push(News::Answer(question, outcome));
        });
        let at = RemoteProcess::Pid(watch.at.clone());
        let mut frames = Outbound::default();
        frames.monitor(&life.store.pid, &at, &call);
        frames.send_to(&life.store.pid, &at, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&life.store.pid).list(1).atom("alias").reference(&call);
            w.tuple(7).atom("replica_hello").unsigned(session);
            lineage.write(w);
            w.unsigned(seq).list(1);
            self.nodes[node].store_name().write(w);
            w.nil().list(slaves.len());
            slaves.iter().for_each(|slave| slave.name().on(own_node).write(w));
            w.nil().atom(if fresh { "true" } else { "false" });
        });
        let other = self.node_named(&watch.at.node);
        watch.stage = Stage::Greeted { lineage, session, call, until: now + GREETING_LIMIT };
        self.send_frames(node, other, &mut frames);
    }

    fn greeted(&mut self, node: usize, follow: &mut Follow, answer: Option<Outcome>) -> Option<Left> {
        let Phase::Watching(Watch { at, stage, .. }) = &mut follow.phase else { return None };
        let Stage::Greeted { lineage, session, call, until } = &*stage else { return None };
        if answer.is_none() && self.now < *until {
            return None;
        }
        let (lineage, session, call, at) = (lineage.clone(), *session, call.clone(), at.clone());
        // Whatever has come of the call, its monitor is taken back.
        self.life(node).waiters.cancel(&call);
        self.demonitor(node, &at, &call);
        let Some(Outcome::Replied(answer)) = answer else {
            self.counts.unanswered += 1;
            return Some(Left::NotGreeted);
        };
        let pause = CROSSING_PAUSE_MILLIS + self.random.below(CROSSING_PAUSE_MILLIS);
        let life = self.life(node);
        let is_as_it_was = life.source().lineage().as_ref() == Some(&lineage);
        match read_greeted(answer.view()).expect("an answer to a greeting") {
            Err(refusal) if refusal == Refusal::Crossing || !is_as_it_was => {
                follow.slave.not_taken(session);
                life.source().greeting(false);
                follow.under_way = false;
                *stage = Stage::Crossing(self.now + Duration::from_millis(pause));
                self.counts.crossing += 1;
                None
            }
            Err(refusal) => {
                follow.slave.not_taken(session);
                Some(Left::Refused(refusal))
            }
            Ok(said) => {
                if is_another(life.source(), &follow.slave, &at, Some(said.incarnation)) {
                    return Some(Left::Dropped);
                }
                let incarnation = lineage.incarnation();
                let at = RemoteProcess::Pid(at);
                follow.slave.found_kvnode(at.clone(), session, incarnation, said);
                for other in life.source().slaves().iter().filter(|other| !Arc::ptr_eq(other, &follow.slave))
                {
                    other.forget(&at, Some(said.incarnation));
                }
                life.source().greeting(false);
                follow.under_way = false;
                if life.source().lineage().as_ref() != Some(&lineage) {
                    return Some(Left::Renewed);
                }
                *stage = Stage::Tended;
                follow.settle(None);
                let poked = Arc::clone(&follow.poked);
                // Its first turn is due at once.
                poked.store(true, Ordering::Relaxed);
                follow.slave.on_change(Box::new(move || poked.store(true, Ordering::Relaxed)));
                None
            }
        }
    }

    /// A round of what the follower of a slave does each time that it wakes.
    fn tend(&mut self, node: usize, follow: &mut Follow) -> Option<Left> {
        follow.poked.store(false, Ordering::Relaxed);
        let slave = Arc::clone(&follow.slave);
        if slave.state() == SlaveState::Dropped {
            return Some(Left::Dropped);
        }
        if slave.is_renewed() {
            self.counts.renewed += 1;
            return Some(Left::Renewed);
        }
        if slave.take_news() {
            self.tell_of_siblings(node, follow);
        }
        slave.catch_up(self.now);
        assert!(!slave.begin_sweep(), "a kvnode's keys are not read");
        let life = self.life(node);
        let repairing = slave.scan(life.source());
        if repairing {
            slave.refill(life.source());
        }
        let feed = Arc::clone(&follow.feed) as Arc<dyn Feed>;
        if let Some(to) = follow.feed.node() {
            self.feed(node, &to, &feed);
        }
        follow.goes_on = repairing && slave.has_room();
        None
    }

    fn tell_of_siblings(&mut self, node: usize, follow: &Follow) {
        let Phase::Watching(watch) = &follow.phase else { return };
        let Dialect::Kvnode { session } = follow.slave.dialect() else { return };
        let (other, mut frames) = (self.node_named(&watch.at.node), Outbound::default());
        let (life, own_node) = (self.life(node), &self.nodes[node].name);
        let slaves = life.source().slaves();
        frames.send_to(&life.store.pid, &RemoteProcess::Pid(watch.at.clone()), |w| {
            w.tuple(2).atom("$gen_cast").tuple(3).atom("replica_slaves").unsigned(session).list(slaves.len());
            slaves.iter().for_each(|slave| slave.name().on(own_node).write(w));
            w.nil();
        });
        self.send_frames(node, other, &mut frames);
    }

    /// A watch has ended; gives whether the slave is still followed.
    fn leave(&mut self, node: usize, follow: &mut Follow, left: Left) -> bool {
        let now = self.now;
        tracing::debug!(node, slave = %follow.slave.name(), ?left, "watched no more");
        let phase = std::mem::replace(&mut follow.phase, Phase::Pause(now));
        let Phase::Watching(watch) = phase else { return true };
        let slave = Arc::clone(&follow.slave);
        follow.goes_on = false;
        let life = self.life(node);
        if std::mem::take(&mut follow.under_way) {
            life.source().greeting(false);
        }
        if let Stage::Greeted { call, .. } = &watch.stage {
            life.waiters.cancel(call);
        }
        let is_final = matches!(left, Left::Refused(refusal) if refusal.is_final());
        let is_left = matches!(left, Left::Dropped) && !is_followed(life.source(), &slave, &watch.at);
        if is_final || is_left {
            self.bye(node, &slave, &watch.at);
        }
        let life = self.life(node);
        life.waiters.cancel(&watch.monitor);
        follow.feed.gone();
        life.source().acknowledged();
        if !matches!(left, Left::Gone { .. }) {
            self.demonitor(node, &watch.at, &watch.monitor);
        }
        if let Left::Refused(refusal) = left {
            self.counts.refused(refusal);
        }
        let life = self.life(node);
        if matches!(slave.name(), SlaveName::Pid(_)) && matches!(left, Left::Gone { is_down: true }) {
            slave.drop_out();
            return false;
        }
        match left {
            Left::Renewed => return true,
            Left::Dropped | Left::Gone { .. } => self.pause(follow),
            Left::NotGreeted => self.missing(node, follow, None),
            Left::Refused(refusal) => {
                if is_final {
                    slave.refused(refusal);
                    follow.settle(Some(refusal));
                    life.source().slave_dropped();
                    return false;
                }
                if follow.settle(Some(refusal)) {
                    slave.drop_out();
                    life.source().slave_dropped();
                    return false;
                }
                self.missing(node, follow, Some(refusal));
            }
        }
        true
    }

    /// It is not followed, and looked for again after a while.
    fn missing(&mut self, _node: usize, follow: &mut Follow, refusal: Option<Refusal>) {
        if let Some(refusal) = refusal {
            follow.slave.refused(refusal);
        }
        follow.slave.failed("missing");
        self.pause(follow);
    }

    fn pause(&mut self, follow: &mut Follow) {
        follow.settle(None);
        let is_known = matches!(follow.slave.standing(), Standing::Gone { .. });
        let pause = 100 + self.random.below(if is_known { 900 } else { 5_000 });
        follow.phase = Phase::Pause(self.now + Duration::from_millis(pause));
    }

    /// A node has come up: who waits looks again, a first pause later.
    pub fn arrival(&mut self, node: usize) {
        let soon = self.now + Duration::from_millis(100);
        for follow in self.life_mut(node).follows.iter_mut().flatten() {
            if let Phase::Pause(until) = &mut follow.phase {
                *until = soon.min(*until);
            }
        }
    }

    fn bye(&mut self, node: usize, slave: &Slave, at: &Pid) {
        tracing::debug!(node, slave = %slave.name(), sessions = ?slave.sessions(), "bye");
        let (other, mut frames) = (self.node_named(&at.node), Outbound::default());
        for session in slave.sessions() {
            frames.send_to(&self.life(node).store.pid, &RemoteProcess::Pid(at.clone()), |w| {
                w.tuple(2).atom("$gen_cast").tuple(2).atom("replica_bye").unsigned(session);
            });
        }
        self.counts.byes += 1;
        self.send_frames(node, other, &mut frames);
    }

    fn demonitor(&mut self, node: usize, at: &Pid, monitor: &Reference) {
        let (other, mut frames) = (self.node_named(&at.node), Outbound::default());
        frames.demonitor(&self.life(node).store.pid, &RemoteProcess::Pid(at.clone()), monitor);
        self.send_frames(node, other, &mut frames);
    }

    /// Asks a feed for what it has for a node, as far as the connection to that has room.
    pub fn feed(&mut self, node: usize, to: &Arc<str>, feed: &Arc<dyn Feed>) {
        let other = self.node_named(to);
        if !self.is_up(node, other) {
            return;
        }
        // One message always fits.
        let frames_bytes_max = self.random.below(12) as usize * MESSAGE_BYTES;
        if frames_bytes_max == 0 {
            return self.feed_later(node, to, feed);
        }
        let (now, life, mut frames) = (self.now, self.life(node), Outbound::default());
        let fed = FedNode { name: to, flags: DistributionFlags::OFFERED, frames_bytes_max, now };
        let more = feed.feed(&mut Feeding::new(fed, &mut frames, &life.registry, &life.waiters));
        if more == More::WhenRoom {
            self.feed_later(node, to, feed);
        }
        self.send_frames(node, other, &mut frames);
    }

    fn feed_later(&mut self, node: usize, to: &Arc<str>, feed: &Arc<dyn Feed>) {
        let hungry = &mut self.life_mut(node).hungry;
        if !hungry.iter().any(|(_, known)| Arc::ptr_eq(known, feed)) {
            hungry.push((Arc::clone(to), Arc::clone(feed)));
        }
    }

    pub fn send_frames(&mut self, node: usize, other: usize, frames: &mut Outbound) {
        for frame in frames_of(frames) {
            self.send(node, other, Item::Frame(frame));
        }
    }
}

/// Whether any other slave of the store is this process.
fn is_followed(source: &dyn Source, slave: &Arc<Slave>, at: &Pid) -> bool {
    other_at(source, slave, at, None).is_some()
}

/// Whether the process is followed under another name: then it is one slave, by the name that outlives a process.
fn is_another(source: &dyn Source, slave: &Arc<Slave>, at: &Pid, incarnation: Option<u64>) -> bool {
    let Some(other) = other_at(source, slave, at, incarnation) else { return false };
    let keep_this = outlives(slave, &other);
    if keep_this { &other } else { slave }.drop_out();
    if !keep_this && incarnation.is_some() {
        other.take_over(slave);
    }
    !keep_this
}

fn other_at(
    source: &dyn Source,
    slave: &Arc<Slave>,
    at: &Pid,
    incarnation: Option<u64>,
) -> Option<Arc<Slave>> {
    let at = RemoteProcess::Pid(at.clone());
    source.slaves().into_iter().find(|other| !Arc::ptr_eq(other, slave) && other.is_at(&at, incarnation))
}

/// Whether a slave is named by a name, and another by its pid.
fn outlives(slave: &Slave, other: &Slave) -> bool {
    matches!(other.name(), ServerRef::Pid(_)) && !matches!(slave.name(), ServerRef::Pid(_))
}

/// `{:ok, own, incarnation | :none, applied}`, with `:stepped_down` behind it or not, or `{:error, reason}`
fn read_greeted(answer: TermView<'_>) -> Option<Result<Said, Refusal>> {
    if let Some([_, reason]) = answer.as_tuple::<2>() {
        return Refusal::of_code(reason).map(Err);
    }
    let stepped_down = answer.as_tuple::<5>().is_some();
    let [own, had, applied] = match answer.as_tuple::<5>() {
        Some([_, own, had, applied, _]) => [own, had, applied],
        None => answer.as_tuple::<4>().map(|[_, own, had, applied]| [own, had, applied])?,
    };
    let (incarnation, applied) = (own.as_unsigned()?, applied.as_unsigned()?);
    Some(Ok(Said { incarnation, had: had.as_unsigned(), applied, stepped_down }))
}
