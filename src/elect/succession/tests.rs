//! A succession alone, told what happens; [`world`] has several, with stores.

mod checks;
mod ends;
mod etcd;
mod faults;
mod node;
mod shell;
mod wires;
mod world;

use proptest::prelude::*;

use super::choice::{Count, needed};
use super::event::Missing;
use super::keys::{Base, Heir, Record, Report, read_leader, write_leader};
use super::*;
use crate::elect::tests::{pid, start};
use world::{Counts, run};

const LEASE: i64 = 77;
const SECOND: Duration = Duration::from_secs(1);

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

/// `KVNODE_SIMULATION_SEEDS` is how many are run, `KVNODE_SIMULATION_FIRST` the first of them.
#[test]
fn whatever_happens_nothing_confirmed_is_lost_and_one_is_the_primary_in_the_end() {
    let first = from_environment("KVNODE_SIMULATION_FIRST", 0);
    let seeds = from_environment("KVNODE_SIMULATION_SEEDS", 1_000);
    let mut all = Counts::default();
    for seed in first..first + seeds {
        match run(seed) {
            Ok(counts) => all.add(counts),
            Err(wrong) => panic!("seed {seed}: {wrong}"),
        }
    }
    if seeds >= 1_000 {
        all.check(seeds);
    }
}

#[test]
fn each_rule_that_is_broken_is_noticed() {
    for rule in Rule::ALL {
        planted::plant(Some(rule));
        let is_noticed = (0..4_000).any(|seed| run(seed).is_err());
        planted::plant(None);
        assert!(is_noticed, "{rule:?}");
    }
}

fn name(node: &str) -> Arc<str> {
    node.into()
}

fn names(nodes: &[&str]) -> Vec<Arc<str>> {
    nodes.iter().map(|node| name(node)).collect()
}

/// After the primary on `p@h` with fence 5, which has confirmed with two of three slaves that count.
fn record() -> Record {
    let (node, members) = (name("p@h"), names(&["a@h", "b@h", "c@h"]));
    let base = Base { fence: 5, confirm: 2, node: Arc::clone(&node), end: None, members };
    Record { fence: 5, node, base, heirs: Vec::new(), former: vec![Life::of(&pid("p@h", 1))] }
}

fn copy(fence: u64, applied: u64) -> Holds {
    Holds::Copy { fence, applied, is_whole: true }
}

fn entry(key: Key, value: Vec<u8>, mod_revision: i64, lease: i64) -> Entry {
    Entry { key, value, mod_revision, lease }
}

fn missing(node: &str, holds: Option<Holds>, has_led: bool) -> Missing {
    Missing { node: name(node), has_led, holds }
}

fn report(node: &str, sealed: Option<(u64, Holds)>, revision: i64) -> Entry {
    let report = Report { pid: pid(node, 1), sealed };
    entry(Key::Report(name(node)), report.write(), revision, LEASE)
}

fn count(record: &Record, reports: &[(&str, Holds)]) -> Count {
    let entries = reports.iter().map(|(node, holds)| report(node, Some((record.fence, *holds)), 3)).collect();
    choice::count(record, &Known::new(&pid("x@h", 1), 9, entries, None))
}

/// A node with what it wants done.
struct One(Succession, Instant);

impl One {
    /// `a@h`, which has its lease and knows the keys.
    fn new(config: Config, entries: Vec<Entry>) -> Self {
        let mut one = Self(Succession::new(config, start()), start());
        assert_eq!(one.outputs(), [Output::Lease { question: 1 }]);
        one.hand(Input::Granted { question: 1, lease: Some((LEASE, start() + 60 * SECOND)) });
        one.hand(Input::Keys { revision: 9, entries });
        one
    }

    fn hand(&mut self, input: Input) {
        self.0.handle(input, self.1);
    }

