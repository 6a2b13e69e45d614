//! The requests of docs/requests.md by `GenServer.call` from every OTP version: their results are `===` what Elixir makes of
//! the same terms, and slaves of both kinds end with what the primary has.

#![cfg(feature = "program")]

mod support;

use support::cluster::{
    Cluster, PairOnDisk, around_a_kill, around_a_kill_with, call, in_etcd, in_step, on_disk, same, states,
};
use support::{BeamNode, EtcdCluster, KvNode, Otp, at_once_on_oldest_and_newest, on_every_otp};

/// A call of the store that the text of Elixir calls `kv`.
const CALL: &str = "ask = fn request -> GenServer.call({:global, :kv}, request, 20_000) end";

fn check_requests(beam: &BeamNode) {
    beam.run(CALL);
    for (request, value) in [
        ("{:fetch, :k}", ":error"),
        ("{:member, :k}", "false"),
        (":count", "0"),
        ("{:get_many, [:k]}", "%{}"),
        ("{:put_new, :k, nil}", "true"),
        ("{:put_new, :k, 1}", "false"),
        ("{:fetch, :k}", "{:ok, nil}"),
        ("{:member, :k}", "true"),
        ("{:replace, :k, 7}", "true"),
        ("{:replace, :new, 7}", "false"),
        ("{:update_counter, :k, 3}", "10"),
        ("{:update_counter, :other, 3, 40}", "43"),
        ("{:get_and_put, :k, {:a, 1.5}}", "10"),
        ("{:update_counter, :k, 3}", "{:error, :not_an_integer}"),
        ("{:update_counter, :other, 1.5}", "{:error, :not_an_integer}"),
        ("{:pop, :k}", "{:a, 1.5}"),
        ("{:pop, :k}", "nil"),
        ("{:put_many, [{1, :a}, {2, :b}, {1, :c}]}", ":ok"),
        ("{:put_many, %{3 => :d, 3.0 => :e}}", ":ok"),
        ("{:get_many, [3, 1, 4, 3.0, 1]}", "%{1 => :c, 3 => :d, 3.0 => :e}"),
        ("{:get_many, [1, 2, 3]}", "%{1 => :c, 2 => :b, 3 => :d}"),
        ("{:delete_many, [1, 2, 3, 4]}", ":ok"),
        (":count", "2"),
        ("{:put_new, :new, 1, sync: 5}", "{:error, {:unknown_option, :sync}}"),
        ("{:put, :new, 1, sync: 5}", "{:error, {:unknown_option, :sync}}"),
        ("{:put_new, :new, 1, confirm: 0}", "true"),
        ("{:put_new, :new, 1, confirm: 0}", "false"),
        ("{:pop, :new, confirm: 0}", "1"),
        ("{:fetch_revision, :cas}", ":error"),
        ("{:compare_and_put, :cas, {:value, nil}, 1}", "{:error, {:conflict, :absent}}"),
        ("{:compare_and_put, :cas, :absent, %{a: 1, b: [1.5]}}", ":ok"),
        ("{:compare_and_put, :cas, {:value, %{b: [1.5], a: 1}}, nil}", ":ok"),
        ("{:fetch, :cas}", "{:ok, nil}"),
        ("{:compare_and_delete, :cas, {:value, nil}}", ":ok"),
        ("{:compare_and_delete, :cas, :absent}", ":ok"),
        ("{:transact, [{:absent, :from}], [{:put, :from, 10}, {:put, {:to, 1.5}, 0}]}", "{:ok, [:ok, :ok]}"),
        ("{:transact, [{:equal, :from, 10}], [{:add, :from, -3}, {:add, {:to, 1.5}, 3}]}", "{:ok, [7, 3]}"),
        (
            "{:transact, [{:present, :from}, {:equal, {:to, 1.5}, 3.0}], [{:delete, :from}]}",
            "{:error, {:failed, {:equal, {:to, 1.5}, 3.0}}}",
        ),
        ("{:transact, [], [{:delete, :from}, {:delete, {:to, 1.5}}], confirm: 0}", "{:ok, [:ok, :ok]}"),
        (":clear", ":ok"),
        (":count", "0"),
        ("{:clear, confirm: 0}", ":ok"),
        ("{:clear, sync: 1}", "{:error, {:unknown_option, :sync}}"),
    ] {
        beam.check(&format!("ask.({request}) === {value}"), "true");
    }
    check_revisions(beam);
    check_values(beam);
    check_refusals(beam);
}

