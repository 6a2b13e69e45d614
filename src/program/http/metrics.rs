//! `/metrics`: Prometheus's text format, version 0.0.4 (prometheus.io, "Exposition formats"), with names and base units as
//! its "Metric and label naming" wants them.

use std::fmt::Write;

use crate::kv::ElectionState;
use crate::kv::figures::Served;
use crate::node::ServerSnapshot;
use crate::node::latency::BOUNDS_NANOS;
use crate::program::Snapshot;
use crate::program::snapshot::{ElectionSnapshot, EtcdMemberSnapshot, Reason, ReasonKind};
use crate::replica::{PrimaryStanding, StandingKind};
use crate::store::EtcdState;

/// A text with the metrics of a node.
pub(super) fn write(snapshot: &Snapshot) -> String {
    let mut page = Page::default();
    let label = |name: &'static str, value: &str| (name, value.to_owned());
    page.metric("kvnode_info", "gauge", "The node and the version of kvnode; always 1.");
    page.value("kvnode_info", &[label("node", &snapshot.node), label("version", &snapshot.version)], 1.0);
    page.single(
        "kvnode_ready",
        "gauge",
        "Whether the node serves: epmd knows it, its stores are loaded, and it does not end.",
        f64::from(snapshot.ready),
    );
    page.single(
        "process_start_time_seconds",
        "gauge",
        "When the process was started, since 1970.",
        snapshot.started_unix_secs,
    );
    if let Some(bytes) = snapshot.resident_bytes {
        page.single("process_resident_memory_bytes", "gauge", "Memory of the process.", bytes as f64);
    }
    page.single(
        "kvnode_stored_bytes",
        "gauge",
        "Bytes that stores in memory hold, as --memory-max counts them.",
        snapshot.stored_bytes as f64,
    );
    if let Some(max) = snapshot.stored_bytes_max {
        page.single(
            "kvnode_stored_bytes_limit",
            "gauge",
            "Bytes that they may hold: --memory-max.",
            max as f64,
        );
    }
    stores(&mut page, snapshot);
    etcd(&mut page, snapshot);
    elections(&mut page, snapshot);
    primaries(&mut page, snapshot);
    slaves(&mut page, snapshot);
    peers(&mut page, snapshot);
    servers(&mut page, snapshot);
    page.metric(
        "kvnode_answer_duration_seconds",
        "histogram",
        "From the read that brought a message until its answer was queued; sampled where a connection is busy.",
    );
    page.classes("kvnode_answer_duration_seconds", &[], &snapshot.answers, snapshot.answers_nanos);
    page.text
}

