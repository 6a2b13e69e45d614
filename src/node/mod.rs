//! The shell of the library: sockets, tasks and the clock.
//!
//! [`Node::builder`] starts a node, [`Node::serve`] and [`Node::serve_inline`] its processes. Connections are tasks on an
//! executor of their own, with a thread for each core, and servers with a mailbox on another (`life/workers.rs` says why);
//! each connection owns its socket and its peer's tables, and hands what concerns others to `Node::carry_out` once per
//! batch.

mod latch;
mod life;
mod link;
mod modules;
mod peers;
mod server;
#[doc(hidden)]
pub mod test;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncWrite};

/// What functions print that this node calls on others.
#[doc(hidden)]
pub mod printed {
    pub use crate::process::group_leader::{Printed, text};
}

pub use life::builder::{NodeBuilder, PeerFault};
pub use life::run::StartError;
pub use life::snapshot::{PeerSnapshot, ServerSnapshot, Snapshot};
#[doc(hidden)]
pub use life::stop::Resource;
pub use life::workers::unblock;

#[doc(hidden)]
pub use crate::process::latency;
#[doc(hidden)]
pub use life::{cookie_file, functions};
pub use link::setup::DialError;
pub use link::tls::TlsError;
#[doc(hidden)]
pub use link::{setup, tls};
pub use modules::{Arguments, Module, Raise};
#[doc(hidden)]
pub use peers::Arrival;
pub use peers::PeerDown;
pub use peers::connect_to::ConnectedNode;
pub use peers::erpc;
pub use peers::events::{NodeEvent, NodeEvents};
pub use peers::global_name::{GlobalName, Registration};
pub use server::asks::Ask;
pub use server::client::{Client, Monitor, Watch};
pub use server::context::Context;
pub use server::grouped::{SuperviseGroup, SupervisedGroup};
#[doc(hidden)]
pub use server::held_names::{FormerHolder, HeldNames};
pub use server::inbox::{Inbox, Mail, ReceiveError};
pub use server::monitors::{Down, MonitorRef};
pub use server::own::{NotTold, ServerHandle};
pub use server::process_handle::ProcessHandle;
pub use server::reply_to::{NotReplied, ReplyTo};
pub use server::supervised::NotNamed;
pub use server::tasks::TaskRef;
pub use server::timers::TimerRef;
pub use server::{Never, Server};

use crate::clock::{Sleep, now};
use crate::config::Config;
use crate::distribution::handshake::{Fault, HandshakeError, Local};
use crate::distribution::{DistributionFlags, NodeAtError, NodeName, Outbound};
use crate::epmd::EpmdStart;
use crate::etf::{OwnedTerm, Pool};
use crate::process::effect::EndedCall;
use crate::process::mailbox::Mailbox;
use crate::process::net_kernel::{NetKernel, Print};
use crate::process::peer::Surroundings;
use crate::process::{
    Dispatch, Effect, Ended, Feed, NoRoom, PeerEvent, Process, ProcessId, Registry, Unreached, Waiters, exits,
};
use crate::within::within;
use life::figures::Figures;
use life::stop::Ending;
use life::threads;
use life::workers::{Crew, Runtime};
use link::connection::Connection;
use link::dedicated::{self, Left};
use link::socket::Waits;
use link::tls::Tls;
use peers::names::{self, Names};
use peers::{Found, PeerHandle, Peers, QueueBounds, Queued};
use server::supervised::Supervision;
use server::{client, timers};
use test::World;

