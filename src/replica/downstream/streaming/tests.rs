use super::super::stream::ACKNOWLEDGE_PAUSE;
use super::super::{
    Answer, Chance, Input, Missing, Output, PartRead, Search, Siblings, Standpoint, Whereabouts,
};
use super::*;
use crate::etf::{OwnedTerm, Pid, encode};
use crate::replica::{GreetingAnswer, Lineage, Present, PresentValue, Said, SlaveName};
use std::time::Duration;

mod clear;
mod full;
mod many;
mod sessions;
mod whole;

/// Nothing but one key, whose value is itself.
struct OneKey(Vec<u8>);

impl Source for OneKey {
    fn parts(&self) -> usize {
        2
    }

    fn keys(&self, part: usize, _since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        if part == 1 {
            show(&self.0);
        }
        SourceRead::Shown
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        let traits = Traits::none();
        show((key == self.0).then_some(Present { value: key, traits, revision: 5, deadline: 0 }));
        SourceRead::Shown
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        7
    }

    fn lineage(&self) -> Lineage {
        lineage()
    }

    fn len(&self) -> usize {
        1
    }
}

fn lineage() -> Lineage {
    Lineage { term: 0, promoted: 0, path: vec![5], family: 0 }
}

/// The same, whose value cannot be read.
struct Damaged(OneKey);

impl Source for Damaged {
    fn parts(&self) -> usize {
        self.0.parts()
    }

    fn keys(&self, part: usize, since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        self.0.keys(part, since, show)
    }

    fn read(&self, _key: &[u8], _show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        SourceRead::Unreadable
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        self.0.seq()
    }

    fn lineage(&self) -> Lineage {
        self.0.lineage()
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

fn at(id: u32) -> Pid {
    Pid { node: "b@h".into(), id, serial: 0, creation: 1 }
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> ReplicaWrite<'a> {
    ReplicaWrite::Put { key, value, traits: Traits::none(), revision: 5, deadline: 0 }
}

fn delete(key: &[u8]) -> ReplicaWrite<'_> {
    ReplicaWrite::Delete { key, traits: Traits::none() }
}

fn said() -> Said {
    Said { incarnation: 9, had: None, applied: 0, stepped_down: false }
}

/// A slave, and what is done for it: its questions are answered, or wait.
struct Line<'a> {
    source: &'a dyn Source,
    slave: Downstream,
    now: Instant,
    /// The last of each kind.
    question: u64,
    watch: u64,
    greetings: Vec<u64>,
    /// Its keys are being read, as this question asks.
    sweep: Option<u64>,
    byes: Vec<Vec<u64>>,
    copies: usize,
    events: Vec<Event>,
}

impl<'a> Line<'a> {
    fn new(source: &'a dyn Source, bytes_max: usize) -> Self {
        Self::numbered(source, bytes_max, 0)
    }

    fn numbered(source: &'a dyn Source, bytes_max: usize, number: u64) -> Self {
        #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
        let now = Instant::now();
        let slave = Downstream::new(SlaveName::global("s"), number, bytes_max);
        let mut line = Self {
            source,
            slave,
            now,
            question: 0,
            watch: 0,
            greetings: Vec::new(),
            sweep: None,
            byes: Vec::new(),
            copies: 0,
            events: Vec::new(),
        };
        line.hand(Input::Begin(Search {
            pause_first: Duration::from_millis(1),
            pause_max: Duration::from_millis(1),
            is_awaited: false,
            chance: Chance(Box::new(|_| 0)),
        }));
        line
    }

