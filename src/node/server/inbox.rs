//! A process without a server: its messages are taken by whoever holds it.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use serde::de::DeserializeOwned;

use crate::distribution::ServerRef;
use crate::etf::{ConvertError, OwnedTerm, Pid};
use crate::node::Node;
use crate::node::server::client::Client;
use crate::node::server::monitors::{Down, MonitorRef, Monitors};
use crate::node::server::process_handle::ProcessHandle;
use crate::node::server::reply_to::ReplyTo;
use crate::process::mailbox::{Envelope, Mailbox, Next};
use crate::process::{CallError, GenServer};

/// A process of this node whose messages the program takes itself, one by one, from `main` or from any task: what a
/// [`Server`](crate::Server) is too much for. [`Node::mailbox`] starts it, and it ends when this is dropped, with the reason
/// `:normal`. What it says to others comes from its pid by [`client`](Self::client).
///
/// ```no_run
/// use std::time::Duration;
///
/// use kvnode::etf::atom;
/// use kvnode::{Mail, Node, ServerRef, block_on, within};
///
/// let node = Node::builder("main").connect("beam@myhost").start()?;
/// let mut inbox = node.mailbox();
/// inbox.process().register("main")?; // send({:main, :"main@myhost"}, …)
///
/// // {:subscribe, pid}, and then the first event, {:event, "text"}, or five seconds.
/// let publisher = ServerRef::global("publisher");
/// block_on(inbox.monitor(&publisher))?;
/// block_on(inbox.client().cast_as(&publisher, &(atom("subscribe"), inbox.pid())))?;
/// let event = block_on(within(Duration::from_secs(5), inbox.receive::<(kvnode::etf::Atom, String)>()));
/// if let Some(event) = event {
///     println!("{}", event?.1);
/// }
///
/// // Whatever else comes, in order.
/// while let Some(mail) = block_on(inbox.next()) {
///     match mail {
///         Mail::Call { request, from } => from.reply(&request),
///         Mail::Down(down) => println!("the publisher is gone: {:?}", down.reason),
///         other => println!("{other:?}"),
///     }
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # What waits
///
/// As much as for a server waits, with the same bounds:
/// [`Limits::mailbox_messages_max`](crate::config::Limits::mailbox_messages_max) says what happens to more. What
/// [`next_where`](Self::next_where) and [`receive`](Self::receive) pass over is kept, as much again at most.
///
/// It ends before it is dropped by [`ProcessHandle::kill`], by an exit signal from outside, with the node, and by `GenServer.stop/1`
/// where that is taken. Then nothing comes any more.
pub struct Inbox {
    process: ProcessHandle,
    mailbox: Arc<Mailbox>,
    client: Client,
    monitors: Monitors,
    /// What was passed over.
    kept: VecDeque<Mail>,
    kept_bytes: usize,
}

/// What comes to an [`Inbox`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Mail {
    /// A message, as `send/2` sends it.
    Message(OwnedTerm),
    /// A `GenServer.cast/2`.
    Cast(OwnedTerm),
    /// A `GenServer.call/3`.
    Call {
        /// What is asked.
        request: OwnedTerm,
        /// The caller that waits for the answer.
        from: ReplyTo,
    },
    /// A process that is monitored has ended, or was not there.
    Down(Down),
}

impl Mail {
    /// Bytes that it is counted with.
    fn bytes(&self) -> usize {
        let (Self::Message(term)
        | Self::Cast(term)
        | Self::Call { request: term, .. }
        | Self::Down(Down { reason: term, .. })) = self;
        term.view().bytes().len()
    }
}

/// Why an [`Inbox`] does not give what it was to give.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReceiveError {
    /// The message is not what it was to be read as, and was taken: the sender's fault, or that of the Rust type.
    #[error("the message {message:?} cannot be read: {error}")]
    Unreadable {
        /// The message.
        message: OwnedTerm,
        /// What is wrong with it.
        error: ConvertError,
    },
    /// So much was passed over that no more is kept: the program's own, which has to take it by [`Inbox::next`].
    #[error(
        "as much was passed over as is kept (Limits::mailbox_messages_max, Limits::mailbox_bytes_max), and has to be taken first"
    )]
    Full,
    /// The process has ended: nothing comes any more.
    #[error("the process has ended")]
    Ended,
}

impl Node {
    /// Starts a process whose messages the program takes itself: see [`Inbox`].
    pub fn mailbox(&self) -> Inbox {
        let limits = self.limits();
        let mailbox = Arc::new(Mailbox::new(limits.mailbox_messages_max, limits.mailbox_bytes_max));
        let process = self.registry.spawn(Arc::clone(&mailbox) as Arc<dyn GenServer>);
        let client = self.client_of(&process.pid);
        // Not in the node's table of mailboxes: its end would wait for the program to look into this one.
        let process = ProcessHandle { node: self.arc(), process, mailbox: Some(Arc::clone(&mailbox)) };
        let (kept, monitors) = (VecDeque::new(), Monitors::default());
        Inbox { process, mailbox, client, monitors, kept, kept_bytes: 0 }
    }
}

impl Inbox {
    /// Its pid: what others send to.
    pub fn pid(&self) -> &Pid {
        self.process.pid()
    }

    /// The process: it has names, and may be kept by others to end it.
    pub const fn process(&self) -> &ProcessHandle {
        &self.process
    }

