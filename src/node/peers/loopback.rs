//! The node as its own peer: signals between our own processes go the same way as all others.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use crate::distribution::{Arrival, FrameForm, Inbound, Outbound};
use crate::node::Node;
use crate::node::peers::PeerHandle;
use crate::process::peer::Frame;
use crate::process::{Effect, Peer, PeerError};

/// Delivers what our processes send to each other, for as long as the node lives.
pub(in crate::node) async fn run(node: Arc<Node>, handle: Arc<PeerHandle>) {
    let mut peer = Peer::new(Arc::clone(&handle.name), handle.offered);
    let mut inbound = Inbound::new(&[], FrameForm::PassThrough, usize::MAX);
    let mut later: Vec<Effect> = Vec::new();
    loop {
        let (mut frames, events) = poll_fn(|cx| {
            handle.collect(cx.waker(), |outbox| {
                if outbox.frames.is_empty() && outbox.events.is_empty() && !outbox.is_room_awaited() {
                    return Poll::Pending;
                }
                Poll::Ready((std::mem::take(&mut outbox.frames), std::mem::take(&mut outbox.events)))
            })
        })
        .await;
        let mut out = Outbound::default();
        // What is held is looked at below.
        for event in events {
            peer.on(event, node.surroundings(), &mut out);
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
        // What was taken above has left its room to others, and nothing of it waits anywhere else.
        for feed in handle.make_room() {
            node.feed_at(&handle, &feed);
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
pub(in crate::node) fn pour(frames: &mut Outbound, inbound: &mut Inbound, mut handle: impl FnMut(Frame<'_>)) {
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use smol::channel::{Receiver, Sender, bounded};

    use super::*;
    use crate::distribution::ServerRef;
    use crate::etf::TermView;
    use crate::process::{Caller, GenServer, Turn};
    use crate::within::{until, within};

    /// Says that it handles its first message, and goes on when it may.
    struct Gated {
        began: Sender<()>,
        may_go_on: Receiver<()>,
    }

    impl GenServer for Gated {
        fn handle_call(&self, _: TermView<'_>, _: &Caller<'_>, _: &mut Turn<'_>) {}
        fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}

        fn handle_info(&self, _: TermView<'_>, _: &mut Turn<'_>) {
            let _gone = self.began.try_send(());
            let _closed = self.may_go_on.recv_blocking();
        }
    }

    #[test]
    fn who_waits_for_room_at_a_process_of_the_own_node_is_told_of_it() {
        let node = Node::builder("own").cookie("c").outgoing_only().start().expect("it starts");
        let (began, begun) = bounded(1);
        let (gate, may_go_on) = bounded(1);
        node.serve_inline(Arc::new(Gated { began, may_go_on })).register("gated").expect("the name is free");
        let (client, to) = (node.client(), ServerRef::Local("gated".into()));
        let bytes = vec![7; node.config.limits.outbound_bytes_max];
        smol::block_on(async {
            client.try_send(&to, |w| _ = w.atom("first")).await.expect("there is room");
            begun.recv().await.expect("it is handled");
            client.try_send(&to, |w| _ = w.binary(&bytes)).await.expect("one always fits");
            client.try_send(&to, |w| _ = w.atom("over")).await.expect_err("there is no room");
            let opened = async {
                // The other is asked first, and waits by now.
                gate.close();
                crate::node::after(Duration::from_secs(20)).await;
            };
            let sent = until(opened, client.send(&to, |w| _ = w.atom("late"))).await;
            assert_eq!(sent, Some(Ok(())), "the stall limit is longer");
        });
        smol::block_on(node.stop());
    }

    #[test]
    fn nobody_waits_for_room_at_a_connection_that_has_ended() {
        let node = Node::builder("own").cookie("c").outgoing_only().start().expect("it starts");
        let own = node.peers.get(&node.registry.node).expect("it is there as long as the node");
        own.set_ended();
        let room = own.room();
        let over = within(Duration::from_secs(10), room.wait());
        assert_eq!(smol::block_on(over), Some(()));
        smol::block_on(node.stop());
    }
}
