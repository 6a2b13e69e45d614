//! Calls, casts, messages and monitors of our own, to processes of real nodes and to our own.

#![cfg(feature = "program")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kvnode::config::{self, ServerName};
use kvnode::distribution::{Cookie, NodeName, ServerRef};
use kvnode::etf::{OwnedTerm, Pid, TermWriter};
use kvnode::node::erpc::ErpcError;
use kvnode::process::CallError;
use kvnode::process::rpc::{Answer, Context, FunctionCall, Functions, elements};
use kvnode::program::{Config, Program, StoreConfig};
use kvnode::{Client, block_on};
use smol::future::FutureExt;
use support::{BeamNode, Epmd, at_host, on_every_otp};

const LONG: Duration = Duration::from_secs(30);

/// A node in this process, with a store named `kv`, in `global` `rust`. It ends with the test's process, and
/// registers with whatever epmd is at its port until then: each has a name of its own.
fn start(epmd: &Epmd) -> (Client, Pid) {
    static STARTED: AtomicUsize = AtomicUsize::new(0);
    let name = format!("rust{}x{}", std::process::id(), STARTED.fetch_add(1, Ordering::Relaxed));
    let name = NodeName::new(&at_host(&name)).expect("a node name");
    let node = config::Config::new(name, Cookie::new(support::COOKIE)).with_epmd(epmd.config());
    let store =
        StoreConfig::default().with_name(ServerName::global("rust")).with_name(ServerName::local("kv"));
    let config = Config::new(node).with_stores(vec![store]);
    let program = block_on(Program::start(config)).expect("the node starts");
    let (_, store) = program.stores().next().expect("a store");
    let store = store.expect("it is in memory").clone();
    (program.node().client(), store)
}

fn get(key: &'static str) -> impl FnOnce(&mut TermWriter<'_>) {
    move |w| _ = w.tuple(2).atom("get").atom(key)
}

fn put(key: &'static str, value: &'static str) -> impl FnOnce(&mut TermWriter<'_>) {
    move |w| _ = w.tuple(3).atom("put").atom(key).atom(value)
}

fn ok(answer: Result<OwnedTerm, CallError>) -> OwnedTerm {
    answer.expect("an answer")
}

#[test]
fn servers_of_a_beam_are_called_by_pid_by_name_and_by_global_name() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run(
            "{:ok, _} = KeyValueStore.start_link(); {:ok, far} = KeyValueStoreDistributed.start_link(:far)",
        );
        let (client, _) = start(&epmd);
        smol::block_on(async {
            let named = ServerRef::remote("Elixir.KeyValueStore", beam.name());
            // Not connected yet: the call connects.
            assert!(ok(client.call(&named, put("k", "v"), LONG).await).view().is_atom("ok"));
            assert!(ok(client.call(&named, get("k"), LONG).await).view().is_atom("v"));
            let global = ServerRef::global("far");
            assert!(ok(client.call(&global, put("k", "w"), LONG).await).view().is_atom("ok"));
            let name = OwnedTerm::atom("far");
            let pid = client.whereis_global(name.view(), LONG).await.expect("it is known");
            assert_eq!(*pid.node, *beam.name());
            assert!(ok(client.call(&pid.into(), get("k"), LONG).await).view().is_atom("w"));
        });
        // Casts and messages, and that they keep their order with what is called afterwards.
        beam.run("me = self(); Process.register(me, :me)");
        smol::block_on(async {
            let me = ServerRef::remote("me", beam.name());
            client.cast(&me, |w| _ = w.atom("one")).await.expect("it is sent");
            client.send(&me, |w| _ = w.atom("two")).await.expect("it is sent");
        });
        beam.check("receive do {:\"$gen_cast\", :one} -> receive do m -> m end end", ":two");
        smol::block_on(async {
            let far = ServerRef::global("far");
            for _ in 0..100 {
                let write = |w: &mut TermWriter<'_>| _ = w.tuple(3).atom("replicate_put").atom("n").atom("x");
                client.cast(&far, write).await.expect("it is sent");
                assert!(ok(client.call(&far, get("n"), LONG).await).view().is_atom("x"));
                ok(client.call(&far, |w| _ = w.tuple(2).atom("delete").atom("n"), LONG).await);
            }
        });
        // Nothing of it is left behind.
        beam.check("Process.info(far, :monitored_by) |> elem(1) |> Enum.filter(&(node(&1) != node()))", "[]");
    });
}

