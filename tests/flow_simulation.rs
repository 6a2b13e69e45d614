//! No cycle of nodes stands still: two and three nodes that ask each other for large values, and put large ones into each
//! other, over links of random rates and with random bounds, in virtual time.
//!
//! ```text
//!   node: Registry, a store, and for each other node a Channel
//!   link: bytes in flight, with a bound each way, moved a random number at a time
//! ```
//!
//! Each connection is the product's own [`Channel`], with the product's own store behind it; the simulation has the sockets.
//! A run ends when every call is settled: answered, or ended by its monitor. It fails where nobody can move before that. Each
//! answer is compared with what was put, and those of one process with the order of its calls. `FLOW_SEEDS=FROM..TO` runs other
//! seeds; a failure prints its seed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvnode::distribution::control::op;
use kvnode::distribution::{
    AliasForm, DistributionFlags, FrameForm, Inbound, InboundLimits, LARGE_BYTES, Outbound, Pace,
    RemoteProcess,
};
use kvnode::etf::{OwnedTerm, Pid, encode};
use kvnode::kv::KeyValueServer;
use kvnode::process::channel::{Channel, ChannelLimits, Step};
use kvnode::process::peer::Surroundings;
use kvnode::process::{Effect, Outcome, Peer, Process, Registry, Waiters};
use kvnode::store::MemoryStore;
use parking_lot::Mutex;

#[path = "support/around.rs"]
mod around;

use around::{Nowhere, around};

/// Seeds that are run where nothing else is said.
const SEEDS: std::ops::Range<u64> = 0..150;
/// Turns after which a run is taken for one that never ends.
const TURNS_MAX: u32 = 2_000_000;

/// A generator of random numbers (splitmix64): the same for a seed, everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// The bytes of one direction of a link.
struct Pipe {
    bytes: VecDeque<u8>,
    bytes_max: usize,
}

/// One end of a connection.
struct End {
    channel: Channel,
    pipe: Pipe,
    /// Planted: reads only while this much waits at most.
    reads_below: usize,
}

struct Node {
    registry: Registry,
    waiters: Waiters,
    store: Arc<Process>,
    later: Vec<Effect>,
    ends: BTreeMap<usize, End>,
    /// What its calls are.
    calls: Vec<Call>,
    /// How they have ended, by their numbers, in that order.
    outcomes: Arc<Mutex<Vec<(usize, Outcome)>>>,
}

/// A call of a process of this node to the store of another.
#[derive(Clone, Copy, Debug)]
struct Call {
    caller: u32,
    to: usize,
    is_put: bool,
    key: u64,
    len: usize,
}

struct World {
    random: Random,
    nodes: Vec<Node>,
    now: Instant,
    turns: u32,
}

fn name(node: usize) -> String {
    format!("n{node}@h")
}

