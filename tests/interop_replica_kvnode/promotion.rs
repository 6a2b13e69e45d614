//! A slave that becomes the primary, and what becomes of the former primary.

use std::fs;
use std::path::Path;

use rustix::process::Signal;

use crate::support::cluster::{Cluster, call, on_disk, roles, same, same_node, states};
use crate::support::{BeamNode, BeamOptions, Epmd, KvNode, Otp, at_host, at_once_on_every_otp, wait_until};

#[test]
fn a_slave_is_promoted_and_the_primary_that_returns_becomes_its_slave() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let master = cluster.node("master", "");
        let (one, _two) = (cluster.node("one", ""), cluster.node("two", ""));
        beam.check(&call("one", "{:promote}"), "{:error, :not_a_slave}");
        cluster.add("master", "one", ":ok");
        cluster.add("master", "two", ":ok");
        beam.run("for i <- 1..1_000, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon(&states("master"), "[in_step: 0, in_step: 0]");
        master.kill(&cluster.epmd);
        beam.check_soon(&format!("{}.primary.state", call("one", ":status")), ":gone");
        beam.check(&call("one", "{:promote}"), ":ok");
        beam.wait_for_global("master");
        beam.run("for i <- 900..1_100, do: KeyValueStoreDistributed.put(i, :after)");
        beam.check(&call("one", "{:get, 1_000}"), ":after");
        beam.check_soon(&same("one", "two"), "true");
        beam.check(&format!("{}.role", call("one", ":status")), ":primary");
        // The old primary is started again as it was, without its data, and its name is taken.
        let master = KvNode::start(
            &cluster.epmd,
            "master",
            &format!("--connect {} --slave global:one --slave global:two", beam.name()),
        );
        // By the greeting of the new primary, or by its own offer.
        master.wait_for_log(&["its slave"]);
        let at = format!("{{KeyValueStore, :\"{}\"}}", master.name());
        beam.check_soon(&format!("GenServer.call({at}, :status).role"), ":slave");
        beam.check_soon(&format!("GenServer.call({at}, {{:get, 1_000}})"), ":after");
        beam.check_soon(&format!("GenServer.call({at}, :slaves)"), "[]");
        beam.check(&format!("node(:global.whereis_name(:master)) == :\"{}\"", one.name()), "true");
        beam.check_soon(&same("one", "two"), "true");
    });
}

#[test]
fn a_primary_that_lives_is_replaced_by_its_slave_and_tells_what_it_drops() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let dir = tempfile::tempdir().expect("a folder can be made");
        let (master, one) = (cluster.node_in(dir.path(), "master", ""), cluster.node("one", ""));
        cluster.add("master", "one", ":ok");
        beam.run("for i <- 1..100, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon(&states("master"), "[in_step: 0]");
        // What the slave may not get before it is promoted.
        cluster.cut(&master, &one);
        beam.check(
            &format!("KeyValueStoreDistributed.put(:late, :lost); {}", call("one", "{:promote}")),
            ":ok",
        );
        master.wait_for_log(&["another store was promoted"]);
        beam.check_soon(&format!("node(:global.whereis_name(:master)) == :\"{}\"", one.name()), "true");
        let at = format!("{{KeyValueStore, :\"{}\"}}", master.name());
        beam.check_soon(&format!("GenServer.call({at}, :status).role"), ":slave");
        beam.run("KeyValueStoreDistributed.put(:new, 1)");
        beam.check_soon(&format!("GenServer.call({at}, {{:get, :new}})"), "1");
        beam.check_soon(
            &format!("GenServer.call({at}, {{:get, :late}}) == {}", call("one", "{:get, :late}")),
            "true",
        );
        if beam.run(&call("one", "{:get, :late}")) == "nil" {
            master.wait_for_log(&["dropped", "pairs=1", "kvnode-dropped-master-1.exs"]);
            assert_eq!(dropped(dir.path(), "master", 1), "{:late, :lost}\n");
        }
        // A store is one slave, by whatever name it is added.
        beam.run(&format!("pid = :rpc.call(:\"{}\", :erlang, :whereis, [KeyValueStore])", master.name()));
        beam.check(&call("master", "{:add_slave, pid}"), ":ok");
        beam.check_soon(&format!("length({})", call("master", ":slaves")), "1");
    });
}

