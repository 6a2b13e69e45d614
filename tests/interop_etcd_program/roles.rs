//! A store in etcd is nobody's slave: what has no meaning there is answered with that word, and how it stands to etcd is shown.

use std::process::{Command, Output};

use super::support::http::{address, get};
use super::support::kvnode::program;
use super::support::{BeamNode, COOKIE, Epmd, EtcdCluster, KvNode, Otp, wait_until};
use super::{call, in_etcd, serve};

/// Runs a command of kvnode.
fn run(epmd: &Epmd, args: &[&str]) -> Output {
    let mut command = Command::new(program());
    command.args(args).args(["--cookie", COOKIE]).env("ERL_EPMD_PORT", epmd.port().to_string());
    command.output().expect("it was built")
}

#[test]
fn what_belongs_to_primaries_and_slaves_is_answered_with_the_reason() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "");
    beam.ping(node.name());
    let refused = "{:error, :kept_by_etcd}";
    let requests = [
        "{:promote}",
        "{:promote, report: true}",
        "{:put, 1, 2, confirm: 1}",
        "{:delete, 1, confirm: 1}",
        "{:put_new, 1, 2, confirm: 2}",
        "{:put_many, %{1 => 2}, confirm: 1}",
        "{:transact, [], [{:put, 1, 2}], confirm: 1}",
        "{:clear, confirm: 1}",
    ];
    requests.iter().for_each(|request| beam.check(&call(&node, request), refused));
    beam.check(&call(&node, ":count"), "0");
    beam.check(&call(&node, "{:put, 1, :kept, confirm: 0}"), ":ok");
    // A primary's casts are dropped, and counted; that is said once.
    for cast in ["{:replicate_put, 1, :lost}", "{:replicate_delete, 1}"] {
        beam.check(&format!("GenServer.cast({{:a, :\"{}\"}}, {cast})", node.name()), ":ok");
    }
    beam.check(&call(&node, "{:get, 1}"), ":kept");
    beam.check(&format!("{}.not_done", call(&node, ":status")), "%{kept_by_etcd: 10}");
    assert_eq!(node.log().matches("replicated writes are refused").count(), 1, "{}", node.log());
    let promoted = run(&epmd, &["promote", "--node", node.name(), "--to", "global:kv"]);
    let stderr = String::from_utf8_lossy(&promoted.stderr);
    assert_eq!(promoted.status.code(), Some(5), "{stderr}");
    assert!(stderr.contains("it is kept by etcd: each kvnode of that etcd serves it"), "{stderr}");
}

#[test]
fn it_follows_no_primary_of_either_kind() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "");
    let primary = KvNode::start(&epmd, "p", "--store global:other,local:p");
    [&node, &primary].iter().for_each(|node| beam.ping(node.name()));
    beam.wait_for_global("kv");
    beam.check(&call(&node, "{:put, 1, :kept}"), ":ok");
    beam.check(&call(&primary, "{:put, 2, :lost}"), ":ok");
    beam.check(&call(&primary, "{:add_slave, {:global, :kv}}"), "{:error, :kept_by_etcd}");
    primary.wait_for_log(&["slave dropped", "it is kept by etcd"]);
    beam.check_soon(&call(&primary, ":slaves"), "[]");
    beam.run("{:ok, ex} = KeyValueStoreDistributed.start_link(:ex)");
    beam.run("GenServer.call(ex, {:add_slave, {:global, :kv}})");
    beam.run("GenServer.call(ex, {:put, 3, :lost})");
    node.wait_for_log(&["replicated writes are refused"]);
    beam.check(&call(&node, "{:get_many, [1, 2, 3]}"), "%{1 => :kept}");
    beam.check(&format!("{}.primary", call(&node, ":status")), "nil");
}

