//! What can go wrong between a handle and its store.

use std::fmt;
use std::sync::Arc;

use thiserror::Error as ThisError;

use crate::CallError;
use crate::distribution::ServerRef;
use crate::etf::{ConvertError, OwnedTerm, TermView};

/// Why a request has not done what it was for.
#[derive(Clone, Debug, PartialEq, Eq, ThisError)]
#[non_exhaustive]
pub enum Error {
    /// The call has no answer, or its answer cannot be read as the method's type. Whether a write is done is not known, but where
    /// the method or the [`CallError`] says more: a call that ended with an exit of `:bad_call` or `:badarg` has done nothing.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The store has answered `{:error, reason}`: nothing has changed, but for [`Refusal::Unconfirmed`] and [`Refusal::Unknown`].
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An answer that a store does not give to this request: another server has the name, or it is of another version. Whether a write
    /// is done is not known.
    #[error("that is no answer to this request: {:?}; it may come from another server than a kvnode's store", _0.view())]
    Unexpected(OwnedTerm),
    /// The store is on this node, which is no kvnode. Its server would end, with its data, by a request that it does not know, and was not
    /// asked.
    #[error(
        "{0} is no kvnode, and an Elixir server ends when it is asked what it does not know: it was not asked"
    )]
    NotKvnode(Arc<str>),
    /// A watch is over: its store has ended, or is not reached any more.
    #[error("the watch is over: {0}")]
    Ended(CallError),
}

impl From<ConvertError> for Error {
    fn from(error: ConvertError) -> Self {
        Self::Call(CallError::Unreadable(error))
    }
}

/// Why a store has refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The store is full.
    NoSpace,
    /// Its disk fails, with this reason of the system.
    Io(String),
    /// The etcd that keeps it does not answer.
    Unavailable,
    /// The etcd that keeps it has not said whether the write is done: it may be, or be yet, once.
    Unknown,
    /// The write is done, and so many slaves have it of those that were wanted.
    Unconfirmed {
        /// Slaves that have it.
        have: u64,
        /// Slaves that were to have it.
        wanted: u64,
    },
    /// It is a slave: writes, and linearizable reads, go to this primary.
    SlaveOf(ServerRef),
    /// Its primary is elected, and there is none now, as far as the store knows: nothing is written.
    NoPrimary,
    /// etcd keeps it: no write there waits for slaves (`confirm:`).
    KeptByEtcd,
    /// What is to be added to is no integer.
    NotAnInteger,
    /// More keys than this in one request, entries of a page, or watches.
    TooMany(u64),
    /// More bytes than this.
    TooLarge(u64),
    /// The store has no order of keys.
    Unordered,
    /// Nothing begins with what is no tuple, no list and no binary.
    BadPrefix,
    /// A prefix says where a scan begins and ends, and so does a range.
    PrefixAndRange,
    /// A scan's cursor is of another store, or of a store in memory that was started again since.
    BadCursor,
    /// As many scans wait as may, or as many watches as may are shown what is there.
    Busy,
    /// What has changed since the number that a watch is to go on behind is not known, or the number is of another store.
    TooOld,
    /// Another reason.
    Other(OwnedTerm),
}

impl Refusal {
    /// Of the reason in `{:error, reason}`.
    pub(super) fn read(reason: TermView<'_>) -> Self {
        Self::known(reason).unwrap_or_else(|| Self::Other(OwnedTerm::from(reason)))
    }

    /// Of a reason for which a store does not write, or has not yet enough slaves that have it.
    pub(super) fn of_write(reason: TermView<'_>) -> Option<Self> {
        let known = Self::known(reason)?;
        let is_of_write = matches!(
            known,
            Self::NoSpace
                | Self::Io(_)
                | Self::Unavailable
                | Self::Unknown
                | Self::TooMany(_)
                | Self::TooLarge(_)
                | Self::Unconfirmed { .. }
                | Self::SlaveOf(_)
                | Self::NoPrimary
                | Self::KeptByEtcd
        );
        is_of_write.then_some(known)
    }

    /// Of a reason that a store is known to give.
    fn known(reason: TermView<'_>) -> Option<Self> {
        if let Some(word) = reason.as_atom() {
            return Some(match word.as_bytes() {
                b"no_space" => Self::NoSpace,
                b"unavailable" => Self::Unavailable,
                b"unknown" => Self::Unknown,
                b"no_primary" => Self::NoPrimary,
                b"kept_by_etcd" => Self::KeptByEtcd,
                b"not_an_integer" => Self::NotAnInteger,
                b"unordered" => Self::Unordered,
                b"bad_prefix" => Self::BadPrefix,
                b"prefix_and_range" => Self::PrefixAndRange,
                b"bad_cursor" => Self::BadCursor,
                b"busy" => Self::Busy,
                b"too_old" => Self::TooOld,
                _ => return None,
            });
        }
        if let Some([word, have, wanted]) = reason.as_tuple::<3>() {
            let is_it = word.is_atom("unconfirmed");
            return is_it
                .then_some(Self::Unconfirmed { have: have.as_unsigned()?, wanted: wanted.as_unsigned()? });
        }
        let [word, detail] = reason.as_tuple::<2>()?;
        Some(match word.as_atom()?.as_bytes() {
            b"io" => Self::Io(detail.as_atom()?.to_str().into_owned()),
            // `nil`: it does not know its primary.
            b"slave_of" if !detail.is_atom("nil") => Self::SlaveOf(ServerRef::read(detail)?),
            b"too_many" => Self::TooMany(detail.as_unsigned()?),
            b"too_large" => Self::TooLarge(detail.as_unsigned()?),
            _ => return None,
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSpace => f.write_str("the store has no room: delete something, or give it more"),
            Self::Io(reason) => write!(f, "the store's disk fails: {reason}"),
            Self::Unavailable => f.write_str("the etcd that keeps the store does not answer: try it again"),
            Self::Unknown => f.write_str("the etcd that keeps the store has not said whether it is done: look at the key"),
            Self::Unconfirmed { have, wanted } => {
                write!(f, "it is done, and {have} of {wanted} slaves have said that they have it")
            }
            Self::SlaveOf(primary) => {
                write!(f, "the store is a slave, which takes no writes and may lack what is newest: ask its primary, {primary}")
            }
            Self::NoPrimary => {
                f.write_str("no primary of the store is elected now, as far as it knows: try it again")
            }
            Self::KeptByEtcd => f.write_str("etcd keeps the store, and no write there waits for slaves: ask without confirm"),
            Self::NotAnInteger => f.write_str("what is to be added to is no integer"),
            Self::TooMany(bound) => write!(f, "more than {bound} keys at once: ask by parts"),
            Self::TooLarge(bound) => write!(f, "more than {bound} bytes at once: ask by parts"),
            Self::Unordered => {
                f.write_str("the store has no order of keys: start it with --ordered, or on disk")
            }
            Self::BadPrefix => f.write_str("a prefix is a tuple, a list or a binary"),
            Self::PrefixAndRange => f.write_str("a scan has a prefix, or a range, and not both"),
            Self::BadCursor => {
                f.write_str("the store is another one than that of the page before: begin the scan anew")
            }
            Self::Busy => f.write_str("as many scans or watches wait at the store as may: try it again"),
            Self::TooOld => f.write_str(
                "the store does not know what has changed since that number, or it is of another store: begin with what is there",
            ),
            Self::Other(reason) => write!(f, "the store has refused: {:?}", reason.view()),
        }
    }
}

impl std::error::Error for Refusal {}
