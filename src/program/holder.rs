//! The global names of a store that several processes serve: which of them has the names, carried out. What is to be done when says
//! [`Candidate`]; here are its lease, its key and its connections.
//!
//! A task for each store's process, which ends with that. It waits on etcd without blocking a thread of the node.

mod at_etcd;
mod compaction;
mod compactor;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

#[cfg(feature = "cli")]
pub(crate) use compaction::Compacted;
use compactor::Compactor;

use crate::elect::{Candidate, Input, Life, Output};
use crate::etcd::{Error, Etcd, Lease};
use crate::kv::KeyValueServer;
use crate::node::{FormerHolder, HeldNames, Resource};
use crate::replica::{KnownSlave, SlaveName};
use crate::store::{EtcdStore, StoreError};
use crate::within::{until, within};
use crate::{Node, ProcessHandle};

/// How long etcd keeps a holder's key that is not renewed: 4 s, of which a third goes by before each renewal. A holder that is
/// stopped or cut off is replaced behind that.
const LEASE: Duration = Duration::from_secs(4);
/// The slaves that the holder before had are read again after this, where they could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);
/// For so long a new holder reads carefully: the holder before may have taken a write when the name was its own, and has 4 s to answer it.
const CAREFUL: Duration = Duration::from_secs(5);
/// How long a node that ends waits for its stores' names to be with others, and for its leases to be revoked.
const LEAVE_MAX: Duration = Duration::from_secs(3);
/// Changes of the keys that wait to be handled, at most: etcd waits with more.
const CHANGES_MAX: usize = 16;

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

/// The candidates of a node. As a [`Resource`] of the node they give their names to others before it ends.
#[derive(Default)]
pub struct Candidates(Mutex<Vec<Known>>);

/// A candidate: how it is told to leave, and a channel that is closed when it has ended.
struct Known {
    came: Sender<Came>,
    ended: Receiver<()>,
    node: Arc<Node>,
}

/// Something that has come for a candidate.
enum Came {
    Input(Input),
    Lease {
        question: u64,
        lease: Result<Lease, Error>,
    },
    /// The slaves, read for the holder of this number.
    Slaves {
        holding: u64,
        slaves: Result<Vec<KnownSlave>, StoreError>,
    },
    /// They are to be read again.
    ReadAgain {
        holding: u64,
    },
    /// Whatever the holder before has taken is answered.
    Settled {
        holding: u64,
    },
}

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
        self.candidates.add(Known { came: came.clone(), ended, node: Arc::clone(process.node()) });
        // An earlier process of the store may have begun to.
        server.store().read_carefully(false);
        let keys = at_etcd::Keys::of(server.store());
        let shell = Shell {
            held: Arc::clone(self),
            machine: Candidate::new(process.pid().clone(), now()),
            process: process.clone(),
            server,
            names,
            came,
            lease: None,
            dialled: None,
            compacts: None,
            holding: 0,
        };
        process.spawn(at_etcd::watch(self.etcd.clone(), keys, tell));
        process.spawn(async move {
            shell.run(coming, told).await;
            drop(alive);
        });
    }
}

impl Candidates {
    fn add(&self, known: Known) {
        let mut candidates = self.0.lock();
        candidates.retain(|known| !known.came.is_closed());
        candidates.push(known);
    }
}

impl Resource for Candidates {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        let candidates = std::mem::take(&mut *self.0.lock());
        let Some(node) = candidates.first().map(|known| Arc::clone(&known.node)) else { return done() };
        for known in &candidates {
            // Closed: it has ended.
            let _ = known.came.try_send(Came::Input(Input::Leave));
        }
        node.spawn(async move {
            let ends = async {
                for known in &candidates {
                    // Nothing is ever sent.
                    let _ = known.ended.recv().await;
                }
            };
            if within(LEAVE_MAX, ends).await.is_none() {
                tracing::warn!("global names were not left to another node in time");
            }
            done();
        });
    }
}

struct Shell {
    held: Arc<Held>,
    machine: Candidate,
    process: ProcessHandle,
    server: Arc<KeyValueServer<EtcdStore>>,
    names: HeldNames,
    came: Sender<Came>,
    lease: Option<Lease>,
    /// Dropped, what was dialled is not watched any more.
    dialled: Option<Sender<()>>,
    /// Dropped, etcd is not compacted any more.
    compacts: Option<Sender<()>>,
    /// How often it has begun to hold.
    holding: u64,
}

