//! A node and its stores in numbers, at one moment: what `:status` of the process `:kvnode`, `/metrics` and `/status.json`
//! show.

use serde::{Deserialize, Serialize};

use super::{Program, StoreConfig};
use crate::kv::figures::{Counts, PrimaryFigures, Served, StoreWatch};
use crate::node::{self, PeerSnapshot};
use crate::replica::{PrimaryStanding, Slave, SlaveName, SlaveState};

/// What a node does and holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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
    /// Bytes that stores in memory may hold together; `None`: no bound.
    pub stored_bytes_max: Option<u64>,
    /// Bytes that they hold, as that bound counts them.
    pub stored_bytes: u64,
    /// The stores that it was configured with, in order.
    pub stores: Vec<StoreSnapshot>,
    /// The nodes that it is connected to, by name.
    pub peers: Vec<PeerSnapshot>,
    /// The nodes that are to be kept connected and are not.
    pub missing: Vec<String>,
    /// Answers that were queued while their message was handled, by how long that took: in each class of
    /// [`BOUNDS_NANOS`](node::latency::BOUNDS_NANOS), and above. Estimated from samples where a connection is busy.
    pub answers: Vec<u64>,
    /// How long these took together, in nanoseconds.
    pub answers_nanos: u64,
    /// The last warnings and errors that the program has logged, oldest first; none where it does not log by
    /// [`log`](crate::program::log).
    pub log: Vec<LoggedLine>,
}

/// A warning or an error that was logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LoggedLine {
    /// When, in seconds since 1970.
    pub unix_secs: f64,
    /// `WARN` or `ERROR`.
    pub level: String,
    /// The message and its fields.
    pub text: String,
}

/// One store.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreSnapshot {
    /// Its names, as `global:slave1` and `local:Elixir.KeyValueStore`.
    pub names: Vec<String>,
    /// Whether a server has it now: a store that has ended is started again.
    pub up: bool,
    /// Number of keys.
    pub entries: u64,
    /// Bytes of keys and values.
    pub bytes: u64,
    /// What it was asked for since the node started.
    pub requests: Requests,
    /// The node of its primary: of the kvnode that it follows, also when that is gone; else the connected node that an
    /// unnumbered replicated write came from last, which an Elixir primary sends.
    pub primary: Option<String>,
    /// How it stands with that primary.
    #[serde(default)]
    pub primary_standing: Option<PrimarySnapshot>,
    /// Its slaves.
    pub slaves: Vec<SlaveSnapshot>,
}

/// How a store stands with its primary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrimarySnapshot {
    /// A [`PrimaryStanding`], by its word. (Text, since a newer node may have states that are not known here.)
    pub state: String,
    /// The number of the last write of the primary that the store has, with all before it; `None` for one that numbers none.
    pub seq: Option<u64>,
    /// Writes of the primary that the store has not, as far as is known at the store; `None` for one that numbers none.
    pub lag: Option<u64>,
}

/// Requests since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    /// `{:get, key}`.
    pub get: u64,
    /// `{:put, key, value}`.
    pub put: u64,
    /// `{:delete, key}`.
    pub delete: u64,
    /// Writes of a primary.
    pub replicated: u64,
    /// Other calls that it knows.
    pub other: u64,
    /// What it does not know, or cannot keep. (Those of the latter kind are also among the puts, gets and deletes.)
    pub refused: u64,
}

impl Requests {
    /// Calls and casts that it knows.
    pub const fn served(&self) -> u64 {
        self.get + self.put + self.delete + self.replicated + self.other
    }

    /// Those of one kind.
    pub const fn of(&self, kind: Served) -> u64 {
        match kind {
            Served::Get => self.get,
            Served::Put => self.put,
            Served::Delete => self.delete,
            Served::Replicated => self.replicated,
            Served::Other => self.other,
            Served::Refused => self.refused,
        }
    }
}

