//! The key-value server is written on the public face alone: its sources, with `kv::serve`, which starts it, are compiled here
//! once more, as part of another crate. What `crate` names in them is what is imported below.

#![cfg(feature = "program")]

mod support;

use std::sync::Arc;

use kvnode::{
    Client, Node, NotNamed, ProcessHandle, Restart, block_on, config, distribution, etf, node, process,
    replica, store,
};

#[allow(dead_code, reason = "compiled whole")]
#[path = "../src/clock.rs"]
mod clock;
#[path = "support/deferred.rs"]
mod deferred;
#[allow(dead_code, unused_imports, reason = "compiled whole")]
#[path = "../src/kv/mod.rs"]
mod kv;
#[allow(dead_code, reason = "compiled whole")]
#[path = "../src/log.rs"]
mod log;
#[allow(dead_code, reason = "compiled whole")]
#[path = "../src/within.rs"]
mod within;

use config::ServerName;
use deferred::{DeferredEngine, Manner};
use distribution::ServerRef;
use kv::{NotServed, Replication, ServedStore, serve};
use kvnode::etcd::{Config, Etcd};
use kvnode::store::{Disk, Engine, EtcdEngine, MemoryEngine, OpenError, SyncPolicy};
use support::{BeamNode, Epmd, EtcdCluster, Running, on_every_otp};

/// The third engine of the tests: it answers later, from a thread of its own.
fn deferred() -> DeferredEngine {
    let seed = u64::from(std::process::id());
    DeferredEngine::new(Manner { has_thread: true, ..Manner::wild(seed) })
}

#[test]
fn a_store_of_another_crate_is_named_replicated_and_started_again() {
    on_every_otp(|otp| named_replicated_and_started_again(otp, &MemoryEngine::default(), "nil"));
}

#[test]
fn so_is_one_whose_engine_is_of_another_crate_too() {
    named_replicated_and_started_again(&support::Otp::newest(), &deferred(), "2");
}

/// `then`: what the value 2 is after the store's end.
fn named_replicated_and_started_again(otp: &support::Otp, engine: &(impl Engine + Clone), then: &str) {
    let epmd = Epmd::start();
    let beam = BeamNode::start(otp, &epmd, "beam");
    let node = Running::start(&epmd, "other");
    let names = [ServerName::global("a"), ServerName::local("c"), ServerName::global("b")];
    let with_slave = Replication::default().with_slave(ServerRef::global("slave"));
    let ServedStore { process: first, figures } =
        serve(&node, names, with_slave, engine.clone()).expect("the names are free");
    beam.ping(node.name().as_str());
    beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave)");
    beam.wait_for_global("a");
    beam.wait_for_global("b");
    beam.check("GenServer.call({:global, :a}, {:put, 1, 2})", ":ok");
    beam.check_soon("GenServer.call(slave, {:get, 1})", "2");
    beam.check("GenServer.call({:global, :b}, {:get, 1})", "2");
    beam.check(&format!("GenServer.call({{:c, :\"{}\"}}, {{:get, 1}})", node.name()), "2");
    beam.check("Process.exit(:global.whereis_name(:a), :kill)", "true");
    block_on(first.ended());
    beam.check_soon("try do GenServer.call({:global, :b}, {:get, 1}) catch :exit, _ -> :not_yet end", then);
    // With its slaves, as it was started.
    beam.check_soon("GenServer.call({:global, :a}, {:put, 3, 4})", ":ok");
    beam.check_soon("GenServer.call(slave, {:get, 3})", "4");
    // It goes on counting.
    assert!(figures.counts().iter().sum::<u64>() >= 5, "{figures:?}");
    assert_eq!(figures.server().map(|server| server.slaves().len()), Some(1));
    // Others can have none of its names, and leave nothing behind.
    let rival = [ServerName::global("d"), ServerName::global("b"), ServerName::local("e")];
    let error =
        serve(&node, rival, Replication::default(), engine.clone()).map(|_| ()).expect_err("b is taken");
    let NotServed::Name(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().starts_with("b: "), "{error}");
    assert_eq!(node.whereis_local("e"), None);
    block_on(node.stop());
}

