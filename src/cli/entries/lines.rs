//! Entries as lines of a file.
//!
//! ```text
//! {KEY, VALUE}                                  in Elixir's syntax
//! #etf 6802…                                    an entry that has no exact text: its bytes
//! {"key":{"term":"…"},"value":{"term":"…"}}     JSON, each with "value" where JSON has a word for it
//! {"key":{"etf":"…"},"value":{"etf":"…"}}       JSON of an entry that has no exact text
//! {"key":"a","value":[1,2]}                     JSON that others write
//! ```

use std::fmt::Write;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::answer::{json_of, text};
use crate::etf::text::parse;
use crate::etf::{OwnedTerm, TermView, key, to_term};

const ETF: &str = "#etf ";

/// Adds an entry, a pair, as a line.
pub(super) fn write(entry: TermView<'_>, json: bool, out: &mut String) {
    let exact = Some(text(entry)).filter(|typed| reads_as(typed, entry));
    match (json, exact, entry.as_tuple::<2>()) {
        (true, exact, Some([key, value])) => {
            let line = exact.map(|_| json!({ "key": json_of(key), "value": json_of(value) }).to_string());
            // JSON is read to a depth that not all terms keep to.
            let line = line.filter(|line| serde_json::from_str::<Value>(line).is_ok());
            let etf = |term: TermView<'_>| json!({ "etf": hex(term) });
            out.push_str(
                &line.unwrap_or_else(|| json!({ "key": etf(key), "value": etf(value) }).to_string()),
            );
        }
        (false, Some(typed), _) => out.push_str(&typed),
        _ => {
            out.push_str(ETF);
            out.push_str(&hex(entry));
        }
    }
    out.push('\n');
}

/// Whether a text is read as this term, to the last bit, at any node: so none that has a pid in it.
fn reads_as(typed: &str, term: TermView<'_>) -> bool {
    let Ok(read) = parse(typed, None) else { return false };
    let (mut one, mut other) = (Vec::new(), Vec::new());
    key::canonical(read.view(), &mut one).is_ok_and(|read| key::canonical(term, &mut other) == Ok(read))
}

fn hex(term: TermView<'_>) -> String {
    let mut out = String::with_capacity(2 * term.bytes().len());
    // Writing to a String does not fail.
    term.bytes().iter().for_each(|byte| _ = write!(out, "{byte:02x}"));
    out
}

/// An entry in JSON.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    key: Value,
    value: Value,
}

/// The pair of a line; `None`: an empty one.
///
/// # Errors
/// It is no entry: why.
pub(super) fn read(line: &str) -> Result<Option<OwnedTerm>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let is_json = line.strip_prefix('{').is_some_and(|rest| {
        let field = |name: &str| {
            rest.trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with(':'))
        };
        field("\"key\"") || field("\"value\"")
    });
    let pair = match line.strip_prefix(ETF) {
        Some(digits) => of_hex(digits.trim())?,
        None if is_json => of_json(line)?,
        None => parse(line, None).map_err(|error| error.to_string())?,
    };
    let is_pair = pair.view().as_tuple::<2>().is_some();
    if is_pair { Ok(Some(pair)) } else { Err("it is no pair {KEY, VALUE}".into()) }
}

fn of_json(line: &str) -> Result<OwnedTerm, String> {
    if let Some(number) = lost_integer(line) {
        return Err(format!(
            "JSON's integers are read up to 64 bits, and {number} has more, or is -0: write both key and value as terms, {{\"term\": \"{number}\"}}"
        ));
    }
    let Entry { key, value } = serde_json::from_str(line).map_err(|error| error.to_string())?;
    // As an export writes them; what others write may have such a field too.
    let (key, value) = match (exported(&key), exported(&value)) {
        (Some(key), Some(value)) => (key?, value?),
        _ => (term_of(&key)?, term_of(&value)?),
    };
    OwnedTerm::write(|w| _ = w.tuple(2).term(key.view()).term(value.view()))
        .map_err(|error| error.to_string())
}

/// The term of `{"term": "…"}`, with "value" or without, and of `{"etf": "…"}`.
fn exported(value: &Value) -> Option<Result<OwnedTerm, String>> {
    let object = value.as_object()?;
    let has_others = |word: &str| object.keys().any(|key| key != word && key != "value");
    match (object.get("term"), object.get("etf")) {
        (Some(Value::String(typed)), None) if !has_others("term") => {
            Some(parse(typed, None).map_err(|error| format!("{typed}: {error}")))
        }
        (None, Some(Value::String(digits))) if !has_others("etf") => Some(of_hex(digits)),
        _ => None,
    }
}

fn term_of(value: &Value) -> Result<OwnedTerm, String> {
    let term = to_term(value).map_err(|error| error.to_string())?;
    OwnedTerm::parse(term).map_err(|error| error.to_string())
}

