//! The stream to a slave that is followed: its log, what is asked about that, and what a copy has come to.

use std::time::{Duration, Instant};

use super::lacks::Lacks;
use super::log::Log;
use super::outcome::{Acknowledge, Mark};
use super::phase::Progress;
use crate::replica::dialect::{CopyMark, Dialect};
use crate::replica::lineage::Refusal;

/// Bytes that are sent ahead of the slave's acknowledgement (one write may exceed it): enough to keep a connection
/// busy for a few milliseconds, little for the slave's mailbox.
pub(super) const WINDOW_BYTES: usize = 4 << 20;
/// A repair adds to the log while less than this waits in it.
const REPAIR_BYTES: usize = 1 << 20;
/// An acknowledgement is asked for after so many bytes.
const ACKNOWLEDGE_BYTES: usize = WINDOW_BYTES / 4;
/// Or after so long: each is a call that the slave has to answer.
pub(super) const ACKNOWLEDGE_PAUSE: Duration = Duration::from_millis(20);

/// A slave that does not keep what it is sent is sent it again after so long, and each time in vain twice as long, up to the
/// other: a try costs at most a window of writes.
const FULL_PAUSE: Duration = Duration::from_millis(500);
const FULL_PAUSE_MAX: Duration = Duration::from_secs(8);
/// The same where the whole store is to be copied, or something very large is to be sent.
const FULL_COPY_PAUSE: Duration = Duration::from_secs(30);

/// What there is of a slave while it is followed, whether it is sent everything or not.
pub(super) struct Stream {
    /// Tells it from earlier streams to this slave: what is acknowledged of these says nothing.
    pub(super) session: u64,
    pub(super) dialect: Dialect,
    pub(super) log: Log,
    pub(super) probe: Probe,
    /// It did not keep what it was sent; until it has everything.
    pub(super) full: Option<Full>,
    /// A copy's beginning was queued, and its end was not.
    pub(super) copying: bool,
    /// Where it has everything; `None`: more is to be repaired.
    pub(super) whole: Option<Whole>,
    /// Its keys are being read, as this question asks; nothing is repaired meanwhile.
    pub(super) sweeping: Option<u64>,
    /// It was announced to its connection then.
    pub(super) fed: Option<Instant>,
    pub(super) progress: Progress,
}

/// Where a repair came to its end.
#[derive(Clone, Copy)]
pub(super) struct Whole {
    /// The slave has everything once it has acknowledged what comes before this number in the log.
    from: u64,
    /// Up to this write of the store. Not all of these need be in the log: what a repair finds to do tells nothing of the writes that it
    /// comes from.
    seq: u64,
}

/// What a slave is asked about what it was sent.
#[derive(Default)]
pub(super) struct Probe {
    /// It is to be asked, though it was sent nothing since it was asked last: what a repair sent was acknowledged before it was known
    /// to be all.
    is_due: bool,
    /// It was asked, and has not answered.
    is_outstanding: bool,
    asked: Option<Instant>,
    /// Up to there in the log.
    asked_up_to: u64,
    /// The store's number of the last write that it was asked about.
    asked_seq: u64,
    /// The driver knows that it is to be asked later.
    told_later: bool,
}

/// A slave does not keep what it is sent.
#[derive(Clone, Copy)]
pub(super) struct Full {
    pub(super) why: Refusal,
    /// How long it is sent deletions alone, the next time.
    pause: Duration,
}

/// A repair that goes on beside the writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repair {
    /// Keys that were queued.
    pub(super) done: u64,
    /// Keys that there are to queue, as far as is known.
    pub(super) total: u64,
    /// It went on then.
    pub(super) went_on: Option<Instant>,
}

impl Stream {
    pub(super) fn new(session: u64, dialect: Dialect) -> Self {
        Self {
            session,
            dialect,
            log: Log::default(),
            probe: Probe::default(),
            full: None,
            copying: false,
            whole: None,
            sweeping: None,
            fed: None,
            progress: Progress::default(),
        }
    }

