//! Calls, casts, messages and monitors of our own, to processes on any node.
//!
//! A call is written as `gen:call` writes it (stdlib, gen.erl, do_call/4): MONITOR_P, the request, and DEMONITOR_P when
//! it has ended; answered to an alias by nodes that know aliases, else to the pid. Processes of our own node are
//! reached the same way, over the node's connection to itself. Everything that one client sends to one process
//! arrives in the order in which it was sent.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use smol::channel::Receiver;
use smol::future::FutureExt;

use crate::distribution::{Outbound, RemoteProcess, ServerRef};
use crate::etf::{OwnedTerm, Pid, Reference, TermView, TermWriter};
use crate::node::Node;
use crate::node::latch::Opened;
use crate::node::peers::erpc::ErpcError;
use crate::node::peers::{Offered, PeerHandle};
use crate::node::test::World;
use crate::process::rpc::Functions;
use crate::process::{CallError, Outcome, OutgoingCall};
use crate::within::within;

/// One process's way to all others: whatever it does comes from that process's pid.
///
/// Cheap to clone. Its futures need no runtime of the caller's. Dropping one ends what it waits for.
///
/// ```no_run
/// use std::time::Duration;
///
/// use kvnode::etf::atom;
/// use kvnode::{CallError, Node, ServerRef, block_on};
///
/// let node = Node::builder("shop").connect("beam@myhost").start()?;
/// // Of the node; the client of a server is `cx.client()`.
/// let client = node.client();
/// let stock = ServerRef::global("stock");
/// block_on(async {
///     client.cast_as(&stock, &(atom("add"), "pencils", 3)).await?;
///     match client.call_as::<u32, _>(&stock, &(atom("count"), "pencils"), Duration::from_secs(5)).await {
///         Ok(count) => println!("{count} pencils"),
///         Err(CallError::NoProcess) => println!("nobody has that name"),
///         Err(error) => return Err(error),
///     }
///     let mut monitor = client.monitor(&stock).await?;
///     println!("the stock has ended: {:?}", monitor.ended().await);
///     Ok(())
/// })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Client {
    node: Arc<Node>,
    from: Pid,
}

impl Client {
    /// A client of a node; what it sends comes from `from`, a pid of that node.
    pub(in crate::node) const fn new(node: Arc<Node>, from: Pid) -> Self {
        Self { node, from }
    }

    /// The pid that everything comes from.
    pub const fn from_pid(&self) -> &Pid {
        &self.from
    }

    /// The node that it is of.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Calls a server, as `GenServer.call/3` does, and gives its answer. `timeout` covers everything, the setting up
    /// of a connection too; `Duration::MAX` is `:infinity`. `request` writes exactly one term.
    ///
    /// # Errors
    /// See [`CallError`]. A name that nobody has and a process that ends are told at once.
    pub async fn call(
        &self,
        to: &ServerRef,
        request: impl FnOnce(&mut TermWriter<'_>),
        timeout: Duration,
    ) -> Result<OwnedTerm, CallError> {
        self.call_term(to, written(request)?.view(), timeout).await
    }

    /// Sends a system message, as the functions of `:sys` do, and gives the answer as it comes: to `get_state` that is the
    /// state up to OTP 25, and `{:ok, state}` from 26 on.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn system_call(
        &self,
        to: &ServerRef,
        request: impl FnOnce(&mut TermWriter<'_>),
        timeout: Duration,
    ) -> Result<OwnedTerm, CallError> {
        self.call_labelled("system", to, written(request)?.view(), timeout).await
    }

    /// As [`call`](Self::call), with a request that is a term already.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn call_term(
        &self,
        to: &ServerRef,
        request: TermView<'_>,
        timeout: Duration,
    ) -> Result<OwnedTerm, CallError> {
        self.call_labelled("$gen_call", to, request, timeout).await
    }

    /// A call with a label: `{label, {pid, tag}, request}`.
    async fn call_labelled(
        &self,
        label: &str,
        to: &ServerRef,
        request: TermView<'_>,
        timeout: Duration,
    ) -> Result<OwnedTerm, CallError> {
        let called = async {
            let route = self.route(to, request).await?;
            self.call_by(route, label, request).await
        };
        let stopped = async {
            self.node.stopped().await;
            Some(Err(CallError::Stopped))
        };
        within(timeout, called).or(stopped).await.unwrap_or(Err(CallError::Timeout))
    }

    async fn call_by(
        &self,
        Route { at, peer }: Route,
        label: &str,
        request: TermView<'_>,
    ) -> Result<OwnedTerm, CallError> {
        let (watch, told) = self.watch(at, true);
        let mut frames = Outbound::default();
        frames.monitor(&self.from, &watch.at, &watch.reference);
        frames.send_to(&self.from, &watch.at, |w| {
            w.tuple(3).atom(label).tuple(2).pid(&self.from);
            if peer.offered.knows_aliases() {
                w.list(1).atom("alias");
            }
            w.reference(&watch.reference).term(request);
        });
        self.offer_in_turn(watch.at.node(), frames).await?;
        watch.is_set.store(true, Ordering::Relaxed);
        let outcome = told.recv().await.unwrap_or(Outcome::NoConnection);
        CallError::of(outcome, watch.at.node())
    }

