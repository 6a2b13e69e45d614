//! The distribution protocol (erl_dist_protocol) without its sockets.

pub mod cookie;
pub mod flags;
pub mod handshake;
pub mod node_name;

pub use cookie::Cookie;
pub use flags::DistributionFlags;
pub use node_name::NodeName;
