//! How an answer is printed: as Elixir shows it, as JSON, or as the bytes of a binary.

use serde_json::{Map, Value, json};

use super::{CliError, print, print_bytes};
use crate::etf::text::{InspectLimits, inspect};
use crate::etf::{TermView, from_term};

/// The form of an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// One line, in Elixir's syntax.
    Text,
    /// One line: `{"term": "…"}` in Elixir's syntax, with `"value"` where JSON has the same.
    Json,
    /// The bytes of a binary, with nothing around.
    Raw,
}

/// Prints an answer.
///
/// # Errors
/// It has no bytes to be printed as they are, or stdout is gone.
pub(super) fn show(answer: TermView<'_>, form: Form) -> Result<(), CliError> {
    match form {
        Form::Text => print(&format!("{}\n", text(answer))),
        Form::Json => print(&format!("{}\n", json_of(answer))),
        Form::Raw => match answer.as_binary() {
            Some(bytes) => print_bytes(bytes),
            None => {
                let shown = inspect(answer, InspectLimits::LOG);
                Err(CliError::Failed(format!(
                    "--raw prints binaries, and this is none: {shown}; leave --raw out"
                )))
            }
        },
    }
}

/// The reason in `{:error, reason}`.
pub(super) fn refusal(answer: TermView<'_>) -> Option<TermView<'_>> {
    answer.as_tuple::<2>().filter(|[error, _]| error.is_atom("error")).map(|[_, reason]| reason)
}

/// The failure that an answer is, after a request that is answered `:ok` where it was carried out. `known` says more about
/// the reason with this code, if it can.
///
/// # Errors
/// It is `{:error, reason}`.
pub(super) fn carried_out(
    answer: TermView<'_>,
    known: impl Fn(TermView<'_>) -> Option<String>,
) -> Result<(), CliError> {
    let Some(reason) = refusal(answer) else { return Ok(()) };
    // {:unconfirmed, have, want} has its code first.
    let mut cursor = reason.cursor();
    let code = match cursor.tuple() {
        Ok(1..) => cursor.term().unwrap_or(reason),
        _ => reason,
    };
    Err(CliError::Failed(known(code).unwrap_or_else(|| format!("it answers {{:error, {}}}", text(reason)))))
}

/// What is so and not on disk: `{:error, {:not_kept, reason}}`, of changes that are to outlive a restart.
pub(super) const NOT_KEPT: (&str, &str) = (
    "not_kept",
    "it is so from here on, but the store's disk has not taken it: it is forgotten if the store is started again before the disk \
     has room. The store's log says why; kvnode status shows what is so",
);

/// The text for a code, of those in a table.
pub(super) fn of_table(table: &[(&str, &str)], code: TermView<'_>) -> Option<String> {
    table.iter().find(|(known, _)| code.is_atom(known)).map(|(_, text)| (*text).to_owned())
}

/// The whole of a term.
pub(super) fn text(term: TermView<'_>) -> String {
    inspect(term, InspectLimits { text_bytes_max: usize::MAX })
}

/// A term for a script.
pub(super) fn json_of(term: TermView<'_>) -> Value {
    let mut object = Map::new();
    // Not of what JSON has no word for: bit strings, pids, maps with keys that are no text.
    if let Ok(value) = from_term::<Value>(term) {
        object.insert("value".into(), value);
    }
    object.insert("term".into(), json!(text(term)));
    object.into()
}

#[cfg(test)]
mod tests {
    use super::super::term::read;
    use super::*;

    #[test]
    fn scripts_get_both_forms() {
        let json = |typed: &str| json_of(read("T", typed, None).expect("a term").view()).to_string();
        assert_eq!(json("nil"), r#"{"term":"nil","value":null}"#);
        assert_eq!(json("\"Mafalda\""), r#"{"term":"\"Mafalda\"","value":"Mafalda"}"#);
        assert_eq!(json("{:a, [1, 2.5]}"), r#"{"term":"{:a, [1, 2.5]}","value":["a",[1,2.5]]}"#);
        assert_eq!(json("%{k: nil}"), r#"{"term":"%{k: nil}","value":{"k":null}}"#);
        assert_eq!(json("%{1 => 2}"), r#"{"term":"%{1 => 2}"}"#);
    }

    #[test]
    fn an_answer_of_any_depth_can_be_printed() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let term = read("T", &deep, None).expect("a term");
        assert_eq!(text(term.view()), deep);
        assert!(json_of(term.view()).get("value").is_none());
    }
}
