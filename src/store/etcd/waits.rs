//! Keys that have writes waiting, and the reads that wait for these.
//!
//! Writes of one key are told of in the order of their numbers; writes of different keys in any order.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::ask::{Asked, Key, Kind, call};
use crate::store::{ReadDone, ReadManyDone, StoreError};

/// Reads that may wait, one of several keys as many as it has keys: each takes some 200 bytes. Only peers that ask without waiting for
/// answers, while etcd takes long, get there.
pub(super) const READS_MAX: usize = if cfg!(test) { 10_000 } else { 256 << 10 };

/// What becomes of a read that is asked for. What was to make its completion is given back where it does not wait.
pub(super) enum Later<D> {
    /// No write waits that it would have to wait for.
    No(D),
    Waits,
    /// It would have to wait, and as many as may do.
    TooMany(D),
}

/// Which keys wait.
#[derive(Default)]
pub(super) struct Waits {
    keys: AHashMap<Key, Waiting>,
    /// The number of the last write of all keys that waits.
    clear: Option<u64>,
    /// Reads that wait for a write of all keys, with its number, in the order of the numbers.
    behind_clears: VecDeque<(u64, Read)>,
    /// Reads that wait, see [`READS_MAX`].
    reads: usize,
}

struct Waiting {
    /// The number of its last write.
    last: u64,
    /// Reads, each with the number of the last write that was there before it.
    reads: Vec<(u64, Read)>,
}

/// A read that waits.
enum Read {
    /// Of one key.
    One(Key, ReadDone),
    /// Of several: each of these that waits has it.
    Many(Arc<ManyRead>),
}

/// A read whose time has come.
pub(super) enum Due {
    One(Key, ReadDone),
    Many(Vec<Key>, ReadManyDone),
}

impl Due {
    /// As it counts among those that wait.
    const fn counts(&self) -> usize {
        match self {
            Self::One(..) => 1,
            Self::Many(keys, _) => keys.len(),
        }
    }

    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Self::One(_, done) => call(|| done(Err(error.clone()))),
            Self::Many(_, done) => call(|| done(Err(error.clone()))),
        }
    }
}

/// See [`Read::Many`].
struct ManyRead {
    keys: Vec<Key>,
    /// How many writes it waits for still, and its completion.
    left: Mutex<(usize, Option<ReadManyDone>)>,
}

impl Read {
    /// A write less is waited for. Gives the read, where that was the last.
    fn one_less(self) -> Option<Due> {
        match self {
            Self::One(key, done) => Some(Due::One(key, done)),
            Self::Many(read) => {
                let (left, done) = &mut *read.left.lock();
                *left = left.saturating_sub(1);
                let done = if *left == 0 { done.take()? } else { return None };
                Some(Due::Many(read.keys.clone(), done))
            }
        }
    }
}

/// What a write was of, so that its reads are found when it is told of.
pub(super) struct Place {
    pub number: u64,
    pub keys: Vec<Key>,
    pub is_clear: bool,
}

impl Place {
    /// `None`: nothing that is read as an entry.
    pub(super) fn of(asked: &Asked) -> Option<Self> {
        let is_clear = match asked.kind() {
            Kind::Plain | Kind::Decides => false,
            Kind::Clear => true,
            Kind::InOrder => return None,
        };
        Some(Self { number: asked.number, keys: asked.keys.clone(), is_clear })
    }
}

impl Waits {
    /// A write waits from now on.
    pub(super) fn push(&mut self, place: &Place) {
        if place.is_clear {
            self.clear = Some(place.number);
        }
        for key in &place.keys {
            let waiting = self.keys.entry(Arc::clone(key));
            waiting.or_insert_with(|| Waiting { last: 0, reads: Vec::new() }).last = place.number;
        }
    }

    /// The clear that a read of a key waits for.
    fn clear_before(&self, key: &[u8]) -> Option<u64> {
        self.clear.filter(|clear| self.keys.get(key).is_none_or(|waiting| waiting.last < *clear))
    }

    /// Keeps a read until the writes to its key that wait now are told of.
    pub(super) fn read_later<D: FnOnce() -> ReadDone>(&mut self, key: &[u8], done: D) -> Later<D> {
        let clear = self.clear_before(key);
        if clear.is_none() && !self.keys.contains_key(key) {
            return Later::No(done);
        }
        if !self.take_room_for(1) {
            return Later::TooMany(done);
        }
        let read = Read::One(key.into(), done());
        match (clear, self.keys.get_mut(key)) {
            (None, Some(waiting)) => waiting.reads.push((waiting.last, read)),
            (clear, _) => self.behind_clears.push_back((clear.unwrap_or(0), read)),
        }
        Later::Waits
    }

    /// Counts a read of so many keys, if it may wait.
    const fn take_room_for(&mut self, keys: usize) -> bool {
        let has_room = self.reads < READS_MAX;
        if has_room {
            self.reads += keys;
        }
        has_room
    }

    /// The same of several keys, which are read at one moment.
    pub(super) fn read_many_later<D: FnOnce() -> ReadManyDone>(
        &mut self,
        keys: &[&[u8]],
        done: D,
    ) -> Later<D> {
        let clear = self.clear;
        let busy: Vec<&[u8]> = keys.iter().copied().filter(|key| self.keys.contains_key(*key)).collect();
        if busy.is_empty() && clear.is_none() {
            return Later::No(done);
        }
        if !self.take_room_for(keys.len()) {
            return Later::TooMany(done);
        }
        let left = Mutex::new((busy.len() + usize::from(clear.is_some()), Some(done())));
        let read = Arc::new(ManyRead { keys: keys.iter().map(|key| Key::from(*key)).collect(), left });
        for key in busy {
            if let Some(waiting) = self.keys.get_mut(key) {
                waiting.reads.push((waiting.last, Read::Many(Arc::clone(&read))));
            }
        }
        if let Some(clear) = clear {
            self.behind_clears.push_back((clear, Read::Many(read)));
        }
        Later::Waits
    }

