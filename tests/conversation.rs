//! Conversations of a peer with our processes, without a socket: frames in, exact frames out.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvnode::distribution::control::op;
use kvnode::distribution::inbound::{Arrival, Inbound};
use kvnode::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound, RemoteProcess, Room};
use kvnode::etf::{Pid, Reference, TermView, TermWriter, encode};
use kvnode::kv::{Follow, FollowSlave, KeyValueFunctions, KeyValueServer, Offer};
use kvnode::process::effect::EndedCall;
use kvnode::process::net_kernel::NetKernel;
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::rpc::Rex;
use kvnode::process::rpc::calls::Calls;
use kvnode::process::{
    Dispatch, Effect, FedNode, Feeding, GenServer, More, NoRoom, Outcome, Peer, PeerError, Process,
    ProcessId, Registry, Waiters, exits,
};
use kvnode::replica::{Acknowledge, SlaveName, SlaveState, Standing};
use kvnode::store::{
    Batch, Done, MemoryStore, Pending, ReadDone, Scan, ScanDone, Shows, Store, StoreError, Update, Value,
};
use parking_lot::Mutex;

#[path = "support/deferred.rs"]
mod deferred;

use deferred::{Deferred, Manner};

const PEER: &str = "m@h";

/// What was sent by the way for answers that come later, whether processes may end by it too, and the slaves that are to be
/// followed.
#[derive(Default)]
struct Sent(Mutex<Vec<(String, Outbound)>>, AtomicBool, Mutex<Vec<FollowSlave>>);

impl Dispatch for Sent {
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        self.0.lock().push((node.to_owned(), std::mem::take(frames)));
        Ok(())
    }

    fn end_call(&self, call: EndedCall) {
        panic!("{call:?} was to end: there is room here");
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        let expected = self.1.load(Ordering::Relaxed);
        assert!(expected, "{process:?} was to end for {reason:?}: nothing here ends");
    }
}

impl Follow for Sent {
    fn follow(&self, slave: FollowSlave) {
        self.2.lock().push(slave);
    }

    fn offer(&self, offer: Offer) {
        panic!("nobody else has a name: {offer:?}");
    }

