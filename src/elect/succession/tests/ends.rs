//! What comes to an end: the wish of a person, a primary in good order, and the wait for data that matters to nobody.

use super::force::FORCED_FOR;
use super::*;
use crate::replica::{Membership, TermRole, Upstream};

/// `a@h` is the primary with fence 5, and has confirmed with `b@h` and `c@h`.
fn primary() -> One {
    let mut record = record();
    (record.node, record.base.node) = (name("a@h"), name("a@h"));
    (record.base.confirm, record.base.members) = (1, names(&["b@h", "c@h"]));
    let entries = vec![
        entry(Key::Record, record.write(), 5, 0),
        entry(Key::Leader, write_leader(&pid("a@h", 1), 5), 6, LEASE),
    ];
    let mut one = One::new(config(1), entries);
    let lead = one.outputs().into_iter().find_map(|output| match output {
        Output::Lead { question, .. } => Some(question),
        _ => None,
    });
    one.hand(Input::Led { question: lead.expect("the key is its own"), is_done: true });
    one.reported();
    one.outputs();
    one
}

/// `a@h` is the slave of a primary that is well.
fn slave() -> One {
    let entries = vec![
        entry(Key::Record, record().write(), 5, 0),
        entry(Key::Leader, write_leader(&pid("p@h", 1), 5), 6, LEASE + 1),
    ];
    let mut one = One::new(config(2), entries);
    one.reported();
    one.outputs();
    one
}

fn slaves(confirmed: [u64; 2]) -> Vec<Slave> {
    let all = ["b@h", "c@h"].into_iter().zip(confirmed);
    all.map(|(node, confirmed)| Slave { node: name(node), confirmed, is_in_step: true }).collect()
}

fn not_forced(outputs: &[Output]) -> Vec<NotForced> {
    let why = |output: &Output| if let Output::NotForced(why) = output { Some(*why) } else { None };
    outputs.iter().filter_map(why).collect()
}

fn takes_key(outputs: &[Output]) -> Option<Transaction> {
    outputs.iter().find_map(|output| match output {
        Output::Transact(said) if said.puts.iter().any(|(key, ..)| *key == Key::Leader) => Some(said.clone()),
        _ => None,
    })
}

#[test]
fn a_wish_of_a_person_ends_and_a_healthy_primary_stays() {
    let mut one = slave();
    one.hand(Input::Force);
    assert_eq!(one.0.poll_timeout().map(|at| at <= start() + FORCED_FOR), Some(true));
    let mut tries = 0;
    let why = loop {
        let outputs = one.outputs();
        if let Some(said) = takes_key(&outputs) {
            tries += 1;
            one.hand(Input::Transacted { question: said.question, answer: Transacted::Failed });
        }
        if let [why] = not_forced(&outputs)[..] {
            break why;
        }
        assert!(one.1 < start() + 2 * FORCED_FOR, "it has no end");
        one.pass(SECOND / 5);
    };
    assert_eq!((why, tries > 10, one.1), (NotForced::Unknown, true, start() + FORCED_FOR));
    for _ in 0..40 {
        one.pass(SECOND);
        assert_eq!(takes_key(&one.outputs()), None, "nobody wants it any more");
    }
}

#[test]
fn a_wish_says_what_has_become_of_it() {
    // Another one is faster each time.
    let mut one = slave();
    one.hand(Input::Force);
    let said = takes_key(&one.outputs()).expect("it tries");
    one.hand(Input::Transacted { question: said.question, answer: Transacted::Lost });
    one.pass(FORCED_FOR);
    assert_eq!(not_forced(&one.outputs()), [NotForced::Late]);
    // etcd does not answer.
    let mut one = slave();
    one.hand(Input::Force);
    one.pass(FORCED_FOR);
    assert_eq!(not_forced(&one.outputs()), [NotForced::Unknown]);
    let mut alone = One(Succession::new(config(2), start()), start());
    alone.hand(Input::Force);
    alone.pass(FORCED_FOR);
    assert_eq!(not_forced(&alone.outputs()), [NotForced::Etcd]);
    // What stands there is not understood.
    let entries = vec![entry(Key::Record, b"2 of a later version".to_vec(), 5, 0)];
    let mut one = One::new(config(2), entries);
    one.reported();
    one.hand(Input::Force);
    one.pass(FORCED_FOR);
    assert_eq!(not_forced(&one.outputs()), [NotForced::Unreadable]);
    // The store is not promoted.
    let mut one = slave();
    one.hand(Input::Force);
    let said = takes_key(&one.outputs()).expect("it tries");
    one.done(&said, 21);
    let lead = one.outputs().into_iter().find_map(|output| match output {
        Output::Lead { question, .. } => Some(question),
        _ => None,
    });
    one.hand(Input::Led { question: lead.expect("it has the key"), is_done: false });
    assert_eq!(not_forced(&one.outputs()), [NotForced::Unfit]);
    // It ends.
    let mut one = slave();
    one.hand(Input::Force);
    one.hand(Input::Leave);
    assert_eq!(not_forced(&one.outputs()), [NotForced::Leaves]);
    let mut one = primary();
    one.hand(Input::Leave);
    one.hand(Input::Force);
    assert_eq!(not_forced(&one.outputs()), [NotForced::Leaves]);
}

