//! A node of the simulation: its store, the product's own part of it as a slave and as a primary, and its succession.

use super::world::Message;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::elect::succession::{Slave, Succession};
use crate::etf::{Pid, Traits};
use crate::replica::downstream::{Chance, Downstream, Input as DownInput, Search};
use crate::replica::{Lineage, Membership, Present, PresentValue, SlaveName, Source, SourceRead, Upstream};

/// The keys of a store, each with the number of the write that put it.
pub(super) type Data = BTreeMap<Box<[u8]>, u64>;

/// The lease as the shell keeps it, by the node's own clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    pub(super) id: i64,
    pub(super) until: Instant,
    pub(super) renew_at: Instant,
}

/// A caller's write that is not answered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) write: u64,
    pub(super) seq: u64,
}

pub(super) struct Down {
    /// No other slave of this life has it.
    pub(super) number: u64,
    pub(super) node: usize,
    pub(super) machine: Downstream,
    /// The process that is watched, and the question.
    pub(super) watched: Option<(Pid, u64)>,
}

pub(super) struct Node {
    pub(super) me: Pid,
    pub(super) incarnation: u64,
    pub(super) is_on_disk: bool,
    pub(super) is_alive: bool,
    pub(super) is_stopped: bool,
    pub(super) is_cut_off_etcd: bool,
    /// Its clock's seconds in so many millionths of a second more or less.
    pub(super) drift: i64,
    pub(super) succession: Succession,
    pub(super) upstream: Upstream,
    pub(super) data: Data,
    pub(super) aside: Data,
    /// A copy is put aside, or comes into the store itself.
    pub(super) puts_aside: bool,
    /// The copies that have brought the keys, where these have come into the store itself.
    pub(super) brought: BTreeMap<Box<[u8]>, u32>,
    pub(super) seq: u64,
    /// When it has lost data last.
    pub(super) lost_at: Option<Instant>,
    /// What is kept of the store.
    pub(super) membership: Membership,
    pub(super) downs: Vec<Down>,
    pub(super) added: u64,
    pub(super) waiting: VecDeque<Waiting>,
    pub(super) counting: Vec<Arc<str>>,
    pub(super) told: Option<(u64, Vec<Slave>)>,
    pub(super) lease: Option<Kept>,
    pub(super) dialled: Option<(u64, usize)>,
    /// Primaries that the store watches.
    pub(super) watches: Vec<Pid>,
    /// So much of etcd's history was sent to it; `None`: it has not read the keys.
    pub(super) watching: Option<usize>,
    pub(super) watch_at: Instant,
    /// What came while it was stopped.
    pub(super) inbox: Vec<Message>,
}

impl Node {
    /// What it says of its slaves.
    pub(super) fn slaves(&self, name: impl Fn(usize) -> Arc<str>) -> Vec<Slave> {
        let slave = |down: &Down| {
            let confirmed = down.machine.confirmed();
            let is_in_step = down.machine.is_whole();
            Slave { node: name(down.node), confirmed, is_in_step }
        };
        self.downs.iter().map(slave).collect()
    }

    pub(super) fn add(&mut self, node: usize, name: &str, now: Instant, pause: u64) -> Option<usize> {
        if self.downs.iter().any(|down| down.node == node && !down.machine.is_over()) {
            return None;
        }
        self.downs.retain(|down| down.node != node);
        self.added += 1;
        let mut machine = Downstream::new(SlaveName::remote("kv", name), self.added, 4_000);
        machine.handle(
            DownInput::Begin(Search {
                pause_first: Duration::from_millis(100),
                pause_max: Duration::from_secs(1),
                is_awaited: false,
                chance: Chance(Box::new(move |below| (pause % u64::from(below.max(1))) as u32)),
            }),
            now,
        );
        self.downs.push(Down { number: self.added, node, machine, watched: None });
        Some(self.downs.len() - 1)
    }
}

/// What a repair reads.
pub(super) struct Read<'a> {
    pub(super) data: &'a Data,
    pub(super) seq: u64,
    pub(super) lineage: Lineage,
}

impl Source for Read<'_> {
    fn parts(&self) -> usize {
        1
    }

    fn keys(&self, _part: usize, _since: u64, show: &mut dyn FnMut(&[u8])) -> SourceRead {
        self.data.keys().for_each(|key| show(key));
        SourceRead::Shown
    }

    fn read(&self, key: &[u8], show: &mut dyn FnMut(PresentValue<'_>)) -> SourceRead {
        show(self.data.get(key).map(|revision| Present {
            value: key,
            traits: Traits::none(),
            revision: *revision,
            deadline: 0,
        }));
        SourceRead::Shown
    }

    fn in_order(&self, run: &mut dyn FnMut()) {
        run();
    }

    fn seq(&self) -> u64 {
        self.seq
    }

    fn lineage(&self) -> Lineage {
        self.lineage.clone()
    }

    fn len(&self) -> usize {
        self.data.len()
    }
}