/// What is in a file of what was dropped.
fn dropped(dir: &Path, store: &str, number: u32) -> String {
    let file = dir.join(format!("kvnode-dropped-{store}-{number}.exs"));
    fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// Stops a node, and waits until none of its threads runs.
fn stop(node: &KvNode) {
    node.signal(Signal::STOP);
    let tasks = format!("/proc/{}/task", node.pid());
    wait_until("all threads are stopped", || {
        fs::read_dir(&tasks).expect("it is there").all(|task| {
            let stat = fs::read_to_string(task.expect("a readable folder").path().join("stat"));
            stat.is_ok_and(|stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('T')))
        })
    });
}

#[test]
fn of_two_slaves_that_are_promoted_apart_from_each_other_one_yields_and_tells_what_it_drops() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let dir = tempfile::tempdir().expect("a folder can be made");
        let master = cluster.node("master", "");
        let [one, two] = ["one", "two"].map(|name| cluster.node_in(dir.path(), name, ""));
        for slave in ["one", "two"] {
            cluster.add("master", slave, ":ok");
        }
        beam.run("for i <- 1..300, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon(&states("master"), "[in_step: 0, in_step: 0]");
        master.kill(&cluster.epmd);
        for slave in ["one", "two"] {
            beam.check_soon(&format!("{}.primary.state", call(slave, ":status")), ":gone");
        }
        let promote_alone = |this: &KvNode, other: &KvNode, name: &str| {
            stop(other);
            beam.check(&call(name, "{:promote}"), ":ok");
            beam.check(&call(name, &format!("{{:put, :of, :{name}}}")), ":ok");
            beam.check(&call(name, &format!("{{:put, :{name}, \"{}\"}}", "long ".repeat(100))), ":ok");
            stop(this);
            other.signal(Signal::CONT);
        };
        promote_alone(&one, &two, "one");
        promote_alone(&two, &one, "two");
        two.signal(Signal::CONT);
        beam.check_soon(&roles(&["one".into(), "two".into()]), "[:primary, :slave]");
        beam.check_soon(&same("one", "two"), "true");
        let is_one = beam.run(&format!("{}.role", call("one", ":status"))) == ":primary";
        let (primary, slave) = if is_one { ("one", "two") } else { ("two", "one") };
        // The node that ended is looked for.
        beam.check_soon(&format!("Enum.sort({})", states(primary)), "[:seeking, {:in_step, 0}]");
        beam.check(&call(primary, "{:get, :of}"), &format!(":{primary}"));
        // Said when the file is whole.
        let follower = if is_one { &two } else { &one };
        follower.wait_for_log(&["dropped", "pairs=2"]);
        let file = dropped(dir.path(), slave, 1);
        let mut lines: Vec<&str> = file.lines().collect();
        lines.sort_unstable();
        let long = format!("{{:{slave}, \"{}\"}}", "long ".repeat(100));
        let of = format!("{{:of, :{slave}}}");
        assert_eq!(lines, [of, long]);
        assert_eq!(fs::read_dir(dir.path()).expect("it is there").count(), 1, "the other one drops nothing");
        beam.check_soon(&same_node("master", primary), "true");
    });
}

