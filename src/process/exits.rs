//! How a process ends, and the messages that tell of it: `MONITOR_P_EXIT` and `EXIT`, in the forms that the flags
//! ask for.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{Process, Registry};

use crate::distribution::control::{ProcessRef, op};
use crate::distribution::{DistributionFlags, Outbound};
use crate::etf::tag::FUN_EXT;
use crate::etf::{
    Pid, PidView, Reference, ReferenceView, TermError, TermView, TermWriter, Traits, encode, key,
};

/// A process that has ended, with its siblings.
#[derive(Clone, Debug)]
pub struct Ended {
    /// The process and its siblings, oldest first; never empty.
    pub processes: Vec<Arc<Process>>,
    /// The names that it had, for people.
    pub names: Vec<Arc<str>>,
    /// The reason, encoded.
    pub reason: Arc<[u8]>,
}

/// Ends a process and its siblings: from now on no signal finds them. `None` when it had ended before. The caller
/// tells the watchers on every connection ([`Peer::process_ended`](super::Peer::process_ended)).
pub fn end(registry: &Registry, process: &Process, reason: &[u8]) -> Option<Ended> {
    let names = registry.names_of(process);
    let processes = registry.remove(process);
    if processes.is_empty() {
        return None;
    }
    let term = TermView::parse(reason).expect("it was checked when it came, or written by ourselves");
    if let Err(text) = guarded(|| process.server.terminate(term)) {
        tracing::error!(process = ?process, panic = text, "terminate panicked (a bug of the server)");
    }
    Some(Ended { processes, names, reason: reason.into() })
}

/// Checks a reason that may go on to watchers on any node: what is no term there would cost us the connection.
///
/// # Errors
/// The sender's.
pub(super) fn check_reason(reason: TermView<'_>) -> Result<(), TermError> {
    if reason.traits().contains(Traits::OLD_FUN) {
        return Err(TermError::Tag(FUN_EXT));
    }
    if reason.traits().contains(Traits::MAP) {
        key::check_maps(reason)?;
    }
    Ok(())
}

/// Calls a server. A panic ends the process, and neither the connection nor the node: gives the panic's text.
#[inline]
pub(crate) fn guarded(call: impl FnOnce()) -> Result<(), String> {
    // What the call may have left half done belongs to the process that ends for it; its locks do not poison.
    catch_unwind(AssertUnwindSafe(call)).map_err(|panic| text_of(&*panic))
}

/// What a panic says.
#[cold]
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text").to_owned()
}

/// An atom, encoded: most reasons are one.
pub(super) fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

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

    pub(super) const fn of(pid: &Pid) -> Self {
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
    write_monitor_exit(flags, &watcher.into(), &reference.into(), &atom("noproc"), out, |w| match to_proc {
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
