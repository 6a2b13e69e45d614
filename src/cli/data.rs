//! Folders with stores: `--sync`, and `kvnode check`.

use std::fmt::Write;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::{CliError, print};
use crate::store::{Disk, SyncPolicy};

/// Reads `always`, `interval:MS` or `never`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn sync(text: &str) -> Result<SyncPolicy, String> {
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

/// Reads everything in a folder of stores, and says what it found.
///
/// The folder must not be in use.
#[derive(Args)]
pub(super) struct CheckArgs {
    /// The folder
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    if !args.data_dir.join("format").exists() {
        let dir = args.data_dir.display();
        return Err(CliError::cannot_run(format!("{dir}: no kvnode has kept stores there; see --data-dir")));
    }
    let disk = Disk::open(&args.data_dir, SyncPolicy::Always, u64::MAX).map_err(CliError::cannot_run)?;
    let stores = disk.check().map_err(CliError::cannot_run)?;
    let mut text = String::new();
    for (names, entries, bytes) in stores {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}: {entries} entries, {bytes} bytes", names.join(","));
    }
    text.push_str("all of it could be read\n");
    print(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn when_to_sync_is_typed_in_words() {
        assert_eq!(sync("always"), Ok(SyncPolicy::Always));
        assert_eq!(sync("never"), Ok(SyncPolicy::Never));
        assert_eq!(sync("interval:250"), Ok(SyncPolicy::Interval(Duration::from_millis(250))));
        for wrong in ["", "interval", "interval:", "interval:0", "interval:1s", "often", "always:1"] {
            assert!(sync(wrong).is_err(), "{wrong}");
        }
    }
}
