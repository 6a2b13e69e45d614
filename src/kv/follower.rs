//! A store as the slave of a kvnode: whose writes it takes, and what it has of them.
//!
//! What comes between the marks of a copy is put aside, and takes the place of everything when the copy is whole:
//! until then readers see what was there before. A store that cannot put a copy aside ([`Store::staging`]) takes it in as it
//! comes, and loses what was not part of it at the end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ahash::{AHashSet, RandomState};

use super::kept::{self, Kept};
use super::position::Position;
use crate::distribution::ServerRef;
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};
use crate::replica::{CopyMark, KnownSlave, Lineage, Refusal};
use crate::store::{Store, Value};

/// Primaries that are watched at once, of which but one is followed: beyond it a greeting is refused.
const WATCHES_MAX: usize = 16;

/// What a primary says of itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub session: u64,
    pub lineage: Lineage,
    pub seq: u64,
    /// It was started without data, and this store not by hand as its slave: it may have lost what this one holds.
    pub started_empty: bool,
    /// What it is found by, again: its names.
    pub names: Vec<ServerRef>,
    /// All its slaves.
    pub slaves: Vec<KnownSlave>,
    pub pid: Pid,
}

/// The primary that is followed, or was last.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub greeting: Greeting,
    /// The store has what the primary had after this write: the last one that was taken in while nothing was missing.
    pub applied: u64,
    /// Nothing is missing before what came last.
    pub caught_up: bool,
    /// The number of its last write, as far as is known here.
    pub latest: u64,
    /// The connection to it stands.
    pub is_there: bool,
    /// Something that it sent was not kept, for this reason, and it has not begun to send it again.
    pub write_error: Option<Refusal>,
}

/// The store is nobody's slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSlave;

/// What a greeting is weighed against, beside what is known of primaries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    pub has_slaves: bool,
    /// The greeting primary is one of them.
    pub is_greeted_by_slave: bool,
    pub is_empty: bool,
}

/// What became of a greeting.
#[derive(Debug)]
pub(super) struct Greeted {
    /// The store's own.
    pub incarnation: u64,
    /// Whose writes it has had, and the last of these.
    pub had: (Option<u64>, u64),
    /// Its own slaves are to be told of another chain.
    pub path_changed: bool,
    /// It was a primary, or nobody's slave yet, and another was promoted in its place.
    pub demoted: bool,
    /// It was a primary with slaves, and no primary has brought it up to date since: what it has sent them may come late.
    pub stepped_down: bool,
    /// It had been a slave before it was started again, and was not followed until now.
    pub was_orphan: bool,
    /// The primary is to be watched.
    pub watch: bool,
    /// The primary that was followed until now, and is there: it is to know that it is left, as a primary without writes asks
    /// for nothing, and would show this slave as in step.
    pub left: Option<(Pid, u64)>,
}

/// A copy that is not whole yet.
enum Staging<S> {
    No,
    Aside(S),
    /// Into the store itself; the keys that came, as hashes.
    InPlace(AHashSet<u128>),
    /// It could not be taken in, for this reason: the rest is of no use.
    Failed(Refusal),
}

impl<S> Staging<S> {
    const fn failed(&self) -> Option<Refusal> {
        match self {
            Self::Failed(why) => Some(*why),
            Self::No | Self::Aside(_) | Self::InPlace(_) => None,
        }
    }
}

/// What is to be done with a write.
pub(super) enum Place {
    /// Nothing: it is of no use, or was put aside.
    Done,
    /// It goes into the store.
    Store,
    /// The same, and what is there under its key, if it is not the same, is dropped with it.
    Overwrite,
}

/// What is to be done at the end of a copy.
pub(super) enum Copied<S> {
    Nothing,
    /// This takes the place of the store's entries.
    Replace(S),
    /// What is not among these goes.
    Keep(Seen),
}

/// The keys of a copy.
pub(super) struct Seen {
    keys: AHashSet<u128>,
    hashers: [RandomState; 2],
}

