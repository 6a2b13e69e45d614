//! The folder: whose it is, who has it, and which version wrote it.
//!
//! ```text
//! DIR/format    the text "kvnode 2": what wrote it
//! DIR/reached   how far the batches have come (ledger/slots.rs)
//! DIR/lock      locked by the process that has it, whose id stands in it
//! DIR/engine/   the engine's files, its journals (*.jnl) among them
//! ```

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::error::OpenError;
use super::frames::{self, Tail};
use super::ledger::chain::Chain;
use super::ledger::slots::{self, Reached};

/// The version of what stands in the folder. A newer one is not read; version 1 had no numbers in its batches, and becomes
/// this one when it is opened.
pub(super) const FORMAT: u32 = 2;
/// Where a restore works in the folder until it is done.
pub(super) const RESTORING: &str = "restoring";
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

/// What a crash has left at the end of the newest journal of a folder, which is cut off when it is opened for writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornEnd {
    /// The journal.
    pub file: PathBuf,
    /// Where the whole batches end in it, in bytes.
    pub offset: u64,
    /// Number of bytes that follow, up to the next whole batch where there is one.
    pub bytes: u64,
    /// Whole batches follow: they were answered, and the system went down before it had written what is before them, since
    /// it was not asked to (`--sync interval` and `never`). Else it is a part of one batch that nobody was told of.
    pub batches_follow: bool,
}

/// The journals of a folder.
#[derive(Debug)]
pub(super) struct Journals {
    /// Each with the length of its whole batches, the oldest first.
    pub whole: Vec<(PathBuf, u64)>,
    pub torn: Option<TornEnd>,
    /// The last batch's number; `None`: there is none.
    pub last: Option<u64>,
}

