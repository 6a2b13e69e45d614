//! Frames on their way to one peer: encoded once, written in as few calls as the socket allows.
//!
//! Small frames share one buffer. A large one is kept by itself: with the value in the store's own memory, which is never
//! copied, or in the memory that it was written into. So [`Outflow`](super::Outflow) can let small frames pass large
//! ones, and cut large ones into fragments; written straight from here, every message is one frame. Control messages
//! are written in the forms that every OTP version from 23 on takes; what depends on the flags in force says so.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::mem;

use super::AliasForm;
use super::control::op;
use super::frame::{DIST_HEADER, FrameForm, PASS_THROUGH};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Cursor, Pid, QueuedBytes, Reference, SharedBytes, TermError, TermWriter};

/// A frame from this size on is kept by itself. BEAMs cut what is larger into fragments of this size.
pub const LARGE_BYTES: usize = 64 << 10;
/// A buffer larger than this is given back once it is written.
const KEEP_BYTES: usize = 256 << 10;
/// Slices handed to one write.
const SLICES_MAX: usize = 16;

/// The number of a process on the peer, as its pid has it: id and serial.
pub(super) type ProcessNumber = (u32, u32);

/// A frame that is kept by itself.
#[derive(Debug)]
pub(super) struct KeptFrame {
    /// The length, what stands before the control message, and perhaps more of the frame.
    pub(super) head: Vec<u8>,
    /// The rest of it.
    pub(super) body: QueuedBytes,
    /// Whether the body is memory that it shares with a store.
    pub(super) is_shared: bool,
    /// Whether it is one that others may pass, or a fragment of one: what is shared may be small.
    pub(super) is_large: bool,
    /// The process that it is for, where the control message does not tell.
    pub(super) to: Option<ProcessNumber>,
}

impl KeptFrame {
    /// All bytes of it, its length among them.
    pub(super) fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// What of its control message and payload stands in the head.
    pub(super) fn in_head(&self, form: FrameForm) -> &[u8] {
        self.head.get(4 + form.head().len()..).unwrap_or_default()
    }
}

/// Writes the length of a frame into the four bytes that were left for it, the first of the frame.
#[expect(clippy::indexing_slicing, reason = "they were written when the frame was begun")]
pub(super) fn set_length(head: &mut [u8], len: u32) {
    head[..4].copy_from_slice(&len.to_be_bytes());
}

#[derive(Debug)]
pub(super) enum Segment {
    /// Whole small frames.
    Run(Vec<u8>),
    /// One frame that is kept by itself.
    Kept(KeptFrame),
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Run(bytes) => bytes.len(),
            Self::Kept(frame) => frame.len(),
        }
    }

    /// Bytes of a large frame; of any other 0.
    fn large_len(&self) -> usize {
        match self {
            Self::Kept(frame) if frame.is_large => frame.len(),
            Self::Kept(_) | Self::Run(_) => 0,
        }
    }
}

/// What may still be put into an output, as its connection says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// A frame of less than [`LARGE_BYTES`].
    pub small: bool,
    /// A larger one.
    pub large: bool,
}

impl Room {
    /// Nothing waits that matters.
    pub const FREE: Self = Self { small: true, large: true };
}

impl Default for Room {
    fn default() -> Self {
        Self::FREE
    }
}

/// What waits to be written to one peer, in order.
#[derive(Debug)]
pub struct Outbound {
    form: FrameForm,
    alias_form: AliasForm,
    sealed: VecDeque<Segment>,
    sealed_bytes: usize,
    /// Bytes of the large frames among them.
    large_bytes: usize,
    tail: Vec<u8>,
    /// Bytes of the front segment (of `tail`, when nothing is sealed) that have been written.
    written: usize,
    /// Answers are noted in `addressed`.
    is_addressed: bool,
    /// The processes that answers to aliases are for, in the order of these frames: an alias does not tell.
    addressed: Vec<ProcessNumber>,
    room: Room,
}

impl Default for Outbound {
    fn default() -> Self {
        Self::new(FrameForm::default(), AliasForm::default())
    }
}

