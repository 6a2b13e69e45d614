//! The canonical bytes of a term: two keys are the same bytes exactly when they are `=:=`.
//!
//! The external term format has several encodings of one term, and which of them a node writes depends on its
//! version, its options and the term's history. Between [`Cursor`] and the store, this module picks one of
//! them. It is itself a valid encoding of an equal term, since keys are also sent on, to slaves.
//!
//! | kind | canonical form |
//! | --- | --- |
//! | integer | the shortest of `SMALL_INTEGER`, `INTEGER`, `SMALL_BIG`, `LARGE_BIG`; no leading zero digits; zero has no sign |
//! | atom | UTF-8, `SMALL_ATOM_UTF8` up to 255 bytes, else `ATOM_UTF8` |
//! | float | `NEW_FLOAT`; `0.0` and `-0.0` are two keys, as from OTP 27 on |
//! | tuple | `SMALL_TUPLE` up to 255 elements |
//! | list | `STRING` where every element is a byte and there are 1 to 65,535 of them; else one `LIST` whose tail is no list |
//! | bit string | `BINARY` where it has whole bytes; else the unused bits are zero |
//! | pid, port, reference | `NEW_PID`, `NEW_PORT` (`V4_PORT` from 2^28 on), `NEWER_REFERENCE` of three words or more, without zero words behind the third |
//! | map | pairs in the order of the canonical bytes of their keys |
//! | fun | `NEW_FUN`; its creator and old index are no part of its identity (OTP 27) and are overwritten |
//! | native record | its parts, in their order, which is part of its identity |
//!
//! Not done here: a pid of creation 0 stays apart from the same pid with the node's creation, although a BEAM
//! takes it for its own, and `FUN_EXT`, which no OTP since 23 reads or writes, is kept as it came.

mod maps;
mod outgoing;
mod rewrite;

use super::split::{AtomView, Cursor, STRING_LEN_MAX, TermError, TermView};
use super::tag::*;

pub use maps::check_maps;
pub use outgoing::outgoing;

/// Lists inside lists that [`is_canonical`] follows; a term that nests deeper is rewritten, to the same bytes.
const OPEN_LISTS_MAX: usize = 16;
/// Ports from this number on are written as `V4_PORT_EXT`, those below as `NEW_PORT_EXT` (erl_ext_dist).
pub(super) const PORT_NUMBER_V4_FIRST: u32 = 1 << 28;
/// The canonical bytes of `term`, without a version byte: the term's own where they are canonical already, else
/// written into `scratch`, whose contents are dropped.
///
/// # Errors
/// [`TermError::DuplicateKey`] for a map with a key twice; [`TermError::KeyTooComplex`] where maps are keys of
/// maps that are keys of maps, some dozens (of short keys: hundreds) deep: to be compared, such an inner key is
/// put in order once for every key around it, and that work is bounded by 32 times the key's length and 1 MiB.
/// Maps that are *values* of maps may nest as deep as they like. Both are the sender's fault.
#[inline]
pub fn canonical<'a>(term: TermView<'a>, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], TermError> {
    match term.tag() {
        SMALL_INTEGER_EXT | SMALL_ATOM_UTF8_EXT | BINARY_EXT => Ok(term.bytes()),
        _ if is_canonical(term)? => Ok(term.bytes()),
        _ => {
            scratch.clear();
            rewrite::rewrite(term, scratch)?;
            Ok(scratch)
        }
    }
}

