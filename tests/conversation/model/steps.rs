//! The steps of the model's tests, made at random.

use proptest::prelude::*;

use super::{Guard, Guess, KEYS, Made, Step};

fn integers() -> impl Strategy<Value = i128> {
    let near = [0, 255, 1 << 31, i128::from(i64::MAX), i128::from(i64::MIN), 1 << 90];
    (prop::sample::select(near.to_vec()), -3..3_i128).prop_map(|(near, more)| near + more)
}

fn values() -> impl Strategy<Value = String> {
    let large = format!("\"{}\"", "large".repeat(20_000));
    let others = vec!["nil".to_owned(), ":a".into(), "%{a: nil}".into(), "[1, 2.5]".into(), large];
    prop_oneof![integers().prop_map(|integer| integer.to_string()), prop::sample::select(others)]
}

fn guesses() -> impl Strategy<Value = Guess> {
    prop_oneof![
        values().prop_map(Guess::Value),
        Just(Guess::Same),
        (-2..=2_i64).prop_map(Guess::Revision),
        Just(Guess::Revision(0)),
        Just(Guess::Absent),
    ]
}

fn transactions() -> impl Strategy<Value = Step> {
    let guard = prop_oneof![
        1 => Just(Guard::Present),
        2 => Just(Guard::Has(Guess::Same)),
        2 => guesses().prop_map(Guard::Has),
    ];
    let made = prop_oneof![
        values().prop_map(Made::Put),
        integers().prop_map(|integer| Made::Put(integer.to_string())),
        Just(Made::Delete),
        integers().prop_map(Made::Add),
    ];
    let guards = prop::collection::vec((0..KEYS, guard), 0..3);
    (guards, prop::collection::vec((0..KEYS, made), 0..6))
        .prop_map(|(guards, changes)| Step::Transact(guards, changes))
}

pub(super) fn steps(reopens: bool) -> impl Strategy<Value = Vec<Step>> {
    let keys = || prop::collection::vec(0..KEYS, 0..6);
    let reads = prop_oneof![
        (0..KEYS).prop_map(Step::Get),
        (0..KEYS).prop_map(Step::Fetch),
        (0..KEYS).prop_map(Step::FetchRevision),
        (0..KEYS).prop_map(Step::Member),
        (0..KEYS).prop_map(Step::Ttl),
        Just(Step::Count),
        keys().prop_map(Step::GetMany),
        (1..4_u8, any::<bool>()).prop_map(|(limit, keys_only)| Step::Page(limit, keys_only)),
        (1..4_u8, any::<bool>()).prop_map(|(limit, keys_only)| Step::Page(limit, keys_only)),
    ];
    let ttls = || prop_oneof![1..5_u64, 1..200_u64, 1..100_000_u64];
    let ends = prop_oneof![
        (0..KEYS, values()).prop_map(|(at, value)| Step::Put(at, value)),
        (0..KEYS, values()).prop_map(|(at, value)| Step::PutNew(at, value)),
        (0..KEYS, values()).prop_map(|(at, value)| Step::Replace(at, value)),
        (0..KEYS, values()).prop_map(|(at, value)| Step::GetAndPut(at, value)),
        (0..KEYS, integers(), prop::option::of(integers()))
            .prop_map(|(at, by, initial)| Step::Add(at, by, initial)),
        (0..KEYS, guesses(), values()).prop_map(|(at, guess, value)| Step::Compare(at, guess, Some(value))),
        prop::collection::vec((0..KEYS, values()), 0..6).prop_map(Step::PutList),
        transactions(),
    ];
    let of_time = prop_oneof![
        3 => (ttls(), ends).prop_map(|(ttl, step)| Step::For(ttl, Box::new(step))),
        1 => (0..KEYS, prop::option::of(ttls())).prop_map(|(at, ttl)| Step::Touch(at, ttl)),
        2 => ttls().prop_map(Step::Pass),
        1 => Just(Step::Sweep),
    ];
    let of_one = prop_oneof![
        (0..KEYS, values()).prop_map(|(at, value)| Step::Put(at, value)),
        (0..KEYS).prop_map(Step::Delete),
        (0..KEYS, values()).prop_map(|(at, value)| Step::PutNew(at, value)),
        (0..KEYS, values()).prop_map(|(at, value)| Step::Replace(at, value)),
        (0..KEYS).prop_map(Step::Pop),
        (0..KEYS, values()).prop_map(|(at, value)| Step::GetAndPut(at, value)),
        (0..KEYS, integers(), prop::option::of(integers()))
            .prop_map(|(at, by, initial)| Step::Add(at, by, initial)),
        (0..KEYS, guesses(), prop::option::of(values()))
            .prop_map(|(at, guess, then)| Step::Compare(at, guess, then)),
        (0..KEYS, guesses(), prop::option::of(values()))
            .prop_map(|(at, guess, then)| Step::Compare(at, guess, then)),
    ];
    let of_several = prop_oneof![
        prop::collection::vec((0..KEYS, values()), 0..6).prop_map(Step::PutList),
        prop::collection::btree_map(0..KEYS, values(), 0..6).prop_map(Step::PutMap),
        keys().prop_map(Step::DeleteMany),
        Just(Step::Clear),
        transactions(),
        transactions(),
    ];
    let others = if reopens { Just(Step::Reopen).boxed() } else { Just(Step::Count).boxed() };
    prop::collection::vec(
        prop_oneof![4 => reads, 4 => of_one, 3 => of_several, 4 => of_time, 1 => others],
        1..40,
    )
}
