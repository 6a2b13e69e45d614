//! The tests of this program once more, over stores in a real etcd.
//!
//! A test here runs this very program again, with the address of an etcd in its environment: there [`cluster`] gives a store in that etcd,
//! below a prefix of its own, to each test that would have one in memory. The tests that cannot hold there are told in [`NOT_ON_ETCD`],
//! each with its reason. Every other one has to, and has to have had a store there.

use std::collections::BTreeSet;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use kvnode::distribution::DistributionFlags;
use kvnode::etcd::{Config, Etcd};
use kvnode::store::{Done, Engine, EtcdEngine, EtcdStore, Store, wait};

use crate::cluster::{Cluster, cluster_with};
use crate::support::EtcdCluster;
use crate::support::not_on_etcd::{IN_ETCD, NOT_ON_ETCD, PROGRAMS};

/// Has the etcd's address: the tests are to run over stores there.
const ETCD: &str = "KVNODE_CONVERSATION_ETCD";
/// What all prefixes begin with.
const PREFIX: &str = "conversation";
/// Where the list says what does not hold of this program.
const HERE: &str = "conversation";

/// A store in etcd, where the tests are to run so.
pub fn cluster() -> Option<Cluster> {
    static STORES: AtomicU64 = AtomicU64::new(0);
    let etcd = std::env::var(ETCD).ok()?;
    let thread = std::thread::current();
    let test = thread.name().expect("each test has a thread of its name").replace("::", ".");
    let prefix = format!("{PREFIX}/{test}/{}", STORES.fetch_add(1, Ordering::Relaxed));
    Some(open(etcd, &prefix).1)
}

/// A store below this prefix, and a node that serves it.
pub fn open(etcd: String, prefix: &str) -> (EtcdStore, Cluster) {
    let etcd = Etcd::connect(Config::new([etcd])).expect("an address");
    let engine = EtcdEngine::new(etcd, prefix);
    let store = engine.open(&["global:kv".to_owned()]).expect("etcd is there");
    let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
    let settled = store.clone();
    let settle = Box::new(move || {
        // The engine ends with the node that has this.
        let _ends_with_this = &engine;
        // Behind it the reads that waited for etcd's answer have it too.
        let has_caught_up = wait(|done: Done| settled.catch_up(done));
        assert_eq!(has_caught_up, Some(Ok(())));
        // The reads that waited for the last write are answered behind what was asked after that write: behind the first of these.
        for _ in 0..2 {
            let is_settled = wait(|done: Done| assert_eq!(settled.barrier(|| done), None));
            assert_eq!(is_settled, Some(Ok(())));
        }
    });
    (store, Cluster { settle: Some(settle), ..cluster })
}

/// The names of the tests of this program.
fn all() -> BTreeSet<String> {
    let listed = run(&["--list", "--format", "terse"], None);
    let names = listed.lines().filter_map(|line| line.strip_suffix(": test"));
    names.map(str::to_owned).collect()
}

/// What this program prints.
#[track_caller]
fn run(args: &[&str], etcd: Option<String>) -> String {
    let mut program = Command::new(std::env::current_exe().expect("it runs"));
    program.args(args).env_remove(ETCD);
    program.envs(etcd.map(|etcd| (ETCD, etcd)));
    let output = program.output().expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

#[test]
fn every_test_holds_for_a_store_in_etcd_but_for_those_that_are_named_with_their_reason() {
    let all = all();
    let not: BTreeSet<&str> =
        NOT_ON_ETCD.iter().filter(|not| not.program == HERE).map(|not| not.test).collect();
    for name in &not {
        let is_named = |test: &String| test == name || name.ends_with("::") && test.starts_with(name);
        assert!(all.iter().any(is_named), "{name}: there is no such test");
    }
    let is_left_out = |test: &str| {
        let modules = test.match_indices("::").map(|(at, found)| &test[..at + found.len()]);
        not.contains(test) || modules.into_iter().any(|module| not.contains(module))
    };
    let runs: Vec<&str> = all.iter().map(String::as_str).filter(|test| !is_left_out(test)).collect();
    let etcd = EtcdCluster::start_in_memory(1);
    // More than one thread: each test has one of its name.
    let args = [&["--exact", "--test-threads", "2"][..], &runs].concat();
    let told = run(&args, Some(etcd.endpoint(0)));
    assert!(told.contains(&format!("{} passed", runs.len())), "{told}");
    let keys = etcd.ctl(&["get", "--prefix", "--keys-only", PREFIX]);
    let had: BTreeSet<String> =
        keys.lines().filter_map(|key| key.split('/').nth(1)).map(|test| test.replace('.', "::")).collect();
    let without: Vec<&&str> = runs.iter().filter(|test| !had.contains(**test)).collect();
    assert!(without.is_empty(), "these had no store in etcd, and are to be named: {without:#?}");
}

/// The names of the tests in a file of `tests/`, and those of all its functions.
fn names_in(program: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let path = format!("{}/tests/{program}.rs", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (mut tests, mut functions, mut is_test) = (BTreeSet::new(), BTreeSet::new(), false);
    for line in text.lines() {
        if line == "#[test]" {
            is_test = true;
        } else if let Some(rest) = line.strip_prefix("fn ") {
            let name = rest.split(['(', '<']).next().unwrap_or_default().to_owned();
            if std::mem::take(&mut is_test) {
                tests.insert(name.clone());
            }
            functions.insert(name);
        }
    }
    (tests, functions)
}

#[test]
fn each_test_of_a_stores_requests_is_one_of_a_store_in_etcd_too_or_is_named() {
    let mut all = BTreeSet::new();
    for program in PROGRAMS {
        let (tests, functions) = names_in(program);
        let not: Vec<&str> =
            NOT_ON_ETCD.iter().filter(|not| not.program == *program).map(|not| not.test).collect();
        for name in &not {
            assert!(functions.contains(*name), "{program} has no {name}");
        }
        for test in &tests {
            let twin = IN_ETCD.iter().find(|(of, _)| of == test).map(|(_, twin)| *twin);
            let is_twin = IN_ETCD.iter().any(|(_, twin)| twin == test);
            let is_named = not.contains(&test.as_str());
            let once = [twin.is_some(), is_twin, is_named].into_iter().filter(|is| *is).count();
            assert_eq!(once, 1, "{program}: {test}: is it of a store in etcd, or why not?");
            assert!(twin.is_none_or(|twin| tests.contains(twin)), "{program} has no {twin:?}");
        }
        all.extend(tests);
    }
    let gone: Vec<_> =
        IN_ETCD.iter().filter(|(of, twin)| !all.contains(*of) || !all.contains(*twin)).collect();
    assert!(gone.is_empty(), "no tests: {gone:?}");
    for not in NOT_ON_ETCD {
        assert!(not.program == HERE || PROGRAMS.contains(&not.program), "{} has no such tests", not.program);
        assert!(!not.why.is_empty(), "{} has no reason", not.test);
    }
}
