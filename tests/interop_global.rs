//! Names in `:global`: registered through any BEAM, given up by none without being told, and never at the price of
//! somebody's life. And its locks, where kvnode is among their nodes.

#![cfg(feature = "program")]

mod support;

use rustix::process::Signal;
use support::{BeamNode, BeamOptions, Epmd, KvNode, at_host, at_once_on_every_otp, on_every_otp};

#[test]
fn a_name_is_known_to_nodes_that_kvnode_never_connected_to() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let one = BeamNode::start(otp, &epmd, "one");
        let two = BeamNode::start(otp, &epmd, "two");
        one.ping(two.name());
        let _kv = KvNode::start(&epmd, "kv", &format!("--connect {}", one.name()));
        for beam in [&one, &two] {
            beam.wait_for_global("kv");
        }
        two.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        one.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
        two.check(
            ":global.whereis_name(:kv) == :rpc.call(hd(Node.list()), :global, :whereis_name, [:kv])",
            "true",
        );
    });
}

#[test]
fn a_store_with_two_global_names_has_both() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--store global:one,global:two,local:three");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("one");
        beam.wait_for_global("two");
        beam.check("GenServer.call({:global, :one}, {:put, 1, 2})", ":ok");
        beam.check("GenServer.call({:global, :two}, {:get, 1})", "2");
        beam.check(&format!("GenServer.call({{:three, :\"{}\"}}, {{:get, 1}})", kv.name()), "2");
    });
}

#[test]
fn a_node_that_comes_later_knows_the_name() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let one = BeamNode::start(otp, &epmd, "one");
        one.ping(kv.name());
        one.wait_for_global("kv");
        // Into the cluster, without a word to kvnode.
        let two = BeamNode::start(otp, &epmd, "two");
        two.ping(one.name());
        two.wait_for_global("kv");
        two.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        // The one through which the name came is gone, and the name is not.
        one.kill(&epmd);
        two.check_soon("GenServer.call({:global, :kv}, {:get, 1})", "2");
        let three = BeamNode::start(otp, &epmd, "three");
        three.ping(two.name());
        three.wait_for_global("kv");
    });
}

#[test]
fn a_name_is_registered_in_each_of_two_clusters() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        // A hidden node between them makes no cluster of two.
        let (one, two) = (BeamNode::start(otp, &epmd, "one"), BeamNode::start(otp, &epmd, "two"));
        for beam in [&one, &two] {
            beam.ping(kv.name());
            beam.wait_for_global("kv");
            beam.check("Node.list()", "[]");
        }
        one.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        two.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
        // Two clusters become one: the same pid under the same name is no conflict.
        one.ping(two.name());
        one.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
        two.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
    });
}

#[test]
fn a_taken_name_is_reported_and_had_once_it_is_free() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run("{:ok, holder} = KeyValueStoreDistributed.start_link(:kv)");
        let kv = KvNode::start(&epmd, "kv", &format!("--connect {}", beam.name()));
        kv.wait_for_log(&["kv", "taken"]);
        beam.check(":global.whereis_name(:kv) == holder and Process.alive?(holder)", "true");
        beam.run("GenServer.stop(holder)");
        beam.check_soon("is_pid(pid = :global.whereis_name(:kv)) and node(pid) != node()", "true");
        beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    });
}

#[test]
fn a_name_that_was_unregistered_is_registered_again() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.run(":global.unregister_name(:kv)");
        beam.wait_for_global("kv");
    });
}

#[test]
fn when_clusters_with_two_holders_of_a_name_meet_nobody_is_killed_and_nothing_hangs() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        // A hidden node between them makes no cluster of two.
        let (one, two) = (BeamNode::start(otp, &epmd, "one"), BeamNode::start(otp, &epmd, "two"));
        let kv =
            KvNode::start(&epmd, "kv", &format!("--global shared --local mine --connect {}", one.name()));
        one.wait_for_global("shared");
        one.run("ours = :global.whereis_name(:shared)");
        one.check("GenServer.call(ours, {:put, 1, :kept})", ":ok");
        two.run("{:ok, theirs} = GenServer.start(KeyValueStoreReplicated, %{})");
        two.check(":global.register_name(:shared, theirs)", ":yes");
        one.ping(two.name());
        // Both agree again on one holder; a lock that is never released would show here.
        one.check(":global.register_name(:after, self())", ":yes");
        two.check_soon("is_pid(:global.whereis_name(:after))", "true");
        one.check_soon(
            ":global.whereis_name(:shared) == :erpc.call(hd(Node.list()), :global, :whereis_name, [:shared])",
            "true",
        );
        two.check("Process.alive?(theirs)", "true");
        one.check("GenServer.call(ours, {:get, 1})", ":kept");
        one.check(&format!("GenServer.call({{:mine, :\"{}\"}}, {{:get, 1}})", kv.name()), "nil");
    });
}