#[test]
fn a_former_primary_on_disk_that_returns_keeps_what_it_drops_in_a_file_that_can_be_put_back() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let dir = tempfile::tempdir().expect("a folder can be made");
        let data = dir.path().join("data");
        let start = || cluster.node("master", &on_disk(&data));
        let (master, one) = (start(), cluster.node("one", ""));
        cluster.add("master", "one", ":ok");
        beam.run("for i <- 1..100, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon(&states("master"), "[in_step: 0]");
        // What is written while its slave hears nothing.
        one.signal(Signal::STOP);
        master.kill(&cluster.epmd);
        beam.wait_for_no_global("master");
        let master = start();
        beam.run("KeyValueStoreDistributed.put(1, {:late, self()})");
        beam.run("KeyValueStoreDistributed.put(:long, String.duplicate(\"a\\n\", 500))");
        beam.run("KeyValueStoreDistributed.delete(100)");
        beam.run("lost = for key <- [1, :long], into: %{}, do: {key, KeyValueStoreDistributed.get(key)}");
        master.kill(&cluster.epmd);
        beam.wait_for_no_global("master");
        one.signal(Signal::CONT);
        beam.check_soon(&format!("{}.primary.state", call("one", ":status")), ":gone");
        beam.check(&call("one", "{:promote}"), ":ok");
        beam.wait_for_global("master");
        beam.check("KeyValueStoreDistributed.put(:new, 1)", ":ok");
        let start = || {
            let args = format!("--connect {} --data-dir {}", beam.name(), data.display());
            let master = KvNode::start(&cluster.epmd, "master", &args);
            let at = format!("{{KeyValueStore, :\"{}\"}}", master.name());
            beam.check_soon(&format!("GenServer.call({at}, :status).role"), ":slave");
            let same = format!(
                ":sys.get_state({at}).data == :sys.get_state({{:global, :one}}).data and GenServer.call({at}, :status).primary.state"
            );
            beam.check_soon(&same, ":following");
            master
        };
        let master = start();
        master.wait_for_log(&["dropped", "pairs=2", "kvnode-dropped-master-1.exs"]);
        let lines = dropped(&data, "master", 1);
        assert_eq!(lines.lines().count(), 2, "{lines}");
        // As docs/replication.md says, but for the file, which a BEAM in a root folder of its own does not see.
        let page = include_str!("../../docs/replication.md");
        let block =
            page.split("```elixir\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
        let file = "File.stream!(\"kvnode-dropped-master-1.exs\")";
        assert!(block.contains(file), "{block}");
        beam.run(&block.replace(file, &format!("String.split({lines:?}, \"\\n\", trim: true)")));
        beam.check(
            "for({key, _} <- lost, into: %{}, do: {key, KeyValueStoreDistributed.get(key)}) == lost",
            "true",
        );
        // As a slave it has nothing of its own, however often it is started.
        let at = format!("{{KeyValueStore, :\"{}\"}}", master.name());
        beam.check_soon(&format!("GenServer.call({at}, {{:get, 1}}) == lost[1]"), "true");
        master.kill(&cluster.epmd);
        beam.run("KeyValueStoreDistributed.put(2, :newer); KeyValueStoreDistributed.delete(3)");
        let _master = start();
        assert!(!data.join("kvnode-dropped-master-2.exs").exists());
    });
}

#[test]
fn a_primary_that_was_started_again_without_data_does_not_empty_the_slave_that_has_it() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let start = || cluster.node("master", "--slave global:one");
        let (master, _one) = (start(), cluster.node("one", ""));
        beam.run("for i <- 1..100, do: KeyValueStoreDistributed.put(i, i)");
        beam.check_soon(&states("master"), "[in_step: 0]");
        master.kill(&cluster.epmd);
        beam.wait_for_no_global("master");
        let master = start();
        beam.check("KeyValueStoreDistributed.put(:new, 1)", ":ok");
        beam.check_soon(&states("master"), "[refused: :not_empty]");
        beam.check(
            &format!("hd({}.slaves).error =~ \"nothing is deleted there\"", call("master", ":status")),
            "true",
        );
        master.wait_for_log(&["ERROR", "slave not taken", "kvnode promote"]);
        beam.check(&format!("{}.entries", call("one", ":status")), "100");
        // What it holds is had again, by its promotion.
        beam.check(&call("one", "{:promote}"), ":ok");
        let at = format!("{{KeyValueStore, :\"{}\"}}", master.name());
        beam.check_soon(&format!("GenServer.call({at}, :status).role"), ":slave");
        beam.check_soon(&format!("map_size(:sys.get_state({at}).data)"), "100");
        beam.check_soon(&same_node("master", "one"), "true");
        beam.check_soon("KeyValueStoreDistributed.get(7)", "7");
    });
}

