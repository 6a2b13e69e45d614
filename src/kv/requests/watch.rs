//! `{:watch, options}`, `{:unwatch, ref}`: a process is told of each change ([`watch`](crate::kv::watch)).

use std::sync::Arc;

use super::keywords::{Keyword, Unread, keywords, pattern, prefix};
use super::{Refusal, Unserved, write_unknown_option};
use crate::etf::{Pid, Reference, TermView};
use crate::kv::reason::Reason;
use crate::kv::server::KeyValueServer;
use crate::kv::watch::{Begins, Refused, WATCHERS_MAX, Wants};
use crate::process::{Caller, Turn};
use crate::store::Store;

/// Bytes of the patterns and prefixes of all watchers of a store, as they are kept.
pub const WATCHED_PATTERNS_BYTES_MAX: usize = crate::kv::watch::PATTERNS_BYTES_MAX;

/// What a caller wants to be told.
struct Asked {
    wants: Wants,
    from: Option<u64>,
    initial: bool,
}

impl From<Refused> for Unserved {
    fn from(refused: Refused) -> Self {
        Self::Refused(match refused {
            Refused::TooMany => Refusal::TooMany(WATCHERS_MAX),
            Refused::PatternsTooLarge => Refusal::TooLarge(WATCHED_PATTERNS_BYTES_MAX),
            Refused::Busy => Refusal::Busy,
            Refused::TooOld => Refusal::TooOld,
        })
    }
}

impl Asked {
    fn read(options: TermView<'_>) -> Result<Self, Unread<'_>> {
        let wants = Wants { pattern: None, prefix: None, values: true };
        let mut asked = Self { wants, from: None, initial: false };
        for Keyword { name, word, value } in keywords(options)? {
            match word.as_bytes() {
                b"match" => asked.wants.pattern = Some(Arc::new(pattern(value)?)),
                b"prefix" => asked.wants.prefix = Some(Arc::new(prefix(value)?)),
                b"values" => asked.wants.values = truth(value)?,
                b"initial" => asked.initial = truth(value)?,
                b"from" => asked.from = Some(number(value)?),
                _ => return Err(Unread::Option(name)),
            }
        }
        // What has changed since is no part of what is there.
        if asked.initial && asked.from.is_some() {
            return Err(Unserved::Shape.into());
        }
        Ok(asked)
    }
}

fn truth(term: TermView<'_>) -> Result<bool, Unserved> {
    match () {
        () if term.is_atom("true") => Ok(true),
        () if term.is_atom("false") => Ok(false),
        () => Err(Unserved::Shape),
    }
}

/// An integer that is not negative: of those that are larger than any number of a store, one that no store has.
fn number(term: TermView<'_>) -> Result<u64, Unserved> {
    term.as_unsigned().ok_or(Unserved::Shape)
}

impl<S: Store> KeyValueServer<S> {
    pub(super) fn watch(
        &self,
        options: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        let Asked { wants, from, initial } = match Asked::read(options) {
            Ok(asked) => asked,
            Err(Unread::Unserved(unserved)) => return Err(unserved),
            Err(Unread::Option(name)) => {
                turn.reply(caller, |w| write_unknown_option(w, name, &self.watch));
                return Ok(());
            }
        };
        let pid = Pid::from(caller.pid());
        // A process of another node than that which the call came from could not be monitored by this connection.
        if *pid.node != *turn.peer {
            return Err(Unserved::Shape);
        }
        let begins = match from {
            _ if initial => Begins::Initial,
            Some(seq) => Begins::Behind(seq),
            None => Begins::Now,
        };
        let (reference, seq) = self.begin_watch(pid, wants, begins, turn)?;
        turn.reply(caller, |w| _ = w.tuple(3).atom("ok").reference(&reference).unsigned(seq));
        Ok(())
    }

    pub(super) fn unwatch(
        &self,
        reference: TermView<'_>,
        caller: &Caller<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), Unserved> {
        let reference = reference.as_reference().ok_or(Unserved::Shape)?;
        let is_over = turn.registry.is_own(&reference)
            && self.end_watch(&Pid::from(caller.pid()), &Reference::from(reference), turn);
        turn.reply(caller, |w| {
            if is_over {
                w.atom("ok");
            } else {
                self.watch.refused(Reason::NoWatch, w);
            }
        });
        Ok(())
    }
}
