//! A cursor over the entries of a store.

use std::sync::Arc;

use parking_lot::Mutex;

use super::{Owed, StoreError, Value};
use crate::etf::Traits;

/// What a scan shows of each entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shows {
    /// Its key: values that lie elsewhere are not read.
    Keys,
    /// Its key, and the number of the copy that it was written in ([`Value::copy`]), for which a value may have to be read.
    Copies,
    /// Its key and its value.
    Pairs,
}

/// Called once with a batch.
pub type ScanDone = Box<dyn FnOnce(Result<Batch, StoreError>) + Send>;

/// A cursor over the entries of a store. It holds neither a lock nor a thread between two batches.
///
/// A key that is there from the beginning to the end is shown once, in any order; of what is written meanwhile some may be
/// shown. A key of which a write was under way when the scan began is shown too, perhaps once more, and without a value:
/// a reader of keys is not to miss it.
pub trait Scan: Send {
    /// The next entries, at once or later, from any thread. Not called again before it has answered, nor behind the
    /// [last](Batch::is_last). A completion that is dropped ends the walk with an error; one that the scan keeps in itself for
    /// good, which is then never dropped, leaves the walk standing.
    fn next_batch(&mut self, done: ScanDone);
}

/// Some entries of a store, in one block of bytes.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Nothing follows.
    pub is_last: bool,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    key_end: usize,
    /// Where it ends, with its traits, its revision and its deadline.
    value: Option<(usize, Traits, u64, u64)>,
    /// `None`: it is not shown.
    copy: Option<u32>,
}

impl Batch {
    /// Adds an entry; `None`: its value is not shown.
    pub fn push(&mut self, key: &[u8], value: Option<Value<'_>>) {
        self.bytes.extend_from_slice(key);
        let key_end = self.bytes.len();
        let copy = value.map(|value| value.copy);
        let value = value.map(|value| {
            self.bytes.extend_from_slice(value.bytes);
            (self.bytes.len(), value.traits, value.revision, value.deadline)
        });
        self.entries.push(Entry { key_end, value, copy });
    }

    /// Adds an entry of which the number of its copy is shown, and its value is not.
    pub fn push_copy(&mut self, key: &[u8], copy: u32) {
        self.bytes.extend_from_slice(key);
        self.entries.push(Entry { key_end: self.bytes.len(), value: None, copy: Some(copy) });
    }

    /// The entries.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<Value<'_>>)> {
        self.shown().map(|(key, value, _)| (key, value))
    }

    /// Each key with the number of the copy that it was written in; `None`: that is not shown.
    pub fn copies(&self) -> impl Iterator<Item = (&[u8], Option<u32>)> {
        self.shown().map(|(key, _, copy)| (key, copy))
    }

    fn shown(&self) -> impl Iterator<Item = (&[u8], Option<Value<'_>>, Option<u32>)> {
        let mut from = 0;
        self.entries.iter().map(move |entry| {
            let key = self.bytes.get(from..entry.key_end).unwrap_or_default();
            from = entry.key_end;
            let value = entry.value.map(|(end, traits, revision, deadline)| {
                let bytes = self.bytes.get(from..end).unwrap_or_default();
                from = end;
                Value { copy: entry.copy.unwrap_or(0), revision, deadline, ..Value::of(bytes, traits) }
            });
            (key, value, entry.copy)
        })
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none; others may follow.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes of its keys and values.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }
}

/// The next batch, where it comes at once; else it is lost.
pub fn at_once(scan: &mut dyn Scan) -> Option<Result<Batch, StoreError>> {
    let came = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&came);
    scan.next_batch(Box::new(move |batch| *slot.lock() = Some(batch)));
    came.lock().take()
}

/// A batch, with the scan and what was to be given back with it.
pub type Next<T> = (Box<dyn Scan>, T, Result<Batch, StoreError>);

