//! The key-value server: one store, its slaves, and the answers to its callers.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::{Cast, Request, StateShape, state, status};
use crate::etf::tag::{FUN_EXT, NIL_EXT};
use crate::etf::{SharedBytes, TermError, TermView, TermWriter, Traits, encode, key};
use crate::process::effect::can_decode;
use crate::process::figures::{Served, StoreFigures, StoreWatch};
use crate::process::{Caller, Dispatch, Effect, Effects, GenServer, OwnedCaller};
use crate::replica::{PresentValue, Pushed, ReplicaWrite, Slave, SlaveName, SlaveState, Source, SourceRead};
use crate::store::{Store, StoreError, Value};

thread_local! {
    /// Where keys that did not come in canonical form are rewritten.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// A scratch buffer larger than this is given back after use, in bytes.
const SCRATCH_KEEP_BYTES: usize = 64 << 10;

/// The name under which a store keeps those of its slaves: a list of what `add_slave` was given.
const SLAVES_NOTE: &str = "slaves";

/// Slaves that one store may have.
pub const SLAVES_MAX: usize = 64;

/// A store, served to `GenServer` callers.
pub struct KeyValueServer<S> {
    store: S,
    dispatch: Arc<dyn Dispatch>,
    slaves: Arc<RwLock<Vec<Arc<Slave>>>>,
    /// Held while a write is applied and queued for slaves, so that every slave sees the store's own order. Of a store
    /// that writes later, held while a write that is done is queued for slaves.
    order: Arc<Mutex<()>>,
    /// Held while the names of the slaves are noted.
    noting: Mutex<()>,
    slave_buffer_bytes_max: usize,
    shape: StateShape,
    watch: Arc<StoreWatch>,
}

/// A write: what the two calls and the two casts come to.
#[derive(Clone, Copy)]
enum Write<'a> {
    Put { key: TermView<'a>, value: TermView<'a> },
    Delete { key: TermView<'a> },
}

impl Write<'_> {
    const fn traits(&self) -> Traits {
        match self {
            Self::Put { key, value } => key.traits().union(value.traits()),
            Self::Delete { key } => key.traits(),
        }
    }
}

/// What became of a write.
enum Written {
    Now(Result<(), StoreError>),
    Later,
}

impl<S: Store> KeyValueServer<S> {
    /// Serves `store`; answers that come later go out by `dispatch`.
    pub fn new(store: S, dispatch: Arc<dyn Dispatch>, slave_buffer_bytes_max: usize) -> Self {
        Self {
            store,
            dispatch,
            slaves: Arc::default(),
            order: Arc::default(),
            noting: Mutex::default(),
            slave_buffer_bytes_max,
            shape: StateShape::default(),
            watch: Arc::default(),
        }
    }

    /// The same, with what it serves counted here.
    pub fn watched_by(self, watch: Arc<StoreWatch>) -> Self {
        Self { watch, ..self }
    }

    /// The same, with its state shown as that of another server of the protocol.
    pub fn shown_as(self, shape: StateShape) -> Self {
        Self { shape, ..self }
    }

    /// The store.
    pub const fn store(&self) -> &S {
        &self.store
    }

    /// Takes in the pairs of a map, before anybody else knows the store.
    ///
    /// # Errors
    /// The map's fault: it is none, or has something in it that cannot be a key or a value.
    pub fn load(&self, pairs: TermView<'_>) -> Result<(), LoadError> {
        if pairs.traits().contains(Traits::OLD_FUN) {
            return Err(TermError::Tag(FUN_EXT).into());
        }
        let mut cursor = pairs.cursor();
        let len = cursor.map()?;
        key::check_maps(pairs)?;
        for _ in 0..len {
            let (key, value) = (cursor.term()?, cursor.term()?);
            let value = Value { bytes: value.bytes(), shared: None, traits: value.traits() };
            // Whoever answers later has taken it by now.
            let put = with_canonical(key, |key| self.store.put(key, value, || Box::new(|_| {})))?;
            put.unwrap_or(Ok(()))?;
        }
        Ok(())
    }

