//! The connected nodes, and those that are being connected to.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::Instant;

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::channel::{Receiver, Sender};

use super::now;
use super::setup::DialError;
use crate::dist::handshake::PeerNode;
use crate::dist::{AliasForm, DistributionFlags, FrameForm, Outbound};
use crate::etf::Pid;
use crate::process::effect::EndedCall;
use crate::process::{Held, Process, ProcessId};
use crate::replica::Slave;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerDown {
    /// The peer closed it.
    Closed,
    /// The socket failed.
    Io(String),
    /// Nothing came for the whole tick time.
    NetTickTimeout,
    /// The peer took nothing of what waits for it, for [`output_stall_max`](crate::config::Limits::output_stall_max).
    NotReading,
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
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Replaced => f.write_str("replaced by a newer connection of the same node"),
            Self::Shutdown => f.write_str("this node ends"),
            Self::Panicked => f.write_str("a message could not be handled (a bug: please report it)"),
        }
    }
}

/// Something that the connection's task has to do.
#[derive(Debug)]
pub enum PeerEvent {
    /// One of our processes has ended: its watchers are to be told.
    ProcessEnded {
        /// The process.
        process: ProcessId,
        /// The encoded exit reason.
        reason: Arc<[u8]>,
    },
    /// What a lost connection held for suspended processes. Only the node's connection to itself is given any.
    Adopt(Held),
    /// A process has been resumed: what was held for it can be delivered.
    Resumed,
    /// One of our processes has linked itself to one of the peer's. The signal is among the frames.
    Linked {
        /// Ours.
        process: ProcessId,
        /// The peer's.
        remote: Pid,
    },
    /// One of our processes takes its link back: its signal is written now.
    Unlinked {
        /// Ours.
        process: ProcessId,
        /// The peer's.
        remote: Pid,
    },
    /// A call ends by its monitor, which is this connection's.
    EndCall(EndedCall),
}

/// What others have left for the connection's task.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Whole frames, in order.
    pub frames: Outbound,
    /// In order.
    pub events: Vec<PeerEvent>,
    /// Slaves on that node which have writes waiting that did not fit.
    pub hungry: Vec<(Arc<Slave>, Arc<Process>)>,
    /// Write what waits, then end.
    pub closing: Option<PeerDown>,
}

/// What goes over a connection. Its task alone writes it, so that plain loads and stores do; others read.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
    /// In the connection's own output.
    waiting_bytes: AtomicUsize,
}

impl Traffic {
    #[inline]
    pub(super) fn received(&self, len: usize) {
        add(&self.received_bytes, len);
    }

    #[inline]
    pub(super) fn sent(&self, len: usize) {
        add(&self.sent_bytes, len);
    }

    #[inline]
    pub(super) fn waits(&self, len: usize) {
        self.waiting_bytes.store(len, Ordering::Relaxed);
    }
}

#[inline]
fn add(counter: &AtomicU64, more: usize) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(more as u64), Ordering::Relaxed);
}

/// A connection in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TrafficSeen {
    /// Bytes that were read from it.
    pub(super) received_bytes: u64,
    /// Bytes that were written to it.
    pub(super) sent_bytes: u64,
    /// Bytes that wait for it.
    pub(super) queued_bytes: u64,
    /// Batches of messages that were dropped because too much waited.
    pub(super) dropped: u64,
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
    pub(super) release: OnceLock<Option<u32>>,
    /// Whether `global` runs there, once a hidden node was asked.
    pub(super) global: OnceLock<bool>,
    outbox: Mutex<Outbox>,
    waker: Mutex<Option<Waker>>,
    /// Batches of frames that were dropped because too much waits here.
    dropped: AtomicU64,
    pub(super) traffic: Traffic,
    /// Since when it is connected.
    pub(super) since: Instant,
    ended: (Sender<()>, Receiver<()>),
}

impl PeerHandle {
    pub(super) fn new(peer: &PeerNode) -> Self {
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
            ended: smol::channel::bounded(1),
        }
    }

    /// The connection in numbers.
    pub(super) fn seen(&self) -> TrafficSeen {
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
    pub(super) fn may_have_global(&self) -> bool {
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
    pub(super) fn leave_quietly<R>(&self, leave: impl FnOnce(&mut Outbox) -> R) -> R {
        leave(&mut self.outbox.lock())
    }

    /// Leaves whole frames, unless more than `bytes_max` wait already: then they are dropped.
    fn leave_frames(&self, frames: &mut Outbound, bytes_max: usize) {
        let fits = self.leave(|outbox| {
            let fits = outbox.frames.len() < bytes_max;
            if fits {
                outbox.frames.append(frames);
            }
            fits
        });
        if !fits {
            frames.clear();
            let dropped = self.dropped.fetch_add(1, Ordering::Relaxed) + 1;
            if dropped.is_power_of_two() {
                tracing::warn!(peer = %self.name, dropped, "messages dropped: the peer does not read what waits for it");
            }
        }
    }

    /// The connection's task looks into its outbox; woken by `waker` when something is left there later.
    pub(super) fn collect<R>(&self, waker: &Waker, collect: impl FnOnce(&mut Outbox) -> R) -> R {
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
    pub(super) fn set_ended(&self) {
        self.ended.1.close();
    }

    /// Waits until the connection has ended.
    pub async fn ended(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.ended.1.recv().await.is_ok() {}
    }
}

impl fmt::Debug for PeerHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Peer({})", self.name)
    }
}

/// The outcome of a try to connect, shared by all who wait for it.
#[derive(Clone, Debug)]
pub struct Pending {
    done: Receiver<()>,
    error: Arc<OnceLock<Arc<DialError>>>,
}

