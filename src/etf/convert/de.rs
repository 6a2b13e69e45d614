//! From terms to Rust values.
//!
//! One cursor goes through the term once, forwards, whatever the Rust type does. The recursion is that of the
//! Rust type; it is bounded where a type contains itself.

use std::borrow::Cow;

use serde::de::value::BorrowedBytesDeserializer;
use serde::de::{self, Expected, Visitor};

use super::super::key::bit_binary;
use super::super::tag::*;
use super::super::text::{InspectLimits, inspect};
use super::super::{Cursor, TermView, Traits};
use super::elements::Elements;
use super::error::{ConvertError, ConvertProblem};
use super::number::{Number, number};
use super::pairs::Pairs;
use super::variant::Variant;
use super::with::INFINITY;
use super::{DEPTH_MAX, MODULE_PREFIX, token};

/// Bytes of a term that are printed in an error.
const MET: InspectLimits = InspectLimits { text_bytes_max: 80 };

/// What a type that is a list to serde has to be for a binary.
const READS_BINARY: &str =
    "`kvnode::etf::Binary` or `#[serde(with = \"kvnode::etf::with::bytes\")]` reads one";

/// Takes one term off the front of a cursor.
pub(super) struct Deserializer<'de> {
    pub(super) cursor: Cursor<'de>,
    /// Compound terms around the cursor.
    depth: usize,
    /// Options and newtypes around the next term: a type of nothing else that contains itself has no end.
    wraps: usize,
    /// The next term is the key of a map: a string may be an atom there.
    is_key: bool,
}

/// What it is and how it begins, for an error.
pub(super) fn met(cursor: Cursor<'_>) -> String {
    let kind = match cursor.peek().unwrap_or_default() {
        SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | ATOM_EXT | SMALL_ATOM_EXT => "atom",
        SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT => "integer",
        NEW_FLOAT_EXT | FLOAT_EXT => "float",
        BINARY_EXT => "binary",
        BIT_BINARY_EXT => "bit string",
        NIL_EXT | STRING_EXT | LIST_EXT => "list",
        SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => "tuple",
        MAP_EXT => "map",
        NEW_PID_EXT | PID_EXT => "pid",
        NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => "reference",
        V4_PORT_EXT | NEW_PORT_EXT | PORT_EXT => "port",
        EXPORT_EXT | NEW_FUN_EXT | FUN_EXT => "function",
        RECORD_EXT => "record",
        _ => "term",
    };
    format!("the {kind} {}", inspect(first(cursor), MET))
}

