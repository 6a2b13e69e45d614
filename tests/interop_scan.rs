//! `{:scan, options}` by `GenServer.call` from every OTP version: the entries that Elixir makes of the same store, the keys that
//! `:ets.match_object/2` gives, and every key that stays once, beside callers that write.

#![cfg(feature = "program")]

mod support;

use support::cluster::{Cluster, around_a_kill, around_a_kill_with, in_etcd};
use support::{BeamNode, EtcdCluster, Otp, at_once_on_oldest_and_newest, on_every_otp};

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

/// Writes of a caller that writes beside scans; in etcd each takes longer.
const WRITES: usize = 3_000;
const WRITES_IN_ETCD: usize = 300;

fn check_scans(beam: &BeamNode, writes: usize) {
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
    beam.run(&format!("writes = {writes}"));
    beam.run(
        "writer = Task.async(fn ->
           for n <- 1..writes do
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
    beam.check("ask.({:scan, limits: 1})", "{:error, {:unknown_option, :limits}}");
    beam.check("match?({{:bad_call, _}, _}, exit_of.(fn -> ask.({:scan, match: {:\"$1\", 2}}) end))", "true");
}

/// Scans in order, of which the BEAM's own comparisons say what they have.
const ORDER: &str = "
    keys = [%{a: 1}, %{a: 1, b: 2}, %{b: 2}, %{}, %{1 => 2}, %{1.0 => 2}, [1], [1.0], [1, 2, 3], [1 | 2], [], 'text', [:a, 'text'],
      {}, {1}, {1.0}, {1, 2}, {1.0, 2, 3}, {1, 2, 3}, {1, 2, 3, 4, 5, 6}, {2, 1}, {1, %{a: 1}}, 1, 1.0, 2, 2.5, -1, -1.5, 0, 0.0, :a, :ab, :b,
      1_000_000_000_000_000_000_000, 1.0e21, self(), make_ref(), nil, \"\", \"text\", \"texts\", \"te\", <<1::3>>, <<32::6>>, <<0>>,
      <<0, 0>>, <<128>>, {:user, 1}, {:user, 2, [1]}, {:user, [1, 2]}, {[1], 2}, [[1], 2], [[1.0], 3]]
    for key <- Enum.shuffle(keys), do: :ok = ask.({:put, key, {:of, key}})
    sorted = :lists.sort(keys)
    # Of two that are == either may come first.
    same = fn got, expected ->
      got == expected and MapSet.new(got, &:erlang.term_to_binary/1) === MapSet.new(expected, &:erlang.term_to_binary/1)
    end
    heads = fn heads, list -> case list do [head | tail] -> [head | heads.(heads, tail)]; _ -> [] end end
    starts = fn key, prefix ->
      cond do
        is_tuple(prefix) and is_tuple(key) -> List.starts_with?(Tuple.to_list(key), Tuple.to_list(prefix)) or
          (tuple_size(key) >= tuple_size(prefix) and Enum.take(Tuple.to_list(key), tuple_size(prefix)) == Tuple.to_list(prefix))
        is_list(prefix) and is_list(key) -> Enum.take(heads.(heads, key), length(prefix)) == prefix
        is_binary(prefix) and is_bitstring(key) ->
          size = byte_size(prefix)
          match?(<<^prefix::binary-size(size), _::bitstring>>, key)
        true -> false
      end
    end
    ends = keys ++ [1.5, :aa, {0}, {1, 1.5}, [0 | 1], \"tex\"]
    prefixes = Enum.filter(keys, &(is_tuple(&1) or is_binary(&1) or (is_list(&1) and not match?([_ | n] when is_integer(n), &1)))) ++
      [{:user}, {[1.0]}, [1.0, 2.0], \"t\"]
    expected = fn options ->
      found = Enum.filter(sorted, fn key ->
        (not Keyword.has_key?(options, :from) or key >= options[:from]) and (not Keyword.has_key?(options, :to) or key <= options[:to])
          and (not Keyword.has_key?(options, :prefix) or starts.(key, options[:prefix]))
      end)
      if(options[:reverse], do: Enum.reverse(found), else: found)
    end
    asked = [[reverse: true], [reverse: false]] ++ for(from <- ends, do: [from: from]) ++ for(to <- ends, do: [to: to, reverse: true]) ++
      for(_ <- 1..400, do: [from: Enum.random(ends), to: Enum.random(ends), reverse: Enum.random([true, false])]) ++
      for(prefix <- prefixes, reverse <- [true, false], do: [prefix: prefix, reverse: reverse])
    different = for options <- asked,
      got = scan.([keys: true, limit: Enum.random([1, 3, 1000])] ++ options),
      not same.(got, expected.(options)),
      do: {options, got, expected.(options)}";

fn check_order(beam: &BeamNode, writes: usize) {
    beam.run(SCAN);
    beam.run(ORDER);
    beam.check("different", "[]");
    beam.check("Enum.all?(scan.(reverse: false), fn {key, value} -> value === {:of, key} end)", "true");
    beam.check("length(scan.(prefix: {:user}, match: {:user, :_}))", "2");
    beam.check("ask.({:scan, prefix: {:user}, from: 1})", "{:error, :prefix_and_range}");
    for none in [":user", "1", "%{}", "[1 | 2]", "<<1::3>>"] {
        beam.check(&format!("ask.({{:scan, prefix: {none}}})"), "{:error, :bad_prefix}");
    }
    beam.check("ask.({:scan, from: String.duplicate(\"x\", 70_000)})", "{:error, {:too_large, 65536}}");
    beam.check(
        "{[_], cursor} = ask.({:scan, limit: 1}); ask.({:scan, reverse: true, cursor: cursor})",
        "{:error, :bad_cursor}",
    );
    beam.check(
        "{[_], cursor} = ask.({:scan, limit: 1, to: :a}); ask.({:scan, cursor: cursor})",
        "{:error, :bad_cursor}",
    );
    beam.check("match?({{:bad_call, _}, _}, exit_of.(fn -> ask.({:scan, reverse: 1}) end))", "true");
    beam.run("for key <- keys, do: :ok = ask.({:delete, key})");
    beam.check("ask.({:scan, reverse: false})", "{[], :done}");
    // Beside callers that write, what stays comes once.
    beam.run("for n <- 1..1_500, do: :ok = ask.({:put, {:key, n}, n})");
    beam.run(&format!("writes = {writes}"));
    beam.run(
        "writer = Task.async(fn ->
           for n <- 1..writes do
             :ok = ask.({:put, {:key, n, :new}, n})
             :ok = ask.({:delete, {:key, n - 10, :new}})
             :ok = ask.({:put, {:key, rem(n * 7, 1_500) + 1}, :changed})
           end
         end)",
    );
    beam.check(
        "for limit <- [700, 100, 33], reverse <- [false, true] do
           seen = for {:key, n} <- scan.(keys: true, limit: limit, prefix: {:key}, reverse: reverse), do: n
           seen === if(reverse, do: Enum.to_list(1_500..1), else: Enum.to_list(1..1_500))
         end",
        "[true, true, true, true, true, true]",
    );
    beam.check("Task.await(writer, 60_000); :ok", ":ok");
}

/// Checks a store, and that a slave of it gives the same: `all` is a scan of everything. The slave has `args`, the store `engine` with them.
fn check_with_a_slave(otp: &Otp, args: &str, engine: &str, check: impl Fn(&BeamNode), all: &str) {
    let cluster = Cluster::new(otp);
    let _master = cluster.node("master", &format!("{args} {engine}"));
    let _slave = cluster.node("slave", args);
    cluster.add_in_step("slave");
    cluster.beam.run(EXIT);
    check(&cluster.beam);
    // Also what came to a slave with a copy.
    cluster.beam.run(&format!("at_primary = {all}"));
    cluster.beam.run(&SCAN.replace("{:global, :master}", "{:global, :slave}"));
    cluster.beam.check_soon(&format!("{all} === at_primary"), "true");
}

#[test]
fn a_store_in_memory_is_scanned_in_the_order_of_the_beam() {
    on_every_otp(|otp| {
        check_with_a_slave(otp, "--ordered", "", |beam| check_order(beam, WRITES), "scan.(reverse: false)")
    });
}

#[test]
fn a_store_in_etcd_is_scanned_in_the_order_of_the_beam() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        let check = |beam: &BeamNode| check_order(beam, WRITES_IN_ETCD);
        check_with_a_slave(otp, "--ordered", &in_etcd(&etcd), check, "scan.(reverse: false)");
    });
}

