//! The writes that one slave has not acknowledged, in the store's order: first those that were sent, then those that
//! wait. Each has a number; numbers are never used again.

use std::borrow::Cow;
use std::collections::VecDeque;

use crate::etf::{TermWriter, Traits, encode};

use crate::replica::dialect::{self, CopyMark, Dialect};
use crate::replica::planted::{Rule, planted};
use crate::replica::source::ReplicaWrite;

struct Entry {
    /// The cast, encoded.
    message: Vec<u8>,
    about: About,
    /// The store's number of the write, or of the last one before what was read.
    seq: u64,
    traits: Traits,
    /// Something of it takes room.
    is_put: bool,
}

/// What a cast is of.
enum About {
    Mark(CopyMark),
    /// The key that stands there in the message.
    Key(Part),
    /// This key, which stands in the message otherwise than here.
    Canonical(Box<[u8]>),
    /// The keys of one write.
    Keys(Box<[Part]>),
    /// All keys.
    Clear,
}

/// A part of a message.
#[derive(Clone, Copy)]
struct Part {
    from: u32,
    to: u32,
}

/// The next message for a slave.
#[derive(Clone, Copy)]
pub(super) struct Next<'a> {
    entry: &'a Entry,
}

impl<'a> Next<'a> {
    pub(super) fn message(&self) -> &'a [u8] {
        &self.entry.message
    }

    pub(super) const fn is_put(&self) -> bool {
        self.entry.is_put
    }

    pub(super) const fn traits(&self) -> Traits {
        self.entry.traits
    }

    /// It deletes all keys.
    pub(super) const fn is_clear(&self) -> bool {
        matches!(self.entry.about, About::Clear)
    }

    /// The keys that it names: none in a copy's mark, and where all are deleted.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'a [u8]> {
        self.entry.keys()
    }
}

