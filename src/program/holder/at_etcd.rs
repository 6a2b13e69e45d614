//! The two keys of a store's holder in etcd: read, watched and written. They are taken where no restore of the store's prefix goes on.

use std::time::Duration;

use smol::Timer;
use smol::channel::Sender;

use crate::elect::keys::{read_former, read_holder, write_former, write_holder};
use crate::elect::{Campaign, Campaigned, Former, Held, Input};
use crate::etcd::message::{
    Bytes, Compare, CompareResult, Compared, Effect, Event, EventKind, KeyValue, Op, OpResponse, PutRequest,
    RangeRequest, TxnRequest, TxnResponse,
};
use crate::etcd::{Ask, Error, Etcd, WatchEvent, WatchOptions};
use crate::etf::Pid;
use crate::log::Once;
use crate::store::EtcdStore;

/// A candidate that was not answered asks again: what it compares may have changed.
const CAMPAIGN_MAX: Duration = Duration::from_secs(2);
/// Between readings of the keys that fail.
const PAUSE: Duration = Duration::from_millis(200);

/// Where the keys are.
#[derive(Clone)]
pub(super) struct Keys {
    holder: Bytes,
    former: Bytes,
    /// It is there while a restore goes on.
    restore: Bytes,
}

impl Keys {
    pub(super) fn of(store: &EtcdStore) -> Self {
        let key = |name: &[u8]| [store.base(), name].concat().into();
        Self { holder: key(b"h"), former: key(b"hs"), restore: store.restore_key().into() }
    }

    fn read(&self) -> [Op; 2] {
        [&self.holder, &self.former].map(read)
    }

    /// The transaction by which `me` takes the names.
    fn take(&self, campaign: &Campaign, me: &Pid) -> TxnRequest {
        let Campaign { lease, held_was, former_was, former, .. } = campaign;
        // Of a key that is not there it is 0.
        let compare =
            |key: &Bytes, was| Compare::new(key.clone(), CompareResult::Equal, Compared::ModRevision(was));
        let put = |key: &Bytes, value: Vec<u8>, lease| {
            Op::Put(PutRequest { key: key.clone(), value: value.into(), lease, ..PutRequest::default() })
                .into()
        };
        TxnRequest {
            compare: vec![
                compare(&self.holder, *held_was),
                compare(&self.former, *former_was),
                compare(&self.restore, 0),
            ],
            success: vec![
                put(&self.holder, write_holder(me), *lease),
                put(&self.former, write_former(former), 0),
            ],
            failure: self.read().into_iter().chain([read(&self.restore)]).map(Into::into).collect(),
        }
    }
}

fn read(key: &Bytes) -> Op {
    Op::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() })
}

/// Tells of the keys as they are, and of each change, until nobody listens.
pub(super) async fn watch(etcd: Etcd, keys: Keys, tell: Sender<Input>) {
    let mut said = Once::when_changed();
    loop {
        let ended = follow(&etcd, &keys, &tell).await;
        if tell.is_closed() {
            return;
        }
        // A revision that is compacted: the keys are read anew.
        let error = ended.to_string();
        if said.first(error.clone()) {
            tracing::warn!(
                error,
                "the node that has a store's global names cannot be looked up; it is tried again"
            );
        }
        Timer::after(PAUSE).await;
    }
}