    fn pass(&mut self, time: Duration) {
        self.1 += time;
        self.hand(Input::Time);
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.0.poll_output()).collect()
    }

    /// Answers that the store is sealed, and gives above which fence.
    fn seal(&mut self, holds: Holds) -> u64 {
        let sealed = self.outputs().into_iter().find_map(|output| match output {
            Output::Seal { question, floor } => Some((question, floor)),
            _ => None,
        });
        let (question, floor) = sealed.expect("it is sealed");
        self.hand(Input::Sealed { question, holds, term: 0 });
        floor
    }

    fn transaction(&mut self) -> Option<Transaction> {
        self.outputs().into_iter().find_map(|output| match output {
            Output::Transact(transaction) => Some(transaction),
            _ => None,
        })
    }

    /// What it says of itself is written.
    fn reported(&mut self) {
        while let Some(said) = self.0.under_way.clone().filter(|said| said.compare.is_empty()) {
            self.done(&said, 20);
        }
    }

    fn done(&mut self, transaction: &Transaction, revision: i64) {
        let answer = Transacted::Done { revision };
        self.hand(Input::Transacted { question: transaction.question, answer });
    }
}

fn config(confirm: u32) -> Config {
    Config { me: pid("a@h", 1), confirm, is_lossy: false, founds: true }
}

#[test]
fn a_first_primary_founds_the_store_and_counts_slaves_that_are_recorded() {
    let mut one = One::new(config(1), Vec::new());
    assert_eq!(one.seal(Holds::Nothing), 1);
    one.reported();
    assert!(
        one.outputs()
            .iter()
            .all(|output| matches!(output, Output::Transact(said) if said.compare.is_empty()))
    );
    one.pass(2 * SECOND);
    let taken = one.transaction().expect("another may have data, and nobody has");
    assert_eq!(taken.compare, [(Key::Leader, 0), (Key::Record, 0)]);
    one.done(&taken, 21);
    let outputs = one.outputs();
    let Some(Output::Lead { question, fence: 1, .. }) = outputs.first() else { panic!("{outputs:?}") };
    assert_eq!(one.0.leads_until(), None, "the promotion is not kept yet");
    one.hand(Input::Led { question: *question, is_done: true });
    assert_eq!(one.0.leads_until(), Some(start() + 60 * SECOND - MARGIN));
    assert_eq!(one.outputs(), [Output::Log(Event::Leads { fence: 1 })]);
    // A slave is there, in step, and counts once it is recorded.
    one.hand(Input::Changed(vec![Change::Put(report("b@h", None, 22))]));
    assert_eq!(one.outputs(), [Output::Follow(pid("b@h", 1))]);
    let slaves = vec![Slave { node: name("b@h"), confirmed: 3, is_in_step: true }];
    one.hand(Input::Slaves { seq: 3, slaves });
    let recorded = one.transaction().expect("it is to count");
    assert!(!one.0.counts("b@h"));
    one.done(&recorded, 23);
    assert_eq!(one.outputs()[0], Output::Count(names(&["b@h"])));
    assert!(one.0.counts("b@h") && !one.0.counts("c@h"));
    assert_eq!(one.0.view().members, names(&["b@h"]));
    // etcd is away.
    one.pass(60 * SECOND - MARGIN);
    let to = None;
    assert!(one.outputs().contains(&Output::StepDown { to }) && one.0.leads_until().is_none());
}

#[test]
fn a_slave_never_founds_a_store() {
    let mut one = One::new(config(1), Vec::new());
    one.seal(copy(3, 7));
    one.reported();
    one.outputs();
    one.pass(50 * SECOND);
    assert_eq!(one.outputs(), [Output::Log(Event::NoRecord)]);
}

/// Has it be the primary, with its promotion kept.
fn led(one: &mut One) {
    let question = one.outputs().into_iter().find_map(|output| match output {
        Output::Lead { question, .. } => Some(question),
        _ => None,
    });
    one.hand(Input::Led { question: question.expect("the key is its own"), is_done: true });
}

