//! Stores in memory and on disk whose primary is elected by an etcd (`--elect`), and a BEAM that writes all the time with `--confirm 1`, while the
//! primary is killed, stopped, ended and cut off: another takes its place by itself, and nothing that was confirmed is lost.
//!
//! A cut takes root, for network namespaces. `scripts/failover elect` runs the rounds that are left out here, for a table.

#![cfg(feature = "program")]
#![expect(
    clippy::print_stdout,
    reason = "times are shown when a test fails, and are what scripts/failover is for"
)]

#[path = "interop_elect/faults.rs"]
mod faults;
mod support;

use rustix::process::Signal;
use support::http::{address, get};
use support::{
    BeamNode, BeamOptions, Cut, Epmd, EtcdCluster, EtcdOn, Host, KvNode, Network, Otp, wait_until,
};

/// A caller is served again after this at the latest, as the docs say.
const AFTER_KILL: u64 = 5_000;
const AFTER_STOP: u64 = 8_000;
/// Less than a lease lasts, which is given back.
const AFTER_END: u64 = 3_000;
/// Callers at the same time.
const PROBERS: usize = 4;
/// The time of a call: what hangs is seen sooner so than by the 5 s of `GenServer.call/2`.
const CALL_TIMEOUT: u64 = 1_000;

/// What keeps the stores.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Memory,
    Disk,
}

/// The store `kv` on `kv0`, `kv1` and `kv2`, and a BEAM that calls it.
struct Scene {
    beam: BeamNode,
    nodes: [Option<KvNode>; 3],
    folders: Option<[tempfile::TempDir; 3]>,
    epmd: Epmd,
    args: String,
}

/// What callers have seen since something was done to the primary.
#[derive(Debug)]
struct Seen {
    /// The longest time between two answers `:ok`, in milliseconds.
    gap: u64,
    /// The longest call.
    longest: u64,
    /// Failures by their kind.
    failed: String,
}

fn args(etcd: &str, beam: &str) -> String {
    format!("--elect {etcd} --store global:kv,local:kv --confirm 1 --connect {beam}")
}

impl Scene {
    /// The first node is the primary.
    fn start(otp: &Otp, etcd: &EtcdCluster, kept: Kept) -> Self {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "caller");
        let members: Vec<String> =
            etcd.endpoints().iter().map(|member| member.replace("http://", "etcd://")).collect();
        let args = args(&members.join(","), beam.name());
        let folder = |_| tempfile::tempdir().expect("a scratch folder");
        let folders = (kept == Kept::Disk).then(|| [0, 1, 2].map(folder));
        let mut scene = Self { beam, nodes: [const { None }; 3], folders, epmd, args };
        for at in 0..3 {
            scene.run(at);
            if at == 0 {
                scene.beam.wait_for_global("kv");
            }
        }
        scene.wait_until_counted(2);
        scene
    }

    /// Starts a node that does not run.
    fn run(&mut self, at: usize) {
        let data =
            self.folders.as_ref().map(|folders| format!(" --data-dir {}", folders[at].path().display()));
        let args = format!("{}{}", self.args, data.unwrap_or_default());
        self.nodes[at] = Some(KvNode::start(&self.epmd, &format!("kv{at}"), &args));
    }

    fn node(&self, at: usize) -> &KvNode {
        self.nodes[at].as_ref().expect("it runs")
    }

    fn kill(&mut self, at: usize) {
        self.nodes[at].take().expect("it runs").kill(&self.epmd);
    }

    /// So many slaves count for confirmed writes.
    fn wait_until_counted(&self, slaves: usize) {
        wait_until_counted(&self.beam, slaves);
    }

    /// A slave that was started again is recorded still: that it has everything again the primary says.
    fn wait_until_in_step(&self) {
        self.beam.check_soon(
            "try do s = GenServer.call({:global, :kv}, :status); Enum.count(s.slaves, &match?({:in_step, _}, &1.state)) >= length(s.election.counted) catch \
             :exit, _ -> false end",
            "true",
        );
        self.wait_until_counted(self.nodes.iter().flatten().count() - 1);
    }

    /// All stores have the same.
    fn check_same(&self) {
        for node in self.nodes.iter().flatten() {
            let same = format!(
                ":sys.get_state({{:kv, :\"{}\"}}).data === :sys.get_state({{:global, :kv}}).data",
                node.name()
            );
            self.beam.check_soon(&same, "true");
        }
    }
}

