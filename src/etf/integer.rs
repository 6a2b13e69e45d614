//! Integers of any size: read from terms, added, and written as a BEAM writes them.

use std::cmp::Ordering;

use super::split::TermView;
use super::tag::{INTEGER_EXT, LARGE_BIG_EXT, SMALL_BIG_EXT, SMALL_INTEGER_EXT};
use super::writer::TermWriter;

/// An integer of any size.
///
/// ```
/// use kvnode::etf::{Integer, TermView, encode};
///
/// let most = encode(|w| _ = w.integer(i64::MAX));
/// let sum = Integer::read(TermView::parse(&most)?).unwrap().plus(&Integer::from(1));
/// assert_eq!(encode(|w| sum.write(w)), encode(|w| _ = w.unsigned(1 << 63)));
/// # Ok::<(), kvnode::etf::TermError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Integer(Form);

/// One integer has one form: what fits into the first never stands in the second.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Form {
    Small(i64),
    Big(Big),
}

/// What is no `i64`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Big {
    is_negative: bool,
    /// Of its magnitude, the least first, without zeros at the end.
    digits: Vec<u8>,
}

impl Integer {
    /// The integer that a term is; `None`: it is none. Takes memory of the term's size where it is more than an `i64`.
    pub fn read(term: TermView<'_>) -> Option<Self> {
        match *term.bytes() {
            [SMALL_INTEGER_EXT, value] => Some(Self::from(i64::from(value))),
            [INTEGER_EXT, a, b, c, d] => Some(Self::from(i64::from(i32::from_be_bytes([a, b, c, d])))),
            [SMALL_BIG_EXT, _, sign, ref digits @ ..]
            | [LARGE_BIG_EXT, _, _, _, _, sign, ref digits @ ..] => {
                Some(Self::of(sign != 0, digits.to_vec()))
            }
            _ => None,
        }
    }

    fn of(is_negative: bool, mut digits: Vec<u8>) -> Self {
        let len = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
        digits.truncate(len);
        if len <= 8 {
            let magnitude = digits.iter().rev().fold(0_i128, |value, &digit| value << 8 | i128::from(digit));
            let value = if is_negative { -magnitude } else { magnitude };
            if let Ok(small) = i64::try_from(value) {
                return Self(Form::Small(small));
            }
        }
        Self(Form::Big(Big { is_negative, digits }))
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        if let (Form::Small(one), Form::Small(other)) = (&self.0, &other.0)
            && let Some(sum) = one.checked_add(*other)
        {
            return Self(Form::Small(sum));
        }
        let (one, other) = (self.parts(), other.parts());
        if one.0 == other.0 {
            return Self::of(one.0, sum(&one.1, &other.1));
        }
        match compared(&one.1, &other.1) {
            Ordering::Less => Self::of(other.0, difference(&other.1, &one.1)),
            Ordering::Equal | Ordering::Greater => Self::of(one.0, difference(&one.1, &other.1)),
        }
    }

    /// Bytes of its magnitude: 0 for 0.
    pub fn magnitude_bytes(&self) -> usize {
        match &self.0 {
            Form::Small(value) => 8 - value.unsigned_abs().leading_zeros() as usize / 8,
            Form::Big(big) => big.digits.len(),
        }
    }

    /// Whether it is negative, and the digits of its magnitude, the least first.
    fn parts(&self) -> (bool, Vec<u8>) {
        match &self.0 {
            Form::Small(value) => (*value < 0, trimmed(value.unsigned_abs().to_le_bytes().to_vec())),
            Form::Big(big) => (big.is_negative, big.digits.clone()),
        }
    }

    /// Writes it as a term.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        let big = match &self.0 {
            Form::Small(value) => {
                w.integer(*value);
                return;
            }
            Form::Big(big) => big,
        };
        match u8::try_from(big.digits.len()) {
            Ok(len) => w.raw(&[SMALL_BIG_EXT, len, u8::from(big.is_negative)]),
            Err(_) => {
                // No term has more than 4 GiB.
                let [a, b, c, d] = (big.digits.len() as u32).to_be_bytes();
                w.raw(&[LARGE_BIG_EXT, a, b, c, d, u8::from(big.is_negative)])
            }
        };
        w.raw(&big.digits);
    }
}

impl From<i64> for Integer {
    fn from(value: i64) -> Self {
        Self(Form::Small(value))
    }
}

fn trimmed(mut digits: Vec<u8>) -> Vec<u8> {
    let len = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
    digits.truncate(len);
    digits
}

/// Of magnitudes without zeros at the end.
fn compared(one: &[u8], other: &[u8]) -> Ordering {
    one.len().cmp(&other.len()).then_with(|| one.iter().rev().cmp(other.iter().rev()))
}

