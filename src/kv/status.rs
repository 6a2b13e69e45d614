//! `:status` and `:slaves`: how a store and its slaves are, for people.

use std::sync::Arc;

use super::SlaveEntry;
use super::election::{self, ElectionFigures};
use super::figures::{HolderFigures, StoreWatch};
use super::reason::Reason;
use crate::etf::text::{InspectLimits, inspect};
use crate::etf::{TermView, TermWriter, key};
use crate::replica::upstream::PrimaryView;
use crate::replica::{Dialect, Downstream, Standing, Upstream};
use crate::store::{EtcdFigures, Keeper, Store};

/// Keys that are shown of those whose values a slave cannot be sent.
const WITHHELD_SHOWN: usize = 3;

/// What a status is made of.
pub(super) struct Of<'a, S> {
    pub store: &'a S,
    pub figures: &'a StoreWatch,
    /// Watches that there are.
    pub watches: usize,
    /// The process that holds the store's names, where several serve it.
    pub holder: Option<HolderFigures>,
    /// The node.
    pub node: &'a str,
    pub upstream: &'a Upstream,
    /// The number of the last write.
    pub seq: u64,
    pub slaves: &'a [Arc<SlaveEntry>],
    /// How the election of the primary stands; `None`: there is none.
    pub election: Option<&'a ElectionFigures>,
}

/// Writes `%{role: r, entries: n, bytes: n, incarnation: n, term: n, seq: n, primary: p, slaves: [%{name: s, state: s,
/// stale_keys: b, withheld: n, withheld_keys: [text], kind: k, since: t, error: e}], deadlines: n, expired: n, watches: n,
/// not_done: %{reason => n}, engine: e}`, and of a store in etcd `etcd_state: s, etcd_revision: n, etcd_behind: n, etcd_heard_ms: n,
/// etcd_leader: url, etcd_file_bytes: n, etcd_used_bytes: n, etcd_members: [{url, m}]` with it, where several processes serve it `holder: node`, and of a store whose primary
/// is elected `election: %{state: s, fence: n, primary: node, round: {counted, needed}, since: t, counted: [node], elections: n}`. `withheld` is how many keys have a value
/// that the slave's OTP cannot decode, and which it is therefore not sent. `seq` is the number of the last write; `since` is
/// when a slave's state began, as `System.system_time(:millisecond)`; `kind` and `stale_keys` are `nil` for a slave that was never
/// found. A store that a kvnode has made its slave is a `:slave`, also where it has slaves itself; else one with
/// slaves is a `:primary`, and one without is whatever others make of it, `:single`: an Elixir primary does not tell a
/// slave that it is one.
pub(super) fn write<S: Store>(w: &mut TermWriter<'_>, of: &Of<'_, S>) {
    let &Of { store, figures, watches, upstream, seq, slaves, election, .. } = of;
    let primary = upstream.primary();
    let role = match primary {
        Some(_) => "slave",
        None if slaves.is_empty() => "single",
        None => "primary",
    };
    let keeper = store.keeper();
    let more = if matches!(keeper, Keeper::Etcd(_)) { ETCD_FIELDS } else { 0 };
    let more = more + usize::from(of.holder.is_some()) + usize::from(election.is_some());
    w.map(13 + more).atom("role").atom(role);
    w.atom("entries").unsigned(store.len() as u64).atom("bytes").unsigned(store.bytes());
    w.atom("incarnation").unsigned(upstream.incarnation()).atom("term").unsigned(upstream.durable().term);
    w.atom("seq").unsigned(seq).atom("primary");
    match primary {
        Some(primary) => write_primary(w, &primary),
        None => _ = w.atom("nil"),
    }
    w.atom("slaves").list(slaves.len());
    for slave in slaves {
        write_slave(w, &slave.machine());
    }
    w.nil();
    w.atom("deadlines").unsigned(store.deadlines() as u64).atom("expired").unsigned(figures.expired());
    w.atom("watches").unsigned(watches as u64);
    write_not_done(w, figures);
    w.atom("engine").atom(keeper.code());
    if let Keeper::Etcd(etcd) = &keeper {
        write_etcd(w, etcd);
    }
    if let Some(holder) = &of.holder {
        w.atom("holder").atom(holder.node(of.node).unwrap_or("nil"));
    }
    if let Some(figures) = election {
        w.atom("election");
        election::write(w, figures);
    }
}

