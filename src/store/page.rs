//! Entries page by page, where the caller keeps how far it has come.

use crate::etf::order::TermRange;

/// In which order a page shows entries, and which.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Order<'a> {
    /// All of them, in the order that is the least work for the store.
    #[default]
    Any,
    /// Those whose keys are in a range, in Erlang's order of terms; the last first where it is `reverse`.
    OfTerms {
        /// Which keys.
        range: &'a TermRange,
        /// From the end on.
        reverse: bool,
    },
}

/// What the reader of a page says of an entry that it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It is shown the next.
    Next,
    /// It has enough with this one.
    Enough,
    /// It has enough without this one, which the next page begins with. Not said of the first.
    Back,
}

/// How a page has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Page {
    /// More may follow, behind this place: what it says is the store's own.
    Behind(Vec<u8>),
    /// Nothing follows.
    Last,
    /// `after` is of another store or another order, or was made up.
    Foreign,
    /// The store has no order of terms.
    Unordered,
}
