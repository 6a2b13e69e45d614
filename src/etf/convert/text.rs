//! Kinds of text and bytes that Rust has one type for and Erlang several: atoms, charlists, binaries.

use std::borrow::{Borrow, Cow};
use std::convert::Infallible;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::super::{ATOM_CHARS_MAX, AtomView};
use super::error::{ConvertError, ConvertProblem};
use super::token;

/// An atom that is held.
///
/// Where a type has a fixed set of atoms, an enum says more: its unit variants are atoms too. To serde's other
/// formats it is a string.
///
/// ```
/// use kvnode::etf::{Atom, atom, encode, to_term};
///
/// const OK: Atom = atom("ok");
/// assert_eq!(to_term(&OK)?, encode(|out| _ = out.atom("ok")));
/// let dynamic = Atom::try_from(format!("slave{}", 1))?;
/// assert_eq!(dynamic, "slave1");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Atom(Cow<'static, str>);

/// The atom of a text that is known when this is written. For any other text there is [`Atom::try_from`].
///
/// # Panics
/// Over 255 characters; in a `const` this is noticed when it is compiled.
pub const fn atom(text: &'static str) -> Atom {
    assert!(chars(text) <= ATOM_CHARS_MAX, "an atom has at most 255 characters");
    Atom(Cow::Borrowed(text))
}

/// `text.chars().count()`, in a `const`.
const fn chars(text: &str) -> usize {
    let (mut bytes, mut count) = (text.as_bytes(), 0);
    while let [byte, others @ ..] = bytes {
        // All but a character's first byte are 10xxxxxx.
        count += (*byte & 0xC0 != 0x80) as usize;
        bytes = others;
    }
    count
}

impl Atom {
    /// Its text, without a colon.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Atom {
    type Error = ConvertError;

    /// # Errors
    /// [`ConvertProblem::Atom`] over 255 characters.
    fn try_from(text: String) -> Result<Self, ConvertError> {
        if chars(&text) > ATOM_CHARS_MAX { Err(ConvertProblem::Atom.here()) } else { Ok(Self(text.into())) }
    }
}

impl TryFrom<&str> for Atom {
    type Error = ConvertError;

    /// # Errors
    /// [`ConvertProblem::Atom`] over 255 characters.
    fn try_from(text: &str) -> Result<Self, ConvertError> {
        text.to_owned().try_into()
    }
}

impl From<AtomView<'_>> for Atom {
    fn from(view: AtomView<'_>) -> Self {
        Self(view.to_str().into_owned().into())
    }
}

impl AsRef<str> for Atom {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

// So that a map with atoms as keys can be asked with a string.
impl Borrow<str> for Atom {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for Atom {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Atom {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, ":{}", self.0)
    }
}

impl Serialize for Atom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::ATOM, &*self.0)
    }
}

impl<'de> Deserialize<'de> for Atom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = deserializer.deserialize_newtype_struct(token::ATOM, Text("an atom"))?;
        Self::try_from(text).map_err(D::Error::custom)
    }
}

/// A text that is a list of code points in Erlang: `~c"abc"`, what Erlang's own libraries take for text.
///
/// It is read from a binary too. To serde's other formats it is a string.
///
/// ```
/// use kvnode::etf::{Charlist, OwnedTerm};
///
/// let term = OwnedTerm::from_value(&Charlist::from("abc"))?;
/// assert_eq!(format!("{term:?}"), "~c\"abc\"");
/// let text: Charlist = term.to()?;
/// assert_eq!(text, "abc");
/// assert!(text.starts_with("ab"), "it is a str where one is wanted");
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Charlist(pub String);

