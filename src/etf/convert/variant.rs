//! The variants of enums, as visitors take them: an atom, or a tuple that begins with one.

use serde::de::value::{StrDeserializer, UnitDeserializer};
use serde::de::{DeserializeSeed, Deserializer as _, EnumAccess, VariantAccess, Visitor};

use super::super::Cursor;
use super::de::{Deserializer, first, met};
use super::elements::Elements;
use super::error::{ConvertError, Step};
use super::{RESULT, variant_of_result};

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
            _ => self.unexpected(format_args!("a tuple of 2")),
        }
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, ConvertError> {
        if self.arity != Some(len) {
            return self.unexpected(format_args!("a tuple of {}", len + 1));
        }
        let mut rest = Elements::of_rest(self.de, self.start, len);
        let value = visitor.visit_seq(&mut rest)?;
        rest.finish()?;
        Ok(value)
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
