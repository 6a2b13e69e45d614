//! How an entry stands in the engine.
//!
//! ```text
//! key up to 60,000 bytes     hash:16, key                  -> head, value
//! a longer one               hash:16, 0, md5(key):16 bytes -> head, length:32, key, value
//! ```
//!
//! The head (`store/head.rs`) is a byte, and some more in an entry that has numbers.
//!
//! The hash (xxh3) spreads keys evenly, whatever they are: so a store has parts of about one size, each in one place.
//!
//! The engine takes keys of 65,535 bytes at most, and the longest that are wanted are longer. No term begins with the
//! byte 0, so the two kinds never meet. Two long keys with one digest can be made on purpose: the second is refused.

use fjall::Slice;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::Value;
use crate::store::head::Head;
use crate::store::revision::{self, REVISION_UNKNOWN};

/// Longest key that is the engine's key as it is, in bytes.
const PLAIN_MAX: usize = 60_000;
const HASH_BYTES: usize = 2;
/// Longest of the engine's keys, in bytes.
pub(super) const ENGINE_KEY_MAX: usize = HASH_BYTES + PLAIN_MAX;
/// Of a head without numbers.
const HEAD_BYTES: usize = 1;
const LENGTH_BYTES: usize = 4;
/// Parts that a store is visited in.
pub(super) const PARTS: usize = 1024;

/// The engine's key of a key.
pub(super) fn engine_key(key: &[u8]) -> Vec<u8> {
    let hash = (xxh3_64(key) >> 48) as u16;
    let mut engine_key = Vec::with_capacity(HASH_BYTES + key.len().min(PLAIN_MAX));
    engine_key.extend_from_slice(&hash.to_be_bytes());
    if is_long(key) {
        engine_key.push(0);
        engine_key.extend_from_slice(&md5::compute(key).0);
    } else {
        engine_key.extend_from_slice(key);
    }
    engine_key
}

/// The part that a key is in.
pub(super) fn part_of(key: &[u8]) -> usize {
    (xxh3_64(key) >> 48) as usize / ((1 << 16) / PARTS)
}

/// The engine's keys of one part; the second is not part of it any more, and `None` where there is none behind.
pub(super) const fn part(part: usize) -> (u16, Option<u16>) {
    let each = (1 << 16) / PARTS;
    let (from, to) = (part * each, (part + 1) * each);
    (from as u16, if to < 1 << 16 { Some(to as u16) } else { None })
}

/// The key of an entry, where the engine's key has it.
pub(super) fn plain_key(engine_key: &[u8]) -> &[u8] {
    engine_key.get(HASH_BYTES..).unwrap_or_default()
}

/// Whether the key stands in the entry.
pub(super) const fn is_long(key: &[u8]) -> bool {
    key.len() > PLAIN_MAX || key.is_empty()
}

/// An entry that is to be written: it gets its revision as a part of its batch.
pub(super) enum Entry {
    /// It has none yet. `revision`: that which the value has come with; 0: none.
    New { bytes: Vec<u8>, revision: u64 },
    /// As the engine keeps it.
    Given(Slice),
}

impl Entry {
    pub(super) fn new(key: &[u8], value: Value<'_>) -> Self {
        // Some number holds the place.
        let bytes = encode(key, Value { revision: REVISION_UNKNOWN, ..value });
        Self::New { bytes, revision: value.revision }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::New { bytes, .. } => bytes.len(),
            Self::Given(entry) => entry.len(),
        }
    }

    /// Gives it its revision, behind the last one of its store. Gives what the engine keeps, and what the store has counted to then.
    pub(super) fn give(&mut self, last: u64) -> (Slice, u64) {
        match self {
            Self::Given(entry) => (entry.clone(), last),
            Self::New { bytes, revision } => {
                let (of_value, mut bytes) = (*revision, std::mem::take(bytes));
                if let Some((&mut first, behind)) = bytes.split_first_mut() {
                    Head::give_revision(first, behind, revision::given(of_value, last));
                }
                let entry = Slice::from(bytes);
                *self = Self::Given(entry.clone());
                (entry, revision::counted(of_value, last))
            }
        }
    }

    /// As the engine keeps it; `None`: it was not written.
    pub(super) const fn given(&self) -> Option<&Slice> {
        if let Self::Given(entry) = self { Some(entry) } else { None }
    }
}

/// What the engine keeps for a key.
pub(super) fn encode(key: &[u8], value: Value<'_>) -> Vec<u8> {
    let long = is_long(key);
    let head = Head::of(&value);
    let key_bytes = if long { LENGTH_BYTES + key.len() } else { 0 };
    let mut entry = Vec::with_capacity(HEAD_BYTES + head.numbers_len() + key_bytes + value.bytes.len());
    entry.push(head.first());
    head.write_numbers(&mut entry);
    if long {
        // A key is part of a frame, whose length has 32 bits.
        entry.extend_from_slice(&(key.len() as u32).to_be_bytes());
        entry.extend_from_slice(key);
    }
    entry.extend_from_slice(value.bytes);
    entry
}

/// Bytes of key, numbers and value of an entry, from the lengths that the engine knows without reading it.
pub(super) const fn bytes(engine_key: &[u8], entry_len: u64) -> u64 {
    if is_digest(engine_key) {
        entry_len.saturating_sub((HEAD_BYTES + LENGTH_BYTES) as u64)
    } else {
        (engine_key.len() as u64 + entry_len).saturating_sub((HASH_BYTES + HEAD_BYTES) as u64)
    }
}

/// Whether the entry has the key.
pub(super) const fn is_digest(engine_key: &[u8]) -> bool {
    engine_key.len() == HASH_BYTES + 17 && engine_key[HASH_BYTES] == 0
}

