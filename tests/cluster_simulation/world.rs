//! All virtual nodes, the network between them, and what happens to them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kvnode::process::{Effect, WakeRequest};
use kvnode::replica::Refusal;
use parking_lot::Mutex;

use super::checks::{Confirmed, History, Observed};
use super::clients::{Call, KEYS};
use super::drive::Drive;
use super::edits::{Ending, Groups};
use super::names::GlobalName;
use super::network::{End, Item};
use super::node::{CLIENT, Clock, Life, UNIX_MS, VirtualNode, Wake, frames_of};
use super::random::Random;
use super::shell::Follow;

/// How long a write waits for slaves: in a run one of these.
const CONFIRM_TIMEOUTS: [Duration; 2] = [Duration::from_millis(400), Duration::from_secs(20)];
/// A window that is full after a few writes, for some runs.
fn plant_window(random: &mut Random) -> usize {
    let bytes = random.pick(&[600, 4 << 20]);
    #[cfg(feature = "planted")]
    kvnode::replica::planted::plant_window_bytes(Some(bytes));
    if cfg!(feature = "planted") { bytes } else { 4 << 20 }
}

/// Events until all is as it should be, once nothing breaks any more.
const SETTLE_EVENTS_MAX: usize = 60_000;

/// Tries to find something that can happen, before all is looked at.
const TRIES: usize = 24;
/// Kinds of events that a node has one of at most.
const KINDS: usize = 4;

/// Counts by name.
macro_rules! counts {
    ($($name:ident: $doc:literal,)*) => {
        /// How often each was seen: a simulation that never gets there shows nothing.
        #[derive(Clone, Copy, Debug, Default)]
        pub struct Counts {
            $(#[doc = $doc] pub $name: u64,)*
        }

        impl Counts {
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// All were seen, in many runs.
            pub fn check(&self) {
                $(assert!(self.$name > 10, "{}: {self:?}", stringify!($name));)*
            }
        }
    };
}

counts! {
    in_step: "Slaves in step, before all comes to rest.",
    gone_partial: "Slaves that are gone, and miss some keys.",
    gone_full: "Slaves that are gone, and miss all.",
    behind: "Slaves that did not keep up.",
    idle: "Times that a slave in step, to which nothing was under way, was looked at.",
    copying: "Copies that began.",
    copies: "Copies that took the place of what was there.",
    chains: "Times of rest at which a slave had a slave.",
    several: "Times of rest at which a store had two slaves.",
    promotions: "Promotions.",
    apart: "Stores that were promoted apart from each other.",
    demotions: "Stores that became slaves as another was promoted.",
    reported: "What they dropped was kept elsewhere.",
    renewed: "Slaves that were greeted anew.",
    crossing: "Greetings that were put off.",
    unanswered: "Greetings that were not answered in time.",
    byes: "Slaves that were told that they are none.",
    itself: "Stores that were to be their own slaves.",
    cycle: "Refusals: it is a primary of the one that asks.",
    has_primary: "Refusals: it has another primary.",
    superseded: "Refusals: another was promoted.",
    not_empty: "Refusals: it holds something, and the other was started empty.",
    confirmed: "Writes that were confirmed.",
    unconfirmed: "Writes that were not confirmed in time.",
    kept: "Nodes that came back with what they had.",
    failed: "Writes that the store did not take.",
    skipped: "Writes of primaries that were too large to be received.",
    kills: "Nodes that were killed.",
    cuts: "Nodes that were cut off from each other.",
    slow: "Connections that were slow for a while.",
    ending: "Keys that were to end.",
    many: "Writes of several keys.",
    edits: "Requests that looked at what was there, or said when it ends.",
    transacts: "Transactions.",
    guarded: "Requests that changed nothing, as for a guard that did not hold.",
    clears_confirmed: "Stores that were emptied, as slaves were to have too.",
    whole: "Writes of several keys that a watcher was told of as a whole.",
    clears: "Stores that were emptied.",
    clears_lost: "The same, just before a slave was lost that had been in step.",
    watches: "Watches.",
    events: "What watchers were told.",
    overruns: "Watches that were over, as what came was too much or not known key by key.",
    moves: "Names in global that went to another process.",
    moved: "Slaves that were followed there.",
    merged: "Names that were those of slaves already.",
    is_own_by_name: "Stores that were to be their own slaves, by a name in global.",
    beams: "Times of rest at which an Elixir server was in step.",
    swept: "Elixir servers whose keys were read.",
    others: "Elixir servers that were copied to again, as a former primary had written to them.",
    jumps: "Times that the clock was set.",
    failing: "Stores that began to fail, as slaves too.",
    crowded: "Stores in memory that had little room left.",
    full: "Slaves that did not keep what they were sent.",
    nested: "Promotions of slaves of promoted stores.",
    chains_lost: "Chains that ended, of which the first store came back last.",
    held: "Confirmed writes that a promoted slave had, and still has.",
}

impl Counts {
    pub fn refused(&mut self, refusal: Refusal) {
        match refusal {
            Refusal::Cycle => self.cycle += 1,
            Refusal::HasPrimary => self.has_primary += 1,
            Refusal::Superseded => self.superseded += 1,
            Refusal::NotEmpty => self.not_empty += 1,
            _ => {}
        }
    }
}

/// How a request that looks at what is there was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edited {
    /// As it was to be, without a wait for slaves.
    Done,
    /// The store had no room.
    NoRoom,
}

