//! A store that always answers later: when the test says so.

use std::sync::Arc;

use kvnode::store::{
    Batch, Done, Due, DueDone, Pending, ReadDone, Scan, ScanDone, Shows, Store, StoreError, Update, Value,
};
use parking_lot::Mutex;

/// Answers that are yet to come.
pub type Waiting = Arc<Mutex<Vec<Box<dyn FnOnce() + Send>>>>;

/// A store that always answers later.
#[derive(Default)]
pub struct Late(pub Waiting);

impl Store for Late {
    fn get<R>(
        &self,
        _key: &[u8],
        _now: impl FnOnce(Option<Value<'_>>) -> R,
        later: impl FnOnce() -> ReadDone,
    ) -> Option<R> {
        let done = later();
        self.0.lock().push(Box::new(|| done(Ok(None))));
        None
    }

    fn update<U: Update>(
        &self,
        _key: &[u8],
        update: &mut U,
        later: impl FnOnce(&mut U) -> Box<dyn Pending>,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let update = later(update);
        self.0.lock().push(Box::new(|| update.done(Err(StoreError::NoSpace))));
        None
    }

    fn barrier(&self, _later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
        Some(Ok(()))
    }

    fn seq(&self) -> u64 {
        1
    }

    fn revision(&self) -> u64 {
        1
    }

    fn raise_revision(&self, _above: u64) {}

    fn deadlines(&self) -> usize {
        0
    }

    fn next_due(&self) -> Option<u64> {
        None
    }

    fn due(&self, _now: u64, _max: usize, _later: impl FnOnce() -> DueDone) -> Option<Due> {
        unreachable!("nothing ends")
    }

    fn len(&self) -> usize {
        0
    }

    fn bytes(&self) -> u64 {
        0
    }

    fn scan(&self, _part: Option<usize>, _shows: Shows) -> Box<dyn Scan> {
        Box::new(Nothing)
    }
}

struct Nothing;

impl Scan for Nothing {
    fn next_batch(&mut self, done: ScanDone) {
        let mut batch = Batch::default();
        batch.is_last = true;
        done(Ok(batch));
    }
}
