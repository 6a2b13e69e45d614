//! A bound on how often one line is logged.

use std::collections::HashMap;
use std::io::{self, Write};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::{Context, Layer};

use super::LogFormat;

/// Lines of one kind that are logged in each [`THROTTLE_INTERVAL`]: a peer can cause warnings, and news of itself by coming
/// and going, and must not fill the disk with them.
const LINES_MAX: u32 = 200;
/// See [`LINES_MAX`].
const THROTTLE_INTERVAL: Duration = Duration::from_secs(10);

/// Leaves lines out of which there are too many of one kind, one kind being one place in the program. What is wanted for
/// looking into something (`debug`, `trace`) is logged whole.
pub(super) struct Throttle {
    format: LogFormat,
    kinds: Mutex<HashMap<Identifier, Lines>>,
}

/// Lines of one kind in this interval.
struct Lines {
    since: Instant,
    count: u32,
}

impl Throttle {
    pub(super) fn new(format: LogFormat) -> Self {
        Self { format, kinds: Mutex::default() }
    }

    /// Whether a line may be logged, and how many of its kind were left out before it.
    fn admit(&self, metadata: &Metadata<'_>, at: Instant) -> (bool, u32) {
        if *metadata.level() > Level::INFO {
            return (true, 0);
        }
        let mut kinds = self.kinds.lock();
        let lines = kinds.entry(metadata.callsite()).or_insert(Lines { since: at, count: 0 });
        lines.admit(at)
    }
}

impl Lines {
    fn admit(&mut self, at: Instant) -> (bool, u32) {
        let mut left_out = 0;
        if at.duration_since(self.since) >= THROTTLE_INTERVAL {
            left_out = self.count.saturating_sub(LINES_MAX);
            *self = Self { since: at, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        (self.count <= LINES_MAX, left_out)
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        let (admitted, left_out) = self.admit(metadata, crate::program::now());
        if left_out > 0 {
            // stderr may be closed.
            let _ =
                io::stderr().write_all(left_out_line(self.format, *metadata.level(), left_out).as_bytes());
        }
        admitted
    }
}

/// What stands in the place of lines of this level that were left out. (Not an event: this is where one is handled.)
fn left_out_line(format: LogFormat, level: Level, left_out: u32) -> String {
    let mut time = String::new();
    // Writing to a String does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let message = "lines like the next one were left out";
    match format {
        LogFormat::Human => format!("{time} {level:>5} {left_out} {message}\n"),
        LogFormat::Json => {
            let line = serde_json::json!({
                "timestamp": time, "level": level.as_str(), "message": message, "left_out": left_out,
                "target": module_path!(),
            });
            format!("{line}\n")
        }
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::program::log::tests::Shared;

    #[test]
    fn a_flood_of_one_kind_is_cut_and_other_lines_are_not() {
        let out = Shared::default();
        let lines = tracing_subscriber::fmt::layer().with_writer(out.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(Throttle::new(LogFormat::Human));
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..3 * LINES_MAX {
                tracing::warn!("one {number}");
                tracing::info!("two {number}");
                tracing::debug!("three {number}");
            }
            tracing::info!("four");
        });
        let text = out.text();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count() as u32;
        let counts = ["one", "two", "three", "four"].map(count);
        assert_eq!(counts, [LINES_MAX, LINES_MAX, 3 * LINES_MAX, 1]);
    }

    #[test]
    fn a_new_interval_tells_how_many_lines_the_last_one_left_out() {
        let start = crate::program::now();
        let mut lines = Lines { since: start, count: 0 };
        let admitted = (0..LINES_MAX + 7).filter(|_| lines.admit(start).0).count();
        assert_eq!(admitted, LINES_MAX as usize);
        assert_eq!(lines.admit(start + THROTTLE_INTERVAL), (true, 7));
        assert_eq!(lines.admit(start + THROTTLE_INTERVAL), (true, 0));
        assert_eq!(lines.admit(start + 2 * THROTTLE_INTERVAL), (true, 0));
    }

    #[test]
    fn what_was_left_out_is_told_in_the_form_of_the_log() {
        let human = left_out_line(LogFormat::Human, Level::INFO, 7);
        assert!(human.ends_with("Z  INFO 7 lines like the next one were left out\n"), "{human}");
        let json = left_out_line(LogFormat::Json, Level::WARN, 7);
        let line: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((line["level"].as_str(), line["left_out"].as_u64()), (Some("WARN"), Some(7)));
        assert!(json.ends_with("}\n") && json.lines().count() == 1, "{json}");
    }
}
