//! Everything that the program is started with: the node, and the stores on it.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::StartError;
use crate::Node;
use crate::config::{self, ServerName, with_each};
use crate::kv::slaves::SLAVES_MAX;
use crate::kv::{Consistency, Replication, SlaveWrites};
use crate::replica::SlaveName;
use crate::store::SyncPolicy;

/// The settings of the program. A plain value: nothing below the command line reads the environment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The node.
    pub node: config::Config,
    /// The stores to serve, in order. The default is none.
    pub stores: Vec<StoreConfig>,
    /// The folder where the stores are kept. Without this and without [`etcd`](Self::etcd), which is the default, they are in memory.
    pub data: Option<DataConfig>,
    /// The etcd where the stores are kept. Not beside [`data`](Self::data), [`confirm`](Self::confirm) or
    /// [`stored_bytes_max`](Self::stored_bytes_max).
    pub etcd: Option<EtcdConfig>,
    /// How the primary of the first store is elected, among the kvnodes that have the same etcd and prefix, and a first store with the same global name. `None`: nobody elects
    /// one, and a slave is promoted by hand. Not beside [`etcd`](Self::etcd).
    pub elect: Option<ElectConfig>,
    /// Bytes that all stores in memory may hold, as [`Room`](crate::store::Room) counts them: past it a write is
    /// answered `{:error, :no_space}`. For stores on disk it is about the memory that they take. The default is no bound,
    /// `u64::MAX`.
    pub stored_bytes_max: u64,
    /// Whether the stores in memory, and those in etcd, have their keys in Erlang's order of terms beside their tables, for scans that ask
    /// for that. The default is `false`: it costs memory and time for each key (docs/operations.md says how much). Stores on disk have it always.
    pub ordered: bool,
    /// Slaves of the first store. The default is none.
    pub slaves: Vec<ServerName>,
    /// Bytes kept for a slave that does not take them: past it the slave is behind, and only the keys that it misses are
    /// kept; past it with these too, the whole store is sent once the slave takes writes again. The default is 64 MiB.
    pub slave_buffer_bytes_max: usize,
    /// Slaves that have a write of the first store before it is answered; 0, the default: it is answered at once.
    pub confirm: u32,
    /// A write that fewer slaves have after this time is answered so. The default is 4 s: callers wait for 5 s
    /// (`GenServer.call/2`), and are to have an answer before.
    pub confirm_timeout: Duration,
    /// What becomes of callers' writes to a store while it follows a kvnode's. The default is [`SlaveWrites::Refuse`].
    pub slave_writes: SlaveWrites,
    /// Where the page and the metrics are served by HTTP ([`http`](super::http)). `None`, the default: nowhere.
    pub http: Option<SocketAddr>,
}

impl Config {
    /// [`confirm_timeout`](Self::confirm_timeout) where nothing else is said.
    pub const CONFIRM_TIMEOUT: Duration = Duration::from_secs(4);

    /// The most slaves that a write can wait for: no store has more.
    pub const CONFIRM_MAX: u32 = SLAVES_MAX as u32;

    /// [`slave_buffer_bytes_max`](Self::slave_buffer_bytes_max) where nothing else is said: 64 MiB.
    pub const SLAVE_BUFFER_BYTES_MAX: usize = Replication::SLAVE_BUFFER_BYTES_MAX;

    /// A node without stores, whose settings are the defaults.
    pub const fn new(node: config::Config) -> Self {
        Self {
            node,
            stores: Vec::new(),
            data: None,
            etcd: None,
            elect: None,
            stored_bytes_max: u64::MAX,
            ordered: false,
            slaves: Vec::new(),
            slave_buffer_bytes_max: Self::SLAVE_BUFFER_BYTES_MAX,
            confirm: 0,
            confirm_timeout: Self::CONFIRM_TIMEOUT,
            slave_writes: SlaveWrites::Refuse,
            http: None,
        }
    }
}

with_each! { Config:
    with_stores = stores: Vec<StoreConfig>,
    with_stored_bytes_max = stored_bytes_max: u64,
    with_ordered = ordered: bool,
    with_slaves = slaves: Vec<ServerName>,
    with_slave_buffer_bytes_max = slave_buffer_bytes_max: usize,
    with_confirm = confirm: u32,
    with_confirm_timeout = confirm_timeout: Duration,
    with_slave_writes = slave_writes: SlaveWrites,
}

impl Config {
    /// The same, with its stores in a folder.
    #[must_use]
    pub fn with_data(self, data: DataConfig) -> Self {
        Self { data: Some(data), ..self }
    }

    /// The same, with its stores in etcd.
    #[must_use]
    pub fn with_etcd(self, etcd: EtcdConfig) -> Self {
        Self { etcd: Some(etcd), ..self }
    }

