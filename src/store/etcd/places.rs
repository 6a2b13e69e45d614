//! The places of the changes of a transaction, by which each change has the same number in all processes.
//!
//! A revision of etcd has 256 numbers. A write of a batch takes one for each key that it changes, so that a change's number is etcd's
//! revision, its write's place, and its place in that write. A value in etcd has its write's place. What it does not tell is in the
//! writer's mark, behind the batch's number:
//!
//! ```text
//! number:64                                                the place of each change is its write's, and all are puts
//! number:64 clear:8                                        all keys go
//! number:64 listed:8 salt:8 (hash:32 place:8 back:8)...    changes, by the hashes of their keys: deletions, and puts that are not the first
//!                                                          of their writes; `back` is how far the write's place is before it, with the bit 0x80 where the key's time was over
//! ```
//!
//! The salt is such that no two keys of the batch have one hash. A key that was written twice has the place of the last write, which is
//! the one that other processes are told of.

use std::collections::BTreeMap;

use ahash::AHashSet;

use super::ask::{Changes, Key, Wrote};
use super::layout::{PLACES_MAX, last_revision, revision as number_of};
use crate::store::OwnedValue;

const CLEAR: u8 = 1;
const LISTED: u8 = 2;
const HAS_ENDED: u8 = 0x80;
/// Bytes of a change in the list.
const LISTED_BYTES: usize = 6;

/// Where a change stands in its transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spot {
    /// The place of its write.
    pub write: u64,
    /// Changes of the write that stand before it.
    pub before: u64,
    /// It deletes a key whose time is over.
    pub has_ended: bool,
}

/// What a writer's mark says of the changes in its revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Places {
    Clear,
    Listed { salt: u8, spots: BTreeMap<u32, Spot> },
}

/// FNV-1a, which begins with the salt.
fn hash(salt: u8, key: &[u8]) -> u32 {
    let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    key.iter().fold(step(0x811c_9dc5, &salt), step)
}

/// What a mark has behind its number. `made`: each key, whether it gets a value, and where its change stands.
pub(super) fn write<'a>(clears: bool, made: impl Iterator<Item = (&'a Key, bool, Spot)> + Clone) -> Vec<u8> {
    if clears {
        return vec![CLEAR];
    }
    let is_told = |(_, is_put, spot): &(&Key, bool, Spot)| *is_put && spot.before == 0;
    if made.clone().all(|change| is_told(&change)) {
        return Vec::new();
    }
    let tells_apart = |salt: &u8| {
        let mut hashes = AHashSet::new();
        made.clone().all(|(key, ..)| hashes.insert(hash(*salt, key)))
    };
    let salt = (0..=u8::MAX).find(tells_apart).unwrap_or(0);
    let mut bytes = vec![LISTED, salt];
    for (key, _, spot) in made.filter(|change| !is_told(change)) {
        bytes.extend_from_slice(&hash(salt, key).to_be_bytes());
        // Both are less: a batch has no more places, and a write no more keys.
        bytes.push((spot.write + spot.before) as u8);
        bytes.push(spot.before as u8 | if spot.has_ended { HAS_ENDED } else { 0 });
    }
    bytes
}

impl Places {
    /// What a mark has behind its number; `None`: no writer of this version has written it.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let (salt, listed) = match bytes {
            [] => (0, bytes),
            [CLEAR] => return Some(Self::Clear),
            [LISTED, salt, listed @ ..] => (*salt, listed),
            _ => return None,
        };
        let (chunks, rest) = listed.as_chunks::<LISTED_BYTES>();
        let of = |&[a, b, c, d, place, back]: &[u8; LISTED_BYTES]| {
            let before = u64::from(back & !HAS_ENDED);
            let write = u64::from(place).checked_sub(before)?;
            let spot = Spot { write, before, has_ended: back & HAS_ENDED != 0 };
            Some((u32::from_be_bytes([a, b, c, d]), spot))
        };
        let spots = chunks.iter().map(of).collect::<Option<_>>()?;
        rest.is_empty().then_some(Self::Listed { salt, spots })
    }

    fn spot(&self, key: &[u8]) -> Option<Spot> {
        match self {
            Self::Listed { salt, spots } => spots.get(&hash(*salt, key)).copied(),
            Self::Clear => None,
        }
    }
}

