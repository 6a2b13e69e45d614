//! What is replicated: single writes, and the store that a repair reads.

use super::lineage::Lineage;
use crate::etf::Traits;

/// One write, as slaves are told of it.
#[derive(Clone, Copy, Debug)]
pub enum ReplicaWrite<'a> {
    /// `{:replicate_put, key, value}`
    Put {
        /// The encoded key.
        key: &'a [u8],
        /// The encoded value.
        value: &'a [u8],
        /// Of both.
        traits: Traits,
        /// The number of the write, by which its callers tell it from others: higher ones are of later writes.
        revision: u64,
        /// When the key ends, in milliseconds of this store's clock; 0: never.
        deadline: u64,
    },
    /// `{:replicate_delete, key}`
    Delete {
        /// The encoded key.
        key: &'a [u8],
        /// Of the key.
        traits: Traits,
    },
}

impl<'a> ReplicaWrite<'a> {
    pub(super) const fn key(&self) -> &'a [u8] {
        match self {
            Self::Put { key, .. } | Self::Delete { key, .. } => key,
        }
    }

    pub(super) const fn traits(&self) -> Traits {
        match self {
            Self::Put { traits, .. } | Self::Delete { traits, .. } => *traits,
        }
    }

    /// Bytes of key and value.
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len(),
            Self::Delete { key, .. } => key.len(),
        }
    }

    /// What a slave's node has to decode to have it: nothing for a deletion, as a node that cannot decode a key does not have it.
    pub const fn needs(&self) -> Traits {
        match self {
            Self::Put { traits, .. } => *traits,
            Self::Delete { .. } => Traits::none(),
        }
    }
}

/// The value that a key has.
#[derive(Clone, Copy, Debug)]
pub struct Present<'a> {
    /// The encoded value.
    pub value: &'a [u8],
    /// Of key and value.
    pub traits: Traits,
    /// As in [`ReplicaWrite::Put`].
    pub revision: u64,
    /// As in [`ReplicaWrite::Put`].
    pub deadline: u64,
}

/// `None`: it has none.
pub type PresentValue<'a> = Option<Present<'a>>;

/// What became of a read of a [`Source`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceRead {
    /// What is there was shown.
    Shown,
    /// It is being read; or a write of it is under way, and queued for the slaves when it is done, if it is: ask again.
    Later,
    /// It cannot be read.
    Unreadable,
}

/// The store that is replicated, as the repair of a slave reads it.
///
/// The key-value server is one.
pub trait Source {
    /// Parts that it is scanned in: at least 1.
    fn parts(&self) -> usize;

    /// Shows the keys of one part, counted from 0, in their canonical encoding: all that were there when the write `since` was
    /// the last that was queued, and are there still. Others may write meanwhile. A key that is not there may be shown. With
    /// [`SourceRead::Later`] none was: they are being read.
    fn keys(&self, part: usize, since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead;

    /// Shows the present value of a key; `None`: it has none.
    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead;

    /// A slave was dropped that could not be one, or is on another node than before: what is to be known of them after a
    /// restart is to be kept.
    fn slaves_changed(&self) {}

    /// Calls `run` once, while no write is applied that is not queued for the slaves yet, and none is queued that is not
    /// applied. `run` calls [`read`](Self::read).
    fn in_order(&self, run: &mut dyn FnMut());

    /// The number of the last write that was queued for slaves: the numbers that [`Downstream::push`](super::Downstream::push) is
    /// given.
    fn seq(&self) -> u64;

    /// What the store's revisions have counted to, which its slaves are told of. In a store of its own they are the numbers of the
    /// writes.
    fn revision(&self) -> u64 {
        self.seq()
    }

    /// What the store's clock says, which its deadlines are of, in milliseconds. A store of which nothing ends needs none.
    fn clock(&self) -> u64 {
        0
    }

    /// The store's lineage.
    fn lineage(&self) -> Lineage;

    /// A slave is being greeted, or is no longer: meanwhile the [`lineage`](Self::lineage) that it is told of should not
    /// change. From any thread; must not block.
    fn greeting(&self, _is_under_way: bool) {}

    /// Whether the store was started without data, and has not been filled by a primary since. It may have lost
    /// what its slaves still hold: so a slave that it was started with keeps what it has.
    fn started_empty(&self) -> bool {
        false
    }

    /// Number of keys.
    fn len(&self) -> usize;

    /// Whether it has none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
