//! What all have in common that stand for something in etcd, each a task of a store's process beside a machine that decides: a lease, a node that is
//! dialled, and that they leave before the node ends. [`holder`](super::holder) stands for the names of a store in etcd, [`elector`](super::elector) for being
//! the primary of another.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use crate::elect::{self, succession};
use crate::etcd::{Error, Etcd, Lease};
use crate::log::Once;
use crate::node::Resource;
use crate::within::{until, within};
use crate::{Node, ProcessHandle};

/// How long etcd keeps the keys of one that does not renew its lease: 4 s, of which a third goes by before each renewal. One that is
/// stopped or cut off is replaced behind that.
const LEASE: Duration = Duration::from_secs(4);
/// How long a node that ends waits for all of its stores to have left, which takes 1 s at most, and for their leases to be revoked.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// How long a lease takes to be revoked, at most: it ends in its time where etcd does not answer.
const REVOKE_MAX: Duration = Duration::from_secs(2);
/// What etcd refuses is said again in each.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Changes of the keys that wait to be handled, at most: etcd waits with more.
pub(super) const CHANGES_MAX: usize = 16;

/// What a machine is told, of what is done here.
pub(super) trait Told: Send + Sized + 'static {
    fn granted(question: u64, lease: Option<(i64, Instant)>) -> Self;
    fn lease_until(until: Option<Instant>) -> Self;
    fn connected(question: u64, creation: u32) -> Self;
    fn not_connected(question: u64, is_gone: bool) -> Self;
    fn disconnected(question: u64) -> Self;
    fn leave() -> Self;
    fn time() -> Self;
}

/// The inputs of a machine that are named so.
macro_rules! told {
    ($($input:ty),+) => {$(
        impl Told for $input {
            fn granted(question: u64, lease: Option<(i64, Instant)>) -> Self {
                Self::Granted { question, lease }
            }

            fn lease_until(until: Option<Instant>) -> Self {
                Self::LeaseUntil(until)
            }

            fn connected(question: u64, creation: u32) -> Self {
                Self::Connected { question, creation }
            }

            fn not_connected(question: u64, is_gone: bool) -> Self {
                Self::NotConnected { question, is_gone }
            }

            fn disconnected(question: u64) -> Self {
                Self::Disconnected { question }
            }

            fn leave() -> Self {
                Self::Leave
            }

            fn time() -> Self {
                Self::Time
            }
        }
    )+};
}

told!(elect::Input, succession::Input);

/// Something that has come for a task. `M`: what one of its kind alone is told.
pub(super) enum Came<I, M> {
    Input(I),
    /// The same, and why something was not done that the task wanted.
    NotDone {
        input: I,
        error: Error,
    },
    Lease {
        question: u64,
        lease: Result<Lease, Error>,
    },
    More(M),
}

impl<I, M> Came<I, M> {
    /// An input, and why something was not done where that is its reason.
    pub(super) fn of(input: I, error: Option<Error>) -> Self {
        match error {
            Some(error) => Self::NotDone { input, error },
            None => Self::Input(input),
        }
    }
}

/// All that stand on a node. As a [`Resource`] of the node they leave before it ends.
#[derive(Default)]
pub struct Candidates(Mutex<Vec<Known>>);

/// One of them: how it is told to leave, and a channel that is closed when it has ended.
struct Known {
    leave: Box<dyn Fn() + Send>,
    is_over: Box<dyn Fn() -> bool + Send>,
    ended: Receiver<()>,
    node: Arc<Node>,
}

impl Candidates {
    /// One more, which holds the other side of `ended` for as long as it stands.
    pub(super) fn add<I: Told, M: Send + 'static>(
        &self,
        came: &Sender<Came<I, M>>,
        ended: Receiver<()>,
        node: &Arc<Node>,
    ) {
        let (leave, closed) = (came.clone(), came.clone());
        let known = Known {
            // Closed: it has ended.
            leave: Box::new(move || _ = leave.try_send(Came::Input(I::leave()))),
            is_over: Box::new(move || closed.is_closed()),
            ended,
            node: Arc::clone(node),
        };
        let mut candidates = self.0.lock();
        candidates.retain(|known| !(known.is_over)());
        candidates.push(known);
    }
}

impl Resource for Candidates {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        let candidates = std::mem::take(&mut *self.0.lock());
        let Some(node) = candidates.first().map(|known| Arc::clone(&known.node)) else { return done() };
        candidates.iter().for_each(|known| (known.leave)());
        let ended: Vec<Receiver<()>> = candidates.into_iter().map(|known| known.ended).collect();
        node.spawn(async move {
            let ends = async {
                for ended in &ended {
                    // Nothing is ever sent.
                    let _ = ended.recv().await;
                }
            };
            if within(LEAVE_MAX, ends).await.is_none() {
                tracing::warn!("global names were not left to another node in time");
            }
            done();
        });
    }
}

impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidates").field("len", &self.0.lock().len()).finish()
    }
}

