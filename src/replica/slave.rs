//! One slave of one store: its name, its place, and what it lacks.
//!
//! ```text
//!            found                      gone
//! Seeking ----------> Following ----------------> Seeking
//!                      |     ^
//!       past the bound |     | all that was sent is acknowledged
//!                      v     |
//!                      behind
//!
//! all ----> Dropped: it was removed, is the store itself, or a pid that has ended
//! ```
//!
//! While it is followed and not behind, writes go into its log. Else only their keys are kept, under the same bound;
//! past it, not even these: then a scan of the whole store repairs it.

mod outcome;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::dialect::{CopyMark, Dialect};
use super::lineage::Refusal;
use super::planted::{Rule, planted, window_bytes};
use super::source::{ReplicaWrite, Source, SourceRead};
use super::standing::{SlaveState, Standing};
use super::state::{ACKNOWLEDGE_PAUSE, State};
use crate::distribution::RemoteProcess;
use crate::etf::{TermError, TermView, Traits, key};

pub use outcome::{Acknowledge, Mark, Pushed, Said, Taken};

/// How a slave was named to `add_slave`.
pub use crate::distribution::ServerRef as SlaveName;

/// Bytes that are sent ahead of the slave's acknowledgement (one write may exceed it): enough to keep a connection
/// busy for a few milliseconds, little for the slave's mailbox.
pub(super) const WINDOW_BYTES: usize = 4 << 20;
/// A repair adds to the log while less than this waits in it.
const REPAIR_BYTES: usize = 1 << 20;
/// Keys that one step of a repair reads, while writers of the store wait for it: some microseconds.
const REPAIR_KEYS: usize = 32;

/// Makes session numbers unique per slave entry, so that two names of one process cannot be confused.
static SLAVES: AtomicU64 = AtomicU64::new(0);
/// Times that one slave is found, before its sessions are another's.
const SESSIONS_BITS: u32 = 40;

/// One slave of one store.
pub struct Slave {
    name: SlaveName,
    number: u64,
    buffer_bytes_max: usize,
    state: Mutex<State>,
    change: Mutex<Option<OnChange>>,
}

/// Told that there is something to do for a slave. From any thread; must not block.
pub type OnChange = Box<dyn Fn() + Send>;

impl Slave {
    /// A slave that has just been added. `buffer_bytes_max`: see
    /// [`slave_buffer_bytes_max`](crate::program::Config::slave_buffer_bytes_max).
    pub fn new(name: SlaveName, buffer_bytes_max: usize) -> Self {
        Self {
            name,
            number: SLAVES.fetch_add(1, Ordering::Relaxed),
            buffer_bytes_max,
            state: Mutex::new(State::new(SlaveState::Seeking)),
            change: Mutex::default(),
        }
    }

    /// How it was named.
    pub const fn name(&self) -> &SlaveName {
        &self.name
    }

    /// Says on which node it was last, of a slave that is not found yet: a name in `global` is asked for there too.
    pub fn expect_at(&self, node: Arc<str>) {
        self.state.lock().node.get_or_insert(node);
    }

    /// The node where it was last, as far as is known.
    pub fn node(&self) -> Option<Arc<str>> {
        self.state.lock().node.clone()
    }

    /// Whether it was found on another node than before, and others are to be told. Told once.
    pub fn take_moved(&self) -> bool {
        std::mem::take(&mut self.state.lock().moved)
    }

    /// Where it is.
    pub fn state(&self) -> SlaveState {
        self.state.lock().at.clone()
    }

    /// How it stands.
    pub fn standing(&self) -> Standing {
        self.state.lock().standing()
    }

    /// Tells the time, in milliseconds since 1970, so that it is known since when the slave stands as it does.
    pub fn note_time(&self, unix_ms: u64) {
        let mut state = self.state.lock();
        let kind = std::mem::discriminant(&state.standing());
        if state.since.is_none_or(|(known, _)| known != kind) {
            state.since = Some((kind, unix_ms));
        }
    }

    /// Since when it stands as it does, in milliseconds since 1970: as far as [`note_time`](Self::note_time) has told.
    pub fn since(&self) -> Option<u64> {
        self.state.lock().since.map(|(_, since)| since)
    }

