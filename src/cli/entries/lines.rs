//! Entries as lines of a file: what `kvnode export` writes and `kvnode import` reads.
//!
//! ```text
//! {KEY, VALUE}                                  in Elixir's syntax
//! {"key":{"term":"…"},"value":{"term":"…"}}     the same in JSON, with what JSON has a word for beside it
//! {"key":"a","value":[1,2]}                     JSON of somebody else's
//! #etf 6802…                                    an entry that no text is exact for, as funs are: its bytes
//! ```

use std::fmt::Write;

use serde_json::{Value, json};

use super::answer::{json_of, text};
use crate::etf::text::{NodeIdentity, parse};
use crate::etf::{OwnedTerm, TermView, key, to_term};

const ETF: &str = "#etf ";

/// Adds an entry, a pair, as a line.
pub(super) fn write(entry: TermView<'_>, json: bool, identity: &NodeIdentity, out: &mut String) {
    let typed = text(entry);
    match entry.as_tuple::<2>() {
        Some([key, value]) if reads_as(&typed, entry, identity) => {
            if json {
                out.push_str(&json!({ "key": json_of(key), "value": json_of(value) }).to_string());
            } else {
                out.push_str(&typed);
            }
        }
        _ => {
            out.push_str(ETF);
            // Writing to a String does not fail.
            entry.bytes().iter().for_each(|byte| _ = write!(out, "{byte:02x}"));
        }
    }
    out.push('\n');
}

/// Whether a text is read as this term, to the last bit.
fn reads_as(typed: &str, term: TermView<'_>, identity: &NodeIdentity) -> bool {
    let Ok(read) = parse(typed, Some(identity)) else { return false };
    let (mut one, mut other) = (Vec::new(), Vec::new());
    key::canonical(read.view(), &mut one).is_ok_and(|read| key::canonical(term, &mut other) == Ok(read))
}

/// The pair of a line; `None`: an empty one.
///
/// # Errors
/// It is no entry: why.
pub(super) fn read(line: &str, identity: &NodeIdentity) -> Result<Option<OwnedTerm>, String> {
    let line = line.trim();
    if line.is_empty() {
        return Ok(None);
    }
    let pair = match (line.strip_prefix(ETF), serde_json::from_str::<Value>(line)) {
        (Some(hex), _) => OwnedTerm::parse(bytes(hex.trim())?).map_err(|error| error.to_string())?,
        (None, Ok(entry)) => {
            let part = |name| entry.get(name).ok_or_else(|| format!("it has no {name:?}"));
            let (key, value) = (of_json(part("key")?, identity)?, of_json(part("value")?, identity)?);
            pair(key.view(), value.view())?
        }
        (None, Err(_)) => parse(line, Some(identity)).map_err(|error| error.to_string())?,
    };
    let is_pair = pair.view().as_tuple::<2>().is_some();
    if is_pair { Ok(Some(pair)) } else { Err("it is no pair {KEY, VALUE}".into()) }
}

fn pair(key: TermView<'_>, value: TermView<'_>) -> Result<OwnedTerm, String> {
    OwnedTerm::write(|w| _ = w.tuple(2).term(key).term(value)).map_err(|error| error.to_string())
}

/// The term that JSON says, by its text where there is one.
fn of_json(value: &Value, identity: &NodeIdentity) -> Result<OwnedTerm, String> {
    let typed = value.as_object().filter(|object| object.keys().all(|key| key == "term" || key == "value"));
    match typed.and_then(|object| object.get("term")) {
        Some(Value::String(typed)) => {
            parse(typed, Some(identity)).map_err(|error| format!("{typed}: {error}"))
        }
        _ => {
            let term = to_term(value).map_err(|error| error.to_string())?;
            OwnedTerm::parse(term).map_err(|error| error.to_string())
        }
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>, String> {
    let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let pairs = hex.as_bytes().chunks(2);
    let read = pairs.map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    read.collect::<Option<_>>().ok_or_else(|| "what follows #etf are no bytes of two digits each".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> NodeIdentity {
        NodeIdentity { name: "a@h".into(), creation: 7 }
    }

    fn of(typed: &str) -> OwnedTerm {
        parse(typed, Some(&identity())).expect("a term")
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
        let typed = [
            "{:a, 1}",
            "{\"a\\nb\", %{1 => [1 | 2.5]}}",
            "{{:user, 7}, -0.0}",
            "{<<1, 255>>, <<3::2>>}",
            "{#PID<0.95.0>, nil}",
            "{%{__struct__: MyApp.User}, :\"a b\"}",
        ];
        for entry in typed.map(of).into_iter().chain(fun) {
            for json in [false, true] {
                let mut line = String::new();
                write(entry.view(), json, &identity(), &mut line);
                assert_eq!(line.lines().count(), 1, "{line}");
                let read =
                    read(&line, &identity()).expect("it was written").expect("it is none that is empty");
                assert_eq!(text(read.view()), text(entry.view()), "{line}");
                assert!(reads_as(&text(entry.view()), read.view(), &identity()) || line.starts_with(ETF));
            }
        }
    }

    #[test]
    fn json_of_others_is_read() {
        let line = r#"{"key": ["a", 1], "value": {"name": "Ana", "tags": [true, null, 1.5]}}"#;
        let read = read(line, &identity()).expect("it is JSON").expect("it is not empty");
        assert_eq!(text(read.view()), r#"{["a", 1], %{"name" => "Ana", "tags" => [true, nil, 1.5]}}"#);
    }

    #[test]
    fn what_is_no_entry_is_told() {
        for (line, part) in [
            ("{:a}", "no pair"),
            ("{:a, b}", "column 6"),
            (r#"{"key": 1}"#, r#"no "value""#),
            (r#"{"key": {"term": "{"}, "value": 1}"#, "{: "),
            ("#etf 680", "two digits"),
            ("#etf 6802", ""),
        ] {
            let error = read(line, &identity()).expect_err("it is none");
            assert!(error.contains(part), "{line}: {error}");
        }
        assert_eq!(read("  \n", &identity()), Ok(None));
    }
}
