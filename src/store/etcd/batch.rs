//! A transaction of the requests that have gathered.
//!
//! ```text
//! if    the mark is as this writer left it, and each key that a decision has looked at is in etcd as in the table
//! then  the mark gets the batch's number, keys their values or none, notes theirs
//! else  unless the mark has moved: it gets the number behind the batch's, so that the batch can be done no more
//! ```
//!
//! So a batch is done once or never, however often it is sent: the second time the mark is another. And the mark tells whether the batch is
//! done. Without decisions only the mark can fail it. A batch that writes nothing leaves the mark, unless its decisions were wrong. A
//! writer makes its mark before its first batch: the absence of a mark is a condition that could hold twice.
//!
//! etcd takes a key once in a transaction. Of several writes of one key the last one goes there; a decision sees the values that earlier
//! writes of the batch have made. A value of the same batch has no revision yet, and is shown with the highest revision that there is,
//! which no caller can expect. A decision to keep such a value may tell its revision to the caller, and so waits for the next batch. So
//! does the deletion of a key that the batch puts: where the key was not there before, etcd would show nothing of it, and a watcher that
//! was told of the put would not learn at another process that the key is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::ask::{Ask, Asked, Changes, Key};
use super::layout::{self, Layout, PLACES_MAX};
use super::places::{self, Spot};
use super::table::Table;
use crate::etcd::message::{
    Bytes, Compare, CompareResult, Compared, DeleteRangeRequest, Op, PutRequest, RangeRequest, TxnRequest,
};
use crate::store::revision::REVISION_MAX;
use crate::store::{Change, OwnedValue, StoreError, Value};

/// Operations of a transaction, and conditions, the mark's with them. etcd takes 128 unless it is told another bound, and counts that
/// in the `else` too.
pub(crate) const OPERATIONS_MAX: usize = 120;
/// Bytes that a transaction has about at most, unless it is of one write.
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// Bytes of a transaction beside its keys and values, and bytes of each operation or condition, with those in the mark.
const ENVELOPE_BYTES: usize = 1024;
pub(super) const OPERATION_BYTES: usize = 40;

/// What a write may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes of a request to etcd.
    pub request_bytes: usize,
    /// Bytes of a batch, about, unless it is of one write.
    pub batch_bytes: usize,
    /// Operations of a batch, unless it is of one write.
    pub operations: usize,
}

impl Bounds {
    /// Keys that a write of several may change, and look at.
    pub(super) const KEYS_MAX: u64 = OPERATIONS_MAX as u64 - 1;

    /// With requests of so many bytes.
    pub(super) const fn new(request_bytes: usize) -> Self {
        Self { request_bytes, batch_bytes: BATCH_BYTES, operations: OPERATIONS_MAX }
    }

    /// Bytes of keys and values that a write may have, where these are in a store so laid out. A key that is put counts twice: in the condition
    /// of a later write that looks at what it has, too.
    pub(super) fn bytes_max(self, layout: &Layout, keys: usize) -> usize {
        let each = layout.overhead() + OPERATION_BYTES;
        self.request_bytes.saturating_sub(ENVELOPE_BYTES + each * keys.max(1))
    }
}

/// A request in a batch.
pub(super) struct Carried {
    /// `None`: its completion was called, as the outcome was unknown for too long.
    pub asked: Option<Asked>,
    pub does: Does,
    /// Its place in the transaction, by the keys that change before it: a write counts each of its keys.
    pub place: u64,
    /// It deletes a key whose time is over.
    pub has_ended: bool,
}

/// What the request does.
pub(super) enum Does {
    /// Keys get these values, or go; none: it was decided to keep all.
    Changes(Changes),
    Clear,
    Note(Key, Vec<u8>),
    ReadNote(Key),
    /// It is done when the requests before it are.
    Nothing,
    /// It is not done.
    Fails(StoreError),
}

impl Does {
    /// Places that it takes.
    fn places(&self) -> usize {
        if let Self::Changes(changes) = self { changes.len().max(1) } else { 1 }
    }

    /// Whether etcd has to do something.
    pub(super) const fn writes(&self) -> bool {
        match self {
            Self::Changes(changes) => !changes.is_empty(),
            Self::Clear | Self::Note(..) => true,
            Self::ReadNote(_) | Self::Nothing | Self::Fails(_) => false,
        }
    }
}

/// What came of adding something.
pub(super) enum Added {
    Taken,
    /// It comes in a later batch.
    Full(Asked),
}

