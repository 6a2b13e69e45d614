//! The servers that are compared, and what it takes to start each.

use std::fmt;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::children::{self, PATIENCE, Running, on_path};
use crate::compiled::{Compiled, environment, not_installed};
use crate::link::{COOKIE, HOST};
use crate::wire::Seat;
use crate::{Result, failure};

/// The registered name of every server's store.
pub const STORE: &str = "kv";
/// The environment's name of another kvnode that is compared with this one.
const BEFORE: &str = "KVNODE_BEFORE";
/// For how long the polling floor asks its socket before it blocks.
const POLL_MICROS: u64 = 200;
/// How long a kvnode may take to load its stores, and how often it is asked whether it has.
const LOADED_WITHIN: Duration = Duration::from_secs(300);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// kvnode, the release build (KVNODE_BIN is another one)
    Kvnode,
    /// Another kvnode, which KVNODE_BEFORE names: what this one was before a change
    KvnodeBefore,
    /// kvnode without fragments
    KvnodeUnfragmented,
    /// Elixir's KeyValueStore of tests/elixir, a GenServer with a Map
    Genserver,
    /// A GenServer with a Map that has each get answered by a process of its own
    Spawning,
    /// A GenServer with a Map that has the requests of the load api
    ApiGenserver,
    /// A table of ETS that is read and written by :erpc, of the load api
    ApiEts,
    /// Elixir's KeyValueStoreReplicated of tests/elixir, as a primary or as a slave
    Replicated,
    /// Elixir's KeyValueStore with an ETS table, read through :erpc
    Ets,
    /// A C node on erl_interface
    Cnode,
    /// Java, on Jinterface
    Jinterface,
    /// Rust, on erl_dist's channel and eetf's terms
    Naive,
    /// The floor: answers without keeping anything, and blocks in each read
    Parked,
    /// The floor, asking the socket for a short while before it blocks
    Polling,
    /// The parked floor, without monitors
    ParkedUnmonitored,
    /// The polling floor, without monitors
    PollingUnmonitored,
    /// redis-server, with pipelining
    Redis,
    /// kvnode with --data-dir
    KvnodeDurable,
    /// kvnode with --engine etcd, of the load cluster
    KvnodeEtcd,
    /// A table of :dets, synced after each put, in the BEAM that calls
    Dets,
    /// A disc_copies table of Mnesia, written by sync_transaction, in the BEAM that calls
    Mnesia,
    /// redis-server with appendfsync always
    RedisDurable,
}

impl Kind {
    /// How it is called in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvnode => crate::report::OURS,
            Self::KvnodeBefore => "kvnode before",
            Self::KvnodeUnfragmented => "kvnode, no fragments",
            Self::Genserver => "GenServer",
            Self::Spawning => "GenServer that spawns",
            Self::ApiGenserver => "GenServer",
            Self::ApiEts => "ETS by :erpc",
            Self::Replicated => "Elixir",
            Self::Ets => "ETS by :erpc",
            Self::Cnode => "C node",
            Self::Jinterface => "Jinterface",
            Self::Naive => "naive",
            Self::Parked => "floor, parked",
            Self::Polling => "floor, polling",
            Self::ParkedUnmonitored => "floor, parked, no monitors",
            Self::PollingUnmonitored => "floor, polling, no monitors",
            Self::Redis => "redis",
            Self::KvnodeDurable | Self::KvnodeEtcd => crate::report::OURS,
            Self::Dets => ":dets, synced",
            Self::Mnesia => "Mnesia, sync_transaction",
            Self::RedisDurable => "redis, always",
        }
    }

    /// Whether it is asked for: another kvnode is where one is named.
    pub fn is_named(self) -> bool {
        self != Self::KvnodeBefore || std::env::var_os(BEFORE).is_some()
    }

    /// Whether it keeps what is put.
    pub const fn stores(self) -> bool {
        !matches!(self, Self::Parked | Self::Polling | Self::ParkedUnmonitored | Self::PollingUnmonitored)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Where a node runs, and what it is started with beside what all are.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// A host of its own; `None`: the loopback.
    pub seat: Option<Seat>,
    /// More for kvnode.
    pub kvnode: Vec<String>,
    /// The port of its page (`--http`), by which a kvnode says that its store is loaded, which then is waited for.
    pub page: Option<u16>,
    /// More for erl.
    pub erl: String,
}

impl Place {
    fn host(&self) -> String {
        self.seat.as_ref().map_or_else(|| HOST.to_owned(), |seat| seat.address.to_string())
    }

    /// The command, to be run there.
    fn around(&self, command: Command) -> Command {
        match &self.seat {
            Some(seat) => seat.around(&command),
            None => command,
        }
    }
}

/// Where a server is called.
#[derive(Clone, Debug)]
pub enum Endpoint {
    Node { name: String, epmd_port: u16, stores: bool },
    Redis { port: u16 },
}

/// A running server. Dropping it ends it.
pub struct Server {
    pub kind: Kind,
    full_name: String,
    pub endpoint: Endpoint,
    pub running: Running,
}

