//! The engine's journal, looked at before the engine reads it.
//!
//! fjall 3 takes whatever it cannot read in a journal for its end, and goes on without what comes after: right for a
//! batch that a crash has torn, and silent loss for a damaged one in the middle. And where the pieces of the last batch
//! reached the disk out of order it does not open at all. So a journal is walked here first: what is torn at its end is
//! told from what is damaged before its end by whether a whole batch follows. What the batches' numbers say is looked at too
//! ([`super::ledger::chain`]), and how far they must come ([`super::ledger::slots`]). Nothing is written here but by [`cut`].
//!
//! ```text
//! batch = 1, items:32, number:64   (2, ..., item | 4, keyspace:64)*   3, xxh3:64 of what is between, "FJL", 3
//! item  = 2, kind:8, compression:8, keyspace:64, key length:16, length:32, stored length:32, key, value
//! ```
//!
//! Numbers are little-endian. The file is allocated ahead: behind the last batch there are zeros, or nothing. The tests
//! hold this against the engine's own writing.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use xxhash_rust::xxh3::Xxh3;

use super::ledger::chain::{self, Batch, Chain, Stamp, Wrong};

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;
/// Ends every batch.
const TRAILER: [u8; 4] = [b'F', b'J', b'L', 3];
/// From the end's tag to the end, in bytes.
const END_BYTES: usize = 1 + 8 + TRAILER.len();
/// Bytes of a batch that are looked at before it is read on.
const LOOK_BYTES: usize = 15;
/// Bytes that are read at once.
const READ_BYTES: usize = 256 << 10;

/// What a journal holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inspection {
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
    /// So many bytes that are not as they were written, and a whole batch behind them.
    Followed { bytes: u64 },
    /// A whole batch that cannot be there.
    Wrong(Wrong),
}

/// Walks a journal, the one after those that `chain` has seen; `read` is told of bytes as they are read.
pub(super) fn inspect(path: &Path, chain: &mut Chain, read: &mut dyn FnMut(u64)) -> io::Result<Inspection> {
    let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    let mut found = Inspection { batches: 0, whole_bytes: 0, tail: Tail::Clean };
    while let Some(batch) = batch(&mut reader)? {
        if let Err(wrong) = chain.take(&batch) {
            return Ok(Inspection { tail: Tail::Wrong(wrong), ..found });
        }
        found.batches += 1;
        found.whole_bytes += batch.bytes;
        read(batch.bytes);
    }
    found.tail = tail(path, found.whole_bytes, &|batch| chain.is_later(batch), read)?;
    Ok(found)
}

/// Where the first batch begins that has the engine's number `seqno` or a later one, or the whole ones end.
///
/// # Errors
/// The system's; or a batch before it cannot be read, so that nobody knows what would be cut off.
pub(super) fn bytes_before(path: &Path, seqno: u64) -> io::Result<u64> {
    let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    let mut end = 0;
    while let Some(batch) = batch(&mut reader)? {
        if batch.number >= seqno {
            return Ok(end);
        }
        end += batch.bytes;
    }
    match tail(path, end, &|batch| batch.stamp.is_some() && batch.number < seqno, &mut |_| {})? {
        Tail::Followed { .. } => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is damaged at byte {end}, before what is to be taken back", path.display()),
        )),
        _ => Ok(end),
    }
}

/// Cuts a journal off, durably.
pub(super) fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > bytes {
        file.set_len(bytes)?;
    }
    file.sync_all()
}

/// Reads a batch; `None` where there is none that is whole.
fn batch(reader: &mut impl Read) -> io::Result<Option<Batch>> {
    match read_batch(reader) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read,
    }
}

fn read_batch(reader: &mut impl Read) -> io::Result<Option<Batch>> {
    let [START, head @ ..] = array::<13>(reader)? else { return Ok(None) };
    let items = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let number =
        u64::from_le_bytes([head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11]]);
    let (mut bytes, mut stamp) = (13, None);
    let mut hash = Xxh3::new();
    for _ in 0..items {
        let [tag] = array(reader)?;
        hash.update(&[tag]);
        let (head, body) = match tag {
            CLEAR => {
                hash.update(&array::<8>(reader)?);
                (8, 0)
            }
            ITEM => {
                let head: [u8; 20] = array(reader)?;
                hash.update(&head);
                let key = u16::from_le_bytes([head[10], head[11]]);
                let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                if usize::from(key) == chain::KEY.len() && stored as usize == chain::BYTES {
                    let body: [u8; chain::KEY.len() + chain::BYTES] = array(reader)?;
                    hash.update(&body);
                    bytes += body.len() as u64;
                    if let Some(value) = body.strip_prefix(&chain::KEY) {
                        stamp = Stamp::from_bytes(value);
                    }
                    (20, 0)
                } else {
                    (20, u64::from(key) + u64::from(stored))
                }
            }
            _ => return Ok(None),
        };
        hash_next(reader, body, &mut hash)?;
        bytes += 1 + head + body;
    }
    let end: [u8; END_BYTES] = array(reader)?;
    let whole = end[0] == END && end[1..9] == hash.digest().to_le_bytes() && end[9..] == TRAILER;
    Ok(whole.then_some(Batch { number, bytes: bytes + END_BYTES as u64, stamp }))
}

