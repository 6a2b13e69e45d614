//! Slaves and primaries that are killed, stopped and cut off in the middle of a stream of writes, and readers that watch
//! a slave meanwhile.

#![cfg(feature = "program")]
#![expect(clippy::disallowed_methods, reason = "writes go on for a time by the clock")]

mod support;

use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::cluster::{Cluster, differences, elixir_store, in_step, same};
use support::{BeamNode, BeamOptions, KvNode, at_host, at_once_on_oldest_and_newest};

/// What a primary is started with whose slaves are an Elixir store and a kvnode.
const SLAVES: &str = "--slave global:elixir --slave global:rust";
/// Keys of the stream of writes.
const KEYS: u32 = 300;
/// How long slaves are stopped while their primary is written to and its memory is looked at; `KVNODE_STOPPED_SECS` has it
/// longer, by hand.
const STOPPED_SECS: u64 = 8;
/// By how much the primary's resident memory may change meanwhile, in KiB.
const CHANGE_KIB_MAX: u64 = 8 << 10;

fn start_writer(beam: &BeamNode) {
    beam.run(&format!("{{:ok, writer}} = KvNodeTest.Writer.start({{:global, :master}}, {KEYS}, 0, 20_000)"));
    more_writes(beam);
}

/// Waits until a good part of the keys was written again.
fn more_writes(beam: &BeamNode) {
    beam.run(&format!("KvNodeTest.Writer.await_more(writer, {KEYS})"));
}

/// Waits until the writer waits for an answer.
fn wait_until_it_waits(beam: &BeamNode) {
    beam.check_soon(
        "{:current_function, {:gen, _, _}} = Process.info(writer, :current_function); :waits",
        ":waits",
    );
}

/// Waits until the primary says that this slave is in step, but for writes that are on their way.
fn wait_in_step(beam: &BeamNode, slave: &str) {
    beam.check_soon(&in_step(slave), "true");
}

/// The resident memory of the primary, in KiB.
fn resident_kib(master: &KvNode) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", master.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it is there");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number of KiB")
}

/// Compares every key of a server with what was acknowledged.
fn wait_equal(beam: &BeamNode, server: &str) {
    beam.check_soon(&differences(&format!("{{:global, :{server}}}")), "[]");
}

#[test]
fn slaves_are_killed_and_stopped_and_their_primary_stopped_in_a_stream_of_writes() {
    at_once_on_oldest_and_newest(|otp| {
        let cluster = Cluster::new(otp);
        let caller = &cluster.beam;
        let args = format!("{SLAVES} --slave-buffer 256KiB");
        let master = cluster.node("master", &args);
        let start_elixir = || cluster.elixir(otp, "elixir", "%{}");
        let (mut elixir, mut rust) = (start_elixir(), cluster.node("rust", ""));
        start_writer(caller);
        for slave in ["elixir", "rust"] {
            wait_in_step(caller, slave);
        }
        for round in 0..2 {
            let mark = master.log_mark();
            elixir.kill(&cluster.epmd);
            if round == 1 {
                // Both are gone at the same time.
                rust.kill(&cluster.epmd);
                master.wait_for_log_after(mark, &["slave lost", "elixir"]);
                more_writes(caller);
                elixir = start_elixir();
            } else {
                master.wait_for_log_after(mark, &["slave lost", "elixir"]);
                more_writes(caller);
                elixir = start_elixir();
                wait_in_step(caller, "elixir");
                rust.kill(&cluster.epmd);
            }
            master.wait_for_log_after(mark, &["slave lost", "rust"]);
            more_writes(caller);
            rust = cluster.node("rust", "");
            for slave in ["elixir", "rust"] {
                wait_in_step(caller, slave);
            }
            let mark = master.log_mark();
            elixir.signal(Signal::STOP);
            rust.signal(Signal::STOP);
            // More than their buffers hold.
            (0..12).for_each(|_| more_writes(caller));
            for slave in ["elixir", "rust"] {
                master.wait_for_log_after(mark, &["behind", slave]);
            }
            elixir.signal(Signal::CONT);
            rust.signal(Signal::CONT);
            for slave in ["elixir", "rust"] {
                wait_in_step(caller, slave);
            }
            master.signal(Signal::STOP);
            let waits = caller.spawn("KvNodeTest.Writer.await_more(writer, 100)");
            wait_until_it_waits(caller);
            master.signal(Signal::CONT);
            waits.value();
        }
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        caller.check("ended.failed", "[]");
        for server in ["master", "elixir", "rust"] {
            wait_equal(caller, server);
        }
    });
}

