//! Revisions: every entry has the number of the write that its value is of. A caller that has read one can ask for a change
//! on the condition that the key has not been written since.
//!
//! A store counts, and a key that is put gets the count after this write. What comes from another store, in a copy or as a
//! slave, keeps the revision that it has there. A key's revision never goes back:
//!
//! | after | the next revision is higher than |
//! | --- | --- |
//! | a deletion | that one's number: it counts too |
//! | a write, a copy or a repair of a primary | all that these have brought ([`Value::revision`](super::Value::revision)), and all that the primary has counted by the time that it asks what its slave has ([`Store::raise_revision`](super::Store::raise_revision)) |
//! | a promotion | all of these by [`LEAP`]: the former primary may have given numbers to writes that never came here, and no other write is to have one of them |
//! | a restart | all before: the disk keeps the count in the batch of the write. (A store in memory that is started again is a new one) |
//! | a restart of a folder whose writes were not all synced before they were answered | all that is there by [`LEAP`]: a power cut may have taken writes |
//! | a restore | all that was in the store when the backup was made by [`LEAP`]: the store may have gone on then |
//!
//! With a write that is lost its revision is lost too: the key then has an older value, with the revision of that.

/// The highest one: a memory store keeps seven bytes.
pub const REVISION_MAX: u64 = (1 << 56) - 1;

/// A count is raised no further than this, whatever another store says: what is left above is for the store's own writes, more
/// than any machine makes.
pub const REVISION_RAISED_MAX: u64 = REVISION_MAX / 2;

/// The revision of what was written before there were revisions. A store's first write has a higher one.
pub const REVISION_UNKNOWN: u64 = 1;

/// More writes than any store has given numbers to that another does not know of: four billion. There is room for eight million
/// such leaps.
pub const LEAP: u64 = 1 << 32;

/// The revision of a write: that which it comes with, or the next one behind `last` where it comes with none (0).
#[cfg(feature = "disk")]
pub(super) const fn given(of_value: u64, last: u64) -> u64 {
    if of_value == 0 { behind(last) } else { of_value }
}

/// What a store has counted to once such a write is done.
#[cfg(feature = "disk")]
pub(super) const fn counted(of_value: u64, last: u64) -> u64 {
    let (next, raised) =
        (behind(last), if of_value < REVISION_RAISED_MAX { of_value } else { REVISION_RAISED_MAX });
    if raised > next { raised } else { next }
}

#[cfg(feature = "disk")]
const fn behind(last: u64) -> u64 {
    if last < REVISION_MAX { last + 1 } else { REVISION_MAX }
}

#[cfg(all(test, feature = "disk"))]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_the_writes_own_or_the_next_and_the_count_never_goes_back() {
        assert_eq!((given(0, 7), counted(0, 7)), (8, 8));
        assert_eq!((given(3, 7), counted(3, 7)), (3, 8));
        assert_eq!((given(20, 7), counted(20, 7)), (20, 20));
        assert_eq!((given(REVISION_MAX, 7), counted(REVISION_MAX, 7)), (REVISION_MAX, REVISION_RAISED_MAX));
        assert_eq!((given(0, REVISION_MAX), counted(0, REVISION_MAX)), (REVISION_MAX, REVISION_MAX));
    }
}
