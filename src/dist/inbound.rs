//! Received bytes, and the frames in them.
//!
//! A connected node sends `length:32, frame`; length 0 is a tick (erl_dist_protocol, "Protocol between Connected
//! Nodes"). Memory grows with the bytes that have arrived, never with the length that was claimed.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// First byte of a frame that stands for itself: no atom cache, no fragments.
pub const PASS_THROUGH: u8 = 112;

/// A frame from this size on is received into memory of its own, in bytes: what keeps most of it (a store its
/// value) keeps that memory, and nothing is copied.
const LARGE_BYTES: usize = 256 << 10;
/// The part of a large frame that has to be here before memory is taken for all of it: the claimed length of a
/// frame that never comes costs four times what was sent.
const LARGE_PART: usize = 4;
/// Room that is offered to a read of a connection at rest.
const REST_BYTES: usize = 4 << 10;
/// Room that is offered to a read of a busy connection.
const BUSY_BYTES: usize = 128 << 10;
/// A buffer larger than this is given back when it has been emptied.
const KEEP_BYTES: usize = 512 << 10;

/// What is wrong with a frame. The peer's fault; the connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// Longer than `frame_bytes_max`.
    TooLong {
        /// Its length in bytes.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Not a pass-through frame: no other kind was offered.
    Kind(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong { bytes, bytes_max } => {
                write!(f, "a frame of {bytes} bytes is over the bound of {bytes_max} (see --frame-bytes-max)")
            }
            Self::Kind(kind) => {
                write!(f, "a frame of kind {kind}, where only pass-through (112) was offered")
            }
        }
    }
}

impl std::error::Error for FrameError {}

/// The bytes of one connection that have been read and not yet handled.
#[derive(Debug)]
pub struct Inbound {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// A large frame that is being received; nothing is unfinished in `bytes` then.
    large: Option<LargeFrame>,
    frame_bytes_max: usize,
}

#[derive(Debug)]
struct LargeFrame {
    /// All of its contents behind the pass-through byte; zeroes where nothing has come yet.
    bytes: Vec<u8>,
    filled: usize,
}

/// One thing that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A sign of life.
    Tick,
    /// A frame's contents after the pass-through byte: see [`Inbound::slice`].
    Frame(Range<usize>),
    /// The same of a large frame, in memory of its own.
    Large(Arc<Vec<u8>>),
}

impl Inbound {
    /// Nothing received yet but `first`, which came together with the end of the handshake.
    pub fn new(first: &[u8], frame_bytes_max: usize) -> Self {
        Self { bytes: first.to_vec(), start: 0, end: first.len(), large: None, frame_bytes_max }
    }

