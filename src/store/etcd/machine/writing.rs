//! How the machine writes: batches, and their outcomes.

use std::sync::Arc;
use std::time::Duration;

use ahash::AHashSet;

use super::{Flight, Machine, Output, PATIENCE, Reading, Sends, Stage, UNSENT_PATIENCE, VERDICT, Writing};
use crate::etcd::Error;
use crate::etcd::message::{Bytes, OpResponse, TxnRequest, TxnResponse};
use crate::store::etcd::ask::{Ask, Asked, Changes, Key, Kind, Outcome, Wrote};
use crate::store::etcd::batch::{Added, BATCH_BYTES, Batch, Bounds, Carried, Does, delete, verify, void};
use crate::store::etcd::planted::{Rule, planted};
use crate::store::etcd::{layout, places};
use crate::store::{OwnedValue, StoreError};

/// Between two times that etcd is asked the same.
const PAUSE: Duration = Duration::from_millis(50);
/// The same where it has no space.
const LONG_PAUSE: Duration = Duration::from_millis(500);

impl Machine {
    pub(super) fn answered(&mut self, number: u64, result: Result<TxnResponse, Error>, now: Duration) {
        let Writing::Flying(flight) = &mut self.writing else { return };
        if !matches!(flight.stage, Stage::Asked(sent) if sent == number) {
            return;
        }
        let is_void = flight.sends == Sends::Void;
        if flight.sends == Sends::Reads {
            return self.verified(result, now);
        }
        match result {
            Ok(response) => self.responded(&response, is_void, now),
            Err(Error::Unavailable { .. } | Error::LeaderLost) if !flight.is_unsure => {
                self.requeue();
                self.writing = Writing::Resting(now + PAUSE);
            }
            // It says nothing of what was sent before.
            Err(error) if flight.is_unsure => {
                let pause = if is_for_long(&error) { LONG_PAUSE } else { PAUSE };
                flight.stage = Stage::Resting(now + pause);
            }
            Err(Error::NoSpace) => self.fail(&StoreError::NoSpace),
            // etcd takes less than the client: batches get smaller until it is known which write it is.
            Err(Error::TooLarge { .. }) if flight.writes.len() > 1 => {
                self.bounds.batch_bytes /= 2;
                self.requeue();
            }
            Err(Error::TooLarge { bytes, bytes_max }) => {
                // etcd does not tell its own bound: it is less than this request.
                let refused = bytes_max.unwrap_or(bytes.saturating_sub(1));
                let bounds = Bounds { request_bytes: refused.min(self.bounds.request_bytes), ..self.bounds };
                let bytes_max = bounds.bytes_max(&self.layout, 1) as u64;
                self.fail(&StoreError::TooLarge(bytes_max));
            }
            Err(error @ Error::TooManyOperations) => self.too_many_operations(&error),
            Err(error) if is_for_long(&error) => self.refused(&error),
            Err(_) => flight.stage = Stage::Resting(now + PAUSE),
        }
    }

    /// etcd takes fewer operations than it does by default. It does not tell its bound, which stays for as long as its members run: batches get smaller,
    /// until it is known which write it is.
    fn too_many_operations(&mut self, error: &Error) {
        let Writing::Flying(flight) = &self.writing else { return };
        let (operations, writes) = (flight.operations(), flight.writes.len());
        // Of one key, beside the mark.
        let least = 2;
        if operations <= least {
            return self.refused(error);
        }
        if !std::mem::replace(&mut self.said.few_operations, true) {
            tracing::warn!(operations, "a store's transactions get smaller: {error}");
        }
        if writes == 1 {
            return self.fail(&StoreError::TooMany(operations as u64 - least as u64));
        }
        self.bounds.operations = self.bounds.operations.min(operations / 2).max(least);
        self.requeue();
    }

    fn refused(&mut self, error: &Error) {
        let is_refused = matches!(error, Error::Refused { .. } | Error::TooManyOperations);
        if !std::mem::replace(&mut self.said.refused, true) {
            tracing::error!(%error, "etcd refuses a store's writes");
        }
        self.fail(&StoreError::Io(if is_refused { "einval" } else { "eacces" }));
    }

