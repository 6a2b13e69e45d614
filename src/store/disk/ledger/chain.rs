//! A number of our own in every batch, by which a batch that is missing, moved or altered is seen.
//!
//! ```text
//! "b" -> number:64, engine's number at least:64, folder:64      (big-endian, in the keyspace of what is known of stores)
//! ```
//!
//! The engine numbers its batches too, but leaves gaps, and has its number outside of the batch's checksum: a bit of it that
//! flips has a batch left out, or give an old value back. Ours ascends by one, over all journals. The folder's own number,
//! which nobody outside can know, tells a batch from bytes of a value that look like one.

use std::fmt;

/// The key that it stands under: shorter than every other one.
pub(in crate::store::disk) const KEY: [u8; 1] = *b"b";
/// Bytes of it.
pub(in crate::store::disk) const BYTES: usize = 24;
/// The engine's threads take numbers too, between the moment that a batch is made and its writing: never so many.
const ENGINE_AHEAD_MAX: u64 = 1024;

/// What a batch says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::disk) struct Stamp {
    /// 1 for the folder's first batch.
    pub number: u64,
    /// The engine gives the batch this number, or one of the next.
    pub engine_number: u64,
    /// Drawn when the folder was made.
    pub folder: u64,
}

impl Stamp {
    pub(in crate::store::disk) fn to_bytes(self) -> [u8; BYTES] {
        let mut bytes = [0; BYTES];
        bytes[..8].copy_from_slice(&self.number.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.engine_number.to_be_bytes());
        bytes[16..].copy_from_slice(&self.folder.to_be_bytes());
        bytes
    }

    pub(in crate::store::disk) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_be_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let stamp = Self { number: number(0)?, engine_number: number(8)?, folder: number(16)? };
        (bytes.len() == BYTES).then_some(stamp)
    }
}

/// A batch of a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::disk) struct Batch {
    /// The engine's number.
    pub number: u64,
    /// Its length.
    pub bytes: u64,
    /// `None`: an older kvnode wrote it.
    pub stamp: Option<Stamp>,
}

/// The batches of all journals so far, the oldest first.
#[derive(Clone, Copy, Debug)]
pub(in crate::store::disk) struct Chain {
    folder: u64,
    /// The last one's number.
    last: Option<u64>,
    /// The last one's number of the engine.
    last_of_engine: Option<u64>,
}

/// Why a whole batch cannot stand where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store::disk) enum Wrong {
    /// The engine's number is not what it was.
    EngineNumber { number: u64 },
    /// It is not the next one.
    Gap { last: u64, number: u64 },
    /// One without a number of ours, behind one with it.
    NoNumber { last: u64 },
    /// It was written in another folder.
    OfAnotherFolder,
}

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EngineNumber { number } => {
                write!(f, "the batch there says that its number is {number}, which it is not")
            }
            Self::Gap { last, number } if *number > last + 1 => {
                write!(f, "batch {number} follows batch {last}: {} in between are missing", number - last - 1)
            }
            Self::Gap { last, number } => {
                write!(f, "batch {number} follows batch {last}: it does not belong there")
            }
            Self::NoNumber { last } => write!(f, "a batch without a number follows batch {last}"),
            Self::OfAnotherFolder => f.write_str("the batch there was written in another folder"),
        }
    }
}

impl Chain {
    /// No batch yet, of the folder with this number.
    pub(in crate::store::disk) const fn new(folder: u64) -> Self {
        Self { folder, last: None, last_of_engine: None }
    }

    /// The number of the last batch, where it has one.
    pub(in crate::store::disk) const fn last(&self) -> Option<u64> {
        self.last
    }

    /// Takes the next batch.
    pub(in crate::store::disk) fn take(&mut self, batch: &Batch) -> Result<(), Wrong> {
        let number = batch.number;
        if self.last_of_engine.is_some_and(|last| number <= last) {
            return Err(Wrong::EngineNumber { number });
        }
        match (batch.stamp, self.last) {
            (Some(stamp), _) if stamp.folder != self.folder => return Err(Wrong::OfAnotherFolder),
            (Some(stamp), Some(last)) if stamp.number != last.wrapping_add(1) => {
                return Err(Wrong::Gap { last, number: stamp.number });
            }
            (Some(stamp), _) => {
                let ahead = number.checked_sub(stamp.engine_number);
                if ahead.is_none_or(|ahead| ahead > ENGINE_AHEAD_MAX) {
                    return Err(Wrong::EngineNumber { number });
                }
                self.last = Some(stamp.number);
            }
            (None, Some(last)) => return Err(Wrong::NoNumber { last }),
            // From before there were numbers.
            (None, None) => {}
        }
        self.last_of_engine = Some(number);
        Ok(())
    }

    /// Whether what was read behind something unreadable is a later batch of the folder, and not a part of a value.
    pub(in crate::store::disk) fn is_later(&self, batch: &Batch) -> bool {
        match batch.stamp {
            Some(stamp) => stamp.folder == self.folder && self.last.is_none_or(|last| stamp.number > last),
            None => self.last.is_none() && self.last_of_engine.is_some_and(|last| batch.number > last),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(number: u64, engine_number: u64) -> Batch {
        let stamp = Some(Stamp { number, engine_number, folder: 7 });
        Batch { number: engine_number + 1, bytes: 100, stamp }
    }

    #[test]
    fn batches_follow_each_other_by_one_and_the_engines_numbers_ascend() {
        let mut chain = Chain::new(7);
        let old = Batch { number: 3, bytes: 1, stamp: None };
        assert_eq!(chain.take(&old), Ok(()));
        assert!(chain.is_later(&Batch { number: 4, ..old }) && !chain.is_later(&old));
        assert_eq!(chain.take(&batch(5, 10)), Ok(()), "the first number may be any");
        assert_eq!(chain.take(&batch(6, 14)), Ok(()));
        assert_eq!(chain.last(), Some(6));
        assert_eq!(chain.take(&batch(8, 20)), Err(Wrong::Gap { last: 6, number: 8 }));
        assert_eq!(chain.take(&batch(6, 20)), Err(Wrong::Gap { last: 6, number: 6 }));
        assert_eq!(chain.take(&batch(7, 14)), Err(Wrong::EngineNumber { number: 15 }));
        assert_eq!(chain.take(&Batch { number: 30, ..old }), Err(Wrong::NoNumber { last: 6 }));
        for number in [20, 21 + ENGINE_AHEAD_MAX + 1, u64::MAX] {
            let altered = Batch { number, ..batch(7, 21) };
            assert_eq!(chain.take(&altered), Err(Wrong::EngineNumber { number }));
        }
        let mut other = batch(7, 20);
        other.stamp.as_mut().unwrap().folder = 8;
        assert_eq!(chain.take(&other), Err(Wrong::OfAnotherFolder));
        assert!(!chain.is_later(&other) && !chain.is_later(&batch(6, 20)) && chain.is_later(&batch(9, 20)));
    }

    #[test]
    fn a_stamp_is_read_as_it_was_written() {
        let stamp = Stamp { number: 1, engine_number: u64::MAX - 1, folder: 3 };
        assert_eq!(Stamp::from_bytes(&stamp.to_bytes()), Some(stamp));
        assert_eq!(Stamp::from_bytes(&[0; BYTES - 1]), None);
        assert_eq!(Stamp::from_bytes(&[0; BYTES + 1]), None);
    }
}