#[test]
fn a_primary_whose_keys_are_deleted_founds_the_election_anew_also_where_it_began_as_a_slave() {
    let mut own = record();
    own.node = name("a@h");
    let entries = vec![
        entry(Key::Record, own.write(), 5, 0),
        entry(Key::Leader, write_leader(&pid("a@h", 1), 5), 6, LEASE),
    ];
    for has_led in [true, false] {
        let entries = if has_led { entries.clone() } else { Vec::new() };
        let mut one = One::new(Config { founds: false, ..config(2) }, entries);
        if has_led {
            led(&mut one);
            one.reported();
            let gone = [Key::Leader, Key::Record, Key::Report(name("a@h"))];
            one.hand(Input::Changed(gone.map(|key| Change::Gone { key, revision: 30 }).into()));
            assert_eq!(one.0.leads_until(), None);
        }
        one.seal(Holds::Own { fence: 5 });
        let report = one.0.under_way.clone().expect("it says that it is there");
        one.done(&report, 31);
        let taken = one.transaction().filter(|taken| taken.compare == [(Key::Leader, 0), (Key::Record, 0)]);
        assert_eq!(taken.is_some(), has_led, "it led in this process, or it did not");
    }
}

#[test]
fn a_primary_with_another_confirm_than_the_one_before_says_so() {
    let mut own = record();
    own.node = name("a@h");
    let entries = || {
        vec![
            entry(Key::Record, own.write(), 5, 0),
            entry(Key::Leader, write_leader(&pid("a@h", 1), 5), 6, LEASE),
        ]
    };
    for (is, is_said) in [(2, false), (0, true)] {
        let mut one = One::new(config(is), entries());
        led(&mut one);
        let said = Output::Log(Event::ConfirmDiffers { was: 2, is });
        assert_eq!(one.outputs().contains(&said), is_said);
    }
}

#[test]
fn nodes_with_one_name_do_not_write_over_each_other_without_end() {
    let of = |creation, revision| {
        let report = Report { pid: pid("a@h", creation), sealed: None };
        entry(Key::Report(name("a@h")), report.write(), revision, LEASE + 1)
    };
    // Of an earlier process: it is written over.
    let mut one = One::new(config(1), vec![of(7, 8)]);
    let report = one.transaction().expect("it says that it is there");
    one.done(&report, 20);
    one.outputs();
    one.hand(Input::Changed(vec![Change::Put(of(8, 21))]));
    let outputs = one.outputs();
    assert!(outputs.contains(&Output::Log(Event::Namesake(pid("a@h", 8)))), "{outputs:?}");
    assert!(one.0.under_way.is_none());
    // Nor is the primary's key taken from a namesake that leads.
    let leader = entry(Key::Leader, write_leader(&pid("a@h", 8), 1), 22, LEASE + 1);
    let own = entry(Key::Record, record().write(), 22, 0);
    one.hand(Input::Changed(vec![Change::Put(leader), Change::Put(own)]));
    one.pass(SECOND);
    assert!(one.0.under_way.is_none());
    one.hand(Input::Changed(vec![Change::Gone { key: Key::Report(name("a@h")), revision: 23 }]));
    assert!(one.transaction().is_some(), "it is alone again");
}

#[test]
fn a_slave_is_sealed_before_it_reports_and_takes_the_key_where_enough_have() {
    let others = |sealed| [report("b@h", sealed, 4), entry(Key::Record, record().write(), 5, 0)];
    let mut entries = others(None).to_vec();
    entries.push(entry(Key::Leader, write_leader(&pid("p@h", 1), 5), 6, LEASE + 1));
    let mut one = One::new(config(2), entries);
    assert!(one.outputs().iter().any(|output| matches!(output, Output::Seal { floor: 5, .. })));
    assert_eq!(one.0.view().role, Role::Slave);
    one.hand(Input::Changed(vec![Change::Gone { key: Key::Leader, revision: 20 }]));
    assert_eq!(one.0.view().role, Role::Choosing);
    one.reported();
    assert_eq!(one.seal(copy(5, 9)), 6, "nothing is acknowledged with fence 5 any more");
    let reported = one.transaction().expect("it reports");
    let value = Report { pid: pid("a@h", 1), sealed: Some((5, copy(5, 9))) }.write();
    assert_eq!(reported.puts, [(Key::Report(name("a@h")), value, LEASE)]);
    one.done(&reported, 22);
    one.pass(10 * SECOND);
    let waits = one.outputs();
    let missing = vec![missing("b@h", None, false), missing("c@h", None, false), missing("p@h", None, true)];
    assert_eq!(one.0.view().missing, names(&["b@h", "c@h", "p@h"]));
    assert_eq!(waits, [Output::Log(Event::Waits { counted: 1, needed: 2, missing })]);
    one.hand(Input::Changed(vec![Change::Put(report("b@h", Some((4, copy(5, 8))), 23))]));
    assert_eq!(one.transaction(), None, "of an earlier round");
    one.hand(Input::Changed(vec![Change::Put(report("b@h", Some((5, copy(5, 8))), 24))]));
    let taken = one.transaction().expect("two of three are here, and it has most");
    assert_eq!(taken.compare, [(Key::Leader, 0), (Key::Record, 5)]);
    let next = Record::read(&taken.puts[1].1).expect("a record");
    assert_eq!((next.fence, &next.base), (6, &record().base), "it has confirmed nothing yet");
    assert_eq!(next.heirs, [Heir { fence: 6, node: name("a@h") }]);
    assert_eq!(read_leader(&taken.puts[0].1), Some((pid("a@h", 1), 6)));
}

