//! The calls of the engine, each answered before the next: what was asked, and what came of it.

use std::sync::{Arc, Mutex, mpsc};

use kvnode::etf::{TermView, Traits, encode};
use kvnode::store::{
    Change, Done, EtcdStore, Pending, PendingMany, ReadDone, Store, StoreError, Update, UpdateMany, Value,
    Written, wait,
};

/// What a key has: a number, and the number of the write that has put it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub value: Option<u64>,
    pub revision: u64,
}

/// What came of a write: what it has found last, and the number of what it has made; `None`: it was decided to keep what is there.
pub type Wrote = Result<Option<u64>, StoreError>;

/// By what is there what is to be there; `None`: it stays.
pub type Decide = fn(Option<u64>, u64, Option<u64>) -> Option<Option<u64>>;

fn term(number: u64) -> Vec<u8> {
    encode(|w| _ = w.unsigned(number))
}

fn value(bytes: &[u8]) -> Value<'_> {
    Value::of(bytes, Traits::none())
}

fn held(found: Option<Value<'_>>) -> Held {
    let Some(found) = found else { return Held::default() };
    let number = TermView::parse(found.bytes).ok().and_then(|term| term.as_unsigned());
    Held { value: Some(number.expect("a number")), revision: found.revision }
}

/// The number of the last change.
fn number(written: &Written<'_>) -> u64 {
    written.numbers.last().copied().expect("each change has a number")
}

pub fn put(store: &EtcdStore, key: u64, put: u64) -> Wrote {
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result: Result<Written<'_>, StoreError>| {
        let _ended = tell.send(result.map(|written| Some(number(&written))));
    });
    assert_eq!(store.put(&term(key), value(&term(put)), || done), None);
    told.recv().expect("each write is answered")
}

pub fn delete(store: &EtcdStore, key: u64) -> Wrote {
    let (tell, told) = mpsc::channel();
    let done = Box::new(move |result: Result<Written<'_>, StoreError>| {
        let _ended = tell.send(result.map(|written| Some(number(&written))));
    });
    assert_eq!(store.delete(&term(key), || done), None);
    told.recv().expect("each write is answered")
}

/// What this process has.
pub fn get(store: &EtcdStore, key: u64) -> Result<Held, StoreError> {
    let (tell, told) = mpsc::channel();
    let later = || -> ReadDone {
        Box::new(move |result| {
            let _ended = tell.send(result.map(held));
        })
    };
    store
        .get(&term(key), |found| Ok(held(found)), later)
        .unwrap_or_else(|| told.recv().expect("each read is answered"))
}

/// What any process has been answered for.
pub fn get_linearizable(store: &EtcdStore, key: u64) -> Result<Held, StoreError> {
    wait(|done: Done| store.catch_up(done)).expect("each read is answered")?;
    get(store, key)
}

/// Decides by what the keys have, of each by itself; all change together.
#[derive(Clone)]
struct Decides {
    decide: Decide,
    by: u64,
    expected: Option<u64>,
    decided: Vec<Option<Vec<u8>>>,
    saw: Arc<Mutex<Vec<Option<u64>>>>,
    tell: mpsc::Sender<Wrote>,
}

impl Decides {
    /// What becomes of the keys; `None`: they stay.
    fn all(&mut self, present: &[Option<Value<'_>>]) -> bool {
        let found: Vec<Option<u64>> = present.iter().map(|found| held(*found).value).collect();
        let decided: Option<Vec<_>> =
            found.iter().map(|found| (self.decide)(*found, self.by, self.expected)).collect();
        *self.saw.lock().expect("no thread panics with it") = found;
        self.decided = decided.iter().flatten().map(|number| number.map(term)).collect();
        decided.is_some()
    }

    fn answer(self, result: Result<Option<Written<'_>>, StoreError>) {
        let _ended = self.tell.send(result.map(|written| written.as_ref().map(number)));
    }
}

fn change(decided: Option<&Vec<u8>>) -> Change<'_> {
    decided.map_or(Change::Delete, |bytes| Change::Put(value(bytes)))
}

impl Update for Decides {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        if self.all(&[present]) { change(self.decided[0].as_ref()) } else { Change::Keep }
    }
}

impl Pending for Decides {
    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        self.answer(result);
    }
}

impl UpdateMany for Decides {
    fn decide(&mut self, present: &[Option<Value<'_>>], tell: &mut dyn FnMut(usize, Change<'_>)) {
        if self.all(present) {
            self.decided.iter().enumerate().for_each(|(at, decided)| tell(at, change(decided.as_ref())));
        }
    }
}

impl PendingMany for Decides {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        self.answer(result);
    }
}

/// Decides of these keys by what they have: what came of it, and what they had.
pub fn update(
    store: &EtcdStore,
    keys: &[u64],
    decide: Decide,
    by: u64,
    expected: Option<u64>,
) -> (Wrote, Vec<Option<u64>>) {
    let (tell, told) = mpsc::channel();
    let saw = Arc::new(Mutex::new(Vec::new()));
    let mut asked = Decides { decide, by, expected, decided: Vec::new(), saw: Arc::clone(&saw), tell };
    match keys {
        [key] => {
            let later = |asked: &mut Decides| -> Box<dyn Pending> { Box::new(asked.clone()) };
            assert_eq!(store.update(&term(*key), &mut asked, later), None);
        }
        keys => {
            let later = |asked: &mut Decides| -> Box<dyn PendingMany> { Box::new(asked.clone()) };
            let terms: Vec<Vec<u8>> = keys.iter().map(|key| term(*key)).collect();
            let terms: Vec<&[u8]> = terms.iter().map(|key| &key[..]).collect();
            assert_eq!(store.update_many(&terms, &mut asked, later), None);
        }
    }
    drop(asked);
    let wrote = told.recv().expect("each write is answered");
    let saw = saw.lock().expect("no thread panics with it").clone();
    (wrote, saw)
}
