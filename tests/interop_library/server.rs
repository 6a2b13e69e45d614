//! What a server with a mailbox promises.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvnode::config::Limits;
use kvnode::etf::{OwnedTerm, Pid, atom};
use kvnode::process::registry::RegisterError;
use kvnode::{
    Context, Down, MonitorRef, Node, ProcessHandle, ReplyTo, Restart, Server, ServerName, ServerRef, block_on,
};
use serde::Deserialize;
use smol::channel::{Receiver, Sender};

use crate::support::wait::PATIENCE;
use crate::support::{BeamNode, Epmd, Otp, Running, on_every_otp, wait_until};

/// A server for whatever the tests want to see.
struct Probe {
    /// Callers that are answered later.
    waiting: Vec<ReplyTo>,
    heard: Vec<String>,
    monitors: Vec<MonitorRef>,
    told: Sender<String>,
    gate: Receiver<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Heard,
    Defer,
    Waiting,
    Forget,
    Unwritable,
    Panic(String),
    Stop(OwnedTerm),
    Timers,
    Monitor(OwnedTerm),
    Demonitor,
    Gate,
    Link(Pid),
    Unlink(Pid),
    Trap(bool),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cast {
    Hear(i64),
    Answer,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Info {
    Hello(String),
    #[serde(rename = "EXIT")]
    Exit(Pid, OwnedTerm),
    #[serde(skip)]
    Tick(String),
}

impl Server for Probe {
    type Call = Call;
    type Cast = Cast;
    type Info = Info;

    async fn init(&mut self, cx: &mut Context<Self>) {
        self.heard.push(format!("init {}", cx.pid() == cx.process().pid()));
    }

    async fn handle_call(&mut self, call: Call, from: ReplyTo, cx: &mut Context<Self>) {
        match call {
            Call::Heard => from.reply(&std::mem::take(&mut self.heard)),
            Call::Defer => self.waiting.push(from),
            Call::Waiting => from.reply(&self.waiting.len()),
            Call::Forget => drop(from),
            Call::Unwritable => from.reply(&f64::NAN),
            Call::Panic(text) => panic!("{text}"),
            Call::Stop(reason) => {
                from.reply(&atom("stopping"));
                cx.stop(&reason);
            }
            Call::Timers => {
                let never = cx.send_after(Duration::from_millis(1), Info::Tick("never".into()));
                cx.send_after(Duration::from_millis(30), Info::Tick("second".into()));
                cx.send_after(Duration::from_millis(10), Info::Tick("first".into()));
                from.reply(&(cx.cancel_timer(never), cx.cancel_timer(never)));
            }
            Call::Monitor(process) => {
                let process = ServerRef::read(process.view()).expect("the test names a process");
                let monitor = cx.monitor(&process).await.expect("it is set");
                self.monitors.push(monitor);
                from.reply(&atom("ok"));
            }
            Call::Demonitor => {
                let taken = self.monitors.pop().is_some_and(|monitor| cx.demonitor(monitor));
                from.reply(&taken);
            }
            Call::Link(process) => {
                cx.link(&process).await;
                from.reply(&atom("ok"));
            }
            Call::Unlink(process) => {
                cx.unlink(&process);
                from.reply(&atom("ok"));
            }
            Call::Trap(trap) => {
                cx.trap_exits(trap);
                from.reply(&atom("ok"));
            }
            Call::Gate => {
                from.reply(&atom("ok"));
                let _closed = self.gate.recv().await;
            }
        }
    }

    async fn handle_cast(&mut self, cast: Cast, _cx: &mut Context<Self>) {
        match cast {
            Cast::Hear(number) => self.heard.push(number.to_string()),
            Cast::Answer => self.waiting.drain(..).for_each(|from| from.reply("late")),
        }
    }

    async fn handle_info(&mut self, info: Info, _cx: &mut Context<Self>) {
        self.heard.push(match info {
            Info::Hello(who) => format!("hello {who}"),
            Info::Exit(from, reason) => {
                assert!(from.node.starts_with("beam@"));
                format!("exit {reason:?}")
            }
            Info::Tick(which) => format!("tick {which}"),
        });
    }

    async fn handle_down(&mut self, down: Down, _cx: &mut Context<Self>) {
        assert!(self.monitors.contains(&down.monitor));
        self.heard.push(format!("down {:?}", down.reason));
    }

    fn state(&self) -> impl serde::Serialize {
        (atom("waiting"), self.waiting.len(), &self.heard)
    }

    async fn terminate(&mut self, reason: &OwnedTerm, _cx: &mut Context<Self>) {
        let _gone = self.told.try_send(format!("terminate {reason:?}"));
    }
}

/// What a test holds of a probe.
pub struct Held {
    pub process: ProcessHandle,
    pub told: Receiver<String>,
    pub gate: Sender<()>,
}

pub fn probe(node: &Node) -> Held {
    let (tell, told) = smol::channel::unbounded();
    let (gate, at_gate) = smol::channel::unbounded();
    let server =
        Probe { waiting: Vec::new(), heard: Vec::new(), monitors: Vec::new(), told: tell, gate: at_gate };
    Held { process: node.serve(server), told, gate }
}

/// A BEAM that is connected to a node of ours with a probe, which it knows as `probe`.
fn pair(otp: &Otp, limits: Limits) -> (Epmd, BeamNode, Running, Held) {
    let epmd = Epmd::start();
    let beam = BeamNode::start(otp, &epmd, "beam");
    let node = Running::start_with(&epmd, "rust", limits);
    let held = probe(&node);
    held.process.register("probe").expect("the name is free");
    beam.ping(node.name().as_str());
    beam.run(&format!("probe = {{:probe, :\"{}\"}}", node.name()));
    (epmd, beam, node, held)
}

#[test]
fn messages_of_every_kind_arrive_in_order_and_deferred_calls_are_answered() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, held) = pair(otp, Limits::default());
        let to = ServerRef::from(held.process.pid().clone());
        beam.run("for n <- 1..3, do: GenServer.cast(probe, {:hear, n})");
        beam.run("send(probe, {:hello, \"you\"}); send(probe, :what); GenServer.cast(probe, :what)");
        beam.check("GenServer.call(probe, :heard)", r#"["init true", "1", "2", "3", "hello you"]"#);
        let deferred = beam.spawn("GenServer.call(probe, :defer, 60_000)");
        // A second caller's request may overtake the first: it is asked until it has been deferred.
        wait_until("the call is deferred", || {
            let waiting: usize = block_on(node.call(&to, &atom("waiting"), PATIENCE)).expect("an answer");
            waiting == 1
        });
        beam.run("GenServer.cast(probe, :answer)");
        assert_eq!(deferred.value(), "\"late\"");
    });
}

