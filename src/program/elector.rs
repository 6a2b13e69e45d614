//! Which of several stores is the primary, elected by etcd: carried out. What is to be done when says [`Succession`]; here are its lease, its keys and
//! its connections, and what the store's server is told.
//!
//! A task for each store's process, which ends with that. It waits on etcd without blocking a thread of the node.

mod at_etcd;

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol::channel::Receiver;

use super::candidacy::{self, CHANGES_MAX, Candidates, Hands, next, now};
use crate::ProcessHandle;
use crate::distribution::{RemoteProcess, ServerRef};
use crate::elect::Life;
use crate::elect::succession::{
    Config, Event, Holds, Input, Leader, Output, Role, Slave, Succession, Transacted, View,
};
use crate::etcd::Etcd;
use crate::etf::{OwnedTerm, Pid};
use crate::kv::slaves::SLAVES_MAX;
use crate::kv::{ElectionFigures, ElectionNews, ElectionState, KeyValueServer};
use crate::log::Once;
use crate::node::{FormerHolder, HeldNames, Watch};
use crate::replica::downstream::Level;
use crate::replica::{KnownSlave, SlaveName};
use crate::store::Store;

/// So often a primary looks how its slaves stand: it knows as soon then which of them count, and that its lease was renewed.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A slave that is removed again and again is followed again so often.
const FOLLOW_AGAIN_EVERY: Duration = Duration::from_secs(5);
/// How long the store's process may take to promote itself.
const PROMOTE_MAX: Duration = Duration::from_secs(5);
/// How long names stay where another is about to register them for itself.
const PATIENCE: Duration = Duration::from_millis(500);

/// A store whose primary is elected, with all that it has in common on one node.
pub struct Elected {
    /// The client of etcd.
    pub etcd: Etcd,
    /// What its keys begin with.
    pub base: Vec<u8>,
    /// Its global names, which the primary has.
    pub names: Vec<String>,
    /// The name that it has on each node, by which it is the slave of others.
    pub local: String,
    /// The slaves that it was configured with, which take no part.
    pub slaves: Vec<SlaveName>,
    /// How many slaves have a write before it is confirmed.
    pub confirm: u32,
    /// An election does not wait for those that may have a confirmed write.
    pub is_lossy: bool,
    /// Told when the node ends.
    pub candidates: Arc<Candidates>,
}

/// What an elector alone is told.
enum More {
    /// The store's process has promoted itself, or has not.
    Promoted { question: u64, former: Vec<Life>, others: Vec<Pid>, result: Result<(), String> },
    /// News of the store's server.
    News(ElectionNews),
    /// A process that wants the store to be the primary by force has ended.
    Gone(Pid),
}

type Came = candidacy::Came<Input, More>;

impl Elected {
    /// Has a process of the store take part, as long as it lives.
    pub fn stand<S: Store>(self: &Arc<Self>, process: &ProcessHandle, server: Arc<KeyValueServer<S>>) {
        let names = match process.held_names(self.names.iter().map(String::as_str)) {
            Ok(names) => names,
            // It has ended.
            Err(error) => {
                return tracing::debug!(store = ?process, %error, "it takes no part in the election");
            }
        };
        let (came, coming) = smol::channel::unbounded();
        let (tell, told) = smol::channel::bounded(CHANGES_MAX);
        let (alive, ended) = smol::channel::bounded(1);
        self.candidates.add(&came, ended, process.node());
        let news = came.clone();
        // Closed: it has ended.
        server.on_election_news(Box::new(move |told| _ = news.try_send(Came::More(More::News(told)))));
        let config = Config {
            me: process.pid().clone(),
            confirm: self.confirm,
            is_lossy: self.is_lossy,
            founds: server.may_found(),
        };
        let shell = Shell {
            elected: Arc::clone(self),
            machine: Succession::new(config, now()),
            hands: Hands::new(self.etcd.clone(), process.clone(), came, alive),
            server,
            names,
            look_at: None,
            forcing: Vec::new(),
            without_room: Vec::new(),
            followed_again: Once::new(SLAVES_MAX).every(FOLLOW_AGAIN_EVERY),
            revisions: at_etcd::Revisions::new(),
            fence: 0,
            elections: 0,
        };
        let (etcd, base) = (self.etcd.clone(), self.base.clone());
        process.spawn(at_etcd::watch(etcd, base, Arc::clone(&shell.revisions), tell));
        process.spawn(shell.run(coming, told));
    }

