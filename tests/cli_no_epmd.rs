//! `kvnode doctor` and the other commands where no epmd is asked: a closed port, other programs, other nodes.

#![cfg(feature = "program")]

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};

use support::kvnode::program;
use support::ports::Port;
use support::{COOKIE, Epmd, KvNode, short_hostname};

/// Exit code, stdout and stderr of a command.
fn types(args: &[&str]) -> (i32, String, String) {
    let home = tempfile::tempdir().expect("a folder can be made");
    let mut command = Command::new(program());
    command.args(args).stdin(Stdio::null()).env("HOME", home.path()).env("KVNODE_COOKIE", COOKIE);
    // Nobody is there: what is asked of an epmd fails.
    command.env("ERL_EPMD_PORT", Epmd::absent().port().to_string());
    let output = command.output().expect("it was built");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().expect("it ended by itself"), text(&output.stdout), text(&output.stderr))
}

/// The doctor ends with this check, and says what to do.
#[track_caller]
fn doctor(args: &[&str], check: &str, parts: &[&str]) {
    let (code, report, stderr) = types(&[&["doctor"], args].concat());
    assert_eq!(code, 1, "{report}{stderr}");
    assert_eq!(report.matches("FAIL").count(), 1, "{report}");
    assert!(report.contains("ok    epmd       not asked: "), "{report}");
    assert!(report.contains(&format!("FAIL  {check:<10} ")), "{check} is not in {report}");
    for part in parts {
        assert!(report.contains(part), "{part:?} is not in {report}");
    }
    assert!(!report.contains(COOKIE) && !stderr.contains(COOKIE), "{report}{stderr}");
}

/// A program at a port that answers everybody so.
fn answering(port: &Port, answer: &'static [u8]) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("the port is ours");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            let mut asked = [0; 64];
            if socket.read(&mut asked).is_ok_and(|len| len > 0) {
                let _gone = socket.write_all(answer);
            }
        }
    });
}

#[test]
fn the_doctor_needs_no_epmd() {
    let port = Port::take();
    let number = port.number().to_string();
    let at = |name: &str| format!("{name}@127.0.0.1:{number}");
    let everybody = ["--epmd", "none", "--dist-port", &number];
    doctor(
        &[&at("kv")],
        "port",
        &["takes no connections", "nothing listens there", "-erl_epmd_port", "--dist-port"],
    );
    doctor(&[&["kv@127.0.0.1"], &everybody[..]].concat(), "port", &["of all nodes without epmd"]);
    {
        let _kv = KvNode::start_without_epmd("kv@127.0.0.1", port.number(), "");
        let (code, report, stderr) = types(&["doctor", &at("kv"), "--json"]);
        assert!(code == 0 && stderr.is_empty() && report.contains("\"ok\":true"), "{report}{stderr}");
        doctor(&[&at("vk")], "handshake", &["calls itself kv@127.0.0.1", "vk@127.0.0.1:PORT"]);
        doctor(&[&at("kv"), "--cookie", "wrong"], "cookie", &["--cookie here"]);
        // Of the other kind of name.
        doctor(&[&format!("kv@localhost:{number}")], "name kinds", &["calls itself kv@127.0.0.1"]);
        let (code, _, stderr) = types(&["ping", "--node", &at("vk")]);
        assert!(code == 1 && stderr.contains("calls itself") && stderr.contains("kvnode doctor"), "{stderr}");
    }
    // A name of this machine alone, without its host.
    let (code, _, stderr) = types(&["ping", "--node", &format!("kv:{number}")]);
    assert!(code == 1 && stderr.contains(&format!("kv@{} does not answer at", short_hostname())), "{stderr}");
    answering(&port, b"HTTP/1.1 400 Bad Request\r\n\r\n");
    doctor(&[&at("kv")], "handshake", &["another program than an Erlang node has port"]);
}

#[test]
fn a_program_that_waits_for_other_requests_is_not_taken_for_a_node() {
    let port = Port::take();
    // What connects is kept by the system, and nobody answers.
    let _silent = TcpListener::bind((Ipv4Addr::LOCALHOST, port.number())).expect("the port is ours");
    let at = format!("kv@127.0.0.1:{}", port.number());
    doctor(&[&at], "handshake", &["sent nothing in time", "another program, as a web server, may have port"]);
}

#[test]
fn an_epmd_is_not_taken_for_a_node() {
    let epmd = Epmd::start();
    let at = format!("kv@127.0.0.1:{}", epmd.port());
    doctor(&[&at], "handshake", &["another program than an Erlang node has port", "epmd"]);
}

#[test]
fn a_node_that_is_not_there_is_told_with_its_port() {
    let port = Port::take();
    let number = port.number().to_string();
    let (code, _, stderr) = types(&["ping", "--node", &format!("kv@127.0.0.1:{number}")]);
    assert!(
        code == 1 && stderr.contains(&format!("at 127.0.0.1:{number}, the port that was given for it")),
        "{stderr}"
    );
    let (code, _, stderr) =
        types(&["ping", "--node", "kv@127.0.0.1", "--epmd", "none", "--dist-port", &number]);
    assert!(code == 1 && stderr.contains("of all nodes here, which are without epmd"), "{stderr}");
    let (code, _, stderr) = types(&["ping", "--node", "kv@no-such-host.invalid:4370"]);
    assert!(code == 1 && stderr.contains("unknown host \"no-such-host.invalid\""), "{stderr}");
}
