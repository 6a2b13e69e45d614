//! A connection after its handshake: the loop that everything else is built around.
//!
//! Read what the socket has; deliver each complete signal by a plain call; carry out the effects; write all
//! answers at once. Over anything that reads and writes bytes, and driven in one of two ways: as a task on the
//! executor while it is quiet, by a thread of its own while it is busy ([`dedicated`](super::dedicated)).

use std::future::poll_fn;
use std::io::{self, IoSlice, IoSliceMut};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::Stream;

use super::latency::SAMPLED;
use super::peers::{PeerDown, PeerEvent, PeerHandle};
use super::{Node, now};
use crate::dist::{Arrival, Inbound, InboundLimits, Outbound, TickAction, Ticker};
use crate::process::peer::Frame;
use crate::process::{Effect, Peer};

/// Reads with signals in one tick interval from which a connection counts as busy.
const BUSY_READS: u32 = 16;
/// Effects after which they are carried out, also within one batch of frames.
const EFFECTS_MAX: usize = 64;
/// Rounds after which the task lets others have the thread, also when there is more to do.
const ROUNDS_MAX: u32 = 32;

/// What the answers to a read are measured by.
#[derive(Clone, Copy)]
struct Measured {
    since: Instant,
    /// How many answers each of them stands for.
    weight: u32,
}

/// One connection's own state; nobody else touches it.
pub(super) struct Connection<S> {
    node: Arc<Node>,
    stream: S,
    handle: Arc<PeerHandle>,
    peer: Peer,
    inbound: Inbound,
    out: Outbound,
    later: Vec<Effect>,
    ticker: Ticker,
    interval: Duration,
    /// Reads with signals in them since the last tick interval.
    reads: u32,
    /// Something was handled since this was last asked.
    handled: bool,
    /// Frames have been read that the full output does not let be handled.
    stalled: bool,
    /// Others have left frames that the full output has no room for.
    left_behind: bool,
    /// The stream has taken bytes that it has not passed on.
    unflushed: bool,
    /// How long the peer has taken nothing of what waits for it.
    stuck: Duration,
    closing: Option<PeerDown>,
}

