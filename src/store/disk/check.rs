//! Reading all of a folder, and a folder that is read without a byte of it being written.

use std::env;
use std::fmt;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};

use super::backup::{self, BackupError, Part, Progress, StoreCount};
use super::dir::Dir;
use super::engine::{Engine, Sum, View};
use super::error::{OpenError, engine_error};
use super::frames;
use super::ledger::{Journals, Ledger, TornEnd};
use super::record::{Found, plain_key};
use super::writer::opened;
use crate::store::ordered::place_of;

/// Files of the engine from this size on are looked at where they are, in bytes; they are never written again.
const LINK_FROM_BYTES: u64 = 64 << 10;
/// What is kept in memory of what was read, in bytes.
const CACHE_BYTES: u64 = 16 << 20;
/// Entries between two tellings of how far it is.
const TELL_EVERY: u64 = 256;

/// A folder with stores that is only read: it may be on a disk that cannot be written to, and others may read it meanwhile.
///
/// The engine would mend and merge what it opens. So it is given the folder's likeness in the system's folder for
/// temporary files (`TMPDIR`), with copies of the journals, which have some 200 MiB at most, and links to the tables.
pub struct ReadOnlyDisk {
    view: View,
    torn: Option<TornEnd>,
    dir: Dir,
    // Behind the view, which holds the engine open.
    _likeness: Likeness,
}

impl ReadOnlyDisk {
    /// Opens a folder that no node has.
    ///
    /// # Errors
    /// As [`Disk::open`](super::Disk::open)'s; and there is no room for the journals in the folder for temporary files.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let dir = Dir::take_to_read(path)?;
        let in_tables = |journals: &Journals| number_in_tables(&dir.engine(), journals);
        let (ledger, verdict, journals) = Ledger::open(path, dir.access_to_read(), &in_tables)?;
        let torn = verdict.torn()?;
        let (engine, likeness) = open_likeness(&dir.engine(), &journals)?;
        ledger.opened(engine.number())?;
        Ok(Self { view: engine.view(), torn, dir, _likeness: likeness })
    }

    /// What a crash has left at the end, which the next start cuts off: it is no part of what is read here.
    pub const fn torn_end(&self) -> Option<&TornEnd> {
        self.torn.as_ref()
    }

    /// Reads every entry of every store. `progress` is told how many entries are done and how many there are, now and then,
    /// and ends it by `false`.
    ///
    /// # Errors
    /// The first entry that cannot be read, or counts that are not as they were written.
    pub fn check(&self, progress: &mut dyn FnMut(u64, u64) -> bool) -> Result<Vec<StoreCount>, OpenError> {
        self.view.check(&self.dir.engine(), progress)
    }

    /// Writes all stores into a new file. `progress` is as for [`check`](Self::check).
    ///
    /// # Errors
    /// See [`BackupError`]. There is no such file then.
    pub fn backup(
        &self,
        file: &Path,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<Vec<StoreCount>, BackupError> {
        backup::write(&self.view, file, progress)
    }

    /// The names of each store.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn stores(&self) -> Result<Vec<Vec<String>>, BackupError> {
        let names = self.view.names().map_err(|error| BackupError::Store(engine_error(&error)))?;
        Ok(names.into_iter().map(|(_, names)| names).collect())
    }

    /// Shows all stores, part by part. `progress` is as for [`check`](Self::check).
    ///
    /// # Errors
    /// See [`BackupError`], and what `show` gives.
    pub fn visit(
        &self,
        show: &mut dyn FnMut(Part<'_>) -> Result<(), BackupError>,
        progress: &mut dyn FnMut(u64, u64) -> bool,
    ) -> Result<(), BackupError> {
        backup::visit(&self.view, show, progress)
    }
}

impl fmt::Debug for ReadOnlyDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadOnlyDisk")
            .field("dir", &self.dir.path)
            .field("torn", &self.torn)
            .finish_non_exhaustive()
    }
}

