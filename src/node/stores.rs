//! The stores of a node, supervised: started under their names, and started again when they have ended.
//!
//! The decisions are [`Supervisor`]'s. What a store had in memory is lost with it; its names, and the slaves that it
//! was configured with, are not.

use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;
use smol::Task;

use super::{Node, Outlet, after, now, slaves};
use crate::config::{Limits, StoreConfig};
use crate::etf::TermView;
use crate::etf::tag::NIL_EXT;
use crate::kv::{KeyValueServer, StateShape, StoreServer};
use crate::process::registry::RegisterError;
use crate::process::supervisor::{ChildId, Intensity, Verdict};
use crate::process::{Dispatch, Ended, GenServer, Process, ProcessId, Restart, Supervisor};
use crate::replica::{Slave, SlaveName};
use crate::store::disk::OpenError;
use crate::store::{Disk, MemoryStore, StoreError};

/// A store whose only name is this one shows its state as that module does.
const PLAIN_MODULE: &str = "Elixir.KeyValueStore";

/// What a store is started from, again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct StoreSpec {
    /// Its names.
    pub names: StoreConfig,
    /// The slaves that it has from the start.
    pub slaves: Vec<SlaveName>,
}

/// Why a store was not started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum StoreStartError {
    /// Another process has this name.
    Taken(String),
    /// More slaves than a store may have.
    TooManySlaves,
    /// What it is kept in could not be opened.
    Disk(OpenError),
    /// What it keeps could not be read.
    Store(StoreError),
}

impl fmt::Display for StoreStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(name) => write!(f, "another process has the name {name}"),
            Self::TooManySlaves => f.write_str("it is given more slaves than a store may have"),
            Self::Disk(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// A store that runs.
#[derive(Debug)]
struct Running {
    server: Arc<dyn StoreServer>,
    /// The tasks that follow its slaves: they end with it.
    follows: Vec<Task<()>>,
}

/// The stores of a node.
pub(super) struct Stores {
    supervisor: Mutex<Supervisor<StoreSpec>>,
    /// By every pid of a store.
    running: Mutex<AHashMap<ProcessId, Arc<Mutex<Running>>>>,
    /// Where they are kept; `None`: in memory.
    disk: Option<Arc<Disk>>,
}

impl Stores {
    pub(super) fn new(limits: &Limits, disk: Option<Arc<Disk>>) -> Self {
        let intensity = Intensity { restarts_max: limits.restarts_max, period: limits.restart_period };
        Self { supervisor: Mutex::new(Supervisor::new(intensity)), running: Mutex::default(), disk }
    }

    pub(super) const fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
    }

    /// Says which stores of the folder nobody can reach, since they have none of the names that were given.
    pub(super) fn say_unserved<'a>(&self, served: impl Iterator<Item = &'a StoreConfig>) {
        let Some(disk) = &self.disk else { return };
        let served: Vec<String> = served.flat_map(disk_names).collect();
        for names in disk.stores() {
            if !names.iter().any(|name| served.contains(name)) {
                tracing::warn!("a store on disk is not served: --store {} would", names.join(","));
            }
        }
    }
}

impl Node {
    /// Starts a store, to be started again as `restart` says.
    ///
    /// # Errors
    /// The caller's: see [`StoreStartError`]. Nothing is left of the store then.
    pub(super) fn start_store(
        &self,
        spec: StoreSpec,
        restart: Restart,
    ) -> Result<Arc<Process>, StoreStartError> {
        let child = self.stores.supervisor.lock().add(spec.clone(), restart);
        self.start_child(child, &spec).inspect_err(|_| _ = self.stores.supervisor.lock().forget(child))
    }

    /// Looks after a store that somebody has started, until it ends: it is not started again.
    pub(super) fn adopt_store(&self, process: &Arc<Process>, server: Arc<dyn StoreServer>) {
        let mut table = self.stores.running.lock();
        // Whoever ends a store takes it out of the registry first, and out of here then.
        if process.is_alive() {
            let mut supervisor = self.stores.supervisor.lock();
            let child = supervisor
                .add(StoreSpec { names: StoreConfig::default(), slaves: Vec::new() }, Restart::Temporary);
            supervisor.started(child, process.id);
            table.insert(process.id, Arc::new(Mutex::new(Running { server, follows: Vec::new() })));
        }
    }

    fn start_child(&self, child: ChildId, spec: &StoreSpec) -> Result<Arc<Process>, StoreStartError> {
        let dispatch: Arc<dyn Dispatch> = Arc::new(Outlet(self.this.clone()));
        let plain = spec.names.global.is_empty() && spec.names.local == [PLAIN_MODULE];
        let shape = if plain { StateShape::Plain } else { StateShape::Replicated };
        let bytes_max = self.config.limits.slave_buffer_bytes_max;
        let mut restored = Vec::new();
        let server: Arc<dyn StoreServer> = match &self.stores.disk {
            Some(disk) => {
                let store = disk.store(&disk_names(&spec.names)).map_err(StoreStartError::Disk)?;
                let server = KeyValueServer::new(store, dispatch, bytes_max).shown_as(shape);
                restored = server.restore_slaves().map_err(StoreStartError::Store)?;
                Arc::new(server)
            }
            None => {
                Arc::new(KeyValueServer::new(MemoryStore::default(), dispatch, bytes_max).shown_as(shape))
            }
        };
        // Held until the store is in all tables: it may be ended as soon as it has a name.
        let mut table = self.stores.running.lock();
        let process = self.registry.spawn(Arc::clone(&server) as Arc<dyn GenServer>);
        let named = self.name_store(&process, &spec.names).and_then(|pids| {
            let added = spec.slaves.iter().filter_map(|name| server.add_slave(name.clone()).transpose());
            let added: Result<Vec<_>, _> = added.collect();
            added.map(|added| (pids, added)).map_err(|_| StoreStartError::TooManySlaves)
        });
        let (pids, mut slaves) = named.inspect_err(|_| self.exit(&process, &[NIL_EXT]))?;
        slaves.extend(restored);
        let running = Arc::new(Mutex::new(Running { server, follows: Vec::new() }));
        for pid in pids {
            table.insert(pid, Arc::clone(&running));
        }
        self.stores.supervisor.lock().started(child, process.id);
        drop(table);
        for slave in slaves {
            self.follow(slave, &process);
        }
        Ok(process)
    }

