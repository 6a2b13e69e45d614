//! The three Elixir modules with kvnode in each of the parts: slave, primary, both.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, Otp, at_host, on_every_otp};

/// Writes at `{:global, :master}` by `KeyValueStoreDistributed` from `caller` and sees it at every slave.
fn replicates(caller: &BeamNode, slaves: &[&str]) {
    caller.check("KeyValueStoreDistributed.get(:nombre)", "nil");
    caller.check(r#"KeyValueStoreDistributed.put(:nombre, "Mafalda")"#, ":ok");
    caller.check(r#"KeyValueStoreDistributed.put({"any", [1.5]}, %{of: :them})"#, ":ok");
    caller.check("KeyValueStoreDistributed.get(:nombre)", r#""Mafalda""#);
    for slave in slaves {
        let get = |key: &str| format!("GenServer.call({{:global, :{slave}}}, {{:get, {key}}})");
        caller.check_soon(&get(":nombre"), r#""Mafalda""#);
        caller.check_soon(&get(r#"{"any", [1.5]}"#), "%{of: :them}");
    }
    caller.check(r#"KeyValueStoreDistributed.put(:nombre, "Felipe")"#, ":ok");
    caller.check(r#"KeyValueStoreDistributed.delete({"any", [1.5]})"#, ":ok");
    caller.check(r#"KeyValueStoreDistributed.get({"any", [1.5]})"#, "nil");
    for slave in slaves {
        let get = |key: &str| format!("GenServer.call({{:global, :{slave}}}, {{:get, {key}}})");
        caller.check_soon(&get(r#"{"any", [1.5]}"#), "nil");
        caller.check(&get(":nombre"), r#""Felipe""#);
    }
}

fn distributed_server(otp: &Otp, epmd: &Epmd, name: &str) -> BeamNode {
    let node = BeamNode::start(otp, epmd, name);
    node.check(&format!("{{:ok, _}} = KeyValueStoreDistributed.start_link(:{name}); :ok"), ":ok");
    node
}

#[test]
fn an_elixir_primary_replicates_to_kvnode_slaves_that_were_there_before_and_came_after() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let connect = format!("--connect {}", at_host("master"));
        let _slave1 = KvNode::start(&epmd, "slave1", &connect);
        let master = distributed_server(otp, &epmd, "master");
        let _slave2 = KvNode::start(&epmd, "slave2", &connect);
        for slave in ["slave1", "slave2"] {
            master.wait_for_global(slave);
            master.check(&format!("KeyValueStoreDistributed.add_slave(:{slave})"), ":ok");
        }
        replicates(&master, &["slave1", "slave2"]);
    });
}

#[test]
fn an_elixir_primary_connects_to_a_kvnode_slave_by_itself() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let slave = KvNode::start(&epmd, "slave1", "");
        let master = distributed_server(otp, &epmd, "master");
        master.ping(slave.name());
        master.wait_for_global("slave1");
        master.check("KeyValueStoreDistributed.add_slave(:slave1)", ":ok");
        replicates(&master, &["slave1"]);
    });
}

#[test]
fn kvnode_replicates_to_elixir_slaves() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let slave1 = distributed_server(otp, &epmd, "slave1");
        let connect = format!("--connect {} --connect {}", at_host("slave1"), at_host("slave2"));
        let _master = KvNode::start(&epmd, "master", &connect);
        let slave2 = distributed_server(otp, &epmd, "slave2");
        slave1.ping(slave2.name());
        for node in [&slave1, &slave2] {
            node.wait_for_global("master");
        }
        slave1.check("KeyValueStoreDistributed.add_slave(:slave1)", ":ok");
        slave2.check("KeyValueStoreDistributed.add_slave(:slave2)", ":ok");
        replicates(&slave2, &["slave1", "slave2"]);
    });
}

#[test]
fn kvnode_replicates_to_kvnode() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let connect = format!("--connect {}", at_host("client"));
        let _slave1 = KvNode::start(&epmd, "slave1", &connect);
        let _master = KvNode::start(&epmd, "master", &format!("{connect} --slave global:slave1"));
        let _slave2 = KvNode::start(&epmd, "slave2", &connect);
        let client = BeamNode::start(otp, &epmd, "client");
        for name in ["master", "slave1", "slave2"] {
            client.wait_for_global(name);
        }
        client.check("KeyValueStoreDistributed.add_slave(:slave2)", ":ok");
        replicates(&client, &["slave1", "slave2"]);
    });
}

