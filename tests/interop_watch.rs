//! `{:watch, options}` by processes of every OTP version: each change once and in order, beside several writers, behind an earlier
//! number, over ends of processes, nodes and stores; at slaves; and watchers that mean harm or are slow.

#![cfg(feature = "program")]

mod support;

use rustix::process::Signal;
use support::cluster::{Cluster, around_a_kill, around_a_kill_with, call, in_etcd, on_disk};
use support::{BeamNode, EtcdCluster, KvNode, Otp, at_once_on_oldest_and_newest, on_every_otp};

/// Functions of the test's own: `ask`, `watcher`, which gives a process that keeps what it is told, and `heard`, which gives that. A
/// watcher ends where it is told something twice or out of order.
const WATCHER: &str = "
    ask = fn store, request -> GenServer.call({:global, store}, request, 20_000) end
    loop = fn loop, ref, seq, told ->
      receive do
        {:kvnode, ^ref, :overrun} -> loop.(loop, ref, seq, [:overrun | told])
        {:kvnode, ^ref, {at, :current}} -> loop.(loop, ref, at, [:current | told])
        {:kvnode, ^ref, event} ->
          at = elem(event, 0)
          is_shown = seq == :initial
          true = is_shown or at > seq
          loop.(loop, ref, if(is_shown, do: seq, else: at), [event | told])
        {:heard, from} ->
          send(from, {:heard, self(), {seq, Enum.reverse(told)}})
          loop.(loop, ref, seq, told)
        {:unwatch, store} ->
          :ok = ask.(store, {:unwatch, ref})
          loop.(loop, ref, seq, told)
      end
    end
    watcher = fn store, opts ->
      parent = self()
      pid = spawn(fn ->
        {:ok, ref, seq} = ask.(store, {:watch, opts})
        send(parent, {:watches, self(), ref, seq})
        loop.(loop, ref, if(opts[:initial], do: :initial, else: seq), [])
      end)
      receive do {:watches, ^pid, _, _} -> pid after 20_000 -> :not_told end
    end
    heard = fn pid ->
      send(pid, {:heard, self()})
      receive do {:heard, ^pid, heard} -> heard after 20_000 -> :not_told end
    end
    events = fn pid -> pid |> heard.() |> elem(1) end
    # What a watcher was told, applied.
    pairs = fn told, begin ->
      Enum.reduce(told, begin, fn
        {_, :put, key, value}, map -> Map.put(map, key, value)
        {_, _, key}, map -> Map.delete(map, key)
        {_, :clear}, _map -> %{}
        :current, map -> map
      end)
    end
    everything = fn store -> {entries, :done} = ask.(store, {:scan, limit: 16_000}); Map.new(entries) end";

/// Writers at once, at a store that is watched from before, in the midst and behind a number.
fn check_order(beam: &BeamNode) {
    beam.run(WATCHER);
    beam.run("first = watcher.(:master, [])");
    beam.run("keys_only = watcher.(:master, values: false, match: {:even, :_})");
    beam.run(
        "write = fn ->
           1..4
           |> Enum.map(fn writer -> Task.async(fn ->
             for n <- 1..300 do
               key = if rem(n, 2) == 0, do: {:even, rem(n, 40)}, else: {:odd, rem(n, 40), writer}
               case rem(n, 5) do
                 0 -> ask.(:master, {:delete, key})
                 1 -> ask.(:master, {:put_many, [{key, n}, {{:even, writer}, {n, writer}}]})
                 2 -> ask.(:master, {:transact, [], [{:add, {:sum, writer}, n}, {:delete, key}]})
                 _ -> ask.(:master, {:put, key, {writer, n, 1.0, <<5::3>>, self(), %{0 => [n]}}})
               end
             end
           end) end)
         end",
    );
    beam.run("writers = write.()");
    beam.run("midst = watcher.(:master, initial: true)");
    beam.run("Enum.each(writers, &Task.await(&1, 60_000))");
    beam.check_soon("pairs.(events.(first), %{}) === everything.(:master)", "true");
    beam.check_soon("pairs.(events.(midst), %{}) === everything.(:master)", "true");
    // Two watchers are told the same, and one behind a number the rest of it.
    beam.check_soon("length(events.(first)) == 1_680", "true");
    beam.run("seq = events.(first) |> Enum.at(700) |> elem(0)");
    beam.run("again = watcher.(:master, from: seq)");
    beam.check_soon("events.(again) === Enum.filter(events.(first), &(elem(&1, 0) > seq))", "true");
    beam.check_soon(
        "events.(keys_only) ===
           (for e <- events.(first), match?({:even, _}, elem(e, 2)), do: e |> Tuple.to_list() |> Enum.take(3) |> List.to_tuple())",
        "true",
    );
    // The number of a put is its revision.
    beam.run(
        "ask.(:master, {:put, :revised, 1}); {:ok, 1, revision} = ask.(:master, {:fetch_revision, :revised})",
    );
    beam.check_soon("match?({^revision, :put, :revised, 1}, List.last(events.(first)))", "true");
    beam.check("ask.(:master, {:put, :short, 1, ttl: 1})", ":ok");
    beam.check_soon("match?({_, :expire, :short}, List.last(events.(first)))", "true");
    beam.run("send(first, {:unwatch, :master}); before = length(events.(first))");
    beam.check("ask.(:master, {:put, :unseen, 1})", ":ok");
    beam.check_soon("match?({_, :put, :unseen, 1}, List.last(events.(again)))", "true");
    beam.check("length(events.(first)) == before", "true");
    beam.check("ask.(:master, {:unwatch, make_ref()})", "{:error, :no_watch}");
    beam.check("ask.(:master, {:watch, form: 1})", "{:error, {:unknown_option, :form}}");
    beam.check("ask.(:master, {:watch, from: 0})", "{:error, :too_old}");
}