/// The changes of a revision as the writes that made them, with their numbers. Of a program that says nothing of places the changes are
/// numbered in the same way by all processes. `Err`: they are more than there are numbers, as of a deletion of many keys by
/// another program.
pub(super) fn writes(
    revision: i64,
    changes: Changes,
    places: Option<&Places>,
) -> Result<Vec<Wrote>, Changes> {
    let spot = |key: &Key, value: &Option<OwnedValue>| {
        let of_value = value
            .as_ref()
            .map(|value| Spot { write: value.revision & (PLACES_MAX as u64 - 1), ..Spot::default() });
        places.and_then(|places| places.spot(key)).or(of_value)
    };
    let mut spotted: Vec<(Option<Spot>, Key, Option<OwnedValue>)> =
        changes.into_iter().map(|(key, value)| (spot(&key, &value), key, value)).collect();
    let place = |spot: &Option<Spot>| spot.map(|spot| spot.write + spot.before);
    // Changes without a place stand behind the rest, in the order of their keys.
    spotted.sort_by_key(|(spot, ..)| place(spot).unwrap_or(u64::MAX));
    let (mut next, mut is_over) = (0, false);
    let mut writes: Vec<(Option<u64>, Wrote)> = Vec::new();
    let mut rest = Changes::new();
    for (spot, key, value) in spotted {
        let at = place(&spot).unwrap_or(0).max(next);
        is_over |= at >= PLACES_MAX as u64;
        next = at + 1;
        if is_over {
            rest.push((key, value));
            continue;
        }
        let (write, has_ended) = (spot.map(|spot| spot.write), spot.is_some_and(|spot| spot.has_ended));
        let number = number_of(revision, at);
        match writes.last_mut() {
            Some((known, wrote)) if *known == write => {
                wrote.changes.push((key, value));
                wrote.numbers.push(number);
            }
            _ => {
                let (changes, numbers) = (vec![(key, value)], vec![number]);
                writes.push((write, Wrote { seq: 0, changes, numbers, has_ended }));
            }
        }
    }
    let writes = writes.into_iter().map(|(_, wrote)| wrote);
    if is_over {
        return Err(writes.flat_map(|wrote| wrote.changes).chain(rest).collect());
    }
    Ok(writes.collect())
}

/// Numbers of changes that have none of their own, in a revision up to which not each change is known.
pub(super) fn unknown(revision: i64, changes: usize) -> Vec<u64> {
    vec![last_revision(revision); changes]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::etf::Traits;
    use crate::store::Value;

    fn key(number: u8) -> Key {
        Key::from([97, number])
    }

    fn value(revision: i64, write: u64) -> OwnedValue {
        OwnedValue { revision: number_of(revision, write), ..Value::of(b"v", Traits::none()).to_owned() }
    }

    proptest! {
        /// Writes, each of keys that are put or deleted, one of them perhaps an expiry; and the keys of which etcd shows no deletion.
        #[test]
        fn each_change_has_its_writers_number_elsewhere_whatever_of_the_batch_is_shown(
            batch in prop::collection::vec(prop::collection::btree_map(0_u8..30, any::<bool>(), 1..8), 1..30),
            absent in prop::collection::btree_set(0_u8..30, 0..30),
        ) {
            let (mut made, mut place) = (BTreeMap::new(), 0);
            for write in &batch {
                let has_ended = write.len() == 1 && write.keys().all(|key| key % 2 == 0);
                // As the caller names them: in some other order.
                for (before, (number, is_put)) in (0..).zip(write.iter().rev()) {
                    let spot = Spot { write: place, before, has_ended: has_ended && !is_put };
                    made.insert(key(*number), (*is_put, spot));
                }
                place += write.len() as u64;
            }
            prop_assume!(place <= PLACES_MAX as u64);
            let bytes = write(false, made.iter().map(|(key, (is_put, spot))| (key, *is_put, *spot)));
            let places = Places::read(&bytes).expect("it was written here");
            let is_shown = |(key, (is_put, _)): &(&Key, &(bool, Spot))| *is_put || !absent.contains(&key[1]);
            let shown = made.iter().filter(is_shown);
            let changes = shown.clone().map(|(key, (is_put, spot))| (key.clone(), is_put.then(|| value(9, spot.write))));
            let writes = writes(9, changes.collect(), Some(&places)).expect("there are enough numbers");
            let mut told = BTreeMap::new();
            let mut last = 0;
            for wrote in &writes {
                let of = wrote.changes.iter().map(|(key, _)| made[key].1).collect::<Vec<_>>();
                prop_assert!(of.iter().all(|spot| spot.write == of[0].write), "a write is told of as one");
                prop_assert_eq!(wrote.has_ended, of[0].has_ended);
                for ((key, _), number) in wrote.changes.iter().zip(&wrote.numbers) {
                    prop_assert!(*number > last, "numbers go up");
                    last = *number;
                    told.insert(key.clone(), *number);
                }
            }
            let wanted = shown.map(|(key, (_, spot))| (key.clone(), number_of(9, spot.write + spot.before)));
            prop_assert_eq!(told, wanted.collect());
        }
    }

    #[test]
    fn what_other_programs_do_has_numbers_too_unless_it_is_too_much() {
        let deleted = |count: u16| -> Changes {
            (0..count).map(|number| (Key::from(number.to_be_bytes()), None)).collect()
        };
        let put = (key(1), Some(value(3, 7)));
        let changes: Changes = deleted(2).into_iter().chain([put.clone()]).collect();
        let told = writes(3, changes, None).expect("there are enough numbers");
        assert_eq!((told[0].changes[0].0.clone(), &told[0].numbers[..]), (put.0, &[3 << 8 | 7][..]));
        assert_eq!((told[1].changes.len(), &told[1].numbers[..]), (2, &[3 << 8 | 8, 3 << 8 | 9][..]));
        assert!(writes(3, deleted(256), None).is_ok_and(|told| told.len() == 1));
        assert!(writes(3, deleted(257), None).is_err_and(|all| all.len() == 257));
        for garbage in [&[3][..], &[CLEAR, 1], &[LISTED], &[LISTED, 0, 1], &[LISTED, 0, 1, 2, 3, 4, 5, 6]] {
            assert_eq!(Places::read(garbage), None, "{garbage:?}");
        }
        assert_eq!(Places::read(&write(true, [].into_iter())), Some(Places::Clear));
    }
}
