//! Sizes with units.

/// Reads a number of bytes: `65536`, `64KiB`, `64MiB`, `1GiB`, `64MB`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<usize, String> {
    let digits = text.trim_end_matches(|character: char| character.is_ascii_alphabetic());
    let unit = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kib" | "k" => 1 << 10,
        "mib" | "m" => 1 << 20,
        "gib" | "g" => 1 << 30,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        _ => {
            return Err(
                "a size is a number of bytes, or one with KiB, MiB or GiB behind it, as in 64MiB".into()
            );
        }
    };
    let number: usize =
        digits.trim().parse().map_err(|_| "a size is a whole number, as in 65536 or 64MiB".to_owned())?;
    number.checked_mul(unit).ok_or_else(|| "that is more than this machine can count".to_owned())
}

/// Writes a number of bytes as [`parse`] reads it, in the largest unit that gives it exactly.
pub(super) fn shown(bytes: usize) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(unit, _)| bytes > 0 && bytes.is_multiple_of(*unit));
    unit.map_or_else(|| bytes.to_string(), |(unit, name)| format!("{}{name}", bytes / unit))
}

/// Writes a number of bytes for people, in the unit that leaves few digits.
pub(super) fn short(len: u64) -> String {
    match len as f64 {
        n if n >= 1_073_741_824.0 => format!("{:.1} GiB", n / 1_073_741_824.0),
        n if n >= 1_048_576.0 => format!("{:.1} MiB", n / 1_048_576.0),
        n if n >= 1_024.0 => format!("{:.1} KiB", n / 1_024.0),
        n => format!("{n:.0} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse("65536"), Ok(65_536));
        assert_eq!(parse("64MiB"), Ok(64 << 20));
        assert_eq!(parse("64 mib"), Ok(64 << 20));
        assert_eq!(parse("2g"), Ok(2 << 30));
        assert_eq!(parse("3MB"), Ok(3_000_000));
        for bad in
            ["", "MiB", "-1", "1.5MiB", "64 furlongs", "99999999999999999999", "18446744073709551615GiB"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_size_that_is_shown_is_read_again() {
        for (bytes, text) in [(0, "0"), (1, "1"), (65_536, "64KiB"), (160 << 20, "160MiB"), (3 << 30, "3GiB")]
        {
            assert_eq!((shown(bytes).as_str(), parse(text)), (text, Ok(bytes)));
        }
    }
}
