//! The product: the requests of the key-value protocol, and the server that answers them.

pub mod request;
pub mod server;
pub mod state;

pub use request::{Cast, Request};
pub use server::KeyValueServer;
pub use state::StateShape;
