//! The ledger: which batches a folder must have, and whether it has them.
//!
//! fjall 3 takes whatever it cannot read in a journal for its end, and goes on without what comes after: right for a batch that
//! a crash has torn, and silent loss for a damaged one in the middle, or for a journal that was cut short or removed. And where
//! the pieces of the last batch reached the disk out of order it does not open at all. So each batch has a number of ours, how
//! far the numbers have come is told beside the journals, and both are compared before the engine sees a journal.
//!
//! ```text
//! open            -> Verdict    before the engine is opened: Whole, Torn (what is torn is cut off), Lost (nothing is changed)
//! opened                        the engine has read so far: a second opinion; from here on batches are written
//! stamp, wrote                  the next batch's number; that batch was given to the system, synced by it or not. Between
//!                               the two a batch is out, and no other gets a number
//! last, synced                  all batches up to that one were synced
//! take_back, look -> Verdict    after a failure: what was not told of by `wrote` goes out of the journals, and once more
//! close                         all is on disk, and nothing follows
//! ```
//!
//! # Numbers
//!
//! A batch has one number, and nobody but the ledger counts: 1 for the folder's first batch, one more for each that follows, over
//! all journals and lives of the folder. It stands in the batch, is what the file beside the journals tells of, and says what is
//! to be taken back. Two others are looked at where they stand, and are not numbers of batches:
//!
//! - The engine's own, in the head of each batch. It leaves gaps, and is outside of the batch's checksum: a bit of it that flips
//!   has the batch left out, or give an old value back. So each batch also says inside which number the engine will give it.
//! - The serial of the two slots in the file ([`slots`]), which says which of them is newer.
//!
//! The folder's number, drawn when the folder is made, tells a batch from bytes of a value that look like one: nobody outside
//! can know it.
//!
//! # A batch that is out
//!
//! Its number is given once: until [`wrote`](Ledger::wrote) says that the batch is written, or
//! [`take_back`](Ledger::take_back) that it is in no journal, there is no other [`stamp`](Ledger::stamp). So nothing comes
//! behind a batch that failed, whatever thread it is and whatever else that thread knows of the failure. What holds of a batch
//! that failed follows from the order in which the engine commits: under the lock of its journal it writes the batch there,
//! syncs it, and puts the entries into the memory tables, the stamp last; then it lets go of the lock.
//!
//! - An error comes before the memory tables have anything: what is in the journal is cut off.
//! - A panic, and the stamp is read in the memory tables: the batch is there and in the journal, whole and synced as was asked.
//!   It is written, and may be in tables on disk already; the engine is opened again.
//! - A panic, and the stamp is not there: the lock was held, or the batch not begun. A lock that was held is poisoned, and
//!   without it no memory table becomes one on disk: a new engine knows nothing of the batch once the journal is cut. Until then
//!   reads may see entries that the memory tables had got by then, though their writers were told of an error.
//!
//! # What is told beside the journals
//!
//! ```text
//! DIR/reached   folder:64, boot:64, always:64, written:64, synced:64
//! ```
//!
//! It is overwritten in place after each batch, without a sync of its own: a killed process leaves what it wrote last, and a
//! power cut something older, which is never more than what is on disk. So it costs nothing that a caller would notice. Which loss
//! of a journal's end it shows:
//!
//! - the process ended, and the system did not: every batch that was answered;
//!   (Not so where the file system was taken back to an earlier moment below a system that runs on: then what was not synced
//!   at that moment is refused as lost, which with `always` is nothing.)
//! - the system went down: what was synced, up to the last time that the system wrote this file by itself, which is often half
//!   a minute before, or that we synced it, which is at each start and each end. A part that is missing behind that, cut exactly
//!   between two batches, cannot be seen: nothing tells it from batches that never were.
//!
//! And of older journals: one that is missing between others, or emptied, is seen by its numbers ([`chain`]). The oldest ones,
//! missing as a whole, look as those do that the engine has let go of because all that is in them is in tables; then `check` finds
//! stores that have not as many entries as they were left with.

mod chain;
mod slots;

