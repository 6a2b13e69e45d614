//! Keys that end, by `GenServer.call` from every OTP version: to the moment for readers, and soon after in stores of memory and
//! disk, and at slaves of both kinds; over restarts, promotions and a machine's clock that is set.

#![cfg(feature = "program")]

mod support;

use std::fs;

use support::cluster::{Cluster, PairOnDisk, call, in_etcd, in_step, on_disk, same};
use support::{BeamNode, EtcdCluster, KvNode, Otp, at_once_on_oldest_and_newest, libfaketime, on_every_otp};

const ASK: &str = "ask = fn store, request -> GenServer.call({:global, store}, request, 20_000) end";

/// Two hundred keys that end at times of their own are read again and again, by five processes, until the last has ended. A read that
/// is answered before the key's time has the value, and a read that begins after it has nothing.
const READ_TO_THE_END: &str = "
    now = fn -> System.monotonic_time(:millisecond) end
    read = fn store, keys ->
      keys
      |> Enum.map(fn key ->
        Task.async(fn ->
          before = now.()
          :ok = ask.(store, {:put, key, key, ttl: 200 + rem(key, 7) * 100})
          {from, to} = {before + 200 + rem(key, 7) * 100, now.() + 200 + rem(key, 7) * 100}
          loop = fn loop, was_gone ->
            begun = now.()
            found = ask.(store, {:fetch, key})
            ended = now.()
            cond do
              ended < from and found !== {:ok, key} -> {:early, key, from - ended}
              begun > to + 1 and found !== :error -> {:late, key, begun - to}
              was_gone and found !== :error -> {:again, key}
              found === :error and begun > to + 50 -> :ok
              true -> loop.(loop, found === :error)
            end
          end
          loop.(loop, false)
        end)
      end)
      |> Enum.map(&Task.await(&1, 60_000))
      |> Enum.uniq()
    end";

fn ends_to_the_moment(otp: &Otp, args: &str) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let _nodes = cluster.with_slaves_of_both_kinds(otp, args);
    beam.run(ASK);
    beam.run(READ_TO_THE_END);
    beam.check("ask.(:master, {:put_many, [{:stays, 1}, {:longer, 2}]})", ":ok");
    beam.check("ask.(:master, {:touch, :longer, 3_600_000})", "true");
    beam.check("read.(:master, Enum.to_list(1..200))", "[:ok]");
    // No read asks for the keys, and they go: here and there.
    for store in ["master", "rust"] {
        beam.check_soon(&call(store, ":count"), "2");
    }
    beam.check_soon(&same("master", "rust"), "true");
    beam.check_soon(&same("master", "elixir"), "true");
    beam.check(":sys.get_state({:global, :elixir}).data", "%{longer: 2, stays: 1}");
    // A slave has its primary's deadlines, whatever its clock says.
    beam.check(
        "{:ok, here} = ask.(:master, {:ttl, :longer}); {:ok, there} = ask.(:rust, {:ttl, :longer}); abs(here - there) < 5_000",
        "true",
    );
    beam.check("{ask.(:rust, {:ttl, :stays}), ask.(:rust, {:ttl, :nobody})}", "{{:ok, :infinity}, :error}");
    beam.check("ask.(:master, {:persist, :longer})", "true");
    beam.check_soon("ask.(:rust, {:ttl, :longer})", "{:ok, :infinity}");
}

#[test]
fn keys_of_a_store_in_memory_end_to_the_moment_here_and_at_slaves() {
    on_every_otp(|otp| ends_to_the_moment(otp, ""));
}

#[test]
fn keys_of_a_store_on_disk_end_to_the_moment_here_and_at_slaves() {
    let dir = tempfile::tempdir().expect("a folder");
    ends_to_the_moment(&Otp::newest(), &on_disk(dir.path()));
}

#[test]
fn keys_of_a_store_in_etcd_end_to_the_moment_here_and_at_slaves() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        ends_to_the_moment(otp, &in_etcd(&etcd));
    });
}

#[test]
fn what_ends_is_told_in_the_words_of_elixir() {
    on_every_otp(|otp| is_told_in_the_words_of_elixir(otp, ""));
}

#[test]
fn so_is_what_ends_in_etcd() {
    at_once_on_oldest_and_newest(|otp| {
        let etcd = EtcdCluster::start_in_memory(1);
        is_told_in_the_words_of_elixir(otp, &in_etcd(&etcd));
    });
}

