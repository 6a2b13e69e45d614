//! What a whole cluster can do to stores: lost connections, restarts with all their names and slaves, many of them.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, BeamOptions, Epmd, KvNode, at_once_on_every_otp, on_every_otp, on_every_otp_from};

#[test]
fn nodes_that_lose_kvnode_stay_with_each_other() {
    // prevent_overlapping_partitions is on by default from OTP 25 on.
    on_every_otp_from(25, |otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beams = ["one", "two", "three"].map(|name| {
            let options = BeamOptions::new(name).erl("-kernel prevent_overlapping_partitions true");
            BeamNode::start(otp, &epmd, options)
        });
        for beam in &beams {
            beam.ping(beams[0].name());
            beam.ping(kv.name());
            beam.wait_for_global("kv");
        }
        beams[2].ping(beams[1].name());
        beams[0].check(&format!("Node.disconnect(:\"{}\")", kv.name()), "true");
        beams[0].check(":global.sync()", ":ok");
        for beam in &beams {
            beam.check("length(Node.list())", "2");
        }
        // To `global` of the first the name is gone with the connection, as every name of a lost node; with a new
        // connection it is there again, and the others have had it all the time.
        beams[1].check("GenServer.call({:global, :kv}, {:put, node(), 1})", ":ok");
        beams[0].ping(kv.name());
        for beam in &beams {
            beam.check("length(Node.list())", "2");
            beam.wait_for_global("kv");
            beam.check("GenServer.call({:global, :kv}, {:put, node(), 1})", ":ok");
        }
        for beam in &beams {
            beam.check_soon(&format!("Node.list(:hidden) == [:\"{}\"]", kv.name()), "true");
            beam.check("length(Node.list())", "2");
        }
    });
}

#[test]
fn a_store_that_is_linked_to_a_lost_node_ends_as_a_gen_server_does() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let watcher = BeamNode::start(otp, &epmd, "watcher");
        let linked = BeamNode::start(otp, &epmd, "linked");
        for beam in [&watcher, &linked] {
            beam.ping(kv.name());
            beam.wait_for_global("kv");
        }
        watcher.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        watcher.run("pid = :global.whereis_name(:kv); ref = Process.monitor(pid)");
        linked.run("Process.link(:global.whereis_name(:kv))");
        linked.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
        linked.kill(&epmd);
        watcher.check(
            "receive do {:DOWN, ^ref, :process, ^pid, why} -> why after 20_000 -> nil end",
            ":noconnection",
        );
        kv.wait_for_log(&["store ended", "1 entry is lost", ":noconnection"]);
        kv.wait_for_log(&["ended and was started again", ":noconnection", "kv"]);
        watcher.check_soon("is_pid(p = :global.whereis_name(:kv)) and p != pid", "true");
        watcher.check("GenServer.call({:global, :kv}, {:get, 1})", "nil");
    });
}

#[test]
fn a_store_with_many_names_ends_and_comes_back_as_a_whole() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--store global:a,global:b,local:c");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("a");
        beam.wait_for_global("b");
        beam.run("[a, b] = for n <- [:a, :b], do: :global.whereis_name(n)");
        beam.check("a != b and :ok == GenServer.call(a, {:put, 1, 2})", "true");
        beam.run("for pid <- [a, b], do: Process.monitor(pid)");
        beam.run("Process.exit(b, :enough)");
        beam.check(
            "Enum.sort(for _ <- 1..2, do: (receive do {:DOWN, _, _, p, why} -> {p == a or p == b, why} after 20_000 -> nil end))",
            "[true: :enough, true: :enough]",
        );
        for (name, old) in [("a", "a"), ("b", "b")] {
            beam.check_soon(
                &format!("is_pid(p = :global.whereis_name(:{name})) and p not in [a, b] and p != {old}"),
                "true",
            );
        }
        beam.check("for n <- [:a, :b], do: GenServer.call({:global, n}, {:get, 1})", "[nil, nil]");
        beam.check("GenServer.call({:global, :a}, {:put, 3, 4})", ":ok");
        beam.check(&format!("GenServer.call({{:c, :\"{}\"}}, {{:get, 3}})", kv.name()), "4");
        // One of two pids that are suspended together.
        beam.check(":sys.suspend({:global, :a})", ":ok");
        beam.check(
            "try do GenServer.call({:global, :b}, {:get, 3}, 100) catch :exit, {why, _} -> why end",
            ":timeout",
        );
        beam.check(":sys.resume({:global, :b})", ":ok");
        beam.check("GenServer.call({:global, :a}, {:get, 3})", "4");
    });
}

