//! The tree of a checked term.

use std::collections::HashMap;

use eetf::{
    Atom, BigInteger, Binary, BitBinary, ByteList, DecodeError, ExternalFun, FixInteger, Float, ImproperList,
    InternalFun, List, Map, Pid, Port, Reference, Term, Tuple,
};

use super::super::key::check_maps;
use super::super::split::{STRING_LEN_MAX, float_text};
use super::super::tag::*;
use super::super::{Cursor, TermError, TermView, Traits};
use super::{EetfLimits, ToEetfError};

type Read<T> = Result<T, ToEetfError>;

pub(super) fn read(term: TermView<'_>, limits: EetfLimits) -> Read<Term> {
    if term.traits().contains(Traits::MAP) {
        check_maps(term)?;
    }
    let mut reader = Reader { cursor: term.cursor(), terms_left: limits.terms_max, limits };
    reader.term(Place { depth: 1, is_in_key: false })
}

/// Where a term stands in the whole.
#[derive(Clone, Copy)]
struct Place {
    /// The whole is 1.
    depth: usize,
    /// Whether it is a key of a map, or in one.
    is_in_key: bool,
}

impl Place {
    const fn below(self) -> Self {
        Self { depth: self.depth + 1, is_in_key: self.is_in_key }
    }
}

/// Reads bytes that have been checked: that they may end too soon is only what the cursor's functions say.
struct Reader<'a> {
    cursor: Cursor<'a>,
    terms_left: usize,
    limits: EetfLimits,
}

