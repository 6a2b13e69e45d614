//! Partitions: hosts are cut off from each other for a while, in the middle of a stream of writes, and healed. The primary
//! serves throughout, nothing that it acknowledged is lost, and names and replicas are back soon after.
//!
//! It takes root, for network namespaces; elsewhere these tests say that they are not run. Those that last longer are run
//! by hand, with what they print:
//!
//! ```text
//! cargo nextest run --test interop_partition --run-ignored all --no-capture
//! ```

#![cfg(feature = "program")]
#![expect(clippy::print_stdout, reason = "times are shown when a test fails")]
#![expect(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

mod support;

use std::time::{Duration, Instant};

use support::cluster::{differences, in_step};
use support::{BeamNode, BeamOptions, Cut, Host, KvNode, Network, Otp, at_once_on_oldest_and_newest};

/// Keys of the stream of writes.
const KEYS: u32 = 400;

/// How long a cut lasts, and after what silence nodes take each other for down.
#[derive(Clone, Copy)]
struct Plan {
    how: Cut,
    lasts: Duration,
    net_ticktime_secs: u64,
}

impl Plan {
    const fn new(how: Cut, secs: u64, net_ticktime_secs: u64) -> Self {
        Self { how, lasts: Duration::from_secs(secs), net_ticktime_secs }
    }

    /// Whether nodes have certainly taken each other for down when it ends: a BEAM does within 1.25 of its tick time.
    const fn is_noticed(self) -> bool {
        self.lasts.as_secs() * 4 > self.net_ticktime_secs * 5
    }

    fn beam(self, otp: &Otp, network: &Network, host: &Host, name: &str) -> BeamNode {
        let tick = format!("-kernel net_ticktime {}", self.net_ticktime_secs);
        BeamNode::start(otp, network.epmd(), BeamOptions::new(name).on(host).erl(&tick))
    }

    fn kvnode(self, network: &Network, host: &Host, name: &str, args: &str) -> KvNode {
        let args = format!("--net-ticktime {} {args}", self.net_ticktime_secs);
        KvNode::start_on(network, host, name, &args)
    }

    /// Cuts the hosts off, for as long as it lasts, and does `meanwhile` then. Gives when it was healed.
    fn carry_out(self, hosts: &[&Host], meanwhile: impl FnOnce()) -> Instant {
        let cut = Instant::now();
        hosts.iter().for_each(|host| host.cut(self.how));
        meanwhile();
        // The cut itself is the event: nothing else is waited for.
        std::thread::sleep(self.lasts.saturating_sub(cut.elapsed()));
        hosts.iter().for_each(|host| host.heal(self.how));
        Instant::now()
    }
}

