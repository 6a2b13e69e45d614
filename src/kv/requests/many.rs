//! An edit of several keys that looks at nothing, as a store carries it out: as a whole, or not at all.

use std::borrow::Cow;
use std::ops::Range;

use super::keys::{Keys, Pieces};
use super::outcome::Outcome;
use super::serve::{Asked, Changes};
use crate::etf::{TermError, TermView, Traits};
use crate::kv::write::{Stamp, Write, check_value};
use crate::store::{Change, PendingMany, Store, StoreError, UpdateMany, Value, Written};

/// The keys, and what they get.
pub(in crate::kv) struct Many<'a> {
    keys: Pieces,
    gets: Gets<'a>,
}

/// What each of several keys gets.
enum Gets<'a> {
    /// So many get nothing: they go.
    Nothing(usize),
    Values {
        /// The term that the values stand in.
        pairs: Cow<'a, [u8]>,
        /// Where, with the traits of key and value.
        values: Vec<(Range<usize>, Traits)>,
        stamp: Stamp,
    },
    /// The same of a primary's write: each value has its own stamp, and where there is none the key goes.
    Replicated { changes: Cow<'a, [u8]>, values: Vec<Option<(Range<usize>, Traits, Stamp)>> },
}

impl<'a> Many<'a> {
    /// Of the pairs of a term.
    pub(super) fn putting(
        whole: TermView<'a>,
        pairs: Vec<(TermView<'a>, TermView<'a>)>,
        stamp: Stamp,
    ) -> Result<Self, TermError> {
        let mut keys = Keys::default();
        let mut values = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            let value = check_value(key, value)?;
            let value = (part_of(whole, value), value.traits());
            match keys.insert(key)? {
                (_, true) => values.push(value),
                // The last counts.
                (at, false) => values[at] = value,
            }
        }
        let gets = Gets::Values { pairs: Cow::Borrowed(whole.bytes()), values, stamp };
        Ok(Self { keys: keys.into_pieces(), gets })
    }

    pub(super) fn deleting(keys: Vec<TermView<'_>>) -> Result<Self, TermError> {
        let mut all = Keys::default();
        for key in keys {
            all.insert(key)?;
        }
        let keys = all.into_pieces();
        Ok(Self { gets: Gets::Nothing(keys.len()), keys })
    }

    /// A write of the primary: these changes, which stand in a term.
    pub(in crate::kv) fn replicated(whole: TermView<'a>, writes: &[Write<'a>]) -> Result<Self, TermError> {
        let mut keys = Keys::default();
        let mut values = Vec::with_capacity(writes.len());
        for write in writes {
            let (key, value) = write.check()?;
            let value = value.map(|value| (part_of(whole, value), value.traits(), write.stamp()));
            match keys.insert(key)? {
                (_, true) => values.push(value),
                (at, false) => values[at] = value,
            }
        }
        let gets = Gets::Replicated { changes: Cow::Borrowed(whole.bytes()), values };
        Ok(Self { keys: keys.into_pieces(), gets })
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.keys.len() == 0
    }
}

/// Where a part of a term stands in that.
fn part_of(whole: TermView<'_>, part: TermView<'_>) -> Range<usize> {
    let from = part.bytes().as_ptr() as usize - whole.bytes().as_ptr() as usize;
    from..from + part.bytes().len()
}

impl Gets<'_> {
    fn kept(&self) -> Gets<'static> {
        match self {
            Self::Nothing(len) => Gets::Nothing(*len),
            Self::Values { pairs, values, stamp } => {
                Gets::Values { pairs: Cow::Owned(pairs.to_vec()), values: values.clone(), stamp: *stamp }
            }
            Self::Replicated { changes, values } => {
                Gets::Replicated { changes: Cow::Owned(changes.to_vec()), values: values.clone() }
            }
        }
    }

    /// What a slave's node has to decode to have them.
    fn needs(&self) -> Traits {
        match self {
            Self::Nothing(_) => Traits::none(),
            Self::Values { values, .. } => {
                values.iter().map(|(_, traits)| *traits).fold(Traits::none(), Traits::union)
            }
            Self::Replicated { values, .. } => {
                values.iter().flatten().map(|(_, traits, _)| *traits).fold(Traits::none(), Traits::union)
            }
        }
    }

    const fn len(&self) -> usize {
        match self {
            Self::Nothing(len) => *len,
            Self::Values { values, .. } => values.len(),
            Self::Replicated { values, .. } => values.len(),
        }
    }

    /// What becomes of the key at a place.
    fn change(&self, at: usize) -> Change<'_> {
        match self {
            Self::Nothing(_) => Change::Delete,
            Self::Values { pairs, values, stamp } => match values.get(at) {
                None => Change::Keep,
                Some((range, traits)) => {
                    let bytes = pairs.get(range.clone()).unwrap_or_default();
                    Change::Put(stamp.put_into(Value::of(bytes, *traits)))
                }
            },
            Self::Replicated { changes, values } => match values.get(at) {
                None => Change::Keep,
                Some(None) => Change::Delete,
                Some(Some((range, traits, stamp))) => {
                    let bytes = changes.get(range.clone()).unwrap_or_default();
                    Change::Put(stamp.put_into(Value::of(bytes, *traits)))
                }
            },
        }
    }
}

impl UpdateMany for Gets<'_> {
    fn looks(&self) -> bool {
        false
    }

    fn decide(&mut self, _present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        for at in 0..self.len() {
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
        let Self { keys, gets } = self;
        store.update_many(&keys.slices(), gets, |gets| Box::new(Later { gets: gets.kept(), asked: asked() }))
    }

    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R {
        let changes = self.keys.iter().enumerate().map(|(at, key)| (key, self.gets.change(at)));
        with(&changes.collect::<Vec<_>>())
    }

    fn traits(&self) -> Traits {
        Traits::none()
    }

    fn needs(&self) -> Traits {
        self.gets.needs()
    }

    fn into_outcome(self) -> Outcome {
        Outcome::OK
    }
}

/// The same for a store that carries it out later.
struct Later {
    gets: Gets<'static>,
    asked: Asked,
}

impl UpdateMany for Later {
    fn looks(&self) -> bool {
        self.gets.looks()
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        self.gets.decide(present, change);
    }
}

impl PendingMany for Later {
    fn bytes(&self) -> usize {
        match &self.gets {
            Gets::Nothing(_) => 0,
            Gets::Values { pairs, .. } => pairs.len(),
            Gets::Replicated { changes, .. } => changes.len(),
        }
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        let needs = self.gets.needs();
        self.asked.done(result, needs, Outcome::OK);
    }
}