/// The term at the cursor, not walked: only for callers that find its end themselves.
pub(super) fn first(cursor: Cursor<'_>) -> TermView<'_> {
    TermView::trusted(cursor.rest(), Traits::none())
}

pub(super) const fn is_atom(tag: u8) -> bool {
    matches!(tag, SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | ATOM_EXT | SMALL_ATOM_EXT)
}

const fn is_list(tag: u8) -> bool {
    matches!(tag, NIL_EXT | LIST_EXT | STRING_EXT)
}

const fn is_tuple(tag: u8) -> bool {
    matches!(tag, SMALL_TUPLE_EXT | LARGE_TUPLE_EXT)
}

impl<'de> Deserializer<'de> {
    pub(super) const fn new(term: TermView<'de>) -> Self {
        Self { cursor: term.cursor(), depth: 0, wraps: 0, is_key: false }
    }

    /// One for another place at the same depth.
    pub(super) const fn elsewhere(&self, cursor: Cursor<'de>) -> Self {
        Self { cursor, depth: self.depth, wraps: 0, is_key: false }
    }

    pub(super) fn tag(&self) -> Result<u8, ConvertError> {
        Ok(self.cursor.peek()?)
    }

    /// Before an element, a key or a value.
    pub(super) const fn next(&mut self, is_key: bool) {
        self.wraps = 0;
        self.is_key = is_key;
    }

    fn unexpected<T>(&self, wanted: &dyn Expected) -> Result<T, ConvertError> {
        Err(ConvertError::unexpected(wanted, met(self.cursor)))
    }

    /// Reads the inside of a compound term.
    fn enter<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, ConvertError>,
    ) -> Result<T, ConvertError> {
        if self.depth == DEPTH_MAX {
            return Err(ConvertProblem::TooDeep.here());
        }
        self.depth += 1;
        self.is_key = false;
        let result = read(self);
        self.depth -= 1;
        result
    }

    /// Before what takes nothing of the term: an option, a newtype.
    pub(super) fn wrap(&mut self) -> Result<(), ConvertError> {
        self.wraps += 1;
        if self.wraps > DEPTH_MAX { Err(ConvertProblem::TooDeep.here()) } else { Ok(()) }
    }

    fn list<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        self.enter(|de| {
            let mut list = Elements::of_list(de)?;
            let value = visitor.visit_seq(&mut list)?;
            list.finish()?;
            Ok(value)
        })
    }

    fn tuple<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        self.enter(|de| {
            let mut tuple = Elements::of_tuple(de)?;
            let value = visitor.visit_seq(&mut tuple)?;
            tuple.finish()?;
            Ok(value)
        })
    }

    fn map<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        self.enter(|de| Pairs::new(de)?.read(visitor))
    }

    /// The text of a binary, and in the place of a key that of an atom.
    pub(super) fn text(&mut self, wanted: &dyn Expected) -> Result<Cow<'de, str>, ConvertError> {
        if self.is_key && is_atom(self.tag()?) {
            return Ok(self.cursor.atom()?.to_str());
        }
        let before = self.cursor;
        let bytes = self.binary(wanted)?;
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Cow::Borrowed(text)),
            Err(_) => {
                Err(ConvertError::unexpected(wanted, format_args!("{}, which is not UTF-8", met(before))))
            }
        }
    }

    fn binary(&mut self, wanted: &dyn Expected) -> Result<&'de [u8], ConvertError> {
        match self.tag()? {
            BINARY_EXT => Ok(self.cursor.binary()?),
            BIT_BINARY_EXT => {
                let mut cursor = self.cursor;
                let (bits, bytes) = bit_binary(&mut cursor)?;
                if bits != 8 {
                    return self.unexpected(wanted);
                }
                self.cursor = cursor;
                Ok(bytes)
            }
            _ => self.unexpected(wanted),
        }
    }

    fn visit_text<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.text(&visitor)? {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    fn visit_atom<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        if !is_atom(self.tag()?) {
            return self.unexpected(&visitor);
        }
        match self.cursor.atom()?.to_str() {
            Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
            Cow::Owned(text) => visitor.visit_string(text),
        }
    }

    /// Takes the atom `text`, or leaves what is there.
    fn take_atom(&mut self, text: &str) -> bool {
        let mut cursor = self.cursor;
        let found = cursor.atom().is_ok_and(|atom| atom == text);
        if found {
            self.cursor = cursor;
        }
        found
    }

    fn visit_integer<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, ConvertError> {
        let before = self.cursor;
        let number = number(&mut self.cursor)?;
        // Of these widths serde's own words tell the type only.
        let refused = |visitor: &V| ConvertError::unexpected(visitor as &dyn Expected, met(before));
        match number {
            Some(Number::Unsigned(value)) => match u64::try_from(value) {
                Ok(value) => visitor.visit_u64(value),
                Err(_) => {
                    let refused = refused(&visitor);
                    visitor.visit_u128(value).map_err(|_: ConvertError| refused)
                }
            },
            Some(Number::Negative(value)) => match i64::try_from(value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => {
                    let refused = refused(&visitor);
                    visitor.visit_i128(value).map_err(|_: ConvertError| refused)
                }
            },
            Some(Number::Float(_) | Number::Huge) | None => Err(refused(&visitor)),
        }
    }

    /// A float, or an integer that is one without loss, as callers write `1` for `1.0`.
    fn float(&mut self, wanted: &dyn Expected) -> Result<f64, ConvertError> {
        let mut cursor = self.cursor;
        let value = match number(&mut cursor)? {
            Some(Number::Float(value)) => Some(value),
            Some(Number::Unsigned(value)) => {
                Some(value as f64).filter(|float| *float < u128::MAX as f64 && *float as u128 == value)
            }
            Some(Number::Negative(value)) => Some(value as f64).filter(|float| *float as i128 == value),
            Some(Number::Huge) | None => None,
        };
        match value {
            Some(value) => {
                self.cursor = cursor;
                Ok(value)
            }
            None => self.unexpected(wanted),
        }
    }

    fn charlist(&mut self, wanted: &dyn Expected) -> Result<String, ConvertError> {
        let before = self.cursor;
        let mut list = Elements::of_list(self)?;
        let mut text = String::new();
        while let Some(char) = list.next_char()? {
            let Some(char) = char else { return Err(ConvertError::unexpected(wanted, met(before))) };
            text.push(char);
        }
        Ok(text)
    }
}

