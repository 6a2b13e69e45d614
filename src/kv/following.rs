//! What a store does with the messages of a primary that is a kvnode ([`crate::replica::dialect`]).

use std::fmt;
use std::sync::Arc;

use super::follower::{Copied, Follower, Greeting, Handled, Own, Place, Primary};
use super::kept::Kept;
use super::position;
use super::request::{FromPrimary, Hello, SkippedWrite};
use super::server::{KeyValueServer, refuse, with_canonical};
use super::write::{Completion, Write, Written};
use crate::distribution::{Outbound, RemoteProcess, ServerRef};
use crate::etf::{Cursor, Pid, SharedBytes, TermError, TermView, TermWriter};
use crate::kv::figures::PrimaryFigures;
use crate::process::{Caller, Effect, MonitorRequest, SkippedMessage, Turn};
use crate::replica::planted::{Rule, planted};
use crate::replica::{CopyMark, Dialect, KnownSlave, PrimaryStanding, Refusal, Slave, SlaveState};
use crate::store::{Done, Owed, ReadDone, Shows, Store, StoreError, Value, scan};

/// Names that a primary may send of itself, and of its slaves.
const NAMES_MAX: usize = 256;

impl<S: Store> KeyValueServer<S> {
    /// `{:replica_hello, …}`: a primary wants this store as its slave.
    pub(super) fn call_hello(&self, hello: TermView<'_>, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let Some(greeting) = read_greeting(hello, caller) else {
            return refuse(&"no greeting of a primary", caller, turn);
        };
        let (pid, slaves) = (greeting.pid.clone(), greeting.slaves.clone());
        let (session, names) = (greeting.session, greeting.names.clone());
        let incarnation = greeting.lineage.incarnation();
        let at = RemoteProcess::Pid(pid.clone());
        let own_slaves = self.slaves();
        let own = Own {
            has_slaves: !own_slaves.is_empty(),
            is_greeted_by_slave: own_slaves.iter().any(|slave| slave.is_at(&at, Some(incarnation))),
            is_empty: self.store().is_empty(),
        };
        let lineage = greeting.lineage.clone();
        let greeted = {
            let mut follower = self.follower.lock();
            let greeted = follower.greet(greeting, own);
            // Before anything is dropped.
            self.note_rank(&mut follower);
            greeted
        };
        let greeted = match greeted {
            Ok(greeted) => greeted,
            Err(Refusal::Crossing) => {
                tracing::debug!(store = ?turn.me, primary = ?pid, "primary put off: {}", Refusal::Crossing);
                return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom(Refusal::Crossing.code()));
            }
            Err(refusal) => {
                if self.follower.lock().refuses(incarnation, refusal) {
                    tracing::warn!(store = ?turn.me, primary = ?pid, "primary refused: {refusal}");
                }
                if refusal == Refusal::Superseded {
                    self.take_superseded(&lineage, &names, &pid, turn);
                }
                return turn.reply(caller, |w| _ = w.tuple(2).atom("error").atom(refusal.code()));
            }
        };
        tracing::info!(store = ?turn.me, primary = ?pid, session, "following a primary");
        self.confirmations.give_up();
        if greeted.had.0.is_some_and(|had| had != incarnation) {
            self.forget_position();
        }
        if greeted.watch {
            let (follower, gone) = (Arc::clone(&self.follower), pid.clone());
            turn.effects.push(Effect::Monitor(Box::new(MonitorRequest {
                from: turn.me.pid.clone(),
                process: RemoteProcess::Pid(pid.clone()),
                done: Box::new(move |reason| {
                    follower.lock().gone(&gone);
                    tracing::warn!(primary = ?gone, ?reason, "primary lost");
                }),
            })));
        }
        if let Some((left, session)) = greeted.left
            && !planted(Rule::Leave)
        {
            self.leave(&left, session);
        }
        if greeted.demoted && (own.has_slaves || !own.is_empty) {
            tracing::error!(
                store = ?turn.me, primary = ?pid,
                "another store was promoted to be the primary: this one is its slave from here on, and drops what it has \
                 written and the new primary has not"
            );
        }
        if (greeted.demoted || greeted.was_orphan) && !planted(Rule::SlavesLeft) {
            self.leave_slaves(&slaves, &names, &RemoteProcess::Pid(pid), turn);
        }
        self.give_up_names(&names, turn);
        if greeted.path_changed && !planted(Rule::ChainTold) {
            for slave in self.slaves() {
                slave.renew();
            }
        }
        let stepped_down = greeted.stepped_down;
        turn.reply(caller, |w| {
            w.tuple(if stepped_down { 5 } else { 4 }).atom("ok").unsigned(greeted.incarnation);
            match greeted.had.0 {
                Some(incarnation) => w.unsigned(incarnation),
                None => w.atom("none"),
            };
            w.unsigned(greeted.had.1);
            if stepped_down {
                w.atom("stepped_down");
            }
        });
    }

    /// Tells a primary that is there that this store follows it no more.
    pub(super) fn leave(&self, primary: &Pid, session: u64) {
        let mut frames = Outbound::default();
        frames.send(primary, |w| {
            w.tuple(2).atom("$gen_cast").tuple(2).atom("replica_left").unsigned(session);
        });
        if self.dispatch.send(&primary.node, &mut frames).is_err() {
            // It notices by the next answer that this store refuses.
            tracing::warn!(primary = ?primary, "not told that this store follows it no more: too much waits for its node");
        }
    }

    /// `{:replica_left, session}`: a slave follows another primary now, or is one. It is greeted anew, and says why it refuses.
    pub(super) fn slave_left(&self, session: u64) {
        let is_it = |slave: &&Arc<Slave>| slave.dialect() == Dialect::Kvnode { session };
        if let Some(slave) = self.slaves().iter().find(is_it) {
            tracing::warn!(slave = %slave.name(), "the slave follows another primary now, or is one");
            slave.renew();
        }
    }

    /// `{:replica_ask, …}`
    pub(super) fn call_ask(&self, session: u64, seq: u64, caller: &Caller<'_>, turn: &mut Turn<'_>) {
        let (answer, primary, kept) = {
            let mut follower = self.follower.lock();
            let primary = follower.primary().map(Primary::incarnation);
            let answer = follower.asked(session, seq);
            self.note_rank(&mut follower);
            (answer, primary, Arc::clone(follower.kept()))
        };
        let Ok(Handled { applied, caught_up }) = answer else {
            return turn.reply(caller, |w| write_asked(w, answer, &kept));
        };
        // What came before may be under way: it is kept when what comes behind it is.
        let (waiting, dispatch, store) = (caller, Arc::clone(&self.dispatch), turn.me.id);
        let (sure, asked_in) = (kept.sure(), kept.session());
        let done = || -> Done {
            let (caller, kept) = (waiting.to_owned(&turn.me.pid), Arc::clone(&kept));
            Box::new(move |result| {
                // The primary holds back what takes room from here on: so this store lacks something from here on.
                if let Err(error) = &result {
                    not_kept(&kept, error, &store);
                }
                // The store has said by now what it did not keep.
                let answer = kept.take_to_tell_in(asked_in).map_or(answer, Err);
                caller.reply(&*dispatch, |w| write_asked(w, answer, &kept));
            })
        };
        if planted(Rule::AnswerBehindWrites) {
            return turn.reply(caller, |w| write_asked(w, answer, &kept));
        }
        match (primary, self.store().notes()) {
            (Some(incarnation), Some(notes)) => {
                let here = if caught_up { applied } else { sure.min(applied) };
                position::keep(notes, (incarnation, here), done());
            }
            _ => {
                if let Some(result) = self.store().barrier(done) {
                    if let Err(error) = &result {
                        not_kept(&kept, error, &store);
                    }
                    let answer = kept.take_to_tell().map_or(answer, Err);
                    turn.reply(caller, |w| write_asked(w, answer, &kept));
                }
            }
        }
    }

    /// A cast of a primary.
    ///
    /// # Errors
    /// The primary's fault: a write cannot be kept.
    pub(super) fn cast_from_primary(
        &self,
        message: FromPrimary<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        match message {
            FromPrimary::Put { session, seq, key, value } => {
                self.take_in(session, seq, Write::Put { key, value }, turn)
            }
            FromPrimary::Delete { session, seq, key } => {
                self.take_in(session, seq, Write::Delete { key }, turn)
            }
            FromPrimary::Copy { session, seq, mark } => {
                self.copy_mark(session, seq, mark, turn);
                Ok(())
            }
            FromPrimary::Slaves { session, slaves } => {
                if let (Some(primary), Some(slaves)) =
                    (self.follower.lock().session(session), read_slaves(slaves))
                {
                    primary.greeting.slaves = slaves;
                }
                Ok(())
            }
            FromPrimary::Bye { session } => {
                let (is_it, replaced) = {
                    let mut follower = self.follower.lock();
                    let replaced = follower.replaced();
                    let is_it = follower.bye(session);
                    self.note_rank(&mut follower);
                    (is_it, replaced)
                };
                if is_it {
                    if let Some((primary, session)) = replaced {
                        self.leave(&primary, session);
                    }
                    self.forget_position();
                    tracing::info!(store = ?turn.me, "no longer a slave: its primary has removed it");
                    self.note_is_slave(false);
                    for slave in self.slaves() {
                        slave.renew();
                    }
                }
                Ok(())
            }
        }
    }

    fn take_in(
        &self,
        session: u64,
        seq: u64,
        write: Write<'_>,
        turn: &mut Turn<'_>,
    ) -> Result<(), TermError> {
        // Held to the end: another primary's greeting waits until this write is done.
        let mut follower = self.follower.lock();
        let Some(primary) = follower.session(session) else { return Ok(()) };
        primary.heard(seq);
        if follower.is_copying() {
            let (key, value) = write.check()?;
            let shared = value.and_then(|value| {
                turn.frame_owner.and_then(|owner| SharedBytes::part_of(owner, value.bytes()))
            });
            let value = value.map(|value| Value {
                bytes: value.bytes(),
                shared: shared.as_ref(),
                traits: value.traits(),
            });
            let place = with_canonical(key, |key| {
                let place = follower.place(key, value);
                if let Place::Overwrite = place {
                    self.keep_dropped(key, value.map(|value| value.bytes));
                }
                place
            })?;
            if let Place::Done = place {
                return Ok(());
            }
        }
        let later = |_: &Turn<'_>| Completion::FromPrimary(Arc::clone(follower.kept()));
        match self.write(write, turn, 0, later)? {
            Written::Now(Err(error)) => not_kept(follower.kept(), &error, &turn.me),
            Written::Now(Ok(_)) | Written::Later => {
                if let Some(primary) = follower.session(session) {
                    primary.take_in(seq);
                }
            }
        }
        Ok(())
    }

    /// A write was too large to be received. A primary that numbers its writes is told so when it asks, as of a write that
    /// a full store did not keep. A primary that does not number them cannot be told.
    pub(super) fn write_skipped(&self, message: SkippedMessage<'_>, turn: &mut Turn<'_>) {
        let size = message.size;
        match SkippedWrite::read(message.beginning) {
            None => {}
            Some(SkippedWrite::Plain) => {
                tracing::error!(store = ?turn.me, peer = turn.peer, "replicated write lost, and its sender is not told: {size}");
            }
            Some(SkippedWrite::Numbered { session, seq, rest }) => {
                let mut follower = self.follower.lock();
                let key = Cursor::new(rest).term();
                let with_key = key.ok().and_then(|key| {
                    with_canonical(key, |key| follower.skipped(session, seq, Some(key))).ok()
                });
                if with_key.unwrap_or_else(|| follower.skipped(session, seq, None)) {
                    tracing::error!(
                        store = ?turn.me,
                        "what the primary sends is not kept: it is told, and sends it again after a while: {size}"
                    );
                }
                self.note_rank(&mut follower);
            }
        }
    }

    fn copy_mark(&self, session: u64, seq: u64, mark: CopyMark, turn: &mut Turn<'_>) {
        let mut follower = self.follower.lock();
        if follower.session(session).is_none() {
            return;
        }
        if matches!(mark, CopyMark::Begin | CopyMark::End) {
            self.confirmations.give_up();
        }
        let copied = follower.mark(mark, self.store());
        self.note_rank(&mut follower);
        match copied {
            Copied::Nothing => {}
            Copied::Replace(with) => {
                let slaves = self.slaves();
                // Readers see all of it at once, and its own slaves get it whole too.
                let before = self.in_order_of_writes(|| {
                    let before = self.store().replace(with);
                    for slave in &slaves {
                        slave.copy_all();
                    }
                    before
                });
                if let Some(before) = before {
                    self.report_dropped(&before, follower.must_export_dropped(), turn);
                }
                follower.dropped_exported();
            }
            Copied::Keep(seen) => {
                self.delete_all_but(&seen, follower.must_export_dropped(), follower.kept(), turn);
                if follower.must_export_dropped() {
                    self.dropped.lock().end();
                }
                follower.dropped_exported();
            }
        }
        // A copy that did not fit is none.
        let mark = if follower.is_copying() { CopyMark::Begin } else { mark };
        follower.marked(session, mark, seq);
        // What it drops after this is not its own, however often it is started again.
        if matches!(mark, CopyMark::End | CopyMark::Whole) {
            follower.dropped_exported();
            if follower.mark_caught_up() {
                self.note_is_slave(true);
            }
        }
        self.note_rank(&mut follower);
    }

    /// Something comes in the place of what is there under a key, which the new primary does not have.
    fn keep_dropped(&self, key: &[u8], with: Option<&[u8]>) {
        if planted(Rule::DroppedKept) {
            return;
        }
        let later = || -> ReadDone {
            // Asked before what comes in its place is written, and so answered with what was there.
            let dropped = Arc::clone(&self.dropped);
            dropped.lock().expect();
            let (key, with): (Box<[u8]>, Option<Box<[u8]>>) = (key.into(), with.map(Into::into));
            let came = Owed::new(move |found: Result<Option<Box<[u8]>>, StoreError>| {
                let mut dropped = dropped.lock();
                match found {
                    Ok(Some(present)) if Some(&*present) != with.as_deref() => dropped.keep(&key, &present),
                    Ok(_) => {}
                    Err(error) => {
                        tracing::error!(%error, "an entry that the new primary may not have is dropped, and cannot be read");
                    }
                }
                dropped.came();
            });
            Box::new(move |found| came.tell(found.map(|present| present.map(|present| present.bytes.into()))))
        };
        let keep = |present: Option<Value<'_>>| {
            if let Some(present) = present.filter(|present| Some(present.bytes) != with) {
                self.dropped.lock().keep(key, present.bytes);
            }
        };
        self.store().get(key, keep, later);
    }

    /// Deletes what the copy has not brought. Its batches have to come at once: nothing else may be written meanwhile.
    fn delete_all_but(
        &self,
        seen: &super::follower::Seen,
        export: bool,
        kept: &Arc<Kept>,
        turn: &mut Turn<'_>,
    ) {
        let shows = if export { Shows::Pairs } else { Shows::Keys };
        for part in 0..self.store().parts() {
            let mut scan = self.store().scan(Some(part), shows);
            loop {
                let batch = match scan::at_once(&mut *scan) {
                    Some(Ok(batch)) => batch,
                    failed => {
                        let error = failed.and_then(Result::err);
                        tracing::error!(store = ?turn.me, ?error, "keys that the primary has not may stay: they cannot be read");
                        break;
                    }
                };
                let foreign = batch.iter().filter(|(key, _)| !seen.contains(key));
                let foreign: Vec<_> = foreign.collect();
                if !foreign.is_empty() {
                    tracing::warn!(store = ?turn.me, keys = foreign.len(), "keys that the primary has not are deleted");
                }
                for (key, value) in foreign {
                    if let Some(value) = value.filter(|_| export) {
                        self.dropped.lock().keep(key, value.bytes);
                    }
                    // If a key stays, this store differs from the primary: the primary is told, and copies again.
                    let later = |_: &Turn<'_>| Completion::FromPrimary(Arc::clone(kept));
                    let deleted =
                        TermView::parse(key).map(|key| self.write(Write::Delete { key }, turn, 0, later));
                    match deleted {
                        Ok(Ok(Written::Now(Err(error)))) => not_kept(kept, &error, &turn.me),
                        Ok(Ok(Written::Now(Ok(_)) | Written::Later)) => {}
                        Err(error) | Ok(Err(error)) => {
                            tracing::error!(store = ?turn.me, %error, "a key that the primary has not stays");
                        }
                    }
                }
                if batch.is_last {
                    break;
                }
            }
        }
    }

    /// Says how much of what the store held is not in the copy that has taken its place. `keep`: that is kept elsewhere, with
    /// what is otherwise there.
    fn report_dropped(&self, before: &S, keep: bool, turn: &Turn<'_>) {
        let mut missing = 0_u64;
        let mut scan = before.scan(None, Shows::Pairs);
        // Such a store answers at once.
        while let Some(Ok(batch)) = scan::at_once(&mut *scan) {
            for (key, value) in batch.iter() {
                let Some(value) = value else { continue };
                let now =
                    self.store().get(key, |now| now.map(|now| now.bytes == value.bytes), || Box::new(|_| {}));
                missing += u64::from(now == Some(None));
                if keep && now != Some(Some(true)) && !planted(Rule::DroppedKept) {
                    self.dropped.lock().keep(key, value.bytes);
                }
            }
            if batch.is_last {
                break;
            }
        }
        if keep {
            self.dropped.lock().end();
        }
        if missing > 0 {
            tracing::warn!(store = ?turn.me, keys = missing, "what the primary has not is dropped");
        }
    }

    /// Leaves those slaves to the primary that are its own.
    fn leave_slaves(
        &self,
        slaves: &[KnownSlave],
        names: &[ServerRef],
        primary: &RemoteProcess,
        turn: &mut Turn<'_>,
    ) {
        let here = &turn.registry.node;
        let taken = |name: &ServerRef| {
            let name = name.on(here);
            slaves.iter().any(|slave| slave.name == name) || names.contains(&name)
        };
        for slave in self.slaves() {
            let is_primary = matches!(slave.state(), SlaveState::Following(at) if at == *primary);
            if is_primary || taken(slave.name()) {
                self.remove_slave(slave.name());
                tracing::warn!(store = ?turn.me, slave = %slave.name(), "slave left to the new primary");
            }
        }
        self.note_slaves_quietly();
    }

    /// Gives up the global names that the primary says are its own: clients that write to them are to reach the primary.
    fn give_up_names(&self, names: &[ServerRef], turn: &mut Turn<'_>) {
        for (name, holder) in turn.registry.global_names() {
            if holder.is_sibling(turn.me) && names.contains(&ServerRef::global(&name)) {
                self.offered.lock().remove(&name);
                turn.effects.push(Effect::ReleaseGlobal { name });
            }
        }
    }
}

