//! `kvnode`: starting a node.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgGroup, ArgMatches, Args, Command};

use super::banner::{self, CookieOrigin};
use super::engine::{self, EngineArgs, EngineName, MEMBERS};
use super::find::{EpmdUse, wrong_node};
use super::log::{self, LogArgs};
use super::settings::{self, Origins};
use super::tls::TlsArgs;
use super::{CliError, http_address, print, server_name, size, sync};
use crate::config::{EpmdConfig, Limits, ServerName};
use crate::distribution::cookie::Cookie;
use crate::distribution::node_name::{NameKind, NodeName, split_typed};
use crate::distribution::{NodeAt, NodePattern};
use crate::epmd::environment;
use crate::epmd::host::Host;
use crate::node::cookie_file::CookiePlaces;
use crate::program::{
    self, Config, DataConfig, NotAtEtcd, NotElected, STATUS_NAME, SlaveWrites, StoreConfig,
};
use crate::store::SyncPolicy;

/// The smallest `--frame-bytes-max`: what nodes say to each other must fit.
const FRAME_BYTES_LEAST: usize = 64 << 10;
/// The largest: the length of a frame has 32 bits.
pub(super) const FRAME_BYTES_MOST: usize = u32::MAX as usize;
/// Local names that are the node's own.
const OWN_PROCESSES: [&str; 4] = ["net_kernel", "rex", "global_name_server", STATUS_NAME];
/// The local name of the only store when none is given: the module of the Elixir original.
const DEFAULT_LOCAL: &str = "Elixir.KeyValueStore";

#[derive(Args)]
#[group(skip)]
#[command(next_help_heading = "This node", group(ArgGroup::new("stores").multiple(true)),
          group(ArgGroup::new(MEMBERS).multiple(true)))]
pub(super) struct NodeArgs {
    /// Short name, as erl's -sname: NAME is NAME@this-host; a host has no dot
    #[arg(long, value_name = "NAME[@HOST]", conflicts_with = "name")]
    sname: Option<String>,
    /// Long name, as erl's -name: NAME@HOST.DOMAIN or NAME@ADDRESS. All nodes of a cluster use the same kind
    #[arg(long, value_name = "NAME[@HOST.DOMAIN]")]
    name: Option<String>,
    /// The secret of the cluster. Others on this machine can see it in the list of processes: the cookie file does not have
    /// that [default: ~/.erlang.cookie, else $XDG_CONFIG_HOME/erlang/.erlang.cookie; made where there is none]
    #[arg(long, value_name = "TEXT")]
    cookie: Option<String>,
    /// A node to be kept connected; repeatable. With a port it is found there, and epmd is not asked
    #[arg(long, value_name = "NODE@HOST[:PORT]")]
    connect: Vec<String>,

    /// A store known as {:global, NAME} in the whole cluster; repeatable, each is a store of its own
    #[arg(long, value_name = "NAME", group = "stores", help_heading = "Stores")]
    global: Vec<String>,
    /// A store known as {NAME, this node}; repeatable, each is a store of its own
    #[arg(long, value_name = "NAME", group = "stores", help_heading = "Stores")]
    local: Vec<String>,
    /// A store with several names, as in global:a,local:b; repeatable [default: one store, global:NAME and
    /// local:KeyValueStore, with NAME as in --sname]
    #[arg(long, value_name = "NAMES", group = "stores", help_heading = "Stores")]
    store: Vec<String>,
    /// A slave of the first store, as in global:slave2 or local:slave2; repeatable
    ///
    /// It becomes what this store is. A store that is started without data (as each one without --data-dir is) leaves a
    /// kvnode's slave as it is that has data, and says so, until it is added by hand (kvnode add-slave) or promoted (kvnode
    /// promote); what an Elixir server holds is deleted then.
    #[arg(long, value_name = "KIND:NAME", help_heading = "Stores")]
    slave: Vec<String>,
    /// What may wait in memory for each slave; one that is slower is sent what it misses later [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Stores")]
    slave_buffer: Option<usize>,

