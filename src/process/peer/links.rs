//! The links between processes of ours and the peer's, and those that ours set.

use std::mem;

use ahash::{AHashMap, AHashSet};

use super::super::exits::{self, RemoteId, write_exit};
use super::super::{ProcessId, Registry};
use super::Peer;
use crate::distribution::control::op;
use crate::distribution::{DistributionFlags, Outbound};
use crate::etf::{Pid, PidView};

/// Links of one peer's processes, by process of ours: when one ends, no others are looked at.
#[derive(Default)]
pub(super) struct Links {
    set: AHashMap<ProcessId, AHashSet<RemoteId>>,
    /// Those that ours have taken back, with the number of the unlink that the peer has not acknowledged yet.
    unlinking: AHashMap<ProcessId, AHashMap<RemoteId, u64>>,
    /// Of both.
    len: usize,
}

impl Links {
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn insert(&mut self, process: ProcessId, remote: RemoteId) {
        self.len += usize::from(self.set.entry(process).or_default().insert(remote));
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, process: ProcessId, remote: RemoteId) -> bool {
        let Some(remotes) = self.set.get_mut(&process) else { return false };
        let removed = remotes.remove(&remote);
        if remotes.is_empty() {
            self.set.remove(&process);
        }
        self.len -= usize::from(removed);
        removed
    }

    /// Whether the peer has not acknowledged yet that the link was taken back.
    pub(super) fn is_unlinking(&self, process: ProcessId, remote: RemoteId) -> bool {
        self.unlinking.get(&process).is_some_and(|remotes| remotes.contains_key(&remote))
    }

    fn set_unlinking(&mut self, process: ProcessId, remote: RemoteId, id: u64) {
        self.len += usize::from(self.unlinking.entry(process).or_default().insert(remote, id).is_none());
    }

    /// The unlink with this number, or any, is waited for no more.
    fn unlinked(&mut self, process: ProcessId, remote: RemoteId, id: Option<u64>) {
        let Some(remotes) = self.unlinking.get_mut(&process) else { return };
        if remotes.get(&remote).is_some_and(|&known| id.is_none_or(|id| id == known)) {
            remotes.remove(&remote);
            self.len -= 1;
        }
        if remotes.is_empty() {
            self.unlinking.remove(&process);
        }
    }

    /// The process is gone: those that were linked to it.
    pub(super) fn process_ended(&mut self, process: ProcessId) -> AHashSet<RemoteId> {
        self.len -= self.unlinking.remove(&process).map_or(0, |remotes| remotes.len());
        let linked = self.set.remove(&process).unwrap_or_default();
        self.len -= linked.len();
        linked
    }

    /// Takes all out.
    pub(super) fn take(&mut self) -> AHashMap<ProcessId, AHashSet<RemoteId>> {
        mem::take(self).set
    }
}

impl Peer {
    /// A process of ours has linked itself to one of the peer's; the signal goes out with the frames. Where ours has
    /// ended meanwhile, the other is told.
    pub fn linked(&mut self, process: ProcessId, remote: &Pid, registry: &Registry, out: &mut Outbound) {
        let id = RemoteId::of(remote);
        if registry.by_id(process).is_some_and(|process| self.attach(&process)) {
            self.links.unlinked(process, id, None);
            self.links.insert(process, id);
        } else {
            let from = registry.pid_of(process);
            write_exit(&self.name, self.flags, &from, id, &exits::atom("noproc"), out);
        }
    }

    /// A process of ours takes its link back. From now on the other's exit signals by that link are dropped, as
    /// erl_dist_protocol, "Link Protocol", wants it of a process that has unlinked.
    pub fn unlinked(&mut self, process: ProcessId, remote: &Pid, registry: &Registry, out: &mut Outbound) {
        if !self.links.remove(process, RemoteId::of(remote)) {
            return;
        }
        self.unlinks += 1;
        let from = registry.pid_of(process);
        let open = out.begin();
        if self.flags.contains(DistributionFlags::UNLINK_ID) {
            self.links.set_unlinking(process, RemoteId::of(remote), self.unlinks);
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
        // One that was set and taken back again meanwhile waits for a later number.
        self.links.unlinked(process, RemoteId::new(&from_pid), Some(id));
    }
}
