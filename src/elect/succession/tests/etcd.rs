//! An etcd with leases: transactions, a history that is watched, and time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::elect::succession::keys::{Base, Record, read_leader};
use crate::elect::succession::{Change, Entry, Key, Transacted, Transaction};

/// How long a lease lasts that is not renewed.
pub(super) const TTL: Duration = Duration::from_secs(4);

#[derive(Debug, Default)]
pub(super) struct Etcd {
    pub(super) is_away: bool,
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<Key, Entry>,
    pub(super) leases: BTreeMap<i64, Instant>,
    /// The changes of each revision.
    pub(super) history: Vec<Vec<Change>>,
    last_fence: u64,
    /// What was wrong with a transaction.
    pub(super) wrong: Option<String>,
    grants: i64,
    /// Times that a record has lost members.
    pub(super) drops: u64,
    /// Times that a record has got the number of a last write.
    pub(super) ends: u64,
}

impl Etcd {
    pub(super) fn grant(&mut self, now: Instant) -> i64 {
        self.grants += 1;
        self.leases.insert(self.grants, now + TTL);
        self.grants
    }

    pub(super) fn renew(&mut self, id: i64, now: Instant) -> bool {
        self.leases.get_mut(&id).map(|at| *at = now + TTL).is_some()
    }

    pub(super) fn revoke(&mut self, id: i64) {
        if self.leases.remove(&id).is_some() {
            self.drop_keys_of(id);
        }
    }

    pub(super) fn next_end(&self) -> Option<Instant> {
        self.leases.values().min().copied().filter(|_| !self.is_away)
    }

    pub(super) fn expire(&mut self, now: Instant) {
        let ended: Vec<i64> = self.leases.extract_if(.., |_, at| *at <= now).map(|(id, _)| id).collect();
        ended.into_iter().for_each(|id| self.drop_keys_of(id));
    }

    /// A new leader gives each lease all of its time.
    pub(super) fn come_back(&mut self, now: Instant) {
        self.is_away = false;
        self.leases.values_mut().for_each(|at| *at = now + TTL);
    }

    fn drop_keys_of(&mut self, lease: i64) {
        let keys = self.keys.values().filter(|entry| entry.lease == lease);
        let keys: Vec<Key> = keys.map(|entry| entry.key.clone()).collect();
        self.delete(keys);
    }

    pub(super) fn delete(&mut self, keys: Vec<Key>) {
        if keys.is_empty() {
            return;
        }
        self.revision += 1;
        let revision = self.revision;
        keys.iter().for_each(|key| _ = self.keys.remove(key));
        self.history.push(keys.into_iter().map(|key| Change::Gone { key, revision }).collect());
    }

    pub(super) fn transact(&mut self, transaction: &Transaction) -> Transacted {
        let Transaction { compare, puts, deletes, .. } = transaction;
        if puts.iter().any(|(_, _, lease)| *lease != 0 && !self.leases.contains_key(lease)) {
            return Transacted::Failed;
        }
        let is_at =
            |(key, was): &(Key, i64)| self.keys.get(key).map_or(0, |entry| entry.mod_revision) == *was;
        if !compare.iter().all(is_at) {
            return Transacted::Lost;
        }
        assert!(puts.len() + deletes.len() > 0, "a transaction that does nothing");
        self.revision += 1;
        let mod_revision = self.revision;
        let mut changes = Vec::new();
        for (key, value, lease) in puts {
            if *key == Key::Leader {
                let (_, fence) = read_leader(value).expect("the value of a primary");
                if fence <= self.last_fence {
                    self.wrong = Some(format!("fence {fence} behind {}", self.last_fence));
                }
                self.last_fence = fence;
            }
            if *key == Key::Record {
                let record = Record::read(value).expect("a record");
                assert_eq!(record.write(), *value, "it is read as it is written");
                let before = self.record().map(|record| record.base);
                let is_less = |before: &Base| {
                    before.fence == record.base.fence && before.members.len() > record.base.members.len()
                };
                self.drops += u64::from(before.as_ref().is_some_and(is_less));
                self.ends +=
                    u64::from(record.base.end.is_some() && before.is_some_and(|before| before.end.is_none()));
            }
            let entry = Entry { key: key.clone(), value: value.clone(), mod_revision, lease: *lease };
            self.keys.insert(key.clone(), entry.clone());
            changes.push(Change::Put(entry));
        }
        for key in deletes {
            if self.keys.remove(key).is_some() {
                changes.push(Change::Gone { key: key.clone(), revision: mod_revision });
            }
        }
        self.history.push(changes);
        Transacted::Done { revision: mod_revision }
    }

    /// The fence of the primary's key.
    pub(super) fn fence(&self) -> Option<u64> {
        self.keys.get(&Key::Leader).and_then(|entry| read_leader(&entry.value)).map(|(_, fence)| fence)
    }

    pub(super) fn record(&self) -> Option<Record> {
        self.keys.get(&Key::Record).and_then(|entry| Record::read(&entry.value))
    }
}
