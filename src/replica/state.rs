//! What is known of one slave: behind the lock of [`Slave`](super::Slave).

use std::time::{Duration, Instant};

use super::log::Log;
use super::missed::MissedKeys;
use super::slave::{Acknowledge, Mark};
use super::{SlaveState, Standing};
use crate::dist::RemoteProcess;
use crate::etf::Reference;

/// An acknowledgement is asked for after so many bytes.
const ACKNOWLEDGE_BYTES: usize = super::slave::WINDOW_BYTES / 4;
/// Or after so long: each is a call that the slave has to answer.
pub(super) const ACKNOWLEDGE_PAUSE: Duration = Duration::from_millis(20);

pub(super) struct State {
    pub(super) at: SlaveState,
    /// Counts the times that it was found: what is acknowledged of an earlier time says nothing.
    pub(super) session: u64,
    /// The process that what follows is about.
    pub(super) known: Option<RemoteProcess>,
    pub(super) log: Log,
    /// Whether writes go into the log.
    pub(super) streaming: bool,
    pub(super) missed: MissedKeys,
    /// The next part of the store whose keys are missed, in a full copy.
    pub(super) scan: Option<usize>,
    /// Changes when a scan begins anew.
    pub(super) scans: u64,
    /// The slave may have keys that the store does not know of.
    pub(super) sweep: bool,
    /// The same, and nothing can be done.
    pub(super) stale: bool,
    /// It was asked what it has, and has not answered.
    pub(super) outstanding: bool,
    pub(super) asked: Option<Reference>,
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
            log: Log::default(),
            streaming: false,
            missed: MissedKeys::default(),
            scan: Some(0),
            scans: 0,
            sweep: true,
            stale: false,
            outstanding: false,
            asked: None,
            last_asked: None,
            last_asked_up_to: 0,
            told_later: false,
            copied: 0,
            copy_total: 0,
        }
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
            self.copy_all();
        }
    }

    pub(super) fn copy_all(&mut self) {
        self.missed.clear();
        self.scan = Some(0);
        self.scans += 1;
        self.sweep = true;
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
        let dropped = log.drop_unsent(|key| missed.insert(key));
        self.bound(bytes_max);
        dropped
    }

    pub(super) fn resume(&mut self) {
        self.streaming = true;
        self.copied = 0;
        self.copy_total = self.missed.len() as u64;
    }

    pub(super) fn missed_count(&self) -> Option<u64> {
        self.scan.is_none().then_some(self.missed.len() as u64)
    }

    pub(super) fn standing(&self) -> Standing {
        match self.at {
            SlaveState::Dropped => Standing::Dropped,
            SlaveState::Seeking if self.known.is_none() => Standing::Seeking,
            SlaveState::Seeking => Standing::Gone { missed: self.missed_count() },
            SlaveState::Following(_) if !self.streaming => Standing::Behind { missed: self.missed_count() },
            SlaveState::Following(_) if self.scan.is_some() || !self.missed.is_empty() => {
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
        if paused || self.log.sent_bytes() >= ACKNOWLEDGE_BYTES {
            self.last_asked = Some(now);
            self.last_asked_up_to = self.log.sent_up_to();
            self.outstanding = true;
            self.told_later = false;
            return Acknowledge::Now(Mark { session: self.session, up_to: self.last_asked_up_to });
        }
        if std::mem::replace(&mut self.told_later, true) { Acknowledge::No } else { Acknowledge::Later }
    }
}