#[test]
fn a_wish_ends_with_the_person_and_where_it_is_so() {
    let mut one = slave();
    one.hand(Input::Force);
    let said = takes_key(&one.outputs()).expect("it tries");
    one.hand(Input::ForceWithdrawn);
    one.hand(Input::Transacted { question: said.question, answer: Transacted::Lost });
    for _ in 0..10 {
        one.pass(SECOND);
        let outputs = one.outputs();
        assert_eq!((takes_key(&outputs), not_forced(&outputs)), (None, Vec::new()));
    }
    // A primary that is well is what was wanted.
    let mut one = primary();
    one.hand(Input::Force);
    one.pass(6 * SECOND);
    let outputs = one.outputs();
    assert_eq!((takes_key(&outputs), not_forced(&outputs)), (None, Vec::new()));
}

#[test]
fn a_primary_that_ends_records_its_last_write_before_its_lease_is_revoked() {
    let mut one = primary();
    one.hand(Input::Leave);
    let outputs = one.outputs();
    assert!(outputs.contains(&Output::StepDown { to: None }) && !outputs.contains(&Output::Revoke));
    one.hand(Input::Slaves { seq: 9, slaves: slaves([9, 8]) });
    assert_eq!(one.outputs(), [], "what is on its way comes first");
    one.hand(Input::Slaves { seq: 9, slaves: slaves([9, 9]) });
    let said = one.transaction().expect("it records its end");
    assert_eq!(said.compare, [(Key::Leader, 6), (Key::Record, 5)]);
    let [(Key::Record, value, 0)] = &said.puts[..] else { panic!("{said:?}") };
    assert_eq!(Record::read(value).expect("a record").base.end, Some(9));
    // Another transaction was faster.
    one.hand(Input::Transacted { question: said.question, answer: Transacted::Lost });
    one.pass(PAUSE_LOST);
    let said = one.transaction().expect("it is tried again");
    one.done(&said, 21);
    assert_eq!(one.outputs(), [Output::Revoke, Output::End]);
}

#[test]
fn a_primary_ends_in_a_bounded_time_and_records_nothing_that_it_does_not_know() {
    // etcd does not answer.
    let mut one = primary();
    one.hand(Input::Leave);
    one.hand(Input::Slaves { seq: 9, slaves: slaves([9, 9]) });
    assert!(one.transaction().is_some());
    one.pass(SECOND);
    assert_eq!(one.outputs(), [Output::Revoke, Output::End]);
    // A slave does not come to the end: it is not waited for, and nothing is recorded.
    let mut one = primary();
    one.hand(Input::Leave);
    one.hand(Input::Slaves { seq: 9, slaves: slaves([9, 8]) });
    one.outputs();
    one.pass(SECOND);
    assert_eq!(one.outputs(), [Output::Revoke, Output::End]);
    // Its key is another's.
    let mut one = primary();
    one.hand(Input::Leave);
    let taken = entry(Key::Leader, write_leader(&pid("b@h", 1), 6), 30, LEASE + 2);
    one.hand(Input::Changed(vec![Change::Put(taken)]));
    one.outputs();
    one.hand(Input::Slaves { seq: 9, slaves: slaves([9, 9]) });
    assert_eq!(one.outputs(), [Output::Revoke, Output::End]);
}

#[test]
fn a_slave_that_has_all_of_a_primary_that_ended_is_enough_alone() {
    let mut record = record();
    record.base.end = Some(9);
    let is_complete = |holds| count(&record, &[("a@h", holds), ("b@h", Holds::Nothing)]).is_complete;
    assert!(is_complete(copy(5, 9)) && !is_complete(copy(5, 8)) && !is_complete(copy(4, 90)));
    let entries = vec![entry(Key::Record, record.write(), 5, 0), report("b@h", Some((5, Holds::Nothing)), 4)];
    let mut one = One::new(config(2), entries);
    one.seal(copy(5, 9));
    one.reported();
    one.pass(SETTLE);
    let taken = takes_key(&one.outputs()).expect("it has everything, and the others are not waited for");
    let next = Record::read(&taken.puts[1].1).expect("a record");
    assert_eq!(next.base, record.base, "it has confirmed nothing yet, and the end is as it was");
}

