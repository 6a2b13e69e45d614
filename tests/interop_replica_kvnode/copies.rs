//! Copies that appear whole, values that never go back, writes that wait for slaves, chains and circles.

use crate::support::cluster::{Cluster, call, on_disk, roles, same, states};
use crate::support::{KvNode, Otp, at_once_on_every_otp};

#[test]
fn a_copy_appears_whole_and_the_slave_says_whom_it_follows() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, _master) = (&cluster.beam, cluster.node("master", ""));
        let _slave = cluster.node("slave", "");
        beam.run("for i <- 1..20_000, do: KeyValueStoreDistributed.put(i, :new)");
        beam.run(&format!("for i <- 1..20_000, do: {}", call("slave", "{:put, i, :old}")));
        // A reader that sees the new value of one key has to see it of every key that it reads afterwards.
        beam.run(&format!(
            "get = fn i -> {} end
             reader = Task.async(fn ->
               Stream.repeatedly(fn -> Enum.map(1..200, fn _ -> get.(:rand.uniform(20_000)) end) end)
               |> Enum.reduce_while({{:old, 0}}, fn seen, {{last, halves}} ->
                 halves = if Enum.dedup([last | seen]) in [[:old], [:new], [:old, :new]], do: halves, else: halves + 1
                 if List.last(seen) == :new, do: {{:halt, halves}}, else: {{:cont, {{:old, halves}}}}
               end)
             end); :ok",
            call("slave", "{:get, i}")
        ));
        cluster.add("master", "slave", ":ok");
        beam.check("Task.await(reader, 60_000)", "0");
        cluster.follows("slave", "master");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check("[%{kind: :kvnode}] = GenServer.call({:global, :master}, :status).slaves; :ok", ":ok");
        beam.check_soon(
            &format!(
                "with %{{state: :following, lag: 0, seq: seq}} <- {}.primary, do: is_integer(seq)",
                call("slave", ":status")
            ),
            "true",
        );
        beam.check(&call("master", "{:remove_slave, {:global, :slave}}"), ":ok");
        beam.check_soon(&format!("{}.role", call("slave", ":status")), ":single");
    });
}

#[test]
fn a_reader_of_a_slave_never_sees_a_value_older_than_one_it_saw_before() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, master) = (&cluster.beam, cluster.node("master", ""));
        let slave = cluster.node("slave", "");
        beam.run("for i <- 1..2_000, do: KeyValueStoreDistributed.put({:other, i}, i)");
        cluster.add("master", "slave", ":ok");
        cluster.follows("slave", "master");
        beam.run(&format!(
            "writer = Task.async(fn -> for i <- 1..30_000, do: :ok = {put} end)
             reader = Task.async(fn ->
               Stream.repeatedly(fn -> {get} || 0 end)
               |> Enum.reduce_while({{0, 0}}, fn now, {{last, back}} ->
                 back = if now < last, do: back + 1, else: back
                 if now == 30_000, do: {{:halt, back}}, else: {{:cont, {{now, back}}}}
               end)
             end); :ok",
            put = call("master", "{:put, :count, i}"),
            get = call("slave", "{:get, :count}"),
        ));
        // The connection between the two is lost again and again, meanwhile.
        for _ in 0..5 {
            let mark = master.log_mark();
            cluster.cut(&master, &slave);
            master.wait_for_log_after(mark, &["slave", "slave found"]);
        }
        beam.check("Task.await(reader, 60_000)", "0");
        beam.check_soon(&same("master", "slave"), "true");
    });
}

