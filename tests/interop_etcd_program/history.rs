//! What keeps etcd healthy: the holder compacts its history, and removes keys that have ended.

use kvnode::block_on;
use kvnode::etcd::message::RangeRequest;
use kvnode::etcd::{Config, Error, Etcd};
use rustix::process::Signal;

use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp, wait_until};
use super::{call, serve};

/// The node that etcd names as the holder, and the others.
#[track_caller]
fn holder<'a>(cluster: &EtcdCluster, nodes: [&'a KvNode; 2]) -> (&'a KvNode, &'a KvNode) {
    let mut held = String::new();
    wait_until("a node holds the names", || {
        held = cluster.ctl(&["get", "kvnode/global:kv/h", "--print-value-only"]);
        nodes.iter().any(|node| held.trim().ends_with(node.name()))
    });
    let [a, b] = nodes;
    if held.trim().ends_with(a.name()) { (a, b) } else { (b, a) }
}

/// etcd's revision now, and whether this one can still be read.
fn revision(etcd: &Etcd) -> i64 {
    let read = RangeRequest { key: "x".into(), ..RangeRequest::default() };
    block_on(etcd.call(&read)).expect("it answers").header.expect("a header").revision
}

/// The marks of the store's writers, each with the revision of its writer's last write.
fn marks(etcd: &Etcd) -> Vec<(Vec<u8>, i64)> {
    let read = RangeRequest {
        key: "kvnode/global:kv/w/".into(),
        range_end: "kvnode/global:kv/w0".into(),
        ..RangeRequest::default()
    };
    let found = block_on(etcd.call(&read)).expect("it answers").kvs;
    found.into_iter().map(|kv| (kv.key.to_vec(), kv.mod_revision)).collect()
}

fn is_compacted(etcd: &Etcd, revision: i64) -> bool {
    let read = RangeRequest { key: "x".into(), revision, ..RangeRequest::default() };
    match block_on(etcd.call(&read)) {
        Ok(_) => false,
        Err(Error::Compacted { .. }) => true,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn the_holder_compacts_the_history_watchers_go_on_and_a_node_that_was_cut_loads_anew() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let nodes = ["a", "b"].map(|name| serve(&epmd, &cluster, name, "--etcd-compact 2s"));
    let [a, b] = &nodes;
    nodes.iter().for_each(|node| beam.ping(node.name()));
    let (holds, waits) = holder(&cluster, [a, b]);
    let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
    beam.run(&format!("{{:ok, ref, _}} = {}", call(waits, "{:watch, []}")));
    let puts = |node: &KvNode, keys: &str, value: &str| {
        let put = call(node, &format!("{{:put, key, {value}}}"));
        beam.check(&format!("for key <- {keys}, uniq: true, do: {put}"), "[:ok]");
    };
    puts(holds, "1..300", "key");
    let then = revision(&etcd);
    wait_until("the history is compacted", || is_compacted(&etcd, then - 150));
    // By the holder, and by no other.
    let note = cluster.ctl(&["get", "kvnode/global:kv/c", "--print-value-only"]);
    assert!(note.trim().ends_with(holds.name()) && !note.contains(waits.name()), "{note}");
    let told = |count: u32, first: &str| {
        let next =
            "(receive do {:kvnode, ^ref, {_, :put, key, value}} -> {key, value} after 5000 -> nil end)";
        beam.check(
            &format!("told = for _ <- 1..{count}, do: {next}; {{hd(told), nil in told}}"),
            &format!("{{{first}, false}}"),
        );
    };
    told(300, "{1, 1}");
    puts(holds, "1..2", ":again");
    told(2, "{1, :again}");
    assert!(!waits.log().contains("loaded anew"), "{}", waits.log());

    // A node that does not run while its watch is cut, for longer than history is kept.
    waits.signal(Signal::STOP);
    cluster.kill(0);
    cluster.run(0);
    cluster.wait_until_healthy(0);
    let put = call(holds, "{:put, 0, :put}");
    beam.check_soon(&put, ":ok");
    puts(holds, "1..300", ":later");
    let then = revision(&etcd);
    wait_until("the history is compacted", || is_compacted(&etcd, then - 150));
    waits.signal(Signal::CONT);
    waits.wait_for_log(&["a store of etcd is loaded anew: readers see what was there"]);
    beam.check_soon(&call(waits, "{:get_many, [0, 1, 300]}"), "%{0 => :put, 1 => :later, 300 => :later}");
    beam.check_soon(&format!("{}.etcd_state", call(waits, ":status")), ":following");
    puts(waits, "1..2", ":last");
    beam.check_soon(&call(holds, "{:get_many, [1, 2]}"), "%{1 => :last, 2 => :last}");
}

#[test]
fn a_store_that_is_idle_is_moved_on_where_others_write_and_a_later_compaction_is_left_as_it_is() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let a = serve(&epmd, &cluster, "a", "--etcd-compact 1s");
    beam.ping(a.name());
    beam.check(&call(&a, "{:put, 1, 1}"), ":ok");
    let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
    let write = kvnode::etcd::message::PutRequest { key: "x".into(), ..Default::default() };
    let fill = || (0..300).for_each(|_| drop(block_on(etcd.call(&write)).expect("it is written")));
    let before = revision(&etcd);
    fill();
    wait_until("the history is compacted", || is_compacted(&etcd, before + 150));
    // By another, and further than the node would.
    fill();
    let now = revision(&etcd);
    cluster.ctl(&["compact", &now.to_string()]);
    fill();
    wait_until("it goes on from there", || is_compacted(&etcd, now + 150));
    assert!(!a.log().contains("is not compacted") && !a.log().contains("loaded anew"), "{}", a.log());
    beam.check(&call(&a, "{:get, 1}"), "1");
}

