//! The phases in which a slave is followed: what it is sent, in what order, and what becomes of its answers.

use std::sync::Arc;
use std::time::Instant;

use super::lacks::Step;
use super::outcome::{Acknowledge, Mark, PartRead, Pushed, Taken};
use super::phase::{End, Phase, Watch};
use super::stream::{Stream, WINDOW_BYTES};
use super::{Downstream, Event, FEED_PAUSE, KeysRead, Known, Output};
use crate::distribution::RemoteProcess;
use crate::etf::{TermView, Traits};
use crate::replica::dialect::{CopyMark, Dialect, key_by_key};
use crate::replica::lineage::Refusal;
use crate::replica::planted::{Rule, planted, window_bytes};
use crate::replica::source::{Present, ReplicaWrite, Source, SourceRead};
use crate::replica::standing::Standing;

/// Keys that one step of a repair reads, while writers of the store wait for it: some microseconds.
const REPAIR_KEYS: usize = 32;

impl Downstream {
    /// Queues a write, with its number: one more than the last. The caller holds the store's order of writes, and has
    /// applied it.
    pub fn push(&mut self, seq: u64, write: ReplicaWrite<'_>) -> Pushed {
        let bytes_max = self.lacks.bytes_max();
        match &mut self.phase {
            Phase::Streaming { stream, .. } => {
                stream.log.push(stream.dialect, seq, write);
                self.lacks.queued(write.key());
                self.was_queued()
            }
            Phase::Held { stream, .. } => {
                let is_delete = matches!(write, ReplicaWrite::Delete { .. });
                if is_delete && !self.lacks.is_scanning() && stream.log.bytes() < bytes_max {
                    stream.log.push(stream.dialect, seq, write);
                    return Pushed::Ready;
                }
                stream.miss(&mut self.lacks, write.key());
                Pushed::Kept
            }
            Phase::Behind { stream, .. } => {
                stream.miss(&mut self.lacks, write.key());
                Pushed::Kept
            }
            Phase::Dropped => Pushed::Kept,
            _ => {
                self.lacks.miss(write.key());
                Pushed::Kept
            }
        }
    }

