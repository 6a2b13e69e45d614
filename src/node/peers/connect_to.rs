//! Connecting at once, and hearing why not.

use std::fmt;
use std::sync::Arc;

use crate::config::Limits;
use crate::distribution::{DistributionFlags, NodeAt};
use crate::node::Node;
use crate::node::link::setup::DialError;
use crate::node::peers::Arrival;

/// A node that is connected, as its handshake told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectedNode {
    /// Its full name.
    pub name: Arc<str>,
    /// Which of its lives this is: pids of it with another creation are of a former one.
    pub creation: u32,
    /// The flags that it offered. Without PUBLISHED it is a hidden node.
    #[doc(hidden)]
    pub offered: DistributionFlags,
}

impl ConnectedNode {
    /// Whether it is a hidden node, as this one is and `erl -hidden` makes one: none that `Node.list/0` of a BEAM shows.
    pub fn is_hidden(&self) -> bool {
        !self.offered.contains(DistributionFlags::PUBLISHED)
    }
}

impl fmt::Debug for ConnectedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, creation {}, {:?}", self.name, self.creation, self.offered)
    }
}

impl Node {
    /// Connects to a node, `name@host`, unless it is connected already: as `Node.connect/1` does, with the reason where it
    /// cannot. Sending a message connects too; this is for a caller that wants to know before.
    ///
    /// `name@host:port` is found at that port, from now on and also by messages that are sent to it; epmd is not asked.
    ///
    /// # Errors
    /// See [`DialError`]. It takes as long as epmd, the system and the handshake take; each of them has a limit.
    pub async fn connect_to(&self, node: &str) -> Result<ConnectedNode, Arc<DialError>> {
        let NodeAt { name, port } =
            node.parse().map_err(|error| Arc::new(DialError::Name { node: node.to_owned(), error }))?;
        if let Some(port) = port {
            self.ports.lock().insert(name.clone(), port);
        }
        self.connect_to_name(name.as_str()).await
    }

    /// As [`connect_to`](Self::connect_to), to a node whose name came in a pid or a message: no port is read from it.
    ///
    /// # Errors
    /// As for [`connect_to`](Self::connect_to).
    pub async fn connect_to_name(&self, node: &str) -> Result<ConnectedNode, Arc<DialError>> {
        Ok(self.connect(&node.into()).await?.connected())
    }

    /// Whether it is connected to a node.
    pub fn is_connected(&self, node: &str) -> bool {
        self.peers.get(node).is_some()
    }

    /// Waits until the connection to a node has ended that there is now; of a node that is not connected that is at once.
    pub async fn disconnected(&self, node: &str) {
        if let Some(peer) = self.peers.get(node) {
            peer.ended().await;
        }
    }

    /// A wait for the next node that comes up, from now on: what cannot be reached now may be then, and a name that nobody
    /// knows now may be known. [`events`](Self::events) tells which node it was, and of those that go.
    #[doc(hidden)]
    pub fn arrival(&self) -> Arrival {
        self.peers.arrival()
    }

    /// Has it looked at once who holds our names in `global`, instead of within the next 5 s: one of them may have become
    /// free.
    #[doc(hidden)]
    pub fn check_global_names(&self) {
        self.names.check_now();
    }

    /// The limits that it was started with.
    pub const fn limits(&self) -> &Limits {
        &self.config.limits
    }
}
