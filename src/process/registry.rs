//! Our processes, by pid and by registered name.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use ahash::{AHashMap, AHashSet};
use parking_lot::{Mutex, RwLock};

use super::exits::guarded;
use super::figures::ServerFigures;
use super::rpc::FunctionTable;
use super::{Caller, GenServer, Turn};
use crate::etf::{Pid, PidView, Reference, ReferenceView, TermView, encode};

/// The number of one of our processes: what a pid of ours says beside the node. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(u64);

/// Ids of pids have 15 bits where `V4_NC` is not in force (OTP 23), serials 13.
const PID_ID_BITS: u32 = 15;

impl ProcessId {
    const fn new(id: u32, serial: u32) -> Self {
        Self((serial as u64) << 32 | id as u64)
    }

    /// The number that a pid of ours has.
    pub const fn of(pid: &Pid) -> Self {
        Self::new(pid.id, pid.serial)
    }

    const fn id(self) -> u32 {
        self.0 as u32
    }

    const fn serial(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// One of our processes.
pub struct Process {
    /// Its number.
    pub id: ProcessId,
    /// Its pid.
    pub pid: Pid,
    /// Its pid, encoded.
    pub pid_bytes: Box<[u8]>,
    /// What it does.
    pub server: Arc<dyn GenServer>,
    /// What is counted of it, of all its pids together; `None`: one of the node's own, of which nothing is.
    pub figures: Option<Arc<ServerFigures>>,
    alive: AtomicBool,
    /// Shared with its siblings.
    unit: Arc<Unit>,
    /// The connections that know it, by their nodes: those are told of its end, and no others.
    attached: Mutex<AHashSet<Arc<str>>>,
}

/// What the pids of one server have in common: they are suspended together and end together.
#[derive(Debug, Default)]
struct Unit {
    suspended: AtomicBool,
    /// Those that live.
    members: Mutex<Vec<ProcessId>>,
    /// One of them has, or had, a name.
    named: AtomicBool,
    /// The connections that hold messages for them, by their nodes.
    holders: Mutex<AHashSet<Arc<str>>>,
}

impl Process {
    /// Whether both are one server under several pids.
    pub fn is_sibling(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.unit, &other.unit)
    }

    /// Whether it is suspended (`sys:suspend/1`): only system messages and exit signals reach it.
    #[inline]
    pub fn is_suspended(&self) -> bool {
        self.unit.suspended.load(Ordering::Acquire)
    }

    /// Suspends or resumes it, with its siblings; whether it was suspended before.
    pub(super) fn set_suspended(&self, suspended: bool) -> bool {
        self.unit.suspended.swap(suspended, Ordering::AcqRel)
    }

    /// The connection to a node knows the process from now on, and is told of its end
    /// ([`take_attached`](Self::take_attached)). Gives whether the process still lives: a dead one tells no connection any more.
    pub(super) fn attach(&self, node: &Arc<str>) -> bool {
        self.attached.lock().insert(Arc::clone(node));
        self.is_alive()
    }

    /// The connection to a node is gone.
    pub(super) fn detach(&self, node: &str) {
        self.attached.lock().remove(node);
        self.unit.holders.lock().remove(node);
    }

    /// The nodes whose connections are to be told that the process has ended, once.
    pub(crate) fn take_attached(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        std::mem::take(&mut *self.attached.lock()).into_iter()
    }

    /// The connection to a node holds messages until the process is resumed. Whether it was resumed meanwhile is to be
    /// looked at after this.
    pub(super) fn add_holder(&self, node: &Arc<str>) {
        self.unit.holders.lock().insert(Arc::clone(node));
    }

    /// The nodes whose connections hold messages for it or its siblings, once.
    pub(crate) fn take_holders(&self) -> impl Iterator<Item = Arc<str>> + use<> {
        std::mem::take(&mut *self.unit.holders.lock()).into_iter()
    }

    /// It is given a name.
    fn named(&self, scope: &str, name: &str) {
        self.unit.named.store(true, Ordering::Release);
        if let Some(figures) = &self.figures {
            figures.named(scope, name);
        }
    }

    /// Whether it or a sibling has, or had, a name.
    pub(super) fn is_named(&self) -> bool {
        self.unit.named.load(Ordering::Acquire)
    }

    /// Whether it has not ended.
    #[inline]
    pub fn is_alive(&self) -> bool {
        self.alive.load(Ordering::Acquire)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This may be a connection's thread, and a panic there would cost the connection.
        let server = std::mem::replace(&mut self.server, Arc::clone(&NO_SERVER));
        if let Err(text) = guarded(|| drop(server)) {
            tracing::error!(process = ?self, panic = text, "a server panicked when it was dropped (a bug of the program)");
        }
    }
}

/// What a process has in the place of its server while that is dropped.
static NO_SERVER: LazyLock<Arc<dyn GenServer>> = LazyLock::new(|| Arc::new(NoServer));

struct NoServer;

impl GenServer for NoServer {
    fn handle_call(&self, _: TermView<'_>, _: &Caller<'_>, _: &mut Turn<'_>) {}

    fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.pid)
    }
}

