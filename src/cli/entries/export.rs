//! `kvnode export`.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::part::{Part, Source};
use super::{AT_ONCE, counted, lines};
use crate::cli::answer::{Form, refusal, text};
use crate::cli::ask::{AskArgs, ToArgs};
use crate::cli::reads::{self, ReadArgs};
use crate::cli::store::{Store, with_store_for_long};
use crate::cli::{CliError, print, progress};
use crate::etf::{OwnedTerm, TermView, TermWriter};

const EXAMPLES: &str = "\
EXAMPLES
  $ kvnode export shop.terms
  1000000 entries
  $ head -1 shop.terms
  {{:user, 7}, %{name: \"Manolito\"}}
  $ kvnode export - --json | gzip > shop.json.gz

Run again after an interruption, it continues, unless a store in memory was started again meanwhile. A term that has no exact text, as a \
fun or a pid, stands as its bytes: #etf 6802… for the entry, and {\"etf\": \"…\"} in JSON. Deadlines are not exported: a backup of a store on \
disk has them (kvnode backup).";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub(in crate::cli) struct ExportArgs {
    /// The file, which must not be there; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    read: ReadArgs,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

/// A page of entries as lines.
struct Page<'a> {
    lines: &'a str,
    count: usize,
    /// Where the next begins.
    next: Option<&'a OwnedTerm>,
}

pub(in crate::cli) fn export(args: &ExportArgs) -> Result<(), CliError> {
    let form = args.ask.form();
    if args.file == Path::new("-") {
        return with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
            let counter = progress::Counter::default();
            all_pages(store, form, args.read, None, &counter, |page| print_lines(page.lines)).await
        });
    }
    if args.file.symlink_metadata().is_ok() {
        return Err(CliError::cannot_run(format!(
            "{} is there: name another file, or - for standard output",
            args.file.display()
        )));
    }
    let part = with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
        let to = store.session.server(&args.to.name()?).to_string();
        let source = Source { node: store.session.connected.name.to_string(), to, json: form == Form::Json };
        let (mut part, cursor) = Part::open(&args.file, source)?;
        let counter = progress::Counter::on_terminal();
        all_pages(store, form, args.read, cursor, &counter, |page| {
            part.add(page.lines, page.count as u64, page.next)?;
            Ok(true)
        })
        .await?;
        Ok(part)
    })?;
    let count = part.finish(&args.file)?;
    print(&format!("{}\n", counted(count)))
}

/// Shows all pages, from a cursor on, until `show` wants no more.
async fn all_pages(
    store: &Store<'_>,
    form: Form,
    read: ReadArgs,
    mut cursor: Option<OwnedTerm>,
    counter: &progress::Counter,
    mut show: impl FnMut(&Page<'_>) -> Result<bool, CliError>,
) -> Result<(), CliError> {
    loop {
        let request =
            OwnedTerm::write(|w| page_request(read, cursor.as_ref(), w)).map_err(CliError::cannot_run)?;
        let page = store.page(request.view()).await?;
        let entries =
            page.view().as_tuple::<2>().and_then(|[entries, next]| Some((entries.elements(AT_ONCE)?, next)));
        let Some((entries, next)) = entries else { return Err(not_shown(page.view())) };
        let mut shown = String::new();
        entries.iter().for_each(|entry| lines::write(*entry, form == Form::Json, &mut shown));
        counter.add(entries.len());
        let next = (!next.is_atom("done")).then(|| OwnedTerm::from(next));
        let wants_more = show(&Page { lines: &shown, count: entries.len(), next: next.as_ref() })?;
        match next {
            Some(next) if wants_more => cursor = Some(next),
            _ => return Ok(()),
        }
    }
}

/// `{:scan, options}`
fn page_request(read: ReadArgs, cursor: Option<&OwnedTerm>, w: &mut TermWriter<'_>) {
    w.tuple(2).atom("scan").list(1 + usize::from(read.linearizable) + usize::from(cursor.is_some()));
    w.tuple(2).atom("limit").unsigned(AT_ONCE as u64);
    read.write(w);
    if let Some(cursor) = cursor {
        w.tuple(2).atom("cursor").term(cursor.view());
    }
    w.nil();
}

/// Gives whether the output is still read.
fn print_lines(lines: &str) -> Result<bool, CliError> {
    let mut out = std::io::stdout().lock();
    match out.write_all(lines.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        // As `head` does once it has enough.
        Err(reason) if reason.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(reason) => Err(CliError::cannot_run(format!("cannot write to stdout: {reason}"))),
    }
}

fn not_shown(answer: TermView<'_>) -> CliError {
    if let Some(refused) = reads::refused(answer) {
        return refused;
    }
    match refusal(answer) {
        Some(reason) if reason.is_atom("bad_cursor") => CliError::Failed(
            "this export was begun from another store, or from a store in memory that was started again: remove FILE.part and \
             FILE.part.cursor to start over"
                .into(),
        ),
        Some(reason) if reason.is_atom("busy") => {
            CliError::Failed("64 scans are waiting at this store: try again".into())
        }
        _ => CliError::Failed(format!("it answers {}", text(answer))),
    }
}
