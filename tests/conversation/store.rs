//! What a store is asked through its process, and what each engine has to hold.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use kvnode::distribution::control::op;
use kvnode::distribution::{DistributionFlags, FrameForm, Outbound, RemoteProcess};
use kvnode::etf::{Reference, TermView, TermWriter, encode};
use kvnode::kv::{Follow, KeyValueServer};
use kvnode::process::peer::Frame;
use kvnode::process::{Dispatch, Effect, FedNode, Feeding, GenServer, More};
use kvnode::replica::{Acknowledge, SlaveName, SlaveState, Standing};
use kvnode::store::MemoryStore;

use crate::cluster::{
    Cluster, PEER, Sent, around, atom, caller, cluster, cluster_of, cluster_on, cluster_with, frames_of,
    gen_call, message, monitor, now, on_each_engine, payload_of, raw, reference, tag_ref, to_caller, to_name,
};
use crate::deferred::{Deferred, Manner};
use crate::late::{Late, Waiting};

#[test]
fn a_put_a_get_and_a_delete_are_answered_to_the_callers_pid() {
    on_each_engine(|mut cluster| {
        cluster.put("nombre", "Mafalda");
        let get = |w: &mut TermWriter<'_>| {
            w.tuple(2).atom("get").atom("nombre");
        };
        let mafalda = encode(|w| {
            w.binary(b"Mafalda");
        });
        assert_eq!(cluster.call(tag_ref, get), [to_caller(tag_ref, mafalda)]);
        let delete = |w: &mut TermWriter<'_>| {
            w.tuple(2).atom("delete").atom("nombre");
        };
        assert_eq!(cluster.call(tag_ref, delete), [to_caller(tag_ref, atom("ok"))]);
        assert_eq!(cluster.call(tag_ref, get), [to_caller(tag_ref, atom("nil"))]);
        assert!(cluster.later.is_empty());
    });
}

