use std::error::Error;
use std::time::Duration;

use kvnode::{Node, block_on};

/// `String.duplicate(text, 3)`, done by an Elixir node.
pub fn thrice(node: &str, cookie: &str, text: &str) -> Result<String, Box<dyn Error>> {
    let here = Node::builder("asker").cookie(cookie).outgoing_only().start()?;
    let function = ("Elixir.String", "duplicate");
    let value = here.client().erpc_as(node, function, &(text, 3), Duration::from_secs(5));
    let value = block_on(value)?;
    block_on(here.stop());
    Ok(value)
}
