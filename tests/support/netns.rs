//! Hosts that can be cut off from each other: network namespaces, each plugged into one bridge.
//!
//! ```text
//!   namespace of a host        namespace of the switch
//!   eth0  10.77.0.N/24 ------- portN --- br0 --- portM ---
//! ```
//!
//! Each host has its own loopback, and its own epmd on the same port as all others of its network. Networks do not see
//! each other, nor the machine's own interfaces. It takes root, and `ip` of iproute2. A host's port may be slow, for which it
//! takes `tc` of iproute2 as well.

use std::ffi::OsStr;
use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::epmd::Epmd;
use super::wait::wait_until;

/// How a host is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Its packets are lost on the way, both ways, and nobody is told: its port leaves the bridge.
    Drop,
    /// Its own link goes down: what it sends is refused by its own routes, and what others send is lost.
    LinkDown,
}

/// How fast a port is, and how much of what is faster it lets wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Of each direction.
    pub megabits_per_sec: u32,
    /// What waits at the port is dropped once it would take longer than this.
    pub queue: Duration,
}

impl Rate {
    /// A port with a queue as short as those of good routers.
    pub const fn megabits(megabits_per_sec: u32) -> Self {
        Self { megabits_per_sec, queue: Duration::from_millis(50) }
    }

    /// The same with another queue.
    pub const fn queue(self, queue: Duration) -> Self {
        Self { queue, ..self }
    }

    /// For how long so many bytes are under way at best.
    pub fn takes(self, bytes: u64) -> Duration {
        Duration::from_micros(bytes * 8 / u64::from(self.megabits_per_sec))
    }

    /// The discipline as `tc` takes it.
    fn filter(self) -> [String; 7] {
        // What may pass at once: two of the largest packets that the kernel hands to a port, and what is due between two
        // beats of a slow clock.
        let burst = (self.megabits_per_sec * 1_000_000 / 8 / 100).max(128 << 10);
        let words = ["tbf", "rate", "burst", "latency"].map(str::to_owned);
        let [tbf, rate, burst_is, latency] = words;
        let megabits = format!("{}mbit", self.megabits_per_sec);
        [tbf, rate, megabits, burst_is, format!("{burst}b"), latency, format!("{}ms", self.queue.as_millis())]
    }
}

/// Hosts on one switch. They are gone with it.
pub struct Network {
    epmd: Epmd,
    hosts: Vec<Host>,
}

/// One of the hosts.
pub struct Host {
    seat: Seat,
    switch: Arc<Namespace>,
    namespace: Namespace,
    port: String,
    epmd: Child,
}

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Seat {
    namespace: String,
    address: Ipv4Addr,
    /// What its host is called there: without this, as this machine.
    called: Option<String>,
}

impl Network {
    /// Lays a network of so many hosts. `None`, and a line of output: that cannot be done here.
    ///
    /// # Panics
    /// It cannot be done, and `KVNODE_REQUIRE_NETNS` says that it must.
    #[track_caller]
    pub fn lay(count: u8) -> Option<Self> {
        Self::lay_if(Namespace::possible(), count)
    }

    /// The same where the ports of hosts are to have rates: see [`Host::limit`].
    ///
    /// # Panics
    /// As [`Network::lay`].
    #[track_caller]
    pub fn lay_with_rates(count: u8) -> Option<Self> {
        Self::lay_if(Namespace::possible().and_then(|()| Namespace::rates_possible()), count)
    }

    #[track_caller]
    fn lay_if(possible: Result<(), String>, count: u8) -> Option<Self> {
        if let Err(reason) = possible {
            assert!(std::env::var_os("KVNODE_REQUIRE_NETNS").is_none(), "{reason}");
            eprintln!("--- not run: {reason}");
            return None;
        }
        let epmd = Epmd::absent();
        let switch = Arc::new(Namespace::add());
        switch.ip(["link", "add", "br0", "type", "bridge"]);
        switch.ip(["link", "set", "br0", "up"]);
        let hosts = (1..=count).map(|number| Host::plug(number, &switch, epmd.port())).collect();
        Some(Self { epmd, hosts })
    }

    /// The hosts.
    pub fn hosts<const N: usize>(&self) -> [&Host; N] {
        std::array::from_fn(|at| &self.hosts[at])
    }

    /// What stands for the epmds of all hosts: their port. Nobody answers there from outside of them.
    pub const fn epmd(&self) -> &Epmd {
        &self.epmd
    }
}