impl Shell {
    async fn run(mut self, coming: Receiver<Came>, told: Receiver<Input>) {
        loop {
            while let Some(output) = self.machine.poll_output() {
                self.carry_out(output);
            }
            if self.machine.is_over() {
                return;
            }
            let came = next(&coming, &told, self.machine.poll_timeout()).await;
            self.refresh_lease();
            match came {
                Came::Input(input) => self.machine.handle(input, now()),
                Came::Lease { question, lease } => {
                    if let Err(error) = &lease {
                        tracing::debug!(store = ?self.process, %error, "no lease for the store's names");
                    }
                    self.lease = lease.ok();
                    let granted =
                        self.lease.as_ref().and_then(|lease| Some((lease.id(), lease.held_until()?)));
                    if let Some(lease) = &self.lease {
                        let lost = lease.lost();
                        self.spawn(async move {
                            lost.await;
                            // What has become of it is looked at before each input.
                            Some(Came::Input(Input::Time))
                        });
                    }
                    self.machine.handle(Input::Granted { question, lease: granted }, now());
                }
                Came::Slaves { holding, slaves } if holding == self.holding && self.machine.holds() => {
                    self.hold(holding, slaves);
                }
                Came::ReadAgain { holding } if holding == self.holding && self.machine.holds() => {
                    self.read_slaves();
                }
                Came::Settled { holding } if holding == self.holding => {
                    self.server.store().read_carefully(false);
                }
                Came::Slaves { .. } | Came::ReadAgain { .. } | Came::Settled { .. } => {}
            }
        }
    }

    fn refresh_lease(&mut self) {
        if let Some(lease) = &self.lease {
            let until = lease.held_until();
            if until.is_none() {
                self.lease = None;
            }
            self.machine.handle(Input::LeaseUntil(until), now());
        }
    }

    /// Has something done beside the candidate, which is told what comes of it.
    fn spawn(&self, work: impl Future<Output = Option<Came>> + Send + 'static) {
        let came = self.came.clone();
        self.process.spawn(async move {
            if let Some(what) = work.await {
                // Closed: the candidate has ended.
                let _ = came.try_send(what);
            }
        });
    }

    fn carry_out(&mut self, output: Output) {
        let (etcd, store) = (self.held.etcd.clone(), self.server.store());
        match output {
            Output::Lease { question } => {
                self.lease = None;
                self.spawn(async move { Some(Came::Lease { question, lease: etcd.lease(LEASE).await }) });
            }
            Output::Campaign(campaign) => {
                let (keys, me) = (at_etcd::Keys::of(store), self.process.pid().clone());
                self.spawn(async move {
                    let question = campaign.question;
                    let answer = at_etcd::campaign(&etcd, &keys, campaign, &me).await;
                    Some(Came::Input(Input::Campaigned { question, answer }))
                });
            }
            Output::CatchUp { question } => {
                let came = self.came.clone();
                store.catch_up(Box::new(move |result| {
                    let is_done = result.is_ok();
                    let _ = came.try_send(Came::Input(Input::CaughtUp { question, is_done }));
                }));
            }
            Output::Hold { former } => {
                tracing::info!(store = ?self.process, "the store's global names are this node's from now on");
                self.holding += 1;
                // A caller that the holder before has answered a moment ago reads here next. Where no other has held there is none.
                if !former.is_empty() {
                    store.read_carefully(true);
                    let holding = self.holding;
                    self.spawn(async move {
                        Timer::after(CAREFUL).await;
                        Some(Came::Settled { holding })
                    });
                }
                if let Err(error) = self.names.take(former.into_iter().map(former_holder)) {
                    tracing::error!(store = ?self.process, %error, "the store's global names are not taken");
                }
                self.read_slaves();
                self.compact();
            }
            Output::GiveUp { question, to, patience } => {
                self.compacts = None;
                match &to {
                    Some(to) => {
                        tracing::warn!(store = ?self.process, ?to, "another node has the store's global names now")
                    }
                    None => tracing::warn!(
                        store = ?self.process,
                        "etcd does not renew the lease: the store's global names are given up until it does"
                    ),
                }
                let given_up = self.names.give_up(patience);
                self.server.stop_holding(to);
                self.spawn(async move {
                    given_up.await;
                    Some(Came::Input(Input::GivenUp { question }))
                });
            }
            Output::HeldBy(holder) => self.server.held_by(holder),
            Output::Dial { question, node } => self.dial(question, node),
            Output::Revoke => {
                if let Some(lease) = self.lease.take() {
                    self.spawn(async move {
                        if let Err(error) = lease.revoke().await {
                            tracing::debug!(%error, "the lease of a store's names is not revoked: it ends in its time");
                        }
                        None
                    });
                }
            }
            Output::End => {}
        }
    }

