//! The global names of a store that several processes serve: which of them has the names, carried out. What is to be done when says
//! [`Candidate`]; here are its lease, its key and its connections.
//!
//! A task for each store's process, which ends with that. It waits on etcd without blocking a thread of the node.

mod at_etcd;
mod compaction;
mod compactor;

use std::sync::Arc;
use std::time::Duration;

use smol::Timer;
use smol::channel::{Receiver, Sender};

#[cfg(feature = "cli")]
pub(crate) use compaction::Compacted;
use compactor::Compactor;

use super::candidacy::{self, CHANGES_MAX, Candidates, Hands, next, now};
use crate::ProcessHandle;
use crate::elect::{Campaigned, Candidate, Input, Life, Output};
use crate::etcd::Etcd;
use crate::kv::KeyValueServer;
use crate::node::{FormerHolder, HeldNames};
use crate::replica::{KnownSlave, SlaveName};
use crate::store::{EtcdStore, StoreError};
use crate::within::until;

/// The slaves that the holder before had are read again after this, where they could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// For so long a new holder reads carefully: the holder before may have taken a write when the name was its own, and has 4 s to answer it.
const CAREFUL: Duration = Duration::from_secs(5);

/// A store that several processes serve, with all that its candidates have in common on one node.
pub struct Held {
    /// The client of its etcd.
    pub etcd: Etcd,
    /// Its global names.
    pub names: Vec<String>,
    /// The slaves that it was configured with.
    pub slaves: Vec<SlaveName>,
    /// How long the holder keeps etcd's history; `None`: it compacts nothing.
    pub compact: Option<Duration>,
    /// Told when the node ends.
    pub candidates: Arc<Candidates>,
}

/// What a candidate alone is told.
enum More {
    /// The slaves, read for the holder of this number.
    Slaves { holding: u64, slaves: Result<Vec<KnownSlave>, StoreError> },
    /// They are to be read again.
    ReadAgain { holding: u64 },
    /// Whatever the holder before has taken is answered.
    Settled { holding: u64 },
}

type Came = candidacy::Came<Input, More>;

impl Held {
    /// Has a process of the store stand as a candidate for the names, as long as it lives.
    pub fn stand(self: &Arc<Self>, process: &ProcessHandle, server: Arc<KeyValueServer<EtcdStore>>) {
        let names = match process.held_names(self.names.iter().map(String::as_str)) {
            Ok(names) => names,
            // It has ended.
            Err(error) => return tracing::debug!(store = ?process, %error, "no candidate for its names"),
        };
        let (came, coming) = smol::channel::unbounded();
        let (tell, told) = smol::channel::bounded(CHANGES_MAX);
        let (alive, ended) = smol::channel::bounded(1);
        self.candidates.add(&came, ended, process.node());
        // An earlier process of the store may have begun to.
        server.store().read_carefully(false);
        let keys = at_etcd::Keys::of(server.store());
        let shell = Shell {
            held: Arc::clone(self),
            machine: Candidate::new(process.pid().clone(), now()),
            hands: Hands::new(self.etcd.clone(), process.clone(), came, alive),
            server,
            names,
            compacts: None,
            holding: 0,
        };
        process.spawn(at_etcd::watch(self.etcd.clone(), keys, tell));
        process.spawn(shell.run(coming, told));
    }
}

struct Shell {
    held: Arc<Held>,
    machine: Candidate,
    hands: Hands<Input, More>,
    server: Arc<KeyValueServer<EtcdStore>>,
    names: HeldNames,
    /// Dropped, etcd is not compacted any more.
    compacts: Option<Sender<()>>,
    /// How often it has begun to hold.
    holding: u64,
}

impl Shell {
    async fn run(mut self, coming: Receiver<Came>, told: Receiver<Input>) {
        loop {
            self.names.hold_until(self.machine.holds_until());
            while let Some(output) = self.machine.poll_output() {
                self.carry_out(output);
            }
            if self.machine.is_over() {
                return;
            }
            let came = next(&coming, &told, self.machine.poll_timeout()).await;
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
        }
    }

    fn told(&mut self, more: More) {
        match more {
            More::Slaves { holding, slaves } if holding == self.holding && self.machine.holds() => {
                self.hold(holding, slaves);
            }
            More::ReadAgain { holding } if holding == self.holding && self.machine.holds() => {
                self.read_slaves();
            }
            More::Settled { holding } if holding == self.holding => {
                self.server.store().read_carefully(false);
            }
            More::Slaves { .. } | More::ReadAgain { .. } | More::Settled { .. } => {}
        }
    }

