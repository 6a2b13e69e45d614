//! Names: atoms, aliases, and what Elixir knows by a word (*Syntax reference*, "Atoms" and "Aliases").

use super::quoted::{self, HexEscape};
use super::{Cursor, ParseProblem};
use crate::etf::ATOM_CHARS_MAX;
use crate::etf::text::quote::OPERATOR_ATOMS;

/// Operators that are atoms to Elixir when they are typed, though `inspect` shows them in quotes.
const MORE_OPERATORS: [&str; 6] = ["::", "^^^", "~~~", "<|>", "//", "+++"];

/// A word: letters, digits, `_` and `@`, with at most one `?` or `!` at the end.
pub(super) fn word<'a>(cursor: &mut Cursor<'a>) -> Option<&'a str> {
    let start = cursor.rest();
    if !cursor.peek().is_some_and(|first| first.is_alphabetic() || first == '_') {
        return None;
    }
    let body = cursor.take_while(usize::MAX, |char| char.is_alphanumeric() || matches!(char, '_' | '@'));
    // `a!=b` is no word with a mark.
    let marked = matches!(cursor.peek(), Some('?' | '!')) && !cursor.rest()[1..].starts_with('=');
    if marked {
        cursor.advance(1);
    }
    Some(&start[..body.len() + usize::from(marked)])
}

/// Takes the longest operator that is an atom.
pub(super) fn operator(cursor: &mut Cursor<'_>) -> Option<&'static str> {
    let rest = cursor.rest();
    let all = OPERATOR_ATOMS.iter().chain(&MORE_OPERATORS);
    let found =
        all.copied().filter(|operator| rest.starts_with(operator)).max_by_key(|operator| operator.len());
    if let Some(operator) = found {
        cursor.advance(operator.len());
    }
    found
}

/// The name behind a colon: a word, an operator, or a text in quotes.
///
/// # Errors
/// What is wrong, at the cursor.
pub(super) fn atom(cursor: &mut Cursor<'_>) -> Result<String, ParseProblem> {
    match cursor.peek() {
        Some(quote @ ('"' | '\'')) => quoted_atom(cursor, quote),
        _ => match word(cursor).or_else(|| operator(cursor)) {
            Some(word) => checked(word.to_owned()),
            None => Err(ParseProblem::Wanted("the name of an atom, as in :name or :\"a name\",")),
        },
    }
}

/// A text in quotes as the name of an atom. The cursor is at the quote.
pub(super) fn quoted_atom(cursor: &mut Cursor<'_>, quote: char) -> Result<String, ParseProblem> {
    let start = cursor.clone();
    cursor.advance(1);
    let bytes = quoted::read(cursor, quote, HexEscape::Byte)?;
    let text = match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(_) => {
            *cursor = start;
            cursor.advance(1);
            let bytes = quoted::read(cursor, quote, HexEscape::Character)?;
            String::from_utf8(bytes).map_err(|_| ParseProblem::NotUtf8)?
        }
    };
    checked(text)
}

fn checked(text: String) -> Result<String, ParseProblem> {
    if text.chars().count() > ATOM_CHARS_MAX { Err(ParseProblem::AtomTooLong) } else { Ok(text) }
}

/// The atom of an alias: `Foo.Bar` is `Elixir.Foo.Bar`. The cursor is behind its first word.
///
/// # Errors
/// What is wrong, at the cursor.
pub(super) fn alias(cursor: &mut Cursor<'_>, first: &str) -> Result<String, ParseProblem> {
    let mut name = if first == "Elixir" { first.to_owned() } else { format!("Elixir.{first}") };
    let part = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !part(first) {
        return Err(ParseProblem::Wanted("an alias of ASCII letters; in quotes, as in :\"Elixir.É\", it"));
    }
    loop {
        let mut after = cursor.clone();
        if !(after.take_char('.') && after.peek().is_some_and(|char| char.is_ascii_uppercase())) {
            return checked(name);
        }
        let Some(word) = word(&mut after).filter(|word| part(word)) else { return checked(name) };
        *cursor = after;
        name.push('.');
        name.push_str(word);
    }
}
