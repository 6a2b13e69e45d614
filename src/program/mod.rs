//! The program: stores on a node, with its page, its log and what a service manager is told.

pub(crate) mod http;
pub mod log;
pub(crate) mod service;
pub mod snapshot;
pub(crate) mod status;
pub(crate) mod stores;

pub use snapshot::Snapshot;
pub use status::STATUS_NAME;
