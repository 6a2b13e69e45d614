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
//!    |   +-------------------------------------------------------------+    v          past the bound
//!    |   +-------------------------------------------------------------- Streaming --------------------> Behind
//!    |           down, moved, to be greeted anew                            |  ^                            | ^
//!    |           (also from Found, Greeting, Behind and Held)               |  | all that was sent          | | after
//!    |                                                            not kept  |  | is acknowledged            | | a while
//!    |                                                                      |  +----------------------------+ |
//!    v                                                                      +-----------> Held ---------------+
//!  Dropped: from every phase, once it was removed, is the store itself or another of its slaves, has ended and was named by
//!           its pid, or will never be a slave of this store
//! ```
//!
//! While it is streamed to, each write goes into its log, and what it lacks beside that is repaired into the same log. In `Behind`
//! it is sent nothing new, and in `Held` deletions alone: what is written is noted by its keys, under the same bound, and past
//! that a scan of the whole store repairs it. What it lacks is kept through all phases, and so is how far it has confirmed.
//!
//! **How it is driven.** It is one value behind one lock, for its driver, the store's writers and its connection:
//!
//! 1. The driver [handles](Downstream::handle) [`Input::Begin`] once, then each [`Input`] as it comes, and [`Input::Timeout`] once
//!    [`poll_timeout`](Downstream::poll_timeout) has come. Any other thread that knows of something hands it in at once, and
//!    wakes the driver; so does one that [`push`](Downstream::push) or [`take`](Downstream::take) tells that there is something
//!    to do;
//! 2. then the driver takes all outputs by [`poll_output`](Downstream::poll_output), and carries them out in that order, without
//!    the lock but for [`repair`](Downstream::repair);
//! 3. then it asks [`poll_timeout`](Downstream::poll_timeout) again: it hangs on what was carried out. One in the past says that
//!    there is more to do now: others that share the thread may have their turn first;
//! 4. until it [is over](Downstream::is_over). A driver that ends before [abandons](Downstream::abandon) it.
//!
//! Each write of the store is [pushed](Downstream::push) under the store's order of writes, by the thread that makes it;
//! `repair` runs under that order too, and [`Input::CopyAll`]. The connection to the slave's node [takes](Downstream::take)
//! what waits, and asks what `take` says behind that.
//!
//! What it owes on leaving a phase it pays in one place, `enter`: with a watch ends its stream, and a greeting is under way
//! exactly while the phase is `Greeting`.

mod event;
mod face;
mod figures;
mod greet;
mod lacks;
mod log;
mod missed;
mod outcome;
mod pauses;
mod phase;
mod siblings;
mod stream;
mod streaming;
mod withheld;

use std::collections::VecDeque;
use std::fmt;
use std::mem::Discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use self::event::{Event, Level, Missing};
pub use self::face::{Answer, Chance, Input, KeysRead, Output, Search, Whereabouts};
use self::lacks::Lacks;
pub use self::outcome::{Acknowledge, Mark, PartRead, Pushed, Standpoint, Taken};
use self::pauses::Pauses;
use self::phase::{End, Look, Phase, Watch};
pub use self::siblings::{Sibling, Siblings};
use super::SlaveName;
use super::dialect::Dialect;
use super::lineage::Refusal;
use super::planted::{Rule, planted};
use super::standing::Standing;
use crate::etf::{Pid, Traits};

/// A slave that was watched for so long was really there.
const STEADY: Duration = Duration::from_secs(1);
/// A slave that was there once is looked for at least so often: when its node is back, so is it soon after.
const KNOWN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often a slave's name is looked up, as it may have gone to another process while the former holder still lives.
const NAME_PAUSE: Duration = Duration::from_secs(2);
/// A stream that waits for its connection's room is announced again after so long.
const FEED_PAUSE: Duration = Duration::from_millis(1);
/// The caller that adds a slave is answered after so long, found or not.
const ADDED_LIMIT: Duration = Duration::from_secs(1);
/// Greetings that nobody has answered, of one slave, whose sessions are known: it is in one of the last.
const GREETED_MAX: usize = 8;

