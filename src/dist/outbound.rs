//! Frames on their way to one peer: encoded once, written in as few calls as the socket allows.
//!
//! Small frames share one buffer; a large value is queued as a reference to the store's own memory and is never
//! copied. Control messages are written in the forms that every OTP version from 23 on takes; what depends on the
//! flags in force says so.
//!
//! Every message is one frame, also where FRAGMENTS is in force and a peer may send in fragments: see
//! [`DistributionFlags::OFFERED_BECAUSE`](super::DistributionFlags::OFFERED_BECAUSE).

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use super::AliasForm;
use super::control::op;
use super::frame::{DIST_HEADER, FrameForm, PASS_THROUGH};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Cursor, Pid, Reference, SharedBytes, TermError, TermWriter};

/// A buffer larger than this is given back once it is written.
const KEEP_BYTES: usize = 256 << 10;
/// Slices handed to one write.
const SLICES_MAX: usize = 16;

#[derive(Debug)]
enum Segment {
    Owned(Vec<u8>),
    Shared(SharedBytes),
}

impl Segment {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// What waits to be written to one peer, in order.
#[derive(Debug, Default)]
pub struct Outbound {
    form: FrameForm,
    alias_form: AliasForm,
    sealed: VecDeque<Segment>,
    sealed_bytes: usize,
    tail: Vec<u8>,
    /// Bytes of the front segment (of `tail`, when nothing is sealed) that have been written.
    written: usize,
}

/// A frame that is being written: where it began.
#[must_use = "a frame has to be finished"]
#[derive(Debug)]
pub struct OpenFrame(usize);

/// A place in the output, as [`Outbound::mark`] gives it.
#[derive(Clone, Copy, Debug)]
pub struct Mark {
    sealed: usize,
    tail: usize,
}

impl Outbound {
    /// Nothing yet, for a peer with frames of these forms. ([`Outbound::default`] is for frames whose peer is not
    /// known yet: see [`append`](Self::append).)
    pub fn new(form: FrameForm, alias_form: AliasForm) -> Self {
        Self { form, alias_form, ..Self::default() }
    }

    /// How answers to aliases are written here.
    #[inline]
    pub(crate) const fn alias_form(&self) -> AliasForm {
        self.alias_form
    }

    /// Bytes that wait.
    #[inline]
    pub fn len(&self) -> usize {
        self.sealed_bytes + self.tail.len() - self.written
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins a frame; the control message comes next, by [`term`](Self::term).
    #[inline]
    pub fn begin(&mut self) -> OpenFrame {
        let open = OpenFrame(self.tail.len());
        match self.form {
            FrameForm::PassThrough => self.tail.extend_from_slice(&[0, 0, 0, 0, PASS_THROUGH, VERSION_MAGIC]),
            FrameForm::DistHeader => {
                self.tail.extend_from_slice(&[0, 0, 0, 0, VERSION_MAGIC, DIST_HEADER, 0])
            }
        }
        open
    }

    /// Writes the next part of a term.
    #[inline]
    pub const fn term(&mut self) -> TermWriter<'_> {
        TermWriter::new(&mut self.tail)
    }

    /// Ends the control message; the payload comes next.
    #[inline]
    pub fn payload(&mut self) -> TermWriter<'_> {
        if self.form == FrameForm::PassThrough {
            self.tail.push(VERSION_MAGIC);
        }
        TermWriter::new(&mut self.tail)
    }

    /// Ends a frame.
    #[inline]
    pub fn finish(&mut self, open: OpenFrame) {
        self.finish_with_len(open, 0);
    }

    /// Ends a frame with bytes that are not copied.
    pub fn finish_with_shared(&mut self, open: OpenFrame, shared: SharedBytes) {
        self.finish_with_len(open, shared.len());
        self.seal();
        self.sealed_bytes += shared.len();
        self.sealed.push_back(Segment::Shared(shared));
    }

