//! What serves a store: a kvnode, or an Elixir server of the protocol, which ends with its data when it is asked what it does not know.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::error::Error;
use crate::CallError;
use crate::node::Client;
use crate::node::erpc::ErpcError;
use crate::replica::dialect::REPLICATION;

/// Whether a node is a kvnode, by a function that no BEAM has. To ask for that harms none.
///
/// # Errors
/// The node does not say: it is not reached ([`ErpcError::NoConnection`]), or gives no answer ([`ErpcError::Timeout`]).
pub(crate) async fn is_kvnode(client: &Client, node: &str, timeout: Duration) -> Result<bool, ErpcError> {
    match client.erpc(node, REPLICATION, 0, |_| {}, timeout).await {
        Ok(_) => Ok(true),
        Err(error @ (ErpcError::NoConnection | ErpcError::Timeout)) => Err(error),
        Err(_) => Ok(false),
    }
}

/// A node in one of its lives, and whether it is a kvnode then.
struct Known {
    node: Arc<str>,
    creation: u32,
    is_kvnode: bool,
}

/// What a handle and its clones know of the node that their store was on last. Each node is asked once in its life.
#[derive(Clone, Default)]
pub(super) struct Kinds(Arc<Mutex<Option<Known>>>);

impl Kinds {
    /// Whether a node is a kvnode.
    ///
    /// # Errors
    /// It is not reached, or does not answer.
    pub(super) async fn is_kvnode(&self, client: &Client, node: &Arc<str>) -> Result<bool, Error> {
        let down = || CallError::NodeDown(Arc::clone(node));
        let connected = client.node().connect_to_name(node).await.map_err(|_| down())?;
        let creation = connected.creation;
        let known =
            self.0.lock().as_ref().and_then(|known| {
                (known.node == *node && known.creation == creation).then_some(known.is_kvnode)
            });
        if let Some(is_kvnode) = known {
            return Ok(is_kvnode);
        }
        // Whatever waits for this has a limit of its own.
        let is_kvnode = is_kvnode(client, node, Duration::MAX).await.map_err(|_| down())?;
        *self.0.lock() = Some(Known { node: Arc::clone(node), creation, is_kvnode });
        Ok(is_kvnode)
    }
}
