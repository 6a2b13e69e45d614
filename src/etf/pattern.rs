//! Patterns of terms, as `:ets.match_object/2` has them (ets, "match_object/2"), with `:_` alone as a variable.
//!
//! Each `:_` stands for one term, or for the rest of a list (`[1 | :_]`), and a map matches each map that has its pairs among others.
//! (Before OTP 27 ETS takes a key without variables for itself, also where it has maps.)
//!
//! It is made of the canonical form of a term, and matches canonical forms ([`key`](super::key)): so what is no variable is
//! compared byte by byte. Neither making one nor matching takes a stack of the depth of its terms.

use std::ops::Range;

use super::split::{Cursor, TermError, TermView};
use super::tag::*;

/// A pattern.
#[derive(Debug)]
pub struct Pattern {
    /// The canonical form of the term that it was made of.
    bytes: Box<[u8]>,
    /// `None`: it is that term.
    steps: Option<Vec<Step>>,
}

/// What comes next in a term that matches, from its beginning to its end.
#[derive(Debug)]
enum Step {
    /// Any term.
    Any,
    /// These bytes of the pattern.
    Same(Range<usize>),
    /// A list of so many elements, or of more where that is open.
    List { len: usize, is_open: bool },
    /// The rest of an open list.
    Rest,
    /// A map of so many pairs at least.
    Map(usize),
    /// A key of it: these bytes of the pattern.
    Key(Range<usize>),
    /// The rest of the map's pairs.
    MapEnd,
}

/// What of a pattern is still to be read.
enum Frame {
    Terms(usize),
    /// A list's tail; the list is this step.
    Tail(usize),
    Pairs(usize),
}

/// What it cannot be made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatternError {
    /// A variable that there is not: `:"$1"`, or `:_` as the key of a map.
    Variable,
    /// It has no canonical form.
    Term(TermError),
}

impl From<TermError> for PatternError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

impl Pattern {
    /// Makes a pattern of a term.
    ///
    /// # Errors
    /// The term can be no pattern, see [`PatternError`]: its writer's fault.
    pub fn new(term: TermView<'_>) -> Result<Self, PatternError> {
        let mut scratch = Vec::new();
        let bytes: Box<[u8]> = super::key::canonical(term, &mut scratch)?.into();
        let steps = Reader { cursor: Cursor::new(&bytes), len: bytes.len(), steps: Vec::new() }.read()?;
        let is_open = steps.iter().any(|step| matches!(step, Step::Any | Step::Rest | Step::Map(_)));
        Ok(Self { steps: is_open.then_some(steps), bytes })
    }

    /// Bytes of memory that it takes, about.
    pub fn held_bytes(&self) -> usize {
        self.bytes.len() + self.steps.as_ref().map_or(0, |steps| steps.len() * size_of::<Step>())
    }

    /// Whether a term, in canonical form, matches.
    pub fn matches(&self, canonical: &[u8]) -> bool {
        match &self.steps {
            None => *self.bytes == *canonical,
            Some(steps) => self.walk(steps, Cursor::new(canonical)).is_some(),
        }
    }

    fn same(&self, range: &Range<usize>) -> &[u8] {
        self.bytes.get(range.clone()).unwrap_or_default()
    }

    /// `None`: it does not match.
    fn walk(&self, steps: &[Step], mut at: Cursor<'_>) -> Option<()> {
        // Elements and pairs that are left of each list and map that is open.
        let mut left: Vec<usize> = Vec::new();
        let mut steps = steps.iter();
        while let Some(step) = steps.next() {
            match step {
                Step::Any => _ = at.skip().ok()?,
                Step::Same(range) => at = Cursor::new(at.rest().strip_prefix(self.same(range))?),
                Step::List { len, is_open } => match at.peek().ok()? {
                    STRING_EXT => {
                        let (text, behind) = string(at.rest())?;
                        if text.len() < *len || !is_open && text.len() > *len {
                            return None;
                        }
                        for byte in text.iter().take(*len) {
                            match steps.next()? {
                                Step::Any => {}
                                Step::Same(range) if *self.same(range) == [SMALL_INTEGER_EXT, *byte] => {}
                                _ => return None,
                            }
                        }
                        match steps.next()? {
                            Step::Rest => {}
                            Step::Same(range) if *self.same(range) == [NIL_EXT] => {}
                            _ => return None,
                        }
                        at = Cursor::new(behind);
                    }
                    LIST_EXT => {
                        let more = at.list().ok()?.checked_sub(*len)?;
                        match is_open {
                            true => left.push(more),
                            false if more > 0 => return None,
                            false => {}
                        }
                    }
                    _ => return None,
                },
                Step::Rest => skip(&mut at, left.pop()? + 1)?,
                Step::Map(pairs) => {
                    let there = at.map().ok()?;
                    if there < *pairs {
                        return None;
                    }
                    left.push(there);
                }
                Step::Key(range) => {
                    let left = left.last_mut()?;
                    loop {
                        *left = left.checked_sub(1)?;
                        if at.term().ok()?.bytes() == self.same(range) {
                            break;
                        }
                        at.skip().ok()?;
                    }
                }
                Step::MapEnd => skip(&mut at, left.pop()? * 2)?,
            }
        }
        Some(())
    }
}

