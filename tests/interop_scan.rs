//! `{:scan, options}` by `GenServer.call` from every OTP version: the entries that Elixir makes of the same store, the keys that
//! `:ets.match_object/2` gives, and every key that stays once, beside callers that write.

#![cfg(feature = "program")]

mod support;

use support::cluster::{Cluster, in_step};
use support::{BeamNode, KvNode, Otp, on_every_otp};

const SCAN: &str = "
    ask = fn request -> GenServer.call({:global, :master}, request, 20_000) end
    pages = fn pages, options, cursor ->
      {entries, next} = ask.({:scan, cursor ++ options})
      [entries | if(next == :done, do: [], else: pages.(pages, options, [cursor: next]))]
    end
    scan = fn options -> pages.(pages, options, []) |> Enum.concat() end";

/// Keys of many kinds, and patterns of which ETS says what they match.
const PATTERNS: &str = "
    keys = [%{a: 1}, %{a: 1, b: 2}, %{b: 2}, %{}, [1], [1, 2, 3], [1 | 2], [], 'text', [:a, 'text'], {}, {1, 2}, {1, 2, 3},
      {1, %{a: 1, b: 2}}, {1, %{a: %{c: 1}}}, {1, %{}}, 1, 1.0, :_, \"text\", {:user, 1}, {:user, :_}, {:user, {1, []}},
      1_000_000_000_000_000_000_000, self(), nil, {:user, self()}, <<1::3>>, [[[1]]], {[1, {2, %{3 => [4]}}]}]
    patterns = [:_, %{a: :_}, %{a: 1}, %{}, %{a: 1, b: :_}, [1 | :_], [:_], [:_ | :_], [:_, :_, :_], [:_, 2, 3], [1, :_, 3],
      [:_ | 2], {:_, :_}, {1, :_}, {1, %{a: :_}}, {1, %{a: 1}}, {:_, %{a: 1}}, {:_, %{}}, {:_, %{a: %{c: :_}}}, 1, 1.0, {:user, :_},
      {:user, {:_, []}}, {:user, {:_, :_}}, [[[:_]]], [[:_]], [:a, [116 | :_]], [:_, 'text'], {[1, {:_, %{3 => [:_]}}]},
      {[1, {2, %{3 => :_}}]}, {[1 | :_]}, {:user, self()}, nil, \"text\", {}, []]
    same = fn one, other -> length(one) == length(other) and MapSet.new(one) === MapSet.new(other) end
    table = :ets.new(:table, [:set])
    for {key, n} <- Enum.with_index(keys) do
      :ets.insert(table, {key, n})
      :ok = ask.({:put, key, n})
    end
    # A key without variables was itself before OTP 27, maps in it too.
    of_27 = if(System.otp_release() < \"27\", do: [%{a: 1}, %{}, {1, %{a: 1}}], else: [])
    different = for pattern <- patterns -- of_27,
      ets = :ets.match_object(table, {pattern, :_}),
      not same.(scan.(match: pattern, limit: 3), ets)
        or not same.(scan.(match: pattern, keys: true), for({key, _} <- ets, do: key)),
      do: {pattern, ets, scan.(match: pattern)}";

fn check_scans(beam: &BeamNode) {
    beam.run(SCAN);
    beam.check("ask.({:scan, []})", "{[], :done}");
    beam.run(PATTERNS);
    beam.check("different", "[]");
    beam.check("same.(scan.([]), :ets.tab2list(table))", "true");
    beam.run("for key <- keys, do: :ok = ask.({:delete, key})");
    beam.check(
        "for n <- 1..2_000, do: :ok = ask.({:put, {:key, n}, String.duplicate(\"v\", rem(n, 100))}); :ok",
        ":ok",
    );
    // Beside callers that write, what stays comes once.
    beam.run(
        "writer = Task.async(fn ->
           for n <- 1..3_000 do
             :ok = ask.({:put, {:new, n}, n})
             :ok = ask.({:delete, {:new, n - 10}})
             :ok = ask.({:put, {:key, rem(n * 7, 2_000) + 1}, :changed})
           end
         end)",
    );
    beam.check(
        "for limit <- [1000, 100, 33, 2000] do
           seen = for {:key, n} <- scan.(keys: true, limit: limit), do: n
           Enum.sort(seen) === Enum.to_list(1..2_000)
         end",
        "[true, true, true, true]",
    );
    beam.check("Task.await(writer, 60_000); :ok", ":ok");
    beam.check(
        "Enum.map(pages.(pages, [limit: 300, match: {:key, :_}], []), &length/1) |> Enum.max()",
        "300",
    );
    beam.check("ask.({:scan, limit: 1, prefix: {:key}})", "{:error, :unordered}");
    beam.check("ask.({:scan, limits: 1})", "{:error, {:unknown_option, :limits}}");
    beam.check("match?({{:bad_call, _}, _}, exit_of.(fn -> ask.({:scan, match: {:\"$1\", 2}}) end))", "true");
}

const EXIT: &str = "exit_of = fn call -> try do call.() catch :exit, why -> why end end";

#[test]
fn a_store_in_memory_is_scanned_as_ets_would_be() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let _master = cluster.node("master", "");
        let _slave = cluster.node("slave", "");
        cluster.add("master", "slave", ":ok");
        cluster.beam.check_soon(&in_step("slave"), "true");
        cluster.beam.run(EXIT);
        check_scans(&cluster.beam);
        // A slave is scanned as its primary is.
        cluster.beam.run("at_primary = Enum.sort(scan.([]))");
        cluster.beam.run(&SCAN.replace("{:global, :master}", "{:global, :slave}"));
        cluster.beam.check_soon("Enum.sort(scan.([])) === at_primary", "true");
    });
}

