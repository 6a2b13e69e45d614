//! An index of keys in Erlang's order of terms, and pages of it: what the stores that have one share.
//!
//! ```text
//! place of a key    its order key (etf/order.rs) of up to 60,000 bytes
//!   of a longer one the first 60,000 bytes, md5(key):16 bytes
//!   of what is no term in canonical form    255, the key; a longer one likewise
//! ```
//!
//! So an index has places of a bounded length. Keys with longer order keys are in order by their heads; which of two with the same
//! head comes first says nothing. Whether a range has them is told by their whole order keys, so that a page has all that it is
//! to have, and nothing else.
//!
//! How far a page has come is `'o'` and the place that it has looked at last: it is the same in every store that has an order, on disk
//! or in memory, and goes in both directions.

use std::ops::Bound;

use super::{Page, StoreError, Visit};
use crate::etf::order::{Seen, TermRange, canonical_order_head};
use crate::etf::{TermView, key};

/// Bytes of an order key that are in a place.
const HEAD_MAX: usize = 60_000;
const DIGEST_BYTES: usize = 16;
/// Longest place, in bytes.
pub(super) const PLACE_MAX: usize = HEAD_MAX + DIGEST_BYTES;
/// Above every order key.
const NO_TERM: u8 = 0xff;
const TAG: u8 = b'o';
/// A page ends after it has looked at so many places, or so many bytes, where its visitor does not end it before.
const LOOKED_MAX: usize = 4 << 10;
const BYTES_MAX: usize = 4 << 20;

/// Where a key stands in an index. No other key has its place, but for one that was made on purpose with the same md5.
pub(super) fn place_of(key: &[u8]) -> Vec<u8> {
    let (mut place, is_whole) = head_of(key, HEAD_MAX);
    if !is_whole {
        place.extend_from_slice(&md5::compute(key).0);
    }
    place
}

/// Whether a place is of a key whose order key is longer.
pub(super) const fn is_cut(place: &[u8]) -> bool {
    place.len() == PLACE_MAX
}

/// The first `max` bytes of what a key is in order by, and whether they are all.
fn head_of(key: &[u8], max: usize) -> (Vec<u8>, bool) {
    // A store takes what its user calls canonical; two keys with one place would be one to the index.
    let of_term = || {
        let (term, mut scratch) = (TermView::parse(key).ok()?, Vec::new());
        let canonical = key::canonical(term, &mut scratch).ok()?;
        (canonical == key).then(|| canonical_order_head(key, max).ok())?
    };
    of_term().unwrap_or_else(|| {
        let raw = key.get(..max.saturating_sub(1)).unwrap_or(key);
        ([&[NO_TERM], raw].concat(), raw.len() == key.len())
    })
}

/// The first of the places from which on keys with this order key, or a higher one, are.
fn lowest(order_key: &[u8]) -> &[u8] {
    order_key.get(..HEAD_MAX).unwrap_or(order_key)
}

/// No key with a lower order key than this is in this place or behind it; `None`: there is no such place.
fn highest(order_key: &[u8]) -> Option<Vec<u8>> {
    let Some(head) = order_key.get(..HEAD_MAX) else { return Some(order_key.to_vec()) };
    let last = head.iter().rposition(|byte| *byte < u8::MAX)?;
    let mut next = head.get(..=last)?.to_vec();
    *next.last_mut()? += 1;
    Some(next)
}

/// Places from one bound to another, with what stands there.
type Places<'a, T> = Box<dyn Iterator<Item = Result<(Vec<u8>, T), StoreError>> + 'a>;

/// An index as it is at one moment, or while others write.
pub(super) trait Index {
    /// What stands in a place.
    type At;

    /// What is between two bounds, of which the first is not above the second; the last first where it is `reverse`.
    fn between<'s>(
        &'s self,
        low: Bound<&'s [u8]>,
        high: Bound<&'s [u8]>,
        reverse: bool,
    ) -> Places<'s, Self::At>;

    /// Has an entry shown, and says what `visit` gives, with about so many bytes that were read for it. `None`: it is gone.
    fn show(
        &self,
        at: &Self::At,
        visit: &mut dyn FnMut(&[u8], Option<super::Value<'_>>) -> Visit,
    ) -> Result<Option<(Visit, usize)>, StoreError>;

    /// The first bytes of the order key of a place that is cut, and how many bytes were read for it.
    fn whole(&self, at: &Self::At, max: usize) -> Result<(Vec<u8>, usize), StoreError>;
}

