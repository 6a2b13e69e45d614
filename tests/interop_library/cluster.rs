//! The cluster as a program sees it: names in `:global`, nodes that come and go, a mailbox without a server, calls of many.

#![allow(clippy::disallowed_methods, reason = "how long a call takes is measured here")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use kvnode::config::Limits;
use kvnode::etf::{Atom, OwnedTerm, atom};
use kvnode::node::erpc::ErpcError;
use kvnode::{
    CallError, Context, GlobalName, Mail, Never, Node, NodeEvent, NodeEvents, PeerDown, ReceiveError,
    Registration, ReplyTo, Restart, Server, ServerName, ServerRef, block_on, within,
};
use rustix::process::Signal;
use serde::Deserialize;

use crate::server::probe;
use crate::support::wait::PATIENCE;
use crate::support::{BeamNode, BeamOptions, Epmd, Otp, Running, at_host, on_every_otp};

/// What must come, and soon.
#[track_caller]
fn soon<T>(work: impl Future<Output = T>) -> T {
    block_on(within(PATIENCE, work)).expect("it comes")
}

/// Waits for an outcome, whatever was before.
#[track_caller]
fn becomes(name: &GlobalName, wanted: impl Fn(&Registration) -> bool) -> Registration {
    soon(async {
        let mut outcome = name.outcome();
        while !wanted(&outcome) {
            outcome = name.changed(&outcome).await;
        }
        outcome
    })
}

#[test]
fn the_outcome_of_a_global_name_is_told_as_it_changes() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let node = Running::start(&epmd, "rust");
        let inbox = node.mailbox();
        let name = inbox.process().register_global("worker").expect("no process here has it");
        assert_eq!((name.name(), name.pid()), ("worker", inbox.pid()));
        assert_eq!(name.outcome(), Registration::Pending, "no BEAM is connected");

        let beam = BeamNode::start(otp, &epmd, "beam");
        beam.run("pid = spawn(fn -> receive do :end -> :ok end end)");
        beam.check(":global.register_name(:worker, pid)", ":yes");
        beam.ping(node.name().as_str());
        let Registration::Taken { by } = soon(name.settled()) else { panic!("{name:?}") };
        assert_eq!(&*by.node, beam.name());
        beam.check("pid", &format!("#PID<0.{}.{}>", by.id, by.serial));
        // A second one is no process of this node's.
        let other = inbox.process().register_global("other").expect("no process here has it");
        assert_eq!(soon(other.settled()), Registration::Registered);
        assert_ne!(other.pid(), inbox.pid());
        beam.wait_for_global("other");

        beam.run("send(pid, :end)");
        becomes(&name, |outcome| *outcome == Registration::Registered);
        beam.check(&format!("node(:global.whereis_name(:worker)) == :\"{}\"", node.name()), "true");
        beam.kill(&epmd);
        assert_eq!(soon(name.changed(&Registration::Registered)), Registration::Pending);
        let mut names: Vec<_> =
            inbox.process().global_names().iter().map(|name| format!("{name:?}")).collect();
        names.sort();
        assert_eq!(names, ["other: Pending", "worker: Pending"]);
        let waits = async { name.changed(&Registration::Pending).await };
        drop(inbox);
        assert_eq!(soon(waits), Registration::Ended);
        assert_eq!(soon(name.changed(&Registration::Ended)), Registration::Ended);
    });
}

