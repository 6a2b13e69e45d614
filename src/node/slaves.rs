//! Slaves, followed: found by name, watched by a monitor, found again when they are gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::erpc::ErpcError;
use super::peers::PeerHandle;
use super::setup::DialError;
use super::{Node, now};
use crate::dist::control::op;
use crate::dist::{Outbound, RemoteProcess};
use crate::etf::{Pid, Reference, TermView, encode};
use crate::process::{Outcome, Process};
use crate::replica::{Slave, SlaveName};

/// How long one node may take to say where a name is.
const WHEREIS_LIMIT: Duration = Duration::from_secs(5);
/// A slave that was followed for so long was really there.
const STEADY: Duration = Duration::from_secs(1);

/// Why a slave is not followed now.
enum Missing {
    /// Nobody has its name.
    Nobody,
    /// Its node is not reached.
    Unreached(Arc<DialError>),
    /// Its node cannot say who has the name.
    NotSaid(ErpcError),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody has that name"),
            Self::Unreached(error) => error.fmt(f),
            Self::NotSaid(error) => write!(f, "its node does not say who has that name: {error}"),
        }
    }
}

/// Follows a slave of a store until the store ends, which ends this task.
pub(super) async fn follow(node: Arc<Node>, slave: Arc<Slave>, store: Arc<Process>) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said = String::new();
    while store.is_alive() {
        match find(&node, slave.name()).await {
            Ok(at) if node.registry.by_owned_pid(&at).is_some_and(|process| process.is_sibling(&store)) => {
                tracing::error!(store = ?store, slave = %slave.name(), "a store cannot be its own slave: dropped");
                return slave.drop_out();
            }
            Ok(at) => {
                said.clear();
                let since = now();
                let outcome = watch(&node, &slave, &store, at).await;
                if matches!(slave.name(), SlaveName::Pid(_)) && matches!(outcome, Ok(Outcome::Down(_))) {
                    tracing::warn!(store = ?store, slave = %slave.name(), "slave dropped: a pid does not come back");
                    return slave.drop_out();
                }
                if since.elapsed() >= STEADY {
                    backoff.reset();
                }
                if let Err(error) = outcome {
                    say(&mut said, &store, &slave, &Missing::Unreached(error));
                }
            }
            Err(missing) => say(&mut said, &store, &slave, &missing),
        }
        backoff.pause().await;
    }
}

/// Says why a slave is missing, once.
fn say(said: &mut String, store: &Process, slave: &Slave, missing: &Missing) {
    let text = missing.to_string();
    if *said != text {
        tracing::warn!(store = ?store, slave = %slave.name(), "slave not found, looking for it: {text}");
        *said = text;
    }
}

/// Follows it until it is gone, and gives how it went.
async fn watch(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    at: Pid,
) -> Result<Outcome, Arc<DialError>> {
    let peer = node.connect(&at.node).await?;
    let monitored = at.clone();
    let at = RemoteProcess::Pid(at);
    let reference = node.registry.new_reference();
    let (tell, told) = smol::channel::bounded(1);
    node.waiters.expect(&reference, &peer.name, move |outcome| {
        // Whoever followed may have ended with its store.
        let _gone = tell.try_send(outcome);
    });
    let mut frames = Outbound::default();
    frames.monitor(&store.pid, &at, &reference);
    peer.leave(|outbox| outbox.frames.append(&mut frames));
    let mut monitor =
        Monitor { node, peer: &peer, from: &store.pid, to: &monitored, reference, fired: false };
    slave.found(at);
    tracing::info!(store = ?store, slave = %slave.name(), node = %peer.name, "slave found");
    node.replicate(slave, store);
    let still_up = node.peers.get(&peer.name).is_some_and(|up| Arc::ptr_eq(&up, &peer));
    let outcome =
        if still_up { told.recv().await.unwrap_or(Outcome::NoConnection) } else { Outcome::NoConnection };
    monitor.fired = true;
    drop(monitor);
    slave.gone();
    let reason = match &outcome {
        Outcome::Down(reason) | Outcome::Refused(reason) => {
            TermView::parse(reason).map_or_else(|error| error.to_string(), |reason| format!("{reason:?}"))
        }
        Outcome::Replied(_) | Outcome::NoConnection => ":noconnection".into(),
    };
    tracing::warn!(store = ?store, slave = %slave.name(), reason, "slave lost; looking for it");
    Ok(outcome)
}

/// The monitor of a slave. It is taken back when it is dropped, which happens before it fires when its store ends.
struct Monitor<'a> {
    node: &'a Node,
    peer: &'a PeerHandle,
    from: &'a Pid,
    to: &'a Pid,
    reference: Reference,
    fired: bool,
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        self.node.waiters.cancel(&self.reference);
        if !self.fired {
            self.peer.leave(|outbox| {
                let open = outbox.frames.begin();
                let mut term = outbox.frames.term();
                term.tuple(4)
                    .unsigned(op::DEMONITOR_P)
                    .pid(self.from)
                    .pid(self.to)
                    .reference(&self.reference);
                outbox.frames.finish(open);
            });
        }
    }
}

/// Where a slave is now: the pid that has its name. Writes wait until that is known, so that none goes to a name
/// that nobody has yet.
async fn find(node: &Node, name: &SlaveName) -> Result<Pid, Missing> {
    let found = match name {
        SlaveName::Pid(pid) => Some(pid.clone()),
        SlaveName::Remote { name, node: host } if *host != node.registry.node => {
            let peer = node.connect(host).await.map_err(Missing::Unreached)?;
            let name = encode(|w| {
                w.atom(name);
            });
            node.whereis(&peer, &name, WHEREIS_LIMIT).await.map_err(Missing::NotSaid)?
        }
        SlaveName::Remote { name, .. } | SlaveName::Local(name) => {
            node.registry.by_name(name).map(|(_, process)| process.pid.clone())
        }
        SlaveName::Global(name) => node.whereis_global(name, WHEREIS_LIMIT).await,
    };
    found.ok_or(Missing::Nobody)
}
