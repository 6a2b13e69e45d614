//! The one walker of untrusted bytes.
//!
//! Everything that a peer sends is read through a [`Cursor`]: it finds where a term ends and checks on the
//! way what a BEAM would check when it decodes it (erl_ext_dist; the limits are those of `external.c`). The
//! walk keeps one number, how many terms are still to come, and no stack: a list nested ten million deep costs
//! what a flat one costs. A count that claims more terms than there are bytes left is refused at once.
//!
//! What it does *not* do: it builds nothing, and it does not look for duplicate keys of maps (that needs to
//! compare terms: [`check_maps`](super::key::check_maps), for what is to be stored).

use std::borrow::Cow;
use std::fmt;

use super::tag::*;

/// Atoms are at most 255 characters (erl_ext_dist, "ATOM_UTF8_EXT").
pub(super) const ATOM_CHARS_MAX: usize = 255;
/// Largest creation in an old pid, port or reference: they had two bits for it (erl_ext_dist, "PID_EXT").
const OLD_CREATION_MAX: u32 = 3;
/// First word of an old reference: only 18 bits are significant (erl_ext_dist, "NEW_REFERENCE_EXT").
const OLD_REFERENCE_WORD_MAX: u32 = (1 << 18) - 1;
/// Bytes of the largest integer that any OTP reads (OTP 25; from 27 on it is an eighth of that).
pub(super) const BIG_BYTES_MAX: usize = (4 << 20) - 8;
/// Most variables that a fun can have closed over, as they are arguments of its function.
pub(super) const FREE_VARIABLES_MAX: u32 = 255;

/// What is wrong with bytes that should have been a term. Always the fault of whoever encoded them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TermError {
    /// The bytes end inside a term.
    Truncated,
    /// Bytes are left over after the term.
    TrailingBytes,
    /// Not a tag of the external term format, or one that may not stand here.
    Tag(u8),
    /// The term does not begin with the version byte 131 but with this.
    Version(u8),
    /// An atom of more than 255 characters, or one that is not UTF-8.
    Atom,
    /// A float that is not a finite number.
    Float,
    /// An integer of more than 4 MiB.
    Integer,
    /// A pid, port or reference in an old form, with a creation that the old form cannot have.
    Creation,
    /// A bit string whose last byte claims no or more than eight bits.
    BitBinary,
    /// A fun whose size field does not fit its contents, or that has more than 255 free variables.
    Fun,
    /// A reference with no or more than five words, or an old one whose first word is too large.
    Reference,
    /// A native record with flags that are not known.
    Record,
    /// An export whose arity is not a small integer.
    Export,
    /// A map with the same key twice.
    DuplicateKey,
    /// A compressed term that does not inflate to the size that it claims, or is larger than the bound.
    Compressed,
    /// A term of another type than the place asks for.
    Unexpected {
        /// The type that the place asks for, in Erlang's words.
        wanted: &'static str,
        /// The tag that stands there.
        tag: u8,
    },
    /// A key whose maps are nested in so odd an order that bringing it into canonical form takes too long.
    KeyTooComplex,
}

impl fmt::Display for TermError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => write!(f, "the term is cut short"),
            Self::TrailingBytes => write!(f, "bytes are left over after the term"),
            Self::Tag(tag) => write!(f, "{tag} is no tag of the external term format"),
            Self::Version(byte) => write!(f, "a term begins with {byte} instead of the version byte 131"),
            Self::Atom => write!(f, "an atom is longer than 255 characters or not UTF-8"),
            Self::Float => write!(f, "a float is not a finite number"),
            Self::Integer => write!(f, "an integer is larger than any node can read"),
            Self::Creation => write!(f, "an identifier in an old form has a creation above 3"),
            Self::Record => write!(f, "a native record has unknown flags"),
            Self::BitBinary => write!(f, "a bit string claims an impossible number of bits in its last byte"),
            Self::Fun => {
                write!(f, "the size of a fun does not fit its contents, or it has too many free variables")
            }
            Self::Reference => {
                write!(f, "a reference does not have one to five words, or not those of its form")
            }
            Self::Export => write!(f, "the arity of an external fun is not a small integer"),
            Self::DuplicateKey => write!(f, "a map has the same key twice"),
            Self::Compressed => write!(f, "a compressed term does not inflate to the size that it claims"),
            Self::Unexpected { wanted, tag } => write!(f, "expected {wanted}, found a term with tag {tag}"),
            Self::KeyTooComplex => write!(f, "the maps inside a key are nested too deep to be compared"),
        }
    }
}

