//! Terms that are typed: read in Elixir's syntax, and where they are none, shown with a mark at the place.

use std::io::Read;

use super::CliError;
use super::ask::Session;
use crate::etf::OwnedTerm;
use crate::etf::text::{NodeIdentity, ParseError, parse};

/// Characters of a wrong text that are shown before and behind the place.
const SHOWN: usize = 40;

/// Reads a term. `what` is the argument's name.
///
/// # Errors
/// It is none, with the place.
pub(super) fn read(what: &str, typed: &str, local: Option<&NodeIdentity>) -> Result<OwnedTerm, CliError> {
    parse(typed, local).map_err(|error| {
        CliError::usage(format!("{what} is not a term: {error}\n\n{}", pointed_at(typed, &error)))
    })
}

/// Reads a value: a term, or the contents of a file as a binary: `@file`, `@-` for standard input.
///
/// # Errors
/// It is no term, or the file cannot be read.
pub(super) fn read_or_file(
    what: &str,
    typed: &str,
    local: Option<&NodeIdentity>,
) -> Result<OwnedTerm, CliError> {
    let Some(path) = typed.strip_prefix('@') else { return read(what, typed, local) };
    let mut bytes = Vec::new();
    let (name, contents) = match path {
        "-" => ("standard input", std::io::stdin().lock().read_to_end(&mut bytes)),
        path => (path, std::fs::File::open(path).and_then(|mut file| file.read_to_end(&mut bytes))),
    };
    contents.map_err(|reason| CliError::usage(format!("{what} {typed}: {name} cannot be read: {reason}")))?;
    if u32::try_from(bytes.len()).is_err() {
        return Err(CliError::usage(format!("{what} {typed}: more than 4 GiB fit no message")));
    }
    OwnedTerm::write(|w| _ = w.binary(&bytes)).map_err(CliError::usage)
}

/// Reads a term before any node is asked, so that what is mistyped is told at once. `None`: only the node can tell.
///
/// # Errors
/// It is none.
pub(super) fn read_early(what: &str, typed: &str) -> Result<Option<OwnedTerm>, CliError> {
    if names_processes(typed) { Ok(None) } else { read(what, typed, None).map(Some) }
}

/// The term that was read before, or is read with the node's help.
///
/// # Errors
/// It is none.
pub(super) fn read_late(
    early: Option<OwnedTerm>,
    what: &str,
    typed: &str,
    session: &Session,
) -> Result<OwnedTerm, CliError> {
    match early {
        Some(term) => Ok(term),
        None => read(what, typed, Some(&session.identity())),
    }
}

/// Whether a text has something in it that only the node that is asked can tell: a pid, reference or port.
pub(super) fn names_processes(typed: &str) -> bool {
    ["#PID<", "#Reference<", "#Port<"].iter().any(|kind| typed.contains(kind))
}

/// The line with the mistake, and a mark below it.
fn pointed_at(text: &str, error: &ParseError) -> String {
    let line = text.lines().nth(error.line - 1).unwrap_or_default();
    let column = error.column - 1;
    let first = column.saturating_sub(SHOWN);
    let printable = |char: char| if char.is_control() { '·' } else { char };
    let shown: String = line.chars().skip(first).take(2 * SHOWN).map(printable).collect();
    format!("    {shown}\n    {}^", " ".repeat(column - first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistake_is_pointed_at() {
        let error = read("KEY", "{:é, b}", None).expect_err("b is a variable").to_string();
        assert_eq!(
            error,
            "KEY is not a term: column 6: b is a variable or a function to Elixir; write :b for the atom, or \"b\" for the \
             text\n\n    {:é, b}\n         ^"
        );
        let long = format!("[{}b]", "1, ".repeat(100));
        let error = read("KEY", &long, None).expect_err("b is a variable").to_string();
        let lines: Vec<&str> = error.lines().rev().take(2).collect();
        assert_eq!(lines[1].chars().nth(lines[0].len() - 1), Some('b'), "{error}");
        assert!(lines[1].len() <= 4 + 2 * SHOWN, "{error}");
        assert!(read("KEY", "", None).is_err());
        assert!(read("KEY", "[1,\n\n", None).is_err());
    }

    #[test]
    fn files_are_binaries() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("v");
        std::fs::write(&path, [0, 255]).expect("it is ours");
        let typed = format!("@{}", path.display());
        let value = read_or_file("VALUE", &typed, None).expect("it can be read");
        assert_eq!(value.view().as_binary(), Some(&[0, 255][..]));
        let error = read_or_file("VALUE", "@/no/such/file", None).expect_err("it is not there").to_string();
        assert!(error.contains("/no/such/file cannot be read"), "{error}");
        assert!(read_or_file("VALUE", ":a", None).is_ok());
    }
}
