//! The thread of a store, which carries out the outputs of its machine, and the state that it shares with the callers.

#[cfg(feature = "disk")]
pub(super) mod moving;
pub(super) mod names;
mod observer;

use std::future::{Future, pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use smol::Timer;
use smol::channel::{Receiver, Sender};
use smol::future::FutureExt;

use super::ask::{Ask, Asked, Key, Outcome, Wrote, call, tell_of};
use super::batch::Bounds;
use super::layout::{Layout, Of};
use super::machine::{Input, Machine, Output};
use super::members_of;
use super::table::Table;
use super::waits::{Due, Later, Place, Waits};
use crate::etcd::message::{Effect, RangeRequest, TxnResponse};
use crate::etcd::{Ask as EtcdAsk, Error, Etcd, Pages, Watch, WatchEvent, WatchOptions};
use crate::store::{
    EtcdFigures, EtcdState, MemoryStore, OpenError, Others, OthersTold, ReadDone, ReadManyDone, Store,
    StoreError,
};
use observer::{Last, Observed, last_mark, observed};

/// Past so many bytes that wait a connection that writes waits until there is room again.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// So long. With the machine's patience it is less than a `GenServer.call` waits.
const ROOM_PATIENCE: Duration = Duration::from_millis(500);
/// So many bytes may wait for an answer of etcd to be read: keys, and what stands beside each.
const CAREFUL_BYTES_MAX: usize = if cfg!(test) { 1 << 20 } else { 64 << 20 };

/// The state that the thread and the callers share.
pub(super) struct Shared {
    etcd: Etcd,
    base: Vec<u8>,
    table: Arc<Table>,
    queue: Mutex<Queue>,
    /// Requests and others' writes that are not told of: a look without the lock.
    waiting: AtomicUsize,
    /// Reads wait until all is here that any process was answered for.
    reads_carefully: AtomicBool,
    /// Bytes of what waits for an answer of etcd to be read, see [`CAREFUL_BYTES_MAX`].
    careful_bytes: AtomicUsize,
    room: Condvar,
    told: Mutex<Told>,
    poke: Sender<()>,
    began: Instant,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: OnceLock<ThreadId>,
    /// Numbers of others' writes for [`Queue::others`].
    shown: AtomicU64,
    state: Mutex<EtcdState>,
    observed: Mutex<Observed>,
}

/// The last write that was told of, and the callback for others' writes.
struct Told {
    /// The number of the last write that was told of, or is just being.
    seq: u64,
    others: Option<OthersTold>,
}

#[derive(Default)]
struct Queue {
    asked: Vec<Asked>,
    /// What was observed beside the store's work.
    observed: Option<Input>,
    /// So much was asked.
    number: u64,
    /// Of all that is not told of.
    bytes: usize,
    /// Requests that are not told of.
    waits: Waits,
    /// Others' writes that are in the table and not told of.
    others: Waits,
    /// A writer has waited for room in vain, and there was none since: no other one waits.
    is_stuck: bool,
    is_closed: bool,
}

impl Shared {
    fn new(etcd: Etcd, base: Vec<u8>, entries: MemoryStore, poke: Sender<()>) -> Self {
        Self {
            etcd,
            base,
            table: Arc::new(Table::new(entries)),
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            reads_carefully: AtomicBool::new(false),
            careful_bytes: AtomicUsize::new(0),
            room: Condvar::new(),
            told: Mutex::new(Told { seq: 1, others: None }),
            poke,
            began: now(),
            thread: Mutex::default(),
            thread_id: OnceLock::new(),
            shown: AtomicU64::new(0),
            state: Mutex::new(EtcdState::Loading),
            observed: Mutex::default(),
        }
    }

    /// How it stands to etcd.
    pub(super) fn figures(&self) -> EtcdFigures {
        let (observed, applied) = (self.observed.lock(), self.table.applied());
        let mut members = members_of(&self.etcd);
        for (at, member) in members.iter_mut().enumerate() {
            member.seen = observed.member(at);
        }
        let lag = observed.lag(applied, self.began.elapsed());
        EtcdFigures { state: self.state(), revision: applied.max(0) as u64, lag, members }
    }

    pub(super) fn base(&self) -> &[u8] {
        &self.base
    }

    pub(super) fn table(&self) -> &Table {
        &self.table
    }

    /// Asks.
    pub(super) fn ask(&self, keys: Vec<Key>, ask: Ask) {
        let mut queue = self.queue.lock();
        // A completion on the thread itself may ask for something.
        let may_wait = self.thread_id.get() != Some(&thread::current().id());
        // What takes no room waits for none: the end of a node among others.
        let takes_none = matches!(ask, Ask::ReadNote(_) | Ask::Note(..) | Ask::Barrier(_) | Ask::CatchUp(_));
        let may_wait = may_wait && !takes_none;
        let until = now() + ROOM_PATIENCE;
        while may_wait && queue.bytes > QUEUE_BYTES_MAX && !queue.is_closed {
            if queue.is_stuck {
                // The thread that asks has others to serve.
                drop(queue);
                let asked = Asked { number: 0, at: Duration::ZERO, keys, ask };
                return asked.tell(Err(StoreError::Unavailable));
            }
            let is_over = self.room.wait_until(&mut queue, until).timed_out();
            queue.is_stuck = is_over && queue.bytes > QUEUE_BYTES_MAX;
        }
        queue.number += 1;
        let asked = Asked { number: queue.number, at: self.began.elapsed(), keys, ask };
        if queue.is_closed {
            drop(queue);
            return asked.tell(Err(StoreError::Io("terminated")));
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        queue.bytes += asked.bytes();
        if let Some(place) = Place::of(&asked) {
            queue.waits.push(&place);
        }
        queue.asked.push(asked);
        drop(queue);
        // Full: it is told already.
        let _ = self.poke.try_send(());
    }

    pub(super) fn reads_carefully(&self) -> bool {
        self.reads_carefully.load(Ordering::Acquire)
    }

    pub(super) fn read_carefully(&self, is_careful: bool) {
        self.reads_carefully.store(is_careful, Ordering::Release);
    }

    /// Takes room for a read that waits for etcd; gives whether there is some. What was taken is [given back](Self::give_back).
    pub(super) fn take_room(&self, bytes: usize) -> bool {
        let has_room = self.careful_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes <= CAREFUL_BYTES_MAX;
        if !has_room {
            self.give_back(bytes);
        }
        has_room
    }

    pub(super) fn give_back(&self, bytes: usize) {
        self.careful_bytes.fetch_sub(bytes, Ordering::AcqRel);
    }

    /// Something was observed.
    fn tell(&self, observed: Option<Input>) {
        if observed.is_some() {
            self.queue.lock().observed = observed;
            // Full: it is told already.
            let _ = self.poke.try_send(());
        }
    }

    fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::Acquire) > 0
    }

    /// See [`Waits::read_later`]. Gives whether it is answered by its completion.
    pub(super) fn read_later(&self, key: &[u8], done: impl FnOnce() -> ReadDone) -> bool {
        if !self.has_waiting() {
            return false;
        }
        let later = {
            let queue = &mut *self.queue.lock();
            match queue.waits.read_later(key, done) {
                Later::No(done) => queue.others.read_later(key, done),
                later => later,
            }
        };
        if let Later::TooMany(done) = later {
            done()(Err(StoreError::Io("system_limit")));
            return true;
        }
        matches!(later, Later::Waits)
    }

    /// See [`Waits::read_many_later`]. As [`read_later`](Self::read_later).
    pub(super) fn read_many_later(&self, keys: &[&[u8]], done: impl FnOnce() -> ReadManyDone) -> bool {
        if !self.has_waiting() {
            return false;
        }
        let later = {
            let queue = &mut *self.queue.lock();
            match queue.waits.read_many_later(keys, done) {
                Later::No(done) => queue.others.read_many_later(keys, done),
                later => later,
            }
        };
        if let Later::TooMany(done) = later {
            done()(Err(StoreError::Io("system_limit")));
            return true;
        }
        matches!(later, Later::Waits)
    }

    /// The keys of which writes wait, or are being told of.
    pub(super) fn waiting_keys(&self) -> Vec<Key> {
        if !self.has_waiting() {
            return Vec::new();
        }
        let queue = self.queue.lock();
        let mut keys = queue.waits.keys();
        keys.extend(queue.others.keys());
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    pub(super) fn state(&self) -> EtcdState {
        *self.state.lock()
    }

    fn set_state(&self, state: EtcdState, why: &dyn std::fmt::Display) {
        let before = std::mem::replace(&mut *self.state.lock(), state);
        match (before, state) {
            (EtcdState::Following, EtcdState::Cut) => {
                tracing::warn!(%why, "a store's watch of etcd is cut: readers see what was there");
            }
            (EtcdState::Following | EtcdState::Cut, EtcdState::Loading) => {
                tracing::warn!("a store of etcd is loaded anew: readers see what was there");
            }
            (EtcdState::Cut, EtcdState::Following) => tracing::info!("a store's watch of etcd goes on"),
            _ => {}
        }
    }

    /// See [`Store::tell_of_others`].
    pub(super) fn tell_of_others(&self, tell: OthersTold) -> u64 {
        let told = &mut *self.told.lock();
        told.others = Some(tell);
        told.seq
    }

    /// Tells of a write of another process. Without the lock: the callback may wait for a thread that is about to take it.
    fn tell_of_other(&self, wrote: &Wrote) {
        let has_ended = wrote.has_ended;
        self.call_others(Some(wrote.seq), |others| {
            tell_of(wrote, |written| others(Others::Wrote { written, has_ended }));
        });
    }

    /// Calls the callback for others' writes.
    fn call_others(&self, seq: Option<u64>, tell: impl FnOnce(&mut OthersTold)) {
        let others = {
            let told = &mut *self.told.lock();
            told.seq = seq.unwrap_or(told.seq);
            told.others.take()
        };
        let Some(mut others) = others else { return };
        call(|| tell(&mut others));
        self.told.lock().others.get_or_insert(others);
    }

    /// No request is taken any more; those that were taken are carried out.
    pub(super) fn close(&self) {
        self.queue.lock().is_closed = true;
        self.room.notify_all();
        let _ = self.poke.try_send(());
    }

    /// Waits for the end of the thread.
    pub(super) fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread.filter(|thread| thread.thread().id() != thread::current().id()) {
            // A thread that has panicked has said so.
            let _ = thread.join();
        }
    }

    /// These were told of: the reads that waited for them are answered.
    fn told(&self, places: &[Place], count: usize, bytes: usize, others: Option<Place>) {
        let reads = {
            let queue = &mut *self.queue.lock();
            queue.bytes = queue.bytes.saturating_sub(bytes);
            queue.is_stuck &= queue.bytes > QUEUE_BYTES_MAX;
            let mut reads: Vec<Due> = places.iter().flat_map(|place| queue.waits.told(place)).collect();
            reads.extend(others.iter().flat_map(|place| queue.others.told(place)));
            reads
        };
        self.waiting.fetch_sub(count + usize::from(others.is_some()), Ordering::AcqRel);
        self.room.notify_all();
        for read in reads {
            match read {
                Due::One(key, done) => {
                    let value = self.table.get(&key);
                    call(|| done(Ok(value.as_ref().map(|value| value.value()))));
                }
                Due::Many(keys, done) => {
                    let keys: Vec<&[u8]> = keys.iter().map(|key| &**key).collect();
                    call(|| {
                        let shown =
                            self.table.entries.get_many(&keys, |found| done(Ok(found)), || Box::new(|_| {}));
                        debug_assert!(shown.is_some(), "memory answers at once");
                    });
                }
            }
        }
    }
}