/// Stores on disk: what the former primary took meanwhile is dropped into a file, although both were started again.
#[test]
fn a_promotion_outlives_a_restart_of_who_was_promoted() {
    let cluster = Cluster::new(&Otp::newest());
    let (beam, dirs) = (&cluster.beam, [(); 2].map(|()| tempfile::tempdir().expect("a folder can be made")));
    let start = |name: &str, dir: &tempfile::TempDir| cluster.node(name, &on_disk(dir.path()));
    let (a, b) = (start("a", &dirs[0]), start("b", &dirs[1]));
    cluster.add("a", "b", ":ok");
    beam.check(&call("a", "{:put, 1, 1, confirm: 1}"), ":ok");
    a.kill(&cluster.epmd);
    beam.wait_for_no_global("a");
    beam.check_soon(&call("b", "{:promote}"), ":ok");
    beam.check(&call("b", "{:put, 2, 2}"), ":ok");
    b.kill(&cluster.epmd);
    beam.wait_for_no_global("b");
    let a = start("a", &dirs[0]);
    beam.check(&call("a", "{:put, 3, 3}"), ":ok");
    let _b = start("b", &dirs[1]);
    let at = format!("{{KeyValueStore, :\"{}\"}}", a.name());
    beam.check_soon(&format!("GenServer.call({at}, :status).role"), ":slave");
    beam.check_soon(&format!("for key <- 1..3, do: GenServer.call({at}, {{:get, key}})"), "[1, 2, nil]");
    let dropped = fs::read_dir(dirs[0].path())
        .expect("it is there")
        .flatten()
        .filter(|file| file.file_name().to_string_lossy().starts_with("kvnode-dropped-"))
        .map(|file| fs::read_to_string(file.path()).expect("it is text"))
        .collect::<String>();
    assert!(dropped.contains("{3, 3}"), "{dropped:?}");
}

#[test]
fn a_slave_on_disk_that_is_started_without_its_primary_can_be_promoted() {
    let cluster = Cluster::new(&Otp::newest());
    let (beam, dir) = (&cluster.beam, tempfile::tempdir().expect("a folder can be made"));
    let args = on_disk(dir.path());
    let (a, b) = (cluster.node("a", ""), cluster.node("b", &args));
    cluster.add("a", "b", ":ok");
    beam.check(&call("a", "{:put, 1, 1, confirm: 1}"), ":ok");
    beam.check_soon(&format!("{}.primary.state", call("b", ":status")), ":following");
    a.kill(&cluster.epmd);
    b.kill(&cluster.epmd);
    beam.wait_for_no_global("b");
    let _b = cluster.node("b", &args);
    beam.check(&call("b", "{:promote}"), ":ok");
    beam.check(&call("b", "{:promote}"), "{:error, :not_a_slave}");
    let _a = cluster.node("a", "");
    cluster.add("b", "a", ":ok");
    cluster.follows("a", "b");
    beam.check(&call("a", "{:get, 1}"), "1");
}

