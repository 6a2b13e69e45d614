//! What is known of one slave: behind the lock of [`Slave`](super::Slave).

use std::mem::Discriminant;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dialect::{CopyMark, Dialect};
use super::lineage::Refusal;
use super::log::Log;
use super::missed::MissedKeys;
use super::planted::{Rule, planted};
use super::slave::{Acknowledge, Mark};
use super::withheld::Withheld;
use super::{SlaveState, Standing};
use crate::distribution::RemoteProcess;
use crate::etf::Traits;

/// An acknowledgement is asked for after so many bytes.
const ACKNOWLEDGE_BYTES: usize = super::slave::WINDOW_BYTES / 4;
/// Or after so long: each is a call that the slave has to answer.
pub(super) const ACKNOWLEDGE_PAUSE: Duration = Duration::from_millis(20);

/// A slave that does not keep what it is sent is sent it again after so long, and each time in vain twice as long, up to the
/// other: a try costs at most a window of writes.
const FULL_PAUSE: Duration = Duration::from_millis(500);
const FULL_PAUSE_MAX: Duration = Duration::from_secs(8);
/// The same where the whole store is to be copied, or something very large is to be sent.
const FULL_COPY_PAUSE: Duration = Duration::from_secs(30);

/// Greetings that nobody has answered, of one slave, whose sessions are known: it is in one of the last.
const GREETED_MAX: usize = 8;

pub(super) struct State {
    pub(super) at: SlaveState,
    /// Counts the times that it was found: what is acknowledged of an earlier time says nothing.
    pub(super) session: u64,
    /// The process that what follows is about.
    pub(super) known: Option<RemoteProcess>,
    /// The node where it was last, in this life of the store or one before.
    pub(super) node: Option<Arc<str>>,
    /// The others are to be told of the node.
    pub(super) moved: bool,
    pub(super) dialect: Dialect,
    /// The sessions of the greetings since it was found last that may have been taken, the last ones.
    pub(super) greeted: Vec<u64>,
    /// The kind of standing that it has, and since when, in milliseconds since 1970; `None`: nobody has said.
    pub(super) since: Option<(Discriminant<Standing>, u64)>,
    pub(super) last_error: Option<Arc<str>>,
    /// Of a kvnode's store.
    pub(super) incarnation: Option<u64>,
    /// Why it is not followed though it is there.
    pub(super) refused: Option<Refusal>,
    /// It did not keep what it was sent, and why; until it has everything.
    pub(super) full: Option<Refusal>,
    /// Nothing but deletions is sent to it before.
    pub(super) held_until: Option<Instant>,
    pub(super) full_pause: Duration,
    /// The keys that it was not sent.
    pub(super) withheld: Withheld,
    /// What its node cannot decode.
    pub(super) cannot_decode: Traits,
    /// It is to be greeted anew: what it was told of its primary is no longer so.
    pub(super) renew: bool,
    /// It is to be told of the other slaves.
    pub(super) news: bool,
    /// It was a primary with slaves when it was followed first, and has not been in step since.
    pub(super) stepped_down: bool,
    pub(super) log: Log,
    /// A copy's beginning was queued, and its end was not.
    pub(super) copying: bool,
    /// From this number in the log on, it has everything once that is acknowledged; `None`: more is to be repaired.
    pub(super) caught_up_from: Option<u64>,
    /// It has every write up to this one of the store's.
    pub(super) confirmed: u64,
    /// Somebody waits for it to have this one.
    pub(super) wanted: u64,
    /// The store's number of the last write that it was asked about.
    pub(super) asked_seq: u64,
    /// Whether writes go into the log.
    pub(super) streaming: bool,
    pub(super) missed: MissedKeys,
    /// The next part of the store whose keys are missed, in a full copy.
    pub(super) scan: Option<usize>,
    /// Changes when a scan begins anew.
    pub(super) scans: u64,
    /// The last write when the scan with this number began.
    pub(super) scanned_since: Option<(u64, u64)>,
    /// The slave may have keys that the store does not know of.
    pub(super) sweep: bool,
    /// The same, and nothing can be done: they could not be read.
    pub(super) unswept: bool,
    /// Something could not be sent to it, so that it has an old value, or none.
    pub(super) unsent: bool,
    /// The slave was started with the store, not added by hand, and was never followed: what it holds is to be kept.
    pub(super) protect_data: bool,
    /// It was asked what it has, and has not answered.
    pub(super) outstanding: bool,
    pub(super) last_asked: Option<Instant>,
    pub(super) last_asked_up_to: u64,
    pub(super) told_later: bool,
    pub(super) copied: u64,
    pub(super) copy_total: u64,
}