/// Of a store that has no slave a write waits in vain.
fn check_unconfirmed(beam: &BeamNode) {
    for (request, value) in [
        ("{:put_new, :new, 1, confirm: 1}", "{:error, {:unconfirmed, 0, 1}}"),
        ("{:put_new, :new, 1, confirm: 1}", "false"),
        ("{:pop, :new, confirm: 0}", "1"),
        ("{:clear, confirm: 1}", "{:error, {:unconfirmed, 0, 1}}"),
    ] {
        beam.check(&format!("ask.({request}) === {value}"), "true");
    }
}

/// Of a store that counts its writes by itself.
fn check_counted_revisions(beam: &BeamNode) {
    beam.run(":ok = ask.({:put, :cas, 1}); {:ok, 1, revision} = ask.({:fetch_revision, :cas})");
    beam.check("is_integer(revision) and revision > 0", "true");
    for (request, value) in [
        (
            "{:compare_and_put, :cas, {:revision, revision + 1}, 2}",
            "{:error, {:conflict, {:value, 1, revision}}}",
        ),
        ("{:compare_and_put, :cas, {:value, 1.0}, 2}", "{:error, {:conflict, {:value, 1, revision}}}"),
        ("{:compare_and_put, :cas, :absent, 2}", "{:error, {:conflict, {:value, 1, revision}}}"),
        ("{:compare_and_put, :cas, {:revision, revision}, 2}", ":ok"),
        (
            "{:compare_and_put, :cas, {:revision, revision}, 3}",
            "{:error, {:conflict, {:value, 2, revision + 1}}}",
        ),
        ("{:put_many, [{:cas, 3}, {:cas_2, 4}]}", ":ok"),
        ("{:fetch_revision, :cas}", "{:ok, 3, revision + 2}"),
        ("{:fetch_revision, :cas_2}", "{:ok, 4, revision + 2}"),
        ("{:compare_and_delete, :cas, {:revision, revision + 2}, confirm: 0}", ":ok"),
        ("{:compare_and_delete, :cas_2, {:value, 4}}", ":ok"),
    ] {
        beam.check(&format!("ask.({request}) === {value}"), "true");
    }
}

fn check_revisions(beam: &BeamNode) {
    beam.run(":ok = ask.({:put, :cas, 1}); {:ok, 1, revision} = ask.({:fetch_revision, :cas})");
    beam.check("is_integer(revision) and revision > 0", "true");
    for expected in ["{:revision, revision + 1}", "{:value, 1.0}", ":absent"] {
        beam.check(
            &format!("ask.({{:compare_and_put, :cas, {expected}, 2}}) === {{:error, {{:conflict, {{:value, 1, revision}}}}}}"),
            "true",
        );
    }
    beam.check("ask.({:compare_and_put, :cas, {:revision, revision}, 2})", ":ok");
    beam.run("{:ok, 2, next} = ask.({:fetch_revision, :cas})");
    beam.check("next > revision", "true");
    beam.check(
        "ask.({:compare_and_put, :cas, {:revision, revision}, 3}) === {:error, {:conflict, {:value, 2, next}}}",
        "true",
    );
    beam.check("ask.({:put_many, [{:cas, 3}, {:cas_2, 4}]})", ":ok");
    // A write of several keys has one revision.
    beam.run(
        "{:ok, 3, last} = ask.({:fetch_revision, :cas}); {:ok, 4, ^last} = ask.({:fetch_revision, :cas_2})",
    );
    beam.check("last > next", "true");
    beam.check("ask.({:compare_and_delete, :cas, {:revision, last}, confirm: 0})", ":ok");
    beam.check("ask.({:compare_and_delete, :cas_2, {:value, 4}})", ":ok");
    // Of many callers that read the same value, one changes it.
    beam.check(
        "add = fn add ->
           {:ok, sum, revision} = ask.({:fetch_revision, :sum})
           case ask.({:compare_and_put, :sum, {:revision, revision}, sum + 1}) do
             :ok -> :ok
             {:error, {:conflict, {:value, _, other}}} when other > revision -> add.(add)
           end
         end
         :ok = ask.({:put, :sum, 0})
         1..8 |> Enum.map(fn _ -> Task.async(fn -> for _ <- 1..50, do: :ok = add.(add) end) end)
         |> Enum.each(&Task.await(&1, 60_000))
         {:ok, ask.({:get, :sum}), ask.({:delete, :sum})}",
        "{:ok, 400, :ok}",
    );
}

