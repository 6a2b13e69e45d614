//! A node and its stores in numbers, at one moment: what `:status` of the process `:kvnode`, `/metrics` and `/status.json`
//! show.

use std::ops::Deref;

use serde::ser::{SerializeStruct, Serializer};
use serde::{Deserialize, Serialize};

use super::{Program, StoreConfig, in_etcd};
use crate::kv::figures::{Counts, PrimaryFigures, Served, StoreWatch, WatchFigures};
pub use crate::kv::reason::{Reason, ReasonKind};
use crate::kv::{ElectionFigures, SlaveEntry};
use crate::node;
use crate::replica::{PrimaryStanding, SlaveName, SlaveState};
use crate::store::{EtcdFigures, EtcdMember, EtcdSeen, Keeper};

/// What a node does and holds. What a node does without stores is read as if it were in here: `snapshot.version`. All of it is one
/// map for others, without a map in it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Snapshot {
    /// What it does.
    #[serde(flatten)]
    pub of_node: node::Snapshot,
    /// Bytes that stores in memory may hold together; `None`: no bound.
    pub stored_bytes_max: Option<u64>,
    /// Bytes that they hold, as that bound counts them.
    pub stored_bytes: u64,
    /// The stores that it was configured with, in order.
    pub stores: Vec<StoreSnapshot>,
    /// The last warnings and errors that the program has logged, oldest first; none where it does not log by
    /// [`log`](crate::program::log).
    pub log: Vec<LoggedLine>,
}

impl Deref for Snapshot {
    type Target = node::Snapshot;

    fn deref(&self) -> &node::Snapshot {
        &self.of_node
    }
}

/// As a struct without another in it: `:status` has atoms as keys, and serde's `flatten` would have them be strings.
impl Serialize for Snapshot {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { of_node, stored_bytes_max, stored_bytes, stores, log } = self;
        let mut out = serializer.serialize_struct("Snapshot", node::Snapshot::FIELDS + 4)?;
        of_node.fields(&mut out)?;
        out.serialize_field("stored_bytes_max", stored_bytes_max)?;
        out.serialize_field("stored_bytes", stored_bytes)?;
        out.serialize_field("stores", stores)?;
        out.serialize_field("log", log)?;
        out.end()
    }
}

impl Snapshot {
    /// The servers that are neither stores nor the process that tells of this node: those of the program that has put more
    /// than stores onto it.
    pub fn servers_beside(&self) -> impl Iterator<Item = &node::ServerSnapshot> {
        let is_store = |name: &String| self.stores.iter().any(|store| store.names.contains(name));
        let is_own = |name: &String| name.strip_prefix("local:") == Some(super::STATUS_NAME);
        self.servers.iter().filter(move |server| !is_store(&server.name) && !is_own(&server.name))
    }
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
    /// Keys that have a deadline.
    #[serde(default)]
    pub deadlines: u64,
    /// Keys that were removed since the node started, as they had ended.
    #[serde(default)]
    pub expired: u64,
    /// What it was asked for since the node started.
    pub requests: Requests,
    /// Requests that were not done since then, by why: of those reasons that there were.
    #[serde(default)]
    pub not_done: Vec<NotDone>,
    /// The watches of its changes.
    #[serde(default)]
    pub watches: Watches,
    /// The node of its primary: of the kvnode that it follows, also when that is gone; else the connected node that an
    /// unnumbered replicated write came from last, which an Elixir primary sends.
    pub primary: Option<String>,
    /// How it stands with that primary.
    #[serde(default)]
    pub primary_standing: Option<PrimarySnapshot>,
    /// What keeps it: `memory`, `disk`, `etcd`, or `other`. Empty: the node is of a version that does not tell.
    #[serde(default)]
    pub engine: String,
    /// How it stands to the etcd that keeps it.
    #[serde(default)]
    pub etcd: Option<EtcdSnapshot>,
    /// How the election of its primary stands; `None`: there is none.
    #[serde(default)]
    pub election: Option<ElectionSnapshot>,
    /// Its slaves.
    pub slaves: Vec<SlaveSnapshot>,
}