pub struct World {
    /// Those of kvnodes come first.
    pub nodes: Vec<VirtualNode>,
    /// How many these are.
    pub stores: usize,
    pub globals: Vec<GlobalName>,
    /// Names move, and slaves are added by several of them, more than anything else.
    pub is_restless: bool,
    /// All stores are slaves of one, whichever is promoted.
    pub is_one_tree: bool,
    /// Some keys are to end.
    pub has_ends: bool,
    /// Stores are watched. What is drawn for that is drawn from here: it changes nothing else in a seed.
    pub watching: Option<Random>,
    /// Stores are emptied. The same of what is drawn for that.
    pub clearing: Option<Random>,
    /// Slaves are lost as their primaries are emptied, and otherwise more often. Whether that is so, and the most of it, is drawn from here.
    pub losing: Option<Random>,
    /// Stores are asked for what looks at what they have. The same of what is drawn for that.
    pub editing: Option<Random>,
    /// What the answer to a request that looks, at a store that answers at once, was: `None` while it waits.
    pub edited: Option<Edited>,
    /// Nothing breaks any more.
    pub is_calm: bool,
    /// The clock that people read, which goes back at times.
    pub unix_ms: u64,
    /// The side of the first at a connection with the second.
    pub ends: Vec<Vec<Option<End>>>,
    /// No connection between the two is possible.
    pub cut: Vec<Vec<bool>>,
    /// Nothing arrives at the first from the second for a while.
    pub slow: Vec<Vec<bool>>,
    pub now: Instant,
    /// The same, for stores to look at.
    pub clock: Arc<Mutex<Clock>>,
    pub random: Random,
    pub counts: Counts,
    pub observed: Vec<Observed>,
    pub history: History,
    /// The node of each incarnation.
    pub lives: BTreeMap<u64, Arc<str>>,
    /// How often each incarnation has changed its lineage.
    pub turns: BTreeMap<u64, u64>,
    /// How often all of them together.
    pub turned: u64,
    /// The last value.
    pub writes: u64,
    /// How far two values lie apart.
    pub stride: u64,
    /// Writes of several keys at once.
    pub groups: Groups,
    /// When each key was deleted last, as the number of a write.
    pub deleted: BTreeMap<u64, u64>,
    pub ending: Ending,
    pub confirmed: Vec<Confirmed>,
    pub calls: BTreeMap<u32, Call>,
    pub next_call: u32,
    /// Sessions whose greetings were refused.
    pub refused: BTreeSet<u64>,
    /// Slaves that were given up as primaries of the store, each with how often the trees had been changed by hand then.
    pub cycles: BTreeMap<(u64, u64), u64>,
    /// Lives of stores whose greetings were not all waited for.
    pub unanswered: BTreeSet<u64>,
    /// Promotions, slaves that were added or removed, and nodes that were killed.
    pub changes: u64,
    /// Nodes whose stores were removed by their primaries once.
    pub freed: BTreeSet<usize>,
    /// The primaries that each node has followed.
    pub led: BTreeSet<(u64, usize)>,
    pub confirm_timeout: Duration,
    /// What is sent ahead of what is acknowledged.
    pub window_bytes: usize,
}

