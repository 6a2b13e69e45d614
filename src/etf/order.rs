//! Bytes that sort as Erlang sorts terms.
//!
//! [`order_key`] gives bytes whose order is that of `:lists.sort/1` (Erlang Reference Manual, "Term Comparisons"): what an
//! index, a range or a prefix of keys is made of. Two terms have the same bytes exactly when they are `=:=`; of two that
//! are `==` and not `=:=`, as `1` and `1.0`, either comes first, always the same one.
//!
//! ```text
//! order key    main, 1, ties
//! main         a byte for the kind of term, in Erlang's order of kinds, and what that kind is compared by
//! ties         a byte for each number in the term that is compared by its value: integer, float, -0.0
//! ```
//!
//! | kind | is compared by |
//! | --- | --- |
//! | number | sign, binary exponent, the digits behind the first one: an integer and a float of one value are the same |
//! | atom | its text |
//! | reference | its node, creation, and words from the last to the first |
//! | fun | its canonical bytes: the order of funs is a BEAM's own |
//! | port | its node, creation and number |
//! | pid | its number, then its node and creation |
//! | tuple | how many elements it has, then these |
//! | native record | its canonical bytes |
//! | map | how many pairs it has, then its keys, in their order, then its values; among keys every integer is below every float, and -0.0 is below 0.0, as from OTP 27 on. A map in 32 others, and one of more than 65,536 bytes, is above all others, by its canonical bytes |
//! | list | head, then tail: an empty list is below any other |
//! | bit string | its bits |
//!
//! What has no bound ends with a byte 0, and a 0 in it is followed by 255. A negative number is all of that inverted.
//!
//! A main part may be the beginning of another one, as that of 1024 is of 1025's; but what follows then, in the other one, is the 255 of
//! an escaped 0, or, in a negative number, its inverse. Behind the whole of a main part, and behind that of an element, there are the
//! ties, another element or a tail, which begin with neither. Stores on disk keep these bytes: another order wants a new format of their folders.

mod range;

pub use range::{Seen, TermRange};

use super::key;
use super::split::{Cursor, TermError, TermView};
use super::tag::*;

/// Maps inside maps that are put in order; an inner one is compared by its canonical bytes.
const OPEN_MAPS_MAX: usize = 32;
/// So is a map of more bytes than this: all keys of a map are held together to be put in order.
const MAP_BYTES_MAX: usize = 64 << 10;

const EXACT_INTEGER: u8 = 0x10;
const EXACT_FLOAT: u8 = 0x11;
const NUMBER: u8 = 0x10;
const ATOM: u8 = 0x20;
const REFERENCE: u8 = 0x28;
const FUN: u8 = 0x30;
const PORT: u8 = 0x38;
const PID: u8 = 0x40;
const TUPLE: u8 = 0x48;
const RECORD: u8 = 0x4c;
const MAP: u8 = 0x50;
const NIL: u8 = 0x58;
const LIST: u8 = 0x60;
const BITS: u8 = 0x68;

/// A map that is compared by its canonical bytes.
const DEEP_MAP: u8 = 0xff;
/// Between the main part and the ties. Above the end of anything without a bound, and below all that can go on there.
const TIES: u8 = 1;

/// The bytes of a term that sort as the term does.
///
/// # Errors
/// Those of [`canonical`](key::canonical): the fault of the node that encoded the term.
pub fn order_key(term: TermView<'_>) -> Result<Vec<u8>, TermError> {
    Ok(order_head(term, usize::MAX)?.0)
}

/// The first `max` bytes of [`order_key`], and whether they are all of it. What takes long of a long term is left out: the rest of
/// it is not looked at.
///
/// # Errors
/// Those of [`order_key`].
pub fn order_head(term: TermView<'_>, max: usize) -> Result<(Vec<u8>, bool), TermError> {
    let mut scratch = Vec::new();
    canonical_order_head(key::canonical(term, &mut scratch)?, max)
}

