//! `kvnode import --from`: a store comes from a running kvnode, from a folder, from a backup.

use std::path::Path;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use super::support::person::Person;
use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp};
use super::{LOADED, at_etcd, end, in_etcd, kvnode, stores};

/// Keys and values of all kinds, in many pages, and some that end.
const FILL: &str = "terms = [{:a, 1}, {{:user, 7}, %{name: \"Manolito\", f: -0.0}}, {\"\\0/\\xff\", [1 | 2]}, {<<255, 0, 255>>, &Map.get/2}, \
    {self(), <<1::3>>}, {make_ref(), nil}, {String.duplicate(\"k\", 70_000), :long}, {2, String.duplicate(\"v\", 1_000_000)}]; \
    for {k, v} <- terms, do: :ok = GenServer.call(store, {:put, k, v}); \
    :ok = GenServer.call(store, {:put_many, for(n <- 1..3000, do: {{:n, n}, n})}); \
    for n <- 1..300, do: :ok = GenServer.call(store, {:put, {:ends, n}, n, ttl: 3_600_000}); \
    for n <- 1..5, do: :ok = GenServer.call(store, {:put, {:soon, n}, n, ttl: 1})";

/// Fills the store of a node, by its local name.
fn fill(beam: &BeamNode, node: &KvNode) {
    beam.ping(node.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}", node.name()));
    beam.run(FILL);
    beam.check_soon("GenServer.call(store, :count)", "3308");
}

/// A kvnode that serves an empty store of its own in this etcd.
fn serve(epmd: &Epmd, cluster: &EtcdCluster, name: &str) -> KvNode {
    let node = KvNode::start(epmd, name, &format!("{} --local {name}", in_etcd(cluster)));
    node.wait_for_log(&[LOADED]);
    node
}

/// It has all that the first store has, with the time that is left.
fn check(beam: &BeamNode, node: &KvNode) {
    let local = node.name().split('@').next().unwrap_or_default();
    beam.ping(node.name());
    beam.run(&format!("into = {{:{local}, :\"{}\"}}", node.name()));
    beam.check("GenServer.call(into, :count)", "3308");
    beam.check("for({k, v} <- terms, do: GenServer.call(into, {:get, k}) === v) |> Enum.uniq()", "[true]");
    beam.check("for(n <- 1..3000, do: GenServer.call(into, {:get, {:n, n}}) == n) |> Enum.uniq()", "[true]");
    beam.check(
        "for(n <- 1..300, {:ok, left} = GenServer.call(into, {:ttl, {:ends, n}}), do: left in 3_000_000..3_600_000) |> Enum.uniq()",
        "[true]",
    );
    beam.check("GenServer.call(into, {:ttl, :a})", "{:ok, :infinity}");
}

#[test]
fn a_store_comes_from_a_node_whatever_keeps_it_there() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let source = KvNode::start(&epmd, "a", "--store global:shop,local:a");
    fill(&beam, &source);
    let into = serve(&epmd, &cluster, "b");
    let args = ["import", "--from", "a", "--from-store", "local:a", "--node", "b", "--to", "local:b"];
    assert_eq!(person.gets(&args), "3308 entries\n");
    check(&beam, &into);
    // Again, by its other name, and out of etcd into another one.
    let json = [
        "import",
        "--from",
        source.name(),
        "--from-store",
        "global:shop",
        "--node",
        "b",
        "--to",
        "local:b",
        "--json",
    ];
    assert_eq!(person.gets(&json), "{\"entries\":3308,\"ended\":0}\n");
    let third = KvNode::start(&epmd, "c", "--local c");
    assert_eq!(
        person.gets(&["import", "--from", "b", "--from-store", "local:b", "--node", "c", "--to", "local:c"]),
        "3308 entries\n"
    );
    check(&beam, &third);
    let same = ["import", "--from", "b", "--from-store", "local:b", "--node", "b", "--to", "local:b"];
    person.fails(&same, 2, &["it is the store that is asked"]);
    let none = ["import", "--from", "a", "--from-store", "local:z", "--node", "b", "--to", "local:b"];
    person.fails(&none, 3, &["nobody has the name {:z, :", "nothing was put"]);
    let away = ["import", "--from", "nowhere", "--node", "b", "--to", "local:b"];
    person.fails(&away, 1, &["--from ", "nowhere@", "nothing was put"]);
    let other = ["import", "--from", "/no/such", "--node", "b", "--to", "local:b"];
    person.fails(&other, 1, &["--from /no/such: it is neither a folder with stores"]);
}