/// A running node: what its processes are started on, and what messages to other nodes go out by.
///
/// It is had from [`Node::builder`], as an `Arc`: cheap to clone, and usable from every thread. Its futures run on any
/// executor, since the node brings threads of its own; [`block_on`] waits for one where there is no executor.
///
/// The node runs until [`stop`](Self::stop), also when nobody holds it any more.
pub struct Node {
    config: Config,
    registry: Registry,
    waiters: Waiters,
    peers: Peers,
    names: Names,
    supervision: Supervision,
    net_kernel: Arc<NetKernel>,
    /// The process of `net_kernel`: what calls of our own come from.
    net_kernel_process: Arc<Process>,
    /// Memory of large values.
    pool: Arc<Pool>,
    /// Of connections. Held by its threads alone: with them its tasks end.
    links: Weak<Crew>,
    /// Of servers and tasks of the program, likewise.
    work: Weak<Crew>,
    /// What all threads of the node run in.
    runtime: Runtime,
    /// Connections that run on a thread of their own.
    threads: AtomicUsize,
    /// The node ends: nobody is dialled or let in any more.
    stopping: AtomicBool,
    ending: Ending,
    /// Told of the end.
    resources: Mutex<Vec<Arc<dyn Resource>>>,
    /// `None`: the node speaks TCP.
    tls: Option<Tls>,
    listening: SocketAddr,
    /// `None`: the cluster is without epmd.
    epmd: Option<EpmdStart>,
    /// Ports of nodes that epmd is not asked for: as many as the configuration and this program's own calls name.
    ports: Mutex<BTreeMap<NodeName, u16>>,
    /// What is counted of it.
    figures: Figures,
    /// Of the servers that have one.
    mailboxes: Mutex<AHashMap<ProcessId, Arc<Mailbox>>>,
    /// Dropped when the process ends.
    ends: Mutex<AHashMap<ProcessId, End>>,
    /// The other nodes, where a test plays them.
    world: Option<Arc<World>>,
    this: Weak<Self>,
}

/// Closed when a process ends: nothing is ever sent.
type End = (Sender<()>, Receiver<()>);

impl Node {
    /// Has what functions print that this node calls on others given to `print`, instead of the log. Said once.
    #[doc(hidden)]
    pub fn print_to(&self, print: Print) {
        self.net_kernel.print_to(print);
    }

    /// Begins to say what a node is started with. `name` is `name@host`, or a name alone on this host: as `erl -name`
    /// takes it where the host has a domain or is an address, else as `erl -sname` does. All nodes of a cluster have
    /// names of one kind.
    ///
    /// The node is a hidden one: it is connected to the nodes that it talks to, and not to all of a cluster.
    pub fn builder(name: &str) -> NodeBuilder {
        NodeBuilder::new(name)
    }

    /// Finds what a configuration alone tells to be wrong, the TLS files with it, before anything is started: for a program
    /// that has more to open before its node.
    ///
    /// # Errors
    /// The configuration's: see [`StartError`].
    #[doc(hidden)]
    pub fn check(config: &Config) -> Result<(), StartError> {
        life::run::check(config).map(drop)
    }

    /// Starts a node of a whole configuration, as [`NodeBuilder::start_async`] does of one that is said piece by piece.
    /// `prepare` starts its processes: they are there before others can connect. What it gives comes back beside the node.
    ///
    /// # Errors
    /// See [`StartError`], and those of `prepare`: then there is no node.
    #[doc(hidden)]
    pub async fn start_with<T, E: From<StartError>>(
        config: Config,
        prepare: impl FnOnce(&Arc<Self>) -> Result<T, E>,
    ) -> Result<(Arc<Self>, T), E> {
        life::run::start(config, Runtime::here(), prepare).await
    }

    /// Its full name.
    pub const fn name(&self) -> &NodeName {
        &self.config.node_name
    }

    /// Where it listens. Port 0: it does not ([`NodeBuilder::outgoing_only`]).
    pub const fn listening(&self) -> SocketAddr {
        self.listening
    }

    /// The epmd that it is registered with, unless it is [`NodeBuilder::outgoing_only`]: then the one of this machine. `None`:
    /// it is one [`without_epmd`](NodeBuilder::without_epmd).
    #[doc(hidden)]
    pub const fn epmd(&self) -> Option<&EpmdStart> {
        self.epmd.as_ref()
    }

    /// Reads the files of [`Config::tls`] again: certificates, keys and CAs count for every connection from now on, and
    /// those that stand go on as they are. Without TLS it does nothing. The `kvnode` program does this on SIGHUP.
    ///
    /// # Errors
    /// As for the start. What was read before stays in force.
    pub fn reload_tls(&self) -> Result<(), TlsError> {
        self.tls.as_ref().map_or(Ok(()), Tls::reload)
    }

