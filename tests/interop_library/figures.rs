//! What is counted of a program's servers, against what a BEAM has had them do.

use std::sync::Arc;
use std::time::Duration;

use kvnode::etf::{OwnedTerm, TermView};
use kvnode::node::{ServerSnapshot, latency};
use kvnode::{Caller, Context, GenServer, Never, Node, ReplyTo, Restart, Server, ServerName, Turn};
use serde::Deserialize;

use crate::support::{BeamNode, Epmd, Running, on_every_otp, wait_until};

/// How long the slow call takes.
const SLOW: Duration = Duration::from_millis(200);

/// Answers at once, and one request late.
struct Timed;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Quick,
    Slow,
}

impl Server for Timed {
    type Call = Call;
    type Cast = OwnedTerm;
    type Info = OwnedTerm;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
        if matches!(call, Call::Slow) {
            smol::Timer::after(SLOW).await;
        }
        from.reply("done");
    }

    async fn handle_cast(&mut self, _: OwnedTerm, _cx: &mut Context<Self>) {}

    async fn handle_info(&mut self, _: OwnedTerm, _cx: &mut Context<Self>) {}
}

/// Answers with what it is asked.
struct Mortal;

impl Server for Mortal {
    type Call = OwnedTerm;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, call: OwnedTerm, from: ReplyTo, _cx: &mut Context<Self>) {
        from.reply(&call);
    }
}

struct Echo;

impl GenServer for Echo {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        turn.reply(caller, |w| _ = w.term(request));
    }

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}
}

#[track_caller]
fn figures(node: &Node, name: &str) -> ServerSnapshot {
    let all = node.snapshot().servers;
    all.iter().find(|server| server.name == name).cloned().unwrap_or_else(|| panic!("no {name} in {all:?}"))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).expect("a short time")
}

#[test]
fn calls_of_a_beam_are_counted_and_timed_by_server() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        node.serve(Timed).register("timed").expect("the name is free");
        node.serve_inline(Arc::new(Echo)).register_global("echo").expect("the name is free");
        // Without a name: by its type.
        node.serve(Timed);
        let by_type = figures(&node, std::any::type_name::<Timed>());
        assert_eq!((by_type.calls, by_type.processes), (0, 1));
        beam.run(&format!("timed = {{:timed, :\"{}\"}}", node.name()));
        beam.run("for _ <- 1..99, do: GenServer.call(timed, :quick)");
        beam.run("GenServer.call(timed, :slow)");
        beam.run("for _ <- 1..3, do: GenServer.cast(timed, :x)");
        beam.run("for _ <- 1..2, do: send(timed, :x)");
        // All that came before it is handled when it is answered.
        beam.check("GenServer.call(timed, :quick)", "\"done\"");
        let timed = figures(&node, "local:timed");
        assert_eq!((timed.calls, timed.casts, timed.infos, timed.processes), (101, 3, 2, 1), "{timed:?}");
        assert_eq!(timed.answers.iter().sum::<u64>(), 101, "{timed:?}");
        let late = latency::BOUNDS_NANOS.iter().position(|bound| *bound >= nanos(SLOW)).expect("a class");
        assert!(timed.answers[late..].iter().sum::<u64>() >= 1, "{timed:?}");
        assert!(timed.answers_nanos >= nanos(SLOW) && timed.handling_nanos >= nanos(SLOW), "{timed:?}");
        assert_eq!((timed.restarts, timed.waiting_messages, timed.waiting_bytes), (0, 0, 0), "{timed:?}");
        let all = node.snapshot();
        assert!(all.answers.iter().sum::<u64>() >= 101 && all.answers_nanos >= nanos(SLOW), "{all:?}");

        // Without a mailbox, by a connection that has read little: of a busy one some answers stand for all.
        let other = BeamNode::start(otp, &epmd, "other");
        other.ping(node.name().as_ref());
        other.wait_for_global("echo");
        other.run("for n <- 1..7, do: ^n = GenServer.call({:global, :echo}, n)");
        other.run("GenServer.cast({:global, :echo}, :x)");
        other.check("GenServer.call({:global, :echo}, 8)", "8");
        let echo = figures(&node, "global:echo");
        assert_eq!((echo.calls, echo.casts, echo.processes), (8, 1, 1), "{echo:?}");
        assert_eq!(echo.answers.iter().sum::<u64>(), 8, "{echo:?}");
    });
}

