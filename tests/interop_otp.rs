//! What a BEAM can do to a process and to a node, done to a GenServer and to kvnode: the two are compared, and every
//! difference is one that docs/elixir.md tells of.

#![cfg(feature = "program")]

mod support;

use std::collections::BTreeMap;

use support::{BeamNode, BeamOptions, Epmd, KvNode, Otp, on_every_otp_from};

/// Stores that the script may end, each a few times at most.
const SERVERS: usize = 90;

/// One difference: what was observed, the entry of docs/elixir.md that tells of it, what a GenServer shows, and what
/// kvnode shows.
type Difference = (&'static str, &'static str, &'static str, &'static str);

/// Every difference that the comparison may show, and does.
const DIFFERENCES: &[Difference] = &[
    ("a call that it does not know", "Unknown requests", "{:function_clause, nil}", "{:bad_call, 1}"),
    ("a cast that it does not know", "Unknown requests", ":ended", ":lives"),
    (
        "replace_state",
        "Foreign code",
        "%{data: %{kept: 1}, more: 1, slaves: []}",
        "{ErlangError, \"Erlang error: {:callback_failed, {:gen_server, :system_replace_state}, {:error, :undef}}\"}",
    ),
    ("log on", "Debug functions", "2", "0"),
    (
        "statistics on",
        "Debug functions",
        "[:start_time, :current_time, :reductions, :messages_in, :messages_out]",
        "{:ok, :no_statistics}",
    ),
    (
        "get_state of a large state",
        "Large states",
        "{[:data, :slaves], []}",
        "{[:bytes, :entries, :slaves], []}",
    ),
    ("the node is seen", "A hidden node", "{true, false}", "{true, true}"),
    ("hidden nodes monitored", "A hidden node", "[]", "[:nodedown, :nodeup]"),
    (
        "nodes monitored",
        "A hidden node",
        "{{:nodedown, :the_node, [node_type: :visible]}, {:nodeup, :the_node, [node_type: :visible]}, []}",
        "{{:nodedown, :the_node, [node_type: :hidden]}, {:nodeup, :the_node, [node_type: :hidden]}, []}",
    ),
];

/// Entries of the list in docs/elixir.md that no single caller can observe.
const NOT_OBSERVED: &[&str] =
    &["Large values", "Locks", "Several callers at once", "Restarts", "Stores started by rpc"];

/// What was observed, by name.
type Observations = BTreeMap<String, String>;

fn observe(otp: &Otp, epmd: &Epmd, there: &str) -> Observations {
    let options = |name: &str| {
        // In the comparison a lost connection is to be that one connection's loss, also where all nodes are visible.
        BeamOptions::new(name).erl("-kernel prevent_overlapping_partitions false")
    };
    let client = BeamNode::start(otp, epmd, options("client"));
    let third = BeamNode::start(otp, epmd, options("third"));
    client.ping(third.name());
    client.ping(there);
    third.ping(there);
    client.wait_for_global("kv");
    let lines = client.run(&format!("KvNodeTest.Compare.run(:\"{there}\", :\"{}\")", third.name()));
    let lines = text_of_hex(lines.trim_matches('"'));
    lines
        .lines()
        .map(|line| {
            let (what, observation) = line.split_once(" = ").expect("an observation has a name");
            (what.to_owned(), observation.to_owned())
        })
        .collect()
}

fn text_of_hex(hex: &str) -> String {
    let pair =
        |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("the script sends hexadecimal digits");
    String::from_utf8((0..hex.len()).step_by(2).map(pair).collect()).expect("inspect makes UTF-8")
}

fn of_gen_servers(otp: &Otp) -> Observations {
    let epmd = Epmd::start();
    let options = BeamOptions::new("there").erl("-kernel prevent_overlapping_partitions false");
    let there = BeamNode::start(otp, &epmd, options);
    there.check(&format!("KvNodeTest.Compare.start_servers({SERVERS})"), ":ok");
    observe(otp, &epmd, there.name())
}

fn of_kvnode(otp: &Otp) -> Observations {
    let epmd = Epmd::start();
    let stores: Vec<String> = (1..=SERVERS).map(|number| format!("--local s{number}")).collect();
    let args = format!("--global kv --local KeyValueStore {}", stores.join(" "));
    let there = KvNode::start(&epmd, "there", &args);
    observe(otp, &epmd, there.name())
}

#[test]
fn a_store_is_to_a_beam_what_a_gen_server_is_but_for_what_the_docs_say() {
    let mut failures = Vec::new();
    on_every_otp_from(25, |otp| {
        let (gen_server, kvnode) = (of_gen_servers(otp), of_kvnode(otp));
        let names = |observations: &Observations| observations.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&gen_server), names(&kvnode));
        let mut found = Vec::new();
        let mut wrong = Vec::new();
        for (what, expected) in &gen_server {
            let seen = &kvnode[what];
            let known = DIFFERENCES.iter().find(|(known, ..)| known == what);
            match known {
                Some((_, _, theirs, ours)) if expected == theirs && seen == ours => found.push(what.as_str()),
                None if expected == seen => {}
                _ => wrong.push(format!("{what}\n  GenServer: {expected}\n  kvnode:    {seen}")),
            }
        }
        if !wrong.is_empty() {
            failures.push(format!("on {}:\n{}", otp.label, wrong.join("\n")));
        } else if found.len() != DIFFERENCES.len() {
            failures.push(format!("on {}: differences of the table are not seen, only {found:?}", otp.label));
        }
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_docs_list_exactly_the_differences_that_are_seen() {
    let page = include_str!("../docs/elixir.md");
    let section = page.split("\n## How it differs from a GenServer\n").nth(1).expect("the section");
    let section = section.split("\n## ").next().expect("its text");
    let mut listed: Vec<&str> = section
        .lines()
        .filter_map(|line| line.strip_prefix("- **")?.split_once(".** ").map(|(name, _)| name))
        .collect();
    listed.sort_unstable();
    let mut wanted: Vec<&str> =
        DIFFERENCES.iter().map(|(_, entry, ..)| *entry).chain(NOT_OBSERVED.iter().copied()).collect();
    wanted.sort_unstable();
    wanted.dedup();
    assert_eq!(listed, wanted);
}
