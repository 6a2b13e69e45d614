//! How new is what a read of a store in etcd finds: `consistency:`.

use std::time::{Duration, Instant};

use super::support::person::Person;
use super::support::{BeamNode, Epmd, EtcdCluster, KvNode, Otp};
use super::{LOADED, call, serve};

/// The requests that read the key 1, without their ends, and what each is answered where 1 has `$`.
const READS: [(&str, &str); 7] = [
    ("{:get, 1", "$"),
    ("{:fetch, 1", "{:ok, $}"),
    ("{:get_many, [1, :none]", "%{1 => $}"),
    ("{:scan, match: 1", "{[{1, $}], :done}"),
    ("{:member, 1", "true"),
    ("{:ttl, 1", "{:ok, :infinity}"),
    ("{:count", "1"),
];

/// The first of them show the value.
const SHOW_THE_VALUE: usize = 4;

fn read(begin: &str, consistency: &str) -> String {
    format!("{begin}, consistency: {consistency}}}")
}

/// A node that asks one member alone, and has its watch there.
#[track_caller]
fn serve_at(epmd: &Epmd, cluster: &EtcdCluster, member: usize, name: &str, args: &str) -> KvNode {
    let etcd = format!("--engine etcd --etcd {}", cluster.endpoint(member));
    let node = KvNode::start(epmd, name, &format!("{etcd} --store global:kv,local:{name} {args}"));
    node.wait_for_log(&[LOADED]);
    node
}

/// A member that does not lead.
fn follower(cluster: &EtcdCluster) -> usize {
    (cluster.leader() + 1) % 3
}

#[test]
fn a_linearizable_read_finds_at_once_what_another_node_was_answered() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", "--ordered"));
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    let newest = |begin: &str| call(&b, &read(begin, ":linearizable"));
    // Of each request, and of all that sets or takes a value.
    let reads: Vec<String> = READS[..SHOW_THE_VALUE].iter().map(|(begin, _)| newest(begin)).collect();
    let found = READS[..SHOW_THE_VALUE].iter().map(|(_, found)| found.replace('$', "n"));
    beam.check(
        &format!(
            "for n <- 1..100, uniq: true do
               :ok = {put}
               [{reads}] == [{found}] and match?({{:ok, ^n, _}}, {revision})
             end",
            put = call(&a, "{:put, 1, n}"),
            reads = reads.join(", "),
            found = found.collect::<Vec<_>>().join(", "),
            revision = newest("{:fetch_revision, 1"),
        ),
        "[true]",
    );
    beam.check(
        &format!(
            "for _ <- 1..50, uniq: true do
               :ok = {put}
               there = {{{member}, {count}, {ttl}}}
               :ok = {delete}
               {{there, {member}, {count}, {ttl}, {page}}}
             end",
            put = call(&a, "{:put, 1, 1}"),
            delete = call(&a, "{:delete, 1}"),
            member = newest("{:member, 1"),
            count = newest("{:count"),
            ttl = newest("{:ttl, 1"),
            page = newest("{:scan, from: 1"),
        ),
        "[{{true, 1, {:ok, :infinity}}, false, 0, :error, {[], :done}}]",
    );
    // Many at once, each of which comes behind its own write.
    beam.check(
        &format!(
            "1..32
             |> Enum.map(fn key -> Task.async(fn -> for n <- 1..20, uniq: true, do: {{{put}, {get} == n}} end) end)
             |> Enum.flat_map(&Task.await(&1, 60_000))
             |> Enum.uniq()",
            put = call(&a, "{:put, key, n}"),
            get = newest("{:get, key"),
        ),
        "[ok: true]",
    );
    // A value is one, whatever it looks like; a write of its own that waits is found too.
    beam.check(&call(&a, "{:put, 1, {:error, :unavailable}}"), ":ok");
    beam.check(&newest("{:fetch, 1"), "{:ok, {:error, :unavailable}}");
    let send = |request: &str| format!(":gen_server.send_request({{:b, :\"{}\"}}, {request})", b.name());
    beam.check(
        &format!(
            "sent = for n <- 1..50, do: {{{put}, {get}}}
             for {{{{put, get}}, n}} <- Enum.with_index(sent, 1), uniq: true do
               {{:reply, found}} = :gen_server.receive_response(get, 5_000)
               {{:gen_server.receive_response(put, 5_000), found >= n}}
             end",
            put = send("{:put, :own, n}"),
            get = send("{:get, :own, consistency: :linearizable}"),
        ),
        "[{{:reply, :ok}, true}]",
    );
}

