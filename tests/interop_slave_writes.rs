//! A caller's write at a store that follows a primary: refused with the primary's name, handed on to it, or taken.

#![cfg(feature = "program")]

mod support;

use support::cluster::{Cluster, call, in_step};
use support::{KvNode, Otp, on_every_otp};

/// A primary `master` and its slave, in step.
fn pair(otp: &Otp, args: &str) -> (Cluster, KvNode, KvNode) {
    let cluster = Cluster::new(otp);
    let slave = cluster.node("slave", args);
    let master = cluster.node("master", "--slave global:slave");
    cluster.beam.check_soon(&in_step("slave"), "true");
    cluster.beam.run("GenServer.call({:global, :master}, {:put, :key, :of_master})");
    cluster.beam.check_soon(&call("slave", "{:get, :key}"), ":of_master");
    (cluster, master, slave)
}

const SLAVE_OF: &str = "{:error, {:slave_of, {:global, :master}}}";

#[test]
fn a_slave_says_no_with_the_name_of_its_primary() {
    on_every_otp(|otp| {
        let (cluster, master, slave) = pair(otp, "");
        let beam = &cluster.beam;
        beam.check(&call("slave", "{:put, :key, :of_caller}"), SLAVE_OF);
        beam.check(&call("slave", "{:put, :other, 1, confirm: 1}"), SLAVE_OF);
        beam.check(&call("slave", "{:delete, :key}"), SLAVE_OF);
        // As people follow it.
        beam.check(
            "{:error, {:slave_of, primary}} = GenServer.call({:global, :slave}, {:put, :key, :new})
             GenServer.call(primary, {:put, :key, :new})",
            ":ok",
        );
        beam.check_soon(&call("slave", "{:get, :key}"), ":new");
        beam.check(&call("slave", "{:get, :other}"), "nil");
        beam.run(&format!("s = GenServer.call({{:kvnode, :\"{}\"}}, :status)", slave.name()));
        beam.check("[store] = s.stores; {store.requests.at_slave, store.entries}", "{4, 1}");
        beam.check("Enum.count(s.log, &(&1.text =~ \"a caller writes to this slave\"))", "1");
        // It stays a slave while its primary is gone, until it is promoted.
        master.kill(&cluster.epmd);
        beam.check_soon(&format!("{}.primary.state", call("slave", ":status")), ":gone");
        beam.check(&call("slave", "{:put, :key, :of_caller}"), SLAVE_OF);
        beam.check(&call("slave", "{:promote}"), ":ok");
        beam.check(&call("slave", "{:put, :key, :of_caller}"), ":ok");
        beam.check(&call("slave", "{:get, :key}"), ":of_caller");
    });
}

#[test]
fn a_slave_hands_writes_on_to_its_primary() {
    on_every_otp(|otp| {
        let (cluster, master, _slave) = pair(otp, "--slave-writes forward");
        let beam = &cluster.beam;
        // A chain: the slave's slave hands on to it.
        let _last = cluster.node("last", "--slave-writes forward");
        cluster.add("slave", "last", ":ok");
        cluster.follows("last", "slave");
        for (at, value) in [("slave", 1), ("last", 2)] {
            beam.check(&call(at, &format!("{{:put, :key, {{:handed_on, {value}}}}}")), ":ok");
            beam.check(&call("master", "{:get, :key}"), &format!("{{:handed_on, {value}}}"));
            beam.check_soon(&call("last", "{:get, :key}"), &format!("{{:handed_on, {value}}}"));
        }
        beam.check(&call("slave", "{:put, :key, :confirmed, confirm: 1}"), ":ok");
        beam.check(&call("slave", "{:get, :key}"), ":confirmed");
        beam.check(&call("slave", "{:put, :key, :confirmed, confirm: 2}"), "{:error, {:unconfirmed, 1, 2}}");
        beam.check(&call("last", "{:delete, :key}"), ":ok");
        beam.check(&call("master", "{:get, :key}"), "nil");
        beam.check(
            "for n <- 1..100 do
               Task.async(fn -> GenServer.call({:global, :slave}, {:put, n, {n, :binary.copy(\"x\", 10_000)}}) end)
             end
             |> Enum.map(&Task.await/1)
             |> Enum.uniq()",
            "[:ok]",
        );
        beam.check(
            "Enum.all?(1..100, fn n -> match?({^n, _}, GenServer.call({:global, :master}, {:get, n})) end)",
            "true",
        );
        master.kill(&cluster.epmd);
        beam.check_soon(&format!("{}.primary.state", call("slave", ":status")), ":gone");
        beam.check(&call("slave", "{:put, :key, 1}"), SLAVE_OF);
        // What is none of the protocol's is not the primary's matter.
        beam.check(
            "try do GenServer.call({:global, :slave}, :what) catch :exit, {reason, _} -> reason end",
            "{:bad_call, :what}",
        );
    });
}

#[test]
fn a_primary_that_does_not_answer_ends_the_call_that_was_handed_on() {
    let (cluster, master, _slave) = pair(&Otp::newest(), "--slave-writes forward");
    master.signal(rustix::process::Signal::STOP);
    cluster.beam.check(
        "try do GenServer.call({:global, :slave}, {:put, :key, 1}, 20_000) catch :exit, {reason, _} -> reason end",
        "{:timeout, {:slave_of, {:global, :master}}}",
    );
    master.signal(rustix::process::Signal::CONT);
}

#[test]
fn a_slave_takes_writes_where_it_is_told_to_and_where_its_primary_is_an_elixir_server() {
    let (cluster, _master, _slave) = pair(&Otp::newest(), "--slave-writes accept");
    cluster.beam.check(&call("slave", "{:put, :key, :of_caller}"), ":ok");
    cluster.beam.check(&call("slave", "{:get, :key}"), ":of_caller");
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let _slave = cluster.node("slave", "");
    beam.run("{:ok, primary} = KeyValueStoreReplicated.start_link(:primary)");
    beam.check("GenServer.call(primary, {:add_slave, {:global, :slave}})", ":ok");
    beam.check("GenServer.call(primary, {:put, :key, :of_primary})", ":ok");
    beam.check_soon(&call("slave", "{:get, :key}"), ":of_primary");
    beam.check(&call("slave", "{:put, :key, :of_caller}"), ":ok");
}