#[test]
fn global_names_that_were_taken_over_stay_with_who_was_promoted() {
    let cluster = Cluster::new(&Otp::newest());
    let (beam, dirs) = (&cluster.beam, [(); 2].map(|()| tempfile::tempdir().expect("a folder can be made")));
    let start = |name: &str, dir: &tempfile::TempDir| cluster.node(name, &on_disk(dir.path()));
    let (a, b) = (start("a", &dirs[0]), start("b", &dirs[1]));
    cluster.add("a", "b", ":ok");
    beam.check(&call("a", "{:put, 1, 1, confirm: 1}"), ":ok");
    beam.check_soon(&call("b", "{:promote}"), ":ok");
    beam.check_soon(&same_node("a", "b"), "true");
    let at = format!("GenServer.call({{KeyValueStore, :\"{}\"}}, :status)", a.name());
    beam.check_soon(&format!("{at}.primary.state"), ":following");
    b.kill(&cluster.epmd);
    beam.wait_for_no_global("b");
    let b = start("b", &dirs[1]);
    beam.check_soon(&same_node("a", "b"), "true");
    beam.check_soon(&format!("{at}.primary.state"), ":following");
    // Both again: the former primary has its own name until it is a slave.
    a.kill(&cluster.epmd);
    b.kill(&cluster.epmd);
    beam.wait_for_no_global("a");
    let _a = start("a", &dirs[0]);
    let _b = start("b", &dirs[1]);
    beam.check_soon(&format!("{at}.primary.state"), ":following");
    beam.check_soon(&same_node("a", "b"), "true");
    beam.check(&call("a", "{:put, 2, 2}"), ":ok");
    beam.check(&call("b", "{:get, 2}"), "2");
}

/// A write that a primary took before it knew of the promotion, and that it sends to an Elixir slave afterwards.
#[test]
fn what_a_former_primary_sends_late_does_not_stay_in_an_elixir_slave() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let (a, b) = (cluster.node("a", ""), cluster.node("b", ""));
        beam.run("{:ok, elixir} = GenServer.start(KeyValueStoreReplicated, %{}); :global.register_name(:e, elixir)");
        cluster.add("a", "b", ":ok");
        cluster.add("a", "e", ":ok");
        beam.check(&call("a", "{:put, :n, :old}"), ":ok");
        beam.check_soon(&states("a"), "[in_step: 0, in_step: 0]");
        beam.run("a = :global.whereis_name(:a)");
        a.signal(Signal::STOP);
        beam.run("send(a, {:\"$gen_call\", {self(), make_ref()}, {:put, :n, :late}})");
        beam.check(&call("b", "{:promote}"), ":ok");
        beam.check(&call("b", "{:put, :n, :new}"), ":ok");
        beam.check_soon("GenServer.call(elixir, {:get, :n})", ":new");
        a.signal(Signal::CONT);
        a.wait_for_log(&["another store was promoted"]);
        beam.check_soon("GenServer.call(a, :status).primary.state", ":following");
        b.wait_for_log(&["copied to again"]);
        beam.check_soon("GenServer.call(elixir, {:get, :n})", ":new");
        beam.check_soon(&format!("Enum.uniq({})", states("b")), "[in_step: 0]");
        beam.check("GenServer.call(elixir, {:get, :n})", ":new");
    });
}

/// Calls the store that has a global name, as this node says.
fn call_at(node: &KvNode, name: &str, request: &str) -> String {
    format!("GenServer.call(:erpc.call(:\"{}\", :global, :whereis_name, [:{name}]), {request})", node.name())
}

/// Two kvnodes that know each other, `a` with the global name `m` and `b`, its slave; and a BEAM that calls them, which is hidden
/// and whose `global` stands still: it knows no names, and tells nobody of conflicts of them.
struct Pair {
    epmd: Epmd,
    beam: BeamNode,
    dirs: [tempfile::TempDir; 2],
}

impl Pair {
    fn new() -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(&Otp::newest(), &epmd, BeamOptions::new("caller").hidden());
        beam.run(":sys.suspend(:global_name_server)");
        Self { epmd, beam, dirs: [(); 2].map(|()| tempfile::tempdir().expect("a folder can be made")) }
    }

    fn a(&self, args: &str) -> KvNode {
        let args = format!("--global m --slave global:b --connect {} {args}", at_host("b"));
        KvNode::start(&self.epmd, "a", &args)
    }

    fn b(&self, args: &str) -> KvNode {
        KvNode::start(&self.epmd, "b", &format!("--connect {} {args}", at_host("a")))
    }

    /// What has a node keep its store on disk.
    fn on_disk(&self, node: usize) -> String {
        on_disk(self.dirs[node].path())
    }

    fn put(&self, node: &KvNode, name: &str, key: u32) {
        self.beam.check(&call_at(node, name, &format!("{{:put, {key}, {key}}}")), ":ok");
    }

    fn has(&self, node: &KvNode, name: &str, key: u32) {
        self.beam.check_soon(&call_at(node, name, &format!("{{:get, {key}}}")), &key.to_string());
    }

    /// All slaves of the store `b` are in step, and it has so many.
    fn has_slaves(&self, b: &KvNode, slaves: usize) {
        let states = vec!["{:in_step, 0}"; slaves].join(", ");
        let shown = format!("for(s <- {}.slaves, do: s.state) == [{states}]", call_at(b, "b", ":status"));
        self.beam.check_soon(&shown, "true");
    }
}

