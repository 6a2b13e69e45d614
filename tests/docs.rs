//! The pages keep their word: README.md and docs/, held against `--help`, [`Limits`] and the files of the repository.

#![cfg(feature = "program")]

mod support;

#[path = "docs/page.rs"]
mod page;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use kvnode::config::Limits;
use kvnode::kv::{Cast, Request, requests};
use kvnode::program;
use page::{Page, flags, pages, root};
use support::kvnode::program;

const OPERATIONS: &str = include_str!("../docs/operations.md");

/// Flags of other programs that pages name.
const FOREIGN_FLAGS: &[(&str, &[&str])] = &[
    ("cargo", &["--document-private-items", "--locked", "--open", "--path", "--release"]),
    (
        "etcd",
        &[
            "--auto-compaction-retention",
            "--client-cert-auth",
            "--max-request-bytes",
            "--max-txn-ops",
            "--quota-backend-bytes",
        ],
    ),
    ("etcdctl", &["--endpoints"]),
    ("iex", &["--erl", "--hidden"]),
    ("scripts/bench", &["--milliseconds", "--quick", "--rounds"]),
    ("scripts/demo", &["--cluster", "--stay"]),
    ("scripts/simulate", &["--seeds"]),
    ("systemctl", &["--now"]),
];

/// Variables that are no setting of a node.
const OTHER_VARIABLES: &[&str] = &["KVNODE_BEFORE", "KVNODE_CONFIG", "KVNODE_ETCD_PASSWORD"];

fn help_of(command: &str) -> String {
    let mut program = Command::new(program());
    program.args(Some(command).filter(|command| !command.is_empty())).arg("--help");
    let output = program.output().expect("it was built");
    assert!(output.status.success(), "kvnode {command} --help");
    String::from_utf8(output.stdout).expect("it is text")
}

fn help() -> String {
    help_of("")
}

/// The commands that the help lists, and their flags; of none the flags of a node.
fn commands() -> BTreeMap<String, BTreeSet<String>> {
    let help = help();
    let listed = help.split("Commands:\n").nth(1).expect("a list of commands");
    let lines =
        listed.lines().map_while(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    let names = lines.filter_map(|line| line.split_whitespace().next());
    let flags_of = |name: &str| -> BTreeSet<String> {
        let help = if name == "help" { String::new() } else { help_of(name) };
        // "-h, --help" or "--flag <VALUE>", at the beginning of a line.
        let lines =
            help.lines().map(|line| line.trim_start().trim_start_matches("-h, ").trim_start_matches("-V, "));
        lines
            .filter(|line| line.starts_with("--"))
            // Its text may name another one.
            .filter_map(|line| flags(line.split(' ').next()?).into_iter().next())
            .collect()
    };
    let mut found: BTreeMap<String, BTreeSet<String>> =
        names.map(|name| (name.to_owned(), flags_of(name))).collect();
    found.insert(String::new(), flags_of(""));
    assert!(found.len() > 15, "{found:?}");
    found
}

/// The rows of the table behind this line.
#[track_caller]
fn table(heading: &str) -> Vec<&'static str> {
    let behind = OPERATIONS.split(heading).nth(1).unwrap_or_else(|| panic!("no {heading}"));
    let rows =
        behind.lines().skip_while(|line| !line.starts_with('|')).take_while(|line| line.starts_with('|'));
    rows.skip(2).collect()
}

/// What is wrong, all at once.
#[track_caller]
fn assert_none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_readme_is_short_and_names_every_page() {
    let readme = Page::read("README.md");
    let lines = readme.text.lines().count();
    assert!(lines <= 170, "{lines} lines: what only some need belongs into docs/");
    let unnamed = pages().into_iter().skip(1).filter(|page| {
        let path = page.path.to_str().expect("a name in ASCII");
        !readme.links.iter().any(|link| link == path)
    });
    assert_none(&unnamed.map(|page| format!("{:?} is not in README.md", page.path)).collect::<Vec<_>>());
}

/// The requests in the first cell of a row: each name with the number of elements, 0 for an atom.
fn requests_of(cell: &str) -> Vec<(String, usize)> {
    let codes = cell.split('`').skip(1).step_by(2);
    let request = |code: &str| {
        let Some(inner) = code.strip_prefix('{').and_then(|code| code.strip_suffix('}')) else {
            return (code.trim_start_matches(':').to_owned(), 0);
        };
        let name = inner.split(',').next().unwrap_or_default().trim_start_matches(':').to_owned();
        (name, inner.split(',').count())
    };
    codes.map(request).collect()
}

