//! Lists, in whatever form they come.

use super::split::{TermView, Traits};
use super::tag::{LIST_EXT, NIL_EXT, SMALL_INTEGER_EXT, STRING_EXT};

/// All small integers, encoded.
#[expect(clippy::indexing_slicing, reason = "`at` is less than how many there are")]
static SMALL_INTEGERS: [[u8; 2]; 256] = {
    let mut all = [[SMALL_INTEGER_EXT, 0]; 256];
    let mut at = 0;
    while at < 256 {
        all[at][1] = at as u8;
        at += 1;
    }
    all
};

#[expect(clippy::indexing_slicing, reason = "there is one for each byte")]
const fn small_integer(byte: u8) -> TermView<'static> {
    TermView::trusted(&SMALL_INTEGERS[byte as usize], Traits::none())
}

/// The bytes of a list of small integers, which travels as a string (erl_ext_dist, "STRING_EXT").
fn short_string(list: TermView<'_>) -> Option<&[u8]> {
    match list.bytes() {
        [STRING_EXT, _, _, text @ ..] => Some(text),
        _ => None,
    }
}

impl<'a> TermView<'a> {
    /// Whether it is a list, proper or not.
    pub const fn is_list(self) -> bool {
        matches!(self.tag(), NIL_EXT | LIST_EXT | STRING_EXT)
    }

    /// The number of elements, if it is a list, before its tail where it has another than `[]`: without a walk.
    pub fn list_len(self) -> Option<usize> {
        match short_string(self) {
            Some(text) => Some(text.len()),
            None => self.cursor().list().ok(),
        }
    }

    /// The elements of a proper list, each with its own traits. `None` where the term is no proper list, or a list of more than
    /// `len_max` elements.
    pub fn elements(self, len_max: usize) -> Option<Vec<TermView<'a>>> {
        if self.list_len()? > len_max {
            return None;
        }
        if let Some(text) = short_string(self) {
            return Some(text.iter().map(|&byte| small_integer(byte)).collect());
        }
        let mut cursor = self.cursor();
        let len = cursor.list().ok()?;
        let elements: Option<Vec<_>> = (0..len).map(|_| cursor.term().ok()).collect();
        (len == 0 || cursor.term().is_ok_and(TermView::is_nil)).then_some(elements?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(bytes: &[u8], len_max: usize) -> Option<Vec<Option<u64>>> {
        let elements = TermView::parse(bytes).expect("a term").elements(len_max)?;
        Some(elements.iter().map(|element| element.as_unsigned()).collect())
    }

    #[test]
    fn elements_are_read_from_lists_and_from_strings() {
        assert_eq!(numbers(&[106], 0), Some(vec![]));
        assert_eq!(numbers(&[107, 0, 2, 7, 255], 2), Some(vec![Some(7), Some(255)]));
        assert_eq!(numbers(&[108, 0, 0, 0, 1, 97, 7, 106], 1), Some(vec![Some(7)]));
        assert_eq!(numbers(&[108, 0, 0, 0, 1, 97, 7, 97, 8], 9), None, "an improper list");
        assert_eq!(numbers(&[97, 1], 9), None, "no list");
        assert_eq!(numbers(&[107, 0, 2, 7, 255], 1), None, "too many");
        assert_eq!(numbers(&[108, 0, 0, 0, 1, 97, 7, 106], 0), None, "too many");
    }

    #[test]
    fn the_length_of_a_list_is_told_without_a_look_at_its_elements() {
        let len = |bytes: &[u8]| TermView::parse(bytes).expect("a term").list_len();
        assert_eq!(len(&[106]), Some(0));
        assert_eq!(len(&[107, 0, 2, 7, 255]), Some(2));
        assert_eq!(len(&[108, 0, 0, 0, 1, 97, 7, 97, 8]), Some(1));
        assert_eq!((len(&[97, 1]), len(&[104, 1, 106])), (None, None));
        let is_list = |bytes: &[u8]| TermView::parse(bytes).expect("a term").is_list();
        assert!(is_list(&[106]) && is_list(&[107, 0, 1, 7]) && is_list(&[108, 0, 0, 0, 1, 97, 7, 97, 8]));
        assert!(!is_list(&[97, 1]) && !is_list(&[104, 1, 106]));
    }
}