/// The same of a term's canonical bytes.
///
/// # Errors
/// They are no term.
pub fn canonical_order_head(canonical: &[u8], max: usize) -> Result<(Vec<u8>, bool), TermError> {
    let Out { mut main, ties } = written(canonical, max)?;
    main.push(TIES);
    main.extend_from_slice(&ties);
    let is_whole = main.len() <= max;
    main.truncate(max);
    Ok((main, is_whole))
}

/// What is the same for all terms that are `==`, and for no others.
fn main_part(term: TermView<'_>) -> Result<Vec<u8>, TermError> {
    let mut scratch = Vec::new();
    Ok(written(key::canonical(term, &mut scratch)?, usize::MAX)?.main)
}

/// Both parts, as far as `max` bytes go.
fn written(canonical: &[u8], max: usize) -> Result<Out, TermError> {
    let mut writer = Writer {
        input: Cursor::new(canonical),
        max,
        open: vec![Frame::Terms { left: 1 }],
        maps: Vec::new(),
        keys: 0,
        out: Out::default(),
    };
    while let Some(frame) = writer.open.pop() {
        writer.go_on(frame)?;
        // A map is not written before it is read.
        if writer.out.main.len() > max && writer.maps.is_empty() {
            break;
        }
    }
    Ok(writer.out)
}

/// A term that has been begun.
#[derive(Clone, Copy, Debug)]
enum Frame {
    /// So many terms follow.
    Terms { left: usize },
    /// So many elements of a list follow, and its tail.
    List { left: usize },
    /// So many keys and values of a map follow, in turn.
    Map { left: usize },
}

/// What is written: of the whole, or of a key or a value of a map, which are put in order then.
#[derive(Default)]
struct Out {
    main: Vec<u8>,
    ties: Vec<u8>,
}

/// A map that is read.
struct OpenMap {
    /// What was written before it.
    around: Out,
    pairs: Vec<(Vec<u8>, Out)>,
}

struct Writer<'a> {
    input: Cursor<'a>,
    /// Bytes of the main part that are wanted.
    max: usize,
    open: Vec<Frame>,
    maps: Vec<OpenMap>,
    /// Maps of which a key is being read.
    keys: usize,
    out: Out,
}

