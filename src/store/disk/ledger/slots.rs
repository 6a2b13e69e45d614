//! How far the batches have come that were written, told beside the journals: what must be there at the next start.
//!
//! ```text
//! DIR/reached   two slots, at 0 and 4096, the newer one counts:
//! slot          serial:64, folder:64, boot:64, always:64, written:64, synced:64, xxh3:64 of what is before
//! ```
//!
//! Numbers are big-endian. A slot is overwritten in place after each batch, without a sync of its own: a killed process
//! leaves what it wrote last, and a power cut something older, which is never more than what is on disk. So it costs nothing
//! that a caller would notice. Which loss of a journal's end it shows:
//!
//! - the process ended, and the system did not: every batch that was answered;
//!   (Not so where the file system was taken back to an earlier moment below a system that runs on: then what was not synced
//!   at that moment is refused as lost, which with `always` is nothing.)
//! - the system went down: what was synced, up to the last time that the system wrote this file by itself, which is often half
//!   a minute before, or that we synced it, which is at each start and each end. A part that is missing behind that, cut exactly
//!   between two batches, cannot be seen: nothing tells it from batches that never were.
//!
//! And of older journals: one that is missing between others, or emptied, is seen by its numbers ([`super::chain`]). The oldest
//! ones, missing as a whole, look as those do that the engine has let go of because all that is in them is in tables; then
//! `check` finds stores that have not as many entries as they were left with.

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use xxhash_rust::xxh3::xxh3_64;

use super::super::error::OpenError;

/// The file's name in the folder.
pub(in crate::store::disk) const NAME: &str = "reached";
const SLOT_BYTES: usize = 56;
/// Where the second one is: in another block, so that what tears one leaves the other.
const SECOND_AT: u64 = 4096;

/// What is known of the journals without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::disk) struct Known {
    /// Drawn when the folder was made.
    pub folder: u64,
    /// Every batch was synced before it was answered.
    pub always: bool,
    /// The run of the system that `written` was told in; 0: the system does not say.
    boot: u64,
    /// Batches up to this number were given to the system.
    written: u64,
    /// And up to this one they are on disk.
    synced: u64,
}

impl Known {
    const fn new(folder: u64) -> Self {
        Self { folder, always: true, boot: 0, written: 0, synced: 0 }
    }

    /// The last batch that must be there.
    pub(in crate::store::disk) fn least(&self) -> u64 {
        // What the system was given it has for as long as it runs.
        if self.boot != 0 && self.boot == boot() { self.written.max(self.synced) } else { self.synced }
    }
}

/// The file.
#[derive(Debug)]
pub(in crate::store::disk) struct Reached {
    /// `None`: it is only read.
    file: Option<File>,
    serial: u64,
    known: Known,
}

impl Reached {
    /// Makes the file of a new folder, durably.
    pub(in crate::store::disk) fn make(dir: &Path) -> io::Result<()> {
        let new = dir.join("reached.new");
        let file = File::create(&new)?;
        let folder = RandomState::new().hash_one(dir).max(1);
        let mut reached = Self { file: Some(file), serial: 0, known: Known::new(folder) };
        reached.write()?;
        reached.write()?;
        reached.sync()?;
        fs::rename(&new, dir.join(NAME))?;
        File::open(dir)?.sync_all()
    }

