//! Which revision of etcd is compacted when, as a value; and the note in etcd of the last compaction.
//!
//! etcd keeps each value that a key has had until somebody compacts, and refuses writes when its file has reached its bound. A holder
//! looks which revision etcd has, time and again, and compacts at the revision that it has seen as long ago as history is to be kept. What is
//! compacted is the history of the whole etcd, of all prefixes: the newest value of each key stays.
//!
//! A watch that goes on behind a compacted revision begins anew with all entries. So it is not compacted beyond what the holder's own
//! store has come to; where that stands still, since others write and the store is idle, a note is written below the store, which moves
//! the watches of all its kvnodes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::distribution::NodeName;

/// Revisions that are kept in memory, at most. Where that is too few, as history is kept for long, some are left out.
const SEEN_MAX: usize = 1024;
/// A compaction that frees fewer revisions is not worth its write: an etcd that is idle is left alone.
const WORTH_REVISIONS: i64 = 100;
/// Between two looks, at the least and at the most.
const EVERY_MIN: Duration = Duration::from_secs(1);
const EVERY_MAX: Duration = Duration::from_secs(600);
/// The form of a note's value.
const FORM: &str = "1";
/// Bytes of a note that is read at most: the longest name of a node and three numbers have less.
const NOTE_BYTES_MAX: usize = 4096;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Compaction {
    keep: Duration,
    /// Revisions that etcd had by then, oldest first.
    seen: VecDeque<(Instant, i64)>,
    /// All before it is compacted, as far as is known.
    done: i64,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// Nothing.
    Nothing,
    /// The note is to be written: the store has not come to what could be compacted.
    Note,
    /// The note is to be written, and etcd to be compacted at this revision.
    Compact(i64),
}

impl Compaction {
    /// History is kept for so long.
    pub(super) fn new(keep: Duration) -> Self {
        Self { keep, seen: VecDeque::new(), done: 0 }
    }

    /// Time between two looks: history is kept for so much longer at the most.
    pub(super) fn every(&self) -> Duration {
        (self.keep / 5).clamp(EVERY_MIN, EVERY_MAX)
    }

    /// etcd had come to this revision by then.
    pub(super) fn saw(&mut self, revision: i64, by: Instant) {
        // A member that is behind, or another cluster.
        let is_new = self.seen.back().is_none_or(|(last, seen)| *last <= by && *seen <= revision);
        if is_new && self.seen.len() < SEEN_MAX {
            self.seen.push_back((by, revision));
        }
    }

    /// All before this revision is compacted, by this process or another.
    pub(super) fn compacted(&mut self, revision: i64) {
        self.done = self.done.max(revision);
    }

    /// The revision before which all is compacted, as far as is known; 0: nothing is known.
    pub(super) fn done(&self) -> i64 {
        self.done
    }

    /// What is to be done now, where the own store has come to the revision `applied`.
    pub(super) fn due(&mut self, applied: i64, now: Instant) -> Due {
        let is_old = |at: &Instant| now.checked_duration_since(*at).is_some_and(|age| age >= self.keep);
        // The newest of those that are old enough counts.
        while self.seen.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.seen.pop_front();
        }
        let Some((_, old)) = self.seen.front().filter(|(at, _)| is_old(at)) else { return Due::Nothing };
        let is_worth = |revision: i64| revision.saturating_sub(self.done) >= WORTH_REVISIONS;
        match (*old).min(applied) {
            revision if is_worth(revision) => Due::Compact(revision),
            _ if is_worth(*old) => Due::Note,
            _ => Due::Nothing,
        }
    }
}

/// The last compaction by a kvnode, as it stands in etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// When the note was written, by the clock of that node: milliseconds since 1970.
    pub(crate) unix_ms: u64,
    /// The revision.
    pub(crate) revision: i64,
    /// The node.
    pub(crate) node: String,
}

impl Compacted {
    /// As it is written: text that a person can read too.
    pub(super) fn write(&self) -> Vec<u8> {
        let Self { unix_ms, revision, node } = self;
        format!("{FORM} {unix_ms} {revision} {node}").into_bytes()
    }

