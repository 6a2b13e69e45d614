//! What a store is asked through its process, and what each engine has to hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kvnode::distribution::{DistributionFlags, Outbound};
use kvnode::etf::{Pid, TermView, encode};
use kvnode::kv::{Follow, FollowSlave, KeyValueServer, Polled, SlaveEntry};
use kvnode::process::{Dispatch, Effect, FedNode, Feeding, GenServer, More};
use kvnode::replica::downstream::{Answer, Chance, Input, KeysRead, Output, Search, Whereabouts};
use kvnode::replica::{Acknowledge, SlaveName, SlaveState, Standing};
use kvnode::store::MemoryStore;

use crate::cluster::{
    Cluster, Sent, answer, cluster, cluster_of, cluster_on, cluster_with, now, on_each_engine,
};
use crate::conversation::{caller, frames_of, gen_call, monitor, payload_of, reference, send, to_caller};
use crate::deferred::{Deferred, Manner};
use crate::late::{Late, Waiting};
use crate::term::{PEER, Term, term, term_with};

#[test]
fn a_put_a_get_and_a_delete_are_answered_to_the_callers_pid() {
    on_each_engine(|mut cluster| {
        cluster.put(":nombre", "\"Mafalda\"");
        assert_eq!(cluster.call("{:get, :nombre}"), [answer("\"Mafalda\"")]);
        assert_eq!(cluster.call("{:delete, :nombre}"), [answer(":ok")]);
        assert_eq!(cluster.call("{:get, :nombre}"), [answer(":nil")]);
        assert!(cluster.later.is_empty());
    });
}

/// Calls with numbers as tags, keys and values; `None`: a get, `Some(0)`: a delete.
fn say_calls(cluster: &mut Cluster, calls: &[(u64, Option<u64>)]) {
    for (number, (key, value)) in (1..).zip(calls) {
        let request = match value {
            None => format!("{{:get, {key}}}"),
            Some(0) => format!("{{:delete, {key}}}"),
            Some(value) => format!("{{:put, {key}, {value}}}"),
        };
        // What a get is answered at once waits with the others.
        let mut out = cluster.out();
        let call = send("kv", gen_call(reference(number), request));
        cluster.handle(&call, &mut out).expect("a good frame");
        cluster.sent.0.lock().push((PEER.into(), out));
    }
}

/// Says calls, and gives the answers, all of which come after the last call was said.
fn answers_to(cluster: &mut Cluster, calls: &[(u64, Option<u64>)]) -> Vec<String> {
    say_calls(cluster, calls);
    let mut answers = vec![String::new(); calls.len()];
    for frame in cluster.answered_later() {
        let answer = TermView::parse(payload_of(&frame)).expect("a term");
        let [tag, reply] = answer.as_tuple::<2>().expect("an answer");
        let number = tag.as_reference().expect("our own tag").words()[0];
        let place = &mut answers[number as usize - 1];
        assert!(place.is_empty(), "answered twice");
        *place = format!("{reply:?}");
    }
    answers
}

/// Numbers of a seed.
pub fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    move |bound| {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }
}

/// What a store has in the end, by what it has answered. Of each key one call comes after the other.
fn judge(calls: &[(u64, Option<u64>)], answers: &[String]) -> BTreeMap<u64, u64> {
    let mut data = BTreeMap::new();
    for (at, ((key, value), answer)) in calls.iter().zip(answers).enumerate() {
        if answer.starts_with("{:error, ") {
            continue;
        }
        let expected = match value {
            None => data.get(key).map_or("nil".to_owned(), u64::to_string),
            Some(_) => ":ok".to_owned(),
        };
        assert_eq!(
            answer.trim_start_matches(':'),
            expected.trim_start_matches(':'),
            "call {at} of {calls:?}: {answers:?}"
        );
        match value {
            None => {}
            Some(0) => _ = data.remove(key),
            Some(value) => _ = data.insert(*key, *value),
        }
    }
    data
}

/// What a slave is told to write: a key, and its value unless that is deleted.
pub fn write_of(cast: &[u8]) -> (u64, Option<u64>) {
    let number = |term: TermView<'_>| term.as_unsigned().expect("a number");
    let [_, write] = TermView::parse(cast).expect("a term").as_tuple::<2>().expect("a cast");
    match write.as_tuple::<3>() {
        Some([_, key, value]) => (number(key), Some(number(value))),
        None => {
            let [_, key] = write.as_tuple::<2>().expect("a deletion");
            (number(key), None)
        }
    }
}