impl Writer<'_> {
    fn go_on(&mut self, frame: Frame) -> Result<(), TermError> {
        match frame {
            Frame::Terms { left: 0 } => Ok(()),
            Frame::Terms { left } => {
                self.open.push(Frame::Terms { left: left - 1 });
                self.term()
            }
            Frame::List { left: 0 } => self.term(),
            Frame::List { left } => {
                self.open.push(Frame::List { left: left - 1 });
                self.out.main.push(LIST);
                self.term()
            }
            Frame::Map { left } => self.map_part(left),
        }
    }

    /// The next key or value of the innermost map; what has been written since the last one is that.
    fn map_part(&mut self, left: usize) -> Result<(), TermError> {
        let Some(map) = self.maps.last_mut() else { return Ok(()) };
        let part = std::mem::take(&mut self.out);
        if left % 2 == 1 {
            // Among keys no two are only `==`.
            self.keys -= 1;
            map.pairs.push((part.main, Out::default()));
        } else if let Some((_, value)) = map.pairs.last_mut() {
            *value = part;
        }
        if left > 0 {
            self.keys += usize::from(left.is_multiple_of(2));
            self.open.push(Frame::Map { left: left - 1 });
            return self.term();
        }
        if let Some(OpenMap { around, mut pairs }) = self.maps.pop() {
            self.out = around;
            pairs.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
            for (key, _) in &pairs {
                self.out.main.extend_from_slice(key);
            }
            for (_, value) in &pairs {
                self.out.main.extend_from_slice(&value.main);
                self.out.ties.extend_from_slice(&value.ties);
            }
        }
        Ok(())
    }

    fn term(&mut self) -> Result<(), TermError> {
        let tag = self.input.peek()?;
        match tag {
            SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT => {
                let number = self.integer(tag)?;
                self.number(&number, EXACT_INTEGER, 0);
            }
            NEW_FLOAT_EXT => {
                let [_, value @ ..] = self.input.array::<9>()?;
                let value = f64::from_be_bytes(value);
                let tie = if value == 0.0 && value.is_sign_negative() { 2 } else { 1 };
                self.number(&Number::of_float(value), EXACT_FLOAT, tie);
            }
            SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT => {
                self.out.main.push(ATOM);
                let text = self.input.atom()?.as_bytes();
                self.unbounded(text);
            }
            NEWER_REFERENCE_EXT => self.reference()?,
            NEW_PORT_EXT | V4_PORT_EXT => self.port(tag)?,
            NEW_PID_EXT => {
                let pid = self.input.pid()?;
                self.out.main.push(PID);
                self.out.main.extend_from_slice(&pid.serial.to_be_bytes());
                self.out.main.extend_from_slice(&pid.id.to_be_bytes());
                self.unbounded(pid.node.as_bytes());
                self.out.main.extend_from_slice(&pid.creation.to_be_bytes());
            }
            SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => {
                let arity = self.input.tuple()?;
                self.counted(TUPLE, arity);
                self.open.push(Frame::Terms { left: arity });
            }
            MAP_EXT => self.map()?,
            NIL_EXT => {
                self.input.u8()?;
                self.out.main.push(NIL);
            }
            LIST_EXT => {
                let left = self.input.list()?;
                self.open.push(Frame::List { left });
            }
            STRING_EXT => {
                let [_, len @ ..] = self.input.array::<3>()?;
                for &byte in self.input.take(u16::from_be_bytes(len).into())? {
                    if self.wanted() == 0 {
                        break;
                    }
                    self.out.main.push(LIST);
                    self.number(&Number::of_integer(false, &[byte]), EXACT_INTEGER, 0);
                }
                self.out.main.push(NIL);
            }
            BINARY_EXT => {
                let bytes = self.input.binary()?;
                self.bits(bytes, 8);
            }
            BIT_BINARY_EXT => {
                let [_, len @ .., last] = self.input.array::<6>()?;
                let bytes = self.input.take(u32::from_be_bytes(len) as usize)?;
                self.bits(bytes, last);
            }
            _ => {
                let bytes = self.input.term()?.bytes();
                self.out.main.push(if tag == RECORD_EXT { RECORD } else { FUN });
                self.unbounded(bytes);
            }
        }
        Ok(())
    }

    fn integer(&mut self, tag: u8) -> Result<Number, TermError> {
        Ok(match tag {
            SMALL_INTEGER_EXT => {
                let [_, value] = self.input.array::<2>()?;
                Number::of_integer(false, &[value])
            }
            INTEGER_EXT => {
                let [_, value @ ..] = self.input.array::<5>()?;
                let value = i32::from_be_bytes(value);
                Number::of_integer(value < 0, &value.unsigned_abs().to_le_bytes())
            }
            _ => {
                self.input.u8()?;
                let len = if tag == SMALL_BIG_EXT {
                    usize::from(self.input.u8()?)
                } else {
                    u32::from_be_bytes(self.input.array()?) as usize
                };
                let is_negative = self.input.u8()? != 0;
                Number::of_integer(is_negative, self.input.take(len)?)
            }
        })
    }

    fn number(&mut self, number: &Number, exact: u8, tie: u8) {
        if self.keys > 0 {
            self.out.main.push(exact);
        } else {
            self.out.main.push(NUMBER);
            self.out.ties.push(tie);
        }
        number.write(&mut self.out.main);
        if self.keys > 0 && exact == EXACT_FLOAT && number.is_zero {
            // It is written as one byte: what tells one zero from the other comes behind.
            self.out.main.push(tie);
        }
    }

    fn reference(&mut self) -> Result<(), TermError> {
        let reference = self.input.reference()?;
        self.out.main.push(REFERENCE);
        self.unbounded(reference.node.as_bytes());
        self.out.main.extend_from_slice(&reference.creation.to_be_bytes());
        let mut words = [0; 5];
        for (word, given) in words.iter_mut().zip(reference.words()) {
            *word = *given;
        }
        for word in words.iter().rev() {
            self.out.main.extend_from_slice(&word.to_be_bytes());
        }
        Ok(())
    }

    fn port(&mut self, tag: u8) -> Result<(), TermError> {
        self.input.u8()?;
        let node = self.input.atom()?.as_bytes();
        let number = if tag == V4_PORT_EXT {
            u64::from_be_bytes(self.input.array()?)
        } else {
            u64::from(u32::from_be_bytes(self.input.array()?))
        };
        let creation: [u8; 4] = self.input.array()?;
        self.out.main.push(PORT);
        self.unbounded(node);
        self.out.main.extend_from_slice(&creation);
        self.out.main.extend_from_slice(&number.to_be_bytes());
        Ok(())
    }

    fn map(&mut self) -> Result<(), TermError> {
        if self.maps.len() >= OPEN_MAPS_MAX || self.is_large()? {
            let bytes = self.input.term()?.bytes();
            self.out.main.extend_from_slice(&[MAP, DEEP_MAP]);
            self.unbounded(bytes);
            return Ok(());
        }
        let pairs = self.input.map()?;
        self.counted(MAP, pairs);
        let around = std::mem::take(&mut self.out);
        self.maps.push(OpenMap { around, pairs: Vec::new() });
        if pairs > 0 {
            self.keys += 1;
            self.open.push(Frame::Map { left: 2 * pairs - 1 });
            return self.term();
        }
        if let Some(OpenMap { around, .. }) = self.maps.pop() {
            self.out = around;
        }
        Ok(())
    }

    /// Whether the map that comes has too many bytes to be put in order.
    fn is_large(&self) -> Result<bool, TermError> {
        let mut ahead = self.input;
        Ok(ahead.rest().len() > MAP_BYTES_MAX && ahead.term()?.bytes().len() > MAP_BYTES_MAX)
    }

    /// A kind that is compared by how many parts it has.
    fn counted(&mut self, kind: u8, count: usize) {
        self.out.main.push(kind);
        write_count(count as u64, &mut self.out.main);
    }

    /// Bytes that are still wanted, and one more: that tells that there are more. Of a part of a map as many as of all.
    fn wanted(&self) -> usize {
        let wanted = self.max.saturating_add(1);
        if self.maps.is_empty() { wanted.saturating_sub(self.out.main.len()) } else { wanted }
    }

    fn unbounded(&mut self, bytes: &[u8]) {
        escape(bytes.get(..self.wanted()).unwrap_or(bytes), &mut self.out.main);
        self.out.main.push(0);
    }

    /// `last`: bits of the last byte.
    fn bits(&mut self, bytes: &[u8], last: u8) {
        self.out.main.push(BITS);
        self.unbounded(bytes);
        self.out.main.push(if bytes.is_empty() { 0 } else { last });
    }
}

fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        out.push(byte);
        if byte == 0 {
            out.push(0xff);
        }
    }
}

/// A count in a few bytes: below 240 one, else how many bytes follow.
fn write_count(count: u64, out: &mut Vec<u8>) {
    match u8::try_from(count) {
        Ok(count @ 0..0xf0) => out.push(count),
        _ => {
            let bytes = count.to_be_bytes();
            let zeros = (count.leading_zeros() / 8) as usize;
            out.push(0xf0 + (8 - zeros) as u8);
            out.extend(bytes.iter().skip(zeros));
        }
    }
}

/// A number as it is compared: 0, or `1.digits` times two to the power of `exponent`.
struct Number {
    is_zero: bool,
    is_negative: bool,
    exponent: i64,
    /// Bits behind the first one, without zeros at the end.
    digits: Vec<u8>,
}

/// Exponents from here up to the other are one byte: those of usual numbers.
const EXPONENT_MIN: i64 = -32;
const EXPONENT_MAX: i64 = 191;

impl Number {
    const ZERO: Self = Self { is_zero: true, is_negative: false, exponent: 0, digits: Vec::new() };

    /// Of digits to base 256, the lowest first.
    fn of_integer(is_negative: bool, digits: &[u8]) -> Self {
        let Some(top) = digits.iter().rposition(|&digit| digit != 0) else { return Self::ZERO };
        let highest = digits.get(top).copied().unwrap_or_default();
        let below = digits.get(..top).unwrap_or_default();
        let zeros = highest.leading_zeros();
        Self {
            is_zero: false,
            is_negative,
            exponent: top as i64 * 8 + i64::from(7 - zeros),
            digits: behind_first(std::iter::once(highest).chain(below.iter().rev().copied()), zeros + 1),
        }
    }

