//! The writes that one slave has not acknowledged, in the store's order: first those that were sent, then those that
//! wait. Each has a number; numbers are never used again.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::etf::{TermWriter, Traits, encode};

use crate::replica::dialect::{self, CopyMark, Dialect};
use crate::replica::source::ReplicaWrite;

struct Entry {
    /// The cast, encoded.
    message: Vec<u8>,
    /// Where in the message the key stands; nowhere in a copy's mark.
    key: (u32, u32),
    /// The key, where that in the message is not canonical.
    canonical: Option<Box<[u8]>>,
    /// The store's number of the write, or of the last one before what was read.
    seq: u64,
    traits: Traits,
    /// `None`: it is a write.
    mark: Option<CopyMark>,
    is_put: bool,
}

/// The next message for a slave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Next<'a> {
    pub(super) message: &'a [u8],
    /// `None`: it is a copy's mark.
    pub(super) key: Option<&'a [u8]>,
    pub(super) is_put: bool,
    pub(super) traits: Traits,
}

/// What was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Lost {
    pub(super) writes: u64,
    /// A copy's mark was among it.
    pub(super) marks: bool,
    /// A mark that nothing is missing was among what was sent, and may be on its way.
    pub(super) wholes: bool,
}

/// What a slave may still lack.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Of all entries.
    bytes: usize,
    /// The number of the first entry.
    first: u64,
    /// How many of the entries were sent.
    sent: usize,
    sent_bytes: usize,
    /// What was sent, is no entry any more, and may still be on its way: so many bytes, up to this number.
    on_its_way: (usize, u64),
}

impl Log {
    #[inline]
    pub(super) fn push(&mut self, dialect: Dialect, seq: u64, write: ReplicaWrite<'_>) {
        self.add(Entry::new(dialect, seq, write));
    }

    pub(super) fn push_mark(&mut self, session: u64, seq: u64, mark: CopyMark) {
        self.add(Entry::of_mark(session, seq, mark));
    }

    /// A mark comes before all that was not sent, where nothing else was.
    pub(super) fn push_mark_first(&mut self, session: u64, seq: u64, mark: CopyMark) {
        let entry = Entry::of_mark(session, seq, mark);
        self.bytes += entry.bytes();
        self.entries.push_front(entry);
    }

    fn add(&mut self, entry: Entry) {
        self.bytes += entry.bytes();
        self.entries.push_back(entry);
    }