    #[command(flatten)]
    engine: EngineArgs,
    /// Keep the stores in this folder, which is made where there is none; without it, and without --engine etcd, they are in memory
    /// and end with the node
    #[arg(long, value_name = "DIR", help_heading = "Stores")]
    data_dir: Option<PathBuf>,
    /// When a write is on disk: always (before it is answered), interval:MS, or never (when the system does it). What
    /// a power cut can take follows from it; a killed node loses nothing
    #[arg(long, value_name = "WHEN", value_parser = super::sync::parse, requires = "data_dir", help_heading = "Stores")]
    sync: Option<SyncPolicy>,
    /// Let callers have backups written into this folder, by {:backup, path}
    #[arg(long, value_name = "DIR", requires = "data_dir", help_heading = "Stores")]
    backup_dir: Option<PathBuf>,
    /// Slaves of the first store that have a write before it is answered. Where fewer have it in time, the answer is
    /// {:error, {:unconfirmed, have, want}}, and the write stays [default: 0, answered at once]
    #[arg(
        long,
        value_name = "SLAVES",
        default_value_t = 0,
        hide_default_value = true,
        value_parser = clap::value_parser!(u32).range(..=i64::from(Config::CONFIRM_MAX)),
        help_heading = "Stores"
    )]
    confirm: u32,
    /// How long such a write may wait, in milliseconds; callers wait for 5000 themselves
    #[arg(long, value_name = "MS", default_value_t = Config::CONFIRM_TIMEOUT.as_millis() as u32, help_heading = "Stores",
          value_parser = clap::value_parser!(u32).range(20..))]
    confirm_timeout: u32,

    /// What becomes of a caller's write to a store that follows another kvnode's: accept (it is there alone), refuse
    /// ({:error, {:slave_of, primary}}) or forward (its primary gets it, and answers)
    #[arg(long, value_name = "HOW", default_value = SlaveWrites::Refuse.code(), value_parser = slave_writes,
          help_heading = "Stores")]
    slave_writes: SlaveWrites,

    /// A node that may connect, as in *@myhost or *.example.org; repeatable. With none, all that know the cookie
    #[arg(long, value_name = "NODE", help_heading = "Network")]
    allow: Vec<String>,
    /// The address to listen on [default: all]
    #[arg(long, value_name = "ADDR", help_heading = "Network")]
    bind: Option<IpAddr>,
    /// The port to listen on [default: a free one]. With --epmd none it is needed, and that of all nodes
    #[arg(
        long,
        value_name = "PORT",
        default_value_t = 0,
        hide_default_value = true,
        help_heading = "Network"
    )]
    dist_port: u16,
    /// Seconds after which a silent node is down; all nodes of a cluster use the same
    #[arg(long, value_name = "SECONDS", default_value_t = 60, help_heading = "Network",
          value_parser = clap::value_parser!(u32).range(1..))]
    net_ticktime: u32,
    /// The largest message to be taken; a call that is larger ends with {:system_limit, text} [default: 160MiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Network")]
    frame_bytes_max: Option<usize>,
    /// What large messages of one node may take while they are under way, all together; beyond it the newest call of
    /// them ends with {:system_limit, text} [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Network")]
    unfinished_bytes_max: Option<usize>,
    /// The most that all stores in memory may hold, keys, values and 48 bytes for each pair; a write beyond it is
    /// answered {:error, :no_space}. Of stores on disk, about what they take of memory; it refuses nothing
    /// [default: no bound]
    #[arg(long, value_name = "SIZE", value_parser = size::parse, help_heading = "Stores")]
    memory_max: Option<usize>,
    /// Keep the keys of stores in memory, and of those in etcd, in Erlang's order too, for scans with from:, to:, prefix: and
    /// reverse:. It costs memory and time for each key that comes; stores on disk have that order always
    #[arg(long, help_heading = "Stores")]
    ordered: bool,
    /// How nodes are found: use, by the epmd of their machine; or none, by --dist-port, which all nodes of the cluster listen
    /// at, as BEAMs with -erl_epmd_port PORT do, or by the ports of --connect. With none this node is not registered either
    #[arg(long, value_name = "HOW", value_enum, default_value_t = EpmdUse::Use, hide_possible_values = true,
          help_heading = "Network")]
    epmd: EpmdUse,
    /// Where no epmd answers, end instead of starting one
    #[arg(long, help_heading = "Network")]
    no_epmd_start: bool,
    /// Large messages go and come as one frame: for measurements, and for peers that get fragments wrong
    #[arg(long, hide = true, help_heading = "Network")]
    no_fragments: bool,

    #[command(flatten)]
    tls: TlsArgs,

    /// Serve a page about the node, and /metrics for Prometheus, /status.json, /health and /ready, by HTTP: a port of this
    /// machine alone, as in 8080, or ADDRESS:PORT. Read-only, without a password
    #[arg(long, value_name = "[ADDR:]PORT", value_parser = http_address::parse, help_heading = "Output")]
    http: Option<SocketAddr>,
    #[command(flatten)]
    log: LogArgs,
    /// Settings from a TOML file, as in net-ticktime = 30; flags and KVNODE_… of the environment win over it
    #[arg(long, value_name = "FILE", help_heading = "This node")]
    config: Option<PathBuf>,
}

