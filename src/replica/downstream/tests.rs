use parking_lot::Mutex;

use super::*;
use crate::distribution::RemoteProcess;
use crate::etf::OwnedTerm;
use crate::replica::{GreetingAnswer, Lineage, PresentValue, Said, SlaveState, Source, SourceRead};

mod names;

/// An empty store of `a@h`, which says what it is told.
#[derive(Default)]
struct Store {
    lineage: Mutex<Lineage>,
    slaves: Mutex<Vec<Arc<Mutex<Downstream>>>>,
    added: Mutex<u64>,
    greetings: Mutex<isize>,
    /// How often its slaves are to be kept.
    noted: Mutex<usize>,
}

impl Source for Store {
    fn parts(&self) -> usize {
        1
    }

    fn keys(&self, _part: usize, _since: u64, _show: &mut dyn FnMut(&[u8])) -> SourceRead {
        SourceRead::Shown
    }

    fn read(&self, _key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        show(None);
        SourceRead::Shown
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        7
    }

    fn lineage(&self) -> Lineage {
        self.lineage.lock().clone()
    }

    fn len(&self) -> usize {
        0
    }
}

fn store() -> Store {
    Store {
        lineage: Mutex::new(Lineage { term: 0, promoted: 0, path: vec![1_000], family: 0 }),
        ..Store::default()
    }
}

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: node.into(), id, serial: 0, creation: 1 }
}

fn said(incarnation: u64) -> GreetingAnswer {
    GreetingAnswer::Taken(Said { incarnation, had: None, applied: 0, stepped_down: false })
}

/// A machine on the desk: its store, its clock, and the number of the last question. Whether it is repaired is no matter here:
/// see `streaming/tests.rs`.
struct Desk<'a> {
    store: &'a Store,
    machine: Arc<Mutex<Downstream>>,
    now: Instant,
    question: u64,
}

impl<'a> Desk<'a> {
    fn new(store: &'a Store, name: SlaveName, is_awaited: bool) -> Self {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        *store.added.lock() += 1;
        let number = *store.added.lock();
        let machine = Arc::new(Mutex::new(Downstream::new(name, number, 1 << 20)));
        store.slaves.lock().push(Arc::clone(&machine));
        let mut desk = Self { store, machine, now, question: 0 };
        let begun = desk.hand(Input::Begin(Search {
            pause_first: Duration::from_millis(200),
            pause_max: Duration::from_secs(10),
            is_awaited,
            // The longest pauses.
            chance: Chance(Box::new(|below| below - 1)),
        }));
        assert!(begun.is_empty());
        desk
    }

    fn others(&self) -> Vec<Arc<Mutex<Downstream>>> {
        let slaves = self.store.slaves.lock();
        slaves.iter().filter(|other| !Arc::ptr_eq(other, &self.machine)).cloned().collect()
    }

    /// Hands an input in, and shows what is to be done then, a line each.
    fn hand(&mut self, input: Input) -> Vec<String> {
        self.machine.lock().handle(input, self.now);
        self.outputs()
    }

