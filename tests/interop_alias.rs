//! Answers to process aliases: by the control message that the peer takes, from the first that knew aliases to those that
//! know ALIAS_SEND no more.

#![cfg(feature = "program")]

mod support;

use kvnode::distribution::control::op;
use kvnode::distribution::{DistributionFlags, ServerRef};
use kvnode::etf::{Atom, Cursor, Reference, atom};
use kvnode::{Context, Never, ReplyTo, Server, block_on};
use serde::Deserialize;
use support::wait::PATIENCE;
use support::{BeamNode, Epmd, Heard, KvNode, Running, Scripted, Tap, on_every_otp, term, term_with};

/// Flags of peers, and the operation by which each is answered.
const PEERS: [(DistributionFlags, u64); 4] = [
    // As OTP 30 may be: it removes what ALIAS stands for.
    (DistributionFlags::OFFERED.difference(DistributionFlags::ALIAS), op::ALTACT_SIG_SEND),
    (DistributionFlags::OFFERED, op::ALTACT_SIG_SEND),
    (OTP_27, op::ALIAS_SEND),
    (OTP_27.difference(DistributionFlags::ALIAS), op::SEND),
];

const OTP_27: DistributionFlags = DistributionFlags::OFFERED.difference(DistributionFlags::ALTACT_SIG);

/// Answers at once, or when it is told to.
#[derive(Default)]
struct Patient {
    waiting: Vec<ReplyTo>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Now,
    Later,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cast {
    Answer,
}

impl Server for Patient {
    type Call = Call;
    type Cast = Cast;
    type Info = Never;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, _cx: &mut Context<Self>) {
        match call {
            Call::Now => from.reply(&atom("ok")),
            Call::Later => self.waiting.push(from),
        }
    }

    async fn handle_cast(&mut self, _answer: Cast, _cx: &mut Context<Self>) {
        self.waiting.drain(..).for_each(|from| from.reply(&atom("ok")));
    }
}

/// A peer that calls as a BEAM does, and closes the connection at every control message that it does not take.
struct Strict {
    peer: Scripted,
    flags: DistributionFlags,
    calls: u32,
}

impl Strict {
    fn alias(&mut self) -> Reference {
        self.calls += 1;
        self.peer.reference(self.calls)
    }

    /// Sends a call whose tag has an alias; gives the tag.
    fn send_call(&mut self, to: &str, request: &str) -> Vec<u8> {
        let alias = self.alias();
        let tag = term_with("[:alias | $1]", &[&alias]);
        let call = self.peer.term("{:\"$gen_call\", {#PID<0.90.1>, $1}, $2}", &[&tag, &request]);
        let frame = self.peer.reg_send(to, &call);
        assert!(self.peer.send(&frame));
        tag
    }

    /// Waits for the answer `{Tag, Answer}`; the operation that it came by, and what it is.
    fn answer(&mut self, tag: &[u8]) -> (u64, Vec<u8>) {
        let expected = [&[104, 2], tag].concat();
        loop {
            let (operation, payload) = self.next();
            if let Some(answer) = payload.strip_prefix(&expected[..]) {
                return (operation, answer.to_vec());
            }
        }
    }

    fn next(&mut self) -> (u64, Vec<u8>) {
        let frame = self.peer.next_frame().expect("the connection is open");
        let mut cursor = Cursor::new(&frame);
        let arity = cursor.tuple().expect("a control message");
        let operation = cursor.unsigned().expect("an operation");
        let taken = match operation {
            op::ALIAS_SEND | op::ALIAS_SEND_TT => self.flags.contains(DistributionFlags::ALIAS),
            op::ALTACT_SIG_SEND => {
                assert_eq!(arity, 4, "no more than the peer needs");
                self.flags.contains(DistributionFlags::ALTACT_SIG)
            }
            _ => true,
        };
        assert!(taken, "a control message that the peer does not take: {operation}");
        (1..arity).for_each(|_| _ = cursor.term().expect("an element"));
        (operation, cursor.rest().to_vec())
    }

