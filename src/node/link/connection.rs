//! A connection after its handshake: the loop that everything else is built around.
//!
//! Read what the socket has; deliver each complete signal by a plain call; carry out the effects; write all
//! answers at once. What may wait for what is decided in [`Channel`], which is this connection without its socket; here
//! are the socket, the clock, and what other tasks leave. Over anything that reads and writes bytes, and driven in one of two ways: as a task on the
//! executor while it is quiet, by a thread of its own while it is busy ([`dedicated`](crate::node::link::dedicated)).

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::Stream;

use crate::distribution::{Inbound, InboundLimits, Outbound, Pace};
use crate::node::link::socket::Waits;
use crate::node::peers::{PeerDown, PeerHandle};
use crate::node::{Node, now};
use crate::process::channel::{Channel, ChannelFault, ChannelLimits, Step};
use crate::process::figures::Timed;
use crate::process::latency::SAMPLED;
use crate::process::peer::Surroundings;
use crate::process::{Effect, Peer, PeerEvent};

/// Reads with signals in one tick interval from which a connection counts as busy.
const BUSY_READS: u32 = 16;
/// Effects after which they are carried out, also within one batch of frames.
const EFFECTS_MAX: usize = 64;
/// Rounds after which the task lets others have the thread, also when there is more to do.
const ROUNDS_MAX: u32 = 32;

/// One connection's own state; nobody else touches it.
pub(in crate::node) struct Connection<S> {
    node: Arc<Node>,
    stream: S,
    handle: Arc<PeerHandle>,
    channel: Channel,
    later: Vec<Effect>,
    /// Reads with signals in them since the last tick interval.
    reads: u32,
    /// Something was handled since this was last asked.
    handled: bool,
    /// There may be something to handle before the next read.
    unhandled: bool,
    /// The stream has taken bytes that it has not passed on.
    unflushed: bool,
    /// Others wait for room.
    is_awaited: bool,
    closing: Option<PeerDown>,
}

impl<S> Drop for Connection<S> {
    /// However it ended: what was linked to processes of ours is told.
    fn drop(&mut self) {
        self.channel.lost(self.node.surroundings(), &mut self.later);
        self.node.carry_out(&mut self.later);
    }
}

