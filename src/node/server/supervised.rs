//! Processes under supervision: started under their names, and started again when they have ended.
//!
//! The decisions are [`Supervisor`]'s; here is what carries them out. The stores of the command line are one user of
//! this (`kv::serve`), and use nothing that others cannot.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::Task;

use crate::config::{Limits, ServerName};
use crate::etf::TermView;
use crate::node::life::watchdog::Whose;
use crate::node::server::grouped::Groups;
use crate::node::server::timers;
use crate::node::{Node, Outlet, ProcessHandle, after, now, unblock};
use crate::process::registry::RegisterError;
use crate::process::supervisor::{ChildId, Intensity, Verdict};
use crate::process::{Dispatch, Ended, ProcessId, Restart, Supervisor, WakeRequest};

type Start = dyn Fn(&Arc<Node>) -> ProcessHandle + Send + Sync;

/// What a process is started from, again and again.
#[derive(Clone)]
pub(super) struct Child {
    names: Arc<[ServerName]>,
    start: Arc<Start>,
    /// It may have its thread wait: then it is started again by a thread that is not the node's.
    waits: bool,
    /// Behind the registration of the names.
    named: Arc<dyn Fn(&ProcessHandle) + Send + Sync>,
}

/// Why a supervised process was not started: it could not have one of its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotNamed {
    /// The name.
    pub name: ServerName,
    /// Why.
    pub error: RegisterError,
}

impl fmt::Display for NotNamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (ServerName::Global(name) | ServerName::Local(name)) = &self.name;
        write!(f, "{name}: {}", self.error)
    }
}

impl std::error::Error for NotNamed {}

impl Child {
    /// One that waits for nothing.
    pub(super) fn new(
        names: impl IntoIterator<Item = ServerName>,
        start: impl Fn(&Arc<Node>) -> ProcessHandle + Send + Sync + 'static,
    ) -> Self {
        let names = names.into_iter().collect();
        Self { names, start: Arc::new(start), waits: false, named: Arc::new(|_| {}) }
    }

    /// Its names, for people.
    pub(super) fn names_shown(&self) -> String {
        let names = self.names.iter().map(|name| match name {
            ServerName::Global(name) | ServerName::Local(name) => name.as_str(),
        });
        names.collect::<Vec<_>>().join(", ")
    }
}

/// What was not started.
pub(super) enum Failed {
    Name(NotNamed),
    /// What starts it panicked.
    Panic(Box<dyn std::any::Any + Send>),
}

impl Failed {
    /// What the caller is told that has wanted the first start: a panic goes on there.
    pub(super) fn told(self) -> NotNamed {
        match self {
            Self::Name(error) => error,
            Self::Panic(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Panic(_) => f.write_str("what starts it panicked"),
        }
    }
}

/// Starts a process, with its names.
pub(super) fn start_named(node: &Arc<Node>, child: &Child) -> Result<ProcessHandle, Failed> {
    let started = std::panic::catch_unwind(AssertUnwindSafe(|| {
        let process = (child.start)(node);
        match name_all(&process, &child.names) {
            Ok(()) => {
                (child.named)(&process);
                Ok(process)
            }
            Err(error) => {
                process.kill();
                Err(error)
            }
        }
    }));
    match started {
        Ok(Ok(process)) => Ok(process),
        Ok(Err(error)) => Err(Failed::Name(error)),
        Err(panic) => Err(Failed::Panic(panic)),
    }
}

struct Children {
    supervisor: Supervisor<Child>,
    /// Starts that are under way.
    starting: usize,
    /// Processes that ended during a start and are no known child: one of them may be the child that was being started.
    ended_meanwhile: Vec<Ended>,
}

impl Children {
    fn ended(&mut self, ended: &Ended) -> Option<Verdict<Child>> {
        let reason = TermView::parse(&ended.reason).expect("a reason was checked when it came");
        let mut ids = ended.processes.iter().map(|process| process.id);
        let verdict = ids.find_map(|id| self.supervisor.ended(id, reason, now()));
        if verdict.is_none() && self.starting > 0 {
            self.ended_meanwhile.push(ended.clone());
        }
        verdict
    }

    /// A start is over. If the process has ended already, its end is given.
    fn started(&mut self, child: ChildId, process: Option<ProcessId>) -> Option<(Ended, Verdict<Child>)> {
        self.starting -= 1;
        let ended = process.and_then(|id| {
            self.supervisor.started(child, id);
            let is_it = |ended: &&Ended| ended.processes.iter().any(|process| process.id == id);
            self.ended_meanwhile.iter().find(is_it).cloned()
        });
        if self.starting == 0 {
            self.ended_meanwhile.clear();
        }
        ended.and_then(|ended| self.ended(&ended).map(|verdict| (ended, verdict)))
    }
}

/// The supervised processes of a node, and the tasks that end with a process.
pub(in crate::node) struct Supervision {
    children: Mutex<Children>,
    groups: Groups,
    /// Of each child, and of each group.
    intensity: Intensity,
    /// By the process that they end with.
    tasks: Mutex<AHashMap<ProcessId, Vec<Task<()>>>>,
}

impl Supervision {
    pub(in crate::node) fn new(limits: &Limits) -> Self {
        let intensity = Intensity { restarts_max: limits.restarts_max, period: limits.restart_period };
        let supervisor = Supervisor::new(intensity);
        let children = Children { supervisor, starting: 0, ended_meanwhile: Vec::new() };
        Self { children: Mutex::new(children), groups: Groups::default(), intensity, tasks: Mutex::default() }
    }

