//! How processes of ours end, and what is told to whom: a peer's signals in, exact frames out, without a socket.

use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::inbound::{Arrival, Inbound};
use kvnode::distribution::{DistributionFlags, FrameForm, Outbound};
use kvnode::etf::{Pid, Reference, TermView, TermWriter, encode};
use kvnode::process::peer::{Frame, Surroundings};
use kvnode::process::{
    Caller, Effect, ExitSignals, GenServer, Peer, PeerError, Process, Registry, Turn, Waiters,
};
use parking_lot::Mutex;

const PEER: &str = "m@h";

/// Writes down what it sees, in Elixir's syntax.
struct Probe {
    seen: Arc<Mutex<Vec<String>>>,
    signals: ExitSignals,
}

impl GenServer for Probe {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        self.seen.lock().push(format!("call {request:?}"));
        if request.is_atom("stop") {
            turn.exit(|w| {
                w.atom("enough");
            });
        }
        turn.reply(caller, |w| {
            w.tuple(2);
            assert!(!request.is_atom("panic"), "it went wrong");
            w.atom("ok").term(request);
        });
    }

    fn handle_cast(&self, request: TermView<'_>, _: &mut Turn<'_>) {
        self.seen.lock().push(format!("cast {request:?}"));
    }

    fn handle_info(&self, message: TermView<'_>, _: &mut Turn<'_>) {
        self.seen.lock().push(format!("info {message:?}"));
    }

    fn terminate(&self, reason: TermView<'_>) {
        self.seen.lock().push(format!("terminate {reason:?}"));
    }

    fn exit_signals(&self) -> ExitSignals {
        self.signals
    }

    fn state(&self, w: &mut TermWriter<'_>, _: usize) {
        w.atom("a_state");
    }
}

struct World {
    registry: Registry,
    waiters: Waiters,
    peer: Peer,
    process: Arc<Process>,
    seen: Arc<Mutex<Vec<String>>>,
    later: Vec<Effect>,
}

fn world(signals: ExitSignals) -> World {
    let registry = Registry::new("k@h".into(), 5);
    let seen = Arc::default();
    let process = registry.spawn(Arc::new(Probe { seen: Arc::clone(&seen), signals }));
    registry.register("probe", &process).expect("the name is free");
    let peer = Peer::new(PEER.into(), DistributionFlags::OFFERED);
    World { registry, waiters: Waiters::default(), peer, process, seen, later: Vec::new() }
}

