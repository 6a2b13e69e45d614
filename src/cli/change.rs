//! `kvnode incr`, `cas`, `clear`: changes of a kvnode's store that look at what is there, and of all of it.

use std::time::Duration;

use clap::Args;

use super::ask::{AskArgs, Session, ToArgs};
use super::client::{told, ttl_of};
use super::store::{Store, request, with_store};
use super::{CliError, span, term};
use crate::etf::{OwnedTerm, TermWriter};
use crate::program::shown;

const INCR_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode incr :visits
  1
  $ kvnode incr '{:stock, 7}' -3
  97";

const CAS_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode cas :light :green --value :red
  :ok
  $ kvnode call '{:fetch_revision, :light}'
  {:ok, :green, 12}
  $ kvnode cas :light :red --revision 12
  $ kvnode cas :light :red --absent";

const CLEAR_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode clear
  kvnode: nothing was deleted: the store has 1000 keys; --yes deletes all
  $ kvnode clear --yes
  :ok
  $ kvnode clear --yes --confirm 1 --node master@myhost --to global:master

All keys go at once, in one write, and at slaves that are kvnodes too. Nothing brings them back but a backup.";

#[derive(Args)]
#[command(before_help = INCR_EXAMPLES)]
pub(super) struct IncrArgs {
    /// A term in Elixir's syntax: :nombre, \"Mafalda\" (with its quotes), {:a, 1}, %{k: nil}
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    /// What is added, an integer
    #[arg(value_name = "N", default_value = "1", allow_negative_numbers = true)]
    by: String,
    /// What it is added to where nothing is there
    #[arg(long, value_name = "N", default_value = "0", allow_negative_numbers = true)]
    initial: String,
    /// The key ends after this time: 500ms, 10s, 5m, 2h or 7d. Without it a counter that is there ends when it did
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    ttl: Option<Duration>,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = CAS_EXAMPLES)]
#[group(id = "expected", required = true, multiple = false, args = ["value", "revision", "absent"])]
pub(super) struct CasArgs {
    /// A term in Elixir's syntax: :nombre, \"Mafalda\" (with its quotes), {:a, 1}, %{k: nil}
    #[arg(value_name = "KEY", allow_negative_numbers = true)]
    key: String,
    /// The value that it gets
    #[arg(value_name = "NEW", allow_negative_numbers = true)]
    new: String,
    /// Only where it has this value
    #[arg(long, value_name = "TERM", allow_negative_numbers = true)]
    value: Option<String>,
    /// Only where its value is of the write with this number
    #[arg(long, value_name = "N")]
    revision: Option<u64>,
    /// Only where nothing is there
    #[arg(long)]
    absent: bool,
    /// The key ends after this time: 500ms, 10s, 5m, 2h or 7d
    #[arg(long, value_name = "TIME", value_parser = span::parse)]
    ttl: Option<Duration>,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = CLEAR_EXAMPLES)]
pub(super) struct ClearArgs {
    /// Delete all keys; without it their number is told, and nothing is deleted
    #[arg(long)]
    yes: bool,
    /// Answer once so many slaves have none of them either, or fail when they have not in time; the keys are gone then too
    /// [default: as many as the node's --confirm says]
    #[arg(long, value_name = "N")]
    confirm: Option<u32>,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// Terms that are typed, each with the argument's name: read before any node is asked where that can be, and else with the help of
/// the node.
struct Typed<'a>(Vec<(&'a str, &'a str, Option<OwnedTerm>)>);

impl<'a> Typed<'a> {
    fn read(typed: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, CliError> {
        let read = |(what, typed)| Ok((what, typed, term::read_early(what, typed)?));
        typed.into_iter().map(read).collect::<Result<_, _>>().map(Self)
    }

    fn with(&self, session: &Session) -> Result<Vec<OwnedTerm>, CliError> {
        let terms = self.0.iter();
        terms.map(|(what, typed, early)| term::read_late(early.clone(), what, typed, session)).collect()
    }
}

/// `{operation, terms…, options}`
fn called(write: impl FnOnce(&mut TermWriter<'_>), ttl: Option<Duration>) -> Result<OwnedTerm, CliError> {
    let options = ttl_of(ttl)?;
    let request = OwnedTerm::write(|w| {
        write(w);
        w.term(options.view());
    });
    request.map_err(CliError::usage)
}

pub(super) fn incr(args: IncrArgs) -> Result<(), CliError> {
    let terms = [("KEY", &*args.key), ("N", &*args.by), ("--initial", &*args.initial)];
    let typed = Typed::read(terms)?;
    let answer = request(&args.to, &args.ask, |session| {
        let terms = typed.with(session)?;
        let write = |w: &mut TermWriter<'_>| {
            w.tuple(5).atom("update_counter");
            terms.iter().for_each(|term| _ = w.term(term.view()));
        };
        called(write, args.ttl)
    })?;
    told(answer.view(), args.ask.form())
}

pub(super) fn cas(args: CasArgs) -> Result<(), CliError> {
    let value = args.value.as_deref().map(|value| ("--value", value));
    let typed = Typed::read([("KEY", &*args.key), ("NEW", &*args.new)].into_iter().chain(value))?;
    let answer = request(&args.to, &args.ask, |session| {
        let terms = typed.with(session)?;
        let [key, new, value @ ..] = &terms[..] else {
            return Err(CliError::usage("KEY and NEW are missing"));
        };
        let write = |w: &mut TermWriter<'_>| {
            w.tuple(5).atom("compare_and_put").term(key.view());
            match (value, args.revision) {
                ([value], _) => w.tuple(2).atom("value").term(value.view()),
                (_, Some(revision)) => w.tuple(2).atom("revision").unsigned(revision),
                _ => w.atom("absent"),
            };
            w.term(new.view());
        };
        called(write, args.ttl)
    })?;
    told(answer.view(), args.ask.form())
}

pub(super) fn clear(args: ClearArgs) -> Result<(), CliError> {
    let request = OwnedTerm::write(|w| match args.confirm {
        Some(confirm) => {
            w.tuple(2).atom("clear").list(1).tuple(2).atom("confirm").unsigned(confirm.into()).nil();
        }
        None => _ = w.atom("clear"),
    });
    let request = request.map_err(CliError::usage)?;
    let answer = with_store(&args.to, &args.ask, async |store: &Store<'_>| {
        if args.yes {
            return store.call(request.view()).await;
        }
        let count = store.call(OwnedTerm::atom("count").view()).await?.view().as_unsigned().unwrap_or(0);
        Err(CliError::usage(format!(
            "nothing was deleted: the store has {}; --yes deletes all",
            shown::counted(count, ["key", "keys"], |count| count.to_string())
        )))
    })?;
    told(answer.view(), args.ask.form())
}
