//! The folder that stores are kept in.

use std::sync::Arc;

use super::in_etcd::{self, Electing};
use super::stores::{self, NotStarted, Replication};
use super::{DataConfig, StartError, StoreConfig};
use crate::kv::figures::StoreWatch;
use crate::node::Resource;
use crate::store::{Disk, Engine};
use crate::{Node, ProcessHandle};

pub(super) type OnDisk = Arc<Disk>;

pub(super) fn open(data: &DataConfig, memory_bytes_max: u64) -> Result<OnDisk, StartError> {
    let disk = Disk::open(&data.dir, data.sync, memory_bytes_max).map_err(StartError::Data)?;
    if let Some(dir) = &data.backup_dir {
        disk.allow_backups(dir).map_err(StartError::Data)?;
    }
    Ok(disk)
}

pub(super) fn start(
    node: &Node,
    names: &StoreConfig,
    replication: Replication,
    disk: &OnDisk,
    electing: Option<&Electing>,
) -> Result<(ProcessHandle, Arc<StoreWatch>), NotStarted> {
    let stand = electing.map(|electing| in_etcd::stand(electing, names, &replication));
    stores::start_standing(node, names, replication, Arc::clone(disk), stand)
}

pub(super) fn say_unserved(disk: &OnDisk, served: &[StoreConfig]) {
    stores::say_unserved(disk, served.iter());
}

pub(super) fn close_at_end(node: &Node, disk: &OnDisk) {
    node.close_at_end(Arc::new(AtEnd(Arc::clone(disk))));
}

/// A disk, as a node that ends sees it.
struct AtEnd(Arc<Disk>);

impl Resource for AtEnd {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        // What could not be written was said to its callers.
        Engine::settle(&self.0, Box::new(|_| done()));
    }

    fn close(&self) {
        Engine::close(&self.0);
    }
}