    /// Room for the next read; not empty where all that arrived has been taken
    /// ([`next_arrival`](Self::next_arrival)).
    pub fn room(&mut self) -> &mut [u8] {
        if self.large.is_none() {
            self.make_room();
        }
        match &mut self.large {
            Some(large) => &mut large.bytes[large.filled..],
            None => &mut self.bytes[self.end..],
        }
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

    /// That a read has put `len` bytes into the room. A read that filled it asks for more room next time.
    pub fn filled(&mut self, len: usize) {
        if let Some(large) = &mut self.large {
            large.filled += len;
            return;
        }
        self.end += len;
        debug_assert!(self.end <= self.bytes.len(), "a read stays in the room that it was given");
        if self.end == self.bytes.len() && self.bytes.len() < BUSY_BYTES {
            self.bytes.resize(BUSY_BYTES, 0);
        }
    }

    /// The next complete frame or tick.
    ///
    /// # Errors
    /// The peer's: see [`FrameError`]. Nothing sensible can follow.
    #[inline]
    pub fn next_arrival(&mut self) -> Result<Option<Arrival>, FrameError> {
        if let Some(large) = self.large.take() {
            return Ok(self.large_arrival(large));
        }
        let Some(len) = self.claimed_len() else { return Ok(None) };
        if len == 0 {
            self.start += 4;
            return Ok(Some(Arrival::Tick));
        }
        if len > self.frame_bytes_max {
            return Err(FrameError::TooLong { bytes: len, bytes_max: self.frame_bytes_max });
        }
        let first = self.start + 4;
        if self.end > first && self.bytes[first] != PASS_THROUGH {
            return Err(FrameError::Kind(self.bytes[first]));
        }
        if self.end < first + len {
            if len >= LARGE_BYTES && self.end - self.start >= len / LARGE_PART {
                self.receive_large(first + 1, len - 1);
            }
            return Ok(None);
        }
        self.start = first + len;
        Ok(Some(Arrival::Frame(first + 1..first + len)))
    }

    /// From now on the frame at the front is received into memory of its own.
    #[cold]
    fn receive_large(&mut self, first: usize, len: usize) {
        // Zeroed memory of this size comes from the system untouched: it is resident as it is written.
        let mut bytes = vec![0; len];
        let here = &self.bytes[first..self.end];
        bytes[..here.len()].copy_from_slice(here);
        self.large = Some(LargeFrame { filled: here.len(), bytes });
        (self.start, self.end) = (0, 0);
        if self.bytes.len() > KEEP_BYTES {
            self.bytes = Vec::new();
        }
    }

    #[cold]
    fn large_arrival(&mut self, large: LargeFrame) -> Option<Arrival> {
        if large.filled < large.bytes.len() {
            self.large = Some(large);
            return None;
        }
        Some(Arrival::Large(Arc::new(large.bytes)))
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
        self.bytes.capacity()
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Receives bytes in reads of `step` at most; gives the contents of what arrived, a tick as nothing.
    fn receive(inbound: &mut Inbound, bytes: &[u8], step: usize) -> Result<Vec<Vec<u8>>, FrameError> {
        let (mut rest, mut got) = (bytes, Vec::new());
        while !rest.is_empty() {
            let room = inbound.room();
            let len = room.len().min(rest.len()).min(step);
            room[..len].copy_from_slice(&rest[..len]);
            inbound.filled(len);
            rest = &rest[len..];
            while let Some(arrival) = inbound.next_arrival()? {
                got.push(match arrival {
                    Arrival::Tick => Vec::new(),
                    Arrival::Frame(range) => inbound.slice(range).to_vec(),
                    Arrival::Large(frame) => frame.to_vec(),
                });
            }
        }
        Ok(got)
    }

    fn frame(contents: &[u8]) -> Vec<u8> {
        let mut bytes = (contents.len() as u32 + 1).to_be_bytes().to_vec();
        bytes.push(PASS_THROUGH);
        bytes.extend_from_slice(contents);
        bytes
    }

    #[test]
    fn frames_and_ticks_come_out_as_they_went_in_whatever_the_reads_were() {
        let mut sent = frame(b"one");
        sent.extend_from_slice(&[0; 4]);
        sent.extend(frame(&vec![7; 300_000]));
        sent.extend(frame(b"three"));
        for step in [1, 3, 4096, sent.len()] {
            let mut inbound = Inbound::new(&[], 1 << 20);
            let got = receive(&mut inbound, &sent, step).expect("good frames");
            assert_eq!(got, [b"one".to_vec(), Vec::new(), vec![7; 300_000], b"three".to_vec()], "{step}");
        }
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        let mut inbound = Inbound::new(&[], 1 << 30);
        let mut claim = (1_u32 << 29).to_be_bytes().to_vec();
        claim.push(PASS_THROUGH);
        claim.extend([0; 1000]);
        assert_eq!(receive(&mut inbound, &claim, 100), Ok(Vec::new()));
        assert!(inbound.capacity() < 16 << 10, "{}", inbound.capacity());
    }

    #[test]
    fn a_frame_over_the_bound_and_one_of_another_kind_are_refused() {
        let mut inbound = Inbound::new(&[], 100);
        let too_long = receive(&mut inbound, &101_u32.to_be_bytes(), 4);
        assert_eq!(too_long, Err(FrameError::TooLong { bytes: 101, bytes_max: 100 }));
        let mut inbound = Inbound::new(&[0, 0, 0, 1, 131], 100);
        assert_eq!(inbound.next_arrival(), Err(FrameError::Kind(131)));
    }
}
