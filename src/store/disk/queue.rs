//! What waits to be written, in the order in which it came, and the reads that wait for it.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use fjall::Slice;

use super::many::Many;
use super::record::{Entry, Found};
use crate::store::{
    Change as Of, Done, NoteDone, Pending, ReadDone, ReadManyDone, StoreError, WriteDone, Written,
};

/// Several keys.
pub(super) type Keys = Arc<[Arc<[u8]>]>;

/// A batch has no more bytes than this, but for the last write that it takes.
pub(super) const BATCH_BYTES_MAX: usize = 16 << 20;

/// What a write takes beside its keys and values: the completion, and the entries of the tables.
const OVERHEAD_BYTES: usize = 256;

/// Reads that may wait, one of several keys as many as it has keys: each takes some 200 bytes. Only peers that ask without waiting for
/// answers, while the disk takes long, get there.
const READS_MAX: usize = if cfg!(test) { 10_000 } else { 256 << 10 };

/// What becomes of a read that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Later<D> {
    /// No write waits that it would have to wait for.
    No,
    Waits,
    /// It would have to wait, and as many as may do: what was to make its completion.
    TooMany(D),
}

/// What a write is of, by its store: all entries, one by its key, several, or a note by its name.
#[derive(Clone, Debug)]
pub(super) enum Place {
    All(u32),
    Entry(u32, Arc<[u8]>),
    Entries(u32, Keys),
    Note(u32, Arc<[u8]>),
}

/// One change, and whom to tell.
pub(super) struct Write {
    pub store: u32,
    pub key: Arc<[u8]>,
    pub change: Change,
}

/// What becomes of a key, or of something else, and who is told.
pub(super) enum Change {
    /// It gets this entry.
    Put(Entry, WriteDone),
    /// It goes.
    Delete(WriteDone),
    /// What is there decides; with what was decided, once that is so.
    Update(Box<dyn Pending>, Decided),
    /// The same of several keys; the write's own is none.
    UpdateMany(Many),
    /// All keys go.
    Clear(WriteDone),
    /// Not a key of the store, but a note beside it.
    Note(Vec<u8>, Done),
    /// The caller wants to know that all before it is done.
    Nothing(Done),
}

/// What an update has decided.
#[derive(Debug, Default)]
pub(super) enum Decided {
    /// Nothing yet, or that it is to stay as it is.
    #[default]
    Keep,
    Put(Slice),
    Delete,
}

impl Decided {
    /// The entry that the key gets; `None`: none.
    pub(super) fn entry(&self) -> Option<Slice> {
        match self {
            Self::Put(entry) => Some(entry.clone()),
            Self::Keep | Self::Delete => None,
        }
    }
}

impl Write {
    /// What it is of; `None`: nothing.
    pub(super) fn place(&self) -> Option<Place> {
        match self.change {
            Change::Put(..) | Change::Delete(_) | Change::Update(..) => {
                Some(Place::Entry(self.store, Arc::clone(&self.key)))
            }
            Change::UpdateMany(ref many) => Some(Place::Entries(self.store, Arc::clone(many.keys()))),
            Change::Clear(_) => Some(Place::All(self.store)),
            Change::Note(..) => Some(Place::Note(self.store, Arc::clone(&self.key))),
            Change::Nothing(_) => None,
        }
    }

    /// What it takes of memory, and about as much of the disk.
    pub(super) fn bytes(&self) -> usize {
        let change = match &self.change {
            Change::Put(entry, _) => entry.len(),
            Change::Note(bytes, _) => bytes.len(),
            Change::Update(update, _) => update.bytes(),
            Change::UpdateMany(many) => many.bytes(),
            Change::Delete(_) | Change::Clear(_) | Change::Nothing(_) => 0,
        };
        change + self.bytes_of_keys()
    }

    /// What its keys take.
    fn bytes_of_keys(&self) -> usize {
        let more = match &self.change {
            Change::UpdateMany(many) => many.keys().iter().map(|key| key.len() + OVERHEAD_BYTES).sum(),
            _ => 0,
        };
        self.key.len() + OVERHEAD_BYTES + more
    }

    /// What it takes of the disk at most where the disk is so full that only deletes are written.
    pub(super) fn delete_bytes(&self) -> usize {
        match self.change {
            // An update may decide to delete.
            Change::Delete(_) | Change::Update(..) | Change::UpdateMany(_) => self.bytes_of_keys(),
            Change::Note(..) | Change::Clear(_) => self.bytes(),
            Change::Put(..) | Change::Nothing(_) => 0,
        }
    }

