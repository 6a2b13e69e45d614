use std::error::Error;

use erl_dist::term::{Binary, FixInteger, List, Term};
use erl_rpc::RpcClient;

/// `String.duplicate(text, 3)`, done by an Elixir node.
pub fn thrice(node: &str, port: u16, cookie: &str, text: &str) -> Result<String, Box<dyn Error>> {
    smol::block_on(async {
        // RpcClient::connect asks the epmd at port 4369 of the node's host for the port.
        let client = RpcClient::connect_with_port(node, port, cookie).await?;
        let mut handle = client.handle();
        let running = smol::spawn(client.run());
        let text = Binary::from(text.as_bytes().to_vec());
        let arguments = List::from(vec![text.into(), FixInteger::from(3).into()]);
        let value = handle.call("Elixir.String".into(), "duplicate".into(), arguments).await?;
        handle.terminate();
        running.await?;
        match value {
            Term::Binary(text) => Ok(String::from_utf8(text.bytes)?),
            other => Err(format!("not a text: {other}").into()),
        }
    })
}