#[test]
fn a_write_is_answered_when_so_many_slaves_have_it() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, _master) = (&cluster.beam, cluster.node("master", "--confirm 2 --confirm-timeout 3000"));
        let _slave = cluster.node("slave", "");
        beam.check("KeyValueStoreDistributed.put(1, 1)", "{:error, {:unconfirmed, 0, 2}}");
        beam.check("KeyValueStoreDistributed.get(1)", "1");
        beam.check(&call("master", "{:put, 2, 2, confirm: 0}"), ":ok");
        cluster.add("master", "slave", ":ok");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check(&call("master", "{:put, 3, 3, confirm: 1}"), ":ok");
        beam.check(&call("slave", "{:get, 3}"), "3");
        beam.check(&call("master", "{:put, 3, 4}"), "{:error, {:unconfirmed, 1, 2}}");
        beam.run("{:ok, elixir} = KeyValueStoreDistributed.start_link(:elixir); Process.unlink(elixir)");
        cluster.add("master", "elixir", ":ok");
        beam.check_soon(&states("master"), "[in_step: 0, in_step: 0]");
        // What was answered is there, at both.
        beam.check(
            "for(i <- 1..500) do
               :ok = KeyValueStoreDistributed.put(i, {:confirmed, i})
               for n <- [:slave, :elixir], do: {:confirmed, ^i} = GenServer.call({:global, n}, {:get, i})
             end |> length",
            "500",
        );
        beam.check("KeyValueStoreDistributed.delete(3)", ":ok");
        beam.check(&call("elixir", "{:get, 3}"), "nil");
        beam.check(&call("master", "{:delete, 4, confirm: 3}"), "{:error, {:unconfirmed, 2, 3}}");
        beam.check(
            "1..64 |> Task.async_stream(fn i -> KeyValueStoreDistributed.put(i, 1) end, max_concurrency: 64)
             |> Enum.all?(&(&1 == {:ok, :ok}))",
            "true",
        );
        beam.check(&call("master", "{:put, 1, 1, nonsense: 1}"), "{:error, {:unknown_option, :nonsense}}");
    });
}

#[test]
fn circles_are_refused_and_chains_of_any_kind_converge() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _nodes: Vec<KvNode> = ["a", "b", "c"].iter().map(|name| cluster.node(name, "")).collect();
        cluster.add("a", "a", "{:error, :itself}");
        beam.check(&call("a", "{:add_slave, :KeyValueStore}"), ":ok");
        beam.check(&call("a", "{:add_slave, KeyValueStore}"), "{:error, :itself}");
        beam.check(&call("a", "{:remove_slave, :KeyValueStore}"), ":ok");
        cluster.add("a", "b", ":ok");
        cluster.add("b", "a", "{:error, :cycle}");
        cluster.add("b", "c", ":ok");
        cluster.add("c", "a", "{:error, :cycle}");
        cluster.add("a", "b", ":ok");
        beam.check(&call("a", ":slaves"), "[global: :b]");
        beam.check(&call("c", ":slaves"), "[]");
        cluster.add("a", "c", "{:error, :has_primary}");
        beam.check(&call("a", ":slaves"), "[global: :b]");
        beam.run("{:ok, d} = KeyValueStoreDistributed.start_link(:d); Process.unlink(d)");
        cluster.add("c", "d", ":ok");
        beam.run(&format!("for i <- 1..2_000, do: {}", call("a", "{:put, i, i}")));
        beam.run(&format!("for i <- 1..100, do: {}", call("a", "{:delete, i}")));
        for name in ["b", "c", "d"] {
            beam.check_soon(&same("a", name), "true");
        }
        // Removed, it is free to be the primary.
        beam.check(&call("a", "{:remove_slave, {:global, :b}}"), ":ok");
        beam.check_soon(&format!("{}.role", call("b", ":status")), ":primary");
        cluster.add("c", "a", ":ok");
        beam.run(&format!("for i <- 1..10, do: {}", call("b", "{:put, i, :b}")));
        beam.check_soon(&same("b", "a"), "true");
    });
}

#[test]
fn ten_slaves_hold_what_their_primary_holds() {
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let stores: Vec<String> = (1..=9).map(|n| format!("--global s{n}")).collect();
    let _master = cluster.node("master", "");
    let _slaves =
        KvNode::start(&cluster.epmd, "slaves", &format!("--connect {} {}", beam.name(), stores.join(" ")));
    beam.run("{:ok, s10} = KeyValueStoreDistributed.start_link(:s10); Process.unlink(s10)");
    for n in 1..=10 {
        beam.wait_for_global(&format!("s{n}"));
        cluster.add("master", &format!("s{n}"), ":ok");
    }
    beam.run("for i <- 1..3_000, do: KeyValueStoreDistributed.put(i, {i, \"value\"})");
    for n in 1..=10 {
        beam.check_soon(&same("master", &format!("s{n}")), "true");
    }
    beam.check_soon(&format!("Enum.uniq({})", states("master")), "[in_step: 0]");
}

fn followed(nodes: &[&KvNode]) -> usize {
    nodes.iter().map(|node| node.log().matches("following a primary").count()).sum()
}