    /// Tells of a write that was not carried out.
    pub(super) fn fail(self, error: StoreError) {
        match self.change {
            Change::Put(_, done) | Change::Delete(done) | Change::Clear(done) => done(Err(error)),
            Change::Update(update, _) => update.done(Err(error)),
            Change::UpdateMany(many) => many.fail(error),
            Change::Note(_, done) | Change::Nothing(done) => done(Err(error)),
        }
    }

    /// Tells of one that was; `number` gives the number of the next that has changed a key.
    pub(super) fn succeed(self, number: impl FnOnce() -> u64) {
        let key = &*self.key;
        let put = |entry: &Slice, seq: u64, tell: &mut dyn FnMut(Written<'_>)| {
            // It was made by us.
            let Some(found) = Found::of(key, entry.clone()) else { return };
            tell(Written { seq, changes: &[(key, Of::Put(found.value()))], numbers: &[] });
        };
        let deleted = [(key, Of::Delete)];
        match self.change {
            Change::Put(entry, done) => {
                let mut done = Some(done);
                // What was written was given its revision.
                let entry = entry.given().cloned().unwrap_or_default();
                put(&entry, number(), &mut |written| _ = done.take().map(|done| done(Ok(written))));
            }
            Change::Delete(done) => done(Ok(Written { seq: number(), changes: &deleted, numbers: &[] })),
            Change::Clear(done) => done(Ok(Written { seq: number(), changes: &[], numbers: &[] })),
            Change::Update(update, Decided::Keep) => update.done(Ok(None)),
            Change::Update(update, Decided::Put(entry)) => {
                let mut update = Some(update);
                put(&entry, number(), &mut |written| {
                    _ = update.take().map(|update| update.done(Ok(Some(written))));
                });
            }
            Change::Update(update, Decided::Delete) => {
                update.done(Ok(Some(Written { seq: number(), changes: &deleted, numbers: &[] })));
            }
            Change::UpdateMany(many) => many.succeed(number),
            Change::Note(_, done) | Change::Nothing(done) => done(Ok(())),
        }
    }
}

/// A key or a name that has writes waiting.
struct Waiting<D> {
    /// The number of the last one.
    last: u64,
    /// Reads in the order in which they came, each with the number of the last write that was there before it.
    reads: VecDeque<(u64, D)>,
}

/// The keys that have writes waiting, or the names of notes, by store.
struct Waits<D>(AHashMap<u32, AHashMap<Arc<[u8]>, Waiting<D>>>);

impl<D> Default for Waits<D> {
    fn default() -> Self {
        Self(AHashMap::new())
    }
}

impl<D> Waits<D> {
    fn push(&mut self, store: u32, key: Arc<[u8]>, last: u64) {
        let waiting = self.0.entry(store).or_default().entry(key);
        waiting.or_insert_with(|| Waiting { last, reads: VecDeque::new() }).last = last;
    }

    /// The number of the last write of a key that waits.
    fn last(&self, store: u32, key: &[u8]) -> Option<u64> {
        Some(self.0.get(&store)?.get(key)?.last)
    }

    fn read_later(&mut self, store: u32, key: &[u8], done: impl FnOnce() -> D) -> bool {
        let Some(waiting) = self.0.get_mut(&store).and_then(|keys| keys.get_mut(key)) else {
            return false;
        };
        let last = waiting.last;
        waiting.reads.push_back((last, done()));
        true
    }

    /// The writes up to this number are carried out, one of this key among them: shows the reads that waited for them.
    fn carried_out(&mut self, store: u32, key: &[u8], up_to: u64, mut show: impl FnMut(D)) {
        let Some(keys) = self.0.get_mut(&store) else { return };
        let Some(waiting) = keys.get_mut(key) else { return };
        while let Some((_, done)) = waiting.reads.pop_front_if(|(after, _)| *after <= up_to) {
            show(done);
        }
        if waiting.last <= up_to {
            keys.remove(key);
        }
    }
}

/// A read that waits with a key.
enum Reading {
    /// Of that key.
    One(ReadDone),
    /// Of several: this one has the last of the writes that all of them wait for.
    Many(Keys, ReadManyDone),
}