/// Terms of many kinds come back as they were, by each way that a value comes back.
fn check_values(beam: &BeamNode) {
    beam.run(
        "terms = [nil, true, 0, -1, 256, 1_000_000_000_000, -99_999_999_999_999_999_999_999, 1.5, -0.5, \"\", \"text\",
           <<1::3>>, 'list', [], [1 | 2], {}, {1, {2}}, %{}, %{1 => 2, 1.0 => 3, %{} => []}, self(), make_ref(),
           &String.length/1, :\"Ä\", String.duplicate(\"x\", 200_000), Enum.to_list(1..1_000), Map.new(1..100, &{&1, &1})]",
    );
    beam.check(
        "for {value, key} <- Enum.with_index(terms), into: MapSet.new() do
           next = Enum.at(terms, rem(key + 1, length(terms)))
           true = ask.({:put_new, {:term, key}, value})
           {:ok, fetched} = ask.({:fetch, {:term, key}})
           {:ok, ^fetched, revision} = ask.({:fetch_revision, {:term, key}})
           {:error, {:conflict, {:value, ^fetched, ^revision}}} = ask.({:compare_and_delete, {:term, key}, :absent})
           :ok = ask.({:compare_and_put, {:term, key}, {:value, value}, value})
           put_over = ask.({:get_and_put, {:term, key}, next})
           popped = ask.({:pop, {:term, key}})
           ask.({:fetch, {:term, key}}) === :error and fetched === value and put_over === value and popped === next
         end |> Enum.to_list()",
        "[true]",
    );
    // As keys of a map, and as its values; of OTP 27 on a reference of five words too.
    beam.check(
        "pairs = for {value, at} <- Enum.with_index(terms), into: %{}, do: {value, at}
         :ok = ask.({:put_many, pairs})
         {ask.({:get_many, terms}) === pairs, ask.({:get_many, [:nobody | Enum.reverse(terms)]}) === pairs,
          ask.({:delete_many, terms}), ask.({:get_many, terms})}",
        "{true, true, :ok, %{}}",
    );
    // Before OTP 27 these are one key, and no map may have both.
    beam.run("<<minus::float>> = <<0x80, 0::56>>");
    beam.check("ask.({:put_many, [{0.0, 1}, {minus, 2}]})", ":ok");
    let both = beam.run(
        "try do ask.({:get_many, [0.0, minus]}) |> map_size() catch :exit, {{:system_limit, _}, _} -> :refused end",
    );
    assert!(["2", ":refused"].contains(&both.as_str()), "{both}");
    beam.check(
        "{ask.({:get_many, [minus]}) === %{minus => 2}, ask.({:delete_many, [0.0, minus]})}",
        "{true, :ok}",
    );
    // What is counted with is the BEAM's own integers.
    beam.check(
        "steps = for shift <- 0..700, by <- [1, -1], do: by * Bitwise.bsl(3, shift * 7) + shift
         sums = Enum.scan([5 | steps], &(&1 + &2))
         [5 | steps] |> Enum.map(&ask.({:update_counter, :big, &1})) === sums and
           ask.({:get, :big}) === List.last(sums) and ask.({:update_counter, :big, -List.last(sums)}) === 0",
        "true",
    );
    beam.check("ask.({:delete, :big})", ":ok");
}

