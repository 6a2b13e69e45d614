//! Slaves, followed: found by name, watched by a monitor, found again when they are gone.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;
use smol::future::FutureExt;

use super::greeting::{Greeted, GreetingUnderWay, NotGreeted};
use crate::config::Limits;
use crate::distribution::control::op;
use crate::distribution::{Outbound, RemoteProcess};
use crate::etf::{OwnedTerm, Pid, Reference, TermView, encode};
use crate::node::life::functions::since_epoch;
use crate::node::link::setup::DialError;
use crate::node::peers::PeerHandle;
use crate::node::peers::backoff::Backoff;
use crate::node::peers::erpc::ErpcError;
use crate::node::{Node, now, slave_keys, slave_kind};
use crate::process::effect::can_decode;
use crate::process::{Outcome, Process, SlaveAdded};
use crate::replica::{Acknowledge, Dialect, Mark, Refusal, Slave, SlaveName, SlaveState, Source, Standing};

/// How long one node may take to say where a name is.
const WHEREIS_LIMIT: Duration = Duration::from_secs(5);
/// A slave that was followed for so long was really there.
const STEADY: Duration = Duration::from_secs(1);
/// A slave that was there once is looked for at least so often: when its node is back, so is it soon after.
const KNOWN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A slave that is about to have a slave itself is greeted again after so long, and about as much again by chance.
const CROSSING_PAUSE_MILLIS: u32 = 10;
/// How often it is looked whether a slave's name has gone to another process, while the one that had it is there.
const NAME_PAUSE: Duration = Duration::from_secs(2);
/// How far a copy is, is said once in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// Whoever adds a slave is answered after so long, found or not.
const ADDED_LIMIT: Duration = Duration::from_secs(1);

/// Why a slave is not followed now.
enum Missing {
    /// Nobody has its name.
    Nobody,
    /// Its node is not reached.
    Unreached(Arc<DialError>),
    /// Its node cannot say who has the name.
    NotSaid(ErpcError),
    /// Nobody knows how it is to be spoken to.
    NotGreeted(NotGreeted),
    /// It is there, and does not become a slave of this store.
    Refused(Refusal),
    /// It is there, and a server of another kind, with this module.
    Foreign(String),
}

impl Missing {
    const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused(refusal) => Some(*refusal),
            Self::Foreign(_) => Some(Refusal::Foreign),
            _ => None,
        }
    }
}

/// How the following of a slave that was found has ended.
enum Left {
    /// It was removed, or given up.
    Dropped,
    /// It is to be greeted anew.
    Renewed,
    /// Its name has gone to another process.
    Moved,
    /// It ended, or its node is lost.
    Gone(Outcome),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody has that name"),
            Self::Unreached(error) => error.fmt(f),
            Self::NotSaid(error) => write!(f, "its node does not say who has that name: {error}"),
            Self::NotGreeted(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Foreign(module) => write!(f, "{} (its module: {module})", Refusal::Foreign),
        }
    }
}

/// Who had a slave added, and waits for the answer.
pub(super) struct Added(Mutex<Option<SlaveAdded>>);

impl Added {
    /// Tells, and gives whether anybody waited.
    fn settle(&self, refusal: Option<Refusal>) -> bool {
        let Some(SlaveAdded(done)) = self.0.lock().take() else { return false };
        done(refusal);
        true
    }
}

/// Follows a slave of a store until it is removed or the store ends, which ends this task. `added` is answered once it is
/// known whether it is one.
pub(super) async fn follow(
    node: Arc<Node>,
    slave: Arc<Slave>,
    store: Arc<Process>,
    added: Option<SlaveAdded>,
) {
    let added = Added(Mutex::new(added));
    let follow = async {
        follow_on(&node, &slave, &store, &added).await;
        added.settle(None);
    };
    let answer = async {
        Timer::after(ADDED_LIMIT).await;
        added.settle(None);
        smol::future::pending().await
    };
    follow.or(answer).await;
}