impl Pending {
    /// Waits until the try has ended, either way.
    pub async fn settled(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.done.recv().await.is_ok() {}
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
    done: Sender<()>,
    pending: Pending,
}

impl Connecting {
    fn new() -> Self {
        let (done, receiver) = smol::channel::bounded(1);
        let pending = Pending { done: receiver, error: Arc::default() };
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
    /// Somebody connects.
    Connecting(Pending),
    /// It is for the asker to connect; the table says so to others by now.
    Yours(Pending),
}

/// How many bytes may wait for a node before what comes after is dropped.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueBounds {
    /// While it is being connected to.
    pub waiting: usize,
    /// While it is connected.
    pub up: usize,
}

/// What became of frames that were offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offered {
    /// They go out.
    Taken,
    /// Too much waits for the node.
    Full,
    /// They wait for a connection that it is for the asker to set up; the table says so to others by now.
    Yours,
}

/// A wait for any node that comes up.
#[derive(Debug)]
pub(super) struct Arrival(Receiver<()>);

impl Arrival {
    /// Waits until a node has come up since [`Peers::arrival`] was called.
    pub async fn come(self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.0.recv().await.is_ok() {}
    }
}

/// All connected nodes.
#[derive(Debug, Default)]
pub struct Peers {
    slots: Mutex<AHashMap<Arc<str>, Slot>>,
    /// Closed when the next connection comes up; there once somebody waits.
    next_arrival: Mutex<Option<(Sender<()>, Receiver<()>)>>,
    /// How many of them are being connected to.
    connecting: AtomicUsize,
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
    pub fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many are being connected to.
    pub(super) fn connecting(&self) -> usize {
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

    /// Finds a connection, or makes the asker the one who connects.
    pub(super) fn find_or_claim(&self, node: &Arc<str>) -> Found {
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
    pub(super) fn offer(&self, node: &Arc<str>, frames: &mut Outbound, bytes_max: usize) -> Offered {
        let handle = {
            let mut slots = self.slots.lock();
            match slots.get_mut(node) {
                Some(Slot::Up(handle)) => Arc::clone(handle),
                Some(Slot::Connecting(connecting)) => {
                    if connecting.frames.len() >= bytes_max {
                        return Offered::Full;
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
            if outbox.frames.len() >= bytes_max {
                return Offered::Full;
            }
            outbox.frames.append(frames);
            Offered::Taken
        })
    }

    /// Queues frames for a node that is connected or being connected to; `false`: it is neither, and it is for
    /// the caller to connect. What waits is bounded: past `bytes_max.waiting` of one that is being connected to, and past
    /// `bytes_max.up` of one that is connected, it is dropped.
    pub(super) fn queue(&self, node: &str, frames: &mut Outbound, bytes_max: QueueBounds) -> bool {
        let handle = {
            let mut slots = self.slots.lock();
            match slots.get_mut(node) {
                Some(Slot::Up(handle)) => Arc::clone(handle),
                Some(Slot::Connecting(connecting)) => {
                    if connecting.frames.len() + frames.len() <= bytes_max.waiting {
                        connecting.frames.append(frames);
                    } else {
                        tracing::warn!(node, "messages dropped: too many wait for the connection");
                        frames.clear();
                    }
                    return true;
                }
                None => return false,
            }
        };
        handle.leave_frames(frames, bytes_max.up);
        true
    }

    /// Puts a connection in, unless there is one: then that one is given back.
    pub(super) fn install(&self, handle: &Arc<PeerHandle>) -> Result<(), Arc<PeerHandle>> {
        let mut slots = self.slots.lock();
        if let Some(Slot::Up(old)) = slots.get(&handle.name) {
            return Err(Arc::clone(old));
        }
        let before = slots.insert(Arc::clone(&handle.name), Slot::Up(Arc::clone(handle)));
        if let Some(Slot::Connecting(mut connecting)) = before {
            self.connecting.fetch_sub(1, Ordering::Relaxed);
            handle.leave(|outbox| outbox.frames.append(&mut connecting.frames));
            connecting.done.close();
        }
        drop(slots);
        if let Some((sender, _)) = self.next_arrival.lock().take() {
            sender.close();
        }
        Ok(())
    }

    /// A wait for the next node that comes up, from now on: what cannot be reached now may be then, and a name that
    /// nobody knows now may be known.
    pub(super) fn arrival(&self) -> Arrival {
        let mut next = self.next_arrival.lock();
        let (_, receiver) = next.get_or_insert_with(|| smol::channel::bounded(1));
        Arrival(receiver.clone())
    }

    /// Waits until a node is no longer being connected to.
    pub(super) async fn settled(&self, node: &str) {
        let pending = match self.slots.lock().get(node) {
            Some(Slot::Connecting(connecting)) => connecting.pending.clone(),
            _ => return,
        };
        pending.settled().await;
    }

    /// The try to connect has failed. What waited for it is dropped.
    pub(super) fn give_up(&self, node: &str, why: &Arc<DialError>) {
        let mut slots = self.slots.lock();
        if let Some(Slot::Connecting(connecting)) = slots.get(node) {
            connecting.pending.error.get_or_init(|| Arc::clone(why));
            connecting.done.close();
            self.connecting.fetch_sub(1, Ordering::Relaxed);
            slots.remove(node);
        }
    }

    /// The connection has ended.
    pub(super) fn remove(&self, handle: &Arc<PeerHandle>) {
        let mut slots = self.slots.lock();
        if matches!(slots.get(&handle.name), Some(Slot::Up(up)) if Arc::ptr_eq(up, handle)) {
            slots.remove(&handle.name);
        }
    }
}