    /// Writes go into the log from here on. `confirmed`: up to there it has everything.
    pub(super) fn resume(&mut self, lacks: &Lacks, confirmed: u64) -> Repair {
        // Before the first write: that would otherwise come into what the slave has, and a reader there see it beside what is
        // old. A former primary would also not keep what it is written over.
        self.begin_copy(lacks, confirmed);
        self.whole = None;
        Repair { total: lacks.known(), ..Repair::default() }
    }

    /// From here on writes are noted and not queued.
    pub(super) fn pause(&mut self, lacks: &mut Lacks) {
        if lacks.is_all() {
            // Deletions are not noted then.
            lacks.all();
            self.copying = false;
        }
        self.whole = None;
    }

    /// Something was taken out of the log, and is missed; with a copy's mark where `marks`.
    pub(super) fn lost(&mut self, lacks: &mut Lacks, marks: bool) {
        self.whole = None;
        if marks {
            // It is unknown from here on what belongs to the copy.
            lacks.all();
        }
        if lacks.bound() || marks {
            self.copying = false;
        }
    }

    /// A key was missed.
    pub(super) fn miss(&mut self, lacks: &mut Lacks, key: &[u8]) {
        if lacks.miss(key) {
            self.copying = false;
        }
    }

    /// Everything is lacking.
    pub(super) fn lack_all(&mut self, lacks: &mut Lacks) {
        lacks.all();
        if self.dialect == Dialect::Elixir {
            // Its keys are read at once. A put of before that is sent after the read could bring a key back that the store has no more.
            self.log.drop_unsent(|_| {});
        }
        self.copying = false;
        self.whole = None;
    }

    /// A step of a full copy is due: a kvnode is told where it begins.
    pub(super) fn begin_copy(&mut self, lacks: &Lacks, seq: u64) {
        if let Dialect::Kvnode { session } = self.dialect
            && lacks.is_all()
            && !self.copying
        {
            self.log.push_mark(session, seq, CopyMark::Begin);
            self.copying = true;
        }
    }

    /// Notes where in the log the slave has everything, once that is so; gives whether it is.
    pub(super) fn note_whole(&mut self, lacks: &Lacks, seq: u64) -> bool {
        let is_whole = lacks.is_nothing();
        if !is_whole {
            self.whole = None;
        } else if self.whole.is_none() {
            if let Dialect::Kvnode { session } = self.dialect {
                let copied = std::mem::take(&mut self.copying);
                self.log.push_mark(session, seq, if copied { CopyMark::End } else { CopyMark::Whole });
            }
            self.whole = Some(Whole { from: self.log.end(), seq });
            self.probe.is_due |= self.log.is_empty();
        }
        is_whole
    }

    /// Whether it has acknowledged that it has everything, and was sent each write since.
    pub(super) fn is_whole(&self) -> bool {
        self.whole.is_some_and(|whole| self.log.first() >= whole.from)
    }

    /// Whether a repair may go on now; else when the slave has taken more.
    pub(super) fn has_room(&self, bytes_max: usize) -> bool {
        // Half of the buffer is left to the writes that come meanwhile.
        let room = REPAIR_BYTES.min(bytes_max / 2).max(1);
        let waiting = if bytes_max < 2 * WINDOW_BYTES {
            // What was sent counts where the window is not small beside the buffer.
            self.log.bytes()
        } else {
            self.log.unsent_bytes()
        };
        waiting < room
    }

    /// It has handled everything up to this number of the log. Gives up to which write of the store it has everything, where
    /// that is known.
    pub(super) fn acknowledged(&mut self, up_to: u64) -> Option<u64> {
        self.probe.answered();
        let seq = self.log.acknowledge(up_to).unwrap_or(0);
        let whole = self.whole.filter(|_| self.is_whole())?;
        // What is known of its room is over.
        self.full = None;
        Some(seq.max(whole.seq))
    }

