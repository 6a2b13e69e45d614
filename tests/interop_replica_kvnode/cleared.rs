//! A primary that is emptied again and again beside its writers: its slaves of both kinds, and theirs, end with what it has, and no
//! reader of it or of a slave in memory sees a half of a clear.

use crate::support::cluster::{Cluster, call, on_disk, same};
use crate::support::{Otp, on_every_otp};

fn check_chain(otp: &Otp, args: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let _nodes = cluster.chain(args, folder.path());
    let _elixir = cluster.elixir(otp, "elixir", "%{stale: 1}");
    let _last = cluster.elixir(otp, "last", "%{}");
    for (primary, slave) in [("master", "elixir"), ("below", "last")] {
        cluster.add(primary, slave, ":ok");
        beam.check_soon(&same(primary, slave), "true");
    }
    // All keys have one value after each write, or none is there.
    beam.run(&format!(
        "keys = Enum.map(1..5, &{{:key, &1}})
         readers = for name <- [:master, :memory, :below] do
           Task.async(fn ->
             Stream.repeatedly(fn -> GenServer.call({{:global, name}}, {{:get_many, keys}}) end)
             |> Enum.reduce_while({{0, 0, 0}}, fn found, {{all, none, parts}} ->
               case {{map_size(found), found |> Map.values() |> Enum.uniq()}} do
                 {{5, [:last]}} -> {{:halt, {{name, all > 10, none > 10, parts}}}}
                 {{5, [_]}} -> {{:cont, {{all + 1, none, parts}}}}
                 {{0, []}} -> {{:cont, {{all, none + 1, parts}}}}
                 _ -> {{:cont, {{all, none, parts + 1}}}}
               end
             end)
           end)
         end
         writers = for writer <- 1..3 do
           Task.async(fn ->
             for i <- 1..600 do
               :ok = if rem(i, 4) == 0, do: {clear}, else: {many}
             end
             :ok
           end)
         end; :ok",
        clear = call("master", ":clear"),
        many = call("master", "{:put_many, Map.new(keys, &{&1, {writer, i}})}"),
    ));
    beam.check("Enum.map(writers, &Task.await(&1, 120_000))", "[:ok, :ok, :ok]");
    beam.check(&call("master", "{:put_many, Map.new(keys, &{&1, :last})}"), ":ok");
    let seen = "[{:master, true, true, 0}, {:memory, true, true, 0}, {:below, true, true, 0}]";
    beam.check("Enum.map(readers, &Task.await(&1, 60_000))", seen);
    for slave in ["memory", "below", "disk", "elixir", "last"] {
        beam.check_soon(&same("master", slave), "true");
    }
    beam.check(
        &format!("map_size(:sys.get_state({{:global, :last}}).data) == {}", call("master", ":count")),
        "true",
    );
    // And with nothing behind it.
    beam.check(&call("master", ":clear"), ":ok");
    for slave in ["memory", "below", "disk", "elixir", "last"] {
        beam.check_soon(&format!(":sys.get_state({{:global, :{slave}}}).data"), "%{}");
    }
}

#[test]
fn slaves_of_a_primary_in_memory_and_theirs_are_emptied_with_it() {
    on_every_otp(|otp| check_chain(otp, ""));
}

#[test]
fn slaves_of_a_primary_on_disk_and_theirs_are_emptied_with_it() {
    let dir = tempfile::tempdir().expect("a folder");
    check_chain(&Otp::newest(), &on_disk(dir.path()));
}
