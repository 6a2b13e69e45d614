//! `kvnode backup` and `restore` of an etcd.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use super::support::http::get;
use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp, at_host, wait_until};
use super::{LOADED, at_etcd, end, in_etcd, kvnode, stores};

/// Keys and values of all kinds, some that end, and enough for many transactions.
const FILL: &str = "terms = [{:a, 1}, {{:user, 7}, %{name: \"Manolito\", f: -0.0}}, {\"\\0/\\xff\", [1 | 2]}, {<<255, 0, 255>>, &Map.get/2}, \
    {[], <<1::3>>}, {1.0, nil}, {String.duplicate(\"k\", 70_000), :long}, {2, String.duplicate(\"v\", 1_000_000)}]; \
    for {k, v} <- terms, do: :ok = GenServer.call(store, {:put, k, v}); \
    :ok = GenServer.call(store, {:put_many, for(n <- 1..5000, do: {{:n, n}, n})}); \
    for n <- 1..20, do: :ok = GenServer.call(store, {:put, {:ends, n}, n, ttl: 3_600_000 + n})";

#[test]
fn stores_go_from_a_folder_into_etcd_and_back_entry_by_entry() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let node = KvNode::start(
        &epmd,
        "a",
        &format!("--data-dir {} --store global:kv,local:a --store local:second", path("data")),
    );
    beam.ping(node.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}", node.name()));
    beam.run(FILL);
    beam.check(&format!("GenServer.call({{:second, :\"{}\"}}, {{:put, 1, 2}})", node.name()), ":ok");
    end(node);
    let (right, said) = kvnode(&["backup", "--data-dir", &path("data"), &path("one")]);
    assert!(right && said.contains("global:kv,local:a: 5028 entries"), "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &path("one")]);
    assert!(right, "{said}");
    assert!(said.contains("global:kv: 5028 entries, ") && said.contains("local:second: 1 entry, "), "{said}");
    assert!(said.ends_with("restored into etcd, below kvnode/\n"), "{said}");
    assert_eq!(cluster.ctl(&["get", "--prefix", "--keys-only", "kvnode/=rest"]), "", "the claim is gone");

    // From etcd, before any kvnode has served it.
    let (right, said) = at_etcd(&cluster, &["backup", &path("two")]);
    assert!(
        right && said.contains("global:kv: 5028 entries, ") && said.contains("as it was at revision "),
        "{said}"
    );
    let (right, said) = at_etcd(&cluster, &["backup", &path("two")]);
    assert!(!right && said.contains("two is there already, and is not overwritten"), "{said}");
    let (right, said) = kvnode(&["restore", &path("two"), "--data-dir", &path("back")]);
    assert!(right, "{said}");
    let (right, said) = kvnode(&["backup", "--data-dir", &path("back"), &path("three")]);
    assert!(right, "{said}");
    let [one, two, three] = ["one", "two", "three"].map(|file| stores(Path::new(&path(file))));
    for (at, (_, notes, entries)) in one.iter().enumerate() {
        assert!(entries.len() == [5028, 1][at] && two[at].2 == *entries && three[at].2 == *entries);
        assert!(two[at].1.is_empty(), "{:?}: it had {notes:?}, and no slaves", two[at].1);
    }
    assert_eq!(one[0].2.values().filter(|(_, deadline, _)| *deadline > 0).count(), 20);
    let names =
        |stores: &[(Vec<String>, _, _)]| stores.iter().map(|store| store.0.join(",")).collect::<Vec<_>>();
    assert_eq!(names(&two), ["global:kv", "local:second"]);
    assert_eq!(names(&three), names(&two));

    // A kvnode serves it, with its deadlines, and writes to it.
    let node = KvNode::start(&epmd, "b", &format!("{} --store global:kv,local:b", in_etcd(&cluster)));
    node.wait_for_log(&[LOADED]);
    beam.ping(node.name());
    beam.run(&format!("served = {{:b, :\"{}\"}}", node.name()));
    beam.check("GenServer.call(served, :count)", "5028");
    beam.check("for({k, v} <- terms, do: GenServer.call(served, {:get, k}) === v) |> Enum.uniq()", "[true]");
    beam.check(
        "{:ok, left} = GenServer.call(served, {:ttl, {:ends, 1}}); left in 3_000_000..3_600_001",
        "true",
    );
    beam.check("GenServer.call(served, {:delete_many, for(n <- 1..119, do: {:n, n})})", ":ok");
    beam.check("GenServer.call(served, {:put, :new, 1})", ":ok");
    // While it is served, and into an etcd that has something.
    let (right, said) = at_etcd(&cluster, &["backup", &path("four")]);
    assert!(right && said.contains("global:kv: 4910 entries, "), "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &path("four")]);
    assert!(
        !right && said.contains("there is something below kvnode/ in this etcd already (the stores "),
        "{said}"
    );
    assert!(said.contains("global:kv") && said.contains("by --force"), "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &path("four"), "--force"]);
    assert!(
        !right && said.contains(&format!("a kvnode serves the store global:kv ({})", at_host("b"))),
        "{said}"
    );
    beam.check("GenServer.call(served, :count)", "4910");
    end(node);
    let (right, said) = at_etcd(&cluster, &["restore", &path("one"), "--force"]);
    assert!(right && said.contains("global:kv: 5028 entries, "), "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &path("four"), "--etcd-prefix", "other"]);
    assert!(right, "{said}");
    for (prefix, file, count) in [("kvnode", "five", 5028), ("other", "six", 4910)] {
        let (right, said) = at_etcd(&cluster, &["backup", &path(file), "--etcd-prefix", prefix]);
        assert!(right && said.contains(&format!("global:kv: {count} entries, ")), "{said}");
    }
    let [four, five, six] = ["four", "five", "six"].map(|file| stores(Path::new(&path(file))));
    assert!(five[0].2 == one[0].2 && six[0].2 == four[0].2);
    let (right, said) = at_etcd(&cluster, &["backup", &path("none"), "--etcd-prefix", "nowhere"]);
    assert!(!right && said.contains("there is no store below nowhere/ in this etcd"), "{said}");
    assert!(!Path::new(&path("none")).exists() && fs::read_dir(dir.path()).unwrap().count() == 8);
}

/// So often an etcd was asked for entries.
fn reads(cluster: &EtcdCluster) -> u64 {
    let at = cluster.endpoint(0).trim_start_matches("http://").parse().unwrap();
    let page = get(at, "/metrics").body;
    let mut lines = page.lines().filter_map(|line| line.strip_prefix("etcd_debugging_mvcc_range_total "));
    lines.next().and_then(|count| count.parse::<f64>().ok()).expect("etcd counts them") as u64
}

/// A node that was stopped holds no name when the restore begins, and serves the store when it goes on.
#[test]
fn a_store_is_not_deleted_below_a_node_that_has_lost_its_name_for_a_moment() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file").display().to_string();
    let node = KvNode::start(&epmd, "a", &format!("{} --store global:kv,local:a", in_etcd(&cluster)));
    node.wait_for_log(&[LOADED]);
    beam.ping(node.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}", node.name()));
    beam.check("for(n <- 1..3, do: GenServer.call(store, {:put, n, n})) |> Enum.uniq()", "[:ok]");
    let (right, said) = at_etcd(&cluster, &["backup", &file]);
    assert!(right, "{said}");
    beam.check("GenServer.call(store, {:put, 4, 4})", ":ok");
    let holder = || cluster.ctl(&["get", "kvnode/global:kv/h"]);
    wait_until("it holds the name", || !holder().is_empty());
    node.signal(Signal::STOP);
    wait_until("its lease has ended", || holder().is_empty());
    let before = reads(&cluster);
    std::thread::scope(|scope| {
        let restoring = scope.spawn(|| at_etcd(&cluster, &["restore", &file, "--force"]));
        // It has seen no holder by then, and looks again.
        wait_until("it looks", || restoring.is_finished() || reads(&cluster) > before + 5);
        node.signal(Signal::CONT);
        let (right, said) = restoring.join().unwrap();
        assert!(
            !right && said.contains(&format!("a kvnode serves the store global:kv ({})", at_host("a"))),
            "{said}"
        );
    });
    beam.check("GenServer.call(store, {:get, 4, consistency: :linearizable})", "4");
    end(node);
    let (right, said) = at_etcd(&cluster, &["restore", &file, "--force"]);
    assert!(right && said.contains("global:kv: 3 entries, "), "{said}");
}

/// A node that goes on when the restore has its claim takes no name, and writes nothing into what is restored.
#[test]
fn a_node_takes_no_name_and_writes_nothing_while_a_restore_has_the_prefix() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = KvNode::start(&epmd, "a", &format!("{} --store global:kv,local:a", in_etcd(&cluster)));
    node.wait_for_log(&[LOADED]);
    beam.ping(node.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}", node.name()));
    beam.check("GenServer.call(store, {:put, 1, 1})", ":ok");
    let holder = || cluster.ctl(&["get", "kvnode/global:kv/h"]);
    wait_until("it holds the name", || !holder().is_empty());
    // As the restore begins.
    cluster.ctl(&["put", "kvnode/=restoring", "token"]);
    for prefix in ["kvnode/global:kv/w/", "kvnode/global:kv/e/"] {
        cluster.ctl(&["del", "--prefix", prefix]);
    }
    cluster.ctl(&["del", "kvnode/global:kv/h"]);
    beam.check("GenServer.call(store, {:put, 2, 2})", "{:error, :unavailable}");
    assert_eq!((holder(), cluster.ctl(&["get", "--prefix", "kvnode/global:kv/e/"])), <_>::default());
    cluster.ctl(&["del", "kvnode/=restoring"]);
    wait_until("it holds the name again", || !holder().is_empty());
    beam.check_soon("GenServer.call(store, {:put, 3, 3})", ":ok");
    beam.check("GenServer.call(store, :count)", "1");
    end(node);
}

/// Prefixes that begin as a store of another one does are no part of it.
#[test]
fn what_belongs_to_a_nested_prefix_is_not_deleted_with_a_store() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file").display().to_string();
    let nested = "kvnode/global:kv";
    for (name, prefix) in [("a", "kvnode"), ("b", nested)] {
        let args = format!("{} --etcd-prefix {prefix} --store global:kv,local:{name}", in_etcd(&cluster));
        let node = KvNode::start(&epmd, name, &args);
        node.wait_for_log(&[LOADED]);
        beam.ping(node.name());
        beam.check(
            &format!("GenServer.call({{:{name}, :\"{}\"}}, {{:put, :{name}, 1}})", node.name()),
            ":ok",
        );
        end(node);
    }
    let (right, said) = at_etcd(&cluster, &["backup", &file]);
    assert!(right && said.contains("global:kv: 1 entry, "), "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &file, "--force"]);
    assert!(
        !right && said.contains("there is more than stores below kvnode/ in this etcd, as kvnode/global:kv/"),
        "{said}"
    );
    // Nor is the store a part of the prefix.
    let (right, said) = at_etcd(&cluster, &["restore", &file, "--force", "--etcd-prefix", nested]);
    assert!(
        !right && said.contains(&format!("more than stores below {nested}/ in this etcd, as {nested}/e/")),
        "{said}"
    );
    for prefix in ["kvnode", nested] {
        let file = format!("{file}.{}", prefix.len());
        let (right, said) = at_etcd(&cluster, &["backup", &file, "--etcd-prefix", prefix]);
        assert!(right && said.contains("global:kv: 1 entry, "), "{said}");
    }
}

#[test]
fn a_backup_has_one_moment_of_a_store_that_is_written_to() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = KvNode::start(&epmd, "a", &format!("{} --store global:kv,local:a", in_etcd(&cluster)));
    node.wait_for_log(&[LOADED]);
    beam.ping(node.name());
    beam.run(&format!("store = {{:a, :\"{}\"}}", node.name()));
    beam.run(
        "for n <- 1..60, do: :ok = GenServer.call(store, {:put_many, for(m <- 1..100, do: {{n, m}, String.duplicate(\"v\", 1000)})})",
    );
    beam.run("for n <- 1..5, do: :ok = GenServer.call(store, {:put, n, 0})");
    // Each key in turn, round by round: a moment has some whole rounds, and the beginning of one.
    let load = beam.spawn("for round <- 1..60, n <- 1..5, do: :ok = GenServer.call(store, {:put, n, round})");
    beam.check_soon("GenServer.call(store, {:get, 5}) > 0", "true");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    let (right, said) = at_etcd(&cluster, &["backup", file.to_str().unwrap()]);
    assert!(right && said.contains("global:kv: 6005 entries, "), "{said}");
    beam.check("GenServer.call(store, {:get, 5}) < 60", "true");
    load.value();
    let rounds: Vec<u8> = (1..=5).map(|key| stores(&file)[0].2[&vec![97, key]].0[1]).collect();
    let (first, last) = (rounds[0], rounds[4]);
    assert!(rounds.is_sorted_by(|a, b| a >= b) && first - last <= 1 && last > 0 && first < 60, "{rounds:?}");
}

