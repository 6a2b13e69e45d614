//! Two names, one process: a store's slaves that turn out to be the same one.
//!
//! It is followed once, by the name that outlives a process. What the dropped one has greeted it with is in force there
//! until the kept one greets it anew, so that one takes the sessions over.

use std::sync::Arc;

use super::{Event, SlaveName};
use crate::distribution::RemoteProcess;
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};
use crate::replica::{Slave, Source};

/// The other slave that is followed at a process, or as the kvnode's store with this incarnation.
pub(super) fn other_at(
    source: &dyn Source,
    slave: &Arc<Slave>,
    at: &Pid,
    incarnation: Option<u64>,
) -> Option<Arc<Slave>> {
    let at = RemoteProcess::Pid(at.clone());
    source.slaves().into_iter().find(|other| !Arc::ptr_eq(other, slave) && other.is_at(&at, incarnation))
}

/// Whether a slave is named by a name, and another by its pid.
pub(super) fn outlives(slave: &Slave, other: &Slave) -> bool {
    matches!(other.name(), SlaveName::Pid(_)) && !matches!(slave.name(), SlaveName::Pid(_))
}

/// What has come of a slave whose process may be followed under another name.
pub(super) enum Merged {
    /// There is no such other.
    No,
    /// There was, and it was dropped.
    Kept(Event),
    /// This one was dropped.
    Dropped(Event),
}

/// Where the process is followed under another name, one of the two is dropped.
pub(super) fn merge(source: &dyn Source, slave: &Arc<Slave>, at: &Pid, incarnation: Option<u64>) -> Merged {
    let Some(other) = other_at(source, slave, at, incarnation).filter(|_| !planted(Rule::OneProcessOneSlave))
    else {
        return Merged::No;
    };
    let keep_this = outlives(slave, &other);
    let (kept, dropped) = if keep_this { (slave, &other) } else { (&other, slave) };
    let event = Event::Merged { dropped: dropped.name().clone(), kept: kept.name().clone() };
    dropped.drop_out();
    if keep_this {
        return Merged::Kept(event);
    }
    if incarnation.is_some() && !planted(Rule::TakeOver) {
        // It has taken the greeting of the one that is dropped.
        kept.take_over(dropped);
    }
    Merged::Dropped(event)
}

/// A slave that was this process before, under another name, is it no more.
pub(super) fn forget_previous_names(
    source: &dyn Source,
    slave: &Arc<Slave>,
    at: &Pid,
    incarnation: Option<u64>,
) {
    let at = RemoteProcess::Pid(at.clone());
    if planted(Rule::PreviousName) {
        return;
    }
    for other in source.slaves().iter().filter(|other| !Arc::ptr_eq(other, slave)) {
        other.forget(&at, incarnation);
    }
}
