//! A store as the slave of a kvnode: whose writes it takes, and what it has of them.
//!
//! What comes between the marks of a copy is put aside, and takes the place of everything when the copy is whole: who
//! reads meanwhile sees what was there before. A store that cannot put a copy aside ([`Store::staging`]) takes it in as it
//! comes, and loses what was not part of it at the end.

use ahash::{AHashSet, RandomState};

use crate::dist::ServerRef;
use crate::etf::Pid;
use crate::replica::{CopyMark, Lineage, Refusal};
use crate::store::{Store, StoreError, Value};

/// Primaries that are watched at once, of which but one is followed: whoever greets oftener is refused.
const WATCHES_MAX: usize = 16;

/// What a primary says of itself.
#[derive(Clone, Debug)]
pub(super) struct Greeting {
    pub session: u64,
    pub lineage: Lineage,
    pub seq: u64,
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
    /// It was a primary, and another was promoted in its place.
    pub demoted: bool,
    /// The primary is to be watched.
    pub watch: bool,
}

/// A copy that is not whole yet.
enum Staging<S> {
    No,
    Aside(S),
    /// Into the store itself; the keys that came, as hashes.
    InPlace(AHashSet<u128>),
    /// It could not be taken in: the rest is of no use.
    Failed(StoreError),
}

/// What is to be done with a write.
pub(super) enum Place {
    /// Nothing: it is of no use, or was put aside.
    Done,
    /// It goes into the store.
    Store,
}

/// What is to be done at the end of a copy.
pub(super) enum Copied<S> {
    Nothing,
    /// This takes the place of the store's entries.
    Replace {
        with: S,
        report: bool,
    },
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

pub(super) struct Follower<S> {
    incarnation: u64,
    term: u64,
    primary: Option<Primary>,
    staging: Staging<S>,
    watches: usize,
    /// It was a primary with writes of its own: what the next copy drops of these is reported.
    report: bool,
    hashers: [RandomState; 2],
}

impl<S: Store> Follower<S> {
    pub fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            term: 0,
            primary: None,
            staging: Staging::No,
            watches: 0,
            report: false,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    pub const fn term(&self) -> u64 {
        self.term
    }

    /// Who the store is, below its primaries.
    pub fn lineage(&self) -> Lineage {
        let mut path =
            self.primary.as_ref().map_or_else(Vec::new, |primary| primary.greeting.lineage.path.clone());
        path.push(self.incarnation);
        Lineage { term: self.term, path }
    }

    /// The primary that it follows.
    pub const fn primary(&self) -> Option<&Primary> {
        self.primary.as_ref()
    }

    pub const fn is_copying(&self) -> bool {
        !matches!(self.staging, Staging::No)
    }

    /// A primary wants this store as its slave.
    pub fn greet(&mut self, greeting: Greeting, has_slaves: bool) -> Result<Greeted, Refusal> {
        let lineage = &greeting.lineage;
        if lineage.incarnation() == self.incarnation {
            return Err(Refusal::Itself);
        }
        // Without slaves nothing goes on from here, whatever the path said once.
        if has_slaves && lineage.path.contains(&self.incarnation) {
            return Err(Refusal::Cycle);
        }
        if lineage.term < self.term {
            return Err(Refusal::Superseded);
        }
        let followed = self.primary.as_ref();
        let same = followed.is_some_and(|known| known.incarnation() == lineage.incarnation());
        if followed.is_some_and(|known| known.is_there) && !same && lineage.term == self.term {
            return Err(Refusal::HasPrimary);
        }
        let watch = !followed.is_some_and(|known| known.is_there && known.greeting.pid == greeting.pid);
        if watch && self.watches >= WATCHES_MAX {
            return Err(Refusal::HasPrimary);
        }
        let greeted = Greeted {
            incarnation: self.incarnation,
            had: followed.map_or((None, 0), |known| (Some(known.incarnation()), known.applied)),
            path_changed: followed.is_none_or(|known| known.greeting.lineage.path != lineage.path),
            demoted: self.primary.is_none() && lineage.term > self.term,
            watch,
        };
        self.report |= greeted.demoted;
        self.watches += usize::from(watch);
        self.term = lineage.term;
        self.staging = Staging::No;
        let applied = if same { greeted.had.1 } else { 0 };
        let latest = greeting.seq;
        self.primary = Some(Primary { greeting, applied, whole: false, latest, is_there: true });
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
            self.staging = Staging::No;
        }
        is_it
    }

    /// From here on it is a primary of its own, and gives the one that it followed.
    pub fn promote(&mut self) -> Option<Primary> {
        let former = self.primary.take()?;
        self.staging = Staging::No;
        self.report = false;
        self.term += 1;
        Some(former)
    }

    fn is_session(&self, session: u64) -> bool {
        self.primary.as_ref().is_some_and(|primary| primary.greeting.session == session)
    }

    /// The primary, in whose session a write has come; `None`: it is of no use.
    pub fn session(&mut self, session: u64) -> Option<&mut Primary> {
        self.primary.as_mut().filter(|primary| primary.greeting.session == session)
    }

    /// What is to be done with a write of a canonical key, while a copy is under way or not.
    pub fn place(&mut self, key: &[u8], value: Option<Value<'_>>) -> Place {
        match &mut self.staging {
            Staging::No => return Place::Store,
            Staging::Failed(_) => {}
            Staging::InPlace(keys) => {
                let hash = hash(&self.hashers, key);
                match value {
                    Some(_) => _ = keys.insert(hash),
                    None => _ = keys.remove(&hash),
                }
                return Place::Store;
            }
            Staging::Aside(store) => {
                let result = match value {
                    Some(value) => store.put(key, value, || Box::new(|_| {})),
                    None => store.delete(key, || Box::new(|_| {})),
                };
                if let Some(Err(error)) = result {
                    tracing::error!(%error, "a copy of the primary does not fit beside what is here: what is here stays");
                    self.staging = Staging::Failed(error);
                }
            }
        }
        Place::Done
    }

    /// A copy begins or is whole.
    pub fn mark(&mut self, mark: CopyMark, store: &S) -> Copied<S> {
        match mark {
            CopyMark::Begin => {
                self.staging =
                    store.staging().map_or_else(|| Staging::InPlace(AHashSet::new()), Staging::Aside);
                Copied::Nothing
            }
            CopyMark::Repair | CopyMark::Whole => Copied::Nothing,
            CopyMark::End => match std::mem::replace(&mut self.staging, Staging::No) {
                Staging::No => Copied::Nothing,
                failed @ Staging::Failed(_) => {
                    self.staging = failed;
                    Copied::Nothing
                }
                Staging::Aside(with) => Copied::Replace { with, report: std::mem::take(&mut self.report) },
                Staging::InPlace(keys) => Copied::Keep(Seen { keys, hashers: self.hashers.clone() }),
            },
        }
    }

    /// The answer to a primary that asks: the number of its last write that was handled.
    pub fn asked(&mut self, session: u64, seq: u64) -> Result<u64, Refusal> {
        if matches!(self.staging, Staging::Failed(_)) {
            return Err(Refusal::NoSpace);
        }
        let primary = self.session(session).ok_or(Refusal::OtherSession)?;
        primary.latest = primary.latest.max(seq);
        Ok(primary.applied)
    }
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
        self.latest = self.latest.max(seq);
    }

    /// A mark has been taken in.
    pub fn marked(&mut self, mark: CopyMark, seq: u64) {
        self.whole = matches!(mark, CopyMark::End | CopyMark::Whole);
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
