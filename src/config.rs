//! The settings of a node: every limit, interval and default that a user may want otherwise, units in the names.
//!
//! A plain value: the command line or a library user fills it in, nothing below reads the environment. The program's stores
//! have theirs in [`program::Config`](crate::program::Config).
//!
//! # Limits that are not here
//!
//! Others are constants beside what they bound, with their unit and why they are as they are. They are not for users, and are
//! of these kinds:
//!
//! - **Of the protocol**: what the external term format, the distribution protocol, epmd or OTP say, such as 255 characters of an
//!   atom (`etf/split.rs`), or 5 s, which `GenServer.call/2` waits (`node/peers/whereis.rs`). Another figure would be wrong.
//! - **Of an algorithm**: how far it looks, how often it tries, how much it takes at a time, such as 64 effects between two that
//!   are carried out (`node/link/connection.rs`). They were measured, or do not matter; what they bound is bounded for its user
//!   by a limit from here.
//! - **Against misuse**: how much is kept of what nobody needs much of, such as 1,024 locks of one node's processes
//!   (`process/global_name_server.rs`) or 64 slaves of a store (`kv/slaves.rs`). Far above what is used and far below what
//!   would hurt: at them something is refused, in words.
//! - **For the eye**: how much of something is shown or logged, and how often.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use crate::distribution::{Cookie, NodeAt, NodeName, NodePattern};

pub mod tls;

pub use tls::{TlsConfig, TlsSide, TlsVerify, TlsVersion};

/// Everything that a node is started with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The full name, `name@host`.
    pub node_name: NodeName,
    /// The secret of the cluster.
    pub cookie: Cookie,
    /// The address to listen on. `None`: all interfaces, IPv6 and IPv4.
    pub bind: Option<IpAddr>,
    /// The port to listen on. 0: a free one, which epmd tells. Without epmd it is the port of all nodes.
    pub dist_port: u16,
    /// Where epmd is. `None`: the cluster is without epmd, as one of BEAMs with `-erl_epmd_port`. The node registers nowhere,
    /// and finds another at the port that is known of it, else at [`dist_port`](Self::dist_port).
    pub epmd: Option<EpmdConfig>,
    /// Nodes to be kept connected. Those with a port are found there, and no epmd is asked for them.
    pub connect: Vec<NodeAt>,
    /// The nodes that may connect, and be connected to; with none said, all that know the cookie. Those of `connect`
    /// need not be said.
    pub allow: Vec<NodePattern>,
    /// Seconds after which a silent peer is down. Erlang's default is 60.
    pub net_ticktime_secs: u32,
    /// Whether large messages go in fragments, so that small ones pass them by
    /// ([`FRAGMENTS`](crate::distribution::DistributionFlags::FRAGMENTS)).
    pub fragments: bool,
    /// TLS to every other node, as with `-proto_dist inet_tls`. `None`: TCP.
    pub tls: Option<TlsConfig>,
    /// The bounds on what peers may use.
    pub limits: Limits,
}

impl Config {
    /// Erlang's `net_ticktime` where nothing else is said, in seconds.
    pub const NET_TICKTIME_SECS: u32 = 60;

    /// Whether a node may be connected with, as far as its name decides.
    pub fn allows(&self, node: &NodeName) -> bool {
        self.allow.is_empty()
            || self.allow.iter().any(|pattern| pattern.matches(node))
            || self.connect.iter().any(|kept| kept.name == *node)
    }
}

/// Where epmd is, and who starts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EpmdConfig {
    /// Port of every epmd that is asked, `ERL_EPMD_PORT`. Erlang's default is 4369.
    pub port: u16,
    /// Address of the local one: the first of `ERL_EPMD_ADDRESS`, else the loopback.
    pub address: IpAddr,
    /// Whether an epmd is started where none answers.
    pub start: bool,
    /// A program that leaves an epmd behind when it is run with `epmd --daemon`, for machines without Erlang's: the
    /// `kvnode` program, which sets itself here. `None`: Erlang's only.
    pub own_program: Option<PathBuf>,
}

impl EpmdConfig {
    /// The port that every Erlang node asks when nothing else is said.
    pub const PORT: u16 = 4369;
}

impl Default for EpmdConfig {
    fn default() -> Self {
        Self { port: Self::PORT, address: IpAddr::V4(Ipv4Addr::LOCALHOST), start: true, own_program: None }
    }
}

/// How a server is named, as in `GenServer.server/0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServerName {
    /// `{:global, name}` with an atom as name.
    Global(String),
    /// A name registered on this node.
    Local(String),
}

impl ServerName {
    /// `{:global, name}`.
    pub fn global(name: &str) -> Self {
        Self::Global(name.to_owned())
    }

    /// A name registered on this node, as `GenServer.call({:name, node}, …)` finds it.
    pub fn local(name: &str) -> Self {
        Self::Local(name.to_owned())
    }
}

