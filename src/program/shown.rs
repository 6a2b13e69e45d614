//! How the states of slaves and primaries are shown to people, by `kvnode top` and by the page: each state with its words and
//! its colour. The page is given this as JSON ([`table`]).

use serde::Serialize;

#[cfg(feature = "cli")]
use crate::kv::ElectionState;
#[cfg(feature = "http")]
use crate::kv::figures::Served;
use crate::kv::reason::ReasonKind;
#[cfg(feature = "cli")]
use crate::program::snapshot::{ElectionSnapshot, EtcdSnapshot};
use crate::replica::{PrimaryStanding, StandingKind};
#[cfg(feature = "cli")]
use crate::store::EtcdState;

/// With so many writes to come a side that is well is late.
const LATE_WRITES: u64 = 1000;
/// An etcd that has not answered for so long is not heard of. It is asked every two seconds.
#[cfg(any(feature = "cli", feature = "http"))]
const UNHEARD_SECS: f64 = 10.0;

/// Whether all is well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mood {
    /// It is.
    Good,
    /// It will be.
    Warn,
    /// Somebody should look.
    Bad,
}

/// A state for people. `{}` stands for the number of writes or keys that are to come, or for `all`.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Shown {
    mood: Mood,
    text: &'static str,
    /// Where there is nothing to come.
    text_at_zero: &'static str,
    /// Where there is little room.
    label: &'static str,
}

impl Shown {
    const fn new(mood: Mood, text: &'static str, label: &'static str) -> Self {
        Self { mood, text, text_at_zero: text, label }
    }

    const fn at_zero(self, text_at_zero: &'static str) -> Self {
        Self { text_at_zero, ..self }
    }

    /// With so much to come.
    #[cfg(feature = "cli")]
    pub(crate) const fn mood(&self, lag: Option<u64>) -> Mood {
        match (self.mood, lag) {
            (Mood::Good, Some(lag)) if lag >= LATE_WRITES => Mood::Warn,
            (mood, _) => mood,
        }
    }

    /// The whole text; `short` writes a number.
    #[cfg(feature = "cli")]
    pub(crate) fn text(&self, lag: Option<u64>, short: impl Fn(u64) -> String) -> String {
        let text = if lag == Some(0) { self.text_at_zero } else { self.text };
        text.replace("{}", &lag.map_or_else(|| "all".to_owned(), short))
    }
}

/// A slave, as its primary shows it.
pub(crate) const fn slave(state: StandingKind) -> Shown {
    match state {
        StandingKind::Seeking => Shown::new(Mood::Bad, "not found yet", "not found"),
        StandingKind::Refused => Shown::new(Mood::Bad, "refused to be a slave", "refused"),
        StandingKind::Gone => {
            Shown::new(Mood::Bad, "gone, misses {}", "misses {}").at_zero("gone, misses nothing")
        }
        StandingKind::Copying => Shown::new(Mood::Warn, "copying, {} to go", "{} to go"),
        StandingKind::Behind => Shown::new(Mood::Warn, "behind, misses {}", "misses {}"),
        StandingKind::Full => Shown::new(Mood::Bad, "full, misses {}", "misses {}"),
        StandingKind::Failing => Shown::new(Mood::Bad, "failing, misses {}", "misses {}"),
        StandingKind::InStep => Shown::new(Mood::Good, "{} behind", "{}").at_zero("in step"),
        StandingKind::Dropped => Shown::new(Mood::Bad, "dropped", "dropped"),
    }
}

/// How a store stands to its etcd, and how that is, in two lines, or in one where nothing is known yet. (The page says the same.)
#[cfg(feature = "cli")]
pub(crate) fn etcd(
    etcd: &EtcdSnapshot,
    short: impl Fn(u64) -> String,
    bytes: impl Fn(u64) -> String,
) -> Vec<(Mood, String)> {
    let EtcdSnapshot { state, revision, behind, heard_secs, holder, members } = etcd;
    let asked = members.iter().filter(|member| member.asked).count();
    let is_late = behind.is_some_and(|behind| behind >= LATE_WRITES);
    let heard = heard_secs.filter(|secs| *secs >= UNHEARD_SECS);
    let mood = match state == EtcdState::Following.code() && asked == members.len() {
        true if !is_late && heard.is_none() => Mood::Good,
        false if asked == 0 || state == EtcdState::RolledBack.code() => Mood::Bad,
        _ => Mood::Warn,
    };
    let state = state.replace('_', " ");
    let lag = match (behind, heard) {
        (_, Some(secs)) => format!(", not heard of for {secs:.0} s"),
        (Some(0), None) => ", up to date".to_owned(),
        (Some(behind), None) => format!(", {} behind", short(*behind)),
        (None, None) => String::new(),
    };
    let first =
        format!("etcd: {state}, revision {revision}{lag}, {asked} of {} members answer", members.len());
    if holder.is_none() && heard_secs.is_none() {
        // It is loading, and nothing more is known.
        return vec![(mood, first)];
    }
    let errors: Vec<&str> = members.iter().flat_map(|member| &member.errors).map(String::as_str).collect();
    let mut parts = vec![match holder {
        Some(node) => format!("names held by {node}"),
        None => "names held by no node".to_owned(),
    }];
    if let Some((file, used)) = etcd.file() {
        parts.push(format!("database {}, {} in use", bytes(file), bytes(used)));
    }
    match etcd.leader() {
        Some(leader) => parts.push(format!("led by {leader}")),
        // It is not known before anything was heard.
        None if heard_secs.is_some() => parts.push("no leader".to_owned()),
        None => {}
    }
    // What is wrong stands before what may be cut off.
    if let Some(error) = errors.first() {
        parts.insert(0, (*error).to_owned());
    }
    let is_well = errors.is_empty() && holder.is_some() && etcd.leader().is_some();
    vec![(mood, first), (if is_well { Mood::Good } else { Mood::Bad }, format!("etcd: {}", parts.join(", ")))]
}

