//! The slave's side of a store, carried out: requests become inputs of its machine ([`Upstream`]), and what that wants done is done
//! here.

mod calls;
mod copies;
mod in_place;
mod said;
mod writes;

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use super::Work;
use super::ranked::{Ranked, rank};
use super::reason::write_not_kept;
use super::server::KeyValueServer;
use crate::etf::{OwnedTerm, Pid};
use crate::process::{Caller, Dispatch, OwnedCaller, ProcessId, Turn};
use crate::replica::membership::Membership;
use crate::replica::planted::{Rule, planted};
use crate::replica::upstream::{Answer, Changed, Input, NotKept, Output, Upstream};
use crate::replica::{Refusal, downstream};
use crate::store::{Store, StoreError};

/// No election runs.
const NO_ELECTION: u8 = 0;
/// One runs, and the store is not the primary.
const NO_PRIMARY: u8 = 1;
/// It is the primary, while its lease lasts.
const PRIMARY: u8 = 2;

/// The machine of a store, with what is beside it.
pub(super) struct UpstreamEntry<S> {
    machine: Ranked<rank::Upstream, Upstream>,
    /// Where a copy of the primary comes in that is put aside.
    aside: Ranked<rank::Aside, Option<S>>,
    /// The primary that waits for an answer which was put off.
    asker: Ranked<rank::Alone, Option<OwnedCaller>>,
    /// As the machine says, for writes of callers to look at.
    minds_writes: AtomicBool,
    /// What an election makes of the store.
    elected: AtomicU8,
    /// Likewise, for all writes.
    copy: AtomicU32,
    /// By so much this store's clock is ahead of its primary's, in milliseconds.
    ahead: AtomicI64,
}

impl<S: Store> UpstreamEntry<S> {
    pub(super) const fn new(machine: Upstream) -> Self {
        Self {
            minds_writes: AtomicBool::new(machine.minds_writes()),
            elected: AtomicU8::new(NO_ELECTION),
            copy: AtomicU32::new(0),
            ahead: AtomicI64::new(0),
            machine: Ranked::new(machine),
            aside: Ranked::new(None),
            asker: Ranked::new(None),
        }
    }

    /// Looks at the machine, or has it note something that wants nothing done.
    #[inline]
    pub(super) fn with<R>(&self, with: impl FnOnce(&mut Upstream) -> R) -> R {
        with(&mut self.machine.lock())
    }

    /// An election decides from now on, and has the store be the primary or not.
    pub(super) fn elect(&self, is_primary: bool) {
        self.elected.store(if is_primary { PRIMARY } else { NO_PRIMARY }, Ordering::Release);
    }

    /// Whether a caller's write is to be looked at before it is taken: it is of matter to the machine, or to an election.
    #[inline]
    pub(super) fn gates_writes(&self) -> bool {
        self.minds_writes() || self.elected.load(Ordering::Relaxed) != NO_ELECTION
    }

    /// Whether a caller's write is of matter to the machine; or an election has not made the store the primary.
    #[inline]
    pub(super) fn minds_writes(&self) -> bool {
        self.minds_writes.load(Ordering::Relaxed) || self.elected.load(Ordering::Relaxed) == NO_PRIMARY
    }

    /// The number that a write carries ([`Upstream::copy`]). To be asked for before it is seen whether the write
    /// [is of matter](Self::minds_writes): a caller's write that was taken before there was a primary is no part of its copy.
    #[inline]
    pub(super) fn copy(&self) -> u32 {
        if planted(Rule::CopyNumber) { 0 } else { self.copy.load(Ordering::Acquire) }
    }

    /// The record with the number of a copy is with the store: what is written from here on carries it.
    fn begin_copy(&self) {
        let machine = self.machine.lock();
        self.copy.store(machine.copy(), Ordering::Release);
    }

    /// Hands an input in, and gives what is to be done.
    pub(super) fn hand(&self, input: Input) -> Vec<Output> {
        self.hand_for(input, || None)
    }

    /// The same for a caller. A caller whose question is put off is kept before the machine is unlocked: another thread may
    /// answer as soon as it is.
    pub(super) fn hand_for(&self, input: Input, caller: impl FnOnce() -> Option<OwnedCaller>) -> Vec<Output> {
        let mut machine = self.machine.lock();
        machine.handle(input);
        self.minds_writes.store(machine.minds_writes(), Ordering::Relaxed);
        if machine.copy() == 0 {
            self.copy.store(0, Ordering::Release);
        }
        let outputs = taken(&mut machine);
        if outputs.contains(&Output::PutOff) {
            *self.asker.lock() = caller();
        }
        // A copy that is over makes room.
        let over = if machine.puts_aside() { None } else { self.aside.lock().take() };
        drop(machine);
        drop(over);
        outputs
    }

