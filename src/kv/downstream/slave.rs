//! Slaves, followed: found by name, watched by a monitor, found again when they are gone.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use smol::Timer;
use smol::future::FutureExt;

use super::greeting::{self, Greeted, GreetingUnderWay, NotGreeted};
use super::{ANSWER_LIMIT, chance, keys, kind, now, unix_ms};
use crate::config::Limits;
use crate::distribution::{RemoteProcess, ServerRef};
use crate::etf::{OwnedTerm, Pid, TermView, TermWriter};
use crate::kv::follow::SharedSource;
use crate::kv::ranked::{Ranked, rank};
use crate::kv::{FollowSlave, SlaveAdded, SlaveFeed};
use crate::log::Once;
use crate::node::backoff::Backoff;
use crate::node::erpc::ErpcError;
use crate::node::setup::DialError;
use crate::process::{CallError, Feed};
use crate::replica::{Dialect, Refusal, Slave, SlaveName, SlaveState, Standing};
use crate::within::until;
use crate::{Client, Node, ProcessHandle};

/// A slave that was followed for so long was really there.
const STEADY: Duration = Duration::from_secs(1);
/// A slave that was there once is looked for at least so often: when its node is back, so is it soon after.
const KNOWN_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A slave that is about to have a slave itself is greeted again after so long, and about as much again by chance.
const CROSSING_PAUSE_MILLIS: u32 = 10;
/// How often it is looked whether a slave's name has gone to another process, while its former holder is there.
const NAME_PAUSE: Duration = Duration::from_secs(2);
/// How far a copy is, is said once in this time.
const PROGRESS_PAUSE: Duration = Duration::from_secs(1);
/// The caller that adds a slave is answered after so long, whether the slave was found or not.
const ADDED_LIMIT: Duration = Duration::from_secs(1);

/// Why a slave is not followed now.
enum Missing {
    /// Nobody has its name.
    Nobody,
    /// Its node is not reached.
    Unreached(Arc<DialError>),
    /// Its node cannot say which process has the name.
    NotSaid(ErpcError),
    /// It cannot be watched.
    NotWatched(CallError),
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
    /// It ended with this reason; or its node is lost, which is `noconnection`.
    Gone(OwnedTerm),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("nobody has that name"),
            Self::Unreached(error) => error.fmt(f),
            Self::NotSaid(error) => write!(f, "its node does not say who has that name: {error}"),
            Self::NotWatched(error) => write!(f, "it cannot be monitored: {error}"),
            Self::NotGreeted(error) => error.fmt(f),
            Self::Refused(refusal) => refusal.fmt(f),
            Self::Foreign(module) => write!(f, "{} (its module: {module})", Refusal::Foreign),
        }
    }
}

/// The caller that had a slave added, and waits for the answer.
struct Added(Mutex<Option<SlaveAdded>>);

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
pub(super) async fn follow(store: ProcessHandle, FollowSlave { feed, source, added, .. }: FollowSlave) {
    let added = Added(Mutex::new(added));
    let client = store.node().client_of(store.pid());
    let task = Task { node: store.node(), client, store: &store, slave: feed.slave(), feed: &feed, source };
    let follow = async {
        task.follow_on(&added).await;
        added.settle(None);
    };
    let answer = async {
        Timer::after(ADDED_LIMIT).await;
        added.settle(None);
        smol::future::pending().await
    };
    follow.or(answer).await;
}

/// What follows one slave, and what it has to do that with.
struct Task<'a> {
    node: &'a Arc<Node>,
    /// What it says comes from the store.
    client: Client,
    store: &'a ProcessHandle,
    slave: &'a Arc<Slave>,
    feed: &'a Arc<SlaveFeed>,
    source: SharedSource,
}

/// Held while it is settled whose process one is: it may have been found by several names at once.
static SETTLING: Ranked<rank::Settling, ()> = Ranked::new(());

