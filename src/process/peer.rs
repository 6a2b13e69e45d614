//! One connected node: the delivery of its signals, its monitors and links.
//!
//! The tables belong to the connection and are touched by its task alone, so that a call's MONITOR_P and
//! DEMONITOR_P cost two look-ups and no lock. What ends elsewhere is told to every connection afterwards
//! ([`Peer::process_ended`]).

mod links;
mod signals;
mod skipped;

use std::fmt;
use std::sync::Arc;

use ahash::AHashSet;

use super::effect::{EndCalls, EndedCall, can_decode};
use super::exits::{RemoteId, guarded, write_exit, write_monitor_exit, write_noproc};
use super::held::Held;
use super::message::Message;
use super::monitors::Monitors;
use super::registry::Process;
use super::rpc::{Mfa, Spawned};
use super::waiters::Outcome;
use super::{Caller, Effect, Effects, ProcessId, Registry, Waiters, exits, rpc, system};
use crate::dist::control::{ControlMessage, ProcessRef, Reason, op};
use crate::dist::{DistributionFlags, FrameForm, Outbound, TooLarge};
use crate::etf::tag::{COMPRESSED, VERSION_MAGIC};
use crate::etf::{
    AtomView, Cursor, Pid, PidView, PooledBytes, Reference, ReferenceView, TermError, TermView, TermWriter,
    compressed,
};
use links::Links;
use signals::ExitSignal;

/// A compressed term may become so many times as large, and so many bytes beside. No BEAM sends a message in that form;
/// what is packed better than that is a bomb.
const INFLATED_TIMES_MAX: usize = 4;
/// See [`INFLATED_TIMES_MAX`].
const INFLATED_FREE_BYTES: usize = 64 << 10;

/// What ends a connection. Always the peer's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerError {
    /// Bytes that are no term, or a control message of the wrong shape.
    Term(TermError),
    /// A process speaks that does not live on the peer.
    ForeignSender,
    /// More monitors and links than one peer may have.
    TooMany,
    /// A message that was skipped for its size does not begin with a control message that has a payload.
    Skipped(TooLarge, TermError),
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(error) => write!(f, "malformed message: {error}"),
            Self::ForeignSender => f.write_str("a signal from a process that does not live on the peer"),
            Self::TooMany => f.write_str("too many monitors and links"),
            Self::Skipped(size, error) => {
                write!(f, "{size}, and nobody can be told, as its beginning says nothing: {error}")
            }
        }
    }
}

impl std::error::Error for PeerError {}

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
}

