//! Encoded key to encoded value, in four nouns: an [`Engine`] opens stores, a [`Store`] reads and changes keys, a [`Scan`]
//! shows all of them in batches, and [`Notes`] are what a store keeps of itself.
//!
//! A store answers now or later. Memory answers at once, on the task of the connection that asked; a store that
//! has to wait (for a disk, for another machine) is given a completion, calls it from wherever it likes, and the
//! connection goes on meanwhile. A get from memory pays nothing for that.
//!
//! # What every engine has to hold
//!
//! 1. A write that takes effect has a number ([`Written::seq`]), one more than the write before it: there is no gap. Writes
//!    of one key take effect in the order of their numbers. What changes nothing has none: a write that failed, an update that
//!    decides to keep what is there. (A deletion of a key that is not there has one: a slave may have the key.)
//! 2. Completions come from any thread and in any order, also of numbers. The user of the store restores that order: the key-value
//!    server holds a write back from its slaves until all with lower numbers are done.
//! 3. Each completion is called once. An engine that does not know yet whether a write took effect does not answer yet.
//!    (Where a read's is dropped, what waits for it ends with an error: [`Owed`].)
//! 4. What one thread asks of one key is carried out in the order in which it was asked: a get finds the put before it.
//! 5. A get shows nothing of which the completion is not called yet: neither may it be lost afterwards, nor is there anything
//!    to be seen that the server does not know of.
//! 6. A [`barrier`](Store::barrier), and a note, come behind everything that was asked before by this thread; and what is asked
//!    behind a note is carried out behind that: a store that ends in between does not have the one without the other. A note is
//!    read as it was written last by then.
//! 7. What [`get_many`](Store::get_many) and [`update_many`](Store::update_many) ask of several keys is asked of each of them: 4
//!    and 5 hold for it. Of two of these that have keys in common neither sees a half of the other.
//! 8. What is put has a revision: its own where the value brings one ([`Value::revision`]), else one that is higher than every
//!    revision before it in this store, also over deletions and restarts (the module [`revision`] says where that could
//!    fail). A write of several keys counts each of them, and all that it puts has the first of these revisions. A store that gives a
//!    write's number at once, and not by a completion, has what it has counted to with that write as its [last](Store::revision) until
//!    it is asked for another write.
//! 9. [`clear`](Store::clear) is a write of all keys: 4 and 5 hold for each of them, and so does 8. It is there as a whole after a
//!    restart, or not at all.
//! 10. A value is kept with its [deadline](Value::deadline). Its reader looks at that: the store shows which keys are past
//!     theirs ([`Store::due`]), and deletes nothing by itself.

mod cleared;
#[cfg(feature = "disk")]
#[doc(hidden)]
pub mod disk;
pub mod engine;
#[cfg(feature = "etcd")]
#[doc(hidden)]
pub mod etcd;
mod head;
mod keeper;
#[doc(hidden)]
pub mod memory;
mod open_error;
mod ordered;
mod owed;
mod page;
#[doc(hidden)]
pub mod revision;
#[doc(hidden)]
pub mod room;
#[doc(hidden)]
pub mod scan;
mod update;
mod value;

use std::fmt;
use std::sync::mpsc;
use std::time::Duration;

pub use cleared::Cleared;
#[cfg(feature = "disk")]
pub use disk::{Disk, DiskStore};
pub use engine::Engine;
#[cfg(all(feature = "disk", feature = "etcd"))]
#[doc(hidden)]
pub use etcd::{EtcdBackupError, EtcdRestore, TooLarge};
#[cfg(feature = "etcd")]
pub use etcd::{EtcdEngine, EtcdStore};
#[doc(hidden)]
pub use keeper::{EtcdFigures, EtcdLag, EtcdMember, EtcdSeen, EtcdState, Keeper};
pub use memory::{MemoryEngine, MemoryStore};
pub use open_error::OpenError;
#[doc(hidden)]
pub use owed::Owed;
pub use page::{Order, Page, Visit};
pub use revision::REVISION_RAISED_MAX;
pub use room::Room;
pub use scan::{Batch, Scan, ScanDone, Shows};
pub use value::{OwnedValue, Value};

