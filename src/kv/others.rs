//! Writes of other processes that have the same store. Slaves and watchers get them in the order of their numbers, among the writes of
//! this server's callers.

use std::sync::Arc;

use super::order::Committed;
use super::server::KeyValueServer;
use super::watch::announce;
use super::write::committed_elsewhere;
use crate::etf::{TermView, Traits};
use crate::store::{Change, Others, OthersTold, Store, Written};

impl<S: Store> KeyValueServer<S> {
    /// Counts on from the writes that the store has told of by now, and is told of others' writes from then on.
    pub(super) fn begin_in_order(&self) {
        let (confirmations, dispatch) = (Arc::downgrade(&self.confirmations), Arc::clone(&self.dispatch));
        let tell: OthersTold = Box::new(move |others| {
            // Else the server has ended.
            let Some(confirmations) = confirmations.upgrade() else { return };
            match others {
                Others::Wrote { written, has_ended } => {
                    // As the writes of other processes are in the store's number of writes.
                    if has_ended && let Some(figures) = confirmations.counted_in() {
                        figures.count_expired();
                    }
                    let traits = traits_of(&written);
                    let write = Committed { written, traits, revision: 0, confirmed: false, has_ended };
                    committed_elsewhere(&confirmations, &write, &*dispatch);
                    // Its writer may have ended by the time that the key does.
                    let ends = |(_, change): &(&[u8], Change<'_>)| matches!(change, Change::Put(value) if value.deadline != 0);
                    if written.changes.iter().any(ends)
                        && let Some(wake) = confirmations.ends_elsewhere.get()
                    {
                        wake();
                    }
                }
                Others::Missed { number } => {
                    let nodes = {
                        let _order = confirmations.order.hold();
                        confirmations.watches.miss_up_to(number)
                    };
                    announce(&confirmations.watches, nodes, &*dispatch);
                }
            }
        });
        // The store's thread waits for the order until it is known where that begins.
        self.in_order_of_writes(|| {
            let seq = self.store().tell_of_others(tell);
            self.confirmations.order.begin_behind(seq);
            self.confirmations.watches.begin_behind(self.store().revision(), S::IS_SHARED);
        });
    }
}

/// The key's traits of a write of one key. Of several keys each is looked at later.
fn traits_of(written: &Written<'_>) -> Traits {
    match written.changes {
        [(key, _)] => TermView::parse(key).map_or(Traits::none(), TermView::traits),
        _ => Traits::none(),
    }
}
