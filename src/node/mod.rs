//! The shell: sockets, tasks and the clock. It sees all other layers, and none of them sees it.
//!
//! [`run`] starts a node and blocks until it ends. Connections are tasks on an executor of their own, with a
//! thread for each core; each one owns its socket and its peer's tables, and hands what concerns others to
//! `Node::carry_out` once per batch.

pub mod backoff;
pub mod client;
mod connection;
pub mod cookie_file;
mod dedicated;
pub mod erpc;
pub mod functions;
pub mod host;
mod listener;
pub mod log;
mod loopback;
mod names;
pub mod peers;
mod registration;
mod run;
pub mod setup;
mod slaves;
mod socket;
mod whereis;

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

use smol::future::FutureExt;
use smol::io::{AsyncRead, AsyncWrite};
use smol::{Executor, Timer};

pub use client::Client;
pub use run::{RunError, Started, run, run_with_client};

use crate::config::Config;
use crate::dist::handshake::{Fault, HandshakeError, Local};
use crate::dist::{DistributionFlags, NodeName, Outbound};
use crate::etf::OwnedTerm;
use crate::process::net_kernel::NetKernel;
use crate::process::peer::Surroundings;
use crate::process::{Dispatch, Effect, Process, ProcessId, Registry, Waiters};
use crate::replica::Slave;
use connection::Connection;
use dedicated::Left;
use names::Names;
use peers::{Found, PeerDown, PeerEvent, PeerHandle, Peers};
use setup::DialError;
use socket::{Socket, Waits};

/// A running node.
pub struct Node {
    config: Config,
    registry: Registry,
    waiters: Waiters,
    peers: Peers,
    names: Names,
    net_kernel: Arc<NetKernel>,
    /// The process of `net_kernel`: what calls of our own come from.
    net_kernel_process: Arc<Process>,
    executor: Arc<Executor<'static>>,
    /// Connections that run on a thread of their own.
    threads: AtomicUsize,
    /// The node ends: nobody is dialled or let in any more.
    stopping: AtomicBool,
    this: Weak<Self>,
}

