//! `kvnode export`, `import`: the entries of a kvnode's store in a file, a line each.

mod export;
mod from;
mod import;
mod lines;
mod part;
mod put;

pub(super) use export::{ExportArgs, export};
pub(super) use import::{ImportArgs, import};

use crate::etf::TermView;
use crate::etf::text::{InspectLimits, inspect};
use crate::program::shown;

/// A page is asked for with so many entries, and so many are put at once.
const AT_ONCE: usize = 1_000;

/// A key of a store, for people.
pub(super) fn key_text(key: &[u8]) -> String {
    TermView::parse(key)
        .map_or_else(|_| key.escape_ascii().to_string(), |key| inspect(key, InspectLimits::LOG))
}

/// `1 entry`, `2 entries`
fn counted(count: u64) -> String {
    shown::counted(count, ["entry", "entries"], |count| count.to_string())
}