#[test]
fn local_names_make_primaries_and_slaves_on_either_side() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--local master --local slave1 --local slave2");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.check("{:ok, _} = KeyValueStoreReplicated.start_link(:master); :ok", ":ok");
        beam.check("{:ok, _} = KeyValueStoreReplicated.start_link(:slave3); :ok", ":ok");
        beam.run(&format!("kv = :\"{}\"", kv.name()));

        // Elixir's primary, and {name, node} for a slave of ours.
        beam.check("KeyValueStoreReplicated.add_slave({:slave1, kv})", ":ok");
        beam.check("KeyValueStoreReplicated.put(:from, :elixir)", ":ok");
        beam.check_soon("GenServer.call({:slave1, kv}, {:get, :from})", ":elixir");
        beam.check("KeyValueStoreReplicated.delete(:from)", ":ok");
        beam.check_soon("GenServer.call({:slave1, kv}, {:get, :from})", "nil");

        // Ours: a name on its own node, {name, node}, and a pid.
        beam.check("GenServer.call({:master, kv}, {:add_slave, :slave2})", ":ok");
        beam.check("GenServer.call({:master, kv}, {:add_slave, {:slave3, node()}})", ":ok");
        // A process that is no server is asked what it has too, and is told the writes all the same.
        beam.check("GenServer.call({:master, kv}, {:add_slave, self()})", ":ok");
        beam.check("GenServer.call({:master, kv}, {:put, :from, :kvnode})", ":ok");
        beam.check_soon("GenServer.call({:slave2, kv}, {:get, :from})", ":kvnode");
        beam.check_soon("GenServer.call(:slave3, {:get, :from})", ":kvnode");
        beam.check(
            r#"receive do {:"$gen_cast", _} = m -> m after 20_000 -> nil end"#,
            r#"{:"$gen_cast", {:replicate_put, :from, :kvnode}}"#,
        );
        beam.check("GenServer.call({:master, kv}, {:delete, :from})", ":ok");
        beam.check_soon("GenServer.call({:slave2, kv}, {:get, :from})", "nil");
        beam.check_soon("GenServer.call(:slave3, {:get, :from})", "nil");
        beam.check(
            r#"receive do {:"$gen_cast", _} = m -> m after 20_000 -> nil end"#,
            r#"{:"$gen_cast", {:replicate_delete, :from}}"#,
        );
        // Nobody but the slaves was written to.
        beam.check("GenServer.call({:slave1, kv}, {:get, :from})", "nil");
    });
}

#[test]
fn a_slave_that_is_named_before_it_is_there_misses_nothing() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.check("GenServer.call({:global, :kv}, {:add_slave, {:later, node()}})", ":ok");
        beam.check(r#"GenServer.call({:global, :kv}, {:add_slave, {:global, {"any", 1}}})"#, ":ok");
        beam.check("for i <- 1..5, do: :ok = GenServer.call({:global, :kv}, {:put, i, i}); :ok", ":ok");
        kv.wait_for_log(&["slave not found", ":later"]);
        beam.check("{:ok, _} = KeyValueStoreReplicated.start_link(:later); :ok", ":ok");
        beam.check(r#"{:ok, _} = KeyValueStoreDistributed.start_link({"any", 1}); :ok"#, ":ok");
        for server in [":later", r#"{:global, {"any", 1}}"#] {
            beam.check_soon(
                &format!("for i <- 1..5, do: GenServer.call({server}, {{:get, i}})"),
                "[1, 2, 3, 4, 5]",
            );
        }
    });
}