#[test]
fn of_two_nodes_that_want_a_name_one_has_it_and_the_other_is_told_which() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let nodes = ["one", "two"].map(|name| Running::start(&epmd, name));
    for node in &nodes {
        beam.ping(node.name().as_str());
    }
    let inboxes = [nodes[0].mailbox(), nodes[1].mailbox()];
    let names = [&inboxes[0], &inboxes[1]]
        .map(|inbox| inbox.process().register_global("leader").expect("no process here has it"));
    let outcomes = [soon(names[0].settled()), soon(names[1].settled())];
    let taken = match &outcomes {
        [Registration::Registered, Registration::Taken { by }] => {
            assert_eq!(by, inboxes[0].pid());
            1
        }
        [Registration::Taken { by }, Registration::Registered] => {
            assert_eq!(by, inboxes[1].pid());
            0
        }
        _ => panic!("{outcomes:?}"),
    };
    // The holder ends, and the other is told that it has the name.
    let [one, two] = inboxes;
    let (ends, kept) = if taken == 0 { (two, one) } else { (one, two) };
    drop(ends);
    becomes(&names[taken], |outcome| *outcome == Registration::Registered);
    assert_eq!(names[1 - taken].outcome(), Registration::Ended);
    assert!(kept.process().is_alive());
}

#[test]
fn the_names_of_a_supervised_process_have_outcomes_too() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    beam.ping(node.name().as_str());
    let names = [ServerName::global("probe"), ServerName::local("probe")];
    let start = |node: &Arc<Node>| probe(node).process;
    let first = node.supervise(Restart::Permanent, names, start).expect("the names are free");
    let [name] = &first.global_names()[..] else { panic!("it has one") };
    assert_eq!(soon(name.settled()), Registration::Registered);
    first.kill();
    assert_eq!(soon(name.changed(&Registration::Registered)), Registration::Ended);
    let again =
        node.process_at(&node.whereis_local("probe").expect("it was started again")).expect("it lives");
    let [name] = &again.global_names()[..] else { panic!("it has one") };
    becomes(name, |outcome| *outcome == Registration::Registered);
}

/// The next event, as the name and what became of it.
#[track_caller]
fn next(events: &mut NodeEvents) -> (String, Option<PeerDown>) {
    match soon(events.next_event()) {
        Some(NodeEvent::Up(node)) => (node.name.to_string(), None),
        Some(NodeEvent::Down { node, reason }) => (node.name.to_string(), Some(reason)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nodes_that_come_and_go_are_told_in_order_with_the_reason() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let node = Running::start_as(&epmd, Node::builder("rust").net_ticktime_secs(4));
        let mut events = node.events();
        let rust = node.name().as_str();
        // A handshake that fails is no event: what comes first is another node's.
        let stranger = BeamNode::start(otp, &epmd, BeamOptions::new("stranger").cookie("other"));
        stranger.check(&format!("Node.connect(:\"{rust}\")"), "false");
        let options = BeamOptions::new("hidden").hidden().erl("-kernel net_ticktime 4");
        let hidden = BeamNode::start(otp, &epmd, options);
        for _ in 0..10 {
            hidden.ping(rust);
            let Some(NodeEvent::Up(up)) = soon(events.next_event()) else { panic!("it is up") };
            assert_eq!(&*up.name, hidden.name());
            assert!(up.is_hidden(), "{up:?}");
            assert!(node.is_connected(hidden.name()));
            hidden.check(&format!("Node.disconnect(:\"{rust}\")"), "true");
            let Some(NodeEvent::Down { node: down, reason }) = soon(events.next_event()) else {
                panic!("it is down")
            };
            assert_eq!((down, reason), (up, PeerDown::Closed));
        }
        hidden.ping(rust);
        assert_eq!(next(&mut events), (hidden.name().to_owned(), None));
        hidden.signal(Signal::STOP);
        assert_eq!(next(&mut events), (hidden.name().to_owned(), Some(PeerDown::NetTickTimeout)));
        // What waits is told when the node has ended, and then that nothing comes.
        let beam = BeamNode::start(otp, &epmd, BeamOptions::new("beam").erl("-kernel net_ticktime 4"));
        beam.ping(rust);
        block_on(node.stop());
        let (up, down) = (next(&mut events), next(&mut events));
        assert_eq!(up, (beam.name().to_owned(), None));
        assert_eq!(down, (beam.name().to_owned(), Some(PeerDown::Shutdown)));
        assert_eq!(soon(events.next_event()), None);
        assert_eq!(soon(events.next_event()), None);
    });
}

