//! Writes of a primary that are with the store and may not be done.

use std::collections::VecDeque;

/// A write that was handed to the store: [`Upstream::stored`](super::Upstream::stored) is told with it what became of that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "what becomes of the write is to be told"]
pub struct Ticket(u64);

/// All writes that were begun before a moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reached(u64);

impl Reached {
    pub(super) const fn includes(self, Ticket(ticket): Ticket) -> bool {
        ticket < self.0
    }
}

/// The writes, in the order in which they came. A store may be done with them in any other.
#[derive(Debug, Default)]
pub(super) struct UnderWay {
    /// The ticket of the first.
    first: u64,
    writes: VecDeque<Write>,
}

#[derive(Debug)]
struct Write {
    seq: u64,
    /// Once everything before it is done, so is everything up to its number.
    counts: bool,
    is_done: bool,
}

impl UnderWay {
    /// A write with this number is about to be handed to the store.
    #[inline]
    pub(super) fn begin(&mut self, seq: u64, counts: bool) -> Ticket {
        let ticket = Ticket(self.first + self.writes.len() as u64);
        self.writes.push_back(Write { seq, counts, is_done: false });
        ticket
    }

    /// The store is done with a write. Gives the number up to which everything is done, where that is news. A ticket of a session that
    /// is over is none.
    #[inline]
    pub(super) fn end(&mut self, Ticket(ticket): Ticket) -> Option<u64> {
        let at = usize::try_from(ticket.checked_sub(self.first)?).ok()?;
        self.writes.get_mut(at)?.is_done = true;
        if at == 0 { self.settle() } else { None }
    }

    /// Something that is no write, and done when everything before it is. As [`end`](Self::end).
    pub(super) fn pass(&mut self, seq: u64) -> Option<u64> {
        self.writes.push_back(Write { seq, counts: true, is_done: true });
        self.settle()
    }

    #[inline]
    fn settle(&mut self) -> Option<u64> {
        let mut settled = None;
        while let Some(write) = self.writes.front().filter(|write| write.is_done) {
            if write.counts {
                settled = settled.max(Some(write.seq));
            }
            self.writes.pop_front();
            self.first += 1;
        }
        settled
    }

    /// All that was begun so far.
    pub(super) fn reached(&self) -> Reached {
        Reached(self.first + self.writes.len() as u64)
    }

    pub(super) const fn is_done_with(&self, Reached(ticket): Reached) -> bool {
        self.first >= ticket
    }

    /// Something was not kept: what is under way settles nothing any more.
    pub(super) fn void(&mut self) {
        self.writes.iter_mut().for_each(|write| write.counts = false);
    }

    /// Another session begins: what is under way is of no matter to it.
    pub(super) fn forget(&mut self) {
        self.first += self.writes.len() as u64;
        self.writes.clear();
    }

    pub(super) fn is_known(&self, Ticket(ticket): Ticket) -> bool {
        ticket >= self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_up_to_a_write_is_done_once_all_before_it_are() {
        let mut under_way = UnderWay::default();
        let [one, two, three] = [4, 5, 6].map(|seq| under_way.begin(seq, true));
        assert_eq!((under_way.end(two), under_way.end(one)), (None, Some(5)));
        assert_eq!((under_way.pass(7), under_way.end(three)), (None, Some(7)));
        assert_eq!((under_way.end(three), under_way.pass(9)), (None, Some(9)), "told once");
        let before = under_way.begin(10, true);
        let all = under_way.reached();
        let lost = under_way.begin(11, true);
        assert!(all.includes(before) && !under_way.is_done_with(all));
        assert_eq!(under_way.end(before), Some(10));
        assert!(under_way.is_done_with(all) && !under_way.is_done_with(under_way.reached()));
        let behind = under_way.begin(12, true);
        assert!(!all.includes(behind));
        under_way.void();
        let later = under_way.begin(13, false);
        assert_eq!([lost, behind, later].map(|ticket| under_way.end(ticket)), [None; 3]);
        let old = under_way.begin(14, true);
        under_way.forget();
        let new = under_way.begin(3, true);
        assert!(under_way.is_known(new) && !under_way.is_known(old));
        assert_eq!((under_way.end(old), under_way.end(new)), (None, Some(3)));
    }
}