/// A frame that is being written: where it began.
#[must_use = "a frame has to be finished"]
#[derive(Debug)]
pub struct OpenFrame(usize);

/// A place in the output, as [`Outbound::mark`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    sealed: usize,
    tail: usize,
    addressed: usize,
}

impl Outbound {
    /// Nothing yet, for a peer with frames of these forms. ([`Outbound::default`] is for frames whose peer is not
    /// known yet: see [`append`](Self::append).)
    pub fn new(form: FrameForm, alias_form: AliasForm) -> Self {
        Self {
            form,
            alias_form,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            large_bytes: 0,
            tail: Vec::new(),
            written: 0,
            is_addressed: true,
            addressed: Vec::new(),
            room: Room::FREE,
        }
    }

    /// From now on the addressees of answers are noted, which they are by default, or not.
    pub const fn set_addressed(&mut self, is_addressed: bool) {
        self.is_addressed = is_addressed;
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

    /// Bytes of the small frames that wait.
    #[inline]
    pub(super) fn small_len(&self) -> usize {
        let written = match self.sealed.front() {
            Some(front) if front.large_len() > 0 => 0,
            _ => self.written,
        };
        self.sealed_bytes - self.large_bytes + self.tail.len() - written
    }

    /// Bytes of the large frames, with what has been written of the one at the front.
    #[inline]
    pub(super) const fn large_len(&self) -> usize {
        self.large_bytes
    }

    /// Whether a large frame is among what waits.
    #[inline]
    pub(super) const fn has_large(&self) -> bool {
        self.large_bytes > 0
    }

    /// What may still be put in.
    #[inline]
    pub const fn room(&self) -> Room {
        self.room
    }

    /// Says what may still be put in.
    #[inline]
    pub const fn set_room(&mut self, room: Room) {
        self.room = room;
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
        let len = self.tail.len() - open.0;
        if len >= LARGE_BYTES {
            return self.finish_kept(&open, None, None);
        }
        #[expect(clippy::indexing_slicing, reason = "`begin` has written four bytes there")]
        self.tail[open.0..open.0 + 4].copy_from_slice(&(len as u32 - 4).to_be_bytes());
    }

    /// Ends a frame that goes to an alias of process `to`.
    #[inline]
    pub fn finish_for(&mut self, open: OpenFrame, to: (u32, u32)) {
        if self.tail.len() - open.0 >= LARGE_BYTES {
            return self.finish_kept(&open, None, Some(to));
        }
        self.finish(open);
        if self.is_addressed {
            self.addressed.push(to);
        }
    }

    /// Ends a frame with bytes that are not copied. `to`: the process, where the frame goes to an alias.
    pub fn finish_with_shared(&mut self, open: OpenFrame, shared: SharedBytes, to: Option<(u32, u32)>) {
        self.finish_kept(&open, Some(shared), to);
    }

    #[cold]
    #[expect(clippy::indexing_slicing, reason = "`begin` has written the head of a frame there")]
    fn finish_kept(&mut self, open: &OpenFrame, shared: Option<SharedBytes>, to: Option<ProcessNumber>) {
        let is_shared = shared.is_some();
        let (mut head, body) = match shared {
            Some(shared) => (self.tail.split_off(open.0), QueuedBytes::from(shared)),
            None => {
                // What stands before is little, and is what is copied.
                let before = self.tail[..open.0].to_vec();
                let frame = mem::replace(&mut self.tail, before);
                let split = open.0 + 4 + self.form.head().len();
                let (head, len) = (frame[open.0..split].to_vec(), frame.len());
                (head, QueuedBytes::from(SharedBytes::from(frame)).part(split..len))
            }
        };
        let len = u32::try_from(head.len() + body.len() - 4);
        let len = len.expect("what is stored came in a frame, and a frame is under 4 GiB");
        set_length(&mut head, len);
        let is_large = head.len() + body.len() >= LARGE_BYTES;
        let frame = KeptFrame { head, body, is_shared, is_large, to };
        // The answers behind a large one may be let pass it.
        self.is_addressed |= is_large;
        self.push_kept(frame);
    }

    pub(super) fn push_kept(&mut self, frame: KeptFrame) {
        self.seal();
        let segment = Segment::Kept(frame);
        self.sealed_bytes += segment.len();
        self.large_bytes += segment.large_len();
        self.sealed.push_back(segment);
    }

    /// Appends small frames as they are.
    pub(super) fn push_small(&mut self, frames: &[u8]) {
        self.tail.extend_from_slice(frames);
    }

    #[cfg(test)]
    pub(super) const fn tail_for_tests(&mut self) -> &mut Vec<u8> {
        &mut self.tail
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.sealed_bytes += self.tail.len();
            self.sealed.push_back(Segment::Run(mem::take(&mut self.tail)));
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
            let (is_addressed, room) = (self.is_addressed, self.room);
            mem::swap(self, other);
            (other.is_addressed, other.room) = (self.is_addressed, self.room);
            (self.is_addressed, self.room) = (is_addressed, room);
            if !is_addressed {
                self.addressed.clear();
            }
            other.clear();
            return;
        }
        if other.sealed.is_empty() && other.tail.len() <= KEEP_BYTES {
            self.tail.extend_from_slice(&other.tail);
        } else {
            self.seal();
            other.seal();
            self.sealed_bytes += other.sealed_bytes;
            self.large_bytes += other.large_bytes;
            self.sealed.append(&mut other.sealed);
        }
        if self.is_addressed {
            self.addressed.append(&mut other.addressed);
        }
        other.clear();
    }

