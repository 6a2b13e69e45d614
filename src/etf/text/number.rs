//! Numbers as decimal text.

use std::fmt::Write;

/// Base of the chunks that a big integer is divided into: the largest power of ten in 32 bits.
const CHUNK: u64 = 1_000_000_000;
const CHUNK_DIGITS: usize = 9;

/// From here on neighbouring floats are more than 1 apart, and are written with an exponent (erlang(3),
/// `float_to_list/2`, "short").
const EXACT_MAX: f64 = 9_007_199_254_740_992.0;

/// A float as Elixir prints it: the shortest digits that read back as the same float; a whole number below 1.0e16
/// in full, any other in the shorter of the plain and the scientific notation.
pub(super) fn float(value: f64) -> String {
    let magnitude = value.abs();
    if value == 0.0 || (1.0..1.0e16).contains(&magnitude) && magnitude.fract() == 0.0 {
        return format!("{value:.1}");
    }
    // "d.ddde-dd", or "de-dd".
    let shortest = format!("{magnitude:e}");
    let (mantissa, exponent) = shortest.split_once('e').expect("this notation has an exponent");
    let mut digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    if is_tie(magnitude, &digits) {
        // To even, as a BEAM does. An odd digit has one before it.
        let last = digits.pop().map_or(b'0', |last| last as u8 - 1);
        digits.push(char::from(last));
    }
    let exponent: i32 = exponent.parse().expect("an exponent is a small integer");
    let sign = if value < 0.0 { "-" } else { "" };
    let fraction = if digits.len() == 1 { "0" } else { &digits[1..] };
    let scientific = format!("{sign}{}.{fraction}e{exponent}", &digits[..1]);
    if magnitude >= EXACT_MAX {
        return scientific;
    }
    let plain = match usize::try_from(exponent) {
        Err(_) => format!("{sign}0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1)),
        // Not a whole number: there are digits behind the point.
        Ok(exponent) => format!("{sign}{}.{}", &digits[..=exponent], &digits[exponent + 1..]),
    };
    if plain.len() <= scientific.len() { plain } else { scientific }
}

/// Whether a float lies in the middle between `digits`, which are odd and so were rounded up, and those before.
fn is_tie(magnitude: f64, digits: &str) -> bool {
    if digits.bytes().last().is_none_or(|last| last % 2 == 0) {
        return false;
    }
    let exact: String = format!("{magnitude:.40e}").chars().filter(char::is_ascii_digit).collect();
    let (kept, rest) = exact.split_at(digits.len());
    let middle = rest.strip_prefix('5').is_some_and(|rest| rest[..20].bytes().all(|digit| digit == b'0'));
    middle && kept != digits
}

/// A big integer from its digits to the base 256, the lowest first. The work grows with the square of their
/// number.
pub(super) fn big(negative: bool, digits: &[u8]) -> String {
    let mut limbs: Vec<u32> = digits
        .chunks(4)
        .map(|chunk| chunk.iter().rev().fold(0, |limb, &digit| limb << 8 | u32::from(digit)))
        .collect();
    let mut chunks = Vec::new();
    loop {
        while limbs.last() == Some(&0) {
            limbs.pop();
        }
        if limbs.is_empty() {
            break;
        }
        let remainder = limbs.iter_mut().rev().fold(0, |remainder, limb| {
            let value = remainder << 32 | u64::from(*limb);
            *limb = (value / CHUNK) as u32;
            value % CHUNK
        });
        chunks.push(remainder);
    }
    let mut text = String::with_capacity(chunks.len() * CHUNK_DIGITS + 1);
    match chunks.pop() {
        None => text.push('0'),
        Some(first) => {
            _ = write!(text, "{}{first}", if negative { "-" } else { "" });
            chunks.iter().rev().for_each(|chunk| _ = write!(text, "{chunk:09}"));
        }
    }
    text
}

/// The digits to the base 256, the lowest first and without zeros at the end, of an integer that is written to
/// the base `base` (at most 36). The work grows with the square of their number.
pub(super) fn magnitude(digits: &str, base: u32) -> Vec<u8> {
    // As many digits at a time as fit a limb, whatever the base.
    const STEP: usize = 6;
    let mut limbs: Vec<u32> = Vec::new();
    for chunk in digits.as_bytes().chunks(STEP) {
        let (mut carry, mut factor) = (0_u64, 1_u64);
        for &digit in chunk {
            let digit = char::from(digit).to_digit(base).unwrap_or_default();
            carry = carry * u64::from(base) + u64::from(digit);
            factor *= u64::from(base);
        }
        for limb in &mut limbs {
            let value = u64::from(*limb) * factor + carry;
            *limb = value as u32;
            carry = value >> 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut bytes: Vec<u8> = limbs.iter().flat_map(|limb| limb.to_le_bytes()).collect();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::excessive_precision, reason = "the ties between two shortest forms are what is tested")]
    fn floats_read_as_elixir_prints_them() {
        for (value, text) in [
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (1.0, "1.0"),
            (-1.5, "-1.5"),
            (1.0e10, "10000000000.0"),
            (1.0e15, "1000000000000000.0"),
            (1.0e16, "1.0e16"),
            (9_007_199_254_740_992.0, "9007199254740992.0"),
            (9_007_199_254_740_994.0, "9007199254740994.0"),
            (123_456_789_012_345_680.0, "1.2345678901234568e17"),
            (0.001, "0.001"),
            (0.0001, "0.0001"),
            (0.00001, "1.0e-5"),
            (-0.00012, "-1.2e-4"),
            (0.00123, "0.00123"),
            (1.5e-7, "1.5e-7"),
            (123_456.789, "123456.789"),
            (5.0e-324, "5.0e-324"),
            (f64::MAX, "1.7976931348623157e308"),
            (0.1 + 0.2, "0.30000000000000004"),
            (605_577_824_972_827.25, "605577824972827.2"),
            (605_577_824_972_827.75, "605577824972827.8"),
        ] {
            assert_eq!(float(value), text);
        }
    }

    #[test]
    fn digits_of_every_base_are_read_as_128_bits_read_them() {
        for value in [0, 1, 255, 256, 999_999_999, 1 << 32, u128::from(u64::MAX), u128::MAX] {
            let trimmed = |bytes: &[u8]| {
                let len = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
                bytes[..len].to_vec()
            };
            for (text, base) in [
                (format!("{value}"), 10),
                (format!("{value:x}"), 16),
                (format!("{value:o}"), 8),
                (format!("00{value:b}"), 2),
            ] {
                assert_eq!(
                    magnitude(&text, base),
                    trimmed(&value.to_le_bytes()),
                    "{text} to the base {base}"
                );
            }
        }
    }

    #[test]
    fn big_integers_agree_with_128_bits() {
        for value in [0, 1, 255, 999_999_999, 1_000_000_000, u128::from(u64::MAX), u128::MAX, 10_u128.pow(37)]
        {
            assert_eq!(big(false, &value.to_le_bytes()), value.to_string());
            let sign = if value == 0 { "" } else { "-" };
            assert_eq!(big(true, &value.to_le_bytes()), format!("{sign}{value}"));
        }
        let power = [[0; 100].as_slice(), &[1]].concat();
        let text = big(false, &power);
        assert_eq!(text.len(), 241);
        assert!(
            text.starts_with("6668014432879854274079851790721257797144758322315908160396257811764"),
            "{text}"
        );
    }
}
