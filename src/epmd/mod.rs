//! The Erlang Port Mapper Daemon (erl_dist_protocol, "EPMD Protocol"): client and daemon.
//!
//! Nodes register the port that they listen on with the epmd of their machine, and ask the epmd of another machine for
//! the ports of its nodes. [`client`] asks, [`start`] sees to it that there is one to ask, [`daemon`] is our own for
//! machines without Erlang, with [`protocol`] as its core without sockets. [`environment`] reads Erlang's variables.
//! [`host`] knows the names of this host, and [`resolve`](mod@resolve) finds the addresses of any, for clusters without epmd too.

pub mod client;
pub mod daemon;
pub mod detach;
pub mod environment;
pub mod host;
pub mod protocol;
pub mod resolve;
mod served;
pub mod start;

pub use client::{EpmdError, NodeAddress, Registration, lookup, names, register};
pub use start::{EpmdStart, ensure};
