//! What a machine has to tell people.

use std::fmt::Debug;

use crate::kv::figures::StoreWatch;
use crate::replica::downstream::Level;
use crate::replica::upstream::Event;

/// Writes an event into the log.
pub(super) fn log(event: &Event, store: Option<&dyn Debug>) {
    let store = store.map(tracing::field::debug);
    let process = event.process().map(tracing::field::debug);
    let figure = |name| event.figures().find(|(known, _)| *known == name).map(|(_, figure)| figure);
    let [session, term, seq, lag] = ["session", "term", "seq", "lag"].map(figure);
    macro_rules! say {
        ($level:ident) => {
            tracing::$level!(store, process, session, term, seq, lag, "{event}")
        };
    }
    match event.level() {
        Level::Error => say!(error),
        Level::Warn => say!(warn),
        Level::Info => say!(info),
        Level::Debug => say!(debug),
    }
}

/// Counts what is counted of events.
pub(super) fn count(event: &Event, watch: &StoreWatch) {
    if matches!(event, Event::Promoted { .. }) {
        watch.promoted();
    }
}
