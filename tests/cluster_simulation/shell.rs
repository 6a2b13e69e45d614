//! What `kv/downstream` does for one slave, here over the virtual network: it steps the product's [`Downstream`](kvnode::replica::Downstream), one input a
//! turn, so that anything may happen between two of them, and inputs that wait come in any order. Some answers come late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvnode::distribution::{DistributionFlags, Outbound, RemoteProcess};
use kvnode::etf::{OwnedTerm, Pid, Reference, TermWriter};
use kvnode::kv::follow::SharedSource;
use kvnode::kv::{FollowSlave, Polled, SlaveAdded, SlaveEntry};
use kvnode::process::{FedNode, Feed, Feeding, More, Outcome};
use kvnode::replica::dialect::{write_bye, write_siblings};
use kvnode::replica::downstream::{Answer, Chance, Event, Input, KeysRead, Output, Search, Whereabouts};
use kvnode::replica::{GreetingAnswer, Hello, Refusal, SlaveName, SlaveState, SourceRead};
use parking_lot::Mutex;

use super::in_turn::InTurn;
use super::network::Item;
use super::node::{CLIENT, frames_of};
use super::random::Random;
use super::shelf::term;
use super::world::World;

/// About what a replicated write takes as a frame.
const MESSAGE_BYTES: usize = 100;
/// As in `kv/downstream/greeting.rs`.
const GREETING_LIMIT: Duration = Duration::from_secs(5);

/// A greeting that is not answered.
struct Greeting {
    question: u64,
    at: Pid,
    call: Reference,
    session: u64,
    until: Instant,
}

/// A node that was asked which process has the slave's name.
struct Asked {
    question: u64,
    node: usize,
    is_look: bool,
}

/// Something that has come.
enum Came {
    Input(Input),
    /// To be weighed against what the store is.
    Answer {
        question: u64,
        answer: Answer,
    },
}

impl Came {
    /// Whether the slave is read for at once, or soon.
    const fn has_repair_go_on(&self) -> bool {
        matches!(
            self,
            Self::Answer { answer: Answer::Greeting(GreetingAnswer::Taken(_)), .. }
                | Self::Input(Input::PartRead { .. })
        )
    }
}

/// The follower of one slave.
pub struct Follow {
    pub slave: Arc<SlaveEntry>,
    source: SharedSource,
    added: Option<SlaveAdded>,
    /// What has come, and is handed in one by one.
    news: Arc<Mutex<Vec<Came>>>,
    poked: Arc<AtomicBool>,
    monitor: Option<(Pid, Reference)>,
    /// The node where it was found last.
    before: Option<usize>,
    /// Its name was found then.
    pub found: Option<Instant>,
    greeting: Option<Greeting>,
    asked: Vec<Asked>,
}

impl Follow {
    pub fn new(FollowSlave { slave, source, added, .. }: FollowSlave, seed: u64) -> Self {
        let (poked, mut random) = (Arc::<AtomicBool>::default(), Random::new(seed));
        let poke = Arc::clone(&poked);
        slave.on_wake(Box::new(move || poke.store(true, Ordering::Relaxed)));
        slave.hand_in(Input::Begin(Search {
            pause_first: Duration::from_millis(100),
            pause_max: Duration::from_secs(5),
            is_awaited: added.is_some(),
            chance: Chance(Box::new(move |below| random.below(below.into()) as u32)),
        }));
        let news = Arc::default();
        Self {
            slave,
            source,
            added,
            news,
            poked,
            monitor: None,
            before: None,
            found: None,
            greeting: None,
            asked: Vec::new(),
        }
    }

    /// Whether its process is on this node, and watched.
    pub fn is_slave_at(&self, node: &str) -> bool {
        let is_dropped = self.slave.state() == SlaveState::Dropped;
        !is_dropped && self.monitor.as_ref().is_some_and(|(at, _)| *at.node == *node)
    }

    fn has_news(&self) -> bool {
        self.poked.load(Ordering::Relaxed) || !self.news.lock().is_empty()
    }