#[test]
fn a_call_that_gets_no_answer_ends_with_a_reason() {
    on_every_otp(|otp| {
        let (_epmd, beam, _node, _held) = pair(otp, Limits::default());
        for (call, reason) in
            [(":forget", ":noreply"), (":unwritable", ":badarg"), ("{:what, 1}", "{:bad_call, {:what, 1}}")]
        {
            let ended = beam.eval(&format!("GenServer.call(probe, {call}, 60_000)")).unwrap_err();
            assert!(ended.exit_reason().contains(reason), "{call}: {ended}");
        }
        beam.check("GenServer.call(probe, :heard)", "[\"init true\"]");
    });
}

#[test]
fn a_server_ends_with_the_reason_that_monitors_are_told() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        beam.ping(node.name().as_str());
        let ended = |end: &dyn Fn(&Held), expected: &str, terminated: Option<&str>| {
            let held = probe(&node);
            held.process.register("probe").expect("the name is free again");
            beam.run(&format!("ref = Process.monitor({{:probe, :\"{}\"}})", node.name()));
            beam.check(
                &format!("GenServer.call({{:probe, :\"{}\"}}, :heard)", node.name()),
                "[\"init true\"]",
            );
            end(&held);
            beam.check(
                "receive do {:DOWN, ^ref, :process, _, reason} -> reason after 20_000 -> :none end",
                expected,
            );
            block_on(held.process.ended());
            assert!(!held.process.is_alive());
            assert_eq!(held.told.try_recv().ok().as_deref(), terminated);
            assert!(node.whereis_local("probe").is_none());
            assert_eq!(held.process.register("probe").err(), Some(RegisterError::Ended));
        };
        let call = |request: &str| {
            // Whether it is answered depends on the request; how the process ends does not.
            let _ =
                beam.eval(&format!("GenServer.call({{:probe, :\"{}\"}}, {request}, 60_000)", node.name()));
        };
        ended(&|_| call("{:stop, {:shutdown, 1}}"), "{:shutdown, 1}", Some("terminate {:shutdown, 1}"));
        ended(&|_| call("{:panic, \"oh\"}"), "{:panic, \"oh\"}", None);
        ended(&|held| held.process.stop(&atom("normal")), ":normal", Some("terminate :normal"));
        ended(&|held| held.process.kill(), ":killed", None);
        let stop = format!("GenServer.stop({{:probe, :\"{}\"}}, :shutdown)", node.name());
        ended(&|_| beam.check(&stop, ":ok"), ":shutdown", Some("terminate :shutdown"));
        // Also where it is waiting for something that never comes.
        ended(
            &|held| {
                call(":gate");
                held.process.kill();
            },
            ":killed",
            None,
        );
    });
}

