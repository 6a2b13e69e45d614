//! What a store that was emptied leaves to do.

use std::fmt;

/// A store was emptied, by a write with this number.
pub struct Cleared {
    /// The write's place among the writes of its store.
    pub seq: u64,
    /// What was there is gone for everybody, and takes memory still. Each call lets go of some thousand entries, and gives whether
    /// there are more; dropped, it lets go of all of them. `None`: the store sees to it.
    pub rest: Option<Box<dyn FnMut() -> bool + Send>>,
}

impl fmt::Debug for Cleared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cleared").field("seq", &self.seq).finish_non_exhaustive()
    }
}
