//! The behaviour of our servers, and how their callers are answered.
//!
//! A call is the message `{:"$gen_call", {Pid, Tag}, Request}` (stdlib, `gen.erl`); its answer is `{Tag, Reply}`.
//! The tag is opaque and goes back bit for bit, but for one look inside: where it carries an alias, the answer
//! goes to the alias, if the caller's node knows aliases ([`AliasForm`](crate::distribution::AliasForm)).

use std::sync::Arc;

use super::effect::EndedCall;
use super::system::StateRequest;
use super::{Dispatch, Effect, NoRoom, Process, ProcessId, Turn};
use crate::distribution::alias_form::{Addresses, write_send};
use crate::distribution::{Outbound, TooLarge};
use crate::etf::tag::{LIST_EXT, SMALL_ATOM_UTF8_EXT, SMALL_TUPLE_EXT};
use crate::etf::{AtomView, Cursor, Pid, PidView, SharedBytes, TermError, TermView, TermWriter, Traits};

/// A server that answers where its messages come in: on the thread of the connection, without a mailbox, a task or a
/// copy in between. [`Node::serve_inline`](crate::Node::serve_inline) starts it.
///
/// Several connections call it at once, so state that changes is behind locks of its own (it gets `&self`), and since
/// nothing else of that connection goes on meanwhile it must neither wait nor take long. One that has to wait keeps
/// [`Caller::to_owned`] and answers later. Most servers are written more easily as a [`Server`](crate::Server), which has
/// `&mut self`, may wait, and gets its messages as Rust values; this one is for where every microsecond counts.
///
/// Requests are [`TermView`]s, slices of the received bytes; they can be read with
/// [`from_term`](crate::etf::from_term) too.
///
/// ```
/// use std::sync::atomic::{AtomicI64, Ordering};
///
/// use kvnode::etf::TermView;
/// use kvnode::{Caller, Turn, GenServer};
///
/// #[derive(Default)]
/// struct Counter(AtomicI64);
///
/// impl GenServer for Counter {
///     fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
///         if request.is_atom("value") {
///             let value = self.0.load(Ordering::Relaxed);
///             turn.reply(caller, |w| _ = w.integer(value));
///         } else {
///             // The caller exits with this reason, instead of waiting for its time-out.
///             turn.end_call(caller, |w| _ = w.tuple(2).atom("bad_call").term(request));
///         }
///     }
///
///     fn handle_cast(&self, request: TermView<'_>, _turn: &mut Turn<'_>) {
///         // {:add, n}
///         if let Some([add, n]) = request.as_tuple()
///             && add.is_atom("add")
///             && let Some(n) = n.as_unsigned()
///         {
///             self.0.fetch_add(n as i64, Ordering::Relaxed);
///         }
///     }
/// }
///
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// let node = kvnode::Node::builder("counter").start()?;
/// node.serve_inline(std::sync::Arc::new(Counter::default())).register("counter")?;
/// # Ok(())
/// # }
/// ```
pub trait GenServer: Send + Sync + 'static {
    /// A call. It is answered by [`Turn::reply`], now or later, or ended by [`Turn::end_call`].
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>);

    /// A cast.
    fn handle_cast(&self, request: TermView<'_>, turn: &mut Turn<'_>);

    /// Any other message; with [`ExitSignals::Trap`] also `{:EXIT, pid, reason}`.
    fn handle_info(&self, _message: TermView<'_>, _turn: &mut Turn<'_>) {}

    /// A cast or other message came that was over a bound of the connection ([`TooLarge`]): it was not received, but for its
    /// beginning. (A call that is too large is ended before the server has a part in it.) Without this the message is
    /// dropped, as the log says.
    fn handle_skipped(&self, _message: SkippedMessage<'_>, _turn: &mut Turn<'_>) {}

    /// The process has ended, by itself or by others, for `reason`: its pids and names are gone. Called once. Unlike
    /// OTP's `terminate/2` it is called however the process ended, also when it was killed: it lets go of what the
    /// server holds, and cannot stop the end. A call that runs on another connection meanwhile is carried through.
    fn terminate(&self, _reason: TermView<'_>) {}

    /// Another process asks this one to end (`GenServer.stop/3`, [`ProcessHandle::stop`](crate::ProcessHandle::stop)).
    /// `true`: it will, by itself, when it has handled what came before; `false`: it is ended at once.
    fn stop(&self, _reason: TermView<'_>) -> bool {
        false
    }

    /// What exit signals do to the process.
    fn exit_signals(&self) -> ExitSignals {
        ExitSignals::Obey
    }

    /// Writes one term, the state as `:sys.get_state/1` and `:sys.get_status/1` show it. It should not take more than
    /// `bytes_max` bytes; what is larger is written as a summary. 0 asks for the summary: the caller's node could not
    /// read the whole. Without a state of its own a server shows `nil`.
    fn state(&self, w: &mut TermWriter<'_>, _bytes_max: usize) {
        w.atom("nil");
    }

    /// Another process asks for the state. `None`: it is taken, and answered by [`StateRequest::answer`] later; what is given
    /// back is answered with [`state`](Self::state) at once.
    #[doc(hidden)]
    fn ask_state(&self, asked: StateRequest) -> Option<StateRequest> {
        Some(asked)
    }

    /// Whether the server asks for room before it writes a large answer ([`Turn::has_room`]) and has the call wait
    /// where there is none, or writes small answers only. Calls to any other server, also those whose answers would be
    /// small, wait before they are handled while large answers have no room.
    fn waits_for_room(&self) -> bool {
        false
    }

    /// Messages that have come and are not handled yet, as `Process.info/2` tells: none where messages are handled as
    /// they come.
    fn messages_waiting(&self) -> usize {
        0
    }

    /// Bytes of these.
    fn bytes_waiting(&self) -> usize {
        0
    }

    /// What the process is counted under until it has a name ([`Snapshot::servers`](crate::node::Snapshot::servers)): the
    /// Rust type, unless this is written.
    fn type_name(&self) -> &'static str {
        std::any::type_name::<Self>()
    }

    /// Another process holds a name in `global` that is to be this one's, `me`: somewhere in the clusters that this node is
    /// connected to. Told by each connected node that says so, again at each look (every 5 s), until the name is free; it is
    /// registered for `me` then. Must not block.
    #[doc(hidden)]
    fn global_name_taken(&self, _me: &Process, _name: &str, _holder: &Pid) {}

    /// The module that `:sys.get_status/1` names as the server's own, as the text of its atom.
    fn module(&self) -> &str {
        "kvnode"
    }
}