#[test]
fn a_store_is_not_its_own_slave_and_a_dead_pid_is_none() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--store global:kv,global:too,local:own");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("too");
        let own = format!("{{:own, :\"{}\"}}", kv.name());
        for slave in [":own", ":global.whereis_name(:too)", &own, "{:global, :too}"] {
            beam.check(
                &format!("GenServer.call({{:global, :kv}}, {{:add_slave, {slave}}})"),
                "{:error, :itself}",
            );
        }
        kv.wait_for_log(&["a store cannot be its own slave", ":too"]);
        beam.check("p = spawn(fn -> :ok end); GenServer.call({:global, :kv}, {:add_slave, p})", ":ok");
        kv.wait_for_log(&["slave dropped"]);
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        beam.check("GenServer.call({:own, :\"KV\"}, {:get, 1})".replace("KV", kv.name()).as_str(), "2");
    });
}

#[test]
fn a_store_is_the_same_by_module_name_by_global_name_and_by_pid() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "slave1", &format!("--connect {}", at_host("beam")));
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.wait_for_global("slave1");
        beam.run(&format!("named = {{KeyValueStore, :\"{}\"}}; global = {{:global, :slave1}}", kv.name()));
        beam.run("pid = :global.whereis_name(:slave1); all = [named, global, pid]");
        beam.check("node(pid) == elem(named, 1)", "true");
        beam.check(
            r#"
            for a <- all, b <- all do
              key = {a, b}
              nil = GenServer.call(b, {:get, key})
              :ok = GenServer.call(a, {:put, key, {:value, key}})
              {:value, ^key} = GenServer.call(b, {:get, key})
              :ok = GenServer.call(b, {:delete, key})
              nil = GenServer.call(a, {:get, key})
              :ok = GenServer.call(a, {:delete, key})
            end
            |> length()
            "#,
            "9",
        );
        beam.run("GenServer.call(pid, {:put, :who, :everyone})");
        beam.check(
            "GenServer.multi_call([node(pid)], KeyValueStore, {:get, :who}) == {[{node(pid), :everyone}], []}",
            "true",
        );
        // Two callers at once, by one process, answered in any order.
        beam.check(
            r#"
            ids = for _ <- 1..2, do: :gen_server.send_request(pid, {:get, :who})
            for id <- ids, do: :gen_server.wait_response(id, 20_000)
            "#,
            "[reply: :everyone, reply: :everyone]",
        );
    });
}

#[test]
fn each_store_of_a_node_has_its_own_pairs() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let args = "--global one --store global:two,local:zwei --local three";
        let kv = KvNode::start(&epmd, "kv", args);
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("one");
        beam.wait_for_global("two");
        beam.run(&format!("kv = :\"{}\"", kv.name()));
        beam.run("stores = [{:global, :one}, {:global, :two}, {:three, kv}]");
        beam.run("for s <- stores, do: GenServer.call(s, {:put, :mine, s})");
        beam.check("for(s <- stores, do: GenServer.call(s, {:get, :mine})) == stores", "true");
        beam.check("GenServer.call({:zwei, kv}, {:get, :mine})", "{:global, :two}");
    });
}

#[test]
fn kvnode_serves_kvnode_without_any_visible_node() {
    on_every_otp(|otp| {
        let epmd = Epmd::start_kvnode();
        let slave = KvNode::start(&epmd, "slave1", "--local store");
        let master = KvNode::start(&epmd, "master", &format!("--local store --connect {}", slave.name()));
        master.wait_for_log(&[slave.name(), "up"]);
        // A hidden node only lends its hands: nothing here has a global name.
        let hands = BeamNode::start(otp, &epmd, support::BeamOptions::new("hands").hidden());
        hands.run(&format!("m = {{:store, :\"{}\"}}; s = {{:store, :\"{}\"}}", master.name(), slave.name()));
        hands.check("GenServer.call(m, {:add_slave, s})", ":ok");
        hands.check("GenServer.call(m, {:put, 1, :one})", ":ok");
        hands.check_soon("GenServer.call(s, {:get, 1})", ":one");
        hands.check("GenServer.call(m, {:delete, 1})", ":ok");
        hands.check_soon("GenServer.call(s, {:get, 1})", "nil");
    });
}