    /// The slaves that it has.
    pub fn slaves(&self) -> Vec<Arc<Slave>> {
        let slaves = self.slaves.read();
        slaves.iter().filter(|slave| slave.state() != SlaveState::Dropped).cloned().collect()
    }

    fn get(
        &self,
        key: TermView<'_>,
        caller: &Caller<'_>,
        effects: &mut Effects<'_>,
    ) -> Result<(), TermError> {
        with_canonical(key, |key| {
            let (me, flags, here) = (effects.me, effects.flags, caller.node() == *effects.peer);
            let later = || {
                let (caller, dispatch) = (caller.to_owned(&me.pid), Arc::clone(&self.dispatch));
                Box::new(move |found: Result<Option<Value<'_>>, StoreError>| {
                    caller.reply(&*dispatch, |w| match found {
                        Ok(Some(value)) if here && !can_decode(flags, value.traits) => {
                            // To send it would cost the caller's node its connection to us.
                            w.tuple(2).atom("error").atom("system_limit");
                        }
                        Ok(Some(value)) => {
                            w.raw(value.bytes);
                        }
                        Ok(None) => {
                            w.atom("nil");
                        }
                        Err(error) => write_error(w, &error),
                    });
                }) as crate::store::ReadDone
            };
            self.store.get(key, |value| reply_value(value, caller, effects), later);
        })
    }

    fn write(
        &self,
        write: Write<'_>,
        effects: &mut Effects<'_>,
        later: impl FnOnce(&Effects<'_>) -> Option<OwnedCaller>,
    ) -> Result<Written, TermError> {
        let (key, value) = match write {
            Write::Put { key, value } => {
                // What is not a term to a BEAM would cost the connection of whoever gets it.
                if key.traits().union(value.traits()).contains(Traits::OLD_FUN) {
                    return Err(TermError::Tag(FUN_EXT));
                }
                if value.traits().contains(Traits::MAP) {
                    key::check_maps(value)?;
                }
                (key, Some(value))
            }
            Write::Delete { key } => (key, None),
        };
        with_canonical(key, |key| {
            if S::WRITES_LATER {
                // Slaves get it when it is done: they must not have what the store may yet lose.
                return self.apply(write, key, value, effects, later);
            }
            let slaves = self.slaves.read();
            if slaves.is_empty() {
                return self.apply(write, key, value, effects, later);
            }
            let _order = self.order.lock();
            let written = self.apply(write, key, value, effects, later);
            if matches!(written, Written::Now(Ok(()))) {
                let traits = write.traits();
                for slave in slaves.iter() {
                    replicate(slave, key, value, traits, effects);
                }
            }
            written
        })
    }

    fn apply(
        &self,
        write: Write<'_>,
        key: &[u8],
        value: Option<TermView<'_>>,
        effects: &Effects<'_>,
        later: impl FnOnce(&Effects<'_>) -> Option<OwnedCaller>,
    ) -> Written {
        let done = || {
            let (caller, dispatch) = (later(effects), Arc::clone(&self.dispatch));
            let (slaves, order, store) = (Arc::clone(&self.slaves), Arc::clone(&self.order), effects.me.id);
            let (key, traits): (Box<[u8]>, _) = (key.into(), write.traits());
            let value =
                value.map(|value| shared_value(value, effects).unwrap_or_else(|| value.bytes().into()));
            Box::new(move |result: Result<(), StoreError>| {
                if result.is_ok() {
                    let slaves = slaves.read();
                    let order = (!slaves.is_empty()).then(|| order.lock());
                    let told = slaves.iter().filter(|slave| {
                        let write = match value.as_deref() {
                            Some(value) => ReplicaWrite::Put { key: &key, value, traits },
                            None => ReplicaWrite::Delete { key: &key, traits },
                        };
                        pushed(slave, write, &store)
                    });
                    let told: Vec<_> = told.collect();
                    drop(order);
                    for slave in told {
                        dispatch.replicate(slave, store);
                    }
                }
                match (caller, &result) {
                    (Some(caller), result) => caller.reply(&*dispatch, |w| write_result(w, result)),
                    (None, Err(error)) => tracing::error!(?store, %error, "replicated write lost"),
                    (None, Ok(())) => {}
                }
            }) as crate::store::WriteDone
        };
        let result = match value {
            Some(value) => {
                let bytes = value.bytes();
                let shared = shared_value(value, effects);
                let value = Value { bytes, shared: shared.as_ref(), traits: value.traits() };
                self.store.put(key, value, done)
            }
            None => self.store.delete(key, done),
        };
        result.map_or(Written::Later, Written::Now)
    }

    fn call_write(
        &self,
        write: Write<'_>,
        caller: &Caller<'_>,
        effects: &mut Effects<'_>,
    ) -> Result<(), TermError> {
        let later = |effects: &Effects<'_>| Some(caller.to_owned(&effects.me.pid));
        if let Written::Now(result) = self.write(write, effects, later)? {
            effects.reply(caller, |w| write_result(w, &result));
        }
        Ok(())
    }

    /// Adds a slave by name; `false` when it is one already.
    pub fn add_slave(&self, name: SlaveName) -> Result<Option<Arc<Slave>>, TooManySlaves> {
        let mut slaves = self.slaves.write();
        slaves.retain(|slave| slave.state() != SlaveState::Dropped);
        if slaves.iter().any(|slave| *slave.name() == name) {
            return Ok(None);
        }
        if slaves.len() >= SLAVES_MAX {
            return Err(TooManySlaves);
        }
        let slave = Arc::new(Slave::new(name, self.slave_buffer_bytes_max));
        slaves.push(Arc::clone(&slave));
        Ok(Some(slave))
    }

    fn call_add_slave(&self, slave: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        let Some(name) = SlaveName::read(slave) else {
            return refuse(&"a slave is an atom, {:global, name}, {name, node} or a pid", caller, effects);
        };
        if is_own(&name, effects) {
            return refuse(&"a store cannot be its own slave", caller, effects);
        }
        match self.add_slave(name) {
            Ok(added) => {
                if let Some(slave) = added {
                    tracing::info!(store = ?effects.me, slave = %slave.name(), "slave added");
                    effects.later.push(Effect::FollowSlave { slave, primary: effects.me.id });
                    if self.keep_slaves(caller, effects) {
                        return;
                    }
                }
                effects.reply(caller, |w| {
                    w.atom("ok");
                });
            }
            Err(TooManySlaves) => effects.reply(caller, |w| {
                w.tuple(2).atom("error").atom("too_many_slaves");
            }),
        }
    }
}

impl<S: Store> KeyValueServer<S> {
    /// Keeps the names of the slaves where the store keeps such things; then the caller is answered when it has.
    fn keep_slaves(&self, caller: &Caller<'_>, effects: &Effects<'_>) -> bool {
        // The last that is kept is of the last that was added.
        let _noting = self.noting.lock();
        let note = encode(|w| {
            let slaves = self.slaves.read();
            let names = slaves.iter().filter(|slave| slave.state() != SlaveState::Dropped);
            let names: Vec<_> = names.collect();
            w.list(names.len());
            for slave in names {
                slave.name().write(w);
            }
            w.nil();
        });
        let mut kept = false;
        self.store.keep_note(SLAVES_NOTE, &note, || {
            kept = true;
            let (caller, dispatch) = (caller.to_owned(&effects.me.pid), Arc::clone(&self.dispatch));
            Box::new(move |result| caller.reply(&*dispatch, |w| write_result(w, &result)))
        });
        kept
    }

    fn call_backup(&self, path: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        let Some(path) = path.as_binary().and_then(|path| str::from_utf8(path).ok()) else {
            return refuse(&"a backup's path is a binary", caller, effects);
        };
        let later = || {
            let (caller, dispatch) = (caller.to_owned(&effects.me.pid), Arc::clone(&self.dispatch));
            Box::new(move |result| caller.reply(&*dispatch, |w| write_result(w, &result)))
                as crate::store::WriteDone
        };
        if let Some(result) = self.store.backup(path, later) {
            effects.reply(caller, |w| write_result(w, &result));
        }
    }

    /// The slaves that a store had when it was used last; none where it keeps no such thing.
    ///
    /// # Errors
    /// The store's: what it kept could not be read.
    pub fn kept_slaves(store: &S) -> Result<Vec<SlaveName>, StoreError> {
        let Some(note) = store.note(SLAVES_NOTE)? else { return Ok(Vec::new()) };
        let read = || {
            let term = TermView::parse(&note).ok()?;
            let mut cursor = term.cursor();
            if term.tag() == NIL_EXT {
                return Some(Vec::new());
            }
            let len = cursor.list().ok()?;
            (0..len).map(|_| SlaveName::read(cursor.term().ok()?)).collect()
        };
        read().ok_or(StoreError::Io("damaged"))
    }

    /// Removes a slave: nothing is sent to it from here on. `false`: it was none. What it has, it keeps.
    pub fn remove_slave(&self, name: &SlaveName) -> bool {
        let mut slaves = self.slaves.write();
        let Some(at) = slaves.iter().position(|slave| slave.name() == name) else { return false };
        let slave = slaves.remove(at);
        let was_one = slave.state() != SlaveState::Dropped;
        slave.drop_out();
        was_one
    }

    fn call_remove_slave(&self, slave: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        let removed = SlaveName::read(slave).is_some_and(|name| self.remove_slave(&name));
        if removed {
            tracing::info!(store = ?effects.me, ?slave, "slave removed");
            if self.keep_slaves(caller, effects) {
                return;
            }
        }
        effects.reply(caller, |w| {
            if removed {
                w.atom("ok");
            } else {
                w.tuple(2).atom("error").atom("no_slave");
            }
        });
    }
}

/// Why a map could not be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// It is no map, or has something in it that cannot be kept: the fault of whoever sent it.
    Term(TermError),
    /// The store did not take it.
    Store(StoreError),
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for LoadError {}

impl From<TermError> for LoadError {
    fn from(error: TermError) -> Self {
        Self::Term(error)
    }
}

impl From<StoreError> for LoadError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// The store has as many slaves as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySlaves;

impl<S: Store> GenServer for KeyValueServer<S> {
    #[inline]
    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
        let served = match Request::read(request) {
            Some(Request::Get { key }) => {
                self.watch.count(Served::Get);
                self.get(key, caller, effects)
            }
            Some(Request::Put { key, value }) => {
                self.watch.count(Served::Put);
                self.call_write(Write::Put { key, value }, caller, effects)
            }
            Some(Request::Delete { key }) => {
                self.watch.count(Served::Delete);
                self.call_write(Write::Delete { key }, caller, effects)
            }
            Some(Request::AddSlave { slave }) => {
                self.watch.count(Served::Other);
                self.call_add_slave(slave, caller, effects);
                Ok(())
            }
            Some(Request::RemoveSlave { slave }) => {
                self.watch.count(Served::Other);
                self.call_remove_slave(slave, caller, effects);
                Ok(())
            }
            Some(Request::Backup { path }) => {
                self.watch.count(Served::Other);
                self.call_backup(path, caller, effects);
                Ok(())
            }
            Some(Request::Slaves) => {
                self.watch.count(Served::Other);
                effects.reply(caller, |w| status::slaves(w, &self.slaves()));
                Ok(())
            }
            Some(Request::Status) => {
                self.watch.count(Served::Other);
                effects.reply(caller, |w| status::write(w, &self.store, &self.slaves()));
                Ok(())
            }
            None => {
                self.watch.count(Served::Refused);
                tracing::warn!(store = ?effects.me, ?request, peer = effects.peer, "unknown call ended");
                effects.end_call(caller, |w| {
                    w.tuple(2).atom("bad_call").term(request);
                });
                Ok(())
            }
        };
        if let Err(error) = served {
            self.watch.count(Served::Refused);
            refuse(&error, caller, effects);
        }
    }

    fn handle_cast(&self, request: TermView<'_>, effects: &mut Effects<'_>) {
        let write = match Cast::read(request) {
            Some(Cast::ReplicatePut { key, value }) => Write::Put { key, value },
            Some(Cast::ReplicateDelete { key }) => Write::Delete { key },
            None => {
                self.watch.count(Served::Refused);
                tracing::warn!(store = ?effects.me, ?request, peer = effects.peer, "unknown cast ignored");
                return;
            }
        };
        self.watch.count(Served::Replicated);
        self.watch.replicated_from(effects.peer);
        match self.write(write, effects, |_| None) {
            Ok(Written::Now(Ok(())) | Written::Later) => {}
            Ok(Written::Now(Err(error))) => {
                tracing::error!(store = ?effects.me, peer = effects.peer, %error, "replicated write lost");
            }
            Err(error) => {
                tracing::error!(store = ?effects.me, peer = effects.peer, %error, "replicated write refused");
            }
        }
    }

    fn handle_info(&self, message: TermView<'_>, effects: &mut Effects<'_>) {
        // kernel, global.erl, random_notify_name/3 and notify_all_name/3: we have lost a name.
        let lost = message
            .as_tuple::<2>()
            .map(|[kind, name]| (kind, name))
            .or_else(|| message.as_tuple::<3>().map(|[kind, name, _other]| (kind, name)))
            .filter(|(kind, _)| kind.is_atom("global_name_conflict"))
            .and_then(|(_, name)| name.as_atom());
        match lost {
            Some(name) => effects.later.push(Effect::GlobalNameLost { name: name.to_str().into() }),
            None => tracing::debug!(store = ?effects.me, ?message, "message ignored"),
        }
    }

    /// Lets go of the slaves: what waits for them is dropped.
    fn terminate(&self, reason: TermView<'_>) {
        let entries = match self.store.len() {
            1 => "1 entry is".to_owned(),
            entries => format!("{entries} entries are"),
        };
        if self.store.is_durable() {
            tracing::info!(?reason, "store ended: its {entries} kept");
        } else if self.store.len() > 0 && reason.is_atom("shutdown") {
            tracing::info!(?reason, "store ended: its {entries} lost");
        } else if self.store.len() > 0 {
            tracing::warn!(?reason, "store ended: its {entries} lost");
        }
        for slave in self.slaves.write().drain(..) {
            slave.drop_out();
        }
    }

    fn state(&self, w: &mut TermWriter<'_>, bytes_max: usize) {
        state::write(w, &self.store, &self.slaves.read(), self.shape, bytes_max);
    }

    fn replica_source(&self) -> Option<&dyn Source> {
        Some(self)
    }

    fn module(&self) -> &str {
        match self.shape {
            StateShape::Replicated => "Elixir.KeyValueStoreReplicated",
            StateShape::Plain => "Elixir.KeyValueStore",
        }
    }
}

