//! The start of a node, and what keeps its peers connected.
//!
//! [`start`] makes a node of a [`Config`], for the builder and for [`Node::start_with`].

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use parking_lot::Mutex;
use smol::net::TcpListener;

use crate::config::Config;
use crate::distribution::cookie::CookieError;
use crate::distribution::handshake::PeerNode;
use crate::distribution::node_name::NodeNameError;
use crate::distribution::{DistributionFlags, NodeName};
use crate::epmd::environment::EnvironmentError;
use crate::epmd::host::HostError;
use crate::epmd::start::EpmdStarter;
use crate::epmd::{self, EpmdError, EpmdStart, Registration};
use crate::etf::Pool;
use crate::log::Once;
use crate::node::life::builder::PeerFault;
use crate::node::life::cookie_file::CookieFileError;
use crate::node::life::figures::Figures;
use crate::node::life::functions::NodeFunctions;
use crate::node::life::watchdog;
use crate::node::life::workers::{self, Crew, Runtime, Threads};
use crate::node::link::listener;
use crate::node::link::setup::DialError;
use crate::node::link::tls::{Tls, TlsError};
use crate::node::peers::backoff::Backoff;
use crate::node::peers::loopback;
use crate::node::peers::names::Names;
use crate::node::peers::registration;
use crate::node::peers::{PeerHandle, Peers};
use crate::node::server::supervised::Supervision;
use crate::node::test::World;
use crate::node::{Node, random_u32};
use crate::process::global_name_server::GlobalNameServer;
use crate::process::net_kernel::NetKernel;
use crate::process::rpc::Rex;
use crate::process::rpc::calls::Calls;
use crate::process::{GenServer, Registry, Waiters};

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// Its name is not one that a node can have. The operator has to choose another.
    #[error("{name}: not a node name: {error}")]
    Name {
        /// The name as it was given.
        name: String,
        /// The rule that it breaks.
        error: NodeNameError,
    },
    /// This host has no name of the wanted kind. The machine's set-up, or the name has to say its host.
    #[error("{0}")]
    Host(HostError),
    /// A node that it was to be kept connected to can never be.
    #[error("cannot be connected to {name}: {fault}")]
    Peer {
        /// The name as it was given.
        name: String,
        /// Why.
        fault: PeerFault,
    },
    /// The cookie that was given is none.
    #[error("cookie: {0}")]
    Cookie(CookieError),
    /// No cookie was given, and the file with it cannot be used.
    #[error("{0}")]
    CookieFile(CookieFileError),
    /// An environment variable that `erl` reads too has a value that means nothing.
    #[error("{0}")]
    Environment(EnvironmentError),
    /// It is to find others without epmd, and no port was said.
    #[error(
        "without epmd nodes find each other by their port alone, and none was said: give the port of all nodes of the \
         cluster (--dist-port, NodeBuilder::dist_port), which BEAMs have from -erl_epmd_port"
    )]
    NoPort,
    /// Its port could not be listened at.
    #[error(
        "cannot listen at port {port} of {}: {error}; {}",
        .bind.map_or_else(|| "all interfaces".to_owned(), |address| address.to_string()),
        listen_advice(.error, *.is_everybodys)
    )]
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
    /// It could not be registered.
    #[error("{0}")]
    Epmd(EpmdError),
    /// TLS cannot be spoken with these files or options.
    #[error("TLS: {0}")]
    Tls(TlsError),
    /// The system refused something that every node needs.
    #[error("the system refused: {0}")]
    System(io::Error),
}

fn listen_advice(error: &io::Error, is_everybodys: bool) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse if is_everybodys => {
            "another program has that port, perhaps another node: without epmd all nodes have it, each on an address of \
             its own (--bind), which is the host of its name"
        }
        io::ErrorKind::AddrInUse => {
            "another program has that port: choose another --dist-port, or leave it out for a free one"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address: see --bind",
        _ => "see --dist-port and --bind",
    }
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
    /// The other nodes, where a test plays them.
    world: Option<Arc<World>>,
}

/// What a configuration alone tells to be wrong. Gives what TLS is made from.
pub(in crate::node) fn check(config: &Config) -> Result<Option<Tls>, StartError> {
    if config.epmd.is_none() && config.dist_port == 0 {
        return Err(StartError::NoPort);
    }
    config.tls.clone().map(Tls::load).transpose().map_err(StartError::Tls)
}

/// Starts a node. It can be reached when this is done.
pub(in crate::node) async fn start<T, E: From<StartError>>(
    config: Config,
    runtime: Runtime,
    prepare: impl FnOnce(&Arc<Node>) -> Result<T, E>,
) -> Result<(Arc<Node>, T), E> {
    warn_of_short_cookie(&config);
    // Before anything can be seen of the node.
    let tls = check(&config)?;
    // On an error all of this is dropped, which ends the threads.
    let threads = workers::start(&runtime).map_err(StartError::System)?;
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
        tls,
        (runtime, threads),
        Entrance { listening, epmd, creation, listener: Some(listener), registration, world: None },
        prepare,
    )
}

/// A creation where no epmd gives one, as a BEAM without epmd makes it. The three lowest values are those of epmds before
/// OTP 23.
fn own_creation() -> u32 {
    random_u32() | 4
}