    /// A primary that was watched has ended.
    fn lose(&self, primary: Pid, reason: OwnedTerm, dispatch: &dyn Dispatch) {
        for output in self.hand(Input::PrimaryDown(primary, reason)) {
            match output {
                Output::Log(event) => said::log(&event, None),
                Output::ReplyPutOff(answer) => self.answer_asker(&answer, dispatch),
                other => left_undone(&other),
            }
        }
    }

    fn answer_asker(&self, answer: &Answer, dispatch: &dyn Dispatch) {
        let asker = self.asker.lock().take();
        if let Some(asker) = asker {
            asker.reply(dispatch, |w| answer.write(w));
        }
    }
}

/// The store's process.
#[derive(Clone)]
pub(super) struct Me {
    id: ProcessId,
    pid: Pid,
}

impl Me {
    fn of(turn: &Turn<'_>) -> Self {
        Self { id: turn.me.id, pid: turn.me.pid.clone() }
    }

    /// The process with this pid.
    pub(super) fn at(pid: &Pid) -> Self {
        Self { id: ProcessId::of(pid), pid: pid.clone() }
    }
}

/// An output that is not carried out where it came.
#[track_caller]
fn left_undone(output: &Output) {
    debug_assert!(false, "nobody does this: {output:?}");
    tracing::error!(?output, "nobody does this");
}

/// All that a machine wants done.
fn taken(machine: &mut Upstream) -> Vec<Output> {
    std::iter::from_fn(|| machine.poll_output()).collect()
}

/// Of a promotion, or of how the store stands to that of another.
fn say_not_kept(error: &StoreError) {
    tracing::error!(
        %error,
        "what the store is (whose slave, or the primary since a promotion) is not kept: if it is started again before the disk has \
         room, it is what it was before"
    );
}

/// Why a store did not keep something, as a machine is told.
fn not_kept(error: &StoreError) -> NotKept {
    let why = if *error == StoreError::NoSpace { Refusal::NoSpace } else { Refusal::Disk };
    NotKept { why, error: error.to_string() }
}

impl<S: Store> KeyValueServer<S> {
    /// Does what the machine wants done. `caller` has asked for it.
    pub(super) fn carry_out(&self, outputs: Vec<Output>, caller: Option<&Caller<'_>>, turn: &mut Turn<'_>) {
        let mut added = Vec::new();
        let mut is_noted = true;
        for output in outputs {
            match output {
                Output::Persist { changed, then: None } => self.persist(changed, &Me::of(turn)),
                Output::Persist { then: Some(mut answer), .. } => {
                    if let Answer::Promoted(promotion) = &mut answer {
                        let here = &turn.registry.node;
                        promotion.slaves = self.slaves().iter().map(|slave| slave.name().on(here)).collect();
                    }
                    let waiting = caller.map(|caller| caller.to_owned(&turn.me.pid));
                    let (dispatch, kept) = (Arc::clone(&self.dispatch), answer.clone());
                    let figures = Arc::clone(&self.watch);
                    // With the slaves that have come with it.
                    is_noted = true;
                    if planted(Rule::PromotionKept)
                        && let Some(caller) = caller
                    {
                        self.note_slaves(|_| {});
                        turn.reply(caller, |w| answer.write(w));
                        continue;
                    }
                    let is_kept = self.note_slaves(move |result| {
                        if let Err(error) = &result {
                            say_not_kept(error);
                        }
                        if let Some(waiting) = waiting {
                            waiting.reply(&*dispatch, |w| match result {
                                Ok(()) => kept.write(w),
                                Err(error) => write_not_kept(w, &error, &figures),
                            });
                        }
                    });
                    if !is_kept && let Some(caller) = caller {
                        turn.reply(caller, |w| answer.write(w));
                    }
                }
                Output::Watch(primary) => self.watch_primary(primary, turn),
                Output::Leave { primary, session } => self.leave(&primary, session),
                Output::HandUp { primary, session, superseded } => {
                    self.hand_up(&primary, session, &superseded);
                }
                Output::RemoveDownstreams { names, at } => self.leave_slaves(&names, at, turn),
                Output::AddDownstream(name) => {
                    is_noted = false;
                    added.extend(self.take_slave(name, turn));
                }
                Output::GiveUp => self.confirmations.give_up(),
                Output::RenewAll => {
                    self.slaves().iter().for_each(|slave| slave.tell(downstream::Input::Renew))
                }
                // Global names are the elected primary's.
                Output::ClaimName(_) | Output::ReleaseNames(_) if self.is_elected() => {}
                Output::ClaimName(name) => self.take_name(&name, turn),
                Output::ReleaseNames(names) => self.give_up_names(&names, turn),
                Output::Confirm(asked) => {
                    if let Some(caller) = caller {
                        self.confirm(asked, caller, turn);
                    }
                }
                // The caller is kept where it has asked.
                Output::PutOff => {}
                Output::ConfirmPutOff(asked) => self.confirm_put_off(asked, turn.me.id),
                Output::ReplyPutOff(answer) => self.upstream.answer_asker(&answer, &*self.dispatch),
                Output::SwapIn { copy, export } => self.swap_in(copy, export, turn),
                Output::DeleteRest { copy, export } => self.delete_rest(copy, export, turn),
                Output::Reply(answer) => {
                    if let Some(caller) = caller {
                        turn.reply(caller, |w| answer.write(w));
                    }
                }
                Output::Log(event) => {
                    said::count(&event, &self.watch);
                    said::log(&event, Some(&turn.me));
                }
            }
        }
        if !is_noted && !added.is_empty() {
            self.note_slaves_quietly();
        }
        // Each is told all names and all other slaves when it is greeted, which may be at once.
        for slave in added {
            self.follow_slave(slave, &turn.me.pid, None);
        }
    }

