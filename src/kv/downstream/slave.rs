//! The task of one slave: it waits for what comes for the slave's [`Downstream`], hands it in, and carries out what that
//! wants, with what a node offers to any program.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use smol::Timer;
use smol::channel::Receiver;
use smol::future::FutureExt;

use super::{ANSWER_LIMIT, chance, greeting, keys, kind, now, unix_ms};
use crate::distribution::{RemoteProcess, ServerRef};
use crate::etf::{OwnedTerm, Pid, TermView, TermWriter, key};
use crate::kv::follow::SharedSource;
use crate::kv::{FollowSlave, Polled, SlaveAdded, SlaveEntry};
use crate::process::{CallError, Feed};
use crate::replica::dialect::{write_bye, write_siblings};
use crate::replica::downstream::{
    Answer, Chance, Event, Input, KeysRead, Level, Output, Search, Whereabouts,
};
use crate::replica::{Hello, Refusal, SlaveName, SourceRead};
use crate::{Client, Node, ProcessHandle};

/// Follows a slave of a store until it is removed or the store ends, which ends this task. `added` is answered once it is
/// known whether it is one.
pub(super) async fn follow(store: ProcessHandle, FollowSlave { slave, source, added, .. }: FollowSlave) {
    let client = store.node().client_of(store.pid());
    let hands = Hands { node: store.node(), client, store: &store, slave: &slave, source };
    let (poke, poked) = smol::channel::bounded(1);
    hands.slave.on_wake(Box::new(move || {
        // A poke that waits already says the same.
        let _full = poke.try_send(());
    }));
    Carrier::new(&hands, added).run(&poked).await;
}

/// Something that was asked, until it is answered: dropped, it is asked no more.
type Slot<'a> = Option<Pin<Box<dyn Future<Output = Came> + Send + 'a>>>;

/// Something that has come.
enum Came {
    Input(Input),
    /// To be weighed against what the store is.
    Answer {
        question: u64,
        answer: Answer,
    },
    /// The slave's process is watched from now on, as long as `watch` is there; that gives the reason of its end, unless it
    /// is handed in otherwise.
    Watched {
        question: u64,
        watch: Pin<Box<dyn Future<Output = OwnedTerm> + Send>>,
    },
    /// Something was handed in by others.
    Poked,
}

/// Steps the machine of one slave.
struct Carrier<'a> {
    hands: &'a Hands<'a>,
    /// The caller that had the slave added, and waits for the answer.
    added: Option<SlaveAdded>,
    watch: Slot<'a>,
    question: Slot<'a>,
    look: Slot<'a>,
    arrival: Slot<'a>,
}

impl<'a> Carrier<'a> {
    fn new(hands: &'a Hands<'a>, added: Option<SlaveAdded>) -> Self {
        Self { hands, added, watch: None, question: None, look: None, arrival: None }
    }

    async fn run(mut self, poked: &Receiver<()>) {
        let limits = self.hands.node.limits();
        self.hands.slave.hand_in(Input::Begin(Search {
            pause_first: limits.backoff_first,
            pause_max: limits.backoff_max,
            is_awaited: self.added.is_some(),
            chance: Chance(Box::new(chance)),
        }));
        self.await_arrival();
        while self.hands.store.is_alive() {
            let due = match self.hands.slave.poll() {
                Polled::Output(output) => {
                    self.carry_out(output).await;
                    continue;
                }
                Polled::Until(due) => due,
                Polled::Over => break,
            };
            self.hands.slave.machine().note_time(unix_ms());
            let came = self.next(due, poked).await;
            // Before anything is done of what has come: another node may come up meanwhile.
            self.await_arrival();
            let slave = self.hands.slave;
            match came {
                Came::Poked => {}
                Came::Input(input) => slave.hand_in(input),
                Came::Answer { question, answer } => slave.answered(question, answer, &self.hands.source),
                Came::Watched { question, watch } => {
                    self.watch =
                        Some(Box::pin(
                            async move { Came::Input(Input::Down { question, reason: watch.await }) },
                        ));
                    slave.hand_in(Input::Watched { question, watched: Ok(()) });
                }
            }
        }
        self.settle(None);
    }

    fn await_arrival(&mut self) {
        let node = self.hands.node;
        self.arrival.get_or_insert_with(|| {
            let arrival = node.arrival();
            Box::pin(async {
                arrival.come().await;
                Came::Input(Input::NodeArrived)
            })
        });
    }

    /// Waits for what comes next. What is due at once lets others of this thread have their turn first: a copy takes long.
    async fn next(&mut self, due: Option<Instant>, poked: &Receiver<()>) -> Came {
        let mut slots = [
            // The end of a process counts before what it has answered.
            &mut self.watch,
            &mut self.question,
            &mut self.look,
            &mut self.arrival,
        ];
        let answered = std::future::poll_fn(|context| {
            for slot in &mut slots {
                if let Some(asked) = slot
                    && let Poll::Ready(came) = asked.as_mut().poll(context)
                {
                    **slot = None;
                    return Poll::Ready(came);
                }
            }
            Poll::Pending
        });
        let changed = async {
            match poked.recv().await {
                Ok(()) => Came::Poked,
                Err(_) => smol::future::pending().await,
            }
        };
        let late = async {
            match due {
                Some(due) if due <= now() => smol::future::yield_now().await,
                Some(due) => _ = Timer::at(due).await,
                None => smol::future::pending().await,
            }
            Came::Input(Input::Timeout)
        };
        answered.or(changed).or(late).await
    }

