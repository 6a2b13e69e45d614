//! How processes of ours end, and which watchers are told what: a peer's signals in, exact frames out, without a socket.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use kvnode::distribution::DistributionFlags;
use kvnode::distribution::control::op;
use kvnode::etf::{Pid, TermView, TermWriter, encode};
use kvnode::process::{Caller, Effect, ExitSignals, GenServer, PeerError, Process, Turn};
use parking_lot::Mutex;

#[path = "support/around.rs"]
mod around;
#[path = "support/conversation.rs"]
mod conversation;
#[path = "support/term.rs"]
mod term;

use conversation::{Conversation, control, frame, monitor, monitor_exit, reference, reply, send, signal};
use term::{PEER, Term, binary, term, term_with};

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
    conversation: Conversation,
    process: Arc<Process>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Deref for World {
    type Target = Conversation;

    fn deref(&self) -> &Conversation {
        &self.conversation
    }
}

impl DerefMut for World {
    fn deref_mut(&mut self) -> &mut Conversation {
        &mut self.conversation
    }
}

fn world(signals: ExitSignals) -> World {
    let mut conversation = Conversation::offering(DistributionFlags::OFFERED);
    conversation.held_bytes_max = 1_500;
    let seen = Arc::default();
    let process = conversation.registry.spawn(Arc::new(Probe { seen: Arc::clone(&seen), signals }));
    conversation.registry.register("probe", &process).expect("the name is free");
    World { conversation, process, seen }
}

impl World {
    #[track_caller]
    fn call(&mut self, number: u32, request: &str) -> Vec<Vec<u8>> {
        self.say(&call("$gen_call", number, request))
    }

    #[track_caller]
    fn system(&mut self, request: impl Term) -> Vec<Vec<u8>> {
        self.say(&call("system", 99, request))
    }

    fn watch(&mut self, number: u32) {
        let monitor = monitor(&self.process.pid, number);
        assert!(self.say(&monitor).is_empty());
    }

    fn link(&mut self) {
        let link = self.to_process(op::LINK);
        assert!(self.say(&link).is_empty());
    }

    /// A signal from the remote process to ours, of which the two pids are all.
    fn to_process(&self, operation: u64) -> Vec<u8> {
        signal(operation, "#PID<0.90.1>, $1", &[&self.process.pid])
    }

    fn down(&self, number: u32, reason: impl Term) -> Vec<u8> {
        monitor_exit(&self.process.pid, number, reason)
    }