/// The first bytes of the order key of a key.
pub(super) fn order_head_of(key: &[u8], max: usize) -> Vec<u8> {
    head_of(key, max).0
}

/// Where a page goes on.
struct Course {
    low: Bound<Vec<u8>>,
    high: Bound<Vec<u8>>,
    reverse: bool,
}

impl Course {
    fn new(range: &TermRange, reverse: bool, after: Option<&[u8]>) -> Self {
        let high = range.end().and_then(highest);
        let mut course = Self {
            low: Bound::Included(lowest(range.start()).to_vec()),
            high: high.map_or(Bound::Unbounded, Bound::Excluded),
            reverse,
        };
        if let Some(after) = after {
            course.go_behind(after);
        }
        course
    }

    /// Goes on behind a place.
    fn go_behind(&mut self, place: &[u8]) {
        let new = || Bound::Excluded(place.to_vec());
        match (&self.low, &self.high, self.reverse) {
            (Bound::Included(low), _, false) if place < &low[..] => {}
            (_, _, false) => self.low = new(),
            (_, Bound::Excluded(high), true) if place >= &high[..] => {}
            (_, _, true) => self.high = new(),
        }
    }

    /// Skips a gap that a place is in: `None`: nothing is behind it. Gives whether that is another place than the next one.
    fn skip(&mut self, place: &[u8], from: &[u8], to: Option<&[u8]>) -> Option<bool> {
        if self.reverse {
            // Nothing is below the lowest.
            let high = highest(from).filter(|_| !from.is_empty());
            match high {
                None if from.is_empty() => {
                    if is_cut(place) {
                        Some(false)
                    } else {
                        None
                    }
                }
                Some(high) if high[..] <= *place => {
                    self.high = Bound::Excluded(high);
                    Some(true)
                }
                _ => Some(false),
            }
        } else {
            let low = match to {
                Some(to) => lowest(to),
                // Behind the end there may be cut ones of the same head that are before it.
                None => return if is_cut(place) { Some(false) } else { None },
            };
            if low > place {
                self.low = Bound::Included(low.to_vec());
            }
            Some(low > place)
        }
    }

    fn is_over(&self) -> bool {
        match (&self.low, &self.high) {
            (Bound::Included(low), Bound::Excluded(high)) => low >= high,
            (Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
            _ => false,
        }
    }
}

/// Shows a page of an index.
pub(super) fn page<I: Index>(
    index: &I,
    (range, reverse): (&TermRange, bool),
    after: Option<&[u8]>,
    visit: &mut dyn FnMut(&[u8], Option<super::Value<'_>>) -> Visit,
) -> Result<Page, StoreError> {
    let after = match after {
        None => None,
        Some([TAG, place @ ..]) if place.len() <= PLACE_MAX => Some(place),
        Some(_) => return Ok(Page::Foreign),
    };
    let behind = |place: &[u8]| Page::Behind([&[TAG], place].concat());
    let mut course = Course::new(range, reverse, after);
    let mut last = after.map(<[u8]>::to_vec);
    let (mut looked, mut bytes) = (0, 0);
    while !course.is_over() {
        let mut has_skipped = false;
        let (low, high) = (course.low.clone(), course.high.clone());
        let [low, high] = [&low, &high].map(|bound| bound.as_ref().map(|place| &place[..]));
        for found in index.between(low, high, reverse) {
            let (place, at) = found?;
            looked += 1;
            bytes += place.len();
            let seen = if is_cut(&place) {
                let (order_key, read) = index.whole(&at, range.telling_bytes())?;
                bytes += read;
                range.see(&order_key)
            } else {
                range.see(&place)
            };
            match seen {
                Seen::In => match index.show(&at, visit)? {
                    Some((Visit::Back, _)) => return Ok(last.map_or(Page::Last, |last| behind(&last))),
                    Some((Visit::Enough, _)) => return Ok(behind(&place)),
                    Some((Visit::Next, read)) => bytes += read,
                    None => {}
                },
                Seen::Gap { from, to } => match course.skip(&place, &from, to.as_deref()) {
                    None => return Ok(Page::Last),
                    Some(skips) => has_skipped = skips,
                },
            }
            if looked >= LOOKED_MAX || bytes >= BYTES_MAX {
                return Ok(behind(&place));
            }
            last = Some(place);
            if has_skipped {
                break;
            }
        }
        if !has_skipped {
            break;
        }
    }
    Ok(Page::Last)
}

#[cfg(test)]
mod tests;