#[test]
fn timers_fire_in_order_and_not_once_cancelled() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let held = probe(&node);
    let to = ServerRef::from(held.process.pid().clone());
    let cancelled: (bool, bool) = block_on(node.call(&to, &atom("timers"), PATIENCE)).expect("an answer");
    assert_eq!(cancelled, (true, false));
    let mut heard: Vec<String> = Vec::new();
    wait_until("both have fired", || {
        let more: Vec<String> = block_on(node.call(&to, &atom("heard"), PATIENCE)).expect("an answer");
        heard.extend(more);
        heard.len() >= 3
    });
    assert_eq!(heard, ["init true", "tick first", "tick second"]);
}

#[test]
fn monitors_of_elixir_processes_fire_once_with_the_reason() {
    on_every_otp(|otp| {
        let (_epmd, beam, _node, _held) = pair(otp, Limits::default());
        beam.run("forever = fn -> receive do reason -> exit(reason) end end");
        let heard = "GenServer.call(probe, :heard)";
        beam.check(heard, "[\"init true\"]");
        beam.run("pid = spawn(forever); GenServer.call(probe, {:monitor, pid}); send(pid, {:shutdown, :x})");
        beam.check_soon(heard, "[\"down {:shutdown, :x}\"]");
        beam.run("GenServer.call(probe, {:monitor, pid})");
        beam.check_soon(heard, "[\"down :noproc\"]");
        beam.run("GenServer.call(probe, {:monitor, {:global, :nobody}})");
        beam.check_soon(heard, "[\"down :noproc\"]");
        beam.run("pid = spawn(forever); Process.register(pid, :named)");
        beam.run("GenServer.call(probe, {:monitor, {:named, node()}}); send(pid, :done)");
        beam.check_soon(heard, "[\"down :done\"]");
        // Taken back, it does not fire: a monitor that is set later is heard of, and this one is not.
        beam.run("pid = spawn(forever); GenServer.call(probe, {:monitor, pid})");
        beam.check("GenServer.call(probe, :demonitor)", "true");
        beam.run("send(pid, :unheard); other = spawn(forever)");
        beam.run("GenServer.call(probe, {:monitor, other}); send(other, :heard)");
        beam.check_soon(heard, "[\"down :heard\"]");
        beam.run("pid = spawn(forever); GenServer.call(probe, {:monitor, pid})");
        beam.run("Node.disconnect(elem(probe, 1))");
        beam.check_soon(heard, "[\"down :noconnection\"]");
    });
}