    fn of_float(value: f64) -> Self {
        let bits = value.to_bits();
        let (exponent, fraction) = ((bits >> 52) & 0x7ff, bits & ((1 << 52) - 1));
        let (exponent, fraction) = match (exponent, fraction) {
            (0, 0) => return Self::ZERO,
            // As every other number, with its first bit where it is.
            (0, _) => {
                let zeros = fraction.leading_zeros();
                (-1022 - i64::from(zeros - 11), fraction.checked_shl(zeros + 1).unwrap_or_default())
            }
            _ => (exponent as i64 - 1023, fraction << 12),
        };
        Self {
            is_zero: false,
            is_negative: value < 0.0,
            exponent,
            digits: behind_first(fraction.to_be_bytes().into_iter(), 0),
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        if self.is_zero {
            return out.push(0x80);
        }
        let start = out.len();
        out.push(0x81);
        match self.exponent {
            exponent @ EXPONENT_MIN..=EXPONENT_MAX => out.push((exponent - EXPONENT_MIN) as u8 + 0x10),
            exponent if exponent > EXPONENT_MAX => {
                let above = (exponent - EXPONENT_MAX) as u64;
                let zeros = (above.leading_zeros() / 8) as usize;
                out.push(0xf0 + (8 - zeros) as u8);
                out.extend(above.to_be_bytes().iter().skip(zeros));
            }
            exponent => {
                let below = (EXPONENT_MIN - exponent) as u64;
                let zeros = (below.leading_zeros() / 8) as usize;
                out.push(0x0f - (8 - zeros) as u8);
                out.extend(below.to_be_bytes().iter().skip(zeros).map(|byte| !byte));
            }
        }
        escape(&self.digits, out);
        out.push(0);
        if self.is_negative {
            out.iter_mut().skip(start).for_each(|byte| *byte = !*byte);
        }
    }
}

/// Bits of these bytes but for the first ones, from the highest on, without bytes of zeros at the end.
fn behind_first(bytes: impl Iterator<Item = u8>, first: u32) -> Vec<u8> {
    let mut shifted = Vec::new();
    let mut before: Option<u8> = None;
    for byte in bytes.chain(std::iter::once(0)) {
        if let Some(before) = before {
            let both = u16::from(before) << 8 | u16::from(byte);
            shifted.push(((both << first) >> 8) as u8);
        }
        before = Some(byte);
    }
    while shifted.last() == Some(&0) {
        shifted.pop();
    }
    shifted
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{TermWriter, encode};

    fn key_of(write: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
        order_key(TermView::parse(&encode(write)).expect("our own term")).expect("it has an order")
    }

    #[test]
    fn kinds_numbers_and_heads_come_in_erlangs_order() {
        let keys = [
            key_of(|w| _ = w.float(-1.0e300)),
            key_of(|w| _ = w.integer(-256)),
            key_of(|w| _ = w.integer(-255)),
            key_of(|w| _ = w.float(-0.5)),
            key_of(|w| _ = w.float(-5.0e-324)),
            key_of(|w| _ = w.integer(0)),
            key_of(|w| _ = w.float(5.0e-324)),
            key_of(|w| _ = w.integer(1)),
            key_of(|w| _ = w.float(1.5)),
            key_of(|w| _ = w.integer(i64::MAX)),
            key_of(|w| _ = w.float(1.0e300)),
            key_of(|w| _ = w.atom("")),
            key_of(|w| _ = w.atom("a")),
            key_of(|w| _ = w.atom("a\0")),
            key_of(|w| _ = w.atom("ab")),
            key_of(|w| _ = w.tuple(0)),
            key_of(|w| _ = w.tuple(1).atom("z")),
            key_of(|w| _ = w.tuple(2).integer(1).atom("a")),
            key_of(|w| _ = w.tuple(2).float(1.0).atom("b")),
            key_of(|w| _ = w.map(0)),
            key_of(|w| _ = w.map(1).integer(9).atom("a")),
            key_of(|w| _ = w.map(1).float(1.0).atom("a")),
            key_of(|w| _ = w.nil()),
            key_of(|w| _ = w.list(1).integer(1).integer(2)),
            key_of(|w| _ = w.list(1).integer(1).nil()),
            key_of(|w| _ = w.list(2).integer(1).integer(0).nil()),
            key_of(|w| _ = w.binary(b"")),
            key_of(|w| _ = w.binary(b"\0")),
            key_of(|w| _ = w.binary(b"\0\0")),
            key_of(|w| _ = w.binary(b"\x01")),
        ];
        for (at, pair) in keys.windows(2).enumerate() {
            assert!(pair[0] < pair[1], "{at}: {pair:?}");
        }
        assert_ne!(key_of(|w| _ = w.integer(1)), key_of(|w| _ = w.float(1.0)));
    }

    #[test]
    fn a_head_is_the_beginning_of_the_key_and_of_a_large_map_nothing_is_put_in_order() {
        let term = encode(|w| {
            let w = w.tuple(3).map(2).atom("k").binary(&[0; 90]).integer(-1).float(0.5);
            _ = w.list(2).integer(70_000).atom("x").binary(&[7; 300]).binary(&[9; 200]);
        });
        let term = TermView::parse(&term).expect("our own term");
        let whole = order_key(term).expect("it has an order");
        for max in 0..whole.len() + 3 {
            let (head, is_whole) = order_head(term, max).expect("it has an order");
            assert_eq!((&head[..], is_whole), (&whole[..max.min(whole.len())], max >= whole.len()));
        }
        let large = |last: i64| {
            encode(|w| {
                let w = w.map(10_000);
                for key in 0..10_000 {
                    w.integer(10_000 + key).integer(if key == 9_999 { last } else { 1 });
                }
            })
        };
        let keys = [large(1), large(2)].map(|term| order_key(TermView::parse(&term).unwrap()).unwrap());
        assert!(keys[0] < keys[1] && keys[0].starts_with(&[MAP, DEEP_MAP]));
    }

    #[test]
    fn a_term_of_any_depth_has_bytes_of_about_its_length() {
        const DEPTH: usize = 200_000;
        for inner in
            [&[SMALL_TUPLE_EXT, 1][..], &[LIST_EXT, 0, 0, 0, 1], &[MAP_EXT, 0, 0, 0, 1, SMALL_INTEGER_EXT, 7]]
        {
            let mut term = inner.repeat(DEPTH);
            term.push(NIL_EXT);
            if inner[0] == LIST_EXT {
                term.resize(term.len() + DEPTH, NIL_EXT);
            }
            let key = order_key(TermView::parse(&term).expect("a term")).expect("it has an order");
            assert!(key.len() < term.len() * 2 + 4_000, "{} bytes of {}", key.len(), term.len());
        }
    }
}
