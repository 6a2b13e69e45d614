//! kvnodes as each other's slaves.

#![cfg(feature = "program")]

#[path = "interop_replica_kvnode/cleared.rs"]
mod cleared;
#[path = "interop_replica_kvnode/copies.rs"]
mod copies;
#[path = "interop_replica_kvnode/promotion.rs"]
mod promotion;
#[path = "interop_replica_kvnode/reach.rs"]
mod reach;
mod support;
#[path = "interop_replica_kvnode/whole.rs"]
mod whole;
