//! What a primary is to the kvnodes that are its slaves.

use crate::etf::{TermView, TermWriter};

/// What stands in a [path](Lineage::path) for a primary that is not there: no store has this incarnation.
const NOBODY: u64 = 0;

/// Nobody stands in a longer chain of primaries.
const PATH_MAX: usize = 64;

/// A store and the chain of its primaries.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lineage {
    /// How many promotions led to it. A slave leaves its primary for one with a higher [`rank`](Self::rank), and takes
    /// nothing from one with a lower. Where elections choose the primary it is the fence of the one that was chosen.
    pub term: u64,
    /// The incarnation of the store whose promotion began the term; 0 before the first one. Two stores that were promoted
    /// apart from each other have the same term: of these, all agree on one.
    pub promoted: u64,
    /// The incarnations from the first primary of the chain down to the store itself: a store that finds itself in
    /// there would be its own slave.
    pub path: Vec<u64>,
    /// The family of stores that it belongs to: the incarnation of the first primary of all. A slave takes it from its primary,
    /// and keeps it until it is removed. Of two primaries of one family the one with the lower rank becomes a slave.
    pub family: u64,
}

impl Lineage {
    /// The store's own incarnation: a number that no other life of any store has.
    pub fn incarnation(&self) -> u64 {
        self.path.last().copied().unwrap_or(0)
    }

    /// The lineage of a store that was a slave when it ended, and has not been greeted since. Its primary may live, and a slave
    /// of the orphan might lose writes that this primary has taken.
    pub const fn of_orphan(incarnation: u64) -> [u64; 2] {
        [NOBODY, incarnation]
    }

    /// Whether its first primary is not known: see [`of_orphan`](Self::of_orphan).
    pub fn is_orphan(&self) -> bool {
        self.path.len() > 1 && self.path.first() == Some(&NOBODY)
    }

    /// What decides between two primaries: the higher one stays.
    pub const fn rank(&self) -> (u64, u64) {
        (self.term, self.promoted)
    }

    /// Writes `{term, promoted, [incarnation], family}`.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        w.tuple(4).unsigned(self.term).unsigned(self.promoted);
        w.list(self.path.len());
        for incarnation in &self.path {
            w.unsigned(*incarnation);
        }
        w.nil().unsigned(self.family);
    }

    /// Reads it; `None`: it is none, or longer than any chain may be.
    pub fn read(term: TermView<'_>) -> Option<Self> {
        let [term, promoted, path, family] = term.as_tuple::<4>()?;
        let mut cursor = path.cursor();
        let len = cursor.list().ok()?;
        if len == 0 || len > PATH_MAX {
            return None;
        }
        let path = (0..len).map(|_| cursor.term().ok()?.as_unsigned()).collect::<Option<_>>()?;
        let (term, promoted, family) = (term.as_unsigned()?, promoted.as_unsigned()?, family.as_unsigned()?);
        Some(Self { term, promoted, path, family })
    }
}

/// Why a kvnode does not become a slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is the primary itself.
    Itself,
    /// The primary is, over others, its own slave.
    Cycle,
    /// It follows another primary, which is there.
    HasPrimary,
    /// It is about to have a slave itself, perhaps the asking store: that is to ask again at once.
    Crossing,
    /// Another store was promoted in the place of the asking primary.
    Superseded,
    /// It holds something, and the primary that asks was started without anything: it may have lost just that.
    NotEmpty,
    /// Its store has no room for what it was sent.
    NoSpace,
    /// Its disk does not take what it was sent.
    Disk,
    /// It was sent a write that is over a bound of its connection.
    TooLarge,
    /// It is a server of another kind, which a replicated write would end.
    Foreign,
    /// It is a store that several processes have, and that etcd keeps.
    KeptByEtcd,
    /// It is in no such session: it has been greeted by another primary since, or the session's connection is lost.
    OtherSession,
}

impl Refusal {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Itself,
        Self::Cycle,
        Self::HasPrimary,
        Self::Crossing,
        Self::Superseded,
        Self::NotEmpty,
        Self::NoSpace,
        Self::Disk,
        Self::TooLarge,
        Self::Foreign,
        Self::KeptByEtcd,
        Self::OtherSession,
    ];

    /// The atom in `{:error, reason}`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Cycle => "cycle",
            Self::HasPrimary => "has_primary",
            Self::Crossing => "crossing",
            Self::Superseded => "superseded",
            Self::NotEmpty => "not_empty",
            Self::NoSpace => "no_space",
            Self::Disk => "io",
            Self::TooLarge => "too_large",
            Self::Foreign => "foreign",
            Self::KeptByEtcd => "kept_by_etcd",
            Self::OtherSession => "other_session",
        }
    }

    /// Reads [`code`](Self::code).
    pub fn of_code(code: TermView<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| code.is_atom(refusal.code()))
    }

    /// Whether it is about a store that does not take what it is sent now.
    pub const fn is_of_room(self) -> bool {
        matches!(self, Self::NoSpace | Self::Disk | Self::TooLarge)
    }

    /// Whether it stays so: then the slave is given up.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Itself | Self::Cycle | Self::KeptByEtcd)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Itself => "a store cannot be its own slave",
            Self::Cycle => "it is a primary of this store, directly or over others: writes would go round",
            Self::HasPrimary => "it is the slave of another primary, which is there: remove it there first",
            Self::Crossing => "it is about to have a slave itself: it is asked again",
            Self::Superseded => "another primary was promoted in this one's place",
            Self::NotEmpty => {
                "it holds entries, and this store was started without any: nothing is deleted there. To keep what it holds, \
                 promote it (kvnode promote); to have it replaced by what is here, add it again (kvnode add-slave)"
            }
            Self::NoSpace => {
                "it has no room for what it is sent (a copy of the whole store has to fit beside what it holds): give it more \
                 --memory-max, or a larger disk, or delete"
            }
            Self::Disk => "its disk does not take what it is sent: its own log says why",
            Self::TooLarge => {
                "a value is larger than its node takes: start that with a --frame-bytes-max as large as this node's, or delete \
                 the value; its log says how large it is"
            }
            Self::Foreign => {
                "it is a server of another kind, which knows no replicated writes and would end at the first: nothing is \
                 sent to it"
            }
            Self::KeptByEtcd => {
                "it is kept by etcd, and each kvnode of that etcd writes to it: it follows no primary. To bring it what is here, \
                 export this store and import that there (kvnode export, kvnode import)"
            }
            Self::OtherSession => "it has been greeted by another primary since, or has lost the connection",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn a_lineage_is_read_as_it_was_written_and_never_longer_than_a_chain_may_be() {
        let read = |lineage: &Lineage| {
            let bytes = encode(|w| lineage.write(w));
            Lineage::read(TermView::parse(&bytes).expect("our own term"))
        };
        let lineage = Lineage { term: 3, promoted: u64::MAX, path: vec![u64::MAX, 1, 2], family: 9 };
        assert_eq!(read(&lineage), Some(lineage.clone()));
        assert_eq!(lineage.incarnation(), 2);
        assert_eq!(read(&Lineage { path: vec![1; PATH_MAX + 1], ..Lineage::default() }), None);
        assert_eq!(read(&Lineage::default()), None);
    }
}
