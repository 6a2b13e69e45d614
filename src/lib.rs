//! **kvnode** makes a Rust program a node of an Erlang/Elixir cluster: its servers are called, cast to, monitored and
//! named as `GenServer`s are, from any BEAM, and call those of others.
//!
//! # A counter
//!
//! ```toml
//! [dependencies]
//! kvnode = { path = "../kvnode", default-features = false, features = ["tls"] } # a checkout of its repository
//! serde = { version = "1", features = ["derive"] } # for the requests
//! tracing-subscriber = "0.3" # prints what the node has to say
//! ```
//!
//! ```no_run
#![doc = include_str!("../examples/counter.rs")]
//! ```
//!
//! `cargo run` it, with the cookie of your cluster in `~/.erlang.cookie` (the first `iex --sname` makes one). Then, in any iex of
//! this machine:
//!
//! ```text
//! $ iex --sname iex
//! iex(iex@myhost)> Node.ping(:counter@myhost)
//! :pong
//! iex(iex@myhost)> GenServer.cast({:global, :counter}, {:add, 42})
//! :ok
//! iex(iex@myhost)> GenServer.call({:global, :counter}, :value)
//! 42
//! ```
//!
//! It runs until it crashes; [`Node::supervise`] starts one that is started again. It is a *hidden* node (as `erl -hidden` is), needs no
//! Erlang on its machine, and brings an epmd of its own to a machine without one.
//!
//! # Where it does not work
//!
//! | what you see | why, and what to do |
//! | --- | --- |
//! | `start` fails: `no epmd answers`, `the name "counter" is taken`, `the cookie file …` | the error says what to do; [`StartError`] has all of them |
//! | `Node.ping` gives `:pang`, and the log here has `its cookie is not ours` | `Node.get_cookie()` in iex tells its own, [`NodeBuilder::cookie`] takes it |
//! | `:pang`, and the log here says nothing | another name: the host is that of `node()` in iex, and `iex` alone, without `--sname`, is no node |
//! | the same, and iex says `System running to use fully qualified hostnames` | `iex --name iex@host.example.org` has a long name, and so must this node: `Node::builder("counter@host.example.org")` |
//! | `:pang` between two machines | both need each other's epmd (port 4369) and distribution port ([`NodeBuilder::dist_port`] gives a fixed one) |
//! | a call of `{:global, :counter}` exits with `:noproc` | `Node.ping` first: a BEAM knows the global names of nodes that it is connected to. Or say [`NodeBuilder::connect`] here |
//! | a call exits with `{:bad_call, request}` | the type `Call` has no such request: the log says what it wanted and met |
//!
//! # Where to go from here
//!
//! | to | see |
//! | --- | --- |
//! | start a node, and end it | [`Node::builder`], [`Node::stop`] |
//! | write a server with a state of its own, that may wait | [`Server`], started by [`Node::serve`] |
//! | set timers, monitor processes, call others from a server | [`Context`], which has two complete servers to read |
//! | answer later, know the caller | [`ReplyTo`] |
//! | have something done beside a server, that waits or blocks | [`Context::spawn`], [`Context::unblock`] |
//! | tell a server something from the program itself | [`ServerHandle`], [`Node::serve_own`] |
//! | have a request name the type of its answer | [`Ask`] |
//! | name processes, stop them | [`ProcessHandle`] |
//! | hear whether a name in `:global` is had, or by which other process | [`GlobalName`] |
//! | hear of nodes that come and go | [`Node::events`], [`Context::watch_nodes`] |
//! | receive messages without a server, from `main` | [`Node::mailbox`], [`Inbox`] |
//! | say whom a message goes to | [`ServerRef`] |
//! | call and cast from outside of servers, `:erpc` | [`Node::call`], [`Client`] |
//! | call the servers of one name on many nodes | [`Client::multi_call`], [`Client::abcast`] |
//! | let any BEAM call a Rust function by `:erpc` and `:rpc` | [`Node::module`] |
//! | read and write a store with the types of its keys and values | [`Node::store`], [`Handle`] |
//! | be told of each change of a store | [`Handle::watch`] |
//! | serve a store, of an engine of your own too | [`kv::serve()`], [`store`] |
//! | read and write terms as Rust types | [`etf::convert`], [`etf::OwnedTerm`], [`etf::Atom`], [`etf::ElixirStruct`] |
//! | have times in milliseconds, `:undefined`, and bytes as binaries | [`etf::with`] |
//! | read whole programs | the folder `examples`, with what to type beside each |
//! | come from erl_rpc or erl_dist | docs/coming-from.md: the same programs, before and after |
//! | await tokio's timers and sockets in a server, and libraries that use them | the feature `tokio`: `NodeBuilder::tokio` |
//! | do in a server what blocks its thread | [`unblock`], [`NodeBuilder::threads`] |
//! | keep the terms of code that was written for eetf and erl_rpc | the feature `eetf`: `kvnode::etf::tree` |
//! | have a server started again when it has ended | [`Node::supervise`], and with those that need it [`Node::supervise_group`] |
//! | test a server without a cluster, on a clock of the test's | [`mod@test`] |
//! | show a server's state to `:sys` and observer | [`Server::state`] |
//! | write a server that answers without a mailbox, on the connection's own thread | [`GenServer`] |
//! | stream to a process at the pace of its node | [`process::Feed`] |
//! | see what a node does and holds, and how each server does | [`Node::snapshot`], [`node::ServerSnapshot`], `tracing` spans of the target `kvnode::server` |
//! | bound what peers may use | [`config::Limits`] |
//! | keep a store in etcd, and serve it from several nodes | the feature `etcd`: `kvnode::store::EtcdEngine` |
//! | speak TLS with other nodes | [`config::TlsConfig`], [`NodeBuilder::tls`] |
//!
//! Futures of this crate run on any executor, or by [`block_on`]: a node brings threads of its own. It logs through
//! `tracing`, and installs neither a subscriber nor signal handlers. It is a program too, made of this library, that serves a
//! replicated key-value store (`kvnode --help`).
//!
//! What these pages show is released to users. The crate has more that is public, for its program and its tests; it is not shown
//! here, and may change with any release.
//!
//! For those who read or change the code there is docs/architecture.md: the way of a call, the map, the invariants, and where building
//! showed another way than the design. A change that goes such a way says why there.

#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
mod clock;
pub mod config;
pub mod distribution;
#[cfg(feature = "etcd")]
#[doc(hidden)]
pub mod elect;
#[doc(hidden)]
pub mod epmd;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod etf;
pub mod handle;
pub mod kv;
mod log;
pub mod node;
pub mod process;
#[doc(hidden)]
pub mod program;
#[doc(hidden)]
pub mod replica;
pub mod store;
mod within;

pub use config::ServerName;
pub use distribution::ServerRef;
pub use handle::Handle;
#[doc(inline)]
pub use node::test;
pub use node::{
    Ask, Client, ConnectedNode, Context, Down, GlobalName, Inbox, Mail, MonitorRef, Never, Node, NodeBuilder,
    NodeEvent, NodeEvents, NotNamed, NotReplied, NotTold, PeerDown, ProcessHandle, ReceiveError,
    Registration, ReplyTo, Server, ServerHandle, StartError, SuperviseGroup, SupervisedGroup, TaskRef,
    TimerRef, block_on, unblock,
};
pub use process::{CallError, Caller, GenServer, OwnedCaller, Restart, SkippedMessage, Strategy, Turn};
pub use within::within;