impl View {
    /// Reads everything; `progress` is told of entries. `engine` is the folder that errors name.
    pub(super) fn check(&self, engine: &Path, progress: Progress<'_>) -> Result<Vec<StoreCount>, OpenError> {
        let failed = |error| OpenError::engine(engine, error);
        let (mut found, mut done, all) = (Vec::new(), 0_u64, self.entries().map_err(failed)?);
        for (id, names) in self.names().map_err(failed)? {
            let place = engine.join("keyspaces").join(self.folder_of(id).unwrap_or_default());
            let store = names.join(", ");
            let damaged = |what: String| OpenError::Damaged { file: place.clone(), what };
            let (mut entries, mut bytes, mut ends, mut ordered) = (0_u64, 0_u64, 0_u64, Sum::default());
            let pairs = self
                .entries_of(id, None)
                .ok_or_else(|| damaged(format!("it is missing: the store {store}")))?;
            for pair in pairs {
                let pair = pair.into_inner().map_err(|error| engine_error(&error).to_string());
                let read = pair.and_then(|(key, entry)| {
                    let found = Found::new(&key, entry).ok_or("it is no entry")?;
                    ends += u64::from(found.head().deadline != 0);
                    let of_it = found.long_key().unwrap_or_else(|| plain_key(&key));
                    ordered.add(&place_of(of_it), &key);
                    Ok(found.bytes(of_it))
                });
                bytes += read.map_err(|what: String| {
                    damaged(format!("a file in it has the store {store}, of which an entry behind {entries} good ones cannot be read ({what})"))
                })?;
                entries += 1;
                done += 1;
                if done.is_multiple_of(TELL_EVERY) && !progress(done, all) {
                    return Err(damaged("it was not read to its end".into()));
                }
            }
            let totals = self.totals(id).map_err(failed)?;
            if totals != (entries, bytes) {
                return Err(damaged(format!(
                    "the store {store} in it has {entries} entries of {bytes} bytes, and was left with {} of {}",
                    totals.0, totals.1
                )));
            }
            let counted = self.held(id).map_err(failed)?.deadlines;
            if counted != ends {
                return Err(damaged(format!(
                    "the store {store} in it has {ends} entries with a deadline, and was left with {counted}"
                )));
            }
            let kept = self.ends_of(id).map_err(failed)?;
            if kept != ends {
                return Err(damaged(format!(
                    "the store {store} in it has {ends} entries with a deadline, and {kept} deadlines are kept"
                )));
            }
            if let Some(what) = self.misplaced(id, ordered, &mut || progress(done, all)).map_err(failed)? {
                return Err(damaged(format!("the store {store} in it {what}")));
            }
            found.push(StoreCount { names, entries, bytes });
        }
        Ok(found)
    }
}

/// The last batch's number, of an engine with these journals, which is not changed by the question.
pub(super) fn number_in_tables(engine: &Path, journals: &Journals) -> Result<u64, OpenError> {
    let (engine, _likeness) = open_likeness(engine, journals)?;
    Ok(engine.number())
}

fn open_likeness(engine: &Path, journals: &Journals) -> Result<(Engine, Likeness), OpenError> {
    let likeness = Likeness::new()?;
    likeness.fill(engine, journals)?;
    let opened = opened(engine, || Engine::open_to_read(&likeness.0, CACHE_BYTES))?;
    Ok((opened, likeness))
}

/// A folder of ours that is gone when this is dropped.
struct Likeness(PathBuf);

impl Likeness {
    fn new() -> Result<Self, OpenError> {
        let path = env::temp_dir().join(format!("kvnode-{:016x}", RandomState::new().hash_one(())));
        // For nobody else: keys and values stand in it.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|error| OpenError::system(&path, &error))?;
        Ok(Self(path))
    }

    fn fill(&self, engine: &Path, journals: &Journals) -> Result<(), OpenError> {
        let fill = || -> io::Result<()> {
            if engine.is_dir() {
                liken(&engine.canonicalize()?, &self.0)?;
            }
            for (journal, whole_bytes) in journals {
                let copy = self.0.join(journal.file_name().unwrap_or_default());
                io::copy(&mut fs::File::open(journal)?.take(*whole_bytes), &mut fs::File::create(copy)?)?;
            }
            Ok(())
        };
        fill().map_err(|error| OpenError::system(&self.0, &error))
    }
}

impl Drop for Likeness {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            tracing::warn!(dir = %self.0.display(), %error, "a temporary folder is left");
        }
    }
}

/// Makes `to` like `from`, without its journals.
fn liken(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            DirBuilder::new().mode(0o700).create(&copy)?;
            liken(&path, &copy)?;
        } else if frames::is_journal(&path) {
        } else if entry.metadata()?.len() < LINK_FROM_BYTES {
            // Not `fs::copy`: a copy of what nobody may write could not be written either.
            io::copy(&mut fs::File::open(&path)?, &mut fs::File::create(&copy)?)?;
        } else {
            symlink(&path, &copy)?;
        }
    }
    Ok(())
}
