//! A process that a store tells of its changes: they wait here until they are taken.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

use crate::config::Limits;
use crate::etf::{OwnedTerm, TermView};
use crate::process::{Caller, GenServer, Turn};

/// What comes next.
#[derive(Debug)]
pub(super) enum Next {
    Message(OwnedTerm),
    End(End),
}

/// Why nothing comes any more.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// A message had no room.
    Full,
    /// What was monitored has ended with this reason.
    Down(OwnedTerm),
    /// This process has ended, as all do with their node.
    Stopped,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<OwnedTerm>,
    bytes: usize,
    end: Option<End>,
    /// Of the task that waits.
    waker: Option<Waker>,
}

/// What has come. Bounded as the mailbox of a [`Server`](crate::Server).
#[derive(Debug)]
pub(super) struct Inbox {
    queue: Mutex<Queue>,
    messages_max: usize,
    bytes_max: usize,
}

impl Inbox {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        let (messages_max, bytes_max) = (limits.mailbox_messages_max, limits.mailbox_bytes_max);
        Arc::new(Self { queue: Mutex::default(), messages_max, bytes_max })
    }

    /// Takes what has come first. Behind the last message stands the end, each time.
    pub(super) fn poll_next(&self, cx: &Context<'_>) -> Poll<Next> {
        let mut queue = self.queue.lock();
        if let Some(message) = queue.waiting.pop_front() {
            queue.bytes -= message.view().bytes().len();
            return Poll::Ready(Next::Message(message));
        }
        if let Some(end) = &queue.end {
            return Poll::Ready(Next::End(end.clone()));
        }
        queue.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Nothing comes behind this. The first end counts.
    pub(super) fn end(&self, end: End) {
        self.change(|queue| _ = queue.end.get_or_insert(end));
    }

    /// Gives whether there was room.
    fn put(&self, message: TermView<'_>) -> bool {
        let len = message.bytes().len();
        self.change(|queue| {
            if queue.end.is_some() {
                return true;
            }
            let has_room = queue.waiting.len() < self.messages_max && queue.bytes + len <= self.bytes_max;
            if has_room {
                queue.bytes += len;
                queue.waiting.push_back(message.into());
            } else {
                queue.end = Some(End::Full);
            }
            has_room
        })
    }

    fn change<R>(&self, change: impl FnOnce(&mut Queue) -> R) -> R {
        let (result, waker) = {
            let mut queue = self.queue.lock();
            (change(&mut queue), queue.waker.take())
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        result
    }
}

impl GenServer for Inbox {
    fn handle_call(&self, _request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        turn.end_call(caller, |w| _ = w.atom("noproc"));
    }

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}

    fn handle_info(&self, message: TermView<'_>, turn: &mut Turn<'_>) {
        // `{:kvnode, ref, …}`; others have no room here.
        let is_told = message.as_tuple::<3>().is_some_and(|[word, ..]| word.is_atom("kvnode"));
        if is_told && !self.put(message) {
            // The store is not to go on for nobody.
            turn.exit(|w| _ = w.atom("normal"));
        }
    }

    fn terminate(&self, _reason: TermView<'_>) {
        self.end(End::Stopped);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(inbox: &Inbox) -> Poll<Next> {
        inbox.poll_next(&Context::from_waker(Waker::noop()))
    }

    #[test]
    fn what_has_come_is_taken_in_order_and_the_end_last() {
        let inbox =
            Inbox::new(&Limits { mailbox_messages_max: 2, mailbox_bytes_max: 100, ..Limits::default() });
        assert!(taken(&inbox).is_pending());
        let messages = [1, 2, 3].map(|n| OwnedTerm::write(|w| _ = w.integer(n)).expect("a term"));
        assert!(inbox.put(messages[0].view()) && inbox.put(messages[1].view()));
        assert!(!inbox.put(messages[2].view()), "there is no room");
        inbox.end(End::Stopped);
        for message in &messages[..2] {
            assert!(matches!(taken(&inbox), Poll::Ready(Next::Message(taken)) if taken == *message));
            assert!(inbox.put(messages[2].view()), "nothing is taken behind the end, and nothing ends twice");
        }
        for _ in 0..2 {
            assert!(matches!(taken(&inbox), Poll::Ready(Next::End(End::Full))));
        }
    }

    #[test]
    fn bytes_are_bounded_too_and_given_back() {
        let inbox =
            Inbox::new(&Limits { mailbox_messages_max: 9, mailbox_bytes_max: 20, ..Limits::default() });
        let message = OwnedTerm::write(|w| _ = w.binary(&[7; 10])).expect("a term");
        for _ in 0..3 {
            assert!(inbox.put(message.view()));
            assert!(matches!(taken(&inbox), Poll::Ready(Next::Message(_))));
        }
        assert!(inbox.put(message.view()) && !inbox.put(message.view()));
    }
}
