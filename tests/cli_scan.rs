//! `kvnode scan`, `count`, `incr`, `cas`, `clear`, `put --new` and `bench`, as a person types them.

#![cfg(feature = "program")]

mod support;

use std::io::{BufRead, BufReader};

use support::person::Person;
use support::{BeamNode, Epmd, KvNode, Otp, at_host, wait_until};

#[test]
fn entries_are_printed_a_line_each_and_counted() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "");
    assert_eq!((person.gets(&["count"]), person.gets(&["scan"])), ("0\n".into(), String::new()));
    for (key, value) in [("{:user, 7}", "%{name: \"Manolito\"}"), ("{:user, 9}", "nil"), ("\"a\"", "[1 | 2]")]
    {
        assert_eq!(person.gets(&["put", key, value]), ":ok\n");
    }
    let sorted = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let all = ["{\"a\", [1 | 2]}", "{{:user, 7}, %{name: \"Manolito\"}}", "{{:user, 9}, nil}"];
    assert_eq!(sorted(person.gets(&["scan"])), all);
    assert_eq!(
        sorted(person.gets(&["scan", "--keys", "--match", "{:user, :_}"])),
        ["{:user, 7}", "{:user, 9}"]
    );
    assert_eq!(person.gets(&["scan", "--match", "\"a\"", "--to", "global:one"]), "{\"a\", [1 | 2]}\n");
    assert_eq!(sorted(person.gets(&["scan", "--limit", "2"])).len(), 2);
    assert_eq!(
        person.gets(&["scan", "--json", "--match", "{:_, 9}"]),
        "{\"key\":{\"term\":\"{:user, 9}\",\"value\":[\"user\",9]},\"value\":{\"term\":\"nil\",\"value\":null}}\n"
    );
    assert_eq!(
        person.gets(&["scan", "--json", "--keys", "--match", "\"a\""]),
        "{\"key\":{\"term\":\"\\\"a\\\"\",\"value\":\"a\"}}\n"
    );
    assert_eq!(person.gets(&["count", "--json"]), "{\"term\":\"3\",\"value\":3}\n");
    person.fails(&["scan", "--match", "{:user, x}"], 2, &["PATTERN is not a term: column 9"]);
    for pattern in [":\"$1\"", "{:a, %{:_ => 1}}"] {
        person.fails(
            &["scan", "--match", pattern],
            2,
            &["a variable that there is not", ":_ is the only one"],
        );
    }
    person.fails(&["scan", "--to", "global:nobody"], 3, &["nobody has the name {:global, :nobody}"]);
}

#[test]
fn entries_are_printed_in_order_where_one_is_asked_for() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "--ordered");
    let _two = KvNode::start(&epmd, "two", "");
    for key in ["{:user, 7}", "12", "{:user, 9}", "3", "{:user}", "10.0", "\"ab\""] {
        assert_eq!(person.gets(&["put", key, ":v", "--node", &at_host("one")]), ":ok\n");
    }
    let one = at_host("one");
    let keys = |flags: &[&str]| {
        let flags = [&["scan", "--keys", "--node", &one], flags].concat();
        person.gets(&flags).replace('\n', " ")
    };
    assert_eq!(keys(&["--reverse"]), "\"ab\" {:user, 9} {:user, 7} {:user} 12 10.0 3 ");
    assert_eq!(keys(&["--from", "10", "--up-to", "12"]), "10.0 12 ");
    assert_eq!(keys(&["--prefix", "{:user}", "--reverse", "--limit", "2"]), "{:user, 9} {:user, 7} ");
    assert_eq!(keys(&["--from", "-5", "--limit", "1"]), "3 ");
    person.fails(&["scan", "--prefix", ":user"], 2, &["no tuple, no list and no binary"]);
    let said = person.types(&["scan", "--prefix", "{}", "--from", "1"]);
    assert!(said.code == 2 && said.stderr.contains("cannot be used with"), "{said:?}");
    person.fails(
        &["scan", "--reverse", "--node", &at_host("two"), "--to", "global:two"],
        5,
        &["the store has no order of keys", "--ordered"],
    );
}

