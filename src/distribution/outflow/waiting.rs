//! What waits in streams and behind them, counted by whose memory it is.

use super::super::outbound::KeptFrame;
use super::{Behind, BehindFrame, Origin};

/// Bytes of what waits in streams and behind them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Waiting {
    /// Small answers behind streams.
    pub(super) small_answers: usize,
    /// Small frames of others behind them.
    pub(super) small_others: usize,
    /// Large answers in memory of their own.
    pub(super) owned: usize,
    /// Large answers in memory that a store had when they were made.
    pub(super) shared: usize,
    /// Large frames of others.
    pub(super) others: usize,
    /// Messages that are kept by themselves, in number.
    pub(super) kept: usize,
}

impl Waiting {
    pub(super) const fn small(&mut self, origin: Origin) -> &mut usize {
        match origin {
            Origin::Others => &mut self.small_others,
            Origin::Answers => &mut self.small_answers,
        }
    }

    const fn large(&mut self, origin: Origin, is_shared: bool) -> &mut usize {
        match (origin, is_shared) {
            (Origin::Others, _) => &mut self.others,
            (Origin::Answers, true) => &mut self.shared,
            (Origin::Answers, false) => &mut self.owned,
        }
    }

    pub(super) fn add(&mut self, behind: &Behind) {
        match &behind.frame {
            BehindFrame::Small(frame) => *self.small(behind.origin) += frame.len(),
            BehindFrame::Kept(frame) => {
                *self.large(behind.origin, frame.is_shared) += frame.body.len();
                self.kept += 1;
            }
        }
    }

    pub(super) fn remove(&mut self, behind: &Behind) {
        match &behind.frame {
            BehindFrame::Small(frame) => *self.small(behind.origin) -= frame.len(),
            BehindFrame::Kept(frame) => {
                *self.large(behind.origin, frame.is_shared) -= frame.body.len();
                self.kept -= 1;
            }
        }
    }

    /// So many bytes of a large message's body are ready.
    pub(super) fn left(&mut self, origin: Origin, frame: &KeptFrame) {
        *self.large(origin, frame.is_shared) -= frame.body.len();
    }
}