async fn follow_on(node: &Arc<Node>, slave: &Arc<Slave>, store: &Arc<Process>, added: &Added) {
    let limits = &node.config.limits;
    let mut backoff = Backoff::new(limits);
    let known_max = limits.backoff_max.min(KNOWN_PAUSE_MAX);
    let mut known_backoff = Backoff::new(&Limits { backoff_max: known_max, ..limits.clone() });
    let mut said = String::new();
    // What is known to be no store stays none.
    let mut foreign = None;
    // Where it was watched last.
    let mut watched = None;
    while store.is_alive() && slave.state() != SlaveState::Dropped {
        // A node that comes up may have the name, or know who has it.
        let arrival = node.peers.arrival();
        match find(node, slave.name()).await {
            Ok(at) if node.registry.by_owned_pid(&at).is_some_and(|process| process.is_sibling(store)) => {
                tracing::error!(store = ?store, slave = %slave.name(), "{}: dropped", Refusal::Itself);
                slave.drop_out();
                note_dropped(store);
                added.settle(Some(Refusal::Itself));
                return;
            }
            Ok(at) if foreign.as_ref() == Some(&at) => {}
            Ok(at) => {
                let since = now();
                watched = Some(at.clone());
                let left = watch(node, slave, store, at.clone(), added).await;
                if matches!(slave.name(), SlaveName::Pid(_))
                    && matches!(left, Ok(Left::Gone(Outcome::Down(_) | Outcome::TooLarge(_))))
                {
                    tracing::warn!(store = ?store, slave = %slave.name(), "slave dropped: a pid does not come back");
                    return slave.drop_out();
                }
                if since.elapsed() >= STEADY {
                    backoff.reset();
                    known_backoff.reset();
                    said.clear();
                }
                match left {
                    Ok(Left::Renewed | Left::Moved) => continue,
                    Ok(Left::Dropped | Left::Gone(_)) => {}
                    Err(Missing::Refused(refusal)) if refusal.is_final() => {
                        tracing::error!(store = ?store, slave = %slave.name(), "slave dropped: {refusal}");
                        slave.refused(refusal);
                        added.settle(Some(refusal));
                        return note_dropped(store);
                    }
                    Err(missing) => {
                        if let Some(refusal) = missing.refusal() {
                            let is_foreign = refusal == Refusal::Foreign;
                            if added.settle(Some(refusal))
                                || is_foreign && matches!(slave.name(), SlaveName::Pid(_))
                            {
                                // Who was told that it is none does not have it; and a pid is never anything else.
                                tracing::warn!(store = ?store, slave = %slave.name(), "slave dropped: {missing}");
                                slave.drop_out();
                                return note_dropped(store);
                            }
                            slave.refused(refusal);
                            foreign = is_foreign.then_some(at);
                        }
                        say(&mut said, store, slave, &missing);
                    }
                }
            }
            Err(missing) => say(&mut said, store, slave, &missing),
        }
        added.settle(None);
        slave.note_time(unix_ms());
        match slave.standing() {
            Standing::Gone { .. } => known_backoff.pause_or(arrival.come()).await,
            _ => backoff.pause_or(arrival.come()).await,
        }
    }
    // It may have been removed between two watches, or have taken a greeting whose answer nobody waited for any more.
    if let Some(at) = watched
        && !is_followed(store, slave, &at)
        && let Some(peer) = node.peers.get(&at.node)
    {
        bye(&peer, slave, &store.pid, &at);
    }
}

/// The time that people read, in milliseconds since 1970.
fn unix_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Says why a slave is missing, once.
fn say(said: &mut String, store: &Process, slave: &Slave, missing: &Missing) {
    let text = missing.to_string();
    slave.failed(&text);
    if *said != text {
        match missing {
            Missing::Refused(Refusal::NotEmpty) => {
                tracing::error!(store = ?store, slave = %slave.name(), "slave not taken: {text}");
            }
            Missing::Refused(_) => {
                tracing::warn!(store = ?store, slave = %slave.name(), "slave refuses, asking again: {text}");
            }
            _ => {
                tracing::warn!(store = ?store, slave = %slave.name(), "slave not found, looking for it: {text}")
            }
        }
        *said = text;
    }
}