fn skip(at: &mut Cursor<'_>, terms: usize) -> Option<()> {
    for _ in 0..terms {
        at.skip().ok()?;
    }
    Some(())
}

/// The bytes of a `STRING_EXT`, and what stands behind it.
fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_first_chunk::<3>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes([head[1], head[2]])))
}

struct Reader<'a> {
    cursor: Cursor<'a>,
    len: usize,
    steps: Vec<Step>,
}

impl Reader<'_> {
    fn read(mut self) -> Result<Vec<Step>, PatternError> {
        let mut frames = vec![Frame::Terms(1)];
        while let Some(frame) = frames.last_mut() {
            match frame {
                Frame::Terms(0) => _ = frames.pop(),
                Frame::Terms(left) => {
                    *left -= 1;
                    self.term(&mut frames)?;
                }
                Frame::Tail(list) => {
                    let list = *list;
                    frames.pop();
                    self.term(&mut frames)?;
                    if let Some(tail) = self.steps.last_mut().filter(|tail| matches!(tail, Step::Any)) {
                        *tail = Step::Rest;
                        if let Some(Step::List { is_open, .. }) = self.steps.get_mut(list) {
                            *is_open = true;
                        }
                    }
                }
                Frame::Pairs(0) => {
                    frames.pop();
                    self.steps.push(Step::MapEnd);
                }
                Frame::Pairs(left) => {
                    *left -= 1;
                    let from = self.at();
                    if is_variable(self.cursor.term()?)? {
                        return Err(PatternError::Variable);
                    }
                    self.steps.push(Step::Key(from..self.at()));
                    self.term(&mut frames)?;
                }
            }
        }
        Ok(self.steps)
    }

    /// How far it has been read.
    const fn at(&self) -> usize {
        self.len - self.cursor.rest().len()
    }

    /// Reads a leaf, or the head of a tuple, list or map, whose parts are left to `frames`.
    fn term(&mut self, frames: &mut Vec<Frame>) -> Result<(), PatternError> {
        let from = self.at();
        match self.cursor.peek()? {
            SMALL_TUPLE_EXT | LARGE_TUPLE_EXT => {
                let len = self.cursor.tuple()?;
                self.steps.push(Step::Same(from..self.at()));
                frames.push(Frame::Terms(len));
            }
            LIST_EXT => {
                let len = self.cursor.list()?;
                frames.push(Frame::Tail(self.steps.len()));
                frames.push(Frame::Terms(len));
                self.steps.push(Step::List { len, is_open: false });
            }
            MAP_EXT => {
                let pairs = self.cursor.map()?;
                self.steps.push(Step::Map(pairs));
                frames.push(Frame::Pairs(pairs));
            }
            _ => {
                let term = self.cursor.term()?;
                let step = if is_variable(term)? { Step::Any } else { Step::Same(from..self.at()) };
                self.steps.push(step);
            }
        }
        Ok(())
    }
}

