//! Replication of a whole cluster on a virtual clock: several nodes with the product's own server on each, chains and stars of
//! slaves, Elixir servers among these, also with keys that nobody knows of, names in `global` that are lost and move, promotions,
//! confirmed writes, stores that answer late, fail or have no room, and a network that delays, loses and splits; nodes that are
//! killed and come back, with their data or without; callers that put, delete, transact, count, empty stores and say when keys end, and
//! watchers.
//!
//! Real are the server with its slaves and its part as a slave (`kv`), what says when a slave is looked for, greeted and repaired
//! (`replica`), and the delivery of signals (`process`, `distribution`: each message is a frame). Virtual are what carries that out
//! (`shell.rs`), connections, names, time and callers.
//!
//! Each run is made of its seed alone, and a failure prints it. `KVNODE_SIMULATION_SEEDS` is how many are run (or
//! `KVNODE_SIMULATION_SECONDS` how long), `KVNODE_SIMULATION_FIRST` the first of them; with `KVNODE_SIMULATION_LOG` what happens
//! is written to stderr. `scripts/simulate` runs fresh ones.
//!
//! With the feature `planted` each rule of replication is broken once, which has to be noticed (`faults.rs`); only then is a
//! window full after a few writes.

#[path = "cluster_simulation/beam.rs"]
mod beam;
#[path = "cluster_simulation/checks.rs"]
mod checks;
#[path = "cluster_simulation/clients.rs"]
mod clients;
#[path = "support/deferred.rs"]
mod deferred;
#[path = "cluster_simulation/drive.rs"]
mod drive;
#[path = "support/dropped.rs"]
mod dropped;
#[path = "cluster_simulation/edits.rs"]
mod edits;
#[cfg(feature = "planted")]
#[path = "cluster_simulation/faults.rs"]
mod faults;
#[path = "cluster_simulation/in_turn.rs"]
mod in_turn;
#[path = "cluster_simulation/many.rs"]
mod many;
#[path = "cluster_simulation/names.rs"]
mod names;
#[path = "cluster_simulation/network.rs"]
mod network;
#[path = "cluster_simulation/node.rs"]
mod node;
#[path = "cluster_simulation/random.rs"]
mod random;
#[path = "cluster_simulation/rest.rs"]
mod rest;
#[path = "cluster_simulation/shelf.rs"]
mod shelf;
#[path = "cluster_simulation/shell.rs"]
mod shell;
#[path = "cluster_simulation/tales.rs"]
mod tales;
#[path = "cluster_simulation/watches.rs"]
mod watches;
#[path = "cluster_simulation/world.rs"]
mod world;

use std::time::{Duration, Instant};

use clients::KEYS;
use deferred::Manner;
use drive::Drive;
use many::{Ran, Until, print, run_all};
use node::VirtualNode;
use random::Random;
use shelf::Memory;
use world::{Counts, World};

/// Seeds that are run where nobody says otherwise.
const SEEDS: u64 = 3_000;
/// Steps between two times at which all comes to rest.
const STEPS: usize = 500;

impl World {
    fn restless_step(&mut self, one: usize, other: usize) {
        match self.random.below(7) {
            0 if self.nodes[one].life.is_some() => self.move_name(one),
            5 => {
                if self.random.one_in(2) {
                    self.lose_chain();
                }
            }
            1 => self.slow_down(one, other),
            2 => self.heal(one, other),
            3 => {
                if let Some(node) = self.some_running() {
                    self.add_slave(node, other);
                    if self.nodes[other].life.is_some() && !self.nodes[other].is_beam {
                        self.add_slave(other, node);
                    }
                }
            }
            4 => {
                if let Some(node) = self.some_primary() {
                    self.write(node, Some(2));
                }
            }
            _ => self.pass(Duration::from_millis(700)),
        }
    }

    /// A store begins to fail, or does so no more: one in memory has little room, or none.
    fn fail(&mut self, node: usize) {
        let fails = !self.nodes[node].fails;
        self.nodes[node].fails = fails;
        if self.nodes[node].drive.is_some() {
            self.counts.failing += u64::from(fails);
        } else if !self.nodes[node].is_beam {
            let pairs = self.random.below(2 * KEYS);
            self.nodes[node].memory.leave(fails.then_some(pairs * Memory::PAIR_BYTES));
            self.nodes[node].was_full |= fails;
            self.counts.crowded += u64::from(fails);
        }
    }