impl Seen {
    pub fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains(&hash(&self.hashers, key))
    }
}

/// How a store stands to the promotion that began its term. Of term 0 nothing follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TermRole {
    /// The store was promoted itself: no other store of the term is the primary.
    Promoted,
    /// It follows the promoted store, or did last. That store may live, also where it is not seen.
    Follows,
    /// Its primary has removed it, or it is not known.
    None,
}

/// The last promotion that a store knows of, and what it has not done yet as a slave: as it is kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    pub term: u64,
    /// The incarnation of the promoted store.
    pub promoted: u64,
    pub role: TermRole,
    /// It was a primary with writes of its own: what the next copies drop of these is kept elsewhere.
    pub must_export_dropped: bool,
    /// What it holds is a mix: a copy or a repair that went into it is not whole, or something that came was not kept.
    pub is_partial: bool,
}

impl Default for Rank {
    /// Nobody was promoted.
    fn default() -> Self {
        Self { term: 0, promoted: 0, role: TermRole::None, must_export_dropped: false, is_partial: false }
    }
}

pub(super) struct Follower<S> {
    incarnation: u64,
    term: u64,
    /// Whose promotion began the term.
    promoted: u64,
    role: TermRole,
    primary: Option<Primary>,
    /// The same, for those that do not hold this.
    is_slave: Arc<AtomicBool>,
    /// Slaves that are being told the lineage.
    greetings: usize,
    /// It was started without data, and no primary has filled it.
    started_empty: bool,
    /// It has been a slave with all that its primary had, also before it was started again, and is one since.
    was_slave: bool,
    staging: Staging<S>,
    watches: usize,
    /// As [`Rank::must_export_dropped`].
    must_export_dropped: bool,
    /// As [`Greeted::stepped_down`]: said again where the answer to a greeting was lost.
    stepped_down: bool,
    /// As [`Rank::is_partial`].
    is_partial: bool,
    /// What was given to be kept last.
    noted: Rank,
    /// The place that it had among a primary's writes when its node ended.
    before: Option<Position>,
    /// A session of the same primary that another has taken the place of while it was there.
    replaced: Option<u64>,
    /// The primary that was refused last, and why.
    refused: Option<(u64, Refusal)>,
    hashers: [RandomState; 2],
    kept: Arc<Kept>,
}

impl<S: Store> Follower<S> {
    /// `was_slave`: of a kvnode, when it was used last. `started_empty`: it is empty.
    pub fn new(incarnation: u64, was_slave: bool, started_empty: bool) -> Self {
        Self {
            incarnation,
            term: 0,
            promoted: 0,
            role: TermRole::None,
            primary: None,
            is_slave: Arc::default(),
            greetings: 0,
            started_empty,
            was_slave,
            staging: Staging::No,
            watches: 0,
            must_export_dropped: false,
            stepped_down: false,
            is_partial: false,
            noted: Rank::default(),
            before: None,
            replaced: None,
            refused: None,
            hashers: [RandomState::new(), RandomState::new()],
            kept: Arc::default(),
        }
    }

    /// The same, with what was kept of it.
    pub fn ranked(self, noted: Rank) -> Self {
        let Rank { term, promoted, role, must_export_dropped, is_partial } = noted;
        Self { term, promoted, role, must_export_dropped, is_partial, noted, ..self }
    }

    /// Takes another incarnation, before anybody knows the store.
    pub const fn live_as(&mut self, incarnation: u64) {
        self.incarnation = incarnation;
    }

    /// Notes that a primary, with this incarnation, is refused; whether that is news, as it asks again and again.
    pub fn refuses(&mut self, incarnation: u64, why: Refusal) -> bool {
        self.refused.replace((incarnation, why)) != Some((incarnation, why))
    }

    /// The same, which had this place among a primary's writes before.
    pub fn had(self, before: Option<Position>) -> Self {
        Self { before, ..self }
    }

