//! The one walker of untrusted bytes.
//!
//! Everything that a peer sends is read through a [`Cursor`]: it finds where a term ends and checks on the
//! way what a BEAM would check when it decodes it (erl_ext_dist; the limits are those of `external.c`). The
//! walk keeps one number, how many terms are still to come, and no stack: a list nested ten million deep costs
//! what a flat one costs. A count that claims more terms than there are bytes left is refused at once.
//!
//! What it does *not* do: it builds nothing, and it does not look for duplicate keys of maps (that needs to
//! compare terms: [`check_maps`](super::key::check_maps), for what is to be stored).

mod view;

pub use view::{AtomView, PidView, ReferenceView, TermError, TermView, Traits};

use super::tag::*;

/// Characters of the longest atom (erl_ext_dist, "ATOM_UTF8_EXT").
pub(crate) const ATOM_CHARS_MAX: usize = 255;
/// Longest list of bytes that is written as `STRING_EXT`: its length has 16 bits (erl_ext_dist).
pub(super) const STRING_LEN_MAX: usize = u16::MAX as usize;
/// Words of the longest reference (erl_ext_dist, "NEWER_REFERENCE_EXT"; OTP 24 and later).
pub(super) const REFERENCE_WORDS_MAX: usize = 5;
/// Largest creation in an old pid, port or reference: they had two bits for it (erl_ext_dist, "PID_EXT").
const OLD_CREATION_MAX: u32 = 3;
/// First word of an old reference: only 18 bits are significant (erl_ext_dist, "NEW_REFERENCE_EXT").
const OLD_REFERENCE_WORD_MAX: u32 = (1 << 18) - 1;
/// Bytes of the largest integer that any OTP reads (OTP 25; from 27 on it is an eighth of that).
pub(super) const BIG_BYTES_MAX: usize = (4 << 20) - 8;
/// Most variables that a fun can have closed over, as they are arguments of its function.
pub(super) const FREE_VARIABLES_MAX: u32 = 255;

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
    #[inline]
    pub fn unsigned(&mut self) -> Result<u64, TermError> {
        // All operations of control messages are so.
        if let [SMALL_INTEGER_EXT, value, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*value));
        }
        self.any_unsigned()
    }

    fn any_unsigned(&mut self) -> Result<u64, TermError> {
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
        for word in words.iter_mut().take(usize::from(len)) {
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
    /// What is wrong with it: the fault of the program that encoded it.
    #[inline]
    pub fn term(&mut self) -> Result<TermView<'a>, TermError> {
        let start = self.rest;
        let traits = match self.leaf() {
            true => Traits::none(),
            false => self.skip()?,
        };
        #[expect(clippy::indexing_slicing, reason = "what is left is the end of what there was")]
        let bytes = &start[..start.len() - self.rest.len()];
        Ok(TermView { bytes, traits })
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
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let mut parts = text.splitn(2, |byte| matches!(byte, b'e' | b'E'));
    let mantissa = without_sign(parts.next().unwrap_or_default());
    let exponent = without_sign(parts.next().unwrap_or(b"0"));
    let mut parts = mantissa.splitn(2, |&byte| byte == b'.');
    let whole = parts.next().unwrap_or_default();
    let fraction = parts.next().ok_or(TermError::Float)?;
    if ![whole, fraction, exponent].into_iter().all(digits) {
        return Err(TermError::Float);
    }
    let text = std::str::from_utf8(text).map_err(|_| TermError::Float)?;
    let value: f64 = text.parse().map_err(|_| TermError::Float)?;
    if value.is_finite() { Ok(value) } else { Err(TermError::Float) }
}

const fn without_sign(text: &[u8]) -> &[u8] {
    match text {
        [b'+' | b'-', text @ ..] | text => text,
    }
}

#[cfg(test)]
mod tests;