impl Deref for Charlist {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Charlist {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Charlist {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<String> for Charlist {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Charlist {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Charlist> for String {
    fn from(Charlist(text): Charlist) -> Self {
        text
    }
}

impl FromStr for Charlist {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.into())
    }
}

impl PartialEq<str> for Charlist {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Charlist {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for Charlist {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Serialize for Charlist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::CHARLIST, &self.0)
    }
}

impl<'de> Deserialize<'de> for Charlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(token::CHARLIST, Text("a charlist")).map(Self)
    }
}

/// Takes a text from our own deserializer directly, and from any other through a newtype.
struct Text(&'static str);

impl<'de> Visitor<'de> for Text {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_string<E: Error>(self, text: String) -> Result<String, E> {
        Ok(text)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        String::deserialize(deserializer)
    }
}

/// Bytes that are a binary in Erlang. To serde, `Vec<u8>` and `&[u8]` are lists of integers when they are
/// written; only when they are read can `&[u8]` be told from them. A field that is to stay a `Vec<u8>` says
/// `#[serde(with = "kvnode::etf::with::bytes")]`.
///
/// ```
/// use kvnode::etf::{Binary, OwnedTerm};
///
/// let term = OwnedTerm::from_value(&Binary::from([0, 255]))?;
/// assert_eq!(format!("{term:?}"), "<<0, 255>>");
/// let bytes: Binary = term.to()?;
/// assert_eq!((bytes.len(), bytes.first()), (2, Some(&0)), "it is a slice where one is wanted");
/// let bytes: Vec<u8> = bytes.into();
/// assert_eq!(bytes, [0, 255]);
/// # Ok::<(), kvnode::etf::ConvertError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Binary(pub Vec<u8>);

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Binary {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Borrow<[u8]> for Binary {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Binary {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl From<&[u8]> for Binary {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.to_owned())
    }
}

impl<const N: usize> From<[u8; N]> for Binary {
    fn from(bytes: [u8; N]) -> Self {
        Self(bytes.into())
    }
}

impl<const N: usize> From<&[u8; N]> for Binary {
    fn from(bytes: &[u8; N]) -> Self {
        Self(bytes.into())
    }
}

impl From<String> for Binary {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl From<&str> for Binary {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<Binary> for Vec<u8> {
    fn from(Binary(bytes): Binary) -> Self {
        bytes
    }
}

impl PartialEq<[u8]> for Binary {
    fn eq(&self, other: &[u8]) -> bool {
        self.0 == other
    }
}

impl PartialEq<&[u8]> for Binary {
    fn eq(&self, other: &&[u8]) -> bool {
        self.0 == *other
    }
}

impl<const N: usize> PartialEq<[u8; N]> for Binary {
    fn eq(&self, other: &[u8; N]) -> bool {
        self.0 == other
    }
}

impl<const N: usize> PartialEq<&[u8; N]> for Binary {
    fn eq(&self, other: &&[u8; N]) -> bool {
        self.0 == *other
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_byte_buf(Bytes).map(Self)
    }
}

struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a binary")
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_owned())
    }

    fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }

    // A binary that is UTF-8 is a string on its way through `flatten` and `untagged`.
    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        Ok(text.as_bytes().to_owned())
    }

    // Formats without bytes, like JSON, have a list of numbers.
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = seq.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

/// A struct or a map that is written as a keyword list: `Keyword(Options { timeout: 5000 })` is
/// `[timeout: 5000]`. Strings as keys become atoms.
///
/// Structs and maps are read from keyword lists without it, and a `Vec<(Atom, T)>` is a keyword list anyway, with
/// its order and with keys that occur twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Keyword<T>(pub T);

impl<T: Serialize> Serialize for Keyword<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::KEYWORD, &self.0)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Keyword<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn an_atom_has_at_most_255_characters() {
        assert_eq!(chars("aé日🙂"), 4);
        assert!(Atom::try_from("🙂".repeat(255)).is_ok());
        let error = Atom::try_from("a".repeat(256)).unwrap_err();
        assert_eq!(error.problem(), &ConvertProblem::Atom);
        assert!(serde_json::from_str::<Atom>(&format!("\"{}\"", "a".repeat(256))).is_err());
    }

    #[test]
    fn binaries_and_charlists_are_made_of_what_is_there_and_are_slices_and_texts() {
        let (binary, slice) = (Binary::from(b"ab"), b"ab".as_slice());
        let all: [Binary; 5] = [
            b"ab".to_vec().into(),
            b"ab"[..].into(),
            [b'a', b'b'].into(),
            "ab".into(),
            "ab".to_owned().into(),
        ];
        for same in all {
            assert_eq!(binary, same);
        }
        assert!(
            binary == b"ab"[..] && binary == slice && binary == *b"ab" && binary == b"ab" && binary != b"ac"
        );
        assert_eq!((binary.len(), binary.as_ref()), (2, &b"ab"[..]));
        assert_eq!(HashMap::from([(binary, 1)]).get(&b"ab"[..]), Some(&1));

        let charlist = Charlist::from("é");
        assert_eq!("é".parse(), Ok(charlist.clone()));
        assert_eq!(Charlist::from("é".to_owned()), charlist);
        assert!(charlist == "é" && charlist == *"é" && charlist != "e");
        assert_eq!((charlist.chars().count(), charlist.as_ref()), (1, "é"));
        assert_eq!(format!("{charlist:>3}"), "  é");
        assert_eq!(HashMap::from([(charlist.clone(), 1)]).get("é"), Some(&1));
        assert_eq!(String::from(charlist), "é");
    }

    #[test]
    fn a_map_of_atoms_is_asked_with_a_string() {
        let map = HashMap::from([(atom("a"), 1)]);
        assert_eq!(map.get("a"), Some(&1));
        assert_eq!(format!("{0:?} {0}", atom("a")), ":a a");
    }

    #[test]
    fn other_formats_see_plain_strings_lists_and_objects() {
        let value = (atom("a"), Charlist("b".into()), Binary(vec![1]), Keyword(HashMap::from([("k", 1)])));
        let json = serde_json::to_string(&value).unwrap();
        assert_eq!(json, r#"["a","b",[1],{"k":1}]"#);
        let back: (Atom, Charlist, Binary, Keyword<HashMap<&str, i32>>) =
            serde_json::from_str(&json).unwrap();
        assert_eq!(back, value);
    }
}