#[test]
fn a_store_that_is_written_to_meanwhile_is_told_and_one_whose_keys_end_is_not() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (source, into) = (KvNode::start(&epmd, "a", "--local a"), KvNode::start(&epmd, "b", "--local b"));
    beam.ping(source.name());
    beam.ping(into.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}; into = {{:b, :\"{}\"}}", source.name(), into.name()));
    beam.run(
        "for n <- 1..3, do: :ok = GenServer.call(store, {:put_many, for(m <- 1..10_000, do: {{n, m}, m}), ttl: 3_600_000})",
    );
    let args = ["import", "--from", "a", "--from-store", "local:a", "--node", "b", "--to", "local:b"];
    let mut child = person.command(&args).spawn().unwrap();
    beam.check_soon("GenServer.call(into, :count) > 0", "true");
    beam.check("GenServer.call(store, {:put, :new, 1})", ":ok");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(said.contains("the store of a was written to 1 times meanwhile"), "{said}");
    beam.check("GenServer.call(into, :clear)", ":ok");
    // What ends meanwhile is no write of anybody.
    beam.run("for n <- 1..200, do: :ok = GenServer.call(store, {:put, {:soon, n}, n, ttl: 400 + 5 * n})");
    let said = person.types(&args);
    assert_eq!(said.code, 0, "{said:?}");
    // It is interrupted, says so, and is run again.
    child = person.command(&args).stdout(Stdio::null()).spawn().unwrap();
    beam.run("GenServer.call(into, :clear)");
    beam.check_soon("GenServer.call(into, :count) > 3_000", "true");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert!(
        said.contains("interrupted; ") && said.contains(" entries of a are in the store: run it again"),
        "{said}"
    );
    beam.check_soon("GenServer.call(store, :count)", "30001");
    assert_eq!(person.gets(&args), "30001 entries\n");
}

/// etcd is stopped, so that nobody knows what other nodes have taken; and it is killed while entries are put.
#[test]
fn a_source_that_is_cut_off_is_refused_and_a_store_that_takes_nothing_for_a_moment_is_asked_again() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (etcd, memory) = (serve(&epmd, &cluster, "b"), KvNode::start(&epmd, "a", "--local a"));
    beam.ping(etcd.name());
    beam.ping(memory.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}; into = {{:b, :\"{}\"}}", memory.name(), etcd.name()));
    beam.check("GenServer.call(into, {:put, :old, 1})", ":ok");
    let out = ["import", "--from", "b", "--from-store", "local:b", "--node", "a", "--to", "local:a"];
    cluster.stop(0);
    person.fails(&out, 5, &["b does not reach the etcd of its store", "ask another node", "nothing was put"]);
    beam.check("GenServer.call(store, :count)", "0");
    cluster.go_on(0);
    cluster.wait_until_healthy(0);
    assert_eq!(person.gets(&out), "1 entry\n");

    beam.run("for n <- 1..500, do: :ok = GenServer.call(store, {:put, n, n})");
    beam.run("for n <- 501..600, do: :ok = GenServer.call(store, {:put, n, n, ttl: 3_600_000})");
    cluster.kill(0);
    let args = ["import", "--from", "a", "--from-store", "local:a", "--node", "b", "--to", "local:b"];
    let child = person.command(&args).stdout(Stdio::piped()).spawn().unwrap();
    beam.check_soon("Map.get(GenServer.call(into, :status).not_done, :unavailable, 0) > 0", "true");
    cluster.run(0);
    let output = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "601 entries\n");
    beam.check("GenServer.call(into, :count)", "601");
    beam.check("{:ok, left} = GenServer.call(into, {:ttl, 600}); left in 3_000_000..3_600_000", "true");
}

