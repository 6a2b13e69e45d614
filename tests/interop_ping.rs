//! What every node and every process of a cluster is expected to do: pings, calls that cannot be served, monitors,
//! links, messages that nobody asked for.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, on_every_otp};

/// A kvnode with one store and a BEAM with `kv` (its node), `pid` (the store), and `next` (a message or nil).
struct Pair {
    kv: KvNode,
    beam: BeamNode,
    // Goes last: its drop expects that nobody needs it any more.
    epmd: Epmd,
}

impl Pair {
    fn start(otp: &support::Otp) -> Self {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.ping(kv.name());
        beam.wait_for_global("kv");
        beam.run(&format!("kv = :\"{}\"; pid = :global.whereis_name(:kv)", kv.name()));
        beam.run("next = fn -> receive do m -> m after 20_000 -> nil end end");
        beam.check("GenServer.call(pid, {:put, :here, :still})", ":ok");
        Self { kv, beam, epmd }
    }

    /// The store is the same process as ever and has what was put.
    #[track_caller]
    fn store_lives(&self) {
        self.beam.check("GenServer.call(pid, {:get, :here})", ":still");
        self.beam.check("GenServer.call({KeyValueStore, kv}, {:get, :here})", ":still");
    }

    /// The reason that a call exits with, and no time-out: it must come well before one.
    #[track_caller]
    fn exit_reason(&self, call: &str) -> String {
        let code = format!(
            "{{time, reason}} = :timer.tc(fn ->
               try do
                 {call}
               catch
                 :exit, {{reason, {{GenServer, :call, _}}}} -> reason
               end
             end)
             true = time < 15_000_000
             reason"
        );
        self.beam.run(&code)
    }
}

#[test]
fn pings_get_a_pong() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        pair.beam.check("Node.ping(kv)", ":pong");
        pair.beam.check(":net_adm.ping(kv)", ":pong");
        // Hidden: known to be connected, not listed among the visible.
        pair.beam.check("{kv in Node.list(:hidden), kv in Node.list()}", "{true, false}");
        pair.beam.check("Node.disconnect(kv)", "true");
        pair.beam.check_soon("kv in Node.list(:connected)", "false");
        pair.beam.check("Node.ping(kv)", ":pong");
        pair.store_lives();
    });
}

#[test]
fn an_unknown_request_ends_the_call_with_its_name_and_not_the_store() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        for (call, name) in [
            ("GenServer.call(pid, {:nonsense, 42}, 20_000)", "{:nonsense, 42}"),
            ("GenServer.call({:global, :kv}, :what, 20_000)", ":what"),
            ("GenServer.call({KeyValueStore, kv}, {:put, :too_few}, 20_000)", "{:put, :too_few}"),
            ("GenServer.call(pid, {:get, :one, :too_many}, 20_000)", "{:get, :one, :too_many}"),
            ("GenServer.call(pid, {:add_slave, \"not a server\"}, 20_000)", ":badarg"),
        ] {
            let reason = pair.exit_reason(call);
            assert!(reason.contains(name), "{call} exited with {reason}");
            pair.store_lives();
        }
    });
}

#[test]
fn a_call_to_what_does_not_exist_is_noproc_at_once() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        assert_eq!(pair.exit_reason("GenServer.call({:nobody, kv}, {:get, 1}, 20_000)"), ":noproc");
        // The store's pid, but for another number, and another creation: of an earlier life of the node.
        pair.beam.run(
            "encoded = :erlang.term_to_binary(pid)
             before = byte_size(encoded) - 12
             <<head::binary-size(before), id::32, serial::32, creation::32>> = encoded
             other_id = :erlang.binary_to_term(<<head::binary, id + 7_777::32, serial::32, creation::32>>)
             other_life = :erlang.binary_to_term(<<head::binary, id::32, serial::32, creation + 1::32>>)",
        );
        for dead in ["other_id", "other_life"] {
            let reason = pair.exit_reason(&format!("GenServer.call({dead}, {{:get, 1}}, 20_000)"));
            assert_eq!(reason, ":noproc", "{dead}");
            pair.beam.run(&format!("ref = Process.monitor({dead})"));
            pair.beam.check("{:DOWN, ^ref, :process, _, reason} = next.(); reason", ":noproc");
        }
        pair.beam.run("ref = Process.monitor({:nobody, kv})");
        pair.beam.check("{:DOWN, ^ref, :process, {:nobody, ^kv}, reason} = next.(); reason", ":noproc");
        pair.beam.check("Process.flag(:trap_exit, true); Process.link(other_id)", "true");
        pair.beam.check("{:EXIT, ^other_id, reason} = next.(); reason", ":noproc");
        pair.store_lives();
    });
}