#[test]
fn a_name_is_lost_with_the_last_node_that_knew_it_and_not_by_an_end_of_ours() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        for end in [Signal::TERM, Signal::INT] {
            let kv = KvNode::start(&epmd, "kv", &format!("--connect {}", beam.name()));
            kv.wait_for_log(&["global name registered"]);
            kv.signal(end);
            let ended = kv.wait();
            let (_, last) = ended.stderr.split_once("INFO ending").expect("it says that it ends");
            assert!(ended.status.success() && !last.contains(" WARN "), "{}", ended.stderr);
            beam.wait_for_no_global("kv");
        }
        let kv = KvNode::start(&epmd, "kv", &format!("--connect {}", beam.name()));
        kv.wait_for_log(&["global name registered"]);
        beam.kill(&epmd);
        // A tool that leaves is normal operation.
        kv.wait_for_log(&["INFO", "global name known nowhere", "the last node that knew it is gone"]);
    });
}

#[test]
fn two_kvnodes_that_want_one_name_both_live() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let args = format!("--global shared --local own --connect {}", beam.name());
        let first = KvNode::start(&epmd, "first", &args);
        beam.wait_for_global("shared");
        let second = KvNode::start(&epmd, "second", &args);
        second.wait_for_log(&["shared", "taken"]);
        beam.check(&format!("node(:global.whereis_name(:shared)) == :\"{}\"", first.name()), "true");
        // The next in line has it when the first goes.
        assert!(first.terminate().status.success());
        beam.check_soon(
            &format!("is_pid(p = :global.whereis_name(:shared)) and node(p) == :\"{}\"", second.name()),
            "true",
        );
        beam.check("GenServer.call({:global, :shared}, {:put, 1, 2})", ":ok");
    });
}

#[test]
fn a_slave_is_followed_to_where_its_global_name_lives() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        // Named at the start, found when it is there.
        let connect = format!("--slave global:slave1 --connect {}", at_host("one"));
        let _master = KvNode::start(&epmd, "master", &connect);
        let one = BeamNode::start(otp, &epmd, "one");
        let two = BeamNode::start(otp, &epmd, "two");
        one.ping(two.name());
        one.wait_for_global("master");
        two.wait_for_global("master");
        let write_until_seen = |beam: &BeamNode| {
            beam.check_soon(
                "KeyValueStoreDistributed.put(:now, System.unique_integer()); GenServer.call({:global, :slave1}, {:get, :now}) != nil",
                "true",
            );
        };
        one.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave1)");
        write_until_seen(&one);
        one.run("GenServer.stop(slave)");
        two.wait_for_no_global("slave1");
        two.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave1)");
        write_until_seen(&two);
    });
}

/// A node whose part in a lock is a kvnode's or a BEAM's.
enum Keeper {
    Kvnode(KvNode),
    Beam(BeamNode),
}

impl Keeper {
    fn name(&self) -> &str {
        match self {
            Self::Kvnode(node) => node.name(),
            Self::Beam(node) => node.name(),
        }
    }
}

