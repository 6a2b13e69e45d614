//! Answers that come later, and how each kind of caller is answered.

use std::fmt;
use std::sync::Arc;

use super::exception::Exception;
use super::functions::decodable;
use super::write_error_reason;
use crate::distribution::{DistributionFlags, Outbound};
use crate::etf::{Pid, TermView, TermWriter, encode};
use crate::process::{Caller, Dispatch, GenServer, NoRoom, OwnedCaller, Process, Turn};

/// How a call is answered.
#[derive(Clone, Debug)]
pub(in crate::process) enum ReturnTo {
    /// By the exit reason that kernel, erpc.erl, execute_call/4 makes; the reference is the caller's, encoded.
    ErpcCall { reference: Box<[u8]> },
    /// Not at all; erpc.erl, execute_cast/3.
    ErpcCast,
    /// By how a process ends that has called the function.
    Spawn,
    /// By `{rex, Result}` to this pid.
    RexMessage { pid: Pid },
    /// By the reply of `rex`.
    RexCall { caller: OwnedCaller },
}

impl ReturnTo {
    /// The exit reason of the process that has run the function, encoded.
    pub(super) fn reason(&self, result: Result<Vec<u8>, Exception>) -> Vec<u8> {
        encode(|w| match self {
            Self::ErpcCall { reference } => write_erpc(w, reference, &result),
            Self::ErpcCast => write_cast_end(w, &result),
            Self::Spawn => write_end(w, &result),
            // Whatever became of it is in the answer.
            Self::RexMessage { .. } | Self::RexCall { .. } => _ = w.atom("normal"),
        })
    }
}

/// kernel, erpc.erl, execute_call/4
fn write_erpc(w: &mut TermWriter<'_>, reference: &[u8], result: &Result<Vec<u8>, Exception>) {
    match result {
        Ok(value) => w.tuple(3).raw(reference).atom("return").raw(value),
        Err(Exception::Error { reason, stack }) => {
            w.tuple(4).raw(reference).atom("error").raw(reason).raw(stack)
        }
        Err(Exception::Exit(reason)) => w.tuple(3).raw(reference).atom("exit").raw(reason),
        Err(Exception::Throw(value)) => w.tuple(3).raw(reference).atom("throw").raw(value),
        Err(Exception::Signal(reason)) => w.raw(reason),
    };
}

/// kernel, erpc.erl, execute_cast/3: an error is raised once more, in the shape that a call would give to it.
fn write_cast_end(w: &mut TermWriter<'_>, result: &Result<Vec<u8>, Exception>) {
    if let Err(Exception::Error { reason, stack }) = result {
        w.tuple(2).tuple(2).atom("exception").tuple(2).raw(reason).raw(stack);
        w.list(1).tuple(4).atom("erpc").atom("execute_cast").integer(3).nil().nil();
    } else {
        write_end(w, result);
    }
}

/// How a process ends whose function has returned or raised.
fn write_end(w: &mut TermWriter<'_>, result: &Result<Vec<u8>, Exception>) {
    match result {
        Ok(_) => _ = w.atom("normal"),
        Err(Exception::Error { reason, stack }) => write_error_reason(w, reason, stack),
        Err(Exception::Exit(reason) | Exception::Signal(reason)) => _ = w.raw(reason),
        Err(Exception::Throw(value)) => {
            w.tuple(2).tuple(2).atom("nocatch").raw(value);
            w.list(1).tuple(4).atom("erts_internal").atom("dist_spawn_init").integer(1).nil().nil();
        }
    }
}

/// kernel, rpc.erl, execute_call/3: what `rex` answers.
pub(super) fn write_rex(w: &mut TermWriter<'_>, result: &Result<Vec<u8>, Exception>) {
    match result {
        Ok(value) | Err(Exception::Throw(value)) => _ = w.raw(value),
        Err(exception) => {
            w.tuple(2).atom("badrpc").tuple(2).atom("EXIT");
            match exception {
                Exception::Error { reason, stack } => write_error_reason(w, reason, stack),
                Exception::Exit(reason) | Exception::Signal(reason) | Exception::Throw(reason) => {
                    _ = w.raw(reason);
                }
            }
        }
    }
}

/// A call whose answer comes later. Dropped without one, the call fails with the exit reason `killed`.
pub struct Deferred {
    process: Arc<Process>,
    dispatch: Arc<dyn Dispatch>,
    flags: DistributionFlags,
    /// `None`: answered.
    return_to: Option<ReturnTo>,
}

impl Deferred {
    pub(super) const fn new(
        process: Arc<Process>,
        dispatch: Arc<dyn Dispatch>,
        return_to: ReturnTo,
        flags: DistributionFlags,
    ) -> Self {
        Self { process, dispatch, flags, return_to: Some(return_to) }
    }

    /// The process that the function runs in, as the caller sees it.
    pub fn pid(&self) -> &Pid {
        &self.process.pid
    }

    /// Whether no caller waits any more: its node is gone, or the process was killed.
    pub fn is_cancelled(&self) -> bool {
        !self.process.is_alive()
    }

    /// Gives the answer: the function's value, encoded, or what it raised. To a caller that waits no more nothing is
    /// said.
    pub fn answer(mut self, result: Result<Vec<u8>, Exception>) {
        self.finish(result);
    }

    fn finish(&mut self, result: Result<Vec<u8>, Exception>) {
        let Some(return_to) = self.return_to.take() else { return };
        if self.is_cancelled() {
            return;
        }
        let result = decodable(result, self.flags);
        match &return_to {
            ReturnTo::RexMessage { pid } => {
                let mut frames = Outbound::default();
                frames.send(pid, |w| {
                    w.tuple(2).atom("rex");
                    write_rex(w, &result);
                });
                if self.dispatch.send(&pid.node, &mut frames).is_err() {
                    tracing::warn!(to = ?pid, "an answer of rex is dropped: {NoRoom}");
                }
            }
            ReturnTo::RexCall { caller } => {
                caller.clone().reply(&*self.dispatch, |w| write_rex(w, &result));
            }
            ReturnTo::ErpcCall { .. } | ReturnTo::ErpcCast | ReturnTo::Spawn => {}
        }
        self.dispatch.exit(self.process.id, &return_to.reason(result));
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        self.finish(Err(Exception::exit(|w| _ = w.atom("killed"))));
    }
}

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deferred").field("process", &self.process).finish_non_exhaustive()
    }
}

/// The process in which a deferred function runs, as others see it. It takes no messages.
#[derive(Debug)]
pub(super) struct Task;

impl GenServer for Task {
    fn handle_call(&self, _request: TermView<'_>, _caller: &Caller<'_>, _turn: &mut Turn<'_>) {}

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}
}
