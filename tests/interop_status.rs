//! What a node says of itself, against what BEAMs have done to it.

#![cfg(feature = "program")]

mod support;

use support::http::{address, get};
use support::{BeamNode, Epmd, KvNode, Otp, on_every_otp, wait_until};

/// `status` of a node, as an Elixir expression.
fn status(node: &KvNode) -> String {
    format!("GenServer.call({{:kvnode, :\"{}\"}}, :status)", node.name())
}

#[test]
fn a_node_counts_what_it_is_asked_for_and_knows_who_asks() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let node = KvNode::start(
            &epmd,
            "counting",
            "--store global:counting,local:Two --global other --connect nobody@localhost",
        );
        let beam = BeamNode::start(otp, &epmd, "asking");
        beam.ping(node.name());
        beam.run("for n <- 1..10, do: GenServer.call({:global, :counting}, {:put, n, \"12345678\"})");
        beam.run("for n <- 1..7, do: GenServer.call({:global, :counting}, {:get, n})");
        beam.run("GenServer.call({:global, :counting}, {:delete, 1})");
        beam.run("catch_exit = fn f -> try do f.() catch :exit, _ -> :exit end end; catch_exit.(fn -> GenServer.call({:global, :counting}, :what) end)");
        beam.run(&format!("s = {}", status(&node)));
        beam.check("s.node", &format!("{:?}", node.name()));
        beam.check("s.ready", "true");
        beam.check("s.missing", "[\"nobody@localhost\"]");
        beam.check(
            "[first, second] = s.stores; {first.names, second.names}",
            "{[\"global:counting\", \"local:Elixir.Two\"], [\"global:other\"]}",
        );
        beam.check("{first.up, first.entries, first.bytes > 9 * 8}", "{true, 9, true}");
        beam.check(
            "Map.to_list(first.requests) |> Enum.sort()",
            "[at_slave: 0, delete: 1, get: 7, other: 0, put: 10, refused: 1, replicated: 0]",
        );
        beam.check(
            "Enum.map(first.not_done, &Enum.sort(Map.to_list(&1)))",
            "[[count: 1, kind: \"refused\", reason: \"bad_call\"]]",
        );
        beam.check(
            "own = GenServer.call({:global, :counting}, :status); {own.watches, own.deadlines, own.expired, own.not_done}",
            "{0, 0, 0, %{bad_call: 1}}",
        );
        beam.check("second.requests.put + second.entries", "0");
        beam.check(
            "[peer] = s.peers; {peer.name, peer.hidden, peer.received_bytes > 1000, peer.sent_bytes > 500}",
            &format!("{{{:?}, false, true, true}}", beam.name()),
        );
        beam.check("peer.queued_bytes + peer.dropped", "0");
        // Each of the calls was answered at once: all are measured.
        beam.check("Enum.sum(s.answers) >= 18 and s.answers_nanos > 18 * 100", "true");
        beam.check("Enum.any?(s.log, &(&1.level == \"WARN\" and &1.text =~ \"nobody@localhost\"))", "true");
        // What it does not know ends the caller's call, and nothing else.
        beam.check(
            &format!(
                "try do GenServer.call({{:kvnode, :\"{}\"}}, :what) catch :exit, {{reason, _}} -> reason end",
                node.name()
            ),
            "{:bad_call, :what}",
        );
        beam.check(&format!("{}.node", status(&node)), &format!("{:?}", node.name()));
    });
}

#[test]
fn a_store_that_is_started_again_goes_on_counting_and_a_slave_names_its_primary() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let node = KvNode::start(&epmd, "again", "");
    let beam = BeamNode::start(&otp, &epmd, "master");
    beam.ping(node.name());
    beam.run("GenServer.call({:global, :again}, {:put, 1, 2})");
    beam.run("Process.exit(:global.whereis_name(:again), :kill)");
    beam.check_soon(
        "try do GenServer.call({:global, :again}, {:put, 1, 2}) catch :exit, _ -> :not_yet end",
        ":ok",
    );
    beam.check(&format!("hd({}.stores).requests.put", status(&node)), "2");
    beam.run("{:ok, _} = KeyValueStoreDistributed.start_link(:master)");
    beam.run("KeyValueStoreDistributed.add_slave(:again)");
    beam.run("for n <- 1..5, do: KeyValueStoreDistributed.put(n, n)");
    beam.check_soon(&format!("hd({}.stores).requests.replicated", status(&node)), "5");
    beam.check(&format!("hd({}.stores).primary", status(&node)), &format!("{:?}", beam.name()));
}

