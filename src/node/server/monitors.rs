//! The monitors that a process of ours has set, and is told of by its mailbox.

use std::sync::Arc;

use ahash::AHashMap;

use crate::distribution::ServerRef;
use crate::etf::OwnedTerm;
use crate::node::server::client::{Client, Watch};
use crate::process::CallError;
use crate::process::mailbox::{Envelope, Mailbox};

/// A monitor that was set, as in `{:DOWN, ref, …}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MonitorRef(u64);

/// A process that was monitored has ended, or was not there: `{:DOWN, ref, :process, process, reason}`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Down {
    /// The monitor.
    pub monitor: MonitorRef,
    /// The process, as it was named when the monitor was set.
    pub process: ServerRef,
    /// Why: its exit reason, or `:noproc` where there was no such process, or `:noconnection` where its node is not
    /// reached (any more).
    pub reason: OwnedTerm,
}

/// The monitors of one process. Dropped, they are taken back.
#[derive(Default)]
pub(in crate::node) struct Monitors {
    /// Those that have not fired.
    set: AHashMap<u64, (ServerRef, Option<Watch>)>,
    numbered: u64,
}

impl Monitors {
    /// Sets one: [`Envelope::Down`] comes to the mailbox.
    pub(in crate::node) async fn set(
        &mut self,
        client: &Client,
        mailbox: &Arc<Mailbox>,
        process: &ServerRef,
    ) -> Result<MonitorRef, CallError> {
        self.numbered += 1;
        let monitor = self.numbered;
        let mailbox = Arc::clone(mailbox);
        let fired = move |reason| mailbox.push(Envelope::Down { monitor, reason });
        let watch = match client.locate(process).await {
            Ok(at) => Some(client.monitor_with(at, fired)?),
            Err(CallError::NoProcess) => {
                fired(OwnedTerm::atom("noproc"));
                None
            }
            Err(error) => return Err(error),
        };
        self.set.insert(monitor, (process.clone(), watch));
        Ok(MonitorRef(monitor))
    }

    /// Takes one back. `false`: it had fired, or been taken back.
    pub(in crate::node) fn take_back(&mut self, monitor: MonitorRef) -> bool {
        self.set.remove(&monitor.0).is_some()
    }

    /// One has fired: `None` when it has been taken back.
    pub(in crate::node) fn fired(&mut self, monitor: u64, reason: OwnedTerm) -> Option<Down> {
        let (process, _) = self.set.remove(&monitor)?;
        Some(Down { monitor: MonitorRef(monitor), process, reason })
    }
}
