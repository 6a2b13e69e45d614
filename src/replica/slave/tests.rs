use super::*;
use crate::etf::{Pid, encode};
use crate::replica::PresentValue;

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
        show((key == self.0).then_some((key, Traits::none())));
        SourceRead::Shown
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        7
    }

    fn len(&self) -> usize {
        1
    }
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

    fn len(&self) -> usize {
        self.0.len()
    }
}

fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

fn at(id: u32) -> RemoteProcess {
    RemoteProcess::Pid(Pid { node: "b@h".into(), id, serial: 0, creation: 1 })
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> ReplicaWrite<'a> {
    ReplicaWrite::Put { key, value, traits: Traits::none() }
}

#[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

/// What is sent now, as text, and the mark that is to be acknowledged.
fn taken(slave: &Slave, now: Instant) -> (Vec<String>, Option<Mark>) {
    let mut sent = Vec::new();
    let taken = slave.take(
        "b@h",
        now,
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

fn repair(slave: &Slave, source: &dyn Source) {
    while slave.scan(source) {
        slave.refill(source);
    }
}

#[test]
fn one_that_is_found_first_gets_everything_and_then_each_write_in_order() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    assert_eq!(slave.push(7, put(&key, &key)), Pushed::Kept);
    assert_eq!(slave.standing(), Standing::Seeking);
    slave.found(at(1));
    assert!(slave.begin_sweep());
    assert!(!slave.begin_sweep());
    repair(&slave, &OneKey(key.clone()));
    assert_eq!(slave.push(7, ReplicaWrite::Delete { key: &key, traits: Traits::none() }), Pushed::Ready);
    let (sent, mark) = taken(&slave, now);
    assert_eq!(
        sent,
        ["{:\"$gen_cast\", {:replicate_put, :k, :k}}", "{:\"$gen_cast\", {:replicate_delete, :k}}"]
    );
    assert_eq!(slave.standing(), Standing::InStep { lag: 2 });
    slave.acknowledged(mark.expect("it is asked at once"));
    assert_eq!(slave.standing(), Standing::InStep { lag: 0 });
}

#[test]
fn the_same_process_is_sent_what_it_did_not_acknowledge_and_another_one_everything() {
    let (slave, now, [a, b]) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), ["a", "b"].map(atom));
    slave.found(at(1));
    assert!(slave.begin_sweep());
    repair(&slave, &OneKey(a.clone()));
    let (_, mark) = taken(&slave, now);
    slave.acknowledged(mark.expect("asked"));
    slave.push(7, put(&b, &b));
    let (sent, mark) = taken(&slave, now + ACKNOWLEDGE_PAUSE);
    assert_eq!((sent.len(), mark.is_some()), (1, true));
    slave.gone();
    assert_eq!(slave.standing(), Standing::Gone { missed: Some(1) });
    slave.found(at(1));
    // An answer to what was asked before.
    slave.acknowledged(mark.expect("asked"));
    assert!(!slave.begin_sweep());
    repair(&slave, &OneKey(a.clone()));
    assert_eq!(taken(&slave, now).0, ["{:\"$gen_cast\", {:replicate_delete, :b}}"]);
    slave.gone();
    slave.found(at(2));
    assert!(slave.begin_sweep());
    repair(&slave, &OneKey(a));
    assert_eq!(taken(&slave, now).0, ["{:\"$gen_cast\", {:replicate_put, :a, :a}}"]);
}

#[test]
fn past_the_bound_it_is_behind_and_goes_on_once_it_has_taken_what_it_was_sent() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 300), start(), atom("k"));
    slave.found(at(1));
    repair(&slave, &OneKey(key.clone()));
    let (_, mark) = taken(&slave, now);
    let value = encode(|w| _ = w.binary(&[0; 400]));
    assert_eq!(slave.push(7, put(&key, &value)), Pushed::Behind(1));
    assert_eq!(slave.standing(), Standing::Behind { missed: Some(1) });
    assert_eq!(slave.push(7, put(&key, &value)), Pushed::Kept);
    assert!(!slave.catch_up(now));
    slave.acknowledged(mark.expect("asked"));
    assert!(slave.catch_up(now));
    repair(&slave, &OneKey(key.clone()));
    assert_eq!(taken(&slave, now + ACKNOWLEDGE_PAUSE).0.len(), 1);
    // Keys alone can be too many.
    slave.gone();
    for n in 0..10 {
        slave.push(7, put(&atom(&format!("key {n}")), &key));
    }
    assert_eq!(slave.standing(), Standing::Gone { missed: None });
    slave.found(at(1));
    assert!(slave.begin_sweep());
}

