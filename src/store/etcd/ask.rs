//! Requests to a store, and how their completions are called.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::store::{
    Change, Done, NoteDone, OwnedValue, Pending, PendingMany, StoreError, WriteDone, Written,
};

/// A key, or the name of a note.
pub(super) type Key = Arc<[u8]>;

/// What becomes of keys; `None`: the key goes.
pub(super) type Changes = Vec<(Key, Option<OwnedValue>)>;

/// Bytes that a request takes beside its keys and values: the completion, and the entries of tables.
const OVERHEAD_BYTES: usize = 256;

/// One request.
pub(super) struct Asked {
    /// One more than the number of the request before.
    pub number: u64,
    /// When, since the store was opened.
    pub at: Duration,
    /// The keys that it is about, or the name of the note.
    pub keys: Vec<Key>,
    /// The request, with its completion.
    pub ask: Ask,
}

/// See [`Asked`].
pub(super) enum Ask {
    /// The key gets this value.
    Put(OwnedValue, WriteDone),
    /// The key goes.
    Delete(WriteDone),
    /// What is there decides.
    Update(Box<dyn Pending>),
    /// The same of several keys.
    UpdateMany(Box<dyn PendingMany>),
    /// All keys go.
    Clear(WriteDone),
    /// A note is kept.
    Note(Vec<u8>, Done),
    /// A note is read.
    ReadNote(NoteDone),
    /// All before it is done.
    Barrier(Done),
    /// The table has all that any process has written by now.
    CatchUp(Done),
    /// Its completion was called.
    Told,
}

/// A write that is in the table.
#[derive(Debug)]
pub(super) struct Wrote {
    /// Its number among the writes of this process.
    pub seq: u64,
    /// What it has changed; nothing: all keys are gone.
    pub changes: Changes,
    /// See [`Written::numbers`].
    pub numbers: Vec<u64>,
    /// It deletes a key whose time is over.
    pub has_ended: bool,
}

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It has changed something.
    Wrote(Wrote),
    /// It was decided to change nothing.
    Kept,
    /// It is kept, or all before it is done.
    Done,
    /// The note.
    Note(Option<Vec<u8>>),
}

/// What a request waits for, and which later requests wait for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It writes keys, whatever is there.
    Plain,
    /// It looks at the present values.
    Decides,
    /// It writes every key.
    Clear,
    /// It stands behind all before it, and before all behind it.
    InOrder,
}

impl Asked {
    pub(super) fn kind(&self) -> Kind {
        match &self.ask {
            Ask::Put(..) | Ask::Delete(_) => Kind::Plain,
            Ask::Update(_) => Kind::Decides,
            Ask::UpdateMany(update) => {
                if update.looks() {
                    Kind::Decides
                } else {
                    Kind::Plain
                }
            }
            Ask::Clear(_) => Kind::Clear,
            Ask::Note(..) | Ask::ReadNote(_) | Ask::Barrier(_) | Ask::CatchUp(_) | Ask::Told => Kind::InOrder,
        }
    }

    /// Bytes of memory that the request takes, and about as many of a transaction.
    pub(super) fn bytes(&self) -> usize {
        let keys: usize = self.keys.iter().map(|key| key.len() + OVERHEAD_BYTES).sum();
        OVERHEAD_BYTES
            + keys
            + match &self.ask {
                Ask::Put(value, _) => value.bytes.len(),
                Ask::Update(update) => update.bytes(),
                Ask::UpdateMany(update) => update.bytes(),
                Ask::Note(note, _) => note.len(),
                Ask::Delete(_)
                | Ask::Clear(_)
                | Ask::ReadNote(_)
                | Ask::Barrier(_)
                | Ask::CatchUp(_)
                | Ask::Told => 0,
            }
    }

    /// Calls the completion, whose panic is not ours.
    pub(super) fn tell(mut self, result: Result<Outcome, StoreError>) {
        self.tell_once(result);
    }

    fn tell_once(&mut self, result: Result<Outcome, StoreError>) {
        let ask = std::mem::replace(&mut self.ask, Ask::Told);
        call(|| ask.tell(result));
    }
}

/// A request that is let go of without an answer is answered all the same: the store's thread has ended by a panic.
impl Drop for Asked {
    fn drop(&mut self) {
        if !matches!(self.ask, Ask::Told) {
            self.tell_once(Err(StoreError::Io("terminated")));
        }
    }
}

/// Calls a completion, whose panic is not ours.
pub(super) fn call(done: impl FnOnce()) {
    if catch_unwind(AssertUnwindSafe(done)).is_err() {
        tracing::error!("a completion panicked (a bug: please report it)");
    }
}

impl Ask {
    fn tell(self, result: Result<Outcome, StoreError>) {
        match self {
            Ask::Put(_, done) | Ask::Delete(done) | Ask::Clear(done) => with_written(result, |written| {
                done(written.and_then(|written| written.ok_or(StoreError::Io("eio"))));
            }),
            Ask::Update(update) => with_written(result, |written| update.done(written)),
            Ask::UpdateMany(update) => with_written(result, |written| update.done(written)),
            Ask::Note(_, done) | Ask::Barrier(done) | Ask::CatchUp(done) => done(result.map(|_| ())),
            Ask::ReadNote(done) => done(result.map(|outcome| match outcome {
                Outcome::Note(note) => note,
                _ => None,
            })),
            Ask::Told => {}
        }
    }
}

/// Shows the outcome of a write in the form of its completion.
pub(super) fn with_written(
    result: Result<Outcome, StoreError>,
    tell: impl FnOnce(Result<Option<Written<'_>>, StoreError>),
) {
    match result {
        Err(error) => tell(Err(error)),
        Ok(Outcome::Wrote(wrote)) => tell_of(&wrote, |written| tell(Ok(Some(written)))),
        Ok(Outcome::Kept | Outcome::Done | Outcome::Note(_)) => tell(Ok(None)),
    }
}

/// The same of a write that is done.
pub(super) fn tell_of(wrote: &Wrote, tell: impl FnOnce(Written<'_>)) {
    let changes: Vec<(&[u8], Change<'_>)> =
        wrote.changes.iter().map(|(key, value)| (&**key, change_of(value.as_ref()))).collect();
    tell(Written { seq: wrote.seq, changes: &changes, numbers: &wrote.numbers });
}

/// What becomes of a key.
pub(super) fn change_of(value: Option<&OwnedValue>) -> Change<'_> {
    value.map_or(Change::Delete, |value| Change::Put(value.value()))
}
