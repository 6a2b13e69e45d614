//! What a message to a process is: one of `gen`'s, or any other term.

use super::{Caller, SkippedMessage};
use crate::etf::{Cursor, TermError, TermView};

/// A message, read as far as a server needs it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Message<'a> {
    /// `{:"$gen_call", {Pid, Tag}, Request}`
    Call(Caller<'a>, TermView<'a>),
    /// `{:"$gen_cast", Request}`
    Cast(TermView<'a>),
    /// `{:system, {Pid, Tag}, Request}`
    System(Caller<'a>, TermView<'a>),
    /// Anything else, and what only begins like one of those.
    Info(TermView<'a>),
    /// One that was too large to be received, and is no call. ([`parse`](Self::parse) gives none.)
    Skipped(SkippedMessage<'a>),
}

/// How a message begins that was not received whole.
#[derive(Clone, Copy, Debug)]
pub(super) enum Beginning<'a> {
    /// `{:"$gen_call", {Pid, Tag}, …` or `{:system, {Pid, Tag}, …`
    Call(Caller<'a>),
    /// Anything else.
    Other,
}

impl<'a> Beginning<'a> {
    /// Reads the first bytes of a payload, without its version byte.
    pub(super) fn read(payload: &'a [u8]) -> Self {
        let mut cursor = Cursor::new(payload);
        let mut call = || -> Result<Option<Caller<'a>>, TermError> {
            Ok(match (cursor.tuple()?, cursor.atom()?.as_bytes()) {
                (3, b"$gen_call" | b"system") => Some(Caller::parse(&mut cursor)?),
                _ => None,
            })
        };
        call().ok().flatten().map_or(Self::Other, Self::Call)
    }
}

impl<'a> Message<'a> {
    /// Reads a whole payload, without its version byte. Every byte of it is checked once.
    ///
    /// # Errors
    /// The sender's: it is not a term.
    #[inline]
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, TermError> {
        match Self::of_gen(payload) {
            Ok(Some(message)) => Ok(message),
            Ok(None) | Err(_) => TermView::parse(payload).map(Self::Info),
        }
    }

    /// The caller that waits for its answer.
    pub(super) const fn caller(&self) -> Option<&Caller<'a>> {
        match self {
            Self::Call(caller, _) | Self::System(caller, _) => Some(caller),
            Self::Cast(_) | Self::Info(_) | Self::Skipped(_) => None,
        }
    }

    #[inline]
    fn of_gen(payload: &'a [u8]) -> Result<Option<Self>, TermError> {
        let mut cursor = Cursor::new(payload);
        let arity = cursor.tuple()?;
        let kind = cursor.atom()?;
        let message = match (arity, kind.as_bytes()) {
            (3, b"$gen_call") => Self::Call(Caller::parse(&mut cursor)?, cursor.term()?),
            (2, b"$gen_cast") => Self::Cast(cursor.term()?),
            (3, b"system") => Self::System(Caller::parse(&mut cursor)?, cursor.term()?),
            _ => return Ok(None),
        };
        cursor.end()?;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Pid, TermWriter, encode};

    fn kind(write: impl FnOnce(&mut TermWriter<'_>)) -> &'static str {
        match Message::parse(&encode(write)).expect("a term") {
            Message::Call(..) => "call",
            Message::Cast(_) => "cast",
            Message::System(..) => "system",
            Message::Info(_) => "info",
            Message::Skipped(_) => "skipped",
        }
    }

    #[test]
    fn what_only_looks_like_a_call_is_a_message_like_any_other() {
        let pid = Pid { node: "a@b".into(), id: 1, serial: 0, creation: 1 };
        let from = |w: &mut TermWriter<'_>| {
            w.tuple(2).pid(&pid).nil();
        };
        assert_eq!(
            kind(|w| {
                w.tuple(3).atom("$gen_call");
                from(w);
                w.atom("request");
            }),
            "call"
        );
        assert_eq!(
            kind(|w| {
                w.tuple(3).atom("system");
                from(w);
                w.atom("get_state");
            }),
            "system"
        );
        assert_eq!(
            kind(|w| {
                w.tuple(2).atom("$gen_cast").nil();
            }),
            "cast"
        );
        for head in ["$gen_call", "system", "hello"] {
            assert_eq!(
                kind(|w| {
                    w.tuple(3).atom(head).atom("no_from").nil();
                }),
                "info"
            );
        }
        assert_eq!(
            kind(|w| {
                w.atom("$gen_call");
            }),
            "info"
        );
    }

    #[test]
    fn what_is_no_term_is_an_error() {
        for bytes in [&b""[..], &[104, 3, 119, 9], &[97, 1, 97], &[104, 2, 119, 1, b'x']] {
            assert!(Message::parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
