//! Who a primary is, to the kvnodes that are its slaves.

use crate::etf::{TermView, TermWriter};

/// Nobody stands in a longer chain of primaries.
const PATH_MAX: usize = 64;

/// Who a store is, and who its primaries are.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lineage {
    /// How many promotions led to it. A slave leaves its primary for one with a higher term, and takes nothing from one
    /// with a lower.
    pub term: u64,
    /// The incarnations from the first primary of the chain down to the store itself: a store that finds itself in
    /// there would be its own slave.
    pub path: Vec<u64>,
}

impl Lineage {
    /// The store's own incarnation: a number that no other life of any store has.
    pub fn incarnation(&self) -> u64 {
        self.path.last().copied().unwrap_or(0)
    }

    /// Writes `{term, [incarnation]}`.
    pub fn write(&self, w: &mut TermWriter<'_>) {
        w.tuple(2).unsigned(self.term);
        w.list(self.path.len());
        for incarnation in &self.path {
            w.unsigned(*incarnation);
        }
        w.nil();
    }

    /// Reads it; `None`: it is none, or longer than any chain may be.
    pub fn read(term: TermView<'_>) -> Option<Self> {
        let [term, path] = term.as_tuple::<2>()?;
        let mut cursor = path.cursor();
        let len = cursor.list().ok()?;
        if len == 0 || len > PATH_MAX {
            return None;
        }
        let path = (0..len).map(|_| cursor.term().ok()?.as_unsigned()).collect::<Option<_>>()?;
        Some(Self { term: term.as_unsigned()?, path })
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
    /// A primary was promoted in the place of the one that asks.
    Superseded,
    /// Its store has no room for what it was sent.
    NoSpace,
    /// Its disk does not take what it was sent.
    Disk,
    /// It is a server of another kind, which a replicated write would end.
    Foreign,
    /// It knows nothing of this session: it has been greeted by another primary since.
    OtherSession,
}

impl Refusal {
    const ALL: [Self; 8] = [
        Self::Itself,
        Self::Cycle,
        Self::HasPrimary,
        Self::Superseded,
        Self::NoSpace,
        Self::Disk,
        Self::Foreign,
        Self::OtherSession,
    ];

    /// The atom in `{:error, reason}`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Itself => "itself",
            Self::Cycle => "cycle",
            Self::HasPrimary => "has_primary",
            Self::Superseded => "superseded",
            Self::NoSpace => "no_space",
            Self::Disk => "io",
            Self::Foreign => "foreign",
            Self::OtherSession => "other_session",
        }
    }

    /// Reads [`code`](Self::code).
    pub fn of_code(code: TermView<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|refusal| code.is_atom(refusal.code()))
    }

    /// Whether it is about a store that takes no writes now.
    pub const fn is_of_room(self) -> bool {
        matches!(self, Self::NoSpace | Self::Disk)
    }

    /// Whether it stays so: then the slave is given up.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Itself | Self::Cycle)
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Itself => "a store cannot be its own slave",
            Self::Cycle => "it is a primary of this store, directly or over others: writes would go round",
            Self::HasPrimary => "it is the slave of another primary, which is there: remove it there first",
            Self::Superseded => "another primary was promoted in this one's place",
            Self::NoSpace => {
                "it has no room for what it is sent (a copy of the whole store has to fit beside what it holds): give it more \
                 --memory-max, or a larger disk, or delete"
            }
            Self::Disk => "its disk does not take what it is sent: its own log says why",
            Self::Foreign => {
                "it is a server of another kind, which knows no replicated writes and would end at the first: nothing is \
                 sent to it"
            }
            Self::OtherSession => "it has been greeted by another primary since",
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
        let lineage = Lineage { term: 3, path: vec![u64::MAX, 1, 2] };
        assert_eq!(read(&lineage), Some(lineage.clone()));
        assert_eq!(lineage.incarnation(), 2);
        assert_eq!(read(&Lineage { term: 0, path: vec![1; PATH_MAX + 1] }), None);
        assert_eq!(read(&Lineage::default()), None);
    }
}
