//! Slaves that nobody looks after, for tests of what is shown of them.

use std::sync::Weak;

use super::*;
use crate::replica::{Downstream, SlaveName};

/// Looks after nobody.
pub struct Nobody;

impl Follow for Nobody {
    fn follow(&self, _slave: FollowSlave) {}

    fn offer(&self, _offer: Offer) {}

    fn wake(&self, _store: Pid, _request: WakeRequest) {}

    fn now(&self) -> Instant {
        now()
    }

    fn unix_ms(&self) -> u64 {
        0
    }
}

#[expect(clippy::disallowed_methods, reason = "some instant")]
pub fn now() -> Instant {
    Instant::now()
}

/// A slave that nobody looks for.
pub fn unfollowed(name: SlaveName) -> Arc<SlaveEntry> {
    SlaveEntry::new(Downstream::new(name, 0, 1 << 20), Weak::new(), &nobody())
}

pub fn nobody() -> Arc<dyn Follow> {
    Arc::new(Nobody)
}
