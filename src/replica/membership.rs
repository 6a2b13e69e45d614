//! What a store keeps of itself over a restart: its place among promotions, primaries and slaves. One record, and so one note:
//! what belongs together changes together.
//!
//! ```text
//! {4, term, promoted, role, was_slave, position, is_partial, must_export, slaves, names_taken, family, copies, settled}
//! ```
//!
//! The number in front is the version of the form. Version 3 has nothing settled, and is still written where nothing is; version 2 has no copies, and version 1 no family either. Until 0.1.0 the same
//! was kept as five notes, see [`Former`].

use super::greeting::{KnownSlave, write_slaves};
use crate::distribution::ServerRef;
use crate::etf::tag::NIL_EXT;
use crate::etf::{TermView, TermWriter, encode};

/// How many names a note may have.
const NAMES_MAX: usize = 4096;

/// How a store stands to the promotion that began its term. Of term 0 nothing follows from it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TermRole {
    /// The store was promoted itself: no other store of the term is the primary.
    Promoted,
    /// It follows the promoted store, or did last. That store may live, also where it is not seen.
    Follows,
    /// Its primary has removed it, or it is not known.
    #[default]
    None,
}

impl TermRole {
    const ALL: [Self; 3] = [Self::Promoted, Self::Follows, Self::None];

    /// Its word in the note. (Words of before, which old notes have too.)
    const fn code(self) -> &'static str {
        match self {
            Self::Promoted => "own",
            Self::Follows => "below",
            Self::None => "free",
        }
    }

    fn of_code(code: TermView<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|role| code.is_atom(role.code()))
    }
}

/// The place of a slave among its primary's writes. It is kept behind these writes, so it is never ahead of what the store holds,
/// also where a power cut has taken some of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The primary's incarnation.
    pub primary: u64,
    /// The number of its last write that is here.
    pub applied: u64,
}

/// What a store has of a term's primary, where elections choose the primary: all that this had after a write. It stays where
/// another primary is followed, until that has brought the store up to date: what comes meanwhile is newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The term of the primary.
    pub term: u64,
    /// The number of its last write that is here; [`u64::MAX`]: the store was that primary.
    pub applied: u64,
}

/// What a store keeps of itself. The default is that of a store that was nothing but itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership {
    /// How many promotions led to it.
    pub term: u64,
    /// The incarnation of the store whose promotion began the term.
    pub promoted: u64,
    /// How this store stands to that.
    pub role: TermRole,
    /// It is a kvnode's slave, and has had all that its primary had.
    pub was_slave: bool,
    /// Where it has come among its primary's writes; `None`: it was no slave, or has written since.
    pub position: Option<Position>,
    /// What it holds is a mix: a copy or a repair that went into it is not whole, or something that came was not kept.
    pub is_partial: bool,
    /// It was a primary with writes of its own: what the next copies drop of these is kept elsewhere.
    pub must_export: bool,
    /// The slaves that were added to it.
    pub slaves: Vec<KnownSlave>,
    /// The global names that it took over when it was promoted.
    pub names_taken: Vec<ServerRef>,
    /// The [family](super::Lineage::family) that the store belongs to; 0: the family that the store begins itself.
    pub family: u64,
    /// The number of the last copy of a primary that has begun: what is written while one comes into the store itself carries it, so
    /// no other copy may have it, also after a restart.
    pub copies: u32,
    /// What it has of the primary that has brought it up to date last; `None`: no primary has, or no elections choose it.
    pub settled: Option<Settled>,
}

impl Membership {
    /// The name of the note.
    pub const NOTE: &'static str = "membership";
    /// The version of its form.
    const VERSION: u64 = 4;
    /// The version of a record with nothing settled: earlier kvnodes read it.
    const VERSION_UNSETTLED: u64 = 3;

    /// The note.
    pub fn note(&self) -> Vec<u8> {
        encode(|w| {
            match self.settled {
                Some(_) => w.tuple(13).unsigned(Self::VERSION),
                None => w.tuple(12).unsigned(Self::VERSION_UNSETTLED),
            };
            w.unsigned(self.term).unsigned(self.promoted);
            w.atom(self.role.code());
            write_bool(w, self.was_slave);
            match self.position {
                Some(Position { primary, applied }) => w.tuple(2).unsigned(primary).unsigned(applied),
                None => w.atom("none"),
            };
            write_bool(w, self.is_partial);
            write_bool(w, self.must_export);
            write_slaves(w, &self.slaves);
            write_names(w, &self.names_taken);
            w.unsigned(self.family).unsigned(self.copies.into());
            if let Some(Settled { term, applied }) = self.settled {
                w.tuple(2).unsigned(term).unsigned(applied);
            }
        })
    }