/// Follows it until it is gone, and gives how it went.
async fn watch(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    at: Pid,
    added: &Added,
) -> Result<Left, Missing> {
    let peer = node.connect(&at.node).await.map_err(Missing::Unreached)?;
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
        Monitor { node, peer: &peer, slave, store, from: &store.pid, to: &at, reference, fired: false };
    let still_up = node.peers.get(&peer.name).is_some_and(|up| Arc::ptr_eq(&up, &peer));
    let gone = async { Ok(Left::Gone(told.recv().await.unwrap_or(Outcome::NoConnection))) };
    let tended = async {
        if let Some(left) = found(node, slave, store, &peer, &at).await? {
            return Ok(left);
        }
        added.settle(None);
        tracing::info!(store = ?store, slave = %slave.name(), node = %peer.name, "slave found");
        Ok(tend(node, slave, store, &peer, &at).await)
    };
    let moved = async {
        moved(node, slave.name(), &at).await;
        Ok(Left::Moved)
    };
    let followed = gone.or(tended).or(moved);
    let left = if still_up { followed.await } else { Ok(Left::Gone(Outcome::NoConnection)) };
    monitor.fired = matches!(left, Ok(Left::Gone(_)));
    if matches!(left, Err(Missing::Refused(refusal)) if refusal.is_final()) {
        // It may have been one until now.
        bye(&peer, slave, &store.pid, &at);
    }
    let left = left?;
    // One that is followed under another name goes on being a slave.
    if matches!(left, Left::Dropped | Left::Moved) && !is_followed(store, slave, &at) {
        bye(&peer, slave, &store.pid, &at);
    }
    drop(monitor);
    let reason = match &left {
        Left::Renewed => return Ok(left),
        Left::Moved => {
            tracing::warn!(store = ?store, slave = %slave.name(), "the slave's name has gone to another process: following that");
            return Ok(left);
        }
        Left::Dropped => {
            tracing::info!(store = ?store, slave = %slave.name(), "slave no longer followed");
            return Ok(left);
        }
        Left::Gone(Outcome::Down(reason) | Outcome::Refused(reason)) => {
            TermView::parse(reason).map_or_else(|error| error.to_string(), |reason| format!("{reason:?}"))
        }
        Left::Gone(Outcome::TooLarge(size)) => size.to_string(),
        Left::Gone(Outcome::Replied(_) | Outcome::NoConnection) => ":noconnection".into(),
    };
    tracing::warn!(store = ?store, slave = %slave.name(), reason, "slave lost; looking for it");
    Ok(left)
}

/// Held while it is settled whose process one is: it may have been found by several names at once.
static SETTLING: Mutex<()> = Mutex::new(());

/// Greets a slave that was found, until it takes the greeting: writes are then queued for it. Gives how it ended before it
/// began.
async fn found(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    peer: &Arc<PeerHandle>,
    at: &Pid,
) -> Result<Option<Left>, Missing> {
    loop {
        if slave.state() == SlaveState::Dropped {
            return Ok(Some(Left::Dropped));
        }
        // One that goes on being followed is not greeted again: it would begin anew. One that does not is told nothing
        // until it has this greeting: it is a slave all the time.
        if other_at(store, slave, at, None).is_some_and(|other| !outlives(slave, &other))
            && is_another(store, slave, at, None)
        {
            return Ok(Some(Left::Dropped));
        }
        let under_way = GreetingUnderWay::of(store);
        match node.greet(slave, store, peer, at).await.map_err(Missing::NotGreeted)? {
            Greeted::Refused(Refusal::Crossing) => {
                drop(under_way);
                let pause = CROSSING_PAUSE_MILLIS + super::random_u32() % CROSSING_PAUSE_MILLIS;
                super::after(Duration::from_millis(pause.into())).await;
            }
            Greeted::Refused(refusal) => return Err(Missing::Refused(refusal)),
            Greeted::Elixir if is_orphan(store) => return Err(Missing::Refused(Refusal::Superseded)),
            Greeted::Elixir => {
                let asks = peer.name != node.registry.node;
                let foreign = async { slave_kind::foreign_module(node, peer, at).await };
                let foreign = if asks { foreign.await } else { Ok(None) };
                let foreign = foreign.map_err(|error| Missing::NotGreeted(NotGreeted::Erpc(error)))?;
                if let Some(module) = foreign {
                    return Err(Missing::Foreign(module));
                }
                let _settling = SETTLING.lock();
                if is_another(store, slave, at, None) {
                    return Ok(Some(Left::Dropped));
                }
                slave.found(RemoteProcess::Pid(at.clone()));
                is_no_other(store, slave, at, None);
                return Ok(None);
            }
            Greeted::Kvnode { session, lineage, said } => {
                let _settling = SETTLING.lock();
                if is_another(store, slave, at, Some(said.incarnation)) {
                    return Ok(Some(Left::Dropped));
                }
                slave.found_kvnode(RemoteProcess::Pid(at.clone()), session, lineage.incarnation(), said);
                is_no_other(store, slave, at, Some(said.incarnation));
                drop(under_way);
                // What has changed since is told, as nobody knew yet that this slave was to be told of it.
                let now = store.server.replica_source().and_then(Source::lineage);
                return Ok((now.as_ref() != Some(&lineage)).then_some(Left::Renewed));
            }
        }
    }
}

