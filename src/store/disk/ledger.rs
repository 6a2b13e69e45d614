//! Which batches a folder must have, and whether it has them.

pub(super) mod chain;
pub(super) mod slots;