    /// Gives a store its names; gives the ids of its pids.
    fn name_store(
        &self,
        process: &Arc<Process>,
        names: &StoreConfig,
    ) -> Result<Vec<ProcessId>, StoreStartError> {
        let taken = |name: &str| {
            let name = name.to_owned();
            move |_: RegisterError| StoreStartError::Taken(name)
        };
        let mut pids = vec![process.id];
        for name in &names.local {
            self.registry.register(name, process).map_err(taken(name))?;
        }
        for (at, name) in names.global.iter().enumerate() {
            // kernel, global.erl, check_dupname: a pid has one name there, so each name has a pid.
            let holder = match at {
                0 => Arc::clone(process),
                _ => self.registry.spawn_sibling(process).map_err(taken(name))?,
            };
            self.registry.claim_global(name, &holder).map_err(taken(name))?;
            pids.push(holder.id);
        }
        Ok(pids)
    }

    /// Follows a slave of a store until the store ends.
    pub(super) fn follow(&self, slave: Arc<Slave>, store: &Arc<Process>) {
        let Some(node) = self.this.upgrade() else { return };
        let Some(running) = self.stores.running.lock().get(&store.id).cloned() else { return };
        let mut running = running.lock();
        // Whoever ends the store takes it out of the registry first, and its tasks out of here then.
        if store.is_alive() {
            running.follows.retain(|task| !task.is_finished());
            running.follows.extend(self.task(slaves::follow(node, slave, Arc::clone(store))));
        }
    }

    /// A process has ended: if it was a store, what hangs on it goes, and it is started again where that is due.
    pub(super) fn process_ended(&self, ended: &Ended) {
        let mut store = None;
        for process in &ended.processes {
            store = self.stores.running.lock().remove(&process.id).or(store);
        }
        let Some(store) = store else { return };
        let (lost, durable) = {
            let mut store = store.lock();
            // Dropping a task ends it.
            store.follows.clear();
            (store.server.entries(), store.server.is_durable())
        };
        let reason = TermView::parse(&ended.reason).expect("a reason was checked when it came");
        let verdict = {
            let mut supervisor = self.stores.supervisor.lock();
            let mut ids = ended.processes.iter().map(|process| process.id);
            ids.find_map(|id| supervisor.ended(id, reason, now()))
        };
        let names = ended.names.join(", ");
        let entries = if lost == 1 { "1 entry is" } else { &*format!("{lost} entries are") };
        let (gone, again) = if durable {
            (format!("{entries} kept on disk"), "")
        } else {
            (format!("{entries} lost"), ", empty")
        };
        match verdict {
            None => {}
            Some(Verdict::Forget(_)) => {
                tracing::info!(store = %names, ?reason, "store ended; its {gone}");
            }
            Some(Verdict::Restart { child, spec, after: pause }) if pause.is_zero() => {
                if let Some(process) = self.start_again(child, &spec) {
                    tracing::warn!(
                        store = %names, ?reason, pid = ?process,
                        "store ended and was started again{again}: its {gone}"
                    );
                }
            }
            Some(Verdict::Restart { child, spec, after: pause }) => {
                tracing::error!(
                    store = %names, ?reason,
                    "store ended, too often of late: its {gone}, and it is started again in {} ms",
                    pause.as_millis()
                );
                self.start_later(child, spec, pause);
            }
        }
    }

    fn start_later(&self, child: ChildId, spec: StoreSpec, pause: std::time::Duration) {
        let Some(node) = self.this.upgrade() else { return };
        self.spawn(async move {
            after(pause).await;
            if let Some(process) = node.start_again(child, &spec) {
                tracing::warn!(pid = ?process, names = ?node.registry.names_of(&process), "store started again");
            }
        });
    }

    fn start_again(&self, child: ChildId, spec: &StoreSpec) -> Option<Arc<Process>> {
        if self.is_stopping() {
            return None;
        }
        match self.start_child(child, spec) {
            Ok(process) => {
                self.names.started_again(spec.names.global.iter().map(String::as_str));
                Some(process)
            }
            Err(error) => {
                let verdict = self.stores.supervisor.lock().again(child, now());
                if let Some(Verdict::Restart { child, spec, after: pause }) = verdict {
                    // Somebody took the name meanwhile: not at once again, and not too late either.
                    let pause = pause.max(self.config.limits.backoff_first);
                    tracing::error!(
                        "store not started again: {error}; tried again in {} ms",
                        pause.as_millis()
                    );
                    self.start_later(child, spec, pause);
                }
                None
            }
        }
    }
}

/// The names of a store as they are kept with it: as they are typed after `--store`.
fn disk_names(names: &StoreConfig) -> Vec<String> {
    // An atom may have a line's end in it, which ends a name there.
    let global = names.global.iter().map(|name| format!("global:{}", name.escape_debug()));
    global.chain(names.local.iter().map(|name| format!("local:{}", name.escape_debug()))).collect()
}

impl fmt::Debug for Stores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stores").field("supervisor", &self.supervisor.lock()).finish_non_exhaustive()
    }
}