#[test]
fn links_work_both_ways_and_exit_signals_can_be_trapped() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, held) = pair(otp, Limits::default());
        held.process.register_global("probe").expect("the name is free");
        beam.wait_for_global("probe");
        let heard = "GenServer.call(probe, :heard)";
        beam.check(heard, "[\"init true\"]");
        beam.run("forever = fn -> receive do reason -> exit(reason) end end");
        beam.check("GenServer.call(probe, {:trap, true})", ":ok");
        beam.run("pid = spawn(forever); GenServer.call(probe, {:link, pid}); send(pid, :crash)");
        beam.check_soon(heard, "[\"exit :crash\"]");
        // One that is gone, and one that was unlinked: a later one is heard of, and it is not.
        beam.run("GenServer.call(probe, {:link, pid})");
        beam.check_soon(heard, "[\"exit :noproc\"]");
        beam.run("pid = spawn(forever); GenServer.call(probe, {:link, pid})");
        beam.run("GenServer.call(probe, {:unlink, pid}); send(pid, :unheard); other = spawn(forever)");
        beam.run("GenServer.call(probe, {:link, other}); send(other, :heard)");
        beam.check_soon(heard, "[\"exit :heard\"]");
        // The other way, and lost with the connection.
        beam.run("pid = spawn(fn -> Process.link(:global.whereis_name(:probe)); forever.() end)");
        beam.run("send(pid, :from_there)");
        beam.check_soon(heard, "[\"exit :from_there\"]");
        beam.run("pid = spawn(forever); GenServer.call(probe, {:link, pid})");
        beam.run("Node.disconnect(elem(probe, 1))");
        beam.check_soon(heard, "[\"exit :noconnection\"]");
        // Not trapped, each ends with the other, for its reason.
        beam.check("GenServer.call(probe, {:trap, false})", ":ok");
        beam.run("ref = Process.monitor(probe); pid = spawn(forever); pid_ref = Process.monitor(pid)");
        beam.run("GenServer.call(probe, {:link, pid}); send(pid, :both)");
        let down = "receive do {:DOWN, ^ref, :process, _, reason} -> reason after 20_000 -> :none end";
        beam.check(down, ":both");
        block_on(held.process.ended());
        let held = probe(&node);
        held.process.register("probe").expect("the name is free again");
        beam.run("pid = spawn(forever); ref = Process.monitor(pid); GenServer.call(probe, {:link, pid})");
        held.process.stop(&atom("over"));
        beam.check(down, ":over");
    });
}

#[test]
fn a_server_shows_its_state_to_sys_between_two_messages() {
    on_every_otp(|otp| {
        let limits = Limits::default().with_state_bytes_max(1 << 10);
        let (_epmd, beam, _node, held) = pair(otp, limits);
        beam.check(":sys.get_state(probe)", r#"{:waiting, 0, ["init true"]}"#);
        beam.run("GenServer.cast(probe, {:hear, 7})");
        beam.check(":sys.get_state(probe)", r#"{:waiting, 0, ["init true", "7"]}"#);
        beam.run(
            "{:status, pid, {:module, :gen_server}, [_, :running, _, _, misc]} = :sys.get_status(probe)",
        );
        beam.check(
            r#"Keyword.get_values(misc, :data) |> List.last() == [{~c"State", {:waiting, 0, ["init true", "7"]}}]"#,
            "true",
        );
        beam.check(":sys.suspend(probe)", ":ok");
        beam.check(":sys.get_state(probe) |> elem(0)", ":waiting");
        beam.check(":sys.resume(probe)", ":ok");
        // What is larger than the bound is a summary, and a server that waits answers later.
        beam.run("for n <- 1..400, do: GenServer.cast(probe, {:hear, n})");
        beam.check("%{bytes: n} = :sys.get_state(probe); n > 1024", "true");
        beam.check("GenServer.call(probe, :gate)", ":ok");
        let asked = beam.spawn(":sys.get_state(probe, 60_000) |> Map.keys()");
        held.gate.close();
        assert_eq!(asked.value(), "[:bytes]");
    });
}

#[test]
fn a_supervised_server_comes_back_under_its_names_as_its_restart_type_says() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let started = Arc::new(AtomicUsize::new(0));
        let start = |restart, name: &str| {
            let (counted, names) =
                (Arc::clone(&started), [ServerName::local(name), ServerName::global(name)]);
            node.supervise(restart, names, move |node| {
                counted.fetch_add(1, Ordering::SeqCst);
                probe(node).process
            })
        };
        let permanent = start(Restart::Permanent, "permanent").expect("the name is free");
        start(Restart::Transient, "transient").expect("the name is free");
        start(Restart::Temporary, "temporary").expect("the name is free");
        let error = start(Restart::Permanent, "temporary").map(|_| ()).expect_err("the name is taken");
        assert_eq!((error.name, error.error), (ServerName::local("temporary"), RegisterError::Taken));
        assert_eq!(started.load(Ordering::SeqCst), 4);
        beam.ping(node.name().as_str());
        for name in ["permanent", "transient", "temporary"] {
            beam.wait_for_global(name);
        }
        beam.run(&format!("at = fn name -> {{name, :\"{}\"}} end", node.name()));
        beam.run("stop = fn name, why -> GenServer.stop(at.(name), why) end");
        beam.run("alive = fn name -> is_pid(:global.whereis_name(name)) and is_list(GenServer.call(at.(name), :heard)) end");
        beam.run("panic = fn name -> try do GenServer.call(at.(name), {:panic, \"oh\"}) catch :exit, {why, _} -> why end end");
        for (ends, count) in [("panic.(:permanent)", 5), ("panic.(:transient)", 6)] {
            beam.check(ends, "{:panic, \"oh\"}");
            wait_until("it is started again", || started.load(Ordering::SeqCst) == count);
        }
        beam.check_soon("alive.(:permanent)", "true");
        beam.check_soon("alive.(:transient)", "true");
        assert!(!permanent.is_alive(), "the next one is another process");
        beam.check("stop.(:permanent, :normal)", ":ok");
        wait_until("it is started again", || started.load(Ordering::SeqCst) == 7);
        beam.check("stop.(:transient, :normal)", ":ok");
        beam.check("panic.(:temporary)", "{:panic, \"oh\"}");
        for name in ["transient", "temporary"] {
            beam.check_soon(&format!(":global.whereis_name(:{name})"), ":undefined");
        }
        beam.check_soon("alive.(:permanent)", "true");
        assert_eq!(started.load(Ordering::SeqCst), 7);
        // From here on the names are free.
        start(Restart::Temporary, "transient").expect("it ended for good");
    });
}

