//! The engine's journals, byte by byte: where they lie and how they are laid out, and nothing of what is in them.
//!
//! ```text
//! journals = N.jnl in the engine's folder, the oldest with the lowest number
//! batch    = 1, items:32, number:64   (2, ..., item | 4, keyspace:64)*   3, xxh3:64 of what is between, "FJL", 3
//! item     = 2, kind:8, compression:8, keyspace:64, key length:16, length:32, stored length:32, key, value
//! ```
//!
//! Numbers are little-endian. A file is allocated ahead: behind the last batch there are zeros, or nothing. The layout is
//! fjall's own and not promised by anybody; the tests hold this against the engine's own writing.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

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

/// A whole batch of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame<const N: usize> {
    /// The engine's number. It is not under the checksum.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// The value of `N` bytes that it has under the key that is looked for.
    pub mark: Option<[u8; N]>,
}

/// What comes behind the whole batches of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    /// Nothing.
    Nothing,
    /// Something of so many bytes that is no batch, up to the last that is not zero.
    Torn { bytes: u64 },
    /// So many bytes that are not as they were written, and a whole batch behind them.
    Followed { bytes: u64 },
}

/// The journals in the engine's folder, the oldest first.
pub(super) fn journals(engine: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(engine) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        if let Some(number) = number
            && is_journal(&path)
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Whether a file of the engine's is a journal, by its name.
pub(super) fn is_journal(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "jnl")
}

/// The whole batches of a journal, from its beginning on.
pub(super) struct Walk<const N: usize> {
    reader: BufReader<File>,
    key: u8,
}

impl<const N: usize> Walk<N> {
    /// Begins; `key` is the one that each batch's mark stands under.
    pub(super) fn open(path: &Path, key: u8) -> io::Result<Self> {
        Ok(Self { reader: BufReader::with_capacity(READ_BYTES, File::open(path)?), key })
    }

    /// The next one; `None` where there is none that is whole.
    pub(super) fn next_frame(&mut self) -> io::Result<Option<Frame<N>>> {
        frame(&mut self.reader, self.key)
    }
}

/// What stands behind byte `from`, where no whole batch begins. `counts` says which whole ones behind it are batches; `read` is
/// told of bytes as they are read.
pub(super) fn behind<const N: usize>(
    path: &Path,
    from: u64,
    key: u8,
    counts: &dyn Fn(&Frame<N>) -> bool,
    read: &mut dyn FnMut(u64),
) -> io::Result<Behind> {
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
            if frame(&mut BufReader::new(&mut file), key)?.is_some_and(|frame| counts(&frame)) {
                return Ok(Behind::Followed { bytes: position - from });
            }
        }
        if chunk.len() < READ_BYTES {
            return Ok(last_set.map_or(Behind::Nothing, |last| Behind::Torn { bytes: last + 1 - from }));
        }
        // A start may lie across two chunks.
        at += (READ_BYTES - (LOOK_BYTES - 1)) as u64;
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
fn frame<const N: usize>(reader: &mut impl Read, key: u8) -> io::Result<Option<Frame<N>>> {
    match read_frame(reader, key) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        read => read,
    }
}

fn read_frame<const N: usize>(reader: &mut impl Read, key: u8) -> io::Result<Option<Frame<N>>> {
    let [START, head @ ..] = array::<13>(reader)? else { return Ok(None) };
    let items = u32::from_le_bytes([head[0], head[1], head[2], head[3]]);
    let number =
        u64::from_le_bytes([head[4], head[5], head[6], head[7], head[8], head[9], head[10], head[11]]);
    let (mut bytes, mut mark) = (13, None);
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
                let key_len = u16::from_le_bytes([head[10], head[11]]);
                let stored = u32::from_le_bytes([head[16], head[17], head[18], head[19]]);
                if key_len == 1 && stored as usize == N {
                    let (found, value): ([u8; 1], [u8; N]) = (array(reader)?, array(reader)?);
                    hash.update(&found);
                    hash.update(&value);
                    bytes += 1 + N as u64;
                    if found == [key] {
                        mark = Some(value);
                    }
                    (20, 0)
                } else {
                    (20, u64::from(key_len) + u64::from(stored))
                }
            }
            _ => return Ok(None),
        };
        hash_next(reader, body, &mut hash)?;
        bytes += 1 + head + body;
    }
    let end: [u8; END_BYTES] = array(reader)?;
    let whole = end[0] == END && end[1..9] == hash.digest().to_le_bytes() && end[9..] == TRAILER;
    Ok(whole.then_some(Frame { number, bytes: bytes + END_BYTES as u64, mark }))
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
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};

    use super::*;

    const KEY: u8 = b'm';

    fn frames(path: &Path) -> Vec<Frame<4>> {
        let mut walk = Walk::open(path, KEY).unwrap();
        std::iter::from_fn(|| walk.next_frame().unwrap()).collect()
    }

    #[test]
    fn what_the_engine_writes_is_walked_batch_by_batch() {
        let dir = tempfile::tempdir().unwrap();
        let db = Database::builder(dir.path()).open().unwrap();
        let keyspace = db.keyspace("s", KeyspaceCreateOptions::default).unwrap();
        for number in 0..3_u32 {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&keyspace, format!("k{number}"), vec![number as u8; 10_000]);
            batch.remove(&keyspace, format!("d{number}"));
            // One with the mark's key and another length, and one with its length and another key.
            batch.insert(&keyspace, [KEY], [9; 5]);
            batch.insert(&keyspace, [KEY + 1], [9; 4]);
            if number != 1 {
                batch.insert(&keyspace, [KEY], number.to_be_bytes());
            }
            batch.commit().unwrap();
        }
        let path = dir.path().join("0.jnl");
        assert_eq!(journals(dir.path()).unwrap(), std::slice::from_ref(&path));
        let found = frames(&path);
        let marks: Vec<_> = found.iter().map(|frame| frame.mark.map(u32::from_be_bytes)).collect();
        assert_eq!(marks, [Some(0), None, Some(2)]);
        assert!(found.is_sorted_by(|one, next| one.number < next.number), "{found:?}");
        let end: u64 = found.iter().map(|frame| frame.bytes).sum();
        let nothing = behind(&path, end, KEY, &|_: &Frame<4>| true, &mut |_| {}).unwrap();
        assert_eq!(nothing, Behind::Nothing);
        // Without the first one's beginning the others follow; which of them count is not said here.
        let mut bytes = fs::read(&path).unwrap();
        bytes[0] = 7;
        fs::write(&path, &bytes).unwrap();
        assert!(frames(&path).is_empty());
        let first = found[0].bytes;
        let behind = |counts: &dyn Fn(&Frame<4>) -> bool| behind(&path, 0, KEY, counts, &mut |_| {}).unwrap();
        assert_eq!(behind(&|_| true), Behind::Followed { bytes: first });
        assert_eq!(behind(&|frame| frame.mark.is_some()), Behind::Followed { bytes: first + found[1].bytes });
        assert_eq!(behind(&|_| false), Behind::Torn { bytes: end });
        cut(&path, 10).unwrap();
        assert_eq!((fs::read(&path).unwrap(), frames(&path).len()), (bytes[..10].to_vec(), 0));
    }

    #[test]
    fn journals_are_in_the_order_of_their_numbers_and_a_folder_without_has_none() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["9.jnl", "10.jnl", "x.jnl", "1.log"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(journals(dir.path()).unwrap(), ["9.jnl", "10.jnl"].map(|name| dir.path().join(name)));
        assert!(journals(&dir.path().join("none")).unwrap().is_empty());
    }
}