    /// The next one to be sent, which counts as sent from now on.
    pub(super) fn send(&mut self) -> Option<Next<'_>> {
        let entry = self.entries.get(self.sent)?;
        self.sent += 1;
        self.sent_bytes += entry.bytes();
        let Entry { message, traits, is_put, .. } = entry;
        Some(Next { message, key: entry.key(), is_put: *is_put, traits: *traits })
    }

    /// One more than the number of the last write that was sent.
    pub(super) const fn sent_up_to(&self) -> u64 {
        self.first + self.sent as u64
    }

    /// The number that the next one will have.
    pub(super) fn end(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    /// The number of the first write that is not acknowledged.
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The store's number of the last write that was sent; `None`: nothing is.
    pub(super) fn sent_seq(&self) -> Option<u64> {
        self.entries.get(self.sent.checked_sub(1)?).map(|entry| entry.seq)
    }

    /// The slave has all up to `up_to`, which is what [`sent_up_to`](Self::sent_up_to) was. Gives the store's number of
    /// the last of these.
    pub(super) fn acknowledge(&mut self, up_to: u64) -> Option<u64> {
        self.has_come(up_to);
        let mut seq = None;
        while self.first < up_to
            && self.sent > 0
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.sent -= 1;
            self.sent_bytes -= entry.bytes();
            self.bytes -= entry.bytes();
            seq = Some(entry.seq);
        }
        seq
    }

    /// The slave was sent all up to `up_to`, and has not kept all that it was sent: takes that out, also what was sent behind it, and
    /// shows the keys.
    pub(super) fn lose(&mut self, up_to: u64, mut key: impl FnMut(&[u8])) -> Lost {
        self.has_come(up_to);
        let mut lost = Lost::default();
        while self.sent > 0
            && let Some(entry) = self.entries.pop_front()
        {
            if self.first >= up_to {
                self.on_its_way = (self.on_its_way.0 + entry.bytes(), self.first + 1);
                lost.wholes |= matches!(entry.mark, Some(CopyMark::Whole | CopyMark::End));
            }
            self.first += 1;
            self.sent -= 1;
            self.sent_bytes -= entry.bytes();
            self.bytes -= entry.bytes();
            lost.see(&entry, &mut key);
        }
        lost
    }

    const fn has_come(&mut self, up_to: u64) {
        if up_to >= self.on_its_way.1 {
            self.on_its_way = (0, 0);
        }
    }

    /// Takes out what was not sent, but for deletions, and shows the keys.
    pub(super) fn drop_unsent_puts(&mut self, mut key: impl FnMut(&[u8])) -> Lost {
        let mut lost = Lost::default();
        for entry in self.entries.split_off(self.sent) {
            if !entry.is_put && entry.key().is_some() {
                self.entries.push_back(entry);
            } else {
                self.bytes -= entry.bytes();
                lost.see(&entry, &mut key);
            }
        }
        self.entries.shrink_to_fit();
        lost
    }

    /// Takes out what was not sent, and shows the keys.
    pub(super) fn drop_unsent(&mut self, mut key: impl FnMut(&[u8])) -> Lost {
        let mut lost = Lost::default();
        while self.entries.len() > self.sent
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.bytes();
            lost.see(&entry, &mut key);
        }
        self.entries.shrink_to_fit();
        lost
    }

    /// Takes out everything, and shows the keys.
    pub(super) fn drop_all(&mut self, mut key: impl FnMut(&[u8])) -> Lost {
        let mut lost = Lost::default();
        for entry in &self.entries {
            lost.see(entry, &mut key);
        }
        *self = Self { first: self.end(), ..Self::default() };
        lost
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sent, and not known to have come.
    pub(super) const fn sent_bytes(&self) -> usize {
        self.sent_bytes + self.on_its_way.0
    }

    pub(super) const fn unsent_bytes(&self) -> usize {
        self.bytes - self.sent_bytes
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.entries.len() > self.sent
    }
}

impl Lost {
    fn see(&mut self, entry: &Entry, key: &mut impl FnMut(&[u8])) {
        match entry.key() {
            Some(lost) => {
                self.writes += 1;
                key(lost);
            }
            None => self.marks |= matches!(entry.mark, Some(CopyMark::Begin | CopyMark::End)),
        }
    }
}

impl Entry {
    fn new(dialect: Dialect, seq: u64, write: ReplicaWrite<'_>) -> Self {
        let (len, traits) = match write {
            ReplicaWrite::Put { key, value, traits, .. } => (key.len() + value.len(), traits),
            ReplicaWrite::Delete { key, traits } => (key.len(), traits),
        };
        let mut message = Vec::with_capacity(len + 64);
        let (key, value) = dialect.begin_write(&mut TermWriter::new(&mut message), seq, write);
        let from = message.len() as u32;
        let sent = dialect.key(key, traits);
        message.extend_from_slice(&sent);
        let to = message.len() as u32;
        message.extend_from_slice(value);
        let is_put = matches!(write, ReplicaWrite::Put { .. });
        let canonical = matches!(sent, Cow::Owned(_)).then(|| key.into());
        Self { message, key: (from, to), canonical, seq, traits, mark: None, is_put }
    }

    fn of_mark(session: u64, seq: u64, mark: CopyMark) -> Self {
        let message = encode(|w| dialect::write_mark(w, session, seq, mark));
        let (traits, mark) = (Traits::none(), Some(mark));
        Self { message, key: (0, 0), canonical: None, seq, traits, mark, is_put: false }
    }