/// A batch that grows.
pub(super) struct Batch<'a> {
    table: &'a Table,
    /// Keys that etcd has, and the table has not.
    unreadable: &'a BTreeSet<Key>,
    layout: &'a Layout,
    bounds: Bounds,
    pub writes: Vec<Carried>,
    /// What the batch has made so far, and where.
    made: BTreeMap<Key, (Option<OwnedValue>, Spot)>,
    notes: BTreeMap<Key, Vec<u8>>,
    /// What was looked at in the table, with the revision of etcd that it had.
    looked: BTreeMap<Key, i64>,
    clears: bool,
    bytes: usize,
    /// The place of the next write.
    places: usize,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        (table, unreadable): (&'a Table, &'a BTreeSet<Key>),
        layout: &'a Layout,
        bounds: Bounds,
    ) -> Self {
        let (writes, made, notes, looked) = Default::default();
        Self {
            table,
            unreadable,
            layout,
            bounds,
            writes,
            made,
            notes,
            looked,
            clears: false,
            bytes: 0,
            places: 0,
        }
    }

    /// Adds what comes next.
    pub(super) fn add(&mut self, mut asked: Asked) -> Added {
        if self.clears || self.places >= PLACES_MAX {
            return Added::Full(asked);
        }
        let does = match &mut asked.ask {
            Ask::Update(_) if self.cannot_look(&asked.keys) => Does::Fails(StoreError::Io("damaged")),
            Ask::UpdateMany(update) if update.looks() && self.cannot_look(&asked.keys) => {
                Does::Fails(StoreError::Io("damaged"))
            }
            Ask::Put(value, _) => Does::Changes(self.changes(&asked.keys, vec![(0, Some(value.clone()))])),
            Ask::Delete(_) => Does::Changes(self.changes(&asked.keys, vec![(0, None)])),
            Ask::Update(update) => {
                let (present, is_made) = self.look(&asked.keys);
                let present = present.first().and_then(|one| one.as_ref().map(OwnedValue::value));
                let Some(change) = catch(|| owned(update.decide(present))) else {
                    return self.push(asked, Does::Fails(PANICKED));
                };
                let decided: Vec<_> = change.map(|value| (0, value)).into_iter().collect();
                if decided.is_empty() && update.is_expiry() {
                    // The caller asks again anyway: etcd is not asked whether that is right.
                    return self.push(asked, Does::Changes(Changes::new()));
                }
                match self.decided(&asked.keys, decided, is_made) {
                    Some(does) => does,
                    None => return Added::Full(asked),
                }
            }
            Ask::UpdateMany(update) => {
                let looks = update.looks();
                if looks && asked.keys.len() as u64 > Bounds::KEYS_MAX {
                    Does::Fails(StoreError::TooMany(Bounds::KEYS_MAX))
                } else {
                    let (present, is_made) =
                        if looks { self.look(&asked.keys) } else { (vec![None; asked.keys.len()], false) };
                    let present: Vec<Option<Value<'_>>> =
                        present.iter().map(|one| one.as_ref().map(OwnedValue::value)).collect();
                    let mut decided = Vec::new();
                    let mut change = |at, change: Change<'_>| {
                        decided.extend(owned(change).map(|value| (at, value)));
                    };
                    if catch(|| update.decide(&present, &mut change)).is_none() {
                        return self.push(asked, Does::Fails(PANICKED));
                    }
                    match self.decided(&asked.keys, decided, is_made) {
                        Some(does) => does,
                        None => return Added::Full(asked),
                    }
                }
            }
            Ask::Clear(_) => {
                if !self.writes.is_empty() {
                    return Added::Full(asked);
                }
                Does::Clear
            }
            Ask::Note(note, _) => match asked.keys.first() {
                Some(name) => Does::Note(Arc::clone(name), note.clone()),
                None => Does::Nothing,
            },
            Ask::ReadNote(_) => {
                asked.keys.first().map_or(Does::Nothing, |name| Does::ReadNote(Arc::clone(name)))
            }
            Ask::Barrier(_) | Ask::CatchUp(_) | Ask::Told => Does::Nothing,
        };
        self.take(asked, does)
    }

    fn changes(&self, keys: &[Key], decided: Vec<(usize, Option<OwnedValue>)>) -> Changes {
        let key = |at: usize| keys.get(at).map(Arc::clone);
        decided.into_iter().filter_map(|(at, value)| Some((key(at)?, value))).collect()
    }

    /// Whether a key has something that cannot be read; a write that looks at nothing mends that.
    fn cannot_look(&self, keys: &[Key]) -> bool {
        !self.unreadable.is_empty()
            && keys.iter().any(|key| self.unreadable.contains(key) && !self.made.contains_key(key))
    }

    /// What keys have, with what the batch has made of them; and whether it has made any of these.
    fn look(&self, keys: &[Key]) -> (Vec<Option<OwnedValue>>, bool) {
        let mut is_made = false;
        let present = keys.iter().map(|key| match self.made.get(key) {
            Some((value, _)) => {
                is_made = true;
                value.clone().map(|value| OwnedValue { revision: REVISION_MAX, ..value })
            }
            None => self.table.get(key),
        });
        (present.collect(), is_made)
    }

    /// `None`: it is to be decided anew when the revisions of what it has seen are known.
    fn decided(
        &mut self,
        keys: &[Key],
        decided: Vec<(usize, Option<OwnedValue>)>,
        is_made: bool,
    ) -> Option<Does> {
        if decided.is_empty() && is_made {
            return None;
        }
        Some(Does::Changes(self.changes(keys, decided)))
    }

    fn take(&mut self, asked: Asked, does: Does) -> Added {
        let looks = matches!(&asked.ask, Ask::Update(_))
            || matches!(&asked.ask, Ask::UpdateMany(update) if update.looks());
        let (mut bytes, mut keys, mut more) = (0, 0, 0);
        // Keys that no condition names, and that one must be able to name later.
        let (mut unnamed_bytes, mut unnamed) = (0, 0);
        match &does {
            Does::Changes(changes) => {
                keys = changes.len();
                for (key, value) in changes {
                    if value.is_none() && matches!(self.made.get(key), Some((Some(_), _))) {
                        return Added::Full(asked);
                    }
                    bytes += key.len() + value.as_ref().map_or(0, |value| value.bytes.len());
                    if value.is_some() && !looks {
                        (unnamed_bytes, unnamed) = (unnamed_bytes + key.len(), unnamed + 1);
                    }
                    more += usize::from(!self.made.contains_key(key));
                }
            }
            Does::Clear => more = 1,
            Does::Note(name, note) => {
                (bytes, keys) = (name.len() + note.len(), 1);
                more = usize::from(!self.notes.contains_key(name));
            }
            Does::ReadNote(_) | Does::Nothing | Does::Fails(_) => {}
        }
        let mut looked = Vec::new();
        if looks && !matches!(does, Does::Fails(_)) {
            let new = asked
                .keys
                .iter()
                .filter(|key| !self.made.contains_key(*key) && !self.looked.contains_key(*key));
            looked.extend(new.map(|key| (Arc::clone(key), self.table.mod_revision(key))));
            bytes += looked.iter().map(|(key, _)| key.len()).sum::<usize>();
            keys += looked.len();
        }
        let bytes_max = self.bounds.bytes_max(self.layout, keys + unnamed);
        if keys as u64 > Bounds::KEYS_MAX * 2 || more as u64 > Bounds::KEYS_MAX {
            return self.push(asked, Does::Fails(StoreError::TooMany(Bounds::KEYS_MAX)));
        }
        if bytes + unnamed_bytes > bytes_max {
            return self.push(asked, Does::Fails(StoreError::TooLarge(bytes_max as u64)));
        }
        let operations = 1 + self.made.len() + self.notes.len() + more;
        let conditions = 1 + self.looked.len() + looked.len();
        let weight = bytes + keys * (self.layout.overhead() + OPERATION_BYTES);
        let is_full = operations.max(conditions) > self.bounds.operations
            || self.bytes + weight > self.bounds.batch_bytes
            || self.places + does.places() > PLACES_MAX;
        if is_full && !self.writes.is_empty() {
            return Added::Full(asked);
        }
        self.bytes += weight;
        self.looked.extend(looked);
        self.push(asked, does)
    }

    fn push(&mut self, asked: Asked, does: Does) -> Added {
        let place = self.places as u64;
        self.places += does.places();
        let is_expiry = matches!(&asked.ask, Ask::Update(update) if update.is_expiry());
        let has_ended = is_expiry && does.writes();
        match &does {
            Does::Changes(changes) => {
                let made = (0..).zip(changes).map(|(before, (key, value))| {
                    (Arc::clone(key), (value.clone(), Spot { write: place, before, has_ended }))
                });
                self.made.extend(made);
            }
            Does::Note(name, note) => _ = self.notes.insert(Arc::clone(name), note.clone()),
            Does::Clear => self.clears = true,
            Does::ReadNote(_) | Does::Nothing | Does::Fails(_) => {}
        }
        self.writes.push(Carried { asked: Some(asked), does, place, has_ended });
        Added::Taken
    }

    /// Whether etcd has to be asked.
    pub(super) fn is_of_etcd(&self) -> bool {
        !self.looked.is_empty() || self.writes.iter().any(|carried| carried.does.writes())
    }

    /// The batch, and its transaction: with this number, where the mark was left at a revision.
    pub(super) fn close(self, number: u64, mark: i64) -> (Vec<Carried>, TxnRequest) {
        let made = self.made.iter().map(|(key, (value, spot))| (key, value.is_some(), *spot));
        let mut request = moved(self.layout, (number, &places::write(self.clears, made)), mark);
        let puts = self.made.iter().map(|(key, (value, spot))| match value {
            Some(value) => put(self.layout.entry(key), layout::write_value(&value.value(), spot.write)),
            None => delete((self.layout.entry(key), Bytes::new())),
        });
        let notes = self.notes.iter().map(|(name, note)| put(self.layout.note(name), note.clone().into()));
        let clear = self.clears.then(|| delete(self.layout.entries()));
        request.success.extend(puts.chain(notes).chain(clear).map(Into::into));
        if !self.looked.is_empty() {
            let fence = Op::Txn(void(self.layout, number + 1, mark));
            request.failure = vec![fence.into()];
        }
        let looked = self.looked.iter();
        request.compare.extend(looked.map(|(key, revision)| is_at(self.layout.entry(key), *revision)));
        (self.writes, request)
    }
}