/// A message that was too large to be received: see [`GenServer::handle_skipped`].
#[derive(Clone, Copy, Debug)]
pub struct SkippedMessage<'a> {
    /// The first bytes of its term, in the external term format without the version byte: 64 KiB at most.
    pub beginning: &'a [u8],
    /// How large it was, and what it is over.
    pub size: TooLarge,
}

/// What exit signals from other processes do to a process of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ExitSignals {
    /// The process ends with the signal's reason, unless that is `normal`.
    #[default]
    Obey,
    /// They are messages, `{:EXIT, pid, reason}`: as after `Process.flag(:trap_exit, true)`. Only
    /// `Process.exit(pid, :kill)` ends the process.
    Trap,
    /// They do nothing, and `GenServer.stop/1` neither: for processes without which there is no node.
    Ignore,
}

/// A caller that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Caller<'a> {
    pid: PidView<'a>,
    pid_bytes: &'a [u8],
    tag: TermView<'a>,
    /// The alias inside the tag, encoded, and its node.
    alias: Option<(&'a [u8], AtomView<'a>)>,
}

impl<'a> Caller<'a> {
    /// Reads `{Pid, Tag}`.
    ///
    /// # Errors
    /// The caller's: not of that form.
    #[inline]
    pub fn parse(cursor: &mut Cursor<'a>) -> Result<Self, TermError> {
        let whole = *cursor;
        if cursor.tuple()? != 2 {
            return Err(TermError::Unexpected { wanted: "{pid, tag}", tag: whole.peek()? });
        }
        let before = cursor.rest();
        let pid = cursor.pid()?;
        let pid_bytes = &before[..before.len() - cursor.rest().len()];
        if let Some((tag, alias)) = alias_tag(cursor) {
            return Ok(Self { pid, pid_bytes, tag, alias: Some(alias) });
        }
        let tag = cursor.term()?;
        Ok(Self { pid, pid_bytes, tag, alias: alias_in(tag) })
    }

