//! Slaves that nobody looks after, for tests of what is shown of them.

use std::sync::Weak;

use super::*;
use crate::replica::{Downstream, SlaveName};

/// Looks after nobody.
pub struct Nobody;

impl Follow for Nobody {
    fn follow(&self, _slave: FollowSlave) {}

    fn offer(&self, _offer: Offer) {}

    fn now(&self) -> Instant {
        now()
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant")]
pub fn now() -> Instant {
    Instant::now()
}

/// A slave that nobody looks for.
pub fn unfollowed(name: SlaveName) -> Arc<SlaveEntry> {
    let follow: Arc<dyn Follow> = Arc::new(Nobody);
    SlaveEntry::new(Downstream::new(name, 0, 1 << 20), Weak::new(), &follow)
}
