//! A slave of a store: its [`Downstream`] behind the one lock that the store's writers, the connection to the slave's node,
//! those who look at it and the task that drives it share.

use std::fmt;
use std::ops::DerefMut;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use parking_lot::Mutex;

use crate::distribution::RemoteProcess;
use crate::etf::{OwnedTerm, Pid};
use crate::kv::Follow;
use crate::kv::confirm::Confirmations;
use crate::kv::follow::SharedSource;
use crate::kv::ranked::{Ranked, rank};
use crate::process::{Feed, Feeding, More, Outcome, PendingCall};
use crate::replica::downstream::{Answer, Input, Output, PartRead, Siblings, Standpoint};
use crate::replica::{
    Acknowledge, Dialect, Downstream, KnownSlave, Mark, Refusal, SlaveName, SlaveState, Source, SourceRead,
    Standing,
};

/// A slave of a store, and the way of its writes.
pub struct SlaveEntry {
    this: Weak<Self>,
    name: SlaveName,
    machine: Ranked<rank::Machine, Downstream>,
    /// Wakes the driver of the machine.
    wake: Mutex<Option<Wake>>,
    /// What it is followed for, once it is.
    store: OnceLock<Replicated>,
    confirmations: Weak<Confirmations>,
    follow: Arc<dyn Follow>,
    /// The call that asks the slave what it has.
    asked: Mutex<Option<PendingCall>>,
}

/// Told that there is something to do for a slave. From any thread; must not block.
pub type Wake = Box<dyn Fn() + Send>;

/// The store that a slave replicates.
struct Replicated {
    /// Its process.
    pid: Pid,
    source: Weak<dyn Source + Send + Sync>,
}

/// What the driver of a slave has to do.
#[derive(Debug)]
pub enum Polled {
    /// To carry this out.
    Output(Output),
    /// To wait for what comes, or until then.
    Until(Option<Instant>),
    /// Nothing any more.
    Over,
}