impl State {
    pub(super) fn new(at: SlaveState) -> Self {
        Self {
            at,
            session: 0,
            known: None,
            node: None,
            moved: false,
            dialect: Dialect::Elixir,
            greeted: Vec::new(),
            since: None,
            last_error: None,
            incarnation: None,
            refused: None,
            full: None,
            held_until: None,
            full_pause: FULL_PAUSE,
            withheld: Withheld::default(),
            cannot_decode: Traits::none(),
            renew: false,
            news: false,
            stepped_down: false,
            log: Log::default(),
            copying: false,
            caught_up_from: None,
            confirmed: 0,
            wanted: 0,
            asked_seq: 0,
            streaming: false,
            missed: MissedKeys::default(),
            scan: Some(0),
            scans: 0,
            scanned_since: None,
            sweep: true,
            unswept: false,
            unsent: false,
            protect_data: false,
            outstanding: false,
            last_asked: None,
            last_asked_up_to: 0,
            told_later: false,
            copied: 0,
            copy_total: 0,
        }
    }

    /// It is greeted with a session.
    pub(super) fn note_greeted(&mut self, session: u64) {
        if self.greeted.contains(&session) {
            return;
        }
        if self.greeted.len() >= GREETED_MAX {
            self.greeted.remove(0);
        }
        self.greeted.push(session);
    }

    /// Notes a write that is not queued.
    pub(super) fn miss(&mut self, key: &[u8], bytes_max: usize) {
        // A full copy that has not begun finds it, and what was deleted is swept.
        if self.at == SlaveState::Dropped || self.scan == Some(0) {
            return;
        }
        self.missed.insert(key);
        self.bound(bytes_max);
    }

    /// Past the bound, everything is missed.
    pub(super) fn bound(&mut self, bytes_max: usize) {
        if self.missed.bytes() > bytes_max {
            if planted(Rule::MissedBound) {
                return self.missed.clear();
            }
            self.copy_all();
        }
    }

    pub(super) fn copy_all(&mut self) {
        self.missed.clear();
        self.withheld.clear();
        self.scan = Some(0);
        self.scans += 1;
        self.sweep = true;
        self.copying = false;
        self.caught_up_from = None;
    }

    /// A step of a full copy is due: a kvnode is told where it begins.
    pub(super) fn begin_copy(&mut self, seq: u64) {
        if let Dialect::Kvnode { session } = self.dialect
            && self.scan == Some(0)
            && !self.copying
        {
            self.log.push_mark(session, seq, CopyMark::Begin);
            self.copying = true;
        }
    }

    /// Notes where in the log the slave has everything, once that is so.
    pub(super) fn note_caught_up(&mut self, seq: u64) {
        let is_caught_up = self.streaming && self.scan.is_none() && self.missed.is_empty();
        if !is_caught_up {
            self.caught_up_from = None;
        } else if self.caught_up_from.is_none() {
            if let Dialect::Kvnode { session } = self.dialect {
                let copied = std::mem::take(&mut self.copying);
                self.log.push_mark(session, seq, if copied { CopyMark::End } else { CopyMark::Whole });
            }
            self.caught_up_from = Some(self.log.end());
        }
    }

    /// It has handled everything up to this number of the log.
    pub(super) fn acknowledged(&mut self, up_to: u64) {
        let seq = self.log.acknowledge(up_to);
        if let Some(seq) = seq
            && self.caught_up_from.is_some_and(|from| self.log.first() >= from)
        {
            self.confirmed = self.confirmed.max(seq);
            self.clear_full();
        }
    }

    /// What is known of its room is over.
    pub(super) fn clear_full(&mut self) {
        self.full = None;
        self.held_until = None;
        self.full_pause = FULL_PAUSE;
    }

    /// It has not kept all that it was sent up to this number of the log, or since it answered last. Gives whether that is
    /// news.
    pub(super) fn not_kept(&mut self, up_to: u64, why: Refusal, now: Instant, bytes_max: usize) -> bool {
        self.stop_streaming();
        let Self { log, missed, .. } = self;
        let sent = log.lose(up_to, |key| missed.insert(key));
        // Deletions make room.
        let unsent = log.drop_unsent_puts(|key| missed.insert(key));
        self.lost(sent.marks || unsent.marks || self.copying, bytes_max);
        if self.held_until.is_none() {
            let costs_much = self.scan.is_some() || why == Refusal::TooLarge;
            let pause = if costs_much { FULL_COPY_PAUSE } else { self.full_pause };
            self.held_until = Some(now + pause);
            self.full_pause = (self.full_pause * 2).min(FULL_PAUSE_MAX);
        }
        self.full.replace(why) != Some(why)
    }

