//! Nodes that are no members of the cluster, and know the names of kvnode all the same: hidden BEAMs, as Livebook's and
//! many tools are, and those that come without a name and get one here: remote shells, clients of a moment.

#![cfg(feature = "program")]

mod support;

use std::time::Duration;

use erl_dist::term::List;
use erl_rpc::RpcClient;
use kvnode::distribution::DistributionFlags;
use kvnode::distribution::control::op;
use kvnode::etf::Cursor;
use support::{
    BeamNode, BeamOptions, Epmd, KvNode, Scripted, at_host, at_once_on_every_otp, on_every_otp, term_with,
};

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

/// A hidden BEAM with a name of its own, and one that gets its name from the first node that it connects to.
const HIDDEN: [&str; 2] = ["tool", "undefined"];

/// Pings a kvnode. A BEAM without a name gets one by connecting: before that every ping of it fails.
#[track_caller]
fn meet(tool: &BeamNode, node: &str) {
    tool.check(&format!(":net_kernel.connect_node(:\"{node}\")"), "true");
    tool.ping(node);
}

/// Whether a process of this node has the name, as the BEAM knows it.
fn is_at(name: &str, node: &KvNode) -> String {
    format!("is_pid(p = :global.whereis_name(:{name})) and node(p) == :\"{}\"", node.name())
}

#[test]
fn a_hidden_beam_finds_the_names_at_once_after_its_ping() {
    at_once_on_every_otp(|otp| {
        for name in HIDDEN {
            let epmd = Epmd::start();
            let kv = KvNode::start(&epmd, "kv", "--store global:one,global:two");
            let tool = BeamNode::start(otp, &epmd, BeamOptions::new(name).hidden());
            let has_both = |value: &str| {
                meet(&tool, &at_host("kv"));
                tool.check("for n <- [:one, :two], do: is_pid(:global.whereis_name(n))", "[true, true]");
                tool.check(&format!("GenServer.call({{:global, :one}}, {{:put, 1, {value}}})"), ":ok");
                tool.check("GenServer.call({:global, :two}, {:get, 1})", value);
            };
            has_both("2");
            // A kvnode that was started again is found as soon as it is pinged.
            kv.kill(&epmd);
            let kv = KvNode::start(&epmd, "kv", "--store global:one,global:two");
            has_both("3");
            // A store that ends has its name again at once, and one that ends for good has none.
            tool.run("Process.exit(:global.whereis_name(:one), :kill)");
            tool.check_soon(
                "try do GenServer.call({:global, :one}, {:get, 1}) catch :exit, _ -> :none end",
                "nil",
            );
            tool.wait_for_global("two");
            assert!(kv.terminate().status.success());
            for name in ["one", "two"] {
                tool.wait_for_no_global(name);
            }
        }
    });
}

#[test]
fn a_name_that_moves_to_another_kvnode_is_found_there_by_a_hidden_beam() {
    at_once_on_every_otp(|otp| {
        for name in HIDDEN {
            let epmd = Epmd::start();
            let tool = BeamNode::start(otp, &epmd, BeamOptions::new(name).hidden());
            let first = KvNode::start(&epmd, "first", "--global shared");
            meet(&tool, first.name());
            tool.check(&is_at("shared", &first), "true");
            let second = KvNode::start(&epmd, "second", "--global shared");
            meet(&tool, second.name());
            second.wait_for_log(&["shared", "taken"]);
            tool.check(&is_at("shared", &first), "true");
            assert!(first.terminate().status.success());
            if name == "undefined" {
                // Its name, and every connection, goes with the node that gave it.
                tool.check_soon("node()", ":nonode@nohost");
                meet(&tool, second.name());
                tool.check(&is_at("shared", &second), "true");
            } else {
                tool.check_soon(&is_at("shared", &second), "true");
            }
        }
    });
}