    /// The keys of which writes wait, or are being told of.
    pub(super) fn keys(&self) -> Vec<Key> {
        self.keys.keys().cloned().collect()
    }

    /// A write was told of: gives the reads that waited for it.
    pub(super) fn told(&mut self, place: &Place) -> Vec<Due> {
        let mut due = Vec::new();
        for key in &place.keys {
            let Some(waiting) = self.keys.get_mut(key) else { continue };
            let (now, later): (Vec<_>, _) =
                std::mem::take(&mut waiting.reads).into_iter().partition(|(after, _)| *after <= place.number);
            waiting.reads = later;
            if waiting.last <= place.number {
                self.keys.remove(key);
            }
            due.extend(now.into_iter().map(|(_, read)| read));
        }
        if place.is_clear {
            if self.clear.is_some_and(|last| last <= place.number) {
                self.clear = None;
            }
            while let Some((_, read)) = self.behind_clears.pop_front_if(|(clear, _)| *clear <= place.number) {
                due.push(read);
            }
        }
        let due: Vec<Due> = due.into_iter().filter_map(Read::one_less).collect();
        self.reads = self.reads.saturating_sub(due.iter().map(Due::counts).sum());
        due
    }

    /// Nothing is told of any more: gives all reads that wait.
    pub(super) fn give_up(&mut self) -> Vec<Due> {
        let Self { keys, behind_clears, .. } = std::mem::take(self);
        let reads = keys.into_values().flat_map(|waiting| waiting.reads).chain(behind_clears);
        reads.filter_map(|(_, read)| read.one_less()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64, keys: &[&str], is_clear: bool) -> Place {
        Place { number, keys: keys.iter().map(|key| Key::from(key.as_bytes())).collect(), is_clear }
    }

    fn read() -> ReadDone {
        Box::new(|_| {})
    }

    fn read_many() -> ReadManyDone {
        Box::new(|_| {})
    }

    fn is_kept<D>(later: Later<D>) -> bool {
        matches!(later, Later::Waits)
    }

    #[test]
    fn a_read_waits_for_the_writes_that_were_there_and_for_no_later_one() {
        let mut waits = Waits::default();
        assert!(!is_kept(waits.read_later(b"a", read)));
        waits.push(&place(1, &["a"], false));
        assert!(is_kept(waits.read_later(b"a", read)) && !is_kept(waits.read_later(b"b", read)));
        waits.push(&place(2, &["a"], false));
        assert!(is_kept(waits.read_later(b"a", read)));
        assert_eq!(waits.told(&place(1, &["a"], false)).len(), 1);
        assert_eq!(waits.keys(), [Key::from(*b"a")]);
        assert_eq!(waits.told(&place(2, &["a"], false)).len(), 1);
        assert!(!is_kept(waits.read_later(b"a", read)) && waits.keys().is_empty());
    }

    #[test]
    fn a_read_of_several_keys_waits_for_all_of_their_writes_whichever_is_told_of_first() {
        for turned in [false, true] {
            let mut waits = Waits::default();
            assert!(!is_kept(waits.read_many_later(&[b"a", b"b"], read_many)));
            let mut places = [place(1, &["a", "c"], false), place(2, &["b"], false), place(3, &[], true)];
            places.iter().for_each(|place| waits.push(place));
            assert!(is_kept(waits.read_many_later(&[b"a", b"b", b"d"], read_many)));
            if turned {
                places.reverse();
            }
            assert_eq!(places.map(|place| waits.told(&place).len()), [0, 0, 1]);
        }
    }

    #[test]
    fn a_read_waits_for_a_write_of_all_keys_unless_its_key_has_a_later_one() {
        let mut waits = Waits::default();
        waits.push(&place(1, &["a"], false));
        waits.push(&place(2, &[], true));
        waits.push(&place(3, &["b"], false));
        assert!([b"a", b"b", b"c"].iter().all(|key| is_kept(waits.read_later(*key, read))));
        let told = [place(1, &["a"], false), place(2, &[], true), place(3, &["b"], false)];
        assert_eq!(told.map(|place| waits.told(&place).len()), [0, 2, 1]);
        assert!(!is_kept(waits.read_later(b"a", read)));
    }

    #[test]
    fn so_many_reads_may_wait_and_one_more_is_given_back() {
        let mut waits = Waits::default();
        waits.push(&place(1, &["a", "b"], false));
        waits.push(&place(2, &[], true));
        waits.push(&place(3, &["a"], false));
        (0..READS_MAX - 2).for_each(|_| assert!(is_kept(waits.read_later(b"a", read))));
        assert!(
            is_kept(waits.read_later(b"b", read)) && is_kept(waits.read_many_later(&[b"a", b"b"], read_many))
        );
        assert!(matches!(waits.read_later(b"a", read), Later::TooMany(_)));
        assert!(matches!(waits.read_later(b"c", read), Later::TooMany(_)), "behind the clear");
        assert!(matches!(waits.read_many_later(&[b"a"], read_many), Later::TooMany(_)));
        let told = [place(1, &["a", "b"], false), place(2, &[], true), place(3, &["a"], false)];
        assert_eq!(told.map(|place| waits.told(&place).len()), [0, 1, READS_MAX - 1]);
        assert_eq!(waits.reads, 0);
        assert!(matches!(waits.read_later(b"a", read), Later::No(_)));
        waits.push(&place(4, &["a"], false));
        assert!(is_kept(waits.read_many_later(&[b"a"], read_many)));
        assert_eq!((waits.give_up().len(), waits.reads), (1, 0));
    }
}
