//! What is counted of a server: what it has handled, how long that took, and how long its callers waited.
//!
//! The figures are a process's, shared by all its pids. They have a label, which is never what a peer sent: the first
//! name that the process was given, and until it has one the Rust type of its server. [`Servers`] adds up those of one label,
//! also of processes that have ended, so that a server that is started again goes on counting.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::latency::{Classes, Latency};

/// Counters that are added up when they are read. Threads that count have one each, as far as these reach: the connections of
/// several peers call one [`GenServer`](super::GenServer) at once, and two threads that wrote to one line of memory would wait for
/// each other.
const STRIPES: usize = 8;

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The stripe of this thread.
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// What a message is to its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Call,
    /// A cast.
    Cast,
    /// Any other: of a process, a timer, a task or the program itself, or the news of a monitor.
    Info,
}

impl Kind {
    /// Its word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Cast => "cast",
            Self::Info => "info",
        }
    }
}

/// Messages of each [`Kind`], in its order.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Stripe([AtomicU64; 3]);

/// How a message is measured that a connection hands to a server: those of some reads are, and stand for the others.
#[derive(Clone, Copy, Debug)]
pub struct Timed {
    /// When it was read.
    pub since: Instant,
    /// So many messages it stands for.
    pub weight: u32,
    /// The clock.
    pub now: fn() -> Instant,
}

/// What is counted of a server.
#[derive(Debug)]
pub struct ServerFigures {
    /// The Rust type of the server.
    type_name: &'static str,
    /// The first name that the process was given, as `local:counter` or `global:counter`.
    name: OnceLock<Arc<str>>,
    /// Whether messages are handled where they come in, and counted there.
    pub is_inline: bool,
    stripes: [Stripe; STRIPES],
    handling_nanos: AtomicU64,
    answers: Latency,
    restarts: AtomicU64,
}

impl ServerFigures {
    /// Those of a server that handles messages where they come in.
    pub fn of_inline(type_name: &'static str) -> Arc<Self> {
        Arc::new(Self::new(type_name, true))
    }

    /// Those of a server with a mailbox, whose task counts.
    pub fn of_mailbox(type_name: &'static str) -> Arc<Self> {
        Arc::new(Self::new(type_name, false))
    }

    fn new(type_name: &'static str, is_inline: bool) -> Self {
        Self {
            type_name,
            name: OnceLock::new(),
            is_inline,
            stripes: Default::default(),
            handling_nanos: AtomicU64::new(0),
            answers: Latency::default(),
            restarts: AtomicU64::new(0),
        }
    }

    /// What it is counted under.
    pub fn label(&self) -> &str {
        match self.name.get() {
            Some(name) => name,
            None => self.type_name,
        }
    }

    /// The process was given a name. The first is its label from now on.
    pub(super) fn named(&self, scope: &str, name: &str) {
        self.name.get_or_init(|| format!("{scope}:{name}").into());
    }

    /// A message is handled now.
    #[inline]
    pub fn count(&self, kind: Kind) {
        let stripe = STRIPE.try_with(|stripe| *stripe).unwrap_or_default();
        self.stripes[stripe].0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// A message has been handled, and that took so long; it stands for `weight` of them.
    pub fn handled(&self, took: Duration, weight: u32) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.handling_nanos.fetch_add(nanos.saturating_mul(u64::from(weight)), Ordering::Relaxed);
    }

    /// A call was answered, or ended, so long after it came; it stands for `weight` of them.
    pub fn answered(&self, after: Duration, weight: u32) {
        self.answers.record(after, weight);
    }

    /// The process was started in the place of another that had ended.
    pub fn restarted(&self) {
        self.restarts.fetch_add(1, Ordering::Relaxed);
    }

    fn sums(&self) -> ServerSums {
        let [calls, casts, infos] = [Kind::Call, Kind::Cast, Kind::Info].map(|kind| {
            self.stripes.iter().map(|stripe| stripe.0[kind as usize].load(Ordering::Relaxed)).sum()
        });
        let (answers, answers_nanos) = self.answers.read();
        ServerSums {
            processes: 0,
            calls,
            casts,
            infos,
            handling_nanos: self.handling_nanos.load(Ordering::Relaxed),
            answers,
            answers_nanos,
            restarts: self.restarts.load(Ordering::Relaxed),
            waiting_messages: 0,
            waiting_bytes: 0,
        }
    }
}

/// The figures of the servers of one label, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerSums {
    /// Processes that live.
    pub processes: u64,
    /// Calls that were begun to be handled.
    pub calls: u64,
    /// Casts.
    pub casts: u64,
    /// Other messages.
    pub infos: u64,
    /// How long handlers took, together.
    pub handling_nanos: u64,
    /// Answers by how long after the call's arrival they came.
    pub answers: Classes,
    /// How long that was, together.
    pub answers_nanos: u64,
    /// Processes that were started in the place of another.
    pub restarts: u64,
    /// Messages that wait.
    pub waiting_messages: u64,
    /// Bytes of these.
    pub waiting_bytes: u64,
}

