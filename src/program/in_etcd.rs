//! The etcd that stores are kept in.
//!
//! The node does not wait for etcd. A thread of its own opens the stores one after the other, for as long as that takes, and a store has its
//! names when it is loaded: a caller that comes before finds no process, at once. What etcd refuses for good ends the program with the reason;
//! an etcd that is away, or has no leader or no space, is waited for.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use parking_lot::Mutex;

use super::candidacy::Candidates;
use super::elector::Elected;
use super::holder::Held;
use super::{ElectConfig, EtcdConfig, StartError, Store, StoreConfig, Tell, taken};
use crate::Node;
use crate::config::ServerName;
use crate::etcd::{self, ConfigError, Etcd};
use crate::kv::serve::{GLOBAL, Stand, name_kept, serve_standing};
use crate::kv::{NotServed, Replication, ServedStore};
use crate::node::Resource;
use crate::store::{Done, Engine, EtcdEngine, EtcdFigures, EtcdState, EtcdStore, OpenError, StoreError};

/// Between two times that a store is tried to be opened. (A time takes up to 4 s where etcd does not answer.)
const PAUSE: Duration = Duration::from_millis(500);

/// The stores in etcd.
#[derive(Clone)]
pub(super) struct InEtcd {
    etcd: Etcd,
    engine: EtcdEngine,
    candidates: Arc<Candidates>,
    endpoints: String,
    /// [`EtcdConfig::compact`].
    compact: Option<Duration>,
}

pub(super) fn connect(config: &EtcdConfig, is_ordered: bool) -> Result<InEtcd, StartError> {
    let etcd = client(config, "--etcd")?;
    let engine = EtcdEngine::new(etcd.clone(), &config.prefix).ordered(is_ordered);
    let (endpoints, compact) = (config.endpoints.join(", "), config.compact);
    Ok(InEtcd { etcd, engine, candidates: Arc::default(), endpoints, compact })
}

/// The engine alone, whose stores are moved and not served.
#[cfg(feature = "disk")]
pub(super) fn engine(config: &EtcdConfig) -> Result<EtcdEngine, StartError> {
    connect(config, false).map(|etcd| etcd.engine)
}

/// `members`: the flag that names them.
fn client(config: &EtcdConfig, members: &'static str) -> Result<Etcd, StartError> {
    let EtcdConfig { endpoints, ca, cert, key, user, .. } = config;
    let tls = etcd::TlsFiles { ca: ca.clone(), cert: cert.clone(), key: key.clone() };
    let user =
        user.as_ref().map(|user| etcd::User { name: user.name.clone(), password: user.password.clone() });
    let config = etcd::Config { tls, user, ..etcd::Config::new(endpoints.iter().cloned()) };
    let flag = |path: &PathBuf| {
        let files = [("--etcd-ca", ca), ("--etcd-cert", cert), ("--etcd-key", key)];
        files.into_iter().find(|(_, of)| of.as_ref() == Some(path)).map(|(flag, _)| flag)
    };
    Etcd::connect(config).map_err(|error| {
        let flag = match &error {
            ConfigError::Read { path, .. } | ConfigError::Tls { path, .. } => flag(path),
            _ => None,
        };
        StartError::EtcdSettings { flag: flag.unwrap_or(members), reason: error.to_string() }
    })
}

/// The etcd by which the primary of a store is elected, that is not kept there.
pub(super) struct Electing {
    etcd: Etcd,
    prefix: String,
    is_lossy: bool,
    candidates: Arc<Candidates>,
}

pub(super) fn electing(config: &ElectConfig) -> Result<Electing, StartError> {
    let ElectConfig { etcd, is_lossy } = config;
    Ok(Electing {
        etcd: client(etcd, "--elect")?,
        prefix: etcd.prefix.clone(),
        is_lossy: *is_lossy,
        candidates: Arc::default(),
    })
}

/// Has the store's processes take part in the election of its primary.
pub(super) fn stand<S: crate::store::Store>(
    electing: &Electing,
    names: &StoreConfig,
    replication: &Replication,
) -> Stand<S> {
    let name = names.global.first().cloned().map(ServerName::Global);
    let name = name.as_ref().map(name_kept).unwrap_or_default();
    let elected = Arc::new(Elected {
        etcd: electing.etcd.clone(),
        base: crate::store::etcd::base_of(&electing.prefix, &name),
        names: names.global.clone(),
        local: names.local.first().cloned().unwrap_or_default(),
        slaves: replication.slaves.clone(),
        confirm: replication.confirm.slaves,
        is_lossy: electing.is_lossy,
        candidates: Arc::clone(&electing.candidates),
    });
    Box::new(move |process, server| elected.stand(process, server))
}

/// A primary leaves its place to another before the node ends.
pub(super) fn leave_at_end(node: &Node, electing: &Electing) {
    node.close_at_end(Arc::clone(&electing.candidates) as Arc<dyn Resource>);
}

/// How a store stands to it that is not loaded yet.
pub(super) fn figures(etcd: &InEtcd) -> EtcdFigures {
    EtcdFigures { state: EtcdState::Loading, revision: 0, lag: None, members: etcd.engine.members() }
}