    /// Waits for a call of the node's; answers it as its tag and the flags want it.
    fn serve(&mut self, answer: &str) {
        let (from_tag, tag) = loop {
            let (_, payload) = self.next();
            let mut cursor = Cursor::new(&payload);
            if cursor.tuple() == Ok(3) && cursor.atom().is_ok_and(|kind| kind == "$gen_call") {
                assert_eq!(cursor.tuple(), Ok(2));
                let pid = cursor.term().expect("the caller").bytes().to_vec();
                break (pid, cursor.term().expect("the tag").bytes().to_vec());
            }
        };
        let (peer, flags) = (&self.peer, self.flags);
        let head = [&[108, 0, 0, 0, 1], &term(":alias")[..]].concat();
        let alias = tag.strip_prefix(&head[..]);
        assert_eq!(alias.is_some(), flags.knows_aliases(), "a call asks for an alias where they are known");
        let control = match alias {
            Some(alias) if flags.contains(DistributionFlags::ALTACT_SIG) => {
                peer.control(op::ALTACT_SIG_SEND, "4, #PID<0.90.1>, $1", &[&alias])
            }
            Some(alias) => peer.control(op::ALIAS_SEND, "#PID<0.90.1>, $1", &[&alias]),
            None => peer.control(op::SEND, ":\"\", $1", &[&from_tag]),
        };
        let payload = term_with("{$1, $2}", &[&tag, &answer]);
        let frame = self.peer.frame(&control, &payload);
        assert!(self.peer.send(&frame));
    }
}

#[test]
fn a_peer_is_answered_by_what_it_takes_and_by_nothing_else() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "alias");
    node.serve(Patient::default()).register("patient").expect("the name is free");
    let port = epmd.port_of("alias").expect("it is registered");
    let ok = term(":ok");
    for (number, (flags, operation)) in PEERS.into_iter().enumerate() {
        let name = format!("peer{number}@h");
        let peer = Scripted::offering(flags, port, &name, node.name().as_str());
        let mut peer = Strict { peer, flags, calls: 0 };
        // By a server with a mailbox, at once and later, and by one that answers where calls come in.
        let now = peer.send_call("patient", ":now");
        assert_eq!(peer.answer(&now), (operation, ok.clone()), "{flags}");
        let later = [(); 2].map(|()| peer.send_call("patient", ":later"));
        let cast = peer.peer.reg_send("patient", &term("{:\"$gen_cast\", :answer}"));
        assert!(peer.peer.send(&cast));
        for tag in later {
            assert_eq!(peer.answer(&tag), (operation, ok.clone()), "{flags}");
        }
        let ping = peer.send_call("net_kernel", &format!("{{:is_auth, :{name}}}"));
        assert_eq!(peer.answer(&ping), (operation, term(":yes")), "{flags}");
        // A call of ours to it.
        let to = ServerRef::Remote { name: "server".into(), node: name.as_str().into() };
        std::thread::scope(|scope| {
            let call = scope.spawn(|| block_on(node.call::<Atom, _>(&to, &atom("hello"), PATIENCE)));
            peer.serve(":welcome");
            let answer = call.join().expect("nothing panics").expect("an answer");
            assert_eq!(answer, atom("welcome"), "{flags}");
        });
        // It is still connected, and served.
        let now = peer.send_call("patient", ":now");
        assert_eq!(peer.answer(&now), (operation, ok.clone()), "{flags}");
    }
}

/// Signals to aliases that one side sent: by ALTACT_SIG_SEND, by ALIAS_SEND.
fn to_aliases(heard: &[Heard], by_server: bool) -> (usize, usize) {
    let count =
        |is: &dyn Fn(&Heard) -> bool| heard.iter().filter(|it| it.by_server == by_server && is(it)).count();
    let has_flag = |it: &Heard| it.element(1).as_unsigned().is_some_and(|flags| flags & 4 != 0);
    (
        count(&|it| it.operation() == op::ALTACT_SIG_SEND && has_flag(it)),
        count(&|it| matches!(it.operation(), op::ALIAS_SEND | op::ALIAS_SEND_TT)),
    )
}