#[test]
fn a_scan_in_order_of_a_store_in_etcd_goes_on_after_a_restart() {
    let before = |beam: &BeamNode| {
        beam.run(SCAN);
        beam.run("for n <- 1..1_500, do: :ok = ask.({:put, {:key, n}, n})");
        beam.run("{first, cursor} = ask.({:scan, keys: true, limit: 700, prefix: {:key}, reverse: true})");
    };
    let after = |beam: &BeamNode| {
        beam.run("rest = pages.(pages, [keys: true, prefix: {:key}, reverse: true], [cursor: cursor]) |> Enum.concat()");
        beam.check("first ++ rest === for(n <- 1_500..1//-1, do: {:key, n})", "true");
    };
    let etcd = EtcdCluster::start_in_memory(1);
    around_a_kill_with(&Otp::newest(), "master", &format!("--ordered {}", in_etcd(&etcd)), before, after);
}

#[test]
fn a_store_on_disk_is_scanned_in_the_order_of_the_beam_and_goes_on_after_a_restart() {
    let before = |beam: &BeamNode| {
        beam.run(EXIT);
        check_order(beam, WRITES);
        beam.run("{first, cursor} = ask.({:scan, keys: true, limit: 700, prefix: {:key}, reverse: true})");
    };
    let after = |beam: &BeamNode| {
        beam.run("rest = pages.(pages, [keys: true, prefix: {:key}, reverse: true], [cursor: cursor]) |> Enum.concat()");
        beam.check("first ++ rest === scan.(keys: true, prefix: {:key}, reverse: true)", "true");
        beam.check("length(first ++ rest)", "1510");
    };
    on_every_otp(|otp| around_a_kill(otp, "master", "", before, after));
}

