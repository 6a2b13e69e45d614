//! The distribution protocol (erl_dist_protocol) without its sockets: pure functions and state, bytes in and
//! bytes out.
//!
//! [`handshake`] sets a connection up; after it [`Inbound`] finds frames in what was read, [`control`] reads
//! their control messages, [`Outbound`] writes those of ours, [`Outflow`] orders what leaves, at the [`Pace`] of the link,
//! and [`Ticker`] watches that the peer is alive.

#![warn(clippy::indexing_slicing)]

pub mod alias_form;
pub mod control;
pub mod cookie;
pub mod flags;
pub mod frame;
pub mod handshake;
pub mod inbound;
pub mod node_at;
pub mod node_name;
pub mod node_pattern;
pub mod outbound;
pub mod outflow;
pub mod pace;
pub mod server_ref;
pub mod tick;

use std::sync::Arc;

pub use alias_form::AliasForm;
pub use control::ControlMessage;
pub use cookie::Cookie;
pub use flags::DistributionFlags;
pub use frame::FrameForm;
pub use inbound::{Arrival, Bound, FrameError, Inbound, InboundLimits, Skipped, TooLarge};
pub use node_at::{NodeAt, NodeAtError};
pub use node_name::NodeName;
pub use node_pattern::{NodePattern, NodePatternError};
pub use outbound::{LARGE_BYTES, Outbound, Room};
pub use outflow::{Cut, Outflow};
pub use pace::Pace;
pub use server_ref::ServerRef;
pub use tick::{TickAction, Ticker};

use crate::etf::Pid;

/// A process on any node, as signals address it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RemoteProcess {
    /// By its pid.
    Pid(Pid),
    /// By the name under which it is registered on its node.
    Name {
        /// The registered name.
        name: Arc<str>,
        /// The full name of its node.
        node: Arc<str>,
    },
}

impl RemoteProcess {
    /// The node that it lives on.
    pub const fn node(&self) -> &Arc<str> {
        match self {
            Self::Pid(pid) => &pid.node,
            Self::Name { node, .. } => node,
        }
    }
}