/// What a task works with.
pub(super) struct Hands<I, M> {
    pub(super) etcd: Etcd,
    pub(super) process: ProcessHandle,
    pub(super) came: Sender<Came<I, M>>,
    lease: Option<Lease>,
    /// Held for as long as anything is to be done: the node that ends waits for that.
    alive: Sender<()>,
    /// Dropped, what was dialled is not watched any more.
    dialled: Option<Sender<()>>,
    /// What etcd has refused with which words.
    said: Once<String>,
}

impl<I: Told, M: Send + 'static> Hands<I, M> {
    /// `alive` is the other side of what [`Candidates::add`] was given.
    pub(super) fn new(
        etcd: Etcd,
        process: ProcessHandle,
        came: Sender<Came<I, M>>,
        alive: Sender<()>,
    ) -> Self {
        let said = Once::when_changed().every(SAY_EVERY);
        Self { etcd, process, came, lease: None, alive, dialled: None, said }
    }

    /// Has something done beside the task, which is told what comes of it.
    pub(super) fn spawn(&self, work: impl Future<Output = Option<Came<I, M>>> + Send + 'static) {
        let came = self.came.clone();
        self.process.spawn(async move {
            if let Some(what) = work.await {
                // Closed: the task has ended.
                let _ = came.try_send(what);
            }
        });
    }

    /// People are told of what etcd refuses, as that does not pass by itself.
    pub(super) fn not_done(&mut self, error: &Error) {
        if !error.is_refusal() {
            tracing::debug!(store = ?self.process, %error, "etcd has not done what a store stands for");
        } else if self.said.due(error.to_string(), now()).is_some() {
            tracing::warn!(
                store = ?self.process, %error,
                "etcd refuses what the choice of a store's primary, or of the holder of its names, has to write: neither changes until that is mended"
            );
        }
    }

    /// Asks for a lease; one of before is of no use any more.
    pub(super) fn ask_for_lease(&mut self, question: u64) {
        self.lease = None;
        let etcd = self.etcd.clone();
        self.spawn(async move { Some(Came::Lease { question, lease: etcd.lease(LEASE).await }) });
    }

    /// What the machine is told of the lease that was asked for.
    pub(super) fn leased(&mut self, question: u64, lease: Result<Lease, Error>) -> I {
        if let Err(error) = &lease {
            self.not_done(error);
        }
        self.lease = lease.ok();
        if let Some(lease) = &self.lease {
            let lost = lease.lost();
            self.spawn(async move {
                lost.await;
                // What has become of it is looked at before each input.
                Some(Came::Input(I::time()))
            });
        }
        let granted = self.lease.as_ref().and_then(|lease| Some((lease.id(), lease.held_until()?)));
        I::granted(question, granted)
    }

    /// What the machine is told of it before each other input.
    pub(super) fn refresh_lease(&mut self) -> Option<I> {
        let until = self.lease.as_ref()?.held_until();
        if until.is_none() {
            self.lease = None;
        }
        Some(I::lease_until(until))
    }

    /// Has the lease revoked. The task has ended before that is done, and the node's end waits for it all the same.
    pub(super) fn revoke_lease(&mut self) {
        if let Some(lease) = self.lease.take() {
            let alive = self.alive.clone();
            self.spawn(async move {
                match within(REVOKE_MAX, lease.revoke()).await {
                    Some(Ok(())) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "the lease of a store is not revoked: it ends in its time");
                    }
                    None => tracing::debug!("etcd does not revoke the lease of a store: it ends in its time"),
                }
                drop(alive);
                None
            });
        }
    }

    /// Connects to a node, and tells when the connection has ended.
    pub(super) fn dial(&mut self, question: u64, node: Arc<str>) {
        let (hold, over) = smol::channel::bounded::<()>(1);
        self.dialled = Some(hold);
        let (dialler, came) = (Arc::clone(self.process.node()), self.came.clone());
        let work = async move {
            match dialler.connect_to_name(&node).await {
                Ok(connected) => {
                    let connected = I::connected(question, connected.creation);
                    let _ = came.try_send(Came::Input(connected));
                    dialler.disconnected(&node).await;
                    I::disconnected(question)
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "the node that has what a store stands for is not connected");
                    I::not_connected(question, error.is_gone())
                }
            }
        };
        // Nothing is ever sent.
        self.spawn(async move { until(over.recv(), work).await.map(Came::Input) });
    }
}

/// What comes next for a task: by itself, by its watch of etcd, or by time.
pub(super) async fn next<I: Told, M>(
    coming: &Receiver<Came<I, M>>,
    told: &Receiver<I>,
    due: Option<Instant>,
) -> Came<I, M> {
    let came = async {
        match coming.recv().await {
            Ok(came) => came,
            Err(_) => pending().await,
        }
    };
    let told = async {
        match told.recv().await {
            Ok(input) => Came::Input(input),
            Err(_) => pending().await,
        }
    };
    let late = async {
        match due {
            Some(due) => _ = Timer::at(due).await,
            None => pending().await,
        }
        Came::Input(I::time())
    };
    late.or(came).or(told).await
}

#[expect(clippy::disallowed_methods, reason = "a lease is held by this clock")]
pub(super) fn now() -> Instant {
    Instant::now()
}