#[test]
fn a_store_on_disk_is_scanned_as_ets_would_be_and_goes_on_after_a_restart() {
    on_every_otp(|otp| {
        let dir = tempfile::tempdir().expect("a folder");
        let args = format!("--data-dir {}", dir.path().display());
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let master: KvNode = cluster.node("master", &args);
        beam.run(EXIT);
        check_scans(beam);
        beam.run("{first, cursor} = ask.({:scan, keys: true, limit: 700})");
        master.kill(&cluster.epmd);
        let _master = cluster.node("master", &args);
        beam.run("rest = pages.(pages, [keys: true], [cursor: cursor]) |> Enum.concat()");
        beam.check(
            "length(first) == 700 and Enum.sort(first ++ rest) === Enum.sort(scan.(keys: true))",
            "true",
        );
    });
}

#[test]
fn what_an_otp_cannot_decode_ends_the_call_and_keys_come_as_they_were_put() {
    let versions = Otp::all();
    let (Some(old), Some(new)) =
        (versions.iter().find(|otp| otp.release == 23), versions.iter().find(|otp| otp.release >= 27))
    else {
        eprintln!("--- left out: this test is for OTP 23 and one from 27 on");
        return;
    };
    let cluster = Cluster::new(new);
    let old = BeamNode::start(old, &cluster.epmd, "old");
    let _master = cluster.node("master", &format!("--connect {}", old.name()));
    old.wait_for_global("master");
    cluster.beam.run(SCAN);
    cluster.beam.run("alias = :erlang.alias(); :ok = ask.({:put, alias, {1, alias}})");
    cluster.beam.check("[{key, value}] = scan.([]); {key === alias, value === {1, alias}}", "{true, true}");
    cluster.beam.check("Map.has_key?(Map.new(scan.([])), alias)", "true");
    old.run(EXIT);
    old.run(SCAN);
    old.check("match?({{:system_limit, _}, _}, exit_of.(fn -> ask.({:scan, keys: true}) end))", "true");
    old.check("ask.({:scan, match: {:user, :_}})", "{[], :done}");
}