fn wait_until_counted(beam: &BeamNode, slaves: usize) {
    beam.check_soon(
        "try do length(GenServer.call({:global, :kv}, :status).election.counted) catch :exit, _ -> :none end",
        &slaves.to_string(),
    );
}

/// Callers of the name are answered so, soon.
#[track_caller]
fn check_served(beam: &BeamNode, request: &str, answer: &str) {
    let call =
        format!("try do GenServer.call({{:global, :kv}}, {request}, 1_000) catch :exit, _ -> :exit end");
    beam.check_soon(&call, answer);
}

/// The node that has the name, as the BEAM knows it.
fn primary(beam: &BeamNode) -> usize {
    let node = beam.run("Atom.to_string(node(:global.whereis_name(:kv)))");
    let digits = node.trim_matches('"').split('@').next().and_then(|name| name.strip_prefix("kv"));
    digits.and_then(|at| at.parse().ok()).unwrap_or_else(|| panic!("{node} is none of the nodes"))
}

/// Processes that call the store all the time.
fn probe(beam: &BeamNode) {
    beam.run(&format!("probers = KvNodeTest.Prober.start({{:global, :kv}}, {PROBERS}, {CALL_TIMEOUT})"));
    beam.run("KvNodeTest.Prober.await_ok(probers)");
}

/// Does something to the primary and waits until callers are served by another.
fn after(beam: &BeamNode, what: &str, fault: impl FnOnce(usize)) -> Seen {
    let before = primary(beam);
    beam.run("KvNodeTest.Prober.mark(probers)");
    fault(before);
    beam.check_soon(
        &format!(
            "is_pid(p = :global.whereis_name(:kv)) and not String.starts_with?(Atom.to_string(node(p)), \"kv{before}@\")"
        ),
        "true",
    );
    beam.run("KvNodeTest.Prober.await_ok(probers)");
    seen(beam, what)
}

/// What the probers have seen. None of them may have read back in time.
#[track_caller]
fn seen(beam: &BeamNode, what: &str) -> Seen {
    let report = beam
        .run("{gap, longest, failed, faults} = KvNodeTest.Prober.report(probers); {gap, longest, failed}");
    beam.check("faults", "[]");
    let mut parts = report.trim_matches(['{', '}']).splitn(3, ", ");
    let mut number = || parts.next().and_then(|part| part.parse().ok()).expect("a number");
    let (gap, longest) = (number(), number());
    let seen = Seen { gap, longest, failed: parts.next().unwrap_or_default().to_owned() };
    println!("{what}: :ok again after {gap} ms, the longest call took {longest} ms, failed {}", seen.failed);
    seen
}

/// All that was confirmed is there, or what was written behind it.
#[track_caller]
fn check_all(beam: &BeamNode) {
    beam.check("KvNodeTest.Prober.oks(probers) > 100", "true");
    beam.run("ended = KvNodeTest.Prober.stop(probers); :ok");
    beam.check("KvNodeTest.Prober.lost(ended, {:global, :kv})", "[]");
}

fn at(node: &KvNode, request: &str) -> String {
    format!("GenServer.call({{:kv, :\"{}\"}}, {request})", node.name())
}

fn a_killed_primary_is_followed(kept: Kept) {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, kept);
    probe(&scene.beam);
    for round in 0..3 {
        let (mut killed, Scene { beam, nodes, epmd, .. }) = (0, &mut scene);
        let seen = after(beam, "kill", |at| {
            killed = at;
            nodes[at].take().expect("it runs").kill(epmd);
        });
        assert!(seen.gap < AFTER_KILL, "round {round}: {seen:?}");
        scene.run(killed);
        scene.wait_until_counted(2);
    }
    check_all(&scene.beam);
    scene.check_same();
}

