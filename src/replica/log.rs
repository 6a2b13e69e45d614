//! The writes that one slave has not acknowledged, in the store's order: first those that were sent, then those that
//! wait. Each has a number; numbers are never used again.

use std::collections::VecDeque;

use crate::etf::{TermWriter, Traits};

use super::source::ReplicaWrite;

struct Entry {
    /// `{:"$gen_cast", {:replicate_put, key, value}}`, or the deletion, encoded.
    message: Vec<u8>,
    /// Where in the message the key stands.
    key: (u32, u32),
    traits: Traits,
}

/// What a slave may still lack.
#[derive(Default)]
pub(super) struct Log {
    entries: VecDeque<Entry>,
    /// Of all messages.
    bytes: usize,
    /// The number of the first entry.
    first: u64,
    /// How many of the entries were sent.
    sent: usize,
    sent_bytes: usize,
}

impl Log {
    pub(super) fn push(&mut self, write: ReplicaWrite<'_>) {
        let entry = Entry::new(write);
        self.bytes += entry.message.len();
        self.entries.push_back(entry);
    }

    /// The next one to be sent, which counts as sent from now on.
    pub(super) fn send(&mut self) -> Option<(&[u8], Traits)> {
        let entry = self.entries.get(self.sent)?;
        self.sent += 1;
        self.sent_bytes += entry.message.len();
        Some((&entry.message, entry.traits))
    }

    /// The number of the last one that was sent, and one.
    pub(super) const fn sent_up_to(&self) -> u64 {
        self.first + self.sent as u64
    }

    /// The slave has all up to `up_to`, which is what [`sent_up_to`](Self::sent_up_to) was.
    pub(super) fn acknowledge(&mut self, up_to: u64) {
        while self.first < up_to
            && self.sent > 0
            && let Some(entry) = self.entries.pop_front()
        {
            self.first += 1;
            self.sent -= 1;
            self.sent_bytes -= entry.message.len();
            self.bytes -= entry.message.len();
        }
    }

    /// Takes out what was not sent, and shows the keys.
    pub(super) fn drop_unsent(&mut self, mut key: impl FnMut(&[u8])) -> u64 {
        let mut dropped = 0;
        while self.entries.len() > self.sent
            && let Some(entry) = self.entries.pop_back()
        {
            self.bytes -= entry.message.len();
            dropped += 1;
            key(entry.key());
        }
        self.entries.shrink_to_fit();
        dropped
    }

    /// Takes out everything, and shows the keys.
    pub(super) fn drop_all(&mut self, mut key: impl FnMut(&[u8])) {
        for entry in &self.entries {
            key(entry.key());
        }
        let first = self.first + self.entries.len() as u64;
        *self = Self { first, ..Self::default() };
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

    /// Sent and not acknowledged.
    pub(super) const fn sent_bytes(&self) -> usize {
        self.sent_bytes
    }

    pub(super) const fn unsent_bytes(&self) -> usize {
        self.bytes - self.sent_bytes
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.entries.len() > self.sent
    }
}

impl Entry {
    fn new(write: ReplicaWrite<'_>) -> Self {
        let (operation, arity, key, value, traits) = match write {
            ReplicaWrite::Put { key, value, traits } => ("replicate_put", 3, key, value, traits),
            ReplicaWrite::Delete { key, traits } => ("replicate_delete", 2, key, &[][..], traits),
        };
        let mut message = Vec::with_capacity(key.len() + value.len() + 40);
        TermWriter::new(&mut message).tuple(2).atom("$gen_cast").tuple(arity).atom(operation);
        let from = message.len() as u32;
        message.extend_from_slice(key);
        let to = message.len() as u32;
        message.extend_from_slice(value);
        Self { message, key: (from, to), traits }
    }

    fn key(&self) -> &[u8] {
        &self.message[self.key.0 as usize..self.key.1 as usize]
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
        for key in [[1], [2], [3]] {
            log.push(delete(&key));
        }
        assert!(log.send().is_some() && log.send().is_some());
        assert_eq!(log.sent_up_to(), 2);
        log.acknowledge(1);
        assert_eq!((log.len(), log.sent_up_to()), (2, 2));
        let mut lost = Vec::new();
        assert_eq!(log.drop_unsent(|key| lost.push(key[0])), 1);
        assert!(log.send().is_none());
        log.drop_all(|key| lost.push(key[0]));
        assert_eq!((lost, log.bytes(), log.sent_bytes(), log.sent_up_to()), (vec![3, 2], 0, 0, 2));
    }

    #[test]
    fn an_acknowledgement_never_takes_what_was_not_sent() {
        let mut log = Log::default();
        log.push(delete(&[1]));
        log.acknowledge(7);
        assert_eq!(log.len(), 1);
    }
}
