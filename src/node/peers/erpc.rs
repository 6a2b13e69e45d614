//! Calls of functions on other nodes (kernel, `erpc.erl`), over the node's own connections.

use std::time::Duration;

use crate::distribution::{DistributionFlags, Outbound, TooLarge};
use crate::etf::tag::NIL_EXT;
use crate::etf::{ConvertError, OwnedTerm, Reference, TermView, TermWriter};
use crate::node::Node;
use crate::node::peers::PeerHandle;
use crate::process::{Outcome, Waiters};
use crate::within::within;

/// Why a call of a function gave no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ErpcError {
    /// The node cannot be asked so: it does not take spawn requests.
    #[error("the node takes no spawn requests")]
    NotSupported,
    /// The connection is lost, or could not be set up. Whether the function ran is not known.
    #[error("the connection was lost")]
    NoConnection,
    /// No answer came in time. Whether the function ran is not known.
    #[error("no answer came in time")]
    Timeout,
    /// The function raised this, its fault or that of the arguments: `:undef` where there is no such function.
    #[error("it failed: {reason:?} at {stack:?}")]
    Error {
        /// What was raised.
        reason: OwnedTerm,
        /// Where: a stacktrace.
        stack: OwnedTerm,
    },
    /// The function threw this.
    #[error("it threw {0:?}")]
    Throw(OwnedTerm),
    /// The function exited with this reason.
    #[error("it exited: {0:?}")]
    Exit(OwnedTerm),
    /// The process that ran it was ended with this reason, or was never started.
    #[error("it did not run to its end: {0:?}")]
    Refused(OwnedTerm),
    /// It ran, and what it gave is over a bound of this node.
    #[error("its answer was not taken here: {0}")]
    TooLarge(TooLarge),
    /// The arguments cannot be written as terms, or are no tuple and no list: our misuse. Nothing was called.
    #[error("the arguments cannot be written as a list of terms: {0}")]
    Unwritable(ConvertError),
    /// The arguments have terms in them that the node is too old to decode: to send them would cost the connection. Nothing was called.
    #[error("the node runs an OTP version that cannot decode the arguments")]
    Undecodable,
    /// It ran, and what it gave is not what it was to be read as: a Rust type that does not say what the function gives.
    #[error("its value cannot be read: {0}")]
    Unreadable(ConvertError),
}

/// A spawn request that is under way. Dropping it forgets it: a late answer goes nowhere.
pub(in crate::node) struct SpawnWait<'a> {
    waiters: &'a Waiters,
    request_id: Reference,
}

impl Drop for SpawnWait<'_> {
    fn drop(&mut self) {
        self.waiters.cancel(&self.request_id);
    }
}