/// Something that can happen next.
#[derive(Clone, Copy)]
enum Event {
    Deliver(usize, usize),
    Turn(usize, usize),
    Feed(usize),
    Wake(usize),
    Drive(usize),
    Work(usize),
}

impl World {
    pub fn new(nodes: Vec<VirtualNode>, mut random: Random, counts: Counts, now: Instant) -> Self {
        let len = nodes.len();
        let window_bytes = plant_window(&mut random);
        let confirm_timeout = random.pick(&CONFIRM_TIMEOUTS);
        let stores = nodes.iter().filter(|node| !node.is_beam).count();
        let mut world = Self {
            nodes,
            stores,
            globals: (0..stores).map(GlobalName::new).collect(),
            is_restless: false,
            is_one_tree: false,
            has_ends: false,
            watching: None,
            clearing: None,
            losing: None,
            editing: None,
            edited: None,
            is_calm: false,
            unix_ms: UNIX_MS,
            ends: (0..len).map(|_| (0..len).map(|_| None).collect()).collect(),
            cut: vec![vec![false; len]; len],
            slow: vec![vec![false; len]; len],
            confirm_timeout,
            now,
            clock: Arc::new(Mutex::new(Clock { now, unix_ms: UNIX_MS })),
            random,
            counts,
            observed: (0..len).map(|_| Observed::default()).collect(),
            history: History::default(),
            lives: BTreeMap::new(),
            turns: BTreeMap::new(),
            turned: 0,
            writes: 0,
            stride: 1,
            groups: Groups::new(),
            calls: BTreeMap::new(),
            next_call: 0,
            deleted: BTreeMap::new(),
            ending: Ending::default(),
            confirmed: Vec::new(),
            refused: BTreeSet::new(),
            cycles: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            changes: 0,
            freed: BTreeSet::new(),
            led: BTreeSet::new(),
            window_bytes,
        };
        for node in 0..len {
            world.start(node);
        }
        world
    }

    pub fn life(&self, node: usize) -> &Life {
        self.nodes[node].life.as_ref().expect("it runs")
    }

    pub fn life_mut(&mut self, node: usize) -> &mut Life {
        self.nodes[node].life.as_mut().expect("it runs")
    }

