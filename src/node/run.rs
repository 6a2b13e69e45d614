//! The life of a node: starting, keeping its peers connected, ending.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use async_signal::{Signal, Signals};
use smol::Executor;
use smol::Timer;
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::stream::StreamExt;

use super::backoff::Backoff;
use super::client::Client;
use super::functions::NodeFunctions;
use super::names::Names;
use super::peers::{PeerDown, PeerHandle, Peers};
use super::{Node, Outlet, listener, loopback, registration, slaves};
use crate::config::{Config, ServerName, StoreConfig};
use crate::dist::{DistributionFlags, NodeName};
use crate::epmd::{self, EpmdError, EpmdStart};
use crate::etf::{Pid, encode};
use crate::kv::{KeyValueFunctions, KeyValueServer};
use crate::process::net_kernel::NetKernel;
use crate::process::registry::RegisterError;
use crate::process::rpc::Rex;
use crate::process::rpc::calls::Calls;
use crate::process::{Dispatch, GenServer, Process, Registry, Waiters};
use crate::replica::SlaveName;
use crate::store::MemoryStore;

/// How long the last messages may take to be written when the node ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a node could not run.
#[derive(Debug)]
#[non_exhaustive]
pub enum RunError {
    /// Its port could not be listened at.
    Listen {
        /// The address; `None`: all interfaces.
        bind: Option<IpAddr>,
        /// The port; 0: a free one.
        port: u16,
        /// What the system says.
        error: io::Error,
    },
    /// It could not be registered.
    Epmd(EpmdError),
    /// Two stores were to have the same name.
    DuplicateName(String),
    /// More slaves than one store may have.
    TooManySlaves,
    /// The system refused something that every node needs.
    System(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen { bind, port, error } => {
                let at = bind.map_or_else(|| "all interfaces".to_owned(), |address| address.to_string());
                write!(f, "cannot listen at port {port} of {at}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse => f.write_str("another program has that port: choose another --dist-port, or leave it out for a free one"),
                    io::ErrorKind::AddrNotAvailable => f.write_str("this machine has no such address: see --bind"),
                    _ => f.write_str("see --dist-port and --bind"),
                }
            }
            Self::Epmd(error) => error.fmt(f),
            Self::DuplicateName(name) => {
                write!(f, "two stores were given the name {name}; a name is one store's: see --store")
            }
            Self::TooManySlaves => f.write_str("more slaves than a store may have; see --slave"),
            Self::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

/// A node that has started, as its banner shows it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its full name.
    pub node_name: NodeName,
    /// Where it listens.
    pub listening: SocketAddr,
    /// The epmd that it is registered with.
    pub epmd: EpmdStart,
    /// Its stores, with their pids.
    pub stores: Vec<(StoreConfig, Pid)>,
}

/// Runs a node until it is told to end by SIGTERM or SIGINT. `announce` is called once it can be reached.
///
/// # Errors
/// Why it could not start: see [`RunError`].
pub fn run(config: Config, announce: impl FnOnce(&Started)) -> Result<(), RunError> {
    run_with_client(config, |started, _client| announce(started))
}

/// As [`run`], with a client of the node for whoever wants to call others.
///
/// # Errors
/// As [`run`].
pub fn run_with_client(config: Config, announce: impl FnOnce(&Started, Client)) -> Result<(), RunError> {
    let executor: Arc<Executor<'static>> = Arc::new(Executor::new());
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    for number in 1..threads {
        let (executor, stopped) = (Arc::clone(&executor), stopped.clone());
        thread::Builder::new()
            .name(format!("kvnode-{number}"))
            .spawn(move || smol::block_on(executor.run(until_closed(stopped))))
            .map_err(RunError::System)?;
    }
    let result = smol::block_on(executor.run(live(config, Arc::clone(&executor), announce)));
    drop(stop);
    result
}

async fn until_closed(stopped: Receiver<()>) {
    while stopped.recv().await.is_ok() {}
}

async fn live(
    config: Config,
    executor: Arc<Executor<'static>>,
    announce: impl FnOnce(&Started, Client),
) -> Result<(), RunError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int]).map_err(RunError::System)?;
    let node = start(config, executor, announce).await?;
    signals.next().await;
    tracing::info!("ending; a second signal ends at once");
    let at_once = async {
        signals.next().await;
        tracing::warn!("ended at once");
    };
    node.stop().or(at_once).await;
    Ok(())
}

