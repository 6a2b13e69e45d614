//! Entries page by page, where the caller keeps how far it has come.

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
    /// `after` is of another store, or was made up.
    Foreign,
}