    /// When it has something to do, if nothing else happens; `Some(now)`: it has.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        let unanswered = self.greeting.as_ref().map(|greeting| greeting.until);
        let news = self.has_news().then_some(now);
        [news, unanswered, self.timeout()].into_iter().flatten().min()
    }

    fn timeout(&self) -> Option<Instant> {
        self.slave.machine().poll_timeout()
    }

    fn tell(&self, input: Input) {
        self.news.lock().push(Came::Input(input));
    }

    /// An answer to the question where its name is; `found`: or why that is not known.
    fn located(&mut self, question: u64, found: Result<Whereabouts, String>) {
        let Some(asked) = self.asked.iter().position(|asked| asked.question == question) else { return };
        let Asked { question, is_look, .. } = self.asked.remove(asked);
        self.tell(match is_look {
            true => {
                let holders = if let Ok(Whereabouts::At(at)) = found { vec![at] } else { Vec::new() };
                Input::Holders { question, holders }
            }
            false => Input::Located { question, found },
        });
    }
}

impl World {
    fn follow(&mut self, node: usize, slot: usize) -> &mut Follow {
        self.life_mut(node).follows[slot].as_mut().expect("it is followed")
    }

    /// A turn of a follower; what others do then is carried out by the caller.
    pub fn turn(&mut self, node: usize, slot: usize) {
        let Some(came) = self.next_input(node, slot) else { return };
        if came.as_ref().is_some_and(Came::has_repair_go_on) && self.random.one_in(2) {
            self.have_writes_under_way(node);
        }
        let follow = self.follow(node, slot);
        let (slave, source) = (Arc::clone(&follow.slave), follow.source.clone());
        match came {
            Some(Came::Input(input)) => {
                tracing::trace!(node, slot, ?input);
                if let Input::Located { found: Ok(Whereabouts::At(_)), .. } = &input {
                    let now = self.now;
                    self.follow(node, slot).found = Some(now);
                }
                slave.hand_in(input);
            }
            Some(Came::Answer { question, answer }) => {
                tracing::trace!(node, slot, ?answer);
                let is_greeting = matches!(answer, Answer::Greeting(_));
                slave.answered(question, answer, &source);
                if is_greeting {
                    self.check_answered(&slave);
                }
            }
            None => {}
        }
        slave.machine().note_time(self.unix_ms);
        loop {
            match slave.poll() {
                Polled::Output(output) => self.follow_on(node, slot, output),
                Polled::Until(_) => break,
                Polled::Over => {
                    self.life_mut(node).follows[slot] = None;
                    break;
                }
            }
        }
    }

    /// Something that waits for a follower, or what is due; `Some(None)`: others have handed something in.
    fn next_input(&mut self, node: usize, slot: usize) -> Option<Option<Came>> {
        let now = self.now;
        let follow = self.life(node).follows[slot].as_ref()?;
        let is_late = follow.greeting.as_ref().is_some_and(|greeting| now >= greeting.until);
        let is_due = follow.timeout().is_some_and(|due| now >= due);
        let is_poked = follow.poked.load(Ordering::Relaxed);
        let news = follow.news.lock().len();
        let choices = news + usize::from(is_late) + usize::from(is_due) + usize::from(is_poked);
        if choices == 0 {
            return None;
        }
        let chosen = self.random.index(choices);
        let follow = self.follow(node, slot);
        if chosen < news {
            let came = follow.news.lock().remove(chosen);
            if let Came::Answer { question, answer: Answer::Greeting(answer) } = &came
                && let Some(greeting) = follow.greeting.take_if(|greeting| greeting.question == *question)
            {
                let answer = answer.clone();
                self.take_back(node, &greeting.at, &greeting.call);
                match answer {
                    GreetingAnswer::Refused(refusal) => {
                        // One that is removed, or lost, looks at nothing any more.
                        if !is_poked && self.follow(node, slot).slave.state() != SlaveState::Dropped {
                            self.refused.insert(greeting.session);
                        }
                        self.counts.refused(refusal);
                    }
                    GreetingAnswer::None(_) => {
                        self.counts.unanswered += 1;
                        let incarnation = self.life(node).incarnation;
                        self.unanswered.insert(incarnation);
                    }
                    GreetingAnswer::Taken(_) | GreetingAnswer::NoStore => {}
                }
            }
            return Some(Some(came));
        }
        if is_poked && chosen == news {
            follow.poked.store(false, Ordering::Relaxed);
            return Some(None);
        }
        if is_late && (chosen + 1 == choices) {
            let question = self.leave_greeting(node, slot)?;
            self.counts.unanswered += 1;
            let answer = Answer::Greeting(GreetingAnswer::None("in time".into()));
            return Some(Some(Came::Answer { question, answer }));
        }
        Some(Some(Came::Input(Input::Timeout)))
    }