#[test]
fn a_killed_primary_in_memory_is_followed_by_a_slave_and_nothing_confirmed_is_lost() {
    a_killed_primary_is_followed(Kept::Memory);
}

#[test]
fn a_killed_primary_on_disk_is_followed_by_a_slave_and_nothing_confirmed_is_lost() {
    a_killed_primary_is_followed(Kept::Disk);
}

#[test]
fn a_stopped_primary_is_followed_and_confirms_nothing_when_it_goes_on() {
    let etcd = EtcdCluster::start(1);
    let scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    probe(&scene.beam);
    let (mut stopped, mut mark) = (0, 0);
    let seen = after(&scene.beam, "stop", |at| {
        (stopped, mark) = (at, scene.node(at).log_mark());
        scene.node(at).signal(Signal::STOP);
    });
    assert!(seen.gap < AFTER_STOP, "{seen:?}");
    // Some callers know it by its node, and have written to it meanwhile: these writes wait at its socket.
    let node = scene.node(stopped).name();
    scene.beam.run(&format!(
        "late = for n <- 1..20, do: Task.async(fn -> \
           try do GenServer.call({{:kv, :\"{node}\"}}, {{:put, {{:late, n}}, n, confirm: rem(n, 2)}}, 20_000) catch :exit, _ -> :exit end end); :ok"
    ));
    scene.beam.run("KvNodeTest.Prober.mark(probers)");
    scene.node(stopped).signal(Signal::CONT);
    scene.beam.check("Enum.any?(Task.await_many(late, 30_000), &(&1 == :ok))", "false");
    scene.node(stopped).wait_for_log_after(mark, &["it is the primary no more"]);
    scene.beam.run("KvNodeTest.Prober.await_oks(probers, 200)");
    let seen = self::seen(&scene.beam, "going on");
    assert_eq!(seen.failed, "[]", "{seen:?}");
    assert_ne!(primary(&scene.beam), stopped);
    // It is a slave from then on.
    scene.wait_until_counted(2);
    scene.beam.check_soon(
        &format!("match?({{:error, {{:slave_of, _}}}}, {})", at(scene.node(stopped), "{:put, 1, 1}")),
        "true",
    );
    check_all(&scene.beam);
    scene.check_same();
}

#[test]
fn the_end_of_a_slave_disturbs_nobody_and_a_primary_that_ends_leaves_its_place_to_another() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    probe(&scene.beam);
    let slave = (primary(&scene.beam) + 1) % 3;
    scene.beam.run("KvNodeTest.Prober.mark(probers)");
    scene.kill(slave);
    scene.beam.run("KvNodeTest.Prober.await_oks(probers, 200)");
    assert_eq!(seen(&scene.beam, "the end of a slave").failed, "[]");
    scene.run(slave);
    for _ in 0..3 {
        scene.wait_until_in_step();
        let (mut ended, Scene { beam, nodes, .. }) = (0, &mut scene);
        let seen = after(beam, "end", |at| {
            ended = at;
            let node = nodes[at].take().expect("it runs");
            let name = node.name().to_owned();
            let end = node.terminate();
            assert!(end.status.success(), "{}", end.stderr);
            // Its lease is given back, and not left to end in its time.
            let reports = etcd.ctl(&["get", "--prefix", "--keys-only", "kvnode/global:kv/s/r/"]);
            assert!(reports.contains("/s/r/kv") && !reports.contains(&name), "{reports}");
        });
        assert!(seen.gap < AFTER_END, "{seen:?}");
        scene.run(ended);
    }
    scene.wait_until_in_step();
    check_all(&scene.beam);
    scene.check_same();
}

