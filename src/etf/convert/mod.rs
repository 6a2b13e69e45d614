//! Between terms and Rust types, through serde: [`to_term`], [`write_term`], [`from_term`].
//!
//! A type that serde can serialize is a term as an Elixir programmer would write it:
//!
//! ```
//! use kvnode::etf::{TermView, atom, from_term, to_term};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Request {
//!     Stop,                                            // :stop
//!     Get(String),                                     // {:get, "key"}
//!     Put(String, i64),                                // {:put, "key", 1}
//!     Expire { key: String, after_ms: Option<u64> },   // {:expire, %{key: "key", after_ms: nil}}
//! }
//!
//! let request = Request::Put("key".into(), 1);
//! let bytes = to_term(&request)?;
//! let term = TermView::parse(&bytes)?;
//! assert_eq!(format!("{term:?}"), r#"{:put, "key", 1}"#);
//! assert_eq!(from_term::<Request>(term)?, request);
//!
//! // What needs no type of its own is a tuple.
//! assert_eq!(to_term(&(atom("put"), "key", 1))?, bytes);
//!
//! // An error says what was wanted, what was met, and where.
//! let bytes = to_term(&(atom("put"), "key", "one"))?;
//! let error = from_term::<Request>(TermView::parse(&bytes)?).unwrap_err();
//! assert_eq!(error.to_string(), r#"wanted i64, met the binary "one", at {2}"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is what
//!
//! | Rust | written as | also read from |
//! | --- | --- | --- |
//! | `bool` | `true`, `false` | |
//! | integers of all widths | an integer | |
//! | `f32`, `f64` | a float; what is not finite is refused | an integer that is a float without loss |
//! | `String`, `&str` | a binary | as the key of a map also an atom |
//! | `char` | a binary | its code point, as `?a` is |
//! | [`Binary`], `&[u8]` when read, `serde_bytes`, [`with::bytes`] | a binary | |
//! | [`Charlist`] | a list of code points | a binary |
//! | [`Atom`] | an atom | |
//! | `Vec<T>`, `&[T]`, sets | a list | |
//! | tuples, tuple structs | a tuple | tuples and arrays: a list of the same length |
//! | `[T; N]` | a tuple, which arrays are to serde | a list of N elements |
//! | `Option<T>` | `nil`, or the value | |
//! | `Option<T>` with [`with::undefined`] | `:undefined`, or the value | `nil` |
//! | `Duration` | `%{secs: 1, nanos: 500000000}` | |
//! | `Duration` with [`with::millis`] | `1500` | |
//! | `Duration` with [`with::timeout`] | `1500`; of `Duration::MAX` `:infinity` | |
//! | `()` | `nil` | `:ok` |
//! | `struct Name;` | the atom `:Name` | |
//! | `struct Name(T)` | as `T` | |
//! | `struct Name { a, b }` | `%{a: 1, b: 2}` | a keyword list; keys that are strings |
//! | the same, its serde name being `Elixir.Name` | `%Name{a: 1, b: 2}` | keys that are strings |
//! | [`ElixirStruct`] | `%Name{a: 1, b: 2}` of any module | |
//! | [`Keyword<T>`], `T` being such a struct or a map | `[a: 1, b: 2]` | a map |
//! | `HashMap<K, V>`, `BTreeMap<K, V>` | a map | a list of pairs |
//! | `Vec<(Atom, T)>` | a keyword list, in its order | |
//! | enum `Variant` | `:Variant` | a string |
//! | enum `Variant(a)`, `Variant(a, b)` | `{:Variant, a}`, `{:Variant, a, b}` | the name as a string |
//! | enum `Variant { a, b }` | `{:Variant, %{a: 1, b: 2}}` | a keyword list in the place of the map |
//! | `Result<T, E>` | `{:ok, value}`, `{:error, error}`; `:ok` and `:error` of `()` | of a tuple `{:ok, a, b}`, `{:error, a, b}` too |
//! | [`Pid`], [`Reference`] | a pid, a reference | |
//! | [`OwnedTerm`](super::OwnedTerm), [`TermView`] | the term that it holds, byte for byte | any term |
//!
//! Names are those that serde sees: `#[serde(rename_all = "snake_case")]` makes `Put` the atom `:put`. Keys that a
//! struct does not have are ignored, unless it says `deny_unknown_fields`. A struct is of an Elixir module when its
//! name says so, and is then read from no other:
//!
//! ```
//! # use kvnode::etf::{TermView, from_term, to_term};
//! # use serde::{Deserialize, Serialize};
//! #[derive(Debug, PartialEq, Serialize, Deserialize)]
//! #[serde(rename = "Elixir.MyApp.User")]
//! struct User {
//!     name: String,
//!     age: u8,
//! }
//!
//! let bytes = to_term(&User { name: "Mafalda".into(), age: 6 })?;
//! let text = format!("{:?}", TermView::parse(&bytes)?);
//! assert_eq!(text, r#"%{__struct__: MyApp.User, name: "Mafalda", age: 6}"#);
//! assert_eq!(from_term::<User>(TermView::parse(&bytes)?)?.age, 6);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! and an enum with `#[serde(tag = "__struct__")]`, whose variants are renamed to `Elixir.…`, is a struct of one of
//! several modules. `#[serde(rename = "ok")] struct Done;` is a type for one atom alone.
//!
//! # What serde cannot tell
//!
//! - `Some(())` and `Some(None)` are `nil`, and so are read as `None`: as in every format that has one word for
//!   nothing.
//! - Behind `flatten`, `untagged` and `tag`, and for dynamic values as `serde_json::Value`, a term is read as what it
//!   looks like (`deserialize_any`): atoms are strings, but `true`, `false` and `nil` are booleans and unit; tuples
//!   are lists, so an enum's variant with contents is not found there. Integers of more than 128 bits, improper
//!   lists, bit strings, functions and ports are errors there as elsewhere: an [`OwnedTerm`](super::OwnedTerm) holds them.
//! - A struct with a flattened part is a map of strings to serde, and its keys are written as binaries.
//! - `Vec<u8>` and `&[u8]` are written as lists of integers: a [`Binary`] is a binary, and so is a field with [`with::bytes`].
//! - A `Duration` is a struct as any other. [`with`] has the two forms that Erlang has for times, and `:undefined` as
//!   `None`: at the fields that say so, and nowhere else.
//!
//! Dates, UUIDs and addresses are text here, as the format calls itself human-readable: Elixir's libraries read them
//! from text.
//!
//! # Bounds
//!
//! The term has been checked before ([`TermView`]), so every count in it is true. It is read in one pass. What is
//! nested deeper than [`DEPTH_MAX`] is refused in both directions; only a type that contains itself can meet it. What
//! is written a BEAM will read: floats are finite, atoms at most 255 characters, and no map has a key twice.

