//! The library, used as its documentation shows, against real nodes.

#[path = "interop_library/callers.rs"]
mod callers;
#[path = "interop_library/inline.rs"]
mod inline;
#[path = "interop_library/server.rs"]
mod server;
mod support;

use std::sync::Arc;

use kvnode::config::{EpmdConfig, Limits};
use kvnode::{Node, block_on};
use support::Epmd;

/// A node of the test's own process, which ends with the test.
struct Running(Arc<Node>);

impl Drop for Running {
    fn drop(&mut self) {
        block_on(self.0.stop());
    }
}

impl std::ops::Deref for Running {
    type Target = Arc<Node>;

    fn deref(&self) -> &Arc<Node> {
        &self.0
    }
}

fn start(epmd: &Epmd, name: &str) -> Running {
    start_with(epmd, name, Limits::default())
}

fn start_with(epmd: &Epmd, name: &str, limits: Limits) -> Running {
    let epmd = EpmdConfig { port: epmd.port(), start: false, ..EpmdConfig::default() };
    let node = Node::builder(name).cookie(support::COOKIE).epmd(epmd).limits(limits).start();
    Running(node.expect("the node starts"))
}
