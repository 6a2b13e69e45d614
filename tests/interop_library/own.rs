//! What the program itself brings to its servers, what they have done beside their messages, and their callers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kvnode::config::Limits;
use kvnode::etf::{Atom, Pid, atom};
use kvnode::{
    Ask, CallError, Context, Never, Node, NotTold, ReplyTo, Server, ServerHandle, ServerRef, TaskRef,
    TimerRef, block_on,
};
use serde::{Deserialize, Serialize};
use smol::Timer;
use smol::channel::{Receiver, Sender};

use crate::server::probe;
use crate::support::wait::PATIENCE;
use crate::support::{BeamNode, Epmd, Otp, Running, on_every_otp, wait_until};

/// Says what it hears, and starts tasks that wait at a gate.
struct Listener {
    heard: Vec<String>,
    tasks: Vec<TaskRef>,
    gate: Receiver<()>,
    /// Outcomes that became a message.
    outcomes: Arc<AtomicUsize>,
    /// Tasks that are there.
    alive: Arc<AtomicUsize>,
}

/// Counted for as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Caller,
    Heard,
    /// Answers, and waits at the gate.
    Gate,
    /// Starts a task that waits at the gate, and says this then.
    Task(String),
    /// Starts a task that is done at once, and waits at the gate itself.
    Busy,
    /// Starts so many tasks that hold a thread until the gate opens.
    Hold(usize),
    Cancel,
    /// Starts a task that panics at once.
    PanicTask(String),
    PanicUnblock(String),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Cast {
    Hear(i64),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Info {
    Open(i64),
    #[serde(skip)]
    Told(i64),
    #[serde(skip)]
    Outcome(String),
}

impl Listener {
    /// Starts a task that says this when it is done.
    fn task(
        &mut self,
        text: String,
        work: impl Future<Output = ()> + Send + 'static,
        cx: &mut Context<Self>,
    ) {
        let (counted, outcomes) = (Counted::new(&self.alive), Arc::clone(&self.outcomes));
        let work = async move {
            work.await;
            drop(counted);
            text
        };
        self.tasks.push(cx.spawn(work, move |text| {
            outcomes.fetch_add(1, Ordering::SeqCst);
            Info::Outcome(text)
        }));
    }
}

impl Server for Listener {
    type Call = Call;
    type Cast = Cast;
    type Info = Info;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, cx: &mut Context<Self>) {
        match call {
            Call::Caller => {
                let caller = from.caller().clone();
                from.reply(&caller);
            }
            Call::Heard => from.reply(&std::mem::take(&mut self.heard)),
            Call::Gate => {
                from.reply(&atom("ok"));
                let _closed = self.gate.recv().await;
            }
            Call::Task(text) => {
                let gate = self.gate.clone();
                self.task(text, async move { _ = gate.recv().await }, cx);
                from.reply(&atom("ok"));
            }
            Call::Busy => {
                self.task("unheard".into(), async {}, cx);
                from.reply(&atom("ok"));
                let _closed = self.gate.recv().await;
            }
            Call::Hold(count) => {
                for number in 0..count {
                    let (gate, outcomes) = (self.gate.clone(), self.outcomes.clone());
                    cx.unblock(
                        move || {
                            let _closed = gate.recv_blocking();
                            number
                        },
                        move |number| {
                            outcomes.fetch_add(1, Ordering::SeqCst);
                            Info::Outcome(number.to_string())
                        },
                    );
                }
                from.reply(&atom("ok"));
            }
            Call::Cancel => {
                let cancelled: Vec<bool> = self.tasks.iter().map(|task| cx.cancel_task(*task)).collect();
                from.reply(&cancelled);
            }
            Call::PanicTask(text) => {
                cx.spawn(async move { panic!("{text}") }, |()| Info::Told(0));
                from.reply(&atom("ok"));
            }
            Call::PanicUnblock(text) => {
                cx.unblock(move || panic!("{text}"), |()| Info::Told(0));
                from.reply(&atom("ok"));
            }
        }
    }

    async fn handle_cast(&mut self, Cast::Hear(number): Cast, _cx: &mut Context<Self>) {
        self.heard.push(format!("cast {number}"));
    }

    async fn handle_info(&mut self, info: Info, _cx: &mut Context<Self>) {
        self.heard.push(match info {
            Info::Open(number) => format!("open {number}"),
            Info::Told(number) => format!("told {number}"),
            Info::Outcome(text) => format!("outcome {text}"),
        });
    }
}

