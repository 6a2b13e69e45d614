//! Clusters without epmd: all nodes at one port, each at an address of its own, as BEAMs do that are started with
//! `-start_epmd false -erl_epmd_port PORT`; and single nodes at a port of theirs, while epmd serves the others.

#![cfg(feature = "program")]

mod support;

use std::net::Ipv4Addr;
use std::process::{Command, Output, Stdio};

use kvnode::Node;
use support::kvnode::program;
use support::ports::Port;
use support::{BeamNode, BeamOptions, COOKIE, Epmd, KvNode, Otp, on_every_otp, wait_until};

const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// A BEAM without epmd, of an address of this machine.
fn beam(otp: &Otp, name: &str, address: Ipv4Addr, port: &Port) -> BeamNode {
    let nobody = Epmd::absent();
    let node = BeamNode::start(otp, &nobody, BeamOptions::new(name).without_epmd(address, port.number()));
    assert!(nobody.names().is_none(), "there is an epmd");
    node
}

/// What a command says, with no epmd anywhere near.
fn types(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let home = tempfile::tempdir().expect("a folder can be made");
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null()).env("HOME", home.path()).env("KVNODE_COOKIE", COOKIE);
    command.env("ERL_EPMD_PORT", Epmd::absent().port().to_string()).envs(variables.iter().copied());
    command.output().expect("it was built")
}

#[track_caller]
fn gets(args: &[&str], variables: &[(&str, &str)]) -> String {
    let output = types(args, variables);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && stderr.is_empty(),
        "{args:?}: {stderr}{}",
        String::from_utf8_lossy(&output.stdout)
    );
    String::from_utf8(output.stdout).expect("it is text")
}

#[test]
fn nodes_at_one_port_find_each_other_both_ways() {
    on_every_otp(|otp| {
        let port = Port::take();
        let beam = beam(otp, "beam", HERE, &port);
        let kv = KvNode::start_without_epmd("kv@127.0.0.1", port.number(), "");
        assert!(
            kv.banner().contains(&format!("none: all nodes at port {}", port.number())),
            "{}",
            kv.banner()
        );
        // The BEAM dials. It takes what it knows no version of for an old node, and says its name in the old form.
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.check("GenServer.call({:global, :kv}, {:put, :a, 1})", ":ok");
        // kvnode dials: one that is to be kept connected, and one that something is sent to.
        let args = format!("--connect {}", beam.name());
        let other = KvNode::start_without_epmd("other@127.0.0.4", port.number(), &args);
        beam.wait_for_global("other");
        beam.check("GenServer.call({:global, :other}, {:put, :b, 2})", ":ok");
        beam.check(
            "GenServer.call({KeyValueStore, :\"other@127.0.0.4\"}, {:add_slave, {KeyValueStore, :\"kv@127.0.0.1\"}})",
            ":ok",
        );
        beam.check_soon("GenServer.call({:global, :kv}, {:get, :b})", "2");
        // A BEAM that comes later finds both, and is found.
        let late = self::beam(otp, "late", THERE, &port);
        late.ping(other.name());
        late.ping(kv.name());
        late.wait_for_global("kv");
        assert!(kv.terminate().status.success());
    });
}

#[test]
fn a_node_that_comes_back_is_found_again_at_its_port() {
    let otp = Otp::newest();
    let port = Port::take();
    let kv = KvNode::start_without_epmd("kv@127.0.0.1", port.number(), "--connect beam@127.0.0.2");
    kv.wait_for_log(&["beam@127.0.0.2 does not answer at 127.0.0.2:", "without epmd", "-erl_epmd_port"]);
    for _ in 0..2 {
        let beam = beam(&otp, "beam", HERE, &port);
        beam.wait_for_global("kv");
        beam.check("GenServer.call({:global, :kv}, {:put, :a, 1})", ":ok");
    }
}

#[test]
fn one_node_is_dialled_at_its_port_while_epmd_knows_the_others() {
    on_every_otp(|otp| {
        let (epmd, port) = (Epmd::start(), Port::take());
        let far = beam(otp, "far", HERE, &port);
        let near = BeamNode::start(otp, &epmd, BeamOptions::new("near").named("near@127.0.0.1"));
        let args = format!("--connect {}:{} --connect {}", far.name(), port.number(), near.name());
        let kv = KvNode::start_named(&epmd, "kv@127.0.0.1", &args);
        epmd.wait_for_name("kv", true);
        far.wait_for_global("kv");
        near.wait_for_global("kv");
        assert!(
            kv.banner().contains(&format!("connects  to far@127.0.0.2:{}\n", port.number())),
            "{}",
            kv.banner()
        );
        far.check("GenServer.call({:global, :kv}, {:put, :a, 1})", ":ok");
        near.check("GenServer.call({:global, :kv}, {:get, :a})", "1");
    });
}