#[test]
fn a_store_of_another_crate_is_kept_on_disk_with_its_slaves() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&support::Otp::newest(), &epmd, "beam");
    let node = Running::start(&epmd, "other");
    let dir = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).expect("an empty folder");
    let kept = ServerName::global("kept");
    let keep = || Arc::clone(&disk);
    let ServedStore { process: first, .. } =
        serve(&node, [kept.clone()], Replication::default(), keep()).expect("the name is free");
    beam.ping(node.name().as_str());
    beam.wait_for_global("kept");
    beam.check("GenServer.call({:global, :kept}, {:put, 1, 2})", ":ok");
    beam.check("GenServer.call({:global, :kept}, {:add_slave, {:global, :late}})", ":ok");
    beam.check("Process.exit(:global.whereis_name(:kept), :kill)", "true");
    block_on(first.ended());
    beam.check_soon("try do GenServer.call({:global, :kept}, {:get, 1}) catch :exit, _ -> :not_yet end", "2");
    beam.check(":sys.get_state({:global, :kept}).slaves", "[global: :late]");
    let both = [kept.clone(), ServerName::global("new")];
    let taken = serve(&node, both, Replication::default(), keep()).map(|_| ());
    assert!(matches!(taken, Err(NotServed::Name(_))), "{taken:?}");
    disk.store(&["global:else".into()]).expect("another store");
    let split = [kept, ServerName::global("else")];
    let error = serve(&node, split, Replication::default(), keep()).map(|_| ());
    assert!(matches!(error, Err(NotServed::Open(OpenError::Names { .. }))), "{error:?}");
    block_on(node.stop());
    // It has closed the disk.
    let refused = store::wait(|done| disk.settled(done));
    assert!(matches!(refused, Some(Err(_))), "{refused:?}");
}

#[test]
fn two_nodes_serve_one_store_in_etcd_and_slaves_and_watchers_of_each_get_what_the_other_one_writes() {
    let epmd = Epmd::start();
    let cluster = EtcdCluster::start(1);
    let beam = BeamNode::start(&support::Otp::newest(), &epmd, "beam");
    let names = [ServerName::local("kv")];
    let nodes = ["first", "second"].map(|name| Running::start(&epmd, name));
    let engines = [(); 2].map(|()| {
        let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
        EtcdEngine::new(etcd, "kvnode")
    });
    for (node, engine) in nodes.iter().zip(&engines) {
        serve(node, names.clone(), Replication::default(), engine.clone()).expect("the name is free");
        beam.ping(node.name().as_str());
    }
    let [first, second] = nodes.each_ref().map(|node| format!("{{:kv, :\"{}\"}}", node.name()));
    let ask = |store: &str, request: &str| format!("GenServer.call({store}, {request})");
    beam.check(&ask(&first, "{:put, 1, 2}"), ":ok");
    beam.check(&ask(&first, "{:get, 1}"), "2");
    beam.check_soon(&ask(&second, "{:get, 1}"), "2");
    beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave)");
    beam.wait_for_global("slave");
    beam.check(&ask(&second, "{:add_slave, {:global, :slave}}"), ":ok");
    beam.check_soon("GenServer.call(slave, {:get, 1})", "2");
    beam.run(&format!("{{:ok, ref, _}} = {}", ask(&second, "{:watch, []}")));
    beam.check(&ask(&first, "{:put, 3, 4}"), ":ok");
    beam.check_soon("GenServer.call(slave, {:get, 3})", "4");
    beam.check(
        "receive do {:kvnode, ^ref, {_, :put, key, value}} -> {key, value} after 5000 -> nil end",
        "{3, 4}",
    );
    beam.check(&ask(&second, "{:delete, 3}"), ":ok");
    beam.check("receive do {:kvnode, ^ref, {_, :delete, key}} -> key after 5000 -> nil end", "3");
    beam.check_soon("GenServer.call(slave, {:get, 3})", "nil");
    // Each step is done on what the other one has made.
    for step in 0..20 {
        let store = if step % 2 == 0 { &first } else { &second };
        beam.check(&ask(store, "{:update_counter, :hits, 1}"), &(step + 1).to_string());
    }
    beam.check_soon("GenServer.call(slave, {:get, :hits})", "20");
    let large = ask(&first, "{:put, 9, :binary.copy(<<7>>, 2_000_000)}");
    beam.check(&format!("{{:error, {{:too_large, max}}}} = {large}; max > 1_500_000"), "true");
    engines.iter().for_each(Engine::close);
    beam.check(&ask(&first, "{:get, 1}"), "2");
    beam.check(&ask(&first, "{:put, 1, 3}"), "{:error, {:io, :terminated}}");
}

