//! Encoded key to encoded value.
//!
//! A store answers now or later. Memory answers at once, on the task of the connection that asked; a store that
//! has to wait (for a disk, for another machine) is given a completion, calls it from wherever it likes, and the
//! connection goes on meanwhile. A get from memory pays nothing for that.

#[cfg(feature = "disk")]
pub mod disk;
pub mod memory;
pub mod room;

use std::fmt;
use std::time::Duration;

#[cfg(feature = "disk")]
pub use disk::{Disk, DiskStore};
pub use memory::MemoryStore;
pub use room::Room;

use crate::etf::{SharedBytes, Traits};

/// When a write is synced, and so what a power cut can take. A killed process loses nothing that was answered by any of
/// them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum SyncPolicy {
    /// Before it is answered. Nothing that was answered is lost.
    #[default]
    Always,
    /// So often: what was answered in the last such time can be lost.
    Interval(Duration),
    /// When the system does it by itself.
    Never,
}

/// A value, as it was received: one checked term without version byte.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The encoded term.
    pub bytes: &'a [u8],
    /// The same bytes where the store can share them: large values are not copied into the output.
    pub shared: Option<&'a SharedBytes>,
    /// What was noticed in the term when it was checked.
    pub traits: Traits,
}

/// Why a store did not do it. The store's fault, or its machine's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StoreError {
    /// No room for it. It can be tried again when there is.
    NoSpace,
    /// The disk or its file system refused: in a word of OTP's `file:posix()` where there is one (`eio`, `erofs`, …),
    /// `damaged` where what was read is not what was written, `terminated` where the store is closed.
    Io(&'static str),
}

impl StoreError {
    /// The atom that callers get in `{:error, code}`, or in `{:error, {code, detail}}` where there is a
    /// [`detail`](Self::detail).
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoSpace => "no_space",
            Self::Io(_) => "io",
        }
    }

    /// What the system said, in a word.
    pub const fn detail(&self) -> Option<&'static str> {
        match self {
            Self::NoSpace => None,
            Self::Io(reason) => Some(reason),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("no space is left in the store"),
            Self::Io(reason) => write!(f, "the disk refuses: {reason}"),
        }
    }
}

impl std::error::Error for StoreError {}

/// Called once when a write that was not answered at once is done.
pub type WriteDone = Box<dyn FnOnce(Result<(), StoreError>) + Send>;
/// Called once with what a read that was not answered at once found.
pub type ReadDone = Box<dyn FnOnce(Result<Option<Value<'_>>, StoreError>) + Send>;

/// A map of canonical key bytes to values that many connections read and write at once.
pub trait Store: Send + Sync + 'static {
    /// Whether every write is answered by its completion, all of them on one thread and in the order in which they take
    /// effect, and `put` and `delete` may wait for completions of before.
    const WRITES_LATER: bool = false;

    /// Reads. `now` is called before this returns where the answer is known; else the store makes a completion
    /// by `later`, and calls that.
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R>;

    /// Writes. `None`: the answer comes by the completion that the store made with `later`.
    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<(), StoreError>>;

    /// Deletes; a key that is not there is no error. `None` as for [`put`](Self::put).
    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<(), StoreError>>;

    /// Shows the present value of a key, `None` where it has none, if no write of it waits to be answered; `None` if one
    /// does, and nothing is shown.
    fn settled(&self, key: &[u8], show: impl FnOnce(Option<Value<'_>>)) -> Option<Result<(), StoreError>> {
        self.get(key, show, || Box::new(|_| {})).map(Ok)
    }

    /// Number of keys.
    fn len(&self) -> usize;

    /// Bytes of all keys and values.
    fn bytes(&self) -> u64;

    /// Shows every key with its value, each once, in any order, until `visit` gives `false`; whether it got to the end.
    /// Others may write meanwhile. `visit` must not use the store.
    fn visit(&self, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool;

    /// Shows the keys of one part, as [`visit_part`](Self::visit_part) does: values that lie elsewhere are not read.
    fn keys_of_part(&self, part: usize, show: &mut dyn FnMut(&[u8])) {
        self.visit_part(part, &mut |key, _value| {
            show(key);
            true
        });
    }

    /// Shows the keys of which writes wait to be answered: what becomes of these, [`visit`](Self::visit) does not show. A store
    /// that answers at once has none.
    fn keys_under_way(&self, _show: &mut dyn FnMut(&[u8])) {}

    /// Keeps something that is to be known of the store after a restart, under a name; a store that does not survive
    /// its process keeps nothing, and says so by not calling `later`.
    fn keep_note(&self, _name: &str, _note: &[u8], _later: impl FnOnce() -> WriteDone)
    where
        Self: Sized,
    {
    }

    /// What was kept last under a name.
    ///
    /// # Errors
    /// It could not be read.
    fn note(&self, _name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(None)
    }

    /// Has all stores that are kept together with this one written into a file, as they are now, where that was allowed
    /// at the start. `None`: the answer comes by the completion that the store made with `later`.
    fn backup(&self, _path: &str, _later: impl FnOnce() -> WriteDone) -> Option<Result<(), StoreError>> {
        Some(Err(StoreError::Io("enotsup")))
    }

    /// Whether what was answered is there after a restart.
    fn is_durable(&self) -> bool {
        false
    }

    /// Parts that it can be visited in, one at a time ([`visit_part`](Self::visit_part)).
    fn parts(&self) -> usize {
        1
    }

    /// As [`visit`](Self::visit), of one part, counted from 0. A key stays in its part.
    fn visit_part(&self, part: usize, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        part > 0 || self.visit(visit)
    }

    /// An empty store of the same kind, to be filled with a copy of a primary while this one is read, and then to
    /// [`replace`](Self::replace) it. `None`: this store cannot; a copy then comes into it as it is.
    fn staging(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// Takes the entries of what [`staging`](Self::staging) gave in the place of its own, so that no reader sees some of
    /// these and some of those. Nobody writes meanwhile. Gives a store with those that were there, to be looked through.
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