#[test]
fn a_kvnode_puts_aside_what_is_written_once_all_is_to_be_copied_again() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    slave.found_kvnode(at(1), 1, 5, Said { incarnation: 9, had: None, applied: 0, stepped_down: false });
    repair(&slave, &OneKey(key.clone()));
    slave.acknowledged(taken(&slave, now).1.expect("asked"));
    slave.copy_all();
    slave.push(8, put(&key, &key));
    let (sent, _) = taken(&slave, now + ACKNOWLEDGE_PAUSE);
    assert_eq!(
        sent,
        ["{:\"$gen_cast\", {:replica_copy, 1, 7, :begin}}", "{:\"$gen_cast\", {:replica_put, 1, 8, :k, :k}}"],
        "else it would seem to have everything up to the write"
    );
}

#[test]
fn a_former_primary_is_known_as_one_until_it_is_in_step() {
    let slave = Slave::new(SlaveName::global("s"), 1 << 20);
    let said = Said { incarnation: 9, had: None, applied: 0, stepped_down: true };
    slave.found_kvnode(at(1), 1, 5, said);
    assert!(!slave.take_stepped_down(), "it is copied to");
    // Also when it is greeted again meanwhile.
    slave.found_kvnode(at(1), 2, 5, Said { stepped_down: false, ..said });
    repair(&slave, &OneKey(atom("k")));
    slave.acknowledged(taken(&slave, start()).1.expect("asked"));
    assert!(slave.take_stepped_down() && !slave.take_stepped_down());
}

#[test]
fn one_that_is_removed_is_told_of_every_session_that_it_may_be_in() {
    let said = Said { incarnation: 9, had: None, applied: 0, stepped_down: false };
    let [slave, other] = ["a", "b"].map(|name| Slave::new(SlaveName::global(name), 1 << 20));
    let refused = slave.next_session(5);
    slave.not_taken(refused);
    assert!(slave.sessions().is_empty());
    // One that was not answered may be in force when the next is refused.
    let unanswered = slave.next_session(5);
    let refused = slave.next_session(5);
    slave.not_taken(refused);
    assert_eq!(slave.sessions(), [unanswered]);
    let first = slave.next_session(5);
    slave.found_kvnode(at(1), first, 5, said);
    let second = slave.next_session(5);
    assert_eq!(slave.sessions(), [second, first], "it may have taken the second");
    // Greeted once more under another name, which is dropped then.
    let third = other.next_session(5);
    other.drop_out();
    slave.take_over(&other);
    assert!(slave.is_renewed() && slave.sessions().contains(&third));
    slave.drop_out();
    assert_eq!(slave.sessions(), [second, third, first]);
    (0..100).for_each(|_| _ = slave.next_session(5));
    assert!(slave.sessions().len() < 20, "bounded");
}

#[test]
fn what_a_process_has_counts_for_the_slave_that_is_followed_there_alone() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    slave.found_kvnode(at(1), 1, 5, Said { incarnation: 9, had: None, applied: 0, stepped_down: false });
    repair(&slave, &OneKey(key));
    slave.acknowledged(taken(&slave, now).1.expect("asked"));
    slave.forget(&at(1), Some(9));
    assert_eq!(slave.confirmed(), 7, "it is followed");
    slave.gone();
    slave.forget(&at(2), Some(8));
    assert_eq!(slave.confirmed(), 7, "as it lives, for all that is known");
    slave.forget(&at(2), Some(9));
    assert_eq!((slave.confirmed(), slave.standing()), (0, Standing::Seeking));
}

#[test]
fn one_that_is_full_is_sent_deletions_and_after_a_while_what_it_did_not_keep() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    let said = Said { incarnation: 9, had: None, applied: 0, stepped_down: false };
    slave.found_kvnode(at(1), 1, 5, said);
    repair(&slave, &OneKey(key.clone()));
    let mark = taken(&slave, now).1.expect("asked");
    slave.acknowledged(mark);
    assert_eq!(slave.confirmed(), 7);
    assert_eq!(slave.push(8, put(&key, &key)), Pushed::Ready);
    let mark = taken(&slave, now + ACKNOWLEDGE_PAUSE).1.expect("asked");
    assert!(slave.not_kept(mark, Refusal::NoSpace, now) && !slave.has(8, Traits::none()));
    assert_eq!(slave.standing(), Standing::Full { why: Refusal::NoSpace, missed: Some(1) });
    assert_eq!(slave.push(9, put(&atom("l"), &key)), Pushed::Kept);
    assert_eq!(slave.push(10, ReplicaWrite::Delete { key: &key, traits: Traits::none() }), Pushed::Ready);
    assert!(!slave.catch_up(now));
    let (sent, mark) = taken(&slave, now + 2 * ACKNOWLEDGE_PAUSE);
    assert_eq!(sent, ["{:\"$gen_cast\", {:replica_delete, 1, 10, :k}}"]);
    slave.acknowledged(mark.expect("asked"));
    assert_eq!((slave.confirmed(), slave.acknowledge_due().is_some()), (7, true));
    let later = slave.acknowledge_due().expect("it is tried again");
    assert!(slave.catch_up(later));
    repair(&slave, &OneKey(key));
    let (sent, mark) = taken(&slave, later);
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(matches!(slave.standing(), Standing::Full { .. }));
    slave.acknowledged(mark.expect("asked"));
    assert_eq!((slave.standing(), slave.confirmed()), (Standing::InStep { lag: 0 }, 7));
}

