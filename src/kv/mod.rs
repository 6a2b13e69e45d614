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
//! | `Confirmations::settling` | which of two names of one process stays | a slave's machine is handed what settles that |
//! | `KeyValueServer::turns` | whose writes are taken | a write of the primary is handed to a store that answers later; that changes; a copy takes the place of everything; some of what a copy has not brought is deleted |
//! | `KeyValueServer::noting` | what the store keeps of itself | it is changed and written: the last that is kept is of the last change |
//! | `UpstreamEntry::machine` | how the store stands as a slave | an input is handled; a write of the primary is done by a store that answers at once |
//! | `UpstreamEntry::aside` | a copy that is put aside | a write is put there |
//! | `Confirmations::queue` | callers that wait for slaves to have their write | it is looked which slaves have it |
//! | `Confirmations::slaves` | the list of the slaves | a write is applied and queued for them |
//! | `Order::hold` | the order of writes | a write is applied (of a store that answers at once) and queued for slaves; what a repair sends is read and queued |
//! | `SlaveEntry::machine` | all that there is of one slave, its [`Downstream`](crate::replica::Downstream) | something is handed in, a write is queued, what waits is taken; a repair reads and queues. Never two at once |
//! | `Order::held_back` | writes that wait for one with a lower number | they are put in or taken out |
//! | `Watches::state` | the watchers, and the backlog that they read | a write is told of; a connection takes what there is for its watchers; a watch begins or ends |
//! | `Reads::values`, `Reads::parts` | what was read for repairs | it is looked up; neither is taken under the other |
//! | `KeyValueServer::dropped`, `offered`, `expiry`, `Holding::holder`, `UpstreamEntry::asker`, `Counting::slaves`, `Election::figures` | pairs that are kept elsewhere; holders of its names; whether keys that have ended are being removed; the process that holds the store; a primary that waits for an answer; the slaves that an election counts; how that stands | they are kept, or looked up: no other is taken meanwhile |
//!
//! What the store itself locks comes after all of these, but for the last two rows: a store may show a value under a lock of its
//! own, and what is shown is kept in these. A store's completion may run within the call that has asked for it, by the thread
//! that holds what that call was made under: so completions of what is asked under `turns` or `noting` take locks below these
//! alone. No store that answers later is asked for anything under `UpstreamEntry::machine`: its own thread takes that lock to tell
//! what became of a write.
//!
//! # Requests
//!
//! What is read of a call stands in [`request`]. The page of [`requests`] says how one more is added: in two files.

mod at_slave;
mod backup;
mod clock;
mod confirm;
#[doc(hidden)]
pub mod downstream;
#[doc(hidden)]
pub mod dropped;
#[doc(hidden)]
pub mod election;
mod expiry;
#[doc(hidden)]
pub mod figures;
#[doc(hidden)]
pub mod follow;
#[doc(hidden)]
pub mod functions;
mod handed;
mod holding;
#[doc(hidden)]
pub mod load;
mod notes;
mod operations;
mod order;
mod others;
mod ranked;
#[doc(hidden)]
pub mod reason;
#[doc(hidden)]
pub mod request;
#[doc(hidden)]
pub mod requests;
pub mod serve;
#[doc(hidden)]
pub mod server;
#[doc(hidden)]
pub mod slaves;
mod source;
#[doc(hidden)]
pub mod state;
mod status;
mod upstream;
mod watch;
mod write;

pub use at_slave::{Forward, SlaveWrites};
pub use confirm::ConfirmConfig;
pub use requests::Consistency;
#[doc(hidden)]
pub use serve::close_at_end;
pub use serve::{NotServed, Replication, ServedStore, serve};

// For the tests and the program, in no release's promise.
#[doc(hidden)]
pub use downstream::{Downstreams, Polled, SlaveEntry};
#[doc(hidden)]
pub use dropped::NewFile;
#[doc(hidden)]
pub use election::{ElectedSlave, ElectionFigures, ElectionNews, ElectionState};
#[doc(hidden)]
pub use follow::{Follow, FollowSlave, Offer, SlaveAdded, Work};
#[doc(hidden)]
pub use functions::{DialectFunctions, KeyValueFunctions};
#[doc(hidden)]
pub use request::{Cast, FromPrimary, Hello, Request};
#[doc(hidden)]
pub use server::KeyValueServer;
#[doc(hidden)]
pub use state::StateShape;
#[doc(hidden)]
pub use watch::WATCHERS_MAX;
