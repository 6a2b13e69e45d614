//! Pages of a store on disk, in the order of the engine's keys, or in Erlang's order of terms.
//!
//! A place in the first is `'d'`, and the engine's key that the page before has shown last: so it is one after a restart too, and in every store on
//! disk.

use super::DiskStore;
use super::engine::View;
use super::error::engine_error;
use super::record::{self, Found};
use crate::etf::order::TermRange;
use crate::store::{Order, Page, Shows, Store, StoreError, Value, Visit, ordered, wait};

/// A page ends after so many entries, or about so many bytes read, where its visitor does not end it before.
const SHOWN_MAX: usize = 16 << 10;
const READ_BYTES_MAX: usize = 4 << 20;
const TAG: u8 = b'd';

/// Waits until all writes that wait are done.
fn settle(store: &DiskStore) -> Result<(), StoreError> {
    if !store.disk.shared.has_waiting() {
        return Ok(());
    }
    let settled = wait(|done| {
        store.barrier(|| done);
    });
    settled.unwrap_or(Err(StoreError::Io("terminated")))
}

/// The store with all that the caller has asked for before, and without what a crash could take back.
fn view(store: &DiskStore) -> Result<View, StoreError> {
    settle(store)?;
    let view = store.disk.shared.view()?;
    // What is seen there may not be synced.
    settle(store)?;
    Ok(view)
}

fn page_in_order(
    store: &DiskStore,
    range: (&TermRange, bool),
    after: Option<&[u8]>,
    shows: Shows,
    visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
) -> Result<Page, StoreError> {
    let view = view(store)?;
    match view.order_of(store.id, shows) {
        Some(index) => ordered::page(&index, range, after, visit),
        None => Ok(Page::Unordered),
    }
}

/// Shows a page. It waits for the disk.
pub(super) fn page(
    store: &DiskStore,
    order: Order<'_>,
    after: Option<&[u8]>,
    shows: Shows,
    visit: &mut dyn FnMut(&[u8], Option<Value<'_>>) -> Visit,
) -> Result<Page, StoreError> {
    let after = match (order, after) {
        (Order::OfTerms { range, reverse }, after) => {
            return page_in_order(store, (range, reverse), after, shows, visit);
        }
        (Order::Any, None) => &[][..],
        // The engine takes no longer ones.
        (Order::Any, Some([TAG, key @ ..])) if key.len() <= record::ENGINE_KEY_MAX => key,
        (Order::Any, Some(_)) => return Ok(Page::Foreign),
    };
    let view = view(store)?;
    let mut last: Option<fjall::Slice> = None;
    let behind = |key: &[u8]| Page::Behind([&[TAG], key].concat());
    let (mut shown, mut read) = (0, 0);
    for entry in view.entries_behind(store.id, None, after).ok_or(StoreError::Io("eio"))? {
        let wants_value = |key: &fjall::Slice| shows != Shows::Keys || record::is_digest(key);
        let (engine_key, entry) = entry.into_inner_if(wants_value).map_err(|error| engine_error(&error))?;
        let found = match entry {
            None => None,
            Some(entry) => {
                read += entry.len();
                Some(Found::new(&engine_key, entry).ok_or(StoreError::Io("damaged"))?)
            }
        };
        let key = found.as_ref().and_then(Found::long_key).unwrap_or_else(|| record::plain_key(&engine_key));
        let value = found.as_ref().filter(|_| shows != Shows::Keys).map(Found::value);
        shown += 1;
        read += engine_key.len();
        let seen = visit(key, value);
        if seen == Visit::Back {
            return Ok(behind(last.as_deref().unwrap_or(after)));
        }
        if seen == Visit::Enough || shown >= SHOWN_MAX || read >= READ_BYTES_MAX {
            return Ok(behind(&engine_key));
        }
        last = Some(engine_key);
    }
    Ok(Page::Last)
}