fn value(key: u64, len: usize) -> Vec<u8> {
    encode(|w| {
        w.binary(&vec![key as u8; len]);
    })
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with")]
    fn new(seed: u64, planted: bool) -> Self {
        let mut random = Random(seed);
        let count = 2 + random.below(2);
        let form = random.of(&[FrameForm::DistHeader, FrameForm::DistHeader, FrameForm::PassThrough]);
        let bytes_max = random.of(&[64 << 10, 256 << 10, 1 << 20]);
        let flags = match form {
            FrameForm::DistHeader => DistributionFlags::OFFERED,
            FrameForm::PassThrough => DistributionFlags::OFFERED.difference(DistributionFlags::FRAGMENTS),
        };
        let nodes = (0..count).map(|number| {
            let registry = Registry::new(name(number).into(), 1);
            let server =
                KeyValueServer::new(MemoryStore::default(), Arc::new(Nowhere), Arc::new(Nowhere), 1 << 20);
            let store = registry.spawn(server.shared());
            let ends = (0..count).filter(|other| *other != number).map(|other| {
                let limits = InboundLimits {
                    frame_bytes_max: 64 << 20,
                    unfinished_bytes_max: 64 << 20,
                    unfinished_messages_max: 1 << 10,
                };
                let channel = Channel::new(
                    Peer::new(name(other).into(), flags),
                    Inbound::new(&[], form, limits),
                    random.of(&[AliasForm::AliasSend, AliasForm::AltactSigSend]),
                    60,
                    Pace::new(random.below(2) == 0),
                    ChannelLimits {
                        outbound_bytes_max: bytes_max,
                        owned_bytes_max: bytes_max * 4,
                        output_stall_max: Duration::from_secs(u64::MAX / 4),
                    },
                );
                let pipe = Pipe { bytes: VecDeque::new(), bytes_max: 1 + random.below(300_000) };
                let reads_below = if planted { bytes_max } else { usize::MAX };
                (other, End { channel, pipe, reads_below })
            });
            let ends = ends.collect();
            Node {
                registry,
                waiters: Waiters::default(),
                store,
                later: Vec::new(),
                ends,
                calls: Vec::new(),
                outcomes: Arc::default(),
            }
        });
        let nodes = nodes.collect();
        let mut world = Self { random, nodes, now: Instant::now(), turns: 0 };
        world.ask();
        world
    }

    /// Every node makes its calls, all at once: each process puts and gets, and does not wait for its answers.
    fn ask(&mut self) {
        let count = self.nodes.len();
        for number in 0..count {
            for _ in 0..10 + self.random.below(40) {
                let to = (number + 1 + self.random.below(count - 1)) % count;
                let (caller, key) = (self.random.below(6) as u32, self.random.below(8) as u64);
                let is_put = self.random.below(2) == 0;
                let len = self.random.of(&[1, 100, 10_000, LARGE_BYTES, 300_000, 2_000_000]);
                self.call(number, Call { caller, to, is_put, key, len });
            }
        }
    }

    fn call(&mut self, number: usize, call: Call) {
        let store = self.nodes[call.to].store.pid.clone();
        let node = &mut self.nodes[number];
        let caller = Pid { node: node.registry.node.clone(), id: 1000 + call.caller, serial: 0, creation: 1 };
        let reference = node.registry.new_reference();
        let (at, outcomes) = (node.calls.len(), Arc::clone(&node.outcomes));
        let done = move |outcome| outcomes.lock().push((at, outcome));
        node.waiters.expect_reply(&reference, &store.node, done);
        let mut frames = Outbound::default();
        frames.monitor(&caller, &RemoteProcess::Pid(store.clone()), &reference);
        let open = frames.begin();
        frames.term().tuple(3).unsigned(op::SEND_SENDER).pid(&caller).pid(&store);
        let mut payload = frames.payload();
        payload.tuple(3).atom("$gen_call").tuple(2).pid(&caller);
        payload.list(1).atom("alias").reference(&reference);
        if call.is_put {
            payload.tuple(3).atom("put").unsigned(call.key).raw(&value(call.key, call.len));
        } else {
            payload.tuple(2).atom("get").unsigned(call.key);
        }
        frames.finish(open);
        if let Some(end) = node.ends.get_mut(&call.to) {
            end.channel.push(&mut frames);
        }
        node.calls.push(call);
    }

    /// Bytes move for a while on one link, one way, or what has come is handled. Whether anything was done.
    fn turn(&mut self, from: usize, to: usize) -> bool {
        self.now += Duration::from_micros(1 + self.random.below(2000) as u64);
        let moved = self.write(from, to);
        let read = self.read(to, from);
        moved || read
    }

    fn write(&mut self, from: usize, to: usize) -> bool {
        let (now, most) = (self.now, 1 + self.random.below(200_000));
        let Some(end) = self.nodes[from].ends.get_mut(&to) else { return false };
        let mut moved = false;
        let mut slices = Vec::new();
        while let Some(ready) = end.channel.ready() {
            let room = end.pipe.bytes_max.saturating_sub(end.pipe.bytes.len()).min(most);
            if room == 0 {
                end.channel.full(now);
                break;
            }
            ready.slices(&mut slices);
            let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(room).collect();
            slices = Vec::new();
            assert!(!bytes.is_empty(), "what is ready is not nothing");
            end.pipe.bytes.extend(&bytes);
            end.channel.wrote(bytes.len(), || now);
            moved = true;
        }
        moved
    }

    /// `number` reads what `from` has written to it.
    fn read(&mut self, number: usize, from: usize) -> bool {
        let most = 1 + self.random.below(200_000);
        let arrived: Vec<u8> = {
            let Some(end) = self.nodes[number].ends.get(&from) else { return false };
            if end.channel.waiting_bytes() >= end.reads_below {
                return false;
            }
            let Some(sender) = self.nodes[from].ends.get_mut(&number) else { return false };
            let len = sender.pipe.bytes.len().min(most);
            sender.pipe.bytes.drain(..len).collect()
        };
        let node = &mut self.nodes[number];
        let Node { registry, waiters, ends, later, .. } = node;
        let Some(end) = ends.get_mut(&from) else { return false };
        let around = around(registry, waiters);
        let mut rest: &[u8] = &arrived;
        let mut did = !arrived.is_empty();
        while !rest.is_empty() {
            let mut len = 0;
            for room in end.channel.rooms() {
                let here = room.len().min(rest.len());
                room[..here].copy_from_slice(&rest[..here]);
                rest = &rest[here..];
                len += here;
            }
            end.channel.filled(len);
            did |= settle(&mut end.channel, around, later);
        }
        did | settle(&mut end.channel, around, later)
    }

    /// Runs until every call is settled; gives how often each outcome came.
    fn run(&mut self) -> Result<(usize, usize), String> {
        let links: Vec<(usize, usize)> = (0..self.nodes.len())
            .flat_map(|from| (0..self.nodes.len()).map(move |to| (from, to)))
            .filter(|(from, to)| from != to)
            .collect();
        loop {
            self.turns += 1;
            let (from, to) = self.random.of(&links);
            if !self.turn(from, to) && links.iter().all(|&(from, to)| !self.turn(from, to)) {
                break;
            }
            if self.turns > TURNS_MAX {
                return Err("it never ends".into());
            }
        }
        let (mut answered, mut ended) = (0, 0);
        for node in &self.nodes {
            let outcomes = node.outcomes.lock();
            if outcomes.len() < node.calls.len() {
                let open = node.calls.len() - outcomes.len();
                return Err(format!(
                    "nobody moves, and {open} calls of {:?} are not settled",
                    node.registry.node
                ));
            }
            // The last call of each process to each store that was answered.
            let mut last: BTreeMap<(u32, usize), usize> = BTreeMap::new();
            for (at, outcome) in &*outcomes {
                let call = node.calls[*at];
                match outcome {
                    Outcome::Replied(answer) => {
                        answered += 1;
                        check(&call, answer)?;
                        if let Some(before) = last.insert((call.caller, call.to), *at)
                            && before > *at
                        {
                            return Err(format!("{call:?} is answered behind a later call of its process"));
                        }
                    }
                    Outcome::Down(_) => ended += 1,
                    other => return Err(format!("{call:?} ends by {other:?}")),
                }
            }
        }
        Ok((answered, ended))
    }
}

