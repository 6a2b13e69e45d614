//! What a request that decides by what is there is answered, and what its caller can be given.

use super::Refusal;
use crate::distribution::{DistributionFlags, LARGE_BYTES};
use crate::etf::{SharedBytes, TermWriter, encode};
use crate::kv::figures::StoreWatch;
use crate::kv::reason::Reason;
use crate::kv::server::undecodable;
use crate::process::{Caller, Dispatch, OwnedCaller, Turn};
use crate::store::Value;

/// What the caller gets once the store has done what was decided.
#[derive(Clone, Debug)]
pub(in crate::kv) enum Outcome {
    /// An atom.
    Atom(&'static str),
    /// An encoded term.
    Term(Vec<u8>),
    /// The same, in memory that others have too.
    Shared(SharedBytes),
    /// An encoded term that says so: what is there is not what was expected, and nothing has changed.
    Conflict(Reason, Vec<u8>),
    /// `{:error, reason}`: nothing has changed.
    Refused(Refusal),
    /// The call ends, and nothing has changed: the caller's node cannot decode what it would get.
    Undecodable,
    /// The same is asked again when there is room for the answer: nothing has changed.
    NoRoom,
}

impl Outcome {
    pub(in crate::kv) const OK: Self = Self::Atom("ok");
    pub(super) const NIL: Self = Self::Atom("nil");

    pub(super) const fn bool(is: bool) -> Self {
        Self::Atom(if is { "true" } else { "false" })
    }

    /// The bytes that it holds.
    pub(in crate::kv) fn bytes(&self) -> usize {
        match self {
            Self::Term(bytes) | Self::Conflict(_, bytes) => bytes.len(),
            Self::Shared(shared) => shared.len(),
            Self::Atom(_) | Self::Refused(_) | Self::Undecodable | Self::NoRoom => 0,
        }
    }

    fn write(&self, w: &mut TermWriter<'_>, figures: &StoreWatch) {
        match self {
            Self::Atom(atom) => _ = w.atom(atom),
            Self::Term(bytes) => _ = w.raw(bytes),
            Self::Conflict(reason, bytes) => {
                figures.count_not_done(*reason);
                w.raw(bytes);
            }
            Self::Shared(shared) => _ = w.raw(shared),
            Self::Refused(refusal) => refusal.write(w, figures),
            Self::Undecodable | Self::NoRoom => _ = w.atom("nil"),
        }
    }

    /// Answers the call that is being handled.
    pub(super) fn reply(self, caller: &Caller<'_>, figures: &StoreWatch, turn: &mut Turn<'_>) {
        match self {
            Self::Undecodable => turn.end_call(caller, |w| undecodable(w, figures)),
            Self::NoRoom => turn.wait_for_room(),
            Self::Shared(shared) => turn.reply_shared(caller, shared),
            outcome => turn.reply(caller, |w| outcome.write(w, figures)),
        }
    }

    /// Answers a call that was handled before.
    pub(in crate::kv) fn send(self, caller: OwnedCaller, dispatch: &dyn Dispatch, figures: &StoreWatch) {
        match self {
            Self::Undecodable => caller.end_call(dispatch, |w| undecodable(w, figures)),
            outcome => caller.reply(dispatch, |w| outcome.write(w, figures)),
        }
    }
}

impl Refusal {
    const fn reason(self) -> Reason {
        match self {
            Self::NotAnInteger => Reason::NotAnInteger,
            Self::TooMany(_) => Reason::TooMany,
            Self::TooLarge(_) => Reason::TooLarge,
            Self::Unordered => Reason::Unordered,
            Self::BadPrefix => Reason::BadPrefix,
            Self::PrefixAndRange => Reason::PrefixAndRange,
            Self::BadCursor => Reason::BadCursor,
            Self::Busy => Reason::Busy,
            Self::TooOld => Reason::TooOld,
        }
    }

    /// Writes `{:error, reason}`, and counts it.
    pub(super) fn write(self, w: &mut TermWriter<'_>, figures: &StoreWatch) {
        let reason = self.reason();
        figures.count_not_done(reason);
        w.tuple(2).atom("error");
        match self {
            Self::TooMany(bound) | Self::TooLarge(bound) => {
                w.tuple(2).atom(reason.code()).unsigned(bound as u64)
            }
            _ => w.atom(reason.code()),
        };
    }
}

/// What the node of a caller can be given.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader {
    flags: DistributionFlags,
    /// There is room for large answers.
    has_room: bool,
}

impl Reader {
    pub(super) fn of(turn: &Turn<'_>) -> Self {
        Self { flags: turn.flags, has_room: turn.has_room(usize::MAX) }
    }

    /// The same caller, to be answered later: what has no room then ends the call.
    pub(super) const fn later(self) -> Self {
        Self { has_room: true, ..self }
    }

    /// The answer that gives a value, or why it cannot be given.
    ///
    /// # Errors
    /// Nothing is to change then.
    pub(super) fn give(self, value: Option<Value<'_>>) -> Result<Outcome, Outcome> {
        self.check(value)?;
        Ok(match value {
            None => Outcome::NIL,
            Some(Value { shared: Some(shared), .. }) => Outcome::Shared(shared.clone()),
            Some(value) => Outcome::Term(value.bytes.to_vec()),
        })
    }

    /// The answer that something else is there than was expected, `{:error, {:conflict, present}}`, or why it cannot be given.
    pub(super) fn conflict(self, present: Option<Value<'_>>) -> Outcome {
        self.check(present).err().unwrap_or_else(|| {
            let told = encode(|w| {
                w.tuple(2).atom("error").tuple(2).atom(Reason::Conflict.code());
                match present {
                    None => w.atom("absent"),
                    Some(value) => w.tuple(3).atom("value").raw(value.bytes).unsigned(value.revision),
                };
            });
            Outcome::Conflict(Reason::Conflict, told)
        })
    }

    /// The answer that is this term, or that there is no room for it.
    pub(super) fn fits(self, answer: Vec<u8>) -> Outcome {
        if self.lacks_room(answer.len()) { Outcome::NoRoom } else { Outcome::Term(answer) }
    }

    fn check(self, value: Option<Value<'_>>) -> Result<(), Outcome> {
        match value {
            Some(value) if !self.flags.can_decode(value.traits) => Err(Outcome::Undecodable),
            Some(value) if self.lacks_room(value.bytes.len()) => Err(Outcome::NoRoom),
            _ => Ok(()),
        }
    }

    const fn lacks_room(self, bytes: usize) -> bool {
        !self.has_room && bytes >= LARGE_BYTES
    }
}
