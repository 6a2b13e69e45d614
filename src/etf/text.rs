//! Terms in Elixir's syntax, for people: log lines, the command line, error messages.
//!
//! One printer, [`inspect`], and one parser, [`parse`]: what one writes the other reads as the same term. Nothing on
//! the way of a call uses them: a term that is answered or stored stays bytes.

mod number;
mod parse;
mod print;
mod quote;

pub use parse::{NodeIdentity, ParseError, ParseProblem, parse};
pub use print::{InspectLimits, inspect};
