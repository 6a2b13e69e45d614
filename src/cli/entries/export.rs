//! `kvnode export`, `import`: the entries of a kvnode's store in a file, a line each.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::answer::{Form, refusal, text};
use super::ask::{AskArgs, ToArgs};
use super::store::{Store, with_store_for_long};
use super::{CliError, lines, progress};
use crate::etf::text::parse;
use crate::etf::{OwnedTerm, TermView, TermWriter};

const EXPORT_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode export shop.terms
  1000000 entries
  $ head -1 shop.terms
  {{:user, 7}, %{name: \"Manolito\"}}
  $ kvnode export - --json | gzip > shop.json.gz

Interrupted, it goes on where it was when it is begun again, as far as the store goes on too. When a key ends is not in the file: a \
backup of a store on disk has that (kvnode backup).";

const IMPORT_EXAMPLES: &str = "\
EXAMPLES
  $ kvnode import shop.terms
  1000000 entries
  $ gzip -dc shop.json.gz | kvnode import - --node slave1@myhost

Lines of kvnode export, in either form, and of others: {KEY, VALUE} in Elixir's syntax, or {\"key\": …, \"value\": …} in JSON, whose \
strings become binaries. What is there already under a key is replaced; put twice, a line changes nothing.";

/// A page is asked for with so many entries, and so many are put at once.
const AT_ONCE: usize = 1_000;
/// Pairs that are put at once have so many bytes together at most, but for a single one.
const BYTES_AT_ONCE: usize = 1 << 20;
/// Of the file that says how far an export has come.
const CURSOR: &str = "cursor";

#[derive(Args)]
#[command(before_help = EXPORT_EXAMPLES)]
pub(super) struct ExportArgs {
    /// The file, which must not be there; - is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

#[derive(Args)]
#[command(before_help = IMPORT_EXAMPLES)]
pub(super) struct ImportArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Begin with this line, counted from 1
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(super) fn export(args: &ExportArgs) -> Result<(), CliError> {
    if args.file == Path::new("-") {
        return with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
            let mut out = BufWriter::new(std::io::stdout());
            let wrong =
                |reason: std::io::Error| CliError::cannot_run(format!("cannot write to stdout: {reason}"));
            all_pages(store, args.ask.form(), None, |lines, _, _| {
                out.write_all(lines.as_bytes()).and_then(|()| out.flush()).map_err(wrong)
            })
            .await
        });
    }
    if args.file.exists() {
        return Err(CliError::cannot_run(format!("{} is there: name another file", args.file.display())));
    }
    let mut part = Part::open(&args.file)?;
    with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
        let (form, cursor) = (args.ask.form(), part.cursor.take());
        all_pages(store, form, cursor, |lines, count, next| part.add(lines, count, next)).await
    })?;
    let count = part.finish(&args.file)?;
    super::print(&format!("{count} entries\n"))
}

/// Has all entries written, from a cursor on: the lines of a page, how many they are, and where the next begins.
async fn all_pages(
    store: &Store<'_>,
    form: Form,
    mut cursor: Option<OwnedTerm>,
    mut write: impl FnMut(&str, usize, Option<&OwnedTerm>) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let (identity, counter) = (store.session.identity(), progress::Counter::default());
    loop {
        let request = OwnedTerm::write(|w| page_request(cursor.as_ref(), w)).map_err(CliError::cannot_run)?;
        let page = store.call(request.view()).await?;
        let entries =
            page.view().as_tuple::<2>().and_then(|[entries, next]| Some((entries.elements(AT_ONCE)?, next)));
        let Some((entries, next)) = entries else { return Err(not_shown(page.view())) };
        let mut shown = String::new();
        entries.iter().for_each(|entry| lines::write(*entry, form == Form::Json, &identity, &mut shown));
        counter.add(entries.len());
        if next.is_atom("done") {
            return write(&shown, entries.len(), None);
        }
        let next = OwnedTerm::from(next);
        write(&shown, entries.len(), Some(&next))?;
        cursor = Some(next);
    }
}

/// `{:scan, options}`
fn page_request(cursor: Option<&OwnedTerm>, w: &mut TermWriter<'_>) {
    w.tuple(2).atom("scan").list(1 + usize::from(cursor.is_some()));
    w.tuple(2).atom("limit").unsigned(AT_ONCE as u64);
    if let Some(cursor) = cursor {
        w.tuple(2).atom("cursor").term(cursor.view());
    }
    w.nil();
}

fn not_shown(answer: TermView<'_>) -> CliError {
    match refusal(answer) {
        Some(reason) if reason.is_atom("bad_cursor") => CliError::Failed(
            "the store is another one than that of the lines so far, or a store in memory that was started again: remove the file \
             that ends with .part and begin anew"
                .into(),
        ),
        Some(reason) if reason.is_atom("busy") => {
            CliError::Failed("so many others read through this store that it takes no more: try again".into())
        }
        _ => CliError::Failed(format!("it answers {}", text(answer))),
    }
}

/// An export that is not whole: its lines, and beside them how far they go.
struct Part {
    path: PathBuf,
    file: File,
    bytes: u64,
    entries: u64,
    /// Where it goes on.
    cursor: Option<OwnedTerm>,
}

