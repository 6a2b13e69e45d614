//! A request as a term, and its answer.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::Expected;
use super::error::{Error, Refusal};
use super::kind::Kinds;
use crate::CallError;
use crate::distribution::ServerRef;
use crate::etf::{Atom, ConvertError, OwnedTerm, TermView, TermWriter, atom, to_term, write_term};
use crate::node::Client;
use crate::within::within;

/// What `GenServer.call/2` waits.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Where requests go, and what is known of it.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) client: Client,
    pub(super) store: ServerRef,
    pub(super) timeout: Duration,
    pub(super) kinds: Kinds,
}

impl Target {
    pub(super) fn new(client: Client, store: ServerRef) -> Self {
        Self { client, store, timeout: TIMEOUT, kinds: Kinds::default() }
    }
}

/// What is wanted of writes, and of reads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Options {
    pub(super) confirm: Option<u32>,
    pub(super) ttl: Option<Duration>,
    /// The word for how new a read is.
    pub(super) consistency: Option<&'static str>,
}

/// A request that is being written: a word and its parts.
#[derive(Clone)]
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

    /// Adds the options that a write is given.
    pub(super) fn with(self, options: &Options) -> Self {
        let confirm = options.confirm.map(|slaves| (atom("confirm"), u64::from(slaves)));
        let ttl = options.ttl.map(|ttl| (atom("ttl"), ttl_of(ttl)));
        let given: Vec<_> = confirm.map(Given::Confirm).into_iter().chain(ttl.map(Given::Ttl)).collect();
        if given.is_empty() { self } else { self.part(&given) }
    }

    /// Adds the option that a read is given.
    pub(super) fn reading(self, options: &Options) -> Self {
        match options.consistency {
            // An array would be a tuple.
            Some(word) => self.part([(atom("consistency"), atom(word))].as_slice()),
            None => self,
        }
    }

    /// Addresses it.
    pub(super) fn to(self, target: Target) -> Asked {
        Asked { target, request: self }
    }

    /// Whether every server of the protocol knows it, an Elixir server too (docs/requests.md, "of Elixir servers").
    fn is_of_all(&self) -> bool {
        matches!((self.word, self.count), ("get" | "delete", 1) | ("put", 2))
    }

    fn term(&self) -> Result<OwnedTerm, CallError> {
        let parts = self.parts.as_ref().map_err(|error| CallError::Unwritable(error.clone()))?;
        let mut term = Vec::with_capacity(parts.len() + self.word.len() + 8);
        let mut w = TermWriter::new(&mut term);
        // A word alone is an atom.
        if self.count == 0 {
            w.atom(self.word);
        } else {
            w.tuple(self.count + 1).atom(self.word);
        }
        term.extend_from_slice(parts);
        OwnedTerm::parse(term).map_err(CallError::Malformed)
    }
}

/// A request with its sender and its receiver. It is sent once it is awaited.
pub(super) struct Asked {
    target: Target,
    request: Request,
}

/// Reads an answer.
type Read<T> = fn(TermView<'_>) -> Result<T, Error>;

impl Asked {
    /// Its answer, where that is no refusal.
    pub(super) async fn answer<T>(self, read: Read<T>) -> Result<T, Error> {
        self.answer_or("", read).await
    }

    /// The same where a refusal with this word is an answer too.
    pub(super) async fn answer_or<T>(self, word: &str, read: Read<T>) -> Result<T, Error> {
        let answer = self.term_of_answer().await?;
        answered(answer.view(), word, read)
    }

    /// Its answer, or that to a request with this word in the place of its own which every server knows, where the server is no
    /// kvnode's. That one is never refused.
    pub(super) async fn answer_or_ask<T>(
        self,
        word: &'static str,
        read: Read<T>,
        read_other: Read<T>,
    ) -> Result<T, Error> {
        let Self { target, request } = self;
        let other = Self { target: target.clone(), request: Request { word, ..request.clone() } };
        match (Self { target, request }).term_of_answer().await {
            Ok(answer) => answered(answer.view(), "", read),
            Err(Error::NotKvnode(_)) => read_other(other.term_of_answer().await?.view()),
            Err(error) => Err(error),
        }
    }

    /// The answer of a write that is a value as it is, which may look like a refusal.
    pub(super) async fn answer_with_any<T>(self, read: Read<T>) -> Result<T, Error> {
        let answer = self.term_of_answer().await?;
        match refused(answer.view()).and_then(Refusal::of_write) {
            Some(refusal) => Err(refusal.into()),
            None => read(answer.view()),
        }
    }

    async fn term_of_answer(self) -> Result<OwnedTerm, Error> {
        let Self { target: Target { client, store, timeout, kinds }, request } = self;
        let term = request.term()?;
        if request.is_of_all() {
            return Ok(client.call_term(&store, term.view(), timeout).await?);
        }
        let called = async {
            // The process that is asked is the one whose node was looked at, whatever becomes of the name meanwhile.
            let at = client.locate(&store).await?;
            if !kinds.is_kvnode(&client, at.node()).await? {
                return Err(Error::NotKvnode(Arc::clone(at.node())));
            }
            Ok(client.call_term(&at.into(), term.view(), Duration::MAX).await?)
        };
        within(timeout, called).await.unwrap_or(Err(CallError::Timeout.into()))
    }
}

fn answered<T>(answer: TermView<'_>, word: &str, read: Read<T>) -> Result<T, Error> {
    let is_answer =
        |reason: TermView<'_>| reason.as_tuple::<2>().is_some_and(|[first, _]| first.is_atom(word));
    match refused(answer) {
        Some(reason) if !is_answer(reason) => Err(Refusal::read(reason).into()),
        _ => read(answer),
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
