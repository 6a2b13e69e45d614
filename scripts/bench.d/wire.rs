//! Two hosts with a wire of a rate between them: network namespaces, and `tc … tbf` at both ends. It takes root, and `ip`
//! and `tc` of iproute2. Each host has an epmd of its own, at the port of all others.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::children::{PATIENCE, Running};
use crate::compiled::not_installed;
use crate::servers::{Lab, epmd_command};
use crate::{Result, failure};

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Seat {
    namespace: String,
    pub address: Ipv4Addr,
}

/// The two hosts. They are gone with it.
pub struct Wire {
    // In the order in which they have to go.
    _epmds: Vec<Running>,
    seats: [Seat; 2],
    _namespaces: [Namespace; 2],
}

/// What waits at an end of the wire is dropped once it would take longer.
const QUEUE: Duration = Duration::from_millis(50);
/// What the names of all namespaces begin with. Behind it stands the process whose it is.
const PREFIX: &str = "kvnode-bench-";

impl Wire {
    /// Lays it, as fast as the machine.
    ///
    /// # Errors
    /// It takes root, or something that is not installed; the text is for people.
    pub fn lay(lab: &Lab) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(not_installed("hosts with a wire between them take root"));
        }
        remove_left();
        let namespaces = [Namespace::add(lab)?, Namespace::add(lab)?];
        let [one, other] = &namespaces;
        one.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", &other.0])?;
        let mut seats = Vec::new();
        for (number, namespace) in [1, 2].into_iter().zip(&namespaces) {
            let address = Ipv4Addr::new(10, 78, 0, number);
            namespace.ip(&["link", "set", "lo", "up"])?;
            namespace.ip(&["address", "add", &format!("{address}/24"), "dev", "eth0"])?;
            namespace.ip(&["link", "set", "eth0", "up"])?;
            seats.push(Seat { namespace: namespace.0.clone(), address });
        }
        let seats: [Seat; 2] = seats.try_into().map_err(|_| failure("two hosts"))?;
        let mut epmds = Vec::new();
        for seat in &seats {
            let mut command = seat.around(&epmd_command(lab.epmd_port));
            epmds.push(Running::start("epmd of a host", &mut command, lab.folder.path())?);
            let mut ask = epmd_command(lab.epmd_port);
            ask.arg("-names");
            let until = Instant::now() + PATIENCE;
            while !is_success(&mut seat.around(&ask)) {
                if Instant::now() > until {
                    return Err(failure("the epmd of a host does not answer"));
                }
            }
        }
        let wire = Self { _epmds: epmds, seats, _namespaces: namespaces };
        wire.limit(Some(1000)).map_err(|error| not_installed(&format!("no rates of links: {error}")))?;
        wire.limit(None)?;
        Ok(wire)
    }

    /// The hosts.
    pub const fn seats(&self) -> &[Seat; 2] {
        &self.seats
    }

    /// From now on it has this rate, in each direction; `None`: that of the machine.
    pub fn limit(&self, megabits_per_sec: Option<u32>) -> Result<()> {
        for seat in &self.seats {
            let mut command = Command::new("tc");
            command.args(["-n", &seat.namespace, "qdisc"]);
            match megabits_per_sec {
                Some(rate) => {
                    // Two of the largest packets that the kernel hands to a port, and what is due between two beats of
                    // a slow clock.
                    let burst = (rate * 1_000_000 / 8 / 100).max(128 << 10);
                    command.args(["replace", "dev", "eth0", "root", "tbf"]);
                    command.args(["rate", &format!("{rate}mbit"), "burst", &format!("{burst}b")]);
                    command.args(["latency", &format!("{}ms", QUEUE.as_millis())]);
                    run(&mut command)?;
                }
                None => {
                    // There may be none.
                    let _ = command.args(["del", "dev", "eth0", "root"]).output();
                }
            }
        }
        Ok(())
    }
}

impl Seat {
    /// This command with its arguments and environment, to be run here.
    pub fn around(&self, command: &Command) -> Command {
        let mut moved = Command::new("ip");
        // It becomes the program: its process is the program's.
        moved.args(["netns", "exec", &self.namespace]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        moved
    }
}

struct Namespace(String);

impl Namespace {
    fn add(lab: &Lab) -> Result<Self> {
        let namespace = Self(format!("{PREFIX}{}-{}", std::process::id(), lab.next_number()));
        let mut command = Command::new("ip");
        command.args(["netns", "add", &namespace.0]);
        let unavailable = |error| not_installed(&format!("no network namespaces: {error}"));
        run(&mut command).map_err(unavailable)?;
        Ok(namespace)
    }

    fn ip(&self, args: &[&str]) -> Result<()> {
        run(Command::new("ip").args(["-n", &self.0]).args(args))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

/// Removes what a run that was killed has left.
fn remove_left() {
    let Ok(list) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for name in String::from_utf8_lossy(&list.stdout).split_whitespace() {
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
        }
    }
}

fn is_success(command: &mut Command) -> bool {
    command.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success())
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().display().to_string();
    let output =
        command.stdin(Stdio::null()).output().map_err(|error| failure(format!("{program}: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failure(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
}