impl StoreSnapshot {
    /// Requests that were not done since the node started, for this reason.
    pub fn not_done_by(&self, reason: Reason) -> u64 {
        self.not_done.iter().find(|not_done| not_done.reason == reason.label()).map_or(0, |found| found.count)
    }

    /// The same of all reasons of a kind.
    pub fn not_done_of(&self, kind: ReasonKind) -> u64 {
        self.not_done.iter().filter(|not_done| not_done.kind == kind.code()).map(|found| found.count).sum()
    }
}

/// Requests that were not done, for one reason. (Words are text, since a newer node may have reasons that are not known here.)
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotDone {
    /// A [`Reason`], by its word.
    pub reason: String,
    /// Its [`ReasonKind`], by its word.
    pub kind: String,
    /// How many.
    pub count: u64,
}

/// Those reasons that there were.
fn not_done(watch: &StoreWatch) -> Vec<NotDone> {
    let counts = Reason::ALL.iter().zip(watch.not_done()).filter(|(_, count)| *count > 0);
    let shown = counts.map(|(reason, count)| NotDone {
        reason: reason.label().to_owned(),
        kind: reason.kind().code().to_owned(),
        count,
    });
    shown.collect()
}

/// The watchers of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watches {
    /// Watches that there are now.
    pub watchers: u64,
    /// Changes that watchers were told, and entries that they were shown, since the node started.
    pub events: u64,
    /// Watchers that were dropped since then, as they were too slow.
    pub overruns: u64,
}

impl From<WatchFigures> for Watches {
    fn from(WatchFigures { watchers, events, overruns }: WatchFigures) -> Self {
        Self { watchers: watchers as u64, events, overruns }
    }
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

/// How a store stands to the etcd that keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EtcdSnapshot {
    /// An [`EtcdState`](crate::store::EtcdState), by its word. (Text, since a newer node may have states that are not known here.)
    pub state: String,
    /// The revision of etcd up to which all is here; 0: it is not loaded yet.
    pub revision: u64,
    /// Revisions of etcd by which the store is behind the last write to it, of any process; `None`: etcd has not said yet.
    #[serde(default)]
    pub behind: Option<u64>,
    /// Seconds since etcd was asked for that last and has answered.
    #[serde(default)]
    pub heard_secs: Option<f64>,
    /// The node that has the store's names; `None`: none has, as far as is known.
    #[serde(default)]
    pub holder: Option<String>,
    /// The members, in the order in which they were named.
    pub members: Vec<EtcdMemberSnapshot>,
}

impl EtcdSnapshot {
    /// The URL of the member that leads, as far as is known.
    pub fn leader(&self) -> Option<&str> {
        self.members.iter().find(|member| member.leads).map(|member| member.endpoint.as_str())
    }

    /// The largest of the members' files, and what is in use of it, in bytes; `None`: no member has said.
    pub fn file(&self) -> Option<(u64, u64)> {
        let known = |member: &EtcdMemberSnapshot| Some((member.file_bytes?, member.used_bytes?));
        self.members.iter().filter_map(known).max()
    }
}

/// A member of etcd.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EtcdMemberSnapshot {
    /// Its URL.
    pub endpoint: String,
    /// Whether it answers: else it is left alone until it answers again.
    pub asked: bool,
    /// Its version; `None`, as the sizes: it has not answered the last question.
    #[serde(default)]
    pub version: Option<String>,
    /// Whether it leads the others.
    #[serde(default)]
    pub leads: bool,
    /// Bytes of its file.
    #[serde(default)]
    pub file_bytes: Option<u64>,
    /// Bytes of its file that are in use.
    #[serde(default)]
    pub used_bytes: Option<u64>,
    /// What is wrong with it, in its words: its alarms, and that it has no leader.
    #[serde(default)]
    pub errors: Vec<String>,
}

