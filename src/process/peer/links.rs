//! Links that our processes set.

use super::super::exits::{self, RemoteId, write_exit};
use super::super::{ProcessId, Registry};
use super::Peer;
use crate::dist::control::op;
use crate::dist::{DistributionFlags, Outbound};
use crate::etf::{Pid, PidView};

impl Peer {
    /// A process of ours has linked itself to one of the peer's; the signal goes out with the frames. Where ours has
    /// ended meanwhile, the other is told.
    pub fn linked(&mut self, process: ProcessId, remote: &Pid, registry: &Registry, out: &mut Outbound) {
        let id = RemoteId::of(remote);
        if registry.by_id(process).is_some() {
            self.unlinking.remove(&(process, id));
            self.links.insert((process, id));
        } else {
            let from = registry.pid_of(process);
            write_exit(&self.name, self.flags, &from, id, &exits::atom("noproc"), out);
        }
    }

    /// A process of ours takes its link back. From now on the other's exit signals by that link are dropped, as
    /// erl_dist_protocol, "Link Protocol", wants it of whoever has unlinked.
    pub fn unlinked(&mut self, process: ProcessId, remote: &Pid, registry: &Registry, out: &mut Outbound) {
        if !self.links.remove(&(process, RemoteId::of(remote))) {
            return;
        }
        self.unlinks += 1;
        let from = registry.pid_of(process);
        let open = out.begin();
        if self.flags.contains(DistributionFlags::UNLINK_ID) {
            self.unlinking.insert((process, RemoteId::of(remote)), self.unlinks);
            out.term().tuple(4).unsigned(op::UNLINK_ID).unsigned(self.unlinks).pid(&from).pid(remote);
        } else {
            out.term().tuple(3).unsigned(op::UNLINK).pid(&from).pid(remote);
        }
        out.finish(open);
    }

    /// The peer has taken out a link that a process of ours has taken back: from now on it may set one again.
    pub(super) fn unlink_acknowledged(
        &mut self,
        id: u64,
        from_pid: PidView<'_>,
        to_pid: PidView<'_>,
        registry: &Registry,
    ) {
        let Some(process) = registry.local_id(&to_pid).filter(|_| from_pid.node == *self.name) else {
            return;
        };
        let link = (process, RemoteId::new(&from_pid));
        // One that was set and taken back again meanwhile waits for a later number.
        if self.unlinking.get(&link) == Some(&id) {
            self.unlinking.remove(&link);
        }
    }
}