/// A transaction that does nothing but to move the mark from where it was left. A mark is made only where no restore goes on: that deletes the marks of
/// all writers first, so that none writes into what is restored.
pub(super) fn void(layout: &Layout, number: u64, mark: i64) -> TxnRequest {
    let mut request = moved(layout, (number, &[]), mark);
    if mark == 0 {
        request.compare.push(is_at(layout.claim(), 0));
    }
    request
}

/// A transaction that moves the mark from where it was left to a number, with this behind it.
fn moved(layout: &Layout, (number, behind): (u64, &[u8]), mark: i64) -> TxnRequest {
    let read = Op::Range(RangeRequest { key: layout.mark(), ..RangeRequest::default() });
    TxnRequest {
        compare: vec![is_at(layout.mark(), mark)],
        success: vec![put(layout.mark(), layout::write_mark(number, behind)).into()],
        failure: vec![read.into()],
    }
}

/// The same conditions on keys, of a batch that writes nothing: the mark stays. It reads the mark, as etcd has a transaction without
/// operations answered by a member that may be behind.
pub(super) fn verify(batch: TxnRequest) -> TxnRequest {
    let compare: Vec<Compare> = batch.compare.into_iter().skip(1).collect();
    let mark = batch.success.into_iter().find_map(|op| match op.request {
        Some(Op::Put(mark)) => Some(mark.key),
        _ => None,
    });
    let read = Op::Range(RangeRequest { key: mark.unwrap_or_default(), ..RangeRequest::default() });
    TxnRequest { compare, success: vec![read.clone().into()], failure: vec![read.into()] }
}