    /// What is to be done. What is to be told to other slaves is, and a repair finds nothing.
    fn outputs(&mut self) -> Vec<String> {
        let mut shown = Vec::new();
        loop {
            let output = self.machine.lock().poll_output();
            let Some(output) = output else { return shown };
            shown.push(match output {
                Output::Locate { question } => self.asked("locate", question),
                Output::Watch { question, .. } => self.asked("watch", question),
                Output::Unwatch => "unwatch".into(),
                Output::AskDialect { question, .. } => self.asked("dialect?", question),
                Output::Greet { question, hello, .. } => {
                    assert_eq!((hello.seq, hello.started_empty), (7, false));
                    self.asked("greet", question)
                }
                Output::AskKind { question, .. } => self.asked("kind?", question),
                Output::Look { question } => self.asked("look", question),
                Output::Feed { node } => format!("feed {node}"),
                Output::ReadKeys { question, .. } => self.asked("read keys", question),
                Output::TellSiblings { .. } => "siblings".into(),
                Output::Bye { sessions, .. } => format!("bye {}", sessions.len()),
                Output::Part { at, incarnation, sessions } => {
                    let is_there =
                        |other: &&Arc<Mutex<Downstream>>| other.lock().as_sibling().is_at(&at, incarnation);
                    match self.others().iter().find(is_there) {
                        None => format!("bye {}", sessions.len()),
                        Some(other) => {
                            other.lock().handle(Input::TakenOver { sessions }, self.now);
                            continue;
                        }
                    }
                }
                Output::Drop { name } => {
                    let is_it = |other: &&Arc<Mutex<Downstream>>| *other.lock().name() == name;
                    let others = self.others();
                    others
                        .iter()
                        .filter(is_it)
                        .for_each(|other| other.lock().handle(Input::Removed, self.now));
                    continue;
                }
                Output::Forget { at, incarnation } => {
                    for other in self.others() {
                        other.lock().handle(Input::Elsewhere { at: at.clone(), incarnation }, self.now);
                    }
                    continue;
                }
                Output::Greeting(is_under_way) => {
                    *self.store.greetings.lock() += if is_under_way { 1 } else { -1 };
                    continue;
                }
                Output::Repair => {
                    self.machine.lock().repair(self.store);
                    continue;
                }
                Output::ReadPart { scan, part, .. } => {
                    let read = PartRead::Keys { keys: Vec::new(), parts: 1, total: 0, is_damaged: false };
                    self.machine.lock().handle(Input::PartRead { scan, part, read }, self.now);
                    continue;
                }
                Output::Moved | Output::SlavesChanged => {
                    *self.store.noted.lock() += 1;
                    continue;
                }
                Output::CopyOthers => "copy others".into(),
                Output::Settle(refusal) => format!("settle {refusal:?}"),
                Output::UpToDate => "up to date".into(),
                Output::Log(event) => format!("{:?}: {event}", event.level()),
            });
        }
    }

    fn asked(&mut self, what: &str, question: u64) -> String {
        assert!(question > self.question, "each question is a new one");
        self.question = question;
        what.into()
    }

    fn timeout(&mut self) -> Vec<String> {
        let due = self.machine.lock().poll_timeout().expect("something is due");
        self.now = self.now.max(due);
        self.hand(Input::Timeout)
    }

    fn located(&mut self, at: &Pid) -> Vec<String> {
        let found = if *at == pid("a@h", 1) { Whereabouts::Itself } else { Whereabouts::At(at.clone()) };
        self.hand(Input::Located { question: self.question, found: Ok(found) })
    }

    fn nobody(&mut self) -> Vec<String> {
        self.hand(Input::Located { question: self.question, found: Ok(Whereabouts::Nobody) })
    }

    fn watched(&mut self) -> Vec<String> {
        self.hand(Input::Watched { question: self.question, watched: Ok(()) })
    }

    fn answered(&mut self, question: u64, answer: Answer) -> Vec<String> {
        let siblings = self.others().iter().map(|other| other.lock().as_sibling()).collect();
        let store = Standpoint {
            lineage: self.store.lineage(),
            seq: self.store.seq(),
            clock: 0,
            started_empty: false,
            slaves: Vec::new(),
            siblings: Siblings(siblings),
        };
        self.hand(Input::Answered { question, answer, store })
    }

    fn dialect(&mut self, is_kvnode: bool) -> Vec<String> {
        self.answered(self.question, Answer::Dialect(Ok(is_kvnode)))
    }

    fn greeted(&mut self, answer: GreetingAnswer) -> Vec<String> {
        self.answered(self.question, Answer::Greeting(answer))
    }

    fn kind(&mut self, foreign: Result<Option<String>, String>) -> Vec<String> {
        self.answered(self.question, Answer::Kind(foreign))
    }