impl<S> Drop for Connection<S> {
    /// However it ended: what was linked to processes of ours is told.
    fn drop(&mut self) {
        self.peer.connection_lost(self.node.surroundings(), &mut self.later);
        self.node.carry_out(&mut self.later);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// `first`: bytes that were read together with the end of the handshake.
    pub(super) fn new(node: Arc<Node>, stream: S, handle: Arc<PeerHandle>, first: &[u8]) -> Self {
        let (ticker, interval) = Ticker::new(node.config.net_ticktime_secs);
        let limits = &node.config.limits;
        let form = handle.form;
        Self {
            inbound: Inbound::new(
                first,
                form,
                InboundLimits {
                    frame_bytes_max: limits.frame_bytes_max,
                    unfinished_bytes_max: limits.unfinished_bytes_max.max(limits.frame_bytes_max),
                    unfinished_messages_max: limits.unfinished_messages_max,
                },
            )
            .with_pool(Arc::clone(&node.pool)),
            peer: Peer::new(Arc::clone(&handle.name), handle.offered),
            node,
            stream,
            out: Outbound::new(form, handle.alias_form),
            handle,
            later: Vec::new(),
            ticker,
            interval,
            reads: 0,
            handled: false,
            stalled: !first.is_empty(),
            left_behind: false,
            unflushed: false,
            stuck: Duration::ZERO,
            closing: None,
        }
    }

    /// Runs as a task, until the connection ends, or is busy enough for a thread of its own where `may_leave`.
    pub(super) async fn run(&mut self, may_leave: bool) -> Option<PeerDown> {
        let mut interval = Timer::interval(self.interval);
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
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, tick: bool) -> Poll<PeerDown> {
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
    pub(super) fn look(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        let found = self.wants_input() && self.read(cx)?;
        if found {
            self.write(cx)?;
        }
        Ok(found)
    }

    /// How often a tick interval passes.
    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Whether signals were handled since this was last asked.
    pub(super) const fn take_handled(&mut self) -> bool {
        std::mem::replace(&mut self.handled, false)
    }

    /// Whether something waits to be written.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.unflushed
    }

    /// Whether frames that waited for room in the output can be handled now.
    pub(super) fn may_go_on(&self) -> bool {
        (self.stalled || self.left_behind) && self.out.is_empty()
    }

    /// Whether more would be read now.
    pub(super) const fn wants_input(&self) -> bool {
        self.closing.is_none() && !self.stalled
    }

    pub(super) const fn stream(&self) -> &S {
        &self.stream
    }

    pub(super) const fn stream_mut(&mut self) -> &mut S {
        &mut self.stream
    }

    fn tick(&mut self) -> Result<(), PeerDown> {
        match self.ticker.interval() {
            TickAction::Down => return Err(PeerDown::NetTickTimeout),
            TickAction::SendTick if self.out.is_empty() => self.out.tick(),
            TickAction::SendTick | TickAction::Idle => {}
        }
        // A write that took something has set it back.
        self.stuck = if self.out.is_empty() { Duration::ZERO } else { self.stuck + self.interval };
        if self.stuck > self.node.config.limits.output_stall_max {
            return Err(PeerDown::NotReading);
        }
        if self.reads == 0 {
            self.inbound.rest();
            self.out.rest();
        }
        self.node.pool.rest();
        self.reads = 0;
        Ok(())
    }

    /// One round; whether another one may find something to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        self.collect(cx);
        let mut more = self.stalled && self.handle_frames(None)?;
        if self.wants_input() {
            more |= self.read(cx)?;
        }
        more |= self.write(cx)?;
        if let Some(down) = &self.closing
            && (!self.has_output() && !self.left_behind || *down == PeerDown::Replaced)
        {
            return Err(down.clone());
        }
        Ok(more)
    }