use std::fs::{self, File, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use xxhash_rust::xxh3::xxh3_64;

use super::error::OpenError;
use super::frames;
use chain::{Chain, Stamp, Tail};
use slots::{Numbers, Slots};

/// The file's name in the folder.
pub(super) const NAME: &str = "reached";
/// Its name while it is made.
pub(super) const NEW_NAME: &str = "reached.new";
/// The key that a batch's stamp stands under.
pub(super) const KEY: [u8; 1] = [chain::KEY];
/// Bytes of a stamp.
pub(super) const STAMP_BYTES: usize = chain::BYTES;
/// Journals with so many bytes take long enough to be told of.
const LARGE_BYTES: u64 = 64 << 20;
/// How often the log tells how far a start has come.
const TELL_EVERY: Duration = Duration::from_secs(1);

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

/// What the journals of a folder are found to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Every batch that must be there is, and nothing else.
    Whole,
    /// So it is but for this, which no caller was told of, or which was not synced when the system went down. A folder that is
    /// opened for writing has been rid of it.
    Torn(TornEnd),
    /// A batch that must be there is not, or not as it was written: this says which. Nothing was changed.
    Lost(OpenError),
}

impl Verdict {
    /// What was torn off; what was lost is an error.
    pub(super) fn torn(self) -> Result<Option<TornEnd>, OpenError> {
        match self {
            Self::Whole => Ok(None),
            Self::Torn(torn) => Ok(Some(torn)),
            Self::Lost(error) => Err(error),
        }
    }
}

/// The journals of a folder, the oldest first, each with the length of its whole batches.
pub(super) type Journals = Vec<(PathBuf, u64)>;

/// The number of the last batch that an engine with these journals has; it is not changed by the question.
pub(super) type InTables<'a> = &'a dyn Fn(&Journals) -> Result<u64, OpenError>;

/// What a folder is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `always`: every batch will be synced before it is answered.
    Write { always: bool },
    /// Nothing is changed.
    Read,
    /// The same in a folder of the first format, which has no ledger.
    ReadFirst,
}

/// What is known of the journals without them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Known {
    /// Drawn when the folder was made.
    folder: u64,
    /// Every batch was synced before it was answered.
    always: bool,
    /// The run of the system that `written` was told in; 0: the system does not say.
    boot: u64,
    /// Batches up to this number were given to the system.
    written: u64,
    /// And up to this one they are on disk.
    synced: u64,
}

impl Known {
    /// Of a folder without a batch.
    const fn new(folder: u64) -> Self {
        Self { folder, always: true, boot: 0, written: 0, synced: 0 }
    }

    /// The last batch that must be there.
    fn least(&self) -> u64 {
        // What the system was given it has for as long as it runs.
        if self.boot != 0 && self.boot == boot() { self.written.max(self.synced) } else { self.synced }
    }

    const fn of([folder, boot, always, written, synced]: Numbers) -> Self {
        Self { folder, always: always == 1, boot, written, synced }
    }

