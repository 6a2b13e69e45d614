//! The stores of a node, started. All that this uses is public: `tests/library_stores.rs` compiles this very file, and
//! the server in `src/kv`, outside of the crate.
//!
//! What a store had in memory is lost when it ends; its names, and the slaves that it was configured with, are not.

use std::sync::Arc;

use crate::config::{Limits, ServerName, StoreConfig};
use crate::kv::{ConfirmConfig, KeyValueServer, StateShape};
use crate::replica::SlaveName;
use crate::store::{MemoryStore, Room};
use crate::{Node, NotNamed, ProcessHandle, Restart};

/// A store whose only name is this one shows its state as that module does.
const PLAIN_MODULE: &str = "Elixir.KeyValueStore";

/// How a store is replicated from the start.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Its slaves.
    pub slaves: Vec<SlaveName>,
    /// What it keeps for each slave, in bytes.
    pub slave_buffer_bytes_max: usize,
    /// When a write is answered.
    pub confirm: ConfirmConfig,
}

impl Default for Replication {
    fn default() -> Self {
        let slave_buffer_bytes_max = Limits::default().slave_buffer_bytes_max;
        Self { slaves: Vec::new(), slave_buffer_bytes_max, confirm: ConfirmConfig::default() }
    }
}

/// Starts a store in memory under its names. It shares `room` with other stores.
///
/// # Errors
/// The caller's: another process has one of the names.
pub fn start(
    node: &Node,
    names: &StoreConfig,
    replication: Replication,
    room: Arc<Room>,
) -> Result<ProcessHandle, NotNamed> {
    let plain = names.global.is_empty() && names.local == [PLAIN_MODULE];
    let shape = if plain { StateShape::Plain } else { StateShape::Replicated };
    let local = names.local.iter().map(|name| ServerName::local(name));
    let global = names.global.iter().map(|name| ServerName::global(name));
    node.supervise(Restart::Permanent, local.chain(global), move |node| {
        let server = KeyValueServer::new(
            MemoryStore::within(Arc::clone(&room)),
            node.dispatch(),
            replication.slave_buffer_bytes_max,
        );
        let server = Arc::new(server.shown_as(shape).confirmed_by(replication.confirm));
        let process = node.serve_inline(Arc::clone(&server) as Arc<_>);
        for slave in &replication.slaves {
            match server.add_slave(slave.clone()) {
                Ok(Some(slave)) => node.follow_slave(slave, &process),
                Ok(None) => {}
                Err(_) => tracing::error!(store = ?process, %slave, "too many slaves: not added"),
            }
        }
        process
    })
}
