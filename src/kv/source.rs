//! A store as its slaves' repairs read it.
//!
//! A repair asks, and asks again where the answer comes later: what was read meanwhile is kept here until then, and forgotten
//! where it is no longer what a reader would find.

use std::collections::VecDeque;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::KeyValueServer;
use super::ranked::{Ranked, rank};
use crate::replica::planted::{Rule, planted};
use crate::replica::{Lineage, Present, PresentValue, Source, SourceRead};
use crate::store::{Batch, Owed, OwnedValue, ReadDone, Shows, Store, StoreError, Value, scan};

/// Values that were read and wait to be asked for again.
const VALUES_MAX: usize = 128;
/// Parts whose keys were read and wait to be asked for again.
const PARTS_MAX: usize = 16;

/// What is read for slaves of a store that answers later.
#[derive(Default)]
pub(super) struct Reads {
    values: Ranked<rank::Reads, AHashMap<Box<[u8]>, Found>>,
    /// The oldest first.
    parts: Ranked<rank::Reads, VecDeque<Part>>,
}

/// What a key has.
type Found = Read<Option<OwnedValue>>;

/// A part, with the last write that had gone on to the slaves when it began to be read.
type Part = (usize, u64, Read<Vec<Batch>>);

/// Something that is being read. The number tells it from an earlier reading of the same.
enum Read<T> {
    Asked(Arc<()>),
    Found(Result<T, StoreError>),
}

impl<T> Read<T> {
    fn is(&self, asked: &Arc<()>) -> bool {
        matches!(self, Self::Asked(known) if Arc::ptr_eq(known, asked))
    }
}

impl Reads {
    /// Any key may have changed: what was read is old. Under the order of writes.
    pub(super) fn clear(&self) {
        self.values.lock().clear();
        self.parts.lock().clear();
    }

    /// A key has changed: what was read of it is old. Under the order of writes.
    pub(super) fn forget(&self, key: &[u8]) {
        if !planted(Rule::RepairedRead) {
            self.values.lock().remove(key);
        }
    }
}

impl<S: Store> KeyValueServer<S> {
    /// Asks for a value, and shows it where it comes at once.
    fn read_value(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        let asked = Arc::new(());
        let now = self.store().get(
            key,
            |value| show(value.map(present)),
            || -> ReadDone {
                {
                    let mut values = self.confirmations.reads.values.lock();
                    if values.len() >= VALUES_MAX {
                        values.clear();
                    }
                    values.insert(key.into(), Read::Asked(Arc::clone(&asked)));
                }
                let (confirmations, key): (_, Box<[u8]>) = (Arc::clone(&self.confirmations), key.into());
                let asked = Arc::clone(&asked);
                let came = Owed::new(move |found| {
                    // Nobody wants it any more where the key has changed since.
                    if let Some(read) = confirmations.reads.values.lock().get_mut(&key)
                        && read.is(&asked)
                    {
                        *read = Read::Found(found);
                    }
                });
                Box::new(move |found| {
                    came.tell(found.map(|value| value.map(Value::to_owned)));
                })
            },
        );
        if now.is_some() { SourceRead::Shown } else { SourceRead::Later }
    }

    fn read_keys(&self, part: usize) -> Option<Result<Vec<Batch>, StoreError>> {
        let asked = Arc::new(());
        let begun = self.confirmations.order.seq();
        {
            let mut parts = self.confirmations.reads.parts.lock();
            parts.retain(|(known, ..)| *known != part);
            if parts.len() >= PARTS_MAX {
                parts.pop_front();
            }
            parts.push_back((part, begun, Read::Asked(Arc::clone(&asked))));
        }
        let batches = Arc::new(Mutex::new(Vec::new()));
        let (gathered, confirmations) = (Arc::clone(&batches), Arc::clone(&self.confirmations));
        let done = move |result: Result<(), StoreError>| {
            let found = result.map(|()| std::mem::take(&mut *gathered.lock()));
            let mut parts = confirmations.reads.parts.lock();
            if let Some((.., read)) = parts.iter_mut().find(|(.., read)| read.is(&asked)) {
                *read = Read::Found(found);
            }
        };
        let gather = move |batch: Batch| {
            batches.lock().push(batch);
            true
        };
        scan::each_batch(self.store().scan(Some(part), Shows::Keys), gather, done);
        self.take_keys(part, begun)
    }

    /// What was read of a part since a write; `None`: nothing, or not all yet.
    fn take_keys(&self, part: usize, since: u64) -> Option<Result<Vec<Batch>, StoreError>> {
        let mut parts = self.confirmations.reads.parts.lock();
        let is_it =
            |(known, begun, read): &Part| *known == part && *begun >= since && matches!(read, Read::Found(_));
        let at = parts.iter().position(is_it)?;
        match parts.remove(at)? {
            (.., Read::Found(found)) => Some(found),
            (.., Read::Asked(_)) => None,
        }
    }

