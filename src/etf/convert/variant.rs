//! The variants of enums, as visitors take them: an atom, or a tuple that begins with one.

use serde::de::value::{StrDeserializer, UnitDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer as _, EnumAccess, VariantAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::super::Cursor;
use super::de::{Deserializer, first, met};
use super::elements::Elements;
use super::error::{ConvertError, Step};
use super::{RESULT, token, variant_of_result};

/// A variant whose name is at the cursor.
pub(super) struct Variant<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    /// The whole.
    start: Cursor<'de>,
    /// Of the enum.
    name: &'static str,
    /// What follows in the tuple; `None` for an atom alone.
    arity: Option<usize>,
}

impl<'a, 'de> Variant<'a, 'de> {
    pub(super) const fn new(
        de: &'a mut Deserializer<'de>,
        start: Cursor<'de>,
        name: &'static str,
        arity: Option<usize>,
    ) -> Self {
        Self { de, start, name, arity }
    }

    fn unexpected<T>(&self, wanted: std::fmt::Arguments<'_>) -> Result<T, ConvertError> {
        Err(ConvertError::unexpected(wanted, met(self.start)))
    }
}

impl<'de> EnumAccess<'de> for Variant<'_, 'de> {
    type Error = ConvertError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), ConvertError> {
        let wanted = "the name of a variant";
        let text = match first(self.de.cursor).as_atom() {
            Some(atom) => {
                self.de.cursor.atom()?;
                atom.to_str()
            }
            None => self.de.text(&wanted).map_err(|error| match self.arity {
                Some(_) => error.at(Step::Element(0)),
                None => error,
            })?,
        };
        let text = if self.name == RESULT { variant_of_result(&text) } else { &text };
        Ok((seed.deserialize(StrDeserializer::<ConvertError>::new(text))?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = ConvertError;

    fn unit_variant(self) -> Result<(), ConvertError> {
        match self.arity {
            None => Ok(()),
            Some(_) => self.unexpected(format_args!("an atom alone")),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, ConvertError> {
        match self.arity {
            Some(1) => {
                self.de.next(false);
                seed.deserialize(&mut *self.de).map_err(|error| error.at(Step::Element(1)))
            }
            // `:ok` is `Ok(())`.
            None if self.name == RESULT => seed
                .deserialize(UnitDeserializer::<ConvertError>::new())
                .or_else(|_| self.unexpected(format_args!("a tuple of 2"))),
            // `{:ok, a, b}` is `Ok((a, b))`, as functions answer that have more than one thing to say.
            Some(arity @ 2..) if self.name == RESULT => {
                seed.deserialize(Rest { de: self.de, start: self.start, arity })
            }
            _ => self.unexpected(format_args!("a tuple of 2")),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        match self.arity {
            Some(arity) => Rest { de: self.de, start: self.start, arity }.deserialize_tuple(len, visitor),
            None => self.unexpected(format_args!("a tuple of {}", len + 1)),
        }
    }

    fn struct_variant<V>(self, fields: &'static [&'static str], visitor: V) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        if self.arity != Some(1) {
            return self.unexpected(format_args!("a tuple of 2"));
        }
        self.de.next(false);
        self.de.deserialize_struct("", fields, visitor).map_err(|error| error.at(Step::Element(1)))
    }
}

/// What follows the name in a tuple, as a tuple of its own: for a type that is one.
struct Rest<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    /// The whole.
    start: Cursor<'de>,
    /// What follows the name.
    arity: usize,
}

impl<'de> de::Deserializer<'de> for Rest<'_, 'de> {
    type Error = ConvertError;

    /// Of any type that is no tuple: the whole is too long for it.
    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, ConvertError> {
        Err(ConvertError::unexpected("a tuple of 2", met(self.start)))
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        if self.arity != len {
            let wanted = format_args!("a tuple of {}", len + 1);
            return Err(ConvertError::unexpected(wanted, met(self.start)));
        }
        let mut rest = Elements::of_rest(self.de, self.start, len);
        let value = visitor.visit_seq(&mut rest)?;
        rest.finish()?;
        Ok(value)
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
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, ConvertError> {
        self.de.wrap()?;
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V>(self, name: &'static str, visitor: V) -> Result<V::Value, ConvertError>
    where
        V: Visitor<'de>,
    {
        if token::is_ours(name) {
            return self.deserialize_any(visitor);
        }
        self.de.wrap()?;
        visitor.visit_newtype_struct(self)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq map struct enum identifier ignored_any
    }
}