    fn now(&self) -> Instant {
        now()
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant")]
fn now() -> Instant {
    Instant::now()
}

struct Cluster {
    registry: Registry,
    waiters: Waiters,
    peer: Peer,
    /// How the peer is sent answers to aliases.
    alias_form: AliasForm,
    net_kernel: Arc<NetKernel>,
    store: Arc<Process>,
    sent: Arc<Sent>,
    later: Vec<Effect>,
    /// What has room in the output.
    room: Room,
    /// The store, where it is one that answers later.
    deferred: Option<Deferred>,
}

/// Has every engine answer: memory, and one that answers later, in several orders.
fn on_each_engine(test: impl Fn(Cluster)) {
    test(cluster());
    for seed in 0..16 {
        test(cluster_on(Deferred::new(Manner::wild(seed))));
    }
}

/// A store that answers later, and has done so when the next frame is said.
fn cluster_on(store: Deferred) -> Cluster {
    let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
    Cluster { deferred: Some(store), ..cluster }
}

fn cluster() -> Cluster {
    cluster_with(MemoryStore::default(), DistributionFlags::OFFERED)
}

fn cluster_with(store: impl Store, flags: DistributionFlags) -> Cluster {
    let sent = Arc::new(Sent::default());
    let (dispatch, follow) = (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
    let server = KeyValueServer::new(store, dispatch, follow, 1 << 20).shared();
    cluster_of(server, sent, flags)
}

fn cluster_of(server: Arc<dyn GenServer>, sent: Arc<Sent>, flags: DistributionFlags) -> Cluster {
    let registry = Registry::new("k@h".into(), 5);
    let store = registry.spawn(server);
    registry.register("kv", &store).expect("the name is free");
    registry.claim_global("kv_global", &store).expect("the name is free");
    let net_kernel = Arc::new(NetKernel::default());
    let net_kernel_process = registry.spawn(Arc::clone(&net_kernel) as Arc<dyn GenServer>);
    registry.register("net_kernel", &net_kernel_process).expect("the name is free");
    let rex = registry.spawn(Arc::new(Rex));
    registry.register("rex", &rex).expect("the name is free");
    let peer = Peer::new(PEER.into(), flags);
    let alias_form = AliasForm::in_force(flags);
    let waiters = Waiters::default();
    Cluster {
        registry,
        waiters,
        peer,
        alias_form,
        net_kernel,
        store,
        sent,
        later: Vec::new(),
        room: Room::FREE,
        deferred: None,
    }
}

const fn around<'a>(registry: &'a Registry, waiters: &'a Waiters) -> Surroundings<'a> {
    Surroundings {
        registry,
        waiters,
        inflated_bytes_max: 1 << 20,
        watches_max: 100,
        held_bytes_max: 4 << 10,
        state_bytes_max: 1 << 10,
    }
}

impl Cluster {
    /// Handles one frame; gives the answering frames, each as its control message and payload.
    fn say(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.try_say(frame).expect("a good frame")
    }

    fn try_say(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, PeerError> {
        let mut out = self.out();
        let frame = Frame::small(frame.get(1..).unwrap_or_default(), FrameForm::PassThrough);
        let Self { registry, waiters, peer, later, .. } = self;
        peer.handle(frame, around(registry, waiters), &mut out, later)?;
        let mut answers = frames_of(&out);
        answers.extend(self.answered_later());
        Ok(answers)
    }

    /// What a store that answers later answers in the end.
    fn answered_later(&mut self) -> Vec<Vec<u8>> {
        let Some(store) = &self.deferred else { return Vec::new() };
        while store.step() {}
        let sent = std::mem::take(&mut *self.sent.0.lock());
        sent.iter().flat_map(|(_, frames)| frames_of(frames)).collect()
    }

    fn out(&self) -> Outbound {
        let mut out = Outbound::new(FrameForm::PassThrough, self.alias_form);
        out.set_room(self.room);
        out
    }

    /// Handles all that has waited and can be handled now; gives the answering frames.
    fn go_on(&mut self) -> Vec<Vec<u8>> {
        let mut out = self.out();
        let Self { registry, waiters, peer, later, .. } = self;
        while peer.deliver_held(around(registry, waiters), &mut out, later).expect("a good frame") {}
        frames_of(&out)
    }

    /// A call to the registered store, with a tag.
    fn call(
        &mut self,
        tag: impl FnOnce(&mut TermWriter<'_>),
        request: impl FnOnce(&mut TermWriter<'_>),
    ) -> Vec<Vec<u8>> {
        let frame = message(to_name("kv"), |w| gen_call(w, &caller(), tag, request));
        self.say(&frame)
    }

    fn put(&mut self, key: &str, value: &str) {
        let answers = self.call(tag_ref, |w| {
            w.tuple(3).atom("put").atom(key).binary(value.as_bytes());
        });
        assert_eq!(answers, [to_caller(tag_ref, atom("ok"))]);
    }
}

fn frames_of(out: &Outbound) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    out.slices(&mut slices);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    frames_in(&bytes)
}

fn frames_in(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut inbound = Inbound::new(bytes, FrameForm::PassThrough, 1 << 20);
    let mut frames = Vec::new();
    while let Some(arrival) = inbound.next_arrival().expect("good frames") {
        let Arrival::Frame(range) = arrival else { panic!("a tick") };
        frames.push([&[131], inbound.slice(range)].concat());
    }
    frames
}

fn caller() -> Pid {
    Pid { node: PEER.into(), id: 90, serial: 1, creation: 3 }
}

fn reference(first: u32) -> Reference {
    Reference { node: PEER.into(), creation: 3, words: vec![first, 2, 3] }
}

fn tag_ref(w: &mut TermWriter<'_>) {
    w.reference(&reference(1));
}

fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

fn raw(w: &mut TermWriter<'_>, encoded: &[u8]) {
    w.term(TermView::parse(encoded).expect("an encoded term"));
}

/// A frame: a control message and, where `payload` writes one, a payload.
fn frame(control: impl FnOnce(&mut TermWriter<'_>), payload: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = vec![131];
    control(&mut TermWriter::new(&mut bytes));
    if let Some(payload) = payload {
        bytes.push(131);
        bytes.extend(payload);
    }
    bytes
}

fn message(control: impl FnOnce(&mut TermWriter<'_>), payload: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    frame(control, Some(encode(payload)))
}

fn to_name(name: &str) -> impl FnOnce(&mut TermWriter<'_>) {
    move |w| {
        w.tuple(4).unsigned(op::REG_SEND).pid(&caller()).atom("").atom(name);
    }
}

fn gen_call(
    w: &mut TermWriter<'_>,
    from: &Pid,
    tag: impl FnOnce(&mut TermWriter<'_>),
    request: impl FnOnce(&mut TermWriter<'_>),
) {
    w.tuple(3).atom("$gen_call").tuple(2).pid(from);
    tag(w);
    request(w);
}

/// The answer `{Tag, Reply}` to the caller's pid.
fn to_caller(tag: impl FnOnce(&mut TermWriter<'_>), reply: Vec<u8>) -> Vec<u8> {
    message(
        |w| {
            w.tuple(3).unsigned(op::SEND).atom("").pid(&caller());
        },
        |w| {
            w.tuple(2);
            tag(w);
            raw(w, &reply);
        },
    )
}

fn monitor(to: &str, reference: &Reference) -> Vec<u8> {
    frame(
        |w| {
            w.tuple(4).unsigned(op::MONITOR_P).pid(&caller()).atom(to).reference(reference);
        },
        None,
    )
}

fn monitor_exit(from: &str, reference: &Reference, reason: Vec<u8>) -> Vec<u8> {
    frame(
        |w| {
            w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).atom(from).pid(&caller()).reference(reference);
        },
        Some(reason),
    )
}

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
            "m@h",
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

fn spawn_request(mfa: (&str, &str, i64), options: &[&str], arguments: Vec<u8>) -> Vec<u8> {
    frame(
        |w| {
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference(1)).pid(&caller()).pid(&caller());
            w.tuple(3).atom(mfa.0).atom(mfa.1).integer(mfa.2);
            w.list(options.len());
            for option in options {
                w.atom(option);
            }
            w.nil();
        },
        Some(arguments),
    )
}

fn payload_of(frame: &[u8]) -> &[u8] {
    let control = kvnode::etf::Cursor::new(&frame[1..]).term().expect("a control message");
    &frame[1 + control.bytes().len() + 1..]
}

fn erpc(module: &str, function: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
    spawn_request(
        ("erpc", "execute_call", 4),
        &["monitor"],
        encode(|w| {
            w.list(4).reference(&reference(9)).atom(module).atom(function).list(arguments.len());
            for argument in arguments {
                raw(w, argument);
            }
            w.nil().nil();
        }),
    )
}

#[test]
fn an_unknown_function_is_undef_in_the_shape_of_erpc() {
    let mut cluster = cluster();
    let command = encode(|w| {
        w.binary(b"ls");
    });
    let answers = cluster.say(&erpc("os", "cmd", std::slice::from_ref(&command)));
    let [reply, exit] = answers.as_slice() else { panic!("{answers:?}") };
    assert!(reply.starts_with(&[131, 104, 5, 97, 31]), "a SPAWN_REPLY comes first: {reply:?}");
    let expected = encode(|w| {
        w.tuple(4).reference(&reference(9)).atom("error").atom("undef");
        w.list(1).tuple(4).atom("os").atom("cmd").list(1);
        raw(w, &command);
        w.nil().nil().nil();
    });
    assert_eq!(payload_of(exit), expected);
}

#[test]
fn a_spawn_of_anything_is_replied_to_and_its_exit_told_to_link_and_monitor() {
    let mut cluster = cluster();
    let answers = cluster.say(&spawn_request(("erlang", "halt", 0), &["link", "monitor"], vec![106]));
    assert_eq!(answers.len(), 3, "reply, exit, monitor exit");
    let [undef, _] =
        TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<2>().expect("{undef, stack}");
    assert!(undef.is_atom("undef"));
    assert_eq!(payload_of(&answers[1]), payload_of(&answers[2]));
    assert_eq!(cluster.say(&spawn_request(("erlang", "halt", 0), &[], vec![106])).len(), 1);
}

#[test]
fn global_names_of_ours_are_told_to_nodes_that_ask_here() {
    let mut cluster = cluster();
    for (name, expected) in [("kv_global", true), ("kv", false)] {
        let answers = cluster.say(&erpc("global", "whereis_name", &[atom(name)]));
        let [_, kind, value] =
            TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<3>().expect("3 parts");
        assert!(kind.is_atom("return"));
        assert_eq!(value.as_pid().is_some(), expected, "{name}: {value:?}");
        assert_eq!(value.is_atom("undefined"), !expected, "{name}: {value:?}");
    }
}

#[test]
fn a_conflict_over_a_global_name_has_one_winner_whichever_way_it_is_asked() {
    let (ours, theirs) = (cluster().store.pid.clone(), Pid { node: "z@h".into(), ..caller() });
    let encoded = |pid: &Pid| {
        encode(|w| {
            w.pid(pid);
        })
    };
    for pids in [[&ours, &theirs], [&theirs, &ours]] {
        let mut cluster = cluster();
        let arguments = [atom("method"), atom("kv_global"), encoded(pids[0]), encoded(pids[1])];
        let answers = cluster.say(&erpc("global", "resolve_it", &arguments));
        let [_, _, winner] =
            TermView::parse(payload_of(&answers[1])).expect("a reason").as_tuple::<3>().expect("3 parts");
        assert_eq!(winner.as_pid().map(Pid::from), Some(ours.clone()));
        assert!(matches!(cluster.later.as_slice(), [Effect::Send { node, .. }] if **node == *"z@h"));
    }
}

#[test]
fn a_c_node_calls_rex_and_is_answered_at_its_pid() {
    let mut cluster = cluster();
    let request = message(to_name("rex"), |w| {
        w.tuple(2).pid(&caller()).tuple(5).atom("call").atom("erlang").atom("node").nil().atom("user");
    });
    let expected = message(
        |w| {
            w.tuple(3).unsigned(op::SEND).atom("").pid(&caller());
        },
        |w| {
            w.tuple(2).atom("rex").atom("k@h");
        },
    );
    assert_eq!(cluster.say(&request), [expected]);
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
                "m@h",
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

/// Answers that are yet to come.
type Waiting = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

/// A store that always answers later.
#[derive(Default)]
struct Late(Waiting);

impl Store for Late {
    fn get<R>(
        &self,
        _key: &[u8],
        _now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let done = later();
        self.0.lock().push(Box::new(|| done(Ok(None))));
        None
    }

    fn update<U: Update>(
        &self,
        _key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let update = later(update);
        self.0.lock().push(Box::new(|| update.done(Err(StoreError::NoSpace))));
        None
    }

    fn barrier(&self, _later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        Some(Ok(()))
    }

    fn seq(&self) -> u64 {
        1
    }

    fn len(&self) -> usize {
        0
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn scan(&self, _part: Option<usize>, _shows: Shows) -> Box<dyn Scan> {
        Box::new(Nothing)
    }
}

struct Nothing;

impl Scan for Nothing {
    fn next_batch(&mut self, done: ScanDone) {
        let mut batch = Batch::default();
        batch.is_last = true;
        done(Ok(batch));
    }
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

/// Terms of every kind, none of which is what a function wants.
fn oddities() -> Vec<Vec<u8>> {
    vec![
        encode(|w| _ = w.nil()),
        encode(|w| _ = w.atom("")),
        encode(|w| _ = w.atom("kv")),
        encode(|w| _ = w.integer(-1)),
        encode(|w| _ = w.unsigned(u64::MAX)),
        // A float, and a string of small integers.
        encode(|w| raw(w, &[70, 0x7f, 0xef, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        encode(|w| raw(w, &[107, 0, 2, 0, 255])),
        encode(|w| _ = w.binary(b"\xff\xfe")),
        encode(|w| _ = w.tuple(0)),
        encode(|w| _ = w.tuple(2).atom("global").integer(1)),
        encode(|w| _ = w.tuple(2).atom("kv").atom("not_a_node")),
        encode(|w| _ = w.map(1).map(0).map(0)),
        encode(|w| _ = w.pid(&caller())),
        encode(|w| _ = w.pid(&Pid { node: "k@h".into(), ..caller() })),
        encode(|w| _ = w.reference(&reference(4))),
        // An improper list, a list of options, and one of lists.
        encode(|w| _ = w.list(1).atom("a").atom("b")),
        encode(|w| _ = w.list(1).tuple(2).atom("name").integer(3).nil()),
        encode(|w| {
            (0..200).for_each(|_| _ = w.list(1));
            (0..201).for_each(|_| _ = w.nil());
        }),
        // &Mod.fun/255
        encode(|w| raw(w, &[113, 119, 1, b'a', 119, 1, b'b', 97, 255])),
    ]
}

/// A node with all functions that need no clock.
fn cluster_with_functions() -> Cluster {
    let cluster = cluster();
    cluster.sent.1.store(true, Ordering::Relaxed);
    let dispatch = Arc::clone(&cluster.sent) as Arc<dyn Dispatch>;
    let follow = Arc::clone(&cluster.sent) as Arc<dyn Follow>;
    cluster.registry.functions.connect(Arc::clone(&dispatch));
    cluster.registry.functions.add(Arc::new(Calls));
    cluster.registry.functions.add(Arc::new(KeyValueFunctions::new(dispatch, follow, 1 << 20)));
    cluster
}

/// Every function that is served there; each takes fewer arguments than four.
const SERVED: &[(&str, &[&str])] = &[
    (
        "erlang",
        &[
            "apply",
            "node",
            "is_alive",
            "whereis",
            "is_process_alive",
            "processes",
            "registered",
            "process_info",
        ],
    ),
    ("Elixir.Process", &["whereis", "alive?", "list", "registered", "info"]),
    ("Elixir.Node", &["self", "alive?", "ping"]),
    ("Elixir.GenServer", &["call", "cast", "whereis"]),
    ("gen_server", &["call", "cast"]),
    ("net_adm", &["ping"]),
    ("global", &["whereis_name", "registered_names", "resolve_it"]),
    ("Elixir.KeyValueStore", &["put", "get", "delete", "add_slave"]),
    ("Elixir.KeyValueStoreReplicated", &["put", "get", "delete", "add_slave"]),
    ("Elixir.KeyValueStoreDistributed", &["put", "get", "delete", "add_slave", "start_link"]),
];

#[test]
fn no_argument_of_a_function_panics_or_goes_unanswered() {
    for (module, functions) in SERVED {
        for function in *functions {
            let mut cluster = cluster_with_functions();
            for arity in 0..=4 {
                for odd in oddities() {
                    let arguments = vec![odd; arity];
                    let answers = cluster.say(&erpc(module, function, &arguments));
                    let reply = answers.first().expect("a spawn request is replied to");
                    assert!(
                        reply.starts_with(&[131, 104, 5, 97, 31]),
                        "{module}:{function}/{arity}: {reply:?}"
                    );
                    // By now, or once a server has answered.
                    assert!(answers.len() <= 2, "{module}:{function}/{arity}: {answers:?}");
                }
            }
            assert_eq!(cluster.registry.by_name("kv").map(|(_, kv)| kv.id), Some(cluster.store.id));
            cluster.put("still", "served");
        }
    }
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
fn a_spawn_request_of_any_shape_costs_nobody_but_the_one_who_asks() {
    let odd = oddities();
    let mut cluster = cluster_with_functions();
    // The parts of erpc:execute_call/4 and execute_cast/3, each of them anything, and too few and too many of them.
    for function in ["execute_call", "execute_cast", "execute_anything"] {
        for part in 0..4 {
            for odd in &odd {
                let parts: [&[u8]; 4] =
                    [&encode(|w| _ = w.reference(&reference(9))), &atom("erlang"), &atom("node"), &[106]];
                for len in 0..=6 {
                    let arguments = encode(|w| {
                        w.list(len);
                        for at in 0..len {
                            raw(w, if at == part { odd } else { parts[at % 4] });
                        }
                        w.nil();
                    });
                    let request = spawn_request(("erpc", function, len as i64), &["monitor"], arguments);
                    assert_eq!(cluster.say(&request).len(), 2, "{function}/{len}");
                }
            }
        }
    }
    for odd in &odd {
        // Arguments that are no list, and options that are none.
        assert!(
            !cluster.say(&spawn_request(("erlang", "node", 0), &["link", "monitor"], odd.clone())).is_empty()
        );
        let request = frame(
            |w| {
                w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference(1)).pid(&caller()).pid(&caller());
                w.tuple(3).atom("erlang").atom("node").integer(0);
                raw(w, odd);
            },
            Some(vec![106]),
        );
        assert!(!cluster.say(&request).is_empty());
        for part in 0..6 {
            // What is no spawn request ends the connection, or is answered; nothing of it is left.
            let request = frame(
                |w| {
                    w.tuple(6).unsigned(op::SPAWN_REQUEST);
                    let reference = encode(|w| _ = w.reference(&reference(1)));
                    let (pid, mfa) = (
                        encode(|w| _ = w.pid(&caller())),
                        encode(|w| _ = w.tuple(3).atom("erlang").atom("node").integer(0)),
                    );
                    let parts: [&[u8]; 5] = [&reference, &pid, &pid, &mfa, &[106]];
                    parts
                        .iter()
                        .enumerate()
                        .for_each(|(at, good)| raw(w, if at == part { odd } else { good }));
                },
                Some(vec![106]),
            );
            let _either = cluster.try_say(&request);
        }
    }
    let foreign = frame(
        |w| {
            let foreign = Pid { node: "other@h".into(), ..caller() };
            w.tuple(6).unsigned(op::SPAWN_REQUEST).reference(&reference(1)).pid(&foreign).pid(&caller());
            w.tuple(3).atom("erlang").atom("node").integer(0).nil();
        },
        Some(vec![106]),
    );
    assert_eq!(cluster.try_say(&foreign), Err(PeerError::ForeignSender));
    assert_eq!(cluster.peer.watches(), 0);
    cluster.put("still", "served");
}

#[test]
fn rex_takes_messages_of_any_shape() {
    let odd = oddities();
    let mut cluster = cluster_with_functions();
    for odd in &odd {
        for part in 0..7 {
            // {Pid, {call, M, F, A, GroupLeader}} with something else in the place of one part, or of the whole.
            let pid = encode(|w| _ = w.pid(&caller()));
            let parts: [&[u8]; 6] =
                [&pid, &atom("call"), &atom("erlang"), &atom("node"), &[106], &atom("user")];
            let part_at = |at: usize| if at == part { odd } else { parts[at] };
            let request = |w: &mut TermWriter<'_>| {
                w.tuple(5);
                (1..6).for_each(|at| raw(w, part_at(at)));
            };
            let info = message(to_name("rex"), |w| {
                raw(w.tuple(2), part_at(0));
                if part == 6 { raw(w, odd) } else { request(w) }
            });
            assert!(cluster.say(&info).len() <= 1);
            let call = message(to_name("rex"), |w| gen_call(w, &caller(), tag_ref, request));
            assert!(cluster.say(&call).len() <= 1);
            let cast = message(to_name("rex"), |w| request(w.tuple(2).atom("$gen_cast")));
            assert!(cluster.say(&cast).is_empty());
        }
        for kind in ["sbcast", "send"] {
            let passed_on = message(to_name("rex"), |w| {
                raw(w.tuple(2).pid(&caller()).tuple(3).atom(kind), odd);
                raw(w, odd);
            });
            cluster.say(&passed_on);
        }
        assert!(cluster.say(&message(to_name("rex"), |w| raw(w, odd))).is_empty());
    }
    cluster.put("still", "served");
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
