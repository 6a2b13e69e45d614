//! The name of this host where neither a hosts file nor DNS has it: a BEAM finds itself all the same, and so does kvnode.

#![cfg(feature = "program")]

mod support;

use std::process::{Command, Output, Stdio};

use support::kvnode::program;
use support::netns::Seat;
use support::{BeamNode, BeamOptions, COOKIE, KvNode, Network, on_every_otp};

/// What a command says at the terminal of such a host.
fn types(network: &Network, seat: &Seat, args: &[&str]) -> Output {
    let home = tempfile::tempdir().expect("a folder can be made");
    let mut command = Command::new(program());
    command.args(args).env("HOME", home.path()).env("KVNODE_COOKIE", COOKIE);
    command.env("ERL_EPMD_PORT", network.epmd().port().to_string()).env_remove("ERL_EPMD_ADDRESS");
    let mut command = seat.around(&command);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.output().expect("it can be run")
}

#[track_caller]
fn gets(network: &Network, seat: &Seat, args: &[&str]) -> String {
    let output = types(network, seat, args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{args:?}: {}{}", text(&output.stderr), text(&output.stdout));
    text(&output.stdout)
}

/// A kvnode and a BEAM of a host that is called so.
fn on_a_host_called(host: &str) {
    let Some(network) = Network::lay(1) else { return };
    let [machine] = network.hosts();
    let seat = machine.seat().called(host);
    on_every_otp(|otp| {
        let start = |name: &str| BeamNode::start(otp, network.epmd(), BeamOptions::new(name).at(&seat));
        let (app, other) = (start("app"), start("other"));
        assert_eq!(app.name(), format!("app@{host}"));
        // What is right: a BEAM in the same place.
        other.ping(app.name());
        let kv = KvNode::start_at(&network, &seat, "kv", &format!("--connect {}", app.name()));
        app.wait_for_global("kv");
        app.check("GenServer.call({:global, :kv}, {:put, :a, 1})", ":ok");
        other.ping(kv.name());
        let (name, own) = (app.name(), kv.name());
        assert!(gets(&network, &seat, &["ping", "--node", name]).starts_with("pong"));
        assert_eq!(gets(&network, &seat, &["get", ":a", "--node", own]), "1\n");
        assert_eq!(
            gets(&network, &seat, &["rpc", "erlang", "node", "--node", name]).matches(host).count(),
            1
        );
        let report = gets(&network, &seat, &["doctor", name]);
        let known = format!(
            "ok    host       {host} is this machine, whose name neither DNS nor /etc/hosts has: 127.0.0.1"
        );
        assert!(report.contains(&known), "{report}");
        // It is told the address: the name is none that it could look up.
        assert!(report.contains("ok    erl_rpc    another implementation's client gets in too"), "{report}");
        if !host.contains('.') {
            assert_eq!(gets(&network, &seat, &["get", ":a"]), "1\n");
            assert!(gets(&network, &seat, &["names"]).contains(":kv "));
            assert!(gets(&network, &seat, &["ping", "--node", "app"]).starts_with("pong"));
        }
        assert!(kv.terminate().status.success());
    });
    // Others are as unknown as before.
    let unknown = types(&network, &seat, &["ping", "--node", "app@kvnode-nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    let said = String::from_utf8_lossy(&unknown.stderr);
    assert!(said.contains("unknown host \"kvnode-nobody\""), "{said}");
}

#[test]
fn the_short_name_of_this_host_needs_no_dns() {
    on_a_host_called("kvnode-own-host");
}

#[test]
fn the_long_name_of_this_host_needs_no_dns() {
    on_a_host_called("kvnode-own-host.example.test");
}

/// The operator who starts a node with this host part says what the host is called.
#[test]
fn the_host_part_of_the_own_name_is_this_host() {
    let Some(network) = Network::lay(1) else { return };
    let [machine] = network.hosts();
    let seat = machine.seat().called("kvnode-own-host");
    let one = KvNode::start_at(&network, &seat, "one@invented.example.test", "");
    let args = format!("--connect {}", one.name());
    let two = KvNode::start_at(&network, &seat, "two@invented.example.test", &args);
    two.wait_for_log(&["peer up", one.name()]);
}
