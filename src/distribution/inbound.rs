//! Received bytes, and the frames in them.
//!
//! A connected node sends `length:32, frame`; length 0 is a tick (erl_dist_protocol, "Protocol between Connected
//! Nodes"). Memory grows with the bytes that have arrived, never with the length that was claimed.
//!
//! Small frames are handled where they were read. A large one is received into memory of its own, and so are the
//! fragments of a large message: what keeps most of it (a store its value) keeps that memory, and nothing is copied.
//!
//! A message over a bound is skipped: its bytes are thrown away as they come, and at its place stands its beginning
//! ([`Arrival::Skipped`]), by which its sender can be told. So a value that is too large costs the call that brings it, and
//! not the connection, by which everybody else's calls, monitors and names would go.

mod fragments;
mod growing;
mod skipped;

use std::ops::Range;
use std::sync::Arc;

use super::frame::{DIST_FRAG_CONT, DIST_FRAG_HEADER, DIST_HEADER, FRAG_CONT_BYTES, FRAG_HEADER_BYTES};
use super::frame::{FrameForm, PASS_THROUGH};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Pool, PooledBytes};
use fragments::Fragments;
use growing::Growing;
pub use skipped::{Bound, Skipped, TooLarge};
use skipped::{HEAD_BYTES, Skipping};

/// A frame from this size on is received into memory of its own, in bytes.
const LARGE_BYTES: usize = 256 << 10;
/// The rest of a fragment from this size on is received straight into its message, in bytes.
const STRAIGHT_BYTES: usize = 4 << 10;
/// Room that is offered to a read of a connection at rest, and behind what is received straight.
const REST_BYTES: usize = 4 << 10;
/// Room that is offered to a read of a busy connection.
const BUSY_BYTES: usize = 128 << 10;
/// A buffer larger than this is given back when it has been emptied.
const KEEP_BYTES: usize = 512 << 10;

/// What is wrong with a frame. The peer's fault; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// Not of the form that is in force.
    #[error("{}", head_text(*.form, *.first))]
    Head {
        /// The form.
        form: FrameForm,
        /// Its first two bytes; 0 where the frame has fewer.
        first: [u8; 2],
    },
    /// A distribution header with references to an atom cache, which was not offered.
    #[error("{0} references to an atom cache, which was not offered")]
    AtomCache(u8),
    /// A fragment that is not the next one of its message.
    #[error("fragment {number} of sequence {sequence}, {}", due_text(*.expected))]
    Fragment {
        /// Its sequence.
        sequence: u64,
        /// Its number.
        number: u64,
        /// The number that should have come; `None` where nothing was begun.
        expected: Option<u64>,
    },
    /// More unfinished messages than `unfinished_messages_max` allows.
    #[error("more than {messages_max} messages are unfinished")]
    UnfinishedMessages {
        /// The bound.
        messages_max: usize,
    },
}

fn head_text(form: FrameForm, [first, second]: [u8; 2]) -> String {
    match form {
        FrameForm::PassThrough => {
            format!("a frame of kind {first}, where only pass-through (112) was offered")
        }
        FrameForm::DistHeader => format!(
            "a frame that begins with {first}, {second}, and not with a distribution header (131, 68 to 70)"
        ),
    }
}

fn due_text(expected: Option<u64>) -> String {
    expected.map_or_else(
        || "of which nothing was begun".to_owned(),
        |expected| format!("where {expected} is the next"),
    )
}

/// The bounds on what is received.
#[derive(Clone, Copy, Debug)]
pub struct InboundLimits {
    /// Of one message, in bytes: a larger one is skipped.
    pub frame_bytes_max: usize,
    /// Of all messages of which some fragments have arrived, in bytes: past it the newest of them is skipped.
    pub unfinished_bytes_max: usize,
    /// Of those messages, in number, skipped ones too: past it the connection ends.
    pub unfinished_messages_max: usize,
}

impl From<usize> for InboundLimits {
    /// The same bound for one message and for all.
    fn from(bytes_max: usize) -> Self {
        Self {
            frame_bytes_max: bytes_max,
            unfinished_bytes_max: bytes_max,
            unfinished_messages_max: bytes_max,
        }
    }
}

/// The bytes of one connection that have been read and not yet handled.
#[derive(Debug)]
pub struct Inbound {
    form: FrameForm,
    bytes: Vec<u8>,
    /// What is not yet handled begins here, at `end` or before it.
    start: usize,
    /// What was read ends here, at `bytes.len()` or before it.
    end: usize,
    /// What is received straight into memory of its own; nothing unfinished stands before it.
    straight: Option<Straight>,
    fragments: Fragments,
    frame_bytes_max: usize,
}