#[test]
fn what_is_larger_than_etcd_takes_is_refused_with_its_keys_and_nothing_is_written() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let node = KvNode::start(&epmd, "a", &format!("--data-dir {}", path("data")));
    beam.ping(node.name());
    beam.run(&format!("store = {{KeyValueStore, :\"{}\"}}", node.name()));
    beam.run("for n <- 1..12, do: :ok = GenServer.call(store, {:put, {:large, n}, String.duplicate(\"v\", 1_600_000)})");
    beam.run("for n <- 1..100, do: :ok = GenServer.call(store, {:put, n, n})");
    end(node);
    let (right, said) = kvnode(&["backup", "--data-dir", &path("data"), &path("file")]);
    assert!(right, "{said}");
    let (right, said) = at_etcd(&cluster, &["restore", &path("file")]);
    assert!(!right && said.contains("12 of the entries are larger than etcd takes, which is 15"), "{said}");
    assert!(said.contains("nothing was changed:\n  global:a: {:large, "), "{said}");
    assert!(said.contains(" (1600016 bytes)\n") && said.contains("\n  and 2 more"), "{said}");
    assert_eq!(cluster.ctl(&["get", "--prefix", "--keys-only", ""]), "");
    fs::write(path("damaged"), &fs::read(path("file")).unwrap()[..9_000_000]).unwrap();
    let (right, said) = at_etcd(&cluster, &["restore", &path("damaged")]);
    assert!(!right && said.contains("damaged is no whole backup: its end is missing"), "{said}");
    assert_eq!(cluster.ctl(&["get", "--prefix", "--keys-only", ""]), "");
}