    /// It has not kept all that it was sent: all of that is missed again, also what was sent behind the question that this answers.
    /// A failure is told once, with the answer that goes out next. Deletions that were not sent stay, as they make room. `confirmed`: up
    /// to there it had everything.
    pub(super) fn not_kept(&mut self, lacks: &mut Lacks, up_to: u64, confirmed: u64) {
        self.probe.answered();
        self.pause(lacks);
        let sent = self.log.lose(up_to, |key| lacks.add(key));
        let unsent = self.log.drop_unsent_puts(|key| lacks.add(key));
        self.lost(lacks, sent.marks || unsent.marks || self.copying);
        if let Dialect::Kvnode { session } = self.dialect
            && sent.wholes
        {
            // The slave is about to take that mark, and itself for a slave that has everything: it would count a deletion behind the mark
            // as the last write that it has, without the writes that it did not keep before.
            self.log.push_mark_first(session, confirmed, CopyMark::Repair);
        }
    }

    /// It does not keep what it is sent, for this reason, and is sent deletions alone for what this gives.
    pub(super) fn full_for(&mut self, lacks: &Lacks, why: Refusal) -> Duration {
        let pause = self.full.map_or(FULL_PAUSE, |full| full.pause);
        self.full = Some(Full { why, pause: (pause * 2).min(FULL_PAUSE_MAX) });
        let costs_much = lacks.is_scanning() || why == Refusal::TooLarge;
        if costs_much { FULL_COPY_PAUSE } else { pause }
    }

    /// The bound was passed: what was not sent is missed. Gives how many writes that are.
    pub(super) fn fall_behind(&mut self, lacks: &mut Lacks) -> u64 {
        self.pause(lacks);
        let lost = self.log.drop_unsent(|key| lacks.add(key));
        self.lost(lacks, lost.marks);
        lost.writes
    }

    /// It is followed no more: what it has not acknowledged is missed.
    pub(super) fn end(mut self, lacks: &mut Lacks) {
        self.pause(lacks);
        let lost = self.log.drop_all(|key| lacks.add(key));
        // A copy that is not whole is thrown away there.
        let marks = lost.marks || self.copying;
        self.lost(lacks, marks);
    }

    /// There is something that it was not asked about, and it can be asked.
    const fn is_unasked(&self) -> bool {
        let Probe { is_outstanding, is_due, asked_up_to, .. } = self.probe;
        !is_outstanding && (is_due || self.log.sent_up_to() > asked_up_to)
    }

    /// When it is to be asked next, where that is not at once.
    pub(super) fn ask_due(&self) -> Option<Instant> {
        self.probe.asked.filter(|_| self.is_unasked()).map(|asked| asked + ACKNOWLEDGE_PAUSE)
    }

    /// Whether the slave is to be asked now. `wanted`: a caller waits for the slave to have this write.
    pub(super) fn acknowledge(&mut self, now: Instant, wanted: u64) -> Acknowledge {
        if !self.is_unasked() {
            return Acknowledge::No;
        }
        let Self { probe, log, session, whole, .. } = self;
        let paused = probe.asked.is_none_or(|asked| now >= asked + ACKNOWLEDGE_PAUSE);
        let urgent = probe.is_due || wanted > probe.asked_seq;
        if paused || urgent || log.sent_bytes() >= ACKNOWLEDGE_BYTES {
            let asked_up_to = log.sent_up_to();
            let whole = whole.filter(|whole| whole.from <= asked_up_to).map(|whole| whole.seq);
            let asked_seq = log.sent_seq().max(whole).unwrap_or(probe.asked_seq);
            *probe =
                Probe { is_outstanding: true, asked: Some(now), asked_up_to, asked_seq, ..Probe::default() };
            return Acknowledge::Now(Mark { session: *session, up_to: asked_up_to });
        }
        if std::mem::replace(&mut probe.told_later, true) { Acknowledge::No } else { Acknowledge::Later }
    }
}

impl Probe {
    const fn answered(&mut self) {
        (self.is_outstanding, self.told_later) = (false, false);
    }
}