#[test]
fn a_node_that_is_killed_and_started_again_goes_before_it_comes() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let mut events = node.events();
    let mut creations = Vec::new();
    for _ in 0..3 {
        let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
        beam.ping(node.name().as_str());
        let Some(NodeEvent::Up(up)) = soon(events.next_event()) else { panic!("it is up") };
        assert!(!up.is_hidden());
        creations.push(up.creation);
        beam.kill(&epmd);
        let Some(NodeEvent::Down { node, .. }) = soon(events.next_event()) else { panic!("it is down") };
        assert_eq!(node, up);
    }
    creations.dedup();
    assert_eq!(creations.len(), 3, "each is another life");
}

/// Tells which nodes came and went.
#[derive(Default)]
struct Nodes(Vec<(Atom, String)>);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Seen,
}

#[derive(Deserialize)]
enum Info {
    #[serde(skip)]
    Node(NodeEvent),
}

impl Server for Nodes {
    type Call = Call;
    type Cast = Never;
    type Info = Info;

    async fn init(&mut self, cx: &mut Context<Self>) {
        cx.watch_nodes(Info::Node);
    }

    async fn handle_call(&mut self, Call::Seen: Call, from: ReplyTo, _cx: &mut Context<Self>) {
        from.reply(&self.0);
    }