/// That an answer is one to this call.
fn check(call: &Call, answer: &OwnedTerm) -> Result<(), String> {
    let answer = answer.view();
    let good = if call.is_put {
        answer.is_atom("ok")
    } else {
        answer.is_atom("nil")
            || answer.as_binary().is_some_and(|bytes| bytes.iter().all(|byte| *byte == call.key as u8))
    };
    if good { Ok(()) } else { Err(format!("{call:?} is answered by something else")) }
}

/// Handles what has come; whether that was anything.
fn settle(channel: &mut Channel, around: Surroundings<'_>, later: &mut Vec<Effect>) -> bool {
    let mut did = false;
    while let Step::Handled { .. } = channel.step(around, later).expect("no fault of the peer's") {
        did = true;
    }
    assert!(later.is_empty(), "{later:?}");
    did
}

/// The seeds to run.
fn seeds() -> std::ops::Range<u64> {
    let Ok(said) = std::env::var("FLOW_SEEDS") else { return SEEDS };
    let (from, to) = said.split_once("..").expect("FLOW_SEEDS is FROM..TO");
    from.parse().expect("a number")..to.parse().expect("a number")
}

#[test]
fn nobody_stands_still_while_both_sides_read() {
    let (mut answered, mut ended) = (0, 0);
    for seed in seeds() {
        let (more_answered, more_ended) =
            World::new(seed, false).run().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        answered += more_answered;
        ended += more_ended;
    }
    println!("{answered} calls answered, {ended} ended for want of room");
    assert!(answered > 20 * ended, "{answered} answered, {ended} ended");
}

#[test]
fn a_node_that_stops_reading_while_much_waits_is_found() {
    let stuck = (0..100).find_map(|seed| World::new(seed, true).run().err().map(|error| (seed, error)));
    let (seed, error) = stuck.expect("some seed stands still");
    println!("seed {seed}: {error}");
    assert!(error.starts_with("nobody moves"), "seed {seed}: {error}");
}
