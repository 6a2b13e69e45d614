//! The engine's journal, looked at before the engine reads it.
//!
//! fjall 3 takes whatever it cannot read in a journal for its end, and goes on without what comes after: right for a
//! batch that a crash has torn, and silent loss for a damaged one in the middle. And where the pieces of the last batch
//! reached the disk out of order it does not open at all. So a journal is walked here first: what is torn at its end is
//! told from what is damaged before its end by whether a whole batch follows.
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
    /// Part of one batch.
    Torn,
    /// Something that is not as it was written, and a whole batch behind it.
    Followed,
}

/// Walks a journal; `read` is told of bytes as they are read.
pub(super) fn inspect(path: &Path, read: &mut dyn FnMut(u64)) -> io::Result<Inspection> {
    let (batches, whole_bytes) = walk(path, |_, bytes| {
        read(bytes);
        true
    })?;
    let tail = tail(path, whole_bytes, read)?;
    Ok(Inspection { batches, whole_bytes, tail })
}

/// Where the first batch from number `seqno` on begins, or the whole ones end.
pub(super) fn bytes_before(path: &Path, seqno: u64) -> io::Result<u64> {
    walk(path, |number, _| number < seqno).map(|(_, bytes)| bytes)
}

/// Cuts a journal off, durably.
pub(super) fn cut(path: &Path, bytes: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(bytes)?;
    file.sync_all()
}

/// Reads whole batches for as long as `wanted` says so of their numbers and lengths: how many, and where they end.
fn walk(path: &Path, mut wanted: impl FnMut(u64, u64) -> bool) -> io::Result<(u64, u64)> {
    let mut reader = BufReader::with_capacity(READ_BYTES, File::open(path)?);
    let (mut batches, mut end) = (0, 0);
    while let Some((number, bytes)) = batch(&mut reader)? {
        if !wanted(number, bytes) {
            break;
        }
        batches += 1;
        end += bytes;
    }
    Ok((batches, end))
}

/// Reads a batch: its number and its length in bytes; `None` where there is none that is whole.
fn batch(reader: &mut impl Read) -> io::Result<Option<(u64, u64)>> {
    match read_batch(reader) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read,
    }
}

fn read_batch(reader: &mut impl Read) -> io::Result<Option<(u64, u64)>> {
    let [START, head @ ..] = array::<13>(reader)? else { return Ok(None) };
    let items = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let number =
        u64::from_le_bytes([head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11]]);
    let mut bytes = 13;
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
                (20, u64::from(key) + u64::from(stored))
            }
            _ => return Ok(None),
        };
        hash_next(reader, body, &mut hash)?;
        bytes += 1 + head + body;
    }
    let end: [u8; END_BYTES] = array(reader)?;
    let whole = end[0] == END && end[1..9] == hash.digest().to_le_bytes() && end[9..] == TRAILER;
    Ok(whole.then_some((number, bytes + END_BYTES as u64)))
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

/// What stands behind byte `from`.
fn tail(path: &Path, from: u64, read: &mut dyn FnMut(u64)) -> io::Result<Tail> {
    let mut file = File::open(path)?;
    let mut at = from;
    let mut found = Tail::Clean;
    let mut chunk = Vec::new();
    loop {
        file.seek(SeekFrom::Start(at))?;
        chunk.clear();
        file.by_ref().take(READ_BYTES as u64).read_to_end(&mut chunk)?;
        read(chunk.len() as u64);
        let empty = chunk.iter().all(|byte| *byte == 0);
        if !empty {
            found = Tail::Torn;
        }
        // Nothing begins in zeros, which is most of what is here.
        let places = if empty { &[][..] } else { &chunk[..] };
        for (position, _) in places.windows(LOOK_BYTES).enumerate().filter(|(_, window)| may_start(window)) {
            file.seek(SeekFrom::Start(at + position as u64))?;
            if batch(&mut BufReader::new(&mut file))?.is_some() {
                return Ok(Tail::Followed);
            }
        }
        if chunk.len() < READ_BYTES {
            return Ok(found);
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
            batch.commit().unwrap();
            ends.push(inspect(&path, &mut |_| {}).unwrap().whole_bytes);
        }
        drop(keyspace);
        drop(db);
        (path, ends)
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
        let found = inspect(&path, &mut |_| {}).unwrap();
        assert_eq!(found.tail, Tail::Clean);
        assert_eq!(found.whole_bytes, ends[2]);
        assert!(found.batches >= 3);
        assert!(ends[0] < ends[1] && ends[1] < ends[2] && ends[2] < ends[0] + 30_000, "{ends:?}");
    }

    #[test]
    fn damage_in_the_middle_is_told_from_a_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let whole = fs::read(&path).unwrap();
        // Every part of the batch in the middle: its start, an item's head, a value, its end.
        for at in [ends[0], ends[0] + 5, ends[0] + 20, ends[0] + 2_000, ends[1] - 1] {
            fs::write(&path, &whole).unwrap();
            spoil(&path, at);
            let found = inspect(&path, &mut |_| {}).unwrap();
            // A batch's number is not under its checksum.
            if at != ends[0] + 5 {
                assert_eq!((found.tail, found.whole_bytes), (Tail::Followed, ends[0]), "at {at}");
            }
        }
        for at in [ends[1], ends[1] + 2_000, ends[2] - 1] {
            fs::write(&path, &whole).unwrap();
            spoil(&path, at);
            let found = inspect(&path, &mut |_| {}).unwrap();
            assert_eq!((found.tail, found.whole_bytes), (Tail::Torn, ends[1]), "at {at}");
        }
        for len in [ends[1] + 1, ends[1] + 5_000, ends[2] - 1] {
            fs::write(&path, &whole[..len as usize]).unwrap();
            assert_eq!(inspect(&path, &mut |_| {}).unwrap().tail, Tail::Torn, "{len} bytes");
        }
    }

    #[test]
    fn the_last_batches_are_taken_back_by_number() {
        let dir = tempfile::tempdir().unwrap();
        let (path, ends) = written(dir.path(), 3);
        let mut reader = BufReader::new(File::open(&path).unwrap());
        let mut numbers = Vec::new();
        while let Some((number, _)) = batch(&mut reader).unwrap() {
            numbers.push(number);
        }
        let last = *numbers.last().unwrap();
        assert_eq!(bytes_before(&path, last).unwrap(), ends[1]);
        assert_eq!(bytes_before(&path, last + 1).unwrap(), ends[2]);
        cut(&path, ends[1]).unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("s", KeyspaceCreateOptions::default).unwrap();
        assert!(keyspace.get("k1").unwrap().is_some());
        assert!(keyspace.get("k2").unwrap().is_none());
    }
}
