//! Large values over links that are not loopback, and large values both ways at once: no node is taken for down that goes on,
//! small calls come through beside large ones, and order is kept.
//!
//! A link is a port between two network namespaces with a rate of its own (`tc … tbf`), which takes root; elsewhere those
//! tests say that they are not run. The rest is on loopback. Sizes are as small as still show what each test is for.

#![cfg(feature = "program")]
#![expect(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]
#![expect(clippy::print_stdout, reason = "times are shown when a test fails")]

mod support;

use std::time::{Duration, Instant};

use kvnode::etf::Pid;
use kvnode::{CallError, ServerRef, block_on};
use support::tls::{Ca, Files};
use support::wait::PATIENCE;
use support::{
    BeamNode, BeamOptions, Epmd, Host, KvNode, Network, Otp, Rate, Running, Scripted, at_host,
    at_once_on_every_otp, on_every_otp,
};

const MIB: u64 = 1 << 20;

/// What a kvnode and a BEAM on two hosts are started with, beside their names.
#[derive(Default)]
struct Settings {
    kvnode: String,
    erl: String,
}

impl Settings {
    /// A silence of so many seconds is taken for the end.
    fn ticktime(self, secs: u32) -> Self {
        let kvnode = format!("{} --net-ticktime {secs}", self.kvnode);
        Self { kvnode, erl: format!("{} -kernel net_ticktime {secs}", self.erl) }
    }

    /// TLS with these files. Names in certificates are no matter of these tests.
    fn tls(self, files: &Files) -> Self {
        files.set_options("verify_none", "['tlsv1.2', 'tlsv1.3']");
        let kvnode = format!("{} {} --tls-verify none", self.kvnode, files.flags());
        Self { kvnode, erl: format!("{} {}", self.erl, files.erl()) }
    }

    fn kvnode(&self, network: &Network, host: &Host, name: &str) -> KvNode {
        KvNode::start_on(network, host, name, &self.kvnode)
    }

    fn beam(&self, otp: &Otp, network: &Network, host: &Host, name: &str) -> BeamNode {
        BeamNode::start(otp, network.epmd(), BeamOptions::new(name).on(host).erl(&self.erl))
    }
}

/// A kvnode on one host and a BEAM on the other.
struct Pair {
    kv: KvNode,
    beam: BeamNode,
    network: Network,
}

impl Pair {
    /// The BEAM knows the store as `store`, and has a `large` value of so many bytes in it. From here on the link is slow.
    fn connect(otp: &Otp, settings: &Settings, bytes: u64, rate: Rate) -> Option<Self> {
        let network = Network::lay_with_rates(2)?;
        let [there, here] = network.hosts();
        let kv = settings.kvnode(&network, there, "kv");
        let beam = settings.beam(otp, &network, here, "beam");
        connect(&beam, &kv);
        put_large(&beam, bytes);
        there.limit(rate);
        beam.run(":net_kernel.monitor_nodes(true, node_type: :all)");
        Some(Self { kv, beam, network })
    }

    /// Neither has taken the other for down.
    #[track_caller]
    fn is_kept(&self) {
        let lost = "receive do {:nodedown, node, info} -> {:lost, node, info} after 0 -> :kept end";
        self.beam.check(lost, ":kept");
        assert!(!self.kv.log().contains("peer down"), "kvnode has closed a connection");
    }
}

/// Connects, and has the store of a kvnode as `store`.
fn connect(beam: &BeamNode, kv: &KvNode) {
    beam.ping(kv.name());
    beam.run(&format!("kv = :\"{}\"; store = :erpc.call(kv, :erlang, :whereis, [KeyValueStore])", kv.name()));
    beam.check("is_pid(store)", "true");
}

/// Puts `bytes` as `:large`, and a small value as `:small`.
fn put_large(beam: &BeamNode, bytes: u64) {
    beam.run(&format!("bytes = :binary.copy(\"0123456789abcdef\", {}); :ok", bytes / 16));
    beam.check("GenServer.call(store, {:put, :large, bytes}, 60_000)", ":ok");
    beam.check("GenServer.call(store, {:put, :small, 1})", ":ok");
}

/// Small gets of other processes begin.
fn small_gets(beam: &BeamNode, count: u32) {
    beam.run(&format!(
        "smalls = KvNodeTest.Beside.start({count}, 1, fn -> GenServer.call(store, {{:get, :small}}) end)"
    ));
}

