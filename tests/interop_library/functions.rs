//! Functions of the program, called by BEAMs: with types, and written by hand.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvnode::etf::{OwnedTerm, atom};
use kvnode::node::Raise;
use kvnode::process::rpc::{Answer, Context, FunctionCall, Functions};
use smol::channel::{Receiver, Sender};

use crate::support::{BeamNode, Epmd, Running, on_every_otp, wait_until};

/// Counts the calls that wait; a drop takes one off.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn one(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What a module of the test shares with it.
#[derive(Clone)]
struct Shared {
    waiting: Arc<AtomicUsize>,
    hold: Sender<()>,
    held: Receiver<()>,
}

impl Shared {
    fn new() -> Self {
        let (hold, held) = smol::channel::bounded(1);
        Self { waiting: Arc::default(), hold, held }
    }
}

fn serve(node: &Running, shared: &Shared) {
    let (waits, ends) = (shared.clone(), shared.clone());
    node.module("Elixir.Prices")
        .function("quote", |(item, count): (String, i64)| async move {
            if item.is_empty() {
                return Err(Raise::argument("there is no such item"));
            }
            smol::future::yield_now().await;
            Ok(count as f64 * 1.5)
        })
        .function("fail", |(how, value): (String, OwnedTerm)| async move {
            Err::<(), _>(match &*how {
                "error" => Raise::error(&value),
                "exit" => Raise::exit(&value),
                "throw" => Raise::throw(&value),
                "runtime" => Raise::runtime("it rains"),
                "unwritable" => Raise::error(&f64::NAN),
                other => panic!("no {other}"),
            })
        })
        .function("nan", |()| async { Ok(f64::NAN) })
        .function("wait", move |()| {
            let (waiting, held) = (Waiting::one(&waits.waiting), waits.held.clone());
            async move {
                // Nothing is sent: it is closed.
                let closed = held.recv().await.is_err();
                drop(waiting);
                Ok(if closed { atom("closed") } else { atom("sent") })
            }
        })
        .inline("release", move |()| Ok(ends.hold.close()))
        .inline("version", |()| Ok("1.0"))
        .inline("add", |(left, right): (u8, u8)| Ok(u16::from(left) + u16::from(right)))
        .inline("add", |(only,): (u8,)| Ok(only))
        .inline("panics", |(text,): (String,)| if text.is_empty() { Ok(()) } else { panic!("{text}") })
        .serve();
    node.module("prices").inline("double", |(number,): (i64,)| Ok(number * 2)).serve();
}

fn start(epmd: &Epmd, beam: &BeamNode) -> (Running, Shared) {
    let node = Running::start(epmd, "rust");
    let shared = Shared::new();
    serve(&node, &shared);
    beam.run(&format!("n = :\"{}\"", node.name()));
    beam.run(":net_kernel.monitor_nodes(true, node_type: :all)");
    beam.ping(node.name().as_str());
    beam.run("receive do {:nodeup, ^n, _} -> :ok after 20_000 -> raise \"no nodeup\" end");
    (node, shared)
}

/// That the connection has stood all the time.
#[track_caller]
fn is_still_connected(beam: &BeamNode) {
    beam.check(":erpc.call(n, Prices, :version, [])", "\"1.0\"");
    beam.check("receive do {:nodedown, ^n, _} -> :down after 0 -> :up end", ":up");
}

/// Evaluates to what `code` raises.
fn raised(code: &str) -> String {
    format!("(try do {code} catch kind, reason -> {{kind, reason}} end)")
}

#[test]
fn typed_functions_are_called_by_every_kind_of_caller() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (_node, _shared) = start(&epmd, &beam);
        beam.check(":erpc.call(n, Prices, :quote, [\"a\", 2])", "3.0");
        beam.check(":rpc.call(n, Prices, :quote, [\"a\", 2])", "3.0");
        beam.check(":rpc.block_call(n, Prices, :quote, [\"a\", 2])", "3.0");
        beam.check(
            "send({:rex, n}, {self(), {:call, Prices, :quote, [\"a\", 2], :user}})
             receive do {:rex, value} -> value after 20_000 -> :nothing end",
            "3.0",
        );
        // A list of small numbers is a string on its way; one name with several numbers of arguments.
        beam.check(":erpc.call(n, Prices, :add, [1, 255])", "256");
        beam.check(":erpc.call(n, Prices, :add, [7])", "7");
        beam.check(":erpc.call(n, :prices, :double, [-4])", "-8");
        let undef = "{:badrpc, {:EXIT, {:undef, [{Prices, :add, [], []}]}}}";
        beam.check(":rpc.call(n, Prices, :add, [])", undef);
        beam.check("match?({:badrpc, {:EXIT, {:undef, _}}}, :rpc.call(n, Prices, :sell, []))", "true");
        // What the node has by itself is there as before.
        beam.check(":erpc.call(n, :erlang, :node, []) == n", "true");
        is_still_connected(&beam);
    });
}

