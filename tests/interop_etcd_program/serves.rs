//! One store, served by two kvnodes.

use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp, wait_until};
use super::{LOADED, call, in_etcd, serve};

#[test]
fn what_one_node_writes_the_other_one_reads_and_writes_on() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (a, b) = (serve(&epmd, &cluster, "a", "--ordered"), serve(&epmd, &cluster, "b", ""));
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&call(&a, "{:put, 1, \"uno\"}"), ":ok");
    beam.check(&call(&a, "{:get, 1}"), "\"uno\"");
    beam.check_soon(&call(&b, "{:get, 1}"), "\"uno\"");
    beam.check(&call(&b, "{:fetch, 1}"), "{:ok, \"uno\"}");
    beam.check(&call(&b, "{:fetch, 2}"), ":error");
    // A decision is made on the newest value, whoever has written it.
    beam.check(&call(&b, "{:put_new, 1, 9}"), "false");
    beam.check(&call(&b, "{:compare_and_put, 1, {:value, \"uno\"}, \"ein\"}"), ":ok");
    beam.check(&call(&a, "{:get_and_put, 1, \"un\"}"), "\"ein\"");
    for step in 1..=20 {
        let node = if step % 2 == 0 { &a } else { &b };
        beam.check(&call(node, "{:update_counter, :hits, 1}"), &step.to_string());
    }
    let transfer = "{:transact, [{:equal, :hits, 20}], [{:put, :x, 1}, {:put, :y, 2}, {:delete, :hits}]}";
    beam.check(&format!("match?({{:ok, _}}, {})", call(&a, transfer)), "true");
    beam.check(&format!("match?({{:ok, _}}, {})", call(&b, transfer)), "false");
    beam.check_soon(&call(&b, "{:get_many, [:x, :y, :hits]}"), "%{x: 1, y: 2}");
    beam.check(&call(&a, ":count"), "3");
    let keys =
        |node: &KvNode| format!("{{page, :done}} = {}; Enum.sort(page)", call(node, "{:scan, keys: true}"));
    beam.check(&keys(&a), "[1, :x, :y]");
    beam.check(&keys(&b), "[1, :x, :y]");
    let ordered = call(&a, "{:scan, from: :x, keys: true}");
    beam.check(&format!("{{page, _}} = {ordered}; page"), "[:x, :y]");
    beam.check(&call(&b, "{:scan, from: :x}"), "{:error, :unordered}");
    beam.check(&call(&b, ":clear"), ":ok");
    beam.check_soon(&call(&a, ":count"), "0");
    // One of the two has the global name: it is the same store.
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:put, :g, 1})", ":ok");
    beam.check_soon(&call(&a, "{:get, :g}"), "1");
    beam.check_soon(&call(&b, "{:get, :g}"), "1");
}

#[test]
fn a_store_is_told_by_its_global_names_and_by_local_ones_where_it_has_no_others() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let etcd = in_etcd(&cluster);
    // Each has the local name KeyValueStore, as without any name of a store: these are two stores.
    let (a, b) = (KvNode::start(&epmd, "a", &etcd), KvNode::start(&epmd, "b", &etcd));
    let elsewhere = KvNode::start(&epmd, "c", &format!("{etcd} --etcd-prefix other --global a --local l"));
    let (d, e) = (
        KvNode::start(&epmd, "d", &format!("{etcd} --local l")),
        KvNode::start(&epmd, "e", &format!("{etcd} --store global:a,global:more,local:mine --local l")),
    );
    for (node, stores) in [(&a, 1), (&b, 1), (&elsewhere, 2), (&d, 1), (&e, 2)] {
        wait_until("its stores are loaded", || node.log().matches(LOADED).count() == stores);
        beam.ping(node.name());
    }
    let at = |name: &str, node: &KvNode, request: &str| {
        format!("GenServer.call({{{name}, :\"{}\"}}, {request})", node.name())
    };
    beam.check(&at("KeyValueStore", &a, "{:put, 1, :a}"), ":ok");
    beam.check(&at("KeyValueStore", &b, "{:put, 1, :b}"), ":ok");
    beam.check(&at("KeyValueStore", &a, "{:get, 1}"), ":a");
    beam.check_soon(&at(":mine", &e, "{:get, 1}"), ":a");
    beam.check(&at(":l", &elsewhere, "{:get, 1}"), "nil");
    beam.check(&at(":l", &d, "{:put, 1, :l}"), ":ok");
    beam.check_soon(&at(":l", &e, "{:get, 1}"), ":l");
    let keys = cluster.ctl(&["get", "", "--prefix", "--keys-only"]);
    let others = keys
        .lines()
        .filter(|key| !key.is_empty() && !key.starts_with("kvnode/") && !key.starts_with("other/"));
    assert_eq!(others.count(), 0, "{keys}");
}

#[test]
fn a_node_that_is_killed_takes_nothing_with_it() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", ""));
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&format!("for key <- 1..500, uniq: true, do: {}", call(&a, "{:put, key, key}")), "[:ok]");
    a.kill(&epmd);
    beam.check_soon(&call(&b, ":count"), "500");
    beam.check(&call(&b, "{:put, 1, :again}"), ":ok");
    let a = serve(&epmd, &cluster, "a", "");
    beam.ping(a.name());
    beam.check(&call(&a, "{:get, 1}"), ":again");
    beam.check(&call(&a, ":count"), "500");
}

#[test]
fn watchers_and_slaves_of_one_node_get_what_the_other_one_writes() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let a = serve(&epmd, &cluster, "a", "--slave global:kv_slave --slave global:ex_slave");
    let b = serve(&epmd, &cluster, "b", "");
    beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:ex_slave)");
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.wait_for_global("ex_slave");
    beam.check(&call(&b, "{:put, 1, :before}"), ":ok");
    let slave =
        KvNode::start(&epmd, "slave", &format!("--store global:kv_slave,local:slave --connect {}", a.name()));
    beam.ping(slave.name());
    let get = |key: &str| {
        [call(&slave, &format!("{{:get, {key}}}")), format!("GenServer.call(slave, {{:get, {key}}})")]
    };
    get("1").iter().for_each(|get| beam.check_soon(get, ":before"));
    beam.run(&format!("{{:ok, ref, _}} = {}", call(&a, "{:watch, []}")));
    let told =
        "receive do {:kvnode, ^ref, change} -> change |> Tuple.to_list() |> tl() after 5000 -> nil end";
    beam.check(&call(&b, "{:put, 2, :after}"), ":ok");
    beam.check(told, "[:put, 2, :after]");
    get("2").iter().for_each(|get| beam.check_soon(get, ":after"));
    beam.check(&call(&b, "{:delete, 1}"), ":ok");
    beam.check(told, "[:delete, 1]");
    get("1").iter().for_each(|get| beam.check_soon(get, "nil"));
    beam.check(&call(&a, "{:put, 3, :own}"), ":ok");
    beam.check(told, "[:put, 3, :own]");
    get("3").iter().for_each(|get| beam.check_soon(get, ":own"));
}
