//! Numbers of any form and width.

use super::super::key::big;
use super::super::split::float_text;
use super::super::tag::*;
use super::super::{Cursor, TermError};

/// A number as Rust can hold it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Number {
    Unsigned(u128),
    /// Below zero.
    Negative(i128),
    /// An integer of more than 128 bits.
    Huge,
    Float(f64),
}

/// Takes a number off the cursor; `None` at any other term, of which it takes nothing.
pub(super) fn number(cursor: &mut Cursor<'_>) -> Result<Option<Number>, TermError> {
    let number = match cursor.peek()? {
        SMALL_INTEGER_EXT => Number::Unsigned(cursor.array::<2>()?[1].into()),
        INTEGER_EXT => {
            let [_, value @ ..] = cursor.array::<5>()?;
            let value = i32::from_be_bytes(value);
            match u128::try_from(value) {
                Ok(value) => Number::Unsigned(value),
                Err(_) => Number::Negative(value.into()),
            }
        }
        SMALL_BIG_EXT | LARGE_BIG_EXT => {
            let (sign, digits) = big(cursor)?;
            integer(sign != 0, digits)
        }
        NEW_FLOAT_EXT => {
            let [_, value @ ..] = cursor.array::<9>()?;
            Number::Float(f64::from_be_bytes(value))
        }
        FLOAT_EXT => {
            cursor.u8()?;
            Number::Float(float_text(cursor.take(31)?)?)
        }
        _ => return Ok(None),
    };
    Ok(Some(number))
}

/// From the digits to the base 256, the lowest first; those of a wide form may be followed by zeros.
fn integer(negative: bool, digits: &[u8]) -> Number {
    const BYTES: usize = size_of::<u128>();
    if digits.iter().skip(BYTES).any(|&digit| digit != 0) {
        return Number::Huge;
    }
    let mut bytes = [0; BYTES];
    bytes.iter_mut().zip(digits).for_each(|(byte, digit)| *byte = *digit);
    let magnitude = u128::from_le_bytes(bytes);
    if !negative || magnitude == 0 {
        return Number::Unsigned(magnitude);
    }
    0_i128.checked_sub_unsigned(magnitude).map_or(Number::Huge, Number::Negative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Option<Number> {
        number(&mut Cursor::new(bytes)).unwrap()
    }

    #[test]
    fn every_form_is_the_number_that_it_is() {
        assert_eq!(read(&[97, 200]), Some(Number::Unsigned(200)));
        assert_eq!(read(&[98, 255, 255, 255, 255]), Some(Number::Negative(-1)));
        assert_eq!(read(&[98, 0, 0, 1, 0]), Some(Number::Unsigned(256)));
        assert_eq!(read(&[110, 1, 1, 5]), Some(Number::Negative(-5)));
        assert_eq!(
            read(&[111, 0, 0, 0, 20, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
            Some(Number::Unsigned(5))
        );
        assert_eq!(read(&[110, 1, 1, 0]), Some(Number::Unsigned(0)), "zero has no sign");
        assert_eq!(read(&[110, 0, 1]), Some(Number::Unsigned(0)));
        assert_eq!(read(&[70, 63, 248, 0, 0, 0, 0, 0, 0]), Some(Number::Float(1.5)));
        assert_eq!(read(&[106]), None);
    }

    #[test]
    fn the_edges_of_128_bits_are_met() {
        let big = |sign, digits: &[u8]| read(&[&[110, digits.len() as u8, sign], digits].concat());
        assert_eq!(big(0, &[255; 16]), Some(Number::Unsigned(u128::MAX)));
        assert_eq!(big(0, &[&[0; 16][..], &[1]].concat()), Some(Number::Huge));
        assert_eq!(big(1, &i128::MIN.to_le_bytes()), Some(Number::Negative(i128::MIN)));
        assert_eq!(big(1, &(i128::MIN.cast_unsigned() + 1).to_le_bytes()), Some(Number::Huge));
    }
}