/// Whether the bytes of a term are canonical already. May say no for one that is but nests lists deeply or has
/// a fun, a native record or a map of several pairs: these are told only by rewriting them.
#[expect(
    clippy::indexing_slicing,
    reason = "`open` is how many of `tails` are in use, `OPEN_LISTS_MAX` at most"
)]
fn is_canonical(term: TermView<'_>) -> Result<bool, TermError> {
    let mut cursor = term.cursor();
    // Terms that are still to come, and for every open list how many they are when its tail comes.
    let mut pending: u64 = 1;
    let mut tails = [0; OPEN_LISTS_MAX];
    let mut open = 0;
    while pending > 0 {
        let tag = cursor.peek()?;
        if open > 0 && tails[open - 1] == pending {
            open -= 1;
            if matches!(tag, LIST_EXT | STRING_EXT) {
                return Ok(false);
            }
        }
        pending -= 1;
        let children = match tag {
            LIST_EXT => {
                let len = cursor.list()?;
                let bytes = count_bytes(&mut cursor, len);
                let left = (len - bytes) as u64;
                if left == 0 {
                    match cursor.peek()? {
                        NIL_EXT if len <= STRING_LEN_MAX => return Ok(false),
                        LIST_EXT | STRING_EXT => return Ok(false),
                        // No more than its tail.
                        _ if len == 0 => return Ok(false),
                        _ => {}
                    }
                } else {
                    if open == OPEN_LISTS_MAX {
                        return Ok(false);
                    }
                    tails[open] = pending + 1;
                    open += 1;
                }
                left + 1
            }
            _ => match canonical_step(&mut cursor, tag)? {
                Some(children) => children,
                None => return Ok(false),
            },
        };
        pending += children;
    }
    Ok(true)
}

/// Passes over `SMALL_INTEGER_EXT`s, at most `len` of them, and counts them.
fn count_bytes(cursor: &mut Cursor<'_>, len: usize) -> usize {
    let (pairs, _) = cursor.rest().as_chunks::<2>();
    let count = pairs.iter().take(len).take_while(|[tag, _]| *tag == SMALL_INTEGER_EXT).count();
    #[expect(clippy::indexing_slicing, reason = "so many pairs have been seen")]
    let rest = &cursor.rest()[count * 2..];
    *cursor = Cursor::new(rest);
    count
}

/// Reads one tag with its own bytes; gives how many terms follow as its children, or `None` where the bytes are
/// not known to be canonical.
fn canonical_step(cursor: &mut Cursor<'_>, tag: u8) -> Result<Option<u64>, TermError> {
    let leaf = |canonical: bool| Ok(canonical.then_some(0));
    match tag {
        SMALL_ATOM_UTF8_EXT | ATOM_UTF8_EXT => leaf(canonical_atom(cursor)?),
        SMALL_INTEGER_EXT => cursor.take(2).map(|_| Some(0)),
        BINARY_EXT => cursor.binary().map(|_| Some(0)),
        NIL_EXT => cursor.take(1).map(|_| Some(0)),
        NEW_FLOAT_EXT => cursor.take(9).map(|_| Some(0)),
        INTEGER_EXT => {
            let [_, value @ ..] = cursor.array::<5>()?;
            leaf(u8::try_from(i32::from_be_bytes(value)).is_err())
        }
        STRING_EXT => {
            let [_, len @ ..] = cursor.array::<3>()?;
            let len = u16::from_be_bytes(len);
            cursor.take(usize::from(len))?;
            leaf(len > 0)
        }
        SMALL_TUPLE_EXT => Ok(Some(cursor.tuple()? as u64)),
        LARGE_TUPLE_EXT => {
            let arity = cursor.tuple()?;
            Ok((arity > usize::from(u8::MAX)).then_some(arity as u64))
        }
        MAP_EXT => {
            let pairs = cursor.map()? as u64;
            Ok((pairs < 2).then_some(pairs * 2))
        }
        SMALL_BIG_EXT | LARGE_BIG_EXT => {
            let (sign, digits) = big(cursor)?;
            let short = digits.len() <= usize::from(u8::MAX);
            leaf(
                digits.last().is_some_and(|&digit| digit != 0)
                    && sign <= 1
                    && short == (tag == SMALL_BIG_EXT)
                    && small_value(sign, digits).is_none(),
            )
        }
        NEW_PID_EXT => {
            cursor.take(1)?;
            let canonical = canonical_atom(cursor)?;
            cursor.take(12)?;
            leaf(canonical)
        }
        NEW_PORT_EXT => {
            cursor.take(1)?;
            let canonical = canonical_atom(cursor)?;
            let number = cursor.u32()?;
            cursor.take(4)?;
            leaf(canonical && number < PORT_NUMBER_V4_FIRST)
        }
        V4_PORT_EXT => {
            cursor.take(1)?;
            let canonical = canonical_atom(cursor)?;
            let (high, low) = (cursor.u32()?, cursor.u32()?);
            cursor.take(4)?;
            leaf(canonical && (high > 0 || low >= PORT_NUMBER_V4_FIRST))
        }
        NEWER_REFERENCE_EXT => {
            let canonical_node =
                canonical_atom(&mut Cursor::new(cursor.rest().get(3..).unwrap_or_default()))?;
            let reference = cursor.reference()?;
            let words = reference.words();
            leaf(canonical_node && (words.len() == 3 || words.len() > 3 && words.last() != Some(&0)))
        }
        EXPORT_EXT => {
            cursor.take(1)?;
            let canonical = canonical_atom(cursor)? & canonical_atom(cursor)?;
            cursor.take(2)?;
            leaf(canonical)
        }
        BIT_BINARY_EXT => {
            let (bits, bytes) = bit_binary(cursor)?;
            leaf(bits < 8 && bytes.last().is_some_and(|&last| last & unused_bits(bits) == 0))
        }
        // Old forms, NEW_FUN_EXT and RECORD_EXT.
        _ => Ok(None),
    }
}

