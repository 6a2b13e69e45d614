//! What handlers do to the node: they wait, block, panic, and await what is tokio's.
//!
//! A program of its own, as it reads what the node logs: threads of the node have the subscriber of all.

mod support;
#[path = "interop_runtime/tokio.rs"]
mod tokio_things;

use std::io;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, Once};
use std::thread;
use std::time::Duration;

use kvnode::config::Limits;
use kvnode::etf::{Atom, OwnedTerm, TermView, atom, to_term};
use kvnode::{Caller, Context, GenServer, Never, Node, ReplyTo, Server, ServerRef, Turn, block_on, unblock};
use serde::Deserialize;
use smol::channel::{Receiver, Sender};

use support::wait::PATIENCE;
use support::{BeamNode, BeamOptions, Epmd, Otp, Running, wait_until};

static LOG: Mutex<String> = Mutex::new(String::new());

struct Lines;

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LOG.lock().expect("no thread panics with it").push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What this program logs is kept from now on.
fn keep_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| tracing_subscriber::fmt().with_ansi(false).with_writer(|| Lines).init());
}

/// The lines of the log that have all of these words.
fn logged(words: &[&str]) -> Vec<String> {
    let log = LOG.lock().expect("no thread panics with it");
    let lines = log.lines().filter(|line| words.iter().all(|word| line.contains(word)));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn nothing_is_a_bug_of_kvnode() {
    assert_eq!(logged(&["please report"]), [""; 0]);
}

fn threads(count: usize) -> NonZeroUsize {
    NonZeroUsize::new(count).expect("a test has some")
}

/// Holds its thread, or leaves it, until the test opens the gate.
struct Gated {
    gate: Receiver<()>,
    entered: Sender<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wait {
    Block,
    Unblock,
}

impl Server for Gated {
    type Call = Wait;
    type Cast = Wait;
    type Info = Never;

    async fn handle_call(&mut self, wait: Wait, from: ReplyTo, cx: &mut Context<Self>) {
        self.handle_cast(wait, cx).await;
        from.reply(&atom("ok"));
    }

    async fn handle_cast(&mut self, wait: Wait, _cx: &mut Context<Self>) {
        let gate = self.gate.clone();
        match wait {
            Wait::Block => {
                self.entered.try_send(()).expect("the test listens");
                _ = gate.recv_blocking();
            }
            Wait::Unblock => {
                let entered = self.entered.clone();
                let work = move || {
                    entered.try_send(()).expect("the test listens");
                    gate.recv_blocking().is_err()
                };
                assert!(unblock(work).await, "the gate is opened by its end");
            }
        }
    }
}

/// Answers calls with what they ask.
struct Echo;

impl Server for Echo {
    type Call = OwnedTerm;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, request: OwnedTerm, from: ReplyTo, _cx: &mut Context<Self>) {
        from.reply(&request);
    }
}

/// The same, inline.
struct InlineEcho;

impl GenServer for InlineEcho {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        turn.reply(caller, |w| _ = w.term(request));
    }

    fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
}

#[test]
fn a_node_whose_handlers_hold_all_threads_stays_connected_and_says_which_do() {
    keep_log();
    let epmd = Epmd::start();
    let ticking = BeamOptions::new("beam").erl("-kernel net_ticktime 2");
    let beam = BeamNode::start(&Otp::usual(), &epmd, ticking);
    let node = Running::start_as(&epmd, Node::builder("rust").net_ticktime_secs(2).threads(threads(2)));
    node.serve_inline(Arc::new(InlineEcho)).register("inline").expect("the name is free");
    node.serve(Echo).register("echo").expect("the name is free");
    let (open, gate) = smol::channel::bounded::<()>(1);
    let (entered, blocks) = smol::channel::unbounded();
    beam.ping(node.name().as_str());
    beam.run(":ok = :net_kernel.monitor_nodes(true, node_type: :all)");
    let at = |name: &str| format!("{{:{name}, :\"{}\"}}", node.name());
    for name in ["blocks_one", "blocks_two"] {
        let server = Gated { gate: gate.clone(), entered: entered.clone() };
        node.serve(server).register(name).expect("the name is free");
        beam.run(&format!("GenServer.cast({}, :block)", at(name)));
        block_on(blocks.recv()).expect("the server is there");
    }
    // Twice as long as a node may be silent, with nothing to say but ticks.
    thread::sleep(Duration::from_secs(4));
    beam.check("receive do {:nodedown, node, _} -> node after 0 -> :none end", ":none");
    beam.check(&format!("GenServer.call({}, :inline)", at("inline")), ":inline");
    let waits = beam.spawn(&format!("GenServer.call({}, :waited, :infinity)", at("echo")));
    wait_until("the log names both servers", || logged(&["held a thread", "blocks_"]).len() >= 2);
    drop(open);
    assert_eq!(waits.value(), ":waited");
    for name in ["blocks_one", "blocks_two"] {
        assert_eq!(logged(&["WARN", "held a thread", name]).len(), 1, "{:?}", logged(&["held a thread"]));
    }
    beam.check("receive do {:nodedown, node, _} -> node after 0 -> :none end", ":none");
}

