//! An edit of one key, as a store carries it out: at once, or later.

use std::sync::Arc;

use super::edit::{Act, Decision};
use super::outcome::{Outcome, Reader};
use super::serve::{Asked, Changes};
use crate::etf::{SharedBytes, TermView, Traits};
use crate::kv::clock::Clock;
use crate::kv::write::{Stamp, shared_value};
use crate::process::Turn;
use crate::store::{Change, OwnedValue, Pending, Store, StoreError, Update, Value, Written};

/// A value that a request has given, with the traits of its key too.
pub(super) enum Given<'a> {
    /// As it was received, and in memory that can be shared where it is large.
    Received(TermView<'a>, Option<SharedBytes>, Stamp),
    Kept(OwnedValue),
}

impl<'a> Given<'a> {
    pub(super) fn new(value: TermView<'a>, stamp: Stamp, turn: &Turn<'_>) -> Self {
        Self::Received(value, shared_value(value, turn), stamp)
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Received(value, shared, stamp) => Value { shared: shared.as_ref(), ..stamp.of(*value) },
            Self::Kept(value) => value.value(),
        }
    }

    /// The same, to be kept.
    pub(super) fn kept(&self) -> Given<'static> {
        Given::Kept(self.value().to_owned())
    }
}

/// What is done to one key, and what has come of it.
pub(super) struct Single<'a> {
    act: Act<'a>,
    key_traits: Traits,
    /// The numbers that a counter's sum gets, and a value whose end is moved.
    stamp: Stamp,
    clock: Arc<Clock>,
    reader: Reader,
    decision: Decision,
    outcome: Outcome,
    /// What was there, where that stays and its end does not.
    present: Option<OwnedValue>,
    /// When what was there ends.
    ends: u64,
}

impl<'a> Single<'a> {
    pub(super) const fn new(
        act: Act<'a>,
        key_traits: Traits,
        stamp: Stamp,
        clock: Arc<Clock>,
        reader: Reader,
    ) -> Self {
        let (decision, outcome) = (Decision::Keep, Outcome::NIL);
        Self { act, key_traits, stamp, clock, reader, decision, outcome, present: None, ends: 0 }
    }

    fn kept(&self) -> Single<'static> {
        let (clock, reader) = (Arc::clone(&self.clock), self.reader.later());
        Single::new(self.act.kept(), self.key_traits, self.stamp, clock, reader)
    }

    /// What has been decided.
    fn change(&self) -> Change<'_> {
        match (self.decision, &self.outcome, self.act.given()) {
            (Decision::PutGiven, _, Some(given)) => Change::Put(given.value()),
            (Decision::PutAnswer, Outcome::Term(bytes), _) => {
                let kept = if self.act.keeps_end() { self.ends } else { self.stamp.deadline };
                let stamp = Stamp { deadline: kept, ..self.stamp };
                Change::Put(stamp.put_into(Value::of(bytes, self.key_traits)))
            }
            (Decision::PutPresent, ..) => match &self.present {
                Some(present) => Change::Put(self.stamp.put_into(present.value())),
                None => Change::Keep,
            },
            (Decision::Delete, ..) => Change::Delete,
            _ => Change::Keep,
        }
    }

    /// What a slave's node has to decode to have what was decided.
    fn needs(&self) -> Traits {
        match self.act.given() {
            Some(given) => given.value().traits,
            // A node that cannot decode a key does not have it.
            None if self.act.deletes() => Traits::none(),
            // What is there stays, and goes out again.
            None => {
                let present = self.present.as_ref().map_or(Traits::none(), |present| present.traits);
                self.key_traits.union(present)
            }
        }
    }
}

impl Update for Single<'_> {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        let present = self.clock.shown(present);
        (self.decision, self.outcome) = self.act.decide(present, self.reader);
        self.ends = present.map_or(0, |present| present.deadline);
        self.present = present.filter(|_| self.decision == Decision::PutPresent).map(Value::to_owned);
        self.change()
    }
}

/// The same of a key.
pub(super) struct OfKey<'k, 'a> {
    pub(super) key: &'k [u8],
    pub(super) single: Single<'a>,
}

impl Changes for OfKey<'_, '_> {
    fn hand_to<S: Store>(
        &mut self,
        store: &S,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Result<Option<u64>, StoreError>> {
        store.update(self.key, &mut self.single, |single| {
            Box::new(Later { single: single.kept(), asked: asked() })
        })
    }

    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R {
        with(&[(self.key, self.single.change())])
    }

    fn traits(&self) -> Traits {
        self.single.key_traits
    }

    fn needs(&self) -> Traits {
        self.single.needs()
    }

    fn into_outcome(self) -> Outcome {
        self.single.outcome
    }
}

/// The same for a store that carries it out later.
struct Later {
    single: Single<'static>,
    asked: Asked,
}

impl Update for Later {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        self.single.decide(present)
    }
}

impl Pending for Later {
    fn bytes(&self) -> usize {
        self.single.act.given().map_or(0, |given| given.value().bytes.len())
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        let needs = self.single.needs();
        self.asked.done(result, needs, self.single.outcome);
    }
}
