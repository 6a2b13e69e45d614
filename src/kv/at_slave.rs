//! A caller's write at a store that follows a primary of the kvnode kind, and a read there that is to miss nothing.
//!
//! Taken, it would be there alone: the primary does not have it, the other slaves neither, and the next copy drops it. So it
//! is refused with the primary's name, or handed on to the primary. A store whose primary is an Elixir server takes writes,
//! as the Elixir modules do. So does a store that was a slave before a restart and has not been greeted since, as it does not
//! know its primary; what its primary copies over then is kept in a file.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::figures::{Served, StoreWatch};
use super::reason::Reason;
use super::server::KeyValueServer;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid, TermView, TermWriter};
use crate::process::{Caller, Dispatch, OwnedCaller, Turn};
use crate::replica::upstream::Input;
use crate::store::Store;

/// Writes of one store that may be at its primary: past it a write is refused.
const FORWARDED_MAX: usize = 4096;

/// What becomes of a caller's write at a slave of a kvnode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SlaveWrites {
    /// It goes into the slave alone, as at an Elixir server.
    Accept,
    /// It is answered `{:error, {:slave_of, primary}}`, with the primary's global name or pid.
    #[default]
    Refuse,
    /// The primary gets it, and its answer is the answer.
    Forward,
}

impl SlaveWrites {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Accept, Self::Refuse, Self::Forward];

    /// Its word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Refuse => "refuse",
            Self::Forward => "forward",
        }
    }

    /// Reads its [`code`](Self::code).
    pub fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|writes| writes.code() == code)
    }
}

/// A caller's write that is for the primary of its store.
pub struct Forward {
    /// The store that was asked.
    pub store: Pid,
    /// Its primary.
    pub primary: Pid,
    /// The request as it came.
    pub request: OwnedTerm,
    caller: OwnedCaller,
    dispatch: Arc<dyn Dispatch>,
    figures: Arc<StoreWatch>,
    /// How callers get to the primary.
    known_as: ServerRef,
    _room: Room,
}

/// A place among those that may be under way.
struct Room(Arc<AtomicUsize>);

impl Room {
    fn take(count: &Arc<AtomicUsize>) -> Option<Self> {
        let room = Self(Arc::clone(count));
        // What does not fit gives its place back as it is dropped.
        (count.fetch_add(1, Ordering::Relaxed) < FORWARDED_MAX).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Forward {
    /// The primary has answered.
    pub fn answered(self, answer: TermView<'_>) {
        self.caller.reply(&*self.dispatch, |w| _ = w.term(answer));
    }

    /// The primary was not reached: the write is nowhere, and the caller is told where it belongs.
    pub fn not_sent(self) {
        let known_as = self.known_as;
        self.caller.reply(&*self.dispatch, |w| write_slave_of(w, &known_as, &self.figures));
    }

    /// The primary was reached, and has not answered: whether it has the write is unknown. The call ends with
    /// `{reason, {:slave_of, primary}}`.
    pub fn lost(self, reason: &str) {
        let known_as = self.known_as;
        self.caller.end_call(&*self.dispatch, |w| {
            w.tuple(2).atom(reason).tuple(2).atom(Reason::SlaveOf.code());
            known_as.write(w);
        });
    }
}

impl fmt::Debug for Forward {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forward")
            .field("store", &self.store)
            .field("primary", &self.primary)
            .finish_non_exhaustive()
    }
}

/// `{:error, {:slave_of, primary}}`
fn write_slave_of(w: &mut TermWriter<'_>, primary: &ServerRef, figures: &StoreWatch) {
    write_slave(w, figures);
    primary.write(w);
}

/// `{:error, {:slave_of,`
fn write_slave(w: &mut TermWriter<'_>, figures: &StoreWatch) {
    figures.count_not_done(Reason::SlaveOf);
    w.tuple(2).atom("error").tuple(2).atom(Reason::SlaveOf.code());
}

impl<S: Store> KeyValueServer<S> {
    /// Refuses a read that is to miss nothing where the store may lack what another one has: by `{:error, {:slave_of, primary}}`, with
    /// `nil` where its primary is not known. So it is of a store that was started again and not greeted since, and of one that an
    /// Elixir server has sent writes. Where the primary is elected, a store that is not it refuses, by `{:error, :no_primary}` where it knows of none. Gives
    /// whether it was refused.
    #[cold]
    pub(super) fn refuse_at_slave(&self, caller: &Caller<'_>, turn: &mut Turn<'_>) -> bool {
        let (may_lack, primary) = self
            .upstream
            .with(|machine| (machine.may_lack(), machine.primary().map(|primary| primary.known_as())));
        if self.is_elected() {
            if self.is_elected_primary() {
                return false;
            }
            if !self.upstream.with(|machine| machine.primary().is_some_and(|primary| primary.is_there)) {
                turn.reply(caller, |w| self.watch.refused(Reason::NoPrimary, w));
                return true;
            }
        } else if !may_lack && self.watch.last_replicated_from().is_none() {
            return false;
        }
        turn.reply(caller, |w| match &primary {
            Some(primary) => write_slave_of(w, primary, &self.watch),
            None => {
                write_slave(w, &self.watch);
                w.atom("nil");
            }
        });
        true
    }

    /// A caller's write where that is of matter to the store as a slave. Gives whether it is over with that.
    #[cold]
    pub(super) fn write_at_slave(
        &self,
        request: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> bool {
        if self.is_elected_primary() {
            return false;
        }
        let known = self.upstream.with(|machine| {
            let primary = machine.primary()?;
            Some((primary.greeting.pid.clone(), primary.known_as(), primary.is_there))
        });
        if self.is_elected() && known.as_ref().is_none_or(|(.., is_there)| !is_there) {
            turn.reply(caller, |w| self.watch.refused(Reason::NoPrimary, w));
            return true;
        }
        let Some((pid, known_as, is_there)) = known else {
            let outputs = self.upstream.hand(Input::OwnWrite);
            self.carry_out(outputs, None, turn);
            return false;
        };
        self.watch.count(Served::AtSlave);
        let writes = self.slave_writes;
        if self.slave_write_said.first() {
            let (store, peer) = (turn.me, turn.peer);
            let becomes = match writes {
                SlaveWrites::Accept => "it is taken here alone, and the next copy drops it",
                SlaveWrites::Refuse => "it is refused with the primary's name",
                SlaveWrites::Forward => "its primary gets it",
            };
            tracing::warn!(?store, %peer, primary = %known_as, "a caller writes to this slave: {becomes} (--slave-writes)");
        }
        match writes {
            SlaveWrites::Accept => return false,
            SlaveWrites::Refuse => turn.reply(caller, |w| write_slave_of(w, &known_as, &self.watch)),
            SlaveWrites::Forward => match Room::take(&self.forwarded).filter(|_| is_there) {
                None => turn.reply(caller, |w| write_slave_of(w, &known_as, &self.watch)),
                Some(room) => self.follow.forward(Forward {
                    store: turn.me.pid.clone(),
                    primary: pid,
                    request: OwnedTerm::from(request),
                    caller: caller.to_owned(&turn.me.pid),
                    dispatch: Arc::clone(&self.dispatch),
                    figures: Arc::clone(&self.watch),
                    known_as,
                    _room: room,
                }),
            },
        }
        true
    }
}
