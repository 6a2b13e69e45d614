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
use crate::elect::succession::planted::{Rule, planted};
use crate::elect::succession::{
    Config, Entry, Event as Said, Holds, Input, Key, Output, Role, Succession, Transacted, Transaction,
};
use crate::elect::tests::simulation::Random;
use crate::elect::tests::{pid, start};
use crate::etf::{Pid, encode};
use crate::replica::downstream::Input as DownInput;
use crate::replica::upstream::{Asked, Greeting, Input as UpInput};
use crate::replica::{GreetingAnswer, KnownSlave, Mark, Membership, Refusal, Upstream};

/// Faults happen for so long, and then there are none for the rest.
const RUN: Duration = Duration::from_secs(80);
const CALM: Duration = Duration::from_secs(40);
/// In a calm world there is a primary after this.
const SOON: Duration = Duration::from_secs(20);
/// A request that is lost ends so late.
const LOST: Duration = Duration::from_secs(2);

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
    Granted { question: u64, id: i64, asked: Instant },
    Renewed { id: i64, asked: Instant, is_there: bool },
    /// The keys were read, when so much of the history was.
    Keys { revision: i64, entries: Vec<Entry>, history: usize },
    NotRead,
    Link { from: usize, epoch: u64, item: Item },
    /// The connection to a node is lost.
    Lost { peer: usize, epoch: u64 },
    Kept { asked: Asked, asker: Asker },
}

#[derive(Clone, Debug)]
enum Request {
    Read,
    Grant { question: u64, asked: Instant },
    Renew { id: i64, asked: Instant },
    Revoke { id: i64 },
    Transact(Transaction),
}

#[derive(Debug)]
enum Event {
    Node { node: usize, creation: u32, message: Message },
    Etcd { node: usize, creation: u32, request: Request, is_late: bool },
    Write,
    Fault,
    EndsCut { one: usize, other: usize },
    EndsCutOffEtcd { node: usize },
    GoesOn { node: usize },
    Starts { node: usize },
    EtcdIsBack,
}

#[derive(Clone, Copy, Debug)]
enum Next {
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
}

impl Counts {
    pub(super) const fn add(&mut self, other: Self) {
        self.leads += other.leads;
        self.confirmed += other.confirmed;
        self.writes += other.writes;
        self.anew += other.anew;
        self.lossy += other.lossy;
        self.forced += other.forced;
        self.drops += other.drops;
    }
}

pub(super) struct World {
    pub(super) random: Random,
    pub(super) now: Instant,
    number: u64,
    events: BTreeMap<(Instant, u64), Event>,
    pub(super) nodes: Vec<Node>,
    creations: u32,
    etcd: Etcd,
    /// The connection that a node takes for standing, to each other.
    pub(super) sees: Vec<Vec<Option<u64>>>,
    epochs: u64,
    cuts: BTreeSet<(usize, usize)>,
    link_at: BTreeMap<(usize, usize), Instant>,
    confirm: u32,
    /// A connection that is cut ends so late.
    tick_time: Duration,
    is_lossy: bool,
    /// Persons delete keys.
    is_meddled: bool,
    is_calm: bool,
    writes: u64,
    confirmed: BTreeSet<u64>,
    is_forced: bool,
    last_led: Instant,
    tale: Vec<String>,
    wrong: Option<String>,
    counts: Counts,
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
    Ok(world.counts)
}