/// Begins to open the stores. Where one can never be opened that is told, and no later one is.
pub(super) fn begin(
    node: &Arc<Node>,
    etcd: &InEtcd,
    stores: Vec<(Arc<Store>, Replication)>,
    tell: Tell,
) -> Result<(), StartError> {
    let (end, ended) = sync_channel(0);
    let opening = Opening { node: Arc::clone(node), etcd: etcd.clone(), ended };
    // Before the engine: writes are answered until another node has the names.
    node.close_at_end(Arc::clone(&etcd.candidates) as Arc<dyn Resource>);
    node.close_at_end(Arc::new(AtEnd { engine: etcd.engine.clone(), opening: Mutex::new(Some(end)) }));
    let open = move || {
        for (store, replication) in stores {
            match opening.open(&store, &replication) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tell.failed(error),
            }
        }
    };
    let thread = thread::Builder::new().name("kvnode-etcd-open".into()).spawn(open);
    thread.map(drop).map_err(|error| StartError::Node(crate::node::StartError::System(error)))
}

/// The names by which a store is found in an etcd: its global ones. A local name says nothing of other nodes' stores where there is a global one.
pub(super) fn found_by(names: &[String]) -> Vec<String> {
    let global: Vec<String> = names.iter().filter(|name| name.starts_with(GLOBAL)).cloned().collect();
    if global.is_empty() { names.to_vec() } else { global }
}

/// The engine, with the rule by which stores are found.
#[derive(Clone)]
struct ByGlobalNames(EtcdEngine);

impl Engine for ByGlobalNames {
    type Store = EtcdStore;

    fn open(&self, names: &[String]) -> Result<EtcdStore, OpenError> {
        self.0.open(&found_by(names))
    }

    fn open_again(&self, store: &EtcdStore) -> EtcdStore {
        self.0.open_again(store)
    }

    fn settle(&self, done: Done) {
        self.0.settle(done);
    }

    fn close(&self) {
        self.0.close();
    }
}

struct Opening {
    node: Arc<Node>,
    etcd: InEtcd,
    /// Closed when the node ends.
    ended: Receiver<()>,
}

impl Opening {
    /// Opens a store and starts its process, for as long as that takes; `false`: the node ends.
    fn open(&self, store: &Store, replication: &Replication) -> Result<bool, StartError> {
        let (mut is_said, endpoints, name) = (false, &self.etcd.endpoints, store.name());
        let held = Arc::new(Held {
            etcd: self.etcd.etcd.clone(),
            names: store.names.global.clone(),
            slaves: replication.slaves.clone(),
            compact: self.etcd.compact,
            candidates: Arc::clone(&self.etcd.candidates),
        });
        loop {
            let engine = Arc::new(ByGlobalNames(self.etcd.engine.clone()));
            let held = Arc::clone(&held);
            let stand = Box::new(move |process: &_, server| held.stand(process, server));
            let names = store.names.server_names();
            let started = serve_standing(&self.node, names, replication.clone(), engine, Some(stand));
            let why = match started {
                Ok(ServedStore { process, figures }) => {
                    tracing::info!(store = %name, "the store is loaded from etcd, and has its names on this node");
                    store.started(process.pid().clone(), figures);
                    return Ok(true);
                }
                Err(_) if self.is_over() => return Ok(false),
                Err(NotServed::Name(error)) => return Err(taken(error)),
                Err(NotServed::Open(OpenError::EtcdAway { reason })) => reason,
                Err(NotServed::Slaves(error @ (StoreError::Unavailable | StoreError::Unknown))) => {
                    error.to_string()
                }
                Err(NotServed::Open(error)) => return Err(StartError::Etcd { store: name, error }),
                Err(NotServed::Slaves(error)) => {
                    let error = OpenError::Etcd { reason: error.to_string() };
                    return Err(StartError::Etcd { store: name, error });
                }
            };
            if !std::mem::replace(&mut is_said, true) {
                tracing::warn!(
                    store = %name,
                    "the store waits for etcd at {endpoints}, and has no names until it is loaded: {why}"
                );
            } else {
                tracing::debug!(store = %name, "the store waits for etcd: {why}");
            }
            if !matches!(self.ended.recv_timeout(PAUSE), Err(RecvTimeoutError::Timeout)) {
                return Ok(false);
            }
        }
    }

    fn is_over(&self) -> bool {
        use std::sync::mpsc::TryRecvError;
        !matches!(self.ended.try_recv(), Err(TryRecvError::Empty))
    }
}

/// The stores in etcd, as a node that ends sees them.
struct AtEnd {
    engine: EtcdEngine,
    /// Dropped, it ends the thread that opens stores.
    opening: Mutex<Option<SyncSender<()>>>,
}

impl Resource for AtEnd {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        self.opening.lock().take();
        // What could not be written was said to its callers.
        Engine::settle(&self.engine, Box::new(|_| done()));
    }

    fn close(&self) {
        Engine::close(&self.engine);
    }
}