    pub fn node_named(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| *node.name == *name).expect("one of ours")
    }

    pub fn is_running(&self, node: usize) -> bool {
        self.nodes[node].life.is_some()
    }

    pub fn start(&mut self, node: usize) {
        let incarnation = self.random.incarnation();
        let clock = Arc::clone(&self.clock);
        if self.nodes[node].is_beam {
            // What it had, or nothing, or what nobody knows of.
            match self.random.below(3) {
                0 => {}
                1 => self.nodes[node].found.clear(),
                _ => self.nodes[node].found = (0..KEYS + 6).map(|key| (key, 0)).collect(),
            }
        }
        self.nodes[node].start(incarnation, self.confirm_timeout, &clock);
        tracing::info!(node, incarnation = format!("{incarnation:x}"), "started");
        self.lives.insert(incarnation, Arc::clone(&self.nodes[node].name));
        self.claim_names(node);
        if self.nodes[node].is_beam {
            let lives =
                self.nodes.iter().filter_map(|node| Some((&node.name, node.life.as_ref()?.incarnation)));
            let has_turned = |life: &u64| self.turns.get(life).is_some_and(|turns| *turns > 1);
            for (name, _) in lives.filter(|(_, life)| has_turned(life)) {
                self.life(node).server.note_unsteady(name);
            }
            return;
        }
        let wakes = std::mem::take(&mut *self.life(node).posts.wakes.lock());
        let due = |request: WakeRequest| Wake { due: self.now + request.every, request };
        self.nodes[node].life.as_mut().expect("it runs").wakes.extend(wakes.into_iter().map(due));
        let slaves = std::mem::take(&mut *self.life(node).posts.follow.lock());
        let seeds: Vec<u64> = slaves.iter().map(|_| self.random.below(1 << 32)).collect();
        let life = self.life_mut(node);
        life.follows = slaves
            .into_iter()
            .zip(seeds)
            .map(|(slave, seed)| Some(Box::new(Follow::new(slave, seed))))
            .collect();
        self.check(node);
        // What was answered is kept.
        let is_kept = self.nodes[node].drive.is_some();
        assert!(
            !is_kept || self.lineage(node).rank() >= self.nodes[node].promoted,
            "a promotion is lost at {node}"
        );
        self.counts.kept += u64::from(self.nodes[node].creation > 1 && !self.observed[node].data.is_empty());
    }

    /// A node ends, as by `kill -9`.
    pub fn kill(&mut self, node: usize) {
        tracing::info!(node, "killed");
        self.counts.kills += 1;
        self.changes += 1;
        for other in 0..self.nodes.len() {
            self.break_connection(node, other);
            self.ends[node][other] = None;
        }
        let life = self.nodes[node].life.take();
        if let Some(life) = life.filter(|_| self.nodes[node].is_beam) {
            self.nodes[node].found = life.server.data();
        }
        self.lose_names(node);
        if let Some(drive) = &self.nodes[node].drive {
            drive.cut_off(self.random.index(drive.waiting() + 1));
        }
        self.calls.retain(|_, call| call.node != node);
    }

    /// No connection between two nodes goes on, and none can be made.
    pub fn cut(&mut self, node: usize, other: usize) {
        if node == other {
            return;
        }
        tracing::info!(node, other, "cut");
        self.counts.cuts += 1;
        (self.cut[node][other], self.cut[other][node]) = (true, true);
        self.break_connection(node, other);
    }

    /// Nothing arrives at a node from another for a while.
    pub fn slow_down(&mut self, node: usize, other: usize) {
        self.counts.slow += 1;
        self.slow[node][other] = true;
    }

    pub fn heal(&mut self, node: usize, other: usize) {
        (self.cut[node][other], self.cut[other][node]) = (false, false);
        (self.slow[node][other], self.slow[other][node]) = (false, false);
    }

    /// Carries out what an event has left to be done.
    pub fn carry_out(&mut self, node: usize) {
        loop {
            let life = self.life_mut(node);
            let effects = std::mem::take(&mut life.later);
            let sent = std::mem::take(&mut *life.posts.sent.lock());
            let ready = std::mem::take(&mut *life.posts.feeds.lock());
            let added = std::mem::take(&mut *life.posts.follow.lock());
            let wakes = std::mem::take(&mut *life.posts.wakes.lock());
            if effects.is_empty()
                && sent.is_empty()
                && ready.is_empty()
                && added.is_empty()
                && wakes.is_empty()
            {
                break;
            }
            // Before a confirmation is looked at.
            self.check(node);
            for effect in effects {
                self.carry_out_effect(node, effect);
            }
            for request in wakes {
                let due = self.now + request.every;
                self.life_mut(node).wakes.push(Wake { due, request });
            }
            for slave in added {
                let follow = Box::new(Follow::new(slave, self.random.below(1 << 32)));
                self.life_mut(node).follows.push(Some(follow));
            }
            for (to, feed) in ready {
                self.feed(node, &to, &feed);
            }
            for (to, frame) in sent {
                self.post(node, &to, frame);
            }
        }
        self.check(node);
        self.check_watched(node);
    }

    fn carry_out_effect(&mut self, node: usize, effect: Effect) {
        let now = self.now;
        match effect {
            Effect::Feed(to, feed) => self.feed(node, &to, &feed),
            Effect::Wake(request) => {
                let due = now + request.every;
                self.life_mut(node).wakes.push(Wake { due, request: *request });
            }
            Effect::Send { node: to, mut frames, .. } => {
                for frame in frames_of(&mut frames) {
                    self.post(node, &to, frame);
                }
            }
            other => panic!("nothing here asks for this: {other:?}"),
        }
    }

    fn post(&mut self, node: usize, to: &str, frame: Vec<u8>) {
        if to == CLIENT {
            return self.answered(node, &[frame]);
        }
        self.send(node, self.node_named(to), Item::Frame(frame));
    }

    /// What can happen at a node now without time or chance, by a number below [`places`](Self::places).
    fn event_at(&self, node: usize, place: usize) -> Option<Event> {
        let node_of = &self.nodes[node];
        let life = node_of.life.as_ref()?;
        if let Some(slot) = place.checked_sub(self.nodes.len() + KINDS) {
            let due = life.follows.get(slot)?.as_ref()?.due(self.now)?;
            return (due <= self.now).then_some(Event::Turn(node, slot));
        }
        match place.checked_sub(self.nodes.len()) {
            None => self.has_news(node, place).then_some(Event::Deliver(node, place)),
            Some(0) => (!life.hungry.is_empty()).then_some(Event::Feed(node)),
            Some(1) => {
                let is_at_it = node_of.drive.as_ref().is_some_and(|drive| drive.waiting() > 0);
                is_at_it.then_some(Event::Drive(node))
            }
            Some(2) => life.wakes.iter().any(|wake| wake.due <= self.now).then_some(Event::Wake(node)),
            Some(_) => (!life.posts.work.lock().is_empty()).then_some(Event::Work(node)),
        }
    }

    fn places(&self) -> usize {
        let follows = self.nodes.iter().filter_map(|node| Some(node.life.as_ref()?.follows.len()));
        self.nodes.len() + KINDS + follows.max().unwrap_or(0)
    }

    /// One of all that can happen now, each as likely.
    fn some_event(&mut self) -> Option<Event> {
        let (nodes, places) = (self.nodes.len(), self.places());
        // Where much can happen the first tries find something: to look at everything takes longer.
        for _ in 0..TRIES {
            let (node, place) = (self.random.index(nodes), self.random.index(places));
            if let Some(event) = self.event_at(node, place) {
                return Some(event);
            }
        }
        let (mut chosen, mut seen) = (None, 0);
        for node in 0..nodes {
            let follows = self.nodes[node].life.as_ref().map(|life| life.follows.len());
            for place in 0..follows.map_or(0, |follows| nodes + KINDS + follows) {
                if let Some(event) = self.event_at(node, place) {
                    seen += 1;
                    chosen = if self.random.one_in(seen) { Some(event) } else { chosen };
                }
            }
        }
        chosen
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Deliver(node, from) => self.deliver(node, from),
            Event::Turn(node, slot) => {
                self.turn(node, slot);
                self.carry_out(node);
            }
            Event::Feed(node) => {
                for (to, feed) in std::mem::take(&mut self.life_mut(node).hungry) {
                    self.feed(node, &to, &feed);
                }
                self.carry_out(node);
            }
            Event::Drive(node) => {
                // Some or all, before anybody is sent anything: who has written what is looked at between.
                let all = 2 * self.nodes[node].drive.as_ref().map_or(0, Drive::waiting);
                let steps = match self.random.below(3) {
                    _ if self.nodes[node].is_lazy && !self.is_calm => 1,
                    0 => all,
                    1 => self.random.index(all + 1),
                    _ => 1 + self.random.index(3),
                };
                self.drive_on(node, steps);
            }
            Event::Work(node) => {
                let mut work = self.life(node).posts.work.lock().remove(0);
                if work.step() {
                    self.life(node).posts.work.lock().push(work);
                }
                self.carry_out(node);
            }
            Event::Wake(node) => {
                let now = self.now;
                self.life_mut(node).wakes.retain_mut(|wake| {
                    wake.due > now || {
                        wake.due = now + wake.request.every;
                        (wake.request.wake)()
                    }
                });
                self.carry_out(node);
            }
        }
    }

    /// A store that answers later does, or tells of, so many things of those that wait.
    pub fn drive_on(&mut self, node: usize, steps: usize) {
        let Some(drive) = self.nodes[node].drive.clone() else { return };
        drive.let_fail(self.figures(node).is_none() || self.nodes[node].fails);
        for _ in 0..steps {
            if drive.step() {
                self.check(node);
            }
        }
        self.carry_out(node);
    }

    /// Something that can happen happens; `false`: nothing can.
    pub fn go_on(&mut self) -> bool {
        let event = self.some_event();
        event.into_iter().for_each(|event| self.happen(event));
        event.is_some()
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
        self.set_clock(self.unix_ms + u64::try_from(time.as_millis()).expect("not so long"));
    }

    /// The clock that people read is set; each machine's differs from it as it did.
    pub fn set_clock(&mut self, unix_ms: u64) {
        self.unix_ms = unix_ms;
        *self.clock.lock() = Clock { now: self.now, unix_ms };
    }

    /// When something is to be done next, if nothing else happens.
    fn next_due(&self) -> Option<Instant> {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives
            .flat_map(|life| {
                let follows = life.follows.iter().flatten().filter_map(|follow| follow.due(self.now));
                follows.chain(life.wakes.iter().map(|wake| wake.due))
            })
            .min()
    }

    /// Nothing breaks any more, all nodes run and nobody writes: all becomes as it should be in a bounded number of events.
    pub fn settle(&mut self) {
        for node in 0..self.nodes.len() {
            for other in 0..self.nodes.len() {
                self.heal(node, other);
            }
            self.nodes[node].fails = false;
            self.nodes[node].memory.leave(None);
            if !self.is_running(node) {
                self.start(node);
            }
        }
        self.calm_names();
        let calm_from = self.now;
        for _ in 0..SETTLE_EVENTS_MAX {
            if self.go_on() {
                continue;
            }
            if self.is_settled() && !self.has_one_to_look_for(calm_from) {
                self.is_calm = false;
                return self.check_settled();
            }
            let due = self.next_due().unwrap_or_else(|| panic!("nothing goes on: {}", self.shown()));
            let wait = due.saturating_duration_since(self.now).max(Duration::from_millis(1));
            self.pass(wait);
        }
        panic!("not settled: {}", self.shown());
    }

    /// All stores and slaves, for a failure.
    pub fn shown(&self) -> String {
        let mut text = format!("calls {:?}\n", self.calls);
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(life) = &node.life else { continue };
            if node.is_beam {
                continue;
            }
            text += &format!("{number}: {:x?} {:?}", self.lineage(number), self.figures(number));
            let ends = life.server.next_due().map(|due| due as i64 - life.posts.store_ms() as i64);
            text += &format!(" {:?}", ends);
            for slave in life.server.slaves() {
                text += &format!("\n   {slave:?} {:?} {:?}", slave.standing(), slave.state());
            }
            text += &format!("\n   {:?}\n", self.observed[number].data);
        }
        text
    }

    /// The nodes that run and whose stores follow nobody.
    pub fn primaries(&self) -> Vec<usize> {
        (0..self.stores).filter(|&node| self.is_running(node) && self.figures(node).is_none()).collect()
    }

    pub fn some_primary(&mut self) -> Option<usize> {
        let primaries = self.primaries();
        (!primaries.is_empty()).then(|| self.random.pick(&primaries))
    }

    pub fn some_running(&mut self) -> Option<usize> {
        let running: Vec<usize> = (0..self.stores).filter(|&node| self.is_running(node)).collect();
        (!running.is_empty()).then(|| self.random.pick(&running))
    }

    /// Starts a node that does not run, if there is one.
    pub fn start_some(&mut self) {
        let dead: Vec<usize> = (0..self.nodes.len()).filter(|&node| !self.is_running(node)).collect();
        if !dead.is_empty() {
            let node = self.random.pick(&dead);
            self.start(node);
        }
    }
}
