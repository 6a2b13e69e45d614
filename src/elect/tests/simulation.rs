//! Several candidates, an etcd with leases, and what happens to machines: kills, stops, cuts, in virtual time.
//!
//! The candidates are the product's own; the shell and etcd are modelled here. A run is the same for a seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{pid, start};
use crate::elect::{Campaign, Campaigned, Candidate, Former, Held, Input, Life, Output};
use crate::etf::Pid;

const NODES: usize = 3;
const TTL: Duration = Duration::from_secs(4);
/// Faults happen for so long, and then there are none for as long again.
const RUN: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(30);
/// A request that is lost ends so late.
const LOST: Duration = Duration::from_secs(2);
/// A connection that is cut ends so late.
const TICK_TIME: Duration = Duration::from_secs(10);
/// In a calm world there is a holder again after this.
const SOON: Duration = Duration::from_secs(12);

/// A rule that the simulation breaks, to see that it notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Planted {
    Nothing,
    /// A lease is taken to last longer than it does.
    LeaseThatLasts,
    /// etcd takes a campaign whatever is compared.
    NoCompare,
    /// A node that cannot be reached counts as gone.
    CutIsGone,
    /// A candidate that is told of its lease's end takes it for held.
    NeverGivesUp,
}

/// splitmix64
pub(in crate::elect) struct Random(pub(in crate::elect) u64);

impl Random {
    pub(in crate::elect) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::elect) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(in crate::elect) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    No,
    /// From etcd alone.
    Etcd,
    /// From everything.
    All,
}

/// The lease of a candidate, as its shell keeps it.
#[derive(Clone, Copy, Debug)]
struct Kept {
    id: i64,
    until: Instant,
    renew_at: Instant,
}

struct Node {
    me: Pid,
    candidate: Candidate,
    is_alive: bool,
    is_stopped: bool,
    cut: Cut,
    lease: Option<Kept>,
    /// What came while it was stopped.
    inbox: Vec<Message>,
    /// So many changes of the keys were sent to it.
    told: usize,
    /// Watch events arrive in order.
    watch_at: Instant,
    dialled: u64,
}

#[derive(Clone, Debug)]
enum Message {
    Input(Input),
    Granted { question: u64, id: i64, asked: Instant },
    Renewed { id: i64, asked: Instant, is_there: bool },
}

#[derive(Clone, Debug)]
enum Request {
    Grant { question: u64, asked: Instant },
    Renew { id: i64, asked: Instant },
    Campaign(Campaign),
    Revoke { id: i64 },
}

#[derive(Clone, Debug)]
enum Event {
    Node { node: usize, creation: u32, message: Message },
    Etcd { node: usize, creation: u32, request: Request },
    Fault,
    EndsCut { node: usize },
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

#[derive(Clone, Debug)]
enum Change {
    Held(i64, Option<Held>),
    Former(i64, Former),
}

struct World {
    random: Random,
    planted: Planted,
    now: Instant,
    number: u64,
    events: BTreeMap<(Instant, u64), Event>,
    nodes: Vec<Node>,
    creations: u32,
    // etcd
    is_away: bool,
    revision: i64,
    held: Option<Held>,
    former: Former,
    leases: BTreeMap<i64, Instant>,
    history: Vec<Change>,
    /// Connections: dialler, its question, its life, the other.
    connections: Vec<(usize, u64, u32, usize)>,
    is_calm: bool,
    /// What has happened, for who reads a failure.
    tale: Vec<String>,
    holdings: usize,
}

/// Runs a seed; gives how often a candidate came to hold, or what went wrong.
pub(super) fn run(seed: u64, planted: Planted) -> Result<usize, String> {
    let mut world = World::new(seed, planted);
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
            Next::LeaseEnds => world.expire(),
        }
        world.check()?;
    }
    world.now = over;
    world.check_end()?;
    Ok(world.holdings)
}

impl World {
    fn new(seed: u64, planted: Planted) -> Self {
        let now = start();
        let mut world = Self {
            random: Random(seed),
            planted,
            now,
            number: 0,
            events: BTreeMap::new(),
            nodes: Vec::new(),
            creations: 0,
            is_away: false,
            revision: 1,
            held: None,
            former: Former::default(),
            leases: BTreeMap::new(),
            history: Vec::new(),
            connections: Vec::new(),
            is_calm: false,
            tale: Vec::new(),
            holdings: 0,
        };
        for node in 0..NODES {
            world.creations += 1;
            let me = pid(&format!("k{node}@h"), world.creations);
            world.nodes.push(Node {
                candidate: Candidate::new(me.clone(), now),
                me,
                is_alive: true,
                is_stopped: false,
                cut: Cut::No,
                lease: None,
                inbox: Vec::new(),
                told: 0,
                watch_at: now,
                dialled: 0,
            });
            world.begin(node);
        }
        world.schedule(Duration::from_secs(1), Event::Fault);
        world
    }

