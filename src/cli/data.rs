//! Folders with stores: `kvnode check`, `kvnode backup` and `kvnode restore`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::{CliError, print};
use crate::program::shown;
use crate::store::Disk;
use crate::store::disk::{ReadOnlyDisk, StoreCount, TornEnd};

/// Reads everything in a folder of stores, and says what it found.
///
/// The folder must not be in use. Nothing is written into it; there must be room for copies of its journals, 200 MiB at most,
/// in the folder for temporary files (TMPDIR).
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
    /// The folder, which must be empty (but for lost+found) or not there
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let disk = open(&args.data_dir)?;
    let stores = with_bar(|progress| disk.check(progress)).map_err(CliError::cannot_run)?;
    print(&(told(&stores) + &told_end(disk.torn_end()) + "all of it could be read\n"))
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), CliError> {
    let disk = open(&args.data_dir)?;
    let stores = with_bar(|progress| disk.backup(&args.file, progress)).map_err(CliError::cannot_run)?;
    print(&format!("{}{}written to {}\n", told(&stores), told_end(disk.torn_end()), args.file.display()))
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), CliError> {
    let restored = with_bar(|progress| Disk::restore(&args.file, &args.data_dir, progress));
    let stores = restored.map_err(CliError::cannot_run)?;
    print(&format!("{}restored into {}\n", told(&stores), args.data_dir.display()))
}

fn open(dir: &Path) -> Result<ReadOnlyDisk, CliError> {
    if !dir.join("format").exists() {
        let dir = dir.display();
        return Err(CliError::cannot_run(format!("{dir}: no kvnode has kept stores there; see --data-dir")));
    }
    ReadOnlyDisk::open(dir).map_err(CliError::cannot_run)
}

/// A line for what the next start cuts off.
fn told_end(torn: Option<&TornEnd>) -> String {
    let Some(TornEnd { file, offset, bytes, batches_follow }) = torn else { return String::new() };
    let place = format!("{}: {bytes} bytes from byte {offset} on", file.display());
    if *batches_follow {
        format!(
            "{place} were not on disk when the system went down (--sync); the next start cuts them off, with what follows\n"
        )
    } else {
        format!(
            "{place} are part of a batch that was being written when the node ended, which nobody was told of; the next start \
             cuts them off\n"
        )
    }
}

/// A line for each store.
fn told(stores: &[StoreCount]) -> String {
    let mut text = String::new();
    for StoreCount { names, entries, bytes } in stores {
        // Writing to a String does not fail.
        let counted = |count, nouns| shown::counted(count, nouns, |count| count.to_string());
        let (entries, bytes) = (counted(*entries, ["entry", "entries"]), counted(*bytes, ["byte", "bytes"]));
        let _ = writeln!(text, "{}: {entries}, {bytes}", names.join(","));
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