    /// The calling process.
    pub const fn pid(&self) -> PidView<'a> {
        self.pid
    }

    /// What the answer has to carry.
    pub const fn tag(&self) -> TermView<'a> {
        self.tag
    }

    /// The node that the answer goes to.
    #[inline]
    pub fn node(&self) -> AtomView<'a> {
        self.alias.map_or(self.pid.node, |(_, node)| node)
    }

    /// The caller, to be answered later.
    pub fn to_owned(&self, from: &Pid) -> OwnedCaller {
        let node: Arc<str> = self.node().to_str().into();
        // The node of an alias is nearly always that of its process.
        let home = if self.pid.node == *node { Arc::clone(&node) } else { self.pid.node.to_str().into() };
        let PidView { id, serial, creation, .. } = self.pid;
        OwnedCaller {
            from: from.clone(),
            pid: Pid { node: home, id, serial, creation },
            node,
            pid_bytes: self.pid_bytes.into(),
            tag_bytes: self.tag.bytes().into(),
        }
    }

    /// Writes the answer's frame.
    #[inline]
    pub(super) fn write_reply(
        &self,
        from_bytes: &[u8],
        out: &mut Outbound,
        reply: impl FnOnce(&mut TermWriter<'_>) -> Option<SharedBytes>,
    ) {
        let open = out.begin();
        let form = out.alias_form();
        let mut term = out.term();
        match self.alias {
            Some((alias, _)) => {
                form.write(&mut term, Addresses { from: from_bytes, alias, to: self.pid_bytes });
            }
            None => write_send(&mut term, self.pid_bytes),
        }
        let mut payload = out.payload();
        payload.raw(&[SMALL_TUPLE_EXT, 2]).term(self.tag);
        let shared = reply(&mut payload);
        match (self.alias, shared) {
            (Some(_), None) => out.finish_for(open, (self.pid.id, self.pid.serial)),
            (None, None) => out.finish(open),
            (_, Some(shared)) => out.finish_with_shared(open, shared, Some((self.pid.id, self.pid.serial))),
        }
    }
}

/// `[alias | Ref]` up to the reference, as every BEAM writes it.
const ALIAS_TAG_HEAD: [u8; 12] = [LIST_EXT, 0, 0, 0, 1, SMALL_ATOM_UTF8_EXT, 5, b'a', b'l', b'i', b'a', b's'];

/// The tag of nearly every call, `[alias | Ref]`, read in one go.
#[inline]
fn alias_tag<'a>(cursor: &mut Cursor<'a>) -> Option<(TermView<'a>, (&'a [u8], AtomView<'a>))> {
    let whole = cursor.rest();
    let mut inside = Cursor::new(whole.strip_prefix(&ALIAS_TAG_HEAD)?);
    let reference = inside.reference().ok()?;
    let len = whole.len() - inside.rest().len();
    let wide = reference.words().len() > 3;
    let traits = if wide { Traits::V4_NC } else { Traits::none() };
    *cursor = inside;
    Some((TermView::trusted(&whole[..len], traits), (&whole[ALIAS_TAG_HEAD.len()..len], reference.node)))
}

/// The alias in `[alias | Ref]` and in `[[alias | Ref] | _]`: its encoded bytes and its node.
#[inline]
fn alias_in(tag: TermView<'_>) -> Option<(&[u8], AtomView<'_>)> {
    if tag.tag() != LIST_EXT {
        return None;
    }
    let mut cursor = tag.cursor();
    if cursor.list().ok()? != 1 {
        return None;
    }
    if cursor.peek().ok()? == LIST_EXT && cursor.list().ok()? != 1 {
        return None;
    }
    if cursor.atom().ok()? != "alias" {
        return None;
    }
    let before = cursor.rest();
    let reference = cursor.reference().ok()?;
    Some((&before[..before.len() - cursor.rest().len()], reference.node))
}

/// A caller that is answered after its message has been handled. Dropped unanswered, the call ends by the
/// caller's own time-out.
#[derive(Clone, Debug)]
pub struct OwnedCaller {
    /// The process that was called.
    from: Pid,
    pid: Pid,
    node: Arc<str>,
    /// The pid as it came: it goes back bit for bit.
    pid_bytes: Box<[u8]>,
    tag_bytes: Box<[u8]>,
}

