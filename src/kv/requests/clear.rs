//! `:clear`, as a store carries it out: at once, or later.

use super::outcome::Outcome;
use super::serve::{Asked, Changes};
use crate::etf::Traits;
use crate::store::{Change, Cleared, Store, StoreError, WriteDone};

/// All keys go.
#[derive(Default)]
pub(super) struct Clear {
    /// What a store that has answered at once leaves to do.
    pub(super) rest: Option<Box<dyn FnMut() -> bool + Send>>,
}

impl Changes for &mut Clear {
    fn hand_to<S: Store>(
        &mut self,
        store: &S,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let later = || -> WriteDone {
            let asked = asked();
            Box::new(move |result| asked.done(result.map(Some), Traits::none(), Outcome::OK))
        };
        let cleared = store.clear(later)?;
        Some(cleared.map(|Cleared { seq, rest }| {
            self.rest = rest;
            Some(seq)
        }))
    }

    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R {
        with(&[])
    }

    fn traits(&self) -> Traits {
        Traits::none()
    }

    fn needs(&self) -> Traits {
        // A slave that has nothing has all of it.
        Traits::none()
    }

    fn into_outcome(self) -> Outcome {
        Outcome::OK
    }
}