impl EtcdSnapshot {
    fn new(figures: EtcdFigures, holder: Option<String>) -> Self {
        let EtcdFigures { state, revision, lag, members } = figures;
        Self {
            state: state.code().to_owned(),
            revision,
            behind: lag.map(|lag| lag.revisions),
            heard_secs: lag.map(|lag| lag.heard_ms as f64 / 1000.0),
            holder,
            members: members.into_iter().map(EtcdMemberSnapshot::from).collect(),
        }
    }
}

impl From<EtcdMember> for EtcdMemberSnapshot {
    fn from(EtcdMember { endpoint, is_asked, seen }: EtcdMember) -> Self {
        let (file_bytes, used_bytes) =
            (seen.as_ref().map(|seen| seen.file_bytes), seen.as_ref().map(|seen| seen.used_bytes));
        let is_known = seen.is_some();
        let EtcdSeen { version, leads, errors, .. } = seen.unwrap_or_default();
        Self {
            endpoint,
            asked: is_asked,
            version: is_known.then_some(version),
            leads,
            file_bytes,
            used_bytes,
            errors,
        }
    }
}

/// Requests since the start of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
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
    /// Requests that were refused: the sum of `not_done` of this kind. (A `kvnode top` of before reads it here.)
    pub refused: u64,
    /// Writes of callers while the store is a kvnode's slave, which `--slave-writes` is about. (They are among the puts and
    /// deletes too.)
    pub at_slave: u64,
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
            Served::AtSlave => self.at_slave,
        }
    }
}

impl From<Counts> for Requests {
    fn from([get, put, delete, replicated, other, at_slave]: Counts) -> Self {
        Self { get, put, delete, replicated, other, refused: 0, at_slave }
    }
}

/// An election, as one of its stores sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionSnapshot {
    /// An [`ElectionState`](crate::kv::ElectionState), by its word.
    pub state: String,
    /// The fence of the newest primary that is known; 0: of none.
    pub fence: u64,
    /// The primary's node; `None`: there is none, as far as is known.
    pub primary: Option<String>,
    /// Of an election that is under way: how many reports count.
    pub reports: Option<u64>,
    /// How many are needed.
    pub reports_needed: Option<u64>,
    /// Nodes that it lacks: their data may be of matter, and they are not there, or have lost it.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Since when it stands so, in milliseconds since 1970.
    pub since: u64,
    /// The nodes of the slaves that count for confirmed writes.
    pub counted: Vec<String>,
    /// How often another primary was elected since the store's process began.
    pub elections: u64,
}

