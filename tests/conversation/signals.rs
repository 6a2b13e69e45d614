//! Calls and their answers, monitors, links, and what a peer may not say.

use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound, Room};
use kvnode::etf::{Pid, Reference, TermWriter, encode};
use kvnode::process::{Effect, Outcome, Peer, PeerError, exits};
use kvnode::store::MemoryStore;
use parking_lot::Mutex;

use crate::cluster::{
    Cluster, PEER, atom, caller, cluster, cluster_with, erpc, frame, frames_of, gen_call, message, monitor,
    monitor_exit, reference, spawn_request, tag_ref, to_caller, to_name,
};
use crate::late::Late;

#[test]
fn every_tag_comes_back_bit_for_bit_and_an_alias_gets_the_answer() {
    type Tag = fn(&mut TermWriter<'_>);
    let wide = || Reference { node: PEER.into(), creation: 3, words: vec![1, 2, 3, 4, 5] };
    let get = |w: &mut TermWriter<'_>| {
        w.tuple(2).atom("get").integer(1);
    };
    let to_pid: [Tag; 4] = [
        tag_ref,
        |w| {
            w.tuple(2).atom("$gen_request_id").reference(&reference(1));
        },
        |w| {
            w.tuple(2).reference(&reference(1)).atom(PEER);
        },
        |w| {
            w.binary(b"whatever a client likes");
        },
    ];
    for tag in to_pid {
        assert_eq!(cluster().call(tag, get), [to_caller(tag, atom("nil"))]);
    }
    let to_alias: [(Tag, Reference); 2] = [
        (
            |w| {
                w.list(1).atom("alias").reference(&reference(1));
            },
            reference(1),
        ),
        (
            |w| {
                let wide = Reference { node: PEER.into(), creation: 3, words: vec![1, 2, 3, 4, 5] };
                w.list(1).list(1).atom("alias").reference(&wide).reference(&reference(1));
            },
            wide(),
        ),
    ];
    for (tag, alias) in to_alias {
        for offered in [OTP_29, OTP_27, OTP_23] {
            let mut cluster = cluster_with(MemoryStore::default(), offered);
            let store = cluster.store.pid.clone();
            let expected = to_alias_of(offered, &store, &alias, tag, atom("nil"));
            assert_eq!(cluster.call(tag, get), [expected], "{offered}");
        }
    }
}

/// Peers with ALTACT_SIG, and with no more than ALIAS, and with neither. OTP 30 may offer ALIAS no more.
const OTP_29: DistributionFlags = DistributionFlags::OFFERED.difference(DistributionFlags::ALIAS);
const OTP_27: DistributionFlags = DistributionFlags::OFFERED.difference(DistributionFlags::ALTACT_SIG);
const OTP_23: DistributionFlags = OTP_27.difference(DistributionFlags::ALIAS);