    /// Up to a greeting that waits for its answer; gives the watch's number.
    fn greet(&mut self, at: &Pid) -> u64 {
        assert_eq!(self.timeout(), ["locate"]);
        assert_eq!(self.located(at), ["watch"]);
        let watch = self.question;
        assert_eq!(self.watched(), ["dialect?"]);
        assert_eq!(self.dialect(true), ["greet"]);
        watch
    }

    fn follow(&mut self, at: &Pid, incarnation: u64) -> u64 {
        let watch = self.greet(at);
        let lines = self.greeted(said(incarnation));
        assert!(lines.contains(&"Info: slave found".to_owned()), "{lines:?}");
        watch
    }

    fn down(&mut self, watch: u64, reason: &str) -> Vec<String> {
        self.hand(Input::Down { question: watch, reason: OwnedTerm::atom(reason) })
    }

    fn greetings(&self) -> isize {
        *self.store.greetings.lock()
    }

    fn state(&self) -> SlaveState {
        self.machine.lock().state()
    }

    fn is_over(&self) -> bool {
        self.machine.lock().is_over()
    }

    /// How long it pauses now.
    fn pause(&self) -> Duration {
        self.machine.lock().poll_timeout().expect("it is looked for again").duration_since(self.now)
    }
}

fn remote() -> SlaveName {
    SlaveName::remote("kv", "b@h")
}

#[test]
fn a_kvnodes_store_is_found_greeted_and_told_when_it_is_removed() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), true);
    let at = pid("b@h", 5);
    desk.greet(&at);
    assert_eq!(desk.greetings(), 1);
    let lines = desk.greeted(said(9));
    assert_eq!(&lines[..2], ["settle None", "Info: slave found"]);
    assert!(lines.contains(&"feed b@h".into()), "{lines:?}");
    assert_eq!(desk.greetings(), 0);
    assert_eq!(desk.state(), SlaveState::Following(RemoteProcess::Pid(at)));
    assert_eq!(desk.hand(Input::SiblingsChanged), ["siblings"]);
    assert_eq!(desk.hand(Input::Removed), ["bye 1", "Info: slave no longer followed", "unwatch"]);
    assert!(desk.is_over() && desk.machine.lock().poll_timeout().is_none());
    assert!(desk.hand(Input::Timeout).is_empty());
}

#[test]
fn a_server_of_the_protocol_is_asked_what_it_is_and_has_its_keys_read() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    desk.timeout();
    desk.located(&pid("b@h", 5));
    desk.watched();
    assert_eq!(desk.dialect(false), ["kind?"]);
    assert_eq!(desk.kind(Ok(None)), ["Info: slave found", "read keys"]);
    assert_eq!(desk.greetings(), 0);
    // Until these are read nothing is repaired, and nothing due but a look at its name.
    assert_eq!(desk.pause(), NAME_PAUSE);
    let read = KeysRead { foreign: 2, ..KeysRead::default() };
    let lines = desk.hand(Input::KeysRead { question: desk.question, read });
    assert_eq!(lines[0], "Warn: slave has keys that its primary has not: they are deleted there");
    assert_eq!(lines[1], "feed b@h");
    assert!(!desk.machine.lock().may_be_stale());
}

#[test]
fn a_server_of_another_kind_is_no_slave_and_stays_none() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let at = pid("b@h", 5);
    desk.timeout();
    desk.located(&at);
    desk.watched();
    desk.dialect(false);
    let lines = desk.kind(Ok(Some("Elixir.Other".into())));
    assert!(lines[0].starts_with("Warn: slave not found, looking for it: "), "{lines:?}");
    assert!(lines.iter().any(|line| line.ends_with("(its module: Elixir.Other)")), "{lines:?}");
    assert_eq!(desk.timeout(), ["locate"]);
    assert!(desk.located(&at).is_empty(), "the same process is not asked again");
    assert_eq!(desk.timeout(), ["locate"]);
    assert_eq!(desk.located(&pid("b@h", 6)), ["watch"]);
}

