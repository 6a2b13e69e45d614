//! The product: the requests of the key-value protocol, the server that answers them, and the functions of the Elixir
//! modules that speak it.

mod confirm;
pub mod dropped;
mod follower;
mod following;
pub mod functions;
mod kept;
mod notes;
mod order;
mod position;
mod promotion;
pub mod request;
pub mod server;
pub mod slaves;
mod source;
pub mod state;
mod status;

pub use dropped::NewFile;
pub use functions::KeyValueFunctions;
pub use request::{Cast, FromPrimary, Hello, Request};
pub use server::{ConfirmConfig, KeyValueServer};
pub use state::StateShape;
