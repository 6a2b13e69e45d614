//! Those who watch stores: what each is told adds up to what its store holds, whatever becomes of that.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use kvnode::distribution::control::ControlMessage;
use kvnode::distribution::{DistributionFlags, Outbound};
use kvnode::etf::{Cursor, TermView};
use kvnode::process::{FedNode, Feed, Feeding, More};

use super::clients::Asked;
use super::edits::Groups;
use super::node::frames_of;
use super::shelf::Data;
use super::world::World;

/// A watch of a store, in a life of that.
pub struct Watched {
    words: Vec<u32>,
    /// The number of the last event.
    seq: u64,
    /// What it makes of all that it was told.
    data: Data,
    /// It has been shown all that was there.
    is_current: bool,
    /// What the store's changes were when both were compared last.
    compared: Option<u64>,
    /// The number of the first call that came behind all that it was shown first.
    since: u32,
    /// The last events, each a number, a key and what that has then.
    last: VecDeque<(u64, u64, Option<u64>)>,
    /// The rest of a write of several keys, which is to come next.
    rest: VecDeque<(u64, Option<Option<u64>>)>,
    /// The calls of those that have come.
    told: BTreeSet<u32>,
}

/// More keys than a write of several has.
const LAST_MAX: usize = 8;

impl World {
    /// Watches a store now and then, unless that is watched; perhaps to be shown first what is there.
    pub fn watch_some(&mut self) {
        let running: Vec<usize> = (0..self.stores).filter(|&node| self.is_running(node)).collect();
        let Some(random) = self.watching.as_mut().filter(|_| !running.is_empty()) else { return };
        let (is_time, node, initial) = (random.one_in(10), random.pick(&running), random.one_in(2));
        if !is_time || self.life(node).watched.is_some() {
            return;
        }
        self.call(node, Asked::Watch { initial }, |w| {
            w.tuple(2).atom("watch");
            match initial {
                true => _ = w.list(1).tuple(2).atom("initial").atom("true").nil(),
                false => _ = w.nil(),
            }
        });
    }

    /// A watch has begun.
    pub fn watches(&mut self, node: usize, initial: bool, reply: TermView<'_>) {
        let [ok, reference, seq] = reply.as_tuple::<3>().expect("{:ok, ref, seq}");
        assert!(ok.is_atom("ok"), "{reply:?}");
        let words = reference.as_reference().expect("a reference").words().to_vec();
        let data = if initial { Data::new() } else { self.life(node).server.data() };
        let seq = seq.as_unsigned().expect("a number");
        self.counts.watches += 1;
        self.life_mut(node).watched = Some(Watched {
            words,
            seq,
            data,
            is_current: !initial,
            compared: None,
            since: self.next_call,
            last: VecDeque::new(),
            rest: VecDeque::new(),
            told: BTreeSet::new(),
        });
    }

    /// Asks a feed for all that it has for those who watch.
    pub fn feed_watcher(&mut self, node: usize, to: &Arc<str>, feed: &Arc<dyn Feed>) {
        loop {
            let room = self.watching.as_mut().map_or(1, |random| 1 + random.below(400));
            let frames_bytes_max = room as usize;
            let (now, life, mut frames) = (self.now, self.life(node), Outbound::default());
            let fed = FedNode { name: to, flags: DistributionFlags::OFFERED, frames_bytes_max, now };
            let more = feed.feed(&mut Feeding::new(fed, &mut frames, &life.registry, &life.waiters));
            for frame in frames_of(&mut frames) {
                let mut cursor = Cursor::new(&frame);
                match ControlMessage::parse(&mut cursor).expect("a control message") {
                    ControlMessage::DemonitorP { .. } => {}
                    ControlMessage::Send { .. } => {
                        self.told(node, TermView::parse(&cursor.rest()[1..]).expect("a term"));
                    }
                    other => panic!("{other:?}"),
                }
            }
            if more == More::No {
                return;
            }
        }
    }

    fn told(&mut self, node: usize, message: TermView<'_>) {
        let [kvnode, reference, event] = message.as_tuple::<3>().expect("{:kvnode, ref, event}");
        assert!(kvnode.is_atom("kvnode"), "{message:?}");
        let overruns = event.is_atom("overrun");
        self.counts.overruns += u64::from(overruns);
        self.counts.events += 1;
        let watched = &mut self.life_mut(node).watched;
        let Some(known) = watched.as_ref() else { panic!("nobody watches {node}: {message:?}") };
        assert_eq!(reference.as_reference().expect("a reference").words(), known.words, "at {node}");
        if overruns {
            *watched = None;
            return;
        }
        let groups = std::mem::take(&mut self.groups);
        let (calls, incarnation) = (self.next_call, self.life(node).incarnation);
        let known = self.life_mut(node).watched.as_mut().expect("it was there");
        let was_current = known.is_current;
        let is_whole = known.told(node, event, incarnation, &groups);
        if known.is_current && !was_current {
            known.since = calls;
        }
        self.groups = groups;
        self.counts.whole += u64::from(is_whole);
    }

