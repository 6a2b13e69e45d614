//! One connected node: the delivery of its signals, its monitors and links.
//!
//! The tables belong to the connection and are touched by its task alone, so that a call's MONITOR_P and
//! DEMONITOR_P cost two look-ups and no lock. What ends elsewhere is told to every connection afterwards
//! ([`Peer::process_ended`]).

use std::fmt;
use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::effect::{EndCalls, EndedCall};
use super::gen_server::Caller;
use super::registry::Process;
use super::rpc::Spawned;
use super::waiters::Outcome;
use super::{Effect, Effects, ProcessId, Registry, Waiters, rpc, system};
use crate::dist::control::{ControlMessage, ProcessRef, Reason, op};
use crate::dist::{DistributionFlags, Outbound};
use crate::etf::tag::{COMPRESSED, VERSION_MAGIC};
use crate::etf::{AtomView, Cursor, Pid, PidView, Reference, ReferenceView, TermError, TermView, compressed};

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
}

impl fmt::Display for PeerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(error) => write!(f, "malformed message: {error}"),
            Self::ForeignSender => f.write_str("a signal from a process that does not live on the peer"),
            Self::TooMany => f.write_str("too many monitors and links"),
        }
    }
}

impl std::error::Error for PeerError {}

impl From<TermError> for PeerError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
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
}

/// A reference of the peer, as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MonitorKey {
    creation: u32,
    words: [u32; 5],
}

impl MonitorKey {
    #[inline]
    fn new(reference: &ReferenceView<'_>) -> Self {
        let mut words = [0; 5];
        words[..reference.words().len()].copy_from_slice(reference.words());
        Self { creation: reference.creation, words }
    }
}

/// A process of the peer, without its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct RemoteId {
    id: u32,
    serial: u32,
    creation: u32,
}

impl RemoteId {
    #[inline]
    fn new(pid: &PidView<'_>) -> Self {
        Self { id: pid.id, serial: pid.serial, creation: pid.creation }
    }
}

struct Monitor {
    process: ProcessId,
    /// The place of the name that the monitor was set on, in `names`.
    name: Option<u32>,
    watcher: RemoteId,
    words: u8,
}

#[derive(Default)]
struct Monitors {
    table: AHashMap<MonitorKey, Monitor>,
    /// Names that monitors were set on; as many as we have registered names at most.
    names: Vec<Arc<str>>,
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
    links: AHashSet<(ProcessId, RemoteId)>,
    last: Option<FoundProcess>,
    /// Operations that were skipped and logged.
    skipped: AHashSet<u64>,
    inflated: Vec<u8>,
}

impl Peer {
    /// A node that has just been connected to, with the flags that it offered.
    pub fn new(name: Arc<str>, flags: DistributionFlags) -> Self {
        Self {
            name,
            flags,
            monitors: Monitors::default(),
            links: AHashSet::default(),
            last: None,
            skipped: AHashSet::default(),
            inflated: Vec::new(),
        }
    }

