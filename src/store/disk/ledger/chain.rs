//! The batches of all journals, one after the other, by the number of ours in each: one that is missing, moved or altered is
//! seen.
//!
//! ```text
//! "b" -> number:64, engine's number at least:64, folder:64      (big-endian, in the keyspace of what is known of stores)
//! ```

use std::fmt;
use std::io;
use std::path::Path;

use super::super::frames::{self, Behind, Frame, Walk};

/// The key that a stamp stands under: shorter than every other one.
pub(super) const KEY: u8 = b'b';
/// Bytes of it.
pub(super) const BYTES: usize = 24;
/// The engine's threads take numbers too, between the moment that a batch is made and its writing: never so many.
pub(super) const ENGINE_AHEAD_MAX: u64 = 1024;

/// A batch of a journal.
type Batch = Frame<BYTES>;

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    /// 1 for the folder's first batch.
    pub number: u64,
    /// The engine gives the batch this number, or one of the next.
    pub engine_number: u64,
    /// Drawn when the folder was made.
    pub folder: u64,
}

impl Stamp {
    pub(super) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        for (into, number) in bytes.chunks_exact_mut(8).zip([self.number, self.engine_number, self.folder]) {
            into.copy_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let stamp = Self { number: number(0)?, engine_number: number(8)?, folder: number(16)? };
        (bytes.len() == BYTES).then_some(stamp)
    }

    /// `None`: an older kvnode wrote the batch.
    fn of(batch: &Batch) -> Option<Self> {
        Self::from_bytes(&batch.mark?)
    }
}

/// What a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Looked {
    /// Whole batches, from the start.
    pub batches: u64,
    /// Where the last of them ends.
    pub whole_bytes: u64,
    pub tail: Tail,
}

/// What comes after the whole batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tail {
    /// Nothing.
    Clean,
    /// Part of one batch, of so many bytes.
    Torn { bytes: u64 },
    /// So many bytes that are not as they were written, and a later batch of the folder behind them.
    Followed { bytes: u64 },
    /// A whole batch that cannot be there.
    Wrong(Wrong),
}

/// The batches of all journals so far, the oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Chain {
    folder: u64,
    /// The last one's number.
    last: Option<u64>,
    /// The last one's number of the engine.
    last_of_engine: Option<u64>,
}

/// Why a whole batch cannot stand where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// The engine's number is not what it was.
    EngineNumber { number: u64 },
    /// It is not the next one.
    Gap { last: u64, number: u64 },
    /// One without a number of ours, behind one with it.
    NoNumber { last: u64 },
    /// It was written in another folder.
    OfAnotherFolder,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EngineNumber { number } => {
                write!(f, "the batch there says that its number is {number}, which it is not")
            }
            Self::Gap { last, number } if *number > last + 1 => {
                write!(f, "batch {number} follows batch {last}: {} in between are missing", number - last - 1)
            }
            Self::Gap { last, number } => {
                write!(f, "batch {number} follows batch {last}: it does not belong there")
            }
            Self::NoNumber { last } => write!(f, "a batch without a number follows batch {last}"),
            Self::OfAnotherFolder => f.write_str("the batch there was written in another folder"),
        }
    }
}

impl Chain {
    /// No batch yet, of the folder with this number.
    pub(super) const fn new(folder: u64) -> Self {
        Self { folder, last: None, last_of_engine: None }
    }

