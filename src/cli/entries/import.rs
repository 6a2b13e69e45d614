//! `kvnode import`.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use async_signal::{Signal, Signals};
use clap::Args;
use smol::future::FutureExt;
use smol::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use smol::stream::StreamExt;

use super::put::{Batch, Entry, NotPut, Puts};
use super::{counted, from, lines};
use crate::cli::answer::Form;
use crate::cli::ask::{AskArgs, ToArgs};
use crate::cli::store::{Store, with_store_for_long};
use crate::cli::{CliError, print};
use crate::etf::OwnedTerm;

const EXAMPLES: &str = "\
EXAMPLES
  $ kvnode import shop.terms
  1000000 entries
  $ gzip -dc shop.json.gz | kvnode import - --node slave1@myhost
  $ kvnode import --from old@myhost --from-store global:shop --to global:shop

Lines of kvnode export, in either form, and of others: {KEY, VALUE} in Elixir's syntax, or {\"key\": …, \"value\": …} in JSON, whose \
strings become binaries. What is there already under a key is replaced; put twice, a line changes nothing.

With --from a whole store comes, with its deadlines: that of a running kvnode, wherever it keeps it, which has to be at rest meanwhile; one of a folder \
that no node uses; or one of a backup.

A store that takes nothing for a moment, as its etcd has no leader, is asked again for 30 s.";

/// A line has so many bytes at most: twice the largest value that a store takes by its defaults, as digits, and more.
const LINE_BYTES_MAX: u64 = 256 << 20;
/// Some editors begin a file with it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[derive(Args)]
#[command(before_help = EXAMPLES)]
pub(in crate::cli) struct ImportArgs {
    /// The file; - is standard input
    #[arg(value_name = "FILE", required_unless_present = "from")]
    file: Option<PathBuf>,
    /// Begin with this line, counted from 1
    #[arg(long, value_name = "N", default_value = "1", value_parser = clap::value_parser!(u64).range(1..))]
    from_line: u64,
    /// Instead of lines, the store of this node, NAME@HOST or NAME on this host; of this folder (--data-dir of a node that has ended); or of this
    /// backup
    #[arg(long, value_name = "NODE|DIR|FILE", conflicts_with_all = ["file", "from_line"])]
    from: Option<String>,
    /// Which store of that: KIND:NAME [default: the only one of a folder or a backup; local:KeyValueStore of a node]
    #[arg(long, value_name = "KIND:NAME", requires = "from")]
    from_store: Option<String>,
    #[command(flatten)]
    to: ToArgs,
    #[command(flatten)]
    ask: AskArgs,
}

pub(in crate::cli) fn import(args: &ImportArgs) -> Result<(), CliError> {
    if let Some(from) = &args.from {
        return from::import(from, args.from_store.as_deref(), &args.to, &args.ask);
    }
    let path = args.file.as_deref().unwrap_or(Path::new("-"));
    let opened: Result<Box<dyn Read + Send>, _> = if path == Path::new("-") {
        Ok(Box::new(std::io::stdin()))
    } else {
        File::open(path).map(|file| Box::new(file) as Box<_>)
    };
    let input = opened.map_err(|reason| CliError::cannot_run(format!("{}: {reason}", path.display())))?;
    let count = with_store_for_long(&args.to, &args.ask, async |store: &Store<'_>| {
        let mut signals = Signals::new([Signal::Int, Signal::Term]).map_err(CliError::cannot_run)?;
        let import = Import {
            puts: Puts::new(store),
            from_line: args.from_line,
            next_line: Cell::new(args.from_line),
        };
        let all = import.all(BufReader::new(smol::Unblock::new(input)), path);
        let interrupted = async {
            signals.next().await;
            Err(import.stopped(CliError::Failed("interrupted".into()), "those of some lines behind may be"))
        };
        all.or(interrupted).await?;
        import.puts.finish()
    })?;
    match args.ask.form() {
        Form::Json => print(&format!("{{\"entries\":{count}}}\n")),
        _ => print(&format!("{}\n", counted(count))),
    }
}

/// An import that is under way.
struct Import<'a> {
    puts: Puts<'a>,
    from_line: u64,
    /// The entries of all lines before this one are in the store, or larger than it takes.
    next_line: Cell<u64>,
}

impl Import<'_> {
    async fn all(&self, mut input: impl AsyncBufRead + Unpin, file: &Path) -> Result<(), CliError> {
        let (mut batch, mut line) = (Batch::default(), Vec::new());
        for number in 1_u64.. {
            line.clear();
            let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await;
            let pair = match read {
                Ok(0) => break,
                Ok(_) if number < self.from_line => continue_line(&mut input, &mut line)
                    .await
                    .map(|()| None)
                    .map_err(|reason| reason.to_string()),
                Ok(_) => pair_of(number, &line),
                Err(reason) => {
                    self.put(&mut batch, number).await?;
                    return Err(
                        self.stopped(CliError::cannot_run(format!("{}: {reason}", file.display())), "")
                    );
                }
            };
            let pair = match pair {
                Ok(None) => continue,
                Ok(Some(pair)) => pair,
                Err(why) => {
                    self.put(&mut batch, number).await?;
                    return Err(
                        self.stopped(CliError::usage(format!("line {number} is no entry: {why}")), "")
                    );
                }
            };
            if batch.is_full_for(pair.view().bytes().len()) {
                self.put(&mut batch, number).await?;
            }
            batch.push(Entry { pair, ttl: None });
        }
        self.put(&mut batch, u64::MAX).await
    }

    /// Puts all of a batch; the line that comes behind it has this number.
    async fn put(&self, batch: &mut Batch, next: u64) -> Result<(), CliError> {
        match self.puts.put(std::mem::take(batch)).await {
            Ok(()) => {}
            Err(NotPut::Unknown(error)) => {
                return Err(self.stopped(error, "those of some lines behind may be"));
            }
            Err(NotPut::Refused(error)) => return Err(self.stopped(error, "")),
        }
        self.next_line.set(next);
        Ok(())
    }

    /// What is in the store when it ends early, and how to go on.
    fn stopped(&self, why: CliError, more: &str) -> CliError {
        let (count, next) = (self.puts.count(), self.next_line.get());
        let more = if more.is_empty() { String::new() } else { format!(", and {more}") };
        match count {
            0 if more.is_empty() => why.with_hint("nothing was put"),
            _ => why.with_hint(&format!(
                "{} of the lines before are in the store{more}: go on with --from-line {next}",
                counted(count)
            )),
        }
    }
}

/// Reads the rest of a line that is longer than what was read of it, and drops it.
async fn continue_line(input: &mut (impl AsyncBufRead + Unpin), line: &mut Vec<u8>) -> std::io::Result<()> {
    while !line.ends_with(b"\n") {
        line.clear();
        if (&mut *input).take(LINE_BYTES_MAX).read_until(b'\n', line).await? == 0 {
            break;
        }
    }
    Ok(())
}

/// The pair of a line; `None`: an empty one.
fn pair_of(number: u64, line: &[u8]) -> Result<Option<OwnedTerm>, String> {
    if line.len() as u64 >= LINE_BYTES_MAX && !line.ends_with(b"\n") {
        return Err(format!("it has more than {LINE_BYTES_MAX} bytes"));
    }
    let line = if number == 1 { line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line) } else { line };
    let line = std::str::from_utf8(line)
        .map_err(|error| format!("it is not UTF-8 behind byte {}", error.valid_up_to()))?;
    lines::read(line)
}