#[test]
fn keys_that_have_ended_are_removed_by_the_holder_alone() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let nodes = ["a", "b"].map(|name| serve(&epmd, &cluster, name, ""));
    let [a, b] = &nodes;
    nodes.iter().for_each(|node| beam.ping(node.name()));
    let (holds, waits) = holder(&cluster, [a, b]);
    // Each write moves the mark of its writer.
    beam.check(&call(waits, "{:put, 0, 0, ttl: 1}"), ":ok");
    let etcd = Etcd::connect(Config::new(cluster.endpoints())).expect("the configuration is right");
    let mut marks = marks(&etcd).into_iter();
    let (Some((mark, _)), None) = (marks.next(), marks.next()) else { panic!("more than one has written") };
    let moved =
        || self::marks(&etcd).into_iter().find_map(|(key, revision)| (key == mark).then_some(revision));
    let put = |node: &KvNode| call(node, "{:put, key, key, ttl: 50}");
    beam.check(&format!("for key <- 1..100, uniq: true, do: {}", put(waits)), "[:ok]");
    let before = moved();
    for node in [holds, waits] {
        beam.check_soon(&call(node, ":count"), "0");
    }
    let expired = |node: &KvNode| format!("{}.expired", call(node, ":status"));
    for node in [holds, waits] {
        beam.check_soon(&expired(node), "101");
    }
    assert_eq!(moved(), before, "the holder has removed them");
    // The next holder goes on with it, whoever has written the keys.
    beam.check(
        &format!("for key <- 1..10, uniq: true, do: {}", call(holds, "{:put, key, key, ttl: 4000}")),
        "[:ok]",
    );
    let name = waits.name().to_owned();
    let (ends, stays) = if name == a.name() { (1, 0) } else { (0, 1) };
    let mut nodes: Vec<Option<KvNode>> = nodes.into_iter().map(Some).collect();
    nodes[ends].take().expect("it runs").kill(&epmd);
    let stays = nodes[stays].take().expect("it runs");
    beam.check_soon(&expired(&stays), "111");
    beam.check(&call(&stays, ":count"), "0");
}
