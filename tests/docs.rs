//! The pages keep their word: the tables of flags, commands and bounds of docs/operations.md, held against `--help` and
//! [`Limits`].

#![cfg(feature = "program")]

mod support;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use kvnode::config::Limits;
use kvnode::program;
use support::kvnode::program;

const OPERATIONS: &str = include_str!("../docs/operations.md");

fn help() -> String {
    let output = Command::new(program()).arg("--help").output().expect("it was built");
    String::from_utf8(output.stdout).expect("it is text")
}

/// The rows of the table behind this line.
#[track_caller]
fn table(heading: &str) -> Vec<&'static str> {
    let behind = OPERATIONS.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
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
        "not in docs/operations.md: {missing:?}; not in --help: {unknown:?}"
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
            "`kvnode {command}` is not in the table of commands of docs/operations.md"
        );
    }
}

fn count(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> =
        digits.as_bytes().rchunks(3).rev().map(|group| str::from_utf8(group).expect("digits")).collect();
    groups.join(",")
}

fn bytes(number: usize) -> String {
    match number {
        number if number.is_multiple_of(1 << 30) => format!("{} GiB", number >> 30),
        number => format!("{} MiB", number >> 20),
    }
}

fn time(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{} s", time.as_secs())
    }
}

#[test]
fn the_table_of_bounds_has_those_of_a_connection_and_their_defaults() {
    // All of them by name: one that is added is of a connection or not.
    let Limits {
        frame_bytes_max,
        spare_bytes_max,
        unfinished_bytes_max,
        unfinished_messages_max,
        outbound_bytes_max,
        output_stall_max,
        handshake_step_duration_max,
        reconnect_pause,
        handshake_duration_max,
        watches_max,
        mailbox_messages_max,
        mailbox_bytes_max,
        held_bytes_max,
        state_bytes_max,
        connection_threads_max,
        handshakes_max,
        handshakes_per_address_max,
        digests_per_sec_max,
        handshake_log_interval,
        peers_max,
        dials_max,
        shutdown_duration_max: _,
        restarts_max: _,
        restart_period: _,
        backoff_first: _,
        backoff_max: _,
    } = Limits::default();
    let mut defaults = [
        ("frame_bytes_max", bytes(frame_bytes_max)),
        ("spare_bytes_max", bytes(spare_bytes_max)),
        ("unfinished_bytes_max", bytes(unfinished_bytes_max)),
        ("unfinished_messages_max", count(unfinished_messages_max)),
        ("outbound_bytes_max", bytes(outbound_bytes_max)),
        ("output_stall_max", time(output_stall_max)),
        ("slave_buffer_bytes_max", bytes(program::Config::SLAVE_BUFFER_BYTES_MAX)),
        ("handshake_step_duration_max", time(handshake_step_duration_max)),
        ("reconnect_pause", time(reconnect_pause)),
        ("handshake_duration_max", time(handshake_duration_max)),
        ("watches_max", count(watches_max)),
        ("mailbox_messages_max", count(mailbox_messages_max)),
        ("mailbox_bytes_max", bytes(mailbox_bytes_max)),
        ("held_bytes_max", bytes(held_bytes_max)),
        ("state_bytes_max", bytes(state_bytes_max)),
        ("connection_threads_max", count(connection_threads_max)),
        ("handshakes_max", count(handshakes_max)),
        ("handshakes_per_address_max", count(handshakes_per_address_max)),
        ("digests_per_sec_max", count(digests_per_sec_max as usize)),
        ("handshake_log_interval", time(handshake_log_interval)),
        ("peers_max", count(peers_max)),
        ("dials_max", count(dials_max)),
    ]
    .map(|(name, default)| (name.to_owned(), default));
    let mut rows: Vec<(String, String)> = table("### Bounds of a connection\n")
        .iter()
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            (cells[1].trim_matches('`').to_owned(), cells[2].to_owned())
        })
        .collect();
    defaults.sort();
    rows.sort();
    assert_eq!(rows, defaults);
}
