//! Our own processes, as the program that started them sees them.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid};
use crate::node::server::{Server, typed};
use crate::node::{GlobalName, Node};
use crate::process::figures::ServerFigures;
use crate::process::mailbox::Mailbox;
use crate::process::registry::RegisterError;
use crate::process::{GenServer, Process, ProcessId};

impl Node {
    /// Starts a process that handles its messages one after the other, with `&mut self`: see [`Server`].
    ///
    /// It runs until it is stopped, or the node ends; the handle may be dropped. Other nodes find it by its pid or by
    /// the names that the handle gives it.
    pub fn serve<S: Server>(&self, server: S) -> ProcessHandle {
        self.serve_own(|_| server).process().clone()
    }

    /// Starts a process that handles messages where they come in, several at once: see [`GenServer`].
    ///
    /// It runs until it is stopped, or the node ends; the handle may be dropped.
    pub fn serve_inline(&self, server: Arc<dyn GenServer>) -> ProcessHandle {
        let figures = ServerFigures::of_inline(server.type_name());
        let process = self.registry.spawn_counted(server, figures);
        ProcessHandle { node: self.arc(), process, mailbox: None }
    }

    /// The process of this node that is registered under a name, as `Process.whereis/1` finds it.
    pub fn whereis_local(&self, name: &str) -> Option<Pid> {
        self.registry.by_name(name).map(|(_, process)| process.pid.clone())
    }

    /// The process of this node with a pid, if it lives.
    pub fn process_at(&self, pid: &Pid) -> Option<ProcessHandle> {
        let process = self.registry.by_owned_pid(pid)?;
        let mailbox = self.mailboxes.lock().get(&process.id).cloned();
        Some(ProcessHandle { node: self.arc(), process, mailbox })
    }

    pub(super) fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("the caller that borrows the node holds it")
    }

    /// Waits until a process of ours has ended.
    pub(in crate::node) fn end_of(&self, id: ProcessId) -> impl Future<Output = ()> + Send + use<> {
        let ended = {
            let mut ends = self.ends.lock();
            // The end takes it out of the registry first, and then looks here.
            let alive = self.registry.by_id(id).is_some();
            alive.then(|| ends.entry(id).or_insert_with(|| smol::channel::bounded(1)).1.clone())
        };
        async move {
            if let Some(ended) = ended {
                // Nothing is ever sent: only the sender's drop ends the wait.
                while ended.recv().await.is_ok() {}
            }
        }
    }
}

/// A process of this node. Cheap to clone; dropping it does not end the process.
#[derive(Clone)]
pub struct ProcessHandle {
    pub(in crate::node) node: Arc<Node>,
    pub(in crate::node) process: Arc<Process>,
    pub(in crate::node) mailbox: Option<Arc<Mailbox>>,
}

impl ProcessHandle {
    /// Its pid.
    pub fn pid(&self) -> &Pid {
        &self.process.pid
    }

    /// The node that it runs on.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Gives it a name on this node, as `Process.register/2` does: `GenServer.call({:name, node}, …)` finds it. It may
    /// have several. An Elixir module's name is written out: `Elixir.Counter`.
    ///
    /// # Errors
    /// The program's: another process has that name, or this one has ended.
    pub fn register(&self, name: &str) -> Result<&Self, RegisterError> {
        self.node.registry.register(name, &self.process)?;
        Ok(self)
    }

    /// Gives it a name in `:global`, an atom: `GenServer.call({:global, :name}, …)` finds it in the whole cluster.
    ///
    /// A hidden node takes no part in `:global`, but those that it is connected to do: each is asked to register the
    /// name, now and whenever it is lost, for as long as the process lives. So this does not wait, and a node that
    /// connects later knows the name too. That another process of the cluster has the name is logged, and it is tried
    /// again. As `:global` gives one pid one name, each name after the first has a pid of its own, of the same process.
    ///
    /// What becomes of that is told by the [`GlobalName`], which may be dropped: [`GlobalName::settled`] waits for it.
    ///
    /// # Errors
    /// The program's: another process of this node has that name, or this one has ended.
    pub fn register_global(&self, name: &str) -> Result<GlobalName, RegisterError> {
        let registry = &self.node.registry;
        if !self.process.is_alive() {
            return Err(RegisterError::Ended);
        }
        let named = registry.global_names().iter().any(|(_, holder)| holder.id == self.process.id);
        let holder = if named {
            if registry.by_global_name(name).is_some() {
                return Err(RegisterError::Taken);
            }
            registry.spawn_sibling(&self.process)?
        } else {
            Arc::clone(&self.process)
        };
        registry.claim_global(name, &holder)?;
        self.node.names.started_again(std::iter::once(name));
        Ok(GlobalName::new(Arc::clone(&self.node), name.into(), holder))
    }

    /// Its names in `:global`, with what has become of each: also those that [`Node::supervise`] has given it.
    pub fn global_names(&self) -> Vec<GlobalName> {
        let names = self.node.registry.global_names().into_iter();
        let own = names.filter(|(_, holder)| holder.is_sibling(&self.process));
        own.map(|(name, holder)| GlobalName::new(Arc::clone(&self.node), name, holder)).collect()
    }

    /// All its names, as other nodes use them: those on this node first, then those in `global`.
    pub fn names(&self) -> Vec<ServerRef> {
        let registry = &self.node.registry;
        let local = registry.names().into_iter().filter_map(|name| {
            let (name, holder) = registry.by_name(&name)?;
            holder.is_sibling(&self.process).then(|| ServerRef::Local(name).on(&registry.node))
        });
        let global = registry.global_names().into_iter();
        let global = global.filter(|(_, holder)| holder.is_sibling(&self.process));
        local.chain(global.map(|(name, _)| ServerRef::global(&name))).collect()
    }

    /// Whether a pid is one of this process, which has one for each of its names in `global`.
    pub fn has_pid(&self, pid: &Pid) -> bool {
        let other = self.node.registry.by_owned_pid(pid);
        other.is_some_and(|other| other.is_sibling(&self.process))
    }

    /// Whether it has not ended.
    pub fn is_alive(&self) -> bool {
        self.process.is_alive()
    }

    /// Asks it to end, as `GenServer.stop/2` does; `reason` is what monitors and links are told, such as
    /// [`&atom("normal")`](crate::etf::atom). A [`Server`] handles what waits in its mailbox first and gets its
    /// [`terminate`](Server::terminate). This does not wait: [`ended`](Self::ended) does.
    pub fn stop(&self, reason: &(impl Serialize + ?Sized)) {
        let reason = exit_reason(reason);
        if !self.process.server.stop(reason.view()) {
            self.node.exit(&self.process, reason.view().bytes());
        }
    }

    /// Ends it at once, as `Process.exit(pid, :kill)` does, with the reason `:killed`. What a [`Server`] is at is
    /// dropped where it next waits, and it gets no [`terminate`](Server::terminate).
    pub fn kill(&self) {
        self.node.exit(&self.process, OwnedTerm::atom("killed").view().bytes());
    }

    /// Waits until it has ended.
    pub fn ended(&self) -> impl Future<Output = ()> + Send + use<> {
        self.node.end_of(self.process.id)
    }
}

impl fmt::Debug for ProcessHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.process.pid)
    }
}

/// A reason as a term. One that cannot be written as a term is told as such.
pub(in crate::node) fn exit_reason(reason: &(impl Serialize + ?Sized)) -> OwnedTerm {
    typed::term_of(reason).unwrap_or_else(|error| {
        tracing::error!(%error, "an exit reason cannot be written as a term");
        OwnedTerm::atom("badarg")
    })
}