/// It takes these along when it is promoted, and may be before it is told that it is none.
#[test]
fn one_that_is_removed_is_not_told_which_others_are_left() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    desk.follow(&pid("b@h", 5), 9);
    desk.machine.lock().handle(Input::SiblingsChanged, desk.now);
    assert_eq!(desk.hand(Input::Removed), ["bye 1", "Info: slave no longer followed", "unwatch"]);
}

/// Whatever of it was carried out by then, the store knows of no greeting once a driver has ended.
#[test]
fn a_driver_that_ends_before_it_has_told_of_a_greeting_leaves_none_under_way() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    desk.timeout();
    desk.located(&pid("b@h", 5));
    let question = desk.question;
    desk.machine.lock().handle(Input::Watched { question, watched: Ok(()) }, desk.now);
    desk.machine.lock().abandon();
    assert_eq!(desk.outputs(), ["unwatch"]);
    assert_eq!((desk.greetings(), desk.is_over()), (0, true));
}

/// By whatever road a greeting ends, the store knows of none any more, and nothing is watched that is not wanted.
#[test]
fn no_road_out_of_a_greeting_leaves_it_under_way() {
    type Road = fn(&mut Desk<'_>, u64) -> Vec<String>;
    let roads: [(&str, Road); 9] = [
        ("down", |desk, watch| desk.down(watch, "noconnection")),
        ("removed", |desk, _| desk.hand(Input::Removed)),
        ("refused", |desk, _| desk.greeted(GreetingAnswer::Refused(Refusal::HasPrimary))),
        ("never", |desk, _| desk.greeted(GreetingAnswer::Refused(Refusal::Cycle))),
        ("crossing", |desk, _| desk.greeted(GreetingAnswer::Refused(Refusal::Crossing))),
        ("not answered", |desk, _| desk.greeted(GreetingAnswer::None("it does not answer".into()))),
        ("no store", |desk, _| {
            assert_eq!(desk.greeted(GreetingAnswer::NoStore), ["kind?"]);
            desk.kind(Err("its node does not say".into()))
        }),
        ("moved", |desk, _| {
            desk.now += NAME_PAUSE;
            assert_eq!(desk.hand(Input::Timeout), ["look"]);
            desk.hand(Input::Holders { question: desk.question, holders: vec![pid("c@h", 1)] })
        }),
        ("abandoned", |desk, _| {
            desk.machine.lock().abandon();
            desk.outputs()
        }),
    ];
    for (name, road) in roads {
        let store = store();
        let mut desk = Desk::new(&store, remote(), false);
        let watch = desk.greet(&pid("b@h", 5));
        assert_eq!(desk.greetings(), 1, "{name}");
        let lines = road(&mut desk, watch);
        assert_eq!(desk.greetings(), 0, "{name}: {lines:?}");
        let is_watched = desk.machine.lock().phase.watch().is_some();
        assert_eq!(lines.contains(&"unwatch".into()), !is_watched, "{name}: {lines:?}");
    }
}

#[test]
fn one_that_is_removed_or_never_a_slave_is_told_of_every_greeting_that_it_may_have_taken() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let at = pid("b@h", 5);
    desk.greet(&at);
    desk.greeted(GreetingAnswer::None("it does not answer".into()));
    desk.greet(&at);
    assert_eq!(desk.hand(Input::Removed)[0], "bye 2");

    let mut desk = Desk::new(&store, remote(), false);
    let watch = desk.follow(&at, 9);
    desk.down(watch, "noconnection");
    desk.greet(&at);
    let noted = *store.noted.lock();
    let lines = desk.greeted(GreetingAnswer::Refused(Refusal::Cycle));
    assert_eq!(lines[0], "bye 1");
    assert!(lines[1].starts_with("Warn: slave dropped: it is a primary of this store"), "{lines:?}");
    assert_eq!(*store.noted.lock(), noted + 1);

    // Removed between two watches.
    let mut desk = Desk::new(&store, remote(), false);
    let watch = desk.follow(&at, 9);
    desk.down(watch, "noconnection");
    assert_eq!(desk.hand(Input::Removed), ["bye 1"]);
}

