//! The mailbox of a server that handles one message after the other, on a task of its own.
//!
//! To the connections it is a [`GenServer`] that keeps what comes, in order; the shell takes it out again
//! ([`Mailbox::poll_next`]). What waits is bounded: `Limits::mailbox_messages_max` says what happens at the bound.

use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use super::system::StateRequest;
use super::{Caller, ExitSignals, GenServer, OwnedCaller, Turn};
use crate::etf::{OwnedTerm, TermView};

/// What waits in a mailbox.
#[derive(Debug)]
pub enum Envelope {
    /// A call.
    Call {
        /// What is asked.
        request: OwnedTerm,
        /// The caller that waits for the answer.
        from: OwnedCaller,
    },
    /// A cast.
    Cast(OwnedTerm),
    /// Any other message.
    Info(OwnedTerm),
    /// A process that is monitored has ended, or was never there.
    Down {
        /// The number of the monitor, as the server that set it counts them.
        monitor: u64,
        /// Why.
        reason: OwnedTerm,
    },
    /// Another process asks for the state.
    State(StateRequest),
    /// The server is to end, when it has handled what came before.
    Stop {
        /// Why.
        reason: OwnedTerm,
    },
}

impl Envelope {
    /// Bytes that it is counted with.
    fn bytes(&self) -> usize {
        match self {
            Self::Call { request, .. } => request.view().bytes().len(),
            Self::Cast(term) | Self::Info(term) => term.view().bytes().len(),
            Self::Down { reason, .. } => reason.view().bytes().len(),
            Self::Stop { reason } => reason.view().bytes().len(),
            Self::State(_) => 0,
        }
    }
}

/// What a look into a mailbox gives.
#[derive(Debug)]
pub enum Next {
    /// A message.
    Envelope(Envelope),
    /// The process has ended: nothing comes any more.
    Ended,
}

#[derive(Default)]
struct Queue {
    envelopes: VecDeque<Envelope>,
    bytes: usize,
    /// Messages that were dropped since there was last room.
    dropped: u64,
    ended: bool,
    /// Of the server's task, when it waits for a message.
    waker: Option<Waker>,
    /// Of the server's task, for the end.
    end_waker: Option<Waker>,
}

/// A mailbox.
pub struct Mailbox {
    queue: Mutex<Queue>,
    traps_exits: AtomicBool,
    messages_max: usize,
    bytes_max: usize,
}

impl Mailbox {
    /// An empty one, with its bounds.
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self { queue: Mutex::default(), traps_exits: AtomicBool::new(false), messages_max, bytes_max }
    }

    /// Takes the next message out; woken by the task's waker when there is one later.
    pub fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return Poll::Ready(Next::Ended);
        }
        let Some(envelope) = queue.envelopes.pop_front() else {
            queue.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        queue.bytes -= envelope.bytes();
        let dropped = std::mem::take(&mut queue.dropped);
        drop(queue);
        if dropped > 0 {
            tracing::warn!(dropped, "the mailbox was full: messages were dropped, calls among them ended");
        }
        Poll::Ready(Next::Envelope(envelope))
    }

    /// Ready when the process has ended.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return Poll::Ready(());
        }
        queue.end_waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Puts in what is bounded elsewhere: by the server's own monitors, or by being one.
    pub fn push(&self, envelope: Envelope) {
        let mut queue = self.queue.lock();
        if !queue.ended {
            queue.put(envelope);
        }
    }

    /// Whether exit signals are messages to the server, as after `Process.flag(:trap_exit, true)`.
    pub fn trap_exits(&self, trap: bool) {
        self.traps_exits.store(trap, Ordering::Release);
    }

    /// Puts a message in if there is room for so many bytes more.
    fn offer(&self, bytes: usize, envelope: impl FnOnce() -> Envelope) -> Result<(), Full> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return Ok(());
        }
        if queue.envelopes.len() >= self.messages_max || queue.bytes.saturating_add(bytes) > self.bytes_max {
            queue.dropped += 1;
            let first = queue.dropped == 1;
            drop(queue);
            return Err(Full { first });
        }
        queue.put(envelope());
        Ok(())
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.lock().envelopes.len()
    }
}

/// There was no room.
struct Full {
    /// It is the first message that there was no room for.
    first: bool,
}

impl Full {
    fn say(&self, turn: &Turn<'_>) {
        if self.first {
            tracing::warn!(process = ?turn.me, peer = turn.peer, "mailbox full: messages are dropped");
        }
    }
}

impl Queue {
    fn put(&mut self, envelope: Envelope) {
        self.bytes += envelope.bytes();
        self.envelopes.push_back(envelope);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl GenServer for Mailbox {
    fn waits_for_room(&self) -> bool {
        true
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let call = || Envelope::Call { request: request.into(), from: caller.to_owned(&turn.me.pid) };
        if let Err(full) = self.offer(request.bytes().len(), call) {
            full.say(turn);
            turn.end_call(caller, |w| {
                w.tuple(2).atom("system_limit").binary(b"the server's mailbox is full");
            });
        }
    }

    fn handle_cast(&self, request: TermView<'_>, turn: &mut Turn<'_>) {
        if let Err(full) = self.offer(request.bytes().len(), || Envelope::Cast(request.into())) {
            full.say(turn);
        }
    }

    fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
        if let Err(full) = self.offer(message.bytes().len(), || Envelope::Info(message.into())) {
            full.say(turn);
        }
    }

    fn stop(&self, reason: TermView<'_>) -> bool {
        self.push(Envelope::Stop { reason: reason.into() });
        true
    }

    fn ask_state(&self, asked: StateRequest) -> Option<StateRequest> {
        let mut asked = Some(asked);
        let envelope = || Envelope::State(asked.take().expect("it is put in once"));
        match self.offer(0, envelope) {
            Ok(()) => None,
            Err(_) => asked,
        }
    }

    fn messages_waiting(&self) -> usize {
        self.len()
    }

    fn exit_signals(&self) -> ExitSignals {
        if self.traps_exits.load(Ordering::Acquire) { ExitSignals::Trap } else { ExitSignals::Obey }
    }

    fn terminate(&self, _reason: TermView<'_>) {
        let left = {
            let mut queue = self.queue.lock();
            queue.ended = true;
            queue.bytes = 0;
            for waker in [queue.waker.take(), queue.end_waker.take()].into_iter().flatten() {
                waker.wake();
            }
            std::mem::take(&mut queue.envelopes)
        };
        // Without the lock: whatever their callers hold is dropped with them.
        drop(left);
    }
}

impl fmt::Debug for Mailbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queue = self.queue.lock();
        f.debug_struct("Mailbox")
            .field("messages", &queue.envelopes.len())
            .field("bytes", &queue.bytes)
            .field("ended", &queue.ended)
            .finish()
    }
}
