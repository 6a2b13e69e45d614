//! Several nodes with a replicated store and a simulated etcd, and what happens to machines: kills with and without data, stops,
//! cuts, slow answers, clocks that go wrong within bounds; in virtual time.
//!
//! Real are the succession, the store's part as a slave ([`Upstream`]) and a primary's part of each slave
//! ([`Downstream`](crate::replica::Downstream)). The shell, the connections and etcd are modelled. A run is the same for a seed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::etcd::{Etcd, TTL};
use super::node::{Data, Kept, Node, Waiting};
use super::shell::Asker;
use crate::elect::succession::keys::Record;
use crate::elect::succession::planted::{Rule, planted};
use crate::elect::succession::{
    Config, Entry, Event as Said, Holds, Input, Output, Role, Succession, Transaction,
};
use crate::elect::tests::simulation::Random;
use crate::elect::tests::{pid, start};
use crate::etf::Pid;
use crate::replica::downstream::Input as DownInput;
use crate::replica::upstream::{Asked, Greeting, Input as UpInput};
use crate::replica::{GreetingAnswer, KnownSlave, Mark, Membership, Refusal, Upstream};

/// Faults happen for so long, and then there are none for the rest.
pub(super) const RUN: Duration = Duration::from_secs(80);
const CALM: Duration = Duration::from_secs(40);
/// In a calm world there is a primary after this.
pub(super) const SOON: Duration = Duration::from_secs(20);
/// A request that is lost ends so late.
pub(super) const LOST: Duration = Duration::from_secs(2);

/// What goes over a connection of two nodes.
#[derive(Debug)]
pub(super) enum Item {
    Cast(Vec<u8>),
    Ask { session: u64, seq: u64, asker: Asker },
    Hello { greeting: Greeting, number: u64, question: u64 },
    Siblings { session: u64, slaves: Vec<KnownSlave> },
    Bye { session: u64 },
    Left { session: u64 },
    Superseded(KnownSlave),
    Acknowledged { number: u64, mark: Mark, kept: Result<(), Refusal> },
    Greeted { number: u64, question: u64, answer: GreetingAnswer },
}

/// What comes to a node.
#[derive(Debug)]
pub(super) enum Message {
    Input(Input),
    Granted {
        question: u64,
        id: i64,
        asked: Instant,
    },
    Renewed {
        id: i64,
        asked: Instant,
        is_there: bool,
    },
    /// The keys were read, when so much of the history was.
    Keys {
        revision: i64,
        entries: Vec<Entry>,
        history: usize,
    },
    NotRead,
    Link {
        from: usize,
        epoch: u64,
        item: Item,
    },
    /// The connection to a node is lost.
    Lost {
        peer: usize,
        epoch: u64,
    },
    Kept {
        asked: Asked,
        asker: Asker,
    },
}

#[derive(Clone, Debug)]
pub(super) enum Request {
    Read,
    Grant { question: u64, asked: Instant },
    Renew { id: i64, asked: Instant },
    Revoke { id: i64 },
    Transact(Transaction),
}

#[derive(Debug)]
pub(super) enum Event {
    Node { node: usize, creation: u32, message: Message },
    Etcd { node: usize, creation: u32, request: Request, is_late: bool },
    Write,
    Fault,
    EndsCut { one: usize, other: usize },
    EndsCutOffEtcd { node: usize },
    GoesOn { node: usize },
    Kills { node: usize, after: Duration },
    Starts { node: usize },
    EtcdIsBack,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Next {
    Event((Instant, u64)),
    Wakes(usize),
    LeaseEnds,
}

/// What a run was made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) leads: u64,
    pub(super) confirmed: u64,
    pub(super) writes: u64,
    pub(super) anew: u64,
    pub(super) lossy: u64,
    /// Runs that a person had to end, as no election could be sure.
    pub(super) forced: u64,
    pub(super) drops: u64,
    /// Primaries that have recorded their last write.
    pub(super) ends: u64,
}

impl Counts {
    /// Whether everything has come up.
    pub(super) fn check(&self, seeds: u64) {
        assert!(self.leads > 4 * seeds && self.confirmed > 100 * seeds, "{self:?}");
        assert!(self.anew > 0 && self.lossy > 0 && self.forced > 0 && self.drops > 0, "{self:?}");
        assert!(self.ends > seeds / 10, "{self:?}");
        // Where memory is lost, as much as such a world loses.
        assert!(self.forced < seeds / 5, "{self:?}");
    }