    /// Connects to a node, and tells when the connection has ended.
    fn dial(&mut self, question: u64, node: Arc<str>) {
        let (hold, over) = smol::channel::bounded::<()>(1);
        self.dialled = Some(hold);
        let (dialler, came) = (Arc::clone(self.process.node()), self.came.clone());
        let work = async move {
            match dialler.connect_to_name(&node).await {
                Ok(connected) => {
                    let connected = Input::Connected { question, creation: connected.creation };
                    let _ = came.try_send(Came::Input(connected));
                    dialler.disconnected(&node).await;
                    Input::Disconnected { question }
                }
                Err(error) => {
                    tracing::debug!(%node, %error, "the node that has a store's global names is not connected");
                    Input::NotConnected { question, is_gone: error.is_gone() }
                }
            }
        };
        // Nothing is ever sent.
        self.spawn(async move { until(over.recv(), work).await.map(Came::Input) });
    }

    /// Begins to compact etcd's history.
    fn compact(&mut self) {
        let Some(keep) = self.held.compact else { return };
        let (hold, over) = smol::channel::bounded::<()>(1);
        self.compacts = Some(hold);
        let compactor = Compactor {
            etcd: self.held.etcd.clone(),
            server: Arc::clone(&self.server),
            node: Arc::clone(&self.process.pid().node),
            keep,
        };
        // Nothing is ever sent.
        self.process.spawn(async move { _ = until(over.recv(), compactor.run()).await });
    }

    fn read_slaves(&self) {
        let (holding, came) = (self.holding, self.came.clone());
        self.server.read_slaves(move |slaves| {
            let _ = came.try_send(Came::Slaves { holding, slaves });
        });
    }

    fn hold(&self, holding: u64, slaves: Result<Vec<KnownSlave>, StoreError>) {
        match slaves {
            Ok(slaves) => self.server.hold(self.process.pid(), &self.held.slaves, slaves),
            Err(error) => {
                tracing::error!(store = ?self.process, %error, "the slaves of the store cannot be read; they are read again");
                self.spawn(async move {
                    Timer::after(READ_AGAIN).await;
                    Some(Came::ReadAgain { holding })
                });
            }
        }
    }
}

/// What comes next.
async fn next(coming: &Receiver<Came>, told: &Receiver<Input>, due: Option<Instant>) -> Came {
    let came = async {
        match coming.recv().await {
            Ok(came) => came,
            Err(_) => pending().await,
        }
    };
    let told = async {
        match told.recv().await {
            Ok(input) => Came::Input(input),
            Err(_) => pending().await,
        }
    };
    let late = async {
        match due {
            Some(due) => _ = Timer::at(due).await,
            None => pending().await,
        }
        Came::Input(Input::Time)
    };
    late.or(came).or(told).await
}

/// The node of the holder, by the value that names it in etcd; `None`: it is not understood.
#[cfg(feature = "cli")]
pub(crate) fn holder_of(value: &[u8]) -> Option<String> {
    crate::elect::keys::read_holder(value).map(|pid| pid.node.to_string())
}

fn former_holder(Life { node, creation }: Life) -> FormerHolder {
    FormerHolder { node, creation }
}

impl fmt::Debug for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidates").field("len", &self.0.lock().len()).finish()
    }
}

#[expect(clippy::disallowed_methods, reason = "a lease is held by this clock")]
fn now() -> Instant {
    Instant::now()
}