impl SlaveEntry {
    pub(in crate::kv) fn new(
        machine: Downstream,
        confirmations: Weak<Confirmations>,
        follow: &Arc<dyn Follow>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: Weak::clone(this),
            name: machine.name().clone(),
            machine: Ranked::new(machine),
            wake: Mutex::default(),
            store: OnceLock::new(),
            confirmations,
            follow: Arc::clone(follow),
            asked: Mutex::default(),
        })
    }

    /// How it was named.
    pub const fn name(&self) -> &SlaveName {
        &self.name
    }

    /// The slave. Held for a short while: writers of the store wait for it.
    pub fn machine(&self) -> impl DerefMut<Target = Downstream> + '_ {
        self.machine.lock()
    }

    /// Where it is.
    pub fn state(&self) -> SlaveState {
        self.machine().state()
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.machine().standing()
    }

    /// The node that the slave is on, while it is followed.
    pub fn node(&self) -> Option<Arc<str>> {
        self.machine().followed_at().map(|at| Arc::clone(&at.node))
    }

    /// The node where it was last, as far as is known.
    pub fn last_node(&self) -> Option<Arc<str>> {
        self.machine().last_node().cloned()
    }

    /// Says on which node it was last: see [`Downstream::expect_at`].
    pub fn expect_at(&self, node: Arc<str>) {
        self.machine().expect_at(node);
    }

    /// Whether it is followed at this process, or as the kvnode's store with this incarnation.
    pub fn is_at(&self, at: &Pid, incarnation: Option<u64>) -> bool {
        self.machine().as_sibling().is_at(at, incarnation)
    }

    /// If the store was started without data, the slave keeps what it holds: see [`Downstream::protect_data`].
    pub fn protect_data(&self) {
        self.machine().protect_data();
    }

    /// Hands in what has come, and wakes its driver. From any thread.
    pub fn tell(&self, input: Input) {
        self.hand_in(input);
        self.wake();
    }

    /// The same for the driver, which looks what there is to do after that.
    pub fn hand_in(&self, input: Input) {
        let now = self.follow.now();
        self.machine().handle(input, now);
    }

    /// Wakes its driver: there may be something to do.
    pub fn wake(&self) {
        if let Some(wake) = &*self.wake.lock() {
            wake();
        }
    }

    /// Has `wake` called when there is something to do.
    pub fn on_wake(&self, wake: Wake) {
        *self.wake.lock() = Some(wake);
    }

    /// What its driver has to do next.
    pub fn poll(&self) -> Polled {
        let mut machine = self.machine();
        match machine.poll_output() {
            Some(output) => Polled::Output(output),
            None if machine.is_over() => Polled::Over,
            None => Polled::Until(machine.poll_timeout()),
        }
    }

    /// For the driver: hands in an answer that is weighed against what the store is now.
    pub fn answered(&self, question: u64, answer: Answer, source: &SharedSource) {
        // It may have been found by several names at once.
        let _settling = source.settling();
        // Before the machine's lock, as writers take them.
        let (slaves, lineage) = (source.slaves(), source.lineage());
        let others = || slaves.iter().filter(|other| !self.is(other));
        let store = Standpoint {
            lineage,
            seq: source.seq(),
            clock: source.clock(),
            started_empty: source.started_empty(),
            slaves: self.known(&slaves),
            siblings: Siblings(others().map(|other| other.machine().as_sibling()).collect()),
        };
        self.hand_in(Input::Answered { question, answer, store });
        loop {
            let wanted = self.machine().poll_settling();
            match wanted {
                Some(Output::Drop { name }) => {
                    others().filter(|other| other.name == name).for_each(|other| other.tell(Input::Removed));
                }
                Some(Output::Forget { at, incarnation }) => others().for_each(|other| {
                    other.tell(Input::Elsewhere { at: at.clone(), incarnation });
                }),
                _ => break,
            }
        }
    }

    /// It is a slave no more, as [`Output::Part`] says; gives whether its process is told so, as no other slave of the store is
    /// followed there.
    pub fn part(&self, at: &Pid, incarnation: Option<u64>, sessions: &[u64], source: &SharedSource) -> bool {
        let _settling = source.settling();
        !source.slaves().iter().any(|other| !self.is(other) && other.takes_over(at, incarnation, sessions))
    }

    /// Where it is followed at this process it has taken the sessions over.
    fn takes_over(&self, at: &Pid, incarnation: Option<u64>, sessions: &[u64]) -> bool {
        let now = self.follow.now();
        {
            // Looked at and handed over under one lock: an entry that is given up in between would take no session over.
            let mut machine = self.machine();
            if !machine.as_sibling().is_at(at, incarnation) {
                return false;
            }
            machine.handle(Input::TakenOver { sessions: sessions.to_vec() }, now);
        }
        self.wake();
        true
    }

    /// Carries [`Output::CopyOthers`] out; gives the names of those that are copied to.
    pub fn copy_others(&self, source: &SharedSource) -> Vec<SlaveName> {
        // Before the order, as a write takes them: a thread that adds a slave may wait between the two.
        let mut slaves = source.slaves();
        slaves.retain(|other| !self.is(other) && other.machine().is_unnumbered());
        source.in_order(&mut || slaves.iter().for_each(|other| other.tell(Input::CopyAll)));
        slaves.iter().map(|other| other.name.clone()).collect()
    }

    /// Carries [`Output::Moved`] out.
    pub fn moved(&self, source: &SharedSource) {
        source.slaves().iter().filter(|other| !self.is(other)).for_each(|other| {
            other.tell(Input::SiblingsChanged);
        });
        source.slaves_changed();
    }

    /// Carries [`Output::Repair`] out.
    pub fn repair(&self, source: &dyn Source) {
        source.in_order(&mut || self.machine().repair(source));
    }

    /// Carries [`Output::ReadPart`] out; what it gives is [handed in](Input::PartRead), whatever happens meanwhile.
    pub fn read_part(part: usize, since: u64, source: &dyn Source) -> PartRead {
        // Without a lock: a write waits for no scan.
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        match source.keys(part, since, &mut |key| keys.push(key.into())) {
            SourceRead::Later => PartRead::Later,
            read => PartRead::Keys {
                keys,
                parts: source.parts(),
                total: source.len() as u64,
                is_damaged: read == SourceRead::Unreadable,
            },
        }
    }

    /// The slaves of the store, as others are told of them.
    pub fn siblings(&self, source: &SharedSource) -> Vec<KnownSlave> {
        self.known(&source.slaves())
    }

    fn known(&self, slaves: &[Arc<Self>]) -> Vec<KnownSlave> {
        let Some(store) = self.store.get() else { return Vec::new() };
        let known =
            |slave: &Arc<Self>| KnownSlave { name: slave.name.on(&store.pid.node), node: slave.last_node() };
        slaves.iter().map(known).collect()
    }

    fn is(&self, other: &Arc<Self>) -> bool {
        std::ptr::eq(self, Arc::as_ptr(other))
    }

    /// From now on it is followed for this process.
    pub(in crate::kv) fn begin(&self, store: &Pid, source: &SharedSource) {
        self.store.get_or_init(|| Replicated { pid: store.clone(), source: Arc::downgrade(&source.source) });
    }

    /// Its driver ends.
    pub fn abandon(&self, source: &SharedSource) {
        self.machine().abandon();
        self.end_question();
        while let Polled::Output(output) = self.poll() {
            if let Output::Greeting(is_under_way) = output {
                source.greeting(is_under_way);
            }
        }
    }

    /// What the slave was asked in its stream will not be answered.
    pub fn end_question(&self) {
        let asked = self.asked.lock().take();
        drop(asked);
    }

    /// Asks the slave what it has: a kvnode for the number of the last write, another for a key that nobody has, as the
    /// answer counts then and not what it is.
    fn ask(
        &self,
        mark: Mark,
        store: &Replicated,
        at: &RemoteProcess,
        dialect: Dialect,
        out: &mut Feeding<'_>,
    ) {
        let (seq, revision) =
            store.source.upgrade().map_or((0, 0), |source| (source.seq(), source.revision()));
        let entry = Weak::clone(&self.this);
        let answered = move |outcome| {
            let (Outcome::Replied(answer), Some(entry)) = (outcome, entry.upgrade()) else { return };
            let kept = if dialect == Dialect::Elixir { Ok(()) } else { handled(&answer) };
            entry.tell(Input::Acknowledged { mark, kept });
            if let (Ok(()), Some(confirmations)) = (kept, entry.confirmations.upgrade()) {
                confirmations.acknowledged();
            }
        };
        let call = out.call(
            &store.pid,
            at,
            |w, reference| match dialect {
                Dialect::Elixir => _ = w.tuple(2).atom("get").reference(reference),
                Dialect::Kvnode { session } => {
                    w.tuple(4).atom("replica_ask").unsigned(session).unsigned(seq).unsigned(revision);
                }
            },
            answered,
        );
        let before = self.asked.lock().replace(call);
        drop(before);
    }
}