#[test]
fn an_answer_that_comes_late_is_none() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let at = pid("b@h", 5);
    desk.greet(&at);
    let late = desk.question;
    desk.greeted(GreetingAnswer::None("it does not answer".into()));
    let watch = desk.greet(&at);
    for input in [
        Input::Located { question: late, found: Ok(Whereabouts::Nobody) },
        Input::Watched { question: late, watched: Err("late".into()) },
        Input::Down { question: watch - 1, reason: OwnedTerm::atom("normal") },
        Input::Holders { question: late, holders: vec![pid("c@h", 1)] },
        Input::KeysRead { question: late, read: KeysRead::default() },
    ] {
        assert!(desk.hand(input).is_empty());
    }
    for answer in [Answer::Greeting(said(9)), Answer::Dialect(Ok(false)), Answer::Kind(Ok(None))] {
        assert!(desk.answered(late, answer).is_empty());
    }
    assert_eq!((desk.greetings(), desk.state()), (1, SlaveState::Seeking));
    desk.greeted(said(9));
    assert!(matches!(desk.state(), SlaveState::Following(_)));
}

#[test]
fn a_slave_that_refuses_is_asked_again_unless_somebody_was_told_so() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let at = pid("b@h", 5);
    let refused = || GreetingAnswer::Refused(Refusal::HasPrimary);
    desk.greet(&at);
    let lines = desk.greeted(refused());
    assert!(lines[0].starts_with("Warn: slave refuses, asking again"), "{lines:?}");
    assert_eq!(desk.machine.lock().standing(), Standing::Refused(Refusal::HasPrimary));
    desk.greet(&at);
    assert_eq!(desk.greeted(refused()), ["unwatch"], "it is said once");

    let mut desk = Desk::new(&store, remote(), true);
    desk.greet(&at);
    let lines = desk.greeted(refused());
    assert_eq!(lines[0], "settle Some(HasPrimary)");
    assert!(lines[1].starts_with("Warn: slave dropped: it is the slave of another"), "{lines:?}");
    assert!(desk.is_over());
    assert_eq!(desk.state(), SlaveState::Dropped);
}

#[test]
fn what_the_store_has_become_meanwhile_is_told_at_once() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let at = pid("b@h", 5);
    desk.greet(&at);
    store.lineage.lock().term = 1;
    // What was refused is the store as it was.
    let lines = desk.greeted(GreetingAnswer::Refused(Refusal::Superseded));
    assert_eq!(lines, ["Debug: slave is about to have a slave itself: greeted again soon"]);
    assert_eq!(desk.timeout(), ["dialect?"]);
    desk.dialect(true);
    store.lineage.lock().term = 2;
    assert_eq!(desk.greeted(said(9)), ["Debug: slave greeted anew", "unwatch"]);
    assert_eq!(desk.pause(), Duration::ZERO);
    desk.follow(&at, 9);
    assert_eq!(desk.hand(Input::Renew), ["Debug: slave greeted anew", "unwatch"]);
    // Also where it changes while it is greeted, and the answer is weighed before that is seen.
    desk.greet(&at);
    assert!(desk.hand(Input::Renew).is_empty());
    let lines = desk.greeted(said(9));
    assert_eq!(lines, ["Info: slave found", "Debug: slave greeted anew", "unwatch"]);
}

#[test]
fn a_store_is_not_its_own_slave() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), true);
    desk.timeout();
    let lines = desk.located(&pid("a@h", 1));
    assert_eq!(lines, ["Error: a store cannot be its own slave: dropped", "settle Some(Itself)"]);
    assert!(desk.is_over());
    assert_eq!(*store.noted.lock(), 1);
}

