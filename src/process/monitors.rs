//! The monitors that one peer has set on our processes.
//!
//! A call's MONITOR_P and DEMONITOR_P are an insertion and a removal here: a key and a value of fixed size, no
//! allocation once the table has its size, no lock.

use std::sync::Arc;

use ahash::{AHashMap, AHashSet};

use super::effect::{EndCalls, EndedCall};
use super::exits::{RemoteId, write_monitor_exit};
use super::registry::Process;
use super::{ProcessId, Registry};
use crate::distribution::{DistributionFlags, Outbound};
use crate::etf::{Cursor, Pid, PidView, Reference, ReferenceView, TermView};

/// Monitors of a peer among which that of a `multi_call` is looked for: each unknown call of the peer may ask for it.
const SCANNED_MAX: usize = 4096;

/// A reference of the peer, as a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct MonitorKey {
    creation: u32,
    words: [u32; 5],
}

impl MonitorKey {
    #[inline]
    fn new(reference: &ReferenceView<'_>) -> Self {
        let mut words = [0; 5];
        words[..reference.words().len()].copy_from_slice(reference.words());
        Self { creation: reference.creation, words }
    }
}

struct Monitor {
    process: ProcessId,
    /// The place of the name that the monitor was set on, in [`Monitors::names`].
    name: Option<u32>,
    watcher: RemoteId,
    words: u8,
    /// It stands in [`Monitors::of_unnamed`].
    of_unnamed: bool,
}

/// The monitors of one peer.
pub(super) struct Monitors {
    peer: Arc<str>,
    flags: DistributionFlags,
    table: AHashMap<MonitorKey, Monitor>,
    /// Those of processes without a name. They come and go, one for each spawn request perhaps, and each end must not look
    /// at all monitors. What has a name is called, and its monitors are not worth a second table.
    of_unnamed: AHashMap<ProcessId, AHashSet<MonitorKey>>,
    /// The processes that the others are of.
    of_named: AHashSet<ProcessId>,
    /// The process whose monitor was added last: most monitors are of the same process.
    last_named: Option<ProcessId>,
    /// Names that monitors were set on; as many as we have registered names at most.
    names: Vec<Arc<str>>,
}

impl Monitors {
    pub(super) fn new(peer: Arc<str>, flags: DistributionFlags) -> Self {
        Self {
            peer,
            flags,
            table: AHashMap::default(),
            of_unnamed: AHashMap::default(),
            of_named: AHashSet::default(),
            last_named: None,
            names: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// A monitor of a process, by its pid or by a name.
    #[inline]
    pub(super) fn set(
        &mut self,
        process: &Process,
        name: Option<&Arc<str>>,
        watcher: &PidView<'_>,
        reference: &ReferenceView<'_>,
    ) {
        let monitor = Monitor {
            process: process.id,
            name: name.map(|name| self.name_at(name)),
            watcher: RemoteId::new(watcher),
            words: reference.words().len() as u8,
            of_unnamed: !process.is_named(),
        };
        let key = MonitorKey::new(reference);
        let of_unnamed = monitor.of_unnamed;
        if let Some(before) = self.table.insert(key, monitor) {
            self.forget(&key, &before);
        }
        if of_unnamed {
            self.of_unnamed.entry(process.id).or_default().insert(key);
        } else if self.last_named != Some(process.id) {
            self.of_named.insert(process.id);
            self.last_named = Some(process.id);
        }
    }

    /// A monitor has been taken out of the table.
    #[inline]
    fn forget(&mut self, key: &MonitorKey, monitor: &Monitor) {
        if monitor.of_unnamed
            && let Some(keys) = self.of_unnamed.get_mut(&monitor.process)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.of_unnamed.remove(&monitor.process);
            }
        }
    }

