//! Calls of functions on other nodes (kernel, `erpc.erl`), over the node's own connections.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smol::Timer;
use smol::future::FutureExt;

use super::Node;
use super::peers::PeerHandle;
use crate::dist::{DistributionFlags, Outbound};
use crate::etf::{Pid, TermView, TermWriter};
use crate::process::Outcome;

/// Why a call gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErpcError {
    /// The node cannot be asked so: it does not take spawn requests.
    NotSupported,
    /// The connection was lost.
    NoConnection,
    /// No answer came in time.
    Timeout,
    /// The function failed, or the node refused; what it said, as text.
    Failed(String),
}

impl fmt::Display for ErpcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSupported => f.write_str("the node takes no spawn requests"),
            Self::NoConnection => f.write_str("the connection was lost"),
            Self::Timeout => f.write_str("no answer came in time"),
            Self::Failed(said) => write!(f, "it failed: {said}"),
        }
    }
}

impl std::error::Error for ErpcError {}

impl Node {
    /// Calls `module:function` on a connected node; gives the value, encoded. `arguments` writes `arity` terms.
    ///
    /// # Errors
    /// See [`ErpcError`].
    pub(super) async fn erpc(
        &self,
        peer: &PeerHandle,
        (module, function): (&str, &str),
        arity: usize,
        arguments: impl FnOnce(&mut TermWriter<'_>),
        limit: Duration,
    ) -> Result<Vec<u8>, ErpcError> {
        if !peer.offered.contains(DistributionFlags::SPAWN) {
            return Err(ErpcError::NotSupported);
        }
        let request_id = self.registry.new_reference();
        let (tell, told) = smol::channel::bounded(1);
        self.waiters.expect(&request_id, &peer.name, move |outcome| {
            // The caller may have given up.
            let _gone = tell.try_send(outcome);
        });
        let mut frames = Outbound::default();
        let from = &self.net_kernel_process.pid;
        let execute_call = ("erpc", "execute_call", 4);
        frames.spawn_request_monitored(&request_id, from, execute_call, |w| {
            w.list(4).reference(&request_id).atom(module).atom(function).list(arity);
            arguments(w);
            w.nil().nil();
        });
        peer.leave(|outbox| outbox.frames.append(&mut frames));
        // The connection may have ended before the wait began.
        let still_up = self.peers.get(&peer.name).is_some_and(|up| std::ptr::eq(&*up, peer));
        if !still_up {
            self.waiters.cancel(&request_id);
            return Err(ErpcError::NoConnection);
        }
        let outcome = async { told.recv().await.map_err(|_| ErpcError::NoConnection) }
            .or(async {
                Timer::after(limit).await;
                Err(ErpcError::Timeout)
            })
            .await;
        self.waiters.cancel(&request_id);
        match outcome? {
            Outcome::NoConnection => Err(ErpcError::NoConnection),
            Outcome::Refused(reason) => Err(ErpcError::Failed(show(&reason))),
            Outcome::Down(reason) => value(&reason).ok_or_else(|| ErpcError::Failed(show(&reason))),
        }
    }

    /// The pid that holds a name in `global` (an encoded term), asked at one node.
    pub(super) async fn global_whereis(
        &self,
        peer: &PeerHandle,
        name: &[u8],
        limit: Duration,
    ) -> Result<Option<Pid>, ErpcError> {
        self.pid_of(peer, ("global", "whereis_name"), name, limit).await
    }

    /// The pid that is registered under a name (an encoded term) on a node.
    pub(super) async fn whereis(
        &self,
        peer: &PeerHandle,
        name: &[u8],
        limit: Duration,
    ) -> Result<Option<Pid>, ErpcError> {
        self.pid_of(peer, ("erlang", "whereis"), name, limit).await
    }

    /// Calls a function of one name that gives a pid, or something else where there is none.
    async fn pid_of(
        &self,
        peer: &PeerHandle,
        function: (&str, &str),
        name: &[u8],
        limit: Duration,
    ) -> Result<Option<Pid>, ErpcError> {
        let argument = |w: &mut TermWriter<'_>| {
            w.raw(name);
        };
        let answer = self.erpc(peer, function, 1, argument, limit).await?;
        let term = TermView::parse(&answer).map_err(|error| ErpcError::Failed(error.to_string()))?;
        Ok(term.as_pid().map(Into::into))
    }

    /// The pid that holds a name in `global`, asked at every connected node: those that take part in `global`
    /// first, then those that may hold names themselves.
    pub(super) async fn whereis_global(&self, name: &[u8], limit: Duration) -> Option<Pid> {
        let mut peers: Vec<Arc<PeerHandle>> = self.peers.all();
        peers.retain(|peer| peer.name != self.registry.node);
        peers.sort_by_key(|peer| !peer.is_visible());
        for peer in peers {
            match self.global_whereis(&peer, name, limit).await {
                Ok(Some(pid)) => return Some(pid),
                Ok(None) => {}
                Err(error) => tracing::debug!(peer = %peer.name, %error, "global name not looked up"),
            }
        }
        let name = TermView::parse(name).ok()?.as_atom()?.to_str();
        self.registry.by_global_name(&name).map(|process| process.pid.clone())
    }
}

/// The value in `{Ref, return, Value}`.
fn value(reason: &[u8]) -> Option<Vec<u8>> {
    let [_reference, kind, value] = TermView::parse(reason).ok()?.as_tuple::<3>()?;
    kind.is_atom("return").then(|| value.bytes().to_vec())
}

fn show(reason: &[u8]) -> String {
    TermView::parse(reason).map_or_else(|error| error.to_string(), |term| format!("{term:?}"))
}