/// How the election of a store's primary stands. (The page says the same.)
#[cfg(feature = "cli")]
pub(crate) fn election(election: &ElectionSnapshot) -> (Mood, String) {
    let ElectionSnapshot { state, fence, primary, reports, reports_needed, missing, counted, .. } = election;
    let mood = match ElectionState::of_code(state) {
        Some(ElectionState::Primary | ElectionState::Slave) => Mood::Good,
        Some(ElectionState::Promoting | ElectionState::Leaving) => Mood::Warn,
        _ => Mood::Bad,
    };
    let mut text = format!("election: {state}, fence {fence}");
    if let Some(primary) = primary {
        text.push_str(&format!(", the primary is on {primary}"));
    }
    if let (Some(reports), Some(needed)) = (reports, reports_needed) {
        text.push_str(&format!(", {reports} of {needed} reports"));
    }
    if !missing.is_empty() {
        text.push_str(&format!(", missing {}", missing.join(" and ")));
    }
    text.push_str(&format!(
        ", {}",
        self::counted(counted.len() as u64, ["slave counts", "slaves count"], |count| count.to_string())
    ));
    (mood, text)
}

/// A primary, as its slave shows it.
pub(crate) const fn primary(state: PrimaryStanding) -> Shown {
    match state {
        PrimaryStanding::Following => {
            Shown::new(Mood::Good, "followed, {} behind", "").at_zero("followed, in step")
        }
        PrimaryStanding::Writing => Shown::new(Mood::Good, "writes here", ""),
        PrimaryStanding::Copying => Shown::new(Mood::Warn, "is being copied", "copying"),
        PrimaryStanding::Repairing => Shown::new(Mood::Warn, "{} to be repaired", "repairing"),
        PrimaryStanding::Full => Shown::new(Mood::Bad, "no room, {} behind", "no room"),
        PrimaryStanding::Failing => Shown::new(Mood::Bad, "failing, {} behind", "failing"),
        PrimaryStanding::Gone => Shown::new(Mood::Bad, "gone, {} behind", "gone").at_zero("gone"),
    }
}

/// A count with its noun, of one and of several: `1 key`, `2 keys`. `shown` writes the number.
#[cfg(feature = "cli")]
pub(crate) fn counted(count: u64, [one, several]: [&str; 2], shown: impl Fn(u64) -> String) -> String {
    format!("{} {}", shown(count), if count == 1 { one } else { several })
}

/// What requests that were not done are called, the worst first.
pub(crate) const NOT_DONE: [(ReasonKind, &str); 3] =
    [(ReasonKind::Failed, "failed"), (ReasonKind::Refused, "refused"), (ReasonKind::Conflict, "conflicts")];