fn check_refusals(beam: &BeamNode) {
    beam.run("reason = fn request -> try do ask.(request) catch :exit, {reason, _} -> reason end end");
    for request in
        ["{:fetch}", "{:get_many, :k}", "{:put_many, [1]}", "{:delete_many, [1 | 2]}", "{:pop, 1, 2}"]
    {
        beam.check(&format!("reason.({request}) === {{:bad_call, {request}}}"), "true");
    }
    beam.check("ask.({:get_many, Enum.to_list(1..16_385)})", "{:error, {:too_many, 16384}}");
    beam.check("ask.({:update_counter, :huge, Bitwise.bsl(1, 524_288)})", "{:error, {:too_large, 65536}}");
    beam.check(
        "ask.({:update_counter, :huge, Bitwise.bsl(1, 524_288) - 1}) === Bitwise.bsl(1, 524_288) - 1",
        "true",
    );
    beam.check("ask.({:update_counter, :huge, 1})", "{:error, {:too_large, 65536}}");
    beam.check("is_integer(ask.({:pop, :huge}))", "true");
}

#[test]
fn every_request_of_a_store_in_memory_is_answered_with_the_terms_of_elixir() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let _kv = cluster.node("kv", "--confirm-timeout 1000");
        check_requests(&cluster.beam);
        check_unconfirmed(&cluster.beam);
        check_counted_revisions(&cluster.beam);
    });
}

#[test]
fn every_request_of_a_store_on_disk_is_answered_with_the_terms_of_elixir_also_after_a_restart() {
    on_every_otp(|otp| {
        let before = |beam: &BeamNode| {
            check_requests(beam);
            check_unconfirmed(beam);
            check_counted_revisions(beam);
            check_many_before_a_restart(beam, 1_000);
        };
        around_a_kill(otp, "kv", "--confirm-timeout 1000", before, check_after_a_restart);
    });
}

#[test]
fn every_request_of_a_store_in_etcd_is_answered_with_the_terms_of_elixir_also_after_a_restart() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        let before = |beam: &BeamNode| {
            check_requests(beam);
            // As many at a time as a transaction of etcd takes.
            check_many_before_a_restart(beam, 100);
        };
        around_a_kill_with(otp, "kv", &in_etcd(&etcd), before, check_after_a_restart);
    });
}

fn check_many_before_a_restart(beam: &BeamNode, at_once: usize) {
    beam.check(
        &format!(
            "for(i <- 1..1_000, do: {{{{:many, i}}, i}}) |> Enum.chunk_every({at_once}) |> Enum.map(&ask.({{:put_many, &1}})) |> Enum.uniq()"
        ),
        "[:ok]",
    );
    beam.check("ask.({:update_counter, :counted, 40}) + ask.({:update_counter, :counted, 2})", "82");
    beam.run("{:ok, 42, counted} = ask.({:fetch_revision, :counted}); :ok = ask.({:put, :deleted, 1}); {:ok, 1, last} = ask.({:fetch_revision, :deleted})");
    beam.check("ask.({:delete, :deleted})", ":ok");
}

fn check_after_a_restart(beam: &BeamNode) {
    beam.check_soon(
        "ask.({:get_many, [:counted | for(i <- 1..1_000, do: {:many, i})]}) ===
           Map.new([{:counted, 42} | for(i <- 1..1_000, do: {{:many, i}, i})])",
        "true",
    );
    beam.check("{:ok, 42, ^counted} = ask.({:fetch_revision, :counted}); ask.({:put, :deleted, 1})", ":ok");
    beam.check("{:ok, 1, again} = ask.({:fetch_revision, :deleted}); again > last + 1", "true");
}