#[derive(Args)]
#[command(before_help = "EXAMPLES
  $ kvnode config --config /etc/kvnode.toml
  $ kvnode config --sname slave1 --connect master@myhost > kvnode.toml")]
pub(super) struct ConfigArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn main(args: NodeArgs, matches: &ArgMatches, origins: &Origins) -> Result<(), CliError> {
    log::init(&args.log);
    origins.warn();
    more_files();
    let tls = args.tls.erl_flags();
    let (kind, config, cookie) = configure(args, matches, origins).map_err(|error| origins.explain(error))?;
    let started = |started: &program::Started| {
        // Stdout may be closed; the node is none the worse.
        let (etcd, elect) = (config.etcd.as_ref(), config.elect.as_ref().map(|elect| &elect.etcd));
        let connect = &config.node.connect;
        let _ = print(&banner::text(kind, connect, etcd, elect, &cookie, tls.as_deref(), started));
    };
    program::run(config.clone(), started).map_err(CliError::cannot_run)
}

/// Prints the settings, and starts nothing.
pub(super) fn config(
    args: ConfigArgs,
    command: &Command,
    matches: &ArgMatches,
    origins: &Origins,
) -> Result<(), CliError> {
    let ConfigArgs { node: args } = args;
    log::init(&args.log);
    origins.warn();
    let cookie = match &args.cookie {
        Some(cookie) => {
            given_cookie(cookie)?;
            origins.of("cookie").to_string()
        }
        None => match CookiePlaces::from_environment().read().map_err(CliError::cannot_run)? {
            Some(file) => file.path.display().to_string(),
            None => "a file that is made when a node starts".to_owned(),
        },
    };
    // Nobody is spoken to: the cookie is not needed.
    let checked = settings(&args, matches, || Ok((Cookie::new(""), ())));
    let (_, config, ()) = checked.map_err(|error| origins.explain(error))?;
    print(&settings::shown(command, matches, origins, &cookie, &implied(&args, &config)))
}

/// What holds where nobody has said anything and no flag's definition says it, as the file would have it.
fn implied(args: &NodeArgs, config: &Config) -> Vec<(&'static str, String)> {
    let text = settings::text_in_toml;
    let mut implied = vec![
        ("slave-buffer", text(&size::shown(config.slave_buffer_bytes_max))),
        ("frame-bytes-max", text(&size::shown(config.node.limits.frame_bytes_max))),
        ("unfinished-bytes-max", text(&size::shown(config.node.limits.unfinished_bytes_max))),
    ];
    let name = match (&config.data, &config.etcd) {
        (_, Some(etcd)) => {
            implied.push(("etcd-prefix", text(&etcd.prefix)));
            implied.push(("etcd-reads", text(etcd.reads.code())));
            implied.push(("etcd-compact", text(&engine::compact_shown(etcd.compact))));
            EngineName::Etcd
        }
        (Some(data), None) => {
            implied.push(("sync", text(&sync::shown(data.sync))));
            EngineName::Disk
        }
        (None, None) => EngineName::Memory,
    };
    implied.push(("engine", text(name.code())));
    if let Some(elect) = &config.elect {
        implied.push(("etcd-prefix", text(&elect.etcd.prefix)));
    }
    if args.tls.verifies_by_default() {
        implied.push(("tls-verify", text("peer")));
    }
    if args.global.is_empty() && args.local.is_empty() && args.store.is_empty() {
        let stores = config.stores.iter().map(|store| text(&server_name::store_typed(store)));
        implied.push(("store", format!("[{}]", stores.collect::<Vec<_>>().join(", "))));
    }
    implied
}

