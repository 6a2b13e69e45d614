//! Who waits for the answer to a call that a [`Server`](super::Server) got.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use smol::future::FutureExt;

use super::process_handle::exit_reason;
use super::{Node, after, typed};
use crate::etf::TermWriter;
use crate::process::effect::can_decode;
use crate::process::{OwnedCaller, ProcessId};

/// A call that is dropped by a panic ends after so long, unless the panic has ended its server.
const PANIC_TOLD_WITHIN: Duration = Duration::from_secs(1);

/// Who waits for the answer to a call: the `from` of `handle_call`.
///
/// It may be answered at once, or kept and answered later, from any thread or task. Dropped without an answer it ends
/// the call: the caller exits with the reason `:noreply` instead of waiting for its time-out.
#[must_use = "the caller waits for an answer"]
pub struct ReplyTo {
    /// Gone when the call is answered.
    caller: Option<OwnedCaller>,
    process: ProcessId,
    node: Weak<Node>,
}

impl ReplyTo {
    pub(super) fn new(caller: OwnedCaller, process: ProcessId, node: &Arc<Node>) -> Self {
        Self { caller: Some(caller), process, node: Arc::downgrade(node) }
    }

    /// Answers the call. A value that cannot be written as a term, or that the caller's OTP version cannot decode
    /// (which would cost its node the connection to us), ends the call with a reason that says so.
    pub fn reply(mut self, value: &(impl Serialize + ?Sized)) {
        let (Some(caller), Some(node)) = (self.caller.take(), self.node.upgrade()) else { return };
        let refusal: String = match typed::term_of(value) {
            Ok(term) => {
                let traits = term.view().traits();
                if node.peers.get(caller.node()).is_none_or(|peer| can_decode(peer.offered, traits)) {
                    caller.reply(&*node, |w| {
                        w.term(term.view());
                    });
                    return;
                }
                "this OTP version cannot decode the answer".into()
            }
            Err(error) => {
                tracing::error!(%error, "an answer cannot be written as a term; its call ends");
                error.to_string()
            }
        };
        self.caller = Some(caller);
        self.end(|w| {
            w.tuple(2).atom("badarg").binary(refusal.as_bytes());
        });
    }

    /// Ends the call without an answer: the caller exits with `reason`. A call that was made without a monitor waits
    /// for its time-out, as with a GenServer that ends.
    pub fn end_call(mut self, reason: &(impl Serialize + ?Sized)) {
        let reason = exit_reason(reason);
        self.end(|w| {
            w.term(reason.view());
        });
    }

    /// As [`end_call`](Self::end_call), with a reason that is written out.
    pub(super) fn end_with(mut self, reason: impl FnOnce(&mut TermWriter<'_>)) {
        self.end(reason);
    }

    fn end(&mut self, reason: impl FnOnce(&mut TermWriter<'_>)) {
        if let (Some(caller), Some(node)) = (self.caller.take(), self.node.upgrade()) {
            node.carry_out(&mut vec![caller.end(self.process, reason)]);
        }
    }
}

impl Drop for ReplyTo {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.end(|w| _ = w.atom("noreply"));
        } else if let Some(node) = self.node.upgrade() {
            // By the panic of its server, most likely: then the caller is told of that, as all who watch the server.
            let (process, node_of) = (self.process, self.node.clone());
            let left = Self { caller: self.caller.take(), process, node: node_of };
            let ended = node.end_of(process);
            node.spawn(async move {
                ended.or(after(PANIC_TOLD_WITHIN)).await;
                drop(left);
            });
        }
    }
}

impl fmt::Debug for ReplyTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ReplyTo").field(&self.caller).finish()
    }
}
