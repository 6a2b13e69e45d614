//! Messages for suspended processes (`sys:suspend/1`), in the order in which one peer sent them.
//!
//! A process that is suspended takes system messages and exit signals only. What else comes is kept here, by the
//! connection that it came by, and delivered there once the process is resumed: so two signals of one process stay in
//! order, and answers go out with that connection's flags and monitors. What a connection holds when it is lost goes on
//! to the node's connection to itself, as a message that has arrived outlives its connection.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;

use super::{Process, ProcessId};

/// What an entry of the table costs beside its bytes, about.
const ENTRY_BYTES: usize = 32;

struct Queue {
    process: Arc<Process>,
    messages: VecDeque<Box<[u8]>>,
}

/// What one connection holds.
#[derive(Default)]
pub struct Held {
    queues: AHashMap<ProcessId, Queue>,
    bytes: usize,
}

impl Held {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty()
    }

    /// Whether messages for a process are held.
    #[inline]
    pub(super) fn holds(&self, id: ProcessId) -> bool {
        !self.queues.is_empty() && self.queues.contains_key(&id)
    }

    /// The processes that messages are held for.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.queues.values().map(|queue| &*queue.process)
    }

    /// Keeps a message, an encoded term; `false`: there is no room for it.
    pub(super) fn push(&mut self, process: &Arc<Process>, message: &[u8], bytes_max: usize) -> bool {
        let bytes = message.len() + ENTRY_BYTES;
        // One message always fits, however small the bound.
        if self.bytes > 0 && self.bytes + bytes > bytes_max {
            return false;
        }
        self.bytes += bytes;
        let queue = self
            .queues
            .entry(process.id)
            .or_insert_with(|| Queue { process: Arc::clone(process), messages: VecDeque::new() });
        queue.messages.push_back(message.into());
        true
    }

    /// Forgets what is held for processes that have ended, and takes the next message of one that runs again.
    pub(super) fn next_ready(&mut self) -> Option<(Arc<Process>, Box<[u8]>)> {
        self.forget(|process| !process.is_alive());
        let queue = self.queues.values_mut().find(|queue| !queue.process.is_suspended())?;
        let process = Arc::clone(&queue.process);
        let message = queue.messages.pop_front()?;
        self.bytes -= message.len() + ENTRY_BYTES;
        if queue.messages.is_empty() {
            self.queues.remove(&process.id);
        }
        Some((process, message))
    }

    /// Takes over what a connection held that is lost, as far as there is room; gives how many messages there was no
    /// room for.
    pub(super) fn adopt(
        &mut self,
        orphans: Self,
        bytes_max: usize,
        mut adopted: impl FnMut(&Arc<Process>),
    ) -> usize {
        let mut dropped = 0;
        for Queue { process, messages } in orphans.queues.into_values() {
            adopted(&process);
            dropped += messages.iter().filter(|message| !self.push(&process, message, bytes_max)).count();
        }
        dropped
    }

    /// Forgets what is held for a process.
    pub(super) fn process_ended(&mut self, id: ProcessId) {
        self.forget(|process| process.id == id);
    }

    fn forget(&mut self, which: impl Fn(&Process) -> bool) {
        let bytes = &mut self.bytes;
        self.queues.retain(|_, queue| {
            let keep = !which(&queue.process);
            if !keep {
                *bytes -= queue.messages.iter().map(|message| message.len() + ENTRY_BYTES).sum::<usize>();
            }
            keep
        });
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("processes", &self.queues.len()).field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Caller, Effects, GenServer, Registry, exits};
    use super::*;
    use crate::etf::TermView;

    struct Nothing;

    impl GenServer for Nothing {
        fn handle_call(&self, _: TermView<'_>, _: &Caller<'_>, _: &mut Effects<'_>) {}
        fn handle_cast(&self, _: TermView<'_>, _: &mut Effects<'_>) {}
    }

    #[test]
    fn messages_wait_in_order_until_their_process_runs_again() {
        let registry = Registry::new("k@h".into(), 1);
        let (one, other) = (registry.spawn(Arc::new(Nothing)), registry.spawn(Arc::new(Nothing)));
        one.set_suspended(true);
        other.set_suspended(true);
        let mut held = Held::default();
        for byte in 1..4 {
            assert!(held.push(&one, &[byte], 1 << 10) && held.push(&other, &[byte], 1 << 10));
        }
        assert!(held.next_ready().is_none());
        one.set_suspended(false);
        let taken: Vec<u8> =
            std::iter::from_fn(|| held.next_ready()).map(|(_, message)| message[0]).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(exits::end(&registry, &other, &[106]).is_some());
        assert!(held.next_ready().is_none() && held.is_empty() && held.bytes == 0);
    }

    #[test]
    fn what_is_held_has_a_bound() {
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        process.set_suspended(true);
        let mut held = Held::default();
        assert!(held.push(&process, &[0; 500], 100), "one always fits");
        assert!(!held.push(&process, &[0; 500], 100));
        process.set_suspended(false);
        assert!(held.next_ready().is_some() && held.bytes == 0);
    }
}