/// A process that a signal met, kept for the next one: most signals meet the same again, and to find it so takes
/// no lock and counts no reference. A look-up takes it out of [`Peer::last`]; whoever has used it puts it back.
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
    skipped: AHashSet<u64>,
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
            skipped: AHashSet::default(),
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
                Some(found) => self.message(found, payload, frame.owner, around, out, later),
                None => Ok(()),
            },
            ControlMessage::RegSend { to_name, .. } => match self.find_name(to_name, around.registry) {
                Some(found) => self.message(found, payload, frame.owner, around, out, later),
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
                self.spawn(request_id, from, (module, function), options, payload, around, out, later)
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
                // Bounded, since the number is the peer's choice.
                if self.skipped.len() < 64 && self.skipped.insert(operation) {
                    tracing::warn!(peer = %self.name, operation, arity, "unknown control message skipped");
                }
                Ok(())
            }
        }
    }

    /// One of our processes has ended: tells those of the peer that watch it. `reason` is an encoded term.
    pub fn process_ended(
        &mut self,
        process: ProcessId,
        reason: &[u8],
        registry: &Registry,
        out: &mut Outbound,
    ) {
        self.last = None;
        self.attached.remove(&process);
        self.held.process_ended(process);
        let pid = registry.pid_of(process);
        // A reason that this peer cannot read would cost the connection to it.
        let substitute = exits::atom("unreadable_reason");
        let reason = match TermView::parse(reason) {
            Ok(term) if can_decode(self.flags, term.traits()) => reason,
            _ => &substitute,
        };
        self.monitors.process_ended(process, reason, registry, out);
        for remote in self.links.process_ended(process) {
            write_exit(&self.name, self.flags, &pid, remote, reason, out);
        }
    }

    /// Delivers the next message that was held for a process which runs again; `false` when there is none. Whoever
    /// delivers frames calls this before each of them, and again when [`Effect::Resumed`] is carried out.
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
        let Some((process, message)) = self.held.next_ready() else { return Ok(false) };
        // Suspended again meanwhile, it has taken this message before that: back in the queue it would be behind those
        // that came after it.
        let message = Message::parse(&message)?;
        self.hand_over(FoundProcess { process, name: None }, message, None, around, out, later);
        Ok(true)
    }

    /// A process that this connection may hold messages for was resumed. It may be suspended again by now, and who
    /// resumes it next has to know of this connection: called before [`deliver_held`](Self::deliver_held).
    pub fn resumed(&self) {
        for process in self.held.processes() {
            process.add_holder(&self.name);
        }
    }

    /// Ends a call that was handled by another connection.
    pub fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) {
        self.monitors.end_call(call, registry, out);
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
        frame_owner: Option<&Arc<PooledBytes>>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        // Taken out for as long as the message is handled, and put back for its memory.
        let mut inflated = std::mem::take(&mut self.inflated);
        let term = plain(payload, &mut inflated, around.inflated_bytes_max)?;
        self.deliver(found, term, frame_owner, around, out, later)?;
        if inflated.capacity() <= INFLATED_FREE_BYTES {
            self.inflated = inflated;
        }
        Ok(())
    }

    /// Delivers a message, an encoded term, unless the process is suspended.
    #[inline]
    fn deliver(
        &mut self,
        found: FoundProcess,
        term: &[u8],
        frame_owner: Option<&Arc<PooledBytes>>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let message = Message::parse(term)?;
        // Also behind what is held while the process is being resumed by another connection.
        let waits = found.process.is_suspended() || self.held.holds(found.process.id);
        if waits && !matches!(message, Message::System(..)) {
            return self.hold(&found.process, term, message, around, out, later);
        }
        self.hand_over(found, message, frame_owner, around, out, later);
        Ok(())
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
    ) {
        let Self { name, flags, monitors, .. } = self;
        let process = &*found.process;
        let mut effects = Effects {
            me: process,
            registry: around.registry,
            waiters: around.waiters,
            peer: name,
            flags: *flags,
            frame_owner,
            out,
            later,
            calls: monitors,
            exit: None,
        };
        let before = effects.out.mark();
        let handled = guarded(|| match message {
            Message::Call(caller, request) => process.server.handle_call(request, &caller, &mut effects),
            Message::Cast(request) => process.server.handle_cast(request, &mut effects),
            Message::System(caller, request) => {
                system::handle(request, &caller, &mut effects, around.state_bytes_max);
            }
            // Nodes before OTP 24 answer to the caller's pid.
            Message::Info(message) if around.waiters.replied(message, around.registry) => {}
            Message::Info(message) => process.server.handle_info(message, &mut effects),
            Message::Skipped(message) => process.server.handle_skipped(message, &mut effects),
        });
        match (handled, effects.exit.take()) {
            (Ok(()), None) => self.last = Some(found),
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
    }

    /// Keeps a message for a process that is suspended. Past the bound calls end with a reason, and what nobody waits
    /// for is dropped.
    #[cold]
    fn hold(
        &mut self,
        process: &Arc<Process>,
        term: &[u8],
        message: Message<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        process.add_holder(&self.name);
        if self.held.push(process, term, around.held_bytes_max) {
            if !process.is_suspended() {
                // It was resumed just now, and whoever did that may not have known of us.
                later.push(Effect::Resumed(process.id));
            }
            return Ok(());
        }
        tracing::warn!(process = ?process, peer = %self.name, "suspended, and too much waits for it: message dropped");
        if let Message::Call(caller, _) = message {
            self.end_call_of(process, &caller, around, out, later, |w| {
                w.tuple(2).atom("system_limit").atom("suspended");
            });
        }
        Ok(())
    }

    /// Ends a call of a process, which has not seen it: see [`Effects::end_call`].
    fn end_call_of(
        &mut self,
        process: &Process,
        caller: &Caller<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
        reason: impl FnOnce(&mut TermWriter<'_>),
    ) {
        let mut effects = Effects {
            me: process,
            registry: around.registry,
            waiters: around.waiters,
            peer: &self.name,
            flags: self.flags,
            frame_owner: None,
            out,
            later,
            calls: &mut self.monitors,
            exit: None,
        };
        effects.end_call(caller, reason);
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one control message and its surroundings")]
    fn spawn(
        &mut self,
        request_id: ReferenceView<'_>,
        from: PidView<'_>,
        (module, function): (AtomView<'_>, AtomView<'_>),
        options: TermView<'_>,
        payload: &[u8],
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        if from.node != *self.name {
            return Err(PeerError::ForeignSender);
        }
        let Self { name, flags, inflated, .. } = self;
        let arguments = TermView::parse(plain(payload, inflated, around.inflated_bytes_max)?)?;
        let (owner, request_id_owned) = (Pid::from(from), Reference::from(request_id));
        let Some(watched) = Watched::read(options) else {
            write_spawn_reply(&request_id_owned, &owner, 0, out, |w| _ = w.atom("badopt"));
            return Ok(());
        };
        let mfa = Mfa { module: &module.to_str(), function: &function.to_str(), arguments };
        let mut context = rpc::Context::new(around.registry, name, *flags, later);
        let spawned = rpc::spawn(mfa, &mut context);
        let pid = match &spawned {
            Spawned::Ended(pid, _) => pid.clone(),
            Spawned::Lives(process) => process.pid.clone(),
        };
        write_spawn_reply(&request_id_owned, &owner, watched.reply_flags(), out, |w| _ = w.pid(&pid));
        match spawned {
            // The process has lived and ended: its exit is told to whoever asked to be told.
            Spawned::Ended(_, reason) => {
                if watched.link {
                    write_exit(&self.name, self.flags, &pid, RemoteId::new(&from), &reason, out);
                }
                if watched.monitor {
                    write_monitor_exit(self.flags, &owner, &request_id_owned, &reason, out, |w| {
                        w.pid(&pid);
                    });
                }
            }
            Spawned::Lives(process) => {
                if self.watches() >= around.watches_max {
                    return Err(PeerError::TooMany);
                }
                self.attach(&process);
                if watched.link {
                    self.links.insert(process.id, RemoteId::new(&from));
                }
                if watched.monitor {
                    self.monitors.set(&process, None, &from, &request_id);
                }
            }
        }
        Ok(())
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

/// `SPAWN_REPLY` with a pid, or the atom that says why not.
fn write_spawn_reply(
    request_id: &Reference,
    to: &Pid,
    flags: u64,
    out: &mut Outbound,
    result: impl FnOnce(&mut TermWriter<'_>),
) {
    let open = out.begin();
    let mut term = out.term();
    term.tuple(5).unsigned(op::SPAWN_REPLY).reference(request_id).pid(to).unsigned(flags);
    result(&mut term);
    out.finish(open);
}

/// What a spawn request asks to be told.
#[derive(Clone, Copy, Default)]
struct Watched {
    link: bool,
    monitor: bool,
}

impl Watched {
    /// `None`: not a list of options that erlang:spawn_opt/5 takes.
    fn read(options: TermView<'_>) -> Option<Self> {
        let mut watched = Self::default();
        let mut cursor = options.cursor();
        for _ in 0..cursor.list().ok()? {
            let option = cursor.term().ok()?;
            if option.is_atom("link") {
                watched.link = true;
                continue;
            }
            if option.is_atom("monitor") {
                watched.monitor = true;
                continue;
            }
            let [key, _value] = option.as_tuple::<2>()?;
            match key.as_atom()?.as_bytes() {
                b"monitor" => watched.monitor = true,
                // How a process of a BEAM is laid out: nothing to do with ours.
                b"priority"
                | b"min_heap_size"
                | b"min_bin_vheap_size"
                | b"max_heap_size"
                | b"fullsweep_after"
                | b"message_queue_data"
                | b"async_dist"
                | b"scheduler" => {}
                _ => return None,
            }
        }
        Some(watched)
    }

    const fn reply_flags(self) -> u64 {
        use crate::dist::control::{SPAWN_REPLY_LINK, SPAWN_REPLY_MONITOR};
        (if self.link { SPAWN_REPLY_LINK } else { 0 }) | (if self.monitor { SPAWN_REPLY_MONITOR } else { 0 })
    }
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
