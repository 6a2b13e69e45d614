//! A node's life: what it is started with, its start and its end, and what it says of itself meanwhile.

pub mod builder;
pub mod cookie_file;
pub(in crate::node) mod figures;
pub mod functions;
pub mod run;
pub mod snapshot;
pub(in crate::node) mod stop;
pub(in crate::node) mod threads;
pub(in crate::node) mod watchdog;
pub(in crate::node) mod workers;