#[test]
fn restarts_are_counted_and_a_server_goes_on_counting_after_one() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let names = [ServerName::local("mortal")];
        node.supervise(Restart::Permanent, names, |node| node.serve(Mortal)).expect("the name is free");
        beam.run(&format!("mortal = {{:mortal, :\"{}\"}}", node.name()));
        beam.check("GenServer.call(mortal, 1)", "1");
        beam.run(&format!("pid = :erpc.call(:\"{}\", :erlang, :whereis, [:mortal])", node.name()));
        beam.run("ref = Process.monitor(pid); Process.exit(pid, :kill); receive do {:DOWN, ^ref, _, _, _} -> :ok end");
        wait_until("it is started again", || figures(&node, "local:mortal").restarts == 1);
        beam.check("GenServer.call(mortal, 2)", "2");
        let mortal = figures(&node, "local:mortal");
        assert_eq!((mortal.calls, mortal.processes, mortal.restarts), (2, 1, 1), "{mortal:?}");
    });
}

/// A server beside the stores of a program: in `/metrics`, in `/status.json` and in `:status`.
#[cfg(feature = "program")]
#[test]
fn the_servers_of_a_program_with_stores_are_in_its_metrics() {
    use kvnode::distribution::{Cookie, NodeName};
    use kvnode::program::{Config, Program, StoreConfig};
    use kvnode::{block_on, config};

    use crate::support::http::get;
    use crate::support::{COOKIE, Otp, at_host};

    let epmd = Epmd::start();
    let name = NodeName::new(&at_host("mixed")).expect("a node name");
    let node = config::Config::new(name, Cookie::new(COOKIE)).with_epmd(epmd.config());
    let names = StoreConfig::default().with_name(ServerName::local("kv"));
    let program = block_on(Program::start(Config::new(node).with_stores(vec![names]))).expect("it starts");
    let node = program.node();
    node.serve(Timed).register("timed").expect("the name is free");
    let local = ([127, 0, 0, 1], 0).into();
    let at = block_on(kvnode::program::http::serve(&program, local)).expect("it listens");
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    beam.run(&format!("timed = {{:timed, :\"{}\"}}", node.name()));
    beam.run("for _ <- 1..99, do: GenServer.call(timed, :quick)");
    beam.run("GenServer.call(timed, :slow)");
    let metrics = get(at, "/metrics").body;
    let value = |series: &str| -> f64 {
        let line = metrics.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("no {series} in\n{metrics}"))
    };
    assert_eq!(value("kvnode_server_handled_total{server=\"local:timed\",message=\"call\"}"), 100.0);
    assert_eq!(value("kvnode_server_answer_duration_seconds_count{server=\"local:timed\"}"), 100.0);
    assert!(value("kvnode_server_answer_duration_seconds_sum{server=\"local:timed\"}") >= SLOW.as_secs_f64());
    assert!(value("kvnode_answer_duration_seconds_sum") >= SLOW.as_secs_f64());
    assert_eq!(value("kvnode_server_processes{server=\"local:kv\"}"), 1.0);
    assert!(get(at, "/status.json").body.contains("\"name\":\"local:timed\""));
    let snapshot = program.snapshot();
    let beside: Vec<&str> = snapshot.servers_beside().map(|server| server.name.as_str()).collect();
    assert_eq!(beside, ["local:timed"], "{snapshot:?}");
    block_on(node.stop());
}
