//! What a server with a mailbox can do beside answering: timers, monitors, names, calls to others.

use std::any::Any;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid, encode};
use crate::node::Node;
use crate::node::server::Server;
use crate::node::server::client::Client;
use crate::node::server::monitors::{Down, MonitorRef, Monitors};
use crate::node::server::own::{Own, ServerHandle};
use crate::node::server::process_handle::{ProcessHandle, exit_reason};
use crate::node::server::tasks::{TaskRef, Tasks};
use crate::node::server::timers::{Due, TimerRef, Timers};
use crate::node::server::typed::Addressed;
use crate::process::mailbox::{Envelope, Mailbox, Next};
use crate::process::{CallError, ExitSignals, GenServer, PeerEvent};

/// The process that a [`Server`] is, for its handlers: what it can do beside answering.
///
/// # A server that calls Elixir
///
/// ```no_run
#[doc = include_str!("../../../examples/cache.rs")]
/// ```
///
/// # A subscriber
///
/// ```no_run
#[doc = include_str!("../../../examples/subscriber.rs")]
/// ```
pub struct Context<S: Server> {
    process: ProcessHandle,
    mailbox: Arc<Mailbox>,
    client: Client,
    timers: Timers<S::Info>,
    /// An interval has just had its turn: the mailbox comes before the next one.
    mailbox_first: bool,
    tasks: Tasks,
    monitors: Monitors,
    stop: Option<OwnedTerm>,
}

/// What a server handles next.
pub(in crate::node) enum Event<M> {
    Timer(M),
    Envelope(Envelope),
    Ended,
}

impl<M> From<Next> for Event<M> {
    fn from(next: Next) -> Self {
        match next {
            Next::Envelope(envelope) => Self::Envelope(envelope),
            Next::Ended => Self::Ended,
        }
    }
}

impl<S: Server> Context<S> {
    pub(in crate::node) fn new(process: ProcessHandle) -> Self {
        let mailbox = process.mailbox.clone().expect("a server has a mailbox");
        let client = Client::new(Arc::clone(process.node()), process.pid().clone());
        Self {
            process,
            mailbox,
            client,
            timers: Timers::default(),
            mailbox_first: false,
            tasks: Tasks::default(),
            monitors: Monitors::default(),
            stop: None,
        }
    }

    /// The server's own pid: `self()`.
    pub fn pid(&self) -> &Pid {
        self.process.pid()
    }

    /// The process that the server is: it registers names, and may be kept by others to stop it.
    pub const fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// The server's own address with its type, by which the rest of the program tells it something: for threads, for
    /// callbacks, for other servers. To itself a server sends by [`send_after`](Self::send_after).
    pub fn handle(&self) -> ServerHandle<S> {
        ServerHandle::new(self.process.clone())
    }

    /// The node that it runs on.
    pub const fn node(&self) -> &Arc<Node> {
        self.process.node()
    }