    async fn carry_out(&mut self, output: Output) {
        let hands = self.hands;
        match output {
            Output::Locate { question } => self.question = Some(Box::pin(hands.locate(question))),
            Output::Watch { question, at } => self.watch = Some(Box::pin(hands.watch(question, at))),
            Output::Unwatch => {
                (self.watch, self.question, self.look) = (None, None, None);
                hands.slave.end_question();
            }
            Output::Greeting(is_under_way) => hands.source.greeting(is_under_way),
            Output::AskDialect { question, at } => {
                self.question = Some(Box::pin(hands.ask_dialect(question, at)));
            }
            Output::Greet { question, at, hello } => {
                self.question = Some(Box::pin(hands.greet(question, at, hello)));
            }
            Output::AskKind { question, at } => self.question = Some(Box::pin(hands.ask_kind(question, at))),
            Output::Look { question } => self.look = Some(Box::pin(hands.look(question))),
            Output::Feed { node } => {
                hands.node.dispatch().feed(&node, &(Arc::clone(hands.slave) as Arc<dyn Feed>));
            }
            Output::ReadKeys { question, at } => {
                self.question = Some(Box::pin(hands.read_keys(question, at)))
            }
            Output::ReadPart { scan, part, since } => {
                let read = SlaveEntry::read_part(part, since, &*hands.source);
                hands.slave.hand_in(Input::PartRead { scan, part, read });
            }
            Output::Repair => hands.slave.repair(&*hands.source),
            Output::TellSiblings { at, session } => {
                let slaves = hands.slave.siblings(&hands.source);
                hands.tell(&at, |w| write_siblings(w, session, &slaves)).await;
            }
            Output::Bye { at, sessions } => hands.bye(&at, &sessions).await,
            Output::Part { at, incarnation, sessions } => {
                if hands.slave.part(&at, incarnation, &sessions, &hands.source) {
                    hands.bye(&at, &sessions).await;
                }
            }
            // Where the answer was handed in that had them come.
            Output::Drop { .. } | Output::Forget { .. } => {}
            Output::CopyOthers => {
                for name in hands.slave.copy_others(&hands.source) {
                    hands.log(&Event::CopiedAgain(name));
                }
            }
            Output::Moved => hands.slave.moved(&hands.source),
            Output::SlavesChanged => hands.source.slaves_changed(),
            Output::Settle(refusal) => self.settle(refusal),
            Output::UpToDate => {
                if hands.source.lineage().term > 0 {
                    hands.node.check_global_names();
                }
            }
            Output::Log(event) => hands.log(&event),
        }
    }

    fn settle(&mut self, refusal: Option<Refusal>) {
        if let Some(SlaveAdded(done)) = self.added.take() {
            done(refusal);
        }
    }
}

impl Drop for Carrier<'_> {
    fn drop(&mut self) {
        self.hands.slave.abandon(&self.hands.source);
    }
}

/// What a slave is looked after with.
struct Hands<'a> {
    node: &'a Arc<Node>,
    /// What it says comes from the store.
    client: Client,
    store: &'a ProcessHandle,
    slave: &'a Arc<SlaveEntry>,
    source: SharedSource,
}