    /// The names of the nodes that it is connected to: visible and hidden ones, in no order.
    pub fn connected(&self) -> Vec<NodeName> {
        let peers = self.peers.all();
        let names = peers.iter().filter(|peer| peer.name != self.registry.node);
        names.filter_map(|peer| NodeName::new(&peer.name).ok()).collect()
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn offered(&self) -> DistributionFlags {
        if self.config.fragments {
            DistributionFlags::OFFERED
        } else {
            DistributionFlags::OFFERED.difference(DistributionFlags::FRAGMENTS)
        }
    }

    fn local(&self) -> Local {
        Local {
            name: self.config.node_name.clone(),
            creation: self.registry.creation,
            flags: self.offered(),
            cookie: self.config.cookie.clone(),
        }
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            registry: &self.registry,
            waiters: &self.waiters,
            inflated_bytes_max: self.config.limits.frame_bytes_max,
            watches_max: self.config.limits.watches_max,
            held_bytes_max: self.config.limits.held_bytes_max,
            state_bytes_max: self.config.limits.state_bytes_max,
            timed: None,
        }
    }

    /// Does what a batch of messages has asked for.
    fn carry_out(&self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                // By way of this node to another: the sender must not fill our memory with what that node does not read,
                // and it is not for that node to be disconnected for it.
                Effect::Send { node, mut frames, answers } => {
                    let up = self.config.limits.outbound_bytes_max;
                    let up = if *node == *self.registry.node { usize::MAX } else { up };
                    if self.send_up_to(&node, &mut frames, up).is_err() {
                        match answers {
                            Some(call) => Dispatch::end_call(self, *call),
                            None => self.note_dropped(&node),
                        }
                    }
                }
                Effect::Feed(node, feed) => Dispatch::feed(self, &node, &feed),
                Effect::Wake(request) => self.spawn(timers::wake(*request)),
                Effect::ReleaseGlobal { name } => self.spawn_with(|node| names::release(node, name)),
                Effect::Exited(ended) => self.ended_here(&ended),
                Effect::Orphaned(held) => {
                    if let Some(own) = self.peers.get(&self.registry.node) {
                        own.leave(|outbox| outbox.events.push(PeerEvent::Adopt(held)));
                    }
                }
                Effect::Resumed(process) => {
                    let holders = self.process(process).map(|process| process.take_holders());
                    for holder in holders.into_iter().flatten() {
                        if let Some(peer) = self.peers.get(&holder) {
                            peer.leave(|outbox| outbox.events.push(PeerEvent::Resumed));
                        }
                    }
                }
                Effect::ReplyState { caller, state } => self.reply_state(caller, state),
                Effect::EndCall(call) => Dispatch::end_call(self, call),
                Effect::GlobalNameLost { name } => self.names.conflict_lost(&name),
                Effect::SendTo { from, to, message } => {
                    self.spawn_with(|node| client::send_found(node, from, to, message));
                }
                Effect::Call(call) => {
                    if let Some(node) = self.this.upgrade() {
                        self.spawn_inline(client::carry_out(node, *call));
                    }
                }
                Effect::RegisterGlobal(registration) => {
                    self.spawn_with(|node| names::register_now(node, *registration));
                }
            }
        }
    }

    fn process(&self, id: ProcessId) -> Option<Arc<Process>> {
        self.registry.by_id(id)
    }

    /// The connection to a node; it is set up where there is none.
    async fn connect(&self, node: &Arc<str>) -> Result<Arc<PeerHandle>, Arc<DialError>> {
        let pending = match self.peers.find_or_claim(node) {
            Found::Up(handle) => return Ok(handle),
            Found::Connecting(pending) => pending,
            Found::Yours(pending) => {
                self.dial(Arc::clone(node), |_| {});
                pending
            }
        };
        pending.settled().await;
        match (self.peers.get(node), pending.error()) {
            (Some(handle), _) => Ok(handle),
            (None, Some(error)) => Err(error),
            (None, None) => Err(Arc::new(DialError::Overtaken)),
        }
    }

    /// Dials a node whose slot in the table is ours.
    fn dial(&self, node: Arc<str>, failed: impl FnOnce(&DialError) + Send + 'static) {
        let Some(this) = self.this.upgrade() else { return };
        self.spawn_link(async move {
            if let Err(error) = this.dial_claimed(&node).await {
                failed(&error);
            }
        });
    }

    async fn dial_claimed(self: &Arc<Self>, node: &Arc<str>) -> Result<(), Arc<DialError>> {
        if let Some(world) = &self.world
            && let Ok(name) = NodeName::new(node)
        {
            world.connect(self, name);
            return Ok(());
        }
        let dialled = async {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(DialError::Stopping);
            }
            let name = NodeName::new(node).map_err(|error| DialError::Name {
                node: node.to_string(),
                error: NodeAtError::Name(error),
            })?;
            setup::dial(self, &name).await
        };
        let dialled = dialled.await;
        if let Err(DialError::Handshake(HandshakeError { fault: Fault::Simultaneous, .. })) = &dialled {
            // Their own attempt goes on, and takes the slot when it is through.
            _ = within(self.config.limits.handshake_duration_max, self.peers.settled(node)).await;
        }
        let ready = match dialled {
            Ok(ready) => ready,
            // They may have connected to us meanwhile: then the slot is theirs, and all is well.
            Err(_) if self.peers.get(node).is_some() => return Ok(()),
            Err(error) => {
                let error = Arc::new(error);
                let waiting = self.peers.give_up(node, &error, || self.waiters.take(node));
                waiting.into_iter().for_each(Unreached::tell);
                return Err(error);
            }
        };
        let handle = Arc::new(PeerHandle::new(&ready.peer.peer));
        if self.peers.install(&handle).is_err() {
            // Their connection came first; this one is closed by being dropped.
            return Ok(());
        }
        let connection = Connection::new(Arc::clone(self), ready.stream, Arc::clone(&handle), &ready.first);
        let connection = Box::new(connection);
        let this = Arc::clone(self);
        self.spawn_link(async move { this.run_connection(handle, connection).await });
        Ok(())
    }

    /// Puts a connection that has proved the cookie into the table; an older one of the same name is ended.
    async fn install_replacing(&self, handle: &Arc<PeerHandle>) {
        while let Err(old) = self.peers.install(handle) {
            old.close(PeerDown::Replaced);
            old.ended().await;
        }
    }

    /// Runs a connection that stands in the table until it ends.
    async fn run_connection<S>(self: &Arc<Self>, handle: Arc<PeerHandle>, connection: Box<Connection<S>>)
    where
        S: AsyncRead + AsyncWrite + Waits + Send + Unpin + 'static,
    {
        let kind = if handle.is_visible() { "visible" } else { "hidden" };
        tracing::info!(peer = %handle.name, kind, "peer up");
        self.peers.listeners.tell(|| NodeEvent::Up(handle.connected()));
        if handle.may_have_global() {
            self.net_kernel.hold(&handle.name);
            self.spawn_link(names::keep(Arc::clone(self), Arc::clone(&handle)));
        }
        let down =
            AssertUnwindSafe(self.drive(connection)).catch_unwind().await.unwrap_or(PeerDown::Panicked);
        self.ended(&handle, &down);
    }

    /// Drives a connection to its end: as a task while it is quiet, by a thread of its own while it is busy.
    async fn drive<S>(&self, mut connection: Box<Connection<S>>) -> PeerDown
    where
        S: AsyncRead + AsyncWrite + Waits + Send + Unpin + 'static,
    {
        loop {
            let may_leave = self.threads.load(Ordering::Relaxed) < self.config.limits.connection_threads_max;
            if let Some(down) = connection.run(may_leave).await {
                return down;
            }
            match self.on_thread(connection).await {
                Left::Down(down) => return down,
                Left::Quiet(quiet) => connection = quiet,
            }
        }
    }

    async fn on_thread<S>(&self, connection: Box<Connection<S>>) -> Left<S>
    where
        S: AsyncRead + AsyncWrite + Waits + Send + Unpin + 'static,
    {
        let (tell, told) = smol::channel::bounded(1);
        let runtime = self.runtime.clone();
        let work = move || {
            threads::mark_ours();
            let _entered = runtime.enter();
            let left = std::panic::catch_unwind(AssertUnwindSafe(|| dedicated::run(connection)));
            let left = match left {
                Ok(Ok(left)) => left,
                Ok(Err(error)) => Left::Down(PeerDown::Io(error.to_string())),
                Err(_) => Left::Down(PeerDown::Panicked),
            };
            // The task that waits for it lives as long as the node.
            let _gone = tell.try_send(left);
        };
        self.threads.fetch_add(1, Ordering::Relaxed);
        let started = thread::Builder::new().name("kvnode-peer".into()).stack_size(512 << 10).spawn(work);
        let left = match started {
            Ok(_) => told.recv().await.unwrap_or(Left::Down(PeerDown::Panicked)),
            Err(error) => Left::Down(PeerDown::Io(error.to_string())),
        };
        self.threads.fetch_sub(1, Ordering::Relaxed);
        left
    }

    /// A connection has ended: everything that hung on it ends too.
    fn ended(&self, handle: &Arc<PeerHandle>, down: &PeerDown) {
        // Waiters hear of the loss before another connection to the node can exist: a stream that went on over that one would
        // have a gap.
        self.waiters.node_down(&handle.name);
        // A task that waits for the next connection is not to be told, so the present waiters are taken out before there is one.
        let waiting = self.peers.remove(handle, down, || self.waiters.take(&handle.name));
        // Before these are told: afterwards nothing waits for this connection.
        handle.shut();
        waiting.into_iter().for_each(Unreached::tell);
        if self.peers.len() <= 1 {
            // Only the node's connection to itself is left: nobody's tick would do it later.
            self.pool.clear();
        }
        self.names.peer_down(&handle.name, self.is_stopping());
        for owed in self.registry.functions.peer_down(&handle.name) {
            // Nobody waits for its answer any more.
            Dispatch::exit(self, owed, &OwnedTerm::atom("noconnection").into_bytes());
        }
        handle.set_ended();
        match down {
            PeerDown::Shutdown => tracing::debug!(peer = %handle.name, "peer down: {down}"),
            // A peer that comes and goes, as the commands do, is no news; the loss of a node that is to be kept connected is.
            PeerDown::Closed
                if !self.config.connect.iter().any(|kept| kept.name.as_str() == &*handle.name) =>
            {
                tracing::info!(peer = %handle.name, "peer down: {down}");
            }
            PeerDown::Panicked => tracing::error!(peer = %handle.name, "peer down: {down}"),
            _ => tracing::warn!(peer = %handle.name, "peer down: {down}"),
        }
    }

    /// Ends a process: its names are free, and all its watchers are told.
    fn exit(&self, process: &Process, reason: &[u8]) {
        if let Some(ended) = exits::end(&self.registry, process, reason) {
            self.ended_here(&ended);
        }
    }

    /// A process of ours has ended, and nobody knows yet.
    fn ended_here(&self, ended: &Ended) {
        // First the next process, then the news: a watcher that hears of the end finds the names taken again.
        if let Some(figures) = ended.processes.first().and_then(|process| process.figures.as_deref()) {
            self.figures.servers.ended(figures);
        }
        self.process_ended(ended);
        self.tell_ended(ended);
    }

    /// Tells the connections that know the process, and no others: each spawn request may start a process that ends at once.
    fn tell_ended(&self, ended: &Ended) {
        for process in &ended.processes {
            for node in process.take_attached() {
                if let Some(peer) = self.peers.get(&node) {
                    let (process, reason) = (process.id, Arc::clone(&ended.reason));
                    peer.leave(|outbox| outbox.events.push(PeerEvent::ProcessEnded { process, reason }));
                }
            }
        }
        let mut ends = self.ends.lock();
        for process in &ended.processes {
            ends.remove(&process.id);
        }
    }
}

