//! An engine in the manner of a user's, which stands in for an engine behind a network. It answers late, from another
//! thread, in an order of its own, and fails at random; and it keeps the rules of `store/mod.rs` for engines: a comment names each
//! rule by its number where it is kept.
//!
//! In a simulation that other thread is a step: [`Deferred::step`] carries out or tells of one thing that waits, whichever the
//! seed says.

#![allow(dead_code, reason = "not every test uses all of it")]

#[path = "deferred/state.rs"]
mod state;

use std::collections::BTreeMap;
use std::sync::Arc;

use kvnode::store::revision::REVISION_RAISED_MAX;
use kvnode::store::{
    Cleared, Done, Due, DueDone, Engine, NoteDone, Notes, OpenError, Order, Page, Pending, PendingMany,
    ReadDone, ReadManyDone, Scan, ScanDone, Shows, Store, StoreError, Update, UpdateMany, Value, Visit,
    WriteDone,
};
use parking_lot::{Condvar, Mutex};
use state::{About, Ask, Asked, PARTS, Random, State, apply};

/// What a key has.
pub use kvnode::store::OwnedValue as Held;

/// How an engine behaves.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    pub seed: u64,
    /// One in so many writes fails; 0: none.
    pub fails_one_in: u64,
    /// So do reads.
    pub fails_to_read: bool,
    /// Everything is carried out and told of in the order in which it was asked, as a disk does.
    pub in_order: bool,
    /// What was carried out last is told of first, mostly.
    pub newest_first: bool,
    /// What is read comes at once where nothing of it is under way, as from a cache.
    pub reads_at_once: bool,
    /// Scans come later too.
    pub late_scans: bool,
    /// A thread of its own steps it.
    pub has_thread: bool,
}

impl Manner {
    /// Whatever is allowed, by a seed, step by step.
    pub const fn wild(seed: u64) -> Self {
        Self {
            seed,
            fails_one_in: 0,
            fails_to_read: false,
            in_order: false,
            newest_first: false,
            reads_at_once: false,
            late_scans: false,
            has_thread: false,
        }
    }
}

/// The store. Its clones are the same.
#[derive(Clone)]
pub struct Deferred {
    state: Arc<Mutex<State>>,
    work: Arc<Condvar>,
}

impl Deferred {
    pub fn new(manner: Manner) -> Self {
        let state = State {
            random: Random(manner.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1),
            manner,
            data: BTreeMap::new(),
            notes: BTreeMap::new(),
            asked: Vec::new(),
            asked_ever: 0,
            carried: Vec::new(),
            telling: None,
            seq: 1,
            revision: 1,
            shown: BTreeMap::new(),
            shown_seq: 1,
            since: BTreeMap::new(),
            changes: 0,
            may_fail: true,
            notes_fail: false,
            closed: false,
        };
        let store = Self { state: Arc::new(Mutex::new(state)), work: Arc::default() };
        if manner.has_thread {
            let stepped = store.clone();
            std::thread::spawn(move || stepped.step_until_closed());
        }
        store
    }

    /// Whether it may fail from now on.
    pub fn let_fail(&self, may_fail: bool) {
        self.state.lock().may_fail = may_fail;
    }

    /// Whether notes are not kept from now on, whatever else is.
    pub fn let_notes_fail(&self, notes_fail: bool) {
        self.state.lock().notes_fail = notes_fail;
    }