    /// Carries out what the machine of a slave wants.
    fn follow_on(&mut self, node: usize, slot: usize, output: Output) {
        match output {
            Output::Locate { question } => self.ask_for_name(node, slot, question, false),
            Output::Look { question } => self.ask_for_name(node, slot, question, true),
            Output::Watch { question, at } => self.watch(node, slot, question, at),
            Output::Unwatch => self.unwatch(node, slot),
            // In a turn of its own.
            Output::AskDialect { question, at } => {
                let answer = Answer::Dialect(Ok(!self.nodes[self.node_named(&at.node)].is_beam));
                self.follow(node, slot).news.lock().push(Came::Answer { question, answer });
            }
            Output::Greet { question, at, hello } => self.greet(node, slot, question, at, &hello),
            // Its node may be too busy to say.
            Output::AskKind { question, .. } => {
                let is_said = self.is_calm || !self.random.one_in(8);
                let answer = Answer::Kind(if is_said { Ok(None) } else { Err("not said".into()) });
                self.follow(node, slot).news.lock().push(Came::Answer { question, answer });
            }
            Output::ReadKeys { question, at } => {
                let other = self.node_named(&at.node);
                if self.is_up(node, other) {
                    self.counts.swept += 1;
                    self.send(node, other, Item::ReadKeys { question: (slot, question) });
                }
            }
            Output::Feed { node: to } => {
                let feed = Arc::clone(&self.follow(node, slot).slave) as Arc<dyn Feed>;
                self.feed(node, &to, &feed);
            }
            Output::Greeting(is_under_way) => self.follow(node, slot).source.greeting(is_under_way),
            Output::ReadPart { scan, part, since } => {
                // Others write while the keys are read, and before they are handed in.
                let follow = self.follow(node, slot);
                let read = SlaveEntry::read_part(part, since, &*follow.source);
                follow.tell(Input::PartRead { scan, part, read });
            }
            Output::Repair => {
                let answers_later = self.nodes[node].drive.is_some();
                let server = Arc::clone(&self.life(node).server);
                let follow = self.follow(node, slot);
                match answers_later {
                    true => follow.slave.repair(&InTurn(&*server)),
                    false => follow.slave.repair(&*follow.source),
                }
            }
            Output::TellSiblings { at, session } => {
                let follow = self.follow(node, slot);
                let slaves = follow.slave.siblings(&follow.source);
                self.cast(node, &at, |w| write_siblings(w, session, &slaves));
            }
            Output::Bye { at, sessions } => self.bye(node, &at, &sessions),
            Output::Part { at, incarnation, sessions } => {
                let follow = self.follow(node, slot);
                if follow.slave.part(&at, incarnation, &sessions, &follow.source) {
                    self.changes += 1;
                    self.bye(node, &at, &sessions);
                }
            }
            Output::Drop { .. } | Output::Forget { .. } => panic!("{output:?}: it is carried out by then"),
            Output::CopyOthers => {
                self.arrive_before(node, slot);
                let follow = self.follow(node, slot);
                let others = follow.slave.copy_others(&follow.source).len();
                self.counts.others += others as u64;
            }
            Output::Moved => {
                let follow = self.follow(node, slot);
                follow.slave.moved(&follow.source);
            }
            Output::SlavesChanged => self.follow(node, slot).source.slaves_changed(),
            Output::Settle(refusal) => {
                let SlaveAdded(done) = self.follow(node, slot).added.take().expect("somebody waits");
                done(refusal);
            }
            // Nobody here has a name in `global`.
            Output::UpToDate => {}
            Output::Log(event) => {
                if let Event::Merged { dropped, kept } = &event {
                    self.check_merged(node, slot, dropped, kept);
                }
                self.counts.moved += u64::from(event == Event::Moved);
                self.counts.crossing += u64::from(event == Event::Crossing);
                self.counts.renewed += u64::from(event == Event::Renewed);
                if event == Event::NeverSlave(Refusal::Cycle) {
                    self.check_cycle(node, slot);
                }
                tracing::debug!(node, slave = %self.follow(node, slot).slave.name(), "{event}");
            }
        }
    }

