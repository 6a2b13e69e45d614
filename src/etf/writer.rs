//! Writes terms at the end of a buffer, in the forms that a BEAM itself writes.

use super::split::TermView;
use super::tag::*;
use super::{Pid, Reference};

/// Appends terms to a byte buffer. Compound terms are headers followed by their elements; the caller writes as
/// many elements as it announced.
pub struct TermWriter<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> TermWriter<'a> {
    /// A writer at the end of `out`.
    pub const fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// The version byte that begins a term on the wire.
    pub fn version(&mut self) -> &mut Self {
        self.out.push(VERSION_MAGIC);
        self
    }

    /// A checked or stored term, copied as it is.
    pub fn term(&mut self, term: TermView<'_>) -> &mut Self {
        self.out.extend_from_slice(term.bytes());
        self
    }

    /// Bytes that the caller knows to be one encoded term, without a version byte: copied as they are. What is none
    /// costs the connection to the node that it is sent to.
    pub fn raw(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.extend_from_slice(encoded);
        self
    }

    /// The buffer that is written to, for writers that go back and fill in a count.
    pub(super) const fn buffer(&mut self) -> &mut Vec<u8> {
        self.out
    }

    /// An atom. Text over 255 characters is cut, as an atom cannot hold more.
    pub fn atom(&mut self, text: &str) -> &mut Self {
        match u8::try_from(text.len()) {
            Ok(len) => {
                self.out.extend_from_slice(&[SMALL_ATOM_UTF8_EXT, len]);
                self.out.extend_from_slice(text.as_bytes());
            }
            Err(_) => self.long_atom(text),
        }
        self
    }

    #[cold]
    fn long_atom(&mut self, text: &str) {
        let text = text.char_indices().nth(255).map_or(text, |(end, _)| &text[..end]);
        self.out.push(ATOM_UTF8_EXT);
        // 255 characters are at most 1,020 bytes.
        self.out.extend_from_slice(&(text.len() as u16).to_be_bytes());
        self.out.extend_from_slice(text.as_bytes());
    }

    /// An integer.
    pub fn integer(&mut self, value: i64) -> &mut Self {
        if let Ok(small) = u8::try_from(value) {
            self.out.extend_from_slice(&[SMALL_INTEGER_EXT, small]);
        } else if let Ok(small) = i32::try_from(value) {
            self.out.push(INTEGER_EXT);
            self.out.extend_from_slice(&small.to_be_bytes());
        } else {
            self.big(value < 0, value.unsigned_abs());
        }
        self
    }

    /// A non-negative integer.
    pub fn unsigned(&mut self, value: u64) -> &mut Self {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => {
                self.big(false, value);
                self
            }
        }
    }

    fn big(&mut self, negative: bool, magnitude: u64) {
        let len = 8 - magnitude.leading_zeros() as usize / 8;
        self.out.extend_from_slice(&[SMALL_BIG_EXT, len as u8, u8::from(negative)]);
        self.out.extend(magnitude.to_le_bytes().iter().take(len));
    }

    /// A float.
    pub fn float(&mut self, value: f64) -> &mut Self {
        self.out.push(NEW_FLOAT_EXT);
        self.out.extend_from_slice(&value.to_be_bytes());
        self
    }

    /// A binary.
    ///
    /// # Panics
    /// Over 4 GiB, which no frame can carry.
    pub fn binary(&mut self, bytes: &[u8]) -> &mut Self {
        self.out.push(BINARY_EXT);
        self.length(bytes.len());
        self.out.extend_from_slice(bytes);
        self
    }

    /// The head of a tuple of `arity` elements.
    pub fn tuple(&mut self, arity: usize) -> &mut Self {
        match u8::try_from(arity) {
            Ok(arity) => self.out.extend_from_slice(&[SMALL_TUPLE_EXT, arity]),
            Err(_) => {
                self.out.push(LARGE_TUPLE_EXT);
                self.length(arity);
            }
        }
        self
    }

    /// The head of a list of `len` elements; the tail, usually [`nil`](Self::nil), comes after them. For no
    /// elements write the tail alone.
    pub fn list(&mut self, len: usize) -> &mut Self {
        if len > 0 {
            self.out.push(LIST_EXT);
            self.length(len);
        }
        self
    }

    /// `[]`.
    pub fn nil(&mut self) -> &mut Self {
        self.out.push(NIL_EXT);
        self
    }

    /// The head of a map of `pairs` keys and values.
    pub fn map(&mut self, pairs: usize) -> &mut Self {
        self.out.push(MAP_EXT);
        self.length(pairs);
        self
    }

    /// A pid.
    pub fn pid(&mut self, pid: &Pid) -> &mut Self {
        self.out.push(NEW_PID_EXT);
        self.atom(&pid.node);
        for word in [pid.id, pid.serial, pid.creation] {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
        self
    }

    /// A reference.
    pub fn reference(&mut self, reference: &Reference) -> &mut Self {
        self.out.push(NEWER_REFERENCE_EXT);
        self.out.extend_from_slice(&(reference.words.len() as u16).to_be_bytes());
        self.atom(&reference.node);
        self.out.extend_from_slice(&reference.creation.to_be_bytes());
        for word in &reference.words {
            self.out.extend_from_slice(&word.to_be_bytes());
        }
        self
    }

    fn length(&mut self, len: usize) {
        let len = u32::try_from(len).expect("no frame carries more than 4 GiB");
        self.out.extend_from_slice(&len.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Traits, encode};
    use super::*;

    #[test]
    fn integers_are_written_as_a_beam_writes_them() {
        let integer = |value| encode(|out| _ = out.integer(value));
        assert_eq!(integer(0), [97, 0]);
        assert_eq!(integer(255), [97, 255]);
        assert_eq!(integer(256), [98, 0, 0, 1, 0]);
        assert_eq!(integer(-1), [98, 255, 255, 255, 255]);
        assert_eq!(integer(i64::from(i32::MIN)), [98, 128, 0, 0, 0]);
        assert_eq!(integer(1 << 31), [110, 4, 0, 0, 0, 0, 128]);
        assert_eq!(integer(-(1 << 31) - 1), [110, 4, 1, 1, 0, 0, 128]);
        assert_eq!(integer(1 << 32), [110, 5, 0, 0, 0, 0, 0, 1]);
        assert_eq!(integer(i64::MIN), [110, 8, 1, 0, 0, 0, 0, 0, 0, 0, 128]);
        assert_eq!(encode(|out| _ = out.unsigned(u64::MAX)), [&[110, 8, 0][..], &[255; 8]].concat());
        assert_eq!(encode(|out| _ = out.unsigned(5)), [97, 5]);
    }

    #[test]
    fn lengths_choose_the_form() {
        assert_eq!(encode(|out| _ = out.atom("é")), [119, 2, 195, 169]);
        assert_eq!(encode(|out| _ = out.atom(&"é".repeat(200)))[..3], [118, 1, 144]);
        let cut = encode(|out| _ = out.atom(&"é".repeat(300)));
        assert!(TermView::parse(&cut).unwrap().is_atom(&"é".repeat(255)));
        assert_eq!(encode(|out| _ = out.tuple(255)), [104, 255]);
        assert_eq!(encode(|out| _ = out.tuple(256)), [105, 0, 0, 1, 0]);
        assert_eq!(encode(|out| _ = out.list(0).nil()), [106]);
        assert_eq!(encode(|out| _ = out.list(1).nil().nil()), [108, 0, 0, 0, 1, 106, 106]);
    }

    #[test]
    fn identifiers_come_back() {
        let pid = Pid { node: "n@h".into(), id: 1, serial: 2, creation: 3 };
        let reference = Reference { node: "n@h".into(), creation: 3, words: vec![1, 2, 3, 4, 5] };
        let bytes = encode(|out| _ = out.tuple(2).pid(&pid).reference(&reference));
        let term = TermView::parse(&bytes).unwrap();
        assert!(term.traits().contains(Traits::V4_NC));
        let [one, other] = term.as_tuple().unwrap();
        assert_eq!(Pid::from(one.as_pid().unwrap()), pid);
        assert_eq!(Reference::from(other.as_reference().unwrap()), reference);
        assert_eq!(encode(|out| _ = out.version().term(one)), [&[131], one.bytes()].concat());
    }
}
