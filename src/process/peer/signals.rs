//! Exit signals to our processes, and their ends.

use std::sync::Arc;

use super::super::gen_server::ExitSignals;
use super::super::{Effect, Held, Process, exits};
use super::{FoundProcess, Frame, Peer, PeerError, Surroundings};
use crate::distribution::control::Reason;
use crate::distribution::{FrameForm, Outbound};
use crate::etf::{Pid, PidView, TermView};

/// An exit signal to one of our processes.
#[derive(Clone, Copy)]
pub(super) struct ExitSignal<'a> {
    pub(super) from: &'a Pid,
    /// Encoded.
    pub(super) reason: &'a [u8],
    /// By a link, and not by `exit/2`.
    pub(super) linked: bool,
}

impl Peer {
    /// The connection is lost: what it holds goes elsewhere, and the exit signals of its links arrive, with the reason `noconnection`.
    pub fn connection_lost(&mut self, around: Surroundings<'_>, later: &mut Vec<Effect>) {
        if !self.held.is_empty() {
            later.push(Effect::Orphaned(Box::new(std::mem::take(&mut self.held))));
        }
        let noconnection = exits::atom("noconnection");
        // Nobody reads any more what would be answered here.
        let mut out = Outbound::default();
        for (id, remotes) in self.links.take() {
            for remote in remotes {
                // The first signal may end it.
                let Some(process) = around.registry.by_id(id) else { break };
                if process.server.exit_signals() == ExitSignals::Ignore {
                    break;
                }
                let from = remote.on(Arc::clone(&self.name));
                let signal = ExitSignal { from: &from, reason: &noconnection, linked: true };
                if let Err(error) = self.exit_process(process, signal, around, &mut out, later) {
                    tracing::error!(%error, "a signal of our own is malformed (a bug: please report it)");
                }
            }
        }
        for id in std::mem::take(&mut self.attached) {
            if let Some(process) = around.registry.by_id(id) {
                process.detach(&self.name);
            }
        }
    }

    /// Takes over what a lost connection held, to be delivered by [`deliver_held`](Self::deliver_held).
    pub fn adopt(&mut self, orphans: Box<Held>, around: Surroundings<'_>) {
        let (name, attached) = (&self.name, &mut self.attached);
        let dropped = self.held.adopt(*orphans, around.held_bytes_max, |process| {
            attached.insert(process.id);
            process.attach(name);
            process.add_holder(name);
        });
        if dropped > 0 {
            tracing::warn!(dropped, "too much waits for suspended processes: messages of lost nodes dropped");
        }
    }

    pub(super) fn exit_signal(
        &mut self,
        to_pid: &PidView<'_>,
        signal: ExitSignal<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        match around.registry.by_pid(to_pid) {
            Some(process) => self.exit_process(process, signal, around, out, later),
            None => Ok(()),
        }
    }

    /// erlang, exit/2 and "Exit Signals" in the reference manual's "Processes".
    pub(super) fn exit_process(
        &mut self,
        process: Arc<Process>,
        signal: ExitSignal<'_>,
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) -> Result<(), PeerError> {
        let reason = TermView::parse(signal.reason)?;
        let handling = process.server.exit_signals();
        if handling == ExitSignals::Ignore {
            tracing::warn!(process = ?process, from = ?signal.from, ?reason, "exit signal to a process of the node ignored");
        } else if !signal.linked && reason.is_atom("kill") {
            self.end(&process, &exits::atom("killed"), around, out, later);
        } else if handling == ExitSignals::Trap {
            let message = crate::etf::encode(|w| {
                w.tuple(3).atom("EXIT").pid(signal.from).term(reason);
            });
            let frame = Frame::small(&[], FrameForm::PassThrough);
            return self.deliver(FoundProcess { process, name: None }, &message, frame, around, out, later);
        } else if !reason.is_atom("normal") {
            self.end(&process, signal.reason, around, out, later);
        }
        Ok(())
    }

    /// Ends a process of ours: at once for every signal that comes after, on this connection for all its watchers,
    /// and by an effect everywhere else.
    pub(super) fn end(
        &mut self,
        process: &Process,
        reason: &[u8],
        around: Surroundings<'_>,
        out: &mut Outbound,
        later: &mut Vec<Effect>,
    ) {
        let Some(ended) = exits::end(around.registry, process, reason) else { return };
        for process in &ended.processes {
            self.process_ended(process.id, &ended.reason, around.registry, out);
        }
        later.push(Effect::Exited(ended));
    }

    /// The reason of an exit signal, which may go on to watchers on other nodes: as strict as a value that is stored.
    pub(super) fn passed_on(
        &mut self,
        reason: Reason<'_>,
        payload: &[u8],
        around: Surroundings<'_>,
    ) -> Result<Vec<u8>, PeerError> {
        let reason = self.reason(reason, payload, around)?;
        exits::check_reason(TermView::parse(&reason)?)?;
        Ok(reason)
    }
}