    /// Tells a process that it is a slave no more.
    fn bye(&mut self, node: usize, at: &Pid, sessions: &[u64]) {
        // It has said itself that it is not in these.
        let refused = sessions.iter().find(|session| self.refused.contains(session));
        assert!(refused.is_none(), "{at:?} refused session {refused:?}, and is told that it is over");
        if self.is_up(node, self.node_named(&at.node)) {
            sessions.iter().for_each(|session| self.cast(node, at, |w| write_bye(w, *session)));
            self.counts.byes += 1;
        }
    }

    fn ask_for_name(&mut self, node: usize, slot: usize, question: u64, is_look: bool) {
        let name = self.follow(node, slot).slave.name().clone();
        if let SlaveName::Global(_) = name {
            let input = match is_look {
                true => Input::Holders { question, holders: self.global_holders(&name) },
                false => {
                    let at = self.whereis_global(&name);
                    Input::Located { question, found: Ok(self.whereabouts(node, at)) }
                }
            };
            return self.follow(node, slot).tell(input);
        }
        let (name, host) = match name {
            SlaveName::Remote { name, node: host } => (name, self.node_named(&host)),
            SlaveName::Local(name) => (name, node),
            SlaveName::Pid(at) => {
                self.follow(node, slot).asked.push(Asked { question, node, is_look });
                return self.located(node, (slot, question), Some(at));
            }
            SlaveName::Global(_) => panic!("{name}: nobody asks for that"),
        };
        self.follow(node, slot).asked.push(Asked { question, node: host, is_look });
        if host == node {
            let at = self.life(node).registry.by_name(&name).map(|(_, process)| process.pid.clone());
            self.located(node, (slot, question), at);
        } else if self.connect(node, host) {
            self.send(node, host, Item::WhereIs { name, question: (slot, question) });
        } else {
            self.follow(node, slot).located(question, Err("not reached".into()));
        }
    }

    /// What a former primary has sent to Elixir servers arrives before these are copied to again: they cannot tell one primary
    /// from the other, and nobody can say when the last of it has come.
    fn arrive_before(&mut self, node: usize, slot: usize) {
        let at = self.follow(node, slot).monitor.as_ref().map(|(at, _)| Arc::clone(&at.node));
        let Some(former) = at.map(|at| self.node_named(&at)) else { return };
        for beam in self.stores..self.nodes.len() {
            while self.has_frames(beam, former) {
                self.deliver(beam, former);
            }
        }
    }

    /// A slave is given up as it is a primary of the store. Where it is the one that the store follows, that one has not given up
    /// this store for the same, unless somebody has changed the trees since. (In a longer circle several may give up, and where
    /// a greeting is taken that nobody waits for any more. So may two of which each has followed the other: a store that follows
    /// one that has followed it, and is not connected to it any more, stands twice in its own lineage. Both say so, and whichever
    /// is added again is a slave.)
    fn check_cycle(&mut self, node: usize, slot: usize) {
        let lineage = self.lineage(node);
        let primary = Self::primary_of(&lineage);
        assert!(primary.is_some(), "{node} has no primary, and drops a slave for being one");
        let at = self.life(node).follows[slot].as_ref().and_then(|follow| follow.monitor.as_ref());
        let at = at.map(|(at, _)| self.node_named(&at.node));
        let Some(life) = at.and_then(|other| self.nodes[other].life.as_ref()) else { return };
        let pair = (lineage.incarnation(), life.incarnation);
        let is_answered = [pair.0, pair.1].iter().all(|life| !self.unanswered.contains(life));
        let is_twice = |path: &[u64]| path.iter().filter(|life| [pair.0, pair.1].contains(life)).count() > 2;
        let have_followed_each_other = is_twice(&lineage.path) || is_twice(&life.source().lineage().path);
        if primary == Some(pair.1) && is_answered && !have_followed_each_other {
            let changes = self.changes;
            self.cycles.insert(pair, changes);
            // By another name one may be the slave of the other all the same, or be about to: an answer is on its way.
            let has = |node: usize, slave: usize| {
                let name = &self.nodes[slave].name;
                self.life(node).follows.iter().flatten().any(|follow| follow.is_slave_at(name))
            };
            let other = self.node_named(&life.store.pid.node);
            let is_kept = has(other, node) || has(node, other);
            let is_in_vain = !is_kept && self.cycles.get(&(pair.1, pair.0)) == Some(&changes);
            assert!(!is_in_vain, "{node} and {at:?} give each other up for being each other's primary");
        }
    }

