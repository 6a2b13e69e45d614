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

use std::fmt;
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Not of the form that is in force.
    Head {
        /// The form.
        form: FrameForm,
        /// Its first two bytes; 0 where the frame has fewer.
        first: [u8; 2],
    },
    /// A distribution header with references to an atom cache, which was not offered.
    AtomCache(u8),
    /// A fragment that is not the next one of its message.
    Fragment {
        /// Its sequence.
        sequence: u64,
        /// Its number.
        number: u64,
        /// The number that should have come; `None` where nothing was begun.
        expected: Option<u64>,
    },
    /// More unfinished messages than `unfinished_messages_max` allows.
    UnfinishedMessages {
        /// The bound.
        messages_max: usize,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Head { form: FrameForm::PassThrough, first: [kind, _] } => {
                write!(f, "a frame of kind {kind}, where only pass-through (112) was offered")
            }
            Self::Head { form: FrameForm::DistHeader, first: [magic, kind] } => {
                write!(
                    f,
                    "a frame that begins with {magic}, {kind}, and not with a distribution header (131, 68 to 70)"
                )
            }
            Self::AtomCache(references) => {
                write!(f, "{references} references to an atom cache, which was not offered")
            }
            Self::Fragment { sequence, number, expected: Some(expected) } => {
                write!(f, "fragment {number} of sequence {sequence}, where {expected} is the next")
            }
            Self::Fragment { sequence, number, expected: None } => {
                write!(f, "fragment {number} of sequence {sequence}, of which nothing was begun")
            }
            Self::UnfinishedMessages { messages_max } => {
                write!(f, "more than {messages_max} messages are unfinished")
            }
        }
    }
}

