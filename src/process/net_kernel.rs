//! `net_kernel`: answers `Node.ping` and `:net_adm.ping`, and the processes that print on behalf of this node.
//!
//! A ping is what a person types first, and a call by a global name what is typed next. So the answer to a node
//! that has just connected is held back until our names are known there (a few milliseconds): after `:pong` the
//! names work.

use std::fmt;
use std::sync::{Arc, OnceLock};

use ahash::AHashMap;
use parking_lot::Mutex;

use super::group_leader::{self, Printed};
use super::{Caller, Dispatch, ExitSignals, GenServer, OwnedCaller, Turn};
use crate::etf::TermView;

/// Callers of one node that may be held back; any more are answered at once, which is what all are without names of ours.
const HELD_MAX: usize = 64;

/// The server registered as `net_kernel` on every node.
#[derive(Default)]
pub struct NetKernel {
    /// The nodes whose pings are held back, with the callers that wait there.
    held: Mutex<AHashMap<Arc<str>, Vec<OwnedCaller>>>,
    /// The receiver of what functions print that are called on other nodes.
    printing: OnceLock<Print>,
}

/// Takes what a function has printed.
pub type Print = Box<dyn Fn(Printed) + Send + Sync>;

impl NetKernel {
    /// Has what functions print that are called on other nodes given to `print`, instead of the log. Said once.
    pub fn print_to(&self, print: Print) {
        _ = self.printing.set(print);
    }

    /// Holds pings of a node back, until [`release`](Self::release). Has to be followed by that.
    pub fn hold(&self, peer: &Arc<str>) {
        self.held.lock().entry(Arc::clone(peer)).or_default();
    }

    /// Answers what was held back.
    pub fn release(&self, peer: &str, dispatch: &dyn Dispatch) {
        let callers = self.held.lock().remove(peer).unwrap_or_default();
        for caller in callers {
            caller.reply(dispatch, |w| {
                w.atom("yes");
            });
        }
    }
}

impl GenServer for NetKernel {
    fn waits_for_room(&self) -> bool {
        true
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        // kernel, net_adm.erl, ping/1: gen:call({net_kernel, Node}, '$gen_call', {is_auth, node()}, infinity)
        let is_auth = request.as_tuple::<2>().is_some_and(|[tag, _node]| tag.is_atom("is_auth"));
        if !is_auth {
            turn.end_call(caller, |w| {
                w.tuple(2).atom("bad_call").term(request);
            });
            return;
        }
        if let Some(callers) = self.held.lock().get_mut(turn.peer)
            && callers.len() < HELD_MAX
        {
            callers.push(caller.to_owned(&turn.me.pid));
            return;
        }
        turn.reply(caller, |w| {
            w.atom("yes");
        });
    }

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}

    fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
        let peer = turn.peer;
        group_leader::handle(message, turn, |printed| match self.printing.get() {
            Some(print) => print(printed),
            None => tracing::info!(peer, ?printed, "a function that was called there has printed something"),
        });
    }

    fn exit_signals(&self) -> ExitSignals {
        ExitSignals::Ignore
    }
}

impl fmt::Debug for NetKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetKernel").field("held", &self.held.lock().len()).finish()
    }
}
