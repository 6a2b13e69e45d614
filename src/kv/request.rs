//! The key-value protocol's requests: terms in, operations out. Slices of the received bytes, nothing copied.

use crate::etf::{Cursor, TermView};

/// A call.
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// `{:get, k}`: the value, or `nil`.
    Get {
        /// The key.
        key: TermView<'a>,
    },
    /// `{:put, k, v}`: `:ok`.
    Put {
        /// The key.
        key: TermView<'a>,
        /// The value.
        value: TermView<'a>,
    },
    /// `{:delete, k}`: `:ok`.
    Delete {
        /// The key.
        key: TermView<'a>,
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
}

impl<'a> Request<'a> {
    /// Reads a call's request; `None` for one that is not of the protocol.
    #[inline]
    pub fn read(term: TermView<'a>) -> Option<Self> {
        let mut cursor = term.cursor();
        let Ok(arity) = cursor.tuple() else { return Self::read_atom(term) };
        let operation = cursor.atom().ok()?;
        match (arity, operation.as_bytes()) {
            (2, b"get") => Some(Self::Get { key: term.tail_at(cursor) }),
            (3, b"put") => {
                let (key, value) = key_and_value(term, cursor)?;
                Some(Self::Put { key, value })
            }
            (2, b"delete") => Some(Self::Delete { key: term.tail_at(cursor) }),
            (2, b"add_slave") => Some(Self::AddSlave { slave: term.tail_at(cursor) }),
            (2, b"remove_slave") => Some(Self::RemoveSlave { slave: term.tail_at(cursor) }),
            (2, b"backup") => Some(Self::Backup { path: term.tail_at(cursor) }),
            _ => None,
        }
    }

    #[cold]
    fn read_atom(term: TermView<'a>) -> Option<Self> {
        match term.as_atom()?.as_bytes() {
            b"slaves" => Some(Self::Slaves),
            b"status" => Some(Self::Status),
            _ => None,
        }
    }
}

/// A cast: from a primary to its slave.
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
}

impl<'a> Cast<'a> {
    /// Reads a cast's request; `None` for one that is not of the protocol.
    #[inline]
    pub fn read(term: TermView<'a>) -> Option<Self> {
        let mut cursor = term.cursor();
        let arity = cursor.tuple().ok()?;
        let operation = cursor.atom().ok()?;
        match (arity, operation.as_bytes()) {
            (3, b"replicate_put") => {
                let (key, value) = key_and_value(term, cursor)?;
                Some(Self::ReplicatePut { key, value })
            }
            (2, b"replicate_delete") => Some(Self::ReplicateDelete { key: term.tail_at(cursor) }),
            _ => None,
        }
    }
}

/// The last two elements of a tuple.
#[inline]
fn key_and_value<'a>(term: TermView<'a>, mut cursor: Cursor<'a>) -> Option<(TermView<'a>, TermView<'a>)> {
    let key = cursor.term().ok()?;
    // What was noticed in the whole is asked of the parts: a value with a map is not told from a key with one.
    Some((key.noticed_in(term), term.tail_at(cursor)))
}
