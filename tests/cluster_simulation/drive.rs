//! A store that outlives its node, as one on disk does: each write is answered later, in order, and what was not carried out when
//! the node ends is lost. A copy of a primary comes into it as it is.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvnode::etf::{TermView, Traits};
use kvnode::store::{ReadDone, Store, StoreError, Value, WriteDone};
use parking_lot::Mutex;

use super::shelf::{Data, Look, PARTS, number, term};

enum Change {
    Put(u64, u64),
    Delete(u64),
    /// Of a key that is none of the stores', as whoever waits for what came before deletes one.
    Nothing,
    Note(String, Vec<u8>),
}

impl Change {
    const fn key(&self) -> Option<u64> {
        match self {
            Self::Put(key, _) | Self::Delete(key) => Some(*key),
            Self::Nothing | Self::Note(..) => None,
        }
    }
}

struct Write {
    change: Change,
    done: WriteDone,
}

#[derive(Default)]
struct Kept {
    data: Data,
    notes: BTreeMap<String, Vec<u8>>,
    changes: u64,
    waiting: VecDeque<Write>,
}

impl Kept {
    fn carry_out(&mut self, change: Change) {
        self.changes += 1;
        match change {
            Change::Put(key, value) => _ = self.data.insert(key, value),
            Change::Delete(key) => _ = self.data.remove(&key),
            Change::Note(name, note) => _ = self.notes.insert(name, note),
            Change::Nothing => {}
        }
    }

    fn waits(&self, key: u64) -> bool {
        self.waiting.iter().any(|write| write.change.key() == Some(key))
    }
}

/// The disk: it is there when its node is not.
#[derive(Clone, Default)]
pub struct Drive(Arc<Mutex<Kept>>);

impl Drive {
    /// Writes that wait to be carried out.
    pub fn waiting(&self) -> usize {
        self.0.lock().waiting.len()
    }

    /// Carries out the first write that waits, and answers it.
    pub fn carry_out(&self) {
        let write = self.0.lock().waiting.pop_front();
        if let Some(Write { change, done }) = write {
            self.0.lock().carry_out(change);
            done(Ok(()));
        }
    }

    /// Its node ends: so many of the writes that wait are there all the same, though nobody was told.
    pub fn cut_off(&self, carried_out: usize) {
        let mut kept = self.0.lock();
        let waiting = std::mem::take(&mut kept.waiting);
        waiting.into_iter().take(carried_out).for_each(|write| kept.carry_out(write.change));
    }

    /// What it holds, but for what is being written.
    pub fn at_rest(&self) -> Data {
        let kept = self.0.lock();
        kept.data.iter().filter(|(key, _)| !kept.waits(**key)).map(|(key, value)| (*key, *value)).collect()
    }

    /// Whether its store comes back as a slave, which waits for its primary: what somebody writes there meanwhile is not lost when
    /// it is brought up to date with what it has missed, as little as what is written to a slave at any time.
    pub fn is_of_slave(&self) -> bool {
        let kept = self.0.lock();
        let is_note =
            |change: &Change, wanted: &str| matches!(change, Change::Note(name, _) if name == wanted);
        let note = |wanted: &str| {
            let waiting = kept.waiting.iter().rev().map(|write| &write.change);
            match waiting.into_iter().find(|change| is_note(change, wanted)) {
                Some(Change::Note(_, note)) => Some(note),
                _ => kept.notes.get(wanted),
            }
        };
        let has_position = |note: &Vec<u8>| TermView::parse(note).is_ok_and(|term| term.as_atom().is_none());
        note("is_slave").is_some_and(|note| *note == [1]) || note("position").is_some_and(has_position)
    }

    fn write(&self, change: Change, done: WriteDone) {
        self.0.lock().waiting.push_back(Write { change, done });
    }
}

/// The number of a key; `None`: it is none of the stores'.
fn key_of(key: &[u8]) -> Option<u64> {
    TermView::parse(key).ok()?.as_unsigned()
}

impl Store for Drive {
    const WRITES_LATER: bool = true;

    fn get<R>(
        &self,
        key: &[u8],
        now: impl FnOnce(Option<Value<'_>>) -> R,
        _later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        // Nobody here reads what is being written.
        let value = self.0.lock().data.get(&number(key)).map(|value| term(*value));
        Some(now(value.as_deref().map(|bytes| Value { bytes, shared: None, traits: Traits::none() })))
    }

    fn put(
        &self,
        key: &[u8],
        value: Value<'_>,
        later: impl FnOnce() -> WriteDone,
    ) -> Option<Result<(), StoreError>> {
        self.write(Change::Put(number(key), number(value.bytes)), later());
        None
    }

    fn delete(&self, key: &[u8], later: impl FnOnce() -> WriteDone) -> Option<Result<(), StoreError>> {
        self.write(key_of(key).map_or(Change::Nothing, Change::Delete), later());
        None
    }

    fn settled(&self, key: &[u8], show: impl FnOnce(Option<Value<'_>>)) -> Option<Result<(), StoreError>> {
        if self.0.lock().waits(number(key)) {
            return None;
        }
        self.get(key, show, || Box::new(|_| {})).map(Ok)
    }

    fn len(&self) -> usize {
        self.0.lock().data.len()
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn visit(&self, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        (0..PARTS).all(|part| self.visit_part(part, visit))
    }

    fn keys_under_way(&self, show: &mut dyn FnMut(&[u8])) {
        let keys: Vec<u64> = self.0.lock().waiting.iter().filter_map(|write| write.change.key()).collect();
        keys.into_iter().for_each(|key| show(&term(key)));
    }

    fn keep_note(&self, name: &str, note: &[u8], later: impl FnOnce() -> WriteDone) {
        self.write(Change::Note(name.into(), note.into()), later());
    }

    fn note(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.0.lock().notes.get(name).cloned())
    }

    fn is_durable(&self) -> bool {
        true
    }

    fn parts(&self) -> usize {
        PARTS
    }

    fn visit_part(&self, part: usize, visit: &mut dyn FnMut(&[u8], Value<'_>) -> bool) -> bool {
        super::shelf::visit_part(&self.data(), part, visit)
    }
}

impl Look for Drive {
    fn changes(&self) -> u64 {
        self.0.lock().changes
    }

    fn data(&self) -> Data {
        self.0.lock().data.clone()
    }

    fn take_replaced(&self) -> Option<Data> {
        None
    }
}