#[test]
fn whatever_order_a_store_answers_in_each_call_is_answered_once_and_those_of_a_key_in_order() {
    let mut failed = 0;
    for seed in 0..300 {
        let mut below = numbers(seed);
        let fails_one_in = if seed % 3 == 0 { 10 } else { 0 };
        let manner = Manner { fails_one_in, fails_to_read: true, ..Manner::wild(seed) };
        let mut cluster = cluster_on(Deferred::new(manner));
        let calls: Vec<_> = (0..60)
            .map(|at| (below(6), if below(3) == 0 { None } else { Some(below(5) * (at + 1)) }))
            .collect();
        let answers = answers_to(&mut cluster, &calls);
        judge(&calls, &answers);
        failed += answers.iter().filter(|answer| answer.starts_with("{:error, ")).count();
    }
    assert!(failed > 100, "{failed} calls have failed");
}

#[test]
fn a_slave_gets_writes_in_the_order_of_their_numbers_whatever_order_they_are_done_in() {
    for seed in 0..300 {
        let mut below = numbers(seed);
        let manner = Manner { fails_one_in: if seed % 3 == 0 { 10 } else { 0 }, ..Manner::wild(seed) };
        let store = Deferred::new(manner);
        let mut cluster = cluster_on(store.clone());
        cluster.call("{:add_slave, {:global, :s}}");
        let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
        let slave = Arc::clone(&follow.slave);
        // Its keys are not read, so that nothing is repaired.
        find(&follow, &caller());
        let calls: Vec<_> = (0..60).map(|at| (below(6), Some(below(5) * (at + 1)))).collect();
        let answers = answers_to(&mut cluster, &calls);
        let data = judge(&calls, &answers);
        let mut slaves_data = BTreeMap::new();
        // In a session of its own the slave is sent what is written from now on, in one order.
        let mut sent = 0;
        slave.machine().take(
            PEER,
            now(),
            |_| true,
            |_, message| {
                sent += 1;
                match write_of(message) {
                    (key, Some(value)) => _ = slaves_data.insert(key, value),
                    (key, None) => _ = slaves_data.remove(&key),
                }
                true
            },
        );
        assert_eq!(slaves_data, data, "{calls:?}: {answers:?}");
        let written = answers.iter().filter(|answer| answer.ends_with(":ok")).count();
        assert_eq!(sent, written, "each write once");
    }
}

#[test]
fn a_store_is_not_its_own_slave() {
    let mut cluster = cluster();
    let own = cluster.store.pid.clone();
    let names: [&dyn Term; 3] = [&":kv", &own, &"{:kv, :k@h}"];
    for name in names {
        let answers = cluster.call(term_with("{:add_slave, $1}", &[name]));
        assert_eq!(answers, [answer("{:error, :itself}")]);
    }
    assert!(cluster.later.is_empty());
}

#[test]
fn a_slave_is_added_once_and_each_write_waits_for_it_in_order() {
    let mut cluster = cluster();
    let add = "{:add_slave, {:global, :s}}";
    // Answered when it is known whether it can be one; the second time it is one.
    assert!(cluster.call(add).is_empty());
    assert_eq!(cluster.call(add), [answer(":ok")]);
    let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
    assert!(follow.added.is_some() && follow.store == cluster.store.pid && cluster.later.is_empty());
    let slave = Arc::clone(&follow.slave);
    assert_eq!(*slave.name(), SlaveName::global("s"));
    assert_eq!(slave.state(), SlaveState::Seeking);
    cluster.put(":late", "\"0\"");
    find(&follow, &caller());
    cluster.put(":a", "\"1\"");
    cluster.put(":b", "\"2\"");
    let [Effect::Feed(node, feed)] = cluster.later.as_slice() else { panic!("{:?}", cluster.later) };
    let feed_into = |name: &Arc<str>, frames_bytes_max: usize| {
        let mut out = Outbound::default();
        let fed = FedNode { name, flags: DistributionFlags::OFFERED, frames_bytes_max, now: now() };
        let more = feed.feed(&mut Feeding::new(fed, &mut out, &cluster.registry, &cluster.waiters));
        (frames_of(&out), more)
    };
    assert_eq!(feed_into(&"elsewhere@h".into(), 1_000), (Vec::new(), More::No), "it is not there");
    let replicated =
        |key: &str, value: &str| to_caller(format!("{{:\"$gen_cast\", {{:replicate_put, {key}, {value}}}}}"));
    // One always fits, and what the slave has is asked right behind it.
    let (frames, more) = feed_into(node, 1);
    let [first, asks] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((first, more), (&replicated(":a", "\"1\""), More::WhenRoom));
    assert!(asks.windows(9).any(|part| part == b"$gen_call"), "{asks:?}");
    assert_eq!(feed_into(node, 1_000), (vec![replicated(":b", "\"2\"")], More::No));
    assert_eq!(cluster.waiters.len(), 1);
    slave.end_question();
    assert!(cluster.waiters.is_empty(), "what is not answered any more is not waited for");
}

