//! `consistency:`, how new the answer of a read is. A read that is to miss nothing waits until the store has caught up with all
//! processes that serve it, and then goes the way of every other read.

use std::sync::{Arc, Weak};

use crate::distribution::DistributionFlags;
use crate::etf::TermView;
use crate::kv::KeyValueServer;
use crate::kv::reason::write_error;
use crate::process::{Caller, OwnedCaller, Turn};
use crate::store::{Done, Store};

/// How new the answer of a read is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Consistency {
    /// Not older than what was read or written before at this store's process. Another process that serves the same store, or its primary,
    /// may have answered something newer.
    #[default]
    Session,
    /// Not older than what any process of the store had answered when the read was asked.
    Linearizable,
}

impl Consistency {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Session, Self::Linearizable];

    /// Its word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Linearizable => "linearizable",
        }
    }

    /// Reads its [`code`](Self::code).
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|consistency| consistency.code() == code)
    }

    /// Reads the value of `consistency:`.
    pub(super) fn read(value: TermView<'_>) -> Option<Self> {
        Self::ALL.into_iter().find(|consistency| value.is_atom(consistency.code()))
    }
}

/// A read that is carried out when the store has caught up: for this caller, whose node offers these flags where the call came from
/// there.
pub(super) type LateRead<S> =
    Box<dyn FnOnce(&KeyValueServer<S>, OwnedCaller, Option<DistributionFlags>) + Send>;

impl<S: Store> KeyValueServer<S> {
    /// Sets the consistency of reads without `consistency:`. [Shared](Store::IS_SHARED) stores alone use it: any other answers each read by
    /// all that it has.
    pub fn reading(mut self, consistency: Consistency) -> Self {
        self.consistency = consistency;
        self
    }

    /// Whether a read that says this is to miss nothing.
    pub(super) fn is_linearizable(&self, said: Option<Consistency>) -> bool {
        let default = if S::IS_SHARED { self.consistency } else { Consistency::Session };
        said.unwrap_or(default) == Consistency::Linearizable
    }

    /// Whether a read that is to miss nothing can be carried out now. If not, it is answered: by an error, or by `late`, which holds so many
    /// bytes until the store has caught up.
    pub(super) fn has_caught_up(
        &self,
        bytes: usize,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
        late: impl FnOnce() -> LateRead<S>,
    ) -> bool {
        if !S::IS_SHARED && self.refuse_at_slave(caller, turn) {
            return false;
        }
        let later = || -> Done {
            let flags = (caller.node() == *turn.peer).then_some(turn.flags);
            let (caller, late, this) = (caller.to_owned(&turn.me.pid), late(), Weak::clone(&self.this));
            let (dispatch, figures) = (Arc::clone(&self.dispatch), Arc::clone(&self.watch));
            Box::new(move |caught_up| match (caught_up, this.upgrade()) {
                (Err(error), _) => caller.reply(&*dispatch, |w| write_error(w, &error, &figures)),
                (Ok(()), Some(server)) => late(&server, caller, flags),
                // The server has ended, which its callers are told.
                (Ok(()), None) => {}
            })
        };
        match self.store().catch_up_holding(bytes, later) {
            None => false,
            Some(Ok(())) => true,
            Some(Err(error)) => {
                turn.reply(caller, |w| write_error(w, &error, &self.watch));
                false
            }
        }
    }
}
