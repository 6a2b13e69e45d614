//! Calls and casts from the program itself, and answers that come from other threads of it.

use kvnode::etf::{Atom, OwnedTerm, TermWriter, atom, to_term};
use kvnode::process::registry::RegisterError;
use kvnode::{CallError, Context, Never, ReplyTo, Server, ServerRef, block_on};
use serde::Deserialize;
use smol::channel::{Receiver, Sender};

use crate::server::probe;
use crate::support::wait::PATIENCE;
use crate::support::{BeamNode, Epmd, Otp, Running};

/// Takes no messages at all.
struct Silent;

impl Server for Silent {
    type Call = Never;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, call: Never, _from: ReplyTo, _cx: &mut Context<Self>) {
        match call {}
    }
}

#[test]
fn servers_of_one_program_call_each_other_and_errors_say_whose_fault_it_is() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let held = probe(&node);
    held.process.register("probe").expect("the name is free");
    assert_eq!(node.serve(Silent).register("probe").err(), Some(RegisterError::Taken));
    let probe = ServerRef::local("probe");
    block_on(async {
        node.cast(&probe, &(atom("hear"), 7)).await.expect("it is sent");
        node.send_to(&probe, &(atom("hello"), "me")).await.expect("it is sent");
        let heard: Vec<String> = node.call(&probe, &atom("heard"), PATIENCE).await.expect("an answer");
        assert_eq!(heard, ["init true", "7", "hello me"]);
        let unread: Result<Atom, CallError> = node.call(&probe, &atom("heard"), PATIENCE).await;
        assert!(matches!(unread, Err(CallError::Unreadable(_))), "{unread:?}");
        let unwritten: Result<Atom, CallError> = node.call(&probe, &f64::INFINITY, PATIENCE).await;
        assert!(matches!(unwritten, Err(CallError::Unwritable(_))), "{unwritten:?}");
        let unknown: Result<Atom, CallError> = node.call(&probe, &atom("what"), PATIENCE).await;
        let Err(CallError::Exit(reason)) = unknown else { panic!("{unknown:?}") };
        assert_eq!(reason.view().bytes(), to_term(&(atom("bad_call"), atom("what"))).expect("a term"));
        let nobody: Result<Atom, CallError> =
            node.call(&ServerRef::local("nobody"), &atom("x"), PATIENCE).await;
        assert!(matches!(nobody, Err(CallError::NoProcess)), "{nobody:?}");
        held.process.stop(&atom("done"));
        held.process.ended().await;
        assert_eq!(held.told.recv().await.as_deref(), Ok("terminate :done"));
        node.stop().await;
        let stopped: Result<Atom, CallError> = node.call(&probe, &atom("heard"), PATIENCE).await;
        assert_eq!(stopped, Err(CallError::Stopped));
    });
}

/// Answers each call with a large value, from threads of its own.
struct Loader(Sender<ReplyTo>);

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Load {
    Large,
}

impl Server for Loader {
    type Call = Load;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, Load::Large: Load, from: ReplyTo, _cx: &mut Context<Self>) {
        self.0.try_send(from).expect("the threads run");
    }
}

/// What one of its threads does until the server has ended.
#[allow(clippy::let_unit_value, reason = "what becomes of an answer is seen where it is to arrive")]
fn answer_all(waiting: &Receiver<ReplyTo>, value: &OwnedTerm) {
    while let Ok(from) = waiting.recv_blocking() {
        let _told = from.reply(value);
    }
}

#[test]
fn all_of_many_large_answers_from_other_threads_arrive() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    let (sender, waiting) = smol::channel::unbounded();
    let value = OwnedTerm::write(|w| _ = w.binary(&vec![7; 5_000_000])).expect("a term");
    for _ in 0..8 {
        let (waiting, value) = (waiting.clone(), value.clone());
        std::thread::spawn(move || answer_all(&waiting, &value));
    }
    node.serve(Loader(sender)).register("loader").expect("the name is free");
    beam.ping(node.name().as_str());
    beam.run(&format!("loader = {{:loader, :\"{}\"}}", node.name()));
    let lost = beam.run(
        "call = fn -> 5_000_000 = byte_size(GenServer.call(loader, :large, 20_000)) end
         outcomes = KvNodeTest.Beside.at_once(List.duplicate(call, 200), 80_000)
         {length(Enum.filter(outcomes, &is_tuple/1)), KvNodeTest.Beside.lost(outcomes)}",
    );
    assert_eq!(lost, "{0, []}", "of 200 calls so many had no answer");
}

#[test]
fn a_client_that_sends_more_than_there_is_room_for_waits_for_room() {
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    beam.check("Process.register(self(), :heard)", "true");
    beam.ping(node.name().as_str());
    let client = node.client();
    let heard = ServerRef::remote("heard", beam.name());
    let large = vec![7; 2_000_000];
    let mut refused = Vec::new();
    block_on(async {
        for number in 0..40_u64 {
            let message = |w: &mut TermWriter<'_>| _ = w.tuple(2).unsigned(number).binary(&large);
            if let Err(error) = client.send(&heard, message).await {
                refused.push(format!("message {number}: {error}"));
            }
        }
        for number in 40..80_u64 {
            let request = |w: &mut TermWriter<'_>| _ = w.tuple(2).unsigned(number).binary(&large);
            if let Err(error) = client.cast(&heard, request).await {
                refused.push(format!("cast {number}: {error}"));
            }
        }
    });
    assert!(refused.is_empty(), "{} of 80 were refused, the first {:?}", refused.len(), refused[0]);
    beam.check(
        "got =
           for _ <- 1..80 do
             receive do
               {:\"$gen_cast\", {number, bytes}} when byte_size(bytes) == 2_000_000 -> number
               {number, bytes} when byte_size(bytes) == 2_000_000 -> number
             after
               30_000 -> :nothing
             end
           end

         got == Enum.to_list(0..79)",
        "true",
    );
}
