//! A primary that is followed, and how far a store has come with what that sends.

use super::under_way::{Reached, Ticket, UnderWay};
use super::{Greeting, PrimaryView};
use crate::etf::Pid;
use crate::replica::{PrimaryStanding, Refusal};

/// The primary that is followed, or was last.
#[derive(Debug)]
pub(super) struct Following {
    pub(super) primary: Greeting,
    /// The connection to it stands.
    pub(super) is_there: bool,
    /// The number of its last write, as far as is known here.
    pub(super) latest: u64,
    /// The store has what the primary had after this write: everything up to it is done.
    pub(super) applied: u64,
    /// The same once everything that is with the store is done.
    pub(super) taken: u64,
    pub(super) sync: Sync,
    /// The copy that comes into the store itself: until all of it is done, or another begins.
    pub(super) copy: Option<InPlace>,
    /// Something that it sent was not kept, for this reason, and it has not begun to send it again.
    pub(super) write_error: Option<Refusal>,
    /// That was a write of a copy into the store: its key carries the number of before.
    pub(super) has_old_keys: bool,
    /// The same, until the primary is told.
    pub(super) to_tell: Option<Refusal>,
    /// The reason for which something was not kept last, and of which people were told; until all is kept again.
    pub(super) said: Option<Refusal>,
}

/// A copy that comes into the store itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct InPlace {
    /// What is written carries it.
    pub(super) number: u32,
    /// What the store had of its own, and a write or a deletion drops, is kept elsewhere.
    pub(super) exports: bool,
    /// All of it is with the store, which is done with it once it is done with this. `None`: something is missing.
    pub(super) ends_with: Option<Reached>,
}

/// How a store stands with what its primary has.
#[derive(Debug)]
pub(super) enum Sync {
    /// Something is missing, and will be sent.
    Stale,
    /// Nothing is missing before what came last.
    CaughtUp,
    /// A copy comes.
    Copying(Staging),
    /// A copy could not be put aside, for this reason: the rest of it is of no use.
    Failed(Refusal),
}

/// Where a copy goes that is not whole yet.
#[derive(Debug)]
pub(super) enum Staging {
    /// Beside the store.
    Aside,
    /// Into the store itself. `has_come`: all of it was sent, and some of that was not kept: what the store had goes once that was
    /// sent again.
    InPlace { has_come: bool },
    /// It has come, up to this number, and is being put in the place of what the store had; or it is there, and the rest of that
    /// is deleted.
    Ending { seq: u64, in_place: bool },
}

impl Following {
    /// A session begins. `applied`: what the store has of this primary's writes.
    pub(super) const fn new(primary: Greeting, applied: u64) -> Self {
        Self {
            is_there: true,
            latest: primary.seq,
            applied,
            taken: applied,
            sync: Sync::Stale,
            copy: None,
            write_error: None,
            has_old_keys: false,
            to_tell: None,
            said: None,
            primary,
        }
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.primary.lineage.incarnation()
    }

    /// Whether something in this session counts. A session ends with its connection: the primary may notice the loss later than
    /// this store, and go on in the session over the next connection, behind what was lost.
    #[inline]
    pub(super) const fn is_in(&self, session: u64) -> bool {
        self.is_there && self.primary.session == session
    }

    /// Whether this process is the primary, and there.
    pub(super) fn is_at(&self, pid: &Pid) -> bool {
        self.is_there && self.primary.pid == *pid
    }

    pub(super) const fn is_copying(&self) -> bool {
        matches!(self.sync, Sync::Copying(_) | Sync::Failed(_))
    }

    /// A copy has come into the store, and what the primary has not is still beside it.
    pub(super) const fn has_rest(&self) -> bool {
        matches!(self.sync, Sync::Copying(Staging::Ending { in_place: true, .. }))
    }

    pub(super) const fn puts_aside(&self) -> bool {
        matches!(self.sync, Sync::Copying(Staging::Aside | Staging::Ending { in_place: false, .. }))
    }

    /// Values of its own may still be in the store: a copy that drops them comes, or has come and the store is not done with it, or
    /// has not kept something of it.
    pub(super) fn may_hold_own_values(&self) -> bool {
        self.copy.is_some_and(|copy| copy.exports)
    }