/// Everything of this for the page: `{"late": n, "unheard_secs": n, "requests": [word], "not_done": [[kind, words]], "slave": {state: {…}}, "primary": {state: {…}}}`.
#[cfg(feature = "http")]
pub(crate) fn table() -> serde_json::Value {
    let slaves = StandingKind::ALL.map(|state| (state.code(), slave(state)));
    let primaries = PrimaryStanding::ALL.map(|state| (state.code(), primary(state)));
    let requests = Served::DRAWN.map(Served::code);
    let not_done = NOT_DONE.map(|(kind, words)| (kind.code(), words));
    let object = |states: &[(&str, Shown)]| -> serde_json::Map<_, _> {
        states.iter().map(|(code, shown)| ((*code).to_owned(), serde_json::json!(shown))).collect()
    };
    serde_json::json!({
        "late": LATE_WRITES, "unheard_secs": UNHEARD_SECS, "requests": requests, "not_done": not_done, "slave": object(&slaves), "primary": object(&primaries),
    })
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::program::snapshot::EtcdMemberSnapshot;

    fn shown(change: impl FnOnce(&mut EtcdSnapshot)) -> Vec<(Mood, String)> {
        let members = [false, true, false].map(|leads| EtcdMemberSnapshot {
            endpoint: if leads { "http://b:1" } else { "http://a:1" }.into(),
            asked: true,
            version: Some("3.5.1".into()),
            leads,
            file_bytes: Some(if leads { 900 } else { 800 }),
            used_bytes: Some(if leads { 100 } else { 700 }),
            errors: Vec::new(),
        });
        let mut snapshot = EtcdSnapshot {
            state: "following".into(),
            revision: 7,
            behind: Some(0),
            heard_secs: Some(1.5),
            holder: Some("a@h".into()),
            members: members.into(),
        };
        change(&mut snapshot);
        etcd(&snapshot, |number| number.to_string(), |bytes| format!("{bytes} B"))
    }

    #[test]
    fn an_etcd_is_well_where_all_members_answer_one_leads_and_a_node_holds_the_names() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            shown(|_| {}),
            [
                (Mood::Good, text("etcd: following, revision 7, up to date, 3 of 3 members answer")),
                (
                    Mood::Good,
                    text("etcd: names held by a@h, database 900 B, 100 B in use, led by http://b:1")
                )
            ]
        );
        let first = |change: fn(&mut EtcdSnapshot)| shown(change)[0].clone();
        let second = |change: fn(&mut EtcdSnapshot)| shown(change)[1].clone();
        assert_eq!(first(|etcd| etcd.members[0].asked = false).0, Mood::Warn);
        assert_eq!(first(|etcd| etcd.state = "cut".into()).0, Mood::Warn);
        let (mood, line) = first(|etcd| etcd.state = "rolled_back".into());
        assert_eq!((mood, line.starts_with("etcd: rolled back, ")), (Mood::Bad, true), "{line}");
        assert_eq!(
            first(|etcd| etcd.members.iter_mut().for_each(|member| member.asked = false)).0,
            Mood::Bad
        );
        let (mood, line) = first(|etcd| etcd.behind = Some(1000));
        assert_eq!((mood, line.contains("revision 7, 1000 behind, ")), (Mood::Warn, true), "{line}");
        let (mood, line) = first(|etcd| etcd.heard_secs = Some(31.4));
        assert_eq!(
            (mood, line.contains("revision 7, not heard of for 31 s, ")),
            (Mood::Warn, true),
            "{line}"
        );
        assert_eq!(second(|etcd| etcd.holder = None).0, Mood::Bad);
        let (mood, line) = second(|etcd| etcd.members[1].leads = false);
        assert_eq!((mood, line.contains(", no leader")), (Mood::Bad, true), "{line}");
        let (mood, line) = second(|etcd| etcd.members[2].errors = vec!["alarm:NOSPACE".into()]);
        assert_eq!((mood, line.starts_with("etcd: alarm:NOSPACE, names")), (Mood::Bad, true), "{line}");
        // Of a store that is loaded, and of a node before this version, less is known.
        let little = |etcd: &mut EtcdSnapshot| {
            (etcd.behind, etcd.heard_secs) = (None, None);
            etcd.members.iter_mut().for_each(|member| (member.file_bytes, member.leads) = (None, false));
        };
        let lines: Vec<String> = shown(little).into_iter().map(|(_, line)| line).collect();
        assert_eq!(lines, ["etcd: following, revision 7, 3 of 3 members answer", "etcd: names held by a@h"]);
        assert_eq!(
            shown(|etcd| {
                little(etcd);
                etcd.holder = None;
            })
            .len(),
            1
        );
    }

    #[test]
    fn an_election_is_well_where_there_is_a_primary() {
        let shown = |state: &str, primary: Option<&str>, reports: Option<u64>| {
            election(&ElectionSnapshot {
                state: state.into(),
                fence: 7,
                primary: primary.map(Into::into),
                reports,
                reports_needed: reports.map(|_| 2),
                missing: reports.iter().flat_map(|_| ["a@h".to_owned(), "c@h".to_owned()]).collect(),
                since: 0,
                counted: vec!["b@h".into()],
                elections: 1,
            })
        };
        assert_eq!(
            shown("slave", Some("a@h"), None),
            (Mood::Good, "election: slave, fence 7, the primary is on a@h, 1 slave counts".to_owned())
        );
        assert_eq!(
            shown("electing", None, Some(1)),
            (
                Mood::Bad,
                "election: electing, fence 7, 1 of 2 reports, missing a@h and c@h, 1 slave counts".to_owned()
            )
        );
        assert_eq!(shown("unsure", None, None).0, Mood::Bad);
    }

    #[test]
    fn a_state_is_told_with_its_number_and_is_late_where_that_is_large() {
        let in_step = slave(StandingKind::InStep);
        let text = |lag| in_step.text(lag, |number| format!("{number}"));
        assert_eq!(text(Some(0)), "in step");
        assert_eq!(text(Some(7)), "7 behind");
        assert_eq!(slave(StandingKind::Gone).text(None, |_| String::new()), "gone, misses all");
        assert_eq!(in_step.mood(Some(LATE_WRITES - 1)), Mood::Good);
        assert_eq!(in_step.mood(Some(LATE_WRITES)), Mood::Warn);
        assert_eq!(slave(StandingKind::Gone).mood(Some(0)), Mood::Bad);
        assert_eq!(primary(PrimaryStanding::Writing).mood(None), Mood::Good);
    }
}
