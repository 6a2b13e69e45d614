//! The folder: whose it is, who has it, and which version wrote it.
//!
//! ```text
//! DIR/format    the text "kvnode 1": what wrote it
//! DIR/lock      locked by the process that has it, whose id stands in it
//! DIR/engine/   the engine's files, its journals (*.jnl) among them
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::SyncPolicy;
use super::error::OpenError;
use super::journal::{self, Tail};

/// The version of what stands in the folder. A newer one is not read.
pub(super) const FORMAT: u32 = 1;
const MARK: &str = "kvnode ";
/// Journals with so many bytes take long enough to be told of.
const LARGE_BYTES: u64 = 64 << 20;
/// How often the log tells how far a start has come.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How far journals have been looked through.
struct Progress {
    all_bytes: u64,
    read_bytes: u64,
    whole_bytes: u64,
    told: Instant,
}

impl Progress {
    fn new(journals: &[PathBuf]) -> Self {
        let all_bytes = journals.iter().filter_map(|path| Some(path.metadata().ok()?.len())).sum();
        Self { all_bytes, read_bytes: 0, whole_bytes: 0, told: time() }
    }

    fn read(&mut self, bytes: u64) {
        self.read_bytes += bytes;
        if self.told.elapsed() >= TELL_EVERY {
            self.told = time();
            tracing::info!(
                "looking through journals: {} of {} MiB",
                self.read_bytes >> 20,
                self.all_bytes >> 20
            );
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "for people who wait, and for nothing else")]
fn time() -> Instant {
    Instant::now()
}

/// A folder that nobody else has.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    /// Locked for as long as it is open.
    _lock: File,
}

impl Dir {
    /// Takes the folder, made where there is none.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
        let system = |path: &Path| {
            let path = path.to_path_buf();
            move |error: io::Error| OpenError::system(&path, &error)
        };
        fs::create_dir_all(path).map_err(system(path))?;
        let format = path.join("format");
        if !format.exists() {
            let mut names =
                fs::read_dir(path).map_err(system(path))?.flatten().map(|entry| entry.file_name());
            // What a crash in the middle of making it, or mkfs, leaves behind is no reason to refuse.
            if names.any(|name| name != "lock" && name != "format.new" && name != "lost+found") {
                return Err(OpenError::NotOurs { dir: path.into() });
            }
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let mut lock = lock.map_err(system(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = lock.read_to_string(&mut text).ok().and_then(|_| text.trim().parse().ok());
                return Err(OpenError::InUse { dir: path.into(), pid });
            }
            Err(TryLockError::Error(error)) => return Err(OpenError::system(&lock_path, &error)),
        }
        check_format(path, &format)?;
        // For people; the lock holds without it, also where the disk is full.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { path: path.into(), _lock: lock })
    }

    pub(super) fn engine(&self) -> PathBuf {
        self.path.join("engine")
    }

    /// The engine's journals, the oldest first.
    pub(super) fn journals(&self) -> io::Result<Vec<PathBuf>> {
        let entries = match fs::read_dir(self.engine()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            if let Some(number) = number
                && path.extension().is_some_and(|extension| extension == "jnl")
            {
                found.push((number, path));
            }
        }
        found.sort();
        Ok(found.into_iter().map(|(_, path)| path).collect())
    }