    const fn numbers(self) -> Numbers {
        [self.folder, self.boot, self.always as u64, self.written, self.synced]
    }
}

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Ledger {
    dir: PathBuf,
    access: Access,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None`: the folder is only read.
    slots: Option<Slots>,
    known: Known,
    /// The engine was opened once: `known` is of this life of the folder.
    begun: bool,
    /// A batch has the next number, and is neither written nor taken back.
    is_out: bool,
}

impl Ledger {
    /// Makes the ledger of a new folder, durably.
    pub(super) fn make(dir: &Path) -> io::Result<()> {
        let new = dir.join(NEW_NAME);
        let folder = RandomState::new().hash_one(dir).max(1);
        Slots::make(File::create(&new)?, Known::new(folder).numbers())?;
        fs::rename(&new, dir.join(NAME))?;
        File::open(dir)?.sync_all()
    }

    /// Reads the ledger of a folder, and looks through its journals: see [`look`](Self::look).
    ///
    /// # Errors
    /// The ledger is missing or damaged, or the system refuses.
    pub(super) fn open(
        dir: &Path,
        access: Access,
        in_tables: InTables<'_>,
    ) -> Result<(Self, Verdict, Journals), OpenError> {
        let ledger = Self::read(dir, access)?;
        let (verdict, journals) = ledger.look(in_tables)?;
        Ok((ledger, verdict, journals))
    }

    fn read(dir: &Path, access: Access) -> Result<Self, OpenError> {
        let (slots, known) = match access {
            Access::ReadFirst => (None, Known::new(0)),
            Access::Write { .. } | Access::Read => {
                let path = dir.join(NAME);
                let writes = matches!(access, Access::Write { .. });
                let damaged = |what: &str| OpenError::Damaged { file: path.clone(), what: what.into() };
                let file = match OpenOptions::new().read(true).write(writes).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(damaged("it is missing, and says what must be in the journals"));
                    }
                    file => file.map_err(|error| OpenError::system(&path, &error))?,
                };
                let read = Slots::read(file).ok_or_else(|| damaged("the checksums in it are wrong"))?;
                (writes.then_some(read.0), Known::of(read.1))
            }
        };
        let state = Mutex::new(State { slots, known, begun: false, is_out: false });
        Ok(Self { dir: dir.into(), access, state })
    }

    fn engine(&self) -> PathBuf {
        self.dir.join("engine")
    }

    /// Whether every batch of the folder's life before was synced before it was answered, until the engine
    /// [is opened](Self::opened).
    pub(super) fn was_always(&self) -> bool {
        self.state.lock().known.always
    }

    /// Looks through the journals before the engine sees them. What a crash has left behind the last whole batch is cut off, if
    /// the folder is opened for writing and nothing is lost.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn look(&self, in_tables: InTables<'_>) -> Result<(Verdict, Journals), OpenError> {
        let known = self.state.lock().known;
        let (verdict, journals, last) = self.look_through(known)?;
        if matches!(verdict, Verdict::Lost(_)) {
            return Ok((verdict, journals));
        }
        if last.is_none() && known.least() > 0 {
            // Tables may have it all; the engine would make what is left of the journals look as if it had been so.
            let number = in_tables(&journals)?;
            if let Err(error) = self.compare(number, known) {
                return Ok((Verdict::Lost(error), journals));
            }
        }
        if let (Verdict::Torn(torn), Access::Write { .. }) = (&verdict, self.access) {
            cut_off(torn).map_err(|error| OpenError::system(&torn.file, &error))?;
        }
        Ok((verdict, journals))
    }

    /// What the journals are, with the last batch's number; `None`: there is none with a number. Nothing is written.
    fn look_through(&self, known: Known) -> Result<(Verdict, Journals, Option<u64>), OpenError> {
        let engine = self.engine();
        let paths = frames::journals(&engine).map_err(|error| OpenError::system(&engine, &error))?;
        let mut progress = Progress::new(&paths);
        let mut chain = Chain::new(known.folder);
        let (mut journals, mut torn) = (Journals::new(), None);
        for path in paths {
            let looked = chain
                .look(&path, &mut |bytes| progress.read(bytes))
                .map_err(|error| OpenError::system(&path, &error))?;
            let offset = looked.whole_bytes;
            let lost = |error| Ok((Verdict::Lost(error), Journals::new(), None));
            let torn_end =
                |bytes, batches_follow| Some(TornEnd { file: path.clone(), offset, bytes, batches_follow });
            // The engine begins another journal behind one that it failed to write, but no batch in it.
            if let Some(TornEnd { file, offset, bytes, .. }) = &torn
                && (looked.batches > 0 || !matches!(looked.tail, Tail::Clean))
            {
                return lost(later_is_there(file, *offset, *bytes));
            }
            match looked.tail {
                Tail::Clean => {}
                Tail::Wrong(wrong) => {
                    let what = format!("{} batches up to byte {offset} are whole; {wrong}", looked.batches);
                    return lost(OpenError::Damaged { file: path, what });
                }
                Tail::Torn { bytes } => torn = torn_end(bytes, false),
                Tail::Followed { bytes } if !known.always => torn = torn_end(bytes, true),
                Tail::Followed { bytes } => return lost(later_is_there(&path, offset, bytes)),
            }
            progress.whole_bytes += offset;
            journals.push((path, offset));
        }
        let last = chain.last();
        // The last journal that has a batch.
        if let (Some(number), Some((path, offset))) = (last, journals.iter().rfind(|(_, bytes)| *bytes > 0))
            && number < known.least()
        {
            return Ok((Verdict::Lost(missing(path, *offset, number, known.least())), journals, last));
        }
        if progress.whole_bytes >= LARGE_BYTES {
            tracing::info!(dir = %self.dir.display(), "reading {} MiB of journals", progress.whole_bytes >> 20);
        }
        Ok((torn.map_or(Verdict::Whole, Verdict::Torn), journals, last))
    }

    /// Whether an engine whose last batch is this one has the last that must be there.
    fn compare(&self, number: u64, known: Known) -> Result<(), OpenError> {
        let least = known.least();
        if number >= least {
            return Ok(());
        }
        let newest = frames::journals(&self.engine()).ok().and_then(|mut journals| journals.pop());
        Err(missing(&newest.unwrap_or_else(|| self.engine()), 0, number, least))
    }

    /// The engine is open, and this is its last batch. (The engine syncs the journals that it finds when it is opened.)
    ///
    /// # Errors
    /// A batch that must be there is not; or the system refuses.
    pub(super) fn opened(&self, number: u64) -> Result<(), OpenError> {
        let mut state = self.state.lock();
        self.compare(number, state.known)?;
        if let Access::Write { always } = self.access
            && !state.begun
        {
            let folder = state.known.folder;
            state.known = Known { folder, always, boot: boot(), written: number, synced: number };
            state.begun = true;
            let told = state.write().and_then(|()| state.sync());
            told.map_err(|error| OpenError::system(&self.dir.join(NAME), &error))?;
        }
        Ok(())
    }

    /// What the next batch has under [`KEY`]; `engine_number` is the number that the engine gives it, or a lower one.
    /// `None`: the batch before is out, and has to be taken back.
    #[must_use]
    pub(super) fn stamp(&self, engine_number: u64) -> Option<[u8; STAMP_BYTES]> {
        let mut state = self.state.lock();
        if std::mem::replace(&mut state.is_out, true) {
            return None;
        }
        let known = state.known;
        Some(Stamp { number: known.written + 1, engine_number, folder: known.folder }.to_bytes())
    }

    /// The batch that has the last [`stamp`](Self::stamp) was given to the system, and synced by it or not.
    pub(super) fn wrote(&self, synced: bool) {
        let mut state = self.state.lock();
        state.is_out = false;
        state.known.written += 1;
        if synced {
            state.known.synced = state.known.written;
        }
        state.write_or_leave();
    }

    /// The last batch that was given to the system: the thread that syncs asks for it before.
    pub(super) fn last(&self) -> u64 {
        self.state.lock().known.written
    }

    /// Batches up to this one were synced.
    pub(super) fn synced(&self, number: u64) {
        let mut state = self.state.lock();
        state.known.synced = state.known.synced.max(number);
        state.write_or_leave();
    }

    /// All that was written is on disk, and nothing follows.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.known.synced = state.known.written;
        state.write_or_leave();
        // It is right also where it is not the newest.
        let _ = state.sync();
    }

    /// Cuts what comes behind the last batch off the journals: a batch that failed, as a whole or by half. The engine is closed.
    ///
    /// # Errors
    /// The system's; or something before cannot be read, and nothing was cut.
    pub(super) fn take_back(&self) -> io::Result<()> {
        let Known { folder, written, .. } = self.state.lock().known;
        // The engine may have begun a new journal behind the one that it failed to write.
        let journals = frames::journals(&self.engine())?;
        let ends: Vec<_> =
            journals.iter().map(|path| chain::end_of(path, folder, written)).collect::<io::Result<_>>()?;
        let mut cuts = journals.iter().zip(ends).filter_map(|(path, end)| Some((path, end?)));
        cuts.try_for_each(|(path, end)| frames::cut(path, end))?;
        self.state.lock().is_out = false;
        Ok(())
    }
}

impl State {
    fn write_or_leave(&mut self) {
        if let Err(error) = self.write() {
            // What stands there is true as well, and says less.
            tracing::debug!(%error, "how far the batches have come is not told");
        }
    }

    fn write(&mut self) -> io::Result<()> {
        let numbers = self.known.numbers();
        self.slots.as_mut().map_or(Ok(()), |slots| slots.write(numbers))
    }

    fn sync(&self) -> io::Result<()> {
        self.slots.as_ref().map_or(Ok(()), Slots::sync)
    }
}

/// The number in a stamp; `None`: it is none.
pub(super) fn number_of(stamp: &[u8]) -> Option<u64> {
    Stamp::from_bytes(stamp).map(|stamp| stamp.number)
}

/// Cuts off what a crash has left behind the last whole batch.
fn cut_off(torn: &TornEnd) -> io::Result<()> {
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
    frames::cut(&torn.file, torn.offset)
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

/// A number of this run of the system; 0 where it has none (only Linux has).
fn boot() -> u64 {
    let id = fs::read("/proc/sys/kernel/random/boot_id");
    id.map_or(0, |id| xxh3_64(&id))
}

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

#[cfg(test)]
pub(super) mod tests;
