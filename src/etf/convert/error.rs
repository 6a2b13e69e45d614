//! Why a conversion failed, and where.

use std::fmt::{self, Display, Write};

use super::super::text::{InspectLimits, inspect};
use super::super::{TermError, TermView};

/// Bytes of text in an error that come from the outside: more would fill logs and helps nobody.
const TEXT_BYTES_MAX: usize = 200;

/// How much of a key is printed.
const KEY: InspectLimits = InspectLimits { text_bytes_max: 60 };

/// Why a Rust value cannot be written as a term, or a term not be read as the Rust type asked for.
///
/// Its text names the place: `wanted u8, met the binary "x", at {2}.data[3]` is the fourth element of the list
/// in the field `data` of the third element of a tuple. All places count from 0, as `Enum.at/2` and `elem/2` do.
///
/// Whose fault it is: on [`from_term`](super::from_term) that of the sender of the term, or of a Rust type that
/// does not say what the protocol says; on [`to_term`](super::to_term) our own.
#[derive(Clone, PartialEq, Eq)]
pub struct ConvertError(Box<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    problem: ConvertProblem,
    /// The innermost first: steps are added on the way out.
    path: Vec<Step>,
}

/// What is wrong, without the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertProblem {
    /// Something else than the type asks for.
    #[error("wanted {wanted}, met {met}")]
    Unexpected {
        /// What the type asks for.
        wanted: String,
        /// What stands there.
        met: String,
    },
    /// A field that the type needs is not there.
    #[error("the field {0} is missing")]
    MissingField(&'static str),
    /// A field is there twice: in a keyword list, or as an atom and as a string.
    #[error("the field {0} is there twice")]
    DuplicateField(&'static str),
    /// A field that a type with `deny_unknown_fields` does not have.
    #[error("there is no field {0}")]
    UnknownField(String),
    /// No variant of the enum has this name.
    #[error("wanted one of {}, met {name}", .known.join(", "))]
    UnknownVariant {
        /// What stands where the variant's name should.
        name: String,
        /// The names that the enum has.
        known: &'static [&'static str],
    },
    /// Nested deeper than [`DEPTH_MAX`](super::DEPTH_MAX).
    #[error("nested more than {} deep", super::DEPTH_MAX)]
    TooDeep,
    /// A float that is no finite number: Erlang has none such.
    #[error("a float is not a finite number, and Erlang has no other")]
    Float,
    /// The text of an atom has more than 255 characters.
    #[error("an atom is longer than 255 characters")]
    Atom,
    /// More bytes or elements than the 32 bits of a length can tell.
    #[error("longer than 4 GiB, which no term can be")]
    TooLong,
    /// Two keys of a map are the same term: a BEAM would refuse the whole.
    #[error("two keys of a map are the same term")]
    DuplicateKey,
    /// The bytes of a term held as such are none.
    #[error("{0}")]
    Term(TermError),
    /// What a type's own `Serialize` or `Deserialize` has to say.
    #[error("{0}")]
    Other(String),
}

impl ConvertProblem {
    /// With the place still to be told.
    pub(super) fn here(self) -> ConvertError {
        ConvertError(Box::new(Inner { problem: self, path: Vec::new() }))
    }
}

/// One step of the way to where something is wrong.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Step {
    /// An element of a list.
    Index(usize),
    /// An element of a tuple.
    Element(usize),
    /// The value of a key that is an atom, or the field of a struct.
    Field(String),
    /// The value of any other key, as Elixir prints it.
    Key(String),
}

impl Step {
    /// To the value of a key.
    pub(super) fn of_key(key: TermView<'_>) -> Self {
        match key.as_atom() {
            Some(name) => Self::Field(name.to_str().into_owned()),
            None => Self::Key(inspect(key, KEY)),
        }
    }
}

impl ConvertError {
    /// What is wrong.
    pub fn problem(&self) -> &ConvertProblem {
        &self.0.problem
    }

    /// The way to it: `.name` is a field or a value under an atom, `["name"]` one under another key, `[3]` an
    /// element of a list, `{1}` an element of a tuple. Empty for the term itself.
    pub fn path(&self) -> String {
        let mut path = String::new();
        for step in self.0.path.iter().rev() {
            // Writing to a string does not fail.
            _ = match step {
                Step::Index(at) => write!(path, "[{at}]"),
                Step::Element(at) => write!(path, "{{{at}}}"),
                Step::Field(name) => write!(path, ".{name}"),
                Step::Key(key) => write!(path, "[{key}]"),
            };
        }
        path
    }