#[derive(Debug)]
enum Straight {
    /// A large frame, without its head.
    Frame { bytes: Growing, left: usize },
    /// What is left of a fragment.
    Fragment { sequence: u64, left: usize },
    /// What is left of something that is skipped. It is read into the buffer, and goes nowhere from there.
    Skip { what: Skip, left: usize },
}

#[derive(Debug)]
enum Skip {
    Frame(Skipping),
    /// A fragment of this sequence.
    Fragment(u64),
}

/// One thing that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A sign of life.
    Tick,
    /// A message: its control message and payload, see [`Inbound::slice`].
    Frame(Range<usize>),
    /// The same of a large one, in memory of its own.
    Large(Arc<PooledBytes>),
    /// What was over a bound.
    Skipped(Box<Skipped>),
}

/// What came of the fragment at the front.
enum Fragment {
    /// Its message is complete.
    Last(Arrival),
    /// It is with its message, of which others are to come.
    Taken,
    /// More of it is to come.
    Incomplete,
}

/// A frame at the front of the buffer, whole or not.
struct Front {
    /// Where it begins behind its length.
    first: usize,
    /// Its length.
    len: usize,
}

impl Inbound {
    /// Nothing received yet but `first`, which came together with the end of the handshake.
    pub fn new(first: &[u8], form: FrameForm, limits: impl Into<InboundLimits>) -> Self {
        let limits = limits.into();
        Self {
            form,
            bytes: first.to_vec(),
            start: 0,
            end: first.len(),
            straight: None,
            fragments: Fragments::new(limits),
            frame_bytes_max: limits.frame_bytes_max,
        }
    }

    /// Takes the memory of large messages from there, and lets it go back there.
    #[must_use]
    pub fn with_pool(mut self, pool: Arc<Pool>) -> Self {
        self.fragments.set_pool(pool);
        self
    }

    /// The form of its frames.
    pub const fn form(&self) -> FrameForm {
        self.form
    }

    /// Room for the next read, to be filled in this order. The first is not empty where all that arrived has been
    /// taken ([`next_arrival`](Self::next_arrival)); the second is empty but behind something large.
    #[inline]
    #[expect(clippy::indexing_slicing, reason = "what was read ends in the buffer")]
    pub fn rooms(&mut self) -> [&mut [u8]; 2] {
        if self.straight.is_some() {
            return self.straight_rooms();
        }
        self.make_room();
        [&mut self.bytes[self.end..], &mut []]
    }

