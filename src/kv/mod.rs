//! The product: the requests of the key-value protocol, the server that answers them, and the functions of the Elixir
//! modules that speak it.
//!
//! # The locks of a store, and their order
//!
//! A thread that holds one of these takes others from below it alone. Each has its rank (`ranked.rs`) in its type, and a debug
//! build panics where it is taken in another order. Nothing is awaited while one is held.
//!
//! | lock | what it is of | held while |
//! | --- | --- | --- |
//! | `Confirmations::settling` | which of two names of one process stays | a slave's machine ([`Downstream`](crate::replica::Downstream)) handles what settles that |
//! | `KeyValueServer::noting` | the note with the slaves' names | it is written: the last that is kept is of the last change |
//! | `KeyValueServer::follower` | how the store stands as a slave | a write of the primary is handed to the store; a copy takes the place of everything |
//! | `Confirmations::queue` | callers that wait for slaves to have their write | it is looked which slaves have it |
//! | `Confirmations::slaves` | the list of the slaves | a write is applied and queued for them |
//! | `Order::hold` | the order of writes | a write is applied (of a store that answers at once) and queued for slaves; what a repair sends is read and queued |
//! | `Order::held_back` | writes that wait for one with a lower number | they are put in or taken out |
//! | `Reads::values`, `Reads::parts` | what was read for repairs | it is looked up; neither is taken under the other |
//! | `KeyValueServer::dropped`, `offered` | pairs that are kept elsewhere; holders of its names | they are kept, or looked up: no other is taken meanwhile |
//!
//! What the store itself locks, and what a [`Slave`](crate::replica::Slave) does, comes after all of these, but for the last two
//! rows: a store may show a value under a lock of its own, and what is shown is kept in these. A store's completion may run
//! within the call that has asked for it, by the thread that holds what that call was made under: so completions of what is
//! asked under `follower` take locks below it alone.

mod at_slave;
mod confirm;
pub mod downstream;
pub mod dropped;
pub mod figures;
pub mod follow;
mod follower;
mod following;
pub mod functions;
mod kept;
pub mod load;
mod notes;
mod order;
mod position;
mod promoted;
mod promotion;
mod ranked;
pub mod request;
pub mod server;
pub mod slave_feed;
pub mod slaves;
mod source;
pub mod state;
mod status;
mod write;

pub use at_slave::{Forward, SlaveWrites};
pub use downstream::Downstreams;
pub use dropped::NewFile;
pub use follow::{Follow, FollowSlave, Offer, SlaveAdded};
pub use functions::KeyValueFunctions;
pub use request::{Cast, FromPrimary, Hello, Request};
pub use server::{ConfirmConfig, KeyValueServer};
pub use slave_feed::SlaveFeed;
pub use state::StateShape;
