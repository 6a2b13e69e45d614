//! Between terms and [`eetf::Term`], with the feature `eetf`: code that was written for the crates eetf,
//! erl_dist and erl_rpc keeps its terms.
//!
//! It is eetf 0.11, the version that erl_dist 0.8 and erl_rpc 0.4 have: a program that depends on another version has a second type
//! `Term`, for which nothing here is.
//!
//! An [`OwnedTerm`] is the bytes of a term, an `eetf::Term` is a tree. `TryFrom` goes both ways, [`EetfTerm`] is an
//! `eetf::Term` where serde is spoken, as in a [`Server`](crate::Server)'s requests and answers.
//!
//! ```
//! use eetf::Term;
//! use kvnode::etf::tree::EetfTerm;
//! use kvnode::etf::*;
//!
//! // {:ok, [1, 2 | 3]}
//! let term = OwnedTerm::parse(vec![104, 2, 119, 2, b'o', b'k', 108, 0, 0, 0, 2, 97, 1, 97, 2, 97, 3])?;
//! let tree = Term::try_from(&term)?;
//! assert_eq!(tree.to_string(), "{'ok',[1,2|3]}");
//! assert_eq!(OwnedTerm::try_from(&tree)?, term);
//!
//! let EetfTerm(same) = term.to()?;
//! assert_eq!(same, tree);
//! assert_eq!(OwnedTerm::from_value(&EetfTerm(tree))?, term);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A server of such terms:
//!
//! ```no_run
#![doc = include_str!("../../../examples/eetf_server.rs")]
//! ```
//!
//! # What is what
//!
//! The tree is built from checked bytes, and the bytes are written from the tree, by this crate. eetf's own decoder and
//! encoder are left out, because they recurse as deep as a peer likes and change some terms; the last column says how.
//! (Of integers beyond 32 bits they read and write the digits.)
//!
//! | term | `eetf::Term` | what eetf's own codec does |
//! | --- | --- | --- |
//! | integer of 32 bits | `FixInteger`, in whichever form it came | it depends on the form |
//! | other integer | `BigInteger`; a `BigInteger` that fits 32 bits is written as an integer of 32 bits | takes 0 and 1 alone for a sign |
//! | float | `Float` | reads the text form with 32 bits |
//! | atom | `Atom`, in UTF-8 | refuses or misreads Latin-1; writes more than 255 characters, which no BEAM reads |
//! | list of bytes, 1 to 65,535 of them | `ByteList`, in whichever form it came | it depends on the form; of a longer list only the length field is cut: what follows is misread |
//! | other proper list | `List`, `[]` too | writes a list of bytes and **negative numbers as bytes** |
//! | improper list | `ImproperList`, whose tail is no list | reads `[1 \| [2]]` as improper |
//! | binary | `Binary` | |
//! | bit string | `BitBinary`, whose last byte has its bits at the low end; one of whole bytes is a `Binary` | panics or shifts wrong for 0 and for more than 8 bits; drops bits that are too many |
//! | tuple, map | `Tuple`, `Map` | keeps the last of several values of a key |
//! | pid, port, reference | `Pid`, `Port`, `Reference`, from the old and the new forms | writes ports from 2^28 on in a form that has no room for them; writes references of any number of words |
//! | `&Mod.fun/arity` | `ExternalFun` | |
//! | other fun | `InternalFun` | |
//!
//! An [`OwnedTerm`] that comes back is equal to the first for `===`, and not always byte for byte: it is in the forms that
//! a BEAM writes, and maps are in the order of their keys.
//!
//! # What is refused
//!
//! From a term to the tree ([`ToEetfError`]): native records, and numbers in a fun that eetf has no room for; maps of two
//! or more pairs *in keys of maps*, which eetf finds again by chance only, because it hashes them in the order of iteration;
//! keys that only eetf takes for one (`0.0` and `-0.0`); maps with a key twice; and terms that are nested too deep or
//! have too many parts ([`EetfLimits`]). A compressed term has been inflated, or refused, before it is a term here.
//!
//! From the tree to a term ([`FromEetfError`]): what no BEAM would read.

mod error;
mod read;
mod write;

use eetf::Term;
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{OwnedTerm, TermView};

pub use error::{FromEetfError, ToEetfError};

/// How large a tree may become that is made of a peer's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EetfLimits {
    /// How deep terms are nested; the term itself is one level. 256 by default: everything that is done with an
    /// `eetf::Term` recurses (comparing, cloning, printing, dropping it), and a thread's stack has to suffice. The other
    /// direction has the same limit, and there it is fixed.
    pub depth_max: usize,
    /// Terms in the tree, which are some 70 bytes each, where a list's element may be two bytes on the wire. 1,000,000 by
    /// default. (A binary, or a list of bytes up to 65,535, is one.)
    pub terms_max: usize,
}

impl EetfLimits {
    /// As `default`.
    pub const DEFAULT: Self = Self { depth_max: 256, terms_max: 1_000_000 };
}

impl EetfLimits {
    /// The same, with terms nested so deep.
    #[must_use]
    pub const fn with_depth_max(self, depth_max: usize) -> Self {
        Self { depth_max, ..self }
    }

    /// The same, with so many terms.
    #[must_use]
    pub const fn with_terms_max(self, terms_max: usize) -> Self {
        Self { terms_max, ..self }
    }
}

impl Default for EetfLimits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The tree of a term, within limits of the caller's own. `eetf::Term::try_from(term)` has the default ones.
///
/// # Errors
/// The term cannot be an `eetf::Term`, or not within the limits. The sender's choice, or fault: [`ToEetfError`] says
/// which.
pub fn to_eetf(term: TermView<'_>, limits: EetfLimits) -> Result<Term, ToEetfError> {
    read::read(term, limits)
}

impl TryFrom<TermView<'_>> for Term {
    type Error = ToEetfError;

    fn try_from(term: TermView<'_>) -> Result<Self, ToEetfError> {
        to_eetf(term, EetfLimits::DEFAULT)
    }
}

impl TryFrom<&OwnedTerm> for Term {
    type Error = ToEetfError;

    fn try_from(term: &OwnedTerm) -> Result<Self, ToEetfError> {
        term.view().try_into()
    }
}

impl TryFrom<OwnedTerm> for Term {
    type Error = ToEetfError;

    fn try_from(term: OwnedTerm) -> Result<Self, ToEetfError> {
        term.view().try_into()
    }
}

impl TryFrom<&Term> for OwnedTerm {
    type Error = FromEetfError;

    fn try_from(term: &Term) -> Result<Self, FromEetfError> {
        write::write(term)
    }
}

impl TryFrom<Term> for OwnedTerm {
    type Error = FromEetfError;

    fn try_from(term: Term) -> Result<Self, FromEetfError> {
        write::write(&term)
    }
}

/// An `eetf::Term` for serde: a [`Server`](crate::Server)'s request, its answer, or a field of either.
///
/// As [`OwnedTerm`] it can only be read from a term, and not from other formats of serde. What cannot be converted is an
/// error of serde's: such a call ends like an unknown request, and such an answer like an answer that cannot be written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EetfTerm(pub Term);

impl From<Term> for EetfTerm {
    fn from(term: Term) -> Self {
        Self(term)
    }
}

impl From<EetfTerm> for Term {
    fn from(EetfTerm(term): EetfTerm) -> Self {
        term
    }
}

impl Serialize for EetfTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        OwnedTerm::try_from(&self.0).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for EetfTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let term = OwnedTerm::deserialize(deserializer)?;
        Term::try_from(&term).map(Self).map_err(D::Error::custom)
    }
}
