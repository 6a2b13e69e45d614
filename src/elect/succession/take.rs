//! How a node takes the primary's key, where it is the one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Succession;
use super::choice::{self, Count};
use super::event::Event;
use super::keys::{Base, HEIRS_MAX, Heir, Holds, Key, Record, Report, write_leader};
use crate::elect::Life;
use crate::elect::keys::FORMER_MAX;

/// A round waits so long for more reports than are needed: a more advanced one may come, with writes that were not confirmed.
pub(super) const SETTLE: Duration = Duration::from_millis(300);
/// The same where nothing is confirmed, so that none are needed.
pub(super) const SETTLE_UNCONFIRMED: Duration = Duration::from_secs(1);
/// A round waits so long for the report of the primary that is gone, where this node was without etcd too: all nodes may be back, and the primary
/// need not change.
pub(super) const SETTLE_FORMER: Duration = Duration::from_secs(1);
/// A lease that is held for less was granted when etcd came back, where this node had one before.
pub(super) const NEW_LEASE: Duration = Duration::from_secs(2);
/// A round that may lose something waits so long for enough reports.
pub(super) const LOSSY_AFTER: Duration = Duration::from_secs(5);
/// People are told of what a round waits for after this.
pub(super) const SAY_AFTER: Duration = Duration::from_secs(2);
/// A store without data waits so long to be the first primary: one with data may be there.
pub(super) const FOUND_AFTER: Duration = Duration::from_secs(2);

/// Whether a node is to be the next primary.
enum Chosen {
    /// Another is, or it is too early.
    No,
    /// More reports are needed.
    Waits,
    /// It has each confirmed write.
    Surely,
    /// All have nothing.
    Anew,
    /// Something may be lost.
    Lossy,
}

impl Succession {
    /// Takes the key, where this node is to be the next primary.
    pub(super) fn take(&mut self, lease: i64, now: Instant) -> bool {
        if self.is_forced() && self.take_over(lease) {
            return true;
        }
        let (Some(known), Some(round)) = (&self.known, &self.round) else { return false };
        let Some((holds, term)) = round.sealed.filter(|_| self.unfit_until.is_none()) else { return false };
        let waited = now.duration_since(round.began);
        let (record, event) = match &known.record.record {
            None => {
                let founds = match holds {
                    // The keys are gone from under a primary, which goes on.
                    Holds::Own { fence } => self.config.founds || fence > 0 && fence == self.has_led,
                    Holds::Nothing => self.config.founds && waited >= FOUND_AFTER,
                    // Its primary is somewhere.
                    Holds::Copy { .. } | Holds::Other => false,
                };
                if !(founds || self.is_forced()) {
                    self.say_once(waited, Event::NoRecord);
                    return false;
                }
                (self.record_anew(None, term), None)
            }
            Some(record) => {
                let count = choice::count(record, known);
                match self.is_chosen(record, holds, &count, waited) {
                    Chosen::No => return false,
                    Chosen::Waits => {
                        self.say_waits(&count, waited);
                        return false;
                    }
                    Chosen::Surely => (self.record_next(record, term), None),
                    Chosen::Anew => (self.record_anew(Some(record), term), Some(Event::BeginsAnew)),
                    Chosen::Lossy => {
                        let Count { counted, needed, .. } = count;
                        (self.record_anew(Some(record), term), Some(Event::MayHaveLost { counted, needed }))
                    }
                }
            }
        };
        let compare = vec![(Key::Leader, 0), (Key::Record, known.record.mod_revision)];
        self.write_both(compare, &record, event, lease);
        true
    }

    /// Takes the key of another: a person wants that, whatever is lost.
    fn take_over(&mut self, lease: i64) -> bool {
        let Some(known) = &self.known else { return false };
        let (Some(key), Some(record)) = (&known.leader, &known.record.record) else { return false };
        let compare = vec![(Key::Leader, key.mod_revision), (Key::Record, known.record.mod_revision)];
        let count = choice::count(record, known);
        let event = Event::MayHaveLost { counted: 0, needed: count.needed };
        let record = self.record_anew(Some(record), self.floor);
        self.write_both(compare, &record, Some(event), lease);
        true
    }