/// How many watches the store of a node has.
fn watches(node: &KvNode) -> String {
    format!(
        "(store = hd(GenServer.call({{:kvnode, :\"{}\"}}, :status).stores)).watches.watchers",
        node.name()
    )
}

#[test]
fn a_store_in_memory_tells_every_change_in_order() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let _master = cluster.node("master", "");
        check_order(&cluster.beam);
    });
}

#[test]
fn a_store_on_disk_tells_every_change_in_order_and_goes_on_after_it_was_killed() {
    let before = |beam: &BeamNode| {
        check_order(beam);
        beam.run("{last, _} = heard.(again)");
    };
    let after = |beam: &BeamNode| {
        beam.run("behind = watcher.(:master, from: last)");
        beam.check("ask.(:master, {:put_many, [{:a, 1}, {:b, 2}]})", ":ok");
        beam.check_soon("for({_, :put, key, _} <- events.(behind), do: key)", "[:a, :b]");
        beam.check("ask.(:master, {:watch, from: last - 1})", "{:error, :too_old}");
        beam.check("ask.(:master, {:watch, from: last + 100})", "{:error, :too_old}");
    };
    on_every_otp(|otp| around_a_kill(otp, "master", "", before, after));
}

#[test]
fn a_store_in_etcd_tells_every_change_in_order() {
    let before = |beam: &BeamNode| {
        check_order(beam);
        beam.run("{last, _} = heard.(again)");
    };
    // A node that was started again knows none of the changes before.
    let after = |beam: &BeamNode| {
        beam.check("ask.(:master, {:watch, from: last})", "{:error, :too_old}");
        beam.run("anew = watcher.(:master, initial: true)");
        beam.check_soon("pairs.(events.(anew), %{}) === everything.(:master)", "true");
    };
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        around_a_kill_with(otp, "master", &in_etcd(&etcd), before, after);
    });
}