impl Dispatch for Node {
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        self.send_up_to(node, frames, self.later_bytes_max())
    }

    fn end_call(&self, call: EndedCall) {
        if let Some(peer) = self.peers.get(&call.caller_node) {
            peer.leave(|outbox| outbox.events.push(PeerEvent::EndCall(call)));
        }
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        if let Some(process) = self.process(process) {
            Self::exit(self, &process, reason);
        }
    }

    fn feed(&self, node: &str, feed: &Arc<dyn Feed>) {
        if let Some(peer) = self.peers.get(node) {
            self.feed_at(&peer, feed);
        }
    }
}

impl Node {
    /// Asks a feed for what it has for a node, as far as the connection to that has room.
    fn feed_at(&self, peer: &PeerHandle, feed: &Arc<dyn Feed>) {
        peer.feed(feed, self.config.limits.outbound_bytes_max, &self.registry, &self.waiters);
    }

    /// Bytes of answers that come later which may wait for a node: a few of the largest, beside many small ones.
    const fn later_bytes_max(&self) -> usize {
        let limits = &self.config.limits;
        limits.outbound_bytes_max.saturating_add(limits.frame_bytes_max)
    }

    /// Sends whole frames to a node, which is connected to where need be.
    ///
    /// # Errors
    /// More than `up_bytes_max` wait for it already, or too many nodes are being connected to; `frames` are as they were.
    fn send_up_to(&self, node: &str, frames: &mut Outbound, up_bytes_max: usize) -> Result<(), NoRoom> {
        let limits = &self.config.limits;
        let bytes_max =
            QueueBounds { waiting: limits.outbound_bytes_max / limits.dials_max.max(1), up: up_bytes_max };
        match self.peers.queue(node, frames, bytes_max) {
            Queued::Taken => return Ok(()),
            Queued::NoRoom => return Err(NoRoom),
            Queued::NotConnected => {}
        }
        if self.peers.connecting() >= limits.dials_max {
            return Err(NoRoom);
        }
        let name: Arc<str> = node.into();
        if matches!(self.peers.find_or_claim(&name), Found::Yours(_)) {
            self.dial(Arc::clone(&name), |error| {
                tracing::warn!(%error, "messages dropped: their node is not reached");
            });
        }
        match self.peers.queue(node, frames, bytes_max) {
            Queued::Taken => Ok(()),
            Queued::NoRoom | Queued::NotConnected => Err(NoRoom),
        }
    }

