//! Folders with stores, and etcds: `kvnode check`, `kvnode backup` and `kvnode restore`.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

use super::engine::EtcdArgs;
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

/// Writes all stores of a folder, or of an etcd, into one file, with a checksum.
///
/// The folder must not be in use: of a running node a backup is had by `kvnode call '{:backup, "name"}'`, in the folder that
/// it was given as --backup-dir. The stores of an etcd may be served meanwhile: the file has them as they were at one moment.
#[derive(Args)]
pub(super) struct BackupArgs {
    /// The folder
    #[arg(long, value_name = "DIR", conflicts_with = "etcd")]
    data_dir: Option<PathBuf>,
    /// The file, which must not be there
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    etcd: EtcdArgs,
}

/// Makes the stores of a backup in a folder, or in an etcd. The backup is checked first.
///
/// In an etcd all of them are there at the end, or none for any kvnode: a restore that was interrupted is run again, from the beginning.
#[derive(Args)]
pub(super) struct RestoreArgs {
    /// The backup, of a folder or of an etcd
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The folder, which must be empty (but for lost+found) or not there
    #[arg(long, value_name = "DIR", conflicts_with = "etcd")]
    data_dir: Option<PathBuf>,
    /// Delete first what the etcd has below the prefix. A store that a kvnode serves is not deleted
    #[arg(long, requires = "etcd", help_heading = "etcd")]
    force: bool,
    #[command(flatten)]
    etcd: EtcdArgs,
}

pub(super) fn check(args: &CheckArgs) -> Result<(), CliError> {
    let disk = open(&args.data_dir)?;
    let stores = with_bar(|progress| disk.check(progress)).map_err(CliError::cannot_run)?;
    print(&(told(&stores) + &told_end(disk.torn_end()) + "all of it could be read\n"))
}

pub(super) fn backup(args: &BackupArgs) -> Result<(), CliError> {
    if args.etcd.is_given() {
        return in_etcd::backup(&args.etcd, &args.file);
    }
    let data_dir = folder(args.data_dir.as_deref())?;
    let disk = open(data_dir)?;
    let stores = with_bar(|progress| disk.backup(&args.file, progress)).map_err(CliError::cannot_run)?;
    print(&format!("{}{}written to {}\n", told(&stores), told_end(disk.torn_end()), args.file.display()))
}

pub(super) fn restore(args: &RestoreArgs) -> Result<(), CliError> {
    if args.etcd.is_given() {
        return in_etcd::restore(&args.etcd, &args.file, args.force);
    }
    let data_dir = folder(args.data_dir.as_deref())?;
    let restored = with_bar(|progress| Disk::restore(&args.file, data_dir, progress));
    let stores = restored.map_err(CliError::cannot_run)?;
    print(&format!("{}restored into {}\n", told(&stores), data_dir.display()))
}

/// The folder that is named.
fn folder(data_dir: Option<&Path>) -> Result<&Path, CliError> {
    data_dir.ok_or_else(|| {
        CliError::usage("where the stores are is missing: give a folder by --data-dir, or an etcd by --etcd, as in --etcd http://a:2379")
    })
}

/// The same of an etcd.
#[cfg(feature = "etcd")]
mod in_etcd {
    use std::path::Path;

    use super::{told, with_bar};
    use crate::cli::engine::EtcdArgs;
    use crate::cli::entries::key_text;
    use crate::cli::{CliError, print};
    use crate::program::moving::{self, MoveError};
    use crate::store::{EtcdBackupError, TooLarge};

    pub(super) fn backup(etcd: &EtcdArgs, file: &Path) -> Result<(), CliError> {
        let config = etcd.etcd()?;
        let backup = with_bar(|progress| moving::backup(&config, file, progress));
        let (stores, revision) = backup.map_err(|error| failed(&config.endpoints, &error))?;
        print(&format!(
            "{}written to {}, as it was at revision {revision} of etcd\n",
            told(&stores),
            file.display()
        ))
    }

    pub(super) fn restore(etcd: &EtcdArgs, file: &Path, force: bool) -> Result<(), CliError> {
        let config = etcd.etcd()?;
        let restored = with_bar(|progress| moving::restore(&config, file, force, progress));
        let stores = restored.map_err(|error| failed(&config.endpoints, &error))?;
        print(&format!("{}restored into etcd, below {}/\n", told(&stores), config.prefix))
    }

    /// What has failed, with the etcd that it was asked of, and the keys that are too large.
    fn failed(endpoints: &[String], error: &MoveError) -> CliError {
        match error {
            MoveError::Backup(EtcdBackupError::TooLarge { first, count, .. }) => {
                let keys = first.iter().map(|TooLarge { store, key, bytes }| {
                    format!("\n  {store}: {} ({bytes} bytes)", key_text(key))
                });
                let more = count.saturating_sub(first.len() as u64);
                let more = if more == 0 { String::new() } else { format!("\n  and {more} more") };
                CliError::cannot_run(format!("{error}:{}{more}", keys.collect::<String>()))
            }
            MoveError::Backup(error @ (EtcdBackupError::Etcd(_) | EtcdBackupError::Interrupted(_))) => {
                CliError::cannot_run(format!("etcd at {}: {error}", endpoints.join(", ")))
            }
            error => CliError::cannot_run(error),
        }
    }
}

/// A program that is built without etcd.
#[cfg(not(feature = "etcd"))]
mod in_etcd {
    use std::path::Path;

    use crate::cli::CliError;
    use crate::cli::engine::EtcdArgs;
    use crate::program::StartError;

    pub(super) fn backup(_etcd: &EtcdArgs, _file: &Path) -> Result<(), CliError> {
        Err(CliError::usage(StartError::WithoutEtcd))
    }

    pub(super) fn restore(_etcd: &EtcdArgs, _file: &Path, _force: bool) -> Result<(), CliError> {
        Err(CliError::usage(StartError::WithoutEtcd))
    }
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