impl<S: Store> StoreFigures for KeyValueServer<S> {
    fn entries(&self) -> usize {
        self.store.len()
    }

    fn bytes(&self) -> u64 {
        self.store.bytes()
    }

    fn slaves(&self) -> Vec<Arc<Slave>> {
        Self::slaves(self)
    }
}

impl<S: Store> fmt::Debug for KeyValueServer<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyValueServer").field("len", &self.store.len()).finish_non_exhaustive()
    }
}

/// Whether a slave's name is one of the store itself, as far as this node can tell.
fn is_own(name: &SlaveName, effects: &Effects<'_>) -> bool {
    let registry = effects.registry;
    let named = match name {
        SlaveName::Pid(pid) => registry.by_owned_pid(pid),
        SlaveName::Local(name) => registry.by_name(name).map(|(_, process)| process),
        SlaveName::Remote { name, node } if *node == registry.node => {
            registry.by_name(name).map(|(_, process)| process)
        }
        // Who holds a global name is for the cluster to say.
        SlaveName::Remote { .. } | SlaveName::Global(_) => None,
    };
    named.is_some_and(|process| process.is_sibling(effects.me))
}

/// Ends a call whose key or value cannot be kept, or given to this caller.
fn refuse(error: &dyn fmt::Display, caller: &Caller<'_>, effects: &mut Effects<'_>) {
    effects.end_call(caller, |w| {
        w.tuple(2).atom("badarg").binary(error.to_string().as_bytes());
    });
}

