//! What such a store holds, and what of it that was asked for waits: which may be carried out, and carrying it out.

use std::collections::BTreeMap;

use kvnode::store::revision::REVISION_RAISED_MAX;
use kvnode::store::{
    Batch, Change, Done, NoteDone, Pending, PendingMany, ReadDone, ReadManyDone, ScanDone, Shows, StoreError,
    Value, WriteDone, Written,
};

use super::{Held, Manner};

/// What a write has changed.
type Changes = Vec<(Vec<u8>, Option<Held>)>;

/// xorshift64*
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// What was asked for.
pub(super) enum Ask {
    Get(ReadDone),
    Update(Box<dyn Pending>),
    GetMany(ReadManyDone),
    UpdateMany(Box<dyn PendingMany>),
    Clear(WriteDone),
    Barrier(Done),
    Note(String, Vec<u8>, Done),
    ReadNote(String, NoteDone),
    Batch(Option<usize>, Shows, ScanDone),
}

pub(super) struct Asked {
    pub(super) number: u64,
    pub(super) about: About,
    pub(super) ask: Ask,
}

/// What was carried out, and its asker has not been told.
pub(super) struct Carried {
    pub(super) number: u64,
    pub(super) about: About,
    pub(super) tell: Box<dyn FnOnce() + Send>,
}

/// What something that was asked is about.
#[derive(Clone)]
pub(super) enum About {
    /// All of the store.
    All,
    /// All that was asked before: what is asked after it may be done first.
    Before,
    Keys(Vec<Vec<u8>>),
    EveryKey,
}

impl About {
    pub(super) fn key(key: &[u8]) -> Self {
        Self::Keys(vec![key.into()])
    }

    /// The keys that it names.
    fn keys(&self) -> &[Vec<u8>] {
        match self {
            Self::All | Self::Before | Self::EveryKey => &[],
            Self::Keys(keys) => keys,
        }
    }

    pub(super) fn names(&self, key: &[u8]) -> bool {
        matches!(self, Self::EveryKey) || self.keys().iter().any(|known| known == key)
    }

    /// Whether it has to wait for an earlier request.
    fn waits_for(&self, earlier: &Self) -> bool {
        match (self, earlier) {
            (Self::Keys(keys), Self::Keys(_)) => keys.iter().any(|key| earlier.names(key)),
            (Self::Keys(_) | Self::EveryKey, Self::Before) => false,
            _ => true,
        }
    }
}

pub(super) struct State {
    pub(super) random: Random,
    pub(super) manner: Manner,
    pub(super) data: BTreeMap<Vec<u8>, Held>,
    pub(super) notes: BTreeMap<String, Vec<u8>>,
    pub(super) asked: Vec<Asked>,
    /// So much was asked.
    pub(super) asked_ever: u64,
    pub(super) carried: Vec<Carried>,
    /// What an asker is being told of at present.
    pub(super) telling: Option<About>,
    pub(super) seq: u64,
    /// What its revisions have counted to.
    pub(super) revision: u64,
    /// What it held after write `shown_seq`, and the writes since.
    pub(super) shown: BTreeMap<Vec<u8>, Held>,
    pub(super) shown_seq: u64,
    pub(super) since: BTreeMap<u64, Changes>,
    pub(super) changes: u64,
    pub(super) may_fail: bool,
    pub(super) notes_fail: bool,
    pub(super) closed: bool,
}

impl State {
    /// Something that was asked of the key is not told of yet.
    pub(super) fn is_busy(&self, key: &[u8]) -> bool {
        self.unsettled().any(|about| about.names(key))
    }

    /// What everything is about that is not told of yet.
    fn unsettled(&self) -> impl Iterator<Item = &About> {
        let asked = self.asked.iter().map(|asked| &asked.about);
        asked.chain(self.carried.iter().map(|carried| &carried.about)).chain(&self.telling)
    }

    /// What of the asked may be carried out now. Rules 4 and 5: of one key one thing after the other, each told of before the
    /// next. Rule 6: a barrier comes behind all that was asked before, and what is asked after may overtake it; nothing
    /// overtakes a note.
    pub(super) fn ready(&self) -> Vec<usize> {
        let mut busy: Vec<&About> = self.carried.iter().map(|carried| &carried.about).collect();
        busy.extend(&self.telling);
        let mut ready = Vec::new();
        for (at, Asked { about, .. }) in self.asked.iter().enumerate() {
            if !busy.iter().any(|earlier| about.waits_for(earlier)) {
                ready.push(at);
            }
            busy.push(about);
            if self.manner.in_order || matches!(about, About::All) {
                break;
            }
        }
        ready
    }