/// They end: none was lost, and the slowest took less than so long.
#[track_caller]
fn small_gets_took(beam: &BeamNode, most: Duration) {
    let found = beam.run("found = KvNodeTest.Beside.stop(smalls)");
    println!("{found}");
    beam.check("found.lost", "[]");
    let worst: u64 = beam.run("found.worst").parse().expect("a number");
    assert!(u128::from(worst) < most.as_millis(), "a small call took {worst} ms: {found}");
    beam.check("found.calls > 10", "true");
}

/// Asks until it is so, and fails once it has taken longer than that.
#[track_caller]
fn within(most: Duration, beam: &BeamNode, code: &str, value: &str) {
    let started = Instant::now();
    let mut last = String::new();
    while started.elapsed() < most {
        last = beam.eval(code).unwrap_or_else(|error| error.to_string());
        if last == value {
            println!("after {:?}: {value}", started.elapsed());
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("after {most:?} {code}\n is {last}\n not {value}");
}

/// The states of a store's slaves.
fn states(name: &str) -> String {
    format!("(for s <- GenServer.call({{:global, :{name}}}, :status, 30_000).slaves, do: s.state)")
}

// ---- A half-received packet is silence to a BEAM ----

/// 10.5 s for a value; a node that is silent for 4 to 5 s is down.
fn a_large_value_is_got(otp: &Otp, settings: Settings) {
    let (bytes, rate) = (50 * MIB, Rate::megabits(40));
    let Some(pair) = Pair::connect(otp, &settings.ticktime(4), bytes, rate) else { return };
    let started = Instant::now();
    let got = pair
        .beam
        .run("try do GenServer.call(store, {:get, :large}, 60_000) == bytes catch _, why -> why end");
    let took = started.elapsed();
    println!("{}: {got} after {took:?}, {:?} at best", otp.label, rate.takes(bytes));
    assert_eq!(got, "true", "{} after {took:?}", otp.label);
    assert!(took > rate.takes(bytes) / 2, "the link was not slow: {took:?}");
    pair.is_kept();
}

#[test]
fn a_value_that_takes_longer_than_the_tick_time_comes_and_the_connection_stays() {
    at_once_on_every_otp(|otp| a_large_value_is_got(otp, Settings::default()));
}

#[test]
fn a_value_that_takes_longer_than_the_tick_time_comes_over_tls() {
    at_once_on_every_otp(|otp| {
        // OTP 23 takes no certificate of ours with TLS 1.3.
        if otp.release >= 25 {
            let files = Ca::new("test").files(otp, "any");
            a_large_value_is_got(otp, Settings::default().tls(&files));
        }
    });
}

/// A primary brings a value of 10.5 s to a slave that is down after 4 to 5 s of silence, as it is itself.
fn a_slave_is_brought_up_to_date(otp: &Otp, settings: Settings, is_elixir: bool) {
    let (bytes, rate) = (50 * MIB, Rate::megabits(40));
    let settings = settings.ticktime(4);
    let Some(network) = Network::lay_with_rates(2) else { return };
    let [here, there] = network.hosts();
    let (mut elixir, mut rust) = (None, None);
    let name = if is_elixir {
        let beam = elixir.insert(settings.beam(otp, &network, there, "elixir"));
        beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave); Process.unlink(slave)");
        beam.name().to_owned()
    } else {
        rust.insert(KvNode::start_on(&network, there, "slave", &settings.kvnode)).name().to_owned()
    };
    let args = format!("{} --connect {name}", settings.kvnode);
    let primary = KvNode::start_on(&network, here, "primary", &args);
    primary.wait_for_log(&["peer up", &name]);
    let caller = settings.beam(otp, &network, here, "caller");
    connect(&caller, &primary);
    caller.wait_for_global("primary");
    put_large(&caller, bytes);
    there.limit(rate);
    caller.check("GenServer.call(store, {:add_slave, {:global, :slave}}, 60_000)", ":ok");
    within(rate.takes(bytes) + Duration::from_secs(15), &caller, &states("primary"), "[in_step: 0]");
    for lost in ["slave lost", "peer down"] {
        assert!(!primary.log().contains(lost), "the primary says {lost}");
    }
    if let Some(elixir) = elixir {
        elixir.check(&format!("byte_size(GenServer.call(slave, {{:get, :large}})) == {bytes}"), "true");
    }
    drop(rust);
}

#[test]
fn an_elixir_slave_gets_a_value_that_takes_longer_than_the_tick_time() {
    a_slave_is_brought_up_to_date(&Otp::usual(), Settings::default(), true);
}

#[test]
fn a_kvnode_slave_gets_a_value_that_takes_longer_than_the_tick_time() {
    for args in ["", "--no-fragments"] {
        let settings = Settings { kvnode: args.to_owned(), ..Settings::default() };
        a_slave_is_brought_up_to_date(&Otp::usual(), settings, false);
    }
}

// ---- A peer that takes bytes, or that ticks, lives ----

/// It reads 2 MB/s of 24 MiB: for 6 s or so more waits for it than a node keeps before it stops reading.
#[test]
fn a_peer_that_ticks_and_reads_slowly_is_served_to_the_end() {
    let otp = Otp::usual();
    for args in ["", "--no-fragments"] {
        let epmd = Epmd::start();
        let kv = KvNode::start(&epmd, "kv", &format!("--net-ticktime 4 {args}"));
        let beam = BeamNode::start(&otp, &epmd, BeamOptions::new("beam").erl("-kernel net_ticktime 4"));
        connect(&beam, &kv);
        put_large(&beam, 24 * MIB);
        let port = epmd.port_of("kv").expect("it is registered");
        let mut slow = Scripted::connect(port, &at_host("slow"), kv.name());
        // What the system takes for it is not to be the whole value.
        slow.set_receive_buffer(256 << 10);
        let started = Instant::now();
        let outcome = slow.get_slowly("large", 2_000_000, Duration::from_secs(1));
        let took = started.elapsed();
        println!("{args}: {outcome:?} after {took:?}");
        let value = outcome.unwrap_or_else(|read| panic!("closed after {took:?} and {read} bytes"));
        assert!(value.len() as u64 > 24 * MIB, "it is whole");
        assert!(took > Duration::from_secs(10), "it was read faster than meant: {took:?}");
        assert!(!kv.log().contains("peer down"), "kvnode has closed a connection");
    }
}

// ---- Small calls beside large ones ----

/// A value of 4.2 s, and small gets on the same connection.
fn small_gets_beside_a_large_one(otp: &Otp, settings: &Settings) {
    let (bytes, rate) = (40 * MIB, Rate::megabits(80));
    let Some(pair) = Pair::connect(otp, settings, bytes, rate) else { return };
    small_gets(&pair.beam, 4);
    pair.beam.check("GenServer.call(store, {:get, :large}, 60_000) == bytes", "true");
    small_gets_took(&pair.beam, Duration::from_millis(1_500));
    pair.is_kept();
}

#[test]
fn small_gets_come_through_beside_a_large_one_on_a_slow_link() {
    small_gets_beside_a_large_one(&Otp::usual(), &Settings::default());
}

#[test]
fn small_gets_come_through_beside_a_large_one_on_a_slow_link_over_tls() {
    let otp = Otp::usual();
    let files = Ca::new("test").files(&otp, "any");
    small_gets_beside_a_large_one(&otp, &Settings::default().tls(&files));
}

/// So many gets of so much at once, one process each, and small gets beside them.
fn small_gets_beside_many(settings: &str, count: u32, bytes: u64) {
    let epmd = Epmd::start();
    let kv = KvNode::start(&epmd, "kv", settings);
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    connect(&beam, &kv);
    put_large(&beam, bytes);
    small_gets(&beam, 2);
    let started = Instant::now();
    beam.check(
        &format!(
            "get = fn -> {bytes} = byte_size(GenServer.call(store, {{:get, :large}}, 60_000)) end
             KvNodeTest.Beside.lost(KvNodeTest.Beside.at_once(List.duplicate(get, {count}), 80_000))"
        ),
        "[]",
    );
    println!("{count} gets of {} MiB {settings}: {:?}", bytes / MIB, started.elapsed());
    small_gets_took(&beam, Duration::from_millis(1_500));
}

#[test]
fn small_gets_come_through_beside_many_large_ones_on_loopback() {
    small_gets_beside_many("", 70, 60 * MIB);
    small_gets_beside_many("", 300, 10 * MIB);
}

#[test]
fn small_gets_come_through_beside_many_large_ones_without_fragments() {
    small_gets_beside_many("--no-fragments", 70, 60 * MIB);
    small_gets_beside_many("--no-fragments", 300, 10 * MIB);
}

/// Two values of 4 s each go to a slave, and small calls come by the same connection: of the BEAM that the Elixir slave is
/// in, or through the kvnode that the slave is in.
fn small_calls_beside_a_copy(settings: &Settings, is_elixir: bool) {
    let (bytes, rate) = (20 * MIB, Rate::megabits(40));
    let Some(network) = Network::lay_with_rates(2) else { return };
    let [here, there] = network.hosts();
    let otp = Otp::usual();
    let beside = settings.beam(&otp, &network, there, "beside");
    let slave = (!is_elixir).then(|| settings.kvnode(&network, there, "slave"));
    let slave_node = slave.as_ref().map_or_else(|| beside.name().to_owned(), |slave| slave.name().to_owned());
    if is_elixir {
        beside.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave); Process.unlink(slave)");
    }
    let args = format!("{} --connect {slave_node}", settings.kvnode);
    let primary = KvNode::start_on(&network, here, "primary", &args);
    primary.wait_for_log(&["peer up", &slave_node]);
    let caller = settings.beam(&otp, &network, here, "caller");
    connect(&caller, &primary);
    put_large(&caller, bytes);
    caller.wait_for_global("primary");
    there.limit(rate);
    beside.run(&format!("kv = :\"{}\"", primary.name()));
    if is_elixir {
        beside.run("call = fn -> GenServer.call({KeyValueStore, kv}, {:get, :small}) end");
    } else {
        beside.ping(&slave_node);
        beside.run(&format!(
            "arguments = [{{KeyValueStore, kv}}, {{:get, :small}}]
             call = fn -> :erpc.call(:\"{slave_node}\", GenServer, :call, arguments, 10_000) end"
        ));
    }
    beside.check("call.()", "1");
    beside.run("smalls = KvNodeTest.Beside.start(4, 1, call)");
    caller.check("GenServer.call(store, {:put, :other, bytes}, 60_000)", ":ok");
    caller.check("GenServer.call(store, {:add_slave, {:global, :slave}}, 60_000)", ":ok");
    within(rate.takes(2 * bytes) + Duration::from_secs(10), &caller, &states("primary"), "[in_step: 0]");
    small_gets_took(&beside, Duration::from_millis(2_000));
    assert!(!primary.log().contains("peer down"), "the primary has closed a connection");
    drop(slave);
}

#[test]
fn small_calls_come_through_beside_a_copy_to_an_elixir_slave_on_a_slow_link() {
    small_calls_beside_a_copy(&Settings::default(), true);
}

#[test]
fn small_calls_come_through_beside_a_copy_to_a_kvnode_slave_on_a_slow_link() {
    small_calls_beside_a_copy(&Settings::default(), false);
}

// ---- Both ways at once ----

/// How long two that copy to each other on loopback may take. What stands still is noticed after 30 s.
const COPIED_WITHIN: Duration = Duration::from_secs(20);

/// Two kvnodes, each with a primary of its own and the slave of the other.
struct Crossing {
    beam: BeamNode,
    nodes: [KvNode; 2],
    _epmd: Epmd,
}

impl Crossing {
    fn start(args: &str) -> Self {
        let epmd = Epmd::start();
        let one = KvNode::start(&epmd, "one", &format!("--store global:a --store global:b_copy {args}"));
        let args = format!("--store global:b --store global:a_copy --connect {} {args}", one.name());
        let two = KvNode::start(&epmd, "two", &args);
        let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
        for node in [&one, &two] {
            beam.ping(node.name());
        }
        for name in ["a", "b", "a_copy", "b_copy"] {
            beam.wait_for_global(name);
        }
        one.wait_for_log(&["peer up", two.name()]);
        Self { beam, nodes: [one, two], _epmd: epmd }
    }

    /// Values of so many MiB into both, at once.
    fn put(&self, count: u32, mib: u32) {
        self.beam.check(
            &format!(
                "bytes = :binary.copy(\"0123456789abcdef\", {mib} * 65_536)
                 put = fn name -> for i <- 1..{count}, do: :ok = GenServer.call({{:global, name}}, {{:put, i, bytes}}, 60_000) end
                 [:a, :b]
                 |> Enum.map(fn name -> Task.async(fn -> put.(name) end) end)
                 |> Enum.flat_map(&Task.await(&1, 80_000))
                 |> Enum.uniq()"
            ),
            "[:ok]",
        );
    }

    /// At once, so that one copy is not done before the other begins.
    fn add_slaves(&self) {
        self.beam.check(
            "[a: :a_copy, b: :b_copy]
             |> Enum.map(fn {name, copy} ->
               Task.async(fn -> GenServer.call({:global, name}, {:add_slave, {:global, copy}}, 60_000) end)
             end)
             |> Enum.map(&Task.await(&1, 80_000))",
            "[:ok, :ok]",
        );
    }

    #[track_caller]
    fn are_in_step(&self, count: u32) {
        let both = format!("{{{}, {}}}", states("a"), states("b"));
        within(COPIED_WITHIN, &self.beam, &both, "{[in_step: 0], [in_step: 0]}");
        let size = |name: &str| format!("GenServer.call({{:global, :{name}}}, :status).entries");
        let sizes = format!("{{{}, {}}}", size("a_copy"), size("b_copy"));
        self.beam.check(&sizes, &format!("{{{count}, {count}}}"));
        for node in &self.nodes {
            assert!(!node.log().contains("peer down"), "{} has lost the other", node.name());
        }
    }
}

fn copies_cross(args: &str, count: u32, mib: u32) {
    let crossing = Crossing::start(args);
    crossing.put(count, mib);
    crossing.add_slaves();
    crossing.are_in_step(count);
}

#[test]
fn two_kvnodes_copy_a_large_value_to_each_other() {
    let crossing = Crossing::start("");
    crossing.put(1, 30);
    crossing.add_slaves();
    crossing.are_in_step(1);
    // They stand still where both are in the middle of one: not each time.
    for _ in 0..8 {
        crossing.put(1, 30);
        crossing.are_in_step(1);
    }
}

#[test]
fn two_kvnodes_copy_many_large_values_to_each_other() {
    copies_cross("", 12, 15);
}

#[test]
fn two_kvnodes_copy_large_values_to_each_other_without_fragments() {
    copies_cross("--no-fragments", 12, 15);
}

#[test]
fn two_kvnodes_in_step_with_each_other_take_large_writes() {
    let crossing = Crossing::start("");
    crossing.add_slaves();
    crossing.are_in_step(0);
    crossing.put(12, 15);
    crossing.are_in_step(12);
}

/// Ten gets and ten puts of 5 MiB at once, through a kvnode that passes them on to another; several times, as what stands
/// still then does so most times and not always.
fn a_kvnode_relays(args: &str) {
    let epmd = Epmd::start();
    let far = KvNode::start(&epmd, "far", args);
    let relay = KvNode::start(&epmd, "relay", &format!("--connect {} {args}", far.name()));
    relay.wait_for_log(&["peer up", far.name()]);
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    beam.ping(relay.name());
    beam.run(&format!(
        "call = fn request ->
           arguments = [{{KeyValueStore, :\"{}\"}}, request, 60_000]
           :erpc.call(:\"{}\", GenServer, :call, arguments, 60_000)
         end
         bytes = :binary.copy(\"0123456789abcdef\", 5 * 65_536); :ok",
        far.name(),
        relay.name()
    ));
    beam.check("call.({:put, :large, bytes})", ":ok");
    beam.run(
        "get = fn -> ^bytes = call.({:get, :large}) end
         put = fn -> :ok = call.({:put, make_ref(), bytes}) end
         functions = List.duplicate(get, 10) ++ List.duplicate(put, 10)",
    );
    for round in 1..=5 {
        let started = Instant::now();
        let lost = beam.run(
            "outcomes = KvNodeTest.Beside.at_once(functions, 80_000)
             {length(Enum.filter(outcomes, &is_tuple/1)), KvNodeTest.Beside.lost(outcomes)}",
        );
        let took = started.elapsed();
        println!("round {round}: {lost} lost, {took:?}");
        assert_eq!(lost, "{0, []}", "calls are lost in round {round}, after {took:?}");
        assert!(took < COPIED_WITHIN, "round {round}: {took:?}");
    }
}

#[test]
fn large_calls_both_ways_pass_through_a_kvnode() {
    a_kvnode_relays("");
}

#[test]
fn large_calls_both_ways_pass_through_a_kvnode_without_fragments() {
    a_kvnode_relays("--no-fragments");
}

// ---- Order between two processes ----

/// Requests of one process for large and small values, to the store's pid and to its name, to be answered to a pid and,
/// where there are any, to aliases. What comes next is the answer to what was asked next, whatever it is. Then the same
/// with a signal behind a large answer.
#[track_caller]
fn order_is_kept(otp: &Otp, beam: &BeamNode, kv: &KvNode) {
    let alias = otp.release >= 24;
    let ways: Vec<String> = ["store", "{KeyValueStore, kv}"]
        .into_iter()
        .flat_map(|to| [false, alias].map(|aliased| format!("{{{to}, {aliased}}}")))
        .collect();
    beam.check(
        &format!(
            "ways = [{}]
             asked = for number <- 1..32, do: {{number, Enum.at([:large, :small, :small, :nobody, :small], rem(number, 5))}}

             tags =
               for {{number, key}} <- asked do
                 {{to, aliased}} = Enum.at(ways, rem(number * 7, 4))
                 tag = if aliased, do: [:alias | apply(:erlang, :alias, [])], else: {{:tag, number}}
                 send(to, {{:\"$gen_call\", {{self(), tag}}, {{:get, key}}}})
                 {{tag, key}}
               end

             for {{tag, key}} <- tags do
               # The next message, whatever it is.
               receive do
                 {{^tag, value}} -> value == Map.get(%{{large: bytes, small: 1}}, key)
                 other -> {{:out_of_order, tag, elem(other, 0)}}
               after
                 30_000 -> {{:nothing, tag}}
               end
             end
             |> Enum.uniq()",
            ways.join(", ")
        ),
        "[true]",
    );
    beam.check(
        "watched = Process.monitor(store)
         send(store, {:\"$gen_call\", {self(), :last}, {:get, :large}})
         Process.exit(store, :kill)

         for _ <- 1..2 do
           receive do
             {:last, value} -> value == bytes
             {:DOWN, ^watched, :process, ^store, reason} -> reason
           after
             30_000 -> :nothing
           end
         end",
        "[true, :killed]",
    );
    assert!(!kv.log().contains("peer down"), "the connection stays");
}

#[test]
fn order_between_two_processes_is_kept_on_loopback() {
    on_every_otp(|otp| {
        for args in ["", "--no-fragments"] {
            let epmd = Epmd::start();
            let kv = KvNode::start(&epmd, "kv", args);
            let beam = BeamNode::start(otp, &epmd, "beam");
            connect(&beam, &kv);
            put_large(&beam, 6 * MIB);
            order_is_kept(otp, &beam, &kv);
        }
    });
}

#[test]
fn order_between_two_processes_is_kept_on_a_slow_link() {
    at_once_on_every_otp(|otp| {
        let Some(pair) = Pair::connect(otp, &Settings::default(), 2 * MIB, Rate::megabits(80)) else {
            return;
        };
        order_is_kept(otp, &pair.beam, &pair.kv);
        // Until here.
        drop(pair.network);
    });
}

#[test]
fn what_a_client_sends_to_one_process_by_pid_and_by_name_comes_in_order() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        beam.ping(node.name().as_str());
        beam.check("Process.register(self(), :heard)", "true");
        let client = node.client();
        block_on(async {
            let heard = ("erlang", "whereis");
            let found = client.erpc(beam.name(), heard, 1, |w| _ = w.atom("heard"), PATIENCE).await;
            let pid = found.expect("it is registered");
            let pid: Pid = pid.view().as_pid().expect("a pid").into();
            let ways = [ServerRef::from(pid), ServerRef::remote("heard", beam.name())];
            let large = vec![7; 3_000_000];
            for number in 0..40_u64 {
                let bytes: &[u8] = if number % 5 == 0 { &large } else { &[] };
                let to = &ways[(number as usize * 3 / 2) % 2];
                let send =
                    || client.send(to, |w| _ = w.tuple(3).atom("number").unsigned(number).binary(bytes));
                while let Err(error) = send().await {
                    assert!(matches!(error, CallError::Busy { .. }), "{number}: {error}");
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
        });
        beam.check(
            "for(_ <- 1..40, do: receive do {:number, number, _} -> number after 30_000 -> :nothing end) == Enum.to_list(0..39)",
            "true",
        );
    });
}
