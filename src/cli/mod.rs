//! What a person types, and what a person reads: the command line.
//!
//! clap and text tables live here only. What was typed becomes a [`crate::config::Config`]; what cannot become one ends the
//! program with code 2, what cannot run with code 1, and each says what happened, to what, and what to do next.

mod answer;
mod ask;
mod banner;
mod bench;
mod call;
mod change;
mod client;
#[cfg(feature = "disk")]
mod data;
mod doctor;
mod engine;
mod entries;
mod epmd;
mod find;
mod http_address;
mod log;
mod names;
mod node;
mod own_name;
mod pages;
mod progress;
mod reads;
mod replica;
mod rpc;
mod scan;
mod second_opinion;
mod server_name;
mod settings;
mod size;
mod span;
mod store;
mod sync;
mod term;
mod tls;
mod top;
mod watch;

use std::ffi::OsString;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind as Wrong};
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use settings::Origins;

/// The program could not run.
const EXIT_CANNOT_RUN: u8 = 1;
/// What was typed makes no sense. clap's own code for the same.
const EXIT_USAGE: u8 = 2;
/// Nobody has the name that was asked for.
const EXIT_NO_PROCESS: u8 = 3;
/// No answer came in time.
const EXIT_TIMEOUT: u8 = 4;
/// The server, or the function, failed.
const EXIT_FAILED: u8 = 5;

/// The command whose flags are those of a node.
const CONFIG: &str = "config";

