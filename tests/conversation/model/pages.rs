//! A scan whose pages are asked for between other requests.

use std::collections::BTreeSet;

use kvnode::etf::key::canonical;
use kvnode::etf::{OwnedTerm, TermView};
use kvnode::kv::requests::KEYS_MAX;
use proptest::prelude::*;

use super::{KEYS, Model, key};
use crate::conversation::payload_of;
use crate::term::{term, term_with};

/// Bytes of a cursor that is taken, at most.
const CURSOR_BYTES_MAX: usize = 64 << 10;

/// The scan.
#[derive(Default)]
pub(super) struct Pages {
    cursor: Option<Vec<u8>>,
    /// Keys that were there from its first page on.
    stay: BTreeSet<u8>,
    /// Those of them that were shown.
    shown: BTreeSet<u8>,
}

impl Pages {
    /// A key is not there, or was not.
    pub(super) fn gone(&mut self, at: u8) {
        self.stay.remove(&at);
    }
}

impl Model {
    /// Asks for a page of so many entries, and looks at it; gives whether it was the last. An error of the store's own is no page.
    pub(super) fn page(
        &mut self,
        limit: u8,
        keys_only: bool,
        ask: impl FnOnce(Vec<u8>) -> Vec<Vec<u8>>,
    ) -> Result<bool, TestCaseError> {
        let present: BTreeSet<u8> = (0..KEYS).filter(|at| self.present(*at).is_some()).collect();
        let mut pages =
            self.pages.take().unwrap_or_else(|| Pages { stay: present.clone(), ..Pages::default() });
        pages.stay.retain(|at| present.contains(at));
        let options = format!("limit: {limit}, keys: {keys_only}");
        let answers = ask(match &pages.cursor {
            None => term(&format!("{{:scan, [{options}]}}")),
            Some(cursor) => term_with(&format!("{{:scan, [cursor: $1, {options}]}}"), &[cursor]),
        });
        prop_assert_eq!(answers.len(), 1);
        let [_, page] =
            TermView::parse(payload_of(&answers[0])).expect("a term").as_tuple::<2>().expect("an answer");
        let page = OwnedTerm::from(page);
        let [entries, next] = page.view().as_tuple::<2>().expect("a pair");
        let Some(entries) = entries.elements(KEYS_MAX) else {
            prop_assert!(entries.is_atom("error"), "{:?}", page);
            // The deferred store's cursors are keys, of any length, and no store's may be so long.
            let is_over = next.is_atom("bad_cursor");
            prop_assert!(
                !is_over || pages.cursor.as_ref().is_some_and(|cursor| cursor.len() > CURSOR_BYTES_MAX)
            );
            self.pages = if is_over { None } else { Some(pages) };
            return Ok(is_over);
        };
        prop_assert!(entries.len() <= usize::from(limit), "{:?}", page);
        for entry in entries {
            let (key, value) = if keys_only {
                (entry, None)
            } else {
                let [key, value] = entry.as_tuple::<2>().expect("a pair");
                (key, Some(value))
            };
            let at = number_of(key);
            prop_assert!(present.contains(&at), "{:?} is not there", key);
            if let Some(value) = value {
                let held = term(self.get(at).expect("it is there"));
                prop_assert!(value.bytes() == held, "{:?} has not {:?}", key, value);
            }
            if pages.stay.contains(&at) {
                prop_assert!(pages.shown.insert(at), "{:?} comes twice", key);
            }
        }
        if next.is_atom("done") {
            let missed: Vec<u8> = pages.stay.iter().copied().filter(|at| !pages.shown.contains(at)).collect();
            prop_assert!(missed.is_empty(), "{:?} did not come", missed);
            return Ok(true);
        }
        pages.cursor = Some(next.bytes().to_vec());
        self.pages = Some(pages);
        Ok(false)
    }
}

/// The number of a key.
fn number_of(shown: TermView<'_>) -> u8 {
    let same = |at: &u8| {
        let known = term(&key(*at));
        let known = TermView::parse(&known).expect("a term");
        let (mut one, mut other) = (Vec::new(), Vec::new());
        canonical(known, &mut one).expect("a key") == canonical(shown, &mut other).expect("a key")
    };
    (0..KEYS).find(same).unwrap_or_else(|| panic!("{shown:?} is no key of this test"))
}