/// Why a name was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// Another process has it.
    #[error("another process of this node has that name")]
    Taken,
    /// The process has ended.
    #[error("the process has ended, and can have no name")]
    Ended,
}

#[derive(Default)]
struct Tables {
    processes: AHashMap<ProcessId, Arc<Process>>,
    names: AHashMap<Arc<str>, Arc<Process>>,
    /// Names that are ours to hold in `global`, whether or not the cluster knows of it yet.
    global_names: AHashMap<Arc<str>, Arc<Process>>,
}

/// All processes of this node, and the makers of its pids and references.
pub struct Registry {
    /// This node's full name.
    pub node: Arc<str>,
    /// This node's incarnation, as epmd gave it.
    pub creation: u32,
    /// The functions that other nodes may call here.
    pub functions: FunctionTable,
    tables: RwLock<Tables>,
    /// Counts the changes of the names: a look-up is good for as long as it stands still.
    names_version: AtomicU64,
    next_process: AtomicU64,
    next_reference: AtomicU64,
}

impl Registry {
    /// An empty one.
    pub fn new(node: Arc<str>, creation: u32) -> Self {
        Self {
            node,
            creation,
            functions: FunctionTable::default(),
            tables: RwLock::default(),
            names_version: AtomicU64::new(0),
            next_process: AtomicU64::new(1),
            next_reference: AtomicU64::new(1),
        }
    }

    /// A number for a process that may never be started.
    pub fn new_pid(&self) -> (ProcessId, Pid) {
        let number = self.next_process.fetch_add(1, Ordering::Relaxed);
        let id = (number & ((1 << PID_ID_BITS) - 1)) as u32;
        let serial = (number >> PID_ID_BITS) as u32;
        let pid = Pid { node: Arc::clone(&self.node), id, serial, creation: self.creation };
        (ProcessId::new(id, serial), pid)
    }

    /// A reference that no other one of this incarnation equals. Three words of which the first has 18 bits, as
    /// every OTP version takes.
    pub fn new_reference(&self) -> Reference {
        let number = self.next_reference.fetch_add(1, Ordering::Relaxed);
        let words = vec![number as u32 & 0x3_ffff, (number >> 18) as u32, (number >> 50) as u32];
        Reference { node: Arc::clone(&self.node), creation: self.creation, words }
    }

    /// Starts a process.
    pub fn spawn(&self, server: Arc<dyn GenServer>) -> Arc<Process> {
        self.insert(self.new_process(server, None, Arc::default()))
    }

    /// As [`spawn`](Self::spawn), of a process of which is counted what it does.
    pub fn spawn_counted(&self, server: Arc<dyn GenServer>, figures: Arc<ServerFigures>) -> Arc<Process> {
        self.insert(self.new_process(server, Some(figures), Arc::default()))
    }

