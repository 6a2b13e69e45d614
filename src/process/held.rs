//! Messages that wait at the connection that they came by: for a process that is suspended (`sys:suspend/1`), or for
//! room for their answers.
//!
//! A process that is suspended takes system messages and exit signals only. A call whose answer has no room, because the
//! peer takes the answers before it too slowly, waits as well, and with it what comes behind it from the same process to
//! the same process; everything else of that peer goes on being read and handled. What waits is delivered here, by its
//! connection: so two signals of one process stay in order, and answers go out with that connection's flags and
//! monitors. What a connection holds when it is lost goes on to the node's connection to itself, as a message that has
//! arrived outlives its connection.
//!
//! Spawn requests wait for room too: they are for no process yet.
//!
//! Messages of different senders to one process wait side by side, unless the process is suspended or a sender is not
//! known: then all that comes for it waits in one queue.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;

use super::{Process, ProcessId};
use crate::distribution::{FrameForm, Room};
use crate::etf::{PooledBytes, SharedBytes};

/// What a message costs beside its bytes where it is the only one of its sender, which takes most: its queue with its place
/// in a table that has just doubled, its place in the order of serving, and what the allocator adds to each of them. A
/// test counts it.
const ENTRY_BYTES: usize = 352;

/// A process of the peer, as its pid has it: id and serial. `None`: the message does not tell.
pub(super) type Sender = Option<(u32, u32)>;

/// What a message waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WaitsFor {
    /// That its process is resumed.
    Resume,
    /// Its turn: what came before it waits.
    Turn,
    /// Room for a small answer.
    SmallRoom,
    /// Room for a large answer.
    LargeRoom,
}

impl WaitsFor {
    pub(super) const fn is_met_by(self, room: Room) -> bool {
        match self {
            Self::Resume => false,
            Self::Turn => true,
            Self::SmallRoom => room.small,
            Self::LargeRoom => room.large,
        }
    }
}

/// A message, an encoded term, that is kept.
pub(super) enum HeldMessage {
    Copied(Box<[u8]>),
    /// In the memory that it was received into.
    Shared(SharedBytes),
}

impl HeldMessage {
    pub(super) fn new(term: &[u8], frame_owner: Option<&Arc<PooledBytes>>) -> Self {
        match frame_owner.and_then(|owner| SharedBytes::part_of(owner, term)) {
            Some(shared) => Self::Shared(shared),
            None => Self::Copied(term.into()),
        }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }

    /// The memory that a large one was received into.
    pub(super) const fn owner(&self) -> Option<&Arc<PooledBytes>> {
        match self {
            Self::Copied(_) => None,
            Self::Shared(bytes) => Some(bytes.owner()),
        }
    }
}

struct Waiting {
    message: HeldMessage,
    waits_for: WaitsFor,
    /// In the order of arrival.
    number: u64,
}

impl Waiting {
    fn cost(&self) -> usize {
        let bytes = match &self.message {
            HeldMessage::Copied(bytes) => bytes.len(),
            // All of the memory that it is in, which may be 16/9 of it.
            HeldMessage::Shared(bytes) => bytes.owner().memory_bytes(),
        };
        bytes + ENTRY_BYTES
    }
}

/// A process, and a sender to it; `None`: all senders.
type Key = (ProcessId, Sender);

struct Queue {
    process: Arc<Process>,
    messages: VecDeque<Waiting>,
}

/// What one connection holds.
#[derive(Default)]
pub struct Held {
    queues: AHashMap<Key, Queue>,
    /// How many queues each process has.
    processes: AHashMap<ProcessId, usize>,
    /// The queues whose first message waits for room for a large answer, in the order in which they are served.
    large: VecDeque<Key>,
    /// Those whose first message waits for room for a small one, or for its turn.
    small: VecDeque<Key>,
    /// Those whose first message waits for its process to be resumed: one for each such process.
    suspended: VecDeque<Key>,
    /// Spawn requests that wait for room for a large answer: whole frames.
    spawns: VecDeque<(Box<[u8]>, FrameForm)>,
    number: u64,
    bytes: usize,
}

/// A message that is delivered now.
pub(super) struct Ready {
    pub(super) process: Arc<Process>,
    pub(super) message: HeldMessage,
    key: Key,
}