impl From<ChannelFault> for PeerDown {
    fn from(fault: ChannelFault) -> Self {
        match fault {
            ChannelFault::Silent => Self::NetTickTimeout,
            ChannelFault::NotReading => Self::NotReading,
            ChannelFault::Crowded => Self::Crowded,
            fault => Self::Protocol(fault.to_string()),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Waits + Unpin> Connection<S> {
    /// `first`: bytes that were read together with the end of the handshake.
    pub(in crate::node) fn new(node: Arc<Node>, stream: S, handle: Arc<PeerHandle>, first: &[u8]) -> Self {
        let limits = &node.config.limits;
        let inbound = Inbound::new(
            first,
            handle.form,
            InboundLimits {
                frame_bytes_max: limits.frame_bytes_max,
                unfinished_bytes_max: limits.unfinished_bytes_max.max(limits.frame_bytes_max),
                unfinished_messages_max: limits.unfinished_messages_max,
            },
        )
        .with_pool(Arc::clone(&node.pool));
        let channel = Channel::new(
            Peer::new(Arc::clone(&handle.name), handle.offered),
            inbound,
            handle.alias_form,
            node.config.net_ticktime_secs,
            Pace::new(stream.is_near()),
            ChannelLimits {
                outbound_bytes_max: limits.outbound_bytes_max,
                owned_bytes_max: limits.outbound_bytes_max.saturating_add(limits.frame_bytes_max),
                output_stall_max: limits.output_stall_max,
            },
        );
        Self {
            channel,
            node,
            stream,
            handle,
            later: Vec::new(),
            reads: 0,
            handled: false,
            unhandled: !first.is_empty(),
            unflushed: false,
            is_awaited: false,
            closing: None,
        }
    }

    /// Runs as a task, until the connection ends, or is busy enough for a thread of its own where `may_leave`.
    pub(in crate::node) async fn run(&mut self, may_leave: bool) -> Option<PeerDown> {
        let mut interval = Timer::interval(self.interval());
        poll_fn(|cx| {
            let tick = Pin::new(&mut interval).poll_next(cx).is_ready();
            if let Poll::Ready(down) = self.poll(cx, tick) {
                return Poll::Ready(Some(down));
            }
            if may_leave && self.reads >= BUSY_READS { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// Goes on as far as it can without waiting. `tick`: a tick interval has passed.
    pub(in crate::node) fn poll(&mut self, cx: &mut Context<'_>, tick: bool) -> Poll<PeerDown> {
        if tick && let Err(down) = self.tick() {
            return Poll::Ready(down);
        }
        for _ in 0..ROUNDS_MAX {
            match self.round(cx) {
                Ok(true) => {}
                Ok(false) => return Poll::Pending,
                Err(down) => return Poll::Ready(down),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Looks once whether something has come, and answers it: without what others have left, without waiting.
    /// Whether there was something.
    pub(in crate::node) fn look(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        let found = self.wants_input() && self.read(cx)?;
        if found {
            self.write(cx)?;
        }
        Ok(found)
    }

    /// How often a tick interval passes.
    pub(in crate::node) const fn interval(&self) -> Duration {
        self.channel.interval()
    }

    /// Whether signals were handled since this was last asked.
    pub(in crate::node) const fn take_handled(&mut self) -> bool {
        std::mem::replace(&mut self.handled, false)
    }

    /// Whether something waits to be written.
    pub(in crate::node) fn has_output(&self) -> bool {
        !self.channel.is_drained() || self.unflushed
    }

    /// Whether there is something to do without the socket.
    pub(in crate::node) const fn may_go_on(&self) -> bool {
        self.unhandled
    }

    /// Whether more would be read now.
    pub(in crate::node) const fn wants_input(&self) -> bool {
        self.closing.is_none()
    }

    pub(in crate::node) const fn stream(&self) -> &S {
        &self.stream
    }

    pub(in crate::node) const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn tick(&mut self) -> Result<(), PeerDown> {
        self.channel.tick()?;
        if self.reads == 0 {
            self.channel.rest();
        }
        self.node.pool.rest();
        self.reads = 0;
        Ok(())
    }

    /// One round; whether another one may find something to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        self.collect(cx);
        let mut more = self.unhandled && self.handle_frames(None)?;
        if self.wants_input() {
            more |= self.read(cx)?;
        }
        more |= self.write(cx)?;
        if let Some(down) = &self.closing
            && (!self.has_output() || *down == PeerDown::Replaced)
        {
            return Err(down.clone());
        }
        Ok(more)
    }

    /// Takes what other tasks have left.
    fn collect(&mut self, cx: &Context<'_>) {
        let Self { handle, channel, closing, is_awaited, .. } = self;
        let events = handle.collect(cx.waker(), |outbox| {
            if !outbox.frames.is_empty() {
                channel.push(&mut outbox.frames);
                // What was left counts there from now on: never in neither of both.
                handle.traffic.waits(channel.waiting_bytes(), channel.others_bytes());
            }
            *is_awaited = outbox.is_room_awaited();
            if closing.is_none() {
                *closing = outbox.closing.take();
            }
            std::mem::take(&mut outbox.events)
        });
        if events.is_empty() {
            return;
        }
        let around = self.node.surroundings();
        let (peer, out) = self.channel.peer();
        for event in events {
            // What is held is looked at before the next frame.
            self.unhandled |= matches!(event, PeerEvent::Resumed);
            peer.on(event, around, out);
        }
        self.channel.settle();
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        let stream = Pin::new(&mut self.stream);
        let read = match self.channel.rooms() {
            [room, []] => stream.poll_read(cx, room),
            rooms => stream.poll_read_vectored(cx, &mut rooms.map(IoSliceMut::new)),
        };
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(PeerDown::Closed),
            Poll::Ready(Ok(len)) => {
                self.channel.filled(len);
                self.handle.traffic.received(len);
                self.reads += u32::from(self.handle_frames(self.measured())?);
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Poll::Ready(Err(error)) => Err(PeerDown::Io(error.to_string())),
        }
    }

    /// What the answers to what was read now are measured by, if they are ([`latency`](crate::process::latency) says which).
    fn measured(&self) -> Option<Timed> {
        let weight = match self.reads {
            ..SAMPLED => 1,
            reads if reads.is_multiple_of(SAMPLED) => SAMPLED,
            _ => return None,
        };
        Some(Timed { since: now(), weight, now })
    }

    /// Handles what has been read, and what has waited and can be handled now; whether anything was handled.
    fn handle_frames(&mut self, measured: Option<Timed>) -> Result<bool, PeerDown> {
        let around = Surroundings { timed: measured, ..self.node.surroundings() };
        let mut handled = false;
        self.unhandled = false;
        while let Step::Handled { answered } = self.channel.step(around, &mut self.later)? {
            handled = true;
            if answered && let Some(Timed { since, weight, .. }) = measured {
                self.node.figures.latency.record(since.elapsed(), weight);
            }
            if self.later.len() >= EFFECTS_MAX {
                self.node.carry_out(&mut self.later);
            }
        }
        self.handled |= handled;
        if !self.later.is_empty() {
            self.node.carry_out(&mut self.later);
        }
        Ok(handled)
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        let mut wrote = false;
        while let Some(ready) = self.channel.ready() {
            let Poll::Ready(result) = poll_write(Pin::new(&mut self.stream), ready, cx) else {
                self.channel.full(now());
                break;
            };
            match result {
                Ok(0) => return Err(PeerDown::Closed),
                Ok(len) => {
                    self.channel.wrote(len, now);
                    self.handle.traffic.sent(len);
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PeerDown::Io(error.to_string())),
            }
        }
        // Also where nothing was written now: the stream may hold what it took before, or an answer of its own to what was
        // read.
        self.unflushed = match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => return Err(PeerDown::Io(error.to_string())),
        };
        let others = self.channel.others_bytes();
        self.handle.traffic.waits(self.channel.waiting_bytes(), others);
        if (wrote || self.is_awaited) && others < self.node.config.limits.outbound_bytes_max / 2 {
            self.is_awaited = false;
            for feed in self.handle.make_room() {
                self.node.feed_at(&self.handle, &feed);
            }
        }
        // Calls wait for the room that there is now.
        self.unhandled = wrote && self.channel.may_go_on();
        Ok(self.unhandled)
    }
}

fn poll_write<S: AsyncWrite>(
    stream: Pin<&mut S>,
    ready: &Outbound,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let Some(bytes) = ready.single_slice() {
        return stream.poll_write(cx, bytes);
    }
    let mut slices: Vec<IoSlice<'_>> = Vec::new();
    ready.slices(&mut slices);
    stream.poll_write_vectored(cx, &slices)
}
