//! The record that a store keeps of itself ([`Membership`]): read once at the start, and written whole.

use super::server::KeyValueServer;
use crate::replica::Membership;
use crate::replica::membership::Former;
use crate::store::{Store, StoreError, wait};

/// Reads the record at the start of a server, and waits for it. Gives it with whether it is kept as it was before there was one
/// record; the default where there is none, or where the store keeps nothing.
pub(super) fn read<S: Store>(store: &S) -> Result<(Membership, bool), StoreError> {
    if let Some(note) = read_note(store, Membership::NOTE)? {
        return Ok((Membership::read(&note).ok_or(StoreError::Io("damaged"))?, false));
    }
    let mut notes = Vec::new();
    for name in Former::NOTES {
        notes.push(read_note(store, name)?);
    }
    let [rank, is_slave, position, slaves, names] =
        [0, 1, 2, 3, 4].map(|at: usize| notes.get(at)?.as_deref());
    let former = Former { rank, is_slave, position, slaves, names };
    let membership = former.carried_over().map_err(|_| StoreError::Io("damaged"))?;
    Ok((membership, notes.iter().any(Option::is_some)))
}

fn read_note<S: Store>(store: &S, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(notes) = store.notes() else { return Ok(None) };
    wait(|done| notes.read(name, done)).unwrap_or(Err(StoreError::Io("terminated")))
}

impl<S: Store> KeyValueServer<S> {
    /// What was kept, or why it could not be read: then nothing is kept over it.
    pub(super) fn noted(store: &S) -> Result<Membership, StoreError> {
        let (membership, is_former) = read(store).inspect_err(|error| {
            tracing::error!(%error, "what the store kept of itself cannot be read: it is as one that was nothing but itself");
        })?;
        if is_former && let Some(notes) = store.notes() {
            let kept = |result| {
                if let Err(error) = result {
                    tracing::error!(%error, "what the store kept of itself is not carried over: it is read again as it was");
                }
            };
            notes.write(Membership::NOTE, &membership.note(), Box::new(kept));
        }
        Ok(membership)
    }
}

#[cfg(all(test, feature = "disk"))]
mod tests {
    use super::*;
    use crate::distribution::ServerRef;
    use crate::replica::{KnownSlave, Position, TermRole};
    use crate::store::{Disk, DiskStore, MemoryStore, SyncPolicy};

    fn keep(store: &DiskStore, name: &str, note: &[u8]) {
        let notes = store.notes().expect("a disk keeps notes");
        wait(|done| notes.write(name, note, done)).expect("it answers").expect("it is kept");
    }

    #[test]
    fn the_notes_of_before_are_read_once_and_memory_keeps_none() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
        let store = disk.store(&["global:a".into()]).unwrap();
        assert_eq!(read(&store), Ok((Membership::default(), false)));
        keep(&store, "rank", b"h\x05a\x03a\x07w\x03ownw\x05falsew\x05false");
        keep(&store, "position", b"h\x02a\x09a\x0c");
        keep(&store, "slaves", b"l\x00\x00\x00\x01h\x02w\x06globalw\x01bj");
        let carried = Membership {
            term: 3,
            promoted: 7,
            role: TermRole::Promoted,
            position: Some(Position { primary: 9, applied: 12 }),
            slaves: vec![KnownSlave { name: ServerRef::global("b"), node: None }],
            ..Membership::default()
        };
        assert_eq!(read(&store), Ok((carried.clone(), true)));
        assert_eq!(KeyValueServer::noted(&store), Ok(carried.clone()));
        // From here on it is one note: those are looked at no more.
        keep(&store, "slaves", b"j");
        assert_eq!(read(&store), Ok((carried, false)));
        keep(&store, Membership::NOTE, b"h\x00");
        assert_eq!(read(&store), Err(StoreError::Io("damaged")));
        assert_eq!(read(&MemoryStore::default()), Ok((Membership::default(), false)));
    }
}
