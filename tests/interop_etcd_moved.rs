//! Stores that move: from folders, memory and files into a real etcd, and from it.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

#[path = "interop_etcd_moved/backup.rs"]
mod backup;
#[path = "interop_etcd_moved/import.rs"]
mod import;
mod support;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kvnode::store::disk::{Part, read_backup};
use support::{EtcdCluster, KvNode};

/// What a kvnode says of each store of etcd that it begins to serve.
const LOADED: &str = "the store is loaded from etcd";

/// The flags for stores in this etcd.
fn in_etcd(cluster: &EtcdCluster) -> String {
    format!("--engine etcd --etcd {}", cluster.endpoints().join(","))
}

/// `kvnode` with these arguments: whether it succeeded, and what it said.
fn kvnode(args: &[&str]) -> (bool, String) {
    let output = Command::new(support::kvnode::program()).args(args).output().expect("it was built");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).expect("it is text"))
}

/// `kvnode` with these arguments, and the flags for this etcd.
fn at_etcd(cluster: &EtcdCluster, args: &[&str]) -> (bool, String) {
    let endpoints = cluster.endpoints().join(",");
    kvnode(&[args, &["--etcd", &endpoints]].concat())
}

/// A node that has an end, with its store written to disk.
fn end(node: KvNode) {
    assert!(node.terminate().status.success());
}

/// Of each entry its value, when it ends, and what was noticed in it.
type Entries = BTreeMap<Vec<u8>, (Vec<u8>, u64, u8)>;

/// The stores of a backup: the names, the names of notes, and the entries.
fn stores(file: &Path) -> Vec<(Vec<String>, Vec<String>, Entries)> {
    let mut stores: Vec<(Vec<String>, Vec<String>, Entries)> = Vec::new();
    let mut show = |part: Part<'_>| {
        match part {
            Part::Store(names, _) => stores.push((names.to_vec(), Vec::new(), Entries::new())),
            Part::Note(name, _) => stores.last_mut().unwrap().1.push(name.to_owned()),
            Part::Entry(key, value) => {
                let of_it = (value.bytes.to_vec(), value.deadline, value.traits.bits());
                let before = stores.last_mut().unwrap().2.insert(key.to_vec(), of_it);
                assert!(before.is_none(), "no entry comes twice");
            }
        }
        Ok(())
    };
    read_backup(file, &mut show, &mut |_, _| true).expect("it is whole");
    stores
}

/// A folder goes into etcd and back.
#[test]
fn the_same_on_each_other_etcd() {
    support::etcd_versions::run_on_others(
        &["backup::stores_go_from_a_folder_into_etcd_and_back_entry_by_entry"],
        1,
    );
}
