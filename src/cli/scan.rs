//! `kvnode scan`, `count`: the entries of a kvnode's store.

use std::io::{ErrorKind, Write};

use clap::Args;
use serde_json::json;

use super::answer::{Form, json_of, refusal, text};
use super::ask::{AskArgs, Session, ToArgs};
use super::reads::{self, ReadArgs};
use super::store::{Store, request, with_store_for_long};
use super::{CliError, progress, term};
use crate::etf::order::TermRange;
use crate::etf::pattern::{Pattern, PatternError};
use crate::etf::{OwnedTerm, TermView};

const SCAN_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode scan --match '{:user, :_}'
  {{:user, 7}, %{name: \"Manolito\"}}
  {{:user, 9}, %{name: \"Libertad\"}}
  $ kvnode scan --keys --limit 100
  $ kvnode scan --json --node slave1@myhost --to global:slave1 | jq .key.term
  $ kvnode scan --prefix '{:user}' --reverse --limit 1
  {{:user, 9}, %{name: \"Libertad\"}}
  $ kvnode scan --from 10 --up-to 19

A line for each entry, in no order but where one is asked for: by --from, --up-to, --prefix or --reverse, of a store on disk or one in
memory of a node with --ordered. A key that is there all the while comes once, whatever is written meanwhile.";

const COUNT_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode count
  1000000";

/// A page is asked for with so many entries.
const PAGE: usize = 1_000;

#[derive(Args)]
#[command(before_help = SCAN_EXAMPLES)]
pub(super) struct ScanArgs {
    /// Keys that match this alone: a term in which :_ is any term, [1 | :_] any list that begins with 1, and a map any map
    /// that has its pairs among others
    #[arg(long = "match", value_name = "PATTERN", allow_hyphen_values = true)]
    pattern: Option<String>,
    /// In Erlang's order of terms, from this key on, which is in it (1 is 1.0 there)
    #[arg(
        long,
        value_name = "TERM",
        allow_hyphen_values = true,
        conflicts_with = "prefix",
        help_heading = "Order"
    )]
    from: Option<String>,
    /// In Erlang's order of terms, up to this key, which is in it
    #[arg(
        long,
        value_name = "TERM",
        allow_hyphen_values = true,
        conflicts_with = "prefix",
        help_heading = "Order"
    )]
    up_to: Option<String>,
    /// In Erlang's order of terms, the keys that begin with a tuple's elements, with those of a list, or with the bytes of a binary
    #[arg(long, value_name = "TERM", allow_hyphen_values = true, help_heading = "Order")]
    prefix: Option<String>,
    /// In Erlang's order of terms, the last first
    #[arg(long, help_heading = "Order")]
    reverse: bool,
    /// Print keys without their values
    #[arg(long, help_heading = "Output")]
    keys: bool,
    /// Print no more than so many
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = COUNT_EXAMPLES)]
pub(super) struct CountArgs {
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn count(args: CountArgs) -> Result<(), CliError> {
    let count = request(&args.to, &args.ask, |_| {
        if !args.read.linearizable {
            return Ok(OwnedTerm::atom("count"));
        }
        let request = OwnedTerm::write(|w| {
            w.tuple(2).atom("count").list(1);
            args.read.write(w);
            w.nil();
        });
        request.map_err(CliError::cannot_run)
    })?;
    reads::told(count.view(), args.ask.form())
}

pub(super) fn scan(args: ScanArgs) -> Result<(), CliError> {
    let typed = [
        ("match", "PATTERN", &args.pattern),
        ("from", "TERM", &args.from),
        ("to", "TERM", &args.up_to),
        ("prefix", "TERM", &args.prefix),
    ];
    let early = read_early(typed)?;
    with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
        let options = read_late(early, store.session)?;
        let counter = progress::Counter::default();
        let mut left = args.limit.unwrap_or(u64::MAX);
        let mut cursor: Option<OwnedTerm> = None;
        loop {
            let limit = usize::try_from(left).unwrap_or(PAGE).min(PAGE);
            let page = page_request(&args, limit, &options, cursor.as_ref())?;
            let page = store.page(page.view()).await?;
            let Some((entries, next)) = entries_of(page.view()) else { return Err(refused(page.view())) };
            if !print_all(&entries, args.keys, args.ask.form())? {
                return Ok(());
            }
            left = left.saturating_sub(entries.len() as u64);
            counter.add(entries.len());
            if left == 0 || next.is_atom("done") {
                return Ok(());
            }
            cursor = Some(OwnedTerm::write(|w| _ = w.term(next)).map_err(CliError::cannot_run)?);
        }
    })
}

/// An option that is a term: its name, what the term is called, what was typed, and the term, where that names no process.
pub(super) struct Early<'a> {
    option: &'static str,
    what: &'static str,
    typed: &'a str,
    term: Option<OwnedTerm>,
}

