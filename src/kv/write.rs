//! A write of a store: what it comes from, what is told when it is done, and how its slaves get it.

use std::sync::Arc;

use super::SlaveEntry;
use super::confirm::{Confirmations, Era};
use super::order::{Committed, Next, Order};
use super::upstream::UpstreamEntry;
use super::watch::announce;
use crate::etf::tag::FUN_EXT;
use crate::etf::{SharedBytes, TermError, TermView, Traits, key};
use crate::process::{Dispatch, Effect, Feed, OwnedCaller, ProcessId, Turn};
use crate::replica::Pushed;
use crate::replica::downstream::Input;
use crate::replica::upstream::Ticket;
use crate::store::{Change, StoreError, Value, WriteDone};

/// The numbers that a value comes with.
#[derive(Clone, Copy, Default)]
pub(super) struct Stamp {
    /// The number of the copy that was under way when it was seen whether the write is taken at all
    /// ([`UpstreamEntry::copy`](super::upstream::UpstreamEntry::copy)).
    pub copy: u32,
    /// The revision; 0: the store gives it one.
    pub revision: u64,
    /// When it ends, by the store's clock; 0: never.
    pub deadline: u64,
}

impl Stamp {
    /// A value with these numbers.
    #[inline]
    pub(super) const fn of<'a>(self, value: TermView<'a>) -> Value<'a> {
        self.put_into(Value::of(value.bytes(), value.traits()))
    }

    /// The same value, with these numbers.
    #[inline]
    pub(super) const fn put_into(self, value: Value<'_>) -> Value<'_> {
        let Self { copy, revision, deadline } = self;
        Value { copy, revision, deadline, ..value }
    }
}

/// A write: what the two calls and the two casts come to.
#[derive(Clone, Copy)]
pub(super) enum Write<'a> {
    Put { key: TermView<'a>, value: TermView<'a>, stamp: Stamp },
    Delete { key: TermView<'a> },
}

impl<'a> Write<'a> {
    /// Gives the key, and the value of a put, that can be kept: with the traits of both, as each of them decides whether a node
    /// can decode the pair.
    pub(super) fn check(self) -> Result<(TermView<'a>, Option<TermView<'a>>), TermError> {
        match self {
            Write::Put { key, value, .. } => Ok((key, Some(check_value(key, value)?))),
            Write::Delete { key } => Ok((key, None)),
        }
    }

    pub(super) fn stamp(&self) -> Stamp {
        match self {
            Self::Put { stamp, .. } => *stamp,
            Self::Delete { .. } => Stamp::default(),
        }
    }

    pub(super) const fn traits(&self) -> Traits {
        match self {
            Self::Put { key, value, .. } => key.traits().union(value.traits()),
            Self::Delete { key } => key.traits(),
        }
    }

    /// What a slave's node has to decode to have it.
    pub(super) const fn needs(&self) -> Traits {
        match self {
            Self::Put { .. } => self.traits(),
            // A node that cannot decode a key does not have it.
            Self::Delete { .. } => Traits::none(),
        }
    }
}

/// Gives the value that can be kept under a key, with the traits of both.
#[inline]
pub(super) fn check_value<'a>(key: TermView<'_>, value: TermView<'a>) -> Result<TermView<'a>, TermError> {
    // What is not a term to a BEAM would cost the connection of the node that gets it.
    if key.traits().union(value.traits()).contains(Traits::OLD_FUN) {
        return Err(TermError::Tag(FUN_EXT));
    }
    if value.traits().contains(Traits::MAP) {
        key::check_maps(value)?;
    }
    Ok(value.together_with(key))
}

/// What became of a write.
pub(super) enum Written {
    /// It is done, with this number, or failed.
    Now(Result<u64, StoreError>),
    Later,
}

/// Whom to notify when a deferred write completes.
pub(super) enum Completion<S> {
    Nobody,
    /// The slave's side, of a write of the primary: the primary asks for it.
    FromPrimary(Arc<UpstreamEntry<S>>, Ticket),
    Caller(OwnedCaller),
    /// Once so many slaves have it.
    Confirmed(OwnedCaller, usize, Era),
}

