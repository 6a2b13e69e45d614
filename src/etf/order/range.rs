//! Ranges of terms in their order: from a term to another one, or all with the same beginning.
//!
//! A range is told of an index by the keys ([`order_key`](super::order_key)) between which it lies, and by where it has gaps: tuples
//! are in order by their sizes first, so those that begin with `{:user, 1}` lie in one stretch for each size. A walk along
//! an index asks [`TermRange::see`] of each key, and goes on behind the gap that the answer names: a seek for each size that
//! there is, whatever lies between.
//!
//! Terms that are `==` are in a range together, or not in it together: from 1 on there is 1.0 too.
//!
//! Where a term ends its bytes may go on as those of another one, with an escaped 0 or the inverse of that. So a stretch of all that goes on
//! behind some terms is not all that begins with their bytes: it lies between [`GOES_ON`] and [`ESCAPES`].

use super::{BITS, LIST, NIL, TIES, TUPLE, canonical_order_head, escape, main_part, write_count};
use crate::etf::tag::BINARY_EXT;
use crate::etf::{TermError, TermView, key};

/// Above the main part of a term and whatever ties follow it, and below the next term.
const BEHIND_TIES: u8 = TIES + 1;
/// The first byte of what can follow the main parts of some terms: the ties, or the kind of the next term, which is above.
const GOES_ON: u8 = TIES;
/// The first byte that is above all of these: that of an escaped 0, behind which the term itself goes on.
const ESCAPES: u8 = u8::MAX;

/// A part of all terms, in their order. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TermRange {
    /// The first key that may be in it.
    start: Vec<u8>,
    /// The first key that is behind it; `None`: nothing is.
    end: Option<Vec<u8>>,
    /// What the elements of its tuples begin with; empty: it has all between start and end.
    elements: Vec<u8>,
}

/// How a key lies to a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is in it.
    In,
    /// It is not, and neither is any key from `from` on up to `to`, which is the first that may be in it again.
    Gap {
        /// The first key of the gap.
        from: Vec<u8>,
        /// The first key behind it; `None`: nothing of the range is.
        to: Option<Vec<u8>>,
    },
}

impl TermRange {
    /// The same from a term on, which is in it, and so is all that is `==` to it.
    ///
    /// # Errors
    /// Those of [`order_key`](super::order_key).
    pub fn from(self, term: TermView<'_>) -> Result<Self, TermError> {
        Ok(Self { start: then(main_part(term)?, TIES), ..self })
    }

    /// The same up to a term, which is in it, and so is all that is `==` to it.
    ///
    /// # Errors
    /// Those of [`order_key`](super::order_key).
    pub fn to(self, term: TermView<'_>) -> Result<Self, TermError> {
        Ok(Self { end: Some(then(main_part(term)?, BEHIND_TIES)), ..self })
    }

    /// What begins with a term: tuples of any size with its elements as the first ones, lists (improper ones too) likewise, and bit
    /// strings with the bytes of a binary. `None`: it is none of these, or an improper list. What stands in a tuple or a list is
    /// compared by `==`.
    ///
    /// # Errors
    /// Those of [`order_key`](super::order_key).
    pub fn prefix(term: TermView<'_>) -> Result<Option<Self>, TermError> {
        let stretch = |start: Vec<u8>, end: Option<Vec<u8>>| Self { start, end, elements: Vec::new() };
        if let Some(arity) = term.tuple_arity() {
            let start = main_part(term)?;
            let elements = start.get(tuple_of(arity as u64).len()..).unwrap_or_default().to_vec();
            let start = if arity == 0 { vec![TUPLE] } else { then(start, GOES_ON) };
            return Ok(Some(Self { start, end: next(&[TUPLE]), elements }));
        }
        if term.is_list() {
            // As one list, whatever its tail is in the bytes that came.
            let mut scratch = Vec::new();
            if TermView::parse(key::canonical(term, &mut scratch)?)?.elements(usize::MAX).is_none() {
                return Ok(None);
            }
            let mut head = main_part(term)?;
            // Its tail, which is the empty list.
            head.pop();
            return Ok(Some(if head.is_empty() {
                stretch(vec![NIL], next(&[LIST]))
            } else {
                stretch(then(head.clone(), GOES_ON), Some(then(head, ESCAPES)))
            }));
        }
        if term.tag() != BINARY_EXT {
            return Ok(None);
        }
        let bytes = term.as_binary().unwrap_or_default();
        let mut head = vec![BITS];
        escape(bytes, &mut head);
        // A bit string with the same bytes, of which some bits are none, is shorter than the binary.
        let start = [&head[..], &[0, if bytes.is_empty() { 0 } else { 8 }]].concat();
        let end = next(&head);
        Ok(Some(stretch(start, end)))
    }