#[test]
fn a_kvnode_primary_that_was_killed_in_a_stream_of_writes_makes_its_slaves_what_it_is_then() {
    at_once_on_oldest_and_newest(|otp| {
        let cluster = Cluster::new(otp);
        let (caller, master) = (&cluster.beam, cluster.node("master", SLAVES));
        let (_elixir, _rust) = (cluster.elixir(otp, "elixir", "%{}"), cluster.node("rust", ""));
        start_writer(caller);
        for slave in ["elixir", "rust"] {
            wait_in_step(caller, slave);
        }
        master.kill(&cluster.epmd);
        caller.wait_for_no_global("master");
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        // A store in memory ends with its node. What its slaves lack is the end of the stream, and nothing else.
        caller.check("length(ended.failed) > 0", "true");
        for slave in ["elixir", "rust"] {
            caller.check_soon(
                &format!(
                    "is_integer(KvNodeTest.Writer.prefix(ended, :sys.get_state({{:global, :{slave}}}).data))"
                ),
                "true",
            );
        }
        let _master = cluster.node("master", SLAVES);
        start_writer(caller);
        wait_in_step(caller, "elixir");
        // A kvnode keeps what its primary has lost, until an operator says otherwise.
        caller.check_soon(
            "for s <- GenServer.call({:global, :master}, :status).slaves, s.name == {:global, :rust}, do: s.state",
            "[refused: :not_empty]",
        );
        caller.check("KeyValueStoreDistributed.add_slave(:rust)", ":ok");
        wait_in_step(caller, "rust");
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        caller.check("ended.failed", "[]");
        for server in ["master", "elixir", "rust"] {
            wait_equal(caller, server);
        }
    });
}

#[test]
fn an_elixir_primary_and_its_kvnode_slave_are_killed_and_stopped_in_a_stream_of_writes() {
    at_once_on_oldest_and_newest(|otp| {
        let cluster = Cluster::new(otp);
        let caller = &cluster.beam;
        let start_master = || cluster.elixir(otp, "master", "%{}");
        let start_rust = || cluster.node("rust", &format!("--connect {}", at_host("master")));
        let (master, rust) = (start_master(), start_rust());
        let add = || {
            caller.wait_for_global("rust");
            caller.check("KeyValueStoreDistributed.add_slave(:rust)", ":ok");
        };
        add();
        start_writer(caller);
        rust.signal(Signal::STOP);
        more_writes(caller);
        rust.signal(Signal::CONT);
        master.signal(Signal::STOP);
        let waits = caller.spawn("KvNodeTest.Writer.await_more(writer, 100)");
        wait_until_it_waits(caller);
        master.signal(Signal::CONT);
        waits.value();
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        caller.check("ended.failed", "[]");
        for server in ["master", "rust"] {
            wait_equal(caller, server);
        }

        // An Elixir primary sends nothing twice: what its slave lacks when it comes back empty is written again.
        start_writer(caller);
        rust.kill(&cluster.epmd);
        more_writes(caller);
        let rust = start_rust();
        master.wait_for_global("rust");
        caller.run("KvNodeTest.Writer.put_all(writer)");
        more_writes(caller);
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        caller.check("ended.failed", "[]");
        for server in ["master", "rust"] {
            wait_equal(caller, server);
        }

        // Its slave outlives it, with what it had, and follows the next one under that name.
        let mark = rust.log_mark();
        master.kill(&cluster.epmd);
        rust.wait_for_log_after(mark, &["peer down", &at_host("master")]);
        caller.check(":sys.get_state({:global, :rust}).data == ended.expected", "true");
        let master = start_master();
        master.wait_for_global("rust");
        add();
        start_writer(caller);
        caller.run("KvNodeTest.Writer.put_all(writer)");
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        for server in ["master", "rust"] {
            wait_equal(caller, server);
        }
    });
}