/// An entry as it was read.
#[derive(Debug)]
pub(super) struct Found {
    key: Option<(usize, usize)>,
    entry: Slice,
    head: Head,
    value_at: usize,
}

impl Found {
    /// `None`: it is not an entry, though its checksum is right.
    pub(super) fn new(engine_key: &[u8], entry: Slice) -> Option<Self> {
        let (head, head_end) = read_head(&entry)?;
        if !is_digest(engine_key) {
            return Some(Self { key: None, head, value_at: head_end, entry });
        }
        let from = head_end + LENGTH_BYTES;
        let length = entry.get(head_end..from)?.try_into().ok()?;
        let to = from.checked_add(u32::from_be_bytes(length) as usize)?;
        entry.get(from..to)?;
        Some(Self { key: Some((from, to)), head, value_at: to, entry })
    }

    /// The entry of a key, as [`encode`] made it.
    pub(super) fn of(key: &[u8], entry: Slice) -> Option<Self> {
        let (head, head_end) = read_head(&entry)?;
        let value_at = if is_long(key) { head_end + LENGTH_BYTES + key.len() } else { head_end };
        (entry.len() >= value_at).then_some(Self { key: None, entry, head, value_at })
    }

    /// The key, where it stands in the entry.
    pub(super) fn long_key(&self) -> Option<&[u8]> {
        self.key.map(|(from, to)| &self.entry[from..to])
    }

    pub(super) fn value(&self) -> Value<'_> {
        let Head { traits, copy, revision, deadline } = self.head.revised();
        Value { bytes: &self.entry[self.value_at..], shared: None, traits, copy, revision, deadline }
    }

    /// The same without the bytes of the value.
    pub(super) fn without_bytes(self) -> Self {
        Self { entry: Slice::from(&self.entry[..self.value_at]), ..self }
    }

    /// What stands beside the value.
    pub(super) const fn head(&self) -> &Head {
        &self.head
    }

    /// Bytes of key, numbers and value, of an entry of this key.
    pub(super) fn bytes(&self, key: &[u8]) -> u64 {
        (key.len() + self.head.numbers_len() + self.entry.len() - self.value_at) as u64
    }
}

/// When an entry ends; 0: never.
pub(super) fn deadline(entry: &[u8]) -> u64 {
    read_head(entry).map_or(0, |(head, _)| head.deadline)
}

/// The head of an entry, and where it ends.
fn read_head(entry: &[u8]) -> Option<(Head, usize)> {
    let (&first, behind) = entry.split_first()?;
    let (head, numbers) = Head::read(first, behind)?;
    Some((head, HEAD_BYTES + numbers))
}

/// What stands under the engine's key of a key, where it is that key's: another key with the same digest is another key.
///
/// # Errors
/// It is no entry, though its checksum is right.
pub(super) fn found(engine_key: &[u8], key: &[u8], entry: Option<Slice>) -> fjall::Result<Option<Found>> {
    let Some(entry) = entry else { return Ok(None) };
    let found = Found::new(engine_key, entry).ok_or(fjall::Error::Unrecoverable)?;
    Ok((!is_long(key) || found.long_key() == Some(key)).then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::Traits;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_counted_alike() {
        for (len, copy) in [1, 100, PLAIN_MAX, PLAIN_MAX + 1, 70_000].map(|len| [(len, 0), (len, 9)]).concat()
        {
            let key = vec![109; len];
            let engine_key = engine_key(&key);
            let entry = encode(&key, Value { copy, ..Value::of(b"value", Traits::V4_NC) });
            assert!(engine_key.len() <= 65_535);
            // Of a number: the four bytes that it takes, and one that says that it is there.
            let counted = len as u64 + 5 + if copy == 0 { 0 } else { 5 };
            assert_eq!(bytes(&engine_key, entry.len() as u64), counted);
            let slice = Slice::from(entry);
            for found in [Found::new(&engine_key, slice.clone()), Found::of(&key, slice)] {
                let found = found.expect("an entry");
                let value = found.value();
                assert_eq!((value.bytes, value.traits, value.copy), (&b"value"[..], Traits::V4_NC, copy));
                assert_eq!(found.bytes(&key), counted);
            }
            let found = Found::new(&engine_key, encode(&key, Value::of(b"", Traits::V4_NC)).into());
            assert_eq!(found.expect("an entry").long_key(), (len > PLAIN_MAX).then_some(&*key));
        }
    }

    #[test]
    fn every_key_is_in_one_part() {
        let mut next = 0_u32;
        for number in 0..PARTS {
            let (from, to) = part(number);
            assert_eq!(u32::from(from), next);
            next = to.map_or(1 << 16, u32::from);
        }
        assert_eq!(next, 1 << 16);
        for key in [&b"a"[..], b"b", &[109; 70_000]] {
            let (from, to) = part(part_of(key));
            let engine_key = engine_key(key);
            let hash = u16::from_be_bytes([engine_key[0], engine_key[1]]);
            assert!(from <= hash && to.is_none_or(|to| hash < to));
        }
    }

    #[test]
    fn what_is_no_entry_is_none() {
        assert!(Found::new(b"k", Slice::from(&[][..])).is_none());
        let digest = engine_key(&[109; 70_000]);
        for entry in [&[0][..], &[0, 0, 0, 0, 9, 1], &[0, 255, 255, 255, 255, 1], &[128, 1, 0, 0, 0, 9, 0]] {
            assert!(Found::new(&digest, Slice::from(entry)).is_none(), "{entry:?}");
        }
    }
}
