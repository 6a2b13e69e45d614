//! A program that is built without stores in etcd: settings that want one are refused with that reason.

use std::convert::Infallible;
use std::sync::Arc;

use super::stores::Replication;
use super::{EtcdConfig, StartError, Store, Tell};
use crate::Node;
use crate::store::EtcdFigures;

pub(super) type InEtcd = Infallible;

pub(super) const fn connect(_etcd: &EtcdConfig, _is_ordered: bool) -> Result<InEtcd, StartError> {
    Err(StartError::WithoutEtcd)
}

pub(super) fn figures(etcd: &InEtcd) -> EtcdFigures {
    match *etcd {}
}

pub(super) fn begin(
    _node: &Arc<Node>,
    etcd: &InEtcd,
    _stores: Vec<(Arc<Store>, Replication)>,
    _tell: Tell,
) -> Result<(), StartError> {
    match *etcd {}
}
