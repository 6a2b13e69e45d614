//! What is counted of a node, beside what each connection and each store counts itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::latency::Latency;
use super::now;
use crate::config::StoreConfig;
use crate::process::figures::StoreWatch;

pub(super) struct Figures {
    pub(super) latency: Latency,
    pub(super) started: Instant,
    /// The same by the wall clock, since 1970.
    pub(super) started_unix: Duration,
    pub(super) stores: Mutex<Vec<(StoreConfig, Arc<StoreWatch>)>>,
    registered: AtomicBool,
}

impl Figures {
    #[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
    pub(super) fn new() -> Self {
        Self {
            latency: Latency::default(),
            started: now(),
            started_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            stores: Mutex::default(),
            registered: AtomicBool::new(false),
        }
    }

    /// Whether epmd knows the node now.
    pub(super) fn is_registered(&self) -> bool {
        self.registered.load(Ordering::Relaxed)
    }

    pub(super) fn set_registered(&self, registered: bool) {
        self.registered.store(registered, Ordering::Relaxed);
    }
}