impl std::error::Error for TermError {}

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
    text: &'a [u8],
    latin1: bool,
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
    fn eq(&self, other: &str) -> bool {
        self.text == other.as_bytes() && (!self.latin1 || other.is_ascii())
            || (self.latin1 && !other.is_ascii() && self.to_str() == other)
    }
}

impl PartialEq<&str> for AtomView<'_> {
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
    words: [u32; 5],
    len: u8,
}

impl ReferenceView<'_> {
    /// The one to five words.
    pub fn words(&self) -> &[u32] {
        &self.words[..usize::from(self.len)]
    }
}

/// One complete, checked term, without a version byte.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TermView<'a> {
    bytes: &'a [u8],
    traits: Traits,
}

impl<'a> TermView<'a> {
    /// Takes bytes that are known to be one checked term: a stored one, or one written by ourselves.
    pub(crate) const fn trusted(bytes: &'a [u8], traits: Traits) -> Self {
        Self { bytes, traits }
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
        f.write_str(&super::text::inspect(*self, super::text::InspectLimits::LOG))
    }
}

/// Reads terms off the front of untrusted bytes.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// A cursor at the front of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next tag, not consumed.
    pub fn peek(&self) -> Result<u8, TermError> {
        self.rest.first().copied().ok_or(TermError::Truncated)
    }

    /// That nothing is left.
    pub fn end(&self) -> Result<(), TermError> {
        if self.rest.is_empty() { Ok(()) } else { Err(TermError::TrailingBytes) }
    }

    #[inline]
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], TermError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(TermError::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], TermError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(TermError::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, TermError> {
        Ok(self.array::<1>()?[0])
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, TermError> {
        Ok(u16::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, TermError> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    #[inline]
    pub(super) fn len32(&mut self) -> Result<usize, TermError> {
        Ok(self.u32()? as usize)
    }

    fn unexpected<T>(&self, wanted: &'static str) -> Result<T, TermError> {
        Err(TermError::Unexpected { wanted, tag: self.peek()? })
    }

    /// The version byte that begins every term on the wire.
    pub fn version(&mut self) -> Result<(), TermError> {
        match self.u8()? {
            VERSION_MAGIC => Ok(()),
            other => Err(TermError::Version(other)),
        }
    }

    /// A tuple's arity; its elements come next.
    #[inline]
    pub fn tuple(&mut self) -> Result<usize, TermError> {
        match self.peek()? {
            SMALL_TUPLE_EXT => Ok(usize::from(self.array::<2>()?[1])),
            LARGE_TUPLE_EXT => {
                self.u8()?;
                self.len32()
            }
            _ => self.unexpected("a tuple"),
        }
    }

    /// A list's length; its elements come next, and after them its tail. `[]` gives 0 and has no tail.
    pub fn list(&mut self) -> Result<usize, TermError> {
        match self.peek()? {
            NIL_EXT => {
                self.u8()?;
                Ok(0)
            }
            LIST_EXT => {
                self.u8()?;
                self.len32()
            }
            _ => self.unexpected("a list"),
        }
    }

    /// A map's number of pairs; its keys and values come next, in turn.
    pub fn map(&mut self) -> Result<usize, TermError> {
        if self.peek()? != MAP_EXT {
            return self.unexpected("a map");
        }
        self.u8()?;
        self.len32()
    }

    /// An atom.
    #[inline]
    pub fn atom(&mut self) -> Result<AtomView<'a>, TermError> {
        // Nearly all atoms of a BEAM are short, and ASCII.
        if let [SMALL_ATOM_UTF8_EXT, len, rest @ ..] = self.rest
            && let Some((text, rest)) = rest.split_at_checked(usize::from(*len))
            && is_ascii(text)
        {
            self.rest = rest;
            return Ok(AtomView { text, latin1: false });
        }
        self.any_atom()
    }

    fn any_atom(&mut self) -> Result<AtomView<'a>, TermError> {
        let tag = self.peek()?;
        let (len, latin1) = match tag {
            SMALL_ATOM_UTF8_EXT => (usize::from(self.array::<2>()?[1]), false),
            ATOM_UTF8_EXT | ATOM_EXT => {
                self.u8()?;
                (usize::from(self.u16()?), tag == ATOM_EXT)
            }
            SMALL_ATOM_EXT => (usize::from(self.array::<2>()?[1]), true),
            _ => return self.unexpected("an atom"),
        };
        let text = self.take(len)?;
        if latin1 {
            if len > ATOM_CHARS_MAX {
                return Err(TermError::Atom);
            }
        } else if !text.is_ascii() || len > ATOM_CHARS_MAX {
            let text = std::str::from_utf8(text).map_err(|_| TermError::Atom)?;
            if text.chars().count() > ATOM_CHARS_MAX {
                return Err(TermError::Atom);
            }
        }
        Ok(AtomView { text, latin1 })
    }

    /// A non-negative integer below 2^64.
    pub fn unsigned(&mut self) -> Result<u64, TermError> {
        const WANTED: &str = "a non-negative integer";
        let before = *self;
        match self.u8()? {
            SMALL_INTEGER_EXT => Ok(u64::from(self.u8()?)),
            INTEGER_EXT => {
                let value = self.u32()?.cast_signed();
                u64::try_from(value).or_else(|_| before.unexpected(WANTED))
            }
            SMALL_BIG_EXT => {
                let len = usize::from(self.u8()?);
                let sign = self.u8()?;
                let digits = self.take(len)?;
                if sign != 0 || digits.iter().skip(8).any(|&digit| digit != 0) {
                    return before.unexpected(WANTED);
                }
                Ok(digits.iter().take(8).rev().fold(0, |value, &digit| value << 8 | u64::from(digit)))
            }
            _ => before.unexpected(WANTED),
        }
    }

    /// A binary of whole bytes.
    pub fn binary(&mut self) -> Result<&'a [u8], TermError> {
        if self.peek()? != BINARY_EXT {
            return self.unexpected("a binary");
        }
        self.u8()?;
        let len = self.len32()?;
        self.take(len)
    }

    /// A pid, in its old or new form.
    #[inline]
    pub fn pid(&mut self) -> Result<PidView<'a>, TermError> {
        let tag = self.peek()?;
        if tag != NEW_PID_EXT && tag != PID_EXT {
            return self.unexpected("a pid");
        }
        self.u8()?;
        let node = self.atom()?;
        let (id, serial) = (self.u32()?, self.u32()?);
        let creation = if tag == NEW_PID_EXT { self.u32()? } else { self.old_creation()? };
        Ok(PidView { node, id, serial, creation })
    }

    /// A reference, in any of its three forms.
    #[inline]
    pub fn reference(&mut self) -> Result<ReferenceView<'a>, TermError> {
        let tag = self.peek()?;
        let len = match tag {
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT => {
                self.u8()?;
                self.u16()?
            }
            REFERENCE_EXT => {
                self.u8()?;
                let node = self.atom()?;
                let word = self.u32()?;
                if word > OLD_REFERENCE_WORD_MAX {
                    return Err(TermError::Reference);
                }
                let creation = self.old_creation()?;
                return Ok(ReferenceView { node, creation, words: [word, 0, 0, 0, 0], len: 1 });
            }
            _ => return self.unexpected("a reference"),
        };
        if !(1..=5).contains(&len) {
            return Err(TermError::Reference);
        }
        let node = self.atom()?;
        let creation = if tag == NEWER_REFERENCE_EXT { self.u32()? } else { self.old_creation()? };
        let mut words = [0; 5];
        for word in &mut words[..usize::from(len)] {
            *word = self.u32()?;
        }
        if tag == NEW_REFERENCE_EXT && words[0] > OLD_REFERENCE_WORD_MAX {
            return Err(TermError::Reference);
        }
        Ok(ReferenceView { node, creation, words, len: len as u8 })
    }

    /// The creation in an old form.
    fn old_creation(&mut self) -> Result<u32, TermError> {
        let creation = u32::from(self.u8()?);
        if creation <= OLD_CREATION_MAX { Ok(creation) } else { Err(TermError::Creation) }
    }

    /// The next whole term, checked.
    ///
    /// # Errors
    /// What is wrong with it: the fault of whoever encoded it.
    #[inline]
    pub fn term(&mut self) -> Result<TermView<'a>, TermError> {
        let start = self.rest;
        let traits = match self.leaf() {
            true => Traits::none(),
            false => self.skip()?,
        };
        Ok(TermView { bytes: &start[..start.len() - self.rest.len()], traits })
    }

    /// Steps over one of the commonest terms that have no parts; `false`, and no step, at any other.
    #[inline]
    fn leaf(&mut self) -> bool {
        let len = match self.rest {
            [BINARY_EXT, a, b, c, d, ..] => 5 + u32::from_be_bytes([*a, *b, *c, *d]) as usize,
            [SMALL_INTEGER_EXT, ..] => 2,
            [INTEGER_EXT, ..] => 5,
            [SMALL_ATOM_UTF8_EXT, len, text @ ..] => {
                let len = usize::from(*len);
                if !text.get(..len).is_some_and(is_ascii) {
                    return false;
                }
                2 + len
            }
            _ => return false,
        };
        match self.rest.get(len..) {
            Some(rest) => self.rest = rest,
            None => return false,
        }
        true
    }

    /// Steps over the next whole term, checking it; gives what was noticed in it.
    pub(crate) fn skip(&mut self) -> Result<Traits, TermError> {
        let mut traits = Traits::none();
        // Terms that are still to come. Every one takes a byte at least, so it never exceeds what is left.
        let mut pending: u64 = 1;
        // Ends of funs that are being walked: (bytes left where it has to end, pending when it has ended).
        let mut funs: Vec<(usize, u64)> = Vec::new();
        while pending > 0 {
            pending -= 1;
            if let [SMALL_TUPLE_EXT, arity, rest @ ..] = self.rest {
                pending += u64::from(*arity);
                self.rest = rest;
            } else if !self.leaf() {
                pending += self.step(&mut traits, pending, &mut funs)?;
            }
            if pending > self.rest.len() as u64 {
                return Err(TermError::Truncated);
            }
            while let Some(&(left, after)) = funs.last() {
                if pending > after {
                    break;
                }
                if self.rest.len() != left {
                    return Err(TermError::Fun);
                }
                funs.pop();
            }
        }
        Ok(traits)
    }

    /// Reads one tag with its own bytes; gives how many terms follow as its children.
    #[inline]
    pub(super) fn step(
        &mut self,
        traits: &mut Traits,
        pending: u64,
        funs: &mut Vec<(usize, u64)>,
    ) -> Result<u64, TermError> {
        let tag = self.peek()?;
        match tag {
            SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | ATOM_EXT | SMALL_ATOM_EXT => {
                self.atom()?;
                return Ok(0);
            }
            NEW_PID_EXT | PID_EXT => {
                self.pid()?;
                return Ok(0);
            }
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                if self.reference()?.len > 3 {
                    *traits = traits.union(Traits::V4_NC);
                }
                return Ok(0);
            }
            _ => self.u8()?,
        };
        let children = match tag {
            SMALL_INTEGER_EXT => self.take(1).map(|_| 0)?,
            INTEGER_EXT => self.take(4).map(|_| 0)?,
            BINARY_EXT => {
                let len = self.len32()?;
                self.take(len).map(|_| 0)?
            }
            NIL_EXT => 0,
            SMALL_TUPLE_EXT => u64::from(self.u8()?),
            LARGE_TUPLE_EXT => u64::from(self.u32()?),
            LIST_EXT => u64::from(self.u32()?) + 1,
            STRING_EXT => {
                let len = usize::from(self.u16()?);
                self.take(len).map(|_| 0)?
            }
            MAP_EXT => {
                let pairs = u64::from(self.u32()?);
                if pairs > 1 {
                    *traits = traits.union(Traits::MAP);
                }
                pairs * 2
            }
            NEW_FLOAT_EXT => {
                if !f64::from_be_bytes(self.array()?).is_finite() {
                    return Err(TermError::Float);
                }
                0
            }
            FLOAT_EXT => float_text(self.take(31)?).map(|_| 0)?,
            SMALL_BIG_EXT => {
                let len = usize::from(self.u8()?);
                self.take(len + 1).map(|_| 0)?
            }
            LARGE_BIG_EXT => {
                let len = self.len32()?;
                if len > BIG_BYTES_MAX {
                    return Err(TermError::Integer);
                }
                self.take(len + 1).map(|_| 0)?
            }
            BIT_BINARY_EXT => {
                let len = self.len32()?;
                let bits = self.u8()?;
                // OTP 27 no longer reads one of no bytes at all.
                if !(1..=8).contains(&bits) || len == 0 {
                    return Err(TermError::BitBinary);
                }
                self.take(len).map(|_| 0)?
            }
            NEW_PORT_EXT => {
                self.atom()?;
                self.take(8).map(|_| 0)?
            }
            V4_PORT_EXT => {
                self.atom()?;
                *traits = traits.union(Traits::V4_NC);
                self.take(12).map(|_| 0)?
            }
            PORT_EXT => {
                self.atom()?;
                self.take(4)?;
                self.old_creation().map(|_| 0)?
            }
            EXPORT_EXT => {
                self.atom()?;
                self.atom()?;
                let [tag, _arity] = self.array()?;
                if tag != SMALL_INTEGER_EXT {
                    return Err(TermError::Export);
                }
                0
            }
            NEW_FUN_EXT => {
                // Size, arity:8, uniq:128, index:32, free:32, module, old index, old uniq, pid, free terms.
                let left_before = self.rest.len();
                let size = self.len32()?;
                self.take(1 + 16 + 4)?;
                let free = self.u32()?;
                if free > FREE_VARIABLES_MAX {
                    return Err(TermError::Fun);
                }
                self.fun_head()?;
                self.pid()?;
                let left = left_before.checked_sub(size).ok_or(TermError::Truncated)?;
                funs.push((left, pending));
                u64::from(free)
            }
            FUN_EXT => {
                // Free:32, pid, module, index, uniq, free terms.
                let free = u64::from(self.u32()?);
                self.pid()?;
                self.fun_head()?;
                *traits = traits.union(Traits::OLD_FUN);
                free
            }
            RECORD_EXT => {
                let arity = self.u32()?;
                // Whether other modules may look into it.
                if self.u8()? > 1 {
                    return Err(TermError::Record);
                }
                // Module, name, and the fields' names.
                for _ in 0..2 + u64::from(arity) {
                    self.atom()?;
                }
                *traits = traits.union(Traits::NATIVE_RECORD);
                if arity > 1 {
                    *traits = traits.union(Traits::MAP);
                }
                u64::from(arity)
            }
            other => return Err(TermError::Tag(other)),
        };
        Ok(children)
    }

    /// Module, index and uniq of a fun: an atom and two integers.
    fn fun_head(&mut self) -> Result<(), TermError> {
        self.atom()?;
        for _ in 0..2 {
            match self.u8()? {
                SMALL_INTEGER_EXT => self.take(1)?,
                INTEGER_EXT => self.take(4)?,
                SMALL_BIG_EXT => {
                    let len = usize::from(self.u8()?);
                    self.take(len + 1)?
                }
                _ => return Err(TermError::Fun),
            };
        }
        Ok(())
    }
}