    /// The name by which the store is a slave where it is on this node.
    fn slave_at(&self, node: &str) -> SlaveName {
        SlaveName::remote(&self.local, node)
    }
}

struct Shell<S> {
    elected: Arc<Elected>,
    machine: Succession,
    hands: Hands<Input, More>,
    server: Arc<KeyValueServer<S>>,
    names: HeldNames,
    /// When it is looked how the slaves stand; `None`: the store is not the primary.
    look_at: Option<Instant>,
    /// Callers that want the store to be the primary by force, which are watched until they are answered.
    forcing: Vec<Watch>,
    /// Slaves for which there was no room.
    without_room: Vec<KnownSlave>,
    /// Those that were removed, and are its slaves again.
    followed_again: Once<SlaveName>,
    /// Of the answers of etcd.
    revisions: Arc<at_etcd::Revisions>,
    /// The last fence that was shown.
    fence: u64,
    elections: u64,
}

impl<S: Store> Shell<S> {
    async fn run(mut self, coming: Receiver<Came>, told: Receiver<Input>) {
        loop {
            self.carry_all_out();
            if self.machine.is_over() {
                return;
            }
            let due = [self.machine.poll_timeout(), self.look_at].into_iter().flatten().min();
            let came = next(&coming, &told, due).await;
            if let Some(lease) = self.hands.refresh_lease() {
                self.machine.handle(lease, now());
            }
            match came {
                Came::Input(input) => self.machine.handle(input, now()),
                Came::NotDone { input, error } => {
                    self.hands.not_done(&error);
                    self.machine.handle(input, now());
                }
                Came::Lease { question, lease } => {
                    let granted = self.hands.leased(question, lease);
                    self.machine.handle(granted, now());
                }
                Came::More(more) => self.told(more),
            }
            if self.look_at.is_some_and(|at| at <= now()) {
                self.look_at_slaves();
            }
        }
    }

    /// Does what the machine wants, and has the server know how long it is the primary.
    fn carry_all_out(&mut self) {
        // Before the names are given up, and behind their registration.
        let leads_until = self.machine.leads_until();
        self.names.hold_until(leads_until);
        if leads_until.is_none() {
            self.server.lead_until(None);
        }
        while let Some(output) = self.machine.poll_output() {
            self.carry_out(output);
        }
        let leads_until = self.machine.leads_until();
        self.names.hold_until(leads_until);
        self.server.lead_until(leads_until);
        if leads_until.is_some() {
            self.forcing.clear();
        }
        let role = self.show();
        // One that leaves waits for its slaves to have everything.
        match (matches!(role, Role::Primary | Role::Leaving), self.look_at) {
            (true, None) => self.look_at = Some(now()),
            (false, Some(_)) => self.look_at = None,
            _ => {}
        }
    }

    fn told(&mut self, more: More) {
        match more {
            More::Promoted { question, former, others, result } => {
                let is_done = result.is_ok();
                if let Err(why) = result {
                    tracing::error!(store = ?self.hands.process, why, "elected, and not promoted");
                }
                self.machine.handle(Input::Led { question, is_done }, now());
                // Its lease may have ended meanwhile.
                if self.machine.leads_until().is_some() {
                    self.lead(former, &others);
                }
            }
            More::News(ElectionNews::Follows { fence }) => self.machine.handle(Input::Fence(fence), now()),
            More::News(ElectionNews::Forced { caller }) => {
                self.machine.handle(Input::Force, now());
                self.watch_forcing(caller);
            }
            More::Gone(caller) => {
                if !self.server.forget_forcing(&caller) {
                    tracing::info!(store = ?self.hands.process, "not made the primary by force any more: the caller has ended");
                    self.machine.handle(Input::ForceWithdrawn, now());
                }
            }
        }
    }

