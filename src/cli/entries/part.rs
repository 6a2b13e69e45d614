//! The file of an export that is not whole: `FILE.part`, with `FILE.part.cursor` beside it, which says how far it goes.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::counted;
use crate::cli::CliError;
use crate::cli::answer::text;
use crate::etf::text::parse;
use crate::etf::{OwnedTerm, TermView};

/// What is exported, and in which form.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) node: String,
    pub(super) to: String,
    pub(super) json: bool,
}

/// The cursor of an export that has no entry yet. No store gives it.
const FROM_THE_START: &[u8] = &[];

/// An export that is being written; no other writes the same file.
pub(super) struct Part {
    path: PathBuf,
    file: File,
    source: Source,
    reached: Reached,
}

/// How far it goes.
#[derive(Clone, Copy, Default)]
struct Reached {
    bytes: u64,
    entries: u64,
}

impl Part {
    /// Continues the export that `FILE.part` holds, from the cursor that is given, or begins an export.
    ///
    /// # Errors
    /// `FILE.part` holds an export of another source, or an export that is being written, or is no export that can be continued: nothing
    /// has changed.
    pub(super) fn open(of: &Path, source: Source) -> Result<(Self, Option<OwnedTerm>), CliError> {
        let path = of.with_added_extension("part");
        let (part, beside) = (path.display(), cursor_of(&path));
        let wrong = |reason: &dyn std::fmt::Display| CliError::cannot_run(format!("{part}: {reason}"));
        let over = format!("remove it and {} to start over", beside.display());
        let said = match fs::read_to_string(&beside) {
            Ok(said) => Some(said),
            Err(reason) if reason.kind() == ErrorKind::NotFound => None,
            Err(reason) => return Err(CliError::cannot_run(format!("{}: {reason}", beside.display()))),
        };
        let mut open = OpenOptions::new();
        // All values come to stand in it.
        open.write(true).mode(0o600);
        // An export that was ended before it had said how far it goes leaves an empty file.
        let is_empty = path.symlink_metadata().is_ok_and(|meta| meta.is_file() && meta.len() == 0);
        let is_there = said.is_some() || is_empty;
        let file = if is_there { open.open(&path) } else { open.create_new(true).open(&path) };
        let not_ours = "it is there, and no export that can continue: remove it";
        let mut file = file.map_err(|reason| match reason.kind() {
            ErrorKind::AlreadyExists => wrong(&not_ours),
            ErrorKind::NotFound if said.is_some() => {
                wrong(&format_args!("it is gone: remove {} to start over", beside.display()))
            }
            _ => wrong(&reason),
        })?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(wrong(&"another export is writing it")),
            Err(TryLockError::Error(reason)) => return Err(wrong(&reason)),
        }
        let Some(said) = said else {
            // The lock may have been another export's until now.
            if file.metadata().map_err(|reason| wrong(&reason))?.len() > 0 || beside.exists() {
                return Err(wrong(&not_ours));
            }
            let part = Self { path, file, source, reached: Reached::default() };
            part.keep_cursor(
                &OwnedTerm::write(|w| _ = w.binary(FROM_THE_START)).map_err(CliError::cannot_run)?,
            )?;
            return Ok((part, None));
        };
        let Some((reached, was, cursor)) = read_cursor(&said) else {
            return Err(CliError::cannot_run(format!(
                "{}: it says not how far {part} goes: remove both to start over",
                beside.display()
            )));
        };
        if was != source {
            let Source { node, to, json } = was;
            let form = if json { " with --json" } else { "" };
            return Err(wrong(&format_args!(
                "it was begun from {to} on {node}{form}: do the same, or {over}"
            )));
        }
        let is_whole = file.metadata().map_err(|reason| wrong(&reason))?.len() >= reached.bytes;
        if !is_whole || !path.symlink_metadata().is_ok_and(|meta| meta.is_file()) {
            return Err(wrong(&format_args!("it is not what was written, but shorter: {over}")));
        }
        // What was written behind the last cursor comes again.
        let cut = file.set_len(reached.bytes).and_then(|()| file.seek(SeekFrom::Start(reached.bytes)));
        cut.map_err(|reason| wrong(&reason))?;
        let part = Self { path, file, source, reached };
        if cursor.view().as_binary() == Some(FROM_THE_START) {
            return Ok((part, None));
        }
        // A terminal that is gone has no reader.
        let _ = writeln!(std::io::stderr(), "kvnode: continuing behind {}", counted(reached.entries));
        Ok((part, Some(cursor)))
    }

    /// Adds the lines of so many entries; `next`: where the entries go on.
    pub(super) fn add(&mut self, lines: &str, count: u64, next: Option<&OwnedTerm>) -> Result<(), CliError> {
        let written = self.file.write_all(lines.as_bytes());
        written.map_err(|reason| self.stopped(&reason))?;
        self.reached.bytes += lines.len() as u64;
        self.reached.entries += count;
        next.map_or(Ok(()), |cursor| self.keep_cursor(cursor))
    }

    fn stopped(&self, reason: &std::io::Error) -> CliError {
        CliError::cannot_run(format!("{}: {reason}; run it again to continue", self.path.display()))
    }

    /// Keeps how far the lines go, and where the entries go on.
    fn keep_cursor(&self, cursor: &OwnedTerm) -> Result<(), CliError> {
        let (Reached { bytes, entries }, Source { node, to, json }) = (self.reached, &self.source);
        let said = OwnedTerm::write(|w| {
            w.tuple(6).unsigned(bytes).unsigned(entries).binary(node.as_bytes()).binary(to.as_bytes());
            w.atom(if *json { "true" } else { "false" }).term(cursor.view());
        });
        let said = format!("{}\n", text(said.map_err(CliError::cannot_run)?.view()));
        let (beside, new) = (cursor_of(&self.path), self.path.with_added_extension("new"));
        // The lines first: after a power cut the cursor says nothing of lines that are not there.
        let kept = self
            .file
            .sync_data()
            .and_then(|()| fs::write(&new, said))
            .and_then(|()| fs::rename(&new, &beside));
        kept.map_err(|reason| self.stopped(&reason))
    }

    /// All lines are there: it becomes the file. Gives how many entries it has.
    ///
    /// # Errors
    /// The file is there meanwhile, or the system refuses: the lines are in `FILE.part`.
    pub(super) fn finish(self, of: &Path) -> Result<u64, CliError> {
        let wrong = |reason: std::io::Error| {
            CliError::cannot_run(format!(
                "{}: {reason}; all entries are in {}",
                of.display(),
                self.path.display()
            ))
        };
        self.file.sync_all().map_err(wrong)?;
        // Before the file has its name: nobody continues what is whole.
        match fs::remove_file(cursor_of(&self.path)) {
            Err(reason) if reason.kind() != ErrorKind::NotFound => return Err(wrong(reason)),
            _ => {}
        }
        match fs::hard_link(&self.path, of) {
            Ok(()) => fs::remove_file(&self.path).map_err(wrong)?,
            Err(reason) if reason.kind() == ErrorKind::AlreadyExists => return Err(wrong(reason)),
            // Not every file system has links.
            Err(_) => fs::rename(&self.path, of).map_err(wrong)?,
        }
        Ok(self.reached.entries)
    }
}

fn cursor_of(part: &Path) -> PathBuf {
    part.with_added_extension("cursor")
}

/// `{bytes, entries, node, server, json, cursor}`
fn read_cursor(said: &str) -> Option<(Reached, Source, OwnedTerm)> {
    let said = parse(said.trim(), None).ok()?;
    let [bytes, entries, node, to, json, cursor] = said.view().as_tuple::<6>()?;
    let string = |term: TermView<'_>| String::from_utf8(term.as_binary()?.to_vec()).ok();
    let source = Source { node: string(node)?, to: string(to)?, json: json.is_atom("true") };
    cursor.as_binary()?;
    let reached = Reached { bytes: bytes.as_unsigned()?, entries: entries.as_unsigned()? };
    Some((reached, source, OwnedTerm::from(cursor)))
}
