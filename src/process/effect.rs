//! What a behaviour may ask for, and what becomes of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::exits::Ended;
use super::gen_server::{Caller, OwnedCaller};
use super::registry::Process;
use super::{CallError, Feed, Held, ProcessId, Registry, Waiters};
use crate::distribution::{DistributionFlags, LARGE_BYTES, Outbound, RemoteProcess, ServerRef};
use crate::etf::{AtomView, OwnedTerm, Pid, PooledBytes, SharedBytes, TermView, TermWriter, Traits};

/// Something that has to happen outside of the connection that a message came by. Carried out by `node`, in
/// order, once per batch.
#[derive(Debug)]
pub enum Effect {
    /// Whole frames for a node, which is connected to where need be.
    Send {
        /// The node.
        node: Arc<str>,
        /// The frames.
        frames: Outbound,
        /// The call that they answer: where they have no room, it ends.
        answers: Option<Box<EndedCall>>,
    },
    /// A feed has something for processes on a node: see [`Dispatch::feed`].
    Feed(Arc<str>, Arc<dyn Feed>),
    /// A call that came by another connection than its monitor ends.
    EndCall(EndedCall),
    /// A process has ended: the watchers on other connections are to be told, and its supervisor.
    Exited(Ended),
    /// A connection is lost that held messages for suspended processes: the node's connection to itself takes them.
    Orphaned(Box<Held>),
    /// A process has been resumed: the connections that hold messages for it may deliver them.
    Resumed(ProcessId),
    /// A state is to be sent in the form that the caller's OTP release expects.
    ReplyState {
        /// The caller that asked.
        caller: OwnedCaller,
        /// The state, encoded.
        state: Vec<u8>,
    },
    /// `global` no longer gives the name to us.
    GlobalNameLost {
        /// The name.
        name: Arc<str>,
    },
    /// A message for a server that has to be looked up first. (What goes to a pid or to a name on a node is sent as
    /// frames, which keeps its order.)
    SendTo {
        /// The process that it comes from.
        from: Pid,
        /// The server.
        to: ServerRef,
        /// The message, encoded.
        message: Vec<u8>,
    },
    /// A process of ours calls a server.
    Call(Box<OutgoingCall>),
    /// Something is done again and again.
    Wake(Box<WakeRequest>),
    /// A name in `global` is no longer to be ours.
    ReleaseGlobal {
        /// The name.
        name: Arc<str>,
    },
    /// A name in `global` that was claimed just now is registered in the clusters that we are connected to.
    RegisterGlobal(Box<GlobalRegistration>),
}

/// A call that a process of ours makes: `GenServer.call/3`.
pub struct OutgoingCall {
    /// The process that calls.
    pub from: Pid,
    /// The server.
    pub to: ServerRef,
    /// The request.
    pub request: OwnedTerm,
    /// How long it may take. `Duration::MAX`: `:infinity`.
    pub timeout: Duration,
    /// The call ends when this node is lost: it is made for it.
    pub on_behalf_of: Arc<str>,
    /// Called once with the answer, from any thread; must not block.
    pub done: Box<dyn FnOnce(Result<OwnedTerm, CallError>) + Send>,
}

impl fmt::Debug for OutgoingCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutgoingCall").field("to", &self.to).field("request", &self.request).finish()
    }
}

/// Something that is to be done again and again.
pub struct WakeRequest {
    /// The time between two calls.
    pub every: Duration,
    /// Called until it gives `false`. Must not block.
    pub wake: Box<dyn FnMut() -> bool + Send>,
}

impl fmt::Debug for WakeRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WakeRequest").field("every", &self.every).finish_non_exhaustive()
    }
}

/// A name in `global`, and the process that is to have it.
pub struct GlobalRegistration {
    /// The name.
    pub name: Arc<str>,
    /// The process, which has claimed it.
    pub process: Arc<Process>,
    /// Called once: with the pid that has the name instead, if there is one. From any thread; must not block.
    pub done: Box<dyn FnOnce(Option<Pid>) + Send>,
}