/// A kvnode primary and its caller on one host, an Elixir slave and a kvnode slave on two others.
fn a_kvnode_primary(otp: &Otp, plan: Plan) {
    let Some(network) = Network::lay(3) else { return };
    let [here, there, elsewhere] = network.hosts();
    let caller = plan.beam(otp, &network, here, "caller");
    let elixir = plan.beam(otp, &network, there, "elixir");
    elixir.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:elixir); Process.unlink(slave)");
    let connect =
        |names: &[&str]| -> String { names.iter().map(|name| format!("--connect {name} ")).collect() };
    let rust = plan.kvnode(&network, elsewhere, "rust", &connect(&[elixir.name()]));
    let slaves = "--slave global:elixir --slave global:rust";
    let peers = connect(&[caller.name(), elixir.name(), rust.name()]);
    let master = plan.kvnode(&network, here, "master", &format!("{peers} {slaves}"));
    caller.wait_for_global("master");
    caller
        .run(&format!("{{:ok, writer}} = KvNodeTest.Writer.start({{:global, :master}}, {KEYS}, 1, 20_000)"));
    caller.run("KvNodeTest.Writer.await_more(writer, 500)");
    for slave in ["elixir", "rust"] {
        caller.check_soon(&in_step(slave), "true");
    }
    caller.run("KvNodeTest.Writer.slowest(writer)");
    let (mark, rust_mark) = (master.log_mark(), rust.log_mark());
    let healed = plan.carry_out(&[there, elsewhere], || {
        caller.check("KeyValueStoreDistributed.put(:during, :the_cut)", ":ok");
        elixir.check("GenServer.call(slave, {:get, :during})", "nil");
    });
    let slowest: u64 = caller.run("KvNodeTest.Writer.slowest(writer)").parse().expect("a number");
    assert!(slowest < 2_000, "a write took {slowest} ms while others were cut off");
    // What was lost comes back; what was never missed goes on.
    let mut noticed = healed;
    if plan.is_noticed() {
        for (slave, peer) in [("elixir", elixir.name()), ("rust", rust.name())] {
            master.wait_for_log_after(mark, &["slave lost", slave]);
            master.wait_for_log_after(mark, &["peer up", peer]);
        }
        noticed = Instant::now();
        rust.wait_for_log_after(rust_mark, &["peer up", elixir.name()]);
    }
    elixir.wait_for_global("master");
    elixir.wait_for_global("rust");
    // Behind all that was written before.
    caller.check("KeyValueStoreDistributed.put(:after, :the_cut)", ":ok");
    for slave in ["elixir", "rust"] {
        elixir.check_soon(&format!("GenServer.call({{:global, :{slave}}}, {{:get, :after}})"), ":the_cut");
        caller.check_soon(&in_step(slave), "true");
    }
    let back = Instant::now();
    println!(
        "{} cut for {:?} by {:?}: noticed {:?} after it was healed, all back {:?} later; slowest write {slowest} ms",
        otp.label,
        plan.lasts,
        plan.how,
        noticed - healed,
        back - noticed
    );
    if plan.is_noticed() {
        assert!(back - noticed < Duration::from_secs(2), "back {:?} after it was noticed", back - noticed);
    } else {
        assert!(!master.log_since(mark).contains("slave lost"), "nobody was silent for long enough");
    }
    caller.run("KvNodeTest.Writer.await_more(writer, 200)");
    for key in [":during", ":after"] {
        caller.check(&format!("KeyValueStoreDistributed.delete({key})"), ":ok");
    }
    caller.run("ended = KvNodeTest.Writer.stop(writer)");
    caller.check("ended.failed", "[]");
    caller.check("map_size(ended.expected) > 300", "true");
    caller.check(&differences("{:global, :master}"), "[]");
    elixir.run(&format!("ended = {}", caller.run("ended")));
    for slave in ["{:global, :elixir}", "{:global, :rust}"] {
        elixir.check_soon(&differences(slave), "[]");
    }
}