impl Node {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A task that panics must not take the executor's thread with it.
        let task = AssertUnwindSafe(task).catch_unwind();
        self.executor
            .spawn(async {
                if task.await.is_err() {
                    tracing::error!("a task panicked (a bug: please report it)");
                }
            })
            .detach();
    }

    /// Spawns a task that needs the node, unless that ends.
    fn spawn_with<F: Future<Output = ()> + Send + 'static>(&self, task: impl FnOnce(Arc<Self>) -> F) {
        if let Some(node) = self.this.upgrade() {
            self.spawn(task(node));
        }
    }

    fn local(&self) -> Local {
        Local {
            name: self.config.node_name.clone(),
            creation: self.registry.creation,
            flags: DistributionFlags::OFFERED,
            cookie: self.config.cookie.clone(),
        }
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            registry: &self.registry,
            waiters: &self.waiters,
            inflated_bytes_max: self.config.limits.frame_bytes_max,
            watches_max: self.config.limits.watches_max,
        }
    }

    /// Does what a batch of messages has asked for.
    fn carry_out(&self, effects: &mut Vec<Effect>) {
        for effect in effects.drain(..) {
            match effect {
                Effect::Send { node, mut frames } => self.send(&node, &mut frames),
                Effect::Replicate(slave, store) => {
                    if let Some(store) = self.process(store) {
                        self.replicate(&slave, &store);
                    }
                }
                Effect::FollowSlave { slave, primary } => {
                    if let (Some(node), Some(store)) = (self.this.upgrade(), self.process(primary)) {
                        self.spawn(slaves::follow(node, slave, store));
                    }
                }
                Effect::EndCall { node, call } => {
                    if let Some(peer) = self.peers.get(&node) {
                        peer.leave(|outbox| outbox.events.push(PeerEvent::EndCall(call)));
                    }
                }
                Effect::GlobalNameLost { name } => self.names.conflict_lost(&name),
                Effect::SendTo { from, to, message } => {
                    self.spawn_with(|node| client::send_found(node, from, to, message));
                }
                Effect::Call(call) => self.spawn_with(|node| client::carry_out(node, *call)),
                Effect::RegisterGlobal(registration) => {
                    self.spawn_with(|node| names::register_now(node, *registration));
                }
            }
        }
    }

    fn process(&self, id: ProcessId) -> Option<Arc<Process>> {
        self.registry.by_id(id)
    }

    /// Hands what waits for a slave to the connection to its node, as far as that has room.
    fn replicate(&self, slave: &Arc<Slave>, store: &Arc<Process>) {
        let crate::replica::SlaveState::Following(at) = slave.state() else { return };
        let Some(peer) = self.peers.get(at.node()) else { return };
        let bytes_max = self.config.limits.outbound_bytes_max;
        peer.leave(|outbox| {
            if slave.take(&peer.name, &store.pid, &mut outbox.frames, bytes_max) {
                let known = |(hungry, _): &(Arc<Slave>, Arc<Process>)| Arc::ptr_eq(hungry, slave);
                if !outbox.hungry.iter().any(known) {
                    outbox.hungry.push((Arc::clone(slave), Arc::clone(store)));
                }
            }
        });
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
        self.spawn(async move {
            if let Err(error) = this.dial_claimed(&node).await {
                failed(&error);
            }
        });
    }

    async fn dial_claimed(self: &Arc<Self>, node: &Arc<str>) -> Result<(), Arc<DialError>> {
        let dialled = async {
            if self.stopping.load(Ordering::SeqCst) {
                return Err(DialError::Stopping);
            }
            let name = NodeName::new(node).map_err(|_| DialError::Name(node.to_string()))?;
            setup::dial(self, &name).await
        };
        let dialled = dialled.await;
        if let Err(DialError::Handshake(HandshakeError { fault: Fault::Simultaneous, .. })) = &dialled {
            // Their own attempt goes on, and takes the slot when it is through.
            self.peers.settled(node).or(after(self.config.limits.handshake_duration_max)).await;
        }
        let ready = match dialled {
            Ok(ready) => ready,
            // They may have connected to us meanwhile: then the slot is theirs, and all is well.
            Err(_) if self.peers.get(node).is_some() => return Ok(()),
            Err(error) => {
                let error = Arc::new(error);
                self.peers.give_up(node, &error);
                self.waiters.node_down(node);
                return Err(error);
            }
        };
        let handle = Arc::new(PeerHandle::new(ready.peer.peer.name.shared(), ready.peer.peer.offered));
        if self.peers.install(&handle).is_err() {
            // Their connection came first; this one is closed by being dropped.
            return Ok(());
        }
        let connection =
            Connection::new(Arc::clone(self), Socket::from(ready.stream), Arc::clone(&handle), &ready.first);
        let this = Arc::clone(self);
        self.spawn(async move { this.run_connection(handle, connection).await });
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
    async fn run_connection<S>(self: &Arc<Self>, handle: Arc<PeerHandle>, connection: Connection<S>)
    where
        S: AsyncRead + AsyncWrite + Waits + Send + Unpin + 'static,
    {
        let kind = if handle.is_visible() { "visible" } else { "hidden" };
        tracing::info!(peer = %handle.name, kind, "peer up");
        if handle.is_visible() {
            self.net_kernel.hold(&handle.name);
            self.spawn(names::keep(Arc::clone(self), Arc::clone(&handle)));
        }
        let down =
            AssertUnwindSafe(self.drive(connection)).catch_unwind().await.unwrap_or(PeerDown::Panicked);
        self.ended(&handle, &down);
    }

    /// Drives a connection to its end: as a task while it is quiet, by a thread of its own while it is busy.
    async fn drive<S>(&self, connection: Connection<S>) -> PeerDown
    where
        S: AsyncRead + AsyncWrite + Waits + Send + Unpin + 'static,
    {
        let mut connection = Box::new(connection);
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
        let work = move || {
            let left = std::panic::catch_unwind(AssertUnwindSafe(|| dedicated::run(connection)));
            let left = match left {
                Ok(Ok(left)) => left,
                Ok(Err(error)) => Left::Down(PeerDown::Io(error.to_string())),
                Err(_) => Left::Down(PeerDown::Panicked),
            };
            // Whoever waits for it lives as long as the node.
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
        self.peers.remove(handle);
        self.waiters.node_down(&handle.name);
        self.names.peer_down(&handle.name);
        for owed in self.registry.functions.peer_down(&handle.name) {
            // Nobody waits for its answer any more.
            self.exit(owed, &OwnedTerm::atom("noconnection").into_bytes().into());
        }
        handle.set_ended();
        match down {
            PeerDown::Shutdown => tracing::debug!(peer = %handle.name, "peer down: {down}"),
            PeerDown::Panicked => tracing::error!(peer = %handle.name, "peer down: {down}"),
            _ => tracing::warn!(peer = %handle.name, "peer down: {down}"),
        }
    }

    /// Ends a process: its names are free, and all who watch it are told.
    fn exit(&self, process: ProcessId, reason: &Arc<[u8]>) {
        if !self.registry.remove(process) {
            return;
        }
        for peer in self.peers.all() {
            let reason = Arc::clone(reason);
            peer.leave(|outbox| outbox.events.push(PeerEvent::ProcessEnded { process, reason }));
        }
    }
}

impl Dispatch for Node {
    fn send(&self, node: &str, frames: &mut Outbound) {
        if self.peers.queue(node, frames, self.config.limits.outbound_bytes_max) {
            return;
        }
        let name: Arc<str> = node.into();
        if matches!(self.peers.find_or_claim(&name), Found::Yours(_)) {
            self.dial(Arc::clone(&name), |error| {
                tracing::warn!(%error, "messages dropped: their node is not reached");
            });
        }
        self.peers.queue(node, frames, self.config.limits.outbound_bytes_max);
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        Self::exit(self, process, &reason.into());
    }
}

/// Sends by a node for as long as it runs.
struct Outlet(Weak<Node>);

impl Dispatch for Outlet {
    fn send(&self, node: &str, frames: &mut Outbound) {
        if let Some(this) = self.0.upgrade() {
            this.send(node, frames);
        }
    }

    fn exit(&self, process: ProcessId, reason: &[u8]) {
        if let Some(this) = self.0.upgrade() {
            Node::exit(&this, process, &reason.into());
        }
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("name", &self.config.node_name).finish_non_exhaustive()
    }
}

async fn after(pause: Duration) {
    Timer::after(pause).await;
}

/// The clock, for the whole shell.
#[expect(clippy::disallowed_methods, reason = "this is the one place where the monotonic clock is read")]
fn now() -> Instant {
    Instant::now()
}

/// A number from the system's random source.
fn random_u32() -> u32 {
    getrandom::u32().expect("the system has a random source; without one no handshake is safe")
}
