//! `--log` and `--log-format`: the log of those commands that stay.

use std::io::Write;
use std::sync::OnceLock;

use clap::{Args, ValueEnum};

use crate::program::log::{self, LogFormat, LogLevels};

#[derive(Args)]
pub(super) struct LogArgs {
    /// What is logged on stderr: off, error, warn, info, debug or trace, also for parts: kvnode::node=debug,warn
    #[arg(long, value_name = "LEVELS", default_value = "info", help_heading = "Output")]
    log: LogLevels,
    /// The form of the log: lines for people, or a JSON object on each line
    #[arg(long, value_name = "FORM", default_value = "human", help_heading = "Output")]
    log_format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Human,
    Json,
}

/// The form of the log, once there is one.
static FORMAT: OnceLock<LogFormat> = OnceLock::new();

/// Sends the log to stderr from now on.
pub(super) fn init(args: &LogArgs) {
    let format = match args.log_format {
        Format::Human => LogFormat::Human,
        Format::Json => LogFormat::Json,
    };
    if *FORMAT.get_or_init(|| format) == LogFormat::Json {
        // The line of the standard hook is no JSON.
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            tracing::error!(place, "panicked: {}", panic.payload_as_str().unwrap_or_default());
        }));
    }
    log::init(args.log.clone(), format);
}

/// Says why the program ends: in the form of the log.
pub(super) fn fatal(error: &super::CliError) {
    if FORMAT.get() == Some(&LogFormat::Json) {
        tracing::error!("{error}");
    } else {
        say(&error.to_string());
    }
}

/// Tells a person something beside what is printed.
pub(super) fn say(text: &str) {
    // Nothing can be said about a stderr that is gone.
    let _ = writeln!(std::io::stderr(), "kvnode: {text}");
}
