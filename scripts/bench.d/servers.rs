//! The servers that are compared, and what it takes to start each.

use std::cell::OnceCell;
use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::children::{self, PATIENCE, Running, on_path};
use crate::link::{COOKIE, HOST};
use crate::{Result, failure};

/// The registered name of every server's store.
pub const STORE: &str = "kv";
/// For how long the polling floor asks its socket before it blocks.
const POLL_MICROS: u64 = 200;

/// One of the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// kvnode, the release build (KVNODE_BIN is another one)
    Kvnode,
    /// Elixir's KeyValueStore of tests/elixir, a GenServer with a Map
    Genserver,
    /// The same with an ETS table, read through :erpc
    Ets,
    /// A C node on erl_interface
    Cnode,
    /// The floor: answers without keeping anything, and blocks in each read
    Parked,
    /// The floor, asking the socket for a short while before it blocks
    Polling,
    /// The polling floor, without monitors
    Unmonitored,
    /// redis-server, with pipelining
    Redis,
}

impl Kind {
    /// How it is called in the tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kvnode => crate::report::OURS,
            Self::Genserver => "GenServer",
            Self::Ets => "ETS by :erpc",
            Self::Cnode => "C node",
            Self::Parked => "floor, parked",
            Self::Polling => "floor, polling",
            Self::Unmonitored => "…, no monitors",
            Self::Redis => "redis",
        }
    }

    /// Whether it keeps what is put.
    pub const fn stores(self) -> bool {
        !matches!(self, Self::Parked | Self::Polling | Self::Unmonitored)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
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
    pub endpoint: Endpoint,
    pub running: Running,
}

impl Server {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.running.id()
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
    beams: OnceCell<std::result::Result<PathBuf, String>>,
    cnode: OnceCell<std::result::Result<PathBuf, String>>,
    started: std::cell::Cell<u32>,
}

