//! `global_name_server`: the locks of `:global.set_lock` and `:global.trans` that name this node.
//!
//! On a BEAM this server keeps `global`'s names and its locks. A hidden node takes no part in the protocol of the names,
//! and no BEAM sends any of it here. A lock, however, is set at the nodes that its caller lists, `[node(), :kv@host]` say,
//! by a call of the `global_name_server` of each (kernel, `global.erl`, set_lock_on_nodes/2), and a node that has none
//! counts as one that agrees: two callers that have only this node in common would both get the lock.
//!
//! | request | answer |
//! | --- | --- |
//! | `{:set_lock, {resource, requester}}` | `true`, or `false` while another requester has the resource |
//! | `{:del_lock, {resource, requester}}` | `true` |
//!
//! As on a BEAM a lock is held by the calling processes: several may hold it for one requester, each counts once however
//! often it sets it, and the lock is free when the last has deleted it or ended, or its node is gone. Each holder is
//! monitored.
//!
//! Bounds: [`LOCKS_MAX`] and [`BYTES_MAX`] for each node; what does not fit is `false`, as if another had the lock.

use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;

use ahash::AHashMap;
use parking_lot::Mutex;

use super::{Caller, ExitSignals, GenServer, Turn};
use crate::distribution::RemoteProcess;
use crate::etf::key::canonical;
use crate::etf::{Pid, Reference, TermView};

/// Locks that processes of one node may hold together; one more is not taken. `global` holds a few while nodes connect.
pub const LOCKS_MAX: usize = 1024;
/// Bytes of the terms that name these locks: 1 KiB for each.
pub const BYTES_MAX: usize = 1 << 20;

/// The server registered as `global_name_server` on every node.
#[derive(Default)]
pub struct GlobalNameServer {
    locks: Arc<Mutex<Locks>>,
}

/// A resource and its requester, each in canonical bytes: two terms are the same where `=:=` says so.
#[derive(Clone, PartialEq, Eq, Debug)]
struct LockId {
    resource: Arc<[u8]>,
    requester: Arc<[u8]>,
}

impl LockId {
    /// Of `{Resource, Requester}`. `None`: it is none, or a term that cannot be compared.
    fn of(term: TermView<'_>) -> Option<Self> {
        let mut scratch = Vec::new();
        let mut bytes = |term| canonical(term, &mut scratch).ok().map(Arc::from);
        let [resource, requester] = term.as_tuple::<2>()?;
        Some(Self { resource: bytes(resource)?, requester: bytes(requester)? })
    }

    fn len(&self) -> usize {
        self.resource.len() + self.requester.len()
    }
}

/// A resource that is locked.
struct Lock {
    requester: Arc<[u8]>,
    /// Never empty; each with its monitor.
    holders: AHashMap<Pid, Reference>,
}

/// What the processes of one node hold.
#[derive(Default)]
struct Share {
    locks: usize,
    bytes: usize,
}

#[derive(Default)]
struct Locks {
    by_resource: AHashMap<Arc<[u8]>, Lock>,
    /// Nodes without locks are not in it.
    by_node: AHashMap<Arc<str>, Share>,
}

/// What becomes of a request for a lock.
#[derive(PartialEq, Eq, Debug)]
enum Wanted {
    /// The process holds it, and is to be monitored.
    Set,
    /// The process has held it before.
    Held,
    /// Another requester has it, or there is no room.
    Refused,
}

impl Locks {
    /// `monitor`: what the process is monitored by where it becomes a holder.
    fn set(&mut self, id: &LockId, holder: &Pid, monitor: &Reference) -> Wanted {
        let lock = self.by_resource.get(&id.resource);
        if lock.is_some_and(|lock| lock.requester != id.requester) {
            return Wanted::Refused;
        }
        if lock.is_some_and(|lock| lock.holders.contains_key(holder)) {
            return Wanted::Held;
        }
        let (held, bytes) = self.by_node.get(&holder.node).map_or((0, 0), |share| (share.locks, share.bytes));
        if held >= LOCKS_MAX || bytes + id.len() > BYTES_MAX {
            return Wanted::Refused;
        }
        let share = self.by_node.entry(Arc::clone(&holder.node)).or_default();
        share.locks += 1;
        share.bytes += id.len();
        let new = || Lock { requester: Arc::clone(&id.requester), holders: AHashMap::default() };
        let lock = self.by_resource.entry(Arc::clone(&id.resource)).or_insert_with(new);
        lock.holders.insert(holder.clone(), monitor.clone());
        Wanted::Set
    }

