//! The README's tables of flags and commands, held against `--help`.

mod support;

use std::collections::BTreeSet;
use std::process::Command;

use support::kvnode::program;

const README: &str = include_str!("../README.md");

fn help() -> String {
    let output = Command::new(program()).arg("--help").output().expect("it was built");
    String::from_utf8(output.stdout).expect("it is text")
}

/// The rows of the table behind this line.
#[track_caller]
fn table(heading: &str) -> Vec<&'static str> {
    let behind = README.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let rows =
        behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).collect()
}

/// `--flag`s in a text.
fn flags(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
    words.filter(|word| word.starts_with("--") && word.len() > 2).map(str::to_owned).collect()
}

#[test]
fn the_table_of_flags_has_those_of_the_help_and_no_others() {
    let help = help();
    // Six blanks stand before a flag of its own; other texts, and those that go on, have fewer or more.
    let known: BTreeSet<String> = help
        .lines()
        .filter_map(|line| line.strip_prefix("      --"))
        .filter_map(|rest| rest.split([' ', ',']).next())
        .map(|name| format!("--{name}"))
        .collect();
    assert!(known.contains("--sname") && known.len() > 20, "{known:?}");
    let named =
        table("## Flags\n").iter().flat_map(|row| flags(row.split('|').nth(1).unwrap_or_default())).collect();
    let missing: Vec<&String> = known.difference(&named).collect();
    let unknown: Vec<&String> = named.difference(&known).collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "not in the README: {missing:?}; not in --help: {unknown:?}"
    );
}

#[test]
fn the_table_of_commands_has_those_of_the_help() {
    let help = help();
    let listed = help.split("Commands:\n").nth(1).expect("a list of commands");
    let commands =
        listed.lines().map_while(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let rows = table("## From the shell\n").join("\n");
    for command in commands.filter_map(|line| line.split_whitespace().next()) {
        assert!(
            rows.contains(&format!("`{command}")) || rows.contains(&format!(", `{command}")),
            "`kvnode {command}` is not in the README's table of commands"
        );
    }
}
