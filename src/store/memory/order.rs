//! The keys of a store in memory in Erlang's order, beside its table, where that was asked for.
//!
//! A skip list, which readers walk along while others write. A key is put into it, and taken out, under the lock of its shard, with
//! the entry; so the two agree of each key. A page that goes along it takes the lock of a shard for each entry that it shows.
//!
//! ```text
//! node    place (store/ordered.rs), key
//! ```

use std::borrow::Borrow;
use std::cmp::Ordering as Compared;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_skiplist::SkipSet;
use crossbeam_skiplist::set::Entry as Node;
use parking_lot::RwLock;

use super::MemoryStore;
use crate::etf::order::TermRange;
use crate::store::ordered::{self, Index, order_head_of, place_of};
use crate::store::{Page, Shows, StoreError, Value, Visit};

/// What a key is counted with beside its bytes: a node of the list and the allocator's own, by measure.
pub(super) const NODE_BYTES: u64 = 68;

/// A key with its place, by which it is compared.
pub(super) struct Placed {
    place_and_key: Box<[u8]>,
    place_len: u16,
}

impl Placed {
    fn of(key: &[u8]) -> Self {
        let mut bytes = place_of(key);
        // It has 60,016 bytes at most.
        let place_len = bytes.len() as u16;
        bytes.reserve_exact(key.len());
        bytes.extend_from_slice(key);
        Self { place_and_key: bytes.into_boxed_slice(), place_len }
    }

    fn split(&self) -> (&[u8], &[u8]) {
        self.place_and_key.split_at(self.place_len.into())
    }

    fn place(&self) -> &[u8] {
        self.split().0
    }

    fn key(&self) -> &[u8] {
        self.split().1
    }

    /// As a store's room counts it.
    fn bytes(&self) -> u64 {
        self.place_and_key.len() as u64 + NODE_BYTES
    }
}

impl Borrow<[u8]> for Placed {
    fn borrow(&self) -> &[u8] {
        self.place()
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Compared> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Compared {
        self.place().cmp(other.place())
    }
}

/// The order of a store's keys.
#[derive(Default)]
pub(super) struct Order {
    /// Another one after a [`replace`](crate::store::Store::replace).
    listed: RwLock<Arc<Listed>>,
}

/// Keys with their places.
#[derive(Default)]
pub(super) struct Listed {
    keys: SkipSet<Placed>,
    /// Of all of them, as the store's room counts them.
    bytes: AtomicU64,
}

impl Listed {
    /// Lets go of so many of the keys; gives whether there are more.
    pub(super) fn drop_first(&self, max: usize) -> bool {
        let gone = (0..max).map_while(|_| self.keys.pop_front()).count();
        gone == max && !self.keys.is_empty()
    }
}

impl Order {
    pub(super) fn listed(&self) -> Arc<Listed> {
        Arc::clone(&self.listed.read())
    }

    /// Bytes that its keys are counted with.
    pub(super) fn bytes(&self) -> u64 {
        self.listed.read().bytes.load(Ordering::Relaxed)
    }

    pub(super) fn swap(&self, with: &Self) {
        std::mem::swap(&mut *self.listed.write(), &mut *with.listed.write());
    }
}

impl MemoryStore {
    /// What a key that comes is put in order as; `None`: the store has no order.
    pub(super) fn placed(&self, key: &[u8]) -> Option<Placed> {
        self.order.as_ref().map(|_| Placed::of(key))
    }

    /// Bytes that it takes of the room.
    pub(super) fn bytes_of(placed: Option<&Placed>) -> u64 {
        placed.map_or(0, Placed::bytes)
    }

    /// Puts a key that comes in order, for which there is room.
    ///
    /// # Errors
    /// Another key has its place: it was made on purpose, with the same digest.
    pub(super) fn list(&self, placed: Option<Placed>) -> Result<(), StoreError> {
        let (Some(order), Some(placed)) = (&self.order, placed) else { return Ok(()) };
        let listed = order.listed.read();
        if ordered::is_cut(placed.place()) {
            let there = listed.keys.get(placed.place());
            if there.is_some_and(|there| there.value().key() != placed.key()) {
                return Err(StoreError::Io("eexist"));
            }
        }
        listed.bytes.fetch_add(placed.bytes(), Ordering::Relaxed);
        listed.keys.insert(placed);
        Ok(())
    }

    /// Takes out a key that goes; gives the bytes that it took of the room.
    pub(super) fn unlist(&self, key: &[u8]) -> u64 {
        let Some(order) = &self.order else { return 0 };
        let listed = order.listed.read();
        let bytes = listed.keys.remove(&place_of(key)[..]).map_or(0, |node| node.value().bytes());
        listed.bytes.fetch_sub(bytes, Ordering::Relaxed);
        bytes
    }

    /// Takes out keys that were to come.
    pub(super) fn unlist_all(&self, keys: &[&[u8]]) {
        for key in keys {
            self.unlist(key);
        }
    }

    pub(super) fn show_in_order(
        &self,
        range: (&TermRange, bool),
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        let Some(order) = &self.order else { return Ok(Page::Unordered) };
        let listed = Arc::clone(&order.listed.read());
        ordered::page(&Ordered { store: self, keys: &listed.keys, shows }, range, after, visit)
    }
}

struct Ordered<'a> {
    store: &'a MemoryStore,
    keys: &'a SkipSet<Placed>,
    shows: Shows,
}

impl<'a> Index for Ordered<'a> {
    type At = Node<'a, Placed>;

    fn between<'s>(
        &'s self,
        low: Bound<&'s [u8]>,
        high: Bound<&'s [u8]>,
        reverse: bool,
    ) -> Box<dyn Iterator<Item = Result<(Vec<u8>, Self::At), StoreError>> + 's> {
        let nodes = self.keys.range::<[u8], _>((low, high));
        let seen = |node: Node<'a, Placed>| Ok((node.value().place().to_vec(), node));
        if reverse { Box::new(nodes.rev().map(seen)) } else { Box::new(nodes.map(seen)) }
    }

    fn show(
        &self,
        node: &Self::At,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Option<(Visit, usize)>, StoreError> {
        let key = node.value().key();
        let (hash, shard) = self.store.shard(key);
        let shard = shard.read();
        let Some(entry) = shard.table.find(hash, |entry| entry.key() == key) else { return Ok(None) };
        let value = (self.shows != Shows::Keys).then(|| entry.value());
        Ok(Some((visit(key, value), key.len())))
    }

    fn whole(&self, node: &Self::At, max: usize) -> Result<(Vec<u8>, usize), StoreError> {
        let key = node.value().key();
        Ok((order_head_of(key, max), key.len()))
    }
}
