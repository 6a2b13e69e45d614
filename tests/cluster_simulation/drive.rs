//! A store that outlives its node, as one on disk or on another machine does: what is asked of it is answered later, in order or
//! not, and what was not carried out when the node ends is lost. A copy of a primary comes into it as it is.

use std::collections::BTreeMap;

use kvnode::replica::{Membership, TermRole};

pub use super::deferred::Deferred as Drive;
use super::deferred::Held;
use super::shelf::{Data, Look, number, term};

fn numbers(held: &BTreeMap<Vec<u8>, Held>) -> Data {
    held.iter().map(|(key, held)| (number(key), number(&held.bytes))).collect()
}

/// What it holds, but for what is being written.
pub fn at_rest(drive: &Drive) -> Data {
    numbers(&drive.at_rest())
}

/// What a key has, also while something of it is under way.
pub fn present(drive: &Drive, key: u64) -> Option<u64> {
    drive.present(&term(key)).map(|held| number(&held.bytes))
}

/// Whether its store comes back as a slave, which waits for its primary: what callers write there meanwhile is kept elsewhere when
/// that copies over it.
pub fn waits_for_primary(drive: &Drive) -> bool {
    let kept = kept(drive);
    kept.was_slave || kept.position.is_some() || kept.term > 0 && kept.role == TermRole::Follows
}

pub fn kept(drive: &Drive) -> Membership {
    let note = drive.newest_note(Membership::NOTE);
    note.map(|note| Membership::read(&note).expect("it is read as it was kept")).unwrap_or_default()
}

impl Look for Drive {
    fn changes(&self) -> u64 {
        Self::changes(self)
    }

    fn data(&self, seq: u64) -> Data {
        self.with_shown(seq, numbers)
    }

    fn revisions(&self) -> Data {
        self.at_rest().iter().map(|(key, held)| (number(key), held.revision)).collect()
    }

    fn ends(&self) -> Data {
        self.at_rest().iter().map(|(key, held)| (number(key), held.deadline)).collect()
    }

    fn take_replaced(&self) -> Option<Data> {
        None
    }
}
