//! What the way of a call allocates, counted: from the bytes of a read to the bytes of the write, a get takes nothing
//! from the allocator, and a put what it keeps.
//!
//! (The counting allocator counts each thread by itself, so that tests beside these do not disturb.)

use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{AliasForm, Arrival, DistributionFlags, FrameForm, Inbound, Outbound};
use kvnode::etf::Pid;
use kvnode::kv::KeyValueServer;
use kvnode::process::peer::Frame;
use kvnode::process::{Effect, Peer, Process, Registry, Waiters};
use kvnode::store::MemoryStore;

#[path = "support/around.rs"]
mod around;
#[path = "support/conversation.rs"]
mod conversation;
#[path = "support/term.rs"]
mod term;

use around::{Nowhere, around};
use conversation::{control, gen_call};
use term::{PEER, Term, binary, term_with};

/// Rounds after which buffers and tables have the size that they need.
const WARM_UP: usize = 200;
/// Rounds that are counted.
const COUNTED: u64 = 1000;

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
        let around = around(registry, waiters);
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

/// Where a request is sent, as MONITOR_P and the request name it.
#[derive(Clone, Copy)]
enum To<'a> {
    Name(&'a str),
    Pid(&'a Pid),
}

impl Term for To<'_> {
    fn encoded(&self) -> Vec<u8> {
        match self {
            Self::Name(name) => name.encoded(),
            Self::Pid(pid) => pid.encoded(),
        }
    }
}

/// A control message, and behind it a payload or nothing, as a BEAM frames them.
fn frame(control: Vec<u8>, payload: &[u8]) -> Vec<u8> {
    let frame = [&[131, 68, 0], &control[..], payload].concat();
    let len = u32::try_from(frame.len()).expect("a small frame");
    [&len.to_be_bytes()[..], &frame].concat()
}

/// A call as a BEAM makes it: MONITOR_P, the request, DEMONITOR_P.
fn call(to: To<'_>, alias: bool, request: impl Term) -> Vec<u8> {
    let monitor = |operation| frame(control(operation, "#PID<0.90.1>, $1, #Reference<0.3.2.1>", &[&to]), &[]);
    let send = match to {
        To::Name(_) => control(op::REG_SEND, "#PID<0.90.1>, :\"\", $1", &[&to]),
        To::Pid(_) => control(op::SEND_SENDER, "#PID<0.90.1>, $1", &[&to]),
    };
    let tag = if alias { "[:alias | #Reference<0.3.2.1>]" } else { "#Reference<0.3.2.1>" };
    [monitor(op::MONITOR_P), frame(send, &gen_call(tag, request)), monitor(op::DEMONITOR_P)].concat()
}

/// Keys of the common kinds, whose bytes are canonical as they come.
const KEYS: [(&str, &str); 5] = [
    ("an atom", ":nombre"),
    ("a binary", "\"a key of some length\""),
    ("a small integer", "7"),
    ("an integer", "-70_000"),
    ("a tuple", "{:user, 70_000, \"name\"}"),
];

fn get(key: &str) -> String {
    format!("{{:get, {key}}}")
}

fn put(key: &str, value: &[u8]) -> Vec<u8> {
    term_with("{:put, $1, $2}", &[&key, &binary(value)])
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
            way.turn(&call(To::Name(":kv"), true, put(key, &vec![7; value_bytes])));
            for to in [To::Name(":kv"), To::Pid(&pid)] {
                for alias in [false, true] {
                    let call = call(to, alias, get(key));
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
    let one = call(To::Name(":kv"), true, get(KEYS[0].1));
    let nil_bytes = way.turn(&one);
    assert_eq!(way.allocations(&one, nil_bytes), 0.0);
    way.turn(&call(To::Name(":kv"), true, put(KEYS[1].1, &[7; 100])));
    let batch: Vec<u8> = KEYS.iter().flat_map(|(_, key)| call(To::Name(":kv"), true, get(key))).collect();
    let batch = batch.repeat(20);
    let answer_bytes = way.turn(&batch);
    assert!(answer_bytes > 20 * (100 + 4 * nil_bytes), "one value and four nils in each repetition");
    assert_eq!(way.allocations(&batch, answer_bytes), 0.0);
}

#[test]
fn a_put_in_the_place_of_a_value_takes_the_one_allocation_that_it_keeps() {
    for (what, key) in KEYS {
        let mut way = Way::new();
        let call = call(To::Name(":kv"), true, put(key, &[7; 100]));
        let answer_bytes = way.turn(&call);
        let found = way.allocations(&call, answer_bytes);
        assert!(found <= 1.0, "{found} by key {what}");
    }
}
