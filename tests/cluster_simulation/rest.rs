//! What must hold once nothing breaks any more.

use std::sync::Arc;
use std::time::Instant;

use kvnode::kv::SlaveEntry;
use kvnode::replica::{PrimaryStanding, Refusal, SlaveState, Standing, TermRole};

use super::drive;
use super::shell::Follow;
use super::world::World;

impl World {
    /// Whether nothing will change any more, as far as one can see: each slave is in step, or is rightly refused.
    pub fn is_settled(&self) -> bool {
        // One that was removed is told so, at the latest when it would be looked for again.
        let is_told = |node: usize| {
            self.life(node).follows.iter().flatten().all(|follow| follow.slave.state() != SlaveState::Dropped)
        };
        self.calls.is_empty()
            && (0..self.nodes.len()).all(is_told)
            && (0..self.stores).all(|node| self.has_removed_what_has_ended(node))
            && (0..self.nodes.len()).all(|node| {
                self.life(node).server.slaves().iter().all(|slave| match slave.standing() {
                    Standing::InStep { lag: 0 } => self.is_where_its_name_is(slave),
                    Standing::Refused(refusal) => {
                        self.target(slave).is_some_and(|target| self.is_right(node, target, slave, refusal))
                    }
                    _ => false,
                })
            })
    }

    /// Whether a store that is nobody's slave, and was none before, has no key that has ended.
    fn has_removed_what_has_ended(&self, node: usize) -> bool {
        let (life, of) = (self.life(node), &self.nodes[node]);
        let waits = of.drive.as_ref().is_some_and(drive::waits_for_primary);
        let is_next = |due: u64| due > life.posts.store_ms();
        waits || self.figures(node).is_some() || life.server.next_due().is_none_or(is_next)
    }

    /// Whether a slave that is refused has not been found since then. It may have been at another process before, and that is told
    /// once it is found.
    pub fn has_one_to_look_for(&self, since: Instant) -> bool {
        let is_one = |follow: &Follow| {
            matches!(follow.slave.standing(), Standing::Refused(_))
                && follow.found.is_none_or(|at| at < since)
        };
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.flat_map(|life| life.follows.iter().flatten()).any(|follow| is_one(follow))
    }

    fn is_right(&self, node: usize, target: usize, slave: &SlaveEntry, refusal: Refusal) -> bool {
        if self.nodes[target].is_beam {
            return refusal == Refusal::Superseded && self.lineage(node).is_orphan();
        }
        let primary = self.figures(target);
        let (own, other) = (self.lineage(node), self.lineage(target));
        let is_primary = Self::primary_of(&other) == Some(own.incarnation());
        match refusal {
            Refusal::HasPrimary => {
                primary.is_some_and(|primary| primary.state != PrimaryStanding::Gone)
                    && !is_primary
                    && own.rank() == other.rank()
            }
            // Who was promoted follows nobody of its own term; and nobody one that is below somebody unknown.
            Refusal::Superseded => {
                let is_of_other = own.rank() == other.rank() && other.path.len() == 1;
                // Of the same family it becomes a slave, unless it refuses that.
                let becomes_slave = other.family == own.family
                    && self.owner_above(target).is_some_and(|owner| !self.is_refused_by(owner, node));
                let is_higher = other.rank() > own.rank() && !becomes_slave;
                is_higher || own.is_orphan() || is_of_other
            }
            Refusal::NotEmpty => {
                let source = self.life(node).source();
                slave.machine().protects_data()
                    && source.started_empty()
                    && !self.observed[target].data.is_empty()
            }
            _ => false,
        }
    }

    /// The first primary above a node, or the node itself, if that was promoted and knows it.
    fn owner_above(&self, node: usize) -> Option<usize> {
        let mut at = node;
        while let Some(primary) = self.figures(at) {
            if primary.state == PrimaryStanding::Gone {
                return None;
            }
            at = self.node_named(&primary.node);
        }
        let lineage = self.lineage(at);
        let is_kept = |of: &drive::Drive| drive::kept(of).role == TermRole::Promoted;
        let is_owner =
            lineage.promoted == lineage.incarnation() || self.nodes[at].drive.as_ref().is_some_and(is_kept);
        (lineage.term > 0 && is_owner).then_some(at)
    }

    /// Whether another store does not become the slave of one, for a reason of its own.
    fn is_refused_by(&self, node: usize, other: usize) -> bool {
        self.life(node).server.slaves().iter().any(|slave| {
            matches!(slave.standing(), Standing::Refused(_)) && self.target(slave) == Some(other)
        })
    }

