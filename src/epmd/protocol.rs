//! The protocol of epmd.