impl Reader<'_> {
    fn term(&mut self, at: Place) -> Read<Term> {
        if at.depth > self.limits.depth_max {
            return Err(ToEetfError::TooDeep { depth_max: self.limits.depth_max });
        }
        match self.cursor.peek()? {
            NIL_EXT | STRING_EXT | LIST_EXT => self.list(at),
            SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => self.tuple(at),
            MAP_EXT => self.map(at),
            NEW_FUN_EXT => self.fun(at),
            FUN_EXT => self.old_fun(at),
            _ => self.leaf(),
        }
    }

    /// Takes so many off what the whole may have.
    fn count(&mut self, terms: usize) -> Read<()> {
        let left = self.terms_left.checked_sub(terms);
        self.terms_left = left.ok_or(ToEetfError::TooManyTerms { terms_max: self.limits.terms_max })?;
        Ok(())
    }

    /// So many terms, one level below.
    fn terms(&mut self, count: usize, at: Place) -> Read<Vec<Term>> {
        // None is made room for that may not be.
        if count > self.terms_left {
            return Err(ToEetfError::TooManyTerms { terms_max: self.limits.terms_max });
        }
        (0..count).map(|_| self.term(at.below())).collect()
    }

    fn tuple(&mut self, at: Place) -> Read<Term> {
        self.count(1)?;
        let arity = self.cursor.tuple()?;
        Ok(Tuple::from(self.terms(arity, at)?).into())
    }

    /// A list of any kind. One whose tail is a list goes on in that.
    fn list(&mut self, at: Place) -> Read<Term> {
        self.count(1)?;
        let mut elements = Vec::new();
        loop {
            match self.cursor.peek()? {
                NIL_EXT => {
                    self.cursor.u8()?;
                    return Ok(proper(elements));
                }
                STRING_EXT => {
                    self.cursor.u8()?;
                    let len = self.cursor.u16()?.into();
                    let bytes = self.cursor.take(len)?;
                    if elements.is_empty() && !bytes.is_empty() {
                        return Ok(ByteList::from(bytes.to_vec()).into());
                    }
                    self.count(len)?;
                    elements.extend(bytes.iter().map(|&byte| Term::from(FixInteger::from(byte))));
                    return Ok(proper(elements));
                }
                LIST_EXT => {
                    let len = self.cursor.list()?;
                    elements.append(&mut self.terms(len, at)?);
                }
                _ => {
                    let last = self.term(at.below())?;
                    // `LIST_EXT` of no elements is its tail (`external.c`, dec_term).
                    return Ok(match elements.is_empty() {
                        true => last,
                        false => ImproperList::from((elements, last)).into(),
                    });
                }
            }
        }
    }

    fn map(&mut self, at: Place) -> Read<Term> {
        self.count(1)?;
        let pairs = self.cursor.map()?;
        if at.is_in_key && pairs > 1 {
            return Err(ToEetfError::MapInKey);
        }
        if pairs > self.terms_left / 2 {
            return Err(ToEetfError::TooManyTerms { terms_max: self.limits.terms_max });
        }
        let mut map = HashMap::with_capacity(pairs);
        for _ in 0..pairs {
            let key = self.term(Place { is_in_key: true, ..at.below() })?;
            let value = self.term(at.below())?;
            if map.insert(key, value).is_some() {
                return Err(ToEetfError::EqualKeys);
            }
        }
        Ok(Map::from(map).into())
    }

    fn fun(&mut self, at: Place) -> Read<Term> {
        self.count(1)?;
        self.cursor.u8()?;
        // Its size, which has been checked.
        self.cursor.u32()?;
        let arity = self.cursor.u8()?;
        let uniq = self.cursor.array()?;
        let index = self.cursor.u32()?;
        let free = self.cursor.len32()?;
        let module = self.atom()?;
        let (old_index, old_uniq) = (self.small_integer()?, self.small_integer()?);
        let pid = self.pid()?;
        let free_vars = self.terms(free, at)?;
        Ok(InternalFun::New { module, arity, pid, free_vars, index, uniq, old_index, old_uniq }.into())
    }

    fn old_fun(&mut self, at: Place) -> Read<Term> {
        self.count(1)?;
        self.cursor.u8()?;
        let free = self.cursor.len32()?;
        let pid = self.pid()?;
        let module = self.atom()?;
        let (index, uniq) = (self.small_integer()?, self.small_integer()?);
        let free_vars = self.terms(free, at)?;
        Ok(InternalFun::Old { module, pid, free_vars, index, uniq }.into())
    }

    /// A term that has no parts.
    fn leaf(&mut self) -> Read<Term> {
        self.count(1)?;
        Ok(match self.cursor.peek()? {
            SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT | LARGE_BIG_EXT => self.integer()?,
            SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | SMALL_ATOM_EXT | ATOM_EXT => self.atom()?.into(),
            BINARY_EXT => Binary::from(self.cursor.binary()?).into(),
            BIT_BINARY_EXT => self.bit_string()?,
            NEW_FLOAT_EXT | FLOAT_EXT => Float { value: self.float()? }.into(),
            NEW_PID_EXT | PID_EXT => self.pid()?.into(),
            NEW_PORT_EXT | V4_PORT_EXT | PORT_EXT => self.port()?.into(),
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                let view = self.cursor.reference()?;
                let (node, id) = (atom(view.node), view.words().to_vec());
                Reference { node, id, creation: view.creation }.into()
            }
            EXPORT_EXT => {
                self.cursor.u8()?;
                let (module, function) = (self.atom()?, self.atom()?);
                let [_tag, arity] = self.cursor.array()?;
                ExternalFun { module, function, arity }.into()
            }
            RECORD_EXT => return Err(ToEetfError::NativeRecord),
            other => return Err(TermError::Tag(other).into()),
        })
    }

    fn atom(&mut self) -> Read<Atom> {
        Ok(atom(self.cursor.atom()?))
    }

    fn pid(&mut self) -> Read<Pid> {
        let view = self.cursor.pid()?;
        Ok(Pid { node: atom(view.node), id: view.id, serial: view.serial, creation: view.creation })
    }

    fn port(&mut self) -> Read<Port> {
        let tag = self.cursor.u8()?;
        let node = self.atom()?;
        let id = match tag {
            V4_PORT_EXT => u64::from_be_bytes(self.cursor.array()?),
            _ => self.cursor.u32()?.into(),
        };
        let creation = match tag {
            PORT_EXT => self.cursor.u8()?.into(),
            _ => self.cursor.u32()?,
        };
        Ok(Port { node, id, creation })
    }

    fn float(&mut self) -> Read<f64> {
        Ok(match self.cursor.u8()? {
            FLOAT_EXT => float_text(self.cursor.take(31)?)?,
            _ => f64::from_be_bytes(self.cursor.array()?),
        })
    }

    fn bit_string(&mut self) -> Read<Term> {
        self.cursor.u8()?;
        let (len, bits) = (self.cursor.len32()?, self.cursor.u8()?);
        let mut bytes = self.cursor.take(len)?.to_vec();
        // The walker has seen that there is a byte, and that 1 to 8 of its bits count.
        if bits >= 8 {
            return Ok(Binary::from(bytes).into());
        }
        if let Some(last) = bytes.last_mut() {
            *last >>= 8 - bits;
        }
        Ok(BitBinary::from((bytes, bits)).into())
    }

    /// An integer in any form, by its value alone.
    fn integer(&mut self) -> Read<Term> {
        let tag = self.cursor.u8()?;
        let len = match tag {
            SMALL_INTEGER_EXT => return Ok(FixInteger::from(self.cursor.u8()?).into()),
            INTEGER_EXT => return Ok(FixInteger::from(self.cursor.u32()?.cast_signed()).into()),
            SMALL_BIG_EXT => self.cursor.u8()?.into(),
            _ => self.cursor.len32()?,
        };
        // Any other sign than 0 is a minus to a BEAM.
        let is_negative = self.cursor.u8()? != 0;
        let digits = self.cursor.take(len)?;
        let len = digits.iter().rposition(|&digit| digit != 0).map_or(0, |last| last + 1);
        let digits = digits.get(..len).unwrap_or_default();
        if digits.len() <= 4 {
            let magnitude = digits.iter().rev().fold(0, |value: i64, &digit| value << 8 | i64::from(digit));
            let value = if is_negative { -magnitude } else { magnitude };
            return Ok(match i32::try_from(value) {
                Ok(value) => FixInteger::from(value).into(),
                Err(_) => BigInteger::from(value).into(),
            });
        }
        big(is_negative, digits)
    }

    /// An integer in a fun, for which eetf has 32 bits.
    fn small_integer(&mut self) -> Read<i32> {
        match self.integer()? {
            Term::FixInteger(integer) => Ok(integer.value),
            _ => Err(ToEetfError::FunNumber),
        }
    }
}

