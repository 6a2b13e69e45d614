//! Names in `:global`: registered through any visible node, given up by none without being told, and never at the
//! price of somebody's life.

mod support;

use rustix::process::Signal;
use support::{BeamNode, Epmd, KvNode, at_host, at_once_on_every_otp, on_every_otp};

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
        kv.wait_for_log(&["WARN", "global name lost", "the last visible node that knew it is gone"]);
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
