//! What a store keeps of itself, as the server asks for it.

use crate::store::{Store, StoreError, wait};

/// Reads a note at the start of a server, and waits for it; `None`: there is none, or the store keeps nothing.
pub(super) fn read<S: Store>(store: &S, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(notes) = store.notes() else { return Ok(None) };
    wait(|done| notes.read(name, done)).unwrap_or(Err(StoreError::Io("terminated")))
}

/// Keeps a note. Gives whether the store keeps such things, and answers then.
pub(super) fn write<S: Store>(
    store: &S,
    name: &str,
    note: &[u8],
    done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
) -> bool {
    let Some(notes) = store.notes() else { return false };
    notes.write(name, note, Box::new(done));
    true
}