#[test]
fn of_stores_that_add_each_other_at_once_one_becomes_the_slave_and_circles_of_three_are_broken() {
    const ROUNDS: usize = 12;
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let start = |name: &str| {
            let stores = |kind: &str| -> String {
                (1..=ROUNDS).map(|round| format!("--global {kind}{name}{round} ")).collect()
            };
            let args = format!("--connect {} {}{}", beam.name(), stores("pair"), stores("ring"));
            KvNode::start(&cluster.epmd, name, &args)
        };
        let nodes = ["a", "b", "c"].map(start);
        let nodes: Vec<&KvNode> = nodes.iter().collect();
        for name in ["a", "b", "c"] {
            for kind in ["pair", "ring"] {
                for round in 1..=ROUNDS {
                    beam.wait_for_global(&format!("{kind}{name}{round}"));
                }
            }
        }
        beam.run(&format!(
            "name = fn kind, of, round -> :\"#{{kind}}#{{of}}#{{round}}\" end
             for kind <- [:pair, :ring], of <- [:a, :b, :c], round <- 1..{ROUNDS}, key <- 1..30,
               do: GenServer.call({{:global, name.(kind, of, round)}}, {{:put, key, of}})
             add_all = fn kind, edges, round ->
               edges
               |> Enum.map(fn {{from, to}} ->
                 Task.async(fn ->
                   GenServer.call({{:global, name.(kind, from, round)}}, {{:add_slave, {{:global, name.(kind, to, round)}}}})
                 end)
               end)
               |> Enum.map(&Task.await/1)
             end; :ok"
        ));
        beam.check(
            &format!(
                "for round <- 1..{ROUNDS}, do: (Enum.sort(add_all.(:pair, [a: :b, b: :a], round)) in \
                 [[:ok, {{:error, :cycle}}], [:ok, :ok]] || :wrong)"
            ),
            &format!("{:?}", [true; ROUNDS]),
        );
        for round in 1..=ROUNDS {
            let pair = ["a", "b"].map(|of| format!("pair{of}{round}"));
            beam.check_soon(&roles(&pair), "[:primary, :slave]");
            beam.check_soon(&same(&pair[0], &pair[1]), "true");
            beam.check(&format!("{} in [:a, :b]", call(&pair[0], "{:get, 30}")), "true");
        }
        // No slave was copied to again and again.
        let lines = followed(&nodes);
        assert!((ROUNDS..=2 * ROUNDS).contains(&lines), "{lines} greetings were taken in {ROUNDS} pairs");
        beam.run(&format!("for round <- 1..{ROUNDS}, do: add_all.(:ring, [a: :b, b: :c, c: :a], round)"));
        for round in 1..=ROUNDS {
            let ring = ["a", "b", "c"].map(|of| format!("ring{of}{round}"));
            beam.check_soon(&format!("Enum.all?({}, &(&1 == :slave))", roles(&ring)), "false");
            // A slave holds what its primary holds.
            beam.check_soon(
                &format!(
                    "(for of <- [:a, :b, :c], primary = {{:global, name.(:ring, of, {round})}},
                          %{{name: slave}} <- GenServer.call(primary, :status).slaves, uniq: true do
                       GenServer.call(slave, :status).role == :slave and
                         :sys.get_state(slave).data == :sys.get_state(primary).data
                     end) in [[], [true]]"
                ),
                "true",
            );
        }
        let lines = followed(&nodes);
        assert!(lines <= 12 * ROUNDS, "{lines} greetings were taken");
    });
}

#[test]
fn a_slave_on_disk_that_is_started_again_has_what_its_primary_has() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let dir = tempfile::tempdir().expect("a folder can be made");
        let _master = cluster.node("master", "");
        let start = || cluster.node("slave", &on_disk(&dir.path().join("data")));
        let mut slave = start();
        cluster.add("master", "slave", ":ok");
        beam.run("for i <- 1..2_000, do: KeyValueStoreDistributed.put(i, i)");
        cluster.follows("slave", "master");
        for round in 0..2 {
            beam.check_soon(&states("master"), "[in_step: 0]");
            // In the middle of writes, and with more that it misses, deletions too.
            beam.run(&format!("for i <- 1..500, do: KeyValueStoreDistributed.put(i, {round})"));
            slave.kill(&cluster.epmd);
            beam.wait_for_no_global("slave");
            beam.run(&format!("for i <- 501..600, do: KeyValueStoreDistributed.put(i, {{{round}, i}})"));
            beam.run(&format!("for i <- 1..50, do: KeyValueStoreDistributed.delete(i + {round} * 1_000)"));
            slave = start();
            cluster.follows("slave", "master");
            beam.check_soon(&states("master"), "[in_step: 0]");
        }
    });
}

