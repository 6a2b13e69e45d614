//! A store as the slave of a kvnode: whose writes it takes, and what it has of them.
//!
//! What comes between the marks of a copy is put aside, and takes the place of everything when the copy is whole: who
//! reads meanwhile sees what was there before. A store that cannot put a copy aside ([`Store::staging`]) takes it in as it
//! comes, and loses what was not part of it at the end.

use std::sync::Arc;

use ahash::{AHashSet, RandomState};

use super::kept::{self, Kept};
use super::position::Position;
use crate::distribution::ServerRef;
use crate::etf::Pid;
use crate::replica::{CopyMark, Lineage, Refusal};
use crate::store::{Store, Value};

/// Primaries that are watched at once, of which but one is followed: whoever greets oftener is refused.
const WATCHES_MAX: usize = 16;

/// What a primary says of itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub session: u64,
    pub lineage: Lineage,
    pub seq: u64,
    /// It was started without data, and this store not by hand as its slave: it may have lost what this one holds.
    pub fresh: bool,
    /// What it is found by, again: its names.
    pub names: Vec<ServerRef>,
    /// All its slaves.
    pub slaves: Vec<ServerRef>,
    pub pid: Pid,
}

/// The primary that is followed, or was last.
#[derive(Clone, Debug)]
pub(super) struct Primary {
    pub greeting: Greeting,
    /// The store has what the primary had after this write: the last one that was taken in while nothing was missing.
    pub applied: u64,
    /// Nothing is missing before what came last.
    pub whole: bool,
    /// The number of its last write, as far as is known here.
    pub latest: u64,
    /// The connection to it stands.
    pub is_there: bool,
    /// Something that it sent was not kept, for this reason, and it has not begun to send it again.
    pub lacks: Option<Refusal>,
}

/// The store is nobody's slave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoSlave;

/// What a greeting is weighed against, beside what is known of primaries.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Own {
    pub has_slaves: bool,
    /// One of them is who greets.
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
pub(super) enum Tenure {
    /// It was its own: no other store of the term is the primary.
    Own,
    /// It follows who was promoted, or did last: that one may be there, also where it is not seen.
    Below,
    /// Its primary has removed it, or it is not known.
    Free,
}

/// The last promotion that a store knows of, and what it has not done yet as a slave: as it is kept over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rank {
    pub term: u64,
    /// The incarnation of who was promoted.
    pub promoted: u64,
    pub tenure: Tenure,
    /// It was a primary with writes of its own: what the next copies drop of these is kept elsewhere.
    pub reports: bool,
    /// What it holds is a mix: a copy or a repair that went into it is not whole, or something that came was not kept.
    pub is_mixed: bool,
}

impl Default for Rank {
    /// Nobody was promoted.
    fn default() -> Self {
        Self { term: 0, promoted: 0, tenure: Tenure::Free, reports: false, is_mixed: false }
    }
}

pub(super) struct Follower<S> {
    incarnation: u64,
    term: u64,
    /// Whose promotion began the term.
    promoted: u64,
    tenure: Tenure,
    primary: Option<Primary>,
    /// Slaves that are being told the lineage.
    greetings: usize,
    /// It was started without data, and no primary has filled it.
    fresh: bool,
    /// It has been a slave with all that its primary had, also before it was started again, and is one since.
    was_slave: bool,
    staging: Staging<S>,
    watches: usize,
    /// As [`Rank::reports`].
    report: bool,
    /// As [`Rank::is_mixed`].
    is_mixed: bool,
    /// What was given to be kept last.
    noted: Rank,
    /// The place that it had among a primary's writes when its node ended.
    before: Option<Position>,
    /// The primary that was refused last, and why.
    refused: Option<(u64, Refusal)>,
    hashers: [RandomState; 2],
    kept: Arc<Kept>,
}