#[test]
fn a_slave_of_a_promotion_that_is_started_again_is_no_primary_of_who_was_promoted() {
    let pair = Pair::new();
    let (start_a, start_b) = (|| pair.a(&pair.on_disk(0)), || pair.b(&pair.on_disk(1)));
    let (a, b) = (start_a(), start_b());
    pair.put(&a, "m", 1);
    pair.has(&b, "b", 1);
    pair.beam.check_soon(&call_at(&b, "b", "{:promote}"), ":ok");
    a.wait_for_log(&["following a primary"]);
    pair.has_slaves(&b, 1);
    a.kill(&pair.epmd);
    pair.put(&b, "b", 2);
    let mark = b.log_mark();
    let a = start_a();
    b.wait_for_log_after(mark, &["primary refused"]);
    a.wait_for_log(&["following a primary"]);
    pair.has_slaves(&b, 1);
    pair.has(&b, "b", 2);
    // Both again, the former primary first.
    a.kill(&pair.epmd);
    pair.put(&b, "b", 3);
    b.kill(&pair.epmd);
    let a = start_a();
    let b = start_b();
    a.wait_for_log(&["following a primary"]);
    pair.has_slaves(&b, 1);
    pair.has(&b, "b", 3);
    pair.beam.check(&format!("{}.role", call_at(&b, "b", ":status")), ":primary");
    assert!(!b.log().contains("following a primary"));
}

#[test]
fn a_former_primary_that_returns_with_its_name_where_no_beam_tells_of_it_becomes_a_slave() {
    let pair = Pair::new();
    let (a, b) = (pair.a(""), pair.b(&pair.on_disk(1)));
    pair.put(&a, "m", 1);
    pair.has(&b, "b", 1);
    pair.beam.check_soon(&format!("{}.primary.state", call_at(&b, "b", ":status")), ":following");
    a.kill(&pair.epmd);
    pair.beam.check_soon(&call_at(&b, "b", "{:promote}"), ":ok");
    pair.put(&b, "m", 2);
    let a = pair.a("");
    a.wait_for_log(&["another store was promoted"]);
    a.wait_for_log(&["global name given up"]);
    pair.has_slaves(&b, 1);
    pair.has(&b, "m", 2);
    // A primary that has nothing to do with it is refused, and nothing else.
    let args =
        format!("--data-dir {} --slave global:b --connect {}", pair.dirs[0].path().display(), b.name());
    let other = KvNode::start(&pair.epmd, "other", &args);
    pair.put(&other, "other", 7);
    let refused = format!("for s <- {}.slaves, do: s.state", call_at(&other, "other", ":status"));
    pair.beam.check_soon(&refused, "[refused: :superseded]");
    pair.has_slaves(&b, 1);
    other.kill(&pair.epmd);
    // The promoted store is started again, with the names.
    a.kill(&pair.epmd);
    b.kill(&pair.epmd);
    let b = pair.b(&format!("--store global:b,global:m {}", pair.on_disk(1)));
    let a = pair.a("");
    a.wait_for_log(&["another store was promoted"]);
    pair.has_slaves(&b, 1);
    pair.has(&b, "m", 2);
    pair.beam.check(&format!("{}.role", call_at(&b, "b", ":status")), ":primary");
}
