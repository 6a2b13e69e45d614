//! A store as the slave of a kvnode, as a value: whose writes it takes, what it has of them, how it becomes the primary and a slave
//! again, and what is kept of that over a restart. It says what is to be done; others do it and tell it what has come of it.
//!
//! ```text
//!              greeted                        :begin                       :end
//!   Alone ----------------> Following{Stale} --------> Following{Copying} ------> its entries are swapped in,
//!   Orphan                   |  ^        ^  \                |                     or the rest is deleted
//!     ^                      |  |        |   \ :whole        | does not fit               |
//!     | a restart below      |  | not    |    \              v                            v
//!     | another's promotion  |  | kept,  |     +-----> Following{CaughtUp} <--------------+
//!     |                      |  | :repair|                   |       Following{Failed}: until the next :begin
//!     |                      |  +--------+-------------------+
//!     +--------------------- removed (Alone), promoted (Alone, of a new term)
//! ```
//!
//! An orphan was a slave below another store's promotion when it ended: it is nobody's primary until it is promoted or
//! greeted.
//!
//! **How it is driven.** It is behind one lock, which is held for a moment:
//!
//! 1. [`handle`](Upstream::handle) an [`Input`] as it comes, then take all outputs by [`poll_output`](Upstream::poll_output)
//!    under the same lock, and carry them out in that order without it. What comes from one primary is handled one by one: the
//!    outputs of one input are carried out before the next input of that connection. What changes whose writes are taken
//!    ([`Input::Hello`], [`Input::Promote`], [`Input::Bye`], [`Input::Mark`]) waits until a write that was [taken](Upstream::take) is with the store.
//! 2. For each write: [`take`](Upstream::take), which allocates nothing; and what is written carries the [number](Upstream::copy) of
//!    the copy that is under way. Each [`Ticket`] comes back by [`stored`](Upstream::stored), from any thread and in any order; what was
//!    put aside by [`put_aside`](Upstream::put_aside). Where these fail there are outputs to take, all of them logs.
//! 3. Time is of no matter to it.
//!
//! [`applied`](PrimaryView::applied) is never ahead of the store: it goes on when the store is done with everything before.

mod copies;
mod elected;
mod event;
mod face;
mod following;
mod greet;
mod promote;
mod promotion;
mod under_way;
mod writes;

use std::collections::VecDeque;
use std::sync::Arc;

pub use self::event::Event;
pub use self::face::{Answer, Around, Asked, Changed, Greeting, Input, NotKept, Output, PrimaryView, Take};
use self::following::{Following, InPlace, Staging, Sync};
pub use self::promotion::{Lacks, Promotion};
pub use self::under_way::Ticket;
use self::under_way::UnderWay;
use super::dialect::CopyMark;
use super::greeting::KnownSlave;
use super::lineage::{Lineage, Refusal};
use super::membership::{Membership, Position, Settled, TermRole};
use super::planted::{Rule, planted};
use crate::distribution::ServerRef;
use crate::etf::Pid;

/// A store as a slave, or as what it is while it is none. See the [module](self).
#[derive(Debug)]
pub struct Upstream {
    incarnation: u64,
    role: Role,
    durable: Membership,
    /// What of that was given to be kept last.
    kept: Kept,
    /// It was started without data, and no primary has filled it.
    started_empty: bool,
    /// Slaves that are being told the lineage.
    greetings: usize,
    /// Primaries that are watched, each once.
    watched: Vec<Pid>,
    /// It was a primary with slaves: what it has sent them may come late. Said to the primary of each term, until that has
    /// brought it up to date.
    stepped_down: bool,
    /// The rank of the primary that did so last.
    settled_in: (u64, u64),
    /// The sessions of the same primary that the one in force has taken the place of, one after the other, while that was there.
    replaced: Vec<u64>,
    /// The primary that was refused last, and why.
    refused: Option<(u64, Refusal)>,
    /// The first copy into the store since it was nobody's slave: what carries this number or a later one is none of its own.
    brought_from: Option<u32>,
    under_way: UnderWay,
    /// What the primary has asked, in which session, and is not answered yet.
    put_off: Option<(u64, u64)>,
    /// The lowest term whose primary is followed, where elections choose the primary.
    floor: Option<u64>,
    outputs: VecDeque<Output>,
}