#[test]
fn a_slave_tells_what_its_primary_writes_and_goes_on_when_it_is_promoted() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let master = cluster.node("master", "");
        let _slave = cluster.node("slave", "");
        beam.run(WATCHER);
        beam.check("for n <- 1..500, do: :ok = ask.(:master, {:put, n, {n}}); :ok", ":ok");
        cluster.add_in_step("slave");
        beam.run("here = watcher.(:slave, initial: true); there = watcher.(:master, initial: true)");
        beam.check_soon("pairs.(events.(here), %{}) === everything.(:master)", "true");
        beam.check(
            "for n <- 1..300 do
               :ok = ask.(:master, {:put, rem(n, 50), n})
               :ok = ask.(:master, {:delete, rem(n * 7, 50)})
             end
             :ok",
            ":ok",
        );
        beam.run("changes = fn pid -> for e <- events.(pid), e != :current, do: Tuple.delete_at(e, 0) end");
        beam.check_soon(
            "Enum.drop(changes.(here), 500) === Enum.drop(changes.(there), 500) and length(changes.(here)) == 1_100",
            "true",
        );
        // Its numbers are its own.
        beam.run("{seq, _} = heard.(here); {primary_seq, _} = heard.(there)");
        beam.check("ask.(:slave, {:watch, from: primary_seq})", "{:error, :too_old}");
        beam.check("ask.(:master, {:watch, from: seq})", "{:error, :too_old}");
        master.kill(&cluster.epmd);
        beam.check_soon(&call("slave", "{:promote}"), ":ok");
        beam.check("ask.(:slave, {:put, :own, 1})", ":ok");
        beam.check_soon("match?({at, :put, :own, 1} when at > seq, List.last(events.(here)))", "true");
        beam.run("again = watcher.(:slave, from: seq)");
        beam.check_soon("for({_, :put, key, _} <- events.(again), do: key)", "[:own]");
    });
}

#[test]
fn a_clear_is_one_event_at_its_primary_and_at_slaves() {
    on_every_otp(|otp| {
        let dir = tempfile::tempdir().expect("a folder");
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _master = cluster.node("master", "");
        let _slave = cluster.node("slave", "");
        let _disk = cluster.node("disk", &on_disk(dir.path()));
        beam.run(WATCHER);
        for slave in ["slave", "disk"] {
            cluster.add_in_step(slave);
        }
        beam.check("ask.(:master, {:put_many, for(n <- 1..300, do: {n, {n}})})", ":ok");
        beam.check("ask.(:master, {:put, :last, 1, confirm: 2})", ":ok");
        beam.run(
            "here = watcher.(:slave, initial: true); there = watcher.(:master, initial: true); \
             other = watcher.(:master, match: {:none, :_}); kept = watcher.(:disk, initial: true)",
        );
        beam.check("ask.(:master, {:put_many, for(n <- 1..20, do: {n, n})})", ":ok");
        beam.check_soon("match?({_, :put, 20, 20}, List.last(events.(there)))", "true");
        beam.run("{before, _} = heard.(there)");
        beam.check("ask.(:master, {:clear, confirm: 2})", ":ok");
        beam.check("ask.(:master, {:put, :behind, 1, confirm: 2})", ":ok");
        // At the primary: one number, whatever is watched.
        beam.check_soon(
            "Enum.take(events.(there), -2) === [{before + 1, :clear}, {before + 2, :put, :behind, 1}]",
            "true",
        );
        beam.check_soon("events.(other) === [{before + 1, :clear}]", "true");
        // At slaves too, by a number of theirs.
        for told in ["here", "kept"] {
            beam.check_soon(
                &format!(
                    "case Enum.take(events.({told}), -2) do
                       [{{at, :clear}}, {{next, :put, :behind, 1}}] when next == at + 1 -> true
                       others -> others
                     end"
                ),
                "true",
            );
            beam.check(&format!("pairs.(events.({told}), %{{}})"), "%{behind: 1}");
            beam.check(&format!("Enum.any?(events.({told}), &match?({{_, :delete, _}}, &1))"), "false");
        }
        // Behind a number, and without a gap.
        beam.run("behind = watcher.(:master, from: before)");
        beam.check_soon("events.(behind) === Enum.take(events.(there), -2)", "true");
    });
}

#[test]
fn a_watcher_of_a_prefix_is_told_of_keys_that_begin_so_and_of_no_others() {
    on_every_otp(|otp| a_watcher_of_a_prefix(otp, ""));
}

#[test]
fn so_is_a_watcher_of_a_prefix_of_a_store_in_etcd() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        a_watcher_of_a_prefix(otp, &in_etcd(&etcd));
    });
}