    /// Does what the machine wants done of what no caller has asked for: see [`election`](super::election).
    pub(super) fn carry_out_alone(&self, outputs: Vec<Output>, me: &Me) {
        for output in outputs {
            match output {
                Output::Persist { changed, then: None } => self.persist(changed, me),
                Output::Leave { primary, session } => self.leave(&primary, session),
                Output::GiveUp => self.confirmations.give_up(),
                Output::ReplyPutOff(answer) => self.upstream.answer_asker(&answer, &*self.dispatch),
                Output::Log(event) => said::log(&event, Some(&me.id)),
                other => left_undone(&other),
            }
        }
    }

    fn persist(&self, changed: Changed, me: &Me) {
        // Of a record that could not be read another copy may have any number, as it begins with one by chance.
        let is_readable = self.noting.lock().is_ok();
        let copy = if is_readable { self.upstream.with(|machine| machine.copy()) } else { 0 };
        let (server, me) = (Weak::clone(&self.this), me.clone());
        self.keep(
            || None,
            move |result| match result {
                Err(error) if changed == Changed::Promotion => say_not_kept(&error),
                // A store that takes nothing has said so.
                Err(error) => {
                    tracing::debug!(%error, "how far a copy has come is not kept");
                    // What comes with its number would count as brought by another copy.
                    if copy != 0
                        && let Some(server) = server.upgrade()
                    {
                        server.copy_failed(copy, &error, me);
                    }
                }
                Ok(()) => {}
            },
        );
    }

    /// A copy is not to go on. Looked after elsewhere: this may be said on the store's own thread, which is not to wait for itself.
    fn copy_failed(&self, copy: u32, error: &StoreError, me: Me) {
        let (server, store) = (Weak::clone(&self.this), me.pid.clone());
        let mut failed = Some((Input::CopyFailed { copy, error: not_kept(error) }, me));
        let step = Box::new(move || {
            if let Some(((input, me), server)) = failed.take().zip(server.upgrade()) {
                server.copy_is_over(input, &me);
            }
            false
        });
        self.follow.work(Work { store, step });
    }

    /// Keeps what is to be known of the store after a restart, as it is after a change. Gives whether the store keeps such things,
    /// and answers then.
    pub(super) fn keep(
        &self,
        change: impl FnOnce() -> Option<Input>,
        done: impl FnOnce(Result<(), StoreError>) + Send + 'static,
    ) -> bool {
        let notes = self.store().notes();
        // Held while it is written: the last that is kept is of the last change.
        let noting = self.noting.lock();
        if self.holding.is_elsewhere() {
            // It is kept by the holder, which may have changed it since.
            drop(noting);
            done(Ok(()));
            return true;
        }
        let change = change();
        let note = self.upstream.with(|machine| {
            change.into_iter().for_each(|change| machine.handle(change));
            notes.is_some().then(|| machine.durable().note())
        });
        let (Some(notes), Some(note)) = (notes, note) else { return false };
        match &*noting {
            Ok(()) => notes.write(Membership::NOTE, &note, Box::new(done)),
            // It would take the place of what may still be read.
            Err(error) => done(Err(error.clone())),
        }
        true
    }
}