impl<S: Store> Follower<S> {
    /// `was_slave`: of a kvnode, when it was used last. `fresh`: it is empty.
    pub fn new(incarnation: u64, was_slave: bool, fresh: bool) -> Self {
        Self {
            incarnation,
            term: 0,
            promoted: 0,
            tenure: Tenure::Free,
            primary: None,
            greetings: 0,
            fresh,
            was_slave,
            staging: Staging::No,
            watches: 0,
            report: false,
            is_mixed: false,
            noted: Rank::default(),
            before: None,
            refused: None,
            hashers: [RandomState::new(), RandomState::new()],
            kept: Arc::default(),
        }
    }

    /// The same, with what was kept of it.
    pub fn ranked(self, noted: Rank) -> Self {
        let Rank { term, promoted, tenure, reports, is_mixed } = noted;
        Self { term, promoted, tenure, report: reports, is_mixed, noted, ..self }
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

    /// Who the store is, below its primaries.
    pub fn lineage(&self) -> Lineage {
        let path = match &self.primary {
            None if self.is_orphan() => Lineage::of_orphan(self.incarnation).into(),
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
            tenure: self.tenure,
            reports: self.report,
            is_mixed: self.is_mixed,
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
    pub const fn is_mixed(&self) -> bool {
        self.is_mixed
    }

    /// It was promoted, and no other since, as far as is known here.
    pub fn is_owner(&self) -> bool {
        self.term > 0 && self.tenure == Tenure::Own
    }

    /// Somebody else was promoted, whom it followed before it was started again, and it has not been greeted since.
    pub fn is_orphan(&self) -> bool {
        self.term > 0 && self.tenure == Tenure::Below && self.primary.is_none()
    }

    /// A slave is being told the lineage, or knows it.
    pub const fn greeting(&mut self, is_under_way: bool) {
        self.greetings = if is_under_way { self.greetings + 1 } else { self.greetings.saturating_sub(1) };
    }

    /// It was started without data, and no primary has filled it.
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// It has what it is to begin with.
    pub const fn filled(&mut self) {
        self.fresh = false;
    }

    /// It has all that its primary has. Gives whether that is so for the first time since it was nobody's slave.
    pub const fn mark_caught_up(&mut self) -> bool {
        !std::mem::replace(&mut self.was_slave, true)
    }

    /// What a copy drops is to be kept elsewhere.
    pub const fn reports(&self) -> bool {
        self.report
    }

    /// What was dropped is kept elsewhere, or there was nothing.
    pub const fn reported(&mut self) {
        self.report = false;
    }

    /// The primary that it follows.
    pub const fn primary(&self) -> Option<&Primary> {
        self.primary.as_ref()
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
        // Of an own promotion nobody else is the primary, also who followed this one and has forgotten whom. An orphan's
        // primary may have what it has not.
        if lineage.rank() < own_rank || same_rank && self.is_owner() || lineage.is_orphan() {
            return Err(Refusal::Superseded);
        }
        let followed = self.primary.as_ref();
        let same = followed.is_some_and(|known| known.incarnation() == lineage.incarnation());
        if followed.is_some_and(|known| known.is_there) && !same && same_rank {
            return Err(Refusal::HasPrimary);
        }
        // Or the promotion alone, where the primary was told of as it stood before that.
        let path_changed = followed.is_none_or(|known| known.greeting.lineage != *lineage);
        // A slave that is being told who is above it would be told what is no longer so, and where that slave is who greets,
        // each would follow the other. Of two that greet each other the one with the higher incarnation becomes the slave;
        // so too in a longer circle not all can. Whom an orphan greets refuses it.
        let crosses = !self.is_orphan()
            && (own.is_greeted_by_slave || self.greetings > 0 && lineage.incarnation() > self.incarnation);
        if path_changed && same_rank && crosses {
            return Err(Refusal::Crossing);
        }
        let knows = followed.is_some_and(|known| lineage.incarnation() == known.incarnation());
        if greeting.fresh && !own.is_empty && !knows {
            return Err(Refusal::NotEmpty);
        }
        let watch = !followed.is_some_and(|known| known.is_there && known.greeting.pid == greeting.pid);
        if watch && self.watches >= WATCHES_MAX {
            return Err(Refusal::HasPrimary);
        }
        let had = followed.map(|known| (known.incarnation(), known.applied)).or(self.before);
        let greeted = Greeted {
            incarnation: self.incarnation,
            had: had.map_or((None, 0), |(incarnation, applied)| (Some(incarnation), applied)),
            path_changed,
            demoted: followed.is_none() && !same_rank,
            was_orphan: self.is_orphan(),
            watch,
            left: followed
                .filter(|known| known.is_there && !same)
                .map(|known| (known.greeting.pid.clone(), known.greeting.session)),
        };
        self.report |= greeted.demoted;
        self.watches += usize::from(watch);
        (self.term, self.promoted) = lineage.rank();
        self.tenure = Tenure::Below;
        self.staging = Staging::No;
        let applied = if greeted.had.0 == Some(lineage.incarnation()) { greeted.had.1 } else { 0 };
        self.before = None;
        self.refused = None;
        // What is not acknowledged is sent again.
        self.kept.begin(applied);
        let latest = greeting.seq;
        self.primary = Some(Primary { greeting, applied, whole: false, latest, is_there: true, lacks: None });
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

    /// The primary has removed this slave. Gives whether that is the one that is followed.
    pub fn bye(&mut self, session: u64) -> bool {
        let is_it = self.is_session(session);
        if is_it {
            self.primary = None;
            self.was_slave = false;
            self.tenure = Tenure::Free;
            self.is_mixed = false;
            self.staging = Staging::No;
        }
        is_it
    }

    /// From here on it is a primary of its own, and gives the one that it followed, which after a restart nobody knows.
    ///
    /// # Errors
    /// Whoever wants it: it is nobody's slave.
    pub fn promote(&mut self) -> Result<Option<Primary>, NoSlave> {
        let is_orphan = self.is_orphan();
        let former = self.primary.take();
        if former.is_none() && !self.was_slave && !is_orphan {
            return Err(NoSlave);
        }
        self.staging = Staging::No;
        // With writes of its own it has no place among another's.
        self.before = None;
        self.report = false;
        self.is_mixed = false;
        self.fresh = false;
        self.was_slave = false;
        self.term = self.term.saturating_add(1);
        self.promoted = self.incarnation;
        self.tenure = Tenure::Own;
        Ok(former)
    }

    /// Takes notice of what the store has said since.
    pub fn note_kept(&mut self) {
        if let Some(why) = self.kept.take_to_note()
            && let Some(primary) = &mut self.primary
        {
            self.is_mixed = true;
            primary.lacks = Some(why);
            primary.whole = false;
            primary.applied = primary.applied.min(self.kept.sure());
        }
    }

    /// Why something that the primary sent is not here, where that is so.
    pub fn lacks(&self) -> Option<Refusal> {
        self.staging.failed().or_else(|| self.primary.as_ref()?.lacks)
    }

    fn is_session(&self, session: u64) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.greeting.session == session)
    }

    /// The primary, in whose session a write has come; `None`: it is of no use.
    pub fn session(&mut self, session: u64) -> Option<&mut Primary> {
        self.note_kept();
        self.primary.as_mut().filter(|primary| primary.greeting.session == session)
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
                return if self.report && !known { Place::Overwrite } else { Place::Store };
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
                self.staging =
                    store.staging().map_or_else(|| Staging::InPlace(AHashSet::new()), Staging::Aside);
                self.is_mixed |= matches!(self.staging, Staging::InPlace(_));
                Copied::Nothing
            }
            CopyMark::Repair => {
                self.is_mixed = true;
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
        if primary.whole {
            self.is_mixed = false;
        }
    }

    /// The answer to a primary that asks: the number of its last write that was handled.
    pub fn asked(&mut self, session: u64, seq: u64) -> Result<Handled, Refusal> {
        let primary = self.session(session).ok_or(Refusal::OtherSession)?;
        primary.latest = primary.latest.max(seq);
        let handled = Handled { applied: primary.applied, whole: primary.whole };
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
    pub whole: bool,
}

impl Primary {
    pub fn incarnation(&self) -> u64 {
        self.greeting.lineage.incarnation()
    }

    /// Something with this number has been taken in.
    pub fn take_in(&mut self, seq: u64) {
        if self.whole {
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
            self.lacks = None;
        }
        self.whole = matches!(mark, CopyMark::End | CopyMark::Whole) && self.lacks.is_none();
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
mod tests {
    use super::*;
    use crate::store::MemoryStore;

    const OWN: u64 = 7;
    /// Some store that was promoted once.
    const PROMOTED: u64 = 5;
    /// Nothing that would speak against a greeting.
    const FREE: Own = Own { has_slaves: false, is_greeted_by_slave: false, is_empty: true };

    fn greeting(term: u64, path: &[u64], session: u64) -> Greeting {
        let id = path.last().copied().unwrap_or(0) as u32;
        Greeting {
            session,
            lineage: Lineage { term, promoted: if term == 0 { 0 } else { PROMOTED }, path: path.to_vec() },
            seq: 10,
            fresh: false,
            names: Vec::new(),
            slaves: Vec::new(),
            pid: Pid { node: "p@h".into(), id, serial: 0, creation: 1 },
        }
    }

    fn follower() -> Follower<MemoryStore> {
        Follower::new(OWN, false, true)
    }

    fn value(bytes: &[u8]) -> Value<'_> {
        Value { bytes, shared: None, traits: crate::etf::Traits::none() }
    }

    #[test]
    fn itself_and_circles_are_refused_and_a_path_of_long_ago_is_not() {
        let mut follower = follower();
        let with_slaves = Own { has_slaves: true, ..FREE };
        assert_eq!(follower.greet(greeting(0, &[OWN], 1), FREE).err(), Some(Refusal::Itself));
        assert_eq!(follower.greet(greeting(0, &[OWN, 2], 1), with_slaves).err(), Some(Refusal::Cycle));
        assert!(follower.greet(greeting(0, &[OWN, 2], 1), FREE).is_ok(), "nothing goes on from here");
        assert_eq!(follower.lineage().path, [OWN, 2, OWN]);
    }

    #[test]
    fn another_primary_is_taken_where_the_first_is_gone_or_the_term_is_higher() {
        let mut follower = follower();
        assert!(follower.greet(greeting(0, &[1], 1), FREE).is_ok_and(|greeted| !greeted.demoted));
        assert_eq!(follower.greet(greeting(0, &[2], 2), FREE).err(), Some(Refusal::HasPrimary));
        let gone = greeting(0, &[1], 1).pid;
        follower.gone(&gone);
        assert!(follower.greet(greeting(0, &[2], 2), FREE).is_ok());
        let greeted = follower.greet(greeting(3, &[1], 3), FREE).expect("its term is higher");
        assert!(!greeted.demoted);
        assert!(
            follower.greet(greeting(3, &[1], 4), FREE).is_ok_and(|greeted| !greeted.path_changed),
            "nothing is new to its own slaves"
        );
        assert!(
            follower.greet(greeting(4, &[1], 5), FREE).is_ok_and(|greeted| greeted.path_changed),
            "they are to know of the promotion"
        );
        assert_eq!(
            greeted.left,
            Some((greeting(0, &[2], 2).pid, 2)),
            "the one before is there, and knows nothing of it"
        );
        assert_eq!(follower.greet(greeting(2, &[2], 6), FREE).err(), Some(Refusal::Superseded));
        assert!(follower.promote().is_ok_and(|former| former.is_some()) && follower.promote().is_err());
        assert_eq!(follower.term(), 5);
        assert!(follower.greet(greeting(6, &[1], 7), FREE).is_ok_and(|greeted| greeted.demoted));
    }

    #[test]
    fn one_that_was_a_slave_before_a_restart_says_so_once() {
        let mut follower = follower().had(Some((1, 12)));
        assert_eq!(
            follower.greet(greeting(0, &[1], 1), FREE).map(|greeted| greeted.had).ok(),
            Some((Some(1), 12))
        );
        assert_eq!(follower.asked(1, 15).ok().map(|handled| handled.applied), Some(12), "what it had it has");
        follower.bye(1);
        assert_eq!(
            follower.greet(greeting(0, &[1], 2), FREE).map(|greeted| greeted.had).ok(),
            Some((None, 0))
        );
        let mut follower = self::follower().had(Some((1, 12)));
        assert_eq!(
            follower.greet(greeting(0, &[2], 1), FREE).map(|greeted| greeted.had).ok(),
            Some((Some(1), 12))
        );
        assert_eq!(
            follower.asked(1, 15).ok().map(|handled| handled.applied),
            Some(0),
            "of another's writes it has none"
        );
    }

    #[test]
    fn one_that_is_promoted_after_a_restart_has_no_place_among_the_writes_of_its_former_primary() {
        let mut follower = Follower::<MemoryStore>::new(OWN, true, false).had(Some((1, 12)));
        assert!(follower.promote().is_ok_and(|former| former.is_none()));
        let greeted = follower.greet(greeting(7, &[1], 1), Own { is_empty: false, ..FREE });
        assert_eq!(
            greeted.map(|greeted| greeted.had).ok(),
            Some((None, 0)),
            "else what it has written would stay"
        );
    }

    #[test]
    fn a_copy_is_put_aside_and_what_a_session_that_is_over_sends_is_of_no_use() {
        let (mut follower, store) = (follower(), MemoryStore::default());
        follower.greet(greeting(0, &[1], 1), FREE).expect("it is a slave");
        assert!(follower.session(2).is_none());
        assert_eq!(follower.asked(2, 11), Err(Refusal::OtherSession));
        assert!(matches!(follower.place(b"k", Some(value(b"v"))), Place::Store));
        assert!(matches!(follower.mark(CopyMark::Begin, &store), Copied::Nothing));
        assert!(matches!(follower.place(b"k", Some(value(b"v"))), Place::Done));
        assert!(follower.is_fresh());
        let Copied::Replace(with) = follower.mark(CopyMark::End, &store) else { panic!("a whole copy") };
        assert!(!follower.is_fresh(), "it has what its primary has");
        assert_eq!(with.len(), 1);
        follower.session(1).expect("it is this one").marked(CopyMark::End, 12);
        assert_eq!(follower.asked(1, 15), Ok(Handled { applied: 12, whole: true }));
        assert_eq!(follower.primary().map(Primary::lag), Some(3));
        // What comes before something that was left out is repaired does not count.
        let primary = follower.session(1).expect("it is this one");
        primary.marked(CopyMark::Repair, 12);
        primary.take_in(20);
        assert_eq!(primary.applied, 12);
        primary.marked(CopyMark::Whole, 21);
        assert_eq!(primary.applied, 21);
    }

    #[test]
    fn what_is_not_kept_is_told_once_and_nothing_counts_until_it_was_sent_again() {
        let (mut follower, store) = (follower(), MemoryStore::default());
        follower.greet(greeting(0, &[1], 1), Own::default()).expect("it is a slave");
        let mark = |follower: &mut Follower<MemoryStore>, mark, seq| {
            follower.mark(mark, &store);
            follower.session(1).expect("it is this one").marked(mark, seq);
        };
        mark(&mut follower, CopyMark::Whole, 5);
        assert_eq!(follower.asked(1, 5), Ok(Handled { applied: 5, whole: true }));
        follower.kept().told(5, true);
        follower.session(1).expect("it is this one").take_in(6);
        assert!(follower.kept().refuse(&crate::store::StoreError::NoSpace));
        follower.session(1).expect("it is this one").take_in(8);
        assert_eq!((follower.asked(1, 8), follower.lacks()), (Err(Refusal::NoSpace), Some(Refusal::NoSpace)));
        // A mark that was under way.
        mark(&mut follower, CopyMark::Whole, 8);
        assert_eq!(follower.asked(1, 9), Ok(Handled { applied: 5, whole: false }));
        mark(&mut follower, CopyMark::Repair, 9);
        mark(&mut follower, CopyMark::Whole, 10);
        assert_eq!(
            (follower.asked(1, 10), follower.lacks()),
            (Ok(Handled { applied: 10, whole: true }), None)
        );
    }

    #[test]
    fn a_write_that_was_skipped_is_missing_until_it_is_sent_again() {
        let (mut follower, store) = (follower(), MemoryStore::default());
        follower.greet(greeting(0, &[9], 1), FREE).expect("it is a slave");
        follower.marked(1, CopyMark::Whole, 5);
        assert!(!follower.skipped(2, 6, None), "of another session");
        assert_eq!(follower.asked(1, 6), Ok(Handled { applied: 5, whole: true }));
        assert!(follower.skipped(1, 7, Some(b"k")));
        // The next write has come, and says nothing about that.
        follower.session(1).expect("the session").take_in(8);
        assert_eq!(
            (follower.asked(1, 8), follower.lacks()),
            (Err(Refusal::TooLarge), Some(Refusal::TooLarge))
        );
        assert!(follower.primary().is_some_and(|primary| !primary.whole && primary.applied < 7));
        // A copy without it takes the place of nothing, whether it is put aside or not, unless its key is known there.
        for (in_place, key, is_copied) in [
            (false, Some(&b"k"[..]), false),
            (false, None, false),
            (true, Some(b"k"), true),
            (true, None, false),
        ] {
            follower.mark(CopyMark::Begin, &store);
            follower.marked(1, CopyMark::Begin, 8);
            if in_place {
                follower.staging = Staging::InPlace(AHashSet::new());
            }
            follower.skipped(1, 9, key);
            assert_eq!(!matches!(follower.mark(CopyMark::End, &store), Copied::Nothing), is_copied);
            assert_eq!(follower.asked(1, 9), Err(Refusal::TooLarge));
            follower.staging = Staging::No;
        }
    }

    #[test]
    fn what_is_half_done_is_known_until_it_is_done_also_after_a_restart() {
        let (mut follower, store) = (follower(), MemoryStore::default());
        assert_eq!(follower.rank_to_note(), None);
        follower.greet(greeting(1, &[PROMOTED], 1), FREE).expect("it is a slave");
        let noted = follower.rank_to_note().expect("that it stepped down, before anything is dropped");
        assert!(noted.reports && !noted.is_mixed);
        // A copy that is put aside leaves what is there as it was, and a repair does not.
        follower.mark(CopyMark::Begin, &store);
        follower.marked(1, CopyMark::Begin, 3);
        assert_eq!(follower.rank_to_note(), None);
        follower.mark(CopyMark::Repair, &store);
        follower.marked(1, CopyMark::Repair, 3);
        let noted = follower.rank_to_note().expect("what it holds is a mix");
        let mut again = Follower::<MemoryStore>::new(OWN + 1, false, false).ranked(noted);
        assert!(again.is_mixed() && again.reports() && again.rank_to_note().is_none());
        again.greet(greeting(1, &[PROMOTED], 2), FREE).expect("it is a slave");
        assert!(again.is_mixed() && again.reports(), "nothing has come yet");
        again.mark(CopyMark::Whole, &store);
        again.marked(1, CopyMark::Whole, 4);
        assert!(again.is_mixed(), "of a session that is over");
        again.marked(2, CopyMark::Whole, 4);
        again.reported();
        assert!(again.rank_to_note().is_some_and(|noted| !noted.is_mixed && !noted.reports));
        // What is not kept makes a mix of it too.
        assert!(again.kept().refuse(&crate::store::StoreError::NoSpace));
        again.note_kept();
        assert!(again.is_mixed());
        again.promote().expect("it is a slave");
        assert!(!again.is_mixed(), "it is what its own are to have");
    }

    #[test]
    fn a_store_that_cannot_put_a_copy_aside_knows_what_was_not_part_of_it() {
        let mut follower = follower();
        follower.staging = Staging::InPlace(AHashSet::new());
        assert!(matches!(follower.place(b"a", Some(value(b"v"))), Place::Store));
        assert!(matches!(follower.place(b"b", Some(value(b"v"))), Place::Store));
        assert!(matches!(follower.place(b"b", None), Place::Store));
        let Copied::Keep(seen) = follower.mark(CopyMark::End, &MemoryStore::default()) else {
            panic!("a copy in place")
        };
        assert!(seen.contains(b"a") && !seen.contains(b"b"));
        // What was there is told of when something comes in its place first.
        follower.report = true;
        follower.staging = Staging::InPlace(AHashSet::new());
        assert!(matches!(follower.place(b"a", Some(value(b"v"))), Place::Overwrite));
        assert!(matches!(follower.place(b"a", Some(value(b"w"))), Place::Store));
        assert!(matches!(follower.place(b"b", None), Place::Overwrite));
    }

    #[test]
    fn of_two_that_greet_each_other_one_becomes_the_slave() {
        let mut follower = follower();
        let by_slave = Own { has_slaves: true, is_greeted_by_slave: true, ..FREE };
        assert_eq!(follower.greet(greeting(0, &[OWN - 1], 1), by_slave).err(), Some(Refusal::Crossing));
        follower.greeting(true);
        assert_eq!(follower.greet(greeting(0, &[OWN + 1], 1), FREE).err(), Some(Refusal::Crossing));
        assert!(
            follower.greet(greeting(0, &[OWN - 1], 1), FREE).is_ok(),
            "the one with the higher incarnation"
        );
        // What changes nothing above it is no matter.
        assert!(follower.greet(greeting(0, &[OWN - 1], 2), FREE).is_ok());
        let gone = greeting(0, &[OWN - 1], 2).pid;
        follower.gone(&gone);
        assert_eq!(follower.greet(greeting(0, &[OWN + 1], 3), FREE).err(), Some(Refusal::Crossing));
        assert!(follower.greet(greeting(1, &[OWN + 1], 3), FREE).is_ok(), "a promotion waits for nobody");
        follower.greeting(false);
        let gone = greeting(1, &[OWN + 1], 3).pid;
        follower.gone(&gone);
        assert!(follower.greet(greeting(1, &[OWN + 2], 4), FREE).is_ok());
    }

    #[test]
    fn of_two_that_were_promoted_apart_from_each_other_one_yields() {
        let promoted = |incarnation| {
            let mut follower = Follower::<MemoryStore>::new(incarnation, false, false);
            follower.greet(greeting(0, &[1], 1), Own { is_empty: false, ..FREE }).expect("it is a slave");
            assert!(!follower.reports());
            follower.promote().expect("it was a slave");
            follower
        };
        let hello = |of: &Follower<MemoryStore>| Greeting {
            lineage: of.lineage(),
            ..greeting(0, &[of.incarnation()], 2)
        };
        let (mut low, mut high) = (promoted(3), promoted(4));
        let own = Own { has_slaves: true, ..FREE };
        assert_eq!(high.greet(hello(&low), own).err(), Some(Refusal::Superseded));
        low.greeting(true);
        assert!(low.greet(hello(&high), own).is_ok_and(|greeted| greeted.demoted));
        assert!(low.reports(), "it may have writes that the other has not");
        assert_eq!(low.lineage(), Lineage { term: 1, promoted: 4, path: vec![4, 3] });
        // Their slaves follow, though the primary that they have is there.
        let mut slave = follower();
        slave.greet(greeting(0, &[1], 1), FREE).expect("it is a slave");
        slave.greet(hello(&promoted(3)), FREE).expect("it is a slave");
        assert!(slave.greet(hello(&high), FREE).is_ok_and(|greeted| !greeted.demoted));
        assert_eq!(slave.greet(hello(&promoted(3)), FREE).err(), Some(Refusal::Superseded));
        assert!(!slave.reports());
    }

    #[test]
    fn of_an_own_promotion_nobody_else_is_the_primary_and_of_anothers_not_who_has_followed_it() {
        let mut owner = Follower::<MemoryStore>::new(OWN, true, false);
        owner.promote().expect("it was a slave");
        let own = Own { is_empty: false, ..FREE };
        // It is kept who it is over a restart, which gives another incarnation.
        let rank = owner.rank();
        let mut owner = Follower::<MemoryStore>::new(OWN + 1, false, false).ranked(rank);
        assert!(owner.is_owner() && !owner.is_orphan());
        let of = |lineage: Lineage| Greeting { lineage, ..greeting(1, &[9], 1) };
        let mut slave = follower();
        slave.greet(of(owner.lineage()), FREE).expect("it is a slave");
        let path = slave.lineage().path;
        assert_eq!(path, [OWN + 1, OWN]);
        // The slave is started again: it is the primary of nobody, neither of the owner nor of others.
        let (rank, started) = (slave.rank(), OWN + 2);
        let restarted = || Follower::<MemoryStore>::new(started, false, false).ranked(rank);
        let mut slave = restarted();
        assert!(slave.is_orphan() && slave.lineage().is_orphan());
        assert_eq!(slave.lineage().incarnation(), started);
        assert_eq!(owner.greet(of(slave.lineage()), own).err(), Some(Refusal::Superseded));
        assert_eq!(follower().greet(of(slave.lineage()), FREE).err(), Some(Refusal::Superseded));
        // Also while it greets others itself, it takes who is above it.
        slave.greeting(true);
        let higher = Lineage { path: vec![started + 1], ..owner.lineage() };
        slave.greet(of(higher), own).expect("it is a slave again");
        assert!(!slave.is_orphan() && !slave.lineage().is_orphan());
        // Who has removed it has no claim to it any more.
        assert!(slave.bye(1) && !slave.is_orphan());
        assert_eq!(slave.rank().tenure, Tenure::Free);
        assert_eq!(owner.greet(of(slave.lineage()), own).err(), Some(Refusal::Superseded));
        // An orphan can be promoted, whatever it has, and is the primary then.
        let mut orphan = restarted();
        assert!(orphan.promote().is_ok_and(|former| former.is_none()) && orphan.is_owner());
        assert!(owner.greet(of(orphan.lineage()), own).is_ok_and(|greeted| greeted.demoted));
        assert!(!owner.is_owner());
    }

    #[test]
    fn who_was_started_without_data_does_not_empty_one_that_has_some() {
        let mut follower = follower();
        let full = Own { is_empty: false, ..FREE };
        let fresh = |incarnation, session| Greeting { fresh: true, ..greeting(0, &[incarnation], session) };
        assert_eq!(follower.greet(fresh(1, 1), full).err(), Some(Refusal::NotEmpty));
        assert!(follower.primary().is_none());
        assert!(follower.greet(fresh(1, 1), FREE).is_ok());
        assert!(follower.greet(fresh(1, 2), full).is_ok(), "it has what that one sent");
        let gone = fresh(1, 2).pid;
        follower.gone(&gone);
        assert_eq!(follower.greet(fresh(2, 3), full).err(), Some(Refusal::NotEmpty));
        assert!(follower.greet(greeting(0, &[2], 3), full).is_ok(), "by hand");
    }

    #[test]
    fn what_a_slave_that_was_started_again_drops_after_a_promotion_is_told() {
        for was_slave in [false, true] {
            let mut follower = Follower::<MemoryStore>::new(OWN, was_slave, false);
            let greeted = follower.greet(greeting(1, &[PROMOTED], 1), FREE).expect("it is a slave");
            assert!(greeted.demoted);
            // It may have been written to while it had no primary.
            assert!(follower.reports());
            assert_eq!(
                (follower.mark_caught_up(), follower.mark_caught_up()),
                (!was_slave, false),
                "to be kept once"
            );
        }
    }
}
