//! Global names that a process has at times: several nodes have such a process, and one of them has the names.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::ServerName;
use crate::etf::Pid;
use crate::node::peers::names::with_global;
use crate::node::{Node, NotNamed, ProcessHandle, now};
use crate::process::Process;
use crate::process::registry::RegisterError;

/// A node that had the names before: its processes may be replaced in `global`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormerHolder {
    /// Its name.
    pub node: Arc<str>,
    /// Which of its lives: its pids have this creation.
    pub creation: u32,
}

impl FormerHolder {
    pub(in crate::node) fn has(&self, pid: &Pid) -> bool {
        self.creation == pid.creation && self.node == pid.node
    }
}

/// Until when a process may register its names.
#[derive(Debug, Default)]
pub(in crate::node) struct Tenure(Mutex<Option<Instant>>);

impl Tenure {
    pub(in crate::node) fn lasts(&self) -> bool {
        self.0.lock().is_some_and(|until| now() < until)
    }
}

/// Global names of a process, which it has from [`take`](Self::take) to [`give_up`](Self::give_up). See
/// [`ProcessHandle::held_names`].
pub struct HeldNames {
    node: Arc<Node>,
    /// Each with the pid of the process that it is registered with.
    names: Vec<(Arc<str>, Arc<Process>)>,
    tenure: Arc<Tenure>,
}

impl ProcessHandle {
    /// Names in `:global` that this process has at times only, while it is the one of several, on several nodes, that is to be
    /// found by them. It does not have them yet.
    ///
    /// # Errors
    /// The process has ended.
    #[doc(hidden)]
    pub fn held_names<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<HeldNames, RegisterError> {
        let registry = &self.node.registry;
        // A pid has one name in `global`.
        let is_named = registry.global_names().iter().any(|(_, holder)| holder.id == self.process.id);
        let mut own = (!is_named).then(|| Arc::clone(&self.process));
        let with_pid = |name: &str| {
            let process = own.take().map_or_else(|| registry.spawn_sibling(&self.process), Ok)?;
            Ok((name.into(), process))
        };
        let names = names.into_iter().map(with_pid).collect::<Result<_, _>>()?;
        Ok(HeldNames { node: Arc::clone(&self.node), names, tenure: Arc::default() })
    }
}

impl HeldNames {
    /// Until when the process is the one that is to have the names, by its own clock; `None`, as at first: it is not. No node is told the names
    /// after that: a process that was stopped, and goes on, does not take them from its successor before it knows of that one.
    pub fn hold_until(&self, until: Option<Instant>) {
        *self.tenure.0.lock() = until;
    }

    /// From now on the process has the names. They are registered at once at all nodes that know names, at each for itself: a node that
    /// does not answer holds up no other, and for as long as [`hold_until`](Self::hold_until) says. A process of a former holder is replaced; any other is left its name, as by
    /// [`register_global`](ProcessHandle::register_global), and it is tried again.
    ///
    /// # Errors
    /// Another process of this node has one of the names, or this one has ended.
    pub fn take(&self, former: impl IntoIterator<Item = FormerHolder>) -> Result<(), NotNamed> {
        let former: Arc<[FormerHolder]> = former.into_iter().collect();
        for (name, process) in &self.names {
            let registry = &self.node.registry;
            let is_ours = registry.by_global_name(name).is_some_and(|holder| holder.id == process.id);
            if !is_ours {
                let not_named = |error| NotNamed { name: ServerName::global(name), error };
                registry.claim_global(name, process).map_err(not_named)?;
            }
            self.node.names.take(name, &former, &self.tenure);
        }
        self.node.names.check_now();
        Ok(())
    }

    /// From now on the process does not have the names. They are unregistered where they are its own, at all nodes at once; where
    /// another process is about to register them, they are left to it for as long as `patience` says, so that no caller misses them
    /// meanwhile. The future is done when all nodes have answered, or have ended; it may be dropped before.
    pub fn give_up(&self, patience: Duration) -> impl Future<Output = ()> + Send + use<> {
        let (until, mut waits) = (now() + patience, Vec::new());
        for (name, process) in &self.names {
            let is_ours =
                self.node.registry.by_global_name(name).is_some_and(|holder| holder.id == process.id);
            if is_ours {
                self.node.registry.release_global(name);
                let nodes = with_global(&self.node).iter().map(|peer| Arc::clone(&peer.name)).collect();
                waits.push(self.node.names.give_up(name, &process.pid, until, nodes));
                tracing::info!(name = %name, "global name given up");
            }
        }
        self.node.names.check_now();
        async move {
            for wait in waits {
                wait.wait().await;
            }
        }
    }
}

impl fmt::Debug for HeldNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names.iter().map(|(name, process)| (name, &process.pid))).finish()
    }
}
