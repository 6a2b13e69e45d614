//! The end of a node.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use smol::channel::{Receiver, Sender};

use crate::etf::OwnedTerm;
use crate::node::peers::PeerDown;
use crate::node::{Node, block_on};
use crate::process::mailbox::Envelope;
use crate::within::within;

/// How long the last messages may take to be written when the node ends: a peer that reads takes what its socket holds at once,
/// and one that does not would not in a minute either.
const FAREWELL: Duration = Duration::from_secs(2);

/// The node's threads, as far as its end is concerned.
pub(in crate::node) struct Ending {
    /// Dropped, it ends them.
    pub threads: Mutex<Option<Sender<()>>>,
    /// Closed when they have ended, and the tasks with them.
    pub ended: Receiver<()>,
}

impl fmt::Debug for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ending").field("ended", &self.ended.is_closed()).finish()
    }
}

/// What a node's processes work with and what outlives them, a database for instance: it is asked to settle and to close
/// when the node ends ([`Node::close_at_end`]).
pub trait Resource: Send + Sync + 'static {
    /// The node begins to end. Its processes and connections are still there, and stay until `done` is called, from any
    /// thread: what was begun can be finished and answered. Must not block.
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        done();
    }

    /// The node's processes and connections have ended.
    fn close(&self) {}
}

impl Node {
    /// Has a resource settle when the node begins to end, and close when its processes have ended. Several are asked in the
    /// order in which they were given. A node that is ending already settles and closes it at once. One that takes longer than
    /// [`Limits::settle_duration_max`](crate::config::Limits::settle_duration_max) to settle is waited for no more.
    #[doc(hidden)]
    pub fn close_at_end(&self, resource: Arc<dyn Resource>) {
        let mut resources = self.resources.lock();
        // What is in there is taken once, after this is true.
        if !self.is_stopping() {
            return resources.push(resource);
        }
        drop(resources);
        resource.settle(Box::new(|| {}));
        resource.close();
    }

    /// Ends the node. That begins at once; the future is done when it has ended, and may be dropped before.
    ///
    /// Its processes end with the reason `:shutdown`: servers with a mailbox finish what they are at
    /// ([`Limits::shutdown_duration_max`](crate::config::Limits::shutdown_duration_max) long at most) and get their
    /// [`terminate`](crate::Server::terminate). Monitors and links of other nodes are told, which takes its global
    /// names out too, and what waits to be written is written, for two seconds at most. Then connections, threads and
    /// the registration with epmd are gone. A second call waits for the same end.
    ///
    /// A server that calls this in a handler should not wait for it: the node waits for that server.
    pub fn stop(&self) -> impl Future<Output = ()> + Send + use<> {
        // From now on nobody is dialled or let in.
        let first = !self.stopping.swap(true, Ordering::SeqCst);
        if first && let Some(this) = self.this.upgrade() {
            self.spawn_link(async move { this.end().await });
        }
        self.stopped()
    }

    /// Waits until the node has ended, by [`stop`](Self::stop) from elsewhere.
    pub fn stopped(&self) -> impl Future<Output = ()> + Send + use<> {
        let ended = self.ending.ended.clone();
        async move {
            // Nothing is ever sent: only the closing of the channel ends the wait.
            while ended.recv().await.is_ok() {}
        }
    }

    /// As [`stopped`](Self::stopped), blocking the thread: the last line of many a `main`.
    pub fn wait(&self) {
        block_on(self.stopped());
    }

    async fn end(&self) {
        let resources = std::mem::take(&mut *self.resources.lock());
        for resource in &resources {
            // What was taken is answered while there are connections to do it by.
            let (tell, told) = smol::channel::bounded(1);
            let settling = std::panic::catch_unwind(AssertUnwindSafe(|| {
                resource.settle(Box::new(move || _ = tell.try_send(())))
            }));
            if settling.is_err() {
                tracing::error!("a resource panicked when it was to settle (a bug of the program)");
            }
            if within(self.config.limits.settle_duration_max, told.recv()).await.is_none() {
                tracing::warn!("what the node's processes work with did not settle in time");
            }
        }
        let reason = OwnedTerm::atom("shutdown");
        self.shut_mailboxes(&reason).await;
        for process in self.registry.processes() {
            self.exit(&process, reason.view().bytes());
        }
        let mut peers = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        for peer in &peers {
            peer.close(PeerDown::Shutdown);
        }
        let ended = async {
            for peer in &peers {
                peer.ended().await;
            }
        };
        if within(FAREWELL, ended).await.is_none() {
            tracing::warn!("some peers did not take the last messages");
        }
        for resource in &resources {
            if std::panic::catch_unwind(AssertUnwindSafe(|| resource.close())).is_err() {
                tracing::error!("a resource panicked when it was to close (a bug of the program)");
            }
        }
        self.ending.threads.lock().take();
    }

    /// Asks the servers with a mailbox to end, and waits for them.
    async fn shut_mailboxes(&self, reason: &OwnedTerm) {
        let mailboxes: Vec<_> =
            self.mailboxes.lock().iter().map(|(id, mailbox)| (*id, Arc::clone(mailbox))).collect();
        for (_, mailbox) in &mailboxes {
            mailbox.push(Envelope::Stop { reason: reason.clone() });
        }
        let ended = async {
            for (id, _) in &mailboxes {
                self.end_of(*id).await;
            }
        };
        if within(self.config.limits.shutdown_duration_max, ended).await.is_none() {
            tracing::warn!("some servers did not end in time");
        }
    }
}
