//! A value comes back as it went in, and a key finds its value, for terms of every kind and from every OTP version.

#![cfg(feature = "program")]

mod support;

use support::{BeamNode, Epmd, KvNode, Otp, on_every_otp};

fn connected(otp: &Otp, epmd: &Epmd, name: &str, kv: &KvNode) -> BeamNode {
    let beam = BeamNode::start(otp, epmd, name);
    beam.ping(kv.name());
    beam.wait_for_global("kv");
    beam.run("put = fn k, v -> GenServer.call({:global, :kv}, {:put, k, v}, 60_000) end");
    beam.run("get = fn k -> GenServer.call({:global, :kv}, {:get, k}, 60_000) end");
    beam.run("delete = fn k -> GenServer.call({:global, :kv}, {:delete, k}, 60_000) end");
    // What is wrong is shown by its place and the beginning of it.
    beam.run(
        "wrong = fn terms, right? ->
           for {t, i} <- Enum.with_index(terms), not right?.(t, i), do: {i, String.slice(inspect(t), 0, 100)}
         end",
    );
    beam
}

#[test]
fn every_term_comes_back_as_value_and_as_key() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = connected(otp, &epmd, "beam", &kv);
        let other = BeamNode::start(otp, &epmd, "other");
        beam.ping(other.name());
        beam.run("terms = [:global.whereis_name(:kv) | KvNodeTest.Terms.all()]; length(terms)");
        beam.check("length(terms) >= 200", "true");
        beam.check(
            "wrong.(terms, fn t, i -> :ok === put.({:value, i}, t) and get.({:value, i}) === t end)",
            "[]",
        );
        beam.check(
            "wrong.(terms, fn t, i -> :ok === put.(t, {:key, i}) and get.(t) === {:key, i} end)",
            "[]",
        );
        beam.check("wrong.(terms, fn t, i -> :ok === put.({[t], t}, {:in, i}) end)", "[]");
        // No key has taken the place of another, alone or inside of other terms.
        beam.check("wrong.(terms, fn t, i -> get.(t) === {:key, i} end)", "[]");
        beam.check("wrong.(terms, fn t, i -> get.({[t], t}) === {:in, i} end)", "[]");
        beam.check("wrong.(terms, fn t, i -> get.({:value, i}) === t end)", "[]");
        beam.check("wrong.(terms, fn t, _ -> :ok === delete.(t) and get.(t) === nil end)", "[]");
    });
}

#[test]
fn the_sign_of_zero_is_kept_in_values() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = connected(otp, &epmd, "beam", &kv);
        beam.run("<<zero::float>> = <<0x8000_0000_0000_0000::64>>; put.(:zero, zero)");
        beam.check("<<get.(:zero)::float>>", "<<128, 0, 0, 0, 0, 0, 0, 0>>");
        beam.run("put.(:zero, 0.0)");
        beam.check("<<get.(:zero)::float>>", "<<0, 0, 0, 0, 0, 0, 0, 0>>");
    });
}

#[test]
fn sixty_four_mebibytes_come_back_as_value_and_as_key() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = connected(otp, &epmd, "beam", &kv);
        beam.run("big = :binary.copy(\"0123456789abcde\\n\", 4 * 1024 * 1024); byte_size(big)");
        beam.check("byte_size(big) == 64 * 1024 * 1024", "true");
        beam.check("put.(:big, big)", ":ok");
        beam.check("get.(:big) === big", "true");
        beam.check("put.(big, :found)", ":ok");
        beam.check("get.(big)", ":found");
        beam.check("get.(binary_part(big, 0, byte_size(big) - 1))", "nil");
        beam.check("delete.(big)", ":ok");
        beam.check("get.(big)", "nil");
        beam.check("get.(:big) === big", "true");
    });
}