    /// The same, with the primary of the first store elected.
    #[must_use]
    pub fn with_elect(self, elect: ElectConfig) -> Self {
        Self { elect: Some(elect), ..self }
    }

    /// The same, with page and metrics at this address.
    #[must_use]
    pub fn with_http(self, http: SocketAddr) -> Self {
        Self { http: Some(http), ..self }
    }
}

impl Config {
    /// Finds what the settings alone tell to be wrong, the node's TLS files with it, before anything is opened.
    pub(super) fn check(&self) -> Result<(), StartError> {
        Node::check(&self.node)?;
        if self.slave_names().len() > SLAVES_MAX {
            return Err(StartError::TooManySlaves);
        }
        if self.http.is_some() && !cfg!(feature = "http") {
            return Err(StartError::WithoutHttp);
        }
        if self.etcd.is_some() {
            let refused = [
                (self.data.is_some(), NotAtEtcd::DataDir),
                (self.confirm > 0, NotAtEtcd::Confirm),
                (self.stored_bytes_max < u64::MAX, NotAtEtcd::MemoryMax),
            ];
            if let Some((_, setting)) = refused.into_iter().find(|(is_set, _)| *is_set) {
                return Err(StartError::NotAtEtcd(setting));
            }
        }
        if self.elect.is_some() {
            let has = |name: fn(&StoreConfig) -> &Vec<String>| {
                self.stores.first().is_some_and(|store| !name(store).is_empty())
            };
            let refused = [
                (self.etcd.is_some(), NotElected::Etcd),
                (self.slave_writes == SlaveWrites::Accept, NotElected::AcceptedWrites),
                (!has(|store| &store.global) || !has(|store| &store.local), NotElected::Names),
            ];
            if let Some((_, setting)) = refused.into_iter().find(|(is_set, _)| *is_set) {
                return Err(StartError::NotElected(setting));
            }
        }
        Ok(())
    }

    /// The slaves, each once.
    pub(super) fn slave_names(&self) -> Vec<SlaveName> {
        let mut slaves: Vec<SlaveName> = Vec::new();
        for name in &self.slaves {
            let slave = match name {
                ServerName::Global(name) => SlaveName::global(name),
                ServerName::Local(name) => SlaveName::Local(name.as_str().into()),
            };
            if !slaves.contains(&slave) {
                slaves.push(slave);
            }
        }
        slaves
    }
}

/// Stores on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DataConfig {
    /// The folder, which one process has at a time.
    pub dir: PathBuf,
    /// When writes are synced. The default is [`SyncPolicy::Always`].
    pub sync: SyncPolicy,
    /// The folder that callers may have backups written into, by `{:backup, path}`; `None`, the default: they may not.
    pub backup_dir: Option<PathBuf>,
}

impl DataConfig {
    /// This folder, whose writes are synced before they are answered.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), sync: SyncPolicy::Always, backup_dir: None }
    }
}

with_each! { DataConfig:
    with_sync = sync: SyncPolicy,
    with_backup_dir = backup_dir: Option<PathBuf>,
}

/// Stores in etcd. All kvnodes that have the same etcd and prefix, and a store with the same global name, serve one store: each of them
/// may have local names of its own beside it. A store without a global name is found by its local names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdConfig {
    /// The members: `http://host:port` or `https://host:port`. These are asked, and no others.
    pub endpoints: Vec<String>,
    /// What all keys of kvnode in etcd begin with. The default is `kvnode`.
    pub prefix: String,
    /// The certificates of the CAs that may sign a member's (PEM): endpoints with `https` need it.
    pub ca: Option<PathBuf>,
    /// The own certificate (PEM), for an etcd with `--client-cert-auth`.
    pub cert: Option<PathBuf>,
    /// Its key (PEM). `None`: it stands in the file of the certificate.
    pub key: Option<PathBuf>,
    /// The user of etcd's authentication. `None`: it is off, or takes the name in the certificate.
    pub user: Option<EtcdUser>,
    /// How new the answers of reads are that say nothing of it. The default is [`Consistency::Session`].
    pub reads: Consistency,
    /// How long etcd's history is kept: the node that holds a store's names compacts, each time at the revision of so long ago. `None`: it
    /// does not, and somebody else has to, or etcd's file grows until it takes no writes. The default is [`COMPACT`](Self::COMPACT).
    ///
    /// It is the history of the whole etcd, of all its prefixes. A watch that was cut for longer loads its store anew.
    pub compact: Option<Duration>,
}

impl EtcdConfig {
    /// [`prefix`](Self::prefix) where nothing else is said.
    pub const PREFIX: &'static str = "kvnode";
    /// [`compact`](Self::compact) where nothing else is said: 5 minutes.
    pub const COMPACT: Duration = Duration::from_secs(300);