    fn exit_to_link(&self, reason: impl Term) -> Vec<u8> {
        frame(control(op::PAYLOAD_EXIT, "$1, #PID<0.90.1>", &[&self.process.pid]), reason)
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

fn call(kind: &str, number: u32, request: impl Term) -> Vec<u8> {
    let message = format!("{{:\"{kind}\", {{#PID<0.90.1>, $1}}, $2}}");
    send("probe", term_with(&message, &[&reference(number), &request]))
}

fn cast(number: i64) -> Vec<u8> {
    send("probe", format!("{{:\"$gen_cast\", {number}}}"))
}

fn answer(number: u32, answer: impl Term) -> Vec<u8> {
    reply(reference(number), answer)
}

/// `exit/2` and the end of a linked process, in every form that a release sends.
fn exit_forms(to: &Pid, linked: bool, reason: impl Term) -> Vec<Vec<u8>> {
    let [inline, inline_tt, payload, payload_tt] = if linked {
        [op::EXIT, op::EXIT_TT, op::PAYLOAD_EXIT, op::PAYLOAD_EXIT_TT]
    } else {
        [op::EXIT2, op::EXIT2_TT, op::PAYLOAD_EXIT2, op::PAYLOAD_EXIT2_TT]
    };
    // {[]} stands for a trace token.
    let mut forms = vec![
        signal(inline, "#PID<0.90.1>, $1, $2", &[to, &reason]),
        signal(inline_tt, "#PID<0.90.1>, $1, {[]}, $2", &[to, &reason]),
        frame(control(payload, "#PID<0.90.1>, $1", &[to]), &reason),
        frame(control(payload_tt, "#PID<0.90.1>, $1, {[]}", &[to]), &reason),
    ];
    if !linked {
        // By ALTACT_SIG_SEND: with priority, with a token, to a name.
        let altact =
            |rest: &str, parts: &[&dyn Term]| frame(control(op::ALTACT_SIG_SEND, rest, parts), &reason);
        forms.push(altact(&format!("{}, #PID<0.90.1>, $1", 1 | 16), &[to]));
        forms.push(altact(&format!("{}, #PID<0.90.1>, $1, {{[]}}", 2 | 16), &[to]));
        forms.push(altact(&format!("{}, #PID<0.90.1>, :probe", 8 | 16), &[]));
    }
    forms
}

#[test]
fn an_exit_signal_in_every_form_ends_a_process_that_does_not_trap_it() {
    for linked in [false, true] {
        for form in 0..if linked { 4 } else { 7 } {
            let killed = if linked { ":kill" } else { ":killed" };
            for (reason, result) in [(":kill", killed), (":shutdown", ":shutdown"), (":boom", ":boom")] {
                let mut world = world(ExitSignals::Obey);
                world.watch(1);
                if linked {
                    world.link();
                }
                let signal = &exit_forms(&world.process.pid, linked, reason)[form];
                // The link to the process that ended it is gone by then.
                assert_eq!(world.say(signal), [world.down(1, result)], "form {form}");
                assert_eq!(world.ended(), [term(result)]);
                assert_eq!(world.seen(), [format!("terminate {result}")]);
                assert_eq!(world.peer.watches(), 0);
                // What comes later finds nobody.
                assert!(world.call(2, ":hello").is_empty() && world.seen().is_empty());
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
        for signal in exit_forms(&pid, linked, ":normal") {
            world.link();
            assert!(world.say(&signal).is_empty());
        }
    }
    // The last of them came by the link, which is gone with it. An unlinked process has none either.
    for signal in exit_forms(&pid, true, ":boom") {
        assert!(world.say(&signal).is_empty());
    }
    world.link();
    let unlink = world.to_process(op::UNLINK);
    assert!(world.say(&unlink).is_empty());
    for signal in exit_forms(&pid, true, ":boom") {
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
        let to_alias = format!("{}, #PID<0.90.1>, $1", 4 | 16);
        let signal = frame(control(op::ALTACT_SIG_SEND, &to_alias, &[alias]), ":kill");
        assert!(world.say(&signal).is_empty());
    }
    assert!(world.process.is_alive() && world.ended().is_empty() && world.seen().is_empty());
    assert!(told.lock().is_none(), "the call goes on");
}

#[test]
fn a_process_that_traps_exit_signals_gets_messages_and_only_kill_ends_it() {
    let mut world = world(ExitSignals::Trap);
    let pid = world.process.pid.clone();
    for (linked, reason) in [(false, ":normal"), (false, ":boom"), (true, ":normal"), (true, ":kill")] {
        for signal in exit_forms(&pid, linked, reason) {
            if linked {
                world.link();
            }
            assert!(world.say(&signal).is_empty());
            let [seen] = &world.seen()[..] else { panic!("one message") };
            assert!(seen.starts_with("info {:EXIT, ") && seen.ends_with(&format!(", {reason}}}")), "{seen}");
        }
    }
    assert!(world.say(&exit_forms(&pid, false, ":kill")[0]).is_empty());
    assert_eq!(world.ended(), [term(":killed")]);
}

#[test]
fn a_process_of_the_node_ignores_exit_signals_and_is_not_stopped() {
    let mut world = world(ExitSignals::Ignore);
    let pid = world.process.pid.clone();
    for reason in [":kill", ":boom"] {
        for signal in exit_forms(&pid, false, reason) {
            assert!(world.say(&signal).is_empty());
        }
    }
    world.watch(99);
    let refused = world.system("{:terminate, :boom}");
    assert_eq!(refused, [world.down(99, ":not_allowed")]);
    assert!(world.process.is_alive() && world.ended().is_empty() && world.seen().is_empty());
}

#[test]
fn a_lost_connection_ends_what_is_linked_over_it() {
    let mut ended = world(ExitSignals::Obey);
    ended.watch(1);
    ended.link();
    let ((), frames) = ended.with(|peer, around, _, later| peer.connection_lost(around, later));
    assert!(frames.is_empty());
    assert_eq!(ended.ended(), [term(":noconnection")]);
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
    let reason = "{:panic, \"it went wrong\"}";
    // No byte of the answer that was begun.
    let (down, exit) = (world.down(1, reason), world.exit_to_link(reason));
    assert_eq!(world.call(2, ":panic"), [down, exit]);
    assert_eq!(world.ended(), [term(reason)]);
    assert!(!world.process.is_alive() && other.is_alive());
    assert_eq!(world.peer.watches(), 0);
}

#[test]
fn a_server_that_stops_answers_first() {
    let mut world = world(ExitSignals::Obey);
    world.watch(1);
    let frames = world.call(2, ":stop");
    assert_eq!(frames, [answer(2, "{:ok, :stop}"), world.down(1, ":enough")]);
    assert_eq!(world.ended(), [term(":enough")]);
}

#[test]
fn terminate_is_answered_and_then_every_watcher_is_told_the_reason() {
    let mut world = world(ExitSignals::Obey);
    world.watch(1);
    world.link();
    let reason = "{:shutdown, \"enough\"}";
    let frames = world.system("{:terminate, {:shutdown, \"enough\"}}");
    assert_eq!(frames, [answer(99, ":ok"), world.down(1, reason), world.exit_to_link(reason)]);
    assert_eq!(world.seen(), ["terminate {:shutdown, \"enough\"}"]);
}

#[test]
fn a_reason_with_a_key_twice_is_passed_on_to_nobody() {
    let mut world = world(ExitSignals::Obey);
    // %{a: 1, a: 2}
    let twice = encode(|w| _ = w.map(2).atom("a").integer(1).atom("a").integer(2));
    for signal in exit_forms(&world.process.pid.clone(), false, &twice) {
        let result = world.try_say(&signal);
        assert!(matches!(result, Err(PeerError::Term(_))), "{result:?}");
    }
    assert!(world.process.is_alive());
}

#[test]
fn a_suspended_process_takes_system_messages_and_the_rest_once_it_is_resumed() {
    let mut world = world(ExitSignals::Obey);
    world.watch(3);
    assert_eq!(world.system(":suspend"), [answer(99, ":ok")]);
    for number in 1..3 {
        assert!(world.say(&cast(number)).is_empty());
    }
    assert!(world.call(2, ":hello").is_empty());
    assert!(!world.deliver_held().0 && world.seen().is_empty());
    world.system(":get_state");
    let state = world.later.drain(..).find_map(|effect| match effect {
        Effect::ReplyState { state, .. } => Some(state),
        _ => None,
    });
    assert_eq!(state, Some(term(":a_state")));

    // Past the bound a call ends by its monitor, and a cast is dropped.
    let much = binary(&[0; 300]);
    assert!(world.say(&send("probe", term_with("{:\"$gen_cast\", $1}", &[&much]))).is_empty());
    let too_much = call("$gen_call", 3, &much);
    assert_eq!(world.say(&too_much), [world.down(3, "{:system_limit, :suspended}")]);

    assert_eq!(world.system(":resume"), [answer(99, ":ok")]);
    assert!(world.later.drain(..).any(|effect| matches!(effect, Effect::Resumed(_))));
    assert_eq!(world.go_on(), [answer(2, "{:ok, :hello}")]);
    assert_eq!(world.seen(), ["cast 1", "cast 2", "call :hello"]);
}

#[test]
fn siblings_end_together() {
    let mut world = world(ExitSignals::Obey);
    let sibling = world.registry.spawn_sibling(&world.process).expect("it lives");
    let stranger = world.registry.spawn(Arc::new(Probe { seen: Arc::default(), signals: ExitSignals::Obey }));
    world.watch(1);
    let signal = &exit_forms(&sibling.pid, false, ":boom")[0];
    assert_eq!(world.say(signal), [world.down(1, ":boom")]);
    assert_eq!(world.seen(), ["terminate :boom"]);
    assert!(!world.process.is_alive() && !sibling.is_alive() && stranger.is_alive());
    assert!(world.registry.spawn_sibling(&world.process).is_err());
    assert!(world.registry.by_name("probe").is_none());
}
