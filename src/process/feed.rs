//! Streams of messages to processes on other nodes, which their receiver's pace drives.
//!
//! The sender of a stream queues what is to be sent in a place of its own, in an order of its own, and announces a [`Feed`]
//! ([`Effect::Feed`](super::Effect::Feed), [`Dispatch::feed`](super::Dispatch::feed)). The connection asks that feed for more
//! whenever it has room, one thread at a time: so the order stays that of the queue, whichever connections and threads
//! announce it, and no more waits at the connection than has room there. Messages that go out as effects have neither:
//! effects of two connections are carried out in any order, and what they send waits or is dropped at a bound.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use super::exits::guarded;
use super::waiters::PendingCall;
use super::{Outcome, Registry, Waiters};
use crate::distribution::outbound::Mark;
use crate::distribution::{DistributionFlags, Outbound, RemoteProcess};
use crate::etf::{Pid, Reference, SharedBytes, TermWriter};

/// Something that has messages for processes on another node.
///
/// # A stream of numbers
///
/// As fast as the node of its receiver takes them, and without a queue: each number is written when there is room for it.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
///
/// use kvnode::distribution::RemoteProcess;
/// use kvnode::etf::{Pid, TermView};
/// use kvnode::process::{Effect, Feed, Feeding, More};
/// use kvnode::{Caller, GenServer, Turn};
///
/// #[derive(Debug)]
/// struct Numbers {
///     from: Pid,
///     to: RemoteProcess,
///     next: AtomicU64,
///     end: u64,
/// }
///
/// impl Feed for Numbers {
///     fn feed(&self, out: &mut Feeding<'_>) -> More {
///         while self.next.load(Relaxed) < self.end {
///             if !out.has_room() {
///                 return More::WhenRoom;
///             }
///             let number = self.next.fetch_add(1, Relaxed);
///             out.send(&self.from, &self.to, |w| _ = w.unsigned(number));
///         }
///         More::No
///     }
/// }
///
/// /// `GenServer.call(counting, n)`: the messages 0, 1, … n - 1 come to the caller.
/// struct Counting;
///
/// impl GenServer for Counting {
///     fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
///         let Some(end) = request.as_unsigned() else {
///             return turn.end_call(caller, |w| _ = w.tuple(2).atom("bad_call").term(request));
///         };
///         let to: Pid = caller.pid().into();
///         let node = Arc::clone(&to.node);
///         let from = turn.me.pid.clone();
///         let numbers = Numbers { from, to: RemoteProcess::Pid(to), next: AtomicU64::new(0), end };
///         turn.effects.push(Effect::Feed(node, Arc::new(numbers)));
///         turn.reply(caller, |w| _ = w.atom("ok"));
///     }
///
///     fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}
/// }
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = kvnode::Node::builder("counting").start()?;
/// node.serve_inline(Arc::new(Counting)).register("counting")?;
/// # Ok(())
/// # }
/// ```
pub trait Feed: fmt::Debug + Send + Sync {
    /// The connection to a node has room: writes what waits, as long as there is [room](Feeding::has_room).
    ///
    /// Called from any thread, by one at a time for one connection, while other senders to that node wait: it must
    /// neither block nor announce a feed nor send by other ways. A panic is logged: the message that was being written is
    /// taken back, those before it go out, and the feed is asked again when it is announced again.
    fn feed(&self, out: &mut Feeding<'_>) -> More;
}

/// Whether a feed has more than it has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// No: it is asked again when it is announced again.
    No,
    /// Yes: it is asked again when there is room again.
    WhenRoom,
}

/// A node that is fed, at this moment.
#[derive(Clone, Copy, Debug)]
pub struct FedNode<'a> {
    /// Its name.
    pub name: &'a Arc<str>,
    /// The flags that it offered.
    #[doc(hidden)]
    pub flags: DistributionFlags,
    /// There is room as long as the frames take less than so many bytes. One message always fits.
    pub frames_bytes_max: usize,
    /// The monotonic clock.
    pub now: Instant,
}

