//! Calls and their answers, monitors, links, and what a peer may not say.

use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound, Room};
use kvnode::etf::{Pid, Reference};
use kvnode::process::{Effect, Outcome, Peer, PeerError, exits};
use kvnode::store::MemoryStore;
use parking_lot::Mutex;

use crate::cluster::{Cluster, TAG, answer, cluster, cluster_with, erpc, spawn_request};
use crate::conversation::{
    Conversation, caller, control, frame, frames_of, gen_call, monitor, monitor_exit, reference, reply, send,
    signal,
};
use crate::late::Late;
use crate::term::{PEER, Term, term, term_with};

#[test]
fn every_tag_comes_back_bit_for_bit_and_an_alias_gets_the_answer() {
    let to_pid = [
        TAG,
        "{:\"$gen_request_id\", #Reference<0.3.2.1>}",
        "{#Reference<0.3.2.1>, :m@h}",
        "\"whatever a client likes\"",
    ];
    for tag in to_pid {
        assert_eq!(cluster().call_by(tag, "{:get, 1}"), [reply(tag, ":nil")]);
    }
    let wide = Reference { node: PEER.into(), creation: 3, words: vec![1, 2, 3, 4, 5] };
    let to_alias = [
        ("[:alias | #Reference<0.3.2.1>]", reference(1)),
        ("[[:alias | #Reference<0.5.4.3.2.1>] | #Reference<0.3.2.1>]", wide),
    ];
    for (tag, alias) in to_alias {
        for offered in [OTP_29, OTP_27, OTP_23] {
            let mut cluster = cluster_with(MemoryStore::default(), offered);
            let expected = to_alias_of(offered, &cluster.store.pid, &alias, tag, ":nil");
            assert_eq!(cluster.call_by(tag, "{:get, 1}"), [expected], "{offered}");
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
    tag: impl Term,
    answer: impl Term,
) -> Vec<u8> {
    let control = if offered.contains(DistributionFlags::ALTACT_SIG) {
        term_with("{37, 4, $1, $2}", &[store, alias])
    } else if offered.contains(DistributionFlags::ALIAS) {
        term_with("{33, $1, $2}", &[store, alias])
    } else {
        term("{2, :\"\", #PID<0.90.1>}")
    };
    frame(control, term_with("{$1, $2}", &[&tag, &answer]))
}

#[test]
fn an_answer_that_finds_its_connection_later_is_sent_as_that_peer_takes_it() {
    let far = |first| Reference { node: "far@h".into(), ..reference(first) };
    for offered in [OTP_29, OTP_27, OTP_23] {
        // Deferred by the store, and to another node than that of the call.
        let waiting = Arc::new(Mutex::new(Vec::new()));
        let mut deferring = cluster_with(Late(Arc::clone(&waiting)), DistributionFlags::OFFERED);
        let mut relaying = cluster();
        for (cluster, alias) in [(&mut deferring, reference(1)), (&mut relaying, far(1))] {
            let tag = term_with("[:alias | $1]", &[&alias]);
            assert!(cluster.call_by(&tag, "{:get, 1}").is_empty(), "the answer comes elsewhere");
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
            let expected = to_alias_of(offered, &cluster.store.pid, &alias, &tag, ":nil");
            assert_eq!(frames_of(&out), [expected], "{offered}");
        }
    }
}

#[test]
fn the_answer_to_a_relayed_call_goes_to_the_callers_own_node() {
    let mut cluster = cluster();
    let far = Pid { node: "far@h".into(), id: 1, serial: 0, creation: 1 };
    let call = term_with("{:\"$gen_call\", {$1, #Reference<0.3.2.1>}, {:get, 1}}", &[&far]);
    assert!(cluster.say(&send("kv", call)).is_empty());
    let [Effect::Send { node, frames, .. }] = cluster.later.as_mut_slice() else {
        panic!("no frame to send")
    };
    assert_eq!(&**node, "far@h");
    assert_eq!(frames_of(frames).len(), 1);
}

#[test]
fn an_unknown_call_ends_by_the_callers_monitor_and_names_the_request() {
    let mut cluster = cluster();
    cluster.put(":kept", "\"value\"");
    assert!(cluster.say(&monitor(":kv", 1)).is_empty());
    let told = monitor_exit(":kv", 1, "{:bad_call, {:frob, 7}}");
    assert_eq!(cluster.call("{:frob, 7}"), [told]);
    assert_eq!(cluster.peer.watches(), 0);
    // Without a monitor there is nobody to tell; the store lives on either way.
    assert!(cluster.call("{:frob, 7}").is_empty());
    cluster.put(":more", "\"value\"");
}

#[test]
fn an_unknown_call_of_multi_call_ends_by_the_monitor_that_its_tag_does_not_name() {
    let mut cluster = cluster();
    cluster.say(&monitor(":kv", 77));
    let answers = cluster.call_by("{#Reference<0.3.2.1>, :k@h}", ":frob");
    assert_eq!(answers, [monitor_exit(":kv", 77, "{:bad_call, :frob}")]);
}

#[test]
fn a_call_that_ends_fires_no_monitor_but_its_own() {
    let mut cluster = cluster();
    cluster.say(&monitor(":kv", 70));
    assert!(cluster.call(":bogus").is_empty(), "a reference that is no monitor's");
    cluster.say(&monitor(":kv", 71));
    assert!(cluster.call_by("{#Reference<0.3.2.1>, :k@h}", ":bogus").is_empty(), "either of two");
    assert_eq!(cluster.peer.watches(), 2);
}

#[test]
fn a_monitor_of_nothing_is_answered_noproc_at_once() {
    let mut cluster = cluster();
    assert_eq!(cluster.say(&monitor(":nobody", 1)), [monitor_exit(":nobody", 1, ":noproc")]);
    let old = Pid { creation: cluster.store.pid.creation + 1, ..cluster.store.pid.clone() };
    assert_eq!(cluster.say(&monitor(&old, 2)), [monitor_exit(&old, 2, ":noproc")]);
}

#[test]
fn a_peer_without_payloads_gets_the_reason_in_the_control_message() {
    let flags = DistributionFlags::OFFERED.difference(DistributionFlags::EXIT_PAYLOAD);
    let mut cluster = cluster_with(MemoryStore::default(), flags);
    let expected = signal(op::MONITOR_P_EXIT, ":nobody, #PID<0.90.1>, #Reference<0.3.2.1>, :noproc", &[]);
    assert_eq!(cluster.say(&monitor(":nobody", 1)), [expected]);
}

#[test]
fn monitors_and_links_fire_once_with_the_reason_and_not_after_they_were_taken_back() {
    let mut cluster = cluster();
    let store = cluster.store.pid.clone();
    cluster.say(&monitor(":kv", 1));
    cluster.say(&monitor(":kv", 2));
    cluster.say(&signal(op::DEMONITOR_P, "#PID<0.90.1>, :kv, #Reference<0.3.2.2>", &[]));
    for pid in ["#PID<0.90.1>", "#PID<0.91.1>"] {
        let link = signal(op::LINK, "$1, $2", &[&pid, &store]);
        assert!(cluster.say(&link).is_empty());
    }
    let id: u64 = 1 << 40;
    let unlink = signal(op::UNLINK_ID, &format!("{id}, #PID<0.91.1>, $1"), &[&store]);
    let ack = signal(op::UNLINK_ID_ACK, &format!("{id}, $1, #PID<0.91.1>"), &[&store]);
    assert_eq!(cluster.say(&unlink), [ack]);

    let (process, shutdown) = (Arc::clone(&cluster.store), term(":shutdown"));
    assert!(exits::end(&cluster.registry, &process, &shutdown).is_some());
    let mut out = Outbound::default();
    let Conversation { registry, peer, .. } = &mut cluster.conversation;
    peer.process_ended(process.id, &shutdown, registry, &mut out);
    peer.process_ended(process.id, &shutdown, registry, &mut out);
    let exit = frame(control(op::PAYLOAD_EXIT, "$1, #PID<0.90.1>", &[&store]), ":shutdown");
    assert_eq!(frames_of(&out), [monitor_exit(":kv", 1, ":shutdown"), exit]);
    assert_eq!(cluster.peer.watches(), 0);
    assert_eq!(cluster.say(&monitor(":kv", 3)), [monitor_exit(":kv", 3, ":noproc")]);
}

#[test]
fn a_peer_speaks_only_for_its_own_processes_and_has_a_bound() {
    let mut cluster = cluster();
    let foreign = Pid { node: "other@h".into(), ..caller() };
    let link = signal(op::LINK, "$1, $2", &[&foreign, &cluster.store.pid]);
    assert_eq!(cluster.try_say(&link), Err(PeerError::ForeignSender));
    for number in 0..100 {
        cluster.say(&monitor(":kv", number));
    }
    assert_eq!(cluster.try_say(&monitor(":kv", 100)), Err(PeerError::TooMany));
}

#[test]
fn ping_is_answered_yes() {
    let mut cluster = cluster();
    let ping = send("net_kernel", gen_call(TAG, "{:is_auth, :m@h}"));
    assert_eq!(cluster.say(&ping), [answer(":yes")]);
    // While our names are on their way to the peer, the answer waits for them.
    cluster.net_kernel.hold(&PEER.into());
    assert!(cluster.say(&ping).is_empty());
    cluster.net_kernel.release(PEER, &*cluster.sent);
    let (node, frames) = cluster.sent.0.lock().pop().expect("an answer");
    assert_eq!((node.as_str(), frames_of(&frames)), (PEER, vec![answer(":yes")]));
    assert_eq!(cluster.say(&ping), [answer(":yes")]);
}

#[test]
fn what_we_wait_for_ends_by_the_node_that_it_lives_on_and_by_no_other() {
    let mut cluster = cluster();
    let (ours, got) = (cluster.registry.new_reference(), Arc::new(Mutex::new(Vec::new())));
    let keep = Arc::clone(&got);
    cluster.waiters.expect(&ours, &PEER.into(), move |outcome| keep.lock().push(outcome));
    let ended = control(op::PAYLOAD_MONITOR_P_EXIT, "#PID<0.90.1>, $1, $2", &[&cluster.store.pid, &ours]);
    let down = frame(ended, ":normal");
    let mut stranger = Peer::new("stranger@h".into(), DistributionFlags::OFFERED);
    std::mem::swap(&mut cluster.peer, &mut stranger);
    cluster.say(&down);
    assert!(got.lock().is_empty());
    std::mem::swap(&mut cluster.peer, &mut stranger);
    cluster.say(&down);
    cluster.say(&down);
    assert_eq!(*got.lock(), [Outcome::Down(term(":normal"))]);
}

const NO_ROOM: Room = Room { small: false, large: false };

#[test]
fn calls_and_spawn_requests_wait_for_room_in_their_order_and_end_past_the_bound() {
    let mut cluster = cluster();
    cluster.put(":key", "\"value\"");
    cluster.room = NO_ROOM;
    let get = |cluster: &mut Cluster| cluster.call("{:get, :key}");
    assert!(get(&mut cluster).is_empty());
    let node = spawn_request("{:erlang, :node, 0}", "[:monitor]", "[]");
    assert!(cluster.say(&node).is_empty());
    // Casts are handled, but for those behind a call of the same process.
    let put = send("kv", "{:\"$gen_cast\", {:replicate_put, :key, \"later\"}}");
    assert!(cluster.say(&put).is_empty());
    assert!(cluster.go_on().is_empty());
    cluster.room = Room { small: true, large: false };
    assert_eq!(cluster.go_on(), [answer("\"value\"")], "the function's answer may be large");
    assert_eq!(get(&mut cluster), [answer("\"later\"")]);
    cluster.room = Room::FREE;
    assert_eq!(cluster.go_on().len(), 2, "SPAWN_REPLY, and the exit");
    assert!(!cluster.peer.holds_messages());

    // Past the bound each is told at once.
    cluster.room = NO_ROOM;
    while cluster.say(&node).is_empty() {}
    let refused = cluster.say(&node);
    assert!(refused[0].ends_with(&term(":system_limit")), "{refused:?}");
    assert!(cluster.say(&monitor(":kv", 1)).is_empty());
    let ended = (0..100).map(|_| get(&mut cluster)).find(|ended| !ended.is_empty()).expect("a bound");
    let reason = term("{:system_limit, :busy_dist_port}");
    assert!(ended.len() == 1 && ended[0].ends_with(&reason), "{ended:?}");
}

#[test]
fn a_link_that_ours_takes_back_is_none_until_the_peer_has_acknowledged_it() {
    let mut cluster = cluster();
    let (store, pid) = (cluster.store.id, cluster.store.pid.clone());
    let Conversation { registry, peer, .. } = &mut cluster.conversation;
    let mut out = Outbound::default();
    peer.linked(store, &caller(), registry, &mut out);
    assert!(out.is_empty(), "the signal goes with the frames");
    peer.unlinked(store, &caller(), registry, &mut out);
    assert_eq!(frames_of(&out), [signal(op::UNLINK_ID, "1, $1, #PID<0.90.1>", &[&pid])]);
    let ack = |id: u64| signal(op::UNLINK_ID_ACK, &format!("{id}, #PID<0.90.1>, $1"), &[&pid]);
    let link = signal(op::LINK, "#PID<0.90.1>, $1", &[&pid]);
    let exit = frame(control(op::PAYLOAD_EXIT, "#PID<0.90.1>, $1", &[&pid]), ":crossed");
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
    let call = send("kv", gen_call(TAG, "{:put, %{1 => [], 2 => []}, [:v]}"));
    let undef = erpc("os", "cmd", "[:ls]");
    for frame in [call, undef, monitor(":kv", 1)] {
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
                    cluster.put(":still", "\"served\"");
                }
            }
        }
    }
}
