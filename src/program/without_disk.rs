//! A program that is built without stores on disk: settings that want one are refused with that reason.

use std::convert::Infallible;

use super::in_etcd::Electing;
use super::{DataConfig, StartError, StoreConfig};
use crate::Node;
use crate::kv::{NotServed, Replication, ServedStore};

pub(super) type OnDisk = Infallible;

pub(super) const fn open(_data: &DataConfig, _memory_bytes_max: u64) -> Result<OnDisk, StartError> {
    Err(StartError::WithoutDisk)
}

pub(super) fn start(
    _node: &Node,
    _names: &StoreConfig,
    _replication: Replication,
    disk: &OnDisk,
    _electing: Option<&Electing>,
) -> Result<ServedStore, NotServed> {
    match *disk {}
}

pub(super) const fn say_unserved(disk: &OnDisk, _served: &[StoreConfig]) {
    match *disk {}
}

pub(super) const fn close_at_end(_node: &Node, disk: &OnDisk) {
    match *disk {}
}
