//! `kvnode get`, `put`, `delete`, `add-slave`: the key-value protocol's requests, to a kvnode or to an Elixir server.

use std::time::Duration;

use clap::Args;

use super::answer::{self, Form};
use super::ask::{AskArgs, Session, ToArgs};
use super::reads::{self, ReadArgs};
use super::{CliError, server_name, span, store, term};
use crate::config::ServerName;
use crate::distribution::ServerRef;
use crate::etf::text::NodeIdentity;
use crate::etf::{OwnedTerm, TermView, TermWriter};
use crate::replica::lineage::Refusal;

/// What more can be said about why a write was refused.
const WRITE_REFUSALS: &[(&str, &str)] = &[
    (
        "no_space",
        "it has no room for that (its --memory-max, its disk, or the etcd that keeps it), and is as it was",
    ),
    ("unavailable", "the etcd that keeps it does not answer; nothing was changed"),
    ("unknown", "the etcd that keeps it has not said whether it is done: it may be, or be yet, once"),
    (
        "unconfirmed",
        "fewer slaves than --confirm wants have it so far; the write stays, and kvnode status shows the slaves",
    ),
    ("conflict", "what is there is not what was expected; nothing was changed"),
    ("not_an_integer", "what is there is no integer, or what is to be added is none; nothing was changed"),
];

const GET_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode get :nombre
  \"Mafalda\"
  $ kvnode get '{:user, 7}' --node slave1@myhost --to global:slave1
  $ kvnode get '\"picture\"' --raw > picture.png";

const PUT_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode put :nombre '\"Mafalda\"'
  :ok
  $ kvnode put '{:session, 7}' ':open' --ttl 30m
  $ kvnode put '{:user, 7}' '%{name: \"Felipe\"}' --new
  true
  $ kvnode put '\"picture\"' @picture.png
  $ tar c . | kvnode put :backup @- --timeout 60";

const DELETE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode delete :nombre
  :ok";

const ADD_SLAVE_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode add-slave global:slave2
  :ok
  $ kvnode add-slave slave2 --node master@myhost --to global:master";

#[derive(Args)]
#[command(before_help = GET_EXAMPLES)]
pub(super) struct GetArgs {
    /// A term in Elixir's syntax: :nombre, "Mafalda" (with its quotes), {:a, 1}, %{k: nil}
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    /// Print the bytes of a binary with nothing around
    #[arg(long, conflicts_with = "json", help_heading = "Output")]
    raw: bool,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = PUT_EXAMPLES)]
