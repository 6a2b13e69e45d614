//! The key-value protocol's requests: terms in, operations out. Slices of the received bytes, nothing copied.

use crate::etf::TermView;

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
}

impl<'a> Request<'a> {
    /// Reads a call's request; `None` for one that is not of the protocol.
    #[inline]
    pub fn read(term: TermView<'a>) -> Option<Self> {
        if let Some([operation, argument]) = term.as_tuple::<2>() {
            let operation = operation.as_atom()?;
            return if operation == "get" {
                Some(Self::Get { key: argument })
            } else if operation == "delete" {
                Some(Self::Delete { key: argument })
            } else if operation == "add_slave" {
                Some(Self::AddSlave { slave: argument })
            } else {
                None
            };
        }
        let [operation, key, value] = term.as_tuple::<3>()?;
        operation.is_atom("put").then_some(Self::Put { key, value })
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
        if let Some([operation, key, value]) = term.as_tuple::<3>() {
            return operation.is_atom("replicate_put").then_some(Self::ReplicatePut { key, value });
        }
        let [operation, key] = term.as_tuple::<2>()?;
        operation.is_atom("replicate_delete").then_some(Self::ReplicateDelete { key })
    }
}
