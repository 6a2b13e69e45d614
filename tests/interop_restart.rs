//! Either side ends and comes back: names, data and connections are found again.

#![cfg(feature = "program")]

mod support;

use rustix::process::Signal;
use support::{BeamNode, Epmd, KvNode, Otp, at_host, at_once_on_every_otp, on_every_otp};

#[test]
fn a_restarted_beam_gets_the_names_again() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", &format!("--connect {}", at_host("beam")));
        let mut beam = BeamNode::start(otp, &epmd, "beam");
        beam.wait_for_global("kv");
        beam.check("GenServer.call({:global, :kv}, {:put, :kept, {:over, :restarts}})", ":ok");
        for _ in 0..2 {
            let mark = kv.log_mark();
            beam.kill(&epmd);
            kv.wait_for_log_after(mark, &[&at_host("beam"), "down"]);
            beam = BeamNode::start(otp, &epmd, "beam");
            beam.wait_for_global("kv");
            beam.check("GenServer.call({:global, :kv}, {:get, :kept})", "{:over, :restarts}");
        }
    });
}

#[test]
fn a_restarted_beam_that_connects_by_itself_gets_the_names_again() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        for _ in 0..2 {
            let beam = BeamNode::start(otp, &epmd, "beam");
            beam.ping(kv.name());
            beam.wait_for_global("kv");
            beam.kill(&epmd);
        }
    });
}

#[test]
fn a_restarted_kvnode_is_found_again() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let args = format!("--connect {}", beam.name());
        let mut kv = KvNode::start(&epmd, "kv", &args);
        for _ in 0..2 {
            beam.wait_for_global("kv");
            beam.run("old = :global.whereis_name(:kv)");
            beam.check("GenServer.call(old, {:put, 1, 2})", ":ok");
            kv.kill(&epmd);
            kv = KvNode::start(&epmd, "kv", &args);
            beam.check_soon("(new = :global.whereis_name(:kv)) != :undefined and new != old", "true");
            // Another life: its memory is empty, and the old pid is nobody's.
            beam.check("GenServer.call({:global, :kv}, {:get, 1})", "nil");
            beam.check(
                "try do GenServer.call(old, {:get, 1}) catch :exit, {reason, _} -> reason end",
                ":noproc",
            );
            beam.check(&format!("GenServer.call({{KeyValueStore, :\"{}\"}}, {{:get, 1}})", kv.name()), "nil");
        }
    });
}

#[test]
fn sigterm_tells_monitors_and_links_drops_the_names_and_exits_0() {
    on_every_otp(|otp| {
        for signal in [Signal::TERM, Signal::INT] {
            let epmd = Epmd::start();
            let beam = BeamNode::start(otp, &epmd, "beam");
            let kv =
                KvNode::start(&epmd, "kv", &format!("--connect {} --global one --global two", beam.name()));
            beam.wait_for_global("one");
            beam.wait_for_global("two");
            beam.run("Process.flag(:trap_exit, true)");
            beam.run("[one, two] = for name <- [:one, :two], do: :global.whereis_name(name)");
            beam.run("down = Process.monitor(one); Process.link(two)");
            beam.check("GenServer.call(two, {:put, 1, 2})", ":ok");
            kv.signal(signal);
            let ended = kv.wait();
            assert_eq!(ended.status.code(), Some(0), "{}", ended.stderr);
            beam.check(
                "receive do {:DOWN, ^down, _, ^one, reason} -> reason after 20_000 -> nil end",
                ":shutdown",
            );
            beam.check("receive do {:EXIT, ^two, reason} -> reason after 20_000 -> nil end", ":shutdown");
            beam.wait_for_no_global("one");
            beam.wait_for_no_global("two");
            epmd.wait_for_name("kv", false);
        }
    });
}

#[test]
fn a_hangup_is_answered_with_a_line_where_nothing_is_read_again_and_the_node_goes_on() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let kv = KvNode::start(&epmd, "kv", &format!("--connect {}", beam.name()));
    beam.wait_for_global("kv");
    kv.signal(Signal::HUP);
    kv.wait_for_log(&["WARN", "SIGHUP", "no TLS", "SIGTERM"]);
    beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    kv.signal(Signal::TERM);
    assert_eq!(kv.wait().status.code(), Some(0));
}

#[test]
fn a_primary_survives_the_loss_of_its_slave() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let master = KvNode::start(&epmd, "master", "");
        let slave = BeamNode::start(otp, &epmd, "slave1");
        let caller = BeamNode::start(otp, &epmd, "caller");
        slave.run("KeyValueStoreDistributed.start_link(:slave1)");
        for beam in [&slave, &caller] {
            beam.ping(master.name());
            beam.wait_for_global("master");
        }
        caller.check("KeyValueStoreDistributed.add_slave(:slave1)", ":ok");
        caller.check("KeyValueStoreDistributed.put(1, :before)", ":ok");
        slave.check_soon("GenServer.call({:global, :slave1}, {:get, 1})", ":before");
        let mark = master.log_mark();
        slave.kill(&epmd);
        master.wait_for_log_after(mark, &[&at_host("slave1"), "down"]);
        caller.check("for i <- 1..100, do: :ok = KeyValueStoreDistributed.put(i, :meanwhile); :ok", ":ok");
        caller.check("KeyValueStoreDistributed.get(100)", ":meanwhile");
    });
}

#[test]
fn a_silent_beam_is_down_after_the_tick_time_and_an_idle_one_is_not() {
    at_once_on_every_otp(|otp| {
        let epmd = Epmd::start();
        let ticks = support::BeamOptions::new("beam").erl("-kernel net_ticktime 4");
        let beam = BeamNode::start(otp, &epmd, ticks);
        let kv = KvNode::start(&epmd, "kv", &format!("--net-ticktime 4 --connect {}", beam.name()));
        beam.wait_for_global("kv");
        beam.run(&format!("Node.monitor(:\"{}\", true)", kv.name()));
        // Idle for longer than either side's tick time.
        let mark = kv.log_mark();
        beam.check("receive do m -> m after 7_000 -> :still_up end", ":still_up");
        assert!(!kv.log_since(mark).contains("down"), "{}", kv.log());
        beam.signal(Signal::STOP);
        kv.wait_for_log_after(mark, &[beam.name(), "down"]);
        beam.signal(Signal::CONT);
        // Back: it is connected to again and knows the name again.
        beam.check_soon(
            "is_pid(:global.whereis_name(:kv)) and GenServer.call({:global, :kv}, {:get, 1})",
            "nil",
        );
    });
}