    pub(super) fn unexpected(wanted: impl Display, met: impl Display) -> Self {
        ConvertProblem::Unexpected { wanted: clipped(wanted), met: clipped(met) }.here()
    }

    /// The same, with what would be right in its place; that is told whole.
    pub(super) fn unexpected_but(wanted: impl Display, met: impl Display, hint: &str) -> Self {
        let met = format!("{}; {hint}", clipped(met));
        ConvertProblem::Unexpected { wanted: clipped(wanted), met }.here()
    }

    /// The same, one step further out.
    pub(super) fn at(mut self, step: Step) -> Self {
        self.0.path.push(step);
        self
    }

    /// Whether it is about the very term that is being read, not about a part of it.
    pub(super) fn is_here(&self) -> bool {
        self.0.path.is_empty()
    }
}

impl Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.problem.fmt(f)?;
        if self.0.path.is_empty() { Ok(()) } else { write!(f, ", at {}", self.path()) }
    }
}

impl fmt::Debug for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConvertError({self})")
    }
}

impl std::error::Error for ConvertError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.problem {
            ConvertProblem::Term(error) => Some(error),
            _ => None,
        }
    }
}

impl From<TermError> for ConvertError {
    fn from(error: TermError) -> Self {
        match error {
            TermError::DuplicateKey => ConvertProblem::DuplicateKey,
            error => ConvertProblem::Term(error),
        }
        .here()
    }
}

impl serde::ser::Error for ConvertError {
    fn custom<T: Display>(text: T) -> Self {
        ConvertProblem::Other(clipped(text)).here()
    }
}

impl serde::de::Error for ConvertError {
    fn custom<T: Display>(text: T) -> Self {
        ConvertProblem::Other(clipped(text)).here()
    }

    fn invalid_type(met: serde::de::Unexpected<'_>, wanted: &dyn serde::de::Expected) -> Self {
        Self::unexpected(wanted, met)
    }

    fn invalid_value(met: serde::de::Unexpected<'_>, wanted: &dyn serde::de::Expected) -> Self {
        Self::unexpected(wanted, met)
    }

    fn invalid_length(len: usize, wanted: &dyn serde::de::Expected) -> Self {
        Self::unexpected(wanted, format_args!("{len} of them"))
    }

    fn unknown_variant(name: &str, known: &'static [&'static str]) -> Self {
        ConvertProblem::UnknownVariant { name: clipped(name), known }.here()
    }

    fn unknown_field(name: &str, _known: &'static [&'static str]) -> Self {
        ConvertProblem::UnknownField(clipped(name)).here()
    }

    fn missing_field(name: &'static str) -> Self {
        ConvertProblem::MissingField(name).here()
    }

    fn duplicate_field(name: &'static str) -> Self {
        ConvertProblem::DuplicateField(name).here()
    }
}

/// A text, up to a bound: what a peer has sent may be any length.
fn clipped(text: impl Display) -> String {
    struct Clip(String);
    impl Write for Clip {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = TEXT_BYTES_MAX - self.0.len();
            if part.len() <= room {
                self.0.push_str(part);
                return Ok(());
            }
            self.0.push_str(&part[..part.floor_char_boundary(room)]);
            Err(fmt::Error)
        }
    }
    let mut clip = Clip(String::new());
    if write!(clip, "{text}").is_err() {
        clip.0.push_str("...");
    }
    clip.0
}

#[cfg(test)]
mod tests {
    use serde::de::Error;

    use super::*;

    #[test]
    fn the_text_says_what_and_where() {
        let error = ConvertError::unexpected("u8", "the binary \"x\"");
        assert_eq!(error.to_string(), "wanted u8, met the binary \"x\"");
        assert!(error.is_here());
        let error = error.at(Step::Index(3)).at(Step::Field("data".into())).at(Step::Element(2));
        assert_eq!(error.to_string(), "wanted u8, met the binary \"x\", at {2}.data[3]");
        assert_eq!(error.at(Step::Key("\"k\"".into())).path(), "[\"k\"]{2}.data[3]");
    }

    #[test]
    fn what_a_peer_sent_is_told_up_to_a_bound() {
        let text = ConvertError::custom("é".repeat(10_000)).to_string();
        assert_eq!(text, format!("{}...", "é".repeat(TEXT_BYTES_MAX / 2)));
        assert_eq!(ConvertError::custom("short").to_string(), "short");
    }
}