#[test]
fn a_restore_that_is_killed_is_no_store_for_any_kvnode_and_is_run_again() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let node = KvNode::start(&epmd, "a", &format!("--data-dir {} --sync never", path("data")));
    beam.ping(node.name());
    beam.run(&format!("store = {{KeyValueStore, :\"{}\"}}", node.name()));
    beam.run(
        "for n <- 1..20, do: :ok = GenServer.call(store, {:put_many, for(m <- 1..1000, do: {{n, m}, m})})",
    );
    end(node);
    let (right, said) = kvnode(&["backup", "--data-dir", &path("data"), &path("file")]);
    assert!(right, "{said}");
    let mut restoring = Command::new(super::support::kvnode::program())
        .args(["restore", &path("file"), "--etcd", &cluster.endpoints().join(",")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("some of it is there", || {
        !cluster.ctl(&["get", "--prefix", "--limit=1", "kvnode/global:a/e/"]).is_empty()
    });
    let (right, said) = at_etcd(&cluster, &["restore", &path("file"), "--force"]);
    assert!(!right && said.contains("a restore of the stores below kvnode/ goes on"), "{said}");
    let (right, said) = at_etcd(&cluster, &["backup", &path("other")]);
    assert!(!right && said.contains("a restore of the stores below kvnode/ goes on"), "{said}");
    restoring.kill().unwrap();
    restoring.wait().unwrap();
    assert_ne!(cluster.ctl(&["get", "kvnode/=restoring"]), "", "it was killed before its end");
    let node = KvNode::start(&epmd, "b", &format!("{} --store global:a,local:b", in_etcd(&cluster)));
    node.wait_for_log(&[
        "the store waits for etcd",
        "a restore of the stores below kvnode goes on, or was interrupted",
    ]);
    // Its sign of life ends by itself. The leader dies while the next one writes.
    wait_until("the lease has ended", || cluster.ctl(&["get", "kvnode/=restorer"]).is_empty());
    let leader = cluster.leader();
    let endpoints = cluster.endpoints().join(",");
    std::thread::scope(|scope| {
        let again = scope.spawn(|| kvnode(&["restore", &path("file"), "--etcd", &endpoints]));
        wait_until("it writes", || {
            !cluster.ctl(&["get", "--prefix", "--limit=1", "kvnode/=restorer"]).is_empty()
        });
        cluster.kill(leader);
        let (right, said) = again.join().unwrap();
        assert!(right && said.contains("global:a: 20000 entries, "), "{said}");
    });
    node.wait_for_log(&[LOADED]);
    beam.ping(node.name());
    beam.check(&format!("GenServer.call({{:b, :\"{}\"}}, :count)", node.name()), "20000");
}
