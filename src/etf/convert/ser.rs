//! From Rust values to terms.

use serde::Serialize;
use serde::ser::{self, Error};

use super::super::split::STRING_LEN_MAX;
use super::super::tag::*;
use super::super::{TermView, TermWriter, Traits};
use super::error::{ConvertError, ConvertProblem, Step};
use super::{DEPTH_MAX, MODULE_FIELD, MODULE_PREFIX, result_variant, token};

/// Bytes of the head of a list, a map or a large tuple: tag and count.
const HEAD_LEN: usize = 5;

/// Appends one term to a buffer.
pub(super) struct Serializer<'o> {
    out: &'o mut Vec<u8>,
    depth: usize,
    /// What the next value is in Erlang, where its type in Rust does not tell.
    form: Form,
    /// Where `()` was written last.
    unit_at: Option<usize>,
    /// A map of several pairs was written: its keys have to be compared.
    has_map: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Plain,
    /// A string that is an atom.
    Atom,
    /// A string that is a list of code points.
    Charlist,
    /// A struct or map that is a keyword list.
    Keyword,
    /// Bytes that are an encoded term.
    Encoded,
    /// An option whose nothing is `:undefined`.
    Undefined,
}

impl<'o> Serializer<'o> {
    pub(super) const fn new(out: &'o mut Vec<u8>) -> Self {
        Self { out, depth: 0, form: Form::Plain, unit_at: None, has_map: false }
    }

    /// Whether a map of several pairs was written.
    pub(super) const fn has_map(&self) -> bool {
        self.has_map
    }

    fn term(&mut self) -> TermWriter<'_> {
        TermWriter::new(self.out)
    }

    fn atom(&mut self, text: &str) -> Result<(), ConvertError> {
        if text.chars().nth(255).is_some() {
            return Err(ConvertProblem::Atom.here());
        }
        self.term().atom(text);
        Ok(())
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<(), ConvertError> {
        length(bytes.len())?;
        self.term().binary(bytes);
        Ok(())
    }

    fn charlist(&mut self, text: &str) -> Result<(), ConvertError> {
        let mut list = self.open(Kind::List)?;
        for char in text.chars() {
            list.ser.term().unsigned(u64::from(u32::from(char)));
            list.count += 1;
        }
        list.close()
    }

    /// An integer of any width, from its absolute value.
    fn big(&mut self, negative: bool, magnitude: u128) {
        let len = 16 - magnitude.leading_zeros() as usize / 8;
        self.out.extend_from_slice(&[SMALL_BIG_EXT, len as u8, u8::from(negative)]);
        self.out.extend(magnitude.to_le_bytes().iter().take(len));
    }

    /// Begins a compound term whose number of elements is filled in when it ends.
    fn open(&mut self, kind: Kind) -> Result<Compound<'_, 'o>, ConvertError> {
        if self.depth == DEPTH_MAX {
            return Err(ConvertProblem::TooDeep.here());
        }
        self.depth += 1;
        self.form = Form::Plain;
        let head = self.out.len();
        match kind {
            Kind::List | Kind::Keyword => self.out.extend_from_slice(&[LIST_EXT, 0, 0, 0, 0]),
            Kind::Map => self.out.extend_from_slice(&[MAP_EXT, 0, 0, 0, 0]),
            Kind::Tuple { arity } => {
                length(arity)?;
                self.term().tuple(arity);
            }
        }
        Ok(Compound { ser: self, kind, head, count: 0, key: head, outer: false })
    }

    /// `{variant, ...}`
    fn open_variant(&mut self, variant: &str, arity: usize) -> Result<Compound<'_, 'o>, ConvertError> {
        let mut tuple = self.open(Kind::Tuple { arity: arity + 1 })?;
        tuple.ser.atom(variant)?;
        tuple.count = 1;
        Ok(tuple)
    }

    /// A map, or the keyword list that was asked for in its place.
    fn open_pairs(&mut self) -> Result<Compound<'_, 'o>, ConvertError> {
        let kind = if self.form == Form::Keyword { Kind::Keyword } else { Kind::Map };
        self.open(kind)
    }
}

fn length(len: usize) -> Result<u32, ConvertError> {
    u32::try_from(len).map_err(|_| ConvertProblem::TooLong.here())
}

impl<'s, 'o> ser::Serializer for &'s mut Serializer<'o> {
    type Ok = ();
    type Error = ConvertError;
    type SerializeSeq = Compound<'s, 'o>;
    type SerializeTuple = Compound<'s, 'o>;
    type SerializeTupleStruct = Compound<'s, 'o>;
    type SerializeTupleVariant = Compound<'s, 'o>;
    type SerializeMap = Compound<'s, 'o>;
    type SerializeStruct = Compound<'s, 'o>;
    type SerializeStructVariant = Compound<'s, 'o>;