/// Bytes of values that a store reads for one question about several keys, at most: a store whose values are not in memory answers
/// beyond it by [`StoreError::TooLarge`].
pub const FOUND_BYTES_MAX: usize = 64 << 20;

/// When a write is synced, and so what a power cut can take. A killed process loses nothing that was answered by any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Before it is answered. Nothing that was answered is lost.
    #[default]
    Always,
    /// So often: what was answered in the last such time can be lost.
    Interval(Duration),
    /// When the system does it by itself.
    Never,
}

/// Why a store did not do it. The store's fault, or its machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No room for it. It can be tried again when there is.
    NoSpace,
    /// The disk or its file system refused: in a word of OTP's `file:posix()` where there is one (`eio`, `erofs`, …),
    /// `damaged` where what was read is not what was written, `terminated` where the store is closed, `system_limit` where as many reads
    /// as may wait for writes.
    Io(&'static str),
    /// The machine that keeps the store does not answer, and was asked for nothing. The request can be tried again.
    Unavailable,
    /// The machine that keeps the store was asked, and has not answered in time: the write may be done, or be done yet. Where it is
    /// done, it is told of as a write of another process ([`Store::tell_of_others`]).
    Unknown,
    /// The write has more bytes than the store takes at once, or the question is about values that have more than it reads at once
    /// ([`FOUND_BYTES_MAX`]): this many are the most.
    TooLarge(u64),
    /// The write is about more keys than the store takes at once: this many are the most.
    TooMany(u64),
}

