//! How the machine reads: loads, and the changes that the watch shows.

use std::collections::{BTreeMap, BTreeSet};

use super::{Load, Machine, Output, Reading, Sends, Stage, Writing};
use crate::etcd::message::{Bytes, Event, EventKind, KeyValue};
use crate::store::etcd::ask::{Changes, Key, Wrote};
use crate::store::etcd::layout::{self, Of};
use crate::store::etcd::places::{self, Places};
use crate::store::etcd::planted::{Rule, planted};
use crate::store::etcd::table::put_all;
use crate::store::{Store, StoreError, Value};

impl Machine {
    pub(super) fn page(&mut self, entries: &[KeyValue]) {
        let Reading::Loading(load) = &mut self.reading else { return };
        let Load { staged, notes, unreadable, mark, marks } = &mut **load;
        for kv in entries {
            match self.layout.read(&kv.key) {
                Of::Entry(key) => match layout::read_value(key, kv) {
                    Some(value) => put_all(staged, &vec![(key.into(), Some(value.to_owned()))]),
                    None => _ = unreadable.insert(key.into()),
                },
                Of::Note(name) => _ = notes.insert(name.into(), kv.value.to_vec()),
                Of::OwnMark => *mark = Some((kv.mod_revision, layout::read_mark(&kv.value).0)),
                Of::OtherMark => _ = marks.insert(kv.mod_revision, Bytes::copy_from_slice(&kv.key)),
                Of::Other => {}
            }
        }
    }

    pub(super) fn loaded(&mut self, revision: i64) {
        self.look_for_roll_back(self.table.applied(), revision);
        if matches!(self.reading, Reading::RolledBack) {
            return;
        }
        let Reading::Loading(load) = std::mem::replace(&mut self.reading, Reading::Following) else {
            return;
        };
        let Load { staged, notes, unreadable, mark, marks } = *load;
        self.say_unreadable(&unreadable);
        self.said.lost = false;
        self.old_marks = old_marks(marks);
        // Before it, so that no entry has a higher revision than the store has counted to.
        self.table.set_applied(revision);
        let is_first = !std::mem::replace(&mut self.is_open, true);
        let before = self.table.replace(staged);
        (self.notes, self.unreadable) = (notes, unreadable);
        let (mark, number) = mark.unwrap_or_default();
        if !is_first {
            // Before the writes that are told of here: theirs are not all.
            self.outputs.push(Output::Missed(layout::last_revision(revision)));
        }
        // Own writes are told of first, and may be written over by now: the values of their keys are told of again.
        let (keys, is_clear) = self.settle_by_load(revision, mark, number);
        if is_first {
            self.outputs.push(Output::Opened);
        } else if let Some(before) = if is_clear { self.table.entries.staging() } else { before } {
            let differs = self.table.differs(&before, keys).into_iter();
            self.outputs.extend(differs.map(Output::TellOfOther));
        }
        self.outputs.push(Output::Watch(revision.saturating_add(1)));
        self.come_to(revision);
    }

    /// What became of the batch that is on its way, by the mark in a load of this revision. Gives what it has written where it is done: its
    /// keys, and whether these are all.
    fn settle_by_load(&mut self, loaded: i64, mark: i64, number: u64) -> (Vec<Key>, bool) {
        let Some(flight) = self.flight() else {
            self.mark = mark;
            return Default::default();
        };
        let written = flight.written();
        match flight.stage {
            Stage::Committed(revision) if revision <= loaded => {
                self.finish(revision, false);
                // Another program may have touched it since.
                self.mark = mark;
                return written;
            }
            _ if number == flight.number => {
                self.finish(mark, false);
                return written;
            }
            _ if mark == self.mark => return Default::default(),
            _ if number == flight.number + 1 || flight.writes.is_empty() || flight.sends == Sends::Reads => {
                self.requeue()
            }
            // Another program has touched the mark: whether the batch is done is unknown.
            _ => self.fail(&StoreError::Unknown),
        }
        self.mark = mark;
        Default::default()
    }

    pub(super) fn changed(&mut self, events: &[Event]) {
        if !matches!(self.reading, Reading::Following) {
            return;
        }
        for events in events.chunk_by(|one, other| one.revision() == other.revision()) {
            let revision = events.first().map_or(0, Event::revision);
            if revision > self.table.applied() {
                self.revision(revision, events);
            } else if planted(Rule::OneOrder) {
                self.go_back(events);
            }
        }
    }

    /// What [`Rule::OneOrder`] forbids.
    fn go_back(&self, events: &[Event]) {
        let mut changes = Changes::new();
        for kv in events.iter().filter_map(|event| event.kv.as_ref()) {
            match self.layout.read(&kv.key) {
                Of::Entry(key) => {
                    changes.push((key.into(), layout::read_value(key, kv).map(Value::to_owned)));
                }
                // It is in the table by its answer.
                Of::OwnMark => return,
                Of::Note(_) | Of::OtherMark | Of::Other => {}
            }
        }
        if !changes.is_empty() {
            put_all(&self.table.entries, &changes);
        }
    }