    /// Reads a note; `None`: it is damaged, or of a version that is not known here.
    pub fn read(note: &[u8]) -> Option<Self> {
        let note = TermView::parse(note).ok()?;
        let mut parts = note.cursor();
        let arity = parts.tuple().ok()?;
        let version = parts.unsigned().ok()?;
        matches!((version, arity), (1, 10) | (2, 11) | (Self::VERSION_UNSETTLED, 12) | (Self::VERSION, 13))
            .then_some(())?;
        let mut next = || parts.term().ok();
        let read = Self {
            term: next()?.as_unsigned()?,
            promoted: next()?.as_unsigned()?,
            role: TermRole::of_code(next()?)?,
            was_slave: read_bool(next()?)?,
            position: match next()? {
                none if none.is_atom("none") => None,
                position => Some(read_position(position)?),
            },
            is_partial: read_bool(next()?)?,
            must_export: read_bool(next()?)?,
            slaves: read_slaves(next()?)?,
            names_taken: read_names(next()?)?,
            family: if version < 2 { 0 } else { next()?.as_unsigned()? },
            copies: if version < 3 { 0 } else { u32::try_from(next()?.as_unsigned()?).ok()? },
            settled: if version < 4 {
                None
            } else {
                let [term, applied] = next()?.as_tuple::<2>()?;
                Some(Settled { term: term.as_unsigned()?, applied: applied.as_unsigned()? })
            },
        };
        parts.rest().is_empty().then_some(read)
    }

    /// What decides between two primaries.
    pub const fn rank(&self) -> (u64, u64) {
        (self.term, self.promoted)
    }
}

/// The five notes in which the same was kept before, as they were read. What is not there, or not understood, is as in a
/// store that was nothing but itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Former<'a> {
    /// `{term, promoted, role, must_export, is_partial}`, or, before it was kept whose promotion it was, `{term, promoted}`.
    pub rank: Option<&'a [u8]>,
    /// A byte: 1 where it was a slave that had all of its primary.
    pub is_slave: Option<&'a [u8]>,
    /// `{primary, applied}`, or `none`.
    pub position: Option<&'a [u8]>,
    /// A list, of names alone before it was kept on which nodes they are.
    pub slaves: Option<&'a [u8]>,
    /// A list.
    pub names: Option<&'a [u8]>,
}

impl Former<'_> {
    /// The names of the notes, in the order of the fields.
    pub const NOTES: [&'static str; 5] = ["rank", "is_slave", "position", "slaves", "names"];

    /// The same in one record.
    ///
    /// # Errors
    /// The names of the slaves are damaged.
    pub fn carried_over(&self) -> Result<Membership, Damaged> {
        let parse = |note: Option<&'_ [u8]>, with: &mut dyn FnMut(TermView<'_>)| {
            if let Some(term) = note.and_then(|note| TermView::parse(note).ok()) {
                with(term);
            }
        };
        let mut membership =
            Membership { was_slave: self.is_slave.is_some_and(|note| note == [1]), ..Membership::default() };
        parse(self.position, &mut |term| membership.position = read_position(term));
        parse(self.rank, &mut |term| membership.read_rank(term));
        parse(self.names, &mut |term| membership.names_taken = read_names(term).unwrap_or_default());
        if let Some(note) = self.slaves {
            let slaves = TermView::parse(note).ok().and_then(read_slaves);
            membership.slaves = slaves.ok_or(Damaged)?;
        }
        Ok(membership)
    }
}

