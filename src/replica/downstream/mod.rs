//! The primary's side of one slave, as a value: it is found by name, watched, greeted, fed and repaired, and found again
//! when it is gone. It says what is to be done; others do it and tell it what has come of it.
//!
//! ```text
//!            a pause is over            at a process            watched
//!   Seeking ----------------> Locating --------------> Watching --------> Found <---------+
//!    |   ^                       |                        |                 | it is time  |
//!    |   |   nobody, not known   |      not watched       |                 v             | crossing
//!    |   +-----------------------+------------------------+------------ Greeting ---------+
//!    |   ^                                                    refused, |    |
//!    |   |                                                not answered |    | taken, or of the protocol
//!    |   +-------------------------------------------------------------+    v
//!    |   +-------------------------------------------------------------- Streaming
//!    |           down, moved, to be greeted anew (in Found and Greeting, too)
//!    v
//!  Dropped: from every phase, once it was removed, is the store itself or another of its slaves, has ended and was named by
//!           its pid, or will never be a slave of this store
//! ```
//!
//! **How it is driven**, by one driver at a time:
//!
//! 1. [`handle`](Downstream::handle) each [`Input`] as it comes, and [`Input::Timeout`] once
//!    [`poll_timeout`](Downstream::poll_timeout) has come;
//! 2. then take all outputs by [`poll_output`](Downstream::poll_output), and carry them out in that order;
//! 3. then ask [`poll_timeout`](Downstream::poll_timeout) again: it hangs on what was carried out. One in the past says that
//!    there is more to do now: others that share the thread may have their turn first;
//! 4. until it [is over](Downstream::is_over). A driver that ends before [abandons](Downstream::abandon) it.
//!
//! What it owes on leaving a phase it pays in one place, `enter`: a watch that ends means that the slave is
//! [gone](Slave::gone), and the store knows of a greeting exactly while the phase is `Greeting`.
//!
//! The stream to the slave (its log, window, acknowledgements, and what it lacks) stands behind the lock of [`Slave`], as
//! writers and connections come by it too; the machine says when that goes on. What the store has to be told is told to the
//! [`Source`] at once instead of by an output: it must hold for the next slave's machine.

mod duplicates;
mod event;
mod face;
mod greet;
mod pauses;
mod phase;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::duplicates::other_at;
pub use self::event::{Event, Level, Missing};
pub use self::face::{Around, Input, KeysRead, Output};
use self::pauses::Pauses;
use self::phase::{End, Look, Phase, Stream, Watch};
use super::dialect::Dialect;
use super::greeting::KnownSlave;
use super::lineage::Refusal;
use super::planted::{Rule, planted};
use super::slave::{Slave, SlaveName};
use super::source::Source;
use super::standing::{SlaveState, Standing};
use crate::etf::Pid;

/// A slave that was watched for so long was really there.
const STEADY: Duration = Duration::from_secs(1);
/// A slave that was there once is looked for at least so often: when its node is back, so is it soon after.
const KNOWN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often it is looked whether a slave's name has gone to another process, while the one that had it is there.
const NAME_PAUSE: Duration = Duration::from_secs(2);
/// A stream that waits for its connection's room is announced again after so long.
const FEED_PAUSE: Duration = Duration::from_millis(1);
/// Whoever adds a slave is answered after so long, found or not.
const ADDED_LIMIT: Duration = Duration::from_secs(1);

/// What a machine is made with, beside its slave.
#[derive(Clone, Debug)]
pub struct DownstreamConfig {
    /// The store's node.
    pub node: Arc<str>,
    /// The first pause of a series of searches.
    pub pause_first: Duration,
    /// The longest.
    pub pause_max: Duration,
    /// Somebody waits to be told whether it is a slave: see [`Output::Settle`].
    pub is_awaited: bool,
}

/// The primary's side of one slave. See the [module](self).
#[derive(Debug)]
pub struct Downstream {
    slave: Arc<Slave>,
    node: Arc<str>,
    phase: Phase,
    /// The store knows that a greeting is under way.
    is_greeting: bool,
    /// Whoever had it added is answered then at the latest.
    added_until: Option<Instant>,
    /// Between searches for a slave that was never there.
    pauses: Pauses,
    /// The same, where it was there.
    known_pauses: Pauses,
    /// A node has come up since the last search began.
    has_arrived: bool,
    /// Why it was said to be missing last.
    said: String,
    /// A server of another kind: it stays one.
    foreign: Option<Pid>,
    /// Where it was watched last: it may be in a session there.
    watched: Option<Pid>,
    /// The last question.
    questions: u64,
    outputs: VecDeque<Output>,
}