impl From<ElectionFigures> for ElectionSnapshot {
    fn from(figures: ElectionFigures) -> Self {
        let ElectionFigures { state, fence, primary, round, since, counted, missing, elections } = figures;
        Self {
            state: state.code().to_owned(),
            fence,
            primary: primary.map(|node| node.to_string()),
            reports: round.map(|(reports, _)| reports),
            reports_needed: round.map(|(_, needed)| needed),
            missing: missing.iter().map(ToString::to_string).collect(),
            since,
            counted: counted.iter().map(ToString::to_string).collect(),
            elections,
        }
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
        let mut of_node = self.node.snapshot();
        of_node.ready &= self.is_loaded();
        // A node that has sent a replicated write and left was perhaps never a primary's, and cannot be told from one that was.
        let is_here = |name: &str| name == of_node.node || of_node.peers.iter().any(|peer| peer.name == name);
        let not_there = StoreWatch::default();
        let stores = self.stores.iter().map(|known| {
            let watch = known.life.get().map_or(&not_there, |life| &life.watch);
            let writer = watch.last_replicated_from().filter(|node| is_here(node));
            let loading = || self.etcd.as_ref().map(|etcd| Keeper::Etcd(in_etcd::figures(etcd)));
            let keeper = watch.server().map(|server| server.keeper()).or_else(loading);
            store(&known.names, watch, writer.as_deref(), keeper, &of_node.node)
        });
        Snapshot {
            stores: stores.collect(),
            stored_bytes_max: Some(self.stored_bytes_max).filter(|max| *max < u64::MAX),
            stored_bytes: self.room.used(),
            of_node,
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

/// `writer`: the connected node that has sent replicated writes without a greeting. `own`: this node.
fn store(
    names: &StoreConfig,
    watch: &StoreWatch,
    writer: Option<&str>,
    keeper: Option<Keeper>,
    own: &str,
) -> StoreSnapshot {
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
        deadlines: server.as_ref().map_or(0, |server| server.deadlines() as u64),
        expired: watch.expired(),
        requests: Requests { refused: watch.not_done_of(ReasonKind::Refused), ..watch.counts().into() },
        not_done: not_done(watch),
        watches: watch.watches().into(),
        primary,
        primary_standing,
        engine: keeper.as_ref().map_or("", Keeper::code).to_owned(),
        etcd: match keeper {
            Some(Keeper::Etcd(figures)) => {
                let holder = server.as_ref().and_then(|server| server.holder());
                Some(EtcdSnapshot::new(
                    figures,
                    holder.and_then(|holder| holder.node(own).map(str::to_owned)),
                ))
            }
            _ => None,
        },
        election: server.as_ref().and_then(|server| server.election()).map(Into::into),
        slaves: server
            .map_or_else(Vec::new, |server| server.slaves().iter().map(|slave| followed(slave)).collect()),
    }
}

fn followed(slave: &SlaveEntry) -> SlaveSnapshot {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::text::{InspectLimits, inspect};
    use crate::etf::{OwnedTerm, from_term, write_term};

    #[test]
    fn a_snapshot_is_one_map_with_atoms_and_is_read_back() {
        let snapshot = Snapshot {
            of_node: node::Snapshot {
                node: "a@h".into(),
                version: "1".into(),
                started_unix_secs: 1.5,
                uptime_secs: 2.0,
                ready: true,
                port: 7,
                resident_bytes: None,
                peers: vec![node::PeerSnapshot {
                    name: "b@h".into(),
                    hidden: true,
                    up_secs: 1.0,
                    received_bytes: 1,
                    sent_bytes: 2,
                    queued_bytes: 3,
                    dropped: 4,
                }],
                missing: vec!["c@h".into()],
                servers: vec![node::ServerSnapshot {
                    name: "local:s".into(),
                    calls: 5,
                    ..Default::default()
                }],
                answers: vec![0, 1, 255],
                answers_nanos: u64::MAX,
            },
            stored_bytes_max: Some(9),
            stored_bytes: 8,
            stores: Vec::new(),
            log: vec![LoggedLine { unix_secs: 0.5, level: "WARN".into(), text: "ñ".into() }],
        };
        let term = OwnedTerm::write(|w| write_term(&snapshot, w).expect("it is written")).expect("one term");
        let text = inspect(term.view(), InspectLimits { text_bytes_max: usize::MAX });
        assert!(text.contains("node: \"a@h\"") && text.contains("stored_bytes: 8"), "{text}");
        assert!(!text.contains("of_node"), "{text}");
        assert_eq!(from_term::<Snapshot>(term.view()), Ok(snapshot));
    }
    /// The requests of a store as a `kvnode top` of before reads them.
    #[derive(Debug, PartialEq, Deserialize)]
    struct RequestsBefore {
        get: u64,
        refused: u64,
    }

    #[test]
    fn requests_are_read_by_versions_before_and_of_them() {
        let now = Requests { get: 3, refused: 2, ..Requests::default() };
        let term = OwnedTerm::write(|w| write_term(&now, w).expect("it is written")).expect("one term");
        assert_eq!(from_term(term.view()), Ok(RequestsBefore { get: 3, refused: 2 }));
        let before = OwnedTerm::write(|w| _ = w.map(1).atom("get").unsigned(3)).expect("one term");
        assert_eq!(from_term(before.view()), Ok(Requests { get: 3, ..Requests::default() }));
    }
}
