//! What a node is started with, said piece by piece.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::config::{Config, EpmdConfig, Limits, TlsConfig};
use crate::distribution::node_name::{NameKind, NodeName, split_typed};
use crate::distribution::{Cookie, NodeAt, NodeAtError, NodePattern};
use crate::epmd::environment;
use crate::epmd::host::Host;
use crate::node::life::cookie_file::CookiePlaces;
use crate::node::life::run::{self, StartError};
use crate::node::life::workers::Runtime;
use crate::node::{Node, block_on};

/// Builds and starts a [`Node`]: see [`Node::builder`].
///
/// Only the name has to be said; everything else has the default that `erl` has. What is wrong with any of it is
/// told by [`start`](Self::start).
///
/// ```no_run
/// use kvnode::Node;
///
/// let node = Node::builder("rust")
///     .cookie("secret")
///     .connect("iex@myhost")
///     .start()?;
/// println!("{} listens at {}", node.name(), node.listening());
/// node.wait();
/// # Ok::<(), kvnode::StartError>(())
/// ```
#[derive(Clone)]
#[must_use = "a node runs once it is started"]
pub struct NodeBuilder {
    name: String,
    cookie: Option<String>,
    bind: Option<IpAddr>,
    dist_port: u16,
    epmd: Option<EpmdConfig>,
    without_epmd: bool,
    connect: Vec<String>,
    allow: Vec<NodePattern>,
    net_ticktime_secs: u32,
    tls: Option<TlsConfig>,
    limits: Limits,
    outgoing_only: bool,
    runtime: Runtime,
}