    /// Notes why it is not followed.
    pub fn failed(&self, error: &str) {
        self.state.lock().last_error = Some(error.into());
    }

    /// Why it was last not found, or not followed.
    pub fn last_error(&self) -> Option<Arc<str>> {
        self.state.lock().last_error.clone()
    }

    /// Whether it may hold keys that the primary does not have, or old values, for good: its keys could not be read, or
    /// values could not be sent to it.
    pub fn may_be_stale(&self) -> bool {
        let state = self.state.lock();
        state.unswept || state.unsent
    }

    /// If the primary's store was started without data ([`Source::started_empty`]), the slave keeps what it holds: it was not
    /// added by a person, but is always started with the store.
    pub fn protect_data(&self) {
        self.state.lock().protect_data = true;
    }

    /// Whether the slave was never followed and is to keep what it holds: see [`protect_data`](Self::protect_data).
    pub fn protects_data(&self) -> bool {
        self.state.lock().protect_data
    }

    /// Queues a write, with its number: one more than the last. The caller holds the store's order of writes, and has
    /// applied it.
    pub fn push(&self, seq: u64, write: ReplicaWrite<'_>) -> Pushed {
        let dropped = {
            let mut state = self.state.lock();
            let dialect = state.dialect;
            if !state.streaming {
                let is_delete = matches!(write, ReplicaWrite::Delete { .. });
                if is_delete && state.sends_deletions(self.buffer_bytes_max) {
                    state.log.push(dialect, seq, write);
                    return Pushed::Ready;
                }
                state.miss(write.key(), self.buffer_bytes_max);
                return Pushed::Kept;
            }
            state.log.push(dialect, seq, write);
            // One write always fits, so that a large value is not refused by a small bound.
            if state.log.bytes() <= self.buffer_bytes_max || state.log.len() == 1 {
                return Pushed::Ready;
            }
            state.fall_behind(self.buffer_bytes_max)
        };
        self.changed();
        Pushed::Behind(dropped)
    }

    /// It was found, and takes the messages that every server of the protocol takes. Another process than
    /// before is taken to lack everything, and to hold anything.
    pub fn found(&self, at: RemoteProcess) {
        self.follow(at, Dialect::Elixir, true);
    }

    /// The number of the session that a kvnode is greeted with, by a primary of this incarnation.
    pub fn next_session(&self, incarnation: u64) -> u64 {
        let mut state = self.state.lock();
        // Each greeting has one of its own: a slave that refuses the next may still be in the one before.
        state.session += 1;
        let session = incarnation.wrapping_add(self.number << SESSIONS_BITS).wrapping_add(state.session);
        state.note_greeted(session);
        session
    }

    /// The greeting of this session was refused: it is in none that is new.
    pub fn not_taken(&self, session: u64) {
        self.state.lock().greeted.retain(|greeted| *greeted != session);
    }

    /// The sessions that a kvnode's store may be in: that of the last greeting that it took, and those of greetings whose answer
    /// was lost. When a slave is removed, it is told that each of them is over.
    pub fn sessions(&self) -> Vec<u64> {
        let state = self.state.lock();
        let followed = match state.dialect {
            Dialect::Kvnode { session } => Some(session),
            Dialect::Elixir => None,
        };
        let greeted = state.greeted.iter().copied().filter(|greeted| Some(*greeted) != followed);
        greeted.chain(followed).collect()
    }

    /// It is looked for at another process, which is in none of its sessions.
    pub fn end_sessions(&self) {
        let mut state = self.state.lock();
        state.greeted.clear();
        state.dialect = Dialect::Elixir;
    }

    /// Whether it may have taken a greeting without that being known.
    pub fn may_be_greeted(&self) -> bool {
        !self.state.lock().greeted.is_empty()
    }

    /// Takes the place of another slave, which has turned out to be the same process: what that has greeted it with is in force
    /// there, until it is greeted anew by this one.
    pub fn take_over(&self, other: &Self) {
        let sessions = other.sessions();
        let mut state = self.state.lock();
        sessions.into_iter().for_each(|session| state.note_greeted(session));
        state.renew = true;
        drop(state);
        self.changed();
    }

