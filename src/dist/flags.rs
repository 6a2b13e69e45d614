//! Distribution flags.

/// A set of distribution flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DistributionFlags(u64);

impl DistributionFlags {
    /// From the wire.
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// To the wire.
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` are in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}