/// A folder that nobody else has.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    pub reached: Mutex<Reached>,
    /// Locked for as long as it is open.
    _lock: Option<File>,
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
            let no_reason = ["lock", "format.new", slots::NAME, "reached.new", "lost+found"];
            if names.any(|name| !no_reason.iter().any(|known| name == *known)) {
                return Err(OpenError::NotOurs { dir: path.into() });
            }
        }
        let lock_path = path.join("lock");
        let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&lock_path);
        let mut lock = lock.map_err(system(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, Some(&mut lock))),
            Err(TryLockError::Error(error)) => return Err(OpenError::system(&lock_path, &error)),
        }
        check_format(path, &format)?;
        let reached = Mutex::new(Reached::open(path, true)?);
        // For people; the lock holds without it, also where the disk is full.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { path: path.into(), reached, _lock: Some(lock) })
    }

    /// Takes a folder that is there, to read: others may read it too, and nothing is written.
    pub(super) fn take_to_read(path: &Path) -> Result<Self, OpenError> {
        let lock_path = path.join("lock");
        let mut lock = match File::open(&lock_path) {
            // Whoever has it has made it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(|error| OpenError::system(&lock_path, &error))?),
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, lock.as_mut())),
            Err(TryLockError::Error(error)) => return Err(OpenError::system(&lock_path, &error)),
        }
        let reached = match read_format(path, &path.join("format"))? {
            Some(1) => Reached::unknown(),
            _ => Reached::open(path, false)?,
        };
        Ok(Self { path: path.into(), reached: Mutex::new(reached), _lock: lock })
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
    /// on without what comes after. Nothing is written.
    ///
    /// # Errors
    /// They are damaged: a batch that must be there is not, or not as it was written.
    pub(super) fn inspect_journals(&self) -> Result<Journals, OpenError> {
        let journals = self.journals().map_err(|error| OpenError::system(&self.engine(), &error))?;
        let known = self.reached.lock().known();
        let mut progress = Progress::new(&journals);
        let mut chain = Chain::new(known.folder);
        let mut found = Journals { whole: Vec::new(), torn: None, last: None };
        for path in &journals {
            let looked = frames::inspect(path, &mut chain, &mut |bytes| progress.read(bytes))
                .map_err(|error| OpenError::system(path, &error))?;
            let offset = looked.whole_bytes;
            let damaged = |what: String| OpenError::Damaged {
                file: path.clone(),
                what: format!("{} batches up to byte {offset} are whole; {what}", looked.batches),
            };
            let torn =
                |bytes, batches_follow| Some(TornEnd { file: path.clone(), offset, bytes, batches_follow });
            // The engine begins another journal behind one that it failed to write, but no batch in it.
            if let Some(torn) = &found.torn
                && (looked.batches > 0 || !matches!(looked.tail, Tail::Clean))
            {
                return Err(later_is_there(&torn.file, torn.offset, torn.bytes));
            }
            match looked.tail {
                Tail::Clean => {}
                Tail::Wrong(wrong) => return Err(damaged(wrong.to_string())),
                Tail::Torn { bytes } => found.torn = torn(bytes, false),
                Tail::Followed { bytes } if !known.always => found.torn = torn(bytes, true),
                Tail::Followed { bytes } => return Err(later_is_there(path, offset, bytes)),
            }
            progress.whole_bytes += offset;
            found.whole.push((path.clone(), offset));
        }
        found.last = chain.last();
        if let (Some(number), Some((path, offset))) = (found.last, newest(&found.whole))
            && number < known.least()
        {
            return Err(missing(path, *offset, number, known.least()));
        }
        if progress.whole_bytes >= LARGE_BYTES {
            tracing::info!(dir = %self.path.display(), "reading {} MiB of journals", progress.whole_bytes >> 20);
        }
        Ok(found)
    }

    /// Cuts off what a crash has left behind the last whole batch.
    pub(super) fn mend(&self, journals: &Journals) -> Result<(), OpenError> {
        let Some(torn) = &journals.torn else { return Ok(()) };
        let (file, from, bytes) = (torn.file.display(), torn.offset, torn.bytes);
        if torn.batches_follow {
            tracing::error!(
                %file, from, bytes,
                "batches from this place on are lost: they were not synced when the system went down (--sync)"
            );
        } else {
            tracing::warn!(
                %file, from, bytes,
                "a batch that was being written at the crash is cut off: nobody was told that it is there"
            );
        }
        frames::cut(&torn.file, torn.offset).map_err(|error| OpenError::system(&torn.file, &error))
    }

    /// Whether the engine has the last batch that must be there. (No journal may have any: all of it may be in tables.)
    pub(super) fn check_reached(&self, number: u64) -> Result<(), OpenError> {
        let least = self.reached.lock().known().least();
        if number >= least {
            return Ok(());
        }
        let newest = self.journals().ok().and_then(|mut journals| journals.pop());
        Err(missing(&newest.unwrap_or_else(|| self.engine()), 0, number, least))
    }

    /// Takes back batches of the journals, from the engine's number `seqno` on.
    pub(super) fn take_back(&self, seqno: u64) -> io::Result<()> {
        // The engine may have begun a new journal behind the one that it failed to write.
        let journals = self.journals()?;
        let ends =
            journals.iter().map(|path| frames::bytes_before(path, seqno)).collect::<io::Result<Vec<_>>>()?;
        journals.iter().zip(ends).try_for_each(|(path, end)| frames::cut(path, end))
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

fn in_use(dir: &Path, lock: Option<&mut File>) -> OpenError {
    let mut text = String::new();
    let read = lock.and_then(|lock| lock.read_to_string(&mut text).ok());
    let pid = read.and_then(|_| text.trim().parse().ok());
    OpenError::InUse { dir: dir.into(), pid }
}

/// The last journal that has a batch.
fn newest(whole: &[(PathBuf, u64)]) -> Option<&(PathBuf, u64)> {
    whole.iter().rfind(|(_, bytes)| *bytes > 0)
}

fn later_is_there(file: &Path, offset: u64, bytes: u64) -> OpenError {
    let what = format!(
        "its batches up to byte {offset} are whole; the {bytes} bytes that follow are not as they were written, though they \
         had been synced: what was written later is there"
    );
    OpenError::Damaged { file: file.into(), what }
}

fn missing(file: &Path, offset: u64, number: u64, least: u64) -> OpenError {
    let what = format!(
        "its whole batches end at byte {offset}, and the last that is there is number {number}; up to number {least} they \
         had been written: {} are missing",
        least.saturating_sub(number)
    );
    OpenError::Damaged { file: file.into(), what }
}

/// The version of the folder, one that is read here; `None` where nothing says so yet.
fn read_format(dir: &Path, format: &Path) -> Result<Option<u32>, OpenError> {
    match fs::read_to_string(format) {
        Ok(text) => {
            let version = text.strip_prefix(MARK).and_then(|version| version.trim().parse::<u32>().ok());
            match version {
                Some(version @ 1..=FORMAT) => Ok(Some(version)),
                Some(version) if version > FORMAT => {
                    Err(OpenError::NewerFormat { dir: dir.into(), version, known: FORMAT })
                }
                _ => Err(OpenError::Damaged {
                    file: format.into(),
                    what: format!("it says {text:?} in place of a version"),
                }),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(OpenError::system(format, &error)),
    }
}

/// Makes the folder one of this version, where it is none or an older one.
fn check_format(dir: &Path, format: &Path) -> Result<(), OpenError> {
    if read_format(dir, format)? == Some(FORMAT) {
        return Ok(());
    }
    let new = dir.join("format.new");
    let write = || -> io::Result<()> {
        Reached::make(dir)?;
        let mut file = File::create(&new)?;
        file.write_all(format!("{MARK}{FORMAT}\n").as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, format)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| OpenError::system(format, &error))
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
        fs::write(dir.path().join("format"), "kvnode 3\n").unwrap();
        let newer = Dir::take(dir.path()).unwrap_err();
        assert_eq!(newer, OpenError::NewerFormat { dir: dir.path().into(), version: 3, known: FORMAT });
        fs::write(dir.path().join("format"), "kvnode ?\n").unwrap();
        assert!(matches!(Dir::take(dir.path()), Err(OpenError::Damaged { .. })));
    }
}
