//! **kvnode** makes a Rust program a node of an Erlang/Elixir cluster: its servers are called, cast to, monitored and
//! named as `GenServer`s are, from any BEAM, and call those of others. It is a library, and a program made of it that
//! serves a replicated key-value store (`kvnode --help`).
//!
//! The program joins as a *hidden* node (as `erl -hidden` does). It needs no Erlang on its machine; where
//! the cluster has epmd, kvnode brings its own to a machine without one.
//!
//! # A counter
//!
//! ```no_run
#![doc = include_str!("../examples/counter.rs")]
//! ```
//!
//! With kvnode and `serde` (its feature `derive`) among the dependencies and the cookie of your cluster in
//! `~/.erlang.cookie`, run it. Then, in any iex of this machine:
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
//! It runs until it crashes; [`Node::supervise`] starts one that is started again.
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
//! | keep the terms of code that was written for eetf and erl_rpc | the feature `eetf`: `kvnode::etf::eetf` |
//! | await tokio's timers and sockets in a server, and libraries that use them | the feature `tokio`: `NodeBuilder::tokio` |
//! | do in a server what blocks its thread | [`unblock`], [`NodeBuilder::threads`] |
//! | keep the terms of code that was written for eetf and erl_rpc | the feature `eetf`: `kvnode::etf::tree` |
//! | have a server started again when it has ended | [`Node::supervise`] |
//! | show a server's state to `:sys` and observer | [`Server::state`] |
//! | write a server that answers without a mailbox, on the connection's own thread | [`GenServer`] |
//! | stream to a process at the pace of its node | [`process::Feed`] |
//! | see what a node does and holds | [`Node::snapshot`] |
//! | bound what peers may use | [`config::Limits`] |
//! | read, write and watch an etcd | the feature `etcd`: `kvnode::etcd` |
//! | keep a store in etcd, and serve it from several nodes | the feature `etcd`: `kvnode::store::EtcdEngine` |
//! | speak TLS with other nodes | [`config::TlsConfig`], [`NodeBuilder::tls`] |
//!
//! Futures of this crate run on any executor, or by [`block_on`]: a node brings threads of its own. It logs through
//! `tracing`, and installs neither a subscriber nor signal handlers.
//!
//! What follows is for those who read or change the code.
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
//! - [`distribution`]: the distribution protocol without I/O: handshake, frames, control messages, ticks.
//! - [`process`]: the addressed processes: registry, `GenServer`, monitors and links, exit signals, `sys`, supervisor,
//!   spawn requests, `net_kernel`.
//! - [`kv`]: the key-value protocol's requests, and the server that answers them; [`kv::downstream`] looks after its slaves,
//!   `kv::upstream` carries out what it does as a slave, and `kv::watch` tells watchers of each change.
//! - [`store`]: encoded key to encoded value: engines, stores, scans, notes, and what each engine has to hold.
//! - [`replica`]: a primary's side of each slave ([`replica::Downstream`]), the slave's side ([`replica::Upstream`]), and what is
//!   kept of both.
//! - [`epmd`]: client and daemon, and the addresses of hosts.
//! - [`node`]: the shell: sockets, tasks, clock; the builder, and servers with a mailbox.
//! - [`handle`]: a store as its Rust callers see it, with the types of their keys and values.
//! - `etcd`: a client of etcd, which knows nothing of the others. [`store`] uses it, in `store::etcd` alone.
//! - `elect`: which of the processes of one store holds its names, and which node of a replicated store is its primary
//!   (`elect::succession`), as values; `program` carries it out.
//! - [`program`]: the stores of a configuration on a node, with page, log, and what a service manager is told.
//! - [`config`]: every limit, interval and default that a user may want otherwise.
//! - [`cli`]: what a person types and reads.
//!
//! # Invariants
//!
//! 1. Only `node`, `epmd`, `program`, `cli`, [`kv::downstream`], `etcd::client`, `store::etcd::shell` and `within` name smol, sockets, files or the
//!    clock ([`store::disk`] names files, and has the thread that writes them; [`kv::serve`](mod@kv::serve) makes those for what a store drops); below them nothing is `async`. A test
//!    holds this and the arrows between the layers (`tests/layers.rs`).
//! 2. A [`etf::TermView`] is one complete, checked term. Untrusted bytes are walked in one place
//!    (`etf/split.rs`), without a stack.
//! 3. A `get` builds no term tree and allocates nothing between [`distribution::Inbound`] and [`distribution::Outbound`].
//!    `tests/allocations.rs` counts. A large value is kept in the memory that it was received into, and written
//!    from there.
//! 4. Signals between two processes are handled in the order sent: inline, on the connection's task (a [`Server`]'s are
//!    put into its mailbox there). A slave sees the writes of its primary in the order of the numbers that the store gives them, in whatever order
//!    they are done.
//! 5. Every buffer and table has a bound, in [`config::Limits`] or, where nobody would want another, beside it (the page of
//!    [`config`] says which); what happens at it is written there. No bound makes a connection stop reading.
//! 6. A peer can make us close its own connection: never another's, never the node.
//! 7. A process ends at once for every signal that comes after, whichever connection it comes by; its watchers and
//!    its supervisor are told afterwards. A panic in a server ends that process and nothing else.
//! 8. Before a peer has proved the cookie it has no name here.
//! 9. The key-value server, its replication and what starts both use nothing that others cannot: `tests/library_stores.rs`
//!    compiles their sources ([`kv`], with what starts stores, [`kv::serve()`]; and the small `log` and `within`) as part of another crate. [`process`] knows neither stores nor
//!    slaves. What replication streams by is a [`Feed`](process::Feed), and what looks after slaves ([`kv::downstream`]) are
//!    tasks that end with the store's process ([`ProcessHandle::spawn`]) and have a [`Client`].
//!
//! # Where building showed another way than the design
//!
//! - The handshake is ours ([`distribution::handshake`]), as a pure state machine; erl_dist's is the tests' second opinion.
//!   erl_dist's client never sends its answer to `alive` and its server never reads one, it reads a packet in many
//!   small reads without a bound, and compares digests in variable time. Its epmd client is used.
//! - eetf is the tests' oracle, and a type that users may have (the feature `eetf`): its tree is built from checked bytes,
//!   in bounds, and its codec is left out. The cold paths needed so few terms that the walker and the writer serve them
//!   too, and no received byte ever meets a recursive decoder. An [`etf::OwnedTerm`] is bytes, and no tree.
//! - Only bytes that are found are walked: what is sent to a process that does not exist is not looked at.
//! - Servers with a mailbox have threads of their own. On those of the connections two handlers that blocked cost a node its
//!   peers (`node/life/workers.rs`).
//! - A busy connection leaves the executor for a thread of its own, which looks at its socket for a short while
//!   before it parks (`node/link/dedicated.rs` says why, `scripts/bench` what it is worth), and comes back when it is
//!   quiet.
//! - Fragments are offered, without the atom cache: a BEAM then sends a large message in pieces that small calls pass
//!   by. Our own large messages leave in fragments on a link that is slow for them, and as one frame elsewhere
//!   (`distribution::pace`); small ones pass them either way, but for those between the same two processes (`distribution::outflow`).
//!   What was measured stands where the flags are (`distribution::flags`).
//! - Reading never waits for writing. At first a node stopped reading a peer for whom more than 8 MiB waited, and two
//!   nodes that brought each other large values stood still. [`process::channel`] says what bounds memory instead; it is a
//!   connection without its socket, so that `tests/flow_simulation.rs` steps the same value.
//! - The first ping of a node is answered once our global names are known there ([`process::net_kernel`]): what is
//!   typed next finds them.
//! - A pid has one name in `global`, so a store with several global names has a pid for each.
//! - What comes for a suspended process waits at the connection that it came by, and not in a mailbox of the process:
//!   so order is kept and answers know the flags and monitors of that connection without a queue that all share. A
//!   connection that is lost leaves what it holds to the node's connection to itself.
//! - The supervisor delays restarts past its intensity instead of giving up: a node without its stores serves nobody.
//! - The disk's engine is fjall: three times the synced writes of redb, and a faster start after a crash
//!   (`scripts/bench.d/engines`). It takes damage in its journal for the journal's end, and a journal that is gone for
//!   none: so batches have numbers of ours, how far they have come is told beside them, and both are compared before the engine
//!   sees them (`store/disk/ledger.rs`). A batch that failed is taken out before it is read again.
//! - A slave's writes wait in a queue of its own, filled under the store's order of writes and emptied into the output of the
//!   connection to it when that has room ([`process::Feed`]), instead of going out as effects: effects of two connections
//!   are carried out in any order, and a slave must not see them so.
//! - A feed is announced with the node that it has something for, and asked for its messages there alone: it knows best where
//!   its receiver is, and may have gone elsewhere when it is asked. The time comes with the question, so that a feed is as
//!   pure as the process that it belongs to.
//! - A slave acknowledges by answering a call, `{:get, key}` where it is an Elixir server, and everything that came before
//!   it in its mailbox is then handled: so a write is confirmed by the same answer that bounds and repairs, many writes by
//!   one, instead of by a call for each that would leave the order of the others ([`replica`] says how).
//! - All that there is of a slave is one value, [`replica::Downstream`], behind one lock that comes after those of the store: writers
//!   push into it under the order of writes. So it asks its store nothing: an answer that is weighed against the store's lineage
//!   brings that with it, what is to be done of other slaves and of the store goes out as outputs, and a repair is called under
//!   the order. A thread that knows of something hands it in at once, and the task of the slave carries out what that wants.
//! - kvnodes speak a dialect of their own to each other ([`replica::dialect`]), in the same log and window.

#[cfg(feature = "cli")]
pub mod cli;
pub mod config;
pub mod distribution;
#[cfg(feature = "etcd")]
pub mod elect;
pub mod epmd;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod etf;
pub mod handle;
pub mod kv;
mod log;
pub mod node;
pub mod process;
pub mod program;
pub mod replica;
pub mod store;
mod within;

pub use config::ServerName;
pub use distribution::ServerRef;
pub use handle::Handle;
pub use node::{
    Ask, Client, ConnectedNode, Context, Down, GlobalName, Inbox, Mail, MonitorRef, Never, Node, NodeBuilder,
    NodeEvent, NodeEvents, NotNamed, NotReplied, NotTold, PeerDown, ProcessHandle, ReceiveError,
    Registration, ReplyTo, Server, ServerHandle, StartError, TaskRef, TimerRef, block_on, unblock,
};
pub use process::{CallError, Caller, GenServer, OwnedCaller, Restart, SkippedMessage, Turn};
pub use within::within;