/// The first load of a store, whose end is waited for.
pub(super) struct Loaded(Receiver<Result<(), Error>>);

impl Loaded {
    /// Waits until the store is loaded, or is not.
    pub(super) fn wait(self) -> Result<(), OpenError> {
        match smol::block_on(self.0.recv()) {
            Ok(loaded) => loaded.map_err(not_opened),
            Err(_) => Err(OpenError::Etcd { reason: "the store's thread has ended".to_owned() }),
        }
    }
}

/// What an error means for a store that is to be opened.
fn not_opened(error: Error) -> OpenError {
    let reason = error.to_string();
    match error {
        Error::Unavailable { .. }
        | Error::Unknown { .. }
        | Error::LeaderLost
        | Error::Compacted { .. }
        | Error::NoSpace
        | Error::Malformed { .. } => OpenError::EtcdAway { reason },
        _ => OpenError::Etcd { reason },
    }
}

/// Starts a store's thread, which begins to load the store.
pub(super) fn start(
    etcd: &Etcd,
    prefix: &str,
    id: &str,
    entries: MemoryStore,
) -> Result<(Arc<Shared>, Loaded), OpenError> {
    let mut writer = [0; 8];
    getrandom::fill(&mut writer).map_err(|error| OpenError::Etcd { reason: error.to_string() })?;
    let layout = Layout::new(prefix, id, u64::from_be_bytes(writer));
    let (poke, poked) = smol::channel::bounded(1);
    let (opened, is_open) = smol::channel::bounded(1);
    let shared = Arc::new(Shared::new(etcd.clone(), layout.base().to_vec(), entries, poke));
    let bounds = Bounds::new(etcd.request_bytes_max());
    let machine = Machine::new(layout.clone(), bounds, Arc::clone(&shared.table));
    let shell = Shell {
        etcd: etcd.clone(),
        shared: Arc::clone(&shared),
        layout,
        machine,
        poked,
        opened: Some(opened),
        has_said_not_loaded: false,
        call: None,
        look: None,
        load: None,
        watch: None,
    };
    let looks = observer::run(Arc::clone(&shared), shell.layout.marks());
    let run = super::planted::inherited(move || smol::block_on(shell.run().or(looks)));
    let thread = thread::Builder::new().name("kvnode-etcd-store".into()).spawn(run);
    *shared.thread.lock() = Some(thread.map_err(|error| OpenError::Etcd { reason: error.to_string() })?);
    Ok((shared, Loaded(is_open)))
}

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type Page = Result<Option<Vec<crate::etcd::message::KeyValue>>, Error>;
/// With the revision that the table had come to when it was asked for.
type Answer = (i64, Result<TxnResponse, Error>);