/// What a test holds of a listener.
struct Held {
    handle: ServerHandle<Listener>,
    gate: Sender<()>,
    outcomes: Arc<AtomicUsize>,
    alive: Arc<AtomicUsize>,
}

fn listen(node: &Node) -> Held {
    let (gate, at_gate) = smol::channel::unbounded();
    let (outcomes, alive) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let listener = Listener {
        heard: Vec::new(),
        tasks: Vec::new(),
        gate: at_gate,
        outcomes: Arc::clone(&outcomes),
        alive: Arc::clone(&alive),
    };
    let handle = node.serve_own(|_| listener);
    handle.process().register("listener").expect("the name is free");
    Held { handle, gate, outcomes, alive }
}

impl Held {
    /// Tasks that are there.
    fn tasks(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    fn to(&self) -> ServerRef {
        self.handle.pid().clone().into()
    }
}

/// A BEAM that is connected to a node of ours with a listener, which it knows as `listener`.
fn pair(otp: &Otp, limits: Limits) -> (Epmd, BeamNode, Running, Held) {
    let epmd = Epmd::start();
    let beam = BeamNode::start(otp, &epmd, "beam");
    let node = Running::start_with(&epmd, "rust", limits);
    let held = listen(&node);
    beam.ping(node.name().as_str());
    beam.run(&format!("listener = {{:listener, :\"{}\"}}", node.name()));
    (epmd, beam, node, held)
}

#[test]
fn a_server_is_told_which_process_calls_it() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, held) = pair(otp, Limits::default());
        beam.check("GenServer.call(listener, :caller) == self()", "true");
        beam.check("Task.await(Task.async(fn -> GenServer.call(listener, :caller) == self() end))", "true");
        beam.check("{:ok, a} = Agent.start(fn -> 0 end); Agent.get(a, fn _ -> GenServer.call(listener, :caller) end) == a", "true");
        let client = node.client();
        let caller: Pid = block_on(client.call_as(&held.to(), &atom("caller"), PATIENCE)).expect("an answer");
        assert_eq!(caller, *client.from_pid());
    });
}

#[test]
fn what_the_program_tells_comes_in_order_with_what_nodes_send() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, held) = pair(otp, Limits::default());
        probe(&node).process.register("probe").expect("the name is free");
        // What was sent before by the same connection is in its mailbox when this is answered.
        let arrived = || beam.run("is_list(GenServer.call({:probe, elem(listener, 1)}, :heard))");
        beam.check("GenServer.call(listener, :gate)", ":ok");
        beam.run("GenServer.cast(listener, {:hear, 1})");
        arrived();
        held.handle.tell(Info::Told(2)).expect("there is room");
        beam.run("send(listener, {:open, 3})");
        arrived();
        held.handle.tell(Info::Told(4)).expect("there is room");
        // Of these only the first is one that others may send.
        beam.run("send(listener, {:open, 5}); send(listener, {:told, 6}); send(listener, {:outcome, \"7\"})");
        held.gate.try_send(()).expect("the server waits there");
        beam.check(
            "GenServer.call(listener, :heard)",
            r#"["cast 1", "told 2", "open 3", "told 4", "open 5"]"#,
        );
    });
}

/// Is told things by the program alone.
struct Private(Vec<u32>);

#[derive(Deserialize)]
enum Alone {
    #[serde(skip)]
    Secret(u32),
}

impl Server for Private {
    type Call = Atom;
    type Cast = Never;
    type Info = Alone;

    async fn handle_call(&mut self, _heard: Atom, from: ReplyTo, cx: &mut Context<Self>) {
        // By what the server itself hands out, too.
        let handle = cx.handle();
        std::thread::spawn(move || handle.tell(Alone::Secret(3)))
            .join()
            .expect("no panic")
            .expect("there is room");
        from.reply(&self.0);
    }

    async fn handle_info(&mut self, Alone::Secret(number): Alone, _cx: &mut Context<Self>) {
        self.0.push(number);
    }
}