    fn finish_with_len(&mut self, open: OpenFrame, more: usize) {
        let len = self.tail.len() - open.0 - 4 + more;
        let len = u32::try_from(len).expect("what is stored came in a frame, and a frame is under 4 GiB");
        self.tail[open.0..open.0 + 4].copy_from_slice(&len.to_be_bytes());
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed_bytes += self.tail.len();
            self.sealed.push_back(Segment::Owned(mem::take(&mut self.tail)));
        }
    }

    /// A tick: a frame of length 0.
    pub fn tick(&mut self) {
        self.tail.extend_from_slice(&[0; 4]);
    }

    /// Appends all that waits in `other`, which has written nothing yet, and empties it. Frames for a peer that was
    /// not known when they were written take the forms of this one.
    pub fn append(&mut self, other: &mut Self) {
        debug_assert_eq!(other.written, 0, "only a queue that is not written from is appended");
        if (self.form, self.alias_form) != (other.form, other.alias_form) {
            other.reform(self.form, self.alias_form);
        }
        if self.is_empty() {
            mem::swap(self, other);
            other.clear();
            return;
        }
        if other.sealed.is_empty() && other.tail.len() <= KEEP_BYTES {
            self.tail.extend_from_slice(&other.tail);
        } else {
            self.seal();
            other.seal();
            self.sealed_bytes += other.sealed_bytes;
            self.sealed.append(&mut other.sealed);
        }
        other.clear();
    }

    /// Gives frames whose peer was not known the forms of their peer.
    fn reform(&mut self, form: FrameForm, alias_form: AliasForm) {
        debug_assert_eq!(self.form, FrameForm::PassThrough, "frames for a known peer go to that peer");
        let mut new = Self::new(form, alias_form);
        self.seal();
        let mut segments = mem::take(&mut self.sealed).into_iter().peekable();
        while let Some(segment) = segments.next() {
            let mut rest = segment.as_slice();
            while let Some((head, after)) = rest.split_first_chunk::<4>() {
                let len = u32::from_be_bytes(*head) as usize;
                let contents = &after[..len.min(after.len())];
                rest = &after[contents.len()..];
                if contents.is_empty() {
                    new.tick();
                    continue;
                }
                let open = new.begin();
                let copied = copy_settled(contents, &mut new);
                debug_assert_eq!(copied, Ok(()), "our own frames are well formed");
                // The value of a frame that is not all here is the next segment.
                match segments.next_if(|_| contents.len() < len) {
                    Some(Segment::Shared(shared)) => new.finish_with_shared(open, shared),
                    Some(Segment::Owned(_)) | None => new.finish(open),
                }
            }
        }
        *self = new;
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.sealed.clear();
        self.sealed_bytes = 0;
        self.tail.clear();
        if self.tail.capacity() > KEEP_BYTES {
            self.tail = Vec::new();
        }
        self.written = 0;
    }

    /// The bytes to write next, in order.
    pub fn slices<'s>(&'s self, into: &mut Vec<IoSlice<'s>>) {
        into.clear();
        let tail = Some(self.tail.as_slice()).filter(|tail| !tail.is_empty());
        let mut skip = self.written;
        for bytes in self.sealed.iter().map(Segment::as_slice).chain(tail).take(SLICES_MAX) {
            into.push(IoSlice::new(&bytes[skip..]));
            skip = 0;
        }
    }

    /// The bytes to write next where they are one run, as they nearly always are.
    #[inline]
    pub fn single_slice(&self) -> Option<&[u8]> {
        if self.sealed.is_empty() { Some(&self.tail[self.written..]) } else { None }
    }

    /// That `len` bytes of the slices have been written.
    pub fn advance(&mut self, len: usize) {
        self.written += len;
        while let Some(front) = self.sealed.front() {
            let front_len = front.as_slice().len();
            if self.written < front_len {
                return;
            }
            self.written -= front_len;
            self.sealed_bytes -= front_len;
            self.sealed.pop_front();
        }
        if self.written == self.tail.len() {
            self.clear();
        }
    }

    /// Where the output ends now, for [`rollback`](Self::rollback).
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { sealed: self.sealed.len(), tail: self.tail.len() }
    }

    /// Takes back what was added after `mark`, complete frames and a begun one. Nothing may have been written from the
    /// queue in between.
    pub fn rollback(&mut self, mark: Mark) {
        if self.sealed.len() > mark.sealed {
            // What was the tail has been sealed since.
            let after: Vec<Segment> = self.sealed.drain(mark.sealed..).collect();
            self.sealed_bytes = self.sealed.iter().map(|segment| segment.as_slice().len()).sum();
            self.tail = match after.into_iter().next() {
                Some(Segment::Owned(tail)) if mark.tail > 0 => tail,
                _ => Vec::new(),
            };
        }
        self.tail.truncate(mark.tail);
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        if self.is_empty() {
            *self = Self::new(self.form, self.alias_form);
        }
    }
}

