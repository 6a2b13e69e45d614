//! The external term format (erl_ext_dist): terms as checked slices of the bytes that they came in.
//!
//! First station of every received byte and last of every sent one. [`Cursor`] walks untrusted bytes and gives
//! [`TermView`]s, [`TermWriter`] appends terms to a buffer, [`key`] finds the canonical bytes of a term, [`text`]
//! reads and prints Elixir syntax. There is no owned term tree: what is kept is kept as bytes. [`to_term`] and
//! [`from_term`] go between terms and Rust types, through [`convert`].
//!
//! ```
//! use kvnode::etf::*;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Answer {
//!     Found(Binary), // {:found, "bytes"}
//!     Missing,       // :missing
//! }
//!
//! let term = OwnedTerm::from_value(&Answer::Found(Binary::from("abc")))?;
//! assert_eq!(format!("{term:?}"), r#"{:found, "abc"}"#);
//! assert_eq!(OwnedTerm::atom("missing").to::<Answer>()?, Answer::Missing);
//! # Ok::<(), ConvertError>(())
//! ```

#![warn(clippy::indexing_slicing)]

// Hidden: what is received compressed is inflated before a user sees it; tests and fuzz targets do it themselves.
#[doc(hidden)]
pub mod compressed;
pub mod convert;
mod elements;
mod integer;
#[doc(hidden)]
pub mod key;
#[doc(hidden)]
pub mod order;
mod owned;
#[doc(hidden)]
pub mod pattern;
mod pool;
mod shared;
mod split;
#[doc(hidden)]
pub mod tag;
pub mod text;
#[cfg(feature = "eetf")]
pub mod tree;
mod writer;

use std::fmt;
use std::sync::Arc;

#[doc(inline)]
pub use crate::__atoms as atoms;
pub use convert::{
    Atom, Binary, Charlist, ConvertError, ConvertProblem, ElixirStruct, Keyword, atom, from_term, to_term,
    with, write_term,
};
pub use integer::Integer;
pub use owned::OwnedTerm;
// Hidden: memory of a connection's own, which the benches of one without a socket hand in.
#[doc(hidden)]
pub use pool::{Pool, PooledBytes};
#[doc(hidden)]
pub use shared::QueuedBytes;
pub use shared::SharedBytes;
pub(crate) use split::ATOM_CHARS_MAX;
pub use split::{AtomView, Cursor, PidView, ReferenceView, TermError, TermView, Traits};
pub use writer::TermWriter;

/// A process identifier that is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Pid {
    /// The node that the process lives on.
    pub node: Arc<str>,
    /// First half of its number.
    pub id: u32,
    /// Second half of its number.
    pub serial: u32,
    /// Incarnation of the node.
    pub creation: u32,
}

impl From<PidView<'_>> for Pid {
    fn from(view: PidView<'_>) -> Self {
        Self { node: view.node.to_str().into(), id: view.id, serial: view.serial, creation: view.creation }
    }
}

impl fmt::Debug for Pid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#PID<{}.{}.{}>", self.node, self.id, self.serial)
    }
}

/// A reference that is kept.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Reference {
    /// The node that made it.
    pub node: Arc<str>,
    /// Incarnation of that node.
    pub creation: u32,
    /// One to five words.
    pub words: Vec<u32>,
}

impl From<ReferenceView<'_>> for Reference {
    fn from(view: ReferenceView<'_>) -> Self {
        Self { node: view.node.to_str().into(), creation: view.creation, words: view.words().to_vec() }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#Reference<{}", self.node)?;
        self.words.iter().rev().try_for_each(|word| write!(f, ".{word}"))?;
        write!(f, ">")
    }
}

/// Encodes one term into a buffer of its own, without a version byte.
pub fn encode(write: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut TermWriter::new(&mut out));
    out
}