impl Part {
    /// Goes on with the one that is there, or begins.
    fn open(of: &Path) -> Result<Self, CliError> {
        let mut path = of.as_os_str().to_owned();
        path.push(".part");
        let path = PathBuf::from(path);
        let wrong = |reason| CliError::cannot_run(format!("{}: {reason}", path.display()));
        let (bytes, entries, cursor) = match fs::read_to_string(path.with_added_extension(CURSOR)) {
            Ok(said) => {
                let said = read_cursor(&said);
                said.ok_or_else(|| {
                    wrong("what stands beside it says not how far it goes: remove both".to_owned())
                })?
            }
            Err(_) => (0, 0, None),
        };
        let open = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let opened = open.and_then(|mut file| {
            // What was written behind the last cursor comes again.
            file.set_len(bytes)?;
            file.seek(SeekFrom::Start(bytes))?;
            Ok(file)
        });
        let file = opened.map_err(|reason| wrong(reason.to_string()))?;
        if cursor.is_some() {
            // Nobody has to see it.
            let _ = writeln!(std::io::stderr(), "kvnode: going on behind {entries} entries");
        }
        Ok(Self { path, file, bytes, entries, cursor })
    }

    fn add(&mut self, lines: &str, count: usize, next: Option<&OwnedTerm>) -> Result<(), CliError> {
        let wrong = |reason| CliError::cannot_run(format!("{}: {reason}", self.path.display()));
        self.file.write_all(lines.as_bytes()).map_err(wrong)?;
        self.bytes += lines.len() as u64;
        self.entries += count as u64;
        let Some(cursor) = next else { return Ok(()) };
        // In the place of the one before at once: it may be interrupted at any moment.
        let (beside, new) = (self.path.with_added_extension(CURSOR), self.path.with_added_extension("new"));
        let said = format!("{{{}, {}, {}}}\n", self.bytes, self.entries, text(cursor.view()));
        fs::write(&new, said).and_then(|()| fs::rename(&new, &beside)).map_err(wrong)
    }

    /// It is whole. Gives how many entries it has.
    fn finish(self, of: &Path) -> Result<u64, CliError> {
        let wrong =
            |reason: std::io::Error| CliError::cannot_run(format!("{}: {reason}", self.path.display()));
        self.file.sync_all().and_then(|()| fs::rename(&self.path, of)).map_err(wrong)?;
        // It says nothing any more.
        let _ = fs::remove_file(self.path.with_added_extension(CURSOR));
        Ok(self.entries)
    }
}

/// `{bytes, entries, cursor}`
fn read_cursor(said: &str) -> Option<(u64, u64, Option<OwnedTerm>)> {
    let said = parse(said.trim(), None).ok()?;
    let [bytes, entries, cursor] = said.view().as_tuple::<3>()?;
    Some((bytes.as_unsigned()?, entries.as_unsigned()?, Some(OwnedTerm::from(cursor))))
}

/// Pairs that are put together.
#[derive(Default)]
struct Batch {
    pairs: Vec<OwnedTerm>,
    bytes: usize,
    first_line: u64,
}

pub(super) fn import(args: &ImportArgs) -> Result<(), CliError> {
    let unread = |reason| CliError::cannot_run(format!("{}: {reason}", args.file.display()));
    let input: Box<dyn BufRead> = if args.file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        Box::new(BufReader::new(File::open(&args.file).map_err(unread)?))
    };
    let count = with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
        let (identity, counter, mut count) = (store.session.identity(), progress::Counter::default(), 0);
        let mut batch = Batch::default();
        for (number, line) in (1_u64..).zip(input.lines()) {
            let line = line.map_err(unread)?;
            if number < args.from_line {
                continue;
            }
            let pair = match lines::read(&line, &identity) {
                Ok(None) => continue,
                Ok(Some(pair)) => pair,
                Err(why) => {
                    count += batch.put(store, &counter).await?;
                    return Err(CliError::usage(format!(
                        "line {number} is no entry: {why}\n\nThe {count} entries before are in the store: mend the line, and go on with \
                         --from-line {number}"
                    )));
                }
            };
            let bytes = pair.view().bytes().len();
            if batch.pairs.len() >= AT_ONCE || batch.bytes + bytes > BYTES_AT_ONCE {
                count += batch.put(store, &counter).await?;
            }
            if batch.pairs.is_empty() {
                batch.first_line = number;
            }
            batch.bytes += bytes;
            batch.pairs.push(pair);
        }
        Ok(count + batch.put(store, &counter).await?)
    })?;
    super::print(&format!("{count} entries\n"))
}

impl Batch {
    /// Puts all, and gives how many they are.
    async fn put(&mut self, store: &Store<'_>, counter: &progress::Counter) -> Result<u64, CliError> {
        let Self { pairs, first_line, .. } = std::mem::take(self);
        let request = OwnedTerm::write(|w| match &pairs[..] {
            // As large as one value may be.
            [pair] => {
                let [key, value] = pair.view().as_tuple::<2>().unwrap_or([pair.view(); 2]);
                w.tuple(3).atom("put").term(key).term(value);
            }
            pairs => {
                w.tuple(2).atom("put_many").list(pairs.len());
                pairs.iter().for_each(|pair| _ = w.term(pair.view()));
                w.nil();
            }
        });
        if pairs.is_empty() {
            return Ok(0);
        }
        let go_on = format!(
            "the lines before line {first_line} are in the store: go on with --from-line {first_line}"
        );
        let answer = store.call(request.map_err(CliError::cannot_run)?.view()).await;
        let answer = answer.map_err(|error| error.with_hint(&go_on))?;
        if answer.view().is_atom("ok") {
            counter.add(pairs.len());
            return Ok(pairs.len() as u64);
        }
        Err(CliError::Failed(format!("it answers {}; {go_on}", text(answer.view()))))
    }
}
