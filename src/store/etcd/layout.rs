//! How a store lies in etcd.
//!
//! ```text
//! <prefix>/=names/<name>          the store that has this name: its id
//! <prefix>/=restoring             the claim of a restore (`moving`): while it is there, no store below the prefix is opened
//! <prefix>/=restorer              the process that restores lives, with its lease
//! <prefix>/<id>/e/<key>           an entry: canonical key bytes to a head (store/head.rs), then the value
//! <prefix>/<id>/n/<note>          a note
//! <prefix>/<id>/w/<writer>        the mark of a writer: the number of what it has done last, 8 bytes, and where its changes stand (`places`)
//! <prefix>/<id>/h, hs             the process that holds the store's names, and those before it (`elect/keys.rs`)
//! <prefix>/<id>/c                 the last compaction of etcd by such a process (`program/holder/compaction.rs`)
//! ```
//!
//! An id is the first name that its store was made with. In ids and names each byte that is neither a letter of ASCII, a digit, `-`, `_`, `.` nor `:`
//! is spelled `%` and two hexadecimal digits, so that an id ends where it ends, and `etcdctl get --prefix --keys-only` can be read.

use crate::etcd::message::{Bytes, KeyValue, prefix_end};
use crate::etf::{TermView, Traits};
use crate::store::Value;
use crate::store::head::Head;

/// A revision of the store is a revision of etcd, and the place of the write in its transaction.
const PLACE_BITS: u32 = 8;
/// Places that a transaction has: each write has one for each key that it changes, the first of which is that of its revision.
pub(super) const PLACES_MAX: usize = 1 << PLACE_BITS;

/// The keys of one store.
#[derive(Clone, Debug)]
pub(super) struct Layout {
    /// What all of them begin with.
    base: Vec<u8>,
    mark: Bytes,
}

/// What a key in etcd is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of<'a> {
    /// The entry of this key.
    Entry(&'a [u8]),
    /// The note of this name.
    Note(&'a [u8]),
    /// The mark of this store's writer.
    OwnMark,
    /// Another writer's.
    OtherMark,
    /// Nothing that is known here.
    Other,
}

impl Layout {
    /// The keys of the store `id`, as one of its writers sees them.
    pub(super) fn new(prefix: &str, id: &str, writer: u64) -> Self {
        let base = base(prefix, id);
        let mark = [&base[..], b"w/", format!("{writer:016x}").as_bytes()].concat().into();
        Self { base, mark }
    }

    /// The store's id.
    #[cfg(feature = "disk")]
    pub(super) fn id(&self) -> Bytes {
        // It has no slash.
        let id = self.base.rsplit(|byte| *byte == b'/').nth(1);
        Bytes::copy_from_slice(id.unwrap_or_default())
    }

    /// What all of them begin with.
    pub(super) fn base(&self) -> &[u8] {
        &self.base
    }

    fn key(&self, kind: &[u8], key: &[u8]) -> Bytes {
        [&self.base, kind, key].concat().into()
    }

    /// Where an entry is.
    pub(super) fn entry(&self, key: &[u8]) -> Bytes {
        self.key(b"e/", key)
    }

    /// Where a note is.
    pub(super) fn note(&self, name: &[u8]) -> Bytes {
        self.key(b"n/", name)
    }

    /// Where this writer's mark is.
    pub(super) fn mark(&self) -> Bytes {
        self.mark.clone()
    }

    /// All entries: the first key, and the first behind the last.
    pub(super) fn entries(&self) -> (Bytes, Bytes) {
        range(self.key(b"e/", b""))
    }

    /// All notes: as [`entries`](Self::entries).
    #[cfg(feature = "disk")]
    pub(super) fn notes(&self) -> (Bytes, Bytes) {
        range(self.key(b"n/", b""))
    }

    /// Where it is said which process holds the store's names.
    #[cfg(feature = "disk")]
    pub(super) fn holder(&self) -> Bytes {
        self.key(b"h", b"")
    }

    /// What there is of the store beside all these: its holders, and the last compaction.
    #[cfg(feature = "disk")]
    pub(super) fn single_keys(&self) -> [Bytes; 3] {
        [&b"h"[..], b"hs", b"c"].map(|name| self.key(name, b""))
    }

    /// Whether a key is one of these. Keys of another prefix, that begins with this store's, are none.
    #[cfg(feature = "disk")]
    pub(super) fn has(&self, key: &[u8]) -> bool {
        let behind = key.strip_prefix(&self.base[..]);
        matches!(behind, Some(b"h" | b"hs" | b"c" | [b'e' | b'n' | b'w', b'/', ..]))
    }

    /// The claim of a restore of its prefix.
    pub(super) fn claim(&self) -> Bytes {
        claim_beside(&self.base)
    }

    /// All marks: as [`entries`](Self::entries).
    pub(super) fn marks(&self) -> (Bytes, Bytes) {
        range(self.key(b"w/", b""))
    }

    /// All that there is of the store.
    pub(super) fn all(&self) -> (Bytes, Bytes) {
        range(self.key(b"", b""))
    }

    /// Bytes that an entry has in etcd beside its key and its value, at most.
    pub(super) fn overhead(&self) -> usize {
        self.base.len() + 2 + 1 + Head::NUMBERS_LEN_MAX
    }

    /// What a key is of.
    pub(super) fn read<'a>(&self, key: &'a [u8]) -> Of<'a> {
        if *key == self.mark {
            return Of::OwnMark;
        }
        match key.strip_prefix(&self.base[..]) {
            Some([b'e', b'/', key @ ..]) => Of::Entry(key),
            Some([b'n', b'/', name @ ..]) => Of::Note(name),
            Some([b'w', b'/', ..]) => Of::OtherMark,
            _ => Of::Other,
        }
    }
}

