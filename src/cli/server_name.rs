//! Names of servers as they are typed, and as Elixir shows them.

use crate::config::ServerName;
use crate::etf::text::{InspectLimits, inspect, parse};
use crate::etf::{ATOM_CHARS_MAX, TermView, encode};
use crate::program::StoreConfig;

/// What Elixir puts before the name of a module to make its atom.
const MODULE_PREFIX: &str = "Elixir.";

/// Turns a typed name into the text of an atom.
///
/// Typed as in Elixir: a name that begins with an upper-case letter is a module (`KeyValueStore` is
/// `:"Elixir.KeyValueStore"`); a colon before it says that it is the atom as it stands.
///
/// # Errors
/// What is wrong with it.
pub(super) fn atom(typed: &str) -> Result<String, String> {
    let atom = match typed.strip_prefix(':') {
        Some(quoted) if quoted.starts_with('"') => quoted_atom(typed)?,
        Some(literal) => literal.to_owned(),
        None if typed.starts_with(['"', '\'', '{', '[', '#']) => {
            return Err("a name is an atom; write it as in slave1, KeyValueStore or :\"my store\"".into());
        }
        None if typed.starts_with(|first: char| first.is_uppercase()) && !is_module(typed) => {
            format!("{MODULE_PREFIX}{typed}")
        }
        None => typed.to_owned(),
    };
    if atom.is_empty() {
        return Err("the name is empty; write one, as in slave1 or KeyValueStore".into());
    }
    let characters = atom.chars().count();
    if characters > ATOM_CHARS_MAX {
        return Err(format!(
            "the name has {characters} characters, and an atom has {ATOM_CHARS_MAX} at most"
        ));
    }
    if atom == "undefined" {
        return Err(
            "the name undefined is what Erlang answers for a name that nobody has; choose another".into()
        );
    }
    Ok(atom)
}

/// `:"my store"`.
fn quoted_atom(typed: &str) -> Result<String, String> {
    let term = parse(typed, None).map_err(|error| error.to_string())?;
    let atom = term.view().as_atom().map(|atom| atom.to_str().into_owned());
    atom.ok_or_else(|| "it is no atom; write it as in slave1, KeyValueStore or :\"my store\"".into())
}

fn is_module(atom: &str) -> bool {
    atom.starts_with(MODULE_PREFIX)
}

/// Reads `global:NAME` or `local:NAME`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn server(typed: &str) -> Result<ServerName, String> {
    match typed.split_once(':') {
        Some(("global", name)) => atom(name).map(ServerName::Global),
        Some(("local", name)) => atom(name).map(ServerName::Local),
        _ => Err("write where the name lives too, as in global:slave1 or local:KeyValueStore".into()),
    }
}

/// Reads `global:a,local:b`: the names of one store.
///
/// # Errors
/// What is wrong with it.
pub(super) fn store(typed: &str) -> Result<StoreConfig, String> {
    let mut store = StoreConfig::default();
    for name in typed.split(',') {
        match server(name)? {
            ServerName::Global(name) => store.global.push(name),
            ServerName::Local(name) => store.local.push(name),
        }
    }
    Ok(store)
}

/// Writes a store's names as [`store`] reads them.
pub(super) fn store_typed(store: &StoreConfig) -> String {
    let typed = |name: &String| match shown(name) {
        // `slave1` as well as `:slave1`, where the colon changes nothing.
        elixir if elixir.starts_with(':') && atom(name).as_ref() == Ok(name) => name.clone(),
        elixir => elixir,
    };
    let global = store.global.iter().map(|name| format!("global:{}", typed(name)));
    let names = global.chain(store.local.iter().map(|name| format!("local:{}", typed(name))));
    names.collect::<Vec<_>>().join(",")
}

/// An atom in Elixir's syntax.
pub(super) fn shown(atom: &str) -> String {
    let bytes = encode(|term| {
        term.atom(atom);
    });
    // An atom's text is whole: 255 characters, each escaped with no more than ten bytes.
    TermView::parse(&bytes)
        .map_or_else(|_| atom.to_owned(), |term| inspect(term, InspectLimits { text_bytes_max: 4096 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_typed_as_in_elixir() {
        assert_eq!(atom("slave1").unwrap(), "slave1");
        assert_eq!(atom(":slave1").unwrap(), "slave1");
        assert_eq!(atom("KeyValueStore").unwrap(), "Elixir.KeyValueStore");
        assert_eq!(atom("Elixir.KeyValueStore").unwrap(), "Elixir.KeyValueStore");
        assert_eq!(atom(":KeyValueStore").unwrap(), "KeyValueStore");
        assert_eq!(atom("a:b").unwrap(), "a:b");
        assert_eq!(atom(":\"my store\"").unwrap(), "my store");
        assert_eq!(atom(&shown("q\"\\#{x}\n")).unwrap(), "q\"\\#{x}\n");
        for bad in [
            "",
            ":",
            "undefined",
            "\"a\"",
            "{a, b}",
            ":\"a",
            ":\"a\"b",
            ":\"\"",
            &"a".repeat(256),
            &"A".repeat(255),
        ] {
            assert!(atom(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_store_has_names_of_both_kinds() {
        let read = store("global:a,local:B,global::C").unwrap();
        assert_eq!(read.global, ["a", "C"]);
        assert_eq!(read.local, ["Elixir.B"]);
        for bad in ["", "a", "global:", "globl:a", "global:a,", ",local:b"] {
            assert!(store(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_shown_so_that_iex_takes_them() {
        for (name, text) in [
            ("slave1", ":slave1"),
            ("a@h", ":a@h"),
            ("ok?", ":ok?"),
            ("Elixir.KeyValueStore", "KeyValueStore"),
            ("Elixir.A.B2", "A.B2"),
            ("KeyValueStore", ":KeyValueStore"),
            ("slave1@my-host", ":\"slave1@my-host\""),
            ("a b", ":\"a b\""),
            ("q\"\\#{x}\n", ":\"q\\\"\\\\\\#{x}\\n\""),
            ("1", ":\"1\""),
        ] {
            assert_eq!(shown(name), text);
        }
    }
}
