//! What stands at the end of a request: `confirm: n` of one that writes, `consistency: c` of one that reads.

use super::Consistency;
use crate::etf::{Cursor, TermView};

/// Options that are looked at.
const OPTIONS_MAX: usize = 16;

/// The elements of a request that are still to be read.
pub(in crate::kv) struct Parts<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

/// How long a key has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ttl {
    /// Nothing is said.
    #[default]
    Unsaid,
    /// `:infinity`
    Infinity,
    /// Milliseconds from now on.
    Millis(u64),
}

impl Ttl {
    /// A positive integer, or `:infinity`.
    pub(in crate::kv) fn read(term: TermView<'_>) -> Option<Self> {
        if term.is_atom("infinity") {
            return Some(Self::Infinity);
        }
        term.as_unsigned().filter(|millis| *millis > 0).map(Self::Millis)
    }
}

/// What a caller wants of a write, beside that it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `confirm: n`: the slaves that are to have it before it is answered; `None`: as the store is started with.
    pub confirm: Option<u32>,
    /// `ttl: ms`
    pub ttl: Ttl,
}

impl WriteOptions {
    /// Nothing is said.
    pub(in crate::kv) const NONE: Self = Self { confirm: None, ttl: Ttl::Unsaid };
}

/// Whether a request leaves something that can end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::kv) enum Takes {
    Ttl,
    NoTtl,
}

/// What is said at the end of a request that writes.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) enum Options<'a> {
    Known(WriteOptions),
    /// There is one of another name, this.
    Unknown(TermView<'a>),
}

impl<'a> Parts<'a> {
    /// Those behind the first, the request's name, at a cursor behind that.
    pub(in crate::kv) const fn new(cursor: Cursor<'a>, arity: usize) -> Self {
        Self { cursor, left: arity.saturating_sub(1) }
    }

    /// The next, with what was noticed in itself.
    pub(in crate::kv) fn next(&mut self) -> Option<TermView<'a>> {
        self.left = self.left.checked_sub(1)?;
        self.cursor.term().ok()
    }

    /// The next, where it is there and not the options: these are a list.
    pub(in crate::kv) fn next_unless_list(&mut self) -> Option<TermView<'a>> {
        let mut ahead = self.cursor;
        let left = self.left.checked_sub(1)?;
        let part = ahead.term().ok().filter(|part| !part.is_list())?;
        (self.cursor, self.left) = (ahead, left);
        Some(part)
    }

    /// The options, which are the rest; `None`: the rest is no such thing.
    pub(in crate::kv) fn options(&mut self, takes: Takes) -> Option<Options<'a>> {
        if self.left == 0 {
            return Some(Options::Known(WriteOptions::default()));
        }
        let options = self.next()?.elements(OPTIONS_MAX).filter(|_| self.left == 0)?;
        let mut known = WriteOptions::default();
        for option in options {
            let [name, value] = option.as_tuple::<2>()?;
            // The first counts, as in `Keyword.get/2`.
            if name.as_atom()? == "confirm" {
                let slaves = value.as_unsigned()?.try_into().ok()?;
                known.confirm = known.confirm.or(Some(slaves));
            } else if takes == Takes::Ttl && name.is_atom("ttl") {
                let ttl = Ttl::read(value)?;
                known.ttl = if known.ttl == Ttl::Unsaid { ttl } else { known.ttl };
            } else {
                return Some(Options::Unknown(name));
            }
        }
        Some(Options::Known(known))
    }

    /// The options of a request that reads, which are the rest: what they say of its consistency, or one of another name. `None`: the
    /// rest is no such thing.
    pub(in crate::kv) fn consistency(&mut self) -> Option<Result<Option<Consistency>, TermView<'a>>> {
        let options = self.next()?.elements(OPTIONS_MAX).filter(|_| self.left == 0)?;
        let mut known = None;
        for option in options {
            let [name, value] = option.as_tuple::<2>()?;
            if name.as_atom()? != "consistency" {
                return Some(Err(name));
            }
            let consistency = Consistency::read(value)?;
            known = known.or(Some(consistency));
        }
        Some(Ok(known))
    }
}
