//! Any bytes of a peer that is let in, into a whole node without its sockets: afterwards it still answers a good peer.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, Arrival, DistributionFlags, FrameForm, Inbound, Outbound};
use kvnode::etf::{Pid, Reference, encode};
use kvnode::kv::{Follow, FollowSlave, KeyValueFunctions, KeyValueServer, Offer};
use kvnode::process::effect::EndedCall;
use kvnode::process::net_kernel::NetKernel;
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::rpc::Rex;
use kvnode::process::rpc::calls::Calls;
use kvnode::process::{Dispatch, Effect, NoRoom, Peer, ProcessId, Registry, Waiters, WakeRequest};
use kvnode::store::MemoryStore;
use libfuzzer_sys::fuzz_target;

/// No time passes.
#[expect(clippy::disallowed_methods, reason = "some instant")]
static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What goes elsewhere goes nowhere here.
struct Nowhere;

impl Dispatch for Nowhere {
    fn send(&self, _: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        frames.clear();
        Ok(())
    }

    fn end_call(&self, _: EndedCall) {}

    fn exit(&self, _: ProcessId, _: &[u8]) {}
}

/// Slaves that are added are found nowhere.
impl Follow for Nowhere {
    fn follow(&self, slave: FollowSlave) {
        if let Some(added) = slave.added {
            (added.0)(None);
        }
    }

    fn offer(&self, _: Offer) {}

    /// Once, at once.
    fn wake(&self, _: Pid, mut request: WakeRequest) {
        (request.wake)();
    }

    fn now(&self) -> Instant {
        *STARTED
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

/// Named and numbered as the one that the seeds were said to (seeds.escript).
fn node() -> Registry {
    let registry = Registry::new("k@127.0.0.1".into(), 5);
    let dispatch: Arc<dyn Dispatch> = Arc::new(Nowhere);
    let follow: Arc<dyn Follow> = Arc::new(Nowhere);
    let store =
        KeyValueServer::new(MemoryStore::default(), Arc::clone(&dispatch), Arc::clone(&follow), 1 << 20);
    let processes: [(&str, Arc<dyn kvnode::GenServer>); 3] =
        [("net_kernel", Arc::new(NetKernel::default())), ("rex", Arc::new(Rex)), ("kv", store.shared())];
    for (name, server) in processes {
        let process = registry.spawn(server);
        registry.register(name, &process).expect("the name is free");
    }
    registry.functions.connect(Arc::clone(&dispatch));
    registry.functions.add(Arc::new(Calls));
    registry.functions.add(Arc::new(KeyValueFunctions::new(dispatch, follow, 1 << 20)));
    registry
}

/// Gives all that a peer sends to the node; the bytes that come back, unless the connection ends.
fn converse(
    registry: &Registry,
    waiters: &Waiters,
    peer: &mut Peer,
    form: FrameForm,
    bytes_max: usize,
    sent: &[u8],
) -> Option<usize> {
    let around = Surroundings {
        registry,
        waiters,
        inflated_bytes_max: 1 << 20,
        watches_max: 1000,
        held_bytes_max: 1 << 16,
        state_bytes_max: 1 << 16,
        timed: None,
    };
    let mut inbound = Inbound::new(&[], form, bytes_max);
    let mut out = Outbound::new(form, AliasForm::in_force(DistributionFlags::OFFERED));
    let mut later: Vec<Effect> = Vec::new();
    let mut rest = sent;
    while !rest.is_empty() {
        let [room, _] = inbound.rooms();
        let len = room.len().min(rest.len());
        room[..len].copy_from_slice(&rest[..len]);
        rest = &rest[len..];
        inbound.filled(len);
        loop {
            while peer.deliver_held(around, &mut out, &mut later).ok()? {}
            let arrival = inbound.next_arrival().ok()?;
            let frame = match &arrival {
                None => break,
                Some(Arrival::Tick) => continue,
                Some(Arrival::Frame(range)) => Frame::small(inbound.slice(range.clone()), form),
                Some(Arrival::Large(bytes)) => Frame::large(bytes, form),
                Some(Arrival::Skipped(skipped)) => {
                    peer.settle_skipped(skipped, form, around, &mut out, &mut later).ok()?;
                    continue;
                }
            };
            peer.handle(frame, around, &mut out, &mut later).ok()?;
        }
    }
    Some(out.len())
}

fuzz_target!(|data: &[u8]| {
    let (registry, waiters) = (node(), Waiters::default());
    // With the second bound most of it is skipped.
    for (form, bytes_max) in [FrameForm::DistHeader, FrameForm::PassThrough]
        .into_iter()
        .flat_map(|form| [(form, 1 << 20), (form, 100)])
    {
        let mut bad = Peer::new("b@127.0.0.1".into(), DistributionFlags::OFFERED);
        // As it came, and as one frame of the form.
        let _ended = converse(&registry, &waiters, &mut bad, form, bytes_max, data);
        let framed =
            [&((form.head().len() + data.len()) as u32).to_be_bytes()[..], form.head(), data].concat();
        let _ended = converse(&registry, &waiters, &mut bad, form, bytes_max, &framed);
        bad.connection_lost(
            Surroundings {
                registry: &registry,
                waiters: &waiters,
                inflated_bytes_max: 1 << 20,
                watches_max: 1000,
                held_bytes_max: 1 << 16,
                state_bytes_max: 1 << 16,
                timed: None,
            },
            &mut Vec::new(),
        );
    }
    // A bad peer may end, suspend or rename a store, as it may on a BEAM, and the node's own processes not: those answer.
    let mut good = Peer::new("g@h".into(), DistributionFlags::OFFERED);
    let from = Pid { node: "g@h".into(), id: 1, serial: 0, creation: 1 };
    let tag = Reference { node: "g@h".into(), creation: 1, words: vec![1, 2, 3] };
    let mut frame = encode(|w| {
        w.tuple(4).unsigned(op::REG_SEND).pid(&from).atom("").atom("net_kernel");
    });
    frame.extend(encode(|w| {
        w.tuple(3).atom("$gen_call").tuple(2).pid(&from).reference(&tag).tuple(2).atom("is_auth").atom("g@h");
    }));
    let form = FrameForm::DistHeader;
    let framed =
        [&((form.head().len() + frame.len()) as u32).to_be_bytes()[..], form.head(), &frame].concat();
    let answered = converse(&registry, &waiters, &mut good, form, 1 << 20, &framed);
    assert!(answered.is_some_and(|bytes| bytes > 0), "a good peer is not answered");
});
