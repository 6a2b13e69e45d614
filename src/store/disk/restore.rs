//! A backup put back into a folder: checked first, then written beside the folder, and named last.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::backup::{self, BackupError, Part, Progress, StoreCount};
use super::{Disk, DiskStore, OpenError, SyncPolicy};
use crate::store::{Store, StoreError};

/// See [`Disk::restore`].
pub(super) fn restore(
    file: &Path,
    dir: &Path,
    progress: Progress<'_>,
) -> Result<Vec<StoreCount>, BackupError> {
    // Half of the way is to check it.
    let found = backup::read(file, &mut |_| Ok(()), &mut |done, all| progress(done, all * 2))?;
    check_empty(dir)?;
    let new = beside(dir)?;
    let restored = fill(file, &new, &mut |done, all| progress(all + done, all * 2)).and_then(|counted| {
        if counted == found {
            Ok(found)
        } else {
            Err(BackupError::Damaged { file: file.into(), what: "it changed while it was read".into() })
        }
    });
    let restored = restored.and_then(|found| {
        // A folder takes the place of an empty one.
        let name_it = || {
            fs::rename(&new, dir)?;
            File::open(dir.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new(".")))?
                .sync_all()
        };
        name_it().map_err(|error| BackupError::system(dir, &error))?;
        Ok(found)
    });
    if restored.is_err() {
        // It was made here, a moment ago.
        let _ = fs::remove_dir_all(&new);
    }
    restored
}

/// Whether there is nothing that could be lost.
fn check_empty(dir: &Path) -> Result<(), BackupError> {
    match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(BackupError::system(dir, &error)),
        Ok(mut entries) => match entries.next() {
            Some(_) => Err(BackupError::Exists(dir.into())),
            None => Ok(()),
        },
    }
}

/// A new folder on the same file system.
fn beside(dir: &Path) -> Result<PathBuf, BackupError> {
    let mut name = dir.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    let new = dir.with_file_name(name);
    match fs::create_dir_all(new.parent().unwrap_or(Path::new("."))).and_then(|()| fs::create_dir(&new)) {
        Ok(()) => Ok(new),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(BackupError::Exists(new)),
        Err(error) => Err(BackupError::system(&new, &error)),
    }
}

fn fill(file: &Path, dir: &Path, progress: Progress<'_>) -> Result<Vec<StoreCount>, BackupError> {
    let opened = |error: OpenError| BackupError::System { path: dir.into(), reason: error.to_string() };
    // Synced once, at the end.
    let disk = Disk::open(dir, SyncPolicy::Never, u64::MAX).map_err(opened)?;
    let refused: Arc<Mutex<Option<StoreError>>> = Arc::default();
    let done = || {
        let refused = Arc::clone(&refused);
        Box::new(move |result: Result<(), StoreError>| {
            if let Err(error) = result {
                refused.lock().get_or_insert(error);
            }
        }) as crate::store::WriteDone
    };
    let mut store: Option<DiskStore> = None;
    let mut show = |part: Part<'_>| {
        if let Some(error) = &*refused.lock() {
            return Err(BackupError::Store(error.clone()));
        }
        match (part, &store) {
            (Part::Store(names), _) => store = Some(disk.store(names).map_err(opened)?),
            (Part::Note(name, note), Some(store)) => store.keep_note(name, note, done),
            (Part::Entry(key, value), Some(store)) => _ = store.put(key, value, done),
            // The reader shows none before its store.
            (Part::Note(..) | Part::Entry(..), None) => {}
        }
        Ok(())
    };
    backup::read(file, &mut show, progress)?;
    let (tell, told) = mpsc::channel();
    disk.settled(move |result| _ = tell.send(result));
    told.recv().unwrap_or(Err(StoreError::Io("terminated"))).map_err(BackupError::Store)?;
    if let Some(error) = refused.lock().take() {
        return Err(BackupError::Store(error));
    }
    // Reads what was written once more.
    let checked = disk.check(&mut |_, _| true).map_err(opened)?;
    disk.shared.sync_all().map_err(BackupError::Store)?;
    Ok(checked)
}