/// Lets this program have as many files open as the system lets it: each connection is one, and the usual 1,024 are there
/// for programs that cannot take more.
fn more_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        tracing::debug!(%error, "no more files than before can be open");
    }
}

fn configure(
    args: NodeArgs,
    matches: &ArgMatches,
    origins: &Origins,
) -> Result<(NameKind, Config, CookieOrigin), CliError> {
    settings(&args, matches, || cookie(args.cookie.as_deref(), origins))
}

/// The cookie is asked for last, for that may make a file: nothing is left behind by a command line that was wrong.
fn settings<O>(
    args: &NodeArgs,
    matches: &ArgMatches,
    cookie: impl FnOnce() -> Result<(Cookie, O), CliError>,
) -> Result<(NameKind, Config, O), CliError> {
    let (kind, node_name) = own_name(args.sname.as_deref(), args.name.as_deref())?;
    let connect: Vec<NodeAt> =
        args.connect.iter().map(|peer| peer_name(peer, kind, &node_name)).collect::<Result<_, _>>()?;
    if let Some((name, [one, other])) = NodeAt::with_two_ports(&connect) {
        return Err(CliError::usage(format!(
            "--connect {name} is given with port {one} and with port {other}, and a node has one; leave the other out"
        )));
    }
    let named = |flag: &'static str, typed: &str, reason: String| {
        CliError::usage(format!("{flag} {typed}: {reason}"))
    };
    let mut slaves = Vec::new();
    for typed in &args.slave {
        slaves.push(server_name::server(typed).map_err(|reason| named("--slave", typed, reason))?);
    }
    let allow = args.allow.iter().map(|typed| {
        let pattern = typed.parse::<NodePattern>();
        pattern.map_err(|error| named("--allow", typed, error.to_string()))
    });
    let allow = allow.collect::<Result<_, _>>()?;
    let limits = limits(args)?;
    let stores = stores(args, matches, &node_name)?;
    let epmd = match args.epmd {
        EpmdUse::Use => Some(epmd(!args.no_epmd_start)?),
        EpmdUse::None if args.dist_port == 0 => {
            return Err(CliError::usage(
                "--epmd none: nodes find each other by their port alone then; give the port of all nodes of the cluster, as in \
                 --dist-port 4370, which BEAMs have from -erl_epmd_port 4370",
            ));
        }
        EpmdUse::None => None,
    };
    let elect = args.engine.elect()?;
    let etcd = match args.engine.engine(args.data_dir.is_some())? {
        EngineName::Etcd if elect.is_some() => return Err(CliError::usage(NotElected::Etcd)),
        EngineName::Etcd => {
            check_for_etcd(args)?;
            Some(args.engine.etcd()?)
        }
        EngineName::Memory | EngineName::Disk => None,
    };
    if elect.is_some() {
        check_for_election(args, &stores)?;
    }
    let tls = args.tls.config()?;
    let (cookie, origin) = cookie()?;
    let node = crate::config::Config {
        node_name,
        cookie,
        connect,
        allow,
        limits,
        epmd,
        tls,
        bind: args.bind,
        dist_port: args.dist_port,
        net_ticktime_secs: args.net_ticktime,
        fragments: !args.no_fragments,
    };
    let config = Config {
        node,
        slaves,
        stores,
        stored_bytes_max: args.memory_max.map_or(u64::MAX, |bytes| bytes as u64),
        ordered: args.ordered,
        slave_buffer_bytes_max: args.slave_buffer.unwrap_or(Config::SLAVE_BUFFER_BYTES_MAX),
        confirm: args.confirm,
        confirm_timeout: Duration::from_millis(args.confirm_timeout.into()),
        slave_writes: args.slave_writes,
        data: args.data_dir.clone().map(|dir| DataConfig {
            dir,
            sync: args.sync.unwrap_or_default(),
            backup_dir: args.backup_dir.clone(),
        }),
        etcd,
        elect,
        http: args.http,
    };
    Ok((kind, config, origin))
}