    pub(super) fn carry_out(&mut self, at: usize) {
        let Asked { number, about, ask } = self.asked.remove(at);
        let fails =
            self.may_fail && self.manner.fails_one_in > 0 && self.random.below(self.manner.fails_one_in) == 0;
        let why = if self.random.below(2) == 0 { StoreError::NoSpace } else { StoreError::Io("eio") };
        let tell: Box<dyn FnOnce() + Send> = match (ask, about.keys()) {
            (Ask::Get(done), [key]) => {
                let found = self.data.get(key).cloned();
                let fails = fails && self.manner.fails_to_read;
                Box::new(move || {
                    if fails {
                        return done(Err(why));
                    }
                    done(Ok(found.as_ref().map(Held::value)));
                })
            }
            (Ask::GetMany(done), keys) => {
                let found: Vec<Option<Held>> = keys.iter().map(|key| self.data.get(key).cloned()).collect();
                let fails = fails && self.manner.fails_to_read;
                Box::new(move || {
                    if fails {
                        return done(Err(why));
                    }
                    done(Ok(&found.iter().map(|held| held.as_ref().map(Held::value)).collect::<Vec<_>>()));
                })
            }
            (Ask::UpdateMany(update), _) if fails => Box::new(move || update.done(Err(why))),
            (Ask::UpdateMany(mut update), keys) => {
                let present: Vec<Option<Value<'_>>> =
                    keys.iter().map(|key| self.data.get(key).map(Held::value)).collect();
                if self.random.below(8) == 0 {
                    // As of one key.
                    update.decide(&vec![None; keys.len()], &mut |_, _| {});
                }
                let mut changes = Changes::new();
                update.decide(&present, &mut |at, change| match change {
                    Change::Keep => {}
                    Change::Put(value) => changes.push((keys[at].clone(), Some(value.to_owned()))),
                    Change::Delete => changes.push((keys[at].clone(), None)),
                });
                if changes.is_empty() {
                    Box::new(move || update.done(Ok(None)))
                } else {
                    let seq = self.write(&mut changes);
                    Box::new(move || tell_of(seq, &changes, |written| update.done(Ok(Some(written)))))
                }
            }
            (Ask::Update(update), [_]) if fails => Box::new(move || update.done(Err(why))),
            (Ask::Update(mut update), [key]) => {
                let present = self.data.get(key).map(Held::value);
                if self.random.below(8) == 0 {
                    // As if another writer was faster: it decides a second time.
                    update.decide(None);
                }
                let decided = match update.decide(present) {
                    Change::Keep => None,
                    Change::Put(value) => Some(Some(value.to_owned())),
                    Change::Delete => Some(None),
                };
                match decided {
                    None => Box::new(move || update.done(Ok(None))),
                    Some(held) => {
                        let mut changes = vec![(key.clone(), held)];
                        let seq = self.write(&mut changes);
                        Box::new(move || tell_of(seq, &changes, |written| update.done(Ok(Some(written)))))
                    }
                }
            }
            (Ask::Clear(done), _) if fails => Box::new(move || done(Err(why))),
            (Ask::Clear(done), _) => {
                let changes: Changes = self.data.keys().map(|key| (key.clone(), None)).collect();
                self.revision += 1;
                let seq = self.note(&changes);
                Box::new(move || done(Ok(Written { seq, changes: &[], numbers: &[] })))
            }
            (Ask::Barrier(done), _) if fails => Box::new(move || done(Err(why))),
            (Ask::Note(_, _, done), _) if self.notes_fail => Box::new(move || done(Err(StoreError::NoSpace))),
            (Ask::Note(name, note, done), _) => {
                self.notes.insert(name, note);
                Box::new(move || done(Ok(())))
            }
            (Ask::Barrier(done), _) => Box::new(move || done(Ok(()))),
            (Ask::ReadNote(name, done), _) => {
                let note = self.notes.get(&name).cloned();
                Box::new(move || done(Ok(note)))
            }
            (Ask::Batch(part, shows, done), _) => {
                let batch = self.batch(part, shows);
                Box::new(move || done(Ok(batch)))
            }
            (Ask::Get(_) | Ask::Update(_), _) => unreachable!("these have a key"),
        };
        self.carried.push(Carried { number, about, tell });
    }

    /// Rules 1 and 8.
    fn write(&mut self, changes: &mut Changes) -> u64 {
        let next = self.revision + 1;
        self.revision = next;
        for Held { revision, .. } in changes.iter_mut().filter_map(|(_, held)| held.as_mut()) {
            *revision = if *revision == 0 { next } else { *revision };
            self.revision = self.revision.max(*revision).min(REVISION_RAISED_MAX.max(next));
        }
        self.revision += (changes.len() as u64).saturating_sub(1);
        self.note(changes)
    }

    fn note(&mut self, changes: &Changes) -> u64 {
        apply(&mut self.data, changes);
        self.seq += 1;
        self.since.insert(self.seq, changes.clone());
        self.seq
    }

    pub(super) fn batch(&self, part: Option<usize>, shows: Shows) -> Batch {
        let mut batch = Batch::default();
        let is_in = |key: &[u8]| part.is_none_or(|part| part_of(key) == part);
        let unsettled = self.unsettled().flat_map(About::keys);
        unsettled.filter(|key| is_in(key)).for_each(|key| batch.push(key, None));
        for (key, held) in self.data.iter().filter(|(key, _)| is_in(key)) {
            let value = held.value();
            match shows {
                Shows::Keys => batch.push(key, None),
                Shows::Copies => batch.push_copy(key, value.copy),
                Shows::Pairs => batch.push(key, Some(value)),
            }
        }
        batch.is_last = true;
        batch
    }
}

pub(super) fn apply(data: &mut BTreeMap<Vec<u8>, Held>, changes: &Changes) {
    for (key, held) in changes {
        match held {
            Some(held) => _ = data.insert(key.clone(), held.clone()),
            None => _ = data.remove(key),
        }
    }
}

fn tell_of(seq: u64, changes: &Changes, tell: impl FnOnce(Written<'_>)) {
    let changes: Vec<(&[u8], Change<'_>)> = changes
        .iter()
        .map(|(key, held)| {
            (key.as_slice(), held.as_ref().map_or(Change::Delete, |held| Change::Put(held.value())))
        })
        .collect();
    tell(Written { seq, changes: &changes, numbers: &[] });
}

/// Parts that it is scanned in: few, as each costs a step.
pub(super) const PARTS: usize = 4;

pub(super) fn part_of(key: &[u8]) -> usize {
    usize::from(key.last().copied().unwrap_or_default()) % PARTS
}
