//! A value, with what stands beside it.

use crate::etf::{SharedBytes, Traits};

/// A value, as it was received: one checked term without version byte.
#[derive(Clone, Copy, Debug)]
pub struct Value<'a> {
    /// The encoded term.
    pub bytes: &'a [u8],
    /// The same bytes where the store can share them: large values are not copied into the output.
    pub shared: Option<&'a SharedBytes>,
    /// What was noticed in the term when it was checked.
    pub traits: Traits,
    /// Which copy of a primary was under way into the store when this was written, by a number that the store's user
    /// chooses; 0: none. What is found later without the number of a copy was not brought by that.
    pub copy: u32,
    /// The number of the write that it is of, see [`revision`](super::revision). Of a value that is to be written: the one that it
    /// has in the store that it comes from, [`REVISION_MAX`](super::revision::REVISION_MAX) at most; 0: the store gives it one.
    pub revision: u64,
    /// When it ends, in milliseconds of the clock of the store's user; 0: never. The store keeps it, and shows which keys are past
    /// theirs ([`Store::due`](super::Store::due)): nothing else comes of it here.
    pub deadline: u64,
}

impl<'a> Value<'a> {
    /// Bytes that are to be copied, written while no copy is under way, without a revision and without an end.
    pub const fn of(bytes: &'a [u8], traits: Traits) -> Self {
        Self { bytes, shared: None, traits, copy: 0, revision: 0, deadline: 0 }
    }

    /// The same, to be kept: in memory that is shared where it is already.
    pub fn to_owned(self) -> OwnedValue {
        let Self { bytes, shared, traits, copy, revision, deadline } = self;
        let bytes = shared.map_or_else(|| bytes.into(), SharedBytes::clone);
        OwnedValue { bytes, traits, copy, revision, deadline }
    }
}

/// A [`Value`] that is kept for later.
#[derive(Clone, Debug)]
pub struct OwnedValue {
    /// The encoded term.
    pub bytes: SharedBytes,
    /// As [`Value::traits`].
    pub traits: Traits,
    /// As [`Value::copy`].
    pub copy: u32,
    /// As [`Value::revision`].
    pub revision: u64,
    /// As [`Value::deadline`].
    pub deadline: u64,
}

impl OwnedValue {
    /// The value.
    pub fn value(&self) -> Value<'_> {
        let &Self { ref bytes, traits, copy, revision, deadline } = self;
        Value { bytes, shared: Some(bytes), traits, copy, revision, deadline }
    }
}