/// Calls with numbers as tags, keys and values; `None`: a get, `Some(0)`: a delete.
fn say_calls(cluster: &mut Cluster, calls: &[(u64, Option<u64>)]) {
    for (number, (key, value)) in (1..).zip(calls) {
        let frame = message(to_name("kv"), |w| {
            let tag = |w: &mut TermWriter<'_>| _ = w.reference(&reference(number));
            gen_call(w, &caller(), tag, |w| {
                match value {
                    None => w.tuple(2).atom("get").unsigned(*key),
                    Some(0) => w.tuple(2).atom("delete").unsigned(*key),
                    Some(value) => w.tuple(3).atom("put").unsigned(*key).unsigned(*value),
                };
            });
        });
        // What a get is answered at once waits with the others.
        let mut out = cluster.out();
        let frame = Frame::small(frame.get(1..).unwrap_or_default(), FrameForm::PassThrough);
        let Cluster { registry, waiters, peer, later, .. } = cluster;
        peer.handle(frame, around(registry, waiters), &mut out, later).expect("a good frame");
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
fn numbers(seed: u64) -> impl FnMut(u64) -> u64 {
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
        cluster.call(tag_ref, |w| {
            w.tuple(2).atom("add_slave").tuple(2).atom("global").atom("s");
        });
        let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
        let slave = Arc::clone(follow.feed.slave());
        slave.found(RemoteProcess::Pid(caller()));
        let calls: Vec<_> = (0..60).map(|at| (below(6), Some(below(5) * (at + 1)))).collect();
        let answers = answers_to(&mut cluster, &calls);
        let data = judge(&calls, &answers);
        let mut slaves_data = BTreeMap::new();
        #[expect(clippy::disallowed_methods, reason = "some instant")]
        let now = Instant::now();
        // In a session of its own the slave is sent what is written from now on, in one order.
        let mut sent = 0;
        slave.take(
            now,
            |_| true,
            |_, message| {
                let [_, write] = TermView::parse(message).expect("a term").as_tuple::<2>().expect("a cast");
                sent += 1;
                match write.as_tuple::<3>() {
                    Some([_, key, value]) => {
                        let (key, value) =
                            (key.as_unsigned().expect("a key"), value.as_unsigned().expect("a value"));
                        slaves_data.insert(key, value);
                    }
                    None => {
                        let [_, key] = write.as_tuple::<2>().expect("a deletion");
                        slaves_data.remove(&key.as_unsigned().expect("a key"));
                    }
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
    for at in 0..3 {
        let answers = cluster.call(tag_ref, |w| {
            w.tuple(2).atom("add_slave");
            match at {
                0 => w.atom("kv"),
                1 => w.pid(&own),
                _ => w.tuple(2).atom("kv").atom("k@h"),
            };
        });
        let itself = encode(|w| _ = w.tuple(2).atom("error").atom("itself"));
        assert_eq!(answers, [to_caller(tag_ref, itself)]);
    }
    assert!(cluster.later.is_empty());
}

#[test]
fn a_slave_is_added_once_and_each_write_waits_for_it_in_order() {
    let mut cluster = cluster();
    let add = |w: &mut TermWriter<'_>| {
        w.tuple(2).atom("add_slave").tuple(2).atom("global").atom("s");
    };
    // Answered when it is known whether it can be one; the second time it is one.
    assert!(cluster.call(tag_ref, add).is_empty());
    assert_eq!(cluster.call(tag_ref, add), [to_caller(tag_ref, atom("ok"))]);
    let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
    assert!(follow.added.is_some() && follow.store == cluster.store.pid && cluster.later.is_empty());
    let slave = Arc::clone(follow.feed.slave());
    assert_eq!(*slave.name(), SlaveName::global("s"));
    assert_eq!(slave.state(), SlaveState::Seeking);
    cluster.put("late", "0");
    slave.found(RemoteProcess::Pid(caller()));
    cluster.put("a", "1");
    cluster.put("b", "2");
    let [Effect::Feed(node, feed)] = cluster.later.as_slice() else { panic!("{:?}", cluster.later) };
    let feed_into = |name: &Arc<str>, frames_bytes_max: usize| {
        let mut out = Outbound::default();
        let fed = FedNode { name, flags: DistributionFlags::OFFERED, frames_bytes_max, now: now() };
        let more = feed.feed(&mut Feeding::new(fed, &mut out, &cluster.registry, &cluster.waiters));
        (frames_of(&out), more)
    };
    assert_eq!(feed_into(&"elsewhere@h".into(), 1_000), (Vec::new(), More::No), "it is not there");
    let replicated = |key: &str, value: &str| {
        message(
            |w| {
                w.tuple(3).unsigned(op::SEND).atom("").pid(&caller());
            },
            |w| {
                w.tuple(2)
                    .atom("$gen_cast")
                    .tuple(3)
                    .atom("replicate_put")
                    .atom(key)
                    .binary(value.as_bytes());
            },
        )
    };
    // One always fits, and what the slave has is asked right behind it.
    let (frames, more) = feed_into(node, 1);
    let [first, asks] = frames.as_slice() else { panic!("{frames:?}") };
    assert_eq!((first, more), (&replicated("a", "1"), More::WhenRoom));
    assert!(asks.windows(9).any(|part| part == b"$gen_call"), "{asks:?}");
    assert_eq!(feed_into(node, 1_000), (vec![replicated("b", "2")], More::No));
    assert_eq!(cluster.waiters.len(), 1);
    follow.feed.gone();
    assert!(cluster.waiters.is_empty(), "what is not answered any more is not waited for");
}

#[test]
fn what_names_no_process_is_no_slave() {
    let mut cluster = cluster();
    cluster.say(&monitor("kv", &reference(1)));
    let answers = cluster.call(tag_ref, |w| {
        w.tuple(2).atom("add_slave").binary(b"slave1");
    });
    assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
    assert!(cluster.later.is_empty());
}

#[test]
fn a_value_with_a_key_twice_is_refused_and_changes_nothing() {
    on_each_engine(|mut cluster| {
        cluster.say(&monitor("kv", &reference(1)));
        let answers = cluster.call(tag_ref, |w| {
            w.tuple(3).atom("put").atom("k").map(2).integer(1).nil().integer(1).nil();
        });
        assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
        let get = cluster.call(tag_ref, |w| {
            w.tuple(2).atom("get").atom("k");
        });
        assert_eq!(get, [to_caller(tag_ref, atom("nil"))]);
    });
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
        slave.found(RemoteProcess::Pid(caller()));
        let (mut data, mut seen) = (BTreeMap::new(), BTreeMap::new());
        #[expect(clippy::disallowed_methods, reason = "some instant")]
        let now = Instant::now();
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
                    if slave.begin_sweep() {
                        slave.end_sweep(true);
                    }
                    if slave.scan(&*server) {
                        slave.refill(&*server);
                    }
                }
            }
            let taken = slave.take(
                now,
                |_| true,
                |_, message| {
                    let [_, write] =
                        TermView::parse(message).expect("a term").as_tuple::<2>().expect("a cast");
                    match write
                        .as_tuple::<3>()
                        .map(|[_, key, value]| (key.as_unsigned(), value.as_unsigned()))
                    {
                        Some((Some(key), Some(value))) => {
                            let before = seen.insert(key, value).unwrap_or(0);
                            assert!(
                                before <= value,
                                "seed {seed}: key {key} went back from {before} to {value}"
                            );
                            data.insert(key, value);
                        }
                        _ => {
                            let [_, key] = write.as_tuple::<2>().expect("a deletion");
                            data.remove(&key.as_unsigned().expect("a key"));
                        }
                    }
                    true
                },
            );
            if let Acknowledge::Now(mark) = taken.acknowledge {
                slave.acknowledged(mark);
            }
            let is_in_step = matches!(slave.standing(), Standing::InStep { .. });
            if is_in_step && writes_left == 0 && store.waiting() == 0 {
                break;
            }
        }
        let term = |bytes: &[u8]| TermView::parse(bytes).expect("a term").as_unsigned().expect("a number");
        let held: BTreeMap<u64, u64> =
            store.at_rest().iter().map(|(key, (value, _))| (term(key), term(value))).collect();
        assert_eq!(data, held, "seed {seed}");
    }
}

