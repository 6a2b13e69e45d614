//! The connected nodes, and those that are being connected to.

pub mod backoff;
pub mod connect_to;
pub mod erpc;
pub mod events;
pub mod global_name;
pub(in crate::node) mod loopback;
pub(in crate::node) mod names;
pub(in crate::node) mod registration;
pub(in crate::node) mod release;
pub(in crate::node) mod whereis;

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::distribution::handshake::PeerNode;
use crate::distribution::{AliasForm, DistributionFlags, FrameForm, Outbound};
use crate::node::latch::{Latch, Opened};
use crate::node::link::setup::DialError;
use crate::node::now;
use crate::node::peers::connect_to::ConnectedNode;
use crate::node::peers::events::{Listeners, NodeEvent};
use crate::process::{FedNode, Feed, Feeding, More, NoRoom, PeerEvent, Registry, Waiters};

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerDown {
    /// The peer closed it.
    Closed,
    /// The socket failed.
    Io(String),
    /// Nothing came for the whole tick time.
    NetTickTimeout,
    /// The peer took nothing of what waits for it, for [`output_stall_max`](crate::config::Limits::output_stall_max).
    NotReading,
    /// The peer asks for more than it takes: even small answers pile up past
    /// [`outbound_bytes_max`](crate::config::Limits::outbound_bytes_max).
    Crowded,
    /// The peer broke the protocol.
    Protocol(String),
    /// A newer connection under the same name proved the cookie.
    Replaced,
    /// This node ends.
    Shutdown,
    /// A bug of ours: the handling of a message panicked.
    Panicked,
}

impl fmt::Display for PeerDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("connection closed by the peer"),
            Self::Io(error) => write!(f, "connection failed: {error}"),
            Self::NetTickTimeout => f.write_str(
                "nothing was heard for the whole --net-ticktime (is the peer's net_ticktime longer?)",
            ),
            Self::NotReading => f.write_str("the peer reads nothing of what was sent to it"),
            Self::Crowded => f.write_str("the peer asks for more than it reads"),
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Replaced => f.write_str("replaced by a newer connection of the same node"),
            Self::Shutdown => f.write_str("this node ends"),
            Self::Panicked => f.write_str("a message could not be handled (a bug: please report it)"),
        }
    }
}

/// What others have left for the connection's task.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Whole frames, in order.
    pub frames: Outbound,
    /// In order.
    pub events: Vec<PeerEvent>,
    /// Feeds that have more for that node than there was room for.
    pub hungry: Vec<Arc<dyn Feed>>,
    /// Write what waits, then end.
    pub closing: Option<PeerDown>,
    /// Opened when there is room again. `None`: no task waits for that.
    room: Option<Latch>,
    /// The connection has ended, and makes no room any more.
    has_ended: bool,
}

impl Outbox {
    /// A wait for room. After the connection's end it is over at once: the waiting task looks for a connection again.
    fn room_comes(&mut self) -> Opened {
        match self.has_ended {
            // Dropped, it is opened.
            true => Latch::new().opened(),
            false => self.room.get_or_insert_with(Latch::new).opened(),
        }
    }

    /// Has a feed asked again when there is room.
    fn feed_later(&mut self, feed: &Arc<dyn Feed>) {
        if !self.hungry.iter().any(|known| Arc::ptr_eq(known, feed)) {
            self.hungry.push(Arc::clone(feed));
        }
    }

    /// Whether a task or a feed waits for room.
    pub(in crate::node) fn is_room_awaited(&self) -> bool {
        self.room.is_some() || !self.hungry.is_empty()
    }
}

/// What goes over a connection. Its task alone writes it, so that plain loads and stores do; others read.
#[derive(Debug, Default)]
pub(in crate::node) struct Traffic {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// In the connection's own output.
    waiting_bytes: AtomicUsize,
    /// Of it, what others have left.
    others_bytes: AtomicUsize,
}

impl Traffic {
    #[inline]
    pub(in crate::node) fn received(&self, len: usize) {
        add(&self.received_bytes, len);
    }

    #[inline]
    pub(in crate::node) fn sent(&self, len: usize) {
        add(&self.sent_bytes, len);
    }

    #[inline]
    pub(in crate::node) fn waits(&self, all: usize, others: usize) {
        self.waiting_bytes.store(all, Ordering::Relaxed);
        self.others_bytes.store(others, Ordering::Relaxed);
    }

