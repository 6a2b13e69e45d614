//! The stream to one slave: what waits for it goes out in the store's order of writes, and is asked about in that very place.

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::Follow;
use super::confirm::Confirmations;
use super::follow::SharedSource;
use crate::distribution::RemoteProcess;
use crate::etf::{OwnedTerm, Pid};
use crate::process::{Feed, Feeding, More, Outcome, PendingCall};
use crate::replica::planted::{Rule, planted};
use crate::replica::{Acknowledge, Dialect, Mark, Refusal, Slave, SlaveName, SlaveState, Source};

/// A slave of a store, and the way of its writes.
pub struct SlaveFeed {
    slave: Arc<Slave>,
    /// What it is followed for, once it is.
    store: OnceLock<Replicated>,
    confirmations: Weak<Confirmations>,
    follow: Arc<dyn Follow>,
    /// The call that asks the slave what it has.
    asked: Mutex<Option<PendingCall>>,
    /// Something was left out that the slave's node cannot decode, and that was not said yet.
    withheld: AtomicBool,
}

/// The store that a slave replicates.
struct Replicated {
    /// Its process.
    pid: Pid,
    source: Weak<dyn Source + Send + Sync>,
}

impl SlaveFeed {
    pub(super) fn new(
        name: SlaveName,
        buffer_bytes_max: usize,
        confirmations: &Arc<Confirmations>,
        follow: &Arc<dyn Follow>,
    ) -> Self {
        Self {
            slave: Arc::new(Slave::new(name, buffer_bytes_max)),
            store: OnceLock::new(),
            confirmations: Arc::downgrade(confirmations),
            follow: Arc::clone(follow),
            asked: Mutex::default(),
            withheld: AtomicBool::new(false),
        }
    }

    /// The slave.
    pub const fn slave(&self) -> &Arc<Slave> {
        &self.slave
    }

    /// From now on it is followed for this process.
    pub(super) fn begin(&self, store: &Pid, source: &SharedSource) {
        self.store.get_or_init(|| Replicated { pid: store.clone(), source: Arc::downgrade(&source.source) });
    }

    /// The node that the slave is on, while it is followed.
    pub fn node(&self) -> Option<Arc<str>> {
        match self.slave.state() {
            SlaveState::Following(at) => Some(Arc::clone(at.node())),
            SlaveState::Seeking | SlaveState::Dropped => None,
        }
    }

    /// What the slave was asked in its stream will not be answered.
    pub fn end_question(&self) {
        let asked = self.asked.lock().take();
        drop(asked);
    }

    /// Whether something was left out, for the first time since the slave was sent all. Told once.
    pub fn take_withheld(&self) -> bool {
        self.withheld.swap(false, Ordering::Relaxed)
    }

    /// Asks the slave what it has: a kvnode for the number of the last write, another for a key that nobody has, as the
    /// answer counts then and not what it is.
    fn ask(
        &self,
        mark: Mark,
        store: &Replicated,
        at: &RemoteProcess,
        dialect: Dialect,
        out: &mut Feeding<'_>,
    ) {
        let seq = store.source.upgrade().map_or(0, |source| source.seq());
        let (slave, confirmations) = (Arc::clone(&self.slave), Weak::clone(&self.confirmations));
        let (follow, primary) = (Arc::clone(&self.follow), store.pid.clone());
        let answered = move |outcome| {
            let Outcome::Replied(answer) = outcome else { return };
            match if dialect == Dialect::Elixir { Ok(()) } else { handled(&answer) } {
                Ok(()) => {}
                Err(reason) if reason.is_of_room() && planted(Rule::NotKept) => {}
                Err(reason) if reason.is_of_room() => {
                    if slave.not_kept(mark, reason, follow.now()) {
                        tracing::warn!(store = ?primary, slave = %slave.name(), "slave does not keep what it is sent: {reason}");
                        slave.failed(&reason.to_string());
                    }
                    return;
                }
                Err(reason) => {
                    tracing::warn!(store = ?primary, slave = %slave.name(), "slave to be greeted anew: {reason}");
                    slave.refused(reason);
                    return slave.renew();
                }
            }
            slave.acknowledged(mark);
            if let Some(confirmations) = confirmations.upgrade() {
                confirmations.acknowledged();
            }
        };
        let call = out.call(
            &store.pid,
            at,
            |w, reference| match dialect {
                Dialect::Elixir => _ = w.tuple(2).atom("get").reference(reference),
                Dialect::Kvnode { session } => {
                    w.tuple(3).atom("replica_ask").unsigned(session).unsigned(seq);
                }
            },
            answered,
        );
        let before = self.asked.lock().replace(call);
        drop(before);
    }
}

impl Feed for SlaveFeed {
    fn feed(&self, out: &mut Feeding<'_>) -> More {
        let Some(store) = self.store.get() else { return More::No };
        let (node, now, flags) = (Arc::clone(out.node()), out.now(), out.flags());
        let send = |at: &RemoteProcess, message: &[u8]| {
            out.send(&store.pid, at, |w| _ = w.raw(message));
            out.has_room()
        };
        // It may have gone to another node since it was announced, and is announced there.
        let taken = self.slave.take(&node, now, |traits| flags.can_decode(traits), send);
        if let (Acknowledge::Now(mark), Some((at, dialect))) = (taken.acknowledge, &taken.at) {
            // Before anything else can be written behind the writes that it is about.
            self.ask(mark, store, at, *dialect, out);
        }
        if taken.withheld {
            self.withheld.store(true, Ordering::Relaxed);
        }
        // Both are for the slave's task (`downstream`) to do.
        if taken.withheld || taken.acknowledge == Acknowledge::Later {
            self.slave.changed();
        }
        if taken.more { More::WhenRoom } else { More::No }
    }
}

impl Deref for SlaveFeed {
    type Target = Slave;

    fn deref(&self) -> &Slave {
        &self.slave
    }
}

impl fmt::Debug for SlaveFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slave.fmt(f)
    }
}

/// Whether a kvnode answers `{:ok, applied}`; else why not. What is neither is of nobody that was greeted.
fn handled(answer: &OwnedTerm) -> Result<(), Refusal> {
    match answer.view().as_tuple::<2>() {
        Some([ok, applied]) if ok.is_atom("ok") && applied.as_unsigned().is_some() => Ok(()),
        Some([error, reason]) if error.is_atom("error") => {
            Err(Refusal::of_code(reason).unwrap_or(Refusal::OtherSession))
        }
        _ => Err(Refusal::OtherSession),
    }
}