    fn hand(&mut self, input: Input) {
        self.slave.handle(input, self.now);
        self.carry_out();
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.slave.poll_output() {
            match output {
                Output::Locate { question }
                | Output::AskDialect { question, .. }
                | Output::AskKind { question, .. } => self.question = question,
                Output::Watch { question, .. } => (self.question, self.watch) = (question, question),
                Output::Greet { question, hello, .. } => {
                    self.question = question;
                    self.greetings.push(hello.session);
                }
                Output::ReadKeys { question, .. } => self.sweep = Some(question),
                Output::Repair => self.slave.repair(self.source),
                Output::ReadPart { scan, part, since } => {
                    let mut keys = Vec::new();
                    let read = self.source.keys(part, since, &mut |key| keys.push(key.into()));
                    assert_eq!(read, SourceRead::Shown);
                    let read = PartRead::Keys {
                        keys,
                        parts: self.source.parts(),
                        total: self.source.len() as u64,
                        is_damaged: false,
                    };
                    self.slave.handle(Input::PartRead { scan, part, read }, self.now);
                }
                Output::Bye { sessions, .. } | Output::Part { sessions, .. } => self.byes.push(sessions),
                Output::CopyOthers => self.copies += 1,
                Output::Log(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    fn answered(&mut self, answer: Answer) {
        let store = Standpoint {
            lineage: lineage(),
            seq: self.source.seq(),
            clock: 0,
            started_empty: false,
            slaves: Vec::new(),
            siblings: Siblings::default(),
        };
        self.hand(Input::Answered { question: self.question, answer, store });
    }

    /// A process has its name, and is watched.
    fn watched(&mut self, id: u32) {
        self.now = self.now.max(self.slave.poll_timeout().expect("it is looked for"));
        self.hand(Input::Timeout);
        self.hand(Input::Located { question: self.question, found: Ok(Whereabouts::At(at(id))) });
        self.hand(Input::Watched { question: self.question, watched: Ok(()) });
    }

    /// It is an Elixir server.
    fn found(&mut self, id: u32) {
        self.watched(id);
        self.answered(Answer::Dialect(Ok(false)));
        self.answered(Answer::Kind(Ok(None)));
    }

    /// It is a kvnode's store, and greeted.
    fn greeted(&mut self, id: u32, answer: GreetingAnswer) {
        self.watched(id);
        self.answered(Answer::Dialect(Ok(true)));
        self.answered(Answer::Greeting(answer));
    }

    fn gone(&mut self) {
        self.hand(Input::Down { question: self.watch, reason: OwnedTerm::atom("noconnection") });
    }

    /// Its keys were read, where they were to be.
    fn swept(&mut self, error: Option<&str>) -> bool {
        let Some(question) = self.sweep.take() else { return false };
        let read = KeysRead { error: error.map(String::from), ..KeysRead::default() };
        self.hand(Input::KeysRead { question, read });
        true
    }

    /// All that is due is done.
    fn repair(&mut self) {
        self.carry_out();
        for _ in 0..100 {
            if self.slave.poll_timeout().is_none_or(|due| due > self.now) {
                return;
            }
            self.hand(Input::Timeout);
        }
        panic!("it goes on for ever");
    }

    /// What is sent now, as text, and the mark that is to be acknowledged.
    fn taken(&mut self) -> (Vec<String>, Option<Mark>) {
        let mut sent = Vec::new();
        let taken = self.slave.take(
            "b@h",
            self.now,
            |_| true,
            |_, message| {
                sent.push(format!("{:?}", TermView::parse(message).expect("a term")));
                true
            },
        );
        let mark = match taken.acknowledge {
            Acknowledge::Now(mark) => Some(mark),
            Acknowledge::No | Acknowledge::Later => None,
        };
        (sent, mark)
    }

    fn acknowledged(&mut self, mark: Mark) {
        self.hand(Input::Acknowledged { mark, kept: Ok(()) });
    }

    /// All that waits is sent and acknowledged.
    fn settled(&mut self) -> Vec<String> {
        self.repair();
        let (sent, mark) = self.taken();
        self.acknowledged(mark.expect("it is asked"));
        sent
    }

    fn pass(&mut self) {
        self.now += ACKNOWLEDGE_PAUSE;
    }
}

#[test]
fn one_that_is_found_first_gets_everything_and_then_each_write_in_order() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    assert_eq!(line.slave.push(7, put(&key, &key)), Pushed::Kept);
    assert_eq!(line.slave.standing(), Standing::Seeking);
    line.found(1);
    assert!(line.swept(None) && !line.swept(None));
    line.repair();
    assert_eq!(line.slave.push(7, delete(&key)), Pushed::Ready);
    let (sent, mark) = line.taken();
    assert_eq!(
        sent,
        ["{:\"$gen_cast\", {:replicate_put, :k, :k}}", "{:\"$gen_cast\", {:replicate_delete, :k}}"]
    );
    assert_eq!(line.slave.standing(), Standing::InStep { lag: 2 });
    line.acknowledged(mark.expect("it is asked at once"));
    assert_eq!(line.slave.standing(), Standing::InStep { lag: 0 });
}

#[test]
fn the_same_process_is_sent_what_it_did_not_acknowledge_and_another_one_everything() {
    let [a, b] = ["a", "b"].map(atom);
    let source = OneKey(a);
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    assert!(line.swept(None));
    line.settled();
    line.slave.push(7, put(&b, &b));
    line.pass();
    let (sent, mark) = line.taken();
    assert_eq!((sent.len(), mark.is_some()), (1, true));
    line.gone();
    assert_eq!(line.slave.standing(), Standing::Gone { missed: Some(1) });
    line.found(1);
    // An answer to what was asked before.
    line.acknowledged(mark.expect("asked"));
    assert!(!line.swept(None));
    line.repair();
    assert_eq!(line.taken().0, ["{:\"$gen_cast\", {:replicate_delete, :b}}"]);
    line.gone();
    line.found(2);
    assert!(line.swept(None));
    line.repair();
    assert_eq!(line.taken().0, ["{:\"$gen_cast\", {:replicate_put, :a, :a}}"]);
}

#[test]
fn past_the_bound_it_is_behind_and_goes_on_once_it_has_taken_what_it_was_sent() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 300);
    line.found(1);
    line.swept(None);
    line.repair();
    let (_, mark) = line.taken();
    let value = encode(|w| _ = w.binary(&[0; 400]));
    assert_eq!(line.slave.push(7, put(&key, &value)), Pushed::Behind);
    assert_eq!(line.slave.standing(), Standing::Behind { missed: Some(1) });
    assert_eq!(line.slave.push(7, put(&key, &value)), Pushed::Kept);
    line.repair();
    assert!(matches!(line.slave.standing(), Standing::Behind { .. }));
    assert!(line.events.contains(&Event::FellBehind { dropped: 1 }), "{:?}", line.events);
    line.acknowledged(mark.expect("asked"));
    assert!(line.events.contains(&Event::TakesAgain), "{:?}", line.events);
    line.repair();
    line.pass();
    assert_eq!(line.taken().0.len(), 1);
    // Keys alone can be too many.
    line.gone();
    for n in 0..10 {
        line.slave.push(7, put(&atom(&format!("key {n}")), &key));
    }
    assert_eq!(line.slave.standing(), Standing::Gone { missed: None });
    line.found(1);
    assert!(line.swept(None));
}

#[test]
fn one_that_is_behind_with_nothing_on_its_way_goes_on_at_once() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 300);
    line.found(1);
    line.swept(None);
    line.settled();
    assert_eq!(line.slave.push(8, put(&key, &key)), Pushed::Ready);
    let value = encode(|w| _ = w.binary(&[0; 400]));
    assert_eq!(line.slave.push(9, put(&key, &value)), Pushed::Behind);
    line.repair();
    assert_eq!(line.slave.standing(), Standing::InStep { lag: 1 }, "what the store has by now");
}