/// What two BEAMs that know nothing of each other see of a lock that a third node keeps, in order.
fn lock_story(otp: &support::Otp, keeper: impl FnOnce(&Epmd) -> Keeper) -> Vec<String> {
    let epmd = Epmd::start();
    let keeper = keeper(&epmd);
    // Hidden: two visible ones would get to know each other by a BEAM between them.
    let [a, b] = ["a", "b"].map(|name| BeamNode::start(otp, &epmd, BeamOptions::new(name).hidden()));
    for beam in [&a, &b] {
        beam.ping(keeper.name());
        beam.run(&format!("nodes = [node(), :\"{}\"]", keeper.name()));
        beam.run("lock = fn who -> :global.set_lock({{:res, 1}, who}, nodes, 0) end");
        beam.run("unlock = fn who -> :global.del_lock({{:res, 1}, who}, nodes) end");
        // Holds the lock until it is told to end.
        beam.run(
            "hold = fn who -> me = self(); pid = spawn(fn -> send(me, {:held, lock.(who)}); receive do :end -> :ok end end); \
             receive do {:held, true} -> pid end end",
        );
    }
    let mut seen = Vec::new();
    let mut step = |beam: &BeamNode, code: &str| seen.push(format!("{code} is {}", beam.run(code)));
    step(&a, "lock.(self())");
    step(&b, "lock.(self())");
    // The same again is no second lock.
    step(&a, "lock.(self())");
    step(&b, "unlock.(:another)");
    step(&b, "lock.(self())");
    step(&a, "unlock.(self())");
    step(&b, "lock.(self())");
    step(&a, "lock.(self())");
    step(&b, "unlock.(self())");
    // 1 and 1.0 are two resources.
    step(&a, "for r <- [1, 1.0], do: :global.set_lock({r, self()}, nodes, 0)");
    step(&b, "for r <- [1, 1.0], do: :global.set_lock({r, self()}, tl(nodes), 0)");
    step(&a, "for r <- [1, 1.0], do: :global.del_lock({r, self()}, nodes)");
    // A requester that two processes stand for: the last of them frees it.
    step(&a, "first = hold.(:shared); second = hold.(:shared); is_pid(second)");
    step(&b, "lock.(self())");
    step(
        &a,
        "send(first, :end); ref = Process.monitor(first); receive do {:DOWN, ^ref, _, _, _} -> :gone end",
    );
    step(&b, "lock.(self())");
    step(&a, "send(second, :end)");
    step(&b, ":global.set_lock({{:res, 1}, self()}, nodes, 20)");
    step(&b, "unlock.(self())");
    // A transaction, and another that is in its way.
    step(&a, "keeper = hold.(:keeper); is_pid(keeper)");
    step(&b, ":global.trans({{:res, 1}, self()}, fn -> :done end, nodes, 0)");
    step(&a, "Process.exit(keeper, :kill)");
    step(&b, ":global.trans({{:res, 1}, self()}, fn -> lock.(:other) end, nodes, 20)");
    step(&b, "lock.(self()) and unlock.(self())");
    // The holder's node ends.
    step(&a, "lock.(self())");
    step(&b, "lock.(self())");
    a.kill(&epmd);
    let mut step = |beam: &BeamNode, code: &str| seen.push(format!("{code} is {}", beam.run(code)));
    step(&b, ":global.set_lock({{:res, 1}, self()}, nodes, 20)");
    seen
}

#[test]
fn a_lock_that_kvnode_keeps_is_one_as_a_beam_keeps_it() {
    at_once_on_every_otp(|otp| {
        let of_beam =
            lock_story(otp, |epmd| Keeper::Beam(BeamNode::start(otp, epmd, BeamOptions::new("kv").hidden())));
        let of_kvnode = lock_story(otp, |epmd| Keeper::Kvnode(KvNode::start(epmd, "kv", "")));
        assert_eq!(of_kvnode, of_beam);
        for refused in [1, 4, 7] {
            assert!(of_beam[refused].ends_with("is false"), "{of_beam:?}");
        }
    });
}

#[test]
fn the_locks_of_one_node_are_bounded_and_end_with_it() {
    let otp = support::Otp::newest();
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let [a, b] = ["a", "b"].map(|name| BeamNode::start(&otp, &epmd, name));
    let set = |range: &str| {
        format!(
            "for(n <- {range}, :global.set_lock({{n, self()}}, [:\"{}\"], 0), do: n) |> length()",
            kv.name()
        )
    };
    a.check(&set("1..1030"), "1024");
    b.check(&set("1025..1034"), "10");
    b.check(&set("1..1"), "0");
    a.kill(&epmd);
    b.check_soon(&set("1..1"), "1");
}

#[test]
fn no_beam_sends_the_protocol_of_global_to_a_hidden_node() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "--log debug");
        let [one, two] = ["one", "two"].map(|name| BeamNode::start(otp, &epmd, name));
        for beam in [&one, &two] {
            beam.ping(kv.name());
            beam.wait_for_global("kv");
        }
        // Two clusters meet, names are had and lost, nodes go and come, and locks are set everywhere.
        one.ping(two.name());
        one.check(":global.sync()", ":ok");
        one.check(":global.register_name(:mine, self())", ":yes");
        two.wait_for_global("mine");
        one.check(":global.set_lock({:everywhere, self()})", "true");
        two.check(":global.set_lock({:everywhere, self()}, [node() | Node.list()], 0)", "false");
        one.check(":global.del_lock({:everywhere, self()})", "true");
        two.check(&format!("Node.disconnect(:\"{}\")", one.name()), "true");
        two.ping(one.name());
        two.kill(&epmd);
        one.check_soon("Node.list()", "[]");
        one.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
        assert!(!kv.log().contains("that no hidden node is sent"), "{}", kv.log());
    });
}
