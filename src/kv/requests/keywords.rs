//! The options of a request that changes nothing: a keyword list, of which each request knows names of its own.

use super::{PATTERN_BYTES_MAX, Refusal, Unserved};
use crate::etf::order::TermRange;
use crate::etf::pattern::{Pattern, PatternError};
use crate::etf::{AtomView, TermView};

/// Options that are looked at.
const OPTIONS_MAX: usize = 16;

/// Why the options are none of the request.
pub(super) enum Unread<'a> {
    Unserved(Unserved),
    /// There is no option of this name.
    Option(TermView<'a>),
}

impl<T: Into<Unserved>> From<T> for Unread<'_> {
    fn from(unserved: T) -> Self {
        Self::Unserved(unserved.into())
    }
}

impl From<PatternError> for Unread<'_> {
    fn from(error: PatternError) -> Self {
        Self::Unserved(match error {
            PatternError::Variable => Unserved::Shape,
            PatternError::Term(error) => Unserved::Term(error),
        })
    }
}

/// An option.
pub(in crate::kv) struct Keyword<'a> {
    /// Its name, as it came.
    pub(in crate::kv) name: TermView<'a>,
    pub(in crate::kv) word: AtomView<'a>,
    pub(in crate::kv) value: TermView<'a>,
}

/// The options, the last first: where a name comes twice the first counts, as in `Keyword.get/2`.
pub(in crate::kv) fn keywords<'a>(options: TermView<'a>) -> Result<Vec<Keyword<'a>>, Unserved> {
    let options = options.elements(OPTIONS_MAX).ok_or(Unserved::Shape)?;
    let read = |option: TermView<'a>| {
        let [name, value] = option.as_tuple::<2>()?;
        Some(Keyword { name, word: name.as_atom()?, value })
    };
    options.into_iter().rev().map(read).collect::<Option<_>>().ok_or(Unserved::Shape)
}

/// The pattern of `match:`.
pub(super) fn pattern(value: TermView<'_>) -> Result<Pattern, Unread<'static>> {
    if value.bytes().len() > PATTERN_BYTES_MAX {
        return Err(Refusal::TooLarge(PATTERN_BYTES_MAX).into());
    }
    Ok(Pattern::new(value)?)
}

/// The range of `prefix:`.
pub(super) fn prefix(value: TermView<'_>) -> Result<TermRange, Unserved> {
    if value.bytes().len() > PATTERN_BYTES_MAX {
        return Err(Refusal::TooLarge(PATTERN_BYTES_MAX).into());
    }
    Ok(TermRange::prefix(value)?.ok_or(Refusal::BadPrefix)?)
}
