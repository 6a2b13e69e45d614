//! Why a program could not be started.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use crate::node;
use crate::store::{OpenError, StoreError};

/// Why a node with stores could not be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The node could not.
    Node(node::StartError),
    /// Its page could not be served at this address.
    Http {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        error: io::Error,
    },
    /// Two stores were to have the same name.
    DuplicateName(String),
    /// More slaves than one store may have.
    TooManySlaves,
    /// The folder with its stores could not be opened.
    Data(OpenError),
    /// Its stores are to be on disk, and the program was built without that.
    WithoutDisk,
    /// It is to serve its page, and the program was built without that.
    WithoutHttp,
    /// What a store keeps of its slaves could not be read.
    Store(StoreError),
}

impl From<node::StartError> for StartError {
    fn from(error: node::StartError) -> Self {
        Self::Node(error)
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(error) => error.fmt(f),
            Self::Http { address, error } => {
                write!(f, "--http {address}: cannot listen there: {error}; choose another port or address")
            }
            Self::DuplicateName(name) => {
                write!(f, "two stores were given the name {name}; a name is one store's: see --store")
            }
            Self::TooManySlaves => f.write_str("more slaves than a store may have; see --slave"),
            Self::Data(error) => error.fmt(f),
            Self::WithoutDisk => f.write_str(
                "--data-dir: this program was built without stores on disk: build kvnode with its feature disk, which it has by default",
            ),
            Self::WithoutHttp => f.write_str(
                "--http: this program was built without its page: build kvnode with its feature http, which it has by default",
            ),
            Self::Store(error) => write!(f, "a store on disk: {error}; see `kvnode check`"),
        }
    }
}

impl std::error::Error for StartError {}
