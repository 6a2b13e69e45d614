//! A store on a node: its names, its slaves, and its process, which is started again when it has ended.
//!
//! [`serve`] is for stores of any engine; the program's are started by the same functions. All of it uses what is public:
//! `tests/library_stores.rs` compiles these very files, as part of the server, outside of the crate.
//!
//! What a store had in memory is lost when it ends; what it had on disk is there when it is started again, and so are
//! the slaves that were added to it. Names, and the slaves that it was configured with, are given to it each time.

mod files;
mod replication;

use std::sync::Arc;

use parking_lot::Mutex;

pub use replication::Replication;

use crate::config::ServerName;
use crate::kv::figures::StoreWatch;
use crate::kv::{DialectFunctions, Downstreams, KeyValueServer, NewFile, SlaveEntry, StateShape};
use crate::node::Resource;
use crate::replica::KnownSlave;
use crate::store::{Engine, OpenError, Store, StoreError};
use crate::{Node, NotNamed, ProcessHandle, Restart};

/// A store whose only name is this one shows its state as that module does.
const PLAIN_MODULE: &str = "Elixir.KeyValueStore";

/// What the global names of a store begin with where they are kept, as they are typed after `--store`.
#[doc(hidden)]
pub const GLOBAL: &str = "global:";

/// A store that is served.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServedStore {
    /// Its process.
    pub process: ProcessHandle,
    /// What it has done and holds. They outlive each life of the process, and go on counting.
    #[doc(hidden)]
    pub figures: Arc<StoreWatch>,
}

/// Why a store is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotServed {
    /// It could not have one of its names: another process of this node has it. The caller's fault.
    #[error(transparent)]
    Name(NotNamed),
    /// The engine could not give it what it had.
    #[error(transparent)]
    Open(OpenError),
    /// The slaves that were added to it could not be read.
    #[error("the slaves of the store cannot be read: {0}")]
    Slaves(#[source] StoreError),
}

/// Serves a store of any engine on a node: callers on any BEAM read, write and watch it by its names, keys end at their
/// deadlines, Elixir servers and kvnodes are its slaves, it is the slave of another store, and it is promoted.
///
/// Its process is started again when it has ended. The engine is settled and closed when the node ends
/// ([`Node::stop`]); for several stores of one engine, which is settled once then, there is [`serve_standing`] with
/// [`close_at_end`].
///
/// ```
/// use kvnode::Node;
/// use kvnode::config::ServerName;
/// use kvnode::kv::{Replication, serve};
/// use kvnode::store::MemoryEngine;
///
/// fn stock(node: &Node) -> Result<(), kvnode::kv::NotServed> {
///     let names = [ServerName::global("stock"), ServerName::local("stock")];
///     let store = serve(node, names, Replication::default(), MemoryEngine::default())?;
///     println!("{} keys", store.figures.server().map_or(0, |server| server.entries()));
///     Ok(())
/// }
/// ```
///
/// `examples/own_engine.rs` has an engine of its own, with slaves of both kinds.
///
/// # Errors
/// The caller's, or the engine's: see [`NotServed`].
pub fn serve(
    node: &Node,
    names: impl IntoIterator<Item = ServerName>,
    replication: Replication,
    engine: impl Engine,
) -> Result<ServedStore, NotServed> {
    let engine = Arc::new(engine);
    let served = serve_standing(node, names, replication, Arc::clone(&engine), None)?;
    close_at_end(node, engine);
    Ok(served)
}

/// Has an engine settle when the node begins to end, and close when its processes have ended.
pub fn close_at_end(node: &Node, engine: Arc<impl Engine>) {
    node.close_at_end(Arc::new(AtEnd(engine)));
}

/// An engine, as a node that ends sees it.
struct AtEnd<E>(Arc<E>);

impl<E: Engine> Resource for AtEnd<E> {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        // What could not be written was said to its callers.
        self.0.settle(Box::new(|_| done()));
    }

    fn close(&self) {
        self.0.close();
    }
}

/// Begins to find out whether a process of a store is the one of several that holds its global names, or the primary of several stores: each
/// time it was started.
#[doc(hidden)]
pub type Stand<S> = Box<dyn Fn(&ProcessHandle, Arc<KeyValueServer<S>>) + Send + Sync>;

/// As [`serve`], of a store that is not alone, where there is a `stand`: other processes serve it too, or its primary is elected. It is given its
/// names on this node; its global ones, and its slaves, are for what is begun by `stand`. Without one it is as by [`serve`], and in both cases the
/// engine is closed by its user.
///
/// # Errors
/// As of [`serve`].
#[doc(hidden)]
pub fn serve_standing<E: Engine>(
    node: &Node,
    names: impl IntoIterator<Item = ServerName>,
    replication: Replication,
    engine: Arc<E>,
    stand: Option<Stand<E::Store>>,
) -> Result<ServedStore, NotServed> {
    let names = Names::of(names);
    let kept_as = names.kept();
    // Else where it runs; the second is a service's folder.
    let dirs = engine.folder().map_or_else(
        || vec![".".into(), std::env::var_os("HOME").unwrap_or_default().into(), std::env::temp_dir()],
        |dir| vec![dir],
    );
    let dropped = files::dropped_files(dirs, &kept_as.first().cloned().unwrap_or_default());
    let store = engine.open(&kept_as).map_err(NotServed::Open)?;
    KeyValueServer::kept_slaves(&store).map_err(NotServed::Slaves)?;
    let make = move || engine.open_again(&store);
    // Else kvnodes would take the store for an Elixir server.
    node.client().serve(Arc::new(DialectFunctions));
    supervise(node, names, replication, dropped, make, stand).map_err(NotServed::Name)
}

/// The names of a store, the global ones first.
struct Names {
    global: Vec<String>,
    local: Vec<String>,
}

impl Names {
    fn of(names: impl IntoIterator<Item = ServerName>) -> Self {
        let mut sorted = Self { global: Vec::new(), local: Vec::new() };
        for name in names {
            match name {
                ServerName::Global(name) => sorted.global.push(name),
                ServerName::Local(name) => sorted.local.push(name),
            }
        }
        sorted
    }

    /// As they are kept with the store.
    fn kept(&self) -> Vec<String> {
        let global = self.global.iter().map(|name| name_kept(&ServerName::global(name)));
        global.chain(self.local.iter().map(|name| name_kept(&ServerName::local(name)))).collect()
    }
}

/// A slave of a store that nobody has told it yet.
type Added<S> = (Arc<KeyValueServer<S>>, Arc<SlaveEntry>);

fn supervise<S: Store>(
    node: &Node,
    names: Names,
    replication: Replication,
    dropped: NewFile,
    make: impl Fn() -> S + Send + Sync + 'static,
    stand: Option<Stand<S>>,
) -> Result<ServedStore, NotNamed> {
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
    Ok(ServedStore { process, figures: watched })
}

/// A name of a store as it is kept with it: as it is typed after `--store`.
#[doc(hidden)]
pub fn name_kept(name: &ServerName) -> String {
    // An atom may have a line's end in it, which ends a name there.
    match name {
        ServerName::Global(name) => format!("{GLOBAL}{}", name.escape_debug()),
        ServerName::Local(name) => format!("local:{}", name.escape_debug()),
    }
}
