//! What a store has done and holds, for people and for monitoring.
//!
//! A [`StoreWatch`] outlives the server that it watches: a store that is started again goes on counting where the one
//! before has ended.

use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::etf::TermWriter;
use crate::kv::reason::{Reason, ReasonKind};
use crate::kv::{ElectionFigures, SlaveEntry};
use crate::replica::PrimaryStanding;
use crate::replica::upstream::PrimaryView;
use crate::store::{Keeper, StoreError};

/// Counters of one kind that are added up when they are read. Threads that count have one each, as far as these reach: two
/// that wrote to one line of memory would wait for each other.
const STRIPES: usize = 16;

static NEXT_STRIPE: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// The stripe of this thread.
    static STRIPE: usize = NEXT_STRIPE.fetch_add(1, Ordering::Relaxed) % STRIPES;
}

/// What a store was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// `{:get, key}`, and others that read keys.
    Get,
    /// `{:put, key, value}`, and others that put values.
    Put,
    /// `{:delete, key}`, and others that only delete.
    Delete,
    /// `{:replicate_put, …}` and `{:replicate_delete, …}`.
    Replicated,
    /// Any other call that it knows.
    Other,
    /// A caller's write while the store follows a kvnode's: what became of it [`SlaveWrites`](super::SlaveWrites) says.
    AtSlave,
}

impl Served {
    /// All kinds, in the order of [`Counts`].
    pub const ALL: [Self; 6] =
        [Self::Get, Self::Put, Self::Delete, Self::Replicated, Self::Other, Self::AtSlave];

    /// Those whose rates are drawn over time.
    pub const DRAWN: [Self; 4] = [Self::Get, Self::Put, Self::Delete, Self::Replicated];

    /// Its word, for machines.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::Replicated => "replicated",
            Self::Other => "other",
            Self::AtSlave => "at_slave",
        }
    }
}

/// Requests since the node started, one number for each of [`Served::ALL`].
pub type Counts = [u64; Served::ALL.len()];

#[derive(Default)]
#[repr(align(128))]
struct Stripe([AtomicU64; Served::ALL.len()]);

/// What can be seen of a server that serves a store.
pub trait StoreFigures: Send + Sync {
    /// Number of keys.
    fn entries(&self) -> usize;
    /// Bytes of keys and values.
    fn bytes(&self) -> u64;
    /// Keys that have a deadline.
    fn deadlines(&self) -> usize;
    /// What keeps it.
    fn keeper(&self) -> Keeper;
    /// The process that holds its names, where several serve it.
    fn holder(&self) -> Option<HolderFigures>;
    /// Its slaves.
    fn slaves(&self) -> Vec<Arc<SlaveEntry>>;
    /// Processes that watch it.
    fn watchers(&self) -> usize;
    /// The primary that it follows, where that is a kvnode.
    fn primary(&self) -> Option<PrimaryFigures>;
    /// How the election of its primary stands; `None`: there is none.
    fn election(&self) -> Option<ElectionFigures>;
}

/// Which of the processes that serve one store holds its names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HolderFigures {
    /// This one.
    This,
    /// That of another node.
    Node(Arc<str>),
    /// None, as far as is known here.
    None,
}

impl HolderFigures {
    /// Its node, seen from the node `own`; `None`: no process holds. (So it is where the key in etcd names this node, whose process has given
    /// the names up.)
    pub fn node<'a>(&'a self, own: &'a str) -> Option<&'a str> {
        match self {
            Self::This => Some(own),
            Self::Node(node) => Some(&**node).filter(|node| *node != own),
            Self::None => None,
        }
    }
}

/// The primary that a store follows, a kvnode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryFigures {
    /// The node that it is on.
    pub node: String,
    /// How it stands, as `:status` of the store says; never [`Writing`](PrimaryStanding::Writing).
    pub state: PrimaryStanding,
    /// The number of the last write that the store has of it, with all before it.
    pub seq: u64,
    /// Writes of it that the store has not, as far as is known here.
    pub lag: u64,
}

impl From<PrimaryView<'_>> for PrimaryFigures {
    fn from(primary: PrimaryView<'_>) -> Self {
        Self {
            node: primary.greeting.pid.node.to_string(),
            state: primary.standing,
            seq: primary.applied,
            lag: primary.lag,
        }
    }
}

/// The watchers of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchFigures {
    /// Processes that watch it now.
    pub watchers: usize,
    /// Changes that they were told, and entries that they were shown.
    pub events: u64,
    /// Watchers that were dropped as they were too slow.
    pub overruns: u64,
}

/// Requests that were not done since the node started, one number for each of [`Reason::ALL`].
pub type NotDone = [u64; Reason::ALL.len()];

/// The counters of a store, and the server that has it now.
pub struct StoreWatch {
    stripes: [Stripe; STRIPES],
    not_done: [AtomicU64; Reason::ALL.len()],
    expired: AtomicU64,
    serving: Mutex<Option<Weak<dyn StoreFigures>>>,
    events: AtomicU64,
    overruns: AtomicU64,
    /// The node that a replicated write without a number came from last: a primary that does not say that it is one.
    primary: Mutex<Option<Arc<str>>>,
}

impl Default for StoreWatch {
    fn default() -> Self {
        Self {
            stripes: Default::default(),
            not_done: [const { AtomicU64::new(0) }; Reason::ALL.len()],
            expired: AtomicU64::new(0),
            serving: Mutex::new(None),
            events: AtomicU64::new(0),
            overruns: AtomicU64::new(0),
            primary: Mutex::new(None),
        }
    }
}

