//! What we wait for from other nodes: the ends of processes that we monitor, and of those that we had spawned.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use crate::etf::{Reference, ReferenceView};

/// How the wait ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The process ended with this reason, encoded.
    Down(Vec<u8>),
    /// The spawn request was refused for this reason, encoded.
    Refused(Vec<u8>),
    /// The connection to its node is lost, or could not be set up.
    NoConnection,
}

type Done = Box<dyn FnOnce(Outcome) + Send>;

struct Waiter {
    node: Arc<str>,
    done: Done,
}

/// A reference of ours, as a key.
type Key = [u32; 3];

/// All waits of this node, by the reference of the monitor or the spawn request.
#[derive(Default)]
pub struct Waiters {
    table: Mutex<AHashMap<Key, Waiter>>,
}

impl Waiters {
    /// Calls `done` once when the process behind `reference`, on `node`, ends.
    pub fn expect(
        &self,
        reference: &Reference,
        node: &Arc<str>,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) {
        let waiter = Waiter { node: Arc::clone(node), done: Box::new(done) };
        self.table.lock().insert(key(&reference.words), waiter);
    }

    /// Nobody waits for it any more.
    pub fn cancel(&self, reference: &Reference) {
        self.table.lock().remove(&key(&reference.words));
    }

    /// The node says that it has ended. What another node says of it is not believed.
    pub fn ended(&self, reference: &ReferenceView<'_>, node: &str, outcome: impl FnOnce() -> Outcome) {
        let key = key(reference.words());
        let waiter = {
            let mut table = self.table.lock();
            match table.get(&key) {
                Some(waiter) if *waiter.node == *node => table.remove(&key),
                _ => None,
            }
        };
        if let Some(waiter) = waiter {
            (waiter.done)(outcome());
        }
    }

    /// The node cannot be reached: everything that waits for it ends.
    pub fn node_down(&self, node: &str) {
        let ended: Vec<Waiter> = {
            let mut table = self.table.lock();
            table.extract_if(|_, waiter| *waiter.node == *node).map(|(_, waiter)| waiter).collect()
        };
        for waiter in ended {
            (waiter.done)(Outcome::NoConnection);
        }
    }
}

fn key(words: &[u32]) -> Key {
    std::array::from_fn(|at| words.get(at).copied().unwrap_or(0))
}

impl fmt::Debug for Waiters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Waiters").field("len", &self.table.lock().len()).finish()
    }
}