#[test]
fn one_that_falls_behind_while_its_keys_are_read_is_repaired_once_they_are() {
    let [k, stray] = ["k", "stray"].map(atom);
    let source = OneKey(k.clone());
    let mut line = Line::new(&source, 300);
    line.found(1);
    let value = encode(|w| _ = w.binary(&[0; 400]));
    assert_eq!(line.slave.push(8, put(&k, &k)), Pushed::Ready);
    assert_eq!(line.slave.push(9, put(&k, &value)), Pushed::Behind);
    line.repair();
    assert!(matches!(line.slave.standing(), Standing::Behind { .. }));
    line.hand(Input::StrayKey { key: stray.into() });
    assert!(line.swept(None));
    line.repair();
    // All is copied, and so all keys are to be read once more.
    line.swept(None);
    let mut sent = line.settled();
    sent.sort_unstable();
    sent.dedup();
    assert_eq!(
        sent,
        ["{:\"$gen_cast\", {:replicate_delete, :stray}}", "{:\"$gen_cast\", {:replicate_put, :k, :k}}"]
    );
    assert_eq!(line.slave.standing(), Standing::InStep { lag: 0 });
}

#[test]
fn a_kvnode_puts_aside_what_is_written_once_all_is_to_be_copied_again() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    let session = line.greetings[0];
    line.settled();
    line.hand(Input::CopyAll);
    line.slave.push(8, put(&key, &key));
    line.pass();
    assert_eq!(
        line.taken().0,
        [
            format!("{{:\"$gen_cast\", {{:replica_copy, {session}, 7, :begin}}}}"),
            format!("{{:\"$gen_cast\", {{:replica_put, {session}, 8, 5, :k, :k}}}}")
        ],
        "else it would seem to have everything up to the write"
    );
}

