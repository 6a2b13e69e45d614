//! Writes of several keys, or of all, which no reader sees a part of: not at the primary, and not at slaves that are kvnodes.

use crate::support::Otp;
use crate::support::cluster::{Cluster, call, same};

#[test]
fn a_reader_of_a_slave_sees_all_of_a_transaction_or_nothing() {
    let cluster = Cluster::new(&Otp::newest());
    let folder = tempfile::tempdir().expect("a folder");
    let beam = &cluster.beam;
    let _nodes = cluster.chain("", folder.path());
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

#[test]
fn a_slave_loses_all_keys_at_once_and_tells_its_watchers_so() {
    let cluster = Cluster::new(&Otp::newest());
    let folder = tempfile::tempdir().expect("a folder");
    let beam = &cluster.beam;
    let _nodes = cluster.chain("", folder.path());
    beam.check(&call("master", "{:put, :in_step, 1, confirm: 2}"), ":ok");
    beam.check_soon(&call("below", "{:get, :in_step}"), "1");
    // Each of the rounds that a watcher is told of has five keys, and ends with a clear.
    beam.run(
        "keys = Enum.map(1..5, &{:key, &1})
         names = [:master, :memory, :disk, :below]
         watch = fn watch, ref, events ->
           receive do
             {:kvnode, ^ref, {_, :put, :last, _}} -> Enum.reverse(events)
             {:kvnode, ^ref, {_, :put, {:key, n}, _}} -> watch.(watch, ref, [n | events])
             {:kvnode, ^ref, {_, what}} -> watch.(watch, ref, [what | events])
             {:kvnode, ^ref, other} -> watch.(watch, ref, [other | events])
           end
         end
         parent = self()
         watchers = for name <- names do
           Task.async(fn ->
             {:ok, ref, _} = GenServer.call({:global, name}, {:watch, []})
             send(parent, {:watches, name})
             watch.(watch, ref, []) |> Enum.chunk_every(6) |> Enum.uniq()
           end)
         end
         for name <- names do
           receive do {:watches, ^name} -> :ok end
         end
         readers = for name <- names do
           Task.async(fn ->
             Stream.repeatedly(fn -> GenServer.call({:global, name}, {:get_many, [:last | keys]}) end)
             |> Enum.reduce_while({0, 0, 0}, fn
               %{last: _}, {none, all, parts} -> {:halt, {name, none > 0, all > 0, parts}}
               found, {none, all, parts} when map_size(found) == 0 -> {:cont, {none + 1, all, parts}}
               found, {none, all, parts} when map_size(found) == 5 -> {:cont, {none, all + 1, parts}}
               _, {none, all, parts} -> {:cont, {none, all, parts + 1}}
             end)
           end)
         end; :ok",
    );
    beam.run(&format!(
        "for i <- 1..500 do
           :ok = {}
           :ok = {}
         end; :ok",
        call("master", "{:put_many, Enum.map(keys, &{&1, i})}"),
        // Each is synced by the slave on disk, which is not to be left behind: a reader there waits for what was written before.
        call("master", "{:clear, confirm: if(rem(i, 5) == 0, do: 2, else: 0)}"),
    ));
    beam.check(&call("master", "{:put, :last, 1, confirm: 2}"), ":ok");
    let seen = "[{:master, true, true, 0}, {:memory, true, true, 0}, {:disk, true, true, 0}, {:below, true, true, 0}]";
    beam.check("Task.await_many(readers, 60_000)", seen);
    beam.check("Task.await_many(watchers, 60_000) |> Enum.uniq()", "[[[1, 2, 3, 4, 5, :clear]]]");
    for slave in ["memory", "disk", "below"] {
        beam.check(&call(slave, ":count"), "1");
    }
}