    fn insert(&self, process: Arc<Process>) -> Arc<Process> {
        process.unit.members.lock().push(process.id);
        self.tables.write().processes.insert(process.id, Arc::clone(&process));
        process
    }

    /// Gives the server of a process one more pid, as `global` wants it of a server with several names there. The
    /// siblings are suspended together and end together.
    ///
    /// # Errors
    /// Our misuse: the process has ended.
    pub fn spawn_sibling(&self, of: &Process) -> Result<Arc<Process>, RegisterError> {
        let process = self.new_process(Arc::clone(&of.server), of.figures.clone(), Arc::clone(&of.unit));
        let mut tables = self.tables.write();
        if !of.is_alive() {
            return Err(RegisterError::Ended);
        }
        process.unit.members.lock().push(process.id);
        tables.processes.insert(process.id, Arc::clone(&process));
        Ok(process)
    }

    fn new_process(
        &self,
        server: Arc<dyn GenServer>,
        figures: Option<Arc<ServerFigures>>,
        unit: Arc<Unit>,
    ) -> Arc<Process> {
        let (id, pid) = self.new_pid();
        let pid_bytes = encode(|w| {
            w.pid(&pid);
        });
        let alive = AtomicBool::new(true);
        let attached = Mutex::default();
        Arc::new(Process { id, pid, pid_bytes: pid_bytes.into(), server, figures, alive, unit, attached })
    }

    /// Gives a process a name.
    ///
    /// # Errors
    /// Our misuse: the name is taken, or the process has ended.
    pub fn register(&self, name: &str, process: &Arc<Process>) -> Result<(), RegisterError> {
        let mut tables = self.tables.write();
        if !process.is_alive() {
            return Err(RegisterError::Ended);
        }
        if tables.names.contains_key(name) {
            return Err(RegisterError::Taken);
        }
        process.named("local", name);
        tables.names.insert(name.into(), Arc::clone(process));
        self.names_version.fetch_add(1, Ordering::Release);
        Ok(())
    }

    /// Makes a name in `global` one that a process is to hold.
    ///
    /// # Errors
    /// Our misuse: the name is held by another of our processes, or the process has ended.
    pub fn claim_global(&self, name: &str, process: &Arc<Process>) -> Result<(), RegisterError> {
        let mut tables = self.tables.write();
        if !process.is_alive() {
            return Err(RegisterError::Ended);
        }
        if tables.global_names.contains_key(name) {
            return Err(RegisterError::Taken);
        }
        process.named("global", name);
        tables.global_names.insert(name.into(), Arc::clone(process));
        Ok(())
    }

    /// A name in `global` is no longer one that a process of ours is to hold; gives the process.
    pub fn release_global(&self, name: &str) -> Option<Arc<Process>> {
        self.tables.write().global_names.remove(name)
    }

    /// The process of ours that is to hold a name in `global`.
    pub fn by_global_name(&self, name: &str) -> Option<Arc<Process>> {
        self.tables.read().global_names.get(name).cloned()
    }

    /// The names in `global` that are ours to hold.
    pub fn global_names(&self) -> Vec<(Arc<str>, Arc<Process>)> {
        let tables = self.tables.read();
        tables.global_names.iter().map(|(name, process)| (Arc::clone(name), Arc::clone(process))).collect()
    }

