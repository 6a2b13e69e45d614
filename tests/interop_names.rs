//! Nodes that come without a name and get one here: clients of a moment, and remote shells.

mod support;

use std::time::Duration;

use erl_dist::term::List;
use erl_rpc::RpcClient;
use support::{BeamNode, BeamOptions, Epmd, KvNode, on_every_otp};

/// `future`, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    let late = async {
        smol::Timer::after(Duration::from_secs(20)).await;
        panic!("no answer for 20 s");
    };
    smol::future::or(future, late).await
}

#[test]
fn a_client_without_a_name_gets_one_and_is_answered() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let port = epmd.port_of("kv").expect("it is registered");
    smol::block_on(async {
        let mut names = Vec::new();
        for _ in 0..2 {
            let client = soon(RpcClient::connect_with_port(kv.name(), port, support::COOKIE)).await;
            let client = client.expect("the handshake passes");
            names.push(client.local_node().name.to_string());
            let mut handle = client.handle();
            let run = smol::spawn(client.run());
            let node = soon(handle.call("erlang".into(), "node".into(), List::nil())).await;
            assert_eq!(node.expect("it answers").to_string(), format!("'{}'", kv.name()));
            run.cancel().await;
        }
        assert_ne!(names[0], names[1], "each gets a name of its own");
    });
}

#[test]
fn a_client_without_a_name_needs_the_cookie() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let port = epmd.port_of("kv").expect("it is registered");
    let refused = smol::block_on(soon(RpcClient::connect_with_port(kv.name(), port, "not_the_cookie")));
    assert!(refused.is_err());
    kv.wait_for_log(&["cookie"]);
}

#[test]
fn a_beam_with_a_dynamic_name_is_named_by_kvnode() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let shell = BeamNode::start(otp, &epmd, BeamOptions::new("undefined").hidden());
        shell.check("node()", ":nonode@nohost");
        shell.run(&format!("kv = :\"{}\"", kv.name()));
        shell.check(":net_kernel.connect_node(kv)", "true");
        shell.check("node() != :nonode@nohost and kv in Node.list(:connected)", "true");
        shell.check("GenServer.call({KeyValueStore, kv}, {:put, 1, 2})", ":ok");
        shell.check("GenServer.call({KeyValueStore, kv}, {:get, 1})", "2");
        // A second one at the same time has another name.
        let other = BeamNode::start(otp, &epmd, BeamOptions::new("undefined").hidden());
        other.check(&format!(":net_kernel.connect_node(:\"{}\")", kv.name()), "true");
        other.check(&format!("GenServer.call({{KeyValueStore, :\"{}\"}}, {{:get, 1}})", kv.name()), "2");
        assert_ne!(shell.run("node()"), other.run("node()"));
    });
}