fn range(prefix: Bytes) -> (Bytes, Bytes) {
    let end = prefix_end(&prefix).into();
    (prefix, end)
}

/// What all keys of the store `id` begin with, which is spelled as in keys.
fn base(prefix: &str, id: &str) -> Vec<u8> {
    format!("{prefix}/{id}/").into_bytes()
}

/// What all keys of a store with this name begin with, that is not kept in etcd and has keys there all the same.
pub fn base_of(prefix: &str, name: &str) -> Vec<u8> {
    base(prefix, &escaped(name))
}

/// The key that says which store has a name.
pub(super) fn name_key(prefix: &str, name: &str) -> Bytes {
    format!("{prefix}/=names/{}", escaped(name)).into()
}

/// What all keys below a prefix begin with.
#[cfg(feature = "disk")]
pub(super) fn below(prefix: &str) -> (Bytes, Bytes) {
    range(format!("{prefix}/").into())
}

/// All keys that say which store has a name.
#[cfg(feature = "disk")]
pub(super) fn name_keys(prefix: &str) -> (Bytes, Bytes) {
    range(name_key(prefix, ""))
}

/// The claim of a restore.
pub(super) fn claim_key(prefix: &str) -> Bytes {
    claim_beside(&base(prefix, ""))
}

/// That of the prefix of a store whose keys begin so.
pub(super) fn claim_beside(base: &[u8]) -> Bytes {
    let store = base.strip_suffix(b"/").unwrap_or(base);
    // No id has a slash.
    let prefix = store.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    [&base[..prefix], b"=restoring"].concat().into()
}

/// Whether an id is one that a store can have.
#[cfg(feature = "disk")]
pub(super) fn is_id(id: &str) -> bool {
    !id.is_empty() && unescaped(id.as_bytes()).is_some_and(|name| escaped(&name) == id)
}

/// The sign that the process which has the claim lives.
#[cfg(feature = "disk")]
pub(super) fn restorer_key(prefix: &str) -> Bytes {
    format!("{prefix}/=restorer").into()
}

