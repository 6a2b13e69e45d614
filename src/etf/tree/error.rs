//! Why a term is no `eetf::Term`, and why an `eetf::Term` is no term.

use super::super::TermError;

/// Why a term cannot be an `eetf::Term`.
///
/// The first is the fault of the node that encoded the term, the limits and what eetf has no room for are nobody's: the
/// term is right, and can be held as an [`OwnedTerm`](crate::etf::OwnedTerm).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ToEetfError {
    /// No BEAM would read it: a map with a key twice. Or its keys are too complex to be compared
    /// ([`TermError::KeyTooComplex`]).
    #[error("{0}")]
    Term(TermError),
    /// It is nested deeper than this.
    #[error("the term is nested deeper than {depth_max} levels")]
    TooDeep {
        /// The limit, [`EetfLimits::depth_max`](super::EetfLimits::depth_max).
        depth_max: usize,
    },
    /// It has more parts than this.
    #[error("the term has more than {terms_max} parts")]
    TooManyTerms {
        /// The limit, [`EetfLimits::terms_max`](super::EetfLimits::terms_max).
        terms_max: usize,
    },
    /// It has a native record in it (OTP 29), for which eetf has no type.
    #[error("eetf has no type for a native record")]
    NativeRecord,
    /// It has a fun in it whose old index or hash is larger than eetf's 32 bits.
    #[error("a fun has an index or a hash of more than the 32 bits that eetf has")]
    FunNumber,
    /// A key of a map has a map of several pairs in it, which eetf finds again by chance only.
    #[error("a key of a map has a map of several pairs in it, which eetf finds by chance only")]
    MapInKey,
    /// A map has two keys that eetf takes for one, as `0.0` and `-0.0`: one of the values would be lost.
    #[error("a map has two keys that eetf takes for one, as 0.0 and -0.0")]
    EqualKeys,
}

impl From<TermError> for ToEetfError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

/// Why an `eetf::Term` is no term that a BEAM would read: always the fault of the program that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FromEetfError {
    /// An atom of more than 255 characters.
    #[error("an atom has {chars} characters, and 255 is the most")]
    Atom {
        /// How many it has.
        chars: usize,
    },
    /// A float that is not a finite number. `Float::try_from` refuses it, its field does not.
    #[error("a float is not a finite number")]
    Float,
    /// An integer of more than 4 MiB.
    #[error("an integer is larger than any node can read")]
    Integer,
    /// A `BitBinary` whose last byte is to have no or more than eight bits, or has more bits than it is to have. Its bits
    /// stand at the low end.
    #[error(
        "the last byte of a bit string is to have {tail_bits_size} bits, and has others: 1 to 8 can be, at the low end of the byte"
    )]
    BitString {
        /// How many bits its last byte is to have.
        tail_bits_size: u8,
    },
    /// A reference without words, or with more than five.
    #[error("a reference has {words} words, and not one to five")]
    Reference {
        /// How many it has.
        words: usize,
    },
    /// A fun that has closed over more than 255 variables.
    #[error("a fun has closed over {count} variables, and 255 is the most")]
    FreeVariables {
        /// How many they are.
        count: usize,
    },
    /// An `ImproperList` without elements: it is its tail, or it is nothing.
    #[error("an improper list has no elements")]
    NoElements,
    /// A map with the same key twice: eetf tells `FixInteger` 1 from `BigInteger` 1, and a `ByteList` from the `List` of
    /// the same bytes.
    #[error("a map has the same key twice, in two types that eetf tells apart")]
    DuplicateKey,
    /// Nested deeper than this.
    #[error("the term is nested deeper than {depth_max} levels")]
    TooDeep {
        /// The limit, that of [`EetfLimits::DEFAULT`](super::EetfLimits::DEFAULT).
        depth_max: usize,
    },
    /// A part of more than 4 GiB, or of 2^32 elements.
    #[error("a part of the term is larger than any frame")]
    TooLarge,
    /// What else no BEAM reads, or keys that are too complex to be compared ([`TermError::KeyTooComplex`]).
    #[error("{0}")]
    Term(TermError),
}

impl From<TermError> for FromEetfError {
    fn from(error: TermError) -> Self {
        match error {
            TermError::DuplicateKey => Self::DuplicateKey,
            TermError::Integer => Self::Integer,
            error => Self::Term(error),
        }
    }
}