/// A note says nothing that can be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl Membership {
    fn read_rank(&mut self, rank: TermView<'_>) {
        let read = || {
            let [term, promoted, role, must_export, is_partial] = rank.as_tuple::<5>()?;
            let (term, promoted) = (term.as_unsigned()?, promoted.as_unsigned()?);
            let role = TermRole::of_code(role)?;
            Some((term, promoted, role, must_export.is_atom("true"), is_partial.is_atom("true")))
        };
        let was_slave = self.was_slave;
        let read_before = || {
            let [term, promoted] = rank.as_tuple::<2>()?;
            let role = if was_slave { TermRole::Follows } else { TermRole::None };
            Some((term.as_unsigned()?, promoted.as_unsigned()?, role, false, false))
        };
        if let Some((term, promoted, role, must_export, is_partial)) = read().or_else(read_before) {
            *self = Self { term, promoted, role, must_export, is_partial, ..std::mem::take(self) };
        }
    }
}

fn write_bool(w: &mut TermWriter<'_>, value: bool) {
    w.atom(if value { "true" } else { "false" });
}

fn read_bool(term: TermView<'_>) -> Option<bool> {
    if term.is_atom("true") { Some(true) } else { term.is_atom("false").then_some(false) }
}

fn read_position(term: TermView<'_>) -> Option<Position> {
    let [primary, applied] = term.as_tuple::<2>()?;
    Some(Position { primary: primary.as_unsigned()?, applied: applied.as_unsigned()? })
}

fn write_names(w: &mut TermWriter<'_>, names: &[ServerRef]) {
    w.list(names.len());
    names.iter().for_each(|name| name.write(w));
    w.nil();
}

fn read_names(names: TermView<'_>) -> Option<Vec<ServerRef>> {
    read_list(names, ServerRef::read)
}

fn read_slaves(slaves: TermView<'_>) -> Option<Vec<KnownSlave>> {
    read_list(slaves, |slave| {
        KnownSlave::read(slave).or_else(|| ServerRef::read(slave).map(|name| KnownSlave { name, node: None }))
    })
}