#[test]
fn it_is_told_that_a_store_is_a_slave_and_what_it_has_comes() {
    let epmd = Epmd::start();
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (slave, into) = (KvNode::start(&epmd, "s", "--global s"), KvNode::start(&epmd, "b", "--local b"));
    let primary =
        KvNode::start(&epmd, "p", &format!("--local p --slave global:s --connect {}", slave.name()));
    beam.ping(primary.name());
    beam.ping(slave.name());
    beam.run(&format!("primary = {{:p, :\"{}\"}}", primary.name()));
    beam.check("GenServer.call(primary, {:put, 1, 2})", ":ok");
    beam.check_soon("GenServer.call({:global, :s}, {:get, 1})", "2");
    let said = person.types(&[
        "import",
        "--from",
        "s",
        "--from-store",
        "global:s",
        "--node",
        "b",
        "--to",
        "local:b",
    ]);
    assert_eq!((said.code, said.text().as_str()), (0, "1 entry\n"), "{said:?}");
    let wanted = format!("the store of s is a slave of {}: what comes is what it has", primary.name());
    assert!(said.stderr.contains(&wanted), "{said:?}");
    drop(into);
}

/// One of two nodes removes keys that have ended; the other one counts them too, as it counts the other's writes.
#[test]
fn keys_that_another_node_has_removed_as_they_had_ended_are_no_writes_of_callers() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let nodes = ["a", "b"].map(|name| {
        let node =
            KvNode::start(&epmd, name, &format!("{} --store global:kv,local:{name}", in_etcd(&cluster)));
        node.wait_for_log(&[LOADED]);
        beam.ping(node.name());
        node
    });
    beam.run(&format!(
        "[a, b] = [{{:a, :\"{}\"}}, {{:b, :\"{}\"}}]; of = fn node -> status = GenServer.call(node, :status); {{status.expired, status.seq}} end",
        nodes[0].name(),
        nodes[1].name()
    ));
    beam.run("before = Enum.map([a, b], of)");
    beam.run("for n <- 1..20, do: :ok = GenServer.call(a, {:put, n, n, ttl: 200})");
    beam.check_soon("Enum.map([a, b], of) |> Enum.map(&elem(&1, 0))", "[20, 20]");
    beam.check(
        "for({now, {0, was}} <- Enum.zip(Enum.map([a, b], of), before), do: elem(now, 1) - was) == [40, 40]",
        "true",
    );
}