/// The answer to a call whose tag has an alias, as a peer that offers these flags gets it.
fn to_alias_of(
    offered: DistributionFlags,
    store: &Pid,
    alias: &Reference,
    tag: impl FnOnce(&mut TermWriter<'_>),
    answer: Vec<u8>,
) -> Vec<u8> {
    message(
        |w| {
            if offered.contains(DistributionFlags::ALTACT_SIG) {
                w.tuple(4).unsigned(37).unsigned(4).pid(store).reference(alias);
            } else if offered.contains(DistributionFlags::ALIAS) {
                w.tuple(3).unsigned(33).pid(store).reference(alias);
            } else {
                w.tuple(3).unsigned(2).atom("").pid(&caller());
            }
        },
        |w| {
            w.tuple(2);
            tag(w);
            w.raw(&answer);
        },
    )
}

#[test]
fn an_answer_that_finds_its_connection_later_is_sent_as_that_peer_takes_it() {
    let far = |first| Reference { node: "far@h".into(), ..reference(first) };
    for offered in [OTP_29, OTP_27, OTP_23] {
        // Deferred by the store, and to another node than the one that the call came from.
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let mut deferring = cluster_with(Late(Arc::clone(&waiting)), DistributionFlags::OFFERED);
        let mut relaying = cluster();
        for (cluster, alias) in [(&mut deferring, reference(1)), (&mut relaying, far(1))] {
            let tag = |w: &mut TermWriter<'_>| {
                w.list(1).atom("alias").reference(&alias);
            };
            let answers = cluster.call(tag, |w| {
                w.tuple(2).atom("get").integer(1);
            });
            assert!(answers.is_empty(), "the answer comes elsewhere");
            if let Some(done) = waiting.lock().pop() {
                done();
            }
            let sent = cluster.sent.0.lock().pop();
            let (node, mut frames) = match (sent, cluster.later.pop()) {
                (Some(sent), None) => sent,
                (None, Some(Effect::Send { node, frames, .. })) => (node.to_string(), frames),
                (sent, later) => panic!("{sent:?}, {later:?}"),
            };
            assert_eq!(node, *alias.node);
            let mut out = Outbound::new(FrameForm::PassThrough, AliasForm::in_force(offered));
            out.append(&mut frames);
            let expected = to_alias_of(offered, &cluster.store.pid, &alias, tag, atom("nil"));
            assert_eq!(frames_of(&out), [expected], "{offered}");
        }
    }
}

#[test]
fn the_answer_to_a_relayed_call_goes_to_the_callers_own_node() {
    let mut cluster = cluster();
    let far = Pid { node: "far@h".into(), id: 1, serial: 0, creation: 1 };
    let frame = message(to_name("kv"), |w| {
        gen_call(w, &far, tag_ref, |w| {
            w.tuple(2).atom("get").integer(1);
        });
    });
    assert!(cluster.say(&frame).is_empty());
    let [Effect::Send { node, frames, .. }] = cluster.later.as_mut_slice() else {
        panic!("no frame to send")
    };
    assert_eq!(&**node, "far@h");
    assert_eq!(frames_of(frames).len(), 1);
}

#[test]
fn an_unknown_call_ends_by_the_callers_monitor_and_names_the_request() {
    let mut cluster = cluster();
    cluster.put("kept", "value");
    assert!(cluster.say(&monitor("kv", &reference(1))).is_empty());
    let frob = |w: &mut TermWriter<'_>| {
        w.tuple(2).atom("frob").integer(7);
    };
    let reason = encode(|w| {
        w.tuple(2).atom("bad_call");
        frob(w);
    });
    assert_eq!(cluster.call(tag_ref, frob), [monitor_exit("kv", &reference(1), reason)]);
    assert_eq!(cluster.peer.watches(), 0);
    // Without a monitor there is nobody to tell; the store lives on either way.
    assert!(cluster.call(tag_ref, frob).is_empty());
    cluster.put("more", "value");
}

#[test]
fn an_unknown_call_of_multi_call_ends_by_the_monitor_that_its_tag_does_not_name() {
    let mut cluster = cluster();
    cluster.say(&monitor("kv", &reference(77)));
    let tag = |w: &mut TermWriter<'_>| {
        w.tuple(2).reference(&reference(1)).atom("k@h");
    };
    let answers = cluster.call(tag, |w| {
        w.atom("frob");
    });
    let reason = encode(|w| {
        w.tuple(2).atom("bad_call").atom("frob");
    });
    assert_eq!(answers, [monitor_exit("kv", &reference(77), reason)]);
}

#[test]
fn a_call_that_ends_fires_no_monitor_but_its_own() {
    let bogus = |w: &mut TermWriter<'_>| {
        w.atom("bogus");
    };
    let multi_call = |w: &mut TermWriter<'_>| {
        w.tuple(2).reference(&reference(1)).atom("k@h");
    };
    let mut cluster = cluster();
    cluster.say(&monitor("kv", &reference(70)));
    assert!(cluster.call(tag_ref, bogus).is_empty(), "a reference that is no monitor's");
    cluster.say(&monitor("kv", &reference(71)));
    assert!(cluster.call(multi_call, bogus).is_empty(), "either of two");
    assert_eq!(cluster.peer.watches(), 2);
}

