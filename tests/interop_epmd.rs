//! epmd: a name that is taken, a daemon that dies, and machines that have none.

#![cfg(feature = "program")]

mod support;

use std::process::Command;

use rustix::process::{Pid, Signal};
use support::{BeamNode, Epmd, KvNode, at_host, on_every_otp, wait_until};

/// No Erlang on the PATH: what a node needs it must bring itself.
fn without_erlang(command: &mut Command) {
    command.env("PATH", "/nowhere");
}

#[test]
fn a_name_that_is_taken_is_refused_and_said_to_be() {
    let epmd = Epmd::start();
    let first = KvNode::start(&epmd, "kv", "");
    let second = KvNode::run_to_end(&epmd, "kv", "");
    assert!(!second.status.success(), "{}", second.stdout);
    let said = second.stderr.to_lowercase();
    assert!(said.contains("kv") && said.contains("epmd"), "{said}");
    assert!(said.contains("taken") || said.contains("in use") || said.contains("already"), "{said}");
    // The first has lost nothing by it.
    assert_eq!(epmd.names(), Some(vec!["kv".to_owned()]));
    assert!(first.terminate().status.success());
    epmd.wait_for_name("kv", false);
    drop(KvNode::start(&epmd, "kv", ""));
}

#[test]
fn a_name_that_a_beam_has_is_refused_too() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let _beam = BeamNode::start(otp, &epmd, "kv");
        assert!(!KvNode::run_to_end(&epmd, "kv", "").status.success());
    });
}

#[test]
fn a_killed_epmd_gets_the_name_again() {
    on_every_otp(|otp| {
        let mut epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let before = epmd.port_of("kv");
        let mark = kv.log_mark();
        epmd.kill();
        kv.wait_for_log_after(mark, &["epmd"]);
        epmd.start_again();
        epmd.wait_for_name("kv", true);
        assert_eq!(epmd.port_of("kv"), before);
        // Nothing but the registration was lost: a node that looks now finds it.
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    });
}

#[test]
fn a_killed_epmd_of_ours_gets_the_name_again() {
    let mut epmd = Epmd::start_kvnode();
    let kv = KvNode::start(&epmd, "kv", "");
    let mark = kv.log_mark();
    epmd.kill();
    kv.wait_for_log_after(mark, &["epmd"]);
    epmd.start_again();
    epmd.wait_for_name("kv", true);
}

#[test]
fn connections_outlive_epmd() {
    on_every_otp(|otp| {
        let mut epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        let mark = kv.log_mark();
        epmd.kill();
        kv.wait_for_log_after(mark, &["epmd"]);
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        beam.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
        epmd.start_again();
    });
}

#[test]
fn where_no_epmd_runs_erlangs_own_is_started() {
    let epmd = Epmd::absent();
    let kv = KvNode::start(&epmd, "kv", "");
    epmd.wait_for_name("kv", true);
    // It outlives the node.
    assert!(kv.terminate().status.success());
    epmd.wait_for_name("kv", false);
}

#[test]
fn a_machine_without_erlang_starts_kvnodes_epmd_which_serves_beams_too() {
    on_every_otp(|otp| {
        let epmd = Epmd::absent();
        let kv = KvNode::start_with(&epmd, "kv", &format!("--connect {}", at_host("beam")), without_erlang);
        epmd.wait_for_name("kv", true);
        let other = KvNode::start_with(&epmd, "other", &format!("--connect {}", kv.name()), without_erlang);
        other.wait_for_log(&[kv.name(), "up"]);
        // A BEAM that comes later registers there, is found there, and finds others there.
        let beam = BeamNode::start(otp, &epmd, "beam");
        epmd.wait_for_name("beam", true);
        beam.wait_for_global("kv");
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        beam.ping(other.name());
        beam.check(
            ":net_adm.names() |> elem(1) |> Enum.map(&elem(&1, 0)) |> Enum.sort() |> Enum.map(&to_string/1)",
            r#"["beam", "kv", "other"]"#,
        );
        // It outlives the node that started it.
        assert!(kv.terminate().status.success());
        epmd.wait_for_name("kv", false);
        epmd.wait_for_name("beam", true);
        assert!(other.terminate().status.success());
        beam.kill(&epmd);
    });
}

#[test]
fn a_second_node_uses_the_epmd_that_the_first_has_started() {
    let epmd = Epmd::absent();
    let one = KvNode::start_with(&epmd, "one", "", without_erlang);
    let two = KvNode::start_with(&epmd, "two", "", without_erlang);
    let mut names = epmd.names().expect("one has started it");
    names.sort();
    assert_eq!(names, ["one", "two"]);
    assert!(one.terminate().status.success());
    assert!(two.terminate().status.success());
}

#[test]
fn a_second_signal_ends_at_once() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    kv.signal(Signal::INT);
    // It may be gone by now, which is what a second one is to bring about.
    let _ = rustix::process::kill_process(pid_of(&kv), Signal::INT);
    let ended = kv.wait();
    assert!(ended.status.code().is_some(), "ended by itself: {:?}", ended.status);
    wait_until("epmd has forgotten the node", || epmd.names() == Some(Vec::new()));
}

fn pid_of(kv: &KvNode) -> Pid {
    Pid::from_raw(i32::try_from(kv.pid()).expect("a pid")).expect("a pid is not zero")
}