    /// Its name.
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Handles the contents of one frame: answers into `out`, what happens elsewhere into `later`.
    ///
    /// # Errors
    /// The peer's: the connection is to be ended.
    pub fn handle(
        &mut self,
        frame: &[u8],
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let mut cursor = Cursor::new(frame);
        cursor.version()?;
        let control = ControlMessage::parse(&mut cursor)?;
        let payload = cursor.rest();
        match control {
            ControlMessage::MonitorP { from_pid, to_proc, reference } => {
                self.monitor(from_pid, to_proc, reference, around, out)
            }
            ControlMessage::DemonitorP { reference, .. } => {
                self.monitors.table.remove(&MonitorKey::new(&reference));
                Ok(())
            }
            ControlMessage::Send { to_pid } => match self.find_pid(&to_pid, around.registry) {
                Some(found) => self.message(found, payload, around, out, later),
                None => Ok(()),
            },
            ControlMessage::RegSend { to_name, .. } => match self.find_name(to_name, around.registry) {
                Some(found) => self.message(found, payload, around, out, later),
                None => Ok(()),
            },
            ControlMessage::Link { from_pid, to_pid } => self.link(from_pid, to_pid, around, out),
            ControlMessage::Unlink { from_pid, to_pid } => {
                self.unlink(from_pid, to_pid, around.registry);
                Ok(())
            }
            ControlMessage::UnlinkId { id, from_pid, to_pid } => {
                self.unlink(from_pid, to_pid, around.registry);
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
            ControlMessage::Exit { from_pid, to_pid, .. } => {
                self.unlink(from_pid, to_pid, around.registry);
                Ok(())
            }
            ControlMessage::Exit2 { from_pid, to_pid, reason } => {
                let reason = self.reason(reason, payload, around)?;
                if let Some(process) = around.registry.by_pid(&to_pid) {
                    let reason = TermView::parse(&reason)?;
                    tracing::warn!(process = ?process, from = ?Pid::from(from_pid), ?reason, "exit signal ignored");
                }
                Ok(())
            }
            ControlMessage::UnlinkIdAck { .. }
            | ControlMessage::NodeLink
            | ControlMessage::AliasSend { .. }
            | ControlMessage::GroupLeader { .. } => Ok(()),
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
        let pid = registry.pid_of(process);
        let Monitors { table, names } = &mut self.monitors;
        let watchers = table.extract_if(|_, monitor| monitor.process == process);
        for (key, monitor) in watchers {
            write_monitor_exit(&self.name, self.flags, &pid, names, &key, &monitor, reason, out);
        }
        for (_, remote) in self.links.extract_if(|(linked, _)| *linked == process) {
            write_exit(&self.name, self.flags, &pid, remote, reason, out);
        }
    }

    /// Ends a call that was handled by another connection.
    pub fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) {
        MonitorsOf { monitors: &mut self.monitors, name: &self.name, flags: self.flags }
            .end_call(call, registry, out);
    }

    /// Monitors and links that the peer has here.
    pub fn watches(&self) -> usize {
        self.monitors.table.len() + self.links.len()
    }

    #[inline]
    fn find_pid(&mut self, pid: &PidView<'_>, registry: &Registry) -> Option<FoundProcess> {
        let id = registry.local_id(pid)?;
        match self.last.take() {
            Some(last) if last.process.id == id && last.process.is_alive() => Some(last),
            _ => Some(FoundProcess { process: registry.by_pid(pid)?, name: None }),
        }
    }

    #[inline]
    fn find_name(&mut self, name: AtomView<'_>, registry: &Registry) -> Option<FoundProcess> {
        let version = registry.names_version();
        let good = |known: &(Arc<str>, u64)| known.1 == version && name == *known.0;
        match self.last.take() {
            Some(last) if last.name.as_ref().is_some_and(good) => Some(last),
            _ => {
                let (known, process) = registry.by_name(&name.to_str())?;
                Some(FoundProcess { process, name: Some((known, version)) })
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
        let monitor = Monitor {
            process: found.process.id,
            name: by_name.map(|(name, _)| self.monitors.name_at(name)),
            watcher: RemoteId::new(&from_pid),
            words: reference.words().len() as u8,
        };
        self.monitors.table.insert(MonitorKey::new(&reference), monitor);
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
        let Some(process) = around.registry.by_pid(&to_pid) else {
            let noproc = crate::etf::encode(|w| {
                w.atom("noproc");
            });
            write_exit(&self.name, self.flags, &to_pid.into(), remote, &noproc, out);
            return Ok(());
        };
        if self.watches() >= around.watches_max {
            return Err(PeerError::TooMany);
        }
        self.links.insert((process.id, remote));
        Ok(())
    }

    fn unlink(&mut self, from_pid: PidView<'_>, to_pid: PidView<'_>, registry: &Registry) {
        if let Some(id) = registry.local_id(&to_pid) {
            self.links.remove(&(id, RemoteId::new(&from_pid)));
        }
    }

    /// Delivers a message to a process.
    #[inline]
    fn message(
        &mut self,
        found: FoundProcess,
        payload: &[u8],
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let Self { name, flags, monitors, inflated, .. } = self;
        let term = plain(payload, inflated, around.inflated_bytes_max)?;
        let mut calls = MonitorsOf { monitors, name, flags: *flags };
        let process = &*found.process;
        let mut effects = Effects {
            me: process,
            registry: around.registry,
            waiters: around.waiters,
            peer: name,
            flags: *flags,
            out,
            later,
            calls: &mut calls,
        };
        let mut cursor = Cursor::new(term);
        match envelope(&mut cursor)? {
            Envelope::Call => {
                let caller = Caller::parse(&mut cursor)?;
                let request = cursor.term()?;
                cursor.end()?;
                process.server.handle_call(request, &caller, &mut effects);
            }
            Envelope::Cast => {
                let request = cursor.term()?;
                cursor.end()?;
                process.server.handle_cast(request, &mut effects);
            }
            Envelope::System => {
                let caller = Caller::parse(&mut cursor)?;
                let request = cursor.term()?;
                cursor.end()?;
                system::handle(request, &caller, &mut effects);
            }
            Envelope::None => process.server.handle_info(TermView::parse(term)?, &mut effects),
        }
        self.last = Some(found);
        Ok(())
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
        let arguments = TermView::parse(plain(payload, &mut self.inflated, around.inflated_bytes_max)?)?;
        let (_, pid) = around.registry.new_pid();
        let mut context = rpc::Context { registry: around.registry, peer: &self.name, later };
        let Spawned { reason } = rpc::spawned(&module.to_str(), &function.to_str(), arguments, &mut context);
        let watched = Watched::read(options);
        let open = out.begin();
        let mut term = out.term();
        let owner = Pid::from(from);
        term.tuple(5).unsigned(op::SPAWN_REPLY).reference(&request_id.into()).pid(&owner);
        term.unsigned(watched.reply_flags()).pid(&pid);
        out.finish(open);
        // The process has lived and ended: its exit is told to whoever asked to be told.
        if watched.link {
            write_exit(&self.name, self.flags, &pid, RemoteId::new(&from), &reason, out);
        }
        if watched.monitor {
            monitor_exit(self.flags, &owner, &Reference::from(request_id), &reason, out, |w| {
                w.pid(&pid);
            });
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

impl Monitors {
    fn name_at(&mut self, name: &Arc<str>) -> u32 {
        if let Some(at) = self.names.iter().position(|known| Arc::ptr_eq(known, name) || known == name) {
            return at as u32;
        }
        self.names.push(Arc::clone(name));
        (self.names.len() - 1) as u32
    }
}

/// The monitors of a peer, able to fire.
struct MonitorsOf<'a> {
    monitors: &'a mut Monitors,
    name: &'a str,
    flags: DistributionFlags,
}

impl EndCalls for MonitorsOf<'_> {
    fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) -> bool {
        let table = &mut self.monitors.table;
        // The monitor's reference stands in the tag of a call by `gen:call`; `multi_call` and others keep theirs
        // to themselves, so that any monitor of the caller on this process has to do.
        let in_tag = references_in(&call.tag).into_iter().find(|key| table.contains_key(key));
        let key = in_tag.or_else(|| {
            let of_call = |monitor: &Monitor| {
                monitor.process == call.process && (monitor.watcher.id, monitor.watcher.serial) == call.caller
            };
            table.iter().find(|(_, monitor)| of_call(monitor)).map(|(key, _)| *key)
        });
        let Some((key, monitor)) = key.and_then(|key| table.remove_entry(&key)) else { return false };
        let pid = registry.pid_of(monitor.process);
        let names = &self.monitors.names;
        write_monitor_exit(self.name, self.flags, &pid, names, &key, &monitor, &call.reason, out);
        true
    }
}

/// All references in a tag, outermost first; tags are small, and a large one is cut off.
fn references_in(tag: &[u8]) -> Vec<MonitorKey> {
    let mut cursor = Cursor::new(tag);
    let mut found = Vec::new();
    for _ in 0..16 {
        if let Ok(reference) = cursor.reference() {
            found.push(MonitorKey::new(&reference));
        } else if cursor.tuple().is_err() && cursor.list().is_err() && cursor.term().is_err() {
            break;
        }
    }
    found
}

/// What a spawn request asks to be told.
#[derive(Clone, Copy, Default)]
struct Watched {
    link: bool,
    monitor: bool,
}

impl Watched {
    fn read(options: TermView<'_>) -> Self {
        let mut watched = Self::default();
        let mut cursor = options.cursor();
        for _ in 0..cursor.list().unwrap_or(0) {
            let Ok(option) = cursor.term() else { break };
            let key = option.as_tuple::<2>().map_or(option, |[key, _]| key);
            watched.link |= key.is_atom("link");
            watched.monitor |= key.is_atom("monitor");
        }
        watched
    }

    const fn reply_flags(self) -> u64 {
        use crate::dist::control::{SPAWN_REPLY_LINK, SPAWN_REPLY_MONITOR};
        (if self.link { SPAWN_REPLY_LINK } else { 0 }) | (if self.monitor { SPAWN_REPLY_MONITOR } else { 0 })
    }
}

enum Envelope {
    Call,
    Cast,
    System,
    None,
}

/// Reads the head of a message of `gen`: what is left at the cursor are the parts behind the first atom.
#[inline]
fn envelope(cursor: &mut Cursor<'_>) -> Result<Envelope, TermError> {
    let mut inside = *cursor;
    let Ok(arity) = inside.tuple() else { return Ok(Envelope::None) };
    let Ok(kind) = inside.atom() else { return Ok(Envelope::None) };
    let envelope = match arity {
        3 if kind == "$gen_call" => Envelope::Call,
        2 if kind == "$gen_cast" => Envelope::Cast,
        3 if kind == "system" => Envelope::System,
        _ => return Ok(Envelope::None),
    };
    *cursor = inside;
    Ok(envelope)
}

/// The payload's term without its version byte, inflated if need be.
#[inline]
fn plain<'b>(payload: &'b [u8], inflated: &'b mut Vec<u8>, bytes_max: usize) -> Result<&'b [u8], TermError> {
    match payload {
        [VERSION_MAGIC, COMPRESSED, rest @ ..] => {
            let (bytes, consumed) = compressed::inflate(rest, bytes_max)?;
            if consumed != rest.len() {
                return Err(TermError::TrailingBytes);
            }
            *inflated = bytes;
            Ok(inflated)
        }
        [VERSION_MAGIC, rest @ ..] => Ok(rest),
        [other, ..] => Err(TermError::Version(*other)),
        [] => Err(TermError::Truncated),
    }
}

#[expect(clippy::too_many_arguments, reason = "the parts of one control message")]
fn write_monitor_exit(
    peer: &str,
    flags: DistributionFlags,
    pid: &Pid,
    names: &[Arc<str>],
    key: &MonitorKey,
    monitor: &Monitor,
    reason: &[u8],
    out: &mut Outbound,
) {
    let node: Arc<str> = peer.into();
    let words = key.words[..usize::from(monitor.words)].to_vec();
    let reference = Reference { node: Arc::clone(&node), creation: key.creation, words };
    let watcher = remote_pid(node, monitor.watcher);
    monitor_exit(flags, &watcher, &reference, reason, out, |w| match monitor.name {
        Some(at) => {
            w.atom(&names[at as usize]);
        }
        None => {
            w.pid(pid);
        }
    });
}

fn write_noproc(
    flags: DistributionFlags,
    watcher: PidView<'_>,
    to_proc: ProcessRef<'_>,
    reference: ReferenceView<'_>,
    out: &mut Outbound,
) {
    let noproc = crate::etf::encode(|w| {
        w.atom("noproc");
    });
    monitor_exit(flags, &watcher.into(), &reference.into(), &noproc, out, |w| match to_proc {
        ProcessRef::Pid(pid) => {
            w.pid(&pid.into());
        }
        ProcessRef::Name(name) => {
            w.atom(&name.to_str());
        }
    });
}

/// `MONITOR_P_EXIT`, in the form that the flags ask for.
fn monitor_exit(
    flags: DistributionFlags,
    watcher: &Pid,
    reference: &Reference,
    reason: &[u8],
    out: &mut Outbound,
    from_proc: impl FnOnce(&mut crate::etf::TermWriter<'_>),
) {
    let open = out.begin();
    let mut term = out.term();
    if flags.contains(DistributionFlags::EXIT_PAYLOAD) {
        term.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT);
        from_proc(&mut term);
        term.pid(watcher).reference(reference);
        out.payload().raw(reason);
    } else {
        term.tuple(5).unsigned(op::MONITOR_P_EXIT);
        from_proc(&mut term);
        term.pid(watcher).reference(reference).raw(reason);
    }
    out.finish(open);
}

/// `EXIT`, in the form that the flags ask for.
fn write_exit(
    peer: &str,
    flags: DistributionFlags,
    from: &Pid,
    to: RemoteId,
    reason: &[u8],
    out: &mut Outbound,
) {
    let to = remote_pid(peer.into(), to);
    let open = out.begin();
    let mut term = out.term();
    if flags.contains(DistributionFlags::EXIT_PAYLOAD) {
        term.tuple(3).unsigned(op::PAYLOAD_EXIT).pid(from).pid(&to);
        out.payload().raw(reason);
    } else {
        term.tuple(4).unsigned(op::EXIT).pid(from).pid(&to).raw(reason);
    }
    out.finish(open);
}

fn remote_pid(node: Arc<str>, remote: RemoteId) -> Pid {
    Pid { node, id: remote.id, serial: remote.serial, creation: remote.creation }
}