impl From<Counts> for Requests {
    fn from([get, put, delete, replicated, other, refused]: Counts) -> Self {
        Self { get, put, delete, replicated, other, refused }
    }
}

/// A slave of a store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlaveSnapshot {
    /// Its name, in Elixir's syntax.
    pub name: String,
    /// The node that it was found on.
    pub node: Option<String>,
    /// A [`StandingKind`](crate::replica::StandingKind), by its word, as above.
    pub state: String,
    /// Of one that is `in_step`: writes that it has not acknowledged. Of others: keys that it misses; `None`: all.
    pub lag: Option<u64>,
    /// Of one that is copied: keys that there are to send, as far as is known.
    pub total: Option<u64>,
}

impl Program {
    /// The node and its stores in numbers.
    pub fn snapshot(&self) -> Snapshot {
        let node::Snapshot {
            node,
            version,
            started_unix_secs,
            uptime_secs,
            ready,
            port,
            resident_bytes,
            peers,
            missing,
            answers,
            answers_nanos,
        } = self.node.snapshot();
        // Whoever has sent a replicated write and gone was perhaps never a primary, and cannot be told from one that was.
        let is_here = |name: &str| name == node || peers.iter().any(|peer| peer.name == name);
        let stores = self.stores.iter().map(|started| {
            let writer = started.watch.last_replicated_from().filter(|node| is_here(node));
            store(&started.names, &started.watch, writer.as_deref())
        });
        Snapshot {
            stores: stores.collect(),
            node,
            version,
            started_unix_secs,
            uptime_secs,
            ready,
            port,
            resident_bytes,
            stored_bytes_max: Some(self.stored_bytes_max).filter(|max| *max < u64::MAX),
            stored_bytes: self.room.used(),
            peers,
            missing,
            answers,
            answers_nanos,
            log: logged(),
        }
    }
}

/// None, where the program does not log by kvnode's `log`.
fn logged() -> Vec<LoggedLine> {
    #[cfg(feature = "cli")]
    return super::log::recent();
    #[cfg(not(feature = "cli"))]
    Vec::new()
}

/// `writer`: who has sent replicated writes without having introduced itself, and is connected.
fn store(names: &StoreConfig, watch: &StoreWatch, writer: Option<&str>) -> StoreSnapshot {
    let (primary, primary_standing) = match (watch.primary(), writer) {
        (Some(PrimaryFigures { node, state, seq, lag }), _) => {
            let state = state.code().to_owned();
            (Some(node), Some(PrimarySnapshot { state, seq: Some(seq), lag: Some(lag) }))
        }
        (None, Some(node)) => (
            Some(node.to_owned()),
            Some(PrimarySnapshot { state: PrimaryStanding::Writing.code().to_owned(), seq: None, lag: None }),
        ),
        (None, None) => (None, None),
    };
    let global = names.global.iter().map(|name| format!("global:{name}"));
    let server = watch.server();
    StoreSnapshot {
        names: global.chain(names.local.iter().map(|name| format!("local:{name}"))).collect(),
        up: server.is_some(),
        entries: server.as_ref().map_or(0, |server| server.entries() as u64),
        bytes: server.as_ref().map_or(0, |server| server.bytes()),
        requests: watch.counts().into(),
        primary,
        primary_standing,
        slaves: server
            .map_or_else(Vec::new, |server| server.slaves().iter().map(|slave| followed(slave)).collect()),
    }
}

fn followed(slave: &Slave) -> SlaveSnapshot {
    let standing = slave.standing();
    let node = match (slave.state(), slave.name()) {
        (SlaveState::Following(at), _) => Some(at.node().to_string()),
        (_, SlaveName::Remote { node, .. }) => Some(node.to_string()),
        (_, SlaveName::Pid(pid)) => Some(pid.node.to_string()),
        _ => None,
    };
    let state = standing.kind().code().to_owned();
    SlaveSnapshot {
        name: slave.name().to_string(),
        node,
        state,
        lag: standing.lag(),
        total: standing.total(),
    }
}