/// A read that may be answered.
pub(super) enum Read {
    Entry(u32, Arc<[u8]>, ReadDone),
    Entries(u32, Keys, ReadManyDone),
    Note(u32, Arc<[u8]>, NoteDone),
}

impl Read {
    /// Keys of entries that it reads.
    fn keys(&self) -> usize {
        match self {
            Self::Entry(..) => 1,
            Self::Entries(_, keys, _) => keys.len(),
            Self::Note(..) => 0,
        }
    }
}

/// The queue.
#[derive(Default)]
pub(super) struct Queue {
    writes: Vec<Write>,
    /// Of those that wait or are being carried out.
    bytes: usize,
    /// Numbers of the writes: so many have come.
    pushed: u64,
    /// So many have been carried out.
    carried_out: u64,
    keys: Waits<Reading>,
    /// Of the stores that are to be cleared, the number of the last write that does it.
    clears: AHashMap<u32, u64>,
    /// Reads of a store that wait for a clear, with its number, in the order of these: no key has a later write before them.
    behind_clears: AHashMap<u32, VecDeque<(u64, Read)>>,
    notes: Waits<NoteDone>,
    /// Reads of entries that wait, see [`READS_MAX`].
    reads: usize,
    pub closed: bool,
}

impl Queue {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(super) fn push(&mut self, write: Write) {
        self.pushed += 1;
        self.bytes += write.bytes();
        match write.place() {
            Some(Place::Entry(store, key)) => self.keys.push(store, key, self.pushed),
            Some(Place::Entries(store, keys)) => {
                for key in &*keys {
                    self.keys.push(store, Arc::clone(key), self.pushed);
                }
            }
            Some(Place::All(store)) => _ = self.clears.insert(store, self.pushed),
            Some(Place::Note(store, name)) => self.notes.push(store, name, self.pushed),
            None => {}
        }
        self.writes.push(write);
    }

    /// Keeps a read until the writes to its key that wait now are done. Only then is `done` called.
    pub(super) fn read_later<D: FnOnce() -> ReadDone>(
        &mut self,
        store: u32,
        key: &[u8],
        done: D,
    ) -> Later<D> {
        let last = self.keys.last(store, key);
        let clear = self.clears.get(&store).copied().filter(|clear| last.is_none_or(|last| last < *clear));
        if clear.or(last).is_none() {
            return Later::No;
        }
        if !self.take_room_for(1) {
            return Later::TooMany(done);
        }
        match clear {
            Some(clear) => self.wait_for_clear(store, clear, Read::Entry(store, key.into(), done())),
            None => _ = self.keys.read_later(store, key, || Reading::One(done())),
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
        store: u32,
        keys: &[&[u8]],
        done: D,
    ) -> Later<D> {
        // Writes are carried out in their order: with the last of them all are.
        let last = keys.iter().filter_map(|key| Some((self.keys.last(store, key)?, *key))).max();
        let clear = self.clears.get(&store).copied();
        let clear = clear.filter(|clear| last.is_none_or(|(last, _)| last < *clear));
        if clear.is_none() && last.is_none() {
            return Later::No;
        }
        if !self.take_room_for(keys.len()) {
            return Later::TooMany(done);
        }
        let all = || keys.iter().map(|key| Arc::from(*key)).collect();
        match (clear, last) {
            (Some(clear), _) => self.wait_for_clear(store, clear, Read::Entries(store, all(), done())),
            (None, Some((_, key))) => {
                _ = self.keys.read_later(store, key, || Reading::Many(all(), done()));
            }
            (None, None) => {}
        }
        Later::Waits
    }

    /// The same of a note.
    pub(super) fn read_note_later(
        &mut self,
        store: u32,
        name: &str,
        done: impl FnOnce() -> NoteDone,
    ) -> bool {
        self.notes.read_later(store, name.as_bytes(), done)
    }

    /// The keys of a store of which writes wait, or are being told of.
    pub(super) fn waiting_keys(&self, store: u32) -> Vec<Arc<[u8]>> {
        self.keys.0.get(&store).map_or_else(Vec::new, |keys| keys.keys().cloned().collect())
    }

    /// Takes the writes that came first, up to `bytes_max`, one at least where there is one.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Write> {
        let mut bytes = 0;
        let fit = self.writes.iter().take_while(|write| {
            bytes += write.bytes();
            bytes <= bytes_max
        });
        let count = fit.count().max(1).min(self.writes.len());
        if count == self.writes.len() {
            return std::mem::take(&mut self.writes);
        }
        self.writes.drain(..count).collect()
    }