fn read_list<T>(list: TermView<'_>, read: impl Fn(TermView<'_>) -> Option<T>) -> Option<Vec<T>> {
    if list.tag() == NIL_EXT {
        return Some(Vec::new());
    }
    let mut cursor = list.cursor();
    let len = cursor.list().ok()?;
    if len > NAMES_MAX {
        return None;
    }
    (0..len).map(|_| read(cursor.term().ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::Pid;

    fn known(name: ServerRef, node: Option<&str>) -> KnownSlave {
        KnownSlave { name, node: node.map(Into::into) }
    }

    fn membership(role: TermRole, position: Option<Position>) -> Membership {
        let pid = Pid { node: "n@h".into(), id: 1, serial: 0, creation: 7 };
        Membership {
            term: 3,
            promoted: u64::MAX,
            role,
            was_slave: position.is_some(),
            position,
            is_partial: position.is_none(),
            must_export: position.is_some(),
            slaves: vec![
                known(ServerRef::global("a"), Some("m@h")),
                known(ServerRef::remote("b", "n@h"), None),
                known(ServerRef::Local("c".into()), None),
                known(pid.into(), Some("n@h")),
            ],
            names_taken: vec![ServerRef::global("d")],
            family: 11,
            copies: if position.is_some() { u32::MAX } else { 0 },
            settled: position.map(|position| Settled { term: u64::MAX, applied: position.applied }),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_kept_and_what_is_damaged_or_newer_is_none() {
        for role in TermRole::ALL {
            for position in [None, Some(Position { primary: u64::MAX, applied: 7 })] {
                let kept = membership(role, position);
                assert_eq!(Membership::read(&kept.note()), Some(kept));
            }
        }
        assert_eq!(Membership::read(&Membership::default().note()), Some(Membership::default()));
        let note = membership(TermRole::Promoted, None).note();
        for end in 0..note.len() {
            assert_eq!(Membership::read(&note[..end]), None);
        }
        let mut newer = note;
        assert_eq!((newer[2], newer[3]), (97, 3), "SMALL_INTEGER_EXT: the version");
        newer[3] = 5;
        assert_eq!(Membership::read(&newer), None);
    }

    /// A record of version 1, of a slave, as it lies in folders of before.
    const VERSION_1: &[u8] = b"h\x0aa\x01a\x02a\x05w\x05beloww\x04trueh\x02a\x05a\x07w\x05falsew\x05falsejl\x00\x00\x00\x01h\x02w\x06globalw\x01dj";

    #[test]
    fn a_record_of_before_families_or_copies_is_read() {
        let known = Membership {
            term: 2,
            promoted: 5,
            role: TermRole::Follows,
            was_slave: true,
            position: Some(Position { primary: 5, applied: 7 }),
            names_taken: vec![ServerRef::global("d")],
            ..Membership::default()
        };
        assert_eq!(Membership::read(VERSION_1), Some(known.clone()));
        let version_2 = [b"h\x0ba\x02", &VERSION_1[4..], b"a\x0b"].concat();
        assert_eq!(Membership::read(&version_2), Some(Membership { family: 11, ..known.clone() }));
        // Each is kept as one of this version from then on.
        let next = Membership { family: 11, copies: 1, ..known };
        assert_eq!(Membership::read(&next.note()), Some(next));
    }

    /// The notes of a store that was a slave, was promoted, and had slaves: as they lie in folders of before.
    const RANK: &[u8] = b"h\x05a\x03n\x08\x00\xff\xff\xff\xff\xff\xff\xff\xffw\x03ownw\x04truew\x05false";
    const RANK_OF_A_SLAVE: &[u8] = b"h\x05a\x01a\x05w\x05beloww\x05falsew\x04true";
    const RANK_AT_FIRST: &[u8] = b"h\x02a\x02a\x09";
    const POSITION: &[u8] = b"h\x02n\x08\x00\xff\xff\xff\xff\xff\xff\xff\xffa\x07";
    const NO_POSITION: &[u8] = b"w\x04none";
    const SLAVES: &[u8] = b"l\x00\x00\x00\x02h\x02w\x06globalw\x01ah\x02w\x02kvw\x03n@hj";
    /// The same once it was kept where they are.
    const KNOWN_SLAVES: &[u8] =
        b"l\x00\x00\x00\x02h\x03w\x02ath\x02w\x06globalw\x01aw\x03m@hh\x03w\x02ath\x02w\x02kvw\x03n@hw\x03nilj";
    const NO_SLAVES: &[u8] = b"j";
    const NAMES: &[u8] = b"l\x00\x00\x00\x01h\x02w\x06globalw\x01dj";

    #[test]
    fn the_notes_of_before_are_carried_over() {
        let carried = |former: Former<'_>| former.carried_over().expect("they are whole");
        assert_eq!(carried(Former::default()), Membership::default());
        let promoted = Former {
            rank: Some(RANK),
            is_slave: Some(&[0]),
            position: Some(NO_POSITION),
            slaves: Some(SLAVES),
            names: Some(NAMES),
        };
        assert_eq!(
            carried(promoted),
            Membership {
                term: 3,
                promoted: u64::MAX,
                role: TermRole::Promoted,
                must_export: true,
                slaves: vec![
                    known(ServerRef::global("a"), None),
                    known(ServerRef::remote("kv", "n@h"), None)
                ],
                names_taken: vec![ServerRef::global("d")],
                ..Membership::default()
            }
        );
        assert_eq!(
            carried(Former { slaves: Some(KNOWN_SLAVES), ..Former::default() }).slaves,
            [known(ServerRef::global("a"), Some("m@h")), known(ServerRef::remote("kv", "n@h"), None)]
        );
        let slave = Former {
            rank: Some(RANK_OF_A_SLAVE),
            is_slave: Some(&[1]),
            position: Some(POSITION),
            slaves: Some(NO_SLAVES),
            names: None,
        };
        let carried_over = carried(slave);
        assert_eq!(
            carried_over,
            Membership {
                term: 1,
                promoted: 5,
                role: TermRole::Follows,
                was_slave: true,
                position: Some(Position { primary: u64::MAX, applied: 7 }),
                is_partial: true,
                ..Membership::default()
            }
        );
        // Before it was kept whose promotion it was.
        for (is_slave, role) in [(1, TermRole::Follows), (0, TermRole::None)] {
            let first = carried(Former {
                rank: Some(RANK_AT_FIRST),
                is_slave: Some(&[is_slave]),
                ..Former::default()
            });
            assert_eq!((first.rank(), first.role, first.was_slave), ((2, 9), role, is_slave == 1));
        }
        // A store that had slaves is not to be without them, whatever else is damaged.
        let damaged =
            Former { rank: Some(b"x"), position: Some(b""), names: Some(b"h"), ..Former::default() };
        assert_eq!(carried(damaged), Membership::default());
        assert_eq!(Former { slaves: Some(&SLAVES[..20]), ..Former::default() }.carried_over(), Err(Damaged));
    }
}