    /// Takes what other tasks have left.
    fn collect(&mut self, cx: &Context<'_>) {
        let Self { node, handle, out, closing, left_behind, .. } = self;
        let events = handle.collect(cx.waker(), |outbox| {
            *left_behind = out.len() >= node.config.limits.outbound_bytes_max && !outbox.frames.is_empty();
            if !*left_behind {
                out.append(&mut outbox.frames);
            }
            if closing.is_none() {
                *closing = outbox.closing.take();
            }
            std::mem::take(&mut outbox.events)
        });
        for event in events {
            let registry = &self.node.registry;
            match event {
                PeerEvent::ProcessEnded { process, reason } => {
                    self.peer.process_ended(process, &reason, registry, &mut self.out);
                }
                PeerEvent::Linked { process, remote } => {
                    self.peer.linked(process, &remote, registry, &mut self.out);
                }
                PeerEvent::Unlinked { process, remote } => {
                    self.peer.unlinked(process, &remote, registry, &mut self.out);
                }
                PeerEvent::EndCall(call) => self.peer.end_call(&call, registry, &mut self.out),
                PeerEvent::Adopt(orphans) => self.peer.adopt(orphans, self.node.surroundings()),
                // What is held is looked at before the next frame.
                PeerEvent::Resumed => {
                    self.peer.resumed();
                    self.stalled = true;
                }
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        let stream = Pin::new(&mut self.stream);
        let read = match self.inbound.rooms() {
            [room, []] => stream.poll_read(cx, room),
            rooms => stream.poll_read_vectored(cx, &mut rooms.map(IoSliceMut::new)),
        };
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(PeerDown::Closed),
            Poll::Ready(Ok(len)) => {
                self.inbound.filled(len);
                self.ticker.received();
                self.handle.traffic.received(len);
                self.reads += u32::from(self.handle_frames(self.measured())?);
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Poll::Ready(Err(error)) => Err(PeerDown::Io(error.to_string())),
        }
    }

    /// What the answers to what was read now are measured by, if they are ([`latency`](super::latency) says which).
    fn measured(&self) -> Option<Measured> {
        let weight = match self.reads {
            ..SAMPLED => 1,
            reads if reads.is_multiple_of(SAMPLED) => SAMPLED,
            _ => return None,
        };
        Some(Measured { since: now(), weight })
    }

    /// Handles what has been read, as far as the output has room; whether anything was handled.
    fn handle_frames(&mut self, measured: Option<Measured>) -> Result<bool, PeerDown> {
        let out_bytes_max = self.node.config.limits.outbound_bytes_max;
        let protocol = |error: &dyn std::fmt::Display| PeerDown::Protocol(error.to_string());
        let around = self.node.surroundings();
        let form = self.inbound.form();
        let mut handled = false;
        self.stalled = false;
        loop {
            if self.out.len() >= out_bytes_max {
                self.stalled = true;
                break;
            }
            if self
                .peer
                .deliver_held(around, &mut self.out, &mut self.later)
                .map_err(|error| protocol(&error))?
            {
                handled = true;
                continue;
            }
            let queued = measured.map(|_| self.out.len());
            match self.inbound.next_arrival().map_err(|error| protocol(&error))? {
                None => break,
                Some(Arrival::Tick) => {
                    if self.ticker.tick_received() && self.out.is_empty() {
                        self.out.tick();
                    }
                }
                Some(Arrival::Frame(range)) => {
                    let frame = Frame::small(self.inbound.slice(range), form);
                    self.peer
                        .handle(frame, around, &mut self.out, &mut self.later)
                        .map_err(|error| protocol(&error))?;
                }
                Some(Arrival::Large(frame)) => {
                    self.peer
                        .handle(Frame::large(&frame, form), around, &mut self.out, &mut self.later)
                        .map_err(|error| protocol(&error))?;
                }
                Some(Arrival::Skipped(skipped)) => {
                    self.peer
                        .settle_skipped(&skipped, form, around, &mut self.out, &mut self.later)
                        .map_err(|error| protocol(&error))?;
                }
            }
            handled = true;
            if let Some(Measured { since, weight }) = measured
                && queued.is_some_and(|queued| self.out.len() > queued)
            {
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
        while !self.out.is_empty() {
            let Poll::Ready(result) = self.poll_write(cx) else { break };
            match result {
                Ok(0) => return Err(PeerDown::Closed),
                Ok(len) => {
                    self.out.advance(len);
                    self.ticker.sent();
                    self.handle.traffic.sent(len);
                    self.stuck = Duration::ZERO;
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PeerDown::Io(error.to_string())),
            }
        }
        self.handle.traffic.waits(self.out.len());
        // Also where nothing was written now: the stream may hold what it took before, or an answer of its own to what was
        // read.
        self.unflushed = match Pin::new(&mut self.stream).poll_flush(cx) {
            Poll::Pending => true,
            Poll::Ready(Ok(())) => false,
            Poll::Ready(Err(error)) => return Err(PeerDown::Io(error.to_string())),
        };
        if wrote && self.out.len() < self.node.config.limits.outbound_bytes_max / 2 {
            let hungry = self.handle.leave_quietly(|outbox| std::mem::take(&mut outbox.hungry));
            for (slave, store) in hungry {
                self.node.replicate(&slave, &store);
            }
        }
        // Frames wait for the room that there is now.
        Ok(wrote && (self.stalled || self.left_behind))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Some(bytes) = self.out.single_slice() {
            return Pin::new(&mut self.stream).poll_write(cx, bytes);
        }
        let mut slices: Vec<IoSlice<'_>> = Vec::new();
        self.out.slices(&mut slices);
        let len = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &slices))?;
        Poll::Ready(Ok(len))
    }
}
