//! The life of a node: starting, keeping its peers connected, ending.
//!
//! [`start`] makes a node of a [`Config`]; the builder is one user of it, and [`run`], which the command line is made
//! of, another: it adds the stores' announcement and the signals that end the program.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::thread;

use async_signal::{Signal, Signals};
use parking_lot::Mutex;
use smol::Executor;
use smol::channel::Receiver;
use smol::future::FutureExt;
use smol::net::TcpListener;
use smol::stream::StreamExt;

use crate::config::{Config, ServerName, StoreConfig};
use crate::distribution::cookie::CookieError;
use crate::distribution::handshake::PeerNode;
use crate::distribution::node_name::NodeNameError;
use crate::distribution::{DistributionFlags, NodeName};
use crate::epmd::environment::EnvironmentError;
use crate::epmd::host::HostError;
use crate::epmd::start::EpmdStarter;
use crate::epmd::{self, EpmdError, EpmdStart, Registration};
use crate::etf::{Pid, Pool};
use crate::kv::slaves::SLAVES_MAX;
use crate::kv::{ConfirmConfig, KeyValueFunctions};
use crate::node::life::builder::PeerFault;
use crate::node::life::cookie_file::CookieFileError;
use crate::node::life::figures::Figures;
use crate::node::life::functions::NodeFunctions;
use crate::node::life::stop::Ending;
use crate::node::life::threads;
use crate::node::link::listener;
use crate::node::link::setup::DialError;
use crate::node::link::tls::{Tls, TlsError};
use crate::node::peers::backoff::Backoff;
use crate::node::peers::loopback;
use crate::node::peers::names::Names;
use crate::node::peers::registration;
use crate::node::peers::{PeerHandle, Peers};
use crate::node::server::client::Client;
use crate::node::server::supervised::{NotNamed, Supervision};
use crate::node::stores::{NotStarted, Replication};
use crate::node::{Node, block_on, random_u32, service, stores};
use crate::process::global_name_server::GlobalNameServer;
use crate::process::net_kernel::NetKernel;
use crate::process::registry::RegisterError;
use crate::process::rpc::Rex;
use crate::process::rpc::calls::Calls;
use crate::process::{GenServer, Process, Registry, Waiters};
use crate::replica::SlaveName;
use crate::store::disk::OpenError;
use crate::store::{Disk, MemoryEngine, Room, StoreError};

