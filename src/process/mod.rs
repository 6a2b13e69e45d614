//! The addressed processes: what signals from other nodes meet.
//!
//! [`Peer::handle`] takes one frame and delivers it by a plain function call, to a [`GenServer`] or to a table.
//! Nothing here is `async`, owns a socket or reads a clock: what has to happen elsewhere is an [`Effect`], carried
//! out by `node` once per batch, and what goes back to the same peer is written straight into its [`Outbound`].
//!
//! - `registry`: our processes, by pid and by name.
//! - `gen_server`: the behaviour, its callers and replies.
//! - `channel`: one connection without its socket, and what may wait for what.
//! - `figures`, [`latency`]: what is counted of servers.
//! - `mailbox`: where messages wait for a server that handles one after the other.
//! - `peer`: one connected node's monitors and links, and the delivery of its signals.
//! - `exits`: how a process ends, and how that is told.
//! - `effect`: what a behaviour may ask for.
//! - `feed`: streams to other nodes, at the pace of their connections.
//! - `waiters`: what we wait for from other nodes: calls, monitors and spawn requests of ours.
//! - `call_error`: why a call of ours has no answer.
//! - `rpc`: the functions that other nodes may call here.
//! - `system`: system messages (`sys`).
//! - `supervisor`: when what has ended is started again; `group`: what is started again with it.
//! - `group_leader`: where functions print that are called on other nodes.
//! - `net_kernel`: answers `Node.ping`, and is that group leader.
//! - `global_name_server`: the locks of `:global.set_lock` that name this node.
//!
//! [`Outbound`]: crate::distribution::Outbound

pub(crate) mod call_error;
// The modules that are public and hidden are one connection without its socket: tests, benches and fuzz targets step it
// from outside of this crate. A library user meets them through `Node`, `Context` and `Turn`.
#[doc(hidden)]
pub mod channel;
#[doc(hidden)]
pub mod effect;
#[doc(hidden)]
pub mod exits;
pub(crate) mod feed;
#[doc(hidden)]
pub mod figures;
pub(crate) mod gen_server;
pub(crate) mod global_name_server;
pub(crate) mod group;
pub(crate) mod group_leader;
mod held;
#[doc(hidden)]
pub mod latency;
pub(crate) mod mailbox;
mod message;
mod monitors;
#[doc(hidden)]
pub mod net_kernel;
#[doc(hidden)]
pub mod peer;
#[doc(hidden)]
pub mod registry;
#[doc(hidden)]
pub mod rpc;
pub(crate) mod supervisor;
pub(crate) mod system;
pub(crate) mod waiters;

pub use call_error::CallError;
pub use effect::{Dispatch, NoRoom, Turn};
#[doc(hidden)]
pub use effect::{Effect, GlobalRegistration, OutgoingCall, WakeRequest};
pub use feed::{FedNode, Feed, Feeding, More};
pub use gen_server::{Caller, ExitSignals, GenServer, OwnedCaller, SkippedMessage};
pub use group::Strategy;
pub use registry::RegisterError;
#[doc(hidden)]
pub use registry::{Process, ProcessId, Registry};
pub use supervisor::Restart;
#[doc(hidden)]
pub use system::StateRequest;
#[doc(hidden)]
pub use waiters::{Outcome, PendingCall};

// Hidden for the same reason.
#[doc(hidden)]
pub use {
    channel::{Channel, ChannelFault, ChannelLimits, Step},
    exits::Ended,
    held::Held,
    peer::{Peer, PeerError, PeerEvent},
    supervisor::Supervisor,
    waiters::{Unreached, Waiters},
};