    fn others(&self) -> usize {
        self.others_bytes.load(Ordering::Relaxed)
    }
}

#[inline]
fn add(counter: &AtomicU64, more: usize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more as u64), Ordering::Relaxed);
}

/// A connection in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::node) struct TrafficSeen {
    /// Bytes that were read from it.
    pub(in crate::node) received_bytes: u64,
    /// Bytes that were written to it.
    pub(in crate::node) sent_bytes: u64,
    /// Bytes that wait for it.
    pub(in crate::node) queued_bytes: u64,
    /// Batches of messages that were dropped because too much waited.
    pub(in crate::node) dropped: u64,
}

/// One connected node, as the other tasks see it.
pub struct PeerHandle {
    /// Its full name.
    pub name: Arc<str>,
    /// Which of its lives this is.
    pub creation: u32,
    /// The flags that it offered.
    pub offered: DistributionFlags,
    /// The form of the frames, both ways.
    pub form: FrameForm,
    /// How it is sent answers to aliases.
    pub alias_form: AliasForm,
    /// Its OTP release, once it was asked; `None` where it has none.
    pub(in crate::node) release: OnceLock<Option<u32>>,
    /// Whether `global` runs there, once a hidden node was asked.
    pub(in crate::node) global: OnceLock<bool>,
    outbox: Mutex<Outbox>,
    waker: Mutex<Option<Waker>>,
    /// Batches of frames that were dropped because too much waits here.
    dropped: AtomicU64,
    pub(in crate::node) traffic: Traffic,
    /// Since when it is connected.
    pub(in crate::node) since: Instant,
    ended: Latch,
}

impl PeerHandle {
    pub(in crate::node) fn new(peer: &PeerNode) -> Self {
        let (form, alias_form) = (FrameForm::in_force(peer.in_force), AliasForm::in_force(peer.in_force));
        Self {
            name: peer.name.shared(),
            creation: peer.creation,
            offered: peer.offered,
            form,
            alias_form,
            outbox: Mutex::new(Outbox { frames: Outbound::new(form, alias_form), ..Outbox::default() }),
            release: OnceLock::new(),
            global: OnceLock::new(),
            waker: Mutex::new(None),
            dropped: AtomicU64::new(0),
            traffic: Traffic::default(),
            since: now(),
            ended: Latch::new(),
        }
    }

    /// The node, as its handshake told of it.
    pub(in crate::node) fn connected(&self) -> ConnectedNode {
        ConnectedNode { name: Arc::clone(&self.name), creation: self.creation, offered: self.offered }
    }