#[test]
fn so_it_does_where_the_watch_of_the_node_is_held_up() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let held = follower(&cluster);
    let a = serve_at(&epmd, &cluster, cluster.leader(), "a", "");
    let b = serve_at(&epmd, &cluster, held, "b", "");
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&call(&a, "{:put, 1, :old}"), ":ok");
    beam.check(&call(&b, "{:get, 1, consistency: :linearizable}"), ":old");
    cluster.stop(held);
    beam.check(&call(&a, "{:put, 1, :new}"), ":ok");
    // Each waits: the node has what was there, and does not take it for what is there.
    let send = |begin: &str| {
        let request = read(begin, ":linearizable");
        format!(":gen_server.send_request({{:b, :\"{}\"}}, {request})", b.name())
    };
    let sent: Vec<String> = READS.iter().map(|(begin, _)| send(begin)).collect();
    beam.run(&format!("sent = [{}]", sent.join(", ")));
    for (begin, found) in &READS[..SHOW_THE_VALUE] {
        beam.check(&call(&b, &read(begin, ":session")), &found.replace('$', ":old"));
        beam.check(&call(&b, &format!("{begin}}}")), &found.replace('$', ":old"));
    }
    beam.check("for id <- sent, uniq: true, do: :gen_server.wait_response(id, 0)", "[:timeout]");
    cluster.go_on(held);
    let found: Vec<String> = READS.iter().map(|(_, found)| found.replace('$', ":new")).collect();
    beam.check(
        "for id <- sent, do: elem(:gen_server.receive_response(id, 10_000), 1)",
        &format!("[{}]", found.join(", ")),
    );
}

#[test]
fn a_node_whose_watch_hangs_at_one_member_learns_from_another_that_there_is_more() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let leader = cluster.leader();
    let a = serve_at(&epmd, &cluster, leader, "a", "");
    let b = serve(&epmd, &cluster, "b", "");
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    // Wherever its watch is of these two.
    for (round, held) in [(leader + 1) % 3, (leader + 2) % 3].into_iter().enumerate() {
        cluster.stop(held);
        beam.check(&call(&a, &format!("{{:put, 1, {round}}}")), ":ok");
        let newest = call(&b, "{:get, 1, consistency: :linearizable}");
        // Not told within 4 s that there is more it says so, and nothing else than the newest.
        beam.check(
            &format!(
                "Stream.repeatedly(fn -> {newest} end)
                 |> Stream.reject(&(&1 == {{:error, :unavailable}}))
                 |> Enum.take(1)"
            ),
            &format!("[{round}]"),
        );
        cluster.go_on(held);
    }
}

#[test]
fn without_etcd_nobody_knows_what_is_newest_and_each_read_says_so_in_time() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let node = serve(&epmd, &cluster, "a", "");
    beam.ping(node.name());
    beam.check(&call(&node, "{:put, 1, 7}"), ":ok");
    cluster.stop(0);
    let send = |begin: &str| {
        let request = read(begin, ":linearizable");
        format!(":gen_server.send_request({{:a, :\"{}\"}}, {request})", node.name())
    };
    let sent: Vec<String> = READS.iter().map(|(begin, _)| send(begin)).collect();
    let asked = Instant::now();
    beam.run(&format!("sent = [{}]", sent.join(", ")));
    for (begin, found) in READS {
        beam.check(&call(&node, &read(begin, ":session")), &found.replace('$', "7"));
    }
    beam.check(
        "for id <- sent, uniq: true, do: :gen_server.receive_response(id, 5_000)",
        "[reply: {:error, :unavailable}]",
    );
    // A call waits for 5 s.
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    beam.check(
        &format!("{}.not_done", call(&node, ":status")),
        &format!("%{{unavailable: {}}}", READS.len()),
    );
    cluster.go_on(0);
    beam.check_soon(&call(&node, "{:get, 1, consistency: :linearizable}"), "7");
}

#[test]
fn commands_read_what_is_newest() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(1));
    let person = Person::new(&epmd);
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", ""));
    let at = |node: &KvNode| node.name().to_owned();
    let (a, b) = (at(&a), at(&b));
    for round in 0..3 {
        let value = format!("{{{round}, \"x\"}}");
        assert_eq!(person.gets(&["put", "1", &value, "--node", &a, "--to", "local:a"]), ":ok\n");
        let gets = |words: &[&str]| {
            person.gets(&[words, &["--linearizable", "--node", &b, "--to", "local:b"]].concat())
        };
        assert_eq!(gets(&["get", "1"]), format!("{value}\n"));
        assert_eq!(gets(&["get", ":none"]), "nil\n");
        assert_eq!(gets(&["count"]), "1\n");
        assert_eq!(gets(&["scan"]), format!("{{1, {value}}}\n"));
        assert_eq!(gets(&["scan", "--keys", "--limit", "5"]), "1\n");
        assert_eq!(gets(&["export", "-"]), format!("{{1, {value}}}\n"));
    }
    let raw = ["get", "2", "--raw", "--linearizable", "--node", &b, "--to", "local:b"];
    assert_eq!(person.gets(&["put", "2", "\"bytes\"", "--node", &a, "--to", "local:a"]), ":ok\n");
    assert_eq!(person.gets(&raw), "bytes");
    cluster.stop(0);
    for words in [&["get", "1"][..], &["count"], &["scan"], &["export", "-"]] {
        let words = [words, &["--linearizable", "--node", &b, "--to", "local:b"]].concat();
        person.fails(&words, 5, &["the etcd that keeps the store does not answer", "try again"]);
    }
    cluster.go_on(0);
}

