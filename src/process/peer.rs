//! One connected node: the delivery of its signals, its monitors and links.
//!
//! The tables belong to the connection and are touched by its task alone, so that a call's MONITOR_P and
//! DEMONITOR_P cost two look-ups and no lock. What ends elsewhere is told to every connection afterwards
//! ([`Peer::process_ended`]).

mod events;
mod links;
mod measured;
mod signals;
mod skipped;
mod spawns;

use std::fmt;
use std::sync::Arc;

use ahash::AHashSet;

use super::exits::{RemoteId, guarded, write_exit, write_noproc};
use super::figures::Timed;
use super::held::{Held, HeldMessage, Sender, WaitsFor};
use super::message::Message;
use super::monitors::Monitors;
use super::registry::Process;
use super::waiters::Outcome;
use super::{Caller, Effect, ProcessId, Registry, Turn, Waiters, exits, system};
use crate::distribution::control::{ControlMessage, ProcessRef, Reason, op};
use crate::distribution::{DistributionFlags, FrameForm, Outbound, Room, TooLarge};
use crate::etf::tag::{COMPRESSED, VERSION_MAGIC};
use crate::etf::{
    AtomView, Cursor, PidView, PooledBytes, ReferenceView, TermError, TermView, TermWriter, compressed,
};
use crate::log::Once;
pub use events::PeerEvent;
use links::Links;
use measured::{begin, span_of};
use signals::ExitSignal;
use spawns::{SpawnRequest, write_spawn_reply};

/// A compressed term may become so many times as large, and so many bytes beside. No BEAM sends a message in that form;
/// what is packed better than that is a bomb.
const INFLATED_TIMES_MAX: usize = 4;
/// See [`INFLATED_TIMES_MAX`].
const INFLATED_FREE_BYTES: usize = 64 << 10;
/// Unknown operations of one peer that are told in the log, each once: the number is the peer's choice.
const SKIPPED_LOGGED_MAX: usize = 64;

/// What ends a connection. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerError {
    /// Bytes that are no term, or a control message of the wrong shape.
    #[error("malformed message: {0}")]
    Term(TermError),
    /// A process speaks that does not live on the peer.
    #[error("a signal from a process that does not live on the peer")]
    ForeignSender,
    /// More monitors and links than one peer may have.
    #[error("too many monitors and links")]
    TooMany,
    /// A message that was skipped for its size does not begin with a control message that has a payload.
    #[error("{0}, and nobody can be told, as its beginning says nothing: {1}")]
    Skipped(TooLarge, TermError),
}

impl From<TermError> for PeerError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

/// The contents of a frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// The control message and the payload; the payload has a version byte where `form` has one.
    pub bytes: &'a [u8],
    /// The form that it came in.
    pub form: FrameForm,
    /// The memory that a large frame has for itself.
    pub owner: Option<&'a Arc<PooledBytes>>,
}

impl<'a> Frame<'a> {
    /// One that stands where it was read.
    #[inline]
    pub const fn small(bytes: &'a [u8], form: FrameForm) -> Self {
        Self { bytes, form, owner: None }
    }

    /// One in memory of its own.
    pub fn large(owner: &'a Arc<PooledBytes>, form: FrameForm) -> Self {
        Self { bytes: owner, form, owner: Some(owner) }
    }
}

/// What a connection's frames meet: shared by all connections of a node.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Our processes.
    pub registry: &'a Registry,
    /// What we wait for.
    pub waiters: &'a Waiters,
    /// Bound on the inflated size of a compressed term, in bytes.
    pub inflated_bytes_max: usize,
    /// Bound on the monitors and links of one peer.
    pub watches_max: usize,
    /// Bound on what one peer's messages to suspended processes take, in bytes.
    pub held_bytes_max: usize,
    /// Bound on a state that `sys` shows whole, in bytes.
    pub state_bytes_max: usize,
    /// How what is handled now is measured; `None`: it is counted alone.
    pub timed: Option<Timed>,
}

