//! What a service manager is told: `sd_notify(3)` at a real socket.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "a watchdog lives in real time")]

mod support;

use std::ffi::OsString;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::process::Command;
use std::time::{Duration, Instant};

use support::tls::Ca;
use support::{Epmd, KvNode, Otp, short_hostname};

/// What takes the part of systemd.
struct Manager {
    socket: UnixDatagram,
    /// NOTIFY_SOCKET.
    named: OsString,
    _folder: tempfile::TempDir,
}

impl Manager {
    fn listening() -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket can be made");
        Self::at(socket, path.into_os_string(), folder)
    }

    /// In Linux' abstract namespace.
    fn abstracted() -> Self {
        // For a name that nobody else has.
        let folder = tempfile::tempdir().expect("a folder can be made");
        let name = folder.path().join("notify").into_os_string();
        let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("it is short");
        let socket = UnixDatagram::bind_addr(&address).expect("a socket can be made");
        let mut named = OsString::from("@");
        named.push(&name);
        Self::at(socket, named, folder)
    }

    fn at(socket: UnixDatagram, named: OsString, folder: tempfile::TempDir) -> Self {
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
        Self { socket, named, _folder: folder }
    }

    /// The lines of the next message that has this one, and when it came.
    #[track_caller]
    fn told(&self, line: &str) -> (Vec<String>, Instant) {
        let mut bytes = [0; 4096];
        loop {
            let len =
                self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{line} was not said: {error}"));
            let text = std::str::from_utf8(&bytes[..len]).expect("it is text");
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            if lines.iter().any(|said| said == line) {
                return (lines, Instant::now());
            }
        }
    }

    fn started(&self, epmd: &Epmd, name: &str, args: &str, change: impl FnOnce(&mut Command)) -> KvNode {
        KvNode::start_with(epmd, name, args, |command| {
            command.env("NOTIFY_SOCKET", &self.named);
            change(command);
        })
    }
}

#[test]
fn it_says_when_it_is_ready_and_when_it_ends() {
    for manager in [Manager::listening(), Manager::abstracted()] {
        let epmd = Epmd::start();
        let node = manager.started(&epmd, "served", "", |_| {});
        let (lines, _) = manager.told("READY=1");
        let port = epmd.port_of("served").expect("who is ready is registered");
        let status = lines.iter().find(|line| line.starts_with("STATUS=")).expect("it says what it is");
        assert!(status.contains(node.name()) && status.contains(&format!(":{port}")), "{status}");
        node.signal(rustix::process::Signal::TERM);
        manager.told("STOPPING=1");
        let ended = node.wait();
        assert!(ended.status.success() && !ended.stderr.contains("NOTIFY_SOCKET"), "{}", ended.stderr);
    }
}

#[test]
fn a_manager_that_cannot_be_told_is_in_the_log_once() {
    let epmd = Epmd::start();
    for socket in ["/nonexistent", "@kvnode-test-nobody-listens", "vsock:2:1234", "@"] {
        let node = KvNode::start_with(&epmd, "untold", "", |command| {
            command.env("NOTIFY_SOCKET", socket);
        });
        node.wait_for_log(&[" WARN ", "cannot be told", "NOTIFY_SOCKET", socket]);
        let ended = node.terminate();
        assert!(ended.status.success(), "{}", ended.stderr);
        // STOPPING could not be told either.
        assert_eq!(ended.stderr.matches("service manager").count(), 1, "{}", ended.stderr);
        epmd.wait_for_name("untold", false);
    }
    let without = KvNode::start_with(&epmd, "without", "", |command| {
        command.env("NOTIFY_SOCKET", "");
    });
    let ended = without.terminate();
    assert!(!ended.stderr.contains("service manager"), "{}", ended.stderr);
}

#[test]
fn it_says_twice_in_the_watchdogs_time_that_it_is_alive() {
    let (epmd, manager) = (Epmd::start(), Manager::listening());
    let limit = Duration::from_millis(400);
    let node = manager.started(&epmd, "watched", "", |command| {
        command.env("WATCHDOG_USEC", limit.as_micros().to_string());
    });
    manager.told("READY=1");
    let (_, first) = manager.told("WATCHDOG=1");
    let times: Vec<Instant> = (0..5).map(|_| manager.told("WATCHDOG=1").1).collect();
    let last = times[4];
    assert!(last - first >= 4 * limit / 2, "not more often than it must: {:?}", last - first);
    // A node that does not get to run says nothing, and goes on when it does.
    node.signal(rustix::process::Signal::STOP);
    manager.socket.set_read_timeout(Some(3 * limit)).expect("it is a socket");
    while manager.socket.recv(&mut [0; 64]).is_ok() {}
    node.signal(rustix::process::Signal::CONT);
    manager.socket.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
    manager.told("WATCHDOG=1");
}

#[test]
fn a_watchdog_of_another_process_is_none() {
    let (epmd, manager) = (Epmd::start(), Manager::listening());
    let node = manager.started(&epmd, "unwatched", "", |command| {
        command.env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1");
    });
    manager.told("READY=1");
    node.signal(rustix::process::Signal::TERM);
    let mut bytes = [0; 64];
    let len = manager.socket.recv(&mut bytes).expect("it ends");
    assert_eq!(&bytes[..len], b"STOPPING=1\n");
}

#[test]
fn a_reload_is_told_from_its_begin_to_its_end() {
    let (epmd, manager) = (Epmd::start(), Manager::listening());
    let files = Ca::new("test").files(&Otp::newest(), &short_hostname());
    let node = manager.started(&epmd, "reloaded", &files.flags(), |_| {});
    manager.told("READY=1");
    node.signal(rustix::process::Signal::HUP);
    let (lines, _) = manager.told("RELOADING=1");
    assert!(lines.iter().any(|line| line.starts_with("MONOTONIC_USEC=")), "{lines:?}");
    manager.told("READY=1");
}

#[test]
fn the_unit_file_is_one() {
    let verify = Command::new("systemd-analyze").args(["--version"]).output();
    if !verify.is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: there is no systemd-analyze");
        return;
    }
    // The program stands elsewhere than the unit says.
    let folder = tempfile::tempdir().expect("a folder can be made");
    let unit = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/kvnode.service"));
    let unit = unit.expect("it is there").replace("/usr/local/bin/kvnode", env!("CARGO_BIN_EXE_kvnode"));
    let path = folder.path().join("kvnode.service");
    std::fs::write(&path, unit).expect("it is ours");
    let output = Command::new("systemd-analyze")
        .arg("--man=no")
        .arg("verify")
        .arg(&path)
        .output()
        .expect("it is there");
    let said = String::from_utf8_lossy(&output.stderr);
    let ours: Vec<&str> = said.lines().filter(|line| line.contains("kvnode")).collect();
    assert!(ours.is_empty(), "{ours:?}");
}
