//! Why a program could not be started.

use std::io;
use std::net::SocketAddr;

use super::config::{NotAtEtcd, NotElected};
use crate::node;
use crate::store::{OpenError, StoreError};

/// Why a node with stores could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The node could not.
    #[error("{0}")]
    Node(node::StartError),
    /// Its page could not be served at this address.
    #[error("--http {address}: cannot listen there: {error}; choose another port or address")]
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Two stores were to have the same name.
    #[error("two stores were given the name {0}; a name is one store's: see --store")]
    DuplicateName(String),
    /// More slaves than one store may have.
    #[error("more slaves than a store may have; see --slave")]
    TooManySlaves,
    /// The folder with its stores could not be opened.
    #[error("{0}")]
    Data(OpenError),
    /// Its stores are to be on disk, and the program was built without that.
    #[error(
        "--data-dir: this program was built without stores on disk: build kvnode with its feature disk, which it has by default"
    )]
    WithoutDisk,
    /// Its stores are to be in etcd, and the program was built without that.
    #[error(
        "--engine etcd: this program was built without stores in etcd: build kvnode with its feature etcd, which it has by default"
    )]
    WithoutEtcd,
    /// A setting means nothing for stores in etcd.
    #[error("{0}")]
    NotAtEtcd(NotAtEtcd),
    /// A client of etcd cannot be made of these settings.
    #[error("{flag}: {reason}")]
    EtcdSettings {
        /// Which of them is wrong.
        flag: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// Its primary is to be elected, and the program was built without etcd.
    #[error(
        "--elect: this program was built without etcd: build kvnode with its feature etcd, which it has by default"
    )]
    ElectWithoutEtcd,
    /// A setting means nothing, or is missing, where a primary is elected.
    #[error("{0}")]
    NotElected(NotElected),
    /// etcd refuses what its stores need.
    #[error("--engine etcd, the store {store}: {error}")]
    Etcd {
        /// The store, by its first name.
        store: String,
        /// What etcd says.
        error: OpenError,
    },
    /// It is to serve its page, and the program was built without that.
    #[error(
        "--http: this program was built without its page: build kvnode with its feature http, which it has by default"
    )]
    WithoutHttp,
    /// What a store keeps of its slaves could not be read.
    #[error("a store on disk: {0}; see `kvnode check`")]
    Store(StoreError),
}

impl From<node::StartError> for StartError {
    fn from(error: node::StartError) -> Self {
        Self::Node(error)
    }
}