    fn begin(&mut self, node: usize) {
        self.nodes[node].told = self.history.len();
        self.nodes[node].watch_at = self.now;
        let (revision, held, former) = (self.revision, self.held.clone(), self.former.clone());
        self.send(node, Message::Input(Input::Keys { revision, held, former }));
        self.carry_out(node);
    }

    fn say(&mut self, text: String) {
        let at = self.now.duration_since(start()).as_millis();
        self.tale.push(format!("{at:>6} {text}"));
    }

    fn schedule(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.events.insert((self.now + after, self.number), event);
    }

    fn message_in(&mut self, after: Duration, node: usize, message: Message) {
        let creation = self.nodes[node].me.creation;
        self.schedule(after, Event::Node { node, creation, message });
    }

    fn send(&mut self, node: usize, message: Message) {
        let after = self.random.millis(1, 30);
        self.message_in(after, node, message);
    }

    /// What happens next: a message, a time that a candidate waits for, or the end of a lease.
    fn next(&self) -> Option<(Instant, Next)> {
        let wakes = (0..self.nodes.len()).filter(|node| self.runs(*node)).filter_map(|node| {
            let its = &self.nodes[node];
            let renewal = its.lease.map(|lease| lease.renew_at);
            let at = its.candidate.poll_timeout().into_iter().chain(renewal).min();
            at.map(|at| (at, Next::Wakes(node)))
        });
        let ends = self.leases.values().min().filter(|_| !self.is_away).map(|at| (*at, Next::LeaseEnds));
        let event = self.events.keys().next().map(|key| (key.0, Next::Event(*key)));
        wakes.chain(ends).chain(event).min_by_key(|(at, _)| *at)
    }

    fn runs(&self, node: usize) -> bool {
        self.nodes[node].is_alive && !self.nodes[node].is_stopped
    }

    fn wake(&mut self, node: usize) {
        let now = self.now;
        if let Some(lease) = &mut self.nodes[node].lease
            && lease.renew_at <= now
        {
            lease.renew_at = now + Duration::from_millis(200);
            let id = lease.id;
            self.request(node, Request::Renew { id, asked: now });
        }
        self.hand(node, Input::Time);
    }

    fn hand(&mut self, node: usize, input: Input) {
        let (now, planted) = (self.now, self.planted);
        let its = &mut self.nodes[node];
        if let Some(lease) = its.lease {
            let until = Some(lease.until).filter(|until| *until > now);
            if until.is_none() {
                its.lease = None;
            }
            let until = if planted == Planted::NeverGivesUp { Some(now + TTL) } else { until };
            its.candidate.handle(Input::LeaseUntil(until), now);
        }
        its.candidate.handle(input, now);
        self.carry_out(node);
    }

    fn carry_out(&mut self, node: usize) {
        while let Some(output) = self.nodes[node].candidate.poll_output() {
            let now = self.now;
            match output {
                Output::Lease { question } => {
                    self.nodes[node].lease = None;
                    self.request(node, Request::Grant { question, asked: now });
                }
                Output::Campaign(campaign) => self.request(node, Request::Campaign(campaign)),
                Output::CatchUp { question } => {
                    let is_done = self.reaches_etcd(node);
                    let after = if is_done { self.random.millis(2, 200) } else { LOST };
                    self.message_in(after, node, Message::Input(Input::CaughtUp { question, is_done }));
                }
                Output::Hold { former } => {
                    self.holdings += 1;
                    let me = Life::of(&self.nodes[node].me);
                    assert!(!former.contains(&me), "a candidate is before itself");
                    self.say(format!("{:?} holds", self.nodes[node].me));
                }
                Output::GiveUp { question, .. } => {
                    self.say(format!("{:?} gives up", self.nodes[node].me));
                    self.send(node, Message::Input(Input::GivenUp { question }));
                }
                Output::Dial { question, node: to } => self.dial(node, question, &to),
                Output::Revoke => {
                    if let Some(lease) = self.nodes[node].lease.take() {
                        self.request(node, Request::Revoke { id: lease.id });
                    }
                }
                Output::End => {
                    self.say(format!("{:?} ends", self.nodes[node].me));
                    self.kill(node);
                    let after = self.random.millis(100, 3_000);
                    self.schedule(after, Event::Starts { node });
                }
                Output::HeldBy(_) => {}
                Output::Namesake(other) => panic!("{other:?} is of a node with another's name"),
            }
        }
    }