    /// Where it is noted what the store does not keep of the primary's writes.
    pub const fn kept(&self) -> &Arc<Kept> {
        &self.kept
    }

    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The store's lineage: its primaries, and itself below them.
    pub fn lineage(&self) -> Lineage {
        let path = match &self.primary {
            None if self.is_orphan() && !planted(Rule::OrphanLeads) => {
                Lineage::of_orphan(self.incarnation).into()
            }
            None => vec![self.incarnation],
            Some(primary) => {
                let mut path = primary.greeting.lineage.path.clone();
                path.push(self.incarnation);
                path
            }
        };
        Lineage { term: self.term, promoted: self.promoted, path }
    }

    pub const fn rank(&self) -> Rank {
        Rank {
            term: self.term,
            promoted: self.promoted,
            role: self.role,
            must_export_dropped: self.must_export_dropped,
            is_partial: self.is_partial,
        }
    }

    /// What was given to be kept last.
    pub const fn noted(&self) -> Rank {
        self.noted
    }

    /// What is to be kept of it, where that is not what was kept last.
    pub fn rank_to_note(&mut self) -> Option<Rank> {
        let rank = self.rank();
        (std::mem::replace(&mut self.noted, rank) != rank).then_some(rank)
    }

    /// What it holds is a mix of what its primary has, and had.
    pub const fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// It was promoted, and no other since, as far as is known here.
    pub fn is_owner(&self) -> bool {
        self.term > 0 && self.role == TermRole::Promoted
    }

    /// Another store was promoted, this one followed it before a restart, and has not been greeted since.
    pub fn is_orphan(&self) -> bool {
        self.term > 0 && self.role == TermRole::Follows && self.primary.is_none()
    }

    /// A slave is being told the lineage, or knows it.
    pub const fn greeting(&mut self, is_under_way: bool) {
        self.greetings = if is_under_way { self.greetings + 1 } else { self.greetings.saturating_sub(1) };
    }

    /// It was started without data, and no primary has filled it.
    pub const fn started_empty(&self) -> bool {
        self.started_empty
    }

    /// It has what it is to begin with.
    pub const fn filled(&mut self) {
        self.started_empty = false;
    }

    /// It has all that its primary has. Gives whether that is so for the first time since it was nobody's slave.
    pub const fn mark_caught_up(&mut self) -> bool {
        !std::mem::replace(&mut self.was_slave, true)
    }

    /// What a copy drops is to be kept elsewhere.
    pub const fn must_export_dropped(&self) -> bool {
        self.must_export_dropped
    }

    /// What was dropped is kept elsewhere, or there was nothing.
    pub const fn dropped_exported(&mut self) {
        self.must_export_dropped = false;
    }

    /// The primary that it follows.
    pub const fn primary(&self) -> Option<&Primary> {
        self.primary.as_ref()
    }

    /// Whether it follows one, to be looked at without this.
    pub const fn is_slave(&self) -> &Arc<AtomicBool> {
        &self.is_slave
    }

    pub const fn is_copying(&self) -> bool {
        !matches!(self.staging, Staging::No)
    }

