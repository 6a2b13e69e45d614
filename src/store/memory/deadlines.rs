//! When entries end: their hashes, listed by about when they do.
//!
//! ```text
//! an entry with a deadline is listed under a start that is not behind its deadline
//!
//! start    deadline, rounded down to a 32nd of the way there, 256 ms at least: so there are some hundred lists, whatever is in them
//! listed   six of the eight bytes of the entry's hash: enough to find it in its table
//! ```
//!
//! A list whose start has come is taken, and each entry that is still there is shown as due or listed again, nearer to its
//! deadline. So a deadline that moves on needs nothing here, before it has come; what was listed for one that moves back, or for an
//! entry that goes, is found to be stale when its start comes. Where too much of that has come together, everything is listed
//! anew, shard by shard.
//!
//! The lock of the lists comes behind those of shards: nothing looks into a shard while it holds that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::{Entry, MemoryStore, SHARDS};
use crate::store::Due;

/// Of a hash: what a table uses for its place, the number of its shard, and what the table tells entries of one place apart by.
type Trace = [u8; 6];

/// An entry that was shown as due is looked at again after this time, in milliseconds: its deletion may fail.
const AGAIN_AFTER_MS: u64 = 5_000;
/// The least that starts are apart, as a power of two, in milliseconds.
const LEAST_SHIFT: u32 = 8;
/// As many of these are on the way to a deadline, as a power of two.
const PART_OF_WAY_SHIFT: u32 = 5;
/// Traces that one question looks at, beside those of the entries that are due: a millisecond.
const LOOKS_MAX: usize = 8 << 10;
/// Traces that are looked at between two locks.
const LOOKS_AT_ONCE: usize = 512;
/// Stale traces that are borne beside as many as there are others, and one for so many entries: to list everything anew takes a
/// look at each entry.
const STALE_MAX: usize = 4096;
const ENTRIES_PER_STALE: usize = 64;
/// Shards that one question lists anew.
const ANEW_AT_ONCE: usize = 16;
/// Keys that one call of [`MemoryStore::due_now`] gives have so many bytes together at most, not counting the last of them.
const DUE_BYTES_MAX: usize = 1 << 20;

const fn trace_of(hash: u64) -> Trace {
    let [a, b, c, d, shard, _, _, tag] = hash.to_le_bytes();
    [a, b, c, d, shard, tag]
}

const fn hash_of([a, b, c, d, shard, tag]: Trace) -> u64 {
    u64::from_le_bytes([a, b, c, d, shard, 0, 0, tag])
}

const fn start_of(deadline: u64, now: u64) -> u64 {
    let way_bits = u64::BITS - deadline.saturating_sub(now).leading_zeros();
    let shift = way_bits.saturating_sub(PART_OF_WAY_SHIFT);
    let shift = if shift < LEAST_SHIFT { LEAST_SHIFT } else { shift };
    let start = deadline >> shift << shift;
    // What is looked at now is not looked at again before it ends.
    if start <= now { deadline } else { start }
}

/// Traces by the start of their list.
#[derive(Default)]
struct Lists {
    by_start: BTreeMap<u64, Vec<Trace>>,
    len: usize,
}

impl Lists {
    fn push(&mut self, start: u64, trace: Trace) {
        let list = self.by_start.entry(start).or_default();
        if list.len() == list.capacity() {
            // Doubled, a third of it would be empty at most times.
            list.reserve_exact(list.len() / 8 + 4);
        }
        list.push(trace);
        self.len += 1;
    }

    /// Takes some traces whose start has come.
    fn take(&mut self, now: u64) -> Vec<Trace> {
        let Some(mut first) = self.by_start.first_entry().filter(|first| *first.key() <= now) else {
            return Vec::new();
        };
        let from = first.get().len().saturating_sub(LOOKS_AT_ONCE);
        let taken = first.get_mut().split_off(from);
        if from == 0 {
            first.remove();
        }
        self.len -= taken.len();
        taken
    }

    fn first(&self) -> Option<u64> {
        self.by_start.first_key_value().map(|(start, _)| *start)
    }
}

#[derive(Default)]
struct Listed {
    /// The time, as far as it was told.
    now: u64,
    lists: Lists,
    /// While everything is listed anew: what was listed before, and the shard that comes next.
    before: Option<(Lists, usize)>,
}

impl Listed {
    fn list(&mut self, deadline: u64, trace: Trace) {
        let start = start_of(deadline, self.now);
        self.lists.push(start, trace);
    }

    fn take(&mut self) -> Vec<Trace> {
        let now = self.now;
        let before = self.before.as_mut().map(|(lists, _)| lists.take(now)).unwrap_or_default();
        if before.is_empty() { self.lists.take(now) } else { before }
    }

    /// Traces that are listed, but for those of entries that end: by so many and some more they are too many.
    fn is_crowded(&self, entries: usize, all: usize) -> bool {
        self.lists.len > 2 * entries + STALE_MAX + all / ENTRIES_PER_STALE
    }

    fn first(&self) -> Option<u64> {
        let before = self.before.as_ref().and_then(|(lists, _)| lists.first());
        [before, self.lists.first()].into_iter().flatten().min()
    }
}

/// The deadlines of a store's entries.
#[derive(Default)]
pub(super) struct Deadlines {
    listed: Mutex<Listed>,
    /// Entries that have one.
    entries: AtomicU64,
}