    fn reaches_etcd(&self, node: usize) -> bool {
        self.nodes[node].cut == Cut::No && !self.is_away
    }

    fn request(&mut self, node: usize, request: Request) {
        let creation = self.nodes[node].me.creation;
        let slow = self.random.below(20) == 0;
        let after = if slow { self.random.millis(30, 1_500) } else { self.random.millis(1, 20) };
        if self.reaches_etcd(node) {
            self.schedule(after, Event::Etcd { node, creation, request });
        } else {
            self.lose(node, request);
        }
    }

    /// A request ends without an answer.
    fn lose(&mut self, node: usize, request: Request) {
        let message = match request {
            Request::Grant { question, .. } => Message::Input(Input::Granted { question, lease: None }),
            Request::Campaign(Campaign { question, .. }) => {
                Message::Input(Input::Campaigned { question, answer: Campaigned::Failed })
            }
            // It is tried again.
            Request::Renew { .. } | Request::Revoke { .. } => return,
        };
        self.message_in(LOST, node, message);
    }

    fn dial(&mut self, node: usize, question: u64, to: &Arc<str>) {
        self.nodes[node].dialled = question;
        let to = self.nodes.iter().position(|other| other.me.node == *to).expect("it is one of them");
        let is_cut = self.nodes[node].cut == Cut::All || self.nodes[to].cut == Cut::All;
        let (after, input) = if is_cut || self.nodes[to].is_alive && self.nodes[to].is_stopped {
            let is_gone = self.planted == Planted::CutIsGone;
            (Duration::from_secs(3), Input::NotConnected { question, is_gone })
        } else if self.nodes[to].is_alive {
            let (creation, own) = (self.nodes[to].me.creation, self.nodes[node].me.creation);
            self.connections.push((node, question, own, to));
            (self.random.millis(1, 30), Input::Connected { question, creation })
        } else {
            (self.random.millis(1, 10), Input::NotConnected { question, is_gone: true })
        };
        self.message_in(after, node, Message::Input(input));
    }

    fn disconnect(&mut self, of: usize, after: Duration, whose: impl Fn(&(usize, u64, u32, usize)) -> bool) {
        let gone: Vec<_> = self.connections.extract_if(.., |connection| whose(connection)).collect();
        for (node, question, creation, _) in gone {
            if node != of || self.nodes[node].is_alive {
                let after = after + self.random.millis(1, 20);
                let message = Message::Input(Input::Disconnected { question });
                self.schedule(after, Event::Node { node, creation, message });
            }
        }
    }

    fn kill(&mut self, node: usize) {
        let its = &mut self.nodes[node];
        (its.is_alive, its.is_stopped, its.lease) = (false, false, None);
        its.inbox.clear();
        // What is cut off is not heard to end.
        let after = if self.nodes[node].cut == Cut::All { TICK_TIME } else { Duration::ZERO };
        self.disconnect(node, after, |(_, _, _, to)| *to == node);
        self.connections.retain(|(from, ..)| *from != node);
    }

    fn start(&mut self, node: usize) {
        if self.nodes[node].is_alive {
            return;
        }
        self.creations += 1;
        let (now, creation) = (self.now, self.creations);
        let its = &mut self.nodes[node];
        its.me = Pid { creation, ..its.me.clone() };
        its.candidate = Candidate::new(its.me.clone(), now);
        its.is_alive = true;
        self.say(format!("{:?} starts", self.nodes[node].me));
        self.begin(node);
        if !self.reaches_etcd(node) {
            // It knows nothing until the cut is over: then its watch tells.
            self.nodes[node].told = 0;
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Node { node, creation, message } => {
                let its = &mut self.nodes[node];
                if !its.is_alive || its.me.creation != creation {
                    return;
                }
                if its.is_stopped {
                    its.inbox.push(message);
                } else {
                    self.deliver(node, message);
                }
            }
            Event::Etcd { node, creation, request } => {
                if self.is_away {
                    return self.lose(node, request);
                }
                let is_it = self.nodes[node].me.creation == creation;
                let answer = self.serve(node, &request);
                if !is_it {
                } else if let Some(answer) = answer.filter(|_| self.reaches_etcd(node)) {
                    self.send(node, answer);
                } else {
                    self.lose(node, request);
                }
            }
            Event::Fault if self.is_calm => {}
            Event::Fault => {
                self.fault();
                let after = self.random.millis(50, 6_000);
                self.schedule(after, Event::Fault);
            }
            Event::EndsCut { node } => self.heal(node),
            Event::GoesOn { node } => self.go_on(node),
            Event::Starts { node } => self.start(node),
            Event::EtcdIsBack => self.etcd_is_back(),
        }
    }

