//! Slaves that come late, are lost, come back, or stop: in the end each holds what the primary holds.

#![cfg(feature = "program")]

mod support;

use rustix::process::Signal;
use support::cluster::{Cluster, elixir_store};
use support::{Epmd, KvNode, at_host, at_once_on_every_otp};

/// `true` once both hold the same.
fn same(slave: &str) -> String {
    format!(
        ":sys.get_state({{:global, :master}}).data == :sys.get_state({{:global, :{slave}}}).data and GenServer.call({{:global, :master}}, {{:get, :last}}) == GenServer.call({{:global, :{slave}}}, {{:get, :last}})"
    )
}

/// `{:in_step, 0}` once it has acknowledged everything.
const IN_STEP: &str = "for(s <- GenServer.call({:global, :master}, :status).slaves, do: s.state) |> Enum.all?(&(&1 == {:in_step, 0}))";

#[test]
fn a_slave_that_comes_late_gets_what_it_lacks_and_loses_what_the_primary_has_not() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let master = KvNode::start(&epmd, "master", "");
        let slave = KvNode::start(&epmd, "rust", "");
        let pairs = "%{1 => :old, {:foreign, 1} => 1, %{b: 1, a: 2} => 2}";
        let beam = elixir_store(otp, &epmd, "elixir", pairs);
        for node in [&master, &slave] {
            beam.ping(node.name());
        }
        beam.wait_for_global("master");
        beam.wait_for_global("rust");
        beam.run("for i <- 1..3_000, do: KeyValueStoreDistributed.put(i, {i, \"value\"})");
        beam.run("GenServer.call({:global, :rust}, {:put, {:foreign, 2}, 1})");
        // Writes and deletions go on meanwhile.
        beam.run(
            "writer = Task.async(fn -> for i <- 1..4_000 do
               KeyValueStoreDistributed.put(rem(i * 7, 4_000), {:during, i})
               KeyValueStoreDistributed.delete(rem(i * 11, 4_000))
             end; KeyValueStoreDistributed.put(:last, :written) end)",
        );
        for name in ["elixir", "rust", "elixir"] {
            beam.check(&format!("KeyValueStoreDistributed.add_slave(:{name})"), ":ok");
        }
        beam.check("Task.await(writer, 60_000)", ":ok");
        beam.check_soon(&same("elixir"), "true");
        beam.check_soon(&same("rust"), "true");
        beam.check_soon(IN_STEP, "true");
        beam.check("GenServer.call({:global, :master}, :slaves)", "[global: :elixir, global: :rust]");
        beam.check("GenServer.call({:global, :rust}, {:get, {:foreign, 2}})", "nil");
        beam.check("GenServer.call({:global, :master}, {:remove_slave, {:global, :rust}})", ":ok");
        beam.check(
            "GenServer.call({:global, :master}, {:remove_slave, {:global, :rust}})",
            "{:error, :no_slave}",
        );
        beam.run("KeyValueStoreDistributed.put(:last, :for_elixir)");
        beam.check_soon(&same("elixir"), "true");
        beam.check("GenServer.call({:global, :rust}, {:get, :last})", ":written");
    });
}

#[test]
fn a_slave_that_was_killed_comes_back_empty_or_with_what_it_had_and_is_repaired() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (caller, master) = (&cluster.beam, cluster.node("master", ""));
        let (mut rust, mut elixir) = (cluster.node("rust", ""), cluster.elixir(otp, "elixir", "%{}"));
        for name in ["elixir", "rust"] {
            caller.check(&format!("KeyValueStoreDistributed.add_slave(:{name})"), ":ok");
        }
        caller.run("for i <- 1..500, do: KeyValueStoreDistributed.put(i, i)");
        caller.check_soon(IN_STEP, "true");
        // What the Elixir slave had is what it begins with when it is there again.
        for state in ["%{}", "Map.new(1..500, &{&1, &1})"] {
            let mark = master.log_mark();
            elixir.kill(&cluster.epmd);
            rust.kill(&cluster.epmd);
            master.wait_for_log_after(mark, &["elixir", "lost"]);
            master.wait_for_log_after(mark, &["rust", "lost"]);
            caller.run("for i <- 400..500, do: KeyValueStoreDistributed.delete(i)");
            caller.run("for i <- 300..600, do: KeyValueStoreDistributed.put(i, {:meanwhile, i})");
            rust = cluster.node("rust", "");
            elixir = cluster.elixir(otp, "elixir", state);
            caller.run("KeyValueStoreDistributed.put(:last, make_ref())");
            caller.check_soon(&same("elixir"), "true");
            caller.check_soon(&same("rust"), "true");
        }
        caller.check_soon(IN_STEP, "true");
    });
}

#[test]
fn a_slave_that_is_stopped_is_behind_and_catches_up_when_it_goes_on() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (caller, master) = (&cluster.beam, cluster.node("master", "--slave-buffer 256KiB"));
        let elixir = cluster.elixir(otp, "elixir", "%{}");
        caller.check("KeyValueStoreDistributed.add_slave(:elixir)", ":ok");
        caller.check_soon(IN_STEP, "true");
        let mark = master.log_mark();
        elixir.signal(Signal::STOP);
        caller.run("value = String.duplicate(\"v\", 4_000)");
        caller.run(
            "for round <- 1..20, i <- 1..200, do: :ok = KeyValueStoreDistributed.put(i, {round, value})",
        );
        caller.run("for i <- 1..50, do: KeyValueStoreDistributed.delete(i)");
        master.wait_for_log_after(mark, &["elixir", "behind"]);
        caller.check(
            "[%{state: {:behind, 200}}] = GenServer.call({:global, :master}, :status).slaves; :ok",
            ":ok",
        );
        caller.run("KeyValueStoreDistributed.put(:last, :stopped)");
        elixir.signal(Signal::CONT);
        caller.check_soon(&same("elixir"), "true");
        caller.check_soon(IN_STEP, "true");
    });
}

#[test]
fn a_connection_that_is_lost_costs_only_what_was_written_meanwhile() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let elixir = elixir_store(otp, &epmd, "elixir", "%{}");
        let args = format!("--connect {} --slave global:elixir", at_host("elixir"));
        let master = KvNode::start(&epmd, "master", &args);
        elixir.wait_for_global("master");
        elixir.run("for i <- 1..1_000, do: KeyValueStoreDistributed.put(i, i)");
        elixir.check_soon(IN_STEP, "true");
        let mark = master.log_mark();
        elixir.check(&format!("Node.disconnect(:\"{}\")", master.name()), "true");
        let found = master.wait_for_log_after(mark, &["elixir", "found"]);
        elixir.wait_for_global("master");
        elixir.run("KeyValueStoreDistributed.put(:last, 1)");
        elixir.check_soon(&same("elixir"), "true");
        // Nothing of the thousand was sent again.
        assert!(!master.log_since(mark).contains("of 1000"), "{found}");
    });
}