#[test]
fn a_primary_says_where_its_slaves_are_and_how_they_stand() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let node = KvNode::start(&epmd, "primary", "--slave global:slave --slave global:absent");
    let beam = BeamNode::start(&otp, &epmd, "theirs");
    beam.run("{:ok, slave} = KeyValueStoreDistributed.start_link(:slave)");
    beam.ping(node.name());
    beam.run("for n <- 1..5, do: GenServer.call({:global, :primary}, {:put, n, n})");
    let slaves =
        format!("hd({}.stores).slaves |> Enum.map(&{{&1.name, &1.node, &1.state, &1.lag}})", status(&node));
    beam.check_soon(
        &slaves,
        &format!("[{{\"{{:global, :slave}}\", {:?}, \"in_step\", 0}}, {{\"{{:global, :absent}}\", nil, \"seeking\", nil}}]", beam.name()),
    );
    beam.run("Process.unlink(slave); Process.exit(slave, :kill)");
    beam.check_soon(&format!("hd({slaves}) |> elem(2)"), "\"gone\"");
}

#[test]
fn a_promoted_store_has_no_primary_and_the_former_one_has() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let old = KvNode::start(&epmd, "old", "");
    let new = KvNode::start(&epmd, "new", &format!("--connect {}", old.name()));
    let beam = BeamNode::start(&otp, &epmd, "theirs");
    beam.ping(old.name());
    beam.ping(new.name());
    let primary = |node: &KvNode| format!("hd({}.stores).primary", status(node));
    beam.wait_for_global("new");
    beam.check("GenServer.call({:global, :old}, {:add_slave, {:global, :new}})", ":ok");
    beam.check("GenServer.call({:global, :old}, {:put, 1, 2})", ":ok");
    beam.check_soon(&primary(&new), &format!("{:?}", old.name()));
    beam.check_soon("GenServer.call({:global, :new}, {:promote})", ":ok");
    beam.check_soon(&primary(&old), &format!("{:?}", new.name()));
    beam.check(&primary(&new), "nil");
}

#[test]
fn a_lost_primary_is_shown_as_lost() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let slave = KvNode::start(&epmd, "slave", "--http 0");
    let primary =
        KvNode::start(&epmd, "primary", &format!("--slave global:slave --connect {}", slave.name()));
    let beam = BeamNode::start(&otp, &epmd, "theirs");
    beam.ping(slave.name());
    beam.ping(primary.name());
    beam.check("GenServer.call({:global, :primary}, {:put, 1, 2, confirm: 1})", ":ok");
    let standing = format!("hd({}.stores).primary_standing", status(&slave));
    beam.check_soon(&format!("{{{standing}.state, {standing}.lag}}"), "{\"following\", 0}");
    let at = address(&slave);
    let labels = format!("{{store=\"global:slave\",primary=\"{}\"}}", primary.name());
    let said = |value: u8| format!("kvnode_store_primary_up{labels} {value}\n");
    let metrics = get(at, "/metrics").body;
    assert!(metrics.contains(&said(1)), "{metrics}");
    assert!(metrics.contains(&format!("kvnode_store_primary_lag_writes{labels} 0\n")), "{metrics}");
    let name = primary.name().to_owned();
    primary.kill(&epmd);
    beam.check_soon(&format!("{standing}.state"), "\"gone\"");
    beam.check(&format!("hd({}.stores).primary", status(&slave)), &format!("{name:?}"));
    wait_until("the alarm can be raised", || get(at, "/metrics").body.contains(&said(0)));
}

#[test]
fn who_has_sent_a_replicated_write_and_gone_is_no_primary() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let node = KvNode::start(&epmd, "tried", "");
    let (stays, goes) = (BeamNode::start(&otp, &epmd, "stays"), BeamNode::start(&otp, &epmd, "goes"));
    stays.ping(node.name());
    goes.ping(node.name());
    goes.run("GenServer.cast({:global, :tried}, {:replicate_put, 1, 2})");
    let primary = format!("hd({}.stores).primary", status(&node));
    stays.check_soon(&primary, &format!("{:?}", goes.name()));
    stays.check(&format!("hd({}.stores).primary_standing.state", status(&node)), "\"writing\"");
    goes.kill(&epmd);
    stays.check_soon(&primary, "nil");
}

#[test]
fn the_log_says_why_a_node_is_not_let_in() {
    let (otp, epmd) = (Otp::newest(), Epmd::start());
    let node = KvNode::start(&epmd, "closed", "--allow friend@*");
    let beam = BeamNode::start(&otp, &epmd, "stranger");
    beam.check(&format!("Node.connect(:\"{}\")", node.name()), "false");
    node.wait_for_log(&[beam.name(), "was refused: it is not among --allow; "]);
}
