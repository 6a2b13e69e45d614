//! The program: stores on a node, with their page, their log, and what a service manager is told.
//!
//! It is one more user of the library: everything that it starts, it starts by what [`Node`] makes public. [`Program`]
//! is the stores of a [`Config`] on a node, for other programs too; [`run()`] is the `kvnode` program's own way, with the
//! signals that end it.

#[cfg(feature = "etcd")]
pub mod candidacy;
pub mod config;
#[cfg(feature = "etcd")]
pub mod elector;
mod error;
#[cfg(feature = "etcd")]
pub mod holder;
#[cfg(feature = "http")]
pub mod http;
#[cfg_attr(not(feature = "etcd"), path = "without_etcd.rs")]
mod in_etcd;
#[cfg(feature = "cli")]
pub mod log;
#[cfg(all(feature = "disk", feature = "etcd"))]
pub mod moving;
#[cfg_attr(not(feature = "disk"), path = "without_disk.rs")]
mod on_disk;
#[cfg(feature = "cli")]
mod run;
#[cfg(feature = "cli")]
mod service;
#[cfg(any(feature = "cli", feature = "http"))]
pub(crate) mod shown;
pub mod snapshot;
pub(crate) mod status;

use std::sync::{Arc, OnceLock};

use smol::channel::{Receiver, Sender};

#[cfg(all(feature = "cli", feature = "disk"))]
pub(crate) use crate::kv::serve::name_kept;
pub use crate::kv::{Consistency, SlaveWrites};
pub use config::{Config, DataConfig, ElectConfig, EtcdConfig, EtcdUser, NotAtEtcd, NotElected, StoreConfig};
pub use error::StartError;
#[cfg(feature = "cli")]
pub use run::{Started, run};
pub use snapshot::Snapshot;
pub use status::STATUS_NAME;

use crate::config::ServerName;
use crate::etf::Pid;
use crate::kv::figures::StoreWatch;
use crate::kv::serve::serve_standing;
use crate::kv::{
    ConfirmConfig, Downstreams, ElectionState, KeyValueFunctions, NotServed, Replication, ServedStore,
};
use crate::store::{MemoryEngine, Room};
use crate::{Node, NotNamed};
use in_etcd::{Electing, InEtcd};
use on_disk::OnDisk;

/// A node with its stores.
///
/// The node runs until [`Node::stop`]; this is what shows how the stores are.
pub struct Program {
    node: Arc<Node>,
    /// What all stores in memory may hold together, and what they hold.
    room: Arc<Room>,
    stored_bytes_max: u64,
    stores: Vec<Arc<Store>>,
    etcd: Option<InEtcd>,
    failed: Receiver<StartError>,
    /// Closed when the stores are loaded.
    loaded: Receiver<()>,
}

/// What is told of stores that are opened after the start. Dropped, it says that there is no more to tell.
struct Tell {
    /// One of them can never be served.
    #[cfg_attr(not(feature = "etcd"), allow(dead_code, reason = "stores in etcd alone are opened then"))]
    failed: Sender<StartError>,
    _loaded: Sender<()>,
}

#[cfg(feature = "etcd")]
impl Tell {
    fn failed(&self, error: StartError) {
        // The program has ended, perhaps: then nobody wants to know.
        let _ = self.failed.try_send(error);
    }
}

/// A store.
struct Store {
    names: StoreConfig,
    /// Empty until its first life begins.
    life: OnceLock<Life>,
}

/// What is known of a store that was started.
struct Life {
    /// Of its first life.
    pid: Pid,
    watch: Arc<StoreWatch>,
}

impl Store {
    /// Its first name, as it is typed after `--store`.
    #[cfg(feature = "etcd")]
    fn name(&self) -> String {
        let StoreConfig { global, local } = &self.names;
        let global = global.first().map(|name| format!("global:{name}"));
        global.or_else(|| local.first().map(|name| format!("local:{name}"))).unwrap_or_default()
    }

    fn started(&self, pid: Pid, watch: Arc<StoreWatch>) {
        // It is started once; later lives are its supervisor's.
        let _ = self.life.set(Life { pid, watch });
    }
}