    async fn handle_info(&mut self, Info::Node(event): Info, _cx: &mut Context<Self>) {
        match event {
            NodeEvent::Up(node) => self.0.push((atom("up"), node.name.to_string())),
            NodeEvent::Down { node, .. } => self.0.push((atom("down"), node.name.to_string())),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_server_is_told_of_nodes_as_of_its_own_messages() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let nodes = node.serve(Nodes::default());
    nodes.register("nodes").expect("the name is free");
    // By now it listens: a call is answered behind its `init`.
    let seen: Vec<(Atom, String)> =
        soon(node.call(&ServerRef::local("nodes"), &atom("seen"), PATIENCE)).expect("an answer");
    assert_eq!(seen, []);
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let nodes = format!("GenServer.call({{:nodes, :\"{}\"}}, :seen)", node.name());
    let [up, down] = ["up", "down"].map(|what| format!("{what}: \"{}\"", beam.name()));
    beam.ping(node.name().as_str());
    beam.check_soon(&nodes, &format!("[{up}]"));
    beam.run(&format!("Node.disconnect(:\"{}\")", node.name()));
    beam.check_soon(&nodes, &format!("[{up}, {down}, {up}]"));
}

#[test]
fn a_mailbox_is_a_process_that_the_program_reads() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let mut inbox = node.mailbox();
        inbox.process().register("main").expect("the name is free");
        beam.ping(node.name().as_str());
        beam.run(&format!("main = {{:main, :\"{}\"}}", node.name()));
        let call = |request: &str| {
            beam.spawn(&format!("GenServer.call({{:main, :\"{}\"}}, {request}, 30_000)", node.name()))
        };
        let question = call("{:double, 4}");
        let Some(Mail::Call { request, from }) = soon(inbox.next()) else { panic!("a call comes") };
        let (what, number): (Atom, i64) = request.to().expect("it is what was asked");
        assert_eq!((what.as_str(), &*from.caller().node), ("double", beam.name()));
        from.reply(&(number * 2));
        assert_eq!(question.value(), "8");

        // What is passed over is kept, in its order.
        beam.run("GenServer.cast(main, :first); send(main, {:number, 1}); send(main, :odd)");
        beam.run("send(main, {:number, 2}); GenServer.cast(main, :second)");
        let number = |(name, number): (Atom, i64)| {
            assert_eq!(name.as_str(), "number");
            number
        };
        assert_eq!(soon(inbox.receive()).map(number), Ok(1));
        let Err(ReceiveError::Unreadable { message, error }) = soon(inbox.receive::<(Atom, i64)>()) else {
            panic!("it is none")
        };
        assert_eq!(message, OwnedTerm::atom("odd"));
        assert!(error.to_string().contains(":odd"), "{error}");
        assert_eq!(soon(inbox.receive()).map(number), Ok(2));
        let second =
            |mail: &Mail| matches!(mail, Mail::Cast(request) if *request == OwnedTerm::atom("second"));
        soon(inbox.next_where(second)).expect("it comes");
        beam.run("send(main, :third)");
        for expected in ["Cast(:first)", "Message(:third)"] {
            assert_eq!(soon(inbox.next()).map(|mail| format!("{mail:?}")).as_deref(), Some(expected));
        }

        // It monitors, and is monitored.
        beam.run("Process.register(spawn(fn -> receive do reason -> exit(reason) end end), :named)");
        let named = ServerRef::remote("named", beam.name());
        let monitor = soon(inbox.monitor(&named)).expect("it is set");
        let unheard = soon(inbox.monitor(&named)).expect("it is set");
        assert!(inbox.demonitor(unheard) && !inbox.demonitor(unheard));
        soon(inbox.client().send_as(&named, &atom("done"))).expect("it is sent");
        let Some(Mail::Down(down)) = soon(inbox.next()) else { panic!("it ends") };
        assert_eq!((down.monitor, &down.process, down.reason), (monitor, &named, OwnedTerm::atom("done")));
        soon(inbox.monitor(&ServerRef::local("nobody"))).expect("it is set");
        let Some(Mail::Down(down)) = soon(inbox.next()) else { panic!("there is none") };
        assert_eq!(down.reason, OwnedTerm::atom("noproc"));
        // It is looked into while it waits for what comes.
        let looks = "main = {:main, :\"NODE\"}; state = :sys.get_state(main); send(main, :looked); state";
        let state = beam.spawn(&looks.replace("NODE", node.name().as_str()));
        assert_eq!(soon(inbox.receive()), Ok(atom("looked")));
        assert_eq!(state.value(), "nil");
        beam.run("ref = Process.monitor(main); send(main, :monitored)");
        assert_eq!(soon(inbox.receive()), Ok(atom("monitored")));
        // Dropped, it ends, and so do the calls to it.
        let call = call(":late");
        let Some(Mail::Call { from, .. }) = soon(inbox.next()) else { panic!("a call comes") };
        drop(inbox);
        drop(from);
        let error = call.outcome().expect_err("it has no answer");
        assert!(error.exit_reason().contains(":normal"), "{error}");
        beam.check(
            "receive do {:DOWN, ^ref, :process, _, reason} -> reason after 20_000 -> :none end",
            ":normal",
        );
        assert_eq!(node.whereis_local("main"), None);
    });
}

#[test]
fn a_mailbox_ends_where_it_is_stopped_killed_or_its_node_ends() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    let mut stopped = node.mailbox();
    stopped.process().register("main").expect("the name is free");
    beam.ping(node.name().as_str());
    let stops = beam.spawn(&format!("GenServer.stop({{:main, :\"{}\"}})", node.name()));
    assert!(soon(stopped.next()).is_none());
    assert_eq!(stops.value(), ":ok");
    assert_eq!(soon(stopped.receive::<i64>()), Err(ReceiveError::Ended));
    let mut killed = node.mailbox();
    killed.process().kill();
    assert!(soon(killed.next()).is_none());
    // Nobody looks into this one, and the node does not wait for it.
    let mut left = node.mailbox();
    let since = Instant::now();
    block_on(node.stop());
    assert!(since.elapsed() < Limits::default().shutdown_duration_max, "{:?}", since.elapsed());
    assert!(soon(left.next()).is_none());
}

