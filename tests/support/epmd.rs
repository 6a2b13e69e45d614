//! epmd on a port of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ::kvnode::config::EpmdConfig;

#[cfg(feature = "program")]
use super::kvnode;
use super::ports::Port;
use super::wait::wait_until;

/// An epmd port, and the daemon that listens on it, if there is one.
pub struct Epmd {
    port: Port,
    child: Option<Child>,
    program: Program,
}

#[derive(Clone, Copy)]
enum Program {
    Erlang,
    #[cfg(feature = "program")]
    Kvnode,
}

impl Epmd {
    /// Erlang's own daemon.
    pub fn start() -> Self {
        Self::run(Program::Erlang)
    }

    /// kvnode's daemon.
    #[cfg(feature = "program")]
    pub fn start_kvnode() -> Self {
        Self::run(Program::Kvnode)
    }

    /// A port on which nothing listens. What a node starts there is ended when this goes.
    pub fn absent() -> Self {
        Self { port: Port::take(), child: None, program: Program::Erlang }
    }

    /// What has a node of the test's own process use this one, and start none.
    pub fn config(&self) -> EpmdConfig {
        EpmdConfig::default().with_port(self.port()).with_start(false)
    }

    fn run(program: Program) -> Self {
        let mut epmd = Self { port: Port::take(), child: None, program };
        epmd.start_again();
        epmd
    }

    /// Starts the daemon after [`Epmd::kill`], on the same port, and waits until it answers.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it still runs");
        let mut command = match self.program {
            Program::Erlang => Command::new("epmd"),
            #[cfg(feature = "program")]
            Program::Kvnode => {
                let mut command = Command::new(kvnode::program());
                command.arg("epmd");
                command
            }
        };
        command.env("ERL_EPMD_PORT", self.port().to_string());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("epmd can be started");
        let port = self.port();
        wait_until("epmd answers", || {
            let ended = child.try_wait().expect("it is our child");
            assert!(ended.is_none(), "epmd at port {port} ended at once: {ended:?}");
            self.names().is_some()
        });
        self.child = Some(child);
    }

    /// Kills the daemon as `kill -9` does.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it is our child");
        child.wait().expect("it is our child");
    }

    /// Its port, for `ERL_EPMD_PORT`.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The names that are registered (`NAMES_REQ`: asking changes nothing). `None`: nobody answers.
    pub fn names(&self) -> Option<Vec<String>> {
        Some(self.nodes()?.into_iter().map(|(name, _)| name).collect())
    }

    /// The port on which the node of this name listens.
    pub fn port_of(&self, name: &str) -> Option<u16> {
        self.nodes()?.into_iter().find_map(|(known, port)| (known == name).then_some(port))
    }

    /// Names and ports.
    fn nodes(&self) -> Option<Vec<(String, u16)>> {
        // The daemon's own port in 32 bits, then lines "name NAME at port PORT".
        let answer = self.ask(b"n")?;
        let lines = String::from_utf8_lossy(answer.get(4..)?).into_owned();
        let node = |line: &str| {
            let mut words = line.split(' ');
            Some((words.nth(1)?.to_owned(), words.next_back()?.parse().ok()?))
        };
        Some(lines.lines().filter_map(node).collect())
    }

    /// Waits until `name` is registered, or is not.
    #[track_caller]
    pub fn wait_for_name(&self, name: &str, registered: bool) {
        let state = if registered { "is" } else { "is not" };
        wait_until(&format!("{name} {state} registered in epmd"), || {
            self.names().is_some_and(|names| names.iter().any(|known| known == name) == registered)
        });
    }

    /// Registers a name for a node that does not register it here (`ALIVE2_REQ`), while the value lives.
    pub fn register(&self, name: &str, port: u16) -> TcpStream {
        let mut request = vec![120];
        request.extend(port.to_be_bytes());
        // A node of normal kind over TCP/IPv4, of protocol versions 6 to 5.
        request.extend([77, 0, 0, 6, 0, 5]);
        request.extend((name.len() as u16).to_be_bytes());
        request.extend(name.as_bytes());
        request.extend([0, 0]);
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).expect("epmd runs");
        socket.write_all(&(request.len() as u16).to_be_bytes()).expect("epmd reads");
        socket.write_all(&request).expect("epmd reads");
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).expect("epmd answers");
        assert_eq!(answer[1], 0, "{name} is taken");
        socket
    }

    /// Sends one request and reads the answer to its end.
    pub fn ask(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port())).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
        let length = u16::try_from(request.len()).ok()?.to_be_bytes();
        socket.write_all(&[&length, request].concat()).ok()?;
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).ok()?;
        Some(answer)
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        } else if !std::thread::panicking() {
            // A daemon that a node has left behind: it goes once it knows of no node (KILL_REQ).
            wait_until("the daemon that a node started is gone", || self.ask(b"k").is_none());
        } else {
            let _ = self.ask(b"k");
        }
    }
}