#[test]
fn no_node_can_send_what_only_the_program_tells() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, _held) = pair(otp, Limits::default());
        let handle = node.serve_own(|handle| {
            handle.tell(Alone::Secret(1)).expect("it may be told before it runs");
            Private(Vec::new())
        });
        handle.process().register("private").expect("the name is free");
        beam.run("private = {:private, elem(listener, 1)}");
        beam.run("for m <- [:secret, :Secret, {:secret, 2}, {:Secret, 2}, 2, {}], do: send(private, m)");
        beam.check("GenServer.call(private, :heard)", "[1]");
        beam.check("GenServer.call(private, :heard)", "[1, 3]");
    });
}

#[test]
fn what_cannot_be_told_comes_back() {
    let epmd = Epmd::start();
    let node = Running::start_with(&epmd, "rust", Limits::default().with_mailbox_messages_max(3));
    let held = listen(&node);
    let ok: Atom = block_on(node.call(&held.to(), &atom("gate"), PATIENCE)).expect("an answer");
    assert_eq!(ok, atom("ok"));
    for number in 1..=3 {
        held.handle.tell(Info::Told(number)).expect("there is room");
    }
    let full = held.handle.tell(Info::Told(4)).expect_err("there is no room");
    assert_eq!(full.to_string(), "the server's mailbox is full (Limits::mailbox_messages_max)");
    assert!(matches!(full, NotTold::Full(Info::Told(4))), "{full:?}");
    held.gate.try_send(()).expect("the server waits there");
    let mut heard = Vec::new();
    wait_until("the three are heard", || {
        // There is no room for the call until the server has taken one of them.
        let more = block_on(node.call::<Vec<String>, _>(&held.to(), &atom("heard"), PATIENCE));
        heard.extend(more.unwrap_or_default());
        heard.len() == 3
    });
    assert_eq!(heard, ["told 1", "told 2", "told 3"]);
    held.handle.process().kill();
    block_on(held.handle.process().ended());
    let ended = held.handle.tell(Info::Told(5)).expect_err("it has ended");
    assert_eq!(ended.to_string(), "the server has ended");
    assert!(matches!(ended, NotTold::Ended(Info::Told(5))), "{ended:?}");
}

#[test]
fn a_server_that_cannot_be_made_leaves_no_process() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let mut kept: Option<ServerHandle<Private>> = None;
    let made = catch_unwind(AssertUnwindSafe(|| {
        node.serve_own::<Private>(|handle| {
            handle.process().register("private").expect("the name is free");
            kept = Some(handle);
            panic!("not made")
        })
    }));
    assert!(made.is_err());
    let kept = kept.expect("it was given");
    assert!(!kept.process().is_alive());
    assert!(node.whereis_local("private").is_none());
    assert!(matches!(kept.tell(Alone::Secret(1)), Err(NotTold::Ended(_))));
}

#[test]
fn outcomes_of_tasks_are_told_unless_they_are_cancelled_or_the_server_has_ended() {
    on_every_otp(|otp| {
        let (_epmd, beam, _node, held) = pair(otp, Limits::default());
        beam.check("GenServer.call(listener, {:task, \"first\"})", ":ok");
        assert_eq!(held.tasks(), 1);
        // The server goes on meanwhile.
        beam.check("GenServer.call(listener, :heard)", "[]");
        held.gate.try_send(()).expect("the task waits there");
        beam.check_soon("GenServer.call(listener, :heard)", "[\"outcome first\"]");
        // Taken back, it ends where it waits; the first has had its outcome.
        beam.check("GenServer.call(listener, {:task, \"second\"})", ":ok");
        beam.check("GenServer.call(listener, :cancel)", "[false, true]");
        wait_until("the task is dropped", || held.tasks() == 0);
        // So does one whose server ends.
        beam.check("GenServer.call(listener, {:task, \"third\"})", ":ok");
        beam.check("GenServer.stop(listener)", ":ok");
        wait_until("the task is dropped", || held.tasks() == 0);
        assert_eq!(held.outcomes.load(Ordering::SeqCst), 1);
    });
}