struct Shell {
    etcd: Etcd,
    shared: Arc<Shared>,
    layout: Layout,
    machine: Machine,
    poked: Receiver<()>,
    opened: Option<Sender<Result<(), Error>>>,
    has_said_not_loaded: bool,
    call: Option<(u64, Work<Answer>)>,
    look: Option<Work<Result<Last, Error>>>,
    load: Option<Work<(Pages, Page)>>,
    watch: Option<Work<(Watch, Result<WatchEvent, Error>)>>,
}

impl Shell {
    async fn run(mut self) {
        // Nobody else sets it.
        let _ = self.shared.thread_id.set(thread::current().id());
        let _ends = Ends(Arc::clone(&self.shared));
        self.carry_out(None);
        loop {
            let inputs = self.next().await;
            let (asked, observed, is_closed) = {
                let queue = &mut *self.shared.queue.lock();
                (std::mem::take(&mut queue.asked), queue.observed.take(), queue.is_closed)
            };
            let asked = (!asked.is_empty()).then_some(Input::Asked(asked));
            for input in asked.into_iter().chain(observed).chain(inputs) {
                let others = self.announce(&input);
                self.machine.handle(input, self.shared.began.elapsed());
                self.carry_out(others);
            }
            if is_closed && self.machine.is_settled() {
                return;
            }
        }
    }

