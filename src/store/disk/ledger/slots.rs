//! A file of a few numbers that is overwritten in place, so that one state of it is always whole.
//!
//! ```text
//! file   two slots, at 0 and 4096, the newer one counts
//! slot   serial:64, five numbers of 64 bits, xxh3:64 of what is before      (big-endian)
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_64;

/// What is kept.
pub(super) type Numbers = [u64; 5];

const SLOT_BYTES: usize = 56;
/// Where the second one is: in another block, so that what tears one leaves the other.
pub(super) const SECOND_AT: u64 = 4096;

/// The file.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    /// Of the slot that was written last.
    serial: u64,
}

impl Slots {
    /// Fills a new file, durably.
    pub(super) fn make(file: File, numbers: Numbers) -> io::Result<()> {
        let mut slots = Self { file, serial: 0 };
        slots.write(numbers)?;
        slots.write(numbers)?;
        slots.sync()
    }

    /// Reads the file; `None`: both slots are torn.
    pub(super) fn read(file: File) -> Option<(Self, Numbers)> {
        let slots = [0, SECOND_AT].map(|at| read_slot(&file, at));
        let (serial, numbers) = slots.into_iter().flatten().max_by_key(|(serial, _)| *serial)?;
        Some((Self { file, serial }, numbers))
    }

    /// Overwrites the older slot. A system that goes down afterwards may leave that or the one before.
    pub(super) fn write(&mut self, numbers: Numbers) -> io::Result<()> {
        self.serial += 1;
        let mut slot = [0; SLOT_BYTES];
        let all = [self.serial].into_iter().chain(numbers);
        for (into, number) in slot.chunks_exact_mut(8).zip(all) {
            into.copy_from_slice(&number.to_be_bytes());
        }
        let sum = xxh3_64(&slot[..SLOT_BYTES - 8]);
        slot[SLOT_BYTES - 8..].copy_from_slice(&sum.to_be_bytes());
        let at = if self.serial.is_multiple_of(2) { SECOND_AT } else { 0 };
        self.file.write_all_at(&slot, at)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

fn read_slot(file: &File, at: u64) -> Option<(u64, Numbers)> {
    let mut slot = [0; SLOT_BYTES];
    file.read_exact_at(&mut slot, at).ok()?;
    let mut all = [0; SLOT_BYTES / 8];
    for (number, bytes) in all.iter_mut().zip(slot.chunks_exact(8)) {
        *number = u64::from_be_bytes(bytes.try_into().ok()?);
    }
    let [serial, numbers @ .., sum] = all;
    (sum == xxh3_64(&slot[..SLOT_BYTES - 8])).then_some((serial, numbers))
}
