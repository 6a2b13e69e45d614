//! What is counted of a node, beside what each connection counts itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::node::now;
use crate::process::figures::Servers;
use crate::process::latency::Latency;

pub(in crate::node) struct Figures {
    pub(in crate::node) latency: Latency,
    /// Of the servers that have ended.
    pub(in crate::node) servers: Servers,
    pub(in crate::node) started: Instant,
    /// The same by the wall clock, since 1970.
    pub(in crate::node) started_unix: Duration,
    registered: AtomicBool,
}

impl Figures {
    #[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
    pub(in crate::node) fn new() -> Self {
        Self {
            latency: Latency::default(),
            servers: Servers::default(),
            started: now(),
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            registered: AtomicBool::new(false),
        }
    }

    /// Whether epmd knows the node now.
    pub(in crate::node) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    pub(in crate::node) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }
}