/// Finds a setting that means nothing for stores in etcd. One that says what holds without it is none: `kvnode config` prints those too.
fn check_for_etcd(args: &NodeArgs) -> Result<(), CliError> {
    let timeout = Duration::from_millis(args.confirm_timeout.into());
    let refused = [
        (args.sync.is_some(), NotAtEtcd::Sync),
        (args.backup_dir.is_some(), NotAtEtcd::BackupDir),
        (args.data_dir.is_some(), NotAtEtcd::DataDir),
        (args.memory_max.is_some(), NotAtEtcd::MemoryMax),
        (args.confirm > 0, NotAtEtcd::Confirm),
        (timeout != Config::CONFIRM_TIMEOUT, NotAtEtcd::ConfirmTimeout),
        (args.slave_writes != SlaveWrites::default(), NotAtEtcd::SlaveWrites),
    ];
    match refused.into_iter().find(|(is_set, _)| *is_set) {
        Some((_, setting)) => Err(CliError::usage(setting)),
        None => Ok(()),
    }
}

/// Finds a setting that means nothing where a primary is elected, or is missing.
fn check_for_election(args: &NodeArgs, stores: &[StoreConfig]) -> Result<(), CliError> {
    let is_named = args.store.iter().chain(&args.global).chain(&args.local).next().is_some()
        && stores.first().is_some_and(|store| !store.global.is_empty() && !store.local.is_empty());
    let refused = [
        (args.slave_writes == SlaveWrites::Accept, NotElected::AcceptedWrites),
        // The default has the name of the node, which is another on each.
        (!is_named, NotElected::Names),
    ];
    match refused.into_iter().find(|(is_set, _)| *is_set) {
        Some((_, setting)) => Err(CliError::usage(setting)),
        None => Ok(()),
    }
}

fn slave_writes(text: &str) -> Result<SlaveWrites, String> {
    SlaveWrites::of_code(text)
        .ok_or_else(|| format!("one of {}", SlaveWrites::ALL.map(SlaveWrites::code).join(", ")))
}

fn own_name(sname: Option<&str>, name: Option<&str>) -> Result<(NameKind, NodeName), CliError> {
    let (kind, flag, typed) = match (sname, name) {
        (Some(typed), _) => (NameKind::Short, "--sname", typed),
        (None, Some(typed)) => (NameKind::Long, "--name", typed),
        (None, None) => {
            return Err(CliError::usage(
                "a node needs a name; give one with --sname, as in\n\n    kvnode --sname slave1\n\nor with --name where the \
                 nodes of the cluster have long names, as in\n\n    kvnode --name slave1@myhost.example.org\n\n`kvnode \
                 --help` shows the other options",
            ));
        }
    };
    let (head, host) = split_typed(typed);
    if head == "undefined" && host.is_none() {
        return Err(CliError::usage(format!(
            "{flag} undefined: with this name erl asks another node for one, and a node that serves needs its own; choose \
             another"
        )));
    }
    let host = match host {
        Some(host) => host.to_owned(),
        None => Host::of_system()
            .name(kind)
            .map_err(|error| CliError::usage(format!("{flag} {typed}: {error}")))?,
    };
    let name = NodeName::own(kind, head, &host)
        .map_err(|error| CliError::usage(format!("{flag} {typed}: not a node name: {error}")))?;
    Ok((kind, name))
}

fn peer_name(typed: &str, kind: NameKind, own: &NodeName) -> Result<NodeAt, CliError> {
    let wrong = |reason: String| CliError::usage(format!("--connect {typed}: {reason}"));
    let peer = typed.parse::<NodeAt>().map_err(|error| wrong(wrong_node(&error)))?;
    if peer.name == *own {
        return Err(wrong("this is the name of this node itself; name the node to connect to".into()));
    }
    if !kind.admits(peer.name.host()) {
        return Err(wrong(match kind {
            NameKind::Short => format!(
                "a node with a long name, and {own} has a short one: the two do not talk to each other; use --name for \
                 this node, or that node's short name"
            ),
            NameKind::Long => format!(
                "a node with a short name, and {own} has a long one: the two do not talk to each other; use --sname for \
                 this node, or that node's long name"
            ),
        }));
    }
    Ok(peer)
}