#[test]
fn calls_without_an_answer_end_with_the_reason_that_genserver_gives() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (client, store) = start(&epmd);
        smol::block_on(async {
            let nobody = [
                ServerRef::remote("nobody", beam.name()),
                ServerRef::global("nobody"),
                ServerRef::local("nobody"),
                ServerRef::Pid(Pid { id: 30_000, ..store.clone() }),
            ];
            for to in nobody {
                assert_eq!(client.call(&to, get("k"), LONG).await, Err(CallError::NoProcess), "{to}");
            }
            let gone: Arc<str> = at_host("gone").into();
            let to = ServerRef::remote("x", &gone);
            assert_eq!(client.call(&to, get("k"), LONG).await, Err(CallError::NodeDown(gone)));
        });
        // A GenServer ends with what it cannot handle.
        beam.run("{:ok, pid} = GenServer.start(KeyValueStore, %{}, name: KeyValueStore)");
        let crashes = ServerRef::remote("Elixir.KeyValueStore", beam.name());
        let error = smol::block_on(client.call(&crashes, |w| _ = w.atom("nonsense"), LONG));
        let Err(CallError::Exit(reason)) = error else { panic!("{error:?}") };
        assert!(format!("{reason:?}").contains("function_clause"), "{reason:?}");
        // A process that answers late: the answer goes nowhere, and the next call is not misled by it.
        beam.run(
            "answer = fn answer ->
               receive do
                 {:\"$gen_call\", from, :late} ->
                   receive do :now -> GenServer.reply(from, :late) end
                   answer.(answer)
                 {:\"$gen_call\", from, other} ->
                   GenServer.reply(from, other)
                   answer.(answer)
               end
             end
             pid = spawn(fn -> answer.(answer) end); Process.register(pid, :late)",
        );
        let late = ServerRef::remote("late", beam.name());
        smol::block_on(async {
            let answer = client.call(&late, |w| _ = w.atom("late"), Duration::from_millis(200)).await;
            assert_eq!(answer, Err(CallError::Timeout));
        });
        beam.check_soon("Process.info(pid, :monitored_by)", "{:monitored_by, []}");
        beam.run("send(pid, :now)");
        smol::block_on(async {
            assert!(ok(client.call(&late, |w| _ = w.atom("next"), LONG).await).view().is_atom("next"));
            // Dropped while it waits: the monitor is taken back.
            let call = client.call(&late, |w| _ = w.atom("late"), LONG);
            let never = async { call.await.map(|_| "answered") };
            let asked = async {
                let client = client.clone();
                let pid = client.erpc(beam.name(), ("erlang", "whereis"), 1, |w| _ = w.atom("late"), LONG);
                assert!(pid.await.expect("it is registered").view().as_pid().is_some());
                Ok("dropped")
            };
            assert_eq!(never.or(asked).await, Ok("dropped"));
        });
        beam.check_soon("Process.info(pid, :monitored_by)", "{:monitored_by, []}");
        // The node is lost while a call waits.
        let lost = std::thread::spawn({
            let client = client.clone();
            move || smol::block_on(client.call(&late, |w| _ = w.atom("late"), LONG))
        });
        beam.check_soon("Process.info(pid, :message_queue_len)", "{:message_queue_len, 1}");
        let node = beam.name().to_owned();
        beam.kill(&epmd);
        let lost = lost.join().expect("the call ends");
        assert_eq!(lost, Err(CallError::NodeDown(node.as_str().into())));
    });
}

#[test]
fn our_own_processes_are_called_like_all_others() {
    let epmd = Epmd::start();
    let (client, store) = start(&epmd);
    smol::block_on(async {
        let names = [
            ServerRef::local("kv"),
            ServerRef::remote("kv", &store.node),
            ServerRef::global("rust"),
            ServerRef::Pid(store),
        ];
        for to in &names {
            assert!(ok(client.call(to, put("k", "v"), LONG).await).view().is_atom("ok"), "{to}");
            assert!(ok(client.call(to, get("k"), LONG).await).view().is_atom("v"), "{to}");
        }
        let unknown = client.call(&names[0], |w| _ = w.atom("nonsense"), LONG).await;
        assert!(
            matches!(&unknown, Err(CallError::Exit(reason)) if format!("{reason:?}").contains("bad_call"))
        );
        let malformed = client.call(&names[0], |w| _ = w.tuple(2), LONG).await;
        assert!(matches!(malformed, Err(CallError::Malformed(_))));
    });
}

#[test]
fn a_monitor_fires_once_with_the_reason_and_is_taken_back_by_a_drop() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (client, _) = start(&epmd);
        beam.run("pid = spawn(fn -> receive do r -> exit(r) end end); Process.register(pid, :mortal)");
        let mortal = ServerRef::remote("mortal", beam.name());
        let mut monitor = smol::block_on(client.monitor(&mortal)).expect("it is set");
        let dropped = smol::block_on(client.monitor(&mortal)).expect("it is set");
        beam.check_soon("Process.info(pid, :monitored_by) |> elem(1) |> length()", "2");
        drop(dropped);
        beam.check_soon("Process.info(pid, :monitored_by) |> elem(1) |> length()", "1");
        beam.run("send(pid, :bye)");
        assert!(smol::block_on(monitor.ended()).view().is_atom("bye"));
        let mut again = smol::block_on(client.monitor(&mortal)).expect("it is set");
        assert!(smol::block_on(again.ended()).view().is_atom("noproc"));
        beam.run("pid = spawn(fn -> Process.sleep(:infinity) end); Process.register(pid, :mortal)");
        let mut monitor = smol::block_on(client.monitor(&mortal)).expect("it is set");
        beam.check_soon("Process.info(pid, :monitored_by) |> elem(1) |> length()", "1");
        beam.kill(&epmd);
        assert!(smol::block_on(monitor.ended()).view().is_atom("noconnection"));
        let unreached = smol::block_on(client.monitor(&mortal)).expect("it is set");
        let mut unreached = unreached;
        assert!(smol::block_on(unreached.ended()).view().is_atom("noconnection"));
    });
}