/// Methods for types that are read alike.
macro_rules! alike {
    ($($method:ident)* => $same:ident) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
            self.$same(visitor)
        })*
    };
}

impl<'de> de::Deserializer<'de> for &mut Deserializer<'de> {
    type Error = ConvertError;

    alike!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
           deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 => visit_integer);
    alike!(deserialize_str deserialize_string => visit_text);
    alike!(deserialize_byte_buf => deserialize_bytes);

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        let tag = self.tag()?;
        match tag {
            _ if is_atom(tag) && !self.is_key => {
                if self.take_atom("true") {
                    visitor.visit_bool(true)
                } else if self.take_atom("false") {
                    visitor.visit_bool(false)
                } else if self.take_atom("nil") {
                    visitor.visit_unit()
                } else {
                    self.visit_atom(visitor)
                }
            }
            _ if is_atom(tag) => self.visit_atom(visitor),
            SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT => self.visit_integer(visitor),
            NEW_FLOAT_EXT | FLOAT_EXT => self.deserialize_f64(visitor),
            BINARY_EXT | BIT_BINARY_EXT => {
                let bytes = self.binary(&visitor)?;
                match std::str::from_utf8(bytes) {
                    Ok(text) => visitor.visit_borrowed_str(text),
                    Err(_) => visitor.visit_borrowed_bytes(bytes),
                }
            }
            MAP_EXT => self.map(visitor),
            _ if is_list(tag) => self.list(visitor),
            _ if is_tuple(tag) => self.tuple(visitor),
            NEW_PID_EXT | PID_EXT | NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                // What serde keeps for `flatten` and `untagged`, and hands to a `Pid` later; else an error.
                let refused = ConvertError::unexpected(&visitor as &dyn Expected, met(self.cursor));
                let term = self.cursor.term()?;
                let bytes = BorrowedBytesDeserializer::<ConvertError>::new(term.bytes());
                visitor.visit_newtype_struct(bytes).map_err(|_: ConvertError| refused)
            }
            _ => self.unexpected(&visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        if self.take_atom("true") {
            visitor.visit_bool(true)
        } else if self.take_atom("false") {
            visitor.visit_bool(false)
        } else {
            self.unexpected(&visitor)
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        let before = self.cursor;
        let value = self.float(&visitor)?;
        // It loses digits, as everywhere in Rust, but does not become infinite.
        if (value as f32).is_finite() {
            visitor.visit_f64(value)
        } else {
            Err(ConvertError::unexpected(&visitor as &dyn Expected, met(before)))
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        let value = self.float(&visitor)?;
        visitor.visit_f64(value)
    }

    /// A binary of one character, or its code point: `?a` is 97 in Elixir.
    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        let mut cursor = self.cursor;
        match number(&mut cursor)? {
            Some(Number::Unsigned(code)) => match u32::try_from(code).ok().and_then(char::from_u32) {
                Some(char) => {
                    self.cursor = cursor;
                    visitor.visit_char(char)
                }
                None => self.unexpected(&visitor),
            },
            _ => self.visit_text(visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        let bytes = self.binary(&visitor)?;
        visitor.visit_borrowed_bytes(bytes)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        if self.take_atom("nil") {
            return visitor.visit_none();
        }
        self.wrap()?;
        visitor.visit_some(self)
    }

    /// `nil`, or `:ok`, as functions with nothing else to say answer.
    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        if self.take_atom("nil") || self.take_atom("ok") {
            visitor.visit_unit()
        } else {
            self.unexpected(&visitor)
        }
    }

    fn deserialize_unit_struct<V>(self, name: &'static str, visitor: V) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        if self.take_atom(name) {
            return visitor.visit_unit();
        }
        Err(ConvertError::unexpected(format_args!("the atom :{name}"), met(self.cursor)))
    }

    fn deserialize_newtype_struct<V>(self, name: &'static str, visitor: V) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        match name {
            token::ATOM => self.visit_atom(visitor),
            token::CHARLIST if is_list(self.tag()?) => {
                let text = self.charlist(&visitor)?;
                visitor.visit_string(text)
            }
            token::CHARLIST => self.visit_text(visitor),
            token::TERM => {
                let term = self.cursor.term()?;
                visitor.visit_borrowed_bytes(term.bytes())
            }
            token::PID => match first(self.cursor).as_pid() {
                Some(_) => visitor.visit_borrowed_bytes(self.cursor.term()?.bytes()),
                None => self.unexpected(&visitor),
            },
            token::REFERENCE => match first(self.cursor).as_reference() {
                Some(_) => visitor.visit_borrowed_bytes(self.cursor.term()?.bytes()),
                None => self.unexpected(&visitor),
            },
            token::TIMEOUT if self.take_atom(INFINITY) => visitor.visit_str(INFINITY),
            token::TIMEOUT => self.visit_integer(visitor),
            token::UNDEFINED => {
                if self.take_atom("undefined") || self.take_atom("nil") {
                    return visitor.visit_none();
                }
                self.wrap()?;
                visitor.visit_some(self)
            }
            _ => {
                self.wrap()?;
                visitor.visit_newtype_struct(self)
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.tag()? {
            tag if is_list(tag) => self.list(visitor),
            // Not read as one: then `Vec<String>` would take an empty text for no texts.
            BINARY_EXT => {
                Err(ConvertError::unexpected_but(&visitor as &dyn Expected, met(self.cursor), READS_BINARY))
            }
            _ => self.unexpected(&visitor),
        }
    }

    /// A tuple of this many elements; also a list of them, as arrays are tuples to serde.
    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        let tag = self.tag()?;
        if is_list(tag) { self.list(visitor) } else { self.deserialize_tuple_struct("", len, visitor) }
    }

    fn deserialize_tuple_struct<V>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        match first(self.cursor).tuple_arity() {
            Some(arity) if arity == len => self.tuple(visitor),
            _ => self.unexpected(&visitor),
        }
    }

    /// A map, or a list of pairs, as a keyword list is.
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        match self.tag()? {
            MAP_EXT | NIL_EXT | LIST_EXT => self.map(visitor),
            _ => self.unexpected(&visitor),
        }
    }

    fn deserialize_struct<V>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        let module = name.starts_with(MODULE_PREFIX).then_some(name);
        match self.tag()? {
            MAP_EXT => self.enter(|de| Pairs::of_fields(de, module)?.read(visitor)),
            NIL_EXT | LIST_EXT if module.is_none() => {
                self.enter(|de| Pairs::of_fields(de, None)?.read(visitor))
            }
            _ => self.unexpected(&visitor),
        }
    }

    fn deserialize_enum<V>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        let tag = self.tag()?;
        match first(self.cursor).tuple_arity() {
            Some(arity) if arity > 0 => self.enter(|de| {
                let whole = de.cursor;
                de.cursor.tuple()?;
                visitor.visit_enum(Variant::new(de, whole, name, Some(arity - 1)))
            }),
            None if is_atom(tag) || tag == BINARY_EXT => {
                let whole = self.cursor;
                visitor.visit_enum(Variant::new(self, whole, name, None))
            }
            _ => self.unexpected(&visitor),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        self.is_key = true;
        self.visit_text(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        self.cursor.skip()?;
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        true
    }
}