    pub(super) const fn add(&mut self, other: Self) {
        self.leads += other.leads;
        self.confirmed += other.confirmed;
        self.writes += other.writes;
        self.anew += other.anew;
        self.lossy += other.lossy;
        self.forced += other.forced;
        self.drops += other.drops;
        self.ends += other.ends;
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Instant,
    pub(super) number: u64,
    pub(super) events: BTreeMap<(Instant, u64), Event>,
    pub(super) nodes: Vec<Node>,
    pub(super) creations: u32,
    pub(super) etcd: Etcd,
    /// The connection that a node takes for standing, to each other.
    pub(super) sees: Vec<Vec<Option<u64>>>,
    pub(super) epochs: u64,
    pub(super) cuts: BTreeSet<(usize, usize)>,
    pub(super) link_at: BTreeMap<(usize, usize), Instant>,
    pub(super) confirm: u32,
    /// A connection that is cut ends so late.
    pub(super) tick_time: Duration,
    pub(super) is_lossy: bool,
    /// Persons delete keys.
    pub(super) is_meddled: bool,
    pub(super) is_calm: bool,
    pub(super) writes: u64,
    pub(super) confirmed: BTreeSet<u64>,
    pub(super) is_forced: bool,
    pub(super) last_led: Instant,
    /// When a primary has recorded itself as the base last.
    pub(super) base_at: (u64, Instant),
    /// The records that primaries have been chosen by, by their fences.
    pub(super) chosen_by: BTreeMap<u64, Record>,
    pub(super) tale: Vec<String>,
    pub(super) wrong: Option<String>,
    pub(super) counts: Counts,
}

/// Runs a seed.
pub(super) fn run(seed: u64) -> Result<Counts, String> {
    let mut world = World::new(seed);
    let end = world.now + RUN;
    let over = end + CALM;
    while let Some((at, next)) = world.next().filter(|(at, _)| *at <= over) {
        if at > end && !world.is_calm {
            world.calm(end);
            continue;
        }
        world.now = world.now.max(at);
        match next {
            Next::Event(key) => {
                let event = world.events.remove(&key).expect("it is there");
                world.happen(event);
            }
            Next::Wakes(node) => world.wake(node),
            Next::LeaseEnds => {
                let now = world.now;
                world.etcd.expire(now);
                world.tell_all();
            }
        }
        if world.is_calm && !world.is_forced && world.now > end + CALM / 2 {
            world.force();
        }
        if let Some(wrong) = world.wrong.take().or_else(|| world.etcd.wrong.take()) {
            return Err(format!("{wrong}\n{}", world.tale.join("\n")));
        }
    }
    world.check_end().map_err(|wrong| format!("{wrong}\n{}", world.tale.join("\n")))?;
    (world.counts.drops, world.counts.ends) = (world.etcd.drops, world.etcd.ends);
    Ok(world.counts)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let (now, mut random) = (start(), Random(seed));
        let len = 3 + random.below(2) as usize;
        let confirm = [0, 1, 1, 1, 2, 2][random.below(6) as usize];
        // All on disk, all in memory, or some.
        let kind = random.below(3);
        let is_lossy = random.below(8) == 0;
        let is_meddled = random.below(6) == 0;
        let tick_time = Duration::from_secs([2, 8, 8, 30][random.below(4) as usize]);
        let mut world = Self {
            random,
            now,
            number: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            creations: 0,
            etcd: Etcd::default(),
            sees: vec![vec![None; len]; len],
            epochs: 0,
            cuts: BTreeSet::new(),
            link_at: BTreeMap::new(),
            confirm,
            tick_time,
            is_lossy,
            is_meddled,
            is_calm: false,
            writes: 0,
            confirmed: BTreeSet::new(),
            is_forced: false,
            last_led: now,
            base_at: (0, now),
            chosen_by: BTreeMap::new(),
            tale: Vec::new(),
            wrong: None,
            counts: Counts::default(),
        };
        world.say(format!(
            "{len} nodes, confirm {confirm}, kind {kind}, lossy {is_lossy}, meddled {is_meddled}"
        ));
        world.etcd.revision = 1;
        for node in 0..len {
            world.creations += 1;
            let creation = world.creations;
            let me = pid(&format!("k{node}@h"), creation);
            let drift = world.random.below(8_000) as i64 - 4_000;
            let is_on_disk = kind == 0 || kind == 2 && world.random.below(2) == 0;
            let incarnation = world.random.next() >> 8;
            let puts_aside = world.random.below(2) == 0;
            let config = world.config(node, &me);
            world.nodes.push(Node {
                succession: Succession::new(config, now),
                me,
                incarnation,
                is_on_disk,
                is_alive: true,
                is_stopped: false,
                is_cut_off_etcd: false,
                drift,
                upstream: Upstream::new(incarnation, Membership::default(), true),
                data: Data::new(),
                aside: Data::new(),
                puts_aside,
                brought: BTreeMap::new(),
                lost_at: None,
                seq: 0,
                membership: Membership::default(),
                downs: Vec::new(),
                added: 0,
                waiting: VecDeque::new(),
                counting: Vec::new(),
                told: None,
                lease: None,
                dialled: None,
                watches: Vec::new(),
                watching: None,
                watch_at: now,
                inbox: Vec::new(),
            });
        }
        (0..len).for_each(|node| world.begin(node));
        world.schedule(Duration::from_secs(4), Event::Fault);
        world.schedule(Duration::from_secs(3), Event::Write);
        world
    }

