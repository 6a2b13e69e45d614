//! What the way of a call allocates, counted: from the bytes of a read to the bytes of the write, a get takes nothing
//! from the allocator, and a put what it keeps.
//!
//! (The counting allocator counts each thread by itself, so that tests beside these do not disturb.)

use std::sync::Arc;
use std::time::Instant;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, Arrival, DistributionFlags, FrameForm, Inbound, Outbound};
use kvnode::etf::{Pid, Reference, TermWriter};
use kvnode::kv::{Follow, FollowSlave, KeyValueServer, Offer};
use kvnode::process::effect::EndedCall;
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::{Dispatch, Effect, NoRoom, Peer, Process, Registry, Waiters};
use kvnode::store::MemoryStore;

const PEER: &str = "m@h";
/// Rounds after which buffers and tables have the size that they need.
const WARM_UP: usize = 200;
/// Rounds that are counted.
const COUNTED: u64 = 1000;

/// Nothing here is answered later, or by another connection.
struct Nowhere;

impl Dispatch for Nowhere {
    fn send(&self, node: &str, _frames: &mut Outbound) -> Result<(), NoRoom> {
        panic!("something was sent to {node} by the way");
    }

    fn end_call(&self, call: EndedCall) {
        panic!("{call:?} was to end: there is room here");
    }

    fn exit(&self, process: kvnode::process::ProcessId, _reason: &[u8]) {
        panic!("nothing ends here: {process:?}");
    }
}

impl Follow for Nowhere {
    fn follow(&self, slave: FollowSlave) {
        panic!("nobody has slaves here: {slave:?}");
    }

    fn offer(&self, offer: Offer) {
        panic!("nobody has a name in global here: {offer:?}");
    }

    fn now(&self) -> Instant {
        unreachable!("nobody has slaves here")
    }
}

/// A connection without its socket.
struct Way {
    registry: Registry,
    waiters: Waiters,
    store: Arc<Process>,
    peer: Peer,
    inbound: Inbound,
    out: Outbound,
    later: Vec<Effect>,
}

impl Way {
    fn new() -> Self {
        let registry = Registry::new("k@h".into(), 5);
        let server =
            KeyValueServer::new(MemoryStore::default(), Arc::new(Nowhere), Arc::new(Nowhere), 1 << 20);
        let store = registry.spawn(server.shared());
        registry.register("kv", &store).expect("the name is free");
        Self {
            registry,
            waiters: Waiters::default(),
            store,
            peer: Peer::new(PEER.into(), DistributionFlags::OFFERED),
            inbound: Inbound::new(&[], FrameForm::DistHeader, 1 << 20),
            out: Outbound::new(FrameForm::DistHeader, AliasForm::AltactSigSend),
            later: Vec::new(),
        }
    }

    /// One turn of a connection's loop: a read that brings these bytes, and a write that takes all there is. Gives the
    /// number of bytes written.
    fn turn(&mut self, read: &[u8]) -> usize {
        let Self { registry, waiters, peer, inbound, out, later, .. } = self;
        let around = Surroundings {
            registry,
            waiters,
            inflated_bytes_max: 1 << 20,
            watches_max: 1 << 10,
            held_bytes_max: 1 << 20,
            state_bytes_max: 1 << 20,
        };
        let mut left = read;
        while !left.is_empty() {
            let [room, _] = inbound.rooms();
            let len = room.len().min(left.len());
            room[..len].copy_from_slice(&left[..len]);
            left = &left[len..];
            inbound.filled(len);
            while let Some(arrival) = inbound.next_arrival().expect("good frames") {
                let Arrival::Frame(range) = arrival else { panic!("a tick") };
                peer.handle(Frame::small(inbound.slice(range), FrameForm::DistHeader), around, out, later)
                    .expect("a good frame");
            }
        }
        assert!(later.is_empty(), "nothing is left to be done elsewhere");
        let written = out.single_slice().expect("small answers are one run of bytes").len();
        out.advance(written);
        written
    }

    /// Allocations in one turn, once warm. Each turn must write `answer_bytes`.
    fn allocations(&mut self, read: &[u8], answer_bytes: usize) -> f64 {
        for _ in 0..WARM_UP {
            self.turn(read);
        }
        let counted = allocation_counter::measure(|| {
            for _ in 0..COUNTED {
                assert_eq!(self.turn(read), answer_bytes);
            }
        });
        counted.count_total as f64 / COUNTED as f64
    }
}

fn caller() -> Pid {
    Pid { node: PEER.into(), id: 90, serial: 1, creation: 3 }
}

fn reference() -> Reference {
    Reference { node: PEER.into(), creation: 3, words: vec![1, 2, 3] }
}

/// Where a request is sent, as MONITOR_P and the request name it.
#[derive(Clone, Copy)]
enum To<'a> {
    Name(&'a str),
    Pid(&'a Pid),
}

impl To<'_> {
    fn write(self, w: &mut TermWriter<'_>) {
        match self {
            Self::Name(name) => w.atom(name),
            Self::Pid(pid) => w.pid(pid),
        };
    }
}