#[test]
fn a_node_that_led_before_the_base_is_not_waited_for() {
    let mut record = record();
    record.former.push(Life::of(&pid("old@h", 1)));
    let nothing = |record: &Record, nodes: &[&'static str]| {
        let reports: Vec<_> = nodes.iter().map(|node| (*node, Holds::Nothing)).collect();
        count(record, &reports).anew
    };
    let all = ["a@h", "b@h", "c@h", "p@h"];
    assert_eq!(nothing(&record, &all), Some(name("a@h")));
    // Since the base: it has all that was confirmed.
    record.heirs.push(Heir { fence: 6, node: name("heir@h") });
    (record.fence, record.node) = (6, name("heir@h"));
    assert_eq!(nothing(&record, &all), None);
    let lacking = count(&record, &[("a@h", Holds::Nothing)]).missing;
    assert!(
        lacking.contains(&missing("heir@h", None, true)) && lacking.contains(&missing("p@h", None, true))
    );
    assert_eq!(nothing(&record, &["a@h", "b@h", "c@h", "heir@h", "p@h"]), Some(name("a@h")));
    // More have been chosen than are recorded: one of those that have led may have been one.
    while record.heirs.len() < keys::HEIRS_MAX {
        record.heirs.push(Heir { fence: 6 + record.heirs.len() as u64, node: name("heir@h") });
    }
    assert_eq!(nothing(&record, &["a@h", "b@h", "c@h", "heir@h", "p@h"]), None);
}

#[test]
fn where_all_that_are_there_hold_nothing_a_lossy_election_begins_anew_after_its_bound() {
    let entries =
        || vec![entry(Key::Record, record().write(), 5, 0), report("Z@h", Some((5, Holds::Nothing)), 4)];
    let waits = |is_lossy: bool, time: Duration| {
        let mut one = One::new(Config { is_lossy, ..config(2) }, entries());
        one.seal(Holds::Nothing);
        one.reported();
        one.pass(time);
        takes_key(&one.outputs())
    };
    assert_eq!(waits(true, LOSSY_AFTER - SECOND), None);
    assert_eq!(waits(false, 50 * SECOND), None);
    let taken = waits(true, LOSSY_AFTER).expect("nobody who has anything comes");
    let next = Record::read(&taken.puts[1].1).expect("a record");
    assert_eq!((next.base.fence, &next.base.members), (6, &Vec::new()));
}

#[test]
fn an_empty_store_that_led_has_what_it_led_with() {
    let of = |role, term, started_empty| {
        let membership = Membership { term, promoted: 7, role, ..Membership::default() };
        Holds::of(&Upstream::new(7, membership, started_empty))
    };
    for started_empty in [true, false] {
        assert_eq!(of(TermRole::Promoted, 3, started_empty), Holds::Own { fence: 3 });
    }
    assert_eq!(of(TermRole::None, 0, true), Holds::Nothing);
    assert_eq!(of(TermRole::None, 0, false), Holds::Own { fence: 0 });
    // A slave that was never brought up to date.
    assert_eq!(of(TermRole::Follows, 3, true), Holds::Nothing);
    assert_eq!(of(TermRole::Follows, 3, false), Holds::Other);
}

#[test]
fn a_slave_begins_to_count_while_another_that_is_gone_is_needed_still() {
    let mut record = record();
    record.base.confirm = 1;
    let mut tally = Tally::new(5, 1, name("p@h"));
    let slaves = |confirmed: [u64; 4], in_step: [bool; 4]| -> Vec<Slave> {
        let all = ["a@h", "b@h", "c@h", "d@h"].into_iter().zip(confirmed.into_iter().zip(in_step));
        all.map(|(node, (confirmed, is_in_step))| Slave { node: name(node), confirmed, is_in_step }).collect()
    };
    tally.told_of(20, slaves([20, 5, 5, 0], [false, true, true, false]));
    assert_eq!(tally.wanted(&record, start()), None);
    assert_eq!(tally.wanted(&record, start() + 10 * SECOND), None, "it may have confirmed what others lack");
    // The others are gone too before they have what it has.
    tally.told_of(20, slaves([20, 5, 5, 20], [false, false, false, true]));
    let more = tally.wanted(&record, start() + 11 * SECOND).expect("there is a new one");
    assert_eq!(more.base.members, names(&["a@h", "b@h", "c@h", "d@h"]));
    tally.recorded(&more);
    assert_eq!(tally.counting(&more), Some(names(&["b@h", "c@h", "d@h"])));
    // The copy has everything, so the primary that is gone is needed no more.
    let less = tally.wanted(&more, start() + 12 * SECOND).expect("one is dropped");
    assert_eq!(less.base.members, names(&["b@h", "c@h", "d@h"]));
}
