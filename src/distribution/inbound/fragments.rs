//! The fragments of large messages, put together.

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;

use super::growing::Growing;
use super::skipped::{Bound, HEAD_BYTES, HEADS_BYTES, SHORT_HEAD_BYTES, Skipping};
use super::{Arrival, FrameError, InboundLimits};
use crate::etf::Pool;

/// A message of which some fragments have arrived.
#[derive(Debug)]
struct Unfinished {
    body: Body,
    /// The number of the fragment that comes next; it counts down to 1.
    next: u64,
    /// Its place in [`Fragments::kept`].
    begun: u64,
}

#[derive(Debug)]
enum Body {
    Kept(Growing),
    Skipped(Skipping),
}

/// The unfinished messages of one connection, by the sequence that their sender gave them.
#[derive(Debug)]
pub(super) struct Fragments {
    unfinished: AHashMap<u64, Unfinished>,
    /// The sequences of those that are kept, in the order in which they were begun: the newest is found at once, however many
    /// there are.
    kept: BTreeMap<u64, u64>,
    /// Messages that were begun so far.
    begun: u64,
    /// Bytes that have arrived of those that are kept.
    bytes: usize,
    /// Bytes that the beginnings of those that are skipped may take.
    heads_bytes: usize,
    pool: Arc<Pool>,
    limits: InboundLimits,
}

impl Fragments {
    pub(super) fn new(limits: InboundLimits) -> Self {
        Self {
            unfinished: AHashMap::default(),
            kept: BTreeMap::new(),
            begun: 0,
            bytes: 0,
            heads_bytes: 0,
            pool: Pool::new(0),
            limits,
        }
    }

    /// Where memory of messages comes from, and goes to.
    pub(super) const fn pool(&self) -> &Arc<Pool> {
        &self.pool
    }

    pub(super) fn set_pool(&mut self, pool: Arc<Pool>) {
        self.pool = pool;
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.unfinished.is_empty() && self.kept.is_empty() && self.bytes == 0 && self.heads_bytes == 0
    }

    /// The first of `number` fragments begins, itself of `len` bytes.
    pub(super) fn begin(&mut self, sequence: u64, number: u64, len: usize) -> Result<(), FrameError> {
        if number == 0 {
            return Err(FrameError::Fragment { sequence, number, expected: None });
        }
        // A sender that begins anew has given up what it had begun before.
        self.remove(sequence);
        // Each costs more than the bytes that it has, of which there may be none.
        let InboundLimits { frame_bytes_max, unfinished_messages_max: messages_max, .. } = self.limits;
        if self.unfinished.len() >= messages_max {
            return Err(FrameError::UnfinishedMessages { messages_max });
        }
        self.begun += 1;
        // All fragments but the last are as long as the first.
        let before_last = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(len);
        let body = if before_last.max(len) > frame_bytes_max {
            Body::Skipped(self.skipping(Bound::Frame(frame_bytes_max)))
        } else {
            self.kept.insert(self.begun, sequence);
            let claimed = before_last.saturating_add(len).min(frame_bytes_max);
            Body::Kept(Growing::new(claimed, &self.pool))
        };
        self.unfinished.insert(sequence, Unfinished { body, next: number, begun: self.begun });
        Ok(())
    }

    /// Checks that this fragment of `len` bytes is the next of its sequence. A message that gets too large by it is skipped.
    pub(super) fn expect(&mut self, sequence: u64, number: u64, len: usize) -> Result<(), FrameError> {
        let unfinished = self.unfinished.get(&sequence);
        let expected = unfinished.map(|unfinished| unfinished.next);
        if expected != Some(number) {
            return Err(FrameError::Fragment { sequence, number, expected });
        }
        let bytes_max = self.limits.frame_bytes_max;
        if let Some(Unfinished { body: Body::Kept(bytes), .. }) = unfinished
            && bytes.len().saturating_add(len) > bytes_max
        {
            self.skip(sequence, Bound::Frame(bytes_max));
        }
        Ok(())
    }