#[test]
fn a_name_that_is_given_up_is_given_up_at_hidden_beams_too() {
    let otp = support::Otp::newest();
    let epmd = Epmd::start();
    let tool = BeamNode::start(&otp, &epmd, BeamOptions::new("tool").hidden());
    let folder = tempfile::tempdir().expect("a folder can be made");
    let disk = format!("--data-dir {}", folder.path().display());
    let b = KvNode::start(&epmd, "b", &disk);
    let start_a =
        || KvNode::start(&epmd, "a", &format!("--global m --slave global:b --connect {}", b.name()));
    let a = start_a();
    meet(&tool, a.name());
    meet(&tool, b.name());
    tool.check("GenServer.call({:global, :m}, {:put, 1, 2})", ":ok");
    tool.check_soon("GenServer.call({:global, :b}, {:get, 1})", "2");
    tool.check_soon("GenServer.call({:global, :b}, :status).primary.state", ":following");
    a.kill(&epmd);
    tool.check_soon("GenServer.call({:global, :b}, {:promote})", ":ok");
    tool.check_soon(&is_at("m", &b), "true");
    // The former primary comes back, wants its name, and lets go of it.
    let a = start_a();
    meet(&tool, a.name());
    a.wait_for_log(&["global name given up"]);
    tool.check_soon(&is_at("m", &b), "true");
    tool.check("GenServer.call({:global, :m}, {:get, 1})", "2");
}

#[test]
fn an_elixir_primary_on_a_hidden_beam_has_a_kvnode_as_its_slave() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let tool = BeamNode::start(otp, &epmd, BeamOptions::new("tool").hidden());
        let slave = KvNode::start(&epmd, "slave1", &format!("--connect {}", tool.name()));
        tool.wait_for_global("slave1");
        tool.run("{:ok, _} = KeyValueStoreDistributed.start_link(:master)");
        tool.check("KeyValueStoreDistributed.add_slave(:slave1)", ":ok");
        tool.check("KeyValueStoreDistributed.put(:nombre, \"Mafalda\")", ":ok");
        let stored = format!("GenServer.call({{KeyValueStore, :\"{}\"}}, {{:get, :nombre}})", slave.name());
        tool.check_soon(&stored, "\"Mafalda\"");
        tool.check("GenServer.call({:global, :slave1}, {:get, :nombre})", "\"Mafalda\"");
    });
}

#[test]
fn a_kvnode_finds_its_slave_on_a_hidden_beam() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let tool = BeamNode::start(otp, &epmd, BeamOptions::new("tool").hidden());
        tool.run("{:ok, _} = KeyValueStoreDistributed.start_link(:slave1)");
        let args = format!("--slave global:slave1 --connect {}", tool.name());
        let master = KvNode::start(&epmd, "master", &args);
        tool.wait_for_global("master");
        tool.check("KeyValueStoreDistributed.put(:nombre, \"Mafalda\")", ":ok");
        tool.check_soon("GenServer.call({:global, :slave1}, {:get, :nombre})", "\"Mafalda\"");
        // What others ask it of names is answered from there too, and by a command that is no BEAM.
        let other = KvNode::start(&epmd, "other", "--global other");
        let command = |node: &KvNode, to: &str| {
            let mut get = std::process::Command::new(support::kvnode::program());
            get.args(["get", ":nombre", "--node", node.name(), "--to", to, "--cookie", support::COOKIE]);
            let output =
                get.env("ERL_EPMD_PORT", epmd.port().to_string()).output().expect("it is the program");
            (
                String::from_utf8_lossy(&output.stdout).into_owned(),
                String::from_utf8_lossy(&output.stderr).into_owned(),
            )
        };
        let (answer, error) = command(&master, "global:slave1");
        assert_eq!(answer.trim(), "\"Mafalda\"", "{error}");
        let (answer, _) = command(&other, "global:slave1");
        assert_eq!(answer, "");
        // A tool that is suspended keeps nobody from hearing that a name is nobody's.
        let stopped = BeamNode::start(otp, &epmd, BeamOptions::new("stopped").hidden());
        meet(&stopped, other.name());
        stopped.signal(rustix::process::Signal::STOP);
        let (_, error) = command(&other, "global:slave1");
        assert!(error.contains("nobody has the name"), "{error}");
    });
}