/// Stores, and the servers that the program has started beside them.
fn servers(page: &mut Page, snapshot: &Snapshot) {
    let labels = |server: &ServerSnapshot| vec![("server", server.name.clone())];
    type Figure = (&'static str, &'static str, &'static str, fn(&ServerSnapshot) -> f64);
    let figures: [Figure; 5] = [
        ("kvnode_server_processes", "gauge", "Processes of a server that live.", |server| {
            server.processes as f64
        }),
        ("kvnode_server_waiting_messages", "gauge", "Messages in the mailbox of a server.", |server| {
            server.waiting_messages as f64
        }),
        ("kvnode_server_waiting_bytes", "gauge", "Bytes of messages in the mailbox of a server.", |server| {
            server.waiting_bytes as f64
        }),
        (
            "kvnode_server_restarts_total",
            "counter",
            "How often a server was started again by its supervisor.",
            |server| server.restarts as f64,
        ),
        (
            "kvnode_server_handling_seconds_total",
            "counter",
            "How long the handlers of a server took, with what they waited for; sampled where a connection is busy.",
            |server| seconds(server.handling_nanos),
        ),
    ];
    for (metric, kind, help, value) in figures {
        page.metric(metric, kind, help);
        for server in &snapshot.servers {
            page.value(metric, &labels(server), value(server));
        }
    }
    page.metric("kvnode_server_handled_total", "counter", "Messages that a server has handled.");
    for server in &snapshot.servers {
        for (message, count) in [("call", server.calls), ("cast", server.casts), ("info", server.infos)] {
            let labels = [labels(server), vec![("message", message.to_owned())]].concat();
            page.value("kvnode_server_handled_total", &labels, count as f64);
        }
    }
    let metric = "kvnode_server_answer_duration_seconds";
    page.metric(metric, "histogram", "From the arrival of a call at a server until its answer was queued.");
    for server in &snapshot.servers {
        page.classes(metric, &labels(server), &server.answers, server.answers_nanos);
    }
}

fn stores(page: &mut Page, snapshot: &Snapshot) {
    let named = |store: usize| vec![("store", name(snapshot, store))];
    type Gauge = (&'static str, &'static str, fn(&crate::program::snapshot::StoreSnapshot) -> f64);
    let gauges: [Gauge; 5] = [
        ("kvnode_store_up", "Whether a server has the store now.", |store| f64::from(store.up)),
        ("kvnode_store_entries", "Keys in a store.", |store| store.entries as f64),
        ("kvnode_store_bytes", "Bytes of keys and values in a store.", |store| store.bytes as f64),
        ("kvnode_store_deadlines", "Keys in a store that have a deadline.", |store| store.deadlines as f64),
        ("kvnode_store_watches", "Watches of a store.", |store| store.watches.watchers as f64),
    ];
    for (metric, help, value) in gauges {
        page.metric(metric, "gauge", help);
        for (number, store) in snapshot.stores.iter().enumerate() {
            page.value(metric, &named(number), value(store));
        }
    }
    page.metric("kvnode_store_requests_total", "counter", "What a store was asked for.");
    for (number, store) in snapshot.stores.iter().enumerate() {
        // What comes to a slave is among the others too, and has a metric of its own.
        for kind in Served::ALL.into_iter().filter(|kind| *kind != Served::AtSlave) {
            let mut labels = named(number);
            labels.push(("request", kind.code().to_owned()));
            page.value("kvnode_store_requests_total", &labels, store.requests.of(kind) as f64);
        }
    }
    let kinds = [
        (
            "kvnode_store_refused_total",
            ReasonKind::Refused,
            "Requests that a store did not carry out, by what it answered: the caller's fault, or a bound.",
        ),
        (
            "kvnode_store_conflicts_total",
            ReasonKind::Conflict,
            "Requests of a store that found something else than they expected: comparisons, and guards of transactions.",
        ),
        (
            "kvnode_store_failed_total",
            ReasonKind::Failed,
            "Requests, and writes of a primary, that a store failed at, or too few slaves confirmed.",
        ),
    ];
    for (metric, kind, help) in kinds {
        page.metric(metric, "counter", help);
        for (number, store) in snapshot.stores.iter().enumerate() {
            // Those too that there were none of yet: a rate begins at a 0.
            for reason in Reason::ALL.iter().filter(|reason| reason.kind() == kind) {
                let mut labels = named(number);
                labels.push(("reason", reason.to_string()));
                page.value(metric, &labels, store.not_done_by(*reason) as f64);
            }
        }
    }
    page.metric(
        "kvnode_store_slave_writes_total",
        "counter",
        "Writes of callers to a store that is a kvnode's slave: --slave-writes says what becomes of them.",
    );
    for (number, store) in snapshot.stores.iter().enumerate() {
        page.value("kvnode_store_slave_writes_total", &named(number), store.requests.at_slave as f64);
    }
    let counters: [Gauge; 3] = [
        (
            "kvnode_store_expired_total",
            "Keys of a store that were removed, as they had ended, by whichever node of the store; not at slaves, whose primaries delete them.",
            |store| store.expired as f64,
        ),
        (
            "kvnode_store_watch_events_total",
            "Changes that watchers of a store were told, and entries that they were shown.",
            |store| store.watches.events as f64,
        ),
        (
            "kvnode_store_watch_overruns_total",
            "Watchers of a store that were dropped, as they were too slow.",
            |store| store.watches.overruns as f64,
        ),
    ];
    for (metric, help, value) in counters {
        page.metric(metric, "counter", help);
        for (number, store) in snapshot.stores.iter().enumerate() {
            page.value(metric, &named(number), value(store));
        }
    }
}

/// What keeps the stores, and of those in etcd how they stand to it.
fn etcd(page: &mut Page, snapshot: &Snapshot) {
    page.metric("kvnode_store_engine", "gauge", "What keeps a store; always 1.");
    for (number, store) in snapshot.stores.iter().enumerate() {
        let labels = [("store", name(snapshot, number)), ("engine", store.engine.clone())];
        page.value("kvnode_store_engine", &labels, 1.0);
    }
    let stores = || {
        let kept = snapshot.stores.iter().enumerate();
        kept.filter_map(|(number, store)| Some((name(snapshot, number), store.etcd.as_ref()?)))
    };
    page.metric("kvnode_store_etcd_state", "gauge", "1 for the state that a store in etcd is in.");
    for (store, etcd) in stores() {
        let all = EtcdState::ALL.map(EtcdState::code);
        states(page, "kvnode_store_etcd_state", &[("store", store)], all, &etcd.state);
    }
    page.metric(
        "kvnode_store_etcd_revision",
        "gauge",
        "The revision of etcd up to which all of a store is here.",
    );
    for (store, etcd) in stores() {
        page.value("kvnode_store_etcd_revision", &[("store", store)], etcd.revision as f64);
    }
    page.metric(
        "kvnode_store_etcd_behind_revisions",
        "gauge",
        "Revisions of etcd by which a store is behind the last write to it, of any process.",
    );
    for (store, etcd) in stores() {
        if let Some(behind) = etcd.behind {
            page.value("kvnode_store_etcd_behind_revisions", &[("store", store)], behind as f64);
        }
    }
    page.metric(
        "kvnode_store_etcd_heard_seconds",
        "gauge",
        "Seconds since etcd was asked for the last write to a store, and has answered. It is asked every two seconds.",
    );
    for (store, etcd) in stores() {
        if let Some(secs) = etcd.heard_secs {
            page.value("kvnode_store_etcd_heard_seconds", &[("store", store)], secs);
        }
    }
    page.metric(
        "kvnode_store_holder",
        "gauge",
        "The node that has the names of a store; always 1. None: no node has.",
    );
    for (store, etcd) in stores() {
        if let Some(node) = &etcd.holder {
            page.value("kvnode_store_holder", &[("store", store), ("node", node.clone())], 1.0);
        }
    }
    // All stores of a node are in one etcd.
    let members: Vec<&EtcdMemberSnapshot> =
        stores().next().iter().flat_map(|(_, etcd)| &etcd.members).collect();
    type Member = (&'static str, &'static str, fn(&EtcdMemberSnapshot) -> Option<f64>);
    let metrics: [Member; 5] = [
        ("kvnode_etcd_member_up", "Whether a member of etcd answers this node.", |member| {
            Some(f64::from(member.asked))
        }),
        ("kvnode_etcd_member_leader", "Whether a member of etcd leads the others.", |member| {
            Some(f64::from(member.leads))
        }),
        ("kvnode_etcd_member_errors", "Alarms of a member of etcd, and that it has no leader.", |member| {
            Some(member.errors.len() as f64)
        }),
        (
            "kvnode_etcd_member_file_bytes",
            "The file of a member of etcd, which --quota-backend-bytes bounds.",
            |member| member.file_bytes.map(|bytes| bytes as f64),
        ),
        (
            "kvnode_etcd_member_used_bytes",
            "Of its file what is in use: a defragmentation gives back the others.",
            |member| member.used_bytes.map(|bytes| bytes as f64),
        ),
    ];
    for (metric, help, value) in metrics {
        page.metric(metric, "gauge", help);
        for member in &members {
            if let Some(value) = value(member) {
                page.value(metric, &[("member", member.endpoint.clone())], value);
            }
        }
    }
}

/// Of stores whose primary is elected.
fn elections(page: &mut Page, snapshot: &Snapshot) {
    let stores = || {
        let elected = snapshot.stores.iter().enumerate();
        elected.filter_map(|(number, store)| {
            Some((vec![("store", name(snapshot, number))], store.election.as_ref()?))
        })
    };
    page.metric(
        "kvnode_store_election_state",
        "gauge",
        "1 for the state that a store is in whose primary is elected.",
    );
    for (labels, election) in stores() {
        let all = ElectionState::ALL.map(ElectionState::code);
        states(page, "kvnode_store_election_state", &labels, all, &election.state);
    }
    type Figure = (&'static str, &'static str, &'static str, fn(&ElectionSnapshot) -> f64);
    let figures: [Figure; 4] = [
        (
            "kvnode_store_election_fence",
            "gauge",
            "The fence of the newest primary that a store knows; it only rises.",
            |election| election.fence as f64,
        ),
        (
            "kvnode_store_election_has_primary",
            "gauge",
            "Whether a primary of a store is known.",
            |election| f64::from(election.primary.is_some()),
        ),
        (
            "kvnode_store_election_counted_slaves",
            "gauge",
            "Slaves whose acknowledgements count for confirmed writes, as etcd has them.",
            |election| election.counted.len() as f64,
        ),
        (
            "kvnode_store_elections_total",
            "counter",
            "Primaries that were elected in the place of another since the store began, as it knows.",
            |election| election.elections as f64,
        ),
    ];
    for (metric, kind, help, value) in figures {
        page.metric(metric, kind, help);
        for (labels, election) in stores() {
            page.value(metric, &labels, value(election));
        }
    }
}

/// Of stores that are slaves.
fn primaries(page: &mut Page, snapshot: &Snapshot) {
    let primaries = || {
        snapshot.stores.iter().enumerate().filter_map(|(number, store)| {
            let (node, standing) = (store.primary.clone()?, store.primary_standing.as_ref()?);
            Some((vec![("store", name(snapshot, number)), ("primary", node)], standing))
        })
    };
    page.metric(
        "kvnode_store_primary_up",
        "gauge",
        "Whether the primary of a store that is a slave is there; none for a store that is no slave.",
    );
    for (labels, standing) in primaries() {
        page.value(
            "kvnode_store_primary_up",
            &labels,
            f64::from(standing.state != PrimaryStanding::Gone.code()),
        );
    }
    page.metric(
        "kvnode_store_primary_state",
        "gauge",
        "1 for the state that a store is in with its primary; writing: an Elixir primary, which does not say.",
    );
    for (labels, standing) in primaries() {
        states(
            page,
            "kvnode_store_primary_state",
            &labels,
            PrimaryStanding::ALL.map(PrimaryStanding::code),
            &standing.state,
        );
    }
    page.metric(
        "kvnode_store_primary_lag_writes",
        "gauge",
        "Writes of its primary that a store has not, as far as it knows; NaN: the primary does not number them.",
    );
    for (labels, standing) in primaries() {
        let lag = standing.lag.map_or(f64::NAN, |lag| lag as f64);
        page.value("kvnode_store_primary_lag_writes", &labels, lag);
    }
}

fn slaves(page: &mut Page, snapshot: &Snapshot) {
    let slaves = || {
        snapshot.stores.iter().enumerate().flat_map(|(number, store)| {
            let store_name = name(snapshot, number);
            store
                .slaves
                .iter()
                .map(move |slave| (vec![("store", store_name.clone()), ("slave", slave.name.clone())], slave))
        })
    };
    page.metric("kvnode_slave_state", "gauge", "1 for the state that a slave is in.");
    for (labels, slave) in slaves() {
        states(page, "kvnode_slave_state", &labels, StandingKind::ALL.map(StandingKind::code), &slave.state);
    }
    page.metric(
        "kvnode_slave_lag_writes",
        "gauge",
        "Writes that a slave has not acknowledged, or keys that it misses; NaN: all of them, or not known.",
    );
    for (labels, slave) in slaves() {
        page.value("kvnode_slave_lag_writes", &labels, slave.lag.map_or(f64::NAN, |lag| lag as f64));
    }
}

/// Each state is a value of its own: 1 for the present one.
fn states<const N: usize>(
    page: &mut Page,
    metric: &str,
    labels: &[(&'static str, String)],
    all: [&str; N],
    now: &str,
) {
    for state in all {
        let labels = [labels, &[("state", state.to_owned())]].concat();
        page.value(metric, &labels, f64::from(now == state));
    }
}

fn peers(page: &mut Page, snapshot: &Snapshot) {
    page.single("kvnode_peers", "gauge", "Nodes that are connected.", snapshot.peers.len() as f64);
    page.single(
        "kvnode_peers_missing",
        "gauge",
        "Nodes of --connect that are not connected.",
        snapshot.missing.len() as f64,
    );
    type Peer = (&'static str, &'static str, &'static str, fn(&crate::node::PeerSnapshot) -> u64);
    let metrics: [Peer; 4] = [
        (
            "kvnode_peer_received_bytes_total",
            "counter",
            "Bytes read from a node since it is connected.",
            |peer| peer.received_bytes,
        ),
        (
            "kvnode_peer_sent_bytes_total",
            "counter",
            "Bytes written to a node since it is connected.",
            |peer| peer.sent_bytes,
        ),
        ("kvnode_peer_queued_bytes", "gauge", "Bytes that wait for a node.", |peer| peer.queued_bytes),
        (
            "kvnode_peer_dropped_batches_total",
            "counter",
            "Batches of messages that were dropped because too much waited.",
            |peer| peer.dropped,
        ),
    ];
    for (metric, kind, help, value) in metrics {
        page.metric(metric, kind, help);
        for peer in &snapshot.peers {
            let labels = [
                ("peer", peer.name.clone()),
                ("kind", if peer.hidden { "hidden" } else { "visible" }.to_owned()),
            ];
            page.value(metric, &labels, value(peer) as f64);
        }
    }
}

/// The first name of a store, which no other one has.
fn name(snapshot: &Snapshot, store: usize) -> String {
    snapshot.stores[store].names.first().cloned().unwrap_or_default()
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[derive(Default)]
struct Page {
    text: String,
}

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn single(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }

    /// The values of a histogram.
    fn classes(&mut self, name: &str, labels: &[(&'static str, String)], classes: &[u64], sum_nanos: u64) {
        let with = |le: String| [labels, &[("le", le)]].concat();
        let bucket = format!("{name}_bucket");
        let mut below = 0;
        for (bound, count) in BOUNDS_NANOS.iter().zip(classes) {
            below += count;
            self.value(&bucket, &with(seconds(*bound).to_string()), below as f64);
        }
        let total: u64 = classes.iter().sum();
        self.value(&bucket, &with("+Inf".to_owned()), total as f64);
        self.value(&format!("{name}_sum"), labels, seconds(sum_nanos));
        self.value(&format!("{name}_count"), labels, total as f64);
    }

    fn value(&mut self, name: &str, labels: &[(&'static str, String)], value: f64) {
        self.text.push_str(name);
        for (number, (label, value)) in labels.iter().enumerate() {
            self.text.push(if number == 0 { '{' } else { ',' });
            self.text.push_str(label);
            self.text.push_str("=\"");
            for character in value.chars() {
                match character {
                    '\\' => self.text.push_str("\\\\"),
                    '"' => self.text.push_str("\\\""),
                    '\n' => self.text.push_str("\\n"),
                    other => self.text.push(other),
                }
            }
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_its_line() {
        let mut page = Page::default();
        page.value("m", &[("a", "x\"\\\ny".to_owned()), ("b", String::new())], f64::NAN);
        page.value("m", &[], 0.000_000_5);
        assert_eq!(page.text, "m{a=\"x\\\"\\\\\\ny\",b=\"\"} NaN\nm 0.0000005\n");
    }
}
