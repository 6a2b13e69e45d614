//! The folder that stores are kept in.

use std::sync::Arc;

use super::stores::{self, Keep};
use super::{DataConfig, StartError, StoreConfig};
use crate::Node;
use crate::node::Resource;
use crate::store::Disk;

pub(super) type OnDisk = Arc<Disk>;

pub(super) fn open(data: &DataConfig, memory_bytes_max: u64) -> Result<OnDisk, StartError> {
    let disk = Disk::open(&data.dir, data.sync, memory_bytes_max).map_err(StartError::Data)?;
    if let Some(dir) = &data.backup_dir {
        disk.allow_backups(dir).map_err(StartError::Data)?;
    }
    Ok(disk)
}

pub(super) fn keep(disk: &OnDisk) -> Keep {
    Keep::Disk(Arc::clone(disk))
}

pub(super) fn say_unserved(disk: &OnDisk, served: &[StoreConfig]) {
    stores::say_unserved(disk, served.iter());
}

pub(super) fn close_at_end(node: &Node, disk: OnDisk) {
    node.close_at_end(Arc::new(AtEnd(disk)));
}

/// A disk, as a node that ends sees it.
struct AtEnd(Arc<Disk>);

impl Resource for AtEnd {
    fn settle(&self, done: Box<dyn FnOnce() + Send>) {
        // What could not be written was said to its callers.
        self.0.settled(|_| done());
    }

    fn close(&self) {
        self.0.close();
    }
}