#[test]
fn a_primary_that_ends_when_one_of_two_slaves_is_lost_leaves_its_place_to_the_other() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    probe(&scene.beam);
    scene.beam.run("KvNodeTest.Prober.await_oks(probers, 200)");
    // It counts still, so by the arithmetic alone both slaves would have to report.
    let lost = (primary(&scene.beam) + 1) % 3;
    scene.kill(lost);
    let ended = primary(&scene.beam);
    let end = scene.nodes[ended].take().expect("it runs").terminate();
    assert!(end.status.success(), "{}", end.stderr);
    // Before the lost one is there again, which has nothing.
    let other = 3 - lost - ended;
    scene.node(other).wait_for_log(&["it is the primary"]);
    scene.run(lost);
    scene.beam.run("KvNodeTest.Prober.await_ok(probers)");
    assert_eq!(primary(&scene.beam), other);
    scene.wait_until_in_step();
    check_all(&scene.beam);
    scene.check_same();
}

#[test]
fn nobody_is_promoted_by_hand_but_by_force() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    let before = primary(&scene.beam);
    let other = (before + 1) % 3;
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    for request in ["{:promote}", "{:promote, report: true}", "{:promote, force: false}"] {
        scene.beam.check(&at(scene.node(other), request), "{:error, :elected}");
    }
    scene.beam.check(&at(scene.node(other), "{:promote, force: true}"), ":ok");
    scene.beam.check_soon(
        "Atom.to_string(node(:global.whereis_name(:kv))) |> String.split(\"@\") |> hd()",
        &format!("\"kv{other}\""),
    );
    scene.wait_until_counted(2);
    scene.beam.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 3})", ":ok");
    scene.check_same();
    // Without the primary and one of two slaves, one of which has each confirmed write, it is not known whether that is the other.
    let third = before;
    let last = 3 - other - third;
    scene.kill(third);
    scene.kill(other);
    scene.node(last).wait_for_log(&["no primary can be chosen", "1 of 2"]);
    let missing = format!("{}.election.missing |> Enum.sort()", at(scene.node(last), ":status"));
    let [one, two] = [third.min(other), third.max(other)].map(|at| format!("kv{at}@"));
    scene.beam.check_soon(
        &format!("match?([\"{one}\" <> _, \"{two}\" <> _], Enum.map({missing}, &Atom.to_string/1))"),
        "true",
    );
    scene.beam.check(&at(scene.node(last), "{:put, 1, 4, confirm: 0}"), "{:error, :no_primary}");
    scene.beam.check(&at(scene.node(last), "{:promote}"), "{:error, :elected}");
    scene.beam.check(&at(scene.node(last), "{:promote, force: true}"), ":ok");
    scene.node(last).wait_for_log(&["confirmed writes may be lost"]);
    scene.beam.check_soon("GenServer.call({:global, :kv}, {:put, 1, 4, confirm: 0})", ":ok");
}

#[test]
fn an_election_is_shown_and_a_node_is_ready_when_it_knows_the_primary() {
    let (epmd, mut etcd) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "caller");
    let member = etcd.endpoint(0).replace("http://", "etcd://");
    let args = format!("{} --http 0", args(&member, beam.name()));
    etcd.kill(0);
    let first = KvNode::start(&epmd, "kv0", &args);
    assert!(first.banner().contains("elects    the primary by http://"), "{}", first.banner());
    let ready = |node: &KvNode| get(address(node), "/ready");
    assert_eq!(ready(&first).code, 503);
    assert!(ready(&first).body.contains("no primary"), "{}", ready(&first).body);
    beam.ping(first.name());
    beam.check(&format!("{}.election.state", at(&first, ":status")), ":waiting");
    beam.check(&at(&first, "{:put, 1, 1}"), "{:error, :no_primary}");
    etcd.run(0);
    wait_until("the first is the primary", || ready(&first).code == 200);
    let second = KvNode::start(&epmd, "kv1", &args);
    wait_until("the second knows the primary", || ready(&second).code == 200);
    wait_until_counted(&beam, 1);
    for (node, state) in [(&first, "primary"), (&second, "slave")] {
        let metrics = get(address(node), "/metrics").body;
        for line in [
            format!("kvnode_store_election_state{{store=\"global:kv\",state=\"{state}\"}} 1\n"),
            "kvnode_store_election_has_primary{store=\"global:kv\"} 1\n".to_owned(),
            "kvnode_store_election_counted_slaves{store=\"global:kv\"} 1\n".to_owned(),
        ] {
            assert!(metrics.contains(&line), "{line} is not in {metrics}");
        }
        let status = get(address(node), "/status.json").body;
        assert!(status.contains(&format!("\"election\":{{\"state\":\"{state}\"")), "{status}");
        let [primary, slave] = [first.name(), second.name()].map(|name| format!(":\"{name}\""));
        let election = format!("(s = {}.election; {{s.state, s.primary, s.counted}})", at(node, ":status"));
        beam.check_soon(&format!("{election} == {{:{state}, {primary}, [{slave}]}}"), "true");
    }
    beam.check(&at(&second, "{:put, 1, 1}"), "{:error, {:slave_of, {:global, :kv}}}");
    beam.check(
        &format!(
            "match?({{:error, {{:held_by, pid}}}} when node(pid) == :\"{}\", {})",
            first.name(),
            at(&second, "{:add_slave, :other}")
        ),
        "true",
    );
    let fence = "GenServer.call({:global, :kv}, :status).election.fence";
    beam.run(&format!("before = {fence}"));
    first.kill(&epmd);
    beam.check_soon(&format!("try do {fence} > before catch :exit, _ -> false end"), "true");
    assert_eq!(ready(&second).code, 200);
    beam.check("GenServer.call({:global, :kv}, {:put, 1, 1})", "{:error, {:unconfirmed, 0, 1}}");
}

