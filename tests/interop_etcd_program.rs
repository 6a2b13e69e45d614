//! `kvnode --engine etcd` with real etcds and BEAMs: several kvnodes serve one store, and start, serve and end as etcd comes and goes.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

#[path = "interop_etcd_program/begins.rs"]
mod begins;
#[path = "interop_etcd_program/doctor.rs"]
mod doctor;
#[path = "interop_etcd_program/faults.rs"]
mod faults;
#[path = "interop_etcd_program/flags.rs"]
mod flags;
#[path = "interop_etcd_program/history.rs"]
mod history;
#[path = "interop_etcd_program/reads.rs"]
mod reads;
#[path = "interop_etcd_program/roles.rs"]
mod roles;
#[path = "interop_etcd_program/serves.rs"]
mod serves;
mod support;

use support::{Epmd, EtcdCluster, KvNode};

/// The flags for stores in this etcd.
fn in_etcd(cluster: &EtcdCluster) -> String {
    format!("--engine etcd --etcd {}", cluster.endpoints().join(","))
}

/// A kvnode that serves one store: the one that has the global name `kv`, by a local name of its own.
#[track_caller]
fn serve(epmd: &Epmd, cluster: &EtcdCluster, name: &str, args: &str) -> KvNode {
    let node =
        KvNode::start(epmd, name, &format!("{} --store global:kv,local:{name} {args}", in_etcd(cluster)));
    node.wait_for_log(&[LOADED]);
    node
}

/// What a node says of each store of etcd that it begins to serve.
const LOADED: &str = "the store is loaded from etcd";

/// How a BEAM calls the store at a node.
fn call(node: &KvNode, request: &str) -> String {
    let local = node.name().split('@').next().unwrap_or_default();
    format!("GenServer.call({{:{local}, :\"{}\"}}, {request})", node.name())
}