    pub(super) const fn groups(&self) -> &Groups {
        &self.groups
    }

    pub(super) const fn intensity(&self) -> Intensity {
        self.intensity
    }
}

impl Node {
    /// Starts a process that is started again when it has ended, as a child of an OTP supervisor is.
    ///
    /// `start` starts the process, by [`serve`](Self::serve) or [`serve_inline`](Self::serve_inline) of the node that it
    /// is given, now and at each restart; what it needs for that it keeps. It must not wait, as a restart may be done by the
    /// thread of a connection ([`supervise_waiting`](Self::supervise_waiting) is for what does). Each time the process gets all of `names`,
    /// so that callers find the next one as they found the first. (A caller that has kept a pid has lost it, as everywhere.)
    /// What this gives is the first process.
    ///
    /// ```no_run
    /// use kvnode::{Node, Restart, ServerName};
    /// # use kvnode::{Context, Never, ReplyTo, Server};
    /// # #[derive(Default)]
    /// # struct Counter(i64);
    /// # impl Server for Counter {
    /// #     type Call = Never;
    /// #     type Cast = Never;
    /// #     type Info = Never;
    /// #     async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #         match call {}
    /// #     }
    /// # }
    ///
    /// let node = Node::builder("rust").start()?;
    /// let names = [ServerName::local("counter"), ServerName::global("counter")];
    /// node.supervise(Restart::Permanent, names, |node| node.serve(Counter::default()))?;
    /// node.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A process that ends more often than [`Limits::restarts_max`] times in [`Limits::restart_period`] is started
    /// again when the period has room, and not given up; nor are others ended for it. A name that another process of this node
    /// has taken meanwhile, or a `start` that panics, puts the restart off in the same way. Each restart is logged. One
    /// that is [`Restart::Transient`] ends for good when it is [stopped](ProcessHandle::stop) with the reason `normal`.
    /// All end with the node.
    ///
    /// # Errors
    /// The program's: another process of this node has one of the names. Nothing is left of the process then.
    pub fn supervise(
        &self,
        restart: Restart,
        names: impl IntoIterator<Item = ServerName>,
        start: impl Fn(&Arc<Self>) -> ProcessHandle + Send + Sync + 'static,
    ) -> Result<ProcessHandle, NotNamed> {
        self.supervise_then(restart, names, start, |_| {})
    }

    /// As [`supervise`](Self::supervise). `named` is called each time the process was started and has its names, with what other
    /// nodes are not to be told before it has: as `handle_continue/2` comes behind the registration of a `GenServer`.
    ///
    /// # Errors
    /// As of [`supervise`](Self::supervise).
    pub fn supervise_then(
        &self,
        restart: Restart,
        names: impl IntoIterator<Item = ServerName>,
        start: impl Fn(&Arc<Self>) -> ProcessHandle + Send + Sync + 'static,
        named: impl Fn(&ProcessHandle) + Send + Sync + 'static,
    ) -> Result<ProcessHandle, NotNamed> {
        self.supervise_child(restart, Child { named: Arc::new(named), ..Child::new(names, start) })
    }

    /// As [`supervise_then`](Self::supervise_then), of a process whose `start` or `named` may wait, for a disk or for another machine. It is
    /// started again by a thread that is not the node's, so that nothing else waits meanwhile.
    ///
    /// # Errors
    /// As of [`supervise`](Self::supervise).
    #[doc(hidden)]
    pub fn supervise_waiting(
        &self,
        restart: Restart,
        names: impl IntoIterator<Item = ServerName>,
        start: impl Fn(&Arc<Self>) -> ProcessHandle + Send + Sync + 'static,
        named: impl Fn(&ProcessHandle) + Send + Sync + 'static,
    ) -> Result<ProcessHandle, NotNamed> {
        let child = Child { waits: true, named: Arc::new(named), ..Child::new(names, start) };
        self.supervise_child(restart, child)
    }

    fn supervise_child(&self, restart: Restart, child: Child) -> Result<ProcessHandle, NotNamed> {
        let id = self.supervision.children.lock().supervisor.add(child.clone(), restart);
        self.start_child(id, &child).map_err(|failed| {
            self.supervision.children.lock().supervisor.forget(id);
            failed.told()
        })
    }

    /// What servers send by that answer later, outside of a handler. It does not keep the node: once that has ended,
    /// what is sent is dropped.
    pub fn dispatch(&self) -> Arc<dyn Dispatch> {
        Arc::new(Outlet(self.this.clone()))
    }