/// What is bounded, and by how much. What happens at a bound is said at each.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest message, in bytes, that is taken: a larger one is thrown away as it comes, and the call that it was ends with
    /// `{:system_limit, text}` (a cast is dropped, as the log says). The default lets a value of 64 MiB through, beside its
    /// key.
    pub frame_bytes_max: usize,
    /// Bytes of memory that large values have left and that is kept for the next ones while there are some.
    pub spare_bytes_max: usize,
    /// Bytes of messages of which a peer has sent some fragments and not all: past it the newest of them is thrown away as
    /// it comes, as one over `frame_bytes_max` is. One message as large as that is let through whatever this says. Memory is
    /// taken as the bytes arrive. The default lets the processes of one node send sixteen values of 64 MiB at once.
    pub unfinished_bytes_max: usize,
    /// Messages of which a peer has sent some fragments and not all: past it the connection ends. What is thrown
    /// away counts too. A BEAM has at most one for each of its processes that send something large.
    pub unfinished_messages_max: usize,
    /// Bytes of answers that wait for a peer before its calls wait for room: the one answer that exceeds it is the last. A
    /// value that a store has anyway is not counted. A value that is overwritten while it waits stays in memory until it
    /// has left: a peer that reads slowly may so keep everything that it has asked for. The calls that wait are bounded by
    /// `held_bytes_max`: past it a call ends with
    /// `{:system_limit, :busy_dist_port}`, and a peer for which twice as much waits of small answers alone loses its
    /// connection. Reading goes on all the while. As much again, and one message more, may wait of what others send to it,
    /// answers that come later among them: a sender of more waits for room, or is told that there is none. (Were the two
    /// counted together, a peer that reads a large value would lose what comes meanwhile.)
    pub outbound_bytes_max: usize,
    /// A peer that takes nothing for so long of what waits for it is disconnected.
    pub output_stall_max: Duration,
    /// A set-up in which the other side's next packet takes longer is ended, and so is one in which TCP or all of TLS does.
    /// Erlang's own bound (kernel, `net_setuptime`).
    pub handshake_step_duration_max: Duration,
    /// For how long a peer that claims the name of a connected node waits for the end of that connection, before the peer is
    /// told that it is connected already.
    pub reconnect_pause: Duration,
    /// A set-up that takes longer, from the connection to the last packet of the handshake, with TLS between the two, is
    /// ended.
    pub handshake_duration_max: Duration,
    /// Monitors and links that one peer may have here: past it the connection ends.
    pub watches_max: usize,
    /// Messages that wait for one server with a mailbox ([`Server`](crate::Server)), and bytes of them: past either, a
    /// call ends at once with `{:system_limit, "…"}`, and a cast or other message is dropped and counted in the log.
    /// (A connection is not slowed down for it: what comes by it may be what the server waits for.)
    pub mailbox_messages_max: usize,
    /// See `mailbox_messages_max`.
    pub mailbox_bytes_max: usize,
    /// How long a server with a mailbox may take to end when the node ends: past it the rest is done without it.
    pub shutdown_duration_max: Duration,
    /// How long each [`Resource`](crate::node::Resource), a store's disk for instance, may take to settle when the node ends: past
    /// it the rest is done without it. A disk that is busy with a large batch takes seconds.
    pub settle_duration_max: Duration,
    /// Bytes of one peer's waiting messages: those to suspended processes (`:sys.suspend/1`), and calls whose answers have
    /// no room yet, with what their places in the tables take. Past it calls end with a reason, and casts and other messages
    /// are dropped. The default lets a dozen calls with values of 5 MiB each wait at a node that relays them.
    pub held_bytes_max: usize,
    /// Largest state, in bytes, that `:sys.get_state/1` shows whole: a larger one is shown as a summary.
    pub state_bytes_max: usize,
    /// Restarts of one supervised process ([`Node::supervise`](crate::Node::supervise)) in
    /// [`restart_period`](Self::restart_period), Elixir's default: past it the next restart
    /// waits until there is room again.
    pub restarts_max: usize,
    /// See `restarts_max`.
    pub restart_period: Duration,
    /// Busy connections that get a thread of their own; any more share the executor's.
    pub connection_threads_max: usize,
    /// Connections that have not proved the cookie: past it the oldest of the address that has the most is closed.
    pub handshakes_max: usize,
    /// The same of one address (of one network of 64 bits, for IPv6): past it the oldest of that address is closed. A
    /// peer that has the cookie is through long before; an idle connection makes room.
    pub handshakes_per_address_max: usize,
    /// Wrong digests of one address that are answered in a second: the others wait for their turn to be refused. Those of
    /// 5 seconds are looked at at once; past them a digest is not looked at before so many of them were answered, and past
    /// those of another 5 seconds not at all. Right ones do not count. 0 counts as 1.
    pub digests_per_sec_max: u32,
    /// What comes of a handshake again and again is logged once for each address in so much time.
    pub handshake_log_interval: Duration,
    /// Nodes that are connected at once: past it no other may connect.
    pub peers_max: usize,
    /// Nodes that are being connected to at once because something is to be sent to them: past it what is sent to others
    /// is dropped.
    pub dials_max: usize,
    /// First and longest pause between tries to reach a peer, epmd or a name; doubled each time, with jitter.
    pub backoff_first: Duration,
    /// See `backoff_first`.
    pub backoff_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 160 << 20,
            spare_bytes_max: 32 << 20,
            unfinished_bytes_max: 1 << 30,
            unfinished_messages_max: 64 << 10,
            outbound_bytes_max: 8 << 20,
            output_stall_max: Duration::from_secs(30),
            handshake_step_duration_max: Duration::from_secs(7),
            reconnect_pause: Duration::from_millis(100),
            handshake_duration_max: Duration::from_secs(10),
            // 30 MB of tables.
            watches_max: 1 << 18,
            mailbox_messages_max: 100_000,
            mailbox_bytes_max: 64 << 20,
            shutdown_duration_max: Duration::from_secs(5),
            settle_duration_max: Duration::from_secs(60),
            held_bytes_max: 64 << 20,
            state_bytes_max: 4 << 20,
            restarts_max: 3,
            restart_period: Duration::from_secs(5),
            connection_threads_max: 64,
            handshakes_max: 1024,
            handshakes_per_address_max: 256,
            digests_per_sec_max: 10,
            handshake_log_interval: Duration::from_secs(60),
            peers_max: 4096,
            dials_max: 64,
            backoff_first: Duration::from_millis(200),
            backoff_max: Duration::from_secs(10),
        }
    }
}