#[test]
fn a_value_that_no_release_reads_any_more_is_refused() {
    let mut cluster = cluster();
    cluster.say(&monitor("kv", &reference(1)));
    // FUN_EXT: no free variables, pid, module, index, uniq.
    let mut fun = vec![117, 0, 0, 0, 0];
    fun.extend(encode(|w| {
        w.pid(&caller()).atom("m").integer(0).integer(0);
    }));
    let answers = cluster.call(tag_ref, |w| {
        w.tuple(3).atom("put").atom("k");
        raw(w, &fun);
    });
    assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
}

#[test]
fn a_value_that_the_callers_release_cannot_decode_ends_the_call_instead_of_the_connection() {
    let old = DistributionFlags::OFFERED.difference(DistributionFlags::V4_NC);
    let mut cluster = cluster_with(MemoryStore::default(), old);
    let wide = Reference { node: PEER.into(), creation: 3, words: vec![1, 2, 3, 4, 5] };
    cluster.call(tag_ref, |w| {
        w.tuple(3).atom("put").atom("k").reference(&wide);
    });
    cluster.say(&monitor("kv", &reference(1)));
    let answers = cluster.call(tag_ref, |w| {
        w.tuple(2).atom("get").atom("k");
    });
    assert!(answers[0].starts_with(&[131, 104, 4, 97, 28]), "a MONITOR_P_EXIT: {answers:?}");
}

#[test]
fn a_store_that_answers_later_is_answered_for_later() {
    let waiting = Waiting::default();
    let mut cluster = cluster_with(Late(Arc::clone(&waiting)), DistributionFlags::OFFERED);
    let error = encode(|w| {
        w.tuple(2).atom("error").atom("no_space");
    });
    type Request = fn(&mut TermWriter<'_>);
    let requests: [(Request, Vec<u8>); 3] = [
        (
            |w| {
                w.tuple(2).atom("get").integer(1);
            },
            atom("nil"),
        ),
        (
            |w| {
                w.tuple(3).atom("put").integer(1).nil();
            },
            error.clone(),
        ),
        (
            |w| {
                w.tuple(2).atom("delete").integer(1);
            },
            error,
        ),
    ];
    for (request, expected) in requests {
        assert!(cluster.call(tag_ref, request).is_empty(), "nothing is answered at once");
        let done = waiting.lock().pop().expect("the store was asked");
        done();
        let (node, frames) = cluster.sent.0.lock().pop().expect("an answer");
        assert_eq!(node, PEER);
        assert_eq!(frames_of(&frames), [to_caller(tag_ref, expected)]);
    }
}