impl World {
    fn with<R>(
        &mut self,
        act: impl FnOnce(&mut Peer, Surroundings<'_>, &mut Outbound, &mut Vec<Effect>) -> R,
    ) -> (R, Vec<Vec<u8>>) {
        let around = Surroundings {
            registry: &self.registry,
            waiters: &self.waiters,
            inflated_bytes_max: 1 << 20,
            watches_max: 100,
            held_bytes_max: 1_500,
            state_bytes_max: 1 << 10,
        };
        let mut out = Outbound::default();
        let result = act(&mut self.peer, around, &mut out, &mut self.later);
        let bytes = out.single_slice().expect("small frames");
        let mut inbound = Inbound::new(bytes, FrameForm::PassThrough, 1 << 20);
        let mut frames = Vec::new();
        while let Some(arrival) = inbound.next_arrival().expect("good frames") {
            let Arrival::Frame(range) = arrival else { panic!("a tick") };
            frames.push([&[131], inbound.slice(range)].concat());
        }
        (result, frames)
    }

    fn say(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        let (result, frames) = self.with(|peer, around, out, later| {
            peer.handle(Frame::small(&frame[1..], FrameForm::PassThrough), around, out, later)
        });
        result.expect("a good frame");
        frames
    }

    fn deliver_held(&mut self) -> (bool, Vec<Vec<u8>>) {
        let (result, frames) = self.with(|peer, around, out, later| peer.deliver_held(around, out, later));
        (result.expect("good messages"), frames)
    }

    fn call(&mut self, number: u32, request: &str) -> Vec<Vec<u8>> {
        self.say(&call("$gen_call", number, |w| {
            w.atom(request);
        }))
    }

    fn system(&mut self, request: impl FnOnce(&mut TermWriter<'_>)) -> Vec<Vec<u8>> {
        self.say(&call("system", 99, request))
    }

    fn watch(&mut self, number: u32) {
        let monitor = frame(
            |w| {
                w.tuple(4)
                    .unsigned(op::MONITOR_P)
                    .pid(&remote())
                    .pid(&self.process.pid)
                    .reference(&reference(number));
            },
            None,
        );
        assert!(self.say(&monitor).is_empty());
    }

    fn link(&mut self) {
        let link = self.to_process(op::LINK, 3);
        assert!(self.say(&link).is_empty());
    }

    /// A control message from the remote process to ours, which ends with the two pids.
    fn to_process(&self, operation: u64, arity: usize) -> Vec<u8> {
        frame(
            |w| {
                w.tuple(arity).unsigned(operation).pid(&remote()).pid(&self.process.pid);
            },
            None,
        )
    }

    fn down(&self, number: u32, reason: Vec<u8>) -> Vec<u8> {
        frame(
            |w| {
                w.tuple(4).unsigned(op::PAYLOAD_MONITOR_P_EXIT).pid(&self.process.pid);
                w.pid(&remote()).reference(&reference(number));
            },
            Some(reason),
        )
    }

    fn exit_to_link(&self, reason: Vec<u8>) -> Vec<u8> {
        frame(
            |w| {
                w.tuple(3).unsigned(op::PAYLOAD_EXIT).pid(&self.process.pid).pid(&remote());
            },
            Some(reason),
        )
    }

    fn seen(&self) -> Vec<String> {
        std::mem::take(&mut *self.seen.lock())
    }

    /// The reasons of the ends that the shell was told of.
    fn ended(&mut self) -> Vec<Vec<u8>> {
        let ended = self.later.drain(..).filter_map(|effect| match effect {
            Effect::Exited(ended) => Some(ended.reason.to_vec()),
            _ => None,
        });
        ended.collect()
    }
}

fn remote() -> Pid {
    Pid { node: PEER.into(), id: 90, serial: 1, creation: 3 }
}

fn reference(first: u32) -> Reference {
    Reference { node: PEER.into(), creation: 3, words: vec![first, 2, 3] }
}

fn atom(text: &str) -> Vec<u8> {
    encode(|w| {
        w.atom(text);
    })
}

fn frame(control: impl FnOnce(&mut TermWriter<'_>), payload: Option<Vec<u8>>) -> Vec<u8> {
    let mut bytes = vec![131];
    control(&mut TermWriter::new(&mut bytes));
    if let Some(payload) = payload {
        bytes.push(131);
        bytes.extend(payload);
    }
    bytes
}

fn message(write: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    let to_name = |w: &mut TermWriter<'_>| {
        w.tuple(4).unsigned(op::REG_SEND).pid(&remote()).atom("").atom("probe");
    };
    frame(to_name, Some(encode(write)))
}

fn call(kind: &str, number: u32, request: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    message(|w| {
        w.tuple(3).atom(kind).tuple(2).pid(&remote()).reference(&reference(number));
        request(w);
    })
}

fn cast(number: i64) -> Vec<u8> {
    message(|w| {
        w.tuple(2).atom("$gen_cast").integer(number);
    })
}

fn answer(number: u32, reply: impl FnOnce(&mut TermWriter<'_>)) -> Vec<u8> {
    let to_pid = |w: &mut TermWriter<'_>| {
        w.tuple(3).unsigned(op::SEND).atom("").pid(&remote());
    };
    let payload = encode(|w| {
        w.tuple(2).reference(&reference(number));
        reply(w);
    });
    frame(to_pid, Some(payload))
}

fn ok(w: &mut TermWriter<'_>) {
    w.atom("ok");
}

/// `exit/2` and the end of a linked process, in every form that a release sends.
fn exit_forms(to: &Pid, linked: bool, reason: &[u8]) -> Vec<Vec<u8>> {
    let [inline, inline_tt, payload, payload_tt] = if linked {
        [op::EXIT, op::EXIT_TT, op::PAYLOAD_EXIT, op::PAYLOAD_EXIT_TT]
    } else {
        [op::EXIT2, op::EXIT2_TT, op::PAYLOAD_EXIT2, op::PAYLOAD_EXIT2_TT]
    };
    let reason_term = TermView::parse(reason).expect("a term");
    let token = |w: &mut TermWriter<'_>| {
        w.tuple(1).nil();
    };
    let mut forms = vec![
        frame(|w| _ = w.tuple(4).unsigned(inline).pid(&remote()).pid(to).term(reason_term), None),
        frame(
            |w| {
                w.tuple(5).unsigned(inline_tt).pid(&remote()).pid(to);
                token(w);
                w.term(reason_term);
            },
            None,
        ),
        frame(|w| _ = w.tuple(3).unsigned(payload).pid(&remote()).pid(to), Some(reason.to_vec())),
        frame(
            |w| {
                w.tuple(4).unsigned(payload_tt).pid(&remote()).pid(to);
                token(w);
            },
            Some(reason.to_vec()),
        ),
    ];
    if !linked {
        // By ALTACT_SIG_SEND: with priority, with a token, to a name.
        for (arity, flags, by_name) in [(4, 1 | 16, false), (5, 2 | 16, false), (4, 8 | 16, true)] {
            let control = |w: &mut TermWriter<'_>| {
                w.tuple(arity).unsigned(op::ALTACT_SIG_SEND).unsigned(flags).pid(&remote());
                if by_name {
                    w.atom("probe");
                } else {
                    w.pid(to);
                }
                if arity == 5 {
                    token(w);
                }
            };
            forms.push(frame(control, Some(reason.to_vec())));
        }
    }
    forms
}