    /// A primary wants this store as its slave.
    pub fn greet(&mut self, greeting: Greeting, own: Own) -> Result<Greeted, Refusal> {
        self.note_kept();
        let lineage = &greeting.lineage;
        if lineage.incarnation() == self.incarnation {
            return Err(Refusal::Itself);
        }
        // Without slaves nothing goes on from here, whatever the path said once.
        if own.has_slaves && lineage.path.contains(&self.incarnation) {
            return Err(Refusal::Cycle);
        }
        let own_rank = (self.term, self.promoted);
        let same_rank = lineage.rank() == own_rank;
        // After a promotion of its own this store alone is the primary of the term: also of a slave that has forgotten its
        // primary in a restart. An orphan is no primary: its own primary may have writes that the orphan lacks.
        let is_older = lineage.rank() < own_rank && !planted(Rule::Superseded);
        if is_older || same_rank && self.is_owner() || lineage.is_orphan() {
            return Err(Refusal::Superseded);
        }
        let followed = self.primary.as_ref();
        let same = followed.is_some_and(|known| known.incarnation() == lineage.incarnation());
        if followed.is_some_and(|known| known.is_there) && !same && same_rank {
            return Err(Refusal::HasPrimary);
        }
        // Or the promotion alone, where the primary was told of as it stood before that.
        let path_changed = followed.is_none_or(|known| known.greeting.lineage != *lineage);
        // While a slave of this store is being told the chain of its primaries, the chain must not change. Where that slave is
        // the greeting primary, each would follow the other: of two that greet each other, the store with the higher
        // incarnation becomes the slave, and in a longer circle not every greeting succeeds. A store that an orphan greets
        // refuses the orphan.
        let crosses = !self.is_orphan()
            && (own.is_greeted_by_slave || self.greetings > 0 && lineage.incarnation() > self.incarnation);
        if path_changed && same_rank && crosses && !planted(Rule::Crossing) {
            return Err(Refusal::Crossing);
        }
        let knows = followed.is_some_and(|known| lineage.incarnation() == known.incarnation());
        if greeting.started_empty && !own.is_empty && !knows && !planted(Rule::ProtectData) {
            return Err(Refusal::NotEmpty);
        }
        let watch = !followed.is_some_and(|known| known.is_there && known.greeting.pid == greeting.pid);
        if watch && self.watches >= WATCHES_MAX {
            return Err(Refusal::HasPrimary);
        }
        let had = followed.map(|known| (known.incarnation(), known.applied)).or(self.before);
        let demoted = followed.is_none() && !same_rank;
        let replaced = followed.filter(|known| known.is_there && same).map(|known| known.greeting.session);
        let greeted = Greeted {
            incarnation: self.incarnation,
            had: had.map_or((None, 0), |(incarnation, applied)| (Some(incarnation), applied)),
            path_changed,
            demoted,
            stepped_down: self.stepped_down || demoted && own.has_slaves,
            was_orphan: self.is_orphan(),
            watch,
            left: followed
                .filter(|known| known.is_there && !same)
                .map(|known| (known.greeting.pid.clone(), known.greeting.session)),
        };
        self.must_export_dropped |= greeted.demoted;
        self.stepped_down = greeted.stepped_down;
        self.watches += usize::from(watch);
        (self.term, self.promoted) = lineage.rank();
        self.role = TermRole::Follows;
        self.staging = Staging::No;
        let applied = if greeted.had.0 == Some(lineage.incarnation()) { greeted.had.1 } else { 0 };
        self.before = None;
        (self.refused, self.replaced) = (None, replaced);
        // What is not acknowledged is sent again.
        self.kept.begin(applied);
        let latest = greeting.seq;
        self.is_slave.store(true, Ordering::Relaxed);
        self.primary =
            Some(Primary { greeting, applied, caught_up: false, latest, is_there: true, write_error: None });
        Ok(greeted)
    }

    /// The connection to a primary is lost, or it has ended.
    pub fn gone(&mut self, pid: &Pid) {
        self.watches -= 1;
        if let Some(primary) = &mut self.primary
            && primary.greeting.pid == *pid
        {
            primary.is_there = false;
            self.staging = Staging::No;
        }
    }

    /// The primary, and a session that it may still take for the one in force: it has greeted this store by two names, and
    /// removes one of them.
    pub fn replaced(&self) -> Option<(Pid, u64)> {
        Some((self.primary.as_ref()?.greeting.pid.clone(), self.replaced?))
    }

    /// A primary has removed this slave. Gives whether this is the followed primary.
    pub fn bye(&mut self, session: u64) -> bool {
        let is_it = self.is_session(session);
        if is_it {
            self.primary = None;
            self.is_slave.store(false, Ordering::Relaxed);
            self.was_slave = false;
            self.role = TermRole::None;
            self.is_partial = false;
            self.staging = Staging::No;
        }
        is_it
    }

