//! What happens elsewhere on the node, as a connection is told of it.

use std::sync::Arc;

use super::{Held, Outbound, Peer, ProcessId, Registry, Surroundings, exits, write_exit};
use crate::etf::{Pid, TermView};
use crate::process::effect::{EndCalls, EndedCall};

/// Something that a connection has to do, left for it by others of the node.
#[derive(Debug)]
pub enum PeerEvent {
    /// One of our processes has ended: its watchers are to be told.
    ProcessEnded {
        /// The process.
        process: ProcessId,
        /// The encoded exit reason.
        reason: Arc<[u8]>,
    },
    /// What a lost connection held for suspended processes. Only the node's connection to itself is given any.
    Adopt(Box<Held>),
    /// A process has been resumed: what was held for it can be delivered.
    Resumed,
    /// One of our processes has linked itself to one of the peer's. The signal is among the frames.
    Linked {
        /// Ours.
        process: ProcessId,
        /// The peer's.
        remote: Pid,
    },
    /// One of our processes takes its link back: its signal is written now.
    Unlinked {
        /// Ours.
        process: ProcessId,
        /// The peer's.
        remote: Pid,
    },
    /// A call ends by its monitor, which is this connection's.
    EndCall(EndedCall),
}

impl Peer {
    /// Does what an event asks for; signals of it are written to `out`. After [`PeerEvent::Adopt`] and
    /// [`PeerEvent::Resumed`] there may be something to [deliver](Self::deliver_held).
    pub fn on(&mut self, event: PeerEvent, around: Surroundings<'_>, out: &mut Outbound) {
        match event {
            PeerEvent::ProcessEnded { process, reason } => {
                self.process_ended(process, &reason, around.registry, out);
            }
            PeerEvent::Linked { process, remote } => self.linked(process, &remote, around.registry, out),
            PeerEvent::Unlinked { process, remote } => self.unlinked(process, &remote, around.registry, out),
            PeerEvent::EndCall(call) => self.end_call(&call, around.registry, out),
            PeerEvent::Adopt(orphans) => self.adopt(orphans, around),
            PeerEvent::Resumed => self.resumed(),
        }
    }

    /// One of our processes has ended: tells those of the peer that watch it. `reason` is an encoded term.
    pub fn process_ended(
        &mut self,
        process: ProcessId,
        reason: &[u8],
        registry: &Registry,
        out: &mut Outbound,
    ) {
        self.last = None;
        self.attached.remove(&process);
        self.held.process_ended(process);
        let pid = registry.pid_of(process);
        // A reason that this peer cannot read would cost the connection to it.
        let substitute = exits::atom("unreadable_reason");
        let reason = match TermView::parse(reason) {
            Ok(term) if self.flags.can_decode(term.traits()) => reason,
            _ => &substitute,
        };
        self.monitors.process_ended(process, reason, registry, out);
        for remote in self.links.process_ended(process) {
            write_exit(&self.name, self.flags, &pid, remote, reason, out);
        }
    }

    /// A process that this connection may hold messages for was resumed. It may be suspended again by now, and the next
    /// resumption has to reach this connection: called before [`deliver_held`](Self::deliver_held).
    pub fn resumed(&self) {
        for process in self.held.processes() {
            process.add_holder(&self.name);
        }
    }

    /// Ends a call that was handled by another connection.
    pub fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) {
        self.monitors.end_call(call, registry, out);
    }
}
