//! Writes that look at nothing, as updates.

use super::{Change, OwnedValue, Pending, Store, StoreError, Update, Value, WriteDone, Written};

/// What is written, whatever is there.
struct Anyway<'a>(Change<'a>);

impl Update for Anyway<'_> {
    fn decide(&mut self, _present: Option<Value<'_>>) -> Change<'_> {
        self.0
    }
}

/// The same, for a store that carries it out later.
struct Later {
    /// `None`: it deletes.
    value: Option<OwnedValue>,
    done: WriteDone,
}

impl Update for Later {
    fn decide(&mut self, _present: Option<Value<'_>>) -> Change<'_> {
        self.value.as_ref().map_or(Change::Delete, |value| Change::Put(value.value()))
    }
}

impl Pending for Later {
    fn bytes(&self) -> usize {
        self.value.as_ref().map_or(0, |value| value.bytes.len())
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        // It is never decided to keep what is there.
        (self.done)(result.and_then(|written| written.ok_or(StoreError::Io("unknown"))));
    }
}

/// Carries out a change as an update that looks at nothing.
pub(super) fn anyway<S: Store + ?Sized>(
    store: &S,
    key: &[u8],
    change: Change<'_>,
    later: impl FnOnce() -> WriteDone,
) -> Option<Result<u64, StoreError>> {
    let pending = |update: &mut Anyway<'_>| -> Box<dyn Pending> {
        let value = match update.0 {
            Change::Put(value) => Some(value.to_owned()),
            Change::Keep | Change::Delete => None,
        };
        Box::new(Later { value, done: later() })
    };
    let written = store.update(key, &mut Anyway(change), pending)?;
    Some(written.and_then(|seq| seq.ok_or(StoreError::Io("unknown"))))
}