/// `{REQUESTS, SEED}`: a process that asks for random things of twenty keys.
const WRITER: &str = "
    write = fn count, seed ->
      :rand.seed(:exsplus, {seed, 2, 3})
      pick = fn -> {:key, :rand.uniform(20)} end
      value = fn -> Enum.random([:rand.uniform(9), nil, {:v, :rand.uniform(9)}, %{a: 1}, 1.5, make_ref()]) end
      for _ <- 1..count do
        GenServer.call({:global, :master}, case :rand.uniform(10) do
          1 -> {:put, pick.(), value.()}
          2 -> {:delete, pick.()}
          3 -> {:put_new, pick.(), value.()}
          4 -> {:replace, pick.(), value.()}
          5 -> {:pop, pick.()}
          6 -> {:get_and_put, pick.(), value.()}
          7 -> {:update_counter, pick.(), Bitwise.bsl(:rand.uniform(9), :rand.uniform(90))}
          8 -> {:put_many, for(_ <- 1..:rand.uniform(9), do: {pick.(), value.()})}
          9 -> {:delete_many, for(_ <- 1..:rand.uniform(4), do: pick.())}
          10 -> {:update_counter, :total, 1}
        end, 20_000)
      end
      :done
    end";

/// Slaves of a store with these arguments, which waits for them where it `confirms`.
fn slaves_end_equal(otp: &Otp, args: &str, confirms: bool) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let _nodes = cluster.with_slaves_of_both_kinds(otp, args);
    let seed = std::process::id();
    beam.run(WRITER);
    beam.check(
        &format!(
            "1..4 |> Enum.map(&Task.async(fn -> write.(500, {seed} + &1) end)) |> Enum.map(&Task.await(&1, 60_000)) |> Enum.uniq()"
        ),
        "[:done]",
    );
    // Each is answered with what it would be answered without, once both slaves have it.
    for (request, value) in [
        ("{:put, :last, 1, confirm: 2}", ":ok"),
        ("{:clear, confirm: 2}", ":ok"),
        ("{:put_many, [{1, 1}, {2, 2}, {3, 3}, {:last, 1}], confirm: 2}", ":ok"),
        ("{:update_counter, 3, 4, confirm: 2}", "7"),
        ("{:get_and_put, 1, :x, confirm: 2}", "1"),
        ("{:put_new, 1, :y, confirm: 2}", "false"),
        ("{:pop, 2, confirm: 2}", "2"),
        ("{:delete_many, [:a, :b], confirm: 2}", ":ok"),
        ("{:compare_and_put, 3, {:value, 7}, 8, confirm: 2}", ":ok"),
        ("{:compare_and_put, 3, {:value, 8}, 7, confirm: 2}", ":ok"),
    ] {
        let request = if confirms { request.to_owned() } else { request.replace("confirm: 2", "confirm: 0") };
        beam.check(&call("master", &request), value);
    }
    for slave in ["rust", "elixir"] {
        if confirms {
            // What is confirmed is there.
            beam.check(&same("master", slave), "true");
        } else {
            beam.check_soon(&same("master", slave), "true");
        }
    }
    beam.check(&call("rust", "{:get_many, [1, 2, 3]}"), "%{1 => :x, 3 => 7}");
    beam.check(&call("rust", "{:fetch, 3}"), "{:ok, 7}");
    let keys = "[:total, :last, 1, 3 | for(n <- 1..20, do: {:key, n})]";
    let revisions =
        |store: &str| format!("(for key <- {keys}, do: {})", call(store, "{:fetch_revision, key}"));
    beam.check(&format!("{} === {}", revisions("rust"), revisions("master")), "true");
    beam.check(&format!("{} === {}", call("rust", ":count"), call("master", ":count")), "true");
    for request in [
        "{:put_new, 9, 1}",
        "{:pop, 1}",
        "{:update_counter, 3, 1}",
        "{:put_many, %{1 => 2}}",
        "{:delete_many, [1]}",
        ":clear",
        "{:clear, confirm: 0}",
    ] {
        beam.check(&call("rust", request), "{:error, {:slave_of, {:global, :master}}}");
    }
    beam.check(&same("master", "rust"), "true");
}

#[test]
fn slaves_of_both_kinds_end_with_what_the_primary_in_memory_has() {
    on_every_otp(|otp| slaves_end_equal(otp, "", true));
}

#[test]
fn slaves_of_both_kinds_end_with_what_the_primary_on_disk_has() {
    let dir = tempfile::tempdir().expect("a folder");
    slaves_end_equal(&Otp::newest(), &on_disk(dir.path()), true);
}