    /// It was found, is a kvnode's, and has taken the greeting of a session by a primary of this incarnation.
    pub fn found_kvnode(&self, at: RemoteProcess, session: u64, incarnation: u64, said: Said) {
        let knows = said.had == Some(incarnation) && said.applied >= self.state.lock().confirmed;
        self.follow(at, Dialect::Kvnode { session }, knows);
        let mut state = self.state.lock();
        state.incarnation = Some(said.incarnation);
        state.stepped_down |= said.stepped_down;
    }

    /// Whether it is in step, and has said so, for the first time since it was a primary with slaves: what it sent to these is
    /// sent by now. Told once.
    pub fn take_stepped_down(&self) -> bool {
        let mut state = self.state.lock();
        let said = match state.standing() {
            Standing::InStep { lag } => lag == 0 || state.confirmed > 0,
            _ => false,
        };
        said && std::mem::take(&mut state.stepped_down)
    }

    fn follow(&self, at: RemoteProcess, dialect: Dialect, knows: bool) {
        let mut state = self.state.lock();
        if state.at == SlaveState::Dropped {
            return;
        }
        // A kvnode's store says itself whose writes it has, also when it is another process since it was started again.
        let same = match dialect {
            Dialect::Elixir => state.known.as_ref() == Some(&at),
            Dialect::Kvnode { .. } => state.known.is_some(),
        };
        if !same || !knows {
            state.copy_all();
            (state.unswept, state.unsent) = (false, false);
            state.confirmed = 0;
        }
        if let RemoteProcess::Pid(pid) = &at
            && state.node.as_deref() != Some(&*pid.node)
        {
            (state.node, state.moved) = (Some(Arc::clone(&pid.node)), true);
        }
        state.known = Some(at.clone());
        state.at = SlaveState::Following(at);
        state.dialect = dialect;
        state.greeted.clear();
        state.incarnation = None;
        state.refused = None;
        state.clear_full();
        state.protect_data = false;
        state.last_error = None;
        state.renew = false;
        state.session += 1;
        state.last_asked_up_to = state.log.sent_up_to();
        state.resume();
    }

    /// The process is there, and refuses to be a slave. After a final refusal the entry is dropped.
    pub fn refused(&self, refusal: Refusal) {
        if refusal.is_final() {
            return self.drop_out();
        }
        let mut state = self.state.lock();
        if state.at != SlaveState::Dropped {
            state.refused = Some(refusal);
        }
    }

    /// Has it greeted anew: it says that it is in no session of this store, or what it was told of the store has changed.
    pub fn renew(&self) {
        self.state.lock().renew = true;
        self.changed();
    }

    /// Has it told of the other slaves, which are others than it was told.
    pub fn siblings_changed(&self) {
        self.state.lock().news = true;
        self.changed();
    }

    /// Whether it is to be told of the other slaves. Told once.
    pub fn take_news(&self) -> bool {
        std::mem::take(&mut self.state.lock().news)
    }

    /// Whether it was followed once: what it is, is not known before.
    pub fn was_found(&self) -> bool {
        self.state.lock().known.is_some()
    }

    /// Whether it is to be greeted anew.
    pub fn is_renewed(&self) -> bool {
        self.state.lock().renew
    }

    /// It may lack anything: everything is copied to it. The caller holds the store's order of writes: a kvnode puts aside what
    /// is written from here on, too.
    pub fn copy_all(&self) {
        {
            let mut state = self.state.lock();
            if state.at == SlaveState::Dropped {
                return;
            }
            state.copy_all();
            if state.streaming {
                // Else the next write would be the last that it has, though what came before it is not there.
                let seq = state.confirmed;
                state.begin_copy(seq);
            }
        }
        self.changed();
    }

    /// The number of the last write of the store up to which it has acknowledged everything.
    pub fn confirmed(&self) -> u64 {
        self.state.lock().confirmed
    }

    /// Whether it has a write, with this number and these traits: acknowledged, and not [withheld](Self::withheld).
    pub fn has(&self, seq: u64, traits: Traits) -> bool {
        let (confirmed, cannot_decode) = self.acknowledges();
        confirmed >= seq && !cannot_decode.intersects(traits)
    }

