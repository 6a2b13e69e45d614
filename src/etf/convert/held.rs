//! Terms that are held as they are: of any shape ([`OwnedTerm`], [`TermView`]), pids and references.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserializer, Error, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::super::key::check_maps;
use super::super::{OwnedTerm, Pid, Reference, TermError, TermView, Traits, encode};
use super::{Binary, ConvertError, from_term, to_term, token};

impl OwnedTerm {
    /// The term of a value: [`to_term`](super::to_term), kept.
    ///
    /// ```
    /// use kvnode::etf::{OwnedTerm, atom};
    ///
    /// let term = OwnedTerm::from_value(&(atom("put"), "key", 1))?;
    /// assert_eq!(format!("{term:?}"), r#"{:put, "key", 1}"#);
    /// # Ok::<(), kvnode::etf::ConvertError>(())
    /// ```
    ///
    /// # Errors
    /// As `to_term`: the value is no term. The fault of the caller, or of the value's `Serialize`.
    pub fn from_value<T: Serialize + ?Sized>(value: &T) -> Result<Self, ConvertError> {
        Ok(Self::parse(to_term(value)?)?)
    }

    /// The term as a Rust value: [`from_term`](super::from_term). Strings and bytes are borrowed where `T` borrows.
    ///
    /// ```
    /// use kvnode::etf::{Atom, OwnedTerm, atom};
    ///
    /// let term = OwnedTerm::from_value(&(atom("put"), "key", 1))?;
    /// let (name, key, value): (Atom, &str, i64) = term.to()?;
    /// assert_eq!((name.as_str(), key, value), ("put", "key", 1));
    /// # Ok::<(), kvnode::etf::ConvertError>(())
    /// ```
    ///
    /// # Errors
    /// As `from_term`: the term is not what `T` asks for. The fault of the sender of the term, or of a `T` that does not say what the
    /// protocol says.
    pub fn to<'a, T: Deserialize<'a>>(&'a self) -> Result<T, ConvertError> {
        self.view().to()
    }
}

impl<'a> TermView<'a> {
    /// The term as a Rust value: [`from_term`](super::from_term). Strings and bytes are borrowed where `T` borrows.
    ///
    /// ```
    /// use kvnode::etf::TermView;
    ///
    /// // {:ok, 5}
    /// let answer: Result<u8, String> = TermView::parse(&[104, 2, 119, 2, b'o', b'k', 97, 5])?.to()?;
    /// assert_eq!(answer, Ok(5));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// As `from_term`.
    pub fn to<T: Deserialize<'a>>(self) -> Result<T, ConvertError> {
        from_term(self)
    }
}

impl Serialize for OwnedTerm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.view().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for OwnedTerm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse;
        impl Visitor<'_> for Parse {
            type Value = OwnedTerm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<OwnedTerm, E> {
                parse(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_newtype_struct(token::TERM, Parse)
    }
}

impl Serialize for TermView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(token::TERM, &Encoded(self.bytes()))
    }
}

/// Only from a term, as [`OwnedTerm`]. Maps with a key twice are not looked for.
impl<'de: 'a, 'a> Deserialize<'de> for TermView<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Parse<'a>(PhantomData<TermView<'a>>);
        impl<'de: 'a, 'a> Visitor<'de> for Parse<'a> {
            type Value = TermView<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(WANTED)
            }

            fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<TermView<'a>, E> {
                TermView::parse(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_newtype_struct(token::TERM, Parse(PhantomData))
    }
}

/// Other than [`OwnedTerm::parse`] it also refuses maps with a key twice, which no BEAM would read.
fn parse(bytes: &[u8]) -> Result<OwnedTerm, TermError> {
    let term = TermView::parse(bytes)?;
    if term.traits().contains(Traits::MAP) {
        check_maps(term)?;
    }
    Ok(term.into())
}

const WANTED: &str = "a term, straight from the external term format";

/// Bytes that are bytes to serde.
struct Encoded<'a>(&'a [u8]);

impl Serialize for Encoded<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// To other formats of serde the bytes of its encoding, without a version byte.
impl Serialize for Pid {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = encode(|out| _ = out.pid(self));
        serializer.serialize_newtype_struct(token::PID, &Encoded(&encoded))
    }
}

/// To other formats of serde the bytes of its encoding, without a version byte.
impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let encoded = encode(|out| _ = out.reference(self));
        serializer.serialize_newtype_struct(token::REFERENCE, &Encoded(&encoded))
    }
}

impl<'de> Deserialize<'de> for Pid {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = Identifier { wanted: "a pid", read: |term| term.as_pid().map(Self::from) };
        deserializer.deserialize_newtype_struct(token::PID, visitor)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = Identifier { wanted: "a reference", read: |term| term.as_reference().map(Self::from) };
        deserializer.deserialize_newtype_struct(token::REFERENCE, visitor)
    }
}

struct Identifier<T> {
    wanted: &'static str,
    read: fn(TermView<'_>) -> Option<T>,
}

impl<'de, T> Visitor<'de> for Identifier<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.wanted)
    }

    fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<T, E> {
        let term = TermView::parse(bytes).map_err(E::custom)?;
        (self.read)(term).ok_or_else(|| E::custom(format_args!("wanted {}, met {term:?}", self.wanted)))
    }

    // From other formats; and on the way through `flatten` and `untagged`.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        let Binary(bytes) = Binary::deserialize(deserializer)?;
        self.visit_bytes(&bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_through_other_formats_and_terms_only_out() {
        let pid = Pid { node: "n@h".into(), id: 1, serial: 2, creation: 3 };
        let reference = Reference { node: "n@h".into(), creation: 3, words: vec![1, 2, 3] };
        let json = serde_json::to_string(&(&pid, &reference)).unwrap();
        assert_eq!(serde_json::from_str::<(Pid, Reference)>(&json).unwrap(), (pid, reference));
        assert!(serde_json::from_str::<Pid>("[106]").is_err());
        let json = serde_json::to_string(&OwnedTerm::parse(vec![106]).unwrap()).unwrap();
        assert_eq!(json, "[106]");
        assert!(serde_json::from_str::<OwnedTerm>(&json).is_err());
    }

    #[test]
    fn a_term_is_held_and_borrowed_as_it_is() {
        // In a wide form that no serializer would choose.
        let bytes = [108, 0, 0, 0, 1, 105, 0, 0, 0, 1, 98, 0, 0, 0, 1, 106];
        let term = TermView::parse(&bytes).unwrap();
        let owned: Vec<OwnedTerm> = from_term(term).unwrap();
        assert_eq!(owned[0].view().bytes(), &bytes[5..15]);
        assert_eq!(to_term(&owned).unwrap(), bytes);
        let borrowed: TermView<'_> = from_term(term).unwrap();
        assert!(std::ptr::eq(borrowed.bytes(), &bytes[..]));
        assert_eq!(to_term(&borrowed).unwrap(), bytes);
    }

    #[test]
    fn a_term_that_no_beam_would_read_is_not_held() {
        let twice = [116, 0, 0, 0, 2, 97, 1, 106, 97, 1, 106];
        assert_eq!(parse(&twice), Err(TermError::DuplicateKey));
        let error = from_term::<OwnedTerm>(TermView::parse(&twice).unwrap()).unwrap_err();
        assert!(error.to_string().contains("twice"), "{error}");
        assert_eq!(parse(&[]), Err(TermError::Truncated));
    }
}
