//! kvnodes as each other's slaves: copies that appear whole, values that never go back, writes that wait for slaves, chains
//! and circles, and a slave that becomes the primary.

mod support;

use support::{BeamNode, Epmd, KvNode, Otp, Scripted, at_once_on_every_otp};

/// Calls a store by its global name.
fn call(name: &str, request: &str) -> String {
    format!("GenServer.call({{:global, :{name}}}, {request})")
}

/// The states of a store's slaves, in the order of their addition.
fn states(name: &str) -> String {
    format!("(for s <- {}.slaves, do: s.state)", call(name, ":status"))
}

/// `true` once both hold the same.
fn same(one: &str, other: &str) -> String {
    format!(":sys.get_state({{:global, :{one}}}).data == :sys.get_state({{:global, :{other}}}).data")
}

/// A BEAM, and kvnodes that are connected to it, each with a store of its name.
struct Cluster {
    epmd: Epmd,
    beam: BeamNode,
}

impl Cluster {
    fn new(otp: &Otp) -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "caller");
        Self { epmd, beam }
    }

    fn node(&self, name: &str, args: &str) -> KvNode {
        let node = KvNode::start(&self.epmd, name, &format!("--connect {} {args}", self.beam.name()));
        self.beam.wait_for_global(name);
        node
    }

    /// Ends the connection between two kvnodes: whoever connects as one of them takes its place.
    fn cut(&self, one: &KvNode, other: &KvNode) {
        let name = one.name().split('@').next().unwrap_or_default();
        let port = self.epmd.port_of(name).expect("it is registered");
        drop(Scripted::connect(port, other.name(), one.name()));
    }

    fn add(&self, primary: &str, slave: &str, answer: &str) {
        self.beam.check(&call(primary, &format!("{{:add_slave, {{:global, :{slave}}}}}")), answer);
    }

    fn follows(&self, slave: &str, primary: &str) {
        self.beam.check_soon(&format!("{}.role", call(slave, ":status")), ":slave");
        self.beam.check_soon(&same(primary, slave), "true");
    }
}

#[test]
fn a_copy_appears_whole_and_the_slave_says_whom_it_follows() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, _master) = (&cluster.beam, cluster.node("master", ""));
        let _slave = cluster.node("slave", "");
        beam.run("for i <- 1..20_000, do: KeyValueStoreDistributed.put(i, :new)");
        beam.run(&format!("for i <- 1..20_000, do: {}", call("slave", "{:put, i, :old}")));
        // A reader that sees the new value of one key has to see it of every key that it reads afterwards.
        beam.run(&format!(
            "get = fn i -> {} end
             reader = Task.async(fn ->
               Stream.repeatedly(fn -> Enum.map(1..200, fn _ -> get.(:rand.uniform(20_000)) end) end)
               |> Enum.reduce_while({{:old, 0}}, fn seen, {{last, halves}} ->
                 halves = if Enum.dedup([last | seen]) in [[:old], [:new], [:old, :new]], do: halves, else: halves + 1
                 if List.last(seen) == :new, do: {{:halt, halves}}, else: {{:cont, {{:old, halves}}}}
               end)
             end); :ok",
            call("slave", "{:get, i}")
        ));
        cluster.add("master", "slave", ":ok");
        beam.check("Task.await(reader, 60_000)", "0");
        cluster.follows("slave", "master");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check("[%{kind: :kvnode}] = GenServer.call({:global, :master}, :status).slaves; :ok", ":ok");
        beam.check_soon(
            &format!(
                "with %{{state: :following, lag: 0, seq: seq}} <- {}.primary, do: is_integer(seq)",
                call("slave", ":status")
            ),
            "true",
        );
        beam.check(&call("master", "{:remove_slave, {:global, :slave}}"), ":ok");
        beam.check_soon(&format!("{}.role", call("slave", ":status")), ":single");
    });
}

#[test]
fn a_reader_of_a_slave_never_sees_a_value_older_than_one_it_saw_before() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, master) = (&cluster.beam, cluster.node("master", ""));
        let slave = cluster.node("slave", "");
        beam.run("for i <- 1..2_000, do: KeyValueStoreDistributed.put({:other, i}, i)");
        cluster.add("master", "slave", ":ok");
        cluster.follows("slave", "master");
        beam.run(&format!(
            "writer = Task.async(fn -> for i <- 1..30_000, do: :ok = {put} end)
             reader = Task.async(fn ->
               Stream.repeatedly(fn -> {get} || 0 end)
               |> Enum.reduce_while({{0, 0}}, fn now, {{last, back}} ->
                 back = if now < last, do: back + 1, else: back
                 if now == 30_000, do: {{:halt, back}}, else: {{:cont, {{now, back}}}}
               end)
             end); :ok",
            put = call("master", "{:put, :count, i}"),
            get = call("slave", "{:get, :count}"),
        ));
        // The connection between the two is lost again and again, meanwhile.
        for _ in 0..5 {
            let mark = master.log_mark();
            cluster.cut(&master, &slave);
            master.wait_for_log_after(mark, &["slave", "slave found"]);
        }
        beam.check("Task.await(reader, 60_000)", "0");
        beam.check_soon(&same("master", "slave"), "true");
    });
}