#[test]
fn a_store_comes_from_a_folder_and_from_a_backup_and_what_is_too_large_is_named() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let person = Person::new(&epmd);
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let source = KvNode::start(
        &epmd,
        "a",
        &format!("--data-dir {} --store global:shop,local:a --local other", path("data")),
    );
    fill(&beam, &source);
    let (data, file) = (path("data"), path("file"));
    let into = serve(&epmd, &cluster, "b");
    let args = |from: &'static str, store: &'static str| {
        let from = if from == "data" { data.clone() } else { file.clone() };
        ["import", "--from", &from, "--from-store", store, "--node", "b", "--to", "local:b"]
            .map(str::to_owned)
    };
    let types = |args: &[String]| person.types(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let said = types(&args("data", "local:a"));
    assert!(said.code == 1 && said.stderr.contains("data is in use by another process"), "{said:?}");
    assert!(said.stderr.contains("nothing was put"), "{said:?}");
    end(source);
    let said = types(&args("data", "local:a"));
    assert_eq!((said.code, said.text().as_str()), (0, "3308 entries\n"), "{said:?}");
    check(&beam, &into);
    let said = types(
        &args("data", "local:a")[..3]
            .iter()
            .cloned()
            .chain(["--node".into(), "b".into(), "--to".into(), "local:b".into()])
            .collect::<Vec<_>>(),
    );
    assert!(
        said.code == 2 && said.stderr.contains("there are 2 stores in it; --from-store says which"),
        "{said:?}"
    );
    assert!(said.stderr.contains("global:shop,local:a; local:other"), "{said:?}");
    beam.check("GenServer.call(into, :clear)", ":ok");
    let (right, said) = kvnode(&["backup", "--data-dir", &path("data"), &path("file")]);
    assert!(right, "{said}");
    let said = types(&args("file", "global:shop"));
    assert_eq!((said.code, said.text().as_str()), (0, "3308 entries\n"), "{said:?}");
    check(&beam, &into);
    // Out of etcd again, entry by entry.
    let (right, said) = at_etcd(&cluster, &["backup", &path("again")]);
    assert!(right, "{said}");
    let of = |file: &str, at: usize| stores(Path::new(&path(file))).swap_remove(at).2;
    let (before, after) = (of("file", 0), of("again", 0));
    assert!(
        before.keys().eq(after.keys())
            && before.values().zip(after.values()).all(|(one, other)| one.0 == other.0)
    );
    // Larger than etcd takes, among others that it takes.
    let large = KvNode::start(&epmd, "l", &format!("--data-dir {} --local l", path("large")));
    beam.ping(large.name());
    beam.run(&format!("large = {{:l, :\"{}\"}}", large.name()));
    beam.run("for n <- 1..3, do: :ok = GenServer.call(large, {:put, {:large, n}, String.duplicate(\"v\", 1_600_000)})");
    beam.run("for n <- 1..1000, do: :ok = GenServer.call(large, {:put, {:small, n}, n})");
    end(large);
    let said = person.types(&["import", "--from", &path("large"), "--node", "b", "--to", "local:b"]);
    assert!(
        said.code == 5 && said.stderr.contains("3 entries were not put, as the store takes 15"),
        "{said:?}"
    );
    assert!(said.stderr.contains("; 1000 were put. Not put:\n  {:large, "), "{said:?}");
    beam.check("GenServer.call(into, :count)", "4308");
    beam.check(
        "for(n <- 1..1000, do: GenServer.call(into, {:get, {:small, n}}) == n) |> Enum.uniq()",
        "[true]",
    );
}

#[test]
fn a_scan_shows_the_time_that_keys_have_left() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let etcd = serve(&epmd, &cluster, "b");
    let (memory, disk) = (KvNode::start(&epmd, "m", "--local m"), tempfile::tempdir().unwrap());
    let disk = KvNode::start(&epmd, "d", &format!("--local d --data-dir {}", disk.path().display()));
    for (local, node) in [("b", &etcd), ("m", &memory), ("d", &disk)] {
        beam.ping(node.name());
        beam.run(&format!(
            "ask = fn request -> GenServer.call({{:{local}, :\"{}\"}}, request) end",
            node.name()
        ));
        beam.run(":ok = ask.({:put, :ends, 1, ttl: 60_000}); :ok = ask.({:put, :stays, 2})");
        beam.check(
            "{entries, :done} = ask.({:scan, ttl: true}); [{:ends, 1, left}, {:stays, 2, :infinity}] = Enum.sort(entries); \
             left in 1..60_000",
            "true",
        );
        beam.check(
            "{keys, :done} = ask.({:scan, ttl: true, keys: true}); [{:ends, left}, {:stays, :infinity}] = Enum.sort(keys); \
             left in 1..60_000",
            "true",
        );
        beam.check("{entries, :done} = ask.({:scan, ttl: false}); Enum.sort(entries)", "[ends: 1, stays: 2]");
        beam.check(
            "try do ask.({:scan, ttl: 1}) catch :exit, {{:bad_call, _}, _} -> :bad_call end",
            ":bad_call",
        );
    }
}