#[test]
fn a_large_store_is_printed_page_by_page_and_no_further_than_somebody_reads() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let one = KvNode::start(&epmd, "one", "");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "filler");
    beam.ping(one.name());
    let fill = "for n <- 1..20, do: :ok = GenServer.call({:global, :one}, {:put_many, for(m <- 1..1_000, do: {{n, m}, \
                String.duplicate(\"v\", 1_000)})})";
    beam.run(fill);
    let mut keys: Vec<String> = person.gets(&["scan", "--keys"]).lines().map(str::to_owned).collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 20_000);
    assert_eq!(person.gets(&["scan", "--limit", "1234"]).lines().count(), 1234);
    // As `head` does.
    let mut child = person.command(&["scan"]).spawn().expect("it was built");
    let mut line = String::new();
    let mut out = BufReader::new(child.stdout.take().expect("it is piped"));
    out.read_line(&mut line).expect("a line");
    drop(out);
    assert!(child.wait().expect("it is our child").success() && line.starts_with("{{"), "{line}");
}

#[test]
fn keys_are_changed_where_they_have_what_is_expected() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "");
    let refused = |args: &[&str], stdout: &str, part: &str| {
        let said = person.types(args);
        assert_eq!((said.code, said.text()), (5, format!("{stdout}\n")), "{args:?}: {said:?}");
        assert!(said.stderr.contains(part), "{said:?}");
    };
    assert_eq!(person.gets(&["put", ":k", "1", "--new"]), "true\n");
    refused(&["put", ":k", "2", "--new"], "false", "nothing was changed");
    assert_eq!(person.gets(&["put", ":short", "1", "--new", "--ttl", "2h"]), "true\n");
    assert_eq!(person.gets(&["incr", ":k"]), "2\n");
    assert_eq!(person.gets(&["incr", ":k", "-12"]), "-10\n");
    assert_eq!(person.gets(&["incr", ":n", "--initial", "40", "2", "--ttl", "1h"]), "42\n");
    refused(&["incr", ":k", "1.5"], "{:error, :not_an_integer}", "is no integer");
    assert_eq!(person.gets(&["cas", ":light", ":green", "--absent"]), ":ok\n");
    assert_eq!(person.gets(&["cas", ":light", ":red", "--value", ":green", "--ttl", "1h"]), ":ok\n");
    let revision = person.gets(&["call", "{:fetch_revision, :light}"]);
    let revision = revision.trim_end_matches("}\n").rsplit(' ').next().expect("a number");
    assert_eq!(person.gets(&["cas", ":light", "-1", "--revision", revision]), ":ok\n");
    let conflict = person.types(&["cas", ":light", ":red", "--revision", revision]);
    assert_eq!(conflict.code, 5);
    assert!(conflict.text().starts_with("{:error, {:conflict, {:value, -1, "), "{conflict:?}");
    refused(
        &["cas", ":none", "1", "--value", "1"],
        "{:error, {:conflict, :absent}}",
        "not what was expected",
    );
    for args in [&["cas", ":k", "1"][..], &["cas", ":k", "1", "--absent", "--revision", "1"]] {
        let said = person.types(args);
        assert_eq!(said.code, 2, "{said:?}");
        assert!(said.stderr.contains("--value <TERM>|--revision <N>|--absent"), "{said:?}");
    }
}

#[test]
fn a_server_that_would_end_by_it_is_not_asked() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run("{:ok, store} = KeyValueStore.start_link(%{data: %{a: 1}}); Process.unlink(store)");
    let node = at_host("beam");
    for args in [
        &["scan"][..],
        &["count"],
        &["incr", ":a"],
        &["cas", ":a", "1", "--absent"],
        &["put", ":a", "2", "--new"],
        &["put", ":a", "2", "--ttl", "1s"],
    ] {
        let args: Vec<&str> = args.iter().copied().chain(["--node", &node]).collect();
        person.fails(&args, 5, &["is no kvnode", "it was not asked"]);
    }
    beam.check("Process.alive?(store)", "true");
}