    /// Who is followed is who has answered.
    fn check_answered(&self, slave: &SlaveEntry) {
        let SlaveState::Following(RemoteProcess::Pid(at)) = slave.state() else { return };
        let followed = &self.nodes[self.node_named(&at.node)];
        let Some(life) = followed.life.as_ref().filter(|_| !followed.is_beam) else { return };
        let nobody = Pid { node: "nowhere@h".into(), id: 1, serial: 0, creation: 1 };
        let is_it = life.store.pid.creation != at.creation || slave.is_at(&nobody, Some(life.incarnation));
        assert!(is_it, "{at:?} is followed, and another store has answered");
    }

    /// Two names are one slave where both are of one process.
    fn check_merged(&mut self, node: usize, slot: usize, dropped: &SlaveName, kept: &SlaveName) {
        self.counts.merged += 1;
        let own = self.follow(node, slot).slave.name().clone();
        let other = if own == *dropped { kept } else { dropped };
        let follows = &self.life(node).follows;
        let at = |follow: &Follow| follow.monitor.as_ref().map(|(at, _)| (Arc::clone(&at.node), at.creation));
        let own = follows[slot].as_deref().and_then(at);
        // One of that name that was removed may not have ended.
        let others = follows.iter().flatten().filter(|follow| follow.slave.name() == other);
        let others: Vec<_> = others.filter_map(|other| at(other)).collect();
        if let Some(own) = own.filter(|_| !others.is_empty()) {
            assert!(
                others.contains(&own),
                "{node} takes {dropped} and {kept} for one process: {own:?} {others:?}"
            );
        }
    }

    /// A server has said which keys it has.
    pub fn keys_read(&mut self, node: usize, (slot, question): (usize, u64), keys: &[u64]) {
        let life = self.life(node);
        let Some(follow) = &life.follows[slot] else { return };
        let mut read = KeysRead::default();
        for key in keys {
            // As `kv/downstream/slave.rs`.
            let (key, mut is_foreign) = (term(*key), false);
            let found = life.source().read(&key, &mut |value| is_foreign = value.is_none());
            read.foreign += u64::from(is_foreign);
            if is_foreign || found != SourceRead::Shown {
                follow.slave.hand_in(Input::StrayKey { key: key.into() });
            }
        }
        follow.tell(Input::KeysRead { question, read });
    }

    /// What a process is for a node's store.
    fn whereabouts(&self, node: usize, at: Option<Pid>) -> Whereabouts {
        let life = self.life(node);
        let is_own =
            |at: &Pid| life.registry.by_owned_pid(at).is_some_and(|process| process.is_sibling(&life.store));
        match at {
            None => Whereabouts::Nobody,
            Some(at) if is_own(&at) => Whereabouts::Itself,
            Some(at) => Whereabouts::At(at),
        }
    }

    /// A node has said where a name is.
    pub fn located(&mut self, node: usize, (slot, question): (usize, u64), at: Option<Pid>) {
        let at = self.whereabouts(node, at);
        if let Some(follow) = &mut self.life_mut(node).follows[slot] {
            follow.located(question, Ok(at));
        }
    }

    /// The connection to a node is lost: it does not say any more where names are.
    pub fn not_said(&mut self, node: usize, by: usize) {
        for follow in self.life_mut(node).follows.iter_mut().flatten() {
            while let Some(asked) = follow.asked.iter().find(|asked| asked.node == by) {
                follow.located(asked.question, Err("not said".into()));
            }
        }
    }

    fn watch(&mut self, node: usize, slot: usize, question: u64, at: Pid) {
        let other = self.node_named(&at.node);
        if self.follow(node, slot).before.replace(other).is_some_and(|before| before != other) {
            // By a name that another store has now it is nobody whom the store was started with.
            self.life_mut(node).protected.clear();
        }
        if other == node {
            // The node's connection to itself says at once that a former life's process is none.
            let reason = OwnedTerm::atom("noproc");
            return self.follow(node, slot).tell(Input::Down { question, reason });
        }
        if !self.connect(node, other) {
            let watched = Err("not reached".into());
            return self.follow(node, slot).tell(Input::Watched { question, watched });
        }
        let follow = self.follow(node, slot);
        let slave = Arc::clone(&follow.slave);
        let life = self.life(node);
        let monitor = life.registry.new_reference();
        life.waiters.expect(&monitor, &at.node, move |outcome| {
            let reason = match outcome {
                Outcome::Down(reason) => OwnedTerm::parse(reason).expect("it was checked when it came"),
                _ => OwnedTerm::atom("noconnection"),
            };
            slave.tell(Input::Down { question, reason });
        });
        let mut frames = Outbound::default();
        frames.monitor(&life.store.pid, &RemoteProcess::Pid(at.clone()), &monitor);
        self.send_frames(node, other, &mut frames);
        let follow = self.follow(node, slot);
        follow.monitor = Some((at, monitor));
        follow.tell(Input::Watched { question, watched: Ok(()) });
    }