#[test]
fn slaves_of_both_kinds_end_with_what_the_primary_in_etcd_has() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        slaves_end_equal(otp, &in_etcd(&etcd), false);
    });
}

#[test]
fn a_slave_of_an_elixir_primary_answers_every_request_that_reads() {
    on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _primary = cluster.elixir(otp, "master", "%{}");
        let _slave = cluster.node("rust", "--ordered");
        beam.check("KeyValueStoreDistributed.add_slave(:rust)", ":ok");
        beam.run(
            "ask = &GenServer.call({:global, :rust}, &1, 20_000)
             put = &GenServer.call({:global, :master}, {:put, &1, &2}, 20_000)
             {:ok, ref, _} = ask.({:watch, []})
             told = fn ->
               receive do {:kvnode, ^ref, event} -> Tuple.delete_at(event, 0) after 20_000 -> :nothing end
             end",
        );
        for (key, value) in
            [("{:user, 1}", ":a"), ("{:user, 2}", ":b"), (":none", "nil"), ("1.0", "1"), (":gone", "1")]
        {
            beam.check(&format!("put.({key}, {value})"), ":ok");
        }
        beam.check("GenServer.call({:global, :master}, {:delete, :gone})", ":ok");
        beam.check(
            "for _ <- 1..6, do: told.()",
            "[{:put, {:user, 1}, :a}, {:put, {:user, 2}, :b}, {:put, :none, nil}, {:put, 1.0, 1}, {:put, :gone, 1}, {:delete, :gone}]",
        );
        beam.check("ask.({:fetch, :none})", "{:ok, nil}");
        beam.check("ask.({:fetch, :gone})", ":error");
        beam.check("{:ok, :a, revision} = ask.({:fetch_revision, {:user, 1}}); is_integer(revision)", "true");
        beam.check("{ask.({:member, 1.0}), ask.({:member, 1}), ask.(:count)}", "{true, false, 4}");
        beam.check(
            "ask.({:get_many, [{:user, 2}, :gone, :none]}) === %{{:user, 2} => :b, :none => nil}",
            "true",
        );
        beam.check("ask.({:scan, prefix: {:user}})", "{[{{:user, 1}, :a}, {{:user, 2}, :b}], :done}");
        beam.check(
            "ask.({:scan, keys: true, match: {:user, :_}, reverse: true})",
            "{[user: 2, user: 1], :done}",
        );
        beam.check("ask.({:ttl, {:user, 1}})", "{:ok, :infinity}");
        beam.check("ask.({:unwatch, ref})", ":ok");
    });
}

#[test]
fn a_slave_hands_every_request_that_writes_on_to_its_primary() {
    hands_on("", true);
}

#[test]
fn a_slave_hands_every_request_that_writes_on_to_its_primary_in_etcd() {
    let etcd = EtcdCluster::start_in_memory(1);
    hands_on(&in_etcd(&etcd), false);
}

/// To a primary with these arguments, which waits for its slave and counts its writes where it `confirms`.
fn hands_on(args: &str, confirms: bool) {
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let _slave = cluster.node("slave", "--slave-writes forward");
    let _master = cluster.node("master", &format!("--slave global:slave {args}"));
    beam.check_soon(&in_step("slave"), "true");
    for (request, value) in [
        ("{:put_new, 1, 1}", "true"),
        ("{:put_new, 1, 2, confirm: 1}", "false"),
        ("{:replace, 1, 5}", "true"),
        ("{:update_counter, 1, 3}", "8"),
        ("{:get_and_put, 1, :x, confirm: 1}", "8"),
        ("{:put_many, %{2 => 2, 3 => 3}}", ":ok"),
        ("{:delete_many, [3]}", ":ok"),
        ("{:pop, 2}", "2"),
        ("{:compare_and_put, 1, :absent, 2}", "{:error, {:conflict, {:value, :x, 5}}}"),
        ("{:compare_and_put, 1, {:value, :x}, :x}", ":ok"),
        (
            "{:transact, [{:equal, 1, :x}], [{:put, 4, 4}, {:add, 4, 4}, {:delete, 4}], confirm: 1}",
            "{:ok, [:ok, 8, :ok]}",
        ),
    ] {
        if !confirms && value.contains(":conflict") {
            beam.check(
                &format!("match?({{:error, {{:conflict, {{:value, :x, _}}}}}}, {})", call("slave", request)),
                "true",
            );
            continue;
        }
        let request = if confirms { request.to_owned() } else { request.replace("confirm: 1", "confirm: 0") };
        beam.check(&call("slave", &request), value);
    }
    beam.check(&call("master", "{:get_many, [1, 2, 3]}"), "%{1 => :x}");
    beam.check_soon(&call("slave", "{:get_many, [1, 2, 3]}"), "%{1 => :x}");
    beam.check(&call("slave", if confirms { "{:clear, confirm: 1}" } else { ":clear" }), ":ok");
    for store in ["master", "slave"] {
        beam.check_soon(&call(store, ":count"), "0");
    }
    beam.check(&call("slave", ":clear"), ":ok");
}