impl fmt::Debug for GlobalRegistration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GlobalRegistration").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A call that is ended by its monitor.
#[derive(Clone, Debug)]
pub struct EndedCall {
    /// The process that was called.
    pub process: ProcessId,
    /// The caller's node.
    pub caller_node: Arc<str>,
    /// The caller's number: id and serial.
    pub caller: (u32, u32),
    /// The call's tag, encoded.
    pub tag: Box<[u8]>,
    /// Why, encoded.
    pub reason: Box<[u8]>,
}

/// More waits for a node than may: it takes what is sent to it more slowly than that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much waits for that node, which takes it too slowly")]
pub struct NoRoom;

impl NoRoom {
    /// Writes the reason that a call ends with whose answer has no room.
    pub fn write(w: &mut TermWriter<'_>) {
        w.tuple(2).atom("system_limit").atom("busy_dist_port");
    }
}

/// What can be done on the node from any thread.
pub trait Dispatch: Send + Sync {
    /// Queues whole frames for a node, which is connected to where need be; empties `frames`.
    ///
    /// # Errors
    /// They have no room there, and are left as they are.
    #[doc(hidden)]
    fn send(&self, node: &str, frames: &mut Outbound) -> Result<(), NoRoom>;

    /// Ends a call by its monitor, as [`Turn::end_call`] does.
    #[doc(hidden)]
    fn end_call(&self, call: EndedCall);

    /// Ends a process of this node with a reason, an encoded term: its names are free, and all its watchers are told.
    /// One that has ended already is none.
    #[doc(hidden)]
    fn exit(&self, process: ProcessId, reason: &[u8]);

    /// A feed has something for processes on a node: the connection to that node asks it for more, now or as soon as there is
    /// room. Where the node is not connected nothing happens: the feed is announced again once it is.
    #[doc(hidden)]
    fn feed(&self, _node: &str, _feed: &Arc<dyn Feed>) {}
}

/// The handling of one message: the process whose turn it is, where the message came from, and where what it brings about goes.
pub struct Turn<'a> {
    /// The process that handles it.
    #[doc(hidden)]
    pub me: &'a Process,
    /// All processes.
    #[doc(hidden)]
    pub registry: &'a Registry,
    /// What we wait for from other nodes.
    #[doc(hidden)]
    pub waiters: &'a Waiters,
    /// The node that the message came from.
    pub peer: &'a str,
    /// The flags that this node offered.
    #[doc(hidden)]
    pub flags: DistributionFlags,
    /// The memory that a large message was received into, for a process that keeps most of it.
    #[doc(hidden)]
    pub frame_owner: Option<&'a Arc<PooledBytes>>,
    /// The output to that node.
    #[doc(hidden)]
    pub out: &'a mut Outbound,
    /// What is to happen elsewhere.
    #[doc(hidden)]
    pub effects: &'a mut Vec<Effect>,
    /// The monitors of that node, for calls that end without an answer.
    pub(super) calls: &'a mut dyn EndCalls,
    /// The reason, encoded, with which the process ends once the message has been handled.
    pub(super) exit: Option<Vec<u8>>,
    /// The call is to be handled again when its answer has room.
    pub(super) waits: bool,
}

/// Ends calls by their monitors: the table of the connection that a message came by.
pub(super) trait EndCalls {
    /// Ends a call; `false` when no monitor of it is known.
    fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) -> bool;
}

