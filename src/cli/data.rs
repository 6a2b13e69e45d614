//! Folders with stores: `--sync`, `kvnode check`, `kvnode backup` and `kvnode restore`.

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, print};
use crate::store::disk::StoreCount;
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

/// Writes all stores of a folder into one file, with a checksum.
///
/// The folder must not be in use: of a running node a backup is had by `kvnode call '{:backup, "name"}'`, in the folder that
/// it was given as --backup-dir.
#[derive(Args)]
pub(super) struct BackupArgs {
    /// The folder
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The file, which must not be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes a folder of stores from a backup, which is checked first.
#[derive(Args)]
pub(super) struct RestoreArgs {
    /// The backup
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder, which must be empty or not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let disk = open(&args.data_dir)?;
    let stores = with_bar(|progress| disk.check(progress)).map_err(CliError::cannot_run)?;
    print(&(told(&stores) + "all of it could be read\n"))
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), CliError> {
    let disk = open(&args.data_dir)?;
    let stores = with_bar(|progress| disk.backup(&args.file, progress)).map_err(CliError::cannot_run)?;
    print(&format!("{}written to {}\n", told(&stores), args.file.display()))
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), CliError> {
    let restored = with_bar(|progress| Disk::restore(&args.file, &args.data_dir, progress));
    let stores = restored.map_err(CliError::cannot_run)?;
    print(&format!("{}restored into {}\n", told(&stores), args.data_dir.display()))
}

fn open(dir: &Path) -> Result<Arc<Disk>, CliError> {
    if !dir.join("format").exists() {
        let dir = dir.display();
        return Err(CliError::cannot_run(format!("{dir}: no kvnode has kept stores there; see --data-dir")));
    }
    Disk::open(dir, SyncPolicy::Always, u64::MAX).map_err(CliError::cannot_run)
}

/// A line for each store.
fn told(stores: &[StoreCount]) -> String {
    let mut text = String::new();
    for StoreCount { names, entries, bytes } in stores {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}: {entries} entries, {bytes} bytes", names.join(","));
    }
    text
}

/// Runs something that tells how far it is, with a bar on a terminal.
fn with_bar<R>(run: impl FnOnce(&mut dyn FnMut(u64, u64) -> bool) -> R) -> R {
    let bar = ProgressBar::new(0);
    bar.set_style(
        ProgressStyle::with_template("{wide_bar} {percent} %, {eta} left").expect("the template is right"),
    );
    let result = run(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
        true
    });
    bar.finish_and_clear();
    result
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