/// Whether a term is `:_`; not one of the others that ETS has.
fn is_variable(term: TermView<'_>) -> Result<bool, PatternError> {
    let Some(atom) = term.as_atom() else { return Ok(false) };
    match atom.as_bytes() {
        [b'_'] => Ok(true),
        [b'$', digits @ ..] if !digits.is_empty() && digits.iter().all(u8::is_ascii_digit) => {
            Err(PatternError::Variable)
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::text::parse;

    fn pattern(text: &str) -> Result<Pattern, PatternError> {
        Pattern::new(parse(text, None).expect("a term").view())
    }

    fn matches(pattern: &Pattern, text: &str) -> bool {
        let term = parse(text, None).expect("a term");
        pattern.matches(super::super::key::canonical(term.view(), &mut Vec::new()).expect("a key"))
    }

    #[track_caller]
    fn check(text: &str, yes: &[&str], no: &[&str]) {
        let pattern = pattern(text).expect("a pattern");
        for term in yes {
            assert!(matches(&pattern, term), "{text} and {term}");
        }
        for term in no {
            assert!(!matches(&pattern, term), "{text} and {term}");
        }
    }

    // What is expected here a BEAM's `:ets.match_object/2` gives too: tests/interop_scan.rs.
    #[test]
    fn a_pattern_matches_as_in_ets() {
        check(":_", &["1", "{}", "[1 | 2]", "%{a: 1}", ":_"], &[]);
        check(
            "{:user, :_}",
            &["{:user, 1}", "{:user, {1, 2}}", "{:user, :_}"],
            &["{:user}", "{:user, 1, 2}", ":user"],
        );
        check(
            "{:_, {1, :_}, 2}",
            &["{[], {1, %{}}, 2}"],
            &["{[], {1.0, 3}, 2}", "{[], {1, 3}, 2.0}", "{[], 1, 2}"],
        );
        check("[:_]", &["[1]", "[:a]", "['a']"], &["[]", "[1, 2]", "[1 | 2]", "1"]);
        check(
            "[:_, :_, 3]",
            &["[1, 2, 3]", "[:a, 2, 3]"],
            &["[1, 2, 4]", "[1, 2]", "[1, 2, 3, 4]", "[:a, 2, 3 | 4]"],
        );
        check("[1 | :_]", &["[1]", "[1, 2, 3]", "[1 | 2]", "[1, :a]"], &["[]", "[2, 1]", "[:a]"]);
        check("[:_ | 2]", &["[1 | 2]", "[:a | 2]"], &["[1, 2]", "[1]", "[1, 1 | 2]"]);
        check("{[:a | :_], 1}", &["{[:a, :b, {:c} | :d], 1}", "{[:a], 1}"], &["{[:a, :b], 2}", "{:a, 1}"]);
        check("{:_, [1, {2}]}", &["{:_, [1, {2}]}", "{1, [1, {2}]}"], &["{1, [1, 2]}", "{1, [1, {2}, 3]}"]);
    }

    #[test]
    fn a_map_matches_maps_that_have_more() {
        check("%{a: 1}", &["%{a: 1}", "%{a: 1, b: 2}"], &["%{b: 2}", "%{a: 1.0}"]);
        check("{1, %{}}", &["{1, %{}}", "{1, %{a: 1}}"], &["{1, []}"]);
        check(
            "%{a: :_}",
            &["%{a: 1}", "%{b: 2, a: 1}", "%{1 => 2, [3] => 4, a: %{}}"],
            &["%{b: 2}", "%{}", "1"],
        );
        check("{:_, %{}}", &["{1, %{}}", "{1, %{a: 1}}"], &["{1, []}"]);
        check(
            "{:_, %{a: 1}, 2}",
            &["{1, %{a: 1}, 2}", "{1, %{a: 1, b: 2}, 2}"],
            &["{1, %{a: 2}, 2}", "{1, %{a: 1}, 3}"],
        );
        check(
            "%{a: %{c: :_}, b: [:_ | :_]}",
            &["%{a: %{c: 1, d: 2}, b: [1, 2], z: 1}"],
            &["%{a: %{d: 2}, b: [1]}", "%{a: %{c: 1}, b: []}", "%{a: %{c: 1}}"],
        );
        check("%{{:_} => :_}", &["%{{:_} => 1}"], &["%{{1} => 1}"]);
    }

    #[test]
    fn other_variables_are_none() {
        for text in [":\"$1\"", "{:a, :\"$23\"}", "%{:_ => 1}", "%{a: :_, _: 1}", "[1 | :\"$0\"]"] {
            assert_eq!(pattern(text).err(), Some(PatternError::Variable), "{text}");
        }
        check("{:\"$\", :\"$a\", :_}", &["{:\"$\", :\"$a\", 1}"], &["{1, :\"$a\", 1}"]);
    }

    #[test]
    fn depth_takes_no_stack() {
        for (head, middle, tail) in [("[", ":_", "]"), ("{", ":_", "}"), ("%{a: ", ":_", "}")] {
            let text = |middle: &str| format!("{}{middle}{}", head.repeat(5_000), tail.repeat(5_000));
            let pattern = pattern(&text(middle)).expect("a pattern");
            assert!(matches(&pattern, &text("{:b, 1.5}")));
            assert!(!matches(&pattern, "1"));
        }
    }
}