#[test]
fn an_outcome_that_comes_while_the_server_is_at_something_ends_with_it() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let held = listen(&node);
    let ok: Atom = block_on(node.call(&held.to(), &atom("busy"), PATIENCE)).expect("an answer");
    assert_eq!(ok, atom("ok"));
    wait_until("the task is done", || held.tasks() == 0);
    held.handle.process().kill();
    block_on(held.handle.process().ended());
    wait_until("the server is dropped", || held.gate.is_closed());
    assert_eq!(held.outcomes.load(Ordering::SeqCst), 0);
}

#[test]
fn a_task_that_panics_ends_its_server_with_the_panic_as_reason() {
    on_every_otp(|otp| {
        for request in ["panic_task", "panic_unblock"] {
            let (_epmd, beam, _node, held) = pair(otp, Limits::default());
            beam.run("ref = Process.monitor(listener)");
            beam.check(&format!("GenServer.call(listener, {{:{request}, \"oh\"}})"), ":ok");
            beam.check(
                "receive do {:DOWN, ^ref, :process, _, reason} -> reason after 20_000 -> :none end",
                "{:panic, \"oh\"}",
            );
            block_on(held.handle.process().ended());
        }
    });
}

#[test]
fn work_that_holds_threads_leaves_those_of_the_node_free() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let held = listen(&node);
    let ok: Atom = block_on(node.call(&held.to(), &(atom("hold"), 64), PATIENCE)).expect("an answer");
    assert_eq!(ok, atom("ok"));
    let heard: Vec<String> = block_on(node.call(&held.to(), &atom("heard"), PATIENCE)).expect("an answer");
    assert!(heard.is_empty(), "{heard:?}");
    held.gate.close();
    wait_until("all outcomes are there", || held.outcomes.load(Ordering::SeqCst) == 64);
    let heard: Vec<String> = block_on(node.call(&held.to(), &atom("heard"), PATIENCE)).expect("an answer");
    assert_eq!(heard.len(), 64);
}

/// Has an interval.
struct Ticking {
    period: Duration,
    /// What handling one takes.
    takes: Duration,
    /// After so many the interval is cancelled, and the end told a while later.
    cancel_after: usize,
    interval: Option<TimerRef>,
    ticks: usize,
    told: Sender<(Tick, bool)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum Tick {
    #[serde(skip)]
    Tick,
    #[serde(skip)]
    End,
}

impl Server for Ticking {
    type Call = Atom;
    type Cast = Never;
    type Info = Tick;

    async fn init(&mut self, cx: &mut Context<Self>) {
        self.interval = Some(cx.send_interval(self.period, Tick::Tick));
    }

    async fn handle_call(&mut self, _ticks: Atom, from: ReplyTo, _cx: &mut Context<Self>) {
        from.reply(&self.ticks);
    }

    async fn handle_info(&mut self, tick: Tick, cx: &mut Context<Self>) {
        let mut cancelled = false;
        if tick == Tick::Tick {
            Timer::after(self.takes).await;
            self.ticks += 1;
            if self.ticks == self.cancel_after {
                let interval = self.interval.take().expect("it was started");
                cancelled = cx.cancel_timer(interval) && !cx.cancel_timer(interval);
                cx.send_after(self.period * 4, Tick::End);
            }
        }
        let _gone = self.told.try_send((tick, cancelled));
    }
}

fn ticking(node: &Node, period: u64, takes: u64, cancel_after: usize) -> (ServerRef, Receiver<(Tick, bool)>) {
    let (told, ticks) = smol::channel::unbounded();
    let ms = Duration::from_millis;
    let server =
        Ticking { period: ms(period), takes: ms(takes), cancel_after, interval: None, ticks: 0, told };
    (node.serve(server).pid().clone().into(), ticks)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "an interval lives in real time")]
fn an_interval_comes_again_and_again_until_it_is_cancelled() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let began = Instant::now();
    let (_server, ticks) = ticking(&node, 50, 0, 5);
    for number in 1..=5 {
        let tick = ticks.recv_blocking().expect("the server runs");
        assert_eq!(tick, (Tick::Tick, number == 5));
        assert!(began.elapsed() >= Duration::from_millis(50) * number, "{number}: {:?}", began.elapsed());
    }
    assert_eq!(ticks.recv_blocking(), Ok((Tick::End, false)));
    assert!(ticks.is_empty());
}

