//! The product: the requests of the key-value protocol, the server that answers them, and the functions of the Elixir
//! modules that speak it.

pub mod functions;
pub mod request;
pub mod server;
pub mod state;
mod status;

pub use functions::KeyValueFunctions;
pub use request::{Cast, Request};
pub use server::KeyValueServer;
pub use state::StateShape;
