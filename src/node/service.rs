//! What the service manager is told: systemd's `sd_notify(3)`, where `NOTIFY_SOCKET` says that it wants to know.
//!
//! READY once the node can be reached, RELOADING around a reload, STOPPING at the end, and WATCHDOG at half of
//! `WATCHDOG_USEC`. The last is only said when the executor has run a task and the tables of processes and peers could be
//! looked at since: a node whose threads hang is not alive.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use smol::future::FutureExt;

use super::{Node, after};

/// Tells the service manager something. Without one nothing is done.
fn tell(states: &[NotifyState<'_>]) {
    match sd_notify::notify(states) {
        Ok(()) => {}
        Err(error) => tracing::debug!(%error, "the service manager is not told"),
    }
}

/// The node can be reached.
pub(super) fn ready(node: &Node) {
    let status = format!("{} listens at {}", node.name(), node.listening());
    tell(&[NotifyState::Ready, NotifyState::Status(&status)]);
}

/// The node begins to end.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Files are read again by `reload`: the service manager is told before and after.
pub(super) fn reloading(reload: impl FnOnce()) {
    // sd_notify(3): RELOADING=1 comes with the time, which tells the READY=1 after it from those before.
    let at: io::Result<_> = NotifyState::monotonic_usec_now();
    if let Ok(at) = at {
        tell(&[NotifyState::Reloading, at]);
    }
    reload();
    tell(&[NotifyState::Ready]);
}

/// Says that the node is alive for as long as it is, where that is wanted. It never ends.
pub(super) async fn watchdog(node: Arc<Node>) {
    let Some(limit) = sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero()) else {
        return std::future::pending().await;
    };
    // sd_watchdog_enabled(3) recommends half of it.
    let interval = (limit / 2).max(Duration::from_millis(1));
    loop {
        let alive = looked_around(&node);
        let in_time = async {
            after(limit).await;
            false
        };
        if alive.or(in_time).await {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "the node's threads have done nothing for {limit:?}: the service manager is not told that it is alive"
            );
        }
        after(interval).await;
    }
}

/// A task on the node's threads that takes the locks that all others take.
async fn looked_around(node: &Arc<Node>) -> bool {
    let this = Arc::clone(node);
    let task = node
        .task_with(async move { !this.peers.is_empty() && this.registry.by_name("net_kernel").is_some() });
    match task {
        Some(task) => task.await,
        None => false,
    }
}
