//! Unit tests of servers: a [`Server`] without sockets, threads and BEAMs, on a clock that the test moves on.
//!
//! [`TestServer::start`] runs the server as a node does, by the same code: its mailbox, timers, tasks, monitors and links are those of
//! a node whose other nodes the test plays. Whatever the test does to the server is carried through before the test goes on,
//! by the thread of the test; so nothing has to be waited for, and the same test does the same each time.
//!
//! ```
//! use std::time::Duration;
//!
//! use kvnode::etf::atom;
//! use kvnode::test::{Sent, TestServer};
//! use kvnode::{Context, Never, ReplyTo, Server, ServerRef};
//! use serde::Deserialize;
//!
//! /// Counts, and tells `{:global, :log}` each minute how far it is.
//! struct Counter(i64);
//!
//! #[derive(Deserialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Call {
//!     Value, // :value
//! }
//!
//! #[derive(Deserialize)]
//! #[serde(rename_all = "snake_case")]
//! enum Cast {
//!     Add(i64), // {:add, n}
//! }
//!
//! #[derive(Clone, Deserialize)]
//! enum Info {
//!     #[serde(skip)]
//!     Minute,
//! }
//!
//! impl Server for Counter {
//!     type Call = Call;
//!     type Cast = Cast;
//!     type Info = Info;
//!
//!     async fn init(&mut self, cx: &mut Context<Self>) {
//!         cx.send_interval(Duration::from_secs(60), Info::Minute);
//!     }
//!
//!     async fn handle_call(&mut self, Call::Value: Call, from: ReplyTo, _: &mut Context<Self>) {
//!         from.reply(&self.0);
//!     }
//!
//!     async fn handle_cast(&mut self, Cast::Add(n): Cast, _: &mut Context<Self>) {
//!         self.0 += n;
//!     }
//!
//!     async fn handle_info(&mut self, Info::Minute: Info, cx: &mut Context<Self>) {
//!         let _ = cx.cast(&ServerRef::global("log"), &(atom("counted"), self.0)).await;
//!     }
//! }
//!
//! let mut counter = TestServer::start(Counter(40));
//! counter.cast(&(atom("add"), 2));
//! assert_eq!(counter.call(&atom("value")).reply::<i64>(), 42);
//!
//! counter.advance(Duration::from_secs(59));
//! assert_eq!(counter.sent(), []);
//! counter.advance(Duration::from_secs(1));
//! assert_eq!(counter.sent(), [Sent::cast(&ServerRef::global("log"), &(atom("counted"), 42))]);
//! ```
//!
//! # The others
//!
//! Every node can be connected to, and every name is had by a process of the test, but for those that the server's own node has
//! given. What the server says to them is in [`sent`](TestServer::sent); a call waits for [`answer`](TestServer::answer),
//! [`down`](TestServer::down), or its own time-out. A server that calls Elixir:
//!
//! ```
//! use std::time::Duration;
//!
//! use kvnode::etf::{OwnedTerm, atom};
//! use kvnode::test::{Sent, TestServer};
//! use kvnode::{CallError, Context, Never, ReplyTo, Server, ServerRef};
//!
//! struct Front;
//!
//! impl Server for Front {
//!     type Call = OwnedTerm;
//!     type Cast = Never;
//!     type Info = Never;
//!
//!     async fn handle_call(&mut self, request: OwnedTerm, from: ReplyTo, cx: &mut Context<Self>) {
//!         let back = ServerRef::remote("back", "beam@host");
//!         match cx.call::<OwnedTerm, _>(&back, &request, Duration::from_secs(5)).await {
//!             Ok(answer) => from.reply(&answer),
//!             Err(CallError::Timeout) => from.reply(&atom("late")),
//!             Err(error) => from.end_call(&error.to_string()),
//!         }
//!     }
//! }
//!
//! let mut front = TestServer::start(Front);
//! let back = ServerRef::remote("back", "beam@host");
//!
//! let call = front.call(&atom("question"));
//! assert_eq!(call.answer(), None);
//! assert_eq!(front.sent(), [Sent::call(&back, &atom("question"))]);
//! front.answer(&back, &42);
//! assert_eq!(call.reply::<i64>(), 42);
//!
//! let call = front.call(&atom("question"));
//! front.advance(Duration::from_secs(5));
//! assert_eq!(call.reply::<kvnode::etf::Atom>(), atom("late"));
//!
//! let call = front.call(&atom("question"));
//! front.down(&back, &atom("killed"));
//! assert!(format!("{:?}", call.exit()).contains("killed"));
//! ```
//!
//! # Time
//!
//! It stands still until [`advance`](TestServer::advance): timers, intervals, time-outs of calls and [`within`](crate::within())
//! go by it. Timers of other libraries do not. What [`unblock`](crate::unblock) and [`Context::unblock`](crate::Context::unblock) are
//! given is done by the test's thread. Where a thread of the program's own brings the server something, the test waits for that thread, and
//! then [`run`](TestServer::run)s the server.

