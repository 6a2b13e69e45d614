//! What single cases come to, step by step.

use super::*;

#[test]
fn what_gathers_while_a_transaction_is_on_its_way_goes_as_one_and_each_is_told_of_in_order() {
    let mut world = World::open(1);
    let before = world.etcd.revision;
    let first = world.ask(0, &[1], put_of(7));
    let later: Vec<u64> = (0..100).map(|_| world.count(0, 1)).collect();
    let barrier = world.ask(0, &[], Ask::Barrier(Box::new(|_| {})));
    assert_eq!(world.nodes[0].call.as_ref().unwrap().1.success.len(), 2, "the mark and the first");
    world.deliver(0);
    assert_eq!((world.nodes[0].told(first), world.nodes[0].told(later[0])), (WROTE, None));
    assert_eq!(world.nodes[0].call.as_ref().unwrap().1.success.len(), 2, "the mark and one key");
    world.deliver(0);
    let told: Vec<u64> = world.nodes[0].told.iter().map(|(number, _)| *number).collect();
    assert_eq!(told, (first..=barrier).collect::<Vec<_>>());
    let found = world.nodes[0].table.get(&term(1)).unwrap();
    assert_eq!((number(Some(found.value())), layout_place(found.revision)), (107, 99));
    assert_eq!(world.etcd.revision, before + 2);
    world.heal();
}

fn layout_place(revision: u64) -> u64 {
    revision & 0xff
}

#[test]
fn a_decision_that_came_too_late_is_made_anew_when_the_table_has_come_up() {
    let mut world = World::open(2);
    let (one, other) = (world.count(0, 1), world.count(1, 1));
    world.deliver(1);
    world.deliver(0);
    assert_eq!((world.nodes[1].told(other), world.nodes[0].told(one)), (WROTE, None));
    assert!(world.nodes[0].call.is_none(), "it waits for what it does not know");
    world.show(0, usize::MAX);
    world.deliver(0);
    assert_eq!(world.nodes[0].told(one), WROTE);
    world.heal();
    assert_eq!(number(world.nodes[1].table.get(&term(1)).as_ref().map(OwnedValue::value)), 2);
}

#[test]
fn what_decides_goes_alone_after_that_and_what_looks_at_nothing_goes_by_unless_it_has_its_key() {
    let mut world = World::open(2);
    let first = world.ask(0, &[9], put_of(1));
    let (a, b) = (world.count(0, 1), world.count(0, 2));
    let (by, behind) = (world.ask(0, &[3], put_of(3)), world.ask(0, &[2], put_of(4)));
    let barrier = world.ask(0, &[], Ask::Barrier(Box::new(|_| {})));
    world.deliver(0);
    let other = world.count(1, 1);
    world.deliver(1);
    world.deliver(0);
    world.show(0, usize::MAX);
    let told = |world: &World| {
        [first, a, b, by, behind, barrier].map(|number| world.nodes[0].told(number).is_some())
    };
    assert_eq!(told(&world), [true, false, false, false, false, false]);
    world.deliver(0);
    assert_eq!(told(&world), [true, false, false, true, false, false]);
    // The other one is faster once more.
    let again = world.count(1, 1);
    world.show(1, usize::MAX);
    world.deliver(1);
    assert_eq!((world.nodes[1].told(other), world.nodes[1].told(again)), (WROTE, WROTE));
    let late = world.ask(0, &[5], put_of(5));
    world.deliver(0);
    world.show(0, usize::MAX);
    for _ in 0..8 {
        world.deliver(0);
    }
    assert_eq!(told(&world), [true; 6]);
    assert_eq!(world.nodes[0].told(late), WROTE);
    world.heal();
    assert_eq!(number(world.nodes[1].table.get(&term(1)).as_ref().map(OwnedValue::value)), 3);
    assert_eq!(number(world.nodes[1].table.get(&term(2)).as_ref().map(OwnedValue::value)), 4);
}