    /// Decisions to keep what is there are right, or not. Nothing was written: what is not known is asked again.
    fn verified(&mut self, result: Result<TxnResponse, Error>, now: Duration) {
        match result {
            Ok(response) if response.succeeded => {
                let Writing::Flying(flight) = std::mem::replace(&mut self.writing, Writing::Idle) else {
                    return;
                };
                let applied = self.table.applied();
                self.carry_out(flight.writes, applied, true);
            }
            Ok(_) => {
                self.requeue();
                // The revision of the mark tells how far the table has to come.
                self.moves_next = true;
            }
            Err(error @ Error::TooManyOperations) => self.too_many_operations(&error),
            Err(error) if is_for_long(&error) => self.refused(&error),
            Err(_) => {
                self.requeue();
                self.writing = Writing::Resting(now + PAUSE);
            }
        }
    }

    fn responded(&mut self, response: &TxnResponse, is_void: bool, now: Duration) {
        let revision = response.header.map_or(0, |header| header.revision);
        if response.succeeded {
            return if is_void { self.void_at(revision) } else { self.commit_at(revision) };
        }
        let mut first = response.responses.first().and_then(|response| response.response.as_ref());
        if let Some(OpResponse::Txn(fence)) = first {
            if fence.succeeded {
                return self.void_at(revision);
            }
            first = fence.responses.first().and_then(|response| response.response.as_ref());
        }
        let mark = match first {
            Some(OpResponse::Range(found)) => found.kvs.first(),
            _ => None,
        };
        let number = self.flight().map_or(0, |flight| flight.number);
        match mark.map(|mark| (layout::read_mark(&mark.value).0, mark.mod_revision)) {
            Some((found, revision)) if found == number && !planted(Rule::OnceOrNever) => {
                self.commit_at(revision)
            }
            Some((found, revision)) if found == number || found == number + 1 => self.void_at(revision),
            // Another program has touched the mark: whether the batch is done the watch shows.
            _ => {
                if let Writing::Flying(flight) = &mut self.writing {
                    flight.stage = Stage::Resting(now + LONG_PAUSE);
                }
            }
        }
    }

    /// The batch was done in this revision.
    fn commit_at(&mut self, revision: i64) {
        let is_next = revision <= self.table.applied().saturating_add(1) || planted(Rule::OneOrder);
        if is_next && matches!(self.reading, Reading::Following) {
            self.finish(revision, true);
            return self.come_to(revision);
        }
        if let Writing::Flying(flight) = &mut self.writing {
            flight.stage = Stage::Committed(revision);
        }
    }

    /// The mark was moved in this revision, so that the batch can be done no more.
    fn void_at(&mut self, revision: i64) {
        self.mark = revision;
        self.requeue_carefully();
        self.writing = Writing::Behind(revision);
        let applied = self.table.applied();
        let is_next = revision == applied.saturating_add(1) && matches!(self.reading, Reading::Following);
        self.come_to(if is_next { revision } else { applied });
    }

    /// The batch on its way was made void: its requests wait again, and its decisions go one by one, as one of them came too late, perhaps.
    pub(super) fn requeue_carefully(&mut self) {
        let decided = self.flight().is_some_and(|flight| flight.request.compare.len() > 1);
        let last = self.flight().and_then(|flight| flight.untold().map(|asked| asked.number).max());
        if let Writing::Flying(flight) = &mut self.writing
            && decided
        {
            // Another process removes the same keys, perhaps. Removals that are left out are asked for again, and hold no decision up.
            let is_expiry =
                |asked: &mut Asked| matches!(&asked.ask, Ask::Update(update) if update.is_expiry());
            let left_out = flight.writes.iter_mut().filter_map(|carried| carried.asked.take_if(is_expiry));
            self.outputs.extend(left_out.map(|asked| Output::Tell(asked, Ok(Outcome::Kept))));
        }
        self.requeue();
        if decided {
            self.careful_up_to = self.careful_up_to.max(last.unwrap_or(0));
        }
    }

