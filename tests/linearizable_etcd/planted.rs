//! Rules of the engine, broken one by one: each is noticed within a bounded number of rounds.

use kvnode::store::etcd::planted::{Rule, plant};

use super::native::{Fault, World};

/// Rounds within which each is noticed.
const ROUNDS: usize = 24;

/// What is done to have it show.
fn faults(rule: Rule) -> &'static [Fault] {
    match rule {
        Rule::CatchUp | Rule::AnswerBehindCommit => &[Fault::Nothing],
        Rule::OnceOrNever | Rule::OneOrder => &[Fault::Cut],
    }
}

#[test]
fn each_broken_rule_is_noticed() {
    let mut missed = Vec::new();
    for rule in Rule::ALL {
        plant(Some(*rule));
        let mut world = World::start();
        plant(None);
        let mut faults = faults(*rule).iter().cycle().take(ROUNDS);
        let noticed = faults.find_map(|fault| world.judged(*fault).err());
        match noticed {
            Some(violation) => println!("{rule:?}: {violation}"),
            None => missed.push(rule),
        }
        world.end();
    }
    assert!(missed.is_empty(), "not noticed in {ROUNDS} rounds: {missed:?}");
}