#[test]
fn a_name_that_goes_to_another_process_is_followed_there_while_the_first_one_lives() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _master = cluster.node("master", "");
        let _kv = cluster.node("kv", "");
        beam.run(
            "[first, second] = for _ <- 1..2, do: elem(GenServer.start(KeyValueStoreReplicated, %{}), 1)",
        );
        beam.check(":global.register_name(:slave, first)", ":yes");
        cluster.add("master", "slave", ":ok");
        beam.run("for i <- 1..100, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon("map_size(:sys.get_state(first).data)", "100");
        beam.check(":global.re_register_name(:slave, second)", ":yes");
        beam.check_soon("map_size(:sys.get_state(second).data)", "100");
        beam.check("KeyValueStoreDistributed.put(:now, 1)", ":ok");
        beam.check_soon("GenServer.call(second, {:get, :now})", "1");
        beam.check("GenServer.call(first, {:get, :now})", "nil");
        // To a kvnode's store, and from there: that store is told that it is a slave no more.
        beam.check(":global.re_register_name(:slave, :global.whereis_name(:kv))", ":yes");
        cluster.follows("kv", "master");
        beam.check(":global.re_register_name(:slave, first)", ":yes");
        beam.check_soon("GenServer.call(first, {:get, :now})", "1");
        beam.check_soon(&format!("{}.role", call("kv", ":status")), ":single");
    });
}

#[test]
fn a_slave_that_refused_is_none_after_a_restart() {
    let cluster = Cluster::new(&Otp::newest());
    let (beam, dir) = (&cluster.beam, tempfile::tempdir().expect("a folder can be made"));
    let args = on_disk(dir.path());
    let (a, _b, _q) = (cluster.node("a", &args), cluster.node("b", ""), cluster.node("q", ""));
    cluster.add("q", "b", ":ok");
    cluster.follows("b", "q");
    cluster.add("a", "b", "{:error, :has_primary}");
    beam.check(&call("a", "{:put, 1, 1}"), ":ok");
    a.kill(&cluster.epmd);
    beam.wait_for_no_global("a");
    let _a = cluster.node("a", &args);
    beam.check(&format!("{{{}, {}}}", call("a", ":slaves"), call("a", "{:get, 1}")), "{[], 1}");
}

#[test]
fn a_process_that_is_added_by_several_names_at_once_is_one_slave() {
    let cluster = Cluster::new(&Otp::newest());
    let (beam, _a) = (&cluster.beam, cluster.node("a", ""));
    beam.run("{:ok, pid} = KeyValueStoreDistributed.start_link(:several); Process.register(pid, :plain)");
    beam.run("names = [{:global, :several}, pid, {:plain, node()}]");
    for _ in 0..20 {
        let (add, remove) = (call("a", "{:add_slave, name}"), call("a", "{:remove_slave, name}"));
        beam.check(
            &format!("names |> Enum.map(&Task.async(fn -> name = &1; {add} end)) |> Task.await_many()"),
            "[:ok, :ok, :ok]",
        );
        beam.check_soon(&format!("length({})", call("a", ":slaves")), "1");
        beam.run(&format!("for name <- names, do: {remove}"));
    }
}

#[test]
fn a_slave_that_takes_no_values_so_large_says_so_and_keeps_its_connection() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, master) = (&cluster.beam, cluster.node("master", ""));
        let slave = cluster.node("slave", "--frame-bytes-max 1MiB");
        beam.run("KeyValueStoreDistributed.put(:small, 1)");
        cluster.add("master", "slave", ":ok");
        cluster.follows("slave", "master");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check(&call("master", "{:put, :large, :binary.copy(<<7>>, 3_000_000)}"), ":ok");
        // It is not in step, and a confirmed write knows it.
        beam.check_soon(&states("master"), "[failing: 1]");
        beam.check_soon(&format!("{}.primary.state", call("slave", ":status")), ":failing");
        beam.check("KeyValueStoreDistributed.put(:later, 2)", ":ok");
        beam.check(
            &format!("match?({{:error, _}}, {})", call("master", "{:put, :sure, 3, confirm: 1}")),
            "true",
        );
        master.wait_for_log(&["slave does not keep what it is sent", "--frame-bytes-max"]);
        slave.wait_for_log(&["ERROR", "it is told", "over the bound of 1048576"]);
        assert!(!slave.log().contains("peer down") && !master.log().contains("peer down"));
        // Without the value it is in step again.
        beam.check(&call("master", "{:delete, :large}"), ":ok");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check_soon(&same("master", "slave"), "true");
    });
}