#[test]
fn the_tables_of_requests_have_those_that_a_store_reads() {
    let page = Page::read("docs/requests.md");
    let (mut calls, mut casts) = (Vec::new(), Vec::new());
    for row in page.text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [first, kind, options, ..] = cells[..] else { continue };
        let known = match kind {
            "call" => &mut calls,
            "cast" => &mut casts,
            _ => continue,
        };
        for (name, arity) in requests_of(first) {
            if options.starts_with("`confirm:`") || options.starts_with("`consistency:`") {
                known.push((name.clone(), arity + 1));
            }
            known.push((name, arity));
        }
    }
    let sorted = |mut requests: Vec<(String, usize)>| {
        requests.sort_unstable();
        requests.dedup();
        requests
    };
    let own = |known: &mut dyn Iterator<Item = (&'static str, usize)>| {
        sorted(known.map(|(name, arity)| (name.to_owned(), arity)).collect())
    };
    assert_eq!(sorted(calls), own(&mut Request::known()));
    assert_eq!(sorted(casts), own(&mut Cast::known()));
}

#[test]
fn the_bounds_of_requests_are_those_of_the_page() {
    let page = Page::read("docs/requests.md");
    let bounds = [
        format!("{{:error, {{:too_many, {}}}}}", requests::KEYS_MAX),
        format!("{{:error, {{:too_large, {}}}}}", requests::BYTES_MAX),
        format!("{{:error, {{:too_large, {}}}}}", requests::INTEGER_BYTES_MAX),
        format!("{{:error, {{:too_large, {}}}}}", requests::SUMS_BYTES_MAX),
        format!("{{:error, {{:too_large, {}}}}}", requests::PATTERN_BYTES_MAX),
    ];
    for bound in bounds {
        assert!(page.code.contains(&bound), "{bound}");
    }
}

#[test]
fn the_readme_names_the_rust_version_that_cargo_demands() {
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("a readable file");
    let version = cargo.split("rust-version = \"").nth(1).and_then(|rest| rest.split('"').next());
    let wanted = format!("Rust {} or later", version.expect("a version"));
    assert!(Page::read("README.md").text.contains(&wanted), "{wanted}");
}

#[test]
fn the_table_of_features_has_those_of_cargo() {
    let cargo = fs::read_to_string(root().join("Cargo.toml")).expect("a readable file");
    let section = cargo.split("\n[features]\n").nth(1).and_then(|rest| rest.split("\n[").next());
    let names =
        section.expect("features").lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name);
    let features: BTreeSet<&str> =
        names.filter(|name| !name.starts_with("default") && !name.starts_with('#')).collect();
    // For the simulation alone.
    let features: BTreeSet<&str> = features.into_iter().filter(|name| *name != "planted").collect();
    let page = Page::read("docs/library.md");
    let rows = page.text.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    assert_eq!(rows.collect::<BTreeSet<&str>>(), features);
}

#[test]
fn the_machines_of_replication_are_drawn_as_in_the_code() {
    let page = Page::read("docs/replication.md");
    for machine in ["src/replica/downstream/mod.rs", "src/replica/upstream/mod.rs"] {
        let code = fs::read_to_string(root().join(machine)).expect("a readable file");
        let drawing = code.split("//! ```text\n").nth(1).and_then(|rest| rest.split("//! ```\n").next());
        let lines = drawing.expect("a drawing").lines().map(|line| line.trim_start_matches("//!"));
        let drawing: Vec<&str> = lines.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
        assert!(drawing.len() > 5, "{machine}: {drawing:?}");
        assert!(page.text.contains(&drawing.join("\n")), "{machine} is drawn otherwise on {:?}", page.path);
    }
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let mut all = pages();
    all.extend(["CHANGELOG.md", "scripts/kvnode.livemd"].map(Page::read));
    let mut wrong = Vec::new();
    for page in &all {
        let folder = page.path.parent().unwrap_or(Path::new(""));
        for link in page.links.iter().filter(|link| !link.contains("://")) {
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
            if !root().join(&path).exists() {
                wrong.push(format!("{:?} links to {link}: no such file", page.path));
            } else if !anchor.is_empty() && !Page::read(&path).anchors.contains(anchor) {
                wrong.push(format!("{:?} links to {link}: no such heading", page.path));
            }
        }
    }
    assert_none(&wrong);
}