    /// The next `count` writes, of `places`, have been carried out: gives the reads that waited for these. `bytes` is what they took when
    /// they came.
    pub(super) fn carried_out(&mut self, count: usize, places: Vec<Place>, bytes: usize) -> Vec<Read> {
        self.bytes -= bytes;
        self.carried_out += count as u64;
        let mut reads = Vec::new();
        for place in places {
            match place {
                Place::Entry(store, key) => self.entry_carried_out(store, &key, &mut reads),
                Place::Entries(store, keys) => {
                    for key in &*keys {
                        self.entry_carried_out(store, key, &mut reads);
                    }
                }
                Place::All(store) => self.clear_carried_out(store, &mut reads),
                Place::Note(store, name) => {
                    self.notes.carried_out(store, &name, self.carried_out, |done| {
                        reads.push(Read::Note(store, Arc::clone(&name), done));
                    });
                }
            }
        }
        self.reads -= reads.iter().map(Read::keys).sum::<usize>();
        reads
    }

    fn clear_carried_out(&mut self, store: u32, reads: &mut Vec<Read>) {
        if self.clears.get(&store).is_some_and(|last| *last <= self.carried_out) {
            self.clears.remove(&store);
        }
        let Some(waiting) = self.behind_clears.get_mut(&store) else { return };
        while let Some((_, read)) = waiting.pop_front_if(|(clear, _)| *clear <= self.carried_out) {
            reads.push(read);
        }
        if waiting.is_empty() {
            self.behind_clears.remove(&store);
        }
    }

    fn wait_for_clear(&mut self, store: u32, clear: u64, read: Read) {
        self.behind_clears.entry(store).or_default().push_back((clear, read));
    }

