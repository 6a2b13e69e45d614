//! The thread that a client's connections live on.

use std::future::Future;
use std::io;
use std::sync::{Arc, Weak};

use smol::Executor;
use smol::channel::Sender;

/// A thread with an executor. Its tasks end when this is dropped.
#[derive(Debug)]
pub(super) struct Thread {
    executor: Arc<Executor<'static>>,
    _runs: Sender<()>,
}

/// Starts tasks there, as long as it runs. Tasks may have this, and do not keep the thread by it.
#[derive(Clone, Debug)]
pub(super) struct Spawn(Weak<Executor<'static>>);

impl Thread {
    pub(super) fn start() -> io::Result<Self> {
        let executor = Arc::new(Executor::new());
        let (runs, ended) = smol::channel::bounded::<()>(1);
        let its = Arc::clone(&executor);
        std::thread::Builder::new().name("kvnode-etcd".to_owned()).spawn(move || {
            // Nothing is ever sent: the channel closes with the client.
            let _closed = smol::block_on(its.run(ended.recv()));
        })?;
        Ok(Self { executor, _runs: runs })
    }

    pub(super) fn spawner(&self) -> Spawn {
        Spawn(Arc::downgrade(&self.executor))
    }

    /// A task that ends when what is given back is dropped.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> smol::Task<T> {
        self.executor.spawn(work)
    }
}

impl Spawn {
    #[cfg(test)]
    pub(super) fn is_running(&self) -> bool {
        self.0.strong_count() > 0
    }

    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        if let Some(executor) = self.0.upgrade() {
            executor.spawn(work).detach();
        }
    }
}

impl<F: Future<Output: Send> + Send + 'static> hyper::rt::Executor<F> for Spawn {
    fn execute(&self, work: F) {
        self.spawn(async move {
            work.await;
        });
    }
}