    /// A caller's wish ends with the caller.
    fn watch_forcing(&mut self, caller: Pid) {
        let (client, came) =
            (self.hands.process.node().client_of(self.hands.process.pid()), self.hands.came.clone());
        let at = RemoteProcess::Pid(caller.clone());
        // Closed: the task has ended.
        let gone = move |_| _ = came.try_send(Came::More(More::Gone(caller)));
        match client.monitor_with(at, gone) {
            Ok(watch) => self.forcing.push(watch),
            Err(error) => {
                tracing::debug!(store = ?self.hands.process, %error, "a caller of a forced promotion is not monitored");
            }
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Lease { question } => self.hands.ask_for_lease(question),
            Output::Transact(transaction) => {
                let (etcd, base) = (self.hands.etcd.clone(), self.elected.base.clone());
                let revisions = Arc::clone(&self.revisions);
                self.hands.spawn(async move {
                    let question = transaction.question;
                    let answer = at_etcd::transact(&etcd, &base, &revisions, transaction).await;
                    let (answer, error) = match answer {
                        Ok(answer) => (answer, None),
                        Err(error) if error.is_refusal() => (Transacted::Refused, Some(error)),
                        Err(error) => (Transacted::Failed, Some(error)),
                    };
                    Some(Came::of(Input::Transacted { question, answer }, error))
                });
            }
            Output::Seal { question, floor } => {
                let (server, me) = (Arc::clone(&self.server), self.hands.process.pid().clone());
                // A write of the primary may wait for the disk meanwhile.
                self.hands.spawn(smol::unblock(move || {
                    let (holds, term) =
                        server.seal(floor, &me, |upstream| (Holds::of(upstream), upstream.durable().term));
                    Some(Came::Input(Input::Sealed { question, holds, term }))
                }));
            }
            Output::Lead { question, fence, former, others } => self.promote(question, fence, former, others),
            Output::Follow(pid) => self.follow([&pid]),
            Output::Count(nodes) => {
                self.server.count_only(nodes.iter().map(|node| self.elected.slave_at(node)));
                self.look_at_slaves();
            }
            Output::StepDown { to } => {
                self.server.lead_until(None);
                self.server.count_only([]);
                let patience = if to.is_some() { PATIENCE } else { Duration::ZERO };
                let given_up = self.names.give_up(patience);
                self.hands.spawn(async move {
                    given_up.await;
                    None
                });
                // One that leaves waits for those that are to have everything.
                self.look_at_slaves();
            }
            Output::NotForced(why) => {
                tracing::warn!(store = ?self.hands.process, "not made the primary by force: {why}");
                self.server.not_forced(why.code());
                self.forcing.clear();
            }
            Output::LedBy(leader) => self.server.held_by(leader.map(|leader| leader.pid)),
            Output::Dial { question, node } => self.hands.dial(question, node),
            Output::Revoke => self.hands.revoke_lease(),
            Output::Log(event) => log(&event, &self.hands.process),
            Output::End => {}
        }
    }

    /// The store's process promotes itself: that takes its turn among what it is asked.
    fn promote(&self, question: u64, fence: u64, former: Vec<Life>, others: Vec<Pid>) {
        // Whose acknowledgements counted in an earlier term is of no matter in this one.
        self.server.count_only([]);
        self.server.choose(fence);
        let process = self.hands.process.clone();
        self.hands.spawn(async move {
            let result = promote(&process).await;
            Some(Came::More(More::Promoted { question, former, others, result }))
        });
    }

    /// The store is promoted: it gets the names, and all others are its slaves.
    fn lead(&mut self, former: Vec<Life>, others: &[Pid]) {
        self.names.hold_until(self.machine.leads_until());
        let former = former.into_iter().map(|Life { node, creation }| FormerHolder { node, creation });
        if let Err(error) = self.names.take(former) {
            tracing::error!(store = ?self.hands.process, %error, "the store's global names are not taken");
        }
        let configured = self.elected.slaves.iter().cloned();
        let configured = configured.map(|name| KnownSlave { name, node: None });
        self.without_room.clear();
        self.follow_all(configured.collect());
        self.follow(others);
    }