/// Reads those options that are given, before a node is asked.
///
/// # Errors
/// What was typed is no term, or none that a store takes.
pub(super) fn read_early<'a>(
    typed: impl IntoIterator<Item = (&'static str, &'static str, &'a Option<String>)>,
) -> Result<Vec<Early<'a>>, CliError> {
    let mut early = Vec::new();
    for (option, what, typed) in typed {
        let Some(typed) = typed else { continue };
        let term = term::read_early(what, typed)?;
        if let Some(term) = &term {
            check(option, term)?;
        }
        early.push(Early { option, what, typed, term });
    }
    Ok(early)
}

/// The names and terms of options, where it is known which node is asked.
///
/// # Errors
/// As [`read_early`].
pub(super) fn read_late(
    early: Vec<Early<'_>>,
    session: &Session,
) -> Result<Vec<(&'static str, OwnedTerm)>, CliError> {
    let mut options = Vec::new();
    for Early { option, what, typed, term } in early {
        let term = term::read_late(term, what, typed, session)?;
        check(option, &term)?;
        options.push((option, term));
    }
    Ok(options)
}

/// Whether a store takes a term as this option.
fn check(option: &str, term: &OwnedTerm) -> Result<(), CliError> {
    match option {
        "match" => check_pattern(term),
        "prefix" if matches!(TermRange::prefix(term.view()), Ok(None)) => Err(CliError::usage(
            "TERM of --prefix is no tuple, no list and no binary: nothing begins with it",
        )),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &OwnedTerm) -> Result<(), CliError> {
    match Pattern::new(pattern.view()) {
        Ok(_) => Ok(()),
        Err(PatternError::Variable) => Err(CliError::usage(
            "PATTERN has a variable that there is not: :_ is the only one, and is no key of a map; ETS has more of them",
        )),
        Err(PatternError::Term(error)) => Err(CliError::usage(format!("PATTERN can be no key: {error}"))),
    }
}

/// `{:scan, options}`
fn page_request(
    args: &ScanArgs,
    limit: usize,
    options: &[(&str, OwnedTerm)],
    cursor: Option<&OwnedTerm>,
) -> Result<OwnedTerm, CliError> {
    let request = OwnedTerm::write(|w| {
        let flags = [args.keys, args.reverse, args.read.linearizable, cursor.is_some()];
        let flags = flags.iter().filter(|flag| **flag).count();
        w.tuple(2).atom("scan").list(1 + flags + options.len());
        w.tuple(2).atom("limit").unsigned(limit as u64);
        if args.keys {
            w.tuple(2).atom("keys").atom("true");
        }
        if args.reverse {
            w.tuple(2).atom("reverse").atom("true");
        }
        args.read.write(w);
        let cursor = cursor.map(|cursor| ("cursor", cursor));
        for (name, option) in options.iter().map(|(name, option)| (*name, option)).chain(cursor) {
            w.tuple(2).atom(name).term(option.view());
        }
        w.nil();
    });
    request.map_err(CliError::cannot_run)
}

/// The entries of a page, and what stands behind them.
fn entries_of(page: TermView<'_>) -> Option<(Vec<TermView<'_>>, TermView<'_>)> {
    let [entries, next] = page.as_tuple::<2>()?;
    Some((entries.elements(PAGE)?, next))
}

fn refused(answer: TermView<'_>) -> CliError {
    if let Some(refused) = reads::refused(answer) {
        return refused;
    }
    match refusal(answer) {
        Some(reason) if reason.is_atom("bad_cursor") => CliError::Failed(
            "the store was started again meanwhile, and what it had in memory is gone: what was printed is what it had".into(),
        ),
        Some(reason) if reason.is_atom("unordered") => CliError::Failed(
            "the store has no order of keys: those in memory have one with --ordered, and those on disk once there was room for it".into(),
        ),
        Some(reason) if reason.is_atom("busy") => {
            CliError::Failed("so many others read through this store that it takes no more: try again".into())
        }
        _ => CliError::Failed(format!("it answers {}", text(answer))),
    }
}

/// Prints a line for each; gives whether stdout is still read.
fn print_all(entries: &[TermView<'_>], keys: bool, form: Form) -> Result<bool, CliError> {
    let mut lines = String::new();
    for entry in entries {
        match (form, keys, entry.as_tuple::<2>()) {
            (Form::Json, true, _) => lines.push_str(&json!({ "key": json_of(*entry) }).to_string()),
            (Form::Json, false, Some([key, value])) => {
                lines.push_str(&json!({ "key": json_of(key), "value": json_of(value) }).to_string());
            }
            _ => lines.push_str(&text(*entry)),
        }
        lines.push('\n');
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        // As `head` does once it has enough.
        Err(reason) if reason.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(reason) => Err(CliError::cannot_run(format!("cannot write to stdout: {reason}"))),
    }
}