#[test]
fn what_names_no_process_is_no_slave() {
    let mut cluster = cluster();
    cluster.say(&monitor(":kv", 1));
    let answers = cluster.call("{:add_slave, \"slave1\"}");
    assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
    assert!(cluster.later.is_empty());
}

#[test]
fn a_value_with_a_key_twice_is_refused_and_changes_nothing() {
    on_each_engine(|mut cluster| {
        cluster.say(&monitor(":kv", 1));
        // %{1 => [], 1 => []}
        let twice = encode(|w| _ = w.map(2).integer(1).nil().integer(1).nil());
        let answers = cluster.call(term_with("{:put, :k, $1}", &[&twice]));
        assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
        assert_eq!(cluster.call("{:get, :k}"), [answer(":nil")]);
    });
}

/// Has a slave found, an Elixir server at this process; gives the question about its keys.
pub fn find(follow: &FollowSlave, at: &Pid) -> Option<u64> {
    follow.slave.tell(Input::Begin(Search {
        pause_first: Duration::ZERO,
        pause_max: Duration::ZERO,
        is_awaited: false,
        chance: Chance(Box::new(|_| 0)),
    }));
    follow.slave.tell(Input::Timeout);
    carry_out(follow, at)
}

/// Does what a slave's machine wants, with an Elixir server as the slave; gives the question about its keys, if that comes.
fn carry_out(FollowSlave { slave, source, .. }: &FollowSlave, at: &Pid) -> Option<u64> {
    let mut keys = None;
    while let Polled::Output(output) = slave.poll() {
        match output {
            Output::Locate { question } => {
                slave.tell(Input::Located { question, found: Ok(Whereabouts::At(at.clone())) });
            }
            Output::Watch { question, .. } => slave.tell(Input::Watched { question, watched: Ok(()) }),
            Output::AskDialect { question, .. } => {
                slave.answered(question, Answer::Dialect(Ok(false)), source)
            }
            Output::AskKind { question, .. } => slave.answered(question, Answer::Kind(Ok(None)), source),
            Output::ReadKeys { question, .. } => keys = Some(question),
            Output::ReadPart { scan, part, since } => {
                let read = SlaveEntry::read_part(part, since, &**source);
                slave.tell(Input::PartRead { scan, part, read });
            }
            Output::Repair => slave.repair(&**source),
            _ => {}
        }
    }
    keys
}