/// What a store is to others.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "a store has one, and each write of a primary looks into it")]
enum Role {
    /// Nobody's slave.
    Alone,
    /// Another store was promoted, this one followed it before a restart, and has not been greeted since.
    Orphan,
    /// The slave of a primary.
    Following(Following),
}

/// The numbers of copies that a life begins behind those of which a record was kept. A copy whose record could not be kept has one
/// that the record does not know, and what came with it may be on disk: it is none of the next life's. Far more than one life has of
/// such copies, which begin half a minute apart at least.
const COPIES_OF_A_LIFE: u32 = 1 << 16;

/// What of a [`Membership`] the machine changes.
type Kept = (u64, u64, TermRole, bool, u64, Option<Position>, bool, bool, u32, Option<Settled>);

const fn kept(of: &Membership) -> Kept {
    let Membership { term, promoted, role, was_slave, family, .. } = *of;
    let settled = of.settled;
    (term, promoted, role, was_slave, family, of.position, of.is_partial, of.must_export, of.copies, settled)
}

impl Upstream {
    /// Of a store that has just been started: with what was kept of it, and `started_empty`: it holds nothing.
    pub fn new(incarnation: u64, mut durable: Membership, started_empty: bool) -> Self {
        if planted(Rule::CopyCounted) {
            durable.copies = 0;
        }
        if !started_empty {
            durable.copies = durable.copies.wrapping_add(COPIES_OF_A_LIFE);
        }
        let is_orphan = durable.term > 0 && durable.role == TermRole::Follows;
        Self {
            incarnation,
            role: if is_orphan { Role::Orphan } else { Role::Alone },
            kept: kept(&durable),
            durable,
            started_empty,
            greetings: 0,
            watched: Vec::new(),
            stepped_down: false,
            settled_in: (0, 0),
            replaced: Vec::new(),
            refused: None,
            brought_from: None,
            under_way: UnderWay::default(),
            put_off: None,
            floor: None,
            outputs: VecDeque::new(),
        }
    }

    /// Takes another incarnation, before any other store knows this one.
    pub const fn live_as(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
    }

    /// The number that no other life of any store has.
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// What is to be kept of the store.
    pub const fn durable(&self) -> &Membership {
        &self.durable
    }

    /// The store's lineage: its primaries, and itself below them.
    pub fn lineage(&self) -> Lineage {
        let path = match &self.role {
            Role::Orphan if !planted(Rule::OrphanLeads) => Lineage::of_orphan(self.incarnation).into(),
            Role::Alone | Role::Orphan => vec![self.incarnation],
            Role::Following(following) => {
                let mut path = following.primary.lineage.path.clone();
                path.push(self.incarnation);
                path
            }
        };
        let (term, promoted) = self.durable.rank();
        Lineage { term, promoted, path, family: self.family() }
    }

    /// The family that the store belongs to.
    const fn family(&self) -> u64 {
        if self.durable.family == 0 { self.incarnation } else { self.durable.family }
    }

