//! Callers on several nodes, all at once on few keys: what they are answered is what one store would have answered that
//! carries out one call after another, each between its start and its end (tests/support/linear.rs judges that).
//!
//! `KVNODE_SEED` lets the clients choose again what they chose when a test printed that seed. What overlaps is up to the
//! machine.

#![cfg(feature = "program")]
#![expect(clippy::print_stdout, reason = "what was judged is shown when a test fails")]

#[path = "support/deferred.rs"]
mod deferred;
#[path = "support/linear.rs"]
mod linear;
mod support;

use deferred::{Deferred, Manner};
use kvnode::kv::{Downstreams, KeyValueServer};
use linear::{Act, Call, History};
use support::{BeamNode, Epmd, KvNode, Otp, Running};

/// Clients of each node, calls of each client, and keys that they share.
const CLIENTS: u64 = 6;
const CALLS: u64 = 400;
const KEYS: u64 = 4;

/// Lets clients on all nodes call `server`, and gives what they wrote down.
fn observe(beams: &[BeamNode], server: &str, more: &str) -> History {
    one_clock(beams);
    let seed: u64 = std::env::var("KVNODE_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| u64::from(std::process::id()));
    println!("KVNODE_SEED={seed}");
    let running: Vec<_> = (1..)
        .zip(beams)
        .map(|(number, beam)| {
            beam.spawn(&format!(
                "KvNodeTest.Linear.run({server}, clients: {CLIENTS}, calls: {CALLS}, keys: {KEYS}, \
                 seed: {seed} + {number}, base: {} {more})",
                number * 10_000_000
            ))
        })
        .collect();
    let (mut history, mut calls) = (History::new(), 0);
    for (beam, running) in beams.iter().zip(running) {
        for line in running.value().trim_matches('"').split_terminator(';') {
            calls += 1;
            for (key, call) in read(beam.name(), line) {
                history.entry(key).or_default().push(call);
            }
        }
    }
    assert_eq!(calls, beams.len() as u64 * CLIENTS * CALLS);
    history
}

/// `CLIENT KEY ACT VALUE START END`. A call of all keys is one of each of them, between the same times.
fn read(node: &str, line: &str) -> Vec<(u64, Call)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [client, key, act, value, start, end] = words[..] else { panic!("a line of six words: {line}") };
    let of_each = |act: &str, values: &[&str]| {
        assert_eq!(values.len() as u64, KEYS, "{line}");
        let keys = (1..=KEYS).zip(values);
        let line = |(key, value)| read(node, &format!("{client} {key} {act} {value} {start} {end}"));
        keys.flat_map(line).collect()
    };
    match (key, act) {
        ("0", "clear") => return of_each("delete", &["-"; KEYS as usize]),
        ("0", "all") => return of_each("get", &value.split(':').collect::<Vec<_>>()),
        _ => {}
    }
    let number = |word: &str| word.parse::<u64>().expect("a number");
    let optional = |word: &str| (word != "-").then(|| number(word));
    let mut end = optional(end);
    let act = match act {
        "put" => Act::Put(number(value)),
        "delete" => Act::Delete,
        "get" => Act::Get(optional(value)),
        "swap" => {
            let (saw, puts) = value.split_once(':').expect("what was seen, and what came in its place");
            Act::Swap { saw: optional(saw), puts: optional(puts) }
        }
        // An answer that says nothing.
        "unknown" => {
            end = None;
            Act::Get(None)
        }
        other => panic!("an act: {other}"),
    };
    let caller = format!("{client} on {node}");
    vec![(number(key), Call { caller, act, start: number(start), end })]
}

/// What one node calls now lies between two instants of another's clock, for each pair.
fn one_clock(beams: &[BeamNode]) {
    let now = |beam: &BeamNode| beam.run("KvNodeTest.Linear.now()").parse::<u64>().expect("a number");
    for pair in beams.windows(2) {
        let times = [now(&pair[0]), now(&pair[1]), now(&pair[0])];
        assert!(
            times.is_sorted(),
            "{} and {} have clocks of their own: {times:?}",
            pair[0].name(),
            pair[1].name()
        );
    }
}

#[track_caller]
fn assert_linearizable(history: &History) {
    match linear::check(history) {
        Ok(calls) => println!("{calls} calls are linearizable"),
        Err((key, violation)) => panic!("key {key}: {violation}"),
    }
}

fn count(history: &History, what: impl Fn(&Call) -> bool) -> usize {
    history.values().flatten().filter(|call| what(call)).count()
}

/// Clears are there, and reads of all keys too.
#[track_caller]
fn assert_cleared(history: &History) {
    let first = history.get(&1).expect("it is called");
    let is_of_all = |call: &&Call| {
        history.values().all(|calls| {
            calls.iter().any(|other| {
                other.caller == call.caller && (other.start, other.end) == (call.start, call.end)
            })
        })
    };
    let of_all: Vec<&Call> = first.iter().filter(is_of_all).collect();
    let clears = of_all.iter().filter(|call| call.act == Act::Delete).count();
    println!("{clears} clears, and {} reads of all keys", of_all.len() - clears);
    assert!(clears > 30 && of_all.len() - clears > 30);
}

/// The most calls of one key that are under way at one time: without any there would be nothing to judge.
fn most_at_once(history: &History) -> usize {
    let of_one = |calls: &Vec<Call>| {
        let mut events: Vec<(u64, i32)> = Vec::new();
        for call in calls {
            events.extend(call.end.map(|end| [(call.start, 1), (end, -1)]).into_iter().flatten());
        }
        events.sort_unstable();
        let sums = events.iter().scan(0, |open, (_, change)| {
            *open += change;
            Some(*open)
        });
        sums.max().unwrap_or(0)
    };
    history.values().map(of_one).max().unwrap_or(0) as usize
}