/// The stores in the order that they were typed in, whatever their flags.
fn stores(args: &NodeArgs, matches: &ArgMatches, own: &NodeName) -> Result<Vec<StoreConfig>, CliError> {
    type Read = fn(&str) -> Result<StoreConfig, String>;
    let flags: [(&str, &[String], Read); 3] = [
        ("global", &args.global, |name| {
            server_name::atom(name).map(|name| StoreConfig { global: vec![name], local: Vec::new() })
        }),
        ("local", &args.local, |name| {
            server_name::atom(name).map(|name| StoreConfig { global: Vec::new(), local: vec![name] })
        }),
        ("store", &args.store, server_name::store),
    ];
    let mut stores = Vec::new();
    for (flag, typed, read) in flags {
        for (position, typed) in matches.indices_of(flag).into_iter().flatten().zip(typed) {
            let store =
                read(typed).map_err(|reason| CliError::usage(format!("--{flag} {typed}: {reason}")))?;
            stores.push((position, store));
        }
    }
    stores.sort_by_key(|(position, _)| *position);
    let mut stores: Vec<StoreConfig> = stores.into_iter().map(|(_, store)| store).collect();
    if stores.is_empty() {
        stores
            .push(StoreConfig { global: vec![own.name().to_owned()], local: vec![DEFAULT_LOCAL.to_owned()] });
    }
    check_names(&stores)?;
    Ok(stores)
}

fn check_names(stores: &[StoreConfig]) -> Result<(), CliError> {
    let names = stores.iter().flat_map(|store| {
        let global = store.global.iter().cloned().map(ServerName::Global);
        global.chain(store.local.iter().cloned().map(ServerName::Local))
    });
    let mut seen = HashSet::new();
    for name in names {
        if let ServerName::Local(local) = &name
            && OWN_PROCESSES.contains(&local.as_str())
        {
            return Err(CliError::usage(format!(
                "local:{local} is the name of a process that every node has; choose another for the store"
            )));
        }
        if !seen.insert(name.clone()) {
            let name = match name {
                ServerName::Global(name) => format!("global:{name}"),
                ServerName::Local(name) => format!("local:{name}"),
            };
            return Err(CliError::usage(format!(
                "{name} is given twice, and a name belongs to one store; leave one of them out"
            )));
        }
    }
    Ok(())
}

fn limits(args: &NodeArgs) -> Result<Limits, CliError> {
    let default = Limits::default();
    let frame_bytes_max = args.frame_bytes_max.unwrap_or(default.frame_bytes_max);
    if !(FRAME_BYTES_LEAST..=FRAME_BYTES_MOST).contains(&frame_bytes_max) {
        return Err(CliError::usage("--frame-bytes-max: from 64KiB up to 4GiB less one byte"));
    }
    let unfinished_bytes_max = args.unfinished_bytes_max.unwrap_or(default.unfinished_bytes_max);
    Ok(Limits { frame_bytes_max, unfinished_bytes_max, ..default })
}

fn epmd(start: bool) -> Result<EpmdConfig, CliError> {
    let epmd = environment::epmd_config().map_err(CliError::usage)?;
    // A program whose path is unknown cannot be run again; then there is Erlang's epmd only.
    Ok(EpmdConfig { start, own_program: std::env::current_exe().ok(), ..epmd })
}

fn cookie(typed: Option<&str>, origins: &Origins) -> Result<(Cookie, CookieOrigin), CliError> {
    if let Some(typed) = typed {
        return Ok((given_cookie(typed)?, CookieOrigin::Given(origins.of("cookie"))));
    }
    let file = CookiePlaces::from_environment().read_or_create().map_err(CliError::cannot_run)?;
    Ok((file.cookie, CookieOrigin::File { path: file.path, created: file.created }))
}

fn given_cookie(typed: &str) -> Result<Cookie, CliError> {
    Cookie::typed(typed).map_err(|error| CliError::usage(format!("--cookie: {error}")))
}
