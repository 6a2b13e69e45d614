//! `scripts/kvnode.ex`, the requests as functions of Elixir: its examples give what stands under them, and it does what it says, on
//! every OTP version.

#![cfg(feature = "program")]

mod support;

use support::cluster::Cluster;
use support::{BeamNode, on_every_otp};

const SOURCE: &str = include_str!("../scripts/kvnode.ex");

/// Compiles it as a project would: with its docs, into a folder of the code path.
fn compile(beam: &BeamNode) {
    let code = format!(
        "Code.compiler_options(docs: true)
         folder = Path.join(System.tmp_dir!(), \"kvnode-ex-#{{System.pid()}}\")
         File.mkdir_p!(folder)
         file = Path.join(folder, \"kvnode.ex\")
         File.write!(file, {SOURCE:?})
         for {{module, binary}} <- Code.compile_file(file), do: File.write!(Path.join(folder, \"#{{module}}.beam\"), binary)
         Code.prepend_path(folder)
         for module <- [KvNode, KvNode.Error, KvNode.Watcher] do
           :code.purge(module)
           :code.delete(module)
           {{:module, ^module}} = :code.load_file(module)
         end"
    )
    // What Elixir reads otherwise in a string than Rust.
    .replace("\\'", "'");
    beam.run(
        &code
            .replace("#{", "\\#{")
            .replace("\\#{System.pid()}", "#{System.pid()}")
            .replace("\\#{module}", "#{module}"),
    );
}

#[test]
fn its_examples_give_what_stands_under_them() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _docs = cluster.node("docs", "--ordered");
        compile(beam);
        beam.run(
            "ExUnit.start(autorun: false, colors: [enabled: false])
             defmodule KvNodeExamples do
               use ExUnit.Case
               doctest KvNode
               doctest KvNode.Watcher
             end",
        );
        // As `mix test` does, where `run/1` does not.
        beam.run("if function_exported?(ExUnit.Server, :modules_loaded, 0), do: apply(ExUnit.Server, :modules_loaded, [])");
        beam.check("%{failures: 0, total: total} = ExUnit.run(); total >= 25", "true");
        beam.run("File.rm_rf!(folder)");
    });
}

#[test]
fn it_says_what_a_store_says_and_goes_on_where_others_write() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _master = cluster.node("master", "");
        let _slave = cluster.node("slave", "");
        compile(beam);
        beam.run("store = {:global, :master}");
        cluster.add("master", "slave", ":ok");
        cluster.follows("slave", "master");
        // Each of those that read the same value has its turn.
        beam.check(
            "1..4
             |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..50, do: {:ok, _} = KvNode.update(store, :sum, 1, &(&1 + 1)) end) end)
             |> Enum.each(&Task.await(&1, 60_000))
             KvNode.get(store, :sum)",
            "200",
        );
        beam.check("KvNode.put(store, :confirmed, 1, confirm: 1, timeout: 10_000)", ":ok");
        beam.check("KvNode.put(store, :confirmed, 2, confirm: 2)", "{:error, {:unconfirmed, 1, 2}}");
        beam.check("KvNode.put({:global, :slave}, :k, 1)", "{:error, {:slave_of, {:global, :master}}}");
        beam.check("KvNode.get({:global, :slave}, :confirmed)", "2");
        // What is to miss nothing is the primary's to answer.
        let slave_of = "{:error, {:slave_of, {:global, :master}}}";
        for read in [
            "fetch(STORE, :confirmed, OPTION)",
            "get_many(STORE, [:confirmed], OPTION)",
            "count(STORE, OPTION)",
            "scan(STORE, match: :confirmed, OPTION)",
        ] {
            let read = |store: &str, consistency: &str| {
                let option = format!("consistency: :{consistency}, timeout: 10_000");
                format!("KvNode.{}", read.replace("STORE", store).replace("OPTION", &option))
            };
            beam.check(&read("{:global, :slave}", "linearizable"), slave_of);
            let newest = read("store", "linearizable");
            beam.check(&format!("{newest} == {}", read("{:global, :slave}", "session")), "true");
        }
        beam.check("KvNode.has_key?(store, :confirmed, consistency: :linearizable)", "true");
        beam.check("KvNode.put(store, :k, 1, colour: :red)", "{:error, {:unknown_option, :colour}}");
        beam.check("KvNode.update_counter(store, :confirmed, :one)", "{:error, :not_an_integer}");
        let raised = |code: &str| format!("(try do {code} rescue error -> Exception.message(error) end)");
        beam.check(
            &raised("KvNode.stream(store, reverse: true) |> Enum.to_list()"),
            "\"the store answers {:error, :unordered}\"",
        );
        beam.check(
            "(try do KvNode.fetch!(store, :missing) rescue error in KeyError -> error.key end)",
            ":missing",
        );
        beam.check(
            &raised("KvNode.get(store, :k, nil, tiemout: 1)"),
            "\"what reads has no option :tiemout\"",
        );
        beam.check(
            &raised("KvNode.get({:global, :slave}, :confirmed, nil, consistency: :linearizable)"),
            "\"the store answers {:error, {:slave_of, {:global, :master}}}\"",
        );
        beam.check(
            &raised("KvNode.status(store, consistency: :session)"),
            "\"what reads has no option :consistency\"",
        );
        beam.check("KvNode.clear(store, confirm: 1, timeout: 10_000)", ":ok");
        beam.check("{KvNode.count(store), KvNode.count({:global, :slave})}", "{0, 0}");
        beam.check("{KvNode.clear(store), KvNode.clear(store, confirm: 0)}", "{:ok, :ok}");
        beam.check("KvNode.clear(store, ttl: 1)", "{:error, {:unknown_option, :ttl}}");
        beam.check("KvNode.clear({:global, :slave})", "{:error, {:slave_of, {:global, :master}}}");
        // Pages are asked for as they are wanted.
        beam.run("for n <- 1..1_000, do: :ok = KvNode.put(store, {:n, n}, n)");
        beam.check("store |> KvNode.stream(limit: 10) |> Enum.take(15) |> length()", "15");
        beam.check(
            "store |> KvNode.stream(limit: 10, match: {:n, :_}) |> Enum.sort() === (for n <- 1..1_000, do: {{:n, n}, n})",
            "true",
        );
        beam.run("File.rm_rf!(folder)");
    });
}