impl Task<'_> {
    async fn follow_on(&self, added: &Added) {
        let Self { node, store, slave, .. } = self;
        let limits = node.limits();
        let mut backoff = Backoff::new(limits);
        let known_max = limits.backoff_max.min(KNOWN_PAUSE_MAX);
        let mut known_backoff = Backoff::new(&Limits { backoff_max: known_max, ..limits.clone() });
        let mut said = Once::when_changed();
        // What is known to be no store stays none.
        let mut foreign = None;
        // Where it was watched last.
        let mut watched = None;
        while store.is_alive() && slave.state() != SlaveState::Dropped {
            // A node that comes up may have the name, or know who has it.
            let arrival = node.arrival();
            match self.find(slave.name()).await {
                Ok(at) if store.has_pid(&at) => {
                    tracing::error!(store = ?store, slave = %slave.name(), "{}: dropped", Refusal::Itself);
                    slave.drop_out();
                    self.source.slave_dropped();
                    added.settle(Some(Refusal::Itself));
                    return;
                }
                Ok(at) if foreign.as_ref() == Some(&at) => {}
                Ok(at) => {
                    let since = now();
                    watched = Some(at.clone());
                    let left = self.watch(at.clone(), added).await;
                    if matches!(slave.name(), SlaveName::Pid(_))
                        && matches!(&left, Ok(Left::Gone(reason)) if !is_no_connection(reason))
                    {
                        tracing::warn!(store = ?store, slave = %slave.name(), "slave dropped: a pid does not come back");
                        return slave.drop_out();
                    }
                    if since.elapsed() >= STEADY {
                        backoff.reset();
                        known_backoff.reset();
                        said.forget_all();
                    }
                    match left {
                        Ok(Left::Renewed | Left::Moved) => continue,
                        Ok(Left::Dropped | Left::Gone(_)) => {}
                        Err(Missing::Refused(refusal)) if refusal.is_final() => {
                            tracing::error!(store = ?store, slave = %slave.name(), "slave dropped: {refusal}");
                            slave.refused(refusal);
                            added.settle(Some(refusal));
                            return self.source.slave_dropped();
                        }
                        Err(missing) => {
                            if let Some(refusal) = missing.refusal() {
                                let is_foreign = refusal == Refusal::Foreign;
                                if added.settle(Some(refusal))
                                    || is_foreign && matches!(slave.name(), SlaveName::Pid(_))
                                {
                                    // The caller was told that this is no slave, and expects none; and a pid never becomes another process.
                                    tracing::warn!(store = ?store, slave = %slave.name(), "slave dropped: {missing}");
                                    slave.drop_out();
                                    return self.source.slave_dropped();
                                }
                                slave.refused(refusal);
                                foreign = is_foreign.then_some(at);
                            }
                            self.say(&mut said, &missing);
                        }
                    }
                }
                Err(missing) => self.say(&mut said, &missing),
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
            && !self.is_followed(&at)
        {
            self.bye(&at).await;
        }
    }

    /// Says why a slave is missing, once.
    fn say(&self, said: &mut Once<String>, missing: &Missing) {
        let (store, slave) = (self.store, self.slave.name());
        let text = missing.to_string();
        self.slave.failed(&text);
        if said.first(text.clone()) {
            match missing {
                Missing::Refused(Refusal::NotEmpty) => {
                    tracing::error!(store = ?store, %slave, "slave not taken: {text}");
                }
                Missing::Refused(_) => {
                    tracing::warn!(store = ?store, %slave, "slave refuses, asking again: {text}");
                }
                _ => tracing::warn!(store = ?store, %slave, "slave not found, looking for it: {text}"),
            }
        }
    }

    /// Follows it until it is gone, and gives how it went.
    async fn watch(&self, at: Pid, added: &Added) -> Result<Left, Missing> {
        let Self { store, slave, .. } = self;
        self.node.connect_to_name(&at.node).await.map_err(Missing::Unreached)?;
        let mut monitor =
            self.client.monitor(&ServerRef::Pid(at.clone())).await.map_err(Missing::NotWatched)?;
        // Dropped before the monitor is taken back, whatever ends this.
        let watched = Watched { feed: self.feed, source: &self.source };
        let gone = async { Ok(Left::Gone(monitor.ended().await)) };
        let tended = async {
            if let Some(left) = self.found(&at).await? {
                return Ok(left);
            }
            added.settle(None);
            tracing::info!(store = ?store, slave = %slave.name(), node = %at.node, "slave found");
            Ok(self.tend(&at).await)
        };
        let moved = async {
            self.moved(&at).await;
            Ok(Left::Moved)
        };
        let left = gone.or(tended).or(moved).await;
        if matches!(left, Err(Missing::Refused(refusal)) if refusal.is_final()) {
            // It may have been one until now.
            self.bye(&at).await;
        }
        let left = left?;
        // If another entry follows the same process, that stays a slave.
        if matches!(left, Left::Dropped | Left::Moved) && !self.is_followed(&at) {
            self.bye(&at).await;
        }
        drop((watched, monitor));
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
            Left::Gone(reason) => format!("{:?}", reason.view()),
        };
        tracing::warn!(store = ?store, slave = %slave.name(), reason, "slave lost; looking for it");
        Ok(left)
    }

    /// Greets a slave that was found, until it takes the greeting: writes are then queued for it. Gives how it ended before
    /// it began.
    async fn found(&self, at: &Pid) -> Result<Option<Left>, Missing> {
        let slave = self.slave;
        loop {
            if slave.state() == SlaveState::Dropped {
                return Ok(Some(Left::Dropped));
            }
            // If another entry already replicates to this process, that session is kept: greeting again would restart it.
            // Where only the greeting's answer tells which entry stays, the process is told nothing before: it is a slave all the time.
            if self.other_at(at, None).is_some_and(|other| !outlives(slave, &other))
                && self.merge_duplicate(at, None)
            {
                return Ok(Some(Left::Dropped));
            }
            let under_way = GreetingUnderWay::of(&self.source);
            let greeted = greeting::greet(slave, &self.source, self.store, &self.client, at).await;
            match greeted.map_err(Missing::NotGreeted)? {
                Greeted::Refused(Refusal::Crossing) => {
                    drop(under_way);
                    let pause = CROSSING_PAUSE_MILLIS + chance(CROSSING_PAUSE_MILLIS);
                    Timer::after(Duration::from_millis(pause.into())).await;
                }
                Greeted::Refused(refusal) => return Err(Missing::Refused(refusal)),
                Greeted::Elixir if self.is_orphan() => return Err(Missing::Refused(Refusal::Superseded)),
                Greeted::Elixir => {
                    let asks = *at.node != *self.node.name().as_str();
                    let foreign = async { kind::foreign_module(self.node, &self.client, at).await };
                    let foreign = if asks { foreign.await } else { Ok(None) };
                    let foreign = foreign.map_err(|error| Missing::NotGreeted(NotGreeted::Erpc(error)))?;
                    if let Some(module) = foreign {
                        return Err(Missing::Foreign(module));
                    }
                    let _settling = SETTLING.lock();
                    if self.merge_duplicate(at, None) {
                        return Ok(Some(Left::Dropped));
                    }
                    slave.found(RemoteProcess::Pid(at.clone()));
                    self.forget_previous_names(at, None);
                    return Ok(None);
                }
                Greeted::Kvnode { session, lineage, said } => {
                    let _settling = SETTLING.lock();
                    if self.merge_duplicate(at, Some(said.incarnation)) {
                        return Ok(Some(Left::Dropped));
                    }
                    slave.found_kvnode(RemoteProcess::Pid(at.clone()), session, lineage.incarnation(), said);
                    self.forget_previous_names(at, Some(said.incarnation));
                    drop(under_way);
                    // What has changed since is told, as nobody knew yet that this slave was to be told of it.
                    let now = self.source.lineage();
                    return Ok((now.as_ref() != Some(&lineage)).then_some(Left::Renewed));
                }
            }
        }
    }

    /// Whether the store may lack what a primary has that does not follow it now: nothing goes on from it then. A kvnode's
    /// store would say so itself.
    fn is_orphan(&self) -> bool {
        self.source.lineage().is_some_and(|lineage| lineage.is_orphan())
    }

    /// Waits until the slave's name has gone to another process than this one. Where nodes say of it differently, as they do
    /// until a split is healed, it has not.
    async fn moved(&self, at: &Pid) {
        loop {
            Timer::after(NAME_PAUSE).await;
            let holders = match self.slave.name() {
                SlaveName::Pid(_) => return smol::future::pending().await,
                SlaveName::Global(name) => match TermView::parse(name) {
                    Ok(name) => self.client.global_holders(name, ANSWER_LIMIT).await,
                    Err(_) => Vec::new(),
                },
                name @ (SlaveName::Remote { .. } | SlaveName::Local(_)) => {
                    self.find(name).await.into_iter().collect()
                }
            };
            if !holders.is_empty() && !holders.contains(at) {
                return;
            }
        }
    }

    /// Where a slave is now: the pid that has its name. Writes wait until that is known, so that none goes to a name
    /// that nobody has yet.
    async fn find(&self, name: &SlaveName) -> Result<Pid, Missing> {
        let own = self.node.name().as_str();
        let found = match name {
            SlaveName::Pid(pid) => Some(pid.clone()),
            SlaveName::Remote { name, node } if **node != *own => {
                self.node.connect_to_name(node).await.map_err(Missing::Unreached)?;
                self.client.whereis_at(node, name, ANSWER_LIMIT).await.map_err(Missing::NotSaid)?
            }
            SlaveName::Remote { name, .. } | SlaveName::Local(name) => self.node.whereis_local(name),
            SlaveName::Global(name) => match TermView::parse(name) {
                Ok(name) => self.client.whereis_global(name, ANSWER_LIMIT).await,
                Err(_) => None,
            },
        };
        found.ok_or(Missing::Nobody)
    }

    /// Whether any other slave of the store is this process.
    fn is_followed(&self, at: &Pid) -> bool {
        self.other_at(at, None).is_some()
    }

    /// Where the process is followed under another name, it is one slave, by the name that outlives a process: the other is
    /// dropped. Gives whether this one is.
    fn merge_duplicate(&self, at: &Pid, incarnation: Option<u64>) -> bool {
        let Some(other) = self.other_at(at, incarnation) else { return false };
        let keep_this = outlives(self.slave, &other);
        let (kept, dropped) = if keep_this { (self.slave, &other) } else { (&other, self.slave) };
        tracing::info!(store = ?self.store, slave = %dropped.name(), "slave dropped: it is {} already", kept.name());
        dropped.drop_out();
        if !keep_this && incarnation.is_some() {
            // The process has taken the greeting of the dropped entry.
            kept.take_over(dropped);
        }
        !keep_this
    }

    /// A slave that was this process before, under another name, is it no more.
    fn forget_previous_names(&self, at: &Pid, incarnation: Option<u64>) {
        let at = RemoteProcess::Pid(at.clone());
        for other in self.source.slaves().iter().filter(|other| !Arc::ptr_eq(other, self.slave)) {
            other.forget(&at, incarnation);
        }
    }

    /// The other slave that is followed at the same process.
    fn other_at(&self, at: &Pid, incarnation: Option<u64>) -> Option<Arc<Slave>> {
        let at = RemoteProcess::Pid(at.clone());
        let mut slaves = self.source.slaves().into_iter();
        slaves.find(|other| !Arc::ptr_eq(other, self.slave) && other.is_at(&at, incarnation))
    }

    /// Repairs it, and asks for what it has, until it is removed or is to be greeted anew.
    async fn tend(&self, at: &Pid) -> Left {
        let Self { store, slave, source, .. } = self;
        let dispatch = self.node.dispatch();
        let feed = Arc::clone(self.feed) as Arc<dyn Feed>;
        let (poke, poked) = smol::channel::bounded(1);
        slave.on_change(Box::new(move || {
            // A poke that waits already says the same.
            let _full = poke.try_send(());
        }));
        let mut progress = Progress::default();
        while slave.state() != SlaveState::Dropped {
            if slave.is_renewed() {
                return Left::Renewed;
            }
            if slave.take_news() {
                self.tell_of_siblings(at).await;
            }
            if slave.catch_up(now()) {
                tracing::info!(store = ?store, slave = %slave.name(), "slave takes writes again");
            }
            if slave.begin_sweep() {
                self.sweep(at).await;
            }
            let repairing = repair(slave, source);
            dispatch.feed(&at.node, &feed);
            if self.feed.take_withheld() {
                tracing::warn!(
                    store = ?store, slave = %slave.name(),
                    "slave is not sent what its OTP cannot decode, and keeps what it had of it; :status has how many keys (withheld)"
                );
            }
            slave.note_time(unix_ms());
            if slave.take_stepped_down() {
                copy_to_others(slave, source);
            }
            if progress.say(slave, store) && source.lineage().is_some_and(|lineage| lineage.term > 0) {
                // A former primary gives its names up when it becomes a slave.
                self.node.check_global_names();
            }
            if repairing && slave.has_room() {
                // Others of this thread have their turn: a copy takes long.
                smol::future::yield_now().await;
                continue;
            }
            match slave.acknowledge_due() {
                None => _ = poked.recv().await,
                Some(due) => _ = until(Timer::at(due), poked.recv()).await,
            }
        }
        Left::Dropped
    }

    /// Tells a kvnode of the other slaves.
    async fn tell_of_siblings(&self, at: &Pid) {
        let Dialect::Kvnode { session } = self.slave.dialect() else { return };
        let slaves = self.source.slaves();
        let own = self.node.name().shared();
        self.tell(at, |w| {
            w.tuple(3).atom("replica_slaves").unsigned(session).list(slaves.len());
            slaves.iter().for_each(|slave| slave.name().on(&own).write(w));
            w.nil();
        })
        .await;
    }

    /// A slave that was removed is told, where it knows such a message and its node is connected.
    async fn bye(&self, at: &Pid) {
        for session in self.slave.sessions() {
            if self.node.is_connected(&at.node) {
                self.tell(at, |w| _ = w.tuple(2).atom("replica_bye").unsigned(session)).await;
            }
        }
    }

    async fn tell(&self, at: &Pid, cast: impl FnOnce(&mut TermWriter<'_>)) {
        if let Err(error) = self.client.cast(&ServerRef::Pid(at.clone()), cast).await {
            tracing::debug!(slave = %self.slave.name(), %error, "slave not told");
        }
    }

    /// Finds the keys that the slave has and the store does not, so that they are deleted there.
    async fn sweep(&self, at: &Pid) {
        let slave = self.slave;
        let mut foreign = 0_u64;
        let mut unusable = 0_u64;
        let read = keys::read(self.node, &self.client, at, |key| match slave.sweep_key(&*self.source, key) {
            Ok(is_foreign) => foreign += u64::from(is_foreign),
            Err(_) => unusable += 1,
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
}

/// A slave that is watched: dropped, however that ends, it is gone.
struct Watched<'a> {
    feed: &'a SlaveFeed,
    source: &'a SharedSource,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.feed.gone();
        self.source.acknowledged();
    }
}

/// Whether a monitor has fired since its node is lost.
fn is_no_connection(reason: &OwnedTerm) -> bool {
    reason.view().is_atom("noconnection")
}

/// Whether a slave is named by a name, and another by its pid.
fn outlives(slave: &Slave, other: &Slave) -> bool {
    matches!(other.name(), SlaveName::Pid(_)) && !matches!(slave.name(), SlaveName::Pid(_))
}

/// A former primary is a slave now. What it had sent last to those slaves that do not tell one primary from another may have
/// come behind what this one has sent: they get everything again.
fn copy_to_others(former: &Arc<Slave>, source: &SharedSource) {
    // Before the order, as a write takes them: a thread that adds a slave may wait between the two.
    let slaves = source.slaves();
    source.in_order(&mut || {
        for other in &slaves {
            if !Arc::ptr_eq(other, former) && other.dialect() == Dialect::Elixir {
                tracing::info!(slave = %other.name(), "copied to again: a former primary may have written to it late");
                other.copy_all();
            }
        }
    });
}

/// A step of a repair; gives whether there is more of it.
fn repair(slave: &Slave, source: &SharedSource) -> bool {
    let repairing = slave.scan(&**source);
    if repairing {
        slave.refill(&**source);
    }
    repairing
}

/// What was said of a copy.
struct Progress {
    copying: bool,
    said: Once<()>,
}

impl Default for Progress {
    fn default() -> Self {
        Self { copying: false, said: Once::new(1).every(PROGRESS_PAUSE) }
    }
}

impl Progress {
    /// Says how far a copy is, once in a while, and when it is done; gives whether that is now.
    fn say(&mut self, slave: &Slave, store: &ProcessHandle) -> bool {
        match slave.standing() {
            Standing::Copying { done, total } => {
                self.copying = true;
                if self.said.due((), now()).is_some() {
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
