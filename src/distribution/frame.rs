//! The two forms that frames between connected nodes have (erl_dist_protocol, "Protocol between Connected Nodes").
//!
//! ```text
//! pass-through   length:32, 112, 131, control, 131, payload
//! dist header    length:32, 131, 68, 0, control, payload
//! first fragment length:32, 131, 69, sequence:64, fragment:64, 0, control, the payload's first bytes
//! more fragments length:32, 131, 70, sequence:64, fragment:64, more bytes
//! ```
//!
//! The distribution header (erl_ext_dist, "Distribution Header") is used where the atom cache or FRAGMENTS is in
//! force; we offer no atom cache, so its number of atom cache references is 0. The fragment number counts down to 1.
//! A sequence belongs to the sending process: fragments of several may be mixed, those of one come in order.

use super::DistributionFlags;
use crate::etf::tag::VERSION_MAGIC;

/// First byte of a pass-through frame.
pub const PASS_THROUGH: u8 = 112;
/// Second byte of a frame with a distribution header.
pub const DIST_HEADER: u8 = 68;
/// Second byte of a first fragment.
pub const DIST_FRAG_HEADER: u8 = 69;
/// Second byte of every further fragment.
pub const DIST_FRAG_CONT: u8 = 70;

/// Bytes before the control message of a first fragment, behind the length.
pub const FRAG_HEADER_BYTES: usize = 19;
/// Bytes before the contents of every further fragment, behind the length.
pub const FRAG_CONT_BYTES: usize = 18;

/// Which form the frames of a connection have: one for its whole life, the same in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FrameForm {
    /// Each frame is a message, and its terms have their version bytes.
    #[default]
    PassThrough,
    /// With a distribution header; large messages may come in fragments.
    DistHeader,
}

impl FrameForm {
    /// The form of a connection on which these flags are in force.
    pub const fn in_force(flags: DistributionFlags) -> Self {
        if flags.contains(DistributionFlags::FRAGMENTS) { Self::DistHeader } else { Self::PassThrough }
    }

    /// What stands before the control message.
    pub const fn head(self) -> &'static [u8] {
        match self {
            Self::PassThrough => &[PASS_THROUGH, VERSION_MAGIC],
            Self::DistHeader => &[VERSION_MAGIC, DIST_HEADER, 0],
        }
    }

    /// What stands before the payload.
    pub const fn payload_head(self) -> &'static [u8] {
        match self {
            Self::PassThrough => &[VERSION_MAGIC],
            Self::DistHeader => &[],
        }
    }
}