    /// What waits to be carried out or told of.
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.asked.len() + state.carried.len()
    }

    /// How much was asked so far.
    pub fn asked_ever(&self) -> u64 {
        self.state.lock().asked_ever
    }

    /// How much of that is carried out and told of, with all that was asked before.
    pub fn told_ever(&self) -> u64 {
        let state = self.state.lock();
        let asked = state.asked.iter().map(|asked| asked.number);
        asked.chain(state.carried.iter().map(|carried| carried.number)).min().unwrap_or(state.asked_ever)
    }

    /// Changes with every step.
    pub fn changes(&self) -> u64 {
        self.state.lock().changes
    }

    /// Carries out, or tells of, one thing that waits; `false`: nothing does.
    pub fn step(&self) -> bool {
        let carried = {
            let mut state = self.state.lock();
            state.changes += 1;
            let ready = state.ready();
            let all = ready.len() + state.carried.len();
            if all == 0 {
                assert!(state.asked.is_empty(), "something waits for nothing");
                return false;
            }
            let manner = state.manner;
            let pick = match manner {
                Manner { in_order: true, .. } => all - 1,
                Manner { newest_first: true, .. } if ready.is_empty() || state.random.below(2) == 0 => {
                    all - 1
                }
                _ => state.random.index(all),
            };
            match ready.get(pick) {
                Some(&at) => {
                    state.carry_out(at);
                    None
                }
                None => {
                    let carried = state.carried.remove(pick - ready.len());
                    state.telling = Some(carried.about.clone());
                    Some(carried)
                }
            }
        };
        if let Some(carried) = carried {
            // Without the lock: it may ask for something.
            (carried.tell)();
            self.state.lock().telling = None;
        }
        true
    }

    fn step_until_closed(&self) {
        loop {
            let pause = {
                let mut state = self.state.lock();
                while state.asked.is_empty() && state.carried.is_empty() {
                    if state.closed {
                        return;
                    }
                    self.work.wait(&mut state);
                }
                // Others get in between.
                state.random.below(8) == 0
            };
            if pause {
                std::thread::sleep(std::time::Duration::from_micros(200));
            }
            self.step();
        }
    }

    /// Its server ends, as by `kill -9`: so many things of those that wait are carried out all the same, and no asker is told.
    pub fn cut_off(&self, carried_out: usize) {
        let mut state = self.state.lock();
        for _ in 0..carried_out {
            let ready = state.ready();
            if ready.is_empty() {
                break;
            }
            let pick = if state.manner.in_order { 0 } else { state.random.index(ready.len()) };
            state.carry_out(ready[pick]);
            // As nothing is told, what comes behind need not wait for it.
            state.carried.clear();
        }
        state.asked.clear();
        state.carried.clear();
        state.telling = None;
        (state.shown, state.shown_seq) = (state.data.clone(), state.seq);
        state.since.clear();
    }

    /// Looks at what it held when its last write was this one.
    pub fn with_shown<R>(&self, seq: u64, look: impl FnOnce(&BTreeMap<Vec<u8>, Held>) -> R) -> R {
        let state = &mut *self.state.lock();
        while state.shown_seq < seq
            && let Some(changes) = state.since.remove(&(state.shown_seq + 1))
        {
            state.shown_seq += 1;
            apply(&mut state.shown, &changes);
        }
        look(&state.shown)
    }

    /// What it holds, but for what is being written.
    pub fn at_rest(&self) -> BTreeMap<Vec<u8>, Held> {
        let state = self.state.lock();
        let is_busy = |key: &[u8]| state.is_busy(key);
        state
            .data
            .iter()
            .filter(|(key, _)| !is_busy(key))
            .map(|(key, held)| (key.clone(), held.clone()))
            .collect()
    }

    /// What a key has, whatever of it is under way: what was carried out, also before its asker is told.
    pub fn present(&self, key: &[u8]) -> Option<Held> {
        self.state.lock().data.get(key).cloned()
    }

    /// A note as it is or is about to be.
    pub fn newest_note(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let waiting = state.asked.iter().rev().find_map(|asked| match &asked.ask {
            Ask::Note(known, note, _) if known == name => Some(note.clone()),
            _ => None,
        });
        waiting.or_else(|| state.notes.get(name).cloned())
    }

    fn ask(&self, about: About, ask: Ask) {
        {
            let mut state = self.state.lock();
            let number = state.asked_ever;
            state.asked_ever += 1;
            state.asked.push(Asked { number, about, ask });
        }
        self.work.notify_one();
    }
}

