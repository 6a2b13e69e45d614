//! Writing a term in its canonical form.
//!
//! One pass over the input. Open terms are on a stack of their own, so depth costs memory in proportion to the
//! term's bytes and nothing else. Maps are the only kind whose parts change places, and they do so late: a map
//! that is found in another order is noted, and what it is part of is put in order as a whole when its bytes
//! are needed, because it is a key that is to be compared, or because it is all of the term. So maps in maps in
//! maps are moved once, not once for each map around them.

use super::super::split::{AtomView, Cursor, TermError, TermView, float_text};
use super::super::tag::*;
use super::super::writer::TermWriter;
use super::{
    PORT_NUMBER_V4_FIRST, STRING_LEN_MAX, big, bit_binary, count_bytes, record_head, small_value, unused_bits,
};

/// Bytes that may be moved while keys inside of keys are put in order, for each byte of the term.
const MOVES_PER_BYTE_MAX: usize = 32;
/// The same, for any term: what keeps short ones from ever meeting the bound.
const MOVES_FREE: usize = 1 << 20;

/// Writes the canonical form of `term` into `out`, which is empty.
#[cold]
pub(super) fn rewrite(term: TermView<'_>, out: &mut Vec<u8>) -> Result<(), TermError> {
    let len = term.bytes().len();
    out.reserve(len);
    let mut rewriter = Rewriter {
        input: term.cursor(),
        out,
        open: Vec::new(),
        pairs: Vec::new(),
        unsorted: Vec::new(),
        kept: Vec::new(),
        sorted: Vec::new(),
        moves_left: MOVES_PER_BYTE_MAX.saturating_mul(len).saturating_add(MOVES_FREE),
    };
    rewriter.term()?;
    while let Some(frame) = rewriter.open.pop() {
        match frame {
            Frame::Terms { left } => rewriter.next_of_terms(left)?,
            Frame::List { start, left, count } => {
                rewriter.next_of_list(start, left as usize, count as usize)?
            }
            Frame::Map { start, left, first } => rewriter.next_of_map(start, left, first as usize)?,
            Frame::Fun { start, left } => rewriter.next_of_fun(start, left)?,
        }
    }
    rewriter.put_in_order(0)
}

/// A term that has been begun. 32 bits suffice: [`Rewriter::here`] sees to it.
#[derive(Clone, Copy)]
enum Frame {
    /// So many terms, one or more, and nothing behind them.
    Terms { left: u32 },
    /// A list whose head is at `start`: elements that are left, and those that are written.
    List { start: u32, left: u32, count: u32 },
    /// A map of two or more pairs: keys and values that are left, and its first pair in [`Rewriter::pairs`].
    Map { start: u32, left: u32, first: u32 },
    /// A fun whose size, at `start`, is known when the free variables that are left are written.
    Fun { start: u32, left: u32 },
}

/// Where a pair of a map is in the output.
#[derive(Clone, Copy)]
struct Pair {
    key: u32,
    value: u32,
    end: u32,
}

/// A map whose pairs are to change places.
#[derive(Clone, Copy)]
struct Unsorted {
    /// Its tag's place in the output.
    start: u32,
    /// The end of its last pair as it was written.
    end: u32,
    /// Its pairs in [`Rewriter::kept`].
    first: u32,
    count: u32,
}

/// Tag and number of pairs.
const MAP_HEAD_LEN: usize = 5;

struct Rewriter<'a, 'o> {
    input: Cursor<'a>,
    out: &'o mut Vec<u8>,
    open: Vec<Frame>,
    /// Pairs of the open maps, those of the innermost last.
    pairs: Vec<Pair>,
    /// Closed maps that are still to be put in order, in the order of their ends.
    unsorted: Vec<Unsorted>,
    /// The pairs of those maps, in the order of their keys.
    kept: Vec<Pair>,
    /// A stretch of the output while it is put in order.
    sorted: Vec<u8>,
    moves_left: usize,
}