    /// What the server says to others comes from its own pid by this client. It may be cloned into tasks.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Calls a server on any node, as `GenServer.call/3` does, and reads the answer into `T`:
    /// `let found: Option<String> = cx.call(&to, &(atom("get"), key), timeout).await?`. What comes for this server
    /// while it waits is handled afterwards. What this gives needs the context no more: a task may wait for it.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn call<T, R>(
        &self,
        to: &ServerRef,
        request: &R,
        timeout: Duration,
    ) -> impl Future<Output = Result<T, CallError>> + Send + use<T, R, S>
    where
        T: DeserializeOwned,
        R: Serialize + ?Sized,
    {
        Addressed::new(self.client.clone(), to, request).call(timeout)
    }

    /// Casts to a server on any node, as `GenServer.cast/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn cast<R>(
        &self,
        to: &ServerRef,
        request: &R,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<R, S>
    where
        R: Serialize + ?Sized,
    {
        Addressed::new(self.client.clone(), to, request).cast()
    }

    /// Sends a message to a process on any node, as `send/2` does.
    ///
    /// # Errors
    /// That it could not be sent: see [`CallError`]. Whether it arrived is not known.
    pub fn send<M>(
        &self,
        to: &ServerRef,
        message: &M,
    ) -> impl Future<Output = Result<(), CallError>> + Send + use<M, S>
    where
        M: Serialize + ?Sized,
    {
        Addressed::new(self.client.clone(), to, message).send()
    }

    /// Sends the server itself a message after a while, as `Process.send_after/3` does: `handle_info` gets it as it is,
    /// before what waits in the mailbox. Timers end with the server.
    pub fn send_after(&mut self, delay: Duration, message: S::Info) -> TimerRef {
        self.timers.start(delay, message)
    }

    /// Sends the server itself a message again and again, as `:timer.send_interval/2` does: first after one period, of at least a
    /// millisecond, and then in its rhythm, whatever handling takes. Where the server does something else for longer, what it
    /// has missed comes once and not many times. Between two of these the mailbox has its turn. It goes on until it is
    /// [cancelled](Self::cancel_timer), and ends with the server.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use kvnode::{Context, Never, ReplyTo, Server};
    /// # struct Uptime(u64);
    /// # impl Server for Uptime {
    /// # type Call = Never;
    /// # type Cast = Never;
    /// # type Info = Info;
    /// # async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #     match call {}
    /// # }
    /// async fn init(&mut self, cx: &mut Context<Self>) {
    ///     cx.send_interval(Duration::from_secs(1), Info::Second);
    /// }
    ///
    /// async fn handle_info(&mut self, Info::Second: Info, _cx: &mut Context<Self>) {
    ///     self.0 += 1;
    /// }
    /// # }
    /// # #[derive(Clone, serde::Deserialize)]
    /// # enum Info {
    /// #     #[serde(skip)]
    /// #     Second,
    /// # }
    /// ```
    pub fn send_interval(&mut self, period: Duration, message: S::Info) -> TimerRef
    where
        S::Info: Clone,
    {
        self.timers.start_interval(period, message)
    }

    /// Takes a timer back. `false`: it had fired, or been taken back. After this its message does not come.
    pub fn cancel_timer(&mut self, timer: TimerRef) -> bool {
        self.timers.cancel(timer)
    }

    /// Runs a future beside the server, on the node's threads, and goes on at once: `handle_info` gets what `then` makes of its
    /// output, behind what waits in the mailbox by then. So a handler that has to wait need not keep the others waiting:
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// use kvnode::etf::{OwnedTerm, atom};
    /// use kvnode::{CallError, Context, Never, ReplyTo, Server, ServerRef};
    /// use serde::Deserialize;
    ///
    /// /// Asks a slow server for each of its callers, all at once.
    /// struct Front;
    ///
    /// #[derive(Deserialize)]
    /// #[serde(rename_all = "snake_case")]
    /// enum Call {
    ///     Find(String), // {:find, "key"}
    /// }
    ///
    /// #[derive(Deserialize)]
    /// enum Info {
    ///     #[serde(skip)]
    ///     Found(Result<OwnedTerm, CallError>, ReplyTo),
    /// }
    ///
    /// impl Server for Front {
    ///     type Call = Call;
    ///     type Cast = Never;
    ///     type Info = Info;
    ///
    ///     async fn handle_call(&mut self, Call::Find(key): Call, from: ReplyTo, cx: &mut Context<Self>) {
    ///         let asked = cx.call(&ServerRef::global("slow"), &(atom("find"), key), Duration::from_secs(5));
    ///         cx.spawn(asked, |found| Info::Found(found, from));
    ///     }
    ///
    ///     async fn handle_info(&mut self, Info::Found(found, from): Info, _cx: &mut Context<Self>) {
    ///         match found {
    ///             Ok(value) => from.reply(&value),
    ///             Err(error) => from.end_call(&(atom("not_found"), error.to_string())),
    ///         }
    ///     }
    /// }
    /// ```
    ///
    /// `then` is called by the server, when it takes the outcome: not at all once it has ended. A task that panics ends the
    /// server when it comes to the outcome, with the reason `{:panic, "message"}`, as the link of a `Task.async/1` does. Tasks
    /// end with the server, where they wait. [`ProcessHandle::spawn`] runs one that has no outcome.
    pub fn spawn<T: Send + 'static>(
        &mut self,
        work: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(T) -> S::Info + Send + 'static,
    ) -> TaskRef {
        self.tasks.start(&self.process, work, then)
    }

    /// As [`spawn`](Self::spawn), of work that blocks its thread or computes for long: a thread that is none of the node's does it,
    /// one of 500 at most that the whole program has for such work. Where it is cancelled, or the server ends, work that has begun is
    /// carried through, and its outcome dropped.
    ///
    /// ```
    /// # use kvnode::etf::atom;
    /// # use kvnode::{Context, Never, ReplyTo, Server};
    /// # use serde::Deserialize;
    /// # struct Files;
    /// # #[derive(Deserialize)]
    /// # #[serde(rename_all = "snake_case")]
    /// # enum Call {
    /// #     Read(String),
    /// # }
    /// # #[derive(Deserialize)]
    /// # enum Info {
    /// #     #[serde(skip)]
    /// #     Read(std::io::Result<String>, ReplyTo),
    /// # }
    /// # impl Server for Files {
    /// # type Call = Call;
    /// # type Cast = Never;
    /// # type Info = Info;
    /// async fn handle_call(&mut self, Call::Read(path): Call, from: ReplyTo, cx: &mut Context<Self>) {
    ///     cx.unblock(|| std::fs::read_to_string(path), |text| Info::Read(text, from));
    /// }
    ///
    /// async fn handle_info(&mut self, Info::Read(text, from): Info, _cx: &mut Context<Self>) {
    ///     match text {
    ///         Ok(text) => from.reply(&(atom("ok"), text)),
    ///         Err(error) => from.reply(&(atom("error"), error.to_string())),
    ///     }
    /// }
    /// # }
    /// ```
    pub fn unblock<T: Send + 'static>(
        &mut self,
        work: impl FnOnce() -> T + Send + 'static,
        then: impl FnOnce(T) -> S::Info + Send + 'static,
    ) -> TaskRef {
        self.spawn(crate::node::unblock(work), then)
    }

    /// Takes a task back: it ends where it waits. `false`: the server has had its outcome, or has taken it back. After this no
    /// outcome comes.
    pub fn cancel_task(&mut self, task: TaskRef) -> bool {
        self.tasks.cancel(task)
    }

    /// Monitors a process on any node, as `Process.monitor/1` does: [`Server::handle_down`] is called once when it
    /// ends, also when it is not there. A name in `:global` is looked up now, and the process that has it is monitored.
    ///
    /// # Errors
    /// See [`CallError`]: the monitor could not be set, and will not fire.
    pub async fn monitor(&mut self, process: &ServerRef) -> Result<MonitorRef, CallError> {
        self.monitors.set(&self.client, &self.mailbox, process).await
    }

    /// Takes a monitor back. `false`: it had fired, or been taken back. After this it does not fire.
    pub fn demonitor(&mut self, monitor: MonitorRef) -> bool {
        self.monitors.take_back(monitor)
    }

    /// Links the server to a process on any node, as `Process.link/1` does: when either ends with another reason than
    /// `:normal`, so does the other; unless it [traps exits](Self::trap_exits). A process that is not there is taken to
    /// have ended with `:noproc`, one whose node is not reached (any more) with `:noconnection`.
    pub async fn link(&mut self, process: &Pid) {
        let node = Arc::clone(self.node());
        let linked = match node.connect(&process.node).await {
            Ok(peer) => {
                peer.leave(|outbox| {
                    outbox.frames.link(self.process.pid(), process);
                    let remote = process.clone();
                    outbox.events.push(PeerEvent::Linked { process: self.process.process.id, remote });
                });
                // The connection may have ended before: then nobody has looked at what was left there.
                node.peers.get(&process.node).is_some_and(|up| Arc::ptr_eq(&up, &peer))
            }
            Err(_) => false,
        };
        if !linked {
            self.exit_signal(process, "noconnection");
        }
    }

    /// Takes a link back, as `Process.unlink/1` does. An exit signal that has come before waits in the mailbox.
    pub fn unlink(&mut self, process: &Pid) {
        if let Some(peer) = self.node().peers.get(&process.node) {
            let remote = process.clone();
            let event = PeerEvent::Unlinked { process: self.process.process.id, remote };
            peer.leave(|outbox| outbox.events.push(event));
        }
    }

    /// Whether exit signals are messages, as after `Process.flag(:trap_exit, true)`, instead of ending the server.
    /// `handle_info` gets them as `{:EXIT, pid, reason}`, which a variant of [`Server::Info`] can be:
    ///
    /// ```
    /// #[derive(serde::Deserialize)]
    /// enum Info {
    ///     #[serde(rename = "EXIT")]
    ///     Exit(kvnode::etf::Pid, kvnode::etf::OwnedTerm),
    /// }
    /// ```
    pub fn trap_exits(&mut self, trap: bool) {
        self.mailbox.trap_exits(trap);
    }

    /// An exit signal by a link that could not be set.
    fn exit_signal(&mut self, from: &Pid, reason: &str) {
        match self.mailbox.exit_signals() {
            ExitSignals::Trap => {
                let message = encode(|w| _ = w.tuple(3).atom("EXIT").pid(from).atom(reason));
                let message = OwnedTerm::parse(message).expect("it was written here as one term");
                self.mailbox.push(Envelope::Info(message));
            }
            ExitSignals::Obey | ExitSignals::Ignore => self.stop = Some(OwnedTerm::atom(reason)),
        }
    }

    /// Ends the server when this handler is done, with a reason such as `&atom("normal")`. What waits in the
    /// mailbox is not handled any more.
    pub fn stop(&mut self, reason: &(impl Serialize + ?Sized)) {
        self.stop = Some(exit_reason(reason));
    }

    pub(in crate::node) const fn take_stop(&mut self) -> Option<OwnedTerm> {
        self.stop.take()
    }

    /// A monitor has fired: `None` when it has been taken back.
    pub(in crate::node) fn down(&mut self, monitor: u64, reason: OwnedTerm) -> Option<Down> {
        self.monitors.fired(monitor, reason)
    }

    /// What the program itself has brought ([`Envelope::Own`]), as the message that the server is to handle; `None`: it comes of a
    /// task that has been taken back.
    ///
    /// # Panics
    /// Where a task did that it comes of.
    pub(in crate::node) fn own(&mut self, own: Box<dyn Any + Send>) -> Option<S::Info> {
        let own = own.downcast::<Own<S::Info>>();
        match *own.expect("only handles and tasks of this server put one into its mailbox") {
            Own::Told(message) => Some(message),
            Own::Done(done) => self.tasks.done(done),
            Own::Made(make) => Some(make()),
        }
    }

    /// Waits for what is to be handled next.
    pub(in crate::node) async fn next(&mut self) -> Event<S::Info> {
        poll_fn(|cx| {
            // An interval whose messages take longer than its period is always due: the mailbox has every other turn then.
            if std::mem::take(&mut self.mailbox_first)
                && let Poll::Ready(next) = self.mailbox.poll_next(cx)
            {
                return Poll::Ready(next.into());
            }
            if let Poll::Ready(Due { message, repeats }) = self.timers.poll_due(cx) {
                self.mailbox_first = repeats;
                return Poll::Ready(Event::Timer(message));
            }
            self.mailbox.poll_next(cx).map(Event::from)
        })
        .await
    }
}

impl<S: Server> fmt::Debug for Context<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.fmt(f)
    }
}