impl Store for Deferred {
    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let at_once = {
            let mut state = self.state.lock();
            let may = !state.is_busy(key) && (state.manner.reads_at_once || state.random.below(4) == 0);
            may.then(|| state.data.get(key).cloned())
        };
        match at_once {
            Some(found) => Some(now(found.as_ref().map(Held::value))),
            None => {
                self.ask(About::key(key), Ask::Get(later()));
                None
            }
        }
    }

    fn get_many<R>(
        &self,
        keys: &[&[u8]],
        now: impl FnOnce(&[Option<Value<'_>>]) -> R,
        later: impl FnOnce() -> ReadManyDone,
    ) -> Option<R> {
        let at_once = {
            let mut state = self.state.lock();
            let may = !keys.iter().any(|key| state.is_busy(key)) && state.random.below(4) == 0;
            may.then(|| keys.iter().map(|key| state.data.get(*key).cloned()).collect::<Vec<_>>())
        };
        match at_once {
            Some(found) => {
                Some(now(&found.iter().map(|held| held.as_ref().map(Held::value)).collect::<Vec<_>>()))
            }
            None => {
                self.ask(About::Keys(keys.iter().map(|key| key.to_vec()).collect()), Ask::GetMany(later()));
                None
            }
        }
    }

    fn update_many<U: UpdateMany>(
        &self,
        keys: &[&[u8]],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn PendingMany>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let about = About::Keys(keys.iter().map(|key| key.to_vec()).collect());
        self.ask(about, Ask::UpdateMany(later(update)));
        None
    }

    fn update<U: Update>(
        &self,
        key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        self.ask(About::key(key), Ask::Update(later(update)));
        None
    }

    fn clear(&self, later: impl FnOnce() -> WriteDone) -> Option<Result<Cleared, StoreError>> {
        self.ask(About::EveryKey, Ask::Clear(later()));
        None
    }

    fn barrier(&self, later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        {
            let state = self.state.lock();
            if state.asked.is_empty() && state.carried.is_empty() && state.telling.is_none() {
                return Some(Ok(()));
            }
        }
        self.ask(About::Before, Ask::Barrier(later()));
        None
    }

    fn seq(&self) -> u64 {
        self.state.lock().seq
    }

    fn revision(&self) -> u64 {
        self.state.lock().revision
    }

    fn raise_revision(&self, above: u64) {
        let mut state = self.state.lock();
        state.revision = state.revision.max(above.min(REVISION_RAISED_MAX));
    }

    fn deadlines(&self) -> usize {
        self.state.lock().data.values().filter(|held| held.deadline != 0).count()
    }

    fn next_due(&self) -> Option<u64> {
        let state = self.state.lock();
        state.data.values().map(|held| held.deadline).filter(|deadline| *deadline != 0).min()
    }

    fn due(&self, now: u64, max: usize, _later: impl FnOnce() -> DueDone) -> Option<Due> {
        let state = self.state.lock();
        let has_ended = |held: &Held| held.deadline != 0 && held.deadline <= now;
        let keys = state.data.iter().filter(|(_, held)| has_ended(held)).map(|(key, _)| key[..].into());
        let keys: Vec<_> = keys.take(max).collect();
        Some(Due { is_more: keys.len() == max, keys })
    }

    fn len(&self) -> usize {
        self.state.lock().data.len()
    }

    fn bytes(&self) -> u64 {
        self.state.lock().data.iter().map(|(key, held)| (key.len() + held.bytes.len()) as u64).sum()
    }

    fn parts(&self) -> usize {
        PARTS
    }

    fn scan(&self, part: Option<usize>, shows: Shows) -> Box<dyn Scan> {
        Box::new(DeferredScan { store: self.clone(), part, shows })
    }

    /// In the order of the keys, whose last is the place; that of terms it has not.
    fn page(
        &self,
        order: Order<'_>,
        after: Option<&[u8]>,
        shows: Shows,
        visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
    ) -> Result<Page, StoreError> {
        if order != Order::Any {
            return Ok(Page::Unordered);
        }
        let state = self.state.lock();
        let mut last = after.unwrap_or_default();
        for (key, held) in &state.data {
            if key.as_slice() <= last {
                continue;
            }
            match visit(key, (shows == Shows::Pairs).then(|| held.value())) {
                Visit::Next => last = key,
                Visit::Enough => return Ok(Page::Behind(key.clone())),
                Visit::Back => return Ok(Page::Behind(last.to_vec())),
            }
        }
        Ok(Page::Last)
    }

    fn notes(&self) -> Option<&dyn Notes> {
        Some(self)
    }
}

struct DeferredScan {
    store: Deferred,
    part: Option<usize>,
    shows: Shows,
}

impl Scan for DeferredScan {
    fn next_batch(&mut self, done: ScanDone) {
        if self.store.state.lock().manner.late_scans {
            return self.store.ask(About::All, Ask::Batch(self.part, self.shows, done));
        }
        let batch = self.store.state.lock().batch(self.part, self.shows);
        done(Ok(batch));
    }
}

impl Notes for Deferred {
    fn write(&self, name: &str, note: &[u8], done: Done) {
        self.ask(About::All, Ask::Note(name.into(), note.into(), done));
    }

    fn read(&self, name: &str, done: NoteDone) {
        let (has_thread, note) = {
            let state = self.state.lock();
            (state.manner.has_thread, state.notes.get(name).cloned())
        };
        if has_thread {
            return self.ask(About::All, Ask::ReadNote(name.into(), done));
        }
        done(Ok(note));
    }
}

/// Such stores, by their names, for as long as it is there.
#[derive(Clone)]
pub struct DeferredEngine {
    manner: Manner,
    stores: Arc<Mutex<Vec<Named>>>,
}

/// A store with its names.
type Named = (Vec<String>, Deferred);

impl DeferredEngine {
    pub fn new(manner: Manner) -> Self {
        Self { manner, stores: Arc::default() }
    }
}

impl Engine for DeferredEngine {
    type Store = Deferred;

    fn open(&self, names: &[String]) -> Result<Deferred, OpenError> {
        let mut stores = self.stores.lock();
        let is_it = |known: &[String]| names.iter().any(|name| known.contains(name));
        let mut found = stores.iter_mut().filter(|(known, _)| is_it(known));
        let store = match (found.next(), found.next()) {
            (Some(_), Some(_)) => return Err(OpenError::Names { names: names.to_vec() }),
            (Some((known, store)), None) => {
                *known = names.to_vec();
                return Ok(store.clone());
            }
            (None, _) => Deferred::new(self.manner),
        };
        stores.push((names.to_vec(), store.clone()));
        Ok(store)
    }

    fn open_again(&self, store: &Deferred) -> Deferred {
        store.clone()
    }

    fn settle(&self, done: Done) {
        for (_, store) in &*self.stores.lock() {
            while store.waiting() > 0 {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        }
        done(Ok(()));
    }

    fn close(&self) {
        for (_, store) in &*self.stores.lock() {
            store.state.lock().closed = true;
            store.work.notify_all();
        }
    }
}