    /// [`confirmed`](Self::confirmed), and the traits of what it is not sent.
    pub fn acknowledges(&self) -> (u64, Traits) {
        let state = self.state.lock();
        (state.confirmed, state.cannot_decode)
    }

    /// How many keys have a value that is not sent to it, as its node cannot decode it, and the first few of these keys. It
    /// has what it had of them before.
    pub fn withheld(&self, first: usize) -> (u64, Vec<Box<[u8]>>) {
        let state = self.state.lock();
        (state.withheld.len(), state.withheld.first(first))
    }

    /// Somebody waits for it to have this write: it is asked for it without a pause.
    pub fn want(&self, seq: u64) {
        let mut state = self.state.lock();
        state.wanted = state.wanted.max(seq);
    }

    /// Whether it is followed at this process, or is a kvnode's store with this incarnation.
    pub fn is_at(&self, at: &RemoteProcess, incarnation: Option<u64>) -> bool {
        let state = self.state.lock();
        let SlaveState::Following(followed) = &state.at else { return false };
        followed == at || incarnation.is_some() && state.incarnation == incarnation
    }

    /// Another slave of the store has turned out to be the process that this one was, and is not followed at any more: what that
    /// has is the other's, and counts once.
    pub fn forget(&self, at: &RemoteProcess, incarnation: Option<u64>) {
        let mut state = self.state.lock();
        let was_it =
            state.known.as_ref() == Some(at) || incarnation.is_some() && state.incarnation == incarnation;
        if state.at == SlaveState::Seeking && was_it {
            (state.known, state.incarnation, state.confirmed) = (None, None, 0);
        }
    }

    /// How it is spoken to, since it was found last.
    pub fn dialect(&self) -> Dialect {
        self.state.lock().dialect
    }

    /// It ended, or its node is gone. The call that asked for its acknowledgement will not be answered.
    pub fn gone(&self) {
        let mut state = self.state.lock();
        if state.at == SlaveState::Dropped {
            return;
        }
        state.at = SlaveState::Seeking;
        state.session += 1;
        state.stop_streaming();
        let State { log, missed, .. } = &mut *state;
        let lost = log.drop_all(|key| missed.insert(key));
        // A copy that is not whole is thrown away there.
        let marks = lost.marks || state.copying;
        state.lost(marks, self.buffer_bytes_max);
        state.told_later = false;
        state.outstanding = false;
    }

    /// It will never be there (again).
    pub fn drop_out(&self) {
        {
            let mut state = self.state.lock();
            let (session, dialect) = (state.session + 1, state.dialect);
            let greeted = std::mem::take(&mut state.greeted);
            *state = State { session, dialect, greeted, ..State::new(SlaveState::Dropped) };
        }
        self.changed();
    }

    /// Has `change` called when there is something to do: it has acknowledged, was removed, or is to be asked later.
    pub fn on_change(&self, change: OnChange) {
        *self.change.lock() = Some(change);
    }

    /// There is something to do.
    pub fn changed(&self) {
        if let Some(change) = &*self.change.lock() {
            change();
        }
    }

    /// Goes on with a slave that was behind, once it has taken what it was sent, or that was full, after a while. Gives
    /// whether it was one. `now` is the monotonic clock.
    pub fn catch_up(&self, now: Instant) -> bool {
        let mut state = self.state.lock();
        let ready = state.may_catch_up(now);
        if ready {
            if let Dialect::Kvnode { session } = state.dialect {
                // What it has is what it was sent before something was left out.
                let seq = state.confirmed;
                state.log.push_mark(session, seq, CopyMark::Repair);
            }
            state.resume();
        }
        ready
    }

    /// Whether its keys are to be read now, for [`sweep_key`](Self::sweep_key). Told once:
    /// writes from here on reach it.
    pub fn begin_sweep(&self) -> bool {
        let mut state = self.state.lock();
        // What a kvnode is sent takes the place of all that it had.
        state.streaming
            && state.dialect == Dialect::Elixir
            && std::mem::take(&mut state.sweep)
            && !planted(Rule::Sweep)
    }