fn sum(one: &[u8], other: &[u8]) -> Vec<u8> {
    let mut carry = 0;
    let len = one.len().max(other.len());
    let digit = |digits: &[u8], at: usize| u16::from(digits.get(at).copied().unwrap_or_default());
    let mut digits = Vec::with_capacity(len + 1);
    for at in 0..len {
        let sum = digit(one, at) + digit(other, at) + carry;
        digits.push(sum as u8);
        carry = sum >> 8;
    }
    digits.push(carry as u8);
    digits
}

/// The difference of two magnitudes, of which `small` is not the larger.
fn difference(large: &[u8], small: &[u8]) -> Vec<u8> {
    let mut borrow = 0;
    let take = |(at, &digit): (usize, &u8)| {
        let rest = i16::from(digit) - i16::from(small.get(at).copied().unwrap_or_default()) - borrow;
        borrow = i16::from(rest < 0);
        rest as u8
    };
    large.iter().enumerate().map(take).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::encode;
    use super::*;

    fn of(value: i128) -> Integer {
        Integer::of(value < 0, value.unsigned_abs().to_le_bytes().to_vec())
    }

    fn written(integer: &Integer) -> Vec<u8> {
        encode(|w| integer.write(w))
    }

    fn again(integer: &Integer) -> Integer {
        let bytes = written(integer);
        Integer::read(TermView::parse(&bytes).expect("a term")).expect("an integer")
    }

    fn numbers() -> impl Strategy<Value = i128> {
        let near = prop::sample::select(vec![
            0_i128,
            255,
            256,
            i128::from(i32::MAX),
            i128::from(i32::MIN),
            i128::from(i64::MAX),
            i128::from(i64::MIN),
            i128::from(u64::MAX),
        ]);
        prop_oneof![
            (near, -2..3_i128).prop_map(|(value, more)| value + more),
            any::<i64>().prop_map(i128::from),
            any::<i128>().prop_map(|value| value / 4)
        ]
    }

    proptest! {
        #[test]
        fn sums_are_those_of_numbers(one in numbers(), other in numbers()) {
            let sum = of(one).plus(&of(other));
            prop_assert_eq!(&sum, &of(one + other));
            prop_assert_eq!(again(&sum), sum);
            if let Ok(small) = i64::try_from(one) {
                prop_assert_eq!(written(&of(one)), encode(|w| _ = w.integer(small)));
            }
        }

        #[test]
        fn what_is_added_and_taken_away_again_leaves_what_was(
            one in prop::collection::vec(any::<u8>(), 0..400), one_negative: bool,
            other in prop::collection::vec(any::<u8>(), 0..400), other_negative: bool,
        ) {
            let (one, less) = (Integer::of(one_negative, one), Integer::of(!other_negative, other.clone()));
            let other = Integer::of(other_negative, other);
            let sum = one.plus(&other);
            prop_assert_eq!(&sum, &other.plus(&one));
            prop_assert_eq!(&sum.plus(&less), &one);
            prop_assert_eq!(again(&sum), sum);
        }
    }

    #[test]
    fn an_integer_is_one_whatever_form_it_comes_in() {
        let read = |bytes: &[u8]| Integer::read(TermView::parse(bytes).expect("a term"));
        for five in [&[97, 5][..], &[98, 0, 0, 0, 5], &[110, 2, 0, 5, 0], &[111, 0, 0, 0, 1, 0, 5]] {
            assert_eq!(read(five), Some(Integer::from(5)), "{five:?}");
        }
        assert_eq!(read(&[110, 1, 1, 0]), Some(Integer::from(0)), "zero has no sign");
        assert_eq!(read(&[110, 8, 1, 0, 0, 0, 0, 0, 0, 0, 128]), Some(Integer::from(i64::MIN)));
        for other in [&[106][..], &[119, 1, b'a'], &[104, 1, 97, 5], &[70, 0, 0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(read(other), None, "{other:?}");
        }
    }

    #[test]
    fn the_form_follows_from_the_size() {
        let ones = |len: usize| Integer::of(false, vec![1; len]);
        for (len, tag) in
            [(1, SMALL_INTEGER_EXT), (3, INTEGER_EXT), (255, SMALL_BIG_EXT), (256, LARGE_BIG_EXT)]
        {
            assert_eq!((written(&ones(len))[0], ones(len).magnitude_bytes()), (tag, len));
            assert_eq!(again(&ones(len)), ones(len));
        }
        assert_eq!(Integer::from(0).magnitude_bytes(), 0);
    }
}