    /// The same of a write of several keys; `told`: of each part in which it is queued. A kvnode that is sent all that there is gets
    /// it whole. Another is sent it key by key, and has the write before until it has the last of these.
    pub fn push_many(&mut self, seq: u64, writes: &[ReplicaWrite<'_>], mut told: impl FnMut(Pushed)) {
        if let Phase::Streaming { stream, .. } = &mut self.phase
            && let Dialect::Kvnode { session } = stream.dialect
            && writes.len() > 1
            && !planted(Rule::ManyWhole)
        {
            stream.log.push_many(session, seq, writes);
            writes.iter().for_each(|write| self.lacks.queued(write.key()));
            return told(self.was_queued());
        }
        for (seq, write) in key_by_key(seq, writes.len()).zip(writes) {
            told(self.push(seq, *write));
        }
    }

    /// The same of a deletion of all keys; `None`: it is to be [copied to](super::Input::CopyAll), which is next to nothing. A kvnode that has
    /// acknowledged that it has everything deletes them at once, as the store has; an Elixir server knows of no such thing, and in the
    /// middle of a copy or of a repair nobody could tell what of it is deleted.
    pub fn push_clear(&mut self, seq: u64) -> Option<Pushed> {
        if let Phase::Streaming { stream, repair: None, .. } = &mut self.phase
            && stream.is_whole()
        {
            if let Dialect::Kvnode { session } = stream.dialect {
                stream.log.push_clear(session, seq);
                return Some(self.was_queued());
            }
            self.lacks.had_all = true;
        }
        self.lacks.cleared.get_or_insert(seq);
        None
    }

    /// What is queued is more than before.
    fn was_queued(&mut self) -> Pushed {
        let bytes_max = self.lacks.bytes_max();
        match &self.phase {
            // One write always fits, so that a large value is not refused by a small bound.
            Phase::Streaming { stream, .. } if stream.log.bytes() > bytes_max && stream.log.len() > 1 => {
                self.fall_behind();
                Pushed::Behind
            }
            _ => Pushed::Ready,
        }
    }

    /// A caller waits for the slave to have this write: the slave is asked for it without a pause.
    pub fn want(&mut self, seq: u64) {
        self.wanted = self.wanted.max(seq);
    }

    /// Shows what waits to `send`, in order, until that says `false` for having no more room, or the window is full.
    /// What its node cannot decode is left out, see [`withheld`](Self::withheld). Nothing is shown where the slave is not on `node`,
    /// which `send` sends to: it may have moved since the caller looked. `now` is the monotonic clock.
    pub fn take(
        &mut self,
        node: &str,
        now: Instant,
        can_decode: impl Fn(Traits) -> bool,
        mut send: impl FnMut(&RemoteProcess, &[u8]) -> bool,
    ) -> Taken {
        let (watch, stream) = match self.phase.stream_mut() {
            Some((watch, stream)) if *watch.at.node == *node => (watch, stream),
            _ => return Taken { at: None, more: false, acknowledge: Acknowledge::No, has_news: false },
        };
        let at = RemoteProcess::Pid(watch.at.clone());
        let cannot_decode = (0..u8::BITS)
            .map(|bit| Traits::from_bits(1 << bit))
            .filter(|traits| !can_decode(*traits))
            .fold(Traits::none(), Traits::union);
        self.cannot_decode = cannot_decode;
        let bytes_max = self.lacks.bytes_max();
        let (log, withheld) = (&mut stream.log, &mut self.lacks.withheld);
        let had_all = withheld.is_empty();
        let mut room = true;
        while room
            && (log.sent_bytes() < window_bytes(WINDOW_BYTES) || planted(Rule::Window))
            && let Some(next) = log.send()
        {
            let decodes = !cannot_decode.intersects(next.traits());
            if decodes {
                room = send(&at, next.message());
            }
            // What it cannot decode it does not have, and need not delete.
            if next.is_clear() {
                withheld.clear();
            }
            let withholds = next.is_put() && !decodes;
            if withholds || !withheld.is_empty() {
                let note =
                    |key| if withholds { withheld.insert(key, bytes_max) } else { withheld.remove(key) };
                next.keys().for_each(note);
            }
        }
        let has_news = had_all && !withheld.is_empty();
        let more = !room && log.has_unsent();
        let taken = Taken {
            more,
            acknowledge: stream.acknowledge(now, self.wanted),
            has_news,
            at: Some((at, stream.dialect)),
        };
        if has_news {
            self.log(Event::Withheld);
        }
        taken
    }

    /// A step of a repair, as [`Output::Repair`] asks for: begins a copy where one is due, and queues what some of the missed
    /// keys have now. The caller holds the store's order of writes, and writers wait for it.
    pub fn repair(&mut self, source: &dyn Source) {
        let Phase::Streaming { stream, repair: going @ Some(_), .. } = &mut self.phase else { return };
        let (lacks, seq) = (&mut self.lacks, source.seq());
        if lacks.is_all() {
            stream.begin_copy(lacks, seq);
            lacks.begin_scan(seq);
        }
        for _ in 0..REPAIR_KEYS {
            if !stream.has_room(lacks.bytes_max()) {
                break;
            }
            let Some(key) = lacks.pop() else { break };
            let read = source.read(&key, &mut |value| {
                if value.is_none() && planted(Rule::RepairedDeletion) {
                    return;
                }
                let write = match value {
                    Some(Present { value, traits, revision, deadline }) => {
                        ReplicaWrite::Put { key: &key, value, traits, revision, deadline }
                    }
                    None => ReplicaWrite::Delete { key: &key, traits: traits_of(&key) },
                };
                stream.log.push(stream.dialect, seq, write);
            });
            if read == SourceRead::Later {
                return lacks.put_back(key);
            }
            if let Some(repair) = going {
                repair.done += 1;
            }
            lacks.unsent |= read == SourceRead::Unreadable;
        }
        if stream.note_whole(lacks, seq) {
            *going = None;
        }
    }

    /// It is a slave from here on. `knows`: where it is the process that is known, that has what it has confirmed.
    pub(super) fn follow(&mut self, watch: Watch, dialect: Dialect, incarnation: Option<u64>, knows: bool) {
        // A kvnode's store says itself whose writes it has, also when it is another process since it was started again. What it was
        // sent of a repair beyond these another store has not, which may have its name now.
        let is_in_place = |known: &Known| {
            let was_restarted = known.at.creation != watch.at.creation;
            known.at.node == watch.at.node && (was_restarted || known.incarnation == incarnation)
        };
        let same = self.known.take().filter(|known| match dialect {
            Dialect::Elixir => known.at == watch.at,
            Dialect::Kvnode { .. } => is_in_place(known),
        });
        let confirmed = match same {
            Some(known) if knows => known.confirmed,
            _ => {
                self.lacks.all_of_another();
                0
            }
        };
        self.known = Some(Known { at: watch.at.clone(), dialect, incarnation, confirmed });
        self.greeted.clear();
        (self.refused, self.last_error) = (None, None);
        self.protect_data = false;
        self.times += 1;
        let mut stream = Stream::new(self.times, dialect);
        let repair = stream.resume(&self.lacks, confirmed);
        self.enter(Phase::Streaming { watch, stream, repair: Some(repair) });
    }

    /// It is a slave now: goes on with that.
    pub(super) fn stream(&mut self, now: Instant) {
        self.settle(None);
        if let Some(watch) = self.phase.watch() {
            let node = Arc::clone(&watch.at.node);
            self.log(Event::Found { node: (*node).into() });
            if self.node.as_ref() != Some(&node) {
                self.node = Some(node);
                self.outputs.push_back(Output::Moved);
            }
        }
        self.tend(now);
    }

    /// When [`tend`](Self::tend) is due, of a slave that is followed.
    pub(super) fn stream_due(&self) -> Option<Instant> {
        let (watch, stream) = self.phase.stream()?;
        if stream.sweeping.is_some() {
            return None;
        }
        let until = match &self.phase {
            Phase::Streaming { repair: Some(repair), .. } if stream.has_room(self.lacks.bytes_max()) => {
                return Some(repair.went_on.unwrap_or(watch.since));
            }
            Phase::Behind { .. } if stream.log.is_empty() => return Some(watch.since),
            Phase::Held { until, .. } => Some(*until),
            _ => None,
        };
        // What is due may not have been taken yet, by a connection that has no room.
        let again = |due: Instant| stream.fed.map_or(due, |fed| due.max(fed + FEED_PAUSE));
        stream.ask_due().into_iter().chain(until).min().map(again)
    }

    /// Goes on with the slave's stream, where there is one: a step of its repair at most.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.phase.stream().is_some() && self.renew {
            return self.end(End::Renewed, now);
        }
        self.tell_news();
        if self.phase.stream().is_none_or(|(_, stream)| stream.sweeping.is_some()) {
            return;
        }
        self.catch_up(now);
        if self.begin_sweep() {
            return;
        }
        if !self.outputs.iter().any(Output::goes_on) {
            match self.next_step(now) {
                // What it comes to is fed behind it.
                Some(Step::Scan { scan, part, since }) => {
                    self.outputs.push_back(Output::ReadPart { scan, part, since });
                }
                step => {
                    self.outputs.extend(step.map(|_| Output::Repair));
                    self.feed(now);
                }
            }
        }
        self.tell_progress(now);
    }

    /// The next step of a repair, if one is due and there is room for it.
    fn next_step(&mut self, now: Instant) -> Option<Step> {
        let Phase::Streaming { stream, repair: Some(repair), .. } = &mut self.phase else { return None };
        if !stream.has_room(self.lacks.bytes_max()) {
            return None;
        }
        repair.went_on = Some(now);
        Some(self.lacks.step())
    }

    fn feed(&mut self, now: Instant) {
        if let Some((watch, stream)) = self.phase.stream_mut() {
            stream.fed = Some(now);
            self.outputs.push_back(Output::Feed { node: Arc::clone(&watch.at.node) });
        }
    }

    /// Tells a kvnode's store of the other slaves, where these are others than it was told.
    pub(super) fn tell_news(&mut self) {
        let Some((watch, stream)) = self.phase.stream() else { return };
        let (at, dialect) = (&watch.at, stream.dialect);
        if std::mem::take(&mut self.news)
            && let Dialect::Kvnode { session } = dialect
            && !self.outputs.iter().any(|output| matches!(output, Output::TellSiblings { .. }))
        {
            self.outputs.push_back(Output::TellSiblings { at: at.clone(), session });
        }
    }

    fn tell_progress(&mut self, now: Instant) {
        let standing = self.standing();
        let Some((_, stream)) = self.phase.stream_mut() else { return };
        let said = stream.progress.note(standing, now);
        let is_in_step = match standing {
            Standing::InStep { lag } => lag == 0 || self.confirmed() > 0,
            _ => false,
        };
        // What it sent to its slaves, while it was a primary with slaves, is sent by now.
        if is_in_step && std::mem::take(&mut self.stepped_down) && !planted(Rule::CopyToOthers) {
            self.outputs.push_back(Output::CopyOthers);
        }
        if let Some(event) = said {
            let is_done = event == Event::UpToDate;
            self.log(event);
            if is_done {
                self.outputs.push_back(Output::UpToDate);
            }
        }
    }

    /// Goes on with a slave that was behind, once it has taken what it was sent, or that was full, after a while.
    fn catch_up(&mut self, now: Instant) {
        let is_ready = match &self.phase {
            Phase::Behind { stream, .. } => stream.log.is_empty(),
            Phase::Held { until, .. } => now >= *until,
            _ => false,
        };
        if !is_ready {
            return;
        }
        let Some((watch, mut stream)) = std::mem::replace(&mut self.phase, Phase::Dropped).into_stream()
        else {
            return;
        };
        if !stream.log.is_empty() {
            self.phase = Phase::Behind { watch, stream };
            return;
        }
        let confirmed = self.confirmed();
        if let Dialect::Kvnode { session } = stream.dialect {
            // What it has is what it was sent before something was left out.
            stream.log.push_mark(session, confirmed, CopyMark::Repair);
        }
        let repair = stream.resume(&self.lacks, confirmed);
        self.phase = Phase::Streaming { watch, stream, repair: Some(repair) };
        self.log(Event::TakesAgain);
    }

    /// The bound was passed.
    #[cold]
    fn fall_behind(&mut self) {
        if let Some((watch, mut stream)) = std::mem::replace(&mut self.phase, Phase::Dropped).into_stream() {
            let dropped = stream.fall_behind(&mut self.lacks);
            self.phase = Phase::Behind { watch, stream };
            self.log(Event::FellBehind { dropped });
        }
    }

    /// It has answered.
    pub(super) fn acknowledged(&mut self, mark: Mark, kept: Result<(), Refusal>, now: Instant) {
        let Some((_, stream)) = self.phase.stream_mut() else { return };
        if stream.session != mark.session {
            return;
        }
        let is_missed = |why: &Refusal| why.is_of_room() && planted(Rule::NotKept);
        let kept = if kept.as_ref().is_err_and(is_missed) { Ok(()) } else { kept };
        match kept {
            Ok(()) => {
                // What a kvnode is copied takes the place of all that it had.
                let cleared = self.lacks.cleared.filter(|_| stream.dialect == Dialect::Elixir);
                if let (Some(seq), Some(known)) = (stream.acknowledged(mark.up_to), &mut self.known) {
                    let seq = cleared.map_or(seq, |cleared| seq.min(cleared.saturating_sub(1)));
                    known.confirmed = known.confirmed.max(seq);
                }
            }
            Err(why) if why.is_of_room() => self.not_kept(mark, why, now),
            Err(why) => {
                self.log(Event::NoSession(why));
                if why.is_final() {
                    return self.end(End::Dropped, now);
                }
                self.refused = Some(why);
                return self.end(End::Renewed, now);
            }
        }
        self.tend(now);
    }

    /// Its store did not keep something of what it was sent up to the mark, or since it answered last: all of that is missed
    /// again, and sent after a while.
    fn not_kept(&mut self, mark: Mark, why: Refusal, now: Instant) {
        let phase = std::mem::replace(&mut self.phase, Phase::Dropped);
        let held = if let Phase::Held { until, .. } = &phase { Some(*until) } else { None };
        let confirmed = self.confirmed();
        let Some((watch, mut stream)) = phase.into_stream() else { return };
        stream.not_kept(&mut self.lacks, mark.up_to, confirmed);
        let is_news = stream.full.is_none_or(|full| full.why != why);
        let until = match (held, &mut stream.full) {
            (Some(until), Some(full)) => {
                full.why = why;
                until
            }
            _ => now + stream.full_for(&self.lacks, why),
        };
        self.phase = Phase::Held { watch, stream, until };
        if is_news {
            self.log(Event::NotKept(why));
            self.last_error = Some(why.to_string().into());
        }
    }

    /// It may lack anything.
    pub(super) fn copy_all(&mut self) {
        let confirmed = self.confirmed();
        match self.phase.stream_mut() {
            Some((_, stream)) => stream.lack_all(&mut self.lacks),
            None => self.lacks.all(),
        }
        if let Phase::Streaming { stream, repair, .. } = &mut self.phase {
            // Else the next write would be the last that it has, though what came before it is not there.
            stream.begin_copy(&self.lacks, confirmed);
            repair.get_or_insert_default();
            // Each beginning waits in the log, however many there are.
            _ = self.was_queued();
        }
    }

    /// Has its keys read where it may have some that the store has not; gives whether it does.
    fn begin_sweep(&mut self) -> bool {
        let Phase::Streaming { watch, stream, .. } = &mut self.phase else { return false };
        // What a kvnode is sent takes the place of all that it had.
        if stream.dialect != Dialect::Elixir || !std::mem::take(&mut self.lacks.sweep) || planted(Rule::Sweep)
        {
            return false;
        }
        self.questions += 1;
        let (question, at) = (self.questions, watch.at.clone());
        stream.sweeping = Some(question);
        self.outputs.push_back(Output::ReadKeys { question, at });
        true
    }

    /// It has a key that the store has not.
    pub(super) fn stray(&mut self, key: &[u8]) {
        self.lacks.add(key);
        if let Phase::Streaming { stream, repair, .. } = &mut self.phase {
            stream.whole = None;
            repair.get_or_insert_default().total += 1;
        }
    }

    pub(super) fn keys_read(&mut self, question: u64, read: KeysRead, now: Instant) {
        match self.phase.stream_mut() {
            Some((_, stream)) if stream.sweeping == Some(question) => stream.sweeping = None,
            _ => return,
        }
        let is_cleared = self.lacks.had_all;
        self.lacks.unswept = read.error.is_some() || read.unusable > 0;
        if !self.lacks.unswept && !self.lacks.sweep {
            (self.lacks.cleared, self.lacks.had_all) = (None, false);
        }
        match read.error {
            Some(why) => self.log(Event::NotSwept(why)),
            None if read.foreign > 0 => self.log(Event::Swept { keys: read.foreign, is_cleared }),
            None => {}
        }
        self.tend(now);
    }

    /// The keys of a part of the store were read.
    pub(super) fn part_read(&mut self, scan: u64, part: usize, read: PartRead, now: Instant) {
        let Phase::Streaming { repair: Some(repair), .. } = &mut self.phase else { return };
        if let PartRead::Keys { keys, parts, total, is_damaged } = read
            && self.lacks.scanned(scan, part, parts, &keys)
        {
            repair.total = repair.total.max(total);
            self.lacks.unsent |= is_damaged;
        }
        self.outputs.push_back(Output::Repair);
        self.feed(now);
    }
}

/// Of a canonical key.
fn traits_of(key: &[u8]) -> Traits {
    TermView::parse(key).map_or(Traits::none(), TermView::traits)
}

#[cfg(test)]
mod tests;
