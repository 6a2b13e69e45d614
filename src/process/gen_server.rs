//! The behaviour of our servers, and how their callers are answered.
//!
//! A call is the message `{:"$gen_call", {Pid, Tag}, Request}` (stdlib, `gen.erl`); its answer is `{Tag, Reply}`.
//! The tag is opaque and goes back bit for bit, but for one look inside: where it carries an alias, the answer
//! goes to the alias.

use std::sync::Arc;

use super::{Dispatch, Effects};
use crate::dist::Outbound;
use crate::dist::control::op;
use crate::etf::tag::{LIST_EXT, SMALL_ATOM_UTF8_EXT, SMALL_INTEGER_EXT, SMALL_TUPLE_EXT};
use crate::etf::{AtomView, Cursor, Pid, PidView, SharedBytes, TermError, TermView, TermWriter, Traits};

/// A server that other nodes call.
///
/// It runs inline, on the task of the connection that the message came by, and on several at once: state that
/// changes is behind locks of its own. One that must wait keeps [`Caller::to_owned`] and answers later.
pub trait GenServer: Send + Sync + 'static {
    /// A call. It is answered by [`Effects::reply`], now or later, or ended by [`Effects::end_call`].
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>);

    /// A cast.
    fn handle_cast(&self, request: TermView<'_>, effects: &mut Effects<'_>);

    /// Any other message.
    fn handle_info(&self, _message: TermView<'_>, _effects: &mut Effects<'_>) {}

    /// The module that others are shown as the server's own, as the text of its atom.
    fn module(&self) -> &str {
        "kvnode"
    }
}

/// Who waits for an answer.
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
        OwnedCaller {
            from: from.clone(),
            node: self.node().to_str().into(),
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
        let mut term = out.term();
        match self.alias {
            // erl_dist_protocol, "ALIAS_SEND": {33, FromPid, Alias}
            Some((alias, _)) => term.raw(&ALIAS_SEND_HEAD).raw(from_bytes).raw(alias),
            None => term.raw(&SEND_HEAD).raw(self.pid_bytes),
        };
        let mut payload = out.payload();
        payload.raw(&[SMALL_TUPLE_EXT, 2]).term(self.tag);
        match reply(&mut payload) {
            None => out.finish(open),
            Some(shared) => out.finish_with_shared(open, shared),
        }
    }
}

/// `{33, FromPid, Alias}` up to the pid.
const ALIAS_SEND_HEAD: [u8; 4] = [SMALL_TUPLE_EXT, 3, SMALL_INTEGER_EXT, op::ALIAS_SEND as u8];
/// `{2, '', ToPid}` up to the pid.
const SEND_HEAD: [u8; 6] = [SMALL_TUPLE_EXT, 3, SMALL_INTEGER_EXT, op::SEND as u8, SMALL_ATOM_UTF8_EXT, 0];
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
    from: Pid,
    node: Arc<str>,
    pid_bytes: Box<[u8]>,
    tag_bytes: Box<[u8]>,
}

impl OwnedCaller {
    /// Answers, from any thread.
    pub fn reply(self, dispatch: &dyn Dispatch, reply: impl FnOnce(&mut TermWriter<'_>)) {
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
        dispatch.send(&self.node, &mut out);
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
