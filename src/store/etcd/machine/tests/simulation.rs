//! Steps at random: nothing is lost or done twice, whatever etcd and the network do.

use proptest::prelude::*;

use super::*;

/// What a step of the model does, with what.
type Step = (u8, u8, u8);

fn run(steps: Vec<Step>, clears: bool) -> Result<(), TestCaseError> {
    let mut world = World::new(2);
    for (what, which, how) in steps {
        let node = usize::from(which & 1);
        let key = u64::from(how) % COUNTERS;
        let plain = 10 + u64::from(how) % 3;
        match what {
            0..=5 => _ = world.count(node, key),
            6 => {
                _ = world.ask(
                    node,
                    &[key, (key + 1) % COUNTERS],
                    Ask::UpdateMany(Box::new(Count(Vec::new()))),
                )
            }
            7 | 8 => _ = world.ask(node, &[plain], put_of(how.into())),
            9 => _ = world.ask(node, &[12, 10, 11], Ask::UpdateMany(Box::new(Mixed(how)))),
            10 => _ = world.ask(node, &[plain], Ask::Delete(Box::new(|_| {}))),
            11 if clears => _ = world.ask(node, &[], Ask::Clear(Box::new(|_| {}))),
            11 if how % 2 == 0 => _ = world.ask(node, &[plain], expire()),
            11 => _ = world.ask(node, &[plain], Ask::Update(Box::new(Keep))),
            12 => _ = world.ask(node, &[], Ask::Barrier(Box::new(|_| {}))),
            13 => _ = world.ask(node, &[plain], Ask::Note(vec![how], Box::new(|_| {}))),
            14 => _ = world.ask(node, &[], Ask::CatchUp(Box::new(|_| {}))),
            15..=24 => world.deliver(node),
            25..=29 => world.lose(node, how),
            30 | 31 => world.do_late(how.into()),
            32..=39 => world.show(node, usize::from(how % 4) + 1),
            40..=43 => world.load(node, how % 5 == 0),
            44 if how % 4 == 0 => world.etcd.compact(),
            44 | 45 => {
                // Others write: a value that can be read, one that cannot, or what is no key of the store.
                let value = write_value(&Value::of(&term(how.into()), Traits::none()), 0);
                let (key, value) = match how % 6 {
                    0 => (world.nodes[0].layout.entry(&term(plain)), Some(Bytes::from_static(b"no head"))),
                    1 => (world.nodes[0].layout.entry(&term(plain)), None),
                    2 => (Bytes::from_static(b"elsewhere"), Some(value)),
                    3 => (world.nodes[node].layout.mark(), None),
                    4 => (world.nodes[node].layout.mark(), Some(Bytes::from_static(b"else"))),
                    _ => (world.nodes[0].layout.entry(&term(plain)), Some(value)),
                };
                world.etcd.write(key, value);
            }
            46 if how % 8 == 0 && world.nodes[node].watch.is_some() => {
                world.handle(node, Input::Lost(Error::AnswerTooLarge { bytes_max: 1 }));
            }
            _ => world.elapse(Duration::from_millis(1 << (how % 10))),
        }
    }
    world.heal();
    for key in (0..COUNTERS).filter(|_| !clears) {
        let key = term(key);
        let of = |count: fn(&Node) -> &BTreeMap<Vec<u8>, u64>| -> u64 {
            world.nodes.iter().filter_map(|node| count(node).get(&key)).sum()
        };
        let (done, unknown) = (of(|node| &node.done), of(|node| &node.unknown));
        let counted = number(world.nodes[0].table.get(&key).as_ref().map(OwnedValue::value));
        prop_assert!((done..=done + unknown).contains(&counted), "{done} done, {unknown} unknown, {counted}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn whatever_is_lost_late_or_forgotten_no_step_of_a_counter_is_lost_or_done_twice(
        steps in prop::collection::vec((0_u8..50, any::<u8>(), any::<u8>()), 1..200),
    ) {
        run(steps, false)?;
    }

    #[test]
    fn clears_come_in_their_order_too(
        steps in prop::collection::vec((0_u8..50, any::<u8>(), any::<u8>()), 1..120),
    ) {
        run(steps, true)?;
    }
}
