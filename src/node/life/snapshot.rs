//! A node in numbers, at one moment.
//!
//! Reading it takes a few locks for a short while each, and adds up what others have counted: once a second is no
//! burden. What is counted costs a call next to nothing ([`latency`](crate::node::latency)).

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use crate::node::Node;
use crate::node::peers::PeerHandle;
use crate::process::Process;
use crate::process::figures::ServerSums;

/// What a node does.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Snapshot {
    /// Its full name.
    pub node: String,
    /// The version of this crate.
    pub version: String,
    /// When it was started, in seconds since 1970.
    pub started_unix_secs: f64,
    /// How long it has been up, in seconds.
    pub uptime_secs: f64,
    /// Whether it serves: registered with epmd if it can be connected to and is found so, and not about to end.
    pub ready: bool,
    /// The distribution port; 0: it does not listen.
    pub port: u16,
    /// Bytes of the process's memory that are in the machine's, where the system tells.
    pub resident_bytes: Option<u64>,
    /// The nodes that it is connected to, by name.
    pub peers: Vec<PeerSnapshot>,
    /// The nodes that are to be kept connected and are not.
    pub missing: Vec<String>,
    /// The servers that the program has started, with those that have ended, by name.
    #[serde(default)]
    pub servers: Vec<ServerSnapshot>,
    /// Answers that were queued while their message was handled, and those of each [`Server`](crate::Server), by how long that took: in each class of
    /// [`BOUNDS_NANOS`](crate::node::latency::BOUNDS_NANOS), and above. Estimated from samples where a connection is busy.
    pub answers: Vec<u64>,
    /// How long these took together, in nanoseconds.
    pub answers_nanos: u64,
}

impl Snapshot {
    /// How many fields it has.
    pub(crate) const FIELDS: usize = 12;

    /// Writes its fields among those of what holds it.
    pub(crate) fn fields<S: SerializeStruct>(&self, to: &mut S) -> Result<(), S::Error> {
        let Self {
            node,
            version,
            started_unix_secs,
            uptime_secs,
            ready,
            port,
            resident_bytes,
            peers,
            missing,
            servers,
            answers,
            answers_nanos,
        } = self;
        to.serialize_field("node", node)?;
        to.serialize_field("version", version)?;
        to.serialize_field("started_unix_secs", started_unix_secs)?;
        to.serialize_field("uptime_secs", uptime_secs)?;
        to.serialize_field("ready", ready)?;
        to.serialize_field("port", port)?;
        to.serialize_field("resident_bytes", resident_bytes)?;
        to.serialize_field("peers", peers)?;
        to.serialize_field("missing", missing)?;
        to.serialize_field("servers", servers)?;
        to.serialize_field("answers", answers)?;
        to.serialize_field("answers_nanos", answers_nanos)
    }
}

impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Snapshot", Self::FIELDS)?;
        self.fields(&mut out)?;
        out.end()
    }
}

/// A connected node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerSnapshot {
    /// Its full name.
    pub name: String,
    /// Whether it is a hidden node.
    pub hidden: bool,
    /// How long it has been connected, in seconds.
    pub up_secs: f64,
    /// Bytes that were read from it.
    pub received_bytes: u64,
    /// Bytes that were written to it.
    pub sent_bytes: u64,
    /// Bytes that wait for it.
    pub queued_bytes: u64,
    /// Batches of messages to it that were dropped because too much waited.
    pub dropped: u64,
}