#[test]
fn a_store_that_is_started_again_has_its_configured_slaves_and_no_others() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--global master --slave global:slave");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("master");
        beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave)");
        beam.check("GenServer.call({:global, :master}, {:add_slave, {:added, node()}})", ":ok");
        beam.check(
            "Enum.sort(:sys.get_state({:global, :master}).slaves) == Enum.sort([{:global, :slave}, {:added, node()}])",
            "true",
        );
        beam.run("old = :global.whereis_name(:master); Process.exit(old, :kill)");
        beam.check_soon("is_pid(p = :global.whereis_name(:master)) and p != old", "true");
        beam.check(":sys.get_state({:global, :master})", "%{data: %{}, slaves: [global: :slave]}");
        beam.check("GenServer.call({:global, :master}, {:put, 1, 2})", ":ok");
        beam.check_soon("GenServer.call(slave, {:get, 1})", "2");
        // The former store has let go of its slave: nobody of the node watches it twice.
        beam.check_soon("length(elem(Process.info(slave, :monitored_by), 1)) <= 2", "true");
    });
}

#[test]
fn a_store_that_is_killed_again_and_again_waits_and_comes_back() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--local often --local other");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.run(&format!("kv = :\"{}\"; often = {{:often, kv}}; other = {{:other, kv}}", kv.name()));
        beam.check("GenServer.call(other, {:put, 1, 2})", ":ok");
        let stop = "try do GenServer.stop(often, :enough) catch :exit, why -> why end";
        for _ in 0..3 {
            beam.check(stop, ":ok");
            beam.check_soon("GenServer.call(often, {:get, 1})", "nil");
        }
        beam.check(stop, ":ok");
        kv.wait_for_log(&["ended, too often of late", "often", ":enough", "ms"]);
        beam.check("GenServer.call(other, {:get, 1})", "2");
        beam.check_soon("try do GenServer.call(often, {:get, 1}) catch :exit, {why, _} -> why end", "nil");
        kv.wait_for_log(&["started again", "often"]);
    });
}

#[test]
fn what_waits_for_a_suspended_store_outlives_its_connection() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let stays = BeamNode::start(otp, &epmd, "stays");
        let goes = BeamNode::start(otp, &epmd, "goes");
        for beam in [&stays, &goes] {
            beam.ping(kv.name());
            beam.wait_for_global("kv");
        }
        stays.check(":sys.suspend({:global, :kv})", ":ok");
        goes.run("for n <- 1..100, do: GenServer.cast({:global, :kv}, {:replicate_put, n, n * n})");
        // Behind the casts, on the same connection.
        goes.check(&format!("n = :\"{}\"; :erpc.call(n, :erlang, :node, []) == n", kv.name()), "true");
        let mark = kv.log_mark();
        let name = goes.name().to_owned();
        goes.kill(&epmd);
        kv.wait_for_log_after(mark, &["peer down", &name]);
        stays.check(":sys.get_state({:global, :kv}).data", "%{}");
        stays.check(":sys.resume({:global, :kv})", ":ok");
        stays.check_soon("GenServer.call({:global, :kv}, {:get, 100})", "10000");
        stays.check("Enum.all?(1..100, &(GenServer.call({:global, :kv}, {:get, &1}) == &1 * &1))", "true");
    });
}

#[test]
fn processes_of_the_node_itself_cannot_be_ended() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.run(&format!("kv = :\"{}\"", kv.name()));
        for name in ["net_kernel", "rex", "global_name_server"] {
            beam.run(&format!("pid = :rpc.call(kv, :erlang, :whereis, [:{name}])"));
            beam.check("is_pid(pid) and node(pid) == kv", "true");
            beam.run("Process.exit(pid, :kill)");
            beam.check("try do GenServer.stop(pid, :normal, 300) catch :exit, _ -> :refused end", ":refused");
            beam.check(&format!(":rpc.call(kv, :erlang, :whereis, [:{name}]) == pid"), "true");
        }
        beam.ping(kv.name());
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    });
}

#[test]
fn a_state_is_shown_in_the_callers_form_and_never_one_that_it_cannot_read() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.run("kv = {:global, :kv}");
        beam.check(":sys.get_state(kv)", "%{data: %{}, slaves: []}");
        beam.check(
            "for k <- 1..100, do: :ok = GenServer.call(kv, {:put, {k, [k]}, %{k => \"v\"}}); :ok",
            ":ok",
        );
        beam.check(":sys.get_state(kv).data == Map.new(1..100, &{{&1, [&1]}, %{&1 => \"v\"}})", "true");
        // The two zeros are one key of a map to OTP 25 and before: a map with both would cost the connection.
        beam.run("<<minus::float>> = <<128, 0, 0, 0, 0, 0, 0, 0>>");
        beam.check("for zero <- [0.0, minus], do: GenServer.call(kv, {:put, zero, 1})", "[:ok, :ok]");
        beam.check("Map.keys(:sys.get_state(kv)) |> Enum.sort()", "[:bytes, :entries, :slaves]");
        beam.check(":sys.get_state(kv).entries", "102");
        beam.check("elem(:sys.get_status(kv), 0)", ":status");
        beam.check("GenServer.call(kv, {:get, {1, [1]}})", "%{1 => \"v\"}");
    });
}
