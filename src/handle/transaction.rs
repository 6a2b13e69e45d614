//! Several changes at once, where what is expected is there.

use std::fmt;

use serde::Serialize;

use super::error::Error;
use super::request::{Request, unknown, written};
use super::{AsKey, Handle};
use crate::CallError;
use crate::etf::{ConvertError, OwnedTerm, TermView, atom, from_term};

/// Guards and changes, which [`commit`](Self::commit) has made all or none.
#[must_use = "nothing is done before it is committed"]
pub struct Transaction<'a, K, V> {
    handle: &'a Handle<K, V>,
    guards: Vec<OwnedTerm>,
    changes: Vec<OwnedTerm>,
    unwritable: Option<ConvertError>,
}

/// What has come of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "it may not have been done"]
pub enum Transacted {
    /// All changes are made. Of each that has added there is the sum, in their order; of the others `None`.
    Done(Vec<Option<i128>>),
    /// The guard with this place among the guards does not hold, counted from 0: nothing has changed.
    Failed(usize),
}

impl<'a, K, V> Transaction<'a, K, V> {
    pub(super) const fn new(handle: &'a Handle<K, V>) -> Self {
        Self { handle, guards: Vec::new(), changes: Vec::new(), unwritable: None }
    }

    fn guard(mut self, guard: &impl Serialize) -> Self {
        let guard = self.term(guard);
        self.guards.extend(guard);
        self
    }

    fn change(mut self, change: &impl Serialize) -> Self {
        let change = self.term(change);
        self.changes.extend(change);
        self
    }

    fn term(&mut self, value: &impl Serialize) -> Option<OwnedTerm> {
        written(value).map_err(|error| self.unwritable = Some(error)).ok()
    }

    /// Only where the key has this value, by `===`.
    pub fn if_equal<Q: AsKey<K> + ?Sized>(self, key: &Q, value: &V) -> Self
    where
        V: Serialize,
    {
        self.guard(&(atom("equal"), key, value))
    }

    /// Only where the key has the value of this revision.
    pub fn if_revision<Q: AsKey<K> + ?Sized>(self, key: &Q, revision: u64) -> Self {
        self.guard(&(atom("revision"), key, revision))
    }

    /// Only where the key has something.
    pub fn if_present<Q: AsKey<K> + ?Sized>(self, key: &Q) -> Self {
        self.guard(&(atom("present"), key))
    }

    /// Only where the key has nothing.
    pub fn if_absent<Q: AsKey<K> + ?Sized>(self, key: &Q) -> Self {
        self.guard(&(atom("absent"), key))
    }

    /// Puts a value.
    pub fn put<Q: AsKey<K> + ?Sized>(self, key: &Q, value: &V) -> Self
    where
        V: Serialize,
    {
        self.change(&(atom("put"), key, value))
    }

    /// Deletes a key.
    pub fn delete<Q: AsKey<K> + ?Sized>(self, key: &Q) -> Self {
        self.change(&(atom("delete"), key))
    }

    /// Adds to the integer of a key, or to 0 where nothing is there.
    pub fn add<Q: AsKey<K> + ?Sized>(self, key: &Q, by: i128) -> Self {
        self.change(&(atom("add"), key, by))
    }

    /// Has the store make all changes, or none.
    ///
    /// # Errors
    /// See [`Error`]. A guard that does not hold is none. Where a sum has more than 128 bits the answer is
    /// [unreadable](CallError::Unreadable), and all changes are made.
    pub fn commit(self) -> impl Future<Output = Result<Transacted, Error>> + Send + use<K, V> {
        let Self { handle, guards, changes, unwritable } = self;
        let asked = handle.put_by(Request::new("transact").part(&guards).part(&changes));
        async move {
            if let Some(error) = unwritable {
                return Err(CallError::Unwritable(error).into());
            }
            match asked.answer_or("failed", read).await? {
                Answer::Done(results) => Ok(Transacted::Done(results)),
                Answer::Failed(guard) => {
                    let at = guards.iter().position(|given| *given == guard);
                    at.map(Transacted::Failed).ok_or_else(|| unknown(guard.view()))
                }
            }
        }
    }
}

impl<K, V> fmt::Debug for Transaction<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("guards", &self.guards)
            .field("changes", &self.changes)
            .finish_non_exhaustive()
    }
}

enum Answer {
    Done(Vec<Option<i128>>),
    Failed(OwnedTerm),
}

/// `{:ok, results}` or `{:error, {:failed, guard}}`
fn read(answer: TermView<'_>) -> Result<Answer, Error> {
    let [word, what] = answer.as_tuple::<2>().ok_or_else(|| unknown(answer))?;
    if word.is_atom("ok") {
        let results: Vec<OwnedTerm> = from_term(what)?;
        let sum = |result: &OwnedTerm| match result.view() {
            result if result.is_atom("ok") => Ok(None),
            result => from_term(result).map(Some),
        };
        return Ok(Answer::Done(results.iter().map(sum).collect::<Result<_, _>>()?));
    }
    let [_, guard] = what.as_tuple::<2>().ok_or_else(|| unknown(answer))?;
    Ok(Answer::Failed(OwnedTerm::from(guard)))
}
