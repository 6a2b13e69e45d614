//! A request as a term, and its answer.

use std::time::Duration;

use serde::Serialize;

use super::Expected;
use super::error::{Error, Refusal};
use crate::CallError;
use crate::distribution::ServerRef;
use crate::etf::{Atom, ConvertError, OwnedTerm, TermView, TermWriter, atom, to_term, write_term};
use crate::node::Client;

/// What `GenServer.call/2` waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// How a handle asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Options {
    pub(super) timeout: Duration,
    pub(super) confirm: Option<u32>,
    pub(super) ttl: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self { timeout: TIMEOUT, confirm: None, ttl: None }
    }
}

/// A request that is being written: a word and its parts.
pub(super) struct Request {
    word: &'static str,
    count: usize,
    parts: Result<Vec<u8>, ConvertError>,
}

impl Request {
    pub(super) const fn new(word: &'static str) -> Self {
        Self { word, count: 0, parts: Ok(Vec::new()) }
    }

    /// Adds a part.
    pub(super) fn part(mut self, part: &(impl Serialize + ?Sized)) -> Self {
        if let Ok(parts) = &mut self.parts {
            let written = write_term(part, &mut TermWriter::new(parts));
            self.count += 1;
            if let Err(error) = written {
                self.parts = Err(error);
            }
        }
        self
    }

    pub(super) fn expected<V: Serialize>(self, expected: Expected<'_, V>) -> Self {
        match expected {
            Expected::Value(value) => self.part(&(atom("value"), value)),
            Expected::Revision(revision) => self.part(&(atom("revision"), revision)),
            Expected::Absent => self.part(&atom("absent")),
        }
    }

    /// Adds the options that are given.
    pub(super) fn with(self, options: &Options) -> Self {
        let confirm = options.confirm.map(|slaves| (atom("confirm"), u64::from(slaves)));
        let ttl = options.ttl.map(|ttl| (atom("ttl"), ttl_of(ttl)));
        let given: Vec<_> = confirm.map(Given::Confirm).into_iter().chain(ttl.map(Given::Ttl)).collect();
        if given.is_empty() { self } else { self.part(&given) }
    }

    /// Addresses it.
    pub(super) fn to(self, client: Client, store: ServerRef, timeout: Duration) -> Asked {
        let Self { word, count, parts } = self;
        let term = parts.and_then(|parts| {
            // A word alone is an atom.
            if count == 0 {
                return to_term(&atom(word));
            }
            let mut term = Vec::with_capacity(parts.len() + word.len() + 8);
            TermWriter::new(&mut term).tuple(count + 1).atom(word);
            term.extend_from_slice(&parts);
            Ok(term)
        });
        Asked { client, store, timeout, term }
    }
}

/// A request with its sender and its receiver. It is sent once it is awaited.
pub(super) struct Asked {
    client: Client,
    store: ServerRef,
    timeout: Duration,
    term: Result<Vec<u8>, ConvertError>,
}

impl Asked {
    /// Its answer, where that is no refusal.
    pub(super) async fn answer<T>(self, read: fn(TermView<'_>) -> Result<T, Error>) -> Result<T, Error> {
        self.answer_or("", read).await
    }

    /// The same where a refusal with this word is an answer too.
    pub(super) async fn answer_or<T>(
        self,
        word: &str,
        read: fn(TermView<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = self.term_of_answer().await?;
        let is_answer =
            |reason: TermView<'_>| reason.as_tuple::<2>().is_some_and(|[first, _]| first.is_atom(word));
        match refused(answer.view()) {
            Some(reason) if !is_answer(reason) => Err(Refusal::read(reason).into()),
            _ => read(answer.view()),
        }
    }

    /// The answer of a write that is a value as it is, which may look like a refusal.
    pub(super) async fn answer_with_any<T>(
        self,
        read: fn(TermView<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = self.term_of_answer().await?;
        match refused(answer.view()).and_then(Refusal::of_write) {
            Some(refusal) => Err(refusal.into()),
            None => read(answer.view()),
        }
    }

    async fn term_of_answer(self) -> Result<OwnedTerm, CallError> {
        let term = self.term.map_err(CallError::Unwritable)?;
        let term = OwnedTerm::parse(term).map_err(CallError::Malformed)?;
        self.client.call_term(&self.store, term.view(), self.timeout).await
    }
}

/// A value as a term.
pub(super) fn written(value: &(impl Serialize + ?Sized)) -> Result<OwnedTerm, ConvertError> {
    Ok(OwnedTerm::parse(to_term(value)?).expect("what is written from a value is one term"))
}

/// An answer that is none of this request.
pub(super) fn unknown(answer: TermView<'_>) -> Error {
    Error::Unexpected(OwnedTerm::from(answer))
}

/// What `ttl:` is given: milliseconds, which are to be one at least, or `:infinity`.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum Ttl {
    Milliseconds(u64),
    Infinity(Atom),
}

pub(super) fn ttl_of(time: Duration) -> Ttl {
    match u64::try_from(time.as_millis()) {
        Ok(millis) => Ttl::Milliseconds(millis.max(1)),
        Err(_) => Ttl::Infinity(atom("infinity")),
    }
}

/// One of two options, which are pairs of a word and a value.
#[derive(Serialize)]
#[serde(untagged)]
enum Given {
    Confirm((Atom, u64)),
    Ttl((Atom, Ttl)),
}

/// The reason of `{:error, reason}`.
fn refused(answer: TermView<'_>) -> Option<TermView<'_>> {
    let [word, reason] = answer.as_tuple::<2>()?;
    word.is_atom("error").then_some(reason)
}