#[test]
fn a_full_mailbox_ends_calls_and_drops_the_rest_and_the_server_goes_on() {
    on_every_otp(|otp| {
        let limits = Limits::default().with_mailbox_messages_max(10).with_mailbox_bytes_max(10_000);
        let (_epmd, beam, _node, held) = pair(otp, limits);
        beam.check("GenServer.call(probe, :gate)", ":ok");
        beam.run("for n <- 1..15, do: GenServer.cast(probe, {:hear, n})");
        let full = beam.eval("GenServer.call(probe, :heard, 60_000)").unwrap_err();
        assert!(full.exit_reason().contains(":system_limit"), "{full}");
        held.gate.try_send(()).expect("the server waits there");
        let ten: Vec<String> = (1..=10).map(|n: i64| format!("{n:?}")).collect();
        let ten = ten.iter().map(|n| format!("\"{n}\"")).collect::<Vec<_>>().join(", ");
        beam.check_soon(
            "try do GenServer.call(probe, :heard) catch :exit, _ -> :full end",
            &format!("[\"init true\", {ten}]"),
        );
        // Bytes are bounded too.
        beam.check("GenServer.call(probe, :gate)", ":ok");
        let large = beam.eval("GenServer.call(probe, {:panic, :binary.copy(\"x\", 10_001)})").unwrap_err();
        assert!(large.exit_reason().contains(":system_limit"), "{large}");
        held.gate.try_send(()).expect("the server waits there");
        beam.check("GenServer.call(probe, :heard)", "[]");
    });
}

#[test]
fn a_node_that_is_stopped_is_gone_and_can_be_started_again_in_the_same_program() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        for _ in 0..3 {
            let node = Running::start(&epmd, "rust");
            let held = probe(&node);
            held.process.register_global("probe").expect("the name is free");
            held.process.register_global("other").expect("the name is free");
            beam.ping(node.name().as_str());
            beam.wait_for_global("probe");
            beam.wait_for_global("other");
            beam.check("GenServer.call({:global, :other}, :heard)", "[\"init true\"]");
            beam.run("ref = Process.monitor(:global.whereis_name(:probe))");
            // By now the monitor is set: a call comes by the same connection.
            beam.check("GenServer.call({:global, :probe}, :heard)", "[]");
            let weak = Arc::downgrade(&node);
            let name = node.name().as_str().to_owned();
            block_on(node.stop());
            beam.check(
                "receive do {:DOWN, ^ref, :process, _, reason} -> reason after 20_000 -> :none end",
                ":shutdown",
            );
            assert_eq!(held.told.try_recv().as_deref(), Ok("terminate :shutdown"));
            beam.wait_for_no_global("probe");
            beam.wait_for_no_global("other");
            beam.check_soon(&format!(":\"{name}\" in Node.list(:connected)"), "false");
            assert!(!epmd.names().expect("epmd runs").contains(&"rust".to_owned()));
            // Nothing of it is left once the handles are dropped.
            drop((node, held));
            wait_until("the node's memory is free", || weak.strong_count() == 0);
        }
    });
}
