//! Servers with a mailbox: one message after the other, with `&mut self`, and time to wait.

pub mod asks;
pub mod client;
pub mod context;
pub mod grouped;
mod guarded;
pub mod held_names;
pub mod inbox;
mod many;
pub mod monitors;
mod node_watch;
pub mod own;
pub mod process_handle;
pub mod reply_to;
pub mod supervised;
pub mod tasks;
pub mod timers;
pub(in crate::node) mod typed;

use std::any::Any;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
use smol::future::FutureExt;
use tracing::{Instrument, Span};

use crate::etf::text::{InspectLimits, inspect};
use crate::etf::{OwnedTerm, TermView, encode, from_term};
use crate::node::now;
use crate::node::server::context::{Context, Event};
use crate::node::server::guarded::Guarded;
use crate::node::server::monitors::Down;
use crate::node::server::process_handle::ProcessHandle;
use crate::node::server::reply_to::ReplyTo;
use crate::process::StateRequest;
use crate::process::figures::{Kind, ServerFigures};
use crate::process::mailbox::Envelope;
use crate::within::until;

/// Messages after which other tasks get the thread, also when more are there.
const MESSAGES_IN_A_ROW: u32 = 64;

/// A process with a state of its own, written like an Elixir `GenServer`: it handles one message after the other, in the
/// order in which each sender sent them, and may wait in between. [`Node::serve`](crate::Node::serve) starts it.
/// (A message sent with `[:priority]` has priority at a priority alias, on a BEAM too. A server here makes none.)
///
/// Messages arrive as Rust values: requests are enums or structs with serde's `Deserialize`, by Elixir's conventions
/// ([`etf::convert`](crate::etf::convert) has the table). What a request's type cannot be read from ends that call, with
/// the reason `{:bad_call, request}`, and not the server; a cast or message that cannot be read is logged and dropped.
/// A server that wants terms as they are says [`OwnedTerm`], one that takes no messages of a kind says [`Never`].
///
/// ```
/// use kvnode::etf::atom;
/// use kvnode::{Context, Never, ReplyTo, Server};
/// use serde::Deserialize;
///
/// struct Stack(Vec<String>);
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Call {
///     Push(String), // {:push, "text"}
///     Pop,          // :pop
/// }
///
/// impl Server for Stack {
///     type Call = Call;
///     type Cast = Never;
///     type Info = Never;
///
///     async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
///         match call {
///             Call::Push(text) => {
///                 self.0.push(text);
///                 from.reply(&atom("ok"));
///             }
///             Call::Pop => from.reply(&self.0.pop()), // a binary, or nil
///         }
///     }
/// }
/// ```
///
/// # Where it runs, and how it ends
///
/// On the node's threads for servers ([`NodeBuilder::threads`](crate::NodeBuilder::threads)). A handler may be `async` and
/// wait for other servers or for anything else that is a future; what comes meanwhile waits in the mailbox, which is
/// bounded ([`Limits::mailbox_messages_max`] says what happens then). It should not block the thread, as other servers share
/// it: [`unblock`](crate::unblock) is for what blocks. One that has held its thread for over a second is named in the log.
/// A call to itself waits in vain, as on a BEAM.
///
/// It ends by [`Context::stop`], by [`ProcessHandle::stop`], by an exit signal from outside (`Process.exit/2`), and
/// with the node. Monitors and links are told the reason. A handler that panics ends the server with the reason
/// `{:panic, "message"}`, and nothing else.
///
/// A server that never waits and keeps its state behind locks of its own can answer without a mailbox, some
/// microseconds sooner: see [`GenServer`](crate::GenServer).
///
/// [`Limits::mailbox_messages_max`]: crate::config::Limits::mailbox_messages_max
pub trait Server: Send + Sized + 'static {
    /// What calls ask: `GenServer.call(server, request)`.
    type Call: DeserializeOwned + Send;
    /// What casts ask: `GenServer.cast(server, request)`.
    type Cast: DeserializeOwned + Send;
    /// Other messages, `send(server, message)`, and those that the program itself brings: of timers, of tasks, by
    /// [`ServerHandle::tell`](crate::ServerHandle::tell). Any node of the cluster can send what can be read as this; a variant with
    /// `#[serde(skip)]` comes from the program alone.
    type Info: DeserializeOwned + Send;

    /// Called once, before any message.
    fn init(&mut self, cx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = cx;
        async {}
    }

    /// A call. It is answered by [`ReplyTo::reply`], now or later.
    fn handle_call(
        &mut self,
        request: Self::Call,
        from: ReplyTo,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send;

    /// A cast. Unless this is written, it is logged and dropped.
    fn handle_cast(
        &mut self,
        request: Self::Cast,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = request;
        tracing::warn!(process = ?cx, "cast dropped: the server takes none");
        async {}
    }

    /// Any other message: of another process, of a timer ([`Context::send_after`], [`Context::send_interval`]), the outcome of a
    /// task ([`Context::spawn`], [`Context::unblock`]), or one that the program has told
    /// ([`ServerHandle::tell`](crate::ServerHandle::tell)). Unless this is written, it is logged and dropped.
    fn handle_info(
        &mut self,
        message: Self::Info,
        cx: &mut Context<Self>,
    ) -> impl Future<Output = ()> + Send {
        let _ = message;
        tracing::warn!(process = ?cx, "message dropped: the server takes none");
        async {}
    }

    /// A process that is monitored ([`Context::monitor`]) has ended, or was not there: the message
    /// `{:DOWN, ref, :process, process, reason}`. Unless this is written, it is dropped.
    fn handle_down(&mut self, down: Down, cx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = (down, cx);
        async {}
    }

    /// The state as `:sys.get_state/1` and `:sys.get_status/1` show it, and observer with them; `nil` unless this is
    /// written. It is asked for between two messages. What takes more than
    /// [`Limits::state_bytes_max`](crate::config::Limits::state_bytes_max) as a term is shown as `%{bytes: n}`.
    ///
    /// ```
    /// # use kvnode::{Context, Never, ReplyTo, Server};
    /// # struct Counter(i64);
    /// # impl Server for Counter {
    /// #     type Call = Never;
    /// #     type Cast = Never;
    /// #     type Info = Never;
    /// #     async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #         match call {}
    /// #     }
    /// fn state(&self) -> impl serde::Serialize {
    ///     self.0
    /// }
    /// # }
    /// ```
    fn state(&self) -> impl Serialize {}

    /// The server is about to end by [`Context::stop`], [`ProcessHandle::stop`] or with the node; nothing comes after
    /// it. Not called when it is ended from outside or by a panic.
    fn terminate(&mut self, reason: &OwnedTerm, cx: &mut Context<Self>) -> impl Future<Output = ()> + Send {
        let _ = (reason, cx);
        async {}
    }
}

/// Messages of a kind that a server does not take: no term is one.
///
/// ```
/// use kvnode::Never;
/// use kvnode::etf::{OwnedTerm, from_term};
///
/// assert!(from_term::<Never>(OwnedTerm::atom("hello").view()).is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Never {}

impl<'de> serde::Deserialize<'de> for Never {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        Err(serde::de::Error::custom("the server takes no messages of this kind"))
    }
}