/// What was taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Lost {
    pub(super) writes: u64,
    /// A copy's mark was among it, or a deletion of all keys: nobody knows any more which keys are missed.
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

    /// A write of several keys, which stays one.
    pub(super) fn push_many(&mut self, session: u64, seq: u64, writes: &[ReplicaWrite<'_>]) {
        self.add(Entry::of_many(session, seq, writes));
    }

    /// A deletion of all keys.
    pub(super) fn push_clear(&mut self, session: u64, seq: u64) {
        self.add(Entry::of_clear(session, seq));
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
        Some(Next { entry })
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
                lost.wholes |= matches!(entry.about, About::Mark(CopyMark::Whole | CopyMark::End));
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
            if !entry.is_put && !matches!(entry.about, About::Mark(_)) {
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
        self.marks |= match entry.about {
            About::Mark(mark) => matches!(mark, CopyMark::Begin | CopyMark::End),
            About::Clear => !planted(Rule::LostClear),
            About::Key(_) | About::Canonical(_) | About::Keys(_) => false,
        };
        for lost in entry.keys() {
            self.writes += 1;
            key(lost);
        }
    }
}

impl Entry {
    fn new(dialect: Dialect, seq: u64, write: ReplicaWrite<'_>) -> Self {
        let traits = write.traits();
        let mut message = Vec::with_capacity(write.len() + 64);
        let (key, value) = dialect.begin_write(&mut TermWriter::new(&mut message), seq, write);
        let sent = dialect.key(key, traits);
        let part = Part::behind(&mut message, &sent);
        message.extend_from_slice(value);
        let is_put = matches!(write, ReplicaWrite::Put { .. });
        let about = match sent {
            Cow::Borrowed(_) => About::Key(part),
            Cow::Owned(_) => About::Canonical(key.into()),
        };
        Self { message, about, seq, traits, is_put }
    }

    fn of_many(session: u64, seq: u64, writes: &[ReplicaWrite<'_>]) -> Self {
        let mut message = Vec::with_capacity(writes.iter().map(|write| write.len() + 32).sum());
        dialect::begin_many(&mut TermWriter::new(&mut message), session, seq, writes.len());
        let keys = writes.iter().map(|write| {
            let (key, value) = dialect::begin_one_of_many(&mut TermWriter::new(&mut message), write);
            let part = Part::behind(&mut message, key);
            message.extend_from_slice(value);
            part
        });
        let about = About::Keys(keys.collect());
        TermWriter::new(&mut message).nil();
        let traits = writes.iter().map(ReplicaWrite::traits).fold(Traits::none(), Traits::union);
        let is_put = writes.iter().any(|write| matches!(write, ReplicaWrite::Put { .. }));
        Self { message, about, seq, traits, is_put }
    }

    fn of_clear(session: u64, seq: u64) -> Self {
        let message = encode(|w| dialect::write_clear(w, session, seq));
        Self { message, about: About::Clear, seq, traits: Traits::none(), is_put: false }
    }

    fn of_mark(session: u64, seq: u64, mark: CopyMark) -> Self {
        let message = encode(|w| dialect::write_mark(w, session, seq, mark));
        Self { message, about: About::Mark(mark), seq, traits: Traits::none(), is_put: false }
    }

    /// The memory of its bytes.
    fn bytes(&self) -> usize {
        let more = match &self.about {
            About::Mark(_) | About::Key(_) | About::Clear => 0,
            About::Canonical(key) => key.len(),
            About::Keys(keys) => size_of_val(&**keys),
        };
        self.message.len() + more
    }

    fn keys(&self) -> impl Iterator<Item = &[u8]> {
        let (one, several): (Option<&[u8]>, &[Part]) = match &self.about {
            About::Mark(_) | About::Clear => (None, &[]),
            About::Key(part) => (Some(part.of(&self.message)), &[]),
            About::Canonical(key) => (Some(key), &[]),
            About::Keys(keys) => (None, keys),
        };
        one.into_iter().chain(several.iter().map(|part| part.of(&self.message)))
    }
}

impl Part {
    /// Puts bytes behind a message, as a part of it. A message has less than 4 GiB, as its values have.
    fn behind(message: &mut Vec<u8>, bytes: &[u8]) -> Self {
        let from = message.len() as u32;
        message.extend_from_slice(bytes);
        Self { from, to: message.len() as u32 }
    }

    fn of(self, message: &[u8]) -> &[u8] {
        message.get(self.from as usize..self.to as usize).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::TermView;

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
        let sent = |log: &mut Log| {
            log.send().map(|next| (next.keys().map(<[u8]>::to_vec).collect::<Vec<_>>(), next.is_put()))
        };
        assert_eq!(sent(&mut log), Some((vec![vec![4]], false)));
        assert_eq!(sent(&mut log), Some((vec![vec![6]], false)));
        assert_eq!(log.acknowledge(5), Some(1));
        assert_eq!((log.len(), log.bytes(), log.sent_bytes()), (0, 0, 0), "and has come");
    }

    #[test]
    fn a_write_of_several_keys_is_one_message_and_gives_all_its_keys_when_it_is_lost() {
        let [a, b, c] = ["a", "b", "c"].map(|key| encode(|w| _ = w.atom(key)));
        let put = |key, deadline| ReplicaWrite::Put {
            key,
            value: &a,
            traits: Traits::V4_NC,
            revision: 7,
            deadline,
        };
        let mut log = Log::default();
        log.push_many(1, 9, &[put(&a, 0), delete(&b), put(&c, 5)]);
        log.push_many(1, 10, &[delete(&b), delete(&c)]);
        assert!(log.bytes() > log.entries[0].message.len() + log.entries[1].message.len());
        let texts: Vec<String> = (0..2)
            .map(|_| {
                let next = log.send().expect("it waits");
                let message = TermView::parse(next.message()).expect("a term");
                format!("{message:?} {} {}", next.is_put(), next.traits() == Traits::V4_NC)
            })
            .collect();
        assert_eq!(
            texts,
            [
                "{:\"$gen_cast\", {:replica_many, 1, 9, [{7, :a, :a}, {:b}, {7, 5, :c, :a}]}} true true",
                "{:\"$gen_cast\", {:replica_many, 1, 10, [{:b}, {:c}]}} false false"
            ]
        );
        assert_eq!((log.sent_seq(), log.acknowledge(1), log.len()), (Some(10), Some(9), 1));
        let mut lost = Vec::new();
        assert_eq!(
            log.lose(2, |key| lost.push(key.to_vec())),
            Lost { writes: 2, marks: false, wholes: false }
        );
        assert_eq!((lost, log.bytes()), (vec![b, c], 0));
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
