//! The stores of a node, started. All that this uses is public: `tests/library_stores.rs` compiles this very file, and
//! the server in `src/kv`, outside of the crate.
//!
//! What a store had in memory is lost when it ends; its names, and the slaves that it was configured with, are not.

use std::sync::Arc;

use crate::config::{ServerName, StoreConfig};
use crate::kv::{KeyValueServer, StateShape};
use crate::process::figures::StoreWatch;
use crate::replica::SlaveName;
use crate::store::{MemoryStore, Room};
use crate::{Node, NotNamed, ProcessHandle, Restart};

/// A store whose only name is this one shows its state as that module does.
const PLAIN_MODULE: &str = "Elixir.KeyValueStore";

/// Starts a store in memory under its names, with the slaves that it has from the start. It keeps
/// `slave_buffer_bytes_max` for each slave, and shares `room` with other stores.
///
/// # Errors
/// The caller's: another process has one of the names.
pub fn start(
    node: &Node,
    names: &StoreConfig,
    slaves: Vec<SlaveName>,
    slave_buffer_bytes_max: usize,
    room: Arc<Room>,
) -> Result<ProcessHandle, NotNamed> {
    let plain = names.global.is_empty() && names.local == [PLAIN_MODULE];
    let shape = if plain { StateShape::Plain } else { StateShape::Replicated };
    let local = names.local.iter().map(|name| ServerName::local(name));
    let global = names.global.iter().map(|name| ServerName::global(name));
    let watch = Arc::new(StoreWatch::default());
    let watched = Arc::clone(&watch);
    let process = node.supervise(Restart::Permanent, local.chain(global), move |node| {
        let server = KeyValueServer::new(
            MemoryStore::within(Arc::clone(&room)),
            node.dispatch(),
            slave_buffer_bytes_max,
        );
        let server = Arc::new(server.shown_as(shape).watched_by(Arc::clone(&watch)));
        watch.serving(&server);
        let process = node.serve_inline(Arc::clone(&server) as Arc<_>);
        for slave in &slaves {
            match server.add_slave(slave.clone()) {
                Ok(Some(slave)) => node.follow_slave(slave, &process),
                Ok(None) => {}
                Err(_) => tracing::error!(store = ?process, %slave, "too many slaves: not added"),
            }
        }
        process
    })?;
    node.show_store(names.clone(), watched);
    Ok(process)
}
