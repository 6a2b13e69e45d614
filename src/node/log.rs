//! Logs: one line on stderr for each event that an operator wants.
//!
//! `2026-11-23T01:48:38.000000Z  INFO peer up peer=master@host`. Whatever a peer says stays on its line: control characters
//! are shown escaped. Colours only where a person looks.

use std::collections::HashMap;
use std::fmt::{self, Write};
use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tracing::callsite::Identifier;
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

/// What is logged: a level, or levels for parts of the program, as in `kvnode=debug,warn`.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLevels(Targets);

impl Default for LogLevels {
    fn default() -> Self {
        Self(Targets::new().with_default(LevelFilter::INFO))
    }
}

impl std::str::FromStr for LogLevels {
    type Err = LogLevelsError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut targets = Targets::new();
        for part in text.split(',').map(str::trim) {
            let error = || LogLevelsError { part: part.to_owned() };
            let (target, level) = match part.split_once('=') {
                Some((target, level)) => (Some(target), level),
                None => (None, part),
            };
            // By name only: tracing also takes numbers, and a lone word that is no level for a target.
            let level = match level.to_ascii_lowercase().as_str() {
                "off" => LevelFilter::OFF,
                "error" => LevelFilter::ERROR,
                "warn" => LevelFilter::WARN,
                "info" => LevelFilter::INFO,
                "debug" => LevelFilter::DEBUG,
                "trace" => LevelFilter::TRACE,
                _ => return Err(error()),
            };
            targets = match target {
                Some("") => return Err(error()),
                Some(target) => targets.with_target(target, level),
                None => targets.with_default(level),
            };
        }
        Ok(Self(targets))
    }
}

/// A part of the levels that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLevelsError {
    part: String,
}

impl fmt::Display for LogLevelsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no level; write off, error, warn, info, debug or trace, or PART=LEVEL as in kvnode::node=debug,warn",
            self.part
        )
    }
}

impl std::error::Error for LogLevelsError {}

/// Sends the program's log to stderr from now on. A second call, or one after a subscriber of the library's user, has
/// no effect.
pub fn init(levels: LogLevels) {
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines =
        tracing_subscriber::fmt::layer().with_ansi(colours).event_format(Line).with_writer(io::stderr);
    let subscriber = tracing_subscriber::registry().with(levels.0).with(lines).with(Throttle::default());
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Lines of one kind that are logged in each [`THROTTLE_INTERVAL`]: a peer can cause warnings, and must not fill the disk
/// with them.
const LINES_MAX: u32 = 200;
/// See [`LINES_MAX`].
const THROTTLE_INTERVAL: Duration = Duration::from_secs(10);

/// Leaves warnings and errors out of which there are too many of one kind, one kind being one place in the program.
#[derive(Default)]
struct Throttle {
    kinds: Mutex<HashMap<Identifier, Lines>>,
}

/// Lines of one kind in this interval.
struct Lines {
    since: Instant,
    count: u32,
}

impl Throttle {
    /// Whether a line may be logged, and how many of its kind were left out before it.
    fn admit(&self, metadata: &Metadata<'_>, at: Instant) -> (bool, u32) {
        if *metadata.level() > Level::WARN {
            return (true, 0);
        }
        let mut kinds = self.kinds.lock();
        let lines = kinds.entry(metadata.callsite()).or_insert(Lines { since: at, count: 0 });
        let mut left_out = 0;
        if at.duration_since(lines.since) >= THROTTLE_INTERVAL {
            left_out = lines.count.saturating_sub(LINES_MAX);
            *lines = Lines { since: at, count: 0 };
        }
        lines.count = lines.count.saturating_add(1);
        (lines.count <= LINES_MAX, left_out)
    }
}

impl<S: Subscriber> Layer<S> for Throttle {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let (admitted, left_out) = self.admit(event.metadata(), super::now());
        if left_out > 0 {
            let mut time = String::new();
            // Writing to a String does not fail, and stderr may be closed.
            let _ = SystemTime.format_time(&mut Writer::new(&mut time));
            let _ = io::Write::write_all(
                &mut io::stderr(),
                format!("{time}  WARN {left_out} lines like the next one were left out\n").as_bytes(),
            );
        }
        admitted
    }
}