async fn follow(etcd: &Etcd, keys: &Keys, tell: &Sender<Input>) -> Error {
    let read = TxnRequest { success: keys.read().map(Into::into).into(), ..TxnRequest::default() };
    let answer = match etcd.call(&read).await {
        Ok(answer) => answer,
        Err(error) => return error,
    };
    let (revision, held, former) = read_keys(answer);
    let closed = Error::Unavailable { reason: "nobody listens".to_owned() };
    if tell.send(Input::Keys { revision, held, former }).await.is_err() {
        return closed;
    }
    // The other key begins as this one does.
    let mut watch = etcd.watch(WatchOptions::prefix(keys.holder.clone()).from_revision(revision + 1));
    loop {
        match watch.next().await {
            Ok(WatchEvent::Changes(events)) => {
                for input in events.into_iter().filter_map(|event| changed(keys, event)) {
                    if tell.send(input).await.is_err() {
                        return closed;
                    }
                }
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn changed(keys: &Keys, event: Event) -> Option<Input> {
    let is_gone = event.r#type == EventKind::Delete as i32;
    let revision = event.revision();
    let kv = event.kv?;
    if kv.key == keys.holder {
        let held = (!is_gone).then(|| held(&kv));
        Some(Input::Held { revision, held })
    } else if kv.key == keys.former {
        let former = if is_gone { Former::default() } else { former(&kv) };
        Some(Input::Former { revision, former })
    } else {
        None
    }
}

fn held(kv: &KeyValue) -> Held {
    Held { mod_revision: kv.mod_revision, by: read_holder(&kv.value), lease: kv.lease }
}

fn former(kv: &KeyValue) -> Former {
    Former { mod_revision: kv.mod_revision, lives: read_former(&kv.value) }
}

/// The keys as a transaction has read them.
fn read_keys(answer: TxnResponse) -> (i64, Option<Held>, Former) {
    let revision = answer.header.map_or(0, |header| header.revision);
    let mut found = answer.responses.into_iter().map(|found| match found.response {
        Some(OpResponse::Range(found)) => found.kvs.into_iter().next(),
        _ => None,
    });
    let mut next = || found.next().flatten();
    let held = next().as_ref().map(held);
    (revision, held, next().as_ref().map(former).unwrap_or_default())
}

/// Takes the key, where neither was written since.
///
/// # Errors
/// It is not known to be done.
pub(super) async fn campaign(
    etcd: &Etcd,
    keys: &Keys,
    campaign: Campaign,
    me: &Pid,
) -> Result<Campaigned, Error> {
    let ask = Ask { deadline: Some(CAMPAIGN_MAX), effect: Some(Effect::Guarded) };
    let answer = etcd.call_with(&keys.take(&campaign, me), ask).await?;
    Ok(if answer.succeeded {
        Campaigned::Won { revision: answer.header.map_or(0, |header| header.revision) }
    } else if is_restored(&answer) {
        tracing::debug!("a store's global names are not taken while a restore goes on");
        Campaigned::Failed
    } else {
        let (revision, held, former) = read_keys(answer);
        Campaigned::Lost { revision, held, former }
    })
}

/// Whether a transaction that did not take the keys has found the third one, of a restore.
fn is_restored(answer: &TxnResponse) -> bool {
    let restore = answer.responses.get(2).and_then(|found| found.response.as_ref());
    matches!(restore, Some(OpResponse::Range(found)) if !found.kvs.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::elect::Life;
    use crate::etcd::message::{RangeResponse, ResponseOp};

    fn keys() -> Keys {
        let [holder, former, restore] = [&b"p/s/h"[..], b"p/s/hs", b"p/=restoring"].map(Bytes::from_static);
        Keys { holder, former, restore }
    }

    #[test]
    fn the_names_are_taken_where_no_restore_goes_on() {
        let pid = Pid { node: "a@h".into(), id: 1, serial: 2, creation: 3 };
        let campaign = Campaign { question: 1, lease: 9, held_was: 0, former_was: 5, former: Vec::new() };
        let take = keys().take(&campaign, &pid);
        let of_restore =
            Compare::new(Bytes::from_static(b"p/=restoring"), CompareResult::Equal, Compared::ModRevision(0));
        assert!(take.compare.contains(&of_restore), "{take:?}");
        assert_eq!((take.compare.len(), take.success.len(), take.failure.len()), (3, 2, 3));
        let found = |kvs: [usize; 3]| TxnResponse {
            responses: kvs
                .map(|count| RangeResponse {
                    kvs: vec![KeyValue::default(); count],
                    ..RangeResponse::default()
                })
                .map(|found| ResponseOp { response: Some(OpResponse::Range(found)) })
                .into(),
            ..TxnResponse::default()
        };
        assert!(is_restored(&found([0, 0, 1])) && !is_restored(&found([1, 1, 0])));
        assert!(!is_restored(&TxnResponse::default()));
    }

    #[test]
    fn changes_are_told_as_what_they_are_and_others_keys_are_not() {
        let keys = keys();
        let pid = Pid { node: "a@h".into(), id: 1, serial: 2, creation: 3 };
        let event = |kind: EventKind, key: &'static [u8], value: Vec<u8>| {
            let kv = KeyValue {
                key: Bytes::from_static(key),
                value: value.into(),
                mod_revision: 9,
                lease: 4,
                ..KeyValue::default()
            };
            changed(&keys, Event { r#type: kind.into(), kv: Some(kv), prev_kv: None })
        };
        let told = event(EventKind::Put, b"p/s/h", write_holder(&pid));
        let Some(Input::Held { revision: 9, held: Some(Held { mod_revision: 9, by: Some(by), lease: 4 }) }) =
            told
        else {
            panic!("{told:?}")
        };
        assert_eq!(by, pid);
        let told = event(EventKind::Delete, b"p/s/h", Vec::new());
        assert!(matches!(told, Some(Input::Held { revision: 9, held: None })), "{told:?}");
        let told = event(EventKind::Put, b"p/s/h", b"else".to_vec());
        assert!(matches!(told, Some(Input::Held { held: Some(Held { by: None, .. }), .. })), "{told:?}");
        let told = event(EventKind::Put, b"p/s/hs", write_former(&[Life::of(&pid)]));
        let Some(Input::Former { former: Former { mod_revision: 9, lives }, .. }) = told else {
            panic!("{told:?}")
        };
        assert_eq!(lives, [Life::of(&pid)]);
        let told = event(EventKind::Delete, b"p/s/hs", Vec::new());
        assert!(
            matches!(&told, Some(Input::Former { former, .. }) if *former == Former::default()),
            "{told:?}"
        );
        assert!(event(EventKind::Put, b"p/s/ha", Vec::new()).is_none());
        assert!(changed(&keys, Event::default()).is_none());
        assert_eq!(read_keys(TxnResponse::default()), (0, None, Former::default()));
    }
}