fn a_watcher_of_a_prefix(otp: &Otp, args: &str) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let _master = cluster.node("master", args);
    beam.run(WATCHER);
    beam.check("ask.(:master, {:put, {:user, 1}, :shown})", ":ok");
    beam.run(
        "tuples = watcher.(:master, initial: true, prefix: {:user, 1}); lists = watcher.(:master, prefix: [1])
         binaries = watcher.(:master, prefix: \"a\")
         all = [{:user, 1, :x}, {:user, 2}, {:user}, [1], [1, 2], [2], ~c\"a\", \"ab\", \"a\", \"b\", :a, 1, %{}]
         for key <- all, do: :ok = ask.(:master, {:put, key, 1})
         :ok = ask.(:master, {:put, :last, 1})
         keys = fn pid -> for {_, :put, key, _} <- events.(pid), do: key end",
    );
    beam.check_soon("keys.(tuples)", "[{:user, 1}, {:user, 1, :x}]");
    beam.check_soon("keys.(lists) === [[1], [1, 2]]", "true");
    beam.check_soon("keys.(binaries)", "[\"ab\", \"a\"]");
}

#[test]
fn a_watch_is_over_with_its_process_its_node_and_where_its_node_is_too_slow() {
    on_every_otp(|otp| a_watch_is_over(otp, ""));
}

#[test]
fn so_is_a_watch_of_a_store_in_etcd() {
    let etcd = EtcdCluster::start_in_memory(1);
    a_watch_is_over(&Otp::newest(), &in_etcd(&etcd));
}

fn a_watch_is_over(otp: &Otp, args: &str) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let master = cluster.node("master", args);
    let other = BeamNode::start(otp, &cluster.epmd, "other");
    other.ping(beam.name());
    other.wait_for_global("master");
    for node in [beam, &other] {
        node.run(WATCHER);
    }
    beam.run("stays = watcher.(:master, []); ends = for _ <- 1..50, do: watcher.(:master, [])");
    other.run("slow = watcher.(:master, [])");
    beam.check_soon(&watches(&master), "52");
    beam.run("Enum.each(ends, &Process.exit(&1, :kill))");
    beam.check_soon(&watches(&master), "2");
    // It stands still, and much is written.
    other.signal(Signal::STOP);
    beam.check(
        "value = String.duplicate(\"v\", 100_000)
         for n <- 1..1_500, do: :ok = ask.(:master, {:put, rem(n, 10), value})
         :ok",
        ":ok",
    );
    beam.check_soon("length(events.(stays)) == 1_500", "true");
    other.signal(Signal::CONT);
    other.check_soon("Enum.count(events.(slow), &(&1 == :overrun))", "1");
    beam.check(&format!("{}; store.watches.overruns", watches(&master)), "1");
    beam.check_soon(&watches(&master), "1");
    // It begins again, and is lost with its node.
    other.run("again = watcher.(:master, initial: true)");
    other.check_soon("pairs.(events.(again), %{}) === everything.(:master)", "true");
    beam.check_soon(&watches(&master), "2");
    other.kill(&cluster.epmd);
    beam.check_soon(&watches(&master), "1");
}

#[test]
fn watchers_by_the_hundred_thousand_are_bounded_and_told() {
    watchers_are_bounded("");
}

#[test]
fn so_are_watchers_of_a_store_in_etcd() {
    let etcd = EtcdCluster::start_in_memory(1);
    watchers_are_bounded(&in_etcd(&etcd));
}

fn watchers_are_bounded(args: &str) {
    let otp = Otp::newest();
    let cluster = Cluster::new(&otp);
    let beam = &cluster.beam;
    let _master = cluster.node("master", args);
    beam.run(WATCHER);
    beam.run("store = :global.whereis_name(:master)");
    beam.run(
        "many = spawn(fn ->
           refs = for _ <- 1..100, tag <- (for _ <- 1..1_000 do
             tag = make_ref()
             send(store, {:\"$gen_call\", {self(), tag}, {:watch, match: :none}})
             tag
           end) do
             receive do {^tag, {:ok, ref, _}} -> ref end
           end
           receive do {:refs, from} -> send(from, {:refs, refs}) end
           Process.sleep(:infinity)
         end)
         send(many, {:refs, self()})
         receive do {:refs, refs} -> length(Enum.uniq(refs)) after 120_000 -> :late end",
    );
    beam.check("ask.(:master, {:watch, []})", "{:error, {:too_many, 100000}}");
    // Others are served meanwhile.
    beam.check("for n <- 1..100, do: :ok = ask.(:master, {:put, n, n}); :ok", ":ok");
    beam.run("Process.exit(many, :kill)");
    beam.check_soon("match?({:ok, _, _}, ask.(:master, {:watch, []}))", "true");
}
