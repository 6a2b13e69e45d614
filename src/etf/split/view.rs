//! What the walker gives: slices of the received bytes, checked.

use std::borrow::Cow;
use std::fmt;

use super::Cursor;
use crate::etf::tag::*;

/// What is wrong with bytes that should have been a term. Always the encoder's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TermError {
    /// The bytes end inside a term.
    #[error("the term is cut short")]
    Truncated,
    /// Bytes are left over after the term.
    #[error("bytes are left over after the term")]
    TrailingBytes,
    /// Not a tag of the external term format, or a tag that may not stand here.
    #[error("{0} is no tag of the external term format")]
    Tag(u8),
    /// The term does not begin with the version byte 131 but with this.
    #[error("a term begins with {0} instead of the version byte 131")]
    Version(u8),
    /// An atom of more than 255 characters, or one that is not UTF-8.
    #[error("an atom is longer than 255 characters or not UTF-8")]
    Atom,
    /// A float that is not a finite number.
    #[error("a float is not a finite number")]
    Float,
    /// An integer of more than 4 MiB.
    #[error("an integer is larger than any node can read")]
    Integer,
    /// A pid, port or reference in an old form, with a creation that the old form cannot have.
    #[error("an identifier in an old form has a creation above 3")]
    Creation,
    /// A bit string whose last byte claims no or more than eight bits.
    #[error("a bit string claims an impossible number of bits in its last byte")]
    BitBinary,
    /// A fun whose size field does not fit its contents, or that has more than 255 free variables.
    #[error("the size of a fun does not fit its contents, or it has too many free variables")]
    Fun,
    /// A reference with no or more than five words, or an old one whose first word is too large.
    #[error("a reference does not have one to five words, or not those of its form")]
    Reference,
    /// A native record with flags that are not known.
    #[error("a native record has unknown flags")]
    Record,
    /// An export whose arity is not a small integer.
    #[error("the arity of an external fun is not a small integer")]
    Export,
    /// A map with the same key twice.
    #[error("a map has the same key twice")]
    DuplicateKey,
    /// A compressed term that does not inflate to the size that it claims, or is larger than the bound.
    #[error("a compressed term does not inflate to the size that it claims")]
    Compressed,
    /// A term of another type than the place asks for.
    #[error("expected {wanted}, found a term with tag {tag}")]
    Unexpected {
        /// The type that the place asks for, in Erlang's words.
        wanted: &'static str,
        /// The tag that stands there.
        tag: u8,
    },
    /// A key whose maps are nested in so odd an order that bringing it into canonical form takes too long.
    #[error("the maps inside a key are nested too deep to be compared")]
    KeyTooComplex,
}

/// What was noticed in a term while it was walked: what a later, colder branch has to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Traits(u8);

impl Traits {
    /// A map or a native record with two or more pairs: its keys may repeat.
    pub const MAP: Self = Self(1);
    /// A reference of more than three words, or a port in its widest form: only for peers with `V4_NC`.
    pub const V4_NC: Self = Self(2);
    /// A native record: only for peers with `NATIVE_RECORDS`.
    pub const NATIVE_RECORD: Self = Self(4);
    /// A fun in the form before OTP R15 (`FUN_EXT`): no release that we talk to reads it any more.
    pub const OLD_FUN: Self = Self(8);
    /// All traits. None of them has the highest bit: a store that keeps the bits beside a value may use it for itself.
    pub const ALL: Self = Self::MAP.union(Self::V4_NC).union(Self::NATIVE_RECORD).union(Self::OLD_FUN);

    /// Nothing noticed.
    pub const fn none() -> Self {
        Self(0)
    }

    /// Whether all of `other` was noticed.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether any of `other` was noticed.
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The bits, for storing beside a value.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// From [`bits`](Self::bits).
    pub const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }
}

/// An atom's text where it was received.
#[derive(Clone, Copy)]
pub struct AtomView<'a> {
    pub(super) text: &'a [u8],
    pub(super) latin1: bool,
}

impl<'a> AtomView<'a> {
    /// The text. Borrowed unless the atom came in Latin-1 with characters beyond ASCII.
    pub fn to_str(self) -> Cow<'a, str> {
        match std::str::from_utf8(self.text) {
            Ok(text) if !self.latin1 || text.is_ascii() => Cow::Borrowed(text),
            _ => Cow::Owned(self.text.iter().map(|&byte| char::from(byte)).collect()),
        }
    }

    /// The bytes as received: UTF-8, or Latin-1 for the old tags.
    pub const fn as_bytes(self) -> &'a [u8] {
        self.text
    }
}

impl PartialEq<str> for AtomView<'_> {
    #[inline]
    fn eq(&self, other: &str) -> bool {
        // With a literal this is a comparison of a few words, where it is inlined.
        if self.latin1 { self.to_str() == other } else { self.text == other.as_bytes() }
    }
}

