//! kvnode itself, as a person would start it.

use std::ffi::OsString;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::epmd::Epmd;
use super::netns::{Host, Network, Seat};
use super::output::Output;
use super::wait::{PATIENCE, wait_until};

/// The program under test.
pub fn program() -> OsString {
    std::env::var_os("KVNODE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kvnode").into())
}

/// A kvnode. Dropping it kills it.
pub struct KvNode {
    name: String,
    child: Child,
    stdout: Output,
    stderr: Output,
    // HOME, until the node is gone.
    home: tempfile::TempDir,
}

/// A kvnode that has ended.
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it logged.
    pub stderr: String,
}

/// What the last line of the start-up banner has in it: by then the node is registered and listens.
const READY: &str = "{:get, ";

impl KvNode {
    /// Starts `--sname name` with these arguments, separated by blanks, and the cookie of all tests unless
    /// they name one. Waits until the banner is complete: the node is registered and can be reached.
    #[track_caller]
    pub fn start(epmd: &Epmd, name: &str, args: &str) -> Self {
        Self::start_with(epmd, name, args, |_| {})
    }

    /// The same, with more said about the process.
    #[track_caller]
    pub fn start_with(epmd: &Epmd, name: &str, args: &str, change: impl FnOnce(&mut Command)) -> Self {
        Self::spawn(epmd, name, args, change).until_ready(name, args)
    }

    /// The same on another host, by the long name `name@ADDRESS`.
    #[track_caller]
    pub fn start_on(network: &Network, host: &Host, name: &str, args: &str) -> Self {
        Self::start_at(network, host.seat(), name, args)
    }

    /// The same, with the name that the seat's host has.
    #[track_caller]
    pub fn start_at(network: &Network, seat: &Seat, name: &str, args: &str) -> Self {
        let change = |command: &mut Command| {
            *command = seat.around(command);
            pipe(command);
        };
        let [flag, typed] = seat.typed(name);
        let mut node = Self::spawn_as(network.epmd(), [&flag, &typed], args, change);
        node.name = if name.contains('@') { name.to_owned() } else { seat.node(name) };
        node.until_ready(name, args)
    }

    /// The same by the long name `full`, on this host.
    #[track_caller]
    pub fn start_named(epmd: &Epmd, full: &str, args: &str) -> Self {
        let mut node = Self::spawn_as(epmd, ["--name", full], args, |_| {});
        node.name = full.to_owned();
        node.until_ready(full, args)
    }

    /// Starts `--name full` on an address of this machine that it listens at alone, without epmd, at the port of all nodes.
    #[track_caller]
    pub fn start_without_epmd(full: &str, port: u16, args: &str) -> Self {
        let address = full.split('@').nth(1).unwrap_or_default();
        let args = format!("--bind {address} --epmd none --dist-port {port} {args}");
        let nobody = Epmd::absent();
        let mut node = Self::spawn_as(&nobody, ["--name", full], &args, |_| {});
        node.name = full.to_owned();
        let node = node.until_ready(full, &args);
        assert!(nobody.names().is_none(), "an epmd was started");
        node
    }

    #[track_caller]
    fn until_ready(self, name: &str, args: &str) -> Self {
        let node = self;
        let ready = node.stdout.wait_for(0, PATIENCE, |line| line.contains(READY));
        assert!(ready.is_some(), "{name} {args}: the banner is not complete");
        node
    }

    /// Starts a node that must end by itself, and waits for that.
    #[track_caller]
    pub fn run_to_end(epmd: &Epmd, name: &str, args: &str) -> Ended {
        Self::spawn(epmd, name, args, |_| {}).wait()
    }

    fn spawn(epmd: &Epmd, name: &str, args: &str, change: impl FnOnce(&mut Command)) -> Self {
        Self::spawn_as(epmd, ["--sname", name], args, change)
    }

    fn spawn_as(epmd: &Epmd, typed: [&str; 2], args: &str, change: impl FnOnce(&mut Command)) -> Self {
        let home = tempfile::Builder::new().prefix("kvnode-test-").tempdir().expect("a folder can be made");
        let mut command = Command::new(program());
        command.args(typed).args(args.split_whitespace());
        if !args.split_whitespace().any(|arg| arg == "--cookie") {
            command.args(["--cookie", super::COOKIE]);
        }
        command.env("HOME", home.path()).env("ERL_EPMD_PORT", epmd.port().to_string());
        // What a node writes without being told where, such as what a former primary drops, goes with its home.
        command.current_dir(home.path());
        command
            .env_remove("KVNODE_BIN")
            .env_remove("ERL_EPMD_ADDRESS")
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("RUST_LOG");
        pipe(&mut command);
        change(&mut command);
        let mut child = command.spawn().expect("kvnode can be started");
        Self {
            name: super::at_host(typed[1]),
            stdout: Output::of(child.stdout.take().expect("it is piped")),
            stderr: Output::of(child.stderr.take().expect("it is piped")),
            child,
            home,
        }
    }

    /// The full name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The folder that is its HOME.
    pub fn home(&self) -> &std::path::Path {
        self.home.path()
    }

    /// The banner.
    pub fn banner(&self) -> String {
        self.stdout.text()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        self.stderr.text()
    }

    /// What it has logged after `mark`.
    pub fn log_since(&self, mark: usize) -> String {
        self.stderr.text_since(mark)
    }

    /// Where its log ends now, for [`KvNode::wait_for_log_after`].
    pub fn log_mark(&self) -> usize {
        self.stderr.mark()
    }

    /// Waits for a line of its log that has all of these in it, and returns the line.
    #[track_caller]
    pub fn wait_for_log(&self, parts: &[&str]) -> String {
        self.wait_for_log_after(0, parts)
    }

    /// The same for a line that comes after `mark`.
    #[track_caller]
    pub fn wait_for_log_after(&self, mark: usize, parts: &[&str]) -> String {
        let line = self.stderr.wait_for(mark, PATIENCE, |line| parts.iter().all(|part| line.contains(part)));
        line.unwrap_or_else(|| panic!("{} has not logged {parts:?} within {PATIENCE:?}", self.name))
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub fn terminate(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("our child, not yet waited for");
    }

    /// Kills it as `kill -9` does, and waits until epmd has forgotten it.
    #[track_caller]
    pub fn kill(mut self, epmd: &Epmd) {
        self.end();
        let name = self.name.split('@').next().unwrap_or_default().to_owned();
        wait_until("epmd has forgotten the node", || epmd.names().is_none_or(|names| !names.contains(&name)));
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                break status;
            }
            assert!(start.elapsed() < PATIENCE, "{} has not ended within {PATIENCE:?}", self.name);
            std::thread::sleep(std::time::Duration::from_millis(10));
        };
        for output in [&self.stdout, &self.stderr] {
            output.wait_for_end(PATIENCE);
        }
        Ended { status, stdout: self.stdout.text(), stderr: self.stderr.text() }
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pipe(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
}

impl Drop for KvNode {
    fn drop(&mut self) {
        self.end();
        if std::thread::panicking() {
            eprintln!("=== {} said:\n{}\n{}\n", self.name, self.banner(), self.log());
        }
    }
}