fn atom(view: super::super::AtomView<'_>) -> Atom {
    Atom::from(view.to_str().into_owned())
}

/// eetf makes it of the digits: its type for them is of another crate, which it does not show.
fn big(is_negative: bool, digits: &[u8]) -> Read<Term> {
    let len = u32::try_from(digits.len()).map_err(|_| TermError::Integer)?;
    let head = [VERSION_MAGIC, LARGE_BIG_EXT];
    let wire = [&head[..], &len.to_be_bytes(), &[u8::from(is_negative)], digits].concat();
    // Five digits or more, and all of them there: it has nothing to refuse.
    Term::decode(&wire[..]).map_err(|_: DecodeError| TermError::Integer.into())
}

/// A list that ends with `[]`: of bytes, where it would travel as such.
fn proper(elements: Vec<Term>) -> Term {
    let byte = |element: &Term| match element {
        Term::FixInteger(integer) => u8::try_from(integer.value).ok(),
        _ => None,
    };
    let bytes = match elements.len() {
        // Longer ones travel as `LIST_EXT`, which is no `ByteList`.
        1..=STRING_LEN_MAX => elements.iter().map(byte).collect::<Option<Vec<u8>>>(),
        _ => None,
    };
    match bytes {
        Some(bytes) => ByteList::from(bytes).into(),
        None => List::from(elements).into(),
    }
}
