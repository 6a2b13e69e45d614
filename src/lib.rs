//! **kvnode** joins an Erlang/Elixir cluster as a hidden node and serves a replicated key-value store to ordinary
//! `GenServer` callers.
//!
//! # The way of a call
//!
//! ```text
//! socket -> Inbound -> ControlMessage + payload -> Peer -> GenServer -> Store / Slave
//! socket <- Outbound <------------------ reply bytes, encoded once <------------'
//! ```
//!
//! A remote `GenServer.call` is three signals: MONITOR_P, the request, DEMONITOR_P. A connection's task reads what
//! the socket has, delivers each complete signal by a plain function call, carries out the effects, and writes all
//! answers at once. Keys and values stay encoded bytes all the way.
//!
//! # The map, in the data's order
//!
//! - [`etf`]: the external term format: checked slices of received bytes, a writer, and serde between terms and
//!   Rust types.
//! - [`dist`]: the distribution protocol without I/O: handshake, frames, control messages, ticks.
//! - [`process`]: the addressed processes: registry, `GenServer`, monitors and links, spawn requests, `net_kernel`.
//! - [`kv`]: the key-value protocol's requests, and the server that answers them.
//! - [`store`]: encoded key to encoded value.
//! - [`replica`]: what a primary keeps for each slave.
//! - [`epmd`]: client and daemon.
//! - [`node`]: the shell: sockets, tasks, clock.
//! - [`config`]: every limit, interval and default.
//! - [`cli`]: what a person types and reads.
//!
//! # Invariants
//!
//! 1. Only `node`, `epmd` and `cli` name smol, sockets, files or the clock; below them nothing is `async`. A test
//!    holds this and the arrows between the layers (`tests/layers.rs`).
//! 2. A [`etf::TermView`] is one complete, checked term. Untrusted bytes are walked in one place
//!    ([`etf::split`]), without a stack.
//! 3. A `get` builds no term tree and allocates nothing between [`dist::Inbound`] and [`dist::Outbound`].
//!    `tests/allocations.rs` counts. A large value is kept in the memory that it was received into, and written
//!    from there.
//! 4. Signals between two processes are handled in the order sent: inline, on the connection's task. A slave sees
//!    the writes of its primary in the order in which the store took them.
//! 5. Every buffer and table has a bound in [`config::Limits`]; what happens at it is written there.
//! 6. A peer can make us close its own connection: never another's, never the node.
//! 7. Before a peer has proved the cookie it has no name here.
//!
//! # Where building showed another way than the design
//!
//! - The handshake is ours ([`dist::handshake`]), as a pure state machine; erl_dist's is the tests' second opinion.
//!   erl_dist's client never sends its answer to `alive` and its server never reads one, it reads a packet in many
//!   small reads without a bound, and compares digests in variable time. Its epmd client is used.
//! - eetf is a test oracle only. The cold paths needed so few terms that the walker and the writer serve them too,
//!   and no received byte ever meets a recursive decoder. There is no `etf/owned`.
//! - Only bytes that are found are walked: what is sent to a process that does not exist is not looked at.
//! - A busy connection leaves the executor for a thread of its own, which looks at its socket for a short while
//!   before it parks (`node/dedicated.rs` says why, `scripts/bench` what it is worth), and comes back when it is
//!   quiet.
//! - The first ping of a node is answered once our global names are known there ([`process::net_kernel`]): what is
//!   typed next finds them.
//! - A pid has one name in `global`, so a store with several global names has a pid for each.
//! - A slave's writes wait in a queue of its own, filled under the store's order of writes and emptied by the
//!   shell ([`replica::Slave::take`]), instead of going out as effects: effects of two connections are carried
//!   out in any order, and a slave must not see them so.

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