    /// The connection in numbers.
    pub(in crate::node) fn seen(&self) -> TrafficSeen {
        let left = self.outbox.lock().frames.len();
        let waiting = self.traffic.waiting_bytes.load(Ordering::Relaxed);
        TrafficSeen {
            received_bytes: self.traffic.received_bytes.load(Ordering::Relaxed),
            sent_bytes: self.traffic.sent_bytes.load(Ordering::Relaxed),
            queued_bytes: (left + waiting) as u64,
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Whether it takes part in the cluster: a visible node, with whose others it shares its `global`.
    pub fn is_visible(&self) -> bool {
        self.offered.contains(DistributionFlags::PUBLISHED)
    }

    /// Whether `global` may run there: on every visible node, and on a hidden BEAM, which has one of its own. What a hidden
    /// node is, its flags tell before anything is asked of it: a kvnode, also one of a command, a C node and Jinterface
    /// offer no atom cache, and every BEAM does.
    pub(in crate::node) fn may_have_global(&self) -> bool {
        const OF_BEAMS: DistributionFlags =
            DistributionFlags::SPAWN.union(DistributionFlags::DIST_HDR_ATOM_CACHE);
        self.is_visible() || self.offered.contains(OF_BEAMS) && self.global.get() != Some(&false)
    }

    /// Leaves something for the connection's task.
    pub fn leave<R>(&self, leave: impl FnOnce(&mut Outbox) -> R) -> R {
        let result = leave(&mut self.outbox.lock());
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }

    /// As [`leave`](Self::leave), from the connection's own task: nobody needs to be woken.
    pub(in crate::node) fn leave_quietly<R>(&self, leave: impl FnOnce(&mut Outbox) -> R) -> R {
        leave(&mut self.outbox.lock())
    }

    /// Leaves whole frames, which empties them, unless more than `bytes_max` wait already.
    fn leave_frames(&self, frames: &mut Outbound, bytes_max: usize) -> Result<(), NoRoom> {
        self.leave(|outbox| {
            if self.others_bytes(outbox) >= bytes_max {
                return Err(NoRoom);
            }
            outbox.frames.append(frames);
            Ok(())
        })
    }

    /// Asks a feed for more, unless `bytes_max` or more wait already: it is asked then when there is room.
    pub(in crate::node) fn feed(
        &self,
        feed: &Arc<dyn Feed>,
        bytes_max: usize,
        registry: &Registry,
        waiters: &Waiters,
    ) {
        let now = now();
        self.leave(|outbox| {
            if outbox.has_ended {
                return;
            }
            let elsewhere = self.traffic.others();
            if elsewhere + outbox.frames.len() >= bytes_max {
                return outbox.feed_later(feed);
            }
            let node = FedNode {
                name: &self.name,
                flags: self.offered,
                frames_bytes_max: bytes_max - elsewhere,
                now,
            };
            let mut out = Feeding::new(node, &mut outbox.frames, registry, waiters);
            if out.ask(&**feed) == More::WhenRoom {
                outbox.feed_later(feed);
            }
        });
    }

    /// Bytes that others have left and that have not been written.
    pub(in crate::node) fn others_bytes(&self, outbox: &Outbox) -> usize {
        outbox.frames.len() + self.traffic.others()
    }

    /// Says that messages were dropped for want of room.
    pub(in crate::node) fn note_dropped(&self) {
        let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if dropped.is_power_of_two() {
            tracing::warn!(
                peer = %self.name, dropped,
                "messages dropped: they come faster than the peer takes them"
            );
        }
    }

    /// There is room again: wakes the tasks that wait for it, and gives the feeds that do.
    pub(in crate::node) fn make_room(&self) -> Vec<Arc<dyn Feed>> {
        self.leave_quietly(|outbox| {
            // Dropped, it is opened.
            outbox.room = None;
            std::mem::take(&mut outbox.hungry)
        })
    }

    /// A wait for room.
    pub(in crate::node) fn room(&self) -> Opened {
        // Woken in case that there is some by now.
        self.leave(Outbox::room_comes)
    }

    /// The connection's task looks into its outbox; woken by `waker` when something is left there later.
    pub(in crate::node) fn collect<R>(&self, waker: &Waker, collect: impl FnOnce(&mut Outbox) -> R) -> R {
        {
            let mut slot = self.waker.lock();
            match &mut *slot {
                Some(known) if known.will_wake(waker) => {}
                slot => *slot = Some(waker.clone()),
            }
        }
        collect(&mut self.outbox.lock())
    }

    /// Asks the connection to write what waits and end.
    pub fn close(&self, why: PeerDown) {
        self.leave(|outbox| {
            outbox.closing.get_or_insert(why);
        });
    }

    /// The connection has ended.
    pub(in crate::node) fn set_ended(&self) {
        self.ended.open();
    }

    /// Nothing that is left from now on goes out: what waits for room is told, and no feed is asked any more.
    pub(in crate::node) fn shut(&self) {
        let hungry = {
            let mut outbox = self.outbox.lock();
            (outbox.room, outbox.has_ended) = (None, true);
            std::mem::take(&mut outbox.hungry)
        };
        drop(hungry);
    }

    /// Waits until the connection has ended.
    pub async fn ended(&self) {
        self.ended.opened().wait().await;
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.name)
    }
}

/// The outcome of a try to connect, shared by all tasks that wait for it.
#[derive(Clone, Debug)]
pub struct Pending {
    done: Opened,
    error: Arc<OnceLock<Arc<DialError>>>,
}

impl Pending {
    /// Waits until the try has ended, either way.
    pub async fn settled(&self) {
        self.done.wait().await;
    }

