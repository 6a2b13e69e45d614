//! What a primary asks before it follows a slave: whether that is a kvnode's, and whether it wants to be one.

use std::fmt;

use super::ANSWER_LIMIT;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid, TermView};
use crate::kv::follow::SharedSource;
use crate::node::erpc::ErpcError;
use crate::process::CallError;
use crate::replica::dialect::{REPLICATION, VERSION};
use crate::replica::{Lineage, Refusal, Said, Slave};
use crate::{Client, ProcessHandle};

/// How a slave that was found is to be spoken to.
pub(super) enum Greeted {
    /// With the messages that every server of the protocol knows.
    Elixir,
    /// With numbered writes, by a primary that was said to be this one.
    Kvnode { session: u64, lineage: Lineage, said: Said },
    /// It does not become a slave of this store.
    Refused(Refusal),
}

/// Why nobody knows how a slave is to be spoken to.
#[derive(Debug)]
pub(super) enum NotGreeted {
    /// Its node does not say what it is.
    Erpc(ErpcError),
    /// It does not answer.
    Call(CallError),
    /// It answers otherwise than a kvnode of this version.
    Answer(OwnedTerm),
}

impl fmt::Display for NotGreeted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Erpc(error) => write!(f, "its node does not say what it is: {error}"),
            Self::Call(error) => write!(f, "it does not answer: {error}"),
            Self::Answer(answer) => write!(f, "it answers {answer:?} (a kvnode of another version?)"),
        }
    }
}

/// Greets a slave, where it is a kvnode's.
pub(super) async fn greet(
    slave: &Slave,
    source: &SharedSource,
    store: &ProcessHandle,
    client: &Client,
    at: &Pid,
) -> Result<Greeted, NotGreeted> {
    let Some(lineage) = source.lineage() else { return Ok(Greeted::Elixir) };
    if !is_kvnode(client, &at.node).await.map_err(NotGreeted::Erpc)? {
        return Ok(Greeted::Elixir);
    }
    let session = slave.next_session(lineage.incarnation());
    let (names, own) = (store.names(), store.node().name().shared());
    let (seq, slaves) = (source.seq(), source.slaves());
    let started_empty = slave.protects_data() && source.started_empty();
    let request = OwnedTerm::write(|w| {
        w.tuple(7).atom("replica_hello").unsigned(session);
        lineage.write(w);
        w.unsigned(seq);
        w.list(names.len());
        names.iter().for_each(|name| name.write(w));
        w.nil();
        w.list(slaves.len());
        slaves.iter().for_each(|slave| slave.name().on(&own).write(w));
        w.nil();
        w.atom(if started_empty { "true" } else { "false" });
    });
    let request = request.map_err(|error| NotGreeted::Call(CallError::Malformed(error)))?;
    let answer = match client.call_term(&ServerRef::Pid(at.clone()), request.view(), ANSWER_LIMIT).await {
        Ok(answer) => answer,
        // A server of a kvnode that is none of the protocol's ends the call.
        Err(CallError::Exit(_)) => return Ok(Greeted::Elixir),
        Err(error) => return Err(NotGreeted::Call(error)),
    };
    match read(answer.view()) {
        Some(Ok(said)) => Ok(Greeted::Kvnode { session, lineage, said }),
        Some(Err(refusal)) => {
            slave.not_taken(session);
            // Promoted meanwhile, say, it is no longer what was refused.
            let is_as_it_was = source.lineage().as_ref() == Some(&lineage);
            Ok(Greeted::Refused(if is_as_it_was { refusal } else { Refusal::Crossing }))
        }
        None => Err(NotGreeted::Answer(answer)),
    }
}

/// Whether a node is a kvnode whose replication this one speaks. A BEAM says that it has no such function.
pub(super) async fn is_kvnode(client: &Client, node: &str) -> Result<bool, ErpcError> {
    if *node == *client.from_pid().node {
        return Ok(true);
    }
    match client.erpc(node, REPLICATION, 0, |_| {}, ANSWER_LIMIT).await {
        Ok(version) => Ok(version.view().as_unsigned() == Some(VERSION)),
        Err(ErpcError::Error { .. } | ErpcError::Refused(_) | ErpcError::NotSupported) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A greeting that is under way, known to the store until it is dropped.
pub(super) struct GreetingUnderWay<'a>(&'a SharedSource);

impl<'a> GreetingUnderWay<'a> {
    pub(super) fn of(source: &'a SharedSource) -> Self {
        source.greeting(true);
        Self(source)
    }
}

impl Drop for GreetingUnderWay<'_> {
    fn drop(&mut self) {
        self.0.greeting(false);
    }
}

/// `{:ok, own, incarnation | :none, applied}`, with `:stepped_down` behind it from a former primary with slaves, or
/// `{:error, reason}`
fn read(answer: TermView<'_>) -> Option<Result<Said, Refusal>> {
    if let Some([error, reason]) = answer.as_tuple::<2>() {
        return error.is_atom("error").then(|| Refusal::of_code(reason).map(Err))?;
    }
    let former = answer.as_tuple::<5>();
    let former = former.filter(|[.., stepped_down]| stepped_down.is_atom("stepped_down"));
    let stepped_down = former.is_some();
    let [ok, own, had, applied] = match former {
        Some([ok, own, had, applied, _]) => [ok, own, had, applied],
        None => answer.as_tuple::<4>()?,
    };
    let (incarnation, applied) = (own.as_unsigned()?, applied.as_unsigned()?);
    let said = Said { incarnation, had: had.as_unsigned(), applied, stepped_down };
    ok.is_atom("ok").then_some(Ok(said))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn answers_to_a_greeting_are_told_apart() {
        let read = |write: fn(&mut crate::etf::TermWriter<'_>)| {
            read(TermView::parse(&encode(write)).expect("our own term"))
        };
        let said = |had| Said { incarnation: u64::MAX, had, applied: 3, stepped_down: false };
        let former = Said { stepped_down: true, ..said(None) };
        assert_eq!(
            read(|w| {
                w.tuple(5).atom("ok").unsigned(u64::MAX).atom("none").unsigned(3).atom("stepped_down");
            }),
            Some(Ok(former))
        );
        assert_eq!(
            read(|w| _ = w.tuple(4).atom("ok").unsigned(u64::MAX).atom("none").unsigned(3)),
            Some(Ok(said(None)))
        );
        assert_eq!(
            read(|w| _ = w.tuple(4).atom("ok").unsigned(u64::MAX).unsigned(9).unsigned(3)),
            Some(Ok(said(Some(9))))
        );
        assert_eq!(read(|w| _ = w.tuple(2).atom("error").atom("cycle")), Some(Err(Refusal::Cycle)));
        assert_eq!(read(|w| _ = w.tuple(2).atom("error").atom("other")), None);
        assert_eq!(read(|w| _ = w.atom("ok")), None);
    }
}
