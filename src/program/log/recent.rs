//! The last warnings and errors, kept for those who look at the node and not at its log.

use std::collections::VecDeque;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use super::Parts;
use crate::program::snapshot::LoggedLine;

/// Lines that are kept.
const LINES_MAX: usize = 32;
/// Bytes that are kept of each.
const TEXT_BYTES_MAX: usize = 400;

static LINES: Mutex<VecDeque<LoggedLine>> = Mutex::new(VecDeque::new());

/// The last warnings and errors of this program, oldest first.
pub fn recent() -> Vec<LoggedLine> {
    LINES.lock().iter().cloned().collect()
}

/// Keeps what is logged.
pub(super) struct Recent;

impl<S: Subscriber> Layer<S> for Recent {
    #[expect(clippy::disallowed_methods, reason = "the shell is where the clock is read")]
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let level = *event.metadata().level();
        if level > Level::WARN {
            return;
        }
        let mut parts = Parts::default();
        event.record(&mut parts);
        let mut text = parts.message + &parts.fields;
        if text.len() > TEXT_BYTES_MAX {
            text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
            text.push('…');
        }
        let unix_secs = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let mut lines = LINES.lock();
        if lines.len() >= LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(LoggedLine { unix_secs, level: level.to_string(), text });
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[test]
    fn the_last_warnings_are_kept_and_not_more_of_them() {
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Recent), || {
            tracing::info!("not this one");
            for number in 0..2 * LINES_MAX {
                tracing::warn!(number, "this one\n{}", "é".repeat(TEXT_BYTES_MAX));
            }
        });
        let lines = recent();
        assert_eq!(lines.len(), LINES_MAX);
        for line in lines {
            assert!(
                line.text.starts_with("this one\\n") && line.text.len() <= TEXT_BYTES_MAX + 3,
                "{line:?}"
            );
            assert_eq!(line.level, "WARN");
        }
    }
}