#[test]
fn an_interval_that_is_always_due_leaves_the_mailbox_its_turns() {
    let epmd = Epmd::start();
    let node = Running::start(&epmd, "rust");
    let (server, ticks) = ticking(&node, 1, 5, usize::MAX);
    ticks.recv_blocking().expect("the server runs");
    for _ in 0..10 {
        let ticks: usize = block_on(node.call(&server, &atom("ticks"), PATIENCE)).expect("it has a turn");
        assert!(ticks > 0);
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Price {
    Price(String),
}

impl Ask for Price {
    type Answer = Option<f64>;
}

/// Answers what the request names, asked by itself or by way of another.
struct Prices;

impl Server for Prices {
    type Call = Price;
    type Cast = Never;
    type Info = Never;

    async fn handle_call(&mut self, Price::Price(item): Price, from: ReplyTo, cx: &mut Context<Self>) {
        match item.as_str() {
            "tea" => from.answer::<Price>(&Some(4.5)),
            "beam" => {
                let beam = ServerRef::remote("prices", from.caller().node.as_ref());
                let price = cx.ask(&beam, &Price::Price(item), PATIENCE).await;
                from.answer::<Price>(&price.expect("an answer"));
            }
            _ => from.answer::<Price>(&None),
        }
    }
}

#[test]
fn a_request_names_its_answer() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, _held) = pair(otp, Limits::default());
        node.serve(Prices).register("prices").expect("the name is free");
        beam.run(
            "answers = [2.25, 0.5, \"dear\"]
             pid = spawn(fn ->
               for answer <- answers do
                 receive do {:\"$gen_call\", from, {:price, \"beam\"}} -> GenServer.reply(from, answer) end
               end
             end)
             Process.register(pid, :prices)",
        );
        beam.run("prices = {:prices, elem(listener, 1)}");
        beam.check("GenServer.call(prices, {:price, \"tea\"})", "4.5");
        beam.check("GenServer.call(prices, {:price, \"time\"})", "nil");
        beam.check("GenServer.call(prices, {:price, \"beam\"})", "2.25");
        let there = ServerRef::remote("prices", beam.name());
        let ask = || block_on(node.ask(&there, &Price::Price("beam".into()), PATIENCE));
        assert_eq!(ask(), Ok(Some(0.5)));
        let wrong = ask();
        assert!(matches!(wrong, Err(CallError::Unreadable(_))), "{wrong:?}");
    });
}

#[test]
fn a_message_without_room_is_told_the_bound_and_its_setting() {
    on_every_otp(|otp| {
        let (_epmd, beam, node, held) = pair(otp, Limits::default());
        // The server is idle: the message alone is over the bound.
        let ended = beam.eval("GenServer.call(listener, {:task, :binary.copy(\"x\", 70_000_000)}, 60_000)");
        let ended = ended.unwrap_err();
        let says =
            "and the server's mailbox has room for 67108864 of its 67108864 (Limits::mailbox_bytes_max)";
        let reason = ended.exit_reason();
        assert!(reason.contains("{:system_limit, \"the message has 7000"), "{reason}");
        assert!(reason.contains(says), "{reason}");
        // So is what Rust callers see, and the next call finds the server well.
        let large = (atom("task"), "x".repeat(70_000_000));
        let error =
            block_on(node.call::<Atom, _>(&held.to(), &large, PATIENCE)).expect_err("there is no room");
        let text = error.to_string();
        assert!(text.starts_with("the call was ended: the message has 7000"), "{text}");
        assert!(text.ends_with(says), "{text}");
        beam.check("GenServer.call(listener, :heard)", "[]");
    });
    let epmd = Epmd::start();
    let node = Running::start_with(&epmd, "rust", Limits::default().with_mailbox_messages_max(2));
    let held = listen(&node);
    let _ok: Atom = block_on(node.call(&held.to(), &atom("gate"), PATIENCE)).expect("an answer");
    held.handle.tell(Info::Told(1)).expect("there is room");
    held.handle.tell(Info::Told(2)).expect("there is room");
    let error =
        block_on(node.call::<Atom, _>(&held.to(), &atom("caller"), PATIENCE)).expect_err("there is no room");
    let says = "the server's mailbox has 2 messages, and takes no more (Limits::mailbox_messages_max)";
    assert_eq!(error.to_string(), format!("the call was ended: {says}"));
}