mod seen;
#[cfg(test)]
mod tests;
mod world;

use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Stepped;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid};
use crate::node::life::run::start_stepped;
use crate::node::life::workers::Crew;
use crate::node::server::Server;
use crate::node::server::own::ServerHandle;
use crate::node::{Node, NotTold};

use seen::term;
pub use seen::{Answer, Sent, TestCall};
pub(in crate::node) use world::World;
use world::{OWN_NODE, TEST_NODE};

/// So many tasks go on at one time of the clock; past it the server is taken to be in a circle.
const STEPS_MAX: u32 = 10_000_000;

/// A server that a test runs: see the [module's page](self). It ends where this is dropped.
///
/// ```
/// use kvnode::etf::{OwnedTerm, atom};
/// use kvnode::test::TestServer;
/// use kvnode::{Context, Never, ReplyTo, Server};
///
/// struct Divider;
///
/// impl Server for Divider {
///     type Call = (i64, i64);
///     type Cast = Never;
///     type Info = Never;
///
///     async fn handle_call(&mut self, (a, b): (i64, i64), from: ReplyTo, _: &mut Context<Self>) {
///         from.reply(&(a / b));
///     }
/// }
///
/// let mut divider = TestServer::start(Divider);
/// assert_eq!(divider.call(&(7, 2)).reply::<i64>(), 3);
///
/// // A panic of the handler ends the server, and is a value.
/// let call = divider.call(&(7, 0));
/// assert_eq!(format!("{:?}", call.exit()), r#"{:panic, "attempt to divide by zero"}"#);
/// assert_eq!(divider.end(), Some(call.exit()));
/// ```
pub struct TestServer<S: Server> {
    handle: ServerHandle<S>,
    /// Set when it has ended.
    end: Arc<OnceLock<Answer>>,
    stage: Stage,
}

/// What a server under test runs on.
struct Stage {
    node: Arc<Node>,
    world: Arc<World>,
    clock: Arc<Stepped>,
    crews: Vec<Arc<Crew>>,
}

impl Stage {
    fn new() -> Self {
        let (world, clock) = (Arc::<World>::default(), Stepped::new());
        let config = Node::builder(OWN_NODE).cookie("test").without_epmd().outgoing_only().config();
        let entered = clock.enter();
        let started = config.and_then(|config| start_stepped(config, Arc::clone(&world)));
        drop(entered);
        let (node, crews) =
            started.unwrap_or_else(|error| panic!("a node of a test does not start: {error}"));
        Self { node, world, clock, crews: crews.into() }
    }

    /// Goes on until nothing can, unless time does.
    #[track_caller]
    fn run(&self) {
        let _entered = self.clock.enter();
        let mut steps = 0;
        while self.crews.iter().any(|crew| crew.step()) {
            steps += 1;
            assert!(
                steps < STEPS_MAX,
                "the server does not come to rest: what it does goes round in a circle"
            );
        }
    }

    #[track_caller]
    fn advance(&self, by: Duration) {
        self.run();
        let now = self.clock.now();
        let end = now.checked_add(by).expect("the clock does not go as far");
        while let Some(due) = self.clock.next_due().filter(|due| *due <= end) {
            self.clock.set(due);
            self.run();
        }
        self.clock.set(end);
        self.run();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        // With the crews their tasks end, and what these drop finds the clock that it knows.
        let _entered = self.clock.enter();
        self.crews.clear();
    }
}

impl<S: Server> TestServer<S> {
    /// Starts a server, on a node of its own; its `init` is done when this is, or waits for what the test has to bring.
    pub fn start(server: S) -> Self {
        Self::start_own(|_| server)
    }

    /// As [`start`](Self::start), as [`Node::serve_own`] starts one that is given its own handle.
    pub fn start_own(make: impl FnOnce(ServerHandle<S>) -> S) -> Self {
        let stage = Stage::new();
        let entered = stage.clock.enter();
        let handle = stage.node.serve_own(make);
        let end = stage.world.monitor(&stage.node, handle.pid());
        drop(entered);
        stage.run();
        Self { handle, end, stage }
    }