    #[cold]
    #[expect(clippy::indexing_slicing, reason = "`make_room` has made room of `REST_BYTES` behind `end`")]
    fn straight_rooms(&mut self) -> [&mut [u8]; 2] {
        self.make_room();
        if let Some(Straight::Skip { .. }) = self.straight {
            return [&mut self.bytes[self.end..], &mut []];
        }
        let behind = &mut self.bytes[self.end..][..REST_BYTES];
        let (room, left) = match &mut self.straight {
            Some(Straight::Frame { bytes, left }) => (bytes.room(*left), *left),
            Some(Straight::Fragment { sequence, left }) => (self.fragments.room(*sequence, *left), *left),
            Some(Straight::Skip { .. }) | None => return [behind, &mut []],
        };
        if room.len() < left { [room, &mut []] } else { [room, behind] }
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
            if self.bytes.len() > KEEP_BYTES {
                self.bytes = Vec::new();
            }
        }
        if self.bytes.len() - self.end < REST_BYTES {
            // Move what is unfinished to the front, and double what it stands in.
            self.bytes.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            let claimed = self.unfinished_frame().unwrap_or(0).min(self.end * 2);
            let want = (self.end + REST_BYTES).max(claimed);
            if self.bytes.len() < want {
                self.bytes.resize(want, 0);
            }
        }
    }

    /// That a read has put `len` bytes into the rooms. A read that filled the first asks for more room next time.
    #[inline]
    pub fn filled(&mut self, len: usize) {
        if self.straight.is_some() {
            return self.straight_filled(len);
        }
        self.buffer_filled(len);
    }

    #[inline]
    fn buffer_filled(&mut self, len: usize) {
        self.end += len;
        debug_assert!(self.end <= self.bytes.len(), "a read stays in the room that it was given");
        if self.end == self.bytes.len() && self.bytes.len() < BUSY_BYTES {
            self.bytes.resize(BUSY_BYTES, 0);
        }
    }

    #[cold]
    fn straight_filled(&mut self, len: usize) {
        if let Some(Straight::Skip { .. }) = self.straight {
            return self.buffer_filled(len);
        }
        let [first, _] = self.rooms();
        let here = first.len().min(len);
        self.end += len - here;
        match &mut self.straight {
            Some(Straight::Frame { bytes, left }) => {
                bytes.filled(here);
                *left -= here;
            }
            Some(Straight::Fragment { sequence, left }) => {
                let (sequence, left) = (*sequence, *left - here);
                self.fragments.filled(sequence, here);
                self.straight = Some(self.rest_of_fragment(sequence, left));
            }
            Some(Straight::Skip { .. }) | None => {}
        }
    }

    /// How the rest of a fragment is received.
    fn rest_of_fragment(&self, sequence: u64, left: usize) -> Straight {
        if self.fragments.is_skipped(sequence) {
            Straight::Skip { what: Skip::Fragment(sequence), left }
        } else {
            Straight::Fragment { sequence, left }
        }
    }

    /// The next complete message or tick.
    ///
    /// # Errors
    /// The peer's: see [`FrameError`]. Nothing sensible can follow.
    #[inline]
    pub fn next_arrival(&mut self) -> Result<Option<Arrival>, FrameError> {
        if self.straight.is_some() {
            match self.straight_arrival() {
                Some(arrived) => return Ok(Some(arrived)),
                None if self.straight.is_some() => return Ok(None),
                None => {}
            }
        }
        let Some(front) = self.front() else { return Ok(None) };
        let Front { first, len } = front;
        if len == 0 {
            self.start += 4;
            return Ok(Some(Arrival::Tick));
        }
        if self.end >= first + len && len <= self.frame_bytes_max {
            let head_len = match (self.form, self.bytes.get(first..first + len)) {
                (FrameForm::PassThrough, Some([PASS_THROUGH, VERSION_MAGIC, ..])) => 2,
                (FrameForm::DistHeader, Some([VERSION_MAGIC, DIST_HEADER, 0, ..])) => 3,
                _ => return self.other_arrival(front),
            };
            self.start = first + len;
            return Ok(Some(Arrival::Frame(first + head_len..first + len)));
        }
        self.other_arrival(front)
    }

    /// A frame that is not complete, or over the bound, or not a plain message.
    #[cold]
    fn other_arrival(&mut self, mut front: Front) -> Result<Option<Arrival>, FrameError> {
        loop {
            let Front { first, len } = front;
            #[expect(clippy::indexing_slicing, reason = "a front begins at `end` or before it")]
            let here = &self.bytes[first..self.end.min(first + len)];
            let head = self.form.head();
            let fragment = self.form == FrameForm::DistHeader
                && matches!(here, [VERSION_MAGIC, DIST_FRAG_HEADER | DIST_FRAG_CONT, ..]);
            if fragment {
                match self.fragment(&front)? {
                    Fragment::Last(arrived) => return Ok(Some(arrived)),
                    Fragment::Incomplete => return Ok(None),
                    Fragment::Taken => {}
                }
            } else if here.len() >= head.len() || here.len() == len {
                let Some(contents) = here.strip_prefix(head) else {
                    return Err(head_error(self.form, here));
                };
                if len > self.frame_bytes_max {
                    let skipping = Skipping::new(Bound::Frame(self.frame_bytes_max), head.len(), HEAD_BYTES);
                    self.straight =
                        Some(Straight::Skip { what: Skip::Frame(skipping), left: len - head.len() });
                    self.start = first + head.len();
                    return Ok(self.skip());
                }
                if here.len() == len {
                    self.start = first + len;
                    return Ok(Some(Arrival::Frame(first + head.len()..first + len)));
                }
                if len >= LARGE_BYTES {
                    let mut bytes = Growing::new(len - head.len(), self.fragments.pool());
                    bytes.extend(contents);
                    self.straight = Some(Straight::Frame { bytes, left: len - here.len() });
                    self.emptied();
                }
                return Ok(None);
            } else {
                return Ok(None);
            }
            front = match self.front() {
                None => return Ok(None),
                Some(Front { len: 0, .. }) => {
                    self.start += 4;
                    return Ok(Some(Arrival::Tick));
                }
                Some(front) => front,
            };
        }
    }

    /// The fragment at the front. It is gone from there afterwards, but for one of which too little is here.
    #[expect(
        clippy::indexing_slicing,
        reason = "two bytes of it have been matched, and no more is read before all of its head is here"
    )]
    fn fragment(&mut self, &Front { first, len }: &Front) -> Result<Fragment, FrameError> {
        let here = &self.bytes[first..self.end.min(first + len)];
        let is_first = here[1] == DIST_FRAG_HEADER;
        let head_len = if is_first { FRAG_HEADER_BYTES } else { FRAG_CONT_BYTES };
        if len < head_len {
            return Err(head_error(self.form, here));
        }
        let whole = here.len() == len;
        if !whole && (here.len() < head_len || len - here.len() < STRAIGHT_BYTES) {
            return Ok(Fragment::Incomplete);
        }
        let number_at = |at: usize| {
            let bytes = here[at..].first_chunk().expect("the head is here");
            u64::from_be_bytes(*bytes)
        };
        let (sequence, number) = (number_at(2), number_at(10));
        if is_first {
            if here[18] != 0 {
                return Err(FrameError::AtomCache(here[18]));
            }
            self.fragments.begin(sequence, number, len - head_len)?;
        } else {
            self.fragments.expect(sequence, number, len - head_len)?;
        }
        self.fragments.extend(sequence, &here[head_len..]);
        if whole {
            self.start = first + len;
            return Ok(self.fragments.end(sequence).map_or(Fragment::Taken, Fragment::Last));
        }
        self.straight = Some(self.rest_of_fragment(sequence, len - here.len()));
        self.emptied();
        Ok(Fragment::Incomplete)
    }

    /// Everything in the buffer has gone elsewhere.
    fn emptied(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.bytes.len() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    /// What was received straight, when it is complete and is a message.
    #[cold]
    fn straight_arrival(&mut self) -> Option<Arrival> {
        match self.straight.take()? {
            Straight::Frame { bytes, left: 0 } => Some(Arrival::Large(bytes.finish(self.fragments.pool()))),
            Straight::Fragment { sequence, left: 0 } => self.fragments.end(sequence),
            unfinished => {
                self.straight = Some(unfinished);
                self.skip()
            }
        }
    }

    /// Throws away what is here of something that is skipped, if that is what is being received. Gives the message when
    /// that was all of it.
    fn skip(&mut self) -> Option<Arrival> {
        let Some(Straight::Skip { what, left }) = &mut self.straight else { return None };
        let len = (*left).min(self.end - self.start);
        #[expect(clippy::indexing_slicing, reason = "no more than was read is skipped")]
        let here = &self.bytes[self.start..self.start + len];
        match what {
            Skip::Frame(skipping) => skipping.extend(here),
            Skip::Fragment(sequence) => self.fragments.extend(*sequence, here),
        }
        self.start += len;
        *left -= len;
        if *left > 0 {
            return None;
        }
        match self.straight.take()? {
            Straight::Skip { what: Skip::Frame(skipping), .. } => {
                Some(Arrival::Skipped(Box::new(skipping.finish())))
            }
            Straight::Skip { what: Skip::Fragment(sequence), .. } => self.fragments.end(sequence),
            Straight::Frame { .. } | Straight::Fragment { .. } => None,
        }
    }

    /// The contents of a frame that [`next_arrival`](Self::next_arrival) found. Valid until the next read.
    #[inline]
    #[expect(
        clippy::indexing_slicing,
        reason = "its doc: a range that was found, and nothing has been read since"
    )]
    pub fn slice(&self, range: Range<usize>) -> &[u8] {
        &self.bytes[range]
    }

    /// Gives back the memory of a connection that has nothing unfinished and nothing to do.
    pub fn rest(&mut self) {
        if self.start == self.end && self.bytes.len() > REST_BYTES {
            self.bytes = Vec::new();
            (self.start, self.end) = (0, 0);
        }
    }

    /// Bytes of memory held.
    pub fn capacity(&self) -> usize {
        let straight = match &self.straight {
            Some(Straight::Frame { bytes, .. }) => bytes.capacity(),
            Some(Straight::Skip { what: Skip::Frame(skipping), .. }) => skipping.capacity(),
            Some(Straight::Fragment { .. } | Straight::Skip { .. }) | None => 0,
        };
        self.bytes.capacity() + straight + self.fragments.capacity()
    }

    #[inline]
    fn front(&self) -> Option<Front> {
        Some(Front { first: self.start + 4, len: self.claimed_len()? })
    }

    fn claimed_len(&self) -> Option<usize> {
        let head = self.bytes.get(self.start..self.end)?.first_chunk::<4>()?;
        Some(u32::from_be_bytes(*head) as usize)
    }

    /// The whole length, with its four bytes of head, of the frame that stands at the front.
    fn unfinished_frame(&self) -> Option<usize> {
        self.claimed_len().map(|len| len.min(self.frame_bytes_max) + 4)
    }
}

/// What is wrong with the head of a frame.
fn head_error(form: FrameForm, here: &[u8]) -> FrameError {
    match (form, here) {
        (FrameForm::DistHeader, [VERSION_MAGIC, DIST_HEADER, references, ..]) if *references > 0 => {
            FrameError::AtomCache(*references)
        }
        _ => {
            let byte = |at: usize| here.get(at).copied().unwrap_or(0);
            FrameError::Head { form, first: [byte(0), byte(1)] }
        }
    }
}

#[cfg(test)]
mod tests;