#[test]
fn all_nodes_that_are_killed_at_once_come_back_with_what_their_disks_have() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Disk);
    probe(&scene.beam);
    scene.beam.run("KvNodeTest.Prober.await_oks(probers, 200)");
    for at in 0..3 {
        scene.kill(at);
    }
    scene.beam.wait_for_no_global("kv");
    for at in [2, 1, 0] {
        scene.run(at);
    }
    scene.beam.wait_for_global("kv");
    scene.beam.run("KvNodeTest.Prober.await_ok(probers)");
    scene.wait_until_counted(2);
    check_all(&scene.beam);
    scene.check_same();
}

#[test]
fn stores_in_memory_that_have_all_ended_begin_anew() {
    let etcd = EtcdCluster::start(1);
    let mut scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    for at in 0..3 {
        scene.kill(at);
    }
    scene.beam.wait_for_no_global("kv");
    for at in [1, 2, 0] {
        scene.run(at);
    }
    scene.beam.wait_for_global("kv");
    scene.wait_until_counted(2);
    scene.beam.check("GenServer.call({:global, :kv}, {:get, 1})", "nil");
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 3})", ":ok");
    let anew = scene.nodes.iter().flatten().filter(|node| node.log().contains("it begins anew")).count();
    assert_eq!(anew, 1);
}

#[test]
fn a_primary_that_goes_on_takes_no_name_from_a_successor_that_led_before() {
    let etcd = EtcdCluster::start(1);
    let scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    let mut led = Vec::new();
    loop {
        let stopped = primary(&scene.beam);
        let mark = scene.node(stopped).log_mark();
        scene.node(stopped).signal(Signal::STOP);
        scene.beam.check_soon(
            &format!(
                "is_pid(p = :global.whereis_name(:kv)) and node(p) != :\"{}\"",
                scene.node(stopped).name()
            ),
            "true",
        );
        // Longer than names are left alone: they are to be looked after when it goes on.
        scene.beam.run("Process.sleep(2_500)");
        scene.beam.run(
            "spy = Task.async(fn ->
               look = fn look, seen ->
                 receive do
                   :enough -> Enum.reverse(seen)
                 after
                   0 ->
                     now = :global.whereis_name(:kv)
                     look.(look, if(hd(seen) == now, do: seen, else: [now | seen]))
                 end
               end
               look.(look, [:global.whereis_name(:kv)])
             end)
             :ok",
        );
        scene.node(stopped).signal(Signal::CONT);
        scene.node(stopped).wait_for_log_after(mark, &["it is the primary no more"]);
        scene.wait_until_counted(2);
        scene.beam.check("send(spy.pid, :enough); length(Task.await(spy))", "1");
        led.push(stopped);
        if led.contains(&primary(&scene.beam)) {
            break;
        }
    }
    scene.check_same();
}

