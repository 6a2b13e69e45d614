//! A hidden Erlang node that serves a replicated key-value store to ordinary `GenServer` callers.

pub mod cli;
pub mod config;
pub mod dist;
pub mod epmd;
pub mod etf;
pub mod node;
