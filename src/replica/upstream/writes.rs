//! The writes of a primary: which are taken and where they go, and what the store has done of them.

use super::{Event, NotKept, Refusal, Role, Staging, Sync, Take, Ticket, Upstream};
use crate::replica::planted::{Rule, planted};

impl Upstream {
    /// A write of the primary has come in this session, with this number: where it goes.
    #[inline]
    pub fn take(&mut self, session: u64, seq: u64) -> Take {
        let Role::Following(following) = &mut self.role else { return Take::Nowhere };
        if !following.is_in(session) {
            return Take::Nowhere;
        }
        following.heard(seq);
        let counts = match following.sync {
            Sync::CaughtUp if following.copy.is_none() => true,
            Sync::Stale if following.copy.is_none() => false,
            _ => return self.take_in_copy(seq),
        };
        if counts {
            following.take(seq);
            if planted(Rule::AppliedBehindStore) {
                following.applied = following.taken;
            }
        }
        Take::Store(self.under_way.begin(seq, counts))
    }

    /// The same of a deletion of all keys, which comes to a slave that has everything, or had it and is full. It is the store's alone: in
    /// the middle of a copy, where no primary sends it, it is not kept, and that is told.
    pub fn take_clear(&mut self, session: u64, seq: u64) -> Option<Ticket> {
        let following = self.session(session)?;
        if matches!(following.sync, Sync::CaughtUp | Sync::Stale) && following.copy.is_none() {
            return match self.take(session, seq) {
                Take::Store(ticket) => Some(ticket),
                Take::Nowhere | Take::Aside | Take::Exporting(_) => None,
            };
        }
        following.heard(seq);
        if matches!(following.sync, Sync::Copying(_)) {
            following.sync = Sync::Failed(Refusal::Disk);
        }
        self.fail(Refusal::Disk, Event::NotKept("all keys are to be deleted while a copy comes".into()));
        self.persist();
        None
    }

    /// Whether a write of several keys is taken key by key: into a copy that is put aside, of which nobody sees a part, or where each
    /// key's own value is looked at.
    pub fn takes_apart(&self) -> bool {
        self.following().is_some_and(|following| {
            matches!(following.sync, Sync::Copying(Staging::Aside)) || following.may_hold_own_values()
        })
    }

    /// The same while a copy is under way.
    #[cold]
    fn take_in_copy(&mut self, seq: u64) -> Take {
        let Role::Following(following) = &mut self.role else { return Take::Nowhere };
        match following.sync {
            Sync::Failed(_) => return Take::Nowhere,
            Sync::Copying(Staging::Aside) => return Take::Aside,
            // What it stands for is there once the copy is.
            Sync::Copying(Staging::Ending { .. }) | Sync::CaughtUp => following.take(seq),
            Sync::Copying(Staging::InPlace { .. }) | Sync::Stale => {}
        }
        // What comes for a key first finds there what the store had.
        let exports = following.may_hold_own_values();
        let ticket = self.under_way.begin(seq, following.is_caught_up());
        if exports { Take::Exporting(ticket) } else { Take::Store(ticket) }
    }

    /// What has become of a write that the store was handed.
    #[inline]
    pub fn stored(&mut self, ticket: Ticket, result: Result<(), NotKept>) {
        if let Err(error) = result
            && self.under_way.is_known(ticket)
        {
            self.fail(error.why, Event::NotKept(error.error));
            if let Role::Following(following) = &mut self.role {
                following.has_old_keys |= following.copies_in_place();
                self.durable.must_export |= following.undo_copy(ticket);
            }
        }
        let done = self.under_way.end(ticket);
        if let Role::Following(following) = &mut self.role {
            following.done(done);
            if following.copy.is_some() {
                following.end_copy(&self.under_way);
            }
        }
    }

    /// What has become of a write that was to be put aside.
    pub fn put_aside(&mut self, result: Result<(), NotKept>) {
        let Err(error) = result else { return };
        self.fail(error.why, Event::CopyNotKept(error.error));
        if let Role::Following(following) = &mut self.role
            && let Sync::Copying(Staging::Aside) = following.sync
        {
            following.sync = Sync::Failed(error.why);
        }
    }

    /// A write of the primary in this session was too large to be received; `has_key`: its key is known. The primary is told that it
    /// is not here. Where there is a ticket, what the store has under the key is to carry the number of the copy: it is old, and
    /// better than nothing.
    pub fn skipped(&mut self, session: u64, seq: u64, has_key: bool, size: &str) -> Option<Ticket> {
        let following = self.session(session)?;
        following.heard(seq);
        let stays = has_key && following.copies_in_place();
        if matches!(following.sync, Sync::Copying(_)) && !stays {
            following.sync = Sync::Failed(Refusal::TooLarge);
        }
        self.fail(Refusal::TooLarge, Event::NotKept(size.into()));
        self.persist();
        stays.then(|| self.under_way.begin(0, false))
    }
}
