//! A message that is too large to be kept: its bytes are thrown away as they come, but for its beginning, which says what
//! it was.

use std::fmt;

/// Bytes of a beginning that are kept: what a control message and the tag of a call take many times over.
pub(super) const HEAD_BYTES: usize = 64 << 10;
/// The same once all that are kept together take [`HEADS_BYTES`].
pub(super) const SHORT_HEAD_BYTES: usize = 2 << 10;
/// See [`SHORT_HEAD_BYTES`].
pub(super) const HEADS_BYTES: usize = 16 << 20;

/// The bound that a message is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// `frame_bytes_max`: of one message.
    Frame(usize),
    /// `unfinished_bytes_max`: of all messages that are under way at once.
    Unfinished(usize),
}

/// How large a message was that was skipped, and why it was. It prints as the sentence that its sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge {
    /// Its length in bytes.
    pub bytes: usize,
    /// What it is over.
    pub bound: Bound,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.bytes;
        match self.bound {
            Bound::Frame(max) => {
                write!(f, "a message of {bytes} bytes is over the bound of {max} (--frame-bytes-max)")
            }
            Bound::Unfinished(max) => write!(
                f,
                "a message of {bytes} bytes came at once with others, and together they are over the bound of {max} \
                 (--unfinished-bytes-max)"
            ),
        }
    }
}

/// A message that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Its first bytes: the control message, and the beginning of the payload.
    pub head: Vec<u8>,
    /// How large it was.
    pub size: TooLarge,
}

/// One that is being skipped.
#[derive(Debug)]
pub(super) struct Skipping {
    skipped: Skipped,
    head_bytes_max: usize,
}

impl Skipping {
    /// `bytes`: how many have been counted before the first that is taken.
    pub(super) const fn new(bound: Bound, bytes: usize, head_bytes_max: usize) -> Self {
        let size = TooLarge { bytes, bound };
        Self { skipped: Skipped { head: Vec::new(), size }, head_bytes_max }
    }

    /// Some of its bytes have come.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let Skipped { head, size } = &mut self.skipped;
        let missing = self.head_bytes_max - head.len();
        if missing > 0 {
            head.extend(bytes.iter().take(missing));
        }
        size.bytes = size.bytes.saturating_add(bytes.len());
    }

    /// Bytes that its beginning may take.
    pub(super) const fn head_bytes_max(&self) -> usize {
        self.head_bytes_max
    }

    /// Bytes of memory held.
    pub(super) const fn capacity(&self) -> usize {
        self.skipped.head.capacity()
    }

    /// All of it has come.
    pub(super) fn finish(self) -> Skipped {
        self.skipped
    }
}