impl std::error::Error for FrameError {}

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
    start: usize,
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
    pub fn rooms(&mut self) -> [&mut [u8]; 2] {
        if self.straight.is_some() {
            return self.straight_rooms();
        }
        self.make_room();
        [&mut self.bytes[self.end..], &mut []]
    }

    #[cold]
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
            let head_len = match (self.form, &self.bytes[first..first + len]) {
                (FrameForm::PassThrough, [PASS_THROUGH, VERSION_MAGIC, ..]) => 2,
                (FrameForm::DistHeader, [VERSION_MAGIC, DIST_HEADER, 0, ..]) => 3,
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
                if !here.starts_with(head) {
                    return Err(head_error(self.form, here));
                }
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
                    bytes.extend(&here[head.len()..]);
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
        let head = self.bytes[self.start..self.end].first_chunk::<4>()?;
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
mod tests {
    use super::*;

    /// A message that was skipped, as [`receive`] gives it.
    fn shown(head: &[u8], bytes: usize, bound: Bound) -> Vec<u8> {
        [format!("{} ", TooLarge { bytes, bound }).as_bytes(), head].concat()
    }

    /// Receives bytes in reads of `step` at most; gives the contents of what arrived, a tick as nothing.
    fn receive(inbound: &mut Inbound, bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut rest, mut got) = (bytes, Vec::new());
        while !rest.is_empty() {
            let mut read = 0;
            for room in inbound.rooms() {
                let len = room.len().min(rest.len()).min(step - read);
                room[..len].copy_from_slice(&rest[..len]);
                rest = &rest[len..];
                read += len;
            }
            inbound.filled(read);
            while let Some(arrival) = inbound.next_arrival()? {
                got.push(match arrival {
                    Arrival::Tick => Vec::new(),
                    Arrival::Frame(range) => inbound.slice(range).to_vec(),
                    Arrival::Large(frame) => frame.to_vec(),
                    Arrival::Skipped(skipped) => shown(&skipped.head, skipped.size.bytes, skipped.size.bound),
                });
            }
        }
        Ok(got)
    }

    fn framed(parts: &[&[u8]]) -> Vec<u8> {
        let contents = parts.concat();
        [&(contents.len() as u32).to_be_bytes()[..], &contents].concat()
    }

    fn message(form: FrameForm, contents: &[u8]) -> Vec<u8> {
        framed(&[form.head(), contents])
    }

    /// The frames of a message in fragments of `len` bytes.
    fn fragments(sequence: u64, contents: &[u8], len: usize) -> Vec<Vec<u8>> {
        let parts: Vec<&[u8]> = contents.chunks(len).collect();
        let fragment = |(at, part): (usize, &&[u8])| {
            let (sequence, number) = (sequence.to_be_bytes(), ((parts.len() - at) as u64).to_be_bytes());
            match at {
                0 => framed(&[&[131, 69], &sequence, &number, &[0], part]),
                _ => framed(&[&[131, 70], &sequence, &number, part]),
            }
        };
        parts.iter().enumerate().map(fragment).collect()
    }

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|at| (at * 31 + seed + at / 251) as u8).collect()
    }

    #[test]
    fn frames_and_ticks_come_out_as_they_went_in_whatever_the_reads_were() {
        for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
            let large = pattern(600_000, 1);
            let mut sent = message(form, b"one");
            sent.extend_from_slice(&[0; 4]);
            sent.extend(message(form, &large));
            sent.extend(message(form, b"three"));
            for step in [1, 3, 4096, 70_000, sent.len()] {
                let mut inbound = Inbound::new(&[], form, 1 << 20);
                let got = receive(&mut inbound, &sent, step).expect("good frames");
                assert_eq!(got, [b"one".to_vec(), Vec::new(), large.clone(), b"three".to_vec()], "{step}");
            }
        }
    }

    #[test]
    fn mixed_fragments_come_out_as_whole_messages_when_their_last_one_is_here() {
        let (one, two) = (pattern(200_000, 1), pattern(90_000, 2));
        let mut sent = Vec::new();
        let (ones, twos) = (fragments(1, &one, 65_536), fragments(u64::MAX, &two, 30_000));
        assert_eq!((ones.len(), twos.len()), (4, 3));
        for (at, one) in ones.iter().enumerate() {
            sent.extend_from_slice(one);
            sent.extend(message(FrameForm::DistHeader, &[at as u8]));
            sent.extend_from_slice(twos.get(at).map_or(&[0; 4], |frame| frame));
        }
        // The sequence is used again.
        sent.extend(fragments(1, &two, 65_536).concat());
        sent.extend(fragments(1, b"a single one", 100).concat());
        let expected =
            [&[0][..], &[1], &[2], &two, &one, &[3], &[], &two, b"a single one"].map(<[u8]>::to_vec);
        for step in [1, 5, 4096, 70_000, sent.len()] {
            let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 20);
            assert_eq!(receive(&mut inbound, &sent, step).expect("good frames"), expected, "{step}");
            assert!(inbound.fragments.is_empty());
        }
    }

    #[test]
    fn what_is_left_of_a_message_that_its_sender_gave_up_is_dropped() {
        let mut sent = fragments(7, &[1; 100], 60).remove(0);
        sent.extend(fragments(7, b"anew", 2).concat());
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 20);
        assert_eq!(receive(&mut inbound, &sent, 9), Ok(vec![b"anew".to_vec()]));
        assert!(inbound.fragments.is_empty());
    }

    #[test]
    fn fragments_out_of_turn_and_too_many_of_them_are_refused() {
        let receive_all = |frames: &[Vec<u8>], limits: InboundLimits| {
            receive(&mut Inbound::new(&[], FrameForm::DistHeader, limits), &frames.concat(), 4096)
        };
        let limits =
            InboundLimits { frame_bytes_max: 1000, unfinished_bytes_max: 1500, unfinished_messages_max: 8 };
        let good = fragments(5, &[0; 900], 300);
        assert_eq!(receive_all(&good, limits).map(|got| got.len()), Ok(1));
        for (frames, error) in [
            (vec![good[1].clone()], FrameError::Fragment { sequence: 5, number: 2, expected: None }),
            (
                vec![good[0].clone(), good[2].clone()],
                FrameError::Fragment { sequence: 5, number: 1, expected: Some(2) },
            ),
            (
                // Of nothing there are as many as one likes, and each costs memory.
                (0..9).map(|sequence| fragments(sequence, &[0; 3], 1).remove(0)).collect(),
                FrameError::UnfinishedMessages { messages_max: 8 },
            ),
            (
                // What is skipped has its place too.
                (0..9).map(|sequence| fragments(sequence, &[0; 3000], 600).remove(0)).collect(),
                FrameError::UnfinishedMessages { messages_max: 8 },
            ),
            (
                vec![fragments(5, &[0; 1500], 600)[0].clone(), fragments(5, &[0; 1500], 600)[2].clone()],
                FrameError::Fragment { sequence: 5, number: 1, expected: Some(2) },
            ),
            (
                vec![framed(&[&[131, 69], &[0; 16], &[0], b"x"])],
                FrameError::Fragment { sequence: 0, number: 0, expected: None },
            ),
            (
                vec![framed(&[&[131, 69], &[0; 8], &1_u64.to_be_bytes(), &[3], b"x"])],
                FrameError::AtomCache(3),
            ),
            (vec![framed(&[&[131, 68, 3], b"x"])], FrameError::AtomCache(3)),
            (
                vec![framed(&[&[131, 69], b"x"])],
                FrameError::Head { form: FrameForm::DistHeader, first: [131, 69] },
            ),
            (
                vec![framed(&[&[112, 131], b"x"])],
                FrameError::Head { form: FrameForm::DistHeader, first: [112, 131] },
            ),
        ] {
            assert_eq!(receive_all(&frames, limits), Err(error));
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
            let mut inbound = Inbound::new(&[], form, 1 << 30);
            let mut claim = (1_u32 << 29).to_be_bytes().to_vec();
            claim.extend(form.head());
            claim.extend([0; 1000]);
            assert_eq!(receive(&mut inbound, &claim, 100), Ok(Vec::new()));
            assert!(inbound.capacity() < 16 << 10, "{}", inbound.capacity());
        }
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, 1 << 30);
        let claim = framed(&[&[131, 69], &[0; 8], &1000_u64.to_be_bytes(), &[0], &[7; 1000]]);
        assert_eq!(receive(&mut inbound, &claim, 100), Ok(Vec::new()));
        assert!(inbound.capacity() < 16 << 10, "{}", inbound.capacity());
    }

    /// Every size of a read that may matter: those around a head, those of what is read straight, and all at once.
    fn steps(all: usize) -> impl Iterator<Item = usize> {
        (1..40).chain([1000, STRAIGHT_BYTES - 1, STRAIGHT_BYTES, 70_000, all])
    }

    #[test]
    fn a_frame_over_the_bound_is_skipped_at_its_place() {
        for form in [FrameForm::PassThrough, FrameForm::DistHeader] {
            for len in [1001, 5000, 90_000, 400_000] {
                let large = pattern(len - form.head().len(), 1);
                let sent =
                    [&message(form, b"one")[..], &message(form, &large), &[0; 4], &message(form, b"two")]
                        .concat();
                let head = &large[..large.len().min(HEAD_BYTES)];
                let expected =
                    [b"one".to_vec(), shown(head, len, Bound::Frame(1000)), vec![], b"two".to_vec()];
                for step in steps(sent.len()) {
                    let mut inbound = Inbound::new(&[], form, 1000);
                    assert_eq!(receive(&mut inbound, &sent, step), Ok(expected.to_vec()), "{len} by {step}");
                    assert!(inbound.capacity() <= KEEP_BYTES, "{}", inbound.capacity());
                }
            }
        }
    }

    #[test]
    fn fragments_over_the_bound_of_a_message_are_skipped_whether_that_is_known_at_once_or_not() {
        let limits =
            InboundLimits { frame_bytes_max: 1000, unfinished_bytes_max: 5000, unfinished_messages_max: 8 };
        let (large, small) = (pattern(9000, 1), pattern(900, 2));
        // 1. Known at the first; 2. it alone is too long; 3. the second is longer than the first said.
        let claimed = fragments(1, &large, 600);
        let single = fragments(2, &large, 9000);
        let number = |number: u64| [&2_u64.to_be_bytes()[..], &number.to_be_bytes()].concat();
        let grown = [
            framed(&[&[131, 69], &number(2), &[0], &large[..10]]),
            framed(&[&[131, 70], &number(1), &large[10..]]),
        ];
        for sent in [&claimed[..], &single, &grown] {
            let others = fragments(7, &small, 100);
            let mut mixed = Vec::new();
            for at in 0..sent.len().max(others.len()) {
                mixed.extend(sent.get(at).into_iter().chain(others.get(at)).flatten());
                mixed.extend(message(FrameForm::DistHeader, &[at as u8]));
            }
            for step in steps(mixed.len()) {
                let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
                let got = receive(&mut inbound, &mixed, step).expect("good frames");
                let is_large = |got: &&Vec<u8>| got.len() > 1;
                let arrived: Vec<&Vec<u8>> = got.iter().filter(is_large).collect();
                let skipped = shown(&large, 9000, Bound::Frame(1000));
                assert_eq!(arrived.len(), 2, "{step}");
                assert!(arrived.contains(&&skipped) && arrived.contains(&&small), "{step}");
                assert_eq!(got.len(), 2 + sent.len().max(others.len()));
                assert!(inbound.fragments.is_empty());
            }
        }
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
        let hopeless = framed(&[&[131, 69], &[0; 8], &[255; 8], &[0], b"xy"]);
        assert_eq!(
            receive(&mut inbound, &hopeless, 100),
            Ok(vec![]),
            "it never ends, and costs its beginning"
        );
        let anew = fragments(0, b"anew", 2).concat();
        assert_eq!(receive(&mut inbound, &anew, 7), Ok(vec![b"anew".to_vec()]));
        assert!(inbound.fragments.is_empty());
    }

    #[test]
    fn past_the_bound_of_all_unfinished_messages_the_newest_is_skipped() {
        let limits = InboundLimits {
            frame_bytes_max: 100_000,
            unfinished_bytes_max: 150_000,
            unfinished_messages_max: 8,
        };
        let messages: Vec<Vec<u8>> = (0..4).map(|seed| pattern(60_000, seed)).collect();
        let frames: Vec<Vec<Vec<u8>>> =
            messages.iter().zip(0..).map(|(message, sequence)| fragments(sequence, message, 9000)).collect();
        // In turn, as processes of a BEAM send them.
        let sent: Vec<u8> =
            (0..frames[0].len()).flat_map(|at| frames.iter().flat_map(move |one| one[at].clone())).collect();
        let bound = Bound::Unfinished(150_000);
        let expected = [
            messages[0].clone(),
            messages[1].clone(),
            shown(&messages[2], 60_000, bound),
            shown(&messages[3], 60_000, bound),
        ];
        for step in steps(sent.len()) {
            let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
            assert_eq!(receive(&mut inbound, &sent, step), Ok(expected.to_vec()), "{step}");
            assert!(inbound.fragments.is_empty());
        }
    }

    #[test]
    fn what_is_skipped_costs_its_beginning_and_of_very_many_little_of_that() {
        let limits = InboundLimits {
            frame_bytes_max: 1000,
            unfinished_bytes_max: 1000,
            unfinished_messages_max: 1 << 16,
        };
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
        let heads = skipped::HEADS_BYTES / HEAD_BYTES;
        for sequence in 0..heads as u64 + 500 {
            let first = fragments(sequence, &[7; 140_000], 70_000).remove(0);
            assert_eq!(receive(&mut inbound, &first, first.len()), Ok(vec![]));
        }
        let bytes_max = skipped::HEADS_BYTES + 500 * skipped::SHORT_HEAD_BYTES + KEEP_BYTES;
        assert!(inbound.capacity() <= bytes_max, "{} over {bytes_max}", inbound.capacity());
        for sequence in 0..heads as u64 + 500 {
            let last = fragments(sequence, &[7; 140_000], 70_000).remove(1);
            let head = if sequence < heads as u64 { HEAD_BYTES } else { skipped::SHORT_HEAD_BYTES };
            let got = receive(&mut inbound, &last, last.len());
            assert_eq!(got, Ok(vec![shown(&vec![7; head], 140_000, Bound::Frame(1000))]));
        }
        assert!(inbound.fragments.is_empty() && inbound.capacity() <= KEEP_BYTES);
    }

    #[test]
    fn the_newest_is_found_at_once_among_very_many() {
        let limits = InboundLimits {
            frame_bytes_max: 1000,
            unfinished_bytes_max: 60_000,
            unfinished_messages_max: 1 << 16,
        };
        let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
        // Each of the later ones is the newest, and one too many.
        let begun: Vec<u8> =
            (0..65_000).flat_map(|sequence| fragments(sequence, &[7; 3], 1).remove(0)).collect();
        assert_eq!(receive(&mut inbound, &begun, 1 << 20), Ok(vec![]));
        assert!(inbound.fragments.is_skipped(64_999) && !inbound.fragments.is_skipped(59_999));
    }

    #[test]
    fn no_cut_and_no_change_of_bytes_panics_or_takes_memory() {
        let limits =
            InboundLimits { frame_bytes_max: 300, unfinished_bytes_max: 500, unfinished_messages_max: 4 };
        let mut sent = message(FrameForm::DistHeader, &[1; 400]);
        for at in 0..4 {
            for (sequence, len) in [(1, 100), (2, 90), (3, 120)] {
                sent.extend(&fragments(sequence, &pattern(len * 4, 3), len)[at]);
            }
        }
        for at in 0..sent.len() {
            let mut inbound = Inbound::new(&[], FrameForm::DistHeader, limits);
            assert!(receive(&mut inbound, &sent[..at], 7).is_ok(), "cut at {at}");
            for byte in [0, 1, 68, 69, 70, 131, 255] {
                let mut changed = sent.clone();
                changed[at] = byte;
                for form in [FrameForm::DistHeader, FrameForm::PassThrough] {
                    let mut inbound = Inbound::new(&[], form, limits);
                    let _whatever = receive(&mut inbound, &changed, 64);
                    assert!(inbound.capacity() < 4 * (REST_BYTES + sent.len()), "{}", inbound.capacity());
                }
            }
        }
    }

    #[test]
    fn a_frame_of_another_form_is_refused_however_long_it_is() {
        for len in [1, 101] {
            let mut inbound = Inbound::new(&[0, 0, 0, len, 131, 0], FrameForm::PassThrough, 100);
            let head = FrameError::Head { form: FrameForm::PassThrough, first: [131, 0] };
            assert_eq!(inbound.next_arrival(), Err(head), "{len}");
        }
    }
}