    fn deliver(&mut self, node: usize, message: Message) {
        let now = self.now;
        match message {
            Message::Input(input) => self.hand(node, input),
            Message::Granted { question, id, asked } => {
                let until = self.until(asked);
                self.nodes[node].lease = Some(Kept { id, until, renew_at: asked + TTL / 3 });
                let lease = Some((id, until)).filter(|_| until > now);
                // The candidate is told of it first by this.
                self.nodes[node].candidate.handle(Input::Granted { question, lease }, now);
                self.carry_out(node);
            }
            Message::Renewed { id, asked, is_there } => {
                let until = self.until(asked);
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
        }
    }

    fn until(&self, asked: Instant) -> Instant {
        let more = if self.planted == Planted::LeaseThatLasts { TTL } else { Duration::ZERO };
        asked + (TTL - TTL / 100) + more
    }

    fn serve(&mut self, node: usize, request: &Request) -> Option<Message> {
        let expires = self.now + TTL;
        match request {
            Request::Grant { question, asked } => {
                let id = self.leases.keys().last().map_or(1, |last| last + 1).max(self.number as i64);
                self.leases.insert(id, expires);
                Some(Message::Granted { question: *question, id, asked: *asked })
            }
            Request::Renew { id, asked } => {
                let is_there = self.leases.get_mut(id).map(|at| *at = expires).is_some();
                Some(Message::Renewed { id: *id, asked: *asked, is_there })
            }
            Request::Revoke { id } => {
                self.leases.remove(id);
                self.drop_key_of(*id);
                None
            }
            Request::Campaign(campaign) => {
                let answer = self.campaign(node, campaign);
                Some(Message::Input(Input::Campaigned { question: campaign.question, answer }))
            }
        }
    }

    fn campaign(&mut self, node: usize, campaign: &Campaign) -> Campaigned {
        if !self.leases.contains_key(&campaign.lease) {
            return Campaigned::Failed;
        }
        let is_as_compared = self.held.as_ref().map_or(0, |held| held.mod_revision) == campaign.held_was
            && self.former.mod_revision == campaign.former_was;
        if !is_as_compared && self.planted != Planted::NoCompare {
            let (held, former) = (self.held.clone(), self.former.clone());
            return Campaigned::Lost { revision: self.revision, held, former };
        }
        self.revision += 1;
        let (mod_revision, by) = (self.revision, Some(self.nodes[node].me.clone()));
        self.say(format!("{by:?} takes the key"));
        self.held = Some(Held { mod_revision, by, lease: campaign.lease });
        self.former = Former { mod_revision, lives: campaign.former.clone() };
        self.tell(Change::Held(self.revision, self.held.clone()));
        self.tell(Change::Former(self.revision, self.former.clone()));
        Campaigned::Won { revision: self.revision }
    }

    fn expire(&mut self) {
        let now = self.now;
        let ended: Vec<i64> = self.leases.extract_if(.., |_, at| *at <= now).map(|(id, _)| id).collect();
        ended.into_iter().for_each(|id| self.drop_key_of(id));
    }

    fn drop_key_of(&mut self, lease: i64) {
        if self.held.as_ref().is_some_and(|held| held.lease == lease) {
            self.revision += 1;
            self.held = None;
            self.say("the key goes".to_owned());
            self.tell(Change::Held(self.revision, None));
        }
    }

    fn tell(&mut self, change: Change) {
        self.history.push(change);
        (0..self.nodes.len()).for_each(|node| self.tell_rest(node));
    }

    /// Sends a node the changes that it was not sent.
    fn tell_rest(&mut self, node: usize) {
        if !self.nodes[node].is_alive || !self.reaches_etcd(node) {
            return;
        }
        let changes = self.history[self.nodes[node].told..].to_vec();
        for change in changes {
            let input = match change {
                Change::Held(revision, held) => Input::Held { revision, held },
                Change::Former(revision, former) => Input::Former { revision, former },
            };
            let at = (self.now + self.random.millis(1, 30)).max(self.nodes[node].watch_at);
            self.nodes[node].watch_at = at;
            self.message_in(at - self.now, node, Message::Input(input));
        }
        self.nodes[node].told = self.history.len();
    }

    fn fault(&mut self) {
        let node = self.random.below(NODES as u64) as usize;
        let after = self.random.millis(100, 15_000);
        match self.random.below(6) {
            0 => {
                if self.nodes[node].is_alive {
                    self.say(format!("{:?} is killed", self.nodes[node].me));
                    self.kill(node);
                    self.schedule(after, Event::Starts { node });
                }
            }
            1 => {
                if self.nodes[node].is_alive && !self.nodes[node].is_stopped {
                    self.say(format!("{:?} is stopped", self.nodes[node].me));
                    self.nodes[node].is_stopped = true;
                    self.schedule(after, Event::GoesOn { node });
                }
            }
            2 | 3 => {
                if self.nodes[node].cut == Cut::No {
                    let cut = if self.random.below(2) == 0 { Cut::Etcd } else { Cut::All };
                    self.say(format!("{:?} is cut from {cut:?}", self.nodes[node].me));
                    self.nodes[node].cut = cut;
                    if cut == Cut::All {
                        self.disconnect(node, TICK_TIME, |(from, _, _, to)| *from == node || *to == node);
                    }
                    self.schedule(after, Event::EndsCut { node });
                }
            }
            4 if !self.is_away => {
                self.say("etcd is away".to_owned());
                self.is_away = true;
                let after = self.random.millis(100, 6_000);
                self.schedule(after, Event::EtcdIsBack);
            }
            _ => {
                if self.runs(node) && !self.nodes[node].candidate.is_over() {
                    self.say(format!("{:?} leaves", self.nodes[node].me));
                    self.hand(node, Input::Leave);
                }
            }
        }
    }

    fn heal(&mut self, node: usize) {
        self.nodes[node].cut = Cut::No;
        self.tell_rest(node);
    }

    fn go_on(&mut self, node: usize) {
        if !self.nodes[node].is_alive || !self.nodes[node].is_stopped {
            return;
        }
        self.say(format!("{:?} goes on", self.nodes[node].me));
        self.nodes[node].is_stopped = false;
        for message in std::mem::take(&mut self.nodes[node].inbox) {
            self.deliver(node, message);
        }
    }

    fn etcd_is_back(&mut self) {
        self.is_away = false;
        // A new leader gives each lease all of its time.
        let expires = self.now + TTL;
        self.leases.values_mut().for_each(|at| *at = expires);
        (0..NODES).for_each(|node| self.tell_rest(node));
    }

    /// No more faults: all runs, and reaches all.
    fn calm(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.is_calm = true;
        self.say("all is well".to_owned());
        if self.is_away {
            self.etcd_is_back();
        }
        for node in 0..NODES {
            self.heal(node);
            self.go_on(node);
            self.start(node);
        }
    }

    /// Those that hold now by their own clocks.
    fn holders(&self) -> Vec<usize> {
        let holds = |node: &usize| {
            self.runs(*node)
                && self.nodes[*node].candidate.holds_until().is_some_and(|until| until > self.now)
        };
        (0..self.nodes.len()).filter(holds).collect()
    }

    fn check(&self) -> Result<(), String> {
        let holders = self.holders();
        if holders.len() > 1 {
            let names: Vec<_> = holders.iter().map(|node| &self.nodes[*node].me).collect();
            return Err(format!("{names:?} hold at the same time\n{}", self.tale.join("\n")));
        }
        Ok(())
    }

    fn check_end(&self) -> Result<(), String> {
        let holders = self.holders();
        let by = self.held.as_ref().and_then(|held| held.by.clone());
        let is_well = holders.len() == 1 && by.as_ref() == Some(&self.nodes[holders[0]].me);
        let since = CALM - SOON;
        let last = self.tale.iter().rposition(|line| line.ends_with("holds")).map(|at| &self.tale[at]);
        let at = last.and_then(|line| line.split_whitespace().next()?.parse::<u128>().ok());
        let is_soon = at.is_some_and(|at| at <= (RUN + CALM - since).as_millis());
        if is_well && is_soon {
            return Ok(());
        }
        Err(format!("in the end {holders:?} hold and the key is of {by:?}\n{}", self.tale.join("\n")))
    }
}