    /// Why it failed, if it did.
    pub fn error(&self) -> Option<Arc<DialError>> {
        self.error.get().cloned()
    }
}

/// A node that is being connected to.
#[derive(Debug)]
struct Connecting {
    /// What waits for the connection.
    frames: Outbound,
    done: Latch,
    pending: Pending,
}

impl Connecting {
    fn new() -> Self {
        let done = Latch::new();
        let pending = Pending { done: done.opened(), error: Arc::default() };
        Self { frames: Outbound::default(), done, pending }
    }
}

#[derive(Debug)]
enum Slot {
    Connecting(Connecting),
    Up(Arc<PeerHandle>),
}

/// What a look into the table found.
pub enum Found {
    /// Connected.
    Up(Arc<PeerHandle>),
    /// Another task connects.
    Connecting(Pending),
    /// It is for the asker to connect; the table says so to others by now.
    Yours(Pending),
}

/// How many bytes may wait for a node.
#[derive(Clone, Copy, Debug)]
pub(in crate::node) struct QueueBounds {
    /// While it is being connected to.
    pub waiting: usize,
    /// While it is connected.
    pub up: usize,
}

/// What became of frames that were offered.
#[derive(Debug)]
pub(in crate::node) enum Offered {
    /// They go out.
    Taken,
    /// Too much waits for the node; when this is opened, there may be room.
    Full(Opened),
    /// They wait for a connection that it is for the asker to set up; the table says so to others by now.
    Yours,
}

/// What became of frames that were queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Queued {
    /// They go out.
    Taken,
    /// Too much waits for the node.
    NoRoom,
    /// The node is neither connected nor being connected to: that is for the asker to do.
    NotConnected,
}

/// A wait for any node that comes up: see [`Node::arrival`](crate::Node::arrival).
#[derive(Debug)]
pub struct Arrival(Opened);

impl Arrival {
    /// Waits until a node has come up since this wait began.
    pub async fn come(self) {
        self.0.wait().await;
    }
}

/// All connected nodes.
#[derive(Debug, Default)]
pub struct Peers {
    slots: Mutex<AHashMap<Arc<str>, Slot>>,
    /// Closed when the next connection comes up. `None`: no task waits for that.
    next_arrival: Mutex<Option<Latch>>,
    /// How many of them are being connected to.
    connecting: AtomicUsize,
    /// Told of every node that comes up and goes down.
    pub(in crate::node) listeners: Listeners,
}

impl Peers {
    /// The connection to a node, if there is one.
    pub fn get(&self, node: &str) -> Option<Arc<PeerHandle>> {
        match self.slots.lock().get(node) {
            Some(Slot::Up(handle)) => Some(Arc::clone(handle)),
            _ => None,
        }
    }

    /// How many are connected or being connected to.
    pub(in crate::node) fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// How many are being connected to.
    pub(in crate::node) fn connecting(&self) -> usize {
        self.connecting.load(Ordering::Relaxed)
    }

    /// Whether we are dialling that node.
    pub fn is_connecting(&self, node: &str) -> bool {
        matches!(self.slots.lock().get(node), Some(Slot::Connecting(_)))
    }

    /// All connections.
    pub fn all(&self) -> Vec<Arc<PeerHandle>> {
        let slots = self.slots.lock();
        slots
            .values()
            .filter_map(|slot| match slot {
                Slot::Up(handle) => Some(Arc::clone(handle)),
                Slot::Connecting(_) => None,
            })
            .collect()
    }

    /// Finds a connection, or makes the caller the task that connects.
    pub(in crate::node) fn find_or_claim(&self, node: &Arc<str>) -> Found {
        let mut slots = self.slots.lock();
        match slots.get(node) {
            Some(Slot::Up(handle)) => Found::Up(Arc::clone(handle)),
            Some(Slot::Connecting(connecting)) => Found::Connecting(connecting.pending.clone()),
            None => {
                let connecting = Connecting::new();
                let pending = connecting.pending.clone();
                self.connecting.fetch_add(1, Ordering::Relaxed);
                slots.insert(Arc::clone(node), Slot::Connecting(connecting));
                Found::Yours(pending)
            }
        }
    }

    /// As [`queue`](Self::queue), for what may be refused: frames of our own making, which nobody is slowed down by
    /// where the peer does not read. Where there is no connection, they wait for the one that the caller sets up.
    pub(in crate::node) fn offer(&self, node: &Arc<str>, frames: &mut Outbound, bytes_max: usize) -> Offered {
        let handle = {
            let mut slots = self.slots.lock();
            match slots.get_mut(node) {
                Some(Slot::Up(handle)) => Arc::clone(handle),
                Some(Slot::Connecting(connecting)) => {
                    if connecting.frames.len() >= bytes_max {
                        return Offered::Full(connecting.pending.done.clone());
                    }
                    connecting.frames.append(frames);
                    return Offered::Taken;
                }
                None => {
                    let mut connecting = Connecting::new();
                    connecting.frames.append(frames);
                    self.connecting.fetch_add(1, Ordering::Relaxed);
                    slots.insert(Arc::clone(node), Slot::Connecting(connecting));
                    return Offered::Yours;
                }
            }
        };
        handle.leave(|outbox| {
            if handle.others_bytes(outbox) >= bytes_max {
                return Offered::Full(outbox.room_comes());
            }
            outbox.frames.append(frames);
            Offered::Taken
        })
    }