    /// What a watcher was told is what the store holds.
    pub fn check_watched(&mut self, node: usize) {
        let life = self.life_mut(node);
        let Some(watched) = &mut life.watched else { return };
        let changes = Some(life.server.changes());
        if !watched.is_current || watched.compared == changes {
            return;
        }
        watched.compared = changes;
        assert!(
            watched.rest.is_empty(),
            "a watcher of {node} was told a half: {:?} is to come",
            watched.rest
        );
        let mut data = life.server.data();
        let (held, seq) = (watched.data.clone(), watched.seq);
        // What has ended is not shown, and stays until its primary says so.
        data.retain(|key, value| held.contains_key(key) || !self.ending.may_end(*key, *value));
        assert_eq!(held, data, "at {node}, of which a watcher was told what is first, up to {seq}");
    }
}

impl Watched {
    /// An event of a store in this life. Gives whether a write of several keys has come to its end.
    fn told(&mut self, node: usize, event: TermView<'_>, incarnation: u64, groups: &Groups) -> bool {
        let number = |term: TermView<'_>| term.as_unsigned().expect("a number");
        if let Some([seq, _]) = event.as_tuple::<2>().filter(|[_, word]| word.is_atom("clear")) {
            let seq = number(seq);
            assert!(self.is_current && seq > self.seq, "at {event:?} behind {}", self.seq);
            assert!(self.rest.is_empty(), "{event:?}, and {:?} is to come before", self.rest);
            self.seq = seq;
            self.data.clear();
            return false;
        }
        if let Some([seq, current]) = event.as_tuple::<2>() {
            assert!(current.is_atom("current") && !self.is_current, "{event:?}");
            assert_eq!(number(seq), self.seq, "what was there is shown as it was when the watch began");
            self.is_current = true;
            return false;
        }
        let (seq, change) = match (event.as_tuple::<3>(), event.as_tuple::<4>()) {
            (Some([seq, _, key]), _) => (number(seq), (number(key), None)),
            (_, Some([seq, _, key, value])) => (number(seq), (number(key), Some(number(value)))),
            _ => panic!("{event:?}"),
        };
        if self.is_current {
            assert!(seq > self.seq, "at {node}: {event:?} behind {}", self.seq);
            self.seq = seq;
        }
        let (key, value) = change;
        match value {
            Some(value) => _ = self.data.insert(key, value),
            None => _ = self.data.remove(&key),
        }
        self.is_current && self.in_a_row(node, (seq, key, value), incarnation, groups)
    }

    /// What a write of several keys has changed comes in the order of these, with numbers that follow one another, and nothing comes
    /// between. Gives whether all of one has come.
    fn in_a_row(
        &mut self,
        node: usize,
        event: (u64, u64, Option<u64>),
        incarnation: u64,
        groups: &Groups,
    ) -> bool {
        let (seq, key, value) = event;
        let is_part = |&(of, known): &(u64, Option<Option<u64>>), key: u64, value: Option<u64>| {
            of == key && known.is_none_or(|known| known == value)
        };
        let before = self.last.back().map(|(seq, ..)| *seq);
        self.last.push_back(event);
        if self.last.len() > LAST_MAX {
            self.last.pop_front();
        }
        if let Some(next) = self.rest.pop_front() {
            let is_next = is_part(&next, key, value) && before == Some(seq - 1);
            assert!(is_next, "a watcher of {node} is told {event:?}, and {next:?} is next: {:?}", self.last);
            return self.rest.is_empty();
        }
        // One that was asked for later than all that was shown first, and here: its value comes by the write alone.
        let group = value.and_then(|value| groups.get(&value));
        let Some(group) = group.filter(|group| group.incarnation == incarnation && group.call >= self.since)
        else {
            return false;
        };
        let Some(at) = group.parts.iter().position(|part| part.1 == Some(value) && part.0 == key) else {
            return false;
        };
        // A value that is there is written again where it gets another end.
        if group.parts[..at].iter().any(|(_, known)| known.flatten().is_some())
            || self.has_been_told(group.call)
        {
            return false;
        }
        let earlier = self.last.len() - 1 - at.min(self.last.len() - 1);
        let told: Vec<_> = self.last.range(earlier..).copied().collect();
        let is_in_a_row = told.len() == at + 1
            && told.iter().zip(&group.parts).all(|(told, part)| is_part(part, told.1, told.2))
            && told.windows(2).all(|two| two[0].0 + 1 == two[1].0);
        assert!(is_in_a_row, "a watcher of {node} is told {told:?}, a part of {:?}", group.parts);
        self.rest = group.parts[at + 1..].iter().copied().collect();
        self.rest.is_empty()
    }

    /// Notes that a write of several keys has come, if that has not been so.
    fn has_been_told(&mut self, call: u32) -> bool {
        !self.told.insert(call)
    }
}
