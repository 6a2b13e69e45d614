//! What a server has done beside its messages, and is told the outcome of.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use ahash::AHashMap;
use smol::Task;
use smol::future::FutureExt;

use crate::node::life::watchdog::Whose;
use crate::node::server::own::Own;
use crate::node::server::process_handle::ProcessHandle;
use crate::process::mailbox::Envelope;

/// A task that a server has started, to be cancelled by: see [`Context::spawn`](crate::Context::spawn).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskRef(u64);

/// A task has come to its end.
pub(in crate::node) struct Done<M> {
    task: TaskRef,
    /// What makes the message of its outcome, or its panic.
    outcome: Result<Box<dyn FnOnce() -> M + Send>, Box<dyn Any + Send>>,
}

/// The tasks of one server. They end where this is dropped, wherever they are.
#[derive(Default)]
pub(in crate::node) struct Tasks {
    /// Those whose outcome the server has not been told. `None`: the node has ended, and it will not be.
    running: AHashMap<TaskRef, Option<Task<()>>>,
    started: u64,
}

impl Tasks {
    /// Starts a task. Its outcome comes to the mailbox of `process`, whose `Info` is `M`: what waits there is bounded by the
    /// server's own tasks.
    pub(in crate::node) fn start<T: Send + 'static, M: Send + 'static>(
        &mut self,
        process: &ProcessHandle,
        work: impl Future<Output = T> + Send + 'static,
        then: impl FnOnce(T) -> M + Send + 'static,
    ) -> TaskRef {
        self.started += 1;
        let task = TaskRef(self.started);
        let mailbox = Arc::clone(process.mailbox.as_ref().expect("a server has a mailbox"));
        let running = process.node.job(Whose::TaskOf(process.process.id), async move {
            let outcome: Result<Box<dyn FnOnce() -> M + Send>, _> =
                match AssertUnwindSafe(work).catch_unwind().await {
                    // The message is made where the server takes it: not at all where it has ended, or does not want it any more.
                    Ok(output) => Ok(Box::new(move || then(output))),
                    Err(panic) => Err(panic),
                };
            mailbox.push(Envelope::Own(Box::new(Own::Done(Done { task, outcome }))));
        });
        self.running.insert(task, running);
        task
    }

    /// Whether the server had not been told its outcome: it will not be.
    pub(in crate::node) fn cancel(&mut self, task: TaskRef) -> bool {
        self.running.remove(&task).is_some()
    }

    /// A task is done: gives what the server is told, unless that was cancelled.
    ///
    /// # Panics
    /// As the task did.
    pub(in crate::node) fn done<M>(&mut self, done: Done<M>) -> Option<M> {
        self.running.remove(&done.task)?;
        match done.outcome {
            Ok(message) => Some(message()),
            Err(panic) => resume_unwind(panic),
        }
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(task: TaskRef) -> Done<&'static str> {
        Done { task, outcome: Ok(Box::new(|| "outcome")) }
    }

    #[test]
    fn an_outcome_is_told_once_and_not_of_a_task_that_was_cancelled() {
        let mut tasks = Tasks::default();
        let [first, second] = [TaskRef(1), TaskRef(2)];
        tasks.running.extend([(first, None), (second, None)]);
        assert_eq!(tasks.done(done(first)), Some("outcome"));
        assert!(!tasks.cancel(first));
        // Its outcome waits in the mailbox already.
        assert!(tasks.cancel(second));
        assert!(!tasks.cancel(second));
        let unwanted = || -> &'static str { unreachable!("nobody wants it") };
        assert_eq!(tasks.done(Done { task: second, outcome: Ok(Box::new(unwanted)) }), None);
        // Nor does its panic count.
        assert_eq!(tasks.done::<()>(Done { task: second, outcome: Err(Box::new("oh")) }), None);
        assert!(tasks.running.is_empty());
    }
}