#[test]
fn functions_of_a_beam_are_called_and_their_failures_told_apart() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (client, _) = start(&epmd);
        let atom = OwnedTerm::atom;
        let call = |function: (&'static str, &'static str), argument: &'static str| {
            let argument = move |w: &mut TermWriter<'_>| _ = w.atom(argument);
            smol::block_on(client.erpc(beam.name(), function, 1, argument, LONG))
        };
        assert_eq!(
            call(("erlang", "abs"), "x").map_err(|error| error.to_string().contains("badarg")),
            Err(true)
        );
        assert_eq!(
            call(("Elixir.Atom", "to_string"), "x").expect("text").view().as_binary(),
            Some(&b"x"[..])
        );
        assert_eq!(call(("erlang", "throw"), "ball"), Err(ErpcError::Throw(atom("ball"))));
        assert_eq!(call(("erlang", "exit"), "door"), Err(ErpcError::Exit(atom("door"))));
        let undef = call(("no_such", "function"), "x");
        assert!(matches!(undef, Err(ErpcError::Error { reason, .. }) if reason == atom("undef")));
        let nowhere = at_host("gone");
        let gone = client.erpc(&nowhere, ("erlang", "node"), 0, |_| {}, LONG);
        assert_eq!(smol::block_on(gone), Err(ErpcError::NoConnection));
    });
}

/// `Elixir.Rust:sum/1` at once, `later/1` from another thread, `never/0` not at all.
struct Mine;

impl Functions for Mine {
    fn apply(&self, call: &FunctionCall<'_>, context: &mut Context<'_>) -> Option<Answer> {
        match (call.module, call.function, call.arguments) {
            ("Elixir.Rust", "sum", [numbers]) => {
                let numbers = elements(*numbers)?;
                let sum = numbers.iter().map(|number| number.as_unsigned().unwrap_or(0)).sum();
                Some(Answer::value(|w| _ = w.unsigned(sum)))
            }
            ("Elixir.Rust", "later", [value]) => {
                let (deferred, answer) = match context.defer(call) {
                    Ok(deferred) => deferred,
                    Err(answer) => return Some(answer),
                };
                let value = value.bytes().to_vec();
                std::thread::spawn(move || deferred.answer(Ok(value)));
                Some(answer)
            }
            ("Elixir.Rust", "never", []) => {
                Some(context.defer(call).map_or_else(|full| full, |(_, answer)| answer))
            }
            _ => None,
        }
    }
}

#[test]
fn functions_of_a_library_user_are_called_by_a_beam() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let (client, store) = start(&epmd);
        client.serve(Arc::new(Mine));
        beam.ping(&store.node);
        beam.run(&format!("n = :\"{}\"", store.node));
        beam.check(":erpc.call(n, Rust, :sum, [[1, 2, 3]])", "6");
        beam.check(":erpc.call(n, Rust, :sum, [[1, 2, 300]])", "303");
        beam.check("for i <- 1..100, do: ^i = :rpc.call(n, Rust, :later, [i]); :ok", ":ok");
        beam.check(":rpc.block_call(n, Rust, :later, [{:a, 1}])", "{:a, 1}");
        beam.check(
            "send({:rex, n}, {self(), {:call, Rust, :later, [1], :user}}); receive do m -> m end",
            "{:rex, 1}",
        );
        beam.check(":rpc.call(n, Rust, :never, [])", "{:badrpc, {:EXIT, :killed}}");
        beam.check(
            ":rpc.call(n, Rust, :other, [])",
            "{:badrpc, {:EXIT, {:undef, [{Rust, :other, [], []}]}}}",
        );
        beam.check(":rpc.call(n, :erlang, :node, []) == n", "true");
        // Nested as deep as nobody needs: an error, and no time is lost over it.
        beam.run("deep = Enum.reduce(1..100_000, [:erlang, :node, []], fn _, a -> [:erlang, :apply, a] end)");
        beam.check(
            "match?({:badrpc, {:EXIT, {:badarg, _}}}, :rpc.call(n, :erlang, :apply, deep, 20_000))",
            "true",
        );
    });
}