/// The primary's side of one slave. See the [module](self).
pub struct Downstream {
    name: SlaveName,
    /// Tells its sessions from those of the store's other slaves: two names of one process cannot be confused.
    number: u64,
    phase: Phase,
    /// What it lacks.
    lacks: Lacks,
    /// The process that this is about; `None`: it was never followed.
    known: Option<Known>,
    /// The node where it was last, in this life of the store or one before.
    node: Option<Arc<str>>,
    /// What its node cannot decode.
    cannot_decode: Traits,
    /// A caller waits for it to have this write.
    wanted: u64,
    /// Counts the times that it was greeted, found and lost.
    times: u64,
    /// The sessions of the greetings since it was found last that may have been taken, the last ones.
    greeted: Vec<u64>,
    /// Where it was watched last: it may be in a session there. With the incarnation of a kvnode's store.
    watched: Option<(Pid, Option<u64>)>,
    /// It is to be greeted anew, once it has taken the greeting that is under way.
    renew: bool,
    /// It is to be told of the other slaves.
    news: bool,
    /// It was a primary with slaves when it was followed first, and has not been in step since.
    stepped_down: bool,
    /// It was started with the store, not added by hand, and was never followed: what it holds is to be kept.
    protect_data: bool,
    /// Why it is not followed though it is there.
    refused: Option<Refusal>,
    last_error: Option<Arc<str>>,
    /// The kind of standing that it has, and since when, in milliseconds since 1970; `None`: nobody has said.
    since: Option<(Discriminant<Standing>, u64)>,
    /// The caller that had it added is answered then at the latest.
    added_until: Option<Instant>,
    chance: Chance,
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
    /// The store was told that a greeting is under way.
    is_greeting: bool,
    /// The last question.
    questions: u64,
    outputs: VecDeque<Output>,
}

/// A process that is followed, or was.
struct Known {
    at: Pid,
    dialect: Dialect,
    /// Of a kvnode's store.
    incarnation: Option<u64>,
    /// It has every write of the store up to this one.
    confirmed: u64,
}

impl Downstream {
    /// Of a slave that has just been added. `number`: no other slave of this life of the store has it. `buffer_bytes_max`: see
    /// [`slave_buffer_bytes_max`](crate::program::Config::slave_buffer_bytes_max).
    pub fn new(name: SlaveName, number: u64, buffer_bytes_max: usize) -> Self {
        Self {
            name,
            number,
            phase: Phase::Added,
            lacks: Lacks::new(buffer_bytes_max),
            known: None,
            node: None,
            cannot_decode: Traits::none(),
            wanted: 0,
            times: 0,
            greeted: Vec::new(),
            watched: None,
            renew: false,
            news: false,
            stepped_down: false,
            protect_data: false,
            refused: None,
            last_error: None,
            since: None,
            added_until: None,
            chance: Chance(Box::new(|_| 0)),
            pauses: Pauses::new(Duration::ZERO, Duration::ZERO),
            known_pauses: Pauses::new(Duration::ZERO, Duration::ZERO),
            has_arrived: false,
            said: String::new(),
            foreign: None,
            is_greeting: false,
            questions: 0,
            outputs: VecDeque::new(),
        }
    }