#[test]
fn decisions_go_alone_also_where_the_watch_is_faster_than_the_answer() {
    let mut world = World::open(2);
    let first = world.ask(0, &[9], put_of(1));
    let counts = [world.count(0, 1), world.count(0, 2)];
    world.deliver(0);
    assert_eq!(world.nodes[0].told(first), WROTE);
    world.count(1, 1);
    world.deliver(1);
    // etcd makes it void, and the watch shows that first.
    let (number, request) = world.nodes[0].call.take().unwrap();
    let response = world.etcd.txn(&request);
    assert!(!response.succeeded);
    world.show(0, usize::MAX);
    world.handle(0, Input::Answered(number, Ok(response)));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(counts[0]), WROTE);
    assert_eq!(world.nodes[0].told(counts[1]), None, "it goes by itself");
    world.deliver(0);
    assert_eq!(world.nodes[0].told(counts[1]), WROTE);
    world.heal();
}

#[test]
fn removals_of_ended_keys_that_another_process_removes_too_hold_nothing_up_and_are_told_of_as_such() {
    let mut world = World::open(2);
    for key in 0..20 {
        world.ask(0, &[key], put_of(key));
    }
    (0..2).for_each(|_| world.deliver(0));
    world.show(1, usize::MAX);
    // Both remove all, and one counts besides.
    let removals: Vec<[u64; 2]> =
        (1..20).map(|key| [0, 1].map(|node| world.ask(node, &[key], expire()))).collect();
    let count = world.count(1, 0);
    (0..2).for_each(|_| world.deliver(0));
    world.deliver(1);
    world.show(1, usize::MAX);
    assert_eq!(world.nodes[1].told(count), None, "it is the only one that is asked for again");
    world.deliver(1);
    assert_eq!(world.nodes[1].told(count), WROTE);
    assert!(removals.iter().all(|[one, _]| world.nodes[0].told(*one) == WROTE));
    assert!(removals.iter().all(|[_, other]| world.nodes[1].told(*other) == Some(Ok("kept"))));
    assert_eq!((world.nodes[0].ended, world.nodes[1].ended), (19, 19));
    assert!(world.nodes[1].call.is_none());
    world.heal();
}

#[test]
fn removals_in_a_batch_that_came_too_late_are_left_out_and_what_callers_decide_goes_on() {
    let mut world = World::open(2);
    for key in 0..5 {
        world.ask(0, &[key], put_of(key));
    }
    (0..2).for_each(|_| world.deliver(0));
    world.show(1, usize::MAX);
    world.ask(1, &[99], put_of(1));
    let removals = [1, 2, 3, 4].map(|key| world.ask(1, &[key], expire()));
    let count = world.count(1, 0);
    world.deliver(1);
    // One of the keys is written anew.
    world.count(0, 1);
    world.deliver(0);
    world.deliver(1);
    world.show(1, usize::MAX);
    assert!(removals.iter().all(|number| world.nodes[1].told(*number) == Some(Ok("kept"))));
    assert_eq!(world.nodes[1].call.as_ref().unwrap().1.success.len(), 2, "the mark and the counter");
    world.deliver(1);
    assert_eq!(world.nodes[1].told(count), WROTE);
    world.heal();
    assert_eq!(world.nodes[0].table.entries.len(), 6);
}

#[test]
fn a_decision_to_keep_is_looked_at_by_etcd_too_and_waits_for_revisions_that_it_may_tell() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let (put, kept) = (world.ask(0, &[1], put_of(1)), world.ask(0, &[1], Ask::Update(Box::new(Keep))));
    world.deliver(0);
    world.deliver(0);
    let told = |world: &World| [first, put, kept].map(|number| world.nodes[0].told(number));
    assert_eq!(told(&world), [WROTE, WROTE, None]);
    world.etcd.write(world.nodes[0].layout.entry(&term(1)), None);
    world.deliver(0);
    assert_eq!(told(&world)[2], None, "it was about something else");
    let before = world.etcd.revision;
    world.show(0, usize::MAX);
    // What was decided before fails once more, and moves the mark; what is decided now is right.
    world.deliver(0);
    assert_eq!((told(&world)[2].clone(), world.etcd.revision), (None, before + 1));
    world.deliver(0);
    assert_eq!((told(&world)[2].clone(), world.etcd.revision), (Some(Ok("kept")), before + 1));
    world.heal();
}

