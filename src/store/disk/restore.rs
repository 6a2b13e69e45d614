//! A backup put back into a folder: checked first, then written into a folder within that one, which is moved up last.
//!
//! So the folder may be there before, a place where a file system is mounted. It is one of kvnode's from the moment that it
//! has the file `format`; before that a node refuses it, and what an interrupted restore has left the next one removes.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};

use parking_lot::Mutex;

use super::backup::{self, BackupError, Part, Progress, StoreCount};
use super::dir::{self, RESTORING};
use super::{Disk, DiskStore, OpenError, SyncPolicy, ledger};
use crate::store::revision::LEAP;
use crate::store::{Notes, Store, StoreError};

/// See [`Disk::restore`].
pub(super) fn restore(
    file: &Path,
    dir: &Path,
    progress: Progress<'_>,
) -> Result<Vec<StoreCount>, BackupError> {
    // Half of the way is to check it.
    let found = backup::read(file, &mut |_| Ok(()), &mut |done, all| progress(done, all * 2))?;
    let made = prepare(dir)?;
    let new = dir.join(RESTORING);
    let restored = fill(file, &new, &mut |done, all| progress(all + done, all * 2)).and_then(|counted| {
        if counted != found {
            let what = "it changed while it was read".into();
            return Err(BackupError::Damaged { file: file.into(), what });
        }
        move_up(&new, dir).map_err(|error| BackupError::system(dir, &error))?;
        Ok(found)
    });
    if restored.is_err() {
        // They were made here, a moment ago.
        let _ = fs::remove_dir_all(&new);
        if made {
            let _ = fs::remove_dir(dir);
        }
    }
    restored
}

/// Makes the folder, or looks whether there is nothing in it that could be lost; whether it was made.
fn prepare(dir: &Path) -> Result<bool, BackupError> {
    let system = |error: io::Error| BackupError::system(dir, &error);
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            dir::make(dir).map_err(system)?;
            return Ok(true);
        }
        entries => entries.map_err(system)?,
    };
    for entry in entries {
        match entry.map_err(system)?.file_name().to_str() {
            // What mkfs makes.
            Some("lost+found") => {}
            Some(RESTORING) => remove_interrupted(&dir.join(RESTORING))?,
            _ => return Err(BackupError::Exists(dir.into())),
        }
    }
    Ok(false)
}

/// Removes what a restore has left that was killed.
fn remove_interrupted(path: &Path) -> Result<(), BackupError> {
    let system = |error: io::Error| BackupError::system(path, &error);
    match File::open(path.join("lock")) {
        Ok(lock) if lock.try_lock().is_err() => return Err(BackupError::Restoring(path.into())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(system(error)),
        _ => {}
    }
    fs::remove_dir_all(path).map_err(system)
}

/// Gives the folder what was restored, durably, and last of all the file that says what it is.
fn move_up(new: &Path, dir: &Path) -> io::Result<()> {
    for name in ["lock", "engine", ledger::NAME] {
        fs::rename(new.join(name), dir.join(name))?;
    }
    File::open(dir)?.sync_all()?;
    fs::rename(new.join("format"), dir.join("format"))?;
    File::open(dir)?.sync_all()?;
    File::open(dir.canonicalize()?.parent().unwrap_or(dir))?.sync_all()?;
    // It is whole without this.
    let _ = fs::remove_dir_all(new);
    Ok(())
}

fn fill(file: &Path, dir: &Path, progress: Progress<'_>) -> Result<Vec<StoreCount>, BackupError> {
    let opened = |error: OpenError| BackupError::System { path: dir.into(), reason: error.to_string() };
    // Synced once, at the end.
    let disk = Disk::open(dir, SyncPolicy::Never, u64::MAX).map_err(opened)?;
    let refused: Arc<Mutex<Option<StoreError>>> = Arc::default();
    let refuse = || {
        let refused = Arc::clone(&refused);
        move |error: StoreError| _ = refused.lock().get_or_insert(error)
    };
    let mut store: Option<DiskStore> = None;
    let mut show = |part: Part<'_>| {
        if let Some(error) = &*refused.lock() {
            return Err(BackupError::Store(error.clone()));
        }
        match (part, &store) {
            (Part::Store(names, counted), _) => {
                let (refuse, begun) = (refuse(), disk.store(names).map_err(opened)?);
                // The store that the backup is of may have gone on.
                begun.raise_revision(counted.saturating_add(LEAP));
                // It is kept then, also where nothing follows.
                begun.barrier(|| Box::new(move |result| _ = result.map_err(refuse)));
                store = Some(begun);
            }
            (Part::Note(name, note), Some(store)) => {
                let refuse = refuse();
                Notes::write(store, name, note, Box::new(move |result| _ = result.map_err(refuse)));
            }
            (Part::Entry(key, value), Some(store)) => {
                let refuse = refuse();
                store.put(key, value, || Box::new(move |result| _ = result.map(|_| ()).map_err(refuse)));
            }
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
