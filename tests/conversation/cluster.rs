//! A node with a store, and a peer that says frames to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use kvnode::distribution::control::op;
use kvnode::distribution::inbound::{Arrival, Inbound};
use kvnode::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound, Room};
use kvnode::etf::{Pid, Reference, TermView, TermWriter, encode};
use kvnode::kv::{Follow, FollowSlave, KeyValueFunctions, KeyValueServer, Offer};
use kvnode::process::effect::EndedCall;
use kvnode::process::net_kernel::NetKernel;
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::rpc::Rex;
use kvnode::process::rpc::calls::Calls;
use kvnode::process::{
    Dispatch, Effect, GenServer, NoRoom, Peer, PeerError, Process, ProcessId, Registry, Waiters,
};
use kvnode::store::{MemoryStore, Store};
use parking_lot::Mutex;

use crate::deferred::{Deferred, Manner};

pub const PEER: &str = "m@h";

/// What was sent by the way for answers that come later, whether processes may end by it too, and the slaves that are to be
/// followed.
#[derive(Default)]
pub struct Sent(pub Mutex<Vec<(String, Outbound)>>, pub AtomicBool, pub Mutex<Vec<FollowSlave>>);

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
pub fn now() -> Instant {
    Instant::now()
}

pub struct Cluster {
    pub registry: Registry,
    pub waiters: Waiters,
    pub peer: Peer,
    /// How the peer is sent answers to aliases.
    pub alias_form: AliasForm,
    pub net_kernel: Arc<NetKernel>,
    pub store: Arc<Process>,
    pub sent: Arc<Sent>,
    pub later: Vec<Effect>,
    /// What has room in the output.
    pub room: Room,
    /// The store, where it is one that answers later.
    pub deferred: Option<Deferred>,
}

/// Has every engine answer: memory, and one that answers later, in several orders.
pub fn on_each_engine(test: impl Fn(Cluster)) {
    test(cluster());
    for seed in 0..16 {
        test(cluster_on(Deferred::new(Manner::wild(seed))));
    }
}

/// A store that answers later, and has done so when the next frame is said.
pub fn cluster_on(store: Deferred) -> Cluster {
    let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
    Cluster { deferred: Some(store), ..cluster }
}

pub fn cluster() -> Cluster {
    cluster_with(MemoryStore::default(), DistributionFlags::OFFERED)
}

pub fn cluster_with(store: impl Store, flags: DistributionFlags) -> Cluster {
    let sent = Arc::new(Sent::default());
    let (dispatch, follow) = (Arc::clone(&sent) as Arc<dyn Dispatch>, Arc::clone(&sent) as Arc<dyn Follow>);
    let server = KeyValueServer::new(store, dispatch, follow, 1 << 20).shared();
    cluster_of(server, sent, flags)
}