#[test]
fn without_etcd_nothing_is_written_and_all_is_read_and_the_primary_goes_on_when_it_is_back() {
    let mut etcd = EtcdCluster::start(1);
    let scene = Scene::start(&Otp::newest(), &etcd, Kept::Memory);
    scene.beam.check("GenServer.call({:global, :kv}, {:put, 1, 2})", ":ok");
    let before = primary(&scene.beam);
    etcd.kill(0);
    scene.node(before).wait_for_log(&["it is the primary no more", "etcd does not renew"]);
    scene.beam.wait_for_no_global("kv");
    for node in scene.nodes.iter().flatten() {
        scene.beam.check(&at(node, "{:get, 1}"), "2");
    }
    for request in ["{:put, 1, 3}", "{:get, 1, consistency: :linearizable}"] {
        scene.beam.check(&at(scene.node(before), request), "{:error, :no_primary}");
    }
    // What a person wants ends by itself, and with the person.
    let forced = (before + 1) % 3;
    let force = at(scene.node(forced), "{:promote, force: true}");
    scene.beam.check(
        &format!("match?({{:error, {{:not_elected, why}}}} when why in [:etcd, :unknown], {force})"),
        "true",
    );
    scene.node(forced).wait_for_log(&["not made the primary by force: etcd"]);
    let mark = scene.node(forced).log_mark();
    scene.beam.run(&format!("caller = spawn(fn -> {force} end)"));
    scene.node(forced).wait_for_log_after(mark, &["to be the primary by force"]);
    scene.beam.run("Process.exit(caller, :kill)");
    scene.node(forced).wait_for_log_after(mark, &["the caller has ended"]);
    etcd.run(0);
    scene.beam.wait_for_global("kv");
    assert_eq!(primary(&scene.beam), before);
    scene.beam.check_soon("GenServer.call({:global, :kv}, {:get, 1})", "2");
    scene.beam.check_soon("GenServer.call({:global, :kv}, {:put, 1, 4})", ":ok");
    scene.beam.check("GenServer.call({:global, :kv}, {:get, 1, consistency: :linearizable})", "4");
    scene.wait_until_counted(2);
    scene.check_same();
}

/// A BEAM and an etcd on one host, and a node of the store on each of three others; on the first of these a BEAM that is cut off with it.
struct Hosts {
    beam: BeamNode,
    beside: BeamNode,
    nodes: [KvNode; 3],
    folders: [tempfile::TempDir; 3],
    _etcd: EtcdOn,
    network: Network,
}

impl Hosts {
    fn start(otp: &Otp) -> Option<Self> {
        let network = Network::lay(4)?;
        let [here, first, second, third] = network.hosts();
        let (etcd, client) = EtcdOn::start(here);
        let beam = BeamNode::start(otp, network.epmd(), BeamOptions::new("caller").on(here));
        let beside = BeamNode::start(otp, network.epmd(), BeamOptions::new("beside").hidden().on(first));
        let folders = [0, 1, 2].map(|_| tempfile::tempdir().expect("a scratch folder"));
        let start = |at: usize, host: &Host| {
            let args = format!("{} --data-dir {}", args(&client, beam.name()), folders[at].path().display());
            KvNode::start_on(&network, host, &format!("kv{at}"), &args)
        };
        let primary = start(0, first);
        beam.wait_for_global("kv");
        let nodes = [primary, start(1, second), start(2, third)];
        wait_until_counted(&beam, 2);
        Some(Self { beam, beside, nodes, folders, _etcd: etcd, network })
    }

    fn host(&self, at: usize) -> &Host {
        let hosts: [&Host; 4] = self.network.hosts();
        hosts[at + 1]
    }
}