impl Lab {
    /// Starts the epmd.
    pub fn new() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("kvnode-bench-").tempdir()?;
        children::end_with_this_process(folder.path());
        let epmd_port = free_port()?;
        let mut command = if on_path("epmd") {
            Command::new("epmd")
        } else {
            let mut command = Command::new(kvnode());
            command.arg("epmd");
            command
        };
        command.env("ERL_EPMD_PORT", epmd_port.to_string()).env("ERL_EPMD_ADDRESS", HOST);
        let epmd = Running::start("epmd", &mut command, folder.path())?;
        let until = Instant::now() + PATIENCE;
        // An epmd has no way to say that it is ready but to take a connection.
        while TcpStream::connect((Ipv4Addr::LOCALHOST, epmd_port)).is_err() {
            if Instant::now() > until {
                return Err(epmd.fault("does not answer"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        let (beams, cnode) = (OnceCell::new(), OnceCell::new());
        Ok(Self { folder, epmd_port, _epmd: epmd, beams, cnode, started: 0.into() })
    }

    /// Starts a server, and waits until it can be called.
    ///
    /// # Errors
    /// What it needs is not installed, or it failed; the text is for people.
    pub fn start(&self, kind: Kind) -> Result<Server> {
        let number = self.started.get() + 1;
        self.started.set(number);
        let name = format!("s{number}");
        let full_name = format!("{name}@{HOST}");
        let mut ready = "ready";
        let mut endpoint =
            Endpoint::Node { name: name.clone(), epmd_port: self.epmd_port, stores: kind.stores() };
        let mut command = match kind {
            Kind::Kvnode => {
                // The last lines of its banner.
                ready = "iex>";
                let mut command = Command::new(kvnode());
                command.args(["--name", &full_name, "--cookie", COOKIE, "--bind", HOST, "--no-epmd-start"]);
                command.args(["--log", "warn", "--store", "local:kv,local:kv_replicated"]);
                command
            }
            Kind::Genserver => self.beam(&full_name, "BenchServer.map()")?,
            Kind::Ets => self.beam(&full_name, "BenchServer.ets()")?,
            Kind::Cnode => {
                let mut command = Command::new(self.cnode()?);
                command.args([&name, COOKIE]);
                command
            }
            Kind::Parked | Kind::Polling | Kind::Unmonitored => {
                let poll_micros = if kind == Kind::Parked { 0 } else { POLL_MICROS };
                let monitors = if kind == Kind::Unmonitored { "unmonitored" } else { "monitored" };
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
            Kind::Redis => {
                ready = "Ready to accept connections";
                let port = free_port()?;
                endpoint = Endpoint::Redis { port };
                let program = std::env::var_os("REDIS_SERVER").unwrap_or_else(|| "redis-server".into());
                if !on_path("redis-server") && std::env::var_os("REDIS_SERVER").is_none() {
                    return Err(failure("redis-server is not installed (apt: redis-server)"));
                }
                let mut command = Command::new(program);
                command.args([
                    "--port",
                    &port.to_string(),
                    "--bind",
                    HOST,
                    "--save",
                    "",
                    "--appendonly",
                    "no",
                ]);
                command.args(["--daemonize", "no", "--dir"]).arg(self.folder.path());
                command
            }
        };
        self.environment(&mut command);
        let running = Running::start(kind.name(), &mut command, self.folder.path())?;
        running.wait_for(ready)?;
        Ok(Server { kind, endpoint, running })
    }

    /// A command that evaluates something on a hidden BEAM node.
    ///
    /// # Errors
    /// Elixir is not installed, or cannot compile what is needed.
    pub fn beam(&self, full_name: &str, expression: &str) -> Result<Command> {
        let beams = self.beams.get_or_init(|| self.compile_elixir().map_err(|error| error.to_string()));
        let beams = beams.as_ref().map_err(failure)?;
        let mut command = Command::new("elixir");
        command.args(["--name", full_name, "--cookie", COOKIE, "--hidden", "-pa"]).arg(beams);
        command.args([
            "--erl",
            "-kernel inet_dist_use_interface {127,0,0,1} -start_epmd false",
            "-e",
            expression,
        ]);
        self.environment(&mut command);
        Ok(command)
    }

    fn environment(&self, command: &mut Command) {
        command.env("ERL_EPMD_PORT", self.epmd_port.to_string()).env("HOME", self.folder.path());
        command.env("LC_ALL", "C.UTF-8").env("ERL_CRASH_DUMP_BYTES", "0");
        for variable in ["ERL_EPMD_ADDRESS", "ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ELIXIR_ERL_OPTIONS"] {
            command.env_remove(variable);
        }
    }

    fn compile_elixir(&self) -> Result<PathBuf> {
        if !on_path("elixir") || !on_path("erl") {
            return Err(failure("Elixir is not installed (apt: elixir)"));
        }
        let beams = self.folder.path().join("beams");
        fs::create_dir(&beams)?;
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("elixirc");
        command.arg("-o").arg(&beams);
        for folder in ["tests/elixir/lib", "scripts/bench.d"] {
            let mut sources: Vec<PathBuf> =
                fs::read_dir(root.join(folder))?.flatten().map(|entry| entry.path()).collect();
            sources.retain(|path| path.extension().is_some_and(|extension| extension == "ex"));
            command.args(sources);
        }
        self.environment(&mut command);
        run(&mut command)?;
        Ok(beams)
    }

    fn cnode(&self) -> Result<&Path> {
        let cnode = self.cnode.get_or_init(|| self.compile_cnode().map_err(|error| error.to_string()));
        cnode.as_deref().map_err(failure)
    }

    fn compile_cnode(&self) -> Result<PathBuf> {
        if !on_path("gcc") || !on_path("erl") {
            return Err(failure("gcc or erl is not installed (apt: gcc libc6-dev erlang-dev)"));
        }
        let mut ask = Command::new("erl");
        ask.args(["-noinput", "-eval", "io:format(\"~s\", [code:lib_dir(erl_interface)]), halt()."]);
        self.environment(&mut ask);
        let home = PathBuf::from(run(&mut ask)?);
        if !home.join("include/ei.h").is_file() {
            return Err(failure("erl_interface is not installed (apt: erlang-dev)"));
        }
        let program = self.folder.path().join("cnode");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bench.d/cnode.c");
        let mut command = Command::new("gcc");
        command.args(["-O2", "-Wall", "-o"]).arg(&program).arg(source);
        command
            .arg("-I")
            .arg(home.join("include"))
            .arg("-L")
            .arg(home.join("lib"))
            .args(["-lei", "-lpthread"]);
        run(&mut command)?;
        Ok(program)
    }
}

/// Runs a command to its end and gives what it printed.
fn run(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        let program = command.get_program().display().to_string();
        return Err(failure(format!("{program} failed:\n{}", String::from_utf8_lossy(&said))));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn kvnode() -> std::ffi::OsString {
    std::env::var_os("KVNODE_BIN").unwrap_or_else(|| env!("CARGO_BIN_EXE_kvnode").into())
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