    /// What comes next: all that is there at once, so that nothing makes another thing wait. What is begun here is polled the next time.
    async fn next(&mut self) -> Vec<Input> {
        let wakes_at = self.machine.wakes_at().map(|at| self.shared.began + at);
        let Self { call, look, load, watch, poked, shared, .. } = self;
        let mut poked = pin!(poked.recv());
        let mut timer = pin!(async {
            match wakes_at {
                Some(at) => _ = Timer::at(at).await,
                None => pending().await,
            }
        });
        poll_fn(|cx| {
            let mut inputs = Vec::new();
            if let Some((number, work)) = call
                && let Poll::Ready((applied, answer)) = work.as_mut().poll(cx)
            {
                let header = answer.as_ref().ok().and_then(|answer| answer.header);
                inputs.extend(observed(applied, header));
                inputs.push(Input::Answered(*number, answer));
                *call = None;
            }
            if let Some(work) = look
                && let Poll::Ready(answer) = work.as_mut().poll(cx)
            {
                let (mark, observed) = match answer {
                    Ok(Last { mark, observed }) => (Ok(mark), observed),
                    Err(error) => (Err(error), None),
                };
                inputs.extend(observed);
                inputs.push(Input::Looked(mark));
                *look = None;
            }
            if let Some(work) = load
                && let Poll::Ready((pages, page)) = work.as_mut().poll(cx)
            {
                *load = None;
                inputs.push(match page {
                    Ok(Some(entries)) => {
                        *load = Some(next_page(pages));
                        Input::Page(entries)
                    }
                    Ok(None) => Input::Loaded(pages.revision()),
                    Err(error) => Input::NotLoaded(error),
                });
            }
            if let Some(work) = watch
                && let Poll::Ready((its, event)) = work.as_mut().poll(cx)
            {
                // After an error too: it may do better the next time.
                *watch = Some(next_event(its));
                inputs.push(match event {
                    Ok(WatchEvent::Changes(events)) => Input::Changes(events),
                    Ok(WatchEvent::Progress { revision }) => Input::Progress(revision),
                    Ok(WatchEvent::Opened { .. }) => {
                        shared.set_state(EtcdState::Following, &"");
                        Input::Woke
                    }
                    Ok(WatchEvent::Cut { reason }) => {
                        shared.set_state(EtcdState::Cut, &reason);
                        Input::Woke
                    }
                    Err(error) => Input::Lost(error),
                });
            }
            let is_poked = poked.as_mut().poll(cx).is_ready();
            if is_poked || timer.as_mut().poll(cx).is_ready() {
                inputs.push(Input::Woke);
            }
            if inputs.is_empty() { Poll::Pending } else { Poll::Ready(inputs) }
        })
        .await
    }