#[test]
fn what_nobody_waits_for_any_more_is_made_void_and_what_is_done_all_the_same_is_told_of() {
    for is_done in [false, true] {
        let mut world = World::open(1);
        let put = world.ask(0, &[1], put_of(1));
        world.lose(0, if is_done { 0 } else { 1 });
        world.elapse(Duration::from_millis(60));
        world.lose(0, 1);
        world.elapse(PATIENCE);
        assert_eq!(world.nodes[0].told(put), Some(Err(StoreError::Unknown)));
        let behind = world.ask(0, &[2], put_of(2));
        world.deliver(0);
        world.deliver(0);
        assert_eq!(world.nodes[0].told(behind), WROTE);
        world.heal();
        assert_eq!(world.nodes[0].table.get(&term(1)).is_some(), is_done);
        assert_eq!(world.nodes[0].seq, if is_done { 3 } else { 2 });
    }
}

#[test]
fn what_was_never_sent_is_unavailable_in_time() {
    let mut world = World::open(1);
    let put = world.ask(0, &[1], put_of(1));
    let read = world.ask(0, &[], Ask::CatchUp(Box::new(|_| {})));
    for _ in 0..75 {
        world.lose(0, 3);
        world.elapse(Duration::from_millis(50));
    }
    assert_eq!((world.nodes[0].told(put), world.nodes[0].told(read)), (None, None));
    for _ in 0..5 {
        world.lose(0, 3);
        world.elapse(Duration::from_millis(50));
    }
    let unavailable = Some(Err(StoreError::Unavailable));
    assert_eq!((world.nodes[0].told(put), world.nodes[0].told(read)), (unavailable.clone(), unavailable));
    world.heal();
    assert!(world.nodes[0].table.get(&term(1)).is_none());
}

/// The client asks all members until the time is over that it has been given, and says then that it has reached none.
#[test]
fn a_request_is_unavailable_where_the_client_finds_out_at_the_last_moment_that_nothing_was_sent() {
    for behind in [0, 500, 3000, 3799, 3800, 3900] {
        let mut world = World::open(1);
        // What is older is on its way meanwhile, and its outcome is unknown in the end.
        let first = world.ask(0, &[9], put_of(1));
        let put = world.ask(0, &[1], put_of(1));
        world.elapse(Duration::from_millis(behind));
        let later = world.ask(0, &[2], put_of(2));
        world.deliver(0);
        for _ in 0..3 {
            if world.nodes[0].call.is_none() {
                break;
            }
            world.elapse(world.nodes[0].limit);
            // The client's own work.
            world.elapse(Duration::from_millis(20));
            world.lose(0, 3);
            world.elapse(Duration::from_millis(60));
        }
        let unavailable = Some(Err(StoreError::Unavailable));
        assert_eq!(world.nodes[0].told(first), WROTE);
        assert_eq!(world.nodes[0].told(put), unavailable, "behind {behind} ms");
        assert_eq!(world.nodes[0].told(later), unavailable, "behind {behind} ms");
        world.heal();
        assert_eq!(world.nodes[0].table.entries.len(), 1);
    }
}

#[test]
fn where_etcd_takes_less_than_it_says_batches_get_smaller_and_the_large_write_alone_fails() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let small: Vec<u64> = (0..10).map(|key| world.ask(0, &[key], put_of(key))).collect();
    world.deliver(0);
    assert_eq!(world.nodes[0].told(first), WROTE);
    let mut refused = 0;
    loop {
        let (number, request) = world.nodes[0].call.take().unwrap();
        // The mark, and one key.
        if request.success.len() == 2 {
            let error = Error::TooLarge { bytes: 0, bytes_max: None };
            world.handle(0, Input::Answered(number, Err(error)));
            break;
        }
        assert!(world.nodes[0].told.len() == 1, "no write is told of");
        let error = Error::TooLarge { bytes: 0, bytes_max: None };
        world.handle(0, Input::Answered(number, Err(error)));
        refused += 1;
    }
    assert!((1..30).contains(&refused), "{refused}");
    assert!(matches!(world.nodes[0].told(small[0]), Some(Err(StoreError::TooLarge(_)))));
    for _ in 1..10 {
        world.deliver(0);
    }
    assert!(small[1..].iter().all(|number| world.nodes[0].told(*number) == WROTE));
    world.heal();
}