fn frame(
    control: impl FnOnce(&mut TermWriter<'_>),
    payload: Option<&dyn Fn(&mut TermWriter<'_>)>,
) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 0, 131, 68, 0];
    control(&mut TermWriter::new(&mut bytes));
    if let Some(payload) = payload {
        payload(&mut TermWriter::new(&mut bytes));
    }
    let len = u32::try_from(bytes.len() - 4).expect("a small frame");
    bytes[..4].copy_from_slice(&len.to_be_bytes());
    bytes
}

/// A call as a BEAM makes it: MONITOR_P, the request, DEMONITOR_P.
fn call(to: To<'_>, alias: bool, request: &dyn Fn(&mut TermWriter<'_>)) -> Vec<u8> {
    let monitor = |operation| {
        frame(
            |w| {
                w.tuple(4).unsigned(operation).pid(&caller());
                to.write(w);
                w.reference(&reference());
            },
            None,
        )
    };
    let send = |w: &mut TermWriter<'_>| match to {
        To::Name(name) => {
            w.tuple(4).unsigned(op::REG_SEND).pid(&caller()).atom("").atom(name);
        }
        To::Pid(pid) => {
            w.tuple(3).unsigned(op::SEND_SENDER).pid(&caller()).pid(pid);
        }
    };
    let message = |w: &mut TermWriter<'_>| {
        w.tuple(3).atom("$gen_call").tuple(2).pid(&caller());
        if alias {
            w.list(1).atom("alias");
        }
        w.reference(&reference());
        request(w);
    };
    [monitor(op::MONITOR_P), frame(send, Some(&message)), monitor(op::DEMONITOR_P)].concat()
}

type Key = fn(&mut TermWriter<'_>);

/// Keys of the common kinds, whose bytes are canonical as they come.
const KEYS: [(&str, Key); 5] = [
    ("an atom", |w| {
        w.atom("nombre");
    }),
    ("a binary", |w| {
        w.binary(b"a key of some length");
    }),
    ("a small integer", |w| {
        w.integer(7);
    }),
    ("an integer", |w| {
        w.integer(-70_000);
    }),
    ("a tuple", |w| {
        w.tuple(3).atom("user").integer(70_000).binary(b"name");
    }),
];

fn get(key: Key) -> impl Fn(&mut TermWriter<'_>) {
    move |w| {
        w.tuple(2).atom("get");
        key(w);
    }
}

fn put(key: Key, value: &[u8]) -> impl Fn(&mut TermWriter<'_>) {
    move |w| {
        w.tuple(3).atom("put");
        key(w);
        w.binary(value);
    }
}

#[test]
fn the_counter_counts() {
    let counted = allocation_counter::measure(|| drop(std::hint::black_box(vec![1_u8; 10])));
    assert_eq!(counted.count_total, 1);
}

#[test]
fn a_get_takes_no_allocation_between_the_read_and_the_write() {
    let mut way = Way::new();
    let pid = way.store.pid.clone();
    for (what, key) in KEYS {
        for value_bytes in [0, 100, 10_000] {
            way.turn(&call(To::Name("kv"), true, &put(key, &vec![7; value_bytes])));
            for to in [To::Name("kv"), To::Pid(&pid)] {
                for alias in [false, true] {
                    let call = call(to, alias, &get(key));
                    let answer_bytes = way.turn(&call);
                    assert!(answer_bytes > value_bytes, "the value is in the answer");
                    let found = way.allocations(&call, answer_bytes);
                    assert_eq!(found, 0.0, "by key {what}, alias {alias}, {value_bytes} bytes");
                }
            }
        }
    }
}

#[test]
fn a_get_of_nothing_and_a_batch_of_gets_take_no_allocation() {
    let mut way = Way::new();
    let one = call(To::Name("kv"), true, &get(KEYS[0].1));
    let nil_bytes = way.turn(&one);
    assert_eq!(way.allocations(&one, nil_bytes), 0.0);
    way.turn(&call(To::Name("kv"), true, &put(KEYS[1].1, &[7; 100])));
    let batch: Vec<u8> = KEYS.iter().flat_map(|(_, key)| call(To::Name("kv"), true, &get(*key))).collect();
    let batch = batch.repeat(20);
    let answer_bytes = way.turn(&batch);
    assert!(answer_bytes > 20 * (100 + 4 * nil_bytes), "one value and four nils in each repetition");
    assert_eq!(way.allocations(&batch, answer_bytes), 0.0);
}

#[test]
fn a_put_in_the_place_of_a_value_takes_the_one_allocation_that_it_keeps() {
    for (what, key) in KEYS {
        let mut way = Way::new();
        let call = call(To::Name("kv"), true, &put(key, &[7; 100]));
        let answer_bytes = way.turn(&call);
        let found = way.allocations(&call, answer_bytes);
        assert!(found <= 1.0, "{found} by key {what}");
    }
}