/// A write is done: each slave gets it, and `ready` is told of those that are to take what they have now. Under the order of
/// writes.
pub(super) fn committed(
    committed: &Committed<'_>,
    slaves: &[Arc<SlaveEntry>],
    mut ready: impl FnMut(&Arc<SlaveEntry>),
) {
    let seq = committed.written.seq;
    if committed.is_clear() {
        for slave in slaves {
            let pushed = {
                let mut machine = slave.machine();
                if committed.confirmed {
                    machine.want(seq);
                }
                machine.push_clear(seq)
            };
            match pushed {
                Some(Pushed::Ready) => ready(slave),
                Some(Pushed::Behind) => slave.wake(),
                Some(Pushed::Kept) => {}
                None => slave.tell(Input::CopyAll),
            }
        }
        return;
    }
    committed.with_writes(|writes| {
        for slave in slaves {
            let (mut is_ready, mut is_behind) = (false, false);
            {
                let mut machine = slave.machine();
                if committed.confirmed {
                    machine.want(seq);
                }
                machine.push_many(seq, writes, |pushed| match pushed {
                    Pushed::Kept => {}
                    Pushed::Ready => is_ready = true,
                    Pushed::Behind => is_behind = true,
                });
            }
            if is_behind {
                slave.wake();
            }
            if is_ready {
                ready(slave);
            }
        }
    });
}

/// The same of a store that answers later, in the order of numbers.
pub(super) fn committed_later(
    confirmations: &Confirmations,
    write: &Committed<'_>,
    store: ProcessId,
    dispatch: &dyn Dispatch,
) {
    in_order(confirmations, Some(store), dispatch, |order, show| order.committed(write, show));
}

/// A write that was handed in is answered.
pub(super) fn ended(confirmations: &Confirmations, store: ProcessId, dispatch: &dyn Dispatch) {
    in_order(confirmations, Some(store), dispatch, Order::ended);
}

/// The same of a write of another process.
pub(super) fn committed_elsewhere(
    confirmations: &Confirmations,
    write: &Committed<'_>,
    dispatch: &dyn Dispatch,
) {
    in_order(confirmations, None, dispatch, |order, show| order.committed(write, show));
}

/// Hands on to the slaves what comes next in the order.
fn in_order(
    confirmations: &Confirmations,
    store: Option<ProcessId>,
    dispatch: &dyn Dispatch,
    advance: impl FnOnce(&Order, &mut dyn FnMut(Next<'_>)),
) {
    // Adding a slave waits for this lock, and no holder of it waits for the store.
    let slaves = confirmations.slaves.read_recursive();
    let mut all_ready: Vec<Arc<SlaveEntry>> = Vec::new();
    let mut watched: Vec<Arc<str>> = Vec::new();
    advance(&confirmations.order, &mut |next| {
        let write = match next {
            Next::Write(write) => write,
            Next::Gap(seq) => {
                confirmations.reads.clear();
                watched.extend(confirmations.watches.cut());
                for slave in slaves.iter() {
                    tracing::warn!(?store, slave = %slave.name(), "copied to again: writes of the server's former life ended late");
                    slave.machine().want(seq);
                    slave.tell(Input::CopyAll);
                }
                return;
            }
        };
        if write.is_clear() {
            confirmations.reads.clear();
        }
        for (key, _) in write.written.changes {
            confirmations.reads.forget(key);
        }
        committed(write, &slaves, |slave| {
            if !all_ready.iter().any(|known| Arc::ptr_eq(known, slave)) {
                all_ready.push(Arc::clone(slave));
            }
        });
        watched.extend(confirmations.watches.commit(write).1);
    });
    for slave in all_ready {
        if let Some(node) = slave.node() {
            dispatch.feed(&node, &(slave as Arc<dyn Feed>));
        }
    }
    announce(&confirmations.watches, watched, dispatch);
}

/// Has a slave take what it has once this batch is handled.
pub(super) fn replicate(slave: &Arc<SlaveEntry>, turn: &mut Turn<'_>) {
    // Once per batch is enough: the slave's queue keeps the order.
    let asked = |effect: &Effect| matches!(effect, Effect::Feed(_, asked) if std::ptr::addr_eq(Arc::as_ptr(asked), Arc::as_ptr(slave)));
    if !turn.effects.iter().rev().take(8).any(asked)
        && let Some(node) = slave.node()
    {
        turn.effects.push(Effect::Feed(node, Arc::clone(slave) as Arc<dyn Feed>));
    }
}

pub(super) const fn change_of(value: Option<TermView<'_>>, stamp: Stamp) -> Change<'_> {
    match value {
        Some(value) => Change::Put(stamp.of(value)),
        None => Change::Delete,
    }
}

/// The completion that a store makes which answers at once: none.
pub(super) fn at_once() -> WriteDone {
    Box::new(|_| {})
}

/// The part of the received memory that a large value is.
pub(super) fn shared_value(value: TermView<'_>, turn: &Turn<'_>) -> Option<SharedBytes> {
    turn.frame_owner.and_then(|owner| SharedBytes::part_of(owner, value.bytes()))
}
