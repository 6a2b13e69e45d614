//! Servers without a mailbox, and what streams at the pace of a node.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use kvnode::distribution::RemoteProcess;
use kvnode::etf::{Pid, TermView, atom};
use kvnode::process::{Feed, Feeding, More, Outcome, PendingCall};
use kvnode::{Caller, GenServer, OwnedCaller, Turn, block_on};
use smol::channel::Sender;

use crate::support::{BeamNode, Epmd, Running, on_every_otp, wait_until};

/// Inline: the state is behind a lock, and callers may be kept.
#[derive(Default)]
struct Inline {
    calls: AtomicUsize,
    kept: parking_lot::Mutex<Vec<OwnedCaller>>,
}

impl GenServer for Inline {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if request.is_atom("keep") {
            self.kept.lock().push(caller.to_owned(&turn.me.pid));
        } else {
            turn.reply(caller, |w| _ = w.tuple(2).atom("echo").term(request));
        }
    }

    fn handle_cast(&self, _request: TermView<'_>, _turn: &mut Turn<'_>) {}
}

#[test]
fn an_inline_server_answers_at_once_or_later() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let server = Arc::new(Inline::default());
        let process = node.serve_inline(Arc::clone(&server) as Arc<dyn GenServer>);
        process.register("inline").expect("the name is free");
        beam.run(&format!("inline = {{:inline, :\"{}\"}}", node.name()));
        beam.check("GenServer.call(inline, %{a: 1})", "{:echo, %{a: 1}}");
        let kept = beam.spawn("GenServer.call(inline, :keep, 60_000)");
        wait_until("the caller is kept", || !server.kept.lock().is_empty());
        for caller in server.kept.lock().drain(..) {
            caller.reply(&**node, |w| _ = w.atom("later"));
        }
        assert_eq!(kept.value(), ":later");
        assert_eq!(server.calls.load(Ordering::Relaxed), 2);
        process.stop(&atom("normal"));
        block_on(process.ended());
        let gone = beam.eval("GenServer.call(inline, :x)").unwrap_err();
        assert!(gone.exit_reason().contains("noproc"), "{gone}");
    });
}

/// Counts in large messages to one process, and asks that behind the last what it has counted.
#[derive(Debug)]
struct Numbers {
    left: parking_lot::Mutex<std::ops::RangeInclusive<u64>>,
    from: Pid,
    to: RemoteProcess,
    asked: parking_lot::Mutex<Option<PendingCall>>,
    answers: Sender<Outcome>,
    rounds: AtomicUsize,
}

impl Feed for Numbers {
    fn feed(&self, out: &mut Feeding<'_>) -> More {
        self.rounds.fetch_add(1, Ordering::Relaxed);
        let mut left = self.left.lock();
        while !left.is_empty() {
            if !out.has_room() {
                return More::WhenRoom;
            }
            let number = left.next().expect("it is not empty");
            out.send(&self.from, &self.to, |w| _ = w.tuple(2).unsigned(number).binary(&[7; 64 << 10]));
        }
        let answers = self.answers.clone();
        let done = move |outcome| _ = answers.try_send(outcome);
        *self.asked.lock() = Some(out.call(&self.from, &self.to, |w, _| _ = w.atom("count"), done));
        More::No
    }
}

#[test]
fn a_feed_streams_more_than_there_is_room_for_and_asks_behind_it() {
    on_every_otp(|otp| {
        let epmd = Epmd::start();
        let beam = BeamNode::start(otp, &epmd, "beam");
        let node = Running::start(&epmd, "rust");
        let process = node.serve_inline(Arc::new(Inline::default()));
        beam.run(
            "defmodule Counter do
               def run(counted) do
                 receive do
                   {number, _} when number == counted + 1 -> run(number)
                   {:\"$gen_call\", from, :count} -> GenServer.reply(from, counted)
                 end
               end
             end
             Process.register(spawn(fn -> Counter.run(0) end), :counter)",
        );
        beam.ping(node.name().as_str());
        let to: Arc<str> = beam.name().into();
        let (answers, answered) = smol::channel::unbounded();
        let numbers = Arc::new(Numbers {
            left: parking_lot::Mutex::new(1..=600),
            from: process.pid().clone(),
            to: RemoteProcess::Name { name: "counter".into(), node: Arc::clone(&to) },
            asked: parking_lot::Mutex::default(),
            answers,
            rounds: AtomicUsize::new(0),
        });
        let feed = Arc::clone(&numbers) as Arc<dyn Feed>;
        // Of a node that is not connected nothing is asked for.
        node.dispatch().feed("nobody@nowhere", &feed);
        assert_eq!(numbers.rounds.load(Ordering::Relaxed), 0);
        node.dispatch().feed(&to, &feed);
        let Ok(Outcome::Replied(count)) = block_on(answered.recv()) else { panic!("it is answered") };
        assert_eq!(count.view().as_unsigned(), Some(600));
        assert!(numbers.rounds.load(Ordering::Relaxed) > 1, "37 MiB never have room at once");
    });
}
