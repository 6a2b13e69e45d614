//! A connection after its handshake: the loop that everything else is built around.
//!
//! Read what the socket has; deliver each complete signal by a plain call; carry out the effects; write all
//! answers at once. Over anything that reads and writes bytes.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use smol::Timer;
use smol::io::{AsyncRead, AsyncWrite};
use smol::stream::Stream;

use super::Node;
use super::peers::{PeerDown, PeerEvent, PeerHandle};
use crate::dist::{Arrival, Inbound, Outbound, TickAction, Ticker};
use crate::process::{Effect, Peer};

/// Rounds after which the task lets others have the thread, also when there is more to do.
const ROUNDS_MAX: u32 = 32;

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
    interval: Timer,
    /// Frames have been read that the full output does not let be handled.
    stalled: bool,
    /// Others have left frames that the full output has no room for.
    left_behind: bool,
    closing: Option<PeerDown>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// `first`: bytes that were read together with the end of the handshake.
    pub(super) fn new(node: Arc<Node>, stream: S, handle: Arc<PeerHandle>, first: &[u8]) -> Self {
        let (ticker, interval) = Ticker::new(node.config.net_ticktime_secs);
        let limits = &node.config.limits;
        Self {
            inbound: Inbound::new(first, limits.frame_bytes_max),
            peer: Peer::new(Arc::clone(&handle.name), handle.offered),
            node,
            stream,
            handle,
            out: Outbound::default(),
            later: Vec::new(),
            ticker,
            interval: Timer::interval(interval),
            stalled: !first.is_empty(),
            left_behind: false,
            closing: None,
        }
    }

    /// Runs until the connection ends.
    pub(super) async fn run(mut self) -> PeerDown {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<PeerDown> {
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

    /// One round; whether another one may find something to do.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        self.collect(cx);
        let mut more = self.stalled && self.handle_frames()?;
        if self.closing.is_none() && !self.stalled {
            more |= self.read(cx)?;
        }
        more |= self.write(cx)?;
        if let Some(down) = &self.closing
            && (self.out.is_empty() || *down == PeerDown::Replaced)
        {
            return Err(down.clone());
        }
        if Pin::new(&mut self.interval).poll_next(cx).is_ready() {
            more = true;
            match self.ticker.interval() {
                TickAction::Down => return Err(PeerDown::NetTickTimeout),
                TickAction::SendTick if self.out.is_empty() => self.out.tick(),
                TickAction::SendTick | TickAction::Idle => {}
            }
            self.inbound.rest();
            self.out.rest();
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
                PeerEvent::EndCall(call) => self.peer.end_call(&call, registry, &mut self.out),
            }
        }
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Result<bool, PeerDown> {
        match Pin::new(&mut self.stream).poll_read(cx, self.inbound.room()) {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => Err(PeerDown::Closed),
            Poll::Ready(Ok(len)) => {
                self.inbound.filled(len);
                self.ticker.received();
                self.handle_frames()?;
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Poll::Ready(Err(error)) => Err(PeerDown::Io(error.to_string())),
        }
    }

    /// Handles what has been read, as far as the output has room; whether anything was handled.
    fn handle_frames(&mut self) -> Result<bool, PeerDown> {
        let out_bytes_max = self.node.config.limits.outbound_bytes_max;
        let protocol = |error: &dyn std::fmt::Display| PeerDown::Protocol(error.to_string());
        let around = self.node.surroundings();
        let mut handled = false;
        self.stalled = false;
        loop {
            if self.out.len() >= out_bytes_max {
                self.stalled = true;
                break;
            }
            match self.inbound.next_arrival().map_err(|error| protocol(&error))? {
                None => break,
                Some(Arrival::Tick) => {
                    if self.ticker.tick_received() && self.out.is_empty() {
                        self.out.tick();
                    }
                }
                Some(Arrival::Frame(range)) => {
                    let frame = self.inbound.slice(range);
                    self.peer
                        .handle(frame, around, &mut self.out, &mut self.later)
                        .map_err(|error| protocol(&error))?;
                }
            }
            handled = true;
        }
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
                    wrote = true;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(PeerDown::Io(error.to_string())),
            }
        }
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
