//! What a BEAM can do to a process and to a node, done to a GenServer and to kvnode: the two are compared, and every
//! difference is one that the README tells of.

mod support;

use std::collections::BTreeMap;

use support::{BeamNode, BeamOptions, Epmd, KvNode, Otp, on_every_otp_from};

/// Stores that the script may end, each a few times at most.
const SERVERS: usize = 90;

/// Every difference that the comparison may show: what was observed, on which side of the README's list it stands (a
/// part of that list's text), what a GenServer shows, and what kvnode shows.
const DIFFERENCES: &[(&str, &str, &str, &str)] = &[];

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
fn a_store_is_to_a_beam_what_a_gen_server_is_but_for_what_the_readme_says() {
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
        assert!(wrong.is_empty(), "on {}:\n{}", otp.label, wrong.join("\n"));
        assert_eq!(found.len(), DIFFERENCES.len(), "every difference of the table is seen: {found:?}");
    });
}