/// An integer that JSON's reader makes a float of.
fn lost_integer(line: &str) -> Option<&str> {
    let mut in_string = false;
    let mut rest = line;
    while let Some(at) =
        rest.find(
            |c: char| {
                if in_string { c == '"' || c == '\\' } else { c == '"' || c == '-' || c.is_ascii_digit() }
            },
        )
    {
        let found = &rest[at..];
        let len = match found.as_bytes().first() {
            Some(b'"') => {
                in_string = !in_string;
                1
            }
            // What is escaped ends no string.
            Some(b'\\') => 1 + found[1..].chars().next().map_or(0, char::len_utf8),
            _ => {
                let is_of_number = |c: char| matches!(c, '-' | '+' | '.' | 'e' | 'E') || c.is_ascii_digit();
                let len = found.find(|c| !is_of_number(c)).unwrap_or(found.len());
                let number = &found[..len];
                let is_integer = !number.contains(['.', 'e', 'E']);
                if is_integer
                    && (number == "-0" || number.parse::<i64>().is_err() && number.parse::<u64>().is_err())
                {
                    return Some(number);
                }
                len
            }
        };
        rest = &found[len..];
    }
    None
}

fn of_hex(digits: &str) -> Result<OwnedTerm, String> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = digits.as_bytes().chunks(2);
    let read = pairs.map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let bytes = read.collect::<Option<_>>();
    let bytes = bytes.ok_or("the bytes of a term are written by two digits each, from 0 to f")?;
    OwnedTerm::parse(bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::text::NodeIdentity;

    fn of(typed: &str) -> OwnedTerm {
        let identity = NodeIdentity { name: "a@h".into(), creation: 7 };
        parse(typed, Some(&identity)).expect("a term")
    }

    #[test]
    fn entries_come_back_as_they_were() {
        let fun = OwnedTerm::write(|w| {
            // EXPORT_EXT: &Map.get/2
            w.tuple(2)
                .atom("f")
                .raw(&[113, 119, 10])
                .raw(b"Elixir.Map")
                .raw(&[119, 3])
                .raw(b"get")
                .raw(&[97, 2]);
        });
        let deep = format!("{{:deep, {}1{}}}", "%{a: ".repeat(126), "}".repeat(126));
        let typed = [
            "{:a, 1}",
            "{\"a\\nb\", %{1 => [1 | 2.5]}}",
            "{{:user, 7}, -0.0}",
            "{<<1, 255>>, <<3::2>>}",
            "{#PID<0.95.0>, nil}",
            "{%{__struct__: MyApp.User}, :\"a b\"}",
            "{%{\"key\" => 1, \"value\" => 2}, %{\"term\" => \"42\"}}",
            "{1, 123456789012345678901234567890}",
            &deep,
        ];
        for entry in typed.map(of).into_iter().chain(fun) {
            for json in [false, true] {
                let mut line = String::new();
                write(entry.view(), json, &mut line);
                assert_eq!(line.lines().count(), 1, "{line}");
                assert!(!json || serde_json::from_str::<Value>(&line).is_ok(), "{line}");
                let read = read(&line).expect("it was written").expect("it is none that is empty");
                let (mut one, mut other) = (Vec::new(), Vec::new());
                assert_eq!(
                    key::canonical(read.view(), &mut one),
                    key::canonical(entry.view(), &mut other),
                    "{line}"
                );
            }
        }
        // A pid is of a life of its node, which no text says.
        let mut line = String::new();
        write(of("{:pid, #PID<0.95.0>}").view(), false, &mut line);
        assert!(line.starts_with(ETF), "{line}");
    }

    #[test]
    fn json_of_others_is_read() {
        for (line, typed) in [
            (
                r#"{"key": ["a", 1], "value": {"name": "Ana", "tags": [true, null, 1.5]}}"#,
                r#"{["a", 1], %{"name" => "Ana", "tags" => [true, nil, 1.5]}}"#,
            ),
            (
                r#"{ "value" : {"term": "fall 2024"}, "key": "n\"12345678901234567890123" }"#,
                r#"{"n\"12345678901234567890123", %{"term" => "fall 2024"}}"#,
            ),
            (
                r#"{"key":18446744073709551615,"value":-9223372036854775808}"#,
                "{18446744073709551615, -9223372036854775808}",
            ),
        ] {
            let read = read(line).expect("it is JSON").expect("it is not empty");
            assert_eq!(text(read.view()), typed);
        }
    }

    #[test]
    fn what_is_no_entry_is_told() {
        for (line, part) in [
            ("{:a}", "no pair"),
            ("{:a, b}", "column 6"),
            (r#"{"key": 1}"#, "missing field `value`"),
            (r#"{"key": 1, "key": 2, "value": 3}"#, "duplicate field `key`"),
            (r#"{"key": 1, "value": 2, "ttl": 3}"#, "unknown field `ttl`"),
            (r#"{"key": 1, "value": 2,}"#, "trailing comma"),
            (r#"{"key": {"term": "{"}, "value": {"term": "1"}}"#, "{: "),
            (r#"{"key": 1, "value": [18446744073709551616]}"#, "18446744073709551616 has more"),
            (r#"{"key": 1, "value": -0}"#, "-0 has more, or is -0"),
            ("#etf 680", "two digits"),
            ("#etf 6802", ""),
            (r#"{"key": {"etf": "6"}, "value": {"etf": "6a"}}"#, "two digits"),
        ] {
            let error = read(line).expect_err("it is none");
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(read("  \n"), Ok(None));
    }
}
