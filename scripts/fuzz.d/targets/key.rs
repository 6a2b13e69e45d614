//! Any bytes as a key: its canonical form is a term whose canonical form is itself, and says the same.

#![no_main]

use kvnode::etf::{TermView, key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(term) = TermView::parse(data) else { return };
    let mut scratch = Vec::new();
    let Ok(canonical) = key::canonical(term, &mut scratch).map(<[u8]>::to_vec) else { return };
    let again = TermView::parse(&canonical).expect("the canonical form of a term is one");
    let mut scratch = Vec::new();
    let twice = key::canonical(again, &mut scratch).expect("it was a key before");
    assert_eq!(twice, canonical, "the canonical form of {term:?}");
    // What is in a list is the same key there.
    let in_a_list = |bytes: &[u8]| {
        let list = [&[108, 0, 0, 0, 1][..], bytes, &[106]].concat();
        let mut scratch = Vec::new();
        let list = TermView::parse(&list).expect("a list of a term");
        key::canonical(list, &mut scratch).expect("a key in a list").to_vec()
    };
    assert_eq!(in_a_list(data), in_a_list(&canonical), "{term:?} in a list");
});