impl Rewriter<'_, '_> {
    /// Where the next byte will be.
    fn here(&self) -> Result<u32, TermError> {
        // Frames are smaller. What is larger could not be encoded again: lengths have 32 bits.
        u32::try_from(self.out.len()).map_err(|_| TermError::KeyTooComplex)
    }

    fn set_u32(&mut self, at: u32, value: usize) -> Result<(), TermError> {
        let value = u32::try_from(value).map_err(|_| TermError::KeyTooComplex)?;
        #[expect(clippy::indexing_slicing, reason = "four bytes were written there for it")]
        self.out[at as usize..][..4].copy_from_slice(&value.to_be_bytes());
        Ok(())
    }

    fn push_terms(&mut self, left: u32) {
        if left > 0 {
            self.open.push(Frame::Terms { left });
        }
    }

    fn next_of_terms(&mut self, left: u32) -> Result<(), TermError> {
        // Nothing is kept for the last one: a chain of last elements needs no memory.
        self.push_terms(left - 1);
        self.term()
    }

    fn next_of_list(&mut self, start: u32, mut left: usize, mut count: usize) -> Result<(), TermError> {
        loop {
            let before = self.input.rest();
            let bytes = count_bytes(&mut self.input, left);
            self.copy_read(before);
            count += bytes;
            left -= bytes;
            self.here()?;
            if left > 0 {
                self.open.push(Frame::List { start, left: left as u32 - 1, count: count as u32 + 1 });
                return self.term();
            }
            match self.input.peek()? {
                // The tail is a list: its elements are this list's.
                LIST_EXT => left = self.input.list()?,
                STRING_EXT => {
                    let bytes = string(&mut self.input)?;
                    bytes.iter().for_each(|&byte| self.out.extend_from_slice(&[SMALL_INTEGER_EXT, byte]));
                    return self.close_list(start, count + bytes.len());
                }
                NIL_EXT => {
                    self.input.u8()?;
                    return self.close_list(start, count);
                }
                _ if count == 0 => {
                    self.out.truncate(start as usize);
                    return self.term();
                }
                _ => {
                    self.set_u32(start + 1, count)?;
                    return self.term();
                }
            }
        }
    }

