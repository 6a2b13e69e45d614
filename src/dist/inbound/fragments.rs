//! The fragments of large messages, put together.

use std::sync::Arc;

use ahash::AHashMap;

use super::growing::Growing;
use super::{FrameError, InboundLimits};
use crate::etf::{Pool, PooledBytes};

/// A message of which some fragments have arrived.
#[derive(Debug)]
struct Unfinished {
    bytes: Growing,
    /// The number of the fragment that comes next; it counts down to 1.
    next: u64,
}

/// The unfinished messages of one connection, by the sequence that their sender gave them.
#[derive(Debug)]
pub(super) struct Fragments {
    unfinished: AHashMap<u64, Unfinished>,
    /// Bytes of all of them that have arrived.
    bytes: usize,
    pool: Arc<Pool>,
    limits: InboundLimits,
}

impl Fragments {
    pub(super) fn new(limits: InboundLimits) -> Self {
        Self { unfinished: AHashMap::default(), bytes: 0, pool: Pool::new(0), limits }
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
        self.unfinished.is_empty()
    }

    /// The first of `number` fragments begins, itself of `len` bytes.
    pub(super) fn begin(&mut self, sequence: u64, number: u64, len: usize) -> Result<(), FrameError> {
        if number == 0 {
            return Err(FrameError::Fragment { sequence, number, expected: None });
        }
        // All fragments but the last are as long as the first.
        let before_last = usize::try_from(number - 1).unwrap_or(usize::MAX).saturating_mul(len);
        self.check(before_last)?;
        // A sender that begins anew has given up what it had begun before.
        if let Some(dropped) = self.unfinished.remove(&sequence) {
            self.bytes -= dropped.bytes.len();
        }
        let claimed = before_last.saturating_add(len).min(self.limits.frame_bytes_max);
        // Each costs more than the bytes that it has, of which there may be none.
        let messages_max = self.limits.unfinished_messages_max;
        if self.unfinished.len() >= messages_max {
            return Err(FrameError::UnfinishedMessages { messages_max });
        }
        self.unfinished
            .insert(sequence, Unfinished { bytes: Growing::new(claimed, &self.pool), next: number });
        Ok(())
    }

    /// That a fragment is the one that comes next.
    pub(super) fn expect(&self, sequence: u64, number: u64) -> Result<(), FrameError> {
        let expected = self.unfinished.get(&sequence).map(|unfinished| unfinished.next);
        if expected == Some(number) {
            Ok(())
        } else {
            Err(FrameError::Fragment { sequence, number, expected })
        }
    }

    /// Some bytes of the fragment that is being received.
    pub(super) fn extend(&mut self, sequence: u64, bytes: &[u8]) -> Result<(), FrameError> {
        let Some(unfinished) = self.unfinished.get_mut(&sequence) else { return Ok(()) };
        unfinished.bytes.extend(bytes);
        self.bytes += bytes.len();
        let len = unfinished.bytes.len();
        self.check(len)
    }

    /// Room for `len` bytes of the fragment that is being received, or for as many as a read should bring.
    pub(super) fn room(&mut self, sequence: u64, len: usize) -> &mut [u8] {
        match self.unfinished.get_mut(&sequence) {
            Some(unfinished) => unfinished.bytes.room(len),
            None => &mut [],
        }
    }

    /// That a read has put `len` bytes into the room.
    pub(super) fn filled(&mut self, sequence: u64, len: usize) -> Result<(), FrameError> {
        let Some(unfinished) = self.unfinished.get_mut(&sequence) else { return Ok(()) };
        unfinished.bytes.filled(len);
        self.bytes += len;
        let len = unfinished.bytes.len();
        self.check(len)
    }

    /// The whole fragment has arrived. Gives the message when it was the last.
    pub(super) fn end(&mut self, sequence: u64) -> Option<Arc<PooledBytes>> {
        let unfinished = self.unfinished.get_mut(&sequence)?;
        unfinished.next -= 1;
        if unfinished.next > 0 {
            return None;
        }
        let finished = self.unfinished.remove(&sequence)?;
        self.bytes -= finished.bytes.len();
        Some(finished.bytes.finish(&self.pool))
    }

    /// Bytes of memory held.
    pub(super) fn capacity(&self) -> usize {
        self.unfinished.values().map(|unfinished| unfinished.bytes.capacity()).sum()
    }

    /// That a message of `len` bytes is within the bounds, and all of them are.
    const fn check(&self, len: usize) -> Result<(), FrameError> {
        let InboundLimits { frame_bytes_max, unfinished_bytes_max, .. } = self.limits;
        if len > frame_bytes_max {
            return Err(FrameError::TooLong { bytes: len, bytes_max: frame_bytes_max });
        }
        if self.bytes > unfinished_bytes_max {
            return Err(FrameError::Unfinished { bytes: self.bytes, bytes_max: unfinished_bytes_max });
        }
        Ok(())
    }
}