    /// The number of the last batch, where it has one.
    pub(super) const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Looks through a journal, the one after those that it has seen; `read` is told of bytes as they are read.
    pub(super) fn look(&mut self, path: &Path, read: &mut dyn FnMut(u64)) -> io::Result<Looked> {
        let mut walk = Walk::open(path, KEY)?;
        let mut found = Looked { batches: 0, whole_bytes: 0, tail: Tail::Clean };
        while let Some(batch) = walk.next_frame()? {
            if let Err(wrong) = self.take(&batch) {
                return Ok(Looked { tail: Tail::Wrong(wrong), ..found });
            }
            found.batches += 1;
            found.whole_bytes += batch.bytes;
            read(batch.bytes);
        }
        found.tail = match frames::behind(path, found.whole_bytes, KEY, &|batch| self.is_later(batch), read)?
        {
            Behind::Nothing => Tail::Clean,
            Behind::Torn { bytes } => Tail::Torn { bytes },
            Behind::Followed { bytes } => Tail::Followed { bytes },
        };
        Ok(found)
    }

    /// Takes the next batch.
    fn take(&mut self, batch: &Batch) -> Result<(), Wrong> {
        let number = batch.number;
        if self.last_of_engine.is_some_and(|last| number <= last) {
            return Err(Wrong::EngineNumber { number });
        }
        match (Stamp::of(batch), self.last) {
            (Some(stamp), _) if stamp.folder != self.folder => return Err(Wrong::OfAnotherFolder),
            (Some(stamp), Some(last)) if stamp.number != last.wrapping_add(1) => {
                return Err(Wrong::Gap { last, number: stamp.number });
            }
            (Some(stamp), _) => {
                let ahead = number.checked_sub(stamp.engine_number);
                if ahead.is_none_or(|ahead| ahead > ENGINE_AHEAD_MAX) {
                    return Err(Wrong::EngineNumber { number });
                }
                self.last = Some(stamp.number);
            }
            (None, Some(last)) => return Err(Wrong::NoNumber { last }),
            // From before there were numbers.
            (None, None) => {}
        }
        self.last_of_engine = Some(number);
        Ok(())
    }

    /// Whether what was read behind something unreadable is a later batch of the folder, and not a part of a value.
    fn is_later(&self, batch: &Batch) -> bool {
        match Stamp::of(batch) {
            Some(stamp) => stamp.folder == self.folder && self.last.is_none_or(|last| stamp.number > last),
            None => self.last.is_none() && self.last_of_engine.is_some_and(|last| batch.number > last),
        }
    }
}

