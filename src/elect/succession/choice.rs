//! Which node is to be the next primary, by what stands in etcd. All nodes that know the same choose the same.

use std::sync::Arc;

use super::event::Missing;
use super::keys::{HEIRS_MAX, Holds, Record};
use super::known::Known;
use super::planted::{Rule, planted};

/// What the reports of a round say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Count {
    /// So many slaves that count have reported with data that counts.
    pub(super) counted: usize,
    /// So many are to.
    pub(super) needed: usize,
    /// The most advanced of all whose data counts.
    pub(super) best: Option<Arc<str>>,
    /// The data of the best has each confirmed write, however few have reported.
    pub(super) is_complete: bool,
    /// Reports of members have all come: nothing more is to be expected of them.
    pub(super) are_all_here: bool,
    /// The primary that is gone has reported, or ended in good order.
    pub(super) is_former_known: bool,
    /// All nodes that may have data have reported that they have none: it begins anew with this one.
    pub(super) anew: Option<Arc<str>>,
    /// The most advanced of all, whether its data counts or not; one without data where none has any.
    pub(super) lossy: Option<Arc<str>>,
    /// Nodes whose data may be of matter, and that have not reported, or whose data does not count.
    pub(super) missing: Vec<Missing>,
}

/// How advanced data is: the higher of two is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    /// 0: the base's; then its heirs', the newest last.
    heir: usize,
    applied: u64,
    is_whole: bool,
}

/// How advanced a store is, by what it holds; `None`: it does not count.
fn rank(record: &Record, holds: Holds) -> Option<Rank> {
    let known = |fence: u64| {
        let heir = record.heirs.iter().rposition(|heir| heir.fence == fence);
        let is_base = fence == record.base.fence || planted(Rule::KnownCopies);
        heir.map(|at| at + 1).or(is_base.then_some(0))
    };
    match holds {
        Holds::Own { fence } => known(fence).map(|heir| Rank { heir, applied: u64::MAX, is_whole: true }),
        Holds::Copy { fence, applied, is_whole } => known(fence).map(|heir| Rank { heir, applied, is_whole }),
        Holds::Nothing if planted(Rule::EmptyIsNothing) => Some(Rank { heir: 0, applied: 0, is_whole: true }),
        Holds::Nothing | Holds::Other => None,
    }
}

/// How many of `members` slaves have to report, so that each confirmed write is with one of these; `confirm` slaves have such a write.
pub(super) fn needed(members: usize, confirm: u32) -> usize {
    let confirm = usize::try_from(confirm).unwrap_or(usize::MAX);
    let spare = usize::from(!planted(Rule::EnoughReports));
    (members + spare).saturating_sub(confirm).clamp(1, members.max(1))
}

/// The nodes of primaries that may have data of matter: of the base, and of its heirs. All that those before the base have confirmed the base has had when
/// it began to confirm.
fn led(record: &Record) -> Vec<&Arc<str>> {
    let heirs = record.heirs.iter().map(|heir| &heir.node);
    // Of more heirs than are recorded all are known that have led.
    let is_full = record.heirs.len() >= HEIRS_MAX;
    let former = record.former.iter().filter(|_| is_full).map(|life| &life.node);
    let mut led: Vec<_> = [&record.base.node, &record.node].into_iter().chain(heirs).chain(former).collect();
    led.sort_unstable();
    led.dedup();
    led
}

/// Counts the reports for the round behind the record's fence.
pub(super) fn count(record: &Record, known: &Known) -> Count {
    let base = &record.base;
    let reported = |node: &Arc<str>| {
        let sealed = known.reports.get(node)?.report.sealed;
        sealed.filter(|(after, _)| *after == record.fence).map(|(_, holds)| holds)
    };
    let all: Vec<(&Arc<str>, Holds)> =
        known.reports.keys().filter_map(|node| Some((node, reported(node)?))).collect();
    let mut ranked: Vec<(Rank, &Arc<str>)> =
        all.iter().filter_map(|(node, holds)| Some((rank(record, *holds)?, *node))).collect();
    ranked.sort_unstable();
    if planted(Rule::MostAdvanced) {
        ranked.reverse();
    }
    let best = ranked.last();
    // An heir has all that the base has confirmed, and so has a store that was the base itself, or has come to the base's last write.
    let has_all = |rank: &Rank| {
        let is_at_end = |end: u64| rank.applied >= end || planted(Rule::EndIsReached);
        rank.heir > 0 || rank.applied == u64::MAX || base.end.is_some_and(is_at_end)
    };
    let is_complete = best.is_some_and(|(rank, _)| has_all(rank));
    let counts = |node: &Arc<str>| ranked.iter().any(|(_, ranked)| *ranked == node);
    let counted = base.members.iter().filter(|node| counts(node)).count();
    let led = led(record);
    let missing =
        |node: &Arc<str>, has_led| Missing { node: Arc::clone(node), has_led, holds: reported(node) };
    let members = base.members.iter().filter(|node| !counts(node) && !led.contains(node));
    let missing = members
        .map(|node| missing(node, false))
        .chain(led.iter().filter(|node| !counts(node)).map(|node| missing(node, true)));
    let missing = missing.collect();
    // With none recorded nothing was confirmed, and any copy will do.
    let counted = if base.members.is_empty() { ranked.len().min(1) } else { counted };
    let mut owners = base.members.iter().chain(led.iter().copied());
    let is_empty = all.iter().all(|(_, holds)| *holds == Holds::Nothing);
    // Nodes that are there and have not reported may have something.
    let is_anew = is_empty && all.len() == known.reports.len() && owners.all(|node| reported(node).is_some());
    // Among data that no election knows nothing is more advanced than another.
    let lossy = all.iter().max_by_key(|(node, holds)| {
        let own = match holds {
            Holds::Copy { fence, applied, .. } => (*fence, 1, *applied),
            Holds::Own { fence } => (*fence, 2, 0),
            Holds::Nothing | Holds::Other => (0, 0, 0),
        };
        (*holds != Holds::Nothing, rank(record, *holds), own, *node)
    });
    Count {
        counted,
        needed: needed(base.members.len(), base.confirm),
        best: best.map(|(_, node)| Arc::clone(node)),
        is_complete,
        are_all_here: base.members.iter().all(|node| reported(node).is_some()),
        is_former_known: reported(&record.node).is_some() || base.end.is_some(),
        anew: is_anew.then(|| all.first().map(|(node, _)| Arc::clone(node))).flatten(),
        lossy: lossy.map(|(node, _)| Arc::clone(node)),
        missing,
    }
}