    /// A change that comes into the table without a completion is not read until it is told of.
    fn announce(&self, input: &Input) -> Option<Place> {
        let mut keys = Vec::new();
        let mut is_clear = false;
        match input {
            Input::Loaded(_) => (keys, is_clear) = self.machine.changed_by_load(),
            Input::Changes(events) => {
                let applied = self.shared.table.applied();
                for event in events.iter().filter(|event| event.revision() > applied) {
                    if let Some(kv) = &event.kv
                        && let Of::Entry(key) = self.layout.read(&kv.key)
                    {
                        keys.push(Key::from(key));
                    }
                }
            }
            Input::Answered(..) => {
                let (given_up, is_all) = self.machine.given_up();
                keys.extend(given_up);
                is_clear |= is_all;
            }
            _ => {}
        }
        if keys.is_empty() && !is_clear {
            return None;
        }
        let number = self.shared.shown.fetch_add(1, Ordering::AcqRel) + 1;
        let place = Place { number, keys, is_clear };
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        self.shared.queue.lock().others.push(&place);
        Some(place)
    }

    fn carry_out(&mut self, others: Option<Place>) {
        let (mut places, mut count, mut bytes) = (Vec::new(), 0, 0);
        for output in self.machine.outputs() {
            match output {
                Output::Send { number, request, limit } => {
                    let (etcd, applied) = (self.etcd.clone(), self.shared.table.applied());
                    let ask = EtcdAsk { deadline: Some(limit), effect: Some(Effect::Guarded) };
                    let call = async move { (applied, etcd.call_with(&request, ask).await) };
                    self.call = Some((number, Box::pin(call)));
                }
                Output::Look(limit) => {
                    let (shared, marks) = (Arc::clone(&self.shared), self.layout.marks());
                    self.look = Some(Box::pin(async move { last_mark(&shared, marks, limit).await }));
                }
                Output::Load => {
                    self.shared.set_state(EtcdState::Loading, &"");
                    self.watch = None;
                    let (key, range_end) = self.layout.all();
                    let range = RangeRequest { key, range_end, ..RangeRequest::default() };
                    self.load = Some(next_page(self.etcd.pages(range)));
                }
                Output::Watch(revision) => {
                    self.has_said_not_loaded = false;
                    let (key, range_end) = self.layout.all();
                    let options = WatchOptions { range_end, ..WatchOptions::key(key) };
                    self.watch = Some(next_event(self.etcd.watch(options.from_revision(revision))));
                }
                Output::RolledBack => {
                    (self.call, self.look, self.load, self.watch) = (None, None, None, None);
                    self.shared.set_state(EtcdState::RolledBack, &"");
                }
                Output::Opened => self.say_opened(Ok(())),
                Output::NotLoaded(error) => {
                    if !std::mem::replace(&mut self.has_said_not_loaded, true) {
                        tracing::warn!(%error, "a store of etcd was not loaded; it is tried again and again");
                    }
                    self.say_opened(Err(error));
                }
                Output::Tell(asked, result) => {
                    count += 1;
                    bytes += asked.bytes();
                    places.extend(Place::of(&asked));
                    if let Ok(Outcome::Wrote(wrote)) = &result {
                        self.shared.told.lock().seq = wrote.seq;
                    }
                    asked.tell(result);
                }
                Output::TellOfOther(wrote) => self.shared.tell_of_other(&wrote),
                Output::Missed(number) => {
                    self.shared.call_others(None, |others| others(Others::Missed { number }));
                }
            }
        }
        if count > 0 || others.is_some() {
            self.shared.told(&places, count, bytes, others);
        }
    }

