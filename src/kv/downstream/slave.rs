//! The task of one slave: it waits for what comes for the slave's [`Downstream`], hands it in, and carries out what that
//! wants, with what a node offers to any program.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use smol::Timer;
use smol::channel::Receiver;
use smol::future::FutureExt;

use super::{ANSWER_LIMIT, chance, greeting, keys, kind, now, unix_ms};
use crate::distribution::{RemoteProcess, ServerRef};
use crate::etf::{OwnedTerm, Pid, TermView, TermWriter};
use crate::kv::follow::SharedSource;
use crate::kv::{FollowSlave, SlaveAdded, SlaveFeed};
use crate::process::{CallError, Feed};
use crate::replica::dialect::{write_bye, write_siblings};
use crate::replica::downstream::{Around, DownstreamConfig, Event, Input, KeysRead, Level, Output};
use crate::replica::{Downstream, GreetingAnswer, Hello, Refusal, Slave, SlaveName};
use crate::{Client, Node, ProcessHandle};

/// Follows a slave of a store until it is removed or the store ends, which ends this task. `added` is answered once it is
/// known whether it is one.
pub(super) async fn follow(store: ProcessHandle, FollowSlave { feed, source, added, .. }: FollowSlave) {
    let client = store.node().client_of(store.pid());
    let hands = Hands { node: store.node(), client, store: &store, slave: feed.slave(), feed: &feed, source };
    let (poke, poked) = smol::channel::bounded(1);
    hands.slave.on_change(Box::new(move || {
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
    /// The slave's process is watched from now on; `ended` gives the reason of its end.
    Watched {
        question: u64,
        ended: Pin<Box<dyn Future<Output = OwnedTerm> + Send>>,
    },
}

/// Steps the machine of one slave.
struct Carrier<'a> {
    hands: &'a Hands<'a>,
    machine: Downstream,
    /// Whoever had the slave added, and waits for the answer.
    added: Option<SlaveAdded>,
    watch: Slot<'a>,
    question: Slot<'a>,
    look: Slot<'a>,
    arrival: Slot<'a>,
}

impl<'a> Carrier<'a> {
    fn new(hands: &'a Hands<'a>, added: Option<SlaveAdded>) -> Self {
        let limits = hands.node.limits();
        let config = DownstreamConfig {
            node: hands.node.name().shared(),
            pause_first: limits.backoff_first,
            pause_max: limits.backoff_max,
            is_awaited: added.is_some(),
        };
        let machine = Downstream::new(Arc::clone(hands.slave), &config, now());
        Self { hands, machine, added, watch: None, question: None, look: None, arrival: None }
    }

    async fn run(mut self, poked: &Receiver<()>) {
        self.await_arrival();
        while !self.machine.is_over() && self.hands.store.is_alive() {
            let came = self.next(poked).await;
            // Before anything is done of what has come: another node may come up meanwhile.
            self.await_arrival();
            match came {
                Came::Input(input) => self.hand_in(input),
                Came::Watched { question, ended } => {
                    self.watch =
                        Some(Box::pin(
                            async move { Came::Input(Input::Down { question, reason: ended.await }) },
                        ));
                    self.hand_in(Input::Watched { question, watched: Ok(()) });
                }
            }
            while let Some(output) = self.machine.poll_output() {
                self.carry_out(output).await;
            }
            self.hands.say_withheld();
            self.hands.slave.note_time(unix_ms());
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
    async fn next(&mut self, poked: &Receiver<()>) -> Came {
        let due = self.machine.poll_timeout();
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
                Ok(()) => Came::Input(Input::Changed),
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

    fn hand_in(&mut self, input: Input) {
        let Hands { store, source, .. } = self.hands;
        let is_own = |at: &Pid| store.has_pid(at);
        // It may have been found by several names at once.
        let _settling = input.may_settle().then(|| source.settling());
        let mut around = Around { source: &**source, is_own: &is_own, chance: &mut chance };
        self.machine.handle(input, now(), &mut around);
    }

    async fn carry_out(&mut self, output: Output) {
        let hands = self.hands;
        match output {
            Output::Locate { question } => self.question = Some(Box::pin(hands.locate(question))),
            Output::Watch { question, at } => self.watch = Some(Box::pin(hands.watch(question, at))),
            Output::Unwatch => {
                (self.watch, self.question, self.look) = (None, None, None);
                hands.feed.end_question();
            }
            Output::AskDialect { question, at } => {
                self.question = Some(Box::pin(hands.ask_dialect(question, at)));
            }
            Output::Greet { question, at, hello } => {
                self.question = Some(Box::pin(hands.greet(question, at, hello)));
            }
            Output::AskKind { question, at } => self.question = Some(Box::pin(hands.ask_kind(question, at))),
            Output::Look { question } => self.look = Some(Box::pin(hands.look(question))),
            Output::Feed { node } => {
                hands.node.dispatch().feed(&node, &(Arc::clone(hands.feed) as Arc<dyn Feed>));
            }
            Output::ReadKeys { question, at } => {
                self.question = Some(Box::pin(hands.read_keys(question, at)))
            }
            Output::TellSiblings { at, session, slaves } => {
                hands.tell(&at, |w| write_siblings(w, session, &slaves)).await;
            }
            Output::Bye { at, sessions } => {
                for session in sessions {
                    if hands.node.is_connected(&at.node) {
                        hands.tell(&at, |w| write_bye(w, session)).await;
                    }
                }
            }
            Output::Settle(refusal) => self.settle(refusal),
            Output::CheckNames => hands.node.check_global_names(),
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
        self.machine.abandon(&*self.hands.source);
        self.hands.feed.end_question();
    }
}

/// What a slave is looked after with.
struct Hands<'a> {
    node: &'a Arc<Node>,
    /// What it says comes from the store.
    client: Client,
    store: &'a ProcessHandle,
    slave: &'a Arc<Slave>,
    feed: &'a Arc<SlaveFeed>,
    source: SharedSource,
}

impl Hands<'_> {
    async fn locate(&self, question: u64) -> Came {
        Came::Input(Input::Located { question, found: self.find().await })
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
        match self.slave.node() {
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
        match self.monitor(at).await {
            Ok(ended) => Came::Watched { question, ended },
            Err(why) => Came::Input(Input::Watched { question, watched: Err(why) }),
        }
    }

    async fn monitor(&self, at: Pid) -> Result<Pin<Box<dyn Future<Output = OwnedTerm> + Send>>, String> {
        let not_monitored = |error: CallError| format!("it cannot be monitored: {error}");
        self.node.connect_to_name(&at.node).await.map_err(|error| error.to_string())?;
        let (tell, told) = smol::channel::bounded(1);
        let slave = Arc::clone(self.slave);
        // By the thread that notices the end: nothing is sent any more in the session of a connection that is lost, however soon
        // there is another one.
        let fired = move |reason: OwnedTerm| {
            slave.gone();
            // There is room for the one reason.
            let _ended = tell.try_send(reason);
        };
        match self.client.monitor_with(RemoteProcess::Pid(at.clone()), fired) {
            Ok(watch) => Ok(Box::pin(async move {
                let _watch = watch;
                told.recv().await.unwrap_or_else(|_| OwnedTerm::atom("noconnection"))
            })),
            // Once there is room.
            Err(CallError::Busy(_)) => {
                let mut monitor = self.client.monitor(&ServerRef::Pid(at)).await.map_err(not_monitored)?;
                Ok(Box::pin(async move { monitor.ended().await }))
            }
            Err(error) => Err(not_monitored(error)),
        }
    }

    async fn ask_dialect(&self, question: u64, at: Pid) -> Came {
        let is_kvnode = greeting::is_kvnode(&self.client, &at.node).await.map_err(not_said);
        Came::Input(Input::DialectKnown { question, is_kvnode })
    }

    async fn greet(&self, question: u64, at: Pid, hello: Hello) -> Came {
        let answer: GreetingAnswer = greeting::greet(&self.client, at, &hello, &self.store.names()).await;
        Came::Input(Input::Greeted { question, answer })
    }

    async fn ask_kind(&self, question: u64, at: Pid) -> Came {
        let foreign = kind::foreign_module(self.node, &self.client, &at).await.map_err(not_said);
        Came::Input(Input::KindKnown { question, foreign })
    }

    /// Finds the keys that the slave has and the store does not, so that they are deleted there.
    async fn read_keys(&self, question: u64, at: Pid) -> Came {
        let mut read = KeysRead::default();
        let show = |key: TermView<'_>| match self.slave.sweep_key(&*self.source, key) {
            Ok(is_foreign) => read.foreign += u64::from(is_foreign),
            Err(_) => read.unusable += 1,
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

    fn say_withheld(&self) {
        if self.feed.take_withheld() {
            tracing::warn!(
                store = ?self.store, slave = %self.slave.name(),
                "slave is not sent what its OTP cannot decode, and keeps what it had of it; :status has how many keys (withheld)"
            );
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
