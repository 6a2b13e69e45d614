//! What an engine keeps beside a value: its traits, and numbers that few entries have.
//!
//! ```text
//! traits:8                                         an entry without a number
//! traits:8 with the bit 0x80, fields:8, numbers    fields: 1 = copy:32, 2 = revision:64, 4 = deadline:64, in this order
//! ```
//!
//! A number of 0 is none, and takes no byte: an entry without any is spelled as before there were numbers. An entry with fields
//! that are not known here is of a newer version, and is not read. (In memory every entry has a revision, which stands before it.)

use super::Value;
#[cfg(feature = "disk")]
use super::revision::REVISION_UNKNOWN;
use crate::etf::Traits;

/// Numbers follow: no trait has this bit.
const HAS_NUMBERS: u8 = 0x80;
const COPY: u8 = 1;
const REVISION: u8 = 2;
const DEADLINE: u8 = 4;
const KNOWN: u8 = COPY | REVISION | DEADLINE;

const _: () = assert!(Traits::ALL.bits() & HAS_NUMBERS == 0, "the bit is free");

/// What stands beside a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Head {
    /// What was noticed in the value.
    pub traits: Traits,
    /// See [`Value::copy`].
    pub copy: u32,
    /// See [`Value::revision`].
    pub revision: u64,
    /// See [`Value::deadline`].
    pub deadline: u64,
}

impl Head {
    /// Bytes that come behind the first at most.
    #[cfg(feature = "etcd")]
    pub(super) const NUMBERS_LEN_MAX: usize = Self::numbers_len_of(KNOWN);

    /// Of a value.
    #[inline]
    pub(super) const fn of(value: &Value<'_>) -> Self {
        let Value { traits, copy, revision, deadline, .. } = *value;
        Self { traits, copy, revision, deadline }
    }

    /// The same with some revision, where it has none.
    #[cfg(feature = "disk")]
    pub(super) const fn revised(self) -> Self {
        Self { revision: if self.revision == 0 { REVISION_UNKNOWN } else { self.revision }, ..self }
    }

    /// Whether numbers follow this first byte.
    pub(super) const fn has_numbers(first: u8) -> bool {
        first & HAS_NUMBERS != 0
    }

    const fn fields(&self) -> u8 {
        let copy = if self.copy == 0 { 0 } else { COPY };
        let revision = if self.revision == 0 { 0 } else { REVISION };
        let deadline = if self.deadline == 0 { 0 } else { DEADLINE };
        copy | revision | deadline
    }

    /// The first byte.
    #[inline]
    pub(super) const fn first(&self) -> u8 {
        if self.fields() == 0 { self.traits.bits() } else { self.traits.bits() | HAS_NUMBERS }
    }

    /// How many bytes come behind the first: those of the numbers, and one that says which these are.
    #[inline]
    pub(super) const fn numbers_len(&self) -> usize {
        let fields = self.fields();
        if fields == 0 { 0 } else { Self::numbers_len_of(fields) }
    }

    /// The same where the byte that says which numbers there are is this one.
    pub(super) const fn numbers_len_of(fields: u8) -> usize {
        let copy = if fields & COPY == 0 { 0 } else { size_of::<u32>() };
        copy + (fields & (REVISION | DEADLINE)).count_ones() as usize * size_of::<u64>() + 1
    }

    /// What comes behind the first byte.
    #[inline]
    pub(super) fn write_numbers(&self, out: &mut Vec<u8>) {
        let fields = self.fields();
        if fields == 0 {
            return;
        }
        out.push(fields);
        if self.copy != 0 {
            out.extend_from_slice(&self.copy.to_be_bytes());
        }
        for number in [self.revision, self.deadline] {
            if number != 0 {
                out.extend_from_slice(&number.to_be_bytes());
            }
        }
    }

    /// Puts another revision in the place of one that is there, where what comes behind the first byte is this.
    #[cfg(feature = "disk")]
    pub(super) fn give_revision(first: u8, behind: &mut [u8], revision: u64) {
        let Some((&mut fields, numbers)) = behind.split_first_mut() else { return };
        if !Self::has_numbers(first) || fields & REVISION == 0 {
            return;
        }
        let from = if fields & COPY == 0 { 0 } else { size_of::<u32>() };
        if let Some(place) = numbers.get_mut(from..from + size_of::<u64>()) {
            place.copy_from_slice(&revision.to_be_bytes());
        }
    }