    fn serialize_bool(self, value: bool) -> Result<(), ConvertError> {
        self.atom(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<(), ConvertError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<(), ConvertError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<(), ConvertError> {
        self.serialize_i64(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<(), ConvertError> {
        self.term().integer(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), ConvertError> {
        match i64::try_from(value) {
            Ok(value) => self.serialize_i64(value),
            Err(_) => {
                self.big(value < 0, value.unsigned_abs());
                Ok(())
            }
        }
    }

    fn serialize_u8(self, value: u8) -> Result<(), ConvertError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<(), ConvertError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<(), ConvertError> {
        self.serialize_u64(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<(), ConvertError> {
        self.term().unsigned(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), ConvertError> {
        match u64::try_from(value) {
            Ok(value) => self.serialize_u64(value),
            Err(_) => {
                self.big(false, value);
                Ok(())
            }
        }
    }

    fn serialize_f32(self, value: f32) -> Result<(), ConvertError> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), ConvertError> {
        if !value.is_finite() {
            return Err(ConvertProblem::Float.here());
        }
        self.term().float(value);
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), ConvertError> {
        self.binary(value.encode_utf8(&mut [0; 4]).as_bytes())
    }

    fn serialize_str(self, text: &str) -> Result<(), ConvertError> {
        match self.form {
            Form::Atom => self.atom(text),
            Form::Charlist => self.charlist(text),
            _ => self.binary(text.as_bytes()),
        }
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), ConvertError> {
        if self.form != Form::Encoded {
            return self.binary(bytes);
        }
        // Anyone can name a type of theirs as ours are named.
        let term = TermView::parse(bytes)?;
        self.term().term(term);
        Ok(())
    }

    fn serialize_none(self) -> Result<(), ConvertError> {
        self.atom(if self.form == Form::Undefined { "undefined" } else { "nil" })
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), ConvertError> {
        if self.form == Form::Undefined {
            // Of this option alone, and not of one inside of it.
            self.form = Form::Plain;
        }
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), ConvertError> {
        self.unit_at = Some(self.out.len());
        self.atom("nil")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<(), ConvertError> {
        self.atom(name)
    }

    fn serialize_unit_variant(self, name: &str, _: u32, variant: &str) -> Result<(), ConvertError> {
        self.atom(result_variant(name, variant))
    }

    fn serialize_newtype_struct<T>(self, name: &'static str, value: &T) -> Result<(), ConvertError>
    where
        T: Serialize + ?Sized,
    {
        self.form = match name {
            token::ATOM => Form::Atom,
            token::CHARLIST => Form::Charlist,
            token::KEYWORD => Form::Keyword,
            token::TERM | token::PID | token::REFERENCE => Form::Encoded,
            token::UNDEFINED => Form::Undefined,
            _ => return value.serialize(self),
        };
        value.serialize(&mut *self)?;
        self.form = Form::Plain;
        Ok(())
    }

    fn serialize_newtype_variant<T>(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), ConvertError>
    where
        T: Serialize + ?Sized,
    {
        let renamed = result_variant(name, variant);
        let mut tuple = self.open_variant(renamed, 1)?;
        tuple.ser.unit_at = None;
        let payload = tuple.ser.out.len();
        tuple.element(value)?;
        if renamed != variant && tuple.ser.unit_at == Some(payload) {
            // `:ok` rather than `{:ok, nil}`: nothing but `()` is written as a unit at this very place.
            let head = tuple.head;
            tuple.ser.out.truncate(head);
            tuple.ser.depth -= 1;
            return tuple.ser.atom(renamed);
        }
        tuple.close()
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'s, 'o>, ConvertError> {
        self.open(Kind::List)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'s, 'o>, ConvertError> {
        self.open(Kind::Tuple { arity: len })
    }

    fn serialize_tuple_struct(self, _: &str, len: usize) -> Result<Compound<'s, 'o>, ConvertError> {
        self.open(Kind::Tuple { arity: len })
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'s, 'o>, ConvertError> {
        self.open_variant(result_variant(name, variant), len)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'s, 'o>, ConvertError> {
        self.open_pairs()
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'s, 'o>, ConvertError> {
        let mut pairs = self.open_pairs()?;
        if name.starts_with(MODULE_PREFIX) && pairs.kind == Kind::Map {
            pairs.ser.atom(MODULE_FIELD)?;
            pairs.ser.atom(name)?;
            pairs.count = 1;
        }
        Ok(pairs)
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'s, 'o>, ConvertError> {
        let Compound { ser, .. } = self.open_variant(result_variant(name, variant), 1)?;
        let mut fields = ser.open(Kind::Map)?;
        fields.outer = true;
        Ok(fields)
    }

    // Dates, UUIDs and addresses are text to Elixir's libraries, as in iex.
    fn is_human_readable(&self) -> bool {
        true
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    List,
    Tuple { arity: usize },
    Map,
    Keyword,
}

/// A compound term that has been begun.
pub(super) struct Compound<'s, 'o> {
    ser: &'s mut Serializer<'o>,
    kind: Kind,
    /// Where it begins.
    head: usize,
    /// Elements or pairs so far.
    count: usize,
    /// Where the key of the last pair begins.
    key: usize,
    /// It is the second and last element of a tuple that ends with it.
    outer: bool,
}

impl Compound<'_, '_> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let step = if self.kind == Kind::List { Step::Index(self.count) } else { Step::Element(self.count) };
        value.serialize(&mut *self.ser).map_err(|error| error.at(step))?;
        self.count += 1;
        Ok(())
    }

    /// Begins the next pair.
    fn pair(&mut self) {
        if self.kind == Kind::Keyword {
            self.ser.term().tuple(2);
        }
        self.key = self.ser.out.len();
        self.count += 1;
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), ConvertError> {
        self.pair();
        self.ser.atom(name)?;
        if name == MODULE_FIELD {
            // With `#[serde(tag = "__struct__")]` the variants of an enum are the structs of several modules.
            self.ser.form = Form::Atom;
        }
        value.serialize(&mut *self.ser).map_err(|error| error.at(Step::Field(name.to_owned())))?;
        self.ser.form = Form::Plain;
        Ok(())
    }

    /// The last pair's key, once it is written.
    #[expect(clippy::indexing_slicing, reason = "`pair` has noted where it begins")]
    fn key(&self) -> TermView<'_> {
        TermView::trusted(&self.ser.out[self.key..], Traits::none())
    }

    #[expect(clippy::indexing_slicing, reason = "`open` has written a head there")]
    fn close(self) -> Result<(), ConvertError> {
        let out = &mut *self.ser.out;
        match self.kind {
            Kind::Tuple { arity } if arity != self.count => {
                let text = format_args!("a tuple of {arity} announced, and {} written", self.count);
                return Err(ConvertError::custom(text));
            }
            Kind::Tuple { .. } => {}
            Kind::List | Kind::Keyword if self.count == 0 => {
                out.truncate(self.head);
                out.push(NIL_EXT);
            }
            Kind::List if self.count <= STRING_LEN_MAX && is_bytes(&out[self.head + HEAD_LEN..]) => {
                compact(out, self.head, self.count);
            }
            Kind::List | Kind::Keyword | Kind::Map => {
                let count = length(self.count)?;
                out[self.head + 1..self.head + HEAD_LEN].copy_from_slice(&count.to_be_bytes());
                match self.kind {
                    Kind::Map => self.ser.has_map |= count > 1,
                    _ => out.push(NIL_EXT),
                }
            }
        }
        self.ser.depth -= 1 + usize::from(self.outer);
        Ok(())
    }
}

/// Whether the elements of a list are integers from 0 to 255 and nothing else.
fn is_bytes(elements: &[u8]) -> bool {
    let (pairs, rest) = elements.as_chunks::<2>();
    rest.is_empty() && pairs.iter().all(|[tag, _]| *tag == SMALL_INTEGER_EXT)
}

/// Makes a list of bytes, written one by one, the `STRING_EXT` that a BEAM would write.
#[expect(
    clippy::indexing_slicing,
    reason = "the head of the list and `count` elements of two bytes stand there"
)]
fn compact(out: &mut Vec<u8>, head: usize, count: usize) {
    const STRING_HEAD_LEN: usize = 3;
    out[head] = STRING_EXT;
    out[head + 1..head + STRING_HEAD_LEN].copy_from_slice(&(count as u16).to_be_bytes());
    for at in 0..count {
        out[head + STRING_HEAD_LEN + at] = out[head + HEAD_LEN + 2 * at + 1];
    }
    out.truncate(head + STRING_HEAD_LEN + count);
}

impl ser::SerializeSeq for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.element(value)
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeTuple for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.element(value)
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeTupleStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.element(value)
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeTupleVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        self.element(value)
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeMap for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), ConvertError> {
        self.pair();
        if self.kind == Kind::Map {
            return key.serialize(&mut *self.ser);
        }
        self.ser.form = Form::Atom;
        key.serialize(&mut *self.ser)?;
        self.ser.form = Form::Plain;
        let key = self.key();
        if key.as_atom().is_some() {
            return Ok(());
        }
        Err(ConvertError::unexpected(
            "an atom or a string as a key of a keyword list",
            format_args!("{key:?}"),
        ))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), ConvertError> {
        let result = value.serialize(&mut *self.ser);
        result.map_err(|error| error.at(Step::of_key(self.key())))
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeStruct for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_field<T>(&mut self, name: &'static str, value: &T) -> Result<(), ConvertError>
    where
        T: Serialize + ?Sized,
    {
        self.field(name, value)
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}

impl ser::SerializeStructVariant for Compound<'_, '_> {
    type Ok = ();
    type Error = ConvertError;

    fn serialize_field<T>(&mut self, name: &'static str, value: &T) -> Result<(), ConvertError>
    where
        T: Serialize + ?Sized,
    {
        let result = self.field(name, value);
        result.map_err(|error| error.at(Step::Element(1)))
    }

    fn end(self) -> Result<(), ConvertError> {
        self.close()
    }
}
