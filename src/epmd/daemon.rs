//! Our own epmd.