    /// The batch on its way is surely not done: its requests wait again.
    pub(super) fn requeue(&mut self) {
        if !matches!(self.writing, Writing::Flying(_)) {
            return;
        }
        let Writing::Flying(flight) = std::mem::replace(&mut self.writing, Writing::Idle) else { return };
        self.number += 2;
        self.put_back(flight.writes);
    }

    fn put_back(&mut self, writes: Vec<Carried>) {
        for asked in writes.into_iter().rev().filter_map(|carried| carried.asked) {
            self.queue.push_front(asked);
        }
        // Writes that look at nothing may have gone before others.
        if !self.queue.iter().is_sorted_by_key(|asked| asked.number) {
            self.queue.make_contiguous().sort_unstable_by_key(|asked| asked.number);
        }
    }

    /// Nothing is asked of etcd any more: what waits is answered.
    pub(super) fn give_up(&mut self) {
        let unavailable = StoreError::Unavailable;
        let waits = self.queue.drain(..).map(|asked| Output::Tell(asked, Err(unavailable.clone())));
        self.outputs.extend(waits);
        self.fail(&StoreError::Unknown);
        self.writing = Writing::Idle;
        self.looks.give_up(&unavailable);
    }

    /// It will not be done.
    pub(super) fn fail(&mut self, error: &StoreError) {
        let Writing::Flying(flight) = std::mem::replace(&mut self.writing, Writing::Idle) else { return };
        self.number += 2;
        if flight.writes.is_empty() {
            // It was for the requests that wait.
            let waits = self.queue.drain(..).map(|asked| Output::Tell(asked, Err(error.clone())));
            self.outputs.extend(waits);
        }
        for carried in flight.writes {
            let Some(asked) = carried.asked else { continue };
            let result = match carried.does {
                Does::Fails(own) => Err(own),
                Does::Nothing => Ok(Outcome::Done),
                Does::ReadNote(name) => Ok(Outcome::Note(self.notes.get(&name).cloned())),
                Does::Changes(_) | Does::Clear | Does::Note(..) => Err(error.clone()),
            };
            self.outputs.push(Output::Tell(asked, result));
        }
    }

    /// The batch was done in this revision. Not `applies`: the table has its values, or newer ones.
    pub(super) fn finish(&mut self, revision: i64, applies: bool) {
        let Writing::Flying(flight) = std::mem::replace(&mut self.writing, Writing::Idle) else { return };
        self.mark = revision;
        self.number += 2;
        self.said.refused = false;
        // It was halved while etcd took less.
        self.bounds.batch_bytes = (self.bounds.batch_bytes + self.bounds.batch_bytes / 16).min(BATCH_BYTES);
        self.table.set_applied(if applies { revision } else { 0 });
        self.carry_out(flight.writes, revision, applies);
    }

    fn carry_out(&mut self, writes: Vec<Carried>, revision: i64, applies: bool) {
        for carried in writes {
            let (place, has_ended) = (carried.place, carried.has_ended);
            let outcome = match carried.does {
                Does::Changes(changes) if changes.is_empty() => Ok(Outcome::Kept),
                Does::Changes(changes) => {
                    let revision = layout::revision(revision, place);
                    let revised = |value: OwnedValue| OwnedValue { revision, ..value };
                    let changes: Changes =
                        changes.into_iter().map(|(key, value)| (key, value.map(revised))).collect();
                    let seq = if applies { self.table.apply(&changes) } else { self.table.next_seq() };
                    if applies && !self.unreadable.is_empty() {
                        changes.iter().for_each(|(key, _)| _ = self.unreadable.remove(key));
                    }
                    let numbers = (revision..).take(changes.len()).collect();
                    Ok(Outcome::Wrote(Wrote { seq, changes, numbers, has_ended }))
                }
                Does::Clear => {
                    if applies {
                        self.unreadable.clear();
                    }
                    let seq = if applies { self.table.clear() } else { self.table.next_seq() };
                    let (changes, numbers) = (Changes::new(), vec![layout::revision(revision, place)]);
                    Ok(Outcome::Wrote(Wrote { seq, changes, numbers, has_ended }))
                }
                Does::Note(name, note) => {
                    if applies {
                        self.notes.insert(name, note);
                    }
                    Ok(Outcome::Done)
                }
                Does::ReadNote(name) => Ok(Outcome::Note(self.notes.get(&name).cloned())),
                Does::Nothing => Ok(Outcome::Done),
                Does::Fails(error) => Err(error),
            };
            let told = match (carried.asked, outcome) {
                (Some(asked), outcome) => Output::Tell(asked, outcome),
                (None, Ok(Outcome::Wrote(wrote))) => Output::TellOfOther(wrote),
                (None, _) => continue,
            };
            self.outputs.push(told);
        }
    }