pub fn cluster_of(server: Arc<dyn GenServer>, sent: Arc<Sent>, flags: DistributionFlags) -> Cluster {
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

pub const fn around<'a>(registry: &'a Registry, waiters: &'a Waiters) -> Surroundings<'a> {
    Surroundings {
        registry,
        waiters,
        inflated_bytes_max: 1 << 20,
        watches_max: 100,
        held_bytes_max: 1 << 10,
        state_bytes_max: 1 << 10,
    }
}

impl Cluster {
    /// Handles one frame; gives the answering frames, each as its control message and payload.
    pub fn say(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.try_say(frame).expect("a good frame")
    }

    pub fn try_say(&mut self, frame: &[u8]) -> Result<Vec<Vec<u8>>, PeerError> {
        let mut out = self.out();
        let frame = Frame::small(frame.get(1..).unwrap_or_default(), FrameForm::PassThrough);
        let Self { registry, waiters, peer, later, .. } = self;
        peer.handle(frame, around(registry, waiters), &mut out, later)?;
        let mut answers = frames_of(&out);
        answers.extend(self.answered_later());
        Ok(answers)
    }

    /// What a store that answers later answers in the end.
    pub fn answered_later(&mut self) -> Vec<Vec<u8>> {
        let Some(store) = &self.deferred else { return Vec::new() };
        while store.step() {}
        let sent = std::mem::take(&mut *self.sent.0.lock());
        sent.iter().flat_map(|(_, frames)| frames_of(frames)).collect()
    }

    pub fn out(&self) -> Outbound {
        let mut out = Outbound::new(FrameForm::PassThrough, self.alias_form);
        out.set_room(self.room);
        out
    }

    /// Handles all that has waited and can be handled now; gives the answering frames.
    pub fn go_on(&mut self) -> Vec<Vec<u8>> {
        let mut out = self.out();
        let Self { registry, waiters, peer, later, .. } = self;
        while peer.deliver_held(around(registry, waiters), &mut out, later).expect("a good frame") {}
        frames_of(&out)
    }

    /// A call to the registered store, with a tag.
    pub fn call(
        &mut self,
        tag: impl FnOnce(&mut TermWriter<'_>),
        request: impl FnOnce(&mut TermWriter<'_>),
    ) -> Vec<Vec<u8>> {
        let frame = message(to_name("kv"), |w| gen_call(w, &caller(), tag, request));
        self.say(&frame)
    }

    pub fn put(&mut self, key: &str, value: &str) {
        let answers = self.call(tag_ref, |w| {
            w.tuple(3).atom("put").atom(key).binary(value.as_bytes());
        });
        assert_eq!(answers, [to_caller(tag_ref, atom("ok"))]);
    }
}

pub fn frames_of(out: &Outbound) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    out.slices(&mut slices);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    frames_in(&bytes)
}

pub fn frames_in(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut inbound = Inbound::new(bytes, FrameForm::PassThrough, 1 << 20);
    let mut frames = Vec::new();
    while let Some(arrival) = inbound.next_arrival().expect("good frames") {
        let Arrival::Frame(range) = arrival else { panic!("a tick") };
        frames.push([&[131], inbound.slice(range)].concat());
    }
    frames
}

pub fn caller() -> Pid {
    Pid { node: PEER.into(), id: 90, serial: 1, creation: 3 }
}

pub fn reference(first: u32) -> Reference {
    Reference { node: PEER.into(), creation: 3, words: vec![first, 2, 3] }
}

pub fn tag_ref(w: &mut TermWriter<'_>) {
    w.reference(&reference(1));
}

pub fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

pub fn raw(w: &mut TermWriter<'_>, encoded: &[u8]) {
    w.term(TermView::parse(encoded).expect("an encoded term"));
}

/// A frame: a control message and, where `payload` writes one, a payload.
pub fn frame(control: impl FnOnce(&mut TermWriter<'_>), payload: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = vec![131];
    control(&mut TermWriter::new(&mut bytes));
    if let Some(payload) = payload {
        bytes.push(131);
        bytes.extend(payload);
    }
    bytes
}

pub fn message(
    control: impl FnOnce(&mut TermWriter<'_>),
    payload: impl FnOnce(&mut TermWriter<'_>),
) -> Vec<u8> {
    frame(control, Some(encode(payload)))
}

pub fn to_name(name: &str) -> impl FnOnce(&mut TermWriter<'_>) {
    move |w| {
        w.tuple(4).unsigned(op::REG_SEND).pid(&caller()).atom("").atom(name);
    }
}

pub fn gen_call(
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
pub fn to_caller(tag: impl FnOnce(&mut TermWriter<'_>), reply: Vec<u8>) -> Vec<u8> {
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

pub fn monitor(to: &str, reference: &Reference) -> Vec<u8> {
    frame(
        |w| {
            w.tuple(4).unsigned(op::MONITOR_P).pid(&caller()).atom(to).reference(reference);
        },
        None,
    )
}

pub fn monitor_exit(from: &str, reference: &Reference, reason: Vec<u8>) -> Vec<u8> {
    frame(
        |w| {
            w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).atom(from).pid(&caller()).reference(reference);
        },
        Some(reason),
    )
}

pub fn payload_of(frame: &[u8]) -> &[u8] {
    let control = kvnode::etf::Cursor::new(&frame[1..]).term().expect("a control message");
    &frame[1 + control.bytes().len() + 1..]
}

/// A node with all functions that need no clock.
pub fn cluster_with_functions() -> Cluster {
    let cluster = cluster();
    cluster.sent.1.store(true, Ordering::Relaxed);
    let dispatch = Arc::clone(&cluster.sent) as Arc<dyn Dispatch>;
    let follow = Arc::clone(&cluster.sent) as Arc<dyn Follow>;
    cluster.registry.functions.connect(Arc::clone(&dispatch));
    cluster.registry.functions.add(Arc::new(Calls));
    cluster.registry.functions.add(Arc::new(KeyValueFunctions::new(dispatch, follow, 1 << 20)));
    cluster
}

pub fn spawn_request(mfa: (&str, &str, i64), options: &[&str], arguments: Vec<u8>) -> Vec<u8> {
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

pub fn erpc(module: &str, function: &str, arguments: &[Vec<u8>]) -> Vec<u8> {
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