/// The output to a node, while a [`Feed`] writes into it.
#[derive(Debug)]
pub struct Feeding<'a> {
    node: FedNode<'a>,
    frames: &'a mut Outbound,
    registry: &'a Registry,
    waiters: &'a Waiters,
    /// Where the message begins that is being written.
    begun: Option<Mark>,
}

impl<'a> Feeding<'a> {
    /// Of a connection's `frames`. Calls have references of `registry`, and their answers are waited for in `waiters`.
    #[doc(hidden)]
    pub const fn new(
        node: FedNode<'a>,
        frames: &'a mut Outbound,
        registry: &'a Registry,
        waiters: &'a Waiters,
    ) -> Self {
        Self { node, frames, registry, waiters, begun: None }
    }

    /// Asks a feed for more.
    pub fn ask(&mut self, feed: &dyn Feed) -> More {
        let mut more = More::No;
        if let Err(panic) = guarded(|| more = feed.feed(self)) {
            tracing::error!(?feed, node = %self.node.name, panic, "feed panicked (a bug of the feed)");
            if let Some(begun) = self.begun.take() {
                self.frames.rollback(begun);
            }
        }
        more
    }

    /// The name of the node.
    pub const fn node(&self) -> &'a Arc<str> {
        self.node.name
    }

    /// The flags that it offered: [`DistributionFlags::can_decode`] says what must not be sent to it.
    #[doc(hidden)]
    pub const fn flags(&self) -> DistributionFlags {
        self.node.flags
    }

    /// The monotonic clock.
    pub const fn now(&self) -> Instant {
        self.node.now
    }

    /// Whether there is room for another message.
    pub fn has_room(&self) -> bool {
        self.frames.len() < self.node.frames_bytes_max
    }

    /// A message to a process on the node. `message` writes exactly one term.
    pub fn send(&mut self, from: &Pid, to: &RemoteProcess, message: impl FnOnce(&mut TermWriter<'_>)) {
        self.begun = Some(self.frames.mark());
        self.frames.send_to(from, to, message);
        self.begun = None;
    }

    /// The same to a pid. `message` writes a term, but for the last part of it, encoded, which it may give: that is not copied.
    pub fn send_ending(
        &mut self,
        to: &Pid,
        message: impl FnOnce(&mut TermWriter<'_>) -> Option<SharedBytes>,
    ) {
        self.begun = Some(self.frames.mark());
        self.frames.send_ending(to, message);
        self.begun = None;
    }

    /// Takes a monitor back that a process of ours has set.
    pub fn demonitor(&mut self, from: &Pid, of: &RemoteProcess, monitor: &Reference) {
        self.waiters.cancel(monitor);
        self.frames.demonitor(from, of, monitor);
    }

    /// A call in this very place of the stream: whatever is written before it is in the mailbox of the process before the
    /// request is. `request` writes exactly one term, and is shown the call's reference, which is in no other message.
    ///
    /// `done` is called once, from any thread, with the answer or when the node is lost; it must not block. The end of
    /// the process alone does not end the call, as its caller monitors it or does without. Dropping what this gives
    /// forgets the call.
    #[doc(hidden)]
    pub fn call(
        &mut self,
        from: &Pid,
        to: &RemoteProcess,
        request: impl FnOnce(&mut TermWriter<'_>, &Reference),
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> PendingCall {
        let reference = self.registry.new_reference();
        self.waiters.expect_reply(&reference, self.node.name, done);
        let pending = self.waiters.pending(&reference);
        let knows_aliases = self.node.flags.knows_aliases();
        self.send(from, to, |w| {
            w.tuple(3).atom("$gen_call").tuple(2).pid(from);
            if knows_aliases {
                w.list(1).atom("alias");
            }
            w.reference(&reference);
            request(w, &reference);
        });
        pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{OwnedTerm, encode};
    use parking_lot::Mutex;

    #[expect(clippy::disallowed_methods, reason = "some instant")]
    fn fed(name: &Arc<str>) -> FedNode<'_> {
        FedNode { name, flags: DistributionFlags::OFFERED, frames_bytes_max: 64, now: Instant::now() }
    }

    /// Two messages, then a panic in the middle of a third or between two.
    #[derive(Debug)]
    struct Panics {
        to: RemoteProcess,
        from: Pid,
        within: fn(&mut Feeding<'_>, &Pid, &RemoteProcess),
    }

    impl Feed for Panics {
        fn feed(&self, out: &mut Feeding<'_>) -> More {
            out.send(&self.from, &self.to, |w| _ = w.atom("whole"));
            (self.within)(out, &self.from, &self.to);
            More::WhenRoom
        }
    }

    fn ends_in_the_middle(w: &mut TermWriter<'_>) {
        w.tuple(2).atom("half");
        panic!("in a message");
    }

    #[test]
    fn a_panic_costs_the_message_that_was_being_written_and_nothing_else() {
        let (registry, waiters) = (Registry::new("k@h".into(), 5), Waiters::default());
        let name: Arc<str> = "m@h".into();
        let (_, from) = registry.new_pid();
        let to = RemoteProcess::Pid(Pid { node: Arc::clone(&name), id: 1, serial: 0, creation: 1 });
        let frames_of = |within| {
            let mut frames = Outbound::default();
            let feed = Panics { to: to.clone(), from: from.clone(), within };
            let mut out = Feeding::new(fed(&name), &mut frames, &registry, &waiters);
            let more = out.ask(&feed);
            (more, frames.single_slice().expect("small frames").to_vec())
        };
        let (more, whole) = frames_of(|_, _, _| {});
        assert_eq!(more, More::WhenRoom);
        assert!(!whole.is_empty());
        let panicking: [fn(&mut Feeding<'_>, &Pid, &RemoteProcess); 3] = [
            |_, _, _| panic!("between two"),
            |out, from, to| out.send(from, to, ends_in_the_middle),
            |out, from, to| {
                drop(out.call(from, to, |w, _| ends_in_the_middle(w), |_| {}));
            },
        ];
        for within in panicking {
            assert_eq!(frames_of(within), (More::No, whole.clone()));
            assert!(waiters.is_empty(), "nobody waits for an answer to what was not asked");
        }
    }

    #[test]
    fn a_call_stands_behind_what_was_sent_and_is_forgotten_with_its_handle() {
        let (registry, waiters) = (Registry::new("k@h".into(), 5), Waiters::default());
        let (name, mut frames): (Arc<str>, _) = ("m@h".into(), Outbound::default());
        let (_, from) = registry.new_pid();
        let to = RemoteProcess::Pid(Pid { node: Arc::clone(&name), id: 1, serial: 0, creation: 1 });
        let told = Arc::new(Mutex::new(Vec::new()));
        let mut out = Feeding::new(fed(&name), &mut frames, &registry, &waiters);
        assert!(out.has_room());
        out.send(&from, &to, |w| _ = w.binary(&[7; 64]));
        assert!(!out.has_room());
        let mut asked = Vec::new();
        let mut call = || {
            let tell = Arc::clone(&told);
            let request = |w: &mut TermWriter<'_>, reference: &Reference| {
                asked.push(reference.clone());
                w.reference(reference);
            };
            out.call(&from, &to, request, move |outcome| tell.lock().push(outcome))
        };
        let (forgotten, kept) = (call(), call());
        drop(forgotten);
        assert_eq!(waiters.len(), 1);
        for reference in &asked {
            let answer = encode(|w| _ = w.tuple(2).reference(reference).atom("fine"));
            let answer = OwnedTerm::parse(answer).expect("a term");
            assert!(waiters.replied(answer.view(), &registry), "it is of ours");
        }
        assert_eq!(*told.lock(), [Outcome::Replied(OwnedTerm::atom("fine"))]);
        drop(kept);
        assert!(waiters.is_empty());
    }
}
