//! Processes that are started again together. The decisions are [`Group`]'s; a task for each group carries them out.

use std::fmt;
use std::sync::{Arc, Weak};

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};

use super::supervised::{Child, NotNamed, start_named};
use crate::config::ServerName;
use crate::etf::{OwnedTerm, TermView};
use crate::node::{Node, ProcessHandle, now};
use crate::process::group::{Group, Input, Output};
use crate::process::supervisor::is_orderly;
use crate::process::{Ended, ProcessId, Restart, Strategy};
use crate::within::until;

/// What the tasks of a node's groups are told of.
#[derive(Debug, Default)]
pub(super) struct Groups(Mutex<Vec<Sender<Input>>>);

impl Groups {
    fn add(&self) -> (Sender<Input>, Receiver<Input>) {
        let (tell, told) = smol::channel::unbounded();
        self.0.lock().push(tell.clone());
        (tell, told)
    }

    /// A process has ended, whatever it was of.
    pub(super) fn ended(&self, ended: &Ended) {
        let mut groups = self.0.lock();
        if groups.is_empty() {
            return;
        }
        groups.retain(|group| !group.is_closed());
        let is_orderly = TermView::parse(&ended.reason).is_ok_and(is_orderly);
        for process in &ended.processes {
            let ended = Input::Ended { process: process.id, is_orderly };
            groups.iter().for_each(|group| _ = group.try_send(ended));
        }
    }
}

/// Processes that are to be started again together, from [`Node::supervise_group`].
#[must_use = "nothing is started before `start`"]
pub struct SuperviseGroup<'n> {
    node: &'n Node,
    strategy: Strategy,
    children: Vec<(Child, Restart)>,
}

/// Processes that are started again together. Its clones are the same; dropping it ends nothing.
#[derive(Clone)]
pub struct SupervisedGroup {
    tell: Sender<Input>,
    processes: Arc<Mutex<Vec<ProcessHandle>>>,
    /// Closed when the group has ended.
    over: Receiver<()>,
}

impl Node {
    /// Processes that need each other: where one has ended, all of them are started again with it ([`Strategy::OneForAll`]), or those that were given
    /// behind it ([`Strategy::RestForOne`]), as the children of an OTP supervisor. ([`supervise`](Self::supervise) is its `one_for_one`.)
    ///
    /// Those that still run are stopped first, the last one first, each with the reason `shutdown`: a [`Server`](crate::Server) gets its
    /// [`terminate`](crate::Server::terminate). A process that has not ended after 5 s is killed. Then all are started in the order in which they were
    /// given, each with its names. A group whose restarts come more often than [`Limits::restarts_max`](crate::config::Limits::restarts_max) times in
    /// [`Limits::restart_period`](crate::config::Limits::restart_period) is stopped until the period has room again, and not given up.
    ///
    /// ```no_run
    /// use kvnode::{Node, Restart, ServerName, Strategy};
    /// # use kvnode::{Context, Never, ReplyTo, Server};
    /// # #[derive(Default)]
    /// # struct Cache;
    /// # #[derive(Default)]
    /// # struct Reader;
    /// # macro_rules! server { ($($name:ident)*) => { $(impl Server for $name {
    /// #     type Call = Never;
    /// #     type Cast = Never;
    /// #     type Info = Never;
    /// #     async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #         match call {}
    /// #     }
    /// # })* } }
    /// # server!(Cache Reader);
    ///
    /// let node = Node::builder("rust").start()?;
    /// // The reader is started again with the cache that it has filled, and not the other way round.
    /// let group = node
    ///     .supervise_group(Strategy::RestForOne)
    ///     .child(Restart::Permanent, [ServerName::local("cache")], |node| node.serve(Cache::default()))
    ///     .child(Restart::Permanent, [ServerName::local("reader")], |node| node.serve(Reader::default()))
    ///     .start()?;
    /// assert_eq!(group.processes().len(), 2);
    /// node.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn supervise_group(&self, strategy: Strategy) -> SuperviseGroup<'_> {
        SuperviseGroup { node: self, strategy, children: Vec::new() }
    }
}

