//! Why a text is no term.

use std::fmt;

/// Why a text is no term, and where: the fault of the person who typed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseError {
    /// Where, in bytes from the beginning.
    pub offset: usize,
    /// The line, from 1 on.
    pub line: usize,
    /// The column, in characters from 1 on.
    pub column: usize,
    /// What is wrong there.
    pub problem: ParseProblem,
}

impl ParseError {
    pub(super) fn at(text: &str, offset: usize, problem: ParseProblem) -> Self {
        let offset = text.floor_char_boundary(offset);
        let before = &text[..offset];
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        Self {
            offset,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            problem,
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 1 {
            write!(f, "line {}, ", self.line)?;
        }
        write!(f, "column {}: {}", self.column, self.problem)
    }
}

impl std::error::Error for ParseError {}

/// What is wrong with a text that should have been a term.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseProblem {
    /// The text ends where something else is due.
    #[error("the text ends here, and {wanted} is missing")]
    Ends {
        /// What is due.
        wanted: &'static str,
    },
    /// Something else stands where this is due.
    #[error("{0} should stand here")]
    Wanted(&'static str),
    /// Something that Elixir has and that cannot be typed here; what to write instead.
    #[error("{0}")]
    Unsupported(&'static str),
    /// A name that is a variable or a function to Elixir.
    #[error("{0} is a variable or a function to Elixir; write :{0} for the atom, or \"{0}\" for the text")]
    Variable(String),
    /// A number that is written wrong, or too large.
    #[error("{0}")]
    Number(&'static str),
    /// An escape sequence that is none.
    #[error("no escape sequence; write \\xHH or \\u{{H…}} with hexadecimal digits")]
    Escape,
    /// A text that is not UTF-8, for an atom or a charlist.
    #[error("an atom or a charlist has to be UTF-8, and this is not")]
    NotUtf8,
    /// An atom of more than 255 characters.
    #[error("an atom has 255 characters at most")]
    AtomTooLong,
    /// A pair behind which none without a key may stand.
    #[error("behind `key: value` only such pairs may stand")]
    AfterKeywords,
    /// No blank behind the colon of a key.
    #[error("behind the colon of a key a blank has to stand, as in `key: 1`")]
    KeyWithoutBlank,
    /// A map with one key twice.
    #[error("this map has a key twice")]
    DuplicateKey,
    /// A pid, reference or port that says its node by a number, where it is not known which node is meant.
    #[error(
        "this says its node by a number that means something only to the node that printed it; only 0, the node \
         itself, can be read, and only where that node is known"
    )]
    NodeUnknown,
    /// A pid, reference or port of another node than the known one: its text does not say the incarnation.
    #[error(
        "this belongs to another node than the one that is asked; its text does not say of which of that node's \
         lives, so that it cannot be read"
    )]
    OtherNode,
    /// A segment of a bit string that is longer than may be typed.
    #[error("a segment of a bit string may have 65536 bits at most")]
    SegmentTooLong,
    /// It could not be written as a term; the numbers in it are too large.
    #[error("this is too large to be written as a term")]
    Unwritable,
}