#[inline]
fn reply_value(value: Option<Value<'_>>, caller: &Caller<'_>, effects: &mut Effects<'_>) {
    match value {
        None => effects.reply(caller, |w| {
            w.atom("nil");
        }),
        Some(value) if !effects.can_decode(value.traits) => effects.end_call(caller, |w| {
            // To send it would cost the caller's node its connection to us.
            w.tuple(2).atom("system_limit").binary(b"this OTP version cannot decode the value");
        }),
        Some(Value { shared: Some(shared), .. }) => effects.reply_shared(caller, shared.clone()),
        Some(value) => effects.reply(caller, |w| {
            w.raw(value.bytes);
        }),
    }
}

fn write_result(w: &mut TermWriter<'_>, result: &Result<(), StoreError>) {
    match result {
        Ok(()) => {
            w.atom("ok");
        }
        Err(error) => write_error(w, error),
    }
}

fn write_error(w: &mut TermWriter<'_>, error: &StoreError) {
    w.tuple(2).atom("error");
    match error.detail() {
        None => w.atom(error.code()),
        Some(detail) => w.tuple(2).atom(error.code()).atom(detail),
    };
}

impl<S: Store> Source for KeyValueServer<S> {
    fn parts(&self) -> usize {
        self.store.parts()
    }