    /// Gives the monitor of the process, if it held the lock.
    fn delete(&mut self, id: &LockId, holder: &Pid) -> Option<Reference> {
        let Entry::Occupied(mut lock) = self.by_resource.entry(Arc::clone(&id.resource)) else { return None };
        if lock.get().requester != id.requester {
            return None;
        }
        let monitor = lock.get_mut().holders.remove(holder)?;
        if lock.get().holders.is_empty() {
            lock.remove();
        }
        if let Entry::Occupied(mut share) = self.by_node.entry(Arc::clone(&holder.node)) {
            share.get_mut().locks -= 1;
            share.get_mut().bytes -= id.len();
            if share.get().locks == 0 {
                share.remove();
            }
        }
        Some(monitor)
    }

    /// The process has ended, as this monitor says.
    fn ended(&mut self, id: &LockId, holder: &Pid, monitor: &Reference) {
        let lock = self.by_resource.get(&id.resource);
        if lock.is_some_and(|lock| lock.holders.get(holder) == Some(monitor)) {
            self.delete(id, holder);
        }
    }
}

impl GlobalNameServer {
    fn set(&self, id: LockId, caller: &Caller<'_>, turn: &mut Turn<'_>) -> bool {
        let holder = Pid::from(caller.pid());
        if *holder.node != *turn.peer {
            // `global` calls by the holder's own connection. The end of another node's process might never be told.
            return false;
        }
        let monitor = turn.registry.new_reference();
        match self.locks.lock().set(&id, &holder, &monitor) {
            Wanted::Set => {}
            Wanted::Held => return true,
            Wanted::Refused => return false,
        }
        let (locks, node) = (Arc::clone(&self.locks), Arc::clone(&holder.node));
        turn.out.monitor(&turn.me.pid, &RemoteProcess::Pid(holder.clone()), &monitor);
        let expected = monitor.clone();
        turn.waiters.expect(&monitor, &node, move |_ended| locks.lock().ended(&id, &holder, &expected));
        true
    }

    fn delete(&self, id: &LockId, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let holder = Pid::from(caller.pid());
        if *holder.node != *turn.peer {
            return;
        }
        let deleted = self.locks.lock().delete(id, &holder);
        if let Some(monitor) = deleted {
            turn.waiters.cancel(&monitor);
            turn.out.demonitor(&turn.me.pid, &RemoteProcess::Pid(holder), &monitor);
        }
    }
}

impl GenServer for GlobalNameServer {
    fn waits_for_room(&self) -> bool {
        true
    }

    fn handle_call(&self, request: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let parts = request.as_tuple::<2>();
        let id = parts.and_then(|[_, id]| LockId::of(id));
        let answer = match (parts, id) {
            (Some([op, _]), Some(id)) if op.is_atom("set_lock") => self.set(id, caller, turn),
            (Some([op, _]), Some(id)) if op.is_atom("del_lock") => {
                self.delete(&id, caller, turn);
                true
            }
            _ => {
                turn.end_call(caller, |w| {
                    w.tuple(2).atom("bad_call").term(request);
                });
                return;
            }
        };
        turn.reply(caller, |w| {
            w.atom(if answer { "true" } else { "false" });
        });
    }

    fn handle_cast(&self, _request: TermView<'_>, turn: &mut Turn<'_>) {
        tracing::debug!(peer = turn.peer, "global_name_server: a cast that no hidden node is sent");
    }

    fn handle_info(&self, _message: TermView<'_>, turn: &mut Turn<'_>) {
        tracing::debug!(peer = turn.peer, "global_name_server: a message that no hidden node is sent");
    }

    fn exit_signals(&self) -> ExitSignals {
        ExitSignals::Ignore
    }
}

