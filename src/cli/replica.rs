//! `kvnode status`, `promote`, `remove-slave`: what only a kvnode's store knows.
//!
//! An Elixir server of the protocol ends with its data when it gets a request that it does not know: so the server's node
//! is asked first whether it is a kvnode.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;

use super::answer::Form;
use super::ask::{AskArgs, Session, ToArgs};
use super::client::slave_name;
use super::term::names_processes;
use super::{CliError, answer, print};
use crate::config::ServerName;
use crate::etf::{OwnedTerm, TermView};
use crate::node::erpc::ErpcError;
use crate::node::functions::since_epoch;
use crate::replica::dialect::REPLICATION;

const STATUS_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode status --node master@myhost --to global:master
  role      primary
  entries   1000000
  ...
  $ kvnode status --json | jq -r '.value.slaves[].state'";

const PROMOTE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode promote --node slave1@myhost --to global:slave1
  :ok

The slave becomes the primary: it takes the other slaves along, and the global names of the old primary as soon as these are \
free. The old primary becomes its slave when it is back, and drops what the new one does not have.";

const REMOVE_SLAVE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode remove-slave global:slave2 --node master@myhost --to global:master
  :ok";

#[derive(Args)]
#[command(before_help = STATUS_EXAMPLES)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = PROMOTE_EXAMPLES)]
pub(super) struct PromoteArgs {
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = REMOVE_SLAVE_EXAMPLES)]
pub(super) struct RemoveSlaveArgs {
    /// The slave, as it was added: global:NAME, or local:NAME on the node of the store; NAME alone is global; or a term, as in
    /// {NAME, :NODE}, or as kvnode status shows it
    #[arg(value_name = "SLAVE")]
    slave: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn status(args: StatusArgs) -> Result<(), CliError> {
    let status = request(&args.to, &args.ask, |_| Ok(OwnedTerm::atom("status")))?;
    if args.ask.json {
        return answer::show(status.view(), args.ask.form());
    }
    match table(status.view()) {
        Some(table) => print(&table),
        None => answer::show(status.view(), args.ask.form()),
    }
}

pub(super) fn promote(args: PromoteArgs) -> Result<(), CliError> {
    let promote = OwnedTerm::write(|w| _ = w.tuple(1).atom("promote")).map_err(CliError::usage)?;
    let answer = request(&args.to, &args.ask, |_| Ok(promote.clone()))?;
    told(answer.view(), args.ask.form())
}

pub(super) fn remove_slave(args: RemoveSlaveArgs) -> Result<(), CliError> {
    let removal = |slave: TermView<'_>| {
        OwnedTerm::write(|w| _ = w.tuple(2).atom("remove_slave").term(slave)).map_err(CliError::usage)
    };
    // A process of another node than the one that is asked is known by what the status shows alone.
    if names_processes(&args.slave) {
        let status = request(&args.to, &args.ask, |_| Ok(OwnedTerm::atom("status")))?;
        if let Some(slave) = shown_as(status.view(), &args.slave) {
            let answer = request(&args.to, &args.ask, |_| removal(slave))?;
            return told(answer.view(), args.ask.form());
        }
        let late = |session: &Session| removal(slave_name(&args.slave, Some(&session.identity()))?.view());
        return told(request(&args.to, &args.ask, late)?.view(), args.ask.form());
    }
    let removal = removal(slave_name(&args.slave, None)?.view())?;
    let answer = request(&args.to, &args.ask, |_| Ok(removal.clone()))?;
    told(answer.view(), args.ask.form())
}

/// The name of the slave that a status shows so.
fn shown_as<'a>(status: TermView<'a>, typed: &str) -> Option<TermView<'a>> {
    let (_, slaves) = pairs(status)?.into_iter().find(|(key, _)| key.is_atom("slaves"))?;
    let mut cursor = slaves.cursor();
    for _ in 0..cursor.list().ok()? {
        let (_, name) = pairs(cursor.term().ok()?)?.into_iter().find(|(key, _)| key.is_atom("name"))?;
        if plain(name) == typed {
            return Some(name);
        }
    }
    None
}

/// Prints an answer; `{:error, reason}` is a failure for scripts too.
fn told(answer: TermView<'_>, form: Form) -> Result<(), CliError> {
    if answer::refusal(answer).is_none() || form == Form::Json {
        answer::show(answer, form)?;
    }
    let known = [
        (
            "not_a_slave",
            "it is the slave of no kvnode, and so of nobody in whose place it could be; kvnode status shows it",
        ),
        (
            "copying",
            "it is being sent a copy of its primary, and has not all of it yet; kvnode status shows when it has",
        ),
        ("no_slave", "it has no such slave; kvnode status shows those that it has"),
    ];
    answer::carried_out(answer, |code| answer::of_table(&known, code))
}