fn is_told_in_the_words_of_elixir(otp: &Otp, args: &str) {
    let cluster = Cluster::new(otp);
    let beam = &cluster.beam;
    let _kv = cluster.node("kv", args);
    beam.run(ASK);
    for (request, value) in [
        ("{:put, :k, 1, ttl: 60_000}", ":ok"),
        ("{:put_new, :k, 1, ttl: 60_000, confirm: 0}", "false"),
        ("{:update_counter, :k, 1}", "2"),
        ("{:update_counter, :window, 1, ttl: 60_000}", "1"),
        ("{:update_counter, :window, 1}", "2"),
        ("{:compare_and_put, :k, {:value, 2}, nil, ttl: 60_000}", ":ok"),
        ("{:touch, :nobody, 5}", "false"),
        ("{:touch, :k, 60_000}", "true"),
        ("{:persist, :k}", "true"),
        ("{:ttl, :k}", "{:ok, :infinity}"),
        ("{:ttl, :nobody}", ":error"),
        ("{:delete, :k, ttl: 5}", "{:error, {:unknown_option, :ttl}}"),
        ("{:pop, :k, ttl: 5}", "{:error, {:unknown_option, :ttl}}"),
    ] {
        beam.check(&format!("ask.(:kv, {request}) === {value}"), "true");
    }
    beam.check("{:ok, left} = ask.(:kv, {:ttl, :window}); left in 1..60_000", "true");
    beam.run("reason = fn request -> try do ask.(:kv, request) catch :exit, {reason, _} -> reason end end");
    for request in
        ["{:put, 1, 2, ttl: 0}", "{:put, 1, 2, ttl: -5}", "{:put, 1, 2, ttl: nil}", "{:touch, 1, 1.5}"]
    {
        beam.check(&format!("reason.({request}) === {{:bad_call, {request}}}"), "true");
    }
}

#[test]
fn deadlines_stay_over_restarts_and_promotions() {
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let PairOnDisk { folders: [first, _second], one: _one, master } = cluster.pair_on_disk();
    beam.check_soon(&in_step("one"), "true");
    beam.run(ASK);
    beam.check("ask.(:master, {:put, :long, 1, ttl: 3_600_000, confirm: 1})", ":ok");
    beam.check("ask.(:master, {:put, :short, 1, ttl: 4_000, confirm: 1})", ":ok");
    // Killed, it is there again with both.
    master.kill(&cluster.epmd);
    let master = cluster.node("master", &format!("{} --slave global:one", on_disk(first.path())));
    beam.check_soon(&in_step("one"), "true");
    beam.check("{:ok, left} = ask.(:master, {:ttl, :long}); left in 3_000_000..3_600_000", "true");
    beam.check_soon("{ask.(:master, :count), ask.(:one, :count)}", "{1, 1}");
    beam.check("ask.(:master, {:put, :last, 1, ttl: 2_000, confirm: 1})", ":ok");
    master.kill(&cluster.epmd);
    beam.check_soon(&format!("{}.primary.state", call("one", ":status")), ":gone");
    beam.check("ask.(:one, {:promote})", ":ok");
    beam.check_soon("ask.(:one, {:fetch, :last})", ":error");
    beam.check_soon("ask.(:one, :count)", "1");
    beam.check("{:ok, left} = ask.(:one, {:ttl, :long}); left in 3_000_000..3_600_000", "true");
}

fn remaining(beam: &BeamNode, key: &str) -> i64 {
    let left = beam.run(&format!("{{:ok, left}} = ask.(:kv, {{:ttl, {key}}}); left"));
    left.parse().expect("a number")
}

#[test]
fn a_machines_clock_that_is_set_by_an_hour_neither_ends_a_key_nor_keeps_it() {
    neither_ends_nor_is_kept("");
}

#[test]
fn nor_does_it_in_etcd() {
    let etcd = EtcdCluster::start_in_memory(1);
    neither_ends_nor_is_kept(&in_etcd(&etcd));
}

fn neither_ends_nor_is_kept(args: &str) {
    let Some(library) = libfaketime() else { return };
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let dir = tempfile::tempdir().expect("a folder");
    let clock = dir.path().join("clock");
    fs::write(&clock, "+0").expect("it is ours");
    let args = format!("--connect {} {args}", beam.name());
    let _kv = KvNode::start_with(&cluster.epmd, "kv", &args, |command| {
        command.env("LD_PRELOAD", library).env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        command.env("FAKETIME_TIMESTAMP_FILE", &clock).env("FAKETIME_NO_CACHE", "1");
    });
    beam.wait_for_global("kv");
    beam.run(ASK);
    beam.check("ask.(:kv, {:put, :long, 1, ttl: 600_000})", ":ok");
    for set in ["+3600", "-3600"] {
        fs::write(&clock, set).expect("it is ours");
        beam.check("ask.(:kv, {:put, :short, 1, ttl: 300})", ":ok");
        let left = remaining(beam, ":long");
        assert!((500_000..=600_000).contains(&left), "{set}: {left}");
        beam.check_soon("{ask.(:kv, {:fetch, :short}), ask.(:kv, :count)}", "{:error, 1}");
        beam.check("ask.(:kv, {:get, :long})", "1");
    }
}