#[test]
fn any_server_of_the_protocol_is_measured_and_keeps_nothing_of_it() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let _one = KvNode::start(&epmd, "one", "");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run("{:ok, store} = KeyValueStore.start_link(%{data: %{a: 1}}); Process.unlink(store)");
    let node = at_host("beam");
    for node in ["one", &node] {
        let load =
            ["bench", "--time", "300ms", "--keys", "50", "--callers", "8", "--reads", "50", "--node", node];
        let text = person.gets(&load);
        for part in ["8 callers, 50 % gets, 50 keys", "p99.9", "\nget ", "\nput ", "█"] {
            assert!(text.contains(part), "{text}");
        }
        let json = person.gets(&[&load[..], &["--json"]].concat());
        let json: serde_json::Value = serde_json::from_str(&json).expect("it is JSON");
        for kind in ["get", "put"] {
            let of = |field: &str| json[kind][field].as_f64().expect("a number");
            assert!(
                of("calls") > 0.0 && of("p50_us") <= of("p99_us") && of("p99_us") <= of("max_us"),
                "{json}"
            );
        }
    }
    assert_eq!(person.gets(&["count", "--node", "one"]), "0\n");
    beam.check(":sys.get_state(store).data", "%{a: 1}");
    // ^C ends it, and it cleans up.
    let child = person.command(&["bench", "--time", "1h", "--node", "one"]).spawn().expect("it was built");
    let pid = rustix::process::Pid::from_child(&child);
    wait_until("it has begun", || person.gets(&["count", "--node", "one"]) == "10000\n");
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is our child");
    let output = child.wait_with_output().expect("it is our child");
    assert!(
        output.status.success() && output.stdout.starts_with(b"0.") || output.stdout.starts_with(b"1."),
        "{output:?}"
    );
    assert_eq!(person.gets(&["count", "--node", "one"]), "0\n");
    person.fails(
        &["bench", "--to", "global:nobody", "--node", "one"],
        3,
        &["nobody has the name {:global, :nobody}"],
    );
}

#[test]
fn all_keys_are_deleted_by_a_person_that_says_yes() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let slave = KvNode::start(&epmd, "slave", "");
    let args = format!("--connect {} --slave global:slave --confirm-timeout 1500", slave.name());
    let one = KvNode::start(&epmd, "one", &args);
    let asks = |args: &[&'static str]| [args, &["--node", "one", "--to", "global:one"]].concat();
    for key in [":a", ":b", "{:c, 1}"] {
        assert_eq!(person.gets(&asks(&["put", key, "1"])), ":ok\n");
    }
    person.fails(&asks(&["clear"]), 2, &["nothing was deleted", "--yes", "3 keys"]);
    assert_eq!(person.gets(&asks(&["count"])), "3\n");
    one.wait_for_log(&["slave found", "slave"]);
    // Its slave has none of them by then.
    assert_eq!(person.gets(&asks(&["clear", "--yes", "--confirm", "1"])), ":ok\n");
    assert_eq!(person.gets(&asks(&["count"])), "0\n");
    let at_slave = ["--node", "slave", "--to", "global:slave"];
    assert_eq!(person.gets(&[&["count"][..], &at_slave].concat()), "0\n");
    assert_eq!(person.gets(&asks(&["clear", "--yes", "--json"])), "{\"term\":\":ok\",\"value\":\"ok\"}\n");
    // Nobody has it in time; the write stays.
    assert_eq!(person.gets(&asks(&["put", ":a", "1"])), ":ok\n");
    let said = person.types(&asks(&["clear", "--yes", "--confirm", "2"]));
    assert_eq!((said.code, said.text().trim()), (5, "{:error, {:unconfirmed, 1, 2}}"), "{said:?}");
    assert!(said.stderr.contains("the write stays"), "{said:?}");
    assert_eq!(person.gets(&asks(&["count"])), "0\n");
    // A slave is not emptied by its callers.
    let said = person.types(&[&["clear", "--yes"][..], &at_slave].concat());
    assert_eq!(said.code, 5, "{said:?}");
    assert!(said.text().starts_with("{:error, {:slave_of, ") && said.stderr.contains("slave_of"), "{said:?}");
    person.fails(&["clear", "--yes", "--node", "one", "--to", "local:nobody"], 3, &["nobody has the name"]);
}

#[test]
fn an_elixir_server_is_not_asked_to_delete_all_its_keys() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run("{:ok, _} = KeyValueStore.start_link(); :ok = GenServer.call(KeyValueStore, {:put, :a, 1})");
    for args in [&["clear"][..], &["clear", "--yes"]] {
        person.fails(&[args, &["--node", "beam"]].concat(), 5, &["no kvnode", "it was not asked"]);
    }
    beam.check("GenServer.call(KeyValueStore, {:get, :a})", "1");
}
