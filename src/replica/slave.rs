//! One slave of one store: who it is, where it is, and the writes that wait for it, in order.
//!
//! ```text
//!            found                  gone
//! Seeking ----------> Following ----------> Seeking
//!
//! both ----> Dropped: it is the store itself, or a pid that has ended
//! ```
//!
//! Writes are queued in both states, under a bound. Past the bound the slave is *behind*: what waits is dropped,
//! counted and said; later writes reach it, what it missed does not.

use std::collections::VecDeque;
use std::fmt;

use parking_lot::Mutex;

use crate::dist::{Outbound, RemoteProcess};
use crate::etf::{Pid, TermWriter};

/// How a slave was named to `add_slave`.
pub use crate::dist::ServerRef as SlaveName;

/// One write, as slaves are told of it.
#[derive(Clone, Copy, Debug)]
pub enum ReplicaWrite<'a> {
    /// `{:replicate_put, key, value}`
    Put {
        /// The encoded key.
        key: &'a [u8],
        /// The encoded value.
        value: &'a [u8],
    },
    /// `{:replicate_delete, key}`
    Delete {
        /// The encoded key.
        key: &'a [u8],
    },
}

impl ReplicaWrite<'_> {
    fn write(&self, w: &mut TermWriter<'_>) {
        w.tuple(2).atom("$gen_cast");
        match self {
            Self::Put { key, value } => w.tuple(3).atom("replicate_put").raw(key).raw(value),
            Self::Delete { key } => w.tuple(2).atom("replicate_delete").raw(key),
        };
    }
}

/// Where a slave is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SlaveState {
    /// Not known.
    Seeking,
    /// Known, and watched.
    Following(RemoteProcess),
    /// It will never be there (again): nothing is kept for it.
    Dropped,
}

/// What became of a write that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It waits; there is nothing to send it to yet.
    Kept,
    /// It waits, and the slave is known: have it taken.
    Ready,
    /// The bound was passed just now: so many writes were dropped.
    Behind(u64),
}

struct State {
    at: SlaveState,
    /// Messages, encoded, in order.
    waiting: VecDeque<Box<[u8]>>,
    waiting_bytes: usize,
}

/// One slave of one store.
pub struct Slave {
    name: SlaveName,
    waiting_bytes_max: usize,
    state: Mutex<State>,
}

impl Slave {
    /// A slave that has just been added.
    pub fn new(name: SlaveName, waiting_bytes_max: usize) -> Self {
        let state = State { at: SlaveState::Seeking, waiting: VecDeque::new(), waiting_bytes: 0 };
        Self { name, waiting_bytes_max, state: Mutex::new(state) }
    }

    /// How it was named.
    pub const fn name(&self) -> &SlaveName {
        &self.name
    }

    /// Where it is.
    pub fn state(&self) -> SlaveState {
        self.state.lock().at.clone()
    }

    /// Queues a write. The caller holds the store's order of writes.
    pub fn push(&self, write: ReplicaWrite<'_>) -> Pushed {
        let mut message = Vec::new();
        write.write(&mut TermWriter::new(&mut message));
        let mut state = self.state.lock();
        if state.at == SlaveState::Dropped {
            return Pushed::Kept;
        }
        // One write always fits, so that a large value is not refused by a small bound.
        if !state.waiting.is_empty() && state.waiting_bytes + message.len() > self.waiting_bytes_max {
            let dropped = state.waiting.len() as u64 + 1;
            state.waiting = VecDeque::new();
            state.waiting_bytes = 0;
            return Pushed::Behind(dropped);
        }
        state.waiting_bytes += message.len();
        state.waiting.push_back(message.into_boxed_slice());
        if matches!(state.at, SlaveState::Following(_)) { Pushed::Ready } else { Pushed::Kept }
    }

    /// It was found.
    pub fn found(&self, at: RemoteProcess) {
        self.state.lock().at = SlaveState::Following(at);
    }

    /// It ended, or its node is gone.
    pub fn gone(&self) {
        self.state.lock().at = SlaveState::Seeking;
    }

    /// It will never be there (again).
    pub fn drop_out(&self) {
        let mut state = self.state.lock();
        *state = State { at: SlaveState::Dropped, waiting: VecDeque::new(), waiting_bytes: 0 };
    }

    /// Moves what waits into the output to its node, in order, until `out` holds `out_bytes_max`. `from` is the
    /// store. Gives whether something still waits.
    pub fn take(&self, node: &str, from: &Pid, out: &mut Outbound, out_bytes_max: usize) -> bool {
        let mut state = self.state.lock();
        let SlaveState::Following(at) = state.at.clone() else { return false };
        if **at.node() != *node {
            return false;
        }
        while out.len() < out_bytes_max
            && let Some(message) = state.waiting.pop_front()
        {
            state.waiting_bytes -= message.len();
            let copy = |w: &mut TermWriter<'_>| {
                w.raw(&message);
            };
            match &at {
                RemoteProcess::Pid(pid) => out.send(pid, copy),
                RemoteProcess::Name { name, .. } => out.reg_send(from, name, copy),
            }
        }
        !state.waiting.is_empty()
    }
}

impl fmt::Debug for Slave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slave({})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::{Arrival, FrameForm, Inbound};
    use crate::etf::encode;

    fn atom(text: &str) -> Vec<u8> {
        encode(|w| {
            w.atom(text);
        })
    }

    fn pid() -> Pid {
        Pid { node: "b@h".into(), id: 1, serial: 0, creation: 1 }
    }

    fn frames(out: &mut Outbound) -> usize {
        let mut inbound =
            Inbound::new(out.single_slice().expect("small frames"), FrameForm::PassThrough, 1 << 20);
        let mut count = 0;
        while let Some(Arrival::Frame(_)) = inbound.next_arrival().expect("good frames") {
            count += 1;
        }
        count
    }

    #[test]
    fn writes_before_it_is_found_are_kept_and_taken_in_order() {
        let slave = Slave::new(SlaveName::global("s"), 1 << 20);
        let (a, b) = (atom("a"), atom("b"));
        assert_eq!(slave.push(ReplicaWrite::Put { key: &a, value: &b }), Pushed::Kept);
        slave.found(RemoteProcess::Pid(pid()));
        assert_eq!(slave.push(ReplicaWrite::Delete { key: &a }), Pushed::Ready);
        let mut out = Outbound::default();
        assert!(!slave.take("b@h", &pid(), &mut out, 1 << 20));
        assert_eq!(frames(&mut out), 2);
        let text = String::from_utf8_lossy(out.single_slice().expect("small frames")).into_owned();
        assert!(text.find("replicate_put") < text.find("replicate_delete"), "{text}");
    }

    #[test]
    fn past_the_bound_it_is_behind_and_memory_is_given_back() {
        let slave = Slave::new(SlaveName::Local("s".into()), 100);
        let value = encode(|w| {
            w.binary(&[0; 60]);
        });
        let put = ReplicaWrite::Put { key: &atom("k"), value: &value };
        assert_eq!(slave.push(put), Pushed::Kept);
        assert_eq!(slave.push(put), Pushed::Behind(2));
        assert_eq!(slave.push(put), Pushed::Kept);
    }

    #[test]
    fn nothing_is_kept_for_one_that_has_dropped_out() {
        let slave = Slave::new(SlaveName::Pid(pid()), 10);
        slave.drop_out();
        for _ in 0..10 {
            assert_eq!(slave.push(ReplicaWrite::Delete { key: &atom("a long name of a key") }), Pushed::Kept);
        }
    }
}