#[test]
fn a_write_is_answered_when_so_many_slaves_have_it() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let (beam, _master) = (&cluster.beam, cluster.node("master", "--confirm 2 --confirm-timeout 3000"));
        let _slave = cluster.node("slave", "");
        beam.check("KeyValueStoreDistributed.put(1, 1)", "{:error, {:unconfirmed, 0, 2}}");
        beam.check("KeyValueStoreDistributed.get(1)", "1");
        beam.check(&call("master", "{:put, 2, 2, confirm: 0}"), ":ok");
        cluster.add("master", "slave", ":ok");
        beam.check_soon(&states("master"), "[in_step: 0]");
        beam.check(&call("master", "{:put, 3, 3, confirm: 1}"), ":ok");
        beam.check(&call("slave", "{:get, 3}"), "3");
        beam.check(&call("master", "{:put, 3, 4}"), "{:error, {:unconfirmed, 1, 2}}");
        beam.run("{:ok, elixir} = KeyValueStoreDistributed.start_link(:elixir); Process.unlink(elixir)");
        cluster.add("master", "elixir", ":ok");
        beam.check_soon(&states("master"), "[in_step: 0, in_step: 0]");
        // What was answered is there, at both.
        beam.check(
            "for(i <- 1..500) do
               :ok = KeyValueStoreDistributed.put(i, {:confirmed, i})
               for n <- [:slave, :elixir], do: {:confirmed, ^i} = GenServer.call({:global, n}, {:get, i})
             end |> length",
            "500",
        );
        beam.check("KeyValueStoreDistributed.delete(3)", ":ok");
        beam.check(&call("elixir", "{:get, 3}"), "nil");
        beam.check(&call("master", "{:delete, 4, confirm: 3}"), "{:error, {:unconfirmed, 2, 3}}");
        beam.check(
            "1..64 |> Task.async_stream(fn i -> KeyValueStoreDistributed.put(i, 1) end, max_concurrency: 64)
             |> Enum.all?(&(&1 == {:ok, :ok}))",
            "true",
        );
        beam.check(
            "try do GenServer.call({:global, :master}, {:put, 1, 1, nonsense: 1}) catch :exit, {{reason, _}, _} -> reason end",
            ":bad_call",
        );
    });
}

#[test]
fn circles_are_refused_and_chains_of_any_kind_converge() {
    at_once_on_every_otp(|otp| {
        let cluster = Cluster::new(otp);
        let beam = &cluster.beam;
        let _nodes: Vec<KvNode> = ["a", "b", "c"].iter().map(|name| cluster.node(name, "")).collect();
        cluster.add("a", "a", "{:error, :itself}");
        beam.check(&call("a", "{:add_slave, :KeyValueStore}"), ":ok");
        beam.check(&call("a", "{:add_slave, KeyValueStore}"), "{:error, :itself}");
        beam.check(&call("a", "{:remove_slave, :KeyValueStore}"), ":ok");
        cluster.add("a", "b", ":ok");
        cluster.add("b", "a", "{:error, :cycle}");
        cluster.add("b", "c", ":ok");
        cluster.add("c", "a", "{:error, :cycle}");
        cluster.add("a", "b", ":ok");
        beam.check(&call("a", ":slaves"), "[global: :b]");
        beam.check(&call("c", ":slaves"), "[]");
        cluster.add("a", "c", "{:error, :has_primary}");
        beam.check(&call("a", ":slaves"), "[global: :b]");
        beam.run("{:ok, d} = KeyValueStoreDistributed.start_link(:d); Process.unlink(d)");
        cluster.add("c", "d", ":ok");
        beam.run(&format!("for i <- 1..2_000, do: {}", call("a", "{:put, i, i}")));
        beam.run(&format!("for i <- 1..100, do: {}", call("a", "{:delete, i}")));
        for name in ["b", "c", "d"] {
            beam.check_soon(&same("a", name), "true");
        }
        // Removed, it is free to be the primary.
        beam.check(&call("a", "{:remove_slave, {:global, :b}}"), ":ok");
        beam.check_soon(&format!("{}.role", call("b", ":status")), ":primary");
        cluster.add("c", "a", ":ok");
        beam.run(&format!("for i <- 1..10, do: {}", call("b", "{:put, i, :b}")));
        beam.check_soon(&same("b", "a"), "true");
    });
}

#[test]
fn ten_slaves_hold_what_their_primary_holds() {
    let cluster = Cluster::new(&Otp::newest());
    let beam = &cluster.beam;
    let stores: Vec<String> = (1..=9).map(|n| format!("--global s{n}")).collect();
    let _master = cluster.node("master", "");
    let _slaves =
        KvNode::start(&cluster.epmd, "slaves", &format!("--connect {} {}", beam.name(), stores.join(" ")));
    beam.run("{:ok, s10} = KeyValueStoreDistributed.start_link(:s10); Process.unlink(s10)");
    for n in 1..=10 {
        beam.wait_for_global(&format!("s{n}"));
        cluster.add("master", &format!("s{n}"), ":ok");
    }
    beam.run("for i <- 1..3_000, do: KeyValueStoreDistributed.put(i, {i, \"value\"})");
    for n in 1..=10 {
        beam.check_soon(&same("master", &format!("s{n}")), "true");
    }
    beam.check_soon(&format!("Enum.uniq({})", states("master")), "[in_step: 0]");
}

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
        master.wait_for_log(&["becomes its slave"]);
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
        let (master, one) = (cluster.node("master", ""), cluster.node("one", ""));
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
            master.wait_for_log(&["dropped", ":late", ":lost"]);
        }
        // A store is one slave, by whatever name it is added.
        beam.run(&format!("pid = :rpc.call(:\"{}\", :erlang, :whereis, [KeyValueStore])", master.name()));
        beam.check(&call("master", "{:add_slave, pid}"), ":ok");
        beam.check_soon(&format!("length({})", call("master", ":slaves")), "1");
    });
}
