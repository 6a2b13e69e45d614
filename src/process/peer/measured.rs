//! What is counted of a server that handles messages where they come in, and the span that it handles them in.

use std::time::Instant;

use crate::process::Process;
use crate::process::figures::{Kind, ServerFigures, Timed};
use crate::process::message::Message;

/// Counts a message that is handed over, and begins to measure it if it is to be.
#[inline]
pub(super) fn begin(figures: &ServerFigures, message: Message<'_>, timed: Option<Timed>) -> Option<Handling> {
    figures.count(match message {
        Message::Call(..) => Kind::Call,
        Message::Cast(_) => Kind::Cast,
        Message::Info(_) | Message::Skipped(_) => Kind::Info,
        Message::System(..) => return None,
    });
    timed.map(|timed| Handling { timed, began: (timed.now)() })
}

/// The span that a message is handled in.
#[inline]
pub(super) fn span_of(process: &Process, figures: &ServerFigures) -> Option<tracing::span::EnteredSpan> {
    if !tracing::span_enabled!(target: "kvnode::server", tracing::Level::TRACE) {
        return None;
    }
    let (server, pid) = (figures.label(), &process.pid);
    Some(tracing::trace_span!(target: "kvnode::server", "handle", server, ?pid).entered())
}

/// A message that is measured while it is handled.
pub(super) struct Handling {
    timed: Timed,
    began: Instant,
}

impl Handling {
    #[cold]
    pub(super) fn end(self, figures: &ServerFigures, is_answered: bool) {
        let Timed { since, weight, now } = self.timed;
        let ended = now();
        figures.handled(ended.saturating_duration_since(self.began), weight);
        if is_answered {
            figures.answered(ended.saturating_duration_since(since), weight);
        }
    }
}
