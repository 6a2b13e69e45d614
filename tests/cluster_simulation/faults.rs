//! Rules of replication, broken one by one: each is noticed within a bounded number of seeds.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use kvnode::replica::planted::{Rule, plant};

use super::world::Counts;
use super::{from_environment, run};

/// Seeds within which each is noticed.
const SEEDS: u64 = 500;

thread_local! {
    /// What a panic has said last; `None`: those of this thread are printed as ever.
    static SAID: Cell<Option<String>> = const { Cell::new(None) };
    static IS_QUIET: Cell<bool> = const { Cell::new(false) };
}

/// The first seed at which a broken rule is noticed, and how.
fn caught(rule: Rule, seeds: u64, start: Instant) -> Option<(u64, String)> {
    IS_QUIET.set(true);
    plant(Some(rule));
    let first = from_environment("KVNODE_SIMULATION_FIRST", 0);
    let caught = (first..first + seeds).find_map(|seed| {
        let run = || _ = run(seed, start, &mut Counts::default());
        catch_unwind(AssertUnwindSafe(run)).err().map(|_| (seed, SAID.take().unwrap_or_default()))
    });
    plant(None);
    IS_QUIET.set(false);
    caught
}

/// `KVNODE_SIMULATION_RULE`: that one alone. `KVNODE_SIMULATION_SEEDS`: within so many seeds, from `KVNODE_SIMULATION_FIRST` on.
#[test]
fn each_broken_rule_is_noticed() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| match IS_QUIET.get() {
        true => SAID.set(Some(info.to_string())),
        false => before(info),
    }));
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with; the clock is virtual")]
    let start = Instant::now();
    let seeds = from_environment("KVNODE_SIMULATION_SEEDS", SEEDS);
    let one = std::env::var("KVNODE_SIMULATION_RULE").ok();
    let is_asked = |rule: &&Rule| one.as_ref().is_none_or(|one| *one == format!("{rule:?}"));
    let rules: Vec<Rule> = Rule::ALL.iter().filter(is_asked).copied().collect();
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&rule) = rules.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let caught = caught(rule, seeds, start);
                    found.lock().expect("nobody fails here").push((rule, caught));
                }
            });
        }
    });
    let found = found.into_inner().expect("nobody fails here");
    let mut missed = Vec::new();
    for rule in &rules {
        let (_, caught) = found.iter().find(|(known, _)| known == rule).expect("each was tried");
        match caught {
            Some((seed, said)) => {
                let said: String = said.lines().nth(1).unwrap_or(said).chars().take(100).collect();
                println!("{:<22} seed {seed:>4}  {said}", format!("{rule:?}"));
            }
            None => {
                println!("{:<22} not noticed in {seeds} seeds", format!("{rule:?}"));
                missed.push(rule);
            }
        }
    }
    assert!(missed.is_empty(), "not noticed: {missed:?}");
}