#[test]
fn where_etcd_takes_few_operations_batches_get_smaller_and_a_write_of_many_keys_alone_fails() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let small: Vec<u64> = (0..100).map(|key| world.ask(0, &[key], put_of(key))).collect();
    let keys: Vec<u64> = (200..210).collect();
    let many = world.ask(0, &keys, Ask::UpdateMany(Box::new(Count(Vec::new()))));
    let last = world.ask(0, &[9], put_of(2));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(first), WROTE);
    // As many as its members take.
    const TAKEN: usize = 9;
    let (mut refused, mut done) = (0, 0);
    while let Some((number, request)) = world.nodes[0].call.take() {
        if request.success.len().max(request.compare.len()) <= TAKEN {
            world.nodes[0].call = Some((number, request));
            world.deliver(0);
            done += 1;
            continue;
        }
        world.handle(0, Input::Answered(number, Err(Error::TooManyOperations)));
        refused += 1;
    }
    assert_eq!(refused, 5, "120, 60, 30, 15, and the ten keys of one write");
    assert!((small.len() / TAKEN..=small.len() / 4).contains(&done), "{done}");
    assert!(small.iter().chain([&last]).all(|number| world.nodes[0].told(*number) == WROTE));
    assert_eq!(world.nodes[0].told(many), Some(Err(StoreError::TooMany(9))));
    world.heal();
    // Decisions that keep what is there are conditions alone.
    world.nodes[0].machine.bounds = Bounds::new(3 << 19);
    world.ask(0, &[9], put_of(3));
    let keep: Vec<u64> = (0..20).map(|key| world.ask(0, &[key], Ask::Update(Box::new(Keep)))).collect();
    world.deliver(0);
    let (number, request) = world.nodes[0].call.take().unwrap();
    assert_eq!((request.compare.len(), request.success.len()), (20, 1));
    world.handle(0, Input::Answered(number, Err(Error::TooManyOperations)));
    for _ in 0..keep.len() {
        assert!(world.nodes[0].call.as_ref().is_none_or(|(_, request)| request.compare.len() <= TAKEN));
        world.deliver(0);
    }
    assert!(keep.iter().all(|number| world.nodes[0].told(*number) == Some(Ok("kept"))));
    // One that takes none at all is told of, and asked for nothing again and again.
    let one = world.ask(0, &[1], put_of(1));
    let number = world.nodes[0].call.take().unwrap().0;
    world.handle(0, Input::Answered(number, Err(Error::TooManyOperations)));
    assert_eq!(world.nodes[0].told(one), Some(Err(StoreError::Io("einval"))));
}

/// What has `value` bytes, at a key of `key` bytes.
fn put_sized(world: &mut World, key: usize, value: usize) -> (u64, Key) {
    let key = Key::from(vec![b'k'; key]);
    let value = OwnedValue { bytes: vec![7; value].into(), ..Value::of(&[], Traits::none()).to_owned() };
    let node = &mut world.nodes[0];
    node.asked += 1;
    let number = node.asked;
    node.untold.insert(number, world.now);
    let asked =
        Asked { number, at: world.now, keys: vec![Arc::clone(&key)], ask: Ask::Put(value, Box::new(|_| {})) };
    world.handle(0, Input::Asked(vec![asked]));
    (number, key)
}

#[test]
fn what_can_be_put_can_be_removed_when_its_time_is_over() {
    let mut world = World::open(1);
    let bound = |world: &World, number| match world.nodes[0].told(number) {
        Some(Err(StoreError::TooLarge(bound))) => bound as usize,
        told => panic!("{told:?}"),
    };
    let refused = put_sized(&mut world, 1 << 20, 1000).0;
    let most = bound(&world, refused);
    let refused = put_sized(&mut world, most / 2, 2).0;
    assert_eq!(bound(&world, refused), most);
    let (put, key) = put_sized(&mut world, most / 2 - 1, 2);
    world.deliver(0);
    assert_eq!(world.nodes[0].told(put), WROTE);
    let node = &mut world.nodes[0];
    node.asked += 1;
    let number = node.asked;
    node.untold.insert(number, world.now);
    let asked = Asked { number, at: world.now, keys: vec![key], ask: expire() };
    world.handle(0, Input::Asked(vec![asked]));
    assert!(world.nodes[0].call.is_some(), "{:?}", world.nodes[0].told(number));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(number), WROTE);
}

