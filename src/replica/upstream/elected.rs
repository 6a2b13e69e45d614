//! A store whose primary elections choose (`elect::succession`): which terms it follows from then on, what it has for the next
//! election, and how it is made the primary. The fence of an election is the term of the primary that it has chosen.

use super::{Answer, Role, Settled, Upstream};

impl Upstream {
    /// Elections choose the primary: one below this term is followed no more.
    pub(super) fn seal(&mut self, floor: u64) {
        self.raise_floor(floor);
        if self.is_sealed()
            && let Role::Following(following) = &mut self.role
        {
            // As if its connection were lost: it may greet again, with a term that is not below.
            following.lose();
        }
    }

    pub(super) fn raise_floor(&mut self, floor: u64) {
        let known = self.floor.filter(|floor| *floor != u64::MAX);
        self.floor = known.max(Some(floor));
    }

    /// Whether the primary that it follows, or followed last, is below the term from which on one is followed.
    pub(super) fn is_sealed(&self) -> bool {
        let term = self.following().map(|following| following.primary.lineage.term);
        term.is_some_and(|term| self.is_below_floor(term))
    }

    pub(super) fn is_below_floor(&self, term: u64) -> bool {
        self.floor.is_some_and(|floor| term < floor)
    }

    /// What the store has of the primary that has brought it up to date last; and whether nothing that came behind that is there in
    /// part. Known where elections choose the primary.
    pub fn settled(&self) -> Option<(Settled, bool)> {
        let settled = self.durable.settled?;
        let is_whole = !self.durable.is_partial;
        Some(match &self.role {
            Role::Following(following) if following.primary.lineage.term == settled.term => {
                let is_whole = is_whole && following.is_caught_up() && following.write_error.is_none();
                // What is kept may be ahead of what the store is done with.
                (Settled { applied: following.applied, ..settled }, is_whole)
            }
            Role::Following(_) => (settled, false),
            Role::Alone | Role::Orphan => (settled, is_whole),
        })
    }

    /// Another session is about to count: what is known of the last one stays as far as the store is done with that. A store that led
    /// has all that it had itself.
    pub(super) fn settle_before_another(&mut self) {
        let led = matches!(self.role, Role::Alone) && self.is_owner() && self.floor.is_some();
        self.durable.settled = if led {
            Some(Settled { term: self.durable.term, applied: u64::MAX })
        } else {
            self.settled().map(|(settled, _)| settled)
        };
    }

    /// An election has chosen the store: that has weighed what it holds. It is told late where the store's process was held up: another
    /// may have been chosen since, and its term is none of this store's.
    pub(super) fn chosen(&mut self, term: u64) {
        self.raise_floor(term);
        if self.is_below_floor(term) || term < self.durable.term {
            return self.reply(Answer::Error("superseded"));
        }
        self.promote_in(term, true);
    }
}