/// The name that is spelled so; `None`: none is.
#[cfg(feature = "disk")]
pub(super) fn unescaped(spelled: &[u8]) -> Option<String> {
    let (mut name, mut rest) = (Vec::new(), spelled);
    while let Some((&first, behind)) = rest.split_first() {
        rest = behind;
        if first != b'%' {
            name.push(first);
            continue;
        }
        let (digits, behind) = rest.split_at_checked(2)?;
        rest = behind;
        // It takes a sign too.
        digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
        name.push(u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?);
    }
    String::from_utf8(name).ok()
}

/// A name as it is spelled in keys.
pub(super) fn escaped(name: &str) -> String {
    let mut out = String::new();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b':' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02x}")),
        }
    }
    out
}

/// The revision of a write, by the revision of its transaction and its place there.
pub(super) fn revision(mod_revision: i64, place: u64) -> u64 {
    u64::try_from(mod_revision).unwrap_or(0) << PLACE_BITS | place & (PLACES_MAX as u64 - 1)
}

/// The highest revision of a transaction.
pub(super) fn last_revision(mod_revision: i64) -> u64 {
    revision(mod_revision, PLACES_MAX as u64 - 1)
}

/// The revision of the transaction that a write was in; 0: there is no entry.
pub(super) fn mod_revision(revision: u64) -> i64 {
    // It is shorter by a byte.
    (revision >> PLACE_BITS) as i64
}

/// What an entry is in etcd. Its revision is etcd's, so that only its place among the writes of its transaction is kept.
pub(super) fn write_value(value: &Value<'_>, place: u64) -> Bytes {
    let head = Head { revision: place, ..Head::of(value) };
    let mut bytes = Vec::with_capacity(1 + head.numbers_len() + value.bytes.len());
    bytes.push(head.first());
    head.write_numbers(&mut bytes);
    bytes.extend_from_slice(value.bytes);
    bytes.into()
}

/// Reads an entry: its key, and its value with its revision. `None`: no kvnode of this version wrote it. Other programs can write to an etcd, and
/// bytes that are no term would cost a node that receives them its connection.
pub(super) fn read_value<'a>(key: &[u8], kv: &'a KeyValue) -> Option<Value<'a>> {
    TermView::parse(key).ok()?;
    let (&first, behind) = kv.value.split_first()?;
    let (head, numbers) = Head::read(first, behind)?;
    let bytes = behind.get(numbers..)?;
    let traits = TermView::parse(bytes).ok()?.traits().union(head.traits);
    let fits =
        kv.mod_revision > 0 && kv.mod_revision < 1 << (55 - PLACE_BITS) && head.revision < PLACES_MAX as u64;
    if !fits || traits.contains(Traits::OLD_FUN) {
        return None;
    }
    let revision = revision(kv.mod_revision, head.revision);
    Some(Value { copy: head.copy, revision, deadline: head.deadline, ..Value::of(bytes, traits) })
}

/// The number that a mark has, and what is behind it; 0: it is no mark.
pub(super) fn read_mark(value: &[u8]) -> (u64, &[u8]) {
    value.split_first_chunk().map_or((0, value), |(number, behind)| (u64::from_be_bytes(*number), behind))
}

