//! `:kvnode`, the process that says how the node is.
//!
//! `GenServer.call({:kvnode, node}, :status)` is answered with the [`Snapshot`](crate::program::Snapshot) as a map with atoms as
//! keys. A BEAM has no process of that name, so asking one ends at once with `noproc` and does no harm.

use std::sync::{Arc, Weak};

use super::Program;
use crate::config::ServerName;
use crate::etf::{TermView, write_term};
use crate::process::{Caller, GenServer, Restart, Turn};
use crate::{NotNamed, ProcessHandle};

/// The local name of the process.
pub const STATUS_NAME: &str = "kvnode";

struct Status(Weak<Program>);

impl Program {
    /// Starts the process `:kvnode`, which answers the call `:status` with the [`snapshot`](Self::snapshot) as a map. The
    /// `kvnode` program has one. It answers for as long as this value is held.
    ///
    /// # Errors
    /// The caller's: another process has the name, for instance a second one of these.
    pub fn serve_status(self: &Arc<Self>) -> Result<ProcessHandle, NotNamed> {
        let name = ServerName::local(STATUS_NAME);
        let this = Arc::downgrade(self);
        self.node().supervise(Restart::Permanent, [name], move |node| {
            node.serve_inline(Arc::new(Status(Weak::clone(&this))))
        })
    }
}

impl GenServer for Status {
    fn waits_for_room(&self) -> bool {
        true
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        match self.0.upgrade() {
            Some(program) if request.is_atom("status") => {
                let snapshot = program.snapshot();
                turn.reply(caller, |w| {
                    if write_term(&snapshot, w).is_err() {
                        // No text or number in it is one that a term cannot have.
                        w.atom("nil");
                    }
                });
            }
            _ => turn.end_call(caller, |w| {
                w.tuple(2).atom("bad_call").term(request);
            }),
        }
    }

    fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
}
