//! Lengths of time with units.

use std::time::Duration;

/// Reads a length of time: `500ms`, `10s`, `5m`, `2h`, `7d`. It has a unit, as nobody is to guess it.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let millis: u64 = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("a time has a unit, ms, s, m, h or d, as in 10s".into()),
    };
    let number: u64 =
        digits.trim().parse().map_err(|_| "a time is a whole number with a unit, as in 10s".to_owned())?;
    match number.checked_mul(millis) {
        Some(0) => Err("that is no time at all".into()),
        Some(millis) => Ok(Duration::from_millis(millis)),
        None => Err("that is longer than any clock goes".into()),
    }
}

/// Writes a length of time as [`parse`] reads it, in the largest unit below a day that gives it exactly.
pub(super) fn shown(time: Duration) -> String {
    let millis = time.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let unit = units.into_iter().find(|(unit, _)| millis > 0 && millis.is_multiple_of(*unit));
    unit.map_or_else(|| format!("{millis}ms"), |(unit, name)| format!("{}{name}", millis / unit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        for (text, millis) in
            [("500ms", 500), ("10s", 10_000), ("5 m", 300_000), ("2h", 7_200_000), ("7d", 604_800_000)]
        {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in
            ["", "10", "s", "-1s", "1.5s", "1w", "0s", "99999999999999999999s", "18446744073709551615s", "1S"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
