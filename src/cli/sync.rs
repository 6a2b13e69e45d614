//! `--sync`: when a write is on disk.

use std::time::Duration;

use crate::store::SyncPolicy;

/// Reads `always`, `interval:MS` or `never`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn parse(text: &str) -> Result<SyncPolicy, String> {
    match text.split_once(':') {
        None if text == "always" => Ok(SyncPolicy::Always),
        None if text == "never" => Ok(SyncPolicy::Never),
        Some(("interval", millis)) => match millis.parse::<u32>() {
            Ok(millis @ 1..) => Ok(SyncPolicy::Interval(Duration::from_millis(millis.into()))),
            _ => Err("an interval is a number of milliseconds from 1 on, as in interval:100".into()),
        },
        _ => Err("one of always, interval:MS, as in interval:100, or never".into()),
    }
}

/// Writes when to sync as [`parse`] reads it.
pub(super) fn shown(policy: SyncPolicy) -> String {
    match policy {
        SyncPolicy::Always => "always".to_owned(),
        SyncPolicy::Never => "never".to_owned(),
        SyncPolicy::Interval(every) => format!("interval:{}", every.as_millis()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_sync_is_typed_in_words() {
        assert_eq!(parse("always"), Ok(SyncPolicy::Always));
        assert_eq!(parse("never"), Ok(SyncPolicy::Never));
        assert!(
            ["always", "never", "interval:250"]
                .iter()
                .all(|text| parse(text).map(shown).as_deref() == Ok(*text))
        );
        assert_eq!(parse("interval:250"), Ok(SyncPolicy::Interval(Duration::from_millis(250))));
        for wrong in ["", "interval", "interval:", "interval:0", "interval:1s", "often", "always:1"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