impl NodeBuilder {
    pub(in crate::node) fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            cookie: None,
            bind: None,
            dist_port: 0,
            epmd: None,
            without_epmd: false,
            connect: Vec::new(),
            allow: Vec::new(),
            net_ticktime_secs: Config::NET_TICKTIME_SECS,
            tls: None,
            limits: Limits::default(),
            outgoing_only: false,
            runtime: Runtime::default(),
        }
    }

    /// The secret of the cluster. Without this it is read as `erl` reads it: from `~/.erlang.cookie`, else
    /// `$XDG_CONFIG_HOME/erlang/.erlang.cookie`; where there is none, one is made.
    pub fn cookie(mut self, cookie: &str) -> Self {
        self.cookie = Some(cookie.to_owned());
        self
    }

    /// A node, `name@host`, that is to be kept connected: when it is not there, or goes away, it is tried again
    /// until it is back. May be said of several. Nodes that connect to this one need not be named, and one that a
    /// message is sent to is connected to by that.
    ///
    /// `name@host:port` is found at that port, and its epmd is not asked. An IPv6 address stands in brackets then:
    /// `name@[::1]:4370`.
    pub fn connect(mut self, peer: &str) -> Self {
        self.connect.push(peer.to_owned());
        self
    }

    /// Nodes that may connect, and be connected to, by a pattern of their names. May be said several times; without this
    /// all that know the cookie. Those of [`connect`](Self::connect) need not be said.
    pub fn allow(mut self, nodes: NodePattern) -> Self {
        self.allow.push(nodes);
        self
    }

    /// The address to listen on. Without this: all interfaces, IPv6 and IPv4.
    pub fn bind(mut self, address: IpAddr) -> Self {
        self.bind = Some(address);
        self
    }

    /// The port to listen on. Without this, or with 0: a free one, which others learn from epmd.
    /// [`without_epmd`](Self::without_epmd) it is that of all nodes.
    pub fn dist_port(mut self, port: u16) -> Self {
        self.dist_port = port;
        self
    }

    /// Where epmd is and whether it may be started. Without this: on this machine, where `ERL_EPMD_PORT` and
    /// `ERL_EPMD_ADDRESS` say or at Erlang's port (4369), and started where none answers and Erlang's is installed.
    pub fn epmd(mut self, epmd: EpmdConfig) -> Self {
        self.epmd = Some(epmd);
        self
    }

    /// The cluster is one without epmd, whose nodes all listen at the port of [`dist_port`](Self::dist_port), each on a host
    /// of its own: as BEAMs do that are started with `-start_epmd false -erl_epmd_port PORT`. None is asked, started or
    /// registered with, whatever [`epmd`](Self::epmd) says. Nodes with other ports are named with them:
    /// [`connect`](Self::connect), [`Node::connect_to`].
    ///
    /// ```no_run
    /// use kvnode::Node;
    ///
    /// let node = Node::builder("rust@10.0.0.7").dist_port(4370).without_epmd().connect("app@10.0.0.8").start()?;
    /// # Ok::<(), kvnode::StartError>(())
    /// ```
    pub fn without_epmd(mut self) -> Self {
        self.without_epmd = true;
        self
    }

    /// Seconds after which a silent node is taken to be down; the whole cluster should agree. Without this: 60, as in
    /// Erlang. 0 counts as 1.
    pub fn net_ticktime_secs(mut self, secs: u32) -> Self {
        self.net_ticktime_secs = secs.max(1);
        self
    }

    /// TLS to every other node, as BEAMs do it with `-proto_dist inet_tls`. Without this: TCP.
    ///
    /// [`Node::reload_tls`] reads the files again.
    ///
    /// ```no_run
    /// use kvnode::Node;
    /// use kvnode::config::TlsConfig;
    ///
    /// let files = TlsConfig::new("node.pem", "node.key", "ca.pem");
    /// let node = Node::builder("rust").tls(files).start()?;
    /// # Ok::<(), kvnode::StartError>(())
    /// ```
    ///
    /// A file that BEAMs have for `-ssl_dist_optfile` says the same: [`tls::read_optfile`](crate::node::link::tls::read_optfile).
    pub fn tls(mut self, tls: TlsConfig) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The bounds on what other nodes may use.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The threads that run servers ([`Server`](crate::Server)) and tasks of the program ([`Node::spawn`],
    /// [`ProcessHandle::spawn`](crate::ProcessHandle::spawn)): so many handlers may hold one before others wait. Without this
    /// one for each core, two at least.
    ///
    /// Connections have threads of their own, one for each core, that handlers never hold: the node stays connected, and
    /// other nodes are answered by what needs no mailbox. On those run inline servers ([`GenServer`](crate::GenServer)),
    /// functions that other nodes call by `:erpc`, and what they gave to be called back. These must not block.
    pub fn threads(mut self, threads: NonZeroUsize) -> Self {
        self.runtime.threads = Some(threads);
        self
    }

    /// Servers and tasks of the node may await what is tokio's: its timers and sockets, and the libraries that use them; and
    /// they may call `tokio::spawn`. All threads of the node are inside of this runtime, whose own threads drive timers and
    /// sockets. Without this it is the runtime that [`start`](Self::start) or [`start_async`](Self::start_async) is called in,
    /// if it is called in one. With the feature `tokio`.
    ///
    /// ```no_run
    /// use kvnode::Node;
    ///
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let node = Node::builder("rust").tokio(runtime.handle().clone()).start()?;
    /// node.wait();
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// - A handler that awaits tokio's things outside of a runtime panics, which ends its server with
    ///   `{:panic, "there is no reactor running, must be called from the context of a Tokio 1.x runtime"}`.
    /// - The runtime has to outlive the node: [stop](Node::stop) that first, and wait for it.
    /// - One of the `current_thread` kind is driven by its `block_on` alone. Where that is not running, timers and sockets
    ///   stand still: wait for the node by `node.stopped().await` in there, and not by [`Node::wait`].
    /// - The node's threads are not tokio's own: `tokio::task::block_in_place` makes no room there, and the thread is blocked.
    ///   [`unblock`](crate::unblock) and `tokio::task::spawn_blocking` do what it is for.
    #[cfg(feature = "tokio")]
    pub fn tokio(mut self, runtime: tokio::runtime::Handle) -> Self {
        self.runtime.tokio = Some(runtime);
        self
    }

    /// The node only connects to others: it does not listen and is not registered with epmd, so that it starts at once, and
    /// nobody can connect to it or finds it taken. The name should be one that nobody else has. For programs that ask
    /// something and end, as `erl_call` does.
    pub fn outgoing_only(mut self) -> Self {
        self.outgoing_only = true;
        self
    }

    /// Starts the node: it is registered with epmd and can be reached when this returns. This takes some milliseconds
    /// in which the thread is blocked, or as long as epmd takes to be started; in an asynchronous program there is
    /// [`start_async`](Self::start_async).
    ///
    /// The node has threads of its own: see [`threads`](Self::threads). It runs until [`Node::stop`], also when every handle to it
    /// is dropped, as a BEAM does. It installs no signal handlers.
    ///
    /// # Errors
    /// See [`StartError`]: what was said here cannot be used, or the system or epmd refused.
    pub fn start(self) -> Result<Arc<Node>, StartError> {
        block_on(self.start_async())
    }

    /// As [`start`](Self::start), without blocking the thread. It runs on any executor.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_async(self) -> Result<Arc<Node>, StartError> {
        let runtime = self.runtime.clone().or_here();
        if self.outgoing_only {
            return run::start_outgoing_only(self.config()?, runtime).await;
        }
        let (node, ()) = run::start(self.config()?, runtime, |_| Ok::<_, StartError>(())).await?;
        Ok(node)
    }

    pub(in crate::node) fn config(self) -> Result<Config, StartError> {
        let (kind, node_name) = own_name(&self.name)?;
        let mut connect = Vec::new();
        for peer in &self.connect {
            let wrong = |fault| StartError::Peer { name: peer.clone(), fault };
            let peer = peer.parse::<NodeAt>().map_err(|error| wrong(PeerFault::Name(error)))?;
            if peer.name == node_name {
                return Err(wrong(PeerFault::Own));
            }
            if !kind.admits(peer.name.host()) {
                return Err(wrong(PeerFault::OtherKind));
            }
            connect.push(peer);
        }
        if let Some((name, ports)) = NodeAt::with_two_ports(&connect) {
            return Err(StartError::Peer { name: name.to_string(), fault: PeerFault::TwoPorts(ports) });
        }
        let epmd = match self.epmd {
            _ if self.without_epmd && self.dist_port == 0 && !self.outgoing_only => {
                return Err(StartError::NoPort);
            }
            _ if self.without_epmd => None,
            Some(epmd) => Some(epmd),
            None => Some(environment::epmd_config().map_err(StartError::Environment)?),
        };
        // Last, for it may make a file.
        let cookie = match &self.cookie {
            Some(typed) => Cookie::typed(typed).map_err(StartError::Cookie)?,
            None => CookiePlaces::from_environment().read_or_create().map_err(StartError::CookieFile)?.cookie,
        };
        Ok(Config {
            node_name,
            cookie,
            bind: self.bind,
            dist_port: self.dist_port,
            epmd,
            connect,
            allow: self.allow,
            net_ticktime_secs: self.net_ticktime_secs,
            fragments: true,
            tls: self.tls,
            limits: self.limits,
        })
    }
}