impl OwnedCaller {
    /// The calling process.
    pub const fn pid(&self) -> &Pid {
        &self.pid
    }

    /// The node that the answer goes to.
    pub const fn node(&self) -> &Arc<str> {
        &self.node
    }

    /// Ends the call without an answer, as [`Turn::end_call`] does, by the effect that this gives. `process` is the
    /// one that was called.
    pub(crate) fn end(self, process: ProcessId, reason: impl FnOnce(&mut TermWriter<'_>)) -> Effect {
        Effect::EndCall(self.ended(process, reason))
    }

    fn ended(self, process: ProcessId, reason: impl FnOnce(&mut TermWriter<'_>)) -> EndedCall {
        EndedCall {
            process,
            caller_node: self.pid.node,
            caller: (self.pid.id, self.pid.serial),
            tag: self.tag_bytes,
            reason: crate::etf::encode(reason).into(),
        }
    }

    /// Answers, from any thread. A [`Node`](crate::Node) is a [`Dispatch`]. Where the answer has no room among what waits
    /// for the caller's node, the call ends by its monitor instead, with `{:system_limit, :busy_dist_port}`.
    pub fn reply(self, dispatch: &dyn Dispatch, reply: impl FnOnce(&mut TermWriter<'_>)) {
        let mut frames = self.answer(reply);
        if dispatch.send(&self.node, &mut frames).is_err() {
            self.end_call(dispatch, NoRoom::write);
        }
    }

    /// Ends the call without an answer, from any thread, as [`Turn::end_call`] does.
    pub fn end_call(self, dispatch: &dyn Dispatch, reason: impl FnOnce(&mut TermWriter<'_>)) {
        let process = ProcessId::of(&self.from);
        dispatch.end_call(self.ended(process, reason));
    }

    /// The frame of an answer.
    pub(crate) fn answer(&self, reply: impl FnOnce(&mut TermWriter<'_>)) -> Outbound {
        let from_bytes = crate::etf::encode(|w| {
            w.pid(&self.from);
        });
        let mut cursor = Cursor::new(&self.pid_bytes);
        let pid = cursor.pid().expect("it was read as a pid when the call came");
        let tag = TermView::trusted(&self.tag_bytes, Traits::none());
        let caller = Caller { pid, pid_bytes: &self.pid_bytes, tag, alias: alias_in(tag) };
        let mut out = Outbound::default();
        caller.write_reply(&from_bytes, &mut out, |w| {
            reply(w);
            None
        });
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{Reference, encode};

    fn reference(words: usize) -> Reference {
        Reference { node: "m@h".into(), creation: 3, words: (0..words as u32).collect() }
    }

    fn pid() -> Pid {
        Pid { node: "n@h".into(), id: 1, serial: 0, creation: 3 }
    }

    fn from(tag: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
        encode(|w| {
            w.tuple(2).pid(&pid());
            tag(w);
        })
    }

    fn destination(bytes: &[u8]) -> (Option<usize>, String) {
        let caller = Caller::parse(&mut Cursor::new(bytes)).expect("a caller");
        let words = caller.alias.map(|(bytes, _)| {
            let term = TermView::parse(bytes).expect("an alias is a reference");
            term.as_reference().expect("an alias is a reference").words().len()
        });
        (words, caller.node().to_str().into_owned())
    }

    #[test]
    fn the_answer_goes_to_the_alias_in_the_tag_or_else_to_the_pid() {
        let plain = from(|w| {
            w.reference(&reference(3));
        });
        assert_eq!(destination(&plain), (None, "n@h".into()));
        let alias = from(|w| {
            w.list(1).atom("alias").reference(&reference(3));
        });
        assert_eq!(destination(&alias), (Some(3), "m@h".into()));
        let nested = from(|w| {
            w.list(1).list(1).atom("alias").reference(&reference(5)).reference(&reference(3));
        });
        assert_eq!(destination(&nested), (Some(5), "m@h".into()));
        let request_id = from(|w| {
            w.tuple(2).atom("$gen_request_id").reference(&reference(3));
        });
        assert_eq!(destination(&request_id), (None, "n@h".into()));
        let odd = from(|w| {
            w.list(1).atom("aliases").reference(&reference(3));
        });
        assert_eq!(destination(&odd), (None, "n@h".into()));
    }
}
