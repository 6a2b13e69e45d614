//! The node as its own peer: signals between our own processes go the same way as all others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use super::Node;
use super::peers::{PeerEvent, PeerHandle};
use crate::dist::{Arrival, FrameForm, Inbound, Outbound};
use crate::process::peer::Frame;
use crate::process::{Effect, Peer, PeerError};

/// Delivers what our processes send to each other, for as long as the node lives.
pub(super) async fn run(node: Arc<Node>, handle: Arc<PeerHandle>) {
    let mut peer = Peer::new(Arc::clone(&handle.name), handle.offered);
    let mut inbound = Inbound::new(&[], FrameForm::PassThrough, usize::MAX);
    let mut later: Vec<Effect> = Vec::new();
    loop {
        let (mut frames, events) = poll_fn(|cx| {
            handle.collect(cx.waker(), |outbox| {
                if outbox.frames.is_empty() && outbox.events.is_empty() {
                    return Poll::Pending;
                }
                Poll::Ready((std::mem::take(&mut outbox.frames), std::mem::take(&mut outbox.events)))
            })
        })
        .await;
        let mut out = Outbound::default();
        for event in events {
            match event {
                PeerEvent::ProcessEnded { process, reason } => {
                    peer.process_ended(process, &reason, &node.registry, &mut out);
                }
                PeerEvent::Linked { process, remote } => {
                    peer.linked(process, &remote, &node.registry, &mut out);
                }
                PeerEvent::Unlinked { process, remote } => {
                    peer.unlinked(process, &remote, &node.registry, &mut out);
                }
                PeerEvent::EndCall(call) => peer.end_call(&call, &node.registry, &mut out),
                PeerEvent::Adopt(orphans) => peer.adopt(orphans, node.surroundings()),
                // What is held is looked at below.
                PeerEvent::Resumed => peer.resumed(),
            }
        }
        while peer.deliver_held(node.surroundings(), &mut out, &mut later).unwrap_or_else(malformed) {}
        pour(&mut frames, &mut inbound, |frame| {
            while peer.deliver_held(node.surroundings(), &mut out, &mut later).unwrap_or_else(malformed) {}
            if let Err(error) = peer.handle(frame, node.surroundings(), &mut out, &mut later) {
                malformed(error);
            }
        });
        handle.leave_quietly(|outbox| outbox.frames.append(&mut out));
        node.carry_out(&mut later);
        for (slave, store) in handle.leave_quietly(|outbox| std::mem::take(&mut outbox.hungry)) {
            node.replicate(&slave, &store);
        }
        inbound.rest();
        smol::future::yield_now().await;
    }
}

fn malformed(error: PeerError) -> bool {
    tracing::error!(%error, "a signal of our own is malformed (a bug: please report it)");
    false
}

/// Moves frames through the same door as those of other nodes.
fn pour(frames: &mut Outbound, inbound: &mut Inbound, mut handle: impl FnMut(Frame<'_>)) {
    while !frames.is_empty() {
        let mut slices = Vec::new();
        frames.slices(&mut slices);
        let mut moved = 0;
        for slice in &slices {
            let mut rest: &[u8] = slice;
            while !rest.is_empty() {
                let [room, _] = inbound.rooms();
                let len = room.len().min(rest.len());
                room[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                inbound.filled(len);
                while let Ok(Some(arrival)) = inbound.next_arrival() {
                    match arrival {
                        // Without a bound there is nothing to skip.
                        Arrival::Tick | Arrival::Skipped(_) => {}
                        Arrival::Frame(range) => {
                            handle(Frame::small(inbound.slice(range), FrameForm::PassThrough))
                        }
                        Arrival::Large(frame) => handle(Frame::large(&frame, FrameForm::PassThrough)),
                    }
                }
            }
            moved += slice.len();
        }
        frames.advance(moved);
    }
}
