//! Stores on disk, seen from a BEAM: what was answered is there after crashes, and what the disk refuses is said.

#![cfg(feature = "program")]
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::print_stdout, reason = "all of this is tests")]

#[path = "durable/backup.rs"]
mod backup;
#[path = "durable/clear.rs"]
mod clear;
#[path = "durable/crash.rs"]
mod crash;
#[path = "durable/faults.rs"]
mod faults;
#[path = "durable/large.rs"]
mod large;
#[path = "durable/replica.rs"]
mod replica;
mod support;
#[path = "durable/undo.rs"]
mod undo;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{Epmd, KvNode};

/// Builds a library to be preloaded, of tests/support.
fn library(source: &str, into: &Path) -> PathBuf {
    let library = into.join(source).with_extension("so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(source);
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
        .arg(&library)
        .arg(source)
        .arg("-ldl")
        .status();
    assert!(built.expect("cc is there").success());
    library
}

/// Runs a command of kvnode's that needs no node.
fn kvnode(args: &[&str]) -> (bool, String) {
    kvnode_in(Path::new("."), args)
}

/// The same in a folder.
fn kvnode_in(dir: &Path, args: &[&str]) -> (bool, String) {
    let ended = Command::new(support::kvnode::program()).args(args).current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    (ended.status.success(), said)
}

#[test]
fn a_folder_in_use_is_refused_with_the_pid_of_who_has_it() {
    let epmd = Epmd::start();
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--data-dir {}", dir.path().display());
    let first = KvNode::start(&epmd, "first", &args);
    let second = KvNode::run_to_end(&epmd, "second", &args);
    assert_eq!(second.status.code(), Some(1));
    assert!(second.stderr.contains(&format!("(pid {})", first.pid())), "{}", second.stderr);
}
