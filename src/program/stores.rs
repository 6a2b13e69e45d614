//! The stores of a node, started. All that this uses is public: `tests/library_stores.rs` compiles this very file, and
//! the server in `src/kv`, outside of the crate.
//!
//! What a store had in memory is lost when it ends; what it had on disk is there when it is started again, and so are
//! the slaves that were added to it. Names, and the slaves that it was configured with, are given to it each time.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::ServerName;
use crate::kv::figures::StoreWatch;
use crate::kv::{
    ConfirmConfig, Consistency, Downstreams, KeyValueServer, NewFile, SlaveEntry, SlaveWrites, StateShape,
};
use crate::program::{Config, StoreConfig};
use crate::replica::{KnownSlave, SlaveName};
#[cfg(feature = "disk")]
use crate::store::Disk;
use crate::store::{Engine, OpenError, Store, StoreError};
use crate::{Node, NotNamed, ProcessHandle, Restart};

/// A store whose only name is this one shows its state as that module does.
const PLAIN_MODULE: &str = "Elixir.KeyValueStore";

/// What the global names of a store begin with where they are kept, as they are typed after `--store`.
pub const GLOBAL: &str = "global:";

/// Files of one store that may be in a folder.
const DROPPED_FILES_MAX: u32 = 10_000;

/// How a store is replicated from the start.
#[derive(Clone, Debug)]
pub struct Replication {
    /// Its slaves.
    pub slaves: Vec<SlaveName>,
    /// What it keeps for each slave, in bytes.
    pub slave_buffer_bytes_max: usize,
    /// When a write is answered.
    pub confirm: ConfirmConfig,
    /// What becomes of writes while it is a kvnode's slave.
    pub slave_writes: SlaveWrites,
    /// How new the answers of reads are that say nothing of it, where other processes serve the store too.
    pub reads: Consistency,
}

impl Default for Replication {
    fn default() -> Self {
        Self {
            slaves: Vec::new(),
            slave_buffer_bytes_max: Config::SLAVE_BUFFER_BYTES_MAX,
            confirm: ConfirmConfig::default(),
            slave_writes: SlaveWrites::default(),
            reads: Consistency::default(),
        }
    }
}

/// Why a store was not started.
#[derive(Debug)]
#[allow(dead_code, reason = "some who start stores have nobody to tell why")]
pub enum NotStarted {
    /// It could not have one of its names.
    Name(NotNamed),
    /// The folder could not give it what it had.
    Open(OpenError),
    /// The slaves that were added to it could not be read.
    Slaves(StoreError),
}

/// Starts a store under its names, kept by an engine; gives it with its counters, which outlive it.
///
/// # Errors
/// The caller's, or the engine's: see [`NotStarted`].
#[allow(dead_code, reason = "the program says of each store whether it stands for something")]
pub fn start(
    node: &Node,
    names: &StoreConfig,
    replication: Replication,
    engine: impl Engine,
) -> Result<(ProcessHandle, Arc<StoreWatch>), NotStarted> {
    start_standing(node, names, replication, engine, None)
}

/// Begins to find out whether a process of a store is the one of several that holds its global names, or the primary of several stores: each
/// time it was started.
pub type Stand<S> = Box<dyn Fn(&ProcessHandle, Arc<KeyValueServer<S>>) + Send + Sync>;

/// The same of a store that is not alone, where there is a `stand`: other processes serve it too, or its primary is elected. It is given its names
/// on this node; its global ones, and its slaves, are for what is begun by `stand`.
///
/// # Errors
/// As of [`start`].
pub fn start_standing<E: Engine>(
    node: &Node,
    names: &StoreConfig,
    replication: Replication,
    engine: E,
    stand: Option<Stand<E::Store>>,
) -> Result<(ProcessHandle, Arc<StoreWatch>), NotStarted> {
    let kept_as = names_kept(names);
    // Else where it runs; the second is a service's folder.
    let dirs = engine.folder().map_or_else(
        || vec![".".into(), std::env::var_os("HOME").unwrap_or_default().into(), std::env::temp_dir()],
        |dir| vec![dir],
    );
    let dropped = dropped_files(dirs, &kept_as.first().cloned().unwrap_or_default());
    let store = engine.open(&kept_as).map_err(NotStarted::Open)?;
    KeyValueServer::kept_slaves(&store).map_err(NotStarted::Slaves)?;
    let make = move || engine.open_again(&store);
    supervise(node, names, replication, dropped, make, stand).map_err(NotStarted::Name)
}

/// A slave of a store that nobody has told it yet.
type Added<S> = (Arc<KeyValueServer<S>>, Arc<SlaveEntry>);

