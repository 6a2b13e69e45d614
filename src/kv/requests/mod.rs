//! The requests that look at what is there before they answer or write, and those of several keys.
//!
//! A request here is of one of two kinds. A [`Lookup`] reads; an [`Edit`] decides by what its keys have what they get, in the
//! store itself ([`Update`](crate::store::Update), [`UpdateMany`](crate::store::UpdateMany)), so that nothing comes between. Each
//! kind has its file, in which everything stands that tells one request from another: how it is read, what it decides and what
//! it answers.
//!
//! # A new request
//!
//! It takes two files: the one of its kind, and the table of docs/requests.md, which a test holds against the list that the
//! reading of requests is made from. Whatever is the same for all is not written again: counting, writes at a slave, `confirm:`,
//! the kinds of stores, slaves, answers that a caller's node cannot decode or has no room for.

mod clear;
mod consistency;
mod edit;
mod expected;
mod keys;
mod keywords;
mod lookup;
mod many;
mod options;
mod outcome;
mod scan;
mod serve;
mod single;
mod transact;
mod watch;

pub use consistency::Consistency;
pub use edit::Edit;
pub(super) use keywords::{Keyword, keywords};
pub use lookup::Lookup;
pub(super) use lookup::Shape;
pub(super) use many::Many;
pub(super) use options::{Options, Parts, Takes};
pub use options::{Ttl, WriteOptions};
pub(super) use outcome::Outcome;
pub use scan::{PAGE_BYTES_MAX, PATTERN_BYTES_MAX};
pub(super) use scan::{Pages, write_unknown_option};
pub use watch::WATCHED_PATTERNS_BYTES_MAX;

use super::Request;
use crate::etf::{Cursor, TermError, TermView};
use crate::store::FOUND_BYTES_MAX;

/// Keys that one request may name. A store takes some milliseconds to read or change the values of so many keys, and its other
/// callers wait for that.
pub const KEYS_MAX: usize = 16 << 10;
/// Bytes of the keys and values of one request of several, or of its answer: as many as the largest value that is taken by the
/// default of [`Limits`](crate::config::Limits).
pub const BYTES_MAX: usize = FOUND_BYTES_MAX;
/// Bytes of the largest integer that is counted with: half a million bits, or 157,826 digits. Each call copies it.
pub const INTEGER_BYTES_MAX: usize = 64 << 10;
/// Bytes of all sums of a transaction. Each is made while other callers wait.
pub const SUMS_BYTES_MAX: usize = 1 << 20;

/// Why nothing is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// `:not_an_integer`
    NotAnInteger,
    /// `{:too_many, n}`: more keys than this.
    TooMany(usize),
    /// `{:too_large, n}`: more bytes than this.
    TooLarge(usize),
    /// `:unordered`: the store has no order of keys.
    Unordered,
    /// `:bad_prefix`: nothing begins with it, as it is no tuple, no list and no binary.
    BadPrefix,
    /// `:prefix_and_range`: `prefix:` says where it begins and ends, and so do `from:` and `to:`.
    PrefixAndRange,
    /// `:bad_cursor`: the cursor is of another store, or of none.
    BadCursor,
    /// `:busy`: as many pages as may wait do so, or as many watchers as may are shown what is there.
    Busy,
    /// `:too_old`: what has changed since is not known.
    TooOld,
}

/// Why a request is not served.
pub(super) enum Unserved {
    /// It is none.
    Shape,
    /// It is answered `{:error, reason}`.
    Refused(Refusal),
    /// A key or a value cannot be kept.
    Term(TermError),
}

impl From<TermError> for Unserved {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

impl From<Refusal> for Unserved {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Reads a request of these two kinds.
pub(super) fn read<'a>(
    term: TermView<'a>,
    arity: usize,
    operation: &[u8],
    cursor: Cursor<'a>,
) -> Option<Request<'a>> {
    let lookup = Lookup::read(term, arity, operation, cursor);
    lookup.or_else(|| Edit::read(term, arity, operation, cursor))
}

/// Whether there is a request of this name with so many elements behind it that callers have: those here, and those with options of
/// the others.
pub(super) fn is_request(name: &str, elements: usize) -> bool {
    const OTHERS: &[(usize, &[u8])] = &[(4, b"put"), (3, b"delete"), (1, b"count"), (1, b"clear")];
    let known = Lookup::KNOWN.iter().chain(Edit::KNOWN).chain(OTHERS);
    known.into_iter().any(|&known| known == (elements + 1, name.as_bytes()))
}

/// The elements of a list that a request names.
fn listed(list: TermView<'_>) -> Result<Vec<TermView<'_>>, Unserved> {
    match list.list_len() {
        Some(len) if len > KEYS_MAX => Err(Refusal::TooMany(KEYS_MAX).into()),
        Some(_) => list.elements(KEYS_MAX).ok_or(Unserved::Shape),
        None => Err(Unserved::Shape),
    }
}