    /// Its keys were read, or could not be.
    pub fn end_sweep(&self, were_read: bool) {
        self.state.lock().unswept = !were_read;
    }

    /// A key that it may have otherwise than the store. It is sent as the store has it.
    pub fn miss(&self, key: &[u8]) {
        let mut state = self.state.lock();
        if state.at != SlaveState::Dropped {
            state.missed.insert(key);
            state.copy_total += 1;
        }
    }

    /// The slave has this key, as it encodes it: where the store does not, it will be told so. Gives whether that is the
    /// case.
    ///
    /// # Errors
    /// The slave's fault: it is nothing that can be a key here.
    pub fn sweep_key(&self, source: &dyn Source, key: TermView<'_>) -> Result<bool, TermError> {
        let mut scratch = Vec::new();
        let key = key::canonical(key, &mut scratch)?;
        let mut foreign = false;
        let read = source.read(key, &mut |value| foreign = value.is_none());
        if foreign || read != SourceRead::Shown {
            self.miss(key);
        }
        Ok(foreign)
    }

    /// It has no source to be repaired from: it has what it is sent from here on, and may lack everything else.
    pub fn give_up_repair(&self) {
        let mut state = self.state.lock();
        state.missed.clear();
        state.scan = None;
        state.sweep = false;
        state.unswept = true;
    }

    /// A step of a full copy: notes the keys of one part of the store. Not under the store's order of writes.
    /// Gives whether there is something to repair.
    pub fn scan(&self, source: &dyn Source) -> bool {
        let (part, scans) = {
            let state = self.state.lock();
            if !state.streaming || state.at == SlaveState::Dropped {
                return false;
            }
            match state.scan {
                Some(part) if state.missed.is_empty() => (part, state.scans),
                _ => return state.caught_up_from.is_none() || !state.missed.is_empty(),
            }
        };
        if part == 0 {
            source.in_order(&mut || {
                let (mut state, seq) = (self.state.lock(), source.seq());
                state.begin_copy(seq);
                if state.scanned_since.is_none_or(|(known, _)| known != scans) {
                    state.scanned_since = Some((scans, seq));
                }
            });
        }
        let since = self.state.lock().scanned_since.map_or(u64::MAX, |(_, since)| since);
        // Without the lock: a write waits for no scan.
        let mut keys: Vec<Box<[u8]>> = Vec::new();
        let read = source.keys(part, since, &mut |key| keys.push(key.into()));
        if read == SourceRead::Later {
            return true;
        }
        let (parts, total) = (source.parts(), source.len() as u64);
        let mut state = self.state.lock();
        // What is written from before the scan of a part on goes through the log, unless all begins anew.
        if state.scans == scans && state.scan == Some(part) {
            state.scan = (part + 1 < parts).then_some(part + 1);
            for key in &keys {
                state.missed.insert(key);
            }
            state.copy_total = state.copy_total.max(total);
            state.unsent |= read == SourceRead::Unreadable;
        }
        state.caught_up_from.is_none() || !state.missed.is_empty()
    }

    /// A step of a repair: queues what some of the missed keys have now. Writers wait for it.
    pub fn refill(&self, source: &dyn Source) {
        source.in_order(&mut || self.refill_in_order(source));
    }

    fn refill_in_order(&self, source: &dyn Source) {
        let (mut state, seq) = (self.state.lock(), source.seq());
        let dialect = state.dialect;
        for _ in 0..REPAIR_KEYS {
            if !self.has_room_in(&state) {
                break;
            }
            let Some(key) = state.missed.pop() else { break };
            let read = source.read(&key, &mut |value| {
                if value.is_none() && planted(Rule::RepairedDeletion) {
                    return;
                }
                let write = match value {
                    Some((value, traits)) => ReplicaWrite::Put { key: &key, value, traits },
                    None => ReplicaWrite::Delete { key: &key, traits: traits_of(&key) },
                };
                state.log.push(dialect, seq, write);
            });
            if read == SourceRead::Later {
                state.missed.insert(&key);
                return;
            }
            state.copied += 1;
            state.unsent |= read == SourceRead::Unreadable;
        }
        state.note_caught_up(seq);
    }

