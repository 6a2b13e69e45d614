//! The elements of lists and tuples, as visitors take them.

use serde::de::{DeserializeSeed, SeqAccess};

use super::super::Cursor;
use super::super::tag::*;
use super::de::{Deserializer, met};
use super::error::{ConvertError, Step};
use super::number::{Number, number};

/// The elements of a `STRING_EXT` as terms of their own, that any type can be read from.
#[expect(clippy::indexing_slicing, reason = "`byte` is less than how many there are")]
static BYTES: [[u8; 2]; 256] = {
    let mut terms = [[SMALL_INTEGER_EXT, 0]; 256];
    let mut byte = 0;
    while byte < terms.len() {
        terms[byte][1] = byte as u8;
        byte += 1;
    }
    terms
};

/// What is left of a compound term.
pub(super) enum Parts<'de> {
    /// So many, at the cursor.
    Plain(usize),
    /// So many, at the cursor, and then the tail of a list.
    List(usize),
    /// In a `STRING_EXT` that the cursor is already behind.
    String(&'de [u8]),
    /// Nothing: the cursor is behind the tail of a list.
    End,
}

/// Where a part is.
pub(super) enum Part<'de> {
    AtCursor,
    Byte(&'de [u8]),
}

impl<'de> Parts<'de> {
    /// Opens a list, or the list that is the tail of one.
    ///
    /// # Errors
    /// `None` at what is no list.
    pub(super) fn of_list(cursor: &mut Cursor<'de>) -> Result<Option<Self>, ConvertError> {
        Ok(Some(match cursor.peek()? {
            NIL_EXT => {
                cursor.list()?;
                Self::End
            }
            LIST_EXT => Self::List(cursor.list()?),
            STRING_EXT => {
                let [_, len @ ..] = cursor.array::<3>()?;
                Self::String(cursor.take(u16::from_be_bytes(len).into())?)
            }
            _ => return Ok(None),
        }))
    }

    /// Goes to the next part; `None` behind the last. `start` is the whole term, for an error.
    pub(super) fn advance(
        &mut self,
        cursor: &mut Cursor<'de>,
        start: Cursor<'de>,
    ) -> Result<Option<Part<'de>>, ConvertError> {
        loop {
            match self {
                Self::Plain(0) | Self::End => return Ok(None),
                Self::List(0) => {
                    let tail = Self::of_list(cursor)?;
                    *self = tail.ok_or_else(|| ConvertError::unexpected("a proper list", met(start)))?;
                }
                Self::Plain(left) | Self::List(left) => {
                    *left -= 1;
                    return Ok(Some(Part::AtCursor));
                }
                Self::String(bytes) => match bytes.split_first() {
                    #[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
                    Some((&byte, rest)) => {
                        *bytes = rest;
                        return Ok(Some(Part::Byte(&BYTES[usize::from(byte)])));
                    }
                    None => *self = Self::End,
                },
            }
        }
    }

    /// How many are known to be left. The walker has seen that there are as many.
    pub(super) const fn left(&self) -> usize {
        match self {
            Self::Plain(left) | Self::List(left) => *left,
            Self::String(bytes) => bytes.len(),
            Self::End => 0,
        }
    }
}

/// The elements of a list or tuple.
pub(super) struct Elements<'a, 'de> {
    de: &'a mut Deserializer<'de>,
    parts: Parts<'de>,
    /// The place of the next one.
    at: usize,
    /// The whole.
    start: Cursor<'de>,
    is_list: bool,
}

impl<'a, 'de> Elements<'a, 'de> {
    /// The cursor is at a tuple.
    pub(super) fn of_tuple(de: &'a mut Deserializer<'de>) -> Result<Self, ConvertError> {
        let start = de.cursor;
        let parts = Parts::Plain(de.cursor.tuple()?);
        Ok(Self { de, parts, at: 0, start, is_list: false })
    }

    /// The cursor is behind the first element of the tuple `start`.
    pub(super) const fn of_rest(de: &'a mut Deserializer<'de>, start: Cursor<'de>, left: usize) -> Self {
        Self { de, parts: Parts::Plain(left), at: 1, start, is_list: false }
    }

    /// The cursor is at a list.
    pub(super) fn of_list(de: &'a mut Deserializer<'de>) -> Result<Self, ConvertError> {
        let start = de.cursor;
        let parts = Parts::of_list(&mut de.cursor)?;
        let parts = parts.ok_or_else(|| ConvertError::unexpected("a list", met(start)))?;
        Ok(Self { de, parts, at: 0, start, is_list: true })
    }

    fn advance(&mut self) -> Result<Option<Part<'de>>, ConvertError> {
        self.parts.advance(&mut self.de.cursor, self.start)
    }

    /// The next element as a code point; `Some(None)` where it is none.
    pub(super) fn next_char(&mut self) -> Result<Option<Option<char>>, ConvertError> {
        let number = match self.advance()? {
            None => return Ok(None),
            Some(Part::Byte(term)) => number(&mut Cursor::new(term))?,
            Some(Part::AtCursor) => number(&mut self.de.cursor)?,
        };
        Ok(Some(match number {
            Some(Number::Unsigned(code)) => u32::try_from(code).ok().and_then(char::from_u32),
            _ => None,
        }))
    }

    /// That all elements have been read. Leaves the cursor behind the term.
    pub(super) fn finish(mut self) -> Result<(), ConvertError> {
        if self.advance()?.is_none() {
            return Ok(());
        }
        let wanted = format_args!("{} elements", self.at);
        Err(ConvertError::unexpected(wanted, format_args!("more in {}", met(self.start))))
    }
}

impl<'de> SeqAccess<'de> for Elements<'_, 'de> {
    type Error = ConvertError;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, ConvertError>
    where
        T: DeserializeSeed<'de>,
    {
        let result = match self.advance()? {
            None => return Ok(None),
            Some(Part::Byte(term)) => seed.deserialize(&mut self.de.elsewhere(Cursor::new(term))),
            Some(Part::AtCursor) => {
                self.de.next(false);
                seed.deserialize(&mut *self.de)
            }
        };
        let at = self.at;
        self.at += 1;
        result
            .map(Some)
            .map_err(|error| error.at(if self.is_list { Step::Index(at) } else { Step::Element(at) }))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.parts.left())
    }
}