/// Whether a store may lack what a primary has that does not follow it now: nothing goes on from it then. A kvnode's store
/// would say so itself.
fn is_orphan(store: &Process) -> bool {
    store.server.replica_source().and_then(Source::lineage).is_some_and(|lineage| lineage.is_orphan())
}

/// Waits until a name has gone to another process than this one. Where nodes say of it differently, as they do until a
/// split is healed, it has not.
async fn moved(node: &Node, name: &SlaveName, at: &Pid) {
    loop {
        super::after(NAME_PAUSE).await;
        let holders = match name {
            SlaveName::Pid(_) => return smol::future::pending().await,
            SlaveName::Global(name) => node.global_holders(name, WHEREIS_LIMIT).await,
            SlaveName::Remote { .. } | SlaveName::Local(_) => find(node, name).await.into_iter().collect(),
        };
        if !holders.is_empty() && !holders.contains(at) {
            return;
        }
    }
}

/// Whether any other slave of the store is this process.
fn is_followed(store: &Process, slave: &Arc<Slave>, at: &Pid) -> bool {
    let at = RemoteProcess::Pid(at.clone());
    let slaves = store.server.replica_source().map_or_else(Vec::new, Source::slaves);
    slaves.iter().any(|other| !Arc::ptr_eq(other, slave) && other.is_at(&at, None))
}

/// Has the store forget a slave that it does not have, where it keeps their names.
fn note_dropped(store: &Process) {
    if let Some(source) = store.server.replica_source() {
        source.slave_dropped();
    }
}

/// Whether the process is followed under another name: then it is one slave, by the name that outlives a process.
fn is_another(store: &Process, slave: &Arc<Slave>, at: &Pid, incarnation: Option<u64>) -> bool {
    let Some(other) = other_at(store, slave, at, incarnation) else { return false };
    let keep_this = outlives(slave, &other);
    let (kept, dropped) = if keep_this { (slave, &other) } else { (&other, slave) };
    tracing::info!(store = ?store, slave = %dropped.name(), "slave dropped: it is {} already", kept.name());
    dropped.drop_out();
    if !keep_this && incarnation.is_some() {
        // It has taken the greeting of the one that is dropped.
        kept.take_over(dropped);
    }
    !keep_this
}

/// Whoever was this process before, under another name, is it no more.
fn is_no_other(store: &Process, slave: &Arc<Slave>, at: &Pid, incarnation: Option<u64>) {
    let at = RemoteProcess::Pid(at.clone());
    let slaves = store.server.replica_source().map_or_else(Vec::new, Source::slaves);
    for other in slaves.iter().filter(|other| !Arc::ptr_eq(other, slave)) {
        other.forget(&at, incarnation);
    }
}

/// The slave that is followed at the same process.
fn other_at(store: &Process, slave: &Arc<Slave>, at: &Pid, incarnation: Option<u64>) -> Option<Arc<Slave>> {
    let at = RemoteProcess::Pid(at.clone());
    let slaves = store.server.replica_source().map_or_else(Vec::new, Source::slaves);
    slaves.into_iter().find(|other| !Arc::ptr_eq(other, slave) && other.is_at(&at, incarnation))
}

/// Whether a slave is named by a name, and another by its pid.
fn outlives(slave: &Slave, other: &Slave) -> bool {
    matches!(other.name(), SlaveName::Pid(_)) && !matches!(slave.name(), SlaveName::Pid(_))
}

