//! The messages that tell of an end: `MONITOR_P_EXIT` and `EXIT`, in the forms that the flags ask for.

use std::sync::Arc;

use crate::dist::control::{ProcessRef, op};
use crate::dist::{DistributionFlags, Outbound};
use crate::etf::{Pid, PidView, Reference, ReferenceView, TermWriter, encode};

/// A process of the peer, without its node.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct RemoteId {
    pub id: u32,
    pub serial: u32,
    pub creation: u32,
}

impl RemoteId {
    #[inline]
    pub(super) fn new(pid: &PidView<'_>) -> Self {
        Self { id: pid.id, serial: pid.serial, creation: pid.creation }
    }

    /// The pid.
    pub(super) fn on(self, node: Arc<str>) -> Pid {
        Pid { node, id: self.id, serial: self.serial, creation: self.creation }
    }
}

/// `MONITOR_P_EXIT` of something that does not exist.
pub(super) fn write_noproc(
    flags: DistributionFlags,
    watcher: PidView<'_>,
    to_proc: ProcessRef<'_>,
    reference: ReferenceView<'_>,
    out: &mut Outbound,
) {
    let noproc = encode(|w| {
        w.atom("noproc");
    });
    write_monitor_exit(flags, &watcher.into(), &reference.into(), &noproc, out, |w| match to_proc {
        ProcessRef::Pid(pid) => {
            w.pid(&pid.into());
        }
        ProcessRef::Name(name) => {
            w.atom(&name.to_str());
        }
    });
}

/// `MONITOR_P_EXIT`, in the form that the flags ask for.
pub(super) fn write_monitor_exit(
    flags: DistributionFlags,
    watcher: &Pid,
    reference: &Reference,
    reason: &[u8],
    out: &mut Outbound,
    from_proc: impl FnOnce(&mut TermWriter<'_>),
) {
    let open = out.begin();
    let mut term = out.term();
    if flags.contains(DistributionFlags::EXIT_PAYLOAD) {
        term.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT);
        from_proc(&mut term);
        term.pid(watcher).reference(reference);
        out.payload().raw(reason);
    } else {
        term.tuple(5).unsigned(op::MONITOR_P_EXIT);
        from_proc(&mut term);
        term.pid(watcher).reference(reference).raw(reason);
    }
    out.finish(open);
}

/// `EXIT`, in the form that the flags ask for.
pub(super) fn write_exit(
    peer: &str,
    flags: DistributionFlags,
    from: &Pid,
    to: RemoteId,
    reason: &[u8],
    out: &mut Outbound,
) {
    let to = to.on(peer.into());
    let open = out.begin();
    let mut term = out.term();
    if flags.contains(DistributionFlags::EXIT_PAYLOAD) {
        term.tuple(3).unsigned(op::PAYLOAD_EXIT).pid(from).pid(&to);
        out.payload().raw(reason);
    } else {
        term.tuple(4).unsigned(op::EXIT).pid(from).pid(&to).raw(reason);
    }
    out.finish(open);
}