/// One node of each OTP version, connected to `kv`.
fn callers_of_every_version(epmd: &Epmd, kv: &str) -> Vec<BeamNode> {
    let start = |otp: Otp| {
        let beam = BeamNode::start(&otp, epmd, format!("otp{}", otp.release).as_str());
        beam.ping(kv);
        beam.wait_for_global("kv");
        beam
    };
    let mut beams: Vec<BeamNode> = Otp::all().into_iter().map(start).collect();
    if beams.len() < 2 {
        let another = BeamNode::start(&Otp::newest(), epmd, "another");
        another.ping(kv);
        another.wait_for_global("kv");
        beams.push(another);
    }
    beams
}

/// A node of this process whose store, `{:global, :kv}`, answers later and in any order.
fn node_that_answers_later(epmd: &Epmd) -> Running {
    let node = Running::start(epmd, "kv");
    let manner = Manner { has_thread: true, ..Manner::wild(u64::from(std::process::id())) };
    let server = KeyValueServer::new(Deferred::new(manner), node.dispatch(), Downstreams::on(&node), 1 << 20);
    let store = node.serve_inline(server.shared());
    assert!(store.register_global("kv").is_ok(), "the name is free");
    node
}

#[test]
fn callers_on_nodes_of_all_versions_see_one_store() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let beams = callers_of_every_version(&epmd, kv.name());
    let history = observe(&beams, "{:global, :kv}", ", clears: 40");
    assert_eq!(count(&history, |call| call.end.is_none()), 0, "every call was answered");
    assert_cleared(&history);
    assert!(most_at_once(&history) > 2, "the calls do not overlap");
    assert_linearizable(&history);
}

#[test]
fn callers_of_a_store_that_answers_later_and_in_any_order_see_one_store() {
    let epmd = Epmd::start();
    let node = node_that_answers_later(&epmd);
    let beams = callers_of_every_version(&epmd, node.name().as_str());
    let history = observe(&beams, "{:global, :kv}", ", clears: 40");
    assert_eq!(count(&history, |call| call.end.is_none()), 0, "every call was answered");
    assert_cleared(&history);
    assert!(most_at_once(&history) > 2, "the calls do not overlap");
    assert_linearizable(&history);
}

/// Of each way to change a key by what it has, so that many of them meet.
fn assert_conditional(beams: &[BeamNode]) {
    let history = observe(beams, "{:global, :kv}", ", conditional: true, clears: 60");
    assert_cleared(&history);
    let swaps = count(&history, |call| matches!(call.act, Act::Swap { .. }));
    println!("{swaps} calls have put something in the place of what they have seen");
    assert!(swaps > 300, "{swaps} of them have");
    assert!(most_at_once(&history) > 2, "the calls do not overlap");
    assert_linearizable(&history);
}

#[test]
fn comparisons_sums_and_transactions_of_callers_on_nodes_of_all_versions_see_one_store() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    assert_conditional(&callers_of_every_version(&epmd, kv.name()));
}

#[test]
fn comparisons_sums_and_transactions_of_callers_see_one_store_on_disk() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().expect("a folder");
    let kv = KvNode::start(&epmd, "kv", &format!("--data-dir {}", dir.path().display()));
    assert_conditional(&callers_of_every_version(&epmd, kv.name()));
}

#[test]
fn comparisons_sums_and_transactions_see_one_store_that_answers_later() {
    let epmd = Epmd::start();
    let node = node_that_answers_later(&epmd);
    assert_conditional(&callers_of_every_version(&epmd, node.name().as_str()));
}

#[test]
fn callers_whose_connection_is_cut_again_and_again_see_one_store() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let beams = callers_of_every_version(&epmd, kv.name());
    let history =
        observe(&beams, "{:global, :kv}", &format!(", clears: 60, cut: {{:\"{}\", 300}}", kv.name()));
    let unanswered = count(&history, |call| call.end.is_none());
    println!("{unanswered} calls were not answered");
    assert!(unanswered >= beams.len(), "no call was cut");
    assert!(most_at_once(&history) > 2, "the calls do not overlap");
    assert_linearizable(&history);
    // The puts among them that were carried out nevertheless are what makes this worth judging.
    let read: std::collections::HashSet<u64> = history
        .values()
        .flatten()
        .filter_map(|call| if let Act::Get(value) = call.act { value } else { None })
        .collect();
    let seen = count(&history, |call| {
        call.end.is_none() && matches!(call.act, Act::Put(value) if read.contains(&value))
    });
    println!("{seen} of them are puts that were read");
}

/// What is found of a server with this fault, by callers on two nodes.
fn observe_faulty(fault: &str) -> History {
    let epmd = Epmd::start();
    let otp = Otp::newest();
    let beams = ["one", "two"].map(|name| BeamNode::start(&otp, &epmd, name));
    beams[1].ping(beams[0].name());
    beams[0].run(&format!(
        "{{:ok, store}} = FaultyKeyValueStore.start_link(:faulty, :{fault}); Process.unlink(store)"
    ));
    beams[1].wait_for_global("faulty");
    observe(&beams, "{:global, :faulty}", ", clears: 40")
}

#[test]
fn a_store_that_answers_a_read_with_what_was_before_is_caught() {
    assert!(linear::check(&observe_faulty("stale_read")).is_err());
}

#[test]
fn a_store_that_loses_a_write_is_caught() {
    assert!(linear::check(&observe_faulty("lost_write")).is_err());
}

#[test]
fn a_store_that_clears_all_keys_but_one_is_caught() {
    assert!(linear::check(&observe_faulty("half_clear")).is_err());
}

#[test]
fn the_same_store_without_its_fault_is_not_suspected() {
    assert_linearizable(&observe_faulty("none"));
}