impl Host {
    fn plug(number: u8, switch: &Arc<Namespace>, epmd_port: u16) -> Self {
        let namespace = Namespace::add();
        let address = Ipv4Addr::new(10, 77, 0, number);
        let port = format!("port{number}");
        switch.ip(["link", "add", &port, "type", "veth", "peer", "name", "eth0", "netns", &namespace.0]);
        switch.ip(["link", "set", &port, "up", "master", "br0"]);
        namespace.ip(["link", "set", "lo", "up"]);
        namespace.ip(["address", "add", &format!("{address}/24"), "dev", "eth0"]);
        namespace.ip(["link", "set", "eth0", "up"]);
        let seat = Seat { namespace: namespace.0.clone(), address, called: None };
        let epmd = |args: &[&str]| {
            let mut command = Command::new("epmd");
            command.args(args).env("ERL_EPMD_PORT", epmd_port.to_string());
            let mut command = seat.around(&command);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let daemon = epmd(&[]).spawn().expect("epmd can be started");
        wait_until("epmd answers", || epmd(&["-names"]).status().is_ok_and(|status| status.success()));
        Self { seat, switch: Arc::clone(switch), namespace, port, epmd: daemon }
    }

    /// Where its programs run.
    pub const fn seat(&self) -> &Seat {
        &self.seat
    }

    /// The full name of a node of this host.
    pub fn node(&self, name: &str) -> String {
        self.seat.node(name)
    }

    /// From now on what it sends and what is sent to it passes at this rate.
    pub fn limit(&self, rate: Rate) {
        for (side, port) in [(&self.namespace, "eth0"), (&*self.switch, self.port.as_str())] {
            let mut command = Command::new("tc");
            command.args(["-n", &side.0, "qdisc", "replace", "dev", port, "root"]).args(rate.filter());
            run(&mut command);
        }
    }

    /// Cuts it off from all others.
    pub fn cut(&self, how: Cut) {
        match how {
            Cut::Drop => self.switch.ip(["link", "set", &self.port, "nomaster"]),
            Cut::LinkDown => self.namespace.ip(["link", "set", "eth0", "down"]),
        }
    }

    /// Takes the cut back.
    pub fn heal(&self, how: Cut) {
        match how {
            Cut::Drop => self.switch.ip(["link", "set", &self.port, "master", "br0"]),
            Cut::LinkDown => self.namespace.ip(["link", "set", "eth0", "up"]),
        }
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.epmd.kill();
        let _ = self.epmd.wait();
    }
}

impl Seat {
    /// The same, where the host has this name, which no hosts file and no DNS knows.
    pub fn called(&self, host: &str) -> Self {
        Self { called: Some(host.to_owned()), ..self.clone() }
    }

    /// The full name of a node here.
    pub fn node(&self, name: &str) -> String {
        match &self.called {
            Some(host) => format!("{name}@{host}"),
            None => format!("{name}@{}", self.address),
        }
    }

    /// The flag for that name, and what stands behind it. A node of a host with a name finds that by itself.
    pub fn typed(&self, name: &str) -> [String; 2] {
        match &self.called {
            _ if name.contains('@') => ["--name".to_owned(), name.to_owned()],
            Some(host) if host.contains('.') => ["--name".to_owned(), name.to_owned()],
            Some(_) => ["--sname".to_owned(), name.to_owned()],
            None => ["--name".to_owned(), self.node(name)],
        }
    }

    /// This command with its arguments and its environment, to be run here. Its standard streams are to be said again.
    pub fn around(&self, command: &Command) -> Command {
        let mut moved = Command::new("ip");
        // It becomes the program: its process is the program's.
        moved.args(["netns", "exec", &self.namespace]);
        if let Some(host) = &self.called {
            moved.args(["unshare", "--uts", "sh", "-c", "hostname \"$0\" && exec \"$@\"", host]);
        }
        moved.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => moved.env(name, value),
                None => moved.env_remove(name),
            };
        }
        moved
    }
}

/// A network namespace. It is gone with this value; the processes in it belong to the test that started them.
struct Namespace(String);

/// What the names of all namespaces of tests begin with. Behind it stands the process whose it is.
const PREFIX: &str = "kvnode-test-";

impl Namespace {
    fn possible() -> Result<(), String> {
        if !rustix::process::geteuid().is_root() {
            return Err("network namespaces take root".to_owned());
        }
        let list = Command::new("ip").args(["netns", "list"]).output();
        let list = list.map_err(|error| format!("ip of iproute2: {error}"))?;
        // What a test that was killed has left.
        for name in String::from_utf8_lossy(&list.stdout).split_whitespace() {
            let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if owner.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
                let _ = Command::new("ip").args(["netns", "del", name]).stderr(Stdio::null()).status();
            }
        }
        let probe = Self::name();
        let made = Command::new("ip").args(["netns", "add", &probe]).output();
        let made = made.map_err(|error| format!("ip of iproute2: {error}"))?;
        drop(Self(probe));
        if made.status.success() {
            Ok(())
        } else {
            Err(format!("network namespaces: {}", String::from_utf8_lossy(&made.stderr).trim()))
        }
    }

    /// Whether ports can have rates, where namespaces are possible.
    fn rates_possible() -> Result<(), String> {
        let probe = Self::add();
        let mut command = Command::new("tc");
        command.args(["-n", &probe.0, "qdisc", "add", "dev", "lo", "root"]).args(Rate::megabits(1).filter());
        let made = command.output().map_err(|error| format!("tc of iproute2: {error}"))?;
        if made.status.success() {
            Ok(())
        } else {
            Err(format!("rates by tc: {}", String::from_utf8_lossy(&made.stderr).trim()))
        }
    }

    fn name() -> String {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn add() -> Self {
        let namespace = Self(Self::name());
        run(Command::new("ip").args(["netns", "add", &namespace.0]));
        namespace
    }

    /// `ip` in it.
    fn ip<const N: usize>(&self, args: [&str; N]) {
        run(Command::new("ip").args(["-n", &self.0]).args(args.map(OsStr::new)));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "del", &self.0]).stderr(Stdio::null()).status();
    }
}

#[track_caller]
fn run(command: &mut Command) {
    let output = command.output().expect("ip was there before");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