    /// The monitor is taken back.
    #[inline]
    pub(super) fn cancel(&mut self, reference: &ReferenceView<'_>) {
        let key = MonitorKey::new(reference);
        if let Some(monitor) = self.table.remove(&key) {
            self.forget(&key, &monitor);
        }
    }

    /// The process has ended: its monitors fire.
    pub(super) fn process_ended(
        &mut self,
        process: ProcessId,
        reason: &[u8],
        registry: &Registry,
        out: &mut Outbound,
    ) {
        let pid = registry.pid_of(process);
        let of_unnamed = self.of_unnamed.remove(&process).unwrap_or_default();
        let mut ended: Vec<_> =
            of_unnamed.into_iter().filter_map(|key| self.table.remove_entry(&key)).collect();
        if self.of_named.remove(&process) {
            self.last_named = None;
            ended.extend(self.table.extract_if(|_, monitor| monitor.process == process));
        }
        for (key, monitor) in ended {
            self.fire(&key, &monitor, &pid, reason, out);
        }
    }

    fn fire(&self, key: &MonitorKey, monitor: &Monitor, pid: &Pid, reason: &[u8], out: &mut Outbound) {
        let words = key.words[..usize::from(monitor.words)].to_vec();
        let reference = Reference { node: Arc::clone(&self.peer), creation: key.creation, words };
        let watcher = monitor.watcher.on(Arc::clone(&self.peer));
        write_monitor_exit(self.flags, &watcher, &reference, reason, out, |w| match monitor.name {
            Some(at) => {
                w.atom(&self.names[at as usize]);
            }
            None => {
                w.pid(pid);
            }
        });
    }

    fn name_at(&mut self, name: &Arc<str>) -> u32 {
        if let Some(at) = self.names.iter().position(|known| Arc::ptr_eq(known, name) || known == name) {
            return at as u32;
        }
        self.names.push(Arc::clone(name));
        (self.names.len() - 1) as u32
    }
}

impl EndCalls for Monitors {
    fn end_call(&mut self, call: &EndedCall, registry: &Registry, out: &mut Outbound) -> bool {
        let in_tag = references_in(&call.tag).into_iter().find(|key| self.table.contains_key(key));
        let key = in_tag.or_else(|| self.of_multi_call(call));
        let Some((key, monitor)) = key.and_then(|key| self.table.remove_entry(&key)) else { return false };
        self.forget(&key, &monitor);
        self.fire(&key, &monitor, &registry.pid_of(monitor.process), &call.reason, out);
        true
    }
}

impl Monitors {
    /// The monitor of a `multi_call`, whose tag, `{Ref, Node}`, does not name it: the one that the caller has set
    /// on the process by name. Where there are several it is not known which it is, and none is fired: a monitor
    /// that says of a living process that it has ended does more harm than a call that waits. Nor where there are so many
    /// that looking for it would hold others up.
    fn of_multi_call(&self, call: &EndedCall) -> Option<MonitorKey> {
        let tag = TermView::parse(&call.tag).ok()?.as_tuple::<2>()?;
        tag[0].as_reference()?;
        tag[1].as_atom()?;
        if self.table.len() > SCANNED_MAX {
            return None;
        }
        let mut of_caller = self.table.iter().filter(|(_, monitor)| {
            monitor.name.is_some()
                && monitor.process == call.process
                && (monitor.watcher.id, monitor.watcher.serial) == call.caller
        });
        let (key, _) = of_caller.next()?;
        of_caller.next().is_none().then_some(*key)
    }
}

/// All references in a tag, outermost first; tags are small, and a large one is cut off.
fn references_in(tag: &[u8]) -> Vec<MonitorKey> {
    let mut cursor = Cursor::new(tag);
    let mut found = Vec::new();
    for _ in 0..16 {
        if let Ok(reference) = cursor.reference() {
            found.push(MonitorKey::new(&reference));
        } else if cursor.tuple().is_err() && cursor.list().is_err() && cursor.term().is_err() {
            break;
        }
    }
    found
}
