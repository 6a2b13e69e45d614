//! The store as a value: inputs come in, outputs go out. It has neither socket nor clock nor thread.
//!
//! ```text
//!              the first load is whole                    its revision is compacted
//! Loading ------------------------------> Following ------------------------------> Loading, while the table stays
//!    '--- RolledBack <-------------------------' etcd's revision is lower than it was: nothing is asked any more
//!
//!                      a batch is sent                  etcd has done it                 the table has come so far
//! Idle, Resting ---------------------> Flying::Asked ------------------> Flying::Committed ----------------> Idle
//!    ^   ^                              |    |    ^
//!    |   '-- surely not done: queued ---'    |    | again, or, once all of it is told of, a void in its place
//!    |                                       v    |
//!    '--- Behind: the table comes up     Flying::Resting: its outcome is unknown
//! ```
//!
//! - **One order.** The table goes on by revisions of etcd: by the changes that the watch shows, or by the answer to a batch whose revision is the
//!   next. All of a revision is applied at once, an own batch write by write. Each write gets a number ([`Written::seq`]) then, and is
//!   told of: by its completion, or as a write of another process where it has no completion, or none any more.
//! - **Once or never.** Each batch moves the writer's mark (the module `batch`). The watch tells whether a batch is done; an answer tells it
//!   earlier.
//! - **Patience.** A request that is not done after [`PATIENCE`] is answered: as unavailable where it was not sent, as unknown where it may be
//!   done. So that the client of etcd can say before that time that nothing was sent, a request that has waited for [`UNSENT_PATIENCE`] is not sent any
//!   more, and a batch is asked for until [`VERDICT`] before the patience of its first request is over. A batch without a waiting caller is made void, so
//!   that nothing is done for callers that have gone, and later requests can go.
//! - **Decisions** that come too late, since another writer has changed the keys that they have looked at, are made anew when the table has come
//!   up. From then on the decisions of that batch go one by one. Writes that look at nothing go in between without them, unless they share a key
//!   with a decision before them.
//!
//! [`Written::seq`]: crate::store::Written::seq

mod reading;
mod writing;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ask::{Ask, Asked, Key, Outcome, Wrote};
use super::batch::{Bounds, Carried, Does};
use super::layout::Layout;
use super::looks::Looks;
use super::table::Table;
use crate::etcd::Error;
use crate::etcd::message::{Bytes, Event, KeyValue, TxnRequest, TxnResponse};
use crate::store::{MemoryStore, Store, StoreError};

/// So long after it was asked everything is told of: a `GenServer.call` gives up after 5 s.
pub(super) const PATIENCE: Duration = Duration::from_secs(4);
/// The client of etcd says so long before a request's patience is over what became of its batch.
const VERDICT: Duration = Duration::from_millis(100);
/// A request that has waited for so long is not sent any more: etcd would have 100 ms for it, or less.
const UNSENT_PATIENCE: Duration = PATIENCE.saturating_sub(Duration::from_millis(200));
/// Between two loads of which the first has failed.
const LOAD_PAUSE: Duration = Duration::from_millis(500);
/// Keys that readers of these alone wait for while the differences of a load are told. Where there are more all readers wait.
const CHANGED_MAX: usize = 64 << 10;

/// What comes in.
#[derive(Debug)]
pub(super) enum Input {
    /// Requests, in their order.
    Asked(Vec<Asked>),
    /// The answer to the [`Output::Send`] with this number.
    Answered(u64, Result<TxnResponse, Error>),
    /// Entries of a load.
    Page(Vec<KeyValue>),
    /// The load was whole at this revision.
    Loaded(i64),
    /// It has failed.
    NotLoaded(Error),
    /// Whole revisions, in their order.
    Changes(Vec<Event>),
    /// There is nothing up to this revision that was not told.
    Progress(i64),
    /// The watch cannot go on.
    Lost(Error),
    /// The revision of the last write of any writer, by [`Output::Look`]; 0: there was none.
    Looked(Result<i64, Error>),
    /// etcd has answered with this revision, to what it was asked when the table had come to the revision `applied`. Of answers alone that no
    /// member gives that is behind others.
    Observed { applied: i64, revision: i64 },
    /// The time that was wanted is there.
    Woke,
}

/// What goes out, to be carried out in this order.
#[derive(Debug)]
pub(super) enum Output {
    /// etcd is asked for this transaction, whose conditions can hold once alone, for so long. A transaction that was sent before is not waited for.
    Send { number: u64, request: TxnRequest, limit: Duration },
    /// The revision of the last write of any writer is asked for, for so long: that of the mark that was written last.
    Look(Duration),
    /// All of the store is read, at one revision.
    Load,
    /// It is watched from this revision on.
    Watch(i64),
    /// The first load is whole.
    Opened,
    /// A load has failed, and is begun anew.
    NotLoaded(Error),
    /// A completion is called.
    Tell(Asked, Result<Outcome, StoreError>),
    /// A write without a completion is told of.
    TellOfOther(Wrote),
    /// It is told that not each change up to this number is told of.
    Missed(u64),
    /// Nothing is read, watched or asked for any more.
    RolledBack,
}

