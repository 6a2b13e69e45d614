//! Canonical keys.