#[test]
fn searches_are_paused_longer_and_longer_and_go_on_when_a_node_comes_up() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), true);
    let nobody = |desk: &mut Desk<'_>| {
        desk.timeout();
        desk.nobody()
    };
    let lines = nobody(&mut desk);
    assert_eq!(lines, ["Warn: slave not found, looking for it: nobody has that name", "settle None"]);
    assert_eq!(desk.pause(), Duration::from_millis(200));
    assert!(nobody(&mut desk).is_empty());
    assert_eq!(desk.pause(), Duration::from_millis(400));
    (0..9).for_each(|_| _ = nobody(&mut desk));
    assert_eq!(desk.pause(), Duration::from_secs(10));
    desk.hand(Input::NodeArrived);
    assert_eq!(desk.pause(), Duration::from_millis(200));
    // One that came up during the search counts.
    desk.timeout();
    desk.hand(Input::NodeArrived);
    desk.nobody();
    assert_eq!(desk.pause(), Duration::from_millis(200));
    // One that was there once is looked for at least every second.
    let watch = desk.follow(&pid("b@h", 5), 9);
    desk.down(watch, "noconnection");
    (0..9).for_each(|_| _ = nobody(&mut desk));
    assert_eq!(desk.pause(), KNOWN_PAUSE_MAX);
}

#[test]
fn the_caller_that_adds_a_slave_is_answered_in_time() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), true);
    desk.timeout();
    assert_eq!(desk.pause(), ADDED_LIMIT, "the search has no end of its own");
    assert_eq!(desk.timeout(), ["settle None"]);
    assert!(desk.machine.lock().poll_timeout().is_none());
}

#[test]
fn a_pid_does_not_come_back_but_its_node_may() {
    let store = store();
    let at = pid("b@h", 5);
    let mut desk = Desk::new(&store, SlaveName::Pid(at.clone()), false);
    desk.timeout();
    assert_eq!(desk.located(&at), ["watch"]);
    let watch = desk.question;
    assert_eq!(desk.watched(), ["dialect?"]);
    assert_eq!(desk.down(watch, "noconnection"), ["Warn: slave lost; looking for it", "unwatch"]);
    desk.timeout();
    assert_eq!(desk.located(&at), ["watch"]);
    let watch = desk.question;
    desk.watched();
    let lines = desk.down(watch, "normal");
    assert_eq!(lines[1], "Warn: slave dropped: a pid does not come back");
    assert!(desk.is_over());
}

#[test]
fn a_name_that_has_gone_to_another_process_is_followed_there() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    let (at, other) = (pid("b@h", 5), pid("c@h", 6));
    desk.follow(&at, 9);
    let look = |desk: &mut Desk<'_>, holders: &[Pid]| {
        desk.now += NAME_PAUSE;
        assert!(desk.hand(Input::Timeout).contains(&"look".into()));
        desk.hand(Input::Holders { question: desk.question, holders: holders.to_vec() })
    };
    assert!(look(&mut desk, &[]).is_empty(), "nodes that do not say");
    assert!(look(&mut desk, &[other.clone(), at]).is_empty(), "nodes that say differently");
    let lines = look(&mut desk, &[other]);
    assert_eq!(lines[0], "bye 1");
    assert_eq!(lines[1], "Warn: the slave's name has gone to another process: following that");
    assert_eq!(desk.pause(), Duration::ZERO);
}

#[test]
fn a_process_whose_name_has_gone_while_that_was_looked_for_is_told_so() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    desk.follow(&pid("b@h", 5), 9);
    desk.hand(Input::Renew);
    assert_eq!(desk.timeout(), ["locate"]);
    assert_eq!(desk.located(&pid("c@h", 6)), ["bye 1", "watch"]);
    // To the store itself.
    let mut desk = Desk::new(&store, remote(), false);
    let watch = desk.follow(&pid("b@h", 5), 9);
    desk.down(watch, "noconnection");
    desk.timeout();
    assert_eq!(desk.located(&pid("a@h", 1))[0], "bye 1");
}

