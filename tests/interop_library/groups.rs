//! Groups of servers beside OTP's own supervisor: the same ends give the same starts and stops, in the same order.

use std::sync::Arc;

use kvnode::etf::OwnedTerm;
use kvnode::{Context, Never, Node, ReplyTo, Restart, Server, ServerName, Strategy, block_on};
use parking_lot::Mutex;

use crate::support::{BeamNode, Epmd, Otp, Running, on_every_otp, wait_until};

/// Tells of its end, unless it is killed.
struct Traced {
    name: &'static str,
    trace: Trace,
}

type Trace = Arc<Mutex<Vec<String>>>;

impl Server for Traced {
    type Call = Never;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, call: Never, _: ReplyTo, _: &mut Context<Self>) {
        match call {}
    }

    async fn terminate(&mut self, _: &OwnedTerm, _: &mut Context<Self>) {
        self.trace.lock().push(format!("-{}", self.name));
    }
}

/// The same on a BEAM: a supervisor whose children tell the process `sink` of their starts and ends.
const TRACED: &str = r#"
defmodule KvNodeTest.Traced do
  use GenServer
  def start_link({name, sink}), do: GenServer.start_link(__MODULE__, {name, sink}, name: name)
  def init({name, sink}) do
    Process.flag(:trap_exit, true)
    Agent.update(sink, &["+#{name}" | &1])
    {:ok, {name, sink}}
  end
  def terminate(_, {name, sink}), do: Agent.update(sink, &["-#{name}" | &1])
end
"#;

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// How a child is ended.
#[derive(Clone, Copy)]
enum End {
    Kill,
    Normal,
}

/// Restart types, which children end how, and what both tell of each end.
struct Case {
    strategy: Strategy,
    restart: [Restart; 4],
    ends: &'static [(&'static str, End, &'static str)],
}

const PERMANENT: [Restart; 4] = [Restart::Permanent; 4];
const MIXED: [Restart; 4] = [Restart::Permanent, Restart::Transient, Restart::Temporary, Restart::Permanent];

const CASES: [Case; 5] = [
    Case {
        strategy: Strategy::OneForAll,
        restart: PERMANENT,
        ends: &[("b", End::Kill, "-d -c -a +a +b +c +d")],
    },
    Case {
        strategy: Strategy::RestForOne,
        restart: PERMANENT,
        ends: &[
            ("b", End::Kill, "-d -c +b +c +d"),
            ("d", End::Normal, "-d +d"),
            ("a", End::Kill, "-d -c -b +a +b +c +d"),
        ],
    },
    // A transient one that has ended normally comes back with the others, a temporary one does not.
    Case {
        strategy: Strategy::OneForAll,
        restart: MIXED,
        ends: &[("b", End::Normal, "-b"), ("a", End::Kill, "-d -c +a +b +d")],
    },
    Case {
        strategy: Strategy::OneForAll,
        restart: MIXED,
        ends: &[("c", End::Kill, ""), ("b", End::Kill, "-d -a +a +b +d")],
    },
    Case {
        strategy: Strategy::RestForOne,
        restart: MIXED,
        ends: &[("c", End::Normal, "-c"), ("b", End::Normal, "-b"), ("a", End::Normal, "-a -d +a +b +d")],
    },
];

/// What is told at first.
const STARTED: &str = "+a +b +c +d";

fn ours(node: &Node, case: &Case) {
    let trace = Trace::default();
    let mut group = node.supervise_group(case.strategy);
    for (name, restart) in NAMES.into_iter().zip(case.restart) {
        let trace = Arc::clone(&trace);
        group = group.child(restart, [ServerName::local(name)], move |node| {
            trace.lock().push(format!("+{name}"));
            node.serve(Traced { name, trace: Arc::clone(&trace) })
        });
    }
    let group = group.start().expect("the names are free");
    let mut told = STARTED.to_owned();
    for (name, end, follows) in case.ends {
        let pid = node.whereis_local(name).expect("it runs");
        let process = node.process_at(&pid).expect("it runs");
        match end {
            End::Kill => process.kill(),
            End::Normal => process.stop(&OwnedTerm::atom("normal")),
        }
        wait_until("it has ended", || !process.is_alive());
        told = [&told, *follows].join(" ").trim().to_owned();
        wait_until(&told, || trace.lock().join(" ") == told);
        // A start is told of before the process has its name.
        wait_until("all that run are shown", || {
            let processes = group.processes();
            let named = NAMES.iter().filter(|name| node.whereis_local(name).is_some()).count();
            processes.len() == named && processes.iter().all(|process| process.is_alive())
        });
    }
    group.stop();
    block_on(group.ended());
    assert!(group.processes().is_empty() && node.whereis_local("a").is_none());
    let trace = trace.lock().join(" ");
    let stopped = trace.strip_prefix(&told).expect("nothing else was told");
    let running = stopped.split_whitespace().rev().map(|name| name.trim_start_matches('-'));
    assert!(running.is_sorted(), "the last one is stopped first: {stopped}");
}