    fn write_both(&mut self, compare: Vec<(Key, i64)>, record: &Record, event: Option<Event>, lease: i64) {
        let puts = vec![
            // First, as the watch tells in this order.
            (Key::Leader, write_leader(&self.config.me, record.fence), lease),
            (Key::Record, record.write(), 0),
        ];
        self.manner = event.map(|event| (record.fence, event));
        self.begin(compare, puts, Vec::new());
    }

    fn is_chosen(&self, record: &Record, holds: Holds, count: &Count, waited: Duration) -> Chosen {
        if holds == (Holds::Own { fence: record.fence }) {
            return Chosen::Surely;
        }
        // The report of an earlier process of this node may be there still.
        let has_reported = self.own_report().is_some_and(|own| own.sealed == Some((record.fence, holds)));
        let is_me = |node: &Option<Arc<str>>| has_reported && node.as_ref() == Some(&self.config.me.node);
        let awaits_former =
            self.round.as_ref().is_some_and(|round| round.is_after_outage) && !count.is_former_known;
        let settle = if record.base.confirm == 0 {
            SETTLE_UNCONFIRMED
        } else if awaits_former {
            SETTLE_FORMER
        } else {
            SETTLE
        };
        let is_settled = waited >= settle || record.base.confirm > 0 && count.are_all_here && !awaits_former;
        let needed = if record.base.confirm == 0 { 1 } else { count.needed };
        if count.best.is_some() && (count.is_complete || count.counted >= needed || record.base.confirm == 0)
        {
            return match is_me(&count.best) {
                true if is_settled => Chosen::Surely,
                false if self.is_forced() => Chosen::Lossy,
                _ => Chosen::No,
            };
        }
        if self.is_forced() {
            return Chosen::Lossy;
        }
        if count.anew.is_some() {
            return if is_settled && is_me(&count.anew) { Chosen::Anew } else { Chosen::No };
        }
        if self.config.is_lossy && waited >= LOSSY_AFTER && is_me(&count.lossy) {
            return Chosen::Lossy;
        }
        Chosen::Waits
    }

    /// What etcd has of this process, as far as is known.
    fn own_report(&self) -> Option<&Report> {
        let key = self.known.as_ref()?.reports.get(&self.config.me.node)?;
        Some(&key.report).filter(|report| report.pid == self.config.me)
    }

    fn say_waits(&mut self, count: &Count, waited: Duration) {
        let Count { counted, needed, ref missing, .. } = *count;
        self.say_once(waited, Event::Waits { counted, needed, missing: missing.clone() });
    }

    /// Has people told what a round waits for, once it has waited for long.
    fn say_once(&mut self, waited: Duration, event: Event) {
        if let Some(round) = self.round.as_mut().filter(|round| waited >= SAY_AFTER && !round.is_said) {
            round.is_said = true;
            self.log(event);
        }
    }

    /// The record of this node as the next primary, which has all that was confirmed.
    fn record_next(&self, record: &Record, term: u64) -> Record {
        let node = Arc::clone(&self.config.me.node);
        let fence = record.fence.max(term).saturating_add(1);
        let mut heirs = record.heirs.clone();
        heirs.push(Heir { fence, node: Arc::clone(&node) });
        heirs.drain(..heirs.len().saturating_sub(HEIRS_MAX));
        let former = self.former(Some(record));
        Record { fence, node, base: record.base.clone(), heirs, former }
    }

    /// The same where nothing that was is to be kept.
    fn record_anew(&self, record: Option<&Record>, term: u64) -> Record {
        let node = Arc::clone(&self.config.me.node);
        let fence = record.map_or(0, |record| record.fence).max(term).saturating_add(1);
        let confirm = self.config.confirm;
        let base = Base { fence, confirm, node: Arc::clone(&node), end: None, members: Vec::new() };
        Record { fence, node, base, heirs: Vec::new(), former: self.former(record) }
    }

    fn former(&self, record: Option<&Record>) -> Vec<Life> {
        let me = Life::of(&self.config.me);
        let others = record.iter().flat_map(|record| &record.former).filter(|life| **life != me).cloned();
        std::iter::once(me.clone()).chain(others).take(FORMER_MAX).collect()
    }
}
