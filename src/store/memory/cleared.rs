//! A store is emptied: an empty table takes the place of each of its own, all under their locks, and what was in them is let go of bit by
//! bit, which takes as long as it takes.

use std::sync::Arc;

use hashbrown::hash_table::IntoIter;
use parking_lot::RwLock;

use super::{Entry, MemoryStore, Shard};
use crate::store::Cleared;

/// Entries that one step lets go of: a millisecond.
const AT_ONCE: usize = 8 << 10;

impl MemoryStore {
    pub(super) fn clear_now(&self) -> Cleared {
        let before = self.emptied();
        let seq = self.exchange_all(&before, || self.numbers.next());
        let rest = before.is_there().then(|| {
            let mut rest = before.into_rest();
            Box::new(move || rest.step()) as Box<dyn FnMut() -> bool + Send>
        });
        Cleared { seq, rest }
    }

    fn is_there(&self) -> bool {
        self.shards.iter().any(|shard| !shard.read().table.is_empty())
    }

    /// What is to be let go of. Its room is given back at once, though the memory follows: a caller that has cleared a full store is to
    /// find room in it.
    fn into_rest(self) -> Rest {
        let listed = self.order.as_ref().map(super::order::Order::listed);
        Rest { shards: Arc::clone(&self.shards), next: 0, entries: None, listed }
    }
}

/// Entries that nobody can find any more.
struct Rest {
    shards: Arc<[RwLock<Shard>]>,
    next: usize,
    entries: Option<IntoIter<Entry>>,
    /// The same in their order.
    listed: Option<Arc<super::order::Listed>>,
}

impl Rest {
    /// Gives whether there is more.
    fn step(&mut self) -> bool {
        let mut left = AT_ONCE;
        while left > 0 {
            match &mut self.entries {
                Some(entries) => {
                    let gone = entries.by_ref().take(left).map(drop).count();
                    if gone < left {
                        self.entries = None;
                    }
                    left -= gone;
                }
                None => {
                    let Some(shard) = self.shards.get(self.next) else { break };
                    self.next += 1;
                    self.entries = Some(std::mem::take(&mut shard.write().table).into_iter());
                }
            }
        }
        left == 0 || self.listed.as_ref().is_some_and(|listed| listed.drop_first(AT_ONCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Traits, encode};
    use crate::store::{Room, Store, Value};

    #[test]
    fn what_was_there_goes_bit_by_bit_and_its_room_at_once() {
        for is_ordered in [false, true] {
            let room = Arc::new(Room::new(1 << 30));
            let store = if is_ordered {
                MemoryStore::ordered_within(Arc::clone(&room))
            } else {
                MemoryStore::within(Arc::clone(&room))
            };
            let value = encode(|w| _ = w.binary(&[7; 100]));
            let put = |number: u64| {
                let deadline = if number.is_multiple_of(3) { 1_000 } else { 0 };
                let value = Value { deadline, ..Value::of(&value, Traits::none()) };
                store.put(&encode(|w| _ = w.unsigned(number)), value, || panic!("at once")).unwrap().unwrap()
            };
            let entries = 3 * AT_ONCE as u64;
            (0..entries).for_each(|number| _ = put(number));
            let (seq, revision) = (store.seq(), store.revision());
            let cleared = store.clear_now();
            assert_eq!((cleared.seq, store.revision()), (seq + 1, revision + 1));
            assert_eq!((store.len(), store.bytes(), room.used(), store.next_due()), (0, 0, 0, None));
            let mut rest = cleared.rest.expect("something was there");
            let mut steps = 1;
            while rest() {
                steps += 1;
            }
            assert!(steps > 3, "in {steps} steps");
            assert!(!rest(), "nothing is left");
            assert_eq!(put(1), seq + 2);
            assert_eq!((store.len(), store.clear_now().seq), (1, seq + 3));
            assert!(store.clear_now().rest.is_none(), "of nothing");
            assert_eq!(room.used(), 0);
        }
    }
}