fn array<const N: usize>(reader: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Takes `len` bytes into the hash: a length that is wrong costs no memory.
fn hash_next(reader: &mut impl Read, mut len: u64, hash: &mut Xxh3) -> io::Result<()> {
    let mut chunk = [0; 4096];
    while len > 0 {
        let some = len.min(chunk.len() as u64) as usize;
        reader.read_exact(&mut chunk[..some])?;
        hash.update(&chunk[..some]);
        len -= some as u64;
    }
    Ok(())
}

/// What stands behind byte `from`, where no whole batch begins. `counts` says which whole ones behind it are batches.
fn tail(
    path: &Path,
    from: u64,
    counts: &dyn Fn(&Batch) -> bool,
    read: &mut dyn FnMut(u64),
) -> io::Result<Tail> {
    let mut file = File::open(path)?;
    let mut at = from;
    let mut last_set = None;
    let mut chunk = Vec::new();
    loop {
        file.seek(SeekFrom::Start(at))?;
        chunk.clear();
        file.by_ref().take(READ_BYTES as u64).read_to_end(&mut chunk)?;
        read(chunk.len() as u64);
        let set = chunk.iter().rposition(|byte| *byte != 0);
        if let Some(set) = set {
            last_set = Some(at + set as u64);
        }
        // Nothing begins in zeros, which is most of what is here.
        let places = if set.is_some() { &chunk[..] } else { &[][..] };
        for (position, _) in places.windows(LOOK_BYTES).enumerate().filter(|(_, window)| may_start(window)) {
            let position = at + position as u64;
            file.seek(SeekFrom::Start(position))?;
            if batch(&mut BufReader::new(&mut file))?.is_some_and(|batch| counts(&batch)) {
                return Ok(Tail::Followed { bytes: position - from });
            }
        }
        if chunk.len() < READ_BYTES {
            return Ok(last_set.map_or(Tail::Clean, |last| Tail::Torn { bytes: last + 1 - from }));
        }
        // A start may lie across two chunks.
        at += (READ_BYTES - (LOOK_BYTES - 1)) as u64;
    }
}

/// Whether a batch may begin here, by its first bytes: only few places have to be read on from.
fn may_start(bytes: &[u8]) -> bool {
    // Start, items below 2^24, number, the first item's tag, and its kind where it has one.
    matches!(
        bytes,
        [START, _, _, _, 0, _, _, _, _, _, _, _, _, ITEM, 0..=4]
            | [START, _, _, _, 0, _, _, _, _, _, _, _, _, CLEAR, _]
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const FOLDER: u64 = 5;

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
            batch.insert(&keyspace, chain::KEY, stamp.to_bytes());
            batch.commit().unwrap();
            ends.push(look(&path).whole_bytes);
        }
        drop(keyspace);
        drop(db);
        (path, ends)
    }

    fn look(path: &Path) -> Inspection {
        inspect(path, &mut Chain::new(FOLDER), &mut |_| {}).unwrap()
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
        let found = inspect(&path, &mut chain, &mut |_| {}).unwrap();
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
        let mut reader = BufReader::new(File::open(&path).unwrap());
        let mut numbers = Vec::new();
        while let Some(batch) = batch(&mut reader).unwrap() {
            numbers.push(batch.number);
        }
        let last = *numbers.last().unwrap();
        assert_eq!(bytes_before(&path, last).unwrap(), ends[1]);
        assert_eq!(bytes_before(&path, last + 1).unwrap(), ends[2]);
        let whole = fs::read(&path).unwrap();
        spoil(&path, ends[0] - 1_000);
        assert!(bytes_before(&path, last).is_err(), "nothing is cut off that may be good");
        fs::write(&path, whole).unwrap();
        cut(&path, ends[1]).unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("s", KeyspaceCreateOptions::default).unwrap();
        assert!(keyspace.get("k1").unwrap().is_some());
        assert!(keyspace.get("k2").unwrap().is_none());
    }
}
