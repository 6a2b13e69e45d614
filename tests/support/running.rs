//! A node of the test's own process.

use std::ops::Deref;
use std::sync::Arc;

use kvnode::config::Limits;
use kvnode::{Node, NodeBuilder, block_on};

use super::epmd::Epmd;

/// A node that ends with the test.
pub struct Running(Arc<Node>);

impl Running {
    #[track_caller]
    pub fn start(epmd: &Epmd, name: &str) -> Self {
        Self::start_with(epmd, name, Limits::default())
    }

    #[track_caller]
    pub fn start_with(epmd: &Epmd, name: &str, limits: Limits) -> Self {
        Self::start_as(epmd, Node::builder(name).limits(limits))
    }

    /// As the test says, but for cookie and epmd.
    #[track_caller]
    pub fn start_as(epmd: &Epmd, builder: NodeBuilder) -> Self {
        let node = builder.cookie(super::COOKIE).epmd(epmd.config()).start();
        Self(node.expect("the node starts"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        block_on(self.0.stop());
    }
}

impl Deref for Running {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}