#[test]
fn every_flag_that_a_page_names_exists() {
    let commands = commands();
    let known: BTreeSet<&str> = commands.values().flatten().map(String::as_str).collect();
    let foreign: BTreeSet<&str> = FOREIGN_FLAGS.iter().flat_map(|(_, flags)| *flags).copied().collect();
    let mut wrong = Vec::new();
    let mut named = BTreeSet::new();
    for page in pages() {
        for flag in flags(&page.text) {
            if !known.contains(flag.as_str()) && !foreign.contains(flag.as_str()) {
                wrong.push(format!("{:?} names {flag}, which no --help has", page.path));
            }
            named.insert(flag);
        }
    }
    wrong.extend(
        foreign
            .difference(&known)
            .filter(|flag| !named.contains(**flag))
            .map(|flag| format!("no page names {flag} any more: take it out of FOREIGN_FLAGS")),
    );
    wrong.extend(foreign.intersection(&known).map(|flag| format!("{flag} is kvnode's own")));
    assert_none(&wrong);
}

#[test]
fn every_command_that_a_page_names_exists_and_has_the_flags_beside_it() {
    let commands = commands();
    let mut wrong = Vec::new();
    let mut seen = BTreeSet::new();
    for page in pages() {
        let typed = page.commands().filter_map(|command| command.strip_prefix("kvnode "));
        for words in typed {
            let first = words.split_whitespace().next().unwrap_or_default();
            // `kvnode --sname …` starts a node; COMMAND stands for any.
            let name = if first.starts_with(|c: char| c.is_ascii_lowercase()) { first } else { "" };
            let Some(its) = commands.get(name) else {
                wrong.push(format!("{:?} names `kvnode {words}`: no such command", page.path));
                continue;
            };
            seen.insert(name.to_owned());
            let strange = flags(words).into_iter().filter(|flag| !its.contains(flag));
            wrong.extend(strange.map(|flag| format!("{:?}: `kvnode {words}` has no {flag}", page.path)));
        }
    }
    assert!(seen.contains("") && seen.len() > 8, "commands are found in the pages: {seen:?}");
    assert_none(&wrong);
}

#[test]
fn every_variable_that_a_page_names_is_a_setting() {
    let commands = commands();
    let settings: BTreeSet<String> = commands[""]
        .iter()
        .map(|flag| format!("KVNODE{}", flag[1..].replace('-', "_").to_uppercase()))
        .collect();
    assert!(settings.contains("KVNODE_NET_TICKTIME"), "{settings:?}");
    let mut wrong = Vec::new();
    for page in pages() {
        let words = page.text.split(|c: char| !(c.is_ascii_uppercase() || c == '_'));
        let variables = words.filter(|word| word.starts_with("KVNODE_") && word.len() > "KVNODE_".len());
        let strange = variables.filter(|word| !settings.contains(*word) && !OTHER_VARIABLES.contains(word));
        wrong.extend(strange.map(|word| format!("{:?} names {word}: no such setting", page.path)));
    }
    assert_none(&wrong);
}

#[test]
fn the_settings_file_of_the_page_is_taken() {
    let block = OPERATIONS.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next());
    let folder = tempfile::tempdir().expect("a scratch folder");
    let file = folder.path().join("kvnode.toml");
    fs::write(&file, block.expect("a block")).expect("it can be written");
    let output =
        Command::new(program()).arg("config").arg("--config").arg(&file).output().expect("it was built");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_path_of_the_repository_that_a_page_names_exists() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        let words = page.code.iter().flat_map(|code| {
            code.split(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '*' | '-')))
        });
        let ours = ["scripts/", "src/", "tests/", "docs/", "examples/"];
        let paths = words.filter(|word| ours.iter().any(|folder| word.starts_with(folder)));
        for path in paths.map(|path| path.trim_end_matches(['.', '/'])) {
            count += 1;
            // Of *.ex the folder.
            let there = path.split('*').next().unwrap_or(path);
            if !root().join(there).exists() {
                wrong.push(format!("{:?} names {path}, which is not there", page.path));
            }
        }
    }
    assert!(count > 20, "paths are found in the pages: {count}");
    assert_none(&wrong);
}

