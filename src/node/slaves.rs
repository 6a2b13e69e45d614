//! Slaves, followed: found by name, watched by a monitor, found again when they are gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt;

use super::backoff::Backoff;
use super::erpc::ErpcError;
use super::peers::PeerHandle;
use super::setup::DialError;
use super::{Node, now, slave_keys};
use crate::dist::control::op;
use crate::dist::{DistributionFlags, Outbound, RemoteProcess};
use crate::etf::{Pid, Reference, TermView, encode};
use crate::process::effect::can_decode;
use crate::process::{Outcome, Process};
use crate::replica::{Acknowledge, Mark, Slave, SlaveName, SlaveState, Source, Standing};

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

/// Follows a slave of a store until it is removed or the store ends, which ends this task.
pub(super) async fn follow(node: Arc<Node>, slave: Arc<Slave>, store: Arc<Process>) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said = String::new();
    while store.is_alive() && slave.state() != SlaveState::Dropped {
        match find(&node, slave.name()).await {
            Ok(at) if node.registry.by_owned_pid(&at).is_some_and(|process| process.is_sibling(&store)) => {
                tracing::error!(store = ?store, slave = %slave.name(), "a store cannot be its own slave: dropped");
                return slave.drop_out();
            }
            Ok(at) => {
                said.clear();
                let since = now();
                let outcome = watch(&node, &slave, &store, at).await;
                if matches!(slave.name(), SlaveName::Pid(_)) && matches!(outcome, Ok(Some(Outcome::Down(_))))
                {
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

/// Follows it until it is gone, and gives how it went; `None`: it was removed.
async fn watch(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    at: Pid,
) -> Result<Option<Outcome>, Arc<DialError>> {
    let peer = node.connect(&at.node).await?;
    let reference = node.registry.new_reference();
    let (tell, told) = smol::channel::bounded(1);
    node.waiters.expect(&reference, &peer.name, move |outcome| {
        // Whoever followed may have ended with its store.
        let _gone = tell.try_send(outcome);
    });
    let mut frames = Outbound::default();
    frames.monitor(&store.pid, &RemoteProcess::Pid(at.clone()), &reference);
    peer.leave(|outbox| outbox.frames.append(&mut frames));
    let mut monitor =
        Monitor { node, peer: &peer, slave, from: &store.pid, to: &at, reference, fired: false };
    slave.found(RemoteProcess::Pid(at.clone()));
    tracing::info!(store = ?store, slave = %slave.name(), node = %peer.name, "slave found");
    let still_up = node.peers.get(&peer.name).is_some_and(|up| Arc::ptr_eq(&up, &peer));
    let gone = async { Some(told.recv().await.unwrap_or(Outcome::NoConnection)) };
    let tended = async {
        tend(node, slave, store, &peer, &at).await;
        None
    };
    let outcome = if still_up { gone.or(tended).await } else { Some(Outcome::NoConnection) };
    monitor.fired = outcome.is_some();
    drop(monitor);
    let reason = match &outcome {
        None => {
            tracing::info!(store = ?store, slave = %slave.name(), "slave no longer followed");
            return Ok(None);
        }
        Some(Outcome::Down(reason) | Outcome::Refused(reason)) => {
            TermView::parse(reason).map_or_else(|error| error.to_string(), |reason| format!("{reason:?}"))
        }
        Some(Outcome::Replied(_) | Outcome::NoConnection) => ":noconnection".into(),
    };
    tracing::warn!(store = ?store, slave = %slave.name(), reason, "slave lost; looking for it");
    Ok(outcome)
}

/// Repairs it, and asks for what it has, until it is removed.
async fn tend(node: &Arc<Node>, slave: &Arc<Slave>, store: &Arc<Process>, peer: &Arc<PeerHandle>, at: &Pid) {
    let (poke, poked) = smol::channel::bounded(1);
    slave.on_change(Box::new(move || {
        // One that is there already says the same.
        let _full = poke.try_send(());
    }));
    let mut progress = Progress::default();
    while slave.state() != SlaveState::Dropped {
        if slave.catch_up() {
            tracing::info!(store = ?store, slave = %slave.name(), "slave takes writes again");
        }
        if slave.begin_sweep() {
            sweep(node, slave, store, peer, at).await;
        }
        let repairing = match store.server.replica_source() {
            Some(source) => repair(slave, source),
            None => {
                slave.give_up_repair();
                false
            }
        };
        node.replicate(slave, store);
        progress.say(slave, store);
        if repairing && slave.has_room() {
            // Others of this thread have their turn: a copy takes long.
            smol::future::yield_now().await;
            continue;
        }
        let changed = async { poked.recv().await.is_ok() };
        match slave.acknowledge_due() {
            None => _ = changed.await,
            Some(due) => {
                let late = async {
                    Timer::at(due).await;
                    true
                };
                _ = changed.or(late).await;
            }
        }
    }
}

/// A step of a repair; gives whether there is more of it.
fn repair(slave: &Slave, source: &dyn Source) -> bool {
    let repairing = slave.scan(source);
    if repairing {
        slave.refill(source);
    }
    repairing
}

/// Finds the keys that the slave has and the store does not, so that they are deleted there.
async fn sweep(node: &Node, slave: &Slave, store: &Process, peer: &Arc<PeerHandle>, at: &Pid) {
    if store.server.replica_source().is_none() {
        return slave.end_sweep(false);
    }
    let mut foreign = 0_u64;
    let mut unusable = 0_u64;
    let read = slave_keys::read(node, peer, at, |key| {
        let swept = store.server.replica_source().map(|source| slave.sweep_key(source, key));
        match swept {
            Some(Ok(is_foreign)) => foreign += u64::from(is_foreign),
            Some(Err(_)) => unusable += 1,
            None => {}
        }
    })
    .await;
    slave.end_sweep(read.is_ok() && unusable == 0);
    match read {
        Ok(()) if foreign > 0 => {
            tracing::warn!(slave = %slave.name(), keys = foreign, "slave has keys that its primary has not: they are deleted there");
        }
        Ok(()) => {}
        Err(error) => {
            tracing::warn!(slave = %slave.name(), "slave may keep keys that its primary has not: {error}");
        }
    }
}

/// What was said of a copy.
#[derive(Default)]
struct Progress {
    copying: bool,
    tenths: u64,
}

impl Progress {
    /// Says how far a copy is, in tenths, and when it is done.
    fn say(&mut self, slave: &Slave, store: &Process) {
        match slave.standing() {
            Standing::Copying { done, total } => {
                let tenths = done * 10 / total.max(1);
                if !self.copying || tenths > self.tenths {
                    tracing::info!(store = ?store, slave = %slave.name(), "copying to slave: {done} of {total}");
                }
                *self = Self { copying: true, tenths };
            }
            Standing::InStep { .. } if self.copying => {
                tracing::info!(store = ?store, slave = %slave.name(), "slave is up to date");
                *self = Self::default();
            }
            _ => {}
        }
    }
}

impl Node {
    /// Hands what waits for a slave to the connection to its node, as far as that has room, and asks the slave what it
    /// has where that is due.
    pub(super) fn replicate(&self, slave: &Arc<Slave>, store: &Arc<Process>) {
        let SlaveState::Following(at) = slave.state() else { return };
        let Some(peer) = self.peers.get(at.node()) else { return };
        let bytes_max = self.config.limits.outbound_bytes_max;
        let acknowledge = peer.leave(|outbox| {
            if outbox.frames.len() >= bytes_max {
                feed_later(&mut outbox.hungry, slave, store);
                return Acknowledge::No;
            }
            let frames = &mut outbox.frames;
            let send = |at: &RemoteProcess, message: &[u8]| {
                frames.send_to(&store.pid, at, |w| _ = w.raw(message));
                frames.len() < bytes_max
            };
            let taken = slave.take(now(), |traits| can_decode(peer.offered, traits), send);
            if let Acknowledge::Now(mark) = taken.acknowledge {
                // Before anything else can be written behind the writes that it is about.
                self.ask(slave, mark, store, &at, &peer, frames);
            }
            if taken.more {
                feed_later(&mut outbox.hungry, slave, store);
            }
            taken.acknowledge
        });
        if acknowledge == Acknowledge::Later {
            slave.changed();
        }
    }

    /// Asks a slave what it has: for a key that nobody has, as the answer counts and not what it is.
    fn ask(
        &self,
        slave: &Arc<Slave>,
        mark: Mark,
        store: &Process,
        at: &RemoteProcess,
        peer: &PeerHandle,
        frames: &mut Outbound,
    ) {
        let reference = self.registry.new_reference();
        let asked = Arc::clone(slave);
        self.waiters.expect_reply(&reference, &peer.name, move |outcome| {
            if matches!(outcome, Outcome::Replied(_)) {
                asked.acknowledged(mark);
            }
        });
        frames.send_to(&store.pid, at, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&store.pid);
            if peer.offered.contains(DistributionFlags::ALIAS) {
                w.list(1).atom("alias");
            }
            w.reference(&reference).tuple(2).atom("get").reference(&reference);
        });
        slave.asked(mark, reference);
    }
}

fn feed_later(hungry: &mut Vec<(Arc<Slave>, Arc<Process>)>, slave: &Arc<Slave>, store: &Arc<Process>) {
    if !hungry.iter().any(|(known, _)| Arc::ptr_eq(known, slave)) {
        hungry.push((Arc::clone(slave), Arc::clone(store)));
    }
}

/// The monitor of a slave. It is taken back when it is dropped, which happens before it fires when its store ends.
struct Monitor<'a> {
    node: &'a Node,
    peer: &'a PeerHandle,
    slave: &'a Slave,
    from: &'a Pid,
    to: &'a Pid,
    reference: Reference,
    fired: bool,
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        self.node.waiters.cancel(&self.reference);
        if let Some(asked) = self.slave.gone() {
            self.node.waiters.cancel(&asked);
        }
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