    /// Answers requests that have waited too long.
    pub(super) fn lose_patience(&mut self, now: Duration) {
        let is_over = |asked: &Asked| asked.at + PATIENCE <= now;
        if let Writing::Flying(flight) = &mut self.writing {
            for carried in &mut flight.writes {
                if let Some(asked) = carried.asked.take_if(|asked| is_over(asked)) {
                    let error = match &carried.does {
                        Does::Fails(own) => own.clone(),
                        does if does.writes() => StoreError::Unknown,
                        _ => StoreError::Unavailable,
                    };
                    self.outputs.push(Output::Tell(asked, Err(error)));
                }
            }
        }
        let is_not_sent = |asked: &mut Asked| asked.at + UNSENT_PATIENCE <= now;
        while let Some(asked) = self.queue.pop_front_if(is_not_sent) {
            self.outputs.push(Output::Tell(asked, Err(StoreError::Unavailable)));
        }
    }

    pub(super) fn go_on(&mut self, now: Duration) {
        if matches!(self.reading, Reading::LoadAt(at) if at <= now) {
            self.reading = Self::load_into(&self.table);
            self.outputs.push(Output::Load);
        }
        match &self.writing {
            Writing::Resting(until) if *until <= now => self.writing = Writing::Idle,
            Writing::Flying(Flight { stage: Stage::Resting(until), .. }) if *until <= now => {
                self.ask_again(now)
            }
            _ => {}
        }
        if !matches!(self.reading, Reading::Following) {
            return;
        }
        if matches!(self.writing, Writing::Idle) && !self.old_marks.is_empty() {
            self.delete_old_marks();
        }
        while matches!(self.writing, Writing::Idle) && !self.queue.is_empty() {
            self.begin(now);
        }
    }

    /// With a mark of this writer's own, so that the last mark is that of the last write always.
    fn delete_old_marks(&mut self) {
        let mut request = void(&self.layout, self.number, self.mark);
        let marks = std::mem::take(&mut self.old_marks).into_iter();
        request.success.extend(marks.map(|mark| delete((mark, Bytes::new())).into()));
        self.send(Vec::new(), request, PATIENCE, Sends::Batch);
    }

    fn send(&mut self, mut writes: Vec<Carried>, request: TxnRequest, limit: Duration, sends: Sends) {
        if planted(Rule::AnswerBehindCommit) {
            self.answer_before_commit(&mut writes);
        }
        self.sent += 1;
        let (number, stage) = (self.number, Stage::Asked(self.sent));
        self.outputs.push(Output::Send { number: self.sent, request: request.clone(), limit });
        self.writing = Writing::Flying(Flight { number, writes, request, stage, sends, is_unsure: false });
    }

    /// What [`Rule::AnswerBehindCommit`] forbids.
    fn answer_before_commit(&mut self, writes: &mut [Carried]) {
        for carried in writes {
            let Does::Changes(changes) = &carried.does else { continue };
            if changes.is_empty() {
                continue;
            }
            let (seq, changes) = (self.table.next_seq(), changes.clone());
            let numbers = places::unknown(self.table.applied(), changes.len());
            let wrote = Wrote { seq, changes, numbers, has_ended: carried.has_ended };
            let told = carried.asked.take().map(|asked| Output::Tell(asked, Ok(Outcome::Wrote(wrote))));
            self.outputs.extend(told);
        }
    }