#[test]
fn a_monitor_of_nothing_is_answered_noproc_at_once() {
    let mut cluster = cluster();
    let expected = monitor_exit("nobody", &reference(1), atom("noproc"));
    assert_eq!(cluster.say(&monitor("nobody", &reference(1))), [expected]);
    let old = Pid { creation: cluster.store.pid.creation + 1, ..cluster.store.pid.clone() };
    let by_pid = frame(
        |w| {
            w.tuple(4).unsigned(op::MONITOR_P).pid(&caller()).pid(&old).reference(&reference(2));
        },
        None,
    );
    let expected = frame(
        |w| {
            w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).pid(&old).pid(&caller()).reference(&reference(2));
        },
        Some(atom("noproc")),
    );
    assert_eq!(cluster.say(&by_pid), [expected]);
}

#[test]
fn a_peer_without_payloads_gets_the_reason_in_the_control_message() {
    let flags = DistributionFlags::OFFERED.difference(DistributionFlags::EXIT_PAYLOAD);
    let mut cluster = cluster_with(MemoryStore::default(), flags);
    let expected = frame(
        |w| {
            w.tuple(5).unsigned(op::MONITOR_P_EXIT).atom("nobody").pid(&caller());
            w.reference(&reference(1)).atom("noproc");
        },
        None,
    );
    assert_eq!(cluster.say(&monitor("nobody", &reference(1))), [expected]);
}

#[test]
fn monitors_and_links_fire_once_with_the_reason_and_not_after_they_were_taken_back() {
    let mut cluster = cluster();
    let store = cluster.store.pid.clone();
    cluster.say(&monitor("kv", &reference(1)));
    cluster.say(&monitor("kv", &reference(2)));
    let demonitor = frame(
        |w| {
            w.tuple(4).unsigned(op::DEMONITOR_P).pid(&caller()).atom("kv").reference(&reference(2));
        },
        None,
    );
    cluster.say(&demonitor);
    let other = Pid { id: 91, ..caller() };
    for pid in [&caller(), &other] {
        let link = frame(
            |w| {
                w.tuple(3).unsigned(op::LINK).pid(pid).pid(&store);
            },
            None,
        );
        assert!(cluster.say(&link).is_empty());
    }
    let unlink = frame(
        |w| {
            w.tuple(4).unsigned(op::UNLINK_ID).unsigned(1 << 40).pid(&other).pid(&store);
        },
        None,
    );
    let ack = frame(
        |w| {
            w.tuple(4).unsigned(op::UNLINK_ID_ACK).unsigned(1 << 40).pid(&store).pid(&other);
        },
        None,
    );
    assert_eq!(cluster.say(&unlink), [ack]);

    assert!(exits::end(&cluster.registry, &cluster.store, &atom("shutdown")).is_some());
    let mut out = Outbound::default();
    let Cluster { registry, peer, store: process, .. } = &mut cluster;
    peer.process_ended(process.id, &atom("shutdown"), registry, &mut out);
    peer.process_ended(process.id, &atom("shutdown"), registry, &mut out);
    let exit = frame(
        |w| {
            w.tuple(3).unsigned(op::PAYLOAD_EXIT).pid(&store).pid(&caller());
        },
        Some(atom("shutdown")),
    );
    assert_eq!(frames_of(&out), [monitor_exit("kv", &reference(1), atom("shutdown")), exit]);
    assert_eq!(cluster.peer.watches(), 0);
    let late = monitor("kv", &reference(3));
    assert_eq!(cluster.say(&late), [monitor_exit("kv", &reference(3), atom("noproc"))]);
}