    fn unwatch(&mut self, node: usize, slot: usize) {
        self.leave_greeting(node, slot);
        let follow = self.follow(node, slot);
        follow.slave.end_question();
        if let Some((at, monitor)) = follow.monitor.take() {
            self.life(node).waiters.cancel(&monitor);
            self.take_back(node, &at, &monitor);
        }
    }

    /// Nobody waits for the answer to a greeting any more, if there is one; it may still come.
    fn leave_greeting(&mut self, node: usize, slot: usize) -> Option<u64> {
        let Greeting { question, at, call, .. } = self.follow(node, slot).greeting.take()?;
        if self.random.one_in(5) {
            self.life(node).waiters.cancel(&call);
        }
        self.take_back(node, &at, &call);
        let incarnation = self.life(node).incarnation;
        self.unanswered.insert(incarnation);
        Some(question)
    }

    /// Takes a monitor back, where there is a connection that it is one of.
    fn take_back(&mut self, node: usize, at: &Pid, monitor: &Reference) {
        let (other, mut frames) = (self.node_named(&at.node), Outbound::default());
        if self.is_up(node, other) {
            frames.demonitor(&self.life(node).store.pid, &RemoteProcess::Pid(at.clone()), monitor);
            self.send_frames(node, other, &mut frames);
        }
    }

    fn greet(&mut self, node: usize, slot: usize, question: u64, at: Pid, hello: &Hello) {
        let news = Arc::clone(&self.follow(node, slot).news);
        let (life, names) = (self.life(node), [self.nodes[node].store_name()]);
        let call = life.registry.new_reference();
        life.waiters.expect_reply(&call, &at.node, move |outcome| {
            let answer = match outcome {
                Outcome::Replied(answer) => {
                    let answer = GreetingAnswer::read(answer.view());
                    assert!(!matches!(answer, GreetingAnswer::None(_)), "{answer:?}");
                    answer
                }
                _ => GreetingAnswer::None("the connection is lost".into()),
            };
            news.lock().push(Came::Answer { question, answer: Answer::Greeting(answer) });
        });
        let (to, mut frames) = (RemoteProcess::Pid(at.clone()), Outbound::default());
        frames.monitor(&life.store.pid, &to, &call);
        frames.send_to(&life.store.pid, &to, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&life.store.pid).list(1).atom("alias").reference(&call);
            hello.write(w, &names);
        });
        let (other, until) = (self.node_named(&at.node), self.now + GREETING_LIMIT);
        let session = hello.session;
        self.follow(node, slot).greeting = Some(Greeting { question, at, call, session, until });
        self.send_frames(node, other, &mut frames);
    }

    /// A node has come up.
    pub fn arrival(&mut self, node: usize) {
        for follow in self.life_mut(node).follows.iter_mut().flatten() {
            follow.tell(Input::NodeArrived);
        }
    }

    fn cast(&mut self, node: usize, at: &Pid, request: impl FnOnce(&mut TermWriter<'_>)) {
        let (other, mut frames) = (self.node_named(&at.node), Outbound::default());
        frames.send_to(&self.life(node).store.pid, &RemoteProcess::Pid(at.clone()), |w| {
            w.tuple(2).atom("$gen_cast");
            request(w);
        });
        self.send_frames(node, other, &mut frames);
    }

    /// Asks a feed for what it has for a node, as far as the connection to that has room.
    pub fn feed(&mut self, node: usize, to: &Arc<str>, feed: &Arc<dyn Feed>) {
        if **to == *CLIENT {
            return self.feed_watcher(node, to, feed);
        }
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
        self.check_window(node, other);
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
