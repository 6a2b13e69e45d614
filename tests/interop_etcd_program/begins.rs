//! Start and end, with an etcd that is away, slow, or refuses.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::support::http::{address, get};
use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp, wait_until};
use super::{LOADED, call, in_etcd, serve};

/// Starts a node whose store waits for etcd.
#[track_caller]
fn begin(epmd: &Epmd, cluster: &EtcdCluster, args: &str) -> KvNode {
    KvNode::start(epmd, "a", &format!("{} --store global:kv,local:a {args}", in_etcd(cluster)))
}

/// So long a node that has nothing to wait for may take to end, on a machine that does other things too.
const SOON: Duration = Duration::from_secs(3);

#[test]
fn a_node_starts_without_etcd_and_serves_when_etcd_has_come() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    cluster.kill(0);
    let node = begin(&epmd, &cluster, "--http 0");
    assert!(node.banner().contains(" is not loaded yet\n"), "{}", node.banner());
    let at = address(&node);
    assert_eq!(get(at, "/health").code, 200);
    let waits = get(at, "/ready");
    assert_eq!(
        (waits.code, waits.body.as_str()),
        (503, "not ready: a store waits for etcd, or is being loaded\n")
    );
    assert!(get(at, "/metrics").body.contains("kvnode_ready 0\n"));
    beam.ping(node.name());
    // A caller is told at once that there is no such process.
    let asked = Instant::now();
    beam.check(
        &format!("try do {} catch :exit, {{:noproc, _}} -> :noproc end", call(&node, "{:get, 1}")),
        ":noproc",
    );
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let line = node.wait_for_log(&["the store waits for etcd at", &cluster.endpoint(0), "global:kv"]);
    assert!(line.contains("has no names until it is loaded"), "{line}");
    cluster.run(0);
    node.wait_for_log(&[LOADED]);
    assert_eq!(node.log().matches("the store waits for etcd").count(), 1, "it is said once");
    wait_until("it is ready", || get(at, "/ready").code == 200);
    beam.check(&call(&node, "{:put, 1, 2}"), ":ok");
    beam.wait_for_global("kv");
    beam.check("GenServer.call({:global, :kv}, {:get, 1})", "2");
}

#[test]
fn a_node_that_waits_for_etcd_ends_at_once() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    cluster.stop(0);
    for after_line in [false, true] {
        let node = begin(&epmd, &cluster, "");
        if after_line {
            node.wait_for_log(&["the store waits for etcd"]);
        }
        let told = Instant::now();
        let ended = node.terminate();
        assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
        assert!(told.elapsed() < SOON, "{:?}: {}", told.elapsed(), ended.stderr);
    }
    cluster.go_on(0);
}

#[test]
fn what_was_taken_before_the_end_is_answered() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", ""));
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&call(&a, "{:put, 0, 0}"), ":ok");
    cluster.stop(0);
    let send = format!(":gen_server.send_request({{:a, :\"{}\"}}, {{:put, key, key}})", a.name());
    beam.run(&format!("sent = for key <- 1..50, do: {send}"));
    // What is asked on the same connection behind them is answered: they have come.
    beam.check(&format!(":erpc.call(:\"{0}\", :erlang, :node, []) == :\"{0}\"", a.name()), "true");
    a.signal(Signal::TERM);
    a.wait_for_log(&["ending; a second signal ends at once"]);
    cluster.go_on(0);
    beam.check("for id <- sent, uniq: true, do: :gen_server.receive_response(id, 10_000)", "[reply: :ok]");
    assert!(a.wait().status.success());
    beam.check_soon(&call(&b, ":count"), "51");
}

