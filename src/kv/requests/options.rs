//! What stands at the end of a request that writes: `confirm: n`.

use crate::etf::{Cursor, TermView};

/// Options that are looked at.
const OPTIONS_MAX: usize = 16;

/// The elements of a request that are still to be read.
pub(in crate::kv) struct Parts<'a> {
    cursor: Cursor<'a>,
    left: usize,
}

/// What is said at the end of a request that writes.
#[derive(Clone, Copy, Debug)]
pub(in crate::kv) enum Options<'a> {
    /// `confirm: n`, where it is there: the slaves that are to have the write before it is answered.
    Known(Option<u32>),
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
    pub(in crate::kv) fn options(&mut self) -> Option<Options<'a>> {
        if self.left == 0 {
            return Some(Options::Known(None));
        }
        let options = self.next()?.elements(OPTIONS_MAX).filter(|_| self.left == 0)?;
        let mut confirm = None;
        for option in options {
            let [name, value] = option.as_tuple::<2>()?;
            if name.as_atom()? != "confirm" {
                return Some(Options::Unknown(name));
            }
            let slaves = value.as_unsigned()?.try_into().ok()?;
            // The first counts, as in `Keyword.get/2`.
            confirm = confirm.or(Some(slaves));
        }
        Some(Options::Known(confirm))
    }
}
