//! Reads: at once, or behind the writes that wait.

use std::sync::atomic::Ordering;

use super::super::error::engine_error;
use super::super::many::Reading;
use super::super::queue::Later;
use super::super::record::Found;
use super::Shared;
use crate::store::{Due, NoteDone, ReadDone, ReadManyDone, StoreError};

/// As many reads as may wait for writes.
const TOO_MANY: StoreError = StoreError::Io("system_limit");

impl Shared {
    /// See [`Queue::read_later`](super::Queue::read_later). Gives whether it is answered there; that is so for one too many as well.
    pub(in crate::store::disk) fn read_later(
        &self,
        store: u32,
        key: &[u8],
        done: impl FnOnce() -> ReadDone,
    ) -> bool {
        // A caller that has been answered, or has sent a write on this thread, sees it in the number.
        if !self.has_waiting() {
            return false;
        }
        let later = self.queue.lock().read_later(store, key, done);
        match later {
            Later::No => return false,
            Later::Waits => {}
            Later::TooMany(done) => done()(Err(TOO_MANY)),
        }
        true
    }

    pub(in crate::store::disk) fn read(&self, store: u32, key: &[u8]) -> Result<Option<Found>, StoreError> {
        let engine = self.engine.read();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        engine.read(store, key).map_err(|error| {
            tracing::error!(dir = %self.dir.path.display(), ?error, "an entry could not be read");
            engine_error(&error)
        })
    }

    /// See [`Queue::read_many_later`](super::Queue::read_many_later). Gives the same as [`read_later`](Self::read_later).
    pub(in crate::store::disk) fn read_many_later(
        &self,
        store: u32,
        keys: &[&[u8]],
        done: impl FnOnce() -> ReadManyDone,
    ) -> bool {
        if !self.has_waiting() {
            return false;
        }
        let later = self.queue.lock().read_many_later(store, keys, done);
        match later {
            Later::No => return false,
            Later::Waits => {}
            Later::TooMany(done) => done()(Err(TOO_MANY)),
        }
        true
    }

    /// Reads several keys as they are at one moment.
    ///
    /// # Errors
    /// The engine's; or they are too much together.
    pub(in crate::store::disk) fn read_many(
        &self,
        store: u32,
        keys: &[impl AsRef<[u8]>],
    ) -> Result<Vec<Option<Found>>, StoreError> {
        let view = self.view()?;
        let mut read = Reading::default();
        let found = keys.iter().map(|key| {
            let found = view.read(store, key.as_ref()).map_err(|error| {
                tracing::error!(dir = %self.dir.path.display(), ?error, "entries could not be read");
                engine_error(&error)
            })?;
            read.take(found)
        });
        found.collect()
    }

    /// Reads a note: at once, or behind the writes of it that wait.
    pub(in crate::store::disk) fn read_note(&self, store: u32, name: &str, done: NoteDone) {
        let mut done = Some(done);
        if self.waiting.load(Ordering::Acquire) > 0 {
            let later = || done.take().unwrap_or_else(|| Box::new(|_| {}));
            self.queue.lock().read_note_later(store, name, later);
        }
        if let Some(done) = done {
            done(self.note(store, name.as_bytes()));
        }
    }

    pub(super) fn note(&self, store: u32, name: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let engine = self.engine.read();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        engine.note(store, name).map_err(|error| engine_error(&error))
    }

    /// See [`Engine::due`].
    pub(in crate::store::disk) fn due(&self, store: u32, now: u64, max: usize) -> Result<Due, StoreError> {
        let engine = self.engine.read_recursive();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        engine.due(store, now, max).map_err(|error| engine_error(&error))
    }

    /// See [`Engine::next_due`].
    pub(in crate::store::disk) fn next_due(&self, store: u32) -> Result<Option<u64>, StoreError> {
        let engine = self.engine.read_recursive();
        let engine = engine.as_ref().ok_or(StoreError::Io("eio"))?;
        engine.next_due(store).map_err(|error| engine_error(&error))
    }
}