    /// The outcome of the batch is unknown: it is sent once more, or a void in its place.
    fn ask_again(&mut self, now: Duration) {
        let Writing::Flying(flight) = &mut self.writing else { return };
        self.sent += 1;
        (flight.stage, flight.is_unsure) = (Stage::Asked(self.sent), true);
        let last = flight.last_untold().map(|asked| asked.at + PATIENCE);
        if last.is_none() && flight.sends != Sends::Void {
            flight.request = void(&self.layout, flight.number + 1, self.mark);
            flight.sends = Sends::Void;
        }
        let limit = last.map_or(PATIENCE, |last| last.saturating_sub(now).max(PAUSE));
        self.outputs.push(Output::Send { number: self.sent, request: flight.request.clone(), limit });
    }

    /// Sends a batch of the requests that have gathered.
    fn begin(&mut self, now: Duration) {
        let (table, layout) = (Arc::clone(&self.table), self.layout.clone());
        let unreadable = std::mem::take(&mut self.unreadable);
        let mut batch = Batch::new((&table, &unreadable), &layout, self.bounds);
        let is_careful = self.queue.front().is_some_and(|asked| asked.number <= self.careful_up_to);
        let alone = is_careful
            && std::mem::take(&mut self.decides_next)
            && self.queue.front().is_some_and(|asked| asked.kind() == Kind::Decides);
        self.decides_next = is_careful && !alone;
        let (mut left, mut passed) = (Vec::new(), AHashSet::<Key>::new());
        while let Some(asked) = self.queue.pop_front() {
            if is_careful && !alone {
                let kind = asked.kind();
                let is_passed = kind == Kind::Decides || asked.keys.iter().any(|key| passed.contains(key));
                if matches!(kind, Kind::Plain | Kind::Decides) && is_passed {
                    passed.extend(asked.keys.iter().cloned());
                    left.push(asked);
                    continue;
                }
                if matches!(kind, Kind::Clear | Kind::InOrder) && !left.is_empty() {
                    left.push(asked);
                    break;
                }
            }
            match batch.add(asked) {
                Added::Taken if alone => break,
                Added::Taken => {}
                Added::Full(asked) => {
                    left.push(asked);
                    break;
                }
            }
        }
        for asked in left.into_iter().rev() {
            self.queue.push_front(asked);
        }
        let is_of_etcd = batch.is_of_etcd();
        let (writes, request) = batch.close(self.number, self.mark);
        self.unreadable = unreadable;
        if !is_of_etcd {
            // Nothing in it needs etcd.
            let applied = self.table.applied();
            return self.carry_out(writes, applied, true);
        }
        let moves =
            std::mem::take(&mut self.moves_next) || writes.iter().any(|carried| carried.does.writes());
        // Before the first of them is told that its outcome is unknown: where nothing was sent it is known. Those that came later are sent again.
        let first = writes.iter().filter_map(|carried| carried.asked.as_ref()).map(|asked| asked.at).min();
        let limit = (first.unwrap_or(now) + PATIENCE - VERDICT).saturating_sub(now).max(PAUSE);
        if !moves {
            return self.send(writes, verify(request), limit, Sends::Reads);
        }
        if self.mark == 0 {
            // The absence of a mark is a condition that could hold twice: the batch goes when there is a mark.
            self.put_back(writes);
            let request = void(&self.layout, self.number, 0);
            return self.send(Vec::new(), request, PATIENCE, Sends::Batch);
        }
        self.send(writes, request, limit, Sends::Batch);
    }
}

/// Whether the error stays for long.
const fn is_for_long(error: &Error) -> bool {
    matches!(
        error,
        Error::NoSpace
            | Error::TooManyOperations
            | Error::TokenExpired
            | Error::Denied { .. }
            | Error::Refused { .. }
    )
}