/// Runs a server until it ends. Also where this is dropped before it is done, no panic of the server's drop leaves it.
pub(in crate::node) fn run<S: Server>(
    handle: ProcessHandle,
    server: S,
) -> impl Future<Output = ()> + Send + use<S> {
    let server = Guarded::new(&handle, server);
    let cx = Guarded::new(&handle, Context::new(handle.clone()));
    async move {
        let (mut server, mut cx) = (server, cx);
        let listed = Listed(&handle);
        let lived = AssertUnwindSafe(live(&mut *server, &mut *cx)).catch_unwind();
        let reason = match until_ended(&handle, lived).await {
            // Ended from outside: all has been said.
            None => None,
            Some(Ok(reason)) => {
                let terminated = async { server.terminate(&reason, &mut cx).await };
                match until_ended(&handle, AssertUnwindSafe(terminated).catch_unwind()).await {
                    None => None,
                    Some(Ok(())) => Some(reason),
                    Some(Err(panic)) => Some(panicked(&handle, &*panic)),
                }
            }
            Some(Err(panic)) => Some(panicked(&handle, &*panic)),
        };
        drop(listed);
        if let Some(reason) = reason {
            handle.node.exit(&handle.process, reason.view().bytes());
        }
        // Last: callers that the server has kept are told the reason, and not that it has dropped them.
        drop(cx);
        drop(server);
    }
}

/// A server whose mailbox the node has in its table, until this is dropped.
struct Listed<'a>(&'a ProcessHandle);

impl Drop for Listed<'_> {
    fn drop(&mut self) {
        self.0.node.mailboxes.lock().remove(&self.0.process.id);
    }
}

/// Waits for a future, unless the process is ended from outside before: then it is dropped where it waits.
async fn until_ended<T>(handle: &ProcessHandle, work: impl Future<Output = T>) -> Option<T> {
    let mailbox = handle.mailbox.as_ref().expect("a server has a mailbox");
    let mut work = Guarded::new(handle, Box::pin(work));
    until(poll_fn(|cx| mailbox.poll_ended(cx)), work.as_mut()).await
}