impl Program {
    /// Starts a node with stores: all can be reached when this is done, but for stores in etcd. These can be reached when they are loaded, which
    /// [`is_ready`](Self::is_ready) tells; an etcd that is away does not keep the node from its start.
    ///
    /// # Errors
    /// The configuration's, the system's, epmd's or the disk's: see [`StartError`].
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let disk =
            config.data.as_ref().map(|data| on_disk::open(data, config.stored_bytes_max)).transpose()?;
        let etcd = config.etcd.as_ref().map(|etcd| in_etcd::connect(etcd, config.ordered)).transpose()?;
        let electing = config.elect.as_ref().map(in_etcd::electing).transpose()?;
        let room = Arc::new(Room::new(config.stored_bytes_max));
        let node = config.node.clone();
        let ((fail, failed), (hold, loaded)) = (smol::channel::bounded(1), smol::channel::bounded(1));
        let (node, stores) = Node::start_with(node, |node| {
            let functions =
                KeyValueFunctions::new(node.dispatch(), Downstreams::on(node), config.slave_buffer_bytes_max);
            node.client().serve(Arc::new(functions.within(Arc::clone(&room))));
            // Before the folder: a primary takes writes until another is one.
            if let Some(electing) = &electing {
                in_etcd::leave_at_end(node, electing);
            }
            if let Some(disk) = &disk {
                on_disk::close_at_end(node, disk);
            }
            let stores: Vec<(Arc<Store>, Replication)> = stores_of(&config).collect();
            let all = stores.iter().map(|(store, _)| Arc::clone(store)).collect();
            match &etcd {
                Some(etcd) => in_etcd::begin(node, etcd, stores, Tell { failed: fail, _loaded: hold })?,
                None => start_stores(node, &config, stores, (disk.as_ref(), electing.as_ref()), &room)?,
            }
            Ok::<Vec<Arc<Store>>, StartError>(all)
        })
        .await?;
        Ok(Arc::new(Self {
            node,
            room,
            stored_bytes_max: config.stored_bytes_max,
            stores,
            etcd,
            failed,
            loaded,
        }))
    }

    /// The node.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its stores, with the pids that they were started with; `None`: it is not loaded yet.
    pub fn stores(&self) -> impl Iterator<Item = (&StoreConfig, Option<&Pid>)> {
        self.stores.iter().map(|store| (&store.names, store.life.get().map(|life| &life.pid)))
    }

    /// Whether all is served: the node [is ready](Node::is_ready), its stores are loaded, and of one whose primary is elected it is known
    /// which that is.
    pub fn is_ready(&self) -> bool {
        self.node.is_ready() && self.is_loaded() && self.has_primary()
    }

    /// Whether the primary of each store is known, where it is elected.
    pub fn has_primary(&self) -> bool {
        let elections = self.stores.iter().filter_map(|store| store.life.get()?.watch.server()?.election());
        let mut states = elections.map(|election| election.state);
        states.all(|state| matches!(state, ElectionState::Primary | ElectionState::Slave))
    }

    /// Whether its stores are loaded. Stores in memory and on disk are from the start on.
    pub fn is_loaded(&self) -> bool {
        self.stores.iter().all(|store| store.life.get().is_some())
    }

    /// Waits until its stores are loaded, or it is known that one never will be ([`failed`](Self::failed)), or the node ends.
    pub async fn loaded(&self) {
        // Nothing is ever sent: only the closing of the channel ends the wait.
        while self.loaded.recv().await.is_ok() {}
    }

    /// Waits until it is known that a store can never be served, for instance as etcd refuses the user: why. The node goes on. It never comes where
    /// all stores are served, and comes once.
    pub async fn failed(&self) -> StartError {
        match self.failed.recv().await {
            Ok(error) => error,
            Err(_) => std::future::pending().await,
        }
    }
}

/// The stores that are to be started, and how each is replicated.
fn stores_of(config: &Config) -> impl Iterator<Item = (Arc<Store>, Replication)> {
    config.stores.iter().enumerate().map(|(number, names)| {
        let slaves = if number == 0 { config.slave_names() } else { Vec::new() };
        let confirm = if number == 0 { config.confirm } else { 0 };
        let replication = Replication {
            slaves,
            slave_buffer_bytes_max: config.slave_buffer_bytes_max,
            confirm: ConfirmConfig { slaves: confirm, timeout: config.confirm_timeout },
            slave_writes: config.slave_writes,
            reads: config.etcd.as_ref().map_or(Consistency::Session, |etcd| etcd.reads),
        };
        (Arc::new(Store { names: names.clone(), life: OnceLock::new() }), replication)
    })
}

fn start_stores(
    node: &Node,
    config: &Config,
    stores: Vec<(Arc<Store>, Replication)>,
    (disk, electing): (Option<&OnDisk>, Option<&Electing>),
    room: &Arc<Room>,
) -> Result<(), StartError> {
    for (number, (store, replication)) in stores.into_iter().enumerate() {
        // As slaves are: of the first store.
        let electing = electing.filter(|_| number == 0);
        let process = match disk {
            Some(disk) => on_disk::start(node, &store.names, replication, disk, electing),
            None => {
                let memory = MemoryEngine::within(Arc::clone(room)).ordered(config.ordered);
                let stand = electing.map(|electing| in_etcd::stand(electing, &store.names, &replication));
                serve_standing(node, store.names.server_names(), replication, Arc::new(memory), stand)
            }
        };
        let ServedStore { process, figures } = process.map_err(|error| match error {
            NotServed::Name(error) => taken(error),
            NotServed::Open(error) => StartError::Data(error),
            NotServed::Slaves(error) => StartError::Store(error),
        })?;
        store.started(process.pid().clone(), figures);
    }
    if let Some(disk) = disk {
        on_disk::say_unserved(disk, &config.stores);
    }
    Ok(())
}

fn taken(NotNamed { name, .. }: NotNamed) -> StartError {
    let (ServerName::Global(name) | ServerName::Local(name)) = name;
    StartError::DuplicateName(name)
}

/// The clock, for all of the program.
#[cfg(any(feature = "cli", feature = "http"))]
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place where the program reads the monotonic clock"
)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
