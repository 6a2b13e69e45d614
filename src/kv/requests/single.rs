//! An edit of one key, as a store carries it out: at once, or later.

use super::edit::{Act, Decision};
use super::outcome::{Outcome, Reader};
use super::serve::{Asked, Changes};
use crate::etf::{SharedBytes, TermView, Traits};
use crate::kv::write::shared_value;
use crate::process::Turn;
use crate::store::{Change, Pending, Store, StoreError, Update, Value, Written};

/// A value that a request has given, with the traits of its key too, and the number of the copy that is under way.
pub(super) enum Given<'a> {
    /// As it was received, and in memory that can be shared where it is large.
    Received(TermView<'a>, Option<SharedBytes>, u32),
    Kept(SharedBytes, Traits, u32),
}

impl<'a> Given<'a> {
    pub(super) fn new(value: TermView<'a>, copy: u32, turn: &Turn<'_>) -> Self {
        Self::Received(value, shared_value(value, turn), copy)
    }

    fn value(&self) -> Value<'_> {
        match self {
            Self::Received(value, shared, copy) => {
                let (shared, copy) = (shared.as_ref(), *copy);
                Value { shared, copy, ..Value::of(value.bytes(), value.traits()) }
            }
            Self::Kept(bytes, traits, copy) => {
                Value { shared: Some(bytes), copy: *copy, ..Value::of(bytes, *traits) }
            }
        }
    }

    /// The same, to be kept.
    pub(super) fn kept(&self) -> Given<'static> {
        let Value { bytes, shared, traits, copy, .. } = self.value();
        Given::Kept(shared.map_or_else(|| bytes.into(), SharedBytes::clone), traits, copy)
    }
}

/// What is done to one key, and what has come of it.
pub(super) struct Single<'a> {
    act: Act<'a>,
    key_traits: Traits,
    /// The number of the copy that is under way.
    copy: u32,
    reader: Reader,
    decision: Decision,
    outcome: Outcome,
}

impl<'a> Single<'a> {
    pub(super) const fn new(act: Act<'a>, key_traits: Traits, copy: u32, reader: Reader) -> Self {
        Self { act, key_traits, copy, reader, decision: Decision::Keep, outcome: Outcome::NIL }
    }

    fn kept(&self) -> Single<'static> {
        Single::new(self.act.kept(), self.key_traits, self.copy, self.reader.later())
    }

    /// What has been decided.
    fn change(&self) -> Change<'_> {
        match (self.decision, &self.outcome, self.act.given()) {
            (Decision::PutGiven, _, Some(given)) => Change::Put(given.value()),
            (Decision::PutAnswer, Outcome::Term(bytes), _) => {
                Change::Put(Value { copy: self.copy, ..Value::of(bytes, self.key_traits) })
            }
            (Decision::Delete, ..) => Change::Delete,
            _ => Change::Keep,
        }
    }
}

impl Update for Single<'_> {
    fn decide(&mut self, present: Option<Value<'_>>) -> Change<'_> {
        (self.decision, self.outcome) = self.act.decide(present, self.reader);
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
        match self.single.act.given() {
            Some(given) => given.value().traits,
            // A node that cannot decode a key does not have it.
            None if self.single.act.deletes() => Traits::none(),
            None => self.single.key_traits,
        }
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
        self.asked.done(result, self.single.outcome);
    }
}