/// Repairs it, and asks for what it has, until it is removed or is to be greeted anew.
async fn tend(
    node: &Arc<Node>,
    slave: &Arc<Slave>,
    store: &Arc<Process>,
    peer: &Arc<PeerHandle>,
    at: &Pid,
) -> Left {
    let (poke, poked) = smol::channel::bounded(1);
    slave.on_change(Box::new(move || {
        // One that is there already says the same.
        let _full = poke.try_send(());
    }));
    let mut progress = Progress::default();
    while slave.state() != SlaveState::Dropped {
        if slave.is_renewed() {
            return Left::Renewed;
        }
        if slave.take_news() {
            tell_of_siblings(node, slave, store, peer, at);
        }
        if slave.catch_up(now()) {
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
        slave.note_time(unix_ms());
        if slave.take_stepped_down()
            && let Some(source) = store.server.replica_source()
        {
            copy_to_others(slave, source);
        }
        if progress.say(slave, store)
            && store.server.replica_source().and_then(Source::lineage).is_some_and(|lineage| lineage.term > 0)
        {
            // A former primary gives its names up when it becomes a slave.
            node.names.check_now();
        }
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
    Left::Dropped
}

/// A former primary is a slave now. What it had sent last to those slaves that do not tell one primary from another may have
/// come behind what this one has sent: they get everything again.
fn copy_to_others(former: &Arc<Slave>, source: &dyn Source) {
    source.in_order(&mut || {
        for other in source.slaves() {
            if !Arc::ptr_eq(&other, former) && other.dialect() == Dialect::Elixir {
                tracing::info!(slave = %other.name(), "copied to again: a former primary may have written to it late");
                other.copy_all();
            }
        }
    });
}

/// Tells a kvnode of the other slaves.
fn tell_of_siblings(node: &Node, slave: &Slave, store: &Process, peer: &PeerHandle, at: &Pid) {
    let (Dialect::Kvnode { session }, Some(source)) = (slave.dialect(), store.server.replica_source()) else {
        return;
    };
    let slaves = source.slaves();
    peer.leave(|outbox| {
        outbox.frames.send_to(&store.pid, &RemoteProcess::Pid(at.clone()), |w| {
            w.tuple(2).atom("$gen_cast").tuple(3).atom("replica_slaves").unsigned(session).list(slaves.len());
            slaves.iter().for_each(|slave| slave.name().on(&node.registry.node).write(w));
            w.nil();
        });
    });
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
    said: Option<Instant>,
}

impl Progress {
    /// Says how far a copy is, once in a while, and when it is done; gives whether that is now.
    fn say(&mut self, slave: &Slave, store: &Process) -> bool {
        match slave.standing() {
            Standing::Copying { done, total } => {
                self.copying = true;
                if self.said.is_none_or(|said| said.elapsed() >= PROGRESS_PAUSE) {
                    self.said = Some(now());
                    tracing::info!(store = ?store, slave = %slave.name(), "copying to slave: {done} of {total}");
                }
            }
            Standing::Full { .. } => self.copying = true,
            Standing::InStep { .. } if self.copying => {
                tracing::info!(store = ?store, slave = %slave.name(), "slave is up to date");
                *self = Self::default();
                return true;
            }
            _ => {}
        }
        false
    }
}

impl Node {
    /// Hands what waits for a slave to the connection to its node, as far as that has room, and asks the slave what it
    /// has where that is due.
    pub(super) fn replicate(&self, slave: &Arc<Slave>, store: &Arc<Process>) {
        let SlaveState::Following(at) = slave.state() else { return };
        let Some(peer) = self.peers.get(at.node()) else { return };
        let bytes_max = self.config.limits.outbound_bytes_max;
        let mut withheld = false;
        let acknowledge = peer.leave(|outbox| {
            let before = peer.others_bytes(outbox) - outbox.frames.len();
            if peer.others_bytes(outbox) >= bytes_max {
                feed_later(&mut outbox.hungry, slave, store);
                return Acknowledge::No;
            }
            let frames = &mut outbox.frames;
            let send = |at: &RemoteProcess, message: &[u8]| {
                frames.send_to(&store.pid, at, |w| _ = w.raw(message));
                before + frames.len() < bytes_max
            };
            let taken = slave.take(now(), |traits| can_decode(peer.offered, traits), send);
            if let Acknowledge::Now(mark) = taken.acknowledge {
                // Before anything else can be written behind the writes that it is about.
                self.ask(slave, mark, store, &at, &peer, frames);
            }
            if taken.more {
                feed_later(&mut outbox.hungry, slave, store);
            }
            withheld = taken.withheld;
            taken.acknowledge
        });
        if withheld {
            tracing::warn!(
                store = ?store, slave = %slave.name(),
                "slave is not sent what its OTP cannot decode, and keeps what it had of it; :status has how many keys (withheld)"
            );
        }
        if acknowledge == Acknowledge::Later {
            slave.changed();
        }
    }

    /// Asks a slave what it has: a kvnode for the number of the last write, another for a key that nobody has, as the
    /// answer counts then and not what it is.
    fn ask(
        &self,
        slave: &Arc<Slave>,
        mark: Mark,
        store: &Arc<Process>,
        at: &RemoteProcess,
        peer: &PeerHandle,
        frames: &mut Outbound,
    ) {
        let reference = self.registry.new_reference();
        let (asked, primary) = (Arc::clone(slave), Arc::clone(store));
        self.waiters.expect_reply(&reference, &peer.name, move |outcome| {
            let Outcome::Replied(answer) = outcome else { return };
            match if asked.dialect() == Dialect::Elixir { Ok(()) } else { handled(&answer) } {
                Ok(()) => {}
                Err(reason) if reason.is_of_room() => {
                    if asked.not_kept(mark, reason, now()) {
                        tracing::warn!(store = ?primary, slave = %asked.name(), "slave does not keep what it is sent: {reason}");
                        asked.failed(&reason.to_string());
                    }
                    return;
                }
                Err(reason) => {
                    tracing::warn!(store = ?primary, slave = %asked.name(), "slave to be greeted anew: {reason}");
                    asked.refused(reason);
                    return asked.renew();
                }
            }
            asked.acknowledged(mark);
            if let Some(source) = primary.server.replica_source() {
                source.acknowledged();
            }
        });
        let seq = store.server.replica_source().map_or(0, Source::seq);
        frames.send_to(&store.pid, at, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(&store.pid);
            if peer.offered.knows_aliases() {
                w.list(1).atom("alias");
            }
            w.reference(&reference);
            match slave.dialect() {
                Dialect::Elixir => w.tuple(2).atom("get").reference(&reference),
                Dialect::Kvnode { session } => w.tuple(3).atom("replica_ask").unsigned(session).unsigned(seq),
            };
        });
        slave.asked(mark, reference);
    }
}

/// Whether a kvnode answers `{:ok, applied}`; else why not. What is neither is of nobody that was greeted.
fn handled(answer: &OwnedTerm) -> Result<(), Refusal> {
    match answer.view().as_tuple::<2>() {
        Some([ok, applied]) if ok.is_atom("ok") && applied.as_unsigned().is_some() => Ok(()),
        Some([error, reason]) if error.is_atom("error") => {
            Err(Refusal::of_code(reason).unwrap_or(Refusal::OtherSession))
        }
        _ => Err(Refusal::OtherSession),
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
    store: &'a Process,
    from: &'a Pid,
    to: &'a Pid,
    reference: Reference,
    fired: bool,
}

/// A slave that was removed is told, where it knows such a message.
fn bye(peer: &PeerHandle, slave: &Slave, from: &Pid, to: &Pid) {
    for session in slave.sessions() {
        peer.leave(|outbox| {
            outbox.frames.send_to(from, &RemoteProcess::Pid(to.clone()), |w| {
                w.tuple(2).atom("$gen_cast").tuple(2).atom("replica_bye").unsigned(session);
            });
        });
    }
}

impl Drop for Monitor<'_> {
    fn drop(&mut self) {
        self.node.waiters.cancel(&self.reference);
        if let Some(asked) = self.slave.gone() {
            self.node.waiters.cancel(&asked);
        }
        if let Some(source) = self.store.server.replica_source() {
            source.acknowledged();
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