    /// A slave is lost while writes of its primary are under way, and found again: where `wild` perhaps by another of its names, while a
    /// write waits for one slave more than there are.
    fn lose_slave(&mut self, wild: bool) {
        let Some(node) = self.some_primary() else { return };
        let followed = self.followed_by(node);
        if followed.is_empty() {
            return;
        }
        let other = self.random.pick(&followed);
        self.write(node, Some(followed.len() as u64 + 1));
        for _ in 0..self.random.below(24) {
            self.go_on();
        }
        self.break_connection(node, other);
        for _ in 0..self.random.below(6) {
            if self.figures(node).is_none() {
                self.write(node, None);
            }
        }
        if wild && !self.random.one_in(4) {
            self.add_by_another_name(node, other);
        }
    }

    /// The same in some worlds, more often than chance has it.
    fn lose_more(&mut self, wild: bool) {
        if self.losing.as_mut().is_some_and(|random| random.one_in(25)) {
            self.lose_slave(wild);
        }
    }

    /// `wild`: nodes are killed, and slaves added and removed. `root`: only its slaves are promoted.
    fn step(&mut self, wild: bool, root: Option<usize>) {
        let nodes = self.nodes.len();
        let (one, other) = (self.random.index(nodes), self.random.index(nodes));
        self.watch_some();
        self.clear_some();
        self.lose_clear(wild);
        self.lose_more(wild);
        self.edit_some();
        if self.is_restless && self.random.one_in(12) {
            return self.restless_step(one, other);
        }
        match self.random.below(1_000) {
            0..3 if wild => {
                if self.nodes[one].life.is_some() {
                    self.kill(one);
                }
            }
            3..12 if wild => self.start_some(),
            12..18 if self.random.one_in(2) => self.slow_down(one, other),
            12..18 => self.cut(one, other),
            18..36 => self.heal(one, other),
            36..42 if wild => {
                if let Some(node) = self.some_running() {
                    self.add_slave(node, other);
                    let is_store = self.nodes[other].life.is_some() && !self.nodes[other].is_beam;
                    if is_store && self.random.one_in(3) {
                        self.add_slave(other, node);
                    }
                    if self.random.one_in(3) {
                        self.add_slave(node, other);
                    }
                }
            }
            42..45 if wild => {
                if let Some(node) = self.some_running()
                    && let Some(slave) = self.life(node).server.slaves().first()
                {
                    let name = slave.name().clone();
                    self.remove_slave(node, &name);
                }
            }
            45..48 => self.fail(one),
            48..50 | 203..209 if wild => {
                if self.nodes[one].life.is_some() {
                    self.move_name(one);
                }
            }
            200..201 => {
                // Set by hand, or a machine that has slept.
                self.counts.jumps += 1;
                let hours = 1 + self.random.below(48);
                match self.random.below(3) {
                    0 => self.set_clock(self.unix_ms - hours * 3_600_000),
                    1 => self.set_clock(self.unix_ms + hours * 3_600_000),
                    _ => self.pass(Duration::from_secs(hours * 3_600)),
                }
            }
            50..54 => {
                if let Some(node) = self.some_running()
                    && root.is_none_or(|root| self.follows(node, root))
                {
                    self.promote(node);
                    if wild && self.random.one_in(3) {
                        self.kill(node);
                    }
                }
            }
            54..140 => {
                if let Some(node) = self.some_primary() {
                    self.write(node, None);
                }
            }
            140..160 => {
                if let Some(node) = self.some_primary() {
                    let want = 1 + self.random.below(3);
                    self.write(node, Some(want));
                }
            }
            160..162 => {
                // A slave that does not keep up.
                if let Some(node) = self.some_primary() {
                    (0..self.random.below(60)).for_each(|_| self.write(node, None));
                }
            }
            209..221 => self.lose_slave(wild),
            162..200 => {
                let time = Duration::from_millis(self.random.below(60));
                self.pass(time);
            }
            201..203 => {
                let time = Duration::from_millis(self.random.below(8_000));
                self.pass(time);
            }
            _ => {
                if !self.go_on() {
                    let time = Duration::from_millis(self.random.below(100));
                    self.pass(time);
                }
            }
        }
    }
}