    /// Messages that nobody waits for have no room.
    fn note_dropped(&self, node: &str) {
        match self.peers.get(node) {
            Some(peer) => peer.note_dropped(),
            None => {
                tracing::warn!(node, "messages dropped: too much waits for connections that are being set up")
            }
        }
    }
}

/// Sends by a node for as long as it runs.
struct Outlet(Weak<Node>);

impl Dispatch for Outlet {
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom> {
        // Nothing waits at a node that has ended.
        self.0.upgrade().map_or(Ok(()), |this| this.send(node, frames))
    }

    fn end_call(&self, call: EndedCall) {
        if let Some(this) = self.0.upgrade() {
            Dispatch::end_call(&*this, call);
        }
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        if let Some(this) = self.0.upgrade() {
            Dispatch::exit(&*this, process, reason);
        }
    }

    fn feed(&self, node: &str, feed: &Arc<dyn Feed>) {
        if let Some(this) = self.0.upgrade() {
            this.feed(node, feed);
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.config.node_name).finish_non_exhaustive()
    }
}

/// Blocks the thread until a future is done: for programs without an executor. (`smol::block_on`.)
///
/// ```no_run
/// # use kvnode::Node;
/// # let node = Node::builder("rust").start()?;
/// kvnode::block_on(node.stop());
/// # Ok::<(), kvnode::StartError>(())
/// ```
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    smol::block_on(future)
}

async fn after(pause: Duration) {
    Sleep::after(pause).await;
}

/// A number from the system's random source.
fn random_u32() -> u32 {
    getrandom::u32().expect("the system has a random source; without one no handshake is safe")
}
