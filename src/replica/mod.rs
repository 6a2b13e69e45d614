//! Replication: a primary's side of each of its slaves, and a slave's side of its primary.
//!
//! A pure core: state, input, outputs; time is an argument, no socket. [`Downstream`] is all that there
//! is of a slave: it says when that is to be looked for, watched, greeted and repaired, and the shell (`kv::downstream`) carries
//! that out; a feed takes what waits for it when its node can take it; the server (`kv`) queues writes and lends its store as a
//! [`Source`].
//!
//! An Elixir slave knows two casts and three calls. So everything is said with these, and one way serves every slave:
//!
//! - **Writes** are cast in the store's order, no more than a window ahead of what the slave has acknowledged.
//! - **Acknowledgements** are answers to `{:get, key}` with a key that nobody has: signals between two processes
//!   arrive in the order sent, so the answer says that all casts before it were handled.
//! - **A repair** sends the present value of each missed key, or its deletion. The keys come from what was not
//!   acknowledged and what was written meanwhile, or, past a bound, from a scan of the store. It runs beside the stream
//!   of writes and into the same queue: a key's value is read, and queued, under the store's order of writes, so
//!   that whatever is written before, meanwhile or after, the last message for a key has its last value. A slave's
//!   value of a key never gets older.
//! - **Keys that only the slave has** are found by reading its keys, before a scan, and are missed keys from then on.
//!
//! A kvnode's slave is sent the same log in a [`dialect`] of its own: its writes have the store's numbers, and a copy of the
//! whole store stands between two marks, so that it can be put aside until it is whole; its keys need not be read then. What
//! it acknowledges is a number: everything up to it is there. Its [`Lineage`] decides which
//! store may be the slave of which, and what a promotion changes.
//!
//! On that other side of the connection stands [`Upstream`]: whose writes a store takes, what it has of them, how it is promoted
//! and demoted. What is to be known of a store after a restart is one record, [`Membership`].

pub mod dialect;
pub mod downstream;
pub mod greeting;
pub mod lineage;
pub mod membership;
#[doc(hidden)]
pub mod planted;
pub mod source;
pub mod standing;
pub mod upstream;

pub use dialect::{CopyMark, Dialect};
pub use downstream::{Acknowledge, Downstream, Mark, Pushed, Taken};
pub use greeting::{GreetingAnswer, Hello, KnownSlave, Said};
pub use lineage::{Lineage, Refusal};
pub use membership::{Membership, Position, Settled, TermRole};
pub use source::{Present, PresentValue, ReplicaWrite, Source, SourceRead};
pub use standing::{PrimaryStanding, SlaveState, Standing, StandingKind};
pub use upstream::Upstream;

/// How a slave was named to `add_slave`.
pub use crate::distribution::ServerRef as SlaveName;