impl StoreError {
    /// The atom that callers get in `{:error, code}`, or in `{:error, {code, detail}}` where there is a
    /// [`detail`](Self::detail).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSpace => "no_space",
            Self::Io(_) => "io",
            Self::Unavailable => "unavailable",
            Self::Unknown => "unknown",
            Self::TooLarge(_) => "too_large",
            Self::TooMany(_) => "too_many",
        }
    }

    /// What the system said, in a word.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::Io(reason) => Some(reason),
            _ => None,
        }
    }

    /// The bound that it is over: callers get `{:error, {code, bound}}`.
    pub const fn bound(&self) -> Option<u64> {
        match self {
            Self::TooLarge(bound) | Self::TooMany(bound) => Some(*bound),
            _ => None,
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space is left in the store"),
            Self::Io(reason) => write!(f, "the disk refuses: {reason}"),
            Self::Unavailable => f.write_str("the machine that keeps the store does not answer"),
            Self::Unknown => f.write_str("the machine that keeps the store has not said whether it is done"),
            Self::TooLarge(max) => write!(f, "it has more than {max} bytes"),
            Self::TooMany(max) => write!(f, "it has more than {max} keys"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Called once with what a read that was not answered at once found.
pub type ReadDone = Box<dyn FnOnce(Result<Option<Value<'_>>, StoreError>) + Send>;
/// The same of several keys, in their order.
pub type ReadManyDone = Box<dyn FnOnce(Result<&[Option<Value<'_>>], StoreError>) + Send>;
/// Called once when a write that was not answered at once is done.
pub type WriteDone = Box<dyn FnOnce(Result<Written<'_>, StoreError>) + Send>;
/// Called once when something else that was not answered at once is done.
pub type Done = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Called once with the keys that are past their deadlines.
pub type DueDone = Box<dyn FnOnce(Result<Due, StoreError>) + Send>;
/// Called with each write that has no completion here, in the order of numbers.
pub type OthersTold = Box<dyn FnMut(Others<'_>) + Send>;
/// Called once with a note.
pub type NoteDone = Box<dyn FnOnce(Result<Option<Vec<u8>>, StoreError>) + Send>;

/// Keys that are past their deadlines.
#[derive(Debug, Default)]
pub struct Due {
    /// The keys. Another write may have come between: what they have is to be looked at again.
    pub keys: Vec<Box<[u8]>>,
    /// There may be more now.
    pub is_more: bool,
}

/// What becomes of a key.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// It stays as it is.
    Keep,
    /// It gets this value.
    Put(Value<'a>),
    /// It goes, if it is there.
    Delete,
}

/// A write that has taken effect.
#[derive(Clone, Copy, Debug)]
pub struct Written<'a> {
    /// Its place among the writes of its store.
    pub seq: u64,
    /// Each key that it has changed, with what became of it: one, but for a write of several keys, which is seen as a whole or
    /// not at all and has one number. A value has its revision. Empty: all keys went ([`Store::clear`]).
    pub changes: &'a [(&'a [u8], Change<'a>)],
    /// Of a [shared](Store::IS_SHARED) store the number of each change among all that any process has made, in the order of `changes`, and one of
    /// a write of all keys. They go up from write to write. Of other stores none.
    pub numbers: &'a [u64],
}

/// A write that has no completion here, as [`Store::tell_of_others`] tells of it.
#[derive(Clone, Copy, Debug)]
pub enum Others<'a> {
    /// The write.
    Wrote {
        /// What it has changed.
        written: Written<'a>,
        /// It deletes a key whose time is over ([`Update::is_expiry`]).
        has_ended: bool,
    },
    /// Not each change up to this [number](Written::numbers) is told of: what comes of it is told, by writes that have no higher number.
    Missed {
        /// The number.
        number: u64,
    },
}

/// Decides by what is there what becomes of a key.
pub trait Update {
    /// Shown the present value, says what comes in its place. It is asked again where another write came between: the last
    /// answer counts. Must not use the store.
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_>;

    /// It deletes the key if its time is over, and is asked again where it has not been carried out: a store may leave it out, and say that it
    /// was decided to keep what is there.
    fn is_expiry(&self) -> bool {
        false
    }
}

/// An update that is carried out later.
pub trait Pending: Update + Send {
    /// Bytes that it holds until then, about: always the same. What bounds the writes that wait counts them.
    fn bytes(&self) -> usize {
        0
    }

    /// It is carried out; `None`: it was decided to keep what is there.
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>);
}

/// Decides by what is there what becomes of several keys. They change together or not at all.
pub trait UpdateMany {
    /// Whether it has to be shown what is there. An update that looks at nothing is shown no value, and a store that has to
    /// read for it does not.
    fn looks(&self) -> bool {
        true
    }

    /// Whether it has to be shown the bytes of the value of the key at this place. Where it has not, a store that has to read for it
    /// may show the value without its bytes.
    fn needs_bytes(&self, _at: usize) -> bool {
        true
    }

    /// Shown the present values, in the order of the keys, hands what becomes of a key to `change`, with the key's place, at
    /// most once for each; the others stay as they are. Otherwise as [`Update::decide`].
    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>));
}

/// An update of several keys that is carried out later.
pub trait PendingMany: UpdateMany + Send {
    /// As [`Pending::bytes`], beside the keys.
    fn bytes(&self) -> usize;

    /// As [`Pending::done`]: all of it is carried out, under one number, or nothing.
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>);
}

/// A map of canonical key bytes to values that many connections read and write at once.
///
/// Four methods are its use: [`get`](Self::get), [`update`](Self::update), [`barrier`](Self::barrier) and
/// [`scan`](Self::scan). [`put`](Self::put) and [`delete`](Self::delete) are updates that look at nothing, which an engine may
/// do in a shorter way. [`get_many`](Self::get_many) and [`update_many`](Self::update_many) are the first two for several keys at
/// once; an engine without them answers `enotsup`.
pub trait Store: Send + Sync + 'static {
    /// Everything is answered at once, and nothing waits for another thread. The server then takes its order of writes around
    /// the write itself.
    const AT_ONCE: bool = false;

    /// Other processes have the same store, each change has the same number in all of them ([`Written::numbers`]), and what keeps it outlives
    /// any of them: it follows no primary, is not promoted, and its writes wait for no slave. This is so of stores in etcd, which is the word that
    /// callers are answered with.
    const IS_SHARED: bool = false;

    /// Reads. `now` is called before this returns where the answer is known; else the store makes a completion
    /// by `later`, and calls that.
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R>;

    /// Changes a key by what is there. Gives the number of the write, where that has changed something; `None`: it is carried
    /// out later, as what the store made of it with `later`.
    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>>;

    /// Writes, and gives the write's number. `None`: the answer comes by the completion that the store made with `later`.
    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<u64, StoreError>> {
        update::anyway(self, key, Change::Put(value), later)
    }

    /// Deletes; a key that is not there is no error. As for [`put`](Self::put).
    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<u64, StoreError>> {
        update::anyway(self, key, Change::Delete, later)
    }

    /// Reads several keys as they are at one moment: of an update of several none is seen half. Otherwise as
    /// [`get`](Self::get). No key is named twice. Values of more than [`FOUND_BYTES_MAX`] together may be refused.
    fn get_many<R>(
        &self,
        _keys: &[&[u8]],
        _now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        later()(Err(StoreError::Io("enotsup")));
        None
    }

    /// Changes several keys by what is there: all of what is decided or, where the answer is an error, nothing, under one number,
    /// and so that no reader sees a part of it. Otherwise as [`update`](Self::update). No key is named twice. Where it is to be shown the
    /// bytes of more than [`FOUND_BYTES_MAX`] it may be refused.
    fn update_many<U: UpdateMany>(
        &self,
        _keys: &[&[u8]],
        _update: &mut U,
        _later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        Some(Err(StoreError::Io("enotsup")))
    }

    /// Deletes all keys at once: no reader sees some of them gone and others there. It is one write, with one number, and the next
    /// revision is higher than all before, as behind a deletion. `None`: the answer comes by the completion that the store made with
    /// `later`, which is told of a write without changes. An engine without it answers `enotsup`.
    fn clear(&self, _later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        Some(Err(StoreError::Io("enotsup")))
    }

    /// Waits for everything that was asked before: it is carried out and answered then, and kept as well as the store keeps
    /// things. `None`: the answer comes by the completion that the store made with `later`.
    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>>;

    /// Whether a read from here on finds every write that any process has been answered `Ok` for by now. That is so at once in a store that its
    /// process has for itself alone, which is the default. `None`: the answer comes by the completion that the store made with `later`, which
    /// holds so many bytes until then. A store that cannot find out says so, and one of which too many of these wait refuses one more
    /// (`system_limit`).
    fn catch_up_holding(
        &self,
        _bytes: usize,
        _later: impl FnOnce() -> Done,
    ) -> Option<Result<(), StoreError>> {
        Some(Ok(()))
    }

    /// As [`get`](Self::get), in the completion of [`catch_up_holding`](Self::catch_up_holding): a store that has a reader wait until it has caught up
    /// does not so once more.
    fn get_caught_up<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        self.get(key, now, later)
    }

    /// The same of [`get_many`](Self::get_many).
    fn get_many_caught_up<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        self.get_many(keys, now, later)
    }

    /// The number of its last write; 1 in a store that nothing was written to. Of a store that answers later the numbers up
    /// to this one are given, and their completions may not be called yet.
    fn seq(&self) -> u64;

    /// What it has counted to: no entry has a higher revision.
    fn revision(&self) -> u64;

    /// Gives only higher revisions from here on, over a restart too once what was asked behind this is kept. A lower one than
    /// it has counted to changes nothing, and none is over [`REVISION_RAISED_MAX`]. From any
    /// thread; must not block.
    fn raise_revision(&self, above: u64);

    /// No key is past its [deadline](Value::deadline) before this time; `None`: no key has one.
    fn next_due(&self) -> Option<u64>;

    /// Shows keys whose deadlines are not behind `now`, about `max` at most: asked again and again, all of them. Such as were
    /// shown are shown again, at once or some seconds later. `None`: the answer comes by the completion that the store made with
    /// `later`.
    fn due(&self, now: u64, max: usize, later: impl FnOnce() -> DueDone) -> Option<Due>;

    /// Number of keys that have a [deadline](Value::deadline), those that are past it too. It is asked for often, and from any
    /// thread: a store counts as it writes.
    fn deadlines(&self) -> usize;

    /// Has `tell` called from now on with each write that takes effect and for which no completion is called with `Ok`: those of
    /// other processes that have the same store, and those that were answered by [`StoreError::Unknown`]. They have their numbers among
    /// those of the store's other writes, and what 1, 2 and 5 say of completions holds for `tell`. It is called by one thread at a time,
    /// must not wait for the store, and takes the place of the one before it. Gives the number behind which each number is told of: by a
    /// completion, or here. By default it is never called: a store that has its entries for itself alone has no such writes.
    fn tell_of_others(&self, _tell: OthersTold) -> u64 {
        self.seq()
    }

    /// What keeps it. The default is for engines of one's own.
    #[doc(hidden)]
    fn keeper(&self) -> Keeper {
        Keeper::Other
    }

    /// Number of keys.
    fn len(&self) -> usize;

    /// Bytes of all keys and values, and of the numbers that stand beside some.
    fn bytes(&self) -> u64;

    /// Parts that it can be scanned in. A key stays in its part.
    fn parts(&self) -> usize {
        1
    }

    /// Begins to show its entries: all, or those of one part, counted from 0.
    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan>;

    /// Shows entries in an order: from the first, or from behind the `after` that an earlier [`Page`] of this order gave, on until
    /// `visit` has enough, or a bound of the store is reached. It costs the store nothing between two pages, and a key that is there
    /// from the first page to the last is shown once, whatever is written meanwhile. May block where the store answers later.
    ///
    /// # Errors
    /// The store cannot be read, or (`enotsup`) has no pages.
    fn page(
        &self,
        _order: Order<'_>,
        _after: Option<&[u8]>,
        _shows: Shows,
        _visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        Err(StoreError::Io("enotsup"))
    }

    /// Where it keeps what is to be known of it after a restart. `None`: it does not outlive its process.
    fn notes(&self) -> Option<&dyn Notes> {
        None
    }

    /// Has all stores that are kept together with this one written into a file, as they are now, where that was allowed
    /// at the start. `None`: the answer comes by the completion that the store made with `later`.
    fn backup(&self, _path: &str, _later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        Some(Err(StoreError::Io("enotsup")))
    }

    /// An empty store of the same kind that answers at once, to be filled with a copy of a primary while this one is read, and
    /// then to [`replace`](Self::replace) it. `None`: this store cannot; a copy then comes into it as it is.
    fn staging(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Takes the entries of what [`staging`](Self::staging) gave in the place of its own, so that no reader sees some old
    /// and some new entries. Nobody writes meanwhile. Gives a store with the old entries, to be looked through.
    fn replace(&self, _with: Self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a store keeps of itself, each under a name: its slaves, the primary that it follows.
pub trait Notes: Send + Sync {
    /// Keeps a note in the place of the one before, behind everything that this thread has asked of the store before.
    fn write(&self, name: &str, note: &[u8], done: Done);

    /// What was kept last under a name, behind the writes of it that were asked for before.
    fn read(&self, name: &str, done: NoteDone);
}

/// Waits on this thread for an answer that may come later; `None`: it never will. For starts, where nobody else waits.
pub fn wait<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> Option<T> {
    let (tell, told) = mpsc::sync_channel(1);
    ask(Box::new(move |answer| _ = tell.send(answer)));
    told.recv().ok()
}