    /// Whether nothing will happen to it any more, but for what it wants done.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Dropped)
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The next [`Output::Drop`] or [`Output::Forget`], out of its turn: see [`Input::Answered`].
    pub fn poll_settling(&mut self) -> Option<Output> {
        let is_it = |output: &Output| matches!(output, Output::Drop { .. } | Output::Forget { .. });
        let at = self.outputs.iter().position(is_it)?;
        self.outputs.remove(at)
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
            _ => self.stream_due(),
        };
        [self.added_until, look, own].into_iter().flatten().min()
    }

    /// Something has come. `now` is the monotonic clock.
    pub fn handle(&mut self, input: Input, now: Instant) {
        if self.is_over() {
            return;
        }
        if self.added_until.is_some_and(|until| now >= until) {
            self.settle(None);
        }
        match input {
            Input::Begin(search) => self.begin(search, now),
            Input::Located { question, found } => match self.phase {
                Phase::Locating { question: asked } if asked == question => self.located(found, now),
                _ => {}
            },
            Input::Watched { question, watched } => self.watched(question, watched, now),
            Input::Down { question, reason } => {
                // It may come before what was asked for: then that is settled, too.
                let is_early =
                    matches!(self.phase, Phase::Watching { question: asked, .. } if asked == question);
                if is_early || self.phase.watch().is_some_and(|watch| watch.number == question) {
                    self.end(End::Gone(reason), now);
                }
            }
            Input::Answered { question, answer, store } => self.answered(question, answer, &store, now),
            Input::Holders { question, holders } => self.looked(question, &holders, now),
            Input::StrayKey { key } => self.stray(&key),
            Input::KeysRead { question, read } => self.keys_read(question, read, now),
            Input::PartRead { scan, part, read } => self.part_read(scan, part, read, now),
            Input::Acknowledged { mark, kept } => self.acknowledged(mark, kept, now),
            Input::CopyAll => self.copy_all(),
            Input::Renew => self.renew(now),
            Input::SiblingsChanged => {
                self.news = true;
                self.tell_news();
            }
            Input::TakenOver { .. } if planted(Rule::TakeOver) => {}
            Input::TakenOver { sessions } => {
                sessions.into_iter().for_each(|session| self.note_greeted(session));
                self.renew(now);
            }
            Input::Elsewhere { at, incarnation } => self.forget(&at, incarnation),
            Input::Removed => self.end(End::Dropped, now),
            Input::NodeArrived => self.node_arrived(),
            Input::Timeout => self.timeout(now),
        }
    }

    /// Its driver ends: the slave is not followed any more. Of the outputs only [`Output::Greeting`] is still to be carried out.
    pub fn abandon(&mut self) {
        self.outputs.retain(|output| matches!(output, Output::Greeting(_)));
        self.enter(Phase::Dropped);
    }

    /// The only way from one phase to another, but for those in which it is followed.
    fn enter(&mut self, next: Phase) {
        let before = std::mem::replace(&mut self.phase, next);
        self.note_greeting(matches!(self.phase, Phase::Greeting { .. }));
        if before.is_out() && !self.phase.is_out() {
            self.outputs.push_back(Output::Unwatch);
        }
        if before.watch().is_some() && self.phase.watch().is_none() {
            self.times += 1;
            if let Some((_, stream)) = before.into_stream() {
                stream.end(&mut self.lacks);
                // What was to be done for the stream is for nobody now. One that is removed with others would be told what is
                // left of these, and know none of them when it is promoted before it is told that it is removed.
                self.outputs.retain(|output| !output.is_of_stream());
            }
        }
    }

    fn note_greeting(&mut self, is_greeting: bool) {
        if std::mem::replace(&mut self.is_greeting, is_greeting) != is_greeting {
            self.outputs.push_back(Output::Greeting(is_greeting));
        }
    }

    const fn next_question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    fn log(&mut self, event: Event) {
        self.outputs.push_back(Output::Log(event));
    }

    /// Answers the caller that had it added; gives whether a caller waited.
    fn settle(&mut self, refusal: Option<Refusal>) -> bool {
        let waited = self.added_until.take().is_some();
        if waited {
            self.outputs.push_back(Output::Settle(refusal));
        }
        waited
    }

    fn begin(&mut self, search: Search, now: Instant) {
        let Search { pause_first, pause_max, is_awaited, chance } = search;
        self.pauses = Pauses::new(pause_first, pause_max);
        self.known_pauses = Pauses::new(pause_first, pause_max.min(KNOWN_PAUSE_MAX));
        self.chance = chance;
        self.added_until = is_awaited.then(|| now + ADDED_LIMIT);
        self.enter(Phase::Seeking { until: now, least: now });
    }

    fn timeout(&mut self, now: Instant) {
        let question = self.questions + 1;
        if let Some(watch) = self.phase.watch_mut()
            && let Look::At(due) = watch.look
            && now >= due
        {
            watch.look = Look::Asked { question };
            self.questions = question;
            self.outputs.push_back(Output::Look { question });
        }
        match &self.phase {
            Phase::Seeking { until, .. } if now >= *until => self.locate(),
            Phase::Found { greet_at, .. } if now >= *greet_at => self.greet(),
            _ if self.stream_due().is_some_and(|due| now >= due) => self.tend(now),
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
        matches!(self.standing(), Standing::Gone { .. })
    }

    fn locate(&mut self) {
        self.has_arrived = false;
        let question = self.next_question();
        self.enter(Phase::Locating { question });
        self.outputs.push_back(Output::Locate { question });
    }

    fn located(&mut self, found: Result<Whereabouts, String>, now: Instant) {
        let is_another = |before: &Pid| match &found {
            Ok(Whereabouts::At(at)) => at != before,
            Ok(Whereabouts::Itself) => true,
            Ok(Whereabouts::Nobody) | Err(_) => false,
        };
        if self.watched.as_ref().is_some_and(|(before, _)| is_another(before)) {
            // Its name has gone to another process while it was looked for: the one before may take itself for a slave.
            self.part();
        }
        if let Ok(Whereabouts::At(at)) = &found
            && self.watched.as_ref().is_none_or(|(before, _)| before != at)
        {
            self.end_sessions();
        }
        let at = match found {
            Ok(Whereabouts::At(at)) => at,
            Ok(Whereabouts::Nobody) => return self.end(End::Missing(Missing::Nobody), now),
            Ok(Whereabouts::Itself) => {
                self.log(Event::Itself);
                self.outputs.push_back(Output::SlavesChanged);
                self.settle(Some(Refusal::Itself));
                return self.finish();
            }
            Err(why) => return self.end(End::Missing(Missing::Failed(why)), now),
        };
        if self.foreign.as_ref() == Some(&at) {
            return self.pause(now);
        }
        self.watched = Some((at.clone(), None));
        let question = self.next_question();
        self.enter(Phase::Watching { question, at: at.clone() });
        self.outputs.push_back(Output::Watch { question, at });
    }

    fn watched(&mut self, question: u64, watched: Result<(), String>, now: Instant) {
        let at = match &self.phase {
            Phase::Watching { question: asked, at } if *asked == question => at.clone(),
            _ => return,
        };
        if let Err(why) = watched {
            return self.end(End::Missing(Missing::Failed(why)), now);
        }
        let look = match self.name {
            SlaveName::Pid(_) => Look::Never,
            _ => Look::At(now + NAME_PAUSE),
        };
        let watch = Watch { at, number: question, since: now, look };
        self.enter(Phase::Found { watch, greet_at: now });
        self.greet();
    }

    /// Which processes have its name now. Where nodes say of it differently, as they do until a split is healed, it has not
    /// gone to another.
    fn looked(&mut self, question: u64, holders: &[Pid], now: Instant) {
        let Some(watch) = self.phase.watch_mut() else { return };
        if !matches!(watch.look, Look::Asked { question: asked } if asked == question) {
            return;
        }
        watch.look = Look::At(now + NAME_PAUSE);
        if !holders.is_empty() && !holders.contains(&watch.at) {
            self.end(End::Moved, now);
        }
    }

    /// What it was told of the store is no longer so, or it is in no session of it.
    fn renew(&mut self, now: Instant) {
        if self.phase.stream().is_some() {
            self.end(End::Renewed, now);
        } else {
            self.renew = true;
        }
    }

    /// Another slave of the store is followed at the process that this one was.
    fn forget(&mut self, at: &Pid, incarnation: Option<u64>) {
        let is_it =
            |known: &Known| known.at == *at || incarnation.is_some() && known.incarnation == incarnation;
        let is_previous = self.phase.stream().is_none() && self.known.as_ref().is_some_and(is_it);
        if is_previous && !planted(Rule::PreviousName) {
            // What it has does not count here any more. It may be in this one's session all the same: of two greetings by two
            // names the answers come in any order, and the greeting that came last there is in force.
            if let Some(Known { dialect: Dialect::Kvnode { session }, .. }) = self.known.take() {
                self.note_greeted(session);
            }
        }
    }

    /// It is greeted with a session.
    fn note_greeted(&mut self, session: u64) {
        if self.greeted.contains(&session) {
            return;
        }
        if self.greeted.len() >= GREETED_MAX {
            self.greeted.remove(0);
        }
        self.greeted.push(session);
    }

    /// It may be found at another process, which is in none of its sessions: to a server of the protocol the end of one would be
    /// its own end.
    fn end_sessions(&mut self) {
        self.greeted.clear();
        if let Some(known) = &mut self.known {
            known.dialect = Dialect::Elixir;
        }
    }

    /// The sessions that a kvnode's store may be in: that of the last greeting that it took, and those of greetings whose answer
    /// was lost. When it is a slave no more, it is told that each of them is over.
    fn sessions(&self) -> Vec<u64> {
        let followed = match self.known {
            Some(Known { dialect: Dialect::Kvnode { session }, .. }) => Some(session),
            _ => None,
        };
        let greeted = self.greeted.iter().copied().filter(|greeted| Some(*greeted) != followed);
        greeted.chain(followed).collect()
    }

    /// What is done of it now is over: it is looked for again, or not.
    fn end(&mut self, end: End, now: Instant) {
        let watch = self.phase.watch().cloned();
        match &end {
            // It may have been one until now.
            End::Missing(Missing::Refused(refusal)) if refusal.is_final() => self.bye(),
            End::Dropped | End::Moved => self.part(),
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
                self.enter(Phase::Seeking { until: now, least: now });
            }
            End::Moved => {
                self.log(Event::Moved);
                self.enter(Phase::Seeking { until: now, least: now });
            }
            End::Dropped => {
                if watch.is_some() {
                    self.log(Event::Left);
                }
                self.finish();
            }
            End::Gone(reason) => {
                self.log(Event::Lost { reason: format!("{:?}", reason.view()) });
                let is_node_lost = reason.view().is_atom("noconnection");
                if matches!(self.name, SlaveName::Pid(_)) && !is_node_lost {
                    self.log(Event::PidEnded);
                    return self.finish();
                }
                self.pause(now);
            }
            End::Missing(missing) => self.missing(missing, watch.map(|watch| watch.at), now),
        }
    }

    /// It is no slave of this store any more where it was watched last, unless another entry follows that process.
    fn part(&mut self) {
        let sessions = if planted(Rule::Bye) { Vec::new() } else { self.sessions() };
        if let Some((at, incarnation)) = self.watched.take().filter(|_| !sessions.is_empty()) {
            self.outputs.push_back(Output::Part { at, incarnation, sessions });
        }
    }

    /// It is told that each session is over that it may be in.
    fn bye(&mut self) {
        let sessions = if planted(Rule::Bye) { Vec::new() } else { self.sessions() };
        if let Some((at, _)) = self.watched.take().filter(|_| !sessions.is_empty()) {
            self.outputs.push_back(Output::Bye { at, sessions });
        }
    }

    /// It is not followed, for this reason; `at` is where it is, if it is there.
    fn missing(&mut self, missing: Missing, at: Option<Pid>, now: Instant) {
        if let Some(refusal) = missing.refusal() {
            let is_final = refusal.is_final();
            let is_foreign = refusal == Refusal::Foreign;
            let is_pid = matches!(self.name, SlaveName::Pid(_));
            let is_told = self.settle(Some(refusal));
            // A caller that was told that it is none does not have it; and a pid is never anything else.
            if is_final || is_told || is_foreign && is_pid {
                self.log(if is_final { Event::NeverSlave(refusal) } else { Event::GivenUp(missing) });
                self.outputs.push_back(Output::SlavesChanged);
                return self.finish();
            }
            self.refused = Some(refusal);
            self.foreign = at.filter(|_| is_foreign);
        }
        let text = missing.to_string();
        self.last_error = Some(text.as_str().into());
        if self.said != text {
            self.said = text;
            self.log(Event::Missing(missing));
        }
        self.pause(now);
    }

    /// It is looked for again after a while.
    fn pause(&mut self, now: Instant) {
        self.settle(None);
        // The slave's standing is what it is once it is not watched any more.
        self.enter(Phase::Seeking { until: now, least: now });
        let is_known = self.is_known();
        let pauses = if is_known { &mut self.known_pauses } else { &mut self.pauses };
        let pause = pauses.next(&mut *self.chance.0);
        let least = now + pause.min(pauses.first());
        let mut until = now + pause;
        if self.has_arrived {
            pauses.reset();
            until = least;
        }
        self.phase = Phase::Seeking { until, least };
    }

    /// It is no slave from here on, and nothing is kept for it.
    fn finish(&mut self) {
        self.settle(None);
        self.enter(Phase::Dropped);
        self.lacks = Lacks::new(0);
        (self.known, self.refused, self.last_error) = (None, None, None);
        self.protect_data = false;
        self.greeted = Vec::new();
    }
}

impl fmt::Debug for Downstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Downstream({})", self.name)
    }
}

#[cfg(test)]
mod tests;