    /// Takes a process and its siblings out, with their names; gives those that were alive until now, oldest
    /// first. The caller tells the connections ([`Peer::process_ended`](super::Peer::process_ended))
    /// afterwards: a monitor that comes later finds nothing, one that came before is told. What it costs does not grow
    /// with the processes there are, as each spawn request may make one.
    pub(super) fn remove(&self, process: &Process) -> Vec<Arc<Process>> {
        let mut tables = self.tables.write();
        let members = std::mem::take(&mut *process.unit.members.lock());
        let mut ended: Vec<Arc<Process>> =
            members.iter().filter_map(|id| tables.processes.remove(id)).collect();
        for process in &ended {
            process.alive.store(false, Ordering::Release);
        }
        if process.is_named() {
            tables.names.retain(|_, holder| holder.is_alive());
            tables.global_names.retain(|_, holder| holder.is_alive());
            self.names_version.fetch_add(1, Ordering::Release);
        }
        drop(tables);
        for process in &ended {
            self.functions.ended(process.id);
        }
        ended.sort_by_key(|process| process.id);
        ended
    }

    /// The names of a process and its siblings: those on this node first, then those in `global`.
    pub fn names_of(&self, process: &Process) -> Vec<Arc<str>> {
        if !process.is_named() {
            return Vec::new();
        }
        let tables = self.tables.read();
        let names_in = |table: &AHashMap<Arc<str>, Arc<Process>>| {
            let names = table.iter().filter(|(_, holder)| holder.is_sibling(process));
            let mut names: Vec<Arc<str>> = names.map(|(name, _)| Arc::clone(name)).collect();
            names.sort();
            names
        };
        let mut names = names_in(&tables.names);
        names.extend(names_in(&tables.global_names));
        names
    }

    /// The process that a pid names, if it is one of ours and lives. A pid of another incarnation is not ours.
    pub fn by_pid(&self, pid: &PidView<'_>) -> Option<Arc<Process>> {
        let id = self.local_id(pid)?;
        self.tables.read().processes.get(&id).cloned()
    }

    /// As [`by_pid`](Self::by_pid), for a pid that was kept.
    pub fn by_owned_pid(&self, pid: &Pid) -> Option<Arc<Process>> {
        let ours = pid.creation == self.creation && pid.node == self.node;
        if ours { self.by_id(ProcessId::new(pid.id, pid.serial)) } else { None }
    }

    /// The process with a number, if it lives.
    pub fn by_id(&self, id: ProcessId) -> Option<Arc<Process>> {
        self.tables.read().processes.get(&id).cloned()
    }

    /// The number in a pid of this node's present incarnation.
    #[inline]
    pub fn local_id(&self, pid: &PidView<'_>) -> Option<ProcessId> {
        let ours = pid.creation == self.creation && pid.node == *self.node;
        ours.then(|| ProcessId::new(pid.id, pid.serial))
    }

    /// Whether a reference was made here, since this node was started.
    pub fn is_own(&self, reference: &ReferenceView<'_>) -> bool {
        reference.creation == self.creation && reference.node == *self.node
    }

    /// The pid with a number.
    pub fn pid_of(&self, id: ProcessId) -> Pid {
        Pid { node: Arc::clone(&self.node), id: id.id(), serial: id.serial(), creation: self.creation }
    }

    /// The process registered under a name, with the name as it is kept.
    pub fn by_name(&self, name: &str) -> Option<(Arc<str>, Arc<Process>)> {
        let tables = self.tables.read();
        tables.names.get_key_value(name).map(|(name, process)| (Arc::clone(name), Arc::clone(process)))
    }

    /// Changes whenever a name does.
    #[inline]
    pub fn names_version(&self) -> u64 {
        self.names_version.load(Ordering::Acquire)
    }

    /// All registered names.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.tables.read().names.keys().cloned().collect()
    }

    /// The names that a pid has on this node, in no order.
    pub fn local_names_of(&self, id: ProcessId) -> Vec<Arc<str>> {
        let tables = self.tables.read();
        tables.names.iter().filter(|(_, holder)| holder.id == id).map(|(name, _)| Arc::clone(name)).collect()
    }

    /// How many live.
    pub fn len(&self) -> usize {
        self.tables.read().processes.len()
    }

    /// Whether none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All that live.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.tables.read().processes.values().cloned().collect()
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("node", &self.node).finish_non_exhaustive()
    }
}