    /// Calls it, as `GenServer.call/2` does in a process of its own of another node.
    ///
    /// # Panics
    /// Where the request cannot be written as a term.
    #[track_caller]
    pub fn call(&mut self, request: &(impl Serialize + ?Sized)) -> TestCall {
        let caller = self.new_pid(TEST_NODE);
        self.call_from(&caller, request)
    }

    /// As [`call`](Self::call), from a process that the test has: what [`ReplyTo::caller`](crate::ReplyTo::caller) tells.
    ///
    /// # Panics
    /// Where the request cannot be written as a term.
    #[track_caller]
    pub fn call_from(&mut self, caller: &Pid, request: &(impl Serialize + ?Sized)) -> TestCall {
        self.ask("$gen_call", caller, term(request))
    }

    #[track_caller]
    fn ask(&self, label: &str, caller: &Pid, request: OwnedTerm) -> TestCall {
        let Stage { node, world, .. } = &self.stage;
        let answer = world.call(node, label, (caller, self.pid()), request.view());
        self.stage.run();
        TestCall { request, answer, world: Arc::clone(world) }
    }

    /// Casts to it, as `GenServer.cast/2` does.
    ///
    /// # Panics
    /// Where the request cannot be written as a term.
    #[track_caller]
    pub fn cast(&mut self, request: &(impl Serialize + ?Sized)) {
        let request = term(request);
        let Stage { node, world, .. } = &self.stage;
        world.send(node, self.handle.pid(), |w| _ = w.tuple(2).atom("$gen_cast").term(request.view()));
        self.stage.run();
    }

    /// Sends it a message from another node, as `send/2` does: what cannot be read as [`Server::Info`] is dropped.
    ///
    /// # Panics
    /// Where the message cannot be written as a term.
    #[track_caller]
    pub fn send(&mut self, message: &(impl Serialize + ?Sized)) {
        let message = term(message);
        let Stage { node, world, .. } = &self.stage;
        world.send(node, self.handle.pid(), |w| _ = w.term(message.view()));
        self.stage.run();
    }

    /// Tells it something, as the program itself does: see [`ServerHandle::tell`].
    ///
    /// # Errors
    /// As of [`ServerHandle::tell`].
    #[track_caller]
    pub fn tell(&mut self, message: S::Info) -> Result<(), NotTold<S::Info>> {
        let told = self.handle.tell(message);
        self.stage.run();
        told
    }

    /// Stops it, as `GenServer.stop/2` does: it handles what waits, and has its [`terminate`](Server::terminate).
    #[track_caller]
    pub fn stop(&mut self, reason: &(impl Serialize + ?Sized)) {
        self.handle.process().stop(reason);
        self.stage.run();
    }

    /// Has a process of the test's send it an exit signal, as `Process.exit/2` does.
    ///
    /// # Panics
    /// Where the reason cannot be written as a term.
    #[track_caller]
    pub fn exit(&mut self, from: &Pid, reason: &(impl Serialize + ?Sized)) {
        let Stage { node, world, .. } = &self.stage;
        world.exit(node, (from, self.handle.pid()), term(reason).view());
        self.stage.run();
    }

    /// Ends a process of the test's: what monitors it, is linked to it and waits for its answer is told the reason. Gives how many of these
    /// there were. `process` is named as the server has named it.
    ///
    /// # Panics
    /// Where the reason cannot be written as a term.
    #[track_caller]
    pub fn down(&mut self, process: &ServerRef, reason: &(impl Serialize + ?Sized)) -> usize {
        let Stage { node, world, .. } = &self.stage;
        let told = world.down(node, process, term(reason).view());
        self.stage.run();
        told
    }

    /// The connection to a node is lost: what waits for a process there, or watches one, is told so. The next message connects again.
    /// `false`: the server's node is not connected to it.
    #[track_caller]
    pub fn node_down(&mut self, node: &str) -> bool {
        let was_up = World::node_down(&self.stage.node, node);
        self.stage.run();
        was_up
    }