    fn is_reading(&self, part: usize, since: u64) -> bool {
        let parts = self.confirmations.reads.parts.lock();
        parts.iter().any(|(known, begun, _)| *known == part && *begun >= since)
    }
}

/// As a repair is shown it.
const fn present(value: Value<'_>) -> Present<'_> {
    let Value { bytes: value, traits, revision, deadline, .. } = value;
    Present { value, traits, revision, deadline }
}

impl<S: Store> Source for KeyValueServer<S> {
    fn slaves_changed(&self) {
        self.note_slaves_quietly();
    }

    fn parts(&self) -> usize {
        self.store().parts()
    }

    fn keys(&self, part: usize, since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        let read = match self.take_keys(part, since) {
            None if !self.is_reading(part, since) => self.read_keys(part),
            read => read,
        };
        match read {
            Some(Ok(batches)) => {
                batches.iter().flat_map(Batch::iter).for_each(|(key, _)| show(key));
                // Deleted in the store, and not for the slaves yet.
                self.confirmations.order.each_kept_back(show);
                SourceRead::Shown
            }
            Some(Err(error)) => {
                tracing::error!(%error, "the keys of a store could not be read");
                SourceRead::Unreadable
            }
            None => SourceRead::Later,
        }
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        if S::AT_ONCE {
            return self.read_value(key, show);
        }
        if self.confirmations.order.keeps_back(key) && !planted(Rule::RepairInTurn) {
            return SourceRead::Later;
        }
        let found = {
            let mut values = self.confirmations.reads.values.lock();
            match values.get(key) {
                None => None,
                Some(Read::Asked(_)) => return SourceRead::Later,
                Some(Read::Found(_)) => values.remove(key),
            }
        };
        match found {
            Some(Read::Found(Ok(value))) => {
                show(value.as_ref().map(|value| present(value.value())));
                SourceRead::Shown
            }
            Some(Read::Found(Err(error))) => {
                tracing::error!(%error, "an entry cannot be sent to slaves");
                SourceRead::Unreadable
            }
            _ => self.read_value(key, show),
        }
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        let _order = self.confirmations.order.hold();
        run();
    }

    fn seq(&self) -> u64 {
        self.last_seq()
    }

    fn revision(&self) -> u64 {
        self.store().revision()
    }

    fn clock(&self) -> u64 {
        self.clock.now()
    }

    fn lineage(&self) -> Lineage {
        self.upstream.with(|machine| machine.lineage())
    }

    fn greeting(&self, is_under_way: bool) {
        self.upstream.with(|machine| machine.greeting(is_under_way));
    }

    fn started_empty(&self) -> bool {
        self.upstream.with(|machine| machine.started_empty())
    }

    fn len(&self) -> usize {
        self.store().len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::distribution::Outbound;
    use crate::etf::{Pid, encode};
    use crate::kv::follow::tests::now;
    use crate::kv::follow::{Follow, FollowSlave, Offer};
    use crate::process::effect::EndedCall;
    use crate::process::{Dispatch, NoRoom, ProcessId, WakeRequest};
    use crate::replica::downstream::{
        Answer, Chance, Input, KeysRead, Output, PartRead, Search, Siblings, Standpoint, Whereabouts,
    };
    use crate::replica::{SlaveName, Standing};
    use crate::store::{Done, Due, DueDone, Pending, Scan, ScanDone, Update, Value};

    struct Nowhere;

    impl Dispatch for Nowhere {
        fn send(&self, _node: &str, _frames: &mut Outbound) -> Result<(), NoRoom> {
            Ok(())
        }

        fn end_call(&self, _call: EndedCall) {}

        fn exit(&self, _process: ProcessId, _reason: &[u8]) {}
    }

    impl Follow for Nowhere {
        fn follow(&self, _slave: FollowSlave) {}

        fn offer(&self, _offer: Offer) {}

        fn wake(&self, _store: Pid, _request: WakeRequest) {}

        fn now(&self) -> Instant {
            now()
        }

        fn unix_ms(&self) -> u64 {
            0
        }
    }

    /// A store that answers later, and forgets to.
    struct Forgetful;

    impl Store for Forgetful {
        fn get<R>(
            &self,
            _key: &[u8],
            _now: impl FnOnce(Option<Value<'_>>) -> R,
            later: impl FnOnce() -> ReadDone,
        ) -> Option<R> {
            drop(later());
            None
        }

        fn update<U: Update>(
            &self,
            _key: &[u8],
            _update: &mut U,
            _later: impl FnOnce(&mut U) -> Box<dyn Pending>,
        ) -> Option<Result<Option<u64>, StoreError>> {
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
            Box::new(Self)
        }
    }

    impl Scan for Forgetful {
        fn next_batch(&mut self, _done: ScanDone) {}
    }

    /// Keys that a store has which answers every read later.
    const LATE_KEYS: u64 = 600;

    /// A store that answers every read later: when the test says so.
    #[derive(Default)]
    struct Late(Mutex<VecDeque<ReadDone>>);

    impl Store for Late {
        fn get<R>(
            &self,
            _key: &[u8],
            _now: impl FnOnce(Option<Value<'_>>) -> R,
            later: impl FnOnce() -> ReadDone,
        ) -> Option<R> {
            self.0.lock().push_back(later());
            None
        }

        fn update<U: Update>(
            &self,
            _key: &[u8],
            _update: &mut U,
            _later: impl FnOnce(&mut U) -> Box<dyn Pending>,
        ) -> Option<Result<Option<u64>, StoreError>> {
            unreachable!("nobody writes")
        }

        fn barrier(&self, _later: impl FnOnce() -> Done) -> Option<Result<(), StoreError>> {
            Some(Ok(()))
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

        fn seq(&self) -> u64 {
            1
        }

        fn len(&self) -> usize {
            LATE_KEYS as usize
        }

        fn bytes(&self) -> u64 {
            0
        }

        fn scan(&self, _part: Option<usize>, _shows: Shows) -> Box<dyn Scan> {
            Box::new(AllKeys)
        }
    }

    struct AllKeys;

    impl Scan for AllKeys {
        fn next_batch(&mut self, done: ScanDone) {
            let mut batch = Batch::default();
            (0..LATE_KEYS).for_each(|key| batch.push(&encode(|w| _ = w.unsigned(key)), None));
            batch.is_last = true;
            done(Ok(batch));
        }
    }

    #[test]
    fn a_copy_comes_to_its_end_where_every_read_is_answered_later() {
        let server =
            KeyValueServer::new(Late::default(), Arc::new(Nowhere), Arc::new(Nowhere), 1 << 20).shared();
        let slave = server.add_slave(SlaveName::global("s")).expect("there is room").expect("it is none");
        let hand = |input| slave.machine().handle(input, now());
        let answer = |question, answer| {
            let lineage = Source::lineage(&*server);
            let store = Standpoint {
                lineage,
                seq: 1,
                started_empty: false,
                slaves: Vec::new(),
                siblings: Siblings::default(),
                clock: 0,
            };
            hand(Input::Answered { question, answer, store });
        };
        hand(Input::Begin(Search {
            pause_first: Duration::ZERO,
            pause_max: Duration::ZERO,
            is_awaited: false,
            chance: Chance(Box::new(|_| 0)),
        }));
        hand(Input::Timeout);
        let at = Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 };
        hand(Input::Located { question: 1, found: Ok(Whereabouts::At(at)) });
        hand(Input::Watched { question: 2, watched: Ok(()) });
        answer(3, Answer::Dialect(Ok(false)));
        answer(4, Answer::Kind(Ok(None)));
        hand(Input::KeysRead { question: 5, read: KeysRead::default() });
        for _ in 0..20 * LATE_KEYS {
            loop {
                let output = slave.machine().poll_output();
                match output {
                    Some(Output::Repair) => slave.repair(&*server),
                    Some(Output::ReadPart { scan, part, since }) => {
                        let mut keys = Vec::new();
                        server.keys(part, since, &mut |key| keys.push(key.into()));
                        let read = PartRead::Keys { keys, parts: 1, total: LATE_KEYS, is_damaged: false };
                        hand(Input::PartRead { scan, part, read });
                    }
                    Some(_) => {}
                    None => break,
                }
            }
            hand(Input::Timeout);
            // What was asked is answered by the next step.
            let read = server.store().0.lock().pop_front();
            if let Some(done) = read {
                done(Ok(None));
            }
        }
        assert!(matches!(slave.standing(), Standing::InStep { .. }), "{:?}", slave.standing());
    }

    #[test]
    fn a_read_that_the_store_forgets_ends_and_may_be_asked_for_again() {
        let server = KeyValueServer::new(Forgetful, Arc::new(Nowhere), Arc::new(Nowhere), 1 << 20);
        for _ in 0..3 {
            let keys = (0..2).map(|_| server.keys(0, 0, &mut |_| unreachable!("there is none")));
            assert!(keys.into_iter().any(|read| read == SourceRead::Unreadable));
            let values = (0..2).map(|_| server.read(b"k", &mut |_| unreachable!("there is none")));
            assert!(values.into_iter().any(|read| read == SourceRead::Unreadable));
        }
    }
}