/// `<[u8]>::is_ascii` for the few bytes of an atom.
#[inline]
fn is_ascii(text: &[u8]) -> bool {
    const HIGH: u64 = 0x8080_8080_8080_8080;
    if let (Some(first), Some(last)) = (text.first_chunk::<8>(), text.last_chunk::<8>())
        && text.len() <= 16
    {
        return (u64::from_ne_bytes(*first) | u64::from_ne_bytes(*last)) & HIGH == 0;
    }
    if let (Some(first), Some(last)) = (text.first_chunk::<4>(), text.last_chunk::<4>())
        && text.len() < 8
    {
        return u64::from(u32::from_ne_bytes(*first) | u32::from_ne_bytes(*last)) & HIGH == 0;
    }
    if text.len() < 4 { text.iter().fold(0, |all, byte| all | byte) < 0x80 } else { text.is_ascii() }
}

/// The number in a `FLOAT_EXT`: 31 bytes of `%.20e` text, padded with zero bytes. Digits, a point, digits, and
/// perhaps an exponent, as a BEAM reads it; the standard library would read more.
pub(super) fn float_text(bytes: &[u8]) -> Result<f64, TermError> {
    let text = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
    let sign = |text: &[u8]| usize::from(matches!(text.first(), Some(b'+' | b'-')));
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &b"0"[..]),
    };
    let mantissa = &mantissa[sign(mantissa)..];
    let point = mantissa.iter().position(|&byte| byte == b'.').ok_or(TermError::Float)?;
    if !digits(&mantissa[..point]) || !digits(&mantissa[point + 1..]) || !digits(&exponent[sign(exponent)..])
    {
        return Err(TermError::Float);
    }
    let text = std::str::from_utf8(text).map_err(|_| TermError::Float)?;
    let value: f64 = text.parse().map_err(|_| TermError::Float)?;
    if value.is_finite() { Ok(value) } else { Err(TermError::Float) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One term of every tag, most of them inside of another.
    fn one_of_each() -> Vec<Vec<u8>> {
        let node = [119, 1, b'n'];
        let of = |parts: &[&[u8]]| parts.concat();
        let float = [b"c1.50000000000000000000e+00".as_slice(), &[0; 5]].concat();
        let fun =
            of(&[&[2], &[7; 16], &[0, 0, 0, 3, 0, 0, 0, 2], &node, &[97, 3, 98, 0, 0, 1, 0, 103], &node]);
        let fun = of(&[&fun, &[0, 0, 0, 1, 0, 0, 0, 2, 3, 104, 1, 106, 107, 0, 1, 9]]);
        let fun = of(&[&[112], &(fun.len() as u32 + 4).to_be_bytes(), &fun]);
        let mut terms = vec![
            vec![97, 7],
            vec![98, 255, 0, 0, 7],
            vec![110, 2, 1, 5, 5],
            vec![111, 0, 0, 0, 2, 0, 5, 5],
            vec![70, 63, 248, 0, 0, 0, 0, 0, 0],
            float,
            vec![115, 1, 233],
            vec![100, 0, 1, 233],
            vec![119, 2, 195, 169],
            vec![118, 0, 2, 195, 169],
            vec![109, 0, 0, 0, 2, 1, 2],
            vec![77, 0, 0, 0, 2, 3, 1, 224],
            vec![106],
            vec![107, 0, 2, 1, 2],
            vec![108, 0, 0, 0, 2, 97, 1, 106, 106],
            vec![108, 0, 0, 0, 1, 97, 1, 97, 2],
            vec![104, 2, 97, 1, 106],
            vec![105, 0, 0, 0, 2, 97, 1, 106],
            vec![116, 0, 0, 0, 2, 97, 1, 97, 2, 97, 3, 106],
            of(&[&[88], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3]]),
            of(&[&[103], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 3]]),
            of(&[&[90, 0, 5], &node, &[0; 4], &[1; 20]]),
            of(&[&[114, 0, 3], &node, &[3, 0, 0, 0, 5, 1, 1, 1, 1, 1, 1, 1, 1]]),
            of(&[&[101], &node, &[0, 0, 0, 5, 3]]),
            of(&[&[120], &node, &[0; 12]]),
            of(&[&[89], &node, &[0; 8]]),
            of(&[&[102], &node, &[0, 0, 0, 5, 3]]),
            of(&[&[113], &node, &node, &[97, 2]]),
            fun.clone(),
            of(&[&[117, 0, 0, 0, 1, 103], &node, &[0, 0, 0, 1, 0, 0, 0, 2, 3], &node, &[97, 1, 97, 1, 106]]),
            of(&[&[67, 0, 0, 0, 1, 1], &node, &node, &node, &[106]]),
        ];
        let whole = of(&[&[105], &(terms.len() as u32).to_be_bytes(), &terms.concat()]);
        terms.push(of(&[&[116, 0, 0, 0, 1], &fun, &whole]));
        terms
    }

    fn parse(bytes: &[u8]) -> Result<Traits, TermError> {
        TermView::parse(bytes).map(TermView::traits)
    }

    #[test]
    fn every_kind_of_term_ends_where_it_ends() {
        for term in one_of_each() {
            assert_eq!(parse(&term).err(), None, "{term:?}");
            let more = [&term[..], &[97, 1]].concat();
            let mut cursor = Cursor::new(&more);
            assert_eq!(cursor.term().unwrap().bytes(), term);
            assert_eq!(cursor.rest(), [97, 1]);
            assert_eq!(parse(&more), Err(TermError::TrailingBytes));
        }
    }

    #[test]
    fn every_cut_is_an_error_and_no_changed_byte_a_panic() {
        for term in one_of_each() {
            for len in 0..term.len() {
                assert!(parse(&term[..len]).is_err(), "{:?}", &term[..len]);
            }
            for at in 0..term.len() {
                let mut changed = term.clone();
                for byte in 0..=255 {
                    changed[at] = byte;
                    if let Ok(view) = TermView::parse(&changed) {
                        _ = format!("{view:?}");
                        _ = super::super::key::canonical(view, &mut Vec::new());
                        _ = super::super::key::check_maps(view);
                    }
                }
            }
        }
    }

    #[test]
    fn what_needs_a_second_look_is_noticed_at_any_depth() {
        let cases = [
            (&[116, 0, 0, 0, 1, 97, 1, 97, 1][..], Traits::none()),
            (&[116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 2, 97, 2], Traits::MAP),
            (&[90, 0, 3, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Traits::none()),
            (&[90, 0, 4, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], Traits::V4_NC),
            (&[67, 0, 0, 0, 1, 0, 119, 0, 119, 0, 119, 0, 106], Traits::NATIVE_RECORD),
        ];
        for (term, traits) in cases {
            assert_eq!(parse(term), Ok(traits));
            assert_eq!(parse(&[&[104, 2, 106, 108, 0, 0, 0, 1][..], term, &[106]].concat()), Ok(traits));
        }
        let all = Traits::MAP.union(Traits::NATIVE_RECORD);
        assert!(all.contains(Traits::MAP) && all.intersects(Traits::MAP) && !all.contains(Traits::V4_NC));
        assert_eq!(Traits::from_bits(all.bits()), all);
    }

    #[test]
    fn a_count_beyond_the_bytes_is_refused_at_once() {
        for head in [&[108, 255, 255, 255, 255][..], &[105, 255, 255, 255, 255], &[116, 255, 255, 255, 255]] {
            let many = [head, &[106; 100]].concat();
            assert_eq!(parse(&many), Err(TermError::Truncated));
        }
        assert_eq!(parse(&[109, 255, 255, 255, 255, 1]), Err(TermError::Truncated));
        assert_eq!(parse(&[67, 255, 255, 255, 255, 0, 119, 0, 119, 0, 119, 0]), Err(TermError::Truncated));
    }

    #[test]
    fn depth_needs_no_stack() {
        for head in [&[104, 1][..], &[108, 0, 0, 0, 0], &[116, 0, 0, 0, 1, 106], &[105, 0, 0, 0, 1]] {
            let deep = [head.repeat(1_000_000), vec![106]].concat();
            assert!(parse(&deep).is_ok());
        }
    }

    #[test]
    fn what_a_beam_refuses_is_refused() {
        let wrong = |bytes: &[u8]| parse(bytes).unwrap_err();
        let atom = |tag: u8, text: &[u8]| [&[tag][..], &(text.len() as u16).to_be_bytes(), text].concat();
        assert_eq!(wrong(&atom(118, &[b'a'; 256])), TermError::Atom);
        assert_eq!(wrong(&atom(100, &[b'a'; 256])), TermError::Atom);
        assert_eq!(wrong(&atom(118, "é".repeat(256).as_bytes())), TermError::Atom);
        assert_eq!(wrong(&[119, 1, 255]), TermError::Atom);
        assert!(parse(&atom(118, "🙂".repeat(255).as_bytes())).is_ok());
        assert!(parse(&atom(100, &[255; 255])).is_ok());
        assert_eq!(wrong(&[70, 127, 240, 0, 0, 0, 0, 0, 0]), TermError::Float);
        assert_eq!(wrong(&[70, 127, 248, 0, 0, 0, 0, 0, 0]), TermError::Float);
        assert_eq!(wrong(&[77, 0, 0, 0, 0, 0]), TermError::BitBinary);
        assert_eq!(wrong(&[77, 0, 0, 0, 1, 0, 1]), TermError::BitBinary);
        assert_eq!(wrong(&[77, 0, 0, 0, 1, 9, 1]), TermError::BitBinary);
        assert_eq!(wrong(&[90, 0, 6, 119, 0, 0, 0, 0, 0]), TermError::Reference);
        assert_eq!(wrong(&[101, 119, 0, 0, 4, 0, 0, 1]), TermError::Reference);
        assert_eq!(wrong(&[101, 119, 0, 0, 3, 255, 255, 4]), TermError::Creation);
        assert_eq!(wrong(&[103, 119, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4]), TermError::Creation);
        assert_eq!(wrong(&[102, 119, 0, 0, 0, 0, 0, 4]), TermError::Creation);
        assert_eq!(wrong(&[113, 119, 0, 119, 0, 98, 0, 0, 0, 1]), TermError::Export);
        assert_eq!(wrong(&[67, 0, 0, 0, 0, 2, 119, 0, 119, 0]), TermError::Record);
        assert_eq!(wrong(&[131, 97, 1]), TermError::Tag(131));
        assert_eq!(wrong(&[80, 0, 0, 0, 2, 120, 156]), TermError::Tag(80));
        assert_eq!(wrong(&[]), TermError::Truncated);
        assert_eq!(Cursor::new(&[130]).version(), Err(TermError::Version(130)));
        let fun = one_of_each().swap_remove(28);
        for size in (0..=fun.len() as u32 + 8).filter(|size| *size + 1 != fun.len() as u32) {
            let mut fun = fun.clone();
            fun[1..5].copy_from_slice(&size.to_be_bytes());
            assert!(matches!(wrong(&fun), TermError::Fun | TermError::Truncated), "{size}");
        }
        let float = |text: &str| {
            let mut bytes = [0; 32];
            bytes[0] = FLOAT_EXT;
            bytes[1..=text.len()].copy_from_slice(text.as_bytes());
            parse(&bytes).is_ok()
        };
        for text in ["1.5", "+1.5", "-1.5E5", "0.0e-400", "123.25e+01"] {
            assert!(float(text), "{text}");
        }
        for text in [
            "", "1", ".5", "5.", "1.5e", " 1.5", "1.5 ", "inf", "nan", "1.0e999", "1.5e0x", "--1.5",
            "1.5e5.0",
        ] {
            assert!(!float(text), "{text}");
        }
    }

    #[test]
    fn an_atom_is_its_text_in_either_encoding() {
        let atom = |bytes| Cursor::new(bytes).atom().unwrap();
        let (latin1, utf8) = (atom(&[115, 1, 233]), atom(&[119, 2, 195, 169]));
        assert!(latin1 == "é" && utf8 == "é");
        assert_eq!(latin1.to_str(), utf8.to_str());
        // Latin-1 bytes that happen to be UTF-8 are still Latin-1.
        let both = atom(&[115, 2, 195, 169]);
        assert!(both != "é" && both == "Ã©");
        assert!(atom(&[100, 0, 2, b'o', b'k']) == "ok" && atom(&[119, 2, b'o', b'k']) != "okay");
    }

    #[test]
    fn parts_are_found_where_they_are() {
        let bytes = [104, 3, 119, 1, b'a', 97, 5, 108, 0, 0, 0, 1, 106, 106];
        let term = TermView::parse(&bytes).unwrap();
        let [a, five, list] = term.as_tuple().unwrap();
        assert!(a.is_atom("a") && !a.is_atom("b") && !five.is_atom("a"));
        assert_eq!(five.as_unsigned(), Some(5));
        assert_eq!(list.bytes(), &bytes[7..]);
        assert_eq!(list.cursor().list(), Ok(1));
        assert!(term.as_tuple::<2>().is_none() && five.as_tuple::<1>().is_none() && !list.is_nil());
        assert_eq!(term.tuple_arity(), Some(3));
        let unsigned = |bytes: &[u8]| TermView::parse(bytes).unwrap().as_unsigned();
        assert_eq!(unsigned(&[98, 0, 0, 1, 0]), Some(256));
        assert_eq!(unsigned(&[98, 255, 255, 255, 255]), None);
        assert_eq!(unsigned(&[110, 9, 0, 1, 0, 0, 0, 0, 0, 0, 128, 0]), Some((1 << 63) + 1));
        assert_eq!(unsigned(&[110, 9, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]), None);
        assert_eq!(unsigned(&[110, 1, 1, 1]), None);
        let pid = TermView::parse(&[103, 119, 1, b'n', 0, 0, 0, 1, 0, 0, 0, 2, 3]).unwrap().as_pid().unwrap();
        assert!(pid.node == "n" && (pid.id, pid.serial, pid.creation) == (1, 2, 3));
        let reference = [114, 0, 2, 119, 1, b'n', 3, 0, 0, 0, 1, 0, 0, 0, 2];
        let reference = TermView::parse(&reference).unwrap().as_reference().unwrap();
        assert_eq!((reference.creation, reference.words()), (3, &[1, 2][..]));
    }
}