/// A write of the primary was not kept.
pub(super) fn not_kept(kept: &Kept, error: &StoreError, store: &dyn fmt::Debug) {
    if kept.refuse(error) {
        tracing::error!(
            ?store, %error,
            "what the primary sends is not kept: it is told, and sends it again when there is room"
        );
    }
}

fn write_asked(w: &mut TermWriter<'_>, answer: Result<Handled, Refusal>, kept: &Kept) {
    match answer {
        Ok(Handled { applied, caught_up }) => {
            if kept.told(applied, caught_up) {
                tracing::info!("what the primary sends is kept again, and nothing of it is missing");
            }
            w.tuple(2).atom("ok").unsigned(applied)
        }
        Err(refusal) => w.tuple(2).atom("error").atom(refusal.code()),
    };
}

fn read_greeting(hello: TermView<'_>, caller: &Caller<'_>) -> Option<Greeting> {
    let hello = Hello::read(hello)?;
    Some(Greeting {
        session: hello.session,
        lineage: hello.lineage,
        seq: hello.seq,
        started_empty: hello.started_empty,
        names: read_names(hello.names)?,
        slaves: read_slaves(hello.slaves)?,
        pid: caller.pid().into(),
    })
}

fn read_names(names: TermView<'_>) -> Option<Vec<ServerRef>> {
    read_list(names, ServerRef::read)
}