    /// No key below this is in it.
    pub fn start(&self) -> &[u8] {
        &self.start
    }

    /// No key from this on is in it; `None`: there is no such key.
    pub fn end(&self) -> Option<&[u8]> {
        self.end.as_deref()
    }

    /// So many bytes of a key tell where it lies.
    pub fn telling_bytes(&self) -> usize {
        // A count of elements has up to nine.
        1 + self.start.len().max(self.end.as_ref().map_or(0, Vec::len)).max(self.elements.len() + 10)
    }

    /// Whether a term is in it, by its canonical bytes.
    ///
    /// # Errors
    /// They are no term.
    pub fn has(&self, canonical: &[u8]) -> Result<bool, TermError> {
        let (head, _) = canonical_order_head(canonical, self.telling_bytes())?;
        Ok(self.see(&head) == Seen::In)
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        self.start.len() + self.end.as_ref().map_or(0, Vec::len) + self.elements.len()
    }

    /// How a key lies to it, of which [`telling_bytes`](Self::telling_bytes) are enough.
    pub fn see(&self, key: &[u8]) -> Seen {
        if key < &self.start[..] {
            return Seen::Gap { from: Vec::new(), to: Some(self.start.clone()) };
        }
        if let Some(end) = self.end.as_ref().filter(|end| key >= &end[..]) {
            return Seen::Gap { from: end.clone(), to: None };
        }
        if self.elements.is_empty() {
            return Seen::In;
        }
        let Some((size, elements)) = size_of(key) else {
            return Seen::Gap { from: key.to_vec(), to: self.end.clone() };
        };
        let bound = |size, byte| then([&tuple_of(size), &self.elements[..]].concat(), byte);
        let follows = elements.strip_prefix(&self.elements[..]);
        let is_above = match follows {
            Some([next, ..]) if (GOES_ON..ESCAPES).contains(next) => return Seen::In,
            Some(rest) => rest.first() == Some(&ESCAPES),
            None => elements > &self.elements[..],
        };
        if is_above {
            Seen::Gap { from: bound(size, ESCAPES), to: Some(bound(size.saturating_add(1), GOES_ON)) }
        } else {
            Seen::Gap { from: tuple_of(size), to: Some(bound(size, GOES_ON)) }
        }
    }
}

