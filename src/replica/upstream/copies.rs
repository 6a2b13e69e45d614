//! Copies: the marks that begin and end one, its number, and how it comes to be in the store.

use super::{
    CopyMark, Event, Following, InPlace, NotKept, Output, Role, Settled, Staging, Sync, Ticket, Upstream,
};
use crate::replica::planted::{Rule, planted};

impl Upstream {
    /// The number that whatever is written now carries, also what a caller writes; 0: none. It is that of the copy that comes into
    /// the store itself, once the record with that number is handed to the store, and until all of the copy is in. Where the store
    /// may have values of its own to export it stays so until the store is done with it.
    pub fn copy(&self) -> u32 {
        self.following().and_then(|following| following.copy).map_or(0, |copy| copy.number)
    }

    /// Entries that carry this number or a later one are no values of the store's own: a copy has brought them, since it was nobody's
    /// slave.
    pub fn brought_from(&self) -> u32 {
        self.brought_from.unwrap_or(u32::MAX)
    }

    /// Whether a key that a copy with this number has not brought, as far as is known, goes: what becomes of that is told with the
    /// ticket. `None`: the copy is over, and nothing is deleted for it any more.
    pub fn take_rest(&mut self, copy: u32) -> Option<Ticket> {
        // See `end_in_place`.
        let is_whole = |following: &Following| following.has_rest() && !following.has_old_keys;
        let is_it = copy == self.durable.copies && self.following().is_some_and(is_whole);
        is_it.then(|| self.under_way.begin(0, false))
    }

    /// Whether a copy, with this number, has come and is not in yet.
    pub fn is_ending(&self, copy: u32) -> bool {
        let ends = |following: &Following| matches!(following.sync, Sync::Copying(Staging::Ending { .. }));
        copy == self.durable.copies && self.following().is_some_and(ends)
    }

    /// Whether what was put aside is of use.
    pub const fn puts_aside(&self) -> bool {
        match &self.role {
            Role::Following(following) => following.puts_aside(),
            Role::Alone | Role::Orphan => false,
        }
    }

    pub(super) fn marked(&mut self, session: u64, seq: u64, mark: CopyMark, can_put_aside: bool) {
        let Role::Following(following) = &mut self.role else { return };
        if !following.is_in(session) {
            return;
        }
        following.heard(seq);
        if matches!(mark, CopyMark::Begin | CopyMark::End) {
            self.outputs.push_back(Output::GiveUp);
        }
        match mark {
            CopyMark::Begin => {
                following.begin_again();
                self.durable.is_partial |= !can_put_aside;
                // Some four billion copies later the first numbers are of no entry any more.
                self.durable.copies = self.durable.copies.wrapping_add(1).max(1);
                self.durable.must_export |= following.may_hold_own_values();
                let (number, exports) = (self.durable.copies, self.durable.must_export);
                self.brought_from.get_or_insert(number);
                following.copy = (!can_put_aside).then_some(InPlace { number, exports, ends_with: None });
                let staging =
                    if can_put_aside { Staging::Aside } else { Staging::InPlace { has_come: false } };
                following.sync = Sync::Copying(staging);
                following.taken = following.applied;
            }
            CopyMark::Repair => {
                following.begin_again();
                self.durable.is_partial = true;
                if following.has_rest() {
                    following.sync = Sync::Copying(Staging::InPlace { has_come: true });
                }
                if !following.is_copying() && !planted(Rule::LacksUntilWhole) {
                    following.sync = Sync::Stale;
                }
                following.taken = following.applied;
            }
            CopyMark::Whole
                if matches!(following.sync, Sync::Copying(Staging::InPlace { has_come: true })) =>
            {
                self.end_in_place(seq);
            }
            CopyMark::Whole if following.is_copying() => {}
            CopyMark::Whole => {
                let caught_up = following.catch_up(seq, &mut self.under_way);
                self.caught_up(caught_up);
            }
            CopyMark::End => {
                let (copy, export) = (self.durable.copies, self.durable.must_export);
                match std::mem::replace(&mut following.sync, Sync::Stale) {
                    Sync::Copying(Staging::Aside) => {
                        following.sync = Sync::Copying(Staging::Ending { seq, in_place: false });
                        self.outputs.push_back(Output::SwapIn { copy, export });
                    }
                    Sync::Copying(Staging::InPlace { .. }) => self.end_in_place(seq),
                    other => {
                        // A copy that did not fit is none, and is begun again.
                        if let Sync::Failed(_) = other {
                            following.begin_again();
                        }
                        following.sync = other;
                    }
                }
            }
        }
        self.persist();
    }

    /// All of a copy has come into the store. The key of a write that was not kept carries the number of before, and would go as
    /// the rest: such a write is sent again first.
    fn end_in_place(&mut self, seq: u64) {
        let Role::Following(following) = &mut self.role else { return };
        if following.has_old_keys {
            following.sync = Sync::Copying(Staging::InPlace { has_come: true });
            return;
        }
        following.sync = Sync::Copying(Staging::Ending { seq, in_place: true });
        let (copy, export) = (self.durable.copies, self.durable.must_export);
        self.outputs.push_back(Output::DeleteRest { copy, export });
    }

    pub(super) fn copy_is_in(&mut self, copy: u32) {
        if copy != self.durable.copies {
            return;
        }
        let Role::Following(following) = &mut self.role else { return };
        let Sync::Copying(Staging::Ending { seq, in_place }) = following.sync else { return };
        if in_place && following.has_old_keys {
            following.sync = Sync::Copying(Staging::InPlace { has_come: true });
            return self.persist();
        }
        following.copy = following.copy.filter(|copy| copy.exports);
        let seq = seq.max(following.taken);
        let caught_up = following.catch_up(seq, &mut self.under_way);
        self.caught_up(caught_up);
        self.persist();
    }

    pub(super) fn copy_failed(&mut self, copy: u32, error: NotKept) {
        let Role::Following(following) = &mut self.role else { return };
        if copy != self.durable.copies || !following.copies_in_place() {
            return;
        }
        following.sync = Sync::Failed(error.why);
        self.fail(error.why, Event::NotKept(error.error));
        self.persist();
    }

    /// A mark was taken in with which all that the primary had is here, unless something of it was not kept.
    fn caught_up(&mut self, is_whole: bool) {
        if !is_whole {
            return;
        }
        self.started_empty = false;
        // What a copy drops after this is not its own, however often it is started again.
        self.durable.must_export = false;
        self.durable.was_slave = true;
        self.durable.is_partial = false;
        self.settled_in = self.durable.rank();
        if let (Some(_), Role::Following(following)) = (self.floor, &self.role) {
            self.durable.settled = Some(Settled { term: self.durable.term, applied: following.applied });
        }
    }
}
