//! Slaves of a store on disk: they get what is on their primary's disk, and are known again after a restart; and slaves on
//! disk, which take their places again.

use crate::support::{BeamNode, Epmd, KvNode, Otp};

#[test]
fn a_late_slave_gets_all_while_others_write_and_is_followed_again_after_a_crash() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--connect {} --data-dir {}", beam.name(), dir.path().display());
    let kv = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.run("for n <- 1..3000, do: GenServer.cast({:global, :kv}, {:replicate_put, n, {:old, n}})");
    beam.check_soon("GenServer.call({:global, :kv}, {:get, 3000})", "{:old, 3000}");
    beam.run("{:ok, pid} = KeyValueStoreDistributed.start_link(:slave); :persistent_term.put(:slave, pid)");
    // What the primary has not is deleted there.
    beam.run("GenServer.call({:global, :slave}, {:put, :stale, 1})");
    let load = beam.spawn(
        "for n <- 1..2000, do: :ok = GenServer.call({:global, :kv}, {:put, rem(n * 7, 3500), {:new, n}})",
    );
    beam.check("GenServer.call({:global, :kv}, {:add_slave, {:global, :slave}})", ":ok");
    load.value();
    let alike = "data = :sys.get_state(:persistent_term.get(:slave)).data; \
        {map_size(data), Enum.all?(data, fn {key, value} -> GenServer.call({:global, :kv}, {:get, key}) == value end)}";
    let size = beam.run("Enum.count(0..3500, &(GenServer.call({:global, :kv}, {:get, &1}) != nil))");
    beam.check_soon(alike, &format!("{{{size}, true}}"));
    kv.kill(&epmd);
    beam.wait_for_no_global("kv");
    let _kv = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:put, :after, 1})", ":ok");
    beam.check_soon("GenServer.call({:global, :slave}, {:get, :after})", "1");
    beam.check("GenServer.call({:global, :kv}, {:remove_slave, {:global, :slave}})", ":ok");
    beam.check("GenServer.call({:global, :kv}, :slaves) |> length()", "0");
}

/// Which of the slave's states `:status` shows, and how many of the primary's writes it lacks.
const PLACE: &str =
    "(status = GenServer.call({:global, :slave}, :status); {status.primary[:state], status.primary[:lag]})";

#[test]
fn a_slave_on_disk_that_is_back_asks_for_what_it_missed_alone() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let connect = format!("--connect {}", beam.name());
    // It is to have something that its primary has not.
    let args = format!("{connect} --data-dir {} --store global:slave", dir.path().display());
    let slave_args = format!("{args} --slave-writes accept");
    let slave = KvNode::start(&epmd, "slave", &slave_args);
    beam.wait_for_global("slave");
    let primary_args = format!("{connect} --store global:primary --slave global:slave");
    let primary = KvNode::start(&epmd, "primary", &primary_args);
    beam.wait_for_global("primary");
    beam.check_soon(PLACE, "{:following, 0}");
    let put = "put = fn key -> GenServer.call({:global, :primary}, {:put, key, key, confirm: 1}) end";
    beam.run(&format!("{put}; for n <- 1..500, do: :ok = put.(n)"));
    // A copy of everything would delete what the primary does not have.
    beam.check("GenServer.call({:global, :slave}, {:put, :of_its_own, 1})", ":ok");
    slave.kill(&epmd);
    beam.wait_for_no_global("slave");
    beam.check("GenServer.call({:global, :primary}, {:put, :missed, 1})", ":ok");
    beam.check("GenServer.call({:global, :primary}, {:delete, 3})", ":ok");
    let slave = KvNode::start(&epmd, "slave", &slave_args);
    beam.wait_for_global("slave");
    beam.check_soon(PLACE, "{:following, 0}");
    beam.check_soon("GenServer.call({:global, :slave}, {:get, :missed})", "1");
    beam.check(
        "for key <- [3, 4, :of_its_own], do: GenServer.call({:global, :slave}, {:get, key})",
        "[nil, 4, 1]",
    );

    // A primary that is another one copies everything, once it is told to: it was started without data.
    primary.kill(&epmd);
    beam.wait_for_no_global("primary");
    let _primary = KvNode::start(&epmd, "primary", &primary_args);
    beam.wait_for_global("primary");
    beam.check("GenServer.call({:global, :primary}, {:add_slave, {:global, :slave}})", ":ok");
    beam.check_soon("GenServer.call({:global, :slave}, {:get, :of_its_own})", "nil");
    drop(slave);
}