    /// Reads it; `None`: it is none, or of a form that is not known here.
    pub(crate) fn read(value: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(value).ok().filter(|text| text.len() <= NOTE_BYTES_MAX)?;
        let mut parts = text.splitn(4, ' ');
        parts.next().filter(|form| *form == FORM)?;
        let unix_ms = parts.next()?.parse().ok()?;
        let revision = parts.next()?.parse().ok().filter(|revision| *revision >= 0)?;
        let node = NodeName::new(parts.next()?).ok()?.as_str().to_owned();
        Some(Self { unix_ms, revision, node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEEP: Duration = Duration::from_secs(300);
    const MINUTE: Duration = Duration::from_secs(60);

    #[expect(clippy::disallowed_methods, reason = "a time to begin with")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn it_is_compacted_at_the_newest_revision_that_is_old_enough_and_never_before() {
        let (mut compaction, start) = (Compaction::new(KEEP), start());
        assert_eq!(compaction.every(), MINUTE);
        assert_eq!(compaction.due(i64::MAX, start), Due::Nothing);
        for minute in 0..20 {
            let now = start + MINUTE * minute;
            compaction.saw(1000 * i64::from(minute) + 500, now);
            let due = compaction.due(i64::MAX, now);
            if minute < 5 {
                assert_eq!(due, Due::Nothing, "{minute}");
                continue;
            }
            let revision = 1000 * i64::from(minute - 5) + 500;
            assert_eq!(due, Due::Compact(revision));
            // A moment before, the one before counts, which is done.
            if minute > 5 {
                let mut earlier = compaction.clone();
                earlier.seen.push_front((start + MINUTE * (minute - 6), revision - 1000));
                assert_eq!(earlier.due(i64::MAX, now - Duration::from_millis(1)), Due::Nothing);
            }
            compaction.compacted(revision);
            assert_eq!(compaction.due(i64::MAX, now), Due::Nothing);
        }
        assert!(compaction.seen.len() <= 6, "{:?}", compaction.seen);
    }

    #[test]
    fn what_the_own_store_has_not_come_to_stays_and_the_watches_are_moved_on() {
        let (mut compaction, start) = (Compaction::new(KEEP), start());
        compaction.saw(5000, start);
        let now = start + KEEP;
        assert_eq!(compaction.due(4000, now), Due::Compact(4000));
        compaction.compacted(4000);
        assert_eq!(compaction.due(4000, now), Due::Note);
        assert_eq!(compaction.due(5001, now), Due::Compact(5000));
        // Nothing is known of the store yet.
        assert_eq!(Compaction { done: 0, ..compaction }.due(0, now), Due::Note);
    }

    #[test]
    fn an_idle_etcd_is_left_alone_and_a_later_compaction_of_another_is_known() {
        let (mut compaction, start) = (Compaction::new(KEEP), start());
        compaction.compacted(1000);
        compaction.saw(1099, start);
        assert_eq!(compaction.due(1099, start + KEEP), Due::Nothing);
        compaction.saw(1100, start);
        assert_eq!(compaction.due(1100, start + KEEP), Due::Compact(1100));
        compaction.compacted(5000);
        compaction.compacted(1100);
        assert_eq!((compaction.due(1100, start + KEEP), compaction.done()), (Due::Nothing, 5000));
    }

    #[test]
    fn revisions_and_times_that_go_back_are_left_out_and_memory_is_bounded() {
        let (mut compaction, start) = (Compaction::new(Duration::from_secs(30 * 86_400)), start());
        compaction.saw(10, start + MINUTE);
        compaction.saw(9, start + 2 * MINUTE);
        compaction.saw(11, start);
        assert_eq!(compaction.seen, [(start + MINUTE, 10)]);
        for at in 2..10_000 {
            compaction.saw(i64::from(at) + 9, start + MINUTE * at);
        }
        assert_eq!(compaction.seen.len(), SEEN_MAX);
        // What is left out is compacted later.
        let now = start + MINUTE * 100_000;
        assert_eq!(compaction.due(i64::MAX, now), Due::Compact(SEEN_MAX as i64 + 9));
        assert_eq!(compaction.every(), EVERY_MAX);
        assert_eq!(Compaction::new(Duration::from_millis(1)).every(), EVERY_MIN);
    }

    #[test]
    fn a_note_is_read_back_and_what_is_none_is_not() {
        let note = Compacted { unix_ms: 1_700_000_000_000, revision: 77, node: "a@h".to_owned() };
        assert_eq!(note.write(), b"1 1700000000000 77 a@h");
        assert_eq!(Compacted::read(&note.write()), Some(note));
        for text in ["", "1", "2 1 77 a@h", "1 x 77 a@h", "1 1 -7 a@h", "1 1 77 ", "1 1 77 no node", "1 1 77"]
        {
            assert_eq!(Compacted::read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Compacted::read(&[0xff; 20]), None);
        assert_eq!(Compacted::read(format!("1 1 77 a@{}", "h".repeat(NOTE_BYTES_MAX)).as_bytes()), None);
    }
}
