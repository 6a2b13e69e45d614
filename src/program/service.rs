//! What the service manager is told: systemd's `sd_notify(3)`, where `NOTIFY_SOCKET` says that it wants to know.
//!
//! READY once the node can be reached, RELOADING around a reload, STOPPING at the end, and WATCHDOG at half of
//! `WATCHDOG_USEC`. The last is only said when the threads of servers have run a task and those of connections have carried a
//! call since, and the tables of processes and peers could be looked at: a node whose threads hang is not alive.

use std::env;
use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use smol::Timer;

use crate::etf::{Atom, OwnedTerm, atom};
use crate::log::OnceFlag;
use crate::within::within;
use crate::{Node, ServerRef};

/// Where the service manager listens; unset or empty: there is none that wants to know.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Whether it was said in the log that the service manager cannot be told anything.
static SAID: OnceFlag = OnceFlag::new();

/// Tells the service manager something. Without one nothing is done.
fn tell(states: &[NotifyState<'_>]) {
    let Some(socket) = env::var_os(SOCKET).filter(|socket| !socket.is_empty()) else { return };
    match notify(&socket, states) {
        Ok(()) => {}
        // Each watchdog's interval would say it again.
        Err(error) if SAID.first() => tracing::warn!(
            %error,
            "the service manager cannot be told that this node is ready or alive, and may end it for that: see NOTIFY_SOCKET, \
             which is {socket:?}"
        ),
        Err(error) => tracing::debug!(%error, "the service manager is not told"),
    }
}

/// sd_notify(3): a socket in the file system, or with a first `@` one in Linux' abstract namespace, which the crate takes
/// for a relative path.
fn notify(socket: &OsStr, states: &[NotifyState<'_>]) -> io::Result<()> {
    match socket.as_bytes().strip_prefix(b"@") {
        Some(name) => {
            let mut message = String::new();
            for state in states {
                // Writing to a String does not fail.
                let _ = writeln!(message, "{state}");
            }
            send_abstract(name, message.as_bytes())
        }
        None => sd_notify::notify(states),
    }
}

/// A datagram is sent whole or not at all (unix(7)).
#[cfg(target_os = "linux")]
fn send_abstract(name: &[u8], message: &[u8]) -> io::Result<()> {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    let address = SocketAddr::from_abstract_name(name)?;
    UnixDatagram::unbound()?.send_to_addr(message, &address).map(|_all| ())
}

#[cfg(not(target_os = "linux"))]
fn send_abstract(_: &[u8], _: &[u8]) -> io::Result<()> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no abstract sockets"))
}

/// The node can be reached.
pub(super) fn ready(node: &Node, is_loaded: bool) {
    let waits = if is_loaded { "" } else { ", and its stores wait for etcd" };
    let status = format!("{} listens at {}{waits}", node.name(), node.listening());
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
        if within(limit, looked_around(&node, limit)).await == Some(true) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!(
                "the node's threads have done nothing for {limit:?}: the service manager is not told that it is alive"
            );
        }
        Timer::after(interval).await;
    }
}

/// A task on the threads of servers that takes the locks that all others take, and a ping of the node itself, which the
/// threads of connections carry.
async fn looked_around(node: &Arc<Node>, limit: Duration) -> bool {
    let (tell, told) = smol::channel::bounded(1);
    let this = Arc::clone(node);
    node.spawn(async move {
        let _peers = this.connected();
        // Too late for the watchdog, which asked.
        let _gone = tell.try_send(this.whereis_local("net_kernel").is_some());
    });
    let ping = (atom("is_auth"), OwnedTerm::atom(node.name().as_str()));
    let pong = node.call::<Atom, _>(&ServerRef::local("net_kernel"), &ping, limit).await;
    // A node that has ended has dropped the task.
    pong.is_ok() && told.recv().await.unwrap_or(false)
}