fn then(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

/// The first key that is above all that begin with these bytes; `None`: there is none.
pub(in crate::etf) fn next(head: &[u8]) -> Option<Vec<u8>> {
    let last = head.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = head.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// What the keys of all tuples of a size begin with.
fn tuple_of(size: u64) -> Vec<u8> {
    let mut head = vec![TUPLE];
    write_count(size, &mut head);
    head
}

/// How many elements the tuple of a key has, and what is written of these.
fn size_of(key: &[u8]) -> Option<(u64, &[u8])> {
    let (first, rest) = key.strip_prefix(&[TUPLE])?.split_first()?;
    match first.checked_sub(0xf0) {
        None => Some((u64::from(*first), rest)),
        Some(len) => {
            let (size, rest) = rest.split_at_checked(usize::from(len))?;
            Some((size.iter().fold(0, |size, byte| size << 8 | u64::from(*byte)), rest))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::order_key;
    use super::*;
    use crate::etf::OwnedTerm;
    use crate::etf::text::parse;

    fn term(text: &str) -> OwnedTerm {
        parse(text, None).expect("a term")
    }

    fn key_of(text: &str) -> Vec<u8> {
        order_key(term(text).view()).expect("it has an order")
    }

    #[track_caller]
    fn sees(range: &TermRange, inside: &[&str], outside: &[&str]) {
        for text in inside {
            assert_eq!(range.see(&key_of(text)), Seen::In, "{text}");
        }
        for text in outside {
            let key = key_of(text);
            let Seen::Gap { from, to } = range.see(&key) else { panic!("{text} is in it") };
            assert!(from <= key && to.as_ref().is_none_or(|to| key < *to), "{text}: {from:?} {to:?}");
            for text in inside {
                let inside = key_of(text);
                assert!(inside < from || to.as_ref().is_some_and(|to| *to <= inside), "{text} is in the gap");
            }
        }
    }

    #[test]
    fn both_ends_are_in_a_range_with_all_that_equals_them() {
        let range = |from: &str, to: &str| {
            TermRange::default().from(term(from).view()).unwrap().to(term(to).view()).unwrap()
        };
        sees(&range("1", "2"), &["1", "1.0", "1.5", "2", "2.0"], &["0.9", "-1", "2.1", "3", ":a", "{}"]);
        sees(&range("{1.0}", "{1}"), &["{1}", "{1.0}"], &["{}", "{0}", "{2}", "{1, 1}", "[]"]);
        sees(&range("0.0", "0"), &["0", "0.0", "-0.0"], &["1.0e-300", "-1.0e-300"]);
        sees(&range("2", "1"), &[], &["1", "2", "1.5"]);
        let up = TermRange::default().to(term(":b").view()).unwrap();
        sees(&up, &["-9", ":a", ":b"], &[":ba", ":c", "%{}"]);
        assert_eq!(TermRange::default().see(&key_of("[]")), Seen::In);
    }

    #[test]
    fn a_prefix_is_the_beginning_of_tuples_of_any_size_lists_and_binaries() {
        let prefix = |text: &str| TermRange::prefix(term(text).view()).unwrap();
        sees(
            &prefix("{:user, 1}").unwrap(),
            &["{:user, 1}", "{:user, 1.0, :a}", "{:user, 1, 2, 3}"],
            &[
                "{:user}",
                "{:user, 2}",
                "{:use, 1}",
                "{:user, 0, 9}",
                "{:v, 1, 2}",
                "{}",
                "[:user, 1]",
                ":user",
                "%{}",
            ],
        );
        sees(&prefix("{}").unwrap(), &["{}", "{1}", "{1, 2}"], &[":a", "%{}", "[]"]);
        sees(
            &prefix("[1, 2]").unwrap(),
            &["[1, 2]", "[1, 2.0, 3]", "[1, 2 | 3]"],
            &["[]", "[1]", "[1, 3]", "[1 | 2]", "{1, 2}"],
        );
        sees(&prefix("[]").unwrap(), &["[]", "[1]", "[[] | []]"], &["{}", "%{}", "\"\""]);
        sees(
            &prefix("\"ab\"").unwrap(),
            &["\"ab\"", "\"abc\"", "<<97, 98, 1::size(1)>>"],
            &["\"a\"", "\"ac\"", "[97, 98]"],
        );
        sees(
            &prefix("<<160, 0>>").unwrap(),
            &["<<160, 0>>", "<<160, 0, 0>>", "<<160, 0, 255>>"],
            &["<<160>>", "<<160, 0::size(4)>>", "<<160, 1>>"],
        );
        sees(&prefix("<<255>>").unwrap(), &["<<255>>", "<<255, 255>>"], &["<<254, 255>>"]);
        sees(&prefix("\"\"").unwrap(), &["\"\"", "<<1::size(3)>>", "\"z\""], &["[]"]);
        for none in ["1", ":a", "%{}", "[1 | 2]", "<<1::size(3)>>"] {
            assert_eq!(prefix(none), None, "{none}");
        }
    }

    /// Terms of which one's bytes may be the beginning of another one's, and their neighbours.
    const ALIKE: &[&str] = &[
        "0",
        "1",
        "-1",
        "1.5",
        "255",
        "256",
        "256.5",
        "257",
        "511",
        "512",
        "513",
        "-512",
        "-513",
        "512.0",
        "1023",
        "1024",
        "1024.0",
        "1025",
        "1027",
        "1028",
        "-1023",
        "-1024",
        "-1024.5",
        "-1025",
        "-1027",
        "-1028",
        "65535",
        "65536",
        "65536.5",
        "65537",
        "65791",
        "65792",
        "-65535",
        "-65536",
        "-65537",
        "-65791",
        "-65792",
        "4294967296",
        "4294967297",
        "18446744073709551616",
        "18446744073709551617",
        "-18446744073709551616",
        "0.5",
        "0.001953125",
        "-0.5",
        ":a",
        ":\"a\\0\"",
        ":\"a\\0b\"",
        ":\"a\\xff\"",
        ":b",
        ":\"\"",
        ":\"\\0\"",
        "{}",
        "{1024}",
        "{1025}",
        "{:a}",
        "{:\"a\\0\"}",
        "{-1024}",
        "[]",
        "[1024]",
        "[1025]",
        "[1024, 1]",
        "[-1024]",
        "[-1025]",
        "[:a | :b]",
        "[:\"a\\0\" | :b]",
        "%{}",
        "%{1024 => 1}",
        "%{1025 => 1}",
        "\"\"",
        "\"a\"",
        "<<97, 0>>",
        "<<97, 0, 255>>",
        "<<97, 0::size(3)>>",
    ];

    #[test]
    fn a_term_whose_bytes_begin_those_of_another_one_is_not_its_prefix() {
        let main = |text: &str| main_part(term(text).view()).expect("it has an order");
        // An element is followed by the tail of a list, by nothing, or by another element.
        let shapes = ["{T}", "{T, -1024}", "{T, :a, []}", "[T]", "[T, -1]", "[T | :a]"];
        for prefix in ALIKE {
            let tuple = TermRange::prefix(term(&format!("{{{prefix}}}")).view()).unwrap().unwrap();
            let list = TermRange::prefix(term(&format!("[{prefix}]")).view()).unwrap().unwrap();
            let is_same: Vec<(&str, bool)> =
                ALIKE.iter().map(|other| (*other, main(prefix) == main(other))).collect();
            for (range, begins) in [(&tuple, "{"), (&list, "[")] {
                let all = is_same.iter().flat_map(|(other, same)| {
                    shapes
                        .iter()
                        .map(move |shape| (shape.replace('T', other), *same && shape.starts_with(begins)))
                });
                let (inside, outside): (Vec<_>, Vec<_>) = all.partition(|(_, is_in)| *is_in);
                let [inside, outside] =
                    [&inside, &outside].map(|all| all.iter().map(|(text, _)| &**text).collect::<Vec<&str>>());
                sees(range, &inside, &outside);
            }
        }
    }

    #[test]
    fn a_range_has_what_lies_between_its_ends_by_their_main_parts() {
        let key = |text: &str| key_of(text);
        let main = |text: &str| main_part(term(text).view()).expect("it has an order");
        for from in ALIKE {
            for to in ALIKE {
                let range =
                    TermRange::default().from(term(from).view()).unwrap().to(term(to).view()).unwrap();
                let is_in = |other: &&&str| {
                    let at_least = main(other) == main(from) || key(other) > key(from);
                    at_least && (main(other) == main(to) || key(other) < key(to))
                };
                let (inside, outside): (Vec<&str>, Vec<&str>) = ALIKE.iter().partition(is_in);
                sees(&range, &inside, &outside);
            }
        }
    }

    #[test]
    fn sizes_beyond_one_byte_are_told_too() {
        let elements: Vec<String> = (0..300).map(|n| n.to_string()).collect();
        let large = |last: &str| format!("{{{}, {last}}}", elements.join(", "));
        let range = TermRange::prefix(term("{0, 1}").view()).unwrap().unwrap();
        sees(&range, &[&large("7"), "{0, 1}"], &["{0, 2}", &large("7").replacen("{0, 1", "{0, 2", 1)]);
        let longer = TermRange::prefix(term(&large("7")).view()).unwrap().unwrap();
        sees(
            &longer,
            &[&large("7"), &large("7.0"), &large("7, 8")],
            &[&large("6"), &large("8"), &large("6, 9"), "{0, 1}"],
        );
    }
}
