use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::*;
use crate::clock::now;
use crate::etf::{Atom, atom};
use crate::node::server::{Never, tasks::TaskRef};
use crate::node::{Context, Down, ReplyTo, unblock};
use crate::process::exits::text_of;
use crate::within::within;

/// Does what it is asked, and tells `{:global, :log}` of all that comes.
#[derive(Default)]
struct Worker {
    task: Option<TaskRef>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum Call {
    Task,
    Unblock,
    Cancel,
    Panic,
    Drop,
    Within,
    Name,
    Link(Pid),
    Unlink(Pid),
    Trap,
    Stop(Atom),
}

#[derive(serde::Deserialize)]
enum Info {
    #[serde(rename = "EXIT")]
    Exit(Pid, OwnedTerm),
    #[serde(skip)]
    Done(String, ReplyTo),
    #[serde(skip)]
    Told(u8),
}

fn log() -> ServerRef {
    ServerRef::global("log")
}

impl Server for Worker {
    type Call = Call;
    type Cast = Never;
    type Info = Info;

    async fn handle_call(&mut self, call: Call, from: ReplyTo, cx: &mut Context<Self>) {
        match call {
            Call::Task => {
                let work = async {
                    crate::node::after(Duration::from_secs(10)).await;
                    "waited".to_owned()
                };
                self.task = Some(cx.spawn(work, |text| Info::Done(text, from)));
            }
            Call::Unblock => {
                let free = unblock(|| "free".to_owned()).await;
                cx.unblock(move || free, |text| Info::Done(text, from));
            }
            Call::Cancel => from.reply(&self.task.take().is_some_and(|task| cx.cancel_task(task))),
            Call::Panic => panic!("as asked"),
            Call::Drop => drop(from),
            Call::Within => {
                let found = within(Duration::from_secs(3600), std::future::pending::<()>()).await;
                from.reply(&found.is_some());
            }
            Call::Name => {
                cx.process().register("worker").expect("the name is free");
                let name = cx.process().register_global("worker").expect("the name is free");
                from.reply(&name.name());
            }
            Call::Link(pid) => {
                cx.link(&pid).await;
                from.reply(&atom("ok"));
            }
            Call::Unlink(pid) => {
                cx.unlink(&pid);
                from.reply(&atom("ok"));
            }
            Call::Trap => {
                cx.trap_exits(true);
                from.reply(&atom("ok"));
            }
            Call::Stop(reason) => cx.stop(&reason),
        }
    }

    async fn handle_info(&mut self, info: Info, cx: &mut Context<Self>) {
        match info {
            Info::Exit(pid, reason) => _ = cx.send(&log(), &(atom("exit"), pid, reason)).await,
            Info::Done(text, from) => from.reply(&text),
            Info::Told(number) => _ = cx.send(&log(), &number).await,
        }
    }

    async fn handle_down(&mut self, down: Down, cx: &mut Context<Self>) {
        let _ = cx.send(&log(), &(atom("down"), down.reason)).await;
    }

    async fn terminate(&mut self, reason: &OwnedTerm, cx: &mut Context<Self>) {
        let _ = cx.send(&log(), &(atom("terminate"), reason)).await;
    }