#[test]
fn where_etcd_is_rolled_back_nothing_is_mixed_and_nobody_waits() {
    // Wiped, restored from an older copy, and the same found by a load.
    for (restored, by_load) in [(false, false), (true, false), (true, true)] {
        let mut world = World::open(1);
        let copy = (world.etcd.revision, world.etcd.entries.clone());
        let put = world.ask(0, &[1], put_of(1));
        world.deliver(0);
        assert_eq!(world.nodes[0].told(put), WROTE);
        let (revision, entries) = if restored { copy } else { (1, BTreeMap::new()) };
        world.etcd = Etcd { revision, entries, ..Etcd::new() };
        let seen = held(&world.nodes[0].table);
        let read = world.ask(0, &[], Ask::CatchUp(Box::new(|_| {})));
        let first = world.ask(0, &[2], put_of(2));
        let second = world.ask(0, &[3], put_of(3));
        if by_load {
            world.handle(0, Input::Lost(Error::Compacted { revision: None }));
            (0..3).for_each(|_| world.load(0, false));
        } else {
            world.deliver(0);
        }
        let unavailable = Some(Err(StoreError::Unavailable));
        assert_eq!(world.nodes[0].told(first), Some(Err(StoreError::Unknown)), "{restored} {by_load}");
        assert_eq!(world.nodes[0].told(second), unavailable);
        assert_eq!(world.nodes[0].told(read), unavailable);
        let node = &world.nodes[0];
        assert!(node.call.is_none() && node.watch.is_none() && node.load.is_none() && !node.look);
        assert_eq!(held(&node.table), seen, "readers see what was there");
        // It stays so, also where the revision has come as far again.
        world.etcd.revision += 100;
        let applied = world.nodes[0].table.applied();
        world.handle(0, Input::Observed { applied, revision: applied + 50 });
        let later = world.ask(0, &[4], put_of(4));
        let read = world.ask(0, &[], Ask::CatchUp(Box::new(|_| {})));
        assert_eq!(
            [later, read].map(|number| world.nodes[0].told(number)),
            [unavailable.clone(), unavailable]
        );
        assert!(world.nodes[0].machine.is_settled() && world.nodes[0].machine.wakes_at().is_none());
    }
}

#[test]
fn a_reader_that_catches_up_finds_what_another_was_answered_also_a_deletion() {
    let mut world = World::open(2);
    world.ask(0, &[1], put_of(1));
    world.deliver(0);
    let gone = world.ask(0, &[1], Ask::Delete(Box::new(|_| {})));
    world.deliver(0);
    assert_eq!(world.nodes[0].told(gone), WROTE);
    let reads = [(); 2].map(|()| world.ask(1, &[], Ask::CatchUp(Box::new(|_| {}))));
    world.deliver(1);
    world.show(1, 1);
    assert_eq!(reads.map(|read| world.nodes[1].told(read)), [None, None], "the deletion is not here");
    world.show(1, 1);
    let done = Some(Ok("done"));
    assert_eq!(world.nodes[1].told(reads[0]), done);
    world.deliver(1);
    assert_eq!(world.nodes[1].told(reads[1]), done);
    world.heal();
}

#[test]
fn marks_of_long_ago_go_and_a_writer_whose_mark_has_gone_writes_on() {
    let mut world = World::open(1);
    world.ask(0, &[1], put_of(1));
    world.deliver(0);
    for writer in 100..180 {
        let layout = Layout::new("p", ID, writer);
        world.etcd.write(layout.mark(), Some(layout::write_mark(2, &[])));
    }
    let before = std::mem::replace(&mut world.nodes[0], World::new(1).nodes.remove(0));
    world.nodes[0].layout = Layout::new("p", ID, 77);
    world.nodes[0].machine =
        Machine::new(world.nodes[0].layout.clone(), Bounds::new(3 << 19), Arc::clone(&world.nodes[0].table));
    world.carry_out(0);
    world.nodes.push(before);
    (0..3).for_each(|_| world.load(0, false));
    world.deliver(0);
    let (from, to) = world.nodes[0].layout.marks();
    assert_eq!(world.etcd.entries.range(from..to).count(), MARKS_LEFT);
    assert!(!world.etcd.entries.contains_key(&world.nodes[1].layout.mark()), "it was the oldest");
    let put = world.ask(1, &[1], put_of(2));
    world.deliver(1);
    world.heal();
    assert_eq!(world.nodes[1].told(put), WROTE);
}

/// Half of those that there may be, and the writer's own.
const MARKS_LEFT: usize = 33;