/// A process that a signal met, kept for the next one: most signals meet the same again, and to find it so takes
/// no lock and counts no reference. A look-up takes it out of [`Peer::last`]; the caller that has used it puts it back.
struct FoundProcess {
    process: Arc<Process>,
    /// The registered name that it was found by, and how the names stood then.
    name: Option<(Arc<str>, u64)>,
}

/// One connected node, as its signals see us.
pub struct Peer {
    name: Arc<str>,
    flags: DistributionFlags,
    monitors: Monitors,
    links: Links,
    /// Processes that tell this connection of their end ([`Process::attach`]).
    attached: AHashSet<ProcessId>,
    /// Messages for processes of ours that are suspended.
    held: Held,
    last: Option<FoundProcess>,
    /// Unlinks of ours so far.
    unlinks: u64,
    /// Operations that were skipped and logged.
    skipped: Once<u64>,
    inflated: Vec<u8>,
}

impl Peer {
    /// A node that has just been connected to, with the flags that it offered.
    pub fn new(name: Arc<str>, flags: DistributionFlags) -> Self {
        Self {
            monitors: Monitors::new(Arc::clone(&name), flags),
            name,
            flags,
            links: Links::default(),
            attached: AHashSet::default(),
            unlinks: 0,
            held: Held::default(),
            last: None,
            skipped: Once::new(SKIPPED_LOGGED_MAX),
            inflated: Vec::new(),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Handles one frame: answers into `out`, what happens elsewhere into `later`.
    ///
    /// # Errors
    /// The peer's: the connection is to be ended.
    pub fn handle(
        &mut self,
        frame: Frame<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let mut cursor = Cursor::new(frame.bytes);
        let control = ControlMessage::parse(&mut cursor)?;
        let payload = payload(cursor.rest(), frame.form)?;
        match control {
            ControlMessage::MonitorP { from_pid, to_proc, reference } => {
                self.monitor(from_pid, to_proc, reference, around, out)
            }
            ControlMessage::DemonitorP { reference, .. } => {
                self.monitors.cancel(&reference);
                Ok(())
            }
            ControlMessage::Send { to_pid } => match self.find_pid(&to_pid, around.registry) {
                Some(found) => self.message(found, payload, frame, around, out, later),
                None => Ok(()),
            },
            ControlMessage::RegSend { to_name, .. } => match self.find_name(to_name, around.registry) {
                Some(found) => self.message(found, payload, frame, around, out, later),
                None => Ok(()),
            },
            ControlMessage::AliasSend { alias, .. } => {
                let term = plain(payload, &mut self.inflated, around.inflated_bytes_max)?;
                Ok(around.waiters.alias_message(&alias, term, around.registry)?)
            }
            ControlMessage::Link { from_pid, to_pid } => self.link(from_pid, to_pid, around, out),
            ControlMessage::Unlink { from_pid, to_pid } => {
                let _gone = self.unlink(from_pid, to_pid, around.registry);
                Ok(())
            }
            ControlMessage::UnlinkId { id, from_pid, to_pid } => {
                let _gone = self.unlink(from_pid, to_pid, around.registry);
                // erl_dist_protocol, "Link Protocol": the acknowledgement goes out before any other signal.
                let open = out.begin();
                out.term().tuple(4).unsigned(op::UNLINK_ID_ACK).unsigned(id);
                out.term().pid(&to_pid.into()).pid(&from_pid.into());
                out.finish(open);
                Ok(())
            }
            ControlMessage::MonitorPExit { reference, reason, .. } => {
                let reason = self.reason(reason, payload, around)?;
                around.waiters.ended(&reference, &self.name, || Outcome::Down(reason));
                Ok(())
            }
            ControlMessage::SpawnReply { request_id, result, .. } => {
                if result.as_atom().is_some() {
                    let refused = || Outcome::Refused(result.bytes().to_vec());
                    around.waiters.ended(&request_id, &self.name, refused);
                }
                Ok(())
            }
            ControlMessage::SpawnRequest { request_id, from, module, function, options, .. } => {
                let request = SpawnRequest { request_id, from, module, function, options, payload };
                self.spawn_in_turn(request, frame, around, out, later)
            }
            ControlMessage::Exit { from_pid, to_pid, reason } => {
                // erl_dist_protocol, "Link Protocol": without the link the signal is dropped.
                if !self.unlink(from_pid, to_pid, around.registry) {
                    return Ok(());
                }
                let reason = self.passed_on(reason, payload, around)?;
                let signal = ExitSignal { from: &from_pid.into(), reason: &reason, linked: true };
                self.exit_signal(&to_pid, signal, around, out, later)
            }
            ControlMessage::Exit2 { from_pid, to_pid, reason } => {
                if around.registry.local_id(&to_pid).is_none() {
                    return Ok(());
                }
                let reason = self.passed_on(reason, payload, around)?;
                let signal = ExitSignal { from: &from_pid.into(), reason: &reason, linked: false };
                self.exit_signal(&to_pid, signal, around, out, later)
            }
            ControlMessage::Exit2Name { from_pid, to_name } => {
                let Some((_, process)) = around.registry.by_name(&to_name.to_str()) else { return Ok(()) };
                let reason = self.passed_on(Reason::Payload, payload, around)?;
                let signal = ExitSignal { from: &from_pid.into(), reason: &reason, linked: false };
                self.exit_process(process, signal, around, out, later)
            }
            // Aliases of ours stand for calls and not for processes: nothing ends by them.
            ControlMessage::Exit2Alias { .. } => Ok(()),
            ControlMessage::UnlinkIdAck { id, from_pid, to_pid } => {
                self.unlink_acknowledged(id, from_pid, to_pid, around.registry);
                Ok(())
            }
            ControlMessage::NodeLink | ControlMessage::GroupLeader { .. } => Ok(()),
            ControlMessage::Unknown { operation, arity } => {
                if self.skipped.first(operation) {
                    tracing::warn!(peer = %self.name, operation, arity, "unknown control message skipped");
                }
                Ok(())
            }
        }
    }

    /// Delivers the next message that was held for a process which runs again; `false` when there is none. The caller
    /// that delivers frames does this before each of them, and again when [`Effect::Resumed`] is carried out.
    ///
    /// # Errors
    /// As [`handle`](Self::handle).
    #[inline]
    pub fn deliver_held(
        &mut self,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<bool, PeerError> {
        if self.held.is_empty() {
            return Ok(false);
        }
        let Some(ready) = self.held.next_ready(out.room()) else {
            return self.deliver_spawn(around, out, later);
        };
        // Suspended again meanwhile, it has taken this message before that: back in the queue it would be behind those
        // that came after it.
        let message = Message::parse(ready.message.bytes())?;
        let found = FoundProcess { process: Arc::clone(&ready.process), name: None };
        if self.hand_over(found, message, ready.message.owner(), around, out, later) == Handed::HasNoRoom {
            self.held.put_back(ready);
        }
        Ok(true)
    }

    /// Whether messages wait here.
    #[inline]
    pub fn holds_messages(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether [`deliver_held`](Self::deliver_held) may find something.
    pub fn may_deliver_held(&self, room: Room) -> bool {
        self.held.may_go_on(room)
    }

    /// Monitors and links that the peer has here.
    pub fn watches(&self) -> usize {
        self.monitors.len() + self.links.len()
    }

    #[inline]
    fn find_pid(&mut self, pid: &PidView<'_>, registry: &Registry) -> Option<FoundProcess> {
        let id = registry.local_id(pid)?;
        match self.last.take() {
            Some(last) if last.process.id == id && last.process.is_alive() => Some(last),
            _ => {
                let process = registry.by_pid(pid)?;
                self.attach(&process).then_some(FoundProcess { process, name: None })
            }
        }
    }

    /// From now on this connection is told of the process's end; whether it still lives.
    fn attach(&mut self, process: &Process) -> bool {
        if self.attached.insert(process.id) { process.attach(&self.name) } else { process.is_alive() }
    }

    #[inline]
    fn find_name(&mut self, name: AtomView<'_>, registry: &Registry) -> Option<FoundProcess> {
        let version = registry.names_version();
        let good = |known: &(Arc<str>, u64)| known.1 == version && name == *known.0;
        match self.last.take() {
            Some(last) if last.name.as_ref().is_some_and(good) => Some(last),
            _ => {
                let (known, process) = registry.by_name(&name.to_str())?;
                self.attach(&process).then_some(FoundProcess { process, name: Some((known, version)) })
            }
        }
    }

    #[inline]
    fn monitor(
        &mut self,
        from_pid: PidView<'_>,
        to_proc: ProcessRef<'_>,
        reference: ReferenceView<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
    ) -> Result<(), PeerError> {
        if from_pid.node != *self.name {
            return Err(PeerError::ForeignSender);
        }
        let found = match to_proc {
            ProcessRef::Pid(pid) => self.find_pid(&pid, around.registry),
            ProcessRef::Name(name) => self.find_name(name, around.registry),
        };
        let Some(found) = found else {
            write_noproc(self.flags, from_pid, to_proc, reference, out);
            return Ok(());
        };
        if self.watches() >= around.watches_max {
            return Err(PeerError::TooMany);
        }
        let by_name = found.name.as_ref().filter(|_| matches!(to_proc, ProcessRef::Name(_)));
        self.monitors.set(&found.process, by_name.map(|(name, _)| name), &from_pid, &reference);
        self.last = Some(found);
        Ok(())
    }

    fn link(
        &mut self,
        from_pid: PidView<'_>,
        to_pid: PidView<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
    ) -> Result<(), PeerError> {
        if from_pid.node != *self.name {
            return Err(PeerError::ForeignSender);
        }
        let remote = RemoteId::new(&from_pid);
        let Some(FoundProcess { process, .. }) = self.find_pid(&to_pid, around.registry) else {
            let noproc = crate::etf::encode(|w| {
                w.atom("noproc");
            });
            write_exit(&self.name, self.flags, &to_pid.into(), remote, &noproc, out);
            return Ok(());
        };
        if self.watches() >= around.watches_max {
            return Err(PeerError::TooMany);
        }
        // erl_dist_protocol, "Link Protocol": a link that the peer sets before it has our unlink is none.
        if !self.links.is_unlinking(process.id, remote) {
            self.links.insert(process.id, remote);
        }
        Ok(())
    }

    /// Takes a link out; whether there was one.
    fn unlink(&mut self, from_pid: PidView<'_>, to_pid: PidView<'_>, registry: &Registry) -> bool {
        from_pid.node == *self.name
            && registry.local_id(&to_pid).is_some_and(|id| self.links.remove(id, RemoteId::new(&from_pid)))
    }

    /// Delivers a message to a process.
    #[inline]
    fn message(
        &mut self,
        found: FoundProcess,
        payload: &[u8],
        frame: Frame<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        // Taken out for as long as the message is handled, and put back for its memory.
        let mut inflated = std::mem::take(&mut self.inflated);
        let term = plain(payload, &mut inflated, around.inflated_bytes_max)?;
        self.deliver(found, term, frame, around, out, later)?;
        if inflated.capacity() <= INFLATED_FREE_BYTES {
            self.inflated = inflated;
        }
        Ok(())
    }

    /// Delivers a message, an encoded term, unless it has to wait: for its process to be resumed, for room for its
    /// answer, or for what the same process sent before.
    #[inline]
    fn deliver(
        &mut self,
        found: FoundProcess,
        term: &[u8],
        frame: Frame<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let message = Message::parse(term)?;
        if !self.held.is_empty() || !out.room().large || found.process.is_suspended() {
            let sender = sender_of(frame, message);
            if let Some(waits_for) = self.waits_for(&found.process, sender, message, out.room()) {
                self.hold(
                    (&found.process, sender),
                    (term, frame.owner),
                    message,
                    waits_for,
                    around,
                    out,
                    later,
                );
                return Ok(());
            }
        }
        if self.hand_over(found, message, frame.owner, around, out, later) == Handed::HasNoRoom
            && let Some(process) = self.last.as_ref().map(|last| Arc::clone(&last.process))
        {
            let sender = sender_of(frame, message);
            let waits_for = WaitsFor::LargeRoom;
            self.hold((&process, sender), (term, frame.owner), message, waits_for, around, out, later);
        }
        Ok(())
    }

    /// What a message has to wait for before it is handed over.
    #[cold]
    fn waits_for(
        &self,
        process: &Process,
        sender: Sender,
        message: Message<'_>,
        room: Room,
    ) -> Option<WaitsFor> {
        let is_system = matches!(message, Message::System(..));
        if process.is_suspended() {
            // What resumes it must not wait for it.
            return (!is_system).then_some(WaitsFor::Resume);
        }
        let needs = match message {
            Message::Call(..) if process.server.waits_for_room() => WaitsFor::SmallRoom,
            Message::Call(..) | Message::System(..) => WaitsFor::LargeRoom,
            Message::Cast(_) | Message::Info(_) | Message::Skipped(_) => WaitsFor::Turn,
        };
        (!needs.is_met_by(room) || self.held.holds(process.id, sender)).then_some(needs)
    }

    /// Has the process handle a message, and ends it where that is what comes of it.
    #[inline]
    fn hand_over(
        &mut self,
        found: FoundProcess,
        message: Message<'_>,
        frame_owner: Option<&Arc<PooledBytes>>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Handed {
        let Self { name, flags, monitors, .. } = self;
        let process = &*found.process;
        let mut turn = Turn {
            me: process,
            registry: around.registry,
            waiters: around.waiters,
            peer: name,
            flags: *flags,
            frame_owner,
            out,
            effects: later,
            calls: monitors,
            exit: None,
            waits: false,
        };
        let before = turn.out.mark();
        let counted = process.figures.as_deref().filter(|figures| figures.is_inline);
        let (measured, _span) = match counted {
            Some(figures) => (begin(figures, message, around.timed), span_of(process, figures)),
            None => (None, None),
        };
        let handled = guarded(|| match message {
            Message::Call(caller, request) => process.server.handle_call(request, &caller, &mut turn),
            Message::Cast(request) => process.server.handle_cast(request, &mut turn),
            Message::System(caller, request) => {
                system::handle(request, &caller, &mut turn, around.state_bytes_max);
            }
            // Nodes before OTP 24 answer to the caller's pid.
            Message::Info(message) if around.waiters.replied(message, around.registry) => {}
            Message::Info(message) => process.server.handle_info(message, &mut turn),
            Message::Skipped(message) => process.server.handle_skipped(message, &mut turn),
        });
        let waits = turn.waits;
        if let (Some(measured), Some(figures)) = (measured, counted) {
            let is_answered = matches!(message, Message::Call(..)) && turn.out.mark() != before;
            measured.end(figures, is_answered);
        }
        match (handled, turn.exit.take()) {
            (Ok(()), None) => {
                self.last = Some(found);
                if waits {
                    return Handed::HasNoRoom;
                }
            }
            (Ok(()), Some(reason)) => self.end(&found.process, &reason, around, out, later),
            (Err(text), _) => {
                tracing::error!(process = ?process, panic = text, "a server panicked (a bug of the server): it ends");
                // It may have left half a frame.
                out.rollback(before);
                let reason = crate::etf::encode(|w| {
                    w.tuple(2).atom("panic").binary(text.as_bytes());
                });
                self.end(&found.process, &reason, around, out, later);
            }
        }
        Handed::Over
    }

    /// Keeps a message that has to wait. Past the bound calls end with a reason, and what nobody waits for is dropped.
    #[cold]
    #[expect(clippy::too_many_arguments, reason = "a message, what it waits for, and its surroundings")]
    fn hold(
        &mut self,
        (process, sender): (&Arc<Process>, Sender),
        (term, frame_owner): (&[u8], Option<&Arc<PooledBytes>>),
        message: Message<'_>,
        waits_for: WaitsFor,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) {
        let is_for_resume = waits_for == WaitsFor::Resume;
        if is_for_resume {
            process.add_holder(&self.name);
        }
        let kept = HeldMessage::new(term, frame_owner);
        if self.held.push(process, sender, kept, waits_for, around.held_bytes_max) {
            if is_for_resume && !process.is_suspended() {
                // It was resumed just now, and the thread that resumed it may not have known of us.
                later.push(Effect::Resumed(process.id));
            }
            return;
        }
        let (text, reason) = if is_for_resume {
            ("suspended, and too much waits for it: message dropped", "suspended")
        } else {
            (
                "the peer takes answers too slowly, and too much waits for them: message dropped",
                "busy_dist_port",
            )
        };
        tracing::warn!(process = ?process, peer = %self.name, "{text}");
        if let Message::Call(caller, _) | Message::System(caller, _) = message {
            self.end_call_of(process, &caller, around, out, later, |w| {
                w.tuple(2).atom("system_limit").atom(reason);
            });
        }
    }

    /// Ends a call of a process, which has not seen it: see [`Turn::end_call`].
    fn end_call_of(
        &mut self,
        process: &Process,
        caller: &Caller<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
        reason: impl FnOnce(&mut TermWriter<'_>),
    ) {
        let mut turn = Turn {
            me: process,
            registry: around.registry,
            waiters: around.waiters,
            peer: &self.name,
            flags: self.flags,
            frame_owner: None,
            out,
            effects: later,
            calls: &mut self.monitors,
            exit: None,
            waits: false,
        };
        turn.end_call(caller, reason);
    }

    fn reason(
        &mut self,
        reason: Reason<'_>,
        payload: &[u8],
        around: Surroundings<'_>,
    ) -> Result<Vec<u8>, PeerError> {
        match reason {
            Reason::Inline(reason) => Ok(reason.bytes().to_vec()),
            Reason::Payload => {
                let term = plain(payload, &mut self.inflated, around.inflated_bytes_max)?;
                Ok(TermView::parse(term)?.bytes().to_vec())
            }
        }
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("name", &self.name).field("watches", &self.watches()).finish()
    }
}

/// What became of a message that was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handed {
    /// It is handled.
    Over,
    /// Its answer has no room: nothing has happened yet.
    HasNoRoom,
}

/// The sender of a message: where the control message does not tell, the caller, which calls for itself. (A process that passes a
/// call of another on has an order of its own with what it sends itself.)
#[cold]
fn sender_of(frame: Frame<'_>, message: Message<'_>) -> Sender {
    signed(frame).or_else(|| message.caller().map(|caller| (caller.pid().id, caller.pid().serial)))
}

/// The sender that the control message tells.
fn signed(frame: Frame<'_>) -> Sender {
    let mut cursor = Cursor::new(frame.bytes);
    cursor.tuple().ok()?;
    match cursor.unsigned().ok()? {
        op::SEND_SENDER | op::SEND_SENDER_TT | op::REG_SEND | op::REG_SEND_TT => {}
        op::ALTACT_SIG_SEND => _ = cursor.unsigned().ok()?,
        _ => return None,
    }
    cursor.pid().ok().map(|pid| (pid.id, pid.serial))
}

/// The payload's term without its version byte, inflated if need be.
#[inline]
fn plain<'b>(payload: &'b [u8], inflated: &'b mut Vec<u8>, bytes_max: usize) -> Result<&'b [u8], TermError> {
    match payload {
        [COMPRESSED, rest @ ..] => {
            let bytes_max = bytes_max.min(INFLATED_FREE_BYTES + rest.len() * INFLATED_TIMES_MAX);
            let (bytes, consumed) = compressed::inflate(rest, bytes_max)?;
            if consumed != rest.len() {
                return Err(TermError::TrailingBytes);
            }
            *inflated = bytes;
            Ok(inflated)
        }
        [] => Err(TermError::Truncated),
        plain => Ok(plain),
    }
}

/// The payload without its version byte; empty where there is none.
#[inline]
fn payload(rest: &[u8], form: FrameForm) -> Result<&[u8], TermError> {
    match (form, rest) {
        (FrameForm::DistHeader, payload) | (FrameForm::PassThrough, [VERSION_MAGIC, payload @ ..]) => {
            Ok(payload)
        }
        (FrameForm::PassThrough, []) => Ok(rest),
        (FrameForm::PassThrough, [other, ..]) => Err(TermError::Version(*other)),
    }
}
