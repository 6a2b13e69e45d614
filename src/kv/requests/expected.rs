//! What a request expects a key to have, without which it changes nothing.

use super::{Unserved, edit};
use crate::etf::{TermView, key};
use crate::store::Value;

/// What is expected.
#[derive(Clone, Debug)]
pub(super) enum Expected {
    /// `{:value, v}`: a value that is `===` this one, in canonical form.
    Value(Box<[u8]>),
    /// `{:revision, r}`: the value that has this revision; `None`: no value has it.
    Revision(Option<u64>),
    /// `:absent`: nothing.
    Absent,
}

impl Expected {
    /// Reads it.
    ///
    /// # Errors
    /// It is none, or the value cannot be compared: see [`key::canonical`].
    pub(super) fn read(term: TermView<'_>) -> Result<Self, Unserved> {
        if term.is_atom("absent") {
            return Ok(Self::Absent);
        }
        let [kind, what] = term.as_tuple::<2>().ok_or(Unserved::Shape)?;
        match kind.as_atom() {
            Some(atom) if atom == "value" => Self::value(what),
            Some(atom) if atom == "revision" => Self::revision(what),
            _ => Err(Unserved::Shape),
        }
    }

    /// A value that is `===` this one.
    ///
    /// # Errors
    /// It cannot be compared: see [`key::canonical`].
    pub(super) fn value(value: TermView<'_>) -> Result<Self, Unserved> {
        Ok(Self::Value(key::canonical(value, &mut Vec::new())?.into()))
    }

    /// The value that has this revision.
    ///
    /// # Errors
    /// It is no integer.
    pub(super) fn revision(revision: TermView<'_>) -> Result<Self, Unserved> {
        let is_one = edit::is_integer(revision);
        is_one.then(|| Self::Revision(revision.as_unsigned())).ok_or(Unserved::Shape)
    }

    /// Whether that is there.
    pub(super) fn is_met(&self, present: Option<Value<'_>>) -> bool {
        match (self, present) {
            (Self::Absent, None) => true,
            (Self::Value(expected), Some(present)) => {
                **expected == *present.bytes || is_same(expected, present.bytes)
            }
            (Self::Revision(expected), Some(present)) => *expected == Some(present.revision),
            _ => false,
        }
    }
}

/// Whether these canonical bytes are those of a term. A term that has no canonical form equals no other.
fn is_same(canonical: &[u8], term: &[u8]) -> bool {
    let mut scratch = Vec::new();
    let Ok(term) = TermView::parse(term) else { return false };
    key::canonical(term, &mut scratch).is_ok_and(|term| term == canonical)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Traits, text::parse};

    fn expected(text: &str) -> Option<Expected> {
        let term = parse(text, None).expect("a term");
        Expected::read(term.view()).ok()
    }

    #[track_caller]
    fn is_met(text: &str, present: Option<(&[u8], u64)>) -> bool {
        let present = present.map(|(bytes, revision)| Value { revision, ..Value::of(bytes, Traits::none()) });
        expected(text).expect("it can be read").is_met(present)
    }

    #[test]
    fn a_value_is_expected_in_whatever_form_it_is_there() {
        let [one, wide, float] = [&[97, 1][..], &[98, 0, 0, 0, 1], &[70, 63, 240, 0, 0, 0, 0, 0, 0]];
        assert!(is_met("{:value, 1}", Some((one, 7))) && is_met("{:value, 1}", Some((wide, 7))));
        assert!(!is_met("{:value, 1}", Some((float, 7))) && !is_met("{:value, 1}", None));
        assert!(is_met("{:value, 1.0}", Some((float, 7))) && !is_met("{:value, 1.0}", Some((one, 7))));
        let (pair, turned) = ([97, 1, 97, 2], [97, 3, 97, 4]);
        let map = |pairs: [[u8; 4]; 2]| [&[116, 0, 0, 0, 2][..], &pairs.concat()].concat();
        for pairs in [[pair, turned], [turned, pair]] {
            assert!(is_met("{:value, %{1 => 2, 3 => 4}}", Some((&map(pairs), 1))));
        }
        assert!(!is_met("{:value, [1, 2]}", Some((&[108, 0, 0, 0, 1, 97, 1, 97, 2], 1))));
        assert!(is_met("{:value, [1, 2]}", Some((&[108, 0, 0, 0, 2, 97, 1, 97, 2, 106], 1))));
    }

    #[test]
    fn a_revision_and_nothing_are_expected_exactly() {
        assert!(
            is_met("{:revision, 7}", Some((&[97, 1], 7))) && !is_met("{:revision, 8}", Some((&[97, 1], 7)))
        );
        assert!(!is_met("{:revision, 7}", None) && !is_met("{:revision, -7}", Some((&[97, 1], 7))));
        assert!(!is_met("{:revision, 99999999999999999999999}", Some((&[97, 1], 7))));
        assert!(is_met(":absent", None) && !is_met(":absent", Some((&[97, 1], 7))));
    }

    #[test]
    fn anything_else_is_not_expected() {
        for text in [
            ":present",
            "{:value}",
            "{:value, 1, 2}",
            "{:revision, :one}",
            "{:revision, 1.0}",
            "{1, 2}",
            "[]",
        ] {
            assert!(expected(text).is_none(), "{text}");
        }
    }
}