impl Deadlines {
    /// One entry comes in the place of another, or of none. Under the lock of their shard.
    #[inline]
    pub(super) fn note(&self, hash: u64, old: Option<&Entry>, new: Option<&Entry>) {
        let deadline = |entry: Option<&Entry>| entry.map_or(0, Entry::deadline);
        let (old, new) = (deadline(old), deadline(new));
        if old | new != 0 {
            self.note_deadline(hash, old, new);
        }
    }

    #[cold]
    fn note_deadline(&self, hash: u64, old: u64, new: u64) {
        match (old, new) {
            (0, _) => _ = self.entries.fetch_add(1, Ordering::Relaxed),
            (_, 0) => _ = self.entries.fetch_sub(1, Ordering::Relaxed),
            _ => {}
        }
        if new == 0 {
            return;
        }
        let mut listed = self.listed.lock();
        // What is listed for an earlier deadline is found then, unless that has come: it may have been shown.
        if old == 0 || new < old || old <= listed.now {
            listed.list(new, trace_of(hash));
        }
    }

    /// The entries of two stores take the places of each other.
    pub(super) fn swap(&self, other: &Self) {
        std::mem::swap(&mut *self.listed.lock(), &mut *other.listed.lock());
        let others = other.entries.load(Ordering::Relaxed);
        other.entries.store(self.entries.swap(others, Ordering::Relaxed), Ordering::Relaxed);
    }

    /// When there may be something to do; `all`: the entries of the store, about.
    pub(super) fn next(&self, all: usize) -> Option<u64> {
        let entries = self.entries();
        let listed = self.listed.lock();
        let is_at_it = listed.before.is_some() || listed.is_crowded(entries, all);
        listed.first().map(|first| if is_at_it { 0 } else { first })
    }

    /// Entries that have a deadline.
    pub(super) fn entries(&self) -> usize {
        usize::try_from(self.entries.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }
}

impl MemoryStore {
    /// See [`Store::due`](crate::store::Store::due).
    pub(super) fn due_now(&self, now: u64, max: usize) -> Due {
        self.deadlines.listed.lock().now = now;
        let (mut due, mut looks, mut bytes) = (Due::default(), 0, 0);
        loop {
            let traces = self.deadlines.listed.lock().take();
            if traces.is_empty() {
                break;
            }
            looks += traces.len();
            let found: Vec<(u64, Trace)> = traces
                .into_iter()
                .filter_map(|trace| self.look_at(trace, now, &mut due, &mut bytes))
                .collect();
            let mut listed = self.deadlines.listed.lock();
            found.into_iter().for_each(|(deadline, trace)| listed.list(deadline, trace));
            due.is_more = due.keys.len() >= max || looks >= LOOKS_MAX || bytes >= DUE_BYTES_MAX;
            if due.is_more {
                break;
            }
        }
        self.list_anew();
        due
    }

    /// When entries of a trace are to be looked at again, where there are any. Their keys are added to those that are due where they
    /// are, with their `bytes`, up to the bound of these.
    fn look_at(&self, trace: Trace, now: u64, due: &mut Due, bytes: &mut usize) -> Option<(u64, Trace)> {
        let hash = hash_of(trace);
        let shard = self.shards[(hash >> 32) as usize % SHARDS].read();
        let with_end = shard.table.iter_hash(hash).map(|entry| (entry, entry.deadline()));
        let mine = with_end.filter(|(entry, deadline)| {
            *deadline != 0 && trace_of(self.hasher.hash_one(entry.key())) == trace
        });
        // Two entries of one trace are both found by it.
        let again = mine.map(|(entry, deadline)| {
            if deadline > now {
                return deadline;
            }
            if *bytes >= DUE_BYTES_MAX {
                return now;
            }
            *bytes += entry.key().len();
            due.keys.push(entry.key().into());
            now + AGAIN_AFTER_MS
        });
        again.min().map(|deadline| (deadline, trace))
    }

    /// Goes on with listing everything anew, or begins with it where too much that is listed is stale.
    fn list_anew(&self) {
        let (entries, all) = (self.deadlines.entries(), self.rough_len());
        let next = {
            let mut listed = self.deadlines.listed.lock();
            match &listed.before {
                Some((_, next)) => *next,
                None if !listed.is_crowded(entries, all) => return,
                None => {
                    let lists = std::mem::take(&mut listed.lists);
                    listed.before = Some((lists, 0));
                    0
                }
            }
        };
        for shard in self.shards.iter().skip(next).take(ANEW_AT_ONCE) {
            let with_end: Vec<(u64, Trace)> = {
                let shard = shard.read();
                let with_end = shard.table.iter().map(|entry| (entry.deadline(), entry));
                let with_end = with_end.filter(|(deadline, _)| *deadline != 0);
                with_end.map(|(end, entry)| (end, trace_of(self.hasher.hash_one(entry.key())))).collect()
            };
            let mut listed = self.deadlines.listed.lock();
            with_end.into_iter().for_each(|(deadline, trace)| listed.list(deadline, trace));
        }
        let mut listed = self.deadlines.listed.lock();
        listed.before = listed.before.take().map(|(lists, _)| (lists, next + ANEW_AT_ONCE));
        listed.before.take_if(|(_, next)| *next >= SHARDS);
    }

    /// Its entries, about: as many in each shard as in the first.
    pub(super) fn rough_len(&self) -> usize {
        self.shards.first().map_or(0, |shard| shard.read().table.len() * SHARDS)
    }

    /// Traces, of which some are stale.
    #[cfg(test)]
    fn listed(&self) -> usize {
        let listed = self.deadlines.listed.lock();
        listed.lists.len + listed.before.as_ref().map_or(0, |(lists, _)| lists.len)
    }
}

#[cfg(test)]
mod tests;
