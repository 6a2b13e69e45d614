//! The term of a tree.

use eetf::{BigInteger, BitBinary, ExternalFun, InternalFun, Map, Pid, Port, Reference, Term};

use super::super::key::{PORT_NUMBER_V4_FIRST, check_maps};
use super::super::split::{
    ATOM_CHARS_MAX, BIG_BYTES_MAX, FREE_VARIABLES_MAX, REFERENCE_WORDS_MAX, STRING_LEN_MAX,
};
use super::super::tag::*;
use super::super::{OwnedTerm, TermWriter, Traits};
use super::{EetfLimits, FromEetfError};

/// The program's own tree needs no other limit than the stack's.
const DEPTH_MAX: usize = EetfLimits::DEFAULT.depth_max;

type Written = Result<(), FromEetfError>;

pub(super) fn write(term: &Term) -> Result<OwnedTerm, FromEetfError> {
    let mut bytes = Vec::new();
    Writer(&mut bytes).term(term, 1)?;
    // Once more by the walker: what it lets through, every BEAM reads.
    let term = OwnedTerm::parse(bytes)?;
    if term.view().traits().contains(Traits::MAP) {
        check_maps(term.view())?;
    }
    Ok(term)
}

struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    /// The writer of all that it has a word for.
    const fn w(&mut self) -> TermWriter<'_> {
        TermWriter::new(self.0)
    }

    fn term(&mut self, term: &Term, depth: usize) -> Written {
        if depth > DEPTH_MAX {
            return Err(FromEetfError::TooDeep { depth_max: DEPTH_MAX });
        }
        match term {
            Term::List(_) | Term::ImproperList(_) => self.list(term, depth),
            Term::Tuple(tuple) => {
                length(tuple.elements.len())?;
                self.w().tuple(tuple.elements.len());
                self.terms(&tuple.elements, depth)
            }
            Term::Map(map) => self.map(map, depth),
            Term::InternalFun(fun) => self.fun(fun, depth),
            leaf => self.leaf(leaf),
        }
    }

    fn terms(&mut self, terms: &[Term], depth: usize) -> Written {
        terms.iter().try_for_each(|term| self.term(term, depth + 1))
    }

    /// A list and the lists that are its tails: one list.
    fn list(&mut self, list: &Term, depth: usize) -> Written {
        let (mut parts, mut bytes, mut tail) = (Vec::new(), &[][..], Some(list));
        loop {
            match tail {
                Some(Term::ImproperList(list)) => {
                    if list.elements.is_empty() {
                        return Err(FromEetfError::NoElements);
                    }
                    parts.push(&list.elements[..]);
                    tail = Some(&*list.last);
                }
                Some(Term::List(list)) => {
                    parts.push(&list.elements[..]);
                    tail = None;
                }
                Some(Term::ByteList(list)) => {
                    bytes = &list.bytes[..];
                    tail = None;
                }
                _ => break,
            }
        }
        let elements = || parts.iter().copied().flatten();
        let len = elements().count() + bytes.len();
        if tail.is_none() && len <= STRING_LEN_MAX {
            let all: Option<Vec<u8>> = elements().map(byte).chain(bytes.iter().copied().map(Some)).collect();
            if let Some(all) = all {
                return self.bytes(&all);
            }
        }
        length(len)?;
        self.w().list(len);
        for element in elements() {
            self.term(element, depth + 1)?;
        }
        for &byte in bytes {
            self.w().unsigned(byte.into());
        }
        match tail {
            Some(tail) => self.term(tail, depth + 1),
            None => {
                self.w().nil();
                Ok(())
            }
        }
    }

    /// A list of bytes, as a BEAM sends it.
    fn bytes(&mut self, bytes: &[u8]) -> Written {
        match u16::try_from(bytes.len()) {
            Ok(0) => _ = self.w().nil(),
            Ok(len) => {
                self.0.push(STRING_EXT);
                self.0.extend(len.to_be_bytes());
                self.0.extend(bytes);
            }
            Err(_) => {
                length(bytes.len())?;
                let mut w = self.w();
                w.list(bytes.len());
                for &byte in bytes {
                    w.unsigned(byte.into());
                }
                w.nil();
            }
        }
        Ok(())
    }

    /// In the order of the keys' bytes: a tree gives the same bytes each time.
    fn map(&mut self, map: &Map, depth: usize) -> Written {
        length(map.map.len())?;
        self.w().map(map.map.len());
        let mut pairs = Vec::with_capacity(map.map.len());
        for (key, value) in &map.map {
            let mut bytes = Vec::new();
            Writer(&mut bytes).term(key, depth + 1)?;
            pairs.push((bytes, value));
        }
        pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        for (key, value) in pairs {
            self.0.extend(key);
            self.term(value, depth + 1)?;
        }
        Ok(())
    }

    fn fun(&mut self, fun: &InternalFun, depth: usize) -> Written {
        match fun {
            InternalFun::New { module, arity, pid, free_vars, index, uniq, old_index, old_uniq } => {
                let free = free_variables(free_vars)?;
                self.0.push(NEW_FUN_EXT);
                let start = self.0.len();
                // Its size, when it is known.
                self.0.extend([0; 4]);
                self.0.push(*arity);
                self.0.extend(uniq);
                self.0.extend(index.to_be_bytes());
                self.0.extend(free.to_be_bytes());
                self.atom(&module.name)?;
                self.w().integer((*old_index).into()).integer((*old_uniq).into());
                self.pid(pid)?;
                self.terms(free_vars, depth)?;
                let size = length(self.0.len() - start)?;
                if let Some(place) = self.0.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
                    *place = size.to_be_bytes();
                }
            }
            InternalFun::Old { module, pid, free_vars, index, uniq } => {
                let free = free_variables(free_vars)?;
                self.0.push(FUN_EXT);
                self.0.extend(free.to_be_bytes());
                self.pid(pid)?;
                self.atom(&module.name)?;
                self.w().integer((*index).into()).integer((*uniq).into());
                self.terms(free_vars, depth)?;
            }
        }
        Ok(())
    }

    /// A term that has no parts; those that have some are not given to it.
    fn leaf(&mut self, term: &Term) -> Written {
        match term {
            Term::Atom(atom) => self.atom(&atom.name)?,
            Term::FixInteger(integer) => _ = self.w().integer(integer.value.into()),
            Term::BigInteger(integer) => self.integer(integer)?,
            Term::Float(float) if float.value.is_finite() => _ = self.w().float(float.value),
            Term::Float(_) => return Err(FromEetfError::Float),
            Term::Pid(pid) => self.pid(pid)?,
            Term::Port(port) => self.port(port)?,
            Term::Reference(reference) => self.reference(reference)?,
            Term::ExternalFun(fun) => self.export(fun)?,
            Term::Binary(binary) => {
                length(binary.bytes.len())?;
                self.w().binary(&binary.bytes);
            }
            Term::BitBinary(bits) => self.bit_string(bits)?,
            Term::ByteList(list) => self.bytes(&list.bytes)?,
            Term::List(_) | Term::ImproperList(_) | Term::Tuple(_) | Term::Map(_) | Term::InternalFun(_) => {}
        }
        Ok(())
    }

    fn atom(&mut self, text: &str) -> Written {
        let chars = text.chars().count();
        if chars > ATOM_CHARS_MAX {
            return Err(FromEetfError::Atom { chars });
        }
        self.w().atom(text);
        Ok(())
    }

    fn integer(&mut self, integer: &BigInteger) -> Written {
        let value = &integer.value;
        if let Ok(value) = i64::try_from(value) {
            self.w().integer(value);
            return Ok(());
        }
        let is_negative = *value < BigInteger::from(0_u8).value;
        let (_, digits) = value.to_bytes_le();
        if digits.len() > BIG_BYTES_MAX {
            return Err(FromEetfError::Integer);
        }
        match u8::try_from(digits.len()) {
            Ok(len) => self.0.extend([SMALL_BIG_EXT, len]),
            Err(_) => {
                self.0.push(LARGE_BIG_EXT);
                self.0.extend(length(digits.len())?.to_be_bytes());
            }
        }
        self.0.push(is_negative.into());
        self.0.extend(digits);
        Ok(())
    }

    fn bit_string(&mut self, bits: &BitBinary) -> Written {
        let BitBinary { bytes, tail_bits_size } = bits;
        let refused = Err(FromEetfError::BitString { tail_bits_size: *tail_bits_size });
        match (bytes.split_last(), tail_bits_size) {
            (None, 0 | 8) | (Some(_), 8) => {
                length(bytes.len())?;
                self.w().binary(bytes);
                Ok(())
            }
            (Some((last, whole)), 1..=7) if last >> tail_bits_size == 0 => {
                self.0.push(BIT_BINARY_EXT);
                self.0.extend(length(bytes.len())?.to_be_bytes());
                self.0.push(*tail_bits_size);
                self.0.extend(whole);
                self.0.push(last << (8 - tail_bits_size));
                Ok(())
            }
            _ => refused,
        }
    }

    fn pid(&mut self, pid: &Pid) -> Written {
        self.0.push(NEW_PID_EXT);
        self.atom(&pid.node.name)?;
        [pid.id, pid.serial, pid.creation].iter().for_each(|word| self.0.extend(word.to_be_bytes()));
        Ok(())
    }

    fn port(&mut self, port: &Port) -> Written {
        match u32::try_from(port.id) {
            Ok(id) if id < PORT_NUMBER_V4_FIRST => {
                self.0.push(NEW_PORT_EXT);
                self.atom(&port.node.name)?;
                self.0.extend(id.to_be_bytes());
            }
            _ => {
                self.0.push(V4_PORT_EXT);
                self.atom(&port.node.name)?;
                self.0.extend(port.id.to_be_bytes());
            }
        }
        self.0.extend(port.creation.to_be_bytes());
        Ok(())
    }

    fn reference(&mut self, reference: &Reference) -> Written {
        let words = reference.id.len();
        let len = match u16::try_from(words) {
            Ok(len) if (1..=REFERENCE_WORDS_MAX).contains(&words) => len,
            _ => return Err(FromEetfError::Reference { words }),
        };
        self.0.push(NEWER_REFERENCE_EXT);
        self.0.extend(len.to_be_bytes());
        self.atom(&reference.node.name)?;
        self.0.extend(reference.creation.to_be_bytes());
        reference.id.iter().for_each(|word| self.0.extend(word.to_be_bytes()));
        Ok(())
    }

    fn export(&mut self, fun: &ExternalFun) -> Written {
        self.0.push(EXPORT_EXT);
        self.atom(&fun.module.name)?;
        self.atom(&fun.function.name)?;
        self.0.extend([SMALL_INTEGER_EXT, fun.arity]);
        Ok(())
    }
}

/// The byte that an element of a list is.
fn byte(element: &Term) -> Option<u8> {
    match element {
        Term::FixInteger(integer) => u8::try_from(integer.value).ok(),
        Term::BigInteger(integer) => u8::try_from(&integer.value).ok(),
        _ => None,
    }
}

/// A length that has 32 bits.
fn length(len: usize) -> Result<u32, FromEetfError> {
    u32::try_from(len).map_err(|_| FromEetfError::TooLarge)
}

fn free_variables(variables: &[Term]) -> Result<u32, FromEetfError> {
    let count = variables.len();
    match u32::try_from(count) {
        Ok(free) if free <= FREE_VARIABLES_MAX => Ok(free),
        _ => Err(FromEetfError::FreeVariables { count }),
    }
}
