//! A program that is built without stores in etcd: settings that want one are refused with that reason.

use std::convert::Infallible;
use std::sync::Arc;

use super::{ElectConfig, EtcdConfig, StartError, Store, StoreConfig, Tell};
use crate::Node;
use crate::kv::Replication;
use crate::kv::serve::Stand;
use crate::store::EtcdFigures;

pub(super) type InEtcd = Infallible;

pub(super) const fn connect(_etcd: &EtcdConfig, _is_ordered: bool) -> Result<InEtcd, StartError> {
    Err(StartError::WithoutEtcd)
}

pub(super) type Electing = Infallible;

pub(super) const fn electing(_config: &ElectConfig) -> Result<Electing, StartError> {
    Err(StartError::ElectWithoutEtcd)
}

pub(super) fn stand<S>(electing: &Electing, _names: &StoreConfig, _replication: &Replication) -> Stand<S> {
    match *electing {}
}

pub(super) const fn leave_at_end(_node: &Node, electing: &Electing) {
    match *electing {}
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