/// Runs a seed, and adds what was seen to the counts. Gives what tells the end of this run from that of another: the next
/// number, and how many writes there were.
fn run(seed: u64, start: Instant, counts: &mut Counts) -> (u64, u64) {
    let mut random = Random::new(seed);
    let len = 3 + random.index(3);
    let buffer_bytes_max = random.pick(&[300, 2_000, 1 << 20]);
    let mut nodes: Vec<VirtualNode> = (0..len).map(|node| VirtualNode::new(node, buffer_bytes_max)).collect();
    let beams = random.index(2);
    // A tree: a star, a chain, or what comes.
    let shape = random.below(3);
    let mut added = Vec::new();
    for node in 1..len {
        let primary = match shape {
            0 => 0,
            1 => node - 1,
            _ => random.index(node),
        };
        if random.one_in(2) {
            let name = nodes[node].store_name();
            nodes[primary].configured.push(name);
        } else {
            added.push((primary, node));
        }
    }
    for node in &mut nodes {
        let fails_one_in = random.pick(&[0, 20, 4]);
        let manner = Manner {
            in_order: random.one_in(4),
            newest_first: random.one_in(2),
            reads_at_once: random.one_in(2),
            fails_one_in,
            ..Manner::wild(random.below(1 << 32))
        };
        node.is_lazy = random.one_in(2);
        node.ahead_ms = random.below(7_200_000) as i64 - 3_600_000;
        node.drive = random.one_in(2).then(|| Drive::new(manner));
    }
    for beam in len..len + beams {
        let primary = if shape == 0 { 0 } else { random.index(len) };
        let mut node = VirtualNode::new(beam, buffer_bytes_max);
        node.is_beam = true;
        nodes[primary].configured.push(node.store_name());
        nodes.push(node);
    }
    let (wild, restless) = (random.one_in(2), random.one_in(2));
    let mut world = World::new(nodes, random, *counts, start);
    for (primary, slave) in added {
        world.add_named(primary, slave);
    }
    // A store that is promoted takes over its primary and that one's slaves. So where all are slaves of one, and only these
    // are promoted, all are one tree again, however many were promoted apart from each other.
    let one_tree = !wild && shape == 0;
    world.is_one_tree = one_tree;
    world.is_restless = wild && restless;
    world.has_ends = world.random.one_in(3);
    let mut watching = Random::new(!seed);
    world.watching = watching.one_in(3).then_some(watching);
    let mut clearing = Random::new(seed.rotate_left(32) ^ 0xC1EA);
    world.clearing = clearing.one_in(3).then_some(clearing);
    let mut losing = Random::new(seed.rotate_left(16) ^ 0x105E);
    world.losing = losing.one_in(3).then_some(losing);
    let mut editing = Random::new(seed.rotate_left(48) ^ 0xED17);
    if editing.one_in(3) {
        world.begin_edits(editing);
    }
    if one_tree {
        world.settle();
    }
    for _ in 0..2 {
        let root = one_tree.then(|| world.check_one_tree());
        for _ in 0..STEPS {
            world.step(wild, root);
        }
        for node in 0..len {
            if world.nodes[node].life.is_some() {
                world.count_standings(node);
            }
        }
        world.counts.apart += u64::from(world.are_two_apart());
        world.settle();
        if one_tree {
            world.check_one_tree();
        }
    }
    *counts = world.counts;
    (world.random.below(u64::from(u32::MAX)), world.writes)
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

#[test]
fn whatever_happens_each_tree_of_stores_holds_the_same_in_the_end() {
    #[expect(clippy::disallowed_methods, reason = "some instant to begin with; the clock is virtual")]
    let start = Instant::now();
    let first = from_environment("KVNODE_SIMULATION_FIRST", 0);
    let seconds = from_environment("KVNODE_SIMULATION_SECONDS", 0);
    let until = match seconds {
        0 => Until::Seeds(from_environment("KVNODE_SIMULATION_SEEDS", SEEDS)),
        seconds => Until::Over(Duration::from_secs(seconds)),
    };
    if std::env::var_os("KVNODE_SIMULATION_LOG").is_some() {
        let log =
            tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::stderr);
        log.without_time().with_ansi(false).init();
    }
    let Ran { counts, seeds, took } = run_all(first, &until, start);
    let millis = took.as_secs_f64() * 1e3 / seeds as f64;
    print(&format!("{seeds} seeds from {first} on, {millis:.2} ms of a core each"));
    print(&format!("{counts:?}"));
    if seeds >= 1_000 {
        counts.check();
    }
}