#[test]
fn how_it_stands_to_etcd_is_shown_everywhere() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "--http 0");
    let memory = KvNode::start(&epmd, "m", "--http 0 --local m");
    [&node, &memory].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&call(&node, "{:put, 1, 2}"), ":ok");
    let status = call(&node, ":status");
    beam.check(&format!("with %{{engine: :etcd, etcd_state: :following}} <- {status}, do: :so"), ":so");
    beam.check(&format!("{status}.etcd_revision > 1"), "true");
    beam.check(&format!("for {{_, is}} <- {status}.etcd_members, do: is"), "[:asked, :asked, :asked]");
    beam.check(&format!("{}.engine", call(&memory, ":status")), ":memory");
    let leader = cluster.leader();
    beam.check_soon(&format!("{status}.holder == :\"{}\"", node.name()), "true");
    beam.check_soon(&format!("{status}.etcd_leader == \"{}\"", cluster.endpoint(leader)), "true");
    beam.check_soon(&format!("{status}.etcd_behind"), "0");
    beam.check(&format!("{status}.etcd_file_bytes >= {status}.etcd_used_bytes"), "true");
    beam.check(&format!("{status}.etcd_used_bytes > 0 and {status}.etcd_heard_ms < 30_000"), "true");
    beam.check(&format!("Map.has_key?({}, :holder)", call(&memory, ":status")), "false");
    let gone = (leader + 1) % 3;
    cluster.kill(gone);
    let endpoint = cluster.endpoint(gone);
    beam.check_soon(
        &format!("for {{url, :away}} <- {status}.etcd_members, do: url"),
        &format!("[\"{endpoint}\"]"),
    );
    let at = address(&node);
    let metrics = || get(at, "/metrics").body;
    for line in [
        "kvnode_store_engine{store=\"global:kv\",engine=\"etcd\"} 1\n".to_owned(),
        "kvnode_store_etcd_state{store=\"global:kv\",state=\"following\"} 1\n".to_owned(),
        "kvnode_store_etcd_state{store=\"global:kv\",state=\"cut\"} 0\n".to_owned(),
        "kvnode_store_etcd_behind_revisions{store=\"global:kv\"} 0\n".to_owned(),
        format!("kvnode_store_holder{{store=\"global:kv\",node=\"{}\"}} 1\n", node.name()),
        format!("kvnode_etcd_member_leader{{member=\"{}\"}} 1\n", cluster.endpoint(leader)),
        format!("kvnode_etcd_member_errors{{member=\"{}\"}} 0\n", cluster.endpoint(leader)),
        format!("kvnode_etcd_member_up{{member=\"{endpoint}\"}} 0\n"),
        format!("kvnode_etcd_member_up{{member=\"{}\"}} 1\n", cluster.endpoint((gone + 1) % 3)),
    ] {
        wait_until(&line, || metrics().contains(&line));
    }
    let shown: serde_json::Value = serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
    let store = &shown["stores"][0];
    assert_eq!((&store["engine"], &store["etcd"]["state"]), (&"etcd".into(), &"following".into()));
    assert!(store["etcd"]["revision"].as_u64() > Some(1), "{store}");
    let member = &store["etcd"]["members"][gone];
    assert_eq!(
        (&member["endpoint"], &member["asked"]),
        (&endpoint.as_str().into(), &false.into()),
        "{member}"
    );
    let member = &store["etcd"]["members"][leader];
    assert!(
        member["leads"] == true && member["version"].as_str().is_some_and(|it| it.starts_with("3.")),
        "{member}"
    );
    assert!(member["file_bytes"].as_u64() >= member["used_bytes"].as_u64(), "{member}");
    assert_eq!((&store["etcd"]["holder"], &store["etcd"]["behind"]), (&node.name().into(), &0.into()));
    let other: serde_json::Value =
        serde_json::from_str(&get(address(&memory), "/status.json").body).expect("it is JSON");
    let store = &other["stores"][0];
    assert_eq!((&store["engine"], &store["etcd"]), (&"memory".into(), &serde_json::Value::Null));
    let table = run(&epmd, &["status", "--node", node.name(), "--to", "local:a"]);
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    for row in ["engine                etcd\n", "etcd_state            following\n"] {
        assert!(table.contains(row), "{table}");
    }
    assert!(table.contains(&format!("{{\"{endpoint}\", :away}}")), "{table}");
    // Before it is loaded too.
    (0..3).for_each(|member| cluster.kill(member));
    let waits = KvNode::start(&epmd, "w", &format!("{} --global kv --http 0", in_etcd(&cluster)));
    let shown: serde_json::Value =
        serde_json::from_str(&get(address(&waits), "/status.json").body).expect("it is JSON");
    let (ready, store) = (&shown["ready"], &shown["stores"][0]);
    assert_eq!((ready, &store["up"], &store["engine"]), (&false.into(), &false.into(), &"etcd".into()));
    assert_eq!((&store["etcd"]["state"], &store["etcd"]["revision"]), (&"loading".into(), &0.into()));
    wait_until("its watch is cut", || {
        metrics().contains("kvnode_store_etcd_state{store=\"global:kv\",state=\"cut\"} 1\n")
    });
    // Readers see what was there; writers are told within the time that they wait.
    beam.check(&call(&node, "{:get, 1}"), "2");
    beam.check(&call(&node, "{:put, 1, 3}"), "{:error, :unavailable}");
    wait_until("it is not heard of", || {
        let shown: serde_json::Value =
            serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
        let etcd = &shown["stores"][0]["etcd"];
        // By then its lease has ended.
        etcd["heard_secs"].as_f64() > Some(5.0) && etcd["holder"].is_null()
    });
}
