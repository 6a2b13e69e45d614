//! The addressed processes: what signals from other nodes meet.
//!
//! [`Peer::handle`] takes one frame and delivers it by a plain function call, to a [`GenServer`] or to a table.
//! Nothing here is `async`, owns a socket or reads a clock: what has to happen elsewhere is an [`Effect`], carried
//! out by `node` once per batch, and what goes back to the same peer is written straight into its [`Outbound`].
//!
//! - [`registry`]: our processes, by pid and by name.
//! - [`gen_server`]: the behaviour, its callers and replies.
//! - [`peer`]: one connected node's monitors and links, and the delivery of its signals.
//! - [`effect`]: what a behaviour may ask for.
//! - [`waiters`]: what we wait for from other nodes: calls, monitors and spawn requests of ours.
//! - [`call_error`]: why a call of ours has no answer.
//! - [`rpc`]: the functions that other nodes may call here.
//! - [`system`]: system messages (`sys`).
//! - [`net_kernel`]: answers `Node.ping`.
//!
//! [`Outbound`]: crate::dist::Outbound

pub mod call_error;
pub mod effect;
mod exits;
pub mod gen_server;
mod message;
mod monitors;
pub mod net_kernel;
pub mod peer;
pub mod registry;
pub mod rpc;
pub mod system;
pub mod waiters;

pub use call_error::CallError;
pub use effect::{Dispatch, Effect, Effects, GlobalRegistration, OutgoingCall};
pub use gen_server::{Caller, GenServer, OwnedCaller};
pub use peer::{Peer, PeerError};
pub use registry::{Process, ProcessId, Registry};
pub use waiters::{Outcome, Waiters};
