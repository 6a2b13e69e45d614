//! The place of a slave among its primary's writes, kept over a restart of its node: so it is sent what it missed, and not
//! everything.
//!
//! It is kept when the primary asks, behind the writes that came before and before the answer. So it is never ahead of what the
//! store holds, also where a power cut has taken some of that, and what the primary was told it is not behind: a primary that
//! is told of less than it was told before copies everything.

use super::server::KeyValueServer;
use crate::store::Store;

impl<S: Store> KeyValueServer<S> {
    /// What the store holds is nobody's from here on: it has a position no more.
    pub(super) fn forget_position(&self) {
        let forget = |result| {
            if let Err(error) = result {
                tracing::error!(%error, "the place among the former primary's writes is not forgotten");
            }
        };
        self.note(|membership| membership.position = None, forget);
    }
}