    fn carry_out(&mut self, output: Output) {
        let (etcd, store) = (self.held.etcd.clone(), self.server.store());
        match output {
            Output::Lease { question } => self.hands.ask_for_lease(question),
            Output::Campaign(campaign) => {
                let (keys, me) = (at_etcd::Keys::of(store), self.hands.process.pid().clone());
                self.hands.spawn(async move {
                    let question = campaign.question;
                    let (answer, error) = match at_etcd::campaign(&etcd, &keys, campaign, &me).await {
                        Ok(answer) => (answer, None),
                        Err(error) => (Campaigned::Failed, Some(error)),
                    };
                    Some(Came::of(Input::Campaigned { question, answer }, error))
                });
            }
            Output::CatchUp { question } => {
                let came = self.hands.came.clone();
                store.catch_up(Box::new(move |result| {
                    let is_done = result.is_ok();
                    let _ = came.try_send(Came::Input(Input::CaughtUp { question, is_done }));
                }));
            }
            Output::Hold { former } => {
                tracing::info!(store = ?self.hands.process, "the store's global names are this node's from now on");
                self.holding += 1;
                // A caller that the holder before has answered a moment ago reads here next. Where no other has held there is none.
                if !former.is_empty() {
                    store.read_carefully(true);
                    let holding = self.holding;
                    self.hands.spawn(async move {
                        Timer::after(CAREFUL).await;
                        Some(Came::More(More::Settled { holding }))
                    });
                }
                if let Err(error) = self.names.take(former.into_iter().map(former_holder)) {
                    tracing::error!(store = ?self.hands.process, %error, "the store's global names are not taken");
                }
                self.read_slaves();
                self.compact();
            }
            Output::GiveUp { question, to, is_lease_over, patience } => {
                self.compacts = None;
                match &to {
                    Some(to) => {
                        tracing::warn!(store = ?self.hands.process, ?to, "another node has the store's global names now")
                    }
                    None if is_lease_over => tracing::warn!(
                        store = ?self.hands.process,
                        "etcd does not renew the lease: the store's global names are given up until it does"
                    ),
                    None => tracing::warn!(
                        store = ?self.hands.process,
                        "the key of the store's holder is gone from etcd: its global names are given up until one has it again"
                    ),
                }
                let given_up = self.names.give_up(patience);
                self.server.stop_holding(to);
                self.hands.spawn(async move {
                    given_up.await;
                    Some(Came::Input(Input::GivenUp { question }))
                });
            }
            Output::HeldBy(holder) => self.server.held_by(holder),
            Output::Namesake(other) => tracing::error!(
                store = ?self.hands.process, ?other,
                "another node with this node's name lives, and serves the store too: end one of them, as each stands in the other's way"
            ),
            Output::Dial { question, node } => self.hands.dial(question, node),
            Output::Revoke => self.hands.revoke_lease(),
            Output::End => {}
        }
    }

    /// Begins to compact etcd's history.
    fn compact(&mut self) {
        let Some(keep) = self.held.compact else { return };
        let (hold, over) = smol::channel::bounded::<()>(1);
        self.compacts = Some(hold);
        let compactor = Compactor {
            etcd: self.hands.etcd.clone(),
            server: Arc::clone(&self.server),
            node: Arc::clone(&self.hands.process.pid().node),
            keep,
        };
        // Nothing is ever sent.
        self.hands.process.spawn(async move { _ = until(over.recv(), compactor.run()).await });
    }

    fn read_slaves(&self) {
        let (holding, came) = (self.holding, self.hands.came.clone());
        self.server.read_slaves(move |slaves| {
            let _ = came.try_send(Came::More(More::Slaves { holding, slaves }));
        });
    }

    fn hold(&self, holding: u64, slaves: Result<Vec<KnownSlave>, StoreError>) {
        match slaves {
            Ok(slaves) => self.server.hold(self.hands.process.pid(), &self.held.slaves, slaves),
            Err(error) => {
                tracing::error!(store = ?self.hands.process, %error, "the slaves of the store cannot be read; they are read again");
                self.hands.spawn(async move {
                    Timer::after(READ_AGAIN).await;
                    Some(Came::More(More::ReadAgain { holding }))
                });
            }
        }
    }
}

/// The node of the holder, by the value that names it in etcd; `None`: it is not understood.
#[cfg(feature = "cli")]
pub(crate) fn holder_of(value: &[u8]) -> Option<String> {
    crate::elect::keys::read_holder(value).map(|pid| pid.node.to_string())
}

fn former_holder(Life { node, creation }: Life) -> FormerHolder {
    FormerHolder { node, creation }
}