impl SuperviseGroup<'_> {
    /// One more, behind those that were given before: as in [`Node::supervise`].
    pub fn child(
        mut self,
        restart: Restart,
        names: impl IntoIterator<Item = ServerName>,
        start: impl Fn(&Arc<Node>) -> ProcessHandle + Send + Sync + 'static,
    ) -> Self {
        self.children.push((Child::new(names, start), restart));
        self
    }

    /// Starts all of them, in their order.
    ///
    /// # Errors
    /// The program's: another process of this node has one of the names. Those that were started are killed then.
    pub fn start(self) -> Result<SupervisedGroup, NotNamed> {
        let Self { node, strategy, children } = self;
        // Before the first of them can have ended.
        let (tell, told) = node.supervision.groups().add();
        let mut started: Vec<(Child, Restart, ProcessHandle)> = Vec::new();
        for (child, restart) in children {
            match start_named(&node.arc(), &child) {
                Ok(process) => started.push((child, restart, process)),
                Err(failed) => {
                    told.close();
                    started.iter().rev().for_each(|(_, _, process)| process.kill());
                    return Err(failed.told());
                }
            }
        }
        let processes: Vec<_> = started.iter().map(|(_, _, process)| process.clone()).collect();
        let by_id = processes.iter().map(|process| (process.process.id, process.clone())).collect();
        let children =
            started.into_iter().map(|(child, restart, process)| (child, restart, process.process.id));
        let (over, is_over) = smol::channel::bounded(1);
        let shell = Shell {
            node: node.this.clone(),
            group: Group::new(strategy, node.supervision.intensity(), children.collect()),
            by_id,
            processes: Arc::new(Mutex::new(processes)),
            _over: over,
        };
        let group = SupervisedGroup { tell, processes: Arc::clone(&shell.processes), over: is_over };
        node.spawn(shell.run(told));
        Ok(group)
    }
}

impl SupervisedGroup {
    /// Those of its processes that run, in the order in which they were given.
    pub fn processes(&self) -> Vec<ProcessHandle> {
        self.processes.lock().clone()
    }

    /// Has its processes end, the last one first, each with the reason `shutdown`; none is started again. This does not wait:
    /// [`ended`](Self::ended) does.
    pub fn stop(&self) {
        // Closed: it has ended.
        let _ = self.tell.try_send(Input::End);
    }

    /// Waits until it has ended: by [`stop`](Self::stop), or with the node.
    pub async fn ended(&self) {
        // Nothing is ever sent: only the end of the task ends the wait.
        while self.over.recv().await.is_ok() {}
    }
}

struct Shell {
    node: Weak<Node>,
    group: Group<Child>,
    by_id: AHashMap<ProcessId, ProcessHandle>,
    /// Those that run, to be shown.
    processes: Arc<Mutex<Vec<ProcessHandle>>>,
    _over: Sender<()>,
}

impl Shell {
    async fn run(mut self, told: Receiver<Input>) {
        loop {
            while let Some(output) = self.group.poll_output() {
                self.carry_out(output);
            }
            self.show();
            if self.group.is_over() {
                return;
            }
            let input = match self.group.poll_timeout() {
                Some(at) => until(Timer::at(at), told.recv()).await.unwrap_or(Ok(Input::Time)),
                None => told.recv().await,
            };
            // The node has it for as long as it lives.
            let Ok(input) = input else { return };
            // With the node all its processes end, and none is started again.
            if self.node.upgrade().is_none_or(|node| node.is_stopping()) {
                return;
            }
            self.group.handle(input, now());
        }
    }

    fn carry_out(&mut self, output: Output<Child>) {
        match output {
            Output::Start(child) => {
                let Some(node) = self.node.upgrade() else { return };
                let input = match start_named(&node, &child) {
                    Ok(process) => {
                        tracing::warn!(process = %child.names_shown(), pid = ?process, "process started again, with its group");
                        if let Some(figures) = &process.process.figures {
                            figures.restarted();
                        }
                        let id = process.process.id;
                        self.by_id.insert(id, process);
                        Input::Started(id)
                    }
                    Err(failed) => {
                        tracing::error!("process not started again: {failed}; tried again with its group");
                        Input::NotStarted { pause: node.config.limits.backoff_first }
                    }
                };
                self.group.handle(input, now());
            }
            Output::Stop(process) => {
                if let Some(process) = self.by_id.get(&process) {
                    process.stop(&OwnedTerm::atom("shutdown"));
                }
            }
            Output::Kill(process) => {
                if let Some(process) = self.by_id.get(&process) {
                    tracing::error!(pid = ?process, "a process of a group has not ended in time: it is killed");
                    process.kill();
                }
            }
            Output::Restarts { restarted, after } if after.is_zero() => {
                tracing::warn!(restarted, "a process of a group ended: those with it are started again");
            }
            Output::Restarts { restarted, after } => {
                let pause_ms = after.as_millis();
                tracing::error!(
                    restarted,
                    "a process of a group ended, too often of late: those with it are started again in {pause_ms} ms"
                );
            }
        }
    }

    fn show(&mut self) {
        let running: Vec<ProcessId> = self.group.processes().collect();
        self.by_id.retain(|id, _| running.contains(id));
        let handles = running.iter().filter_map(|id| self.by_id.get(id).cloned());
        *self.processes.lock() = handles.collect();
    }
}

impl fmt::Debug for SuperviseGroup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { strategy, children, .. } = self;
        let mut shown = f.debug_struct("SuperviseGroup");
        shown.field("strategy", strategy).field("children", &children.len()).finish_non_exhaustive()
    }
}

impl fmt::Debug for SupervisedGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisedGroup").field("processes", &*self.processes.lock()).finish_non_exhaustive()
    }
}