#[test]
fn a_beam_is_answered_by_the_newest_control_message_that_it_knows() {
    on_every_otp(|otp| {
        // The BEAM finds the tap under the name of kvnode.
        let (own, tapped) = (Epmd::start(), Epmd::start());
        let kv = KvNode::start(&own, "kv", "--global kv --local store");
        let tap = Tap::before(own.port_of("kv").expect("it is registered"));
        let _registered = tapped.register("kv", tap.port());
        let beam = BeamNode::start(otp, &tapped, "beam");
        beam.ping(kv.name());
        beam.run(&format!("kv = :\"{}\"; store = {{:store, kv}}", kv.name()));
        beam.check(":erlang.whereis(:store) == :undefined and hd(Node.list(:hidden)) == kv", "true");
        tap.take();
        for at in 1..=10 {
            beam.check(&format!("GenServer.call(store, {{:put, {at}, {at}}})"), ":ok");
        }
        let heard = tap.take();
        let expected = match otp.release {
            28.. => (10, 0),
            24.. => (0, 10),
            _ => (0, 0),
        };
        assert_eq!(to_aliases(&heard, true), expected, "{heard:?}");
        assert!(heard.iter().all(|it| it.operation() != op::ALTACT_SIG_SEND || it.arity() == 4));

        // Time-outs: the late answers find aliases that are gone.
        beam.check(":sys.suspend(store)", ":ok");
        beam.check(
            "for n <- 1..5, do: (try do GenServer.call(store, {:put, :late, n}, 20) catch :exit, {why, _} -> why end)",
            "[:timeout, :timeout, :timeout, :timeout, :timeout]",
        );
        beam.check(":sys.resume(store)", ":ok");
        beam.check("GenServer.call(store, {:get, :late})", "5");
        if otp.release >= 24 {
            beam.check("receive do late -> late after 100 -> :nothing end", ":nothing");
        }
        // Several at once, collections, all nodes.
        beam.check(
            "ids = for n <- 1..10, do: :gen_server.send_request(store, {:get, n}); for id <- ids, do: :gen_server.wait_response(id, 20_000)",
            "[reply: 1, reply: 2, reply: 3, reply: 4, reply: 5, reply: 6, reply: 7, reply: 8, reply: 9, reply: 10]",
        );
        beam.check(
            "GenServer.multi_call([kv, node()], :store, {:get, 7}, 20_000) == {[{kv, 7}], [node()]}",
            "true",
        );
        if otp.release >= 25 {
            beam.check(
                r#"
                ids = Enum.reduce(1..10, :gen_server.reqids_new(), &:gen_server.send_request(store, {:get, &1}, &1, &2))
                collect = fn collect, ids, found ->
                  case :gen_server.receive_response(ids, 20_000, true) do
                    {{:reply, value}, label, ids} -> collect.(collect, ids, [{label, value} | found])
                    :no_request -> Enum.sort(found)
                  end
                end
                collect.(collect, ids, []) == (for n <- 1..10, do: {n, n})
                "#,
                "true",
            );
        }
        // A call of kvnode's to the BEAM: its answer comes by an alias too.
        beam.run(
            "echo = spawn(fn -> Process.register(self(), :echo); loop = fn loop ->
               receive do {:\"$gen_call\", from, it} -> GenServer.reply(from, {:echo, it}) end
               loop.(loop)
             end
             loop.(loop) end)",
        );
        tap.take();
        beam.check_soon("is_pid(Process.whereis(:echo))", "true");
        beam.check(":rpc.call(kv, GenServer, :call, [{:echo, node()}, :hello, 20_000])", "{:echo, :hello}");
        let heard = tap.take();
        match to_aliases(&heard, false) {
            (1, 0) if otp.release >= 28 => {}
            (0, 1) if (24..28).contains(&otp.release) => {}
            (0, 0) if otp.release < 24 => {}
            other => panic!("on {}: {other:?}: {heard:?}", otp.label),
        }
        // What else comes by it: priority, to a pid and a name, for messages and exit signals, and with a token.
        if otp.release >= 28 {
            beam.run("pid = :erpc.call(kv, :erlang, :whereis, [:store]); ref = Process.monitor(pid)");
            beam.run("cast = fn to, n, opts -> apply(:erlang, :send, [to, {:\"$gen_cast\", {:replicate_put, :p, n}}, opts]) end");
            tap.take();
            beam.check("for {to, n} <- [{pid, 1}, {store, 2}], do: cast.(to, n, [:priority])", "[:ok, :ok]");
            beam.check("GenServer.call(store, {:get, :p})", "2");
            beam.check(
                ":seq_trace.set_token(:send, true)
                 for {to, n} <- [{store, 3}, {pid, 4}], do: cast.(to, n, [:priority])
                 got = GenServer.call(store, {:get, :p})
                 :seq_trace.set_token([])
                 got",
                "4",
            );
            // A priority message has priority where its receiver has made an alias for them, and kvnode has none: it is
            // in order with all others, as it is to a GenServer.
            beam.check(":sys.suspend(store)", ":ok");
            beam.check(
                "{cast.(pid, 5, []), cast.(pid, 6, []), cast.(pid, 7, [:priority])}",
                "{:ok, :ok, :ok}",
            );
            beam.check(":sys.resume(store)", ":ok");
            beam.check("GenServer.call(store, {:get, :p})", "7");
            beam.check("apply(:erlang, :exit, [pid, :prompt, [:priority]])", "true");
            beam.check("receive do {:DOWN, ^ref, _, _, why} -> why after 20_000 -> nil end", ":prompt");
            let heard = tap.take();
            let flags: Vec<u64> = heard
                .iter()
                .filter(|it| !it.by_server && it.operation() == op::ALTACT_SIG_SEND)
                .map(|it| it.element(1).as_unsigned().expect("flags"))
                .filter(|flags| flags & 4 == 0)
                .collect();
            assert_eq!(flags, [1, 1 | 8, 1 | 2 | 8, 1 | 2, 1, 1 | 16], "what OTP {} sends", otp.release);
        }
    });
}