    fn state(&self) -> impl Serialize {
        self.task.is_some()
    }
}

fn worker() -> TestServer<Worker> {
    TestServer::start(Worker::default())
}

fn shown(term: Option<OwnedTerm>) -> String {
    format!("{:?}", term.expect("there is one"))
}

/// What a failed assertion says.
fn says(check: impl FnOnce()) -> String {
    text_of(&*catch_unwind(AssertUnwindSafe(check)).expect_err("the assertion fails"))
}

#[test]
fn a_task_waits_by_the_clock_of_the_test_and_is_cancelled() {
    let (mut worker, began) = (worker(), now());
    let call = worker.call(&atom("task"));
    worker.advance(Duration::from_millis(9_999));
    assert_eq!(call.answer(), None);
    assert!(worker.state::<bool>());
    worker.advance(Duration::from_millis(1));
    assert_eq!(call.reply::<String>(), "waited");
    let call = worker.call(&atom("task"));
    assert!(worker.call(&atom("cancel")).reply::<bool>());
    // What it would have been answered by is dropped with the task.
    assert_eq!(shown(Some(call.exit())), ":noreply");
    let call = worker.call(&atom("within"));
    worker.advance(Duration::from_secs(3600));
    assert!(!call.reply::<bool>());
    assert!(began.elapsed() < Duration::from_secs(60), "no time is waited for");
}

#[test]
fn work_that_blocks_is_done_by_the_thread_of_the_test() {
    thread_local!(static HERE: Cell<bool> = const { Cell::new(false) });
    HERE.set(true);
    let mut worker = worker();
    assert_eq!(worker.call(&atom("unblock")).reply::<String>(), "free");
    let _entered = worker.stage.clock.enter();
    let here = crate::node::block_on(unblock(|| HERE.get()));
    assert!(here);
}

#[test]
fn panics_unknown_requests_and_dropped_answers_are_values() {
    let mut worker = worker();
    assert_eq!(shown(Some(worker.call(&(atom("dance"), 1)).exit())), "{:bad_call, {:dance, 1}}");
    assert_eq!(shown(Some(worker.call(&atom("drop")).exit())), ":noreply");
    assert_eq!(worker.end(), None);
    let call = worker.call(&atom("panic"));
    assert_eq!(call.answer(), worker.end().map(Answer::Exit));
    assert_eq!(shown(worker.end()), r#"{:panic, "as asked"}"#);
    // A panic tells nobody: `terminate` was not called.
    assert_eq!(worker.sent(), []);
    assert_eq!(shown(Some(worker.call(&atom("task")).exit())), ":noproc");
    assert!(worker.tell(Info::Told(1)).is_err());
}

#[test]
fn a_failed_assertion_says_what_happened_instead() {
    let mut worker = worker();
    let call = worker.call(&atom("dance"));
    let text = says(|| _ = call.reply::<u8>());
    assert_eq!(text, "the call :dance was not answered: its caller exits with {:bad_call, :dance}");
    let call = worker.call(&atom("cancel"));
    assert_eq!(says(|| _ = call.exit()), "the call :cancel was answered, with false");
    assert!(
        says(|| _ = call.reply::<u8>())
            .starts_with("the call :cancel was answered with false, which is no u8: ")
    );
    let call = worker.call(&atom("task"));
    assert_eq!(says(|| _ = call.reply::<u8>()), "the call :task has no answer so far");
    let text = says(|| _ = worker.answer(&log(), &1));
    assert_eq!(text, "the server does not wait for {:global, :log}; it has sent []");
    worker.stop(&atom("normal"));
    let text = says(|| _ = worker.answer(&log(), &1));
    assert_eq!(text, "the server does not wait for {:global, :log}: it has ended with :normal");
}

#[test]
fn links_are_told_both_ways() {
    let mut worker = worker();
    let pid = worker.new_pid("beam@host");
    worker.call(&(atom("link"), &pid));
    worker.call(&(atom("unlink"), &pid));
    assert_eq!(worker.sent(), [Sent::Link(pid.clone()), Sent::Unlink(pid.clone())]);
    assert_eq!(worker.down(&pid.clone().into(), &atom("oops")), 0);
    assert_eq!(worker.end(), None);

    worker.call(&atom("trap"));
    worker.call(&(atom("link"), &pid));
    assert_eq!(worker.sent(), [Sent::Link(pid.clone())]);
    assert_eq!(worker.down(&pid.clone().into(), &atom("oops")), 1);
    assert_eq!(worker.sent(), [Sent::message(&log(), &(atom("exit"), &pid, atom("oops")))]);

    worker.call(&(atom("link"), &pid));
    worker.call(&(atom("stop"), atom("enough")));
    let told = [
        Sent::Link(pid.clone()),
        Sent::message(&log(), &(atom("terminate"), atom("enough"))),
        Sent::Exit { to: pid, reason: OwnedTerm::atom("enough") },
    ];
    assert_eq!(worker.sent(), told);
    assert_eq!(shown(worker.end()), ":enough");
}

#[test]
fn a_link_and_a_lost_node_end_a_server_that_does_not_trap_exits() {
    let mut worker = worker();
    let pid = worker.new_pid("beam@host");
    worker.call(&(atom("link"), &pid));
    assert!(worker.node_down("beam@host"));
    assert_eq!(shown(worker.end()), ":noconnection");
    let mut worker = self::worker();
    worker.exit(&pid, &atom("normal"));
    assert_eq!(worker.end(), None);
    worker.exit(&pid, &atom("kill"));
    assert_eq!(shown(worker.end()), ":killed");
}

#[test]
fn names_are_those_that_the_server_has_taken() {
    let mut worker = worker();
    worker.call(&atom("name"));
    assert_eq!(worker.names(), [ServerRef::remote("worker", OWN_NODE), ServerRef::global("worker")]);
}

#[test]
fn what_a_thread_tells_is_there_once_the_server_has_run() {
    let mut worker = worker();
    let handle = worker.handle().clone();
    std::thread::spawn(move || handle.tell(Info::Told(7)).is_ok()).join().expect("it does not panic");
    assert_eq!(worker.sent(), []);
    worker.run();
    assert_eq!(worker.sent(), [Sent::message(&log(), &7)]);
    worker.stop(&(atom("shutdown"), 1));
    assert_eq!(shown(worker.end()), "{:shutdown, 1}");
}
