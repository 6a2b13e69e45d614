//! A virtual node: our processes with a store among them, what they wait for, and what they have left to be carried out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvnode::distribution::{DistributionFlags, Outbound};
use kvnode::etf::Pid;
use kvnode::kv::figures::{PrimaryFigures, StoreFigures};
use kvnode::kv::{ConfirmConfig, FollowSlave, KeyValueServer, NewFile, Offer, SlaveEntry, Work};
use kvnode::process::effect::EndedCall;
use kvnode::process::peer::Surroundings;
use kvnode::process::{
    Dispatch, Effect, Feed, GenServer, NoRoom, Peer, Process, ProcessId, Registry, Waiters, WakeRequest,
};
use kvnode::replica::{SlaveName, Source};
use parking_lot::Mutex;

use super::beam::Beam;
use super::drive::Drive;
use super::dropped::Dropped;
use super::shelf::{Data, Look, Memory, Shelf};
use super::shell::Follow;
use super::watches::Watched;

/// The name of every node's store.
pub const STORE: &str = "kv";
/// The node of those who call.
pub const CLIENT: &str = "client@h";

/// A server, whatever its store is.
pub trait Served: GenServer {
    fn source(&self) -> &dyn Source;
    fn slaves(&self) -> Vec<Arc<SlaveEntry>>;
    fn primary(&self) -> Option<PrimaryFigures>;
    /// See [`Look`].
    fn changes(&self) -> u64;
    fn data(&self) -> Data;
    fn data_at(&self, seq: u64) -> Data;
    fn revisions(&self) -> Data;
    fn take_replaced(&self) -> Option<Data>;
    /// When each key ends, by the store's clock; 0: it stays.
    fn ends(&self) -> Data;

    /// As [`Store::next_due`](kvnode::store::Store::next_due).
    fn next_due(&self) -> Option<u64>;

    /// How many nodes have written to a BEAM's.
    fn writers(&self) -> usize {
        0
    }

    /// Whether another node than this has written to a BEAM's.
    fn has_other_writers(&self, _node: &str) -> bool {
        false
    }

    /// A node's store has become another's slave, or was one.
    fn note_unsteady(&self, _node: &str) {}
}

impl<S: Look> Served for KeyValueServer<S> {
    fn source(&self) -> &dyn Source {
        self
    }

    fn slaves(&self) -> Vec<Arc<SlaveEntry>> {
        Self::slaves(self)
    }

    fn primary(&self) -> Option<PrimaryFigures> {
        StoreFigures::primary(self)
    }

    fn changes(&self) -> u64 {
        self.store().changes()
    }

    fn data(&self) -> Data {
        self.store().data(Source::seq(self))
    }

    fn data_at(&self, seq: u64) -> Data {
        self.store().data(seq)
    }

    fn revisions(&self) -> Data {
        self.store().revisions()
    }

    fn take_replaced(&self) -> Option<Data> {
        self.store().take_replaced()
    }

    fn ends(&self) -> Data {
        self.store().ends()
    }

    fn next_due(&self) -> Option<u64> {
        self.store().next_due()
    }
}

/// A feed, and the node that it has something for.
pub type FedAt = (Arc<str>, Arc<dyn Feed>);

/// What goes out beside the connection that a message came by, until it is carried out.
pub struct Posts {
    /// Frames, each with its node.
    pub sent: Mutex<Vec<(Arc<str>, Vec<u8>)>>,
    /// Feeds that were announced.
    pub feeds: Mutex<Vec<FedAt>>,
    /// Slaves that are to be followed.
    pub follow: Mutex<Vec<FollowSlave>>,
    /// What is to be done step by step.
    pub work: Mutex<Vec<Work>>,
    /// What is to be done again and again.
    pub wakes: Mutex<Vec<WakeRequest>>,
    clock: Arc<Mutex<Clock>>,
    /// By so much the machine's clock is ahead of that.
    ahead_ms: i64,
    /// What it said at the start.
    from: Clock,
}

/// What clocks say.
#[derive(Clone, Copy)]
pub struct Clock {
    pub now: Instant,
    /// What people read, in milliseconds since 1970.
    pub unix_ms: u64,
}

/// What they read at first.
pub const UNIX_MS: u64 = 1 << 40;

impl Posts {
    fn new(clock: &Arc<Mutex<Clock>>, ahead_ms: i64) -> Self {
        let (clock, from) = (Arc::clone(clock), *clock.lock());
        Self {
            sent: Mutex::default(),
            feeds: Mutex::default(),
            follow: Mutex::default(),
            work: Mutex::default(),
            wakes: Mutex::default(),
            clock,
            ahead_ms,
            from,
        }
    }
}

