//! The folder that stores are kept in.

use std::sync::Arc;

use super::in_etcd::{self, Electing};
use super::{DataConfig, StartError, StoreConfig};
use crate::Node;
use crate::kv::serve::{self, name_kept, serve_standing};
use crate::kv::{NotServed, Replication, ServedStore};
use crate::store::Disk;

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
) -> Result<ServedStore, NotServed> {
    let stand = electing.map(|electing| in_etcd::stand(electing, names, &replication));
    serve_standing(node, names.server_names(), replication, Arc::new(Arc::clone(disk)), stand)
}

/// Says which stores of the folder nobody can reach, since they have none of the names of those that are served.
pub(super) fn say_unserved(disk: &OnDisk, served: &[StoreConfig]) {
    let served: Vec<String> =
        served.iter().flat_map(StoreConfig::server_names).map(|name| name_kept(&name)).collect();
    for names in disk.stores() {
        if !names.iter().any(|name| served.contains(name)) {
            tracing::warn!("a store on disk is not served: --store {} would", names.join(","));
        }
    }
}

pub(super) fn close_at_end(node: &Node, disk: &OnDisk) {
    serve::close_at_end(node, Arc::new(Arc::clone(disk)));
}
