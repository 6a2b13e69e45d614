//! The pairs of maps, keyword lists and structs, as visitors take them.

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeSeed, MapAccess, Visitor};

use super::super::Cursor;
use super::super::tag::*;
use super::de::{Deserializer, first, is_atom, met};
use super::elements::{Part, Parts};
use super::error::{ConvertError, Step};
use super::{MODULE_FIELD, MODULE_PREFIX};

/// The pairs of a map, or of a list of pairs.
pub(super) struct Pairs<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    parts: Parts<'de>,
    is_list: bool,
    /// Pairs so far.
    count: usize,
    /// The keys are the names of a struct's fields.
    are_fields: bool,
    /// The module that `__struct__` has to name, and whether it has done so.
    module: Option<&'static str>,
    has_module: bool,
    /// The whole.
    start: Cursor<'de>,
    /// The last key.
    key: Cursor<'de>,
}

impl<'a, 'de> Pairs<'a, 'de> {
    /// The cursor is at a map or a list.
    pub(super) fn new(de: &'a mut Deserializer<'de>) -> Result<Self, ConvertError> {
        let start = de.cursor;
        let is_list = de.tag()? != MAP_EXT;
        let parts = if is_list {
            let list = Parts::of_list(&mut de.cursor)?;
            list.ok_or_else(|| ConvertError::unexpected("a map or a list of pairs", met(start)))?
        } else {
            Parts::Plain(de.cursor.map()?)
        };
        let (are_fields, module, has_module) = (false, None, false);
        Ok(Self { de, parts, is_list, count: 0, are_fields, module, has_module, start, key: start })
    }

    /// The same, as a struct's fields; only a map may be the struct of a module.
    pub(super) fn of_fields(
        de: &'a mut Deserializer<'de>,
        module: Option<&'static str>,
    ) -> Result<Self, ConvertError> {
        Ok(Self { are_fields: true, module, ..Self::new(de)? })
    }

    /// Lets the visitor take all pairs. Leaves the cursor behind the term.
    pub(super) fn read<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, ConvertError> {
        match visitor.visit_map(&mut self) {
            Ok(value) => {
                if self.advance()? {
                    return Err(ConvertError::unexpected("fewer pairs", met(self.start)));
                }
                match self.module {
                    Some(module) if !self.has_module => Err(self.not_of(module)),
                    _ => Ok(value),
                }
            }
            Err(error) => match self.module {
                // That it is another struct, or none, says more than that it lacks a field.
                Some(module) if error.is_here() && !self.is_of(module)? => Err(self.not_of(module)),
                _ => Err(error),
            },
        }
    }

    fn not_of(&self, module: &str) -> ConvertError {
        let module = module.strip_prefix(MODULE_PREFIX).unwrap_or(module);
        ConvertError::unexpected(format_args!("the struct %{module}{{}}"), met(self.start))
    }

    /// Whether `__struct__` is anywhere in the map and names the module.
    fn is_of(&self, module: &str) -> Result<bool, ConvertError> {
        let mut cursor = self.start;
        for _ in 0..cursor.map()? {
            let (key, value) = (cursor.term()?, cursor.term()?);
            if key.is_atom(MODULE_FIELD) {
                return Ok(value.is_atom(module));
            }
        }
        Ok(false)
    }

    /// Goes to the next key.
    fn advance(&mut self) -> Result<bool, ConvertError> {
        let before = match self.parts.advance(&mut self.de.cursor, self.start)? {
            None => return Ok(false),
            Some(Part::AtCursor) => self.de.cursor,
            Some(Part::Byte(term)) => Cursor::new(term),
        };
        if self.is_list && first(before).tuple_arity() != Some(2) {
            return Err(ConvertError::unexpected("a pair", met(before)).at(Step::Index(self.count)));
        }
        if self.is_list {
            self.de.cursor.tuple()?;
        }
        self.count += 1;
        Ok(true)
    }

    /// Takes `__struct__` with its value, where a module is wanted.
    fn take_module(&mut self) -> Result<bool, ConvertError> {
        let Some(module) = self.module.filter(|_| first(self.de.cursor).is_atom(MODULE_FIELD)) else {
            return Ok(false);
        };
        self.de.cursor.atom()?;
        if !first(self.de.cursor).is_atom(module) {
            return Err(self.not_of(module));
        }
        self.de.cursor.atom()?;
        self.has_module = true;
        Ok(true)
    }
}

impl<'de> MapAccess<'de> for Pairs<'_, 'de> {
    type Error = ConvertError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, ConvertError> {
        loop {
            if !self.advance()? {
                return Ok(None);
            }
            if !self.take_module()? {
                break;
            }
        }
        self.key = self.de.cursor;
        self.de.next(true);
        let result = match self.de.tag()? {
            tag if !self.are_fields || is_atom(tag) || tag == BINARY_EXT => seed.deserialize(&mut *self.de),
            // No field has such a name, unless someone calls it as it is printed. Fields are never told by a
            // number: to serde that is their order in the type.
            _ => {
                let name = met(self.key);
                self.de.cursor.skip()?;
                seed.deserialize(StrDeserializer::<ConvertError>::new(&name))
            }
        };
        result.map(Some).map_err(|error| if self.are_fields { error } else { error.at(self.step()) })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, ConvertError> {
        self.de.next(false);
        seed.deserialize(&mut *self.de).map_err(|error| error.at(self.step()))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.left())
    }
}

impl Pairs<'_, '_> {
    fn step(&self) -> Step {
        Step::of_key(first(self.key))
    }
}
