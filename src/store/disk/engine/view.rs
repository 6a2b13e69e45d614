//! The engine as it was at one moment.

use std::ffi::OsStr;
use std::ops::Bound;
use std::sync::Arc;

use ahash::AHashMap;
use fjall::{Database, Keyspace, Readable, Snapshot};

use super::super::ends::Space;
use super::super::record::{self, Found};
use super::super::staged::Held;
use super::meta_key;

/// What the engine held at one moment.
pub(in crate::store::disk) struct View {
    pub(super) snapshot: Snapshot,
    pub(super) meta: Keyspace,
    pub(super) stores: AHashMap<u32, Space>,
    pub(super) _db: Database,
    pub(super) _viewer: Arc<()>,
}

impl View {
    /// The entries of a store, or of one part of it.
    pub(in crate::store::disk) fn entries_of(&self, id: u32, part: Option<usize>) -> Option<fjall::Iter> {
        let (snapshot, keyspace) = (&self.snapshot, &self.stores.get(&id)?.entries);
        Some(match part.map(record::part) {
            None => snapshot.iter(keyspace),
            Some((from, Some(to))) => snapshot.range(keyspace, from.to_be_bytes()..to.to_be_bytes()),
            Some((from, None)) => snapshot.range(keyspace, from.to_be_bytes()..),
        })
    }

    /// The same behind one of the engine's keys.
    pub(in crate::store::disk) fn entries_behind(
        &self,
        id: u32,
        part: Option<usize>,
        after: &[u8],
    ) -> Option<fjall::Iter> {
        let (snapshot, keyspace) = (&self.snapshot, &self.stores.get(&id)?.entries);
        let to = part.and_then(|part| record::part(part).1);
        let to = to.map_or(Bound::Unbounded, |to| Bound::Excluded(to.to_be_bytes().to_vec()));
        Some(snapshot.range(keyspace, (Bound::Excluded(after.to_vec()), to)))
    }

    /// What a key had at that moment.
    pub(in crate::store::disk) fn read(&self, id: u32, key: &[u8]) -> fjall::Result<Option<Found>> {
        let Some(store) = self.stores.get(&id) else { return Ok(None) };
        let engine_key = record::engine_key(key);
        let entry = self.snapshot.get(&store.entries, &engine_key)?;
        record::found(&engine_key, key, entry)
    }

    pub(in crate::store::disk) fn names(&self) -> fjall::Result<Vec<(u32, Vec<String>)>> {
        let mut found = Vec::new();
        for pair in self.snapshot.prefix(&self.meta, "s") {
            let (key, names) = pair.into_inner()?;
            let Some(id) = key.get(1..).and_then(|id| id.try_into().ok()).map(u32::from_be_bytes) else {
                continue;
            };
            let names = String::from_utf8_lossy(&names).lines().map(str::to_owned).collect();
            found.push((id, names));
        }
        Ok(found)
    }

    /// Where the engine keeps a store, by the name of that folder.
    pub(in crate::store::disk) fn folder_of(&self, id: u32) -> Option<&OsStr> {
        self.stores.get(&id)?.entries.path().file_name()
    }

    pub(in crate::store::disk) fn held(&self, id: u32) -> fjall::Result<Held> {
        let found = self.snapshot.get(&self.meta, meta_key(b't', id))?;
        let number = |at: usize| {
            let bytes = found.as_ref()?.get(at..at + 8)?;
            bytes.try_into().ok().map(u64::from_be_bytes)
        };
        // An older version writes none.
        let deadlines = number(24).map_or_else(|| self.ends_of(id), Ok)?;
        let number = |at| number(at).unwrap_or(0);
        Ok(Held { entries: number(0), bytes: number(8), revision: number(16), deadlines })
    }

    /// Number of ends that are kept of a store.
    pub(in crate::store::disk) fn ends_of(&self, id: u32) -> fjall::Result<u64> {
        self.stores.get(&id).map_or(Ok(0), |store| store.count(&self.snapshot))
    }

    /// Number of entries of a store, and bytes of their keys and values.
    pub(in crate::store::disk) fn totals(&self, id: u32) -> fjall::Result<(u64, u64)> {
        let Held { entries, bytes, .. } = self.held(id)?;
        Ok((entries, bytes))
    }

    /// Number of entries of all stores.
    pub(in crate::store::disk) fn entries(&self) -> fjall::Result<u64> {
        self.stores.keys().map(|id| self.totals(*id).map(|(entries, _)| entries)).sum()
    }

    /// The notes of a store, with their names.
    pub(in crate::store::disk) fn notes(
        &self,
        id: u32,
    ) -> impl Iterator<Item = fjall::Result<(Vec<u8>, Vec<u8>)>> {
        let prefix = meta_key(b'n', id);
        let name_at = prefix.len();
        self.snapshot.prefix(&self.meta, prefix).map(move |pair| {
            let (key, note) = pair.into_inner()?;
            Ok((key.get(name_at..).unwrap_or_default().to_vec(), note.to_vec()))
        })
    }
}
