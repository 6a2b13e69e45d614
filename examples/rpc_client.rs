//! A client that knows nothing of kvnode: the crate erl_rpc, which calls functions of a BEAM, calls a kvnode's store.
//!
//! The store's node answers `GenServer.call/2` by rpc, as it answers those of `KeyValueStore`.

#![expect(clippy::print_stdout, reason = "a person reads it")]

use std::error::Error;

use erl_dist::term::{Atom, FixInteger, List, Term, Tuple};
use erl_rpc::{RpcClient, RpcClientHandle};

/// `GenServer.call(KeyValueStore, request)`, on that node.
async fn call(node: &mut RpcClientHandle, request: Vec<Term>) -> Result<Term, Box<dyn Error>> {
    let arguments = vec![Atom::from("Elixir.KeyValueStore").into(), Tuple::from(request).into()];
    Ok(node.call("Elixir.GenServer".into(), "call".into(), List::from(arguments)).await?)
}

/// Puts a value and gets it. Without a port the epmd of the node's host is asked for it, at port 4369.
///
/// # Errors
/// The node is not reached, or does not do it.
pub fn put_and_get(node: &str, port: Option<u16>, cookie: &str) -> Result<Term, Box<dyn Error>> {
    let atom = |text: &str| Term::from(Atom::from(text));
    smol::block_on(async {
        let client = match port {
            Some(port) => RpcClient::connect_with_port(node, port, cookie).await?,
            None => RpcClient::connect(node, cookie).await?,
        };
        let mut handle = client.handle();
        let running = smol::spawn(client.run());
        call(&mut handle, vec![atom("put"), atom("answer"), FixInteger::from(42).into()]).await?;
        let value = call(&mut handle, vec![atom("get"), atom("answer")]).await?;
        handle.terminate();
        running.await?;
        Ok(value)
    })
}

/// `rpc_client NODE [PORT]`, with the cookie in `~/.erlang.cookie`.
pub fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let node = arguments.next().ok_or("which node? NAME@HOST, and its port where epmd is not to be asked")?;
    let port = arguments.next().map(|port| port.parse()).transpose()?;
    let home = std::env::home_dir().ok_or("there is no home folder with a cookie")?;
    let cookie = std::fs::read_to_string(home.join(".erlang.cookie"))?;
    println!("the answer is {}", put_and_get(&node, port, cookie.trim_end())?);
    Ok(())
}