#[test]
fn behind_an_outage_of_etcd_the_former_primary_is_waited_for_a_second() {
    let all = [("b@h", Some((5, copy(5, 8)))), ("c@h", Some((5, copy(5, 8))))];
    let mut entries = all.map(|(node, sealed)| report(node, sealed, 4)).to_vec();
    entries.push(entry(Key::Record, record().write(), 5, 0));
    let begin = |is_outage, former: Option<(u64, Holds)>| {
        let mut led = entries.clone();
        led.push(entry(Key::Leader, write_leader(&pid("p@h", 1), 5), 6, LEASE + 1));
        let mut one = One::new(config(2), led);
        one.outputs();
        if is_outage {
            one.hand(Input::LeaseUntil(None));
            let asked = one.outputs().into_iter().find_map(|output| match output {
                Output::Lease { question } => Some(question),
                _ => None,
            });
            let lease = Some((LEASE + 2, one.1 + 60 * SECOND));
            one.hand(Input::Granted { question: asked.expect("another lease"), lease });
            one.outputs();
        }
        one.hand(Input::Changed(vec![Change::Gone { key: Key::Leader, revision: 20 }]));
        one.reported();
        one.seal(copy(5, 9));
        let reported = one.transaction().expect("it reports");
        one.done(&reported, 22);
        if former.is_some() {
            one.hand(Input::Changed(vec![Change::Put(report("p@h", former, 23))]));
        }
        one
    };
    assert!(begin(false, None).transaction().is_some(), "this node had its lease all the time");
    let mut one = begin(true, None);
    one.pass(SECOND / 2);
    assert_eq!(one.transaction(), None, "the former primary may be back too");
    one.pass(SECOND / 2);
    assert!(one.transaction().is_some(), "it is not back");
    let mut one = begin(true, Some((5, Holds::Own { fence: 5 })));
    one.pass(10 * SECOND);
    assert_eq!(one.transaction(), None, "the former primary is back, and takes the key");
    assert!(
        begin(true, Some((5, Holds::Nothing))).transaction().is_some(),
        "the former primary is back without data"
    );
}

#[test]
fn a_primary_that_sees_a_higher_fence_or_cannot_be_promoted_leaves_the_key() {
    let mut own = record();
    own.node = name("a@h");
    let entries = vec![
        entry(Key::Record, own.write(), 5, 0),
        entry(Key::Leader, write_leader(&pid("a@h", 1), 5), 6, LEASE),
    ];
    let mut one = One::new(config(2), entries.clone());
    let led = |one: &mut One| {
        let lead = one.outputs().into_iter().find_map(|output| match output {
            Output::Lead { question, .. } => Some(question),
            _ => None,
        });
        lead.expect("the key is its own")
    };
    let question = led(&mut one);
    one.hand(Input::Led { question, is_done: true });
    one.reported();
    one.hand(Input::Fence(6));
    let outputs = one.outputs();
    let why = SteppedDown::Fence;
    assert!(outputs.contains(&Output::Log(Event::SteppedDown { fence: 5, why })), "{outputs:?}");
    let is_deposed = |output: &Output| matches!(output, Output::Transact(transaction) if transaction.deletes == [Key::Leader]);
    assert!(outputs.iter().any(is_deposed), "{outputs:?}");

    let mut one = One::new(config(2), entries);
    let question = led(&mut one);
    one.hand(Input::Led { question, is_done: false });
    one.reported();
    assert!(one.outputs().iter().any(is_deposed), "another is to lead");
}