#[test]
fn an_ipv6_address_with_a_port_stands_in_brackets() {
    on_every_otp(|otp| {
        let (epmd, nobody, port) = (Epmd::start(), Epmd::absent(), Port::take());
        let flags = format!("-proto_dist inet6_tcp -erl_epmd_port {}", port.number());
        let beam = BeamNode::start(otp, &nobody, BeamOptions::new("six").named("six@::1").erl(&flags));
        let args = format!("--connect six@[::1]:{}", port.number());
        let kv = KvNode::start_named(&epmd, "kv@127.0.0.1", &args);
        kv.wait_for_log(&["peer up", beam.name()]);
        beam.wait_for_global("kv");
        let asked = format!("six@[::1]:{}", port.number());
        assert!(gets(&["ping", "--node", &asked], &[]).starts_with("pong from six@::1 "));
    });
}

#[test]
fn the_iex_of_the_banner_reaches_the_node_on_its_own_machine() {
    on_every_otp(|otp| {
        let port = Port::take();
        let kv = KvNode::start_without_epmd("kv@127.0.0.1", port.number(), "");
        let flags = format!("-erl_epmd_port {} -dist_listen false", port.number());
        assert!(kv.banner().contains(&format!("--erl \"-start_epmd false {flags}\"")), "{}", kv.banner());
        let nobody = Epmd::absent();
        let options = BeamOptions::new("iex").named("iex@127.0.0.1").erl(&flags);
        let iex = BeamNode::start(otp, &nobody, options);
        iex.ping(kv.name());
        iex.check("GenServer.call({KeyValueStore, :\"kv@127.0.0.1\"}, {:put, :a, 1})", ":ok");
    });
}

#[test]
fn the_commands_ask_a_node_at_its_port() {
    on_every_otp(|otp| {
        let port = Port::take();
        let number = port.number().to_string();
        let beam = beam(otp, "beam", HERE, &port);
        let _kv = KvNode::start_without_epmd("kv@127.0.0.1", port.number(), "--connect beam@127.0.0.2");
        beam.wait_for_global("kv");
        let kv_at = format!("kv@127.0.0.1:{number}");
        let beam_at = format!("beam@127.0.0.2:{number}");
        let everybody = [("KVNODE_EPMD", "none"), ("KVNODE_DIST_PORT", number.as_str())];
        let flags = ["--epmd", "none", "--dist-port", &number];
        assert_eq!(gets(&["put", ":a", "1", "--node", &kv_at], &[]), ":ok\n");
        assert_eq!(gets(&["get", ":a", "--node", "kv@127.0.0.1"], &everybody), "1\n");
        assert_eq!(gets(&[&["get", ":a", "--node", "kv@127.0.0.1"], &flags[..]].concat(), &[]), "1\n");
        assert_eq!(gets(&["rpc", "erlang", "node", "--node", &beam_at], &[]), ":\"beam@127.0.0.2\"\n");
        assert!(gets(&["ping", "--node", &beam_at], &[]).starts_with("pong from beam@127.0.0.2 in "));
        assert!(gets(&["status", "--node", "kv@127.0.0.1", "--json"], &everybody).starts_with('{'));
        let names = gets(&["names", "--node", "kv@127.0.0.1"], &everybody);
        assert!(names.starts_with("no epmd is asked\n") && names.contains(":kv "), "{names}");
        let report = gets(&["doctor", &beam_at], &[]);
        let told = format!(
            "ok    epmd       not asked: beam@127.0.0.2 is tried at port {number}, which was typed\n"
        );
        assert!(report.contains(&told) && report.contains("ok    clock "), "{report}");
        assert!(report.contains("ok    erl_rpc    another implementation's client gets in too"), "{report}");
        let report = gets(&["doctor", "kv@127.0.0.1"], &everybody);
        assert!(report.contains(&format!("at port {number}, that of all nodes without epmd\n")), "{report}");
    });
}

#[test]
fn a_node_of_the_library_needs_no_epmd() {
    let otp = Otp::newest();
    let port = Port::take();
    let beam = beam(&otp, "beam", HERE, &port);
    let rust = Node::builder("rust@127.0.0.1").cookie(COOKIE).bind(Ipv4Addr::LOCALHOST.into());
    let rust = rust.dist_port(port.number()).without_epmd().connect(beam.name()).start().expect("it starts");
    assert!(rust.epmd().is_none());
    wait_until("they are connected", || !rust.connected().is_empty());
    assert!(rust.snapshot().ready && rust.snapshot().missing.is_empty());
    beam.ping("rust@127.0.0.1");
    let asks = Node::builder("asks@127.0.0.9").cookie(COOKIE).without_epmd().outgoing_only();
    let asks = asks.start().expect("it starts");
    let unknown = kvnode::block_on(asks.connect_to(beam.name())).expect_err("its port is not known");
    assert!(unknown.to_string().contains("beam@127.0.0.2:PORT"), "{unknown}");
    let at = format!("{}:{}", beam.name(), port.number());
    let reached = kvnode::block_on(asks.connect_to(&at)).expect("it is found at its port");
    assert_eq!(&*reached.name, beam.name());
    for node in [rust, asks] {
        kvnode::block_on(node.stop());
    }
}