impl Node {
    /// Calls `module:function` on a connected node; gives the value. `arguments` writes `arity` terms.
    ///
    /// # Errors
    /// See [`ErpcError`].
    pub(in crate::node) async fn erpc(
        &self,
        peer: &PeerHandle,
        function: (&str, &str),
        arity: usize,
        arguments: impl FnOnce(&mut TermWriter<'_>),
        limit: Duration,
    ) -> Result<OwnedTerm, ErpcError> {
        let (tell, told) = smol::channel::bounded(1);
        let done = move |outcome| {
            // The caller may have given up.
            let _gone = tell.try_send(outcome);
        };
        let _wait = self.begin_erpc(peer, function, arity, arguments, done)?;
        let outcome = within(limit, told.recv()).await.ok_or(ErpcError::Timeout)?;
        value_of(outcome.map_err(|_| ErpcError::NoConnection)?)
    }

    /// Sends the request; `done` is called once with what becomes of it, unless the wait is dropped before.
    ///
    /// # Errors
    /// That it could not be sent.
    pub(in crate::node) fn begin_erpc(
        &self,
        peer: &PeerHandle,
        (module, function): (&str, &str),
        arity: usize,
        arguments: impl FnOnce(&mut TermWriter<'_>),
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> Result<SpawnWait<'_>, ErpcError> {
        if !peer.offered.contains(DistributionFlags::SPAWN) {
            return Err(ErpcError::NotSupported);
        }
        let request_id = self.registry.new_reference();
        self.waiters.expect(&request_id, &peer.name, done);
        let wait = SpawnWait { waiters: &self.waiters, request_id };
        let mut frames = Outbound::default();
        let from = &self.net_kernel_process.pid;
        frames.spawn_request_monitored(&wait.request_id, from, ("erpc", "execute_call", 4), |w| {
            w.list(4).reference(&wait.request_id).atom(module).atom(function).list(arity);
            arguments(w);
            w.nil().nil();
        });
        peer.leave(|outbox| outbox.frames.append(&mut frames));
        // The connection may have ended before the wait began.
        let still_up = self.peers.get(&peer.name).is_some_and(|up| std::ptr::eq(&*up, peer));
        if still_up { Ok(wait) } else { Err(ErpcError::NoConnection) }
    }
}

/// kernel, erpc.erl, result/4: the exit reason carries what the function gave.
///
/// # Errors
/// The function's or the node's: see [`ErpcError`].
pub(in crate::node) fn value_of(outcome: Outcome) -> Result<OwnedTerm, ErpcError> {
    let kept = |bytes: Vec<u8>| OwnedTerm::parse(bytes).map_err(|_| ErpcError::NoConnection);
    let reason = match outcome {
        Outcome::Replied(_) | Outcome::NoConnection => return Err(ErpcError::NoConnection),
        Outcome::TooLarge(size) => return Err(ErpcError::TooLarge(size)),
        Outcome::Refused(reason) => return Err(ErpcError::Refused(kept(reason)?)),
        Outcome::Down(reason) => kept(reason)?,
    };
    if let Some([_reference, kind, value]) = reason.view().as_tuple::<3>() {
        match kind.as_atom() {
            Some(kind) if kind == "return" => return Ok(value.into()),
            Some(kind) if kind == "throw" => return Err(ErpcError::Throw(value.into())),
            Some(kind) if kind == "exit" => return Err(ErpcError::Exit(value.into())),
            // erpc's own: {erpc, Reason}
            Some(kind) if kind == "error" => {
                let stack =
                    OwnedTerm::from(TermView::parse(&[NIL_EXT]).map_err(|_| ErpcError::NoConnection)?);
                return Err(ErpcError::Error { reason: value.into(), stack });
            }
            _ => {}
        }
    }
    if let Some([_reference, kind, reason, stack]) = reason.view().as_tuple::<4>()
        && kind.is_atom("error")
    {
        return Err(ErpcError::Error { reason: reason.into(), stack: stack.into() });
    }
    if reason.view().is_atom("noconnection") {
        return Err(ErpcError::NoConnection);
    }
    Err(ErpcError::Refused(reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::encode;

    #[test]
    fn every_end_of_a_spawned_call_is_told_apart() {
        let down = |write: fn(&mut TermWriter<'_>)| value_of(Outcome::Down(encode(write)));
        let atom = OwnedTerm::atom;
        assert_eq!(down(|w| _ = w.tuple(3).nil().atom("return").atom("x")), Ok(atom("x")));
        assert_eq!(down(|w| _ = w.tuple(3).nil().atom("throw").atom("x")), Err(ErpcError::Throw(atom("x"))));
        assert_eq!(down(|w| _ = w.tuple(3).nil().atom("exit").atom("x")), Err(ErpcError::Exit(atom("x"))));
        assert_eq!(
            down(|w| _ = w.tuple(4).nil().atom("error").atom("undef").atom("here")),
            Err(ErpcError::Error { reason: atom("undef"), stack: atom("here") })
        );
        assert_eq!(down(|w| _ = w.atom("noconnection")), Err(ErpcError::NoConnection));
        assert_eq!(down(|w| _ = w.atom("killed")), Err(ErpcError::Refused(atom("killed"))));
        let notsup = Outcome::Refused(atom("notsup").into_bytes());
        assert_eq!(value_of(notsup), Err(ErpcError::Refused(atom("notsup"))));
    }
}