/// Reads an atom; says whether it stands in its canonical form.
fn canonical_atom(cursor: &mut Cursor<'_>) -> Result<bool, TermError> {
    let tag = cursor.peek()?;
    let len = cursor.atom()?.as_bytes().len();
    Ok(tag == SMALL_ATOM_UTF8_EXT || tag == ATOM_UTF8_EXT && len > usize::from(u8::MAX))
}

/// Reads a big integer: its sign byte and its digits to the base 256, the lowest first.
pub(super) fn big<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), TermError> {
    let len = match cursor.u8()? {
        SMALL_BIG_EXT => usize::from(cursor.u8()?),
        _ => cursor.len32()?,
    };
    Ok((cursor.u8()?, cursor.take(len)?))
}

/// Reads a bit string: how many bits of its last byte count, and its bytes.
pub(super) fn bit_binary<'a>(cursor: &mut Cursor<'a>) -> Result<(u8, &'a [u8]), TermError> {
    cursor.u8()?;
    let len = cursor.len32()?;
    Ok((cursor.u8()?, cursor.take(len)?))
}

/// Reads the head of a native record (erl_ext_dist has none of it; seen from OTP 29): arity:32, flags:8, module,
/// name. Gives its arity, and module and name. The fields' names come next, and then their values.
pub(super) fn record_head<'a>(cursor: &mut Cursor<'a>) -> Result<(usize, [AtomView<'a>; 2]), TermError> {
    cursor.u8()?;
    let arity = cursor.len32()?;
    cursor.u8()?;
    Ok((arity, [cursor.atom()?, cursor.atom()?]))
}

/// The bits of the last byte that are no part of a bit string of which `bits` are.
const fn unused_bits(bits: u8) -> u8 {
    if bits >= 8 { 0 } else { u8::MAX >> bits }
}

/// The value of a big integer (without leading zero digits) that fits `INTEGER_EXT`.
fn small_value(sign: u8, digits: &[u8]) -> Option<i32> {
    if digits.len() > 4 {
        return None;
    }
    let magnitude = digits.iter().rev().fold(0, |value: i64, &digit| value << 8 | i64::from(digit));
    i32::try_from(if sign == 0 { magnitude } else { -magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::super::split::Traits;
    use super::*;

    fn key(bytes: &[u8]) -> Vec<u8> {
        try_key(bytes).unwrap()
    }

    fn try_key(bytes: &[u8]) -> Result<Vec<u8>, TermError> {
        let term = TermView::parse(bytes)?;
        let canonical = canonical(term, &mut vec![1, 2, 3])?.to_vec();
        let again = TermView::parse(&canonical).expect("canonical bytes are a term");
        assert_eq!(super::canonical(again, &mut Vec::new()).unwrap(), canonical, "not stable: {bytes:?}");
        Ok(canonical)
    }

    /// `head`, then every part.
    fn of(head: &[u8], parts: &[&[u8]]) -> Vec<u8> {
        [head, &parts.concat()].concat()
    }

    #[test]
    fn common_keys_are_canonical_as_they_come() {
        for bytes in [
            &[97, 7][..],
            &[98, 0, 0, 1, 0],
            &[98, 255, 255, 255, 255],
            &[119, 3, b'f', b'o', b'o'],
            &[109, 0, 0, 0, 1, 0],
            &[106],
            &[107, 0, 1, 5],
            &[104, 2, 97, 1, 108, 0, 0, 0, 1, 106, 106],
            &[116, 0, 0, 0, 1, 97, 1, 97, 2],
            &[110, 4, 0, 0, 0, 0, 128],
            &[77, 0, 0, 0, 1, 3, 0b1010_0000],
            &[70, 128, 0, 0, 0, 0, 0, 0, 0],
        ] {
            let term = TermView::parse(bytes).unwrap();
            let mut scratch = Vec::new();
            assert_eq!(canonical(term, &mut scratch).unwrap(), bytes);
            assert!(scratch.is_empty(), "{bytes:?} was rewritten");
        }
    }

    #[test]
    fn integers_take_their_shortest_form() {
        assert_eq!(key(&[98, 0, 0, 0, 7]), [97, 7]);
        assert_eq!(key(&[110, 1, 0, 7]), [97, 7]);
        assert_eq!(key(&[110, 3, 0, 7, 0, 0]), [97, 7]);
        assert_eq!(key(&[110, 0, 1]), [97, 0]);
        assert_eq!(key(&[110, 1, 1, 0]), [97, 0]);
        assert_eq!(key(&[110, 1, 9, 7]), [98, 255, 255, 255, 249]);
        assert_eq!(key(&[110, 4, 1, 0, 0, 0, 128]), [98, 128, 0, 0, 0]);
        assert_eq!(key(&[110, 5, 7, 1, 0, 0, 128, 0]), [110, 4, 1, 1, 0, 0, 128]);
        assert_eq!(key(&[111, 0, 0, 0, 2, 0, 0, 1]), [98, 0, 0, 1, 0]);
        let wide = of(&[111, 0, 0, 1, 0, 0], &[&[1; 255], &[0]]);
        assert_eq!(key(&wide), of(&[110, 255, 0], &[&[1; 255]]));
        let wide = of(&[111, 0, 0, 1, 1, 1], &[&[1; 256], &[0]]);
        assert_eq!(key(&wide), of(&[111, 0, 0, 1, 0, 1], &[&[1; 256]]));
    }

    #[test]
    fn old_and_wide_forms_take_the_new_and_narrow_ones() {
        assert_eq!(key(&[115, 1, 233]), [119, 2, 195, 169]);
        assert_eq!(key(&[100, 0, 1, b'a']), [119, 1, b'a']);
        assert_eq!(key(&[118, 0, 1, b'a']), [119, 1, b'a']);
        let long = of(&[100, 0, 200], &[&[233; 200]]);
        assert_eq!(key(&long), of(&[118, 1, 144], &[&[195, 169].repeat(200)]));
        assert_eq!(key(&[105, 0, 0, 0, 1, 98, 0, 0, 0, 1]), [104, 1, 97, 1]);
        assert_eq!(key(&[77, 0, 0, 0, 1, 8, 255]), [109, 0, 0, 0, 1, 255]);
        assert_eq!(key(&[77, 0, 0, 0, 1, 3, 255]), [77, 0, 0, 0, 1, 3, 224]);
        let mut float = [0; 32];
        float[..4].copy_from_slice(b"c1.5");
        assert_eq!(key(&float), [70, 63, 248, 0, 0, 0, 0, 0, 0]);
        let node = [119, 1, b'n'];
        let pid = of(&[103, 115, 1, b'n'], &[&[0, 0, 0, 5, 0, 0, 0, 6, 1]]);
        assert_eq!(key(&pid), of(&[88], &[&node, &[0, 0, 0, 5, 0, 0, 0, 6, 0, 0, 0, 1]]));
        let port = of(&[89], &[&node, &[0, 0, 0, 5, 0, 0, 0, 1]]);
        assert_eq!(key(&of(&[102], &[&node, &[0, 0, 0, 5, 1]])), port);
        assert_eq!(key(&of(&[120], &[&node, &[0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 1]])), port);
        let v4 = of(&[120], &[&node, &[0, 0, 0, 0, 16, 0, 0, 5, 0, 0, 0, 1]]);
        assert_eq!(key(&of(&[89], &[&node, &[16, 0, 0, 5, 0, 0, 0, 1]])), v4);
        assert_eq!(key(&v4), v4);
        let three = of(&[90, 0, 3], &[&node, &[0, 0, 0, 1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0]]);
        assert_eq!(key(&of(&[101], &[&node, &[0, 0, 0, 5, 1]])), three);
        assert_eq!(key(&of(&[114, 0, 1], &[&node, &[1, 0, 0, 0, 5]])), three);
        assert_eq!(key(&of(&[90, 0, 5], &[&node, &[0, 0, 0, 1, 0, 0, 0, 5], &[0; 16]])), three);
        assert_eq!(
            key(&[113, 115, 1, b'm', 100, 0, 1, b'f', 97, 2]),
            [113, 119, 1, b'm', 119, 1, b'f', 97, 2]
        );
    }

    #[test]
    fn lists_of_bytes_are_strings_up_to_65535_elements() {
        let abc = [107, 0, 3, b'a', b'b', b'c'];
        assert_eq!(key(&[108, 0, 0, 0, 3, 97, b'a', 97, b'b', 97, b'c', 106]), abc);
        assert_eq!(key(&[108, 0, 0, 0, 3, 97, b'a', 98, 0, 0, 0, b'b', 110, 1, 0, b'c', 106]), abc);
        assert_eq!(key(&[108, 0, 0, 0, 1, 97, b'a', 107, 0, 2, b'b', b'c']), abc);
        assert_eq!(key(&[108, 0, 0, 0, 0, 107, 0, 3, b'a', b'b', b'c']), abc);
        assert_eq!(key(&[107, 0, 0]), [106]);
        assert_eq!(key(&[108, 0, 0, 0, 0, 106]), [106]);
        assert_eq!(key(&[108, 0, 0, 0, 0, 97, 1]), [97, 1]);
        assert_eq!(key(&[108, 0, 0, 0, 1, 97, 1, 97, 2]), [108, 0, 0, 0, 1, 97, 1, 97, 2]);
        assert_eq!(key(&[108, 0, 0, 0, 1, 106, 107, 0, 2, 1, 2]), [108, 0, 0, 0, 3, 106, 97, 1, 97, 2, 106]);
        // An empty atom and an empty tuple are two bytes too.
        assert_eq!(key(&[108, 0, 0, 0, 1, 119, 0, 106]), [108, 0, 0, 0, 1, 119, 0, 106]);
        let list = |len: u32| of(&[108], &[&len.to_be_bytes(), &[97, 9].repeat(len as usize), &[106]]);
        assert_eq!(key(&list(65_535)), of(&[107, 255, 255], &[&[9; 65_535]]));
        assert_eq!(key(&list(65_536)), list(65_536));
        let split = of(&[108, 0, 0, 0, 1, 97, 9, 107, 255, 255], &[&[9; 65_535]]);
        assert_eq!(key(&split), list(65_536));
    }

    #[test]
    fn records_keep_their_order_and_name_no_field_twice() {
        let record = |parts: &[u8]| of(&[67, 0, 0, 0, 2, 0, 119, 1, b'm'], &[parts]);
        let canonical = record(b"w\x01rw\x01yw\x01xa\x01a\x02");
        assert_eq!(key(&canonical), canonical);
        assert_eq!(key(&record(b"s\x01rw\x01yd\x00\x01xa\x01b\x00\x00\x00\x02")), canonical);
        assert_eq!(try_key(&record(b"w\x01rw\x01xs\x01xa\x01a\x02")), Err(TermError::DuplicateKey));
    }

    #[test]
    fn maps_are_sorted_inside_out() {
        let one = [116, 0, 0, 0, 2, 97, 2, 97, 20, 97, 1, 97, 10];
        let two = [116, 0, 0, 0, 2, 97, 1, 97, 10, 97, 2, 97, 20];
        assert_eq!(key(&one), two);
        // %{one => one, 0 => one}
        let nested = of(&[116, 0, 0, 0, 2], &[&one, &one, &[97, 0], &one]);
        assert_eq!(key(&nested), of(&[116, 0, 0, 0, 2], &[&[97, 0], &two, &two, &two]));
        // In a value of a map in a value of a key.
        let deep = of(&[116, 0, 0, 0, 2, 97, 9, 104, 2], &[&nested, &one, &[97, 3, 106]]);
        let nested = key(&nested);
        assert_eq!(key(&deep), of(&[116, 0, 0, 0, 2, 97, 3, 106, 97, 9, 104, 2], &[&nested, &two]));
        assert_eq!(
            try_key(&[116, 0, 0, 0, 2, 97, 2, 106, 98, 0, 0, 0, 2, 106]),
            Err(TermError::DuplicateKey)
        );
        let twice = of(&[116, 0, 0, 0, 2], &[&one, &[106], &two, &[106]]);
        assert_eq!(try_key(&twice), Err(TermError::DuplicateKey));
    }

    #[test]
    fn a_funs_creator_is_no_part_of_it() {
        let fun = |old_index: &[u8], pid: &[u8], free: &[u8]| {
            let parts: [&[u8]; 7] = [
                &[2],
                &[7; 16],
                &[0, 0, 0, 3, 0, 0, 0, 1, 119, 1, b'm'],
                old_index,
                &[98, 0, 0, 1, 0],
                pid,
                free,
            ];
            let size = 4 + parts.iter().map(|part| part.len() as u32).sum::<u32>();
            of(&[112], &[&size.to_be_bytes(), &parts.concat()])
        };
        let pid = [103, 100, 0, 1, b'n', 0, 0, 0, 5, 0, 0, 0, 6, 1];
        let nobody = of(&[88, 119, 13], &[b"nonode@nohost", &[0; 12]]);
        let wanted = fun(&[97, 3], &nobody, &[97, 1]);
        assert_eq!(key(&fun(&[97, 3], &pid, &[98, 0, 0, 0, 1])), wanted);
        assert_eq!(key(&fun(&[98, 0, 0, 0, 9], &pid, &[97, 1])), wanted);
        assert_ne!(key(&fun(&[97, 3], &pid, &[97, 2])), wanted);
    }

    /// A map of two pairs in the wrong order, around the one before, as a key or as a value.
    fn nest(depth: usize, as_key: bool) -> Vec<u8> {
        let (mut front, mut back) = (Vec::new(), Vec::new());
        for _ in 0..depth {
            if as_key {
                front.extend([116, 0, 0, 0, 2]);
                back.push([106, 97, 0, 106]);
            } else {
                front.extend([116, 0, 0, 0, 2, 97, 1]);
                back.push([97, 0, 106, 0]);
            }
        }
        front.push(106);
        let back = back.iter().flat_map(|end| &end[..if as_key { 4 } else { 3 }]);
        front.extend(back);
        front
    }

    #[test]
    fn maps_in_values_nest_without_a_bound_and_in_keys_within_one() {
        let deep = nest(300_000, false);
        let sorted = key(&deep);
        assert_eq!(sorted.len(), deep.len());
        assert_ne!(sorted, deep);
        let term = TermView::parse(&deep).unwrap();
        assert_eq!(check_maps(term), Ok(()));
        assert!(try_key(&nest(300, true)).is_ok());
        assert_eq!(try_key(&nest(100_000, true)), Err(TermError::KeyTooComplex));
        let deep = nest(100_000, true);
        assert_eq!(check_maps(TermView::parse(&deep).unwrap()), Err(TermError::KeyTooComplex));
    }

    #[test]
    fn depth_of_any_kind_needs_no_stack() {
        const DEPTH: usize = 200_000;
        for (head, tail) in [
            (&[104, 1][..], &[][..]),
            (&[104, 2, 97, 1], &[]),
            (&[104, 2], &[97, 1]),
            (&[108, 0, 0, 0, 1], &[106]),
            (&[108, 0, 0, 0, 1, 97, 1], &[]),
            (&[108, 0, 0, 0, 0], &[]),
            (&[116, 0, 0, 0, 1, 97, 1], &[]),
            (&[116, 0, 0, 0, 1], &[97, 1]),
        ] {
            let deep = of(&head.repeat(DEPTH), &[&[98, 0, 0, 0, 1], &tail.repeat(DEPTH)]);
            key(&deep);
            assert_eq!(check_maps(TermView::parse(&deep).unwrap()), Ok(()));
        }
    }

    #[test]
    fn trusted_bytes_of_a_term_inside_another_work_too() {
        let term = TermView::trusted(&[104, 1, 98, 0, 0, 0, 1], Traits::none());
        assert_eq!(canonical(term, &mut Vec::new()).unwrap(), [104, 1, 97, 1]);
    }
}