#[test]
fn a_watcher_goes_on_at_another_node_of_a_store_in_etcd_and_keys_end_without_the_node_that_wrote_them() {
    let epmd = Epmd::start();
    let cluster = EtcdCluster::start(1);
    let beam = BeamNode::start(&support::Otp::newest(), &epmd, "beam");
    let names = [ServerName::local("kv")];
    let nodes = ["first", "second"].map(|name| Running::start(&epmd, name));
    let engines = [(); 2].map(|()| {
        let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
        EtcdEngine::new(etcd, "kvnode")
    });
    for (node, engine) in nodes.iter().zip(&engines) {
        serve(node, names.clone(), Replication::default(), engine.clone()).expect("the name is free");
        beam.ping(node.name().as_str());
    }
    for (node, name) in nodes.iter().zip(["first", "second"]) {
        beam.run(&format!("{name} = {{:kv, :\"{}\"}}", node.name()));
    }
    // Both tell of the same changes under the same numbers: of writes that gather, in an order that is not that of their keys, some of several keys.
    beam.run("{:ok, at_first, _} = GenServer.call(first, {:watch, []})");
    beam.run("{:ok, at_second, _} = GenServer.call(second, {:watch, []})");
    beam.run(
        "writes = for n <- 1..40, key <- [7, 3, 5] do
           Task.async(fn ->
             GenServer.call(first, {:put, key, n})
             if rem(n, 3) == 0, do: GenServer.call(first, {:delete, key})
           end)
         end",
    );
    beam.run("Enum.each(writes, &Task.await/1)");
    beam.run("GenServer.call(first, {:put_many, [{9, 1}, {4, 1}, {8, 1}]})");
    beam.run("GenServer.call(first, {:delete_many, [9, 8]})");
    beam.run("GenServer.call(first, {:put, :last, 1})");
    beam.run(
        "told = fn told, ref, events ->
           receive do
             {:kvnode, ^ref, {n, :put, :last, _}} -> Enum.reverse([{n, :last} | events])
             {:kvnode, ^ref, event} -> told.(told, ref, [event | events])
           after 10_000 -> {:nothing_more, events} end
         end",
    );
    beam.run("{here, there} = {told.(told, at_first, []), told.(told, at_second, [])}");
    beam.check("{length(here) > 100, Enum.take(there -- here, 4)}", "{true, []}");
    beam.check("here == here |> Enum.uniq_by(&elem(&1, 0)) |> Enum.sort_by(&elem(&1, 0))", "true");
    // A watcher is cut off behind each of them at one node, and goes on at the other one.
    beam.run(
        "goes_on = fn store, events, from ->
           {:ok, ref, ^from} = GenServer.call(store, {:watch, from: from})
           seen = told.(told, ref, [])
           GenServer.call(store, {:unwatch, ref})
           seen == Enum.filter(events, &(elem(&1, 0) > from))
         end",
    );
    beam.check("Enum.all?(here, &(elem(&1, 1) == :last or goes_on.(second, there, elem(&1, 0))))", "true");
    beam.check("Enum.all?(there, &(elem(&1, 1) == :last or goes_on.(first, here, elem(&1, 0))))", "true");
    beam.check("{:error, :too_old} = GenServer.call(first, {:watch, from: 1})", "{:error, :too_old}");
    // A key ends: the node that wrote it is gone by then.
    beam.run("{:ok, ends, _} = GenServer.call(second, {:watch, []})");
    beam.check("GenServer.call(first, {:put, :short, 1, ttl: 1500})", ":ok");
    let [first, second] = nodes;
    block_on(first.stop());
    engines[0].close();
    beam.check("receive do {:kvnode, ^ends, {_, :put, key, _}} -> key after 5000 -> nil end", ":short");
    beam.check(
        "receive do {:kvnode, ^ends, {_, how, key}} -> {how, key} after 10_000 -> nil end",
        "{:expire, :short}",
    );
    block_on(second.stop());
    engines[1].close();
}