#[test]
fn what_a_mailbox_passes_over_is_bounded() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let limits = Limits::default().with_mailbox_messages_max(10);
    let node = Running::start_with(&epmd, "rust", limits);
    let mut inbox = node.mailbox();
    inbox.process().register("main").expect("the name is free");
    beam.ping(node.name().as_str());
    beam.run(&format!("for n <- 1..10, do: send({{:main, :\"{}\"}}, n)", node.name()));
    let nothing = soon(inbox.next_where(|_| false));
    assert_eq!(nothing.err(), Some(ReceiveError::Full));
    for expected in 1..=10 {
        assert_eq!(soon(inbox.receive()), Ok(expected));
    }
    beam.run(&format!("send({{:main, :\"{}\"}}, 11)", node.name()));
    let eleven = |mail: &Mail| matches!(mail, Mail::Message(number) if number.to() == Ok(11));
    assert!(soon(inbox.next_where(eleven)).is_ok());
}

/// Two BEAMs, each with a server `num` that has a number, and a node that is connected to them.
fn two_numbers(otp: &Otp, epmd: &Epmd) -> ([BeamNode; 2], Running) {
    let node = Running::start(epmd, "rust");
    let beams = [("one", 1), ("two", 2)].map(|(name, number)| {
        let beam = BeamNode::start(otp, epmd, name);
        beam.run(
            "defmodule Num do
               use GenServer
               def init(n), do: {:ok, n}
               def handle_call(:value, _, n), do: {:reply, n, n}
               def handle_cast({:add, m}, n), do: {:noreply, n + m}
             end",
        );
        beam.run(&format!("{{:ok, _}} = GenServer.start(Num, {number}, name: :num)"));
        beam.ping(node.name().as_str());
        beam
    });
    (beams, node)
}

#[test]
fn the_servers_of_one_name_are_called_and_cast_to_at_once() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let (beams, node) = two_numbers(otp, &epmd);
        let client = node.client();
        let dead = at_host("dead");
        let nodes = [beams[0].name(), &dead, beams[1].name()];
        let values = |limit| {
            let called = client.multi_call::<i64, _, _>(&nodes, "num", &atom("value"), limit);
            let rows = soon(called);
            assert!(rows.iter().map(|(node, _)| &**node).eq(nodes), "{rows:?}");
            rows.into_iter().map(|(_, value)| value).collect::<Vec<_>>()
        };
        let no_dead = Err(CallError::NodeDown(dead.as_str().into()));
        assert_eq!(values(PATIENCE), [Ok(1), no_dead.clone(), Ok(2)]);
        let cast = soon(client.abcast(&nodes, "num", &(atom("add"), 10)));
        let cast: Vec<_> = cast.into_iter().map(|(_, sent)| sent).collect();
        assert_eq!(cast, [Ok(()), no_dead.clone().map(drop), Ok(())]);
        assert_eq!(values(PATIENCE), [Ok(11), no_dead.clone(), Ok(12)]);
        // One that does not answer takes the time-out, and nobody else's answer.
        beams[0].check(":sys.suspend(:num)", ":ok");
        let since = Instant::now();
        let limit = Duration::from_secs(2);
        assert_eq!(values(limit), [Err(CallError::Timeout), no_dead, Ok(12)]);
        assert!(since.elapsed() < limit * 2, "{:?}", since.elapsed());
        beams[0].check(":sys.resume(:num)", ":ok");
        let all = node.connected();
        let nobody = soon(client.multi_call::<i64, _, _>(&all, "nobody", &atom("value"), PATIENCE));
        assert_eq!(nobody.len(), 2);
        assert!(nobody.iter().all(|(_, value)| *value == Err(CallError::NoProcess)), "{nobody:?}");
        let unread = soon(client.multi_call::<Atom, _, _>(&all, "num", &atom("value"), PATIENCE));
        assert!(unread.iter().all(|(_, value)| matches!(value, Err(CallError::Unreadable(_)))), "{unread:?}");
        let unwritten = soon(client.multi_call::<i64, _, _>(&all, "num", &f64::NAN, PATIENCE));
        assert!(
            unwritten.iter().all(|(_, value)| matches!(value, Err(CallError::Unwritable(_)))),
            "{unwritten:?}"
        );
    });
}