impl std::fmt::Debug for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Asked")
            .field("number", &self.number)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

enum Reading {
    /// Entries come into a table of their own.
    Loading(Box<Load>),
    /// The next load begins then.
    LoadAt(Duration),
    Following,
    /// etcd has a lower revision than it had: it was wiped, or restored from an older copy. What was told of here with a revision may be
    /// otherwise there, and another thing has that revision, or will have it: nothing is mixed, until the process begins anew.
    RolledBack,
}

/// What a load has brought so far.
struct Load {
    staged: MemoryStore,
    notes: BTreeMap<Key, Vec<u8>>,
    unreadable: BTreeSet<Key>,
    /// This writer's mark: its revision of etcd, and its number.
    mark: Option<(i64, u64)>,
    /// Those of other writers, by their revisions.
    marks: BTreeMap<i64, Bytes>,
}

enum Writing {
    Idle,
    /// Nothing is sent before this.
    Resting(Duration),
    /// Nothing is decided before the table has come to this revision.
    Behind(i64),
    Flying(Flight),
}

/// A batch that is on its way.
struct Flight {
    /// Of the batch; that of the void in its place is one more.
    number: u64,
    writes: Vec<Carried>,
    request: TxnRequest,
    stage: Stage,
    sends: Sends,
    /// It was sent before, and may be done by that: an error says nothing of it.
    is_unsure: bool,
}

/// What is sent of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sends {
    /// The batch.
    Batch,
    /// A void in its place.
    Void,
    /// A batch that writes nothing: whether its decisions are right. The mark stays.
    Reads,
}

#[derive(Clone, Copy)]
enum Stage {
    /// etcd is asked, by the [`Output::Send`] with this number.
    Asked(u64),
    /// The outcome is unknown; etcd is asked again then.
    Resting(Duration),
    /// It is done, in this revision, to which the table has not come.
    Committed(i64),
}

/// See the module.
pub(super) struct Machine {
    layout: Layout,
    bounds: Bounds,
    table: Arc<Table>,
    notes: BTreeMap<Key, Vec<u8>>,
    /// Keys that etcd has, and the table has not.
    unreadable: BTreeSet<Key>,
    /// In the order of their numbers.
    queue: VecDeque<Asked>,
    looks: Looks,
    /// Marks of writers that have written nothing for long, and go.
    old_marks: Vec<Bytes>,
    reading: Reading,
    writing: Writing,
    is_open: bool,
    /// The revision of etcd that this writer's mark has; 0: there is none.
    mark: i64,
    /// The number of the next batch.
    number: u64,
    /// That of the last thing that was sent.
    sent: u64,
    /// Decisions with numbers up to this one go alone.
    careful_up_to: u64,
    /// The next batch is such a decision.
    decides_next: bool,
    /// The next batch moves the mark, even where it writes nothing.
    moves_next: bool,
    said: Said,
    outputs: Vec<Output>,
}

/// What is in the log already, until it is over.
#[derive(Default)]
struct Said {
    /// Entries that cannot be read.
    unreadable: bool,
    /// A watch that cannot go on.
    lost: bool,
    /// Writes that are refused.
    refused: bool,
    /// Transactions that are smaller than they could be.
    few_operations: bool,
}

impl Machine {
    pub(super) fn new(layout: Layout, bounds: Bounds, table: Arc<Table>) -> Self {
        let reading = Self::load_into(&table);
        Self {
            layout,
            bounds,
            table,
            notes: BTreeMap::new(),
            unreadable: BTreeSet::new(),
            queue: VecDeque::new(),
            looks: Looks::default(),
            old_marks: Vec::new(),
            reading,
            writing: Writing::Idle,
            is_open: false,
            mark: 0,
            number: 2,
            sent: 0,
            careful_up_to: 0,
            decides_next: false,
            moves_next: false,
            said: Said::default(),
            outputs: vec![Output::Load],
        }
    }

    fn load_into(table: &Table) -> Reading {
        let staged = table.entries.staging().unwrap_or_default();
        let (notes, unreadable, marks) = Default::default();
        Reading::Loading(Box::new(Load { staged, notes, unreadable, mark: None, marks }))
    }

    /// The outputs since the last call.
    pub(super) fn outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When [`Input::Woke`] is wanted.
    pub(super) fn wakes_at(&self) -> Option<Duration> {
        let asked = self.queue.front().map(|asked| asked.at + UNSENT_PATIENCE);
        let carried = self.flight().and_then(Flight::first_untold).map(|asked| asked.at + PATIENCE);
        let rests = match &self.writing {
            Writing::Resting(until) => Some(*until),
            Writing::Flying(Flight { stage: Stage::Resting(until), .. }) => Some(*until),
            _ => None,
        };
        let loads = if let Reading::LoadAt(at) = self.reading { Some(at) } else { None };
        [asked, carried, rests, loads, self.looks.wakes_at()].into_iter().flatten().min()
    }

