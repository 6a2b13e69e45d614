//! What a primary sends to a slave: to an Elixir server two casts, to a kvnode the same writes with their numbers.
//!
//! | message | kind | |
//! | --- | --- | --- |
//! | `{:replica_hello, session, lineage, seq, clock, names, slaves, fresh}` | call | before anything else: who the primary is, what its clock says, and whether it was started without data and may have lost it (`true` or `false`). `{:ok, own, incarnation, applied}`: the slave's own incarnation, whose writes it had before, and up to which number; or `{:error, reason}` |
//! | `{:replica_put, session, seq, revision, key, value}` | cast | a write, with the revision that the key has with it in every store |
//! | `{:replica_put, session, seq, revision, deadline, key, value}` | cast | the same of a key that ends then, in milliseconds of the primary's clock |
//! | `{:replica_delete, session, seq, key}` | cast | a deletion |
//! | `{:replica_many, session, seq, changes}` | cast | a write of several keys, which the slave has whole or not at all: of each `{revision, key, value}`, `{revision, deadline, key, value}` or, deleted, `{key}` |
//! | `{:replica_clear, session, seq}` | cast | all keys are deleted, at once: to a slave that has everything, and acknowledged so |
//! | `{:replica_copy, session, seq, :begin}` | cast | what comes from here on is a copy of the whole store |
//! | `{:replica_copy, session, seq, :end}` | cast | the copy is whole: it takes the place of what the slave had |
//! | `{:replica_copy, session, seq, :repair}` | cast | writes were left out, and what they came to will follow |
//! | `{:replica_copy, session, seq, :whole}` | cast | nothing is missing any more: the slave has what the primary had after this write |
//! | `{:replica_ask, session, seq, revision}` | call | `{:ok, applied}`: everything that came before has been handled; or `{:error, reason}`. The slave gives no revision up to this one, which is what the primary has counted to, should it be promoted |
//! | `{:replica_slaves, session, slaves}` | cast | the primary's slaves are these now, each `{:at, name, node}` with the node where it was found last, or `nil` |
//! | `{:replica_bye, session}` | cast | the slave is none any more |
//! | `{:replica_left, session}` | cast, from the slave | it follows another primary now, or is one |
//! | `{:replica_superseded, session, slave}` | cast, from the slave | it has refused this primary of an older term and of the same family, `{:at, name, node}`: its own primary is to have that as a slave |
//!
//! `seq` is the number of the last write that the primary has taken, under its incarnation. None of these is ever sent
//! before the node has said that it is a kvnode, by a function that no BEAM has ([`REPLICATION`]).

use std::borrow::Cow;

use super::greeting::{KnownSlave, write_slaves};
use super::source::ReplicaWrite;
use crate::etf::{AtomView, TermWriter, Traits, key};

/// `kvnode:replication()`: gives [`VERSION`] on a kvnode, and is `undef` on a BEAM, which harms nothing.
pub const REPLICATION: (&str, &str) = ("kvnode", "replication");
/// The version of the messages above.
pub const VERSION: u64 = 8;

/// How a slave is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// With the messages that every server of the protocol knows: `{:replicate_put, k, v}`, `{:replicate_delete, k}`.
    Elixir,
    /// With numbered writes, in this session.
    Kvnode {
        /// The primary's number of the session.
        session: u64,
    },
}

/// Where a copy of the whole store, or the repair of a slave, begins and ends. A slave lacks something from the greeting on
/// until the first [`Whole`](Self::Whole) or [`End`](Self::End).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyMark {
    /// Everything from here on belongs to a copy.
    Begin,
    /// The copy is whole.
    End,
    /// Something was left out before.
    Repair,
    /// Nothing is missing any more.
    Whole,
}

/// The numbers that the writes of so many keys have where they are told one by one: the last of them alone has the number of the
/// write, and those before that of the write before. So nobody counts a part for the whole.
pub fn key_by_key(seq: u64, keys: usize) -> impl Iterator<Item = u64> {
    (1..=keys).rev().map(move |behind| if behind == 1 { seq } else { seq.saturating_sub(1) })
}

impl CopyMark {
    const ALL: [Self; 4] = [Self::Begin, Self::End, Self::Repair, Self::Whole];

    const fn word(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::End => "end",
            Self::Repair => "repair",
            Self::Whole => "whole",
        }
    }

    /// Reads it from its atom.
    pub fn read(word: AtomView<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|mark| word == mark.word())
    }
}

