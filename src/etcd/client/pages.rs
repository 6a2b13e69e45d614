//! A range page by page, with as many entries in each as come to a good size: etcd bounds an answer by entries alone.

use prost::bytes::Bytes;

use super::Etcd;
use crate::etcd::Error;
use crate::etcd::message::{KeyValue, RangeRequest};

/// Bytes of a page that are aimed at, where half of what is read of an answer is not less. etcd looks at all keys up to the range's
/// end for each page, however few it brings (some 0.7 s where 1,000,000 follow): few large pages are read sooner than many small ones.
const PAGE_BYTES: usize = 8 << 20;
/// Entries of the first page: the largest that a request can bring come to less than is read of an answer.
const FIRST_LIMIT: i64 = 8;
/// Entries of a page at most.
const LIMIT_MAX: i64 = 100_000;
/// So many times the entries of a page the next has at most.
const GROWTH: i64 = 32;

/// See [`Etcd::pages`].
#[derive(Debug)]
pub struct Pages {
    etcd: Etcd,
    range: RangeRequest,
    limit: i64,
    is_over: bool,
}

impl Pages {
    pub(super) fn new(etcd: Etcd, range: RangeRequest) -> Self {
        // By key: where the next page begins is told by the last one.
        let range = RangeRequest { sort_order: 0, sort_target: 0, ..range };
        Self { etcd, range, limit: FIRST_LIMIT, is_over: false }
    }

    /// The revision of all pages; 0: there was no page yet.
    pub fn revision(&self) -> i64 {
        self.range.revision
    }

    /// The next page. `None`: that was all. May be called again after an error.
    ///
    /// # Errors
    ///
    /// See [`Error`]; [`Error::Compacted`] if the revision was compacted meanwhile, [`Error::AnswerTooLarge`] if one entry
    /// alone is too large; [`Error::Malformed`] if the entries are not in order, or not of the range.
    pub async fn next(&mut self) -> Result<Option<Vec<KeyValue>>, Error> {
        while !self.is_over {
            self.range.limit = self.limit;
            let page = match self.etcd.call(&self.range).await {
                Err(Error::AnswerTooLarge { .. }) if self.limit > 1 => {
                    self.limit /= 4;
                    self.limit = self.limit.max(1);
                    continue;
                }
                page => page?,
            };
            let revision = page.header.map_or(0, |header| header.revision);
            if self.range.revision == 0 {
                self.range.revision = revision;
            }
            // What goes back would go on without end.
            let keys = || page.kvs.iter().map(|kv| &kv.key);
            let is_behind = keys().next().is_none_or(|first| *first >= self.range.key);
            if !is_behind || !keys().is_sorted_by(|a, b| a < b) {
                return Err(Error::Malformed { reason: "a range's entries are not in order" });
            }
            let bytes = page.kvs.iter().map(|kv| kv.key.len() + kv.value.len()).sum();
            let page_bytes = PAGE_BYTES.min(self.etcd.0.config.message_bytes_max / 2);
            self.limit = limit_after(self.limit, page.kvs.len(), bytes, page_bytes);
            let Some(last) = page.kvs.last() else {
                self.is_over = true;
                break;
            };
            self.is_over = !page.more || self.range.range_end.is_empty();
            // The key behind the last one.
            self.range.key = Bytes::from([&last.key[..], &[0]].concat());
            return Ok(Some(page.kvs));
        }
        Ok(None)
    }
}

/// Entries of the next page: as many as come to so many bytes if they are as large as those of this one, and not too many times
/// those of this one, as they may be larger.
fn limit_after(limit: i64, entries: usize, bytes: usize, page_bytes: usize) -> i64 {
    let each = bytes.checked_div(entries).unwrap_or(0).max(1);
    let fits = i64::try_from(page_bytes / each).unwrap_or(LIMIT_MAX);
    fits.clamp(1, limit.saturating_mul(GROWTH).min(LIMIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_grow_to_a_good_size_and_shrink_with_large_entries() {
        let mut limit = FIRST_LIMIT;
        let mut grown = Vec::new();
        for _ in 0..4 {
            limit = limit_after(limit, limit as usize, limit as usize * 100, PAGE_BYTES);
            grown.push(limit);
        }
        assert_eq!(grown, [256, 8192, 83_886, 83_886]);
        assert_eq!(limit_after(83_886, 83_886, 83_886 * (1 << 20), PAGE_BYTES), 8);
        assert_eq!(limit_after(1, 1, 0, PAGE_BYTES), 32);
        assert_eq!(limit_after(LIMIT_MAX, 0, 0, PAGE_BYTES), LIMIT_MAX);
    }
}