impl Downstream {
    /// Of a slave that has just been added, and is looked for at once.
    pub fn new(slave: Arc<Slave>, config: &DownstreamConfig, now: Instant) -> Self {
        let (first, max) = (config.pause_first, config.pause_max);
        Self {
            slave,
            node: Arc::clone(&config.node),
            phase: Phase::Seeking { until: now, least: now },
            is_greeting: false,
            added_until: config.is_awaited.then(|| now + ADDED_LIMIT),
            pauses: Pauses::new(first, max),
            known_pauses: Pauses::new(first, max.min(KNOWN_PAUSE_MAX)),
            has_arrived: false,
            said: String::new(),
            foreign: None,
            watched: None,
            questions: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The slave.
    pub const fn slave(&self) -> &Arc<Slave> {
        &self.slave
    }

    /// Whether nothing will happen to it any more.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Dropped)
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due, if nothing else comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let look = match self.phase.watch() {
            Some(Watch { look: Look::At(due), .. }) => Some(*due),
            _ => None,
        };
        let own = match &self.phase {
            Phase::Seeking { until, .. } => Some(*until),
            Phase::Found { greet_at, .. } => Some(*greet_at),
            Phase::Streaming { stream, .. } => self.stream_due(stream),
            _ => None,
        };
        [self.added_until, look, own].into_iter().flatten().min()
    }

    fn stream_due(&self, stream: &Stream) -> Option<Instant> {
        if stream.sweeping.is_some() {
            return None;
        }
        let repair = stream.repaired.filter(|_| self.slave.has_room());
        // What is due may not have been taken yet, by a connection that has no room.
        let again = |due: Instant| stream.fed.map_or(due, |fed| due.max(fed + FEED_PAUSE));
        repair.or_else(|| self.slave.acknowledge_due().map(again))
    }

    /// Something has come.
    pub fn handle(&mut self, input: Input, now: Instant, around: &mut Around<'_>) {
        if self.is_over() {
            return;
        }
        if self.slave.state() == SlaveState::Dropped {
            return self.end(End::Dropped, now, around);
        }
        if self.added_until.is_some_and(|until| now >= until) {
            self.settle(None);
        }
        match input {
            Input::Located { question, found } => match self.phase {
                Phase::Locating { question: asked } if asked == question => self.located(found, now, around),
                _ => {}
            },
            Input::Watched { question, watched } => self.watched(question, watched, now, around),
            Input::Down { question, reason } => {
                // It may come before what was asked for: then that is settled, too.
                let is_early =
                    matches!(self.phase, Phase::Watching { question: asked, .. } if asked == question);
                if is_early || self.phase.watch().is_some_and(|watch| watch.number == question) {
                    self.end(End::Gone(reason), now, around);
                }
            }
            Input::DialectKnown { question, is_kvnode } => {
                self.dialect_known(question, is_kvnode, now, around);
            }
            Input::Greeted { question, answer } => self.greeted(question, answer, now, around),
            Input::KindKnown { question, foreign } => self.kind_known(question, foreign, now, around),
            Input::Holders { question, holders } => self.looked(question, &holders, now, around),
            Input::KeysRead { question, read } => self.keys_read(question, read, now, around),
            Input::NodeArrived => self.node_arrived(),
            Input::Changed => self.tend(now, around),
            Input::Timeout => self.timeout(now, around),
        }
    }

    /// Its driver ends: the slave is gone, and no greeting under way. Outputs are for nobody any more.
    pub fn abandon(&mut self, source: &dyn Source) {
        self.enter(Phase::Dropped, source);
        self.outputs.clear();
    }

    /// The only way from one phase to another.
    fn enter(&mut self, next: Phase, source: &dyn Source) {
        let before = std::mem::replace(&mut self.phase, next);
        let was_out = matches!(before, Phase::Watching { .. }) || before.watch().is_some();
        let is_out = matches!(self.phase, Phase::Watching { .. }) || self.phase.watch().is_some();
        self.note_greeting(matches!(self.phase, Phase::Greeting { .. }), source);
        if was_out && !is_out {
            self.outputs.push_back(Output::Unwatch);
        }
        if before.watch().is_some() && self.phase.watch().is_none() {
            self.slave.gone();
            source.acknowledged();
        }
    }

    fn note_greeting(&mut self, is_greeting: bool, source: &dyn Source) {
        if std::mem::replace(&mut self.is_greeting, is_greeting) != is_greeting {
            source.greeting(is_greeting);
        }
    }

    const fn next_question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    fn log(&mut self, event: Event) {
        self.outputs.push_back(Output::Log(event));
    }

    /// Answers whoever had it added; gives whether anybody waited.
    fn settle(&mut self, refusal: Option<Refusal>) -> bool {
        let waited = self.added_until.take().is_some();
        if waited {
            self.outputs.push_back(Output::Settle(refusal));
        }
        waited
    }

    fn timeout(&mut self, now: Instant, around: &mut Around<'_>) {
        let question = self.questions + 1;
        let is_gone =
            matches!(self.phase, Phase::Streaming { .. }) && self.slave.state() == SlaveState::Seeking;
        if let Some(watch) = self.phase.watch_mut()
            && let Look::At(due) = watch.look
            && now >= due
        {
            if is_gone {
                // It was said late, of a watch before this one.
                return self.end(End::Renewed, now, around);
            }
            watch.look = Look::Asked { question };
            self.questions = question;
            self.outputs.push_back(Output::Look { question });
        }
        match &self.phase {
            Phase::Seeking { until, .. } if now >= *until => self.locate(now, around),
            Phase::Found { greet_at, .. } if now >= *greet_at => self.greet(now, around),
            Phase::Streaming { stream, .. } if self.stream_due(stream).is_some_and(|due| now >= due) => {
                self.tend(now, around);
            }
            _ => {}
        }
    }

    /// A node that comes up may have the name, or know of it.
    fn node_arrived(&mut self) {
        self.has_arrived = true;
        let is_known = self.is_known();
        if let Phase::Seeking { until, least } = &mut self.phase
            && *until > *least
        {
            *until = *least;
            if is_known { &mut self.known_pauses } else { &mut self.pauses }.reset();
        }
    }

    /// Whether it was there once.
    fn is_known(&self) -> bool {
        matches!(self.slave.standing(), Standing::Gone { .. })
    }

    fn locate(&mut self, now: Instant, around: &mut Around<'_>) {
        self.has_arrived = false;
        if let SlaveName::Pid(pid) = self.slave.name() {
            let pid = pid.clone();
            return self.located(Ok(Some(pid)), now, around);
        }
        let question = self.next_question();
        self.enter(Phase::Locating { question }, around.source);
        self.outputs.push_back(Output::Locate { question });
    }

    fn located(&mut self, found: Result<Option<Pid>, String>, now: Instant, around: &mut Around<'_>) {
        let at = match found {
            Ok(Some(at)) => at,
            Ok(None) => return self.end(End::Missing(Missing::Nobody), now, around),
            Err(why) => return self.end(End::Missing(Missing::Failed(why)), now, around),
        };
        if self.watched.as_ref() != Some(&at) {
            // Its name has gone to another process while it was looked for: the one before may take itself for a slave. The
            // sessions are that one's; to a server of the protocol the end of one would be its own end.
            self.part(around.source);
            self.slave.end_sessions();
        }
        if (around.is_own)(&at) {
            self.log(Event::Itself);
            self.slave.drop_out();
            around.source.slaves_changed();
            self.settle(Some(Refusal::Itself));
            return self.finish(around.source);
        }
        if self.foreign.as_ref() == Some(&at) {
            return self.pause(now, around);
        }
        self.watched = Some(at.clone());
        let question = self.next_question();
        self.enter(Phase::Watching { question, at: at.clone() }, around.source);
        self.outputs.push_back(Output::Watch { question, at });
    }

    fn watched(&mut self, question: u64, watched: Result<(), String>, now: Instant, around: &mut Around<'_>) {
        let at = match &self.phase {
            Phase::Watching { question: asked, at } if *asked == question => at.clone(),
            _ => return,
        };
        if let Err(why) = watched {
            return self.end(End::Missing(Missing::Failed(why)), now, around);
        }
        let look = match self.slave.name() {
            SlaveName::Pid(_) => Look::Never,
            _ => Look::At(now + NAME_PAUSE),
        };
        let watch = Watch { at, number: question, since: now, look };
        self.enter(Phase::Found { watch, greet_at: now }, around.source);
        self.greet(now, around);
    }

    fn stream(&mut self, now: Instant, around: &mut Around<'_>) {
        self.settle(None);
        if let Some(watch) = self.phase.watch() {
            let node = (*watch.at.node).into();
            self.log(Event::Found { node });
        }
        if self.slave.take_moved() {
            // One of them may be promoted, and looks for it then.
            let others = around.source.slaves();
            others
                .iter()
                .filter(|other| !Arc::ptr_eq(other, &self.slave))
                .for_each(|other| other.siblings_changed());
            around.source.slaves_changed();
        }
        self.tend(now, around);
    }

    /// Goes on with the slave's stream, where there is one: a step of its repair at most.
    fn tend(&mut self, now: Instant, around: &mut Around<'_>) {
        let source = around.source;
        let Phase::Streaming { watch, stream } = &mut self.phase else { return };
        if self.slave.is_renewed() {
            return self.end(End::Renewed, now, around);
        }
        if self.slave.take_news()
            && let Dialect::Kvnode { session } = self.slave.dialect()
        {
            let (at, slaves) = (watch.at.clone(), known_slaves(&self.node, source));
            self.outputs.push_back(Output::TellSiblings { at, session, slaves });
        }
        if stream.sweeping.is_some() {
            return;
        }
        stream.repaired = None;
        if self.slave.catch_up(now) {
            self.outputs.push_back(Output::Log(Event::TakesAgain));
        }
        if self.slave.begin_sweep() {
            self.questions += 1;
            let (question, at) = (self.questions, watch.at.clone());
            stream.sweeping = Some(question);
            self.outputs.push_back(Output::ReadKeys { question, at });
            return;
        }
        if self.slave.scan(source) {
            self.slave.refill(source);
            stream.repaired = Some(now);
        }
        stream.fed = Some(now);
        self.outputs.push_back(Output::Feed { node: Arc::clone(&watch.at.node) });
        let said = stream.progress.note(self.slave.standing(), now);
        if self.slave.take_stepped_down() {
            self.copy_to_others(source);
        }
        if let Some(event) = said {
            let is_done = event == Event::UpToDate;
            self.log(event);
            if is_done && source.lineage().is_some_and(|lineage| lineage.term > 0) {
                self.outputs.push_back(Output::CheckNames);
            }
        }
    }

    fn keys_read(&mut self, question: u64, read: KeysRead, now: Instant, around: &mut Around<'_>) {
        match &mut self.phase {
            Phase::Streaming { stream, .. } if stream.sweeping == Some(question) => stream.sweeping = None,
            _ => return,
        }
        self.slave.end_sweep(read.error.is_none() && read.unusable == 0);
        match read.error {
            Some(why) => self.log(Event::NotSwept(why)),
            None if read.foreign > 0 => self.log(Event::Swept { keys: read.foreign }),
            None => {}
        }
        self.tend(now, around);
    }

    /// This slave is a former primary. What it had sent last to those slaves that do not tell one primary from another may have
    /// come behind what this store has sent: they get everything again.
    fn copy_to_others(&mut self, source: &dyn Source) {
        // Before the order, as a write takes them: a thread that adds a slave may wait between the two.
        let slaves = source.slaves();
        source.in_order(&mut || {
            for other in &slaves {
                let is_it = !Arc::ptr_eq(other, &self.slave) && other.dialect() == Dialect::Elixir;
                if is_it && !planted(Rule::CopyToOthers) {
                    self.outputs.push_back(Output::Log(Event::CopiedAgain(other.name().clone())));
                    other.copy_all();
                }
            }
        });
    }

    /// Which processes have its name now. Where nodes say of it differently, as they do until a split is healed, it has not
    /// gone to another.
    fn looked(&mut self, question: u64, holders: &[Pid], now: Instant, around: &mut Around<'_>) {
        let Some(watch) = self.phase.watch_mut() else { return };
        if !matches!(watch.look, Look::Asked { question: asked } if asked == question) {
            return;
        }
        watch.look = Look::At(now + NAME_PAUSE);
        if !holders.is_empty() && !holders.contains(&watch.at) {
            self.end(End::Moved, now, around);
        }
    }

    /// What is done of it now is over: it is looked for again, or not.
    fn end(&mut self, end: End, now: Instant, around: &mut Around<'_>) {
        let source = around.source;
        let watch = self.phase.watch().cloned();
        match &end {
            // It may have been one until now.
            End::Missing(Missing::Refused(refusal)) if refusal.is_final() => self.bye(),
            End::Dropped | End::Moved => self.part(source),
            End::Renewed | End::Gone(_) | End::Missing(_) => {}
        }
        if watch.as_ref().is_some_and(|watch| now >= watch.since + STEADY) {
            self.pauses.reset();
            self.known_pauses.reset();
            self.said.clear();
        }
        match end {
            End::Renewed => {
                self.log(Event::Renewed);
                self.enter(Phase::Seeking { until: now, least: now }, source);
            }
            End::Moved => {
                self.log(Event::Moved);
                self.enter(Phase::Seeking { until: now, least: now }, source);
            }
            End::Dropped => {
                if watch.is_some() {
                    self.log(Event::Left);
                }
                self.finish(source);
            }
            End::Gone(reason) => {
                self.log(Event::Lost { reason: format!("{:?}", reason.view()) });
                let is_node_lost = reason.view().is_atom("noconnection");
                if matches!(self.slave.name(), SlaveName::Pid(_)) && !is_node_lost {
                    self.log(Event::PidEnded);
                    self.slave.drop_out();
                    return self.finish(source);
                }
                self.pause(now, around);
            }
            End::Missing(missing) => self.missing(missing, watch.map(|watch| watch.at), now, around),
        }
    }

    /// It is no slave of this store any more where it was watched last, unless another entry follows that process.
    fn part(&mut self, source: &dyn Source) {
        let Some(at) = &self.watched else { return };
        match other_at(source, &self.slave, at, None) {
            None => self.bye(),
            // A greeting that nobody waits for is in force there once it has come, until the other greets it anew.
            Some(other) if self.slave.may_be_greeted() => other.take_over(&self.slave),
            Some(_) => {}
        }
    }

    /// It is told that each session is over that it may be in.
    fn bye(&mut self) {
        let Some(at) = self.watched.take().filter(|_| !planted(Rule::Bye)) else { return };
        let sessions = self.slave.sessions();
        if !sessions.is_empty() {
            self.outputs.push_back(Output::Bye { at, sessions });
        }
    }

    /// It is not followed, for this reason; `at` is where it is, if it is there.
    fn missing(&mut self, missing: Missing, at: Option<Pid>, now: Instant, around: &mut Around<'_>) {
        let source = around.source;
        if let Some(refusal) = missing.refusal() {
            if refusal.is_final() {
                self.log(Event::NeverSlave(refusal));
                self.slave.refused(refusal);
                self.settle(Some(refusal));
                source.slaves_changed();
                return self.finish(source);
            }
            let is_foreign = refusal == Refusal::Foreign;
            let is_pid = matches!(self.slave.name(), SlaveName::Pid(_));
            if self.settle(Some(refusal)) || is_foreign && is_pid {
                // Whoever was told that it is none does not have it; and a pid is never anything else.
                self.log(Event::GivenUp(missing));
                self.slave.drop_out();
                source.slaves_changed();
                return self.finish(source);
            }
            self.slave.refused(refusal);
            self.foreign = at.filter(|_| is_foreign);
        }
        let text = missing.to_string();
        self.slave.failed(&text);
        if self.said != text {
            self.said = text;
            self.log(Event::Missing(missing));
        }
        self.pause(now, around);
    }

    /// It is looked for again after a while.
    fn pause(&mut self, now: Instant, around: &mut Around<'_>) {
        self.settle(None);
        // The slave's standing is what it is once it is not watched any more.
        self.enter(Phase::Seeking { until: now, least: now }, around.source);
        let is_known = self.is_known();
        let pauses = if is_known { &mut self.known_pauses } else { &mut self.pauses };
        let pause = pauses.next(around.chance);
        let least = now + pause.min(pauses.first());
        let mut until = now + pause;
        if self.has_arrived {
            pauses.reset();
            until = least;
        }
        self.phase = Phase::Seeking { until, least };
    }

    fn finish(&mut self, source: &dyn Source) {
        self.settle(None);
        self.enter(Phase::Dropped, source);
    }
}

/// All slaves of a store, as others are told of them.
fn known_slaves(here: &Arc<str>, source: &dyn Source) -> Vec<KnownSlave> {
    source.slaves().iter().map(|slave| KnownSlave::of(slave, here)).collect()
}

#[cfg(test)]
mod tests;
