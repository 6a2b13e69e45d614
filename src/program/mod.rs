//! The program: stores on a node, with their page, their log, and what a service manager is told.
//!
//! It is one more user of the library: everything that it starts, it starts by what [`Node`] makes public. [`Program`]
//! is the stores of a [`Config`] on a node, for other programs too; [`run`] is the `kvnode` program's own way, with the
//! signals that end it.

pub mod config;
mod error;
#[cfg(feature = "http")]
pub mod http;
#[cfg(feature = "cli")]
pub mod log;
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
mod stores;

use std::sync::Arc;

pub use crate::kv::SlaveWrites;
pub use config::{Config, DataConfig, StoreConfig};
pub use error::StartError;
#[cfg(feature = "cli")]
pub use run::{Started, run};
pub use snapshot::Snapshot;
pub use status::STATUS_NAME;

use crate::config::ServerName;
use crate::etf::Pid;
use crate::kv::figures::StoreWatch;
use crate::kv::{ConfirmConfig, Downstreams, KeyValueFunctions};
use crate::store::{MemoryEngine, Room};
use crate::{Node, NotNamed};
use on_disk::OnDisk;
use stores::{NotStarted, Replication};

/// A node with its stores.
///
/// The node runs until [`Node::stop`]; this is what shows how the stores are.
pub struct Program {
    node: Arc<Node>,
    /// What all stores in memory may hold together, and what they hold.
    room: Arc<Room>,
    stored_bytes_max: u64,
    stores: Vec<Store>,
}

/// A store that was started.
struct Store {
    names: StoreConfig,
    /// Of its first life.
    pid: Pid,
    watch: Arc<StoreWatch>,
}

impl Program {
    /// Starts a node with stores: both can be reached when this is done.
    ///
    /// # Errors
    /// The configuration's, the system's, epmd's or the disk's: see [`StartError`].
    pub async fn start(config: Config) -> Result<Arc<Self>, StartError> {
        config.check()?;
        let disk =
            config.data.as_ref().map(|data| on_disk::open(data, config.stored_bytes_max)).transpose()?;
        let room = Arc::new(Room::new(config.stored_bytes_max));
        let node = config.node.clone();
        let (node, stores) = Node::start_with(node, |node| {
            let functions =
                KeyValueFunctions::new(node.dispatch(), Downstreams::on(node), config.slave_buffer_bytes_max);
            node.client().serve(Arc::new(functions.within(Arc::clone(&room))));
            if let Some(disk) = &disk {
                on_disk::close_at_end(node, disk);
            }
            start_stores(node, &config, disk.as_ref(), &room)
        })
        .await?;
        Ok(Arc::new(Self { node, room, stored_bytes_max: config.stored_bytes_max, stores }))
    }

    /// The node.
    pub const fn node(&self) -> &Arc<Node> {
        &self.node
    }

    /// Its stores, with the pids that they were started with.
    pub fn stores(&self) -> impl Iterator<Item = (&StoreConfig, &Pid)> {
        self.stores.iter().map(|store| (&store.names, &store.pid))
    }
}

fn start_stores(
    node: &Node,
    config: &Config,
    disk: Option<&OnDisk>,
    room: &Arc<Room>,
) -> Result<Vec<Store>, StartError> {
    let mut started = Vec::new();
    for (number, names) in config.stores.iter().enumerate() {
        let slaves = if number == 0 { config.slave_names() } else { Vec::new() };
        let confirm = if number == 0 { config.confirm } else { 0 };
        let replication = Replication {
            slaves,
            slave_buffer_bytes_max: config.slave_buffer_bytes_max,
            confirm: ConfirmConfig { slaves: confirm, timeout: config.confirm_timeout },
            slave_writes: config.slave_writes,
        };
        let process = match disk {
            Some(disk) => on_disk::start(node, names, replication, disk),
            None => {
                let memory = MemoryEngine::within(Arc::clone(room)).ordered(config.ordered);
                stores::start(node, names, replication, memory)
            }
        };
        let (process, watch) = process.map_err(|error| match error {
            NotStarted::Name(error) => taken(error),
            NotStarted::Open(error) => StartError::Data(error),
            NotStarted::Slaves(error) => StartError::Store(error),
        })?;
        started.push(Store { names: names.clone(), pid: process.pid().clone(), watch });
    }
    if let Some(disk) = disk {
        on_disk::say_unserved(disk, &config.stores);
    }
    Ok(started)
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