    fn entry_carried_out(&mut self, store: u32, key: &Arc<[u8]>, reads: &mut Vec<Read>) {
        self.keys.carried_out(store, key, self.carried_out, |reading| {
            reads.push(match reading {
                Reading::One(done) => Read::Entry(store, Arc::clone(key), done),
                Reading::Many(keys, done) => Read::Entries(store, keys, done),
            });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &str) -> Write {
        Write {
            store: 1,
            key: key.as_bytes().into(),
            change: Change::Put(Entry::Given(vec![0; 10].into()), Box::new(|_| {})),
        }
    }

    fn read() -> ReadDone {
        Box::new(|_| {})
    }

    fn done(writes: &[Write]) -> Vec<Place> {
        writes.iter().filter_map(Write::place).collect()
    }

    fn sizes(writes: &[Write]) -> usize {
        writes.iter().map(Write::bytes).sum()
    }

    #[test]
    fn a_read_waits_for_the_writes_that_were_there_and_for_no_later_one() {
        let mut queue = Queue::default();
        assert!(matches!(queue.read_later(1, b"a", read), Later::No));
        queue.push(put("a"));
        assert!(matches!(queue.read_later(1, b"a", read), Later::Waits));
        assert!(matches!(queue.read_later(1, b"b", read), Later::No));
        assert!(matches!(queue.read_later(2, b"a", read), Later::No));
        let first = queue.take(1 << 20);
        queue.push(put("a"));
        assert!(matches!(queue.read_later(1, b"a", read), Later::Waits), "the second write waits still");
        assert_eq!(queue.carried_out(first.len(), done(&first), sizes(&first)).len(), 1);
        assert_eq!((queue.waiting_keys(1), queue.waiting_keys(2)), (vec![Arc::from(*b"a")], Vec::new()));
        let second = queue.take(1 << 20);
        assert_eq!(queue.carried_out(second.len(), done(&second), sizes(&second)).len(), 1);
        assert!(
            matches!(queue.read_later(1, b"a", read), Later::No) && queue.waiting_keys(1).is_empty(),
            "nothing waits any more"
        );
        assert_eq!(queue.bytes(), 0);
    }

    #[test]
    fn a_read_of_several_keys_waits_for_the_last_of_their_writes() {
        let mut queue = Queue::default();
        let read_many = || -> ReadManyDone { Box::new(|_| {}) };
        assert!(matches!(queue.read_many_later(1, &[b"a", b"b"], read_many), Later::No));
        for key in ["b", "c", "a"] {
            queue.push(put(key));
        }
        assert!(matches!(queue.read_many_later(1, &[b"a", b"b", b"d"], read_many), Later::Waits));
        assert!(matches!(queue.read_many_later(1, &[b"d"], read_many), Later::No));
        assert!(matches!(queue.read_many_later(1, &[b"b", b"d"], read_many), Later::Waits));
        let first = queue.take(put("b").bytes());
        let due = queue.carried_out(first.len(), done(&first), sizes(&first));
        assert!(matches!(&due[..], [Read::Entries(1, keys, _)] if keys.len() == 2), "of b and d");
        let rest = queue.take(1 << 20);
        let due = queue.carried_out(rest.len(), done(&rest), sizes(&rest));
        assert!(matches!(&due[..], [Read::Entries(1, keys, _)] if keys.len() == 3), "of a, b and d");
        assert!(queue.waiting_keys(1).is_empty());
    }

    #[test]
    fn reads_that_wait_are_bounded_and_make_room_as_they_are_answered() {
        let mut queue = Queue::default();
        queue.push(put("a"));
        (0..READS_MAX).for_each(|_| assert!(matches!(queue.read_later(1, b"a", read), Later::Waits)));
        let never = || -> ReadDone { panic!("it is not kept") };
        assert!(matches!(queue.read_later(1, b"a", never), Later::TooMany(_)));
        let never_many = || -> ReadManyDone { panic!("it is not kept") };
        assert!(matches!(queue.read_many_later(1, &[b"a", b"b"], never_many), Later::TooMany(_)));
        assert!(matches!(queue.read_later(1, b"b", never), Later::No), "it waits for nothing");
        let taken = queue.take(1 << 20);
        assert_eq!(queue.carried_out(taken.len(), done(&taken), sizes(&taken)).len(), READS_MAX);
        assert_eq!(queue.reads, 0);
        queue.push(put("a"));
        let read_many = || -> ReadManyDone { Box::new(|_| {}) };
        assert!(matches!(queue.read_many_later(1, &[b"a", b"b"], read_many), Later::Waits));
        assert_eq!(queue.reads, 2);
    }

    /// Each write of a key would else move all reads behind the last one.
    #[test]
    fn reads_behind_a_later_write_are_not_touched_before_it() {
        let mut queue = Queue::default();
        (0..3_000).for_each(|_| queue.push(put("a")));
        let first = queue.take(1 << 30);
        queue.push(put("a"));
        (0..3_000).for_each(|_| assert!(matches!(queue.read_later(1, b"a", read), Later::Waits)));
        let counted = allocation_counter::measure(|| {
            assert!(queue.carried_out(first.len(), done(&first), sizes(&first)).is_empty());
        });
        // The list of places, and its keys' counts.
        assert!(counted.count_total < 100, "{counted:?}");
    }

    #[test]
    fn a_read_waits_for_a_clear_of_its_store_whatever_is_carried_out_with_it() {
        let mut queue = Queue::default();
        let clear = || Write { store: 1, key: Arc::from(&[][..]), change: Change::Clear(Box::new(|_| {})) };
        let read_many = || -> ReadManyDone { Box::new(|_| {}) };
        queue.push(put("a"));
        queue.push(clear());
        queue.push(put("b"));
        assert!(
            matches!(queue.read_later(1, b"a", read), Later::Waits)
                && matches!(queue.read_later(1, b"c", read), Later::Waits)
        );
        assert!(
            matches!(queue.read_later(1, b"b", read), Later::Waits)
                && matches!(queue.read_many_later(1, &[b"a", b"c"], read_many), Later::Waits)
        );
        assert!(
            matches!(queue.read_later(2, b"a", read), Later::No)
                && matches!(queue.read_many_later(2, &[b"a"], read_many), Later::No)
        );
        let mut taken = queue.take(1 << 20);
        let mut told = Vec::new();
        while !taken.is_empty() {
            let rest = taken.split_off(1);
            let first = std::mem::replace(&mut taken, rest);
            told.push(queue.carried_out(1, done(&first), sizes(&first)).len());
        }
        assert_eq!(told, [0, 3, 1]);
        assert!(matches!(queue.read_later(1, b"a", read), Later::No), "nothing waits any more");
    }

    #[test]
    fn a_batch_is_bounded_and_never_empty() {
        let mut queue = Queue::default();
        for key in ["a", "b", "c"] {
            queue.push(put(key));
        }
        assert_eq!(queue.take(1).len(), 1);
        assert_eq!(queue.take(1 << 20).len(), 2);
        assert!(queue.is_empty());
    }
}