fn theirs(beam: &BeamNode, case: &Case) {
    let strategy = match case.strategy {
        Strategy::OneForAll => ":one_for_all",
        _ => ":rest_for_one",
    };
    let children = NAMES.iter().zip(case.restart).map(|(name, restart)| {
        let restart = format!("{restart:?}").to_lowercase();
        format!("%{{id: :{name}, restart: :{restart}, start: {{KvNodeTest.Traced, :start_link, [{{:{name}, sink}}]}}}}")
    });
    let children = children.collect::<Vec<_>>().join(", ");
    beam.run("{:ok, sink} = Agent.start(fn -> [] end)");
    beam.run(&format!(
        "{{:ok, sup}} = Supervisor.start_link([{children}], strategy: {strategy}, max_restarts: 10); Process.unlink(sup)"
    ));
    let mut told = STARTED.to_owned();
    for (name, end, follows) in case.ends {
        match end {
            End::Kill => beam.run(&format!("Process.exit(Process.whereis(:{name}), :kill)")),
            End::Normal => beam.run(&format!("GenServer.stop(:{name})")),
        };
        told = [&told, *follows].join(" ").trim().to_owned();
        beam.check_soon("Agent.get(sink, &Enum.join(Enum.reverse(&1), \" \"))", &format!("\"{told}\""));
        // What ended without a trace is known to the supervisor before the next one ends.
        beam.check_soon(
            "Enum.all?(Supervisor.which_children(sup), fn {_, pid, _, _} -> not is_pid(pid) or Process.alive?(pid) end)",
            "true",
        );
    }
    beam.run("Supervisor.stop(sup)");
}

#[test]
fn ends_are_followed_as_by_a_supervisor_of_otp() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        beam.run(TRACED);
        for case in &CASES {
            theirs(&beam, case);
            ours(&node, case);
        }
    });
}

#[test]
fn a_beam_that_kills_one_of_a_group_finds_the_others_anew_under_their_names() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    let trace = Trace::default();
    let child = |name: &'static str| {
        let trace = Arc::clone(&trace);
        move |node: &Arc<Node>| node.serve(Traced { name, trace: Arc::clone(&trace) })
    };
    let names = |name: &str| [ServerName::local(name), ServerName::global(name)];
    let group = node
        .supervise_group(Strategy::OneForAll)
        .child(Restart::Permanent, names("one"), child("one"))
        .child(Restart::Permanent, names("two"), child("two"));
    let group = group.start().expect("the names are free");
    beam.ping(node.name().as_str());
    ["one", "two"].iter().for_each(|name| beam.wait_for_global(name));
    beam.run("before = for name <- [:one, :two], do: :global.whereis_name(name)");
    beam.run("Process.exit(hd(before), :kill)");
    beam.check_soon(
        "now = for name <- [:one, :two], do: :global.whereis_name(name); Enum.all?(now, &is_pid/1) and Enum.all?(now, & &1 not in before)",
        "true",
    );
    assert_eq!(group.processes().len(), 2);
    // A name that is taken is told, and nothing is left of the group.
    let taken = node
        .supervise_group(Strategy::OneForAll)
        .child(Restart::Permanent, [ServerName::local("three")], child("three"))
        .child(Restart::Permanent, [ServerName::local("two")], child("two"));
    assert_eq!(
        taken.start().expect_err("it is taken").to_string(),
        "two: another process of this node has that name"
    );
    wait_until("the first is gone", || node.whereis_local("three").is_none());
}