/// An Elixir primary with its caller on one host, a kvnode slave on each of two others. The primary sends nothing twice: of
/// what is written during a long cut its slaves have what is written again.
fn an_elixir_primary(otp: &Otp, plan: Plan) {
    let Some(network) = Network::lay(3) else { return };
    let [here, there, elsewhere] = network.hosts();
    let master = plan.beam(otp, &network, here, "master");
    master.run("{:ok, primary} = KeyValueStoreDistributed.start_link(:master); Process.unlink(primary)");
    let connect = format!("--connect {}", master.name());
    let slaves = [("slave1", there), ("slave2", elsewhere)]
        .map(|(name, host)| plan.kvnode(&network, host, name, &connect));
    for name in ["slave1", "slave2"] {
        master.wait_for_global(name);
        master.check(&format!("KeyValueStoreDistributed.add_slave(:{name})"), ":ok");
    }
    // Slower, as what the BEAM cannot send it keeps, and past 1 MiB of that a process that casts is suspended until the
    // slave is known to be gone.
    let pause_ms = if plan.lasts > Duration::from_secs(30) { 25 } else { 5 };
    master.run(&format!(
        "{{:ok, writer}} = KvNodeTest.Writer.start({{:global, :master}}, {KEYS}, {pause_ms}, 20_000)"
    ));
    master.run("KvNodeTest.Writer.put_all(writer); KvNodeTest.Writer.slowest(writer)");
    master.run("for i <- 1..200, do: KeyValueStoreDistributed.put({:before, i}, i)");
    let marks = slaves.each_ref().map(KvNode::log_mark);
    let healed = plan.carry_out(&[there, elsewhere], || {
        master.check("KeyValueStoreDistributed.put(:during, :the_cut)", ":ok");
    });
    let slowest: u64 = master.run("KvNodeTest.Writer.slowest(writer)").parse().expect("a number");
    // A BEAM that still knows a slave's name connects to cast, which may take its net_setuptime of 7 s.
    assert!(slowest < 15_000, "a write took {slowest} ms while others were cut off");
    let mut noticed = healed;
    if plan.is_noticed() {
        for (slave, mark) in slaves.iter().zip(marks) {
            slave.wait_for_log_after(mark, &["peer down", master.name()]);
            slave.wait_for_log_after(mark, &["peer up", master.name()]);
        }
        noticed = Instant::now();
    }
    for name in ["slave1", "slave2"] {
        master.wait_for_global(name);
    }
    master.check("KeyValueStoreDistributed.put(:after, :the_cut)", ":ok");
    for name in ["slave1", "slave2"] {
        master.check_soon(&format!("GenServer.call({{:global, :{name}}}, {{:get, :after}})"), ":the_cut");
    }
    let back = Instant::now();
    println!(
        "{} Elixir primary, cut for {:?} by {:?}: noticed {:?} after it was healed, all back {:?} later; slowest \
         write {slowest} ms",
        otp.label,
        plan.lasts,
        plan.how,
        noticed - healed,
        back - noticed
    );
    if plan.is_noticed() {
        assert!(back - noticed < Duration::from_secs(2), "back {:?} after it was noticed", back - noticed);
        master.run("KvNodeTest.Writer.put_all(writer)");
    }
    for key in [":during", ":after"] {
        master.check(&format!("KeyValueStoreDistributed.delete({key})"), ":ok");
    }
    master.run("ended = KvNodeTest.Writer.stop(writer)");
    master.check("ended.failed", "[]");
    master.run(
        "ended = update_in(ended.expected, &Map.merge(&1, Map.new(1..200, fn i -> {{:before, i}, i} end)))",
    );
    for server in ["{:global, :master}", "{:global, :slave1}", "{:global, :slave2}"] {
        master.check_soon(&differences(server), "[]");
    }
}

#[test]
fn a_kvnode_primary_and_its_slaves_outlive_3_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::Drop, 3, 60)));
}

#[test]
fn a_kvnode_primary_and_its_slaves_outlive_3_seconds_without_a_link() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::LinkDown, 3, 60)));
}

#[test]
fn an_elixir_primary_and_its_kvnode_slaves_outlive_3_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| an_elixir_primary(otp, Plan::new(Cut::Drop, 3, 60)));
}

#[test]
fn an_elixir_primary_and_its_kvnode_slaves_outlive_3_seconds_without_a_link() {
    at_once_on_oldest_and_newest(|otp| an_elixir_primary(otp, Plan::new(Cut::LinkDown, 3, 60)));
}

#[test]
fn a_kvnode_primary_finds_its_slaves_again_after_20_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::Drop, 20, 8)));
}

#[test]
#[ignore = "takes half a minute"]
fn a_kvnode_primary_finds_its_slaves_again_after_20_seconds_without_a_link() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::LinkDown, 20, 8)));
}

#[test]
#[ignore = "takes half a minute"]
fn kvnode_slaves_find_their_elixir_primary_again_after_20_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| an_elixir_primary(otp, Plan::new(Cut::Drop, 20, 8)));
}

#[test]
#[ignore = "takes half a minute"]
fn kvnode_slaves_find_their_elixir_primary_again_after_20_seconds_without_a_link() {
    at_once_on_oldest_and_newest(|otp| an_elixir_primary(otp, Plan::new(Cut::LinkDown, 20, 8)));
}

#[test]
#[ignore = "takes two minutes"]
fn a_kvnode_primary_finds_its_slaves_again_after_90_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::Drop, 90, 60)));
}

#[test]
#[ignore = "takes two minutes"]
fn a_kvnode_primary_finds_its_slaves_again_after_90_seconds_without_a_link() {
    at_once_on_oldest_and_newest(|otp| a_kvnode_primary(otp, Plan::new(Cut::LinkDown, 90, 60)));
}

#[test]
#[ignore = "takes two minutes"]
fn kvnode_slaves_find_their_elixir_primary_again_after_90_seconds_of_lost_packets() {
    at_once_on_oldest_and_newest(|otp| an_elixir_primary(otp, Plan::new(Cut::Drop, 90, 60)));
}
