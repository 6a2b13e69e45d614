//! Figures of a store in one etcd, printed.

use std::time::{Duration, Instant};

use super::support::wait_until;
use super::*;

const TIME: Duration = Duration::from_secs(2);

/// Puts for a while, each caller waiting for its answers; gives puts a second.
fn puts(store: &EtcdStore, callers: u64) -> f64 {
    let begun = Instant::now();
    let bytes = binary(&[7; 100]);
    let mut answers: Vec<Answer> = Vec::new();
    let mut done = 0_u64;
    // One thread asks for all: each answer is followed by the next put.
    for caller in 0..callers {
        answers.push(asked(|done| _ = store.put(&term(caller), value(&bytes), || done)));
    }
    while begun.elapsed() < TIME {
        for (caller, answer) in answers.iter_mut().enumerate() {
            answer.recv().unwrap().unwrap();
            done += 1;
            let key = term(caller as u64 + done * 7 % 100_000);
            *answer = asked(|done| _ = store.put(&key, value(&bytes), || done));
        }
    }
    let rate = done as f64 / begun.elapsed().as_secs_f64();
    assert!(answers.into_iter().all(|answer| answer.recv().unwrap().is_ok()));
    rate
}

#[test]
#[ignore = "prints figures, for half a minute"]
fn figures_of_one_member() {
    let cluster = EtcdCluster::start(1);
    let first = engine(&cluster);
    let store = first.open(&names("a")).unwrap();
    for callers in [1, 16, 128, 1000] {
        println!("{callers} callers: {:.0} puts/s", puts(&store, callers));
    }
    let begun = Instant::now();
    let gets = 1_000_000_u64;
    let found = (0..gets).filter(|at| get(&store, &term(at % 1000)).is_some()).count();
    println!("{:.0} gets/s of one thread, {found} found", gets as f64 / begun.elapsed().as_secs_f64());
    let entries = 200_000_u64;
    let bytes = binary(&[7; 100]);
    let answers: Vec<Answer> = (0..entries)
        .map(|key| asked(|done| _ = store.put(&binary(&key.to_be_bytes()), value(&bytes), || done)))
        .collect();
    assert!(answers.into_iter().all(|answer| answer.recv().unwrap().is_ok()));
    println!("{entries} entries written in {:?}", begun.elapsed());
    let second = engine(&cluster);
    let begun = Instant::now();
    let there = second.open(&names("a")).unwrap();
    println!("{} entries loaded in {:?}", there.len(), begun.elapsed());
    wait_until("both have all", || there.len() == store.len());
    first.close();
    second.close();
}
