//! Writes of several keys, which no reader sees a part of: not at the primary, and not at slaves that are kvnodes.

use crate::support::Otp;
use crate::support::cluster::{Cluster, call, same};

#[test]
fn a_reader_of_a_slave_sees_all_of_a_transaction_or_nothing() {
    let cluster = Cluster::new(&Otp::newest());
    let folder = tempfile::tempdir().expect("a folder");
    let beam = &cluster.beam;
    let _master = cluster.node("master", "");
    let _memory = cluster.node("memory", "");
    let _disk = cluster.node("disk", &format!("--data-dir {}", folder.path().display()));
    let _below = cluster.node("below", "");
    for (primary, slave) in [("master", "memory"), ("master", "disk"), ("memory", "below")] {
        cluster.add(primary, slave, ":ok");
        cluster.follows(slave, primary);
    }
    // All values of the keys are the same after each write.
    beam.run(&format!(
        "keys = Enum.map(1..5, &{{:key, &1}})
         :ok = {};
         readers = for name <- [:master, :memory, :disk, :below] do
           Task.async(fn ->
             Stream.repeatedly(fn -> GenServer.call({{:global, name}}, {{:get_many, keys}}) |> Map.values() |> Enum.uniq() end)
             |> Enum.reduce_while({{MapSet.new(), 0}}, fn
               [:last], {{seen, parts}} -> {{:halt, {{name, MapSet.size(seen) > 10, parts}}}}
               [], all -> {{:cont, all}}
               [value], {{seen, parts}} -> {{:cont, {{MapSet.put(seen, value), parts}}}}
               _several, {{seen, parts}} -> {{:cont, {{seen, parts + 1}}}}
             end)
           end)
         end
         writers = for writer <- 1..4 do
           Task.async(fn ->
             for i <- 1..3_000 do
               put = Enum.map(keys, &{{:put, &1, {{writer, i}}}})
               case rem(i, 3) do
                 0 -> {{:ok, _}} = {transact}
                 1 -> :ok = {many}
                 2 -> {{:ok, _}} = {again}
               end
             end
             :ok
           end)
         end; :ok",
        call("master", "{:put_many, Enum.map(keys, &{&1, :first})}"),
        transact = call("master", "{:transact, [], put}"),
        many = call("master", "{:put_many, Map.new(keys, &{&1, {writer, i}})}"),
        // One goes first, and comes again.
        again = call("master", "{:transact, [], [{:delete, hd(keys)} | put]}"),
    ));
    beam.check("Task.await_many(writers, 120_000)", "[:ok, :ok, :ok, :ok]");
    beam.check(&call("master", "{:put_many, Enum.map(keys, &{&1, :last})}"), ":ok");
    let seen = "[{:master, true, 0}, {:memory, true, 0}, {:disk, true, 0}, {:below, true, 0}]";
    beam.check("Task.await_many(readers, 60_000)", seen);
    beam.check_soon(&same("master", "below"), "true");
}