/// The key was last written in this revision; 0: it is not there.
pub(super) fn is_at(key: Bytes, mod_revision: i64) -> Compare {
    Compare::new(key, CompareResult::Equal, Compared::ModRevision(mod_revision))
}

fn put(key: Bytes, value: Bytes) -> Op {
    Op::Put(PutRequest { key, value, ..PutRequest::default() })
}

/// Deletes a range, or a key where its end is empty.
pub(super) fn delete((key, range_end): (Bytes, Bytes)) -> Op {
    Op::DeleteRange(DeleteRangeRequest { key, range_end, ..DeleteRangeRequest::default() })
}

/// The answer to a request whose decision has panicked.
const PANICKED: StoreError = StoreError::Io("eio");

/// Has a request decide, whose panic is not ours; `None`: it has panicked.
fn catch<R>(decide: impl FnOnce() -> R) -> Option<R> {
    let decided = catch_unwind(AssertUnwindSafe(decide));
    if decided.is_err() {
        tracing::error!("an update panicked (a bug: please report it)");
    }
    decided.ok()
}

/// What becomes of a key, to be kept; `None`: it stays.
fn owned(change: Change<'_>) -> Option<Option<OwnedValue>> {
    match change {
        Change::Keep => None,
        Change::Put(value) => Some(Some(value.to_owned())),
        Change::Delete => Some(None),
    }
}
