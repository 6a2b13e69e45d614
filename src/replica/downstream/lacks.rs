//! What a slave lacks of its store, whether it is there or not: keys under a bound, and past it all that a scan finds.

use std::sync::Arc;

use super::missed::MissedKeys;
use super::withheld::Withheld;
use crate::replica::planted::{Rule, planted};

pub(super) struct Lacks {
    /// The bound of the keys, in bytes.
    bytes_max: usize,
    missed: MissedKeys,
    /// The missed key whose value is being read: it comes before all others.
    late: Option<Arc<[u8]>>,
    /// The next part of the store whose keys are missed, in a full copy; `None`: none is.
    part: Option<usize>,
    /// Changes when a scan begins anew.
    scan: u64,
    /// The last write when the scan with this number began.
    scanned_since: Option<(u64, u64)>,
    /// The slave may have keys that the store does not know of, and these are to be read.
    pub(super) sweep: bool,
    /// The same for good: they could not be read.
    pub(super) unswept: bool,
    /// The first deletion of all keys that it was not told of: an Elixir server has it once its keys are read.
    pub(super) cleared: Option<u64>,
    /// It had everything then: what it has too much is from before.
    pub(super) had_all: bool,
    /// Something could not be read here, so that the slave has an old value, or none.
    pub(super) unsent: bool,
    /// The keys that it was not sent, as its node cannot decode what they have.
    pub(super) withheld: Withheld,
}

/// What a repair does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Under the order of writes, what [`repair`](super::Downstream::repair) finds to do.
    InOrder,
    /// The keys of a part that was there at a write are to be read.
    Scan { scan: u64, part: usize, since: u64 },
}

impl Lacks {
    /// Everything, of a slave of which nothing is known.
    pub(super) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            missed: MissedKeys::default(),
            late: None,
            part: Some(0),
            scan: 0,
            scanned_since: None,
            sweep: true,
            unswept: false,
            cleared: None,
            had_all: false,
            unsent: false,
            withheld: Withheld::default(),
        }
    }

    pub(super) const fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// From here on everything is lacking.
    pub(super) fn all(&mut self) {
        self.missed.clear();
        self.late = None;
        self.withheld.clear();
        self.part = Some(0);
        self.scan += 1;
        self.sweep = true;
    }

    /// The same of a process of which nothing is known.
    pub(super) fn all_of_another(&mut self) {
        self.all();
        (self.unswept, self.unsent, self.had_all) = (false, false, false);
    }

    /// A write is not sent. Gives whether everything is lacking now, as the bound was passed.
    pub(super) fn miss(&mut self, key: &[u8]) -> bool {
        // A full copy that has not begun finds it, and what was deleted is swept.
        if self.is_all() {
            return false;
        }
        self.missed.insert(key);
        self.bound()
    }

    /// A key that the slave may have otherwise than the store, whatever else is lacking.
    pub(super) fn add(&mut self, key: &[u8]) {
        self.missed.insert(key);
    }

    /// Past the bound everything is missed; gives whether that is so now.
    pub(super) fn bound(&mut self) -> bool {
        let is_too_much = self.missed.bytes() > self.bytes_max;
        if is_too_much && planted(Rule::MissedBound) {
            self.missed.clear();
            return false;
        }
        if is_too_much {
            self.all();
        }
        is_too_much
    }

    /// A full copy has not begun.
    pub(super) fn is_all(&self) -> bool {
        self.part == Some(0)
    }

    /// Not every key that is missed is known.
    pub(super) const fn is_scanning(&self) -> bool {
        self.part.is_some()
    }

    pub(super) fn is_nothing(&self) -> bool {
        self.part.is_none() && self.knows_none()
    }

    /// No key is known to be missed.
    fn knows_none(&self) -> bool {
        self.missed.is_empty() && self.late.is_none()
    }

    /// The keys that are missed; `None`: all.
    pub(super) fn count(&self) -> Option<u64> {
        self.part.is_none().then(|| self.known())
    }

    /// The keys that are known to be missed.
    pub(super) fn known(&self) -> u64 {
        self.missed.len() as u64 + u64::from(self.late.is_some())
    }

    pub(super) fn pop(&mut self) -> Option<Arc<[u8]>> {
        self.late.take().or_else(|| self.missed.pop())
    }

    /// The value of a key that was popped is being read. The next `pop` gives this key again: the store keeps what it has read for
    /// a few keys, and not while all others are asked for.
    pub(super) fn put_back(&mut self, key: Arc<[u8]>) {
        self.late = Some(key);
    }

    /// A write is queued: it brings what its key has, also where a read of that would come behind one write after the other.
    #[inline]
    pub(super) fn queued(&mut self, key: &[u8]) {
        if self.late.as_deref() == Some(key) {
            self.late = None;
        }
    }

    pub(super) fn step(&self) -> Step {
        match (self.part, self.scanned_since) {
            (Some(part), Some((scan, since))) if self.knows_none() && scan == self.scan => {
                Step::Scan { scan, part, since }
            }
            _ => Step::InOrder,
        }
    }

    /// A scan begins, where one is due. Under the order of writes, `seq` being the last.
    pub(super) fn begin_scan(&mut self, seq: u64) {
        if self.is_all() && self.scanned_since.is_none_or(|(known, _)| known != self.scan) {
            self.scanned_since = Some((self.scan, seq));
        }
    }

    /// A part was scanned; gives whether it was one that was asked for. What is written from before that on goes through the
    /// log, unless all begins anew.
    pub(super) fn scanned(&mut self, scan: u64, part: usize, parts: usize, keys: &[Box<[u8]>]) -> bool {
        let is_asked_for = self.scan == scan && self.part == Some(part);
        if is_asked_for {
            self.part = (part + 1 < parts).then_some(part + 1);
            for key in keys {
                self.missed.insert(key);
            }
        }
        is_asked_for
    }

    /// It may have keys that the store has not, or old values, for good.
    pub(super) const fn is_for_good(&self) -> bool {
        self.unswept || self.unsent
    }
}
