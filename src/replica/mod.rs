//! Replication: what a primary keeps for each of its slaves.
//!
//! A pure core: state, input, outputs; no clock, no socket. The shell (`node`) finds a slave, watches it, and
//! takes what waits for it when its node can take it.

pub mod slave;

pub use slave::{Pushed, ReplicaWrite, Slave, SlaveName, SlaveState};