    /// Whether a deletion is sent though nothing else is.
    pub(super) fn sends_deletions(&self, bytes_max: usize) -> bool {
        self.held_until.is_some()
            && matches!(self.at, SlaveState::Following(_))
            && self.scan.is_none()
            && self.log.bytes() < bytes_max
    }

    /// Whether it is to be sent what it misses, from now on.
    pub(super) fn may_catch_up(&mut self, now: Instant) -> bool {
        if self.held_until.is_some_and(|until| now >= until) {
            self.held_until = None;
        }
        !self.streaming
            && self.held_until.is_none()
            && matches!(self.at, SlaveState::Following(_))
            && self.log.is_empty()
    }

    /// From here on writes are noted and not queued.
    pub(super) fn stop_streaming(&mut self) {
        self.streaming = false;
        if self.scan == Some(0) {
            // Deletions are not noted then.
            self.copy_all();
        }
    }

    pub(super) fn fall_behind(&mut self, bytes_max: usize) -> u64 {
        self.stop_streaming();
        let Self { log, missed, .. } = self;
        let lost = log.drop_unsent(|key| missed.insert(key));
        self.lost(lost.marks, bytes_max);
        lost.writes
    }

    /// What was taken out of the log is missed.
    pub(super) fn lost(&mut self, marks: bool, bytes_max: usize) {
        self.caught_up_from = None;
        if marks {
            // Nobody knows any more what belongs to the copy.
            self.copy_all();
        }
        self.bound(bytes_max);
    }

    pub(super) fn resume(&mut self) {
        self.streaming = true;
        // Before the first write: that would otherwise come into what the slave has, and a reader there see it beside what is
        // old. A former primary would also not keep what it is written over.
        self.begin_copy(self.confirmed);
        self.caught_up_from = None;
        self.copied = 0;
        self.copy_total = self.missed.len() as u64;
    }

    pub(super) fn missed_count(&self) -> Option<u64> {
        self.scan.is_none().then_some(self.missed.len() as u64)
    }

    pub(super) fn standing(&self) -> Standing {
        if let (SlaveState::Following(_), Some(why)) = (&self.at, self.full) {
            return Standing::Full { why, missed: self.missed_count() };
        }
        match self.at {
            SlaveState::Dropped => Standing::Dropped,
            SlaveState::Seeking if self.refused.is_some() => {
                self.refused.map_or(Standing::Seeking, Standing::Refused)
            }
            SlaveState::Seeking if self.known.is_none() => Standing::Seeking,
            SlaveState::Seeking => Standing::Gone { missed: self.missed_count() },
            SlaveState::Following(_) if !self.streaming => Standing::Behind { missed: self.missed_count() },
            SlaveState::Following(_) if self.scan.is_some() || !self.missed.is_empty() || self.copying => {
                Standing::Copying { done: self.copied, total: self.copy_total.max(self.copied) }
            }
            SlaveState::Following(_) => Standing::InStep { lag: self.log.len() as u64 },
        }
    }

    /// Something was sent that it was not asked about, and it can be asked.
    pub(super) const fn is_unasked(&self) -> bool {
        !self.outstanding
            && matches!(self.at, SlaveState::Following(_))
            && self.log.sent_up_to() > self.last_asked_up_to
    }

    pub(super) fn acknowledge(&mut self, now: Instant) -> Acknowledge {
        if !self.is_unasked() {
            return Acknowledge::No;
        }
        let paused = self.last_asked.is_none_or(|asked| now >= asked + ACKNOWLEDGE_PAUSE);
        let urgent = self.wanted > self.asked_seq;
        if paused || urgent || self.log.sent_bytes() >= ACKNOWLEDGE_BYTES {
            self.last_asked = Some(now);
            self.asked_seq = self.log.sent_seq().unwrap_or(self.asked_seq);
            self.last_asked_up_to = self.log.sent_up_to();
            self.outstanding = true;
            self.told_later = false;
            return Acknowledge::Now(Mark { session: self.session, up_to: self.last_asked_up_to });
        }
        if std::mem::replace(&mut self.told_later, true) { Acknowledge::No } else { Acknowledge::Later }
    }
}