    /// These members, without TLS and user.
    pub fn new<E: Into<String>>(endpoints: impl IntoIterator<Item = E>) -> Self {
        let endpoints = endpoints.into_iter().map(Into::into).collect();
        let compact = Some(Self::COMPACT);
        Self {
            endpoints,
            prefix: Self::PREFIX.to_owned(),
            ca: None,
            cert: None,
            key: None,
            user: None,
            reads: Consistency::Session,
            compact,
        }
    }
}

with_each! { EtcdConfig:
    with_prefix = prefix: String,
    with_ca = ca: Option<PathBuf>,
    with_cert = cert: Option<PathBuf>,
    with_key = key: Option<PathBuf>,
    with_user = user: Option<EtcdUser>,
    with_reads = reads: Consistency,
    with_compact = compact: Option<Duration>,
}

/// How the primary of a store is elected, that is kept in memory or on disk. All kvnodes that are to elect one have the same, and a first store with
/// the same names: a global one, by which it is known in etcd and which the primary has, and a local one, by which it is found on its node.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ElectConfig {
    /// The etcd, of which some small keys are used.
    pub etcd: EtcdConfig,
    /// An election does not wait for those that may have a confirmed write: it takes the most advanced of those that are there, and may lose such writes. The
    /// default is `false`.
    pub is_lossy: bool,
}

impl ElectConfig {
    /// By this etcd, and loses no confirmed write.
    pub const fn new(etcd: EtcdConfig) -> Self {
        Self { etcd, is_lossy: false }
    }
}

with_each! { ElectConfig:
    with_lossy = is_lossy: bool,
}

/// A setting that means nothing, or is missing, where the primary is elected. Its text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotElected {
    /// Stores in etcd.
    #[error(
        "--elect: with --engine etcd there is no primary to elect: each kvnode serves the store, and one of them has its names; leave \
         --elect out"
    )]
    Etcd,
    /// Writes to slaves.
    #[error(
        "--slave-writes accept: with --elect any of the stores may become the primary, and what was written to one of them alone would be \
         dropped; take refuse or forward"
    )]
    AcceptedWrites,
    /// The names of the first store.
    #[error(
        "--elect: the first store needs a global name, by which callers find the primary and the nodes know each other's store, and a local \
         one, by which the primary finds its slaves; give all nodes the same, as in --store global:kv,local:kv"
    )]
    Names,
}

/// A user of etcd's authentication.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// The name.
    pub name: String,
    /// The password, which is shown nowhere.
    pub password: String,
}

impl fmt::Debug for EtcdUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EtcdUser").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A setting that means nothing for stores in etcd. Its text says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAtEtcd {
    /// Stores in a folder.
    #[error(
        "--data-dir: stores are kept in one place, and with --engine etcd that is etcd; leave one of the two out"
    )]
    DataDir,
    /// When writes are synced.
    #[error(
        "--sync: with --engine etcd a write is answered when most members of etcd have it on disk; leave it out"
    )]
    Sync,
    /// Backups by callers.
    #[error("--backup-dir: stores in etcd are backed up by `kvnode backup --etcd …`; leave it out")]
    BackupDir,
    /// A bound for stores in memory.
    #[error(
        "--memory-max: with --engine etcd each kvnode has all entries in memory, whoever wrote them, and cannot refuse what \
         others write; the bound is etcd's --quota-backend-bytes; leave it out"
    )]
    MemoryMax,
    /// Writes that wait for slaves.
    #[error(
        "--confirm: with --engine etcd a write is answered when most members of etcd have it, and needs no slave for that; \
         leave it out"
    )]
    Confirm,
    /// How long they wait.
    #[error("--confirm-timeout: with --engine etcd no write waits for slaves; leave it out")]
    ConfirmTimeout,
    /// Writes at a slave.
    #[error(
        "--slave-writes: with --engine etcd a store follows no primary, and takes writes always; leave it out"
    )]
    SlaveWrites,
}

/// One store and the names that it is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreConfig {
    /// Names in `:global`.
    pub global: Vec<String>,
    /// Names on this node.
    pub local: Vec<String>,
}

impl StoreConfig {
    /// The same, with one name more.
    ///
    /// ```
    /// use kvnode::config::ServerName;
    /// use kvnode::program::StoreConfig;
    ///
    /// let store = StoreConfig::default().with_name(ServerName::global("kv")).with_name(ServerName::local("kv"));
    /// assert_eq!((store.global.len(), store.local.len()), (1, 1));
    /// ```
    #[must_use]
    pub fn with_name(mut self, name: ServerName) -> Self {
        match name {
            ServerName::Global(name) => self.global.push(name),
            ServerName::Local(name) => self.local.push(name),
        }
        self
    }

    /// Its names, the global ones first.
    pub fn server_names(&self) -> Vec<ServerName> {
        let global = self.global.iter().map(|name| ServerName::global(name));
        global.chain(self.local.iter().map(|name| ServerName::local(name))).collect()
    }
}