#[test]
fn keys_of_one_version_are_found_overwritten_and_deleted_by_the_others() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    // OTP 23 reads no ports as later ones write them (V4_PORT_EXT): what they put is not for it to get.
    let mut versions = Otp::all();
    versions.retain(|otp| otp.release >= 25);
    let beams: Vec<BeamNode> = versions
        .iter()
        .enumerate()
        .map(|(index, otp)| connected(otp, &epmd, &format!("beam{index}"), &kv))
        .collect();
    eprintln!(
        "--- at once on {}",
        versions.iter().map(|otp| otp.label.as_str()).collect::<Vec<_>>().join(", ")
    );
    for beam in &beams {
        beam.run("terms = KvNodeTest.Terms.portable(); length(terms)");
        beam.check("length(terms) >= 200", "true");
    }
    for (round, writer) in beams.iter().enumerate() {
        writer.check(&format!("wrong.(terms, fn t, i -> :ok === put.(t, {{{round}, i, t}}) end)"), "[]");
        for reader in &beams {
            reader.check(&format!("wrong.(terms, fn t, i -> get.(t) === {{{round}, i, t}} end)"), "[]");
        }
    }
    for (round, deleter) in beams.iter().enumerate() {
        let others = &beams[(round + 1) % beams.len()];
        others.check("wrong.(terms, fn t, i -> :ok === put.({:again, [t]}, i) end)", "[]");
        deleter.check("wrong.(terms, fn t, i -> get.({:again, [t]}) === i end)", "[]");
        deleter.check("wrong.(terms, fn t, _ -> :ok === delete.({:again, [t]}) end)", "[]");
        others.check("wrong.(terms, fn t, _ -> get.({:again, [t]}) === nil end)", "[]");
    }
}

#[test]
fn every_term_comes_out_at_an_elixir_slave() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = connected(otp, &epmd, "beam", &kv);
        beam.run("{:ok, slave} = KeyValueStoreReplicated.start_link(:slave)");
        beam.check("GenServer.call({:global, :kv}, {:add_slave, slave})", ":ok");
        beam.run("terms = KvNodeTest.Terms.all() -- KvNodeTest.Terms.short_references()");
        beam.check("wrong.(terms, fn t, i -> :ok === put.(t, {i, t}) end)", "[]");
        beam.check_soon("GenServer.call(slave, {:get, List.last(terms)}) == get.(List.last(terms))", "true");
        beam.check("wrong.(terms, fn t, i -> GenServer.call(slave, {:get, t}) === {i, t} end)", "[]");
        beam.check("wrong.(terms, fn t, _ -> :ok === delete.(t) end)", "[]");
        beam.check_soon("map_size(:sys.get_state(slave).data)", "0");
    });
}

#[test]
fn what_one_version_puts_as_a_key_is_found_at_elixir_slaves_of_the_others() {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    // OTP 23 decodes neither aliases nor ports as later ones write them.
    let mut versions = Otp::all();
    versions.retain(|otp| otp.release >= 25);
    let start = |(at, otp): (usize, &Otp)| connected(otp, &epmd, &format!("beam{at}"), &kv);
    let beams: Vec<BeamNode> = versions.iter().enumerate().map(start).collect();
    for beam in &beams {
        beam.run("{:ok, slave} = KeyValueStoreReplicated.start_link(:slave)");
        beam.check("GenServer.call({:global, :kv}, {:add_slave, {:slave, node()}})", ":ok");
        for other in &beams {
            beam.ping(other.name());
        }
        beam.run("terms = KvNodeTest.Terms.all() -- KvNodeTest.Terms.short_references(); length(terms)");
    }
    for (round, writer) in beams.iter().enumerate() {
        writer.check(&format!("wrong.(terms, fn t, i -> :ok === put.({{{round}, t}}, i) end)"), "[]");
        for slave in &beams {
            let at =
                |key: &str| format!("GenServer.call({{:slave, :\"{}\"}}, {{:get, {key}}})", slave.name());
            let last = at(&format!("{{{round}, List.last(terms)}}"));
            writer.check_soon(&format!("{last} == length(terms) - 1"), "true");
            // What a release cannot decode is not sent to its slave.
            let all = at(&format!("{{{round}, t}}"));
            writer.check(&format!("wrong.(terms, fn t, i -> {all} === i end)"), "[]");
        }
        writer.check(&format!("wrong.(terms, fn t, _ -> :ok === delete.({{{round}, t}}) end)"), "[]");
        for slave in &beams {
            slave.check_soon("map_size(:sys.get_state(:slave).data)", "0");
        }
    }
}

