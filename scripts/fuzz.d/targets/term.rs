//! Any bytes as a term: what is taken is one whole term, and can be looked at from all sides.

#![no_main]

use kvnode::etf::text::{InspectLimits, inspect};
use kvnode::etf::{Cursor, TermView, compressed, key};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    if let Some(packed) = data.strip_prefix(&[80])
        && let Ok((bytes, read)) = compressed::inflate(packed, 1 << 20)
    {
        assert!(bytes.len() <= 1 << 20 && read <= packed.len());
    }
    let mut cursor = Cursor::new(data);
    let Ok(term) = cursor.term() else {
        assert!(TermView::parse(data).is_err());
        return;
    };
    let len = data.len() - cursor.rest().len();
    assert_eq!(term.bytes(), &data[..len]);
    assert_eq!(TermView::parse(&data[..len]).expect("it was one").bytes(), &data[..len]);
    for cut in [0, len / 2, len - 1] {
        assert!(TermView::parse(&data[..cut]).is_err(), "a term is not a whole one when cut");
    }
    assert!(inspect(term, InspectLimits::LOG).len() <= 4096);
    let _duplicate = key::check_maps(term);
});