    /// The memory of its bytes.
    fn bytes(&self) -> usize {
        self.message.len() + self.canonical.as_ref().map_or(0, |key| key.len())
    }

    fn key(&self) -> Option<&[u8]> {
        if self.canonical.is_some() {
            return self.canonical.as_deref();
        }
        let (from, to) = self.key;
        (from < to).then(|| &self.message[from as usize..to as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delete(key: &[u8]) -> ReplicaWrite<'_> {
        ReplicaWrite::Delete { key, traits: Traits::none() }
    }

    #[test]
    fn what_was_sent_stays_until_it_is_acknowledged_and_gives_its_key_when_it_is_lost() {
        let mut log = Log::default();
        for (at, key) in [[1], [2], [3]].iter().enumerate() {
            log.push(Dialect::Elixir, 10 + at as u64, delete(key));
        }
        assert!(log.send().is_some() && log.send().is_some());
        assert_eq!((log.sent_up_to(), log.sent_seq(), log.end()), (2, Some(11), 3));
        assert_eq!(log.acknowledge(1), Some(10));
        assert_eq!((log.len(), log.sent_up_to()), (2, 2));
        let mut lost = Vec::new();
        assert_eq!(log.drop_unsent(|key| lost.push(key[0])), Lost { writes: 1, marks: false, wholes: false });
        assert!(log.send().is_none());
        assert_eq!(log.drop_all(|key| lost.push(key[0])), Lost { writes: 1, marks: false, wholes: false });
        assert_eq!((lost, log.bytes(), log.sent_bytes(), log.sent_up_to()), (vec![3, 2], 0, 0, 2));
    }

    #[test]
    fn an_acknowledgement_never_takes_what_was_not_sent() {
        let mut log = Log::default();
        log.push(Dialect::Elixir, 1, delete(&[1]));
        assert_eq!(log.acknowledge(7), None);
        assert_eq!(log.len(), 1);
    }

    #[test]
    fn what_was_not_kept_gives_its_key_and_deletions_stay_to_be_sent() {
        let put =
            |key| ReplicaWrite::Put { key, value: &[9], traits: Traits::none(), revision: 1, deadline: 0 };
        let mut log = Log::default();
        for write in [put(&[1]), delete(&[2]), put(&[3]), delete(&[4]), put(&[5]), delete(&[6])] {
            log.push(Dialect::Elixir, 1, write);
        }
        for _ in 0..3 {
            log.send().expect("it waits");
        }
        let mut lost = Vec::new();
        assert_eq!(log.lose(2, |key| lost.push(key[0])), Lost { writes: 3, marks: false, wholes: false });
        assert!(log.sent_bytes() > 0, "the third is on its way");
        assert_eq!(
            log.drop_unsent_puts(|key| lost.push(key[0])),
            Lost { writes: 1, marks: false, wholes: false }
        );
        assert_eq!((lost, log.len(), log.sent_up_to()), (vec![1, 2, 3, 5], 2, 3));
        assert_eq!(log.send().and_then(|next| next.key), Some(&[4][..]));
        assert_eq!(log.send().map(|next| (next.key, next.is_put)), Some((Some(&[6][..]), false)));
        assert_eq!(log.acknowledge(5), Some(1));
        assert_eq!((log.len(), log.bytes(), log.sent_bytes()), (0, 0, 0), "and has come");
    }

    #[test]
    fn a_copys_mark_that_is_lost_is_told() {
        let mut log = Log::default();
        log.push(Dialect::Kvnode { session: 1 }, 1, delete(&[1]));
        log.push_mark(1, 1, CopyMark::Begin);
        assert_eq!(
            log.drop_unsent(|key| assert_eq!(key, [1])),
            Lost { writes: 1, marks: true, wholes: false }
        );
        assert_eq!(log.bytes(), 0);
    }
}