#[test]
fn a_person_has_a_store_lead_whatever_is_lost() {
    let entries = vec![
        entry(Key::Record, record().write(), 5, 0),
        entry(Key::Leader, write_leader(&pid("p@h", 1), 5), 6, LEASE + 1),
    ];
    let mut one = One::new(config(2), entries);
    one.reported();
    one.outputs();
    one.hand(Input::Force);
    let taken = one.transaction().expect("it takes the key");
    assert_eq!(taken.compare, [(Key::Leader, 6), (Key::Record, 5)]);
    one.done(&taken, 21);
    let event = Event::MayHaveLost { counted: 0, needed: 2 };
    let outputs = one.outputs();
    let at = |is_it: &dyn Fn(&Output) -> bool| outputs.iter().position(is_it).expect("it is there");
    let said = at(&|output| *output == Output::Log(event.clone()));
    assert!(said < at(&|output| matches!(output, Output::Lead { fence: 6, .. })));
}

#[test]
fn what_is_not_understood_has_nothing_chosen() {
    for key in [Key::Record, Key::Leader] {
        let entries = vec![entry(key.clone(), b"2 of a later version".to_vec(), 5, LEASE + 1)];
        let mut one = One::new(config(0), entries);
        let unreadable = Output::Log(Event::Unreadable(key.clone()));
        let outputs = one.outputs();
        assert!(outputs.contains(&unreadable), "{outputs:?}");
        one.reported();
        one.outputs();
        one.pass(60 * SECOND - MARGIN - SECOND);
        assert_eq!((one.outputs(), one.0.round.is_none()), (Vec::new(), true), "{key}");
    }
}

#[test]
fn so_many_reports_are_needed_that_each_confirmed_write_is_among_them() {
    let all = [(3, 1, 3), (3, 2, 2), (3, 3, 1), (2, 1, 2), (2, 2, 1), (1, 1, 1), (1, 4, 1), (0, 1, 1)];
    for (members, confirm, wanted) in all {
        assert_eq!(needed(members, confirm), wanted, "{confirm} of {members}");
    }
}

#[test]
fn the_most_advanced_of_those_that_count_is_chosen() {
    let record = record();
    let best = |reports: &[(&str, Holds)]| {
        let count = count(&record, reports);
        (count.counted, count.best.map(|node| node.to_string()), count.is_complete)
    };
    let is = |counted, node: &str, is_complete| (counted, Some(node.to_owned()), is_complete);
    let part = Holds::Copy { fence: 5, applied: 9, is_whole: false };
    assert_eq!(best(&[("a@h", copy(5, 9)), ("b@h", copy(5, 8))]), is(2, "a@h", false));
    assert_eq!(best(&[("a@h", copy(5, 9)), ("b@h", part)]), is(2, "a@h", false));
    assert_eq!(best(&[("a@h", copy(5, 9)), ("b@h", copy(5, 9))]), is(2, "b@h", false));
    // What is of another fence, of none or lost does not count.
    let others = [("a@h", copy(4, 90)), ("b@h", Holds::Nothing), ("c@h", Holds::Other)];
    assert_eq!(best(&others), (0, None, false));
    // One that is not recorded has data all the same.
    assert_eq!(best(&[("a@h", copy(5, 9)), ("x@h", copy(5, 10))]), is(1, "x@h", false));
    assert_eq!(best(&[("p@h", Holds::Own { fence: 5 })]), is(0, "p@h", true));
    let heirs = vec![Heir { fence: 6, node: name("a@h") }, Heir { fence: 7, node: name("b@h") }];
    let record = Record { fence: 7, heirs, ..record.clone() };
    let reports = [("p@h", Holds::Own { fence: 5 }), ("a@h", copy(7, 1)), ("c@h", copy(6, 50))];
    let later = count(&record, &reports);
    assert_eq!((later.best, later.is_complete), (Some(name("a@h")), true));
}