    /// Takes all that waits, in order, with the addressees of answers.
    pub(super) fn take_segments(&mut self) -> (VecDeque<Segment>, Vec<ProcessNumber>) {
        debug_assert_eq!(self.written, 0, "only a queue that is not written from is taken apart");
        self.seal();
        let taken = (mem::take(&mut self.sealed), mem::take(&mut self.addressed));
        self.clear();
        taken
    }

    /// Gives frames whose peer was not known the forms of their peer.
    fn reform(&mut self, form: FrameForm, alias_form: AliasForm) {
        debug_assert_eq!(self.form, FrameForm::PassThrough, "frames for a known peer go to that peer");
        let mut new =
            Self { is_addressed: self.is_addressed, room: self.room, ..Self::new(form, alias_form) };
        self.seal();
        for segment in mem::take(&mut self.sealed) {
            let reformed = match segment {
                Segment::Run(frames) => new.reform_small(&frames),
                Segment::Kept(frame) => new.reform_kept(frame),
            };
            debug_assert_eq!(reformed, Ok(()), "our own frames are well formed");
        }
        new.addressed = mem::take(&mut self.addressed);
        *self = new;
    }

    fn reform_small(&mut self, frames: &[u8]) -> Result<(), TermError> {
        for contents in small_frames(frames) {
            let Some(contents) = contents.strip_prefix(&[PASS_THROUGH]) else {
                self.tick();
                continue;
            };
            let mut cursor = Cursor::new(contents);
            cursor.version()?;
            let control = cursor.term()?;
            let (open, alias_form) = (self.begin(), self.alias_form);
            alias_form.settle(control, &mut self.term());
            if let [VERSION_MAGIC, payload @ ..] = cursor.rest() {
                self.payload().raw(payload);
            }
            self.finish(open);
        }
        Ok(())
    }

    fn reform_kept(&mut self, frame: KeptFrame) -> Result<(), TermError> {
        let in_head = frame.in_head(FrameForm::PassThrough);
        let at_head = !in_head.is_empty();
        let mut cursor = Cursor::new(if at_head { in_head } else { &frame.body });
        let control = cursor.term()?;
        let payload = cursor.rest().strip_prefix(&[VERSION_MAGIC]).unwrap_or_default();
        let mut new = vec![0; 4];
        new.extend_from_slice(self.form.head());
        self.alias_form.settle(control, &mut TermWriter::new(&mut new));
        new.extend_from_slice(self.form.payload_head());
        let body = if at_head {
            new.extend_from_slice(payload);
            frame.body
        } else {
            frame.body.part(frame.body.len() - payload.len()..frame.body.len())
        };
        let len = u32::try_from(new.len() + body.len() - 4).unwrap_or(u32::MAX);
        set_length(&mut new, len);
        self.push_kept(KeptFrame { head: new, body, ..frame });
        Ok(())
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.sealed.clear();
        (self.sealed_bytes, self.large_bytes) = (0, 0);
        self.addressed.clear();
        self.tail.clear();
        if self.tail.capacity() > KEEP_BYTES {
            self.tail = Vec::new();
        }
        self.written = 0;
    }