/// Calls a store of a kvnode; nobody else is called.
fn request(
    to: &ToArgs,
    ask: &AskArgs,
    request: impl Fn(&Session) -> Result<OwnedTerm, CliError>,
) -> Result<OwnedTerm, CliError> {
    let to: ServerName = to.name()?;
    ask.with_session(async |session: &Session| {
        let (client, server) = (session.node.client(), session.server(&to));
        let at = client.locate(&server).await.map_err(|error| session.failed(&to, &error))?;
        let limit = Duration::from_secs(ask.timeout.into());
        match client.erpc(at.node(), REPLICATION, 0, |_| {}, limit).await {
            Ok(_) => {}
            Err(ErpcError::Error { .. } | ErpcError::Refused(_) | ErpcError::NotSupported) => {
                return Err(CliError::Failed(format!(
                    "{} is no kvnode, and an Elixir server ends when it is asked what it does not know: it was not asked",
                    at.node()
                )));
            }
            Err(error) => return Err(CliError::CannotRun(error.to_string())),
        }
        let request = request(session)?;
        let called = client.call_term(&at.into(), request.view(), session.time).await;
        called.map_err(|error| session.failed(&to, &error))
    })
}

/// A status for people; `None`: it is of another form.
fn table(status: TermView<'_>) -> Option<String> {
    let mut text = String::new();
    let mut slaves = None;
    for (key, value) in pairs(status)? {
        let key = key.as_atom()?.to_str();
        match &*key {
            "slaves" => slaves = Some(value),
            "primary" if value.is_atom("nil") => {}
            "primary" => {
                for (name, value) in pairs(value)? {
                    let name = format!("primary.{}", name.as_atom()?.to_str());
                    _ = writeln!(text, "{name:<20}  {}", plain(value));
                }
            }
            _ => _ = writeln!(text, "{key:<20}  {}", plain(value)),
        }
    }
    let head = ["SLAVE", "STATE", "KIND", "STALE KEYS", "WITHHELD", "SINCE", "LAST ERROR"];
    let mut rows = vec![head.map(str::to_owned)];
    let mut cursor = slaves?.cursor();
    for _ in 0..cursor.list().ok()? {
        let mut row = [const { String::new() }; 7];
        for (key, value) in pairs(cursor.term().ok()?)? {
            let at = ["name", "state", "kind", "stale_keys", "withheld", "since", "error"]
                .iter()
                .position(|name| key.is_atom(name));
            match at {
                Some(5) => row[5] = value.as_unsigned().map_or_else(String::new, ago),
                Some(at) if value.is_atom("nil") => row[at] = "-".to_owned(),
                Some(at) => row[at] = plain(value),
                None => {}
            }
        }
        rows.push(row);
    }
    if rows.len() == 1 {
        return Some(text);
    }
    let widths: [usize; 7] =
        std::array::from_fn(|at| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0));
    text.push('\n');
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    Some(text)
}

/// How long ago that is, by the clock of this machine.
fn ago(unix_ms: u64) -> String {
    let secs = since_epoch().saturating_sub(Duration::from_millis(unix_ms)).as_secs();
    match secs {
        0..120 => format!("{secs} s"),
        120..7_200 => format!("{} min", secs / 60),
        _ => format!("{} h", secs / 3_600),
    }
}

/// A term without what only programs need: atoms as words.
fn plain(term: TermView<'_>) -> String {
    if let Some(atom) = term.as_atom() {
        return atom.to_str().into_owned();
    }
    if let Some([kind, name]) = term.as_tuple::<2>()
        && kind.is_atom("global")
    {
        return format!("global:{}", plain(name));
    }
    answer::text(term)
}

fn pairs<'a>(map: TermView<'a>) -> Option<Vec<(TermView<'a>, TermView<'a>)>> {
    let mut cursor = map.cursor();
    let len = cursor.map().ok()?;
    (0..len).map(|_| Some((cursor.term().ok()?, cursor.term().ok()?))).collect()
}

#[cfg(test)]
mod tests {
    use super::super::term::read;
    use super::*;

    #[test]
    fn a_status_is_a_table_with_a_line_for_each_slave() {
        let typed = "%{role: :primary, entries: 3, primary: nil, slaves: [%{name: {:global, :s}, \
                     state: {:in_step, 0}, stale_keys: false, withheld: 0, kind: :kvnode, since: nil, error: nil}]}";
        let status = read("T", typed, None).expect("a term");
        let table = table(status.view()).expect("a status");
        assert!(table.contains("role                  primary\n"), "{table}");
        assert!(
            table.ends_with(
                "\nSLAVE     STATE          KIND    STALE KEYS  WITHHELD  SINCE  LAST ERROR\n\
                 global:s  {:in_step, 0}  kvnode  false       0                -\n"
            ),
            "{table}"
        );
        assert!(!table.contains("primary."), "{table}");
        assert_eq!(super::table(read("T", "[]", None).expect("a term").view()), None);
    }
}