#[test]
fn a_handler_that_unblocks_leaves_its_thread_to_others() {
    let epmd = Epmd::start();
    let node = Running::start_as(&epmd, Node::builder("rust").threads(threads(1)));
    let (open, gate) = smol::channel::bounded::<()>(1);
    let (entered, blocks) = smol::channel::unbounded();
    node.serve(Gated { gate, entered }).register("waits").expect("the name is free");
    node.serve(Echo).register("echo").expect("the name is free");
    let waits = node.call::<Atom, _>(&ServerRef::local("waits"), &atom("unblock"), PATIENCE);
    let waits = thread::spawn(move || block_on(waits));
    block_on(blocks.recv()).expect("the work has begun");
    let answer = node.call::<u8, _>(&ServerRef::local("echo"), &7, PATIENCE);
    assert_eq!(block_on(answer), Ok(7), "by the one thread, while the other server waits");
    assert!(!waits.is_finished());
    drop(open);
    assert_eq!(waits.join().expect("no panic"), Ok(atom("ok")));
}

/// Its drop panics.
struct Bomb(&'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        // A panic within a panic would end the test.
        assert!(thread::panicking(), "dropped: {}", self.0);
    }
}

/// A server that has bombs in all places.
struct Armed {
    _own: Option<Bomb>,
    reached: Sender<()>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Arm {
    Timer,
    Wait,
    Keep,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum ArmedInfo {
    #[serde(skip)]
    Later(#[allow(dead_code, reason = "it is dropped")] Bomb),
}

impl Server for Armed {
    type Call = Arm;
    type Cast = Never;
    type Info = ArmedInfo;

    async fn handle_call(&mut self, arm: Arm, from: ReplyTo, cx: &mut Context<Self>) {
        match arm {
            Arm::Timer => {
                cx.send_after(Duration::MAX, ArmedInfo::Later(Bomb("timer")));
                from.reply(&atom("ok"));
            }
            Arm::Wait => {
                let _across = Bomb("local");
                from.reply(&atom("ok"));
                self.reached.try_send(()).expect("the test listens");
                std::future::pending().await
            }
            Arm::Keep => from.reply(&atom("ok")),
        }
    }
}

/// Ends a server that is armed in one place; its watchers get the reason, its name is free, and the log blames the program.
#[track_caller]
fn a_drop_that_panics_ends_its_server_alone(arm: &'static str, own: Option<Bomb>, is_killed: bool) {
    keep_log();
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let (reached, waits) = smol::channel::unbounded();
    let server = node.serve(Armed { _own: own, reached });
    server.register("armed").expect("the name is free");
    let armed = ServerRef::local("armed");
    let mut monitor = block_on(node.client().monitor(&armed)).expect("it is set");
    assert_eq!(block_on(node.call::<Atom, _>(&armed, &atom(arm), PATIENCE)), Ok(atom("ok")));
    let reason = if is_killed {
        if arm == "wait" {
            block_on(waits.recv()).expect("the handler waits");
        }
        server.kill();
        "killed"
    } else {
        server.stop(&atom("enough"));
        "enough"
    };
    let told = block_on(monitor.ended());
    assert_eq!(told.view().bytes(), to_term(&atom(reason)).expect("a term"));
    wait_until("the log says it", || !logged(&["ERROR", "dropped:", "a bug of the program"]).is_empty());
    node.serve(Echo).register("armed").expect("the name is free again");
    assert_eq!(block_on(node.call::<u8, _>(&armed, &7, PATIENCE)), Ok(7));
    nothing_is_a_bug_of_kvnode();
}

#[test]
fn a_server_whose_drop_panics_is_a_bug_of_the_program() {
    a_drop_that_panics_ends_its_server_alone("keep", Some(Bomb("server")), false);
}

#[test]
fn what_a_handler_holds_when_it_is_killed_may_panic() {
    a_drop_that_panics_ends_its_server_alone("wait", None, true);
}

#[test]
fn a_message_of_a_timer_whose_drop_panics_is_a_bug_of_the_program() {
    a_drop_that_panics_ends_its_server_alone("timer", None, false);
}

#[test]
fn bombs_in_two_places_do_not_end_the_program() {
    a_drop_that_panics_ends_its_server_alone("timer", Some(Bomb("server")), true);
    a_drop_that_panics_ends_its_server_alone("wait", Some(Bomb("server")), true);
}

/// An inline server whose drop panics.
struct ArmedInline(#[allow(dead_code, reason = "it is dropped")] Bomb);

impl GenServer for ArmedInline {
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        turn.reply(caller, |w| _ = w.term(request));
    }

    fn handle_cast(&self, _: TermView<'_>, _: &mut Turn<'_>) {}
}

#[test]
fn an_inline_server_whose_drop_panics_costs_no_connection() {
    keep_log();
    let epmd = Epmd::start();
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start(&epmd, "rust");
    node.serve_inline(Arc::new(ArmedInline(Bomb("inline")))).register("inline").expect("the name is free");
    let inline = format!("{{:inline, :\"{}\"}}", node.name());
    beam.ping(node.name().as_str());
    beam.run(":ok = :net_kernel.monitor_nodes(true, node_type: :all)");
    beam.check(&format!("GenServer.call({inline}, :one)"), ":one");
    // By the connection, which has the last that there is of the process.
    beam.run(&format!(
        "pid = :erpc.call(:\"{}\", Process, :whereis, [:inline]); Process.exit(pid, :enough)",
        node.name()
    ));
    wait_until("the log says it", || !logged(&["dropped: inline", "a bug of the program"]).is_empty());
    beam.check("receive do {:nodedown, node, _} -> node after 0 -> :none end", ":none");
    nothing_is_a_bug_of_kvnode();
}

#[test]
fn tasks_that_panic_end_alone_and_at_the_nodes_end_too() {
    keep_log();
    let epmd = Epmd::start();
    let node = Running::start_with(
        &epmd,
        "rust",
        Limits::default().with_shutdown_duration_max(Duration::from_millis(100)),
    );
    node.spawn(async { panic!("by a task") });
    wait_until("the log says it", || !logged(&["ERROR", "a task of the program", "by a task"]).is_empty());
    node.spawn(async {
        let _done = Bomb("done");
    });
    wait_until("the log says it", || !logged(&["dropped: done"]).is_empty());
    let (started, starts) = smol::channel::unbounded();
    let of_process = node.serve(Echo);
    for holder in 0..2 {
        let started = started.clone();
        let task = async move {
            let _at_the_end = Bomb("half done");
            started.try_send(()).expect("the test listens");
            std::future::pending().await
        };
        if holder == 0 {
            node.spawn(task)
        } else {
            of_process.spawn(task)
        }
        block_on(starts.recv()).expect("it runs");
    }
    block_on(node.stop());
    // Dropped by the executor, which ends the program at a panic that reaches it.
    wait_until("the log says it", || logged(&["a task of the program", "dropped: half done"]).len() == 2);
    nothing_is_a_bug_of_kvnode();
}

#[test]
fn a_handler_that_panics_beside_a_server_whose_drop_does_tells_its_callers_the_first() {
    struct Both(#[allow(dead_code, reason = "it is dropped")] Bomb);

    impl Server for Both {
        type Call = Atom;
        type Cast = Never;
        type Info = Never;

        async fn handle_call(&mut self, _: Atom, from: ReplyTo, _cx: &mut Context<Self>) {
            let _kept = from;
            panic!("by the handler");
        }
    }

    keep_log();
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    node.serve(Both(Bomb("both"))).register("both").expect("the name is free");
    let answer = block_on(node.call::<Atom, _>(&ServerRef::local("both"), &atom("what"), PATIENCE));
    let reason = format!("{:?}", answer.expect_err("it has ended"));
    assert!(reason.contains("by the handler"), "{reason}");
    wait_until("the log says it", || !logged(&["dropped: both", "a bug of the program"]).is_empty());
    nothing_is_a_bug_of_kvnode();
}

#[test]
fn a_node_ends_beside_handlers_that_have_all_its_threads() {
    let epmd = Epmd::start();
    let limits = Limits::default().with_shutdown_duration_max(Duration::from_millis(200));
    let beam = BeamNode::start(&Otp::usual(), &epmd, "beam");
    let node = Running::start_as(&epmd, Node::builder("rust").limits(limits).threads(threads(1)));
    let (open, gate) = smol::channel::bounded::<()>(1);
    let (entered, blocks) = smol::channel::unbounded();
    node.serve(Gated { gate, entered }).register("blocks").expect("the name is free");
    let blocker = format!("{{:blocks, :\"{}\"}}", node.name());
    beam.ping(node.name().as_str());
    let watcher = beam.spawn(&format!(
        "ref = Process.monitor({blocker}); GenServer.cast({blocker}, :block)
         receive do {{:DOWN, ^ref, _, _, reason}} -> reason end"
    ));
    block_on(blocks.recv()).expect("the handler has the thread");
    let ended = node.stop();
    assert_eq!(watcher.value(), ":shutdown", "told while the handler holds the thread");
    drop(open);
    block_on(ended);
}