    /// Looks through the journals before the engine sees them: it takes whatever it cannot read for the end, and goes
    /// on without what comes after. What a crash has torn is cut off, since nobody was told that it is there.
    pub(super) fn inspect_journals(&self, sync: SyncPolicy) -> Result<(), OpenError> {
        let journals = self.journals().map_err(|error| OpenError::system(&self.engine(), &error))?;
        let last = journals.len().saturating_sub(1);
        let mut progress = Progress::new(&journals);
        for (at, path) in journals.iter().enumerate() {
            let system = |error: io::Error| OpenError::system(path, &error);
            let found = journal::inspect(path, &mut |bytes| progress.read(bytes)).map_err(system)?;
            match found.tail {
                Tail::Clean => {}
                Tail::Torn if at == last => {
                    tracing::warn!(
                        file = %path.display(), whole = found.batches, at = found.whole_bytes,
                        "a batch that was being written at the crash is cut off: nobody was told that it is there"
                    );
                    journal::cut(path, found.whole_bytes).map_err(system)?;
                }
                Tail::Followed if at == last && sync != SyncPolicy::Always => {
                    tracing::error!(
                        file = %path.display(), whole = found.batches, at = found.whole_bytes,
                        "batches from this place on are lost: they were not synced when the system went down"
                    );
                    journal::cut(path, found.whole_bytes).map_err(system)?;
                }
                Tail::Torn | Tail::Followed => {
                    let what = format!(
                        "{} batches up to byte {} are whole, and what follows is not, though it had been synced",
                        found.batches, found.whole_bytes
                    );
                    return Err(OpenError::Damaged { file: path.clone(), what });
                }
            }
            progress.whole_bytes += found.whole_bytes;
        }
        if progress.whole_bytes >= LARGE_BYTES {
            tracing::info!(dir = %self.path.display(), "reading {} MiB of journals", progress.whole_bytes >> 20);
        }
        Ok(())
    }

    /// Takes back the last batches of the last journal, from number `seqno` on.
    pub(super) fn take_back(&self, seqno: u64) -> io::Result<()> {
        let Some(path) = self.journals()?.pop() else { return Ok(()) };
        journal::cut(&path, journal::bytes_before(&path, seqno)?)
    }

    /// Bytes that are free in the file system, to us.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let system = rustix::fs::statvfs(&self.path)?;
        Ok(system.f_bavail.saturating_mul(system.f_frsize))
    }

    /// Whether something can be written and synced, by doing it.
    pub(super) fn probe(&self) -> io::Result<()> {
        let path = self.path.join("probe");
        let mut file = File::create(&path)?;
        file.write_all(&[0; 4096])?;
        file.sync_all()?;
        fs::remove_file(&path)
    }
}

fn check_format(dir: &Path, format: &Path) -> Result<(), OpenError> {
    let system = |error: io::Error| OpenError::system(format, &error);
    match fs::read_to_string(format) {
        Ok(text) => {
            let version = text.strip_prefix(MARK).and_then(|version| version.trim().parse::<u32>().ok());
            match version {
                Some(FORMAT) => Ok(()),
                Some(version) if version > FORMAT => Err(OpenError::NewerFormat { dir: dir.into(), version }),
                _ => Err(OpenError::Damaged {
                    file: format.into(),
                    what: format!("it says {text:?} in place of a version"),
                }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let new = dir.join("format.new");
            let write = || -> io::Result<()> {
                let mut file = File::create(&new)?;
                file.write_all(format!("{MARK}{FORMAT}\n").as_bytes())?;
                file.sync_all()?;
                fs::rename(&new, format)?;
                File::open(dir)?.sync_all()
            };
            write().map_err(system)
        }
        Err(error) => Err(system(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_owner_who_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let held = Dir::take(dir.path()).unwrap();
        let refused = Dir::take(dir.path()).unwrap_err();
        assert_eq!(refused, OpenError::InUse { dir: dir.path().into(), pid: Some(std::process::id()) });
        drop(held);
        Dir::take(dir.path()).unwrap();
    }

    #[test]
    fn other_peoples_folders_newer_versions_and_nonsense_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.txt"), "a").unwrap();
        assert_eq!(Dir::take(dir.path()).unwrap_err(), OpenError::NotOurs { dir: dir.path().into() });
        fs::write(dir.path().join("format"), "kvnode 2\n").unwrap();
        let newer = Dir::take(dir.path()).unwrap_err();
        assert_eq!(newer, OpenError::NewerFormat { dir: dir.path().into(), version: 2 });
        fs::write(dir.path().join("format"), "kvnode ?\n").unwrap();
        assert!(matches!(Dir::take(dir.path()), Err(OpenError::Damaged { .. })));
    }
}