#[test]
fn an_exit_signal_in_every_form_ends_a_process_that_does_not_trap_it() {
    for linked in [false, true] {
        for form in 0..if linked { 4 } else { 7 } {
            for (reason, result) in
                [("kill", if linked { "kill" } else { "killed" }), ("shutdown", "shutdown"), ("boom", "boom")]
            {
                let mut world = world(ExitSignals::Obey);
                world.watch(1);
                if linked {
                    world.link();
                }
                let signal = &exit_forms(&world.process.pid, linked, &atom(reason))[form];
                // The link to whoever ended it is gone by then.
                assert_eq!(world.say(signal), [world.down(1, atom(result))], "form {form}");
                assert_eq!(world.ended(), [atom(result)]);
                assert_eq!(world.seen(), [format!("terminate :{result}")]);
                assert_eq!(world.peer.watches(), 0);
                // What comes later finds nobody.
                assert!(world.call(2, "hello").is_empty() && world.seen().is_empty());
                assert!(world.say(signal).is_empty() && world.ended().is_empty());
            }
        }
    }
}

#[test]
fn normal_is_ignored_and_so_is_a_signal_without_its_link() {
    let mut world = world(ExitSignals::Obey);
    let pid = world.process.pid.clone();
    for linked in [false, true] {
        for signal in exit_forms(&pid, linked, &atom("normal")) {
            world.link();
            assert!(world.say(&signal).is_empty());
        }
    }
    // The last of them came by the link, which is gone with it. An unlinked process has none either.
    for signal in exit_forms(&pid, true, &atom("boom")) {
        assert!(world.say(&signal).is_empty());
    }
    world.link();
    let unlink = world.to_process(op::UNLINK, 3);
    assert!(world.say(&unlink).is_empty());
    for signal in exit_forms(&pid, true, &atom("boom")) {
        assert!(world.say(&signal).is_empty());
    }
    assert_eq!(world.peer.watches(), 0);
    assert!(world.process.is_alive() && world.ended().is_empty() && world.seen().is_empty());
}