impl Posts {
    /// What the store's own clock says.
    pub fn store_ms(&self) -> u64 {
        let since = self.clock.lock().now - self.from.now;
        let millis = u64::try_from(since.as_millis()).expect("not so long");
        self.from.unix_ms.saturating_add_signed(self.ahead_ms) + millis
    }
}

impl kvnode::kv::Follow for Posts {
    fn follow(&self, slave: FollowSlave) {
        self.follow.lock().push(slave);
    }

    fn offer(&self, offer: Offer) {
        panic!("{offer:?}: nobody here has a global name");
    }

    fn work(&self, work: Work) {
        self.work.lock().push(work);
    }

    fn wake(&self, _store: Pid, request: WakeRequest) {
        self.wakes.lock().push(request);
    }

    fn now(&self) -> Instant {
        self.clock.lock().now
    }

    fn unix_ms(&self) -> u64 {
        self.clock.lock().unix_ms.saturating_add_signed(self.ahead_ms)
    }
}

impl Dispatch for Posts {
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        self.sent.lock().extend(frames_of(frames).into_iter().map(|frame| (node.into(), frame)));
        Ok(())
    }

    fn end_call(&self, call: EndedCall) {
        panic!("{call:?} was to end: there is room here");
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        panic!("{process:?} was to end for {reason:?}: nothing here ends");
    }

    fn feed(&self, node: &str, feed: &Arc<dyn Feed>) {
        self.feeds.lock().push((node.into(), Arc::clone(feed)));
    }
}

/// Each frame, from its control message on; empties `out`.
pub fn frames_of(out: &mut Outbound) -> Vec<Vec<u8>> {
    let mut slices = Vec::new();
    out.slices(&mut slices);
    let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
    out.clear();
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let Some((len, after)) = rest.split_first_chunk::<4>() {
        let (frame, after) = after.split_at(u32::from_be_bytes(*len) as usize);
        // erl_dist_protocol, "Protocol between Connected Nodes": the pass-through tag, and the version of the control message.
        assert!(frame.starts_with(&[112, 131]), "{frame:?}");
        frames.push(frame[2..].to_vec());
        rest = after;
    }
    frames
}

/// Something that is done again and again.
pub struct Wake {
    pub due: Instant,
    pub request: WakeRequest,
}

/// A node from its start to its end.
pub struct Life {
    pub incarnation: u64,
    /// It had nothing then.
    pub started_empty: bool,
    /// Slaves that it was started with, and that nobody has added since.
    pub protected: Vec<SlaveName>,
    pub registry: Registry,
    pub waiters: Waiters,
    pub server: Arc<dyn Served>,
    pub store: Arc<Process>,
    pub posts: Arc<Posts>,
    pub dropped: Dropped,
    /// The connection of those who call.
    pub client: Peer,
    pub later: Vec<Effect>,
    /// A slot is empty while its slave is followed by a turn, and once it is followed no more.
    pub follows: Vec<Option<Box<Follow>>>,
    pub hungry: Vec<FedAt>,
    pub wakes: Vec<Wake>,
    pub watched: Option<Watched>,
}

impl Life {
    pub fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            registry: &self.registry,
            waiters: &self.waiters,
            inflated_bytes_max: 1 << 20,
            watches_max: 1_000,
            held_bytes_max: 1 << 10,
            state_bytes_max: 1 << 10,
            timed: None,
        }
    }

    pub fn source(&self) -> &dyn Source {
        self.server.source()
    }
}

/// A node, whether it runs or not.
pub struct VirtualNode {
    pub name: Arc<str>,
    /// Its life's number.
    pub creation: u32,
    /// The slaves that it is started with.
    pub configured: Vec<SlaveName>,
    pub slave_buffer_bytes_max: usize,
    pub memory: Memory,
    /// That had no room at times.
    pub was_full: bool,
    /// Its store is kept there, and else in memory.
    pub drive: Option<Drive>,
    /// That takes its time, so that much is under way.
    pub is_lazy: bool,
    /// By so much its clock is ahead of what people read, in milliseconds.
    pub ahead_ms: i64,
    /// It runs a server of the protocol, and no kvnode.
    pub is_beam: bool,
    /// What that has from its start.
    pub found: Data,
    /// Some of what that is asked to keep fails, also while it follows a primary.
    pub fails: bool,
    pub life: Option<Life>,
    /// The term that it was in when it was last answered that it is promoted, and whose promotion had begun that.
    pub promoted: (u64, u64),
}