    /// The bytes to write next, in order.
    pub fn slices<'s>(&'s self, into: &mut Vec<IoSlice<'s>>) {
        into.clear();
        let mut skip = self.written;
        let mut push = |bytes: &'s [u8]| {
            let skipped = skip.min(bytes.len());
            skip -= skipped;
            if let Some(left @ [_, ..]) = bytes.get(skipped..) {
                into.push(IoSlice::new(left));
            }
        };
        for segment in self.sealed.iter().take(SLICES_MAX / 2) {
            match segment {
                Segment::Run(bytes) => push(bytes),
                Segment::Kept(frame) => {
                    push(&frame.head);
                    push(&frame.body);
                }
            }
        }
        if self.sealed.len() <= SLICES_MAX / 2 {
            push(&self.tail);
        }
    }

    /// The bytes to write next where they are one run, as they nearly always are.
    #[inline]
    pub fn single_slice(&self) -> Option<&[u8]> {
        if self.sealed.is_empty() { self.tail.get(self.written..) } else { None }
    }

    /// That `len` bytes of the slices have been written.
    pub fn advance(&mut self, len: usize) {
        self.written += len;
        while let Some(front) = self.sealed.front() {
            let front_len = front.len();
            if self.written < front_len {
                return;
            }
            self.written -= front_len;
            self.sealed_bytes -= front_len;
            self.large_bytes -= front.large_len();
            self.sealed.pop_front();
        }
        if self.written == self.tail.len() {
            self.clear();
        }
    }

    /// Where the output ends now, for [`rollback`](Self::rollback).
    #[inline]
    pub fn mark(&self) -> Mark {
        Mark { sealed: self.sealed.len(), tail: self.tail.len(), addressed: self.addressed.len() }
    }

    /// Takes back what was added after `mark`, complete frames and a begun one. Nothing may have been written from the
    /// queue in between.
    pub fn rollback(&mut self, mark: Mark) {
        if self.sealed.len() > mark.sealed {
            // What was the tail has been sealed since.
            let mut after = self.sealed.split_off(mark.sealed);
            for segment in &after {
                self.sealed_bytes -= segment.len();
                self.large_bytes -= segment.large_len();
            }
            self.tail = match after.pop_front() {
                Some(Segment::Run(tail)) if mark.tail > 0 => tail,
                _ => Vec::new(),
            };
        }
        self.tail.truncate(mark.tail);
        self.addressed.truncate(mark.addressed);
    }

    /// Gives memory back.
    pub fn rest(&mut self) {
        if self.is_empty() {
            let (is_addressed, room) = (self.is_addressed, self.room);
            *self = Self { is_addressed, room, ..Self::new(self.form, self.alias_form) };
        }
    }
}

/// The contents of whole small frames; of a tick none.
pub(super) fn small_frames(mut frames: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (head, after) = frames.split_first_chunk::<4>()?;
        let len = (u32::from_be_bytes(*head) as usize).min(after.len());
        let (contents, rest) = after.split_at(len);
        frames = rest;
        Some(contents)
    })
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

    /// `SEND` of a term whose last part, encoded, is not copied, where `message` gives it.
    pub fn send_ending(
        &mut self,
        to: &Pid,
        message: impl FnOnce(&mut TermWriter<'_>) -> Option<SharedBytes>,
    ) {
        let open = self.begin();
        self.term().tuple(3).unsigned(op::SEND).atom("").pid(to);
        match message(&mut self.payload()) {
            Some(last) => self.finish_with_shared(open, last, None),
            None => self.finish(open),
        }
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
mod tests;