    /// Ends a proper list, whose elements have been written behind the head of a `LIST_EXT`.
    #[expect(
        clippy::indexing_slicing,
        reason = "the head of the list, five bytes, and `count` elements of two bytes stand there"
    )]
    fn close_list(&mut self, start: u32, count: usize) -> Result<(), TermError> {
        let head = start as usize;
        let elements = head + 5;
        // As every element begins where the one before ends, this asks each for its tag.
        let bytes_only = count <= STRING_LEN_MAX
            && self.out.len() - elements == count * 2
            && self.out[elements..].iter().step_by(2).all(|&tag| tag == SMALL_INTEGER_EXT);
        if count == 0 {
            self.out.truncate(head);
            self.out.push(NIL_EXT);
        } else if bytes_only {
            self.out[head] = STRING_EXT;
            self.out[head + 1..head + 3].copy_from_slice(&(count as u16).to_be_bytes());
            for at in 0..count {
                self.out[head + 3 + at] = self.out[elements + 2 * at + 1];
            }
            self.out.truncate(head + 3 + count);
        } else {
            self.set_u32(start + 1, count)?;
            self.out.push(NIL_EXT);
        }
        Ok(())
    }

    fn next_of_map(&mut self, start: u32, left: u32, first: usize) -> Result<(), TermError> {
        if left % 2 == 1 {
            // The key of the last pair has just been written.
            if let Some(&Pair { key, .. }) = self.pairs.last() {
                self.put_in_order(key)?;
            }
            let here = self.here()?;
            self.pairs.last_mut().expect("a key is begun by pushing its pair").value = here;
        } else {
            let here = self.here()?;
            if self.pairs.len() > first {
                self.pairs.last_mut().expect("there are more than none").end = here;
            }
            if left == 0 {
                return self.close_map(start, here, first);
            }
            self.pairs.push(Pair { key: here, value: here, end: here });
        }
        self.open.push(Frame::Map { start, left: left - 1, first: first as u32 });
        self.term()
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "`first` pairs are those of other maps; a pair has its places in the output, in order"
    )]
    fn close_map(&mut self, start: u32, end: u32, first: usize) -> Result<(), TermError> {
        let out = &*self.out;
        let key = |pair: &Pair| &out[pair.key as usize..pair.value as usize];
        let pairs = &mut self.pairs[first..];
        if !pairs.is_sorted_by(|one, next| key(one) < key(next)) {
            pairs.sort_unstable_by(|one, other| key(one).cmp(key(other)));
            if pairs.array_windows().any(|[one, next]| key(one) == key(next)) {
                return Err(TermError::DuplicateKey);
            }
            let (first, count) = (self.kept.len() as u32, pairs.len() as u32);
            self.kept.extend_from_slice(pairs);
            self.unsorted.push(Unsorted { start, end, first, count });
        }
        self.pairs.truncate(first);
        Ok(())
    }

    /// Puts the maps in order that are in the output from `from` on.
    #[expect(
        clippy::indexing_slicing,
        reason = "maps and pairs have their places in the output, those of a map inside of it"
    )]
    fn put_in_order(&mut self, from: u32) -> Result<(), TermError> {
        let inside = self.unsorted.partition_point(|map| map.start < from);
        let maps = &mut self.unsorted[inside..];
        let Some(first_kept) = maps.first().map(|map| map.first as usize) else { return Ok(()) };
        let len = self.out.len() - from as usize;
        self.moves_left = self.moves_left.checked_sub(len).ok_or(TermError::KeyTooComplex)?;
        maps.sort_unstable_by_key(|map| map.start);
        self.sorted.clear();
        // What is still to be copied, the next stretch last.
        let mut stretches = vec![(from, self.out.len() as u32)];
        while let Some((start, end)) = stretches.pop() {
            let next = maps.partition_point(|map| map.start < start);
            match maps.get(next).filter(|map| map.start < end) {
                None => self.sorted.extend_from_slice(&self.out[start as usize..end as usize]),
                Some(map) => {
                    let body = map.start as usize + MAP_HEAD_LEN;
                    self.sorted.extend_from_slice(&self.out[start as usize..body]);
                    if map.end < end {
                        stretches.push((map.end, end));
                    }
                    let pairs = &self.kept[map.first as usize..][..map.count as usize];
                    stretches.extend(pairs.iter().rev().map(|pair| (pair.key, pair.end)));
                }
            }
        }
        self.out[from as usize..].copy_from_slice(&self.sorted);
        self.unsorted.truncate(inside);
        self.kept.truncate(first_kept);
        Ok(())
    }

    fn next_of_fun(&mut self, start: u32, left: u32) -> Result<(), TermError> {
        if left == 0 {
            return self.set_u32(start, self.out.len() - start as usize);
        }
        self.open.push(Frame::Fun { start, left: left - 1 });
        self.term()
    }

    /// Writes a term that has no parts, or begins one that has.
    fn term(&mut self) -> Result<(), TermError> {
        let before = self.input.rest();
        let tag = self.input.peek()?;
        match tag {
            SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT | ATOM_EXT | SMALL_ATOM_EXT => self.atom()?,
            SMALL_INTEGER_EXT => self.copy(2)?,
            NIL_EXT => self.copy(1)?,
            NEW_FLOAT_EXT => self.copy(9)?,
            BINARY_EXT => {
                self.input.binary()?;
                self.copy_read(before);
            }
            INTEGER_EXT => {
                let [_, value @ ..] = self.input.array::<5>()?;
                self.writer().integer(i64::from(i32::from_be_bytes(value)));
            }
            FLOAT_EXT => {
                self.input.u8()?;
                let value = float_text(self.input.take(31)?)?;
                self.writer().float(value);
            }
            SMALL_BIG_EXT | LARGE_BIG_EXT => {
                let (sign, digits) = big(&mut self.input)?;
                self.big(sign, digits)?;
            }
            STRING_EXT => match string(&mut self.input)? {
                [] => self.out.push(NIL_EXT),
                _ => self.copy_read(before),
            },
            LIST_EXT => {
                let start = self.here()?;
                let left = self.input.list()?;
                self.out.extend_from_slice(&[LIST_EXT, 0, 0, 0, 0]);
                self.open.push(Frame::List { start, left: left as u32, count: 0 });
            }
            SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => {
                let arity = self.input.tuple()?;
                self.writer().tuple(arity);
                self.push_terms(arity as u32);
            }
            MAP_EXT => {
                let start = self.here()?;
                let pairs = self.input.map()?;
                self.writer().map(pairs);
                let left = u32::try_from(pairs * 2).map_err(|_| TermError::Truncated)?;
                match pairs {
                    0 | 1 => self.push_terms(left),
                    _ => self.open.push(Frame::Map { start, left, first: self.pairs.len() as u32 }),
                }
            }
            BIT_BINARY_EXT => {
                let (bits, bytes) = bit_binary(&mut self.input)?;
                match bytes.split_last() {
                    Some((last, whole)) if bits < 8 => {
                        self.out.extend(before.iter().take(6));
                        self.out.extend_from_slice(whole);
                        self.out.push(last & !unused_bits(bits));
                    }
                    _ => _ = self.writer().binary(bytes),
                }
            }
            NEW_PID_EXT | PID_EXT => {
                let pid = self.input.pid()?;
                self.out.push(NEW_PID_EXT);
                self.write_atom(pid.node);
                self.write_u32s(&[pid.id, pid.serial, pid.creation]);
            }
            V4_PORT_EXT | NEW_PORT_EXT | PORT_EXT => self.port(tag)?,
            NEWER_REFERENCE_EXT | NEW_REFERENCE_EXT | REFERENCE_EXT => {
                let reference = self.input.reference()?;
                let mut words = [0; 5];
                words.iter_mut().zip(reference.words()).for_each(|(word, given)| *word = *given);
                let words = match words.as_slice() {
                    [words @ .., 0, 0] | [words @ .., 0] | words => words,
                };
                self.out.extend_from_slice(&[NEWER_REFERENCE_EXT, 0, words.len() as u8]);
                self.write_atom(reference.node);
                self.write_u32s(&[reference.creation]);
                self.write_u32s(words);
            }
            EXPORT_EXT => {
                self.copy(1)?;
                self.atom()?;
                self.atom()?;
                self.copy(2)?;
            }
            NEW_FUN_EXT => self.fun()?,
            RECORD_EXT => self.record()?,
            FUN_EXT => {
                self.input.skip()?;
                self.copy_read(before);
            }
            other => return Err(TermError::Tag(other)),
        }
        Ok(())
    }

    fn writer(&mut self) -> TermWriter<'_> {
        TermWriter::new(self.out)
    }

    fn copy(&mut self, len: usize) -> Result<(), TermError> {
        let bytes = self.input.take(len)?;
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    /// Writes what has been read since the input was `before`.
    fn copy_read(&mut self, before: &[u8]) {
        let len = before.len() - self.input.rest().len();
        #[expect(clippy::indexing_slicing, reason = "what is left is the end of what there was")]
        self.out.extend_from_slice(&before[..len]);
    }

    fn atom(&mut self) -> Result<(), TermError> {
        let atom = self.input.atom()?;
        self.write_atom(atom);
        Ok(())
    }

    fn write_atom(&mut self, atom: AtomView<'_>) {
        self.writer().atom(&atom.to_str());
    }

    fn write_u32s(&mut self, words: &[u32]) {
        words.iter().for_each(|word| self.out.extend_from_slice(&word.to_be_bytes()));
    }

    fn big(&mut self, sign: u8, mut digits: &[u8]) -> Result<(), TermError> {
        while let [before @ .., 0] = digits {
            digits = before;
        }
        if let Some(value) = small_value(sign, digits) {
            self.writer().integer(i64::from(value));
            return Ok(());
        }
        match u8::try_from(digits.len()) {
            Ok(len) => self.out.extend_from_slice(&[SMALL_BIG_EXT, len]),
            Err(_) => {
                self.out.extend_from_slice(&[LARGE_BIG_EXT, 0, 0, 0, 0]);
                let at = self.here()? - 4;
                self.set_u32(at, digits.len())?;
            }
        }
        self.out.push(u8::from(sign != 0));
        self.out.extend_from_slice(digits);
        Ok(())
    }

    fn port(&mut self, tag: u8) -> Result<(), TermError> {
        self.input.u8()?;
        let node = self.input.atom()?;
        let high = if tag == V4_PORT_EXT { self.input.u32()? } else { 0 };
        let low = self.input.u32()?;
        let creation = if tag == PORT_EXT { u32::from(self.input.u8()?) } else { self.input.u32()? };
        // As a BEAM writes it; releases before OTP 24 read no other form.
        if high == 0 && low < PORT_NUMBER_V4_FIRST {
            self.out.push(NEW_PORT_EXT);
            self.write_atom(node);
            self.write_u32s(&[low, creation]);
        } else {
            self.out.push(V4_PORT_EXT);
            self.write_atom(node);
            self.write_u32s(&[high, low, creation]);
        }
        Ok(())
    }

    /// A native record up to the values of its fields.
    fn record(&mut self) -> Result<(), TermError> {
        let head = self.input.rest().get(..6).ok_or(TermError::Truncated)?;
        let (arity, [module, name]) = record_head(&mut self.input)?;
        self.out.extend_from_slice(head);
        self.write_atom(module);
        self.write_atom(name);
        let mut starts = Vec::new();
        for _ in 0..arity {
            starts.push(self.here()? as usize);
            self.atom()?;
        }
        starts.push(self.out.len());
        #[expect(clippy::indexing_slicing, reason = "each name begins where the one before ends")]
        let mut names: Vec<&[u8]> =
            starts.array_windows().map(|&[start, end]| &self.out[start..end]).collect();
        names.sort_unstable();
        if names.array_windows().any(|[one, next]| one == next) {
            return Err(TermError::DuplicateKey);
        }
        self.push_terms(arity as u32);
        Ok(())
    }

    /// The head of a `NEW_FUN_EXT`: size:32, arity:8, uniq:128, index:32, free:32, module, old index, old uniq,
    /// pid. A BEAM of OTP 27 compares module, index, arity, uniq, old uniq and free variables; OTP 25 leaves out
    /// arity and uniq, OTP 29 old uniq, which only tells funs apart that no compiler makes.
    fn fun(&mut self) -> Result<(), TermError> {
        self.input.take(5)?;
        let start = self.here()? + 1;
        self.out.extend_from_slice(&[NEW_FUN_EXT, 0, 0, 0, 0]);
        self.copy(1 + 16)?;
        let (index, free) = (self.input.u32()?, self.input.u32()?);
        self.write_u32s(&[index, free]);
        self.atom()?;
        self.input.skip()?;
        self.writer().unsigned(u64::from(index));
        // An integer, by what the walker has checked.
        self.term()?;
        self.input.pid()?;
        // What OTP 27 itself writes for a fun, whichever process made it.
        self.out.push(NEW_PID_EXT);
        self.writer().atom("nonode@nohost");
        self.write_u32s(&[0, 0, 0]);
        self.open.push(Frame::Fun { start, left: free });
        Ok(())
    }
}

/// Reads the bytes of a `STRING_EXT`.
fn string<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], TermError> {
    let [_, len @ ..] = cursor.array::<3>()?;
    cursor.take(usize::from(u16::from_be_bytes(len)))
}