mod atoms;
mod de;
mod elements;
mod elixir_struct;
mod error;
mod held;
mod number;
mod pairs;
mod ser;
mod text;
mod variant;
pub mod with;

use serde::{Deserialize, Serialize};

use super::key::check_maps;
use super::{TermView, TermWriter, Traits};
pub use elixir_struct::ElixirStruct;
pub use error::{ConvertError, ConvertProblem};
pub use text::{Atom, Binary, Charlist, Keyword, atom};

#[cfg(doc)]
use super::{Pid, Reference};

/// Compound terms inside of one another that a value may be, in both directions.
pub const DEPTH_MAX: usize = 128;

/// What the serde name of a struct of an Elixir module begins with: as the module's atom does.
const MODULE_PREFIX: &str = "Elixir.";
/// The key under which a struct names its module (Elixir, `Kernel.defstruct/1`).
const MODULE_FIELD: &str = "__struct__";

/// What serde calls `Result`, an enum like others to it.
const RESULT: &str = "Result";

/// Names of newtypes by which our own types tell our own serializer what they are. Other formats see what is inside.
mod token {
    pub(super) const ATOM: &str = "$kvnode::Atom";
    pub(super) const CHARLIST: &str = "$kvnode::Charlist";
    pub(super) const KEYWORD: &str = "$kvnode::Keyword";
    pub(super) const TERM: &str = "$kvnode::Term";
    pub(super) const PID: &str = "$kvnode::Pid";
    pub(super) const REFERENCE: &str = "$kvnode::Reference";
    pub(super) const TIMEOUT: &str = "$kvnode::Timeout";
    pub(super) const UNDEFINED: &str = "$kvnode::Undefined";

    /// Whether a newtype is one of these.
    pub(super) fn is_ours(name: &str) -> bool {
        name.starts_with("$kvnode::")
    }
}

/// The atom for a variant of an enum: its name, but that of `Ok` and `Err` is what every Elixir function answers.
fn result_variant<'a>(name: &str, variant: &'a str) -> &'a str {
    match variant {
        "Ok" if name == RESULT => "ok",
        "Err" if name == RESULT => "error",
        _ => variant,
    }
}

/// The way back.
fn variant_of_result(atom: &str) -> &str {
    match atom {
        "ok" => "Ok",
        "error" => "Err",
        _ => atom,
    }
}

/// The term of a value, encoded, without a version byte.
///
/// # Errors
/// Where the value is no term: a float that is not finite, an atom of more than 255 characters, a map with a key
/// twice, or something nested deeper than [`DEPTH_MAX`]; and what its `Serialize` has to say. All are our own fault.
pub fn to_term<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ConvertError> {
    let mut out = Vec::new();
    append(value, &mut out)?;
    Ok(out)
}

/// Writes the term of a value as the next one. Nothing is written where there is an error.
///
/// # Errors
/// As [`to_term`].
pub fn write_term<T: Serialize + ?Sized>(value: &T, out: &mut TermWriter<'_>) -> Result<(), ConvertError> {
    let out = out.buffer();
    let start = out.len();
    append(value, out).inspect_err(|_| out.truncate(start))
}

fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), ConvertError> {
    let start = out.len();
    let mut serializer = ser::Serializer::new(out);
    value.serialize(&mut serializer)?;
    if serializer.has_map() {
        #[expect(clippy::indexing_slicing, reason = "a serializer only appends")]
        check_maps(TermView::trusted(&out[start..], Traits::MAP))?;
    }
    Ok(())
}

/// Reads a term as a Rust value. Strings and bytes are borrowed from it where `T` borrows.
///
/// # Errors
/// Where the term is not what `T` asks for: what was wanted, what was met, and where. The fault of the sender of
/// the term, or of a `T` that does not say what the protocol says.
pub fn from_term<'de, T: Deserialize<'de>>(term: TermView<'de>) -> Result<T, ConvertError> {
    T::deserialize(&mut de::Deserializer::new(term))
}