#[test]
fn every_metric_that_a_page_names_is_served() {
    let metrics = sources().into_iter().filter(|source| source.contains("# HELP")).collect::<String>();
    let mut wrong = Vec::new();
    for page in pages() {
        let named = page.code.iter().filter(|code| {
            code.starts_with("kvnode_") && code.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
        });
        let strange = named.filter(|name| !metrics.contains(&format!("\"{name}\"")));
        wrong.extend(strange.map(|name| format!("{:?} names {name}, which is not served", page.path)));
    }
    assert_none(&wrong);
}

/// All texts of src/.
fn sources() -> Vec<String> {
    let mut folders = vec![root().join("src")];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a readable folder") {
            let path = entry.expect("a readable folder").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(fs::read_to_string(path).expect("a readable file"));
            }
        }
    }
    found
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
    let rows = table("## From the shell\n").join("\n");
    for command in commands().keys().filter(|command| !command.is_empty()) {
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

/// All limits with their defaults, those of a connection first.
fn limits() -> [Vec<(&'static str, String)>; 2] {
    let limits = Limits::default();
    let of_a_connection = vec![
        ("frame_bytes_max", bytes(limits.frame_bytes_max)),
        ("spare_bytes_max", bytes(limits.spare_bytes_max)),
        ("unfinished_bytes_max", bytes(limits.unfinished_bytes_max)),
        ("unfinished_messages_max", count(limits.unfinished_messages_max)),
        ("outbound_bytes_max", bytes(limits.outbound_bytes_max)),
        ("output_stall_max", time(limits.output_stall_max)),
        ("handshake_step_duration_max", time(limits.handshake_step_duration_max)),
        ("reconnect_pause", time(limits.reconnect_pause)),
        ("handshake_duration_max", time(limits.handshake_duration_max)),
        ("watches_max", count(limits.watches_max)),
        ("mailbox_messages_max", count(limits.mailbox_messages_max)),
        ("mailbox_bytes_max", bytes(limits.mailbox_bytes_max)),
        ("held_bytes_max", bytes(limits.held_bytes_max)),
        ("state_bytes_max", bytes(limits.state_bytes_max)),
        ("connection_threads_max", count(limits.connection_threads_max)),
        ("handshakes_max", count(limits.handshakes_max)),
        ("handshakes_per_address_max", count(limits.handshakes_per_address_max)),
        ("digests_per_sec_max", count(limits.digests_per_sec_max as usize)),
        ("handshake_log_interval", time(limits.handshake_log_interval)),
        ("peers_max", count(limits.peers_max)),
        ("dials_max", count(limits.dials_max)),
    ];
    let others = vec![
        ("shutdown_duration_max", time(limits.shutdown_duration_max)),
        ("settle_duration_max", time(limits.settle_duration_max)),
        ("restarts_max", count(limits.restarts_max)),
        ("restart_period", time(limits.restart_period)),
        ("backoff_first", time(limits.backoff_first)),
        ("backoff_max", time(limits.backoff_max)),
    ];
    [of_a_connection, others]
}

#[test]
fn the_docs_of_each_limit_say_its_default() {
    let code = fs::read_to_string(root().join("src/config.rs")).expect("a readable file");
    let code = code.split("pub struct Limits {\n").nth(1).and_then(|rest| rest.split("\n}\n").next());
    let mut docs = BTreeMap::new();
    let mut said = String::new();
    for line in code.expect("the struct").lines().map(str::trim) {
        match line.strip_prefix("///") {
            Some(line) => said.push_str(line),
            None => {
                let name = line.strip_prefix("pub ").and_then(|line| line.split(':').next());
                docs.insert(name.expect("a field").to_owned(), std::mem::take(&mut said));
            }
        }
    }
    let [of_a_connection, others] = limits();
    let defaults: BTreeMap<_, _> = of_a_connection.into_iter().chain(others).collect();
    assert!(docs.keys().map(String::as_str).eq(defaults.keys().copied()), "{docs:?}");
    for (name, default) in defaults {
        let said = &docs[name];
        let is_said = [".", ","].iter().any(|end| said.contains(&format!("default is {default}{end}")));
        assert!(is_said, "{name} is {default}: {said}");
    }
}

#[test]
fn the_table_of_bounds_has_those_of_a_connection_and_their_defaults() {
    let [mut defaults, _] = limits();
    defaults.push(("slave_buffer_bytes_max", bytes(program::Config::SLAVE_BUFFER_BYTES_MAX)));
    let mut defaults: Vec<(String, String)> =
        defaults.into_iter().map(|(name, default)| (name.to_owned(), default)).collect();
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