#[test]
fn what_another_program_puts_in_the_place_of_the_mark_keeps_no_write_up() {
    let mut world = World::open(1);
    for bytes in [&b"else"[..], b"", b"longer than a mark"] {
        world.etcd.write(world.nodes[0].layout.mark(), Some(Bytes::from_static(bytes)));
        world.show(0, usize::MAX);
        let put = world.ask(0, &[1], put_of(1));
        world.deliver(0);
        assert_eq!(world.nodes[0].told(put), WROTE);
        // While a batch is on its way.
        let put = world.ask(0, &[1], put_of(2));
        world.etcd.write(world.nodes[0].layout.mark(), Some(Bytes::from_static(bytes)));
        world.show(0, usize::MAX);
        world.deliver(0);
        assert_eq!(world.nodes[0].told(put), WROTE);
        world.heal();
    }
}

#[test]
fn what_cannot_be_read_is_decided_on_by_nothing_and_mended_by_what_looks_at_nothing() {
    let mut world = World::open(2);
    let key = world.nodes[0].layout.entry(&term(12));
    world.etcd.write(key, Some(Bytes::from_static(b"no head")));
    (0..2).for_each(|node| world.show(node, usize::MAX));
    let refused = [world.count(0, 12), world.ask(0, &[11, 12], Ask::UpdateMany(Box::new(Count(Vec::new()))))];
    // The first key is put, and so are the others.
    let mends = world.ask(0, &[12, 10, 11], Ask::UpdateMany(Box::new(Mixed(0x3f))));
    (0..2).for_each(|_| world.deliver(0));
    let damaged = Some(Err(StoreError::Io("damaged")));
    assert_eq!(refused.map(|number| world.nodes[0].told(number)), [damaged.clone(), damaged]);
    assert_eq!(world.nodes[0].told(mends), WROTE);
    world.heal();
    assert_eq!(world.nodes[1].table.entries.len(), 3);
}

/// A decision that panics.
struct Panics;

impl Update for Panics {
    fn decide(&mut self, _present: Option<Value<'_>>) -> Change<'_> {
        panic!("a decision of a test panics")
    }
}

impl Pending for Panics {
    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

impl UpdateMany for Panics {
    fn decide(&mut self, _present: &[Option<Value<'_>>], _change: &mut dyn FnMut(usize, Change<'_>)) {
        panic!("a decision of a test panics")
    }
}

impl PendingMany for Panics {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, _result: Result<Option<Written<'_>>, StoreError>) {}
}

#[test]
fn a_decision_that_panics_fails_and_nothing_else_does() {
    let mut world = World::open(1);
    let first = world.ask(0, &[9], put_of(1));
    let before = world.count(0, 1);
    let panicked = [
        world.ask(0, &[1], Ask::Update(Box::new(Panics))),
        world.ask(0, &[1, 2], Ask::UpdateMany(Box::new(Panics))),
    ];
    let behind = world.count(0, 1);
    (0..2).for_each(|_| world.deliver(0));
    assert!([first, before, behind].iter().all(|number| world.nodes[0].told(*number) == WROTE));
    assert_eq!(
        panicked.map(|number| world.nodes[0].told(number)),
        [(); 2].map(|()| Some(Err(StoreError::Io("eio"))))
    );
    world.heal();
}

#[test]
fn a_writer_whose_mark_a_restore_has_deleted_writes_nothing_until_that_has_ended() {
    let mut world = World::open(1);
    let (claim, mark) = (world.nodes[0].layout.claim(), world.nodes[0].layout.mark());
    world.etcd.write(claim.clone(), Some(Bytes::from_static(b"token")));
    // A batch that is on its way is not done behind that.
    let late = world.ask(0, &[1], put_of(1));
    world.etcd.write(mark, None);
    let revision = world.etcd.revision;
    for _ in 0..80 {
        world.deliver(0);
        world.show(0, usize::MAX);
        world.elapse(Duration::from_millis(50));
    }
    assert!(world.nodes[0].told(late).is_some_and(|told| told.is_err()));
    assert_eq!((world.etcd.revision, world.nodes[0].table.entries.len()), (revision, 0));
    world.etcd.write(claim, None);
    let put = world.ask(0, &[2], put_of(2));
    world.heal();
    assert_eq!((world.nodes[0].told(put), world.nodes[0].table.entries.len()), (WROTE, 1));
}