#[test]
fn keys_that_a_store_is_started_with_are_found_at_elixir_slaves_and_harm_no_older_one() {
    let mut versions = Otp::all();
    versions.sort_by_key(|otp| otp.release);
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", "");
    let start = |(at, otp): (usize, &Otp)| connected(otp, &epmd, &format!("beam{at}"), &kv);
    let beams: Vec<BeamNode> = versions.iter().enumerate().map(start).collect();
    let newest = beams.last().expect("there is one");
    // So many that the map is one of hashes; and a node's own references are found in other ways.
    newest.run("aliases = for _ <- 1..60, do: apply(:erlang, :alias, [])");
    newest.run(&format!(
        "{{:ok, store}} = :rpc.call(:\"{}\", KeyValueStoreReplicated, :start_link, [:started, Map.new([:last | aliases], &{{&1, :here}})])",
        kv.name()
    ));
    for (beam, otp) in beams.iter().zip(&versions) {
        beam.run("{:ok, slave} = KeyValueStoreReplicated.start_link(:slave)");
        beam.check(
            "GenServer.call({:started, :\"KV\"}, {:add_slave, {:slave, node()}})"
                .replace("KV", kv.name())
                .as_str(),
            ":ok",
        );
        let at = |key: &str| format!("GenServer.call({{:slave, :\"{}\"}}, {{:get, {key}}})", beam.name());
        if otp.release >= 25 {
            newest.ping(beam.name());
            newest.check_soon(&format!("Enum.count(aliases, &({} === :here))", at("&1")), "60");
            newest.run("for key <- aliases, do: :ok = GenServer.call(store, {:delete, key})");
            newest.check_soon(&format!("Enum.count(aliases, &({} === nil))", at("&1")), "60");
            newest.run("for key <- aliases, do: :ok = GenServer.call(store, {:put, key, :here})");
        } else {
            // It cannot decode them: it is not sent them, and keeps its connection.
            beam.run(":net_kernel.monitor_nodes(true, [node_type: :all])");
            beam.check_soon("GenServer.call(:slave, {:get, :last})", ":here");
            newest
                .check_soon("(for s <- GenServer.call(store, :status).slaves, do: s.withheld) |> hd()", "60");
            newest.run("GenServer.call(store, {:put, :more, 1})");
            beam.check_soon("GenServer.call(:slave, {:get, :more})", "1");
            beam.check("receive do {:nodedown, node, _} -> node after 0 -> :none end", ":none");
        }
    }
}

#[test]
fn numbers_that_are_equal_but_not_the_same_are_two_keys() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", "");
        let beam = connected(otp, &epmd, "beam", &kv);
        // The zeros are one key to OTP 25 and two to later ones; here they are two for everybody.
        beam.run(
            "<<minus_zero::float>> = <<0x8000_0000_0000_0000::64>>
             pairs = [
               {1, 1.0}, {[1], [1.0]}, {%{1 => 2}, %{1.0 => 2}}, {{1, [2 | 3]}, {1, [2 | 3.0]}}, {0.0, minus_zero}
             ]",
        );
        beam.run("for {a, b} <- pairs, do: {put.(a, :integer), put.(b, :float)}");
        beam.check("Enum.uniq(for {a, b} <- pairs, do: {get.(a), get.(b)})", "[integer: :float]");
        // A charlist is a list, a binary is not.
        beam.run("put.(~c\"abc\", :list); put.(\"abc\", :binary)");
        beam.check("{get.([97, 98, 99]), get.(<<97, 98, 99>>)}", "{:list, :binary}");
    });
}