#[test]
fn a_copy_of_a_store_that_answers_later_brings_all_of_it_and_no_value_goes_back() {
    for seed in 0..300 {
        let mut below = numbers(seed);
        let store = Deferred::new(Manner { late_scans: true, ..Manner::wild(seed) });
        let sent = Arc::new(Sent::default());
        let (dispatch, follow) =
            (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
        let server = KeyValueServer::new(store.clone(), dispatch, follow, 1 << 20).shared();
        let mut cluster =
            cluster_of(Arc::clone(&server) as Arc<dyn GenServer>, sent, DistributionFlags::OFFERED);
        let mut written = 0;
        let write = |cluster: &mut Cluster, below: &mut dyn FnMut(u64) -> u64, written: &mut u64| {
            *written += 1;
            let value = if below(4) == 0 { 0 } else { *written };
            say_calls(cluster, &[(below(12), Some(value))]);
        };
        (0..30).for_each(|_| write(&mut cluster, &mut below, &mut written));
        (0..below(40)).for_each(|_| _ = store.step());
        let slave = server.add_slave(SlaveName::global("s")).expect("room").expect("a new one");
        server.follow_slave(Arc::clone(&slave), &cluster.store.pid, None);
        let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
        let question = find(&follow, &caller()).expect("its keys are to be read");
        slave.tell(Input::KeysRead { question, read: KeysRead::default() });
        let (mut data, mut seen) = (BTreeMap::new(), BTreeMap::new());
        let now = now();
        let mut writes_left = 40;
        for round in 0.. {
            assert!(round < 10_000, "the copy does not end: {slave:?}");
            match below(4) {
                0 if writes_left > 0 => {
                    writes_left -= 1;
                    write(&mut cluster, &mut below, &mut written);
                }
                1 => _ = store.step(),
                _ => {
                    slave.tell(Input::Timeout);
                    carry_out(&follow, &caller());
                }
            }
            let taken = slave.machine().take(
                PEER,
                now,
                |_| true,
                |_, message| {
                    match write_of(message) {
                        (key, Some(value)) => {
                            let before = seen.insert(key, value).unwrap_or(0);
                            assert!(
                                before <= value,
                                "seed {seed}: key {key} went back from {before} to {value}"
                            );
                            data.insert(key, value);
                        }
                        (key, None) => _ = data.remove(&key),
                    }
                    true
                },
            );
            if let Acknowledge::Now(mark) = taken.acknowledge {
                slave.tell(Input::Acknowledged { mark, kept: Ok(()) });
            }
            let is_in_step = matches!(slave.standing(), Standing::InStep { .. });
            if is_in_step && writes_left == 0 && store.waiting() == 0 {
                break;
            }
        }
        let term = |bytes: &[u8]| TermView::parse(bytes).expect("a term").as_unsigned().expect("a number");
        let held: BTreeMap<u64, u64> =
            store.at_rest().iter().map(|(key, held)| (term(key), term(&held.bytes))).collect();
        assert_eq!(data, held, "seed {seed}");
    }
}

#[test]
fn a_value_that_no_release_reads_any_more_is_refused() {
    let mut cluster = cluster();
    cluster.say(&monitor(":kv", 1));
    // FUN_EXT: no free variables, pid, module, index, uniq.
    let fun = [&[117, 0, 0, 0, 0], &term("#PID<0.90.1>")[..], &term(":m"), &term("0"), &term("0")].concat();
    let answers = cluster.call(term_with("{:put, :k, $1}", &[&fun]));
    assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
}

#[test]
fn a_value_that_the_callers_release_cannot_decode_ends_the_call_instead_of_the_connection() {
    let old = DistributionFlags::OFFERED.difference(DistributionFlags::V4_NC);
    let mut cluster = cluster_with(MemoryStore::default(), old);
    cluster.call("{:put, :k, #Reference<0.5.4.3.2.1>}");
    cluster.say(&monitor(":kv", 1));
    let answers = cluster.call("{:get, :k}");
    assert!(answers[0].starts_with(&[131, 104, 4, 97, 28]), "a MONITOR_P_EXIT: {answers:?}");
}

#[test]
fn a_store_that_answers_later_is_answered_for_later() {
    let waiting = Waiting::default();
    let mut cluster = cluster_with(Late(Arc::clone(&waiting)), DistributionFlags::OFFERED);
    let requests = [
        ("{:get, 1}", ":nil"),
        ("{:put, 1, []}", "{:error, :no_space}"),
        ("{:delete, 1}", "{:error, :no_space}"),
    ];
    for (request, expected) in requests {
        assert!(cluster.call(request).is_empty(), "nothing is answered at once");
        let done = waiting.lock().pop().expect("the store was asked");
        done();
        let (node, frames) = cluster.sent.0.lock().pop().expect("an answer");
        assert_eq!(node, PEER);
        assert_eq!(frames_of(&frames), [answer(expected)]);
    }
}

#[test]
fn a_late_value_that_the_callers_release_cannot_decode_ends_the_call_too() {
    let store = Deferred::new(Manner::wild(1));
    let flags = DistributionFlags::OFFERED.difference(DistributionFlags::V4_NC);
    let mut cluster = Cluster { deferred: Some(store.clone()), ..cluster_with(store.clone(), flags) };
    let alias = term("#Reference<0.5.4.3.2.1>");
    assert_eq!(cluster.call(term_with("{:put, 1, $1}", &[&alias])), [answer(":ok")]);
    // The deferred store's answers are fetched by hand: one is none.
    cluster.deferred = None;
    assert!(cluster.call("{:get, 1}").is_empty());
    while store.step() {}
    assert!(cluster.sent.0.lock().is_empty(), "nothing is sent that costs the connection");
    let ended = cluster.sent.3.lock().pop().expect("the call ends");
    let reason = TermView::parse(&ended.reason).expect("a term");
    assert_eq!(format!("{reason:?}"), "{:system_limit, \"this OTP version cannot decode the value\"}");
}