fn read_slaves(slaves: TermView<'_>) -> Option<Vec<KnownSlave>> {
    read_list(slaves, KnownSlave::read)
}

fn read_list<T>(list: TermView<'_>, read: impl Fn(TermView<'_>) -> Option<T>) -> Option<Vec<T>> {
    let mut cursor = list.cursor();
    let len = cursor.list().ok()?;
    if len > NAMES_MAX {
        return None;
    }
    (0..len).map(|_| read(cursor.term().ok()?)).collect()
}

/// The followed primary, in numbers.
pub(super) fn figures<S: Store>(primary: &Primary, follower: &Follower<S>) -> PrimaryFigures {
    PrimaryFigures {
        node: primary.greeting.pid.node.to_string(),
        state: state_of(primary, follower),
        seq: primary.applied,
        lag: primary.lag(),
    }
}

fn state_of<S: Store>(primary: &Primary, follower: &Follower<S>) -> PrimaryStanding {
    match (primary.is_there, follower.write_error(), follower.is_copying(), primary.caught_up) {
        (false, ..) => PrimaryStanding::Gone,
        (true, Some(Refusal::NoSpace), ..) => PrimaryStanding::Full,
        (true, Some(_), ..) => PrimaryStanding::Failing,
        (true, None, true, _) => PrimaryStanding::Copying,
        (true, None, false, false) => PrimaryStanding::Repairing,
        (true, None, false, true) => PrimaryStanding::Following,
    }
}

/// Writes the followed primary, for `:status`.
pub(super) fn write_primary<S: Store>(w: &mut TermWriter<'_>, primary: &Primary, follower: &Follower<S>) {
    w.map(6).atom("pid").pid(&primary.greeting.pid);
    w.atom("node").atom(&primary.greeting.pid.node);
    w.atom("state").atom(state_of(primary, follower).code());
    w.atom("incarnation").unsigned(primary.incarnation());
    w.atom("seq").unsigned(primary.applied);
    w.atom("lag").unsigned(primary.lag());
}