    /// Nothing breaks any more: what must hold of all.
    pub fn check_settled(&mut self) {
        let mut slaves_max = 0;
        for node in 0..self.nodes.len() {
            let mut followed = Vec::new();
            for slave in self.life(node).server.slaves() {
                let SlaveState::Following(at) = slave.state() else { continue };
                let target = self.node_of(&at);
                assert!(!followed.contains(&target), "one process is one slave");
                followed.push(target);
                slaves_max = slaves_max.max(followed.len());
                if self.nodes[target].is_beam {
                    // Stores that know nothing of each other may write to it, each behind the other.
                    let server = &self.life(target).server;
                    let is_of_one = self.is_one_tree || !server.has_other_writers(&self.nodes[node].name);
                    if is_of_one && self.is_only_primary(node, target) {
                        let (there, here) = (self.life(target).server.data(), &self.observed[node].data);
                        assert!(
                            there == **here,
                            "{slave:?} of {node} is in step, and is not: {there:?}, {}",
                            self.shown()
                        );
                        self.counts.beams += 1;
                    }
                    continue;
                }
                let (there, here) = (&self.observed[target].data, &self.observed[node].data);
                assert!(there == here, "{slave:?} of {node} is in step, and is not: {}", self.shown());
                let [there, here] = [target, node].map(|node| self.life(node).server.revisions());
                assert!(there == here, "{slave:?} of {node} has other revisions: {there:?}, not {here:?}");
                // When they do is not compared: it is counted by the clock of each node, and these are set.
                let [there, here] = [target, node].map(|node| {
                    let mut ends = self.life(node).server.ends();
                    ends.retain(|_, end| *end != 0);
                    ends.into_keys().collect::<Vec<u64>>()
                });
                assert!(there == here, "at {slave:?} of {node} {there:?} are to end, not {here:?}");
                let figures = self.figures(target).expect("it has a primary");
                assert_eq!((figures.state, figures.lag), (PrimaryStanding::Following, 0));
                assert_eq!(*figures.node, *self.nodes[node].name);
                let mut path = self.lineage(node).path;
                path.push(self.life(target).incarnation);
                assert_eq!(self.lineage(target).path, path);
                assert_eq!(self.lineage(target).rank(), self.lineage(node).rank());
                assert!(!slave.machine().may_be_stale());
            }
            // Who is followed and there says the same.
            if let Some(figures) = self.figures(node).filter(|figures| figures.state != PrimaryStanding::Gone)
            {
                let primary = self.node_named(&figures.node);
                let is_its = |slave: &Arc<SlaveEntry>| matches!(slave.state(), SlaveState::Following(at) if self.node_of(&at) == node);
                assert!(
                    self.life(primary).server.slaves().iter().any(is_its),
                    "{node} waits for {primary} in vain"
                );
            }
        }
        let depth = (0..self.nodes.len()).map(|node| self.depth(node)).max().unwrap_or(0);
        self.counts.chains += u64::from(depth >= 2);
        self.counts.several += u64::from(slaves_max >= 2);
    }

    /// The primaries above a node. No store is, over others, its own slave.
    fn depth(&self, node: usize) -> usize {
        let (mut at, mut depth) = (node, 0);
        while let Some(figures) = self.figures(at).filter(|figures| figures.state != PrimaryStanding::Gone) {
            at = self.node_named(&figures.node);
            depth += 1;
            assert!(depth < self.nodes.len(), "a cycle over {node}");
        }
        depth
    }

    /// Whether two stores were promoted apart from each other, and neither knows.
    pub fn are_two_apart(&self) -> bool {
        let is_promoted = |&node: &usize| self.nodes[node].life.is_some() && self.figures(node).is_none();
        let mut terms: Vec<u64> = (0..self.stores)
            .filter(is_promoted)
            .map(|node| self.lineage(node).term)
            .filter(|&term| term > 0)
            .collect();
        terms.sort_unstable();
        terms.windows(2).any(|pair| pair[0] == pair[1])
    }

    /// Whether a node's store follows another's.
    pub fn follows(&self, node: usize, primary: usize) -> bool {
        self.figures(node).is_some_and(|figures| *figures.node == *self.nodes[primary].name)
    }

    /// All are one tree, below the one that was promoted last, or has the highest number of those: gives that.
    pub fn check_one_tree(&self) -> usize {
        let roots = self.roots();
        let &[root] = &roots[..] else { panic!("{roots:?} have no primary: {}", self.shown()) };
        let highest = (0..self.stores).map(|node| self.lineage(node).rank()).max();
        assert_eq!(Some(self.lineage(root).rank()), highest);
        // A store that is another's slave was left to that one.
        for node in 0..self.stores {
            for slave in self.life(node).server.slaves() {
                let standing = slave.standing();
                assert!(!matches!(standing, Standing::Refused(_)), "{slave:?} of {node} is {standing:?}");
            }
        }
        root
    }

    /// The nodes whose stores have no primary that is there.
    fn roots(&self) -> Vec<usize> {
        (0..self.stores).filter(|&node| self.depth(node) == 0).collect()
    }

    /// Whether a node alone streams to another.
    fn is_only_primary(&self, node: usize, other: usize) -> bool {
        let is_its = |slave: &Arc<SlaveEntry>| matches!(slave.state(), SlaveState::Following(at) if self.node_of(&at) == other);
        (0..self.stores).all(|known| known == node || !self.life(known).server.slaves().iter().any(is_its))
    }
}
