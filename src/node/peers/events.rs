//! Nodes that come up and go down, told to whoever of the program listens.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use futures_core::Stream;
use parking_lot::Mutex;

use crate::node::Node;
use crate::node::peers::PeerDown;
use crate::node::peers::connect_to::ConnectedNode;

/// How many events wait for a listener that does not take them. More are counted, and told as [`NodeEvent::Missed`].
const EVENTS_MAX: usize = 4096;

/// A node has come up, or gone down: visible nodes and hidden ones, as `:net_kernel.monitor_nodes(true, node_type: :all)`
/// tells of them. A handshake that fails is none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NodeEvent {
    /// It is connected.
    Up(ConnectedNode),
    /// It is not connected any more.
    Down {
        /// The node, as it was when it came up.
        node: ConnectedNode,
        /// Why.
        reason: PeerDown,
    },
    /// So many events were not kept, as 4,096 waited to be taken: [`Node::connected`] has what is true now.
    Missed(u64),
}

/// The nodes that come up and go down from now on: [`Node::events`] gives it. A `Stream` too.
///
/// # The nodes that are connected
///
/// ```no_run
/// use std::collections::HashMap;
///
/// use kvnode::{Node, NodeEvent, block_on};
///
/// let node = Node::builder("watcher").connect("beam@myhost").start()?;
/// let mut events = node.events();
/// let mut up = HashMap::new();
/// while let Some(event) = block_on(events.next_event()) {
///     match event {
///         NodeEvent::Up(node) => _ = up.insert(node.name.clone(), node.creation),
///         NodeEvent::Down { node, reason } => {
///             println!("{} is gone: {reason}", node.name);
///             up.remove(&node.name);
///         }
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), kvnode::StartError>(())
/// ```
#[must_use = "events are kept only for a listener that is there"]
pub struct NodeEvents {
    queue: Arc<Queue>,
    /// Done when the node has ended.
    stopped: Pin<Box<dyn Future<Output = ()> + Send + Sync>>,
}

/// What waits for one listener.
#[derive(Default)]
struct Queue(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    events: VecDeque<NodeEvent>,
    /// Of the task that waits.
    waker: Option<Waker>,
}

impl Queue {
    fn put(&self, event: NodeEvent) {
        let waker = {
            let mut waiting = self.0.lock();
            if waiting.events.len() < EVENTS_MAX {
                waiting.events.push_back(event);
            } else if let Some(NodeEvent::Missed(missed)) = waiting.events.back_mut() {
                *missed += 1;
            } else {
                waiting.events.push_back(NodeEvent::Missed(1));
            }
            waiting.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<NodeEvent> {
        let mut waiting = self.0.lock();
        match waiting.events.pop_front() {
            Some(event) => Poll::Ready(event),
            None => {
                waiting.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Those that are told.
#[derive(Default)]
pub(in crate::node) struct Listeners(Mutex<Vec<Weak<Queue>>>);

impl Listeners {
    fn listen(&self) -> Arc<Queue> {
        let queue = Arc::default();
        let mut listeners = self.0.lock();
        listeners.retain(|listener| listener.strong_count() > 0);
        listeners.push(Arc::downgrade(&queue));
        queue
    }

    /// Tells all of an event, which is made where there is a listener.
    pub(in crate::node) fn tell(&self, event: impl Fn() -> NodeEvent) {
        self.0.lock().retain(|listener| {
            let Some(queue) = listener.upgrade() else { return false };
            queue.put(event());
            true
        });
    }
}

impl fmt::Debug for Listeners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Listeners({})", self.0.lock().len())
    }
}

impl Node {
    /// The nodes that come up and go down from now on, as `:net_kernel.monitor_nodes/2` tells a process of them, with the reason:
    /// see [`NodeEvents`]. Each call gives a listener of its own. With [`connected`](Self::connected) asked behind this, no
    /// node is missed, though one that comes up in between is in both.
    ///
    /// A server listens by [`Context::watch_nodes`](crate::Context::watch_nodes).
    pub fn events(&self) -> NodeEvents {
        NodeEvents { queue: self.peers.listeners.listen(), stopped: Box::pin(self.stopped()) }
    }
}

impl NodeEvents {
    /// Waits for the next event. `None`: this node has ended, and all were told. A wait that is given up loses nothing.
    pub async fn next_event(&mut self) -> Option<NodeEvent> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<NodeEvent>> {
        if let Poll::Ready(event) = self.queue.poll(cx) {
            return Poll::Ready(Some(event));
        }
        if self.stopped.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // It is done, and is not to be polled again.
        self.stopped = Box::pin(std::future::ready(()));
        // What was told before it ended.
        match self.queue.poll(cx) {
            Poll::Ready(event) => Poll::Ready(Some(event)),
            Poll::Pending => Poll::Ready(None),
        }
    }
}

impl Stream for NodeEvents {
    type Item = NodeEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<NodeEvent>> {
        self.poll(cx)
    }
}

impl fmt::Debug for NodeEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeEvents({} wait)", self.queue.0.lock().events.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::DistributionFlags;

    fn up(creation: u32) -> NodeEvent {
        let offered = DistributionFlags::NONE;
        NodeEvent::Up(ConnectedNode { name: "a@h".into(), creation, offered })
    }

    fn taken(queue: &Queue) -> Option<NodeEvent> {
        match queue.poll(&Context::from_waker(Waker::noop())) {
            Poll::Ready(event) => Some(event),
            Poll::Pending => None,
        }
    }

    #[test]
    fn what_a_slow_listener_misses_is_counted_where_it_was() {
        let listeners = Listeners::default();
        let slow = listeners.listen();
        let max = u32::try_from(EVENTS_MAX).expect("a small number");
        for creation in 0..max + 3 {
            listeners.tell(|| up(creation));
        }
        assert_eq!(taken(&slow), Some(up(0)));
        // The one that says what was missed stands in the room of one more.
        listeners.tell(|| up(7));
        assert_eq!(taken(&slow), Some(up(1)));
        assert_eq!(taken(&slow), Some(up(2)));
        listeners.tell(|| up(8));
        for creation in 3..max {
            assert_eq!(taken(&slow), Some(up(creation)));
        }
        assert_eq!(taken(&slow), Some(NodeEvent::Missed(4)));
        assert_eq!(taken(&slow), Some(up(8)));
        assert_eq!(taken(&slow), None);
    }

    #[test]
    fn listeners_that_are_gone_are_told_nothing() {
        let listeners = Listeners::default();
        drop(listeners.listen());
        listeners.tell(|| unreachable!("there is none"));
        let (one, other) = (listeners.listen(), listeners.listen());
        listeners.tell(|| up(1));
        assert_eq!((taken(&one), taken(&other)), (Some(up(1)), Some(up(1))));
        drop(one);
        let third = listeners.listen();
        assert_eq!(listeners.0.lock().len(), 2);
        assert_eq!(taken(&third), None, "it is told what comes from now on");
    }
}
