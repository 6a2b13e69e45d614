//! What chance alone brings too seldom.

use std::time::Duration;

use kvnode::replica::Standing;

use super::drive::Drive;
use super::world::World;

/// Events within which each part of a tale has come about; else the tale ends there.
const EVENTS_MAX: usize = 400;

impl World {
    /// A chain of stores that keep what they have ends. The last is promoted before the others are back: it knows neither its former
    /// primary nor that one's primary, which comes back last and knows the store between them alone.
    pub fn lose_chain(&mut self) {
        let Some([first, middle, last]) = (0..self.stores).find_map(|last| self.chain_to(last)) else {
            return;
        };
        tracing::info!(first, middle, last, "a chain ends");
        for node in [first, middle, last] {
            self.kill(node);
        }
        self.start(last);
        let before = self.nodes[last].promoted;
        self.promote(last);
        if !self.go_on_until(|world| world.nodes[last].promoted != before) {
            return;
        }
        self.start(middle);
        if !self.go_on_until(|world| world.figures(middle).is_some()) {
            return;
        }
        self.counts.chains_lost += 1;
        self.start(first);
    }

    /// Now and then a primary is emptied whose slave has everything, and that is lost before it has said to have this too. It comes back by
    /// what its primary knows it to lack, while little is written that could cover what it has too much.
    pub fn lose_clear(&mut self, wild: bool) {
        let Some(random) = self.losing.as_mut() else { return };
        if !random.one_in(6) {
            return;
        }
        let pairs = self.filled_pairs();
        let Some(random) = self.losing.as_mut().filter(|_| !pairs.is_empty()) else { return };
        let (node, other) = random.pick(&pairs);
        let (events, writes) = (random.below(4), random.below(3));
        let (ends, comes_back) = (wild && random.one_in(4), !random.one_in(4));
        tracing::info!(node, other, "emptied, while a slave is lost");
        self.empty(node);
        while let Some(waiting) = self.nodes[node].drive.as_ref().map(Drive::waiting).filter(|all| *all > 0) {
            self.drive_on(node, waiting);
        }
        for _ in 0..events {
            self.go_on();
        }
        // Each end may have come to something else by then.
        match ends && self.is_running(other) {
            true => self.kill(other),
            false => self.break_connection(node, other),
        }
        self.counts.clears_lost += 1;
        for _ in 0..writes {
            if self.is_running(node) && self.figures(node).is_none() {
                self.write(node, None);
            }
        }
        // Before much else is written.
        if comes_back && !ends {
            let is_in_step = |world: &Self| {
                world.is_running(node) && world.slaves_in_step(node).any(|slave| slave == other)
            };
            let _ = self.go_on_until(|world| !is_in_step(world)) && self.go_on_until(is_in_step);
        }
    }

    /// The nodes of slaves that are in step with a node's store.
    fn slaves_in_step(&self, node: usize) -> impl Iterator<Item = usize> {
        self.life(node).follows.iter().flatten().filter_map(|follow| {
            let machine = follow.slave.machine();
            let is_in_step = matches!(machine.standing(), Standing::InStep { .. });
            machine.followed_at().filter(|_| is_in_step).map(|at| self.node_named(&at.node))
        })
    }

    /// Primaries, each with a slave that is a kvnode, has everything and holds something.
    fn filled_pairs(&self) -> Vec<(usize, usize)> {
        let mut pairs = Vec::new();
        for node in self.primaries() {
            for other in self.slaves_in_step(node) {
                if other < self.stores && self.is_running(other) && !self.observed[other].data.is_empty() {
                    pairs.push((node, other));
                }
            }
        }
        pairs
    }

    /// A store with its primary and the primary of that, if all keep what they have, run and reach each other.
    fn chain_to(&self, last: usize) -> Option<[usize; 3]> {
        self.nodes[last].life.as_ref()?;
        let path = self.lineage(last).path;
        let (_, tail) = path.split_last_chunk::<3>()?;
        let mut chain = [0; 3];
        for (node, incarnation) in chain.iter_mut().zip(tail) {
            *node = self.node_named(self.lives.get(incarnation)?);
            let is_there =
                self.nodes[*node].life.as_ref().is_some_and(|life| life.incarnation == *incarnation);
            if !is_there || self.nodes[*node].drive.is_none() {
                return None;
            }
        }
        let [first, middle, _] = chain;
        // A path that is old by now may have a store twice.
        let is_whole = first != last && !self.cut[last][middle] && !self.cut[middle][first];
        is_whole.then_some(chain)
    }

    fn go_on_until(&mut self, is_so: impl Fn(&Self) -> bool) -> bool {
        for _ in 0..EVENTS_MAX {
            if is_so(self) {
                return true;
            }
            if !self.go_on() {
                self.pass(Duration::from_millis(100));
            }
        }
        false
    }
}
