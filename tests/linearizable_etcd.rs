//! Callers of one store in three etcds, by two processes that have it, while members of etcd and those processes are killed, stopped and cut
//! off: what they are answered is what one store would have answered that carries out one call after another, each between its start and
//! its end (tests/support/linear.rs judges that). A call that was answered by `:unknown` or by nothing may have been carried out, or
//! not; one that was answered by `:unavailable` was not.
//!
//! `native.rs` calls the engine itself, with threads; `nodes.rs` has BEAMs of two versions call two `kvnode --engine etcd`. A few rounds run with
//! all tests, and `scripts/linearize` runs 200, or as many as it is told (`KVNODE_LINEARIZABLE_ROUNDS`).
//!
//! With the feature `planted` rules of the engine are broken one by one, which has to be noticed (`planted.rs`).

#![cfg(feature = "etcd")]
#![allow(clippy::disallowed_methods, reason = "tests of real members live in real time")]
#![allow(clippy::print_stdout, reason = "what was judged is shown when a test fails, and by hand")]

#[path = "support/linear.rs"]
mod linear;
#[path = "linearizable_etcd/native.rs"]
mod native;
#[cfg(feature = "program")]
#[path = "linearizable_etcd/nodes.rs"]
mod nodes;
#[path = "linearizable_etcd/operations.rs"]
mod operations;
#[cfg(feature = "planted")]
#[path = "linearizable_etcd/planted.rs"]
mod planted;
mod support;

/// Rounds that are asked for by hand.
fn rounds() -> u64 {
    std::env::var("KVNODE_LINEARIZABLE_ROUNDS").map_or(200, |rounds| rounds.parse().expect("a number"))
}