/// What [`write_etcd`] writes.
const ETCD_FIELDS: usize = 8;

/// A member is `{url, state}`: `:asked` where it answers, else `:away`.
fn write_etcd(w: &mut TermWriter<'_>, etcd: &EtcdFigures) {
    w.atom("etcd_state").atom(etcd.state.code());
    w.atom("etcd_revision").unsigned(etcd.revision);
    let number = |w: &mut TermWriter<'_>, name, number: Option<u64>| {
        match number {
            Some(number) => w.atom(name).unsigned(number),
            None => w.atom(name).atom("nil"),
        };
    };
    number(w, "etcd_behind", etcd.lag.map(|lag| lag.revisions));
    number(w, "etcd_heard_ms", etcd.lag.map(|lag| lag.heard_ms));
    w.atom("etcd_leader");
    match etcd.leader() {
        Some(leader) => w.binary(leader.as_bytes()),
        None => w.atom("nil"),
    };
    number(w, "etcd_file_bytes", etcd.file().map(|(file, _)| file));
    number(w, "etcd_used_bytes", etcd.file().map(|(_, used)| used));
    w.atom("etcd_members").list(etcd.members.len());
    for member in &etcd.members {
        w.tuple(2).binary(member.endpoint.as_bytes()).atom(if member.is_asked { "asked" } else { "away" });
    }
    w.nil();
}

/// Requests that were not done, by why; of those reasons that there were.
fn write_not_done(w: &mut TermWriter<'_>, figures: &StoreWatch) {
    let not_done = Reason::ALL.iter().zip(figures.not_done());
    let not_done: Vec<_> = not_done.filter(|(_, count)| *count > 0).collect();
    w.atom("not_done").map(not_done.len());
    for (reason, count) in not_done {
        w.atom(reason.label()).unsigned(count);
    }
}

fn write_primary(w: &mut TermWriter<'_>, primary: &PrimaryView<'_>) {
    let greeting = primary.greeting;
    w.map(6).atom("pid").pid(&greeting.pid);
    w.atom("node").atom(&greeting.pid.node);
    w.atom("state").atom(primary.standing.code());
    w.atom("incarnation").unsigned(greeting.lineage.incarnation());
    w.atom("seq").unsigned(primary.applied);
    w.atom("lag").unsigned(primary.lag);
}

/// Writes the slaves' names.
pub(super) fn slaves(w: &mut TermWriter<'_>, slaves: &[Arc<SlaveEntry>]) {
    w.list(slaves.len());
    for slave in slaves {
        slave.name().write(w);
    }
    w.nil();
}

fn write_slave(w: &mut TermWriter<'_>, slave: &Downstream) {
    w.map(8).atom("name");
    slave.name().write(w);
    w.atom("state");
    write_standing(w, slave.standing());
    // Of a slave that was never found neither is known.
    let is_known = slave.standing() != Standing::Seeking;
    w.atom("stale_keys").atom(match slave.may_be_stale() {
        true => "true",
        false if is_known => "false",
        false => "nil",
    });
    // As text: the caller's node may be unable to decode them.
    let (withheld, keys) = slave.withheld(WITHHELD_SHOWN);
    w.atom("withheld").unsigned(withheld).atom("withheld_keys").list(keys.len());
    for key in keys {
        let key = TermView::parse(&key::outgoing(&key))
            .map_or_else(|error| error.to_string(), |key| inspect(key, InspectLimits::LOG));
        w.binary(key.as_bytes());
    }
    w.nil();
    w.atom("kind").atom(match slave.dialect() {
        None => "nil",
        Some(Dialect::Elixir) => "elixir",
        Some(Dialect::Kvnode { .. }) => "kvnode",
    });
    w.atom("since");
    match slave.since() {
        Some(since) => w.unsigned(since),
        None => w.atom("nil"),
    };
    w.atom("error");
    match slave.last_error() {
        Some(error) => w.binary(error.as_bytes()),
        None => w.atom("nil"),
    };
}