#[test]
fn a_store_begins_anew_where_all_that_may_have_data_have_none() {
    let record = record();
    let nothing = |nodes: &[&'static str]| {
        let reports: Vec<_> = nodes.iter().map(|node| (*node, Holds::Nothing)).collect();
        count(&record, &reports).anew
    };
    assert_eq!(nothing(&["a@h", "b@h", "c@h", "p@h"]), Some(name("a@h")));
    assert_eq!(nothing(&["a@h", "b@h", "c@h"]), None, "the primary may come back");
    assert_eq!(nothing(&["a@h", "b@h", "p@h"]), None, "a slave that counts may come back");
    let reports = ["a@h", "b@h", "c@h", "p@h"].map(|node| (node, Holds::Nothing));
    let mut reports = reports.to_vec();
    reports.push(("x@h", Holds::Other));
    assert_eq!(count(&record, &reports).anew, None);
}

#[test]
fn a_member_is_dropped_when_others_have_all_and_does_not_count_before() {
    let mut record = record();
    record.base.confirm = 1;
    let mut tally = Tally::new(5, 1, name("p@h"));
    let slaves = |confirmed: [u64; 3], in_step: [bool; 3]| -> Vec<Slave> {
        let all = ["a@h", "b@h", "c@h"].into_iter().zip(confirmed.into_iter().zip(in_step));
        all.map(|(node, (confirmed, is_in_step))| Slave { node: name(node), confirmed, is_in_step }).collect()
    };
    tally.told_of(20, slaves([20, 5, 5], [true; 3]));
    assert_eq!(
        (tally.counting(&record), tally.wanted(&record, start())),
        (Some(names(&["a@h", "b@h", "c@h"])), None)
    );
    // The only one that has all is gone.
    tally.told_of(20, slaves([20, 5, 5], [false, true, true]));
    assert_eq!(tally.wanted(&record, start()), None);
    assert_eq!(tally.wanted(&record, start() + 10 * SECOND), None, "it may have confirmed what others lack");
    assert_eq!(tally.counting(&record), Some(names(&["b@h", "c@h"])), "it counts no more");
    tally.told_of(21, slaves([20, 5, 5], [false, true, true]));
    assert_eq!(tally.wanted(&record, start() + 10 * SECOND), None, "the others lack what it has");
    tally.told_of(22, slaves([20, 21, 5], [false, true, true]));
    let next = tally.wanted(&record, start() + 10 * SECOND).expect("one other has all");
    assert_eq!(next.base.members, names(&["b@h", "c@h"]));
    // It is back, and whether etcd has that record is not known.
    tally.told_of(23, slaves([23, 21, 5], [true; 3]));
    assert_eq!(tally.wanted(&record, start() + 11 * SECOND), Some(next.clone()), "it is tried again");
    assert_eq!((tally.counting(&record), tally.counts("a@h")), (None, false));
    tally.recorded(&next);
    assert_eq!(tally.counting(&next), None);
    let more = tally.wanted(&next, start() + 11 * SECOND).expect("it is there");
    assert_eq!(more.base.members, names(&["a@h", "b@h", "c@h"]));
    assert!(tally.counting(&next).is_none() && !tally.counts("a@h"), "until the record has it");
    tally.recorded(&more);
    assert_eq!(tally.counting(&more), Some(names(&["a@h", "b@h", "c@h"])));
}

#[test]
fn a_member_that_is_back_before_it_is_dropped_counts_on() {
    let record = record();
    let mut tally = Tally::new(5, 2, name("p@h"));
    let slaves = |in_step: [bool; 3]| -> Vec<Slave> {
        let all = ["a@h", "b@h", "c@h"].into_iter().zip(in_step);
        all.map(|(node, is_in_step)| Slave { node: name(node), confirmed: 5, is_in_step }).collect()
    };
    tally.told_of(9, slaves([false, true, true]));
    assert!(tally.wanted(&record, start()).is_none() && tally.counting(&record).is_some());
    assert_eq!(tally.wanted(&record, start() + 10 * SECOND), None);
    assert_eq!(tally.counting(&record), Some(names(&["b@h", "c@h"])));
    tally.told_of(9, slaves([true; 3]));
    assert_eq!(tally.wanted(&record, start() + 11 * SECOND), None);
    assert_eq!(tally.counting(&record), Some(names(&["a@h", "b@h", "c@h"])));
    // As many as a confirmed write needs stay members, gone or not.
    tally.told_of(9, slaves([false, false, true]));
    for seconds in [12, 30, 60] {
        assert_eq!(tally.wanted(&record, start() + seconds * SECOND), None);
    }
    assert_eq!(tally.counting(&record), None);
}