    /// A copy comes into the store itself, or has come and the rest is deleted.
    pub(super) const fn copies_in_place(&self) -> bool {
        matches!(self.sync, Sync::Copying(Staging::InPlace { .. } | Staging::Ending { in_place: true, .. }))
    }

    pub(super) const fn is_caught_up(&self) -> bool {
        matches!(self.sync, Sync::CaughtUp)
    }

    /// Something with this number has come.
    #[inline]
    pub(super) fn heard(&mut self, seq: u64) {
        self.latest = self.latest.max(seq);
    }

    /// Everything that has come is with the store.
    #[inline]
    pub(super) fn take(&mut self, seq: u64) {
        self.taken = self.taken.max(seq);
    }

    /// The store is done with everything up to a number.
    #[inline]
    pub(super) fn done(&mut self, seq: Option<u64>) {
        if let Some(seq) = seq {
            self.applied = self.applied.max(seq);
        }
    }

    /// Something was not kept.
    pub(super) fn fail(&mut self, why: Refusal, under_way: &mut UnderWay) {
        self.write_error = Some(why);
        self.to_tell = Some(why);
        under_way.void();
        self.taken = self.applied;
        if self.is_caught_up() {
            self.sync = Sync::Stale;
        }
    }

    /// What was not kept so far is sent again: the primary is not told of it any more. It would hold back what takes room, and this
    /// store would not know that it lacks that.
    pub(super) const fn begin_again(&mut self) {
        self.write_error = None;
        self.has_old_keys = false;
        self.to_tell = None;
    }

    /// Nothing is missing up to a number, once all that is with the store is done.
    pub(super) fn catch_up(&mut self, seq: u64, under_way: &mut UnderWay) -> bool {
        if self.write_error.is_some() {
            self.sync = Sync::Stale;
            return false;
        }
        self.sync = Sync::CaughtUp;
        self.take(seq);
        self.done(under_way.pass(seq));
        self.copy = self.copy.filter(|copy| copy.exports);
        if let Some(copy) = &mut self.copy {
            copy.ends_with = Some(under_way.reached());
            self.end_copy(under_way);
        }
        true
    }

    /// A copy is over once the store is done with all of it: a deletion that fails leaves what it was to drop.
    pub(super) fn end_copy(&mut self, under_way: &UnderWay) {
        let is_done = |copy: InPlace| copy.ends_with.is_some_and(|all| under_way.is_done_with(all));
        self.copy = self.copy.filter(|copy| !is_done(*copy));
    }

    /// A write was not kept. Gives whether something is missing by that of a copy that was all with the store.
    pub(super) fn undo_copy(&mut self, ticket: Ticket) -> bool {
        let Some(copy) = &mut self.copy else { return false };
        copy.ends_with.take_if(|all| all.includes(ticket)).is_some()
    }

    /// Why something that the primary sent is not here, where that is so.
    pub(super) const fn write_error(&self) -> Option<Refusal> {
        match self.sync {
            Sync::Failed(why) => Some(why),
            _ => self.write_error,
        }
    }

    /// Its connection is lost.
    pub(super) fn lose(&mut self) {
        self.is_there = false;
        if self.is_copying() {
            self.sync = Sync::Stale;
        }
    }

    /// Writes that the primary has taken and this store has not.
    pub(super) const fn lag(&self) -> u64 {
        self.latest.saturating_sub(self.applied)
    }

    const fn standing(&self) -> PrimaryStanding {
        // Between two tries too: the primary shows the same until this store has everything.
        let error = match (self.write_error(), &self.sync) {
            (None, Sync::Stale) => self.said,
            (error, _) => error,
        };
        match (self.is_there, error, &self.sync) {
            (false, ..) => PrimaryStanding::Gone,
            (true, Some(Refusal::NoSpace), _) => PrimaryStanding::Full,
            (true, Some(_), _) => PrimaryStanding::Failing,
            (true, None, Sync::Copying(_) | Sync::Failed(_)) => PrimaryStanding::Copying,
            (true, None, Sync::Stale) => PrimaryStanding::Repairing,
            (true, None, Sync::CaughtUp) => PrimaryStanding::Following,
        }
    }

    pub(super) const fn view(&self) -> PrimaryView<'_> {
        PrimaryView {
            greeting: &self.primary,
            standing: self.standing(),
            applied: self.applied,
            lag: self.lag(),
            is_there: self.is_there,
        }
    }
}
