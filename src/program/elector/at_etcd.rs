//! The keys of a store's elections in etcd: read, watched and written.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use crate::elect::succession::{Change, Entry, Input, Key, Transacted, Transaction};
use crate::etcd::message::{
    Bytes, Compare, CompareResult, Compared, DeleteRangeRequest, Effect, Event, EventKind, KeyValue, Op,
    PutRequest, RangeRequest, TxnRequest, prefix_end,
};
use crate::etcd::{Ask, Error, Etcd, WatchEvent, WatchOptions};
use crate::log::Once;

/// A transaction that was not answered is looked at anew: what it compares may have changed.
const TRANSACT_MAX: Duration = Duration::from_secs(2);
/// Between readings of the keys that fail.
const PAUSE: Duration = Duration::from_millis(200);
/// Keys that are read: a store has one for each node, and two more.
const KEYS_MAX: i64 = 4_096;

/// Where a key is.
fn at(base: &[u8], key: &Key) -> Bytes {
    [base, Key::PREFIX.as_bytes(), key.to_string().as_bytes()].concat().into()
}

/// Which key it is; `None`: none that is known here.
fn key_at(base: &[u8], at: &[u8]) -> Option<Key> {
    let text = at.strip_prefix(base)?.strip_prefix(Key::PREFIX.as_bytes())?;
    Key::read(std::str::from_utf8(text).ok()?)
}

/// The revisions of etcd's answers. Where one is lower than another was before the question etcd was wiped, or restored from an older
/// copy: no watch tells that.
pub(super) struct Revisions {
    last: AtomicI64,
    poke: Sender<()>,
    rolled_back: Receiver<()>,
}

impl Revisions {
    pub(super) fn new() -> Arc<Self> {
        let (poke, rolled_back) = smol::channel::bounded(1);
        Arc::new(Self { last: AtomicI64::new(0), poke, rolled_back })
    }

    /// To be known before a question is asked.
    fn last(&self) -> i64 {
        self.last.load(Ordering::Acquire)
    }

    /// Behind `before` etcd was asked something, and has answered with a revision.
    fn saw(&self, before: i64, revision: i64) {
        if revision >= before {
            self.last.fetch_max(revision, Ordering::AcqRel);
        } else {
            self.last.store(revision, Ordering::Release);
            // Full: it is known already.
            let _ = self.poke.try_send(());
        }
    }

    async fn rolled_back(&self) {
        // It has a sender itself.
        let _ = self.rolled_back.recv().await;
    }
}

/// Tells of the keys as they are, and of each change, until nobody listens.
pub(super) async fn watch(etcd: Etcd, base: Vec<u8>, revisions: Arc<Revisions>, tell: Sender<Input>) {
    let mut said = Once::when_changed();
    loop {
        let follow = async { Some(follow(&etcd, &base, &revisions, &tell).await) };
        let ended = follow.or(async {
            revisions.rolled_back().await;
            None
        });
        let ended = ended.await;
        if tell.is_closed() {
            return;
        }
        let Some(ended) = ended else {
            tracing::error!(
                "etcd was wiped, or restored from an older copy: which store is the primary is read anew"
            );
            if tell.send(Input::RolledBack).await.is_err() {
                return;
            }
            continue;
        };
        // A revision that is compacted: the keys are read anew.
        let error = ended.to_string();
        if said.first(error.clone()) {
            tracing::warn!(error, "etcd does not say which store is the primary; it is asked again");
        }
        Timer::after(PAUSE).await;
    }
}

