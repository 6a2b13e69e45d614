//! What a test sees of its server.

use std::any::type_name;
use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::world::World;
use crate::distribution::ServerRef;
use crate::etf::{OwnedTerm, Pid};

/// Something that a server under test has done to others: see [`TestServer::sent`](super::TestServer::sent). They are compared by
/// their terms, so the constructors take any value that is written as the same term.
///
/// ```
/// use kvnode::ServerRef;
/// use kvnode::etf::atom;
/// use kvnode::test::Sent;
///
/// let log = ServerRef::global("log");
/// assert_eq!(Sent::cast(&log, &(atom("add"), 1)), Sent::cast(&log, &(atom("add"), 1_u64)));
/// assert_ne!(Sent::cast(&log, &atom("add")), Sent::message(&log, &atom("add")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Sent {
    /// A message, as of `send/2`.
    Message {
        /// Its receiver, as the server has named it.
        to: ServerRef,
        /// What it says.
        message: OwnedTerm,
    },
    /// A `GenServer.cast/2`.
    Cast {
        /// Its receiver, as the server has named it.
        to: ServerRef,
        /// What is asked.
        request: OwnedTerm,
    },
    /// A `GenServer.call/3`: [`TestServer::answer`](super::TestServer::answer) answers it.
    Call {
        /// Who is called, as the server has named it.
        to: ServerRef,
        /// What is asked.
        request: OwnedTerm,
    },
    /// A process is monitored.
    Monitor(ServerRef),
    /// A monitor is taken back.
    Demonitor(ServerRef),
    /// A link is set.
    Link(Pid),
    /// A link is taken back.
    Unlink(Pid),
    /// An exit signal: by a link, when the server ends.
    Exit {
        /// Its receiver.
        to: Pid,
        /// Why.
        reason: OwnedTerm,
    },
}

impl Sent {
    /// A message.
    ///
    /// # Panics
    /// Where the value cannot be written as a term.
    #[track_caller]
    pub fn message(to: &ServerRef, message: &(impl Serialize + ?Sized)) -> Self {
        Self::Message { to: to.clone(), message: term(message) }
    }

    /// A cast.
    ///
    /// # Panics
    /// Where the value cannot be written as a term.
    #[track_caller]
    pub fn cast(to: &ServerRef, request: &(impl Serialize + ?Sized)) -> Self {
        Self::Cast { to: to.clone(), request: term(request) }
    }

    /// A call.
    ///
    /// # Panics
    /// Where the value cannot be written as a term.
    #[track_caller]
    pub fn call(to: &ServerRef, request: &(impl Serialize + ?Sized)) -> Self {
        Self::Call { to: to.clone(), request: term(request) }
    }
}

/// A value of a test as a term.
#[track_caller]
pub(super) fn term(value: &(impl Serialize + ?Sized)) -> OwnedTerm {
    OwnedTerm::from_value(value)
        .unwrap_or_else(|error| panic!("the value cannot be written as a term: {error}"))
}

/// How a call has come to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The server has answered with this.
    Reply(OwnedTerm),
    /// There is no answer, and the caller exits with this reason. `{:panic, "text"}`: the handler panicked. `{:bad_call, request}`: the
    /// request is none of [`Server::Call`](crate::Server::Call). `:noreply`: the [`ReplyTo`](crate::ReplyTo) was dropped. Any other is that
    /// of [`ReplyTo::end_call`](crate::ReplyTo::end_call), or of the server's end.
    Exit(OwnedTerm),
}

/// A call that a test has made: [`TestServer::call`](super::TestServer::call) gives it. Kept, it is answered later.
///
/// ```
/// use kvnode::etf::atom;
/// use kvnode::test::{Answer, TestServer};
/// use kvnode::{Context, Never, ReplyTo, Server};
///
/// #[derive(Default)]
/// struct Door(Vec<ReplyTo>);
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Call {
///     Wait, // :wait, answered when the door is opened
///     Open, // :open
/// }
///
/// impl Server for Door {
///     type Call = Call;
///     type Cast = Never;
///     type Info = Never;
///
///     async fn handle_call(&mut self, call: Call, from: ReplyTo, _: &mut Context<Self>) {
///         match call {
///             Call::Wait => self.0.push(from),
///             Call::Open => {
///                 self.0.drain(..).for_each(|waiting| waiting.reply(&atom("open")));
///                 from.reply(&atom("ok"));
///             }
///         }
///     }
/// }
///
/// let mut door = TestServer::start(Door::default());
/// let waits = door.call(&atom("wait"));
/// assert_eq!(waits.answer(), None);
/// door.call(&atom("open"));
/// assert_eq!(waits.reply::<kvnode::etf::Atom>(), atom("open"));
///
/// // What is no request ends its call, and nothing else.
/// let reason = door.call(&atom("shut")).exit();
/// assert_eq!(format!("{reason:?}"), "{:bad_call, :shut}");
/// ```
pub struct TestCall {
    pub(super) request: OwnedTerm,
    pub(super) answer: Arc<OnceLock<Answer>>,
    pub(super) world: Arc<World>,
}

impl TestCall {
    /// How it has ended; `None`: the caller waits.
    pub fn answer(&self) -> Option<Answer> {
        self.answer.get().cloned()
    }

    /// The answer, read into `T`.
    ///
    /// # Panics
    /// Where there is none, or one that is no `T`: the text says what there is instead.
    #[track_caller]
    pub fn reply<T: DeserializeOwned>(&self) -> T {
        match self.answer.get() {
            Some(Answer::Reply(reply)) => reply.to().unwrap_or_else(|error| {
                panic!("{self} was answered with {reply:?}, which is no {}: {error}", type_name::<T>())
            }),
            Some(Answer::Exit(reason)) => {
                panic!("{self} was not answered: its caller exits with {reason:?}")
            }
            None => self.waits(),
        }
    }

    /// The reason that the caller exits with.
    ///
    /// # Panics
    /// Where it does not: the text says what it got instead.
    #[track_caller]
    pub fn exit(&self) -> OwnedTerm {
        match self.answer.get() {
            Some(Answer::Exit(reason)) => reason.clone(),
            Some(Answer::Reply(reply)) => panic!("{self} was answered, with {reply:?}"),
            None => self.waits(),
        }
    }

    #[track_caller]
    fn waits(&self) -> ! {
        match self.world.asked().first() {
            Some((to, request)) => {
                panic!(
                    "{self} has no answer so far; the server waits for {to}, which it has called with {request:?}"
                )
            }
            None => panic!("{self} has no answer so far"),
        }
    }
}

impl fmt::Display for TestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the call {:?}", self.request)
    }
}

impl fmt::Debug for TestCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestCall")
            .field("request", &self.request)
            .field("answer", &self.answer.get())
            .finish()
    }
}
