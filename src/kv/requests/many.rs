//! An edit of several keys that looks at nothing, as a store carries it out: as a whole, or not at all.

use std::borrow::Cow;
use std::ops::Range;

use super::keys::{Keys, Pieces};
use super::outcome::Outcome;
use super::serve::{Asked, Changes};
use crate::etf::{TermError, TermView, Traits};
use crate::kv::write::check_value;
use crate::store::{Change, PendingMany, Store, StoreError, UpdateMany, Value, Written};

/// The keys, and what they get.
pub(super) struct Many<'a> {
    keys: Pieces,
    /// The term that the values stand in.
    pairs: Cow<'a, [u8]>,
    /// Where, with the traits of key and value; `None`: the keys go.
    values: Option<Vec<(Range<usize>, Traits)>>,
}

impl<'a> Many<'a> {
    /// Of the pairs of a term.
    pub(super) fn putting(
        whole: TermView<'a>,
        pairs: Vec<(TermView<'a>, TermView<'a>)>,
    ) -> Result<Self, TermError> {
        let mut keys = Keys::default();
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let value = check_value(key, value)?;
            let at = value.bytes().as_ptr() as usize - whole.bytes().as_ptr() as usize;
            let value = (at..at + value.bytes().len(), value.traits());
            match keys.insert(key)? {
                (_, true) => values.push(value),
                // The last counts.
                (at, false) => values[at] = value,
            }
        }
        Ok(Self { keys: keys.into_pieces(), pairs: Cow::Borrowed(whole.bytes()), values: Some(values) })
    }

    pub(super) fn deleting(keys: Vec<TermView<'_>>) -> Result<Self, TermError> {
        let mut all = Keys::default();
        for key in keys {
            all.insert(key)?;
        }
        Ok(Self { keys: all.into_pieces(), pairs: Cow::Borrowed(&[]), values: None })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }

    fn kept(&self) -> Many<'static> {
        let pairs = Cow::Owned(self.pairs.to_vec());
        Many { keys: self.keys.clone(), pairs, values: self.values.clone() }
    }

    /// What becomes of the key at a place.
    fn change(&self, at: usize) -> Change<'_> {
        match self.values.as_ref().map(|values| values.get(at)) {
            None => Change::Delete,
            Some(None) => Change::Keep,
            Some(Some((range, traits))) => {
                let bytes = self.pairs.get(range.clone()).unwrap_or_default();
                Change::Put(Value { bytes, shared: None, traits: *traits })
            }
        }
    }
}

impl UpdateMany for Many<'_> {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, _present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        for at in 0..self.keys.len() {
            change(at, self.change(at));
        }
    }
}

impl Changes for Many<'_> {
    fn hand_to<S: Store>(
        &mut self,
        store: &S,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let keys = self.keys.clone();
        store.update_many(&keys.slices(), self, |many| Box::new(Later { many: many.kept(), asked: asked() }))
    }

    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R {
        let changes = self.keys.iter().enumerate().map(|(at, key)| (key, self.change(at)));
        with(&changes.collect::<Vec<_>>())
    }

    fn traits(&self) -> Traits {
        Traits::none()
    }

    fn needs(&self) -> Traits {
        let traits = self.values.iter().flatten().map(|(_, traits)| *traits);
        traits.fold(Traits::none(), Traits::union)
    }

    fn into_outcome(self) -> Outcome {
        Outcome::OK
    }
}

/// The same for a store that carries it out later.
struct Later {
    many: Many<'static>,
    asked: Asked,
}

impl UpdateMany for Later {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        self.many.decide(present, change);
    }
}

impl PendingMany for Later {
    fn bytes(&self) -> usize {
        self.many.pairs.len()
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        self.asked.done(result, Outcome::OK);
    }
}