    /// Whether a repair may go on now; else when the slave has taken more.
    pub fn has_room(&self) -> bool {
        self.has_room_in(&self.state.lock())
    }

    fn has_room_in(&self, state: &State) -> bool {
        // Half of the buffer is left to the writes that come meanwhile.
        let room = REPAIR_BYTES.min(self.buffer_bytes_max / 2).max(1);
        let waiting = if self.buffer_bytes_max < 2 * WINDOW_BYTES {
            // What was sent counts where the window is not small beside the buffer.
            state.log.bytes()
        } else {
            state.log.unsent_bytes()
        };
        state.streaming && waiting < room
    }

    /// Shows what waits to `send`, in order, until that says `false` for having no more room, or the window is full.
    /// What its node cannot decode is left out, see [`withheld`](Self::withheld). Nothing is shown where it is not on `node`,
    /// the one that is sent to: it may have moved since the caller looked. `now` is the monotonic clock.
    pub fn take(
        &self,
        node: &str,
        now: Instant,
        can_decode: impl Fn(Traits) -> bool,
        mut send: impl FnMut(&RemoteProcess, &[u8]) -> bool,
    ) -> Taken {
        let mut state = self.state.lock();
        let at = match &state.at {
            SlaveState::Following(at) if **at.node() == *node => at.clone(),
            _ => return Taken { at: None, more: false, acknowledge: Acknowledge::No, withheld: false },
        };
        state.cannot_decode = (0..u8::BITS)
            .map(|bit| Traits::from_bits(1 << bit))
            .filter(|traits| !can_decode(*traits))
            .fold(Traits::none(), Traits::union);
        let State { log, withheld, cannot_decode, .. } = &mut *state;
        let had_all = withheld.is_empty();
        let mut room = true;
        while room
            && (log.sent_bytes() < window_bytes(WINDOW_BYTES) || planted(Rule::Window))
            && let Some(next) = log.send()
        {
            let decodes = !cannot_decode.intersects(next.traits);
            if decodes {
                room = send(&at, next.message);
            }
            match next.key {
                Some(key) if next.is_put && !decodes => withheld.insert(key, self.buffer_bytes_max),
                // What it cannot decode it does not have, and need not delete.
                Some(key) if !withheld.is_empty() => withheld.remove(key),
                _ => {}
            }
        }
        let withheld = had_all && !withheld.is_empty();
        let more = !room && state.log.has_unsent();
        Taken { at: Some((at, state.dialect)), more, acknowledge: state.acknowledge(now), withheld }
    }

    /// It has answered: everything up to the mark was handled by it.
    pub fn acknowledged(&self, mark: Mark) {
        {
            let mut state = self.state.lock();
            if mark.session != state.session {
                return;
            }
            state.outstanding = false;
            state.acknowledged(mark.up_to);
            state.told_later = false;
        }
        self.changed();
    }

    /// It has answered that its store did not keep something of what it was sent up to the mark, or since it answered last:
    /// all of that is missed again, and sent after a while. Until then it is sent nothing but deletions, as these make room.
    /// Gives whether that is news. `now` is the monotonic clock.
    pub fn not_kept(&self, mark: Mark, why: Refusal, now: Instant) -> bool {
        let news = {
            let mut state = self.state.lock();
            if mark.session != state.session {
                return false;
            }
            state.outstanding = false;
            state.told_later = false;
            state.not_kept(mark.up_to, why, now, self.buffer_bytes_max)
        };
        self.changed();
        news
    }

    /// When it is to be asked next, or to be tried again, if nothing else happens: [`catch_up`](Self::catch_up) and
    /// [`take`](Self::take) then.
    pub fn acknowledge_due(&self) -> Option<Instant> {
        let state = self.state.lock();
        let asked = state.last_asked.filter(|_| state.is_unasked()).map(|asked| asked + ACKNOWLEDGE_PAUSE);
        asked.into_iter().chain(state.held_until).min()
    }
}

/// Of a canonical key.
fn traits_of(key: &[u8]) -> Traits {
    TermView::parse(key).map_or(Traits::none(), TermView::traits)
}

impl fmt::Debug for Slave {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slave({})", self.name)
    }
}

#[cfg(test)]
mod tests;
