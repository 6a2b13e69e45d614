//! What becomes of a name in `:global`, as the program that gave it sees it.

use std::fmt;
use std::sync::Arc;

use crate::etf::Pid;
use crate::node::Node;
use crate::process::Process;
use crate::within::until;

/// A name that a process of this node is to have in `:global`: [`ProcessHandle::register_global`] gives it. Cheap to
/// clone; the name is looked after for as long as the process lives, whether this is kept or dropped.
///
/// # A program of which one runs at a time
///
/// ```no_run
/// use std::time::Duration;
///
/// use kvnode::{Node, Registration, block_on, within};
///
/// let node = Node::builder("worker").connect("beam@myhost").start()?;
/// let inbox = node.mailbox();
/// let name = inbox.process().register_global("worker")?;
/// match block_on(within(Duration::from_secs(5), name.settled())) {
///     Some(Registration::Registered) => println!("this is the worker"),
///     Some(Registration::Taken { by }) => println!("{} is the worker", by.node),
///     _ => println!("no BEAM of the cluster was reached in five seconds"),
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// [`ProcessHandle::register_global`]: crate::ProcessHandle::register_global
#[derive(Clone)]
pub struct GlobalName {
    node: Arc<Node>,
    name: Arc<str>,
    /// The process, or its sibling that has this name alone.
    process: Arc<Process>,
}

/// What has become of a name in `:global`, as far as the connected BEAMs have said.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Registration {
    /// The process has it: the BEAMs that have answered know it, one at least.
    Registered,
    /// Another process has it, at one of the connected BEAMs at least. It is tried again every 5 s, so that this may still become
    /// [`Registered`](Self::Registered): when that process ends, say.
    Taken {
        /// That process.
        by: Pid,
    },
    /// No BEAM has said either, or none is connected. (A `:global` that answers `no`, though no process has the name, is asked
    /// again every 5 s.)
    Pending,
    /// The process does not have the name any more: it has ended, or has given it up.
    Ended,
}

impl GlobalName {
    pub(in crate::node) const fn new(node: Arc<Node>, name: Arc<str>, process: Arc<Process>) -> Self {
        Self { node, name, process }
    }

    /// The name, an atom's text.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The pid that is registered: the process's own with its first name, and one of the same process with each further name.
    pub fn pid(&self) -> &Pid {
        &self.process.pid
    }

    /// What has become of it so far.
    pub fn outcome(&self) -> Registration {
        let holder = self.node.registry.by_global_name(&self.name);
        if holder.is_some_and(|holder| holder.id == self.process.id) {
            self.node.names.outcome(&self.name)
        } else {
            Registration::Ended
        }
    }

    /// Waits for an outcome: for what is not [`Pending`](Registration::Pending). Where no BEAM is ever connected that is never:
    /// [`within`](crate::within()) limits it.
    pub async fn settled(&self) -> Registration {
        self.changed(&Registration::Pending).await
    }

    /// Waits until the outcome is another than the one that is known, and gives it: nothing is missed between two calls, but for what
    /// was true for a moment only. When the process has ended it gives [`Ended`](Registration::Ended), each time.
    pub async fn changed(&self, known: &Registration) -> Registration {
        loop {
            let news = self.node.names.news();
            let ended = self.node.end_of(self.process.id);
            let outcome = self.outcome();
            if outcome != *known || !self.process.is_alive() {
                return outcome;
            }
            _ = until(ended, news.wait()).await;
        }
    }
}

impl fmt::Debug for GlobalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}", self.name, self.outcome())
    }
}