/// Asks a scan for its next batch, and gives it with the scan and `with` where it comes at once. Else `later` gets the three, on
/// the thread of the store; a completion that the scan drops is an error.
pub fn next<T: Send + 'static>(
    scan: Box<dyn Scan>,
    with: T,
    later: impl FnOnce(Box<dyn Scan>, T, Result<Batch, StoreError>) + Send + 'static,
) -> Option<Next<T>> {
    let turn = Arc::new(Mutex::new(Turn::Asked));
    let tell = Arc::clone(&turn);
    let came = Owed::new(move |batch| {
        let mut now = tell.lock();
        match std::mem::replace(&mut *now, Turn::Over) {
            Turn::Parked(scan, with) => {
                drop(now);
                later(scan, with, batch);
            }
            _ => *now = Turn::Came(batch),
        }
    });
    let mut scan = scan;
    scan.next_batch(Box::new(move |batch| came.tell(batch)));
    let mut now = turn.lock();
    match std::mem::replace(&mut *now, Turn::Over) {
        Turn::Came(batch) => Some((scan, with, batch)),
        _ => {
            *now = Turn::Parked(scan, with);
            None
        }
    }
}

/// Which comes first: the batch, or the end of the patience of the caller that has asked for it.
enum Turn<T> {
    Asked,
    Came(Result<Batch, StoreError>),
    Parked(Box<dyn Scan>, T),
    Over,
}

/// Takes a scan to its end, batch by batch, and calls `done` then, with the error that ended it before where there is one; a
/// completion that the scan drops is one. On this thread as far as batches come at once, then on those of the store. `show` says whether to go on.
pub fn each_batch(
    scan: Box<dyn Scan>,
    show: impl FnMut(Batch) -> bool + Send + 'static,
    done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
) {
    Walk { show: Box::new(show), done: Box::new(done) }.go_on(scan);
}

struct Walk {
    show: Box<dyn FnMut(Batch) -> bool + Send>,
    done: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
}

impl Walk {
    fn go_on(self, scan: Box<dyn Scan>) {
        let (mut scan, mut walk) = (scan, self);
        let later = |scan, walk: Self, batch| {
            if let Some(walk) = walk.take(batch) {
                walk.go_on(scan);
            }
        };
        while let Some((next, with, batch)) = next(scan, walk, later) {
            let Some(with) = with.take(batch) else { return };
            (scan, walk) = (next, with);
        }
    }

    /// Gives the walk where it goes on.
    fn take(mut self, batch: Result<Batch, StoreError>) -> Option<Self> {
        match batch {
            Ok(batch) => {
                let is_last = batch.is_last;
                if (self.show)(batch) && !is_last {
                    return Some(self);
                }
                (self.done)(Ok(()));
            }
            Err(error) => (self.done)(Err(error)),
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives so many batches, and drops the completion of the next: at once, or when it is told to.
    struct Forgetful {
        batches: usize,
        kept: Option<Arc<Mutex<Vec<ScanDone>>>>,
    }

    impl Scan for Forgetful {
        fn next_batch(&mut self, done: ScanDone) {
            if self.batches > 0 {
                self.batches -= 1;
                return done(Ok(Batch::default()));
            }
            if let Some(kept) = &self.kept {
                kept.lock().push(done);
            }
        }
    }

    #[test]
    fn a_walk_ends_with_an_error_where_its_scan_drops_a_completion() {
        for batches in [0, 3] {
            for kept in [None, Some(Arc::default())] {
                let ended = Arc::new(Mutex::new(Vec::new()));
                let (seen, end) = (Arc::new(Mutex::new(0)), Arc::clone(&ended));
                let counted = Arc::clone(&seen);
                let show = move |_| {
                    *counted.lock() += 1;
                    true
                };
                let scan = Forgetful { batches, kept: kept.clone() };
                each_batch(Box::new(scan), show, move |result| end.lock().push(result));
                if let Some(kept) = kept {
                    assert!(ended.lock().is_empty(), "it may come still");
                    kept.lock().clear();
                }
                assert_eq!(*ended.lock(), [Err(StoreError::Io("terminated"))]);
                assert_eq!(*seen.lock(), batches);
            }
        }
    }
}