/// What the servers of one name have done, each since it was started. A server that is started again under its name goes on
/// counting where the one before has ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerSnapshot {
    /// The first name that the server was given, as `local:counter` or `global:counter`; servers without a name are added
    /// up under their Rust type, as `app::Counter`. There are 64 of these, and servers under any other name are added up as
    /// `others`.
    pub name: String,
    /// How many of them live.
    pub processes: u64,
    /// Calls whose handling has begun. (What a [`GenServer`](crate::GenServer) has wait for room is counted at each try.)
    pub calls: u64,
    /// Casts.
    pub casts: u64,
    /// Other messages: of processes, timers, tasks and the program itself, and news of monitors.
    pub infos: u64,
    /// How often one of them was started again by its supervisor.
    pub restarts: u64,
    /// Messages in mailboxes.
    pub waiting_messages: u64,
    /// Bytes of these.
    pub waiting_bytes: u64,
    /// How long handlers took together, in nanoseconds, with what they waited for. Of a [`GenServer`](crate::GenServer)
    /// estimated from samples where a connection is busy.
    pub handling_nanos: u64,
    /// Calls that were answered or ended, by how long after their arrival: in each class of
    /// [`BOUNDS_NANOS`](crate::node::latency::BOUNDS_NANOS), and above. Of a [`GenServer`](crate::GenServer) without those that it
    /// answers later, and estimated likewise.
    pub answers: Vec<u64>,
    /// How long these took together, in nanoseconds.
    pub answers_nanos: u64,
}

impl ServerSnapshot {
    /// Messages of all kinds whose handling has begun.
    pub const fn handled(&self) -> u64 {
        self.calls + self.casts + self.infos
    }

    fn new(name: &str, sums: &ServerSums) -> Self {
        Self {
            name: name.to_owned(),
            processes: sums.processes,
            calls: sums.calls,
            casts: sums.casts,
            infos: sums.infos,
            restarts: sums.restarts,
            waiting_messages: sums.waiting_messages,
            waiting_bytes: sums.waiting_bytes,
            handling_nanos: sums.handling_nanos,
            answers: sums.answers.to_vec(),
            answers_nanos: sums.answers_nanos,
        }
    }
}

impl Node {
    /// The node in numbers.
    pub fn snapshot(&self) -> Snapshot {
        let mut peers: Vec<Arc<PeerHandle>> = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        let missing = self
            .config
            .connect
            .iter()
            .map(|kept| &kept.name)
            .filter(|wanted| !peers.iter().any(|peer| *peer.name == *wanted.as_str()));
        let (answers, answers_nanos) = self.figures.latency.read();
        Snapshot {
            node: self.config.node_name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_unix_secs: self.figures.started_unix.as_secs_f64(),
            uptime_secs: self.figures.started.elapsed().as_secs_f64(),
            ready: self.is_ready(),
            port: self.listening.port(),
            resident_bytes: resident_bytes(),
            missing: missing.map(ToString::to_string).collect(),
            peers: peers.iter().map(|peer| shown(peer)).collect(),
            servers: self.servers(),
            answers: answers.to_vec(),
            answers_nanos,
        }
    }

    fn servers(&self) -> Vec<ServerSnapshot> {
        // A server has a pid for each of its names in `global`.
        let by_server: BTreeMap<_, Arc<Process>> = self
            .registry
            .processes()
            .into_iter()
            .filter_map(|process| Some((Arc::as_ptr(process.figures.as_ref()?), process)))
            .collect();
        let living = by_server.values().filter_map(|process| {
            let server = &process.server;
            Some((process.figures.as_deref()?, server.messages_waiting(), server.bytes_waiting()))
        });
        let all = self.figures.servers.read(living);
        all.iter().map(|(name, sums)| ServerSnapshot::new(name, sums)).collect()
    }

    /// Whether it serves: it is not about to end, and epmd knows it if it listens and is found by epmd.
    pub fn is_ready(&self) -> bool {
        let needs_epmd = self.epmd.is_some() && self.listening.port() != 0;
        !self.is_stopping() && (!needs_epmd || self.figures.is_registered())
    }
}

fn shown(peer: &PeerHandle) -> PeerSnapshot {
    let seen = peer.seen();
    PeerSnapshot {
        name: peer.name.to_string(),
        hidden: !peer.is_visible(),
        up_secs: peer.since.elapsed().as_secs_f64(),
        received_bytes: seen.received_bytes,
        sent_bytes: seen.sent_bytes,
        queued_bytes: seen.queued_bytes,
        dropped: seen.dropped,
    }
}

/// proc_pid_statm(5): the second number, in pages.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