impl Server {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// Its name, where it is a node.
    pub fn full_name(&self) -> &str {
        &self.full_name
    }

    /// Its name before the `@`, where it is a node.
    pub fn node(&self) -> &str {
        match &self.endpoint {
            Endpoint::Node { name, .. } => name,
            Endpoint::Redis { .. } => "",
        }
    }
}

/// Everything that servers need around them: an epmd of their own, a folder, what has been compiled.
pub struct Lab {
    pub folder: TempDir,
    pub epmd_port: u16,
    _epmd: Running,
    compiled: Compiled,
    started: std::cell::Cell<u32>,
    place: std::cell::RefCell<Place>,
}

impl Lab {
    /// Starts the epmd.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kvnode-bench-").tempdir()?;
        children::end_with_this_process(folder.path());
        let epmd_port = free_port()?;
        let mut command = epmd_command(epmd_port);
        command.env("ERL_EPMD_ADDRESS", HOST);
        let epmd = Running::start("epmd", &mut command, folder.path())?;
        let until = Instant::now() + PATIENCE;
        // An epmd has no way to say that it is ready but to take a connection.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, epmd_port)).is_err() {
            if Instant::now() > until {
                return Err(epmd.fault("does not answer"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let compiled = Compiled::new(folder.path());
        Ok(Self {
            folder,
            epmd_port,
            _epmd: epmd,
            compiled,
            started: 0.into(),
            place: Place::default().into(),
        })
    }

    /// Starts a server, and waits until it can be called.
    ///
    /// # Errors
    /// What it needs is not installed, or it failed; the text is for people.
    pub fn start(&self, kind: Kind) -> Result<Server> {
        self.start_with(kind, None)
    }

    /// The same, with the folder of a durable kvnode.
    pub fn start_with(&self, kind: Kind, data: Option<std::path::PathBuf>) -> Result<Server> {
        let place = self.place.borrow().clone();
        self.start_there(kind, data, &place)
    }

    /// The same elsewhere.
    pub fn start_at(&self, kind: Kind, place: &Place) -> Result<Server> {
        self.start_there(kind, None, place)
    }

    /// From here on what is started by [`Lab::start`] and [`Lab::beam`] is started there. Gives where it was before.
    pub fn set_place(&self, place: Place) -> Place {
        self.place.replace(place)
    }

    fn start_there(&self, kind: Kind, data: Option<std::path::PathBuf>, place: &Place) -> Result<Server> {
        let name = format!("s{}", self.next_number());
        let host = place.host();
        let full_name = format!("{name}@{host}");
        let mut ready = "ready";
        let mut endpoint =
            Endpoint::Node { name: name.clone(), epmd_port: self.epmd_port, stores: kind.stores() };
        let mut command = match kind {
            Kind::KvnodeEtcd if place.page.is_none() => {
                return Err(failure("a kvnode with --engine etcd is started by the load cluster alone"));
            }
            Kind::Kvnode
            | Kind::KvnodeBefore
            | Kind::KvnodeUnfragmented
            | Kind::KvnodeDurable
            | Kind::KvnodeEtcd => {
                // The last lines of its banner.
                ready = "iex>";
                let before = std::env::var_os(BEFORE).filter(|_| kind == Kind::KvnodeBefore);
                let mut command = Command::new(before.unwrap_or_else(kvnode));
                command.args(["--name", &full_name, "--cookie", COOKIE, "--bind", &host, "--no-epmd-start"]);
                command
                    .args(["--log", "warn", "--store", "local:kv,local:kv_replicated"])
                    .args(&place.kvnode);
                if let Some(port) = place.page {
                    command.args(["--http", &port.to_string()]);
                }
                if !matches!(kind, Kind::KvnodeBefore | Kind::KvnodeEtcd) {
                    // A caller tries its connection by a put, also at a slave. One from before may not know this.
                    command.args(["--slave-writes", "accept"]);
                }
                if kind == Kind::KvnodeUnfragmented {
                    command.arg("--no-fragments");
                }
                if kind == Kind::KvnodeDurable {
                    command
                        .arg("--data-dir")
                        .arg(data.unwrap_or_else(|| self.folder.path().join(&name)).as_path());
                }
                command
            }
            Kind::Dets | Kind::Mnesia => {
                let mut command = self.unseated_beam(&full_name, "BenchDurable.main()", place)?;
                command.env("BENCH_DATA", self.folder.path().join(&name));
                command
            }
            Kind::Spawning => self.unseated_beam(&full_name, "BenchServer.spawning()", place)?,
            Kind::Genserver => self.unseated_beam(&full_name, "BenchServer.map()", place)?,
            Kind::ApiGenserver | Kind::ApiEts => {
                self.unseated_beam(&full_name, "BenchServer.Api.main()", place)?
            }
            Kind::Replicated => self.unseated_beam(&full_name, "BenchReplicated.main()", place)?,
            Kind::Ets => self.unseated_beam(&full_name, "BenchServer.ets()", place)?,
            Kind::Cnode => {
                let mut command = Command::new(self.compiled.cnode()?);
                command.args([&name, COOKIE]);
                command
            }
            Kind::Jinterface => {
                let mut command = Command::new("java");
                command.arg("-classpath").arg(self.compiled.jinterface()?);
                command.args(["JinterfaceServer", &full_name, COOKIE]);
                command
            }
            Kind::Naive => {
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["naive", &name, &self.epmd_port.to_string()]);
                command
            }
            Kind::Parked | Kind::Polling | Kind::ParkedUnmonitored | Kind::PollingUnmonitored => {
                let parked = matches!(kind, Kind::Parked | Kind::ParkedUnmonitored);
                let poll_micros = if parked { 0 } else { POLL_MICROS };
                let monitored = matches!(kind, Kind::Parked | Kind::Polling);
                let monitors = if monitored { "monitored" } else { "unmonitored" };
                let mut command = Command::new(std::env::current_exe()?);
                command.args([
                    "floor",
                    &name,
                    &self.epmd_port.to_string(),
                    &poll_micros.to_string(),
                    monitors,
                ]);
                command
            }
            Kind::Redis | Kind::RedisDurable => {
                ready = "Ready to accept connections";
                let port = free_port()?;
                endpoint = Endpoint::Redis { port };
                let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
                if !on_path("redis-server") && std::env::var_os("REDIS_SERVER").is_none() {
                    return Err(not_installed("redis-server is not installed (apt: redis-server)"));
                }
                let mut command = Command::new(program);
                let keep = if kind == Kind::RedisDurable { "yes" } else { "no" };
                let folder = self.folder.path().join(&name);
                std::fs::create_dir(&folder)?;
                command.args(["--port", &port.to_string(), "--bind", HOST, "--save", ""]);
                command.args(["--appendonly", keep, "--appendfsync", "always"]);
                command.args(["--daemonize", "no", "--dir"]).arg(folder);
                command
            }
        };
        self.environment(&mut command);
        let mut command = place.around(command);
        let mut running = Running::start(kind.name(), &mut command, self.folder.path())?;
        running.wait_for(ready)?;
        if let Some(port) = place.page {
            wait_until_loaded(&mut running, port)?;
        }
        Ok(Server { kind, full_name, endpoint, running })
    }

    /// A number that no other node has in its name: what has just ended may be registered for a moment longer.
    pub fn next_number(&self) -> u32 {
        let number = self.started.get() + 1;
        self.started.set(number);
        number
    }

    /// A command that evaluates something on a hidden BEAM node of a new name, which begins with `name`.
    ///
    /// # Errors
    /// Elixir is not installed, or cannot compile what is needed.
    pub fn beam(&self, name: &str, expression: &str) -> Result<Command> {
        let place = self.place.borrow().clone();
        Ok(self.beam_at(name, expression, &place)?.0)
    }

    /// The same elsewhere, and the full name of the node.
    ///
    /// # Errors
    /// As [`Lab::beam`].
    pub fn beam_at(&self, name: &str, expression: &str, place: &Place) -> Result<(Command, String)> {
        let full_name = format!("{name}{}@{}", self.next_number(), place.host());
        let command = self.unseated_beam(&full_name, expression, place)?;
        Ok((place.around(command), full_name))
    }

    fn unseated_beam(&self, full_name: &str, expression: &str, place: &Place) -> Result<Command> {
        let beams = self.compiled.elixir()?;
        let mut command = Command::new("elixir");
        command.args(["--name", full_name, "--cookie", COOKIE, "--hidden", "-pa"]).arg(beams);
        let interface = place.host().replace('.', ",");
        let erl = format!("-kernel inet_dist_use_interface {{{interface}}} -start_epmd false {}", place.erl);
        command.args(["--erl", &erl, "-e", expression]);
        self.environment(&mut command);
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        environment(command, self.folder.path());
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string());
    }
}

/// An epmd at this port: Erlang's, else kvnode's.
pub fn epmd_command(port: u16) -> Command {
    let mut command = if on_path("epmd") {
        Command::new("epmd")
    } else {
        let mut command = Command::new(kvnode());
        command.arg("epmd");
        command
    };
    command.env("ERL_EPMD_PORT", port.to_string());
    command
}

fn kvnode() -> std::ffi::OsString {
    std::env::var_os("KVNODE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kvnode").into())
}

/// Waits until a kvnode says that its stores are loaded.
fn wait_until_loaded(running: &mut Running, port: u16) -> Result<()> {
    let until = Instant::now() + LOADED_WITHIN;
    while !page(port, "/ready")?.starts_with("HTTP/1.1 200") {
        if running.has_ended()? {
            return Err(running.fault("has ended"));
        }
        if Instant::now() > until {
            return Err(running.fault("its store is not loaded"));
        }
        // It tells service managers alone when it is, and no parent.
        thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// What a kvnode answers for a page of `--http`, with the head.
pub fn page(port: u16, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// A port that nothing listens at.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
