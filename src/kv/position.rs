//! The place of a slave among its primary's writes, kept over a restart of its node: so it is sent what it missed, and not
//! everything.
//!
//! It is kept when the primary asks, behind the writes that came before and before the answer. So it is never ahead of what the
//! store holds, also where a power cut has taken some of that, and what the primary was told it is not behind: a primary that
//! is told of less than it was told before copies everything.

use super::notes;
use super::server::KeyValueServer;
use crate::etf::{TermView, encode};
use crate::store::{Done, Notes, Store};

/// The name of the note.
const POSITION_NOTE: &str = "position";

/// A primary's incarnation, and the number of its last write that is here.
pub(super) type Position = (u64, u64);

/// What was kept last; `None`: the store was no slave, or keeps nothing.
pub(super) fn kept<S: Store>(store: &S) -> Option<Position> {
    let note = match notes::read(store, POSITION_NOTE) {
        Ok(note) => note?,
        Err(error) => {
            // It costs a copy.
            tracing::warn!(%error, "how far the store had come as a slave could not be read");
            return None;
        }
    };
    let [incarnation, applied] = TermView::parse(&note).ok()?.as_tuple::<2>()?;
    Some((incarnation.as_unsigned()?, applied.as_unsigned()?))
}

/// Keeps a position, and answers later.
pub(super) fn keep(notes: &dyn Notes, (incarnation, applied): Position, done: Done) {
    let note = encode(|w| _ = w.tuple(2).unsigned(incarnation).unsigned(applied));
    notes.write(POSITION_NOTE, &note, done);
}

impl<S: Store> KeyValueServer<S> {
    /// What the store holds is nobody's from here on: it has a position no more.
    pub(super) fn forget_position(&self) {
        let note = encode(|w| _ = w.atom("none"));
        notes::write(self.store(), POSITION_NOTE, &note, |result| {
            if let Err(error) = result {
                tracing::error!(%error, "the place among the former primary's writes is not forgotten");
            }
        });
    }
}

#[cfg(all(test, feature = "disk"))]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::store::{Disk, MemoryStore, SyncPolicy};

    #[test]
    fn a_position_is_read_as_it_was_kept_and_memory_keeps_none() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::open(dir.path(), SyncPolicy::Never, u64::MAX).unwrap();
        let store = disk.store(&["global:a".into()]).unwrap();
        assert_eq!(kept(&store), None);
        let (tell, told) = mpsc::channel();
        keep(&store, (u64::MAX, 7), Box::new(move |result| tell.send(result).unwrap()));
        told.recv().unwrap().unwrap();
        assert_eq!(kept(&store), Some((u64::MAX, 7)));
        assert_eq!(kept(&MemoryStore::default()), None);
    }
}