    /// Reads the file of a folder; `writable` for one that is told more.
    pub(in crate::store::disk) fn open(dir: &Path, writable: bool) -> Result<Self, OpenError> {
        let path = dir.join(NAME);
        let damaged = |what: &str| OpenError::Damaged { file: path.clone(), what: what.into() };
        let file = match OpenOptions::new().read(true).write(writable).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(damaged("it is missing, and says what must be in the journals"));
            }
            file => file.map_err(|error| OpenError::system(&path, &error))?,
        };
        let slots = [0, SECOND_AT].map(|at| read_slot(&file, at));
        let newer = slots.into_iter().flatten().max_by_key(|(serial, _)| *serial);
        let (serial, known) = newer.ok_or_else(|| damaged("the checksums in it are wrong"))?;
        Ok(Self { file: writable.then_some(file), serial, known })
    }

    /// For a folder of before there was such a file, which is only read.
    pub(in crate::store::disk) const fn unknown() -> Self {
        Self { file: None, serial: 0, known: Known::new(0) }
    }

    pub(in crate::store::disk) const fn known(&self) -> Known {
        self.known
    }

    /// All up to this batch is on disk, and others follow.
    pub(in crate::store::disk) fn begin(&mut self, number: u64, always: bool) -> io::Result<()> {
        let folder = self.known.folder;
        self.known = Known { folder, always, boot: boot(), written: number, synced: number };
        self.write()?;
        self.sync()
    }

    /// A batch was given to the system, and synced by it or not.
    pub(in crate::store::disk) fn wrote(&mut self, number: u64, synced: bool) {
        self.known.written = number;
        if synced {
            self.known.synced = number;
        }
        self.write_or_leave();
    }

    /// Batches up to this one were synced.
    pub(in crate::store::disk) fn synced(&mut self, number: u64) {
        self.known.synced = number;
        self.write_or_leave();
    }

    /// All up to this batch is on disk, and nothing follows.
    pub(in crate::store::disk) fn end(&mut self, number: u64) {
        self.known.written = number;
        self.synced(number);
        // It is right also where it is not the newest.
        let _ = self.sync();
    }

    fn write_or_leave(&mut self) {
        if let Err(error) = self.write() {
            // What stands there is true as well, and says less.
            tracing::debug!(%error, "how far the batches have come is not told");
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        self.serial += 1;
        let known = self.known;
        let numbers =
            [self.serial, known.folder, known.boot, known.always.into(), known.written, known.synced];
        let mut slot = [0; SLOT_BYTES];
        for (into, number) in slot.chunks_exact_mut(8).zip(numbers) {
            into.copy_from_slice(&number.to_be_bytes());
        }
        let sum = xxh3_64(&slot[..SLOT_BYTES - 8]);
        slot[SLOT_BYTES - 8..].copy_from_slice(&sum.to_be_bytes());
        let at = if self.serial.is_multiple_of(2) { SECOND_AT } else { 0 };
        file.write_all_at(&slot, at)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), File::sync_all)
    }
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Known)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, at).ok()?;
    let mut numbers = [0; SLOT_BYTES / 8];
    for (number, bytes) in numbers.iter_mut().zip(slot.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    let [serial, folder, boot, always, written, synced, sum] = numbers;
    let known = Known { folder, always: always == 1, boot, written, synced };
    (sum == xxh3_64(&slot[..SLOT_BYTES - 8])).then_some((serial, known))
}

/// A number of this run of the system; 0 where it has none (only Linux has).
fn boot() -> u64 {
    let id = fs::read("/proc/sys/kernel/random/boot_id");
    id.map_or(0, |id| xxh3_64(&id))
}

/// What a power cut leaves: the system has run anew since, and of what was not synced it knows nothing.
#[cfg(test)]
pub(in crate::store::disk) fn power_cut(dir: &Path, synced: u64) {
    let mut reached = Reached::open(dir, true).unwrap();
    reached.known = Known { boot: 1, synced, ..reached.known };
    reached.write().unwrap();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_runs_on_has_what_it_was_given_and_another_what_was_synced() {
        let dir = tempfile::tempdir().unwrap();
        Reached::make(dir.path()).unwrap();
        let mut reached = Reached::open(dir.path(), true).unwrap();
        assert_eq!(reached.known().least(), 0);
        reached.begin(5, false).unwrap();
        for number in 6..=9 {
            reached.wrote(number, number == 7);
        }
        let known = Reached::open(dir.path(), false).unwrap().known();
        assert_eq!((known.written, known.synced, known.always), (9, 7, false));
        // Where the system does not say which run it is, nothing is expected that was not synced.
        assert_eq!(known.least(), if boot() == 0 { 7 } else { 9 });
        power_cut(dir.path(), 7);
        let known = Reached::open(dir.path(), false).unwrap().known();
        assert_eq!((known.least(), known.folder), (7, reached.known().folder));
    }

    #[test]
    fn a_torn_slot_leaves_the_other_and_without_both_it_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Reached::open(dir.path(), true).map(|reached| reached.known());
        assert!(matches!(missing, Err(OpenError::Damaged { .. })), "{missing:?}");
        Reached::make(dir.path()).unwrap();
        let mut reached = Reached::open(dir.path(), true).unwrap();
        reached.wrote(1, true);
        reached.wrote(2, true);
        let path = dir.path().join(NAME);
        let whole = fs::read(&path).unwrap();
        for (torn, synced) in [(&[0][..], [1, 2]), (&[SECOND_AT], [1, 2]), (&[0, SECOND_AT], [0, 0])] {
            let mut bytes = whole.clone();
            for at in torn {
                bytes[*at as usize + 30] ^= 1;
            }
            fs::write(&path, bytes).unwrap();
            match Reached::open(dir.path(), false) {
                Ok(reached) => assert!(synced.contains(&reached.known().synced), "{torn:?}"),
                Err(error) => assert!(torn.len() == 2, "{error}"),
            }
        }
    }
}