#[test]
fn what_its_node_cannot_decode_is_not_sent_and_not_confirmed_and_is_known() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    slave.found(at(1));
    repair(&slave, &OneKey(key.clone()));
    let take = |now| {
        let mut sent = 0;
        let can_decode = |traits: Traits| !traits.intersects(Traits::V4_NC);
        let taken = slave.take("b@h", now, can_decode, |_, _| {
            sent += 1;
            true
        });
        let Acknowledge::Now(mark) = taken.acknowledge else { panic!("it is asked") };
        slave.acknowledged(mark);
        (sent, taken.withheld)
    };
    assert_eq!(take(now), (1, false));
    let wide = |key| ReplicaWrite::Put { key, value: &[97, 1], traits: Traits::V4_NC };
    slave.push(8, wide(&key));
    slave.push(9, wide(&key));
    assert_eq!(take(now + ACKNOWLEDGE_PAUSE), (0, true));
    assert_eq!(
        (slave.confirmed(), slave.has(9, Traits::V4_NC), slave.has(9, Traits::none())),
        (9, false, true)
    );
    assert_eq!(slave.withheld(3), (1, vec![key.clone().into_boxed_slice()]));
    slave.push(10, put(&key, &key));
    assert_eq!(take(now + 2 * ACKNOWLEDGE_PAUSE), (1, false));
    assert_eq!(slave.withheld(3).0, 0);
}

#[test]
fn it_is_asked_once_in_a_while_and_never_twice_at_once() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    slave.found(at(1));
    repair(&slave, &OneKey(key.clone()));
    let mark = taken(&slave, now).1.expect("asked");
    slave.push(7, put(&key, &key));
    assert_eq!(taken(&slave, now + 2 * ACKNOWLEDGE_PAUSE).1, None);
    assert_eq!(slave.acknowledge_due(), None);
    slave.acknowledged(mark);
    assert_eq!(slave.acknowledge_due(), Some(now + ACKNOWLEDGE_PAUSE));
    assert_eq!(taken(&slave, now).1, None);
    assert!(taken(&slave, now + ACKNOWLEDGE_PAUSE).1.is_some());
}

#[test]
fn what_could_not_be_sent_is_not_forgotten_when_its_keys_could_be_read_and_an_error_is_when_it_is_found() {
    let slave = Slave::new(SlaveName::global("s"), 1 << 20);
    slave.failed("nobody has that name");
    slave.protect_data();
    assert!(slave.protects_data());
    slave.found(at(1));
    assert_eq!((slave.last_error(), slave.protects_data()), (None, false));
    assert!(slave.begin_sweep());
    repair(&slave, &Damaged(OneKey(atom("k"))));
    assert!(slave.may_be_stale());
    slave.end_sweep(true);
    assert!(slave.may_be_stale(), "the keys were read, and the value is not there");
    slave.gone();
    slave.found(at(2));
    slave.end_sweep(false);
    assert!(slave.may_be_stale());
    slave.end_sweep(true);
    assert!(!slave.may_be_stale(), "another process, and its keys are known");
}

#[test]
fn no_two_slaves_have_the_same_session() {
    let slaves = [1, 2].map(|_| Slave::new(SlaveName::global("s"), 10));
    let mut sessions: Vec<u64> = (1..4)
        .flat_map(|id| {
            slaves.each_ref().map(|slave| {
                let session = slave.next_session(u64::MAX);
                slave.found(at(id));
                session
            })
        })
        .collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 6);
}

#[test]
fn nothing_is_kept_for_one_that_has_dropped_out() {
    let slave = Slave::new(SlaveName::Local("s".into()), 10);
    slave.found(at(1));
    slave.drop_out();
    for _ in 0..10 {
        assert_eq!(slave.push(7, put(&atom("a long name of a key"), &atom("v"))), Pushed::Kept);
    }
    slave.found(at(1));
    assert_eq!(slave.standing(), Standing::Dropped);
}

#[test]
fn nothing_is_shown_to_a_connection_to_a_node_that_it_has_left() {
    let (slave, now, key) = (Slave::new(SlaveName::global("s"), 1 << 20), start(), atom("k"));
    slave.found(at(1));
    assert!(slave.begin_sweep());
    slave.end_sweep(true);
    assert_eq!(slave.push(7, put(&key, &key)), Pushed::Ready);
    let taken = |node| slave.take(node, now, |_| true, |_, _| panic!("shown to {node}"));
    assert_eq!(taken("left@h").at, None);
    assert_eq!(taken("left@h").acknowledge, Acknowledge::No);
    assert!(!slave.take("b@h", now, |_| true, |_, _| false).more, "it was all that there is");
}