async fn follow(etcd: &Etcd, base: &[u8], revisions: &Revisions, tell: &Sender<Input>) -> Error {
    let prefix: Bytes = [base, Key::PREFIX.as_bytes()].concat().into();
    let range_end = prefix_end(&prefix).into();
    let all = RangeRequest { key: prefix.clone(), range_end, limit: KEYS_MAX, ..RangeRequest::default() };
    let before = revisions.last();
    let answer = match etcd.call(&all).await {
        Ok(answer) => answer,
        Err(error) => return error,
    };
    let revision = answer.header.map_or(0, |header| header.revision);
    revisions.saw(before, revision);
    let entries = answer.kvs.iter().filter_map(|kv| entry(base, kv)).collect();
    let closed = Error::Unavailable { reason: "nobody listens".to_owned() };
    if tell.send(Input::Keys { revision, entries }).await.is_err() {
        return closed;
    }
    let mut watch = etcd.watch(WatchOptions::prefix(prefix).from_revision(revision + 1));
    loop {
        match watch.next().await {
            Ok(WatchEvent::Changes(events)) => {
                let changes: Vec<Change> =
                    events.into_iter().filter_map(|event| change(base, event)).collect();
                if !changes.is_empty() && tell.send(Input::Changed(changes)).await.is_err() {
                    return closed;
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn entry(base: &[u8], kv: &KeyValue) -> Option<Entry> {
    Some(Entry {
        key: key_at(base, &kv.key)?,
        value: kv.value.to_vec(),
        mod_revision: kv.mod_revision,
        lease: kv.lease,
    })
}

fn change(base: &[u8], event: Event) -> Option<Change> {
    let is_gone = event.r#type == EventKind::Delete as i32;
    let revision = event.revision();
    let kv = event.kv?;
    if is_gone {
        return Some(Change::Gone { key: key_at(base, &kv.key)?, revision });
    }
    entry(base, &kv).map(Change::Put)
}

/// Does a transaction, where all is as it compares.
///
/// # Errors
/// It is not known to be done.
pub(super) async fn transact(
    etcd: &Etcd,
    base: &[u8],
    revisions: &Revisions,
    transaction: Transaction,
) -> Result<Transacted, Error> {
    let before = revisions.last();
    let Transaction { compare, puts, deletes, .. } = transaction;
    // Of a key that is not there it is 0.
    let compare = compare
        .iter()
        .map(|(key, was)| Compare::new(at(base, key), CompareResult::Equal, Compared::ModRevision(*was)));
    let puts = puts.into_iter().map(|(key, value, lease)| {
        Op::Put(PutRequest { key: at(base, &key), value: value.into(), lease, ..PutRequest::default() })
    });
    let deletes = deletes.iter().map(|key| {
        Op::DeleteRange(DeleteRangeRequest { key: at(base, key), ..DeleteRangeRequest::default() })
    });
    let request = TxnRequest {
        compare: compare.collect(),
        success: puts.chain(deletes).map(Into::into).collect(),
        failure: Vec::new(),
    };
    let ask = Ask { deadline: Some(TRANSACT_MAX), effect: Some(Effect::Guarded) };
    let answer = etcd.call_with(&request, ask).await?;
    let revision = answer.header.map_or(0, |header| header.revision);
    revisions.saw(before, revision);
    Ok(if answer.succeeded { Transacted::Done { revision } } else { Transacted::Lost })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &[u8] = b"kvnode/global:kv/";

    #[test]
    fn a_lower_revision_than_before_the_question_is_noticed_once_and_a_late_answer_is_not_taken_for_one() {
        let revisions = Revisions::new();
        revisions.saw(0, 5);
        let before = revisions.last();
        revisions.saw(before, 9);
        // It was asked before that was known.
        revisions.saw(before, 7);
        assert_eq!((revisions.last(), revisions.rolled_back.len()), (9, 0));
        revisions.saw(9, 2);
        revisions.saw(9, 3);
        assert_eq!((revisions.last(), revisions.rolled_back.len()), (3, 1));
        revisions.saw(3, 3);
        assert_eq!(revisions.rolled_back.len(), 1);
    }

    #[test]
    fn keys_are_told_as_what_they_are_and_others_are_not() {
        for key in [Key::Leader, Key::Record, Key::Report("kv1@höst".into())] {
            assert_eq!(key_at(BASE, &at(BASE, &key)), Some(key));
        }
        for other in ["kvnode/global:kv/", "kvnode/global:kv2/", ""] {
            assert_eq!(key_at(BASE, other.as_bytes()), None, "{other}");
        }
        let event = |kind: EventKind, key: Bytes| Event {
            r#type: kind.into(),
            kv: Some(KeyValue { key, value: "v".into(), mod_revision: 9, lease: 4, ..KeyValue::default() }),
            prev_kv: None,
        };
        let put = Entry { key: Key::Leader, value: b"v".to_vec(), mod_revision: 9, lease: 4 };
        assert_eq!(change(BASE, event(EventKind::Put, at(BASE, &Key::Leader))), Some(Change::Put(put)));
        let gone = Change::Gone { key: Key::Record, revision: 9 };
        assert_eq!(change(BASE, event(EventKind::Delete, at(BASE, &Key::Record))), Some(gone));
        assert_eq!(change(BASE, event(EventKind::Put, Bytes::from_static(b"kvnode/global:kv/h"))), None);
        assert_eq!(change(BASE, Event::default()), None);
    }
}