impl World {
    fn new(seed: u64) -> Self {
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
            tale: Vec::new(),
            wrong: None,
            counts: Counts::default(),
        };
        world.say(format!("{len} nodes, confirm {confirm}, kind {kind}, lossy {is_lossy}, meddled {is_meddled}"));
        world.etcd.revision = 1;
        for node in 0..len {
            world.creations += 1;
            let creation = world.creations;
            let me = pid(&format!("k{node}@h"), creation);
            let drift = world.random.below(8_000) as i64 - 4_000;
            let is_on_disk = kind == 0 || kind == 2 && world.random.below(2) == 0;
            let incarnation = world.random.next() >> 8;
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

    fn config(&self, node: usize, me: &Pid) -> Config {
        // The first two have slaves configured.
        let (confirm, is_lossy) = (self.confirm, self.is_lossy);
        Config { me: me.clone(), confirm, is_lossy, founds: node < 2 }
    }

    fn begin(&mut self, node: usize) {
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

    fn local_at(&self, node: usize, at: Instant) -> Instant {
        let micros = at.duration_since(start()).as_micros() as i64;
        let gone = micros * self.nodes[node].drift / 1_000_000;
        start() + Duration::from_micros((micros + gone) as u64)
    }

    fn global_at(&self, node: usize, local: Instant) -> Instant {
        let micros = local.duration_since(start()).as_micros() as i64;
        let at = micros * 1_000_000 / (1_000_000 + self.nodes[node].drift);
        // Never before: a timer would wake for nothing.
        start() + Duration::from_micros(at as u64 + 2)
    }

    fn say(&mut self, text: String) {
        let at = self.now.duration_since(start()).as_millis();
        self.tale.push(format!("{at:>6} {text}"));
    }

    fn fail(&mut self, text: String) {
        self.wrong.get_or_insert(text);
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    pub(super) fn message_in(&mut self, after: Duration, node: usize, message: Message) {
        let creation = self.nodes[node].me.creation;
        self.schedule(after, Event::Node { node, creation, message });
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].is_alive && !self.nodes[node].is_stopped
    }

    fn next(&self) -> Option<(Instant, Next)> {
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

    fn wake(&mut self, node: usize) {
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

    fn carry_out(&mut self, node: usize) {
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
                    others.iter().map(|pid| self.node_of(&pid.node)).collect::<Vec<_>>().into_iter().for_each(
                        |other| self.add_slave(node, other),
                    );
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
                    let standings: Vec<_> = self.nodes[node].downs.iter().map(|down| (down.node, down.machine.standing(), down.machine.confirmed())).collect();
                    self.say(format!("{} steps down for {to:?}: {standings:?}", self.name(node)));
                    let its = &mut self.nodes[node];
                    its.waiting.clear();
                    its.counting.clear();
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

    fn said(&mut self, node: usize, event: Said) {
        self.say(format!("{}: {event:?}", self.name(node)));
        match event {
            Said::BeginsAnew => {
                self.counts.anew += 1;
                if !self.is_lossy && !self.is_forced {
                    let has = |its: &&Node| !its.data.is_empty() && (its.is_alive || its.is_on_disk);
                    // A node that was never up to date is of no use to an election.
                    let all: Vec<_> = self.nodes.iter().filter(has).map(|its| &its.me).collect();
                    let former = self.etcd.record().map(|record| record.former).unwrap_or_default();
                    let has_led = |me: &&&Pid| former.iter().any(|life| life.node == me.node);
                    let lost: Vec<_> = all.iter().filter(has_led).collect();
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
            Said::Counted(nodes) => self.counts.drops += u64::from(nodes.len() == 1),
            _ => {}
        }
    }

    fn keep_what_is_at(&mut self, node: usize) {
        let data = &self.nodes[node].data;
        let is_there = |write: &u64| data.contains_key(&*encode(|w| _ = w.unsigned(*write)));
        self.confirmed.retain(is_there);
    }

    fn check_has_all(&mut self, node: usize) {
        let data = &self.nodes[node].data;
        let is_lost = |write: &&u64| !data.contains_key(&*encode(|w| _ = w.unsigned(**write)));
        let lost: Vec<u64> = self.confirmed.iter().filter(is_lost).copied().collect();
        if !lost.is_empty() {
            let name = self.name(node);
            self.fail(format!("{name} is the primary without confirmed writes: {lost:?}"));
        }
    }

    /// What follows from what a node's machines have come to.
    fn settle(&mut self, node: usize) {
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

    fn confirm(&mut self, node: usize) {
        let now = self.local(node);
        while let Some(Waiting { write, seq }) = self.nodes[node].waiting.front().copied() {
            let its = &self.nodes[node];
            let names: Vec<Arc<str>> = its.downs.iter().map(|down| self.name(down.node)).collect();
            let has = its.downs.iter().zip(&names);
            let has = has.filter(|(down, name)| its.counting.contains(name) && down.machine.confirmed() >= seq);
            let is_confirmed = has.count() >= self.confirm as usize;
            let leads = its.succession.leads_until().is_some_and(|until| now < until);
            if !is_confirmed || !leads {
                return;
            }
            self.nodes[node].waiting.pop_front();
            self.counts.confirmed += 1;
            self.confirmed.insert(write);
            let fence = self.nodes[node].succession.leads();
            if !self.is_meddled && self.etcd.fence().is_some_and(|other| Some(other) > fence) {
                let name = self.name(node);
                self.fail(format!("{name} confirms {write} with {fence:?} when another has the key"));
            }
        }
    }

    // Time and etcd.

    fn reaches_etcd(&self, node: usize) -> bool {
        !self.nodes[node].is_cut_off_etcd && !self.etcd.is_away
    }

    fn request(&mut self, node: usize, request: Request) {
        let creation = self.nodes[node].me.creation;
        let after = match self.random.below(60) {
            0 => self.random.millis(1_000, 4_000),
            1..4 => self.random.millis(30, 1_500),
            _ => self.random.millis(1, 20),
        };
        if self.reaches_etcd(node) {
            let is_late = after > LOST;
            self.schedule(after, Event::Etcd { node, creation, request: request.clone(), is_late });
            if is_late {
                self.lose(node, request);
            }
        } else {
            self.lose(node, request);
        }
    }

    /// A request ends without an answer.
    fn lose(&mut self, node: usize, request: Request) {
        let message = match request {
            Request::Grant { question, .. } => Message::Input(Input::Granted { question, lease: None }),
            Request::Transact(Transaction { question, .. }) => {
                Message::Input(Input::Transacted { question, answer: Transacted::Failed })
            }
            Request::Read => Message::NotRead,
            // It is tried again.
            Request::Renew { .. } | Request::Revoke { .. } => return,
        };
        self.message_in(LOST, node, message);
    }

    fn serve(&mut self, node: usize, creation: u32, request: Request, is_late: bool) {
        if self.etcd.is_away {
            if !is_late && self.nodes[node].me.creation == creation {
                self.lose(node, request);
            }
            return;
        }
        let now = self.now;
        let answer = match &request {
            Request::Read => Some(Message::Keys {
                revision: self.etcd.revision,
                entries: self.etcd.keys.values().cloned().collect(),
                history: self.etcd.history.len(),
            }),
            Request::Grant { question, asked } => {
                let id = self.etcd.grant(now);
                Some(Message::Granted { question: *question, id, asked: *asked })
            }
            Request::Renew { id, asked } => {
                let is_there = self.etcd.renew(*id, now);
                Some(Message::Renewed { id: *id, asked: *asked, is_there })
            }
            Request::Revoke { id } => {
                self.etcd.revoke(*id);
                None
            }
            Request::Transact(transaction) => {
                let answer = self.etcd.transact(transaction);
                let keys = transaction.puts.iter().map(|(key, ..)| key).chain(&transaction.deletes);
                let keys: Vec<_> = keys.filter(|key| !matches!(key, Key::Report(_))).collect();
                if !keys.is_empty() {
                    let text = format!("{} writes {keys:?}: {answer:?}", self.nodes[node].me.node);
                    self.say(text);
                }
                Some(Message::Input(Input::Transacted { question: transaction.question, answer }))
            }
        };
        self.tell_all();
        if self.nodes[node].me.creation != creation || is_late {
            return;
        }
        match answer {
            Some(answer) if self.reaches_etcd(node) && self.random.below(100) > 0 => {
                let mut after = self.random.millis(1, 30);
                if let Message::Keys { history, .. } = &answer {
                    // What changes from here on comes behind it.
                    self.nodes[node].watching = Some(*history);
                    let at = (self.now + after).max(self.nodes[node].watch_at);
                    self.nodes[node].watch_at = at;
                    after = at - self.now;
                }
                self.message_in(after, node, answer);
            }
            _ => self.lose(node, request),
        }
    }

    fn tell_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.tell_rest(node));
    }

    /// Sends a node the changes that it was not sent.
    fn tell_rest(&mut self, node: usize) {
        let Some(told) = self.nodes[node].watching.filter(|_| self.nodes[node].is_alive) else { return };
        if !self.reaches_etcd(node) {
            return;
        }
        for revision in told..self.etcd.history.len() {
            let changes = self.etcd.history[revision].clone();
            let slow = if self.random.below(40) == 0 { 800 } else { 30 };
            let at = (self.now + self.random.millis(1, slow)).max(self.nodes[node].watch_at);
            self.nodes[node].watch_at = at;
            self.message_in(at - self.now, node, Message::Input(Input::Changed(changes)));
        }
        self.nodes[node].watching = Some(self.etcd.history.len());
    }

    // Connections.

    fn is_cut(&self, one: usize, other: usize) -> bool {
        self.cuts.contains(&(one.min(other), one.max(other)))
    }

    /// Whether a node has a connection to another, or gets one.
    pub(super) fn connect(&mut self, node: usize, other: usize) -> bool {
        if self.sees[node][other].is_some() {
            return true;
        }
        if self.is_cut(node, other) || !self.runs(other) || node == other {
            return false;
        }
        // The other side may take an earlier one for standing.
        if let Some(epoch) = self.sees[other][node] {
            self.lost(other, node, epoch);
        }
        self.epochs += 1;
        let epoch = self.epochs;
        (self.sees[node][other], self.sees[other][node]) = (Some(epoch), Some(epoch));
        for (one, two) in [(node, other), (other, node)] {
            for index in 0..self.nodes[one].downs.len() {
                if self.nodes[one].downs[index].node == two {
                    self.nodes[one].downs[index].machine.handle(DownInput::NodeArrived, self.now);
                }
            }
        }
        true
    }

    pub(super) fn link(&mut self, node: usize, other: usize, item: Item) {
        let Some(epoch) = self.sees[node][other] else { return };
        let after = self.random.millis(1, if self.random.0 & 31 == 0 { 300 } else { 15 });
        let last = self.link_at.get(&(node, other)).copied().unwrap_or(self.now);
        let at = (self.now + after).max(last);
        self.link_at.insert((node, other), at);
        self.message_in(at - self.now, other, Message::Link { from: node, epoch, item });
    }

    /// A node notices that a connection is lost.
    fn lost(&mut self, node: usize, peer: usize, epoch: u64) {
        if self.sees[node][peer] != Some(epoch) {
            return;
        }
        self.sees[node][peer] = None;
        for index in 0..self.nodes[node].downs.len() {
            let down = &self.nodes[node].downs[index];
            if down.node == peer
                && let Some((_, question)) = down.watched.clone()
            {
                self.nodes[node].downs[index].watched = None;
                let reason = crate::etf::OwnedTerm::atom("noconnection");
                self.down(node, index, DownInput::Down { question, reason });
            }
        }
        let name = self.name(peer);
        let watches: Vec<Pid> = self.nodes[node].watches.iter().filter(|pid| pid.node == name).cloned().collect();
        watches.iter().for_each(|pid| self.primary_down(node, pid));
        if let Some((question, to)) = self.nodes[node].dialled
            && to == peer
        {
            self.nodes[node].dialled = None;
            self.hand(node, Input::Disconnected { question });
        }
    }

    /// Both sides notice sooner or later that a connection is lost.
    fn break_link(&mut self, one: usize, other: usize, within: Duration) {
        for (node, peer) in [(one, other), (other, one)] {
            if let Some(epoch) = self.sees[node][peer] {
                let after = self.random.millis(1, within.as_millis() as u64);
                self.message_in(after, node, Message::Lost { peer, epoch });
            }
        }
    }

    fn dial(&mut self, node: usize, question: u64, to: &Arc<str>) {
        let to = self.node_of(to);
        let is_dead = !self.nodes[to].is_alive && !self.is_cut(node, to);
        let (after, input) = if self.connect(node, to) && self.nodes[to].is_alive {
            self.nodes[node].dialled = Some((question, to));
            (Duration::from_millis(5), Input::Connected { question, creation: self.nodes[to].me.creation })
        } else if is_dead {
            (Duration::from_millis(5), Input::NotConnected { question, is_gone: true })
        } else {
            (Duration::from_secs(3), Input::NotConnected { question, is_gone: false })
        };
        self.message_in(after, node, Message::Input(input));
    }

    // What happens to machines.

    fn kill(&mut self, node: usize) {
        let its = &mut self.nodes[node];
        (its.is_alive, its.is_stopped, its.lease, its.dialled) = (false, false, None, None);
        its.inbox.clear();
        its.waiting.clear();
        its.counting.clear();
        its.downs.clear();
        its.watches.clear();
        its.watching = None;
        for peer in 0..self.nodes.len() {
            self.sees[node][peer] = None;
            if let Some(epoch) = self.sees[peer][node] {
                let within = if self.is_cut(node, peer) { self.tick_time } else { Duration::from_millis(20) };
                let after = self.random.millis(1, within.as_millis() as u64);
                self.message_in(after, peer, Message::Lost { peer: node, epoch });
            }
        }
    }

    fn start_node(&mut self, node: usize, is_wiped: bool) {
        if self.nodes[node].is_alive {
            return;
        }
        self.creations += 1;
        let (now, creation) = (self.local(node), self.creations);
        let incarnation = self.random.next() >> 8;
        let me = Pid { creation, ..self.nodes[node].me.clone() };
        let config = self.config(node, &me);
        let its = &mut self.nodes[node];
        if !its.is_on_disk || is_wiped {
            its.data.clear();
            its.membership = Membership::default();
        }
        its.me = me;
        its.incarnation = incarnation;
        its.upstream = Upstream::new(incarnation, its.membership.clone(), its.data.is_empty());
        its.aside.clear();
        its.seq = 0;
        its.added = 0;
        its.told = None;
        its.succession = Succession::new(config, now);
        its.is_alive = true;
        its.watch_at = self.now;
        let text = format!("{} starts with {} pairs", self.name(node), self.nodes[node].data.len());
        self.say(text);
        self.begin(node);
    }

    fn happen(&mut self, event: Event) {
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
            Event::Starts { node } => {
                let is_wiped = self.random.below(10) == 0 && !self.is_calm;
                self.start_node(node, is_wiped);
            }
            Event::EtcdIsBack => self.etcd_is_back(),
        }
    }

    fn deliver(&mut self, node: usize, message: Message) {
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
                let is_well = !self.is_cut(node, peer) && self.runs(peer) && self.sees[peer][node] == Some(epoch);
                if !is_well {
                    self.lost(node, peer, epoch);
                }
            }
            Message::Kept { asked, asker } => self.kept(node, asked, asker),
        }
    }

    fn write(&mut self, node: usize) {
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

    fn fault(&mut self) {
        let len = self.nodes.len() as u64;
        let (node, other) = (self.random.below(len) as usize, self.random.below(len) as usize);
        let leader = (0..self.nodes.len()).find(|node| self.nodes[*node].succession.leads().is_some());
        // The primary more often than others.
        let node = leader.filter(|_| self.random.below(2) == 0).unwrap_or(node);
        let after = match self.random.below(5) {
            0 => self.random.millis(10_000, 35_000),
            1 => self.random.millis(50, 600),
            _ => self.random.millis(100, 9_000),
        };
        match self.random.below(12) {
            0..3 if self.nodes[node].is_alive => {
                self.say(format!("{} is killed", self.name(node)));
                self.kill(node);
                self.schedule(after, Event::Starts { node });
            }
            3..5 if self.runs(node) => {
                self.say(format!("{} is stopped", self.name(node)));
                self.nodes[node].is_stopped = true;
                (0..self.nodes.len()).for_each(|peer| {
                    if let Some(epoch) = self.sees[peer][node] {
                        self.message_in(self.tick_time, peer, Message::Lost { peer: node, epoch });
                    }
                });
                self.schedule(after, Event::GoesOn { node });
            }
            5..7 if !self.nodes[node].is_cut_off_etcd => {
                self.say(format!("{} is cut off etcd", self.name(node)));
                self.nodes[node].is_cut_off_etcd = true;
                if self.random.below(3) == 0 {
                    (0..self.nodes.len()).for_each(|other| self.cut(node, other, after));
                }
                self.schedule(after, Event::EndsCutOffEtcd { node });
            }
            7..9 => self.cut(node, other, after),
            9 if !self.etcd.is_away => {
                self.say("etcd is away".to_owned());
                self.etcd.is_away = true;
                let after = self.random.millis(100, 7_000);
                self.schedule(after, Event::EtcdIsBack);
            }
            10 if self.runs(node) => {
                self.say(format!("{} leaves", self.name(node)));
                self.hand(node, Input::Leave);
                self.settle(node);
            }
            11 if self.is_meddled && !self.etcd.is_away => {
                let keys: Vec<Key> = self.etcd.keys.keys().filter(|key| **key != Key::Record).cloned().collect();
                if !keys.is_empty() {
                    let at = self.random.below(keys.len() as u64) as usize;
                    let key = if self.random.below(2) == 0 { keys[0].clone() } else { keys[at].clone() };
                    self.say(format!("a person deletes {key}"));
                    self.etcd.delete(vec![key]);
                    self.tell_all();
                }
            }
            _ => {}
        }
    }

    fn cut(&mut self, one: usize, other: usize, after: Duration) {
        if one != other && self.cuts.insert((one.min(other), one.max(other))) {
            self.say(format!("{} and {} are cut apart", self.name(one), self.name(other)));
            self.break_link(one, other, self.tick_time);
            self.schedule(after, Event::EndsCut { one, other });
        }
    }

    fn heal(&mut self, one: usize, other: usize) {
        self.cuts.remove(&(one.min(other), one.max(other)));
        // What was lost on the way makes the connection end.
        self.break_link(one, other, Duration::from_millis(20));
        for (node, peer) in [(one, other), (other, one)] {
            if let Some(epoch) = self.sees[node][peer] {
                self.lost(node, peer, epoch);
            }
        }
    }

    fn reach_etcd(&mut self, node: usize) {
        self.nodes[node].is_cut_off_etcd = false;
        self.tell_rest(node);
    }

    fn go_on(&mut self, node: usize) {
        if self.nodes[node].is_alive && self.nodes[node].is_stopped {
            self.say(format!("{} goes on", self.name(node)));
            self.nodes[node].is_stopped = false;
            // Of connections that the others have given up it is told.
            for peer in 0..self.nodes.len() {
                if let Some(epoch) = self.sees[node][peer].filter(|epoch| self.sees[peer][node] != Some(*epoch)) {
                    self.message_in(Duration::from_millis(25), node, Message::Lost { peer, epoch });
                }
            }
            for message in std::mem::take(&mut self.nodes[node].inbox) {
                if self.nodes[node].is_alive {
                    self.deliver(node, message);
                    self.settle(node);
                }
            }
        }
    }

    fn etcd_is_back(&mut self) {
        if self.etcd.is_away {
            let now = self.now;
            self.etcd.is_back(now);
            self.tell_all();
        }
    }

    /// No more faults: all runs, and reaches all.
    fn calm(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.is_calm = true;
        self.say("all is well".to_owned());
        self.etcd_is_back();
        for node in 0..self.nodes.len() {
            self.reach_etcd(node);
            self.go_on(node);
            self.start_node(node, false);
            (0..node).for_each(|other| self.heal(node, other));
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| {
            self.runs(*node) && self.nodes[*node].succession.leads_until().is_some_and(|until| until > self.local(*node))
        };
        (0..self.nodes.len()).find(leads)
    }

    /// Where no election can be sure, in a calm world, a person has one node be the primary.
    fn force(&mut self) {
        if self.leader().is_some() {
            return;
        }
        let can_be_sure = self.nodes.iter().all(|its| its.is_on_disk) && !self.tale.iter().any(|line| line.ends_with(" 0 pairs"));
        if can_be_sure {
            return self.fail("no primary, and all data is there".to_owned());
        }
        // An election that waits says how many reports it waits for.
        let round = self.nodes[0].succession.view().round;
        if round.is_none_or(|(counted, needed)| counted >= needed) {
            return self.fail(format!("no primary, and an election that could be: {round:?}"));
        }
        self.is_forced = true;
        self.counts.forced += 1;
        let node = (0..self.nodes.len()).max_by_key(|node| self.nodes[*node].data.len()).expect("one");
        self.say(format!("a person forces {}", self.name(node)));
        self.hand(node, Input::Force);
    }

    /// All stores, for a failure.
    fn describe(&self) -> String {
        let node = |node: &Node| {
            let downs: Vec<_> = node.downs.iter().map(|down| (down.node, down.machine.standing())).collect();
            let up = node.upstream.primary().map(|up| (up.greeting.pid.clone(), up.standing, up.applied));
            format!("\n{:?} {:?} {:?} up {up:?} downs {downs:?} pairs {} {:?}", node.me, node.upstream.lineage(), node.succession.view().role, node.data.len(), node.upstream)
        };
        self.nodes.iter().map(node).collect()
    }

    fn check_end(&mut self) -> Result<(), String> {
        let Some(leader) = self.leader() else { return Err("no primary in the end".to_owned()) };
        let others = (0..self.nodes.len()).filter(|node| self.nodes[*node].succession.leads().is_some()).count();
        if others > 1 {
            return Err(format!("{others} primaries in the end"));
        }
        if !self.is_forced && self.last_led > start() + RUN + SOON {
            return Err("the last primary came late".to_owned());
        }
        let all: Vec<u64> = self.nodes[leader].data.values().copied().collect();
        let is_lost = |write: &&u64| !self.nodes[leader].data.contains_key(&*encode(|w| _ = w.unsigned(**write)));
        let lost: Vec<&u64> = self.confirmed.iter().filter(is_lost).collect();
        if !lost.is_empty() {
            return Err(format!("confirmed writes are lost: {lost:?}"));
        }
        // What was written last is on its way.
        let newest = |data: &Data| data.values().filter(|write| **write + 5 < self.writes).copied().collect::<BTreeSet<_>>();
        for node in &self.nodes {
            if newest(&node.data) != newest(&self.nodes[leader].data) {
                return Err(format!("{:?} holds {} pairs, and the primary {} {:?}", node.me, node.data.len(), all.len(), self.describe()));
            }
        }
        let members = self.etcd.record().map_or(0, |record| record.base.members.len());
        if members + 1 != self.nodes.len() {
            return Err(format!("{members} members in the end"));
        }
        Ok(())
    }
}