pub(super) struct PutArgs {
    /// A term in Elixir's syntax: :nombre, "Mafalda" (with its quotes), {:a, 1}, %{k: nil}
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    /// A term; or @FILE for the contents of a file as a binary, @- for standard input
    #[arg(value_name = "VALUE", allow_negative_numbers = true)]
    value: String,
    /// The key ends after this time: 500ms, 10s, 5m, 2h or 7d. Of a kvnode's store; without it the key stays
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    ttl: Option<Duration>,
    /// Only where nothing is there: prints true, or false and ends with code 5. Of a kvnode's store
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = DELETE_EXAMPLES)]
pub(super) struct DeleteArgs {
    /// A term in Elixir's syntax: :nombre, "Mafalda" (with its quotes), {:a, 1}, %{k: nil}
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = ADD_SLAVE_EXAMPLES)]
pub(super) struct AddSlaveArgs {
    /// The slave: global:NAME, or local:NAME on the node of the store; NAME alone is global; or a term, as in {NAME, :NODE}
    #[arg(value_name = "SLAVE")]
    slave: String,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn get(args: GetArgs) -> Result<(), CliError> {
    let form = if args.raw { Form::Raw } else { args.ask.form() };
    if args.read.linearizable {
        return get_newest(&args, form);
    }
    let read = |local: Option<&NodeIdentity>| Ok(vec![term::read("KEY", &args.key, local)?]);
    // Whatever it is, it is the value.
    answer::show(request(&args.ask, &args.to, "get", &args.key, read)?.view(), form)
}

/// By a request that tells a value from a refusal, of a kvnode's store.
fn get_newest(args: &GetArgs, form: Form) -> Result<(), CliError> {
    let early = term::read_early("KEY", &args.key)?;
    let answer = store::request(&args.to, &args.ask, |session| {
        let key = term::read_late(early.clone(), "KEY", &args.key, session)?;
        let request = OwnedTerm::write(|w| {
            w.tuple(3).atom("fetch").term(key.view()).list(1);
            args.read.write(w);
            w.nil();
        });
        request.map_err(CliError::usage)
    })?;
    let answer = answer.view();
    match answer.as_tuple::<2>() {
        Some([ok, value]) if ok.is_atom("ok") => answer::show(value, form),
        None if answer.is_atom("error") => answer::show(OwnedTerm::atom("nil").view(), form),
        _ => reads::told(answer, args.ask.form()),
    }
}

pub(super) fn put(args: PutArgs) -> Result<(), CliError> {
    let value = args.value.as_str();
    // Standard input can be read but once.
    let file = value.starts_with('@').then(|| term::read_or_file("VALUE", value, None)).transpose()?;
    let read = |local: Option<&NodeIdentity>| {
        let key = term::read("KEY", &args.key, local)?;
        let value = match &file {
            Some(contents) => contents.clone(),
            None => term::read("VALUE", value, local)?,
        };
        Ok(vec![key, value])
    };
    let typed = format!("{}{}", args.key, args.value);
    if args.ttl.is_none() && !args.new {
        return told(request(&args.ask, &args.to, "put", &typed, read)?.view(), args.ask.form());
    }
    let early = if term::names_processes(&typed) { None } else { Some(read(None)?) };
    let options = ttl_of(args.ttl)?;
    let answer = store::request(&args.to, &args.ask, |session| {
        let terms = match &early {
            Some(terms) => terms.clone(),
            None => read(Some(&session.identity()))?,
        };
        let request = OwnedTerm::write(|w| {
            w.tuple(4).atom(if args.new { "put_new" } else { "put" });
            terms.iter().chain([&options]).for_each(|term| _ = w.term(term.view()));
        });
        request.map_err(CliError::usage)
    })?;
    told(answer.view(), args.ask.form())?;
    if args.new && answer.view().is_atom("false") {
        return Err(CliError::Failed("something is there already: nothing was changed".into()));
    }
    Ok(())
}

pub(super) fn delete(args: DeleteArgs) -> Result<(), CliError> {
    let read = |local: Option<&NodeIdentity>| Ok(vec![term::read("KEY", &args.key, local)?]);
    told(request(&args.ask, &args.to, "delete", &args.key, read)?.view(), args.ask.form())
}

/// A slave as it is typed: a name, or a term in Elixir's syntax.
///
/// # Errors
/// It is neither.
pub(super) fn slave_name(typed: &str, local: Option<&NodeIdentity>) -> Result<OwnedTerm, CliError> {
    if typed.starts_with(['{', '#']) {
        return term::read("SLAVE", typed, local);
    }
    let wrong = |reason| CliError::usage(format!("SLAVE {typed}: {reason}"));
    let slave = match server_name::server(typed) {
        Ok(ServerName::Global(name)) => ServerRef::global(&name),
        Ok(ServerName::Local(name)) => ServerRef::local(&name),
        Err(_) => ServerRef::global(&server_name::atom(typed).map_err(wrong)?),
    };
    OwnedTerm::write(|w| slave.write(w)).map_err(CliError::usage)
}

pub(super) fn add_slave(args: AddSlaveArgs) -> Result<(), CliError> {
    let read = |local: Option<&NodeIdentity>| Ok(vec![slave_name(&args.slave, local)?]);
    let answer = request(&args.ask, &args.to, "add_slave", &args.slave, read)?;
    answer::show(answer.view(), args.ask.form())?;
    answer::carried_out(answer.view(), |code| {
        let refusal = Refusal::of_code(code).map(|refusal| refusal.to_string());
        refusal.or_else(|| answer::of_table(&[answer::NOT_KEPT], code))
    })
}

/// Prints the answer to a write; `{:error, reason}` is a failure for scripts too.
pub(super) fn told(answer: TermView<'_>, form: Form) -> Result<(), CliError> {
    answer::show(answer, form)?;
    answer::carried_out(answer, |code| answer::of_table(WRITE_REFUSALS, code))
}

/// `[ttl: ms]`, or `[]`
pub(super) fn ttl_of(time: Option<Duration>) -> Result<OwnedTerm, CliError> {
    let Some(time) = time else { return OwnedTerm::write(|w| _ = w.nil()).map_err(CliError::usage) };
    // It was read from a number of milliseconds.
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    OwnedTerm::write(|w| _ = w.list(1).tuple(2).atom("ttl").unsigned(millis).nil()).map_err(CliError::usage)
}

/// Calls with `{operation, terms…}`.
fn request(
    ask: &AskArgs,
    to: &ToArgs,
    operation: &str,
    typed: &str,
    read: impl Fn(Option<&NodeIdentity>) -> Result<Vec<OwnedTerm>, CliError>,
) -> Result<OwnedTerm, CliError> {
    let to = to.name()?;
    // What is mistyped is told before any node is asked.
    let early = if term::names_processes(typed) { None } else { Some(read(None)?) };
    ask.with_session(async |session: &Session| {
        let terms = match early {
            Some(terms) => terms,
            None => read(Some(&session.identity()))?,
        };
        let request = |w: &mut TermWriter<'_>| {
            w.tuple(terms.len() + 1).atom(operation);
            terms.iter().for_each(|term| _ = w.term(term.view()));
        };
        let called = session.node.client().call(&session.server(&to), request, session.time).await;
        called.map_err(|error| session.failed(&to, &error))
    })
}
