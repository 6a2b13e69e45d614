//! The folder: whose it is, who has it, and which version wrote it.
//!
//! ```text
//! DIR/format    the text "kvnode 7": what wrote it
//! DIR/reached   how far the batches have come (ledger.rs)
//! DIR/lock      locked by the process that has it, whose id stands in it
//! DIR/engine/   the engine's files, its journals (*.jnl) among them
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use super::error::OpenError;
use super::ledger::{self, Access, Ledger};

/// The version of what stands in the folder. A newer one is not read, and an older one becomes this one when it is opened to be
/// written to: before version 7 no store was emptied, and so what a store has always had the store's own number (`engine/cleared.rs`), in version 5 the keys had no order (`engine/order.rs`), in version 3 no entry had a revision, in version 2 none any number (`store/head.rs`), and in version 1 no batch either,
/// so that it had no ledger.
pub(super) const FORMAT: u32 = 7;
const FIRST: u32 = 1;
/// Where a restore works in the folder until it is done.
pub(super) const RESTORING: &str = "restoring";
const MARK: &str = "kvnode ";
const ENGINE: &str = "engine";
/// A folder that nobody else has.
#[derive(Debug)]
pub(super) struct Dir {
    pub path: PathBuf,
    /// It is of the first format, which has no ledger.
    is_first: bool,
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
        make(path).map_err(system(path))?;
        let format = path.join("format");
        if !format.exists() {
            let mut names =
                fs::read_dir(path).map_err(system(path))?.flatten().map(|entry| entry.file_name());
            // What a crash in the middle of making it, or mkfs, leaves behind is no reason to refuse.
            let no_reason = ["lock", "format.new", ledger::NAME, ledger::NEW_NAME, "lost+found"];
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
        let engine = path.join(ENGINE);
        make_private(&engine).map_err(system(&engine))?;
        // For people; the lock holds without it, also where the disk is full.
        let _ = lock
            .set_len(0)
            .and_then(|()| lock.rewind())
            .and_then(|()| lock.write_all(std::process::id().to_string().as_bytes()));
        Ok(Self { path: path.into(), is_first: false, _lock: Some(lock) })
    }

    /// Takes a folder that is there, to read: others may read it too, and nothing is written.
    pub(super) fn take_to_read(path: &Path) -> Result<Self, OpenError> {
        let lock_path = path.join("lock");
        let mut lock = match File::open(&lock_path) {
            // A process that has the folder has made the file.
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            opened => Some(opened.map_err(|error| OpenError::system(&lock_path, &error))?),
        };
        match lock.as_ref().map_or(Ok(()), File::try_lock_shared) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(in_use(path, lock.as_mut())),
            Err(TryLockError::Error(error)) => return Err(OpenError::system(&lock_path, &error)),
        }
        let is_first = read_format(path, &path.join("format"))? == Some(FIRST);
        Ok(Self { path: path.into(), is_first, _lock: lock })
    }

    pub(super) fn engine(&self) -> PathBuf {
        self.path.join(ENGINE)
    }

    /// How the ledger of a folder is opened that was taken to read.
    pub(super) const fn access_to_read(&self) -> Access {
        if self.is_first { Access::ReadFirst } else { Access::Read }
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

/// Makes a folder, and those that it is in, where there is none: its owner's alone, as all values stand in it.
pub(super) fn make(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The same, and takes the folder from others where it is there: whatever the folder around it allows, and the files' modes.
fn make_private(path: &Path) -> io::Result<()> {
    make(path)?;
    let mode = fs::metadata(path)?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    match fs::set_permissions(path, Permissions::from_mode(0o700)) {
        // Another user's folder, that this one may write to: as before, and people are told.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::warn!(folder = %path.display(), "others may read the values in this folder, which is another user's: have its owner chmod it to 0700");
            Ok(())
        }
        changed => changed,
    }
}

fn in_use(dir: &Path, lock: Option<&mut File>) -> OpenError {
    let mut text = String::new();
    let read = lock.and_then(|lock| lock.read_to_string(&mut text).ok());
    let pid = read.and_then(|_| text.trim().parse().ok());
    OpenError::InUse { dir: dir.into(), pid }
}

/// The version of the folder, one that is read here; `None` where nothing says so yet.
fn read_format(dir: &Path, format: &Path) -> Result<Option<u32>, OpenError> {
    match fs::read_to_string(format) {
        Ok(text) => {
            let version = text.strip_prefix(MARK).and_then(|version| version.trim().parse::<u32>().ok());
            match version {
                Some(version @ FIRST..=FORMAT) => Ok(Some(version)),
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
    let found = read_format(dir, format)?;
    if found == Some(FORMAT) {
        return Ok(());
    }
    let new = dir.join("format.new");
    let write = || -> io::Result<()> {
        if found.is_none_or(|version| version == FIRST) {
            Ledger::make(dir)?;
        }
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
        fs::write(dir.path().join("format"), "kvnode 8\n").unwrap();
        let newer = Dir::take(dir.path()).unwrap_err();
        assert_eq!(newer, OpenError::NewerFormat { dir: dir.path().into(), version: 8, known: FORMAT });
        fs::write(dir.path().join("format"), "kvnode ?\n").unwrap();
        assert!(matches!(Dir::take(dir.path()), Err(OpenError::Damaged { .. })));
    }
}
