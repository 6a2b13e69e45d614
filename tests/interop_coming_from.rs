//! The programs of docs/coming-from.md, before and after, against real nodes: both do the same.

#[path = "coming_from/erl_dist_after.rs"]
mod erl_dist_after;
#[path = "coming_from/erl_dist_before.rs"]
mod erl_dist_before;
#[path = "coming_from/erl_rpc_after.rs"]
mod erl_rpc_after;
#[path = "coming_from/erl_rpc_before.rs"]
mod erl_rpc_before;
mod support;

use std::process::{Child, Command, Output, Stdio};

use support::{BeamNode, COOKIE, Epmd, at_host, on_every_otp};

/// Says to the test binary which program it is to be, and the node that this has or asks.
const PROGRAM: &str = "KVNODE_TEST_PROGRAM";
const NODE: &str = "KVNODE_TEST_NODE";

/// A program of the page, in a process of its own: with the environment that `erl` reads, as its user would start it.
fn program(name: &str, node: &str, epmd: &Epmd) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    command.args(["--ignored", "--exact", "as_a_program_of_its_own", "--nocapture"]);
    command.env(PROGRAM, name).env(NODE, node).env("ERL_EPMD_PORT", epmd.port().to_string());
    command.env_remove("ERL_EPMD_ADDRESS").stdin(Stdio::null());
    command
}

#[test]
#[ignore = "started by the other tests, as a program of its own"]
fn as_a_program_of_its_own() {
    let node = std::env::var(NODE).expect("the test that starts this says of which node");
    match std::env::var(PROGRAM).expect("the test that starts this says which").as_str() {
        "erl_rpc_after" => {
            let text = erl_rpc_after::thrice(&node, COOKIE, "ha").expect("it is done");
            println!("it is {text:?}");
        }
        "erl_dist_after" => erl_dist_after::greet(&node, COOKIE).expect("it runs"),
        "erl_dist_before" => {
            let epmd = std::env::var("ERL_EPMD_PORT").expect("it was said").parse().expect("a port");
            let name = at_host(&node).parse().expect("a node's name");
            smol::block_on(erl_dist_before::greet(name, COOKIE.to_owned(), epmd)).expect("it runs");
        }
        other => panic!("there is no {other}"),
    }
}

/// A program that runs until this is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_call_of_the_page_gives_the_same_by_erl_rpc_and_by_kvnode() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let port = epmd.port_of("beam").expect("it is registered");
        let before = erl_rpc_before::thrice(beam.name(), port, COOKIE, "ha").expect("it is done");
        assert_eq!(before, "hahaha");
        let Output { stdout, stderr, status } =
            program("erl_rpc_after", beam.name(), &epmd).output().expect("this program can be started");
        let (stdout, stderr) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
        assert!(status.success() && stdout.contains("it is \"hahaha\""), "{stdout}\n{stderr}");
    });
}

#[test]
fn the_greeter_of_the_page_greets_by_erl_dist_and_by_kvnode() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        for (name, node) in [("erl_dist_before", "before"), ("erl_dist_after", "after")] {
            let running = program(name, node, &epmd).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let _running = Running(running.expect("this program can be started"));
            epmd.wait_for_name(node, true);
            // The name is there before the process has its own.
            let greeted = format!(
                "(fn -> send({{:greeter, :\"{}\"}}, {{self(), \"Ana\"}})
                   receive do text when is_binary(text) -> text after 500 -> nil end end).()",
                at_host(node)
            );
            beam.check_soon(&greeted, "\"Hello, Ana!\"");
        }
    });
}

#[test]
fn the_page_has_these_very_programs() {
    let page = include_str!("../docs/coming-from.md");
    for program in [
        include_str!("coming_from/erl_rpc_before.rs"),
        include_str!("coming_from/erl_rpc_after.rs"),
        include_str!("coming_from/erl_dist_before.rs"),
        include_str!("coming_from/erl_dist_after.rs"),
    ] {
        assert!(page.contains(&format!("```rust\n{program}```\n")), "not in the page:\n{program}");
    }
}
