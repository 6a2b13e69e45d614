//! Which threads are a node's own: they must not wait, since what they would wait for is done by them.

use std::cell::Cell;

thread_local! {
    static IS_OURS: Cell<bool> = const { Cell::new(false) };
}

/// The calling thread drives connections or tasks of a node from now on.
pub(in crate::node) fn mark_ours() {
    IS_OURS.set(true);
}

/// Whether the calling thread may be blocked for as long as a peer takes.
pub(in crate::node) fn may_block() -> bool {
    !IS_OURS.get()
}
