//! The key-value protocol's requests: terms in, operations out. Slices of the received bytes, nothing copied.

use super::operations::{named, operations};
use super::requests::{
    self, Consistency, Edit, Keyword, Lookup, Options, Parts, Takes, WriteOptions, keywords,
};
use crate::etf::{Cursor, TermView};
use crate::replica::{CopyMark, Lineage};
use crate::store::revision::{REVISION_MAX, REVISION_UNKNOWN};

/// A call.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// `{:get, k}`: the value, or `nil`. Of kvnode alone, and a [`Lookup`](Self::Lookup): `{:get, k, consistency: c}`.
    Get {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:put, k, v}`: `:ok`. Of kvnode alone: `{:put, k, v, confirm: n, ttl: ms}`.
    Put {
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
        /// What else is wanted of it.
        options: WriteOptions,
    },
    /// `{:delete, k}`: `:ok`. Of kvnode alone: `{:delete, k, confirm: n}`.
    Delete {
        /// The key.
        key: TermView<'a>,
        /// As in [`WriteOptions`].
        confirm: Option<u32>,
    },
    /// One of the requests that read, but for `{:get, k}`. Not of the Elixir servers.
    Lookup {
        /// What is asked for.
        lookup: Lookup<'a>,
        /// `consistency:`; `None`: as the store is started with. (That of a scan is among its own options.)
        consistency: Option<Consistency>,
    },
    /// One of the requests that decide by what is there, or change several keys. Not of the Elixir servers.
    Edit {
        /// What is asked for.
        edit: Edit<'a>,
        /// As in [`Put`](Self::Put).
        options: WriteOptions,
    },
    /// A request with an option that there is not: `{:error, {:unknown_option, option}}`.
    UnknownOption {
        /// The option's name.
        option: TermView<'a>,
    },
    /// `{:add_slave, s}`: `:ok`.
    AddSlave {
        /// An atom, `{:global, name}`, `{name, node}` or a pid.
        slave: TermView<'a>,
    },
    /// `{:remove_slave, s}`: `:ok`, or `{:error, :no_slave}`. Not of the Elixir servers.
    RemoveSlave {
        /// As it was given to `:add_slave`.
        slave: TermView<'a>,
    },
    /// `{:backup, path}`: `:ok`. Not of the Elixir servers.
    Backup {
        /// A binary: a path in the folder for backups.
        path: TermView<'a>,
    },
    /// `:slaves`: their names, as a list. Not of the Elixir servers.
    Slaves,
    /// `:status`: how the store and its slaves are, as a map. Not of the Elixir servers.
    Status,
    /// `{:promote}`: `:ok`, or `{:error, :not_a_slave}`. With `{:promote, report: true}` it is `{:ok, report}`. Where an election
    /// decides, `{:promote, force: true}` alone. Not of the Elixir servers.
    Promote {
        /// Whether the caller wants to know what it has done.
        reports: bool,
        /// Also where an election decides.
        is_forced: bool,
    },
    /// `{:replica_hello, …}`, from the primary of a kvnode: see [`crate::replica::dialect`].
    ReplicaHello {
        /// The whole, to be read by [`Hello::read`].
        hello: TermView<'a>,
    },
    /// `{:replica_ask, session, seq, revision}`, from the primary of a kvnode.
    ReplicaAsk {
        /// The session.
        session: u64,
        /// The number of the primary's last write.
        seq: u64,
        /// What its revisions have counted to.
        revision: u64,
    },
    /// `{:replica_offer, pid}`, from a store whose global name this one has.
    ReplicaOffer {
        /// The store.
        slave: TermView<'a>,
    },
}

/// The greeting of a primary that is a kvnode.
#[derive(Clone, Debug)]
pub struct Hello<'a> {
    /// The session that it begins.
    pub session: u64,
    /// The primary's lineage.
    pub lineage: Lineage,
    /// The number of its last write.
    pub seq: u64,
    /// What its clock says, in milliseconds.
    pub clock: u64,
    /// It was started without data, and this store not by hand as its slave.
    pub started_empty: bool,
    /// Its names, as a list.
    pub names: TermView<'a>,
    /// The names of its slaves, as a list.
    pub slaves: TermView<'a>,
}

impl<'a> Hello<'a> {
    /// Reads it; `None`: it is none.
    pub fn read(term: TermView<'a>) -> Option<Self> {
        let [_, session, lineage, seq, clock, names, slaves, started_empty] = term.as_tuple::<8>()?;
        Some(Self {
            session: session.as_unsigned()?,
            lineage: Lineage::read(lineage)?,
            seq: seq.as_unsigned()?,
            clock: clock.as_unsigned()?,
            started_empty: started_empty.is_atom("true"),
            names,
            slaves,
        })
    }
}

impl<'a> Request<'a> {
    /// Reads a call's request; `None` for one that is not of the protocol.
    #[inline]
    pub fn read(term: TermView<'a>) -> Option<Self> {
        let mut cursor = term.cursor();
        let Ok(arity) = cursor.tuple() else { return Self::read_atom(term) };
        let operation = cursor.atom().ok()?;
        Self::read_usual(term, arity, operation.as_bytes(), cursor)
    }

    /// The names of all requests that are read, each with the number of elements of its tuple; 0: it is an atom.
    pub fn known() -> impl Iterator<Item = (&'static str, usize)> {
        let atoms = Self::ATOMS.iter().map(|(name, _)| (*name, 0));
        named(Self::USUAL.iter().chain(Self::SELDOM).chain(Lookup::KNOWN).chain(Edit::KNOWN)).chain(atoms)
    }

    operations! {
        #[inline]
        fn read_usual<'a>(term, arity, operation, cursor) -> Self, USUAL;
        (2, b"get") => Some(Self::Get { key: term.tail_at(cursor) }),
        (3, b"put") => {
            let (key, value) = key_and_value(term, cursor)?;
            Some(Self::Put { key, value, options: WriteOptions::default() })
        },
        (2, b"delete") => Some(Self::Delete { key: term.tail_at(cursor), confirm: None }),
        (2, b"add_slave") => Some(Self::AddSlave { slave: term.tail_at(cursor) }),
        (2, b"remove_slave") => Some(Self::RemoveSlave { slave: term.tail_at(cursor) }),
        _ => Self::read_other(term),
    }

    #[cold]
    fn read_other(term: TermView<'a>) -> Option<Self> {
        let mut cursor = term.cursor();
        let arity = cursor.tuple().ok()?;
        let operation = cursor.atom().ok()?;
        Self::read_seldom(term, arity, operation.as_bytes(), cursor)
    }

    operations! {
        fn read_seldom<'a>(term, arity, operation, cursor) -> Self, SELDOM;
        (4, b"put") => {
            let mut parts = Parts::new(cursor, arity);
            let (key, value) = (parts.next()?.noticed_in(term), parts.next()?.noticed_in(term));
            Some(match parts.options(Takes::Ttl)? {
                Options::Known(options) => Self::Put { key, value, options },
                Options::Unknown(option) => Self::UnknownOption { option },
            })
        },
        (3, b"delete") => {
            let mut parts = Parts::new(cursor, arity);
            let key = parts.next()?.noticed_in(term);
            Some(match parts.options(Takes::NoTtl)? {
                Options::Known(WriteOptions { confirm, .. }) => Self::Delete { key, confirm },
                Options::Unknown(option) => Self::UnknownOption { option },
            })
        },
        (2, b"backup") => Some(Self::Backup { path: term.tail_at(cursor) }),
        (1, b"promote") => Some(Self::Promote { reports: false, is_forced: false }),
        (2, b"promote") => read_promote(term.tail_at(cursor)),
        (8, b"replica_hello") => Some(Self::ReplicaHello { hello: term }),
        (4, b"replica_ask") => {
            let ([session, seq, revision], _) = numbers(cursor)?;
            Some(Self::ReplicaAsk { session, seq, revision })
        },
        (2, b"replica_offer") => Some(Self::ReplicaOffer { slave: term.tail_at(cursor) }),
        _ => requests::read(term, arity, operation, cursor),
    }

    /// The requests that are atoms.
    const ATOMS: &'static [(&'static str, Request<'static>)] = &[
        ("slaves", Request::Slaves),
        ("status", Request::Status),
        ("count", Request::Lookup { lookup: Lookup::Count, consistency: None }),
        ("clear", Request::Edit { edit: Edit::Clear, options: WriteOptions::NONE }),
    ];

    #[cold]
    fn read_atom(term: TermView<'a>) -> Option<Self> {
        let atom = term.as_atom()?;
        Self::ATOMS.iter().find(|(name, _)| atom == *name).map(|(_, request)| *request)
    }
}

/// One key of [`FromPrimary::Many`].
#[derive(Clone, Copy, Debug)]
pub struct OneOfMany<'a> {
    /// The key.
    pub key: TermView<'a>,
    /// Its value with the revision, and the time at which it ends by the primary's clock (0: never); `None`: it is deleted.
    pub put: Option<(TermView<'a>, u64, u64)>,
}

impl<'a> OneOfMany<'a> {
    /// Reads `{revision, key, value}`, `{revision, deadline, key, value}` or `{key}`; `None`: it is none of these.
    pub fn read(change: TermView<'a>) -> Option<Self> {
        let mut cursor = change.cursor();
        let (revision, deadline) = match cursor.tuple().ok()? {
            1 => return Some(Self { key: change.tail_at(cursor), put: None }),
            3 => (cursor.unsigned().ok()?, 0),
            4 => (cursor.unsigned().ok()?, cursor.unsigned().ok()?),
            _ => return None,
        };
        let (key, value) = key_and_value(change, cursor)?;
        Some(Self { key, put: Some((value, revision_of(revision)?, deadline)) })
    }
}

/// Numbers, and the cursor behind them.
fn numbers<const N: usize>(mut cursor: Cursor<'_>) -> Option<([u64; N], Cursor<'_>)> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = cursor.unsigned().ok()?;
    }
    Some((numbers, cursor))
}

/// The revision of a value in another store; `None`: it is none.
fn revision_of(number: u64) -> Option<u64> {
    (REVISION_UNKNOWN..=REVISION_MAX).contains(&number).then_some(number)
}

fn read_promote(options: TermView<'_>) -> Option<Request<'_>> {
    let (mut reports, mut is_forced) = (false, false);
    for Keyword { name, word, value } in keywords(options).ok()? {
        let option = match word.as_bytes() {
            b"report" => &mut reports,
            b"force" => &mut is_forced,
            _ => return Some(Request::UnknownOption { option: name }),
        };
        *option = value.is_atom("true");
        if !*option && !value.is_atom("false") {
            return None;
        }
    }
    Some(Request::Promote { reports, is_forced })
}

/// A cast: from a primary to its slave, or from a former slave to its primary.
#[derive(Clone, Copy, Debug)]
pub enum Cast<'a> {
    /// `{:replicate_put, k, v}`
    ReplicatePut {
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
    },
    /// `{:replicate_delete, k}`
    ReplicateDelete {
        /// The key.
        key: TermView<'a>,
    },
    /// From a primary that is a kvnode.
    FromPrimary(FromPrimary<'a>),
    /// `{:replica_left, session}`, from a kvnode: it follows another primary now, or is one.
    ReplicaLeft {
        /// The session.
        session: u64,
    },
    /// `{:replica_superseded, session, store}`, from a kvnode: it has refused this primary of an older term.
    ReplicaSuperseded {
        /// The session.
        session: u64,
        /// `{:at, name, node}`
        store: TermView<'a>,
    },
}

/// A cast from a primary that is a kvnode, to one: see [`crate::replica::dialect`].
#[derive(Clone, Copy, Debug)]
pub enum FromPrimary<'a> {
    /// `{:replica_put, session, seq, revision, k, v}`, or `{:replica_put, session, seq, revision, deadline, k, v}`
    Put {
        /// The session.
        session: u64,
        /// The write's number.
        seq: u64,
        /// The key's revision with it.
        revision: u64,
        /// When it ends, by the primary's clock; 0: never.
        deadline: u64,
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
    },
    /// `{:replica_delete, session, seq, k}`
    Delete {
        /// The session.
        session: u64,
        /// The write's number.
        seq: u64,
        /// The key.
        key: TermView<'a>,
    },
    /// `{:replica_many, session, seq, changes}`: a write of several keys
    Many {
        /// The session.
        session: u64,
        /// The write's number.
        seq: u64,
        /// What becomes of the keys, as a list.
        changes: TermView<'a>,
    },
    /// `{:replica_clear, session, seq}`: all keys go
    Clear {
        /// The session.
        session: u64,
        /// The write's number.
        seq: u64,
    },
    /// `{:replica_copy, session, seq, mark}`
    Copy {
        /// The session.
        session: u64,
        /// The number of the last write before.
        seq: u64,
        /// What begins or ends.
        mark: CopyMark,
    },
    /// `{:replica_slaves, session, slaves}`
    Slaves {
        /// The session.
        session: u64,
        /// The names, as a list.
        slaves: TermView<'a>,
    },
    /// `{:replica_bye, session}`
    Bye {
        /// The session.
        session: u64,
    },
}

impl<'a> FromPrimary<'a> {
    operations! {
        #[inline]
        fn read<'a>(term, arity, operation, cursor) -> Self, KNOWN;
        (6, b"replica_put") => {
            let ([session, seq, revision], cursor) = numbers(cursor)?;
            let (key, value) = key_and_value(term, cursor)?;
            Some(Self::Put { session, seq, revision: revision_of(revision)?, deadline: 0, key, value })
        },
        (7, b"replica_put") => {
            let ([session, seq, revision, deadline], cursor) = numbers(cursor)?;
            let (key, value) = key_and_value(term, cursor)?;
            Some(Self::Put { session, seq, revision: revision_of(revision)?, deadline, key, value })
        },
        (4, b"replica_delete") => {
            let ([session, seq], cursor) = numbers(cursor)?;
            Some(Self::Delete { session, seq, key: term.tail_at(cursor) })
        },
        (4, b"replica_many") => {
            let ([session, seq], cursor) = numbers(cursor)?;
            Some(Self::Many { session, seq, changes: term.tail_at(cursor) })
        },
        (3, b"replica_clear") => {
            let ([session, seq], _) = numbers(cursor)?;
            Some(Self::Clear { session, seq })
        },
        (4, b"replica_copy") => {
            let ([session, seq], mut cursor) = numbers(cursor)?;
            let mark = CopyMark::read(cursor.atom().ok()?)?;
            Some(Self::Copy { session, seq, mark })
        },
        (3, b"replica_slaves") => {
            let ([session], cursor) = numbers(cursor)?;
            Some(Self::Slaves { session, slaves: term.tail_at(cursor) })
        },
        (2, b"replica_bye") => {
            let ([session], _) = numbers(cursor)?;
            Some(Self::Bye { session })
        },
        _ => None,
    }
}

/// A write that was too large to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SkippedWrite<'a> {
    /// From a primary that is a kvnode: `{:replica_put, session, seq, revision, key, …`, `{:replica_delete, session, seq, key`, or
    /// `{:replica_many, session, seq, …`
    Numbered {
        /// The session.
        session: u64,
        /// The write's number.
        seq: u64,
        /// What stands behind them: the key, if it is there.
        rest: &'a [u8],
    },
    /// From another: `{:replicate_put, …`, or `{:replicate_delete, …`
    Plain,
}

impl<'a> SkippedWrite<'a> {
    /// Reads the first bytes of a message; `None`: it is no write.
    pub fn read(beginning: &'a [u8]) -> Option<Self> {
        let mut cursor = Cursor::new(beginning);
        if cursor.tuple() != Ok(2) || cursor.atom().ok()? != "$gen_cast" {
            return None;
        }
        match (cursor.tuple().ok()?, cursor.atom().ok()?.as_bytes()) {
            (6, b"replica_put") => {
                let ([session, seq, _revision], cursor) = numbers(cursor)?;
                Some(Self::Numbered { session, seq, rest: cursor.rest() })
            }
            (7, b"replica_put") => {
                let ([session, seq, _revision, _deadline], cursor) = numbers(cursor)?;
                Some(Self::Numbered { session, seq, rest: cursor.rest() })
            }
            (4, b"replica_delete") => {
                let ([session, seq], cursor) = numbers(cursor)?;
                Some(Self::Numbered { session, seq, rest: cursor.rest() })
            }
            (4, b"replica_many") => {
                let ([session, seq], _) = numbers(cursor)?;
                Some(Self::Numbered { session, seq, rest: &[] })
            }
            (3, b"replicate_put") | (2, b"replicate_delete") => Some(Self::Plain),
            _ => None,
        }
    }
}

impl<'a> Cast<'a> {
    /// Reads a cast's request; `None` for one that is not of the protocol.
    #[inline]
    pub fn read(term: TermView<'a>) -> Option<Self> {
        let mut cursor = term.cursor();
        let arity = cursor.tuple().ok()?;
        let operation = cursor.atom().ok()?;
        Self::read_tuple(term, arity, operation.as_bytes(), cursor)
    }

    /// Whether it is a primary's write, or what goes with those.
    pub(super) const fn is_write(&self) -> bool {
        matches!(self, Self::ReplicatePut { .. } | Self::ReplicateDelete { .. } | Self::FromPrimary(_))
    }

    /// The names of all casts that are read, each with the number of elements of its tuple.
    pub fn known() -> impl Iterator<Item = (&'static str, usize)> {
        named(Self::KNOWN.iter().chain(FromPrimary::KNOWN))
    }

    operations! {
        #[inline]
        fn read_tuple<'a>(term, arity, operation, cursor) -> Self, KNOWN;
        (3, b"replicate_put") => {
            let (key, value) = key_and_value(term, cursor)?;
            Some(Self::ReplicatePut { key, value })
        },
        (2, b"replicate_delete") => Some(Self::ReplicateDelete { key: term.tail_at(cursor) }),
        (2, b"replica_left") => {
            let ([session], _) = numbers(cursor)?;
            Some(Self::ReplicaLeft { session })
        },
        (3, b"replica_superseded") => {
            let ([session], cursor) = numbers(cursor)?;
            Some(Self::ReplicaSuperseded { session, store: term.tail_at(cursor) })
        },
        _ => FromPrimary::read(term, arity, operation, cursor).map(Self::FromPrimary),
    }
}

/// The last two elements of a tuple.
#[inline]
fn key_and_value<'a>(term: TermView<'a>, mut cursor: Cursor<'a>) -> Option<(TermView<'a>, TermView<'a>)> {
    let key = cursor.term().ok()?;
    // What was noticed in the whole is asked of the parts: a value with a map is not told from a key with one.
    Some((key.noticed_in(term), term.tail_at(cursor)))
}
