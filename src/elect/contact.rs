//! The connection of a candidate to the node of the holder, by which it learns that the node is gone before the lease has ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Life;

/// The pause behind a dial that decides nothing: this, then twice as long each time.
const PAUSE_FIRST: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(4);

/// How a candidate stands to the node of the holder.
#[derive(Debug)]
pub(super) struct Contact {
    life: Life,
    /// The revision of the key that it was seen in.
    revision: i64,
    reach: Reach,
    /// This life of the node was connected to. Without that a refusal says nothing: two nodes that cannot reach each other would take
    /// the key from each other without end.
    was_connected: bool,
    pause: Duration,
}

#[derive(Debug, PartialEq, Eq)]
enum Reach {
    /// It is dialled then.
    Apart {
        dial_at: Instant,
    },
    Dialling {
        question: u64,
    },
    Connected {
        question: u64,
    },
    /// This life of the node is over, as far as one can know.
    Gone,
}

impl Contact {
    pub(super) fn new(life: Life, revision: i64, now: Instant) -> Self {
        let reach = Reach::Apart { dial_at: now };
        Self { life, revision, reach, was_connected: false, pause: PAUSE_FIRST }
    }

    pub(super) fn is_with(&self, life: &Life) -> bool {
        self.life == *life
    }

    /// The holder has written the key in this revision.
    pub(super) fn seen(&mut self, revision: i64, now: Instant) {
        if revision != self.revision {
            self.revision = revision;
            if self.reach == Reach::Gone {
                // It was there after all.
                self.reach = Reach::Apart { dial_at: now };
            }
        }
    }

    /// Whether the holder that wrote the key in this revision is gone.
    pub(super) fn is_gone(&self, revision: i64) -> bool {
        self.revision == revision && self.reach == Reach::Gone
    }

    pub(super) fn wants_dial(&self, now: Instant) -> bool {
        matches!(self.reach, Reach::Apart { dial_at } if dial_at <= now)
    }

    pub(super) fn dial(&mut self, question: u64) -> (u64, Arc<str>) {
        self.reach = Reach::Dialling { question };
        (question, Arc::clone(&self.life.node))
    }

    /// When it is to be dialled.
    pub(super) fn due(&self) -> Option<Instant> {
        if let Reach::Apart { dial_at } = self.reach { Some(dial_at) } else { None }
    }

    pub(super) fn connected(&mut self, question: u64, creation: u32) {
        if self.reach == (Reach::Dialling { question }) {
            if creation == self.life.creation {
                self.reach = Reach::Connected { question };
                (self.was_connected, self.pause) = (true, PAUSE_FIRST);
            } else {
                self.reach = Reach::Gone;
            }
        }
    }

    pub(super) fn not_connected(&mut self, question: u64, is_gone: bool, now: Instant) {
        if self.reach == (Reach::Dialling { question }) {
            if is_gone && self.was_connected {
                self.reach = Reach::Gone;
            } else {
                self.reach = Reach::Apart { dial_at: now + self.pause };
                self.pause = (2 * self.pause).min(PAUSE_MAX);
            }
        }
    }

    pub(super) fn disconnected(&mut self, question: u64, now: Instant) {
        if self.reach == (Reach::Connected { question }) {
            self.reach = Reach::Apart { dial_at: now };
        }
    }
}