    fn keys(&self, part: usize, show: &mut dyn FnMut(&[u8])) {
        self.store.keys_of_part(part, show);
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        match self.store.settled(key, |value| show(value.map(|value| (value.bytes, value.traits)))) {
            Some(Ok(())) => SourceRead::Shown,
            Some(Err(error)) => {
                tracing::error!(%error, "an entry cannot be sent to slaves");
                SourceRead::Unreadable
            }
            None => SourceRead::Later,
        }
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        let _order = self.order.lock();
        run();
    }

    fn len(&self) -> usize {
        self.store.len()
    }
}

fn replicate(
    slave: &Arc<Slave>,
    key: &[u8],
    value: Option<TermView<'_>>,
    traits: Traits,
    effects: &mut Effects<'_>,
) {
    let write = match value {
        Some(value) => ReplicaWrite::Put { key, value: value.bytes(), traits },
        None => ReplicaWrite::Delete { key, traits },
    };
    if pushed(slave, write, effects.me) {
        // Once per batch is enough: the slave's queue keeps the order.
        let asked =
            |effect: &Effect| matches!(effect, Effect::Replicate(asked, _) if Arc::ptr_eq(asked, slave));
        if !effects.later.iter().rev().take(8).any(asked) {
            effects.later.push(Effect::Replicate(Arc::clone(slave), effects.me.id));
        }
    }
}

/// Queues a write for a slave; gives whether it is to be taken now.
fn pushed(slave: &Slave, write: ReplicaWrite<'_>, store: &dyn fmt::Debug) -> bool {
    match slave.push(write) {
        Pushed::Kept => false,
        Pushed::Ready => true,
        Pushed::Behind(dropped) => {
            tracing::warn!(
                ?store, slave = %slave.name(), dropped,
                "slave is behind: it will be sent what it misses when it has taken what it was sent"
            );
            false
        }
    }
}

/// The part of the received memory that a large value is.
fn shared_value(value: TermView<'_>, effects: &Effects<'_>) -> Option<SharedBytes> {
    effects.frame_owner.and_then(|owner| SharedBytes::part_of(owner, value.bytes()))
}

/// Calls `with` on the canonical bytes of a key.
#[inline]
fn with_canonical<R>(key: TermView<'_>, with: impl FnOnce(&[u8]) -> R) -> Result<R, TermError> {
    SCRATCH.with_borrow_mut(|scratch| {
        let result = key::canonical(key, scratch).map(with);
        if scratch.capacity() > SCRATCH_KEEP_BYTES {
            *scratch = Vec::new();
        }
        result
    })
}