/// `true` once both stores have the same values of the keys 1 to 100, of the same writes.
fn same_revisions(one: &str, other: &str) -> String {
    let of =
        |store: &str| format!("(for key <- 1..100, do: GenServer.call({store}, {{:fetch_revision, key}}))");
    format!("{} === {}", of(one), of(other))
}

fn revisions_never_go_back(otp: &Otp) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let PairOnDisk { folders: [first, second], one: slave, master } = cluster.pair_on_disk();
    beam.check_soon(&states("master"), "[in_step: 0]");
    beam.run("ask = fn store, request -> GenServer.call(store, request, 20_000) end");
    beam.run("master = {:global, :master}; one = {:global, :one}");
    beam.run("for round <- 1..3, key <- 1..100, do: :ok = ask.(master, {:put, key, {round, key}})");
    beam.run("for key <- 50..60, do: :ok = ask.(master, {:delete, key})");
    beam.check("ask.(master, {:put, 100, :last, confirm: 1})", ":ok");
    beam.check(&same_revisions("master", "one"), "true");
    beam.run(
        "seen = for key <- 1..100, {:ok, _, revision} <- [ask.(one, {:fetch_revision, key})], into: %{}, do: {key, revision}
         highest = Enum.max(Map.values(seen))",
    );
    beam.check("{map_size(seen), length(Enum.uniq(Map.values(seen)))}", "{89, 89}");
    master.kill(&cluster.epmd);
    beam.check_soon(&format!("{}.primary.state", call("one", ":status")), ":gone");
    beam.check("ask.(one, {:promote})", ":ok");
    let unchanged = "Enum.all?(seen, fn {key, revision} -> match?({:ok, _, ^revision}, ask.(one, {:fetch_revision, key})) end)";
    beam.check(unchanged, "true");
    // The former primary may have gone on: no write has a number that it may have given.
    beam.run("for key <- 50..60, do: :ok = ask.(one, {:put, key, :again})");
    let above = "Enum.all?(50..60, fn key -> {:ok, :again, new} = ask.(one, {:fetch_revision, key}); new > highest + 4_000_000_000 end)";
    beam.check(above, "true");
    let master = KvNode::start(
        &cluster.epmd,
        "master",
        &format!("--connect {} {}", beam.name(), on_disk(first.path())),
    );
    beam.run(&format!("former = {{KeyValueStore, :\"{}\"}}", master.name()));
    beam.check_soon("ask.(former, :status).role", ":slave");
    beam.check_soon(&same_revisions("one", "former"), "true");
    slave.kill(&cluster.epmd);
    beam.wait_for_no_global("one");
    let _slave = cluster.node("one", &on_disk(second.path()));
    beam.check(unchanged, "true");
    beam.check(above, "true");
    beam.run(":ok = ask.(one, {:put, 1, :behind})");
    beam.check(
        "{:ok, :behind, new} = ask.(one, {:fetch_revision, 1}); new > highest + 4_000_000_011",
        "true",
    );
    beam.check_soon(&same_revisions("one", "former"), "true");
}

#[test]
fn revisions_stay_over_promotion_and_restarts_and_never_go_back() {
    on_every_otp(revisions_never_go_back);
}