#[test]
fn one_process_is_one_slave_by_the_name_that_outlives_it() {
    let store = store();
    let at = pid("b@h", 5);
    let mut by_pid = Desk::new(&store, SlaveName::Pid(at.clone()), false);
    by_pid.timeout();
    by_pid.located(&at);
    by_pid.watched();
    by_pid.dialect(true);
    by_pid.greeted(said(9));
    // By its name it is greeted, as that one stays.
    let mut by_name = Desk::new(&store, remote(), false);
    by_name.greet(&at);
    let lines = by_name.greeted(said(9));
    assert!(lines[0].starts_with("Info: slave dropped: it is "), "{lines:?}");
    assert_eq!(by_pid.state(), SlaveState::Dropped);
    assert_eq!(by_pid.outputs(), ["Info: slave no longer followed", "unwatch"], "no bye");
    // Which of the two sessions is in force only the process knows.
    assert_eq!(by_name.outputs()[0], "Debug: slave greeted anew");
    by_name.greet(&at);
    by_name.greeted(said(9));
    // Another name is not even greeted, and a pid neither.
    store.slaves.lock().retain(|slave| !slave.lock().is_over());
    let mut again = Desk::new(&store, SlaveName::remote("other", "b@h"), false);
    again.timeout();
    again.located(&at);
    again.watched();
    let noted = *store.noted.lock();
    let lines = again.dialect(true);
    assert!(lines[0].starts_with("Info: slave dropped: it is "), "{lines:?}");
    assert_eq!(*store.noted.lock(), noted + 1, "it is a slave by this name no more");
    assert!(again.is_over() && matches!(by_name.state(), SlaveState::Following(_)));
    assert_eq!(again.greetings(), 0);
    // Found by another pid (a name of its own in `global`), it has taken a greeting: the kept one greets it anew.
    store.slaves.lock().retain(|slave| !slave.lock().is_over());
    let mut late = Desk::new(&store, SlaveName::remote("third", "b@h"), false);
    late.greet(&pid("b@h", 8));
    let lines = late.greeted(said(9));
    assert!(lines[0].starts_with("Info: slave dropped: it is "), "{lines:?}");
    assert!(late.is_over() && by_name.state() == SlaveState::Seeking);
    assert_eq!(by_name.outputs()[0], "Debug: slave greeted anew");
    assert_eq!(by_name.machine.lock().sessions().len(), 2);
}

#[test]
fn a_greeting_of_one_that_is_removed_is_taken_over_by_the_other_entry_of_the_process() {
    let store = store();
    let at = pid("b@h", 5);
    let mut by_pid = Desk::new(&store, SlaveName::Pid(at.clone()), false);
    by_pid.timeout();
    by_pid.located(&at);
    by_pid.watched();
    by_pid.dialect(true);
    by_pid.greeted(said(9));
    let mut by_name = Desk::new(&store, remote(), false);
    by_name.greet(&at);
    assert_eq!(by_name.hand(Input::Removed), ["Info: slave no longer followed", "unwatch"], "no bye");
    assert_eq!(by_pid.outputs()[0], "Debug: slave greeted anew");
    assert_eq!(by_pid.hand(Input::Removed)[0], "bye 2");
}

#[test]
fn a_session_that_may_be_in_force_is_kept_though_the_other_entry_of_the_process_is_followed() {
    let store = store();
    let at = pid("b@h", 5);
    let mut late = Desk::new(&store, SlaveName::remote("other", "b@h"), false);
    late.greet(&at);
    // Its process has taken this one's greeting behind that.
    let mut one = Desk::new(&store, remote(), false);
    one.follow(&at, 9);
    one.hand(Input::Renew);
    late.greeted(said(9));
    assert!(matches!(late.state(), SlaveState::Following(_)));
    one.timeout();
    one.located(&at);
    one.watched();
    let lines = one.dialect(true);
    assert!(lines[0].starts_with("Info: slave dropped: it is "), "{lines:?}");
    assert_eq!(late.outputs()[0], "Debug: slave greeted anew");
    assert_eq!(late.hand(Input::Removed)[0], "bye 2");
}