#[test]
fn tools_and_commands_that_come_and_go_leave_a_quiet_log() {
    let otp = support::Otp::newest();
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let start = kv.log().len();
    for _ in 0..2 {
        let tool = BeamNode::start(&otp, &epmd, BeamOptions::new("undefined").hidden());
        meet(&tool, kv.name());
        tool.wait_for_global("kv");
        let mark = kv.log_mark();
        drop(tool);
        kv.wait_for_log_after(mark, &["INFO", "global name known nowhere"]);
    }
    let port = epmd.port_of("kv").expect("it is registered");
    smol::block_on(async {
        let client = soon(RpcClient::connect_with_port(kv.name(), port, support::COOKIE)).await;
        let client = client.expect("the handshake passes");
        let mut handle = client.handle();
        let run = smol::spawn(client.run());
        for _ in 0..3 {
            let node = soon(handle.call("erlang".into(), "node".into(), List::nil())).await;
            assert!(node.is_ok(), "it answers");
        }
        run.cancel().await;
    });
    let log = kv.log();
    let log = &log[start..];
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}

/// Pings from a node that is driven by hand, and reads what comes until the pong; gives the spawn requests in it.
fn ping_by_hand(peer: &mut Scripted, number: u32) -> Vec<Vec<u8>> {
    let ping = peer.call_frame("net_kernel", number, "{:is_auth, :peer@h}");
    assert!(peer.send(&ping), "the connection is open");
    let pong = term_with("{$1, :yes}", &[&peer.reference(number)]);
    let mut requests = Vec::new();
    loop {
        let frame = peer.next_frame().expect("the connection is open");
        if frame.ends_with(&pong) {
            return requests;
        }
        let control = Cursor::new(&frame).term().expect("a control message");
        if control.as_tuple::<6>().is_some_and(|[kind, ..]| kind.as_unsigned() == Some(op::SPAWN_REQUEST)) {
            requests.push(frame);
        }
    }
}

#[test]
fn a_hidden_node_that_is_no_beam_is_asked_nothing_and_one_that_may_be_is_asked_once() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "--store global:one,global:two");
    let port = epmd.port_of("kv").expect("it is registered");
    let kvnodes = DistributionFlags::OFFERED;
    let of_beam = kvnodes.union(DistributionFlags::DIST_HDR_ATOM_CACHE);
    // As kvnode itself and its commands; as a C node; as a BEAM that says nothing, and one that spawns nothing for others.
    let kinds = [
        ("kvnode@h", kvnodes, false, 0),
        ("c@h", of_beam.difference(DistributionFlags::SPAWN), false, 0),
        ("silent@h", of_beam, false, 1),
        ("other@h", of_beam, true, 1),
    ];
    std::thread::scope(|scope| {
        for (name, flags, answers, wanted) in kinds {
            let kv = &kv;
            scope.spawn(move || {
                let mut peer = Scripted::offering(flags, port, name, kv.name());
                let mut requests = ping_by_hand(&mut peer, 1);
                if answers {
                    let control = Cursor::new(&requests[0]).term().expect("a control message");
                    let [_, id, from, ..] = control.as_tuple::<6>().expect("a spawn request");
                    let reply = peer.signal(op::SPAWN_REPLY, "$1, $2, 0, :notsup", &[&id, &from]);
                    assert!(peer.send(&reply), "the connection is open");
                }
                // In this time a BEAM is looked at twice again.
                std::thread::sleep(Duration::from_millis(2_500));
                requests.extend(ping_by_hand(&mut peer, 2));
                assert_eq!(requests.len(), wanted, "{name}");
            });
        }
    });
}
