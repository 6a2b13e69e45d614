//! What is wrong with an etcd, or with those that share it: each is told, and nothing is mixed up.

use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp};
use super::{call, in_etcd, serve};

/// How the store of a node stands to its etcd.
fn state(node: &KvNode) -> String {
    format!("{}.etcd_state", call(node, ":status"))
}

#[test]
fn an_etcd_that_was_wiped_is_noticed_by_itself_and_nothing_is_written_into_it_before_a_new_start() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "");
    beam.ping(node.name());
    for key in 1..=5 {
        beam.check(&call(&node, &format!("{{:put, {key}, {key}}}")), ":ok");
    }
    cluster.kill(0);
    cluster.wipe(0);
    cluster.run(0);
    cluster.wait_until_healthy(0);
    node.wait_for_log(&["etcd was wiped, or restored from an older copy", "start this node again"]);
    beam.check_soon(&state(&node), ":rolled_back");
    beam.check(&call(&node, "{:put, 6, 6}"), "{:error, :unavailable}");
    beam.check(&call(&node, "{:get, 5, consistency: :linearizable}"), "{:error, :unavailable}");
    beam.check(&call(&node, "{:get, 5}"), "5");
    assert!(node.terminate().status.success());
    let node = serve(&epmd, &cluster, "a", "");
    beam.ping(node.name());
    beam.check(&call(&node, "{:get, 5, consistency: :linearizable}"), "nil");
    beam.check(&call(&node, "{:put, 6, 6}"), ":ok");
    beam.check(&state(&node), ":following");
}

#[test]
fn an_etcd_that_takes_few_operations_is_written_to_in_smaller_parts_and_the_log_says_so() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start_with(1, &["--max-txn-ops", "10"]));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "");
    beam.ping(node.name());
    beam.check(&call(&node, "{:put, 0, 0}"), ":ok");
    let send = |requests: &str, request: &str| {
        let to = format!("{{:a, :\"{}\"}}", node.name());
        beam.run(&format!("sent = for key <- {requests}, do: :gen_server.send_request({to}, {request})"));
        beam.run("for id <- sent, uniq: true, do: :gen_server.receive_response(id, 10_000)")
    };
    assert_eq!(send("1..500", "{:put, key, key}"), "[reply: :ok]");
    assert_eq!(send("1..500", "{:delete, key}"), "[reply: :ok]");
    let many = |keys: u32| call(&node, &format!("{{:put_many, for(key <- 1..{keys}, do: {{key, key}})}}"));
    beam.check(&many(20), "{:error, {:too_many, 19}}");
    beam.check(&many(9), ":ok");
    node.wait_for_log(&["a store's transactions get smaller", "--max-txn-ops=128"]);
    assert_eq!(node.log().matches("transactions get smaller").count(), 1, "it is said once");
}

#[test]
fn two_nodes_of_the_same_name_do_not_take_the_names_back_and_forth_and_the_first_says_so() {
    let (epmd, elsewhere, cluster) = (Epmd::start(), Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let first = serve(&epmd, &cluster, "a", "");
    beam.ping(first.name());
    beam.wait_for_global("kv");
    let second = serve(&elsewhere, &cluster, "a", "");
    first.wait_for_log(&["another node with this node's name lives", "end one of them"]);
    beam.check(&call(&first, "{:put, 1, 2}"), ":ok");
    let taken = |node: &KvNode| node.log().matches("global names are this node's from now on").count();
    assert_eq!((taken(&first), taken(&second)), (1, 1));
    // The other has them again when the second ends.
    assert!(second.terminate().status.success());
    beam.wait_for_global("kv");
    assert_eq!(taken(&first), 2);
    // An earlier life of a node is followed by the next one at once.
    first.kill(&epmd);
    let next = serve(&epmd, &cluster, "a", "");
    beam.ping(next.name());
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
    assert!(!next.log().contains("another node with this node's name lives"), "{}", next.log());
}

#[test]
fn without_space_nobody_follows_a_holder_and_the_log_says_why() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start_with(1, &["--quota-backend-bytes", "100000"]));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", ""));
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.wait_for_global("kv");
    beam.check(&call(&a, "{:put, 1, 2}"), ":ok");
    let put = call(&a, "{:put, :large, :binary.copy(\"x\", 20_000)}");
    beam.check_soon(&put, "{:error, :no_space}");
    a.kill(&epmd);
    b.wait_for_log(&["etcd refuses what the choice of a store's primary", "etcdctl alarm disarm"]);
    beam.check(&call(&b, "{:get, 1}"), "2");
    beam.check(":global.whereis_name(:kv)", ":undefined");
    let revision = cluster.ctl(&["get", "none", "-w", "json"]);
    let revision = revision.split("\"revision\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
    cluster.ctl(&["compaction", revision.expect("it has one")]);
    cluster.ctl(&["defrag"]);
    cluster.ctl(&["alarm", "disarm"]);
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:put, 1, 3})", ":ok");
}

#[test]
fn a_holder_whose_key_is_deleted_has_it_again_at_once() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = KvNode::start(&epmd, "a", &format!("{} --store global:kv,local:a", in_etcd(&cluster)));
    beam.ping(node.name());
    beam.wait_for_global("kv");
    cluster.ctl(&["del", "kvnode/global:kv/h"]);
    node.wait_for_log(&["the key of the store's holder is gone from etcd"]);
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    assert!(!node.log().contains("does not renew the lease"), "{}", node.log());
}