/// A name as it was given, with this host where there is none. The host tells the kind.
fn own_name(typed: &str) -> Result<(NameKind, NodeName), StartError> {
    let (head, host) = split_typed(typed);
    let (kind, host) = match host {
        Some(host) if NameKind::Short.admits(host) => (NameKind::Short, host.to_owned()),
        Some(host) => (NameKind::Long, host.to_owned()),
        None => (NameKind::Short, Host::of_system().name(NameKind::Short).map_err(StartError::Host)?),
    };
    let name = NodeName::own(kind, head, &host)
        .map_err(|error| StartError::Name { name: typed.to_owned(), error })?;
    Ok((kind, name))
}

impl fmt::Debug for NodeBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a node cannot be one that this one is kept connected to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PeerFault {
    /// It is no node's name, or has no port behind its colon.
    #[error("{0}")]
    Name(NodeAtError),
    /// It is this node's own.
    #[error("this is the name of this node itself")]
    Own,
    /// One has a short name and the other a long one.
    #[error(
        "of a node with a short name and one with a long name neither connects to the other: give both a host with a \
         domain, or both one without"
    )]
    OtherKind,
    /// It is named twice, with these ports.
    #[error(
        "it is named with port {} and with port {}; a node has one: leave the other out", .0[0], .0[1]
    )]
    TwoPorts([u16; 2]),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::cookie::CookieError;
    use crate::epmd::host::HostError;
    use crate::node::life::cookie_file::CookieFileError;

    fn config(builder: NodeBuilder) -> Result<Config, String> {
        builder.cookie("c").config().map_err(|error| error.to_string())
    }

    #[test]
    fn the_host_tells_whether_a_name_is_short_or_long() {
        let name = |typed| config(NodeBuilder::new(typed)).unwrap().node_name.to_string();
        assert_eq!(name("a@b"), "a@b");
        assert_eq!(name("a@b.c"), "a@b.c");
        assert_eq!(name("a"), format!("a@{}", Host::of_system().name(NameKind::Short).unwrap()));
        assert!(config(NodeBuilder::new("a b@c")).unwrap_err().contains("a b@c"));
        assert!(config(NodeBuilder::new("")).is_err());
    }

    #[test]
    fn a_peer_that_can_never_be_connected_to_is_refused_at_once() {
        let peers = |peer| config(NodeBuilder::new("a@b").connect(peer));
        assert_eq!(peers("c@d").unwrap().connect[0].to_string(), "c@d");
        assert_eq!(peers("c@d:4370").unwrap().connect[0].to_string(), "c@d:4370");
        for wrong in ["c", "a@b", "a@b:4370", "c@d.e", "c@d:0", "c@d:e"] {
            assert!(peers(wrong).unwrap_err().contains(wrong), "{wrong}");
        }
        let twice = config(NodeBuilder::new("a@b").connect("c@d:1").connect("c@d:2")).unwrap_err();
        assert!(twice.contains("port 1 and with port 2"), "{twice}");
    }

    #[test]
    fn without_epmd_the_port_has_to_be_said() {
        let without = NodeBuilder::new("a@b").without_epmd();
        assert!(config(without.clone()).unwrap_err().contains("port"));
        assert_eq!(config(without.clone().dist_port(4370)).unwrap().epmd, None);
        // It listens nowhere, and the nodes that it asks may be named with their ports.
        assert_eq!(config(without.outgoing_only()).unwrap().epmd, None);
    }

    #[test]
    fn neither_the_builder_nor_an_error_shows_the_cookie() {
        let builder = NodeBuilder::new("a@b").cookie("sesame");
        assert!(!format!("{builder:?}").contains("sesame"));
        let error = builder.cookie("sesame\u{7}\u{301}").config().map(|_| ());
        assert!(!format!("{error:?}").contains("sesame"));
    }

    #[test]
    fn what_the_cookie_may_be_is_the_command_lines_rule() {
        let typed = |cookie: &str| NodeBuilder::new("a@b").cookie(cookie).config().is_ok();
        assert_eq!(typed("plain"), Cookie::typed("plain").is_ok());
        assert_eq!(typed(""), Cookie::typed("").is_ok());
        let long = "x".repeat(300);
        assert_eq!(typed(&long), Cookie::typed(&long).is_ok());
    }

    #[test]
    fn the_errors_are_those_of_the_parts() {
        let error = StartError::CookieFile(CookieFileError::NoHome).to_string();
        assert_eq!(error, CookieFileError::NoHome.to_string());
        let error = HostError::NoDomain { host: "h".into() };
        assert_eq!(StartError::Host(error.clone()).to_string(), error.to_string());
        assert_eq!(
            StartError::Cookie(CookieError::Empty).to_string(),
            format!("cookie: {}", CookieError::Empty)
        );
    }
}