/// Where in a journal of the folder begins what comes behind batch `last`; `None`: nothing does.
///
/// # Errors
/// The system's; or a batch before it cannot be read, so that nobody knows what would be cut off.
pub(super) fn end_of(path: &Path, folder: u64, last: u64) -> io::Result<Option<u64>> {
    let mut walk: Walk<BYTES> = Walk::open(path, KEY)?;
    let mut end = 0;
    while let Some(batch) = walk.next_frame()? {
        if Stamp::of(&batch).is_some_and(|stamp| stamp.number > last) {
            return Ok(Some(end));
        }
        end += batch.bytes;
    }
    let is_before =
        |batch: &Batch| Stamp::of(batch).is_some_and(|stamp| stamp.folder == folder && stamp.number <= last);
    match frames::behind(path, end, KEY, &is_before, &mut |_| {})? {
        Behind::Nothing => Ok(None),
        Behind::Torn { .. } => Ok(Some(end)),
        Behind::Followed { .. } => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is damaged at byte {end}, before what is to be taken back", path.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const FOLDER: u64 = 7;

    fn batch(number: u64, engine_number: u64) -> Batch {
        let stamp = Stamp { number, engine_number, folder: FOLDER };
        Batch { number: engine_number + 1, bytes: 100, mark: Some(stamp.to_bytes()) }
    }

    #[test]
    fn batches_follow_each_other_by_one_and_the_engines_numbers_ascend() {
        let mut chain = Chain::new(FOLDER);
        let old = Batch { number: 3, bytes: 1, mark: None };
        assert_eq!(chain.take(&old), Ok(()));
        assert!(chain.is_later(&Batch { number: 4, ..old }) && !chain.is_later(&old));
        assert_eq!(chain.take(&batch(5, 10)), Ok(()), "the first number may be any");
        assert_eq!(chain.take(&batch(6, 14)), Ok(()));
        assert_eq!(chain.last(), Some(6));
        assert_eq!(chain.take(&batch(8, 20)), Err(Wrong::Gap { last: 6, number: 8 }));
        assert_eq!(chain.take(&batch(6, 20)), Err(Wrong::Gap { last: 6, number: 6 }));
        assert_eq!(chain.take(&batch(7, 14)), Err(Wrong::EngineNumber { number: 15 }));
        assert_eq!(chain.take(&Batch { number: 30, ..old }), Err(Wrong::NoNumber { last: 6 }));
        for number in [20, 21 + ENGINE_AHEAD_MAX + 1, u64::MAX] {
            let altered = Batch { number, ..batch(7, 21) };
            assert_eq!(chain.take(&altered), Err(Wrong::EngineNumber { number }));
        }
        let stamp = Stamp { number: 7, engine_number: 20, folder: FOLDER + 1 };
        let other = Batch { mark: Some(stamp.to_bytes()), ..batch(7, 20) };
        assert_eq!(chain.take(&other), Err(Wrong::OfAnotherFolder));
        assert!(!chain.is_later(&other) && !chain.is_later(&batch(6, 20)) && chain.is_later(&batch(9, 20)));
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { number: 1, engine_number: u64::MAX - 1, folder: 3 };
        assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), Some(stamp));
        assert_eq!(Stamp::from_bytes(&[0; BYTES - 1]), None);
        assert_eq!(Stamp::from_bytes(&[0; BYTES + 1]), None);
    }

    /// A journal as the engine writes it: its path, and where each batch ends.
    fn written(dir: &Path, batches: u32) -> (std::path::PathBuf, Vec<u64>) {
        let path = dir.join("0.jnl");
        let db = Database::builder(dir).open().unwrap();
        let keyspace = db.keyspace("s", KeyspaceCreateOptions::default).unwrap();
        let mut ends = Vec::new();
        for number in 0..batches {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&keyspace, format!("k{number}"), vec![number as u8; 10_000]);
            batch.remove(&keyspace, format!("d{number}"));
            let stamp = Stamp { number: u64::from(number) + 1, engine_number: db.seqno(), folder: FOLDER };
            batch.insert(&keyspace, [KEY], stamp.to_bytes());
            batch.commit().unwrap();
            ends.push(look(&path).whole_bytes);
        }
        drop(keyspace);
        drop(db);
        (path, ends)
    }

    fn look(path: &Path) -> Looked {
        Chain::new(FOLDER).look(path, &mut |_| {}).unwrap()
    }

    fn spoil(path: &Path, at: u64) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at as usize] ^= 0x40;
        fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_the_engine_writes_is_read_to_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let mut chain = Chain::new(FOLDER);
        let found = chain.look(&path, &mut |_| {}).unwrap();
        assert_eq!((found.tail, found.whole_bytes, found.batches), (Tail::Clean, ends[2], 3));
        assert_eq!(chain.last(), Some(3));
        assert!(ends[0] < ends[1] && ends[1] < ends[2] && ends[2] < ends[0] + 30_000, "{ends:?}");
    }

    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let mut whole = fs::read(&path).unwrap();
        // The engine makes its files longer, which costs time here.
        whole.truncate(ends[2] as usize + 100);
        // Every part of the batch in the middle: its start, an item's head, a value, its end.
        for at in [ends[0], ends[0] + 20, ends[0] + 2_000, ends[1] - 1] {
            fs::write(&path, &whole).unwrap();
            spoil(&path, at);
            let damaged = Tail::Followed { bytes: ends[1] - ends[0] };
            assert_eq!((look(&path).tail, look(&path).whole_bytes), (damaged, ends[0]), "at {at}");
        }
        // The engine's number of a batch is not under its checksum: each bit of each batch's.
        for (start, bit) in [0, ends[0], ends[1]].into_iter().flat_map(|at| (0..64).map(move |bit| (at, bit)))
        {
            let mut bytes = whole.clone();
            bytes[start as usize + 5 + bit / 8] ^= 1 << (bit % 8);
            fs::write(&path, &bytes).unwrap();
            let found = look(&path);
            // One that is still between those before and behind it, and near to what it was, changes nothing.
            assert!(matches!(found.tail, Tail::Wrong(_)) || bit <= 10, "bit {bit} of the batch at {start}");
        }
        for at in [ends[1], ends[1] + 2_000, ends[2] - 1] {
            fs::write(&path, &whole).unwrap();
            spoil(&path, at);
            let torn = Tail::Torn { bytes: ends[2] - ends[1] };
            assert_eq!((look(&path).tail, look(&path).whole_bytes), (torn, ends[1]), "at {at}");
        }
        for len in [ends[1] + 1, ends[1] + 5_000, ends[2] - 1] {
            fs::write(&path, &whole[..len as usize]).unwrap();
            assert_eq!(look(&path).tail, Tail::Torn { bytes: len - ends[1] }, "{len} bytes");
        }
    }

    #[test]
    fn a_batch_that_stands_in_a_value_is_none_that_follows() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let whole = fs::read(&path).unwrap();
        // The last batch is torn, and what is behind the tear is what somebody has put: batches of before.
        let mut torn = whole[..ends[1] as usize + 100].to_vec();
        torn.extend_from_slice(&whole[..ends[1] as usize]);
        fs::write(&path, &torn).unwrap();
        assert_eq!(look(&path).tail, Tail::Torn { bytes: 100 + ends[1] });
        // And batches of another folder.
        torn.truncate(ends[1] as usize + 100);
        torn.extend_from_slice(&whole[ends[1] as usize..ends[2] as usize]);
        fs::write(&path, &torn).unwrap();
        assert_eq!(look(&path).tail, Tail::Followed { bytes: 100 });
        let folder = torn.windows(8).rposition(|bytes| bytes == FOLDER.to_be_bytes()).unwrap();
        torn[folder] ^= 1;
        fs::write(&path, &torn).unwrap();
        assert!(matches!(look(&path).tail, Tail::Torn { .. }));
    }

    #[test]
    fn a_batch_in_a_wrong_place_and_one_that_is_missing_are_seen() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let whole = fs::read(&path).unwrap();
        let batch = |at: usize| &whole[if at == 0 { 0 } else { ends[at - 1] as usize }..ends[at] as usize];
        fs::write(&path, [batch(0), batch(2)].concat()).unwrap();
        assert_eq!(look(&path).tail, Tail::Wrong(Wrong::Gap { last: 1, number: 3 }));
        fs::write(&path, [batch(0), batch(1), batch(1)].concat()).unwrap();
        assert!(matches!(look(&path).tail, Tail::Wrong(Wrong::EngineNumber { .. })));
    }

    #[test]
    fn the_last_batches_are_taken_back_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let end = |last| end_of(&path, FOLDER, last);
        assert_eq!(
            (0..4).map(|last| end(last).unwrap()).collect::<Vec<_>>(),
            [Some(0), Some(ends[0]), Some(ends[1]), None]
        );
        let whole = fs::read(&path).unwrap();
        spoil(&path, ends[0] - 1_000);
        assert!(end(2).is_err(), "nothing is cut off that may be good");
        // A part of one that nobody was told of is behind it.
        fs::write(&path, &whole[..ends[2] as usize - 1]).unwrap();
        assert_eq!(end(2).unwrap(), Some(ends[1]));
        fs::write(&path, whole).unwrap();
        frames::cut(&path, ends[1]).unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("s", KeyspaceCreateOptions::default).unwrap();
        assert!(keyspace.get("k1").unwrap().is_some());
        assert!(keyspace.get("k2").unwrap().is_none());
    }
}
