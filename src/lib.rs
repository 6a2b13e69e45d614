//! A hidden Erlang node that serves a replicated key-value store to ordinary `GenServer` callers.

pub mod cli;
pub mod config;
pub mod dist;
pub mod epmd;
pub mod etf;
pub mod kv;
pub mod node;
pub mod process;
pub mod replica;
pub mod store;
