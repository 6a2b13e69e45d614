//! Terms in Elixir's syntax, for people: log lines, the command line, error messages.
//!
//! Printing only. Nothing on the way of a call uses it: a term that is answered or stored stays bytes.

mod number;
mod print;
mod quote;

pub use print::{InspectLimits, inspect};