    fn follow<'a>(&mut self, others: impl IntoIterator<Item = &'a Pid>) {
        let me = self.hands.process.pid();
        let others = others.into_iter().filter(|other| other.node != me.node);
        let slaves = others.map(|other| KnownSlave {
            name: self.elected.slave_at(&other.node),
            node: Some(Arc::clone(&other.node)),
        });
        self.follow_all(slaves.collect());
    }

    fn follow_all(&mut self, slaves: Vec<KnownSlave>) {
        let without_room = self.make_slaves(slaves);
        for slave in &without_room {
            let name = &slave.name;
            tracing::error!(store = ?self.hands.process, slave = %name, "too many slaves: it is added when another one is gone");
        }
        self.without_room.extend(without_room);
    }

    /// Gives those for which there is no room.
    fn make_slaves(&self, slaves: Vec<KnownSlave>) -> Vec<KnownSlave> {
        let is_configured = |name: &SlaveName| self.elected.slaves.contains(name);
        let gone = |name: &SlaveName| match name {
            SlaveName::Remote { node, .. } => {
                *name == self.elected.slave_at(node) && !is_configured(name) && !self.machine.is_there(node)
            }
            _ => false,
        };
        self.server.follow_elected(slaves, gone, self.hands.process.pid())
    }

    fn look_at_slaves(&mut self) {
        if !self.without_room.is_empty() && self.machine.leads().is_some() {
            let mut waiting = std::mem::take(&mut self.without_room);
            waiting.retain(|slave| slave.node.as_ref().is_none_or(|node| self.machine.is_there(node)));
            self.without_room = self.make_slaves(waiting);
        }
        self.follow_removed();
        self.look_at = self.look_at.map(|_| now() + LOOK_EVERY);
        let (seq, slaves) = self.server.elected_slaves();
        let slave = |slave: crate::kv::ElectedSlave| match &slave.name {
            SlaveName::Remote { node, .. } if slave.name == self.elected.slave_at(node) => Some(Slave {
                node: Arc::clone(node),
                confirmed: slave.confirmed,
                is_in_step: slave.is_in_step,
            }),
            _ => None,
        };
        let slaves = slaves.into_iter().filter_map(slave).collect();
        self.machine.handle(Input::Slaves { seq, slaves }, now());
    }

    /// A slave that a caller has removed takes part in the election all the same, and its copy is to be as good as others'.
    fn follow_removed(&mut self) {
        if self.machine.leads().is_none() {
            return;
        }
        let me = Arc::clone(&self.hands.process.pid().node);
        let mut removed = self.machine.followed().to_vec();
        removed.retain(|pid| {
            let name = self.elected.slave_at(&pid.node);
            let waits = self.without_room.iter().any(|slave| slave.name == name);
            pid.node != me
                && !waits
                && !self.server.has_slave(&name)
                && self.followed_again.due(name, now()).is_some()
        });
        if !removed.is_empty() {
            tracing::warn!(store = ?self.hands.process, slaves = ?removed, "these take part in the election, and are its slaves again");
            self.follow(&removed);
        }
    }

    fn show(&mut self) -> Role {
        let View { role, fence, leader, members, missing, round, .. } = self.machine.view();
        if fence != self.fence {
            self.elections += u64::from(self.fence > 0);
            self.fence = fence;
        }
        self.server.show_election(ElectionFigures {
            state: state_of(role),
            fence,
            primary: leader.map(|Leader { pid, .. }| pid.node),
            round: round.map(|(counted, needed)| (counted as u64, needed as u64)),
            since: 0,
            counted: members,
            missing,
            elections: self.elections,
        });
        role
    }
}

const fn state_of(role: Role) -> ElectionState {
    match role {
        Role::Starting => ElectionState::Waiting,
        Role::Slave => ElectionState::Slave,
        Role::Choosing => ElectionState::Electing,
        Role::Promoting => ElectionState::Promoting,
        Role::Primary => ElectionState::Primary,
        Role::Leaving => ElectionState::Leaving,
    }
}

/// Writes an event into the log.
fn log(event: &Event, store: &ProcessHandle) {
    match event.level() {
        Level::Error => tracing::error!(?store, "{event}"),
        Level::Warn => tracing::warn!(?store, "{event}"),
        Level::Info => tracing::info!(?store, "{event}"),
        Level::Debug => tracing::debug!(?store, "{event}"),
    }
}

async fn promote(process: &ProcessHandle) -> Result<(), String> {
    let client = process.node().client_of(process.pid());
    let request = OwnedTerm::write(|w| _ = w.tuple(1).atom("promote")).map_err(|error| error.to_string())?;
    let answer = client.call_term(&ServerRef::Pid(process.pid().clone()), request.view(), PROMOTE_MAX).await;
    let answer = answer.map_err(|error| error.to_string())?;
    let view = answer.view();
    let is_ok = view.is_atom("ok") || view.as_tuple::<2>().is_some_and(|[ok, _]| ok.is_atom("ok"));
    // It is promoted, and forgets that where it is started again before the disk has room.
    let is_unkept = view
        .as_tuple::<2>()
        .is_some_and(|[_, why]| why.as_tuple::<2>().is_some_and(|[word, _]| word.is_atom("not_kept")));
    if is_ok || is_unkept { Ok(()) } else { Err(format!("{view:?}")) }
}
