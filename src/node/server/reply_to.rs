//! The caller that waits for the answer to a call that a [`Server`](crate::node::Server) got.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::distribution::Outbound;
use crate::etf::{ConvertError, Pid, TermWriter};
use crate::node::latch::Opened;
use crate::node::life::threads;
use crate::node::server::asks::Ask;
use crate::node::server::process_handle::exit_reason;
use crate::node::server::typed;
use crate::node::{Node, block_on, now};
use crate::process::figures::ServerFigures;
use crate::process::{NoRoom, OwnedCaller, ProcessId};
use crate::within::within;

/// A call that is dropped by a panic ends after so long, unless the panic has ended its server: that is a matter of
/// microseconds, and callers wait for seconds.
const PANIC_TOLD_WITHIN: Duration = Duration::from_secs(1);

/// The caller that waits for an answer: the `from` of `handle_call`.
///
/// It may be answered at once, or kept and answered later, from any thread or task. Dropped without an answer it ends
/// the call: the caller exits with the reason `:noreply` instead of waiting for its time-out.
///
/// # A server that knows its callers
///
/// [`caller`](Self::caller) is the first half of the `from` of an Elixir `handle_call`. Each process gets this
/// ticket once; an answer that is kept goes out when another call asks for it:
///
/// ```
/// use std::collections::HashSet;
///
/// use kvnode::etf::{Pid, atom};
/// use kvnode::{Context, Never, ReplyTo, Server};
/// use serde::Deserialize;
///
/// #[derive(Default)]
/// struct Tickets {
///     given: HashSet<Pid>,
///     waiting: Vec<ReplyTo>,
/// }
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Call {
///     Ticket, // :ticket
///     Wait,   // :wait, answered by the next :open
///     Open,   // :open
/// }
///
/// impl Server for Tickets {
///     type Call = Call;
///     type Cast = Never;
///     type Info = Never;
///
///     async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
///         match call {
///             Call::Ticket if self.given.insert(from.caller().clone()) => from.reply(&atom("ok")),
///             Call::Ticket => from.reply(&(atom("error"), atom("has_one"))),
///             Call::Wait => self.waiting.push(from),
///             Call::Open => {
///                 self.waiting.drain(..).for_each(|waiting| waiting.reply(&atom("open")));
///                 from.reply(&atom("ok"));
///             }
///         }
///     }
/// }
/// ```
#[must_use = "the caller waits for an answer"]
pub struct ReplyTo {
    /// Gone when the call is answered.
    caller: Option<OwnedCaller>,
    process: ProcessId,
    node: Weak<Node>,
    /// By what it is counted how long the caller has waited, and since when it has.
    asked: Option<(Arc<ServerFigures>, Instant)>,
}

impl ReplyTo {
    pub(in crate::node) fn new(caller: OwnedCaller, process: ProcessId, node: &Arc<Node>) -> Self {
        Self { caller: Some(caller), process, node: Arc::downgrade(node), asked: None }
    }

    /// The same, of a call that is counted when it is answered or ended.
    pub(in crate::node) fn counted(mut self, by: Arc<ServerFigures>, came: Instant) -> Self {
        self.asked = Some((by, came));
        self
    }

    /// The caller waits no longer, as far as the server can do anything for it.
    fn note_answered(&mut self, node: &Node) {
        if let Some((figures, came)) = self.asked.take() {
            let waited = now().saturating_duration_since(came);
            figures.answered(waited, 1);
            node.figures.latency.record(waited, 1);
        }
    }

    /// The process that called, `elem(from, 0)` in Elixir; its node is [`Pid::node`].
    pub fn caller(&self) -> &Pid {
        self.caller.as_ref().expect("a call is answered by value").pid()
    }

    /// Answers the call. A value that cannot be written as a term, or that the caller's OTP version cannot decode
    /// (which would cost its node the connection to us), ends the call with a reason that says so.
    ///
    /// Where too much waits for the caller's node, a thread of the program's waits here for room, as a BEAM suspends a
    /// process that sends to a busy node. In a handler, which runs on a thread of the node, nothing waits: what finds no
    /// room there ends the call, with `{:system_limit, :busy_dist_port}` ([`reply_in_turn`](Self::reply_in_turn) waits).
    /// [`try_reply`](Self::try_reply) tells how it went.
    pub fn reply(self, value: &(impl Serialize + ?Sized)) {
        if let Err(error @ (NotReplied::Unwritable(_) | NotReplied::NoRoom)) = self.try_reply(value) {
            tracing::error!(%error, "an answer was not sent; its call ends");
        }
    }

    /// As [`reply`](Self::reply), with the type of answer that the request names: [`Ask`] has an example.
    pub fn answer<Q: Ask>(self, answer: &Q::Answer) {
        self.reply(answer);
    }

    /// As [`reply`](Self::reply), and tells whether the answer goes out.
    ///
    /// # Errors
    /// It does not, and why; the call has ended with a reason that says so.
    pub fn try_reply(mut self, value: &(impl Serialize + ?Sized)) -> Result<(), NotReplied> {
        let (node, caller, mut frames) = self.written(value)?;
        while let Some(room) = node.offer_answer(&caller, &mut frames) {
            if !threads::may_block() || !block_on(node.room_comes(room)) {
                return self.refuse(caller, NotReplied::NoRoom);
            }
        }
        Ok(())
    }

    /// As [`try_reply`](Self::try_reply), and waits for room without blocking the thread.
    ///
    /// # Errors
    /// As for [`try_reply`](Self::try_reply); [`NotReplied::NoRoom`] where none has come for
    /// [`output_stall_max`](crate::config::Limits::output_stall_max).
    pub async fn reply_in_turn(mut self, value: &(impl Serialize + ?Sized)) -> Result<(), NotReplied> {
        let (node, caller, mut frames) = self.written(value)?;
        while let Some(room) = node.offer_answer(&caller, &mut frames) {
            if !node.room_comes(room).await {
                return self.refuse(caller, NotReplied::NoRoom);
            }
        }
        Ok(())
    }

    /// The frame of the answer, its receiver, and the node that sends it.
    fn written(
        &mut self,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(Arc<Node>, OwnedCaller, Outbound), NotReplied> {
        let (Some(caller), Some(node)) = (self.caller.take(), self.node.upgrade()) else {
            return Err(NotReplied::Stopped);
        };
        let term = match typed::term_of(value) {
            Ok(term) => term,
            Err(error) => return self.refuse(caller, NotReplied::Unwritable(error)),
        };
        let traits = term.view().traits();
        if node.peers.get(caller.node()).is_some_and(|peer| !peer.offered.can_decode(traits)) {
            return self.refuse(caller, NotReplied::Undecodable);
        }
        let frames = caller.answer(|w| {
            w.term(term.view());
        });
        self.note_answered(&node);
        Ok((node, caller, frames))
    }

    /// Ends the call with a reason that says why it is not answered.
    fn refuse<T>(&mut self, caller: OwnedCaller, why: NotReplied) -> Result<T, NotReplied> {
        self.caller = Some(caller);
        self.end(|w| match &why {
            NotReplied::NoRoom => NoRoom::write(w),
            why => _ = w.tuple(2).atom("badarg").binary(why.to_string().as_bytes()),
        });
        Err(why)
    }

    /// Ends the call without an answer: the caller exits with `reason`. A call that was made without a monitor waits
    /// for its time-out, as with a GenServer that ends.
    pub fn end_call(mut self, reason: &(impl Serialize + ?Sized)) {
        let reason = exit_reason(reason);
        self.end(|w| {
            w.term(reason.view());
        });
    }

    /// As [`end_call`](Self::end_call), with a reason that is written out.
    pub(in crate::node) fn end_with(mut self, reason: impl FnOnce(&mut TermWriter<'_>)) {
        self.end(reason);
    }

    fn end(&mut self, reason: impl FnOnce(&mut TermWriter<'_>)) {
        if let (Some(caller), Some(node)) = (self.caller.take(), self.node.upgrade()) {
            self.note_answered(&node);
            node.carry_out(&mut vec![caller.end(self.process, reason)]);
        }
    }
}

/// Why an answer does not go out. Its call has ended with a reason that says so.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReplied {
    /// The value cannot be written as a term: our misuse.
    #[error("{0}")]
    Unwritable(ConvertError),
    /// The caller's OTP version cannot decode it.
    #[error("this OTP version cannot decode the answer")]
    Undecodable,
    /// Too much waits for the caller's node, which takes it too slowly.
    #[error("{NoRoom}")]
    NoRoom,
    /// The node has ended.
    #[error("this node has ended")]
    Stopped,
}

impl Node {
    /// Sends an answer, unless it has no room: then gives what tells that there may be.
    fn offer_answer(&self, caller: &OwnedCaller, frames: &mut Outbound) -> Option<Opened> {
        if self.send_up_to(caller.node(), frames, self.later_bytes_max()).is_ok() {
            return None;
        }
        // A node that is gone, or is only being connected to, has none to wait for.
        Some(self.peers.get(caller.node())?.room())
    }

    /// Waits for room; `false`: none has come for too long.
    async fn room_comes(&self, room: Opened) -> bool {
        within(self.config.limits.output_stall_max, room.wait()).await.is_some()
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end(|w| _ = w.atom("noreply"));
        } else if let Some(node) = self.node.upgrade() {
            // By the panic of its server, most likely: then the caller is told of that, as all watchers of the server are.
            let (process, node_of) = (self.process, self.node.clone());
            let left = Self { caller: self.caller.take(), process, node: node_of, asked: self.asked.take() };
            let ended = node.end_of(process);
            node.spawn(async move {
                _ = within(PANIC_TOLD_WITHIN, ended).await;
                drop(left);
            });
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyTo").field(&self.caller).finish()
    }
}