    /// Casts to a server, as `GenServer.cast/2` does, once there is room for it: see [`send`](Self::send).
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub async fn cast(
        &self,
        to: &ServerRef,
        request: impl FnOnce(&mut TermWriter<'_>),
    ) -> Result<(), CallError> {
        self.send(to, |w| {
            w.tuple(2).atom("$gen_cast");
            request(w);
        })
        .await
    }

    /// Sends a message, as `send/2` does. `message` writes exactly one term. Where more than
    /// [`outbound_bytes_max`](crate::config::Limits::outbound_bytes_max) waits for the node, this waits for room, as a BEAM
    /// suspends a process that sends to a busy node.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]; [`CallError::Busy`] where no room has come for
    /// [`output_stall_max`](crate::config::Limits::output_stall_max). Whether it arrived is not known.
    pub async fn send(
        &self,
        to: &ServerRef,
        message: impl FnOnce(&mut TermWriter<'_>),
    ) -> Result<(), CallError> {
        let (node, frames) = self.message(to, message).await?;
        self.offer_in_turn(&node, frames).await
    }

    /// As [`send`](Self::send), without the wait for room.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`CallError::Busy`] at once where there is no room.
    pub async fn try_send(
        &self,
        to: &ServerRef,
        message: impl FnOnce(&mut TermWriter<'_>),
    ) -> Result<(), CallError> {
        let (node, frames) = self.message(to, message).await?;
        self.offer(&node, frames)
    }

    /// The frame of a message, and the node that it goes to.
    async fn message(
        &self,
        to: &ServerRef,
        message: impl FnOnce(&mut TermWriter<'_>),
    ) -> Result<(Arc<str>, Outbound), CallError> {
        let message = written(message)?;
        let Route { at, peer: _ } = self.route(to, message.view()).await?;
        let mut frames = Outbound::default();
        frames.send_to(&self.from, &at, |w| {
            w.term(message.view());
        });
        Ok((Arc::clone(at.node()), frames))
    }

    /// Monitors a process, as `Process.monitor/1` does, once there is room for it: see [`send`](Self::send). A name in `global`
    /// is looked up once, and the process that has it now is monitored.
    ///
    /// # Errors
    /// That the monitor could not be set, where it would not fire: too much waits for its node for too long, or this node
    /// ends. A process that is not there and a node that is not reached make it fire instead.
    pub async fn monitor(&self, to: &ServerRef) -> Result<Monitor, CallError> {
        let at = match self.locate(to).await {
            Ok(at) => at,
            Err(CallError::NoProcess) => return Ok(Monitor::fired("noproc")),
            Err(error) => return Err(error),
        };
        let (watch, told) = self.watch(at, false);
        self.offer_in_turn(watch.at.node(), self.monitor_frames(&watch)).await?;
        watch.is_set.store(true, Ordering::Relaxed);
        Ok(Monitor { set: Some((watch, told)), fired: None })
    }

    /// As [`monitor`](Self::monitor), at once and without the wait for room, with a function that is told: `fired` is called once with the reason,
    /// on the thread of whatever noticed the end, and must not block. Dropping the [`Watch`] takes the monitor back.
    ///
    /// # Errors
    /// As [`monitor`](Self::monitor).
    pub fn monitor_with(
        &self,
        at: RemoteProcess,
        fired: impl FnOnce(OwnedTerm) + Send + 'static,
    ) -> Result<Watch, CallError> {
        let watch = self.new_watch(at);
        let node = watch.at.node();
        self.node.waiters.expect(&watch.reference, node, |outcome| fired(outcome.into_reason()));
        self.set(&watch)?;
        Ok(watch)
    }

    /// The pid that has a name in `global`, as far as the connected nodes know; `name` is a term. Each may take
    /// `timeout` to answer; all are asked at once.
    pub async fn whereis_global(&self, name: TermView<'_>, timeout: Duration) -> Option<Pid> {
        self.node.whereis_global(name.bytes(), timeout).await
    }

    /// All pids that hold a name in `global`, as [`whereis_global`](Self::whereis_global) asks for them: in one cluster it is
    /// one, and in one that was split there may be several until `global` has settled that.
    pub async fn global_holders(&self, name: TermView<'_>, timeout: Duration) -> Vec<Pid> {
        self.node.global_holders(name.bytes(), timeout).await
    }

    /// The pid that is registered under a name on another node, as `:erpc.call(node, Process, :whereis, [name])` finds it.
    ///
    /// # Errors
    /// The node's: it does not say. See [`ErpcError`].
    pub async fn whereis_at(
        &self,
        node: &str,
        name: &str,
        timeout: Duration,
    ) -> Result<Option<Pid>, ErpcError> {
        let argument = |w: &mut TermWriter<'_>| _ = w.atom(name);
        let answer = self.erpc(node, ("erlang", "whereis"), 1, argument, timeout).await?;
        Ok(answer.view().as_pid().map(Into::into))
    }

    /// Calls `module:function` on a node, as `:erpc.call/5` does, and gives its value; `arguments` writes `arity`
    /// terms. A connection is set up where there is none.
    ///
    /// # Errors
    /// See [`ErpcError`].
    pub async fn erpc(
        &self,
        node: &str,
        function: (&str, &str),
        arity: usize,
        arguments: impl FnOnce(&mut TermWriter<'_>),
        timeout: Duration,
    ) -> Result<OwnedTerm, ErpcError> {
        let called = async {
            let peer = self.node.connect(&node.into()).await.map_err(|_| ErpcError::NoConnection)?;
            self.node.erpc(&peer, function, arity, arguments, timeout).await
        };
        within(timeout, called).await.unwrap_or(Err(ErpcError::Timeout))
    }

    /// Lets other nodes call functions of this node by rpc: `:erpc.call(node, module, function, arguments)` and its
    /// relations. They are asked before those that the node has by itself.
    #[doc(hidden)]
    pub fn serve(&self, functions: Arc<dyn Functions>) {
        self.node.registry.functions.add(functions);
    }

    /// Where a server is now.
    ///
    /// # Errors
    /// [`CallError::NoProcess`]: nobody has that name in `global`.
    pub async fn locate(&self, to: &ServerRef) -> Result<RemoteProcess, CallError> {
        Ok(match to {
            ServerRef::Pid(pid) => RemoteProcess::Pid(pid.clone()),
            ServerRef::Remote { name, node } => {
                RemoteProcess::Name { name: Arc::clone(name), node: Arc::clone(node) }
            }
            ServerRef::Local(name)
                if self.node.world.is_some() && self.node.registry.by_name(name).is_none() =>
            {
                World::local(name)
            }
            ServerRef::Local(name) => {
                RemoteProcess::Name { name: Arc::clone(name), node: Arc::clone(&self.node.registry.node) }
            }
            ServerRef::Global(name) => {
                let found = self.node.whereis_global(name, crate::node::peers::whereis::LIMIT).await;
                RemoteProcess::Pid(found.ok_or(CallError::NoProcess)?)
            }
        })
    }

    /// The way of every call, cast and message: where the server is, and a connection to a node that can decode the term.
    async fn route(&self, to: &ServerRef, term: TermView<'_>) -> Result<Route, CallError> {
        let at = self.locate(to).await?;
        let node = at.node();
        let peer = self.node.connect(node).await.map_err(|_| CallError::NodeDown(Arc::clone(node)))?;
        if !peer.offered.can_decode(term.traits()) {
            return Err(CallError::Undecodable(Arc::clone(node)));
        }
        Ok(Route { at, peer })
    }

    fn new_watch(&self, at: RemoteProcess) -> Watch {
        let reference = self.node.registry.new_reference();
        Watch { client: self.clone(), at, reference, is_set: AtomicBool::new(false) }
    }

    /// Begins a wait, before anything is sent.
    fn watch(&self, at: RemoteProcess, is_call: bool) -> (Watch, Receiver<Outcome>) {
        let watch = self.new_watch(at);
        let (tell, told) = smol::channel::bounded(1);
        let done = move |outcome| {
            // The caller that waited may have given up.
            let _gone = tell.try_send(outcome);
        };
        let (waiters, node) = (&self.node.waiters, watch.at.node());
        if is_call {
            waiters.expect_reply(&watch.reference, node, done);
        } else {
            waiters.expect(&watch.reference, node, done);
        }
        (watch, told)
    }

    fn set(&self, watch: &Watch) -> Result<(), CallError> {
        self.offer(watch.at.node(), self.monitor_frames(watch))?;
        watch.is_set.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn monitor_frames(&self, watch: &Watch) -> Outbound {
        let mut frames = Outbound::default();
        frames.monitor(&self.from, &watch.at, &watch.reference);
        frames
    }

    /// Sends frames to a node, which is connected to where need be.
    fn offer(&self, node: &Arc<str>, mut frames: Outbound) -> Result<(), CallError> {
        match self.try_offer(node, &mut frames) {
            None => Ok(()),
            Some(_) => Err(CallError::Busy { node: Arc::clone(node), waited: Duration::ZERO }),
        }
    }

    /// Sends frames to a node once there is room for them.
    async fn offer_in_turn(&self, node: &Arc<str>, mut frames: Outbound) -> Result<(), CallError> {
        while let Some(room) = self.try_offer(node, &mut frames) {
            let stall_max = self.node.config.limits.output_stall_max;
            let busy = || CallError::Busy { node: Arc::clone(node), waited: stall_max };
            within(stall_max, room.wait()).await.ok_or_else(busy)?;
        }
        Ok(())
    }

    /// Sends frames to a node, unless there is no room: then gives what tells that there may be.
    fn try_offer(&self, node: &Arc<str>, frames: &mut Outbound) -> Option<Opened> {
        let bytes_max = self.node.config.limits.outbound_bytes_max;
        match self.node.peers.offer(node, frames, bytes_max) {
            Offered::Taken => {}
            Offered::Full(room) => return Some(room),
            // Where it is not reached, the callers that wait for it are told.
            Offered::Yours => {
                self.node.dial(Arc::clone(node), |error| tracing::debug!(%error, "not connected"));
            }
        }
        None
    }
}

/// Where a term goes.
struct Route {
    at: RemoteProcess,
    peer: Arc<PeerHandle>,
}

/// What a caller of ours writes, as one term.
fn written(write: impl FnOnce(&mut TermWriter<'_>)) -> Result<OwnedTerm, CallError> {
    OwnedTerm::write(write).map_err(CallError::Malformed)
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({:?})", self.from)
    }
}

/// A monitor or a call that is under way; dropping it takes the monitor back and forgets the wait.
pub struct Watch {
    client: Client,
    at: RemoteProcess,
    reference: Reference,
    /// The monitor was sent: only then it is to be taken back.
    is_set: AtomicBool,
}

impl Watch {
    /// What is watched.
    pub const fn process(&self) -> &RemoteProcess {
        &self.at
    }

    /// Its reference, as in `{:DOWN, ref, :process, process, reason}`.
    pub const fn reference(&self) -> &Reference {
        &self.reference
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let node = &self.client.node;
        node.waiters.cancel(&self.reference);
        if !self.is_set.load(Ordering::Relaxed) {
            return;
        }
        let mut frames = Outbound::default();
        frames.demonitor(&self.client.from, &self.at, &self.reference);
        // Where there is no connection any more, there is no monitor either. It is sent also when the monitor has
        // fired or the outbox is full: it is small, and a BEAM lets an unknown reference pass.
        if let Some(peer) = node.peers.get(self.at.node()) {
            peer.leave(|outbox| outbox.frames.append(&mut frames));
        }
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watch({:?}, {:?})", self.at, self.reference)
    }
}

/// A monitored process. Dropping it takes the monitor back.
#[derive(Debug)]
pub struct Monitor {
    set: Option<(Watch, Receiver<Outcome>)>,
    fired: Option<OwnedTerm>,
}

impl Monitor {
    fn fired(reason: &str) -> Self {
        Self { set: None, fired: Some(OwnedTerm::atom(reason)) }
    }

    /// Waits until the process has ended, and gives the reason of the `DOWN` message: also `:noproc` and
    /// `:noconnection`. Once it has fired it gives the same again.
    pub async fn ended(&mut self) -> OwnedTerm {
        if let Some((_, told)) = &self.set {
            let outcome = told.recv().await.unwrap_or(Outcome::NoConnection);
            self.fired = Some(outcome.into_reason());
            self.set = None;
        }
        self.fired.clone().unwrap_or_else(|| OwnedTerm::atom("noconnection"))
    }
}

/// Sends a message to a server, if it is found.
pub(in crate::node) async fn send_found(node: Arc<Node>, from: Pid, to: ServerRef, message: Vec<u8>) {
    let write = |w: &mut TermWriter<'_>| _ = w.raw(&message);
    if let Err(error) = Client::new(node, from).send(&to, write).await {
        tracing::debug!(%to, "message not sent: {error}");
    }
}

/// Makes a call that a process of ours asked for.
pub(in crate::node) async fn carry_out(node: Arc<Node>, call: OutgoingCall) {
    let OutgoingCall { from, to, request, timeout, on_behalf_of, done } = call;
    let client = Client::new(node, from);
    let given_up = async {
        if let Some(peer) = client.node.peers.get(&on_behalf_of) {
            peer.ended().await;
        }
        Err(CallError::Stopped)
    };
    done(client.call_term(&to, request.view(), timeout).or(given_up).await);
}

impl Node {
    /// The node's own client, for calls that belong to no process.
    pub fn client(&self) -> Client {
        self.client_of(&self.net_kernel_process.pid)
    }

    /// A client whose calls, casts and messages come from a process of this node.
    pub fn client_of(&self, from: &Pid) -> Client {
        let node = self.this.upgrade().expect("the caller that has a node has it by its Arc");
        Client::new(node, from.clone())
    }
}
