//! Compacts etcd's history, as long as its store's names are this process's. [`Compaction`] says when, and at which revision.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smol::Timer;

use super::compaction::{Compacted, Compaction, Due};
use super::now;
use crate::etcd::message::{Bytes, CompactionRequest, PutRequest, RangeRequest};
use crate::etcd::{Error, Etcd};
use crate::kv::KeyValueServer;
use crate::log::Once;
use crate::store::EtcdStore;

/// What it works on.
pub(super) struct Compactor {
    pub(super) etcd: Etcd,
    pub(super) server: Arc<KeyValueServer<EtcdStore>>,
    /// The node that does it.
    pub(super) node: Arc<str>,
    /// How long history is kept.
    pub(super) keep: Duration,
}

impl Compactor {
    /// Goes on until it is dropped.
    pub(super) async fn run(self) {
        let mut compaction = Compaction::new(self.keep);
        let mut said = Once::when_changed();
        loop {
            if let Err(error) = self.look(&mut compaction).await {
                let text = error.to_string();
                match error {
                    // It comes back, and others say that it is away.
                    Error::Unavailable { .. } | Error::Unknown { .. } | Error::LeaderLost => {
                        tracing::debug!(%error, "etcd's history is not compacted now");
                    }
                    _ if said.first(text) => tracing::warn!(
                        %error,
                        "etcd's history is not compacted, and grows; --etcd-compact off leaves that to others"
                    ),
                    _ => {}
                }
            }
            Timer::after(compaction.every()).await;
        }
    }

    async fn look(&self, compaction: &mut Compaction) -> Result<(), Error> {
        let store = self.server.store();
        let key: Bytes = [store.base(), b"c"].concat().into();
        let found = self.etcd.call(&RangeRequest { key: key.clone(), ..RangeRequest::default() }).await?;
        let now_at = found.header.map_or(0, |header| header.revision);
        compaction.saw(now_at, now());
        let noted = found.kvs.first().and_then(|kv| Compacted::read(&kv.value));
        // A holder before this one has come so far. (What etcd has not come to itself no holder has written.)
        let noted = noted.filter(|note| note.revision <= now_at);
        if let Some(note) = &noted {
            compaction.compacted(note.revision);
        }
        let unix_ms = match compaction.due(store.etcd_revision(), now()) {
            Due::Nothing => return Ok(()),
            // It moves watches on, and says when was compacted last.
            Due::Note => noted.map_or_else(unix_ms, |note| note.unix_ms),
            Due::Compact(revision) => {
                match self.etcd.call(&CompactionRequest { revision, physical: false }).await {
                    Ok(_) => tracing::debug!(revision, "etcd's history up to this revision is compacted"),
                    // By another, and further.
                    Err(Error::Compacted { .. }) => {}
                    Err(error) => return Err(error),
                }
                compaction.compacted(revision);
                unix_ms()
            }
        };
        let note = Compacted { unix_ms, revision: compaction.done(), node: self.node.to_string() };
        let put = PutRequest { key, value: note.write().into(), ..PutRequest::default() };
        match self.etcd.call(&put).await {
            Ok(_) | Err(Error::NoSpace) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a note for people says when it was written")]
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