    pub(super) fn config(&self, node: usize, me: &Pid) -> Config {
        // The first two have slaves configured.
        let (confirm, is_lossy) = (self.confirm, self.is_lossy);
        Config { me: me.clone(), confirm, is_lossy, founds: node < 2 }
    }

    pub(super) fn begin(&mut self, node: usize) {
        self.nodes[node].upstream.handle(UpInput::Seal { floor: u64::MAX });
        self.nodes[node].watching = None;
        self.request(node, Request::Read);
        self.carry_out(node);
    }

    pub(super) fn name(&self, node: usize) -> Arc<str> {
        Arc::clone(&self.nodes[node].me.node)
    }

    pub(super) fn node_of(&self, name: &str) -> usize {
        self.nodes.iter().position(|node| *node.me.node == *name).expect("it is one of them")
    }

    /// What a node's clock says.
    pub(super) fn local(&self, node: usize) -> Instant {
        self.local_at(node, self.now)
    }

    pub(super) fn local_at(&self, node: usize, at: Instant) -> Instant {
        let micros = at.duration_since(start()).as_micros() as i64;
        let gone = micros * self.nodes[node].drift / 1_000_000;
        start() + Duration::from_micros((micros + gone) as u64)
    }

    pub(super) fn global_at(&self, node: usize, local: Instant) -> Instant {
        let micros = local.duration_since(start()).as_micros() as i64;
        let at = micros * 1_000_000 / (1_000_000 + self.nodes[node].drift);
        // Never before: a timer would wake for nothing.
        start() + Duration::from_micros(at as u64 + 2)
    }

    pub(super) fn say(&mut self, text: String) {
        let at = self.now.duration_since(start()).as_millis();
        self.tale.push(format!("{at:>6} {text}"));
    }