impl Turn<'_> {
    /// Answers a call.
    #[inline]
    pub fn reply(&mut self, caller: &Caller<'_>, reply: impl FnOnce(&mut TermWriter<'_>)) {
        self.reply_frame(caller, |w| {
            reply(w);
            None
        });
    }

    /// Answers a call with an encoded term that is not copied.
    #[doc(hidden)]
    pub fn reply_shared(&mut self, caller: &Caller<'_>, value: SharedBytes) {
        self.reply_frame(caller, |_| Some(value));
    }

    /// The same where the encoded term is the end of the answer, whose beginning is written before it.
    pub fn reply_ending(
        &mut self,
        caller: &Caller<'_>,
        begin: impl FnOnce(&mut TermWriter<'_>),
        value: SharedBytes,
    ) {
        self.reply_frame(caller, |w| {
            begin(w);
            Some(value)
        });
    }

    #[inline]
    fn reply_frame(
        &mut self,
        caller: &Caller<'_>,
        reply: impl FnOnce(&mut TermWriter<'_>) -> Option<SharedBytes>,
    ) {
        if caller.node() == *self.peer {
            caller.write_reply(&self.me.pid_bytes, self.out, reply);
        } else {
            let mut frames = Outbound::default();
            caller.write_reply(&self.me.pid_bytes, &mut frames, reply);
            let answers = Some(Box::new(self.ended(caller, NoRoom::write)));
            self.effects.push(Effect::Send { node: caller.node().to_str().into(), frames, answers });
        }
    }

    fn ended(&self, caller: &Caller<'_>, reason: impl FnOnce(&mut TermWriter<'_>)) -> EndedCall {
        EndedCall {
            process: self.me.id,
            caller_node: caller.pid().node.to_str().into(),
            caller: (caller.pid().id, caller.pid().serial),
            tag: caller.tag().bytes().into(),
            reason: crate::etf::encode(reason).into(),
        }
    }

    /// Whether the caller's node can decode a term with these traits. (Only known for the node that the
    /// message came from; another one is taken to be as able as this.)
    #[inline]
    #[doc(hidden)]
    pub fn can_decode(&self, traits: Traits) -> bool {
        traits == Traits::none() || self.flags.can_decode(traits)
    }

    /// Whether an answer of so many bytes has room among what waits for the caller's node. One that is shared with the
    /// store takes none there as long as the store has it.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        len < LARGE_BYTES || self.out.room().large
    }

    /// Has the call that is being handled handled again when there is room for a large answer, instead of answering it
    /// now; other calls of the same node go on. For a server that [waits for room](super::GenServer::waits_for_room)
    /// and has changed nothing yet.
    #[cold]
    pub fn wait_for_room(&mut self) {
        self.waits = true;
    }

    /// Whether the call that is being handled is to be handled again.
    pub const fn waits_for_room(&self) -> bool {
        self.waits
    }

    /// Ends a call that cannot be served: the caller's monitor fires with `reason`, and the caller exits with
    /// it instead of waiting for its time-out. A call without a monitor waits in vain, as on a BEAM.
    pub fn end_call(&mut self, caller: &Caller<'_>, reason: impl FnOnce(&mut TermWriter<'_>)) {
        let call = self.ended(caller, reason);
        if *call.caller_node == *self.peer {
            self.calls.end_call(&call, self.registry, self.out);
        } else {
            self.effects.push(Effect::EndCall(call));
        }
    }

    /// Ends the process once this message has been handled, as `{:stop, reason, state}` does: watchers are told
    /// `reason`. The first reason counts.
    pub fn exit(&mut self, reason: impl FnOnce(&mut TermWriter<'_>)) {
        self.exit.get_or_insert_with(|| crate::etf::encode(reason));
    }

    /// Sends whole frames to a node.
    #[doc(hidden)]
    pub fn send_to(&mut self, node: AtomView<'_>, mut frames: Outbound) {
        if node == *self.peer {
            self.out.append(&mut frames);
        } else {
            self.effects.push(Effect::Send { node: node.to_str().into(), frames, answers: None });
        }
    }

    /// Monitors a process of the node that the message came from, by the connection that it came by: so the monitor and whatever
    /// was said over that connection are lost together. `done` is called once with the reason of the end, `noproc` where there
    /// is no such process and `noconnection` where the connection is lost, however soon there is another one. It is called at
    /// once where the process is on another node: then the message has outlived its connection, or comes from another node. From
    /// any thread; must not block.
    pub fn monitor(&mut self, process: &RemoteProcess, done: impl FnOnce(OwnedTerm) + Send + 'static) {
        if **process.node() != *self.peer {
            return done(OwnedTerm::atom("noconnection"));
        }
        let monitor = self.registry.new_reference();
        self.waiters.expect(&monitor, process.node(), |outcome| done(outcome.into_reason()));
        self.out.monitor(&self.me.pid, process, &monitor);
    }

    /// Sends a message to a process.
    pub fn send(&mut self, to: TermView<'_>, message: impl FnOnce(&mut TermWriter<'_>)) {
        let Some(pid) = to.as_pid() else { return };
        let mut frames = Outbound::default();
        frames.send(&pid.into(), message);
        self.send_to(pid.node, frames);
    }
}

impl fmt::Debug for Turn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Turn").field("peer", &self.peer).finish_non_exhaustive()
    }
}
