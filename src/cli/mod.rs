//! What a person types, and what a person reads: the command line.
//!
//! clap and text tables live here only. What was typed becomes a [`crate::config::Config`]; what cannot become one ends the
//! program with code 2, what cannot run with code 1, and each says what happened, to what, and what to do next.

mod banner;
mod data;
mod epmd;
mod node;
mod server_name;
mod size;

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

/// The program could not run.
const EXIT_CANNOT_RUN: u8 = 1;
/// What was typed makes no sense. clap's own code for the same.
const EXIT_USAGE: u8 = 2;

const ABOUT: &str = "\
kvnode joins an Erlang or Elixir cluster as a hidden node and serves a replicated key-value store to GenServer callers.

  $ kvnode --sname slave1 --cookie secret --connect master@myhost
  iex(master@myhost)> GenServer.call({:global, :slave1}, {:put, :nombre, \"Mafalda\"})
  :ok
  iex(master@myhost)> GenServer.call({:global, :slave1}, {:get, :nombre})
  \"Mafalda\"";

const AFTER: &str = "\
NAMES of stores are atoms, typed as in Elixir: slave1 or :slave1 is the atom :slave1. A name that begins with an upper-case \
letter is a module, so that KeyValueStore is the atom :\"Elixir.KeyValueStore\"; write :KeyValueStore for the atom without \
that prefix.

The environment variables ERL_EPMD_PORT and ERL_EPMD_ADDRESS mean what they mean to Erlang.";

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "kvnode",
    version,
    about = ABOUT,
    after_help = AFTER,
    before_help = None,
    override_usage = "kvnode --sname NAME [OPTIONS]\n       kvnode --name NAME@HOST.DOMAIN [OPTIONS]\n       kvnode epmd [OPTIONS]",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
struct Cli {
    #[command(flatten)]
    node: node::NodeArgs,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Runs, asks or ends an epmd, as Erlang's own epmd program does
    Epmd(epmd::EpmdArgs),
    /// Reads everything in a folder of stores, and says what it found
    Check(data::CheckArgs),
}

/// Runs the program: reads what was typed, and blocks until the node, the daemon or the question has ended.
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let result = match cli.command {
        Some(Command::Epmd(args)) => epmd::main(args),
        Some(Command::Check(args)) => data::check(&args),
        None => node::main(cli.node, &matches),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be said about a stderr that is gone.
            let _ = writeln!(std::io::stderr(), "kvnode: {error}");
            ExitCode::from(match error {
                CliError::Usage(_) => EXIT_USAGE,
                CliError::CannotRun(_) => EXIT_CANNOT_RUN,
            })
        }
    }
}

/// Why the program ends: a text for people, complete.
#[derive(Debug)]
enum CliError {
    /// What was typed makes no sense.
    Usage(String),
    /// It makes sense and cannot be done here and now.
    CannotRun(String),
}

impl CliError {
    fn usage(text: impl fmt::Display) -> Self {
        Self::Usage(text.to_string())
    }

    fn cannot_run(text: impl fmt::Display) -> Self {
        Self::CannotRun(text.to_string())
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) | Self::CannotRun(text) => f.write_str(text),
        }
    }
}

/// Prints to stdout, and at once.
fn print(text: &str) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|reason| CliError::cannot_run(format!("cannot write to stdout: {reason}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