/// Why a node could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// Its name is not one that a node can have. Whoever chose it has to choose another.
    Name {
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        error: NodeNameError,
    },
    /// This host has no name of the wanted kind. The machine's set-up, or the name has to say its host.
    Host(HostError),
    /// A node that it was to be kept connected to can never be.
    Peer {
        /// The name as it was given.
        name: String,
        /// Why.
        fault: PeerFault,
    },
    /// The cookie that was given is none.
    Cookie(CookieError),
    /// No cookie was given, and the file with it cannot be used.
    CookieFile(CookieFileError),
    /// An environment variable that `erl` reads too has a value that means nothing.
    Environment(EnvironmentError),
    /// It is to find others without epmd, and no port was said.
    NoPort,
    /// Its port could not be listened at.
    Listen {
        /// The address; `None`: all interfaces.
        bind: Option<IpAddr>,
        /// The port; 0: a free one.
        port: u16,
        /// Whether all nodes have that port, as there is no epmd.
        is_everybodys: bool,
        /// What the system says.
        error: io::Error,
    },
    /// Its page could not be served at this address.
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// It could not be registered.
    Epmd(EpmdError),
    /// Two stores were to have the same name.
    DuplicateName(String),
    /// More slaves than one store may have.
    TooManySlaves,
    /// The folder with its stores could not be opened.
    Data(OpenError),
    /// What a store keeps of its slaves could not be read.
    Store(StoreError),
    /// TLS cannot be spoken with these files or options.
    Tls(TlsError),
    /// The system refused something that every node needs.
    System(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name { name, error } => write!(f, "{name}: not a node name: {error}"),
            Self::Host(error) => error.fmt(f),
            Self::Peer { name, fault } => write!(f, "cannot be connected to {name}: {fault}"),
            Self::Cookie(error) => write!(f, "cookie: {error}"),
            Self::CookieFile(error) => error.fmt(f),
            Self::Environment(error) => error.fmt(f),
            Self::NoPort => f.write_str(
                "without epmd nodes find each other by their port alone, and none was said: give the port of all nodes of \
                 the cluster (--dist-port, NodeBuilder::dist_port), which BEAMs have from -erl_epmd_port",
            ),
            Self::Listen { bind, port, is_everybodys, error } => {
                let at = bind.map_or_else(|| "all interfaces".to_owned(), |address| address.to_string());
                write!(f, "cannot listen at port {port} of {at}: {error}; ")?;
                match error.kind() {
                    io::ErrorKind::AddrInUse if *is_everybodys => f.write_str(
                        "another program has that port, perhaps another node: without epmd all nodes have it, each on an \
                         address of its own (--bind), which is the host of its name",
                    ),
                    io::ErrorKind::AddrInUse => f.write_str("another program has that port: choose another --dist-port, or leave it out for a free one"),
                    io::ErrorKind::AddrNotAvailable => f.write_str("this machine has no such address: see --bind"),
                    _ => f.write_str("see --dist-port and --bind"),
                }
            }
            Self::Http { address, error } => {
                write!(f, "--http {address}: cannot listen there: {error}; choose another port or address")
            }
            Self::Epmd(error) => error.fmt(f),
            Self::DuplicateName(name) => {
                write!(f, "two stores were given the name {name}; a name is one store's: see --store")
            }
            Self::TooManySlaves => f.write_str("more slaves than a store may have; see --slave"),
            Self::Data(error) => error.fmt(f),
            Self::Store(error) => write!(f, "a store on disk: {error}; see `kvnode check`"),
            Self::Tls(error) => write!(f, "TLS: {error}"),
            Self::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// A node that has started, as its banner shows it.
#[derive(Clone, Debug)]
pub struct Started {
    /// Its full name.
    pub node_name: NodeName,
    /// Where it listens.
    pub listening: SocketAddr,
    /// The epmd that it is registered with; `None`: it needs none.
    pub epmd: Option<EpmdStart>,
    /// Its stores, with their pids.
    pub stores: Vec<(StoreConfig, Pid)>,
    /// Where its page is served.
    pub http: Option<SocketAddr>,
}

/// Runs a node with the stores of its configuration until it is told to end by SIGTERM or SIGINT. `announce` is called
/// once it can be reached.
///
/// # Errors
/// Why it could not start: see [`StartError`].
pub fn run(config: Config, announce: impl FnOnce(&Started)) -> Result<(), StartError> {
    run_with_client(config, |started, _client| announce(started))
}

/// As [`run`], with a client of the node for whoever wants to call others.
///
/// # Errors
/// As [`run`].
pub fn run_with_client(config: Config, announce: impl FnOnce(&Started, Client)) -> Result<(), StartError> {
    block_on(async {
        let mut signals = Signals::new([Signal::Term, Signal::Int]).map_err(StartError::System)?;
        // Without TLS a hangup ends the program, as it ends others.
        let mut reload = match &config.tls {
            Some(_) => Some(Signals::new([Signal::Hup]).map_err(StartError::System)?),
            None => None,
        };
        let node = start(config).await?;
        node.serve_status().map_err(|NotNamed { name, error }| {
            let (ServerName::Global(name) | ServerName::Local(name)) = &name;
            taken(error, name)
        })?;
        let http = match node.config.http {
            Some(address) => {
                let served = node.serve_http(address).await;
                Some(served.map_err(|error| StartError::Http { address, error })?)
            }
            None => None,
        };
        let started = Started {
            node_name: node.name().clone(),
            listening: node.listening(),
            epmd: node.epmd().cloned(),
            stores: node.stores_started.get().cloned().unwrap_or_default(),
            http,
        };
        announce(&started, node.client());
        service::ready(&node);
        let reloading = async {
            let Some(hangups) = &mut reload else { return std::future::pending().await };
            while hangups.next().await.is_some() {
                service::reloading(|| match node.reload_tls() {
                    Ok(()) => tracing::info!("certificates, keys and CAs were read again"),
                    Err(error) => {
                        tracing::error!("the TLS files were not taken, those of before stay: {error}")
                    }
                });
            }
            std::future::pending().await
        };
        let told = async {
            signals.next().await;
        };
        told.or(reloading).or(service::watchdog(Arc::clone(&node))).await;
        service::stopping();
        tracing::info!("ending; a second signal ends at once");
        let at_once = async {
            signals.next().await;
            tracing::warn!("ended at once");
        };
        node.stop().or(at_once).await;
        Ok(())
    })
}

/// How others come to a node.
struct Entrance {
    listening: SocketAddr,
    epmd: Option<EpmdStart>,
    creation: u32,
    /// What has to be served, where others may connect.
    listener: Option<TcpListener>,
    /// What has to be held, where they ask epmd.
    registration: Option<Registration>,
}

/// Starts a node. It can be reached when this is done.
pub(in crate::node) async fn start(config: Config) -> Result<Arc<Node>, StartError> {
    warn_of_short_cookie(&config);
    // Before anything can be seen of the node.
    let files = read_files(&config)?;
    // On an error all of this is dropped, which ends the threads.
    let threads = start_threads()?;
    if config.epmd.is_none() && config.dist_port == 0 {
        return Err(StartError::NoPort);
    }
    let epmd = match &config.epmd {
        Some(epmd) => Some(epmd::ensure(epmd, None).await.map_err(StartError::Epmd)?),
        None => None,
    };
    let refused = |error| StartError::Listen {
        bind: config.bind,
        port: config.dist_port,
        is_everybodys: config.epmd.is_none(),
        error,
    };
    let listener = listener::bind(config.bind, config.dist_port).await.map_err(refused)?;
    let listening = listener.local_addr().map_err(refused)?;
    let registration = match &config.epmd {
        Some(epmd) => {
            let registered = epmd::register(epmd, config.node_name.name(), listening.port()).await;
            Some(registered.map_err(StartError::Epmd)?)
        }
        None => None,
    };
    let creation = registration.as_ref().map_or_else(own_creation, Registration::creation);
    start_behind(
        config,
        files,
        threads,
        Entrance { listening, epmd, creation, listener: Some(listener), registration },
    )
}

/// A creation where no epmd gives one, as a BEAM without epmd makes it. The three lowest values are those of epmds before
/// OTP 23.
fn own_creation() -> u32 {
    random_u32() | 4
}

/// Starts a node that nobody connects to.
pub(in crate::node) async fn start_outgoing_only(config: Config) -> Result<Arc<Node>, StartError> {
    let epmd = config.epmd.as_ref().map(|epmd| EpmdStart {
        address: SocketAddr::new(epmd.address, epmd.port),
        starter: EpmdStarter::Running,
    });
    let entrance = Entrance {
        listening: (Ipv4Addr::UNSPECIFIED, 0).into(),
        epmd,
        creation: own_creation(),
        listener: None,
        registration: None,
    };
    let files = read_files(&config)?;
    start_behind(config, files, start_threads()?, entrance)
}

/// What a node needs of the file system.
struct Files {
    tls: Option<Tls>,
    disk: Option<Arc<Disk>>,
}

fn read_files(config: &Config) -> Result<Files, StartError> {
    let tls = config.tls.clone().map(Tls::load).transpose().map_err(StartError::Tls)?;
    let memory_bytes_max = config.limits.stored_bytes_max;
    let disk = config.data.as_ref().map(|data| {
        let disk = Disk::open(&data.dir, data.sync, memory_bytes_max)?;
        data.backup_dir.as_ref().map_or(Ok(()), |dir| disk.allow_backups(dir))?;
        Ok(disk)
    });
    Ok(Files { tls, disk: disk.transpose().map_err(StartError::Data)? })
}

const _: () = assert!(Config::CONFIRM_MAX as usize == SLAVES_MAX, "no more can be waited for than there are");

fn start_behind(
    config: Config,
    Files { tls, disk }: Files,
    (executor, ending): (Arc<Executor<'static>>, Ending),
    entrance: Entrance,
) -> Result<Arc<Node>, StartError> {
    let Entrance { listening, epmd, creation, listener, registration } = entrance;
    let ports =
        Mutex::new(config.connect.iter().filter_map(|kept| Some((kept.name.clone(), kept.port?))).collect());
    let registry = Registry::new(config.node_name.shared(), creation);
    let net_kernel = Arc::new(NetKernel::default());
    let net_kernel_process = registry.spawn(Arc::clone(&net_kernel) as Arc<dyn GenServer>);
    let rex = registry.spawn(Arc::new(Rex));
    let global = registry.spawn(Arc::new(GlobalNameServer::default()));
    for (name, process) in
        [("net_kernel", &net_kernel_process), ("rex", &rex), ("global_name_server", &global)]
    {
        register(&registry, name, process)?;
    }
    let supervision = Supervision::new(&config.limits);
    let node = Arc::new_cyclic(|this| Node {
        pool: Pool::new(config.limits.spare_bytes_max),
        room: Arc::new(Room::new(config.limits.stored_bytes_max)),
        config,
        registry,
        waiters: Waiters::default(),
        peers: Peers::default(),
        names: Names::default(),
        supervision,
        disk,
        net_kernel,
        net_kernel_process,
        executor: Arc::downgrade(&executor),
        threads: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        ending,
        tls,
        listening,
        epmd,
        ports,
        stores_started: OnceLock::new(),
        figures: Figures::new(),
        mailboxes: Mutex::default(),
        ends: Mutex::default(),
        this: this.clone(),
    });
    serve_functions(&node);
    let stores = start_stores(&node)?;
    node.stores_started.get_or_init(|| stores);

    let loopback = Arc::new(PeerHandle::new(&PeerNode {
        name: node.config.node_name.clone(),
        creation: node.registry.creation,
        offered: DistributionFlags::OFFERED,
        // What never leaves the node needs no fragments.
        in_force: DistributionFlags::OFFERED.difference(DistributionFlags::FRAGMENTS),
    }));
    assert!(node.peers.install(&loopback).is_ok(), "nobody is connected before the node listens");
    node.spawn(loopback::run(Arc::clone(&node), loopback));
    if let Some(registration) = registration {
        node.figures.set_registered(true);
        node.spawn(registration::keep(Arc::clone(&node), registration, listening.port()));
    }
    if let Some(listener) = listener {
        node.spawn(listener::accept_all(Arc::clone(&node), listener));
    }
    let mut connect: Vec<NodeName> = node.config.connect.iter().map(|kept| kept.name.clone()).collect();
    connect.sort();
    connect.dedup();
    for peer in connect {
        node.spawn(keep_connected(Arc::clone(&node), peer));
    }
    Ok(node)
}

/// A short cookie is soon guessed by whoever gets to see one handshake, and keeps few out that try.
fn warn_of_short_cookie(config: &Config) {
    let reachable = config.bind.is_none_or(|address| !address.is_loopback());
    if reachable && config.cookie.is_short() {
        tracing::warn!(
            "the cookie is short, and the port can be reached from other machines: take one of {} random characters or more, \
             or --bind 127.0.0.1",
            crate::distribution::cookie::SHORT_BELOW_CHARACTERS
        );
    }
}

/// The executor, with a thread for each core. The threads alone hold it, but for what is given here: when they end its
/// tasks are dropped, and with them sockets and the registration with epmd.
fn start_threads() -> Result<(Arc<Executor<'static>>, Ending), StartError> {
    let executor: Arc<Executor<'static>> = Arc::new(Executor::new());
    let (stop, stopped) = smol::channel::bounded::<()>(1);
    let (alive, ended) = smol::channel::bounded::<()>(1);
    let count = thread::available_parallelism().map_or(1, usize::from);
    for number in 1..=count {
        let (executor, stopped, alive) = (Arc::clone(&executor), stopped.clone(), alive.clone());
        let work = move || {
            threads::mark_ours();
            smol::block_on(executor.run(until_closed(stopped)));
            // In this order: whoever waits for the end finds that everything is gone.
            drop(executor);
            drop(alive);
        };
        thread::Builder::new().name(format!("kvnode-{number}")).spawn(work).map_err(StartError::System)?;
    }
    Ok((executor, Ending { threads: Mutex::new(Some(stop)), ended }))
}

async fn until_closed(stopped: Receiver<()>) {
    while stopped.recv().await.is_ok() {}
}

fn register(registry: &Registry, name: &str, process: &Arc<Process>) -> Result<(), StartError> {
    registry.register(name, process).map_err(|error| taken(error, name))
}

fn taken(error: RegisterError, name: &str) -> StartError {
    match error {
        RegisterError::Taken | RegisterError::Ended => StartError::DuplicateName(name.to_owned()),
    }
}

/// What other nodes may call here by rpc, beside what every node has.
fn serve_functions(node: &Arc<Node>) {
    let dispatch = node.dispatch();
    let functions = &node.registry.functions;
    functions.connect(Arc::clone(&dispatch));
    functions.add(Arc::new(NodeFunctions::new(Arc::downgrade(node))));
    functions.add(Arc::new(Calls));
    let key_value = KeyValueFunctions::new(dispatch, node.config.limits.slave_buffer_bytes_max);
    functions.add(Arc::new(key_value.within(Arc::clone(&node.room))));
}

fn start_stores(node: &Node) -> Result<Vec<(StoreConfig, Pid)>, StartError> {
    let mut started = Vec::new();
    for (number, names) in node.config.stores.iter().enumerate() {
        let mut slaves: Vec<SlaveName> = Vec::new();
        for name in node.config.slaves.iter().filter(|_| number == 0) {
            let slave = match name {
                ServerName::Global(name) => SlaveName::global(name),
                ServerName::Local(name) => SlaveName::Local(name.as_str().into()),
            };
            if !slaves.contains(&slave) {
                slaves.push(slave);
            }
        }
        if slaves.len() > SLAVES_MAX {
            return Err(StartError::TooManySlaves);
        }
        let confirm = if number == 0 { node.config.confirm } else { 0 };
        let replication = Replication {
            slaves,
            slave_buffer_bytes_max: node.config.limits.slave_buffer_bytes_max,
            confirm: ConfirmConfig { slaves: confirm, timeout: node.config.confirm_timeout },
        };
        let process = match &node.disk {
            Some(disk) => stores::start(node, names, replication, Arc::clone(disk)),
            None => {
                let memory = MemoryEngine::within(Arc::clone(&node.room));
                stores::start(node, names, replication, memory)
            }
        };
        let process = process.map_err(|error| match error {
            NotStarted::Name(NotNamed { name, error }) => {
                let (ServerName::Global(name) | ServerName::Local(name)) = &name;
                taken(error, name)
            }
            NotStarted::Open(error) => StartError::Data(error),
            NotStarted::Slaves(error) => StartError::Store(error),
        })?;
        started.push((names.clone(), process.pid().clone()));
    }
    if let Some(disk) = &node.disk {
        stores::say_unserved(disk, node.config.stores.iter());
    }
    Ok(started)
}

/// Keeps a node connected.
async fn keep_connected(node: Arc<Node>, peer: NodeName) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said = String::new();
    loop {
        // Whoever comes up says that the network is back, perhaps for this peer too.
        let arrival = node.peers.arrival();
        match node.connect(&peer.shared()).await {
            Ok(handle) => {
                backoff.reset();
                said.clear();
                handle.ended().await;
                backoff.pause().await;
            }
            // Whatever it says: connections end now, and none is wanted any more.
            Err(_) if node.is_stopping() => return,
            Err(error) if matches!(*error, DialError::Stopping) => return,
            Err(error) => {
                let text = error.to_string();
                if text == said {
                    tracing::debug!(%peer, "not connected: {text}");
                } else {
                    tracing::warn!(%peer, "not connected, trying again: {text}");
                    said = text;
                }
                backoff.pause_or(arrival.come()).await;
            }
        }
    }
}
