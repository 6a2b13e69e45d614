//! Waiting for what can be observed but does not announce itself.

use std::time::{Duration, Instant};

/// How long anything that must happen may take. Long, as machines that test are slow and shared: it is
/// only ever waited out by a test that fails.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// Asks `holds` until it says yes. Fails the test with `what` after [`PATIENCE`].
#[track_caller]
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(25));
    }
}