impl Dialect {
    /// A key as it is sent: a kvnode takes it as it is kept here, a BEAM is to find it as it was put. `traits`: of the key at
    /// least.
    pub(super) fn key(self, key: &[u8], traits: Traits) -> Cow<'_, [u8]> {
        match self {
            // Only references of more than three words differ.
            Self::Elixir if traits.contains(Traits::V4_NC) => key::outgoing(key),
            Self::Elixir | Self::Kvnode { .. } => Cow::Borrowed(key),
        }
    }

    /// Writes a cast up to the key, and gives what is to follow: the key, and the value of a put.
    pub(super) fn begin_write<'a>(
        self,
        w: &mut TermWriter<'_>,
        seq: u64,
        write: ReplicaWrite<'a>,
    ) -> (&'a [u8], &'a [u8]) {
        w.tuple(2).atom("$gen_cast");
        match (self, write) {
            (Self::Elixir, ReplicaWrite::Put { key, value, .. }) => {
                w.tuple(3).atom("replicate_put");
                (key, value)
            }
            (Self::Elixir, ReplicaWrite::Delete { key, .. }) => {
                w.tuple(2).atom("replicate_delete");
                (key, &[])
            }
            (Self::Kvnode { session }, ReplicaWrite::Put { key, value, revision, deadline, .. }) => {
                w.tuple(if deadline == 0 { 6 } else { 7 });
                w.atom("replica_put").unsigned(session).unsigned(seq).unsigned(revision);
                if deadline != 0 {
                    w.unsigned(deadline);
                }
                (key, value)
            }
            (Self::Kvnode { session }, ReplicaWrite::Delete { key, .. }) => {
                w.tuple(4).atom("replica_delete").unsigned(session).unsigned(seq);
                (key, &[])
            }
        }
    }
}

/// Writes the cast of a write of several keys, up to the list of these.
pub(super) fn begin_many(w: &mut TermWriter<'_>, session: u64, seq: u64, keys: usize) {
    w.tuple(2).atom("$gen_cast").tuple(4).atom("replica_many").unsigned(session).unsigned(seq).list(keys);
}

/// Writes one of these keys up to itself, and gives what is to follow: the key, and the value of a put.
pub(super) fn begin_one_of_many<'a>(
    w: &mut TermWriter<'_>,
    write: &ReplicaWrite<'a>,
) -> (&'a [u8], &'a [u8]) {
    match *write {
        ReplicaWrite::Put { key, value, revision, deadline, .. } => {
            w.tuple(if deadline == 0 { 3 } else { 4 }).unsigned(revision);
            if deadline != 0 {
                w.unsigned(deadline);
            }
            (key, value)
        }
        ReplicaWrite::Delete { key, .. } => {
            w.tuple(1);
            (key, &[])
        }
    }
}

/// Writes the cast of a deletion of all keys.
pub(super) fn write_clear(w: &mut TermWriter<'_>, session: u64, seq: u64) {
    w.tuple(2).atom("$gen_cast").tuple(3).atom("replica_clear").unsigned(session).unsigned(seq);
}

/// Writes the cast of a copy's mark.
pub(super) fn write_mark(w: &mut TermWriter<'_>, session: u64, seq: u64, mark: CopyMark) {
    w.tuple(2).atom("$gen_cast").tuple(4).atom("replica_copy").unsigned(session).unsigned(seq);
    w.atom(mark.word());
}

/// Writes `{:replica_slaves, session, slaves}`.
pub fn write_siblings(w: &mut TermWriter<'_>, session: u64, slaves: &[KnownSlave]) {
    w.tuple(3).atom("replica_slaves").unsigned(session);
    write_slaves(w, slaves);
}

/// Writes `{:replica_bye, session}`.
pub fn write_bye(w: &mut TermWriter<'_>, session: u64) {
    w.tuple(2).atom("replica_bye").unsigned(session);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_several_keys_alone_has_the_number_of_the_write() {
        let numbers = |seq, keys| key_by_key(seq, keys).collect::<Vec<_>>();
        assert_eq!((numbers(7, 3), numbers(7, 1), numbers(0, 2)), (vec![6, 6, 7], vec![7], vec![0, 0]));
        assert!(numbers(7, 0).is_empty());
    }
}