#[test]
fn a_node_has_a_default_which_each_read_may_say_otherwise() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let beam = BeamNode::start(&Otp::newest(), &epmd, "beam");
    let held = follower(&cluster);
    let a = serve_at(&epmd, &cluster, cluster.leader(), "a", "");
    let b = serve_at(&epmd, &cluster, held, "b", "--etcd-reads linearizable");
    [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    beam.check(&call(&a, "{:put, 1, :old}"), ":ok");
    beam.check(&call(&b, "{:get, 1}"), ":old");
    cluster.stop(held);
    beam.check(&call(&a, "{:put, 1, :new}"), ":ok");
    let send = |begin: &str| {
        // Without an option a count is a word.
        let request = if begin == "{:count" { ":count".to_owned() } else { format!("{begin}}}") };
        format!(":gen_server.send_request({{:b, :\"{}\"}}, {request})", b.name())
    };
    let sent: Vec<String> = READS.iter().map(|(begin, _)| send(begin)).collect();
    beam.run(&format!("sent = [{}]", sent.join(", ")));
    for (begin, found) in &READS[..SHOW_THE_VALUE] {
        beam.check(&call(&b, &read(begin, ":session")), &found.replace('$', ":old"));
    }
    beam.check("for id <- sent, uniq: true, do: :gen_server.wait_response(id, 0)", "[:timeout]");
    cluster.go_on(held);
    let found: Vec<String> = READS.iter().map(|(_, found)| found.replace('$', ":new")).collect();
    beam.check(
        "for id <- sent, do: elem(:gen_server.receive_response(id, 10_000), 1)",
        &format!("[{}]", found.join(", ")),
    );
}

/// What `session` promises, of one node: nothing is older than what was written or read there before, by whichever process and connection,
/// while another node writes too, and also where the node is started again.
#[test]
fn a_session_reads_nothing_older_than_what_was_written_or_read_at_its_node_before() {
    let (epmd, cluster) = (Epmd::start(), EtcdCluster::start(3));
    let [beam, other] = ["one", "two"].map(|name| BeamNode::start(&Otp::newest(), &epmd, name));
    let (a, b) = (serve(&epmd, &cluster, "a", ""), serve(&epmd, &cluster, "b", ""));
    // The number goes up, at either node.
    let bump = |node: &KvNode| call(node, "{:update_counter, :n, 1}");
    for beam in [&beam, &other] {
        [&a, &b].iter().for_each(|node| beam.ping(node.name()));
    }
    beam.check(&bump(&b), "1");
    b.kill(&epmd);
    beam.check(&bump(&a), "2");
    let b = serve(&epmd, &cluster, "b", "");
    [&beam, &other].iter().for_each(|beam| beam.ping(b.name()));
    // Before anything else is written: an older one has been read there.
    beam.check(&call(&b, "{:get, :n}"), "2");
    let reads = [
        call(&b, "{:get, :n}"),
        call(&b, "{:get, :n, consistency: :session}"),
        format!("Map.get({}, :n)", call(&b, "{:get_many, [:n]}")),
        format!("elem({}, 1)", call(&b, "{:fetch, :n}")),
        format!("with({{[{{:n, n}}], :done}} <- {}, do: n)", call(&b, "{:scan, match: :n}")),
        // By another connection.
        format!(
            ":erpc.call(:\"{}\", GenServer, :call, [{{:b, :\"{}\"}}, {{:get, :n}}])",
            other.name(),
            b.name()
        ),
    ]
    .map(|read| format!("fn -> {read} end"));
    beam.run(&format!("writer = Task.async(fn -> for _ <- 1..300, do: {} end)", bump(&a)));
    beam.run(&format!("reads = [{}]", reads.join(", ")));
    beam.check(
        &format!(
            "1..8
             |> Enum.map(fn _ -> Task.async(fn ->
               for n <- 1..60 do
                 seen = Enum.random(reads).()
                 wrote = if rem(n, 3) == 0, do: {}, else: seen
                 found = for _ <- 1..3, do: Enum.random(reads).()
                 [seen, wrote | found] == Enum.sort([seen, wrote | found])
               end
             end) end)
             |> Enum.flat_map(&Task.await(&1, 60_000))
             |> Enum.uniq()",
            bump(&b)
        ),
        "[true]",
    );
    beam.check("length(Task.await(writer, 60_000))", "300");
}