#[test]
fn monitors_and_links_are_set_and_taken_off() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        pair.beam.run("Process.flag(:trap_exit, true)");
        // Off again: what happens later is not told to them.
        pair.beam.check("ref = Process.monitor(pid); Process.demonitor(ref, [:flush])", "true");
        pair.beam.check("Process.link(pid); Process.unlink(pid)", "true");
        pair.beam
            .check("ref = Process.monitor({KeyValueStore, kv}); Process.demonitor(ref, [:flush])", "true");
        pair.store_lives();
        // On: by pid, by name, linked twice, and the node itself.
        pair.beam.run("by_pid = Process.monitor(pid); by_name = Process.monitor({KeyValueStore, kv})");
        pair.beam.run("Process.link(pid); Process.link(pid); Node.monitor(kv, true)");
        pair.store_lives();
        let Pair { kv, beam, epmd } = pair;
        kv.kill(&epmd);
        beam.run("all = for _ <- 1..4, do: next.()");
        beam.check("{:DOWN, by_pid, :process, pid, :noconnection} in all", "true");
        beam.check("{:DOWN, by_name, :process, {KeyValueStore, kv}, :noconnection} in all", "true");
        beam.check("{:EXIT, pid, :noconnection} in all", "true");
        beam.check("{:nodedown, kv} in all", "true");
        beam.check("receive do m -> m after 300 -> nil end", "nil");
    });
}

#[test]
fn a_linked_caller_that_crashes_takes_the_store_with_it_and_it_comes_back() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        pair.beam.run(
            "{crashed, ref} = spawn_monitor(fn -> Process.link(pid); GenServer.call(pid, {:get, :here}); exit(:crash) end)",
        );
        pair.beam.check("{:DOWN, ^ref, :process, ^crashed, reason} = next.(); reason", ":crash");
        pair.beam.check_soon("is_pid(p = :global.whereis_name(:kv)) and p != pid", "true");
        pair.beam.check("GenServer.call({:global, :kv}, {:get, :here})", "nil");
        // To this node it is as dead as any process that has ended.
        pair.beam.check(
            "try do GenServer.call(pid, {:get, :here}) catch :exit, {reason, _} -> reason end",
            ":noproc",
        );
    });
}

#[test]
fn casts_and_messages_that_nobody_asked_for_are_ignored() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        // None of them may cost the connection, which a BEAM would set up again before anybody looked.
        pair.beam.run("Node.monitor(kv, true)");
        for code in [
            "GenServer.cast(pid, :nonsense)",
            "GenServer.cast({:global, :kv}, {:replicate_put, :too_few})",
            "GenServer.cast({KeyValueStore, kv}, {:put, :as, :cast})",
            "GenServer.cast({:nobody, kv}, :hello)",
            "send(pid, :hello)",
            "send({KeyValueStore, kv}, {:get, :here})",
            "send({:nobody, kv}, :hello)",
            "send(pid, {:\"$gen_call\", :no_from, {:get, :here}})",
            "send(pid, {:\"$gen_call\", {self()}, {:get, :here}})",
            "send(pid, {:\"$gen_cast\"})",
            "send(pid, {:system, :no_from, :get_state})",
            "send(pid, {:EXIT, self(), :normal})",
            "send(pid, {:DOWN, make_ref(), :process, self(), :normal})",
            "send({:net_kernel, kv}, :hello)",
            "send({:rex, kv}, :hello)",
        ] {
            pair.beam.run(code);
            pair.store_lives();
        }
        pair.beam.check("GenServer.call(pid, {:get, :as})", "nil");
        pair.beam.check("receive do m -> m after 100 -> nil end", "nil");
        // A cast that is of the protocol does what it says.
        pair.beam.run("GenServer.cast({KeyValueStore, kv}, {:replicate_put, :as, :slave})");
        pair.beam.check_soon("GenServer.call(pid, {:get, :as})", ":slave");
    });
}

#[test]
fn calls_of_functions_and_spawns_are_answered_and_never_hang() {
    on_every_otp(|otp| {
        let pair = Pair::start(otp);
        pair.beam
            .check("match?({:badrpc, _}, :rpc.call(kv, :no_such_module, :function, [], 20_000))", "true");
        pair.beam.check("try do :erpc.call(kv, :os, :cmd, [~c\"id\"], 20_000) catch _, {:erpc, :timeout} -> :hung; _, _ -> :refused end", ":refused");
        pair.beam.run(
            "Process.flag(:trap_exit, true)
             spawned = Node.spawn_link(kv, fn -> :code_of_others end)",
        );
        pair.beam.check("{:EXIT, ^spawned, reason} = next.(); reason != :normal", "true");
        pair.store_lives();
    });
}