#[test]
fn functions_are_called_with_values_of_rust() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let (client, beam) = (node.client(), beam.name().to_owned());
        let called = |function, arguments: &OwnedTerm| {
            soon(client.erpc_as::<OwnedTerm, _>(&beam, function, arguments, PATIENCE))
        };
        let sum = soon(client.erpc_as(&beam, ("lists", "sum"), &(vec![1, 2, 3],), PATIENCE));
        assert_eq!(sum, Ok(6));
        let name = soon(client.erpc_as::<Atom, _>(&beam, ("erlang", "node"), &(), PATIENCE));
        assert_eq!(name.as_ref().map(Atom::as_str), Ok(&*beam));
        let duplicate = ("Elixir.String", "duplicate");
        let laugh = soon(client.erpc_as::<String, _>(&beam, duplicate, &("ha", 3), Duration::MAX));
        assert_eq!(laugh.as_deref(), Ok("hahaha"));
        // A list has the arguments too, and what is none of both is refused here.
        let list = OwnedTerm::from_value(&vec![7, 3]).expect("a term");
        assert_eq!(called(("erlang", "max"), &list).map(|max| max.to()), Ok(Ok(7)));
        let Err(ErpcError::Unwritable(error)) = called(("erlang", "max"), &OwnedTerm::atom("x")) else {
            panic!("it is refused")
        };
        assert!(error.to_string().contains("a list of arguments, met :x"), "{error}");
        let unread = soon(client.erpc_as::<Atom, _>(&beam, ("lists", "sum"), &(vec![1],), PATIENCE));
        assert!(matches!(unread, Err(ErpcError::Unreadable(_))), "{unread:?}");
        let undefined = soon(client.erpc_as::<Atom, _>(&beam, ("lists", "no_such"), &(1,), PATIENCE));
        let Err(ErpcError::Error { reason, .. }) = undefined else { panic!("{undefined:?}") };
        assert_eq!(reason, OwnedTerm::atom("undef"));
        let late = soon(client.erpc_as::<Atom, _>(
            &beam,
            ("timer", "sleep"),
            &(60_000,),
            Duration::from_millis(200),
        ));
        assert_eq!(late, Err(ErpcError::Timeout));
        let nobody = soon(client.erpc_as::<Atom, _>(&at_host("dead"), ("erlang", "node"), &(), PATIENCE));
        assert_eq!(nobody, Err(ErpcError::NoConnection));
    });
}

#[test]
fn what_is_not_to_wait_for_room_is_told_that_there_is_none() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    beam.check("Process.register(self(), :heard)", "true");
    beam.ping(node.name().as_str());
    let (client, heard) = (node.client(), ServerRef::remote("heard", beam.name()));
    beam.signal(Signal::STOP);
    let large = OwnedTerm::write(|w| _ = w.binary(&vec![7; 1 << 20])).expect("a term");
    // What the two sockets take has no bound that is known here.
    let full = |sent: Result<(), CallError>| sent.err();
    let error = (0..1000).find_map(|_| full(soon(client.try_send_as(&heard, &large))));
    let busy = CallError::Busy { node: beam.name().into(), waited: Duration::ZERO };
    assert_eq!(error.as_ref(), Some(&busy));
    assert_eq!(full(soon(client.try_cast_as(&heard, &atom("more")))), Some(busy.clone()));
    let text = format!("so much waits for {} that there is no room for more", beam.name());
    assert_eq!(busy.to_string(), text);
    beam.signal(Signal::CONT);
    // What was taken arrives, and there is room again.
    soon(client.cast_as(&heard, &atom("last"))).expect("it is sent");
    beam.check("receive do {:\"$gen_cast\", :last} -> :ok after 30_000 -> :nothing end", ":ok");
}