#[test]
fn what_its_node_cannot_decode_is_not_sent_and_not_confirmed_and_is_known() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.repair();
    let take = |line: &mut Line<'_>| {
        let mut sent = 0;
        let can_decode = |traits: Traits| !traits.intersects(Traits::V4_NC);
        let taken = line.slave.take("b@h", line.now, can_decode, |_, _| {
            sent += 1;
            true
        });
        let Acknowledge::Now(mark) = taken.acknowledge else { panic!("it is asked") };
        line.acknowledged(mark);
        line.pass();
        (sent, taken.has_news)
    };
    assert_eq!(take(&mut line), (1, false));
    let wide =
        |key| ReplicaWrite::Put { key, value: &[97, 1], traits: Traits::V4_NC, revision: 5, deadline: 0 };
    line.slave.push(8, wide(&key));
    line.slave.push(9, wide(&key));
    assert_eq!(take(&mut line), (0, true));
    assert!(line.events.contains(&Event::Withheld));
    let slave = &line.slave;
    assert_eq!(
        (slave.confirmed(), slave.has(9, Traits::V4_NC), slave.has(9, Traits::none())),
        (9, false, true)
    );
    assert_eq!(slave.withheld(3), (1, vec![key.clone().into_boxed_slice()]));
    line.slave.push(10, put(&key, &key));
    assert_eq!(take(&mut line), (1, false));
    assert_eq!(line.slave.withheld(3).0, 0);
}

#[test]
fn it_is_asked_once_in_a_while_and_never_twice_at_once() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.repair();
    let asked = line.now;
    let mark = line.taken().1.expect("asked");
    line.slave.push(7, put(&key, &key));
    line.now = asked + 2 * ACKNOWLEDGE_PAUSE;
    assert_eq!(line.taken().1, None);
    assert_eq!(line.slave.stream_due(), None);
    line.now = asked;
    line.acknowledged(mark);
    assert_eq!(line.slave.stream_due(), Some(asked + ACKNOWLEDGE_PAUSE));
    assert_eq!(line.taken().1, None);
    line.pass();
    assert!(line.taken().1.is_some());
    // Where a caller waits, at once.
    let (_, stream) = line.slave.phase.stream().expect("it is followed");
    let mark = Mark { session: stream.session, up_to: stream.log.sent_up_to() };
    line.acknowledged(mark);
    line.slave.push(8, put(&key, &key));
    line.slave.want(8);
    assert!(line.taken().1.is_some());
}

#[test]
fn what_could_not_be_sent_is_not_forgotten_when_its_keys_could_be_read_and_an_error_is_when_it_is_found() {
    let source = Damaged(OneKey(atom("k")));
    let mut line = Line::new(&source, 1 << 20);
    line.now = line.slave.poll_timeout().expect("it is looked for");
    line.hand(Input::Timeout);
    line.hand(Input::Located { question: line.question, found: Ok(Whereabouts::Nobody) });
    assert_eq!(line.slave.last_error().as_deref(), Some(&*Missing::Nobody.to_string()));
    line.slave.protect_data();
    assert!(line.slave.protects_data());
    line.found(1);
    assert_eq!((line.slave.last_error(), line.slave.protects_data()), (None, false));
    assert!(line.swept(None));
    line.repair();
    assert!(line.slave.may_be_stale(), "the keys were read, and the value is not there");
    line.gone();
    line.found(2);
    assert!(!line.slave.may_be_stale(), "another process");
    line.swept(Some("they are too many"));
    assert!(line.slave.may_be_stale());
}

#[test]
fn nothing_is_kept_for_one_that_has_dropped_out() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 10);
    line.found(1);
    line.hand(Input::Removed);
    for _ in 0..10 {
        assert_eq!(line.slave.push(7, put(&atom("a long name of a key"), &atom("v"))), Pushed::Kept);
    }
    assert_eq!((line.slave.standing(), line.slave.lacks.known()), (Standing::Dropped, 0));
}

#[test]
fn nothing_is_shown_to_a_connection_to_a_node_that_it_has_left() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    assert_eq!(line.slave.push(7, put(&key, &key)), Pushed::Ready);
    let mut taken = |node| line.slave.take(node, line.now, |_| true, |_, _| panic!("shown to {node}"));
    assert_eq!(taken("left@h").at, None);
    assert_eq!(taken("left@h").acknowledge, Acknowledge::No);
    assert!(!line.slave.take("b@h", line.now, |_| true, |_, _| false).more, "it was all that there is");
}