    /// Whether all that was asked is told of.
    pub(super) fn is_settled(&self) -> bool {
        let is_flying = self.flight().is_some_and(|flight| flight.first_untold().is_some());
        self.queue.is_empty() && self.looks.is_empty() && !is_flying
    }

    /// The keys of writes that are on their way without a completion, and whether these are all keys. Where such a write is done it is told of as a write
    /// of another process.
    pub(super) fn given_up(&self) -> (Vec<Key>, bool) {
        self.flight().map(|flight| flight.written_by(|carried| carried.asked.is_none())).unwrap_or_default()
    }

    /// The keys that the load changes which is whole now, and whether these are all keys.
    pub(super) fn changed_by_load(&self) -> (Vec<Key>, bool) {
        let Reading::Loading(load) = &self.reading else { return Default::default() };
        let keys = self.is_open.then(|| self.table.changed_by(&load.staged, CHANGED_MAX)).flatten();
        let Some(mut keys) = keys else { return (Vec::new(), true) };
        // What is done of a batch on its way is told of, too.
        let (written, is_clear) = self.flight().map(Flight::written).unwrap_or_default();
        keys.extend(written);
        (keys, is_clear)
    }

    fn flight(&self) -> Option<&Flight> {
        if let Writing::Flying(flight) = &self.writing { Some(flight) } else { None }
    }

    /// Something has come.
    pub(super) fn handle(&mut self, input: Input, now: Duration) {
        match input {
            Input::Asked(asked) => {
                let (looks, writes): (Vec<_>, _) =
                    asked.into_iter().partition(|asked| matches!(asked.ask, Ask::CatchUp(_)));
                self.looks.ask(looks);
                self.queue.extend(writes);
            }
            Input::Looked(result) => self.looks.answered(result.map_err(|_| StoreError::Unavailable)),
            Input::Answered(number, result) => self.answered(number, result, now),
            Input::Page(entries) => self.page(&entries),
            Input::Loaded(revision) => self.loaded(revision),
            Input::NotLoaded(error) => {
                self.reading = Reading::LoadAt(now + LOAD_PAUSE);
                self.outputs.push(Output::NotLoaded(error));
            }
            Input::Changes(events) => self.changed(&events),
            Input::Progress(revision) if matches!(self.reading, Reading::Following) => self.come_to(revision),
            // Or it is loaded anew already.
            Input::Lost(error) if matches!(self.reading, Reading::Following) => {
                let is_compacted = matches!(error, Error::Compacted { .. });
                if !is_compacted && !std::mem::replace(&mut self.said.lost, true) {
                    tracing::error!(%error, "a store's watch of etcd cannot go on; the store is loaded anew");
                }
                self.reading = Reading::LoadAt(if is_compacted { now } else { now + LOAD_PAUSE });
            }
            Input::Observed { applied, revision } => self.look_for_roll_back(applied, revision),
            Input::Progress(_) | Input::Lost(_) | Input::Woke => {}
        }
        if matches!(self.reading, Reading::RolledBack) {
            self.give_up();
        }
        self.lose_patience(now);
        for (asked, result) in self.looks.done(self.table.applied(), now) {
            self.outputs.push(Output::Tell(asked, result));
        }
        if matches!(self.reading, Reading::RolledBack) {
            return;
        }
        if let Some(limit) = self.looks.next(now) {
            self.outputs.push(Output::Look(limit));
        }
        self.go_on(now);
    }
}

impl Flight {
    /// As etcd counts them: those of the larger branch, or conditions.
    fn operations(&self) -> usize {
        self.request.success.len().max(self.request.compare.len())
    }

    fn untold(&self) -> impl DoubleEndedIterator<Item = &Asked> {
        self.writes.iter().filter_map(|carried| carried.asked.as_ref())
    }

    /// What it writes: its keys, and whether these are all.
    fn written(&self) -> (Vec<Key>, bool) {
        self.written_by(|_| true)
    }

    fn written_by(&self, wanted: impl Fn(&Carried) -> bool) -> (Vec<Key>, bool) {
        let (mut keys, mut is_clear) = (Vec::new(), false);
        for carried in self.writes.iter().filter(|carried| wanted(carried)) {
            match &carried.does {
                Does::Changes(changes) => keys.extend(changes.iter().map(|(key, _)| Arc::clone(key))),
                Does::Clear => is_clear = true,
                Does::Note(..) | Does::ReadNote(_) | Does::Nothing | Does::Fails(_) => {}
            }
        }
        (keys, is_clear)
    }

    fn first_untold(&self) -> Option<&Asked> {
        self.untold().next()
    }

    fn last_untold(&self) -> Option<&Asked> {
        self.untold().next_back()
    }
}

#[cfg(test)]
mod tests;
