//! Why a term is no `eetf::Term`, and why an `eetf::Term` is no term.

use std::fmt;

use super::super::TermError;

/// Why a term cannot be an `eetf::Term`.
///
/// The first is the fault of the node that encoded the term, the limits and what eetf has no room for are nobody's: the
/// term is right, and can be held as an [`OwnedTerm`](crate::etf::OwnedTerm).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ToEetfError {
    /// No BEAM would read it: a map with a key twice. Or its keys are too complex to be compared
    /// ([`TermError::KeyTooComplex`]).
    Term(TermError),
    /// It is nested deeper than this.
    TooDeep {
        /// The limit, [`EetfLimits::depth_max`](super::EetfLimits::depth_max).
        depth_max: usize,
    },
    /// It has more parts than this.
    TooManyTerms {
        /// The limit, [`EetfLimits::terms_max`](super::EetfLimits::terms_max).
        terms_max: usize,
    },
    /// It has a native record in it (OTP 29), for which eetf has no type.
    NativeRecord,
    /// It has a fun in it whose old index or hash is larger than eetf's 32 bits.
    FunNumber,
    /// A key of a map has a map of several pairs in it, which eetf finds again by chance only.
    MapInKey,
    /// A map has two keys that eetf takes for one, as `0.0` and `-0.0`: one of the values would be lost.
    EqualKeys,
}

impl fmt::Display for ToEetfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(error) => error.fmt(f),
            Self::TooDeep { depth_max } => write!(f, "the term is nested deeper than {depth_max} levels"),
            Self::TooManyTerms { terms_max } => write!(f, "the term has more than {terms_max} parts"),
            Self::NativeRecord => f.write_str("eetf has no type for a native record"),
            Self::FunNumber => {
                f.write_str("a fun has an index or a hash of more than the 32 bits that eetf has")
            }
            Self::MapInKey => f.write_str(
                "a key of a map has a map of several pairs in it, which eetf finds by chance only",
            ),
            Self::EqualKeys => f.write_str("a map has two keys that eetf takes for one, as 0.0 and -0.0"),
        }
    }
}

impl std::error::Error for ToEetfError {}

impl From<TermError> for ToEetfError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

/// Why an `eetf::Term` is no term that a BEAM would read: always the fault of the program that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FromEetfError {
    /// An atom of more than 255 characters.
    Atom {
        /// How many it has.
        chars: usize,
    },
    /// A float that is not a finite number. `Float::try_from` refuses it, its field does not.
    Float,
    /// An integer of more than 4 MiB.
    Integer,
    /// A `BitBinary` whose last byte is to have no or more than eight bits, or has more bits than it is to have. Its bits
    /// stand at the low end.
    BitString {
        /// How many bits its last byte is to have.
        tail_bits_size: u8,
    },
    /// A reference without words, or with more than five.
    Reference {
        /// How many it has.
        words: usize,
    },
    /// A fun that has closed over more than 255 variables.
    FreeVariables {
        /// How many they are.
        count: usize,
    },
    /// An `ImproperList` without elements: it is its tail, or it is nothing.
    NoElements,
    /// A map with the same key twice: eetf tells `FixInteger` 1 from `BigInteger` 1, and a `ByteList` from the `List` of
    /// the same bytes.
    DuplicateKey,
    /// Nested deeper than this.
    TooDeep {
        /// The limit, that of [`EetfLimits::DEFAULT`](super::EetfLimits::DEFAULT).
        depth_max: usize,
    },
    /// A part of more than 4 GiB, or of 2^32 elements.
    TooLarge,
    /// What else no BEAM reads, or keys that are too complex to be compared ([`TermError::KeyTooComplex`]).
    Term(TermError),
}

impl fmt::Display for FromEetfError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom { chars } => write!(f, "an atom has {chars} characters, and 255 is the most"),
            Self::Float => f.write_str("a float is not a finite number"),
            Self::Integer => f.write_str("an integer is larger than any node can read"),
            Self::BitString { tail_bits_size } => write!(
                f,
                "the last byte of a bit string is to have {tail_bits_size} bits, and has others: 1 to 8 can be, at the low \
                 end of the byte"
            ),
            Self::Reference { words } => write!(f, "a reference has {words} words, and not one to five"),
            Self::FreeVariables { count } => {
                write!(f, "a fun has closed over {count} variables, and 255 is the most")
            }
            Self::NoElements => f.write_str("an improper list has no elements"),
            Self::DuplicateKey => {
                f.write_str("a map has the same key twice, in two types that eetf tells apart")
            }
            Self::TooDeep { depth_max } => write!(f, "the term is nested deeper than {depth_max} levels"),
            Self::TooLarge => f.write_str("a part of the term is larger than any frame"),
            Self::Term(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for FromEetfError {}

impl From<TermError> for FromEetfError {
    fn from(error: TermError) -> Self {
        match error {
            TermError::DuplicateKey => Self::DuplicateKey,
            TermError::Integer => Self::Integer,
            error => Self::Term(error),
        }
    }
}