impl Feed for SlaveEntry {
    fn feed(&self, out: &mut Feeding<'_>) -> More {
        let Some(store) = self.store.get() else { return More::No };
        let (node, now, flags) = (Arc::clone(out.node()), out.now(), out.flags());
        let send = |at: &RemoteProcess, message: &[u8]| {
            out.send(&store.pid, at, |w| _ = w.raw(message));
            out.has_room()
        };
        // It may have gone to another node since it was announced, and is announced there.
        let taken = self.machine().take(&node, now, |traits| flags.can_decode(traits), send);
        if let (Acknowledge::Now(mark), Some((at, dialect))) = (taken.acknowledge, &taken.at) {
            // Before anything else can be written behind the writes that it is about.
            self.ask(mark, store, at, *dialect, out);
        }
        if taken.has_news || taken.acknowledge == Acknowledge::Later {
            self.wake();
        }
        if taken.more { More::WhenRoom } else { More::No }
    }
}

impl fmt::Debug for SlaveEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slave({})", self.name)
    }
}

/// Whether a kvnode answers `{:ok, applied}`; else why not. What is neither is of nobody that was greeted.
fn handled(answer: &OwnedTerm) -> Result<(), Refusal> {
    match answer.view().as_tuple::<2>() {
        Some([ok, applied]) if ok.is_atom("ok") && applied.as_unsigned().is_some() => Ok(()),
        Some([error, reason]) if error.is_atom("error") => {
            Err(Refusal::of_code(reason).unwrap_or(Refusal::OtherSession))
        }
        _ => Err(Refusal::OtherSession),
    }
}
