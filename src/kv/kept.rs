//! Write failures of a deferred store, reported without the follower's lock.
//!
//! A store on disk reports them on its own thread, while the connection that brought the write may hold the follower's lock and
//! wait for room in the store's queue: so this is shared without a lock.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use crate::log::OnceFlag;
use crate::replica::Refusal;
use crate::store::StoreError;

const NOTHING: u8 = 0;
const NO_SPACE: u8 = 1;
const DISK: u8 = 2;
const TOO_LARGE: u8 = 3;

/// What became of a primary's writes, as far as the store has said.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Why a write was not kept, until the primary is told.
    to_tell: AtomicU8,
    /// The same until the follower knows.
    to_note: AtomicU8,
    /// The log has it.
    logged: OnceFlag,
    /// The number that the primary was last told, with everything before it kept.
    sure: AtomicU64,
    /// Sessions so far.
    sessions: AtomicU64,
}

impl Kept {
    /// A write was not kept. Gives whether that is to be logged: once until all is well again.
    pub(super) fn refuse(&self, error: &StoreError) -> bool {
        self.note(if refusal(error) == Refusal::NoSpace { NO_SPACE } else { DISK })
    }

    /// The same of a write that was not received.
    pub(super) fn refuse_skipped(&self) -> bool {
        self.note(TOO_LARGE)
    }

    fn note(&self, why: u8) -> bool {
        self.to_tell.store(why, Ordering::Release);
        self.to_note.store(why, Ordering::Release);
        self.logged.first()
    }

    /// What the primary is to be told. Told once.
    pub(super) fn take_to_tell(&self) -> Option<Refusal> {
        take(&self.to_tell)
    }

    /// The session that is under way, for [`take_to_tell_in`](Self::take_to_tell_in).
    pub(super) fn session(&self) -> u64 {
        self.sessions.load(Ordering::Acquire)
    }

    /// As [`take_to_tell`](Self::take_to_tell), for a question of this session: what was not kept in it is not known any more
    /// once another has begun.
    pub(super) fn take_to_tell_in(&self, session: u64) -> Option<Refusal> {
        if self.session() != session {
            return Some(Refusal::OtherSession);
        }
        self.take_to_tell()
    }

    /// What the follower is to know. Told once.
    pub(super) fn take_to_note(&self) -> Option<Refusal> {
        take(&self.to_note)
    }

    /// What was not kept so far is sent again: the primary is not told of it any more. It would hold back what takes room, and
    /// this store would not know that it lacks that.
    pub(super) fn sent_again(&self) {
        self.to_tell.store(NOTHING, Ordering::Release);
    }

    /// The primary is told that everything is kept up to this number, and, where that is so, that nothing is missing. Gives
    /// whether something was before, and was logged.
    pub(super) fn told(&self, seq: u64, caught_up: bool) -> bool {
        self.sure.store(seq, Ordering::Release);
        caught_up && self.logged.forget()
    }

    /// Everything up to this number is kept.
    pub(super) fn sure(&self) -> u64 {
        self.sure.load(Ordering::Acquire)
    }

    /// A session begins, in which nothing has come. What came before is kept up to this number.
    pub(super) fn begin(&self, sure: u64) {
        self.sessions.fetch_add(1, Ordering::AcqRel);
        self.to_tell.store(NOTHING, Ordering::Release);
        self.to_note.store(NOTHING, Ordering::Release);
        self.sure.store(sure, Ordering::Release);
    }
}

/// Why a store did not keep a write, as its primary is told.
pub(super) fn refusal(error: &StoreError) -> Refusal {
    if *error == StoreError::NoSpace { Refusal::NoSpace } else { Refusal::Disk }
}

fn take(why: &AtomicU8) -> Option<Refusal> {
    // Every write of a primary comes by here.
    if why.load(Ordering::Acquire) == NOTHING {
        return None;
    }
    match why.swap(NOTHING, Ordering::AcqRel) {
        NO_SPACE => Some(Refusal::NoSpace),
        DISK => Some(Refusal::Disk),
        TOO_LARGE => Some(Refusal::TooLarge),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_kept_is_told_once_and_logged_once_until_all_is_well() {
        let kept = Kept::default();
        assert!(!kept.told(5, true));
        assert!(kept.refuse(&StoreError::Io("eio")) && !kept.refuse(&StoreError::NoSpace));
        assert_eq!((kept.take_to_tell(), kept.take_to_tell()), (Some(Refusal::NoSpace), None));
        assert_eq!((kept.take_to_note(), kept.take_to_note()), (Some(Refusal::NoSpace), None));
        assert!(!kept.told(6, false) && !kept.refuse(&StoreError::NoSpace));
        assert!(kept.told(7, true) && kept.refuse(&StoreError::NoSpace));
        assert_eq!(kept.sure(), 7);
        assert!(kept.told(8, true) && kept.refuse_skipped());
        assert_eq!(kept.take_to_tell(), Some(Refusal::TooLarge));
        assert!(!kept.refuse_skipped());
        kept.sent_again();
        assert_eq!((kept.take_to_tell(), kept.take_to_note()), (None, Some(Refusal::TooLarge)));
        let session = kept.session();
        assert_eq!(kept.take_to_tell_in(session), None);
        kept.begin(3);
        assert_eq!((kept.take_to_tell(), kept.sure()), (None, 3));
        assert_eq!(kept.take_to_tell_in(session), Some(Refusal::OtherSession));
    }
}
