//! Any text as a term in Elixir's syntax: what is read is one whole term, and what is printed of it is read back as the
//! same one.

#![no_main]

use kvnode::etf::text::{InspectLimits, NodeIdentity, inspect, parse};
use kvnode::etf::{TermView, key};
use libfuzzer_sys::fuzz_target;

/// Enough for what a text of the length below can become.
const WHOLE: InspectLimits = InspectLimits { text_bytes_max: 1 << 20 };

fn key_of(term: TermView<'_>) -> Vec<u8> {
    let mut scratch = Vec::new();
    key::canonical(term, &mut scratch).expect("what is typed is never a key that is none").to_vec()
}

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if text.len() > 4096 {
        return;
    }
    let local = NodeIdentity { name: "k@h".into(), creation: 7 };
    let parsed = match parse(text, Some(&local)) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let bytes = parsed.clone().into_bytes();
    let term = TermView::parse(&bytes).expect("what is read is a term");
    let printed = inspect(term, WHOLE);
    let again =
        parse(&printed, Some(&local)).unwrap_or_else(|error| panic!("{text:?} is {printed:?}: {error}"));
    assert_eq!(key_of(again.view()), key_of(term), "{text:?} is {printed:?}");
});
