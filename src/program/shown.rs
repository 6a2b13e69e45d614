//! How the states of slaves and primaries are shown to people, by `kvnode top` and by the page: each state with its words and
//! its colour. The page is given this as JSON ([`table`]).

use serde::Serialize;

#[cfg(feature = "http")]
use crate::kv::figures::Served;
use crate::kv::reason::ReasonKind;
#[cfg(feature = "cli")]
use crate::program::snapshot::EtcdSnapshot;
use crate::replica::{PrimaryStanding, StandingKind};
#[cfg(feature = "cli")]
use crate::store::EtcdState;

/// With so many writes to come a side that is well is late.
const LATE_WRITES: u64 = 1000;

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

/// How a store stands to its etcd. (The page says the same.)
#[cfg(feature = "cli")]
pub(crate) fn etcd(etcd: &EtcdSnapshot) -> (Mood, String) {
    let EtcdSnapshot { state, revision, members } = etcd;
    let asked = members.iter().filter(|member| member.asked).count();
    let mood = match state == EtcdState::Following.code() && asked == members.len() {
        true => Mood::Good,
        false if asked == 0 => Mood::Bad,
        false => Mood::Warn,
    };
    (mood, format!("etcd: {state}, revision {revision}, {asked} of {} members answer", members.len()))
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

/// Everything of this for the page: `{"late": n, "requests": [word], "not_done": [[kind, words]], "slave": {state: {…}}, "primary": {state: {…}}}`.
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
        "late": LATE_WRITES, "requests": requests, "not_done": not_done, "slave": object(&slaves), "primary": object(&primaries),
    })
}

#[cfg(all(test, feature = "cli"))]
mod tests {
    use super::*;
    use crate::program::snapshot::EtcdMemberSnapshot;

    #[test]
    fn an_etcd_is_well_where_all_members_answer_and_the_store_follows() {
        let members = |asked: &[bool]| {
            let member = |asked: &bool| EtcdMemberSnapshot { endpoint: "http://a:1".into(), asked: *asked };
            asked.iter().map(member).collect()
        };
        let shown = |state: &str, asked: &[bool]| {
            etcd(&EtcdSnapshot { state: state.into(), revision: 7, members: members(asked) })
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(
            shown("following", &[true; 3]),
            (Mood::Good, text("etcd: following, revision 7, 3 of 3 members answer"))
        );
        assert_eq!(shown("following", &[true, false]).0, Mood::Warn);
        assert_eq!(shown("cut", &[true]).0, Mood::Warn);
        assert_eq!(shown("loading", &[false]).0, Mood::Bad);
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