/// Handles messages until the server is to end, and gives the reason.
async fn live<S: Server>(server: &mut S, cx: &mut Context<S>) -> OwnedTerm {
    server.init(cx).await;
    let figures = cx.process().process.figures.clone().expect("a server is counted");
    let mut handled = 0_u32;
    loop {
        if let Some(reason) = cx.take_stop() {
            return reason;
        }
        match cx.next().await {
            Event::Envelope(Envelope::State(asked)) => show_state(server, cx, asked),
            Event::Envelope(Envelope::Stop { reason }) => return reason,
            // `until_ended`, which runs this, notices it too, and drops it here.
            Event::Ended => std::future::pending().await,
            event => {
                let kind = kind_of(&event);
                let span = span_of(cx, &figures, kind);
                figures.count(kind);
                let began = now();
                handle(server, event, cx, &figures).instrument(span).await;
                figures.handled(now().saturating_duration_since(began), 1);
            }
        }
        handled = handled.wrapping_add(1);
        if handled.is_multiple_of(MESSAGES_IN_A_ROW) {
            smol::future::yield_now().await;
        }
    }
}

const fn kind_of<M>(event: &Event<M>) -> Kind {
    match event {
        Event::Envelope(Envelope::Call { .. }) => Kind::Call,
        Event::Envelope(Envelope::Cast(_)) => Kind::Cast,
        _ => Kind::Info,
    }
}

/// The span that a message is handled in. Where nobody wants it, nothing is done for it.
fn span_of<S: Server>(cx: &Context<S>, figures: &ServerFigures, kind: Kind) -> Span {
    if !tracing::span_enabled!(target: "kvnode::server", tracing::Level::DEBUG) {
        return Span::none();
    }
    let (server, pid, message) = (figures.label(), cx.pid(), kind.code());
    tracing::debug_span!(target: "kvnode::server", "handle", server, ?pid, message)
}

/// Handles one message.
async fn handle<S: Server>(
    server: &mut S,
    event: Event<S::Info>,
    cx: &mut Context<S>,
    figures: &Arc<ServerFigures>,
) {
    match event {
        Event::Timer(message) => server.handle_info(message, cx).await,
        Event::Envelope(Envelope::Call { request, from, came }) => {
            let mut from = ReplyTo::new(from, cx.process().process.id, cx.node());
            if let Some(came) = came {
                from = from.counted(Arc::clone(figures), came);
            }
            match from_term(request.view()) {
                Ok(call) => server.handle_call(call, from, cx).await,
                Err(error) => {
                    tracing::warn!(process = ?cx, request = shown(request.view()), %error, "unknown call ended");
                    from.end_with(|w| {
                        w.tuple(2).atom("bad_call").term(request.view());
                    });
                }
            }
        }
        Event::Envelope(Envelope::Cast(request)) => match from_term(request.view()) {
            Ok(cast) => server.handle_cast(cast, cx).await,
            Err(error) => {
                tracing::warn!(process = ?cx, request = shown(request.view()), %error, "unknown cast dropped");
            }
        },
        Event::Envelope(Envelope::Info(message)) => match from_term(message.view()) {
            Ok(info) => server.handle_info(info, cx).await,
            Err(error) => {
                tracing::debug!(process = ?cx, message = shown(message.view()), %error, "unknown message dropped");
            }
        },
        Event::Envelope(Envelope::Own(own)) => {
            if let Some(message) = cx.own(own) {
                server.handle_info(message, cx).await;
            }
        }
        Event::Envelope(Envelope::Down { monitor, reason }) => {
            // One that has been taken back fires no more.
            if let Some(down) = cx.down(monitor, reason) {
                server.handle_down(down, cx).await;
            }
        }
        Event::Envelope(Envelope::State(_) | Envelope::Stop { .. }) | Event::Ended => {
            unreachable!("the loop takes these itself")
        }
    }
}

/// Answers another process that asks for the state.
fn show_state<S: Server>(server: &S, cx: &Context<S>, asked: StateRequest) {
    let state = typed::term_of(&server.state()).unwrap_or_else(|error| {
        tracing::error!(process = ?cx, %error, "a state cannot be written as a term");
        OwnedTerm::atom("nil")
    });
    let (node, process) = (cx.node(), &cx.process().process);
    let effect = asked.answer(process, &node.registry, &**node, state.view().bytes());
    node.carry_out(&mut effect.into_iter().collect());
}

/// A term for the log: short, whatever a peer sent.
fn shown(term: TermView<'_>) -> String {
    inspect(term, InspectLimits::LOG)
}

/// The reason of a server whose handler panicked, which is a bug of that server.
fn panicked(handle: &ProcessHandle, panic: &(dyn Any + Send)) -> OwnedTerm {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    tracing::error!(process = ?handle, panic = text, "a server panicked and has ended");
    let reason = encode(|w| {
        w.tuple(2).atom("panic").binary(text.as_bytes());
    });
    OwnedTerm::parse(reason).expect("it was written here as one term")
}