fn supervise<S: Store>(
    node: &Node,
    names: &StoreConfig,
    replication: Replication,
    dropped: NewFile,
    make: impl Fn() -> S + Send + Sync + 'static,
    stand: Option<Stand<S>>,
) -> Result<(ProcessHandle, Arc<StoreWatch>), NotNamed> {
    let plain = names.global.is_empty() && names.local == [PLAIN_MODULE];
    let shape = if plain { StateShape::Plain } else { StateShape::Replicated };
    let local = names.local.iter().map(|name| ServerName::local(name));
    let is_held = stand.is_some();
    let global = names.global.iter().filter(|_| !is_held).map(|name| ServerName::global(name));
    let watch = Arc::new(StoreWatch::default());
    let watched = Arc::clone(&watch);
    let own_names = names.global.clone();
    let added: Arc<Mutex<Vec<Added<S>>>> = Arc::default();
    let followed = Arc::clone(&added);
    let standing: Arc<Mutex<Option<Arc<KeyValueServer<S>>>>> = Arc::default();
    let stands = Arc::clone(&standing);
    let start = move |node: &Arc<Node>| {
        let follow = Downstreams::on(node);
        let server = KeyValueServer::new(make(), node.dispatch(), follow, replication.slave_buffer_bytes_max);
        let server = server.shown_as(shape).confirmed_by(replication.confirm).watched_by(Arc::clone(&watch));
        let server = server.written_as_slave(replication.slave_writes).reading(replication.reads);
        let server = server.dropping_into(Arc::clone(&dropped));
        let server = match is_held {
            true if S::IS_SHARED => server.held_by_turns(),
            true => server.elected(),
            false => server,
        };
        let server = server.shared();
        watch.serving(&server);
        let process = node.serve_inline(Arc::clone(&server) as Arc<_>);
        server.serve_as(process.pid());
        if is_held {
            *standing.lock() = Some(Arc::clone(&server));
            return process;
        }
        // Of its promotion, before a slave is told its names.
        for name in server.names_taken_over().iter().filter(|name| !own_names.contains(name)) {
            match process.register_global(name) {
                Ok(_) => {
                    tracing::info!(store = ?process, name, "a global name that was taken over is taken again")
                }
                Err(error) => {
                    tracing::error!(store = ?process, name, %error, "a global name that was taken over is not taken")
                }
            }
        }
        let kept = server.slaves_before();
        let configured = replication.slaves.iter().map(|name| {
            let node = kept.iter().find(|kept| kept.name == *name).and_then(|kept| kept.node.clone());
            KnownSlave { name: name.clone(), node }
        });
        let mut added = added.lock();
        added.clear();
        for KnownSlave { name, node } in configured.chain(kept.iter().cloned()) {
            match server.add_slave(name.clone()) {
                Ok(Some(slave)) => {
                    if let Some(node) = node {
                        slave.expect_at(node);
                    }
                    // A store that has lost its data makes nobody lose what it still has.
                    slave.protect_data();
                    added.push((Arc::clone(&server), slave));
                }
                Ok(None) => {}
                Err(_) => tracing::error!(store = ?process, slave = %name, "too many slaves: not added"),
            }
        }
        process
    };
    // A slave is told the store's names when it is greeted: without them it would know the store by its pid.
    let named = move |process: &ProcessHandle| {
        let server = stands.lock().take();
        if let (Some(stand), Some(server)) = (&stand, server) {
            stand(process, server);
        }
        // One that is found on another node has all of them noted.
        for (server, slave) in followed.lock().drain(..) {
            server.follow_slave(slave, process.pid(), None);
        }
    };
    let names = local.chain(global);
    let process = if S::AT_ONCE {
        node.supervise_then(Restart::Permanent, names, start, named)?
    } else {
        // A server that begins waits for what was asked of its store before.
        node.supervise_waiting(Restart::Permanent, names, start, named)?
    };
    Ok((process, watched))
}

#[cfg(feature = "disk")]
/// Says which stores of a folder nobody can reach, since they have none of the names of those that are served.
pub fn say_unserved<'a>(disk: &Disk, served: impl Iterator<Item = &'a StoreConfig>) {
    let served: Vec<String> = served.flat_map(names_kept).collect();
    for names in disk.stores() {
        if !names.iter().any(|name| served.contains(name)) {
            tracing::warn!("a store on disk is not served: --store {} would", names.join(","));
        }
    }
}

/// Makes the files for what a store drops when another was promoted in its place: in the first of the folders that can be
/// written to, for its owner alone, and never over one that is there.
fn dropped_files(dirs: Vec<PathBuf>, store: &str) -> NewFile {
    let name = store.rsplit(':').next().unwrap_or_default();
    let plain = |char: char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '_' };
    let name: String = name.chars().take(64).map(plain).collect();
    Arc::new(move || {
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for dir in &dirs {
            match new_file(dir, &name) {
                Ok(made) => return Ok(made),
                Err(error) => last = error,
            }
        }
        Err(last)
    })
}

fn new_file(dir: &std::path::Path, name: &str) -> io::Result<(String, Box<dyn Write + Send>)> {
    let dir = dir.canonicalize()?;
    for number in 1..=DROPPED_FILES_MAX {
        let path = dir.join(format!("kvnode-dropped-{name}-{number}.exs"));
        match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => return Ok((path.display().to_string(), Box::new(Synced(file)))),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// A file that is on disk once it was flushed.
struct Synced(File);

impl Write for Synced {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }
}

/// A name of a store as it is kept with it: as it is typed after `--store`.
pub fn name_kept(name: &ServerName) -> String {
    // An atom may have a line's end in it, which ends a name there.
    match name {
        ServerName::Global(name) => format!("{GLOBAL}{}", name.escape_debug()),
        ServerName::Local(name) => format!("local:{}", name.escape_debug()),
    }
}

/// The names of a store as they are kept with it.
fn names_kept(names: &StoreConfig) -> Vec<String> {
    let global = names.global.iter().map(|name| name_kept(&ServerName::Global(name.clone())));
    global.chain(names.local.iter().map(|name| name_kept(&ServerName::Local(name.clone())))).collect()
}