    /// The store becomes a primary. Gives the former primary; after a restart nobody knows that.
    ///
    /// # Errors
    /// The caller's: the store is nobody's slave.
    pub fn promote(&mut self) -> Result<Option<Primary>, NoSlave> {
        let is_orphan = self.is_orphan();
        let former = self.primary.take();
        self.is_slave.store(false, Ordering::Relaxed);
        if former.is_none() && !self.was_slave && !is_orphan {
            return Err(NoSlave);
        }
        self.staging = Staging::No;
        // With writes of its own it has no place among another's.
        self.before = None;
        self.must_export_dropped = false;
        self.stepped_down = false;
        self.is_partial = false;
        self.started_empty = false;
        self.was_slave = false;
        self.term = self.term.saturating_add(u64::from(!planted(Rule::TermOfPromotion)));
        self.promoted = self.incarnation;
        self.role = TermRole::Promoted;
        Ok(former)
    }

    /// Takes notice of what the store has said since.
    pub fn note_kept(&mut self) {
        if let Some(why) = self.kept.take_to_note()
            && let Some(primary) = &mut self.primary
        {
            self.is_partial = true;
            primary.write_error = Some(why);
            primary.caught_up = false;
            if !planted(Rule::AppliedBehindStore) {
                primary.applied = primary.applied.min(self.kept.sure());
            }
        }
    }

    /// Why something that the primary sent is not here, where that is so.
    pub fn write_error(&self) -> Option<Refusal> {
        self.staging.failed().or_else(|| self.primary.as_ref()?.write_error)
    }

