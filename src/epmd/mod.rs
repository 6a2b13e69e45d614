//! The Erlang Port Mapper Daemon (erl_dist_protocol, "EPMD Protocol"): client and daemon.
//!
//! Nodes register the port that they listen on with the epmd of their machine, and ask the epmd of another machine for
//! the ports of its nodes. `client` asks, `start` sees to it that there is one to ask, `daemon` is our own for machines
//! without Erlang, with `protocol` as its core without sockets. `environment` reads Erlang's variables. `host` knows the
//! names of this host, and `resolve` finds the addresses of any, for clusters without epmd too.

// Public and hidden: what the command line has of them, and tests and fuzz targets. A library user's node registers itself
// and finds others; what is re-exported below is what its errors have in them, and how a node is looked up.
#[doc(hidden)]
pub mod client;
#[doc(hidden)]
pub mod daemon;
#[cfg(feature = "cli")]
pub(crate) mod detach;
#[doc(hidden)]
pub mod environment;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod protocol;
#[doc(hidden)]
pub mod resolve;
mod served;
#[doc(hidden)]
pub mod start;

pub use client::{EpmdError, NodeAddress, Registration, lookup, names, register};
pub use environment::EnvironmentError;
pub use host::HostError;
pub use start::{EpmdStart, EpmdStarter, ensure};