#[test]
fn a_watcher_goes_on_when_its_store_was_away() {
    on_every_otp(|otp| {
        let dir = tempfile::tempdir().expect("a folder");
        let args = format!("--data-dir {}", dir.path().display());
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        compile(beam);
        beam.run(
            "store = {:global, :master}
             {:ok, cache} = Agent.start(fn -> {%{}, 0, 0} end)
             notify = fn event -> Agent.update(cache, fn {map, resets, currents} ->
               case event do
                 :reset -> {%{}, resets + 1, currents}
                 {_, :current} -> {map, resets, currents + 1}
                 {_, :put, key, value} -> {Map.put(map, key, value), resets, currents}
                 {_, :clear} -> {%{}, resets, currents}
                 {_, _, key} -> {Map.delete(map, key), resets, currents}
               end
             end) end
             cached = fn -> Agent.get(cache, & &1) end
             spec = KvNode.Watcher.child_spec(store: store, match: {:k, :_}, initial: true, notify: notify, pause: 50)
             parent = self()
             spawn(fn ->
               {:ok, _} = Supervisor.start_link([spec], strategy: :one_for_one)
               send(parent, :started)
               Process.sleep(:infinity)
             end)
             receive do :started -> :ok end",
        );
        // The store is not there yet.
        let master = cluster.node("master", &args);
        beam.check("for n <- 1..1_000, do: :ok = KvNode.put(store, {:k, n}, n); :ok", ":ok");
        beam.check_soon("{map, 0, 1} = cached.(); map_size(map)", "1000");
        // What its store does not take ends it.
        beam.check(
            "{:ok, refused} = GenServer.start(KvNode.Watcher, store: store, match: :\"$1\", notify: & &1)
             monitor = Process.monitor(refused)
             receive do
               {:DOWN, ^monitor, _, _, {:refused, {:bad_call, {:watch, _}}}} -> :ended
               {:DOWN, ^monitor, _, _, :noproc} -> :ended_before
             after 10_000 -> :goes_on end in [:ended, :ended_before]",
            "true",
        );
        master.kill(&cluster.epmd);
        let master = cluster.node("master", &args);
        // What is written before it is watched again is not known to a store that was started.
        let watches = format!(
            "hd(GenServer.call({{:kvnode, :\"{}\"}}, :status).stores).watches.watchers",
            master.name()
        );
        beam.check_soon(&watches, "1");
        beam.check("KvNode.delete(store, {:k, 1}); KvNode.put(store, {:k, 2}, :new)", ":ok");
        // A watch that its process does not know of, as the answer came too late, ends with the first that it tells.
        beam.run(
            "{:ok, other} = GenServer.start(KvNode.Watcher, store: store, prefix: {:k}, notify: fn _ -> :ok end)
             :sys.replace_state(other, fn state -> {:ok, _, _} = KvNode.watch(store); state end)",
        );
        beam.check_soon(&watches, "3");
        beam.check("KvNode.put(store, {:k, 4}, 4)", ":ok");
        beam.check_soon(&watches, "2");
        beam.check("KvNode.put(store, {:k, 4}, :again); Process.alive?(other)", "true");
        beam.check("GenServer.stop(other)", ":ok");
        beam.check_soon(&watches, "1");
        // Nobody was told twice: what it has seen is where it goes on.
        beam.check_soon("{map, 0, 1} = cached.(); {map_size(map), map[{:k, 2}]}", "{999, :new}");
        beam.check("KvNode.clear(store); KvNode.put(store, {:k, 3}, :behind)", ":ok");
        beam.check_soon("{map, 0, 1} = cached.(); map", "%{{:k, 3} => :behind}");
        master.kill(&cluster.epmd);
        let _other = cluster.node("master", "");
        beam.check("KvNode.put(store, {:k, :other}, 1)", ":ok");
        beam.check_soon("{map, 1, 2} = cached.(); map", "%{{:k, :other} => 1}");
        beam.run("File.rm_rf!(folder)");
    });
}