#[test]
fn values_are_text_that_a_person_can_read() {
    let mut record = Record { heirs: vec![Heir { fence: 6, node: name("a@h") }], fence: 6, ..record() };
    record.base.end = Some(12);
    let text =
        "1\nterm 6 p@h\nbase 5 2 p@h\nend 12\nheir 6 a@h\nmember a@h\nmember b@h\nmember c@h\nformer 1 p@h\n";
    assert_eq!(String::from_utf8(record.write()).expect("text"), text);
    assert_eq!(Record::read(text.as_bytes()), Some(record));
    assert_eq!(write_leader(&pid("a@h", 3), 6), b"1 6 3 5 0 a@h");
    for (report, text) in [
        (Report { pid: pid("a@h", 3), sealed: None }, "1 - - 3 5 0 a@h"),
        (Report { pid: pid("a@h", 3), sealed: Some((6, copy(5, 9))) }, "1 6 copy:5:9:whole 3 5 0 a@h"),
        (Report { pid: pid("a@h", 3), sealed: Some((6, Holds::Own { fence: 2 })) }, "1 6 own:2 3 5 0 a@h"),
        (Report { pid: pid("a@h", 3), sealed: Some((6, Holds::Nothing)) }, "1 6 nothing 3 5 0 a@h"),
    ] {
        assert_eq!(String::from_utf8(report.write()).expect("text"), text);
        assert_eq!(Report::read(text.as_bytes()), Some(report));
    }
    for damaged in ["", "1", "2 6 3 5 0 a@h", "1 x 3 5 0 a@h", "1 6 own: 3 5 0 a@h", "1 6 own:1:2 3 5 0 a@h"]
    {
        assert_eq!(Report::read(damaged.as_bytes()), None, "{damaged}");
    }
    for damaged in [
        "1\n",
        "1\nterm 0 a@h\nbase 0 1 a@h\n",
        "1\nterm 1 a@h\n",
        &text.replace("heir", "hair"),
        &text.replace("end 12", "end"),
    ] {
        assert_eq!(Record::read(damaged.as_bytes()), None, "{damaged}");
    }
    for key in [Key::Leader, Key::Record, Key::Report(name("a@h"))] {
        assert_eq!(Key::read(&key.to_string()), Some(key));
    }
    assert_eq!([Key::read("r/x"), Key::read(""), Key::read("q")], [None, None, None]);
}

#[test]
fn events_say_what_is_missing() {
    let missing = vec![
        missing("a@h", None, false),
        missing("b@h", Some(Holds::Nothing), false),
        missing("c@h", Some(copy(3, 1)), false),
        missing("p@h", None, true),
    ];
    assert_eq!(
        Event::Waits { counted: 0, needed: 2, missing }.to_string(),
        "no primary can be chosen: a confirmed write may be with any of the slaves, and 0 of 2 have reported what they have; \
         missing: a@h (has not reported), b@h (has lost its data), c@h (has not all that the last primary had), \
         p@h (a former primary, has not reported)"
    );
    let why = SteppedDown::Lease;
    assert_eq!(
        Event::SteppedDown { fence: 7, why }.to_string(),
        "it is the primary no more, with fence 7: etcd does not renew its lease"
    );
}

proptest! {
    #[test]
    fn whatever_stands_there_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), key in 0..3_usize) {
        let key = [Key::Leader, Key::Record, Key::Report(name("b@h"))][key].clone();
        if let Some(record) = Record::read(&bytes) {
            prop_assert_eq!(Record::read(&record.write()), Some(record));
        }
        let mut one = One::new(config(1), vec![entry(key.clone(), bytes.clone(), 5, 0)]);
        one.hand(Input::Changed(vec![Change::Put(entry(key, bytes, 6, LEASE))]));
        one.pass(10 * SECOND);
        prop_assert!(one.outputs().len() < 20);
    }
}
