//! A server's own address, with its type: what the program itself tells it, without the wire.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::etf::Pid;
use crate::node::server::process_handle::ProcessHandle;
use crate::node::server::tasks::Done;
use crate::node::server::{self, Server};
use crate::node::{Node, now};
use crate::process::GenServer;
use crate::process::figures::ServerFigures;
use crate::process::mailbox::{Mailbox, NotTaken};

/// A [`Server`] that runs, with its type: by it the program itself [tells](Self::tell) the server something, from any thread.
///
/// [`Node::serve_own`] gives it, and within the server [`Context::handle`](crate::Context::handle) does. Cheap to clone;
/// dropping it does not end the server.
///
/// # A server that a thread of the program reports to
///
/// ```
/// use kvnode::{Context, Never, Node, ReplyTo, Server, ServerHandle};
/// use serde::Deserialize;
///
/// #[derive(Default)]
/// struct Meter {
///     watts: f64,
/// }
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Call {
///     Watts, // :watts
/// }
///
/// #[derive(Deserialize)]
/// #[serde(rename_all = "snake_case")]
/// enum Info {
///     Reset, // :reset, which any process of the cluster may send
///     #[serde(skip)]
///     Measured(f64), // from this program alone: no message of another node is read as this
/// }
///
/// impl Server for Meter {
///     type Call = Call;
///     type Cast = Never;
///     type Info = Info;
///
///     async fn handle_call(&mut self, Call::Watts: Call, from: ReplyTo, _cx: &mut Context<Self>) {
///         from.reply(&self.watts);
///     }
///
///     async fn handle_info(&mut self, info: Info, _cx: &mut Context<Self>) {
///         self.watts = match info {
///             Info::Reset => 0.0,
///             Info::Measured(watts) => watts,
///         };
///     }
/// }
///
/// /// What the thread of the sensor does.
/// fn measure(meter: &ServerHandle<Meter>, mut sensor: impl FnMut() -> f64) {
///     // The server has ended, or so much waits for it that this measurement is left out.
///     while meter.process().is_alive() {
///         let _ = meter.tell(Info::Measured(sensor()));
///     }
/// }
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = Node::builder("meter").start()?;
/// let meter = node.serve_own(|_| Meter::default());
/// meter.process().register("meter")?;
/// std::thread::spawn(move || measure(&meter, || 4.2));
/// # Ok(())
/// # }
/// ```
pub struct ServerHandle<S: Server> {
    process: ProcessHandle,
    of: PhantomData<fn(S)>,
}

/// What a mailbox has as [`Envelope::Own`](crate::process::mailbox::Envelope::Own) of a server whose `Info` is `M`.
pub(in crate::node) enum Own<M> {
    /// The program told it.
    Told(M),
    /// One of its tasks is done.
    Done(Done<M>),
    /// What is made where the server takes it.
    Made(Box<dyn FnOnce() -> M + Send>),
}

impl<S: Server> ServerHandle<S> {
    /// The handle of a process that is such a server.
    pub(in crate::node) const fn new(process: ProcessHandle) -> Self {
        Self { process, of: PhantomData }
    }

    /// Tells the server something: [`Server::handle_info`] gets it as it is, behind what waits in the mailbox. It goes
    /// over no wire and needs no `Deserialize`: a variant with `#[serde(skip)]` comes from the program alone, and one without
    /// may be sent by other nodes too. This does not wait.
    ///
    /// # Errors
    /// The server's: it has ended, or does not keep up with what it is sent. The message comes back.
    pub fn tell(&self, message: S::Info) -> Result<(), NotTold<S::Info>> {
        let mailbox = self.process.mailbox.as_ref().expect("a server has a mailbox");
        let mut message = Some(message);
        let own =
            || -> Box<dyn Any + Send> { Box::new(Own::Told(message.take().expect("it is put in once"))) };
        let taken = mailbox.tell(own);
        taken.map_err(|why| {
            let message = message.expect("it was not put in");
            match why {
                NotTaken::Full => NotTold::Full(message),
                NotTaken::Ended => NotTold::Ended(message),
            }
        })
    }

    /// The process that the server is: it has names, may be stopped, and is waited for.
    pub const fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// Its pid.
    pub fn pid(&self) -> &Pid {
        self.process.pid()
    }
}

impl<S: Server> Clone for ServerHandle<S> {
    fn clone(&self) -> Self {
        Self::new(self.process.clone())
    }
}

impl<S: Server> fmt::Debug for ServerHandle<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.process.fmt(f)
    }
}

/// Why a server was not told something, with what it was to be told.
#[derive(thiserror::Error)]
pub enum NotTold<M> {
    /// As many messages wait for the server as may:
    /// [`Limits::mailbox_messages_max`](crate::config::Limits::mailbox_messages_max).
    #[error("the server's mailbox is full (Limits::mailbox_messages_max)")]
    Full(M),
    /// It has ended.
    #[error("the server has ended")]
    Ended(M),
}

impl<M> NotTold<M> {
    /// What it was to be told.
    pub fn into_message(self) -> M {
        match self {
            Self::Full(message) | Self::Ended(message) => message,
        }
    }
}

impl<M> fmt::Debug for NotTold<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Ended(_) => "Ended",
        })
    }
}

impl Node {
    /// As [`serve`](Self::serve), of a server that the program tells things itself: gives the handle that does, and gives it
    /// to `make` too, for the server to keep or to hand out before it runs.
    ///
    /// ```
    /// # use kvnode::{Context, Never, Node, ReplyTo, Server};
    /// # #[derive(serde::Deserialize)]
    /// # enum Info {
    /// #     #[serde(skip)]
    /// #     Ring,
    /// # }
    /// struct Bell;
    ///
    /// impl Server for Bell {
    /// #     type Call = Never;
    /// #     type Cast = Never;
    ///     type Info = Info; // enum Info { #[serde(skip)] Ring }
    /// #     async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
    /// #         match call {}
    /// #     }
    /// }
    ///
    /// # fn run() -> Result<(), Box<dyn std::error::Error>> {
    /// let node = Node::builder("bell").start()?;
    /// let bell = node.serve_own(|_| Bell);
    /// bell.tell(Info::Ring)?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn serve_own<S: Server>(&self, make: impl FnOnce(ServerHandle<S>) -> S) -> ServerHandle<S> {
        let limits = &self.config.limits;
        let mailbox = Mailbox::new(limits.mailbox_messages_max, limits.mailbox_bytes_max).timed_by(now);
        let mailbox = Arc::new(mailbox);
        let figures = ServerFigures::of_mailbox(std::any::type_name::<S>());
        let process = self.registry.spawn_counted(Arc::clone(&mailbox) as Arc<dyn GenServer>, figures);
        self.mailboxes.lock().insert(process.id, Arc::clone(&mailbox));
        let process = ProcessHandle { node: self.arc(), process, mailbox: Some(mailbox) };
        let handle = ServerHandle::new(process.clone());
        let server = match catch_unwind(AssertUnwindSafe(|| make(handle.clone()))) {
            Ok(server) => server,
            Err(panic) => {
                // Nothing would run it.
                self.mailboxes.lock().remove(&process.process.id);
                process.kill();
                resume_unwind(panic);
            }
        };
        self.spawn_server(handle.process(), server::run(process, server));
        handle
    }
}