const ABOUT: &str = "\
kvnode joins an Erlang or Elixir cluster as a hidden node and serves a replicated key-value store to GenServer callers.

  $ kvnode --sname slave1 --cookie secret --connect master@myhost
  iex> GenServer.call({:global, :slave1}, {:put, :nombre, \"Mafalda\"})
  :ok
  iex> GenServer.call({:global, :slave1}, {:get, :nombre})
  \"Mafalda\"

  $ kvnode put :nombre '\"Mafalda\"'     the only kvnode of this machine is asked
  $ kvnode get :nombre --node slave1    or the one that --node names
  $ kvnode doctor master@myhost         why does it not connect?";

const AFTER: &str = "\
NAMES of stores are atoms, typed as in Elixir: slave1 or :slave1 is the atom :slave1. A name that begins with an upper-case \
letter is a module, so that KeyValueStore is the atom :\"Elixir.KeyValueStore\"; write :KeyValueStore for the atom without \
that prefix.

EXIT CODES: 0 done, 1 the node cannot be started or reached, 2 what was typed makes no sense, 3 nobody has the name that \
was asked for, 4 no answer in time, 5 the server or the function failed, or refused.

The environment variables ERL_EPMD_PORT and ERL_EPMD_ADDRESS mean what they mean to Erlang; NO_COLOR turns colours off.

WITHOUT EPMD, beside BEAMs that were started with -erl_epmd_port 4370, say --epmd none --dist-port 4370 to a node and to each \
command; a single node is found as NAME@HOST:PORT.

SETTINGS of a node can also stand in the environment, --net-ticktime as KVNODE_NET_TICKTIME (several values with blanks between \
them), and in a TOML file that --config names, as net-ticktime. Flags win over the environment, and that over the file.";

/// The whole command line.
#[derive(Parser)]
#[command(
    name = "kvnode",
    version,
    long_version = pages::VERSION.as_str(),
    about = ABOUT,
    after_help = AFTER,
    before_help = None,
    override_usage = "kvnode --sname NAME [OPTIONS]\n       kvnode --name NAME@HOST.DOMAIN [OPTIONS]\n       kvnode COMMAND [OPTIONS]",
    args_conflicts_with_subcommands = true,
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
    /// Prints the settings that a node starts with, and where each comes from
    Config(Box<node::ConfigArgs>),
    /// Prints the value of a key
    Get(client::GetArgs),
    /// Sets the value of a key
    Put(client::PutArgs),
    /// Deletes a key
    Delete(client::DeleteArgs),
    /// Adds to an integer
    Incr(change::IncrArgs),
    /// Sets the value of a key that has what is expected
    Cas(change::CasArgs),
    /// Deletes all keys
    Clear(change::ClearArgs),
    /// Prints the number of keys
    Count(scan::CountArgs),
    /// Prints all entries, or those whose keys match a pattern
    Scan(scan::ScanArgs),
    /// Prints the changes of a store as they come
    Watch(watch::WatchArgs),
    /// Writes all entries into a file, a line each
    Export(entries::ExportArgs),
    /// Puts the entries of such a file
    Import(entries::ImportArgs),
    /// Measures how many gets and puts a server answers, and how soon
    Bench(bench::BenchArgs),
    /// Makes a server the slave of a store
    AddSlave(client::AddSlaveArgs),
    /// Makes it none any more
    RemoveSlave(replica::RemoveSlaveArgs),
    /// Shows how a kvnode's store and its slaves are
    Status(replica::StatusArgs),
    /// Makes a slave the primary
    Promote(replica::PromoteArgs),
    /// Calls a server with any request, and prints its answer
    Call(call::CallArgs),
    /// Casts any request to a server
    Cast(call::CastArgs),
    /// Calls a function on a node, and prints its value
    Rpc(rpc::RpcArgs),
    /// Connects to a node, and says how long its answer took
    Ping(rpc::PingArgs),
    /// Lists what epmd and :global know
    Names(names::NamesArgs),
    /// Shows a kvnode live: stores, requests, times, slaves, nodes
    Top(top::TopArgs),
    /// Says why a node cannot be connected to, and what to do
    Doctor(doctor::DoctorArgs),
    /// Runs, asks or ends an epmd, as Erlang's own epmd program does
    Epmd(epmd::EpmdArgs),
    /// Reads everything in a folder of stores, and says what it found
    #[cfg(feature = "disk")]
    Check(data::CheckArgs),
    /// Writes all stores of a folder, or of an etcd, into one file
    #[cfg(feature = "disk")]
    Backup(data::BackupArgs),
    /// Makes the stores of a backup in a folder, or in an etcd
    #[cfg(feature = "disk")]
    Restore(data::RestoreArgs),
    /// Prints what a shell completes this command line by
    Completions(pages::CompletionsArgs),
    /// Prints the manual page, for man -l -
    Man,
}

/// Runs the program: reads what was typed, and blocks until the node, the daemon or the question has ended.
pub fn main() -> ExitCode {
    let words = std::env::args_os().collect();
    let result = read(words, std::env::vars_os()).and_then(|(matches, origins)| run(&matches, &origins));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::fatal(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// What was typed, completed for a node by the environment and a file. What cannot be understood ends the program.
fn read(
    words: Vec<OsString>,
    environment: impl Iterator<Item = (OsString, OsString)>,
) -> Result<(ArgMatches, Origins), CliError> {
    // What is missing here may stand elsewhere; what is wrong is found when all is there.
    let typed = Cli::command().ignore_errors(true).try_get_matches_from(&words);
    let typed = typed.unwrap_or_else(|error| error.exit());
    let mut command = Cli::command();
    command.build();
    let (at, command, typed) = match typed.subcommand() {
        None => {
            // Before the environment is put to it, which goes with no command either.
            let alone = Cli::command().try_get_matches_from(&words).map_err(|error| error.kind());
            if matches!(alone, Err(Wrong::InvalidSubcommand | Wrong::ArgumentConflict)) {
                return Ok((matches_of(words), Origins::default()));
            }
            (1, &command, &typed)
        }
        Some((CONFIG, typed)) => {
            let at = words.iter().position(|word| *word == CONFIG).map_or(1, |position| position + 1);
            let config = command.find_subcommand_mut(CONFIG).map(|command| &*command);
            (at, config.expect("it is a command of ours"), typed)
        }
        Some(_) => return Ok((matches_of(words), Origins::default())),
    };
    let (words, origins) = settings::complete(command, typed, words, at, environment)?;
    Ok((matches_of(words), origins))
}

/// What the words mean; the program ends where they mean nothing.
fn matches_of(words: Vec<OsString>) -> ArgMatches {
    Cli::command().try_get_matches_from(words).unwrap_or_else(|mut error| {
        if let Some(ContextValue::String(command)) = error.get(ContextKind::InvalidSubcommand)
            && error.kind() == Wrong::ArgumentConflict
        {
            let tip = format!("what is meant for a command stands behind it, see 'kvnode {command} --help'");
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error.exit()
    })
}

fn run(matches: &ArgMatches, origins: &Origins) -> Result<(), CliError> {
    let cli = Cli::from_arg_matches(matches).unwrap_or_else(|error| error.exit());
    match cli.command {
        Some(Command::Config(args)) => {
            let typed = matches.subcommand().map_or(matches, |(_, typed)| typed);
            let mut whole = Cli::command();
            whole.build();
            let command = whole.find_subcommand_mut(CONFIG).expect("it is a command of ours");
            node::config(*args, command, typed, origins)
        }
        Some(Command::Get(args)) => client::get(args),
        Some(Command::Put(args)) => client::put(args),
        Some(Command::Delete(args)) => client::delete(args),
        Some(Command::Incr(args)) => change::incr(args),
        Some(Command::Cas(args)) => change::cas(args),
        Some(Command::Clear(args)) => change::clear(args),
        Some(Command::Count(args)) => scan::count(args),
        Some(Command::Scan(args)) => scan::scan(args),
        Some(Command::Watch(args)) => watch::watch(args),
        Some(Command::Export(args)) => entries::export(&args),
        Some(Command::Import(args)) => entries::import(&args),
        Some(Command::Bench(args)) => bench::bench(&args),
        Some(Command::AddSlave(args)) => client::add_slave(args),
        Some(Command::RemoveSlave(args)) => replica::remove_slave(args),
        Some(Command::Status(args)) => replica::status(args),
        Some(Command::Promote(args)) => replica::promote(args),
        Some(Command::Call(args)) => call::call(args),
        Some(Command::Cast(args)) => call::cast(args),
        Some(Command::Rpc(args)) => rpc::rpc(args),
        Some(Command::Ping(args)) => rpc::ping(args),
        Some(Command::Names(args)) => names::main(args),
        Some(Command::Top(args)) => top::main(args),
        Some(Command::Doctor(args)) => doctor::main(args),
        Some(Command::Epmd(args)) => epmd::main(args),
        #[cfg(feature = "disk")]
        Some(Command::Check(args)) => data::check(&args),
        #[cfg(feature = "disk")]
        Some(Command::Backup(args)) => data::backup(&args),
        #[cfg(feature = "disk")]
        Some(Command::Restore(args)) => data::restore(&args),
        Some(Command::Completions(args)) => pages::completions(&args, Cli::command()),
        Some(Command::Man) => pages::manual(Cli::command()),
        None => node::main(cli.node, matches, origins),
    }
}

/// Why the program ends: a text for people, complete.
#[derive(Debug, thiserror::Error)]
enum CliError {
    /// What was typed makes no sense.
    #[error("{0}")]
    Usage(String),
    /// It makes sense and cannot be done here and now.
    #[error("{0}")]
    CannotRun(String),
    /// Nobody has the name that was asked for.
    #[error("{0}")]
    NoProcess(String),
    /// No answer came in time.
    #[error("{0}")]
    Timeout(String),
    /// The server, or the function, failed.
    #[error("{0}")]
    Failed(String),
}

impl CliError {
    const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => EXIT_USAGE,
            Self::CannotRun(_) => EXIT_CANNOT_RUN,
            Self::NoProcess(_) => EXIT_NO_PROCESS,
            Self::Timeout(_) => EXIT_TIMEOUT,
            Self::Failed(_) => EXIT_FAILED,
        }
    }

    fn usage(text: impl fmt::Display) -> Self {
        Self::Usage(text.to_string())
    }

    fn cannot_run(text: impl fmt::Display) -> Self {
        Self::CannotRun(text.to_string())
    }

    /// The same, with what to do next.
    fn with_hint(mut self, hint: &str) -> Self {
        let (Self::Usage(text)
        | Self::CannotRun(text)
        | Self::NoProcess(text)
        | Self::Timeout(text)
        | Self::Failed(text)) = &mut self;
        *text = format!("{text}; {hint}");
        self
    }
}

/// Prints to stdout, and at once.
fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

/// The same for bytes. A reader that has enough and goes, as `head` does, is no failure.
fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(reason) if reason.kind() != ErrorKind::BrokenPipe => {
            Err(CliError::cannot_run(format!("cannot write to stdout: {reason}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn examples_are_not_wrapped_at_80_columns() {
        let mut whole = Cli::command();
        whole.build();
        let texts = |command: &clap::Command| {
            [command.get_before_help(), command.get_about()].map(|text| text.map(ToString::to_string))
        };
        let all: Vec<_> = whole.get_subcommands().chain([&whole]).flat_map(texts).flatten().collect();
        let examples = || all.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("  "));
        assert!(examples().count() > 20);
        for line in examples() {
            assert!(line.chars().count() <= 80, "{line}");
        }
    }
}