impl ServerSums {
    fn add(&mut self, other: &Self) {
        self.processes += other.processes;
        self.calls += other.calls;
        self.casts += other.casts;
        self.infos += other.infos;
        self.handling_nanos = self.handling_nanos.saturating_add(other.handling_nanos);
        self.answers.iter_mut().zip(other.answers).for_each(|(sum, more)| *sum += more);
        self.answers_nanos = self.answers_nanos.saturating_add(other.answers_nanos);
        self.restarts += other.restarts;
        self.waiting_messages += other.waiting_messages;
        self.waiting_bytes += other.waiting_bytes;
    }
}

/// Labels that have figures of their own: each is twenty lines of a page of metrics. A program that gives names to more
/// servers sees the others together, as [`Servers::OTHERS`].
const LABELS_MAX: usize = 64;

/// What servers that have ended have counted, by label. A label that has a place here keeps it.
#[derive(Debug, Default)]
pub struct Servers {
    ended: Mutex<BTreeMap<Arc<str>, ServerSums>>,
}

impl Servers {
    /// The label of those that have no place of their own.
    pub const OTHERS: &str = "others";

    /// A server has ended: what it has counted stays.
    pub fn ended(&self, figures: &ServerFigures) {
        let mut ended = self.ended.lock();
        let label = place(&mut ended, figures.label());
        ended.entry(label).or_default().add(&figures.sums());
    }

    /// The figures by label, of all that there were, with those that live. These are given with the messages that wait for each,
    /// and their bytes.
    pub fn read<'f>(
        &self,
        living: impl Iterator<Item = (&'f ServerFigures, usize, usize)>,
    ) -> BTreeMap<Arc<str>, ServerSums> {
        let mut ended = self.ended.lock();
        let mut found: Vec<(Arc<str>, ServerSums)> = Vec::new();
        for (figures, waiting_messages, waiting_bytes) in living {
            let label = place(&mut ended, figures.label());
            ended.entry(Arc::clone(&label)).or_default();
            let sums = ServerSums {
                processes: 1,
                waiting_messages: waiting_messages as u64,
                waiting_bytes: waiting_bytes as u64,
                ..figures.sums()
            };
            found.push((label, sums));
        }
        let mut all = ended.clone();
        drop(ended);
        for (label, sums) in found {
            all.entry(label).or_default().add(&sums);
        }
        all
    }
}

/// The label that figures are kept under.
fn place(ended: &mut BTreeMap<Arc<str>, ServerSums>, label: &str) -> Arc<str> {
    match ended.get_key_value(label) {
        Some((known, _)) => Arc::clone(known),
        None if ended.len() < LABELS_MAX => label.into(),
        None => Servers::OTHERS.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_started_again_goes_on_counting_under_its_first_name() {
        let servers = Servers::default();
        let first = ServerFigures::of_mailbox("app::Counter");
        assert_eq!(first.label(), "app::Counter");
        first.named("local", "counter");
        first.named("global", "other");
        first.count(Kind::Call);
        first.answered(Duration::from_micros(3), 1);
        servers.ended(&first);
        let next = ServerFigures::of_mailbox("app::Counter");
        next.named("local", "counter");
        next.restarted();
        next.count(Kind::Call);
        next.count(Kind::Cast);
        next.handled(Duration::from_nanos(7), 64);
        let unnamed = ServerFigures::of_inline("app::Counter");
        unnamed.count(Kind::Info);
        let all = servers.read([(&*next, 2, 30), (&*unnamed, 0, 0)].into_iter());
        assert_eq!(all.keys().map(|label| &**label).collect::<Vec<_>>(), ["app::Counter", "local:counter"]);
        let sums = &all["local:counter"];
        assert_eq!((sums.processes, sums.calls, sums.casts, sums.infos), (1, 2, 1, 0));
        assert_eq!((sums.restarts, sums.handling_nanos, sums.answers_nanos), (1, 448, 3_000));
        assert_eq!((sums.waiting_messages, sums.waiting_bytes), (2, 30));
        assert_eq!(all["app::Counter"].infos, 1);
    }

    #[test]
    fn labels_are_bounded_and_those_that_have_a_place_keep_it() {
        let servers = Servers::default();
        let named = |number: usize| {
            let figures = ServerFigures::of_mailbox("app::Session");
            figures.named("local", &number.to_string());
            figures.count(Kind::Cast);
            figures
        };
        let first = named(0);
        let all = servers.read([(&*first, 0, 0)].into_iter());
        assert_eq!(all["local:0"].casts, 1);
        for number in 1..1_000 {
            servers.ended(&named(number));
        }
        let all = servers.read([(&*first, 0, 0)].into_iter());
        assert_eq!(all.len(), LABELS_MAX + 1);
        assert_eq!(all["local:0"].casts, 1);
        assert_eq!(all[Servers::OTHERS].casts, 1_000 - LABELS_MAX as u64);
    }

    #[test]
    fn threads_count_beside_each_other() {
        let figures = ServerFigures::of_inline("app::Cache");
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| (0..100).for_each(|_| figures.count(Kind::Call)));
            }
        });
        assert_eq!(figures.sums().calls, 2_000);
    }
}
