//! The distribution protocol (erl_dist_protocol) without its sockets: pure functions and state, bytes in and
//! bytes out.
//!
//! `handshake` sets a connection up; after it `Inbound` finds frames in what was read, `control` reads their control
//! messages, [`Outbound`] writes those of ours, `Outflow` orders what leaves, at the `Pace` of the link, and `Ticker`
//! watches that the peer is alive. A library user meets names, cookies, flags, and where a message goes ([`ServerRef`]).

#![warn(clippy::indexing_slicing)]

pub(crate) mod alias_form;
// The modules that are public and hidden step the protocol without sockets: for tests, benches and fuzz targets, which do
// that from outside of this crate, and for the command line. A library user is given connections, not frames.
#[doc(hidden)]
pub mod control;
#[doc(hidden)]
pub mod cookie;
pub(crate) mod flags;
pub(crate) mod frame;
#[doc(hidden)]
pub mod handshake;
#[doc(hidden)]
pub mod inbound;
#[doc(hidden)]
pub mod node_at;
#[doc(hidden)]
pub mod node_name;
pub(crate) mod node_pattern;
pub(crate) mod outbound;
pub(crate) mod outflow;
pub(crate) mod pace;
pub(crate) mod server_ref;
pub(crate) mod tick;

use std::sync::Arc;

pub use cookie::{Cookie, CookieError};
pub use inbound::{Bound, TooLarge};
pub use node_at::{NodeAt, NodeAtError};
pub use node_name::{NameKind, NodeName, NodeNameError};
pub use node_pattern::{NodePattern, NodePatternError};
pub use server_ref::ServerRef;

// Hidden for the same reason.
#[doc(hidden)]
pub use {
    alias_form::AliasForm,
    control::ControlMessage,
    flags::DistributionFlags,
    frame::FrameForm,
    inbound::{Arrival, FrameError, Inbound, InboundLimits, Skipped},
    outbound::{LARGE_BYTES, Outbound, Room},
    outflow::{Cut, Outflow},
    pace::Pace,
    tick::{TickAction, Ticker},
};

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