fn write_standing(w: &mut TermWriter<'_>, standing: Standing) {
    let state = standing.kind().code();
    match standing {
        Standing::Seeking | Standing::Dropped => w.atom(state),
        Standing::Refused(refusal) => w.tuple(2).atom(state).atom(refusal.code()),
        Standing::Gone { missed } | Standing::Behind { missed } | Standing::Full { missed, .. } => {
            w.tuple(2).atom(state);
            match missed {
                Some(missed) => w.unsigned(missed),
                None => w.atom("all"),
            }
        }
        Standing::Copying { done, total } => w.tuple(3).atom(state).unsigned(done).unsigned(total),
        Standing::InStep { lag } => w.tuple(2).atom(state).unsigned(lag),
    };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use crate::etf::{OwnedTerm, Pid, encode};
    use crate::kv::follow::tests::{now, unfollowed};
    use crate::replica::downstream::{Answer, Chance, Input, Search, Siblings, Standpoint, Whereabouts};
    use crate::replica::{Lineage, Membership, SlaveName};
    use crate::store::MemoryStore;

    /// What a status ends with here.
    const TAIL: &str = "deadlines: 0, expired: 0, watches: 2, not_done: %{guard_failed: 1}, engine: :memory";

    fn shown(slaves: &[Arc<SlaveEntry>]) -> String {
        let (store, upstream) = (MemoryStore::default(), Upstream::new(7, Membership::default(), true));
        let figures = StoreWatch::default();
        figures.count_not_done(Reason::GuardFailed);
        let (holder, node) = (None, "a@h");
        let of = Of {
            store: &store,
            figures: &figures,
            watches: 2,
            holder,
            node,
            upstream: &upstream,
            seq: 1,
            slaves,
            election: None,
        };
        let status = encode(|w| write(w, &of));
        let whole = InspectLimits { text_bytes_max: usize::MAX };
        inspect(TermView::parse(&status).expect("a term"), whole)
    }

    #[test]
    fn a_status_has_each_slave_with_its_state() {
        assert_eq!(
            shown(&[]),
            "%{role: :single, entries: 0, bytes: 0, incarnation: 7, term: 0, seq: 1, primary: nil, slaves: [], deadlines: 0, expired: 0, watches: 2, not_done: %{guard_failed: 1}, engine: :memory}"
        );
        let slave = unfollowed(SlaveName::global("s"));
        let head = "%{role: :primary, entries: 0, bytes: 0, incarnation: 7, term: 0, seq: 1, primary: nil, slaves: [%{name: {:global, :s}, state: ";
        let shown = || shown(&[Arc::clone(&slave)]);
        assert_eq!(
            shown(),
            format!(
                "{head}:seeking, stale_keys: nil, withheld: 0, withheld_keys: [], kind: nil, since: nil, error: nil}}], {TAIL}}}"
            )
        );
        let (at, orphan) = (Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 }, [0, 1]);
        let hand = |input| slave.machine().handle(input, now());
        let search = Search {
            pause_first: Duration::ZERO,
            pause_max: Duration::ZERO,
            is_awaited: false,
            chance: Chance(Box::new(|_| 0)),
        };
        hand(Input::Begin(search));
        // Its questions have the numbers 1, 2, …: an orphan's is refused, then it is followed.
        let find = |first: u64, path: &[u64]| {
            let lineage = Lineage { term: 0, promoted: 0, path: path.to_vec(), family: 0 };
            let answer = |question, answer| {
                let (slaves, siblings) = (Vec::new(), Siblings::default());
                let (lineage, seq, started_empty) = (lineage.clone(), 0, false);
                let store = Standpoint { lineage, seq, clock: 0, started_empty, slaves, siblings };
                hand(Input::Answered { question, answer, store });
            };
            hand(Input::Timeout);
            hand(Input::Located { question: first, found: Ok(Whereabouts::At(at.clone())) });
            hand(Input::Watched { question: first + 1, watched: Ok(()) });
            answer(first + 2, Answer::Dialect(Ok(false)));
            answer(first + 3, Answer::Kind(Ok(None)));
        };
        find(1, &orphan);
        assert!(shown().contains("state: {:refused, :superseded}") && shown().contains("kind: nil"));
        find(4, &orphan[1..]);
        let state = |state: &str| {
            format!(
                "{head}{state}, stale_keys: false, withheld: 0, withheld_keys: [], kind: :elixir, since: nil, error: nil}}], {TAIL}}}"
            )
        };
        assert_eq!(shown(), state("{:copying, 0, 0}"));
        hand(Input::Down { question: 5, reason: OwnedTerm::atom("noconnection") });
        assert_eq!(shown(), state("{:gone, :all}"));
    }
}
