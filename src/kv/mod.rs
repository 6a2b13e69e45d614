//! The product: the requests of the key-value protocol, the server that answers them, and the functions of the Elixir
//! modules that speak it.

mod confirm;
pub mod downstream;
pub mod dropped;
pub mod figures;
pub mod follow;
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
pub mod slave_feed;
pub mod slaves;
mod source;
pub mod state;
mod status;
mod write;

pub use downstream::Downstreams;
pub use dropped::NewFile;
pub use follow::{Follow, FollowSlave, Offer, SlaveAdded};
pub use functions::KeyValueFunctions;
pub use request::{Cast, FromPrimary, Hello, Request};
pub use server::{ConfirmConfig, KeyValueServer};
pub use slave_feed::SlaveFeed;
pub use state::StateShape;