impl Hands<'_> {
    async fn locate(&self, question: u64) -> Came {
        let found = self.find().await.map(|at| match at {
            None => Whereabouts::Nobody,
            Some(at) if self.store.has_pid(&at) => Whereabouts::Itself,
            Some(at) => Whereabouts::At(at),
        });
        Came::Input(Input::Located { question, found })
    }

    /// Where the slave is now: the pid that has its name. Writes wait until that is known, so that none goes to a name
    /// that nobody has yet.
    async fn find(&self) -> Result<Option<Pid>, String> {
        let own = self.node.name().as_str();
        Ok(match self.slave.name() {
            SlaveName::Pid(pid) => Some(pid.clone()),
            SlaveName::Remote { name, node } if **node != *own => {
                self.node.connect_to_name(node).await.map_err(|error| error.to_string())?;
                self.client
                    .whereis_at(node, name, ANSWER_LIMIT)
                    .await
                    .map_err(|error| format!("its node does not say who has that name: {error}"))?
            }
            SlaveName::Remote { name, .. } | SlaveName::Local(name) => self.node.whereis_local(name),
            SlaveName::Global(name) => match TermView::parse(name) {
                Ok(name) => self.find_global(name).await?,
                Err(_) => None,
            },
        })
    }

    /// Nodes that are connected are asked for a name in `global`. Where none of them knows it, the node is, where the slave
    /// was last: between hidden nodes nothing else says where a name is.
    async fn find_global(&self, name: TermView<'_>) -> Result<Option<Pid>, String> {
        let found = self.client.whereis_global(name, ANSWER_LIMIT).await;
        match self.slave.last_node() {
            Some(node) if found.is_none() && !self.node.is_connected(&node) => {
                self.node.connect_to_name(&node).await.map_err(|error| error.to_string())?;
                Ok(self.client.whereis_global(name, ANSWER_LIMIT).await)
            }
            _ => Ok(found),
        }
    }

    async fn look(&self, question: u64) -> Came {
        let holders = match self.slave.name() {
            SlaveName::Global(name) => match TermView::parse(name) {
                Ok(name) => self.client.global_holders(name, ANSWER_LIMIT).await,
                Err(_) => Vec::new(),
            },
            _ => self.find().await.ok().flatten().into_iter().collect(),
        };
        Came::Input(Input::Holders { question, holders })
    }

    async fn watch(&self, question: u64, at: Pid) -> Came {
        match self.monitor(question, at).await {
            Ok(watch) => Came::Watched { question, watch },
            Err(why) => Came::Input(Input::Watched { question, watched: Err(why) }),
        }
    }

    async fn monitor(
        &self,
        question: u64,
        at: Pid,
    ) -> Result<Pin<Box<dyn Future<Output = OwnedTerm> + Send>>, String> {
        let not_monitored = |error: CallError| format!("it cannot be monitored: {error}");
        self.node.connect_to_name(&at.node).await.map_err(|error| error.to_string())?;
        let slave = Arc::clone(self.slave);
        // By the thread that notices the end: nothing is sent any more in the session of a connection that is lost, however soon
        // there is another one.
        let fired = move |reason: OwnedTerm| slave.tell(Input::Down { question, reason });
        match self.client.monitor_with(RemoteProcess::Pid(at.clone()), fired) {
            Ok(watch) => Ok(Box::pin(async move {
                let _watch = watch;
                smol::future::pending().await
            })),
            // Once there is room.
            Err(CallError::Busy { .. }) => {
                let mut monitor = self.client.monitor(&ServerRef::Pid(at)).await.map_err(not_monitored)?;
                Ok(Box::pin(async move { monitor.ended().await }))
            }
            Err(error) => Err(not_monitored(error)),
        }
    }

    async fn ask_dialect(&self, question: u64, at: Pid) -> Came {
        let is_kvnode = greeting::is_kvnode(&self.client, &at.node).await.map_err(not_said);
        Came::Answer { question, answer: Answer::Dialect(is_kvnode) }
    }

    async fn greet(&self, question: u64, at: Pid, hello: Hello) -> Came {
        let answer = greeting::greet(&self.client, at, &hello, &self.store.names()).await;
        Came::Answer { question, answer: Answer::Greeting(answer) }
    }

    async fn ask_kind(&self, question: u64, at: Pid) -> Came {
        // On the own node there is none of another kind.
        let foreign = match at.node == self.store.pid().node {
            true => Ok(None),
            false => kind::foreign_module(self.node, &self.client, &at).await.map_err(not_said),
        };
        Came::Answer { question, answer: Answer::Kind(foreign) }
    }

    /// Finds the keys that the slave has and the store does not, so that they are deleted there.
    async fn read_keys(&self, question: u64, at: Pid) -> Came {
        let mut read = KeysRead::default();
        let mut scratch = Vec::new();
        let show = |key: TermView<'_>| {
            let Ok(key) = key::canonical(key, &mut scratch) else {
                read.unusable += 1;
                return;
            };
            let mut is_foreign = false;
            let found = self.source.read(key, &mut |value| is_foreign = value.is_none());
            read.foreign += u64::from(is_foreign);
            if is_foreign || found != SourceRead::Shown {
                self.slave.hand_in(Input::StrayKey { key: key.into() });
            }
        };
        let error = keys::read(self.node, &self.client, &at, show).await.err();
        read.error = error.map(|error| error.to_string());
        Came::Input(Input::KeysRead { question, read })
    }

    async fn tell(&self, at: &Pid, cast: impl FnOnce(&mut TermWriter<'_>)) {
        if let Err(error) = self.client.cast(&ServerRef::Pid(at.clone()), cast).await {
            tracing::debug!(slave = %self.slave.name(), %error, "slave not told");
        }
    }

    /// Tells a process that it is a slave no more.
    async fn bye(&self, at: &Pid, sessions: &[u64]) {
        for session in sessions {
            if self.node.is_connected(&at.node) {
                self.tell(at, |w| write_bye(w, *session)).await;
            }
        }
    }

    fn log(&self, event: &Event) {
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    store = ?self.store,
                    slave = %event.slave().unwrap_or_else(|| self.slave.name()),
                    node = event.node(),
                    reason = event.reason(),
                    dropped = event.dropped(),
                    keys = event.keys(),
                    "{event}"
                )
            };
        }
        match event.level() {
            Level::Error => log!(error),
            Level::Warn => log!(warn),
            Level::Info => log!(info),
            Level::Debug => log!(debug),
        }
    }
}

/// Why it is not known how a slave is spoken to.
fn not_said(error: impl std::fmt::Display) -> String {
    format!("its node does not say what it is: {error}")
}
