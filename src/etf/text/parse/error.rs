//! Why a text is no term.

use std::fmt;

/// Why a text is no term, and where: the fault of whoever typed it.
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
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ParseProblem {
    /// The text ends where something else is due.
    Ends {
        /// What is due.
        wanted: &'static str,
    },
    /// Something else stands where this is due.
    Wanted(&'static str),
    /// Something that Elixir has and that cannot be typed here; what to write instead.
    Unsupported(&'static str),
    /// A name that is a variable or a function to Elixir.
    Variable(String),
    /// A number that is written wrong, or too large.
    Number(&'static str),
    /// An escape sequence that is none.
    Escape,
    /// A text that is not UTF-8, for an atom or a charlist.
    NotUtf8,
    /// An atom of more than 255 characters.
    AtomTooLong,
    /// A pair behind which none without a key may stand.
    AfterKeywords,
    /// No blank behind the colon of a key.
    KeyWithoutBlank,
    /// A map with one key twice.
    DuplicateKey,
    /// A pid, reference or port that says its node by a number, where it is not known which node is meant.
    NodeUnknown,
    /// A pid, reference or port of another node than the one that is known: its text does not say the incarnation.
    OtherNode,
    /// A segment of a bit string that is longer than may be typed.
    SegmentTooLong,
    /// It could not be written as a term; the numbers in it are too large.
    Unwritable,
}

impl fmt::Display for ParseProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ends { wanted } => write!(f, "the text ends here, and {wanted} is missing"),
            Self::Wanted(wanted) => write!(f, "{wanted} should stand here"),
            Self::Unsupported(text) => f.write_str(text),
            Self::Variable(name) => write!(
                f,
                "{name} is a variable or a function to Elixir; write :{name} for the atom, or \"{name}\" for the text"
            ),
            Self::Number(text) => f.write_str(text),
            Self::Escape => f.write_str("no escape sequence; write \\xHH or \\u{H…} with hexadecimal digits"),
            Self::NotUtf8 => f.write_str("an atom or a charlist has to be UTF-8, and this is not"),
            Self::AtomTooLong => f.write_str("an atom has 255 characters at most"),
            Self::AfterKeywords => f.write_str("behind `key: value` only such pairs may stand"),
            Self::KeyWithoutBlank => f.write_str("behind the colon of a key a blank has to stand, as in `key: 1`"),
            Self::DuplicateKey => f.write_str("this map has a key twice"),
            Self::NodeUnknown => f.write_str(
                "this says its node by a number that means something only to the node that printed it; only 0, the node \
                 itself, can be read, and only where that node is known",
            ),
            Self::OtherNode => f.write_str(
                "this belongs to another node than the one that is asked; its text does not say of which of that \
                 node's lives, so that it cannot be read",
            ),
            Self::SegmentTooLong => f.write_str("a segment of a bit string may have 65536 bits at most"),
            Self::Unwritable => f.write_str("this is too large to be written as a term"),
        }
    }
}
