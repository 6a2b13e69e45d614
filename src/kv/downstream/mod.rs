//! The slaves of a node's stores, looked after: found by name, watched by a monitor, greeted, repaired, and found again when
//! they are gone. The shell of replication, as `node` is of processes; all of it on what a node offers to any program. When each
//! of these is due, and what an answer means, a slave's [`Downstream`](crate::replica::Downstream) says.
//!
//! - `entry`: a slave as the store has it: its machine behind a lock, and the way of its writes.
//! - `slave`: the task of one slave.
//! - `greeting`: what it is asked before it is followed, asked.
//! - `kind`: whether a process on a BEAM is a server of the protocol.
//! - `keys`: the keys that a BEAM's server has.

mod entry;
mod greeting;
mod keys;
mod kind;
mod slave;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub use entry::{Polled, SlaveEntry, Wake};

use super::{Follow, FollowSlave, Forward, Offer, Work};
use crate::distribution::ServerRef;
use crate::etf::Pid;
use crate::process::{CallError, WakeRequest};
use crate::{Node, ProcessHandle};

/// How long one answer of a slave, of its node or of the holder of a store's name may take: as long as `GenServer.call/2` waits.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How long a primary may take for a write that its slave hands on: less than the 5 s that callers wait themselves.
const FORWARD_LIMIT: Duration = Duration::from_millis(4_500);

/// Looks after the slaves of the stores on a node.
pub struct Downstreams {
    node: Weak<Node>,
}

impl Downstreams {
    /// For the stores of this node, which it does not keep.
    pub fn on(node: &Arc<Node>) -> Arc<dyn Follow> {
        Arc::new(Self { node: Arc::downgrade(node) })
    }
}

impl Follow for Downstreams {
    fn follow(&self, slave: FollowSlave) {
        let store = self.node.upgrade().and_then(|node| node.process_at(&slave.store));
        // A store that has ended has no slaves.
        if let Some(store) = store {
            store.clone().spawn(slave::follow(store, slave));
        }
    }

    fn offer(&self, offer: Offer) {
        let store = self.node.upgrade().and_then(|node| node.process_at(&offer.store));
        if let Some(store) = store {
            store.clone().spawn(carry_out(store, offer));
        }
    }

    fn forward(&self, forward: Forward) {
        let store = self.node.upgrade().and_then(|node| node.process_at(&forward.store));
        match store {
            Some(store) => store.clone().spawn(carry_over(store, forward)),
            None => forward.not_sent(),
        }
    }

    fn work(&self, work: Work) {
        let store = self.node.upgrade().and_then(|node| node.process_at(work.store()));
        // A store that has ended is worked on no more.
        if let Some(store) = store {
            store.spawn(to_the_end(work));
        }
    }

    fn wake(&self, store: Pid, request: WakeRequest) {
        if let Some(store) = self.node.upgrade().and_then(|node| node.process_at(&store)) {
            store.wake(request);
        }
    }

    fn now(&self) -> Instant {
        now()
    }

    fn unix_ms(&self) -> u64 {
        unix_ms()
    }
}

impl fmt::Debug for Downstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Downstreams").finish_non_exhaustive()
    }
}

/// Works on a store, on threads that may wait.
async fn to_the_end(mut work: Work) {
    loop {
        let (has_more, back) = smol::unblock(move || (work.step(), work)).await;
        if !has_more {
            return;
        }
        work = back;
    }
}

/// Offers a store to the holder of its name.
async fn carry_out(store: ProcessHandle, offer: Offer) {
    let Offer { name, holder, failed, .. } = offer;
    let client = store.node().client_of(store.pid());
    let taken = async {
        if !greeting::is_kvnode(&client, &holder.node).await.ok()? {
            return Some(());
        }
        let request =
            |w: &mut crate::etf::TermWriter<'_>| _ = w.tuple(2).atom("replica_offer").pid(store.pid());
        match client.call(&ServerRef::Pid(holder.clone()), request, ANSWER_LIMIT).await {
            Ok(answer) if answer.view().is_atom("ok") => {
                tracing::warn!(
                    name = %name,
                    "the holder of the name {holder:?} was promoted in this store's place: this store becomes its slave"
                );
                Some(())
            }
            // It is no primary that was promoted, or not yet.
            Ok(_) | Err(_) => None,
        }
    };
    if taken.await.is_none() {
        failed();
    }
}

/// Has a primary carry out a write that was asked of its slave.
async fn carry_over(store: ProcessHandle, forward: Forward) {
    let client = store.node().client_of(store.pid());
    let primary = ServerRef::Pid(forward.primary.clone());
    match client.call_term(&primary, forward.request.view(), FORWARD_LIMIT).await {
        Ok(answer) => forward.answered(answer.view()),
        Err(CallError::NoProcess | CallError::Busy { .. } | CallError::Undecodable(_)) => forward.not_sent(),
        Err(CallError::Timeout) => forward.lost("timeout"),
        Err(_) => forward.lost("noconnection"),
    }
}

#[expect(clippy::disallowed_methods, reason = "the shell of replication is where its clock is read")]
fn now() -> Instant {
    Instant::now()
}

/// The time that people read, in milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "the shell of replication is where its clock is read")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A number below `below` by chance: nothing is to be secret about it.
fn chance(below: u32) -> u32 {
    (RandomState::new().hash_one(below) % u64::from(below.max(1))) as u32
}