    /// All that was done in one revision.
    fn revision(&mut self, revision: i64, events: &[Event]) {
        let (mut changes, mut notes, mut own_mark) = (BTreeMap::new(), Vec::new(), None);
        let mut places = None;
        let mut unreadable = BTreeSet::new();
        for event in events {
            let Some(kv) = &event.kv else { continue };
            let is_put = event.r#type == EventKind::Put as i32;
            match self.layout.read(&kv.key) {
                Of::Entry(key) => {
                    let value = if is_put { layout::read_value(key, kv) } else { None };
                    if is_put && value.is_none() {
                        unreadable.insert(Key::from(key));
                    }
                    changes.insert(Key::from(key), value.map(Value::to_owned));
                }
                Of::Note(name) => notes.push((Key::from(name), is_put.then(|| kv.value.to_vec()))),
                Of::OwnMark => own_mark = Some((layout::read_mark(&kv.value).0, is_put)),
                Of::OtherMark | Of::Other => {}
            }
            if is_put && matches!(self.layout.read(&kv.key), Of::OwnMark | Of::OtherMark) {
                places = Places::read(layout::read_mark(&kv.value).1);
            }
        }
        self.say_unreadable(&unreadable);
        let number = own_mark.filter(|(_, is_put)| *is_put).map(|(number, _)| number);
        if number.is_some() && number == self.flight().map(|flight| flight.number) {
            self.finish(revision, true);
            return self.come_to(revision);
        }
        if let Some((_, is_put)) = own_mark {
            // The batch was made void, or another program has touched the mark: it can be done no more. Whatever bytes the mark
            // has now, the next batch goes where they are.
            self.mark = if is_put { revision } else { 0 };
            self.requeue_carefully();
        }
        self.table.set_applied(revision);
        for (name, note) in notes {
            match note {
                Some(note) => _ = self.notes.insert(name, note),
                None => _ = self.notes.remove(&name),
            }
        }
        if !self.unreadable.is_empty() {
            changes.keys().for_each(|key| _ = self.unreadable.remove(key));
        }
        self.said.unreadable &= !self.unreadable.is_empty() || !unreadable.is_empty();
        self.unreadable.extend(unreadable);
        self.apply_of_others(revision, changes.into_iter().collect(), places.as_ref());
        self.come_to(revision);
    }

    fn apply_of_others(&mut self, revision: i64, changes: Changes, places: Option<&Places>) {
        // Another program that deletes each key clears the store, and slaves get that for less.
        let is_clear = || {
            changes.len() > 1
                && changes.len() == self.table.entries.len()
                && changes.iter().all(|(key, value)| value.is_none() && self.table.mod_revision(key) != 0)
        };
        if places == Some(&Places::Clear) || places.is_none() && is_clear() {
            let (seq, numbers) = (self.table.clear(), vec![layout::revision(revision, 0)]);
            let cleared = Wrote { seq, changes: Changes::new(), numbers, has_ended: false };
            return self.outputs.push(Output::TellOfOther(cleared));
        }
        if changes.is_empty() {
            return;
        }
        put_all(&self.table.entries, &changes);
        let writes = places::writes(revision, changes, places).unwrap_or_else(|changes| {
            self.outputs.push(Output::Missed(layout::last_revision(revision)));
            let numbers = places::unknown(revision, changes.len());
            vec![Wrote { seq: 0, changes, numbers, has_ended: false }]
        });
        let told = writes.into_iter().map(|wrote| Wrote { seq: self.table.next_seq(), ..wrote });
        self.outputs.extend(told.map(Output::TellOfOther));
    }

    /// Such entries are of other programs, or of a newer version.
    fn say_unreadable(&mut self, keys: &BTreeSet<Key>) {
        let Some(first) = keys.first().filter(|_| !self.said.unreadable) else { return };
        self.said.unreadable = true;
        let (first, count) = (String::from_utf8_lossy(first), keys.len());
        tracing::error!(%first, count, "etcd has entries that no kvnode of this version has written: they are not shown");
    }

    /// etcd has this revision, and had `applied` before.
    pub(super) fn look_for_roll_back(&mut self, applied: i64, revision: i64) {
        if revision >= applied || matches!(self.reading, Reading::RolledBack) {
            return;
        }
        tracing::error!(
            revision,
            before = applied,
            "etcd was wiped, or restored from an older copy: its revision is lower than it was. A store of it is not written to any more, and readers see \
             what was there: start this node again, and it reads what etcd has now"
        );
        self.reading = Reading::RolledBack;
        self.outputs.push(Output::RolledBack);
    }

    /// All up to this revision is in the table.
    pub(super) fn come_to(&mut self, revision: i64) {
        self.table.set_applied(revision);
        let applied = self.table.applied();
        if matches!(self.writing, Writing::Behind(until) if until <= applied) {
            self.writing = Writing::Idle;
        }
    }
}

/// Marks of other writers that are kept: each process that has had the store leaves one.
const MARKS_MAX: usize = 64;
/// Marks that go at once at most.
const OLD_MARKS_MAX: usize = 100;

/// Which of these marks go: the oldest, where there are many. A writer that is there still finds that its mark is gone, and writes the
/// next one from there.
fn old_marks(marks: BTreeMap<i64, Bytes>) -> Vec<Bytes> {
    if marks.len() <= MARKS_MAX {
        return Vec::new();
    }
    let old = marks.len() - MARKS_MAX / 2;
    marks.into_values().take(old.min(OLD_MARKS_MAX)).collect()
}