    /// The thread that opens the store waits for this.
    fn say_opened(&mut self, result: Result<(), Error>) {
        if let Some(opened) = self.opened.take() {
            let _ = opened.try_send(result);
        }
    }
}

/// The end of the thread, also by a panic: no caller waits for it any more, and no read. What the machine holds is answered as that is let go of.
struct Ends(Arc<Shared>);

impl Drop for Ends {
    fn drop(&mut self) {
        if thread::panicking() {
            tracing::error!(
                "a store's thread has ended by a panic (a bug: please report it): nothing is written any more"
            );
            self.0.set_state(EtcdState::Cut, &"the store's thread has ended");
        }
        self.0.close();
        let (asked, reads) = {
            let queue = &mut *self.0.queue.lock();
            let mut reads = queue.waits.give_up();
            reads.extend(queue.others.give_up());
            (std::mem::take(&mut queue.asked), reads)
        };
        self.0.waiting.store(0, Ordering::Release);
        // Each answers as it is let go of.
        drop(asked);
        for read in reads {
            read.fail(&StoreError::Io("terminated"));
        }
    }
}

fn next_page(mut pages: Pages) -> Work<(Pages, Page)> {
    Box::pin(async move {
        let page = pages.next().await;
        (pages, page)
    })
}

fn next_event(mut watch: Watch) -> Work<(Watch, Result<WatchEvent, Error>)> {
    Box::pin(async move {
        let event = watch.next().await;
        (watch, event)
    })
}

#[expect(
    clippy::disallowed_methods,
    reason = "the time since the store was opened is what its machine counts in"
)]
fn now() -> Instant {
    Instant::now()
}

#[cfg(test)]
mod tests;