    /// What it says to others comes from its own pid by this client. It may be cloned into tasks.
    pub const fn client(&self) -> &Client {
        &self.client
    }

    /// Waits for what comes next: first what was passed over, in its order. `None`: the process has ended. A wait that is given
    /// up loses nothing; [`within`](crate::within()) limits one.
    pub async fn next(&mut self) -> Option<Mail> {
        match self.kept.pop_front() {
            Some(mail) => {
                self.kept_bytes -= mail.bytes();
                Some(mail)
            }
            None => self.come().await,
        }
    }

    /// Waits for the first that is wanted, as `receive` with a pattern does: what is passed over is kept, in its order, for
    /// later.
    ///
    /// ```
    /// use kvnode::{Down, Inbox, Mail, MonitorRef};
    ///
    /// /// Waits for the end of a process that is monitored, whatever else comes meanwhile.
    /// async fn end_of(inbox: &mut Inbox, monitor: MonitorRef) -> Option<Down> {
    ///     let is_it = |mail: &Mail| matches!(mail, Mail::Down(down) if down.monitor == monitor);
    ///     match inbox.next_where(is_it).await {
    ///         Ok(Mail::Down(down)) => Some(down),
    ///         _ => None,
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// [`ReceiveError::Full`] where what was passed over is as much as is kept; [`ReceiveError::Ended`].
    pub async fn next_where(
        &mut self,
        mut is_wanted: impl FnMut(&Mail) -> bool,
    ) -> Result<Mail, ReceiveError> {
        if let Some(at) = self.kept.iter().position(&mut is_wanted) {
            let mail = self.kept.remove(at).expect("it was found there");
            self.kept_bytes -= mail.bytes();
            return Ok(mail);
        }
        loop {
            let limits = self.process.node.limits();
            if self.kept.len() >= limits.mailbox_messages_max || self.kept_bytes >= limits.mailbox_bytes_max {
                return Err(ReceiveError::Full);
            }
            let mail = self.come().await.ok_or(ReceiveError::Ended)?;
            if is_wanted(&mail) {
                return Ok(mail);
            }
            self.kept_bytes += mail.bytes();
            self.kept.push_back(mail);
        }
    }

    /// Waits for the next message, and reads it into `T`. Calls, casts and ends of processes are passed over, as by
    /// [`next_where`](Self::next_where).
    ///
    /// # Errors
    /// [`ReceiveError::Unreadable`] where the next message is none of `T`: it is taken, and in the error. Those of
    /// [`next_where`](Self::next_where).
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ReceiveError> {
        match self.next_where(|mail| matches!(mail, Mail::Message(_))).await? {
            Mail::Message(message) => {
                let read = message.to();
                read.map_err(|error| ReceiveError::Unreadable { message, error })
            }
            _ => unreachable!("messages alone are wanted"),
        }
    }

    /// Monitors a process on any node, as `Process.monitor/1` does: [`Mail::Down`] comes once when it ends, also when it is not
    /// there. A name in `:global` is looked up now, and the process that has it is monitored.
    ///
    /// # Errors
    /// See [`CallError`]: the monitor could not be set, and will not fire.
    pub async fn monitor(&mut self, process: &ServerRef) -> Result<MonitorRef, CallError> {
        self.monitors.set(&self.client, &self.mailbox, process).await
    }

    /// Takes a monitor back. `false`: it has fired, and what it told may still wait here, or it was taken back before.
    pub fn demonitor(&mut self, monitor: MonitorRef) -> bool {
        self.monitors.take_back(monitor)
    }

    /// Waits for what comes new.
    async fn come(&mut self) -> Option<Mail> {
        poll_fn(|cx| self.poll_come(cx)).await
    }

    fn poll_come(&mut self, cx: &Context<'_>) -> Poll<Option<Mail>> {
        loop {
            let envelope = match ready!(self.mailbox.poll_next(cx)) {
                Next::Envelope(envelope) => envelope,
                Next::Ended => return Poll::Ready(None),
            };
            if let Some(mail) = self.opened(envelope) {
                return Poll::Ready(Some(mail));
            }
        }
    }

    /// What an envelope has for the program; `None`: nothing, and it is dealt with.
    fn opened(&mut self, envelope: Envelope) -> Option<Mail> {
        let ProcessHandle { node, process, .. } = &self.process;
        match envelope {
            Envelope::Info(message) => Some(Mail::Message(message)),
            Envelope::Cast(request) => Some(Mail::Cast(request)),
            Envelope::Call { request, from, .. } => {
                Some(Mail::Call { request, from: ReplyTo::new(from, process.id, node) })
            }
            Envelope::Down { monitor, reason } => self.monitors.fired(monitor, reason).map(Mail::Down),
            Envelope::State(asked) => {
                let nothing = OwnedTerm::atom("nil");
                let effect = asked.answer(process, &node.registry, &**node, nothing.view().bytes());
                node.carry_out(&mut effect.into_iter().collect());
                None
            }
            Envelope::Stop { reason } => {
                node.exit(process, reason.view().bytes());
                None
            }
            // Handles of servers tell these, and this is none.
            Envelope::Own(_) => None,
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        // First: callers that wait here are told the reason, and not that they were dropped.
        self.process.node.exit(&self.process.process, OwnedTerm::atom("normal").view().bytes());
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Inbox({:?}, {} wait)", self.process, self.mailbox.len() + self.kept.len())
    }
}