#[test]
fn what_a_typed_function_raises_is_what_a_function_of_elixir_raises() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (_node, _shared) = start(&epmd, &beam);
        let message = |call: &str| {
            format!(
                "(try do :erpc.call(n, {call}) catch :error, {{:exception, e, _}} -> {{e.__struct__, Exception.message(e)}} end)"
            )
        };
        beam.check(
            &message("Prices, :quote, [\"a\", \"x\"]"),
            "{ArgumentError, \"argument 2: wanted i64, met the binary \\\"x\\\"\"}",
        );
        beam.check(&message("Prices, :quote, [\"\", 2]"), "{ArgumentError, \"there is no such item\"}");
        beam.check(
            &message("Prices, :add, [1, 256]"),
            "{ArgumentError, \"argument 2: wanted u8, met integer `256`\"}",
        );
        beam.check(&message("Prices, :fail, [\"runtime\", 1]"), "{RuntimeError, \"it rains\"}");
        beam.check(
            ":rpc.call(n, :prices, :double, [:x])",
            "{:badrpc, {:EXIT, {:badarg, [{:prices, :double, [:x], []}]}}}",
        );
        let fail = |how: &str| raised(&format!(":erpc.call(n, Prices, :fail, [\"{how}\", {{:a, 1}}])"));
        beam.check(&format!("elem(elem({}, 1), 1)", fail("error")), "{:a, 1}");
        beam.check(&fail("exit"), "{:exit, {:exception, {:a, 1}}}");
        beam.check(&fail("throw"), "{:throw, {:a, 1}}");
        beam.check(
            ":rpc.call(n, Prices, :fail, [\"error\", :why])",
            "{:badrpc, {:EXIT, {:why, [{Prices, :fail, 2, []}]}}}",
        );
        beam.check(
            &format!(
                "match?({{:unwritable, \"a float is not\" <> _}}, elem(elem({}, 1), 1))",
                fail("unwritable")
            ),
            "true",
        );
        beam.check(
            "match?({:badrpc, {:EXIT, {{:unwritable, _}, [{Prices, :nan, 0, []}]}}}, :rpc.call(n, Prices, :nan, []))",
            "true",
        );
        // A panic costs its call.
        beam.check(&format!("elem(elem({}, 1), 1)", fail("bang")), "{:panic, \"no bang\"}");
        for call in [":rpc.call", ":rpc.block_call"] {
            beam.check(
                &format!("{call}(n, Prices, :panics, [\"boom\"])"),
                "{:badrpc, {:EXIT, {{:panic, \"boom\"}, [{Prices, :panics, [\"boom\"], []}]}}}",
            );
        }
        is_still_connected(&beam);
    });
}

#[test]
fn a_typed_function_is_dropped_with_its_process_and_with_its_callers_node() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (node, shared) = start(&epmd, &beam);
        let waiting = |wanted: usize| {
            wait_until("so many calls wait", || shared.waiting.load(Ordering::SeqCst) == wanted);
        };
        beam.run("pid = Node.spawn(n, Prices, :wait, [])");
        waiting(1);
        beam.run("Process.exit(pid, :kill)");
        waiting(0);
        let other = BeamNode::start(otp, &epmd, "other");
        other.run(&format!("Node.spawn(:\"{}\", Prices, :wait, [])", node.name()));
        waiting(1);
        other.kill(&epmd);
        waiting(0);
        let call = beam.spawn(":erpc.call(n, Prices, :wait, [])");
        waiting(1);
        shared.hold.close();
        assert_eq!(call.value(), ":closed");
        is_still_connected(&beam);
    });
}

#[test]
fn of_5000_calls_at_once_those_past_the_bound_end_with_system_limit() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (_node, shared) = start(&epmd, &beam);
        beam.run("asked = for _ <- 1..5000, do: :erpc.send_request(n, Prices, :wait, [])");
        beam.run(":erpc.cast(n, Prices, :release, [])");
        beam.run(
            "answers = for id <- asked do
               try do :erpc.receive_response(id, 60_000) catch :error, {:exception, reason, _} -> reason end
             end",
        );
        beam.check(
            "{Enum.count(answers, & &1 == :closed), Enum.count(answers, & &1 == :system_limit)}",
            "{4096, 904}",
        );
        wait_until("no call waits", || shared.waiting.load(Ordering::SeqCst) == 0);
        is_still_connected(&beam);
    });
}

/// Functions by hand, all of which panic.
struct Panicking;

impl Functions for Panicking {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        match (call.module, call.function) {
            ("bad", "now") => panic!("a bug"),
            ("bad", "deferred") => {
                let _deferred = context.defer(call).expect("there is room");
                panic!("a bug")
            }
            _ => None,
        }
    }
}

#[test]
fn a_panic_in_functions_costs_the_call_and_not_the_connection() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (node, _shared) = start(&epmd, &beam);
        node.client().serve(Arc::new(Panicking));
        let now = "{:badrpc, {:EXIT, {{:panic, \"a bug\"}, [{:bad, :now, [1], []}]}}}";
        let rex = |function: &str| {
            format!(
                "send({{:rex, n}}, {{self(), {{:call, :bad, :{function}, [1], :user}}}})
                 receive do {{:rex, value}} -> value after 20_000 -> :nothing end"
            )
        };
        for _ in 0..3 {
            beam.check(":rpc.call(n, :bad, :now, [1])", now);
            beam.check(":rpc.block_call(n, :bad, :now, [1])", now);
            beam.check(&rex("now"), now);
            beam.run(":erpc.cast(n, :bad, :now, [1])");
            beam.run("{_, ref} = {nil, Process.monitor(Node.spawn(n, :bad, :now, [1]))}");
            beam.check("receive do {:DOWN, ^ref, _, _, _} -> :down after 20_000 -> :nothing end", ":down");
            // That it was to answer later is told once, as of any answer that does not come.
            let killed = "{:badrpc, {:EXIT, :killed}}";
            beam.check(":rpc.call(n, :bad, :deferred, [1])", killed);
            beam.check(":rpc.block_call(n, :bad, :deferred, [1])", killed);
            beam.check(&rex("deferred"), killed);
            beam.check("receive do {:rex, value} -> value after 100 -> :nothing end", ":nothing");
        }
        is_still_connected(&beam);
    });
}