/// Copies a pass-through frame's contents in the forms of `out`.
fn copy_settled(contents: &[u8], out: &mut Outbound) -> Result<(), TermError> {
    let terms = contents.strip_prefix(&[PASS_THROUGH]).ok_or(TermError::Truncated)?;
    let mut cursor = Cursor::new(terms);
    cursor.version()?;
    let control = cursor.term()?;
    out.alias_form.settle(control, &mut out.term());
    if let [VERSION_MAGIC, payload @ ..] = cursor.rest() {
        out.payload().raw(payload);
    }
    Ok(())
}

/// The control messages that the node sends by itself.
impl Outbound {
    /// `SEND` to a pid, with the message in `message`. (Every BEAM takes it, also where `SEND_SENDER` is in
    /// force, and it is the shorter one.)
    pub fn send(&mut self, to: &Pid, message: impl FnOnce(&mut TermWriter<'_>)) {
        let open = self.begin();
        self.term().tuple(3).unsigned(op::SEND).atom("").pid(to);
        message(&mut self.payload());
        self.finish(open);
    }

    /// `REG_SEND` to a name registered on the peer.
    pub fn reg_send(&mut self, from: &Pid, to_name: &str, message: impl FnOnce(&mut TermWriter<'_>)) {
        let open = self.begin();
        self.term().tuple(4).unsigned(op::REG_SEND).pid(from).atom("").atom(to_name);
        message(&mut self.payload());
        self.finish(open);
    }

    /// `LINK` of a process of ours to one on the peer.
    pub fn link(&mut self, from: &Pid, to: &Pid) {
        let open = self.begin();
        self.term().tuple(3).unsigned(op::LINK).pid(from).pid(to);
        self.finish(open);
    }

    /// `MONITOR_P` of a process on the peer.
    pub fn monitor(&mut self, from: &Pid, to: &super::RemoteProcess, reference: &Reference) {
        self.watch(op::MONITOR_P, from, to, reference);
    }

    /// `DEMONITOR_P`: the monitor is taken back.
    pub fn demonitor(&mut self, from: &Pid, to: &super::RemoteProcess, reference: &Reference) {
        self.watch(op::DEMONITOR_P, from, to, reference);
    }

    /// A message to a process on the peer: `SEND` or `REG_SEND`.
    pub fn send_to(
        &mut self,
        from: &Pid,
        to: &super::RemoteProcess,
        message: impl FnOnce(&mut TermWriter<'_>),
    ) {
        match to {
            super::RemoteProcess::Pid(pid) => self.send(pid, message),
            super::RemoteProcess::Name { name, .. } => self.reg_send(from, name, message),
        }
    }

    fn watch(&mut self, operation: u64, from: &Pid, to: &super::RemoteProcess, reference: &Reference) {
        let open = self.begin();
        let mut term = self.term();
        term.tuple(4).unsigned(operation).pid(from);
        match to {
            super::RemoteProcess::Pid(pid) => term.pid(pid),
            super::RemoteProcess::Name { name, .. } => term.atom(name),
        };
        term.reference(reference);
        self.finish(open);
    }

    /// `SPAWN_REQUEST` of `module:function/arity` with the option `monitor`.
    pub fn spawn_request_monitored(
        &mut self,
        request_id: &Reference,
        from: &Pid,
        (module, function, arity): (&str, &str, u8),
        arguments: impl FnOnce(&mut TermWriter<'_>),
    ) {
        let open = self.begin();
        let mut term = self.term();
        term.tuple(6).unsigned(op::SPAWN_REQUEST).reference(request_id).pid(from).pid(from);
        term.tuple(3).atom(module).atom(function).integer(i64::from(arity));
        term.list(1).atom("monitor").nil();
        arguments(&mut self.payload());
        self.finish(open);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::alias_form::Addresses;

    fn drain(out: &mut Outbound, step: usize) -> Vec<u8> {
        let mut written = Vec::new();
        while !out.is_empty() {
            let mut slices = Vec::new();
            out.slices(&mut slices);
            let chunk: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).take(step).collect();
            assert!(!chunk.is_empty(), "something waits, so something can be written");
            out.advance(chunk.len());
            written.extend(chunk);
        }
        written
    }

    /// For a peer with distribution headers.
    fn with_headers(alias_form: AliasForm) -> Outbound {
        Outbound::new(FrameForm::DistHeader, alias_form)
    }

    /// One frame with an answer to an alias, and what it is on the wire in the forms of `out`.
    fn answer(out: &mut Outbound) -> Vec<u8> {
        let term = |id: u8| [97, id];
        let (from, alias, to) = (term(1), term(2), term(3));
        let addresses = Addresses { from: &from, alias: &alias, to: &to };
        let open = out.begin();
        let form = out.alias_form();
        form.write(&mut out.term(), addresses);
        out.payload().atom("x");
        out.finish(open);
        let control = crate::etf::encode(|w| form.write(w, addresses));
        let frame = [out.form.head(), &control, out.form.payload_head(), &[119, 1, b'x']].concat();
        [&(frame.len() as u32).to_be_bytes()[..], &frame].concat()
    }

    fn fill(out: &mut Outbound) -> Vec<u8> {
        let form = out.form;
        let mut expected = Vec::new();
        for (at, shared) in [false, true, true, false].into_iter().enumerate() {
            let open = out.begin();
            out.term().integer(at as i64);
            let value = SharedBytes::from(&*vec![at as u8; 10 * at]);
            out.payload().atom("x");
            let parts = [form.head(), &[97, at as u8], form.payload_head(), &[119, 1, b'x']].concat();
            let len = parts.len() + if shared { value.len() } else { 0 };
            expected.extend_from_slice(&(len as u32).to_be_bytes());
            expected.extend_from_slice(&parts);
            if shared {
                expected.extend_from_slice(&value);
                out.finish_with_shared(open, value);
            } else {
                out.finish(open);
            }
        }
        expected
    }

    #[test]
    fn what_is_queued_comes_out_in_order_whatever_the_writes_take() {
        for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
            for step in [1, 7, 1000] {
                let mut out = Outbound::new(form, AliasForm::Send);
                let expected = fill(&mut out);
                assert_eq!(out.len(), expected.len());
                assert_eq!(drain(&mut out, step), expected);
            }
        }
    }

    #[test]
    fn appending_keeps_the_order_also_when_the_first_is_half_written() {
        let (mut one, mut two) = (Outbound::default(), Outbound::default());
        let mut expected = fill(&mut one);
        expected.extend(fill(&mut two));
        one.advance(3);
        one.append(&mut two);
        assert!(two.is_empty());
        assert_eq!(drain(&mut one, 5), expected[3..]);
    }

    #[test]
    fn frames_for_a_peer_that_was_not_known_take_the_form_of_its_connection() {
        let (mut unknown, mut out) = (Outbound::default(), with_headers(AliasForm::Send));
        let expected = fill(&mut with_headers(AliasForm::Send));
        fill(&mut unknown);
        out.append(&mut unknown);
        assert_eq!(drain(&mut out, 9), expected);
        fill(&mut unknown);
        out.tick();
        out.append(&mut unknown);
        assert_eq!(drain(&mut out, 9)[4..], expected);
    }

    #[test]
    fn answers_for_a_peer_that_was_not_known_are_sent_as_it_takes_them() {
        for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
            for alias_form in [AliasForm::AltactSigSend, AliasForm::AliasSend, AliasForm::Send] {
                let mut known = Outbound::new(form, alias_form);
                let expected = [fill(&mut known), answer(&mut known), fill(&mut known)].concat();
                assert_eq!(drain(&mut known, 1000), expected);
                // Through a queue that does not know the peer either, as while it is being connected to.
                let (mut late, mut connecting) = (Outbound::default(), Outbound::default());
                let mut out = Outbound::new(form, alias_form);
                fill(&mut late);
                answer(&mut late);
                connecting.append(&mut late);
                fill(&mut late);
                connecting.append(&mut late);
                out.append(&mut connecting);
                assert_eq!(drain(&mut out, 7), expected, "{form:?}, {alias_form:?}");
            }
        }
    }
}
