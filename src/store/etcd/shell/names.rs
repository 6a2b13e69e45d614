//! Which store has a name.

use super::not_opened;
use crate::etcd::message::{Bytes, Compare, Effect, Op, OpResponse, PutRequest, RangeRequest, TxnRequest};
use crate::etcd::{Ask, Error, Etcd};
use crate::store::OpenError;
use crate::store::etcd::layout::{claim_key, escaped, name_key};

/// Names that a store may have.
const NAMES_MAX: usize = 100;

/// The id of the store that has one of these names, and has all of them then.
pub(in crate::store::etcd) fn id_of(
    etcd: &Etcd,
    prefix: &str,
    names: &[String],
) -> Result<String, OpenError> {
    let refused = |reason: String| OpenError::Etcd { reason };
    let Some(first) = names.first().filter(|_| names.len() <= NAMES_MAX) else {
        return Err(refused(format!("a store has between one name and {NAMES_MAX}")));
    };
    let keys: Vec<Bytes> = names.iter().map(|name| name_key(prefix, name)).collect();
    let claim = claim_key(prefix);
    let read = |key: &Bytes| Op::Range(RangeRequest { key: key.clone(), ..RangeRequest::default() });
    // The claim first: the names stand in the answer as they stand here.
    let look = TxnRequest {
        success: [&claim].into_iter().chain(&keys).map(|key| read(key).into()).collect(),
        ..TxnRequest::default()
    };
    loop {
        let found = smol::block_on(etcd.call(&look)).map_err(not_opened)?;
        let mut found = found.responses.into_iter().map(|found| match found.response {
            Some(OpResponse::Range(found)) => found.kvs.into_iter().next().map(|kv| kv.value),
            _ => None,
        });
        if found.next().flatten().is_some() {
            return Err(OpenError::EtcdAway {
                reason: format!(
                    "a restore of the stores below {prefix} goes on, or was interrupted: run `kvnode restore` again"
                ),
            });
        }
        let found: Vec<Option<Bytes>> = found.collect();
        let mut ids: Vec<&Bytes> = found.iter().flatten().collect();
        ids.sort_unstable();
        ids.dedup();
        let id = match ids[..] {
            [] => escaped(first),
            [id] => String::from_utf8_lossy(id).into_owned(),
            _ => return Err(OpenError::Names { names: names.to_vec() }),
        };
        let missing: Vec<&Bytes> =
            keys.iter().zip(&found).filter(|(_, id)| id.is_none()).map(|(key, _)| key).collect();
        if missing.is_empty() {
            return Ok(id);
        }
        let put = |key: &Bytes| {
            Op::Put(PutRequest { key: key.clone(), value: id.clone().into(), ..PutRequest::default() })
        };
        let absent = [&claim].into_iter().chain(missing.iter().copied());
        let name = TxnRequest {
            compare: absent.map(|key| Compare::is_absent(key.clone())).collect(),
            success: missing.iter().map(|key| put(key).into()).collect(),
            ..TxnRequest::default()
        };
        let ask = Ask { effect: Some(Effect::Guarded), ..Ask::default() };
        // Another process may have been faster, or the outcome is unknown: the next look tells.
        match smol::block_on(etcd.call_with(&name, ask)) {
            Ok(_) | Err(Error::Unknown { .. }) => {}
            Err(error) => return Err(not_opened(error)),
        }
    }
}
