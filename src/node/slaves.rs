//! Slaves, followed: found by name, watched by a monitor, found again when they are gone.

use std::sync::Arc;
use std::time::Duration;

use super::backoff::Backoff;
use super::{Node, now};
use crate::dist::{Outbound, RemoteProcess};
use crate::etf::TermView;
use crate::process::{Outcome, Process};
use crate::replica::{Slave, SlaveName};

/// How long one node may take to say where a global name is.
const WHEREIS_LIMIT: Duration = Duration::from_secs(5);
/// A slave that was followed for so long was really there.
const STEADY: Duration = Duration::from_secs(1);

/// Follows a slave of a store for as long as the node lives.
pub(super) async fn follow(node: Arc<Node>, slave: Arc<Slave>, store: Arc<Process>) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said_missing = false;
    loop {
        let Some(at) = find(&node, slave.name()).await else {
            if !std::mem::replace(&mut said_missing, true) {
                tracing::warn!(store = ?store, slave = %slave.name(), "slave not found; looking for it");
            }
            backoff.pause().await;
            continue;
        };
        if at == RemoteProcess::Pid(store.pid.clone()) {
            tracing::error!(store = ?store, slave = %slave.name(), "a store cannot be its own slave: ignored");
            return;
        }
        match watch(&node, &slave, &store, at, &mut said_missing).await {
            Ok(steady) if steady >= STEADY => backoff.reset(),
            Ok(_) => {}
            Err(error) => {
                if !std::mem::replace(&mut said_missing, true) {
                    tracing::warn!(store = ?store, slave = %slave.name(), %error, "slave not reached");
                }
            }
        }
        backoff.pause().await;
    }
}

/// Follows it until it is gone; gives how long that was.
async fn watch(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    at: RemoteProcess,
    said_missing: &mut bool,
) -> Result<Duration, Arc<super::setup::DialError>> {
    let peer = node.connect(at.node()).await?;
    let reference = node.registry.new_reference();
    let (tell, told) = smol::channel::bounded(1);
    node.waiters.expect(&reference, &peer.name, move |outcome| {
        // Whoever followed is gone only when the node is.
        let _gone = tell.try_send(outcome);
    });
    let mut frames = Outbound::default();
    frames.monitor(&store.pid, &at, &reference);
    peer.leave(|outbox| outbox.frames.append(&mut frames));
    slave.found(at);
    let since = now();
    tracing::info!(store = ?store, slave = %slave.name(), node = %peer.name, "slave found");
    *said_missing = false;
    node.replicate(slave, store);
    let still_up = node.peers.get(&peer.name).is_some_and(|up| Arc::ptr_eq(&up, &peer));
    let outcome =
        if still_up { told.recv().await.unwrap_or(Outcome::NoConnection) } else { Outcome::NoConnection };
    node.waiters.cancel(&reference);
    slave.gone();
    let reason = match &outcome {
        Outcome::Down(reason) | Outcome::Refused(reason) => {
            TermView::parse(reason).map_or_else(|error| error.to_string(), |reason| format!("{reason:?}"))
        }
        Outcome::NoConnection => ":noconnection".into(),
    };
    tracing::warn!(store = ?store, slave = %slave.name(), reason, "slave lost; looking for it");
    Ok(since.elapsed())
}

async fn find(node: &Node, name: &SlaveName) -> Option<RemoteProcess> {
    match name {
        SlaveName::Pid(pid) => Some(RemoteProcess::Pid(pid.clone())),
        SlaveName::Remote { name, node: host } if *host != node.registry.node => {
            Some(RemoteProcess::Name { name: Arc::clone(name), node: Arc::clone(host) })
        }
        SlaveName::Remote { name, .. } | SlaveName::Local(name) => {
            node.registry.by_name(name).map(|(_, process)| RemoteProcess::Pid(process.pid.clone()))
        }
        SlaveName::Global(name) => node.whereis_global(name, WHEREIS_LIMIT).await.map(RemoteProcess::Pid),
    }
}