const EXIT: &str = "exit_of = fn call -> try do call.() catch :exit, why -> why end end";

#[test]
fn a_store_in_memory_is_scanned_as_ets_would_be() {
    let check = |beam: &BeamNode| {
        check_scans(beam, WRITES);
        beam.check("ask.({:scan, limit: 1, prefix: {:key}})", "{:error, :unordered}");
    };
    on_every_otp(|otp| check_with_a_slave(otp, "", "", check, "Enum.sort(scan.([]))"));
}

#[test]
fn a_store_in_etcd_is_scanned_as_ets_would_be() {
    let check = |beam: &BeamNode| {
        check_scans(beam, WRITES_IN_ETCD);
        beam.check("ask.({:scan, limit: 1, prefix: {:key}})", "{:error, :unordered}");
    };
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        check_with_a_slave(otp, "", &in_etcd(&etcd), check, "Enum.sort(scan.([]))");
    });
}

#[test]
fn a_store_on_disk_is_scanned_as_ets_would_be_and_goes_on_after_a_restart() {
    let before = |beam: &BeamNode| {
        beam.run(EXIT);
        check_scans(beam, WRITES);
        beam.run("{first, cursor} = ask.({:scan, keys: true, limit: 700})");
    };
    let after = |beam: &BeamNode| {
        beam.run("rest = pages.(pages, [keys: true], [cursor: cursor]) |> Enum.concat()");
        beam.check(
            "length(first) == 700 and Enum.sort(first ++ rest) === Enum.sort(scan.(keys: true))",
            "true",
        );
    };
    on_every_otp(|otp| around_a_kill(otp, "master", "", before, after));
}

#[test]
fn what_an_otp_cannot_decode_ends_the_call_and_keys_come_as_they_were_put() {
    keys_come_as_they_were_put("");
}

#[test]
fn so_do_keys_of_a_store_in_etcd() {
    let etcd = EtcdCluster::start_in_memory(1);
    keys_come_as_they_were_put(&in_etcd(&etcd));
}

#[expect(clippy::print_stderr, reason = "it is said that nothing was tested")]
fn keys_come_as_they_were_put(args: &str) {
    let versions = Otp::all();
    let (Some(old), Some(new)) =
        (versions.iter().find(|otp| otp.release == 23), versions.iter().find(|otp| otp.release >= 27))
    else {
        eprintln!("--- left out: this test is for OTP 23 and one from 27 on");
        return;
    };
    let cluster = Cluster::new(new);
    let old = BeamNode::start(old, &cluster.epmd, "old");
    let _master = cluster.node("master", &format!("--connect {} {args}", old.name()));
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