    /// Reads a head by its first byte and what comes behind that. Gives how many bytes of the latter it takes; `None`: it is
    /// damaged, or of a newer version.
    #[inline]
    pub(super) fn read(first: u8, behind: &[u8]) -> Option<(Self, usize)> {
        if !Self::has_numbers(first) {
            let traits = Traits::from_bits(first);
            return Some((Self { traits, copy: 0, revision: 0, deadline: 0 }, 0));
        }
        Self::read_numbers(Traits::from_bits(first & !HAS_NUMBERS), behind)
    }

    #[cold]
    fn read_numbers(traits: Traits, behind: &[u8]) -> Option<(Self, usize)> {
        let (&fields, mut rest) = behind.split_first()?;
        if fields == 0 || fields & !KNOWN != 0 {
            return None;
        }
        let mut number = |field: u8, len: usize| {
            if fields & field == 0 {
                return Some(0);
            }
            let (number, after) = rest.split_at_checked(len)?;
            rest = after;
            Some(number.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
        };
        let copy = number(COPY, size_of::<u32>())?;
        let revision = number(REVISION, size_of::<u64>())?;
        let deadline = number(DEADLINE, size_of::<u64>())?;
        let head = Self { traits, copy: u32::try_from(copy).ok()?, revision, deadline };
        Some((head, behind.len() - rest.len()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(head: Head) -> Vec<u8> {
        let mut bytes = vec![head.first()];
        head.write_numbers(&mut bytes);
        bytes
    }

    #[test]
    fn a_head_is_spelled_as_it_is_said_and_one_without_numbers_is_a_byte() {
        let traits = Traits::V4_NC;
        assert_eq!(written(Head { traits, ..Head::default() }), [2]);
        assert_eq!(written(Head { traits, copy: 258, ..Head::default() }), [0x82, 1, 0, 0, 1, 2]);
        let whole = Head { traits, copy: 1, revision: 2, deadline: 3 };
        let numbers = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 3];
        assert_eq!(written(whole), [&[0x82, 7][..], &numbers].concat());
    }

    #[test]
    fn what_is_cut_or_has_a_field_that_is_not_known_is_none() {
        let whole = written(Head { traits: Traits::MAP, copy: 1, revision: 2, deadline: 3 });
        for end in 1..whole.len() {
            assert_eq!(Head::read(whole[0], &whole[1..end]), None, "{end}");
        }
        for fields in [0, 8, 9, 0x80] {
            assert_eq!(Head::read(HAS_NUMBERS, &[fields; 40]), None, "{fields}");
        }
    }

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), any::<u64>()]
    }

    proptest! {
        #[test]
        fn a_head_is_read_as_it_was_written(
            traits in 0..=Traits::ALL.bits(),
            copy in prop_oneof![Just(0), any::<u32>()],
            (revision, deadline) in (number(), number()),
            behind in prop::collection::vec(any::<u8>(), 0..4),
        ) {
            let head = Head { traits: Traits::from_bits(traits), copy, revision, deadline };
            let mut bytes = written(head);
            let len = bytes.len() - 1;
            prop_assert_eq!(head.numbers_len(), len);
            bytes.extend(behind);
            prop_assert_eq!(Head::read(bytes[0], &bytes[1..]), Some((head, len)));
        }

        #[cfg(feature = "disk")]
        #[test]
        fn a_revision_is_given_in_the_place_of_another(
            copy in prop_oneof![Just(0), any::<u32>()],
            (revision, deadline) in (number(), number()),
        ) {
            let head = Head { traits: Traits::MAP, copy, revision, deadline };
            let mut bytes = written(head);
            let first = bytes[0];
            Head::give_revision(first, &mut bytes[1..], 77);
            let given = Head { revision: if revision == 0 { 0 } else { 77 }, ..head };
            prop_assert_eq!(Head::read(first, &bytes[1..]), Some((given, bytes.len() - 1)));
        }
    }
}