impl Held {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.queues.is_empty() && self.spawns.is_empty()
    }

    /// Whether a spawn request would have to wait behind others.
    pub(super) fn holds_spawns(&self) -> bool {
        !self.spawns.is_empty()
    }

    /// Keeps a spawn request, the contents of its frame; `false`: there is no room for it.
    pub(super) fn push_spawn(&mut self, frame: &[u8], form: FrameForm, bytes_max: usize) -> bool {
        let cost = frame.len() + ENTRY_BYTES;
        if self.bytes > 0 && self.bytes + cost > bytes_max {
            return false;
        }
        self.bytes += cost;
        self.spawns.push_back((frame.into(), form));
        true
    }

    /// Takes the next spawn request, if there is room for its answer.
    pub(super) fn next_spawn(&mut self, room: Room) -> Option<(Box<[u8]>, FrameForm)> {
        let (frame, form) = if room.large { self.spawns.pop_front() } else { None }?;
        self.bytes -= frame.len() + ENTRY_BYTES;
        Some((frame, form))
    }

    /// Whether a message of this sender to a process would have to wait behind others.
    pub(super) fn holds(&self, id: ProcessId, sender: Sender) -> bool {
        self.processes.contains_key(&id)
            && (sender.is_none()
                || self.queues.contains_key(&(id, None))
                || self.queues.contains_key(&(id, sender)))
    }

    /// The processes that messages are held for.
    pub(super) fn processes(&self) -> impl Iterator<Item = &Process> {
        self.queues.values().map(|queue| &*queue.process)
    }

    /// Keeps a message; `false`: there is no room for it.
    pub(super) fn push(
        &mut self,
        process: &Arc<Process>,
        sender: Sender,
        message: HeldMessage,
        waits_for: WaitsFor,
        bytes_max: usize,
    ) -> bool {
        self.number += 1;
        let waiting = Waiting { message, waits_for, number: self.number };
        // One message always fits, however small the bound.
        if self.bytes > 0 && self.bytes + waiting.cost() > bytes_max {
            return false;
        }
        self.bytes += waiting.cost();
        let whole = waits_for == WaitsFor::Resume || sender.is_none();
        let key = self.queue_of(process, sender, whole);
        let queue = self.at(key, process);
        let is_first = queue.messages.is_empty();
        queue.messages.push_back(waiting);
        if is_first {
            self.enlist(key, waits_for);
        }
        true
    }

    /// Puts a message back that was ready and is not: its answer has no room.
    pub(super) fn put_back(&mut self, ready: Ready) {
        let Ready { process, message, key: (id, sender) } = ready;
        let waiting = Waiting { message, waits_for: WaitsFor::LargeRoom, number: 0 };
        self.bytes += waiting.cost();
        // All that came for the process may be in one queue by now.
        let key = if self.queues.contains_key(&(id, None)) { (id, None) } else { (id, sender) };
        let messages = &mut self.at(key, &process).messages;
        let was_listed = !messages.is_empty();
        messages.push_front(waiting);
        if was_listed {
            self.delist_newest(key);
        }
        // Before those that came later, which could pass it for ever.
        self.large.push_front(key);
    }

    /// Notes where a queue is served from, by what its first message waits for.
    fn enlist(&mut self, key: Key, waits_for: WaitsFor) {
        match waits_for {
            WaitsFor::Resume => self.suspended.push_back(key),
            WaitsFor::Turn | WaitsFor::SmallRoom => self.small.push_back(key),
            WaitsFor::LargeRoom => self.large.push_back(key),
        }
    }

    fn delist(&mut self, which: impl Fn(&Key) -> bool) {
        self.suspended.retain(|key| !which(key));
        self.small.retain(|key| !which(key));
        self.large.retain(|key| !which(key));
    }

    /// Takes a queue out of the lists that was put there last.
    fn delist_newest(&mut self, key: Key) {
        for list in [&mut self.suspended, &mut self.small, &mut self.large] {
            if list.back() == Some(&key) {
                list.pop_back();
                return;
            }
        }
        self.delist(|other| *other == key);
    }

    /// Takes the next message that can be delivered. What was held for its process is forgotten where that has ended.
    pub(super) fn next_ready(&mut self, room: Room) -> Option<Ready> {
        loop {
            let ready = self.next(room)?;
            if ready.process.is_alive() {
                return Some(ready);
            }
            self.process_ended(ready.process.id);
        }
    }

    fn next(&mut self, room: Room) -> Option<Ready> {
        if !self.suspended.is_empty()
            && let Some(ready) = self.next_resumed()
        {
            return Some(ready);
        }
        let queues = &self.queues;
        let first = |order: &mut VecDeque<Key>| {
            loop {
                let key = *order.front()?;
                match queues.get(&key).and_then(|queue| queue.messages.front()) {
                    Some(waiting) if waiting.waits_for.is_met_by(room) => return order.pop_front(),
                    Some(_) => return None,
                    // Its process has ended.
                    None => order.pop_front(),
                };
            }
        };
        let key = first(&mut self.small).or_else(|| first(&mut self.large))?;
        self.take(key)
    }

    /// Whether a message can be delivered, as far as room is what they wait for.
    pub(super) fn may_go_on(&self, room: Room) -> bool {
        let first = |order: &VecDeque<Key>| {
            let waiting = order.front().and_then(|key| self.queues.get(key)?.messages.front());
            waiting.is_some_and(|waiting| waiting.waits_for.is_met_by(room))
        };
        (room.large && self.holds_spawns())
            || first(&self.small)
            || first(&self.large)
            || self.suspended.iter().any(|key| self.is_resumed(*key))
    }

    /// Whether a process is suspended no more, be it that it has ended.
    fn is_resumed(&self, key: Key) -> bool {
        let runs_or_ended = |process: &Process| !process.is_suspended() || !process.is_alive();
        self.queues.get(&key).is_some_and(|queue| runs_or_ended(&queue.process))
    }

    fn next_resumed(&mut self) -> Option<Ready> {
        let at = self.suspended.iter().position(|key| self.is_resumed(*key))?;
        let key = self.suspended.remove(at)?;
        self.take(key)
    }

    /// Takes the first message of a queue.
    fn take(&mut self, key: Key) -> Option<Ready> {
        let queue = self.queues.get_mut(&key)?;
        let waiting = queue.messages.pop_front()?;
        let process = Arc::clone(&queue.process);
        self.bytes -= waiting.cost();
        match queue.messages.front() {
            None => self.drop_queue(key),
            Some(next) => {
                let waits_for = next.waits_for;
                self.enlist(key, waits_for);
            }
        }
        Some(Ready { process, message: waiting.message, key })
    }

    fn drop_queue(&mut self, key: Key) {
        self.queues.remove(&key);
        if let Some(count) = self.processes.get_mut(&key.0) {
            *count -= 1;
            if *count == 0 {
                self.processes.remove(&key.0);
            }
        }
    }

    /// The queue for a message, or for `whole` the one of all that comes for the process.
    fn queue_of(&mut self, process: &Process, sender: Sender, whole: bool) -> Key {
        let all = (process.id, None);
        if self.queues.contains_key(&all) {
            return all;
        }
        if !whole {
            return (process.id, sender);
        }
        if !self.processes.contains_key(&process.id) {
            return all;
        }
        let side_by_side: Vec<Queue> =
            self.queues.extract_if(|(id, _), _| *id == process.id).map(|(_, queue)| queue).collect();
        self.processes.remove(&process.id);
        self.delist(|(id, _)| *id == process.id);
        let mut messages: Vec<Waiting> = Vec::new();
        for (at, queue) in side_by_side.into_iter().enumerate() {
            messages.extend(queue.messages);
            if at == 0 {
                self.at(all, &queue.process);
            }
        }
        messages.sort_by_key(|waiting| waiting.number);
        let first = messages.first().map(|waiting| waiting.waits_for);
        if let Some(queue) = self.queues.get_mut(&all) {
            queue.messages = messages.into();
        }
        if let Some(waits_for) = first {
            self.enlist(all, waits_for);
        }
        all
    }

    /// A queue, which is made where there is none.
    fn at(&mut self, key: Key, process: &Arc<Process>) -> &mut Queue {
        self.queues.entry(key).or_insert_with(|| {
            *self.processes.entry(key.0).or_default() += 1;
            // Most senders have one message that waits.
            Queue { process: Arc::clone(process), messages: VecDeque::with_capacity(1) }
        })
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
            for Waiting { message, .. } in messages {
                dropped += usize::from(!self.push(&process, None, message, WaitsFor::Resume, bytes_max));
            }
        }
        dropped
    }

    /// Forgets what is held for a process.
    pub(super) fn process_ended(&mut self, id: ProcessId) {
        if self.processes.remove(&id).is_none() {
            return;
        }
        let mut bytes = 0;
        self.queues.retain(|(process, _), queue| {
            let stays = *process != id;
            if !stays {
                bytes += queue.messages.iter().map(Waiting::cost).sum::<usize>();
            }
            stays
        });
        self.bytes -= bytes;
        self.delist(|(process, _)| *process == id);
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held").field("queues", &self.queues.len()).field("bytes", &self.bytes).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Caller, GenServer, Registry, Turn, exits};
    use super::*;
    use crate::etf::TermView;

    struct Nothing;

    impl GenServer for Nothing {
        fn handle_call(&self, _: TermView<'_>, _: &Caller<'_>, _: &mut Turn<'_>) {}
        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
    }

    /// Keeps one byte that waits for its process to be resumed.
    fn suspend(held: &mut Held, process: &Arc<Process>, message: &[u8], bytes_max: usize) -> bool {
        let message = HeldMessage::new(message, None);
        held.push(process, None, message, WaitsFor::Resume, bytes_max)
    }

    fn next(held: &mut Held, room: Room) -> Option<u8> {
        held.next_ready(room).map(|ready| ready.message.bytes()[0])
    }

    #[test]
    fn messages_wait_in_order_until_their_process_runs_again() {
        let registry = Registry::new("k@h".into(), 1);
        let (one, other) = (registry.spawn(Arc::new(Nothing)), registry.spawn(Arc::new(Nothing)));
        one.set_suspended(true);
        other.set_suspended(true);
        let mut held = Held::default();
        for byte in 1..4 {
            assert!(
                suspend(&mut held, &one, &[byte], 1 << 20) && suspend(&mut held, &other, &[byte], 1 << 20)
            );
        }
        assert!(next(&mut held, Room::FREE).is_none());
        one.set_suspended(false);
        let taken: Vec<u8> = std::iter::from_fn(|| next(&mut held, Room::FREE)).collect();
        assert_eq!(taken, [1, 2, 3]);
        assert!(exits::end(&registry, &other, &[106]).is_some());
        assert!(next(&mut held, Room::FREE).is_none() && held.is_empty() && held.bytes == 0);
    }

    #[test]
    fn what_is_held_has_a_bound() {
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        process.set_suspended(true);
        let mut held = Held::default();
        assert!(suspend(&mut held, &process, &[0; 500], 100), "one always fits");
        assert!(!suspend(&mut held, &process, &[0; 500], 100));
        process.set_suspended(false);
        assert!(next(&mut held, Room::FREE).is_some() && held.bytes == 0);
    }

    /// The bound is one of memory: however small the messages are, and whichever process sends them.
    #[test]
    fn what_is_held_takes_no_more_memory_than_is_counted() {
        /// As many messages as make the tables grow once more at the end: then they have most room that nothing is in.
        const MESSAGES: u32 = (16 << 10) * 7 / 8 + 2;
        const BOUND: usize = MESSAGES as usize * (1 + ENTRY_BYTES);
        /// What the allocator adds to an allocation.
        const ADDED: u64 = 16;
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        type Fills = fn(&mut Held, &Arc<Process>, u32) -> bool;
        let ways: [(&str, Fills); 4] = [
            ("a sender each", |held, process, n| {
                let message = HeldMessage::new(&[1], None);
                held.push(process, Some((n, 0)), message, WaitsFor::LargeRoom, BOUND)
            }),
            ("one sender", |held, process, _| {
                let message = HeldMessage::new(&[1], None);
                held.push(process, Some((1, 0)), message, WaitsFor::SmallRoom, BOUND)
            }),
            ("a suspended process", |held, process, _| suspend(held, process, &[1], BOUND)),
            ("spawn requests", |held, _, _| held.push_spawn(&[1], FrameForm::PassThrough, BOUND)),
        ];
        for (what, push) in ways {
            let mut messages = 0;
            let counted = allocation_counter::measure(|| {
                let mut held = Held::default();
                while push(&mut held, &process, messages) {
                    messages += 1;
                }
            });
            assert_eq!(messages, MESSAGES, "{what}");
            let peak = counted.bytes_max + counted.count_max * ADDED;
            assert!(peak <= BOUND as u64, "{what}: each takes {} bytes", peak / u64::from(messages));
        }
    }

    #[test]
    fn a_part_of_received_memory_counts_as_the_whole() {
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        let mut memory = Vec::with_capacity(4000);
        memory.resize(3000, 7);
        let owner = Arc::new(PooledBytes::from(memory));
        let mut held = Held::default();
        let message = HeldMessage::new(&owner[700..], Some(&owner));
        assert!(held.push(&process, None, message, WaitsFor::LargeRoom, usize::MAX));
        assert_eq!(held.bytes, owner.memory_bytes() + ENTRY_BYTES);
        assert!(owner.memory_bytes() >= 4000);
        assert!(held.next_ready(Room::FREE).is_some() && held.bytes == 0);
    }

    const NONE: Room = Room { small: false, large: false };
    const SMALL: Room = Room { small: true, large: false };

    #[test]
    fn what_waits_for_room_keeps_the_order_of_its_sender_and_lets_others_pass() {
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        let mut held = Held::default();
        let push = |held: &mut Held, sender: u32, byte: u8, waits_for| {
            let message = HeldMessage::new(&[byte], None);
            assert!(held.push(&process, Some((sender, 0)), message, waits_for, 1 << 20));
        };
        push(&mut held, 1, 11, WaitsFor::LargeRoom);
        push(&mut held, 1, 12, WaitsFor::Turn);
        push(&mut held, 2, 21, WaitsFor::LargeRoom);
        assert!(held.holds(process.id, Some((1, 0))) && !held.holds(process.id, Some((3, 0))));
        assert!(held.holds(process.id, None), "an unknown sender may be any of them");
        assert_eq!((next(&mut held, NONE), next(&mut held, SMALL)), (None, None));
        // Handled, and its answer has no room after all.
        let first = held.next_ready(Room::FREE).expect("there is room");
        assert_eq!(first.message.bytes(), [11]);
        held.put_back(first);
        let all: Vec<u8> = std::iter::from_fn(|| next(&mut held, Room::FREE)).collect();
        assert_eq!(all, [11, 12, 21]);
        assert!(held.is_empty() && held.bytes == 0 && held.large.is_empty() && held.processes.is_empty());
    }

    #[test]
    fn nothing_is_handed_to_a_process_that_has_ended_also_where_it_waits_for_room() {
        let registry = Registry::new("k@h".into(), 1);
        let (ended, lives) = (registry.spawn(Arc::new(Nothing)), registry.spawn(Arc::new(Nothing)));
        let mut held = Held::default();
        for (process, sender, byte) in [(&ended, 1, 1), (&ended, 2, 2), (&lives, 1, 3)] {
            let message = HeldMessage::new(&[byte], None);
            assert!(held.push(process, Some((sender, 0)), message, WaitsFor::LargeRoom, 1 << 20));
        }
        assert!(exits::end(&registry, &ended, &[106]).is_some());
        assert_eq!((next(&mut held, Room::FREE), next(&mut held, Room::FREE)), (Some(3), None));
        assert!(held.is_empty() && held.bytes == 0 && held.large.is_empty() && held.processes.is_empty());
    }

    /// A peer chooses the pids that its messages are from: what each of very many costs must not grow with their number.
    #[test]
    fn very_many_senders_cost_each_what_a_few_do() {
        const SENDERS: u32 = 80_000;
        let registry = Registry::new("k@h".into(), 1);
        let (process, suspended) = (registry.spawn(Arc::new(Nothing)), registry.spawn(Arc::new(Nothing)));
        suspended.set_suspended(true);
        let mut held = Held::default();
        assert!(suspend(&mut held, &suspended, &[0], usize::MAX));
        for sender in 0..SENDERS {
            for waits_for in [WaitsFor::SmallRoom, WaitsFor::Turn] {
                let message = HeldMessage::new(&[1], None);
                assert!(held.push(&process, Some((sender, 0)), message, waits_for, usize::MAX));
            }
        }
        #[expect(clippy::disallowed_methods, reason = "a bound that only what is quadratic is over")]
        let began = std::time::Instant::now();
        for _ in 0..SENDERS {
            let ready = held.next_ready(SMALL).expect("there is room for small answers");
            held.put_back(ready);
        }
        assert!(held.next_ready(SMALL).is_none() && held.large.len() == SENDERS as usize);
        assert!(held.small.is_empty(), "what comes behind is listed once it is the first");
        held.process_ended(process.id);
        assert!(held.large.is_empty() && held.queues.len() == 1);
        assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    }

    #[test]
    fn behind_an_unknown_sender_everything_is_in_the_order_of_its_arrival() {
        let registry = Registry::new("k@h".into(), 1);
        let process = registry.spawn(Arc::new(Nothing));
        let mut held = Held::default();
        for (byte, sender) in
            [(1, Some((1, 0))), (2, Some((2, 0))), (3, Some((1, 0))), (4, None), (5, Some((2, 0)))]
        {
            let message = HeldMessage::new(&[byte], None);
            let waits_for = if held.holds(process.id, sender) { WaitsFor::Turn } else { WaitsFor::LargeRoom };
            assert!(held.push(&process, sender, message, waits_for, 1 << 20));
        }
        let all: Vec<u8> = std::iter::from_fn(|| next(&mut held, Room::FREE)).collect();
        assert_eq!(all, [1, 2, 3, 4, 5]);
        assert!(held.is_empty());
    }
}
