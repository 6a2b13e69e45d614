//! A scan of a store on disk: it remembers the engine's key that it has come to, and looks at the store anew for each batch.

use std::sync::Arc;

use fjall::Slice;

use super::error::engine_error;
use super::record::{self, Found};
use super::writer::Shared;
use crate::store::{Batch, Scan, ScanDone, Shows, StoreError};

/// A batch has no more entries than this, and about so many bytes were read for it.
const BATCH_ENTRIES_MAX: usize = 4096;
const BATCH_BYTES_MAX: usize = 1 << 20;

pub(super) struct DiskScan {
    shared: Arc<Shared>,
    store: u32,
    part: Option<usize>,
    shows: Shows,
    /// The engine's key of the last entry that was shown.
    after: Option<Vec<u8>>,
    has_begun: bool,
}

impl DiskScan {
    pub(super) const fn new(shared: Arc<Shared>, store: u32, part: Option<usize>, shows: Shows) -> Self {
        Self { shared, store, part, shows, after: None, has_begun: false }
    }

    fn batch(&mut self) -> Result<Batch, StoreError> {
        let mut batch = Batch::default();
        if !std::mem::replace(&mut self.has_begun, true) {
            // Before the entries are looked at, so that none is written too late for the one and too early for the other.
            for key in self.shared.waiting_keys(self.store) {
                if self.part.is_none_or(|part| record::part_of(&key) == part) {
                    batch.push(&key, None);
                }
            }
        }
        let view = self.shared.view()?;
        let entries = match &self.after {
            None => view.entries_of(self.store, self.part),
            Some(after) => view.entries_behind(self.store, self.part, after),
        };
        let mut read = 0;
        for entry in entries.ok_or(StoreError::Io("eio"))? {
            let wants_value = |key: &Slice| self.shows != Shows::Keys || record::is_digest(key);
            let (key, entry) = entry.into_inner_if(wants_value).map_err(|error| engine_error(&error))?;
            match entry {
                None => batch.push(record::plain_key(&key), None),
                Some(entry) => {
                    read += entry.len();
                    let found = Found::new(&key, entry).ok_or(StoreError::Io("damaged"))?;
                    let (value, key) =
                        (found.value(), found.long_key().unwrap_or_else(|| record::plain_key(&key)));
                    match self.shows {
                        Shows::Keys => batch.push(key, None),
                        Shows::Copies => batch.push_copy(key, value.copy),
                        Shows::Pairs => batch.push(key, Some(value)),
                    }
                }
            }
            if batch.len() >= BATCH_ENTRIES_MAX || batch.bytes().max(read) >= BATCH_BYTES_MAX {
                self.after = Some(key.to_vec());
                return Ok(batch);
            }
        }
        batch.is_last = true;
        Ok(batch)
    }
}

impl Scan for DiskScan {
    fn next_batch(&mut self, done: ScanDone) {
        let batch = self.batch();
        if let Err(error) = &batch {
            tracing::error!(%error, "a store could not be read to its end");
        }
        done(batch);
    }
}
