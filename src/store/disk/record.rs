//! How an entry stands in the engine.
//!
//! ```text
//! key up to 60,000 bytes     key                  -> traits:8, value
//! a longer one               0, md5(key):16 bytes -> traits:8, length:32, key, value
//! ```
//!
//! The engine takes keys of 65,535 bytes at most, and the longest that are wanted are longer. No term begins with the
//! byte 0, so the two kinds never meet. Two long keys with one digest can be made on purpose: the second is refused.

use std::borrow::Cow;

use fjall::Slice;

use crate::etf::Traits;
use crate::store::Value;

/// Longest key that is the engine's key as it is, in bytes.
const PLAIN_MAX: usize = 60_000;
const TRAITS_BYTES: usize = 1;
const LENGTH_BYTES: usize = 4;

/// The engine's key of a key.
pub(super) fn engine_key(key: &[u8]) -> Cow<'_, [u8]> {
    if !is_long(key) {
        return Cow::Borrowed(key);
    }
    let mut digest = vec![0];
    digest.extend_from_slice(&md5::compute(key).0);
    Cow::Owned(digest)
}

/// Whether the key stands in the entry.
pub(super) const fn is_long(key: &[u8]) -> bool {
    key.len() > PLAIN_MAX || key.is_empty()
}

/// What the engine keeps for a key.
pub(super) fn encode(key: &[u8], value: Value<'_>) -> Vec<u8> {
    let long = is_long(key);
    let head = if long { LENGTH_BYTES + key.len() } else { 0 };
    let mut entry = Vec::with_capacity(TRAITS_BYTES + head + value.bytes.len());
    entry.push(value.traits.bits());
    if long {
        // A key is part of a frame, whose length has 32 bits.
        entry.extend_from_slice(&(key.len() as u32).to_be_bytes());
        entry.extend_from_slice(key);
    }
    entry.extend_from_slice(value.bytes);
    entry
}

/// Bytes of key and value of an entry, from the lengths that the engine knows without reading it.
pub(super) const fn bytes(engine_key: &[u8], entry_len: u64) -> u64 {
    if is_digest(engine_key) {
        entry_len.saturating_sub((TRAITS_BYTES + LENGTH_BYTES) as u64)
    } else {
        (engine_key.len() as u64 + entry_len).saturating_sub(TRAITS_BYTES as u64)
    }
}

const fn is_digest(engine_key: &[u8]) -> bool {
    engine_key.len() == 17 && engine_key[0] == 0
}

/// An entry as it was read.
#[derive(Debug)]
pub(super) struct Found {
    key: Option<(usize, usize)>,
    entry: Slice,
    value_at: usize,
}

impl Found {
    /// `None`: it is not an entry, though its checksum is right.
    pub(super) fn new(engine_key: &[u8], entry: Slice) -> Option<Self> {
        entry.first()?;
        if !is_digest(engine_key) {
            return Some(Self { key: None, value_at: TRAITS_BYTES, entry });
        }
        let from = TRAITS_BYTES + LENGTH_BYTES;
        let length = entry.get(TRAITS_BYTES..from)?.try_into().ok()?;
        let to = from.checked_add(u32::from_be_bytes(length) as usize)?;
        entry.get(from..to)?;
        Some(Self { key: Some((from, to)), value_at: to, entry })
    }

    /// The key, where it stands in the entry.
    pub(super) fn long_key(&self) -> Option<&[u8]> {
        self.key.map(|(from, to)| &self.entry[from..to])
    }

    pub(super) fn value(&self) -> Value<'_> {
        Value { bytes: &self.entry[self.value_at..], shared: None, traits: Traits::from_bits(self.entry[0]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_read_as_it_was_written_and_counted_alike() {
        for len in [1, 100, PLAIN_MAX, PLAIN_MAX + 1, 70_000] {
            let key = vec![109; len];
            let engine_key = engine_key(&key);
            let entry = encode(&key, Value { bytes: b"value", shared: None, traits: Traits::V4_NC });
            assert!(engine_key.len() <= 65_535);
            assert_eq!(bytes(&engine_key, entry.len() as u64), len as u64 + 5);
            let found = Found::new(&engine_key, entry.into()).expect("an entry");
            assert_eq!(found.value().bytes, b"value");
            assert_eq!(found.value().traits, Traits::V4_NC);
            assert_eq!(found.long_key(), (len > PLAIN_MAX).then_some(&*key));
        }
    }

    #[test]
    fn what_is_no_entry_is_none() {
        assert!(Found::new(b"k", Slice::from(&[][..])).is_none());
        let digest = engine_key(&[109; 70_000]).into_owned();
        for entry in [&[0][..], &[0, 0, 0, 0, 9, 1], &[0, 255, 255, 255, 255, 1]] {
            assert!(Found::new(&digest, Slice::from(entry)).is_none(), "{entry:?}");
        }
    }
}