#[test]
fn an_exit_signal_to_an_alias_ends_nothing() {
    let mut world = world(ExitSignals::Obey);
    let awaited = world.registry.new_reference();
    let told = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&told);
    world.waiters.expect_reply(&awaited, &PEER.into(), move |outcome| *keep.lock() = Some(outcome));
    for alias in [&awaited, &world.registry.new_reference(), &reference(1)] {
        let signal = frame(
            |w| _ = w.tuple(4).unsigned(op::ALTACT_SIG_SEND).unsigned(4 | 16).pid(&remote()).reference(alias),
            Some(atom("kill")),
        );
        assert!(world.say(&signal).is_empty());
    }
    assert!(world.process.is_alive() && world.ended().is_empty() && world.seen().is_empty());
    assert!(told.lock().is_none(), "the call goes on");
}

#[test]
fn a_process_that_traps_exit_signals_gets_messages_and_only_kill_ends_it() {
    let mut world = world(ExitSignals::Trap);
    let pid = world.process.pid.clone();
    for (linked, reason) in [(false, "normal"), (false, "boom"), (true, "normal"), (true, "kill")] {
        for signal in exit_forms(&pid, linked, &atom(reason)) {
            if linked {
                world.link();
            }
            assert!(world.say(&signal).is_empty());
            let [seen] = &world.seen()[..] else { panic!("one message") };
            assert!(seen.starts_with("info {:EXIT, ") && seen.ends_with(&format!(", :{reason}}}")), "{seen}");
        }
    }
    assert!(world.say(&exit_forms(&pid, false, &atom("kill"))[0]).is_empty());
    assert_eq!(world.ended(), [atom("killed")]);
}

#[test]
fn a_process_of_the_node_ignores_exit_signals_and_is_not_stopped() {
    let mut world = world(ExitSignals::Ignore);
    let pid = world.process.pid.clone();
    for reason in ["kill", "boom"] {
        for signal in exit_forms(&pid, false, &atom(reason)) {
            assert!(world.say(&signal).is_empty());
        }
    }
    world.watch(99);
    let refused = world.system(|w| {
        w.tuple(2).atom("terminate").atom("boom");
    });
    assert_eq!(refused, [world.down(99, atom("not_allowed"))]);
    assert!(world.process.is_alive() && world.ended().is_empty() && world.seen().is_empty());
}

#[test]
fn a_lost_connection_ends_what_is_linked_over_it() {
    let mut ended = world(ExitSignals::Obey);
    ended.watch(1);
    ended.link();
    let ((), frames) = ended.with(|peer, around, _, later| peer.connection_lost(around, later));
    assert!(frames.is_empty());
    assert_eq!(ended.ended(), [atom("noconnection")]);
    assert_eq!(ended.seen(), ["terminate :noconnection"]);

    let mut trapping = world(ExitSignals::Trap);
    trapping.link();
    trapping.with(|peer, around, _, later| peer.connection_lost(around, later));
    let [seen] = &trapping.seen()[..] else { panic!("one message") };
    assert!(seen.starts_with("info {:EXIT, ") && seen.ends_with(", :noconnection}"), "{seen}");
    assert!(trapping.process.is_alive());
}

#[test]
fn a_panic_ends_the_process_with_a_reason_and_nothing_else() {
    let mut world = world(ExitSignals::Obey);
    let other = world.registry.spawn(Arc::new(Probe { seen: Arc::default(), signals: ExitSignals::Obey }));
    world.watch(1);
    world.link();
    let reason = encode(|w| {
        w.tuple(2).atom("panic").binary(b"it went wrong");
    });
    // No byte of the answer that was begun.
    let (down, exit) = (world.down(1, reason.clone()), world.exit_to_link(reason.clone()));
    assert_eq!(world.call(2, "panic"), [down, exit]);
    assert_eq!(world.ended(), [reason]);
    assert!(!world.process.is_alive() && other.is_alive());
    assert_eq!(world.peer.watches(), 0);
}

#[test]
fn a_server_that_stops_answers_first() {
    let mut world = world(ExitSignals::Obey);
    world.watch(1);
    let frames = world.call(2, "stop");
    let answered = answer(2, |w| {
        w.tuple(2).atom("ok").atom("stop");
    });
    assert_eq!(frames, [answered, world.down(1, atom("enough"))]);
    assert_eq!(world.ended(), [atom("enough")]);
}