async fn start(
    config: Config,
    executor: Arc<Executor<'static>>,
    announce: impl FnOnce(&Started, Client),
) -> Result<Arc<Node>, RunError> {
    let epmd = epmd::ensure(&config.epmd, None).await.map_err(RunError::Epmd)?;
    let refused = |error| RunError::Listen { bind: config.bind, port: config.dist_port, error };
    let listener = listener::bind(config.bind, config.dist_port).await.map_err(refused)?;
    let listening = listener.local_addr().map_err(refused)?;
    let registered = epmd::register(&config.epmd, config.node_name.name(), listening.port()).await;
    let registered = registered.map_err(RunError::Epmd)?;

    let registry = Registry::new(config.node_name.shared(), registered.creation());
    let net_kernel = Arc::new(NetKernel::default());
    let net_kernel_process = registry.spawn(Arc::clone(&net_kernel) as Arc<dyn GenServer>);
    let rex = registry.spawn(Arc::new(Rex));
    for (name, process) in [("net_kernel", &net_kernel_process), ("rex", &rex)] {
        register(&registry, name, process)?;
    }
    let node = Arc::new_cyclic(|this| Node {
        config,
        registry,
        waiters: Waiters::default(),
        peers: Peers::default(),
        names: Names::default(),
        net_kernel,
        net_kernel_process,
        executor,
        threads: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        this: this.clone(),
    });
    serve_functions(&node);
    let stores = start_stores(&node)?;

    let loopback = Arc::new(PeerHandle::new(node.config.node_name.shared(), DistributionFlags::OFFERED));
    assert!(node.peers.install(&loopback).is_ok(), "nobody is connected before the node listens");
    node.spawn(loopback::run(Arc::clone(&node), loopback));
    node.spawn(registration::keep(Arc::clone(&node), registered, listening.port()));
    node.spawn(listener::accept_all(Arc::clone(&node), listener));
    let started = Started { node_name: node.config.node_name.clone(), listening, epmd, stores };
    announce(&started, node.client());
    let mut connect = node.config.connect.clone();
    connect.sort();
    connect.dedup();
    for peer in connect {
        node.spawn(keep_connected(Arc::clone(&node), peer));
    }
    Ok(node)
}

fn register(registry: &Registry, name: &str, process: &Arc<Process>) -> Result<(), RunError> {
    registry.register(name, process).map_err(|error| taken(error, name))
}

fn taken(error: RegisterError, name: &str) -> RunError {
    match error {
        RegisterError::Taken | RegisterError::Ended => RunError::DuplicateName(name.to_owned()),
    }
}

/// What other nodes may call here by rpc, beside what every node has.
fn serve_functions(node: &Arc<Node>) {
    let dispatch: Arc<dyn Dispatch> = Arc::new(Outlet(Arc::downgrade(node)));
    let functions = &node.registry.functions;
    functions.connect(Arc::clone(&dispatch));
    functions.add(Arc::new(NodeFunctions::new(Arc::downgrade(node))));
    functions.add(Arc::new(Calls));
    functions.add(Arc::new(KeyValueFunctions::new(dispatch, node.config.limits.slave_buffer_bytes_max)));
}

fn start_stores(node: &Arc<Node>) -> Result<Vec<(StoreConfig, Pid)>, RunError> {
    let dispatch: Arc<dyn Dispatch> = Arc::new(Outlet(Arc::downgrade(node)));
    let mut started = Vec::new();
    for (number, config) in node.config.stores.iter().enumerate() {
        let bytes_max = node.config.limits.slave_buffer_bytes_max;
        let server = Arc::new(KeyValueServer::new(MemoryStore::default(), Arc::clone(&dispatch), bytes_max));
        let spawn = || node.registry.spawn(Arc::clone(&server) as Arc<dyn GenServer>);
        let process = spawn();
        for name in &config.local {
            register(&node.registry, name, &process)?;
        }
        for (at, name) in config.global.iter().enumerate() {
            // kernel, global.erl, check_dupname: a pid has one name there, so each name has a pid.
            let holder = if at == 0 { Arc::clone(&process) } else { spawn() };
            node.registry.claim_global(name, &holder).map_err(|error| taken(error, name))?;
        }
        for name in node.config.slaves.iter().filter(|_| number == 0) {
            let name = match name {
                ServerName::Global(name) => SlaveName::global(name),
                ServerName::Local(name) => SlaveName::Local(name.as_str().into()),
            };
            if let Some(slave) = server.add_slave(name).map_err(|_| RunError::TooManySlaves)? {
                node.spawn(slaves::follow(Arc::clone(node), slave, Arc::clone(&process)));
            }
        }
        started.push((config.clone(), process.pid.clone()));
    }
    Ok(started)
}

/// Keeps a node connected.
async fn keep_connected(node: Arc<Node>, peer: NodeName) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said = String::new();
    loop {
        match node.connect(&peer.shared()).await {
            Ok(handle) => {
                backoff.reset();
                said.clear();
                handle.ended().await;
            }
            Err(error) => {
                let text = error.to_string();
                if text == said {
                    tracing::debug!(%peer, "not connected: {text}");
                } else {
                    tracing::warn!(%peer, "not connected, trying again: {text}");
                    said = text;
                }
            }
        }
        backoff.pause().await;
    }
}

impl Node {
    /// Ends the node: monitors and links are told `shutdown` (which takes the global names out too), and what
    /// waits to be written is written, for a short while.
    async fn stop(&self) {
        let reason: Arc<[u8]> = encode(|w| {
            w.atom("shutdown");
        })
        .into();
        // From now on nobody is dialled or let in.
        self.stopping.store(true, Ordering::SeqCst);
        for process in self.registry.processes() {
            self.exit(process.id, &reason);
        }
        let mut peers = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        for peer in &peers {
            peer.close(PeerDown::Shutdown);
        }
        let ended = async {
            for peer in &peers {
                peer.ended().await;
            }
        };
        let late = async {
            Timer::after(FAREWELL).await;
            tracing::warn!("some peers did not take the last messages");
        };
        ended.or(late).await;
    }
}