#[test]
fn an_etcd_that_hangs_keeps_no_thread_of_the_node_waiting() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beams = ["one", "two"].map(|name| BeamNode::start(&Otp::newest(), &epmd, name));
    let node =
        KvNode::start(&epmd, "a", &format!("{} --global one --global two --http 0", in_etcd(&cluster)));
    wait_until("its stores are loaded", || node.log().matches(LOADED).count() == 2);
    let at = address(&node);
    for (beam, store) in beams.iter().zip(["one", "two"]) {
        beam.ping(node.name());
        beam.wait_for_global(store);
        beam.check(&format!("GenServer.call({{:global, :{store}}}, {{:put, 0, 0}})"), ":ok");
        beam.run(&format!("pid = :global.whereis_name(:{store})"));
    }
    cluster.stop(0);
    // A server that is started again waits for what its former life has asked for.
    for (beam, store) in beams.iter().zip(["one", "two"]) {
        beam.run(&format!(
            "for key <- 1..3, do: :gen_server.send_request({{:global, :{store}}}, {{:put, key, key}})"
        ));
        beam.check("Process.exit(pid, :kill)", "true");
    }
    let asked = Instant::now();
    wait_until("both have ended", || {
        assert_eq!(get(at, "/health").code, 200);
        let shown = get(at, "/status.json").body;
        shown.matches("\"up\":false").count() == 2
    });
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    cluster.go_on(0);
    for (beam, store) in beams.iter().zip(["one", "two"]) {
        let get = format!("GenServer.call({{:global, :{store}}}, {{:get, 0}})");
        beam.check_soon(&format!("try do {get} catch :exit, _ -> :not_yet end"), "0");
    }
    // More than may wait: each caller is answered before it gives up.
    cluster.stop(0);
    let send = ":gen_server.send_request({:global, :one}, {:put, key, :binary.copy(<<key>>, 1_000_000)})";
    beams[0].run(&format!("sent = for key <- 1..60, do: {send}"));
    let asked = Instant::now();
    beams[0].check(
        "for id <- sent, uniq: true, do: elem(elem(:gen_server.receive_response(id, 5_000), 1), 0)",
        "[:error]",
    );
    assert!(asked.elapsed() < Duration::from_secs(6), "{:?}", asked.elapsed());
    assert_eq!(get(at, "/health").code, 200);
    cluster.go_on(0);
    beams[0].check_soon("GenServer.call({:global, :one}, {:put, 0, 1})", ":ok");
}

#[test]
fn what_etcd_refuses_for_good_ends_the_program_with_the_reason() {
    let (epmd, mut cluster) = (Epmd::start(), EtcdCluster::start(1));
    // Two stores that are there by then.
    let node = KvNode::start(&epmd, "a", &format!("{} --global x --global y", in_etcd(&cluster)));
    for store in ["global:x", "global:y"] {
        node.wait_for_log(&[LOADED, store]);
    }
    node.terminate();
    let both = KvNode::run_to_end(&epmd, "a", &format!("{} --store global:x,global:y", in_etcd(&cluster)));
    let reason = "--engine etcd, the store global:x: the names global:x, global:y belong to different stores that are kept";
    assert_eq!(both.status.code(), Some(1));
    assert!(both.stderr.contains(reason), "{}", both.stderr);
    for args in [
        &["user", "add", "root:wurzel"][..],
        &["user", "grant-role", "root", "root"],
        &["user", "add", "kv:geheim"],
        &["user", "grant-role", "kv", "root"],
        &["auth", "enable"],
    ] {
        cluster.ctl(args);
    }
    cluster.set_ctl_flags(&["--user=root:wurzel"]);
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("it is ours");
        path.display().to_string()
    };
    let user =
        |file: &str| format!("{} --global x --etcd-user kv --etcd-password-file {file}", in_etcd(&cluster));
    let nobody = KvNode::run_to_end(&epmd, "a", &format!("{} --global x", in_etcd(&cluster)));
    let wrong = KvNode::run_to_end(&epmd, "a", &user(&file("wrong", "falsch\n")));
    for (ended, reason) in [(nobody, "etcd wants a user and a password"), (wrong, "etcd does not allow it")] {
        assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
        assert!(
            ended.stderr.contains("--engine etcd, the store global:x: etcd cannot be used for stores: "),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(reason) && !ended.stderr.contains("falsch"), "{}", ended.stderr);
    }
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let password = |command: &mut std::process::Command| _ = command.env("KVNODE_ETCD_PASSWORD", "geheim");
    let by_variable = format!("{} --local x --etcd-user kv", in_etcd(&cluster));
    for (name, node) in [
        ("b", KvNode::start(&epmd, "b", &format!("{} --local x", user(&file("right", "geheim\nmore"))))),
        ("c", KvNode::start_with(&epmd, "c", &by_variable, password)),
    ] {
        beam.ping(node.name());
        beam.check(&format!("GenServer.call({{:x, :\"{}\"}}, {{:put, :{name}, 1}})", node.name()), ":ok");
        assert!(!node.log().contains("geheim") && !node.log().contains("waits for etcd"), "{}", node.log());
    }
}