    /// Answers the oldest call that the server has made to this process and that has no answer, and gives what was asked.
    ///
    /// # Panics
    /// Where there is none: the text says what the server has done instead. Where the value cannot be written as a term.
    #[track_caller]
    pub fn answer(&mut self, to: &ServerRef, value: &(impl Serialize + ?Sized)) -> OwnedTerm {
        let Stage { node, world, .. } = &self.stage;
        let Some(asked) = world.answer(node, to, term(value).view()) else {
            match (world.asked().as_slice(), self.end()) {
                ([], Some(reason)) => {
                    panic!("the server does not wait for {to}: it has ended with {reason:?}")
                }
                ([], None) => panic!("the server does not wait for {to}; it has sent {:?}", world.sent()),
                (others, _) => panic!("the server does not wait for {to}, but for {others:?}"),
            }
        };
        self.stage.run();
        asked
    }

    /// What the server has said to others, and watches, since this was asked last, in order.
    pub fn sent(&mut self) -> Vec<Sent> {
        self.stage.world.take_sent()
    }

    /// Moves the clock on; whatever is due meanwhile comes in its order, each at its time.
    #[track_caller]
    pub fn advance(&mut self, by: Duration) {
        self.stage.advance(by);
    }

    /// Has the server go on until it waits: after something that came neither by this nor from the server, of a thread of the program's.
    #[track_caller]
    pub fn run(&mut self) {
        self.stage.run();
    }

    /// A new process of the test's, on a node.
    ///
    /// ```
    /// # use kvnode::etf::{Pid, atom};
    /// # use kvnode::test::{Sent, TestServer};
    /// # use kvnode::{Context, Down, Never, ReplyTo, Server, ServerRef};
    /// /// Tells all of its subscribers, as long as they live.
    /// #[derive(Default)]
    /// struct Events(Vec<Pid>);
    ///
    /// impl Server for Events {
    /// #   type Call = Never;
    ///     type Cast = Pid;
    ///     type Info = String;
    ///
    /// #   async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #       match call {}
    /// #   }
    ///     async fn handle_cast(&mut self, subscriber: Pid, cx: &mut Context<Self>) {
    ///         let _ = cx.monitor(&subscriber.clone().into()).await;
    ///         self.0.push(subscriber);
    ///     }
    ///
    ///     async fn handle_info(&mut self, event: String, cx: &mut Context<Self>) {
    ///         for subscriber in &self.0 {
    ///             let _ = cx.send(&subscriber.clone().into(), &event).await;
    ///         }
    ///     }
    ///
    ///     async fn handle_down(&mut self, down: Down, _: &mut Context<Self>) {
    ///         self.0.retain(|subscriber| down.process != subscriber.clone().into());
    ///     }
    /// }
    ///
    /// let mut events = TestServer::start(Events::default());
    /// let subscriber = events.new_pid("beam@host");
    /// let to = ServerRef::from(subscriber.clone());
    /// events.cast(&subscriber);
    /// assert_eq!(events.sent(), [Sent::Monitor(to.clone())]);
    /// events.send("rain");
    /// assert_eq!(events.sent(), [Sent::message(&to, "rain")]);
    ///
    /// assert_eq!(events.down(&to, &atom("normal")), 1);
    /// events.send("snow");
    /// assert_eq!(events.sent(), []);
    /// ```
    pub fn new_pid(&self, node: &str) -> Pid {
        self.stage.world.new_pid(node)
    }

    /// The reason that it has ended with; `None`: it lives.
    pub fn end(&self) -> Option<OwnedTerm> {
        match self.end.get()? {
            Answer::Exit(reason) | Answer::Reply(reason) => Some(reason.clone()),
        }
    }

    /// Its [`state`](Server::state), read into `T`, as `:sys.get_state/1` shows it.
    ///
    /// # Panics
    /// Where it has ended, or waits in a handler, or the state is no `T`: the text says which.
    #[track_caller]
    pub fn state<T: DeserializeOwned>(&mut self) -> T {
        let asked = self.ask("system", &self.new_pid(TEST_NODE), OwnedTerm::atom("get_state"));
        asked.reply()
    }

    /// Its names, as other nodes use them.
    pub fn names(&self) -> Vec<ServerRef> {
        self.handle.process().names()
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        self.handle.pid()
    }

    /// Its handle, for what tells it something from elsewhere: [`run`](Self::run) carries that through.
    pub const fn handle(&self) -> &ServerHandle<S> {
        &self.handle
    }
}

impl<S: Server> fmt::Debug for TestServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestServer")
            .field("pid", self.pid())
            .field("end", &self.end())
            .finish_non_exhaustive()
    }
}