#[test]
fn a_peer_speaks_only_for_its_own_processes_and_has_a_bound() {
    let mut cluster = cluster();
    let foreign = Pid { node: "other@h".into(), ..caller() };
    let link = frame(
        |w| {
            w.tuple(3).unsigned(op::LINK).pid(&foreign).pid(&cluster.store.pid);
        },
        None,
    );
    assert_eq!(cluster.try_say(&link), Err(PeerError::ForeignSender));
    for number in 0..100 {
        cluster.say(&monitor("kv", &reference(number)));
    }
    assert_eq!(cluster.try_say(&monitor("kv", &reference(100))), Err(PeerError::TooMany));
}

#[test]
fn ping_is_answered_yes() {
    let mut cluster = cluster();
    let ping = message(to_name("net_kernel"), |w| {
        gen_call(w, &caller(), tag_ref, |w| {
            w.tuple(2).atom("is_auth").atom(PEER);
        });
    });
    assert_eq!(cluster.say(&ping), [to_caller(tag_ref, atom("yes"))]);
    // While our names are on their way to the peer, the answer waits for them.
    cluster.net_kernel.hold(&PEER.into());
    assert!(cluster.say(&ping).is_empty());
    cluster.net_kernel.release(PEER, &*cluster.sent);
    let (node, frames) = cluster.sent.0.lock().pop().expect("an answer");
    assert_eq!((node.as_str(), frames_of(&frames)), (PEER, vec![to_caller(tag_ref, atom("yes"))]));
    assert_eq!(cluster.say(&ping), [to_caller(tag_ref, atom("yes"))]);
}

#[test]
fn what_we_wait_for_ends_by_the_node_that_it_lives_on_and_by_no_other() {
    let mut cluster = cluster();
    let (ours, got) = (cluster.registry.new_reference(), Arc::new(Mutex::new(Vec::new())));
    let keep = Arc::clone(&got);
    cluster.waiters.expect(&ours, &PEER.into(), move |outcome| keep.lock().push(outcome));
    let down = frame(
        |w| {
            w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).pid(&caller()).pid(&cluster.store.pid);
            w.reference(&ours);
        },
        Some(atom("normal")),
    );
    let mut stranger = Peer::new("stranger@h".into(), DistributionFlags::OFFERED);
    std::mem::swap(&mut cluster.peer, &mut stranger);
    cluster.say(&down);
    assert!(got.lock().is_empty());
    std::mem::swap(&mut cluster.peer, &mut stranger);
    cluster.say(&down);
    cluster.say(&down);
    assert_eq!(*got.lock(), [Outcome::Down(atom("normal"))]);
}

const NO_ROOM: Room = Room { small: false, large: false };

#[test]
fn calls_and_spawn_requests_wait_for_room_in_their_order_and_end_past_the_bound() {
    let mut cluster = cluster();
    cluster.put("key", "value");
    cluster.room = NO_ROOM;
    let get = |cluster: &mut Cluster| cluster.call(tag_ref, |w| _ = w.tuple(2).atom("get").atom("key"));
    assert!(get(&mut cluster).is_empty());
    let node = spawn_request(("erlang", "node", 0), &["monitor"], vec![106]);
    assert!(cluster.say(&node).is_empty());
    // Casts are handled, but for those behind a call of the same process.
    let put = |w: &mut TermWriter<'_>| {
        w.tuple(2).atom("$gen_cast").tuple(3).atom("replicate_put").atom("key").binary(b"later");
    };
    assert!(cluster.say(&message(to_name("kv"), put)).is_empty());
    assert!(cluster.go_on().is_empty());
    cluster.room = Room { small: true, large: false };
    let value = encode(|w| _ = w.binary(b"value"));
    assert_eq!(cluster.go_on(), [to_caller(tag_ref, value)], "the function's answer may be large");
    assert_eq!(get(&mut cluster), [to_caller(tag_ref, encode(|w| _ = w.binary(b"later")))]);
    cluster.room = Room::FREE;
    assert_eq!(cluster.go_on().len(), 2, "SPAWN_REPLY, and the exit");
    assert!(!cluster.peer.holds_messages());

    // Past the bound each is told at once.
    cluster.room = NO_ROOM;
    while cluster.say(&node).is_empty() {}
    let refused = cluster.say(&node);
    assert!(refused[0].ends_with(&atom("system_limit")), "{refused:?}");
    assert!(cluster.say(&monitor("kv", &reference(1))).is_empty());
    let ended = (0..100).map(|_| get(&mut cluster)).find(|ended| !ended.is_empty()).expect("a bound");
    let reason = encode(|w| _ = w.tuple(2).atom("system_limit").atom("busy_dist_port"));
    assert!(ended.len() == 1 && ended[0].ends_with(&reason), "{ended:?}");
}