impl StoreWatch {
    /// Counts one.
    #[inline]
    pub fn count(&self, served: Served) {
        let stripe = STRIPE.with(|stripe| *stripe);
        self.stripes[stripe].0[served as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a request that is not done.
    #[cold]
    pub(super) fn count_not_done(&self, reason: Reason) {
        self.not_done[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Writes `{:error, reason}`, and counts it.
    pub(super) fn refused(&self, reason: Reason, w: &mut TermWriter<'_>) {
        self.count_not_done(reason);
        w.tuple(2).atom("error").atom(reason.code());
    }

    /// Counts a request, or a write of the primary, that the store has failed at.
    pub(super) fn count_failed(&self, error: &StoreError) {
        self.count_not_done(error.into());
    }

    /// Requests that were not done since the node started.
    pub fn not_done(&self) -> NotDone {
        self.not_done.each_ref().map(|count| count.load(Ordering::Relaxed))
    }

    /// How many of these are of a kind.
    pub fn not_done_of(&self, kind: ReasonKind) -> u64 {
        let of_kind = Reason::ALL.iter().zip(self.not_done()).filter(|(reason, _)| reason.kind() == kind);
        of_kind.map(|(_, count)| count).sum()
    }

    /// A key that had ended is removed.
    pub(super) fn count_expired(&self) {
        self.expired.fetch_add(1, Ordering::Relaxed);
    }

    /// Keys that were removed since the node started, as they had ended, also by another process of the same store. A slave removes none: its primary
    /// deletes them.
    pub fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Watchers were sent so many events and entries, and so many were dropped as they were too slow.
    pub(super) fn watched(&self, events: u64, overruns: u64) {
        self.events.fetch_add(events, Ordering::Relaxed);
        self.overruns.fetch_add(overruns, Ordering::Relaxed);
    }

    /// Processes that watch the store now, and, since the node started, what they were sent and how many were too slow.
    pub fn watches(&self) -> WatchFigures {
        WatchFigures {
            watchers: self.server().map_or(0, |server| server.watchers()),
            events: self.events.load(Ordering::Relaxed),
            overruns: self.overruns.load(Ordering::Relaxed),
        }
    }

    /// Notes the node that a replicated write without a number came from.
    pub fn replicated_from(&self, node: &str) {
        let mut primary = self.primary.lock();
        if primary.as_deref() != Some(node) {
            *primary = Some(node.into());
        }
    }

    /// The store was promoted: the node that wrote last is not its primary any more.
    pub fn promoted(&self) {
        *self.primary.lock() = None;
    }

    /// From now on the store is served by this one.
    pub fn serving(&self, server: &Arc<impl StoreFigures + 'static>) {
        let server: Arc<dyn StoreFigures> = Arc::clone(server) as Arc<_>;
        *self.serving.lock() = Some(Arc::downgrade(&server));
    }

    /// The server that has the store now, if it is not between two.
    pub fn server(&self) -> Option<Arc<dyn StoreFigures>> {
        self.serving.lock().as_ref()?.upgrade()
    }

    /// What was served so far. Numbers that belong together may be one apart while others count.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for stripe in &self.stripes {
            for (sum, count) in counts.iter_mut().zip(&stripe.0) {
                *sum = sum.wrapping_add(count.load(Ordering::Relaxed));
            }
        }
        counts
    }

    /// The primary that is followed, a kvnode.
    pub fn primary(&self) -> Option<PrimaryFigures> {
        self.server()?.primary()
    }

    /// The node that a replicated write without a number came from last: an Elixir primary, or a client that has sent such a write by hand.
    pub fn last_replicated_from(&self) -> Option<Arc<str>> {
        self.primary.lock().clone()
    }
}

impl fmt::Debug for StoreWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreWatch").field("counts", &self.counts()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_many_threads_count_adds_up() {
        let watch = StoreWatch::default();
        std::thread::scope(|scope| {
            for _ in 0..2 * STRIPES {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        watch.count(Served::Get);
                        watch.count(Served::AtSlave);
                        watch.count_not_done(Reason::TooLarge);
                    }
                });
            }
        });
        let sum = 2 * STRIPES as u64 * 1000;
        assert_eq!(watch.counts(), [sum, 0, 0, 0, 0, sum]);
        assert_eq!(
            (watch.not_done()[Reason::TooLarge as usize], watch.not_done_of(ReasonKind::Refused)),
            (sum, sum)
        );
        assert_eq!(watch.not_done_of(ReasonKind::Conflict), 0);
    }

    #[test]
    fn each_kind_has_its_place() {
        for (place, served) in Served::ALL.into_iter().enumerate() {
            let watch = StoreWatch::default();
            watch.count(served);
            assert_eq!(watch.counts()[place], 1, "{served:?}");
            assert_eq!(watch.counts().iter().sum::<u64>(), 1);
        }
    }

    #[test]
    fn a_node_whose_process_has_given_the_names_up_holds_none() {
        assert_eq!(HolderFigures::This.node("a@h"), Some("a@h"));
        assert_eq!(HolderFigures::Node("b@h".into()).node("a@h"), Some("b@h"));
        assert_eq!(HolderFigures::Node("a@h".into()).node("a@h"), None);
        assert_eq!(HolderFigures::None.node("a@h"), None);
    }

    #[test]
    fn a_primary_is_the_last_one_that_wrote() {
        let watch = StoreWatch::default();
        assert_eq!(watch.last_replicated_from(), None);
        for node in ["a@h", "a@h", "b@h"] {
            watch.replicated_from(node);
        }
        assert_eq!(watch.last_replicated_from().as_deref(), Some("b@h"));
        watch.promoted();
        assert_eq!(watch.last_replicated_from(), None);
    }
}
