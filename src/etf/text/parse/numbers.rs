//! Numbers as Elixir writes them (*Syntax reference*, "Numbers").

use super::{Cursor, ParseProblem};
use crate::etf::tag::{LARGE_BIG_EXT, SMALL_BIG_EXT};
use crate::etf::text::number;
use crate::etf::{TermWriter, encode};

/// Digits of the longest integer: what the printer shows in full (16 KiB of it). The work grows with the square.
const DIGITS_MAX: usize = 39_457;

/// An integer: its sign, and its digits to the base 256, the lowest first, without zeros at the end.
pub(super) struct Integer {
    pub(super) negative: bool,
    pub(super) magnitude: Vec<u8>,
}

impl Integer {
    pub(super) fn write(&self, w: &mut TermWriter<'_>) {
        let mut low = [0; 8];
        let len = self.magnitude.len();
        if len <= 8 {
            low.iter_mut().zip(&self.magnitude).for_each(|(low, byte)| *low = *byte);
            let low = u64::from_le_bytes(low);
            if !self.negative {
                w.unsigned(low);
                return;
            }
            if let Some(value) = 0_i64.checked_sub_unsigned(low) {
                w.integer(value);
                return;
            }
        }
        let sign = u8::from(self.negative);
        match u8::try_from(len) {
            Ok(len) => w.raw(&[SMALL_BIG_EXT, len, sign]),
            // As many digits as may be typed are far fewer than 4 GiB.
            Err(_) => w.raw(&[LARGE_BIG_EXT]).raw(&(len as u32).to_be_bytes()).raw(&[sign]),
        };
        w.raw(&self.magnitude);
    }

    /// The lowest `bits` in two's complement, the highest byte first, unused bits of the last one zero and below.
    pub(super) fn low_bits(&self, bits: usize) -> Vec<bool> {
        let bit = |at: usize| self.magnitude.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
        let mut low: Vec<bool> = (0..bits).map(bit).collect();
        if self.negative {
            // Invert and add one: all above the lowest one is inverted.
            let first = low.iter().position(|&bit| bit).map_or(bits, |at| at + 1);
            low.iter_mut().skip(first).for_each(|bit| *bit = !*bit);
        }
        low.reverse();
        low
    }
}

pub(super) enum Number {
    Integer(Integer),
    Float(f64),
}

impl Number {
    pub(super) fn encoded(&self) -> Vec<u8> {
        encode(|w| match self {
            Self::Integer(integer) => integer.write(w),
            Self::Float(value) => _ = w.float(*value),
        })
    }
}

/// Reads a number; the cursor is at its sign or its first digit.
///
/// # Errors
/// What is wrong, at the cursor.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Result<Number, ParseProblem> {
    let start = cursor.clone();
    let negative = cursor.peek() == Some('-');
    if negative || cursor.peek() == Some('+') {
        cursor.advance(1);
    }
    if !cursor.peek().is_some_and(|char| char.is_ascii_digit()) {
        return Err(ParseProblem::Wanted("a number, or a space behind an operator that is a key,"));
    }
    for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if cursor.take_str(prefix) {
            let digits = digits(cursor, base)?;
            end(cursor)?;
            return Ok(Number::Integer(Integer { negative, magnitude: number::magnitude(&digits, base) }));
        }
    }
    let whole = digits(cursor, 10)?;
    let mut after = cursor.clone();
    // `1.` and `1..2` are something else.
    let fraction = after.take_char('.') && after.peek().is_some_and(|char| char.is_ascii_digit());
    if !fraction {
        end(cursor)?;
        return Ok(Number::Integer(Integer { negative, magnitude: number::magnitude(&whole, 10) }));
    }
    let fraction = digits(&mut after, 10)?;
    let mut text = format!("{}{whole}.{fraction}", if negative { "-" } else { "" });
    if after.peek().is_some_and(|char| matches!(char, 'e' | 'E')) {
        after.advance(1);
        let sign = if after.take_char('-') {
            "-"
        } else {
            after.take_char('+');
            ""
        };
        if !after.peek().is_some_and(|char| char.is_ascii_digit()) {
            *cursor = after;
            return Err(ParseProblem::Number("an exponent needs digits, as in 1.0e10"));
        }
        let exponent = digits(&mut after, 10)?;
        text.push_str(&format!("e{sign}{exponent}"));
    }
    let value: f64 = text.parse().map_err(|_| ParseProblem::Number("no number"))?;
    if !value.is_finite() {
        *cursor = start;
        return Err(ParseProblem::Number("this is larger than any float, 1.7976931348623157e308"));
    }
    *cursor = after;
    end(cursor)?;
    Ok(Number::Float(value))
}

fn end(cursor: &Cursor<'_>) -> Result<(), ParseProblem> {
    match cursor.peek() {
        Some('.') if cursor.rest().starts_with("..") => Err(ParseProblem::Unsupported(
            "a range, which is a struct; write the map that it is, as in %{__struct__: Range, first: 1, last: 2, step: 1}",
        )),
        Some(char) if char.is_alphanumeric() || char == '_' => {
            Err(ParseProblem::Number("a number ends here, and something else begins without a comma"))
        }
        _ => Ok(()),
    }
}

/// Digits, with single underscores between them, which are left out.
fn digits(cursor: &mut Cursor<'_>, base: u32) -> Result<String, ParseProblem> {
    let mut digits = String::new();
    loop {
        let part = cursor.take_while(DIGITS_MAX + 1, |char| char.is_digit(base));
        if part.is_empty() {
            return Err(ParseProblem::Number("a digit of the number is missing"));
        }
        digits.push_str(part);
        if digits.len() > DIGITS_MAX {
            return Err(ParseProblem::Number("an integer of so many digits is not read"));
        }
        if !cursor.take_char('_') {
            return Ok(digits);
        }
    }
}
