//! `kvnode watch`, as a person types it.

#![cfg(feature = "program")]

mod support;

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout};

use rustix::process::{Pid, Signal, kill_process};
use support::person::Person;
use support::{BeamNode, Epmd, KvNode, Otp};

/// A watch that goes on, and what it prints.
struct Watching {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Watching {
    fn begin(person: &Person<'_>, args: &[&str]) -> Self {
        let mut child = person.command(args).spawn().expect("it was built");
        let out = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { child, out }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// Ctrl-C is typed: gives what it said to stderr.
    fn end(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it is there");
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).expect("text");
        assert_eq!(rest, "");
        let mut said = String::new();
        self.child.stderr.take().expect("it is piped").read_to_string(&mut said).expect("text");
        assert!(self.child.wait().expect("it is our child").success());
        said
    }
}

fn number(line: &str) -> u64 {
    let digits = line.trim_start_matches('{').split(',').next().unwrap_or_default();
    digits.parse().unwrap_or_else(|_| panic!("{line:?}"))
}

/// A reader that takes nothing for a while, and then all.
#[test]
fn what_is_there_is_printed_once_however_late_it_is_read() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let one = KvNode::start(&epmd, "one", "");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "filler");
    beam.ping(one.name());
    beam.run(
        "for n <- 1..10, do: :ok = GenServer.call({:global, :one}, {:put_many, for(m <- 1..10_000, do: {{n, m}, m})})",
    );
    let mut watch = Watching::begin(&person, &["watch", "--initial", "--node", "one"]);
    let is_shown = "GenServer.call({:global, :one}, {:put, :last, 1}) == :ok and \
                    match?({:ok, 1}, GenServer.call({:global, :one}, {:fetch, :last}))";
    while !person.gets(&["top", "--json", "--node", "one"]).contains("\"watchers\":1") {}
    beam.check(is_shown, "true");
    let mut shown = HashSet::new();
    let is_last = |line: &str| line.ends_with(", :put, :last, 1}");
    let (mut current, mut last) = (0, 0);
    while current == 0 || last == 0 {
        let line = watch.line();
        current += usize::from(line.ends_with(", :current}"));
        last += usize::from(is_last(&line));
        let entry = line.split_once(", ").expect("a number").1.to_owned();
        assert!(shown.insert(entry), "twice: {line}");
    }
    assert_eq!(shown.len(), 100_002);
    assert_eq!(watch.end(), "");
}

#[test]
fn changes_are_printed_as_they_come_and_go_on_when_the_store_was_away() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let dir = tempfile::tempdir().expect("a folder");
    let args = format!("--data-dir {}", dir.path().display());
    let one = KvNode::start(&epmd, "one", &args);
    assert_eq!(person.gets(&["put", "{:user, 1}", "[1]"]), ":ok\n");
    assert_eq!(person.gets(&["put", ":other", "1"]), ":ok\n");
    let mut watch =
        Watching::begin(&person, &["watch", "--initial", "--match", "{:user, :_}", "--node", "one"]);
    let shown = watch.line();
    assert!(shown.ends_with(", :put, {:user, 1}, [1]}"), "{shown}");
    assert!(watch.line().ends_with(", :current}"));
    assert_eq!(person.gets(&["put", "{:user, 2}", "%{a: 1.0}"]), ":ok\n");
    assert!(watch.line().ends_with(", :put, {:user, 2}, %{a: 1.0}}"));
    assert_eq!(person.gets(&["delete", "{:user, 1}"]), ":ok\n");
    let last = watch.line();
    assert!(last.ends_with(", :delete, {:user, 1}}"), "{last}");
    one.kill(&epmd);
    let _one = KvNode::start(&epmd, "one", &args);
    // What is written before it is watched again is not known to a store that was started.
    while !person.gets(&["top", "--json", "--node", "one"]).contains("\"watchers\":1") {}
    assert_eq!(person.gets(&["put", "{:user, 3}", "3"]), ":ok\n");
    let next = watch.line();
    assert!(next.ends_with(", :put, {:user, 3}, 3}") && number(&next) == number(&last) + 1, "{last} {next}");
    let said = watch.end();
    assert!(said.contains(&format!("watched again from {}", number(&last))), "{said}");
    // Behind a number, and for scripts.
    let from = (number(&next) - 1).to_string();
    let mut again =
        Watching::begin(&person, &["watch", "--json", "--no-values", "--from", &from, "--node", "one"]);
    person.gets(&["delete", ":other"]);
    let lines = [again.line(), again.line()];
    let seq = number(&next);
    assert_eq!(
        lines,
        [
            format!(
                "{{\"event\":\"put\",\"key\":{{\"term\":\"{{:user, 3}}\",\"value\":[\"user\",3]}},\"seq\":{seq}}}"
            ),
            format!(
                "{{\"event\":\"delete\",\"key\":{{\"term\":\":other\",\"value\":\"other\"}},\"seq\":{}}}",
                seq + 1
            ),
        ]
    );
    assert_eq!(again.end(), "");
    person.fails(&["watch", "--from", "1", "--node", "one"], 5, &["--initial begins with what is there"]);
    person.fails(&["watch", "--match", ":\"$1\"", "--node", "one"], 2, &["a variable that there is not"]);
    let mut begun = Watching::begin(
        &person,
        &["watch", "--initial", "--no-values", "--prefix", "{:user}", "--node", "one"],
    );
    let mut shown =
        [begun.line(), begun.line()].map(|line| line.split_once(", ").expect("a number").1.to_owned());
    shown.sort();
    assert_eq!(shown, [":put, {:user, 2}}", ":put, {:user, 3}}"]);
    assert!(begun.line().ends_with(", :current}"));
    assert_eq!(begun.end(), "");
    person.fails(&["watch", "--prefix", "1", "--node", "one"], 2, &["nothing begins with it"]);
    person.fails(&["watch", "--to", "global:nobody", "--node", "one"], 3, &["nobody has the name"]);
}