#[test]
fn a_link_that_ours_takes_back_is_none_until_the_peer_has_acknowledged_it() {
    let mut cluster = cluster();
    let Cluster { registry, peer, store, .. } = &mut cluster;
    let mut out = Outbound::default();
    peer.linked(store.id, &caller(), registry, &mut out);
    assert!(out.is_empty(), "the signal goes with the frames");
    peer.unlinked(store.id, &caller(), registry, &mut out);
    let pid = store.pid.clone();
    let unlink = frame(|w| _ = w.tuple(4).unsigned(op::UNLINK_ID).unsigned(1).pid(&pid).pid(&caller()), None);
    assert_eq!(frames_of(&out), [unlink]);
    let ack = |id: u64| {
        frame(|w| _ = w.tuple(4).unsigned(op::UNLINK_ID_ACK).unsigned(id).pid(&caller()).pid(&pid), None)
    };
    let link = frame(|w| _ = w.tuple(3).unsigned(op::LINK).pid(&caller()).pid(&pid), None);
    let exit =
        frame(|w| _ = w.tuple(3).unsigned(op::PAYLOAD_EXIT).pid(&caller()).pid(&pid), Some(atom("crossed")));
    // A link and an exit that crossed the unlink on their way mean nothing any more.
    assert!(cluster.say(&link).is_empty() && cluster.say(&exit).is_empty());
    // An acknowledgement of another unlink is none of this.
    assert!(
        cluster.say(&ack(2)).is_empty() && cluster.say(&link).is_empty() && cluster.say(&exit).is_empty()
    );
    assert!(cluster.later.is_empty() && cluster.store.is_alive());
    assert!(cluster.say(&ack(1)).is_empty());
    assert_eq!(cluster.peer.watches(), 0);
    assert!(cluster.say(&link).is_empty());
    assert_eq!(cluster.peer.watches(), 1);
    cluster.say(&exit);
    assert!(!cluster.store.is_alive(), "a link that was set afterwards is one");
}

#[test]
fn no_cut_and_no_changed_byte_of_a_conversation_panics() {
    let call = message(to_name("kv"), |w| {
        gen_call(w, &caller(), tag_ref, |w| {
            w.tuple(3).atom("put").map(2).integer(1).nil().integer(2).nil().list(1).atom("v").nil();
        });
    });
    let undef = erpc("os", "cmd", &[atom("ls")]);
    for frame in [call, undef, monitor("kv", &reference(1))] {
        for len in 0..frame.len() {
            let mut cluster = cluster();
            assert!(cluster.try_say(&frame[..len]).is_err(), "cut at {len}");
        }
        for at in 0..frame.len() {
            for change in [1, 0x10, 0x80, 0xff] {
                let mut changed = frame.clone();
                changed[at] ^= change;
                let mut cluster = cluster();
                if cluster.try_say(&changed).is_ok() {
                    cluster.put("still", "served");
                }
            }
        }
    }
}