    /// Queues frames for a node that is connected or being connected to, which empties them. What waits is bounded: by
    /// `bytes_max.waiting` for a node that is being connected to, and by `bytes_max.up` for one that is connected.
    pub(in crate::node) fn queue(&self, node: &str, frames: &mut Outbound, bytes_max: QueueBounds) -> Queued {
        let handle = {
            let mut slots = self.slots.lock();
            match slots.get_mut(node) {
                Some(Slot::Up(handle)) => Arc::clone(handle),
                Some(Slot::Connecting(connecting)) => {
                    if connecting.frames.len() + frames.len() > bytes_max.waiting {
                        return Queued::NoRoom;
                    }
                    connecting.frames.append(frames);
                    return Queued::Taken;
                }
                None => return Queued::NotConnected,
            }
        };
        match handle.leave_frames(frames, bytes_max.up) {
            Ok(()) => Queued::Taken,
            Err(NoRoom) => Queued::NoRoom,
        }
    }

    /// Puts a connection in, unless the peer has one: then gives that.
    pub(in crate::node) fn install(&self, handle: &Arc<PeerHandle>) -> Result<(), Arc<PeerHandle>> {
        let mut slots = self.slots.lock();
        if let Some(Slot::Up(old)) = slots.get(&handle.name) {
            return Err(Arc::clone(old));
        }
        let before = slots.insert(Arc::clone(&handle.name), Slot::Up(Arc::clone(handle)));
        if let Some(Slot::Connecting(mut connecting)) = before {
            self.connecting.fetch_sub(1, Ordering::Relaxed);
            handle.leave(|outbox| outbox.frames.append(&mut connecting.frames));
            connecting.done.open();
        }
        drop(slots);
        // Dropped, it is opened.
        self.next_arrival.lock().take();
        Ok(())
    }

    /// A wait for the next node that comes up, from now on: what cannot be reached now may be then, and a name that
    /// nobody knows now may be known.
    pub(in crate::node) fn arrival(&self) -> Arrival {
        let mut next = self.next_arrival.lock();
        Arrival(next.get_or_insert_with(Latch::new).opened())
    }

    /// Waits until a node is no longer being connected to.
    pub(in crate::node) async fn settled(&self, node: &str) {
        let pending = match self.slots.lock().get(node) {
            Some(Slot::Connecting(connecting)) => connecting.pending.clone(),
            _ => return,
        };
        pending.settled().await;
    }

    /// The try to connect has failed, where there is no other connection by now. What waited for it is dropped: `take` is
    /// called before there can be another try, and gives the waiters that are to be told. It must not block.
    pub(in crate::node) fn give_up<R>(
        &self,
        node: &str,
        why: &Arc<DialError>,
        take: impl FnOnce() -> R,
    ) -> Option<R> {
        let mut slots = self.slots.lock();
        let Some(Slot::Connecting(connecting)) = slots.get(node) else { return None };
        connecting.pending.error.get_or_init(|| Arc::clone(why));
        connecting.done.open();
        self.connecting.fetch_sub(1, Ordering::Relaxed);
        slots.remove(node);
        Some(take())
    }

    /// The connection has ended, and why. `take` is as in [`give_up`](Self::give_up).
    pub(in crate::node) fn remove<R>(
        &self,
        handle: &Arc<PeerHandle>,
        why: &PeerDown,
        take: impl FnOnce() -> R,
    ) -> Option<R> {
        let mut slots = self.slots.lock();
        let is_it = matches!(slots.get(&handle.name), Some(Slot::Up(up)) if Arc::ptr_eq(up, handle));
        is_it.then(|| {
            slots.remove(&handle.name);
            // Before there can be another connection, which would be told to have come up.
            self.listeners.tell(|| NodeEvent::Down { node: handle.connected(), reason: why.clone() });
            take()
        })
    }
}