/// A mark with this number, and what is behind it.
pub(super) fn write_mark(number: u64, behind: &[u8]) -> Bytes {
    [&number.to_be_bytes()[..], behind].concat().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn keys_are_told_apart_whatever_bytes_are_in_them() {
        let layout = Layout::new("kvnode", &escaped("global:a/b"), 7);
        assert_eq!(&layout.entry(b"\0/\xff")[..], b"kvnode/global:a%2fb/e/\0/\xff");
        assert_eq!(layout.read(&layout.entry(b"\0/\xff")), Of::Entry(b"\0/\xff"));
        assert_eq!(layout.read(&layout.entry(b"")), Of::Entry(b""));
        assert_eq!(layout.read(&layout.note(b"slaves")), Of::Note(b"slaves"));
        assert_eq!(layout.read(&layout.mark()), Of::OwnMark);
        let other = Layout::new("kvnode", "global:a", 8);
        assert_eq!(layout.read(&other.mark()), Of::Other);
        let another = Layout::new("kvnode", &escaped("global:a/b"), 8);
        assert_eq!(layout.read(&another.mark()), Of::OtherMark);
        let (from, to) = layout.marks();
        assert!(from < layout.mark() && another.mark() < to);
        assert_eq!(layout.read(&other.entry(b"k")), Of::Other);
        let (from, to) = layout.entries();
        assert!(from <= layout.entry(b"") && layout.entry(&[0xff; 9]) < to && layout.mark() > to);
        let (from, to) = other.all();
        assert!(layout.mark() < from || layout.mark() >= to, "no store is in another one");
        assert_eq!(name_key("kvnode", "=é"), "kvnode/=names/%3d%c3%a9");
        assert_eq!(claim_key("a/b"), "a/b/=restoring");
        assert_eq!(Layout::new("a/b", "global:c", 1).claim(), claim_key("a/b"));
    }

    #[test]
    #[cfg(feature = "disk")]
    fn keys_of_a_prefix_that_begins_as_a_store_are_none_of_the_store() {
        let store = Layout::new("kvnode", "global:a", 1);
        for own in [store.entry(b"k/"), store.note(b"n"), store.mark(), store.holder()] {
            assert!(store.has(&own), "{own:?}");
        }
        let (nested, other) = ("kvnode/global:a", Layout::new("kvnode", "global:ab", 1));
        let nested_store = Layout::new(nested, "global:b", 1);
        for others in [
            name_key(nested, "global:b"),
            claim_key(nested),
            nested_store.entry(b"k"),
            nested_store.holder(),
            other.entry(b"k"),
            "kvnode/global:a/s/p".into(),
            "kvnode/global:a/".into(),
        ] {
            assert!(!store.has(&others), "{others:?}");
        }
        assert!(["global:a", "%3d", "a%2fb"].into_iter().all(is_id));
        assert!(["", "a/b", "=names", "a%2Fb", "a%"].into_iter().all(|id| !is_id(id)));
    }

    #[test]
    #[cfg(feature = "disk")]
    fn a_name_is_read_as_it_is_spelled() {
        for name in ["global:kv", "=é", "100%", "a b/c", ""] {
            assert_eq!(unescaped(escaped(name).as_bytes()).as_deref(), Some(name));
        }
        for wrong in [&b"%4"[..], b"%", b"%zz", b"%ff", b"a%+1"] {
            assert_eq!(unescaped(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_value_is_read_as_it_was_written_and_what_is_no_term_is_not() {
        let (key, bytes) = (encode(|w| _ = w.atom("k")), encode(|w| _ = w.binary(&[7; 9])));
        for (place, deadline) in [(0, 0), (255, 9)] {
            let value = Value { deadline, ..Value::of(&bytes, Traits::V4_NC) };
            let kv = |value: Bytes, mod_revision| KeyValue { value, mod_revision, ..KeyValue::default() };
            let written = write_value(&value, place);
            assert_eq!(written.len(), 1 + bytes.len() + if place == 0 { 0 } else { 17 });
            let read = kv(written.clone(), 3);
            let read = read_value(&key, &read).expect("it was written here");
            assert_eq!((read.bytes, read.traits, read.deadline), (&bytes[..], Traits::V4_NC, deadline));
            assert_eq!((read.revision, mod_revision(read.revision)), (3 << 8 | place, 3));
            for (key, kv) in [
                (&b"no term"[..], kv(written.clone(), 3)),
                (&key, kv(written.slice(..written.len() - 1), 3)),
                (&key, kv(Bytes::new(), 3)),
                (&key, kv(Bytes::from_static(&[0x80, 0x40]), 3)),
                (&key, kv(written.clone(), i64::MAX)),
                (&key, kv(written, -1)),
            ] {
                assert!(read_value(key, &kv).is_none());
            }
        }
        assert_eq!((read_mark(&write_mark(9, b"more")), read_mark(b"else").0), ((9, &b"more"[..]), 0));
        assert!(last_revision(3) < revision(4, 0) && mod_revision(last_revision(3)) == 3);
    }
}