/// The form of a line: time, level, message, fields.
struct Line;

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut line: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        SystemTime.format_time(&mut line)?;
        let level = *event.metadata().level();
        if line.has_ansi_escapes() {
            write!(line, " \x1b[{}m{level:>5}\x1b[0m", colour(level))?;
        } else {
            write!(line, " {level:>5}")?;
        }
        let mut parts = Parts::default();
        event.record(&mut parts);
        writeln!(line, " {}{}", parts.message, parts.fields)
    }
}

fn colour(level: Level) -> u8 {
    match level {
        Level::ERROR => 31,
        Level::WARN => 33,
        Level::INFO => 32,
        Level::DEBUG => 34,
        Level::TRACE => 35,
    }
}

/// The message, and the fields in the order that they were written in.
#[derive(Default)]
struct Parts {
    message: String,
    fields: String,
}

impl Visit for Parts {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = if field.name() == "message" {
            write!(OneLine(&mut self.message), "{value:?}")
        } else {
            self.fields.push(' ');
            self.fields.push_str(field.name());
            self.fields.push('=');
            write!(OneLine(&mut self.fields), "{value:?}")
        };
    }
}

/// Escapes what would end the line, or would be an order to the terminal.
struct OneLine<'a>(&'a mut String);

impl Write for OneLine<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if character.is_control() {
                self.0.extend(character.escape_default());
            } else {
                self.0.push(character);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Shared {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    fn logged(levels: &str, colours: bool, act: impl FnOnce()) -> String {
        let out = Shared::default();
        let lines =
            tracing_subscriber::fmt::layer().with_ansi(colours).event_format(Line).with_writer(out.clone());
        let levels: LogLevels = levels.parse().unwrap();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(levels.0).with(lines), act);
        String::from_utf8(out.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn an_event_is_one_line_of_time_level_message_and_fields() {
        let line =
            logged("info", false, || tracing::warn!(peer = %"a@h", tries = 3, why = "no", "peer {}", "down"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");
        assert_eq!(rest, " WARN peer down peer=a@h tries=3 why=\"no\"\n");
    }

    #[test]
    fn what_a_peer_says_cannot_forge_lines_or_steer_the_terminal() {
        let line =
            logged("info", false, || tracing::info!(peer = %"a\n2026 INFO b\u{1b}[2J\u{9b}", "x\r\ny"));
        assert!(line.ends_with(" INFO x\\r\\ny peer=a\\n2026 INFO b\\u{1b}[2J\\u{9b}\n"), "{line:?}");
        assert_eq!(line.matches('\n').count(), 1);
    }

    #[test]
    fn a_flood_of_one_kind_is_cut_and_other_lines_are_not() {
        let out = Shared::default();
        let lines = tracing_subscriber::fmt::layer().event_format(Line).with_writer(out.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(Throttle::default());
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..3 * LINES_MAX {
                tracing::warn!("one {number}");
                tracing::info!("two {number}");
            }
            tracing::warn!("three");
        });
        let text = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        let count = |word: &str| text.lines().filter(|line| line.contains(word)).count() as u32;
        assert_eq!((count("one"), count("two"), count("three")), (LINES_MAX, 3 * LINES_MAX, 1));
    }

    #[test]
    fn colours_are_for_terminals() {
        assert!(logged("info", true, || tracing::error!("x")).contains("\x1b[31mERROR\x1b[0m x"));
        assert!(!logged("info", false, || tracing::error!("x")).contains('\x1b'));
    }

    #[test]
    fn levels_choose_what_is_logged() {
        let act = || {
            tracing::debug!(target: "kvnode::node", "one");
            tracing::info!(target: "other", "two");
        };
        assert!(logged("kvnode=debug,warn", false, act).contains("one"));
        assert!(!logged("kvnode=debug,warn", false, act).contains("two"));
        assert!(!logged("info", false, act).contains("one"));
        assert_eq!(logged("off", false, act), "");
    }

    #[test]
    fn what_is_no_level_is_refused() {
        for bad in ["", "loud", "kvnode=loud", "=info", "info,", "3"] {
            assert!(bad.parse::<LogLevels>().is_err(), "{bad}");
        }
        assert!("INFO, kvnode = debug".parse::<LogLevels>().is_err());
        assert!("INFO, kvnode=Debug".parse::<LogLevels>().is_ok());
    }
}