impl fmt::Debug for GlobalNameServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let locks = self.locks.lock().by_resource.len();
        f.debug_struct("GlobalNameServer").field("locks", &locks).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etf::{TermWriter, encode};
    use crate::process::Registry;

    fn id(resource: impl Fn(&mut TermWriter<'_>), requester: u64) -> LockId {
        let term = encode(|w| {
            w.tuple(2);
            resource(w);
            w.unsigned(requester);
        });
        LockId::of(TermView::parse(&term).expect("a term")).expect("a lock's id")
    }

    fn res(w: &mut TermWriter<'_>) {
        w.atom("res");
    }

    fn pid(node: &str, id: u32) -> Pid {
        Pid { node: node.into(), id, serial: 0, creation: 7 }
    }

    fn reference() -> Reference {
        Registry::new("k@h".into(), 1).new_reference()
    }

    #[test]
    fn a_lock_is_its_requesters_until_its_last_holder_has_deleted_it() {
        let (mut locks, monitor) = (Locks::default(), reference());
        let (one, other) = (id(res, 1), id(res, 2));
        let (p, q) = (pid("a@h", 1), pid("b@h", 1));
        assert_eq!(locks.set(&one, &p, &monitor), Wanted::Set);
        assert_eq!(locks.set(&one, &p, &monitor), Wanted::Held);
        assert_eq!(locks.set(&other, &q, &monitor), Wanted::Refused);
        // Another process for the same requester.
        assert_eq!(locks.set(&one, &q, &monitor), Wanted::Set);
        assert_eq!(locks.delete(&other, &p), None);
        assert_eq!(locks.delete(&one, &p), Some(monitor.clone()));
        assert_eq!(locks.delete(&one, &p), None);
        assert_eq!(locks.set(&other, &p, &monitor), Wanted::Refused);
        assert_eq!(locks.delete(&one, &q), Some(monitor.clone()));
        assert_eq!(locks.set(&other, &p, &monitor), Wanted::Set);
        assert_eq!(locks.by_node.len(), 1);
    }

    #[test]
    fn a_lock_ends_with_its_holder_and_not_by_a_monitor_that_was_taken_back() {
        let (mut locks, registry) = (Locks::default(), Registry::new("k@h".into(), 1));
        let (former, monitor) = (registry.new_reference(), registry.new_reference());
        let (id, p) = (id(res, 1), pid("a@h", 1));
        assert_eq!(locks.set(&id, &p, &former), Wanted::Set);
        assert_eq!(locks.delete(&id, &p), Some(former.clone()));
        assert_eq!(locks.set(&id, &p, &monitor), Wanted::Set);
        locks.ended(&id, &p, &former);
        assert_eq!(locks.set(&id, &p, &monitor), Wanted::Held);
        locks.ended(&id, &p, &monitor);
        assert!(locks.by_resource.is_empty() && locks.by_node.is_empty());
    }

    #[test]
    fn resources_are_the_same_where_they_are_exactly_equal() {
        let number = |w: &mut TermWriter<'_>| _ = w.unsigned(1);
        let wide = |w: &mut TermWriter<'_>| _ = w.raw(&[98, 0, 0, 0, 1]);
        let float = |w: &mut TermWriter<'_>| _ = w.float(1.0);
        assert_eq!(id(number, 1), id(wide, 1));
        assert_ne!(id(number, 1), id(float, 1));
    }

    #[test]
    fn one_node_has_room_for_so_many_locks_and_the_others_have_theirs() {
        let (mut locks, monitor) = (Locks::default(), reference());
        let numbered = |n: usize| id(move |w| _ = w.unsigned(n as u64), 1);
        let p = pid("a@h", 1);
        for n in 0..LOCKS_MAX {
            assert_eq!(locks.set(&numbered(n), &p, &monitor), Wanted::Set);
        }
        assert_eq!(locks.set(&numbered(LOCKS_MAX), &p, &monitor), Wanted::Refused);
        assert_eq!(locks.set(&numbered(LOCKS_MAX), &pid("b@h", 1), &monitor), Wanted::Set);
        assert!(locks.delete(&numbered(3), &p).is_some());
        let large = id(|w| _ = w.binary(&vec![0; BYTES_MAX]), 1);
        assert_eq!(locks.set(&large, &p, &monitor), Wanted::Refused);
        assert_eq!(locks.set(&numbered(3), &p, &monitor), Wanted::Set);
    }
}