impl VirtualNode {
    pub fn new(number: usize, slave_buffer_bytes_max: usize) -> Self {
        Self {
            name: format!("n{number}@h").into(),
            creation: 0,
            configured: Vec::new(),
            slave_buffer_bytes_max,
            memory: Memory::default(),
            was_full: false,
            drive: None,
            is_lazy: false,
            ahead_ms: 0,
            is_beam: false,
            found: Data::new(),
            fails: false,
            life: None,
            promoted: (0, 0),
        }
    }

    /// Its store's name, on other nodes.
    pub fn store_name(&self) -> SlaveName {
        SlaveName::remote(STORE, &self.name)
    }

    /// Starts it, as `kv::serve` starts a store.
    pub fn start(&mut self, incarnation: u64, confirm_timeout: Duration, clock: &Arc<Mutex<Clock>>) {
        match self.drive.clone() {
            _ if self.is_beam => self.start_beam(incarnation, clock),
            Some(drive) => self.start_with(drive, incarnation, confirm_timeout, clock),
            None => self.start_with(Shelf::within(&self.memory.room), incarnation, confirm_timeout, clock),
        }
    }

    fn start_beam(&mut self, incarnation: u64, clock: &Arc<Mutex<Clock>>) {
        self.creation += 1;
        let registry = Registry::new(Arc::clone(&self.name), self.creation);
        let server = Arc::new(Beam::holding(self.found.clone()));
        let store = registry.spawn(Arc::clone(&server) as Arc<_>);
        registry.register(STORE, &store).expect("the name is free");
        self.life = Some(Life {
            incarnation,
            started_empty: true,
            protected: Vec::new(),
            registry,
            waiters: Waiters::default(),
            server,
            store,
            posts: Arc::new(Posts::new(clock, self.ahead_ms)),
            dropped: Dropped::default(),
            client: no_client(),
            later: Vec::new(),
            follows: Vec::new(),
            hungry: Vec::new(),
            wakes: Vec::new(),
            watched: None,
        });
    }

    fn start_with(
        &mut self,
        store: impl Look,
        incarnation: u64,
        confirm_timeout: Duration,
        clock: &Arc<Mutex<Clock>>,
    ) {
        self.creation += 1;
        let kept = KeyValueServer::kept_slaves(&store).expect("it is read");
        let registry = Registry::new(Arc::clone(&self.name), self.creation);
        let (posts, dropped) = (Arc::new(Posts::new(clock, self.ahead_ms)), Dropped::default());
        let file = dropped.clone();
        let new_file: NewFile = Arc::new(move || Ok(("dropped".into(), Box::new(file.clone()))));
        let confirm = ConfirmConfig::default().with_timeout(confirm_timeout);
        let (dispatch, follow) = (Arc::clone(&posts) as Arc<_>, Arc::clone(&posts) as Arc<_>);
        let server = KeyValueServer::new(store, dispatch, follow, self.slave_buffer_bytes_max);
        let server = server.living_as(incarnation).confirmed_by(confirm).dropping_into(new_file);
        let server = server.removing_by(1).shared();
        let store = registry.spawn(Arc::clone(&server) as Arc<_>);
        registry.register(STORE, &store).expect("the name is free");
        server.serve_as(&store.pid);
        let started_empty = server.data().is_empty();
        let kept: Vec<SlaveName> = kept.into_iter().map(|kept| kept.name).collect();
        let protected = self.configured.iter().chain(&kept).cloned().collect();
        for name in self.configured.iter().chain(&kept) {
            if let Some(slave) = server.add_slave(name.clone()).expect("few slaves") {
                slave.protect_data();
                server.follow_slave(slave, &store.pid, None);
            }
        }
        self.life = Some(Life {
            incarnation,
            started_empty,
            protected,
            registry,
            waiters: Waiters::default(),
            server,
            store,
            posts,
            dropped,
            client: Peer::new(CLIENT.into(), DistributionFlags::OFFERED),
            later: Vec::new(),
            follows: Vec::new(),
            hungry: Vec::new(),
            wakes: Vec::new(),
            watched: None,
        });
    }
}

/// In the place of one that is in use.
pub fn no_client() -> Peer {
    Peer::new(CLIENT.into(), DistributionFlags::OFFERED)
}