    pub(super) fn fail(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    pub(super) fn schedule(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    pub(super) fn message_in(&mut self, after: Duration, node: usize, message: Message) {
        let creation = self.nodes[node].me.creation;
        self.schedule(after, Event::Node { node, creation, message });
    }

    pub(super) fn runs(&self, node: usize) -> bool {
        self.nodes[node].is_alive && !self.nodes[node].is_stopped
    }

    pub(super) fn next(&self) -> Option<(Instant, Next)> {
        let wakes = (0..self.nodes.len()).filter(|node| self.runs(*node)).filter_map(|node| {
            let its = &self.nodes[node];
            let downs = its.downs.iter().filter_map(|down| down.machine.poll_timeout());
            let all = its.succession.poll_timeout().into_iter().chain(its.lease.map(|lease| lease.renew_at));
            let at = all.chain(downs).min()?;
            Some((self.global_at(node, at), Next::Wakes(node)))
        });
        let ends = self.etcd.next_end().map(|at| (at, Next::LeaseEnds));
        let event = self.events.keys().next().map(|key| (key.0, Next::Event(*key)));
        wakes.chain(ends).chain(event).min_by_key(|(at, _)| *at)
    }

    pub(super) fn wake(&mut self, node: usize) {
        let now = self.local(node);
        if let Some(lease) = &mut self.nodes[node].lease
            && lease.renew_at <= now
        {
            lease.renew_at = now + Duration::from_millis(200);
            let id = lease.id;
            self.request(node, Request::Renew { id, asked: now });
        }
        self.hand(node, Input::Time);
        for index in 0..self.nodes[node].downs.len() {
            if self.nodes[node].downs[index].machine.poll_timeout().is_some_and(|at| at <= now) {
                self.down(node, index, DownInput::Timeout);
            }
        }
        self.settle(node);
    }

    /// Hands an input to a node's succession.
    pub(super) fn hand(&mut self, node: usize, input: Input) {
        let now = self.local(node);
        let its = &mut self.nodes[node];
        if let Some(lease) = its.lease {
            let until = Some(lease.until).filter(|until| *until > now);
            if until.is_none() {
                its.lease = None;
            }
            let until = if planted(Rule::OwnClock) { Some(now + TTL) } else { until };
            its.succession.handle(Input::LeaseUntil(until), now);
        }
        its.succession.handle(input, now);
        self.carry_out(node);
    }

    pub(super) fn carry_out(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].succession.poll_output() {
            let now = self.local(node);
            match output {
                Output::Lease { question } => {
                    self.nodes[node].lease = None;
                    self.request(node, Request::Grant { question, asked: now });
                }
                Output::Transact(transaction) => self.request(node, Request::Transact(transaction)),
                Output::Seal { question, floor } => {
                    if !planted(Rule::SealFirst) || floor == 1 {
                        _ = self.up(node, UpInput::Seal { floor }, None);
                    } else {
                        // It takes the next primary all the same.
                        let low = self.nodes[node].upstream.durable().term;
                        _ = self.up(node, UpInput::Seal { floor: low }, None);
                    }
                    let its = &self.nodes[node];
                    let (holds, term) = (Holds::of(&its.upstream), its.upstream.durable().term);
                    let after = self.random.millis(0, 5);
                    self.message_in(after, node, Message::Input(Input::Sealed { question, holds, term }));
                }
                Output::Lead { question, fence, others, .. } => {
                    _ = self.up(node, UpInput::Lead { term: fence }, None);
                    self.say(format!("{} leads with {fence}", self.name(node)));
                    self.counts.leads += 1;
                    self.last_led = self.now;
                    others
                        .iter()
                        .map(|pid| self.node_of(&pid.node))
                        .collect::<Vec<_>>()
                        .into_iter()
                        .for_each(|other| self.add_slave(node, other));
                    self.check_has_all(node);
                    let after = self.random.millis(0, 20);
                    self.message_in(after, node, Message::Input(Input::Led { question, is_done: true }));
                }
                Output::Follow(pid) => {
                    let other = self.node_of(&pid.node);
                    self.add_slave(node, other);
                }
                Output::Count(nodes) => {
                    let its = &mut self.nodes[node];
                    its.counting = nodes;
                    its.told = None;
                }
                Output::StepDown { to } => {
                    let standings: Vec<_> = self.nodes[node]
                        .downs
                        .iter()
                        .map(|down| (down.node, down.machine.standing(), down.machine.confirmed()))
                        .collect();
                    self.say(format!("{} steps down for {to:?}: {standings:?}", self.name(node)));
                    let its = &mut self.nodes[node];
                    its.waiting.clear();
                    its.counting.clear();
                    its.told = None;
                }
                // In a world that is well again a person tries until it is so.
                Output::NotForced(why) => {
                    self.say(format!("{} is not forced: {why:?}", self.name(node)));
                    self.nodes[node].succession.handle(Input::Force, now);
                }
                Output::LedBy(_) => {}
                Output::Dial { question, node: to } => self.dial(node, question, &to),
                Output::Revoke => {
                    if let Some(lease) = self.nodes[node].lease.take() {
                        self.request(node, Request::Revoke { id: lease.id });
                    }
                }
                Output::End => {
                    self.say(format!("{} ends", self.name(node)));
                    self.kill(node);
                    let after = self.random.millis(100, 3_000);
                    self.schedule(after, Event::Starts { node });
                }
                Output::Log(event) => self.said(node, event),
            }
        }
    }

    pub(super) fn said(&mut self, node: usize, event: Said) {
        self.say(format!("{}: {event:?}", self.name(node)));
        match event {
            Said::BeginsAnew => {
                self.counts.anew += 1;
                if !self.is_lossy && !self.is_forced {
                    // What others had the base has had, and a node that was never up to date is of no use to an election.
                    let record = self.chosen_by.get(&self.nodes[node].succession.view().fence);
                    let is_owner = |its: &&Node| {
                        let name = &its.me.node;
                        record.is_some_and(|record| {
                            let heirs = record.heirs.iter().map(|heir| &heir.node);
                            heirs
                                .chain([&record.base.node])
                                .chain(&record.base.members)
                                .any(|node| node == name)
                        })
                    };
                    let has = |its: &&Node| !its.data.is_empty() && (its.is_alive || its.is_on_disk);
                    let lost = self.nodes.iter().filter(has).filter(is_owner).map(|its| &its.me);
                    let lost: Vec<&Pid> = lost.collect();
                    if !lost.is_empty() {
                        self.wrong.get_or_insert(format!("it begins anew beside {lost:?}"));
                    }
                }
                self.confirmed.clear();
            }
            Said::MayHaveLost { .. } => {
                self.counts.lossy += 1;
                if !self.is_lossy && !self.is_forced {
                    self.fail("something may be lost that nobody has allowed".to_owned());
                }
                self.keep_what_is_at(node);
            }
            _ => {}
        }
    }

    /// What follows from what a node's machines have come to.
    pub(super) fn settle(&mut self, node: usize) {
        if !self.runs(node) {
            return;
        }
        for _ in 0..4 {
            let its = &self.nodes[node];
            if its.succession.leads().is_none() && its.succession.view().role != Role::Leaving {
                break;
            }
            let slaves = its.slaves(|other| self.name(other));
            let told = (its.seq, slaves.clone());
            if its.told.as_ref() == Some(&told) {
                break;
            }
            let seq = its.seq;
            self.nodes[node].told = Some(told);
            self.hand(node, Input::Slaves { seq, slaves });
        }
        self.confirm(node);
    }

    pub(super) fn happen(&mut self, event: Event) {
        match event {
            Event::Node { node, creation, message } => {
                let its = &self.nodes[node];
                if !its.is_alive || its.me.creation != creation {
                    return;
                }
                if its.is_stopped {
                    return self.nodes[node].inbox.push(message);
                }
                self.deliver(node, message);
                self.settle(node);
            }
            Event::Etcd { node, creation, request, is_late } => self.serve(node, creation, request, is_late),
            Event::Write => {
                let after = self.random.millis(20, 150);
                self.schedule(after, Event::Write);
                let node = self.random.below(self.nodes.len() as u64) as usize;
                self.write(node);
            }
            Event::Fault if self.is_calm => {}
            Event::Fault => {
                self.fault();
                let after = self.random.millis(50, 7_000);
                self.schedule(after, Event::Fault);
            }
            Event::EndsCut { one, other } => self.heal(one, other),
            Event::EndsCutOffEtcd { node } => self.reach_etcd(node),
            Event::GoesOn { node } => self.go_on(node),
            Event::Kills { node, after } => self.kill_for(node, after),
            Event::Starts { node } => {
                let is_wiped = self.random.below(10) == 0 && !self.is_calm;
                self.start_node(node, is_wiped);
            }
            Event::EtcdIsBack => self.etcd_is_back(),
        }
    }

    pub(super) fn deliver(&mut self, node: usize, message: Message) {
        let now = self.local(node);
        match message {
            Message::Input(input) => self.hand(node, input),
            Message::Keys { revision, entries, .. } => self.hand(node, Input::Keys { revision, entries }),
            Message::NotRead => self.request(node, Request::Read),
            Message::Granted { question, id, asked } => {
                let until = asked + (TTL - TTL / 100);
                self.nodes[node].lease = Some(Kept { id, until, renew_at: asked + TTL / 3 });
                let lease = Some((id, until)).filter(|_| until > now);
                self.nodes[node].succession.handle(Input::Granted { question, lease }, now);
                self.carry_out(node);
            }
            Message::Renewed { id, asked, is_there } => {
                let until = asked + (TTL - TTL / 100);
                if let Some(lease) = self.nodes[node].lease.as_mut().filter(|lease| lease.id == id)
                    && lease.until > now
                {
                    if is_there {
                        (lease.until, lease.renew_at) = (lease.until.max(until), asked + TTL / 3);
                    } else {
                        lease.until = now;
                    }
                }
                self.hand(node, Input::Time);
            }
            Message::Link { from, epoch, item } => {
                if self.sees[node][from] == Some(epoch) && !self.is_cut(node, from) {
                    self.arrive(node, from, item);
                }
            }
            Message::Lost { peer, epoch } => {
                // A connection that is there after all goes on.
                let is_well =
                    !self.is_cut(node, peer) && self.runs(peer) && self.sees[peer][node] == Some(epoch);
                if !is_well {
                    self.lost(node, peer, epoch);
                }
            }
            Message::Kept { asked, asker } => self.kept(node, asked, asker),
        }
    }

    pub(super) fn write(&mut self, node: usize) {
        let now = self.local(node);
        if !self.runs(node) || self.nodes[node].succession.leads_until().is_none_or(|until| until <= now) {
            return;
        }
        self.writes += 1;
        self.counts.writes += 1;
        let write = self.writes;
        let seq = self.put(node, write);
        if self.confirm > 0 {
            self.nodes[node].waiting.push_back(Waiting { write, seq });
        }
        self.settle(node);
    }
}