#[test]
fn a_primary_that_is_cut_off_takes_nothing_behind_its_lease_and_keeps_elsewhere_what_it_has_taken_before() {
    let Some(hosts) = Hosts::start(&Otp::newest()) else { return };
    probe(&hosts.beam);
    let cut_off = &hosts.nodes[0];
    hosts.beside.ping(cut_off.name());
    let write = at(cut_off, "{:put, :alone, 1, confirm: 0}");
    let mut mark = 0;
    let seen = after(&hosts.beam, "cut", |cut| {
        assert_eq!(cut, 0);
        mark = cut_off.log_mark();
        hosts.host(0).cut(Cut::Drop);
        // By its own clock it leads, and what it answers so is not confirmed.
        hosts.beside.check(&write, ":ok");
        hosts
            .beside
            .check(&at(cut_off, "{:put, :confirmed, 1, confirm: 1}"), "{:error, {:unconfirmed, 0, 1}}");
    });
    assert!(seen.gap < AFTER_STOP, "{seen:?}");
    cut_off.wait_for_log_after(mark, &["it is the primary no more"]);
    hosts.beside.check(&write, "{:error, :no_primary}");
    hosts.beam.run("KvNodeTest.Prober.mark(probers)");
    hosts.host(0).heal(Cut::Drop);
    wait_until_counted(&hosts.beam, 2);
    cut_off.wait_for_log_after(mark, &["kvnode-dropped-kv-1.exs"]);
    let kept = hosts.folders[0].path().join("kvnode-dropped-kv-1.exs");
    let kept = std::fs::read_to_string(kept).expect("the file of dropped pairs");
    assert!(kept.contains(":alone"), "{kept}");
    hosts.beam.check("GenServer.call({:global, :kv}, {:get, :alone})", "nil");
    let seen = self::seen(&hosts.beam, "healed");
    assert_eq!(seen.failed, "[]", "{seen:?}");
    check_all(&hosts.beam);
}

/// Rounds for the table of scripts/failover.
fn rounds() -> usize {
    std::env::var("KVNODE_FAILOVER_ROUNDS").map_or(50, |rounds| rounds.parse().expect("a number"))
}

fn table_row(what: &str, seen: &[Seen]) {
    let mut gaps: Vec<u64> = seen.iter().map(|seen| seen.gap).collect();
    gaps.sort_unstable();
    let (p50, worst) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let longest = seen.iter().map(|seen| seen.longest).max().unwrap_or(0);
    println!("| {what} | {} | {p50} ms | {worst} ms | {longest} ms |", gaps.len());
}

#[test]
#[ignore = "fifty failovers, by scripts/failover elect"]
fn the_table() {
    println!("| of the elected primary | failovers | until the next :ok, p50 | worst | longest call |");
    println!("| --- | --- | --- | --- | --- |");
    for (kept, named) in [(Kept::Memory, "memory"), (Kept::Disk, "disk")] {
        let etcd = EtcdCluster::start(1);
        let mut scene = Scene::start(&Otp::newest(), &etcd, kept);
        probe(&scene.beam);
        let (mut kills, mut stops) = (Vec::new(), Vec::new());
        for round in 0..rounds().div_ceil(2) {
            if round % 2 == 0 {
                let (mut killed, Scene { beam, nodes, epmd, .. }) = (0, &mut scene);
                kills.push(after(beam, "kill", |at| {
                    killed = at;
                    nodes[at].take().expect("it runs").kill(epmd);
                }));
                scene.run(killed);
            } else {
                let (mut stopped, mut mark) = (0, 0);
                stops.push(after(&scene.beam, "stop", |at| {
                    (stopped, mark) = (at, scene.node(at).log_mark());
                    scene.node(at).signal(Signal::STOP);
                }));
                scene.node(stopped).signal(Signal::CONT);
                scene.node(stopped).wait_for_log_after(mark, &["it is the primary no more"]);
            }
            scene.wait_until_counted(2);
        }
        check_all(&scene.beam);
        scene.check_same();
        for (what, seen) in [("kill", &kills), ("stop", &stops)] {
            if !seen.is_empty() {
                table_row(&format!("{what}, {named}"), seen);
            }
        }
    }
}
