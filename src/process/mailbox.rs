//! The mailbox of a server that handles one message after the other, on a task of its own.
//!
//! To the connections it is a [`GenServer`] that keeps what comes, in order; the shell takes it out again
//! ([`Mailbox::poll_next`]). What waits is bounded: `Limits::mailbox_messages_max` says what happens at the bound.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use parking_lot::Mutex;

use super::exits::guarded;
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
        /// When it came, where the mailbox has a clock.
        came: Option<Instant>,
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
    /// A Rust value from the program itself: the server that the mailbox is of knows its type. Nothing that came from a node
    /// is one.
    Own(Box<dyn Any + Send>),
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
            // How much a value takes is not known, and no peer brings one.
            Self::Own(_) | Self::State(_) => 0,
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
    /// `None`: nobody asks how long calls have waited.
    clock: Option<fn() -> Instant>,
}

impl Mailbox {
    /// An empty one, with its bounds.
    pub fn new(messages_max: usize, bytes_max: usize) -> Self {
        Self {
            queue: Mutex::default(),
            traps_exits: AtomicBool::new(false),
            messages_max,
            bytes_max,
            clock: None,
        }
    }

    /// The same, and each call says when it came.
    pub fn timed_by(self, clock: fn() -> Instant) -> Self {
        Self { clock: Some(clock), ..self }
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
            tracing::warn!(dropped, "the mailbox had no room: messages were dropped, calls among them ended");
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

    /// Puts in what is bounded elsewhere: by the server's own monitors and tasks, or by being one.
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
        if let Err(reached) = self.has_room(&queue, bytes) {
            queue.dropped += 1;
            let first = queue.dropped == 1;
            return Err(Full { reached, first });
        }
        queue.put(envelope());
        Ok(())
    }

    /// Puts a value of the program's own in ([`Envelope::Own`]), behind what waits.
    ///
    /// # Errors
    /// It is not put in, and `own` was not called.
    pub fn tell(&self, own: impl FnOnce() -> Box<dyn Any + Send>) -> Result<(), NotTaken> {
        let mut queue = self.queue.lock();
        if queue.ended {
            return Err(NotTaken::Ended);
        }
        self.has_room(&queue, 0).map_err(|_| NotTaken::Full)?;
        queue.put(Envelope::Own(own()));
        Ok(())
    }

    fn has_room(&self, queue: &Queue, bytes: usize) -> Result<(), Bound> {
        if queue.envelopes.len() >= self.messages_max {
            return Err(Bound::Messages { max: self.messages_max });
        }
        let room = self.bytes_max.saturating_sub(queue.bytes);
        if bytes > room {
            return Err(Bound::Bytes { bytes, room, max: self.bytes_max });
        }
        Ok(())
    }

    /// Messages that wait.
    pub fn len(&self) -> usize {
        self.queue.lock().envelopes.len()
    }
}

/// Why a value of the program's own was not put in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTaken {
    /// So many messages wait as may.
    Full,
    /// The process has ended.
    Ended,
}

/// There was no room.
#[derive(Debug)]
struct Full {
    reached: Bound,
    /// It is the first message that there was no room for.
    first: bool,
}

/// The bound that a message has met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Bound {
    #[error("the server's mailbox has {max} messages, and takes no more (Limits::mailbox_messages_max)")]
    Messages { max: usize },
    #[error(
        "the message has {bytes} bytes, and the server's mailbox has room for {room} of its {max} (Limits::mailbox_bytes_max)"
    )]
    Bytes { bytes: usize, room: usize, max: usize },
}

impl Full {
    fn say(&self, turn: &Turn<'_>) {
        if self.first {
            tracing::warn!(process = ?turn.me, peer = turn.peer, "message dropped: {}", self.reached);
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
        let call = || Envelope::Call {
            request: request.into(),
            from: caller.to_owned(&turn.me.pid),
            came: self.clock.map(|now| now()),
        };
        if let Err(full) = self.offer(request.bytes().len(), call) {
            full.say(turn);
            turn.end_call(caller, |w| {
                w.tuple(2).atom("system_limit").binary(full.reached.to_string().as_bytes());
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

    fn bytes_waiting(&self) -> usize {
        self.queue.lock().bytes
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
        // Without the lock: whatever their callers hold is dropped with them. A value of the program's own may panic where it
        // is dropped: that is not to keep the others.
        for envelope in left {
            if let Err(text) = guarded(|| drop(envelope)) {
                tracing::error!(
                    panic = text,
                    "a message panicked when it was dropped (a bug of the program)"
                );
            }
        }
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn cast() -> Envelope {
        Envelope::Cast(OwnedTerm::atom("x"))
    }

    fn next(mailbox: &Mailbox) -> Option<Envelope> {
        match mailbox.poll_next(&Context::from_waker(Waker::noop())) {
            Poll::Ready(Next::Envelope(envelope)) => Some(envelope),
            Poll::Ready(Next::Ended) | Poll::Pending => None,
        }
    }

    #[test]
    fn a_message_without_room_is_told_which_bound_it_met_and_what_the_room_was() {
        let mailbox = Mailbox::new(2, 100);
        let says = |bytes| mailbox.offer(bytes, cast).map_err(|full| full.reached.to_string());
        let over = "the message has 101 bytes, and the server's mailbox has room for 100 of its 100 \
                    (Limits::mailbox_bytes_max)";
        assert_eq!(says(101), Err(over.to_owned()));
        assert_eq!(says(100), Ok(()), "one of just so many bytes has room");
        // `:x` has three bytes, which is what it is counted with from here on.
        let over = "the message has 98 bytes, and the server's mailbox has room for 97 of its 100 \
                    (Limits::mailbox_bytes_max)";
        assert_eq!(says(98), Err(over.to_owned()));
        assert_eq!(says(97), Ok(()));
        let over = "the server's mailbox has 2 messages, and takes no more (Limits::mailbox_messages_max)";
        assert_eq!(says(0), Err(over.to_owned()));
        assert!(next(&mailbox).is_some());
        assert_eq!(says(0), Ok(()));
    }

    #[test]
    fn values_of_the_program_come_in_order_and_are_counted_with_the_others() {
        let mailbox = Mailbox::new(3, 100);
        mailbox.offer(0, cast).expect("there is room");
        mailbox.tell(|| Box::new(7_u8)).expect("there is room");
        mailbox.offer(0, cast).expect("there is room");
        assert_eq!(mailbox.tell(|| unreachable!("there is no room")), Err(NotTaken::Full));
        assert!(matches!(next(&mailbox), Some(Envelope::Cast(_))));
        let Some(Envelope::Own(value)) = next(&mailbox) else { panic!("the value comes second") };
        assert_eq!(value.downcast_ref::<u8>(), Some(&7));
        assert!(matches!(next(&mailbox), Some(Envelope::Cast(_))));
        mailbox.terminate(OwnedTerm::atom("normal").view());
        assert_eq!(mailbox.tell(|| unreachable!("it has ended")), Err(NotTaken::Ended));
    }

    #[test]
    fn a_value_that_panics_where_it_is_dropped_does_not_keep_the_others() {
        struct Spiteful {
            _held: Arc<()>,
        }
        impl Drop for Spiteful {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        let mailbox = Mailbox::new(9, 100);
        let held = Arc::new(());
        for _ in 0..3 {
            let value = Spiteful { _held: Arc::clone(&held) };
            mailbox.tell(|| Box::new(value)).expect("there is room");
        }
        mailbox.terminate(OwnedTerm::atom("normal").view());
        assert_eq!(Arc::strong_count(&held), 1);
    }
}