/// Starts a node that nobody connects to.
pub(in crate::node) async fn start_outgoing_only(
    config: Config,
    runtime: Runtime,
) -> Result<Arc<Node>, StartError> {
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
        world: None,
    };
    let tls = config.tls.clone().map(Tls::load).transpose().map_err(StartError::Tls)?;
    let threads = workers::start(&runtime).map_err(StartError::System)?;
    let (node, ()) = start_behind(config, tls, (runtime, threads), entrance, |_| Ok::<_, StartError>(()))?;
    Ok(node)
}

/// Starts a node without sockets and threads: a test steps the two crews, and plays all other nodes.
pub(in crate::node) fn start_stepped(
    config: Config,
    world: Arc<World>,
) -> Result<(Arc<Node>, [Arc<Crew>; 2]), StartError> {
    let entrance = Entrance {
        listening: (Ipv4Addr::UNSPECIFIED, 0).into(),
        epmd: None,
        creation: own_creation(),
        listener: None,
        registration: None,
        world: Some(world),
    };
    let runtime = Runtime::here();
    let threads = workers::unmanned(&runtime);
    let crews = [Arc::clone(&threads.links), Arc::clone(&threads.work)];
    let (node, ()) = start_behind(config, None, (runtime, threads), entrance, |_| Ok::<_, StartError>(()))?;
    Ok((node, crews))
}

fn start_behind<T, E: From<StartError>>(
    config: Config,
    tls: Option<Tls>,
    (runtime, threads): (Runtime, Threads),
    entrance: Entrance,
    prepare: impl FnOnce(&Arc<Node>) -> Result<T, E>,
) -> Result<(Arc<Node>, T), E> {
    let Threads { links, work, seats, ending } = threads;
    let Entrance { listening, epmd, creation, listener, registration, world } = entrance;
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
        registry.register(name, process).expect("no other process is there");
    }
    let supervision = Supervision::new(&config.limits);
    let node = Arc::new_cyclic(|this| Node {
        pool: Pool::new(config.limits.spare_bytes_max),
        config,
        registry,
        waiters: Waiters::default(),
        peers: Peers::default(),
        names: Names::default(),
        supervision,
        net_kernel,
        net_kernel_process,
        links: Arc::downgrade(&links),
        work: Arc::downgrade(&work),
        runtime,
        threads: AtomicUsize::new(0),
        stopping: AtomicBool::new(false),
        ending,
        resources: Mutex::default(),
        tls,
        listening,
        epmd,
        ports,
        figures: Figures::new(),
        mailboxes: Mutex::default(),
        ends: Mutex::default(),
        world,
        this: this.clone(),
    });
    serve_functions(&node);
    let loopback = Arc::new(PeerHandle::new(&PeerNode {
        name: node.config.node_name.clone(),
        creation: node.registry.creation,
        offered: DistributionFlags::OFFERED,
        // What never leaves the node needs no fragments.
        in_force: DistributionFlags::OFFERED.difference(DistributionFlags::FRAGMENTS),
    }));
    assert!(node.peers.install(&loopback).is_ok(), "nobody is connected before the node listens");
    node.spawn_link(loopback::run(Arc::clone(&node), loopback));
    // A node without threads has none that could be held.
    if !seats.is_empty() {
        node.spawn_link(watchdog::watch(Arc::clone(&node), seats));
    }
    let prepared = prepare(&node)?;
    if let Some(registration) = registration {
        node.figures.set_registered(true);
        node.spawn_link(registration::keep(Arc::clone(&node), registration, listening.port()));
    }
    if let Some(listener) = listener {
        node.spawn_link(listener::accept_all(Arc::clone(&node), listener));
    }
    let mut connect: Vec<NodeName> = node.config.connect.iter().map(|kept| kept.name.clone()).collect();
    connect.sort();
    connect.dedup();
    for peer in connect {
        node.spawn_link(keep_connected(Arc::clone(&node), peer));
    }
    Ok((node, prepared))
}

/// A short cookie is soon guessed by an attacker that gets to see one handshake, and keeps few out that try.
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

/// What other nodes may call here by rpc, beside what every node has.
fn serve_functions(node: &Arc<Node>) {
    let dispatch = node.dispatch();
    let functions = &node.registry.functions;
    functions.connect(Arc::clone(&dispatch));
    functions.add(Arc::new(NodeFunctions::new(Arc::downgrade(node))));
    functions.add(Arc::new(Calls));
}

/// Keeps a node connected.
async fn keep_connected(node: Arc<Node>, peer: NodeName) {
    let mut backoff = Backoff::new(&node.config.limits);
    let mut said = Once::when_changed();
    loop {
        // A node that comes up says that the network is back, perhaps for this peer too.
        let arrival = node.peers.arrival();
        match node.connect(&peer.shared()).await {
            Ok(handle) => {
                backoff.reset();
                said.forget_all();
                handle.ended().await;
                backoff.pause().await;
            }
            // Whatever it says: connections end now, and none is wanted any more.
            Err(_) if node.is_stopping() => return,
            Err(error) if matches!(*error, DialError::Stopping) => return,
            Err(error) => {
                let text = error.to_string();
                if said.first(text.clone()) {
                    tracing::warn!(%peer, "not connected, trying again: {text}");
                } else {
                    tracing::debug!(%peer, "not connected: {text}");
                }
                backoff.pause_or(arrival.come()).await;
            }
        }
    }
}