#[test]
fn a_reader_of_a_slave_never_sees_a_counter_go_back_also_over_a_reconnect() {
    at_once_on_oldest_and_newest(|otp| {
        let ticking = |name: &str| BeamOptions::new(name).erl("-kernel net_ticktime 4");
        let cluster = Cluster::with(otp, ticking("caller"));
        let (caller, reader) = (&cluster.beam, BeamNode::start(otp, &cluster.epmd, ticking("reader")));
        let elixir = elixir_store(otp, &cluster.epmd, ticking("elixir"), "%{}");
        let args = format!("--net-ticktime 4 --connect {}", reader.name());
        let (master, rust) =
            (cluster.node("master", &format!("{args} {SLAVES}")), cluster.node("rust", &args));
        for other in [caller.name(), reader.name(), master.name()] {
            elixir.ping(other);
        }
        let slaves = ["elixir", "rust"];
        for name in ["master", "elixir", "rust"] {
            caller.wait_for_global(name);
            reader.wait_for_global(name);
        }
        for slave in slaves {
            wait_in_step(caller, slave);
        }
        caller.run("counter = KvNodeTest.Writer.start_counter({:global, :master}, :counter)");
        for slave in slaves {
            reader.run(&format!("{slave} = KvNodeTest.Writer.start_reader({{:global, :{slave}}}, :counter)"));
        }
        // Each has read what is written after this.
        let goes_on = || {
            let now = caller.run("GenServer.call({:global, :master}, {:get, :counter})");
            for slave in slaves {
                reader.run(&format!("KvNodeTest.Writer.await_read({slave}, {now} + 100)"));
            }
        };
        goes_on();
        for _ in 0..3 {
            let mark = master.log_mark();
            elixir.check(&format!("Node.disconnect(:\"{}\")", master.name()), "true");
            master.wait_for_log_after(mark, &["slave found", "elixir"]);
            goes_on();
        }
        let mark = master.log_mark();
        rust.signal(Signal::STOP);
        master.wait_for_log_after(mark, &["slave lost", "rust"]);
        rust.signal(Signal::CONT);
        master.wait_for_log_after(mark, &["slave found", "rust"]);
        goes_on();
        let last = caller.run("KvNodeTest.Writer.stop_counter(counter)");
        for slave in slaves {
            reader.run(&format!("KvNodeTest.Writer.await_read({slave}, {last})"));
            reader.run(&format!("seen = KvNodeTest.Writer.stop_reader({slave})"));
            reader.check("seen.back", "[]");
            reader.check("seen.last", &last);
            reader.check("seen.changes > 100", "true");
        }
    });
}

#[test]
fn a_primarys_memory_is_flat_while_its_slaves_are_stopped() {
    let for_secs =
        std::env::var("KVNODE_STOPPED_SECS").map_or(STOPPED_SECS, |secs| secs.parse().expect("seconds"));
    at_once_on_oldest_and_newest(|otp| {
        let cluster = Cluster::new(otp);
        let (caller, master) = (&cluster.beam, cluster.node("master", SLAVES));
        let (elixir, rust) = (cluster.elixir(otp, "elixir", "%{}"), cluster.node("rust", ""));
        start_writer(caller);
        for slave in ["elixir", "rust"] {
            wait_in_step(caller, slave);
        }
        elixir.signal(Signal::STOP);
        rust.signal(Signal::STOP);
        let large = "for i <- 1..2_000, do: :ok = GenServer.call({:global, :master}, {:put, {:large, rem(i, 50)}, \
                     String.duplicate(\"v\", 10_000)}); :ok";
        // More than what waits for a slave may have.
        let mark = master.log_mark();
        while !["elixir", "rust"].iter().all(|slave| {
            master.log_since(mark).lines().any(|line| line.contains("behind") && line.contains(slave))
        }) {
            caller.check(large, ":ok");
        }
        let (since, before) = (Instant::now(), resident_kib(&master));
        let mut most = before;
        while since.elapsed() < Duration::from_secs(for_secs) {
            caller.check(large, ":ok");
            more_writes(caller);
            most = most.max(resident_kib(&master));
        }
        eprintln!(
            "--- on {}: {before} KiB when both were behind, {most} KiB at most in {for_secs} s",
            otp.label
        );
        assert!(most < before + CHANGE_KIB_MAX, "{before} KiB became {most} KiB");
        elixir.signal(Signal::CONT);
        rust.signal(Signal::CONT);
        // After a minute it was given up, and a BEAM does not come back by itself.
        elixir.ping(caller.name());
        for slave in ["elixir", "rust"] {
            wait_in_step(caller, slave);
        }
        caller.run("ended = KvNodeTest.Writer.stop(writer)");
        caller.check("ended.failed", "[]");
        for slave in ["elixir", "rust"] {
            caller.check_soon(&same("master", slave), "true");
        }
    });
}