#[test]
fn terminate_is_answered_and_then_every_watcher_is_told_the_reason() {
    let mut world = world(ExitSignals::Obey);
    world.watch(1);
    world.link();
    let reason = encode(|w| {
        w.tuple(2).atom("shutdown").binary(b"enough");
    });
    let frames = world.system(|w| {
        w.tuple(2).atom("terminate").term(TermView::parse(&reason).expect("a term"));
    });
    assert_eq!(frames, [answer(99, ok), world.down(1, reason.clone()), world.exit_to_link(reason.clone())]);
    assert_eq!(world.seen(), ["terminate {:shutdown, \"enough\"}"]);
}

#[test]
fn a_reason_with_a_key_twice_is_passed_on_to_nobody() {
    let mut world = world(ExitSignals::Obey);
    let twice = encode(|w| {
        w.map(2).atom("a").integer(1).atom("a").integer(2);
    });
    for signal in exit_forms(&world.process.pid.clone(), false, &twice) {
        let (result, _) = world.with(|peer, around, out, later| {
            peer.handle(Frame::small(&signal[1..], FrameForm::PassThrough), around, out, later)
        });
        assert!(matches!(result, Err(PeerError::Term(_))), "{result:?}");
    }
    assert!(world.process.is_alive());
}

#[test]
fn a_suspended_process_takes_system_messages_and_the_rest_once_it_is_resumed() {
    let mut world = world(ExitSignals::Obey);
    world.watch(3);
    assert_eq!(world.system(|w| _ = w.atom("suspend")), [answer(99, ok)]);
    for number in 1..3 {
        assert!(world.say(&cast(number)).is_empty());
    }
    assert!(world.call(2, "hello").is_empty());
    assert!(!world.deliver_held().0 && world.seen().is_empty());
    world.system(|w| _ = w.atom("get_state"));
    let state = world.later.drain(..).find_map(|effect| match effect {
        Effect::ReplyState { state, .. } => Some(state),
        _ => None,
    });
    assert_eq!(state, Some(atom("a_state")));

    // Past the bound a call ends by its monitor, and a cast is dropped.
    assert!(world.say(&message(|w| _ = w.tuple(2).atom("$gen_cast").binary(&[0; 300]))).is_empty());
    let too_much = call("$gen_call", 3, |w| _ = w.binary(&[0; 300]));
    let limit = encode(|w| {
        w.tuple(2).atom("system_limit").atom("suspended");
    });
    assert_eq!(world.say(&too_much), [world.down(3, limit)]);

    assert_eq!(world.system(|w| _ = w.atom("resume")), [answer(99, ok)]);
    assert!(world.later.drain(..).any(|effect| matches!(effect, Effect::Resumed(_))));
    let mut answers = Vec::new();
    while let (true, frames) = world.deliver_held() {
        answers.extend(frames);
    }
    let hello = answer(2, |w| {
        w.tuple(2).atom("ok").atom("hello");
    });
    assert_eq!(answers, [hello]);
    assert_eq!(world.seen(), ["cast 1", "cast 2", "call :hello"]);
}

#[test]
fn siblings_end_together() {
    let mut world = world(ExitSignals::Obey);
    let sibling = world.registry.spawn_sibling(&world.process).expect("it lives");
    let stranger = world.registry.spawn(Arc::new(Probe { seen: Arc::default(), signals: ExitSignals::Obey }));
    world.watch(1);
    let signal = &exit_forms(&sibling.pid, false, &atom("boom"))[0];
    assert_eq!(world.say(signal), [world.down(1, atom("boom"))]);
    assert_eq!(world.seen(), ["terminate :boom"]);
    assert!(!world.process.is_alive() && !sibling.is_alive() && stranger.is_alive());
    assert!(world.registry.spawn_sibling(&world.process).is_err());
    assert!(world.registry.by_name("probe").is_none());
}