    fn is_session(&self, session: u64) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.greeting.session == session)
    }

    /// The primary, in whose session a write has come; `None`: it is of no use. A session ends with its connection: the primary
    /// may notice the loss later than this store, and go on in the session over the next connection, behind what was lost.
    pub fn session(&mut self, session: u64) -> Option<&mut Primary> {
        self.note_kept();
        self.primary.as_mut().filter(|primary| primary.is_there && primary.greeting.session == session)
    }

    /// What is to be done with a write of a canonical key, while a copy is under way or not.
    pub fn place(&mut self, key: &[u8], value: Option<Value<'_>>) -> Place {
        match &mut self.staging {
            Staging::No => return Place::Store,
            Staging::Failed(_) => {}
            Staging::InPlace(keys) => {
                let hash = hash(&self.hashers, key);
                let known = match value {
                    Some(_) => !keys.insert(hash),
                    None => keys.remove(&hash),
                };
                // What comes for a key first finds there what the store had.
                return if self.must_export_dropped && !known { Place::Overwrite } else { Place::Store };
            }
            Staging::Aside(store) => {
                // It answers at once: that is what such a store is for.
                let result = match value {
                    Some(value) => store.put(key, value, || Box::new(|_| {})),
                    None => store.delete(key, || Box::new(|_| {})),
                };
                if let Some(Err(error)) = result {
                    if self.kept.refuse(&error) {
                        tracing::error!(%error, "a copy of the primary does not fit beside what is here: what is here stays");
                    }
                    self.staging = Staging::Failed(kept::refusal(&error));
                }
            }
        }
        Place::Done
    }

    /// A write of the primary in this session was too large to be received; `key`: its canonical key, as far as it is known.
    /// The primary is told that it is not here. Gives whether that is to be logged.
    pub fn skipped(&mut self, session: u64, seq: u64, key: Option<&[u8]>) -> bool {
        let Some(primary) = self.session(session) else { return false };
        primary.heard(seq);
        match (&mut self.staging, key) {
            (Staging::No | Staging::Failed(_), _) => {}
            // What is there under the key is old, and better than nothing.
            (Staging::InPlace(keys), Some(key)) => _ = keys.insert(hash(&self.hashers, key)),
            (Staging::InPlace(_) | Staging::Aside(_), _) => {
                self.staging = Staging::Failed(Refusal::TooLarge);
            }
        }
        self.kept.refuse_skipped()
    }

    /// A copy begins or is whole.
    pub fn mark(&mut self, mark: CopyMark, store: &S) -> Copied<S> {
        match mark {
            CopyMark::Begin => {
                let aside = if planted(Rule::CopyWhole) { None } else { store.staging() };
                self.staging = aside.map_or_else(|| Staging::InPlace(AHashSet::new()), Staging::Aside);
                self.is_partial |= matches!(self.staging, Staging::InPlace(_));
                Copied::Nothing
            }
            CopyMark::Repair => {
                self.is_partial = true;
                Copied::Nothing
            }
            CopyMark::Whole => {
                self.filled();
                Copied::Nothing
            }
            CopyMark::End => match std::mem::replace(&mut self.staging, Staging::No) {
                Staging::No => Copied::Nothing,
                failed @ Staging::Failed(_) => {
                    self.staging = failed;
                    Copied::Nothing
                }
                Staging::Aside(with) => {
                    self.filled();
                    Copied::Replace(with)
                }
                Staging::InPlace(keys) => {
                    self.filled();
                    Copied::Keep(Seen { keys, hashers: self.hashers.clone() })
                }
            },
        }
    }

    /// A mark of this session has been taken in, with what it stands for.
    pub fn marked(&mut self, session: u64, mark: CopyMark, seq: u64) {
        let Some(primary) = self.session(session) else { return };
        primary.marked(mark, seq);
        let is_caught_up = primary.caught_up;
        if matches!(mark, CopyMark::Begin | CopyMark::Repair) {
            self.kept.sent_again();
        }
        if is_caught_up {
            (self.is_partial, self.stepped_down) = (false, false);
        }
    }

    /// The answer to a primary that asks: the number of its last write that was handled.
    pub fn asked(&mut self, session: u64, seq: u64) -> Result<Handled, Refusal> {
        let primary = self.session(session).ok_or(Refusal::OtherSession)?;
        primary.latest = primary.latest.max(seq);
        let handled = Handled { applied: primary.applied, caught_up: primary.caught_up };
        let failed = self.staging.failed();
        match self.kept.take_to_tell().or(failed) {
            Some(why) => Err(why),
            None => Ok(handled),
        }
    }
}

/// What a primary is told that asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handled {
    pub applied: u64,
    /// Nothing is missing before that.
    pub caught_up: bool,
}

impl Primary {
    pub fn incarnation(&self) -> u64 {
        self.greeting.lineage.incarnation()
    }

    /// Something with this number has been taken in.
    pub fn take_in(&mut self, seq: u64) {
        if self.caught_up {
            self.applied = self.applied.max(seq);
        }
        self.heard(seq);
    }

    /// Something with this number has come.
    pub fn heard(&mut self, seq: u64) {
        self.latest = self.latest.max(seq);
    }

    /// A mark has been taken in.
    pub fn marked(&mut self, mark: CopyMark, seq: u64) {
        if matches!(mark, CopyMark::Begin | CopyMark::Repair) {
            // What was not kept is sent again behind these.
            self.write_error = None;
        }
        self.caught_up = matches!(mark, CopyMark::End | CopyMark::Whole) && self.write_error.is_none()
            || planted(Rule::LacksUntilWhole);
        self.take_in(seq);
    }

    /// Writes that it has taken and this store has not.
    pub const fn lag(&self) -> u64 {
        self.latest.saturating_sub(self.applied)
    }
}

fn hash(hashers: &[RandomState; 2], key: &[u8]) -> u128 {
    let [first, second] = hashers;
    u128::from(first.hash_one(key)) << 64 | u128::from(second.hash_one(key))
}

#[cfg(test)]
mod tests;
