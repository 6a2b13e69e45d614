//! A succession alone, told what happens; [`world`] has several, with stores.

mod checks;
mod etcd;
mod faults;
mod node;
mod shell;
mod wires;
mod world;

use super::*;
use world::{Counts, run};

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_nothing_confirmed_is_lost_and_one_is_the_primary_in_the_end() {
    let first = from_environment("KVNODE_SIMULATION_FIRST", 0);
    let seeds = from_environment("KVNODE_SIMULATION_SEEDS", 1_000);
    let mut all = Counts::default();
    let mut bad = 0;
    for seed in first..first + seeds {
        match run(seed) {
            Ok(counts) => all.add(counts),
            Err(wrong) => {
                bad += 1;
                let (first, rest) = wrong.split_once('\n').unwrap();
                println!("seed {seed}: {first}");
                if bad == 1 {
                    println!("{rest}");
                }
            }
        }
    }
    assert_eq!(bad, 0);
    println!("{seeds} seeds from {first}: {all:?}");
}

#[test]
fn each_rule_that_is_broken_is_noticed() {
    let seeds = from_environment("KVNODE_SIMULATION_SEEDS", 3_000);
    let mut unnoticed = Vec::new();
    for rule in planted::Rule::ALL
        .into_iter()
        .filter(|rule| std::env::var("KVNODE_RULE").map_or(true, |name| format!("{rule:?}").contains(&name)))
    {
        planted::plant(Some(rule));
        let noticed = (0..seeds).find_map(|seed| {
            Some((seed, std::panic::catch_unwind(|| run(seed)).unwrap_or(Err("panic".into())).err()?))
        });
        planted::plant(None);
        match noticed {
            Some((seed, wrong)) => {
                println!("{rule:?}: seed {seed}: {:.150}", wrong.lines().next().unwrap_or_default())
            }
            None => unnoticed.push(rule),
        }
    }
    assert_eq!(unnoticed, []);
}