    /// A process has ended: what hangs on it goes, and it is started again where that is due.
    pub(in crate::node) fn process_ended(&self, ended: &Ended) {
        let tasks: Vec<_> = {
            let mut tasks = self.supervision.tasks.lock();
            ended.processes.iter().filter_map(|process| tasks.remove(&process.id)).collect()
        };
        // Dropping a task ends it.
        drop(tasks);
        self.supervision.groups.ended(ended);
        let verdict = self.supervision.children.lock().ended(ended);
        self.follow_verdict(ended, verdict);
    }

    fn follow_verdict(&self, ended: &Ended, verdict: Option<Verdict<Child>>) {
        let names = ended.names.join(", ");
        let reason = TermView::parse(&ended.reason).expect("a reason was checked when it came");
        if self.is_stopping() {
            return;
        }
        match verdict {
            None if names.is_empty() => {}
            None | Some(Verdict::Forget(_)) => tracing::info!(process = %names, ?reason, "process ended"),
            Some(Verdict::Restart { child: id, spec: child, after: pause })
                if pause.is_zero() && child.waits =>
            {
                let reason = format!("{reason:?}");
                self.spawn_with(|node| async move {
                    if let Some(process) = unblock(move || node.start_again(id, &child)).await {
                        tracing::warn!(process = %names, reason, pid = ?process, "process ended and was started again");
                    }
                });
            }
            Some(Verdict::Restart { child: id, spec: child, after: pause }) if pause.is_zero() => {
                if let Some(process) = self.start_again(id, &child) {
                    tracing::warn!(process = %names, ?reason, pid = ?process, "process ended and was started again");
                }
            }
            Some(Verdict::Restart { child: id, spec: child, after: pause }) => {
                let pause_ms = pause.as_millis();
                tracing::error!(
                    process = %names, ?reason,
                    "process ended, too often of late: it is started again in {pause_ms} ms"
                );
                self.start_later(id, child, pause);
            }
        }
    }

    fn start_child(&self, id: ChildId, child: &Child) -> Result<ProcessHandle, Failed> {
        let node = self.this.upgrade().expect("the caller that borrows the node holds it");
        self.supervision.children.lock().starting += 1;
        let started = start_named(&node, child);
        let process = started.as_ref().ok().map(|process| process.process.id);
        let ended = self.supervision.children.lock().started(id, process);
        if let Some((ended, verdict)) = ended {
            self.follow_verdict(&ended, Some(verdict));
        }
        started
    }

    fn start_later(&self, id: ChildId, child: Child, pause: Duration) {
        let Some(node) = self.this.upgrade() else { return };
        // What starts it is the program's.
        self.spawn(async move {
            after(pause).await;
            let this = Arc::clone(&node);
            let started = match child.waits {
                true => unblock(move || this.start_again(id, &child)).await,
                false => this.start_again(id, &child),
            };
            if let Some(process) = started {
                let names = node.registry.names_of(&process.process);
                tracing::warn!(process = %names.join(", "), pid = ?process, "process started again");
            }
        });
    }

    fn start_again(&self, id: ChildId, child: &Child) -> Option<ProcessHandle> {
        if self.is_stopping() {
            return None;
        }
        let why = match self.start_child(id, child) {
            Ok(process) => {
                if let Some(figures) = &process.process.figures {
                    figures.restarted();
                }
                return Some(process);
            }
            Err(failed) => failed.to_string(),
        };
        let verdict = self.supervision.children.lock().supervisor.again(id, now());
        if let Some(Verdict::Restart { child: id, spec: child, after: pause }) = verdict {
            // Not at once again, and not too late either.
            let pause = pause.max(self.config.limits.backoff_first);
            tracing::error!("process not started again: {why}; tried again in {} ms", pause.as_millis());
            self.start_later(id, child, pause);
        }
        None
    }
}

impl ProcessHandle {
    /// Runs a future on the node's threads until it is done or the process has ended. At the end it is dropped where it waits,
    /// before monitors are told and before a process that is [supervised](Node::supervise) is started again. Of a process
    /// that has ended it is dropped at once.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.node.supervision.tasks.lock();
        // The thread that ends the process takes it out of the registry first, and its tasks out of here then.
        if self.process.is_alive() {
            let own = tasks.entry(self.process.id).or_default();
            own.retain(|task| !task.is_finished());
            own.extend(self.node.job(Whose::TaskOf(self.process.id), task));
        }
    }

    /// Does something again and again, as [`spawn`](Self::spawn), until it says that it is done.
    #[doc(hidden)]
    pub fn wake(&self, request: WakeRequest) {
        self.spawn(timers::wake(request));
    }
}

fn name_all(process: &ProcessHandle, names: &[ServerName]) -> Result<(), NotNamed> {
    for name in names {
        let named = match name {
            ServerName::Local(name) => process.register(name).map(|_| ()),
            ServerName::Global(name) => process.register_global(name).map(|_| ()),
        };
        named.map_err(|error| NotNamed { name: name.clone(), error })?;
    }
    Ok(())
}

impl fmt::Debug for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervision")
            .field("supervisor", &self.children.lock().supervisor)
            .finish_non_exhaustive()
    }
}