    /// The primary that it follows, or followed until its connection was lost.
    pub fn primary(&self) -> Option<PrimaryView<'_>> {
        self.following().map(Following::view)
    }

    /// Whether it follows a primary.
    pub const fn is_slave(&self) -> bool {
        matches!(self.role, Role::Following(_))
    }

    /// Whether a caller's write is of matter to it: it has a primary; or it had one before it was started again, which will
    /// copy over what is written here, and nobody has written since.
    pub const fn minds_writes(&self) -> bool {
        self.is_slave() || self.had_primary() && !self.durable.must_export
    }

    /// Whether another store may have what this one lacks: it has a primary, or had one before it was started again.
    pub const fn may_lack(&self) -> bool {
        self.is_slave() || self.had_primary()
    }

    /// It had a primary before it was started again, and has not found any since.
    const fn had_primary(&self) -> bool {
        matches!(self.role, Role::Orphan) || self.durable.was_slave || self.durable.position.is_some()
    }

    /// It was promoted, and no other since, as far as is known here.
    pub fn is_owner(&self) -> bool {
        self.durable.term > 0 && self.durable.role == TermRole::Promoted
    }

    /// It was started without data, and no primary has filled it.
    pub const fn started_empty(&self) -> bool {
        self.started_empty
    }

    /// It has what it is to begin with.
    pub const fn filled(&mut self) {
        self.started_empty = false;
    }

    /// A slave is being told the lineage, or is no longer.
    pub const fn greeting(&mut self, is_under_way: bool) {
        self.greetings = if is_under_way { self.greetings + 1 } else { self.greetings.saturating_sub(1) };
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Something has come.
    pub fn handle(&mut self, input: Input) {
        match input {
            Input::Hello(greeting, around) => self.greeted(greeting, around),
            Input::Ask { session, seq } => self.asked(session, seq),
            Input::Kept { asked, result } => self.confirmed(asked, result),
            Input::Mark { session, seq, mark, can_put_aside } => {
                self.marked(session, seq, mark, can_put_aside);
            }
            Input::CopyIsIn { copy } => self.copy_is_in(copy),
            Input::CopyFailed { copy, error } => self.copy_failed(copy, error),
            Input::Siblings { session, slaves } => {
                if let Some(following) = self.session(session) {
                    following.primary.slaves = slaves;
                }
            }
            Input::Bye { session } => self.removed(session),
            Input::Promote { reports } => self.promoted(reports),
            Input::Lead { term } => self.chosen(term),
            Input::Seal { floor } => self.seal(floor),
            Input::Offer(pid) => self.offered(pid),
            Input::Superseded(primary) => self.handed_up(primary),
            Input::PrimaryDown(pid, reason) => {
                self.watched.retain(|watched| *watched != pid);
                if let Role::Following(following) = &mut self.role
                    && following.is_at(&pid)
                {
                    following.lose();
                }
                self.log(Event::Lost(pid, reason));
            }
            Input::OwnWrite => self.written_to(),
            Input::SlavesAre(slaves) => {
                if !slaves.is_empty() {
                    // Over a restart too its slaves are of this family.
                    self.durable.family = self.family();
                }
                self.durable.slaves = slaves;
            }
        }
        self.answer_put_off();
    }

    /// Goes on with a question that was put off, once the copy that it waits for is in, or over.
    fn answer_put_off(&mut self) {
        if self.following().is_some_and(Following::has_rest) {
            return;
        }
        let Some((session, seq)) = self.put_off.take() else { return };
        let before = self.outputs.len();
        self.asked(session, seq);
        for output in self.outputs.range_mut(before..) {
            match output {
                Output::Reply(answer) => *output = Output::ReplyPutOff(answer.clone()),
                Output::Confirm(asked) => *output = Output::ConfirmPutOff(*asked),
                _ => {}
            }
        }
    }

    /// Whether something in this session counts: its primary is followed in it, and there.
    pub const fn is_in(&self, session: u64) -> bool {
        match &self.role {
            Role::Following(following) => following.is_in(session),
            Role::Alone | Role::Orphan => false,
        }
    }

    fn asked(&mut self, session: u64, seq: u64) {
        let Some(following) = self.session(session) else {
            return self.reply(Refusal::OtherSession);
        };
        following.latest = following.latest.max(seq);
        if following.has_rest() {
            // What has come is not handled before the rest is deleted: a restart would leave that.
            self.put_off = Some((session, seq));
            return self.outputs.push_back(Output::PutOff);
        }
        let failed = if let Sync::Failed(why) = following.sync { Some(why) } else { None };
        let caught_up = following.is_caught_up();
        // What came before may be under way: it is kept when what comes behind it is.
        let applied = if caught_up { following.taken } else { following.applied };
        let position = Position { primary: following.incarnation(), applied };
        if let Some(why) = following.to_tell.take().or(failed) {
            self.persist();
            return self.reply(why);
        }
        self.durable.position = Some(position);
        if let Some(settled) =
            self.durable.settled.as_mut().filter(|settled| settled.term == self.durable.term)
        {
            settled.applied = applied;
        }
        self.kept = kept(&self.durable);
        self.outputs.push_back(Output::Confirm(Asked { session, applied, caught_up }));
    }

    fn confirmed(&mut self, asked: Asked, result: Result<(), NotKept>) {
        let is_it = self.following().is_some_and(|following| following.primary.session == asked.session);
        if !is_it || self.is_sealed() {
            return self.reply(Refusal::OtherSession);
        }
        if let Err(error) = result {
            // The primary holds back what takes room from here on: so this store lacks something from here on.
            self.fail(error.why, Event::NotKept(error.error));
        }
        let Role::Following(following) = &mut self.role else { return };
        if let Some(why) = following.to_tell.take() {
            return self.reply(why);
        }
        // Before this was kept, all that came before it was.
        following.done(Some(asked.applied));
        if asked.caught_up && following.said.take().is_some() {
            self.log(Event::KeptAgain);
        }
        self.reply(Answer::Applied(asked.applied));
    }

    /// A caller writes here, and it may have a primary again later: then that copies everything to it, and what this drops is kept
    /// elsewhere.
    fn written_to(&mut self) {
        if self.is_slave() || !self.minds_writes() {
            return;
        }
        self.durable.must_export = true;
        (self.durable.position, self.durable.settled) = (None, None);
        // Before the write.
        self.persist();
        self.log(Event::WrittenTo);
    }

    /// Tells a primary that this store follows it no more: in the session in force, and in those that this has taken the place
    /// of. The primary has greeted this store by two names then, and may not have had the answers to those of one.
    fn leave(&mut self, primary: &Pid, session: u64, replaced: Vec<u64>) {
        let sessions = replaced.into_iter().chain([session]);
        self.outputs.extend(sessions.map(|session| Output::Leave { primary: primary.clone(), session }));
    }

    fn removed(&mut self, session: u64) {
        let is_it = self.following().is_some_and(|following| following.primary.session == session);
        if !is_it {
            return;
        }
        if let (Some(_), Role::Following(following)) = (self.floor, &mut self.role) {
            // What it has counts in an election all the same.
            return following.lose();
        }
        let replaced = std::mem::take(&mut self.replaced);
        if let Some(primary) = self.following().map(|following| following.primary.pid.clone()) {
            // Where the primary has greeted this store by two names it takes the other's session for the one in force.
            let leave = |session| Output::Leave { primary: primary.clone(), session };
            self.outputs.extend(replaced.into_iter().map(leave));
        }
        self.role = Role::Alone;
        self.under_way.forget();
        self.durable.was_slave = false;
        self.durable.role = TermRole::None;
        self.durable.is_partial = false;
        (self.durable.position, self.durable.settled) = (None, None);
        // It is nobody's to take back.
        self.durable.family = self.incarnation;
        self.persist();
        self.log(Event::Removed);
        self.outputs.push_back(Output::RenewAll);
    }

    /// Something was not kept.
    fn fail(&mut self, why: Refusal, event: Event) {
        let Role::Following(following) = &mut self.role else { return };
        following.fail(why, &mut self.under_way);
        let was_said = following.said.replace(why).is_some();
        // Kept with the next note: this may be said on the store's own thread.
        self.durable.is_partial = true;
        if !was_said {
            self.log(event);
        }
    }

    const fn following(&self) -> Option<&Following> {
        if let Role::Following(following) = &self.role { Some(following) } else { None }
    }

    fn session(&mut self, session: u64) -> Option<&mut Following> {
        match &mut self.role {
            Role::Following(following) if following.is_in(session) => Some(following),
            _ => None,
        }
    }

    /// Has what has changed kept.
    fn persist(&mut self) {
        if let Some(changed) = self.take_changed() {
            self.outputs.push_back(Output::Persist { changed, then: None });
        }
    }

    fn take_changed(&mut self) -> Option<Changed> {
        let before = std::mem::replace(&mut self.kept, kept(&self.durable));
        let promotion = |kept: Kept| (kept.0, kept.1, kept.2, kept.3, kept.4);
        match self.kept == before {
            true => None,
            false if promotion(self.kept) == promotion(before) => Some(Changed::Progress),
            false => Some(Changed::Promotion),
        }
    }

    fn reply(&mut self, answer: impl Into<Answer>) {
        self.outputs.push_back(Output::Reply(answer.into()));
    }

    fn log(&mut self, event: Event) {
        self.outputs.push_back(Output::Log(event));
    }
}

/// A store as a slave: by the name by which it is found after a restart of its node too, where it has one. Its global names go
/// to the store that is promoted.
fn as_slave(names: &[ServerRef], pid: &Pid) -> KnownSlave {
    let remote = names.iter().find(|name| matches!(name, ServerRef::Remote { .. }));
    let name = remote.cloned().unwrap_or_else(|| ServerRef::Pid(pid.clone()));
    KnownSlave { name, node: Some(Arc::clone(&pid.node)) }
}

#[cfg(test)]
mod tests;
