//! Logs: one line on stderr for each event that an operator wants.
//!
//! `2026-11-23T01:48:38.000000Z  INFO peer up peer=master@host`. Whatever a peer says stays on its line: control characters
//! are shown escaped. Colours only where a person looks. For programs the same events are JSON objects, one a line.

mod recent;
mod throttle;

use std::fmt::{self, Write};
use std::io::{self, IsTerminal};

use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use recent::Recent;
pub use recent::recent;
use throttle::Throttle;

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
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{part:?} is no level; write off, error, warn, info, debug or trace, or PART=LEVEL as in kvnode::node=debug,warn"
)]
pub struct LogLevelsError {
    part: String,
}

/// The form of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people, coloured on a terminal unless `NO_COLOR` is set.
    #[default]
    Human,
    /// A JSON object on each line: `timestamp` (RFC 3339, UTC), `level`, `message`, `target`, and the fields of the event.
    Json,
}

/// Sends the program's log to stderr from now on. A second call, or one after a subscriber of the library's user, has
/// no effect.
pub fn init(levels: LogLevels, format: LogFormat) {
    let colours =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let lines = lines(format, colours, io::stderr);
    let subscriber =
        tracing_subscriber::registry().with(lines).with(Recent).with(levels.0).with(Throttle::new(format));
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// Writes each event as a line.
fn lines<S, W>(format: LogFormat, colours: bool, out: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(out);
    match format {
        LogFormat::Human => layer.with_ansi(colours).event_format(Line).boxed(),
        LogFormat::Json => layer.json().flatten_event(true).with_current_span(false).boxed(),
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

    use super::*;

    #[derive(Clone, Default)]
    pub(crate) struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Shared {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

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
        logged_as(LogFormat::Human, levels, colours, act)
    }

    fn logged_as(format: LogFormat, levels: &str, colours: bool, act: impl FnOnce()) -> String {
        let out = Shared::default();
        let levels: LogLevels = levels.parse().unwrap();
        let subscriber =
            tracing_subscriber::registry().with(lines(format, colours, out.clone())).with(levels.0);
        tracing::subscriber::with_default(subscriber, act);
        out.text()
    }

    #[test]
    fn in_json_an_event_is_one_object_with_its_fields() {
        let text = logged_as(LogFormat::Json, "info", true, || {
            tracing::warn!(peer = %"a\n2026 \u{1b}[2J", tries = 3, "peer {}", "down");
            tracing::debug!("not this one");
        });
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(line["message"], "peer down");
        assert_eq!(line["level"], "WARN");
        assert_eq!(line["peer"], "a\n2026 \u{1b}[2J");
        assert_eq!(line["tries"], 3);
        assert_eq!(line["target"], module_path!());
        assert!(line["timestamp"].as_str().unwrap().ends_with('Z'));
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