    /// Some bytes of the fragment that is being received.
    pub(super) fn extend(&mut self, sequence: u64, bytes: &[u8]) {
        match self.unfinished.get_mut(&sequence).map(|unfinished| &mut unfinished.body) {
            Some(Body::Kept(kept)) => {
                kept.extend(bytes);
                self.arrived(bytes.len());
            }
            Some(Body::Skipped(skipping)) => skipping.extend(bytes),
            None => {}
        }
    }

    /// Room for `len` bytes of the fragment that is being received, or for as many as a read should bring.
    pub(super) fn room(&mut self, sequence: u64, len: usize) -> &mut [u8] {
        match self.unfinished.get_mut(&sequence).map(|unfinished| &mut unfinished.body) {
            Some(Body::Kept(kept)) => kept.room(len),
            Some(Body::Skipped(_)) | None => &mut [],
        }
    }

    /// That a read has put `len` bytes into the room.
    pub(super) fn filled(&mut self, sequence: u64, len: usize) {
        if let Some(Unfinished { body: Body::Kept(kept), .. }) = self.unfinished.get_mut(&sequence) {
            kept.filled(len);
            self.arrived(len);
        }
    }

    /// Whether a message is being skipped.
    pub(super) fn is_skipped(&self, sequence: u64) -> bool {
        matches!(self.unfinished.get(&sequence), Some(Unfinished { body: Body::Skipped(_), .. }))
    }

    /// The whole fragment has arrived. Gives the message when it was the last.
    pub(super) fn end(&mut self, sequence: u64) -> Option<Arrival> {
        let unfinished = self.unfinished.get_mut(&sequence)?;
        unfinished.next -= 1;
        if unfinished.next > 0 {
            return None;
        }
        Some(match self.remove(sequence)? {
            Body::Kept(bytes) => Arrival::Large(bytes.finish(&self.pool)),
            Body::Skipped(skipping) => Arrival::Skipped(Box::new(skipping.finish())),
        })
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        let capacity = |unfinished: &Unfinished| match &unfinished.body {
            Body::Kept(bytes) => bytes.capacity(),
            Body::Skipped(skipping) => skipping.capacity(),
        };
        self.unfinished.values().map(capacity).sum()
    }

    fn remove(&mut self, sequence: u64) -> Option<Body> {
        let Unfinished { body, begun, .. } = self.unfinished.remove(&sequence)?;
        match &body {
            Body::Kept(bytes) => {
                self.bytes -= bytes.len();
                self.kept.remove(&begun);
            }
            Body::Skipped(skipping) => self.heads_bytes -= skipping.head_bytes_max(),
        }
        Some(body)
    }

    /// More has arrived of what is kept: past the bound the newest of it is skipped.
    fn arrived(&mut self, len: usize) {
        self.bytes += len;
        let bytes_max = self.limits.unfinished_bytes_max;
        while self.bytes > bytes_max
            && let Some((_, &newest)) = self.kept.last_key_value()
        {
            self.skip(newest, Bound::Unfinished(bytes_max));
        }
    }

    /// Gives up the bytes of a message, but for its beginning.
    fn skip(&mut self, sequence: u64, bound: Bound) {
        let mut skipping = self.skipping(bound);
        if let Some(unfinished) = self.unfinished.get_mut(&sequence)
            && let Body::Kept(bytes) = &unfinished.body
        {
            skipping.extend(bytes.arrived());
            self.bytes -= bytes.len();
            self.kept.remove(&unfinished.begun);
            unfinished.body = Body::Skipped(skipping);
        }
    }

    /// A message that is skipped from here on.
    const fn skipping(&mut self, bound: Bound) -> Skipping {
        let head_bytes_max = if self.heads_bytes < HEADS_BYTES { HEAD_BYTES } else { SHORT_HEAD_BYTES };
        self.heads_bytes += head_bytes_max;
        Skipping::new(bound, 0, head_bytes_max)
    }
}
