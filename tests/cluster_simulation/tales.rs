//! What chance alone brings too seldom.

use std::time::Duration;

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
