//! Connecting at once, and hearing why not.

use std::fmt;
use std::sync::Arc;

use super::Node;
use super::setup::DialError;
use crate::dist::DistributionFlags;

/// A node that is connected, as its handshake told of it.
#[derive(Clone, PartialEq, Eq)]
pub struct ConnectedNode {
    /// Its full name.
    pub name: Arc<str>,
    /// Which of its lives this is: pids of it with another creation are of a former one.
    pub creation: u32,
    /// The flags that it offered. Without PUBLISHED it is a hidden node.
    pub offered: DistributionFlags,
}

impl fmt::Debug for ConnectedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, creation {}, {:?}", self.name, self.creation, self.offered)
    }
}

impl Node {
    /// Connects to a node, `name@host`, unless it is connected already: as `Node.connect/1` does, with the reason where it
    /// cannot. Sending a message connects too; this is for whoever wants to know before.
    ///
    /// # Errors
    /// See [`DialError`]. It takes as long as epmd, the system and the handshake take; each of them has a limit.
    pub async fn connect_to(&self, node: &str) -> Result<ConnectedNode, Arc<DialError>> {
        let peer = self.connect(&node.into()).await?;
        Ok(ConnectedNode { name: Arc::clone(&peer.name), creation: peer.creation, offered: peer.offered })
    }
}
