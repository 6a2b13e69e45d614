//! Large keys and values.

use crate::support::{BeamNode, Epmd, KvNode, Otp};

#[test]
fn a_value_of_64_mib_and_a_key_of_64_kib_are_kept_and_nobody_waits_long_for_them() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let args = format!("--connect {} --data-dir {}", beam.name(), dir.path().display());
    let node = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.run(
        "large = :binary.copy(<<0, 1, 2, 3>>, 16 * 1024 * 1024); key = {:key, :binary.copy(\"k\", 65_536)}",
    );
    beam.run("call = fn request -> GenServer.call({:global, :kv}, request, 60_000) end");
    beam.check("call.({:put, :small, 1})", ":ok");
    // Gets go on all the while: none waits for the value that is being written.
    beam.run(
        "reader = Task.async(fn -> \
           read = fn read, slowest, count -> \
             if :persistent_term.get(:written, false), do: {slowest, count}, else: ( \
               before = System.monotonic_time(:millisecond); 1 = call.({:get, :small}); \
               read.(read, max(slowest, System.monotonic_time(:millisecond) - before), count + 1)) \
           end; \
           read.(read, 0, 0) end); \
         :persistent_term.put(:reader, reader)",
    );
    let took: u64 = beam
        .run(
            "before = System.monotonic_time(:millisecond); \
             for _ <- 1..3, do: :ok = call.({:put, key, large}); \
             took = System.monotonic_time(:millisecond) - before; \
             :persistent_term.put(:written, true); took",
        )
        .parse()
        .unwrap();
    let read = beam.run("Task.await(reader, 60_000)");
    let mut numbers = read.trim_matches(['{', '}']).split(", ").map(|number| number.parse::<u64>().unwrap());
    let (slowest, count) = (numbers.next().unwrap(), numbers.next().unwrap());
    assert!(count > 20 && slowest < took / 2 + 100, "{count} gets, {slowest} ms, beside puts of {took} ms");
    beam.check("call.({:get, key}) == large", "true");
    node.kill(&epmd);
    beam.wait_for_no_global("kv");
    let _node = KvNode::start(&epmd, "kv", &args);
    beam.wait_for_global("kv");
    beam.check("call.({:get, key}) == large", "true");
    beam.check("call.({:get, {:key, :binary.copy(\"k\", 65_535)}})", "nil");
    beam.check("call.({:delete, key})", ":ok");
    beam.check("call.({:get, key})", "nil");
}