impl PartialEq<&str> for AtomView<'_> {
    #[inline]
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl fmt::Debug for AtomView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.to_str())
    }
}

/// A process identifier where it was received (erl_ext_dist, "NEW_PID_EXT").
#[derive(Clone, Copy, Debug)]
pub struct PidView<'a> {
    /// The node that the process lives on.
    pub node: AtomView<'a>,
    /// First half of its number.
    pub id: u32,
    /// Second half of its number.
    pub serial: u32,
    /// Incarnation of the node.
    pub creation: u32,
}

/// A reference where it was received (erl_ext_dist, "NEWER_REFERENCE_EXT").
#[derive(Clone, Copy, Debug)]
pub struct ReferenceView<'a> {
    /// The node that made it.
    pub node: AtomView<'a>,
    /// Incarnation of that node.
    pub creation: u32,
    pub(super) words: [u32; 5],
    pub(super) len: u8,
}

impl ReferenceView<'_> {
    /// The one to five words.
    #[expect(clippy::indexing_slicing, reason = "there are one to five")]
    pub fn words(&self) -> &[u32] {
        &self.words[..usize::from(self.len)]
    }
}

/// One complete, checked term, without a version byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TermView<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) traits: Traits,
}

impl<'a> TermView<'a> {
    /// Takes bytes that are known to be one checked term: a stored one, or one written by ourselves.
    pub(crate) const fn trusted(bytes: &'a [u8], traits: Traits) -> Self {
        Self { bytes, traits }
    }

    /// The same term, with what was noticed in another that goes with it.
    #[must_use]
    pub const fn together_with(self, other: TermView<'_>) -> Self {
        Self { traits: self.traits.union(other.traits), ..self }
    }

    /// Checks that `bytes` (without a version byte) are exactly one term.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TermError> {
        let mut cursor = Cursor::new(bytes);
        let term = cursor.term()?;
        cursor.end()?;
        Ok(term)
    }

    /// The encoded term.
    pub const fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// What was noticed while it was checked. For a part of a term: what was noticed in the whole.
    pub const fn traits(self) -> Traits {
        self.traits
    }

    /// The same term, with what was noticed in the whole that it is a part of.
    pub const fn noticed_in(self, whole: TermView<'_>) -> Self {
        Self { bytes: self.bytes, traits: whole.traits }
    }

    /// The first byte.
    #[expect(clippy::indexing_slicing, reason = "a checked term has one byte at least")]
    pub const fn tag(self) -> u8 {
        self.bytes[0]
    }

    /// A cursor before this term.
    pub const fn cursor(self) -> Cursor<'a> {
        Cursor { rest: self.bytes }
    }

    /// The atom, if it is one.
    pub fn as_atom(self) -> Option<AtomView<'a>> {
        self.cursor().atom().ok()
    }

    /// Whether it is the atom `text`.
    #[inline]
    pub fn is_atom(self, text: &str) -> bool {
        self.as_atom().is_some_and(|atom| atom == text)
    }

    /// The pid, if it is one.
    pub fn as_pid(self) -> Option<PidView<'a>> {
        self.cursor().pid().ok()
    }

    /// The reference, if it is one.
    pub fn as_reference(self) -> Option<ReferenceView<'a>> {
        self.cursor().reference().ok()
    }

    /// The non-negative integer, if it is one that fits.
    pub fn as_unsigned(self) -> Option<u64> {
        self.cursor().unsigned().ok()
    }

    /// The bytes of the binary, if it is one.
    pub fn as_binary(self) -> Option<&'a [u8]> {
        self.cursor().binary().ok()
    }

    /// What is left of this term at a cursor into it, as a term: the last element of a tuple, found without a walk. The
    /// cursor is one of this term's own, before its last element; at any other place this gives no term, and what reads
    /// it fails.
    pub const fn tail_at(self, cursor: Cursor<'a>) -> Self {
        Self { bytes: cursor.rest, traits: self.traits }
    }

    /// The elements, if it is a tuple of `N`. The last one is found without a walk.
    pub fn as_tuple<const N: usize>(self) -> Option<[TermView<'a>; N]> {
        let mut cursor = self.cursor();
        if cursor.tuple().ok()? != N {
            return None;
        }
        let mut elements = [self; N];
        for (at, element) in elements.iter_mut().enumerate() {
            let bytes = if at + 1 == N { cursor.rest } else { cursor.term().ok()?.bytes };
            *element = TermView { bytes, traits: self.traits };
        }
        Some(elements)
    }

    /// The number of elements, if it is a tuple.
    pub fn tuple_arity(self) -> Option<usize> {
        self.cursor().tuple().ok()
    }

    /// Whether it is the empty list.
    pub fn is_nil(self) -> bool {
        self.bytes == [NIL_EXT]
    }
}

impl fmt::Debug for TermView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::etf::text::inspect(*self, crate::etf::text::InspectLimits::LOG))
    }
}
