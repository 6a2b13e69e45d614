//! What happens to machines.

use std::time::{Duration, Instant};

use super::world::{Event, Message, World};
use crate::elect::succession::{Input, Key, Succession};
use crate::etf::Pid;
use crate::replica::{Membership, Upstream};

impl World {
    // What happens to machines.

    pub(super) fn kill(&mut self, node: usize) {
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

    pub(super) fn start_node(&mut self, node: usize, is_wiped: bool) {
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
            its.lost_at = Some(self.now);
            its.data.clear();
            its.brought.clear();
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

    pub(super) fn fault(&mut self) {
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
        match self.random.below(13) {
            12 => {
                if let Some(leader) = leader.filter(|_| self.random.below(2) == 0) {
                    self.leave_one(leader);
                }
            }
            0..3 => self.kill_for(node, after),
            3..5 => self.stop_for(node, after),
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
                let keys: Vec<Key> =
                    self.etcd.keys.keys().filter(|key| **key != Key::Record).cloned().collect();
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

    pub(super) fn kill_for(&mut self, node: usize, after: Duration) {
        if self.nodes[node].is_alive && !self.is_calm {
            self.say(format!("{} is killed", self.name(node)));
            self.kill(node);
            self.schedule(after, Event::Starts { node });
        }
    }

    fn stop_for(&mut self, node: usize, after: Duration) {
        if self.runs(node) {
            self.say(format!("{} is stopped", self.name(node)));
            self.nodes[node].is_stopped = true;
            (0..self.nodes.len()).for_each(|peer| {
                if let Some(epoch) = self.sees[peer][node] {
                    self.message_in(self.tick_time, peer, Message::Lost { peer: node, epoch });
                }
            });
            self.schedule(after, Event::GoesOn { node });
        }
    }

    /// One slave alone is there for some writes, and goes; the others come back when the primary goes.
    fn leave_one(&mut self, primary: usize) {
        let one = (primary + 1 + self.random.below(self.nodes.len() as u64 - 1) as usize) % self.nodes.len();
        let others = (0..self.nodes.len()).filter(|node| ![primary, one].contains(node));
        for other in others.collect::<Vec<_>>() {
            let after = self.random.millis(12_000, 15_000);
            self.stop_for(other, after);
        }
        let (soon, late) = (self.random.millis(100, 1_500), self.random.millis(11_000, 14_000));
        self.schedule(soon, Event::Kills { node: one, after: Duration::from_secs(30) });
        self.schedule(late, Event::Kills { node: primary, after: Duration::from_secs(20) });
    }

    pub(super) fn cut(&mut self, one: usize, other: usize, after: Duration) {
        if one != other && self.cuts.insert((one.min(other), one.max(other))) {
            self.say(format!("{} and {} are cut apart", self.name(one), self.name(other)));
            self.break_link(one, other, self.tick_time);
            self.schedule(after, Event::EndsCut { one, other });
        }
    }

    pub(super) fn heal(&mut self, one: usize, other: usize) {
        self.cuts.remove(&(one.min(other), one.max(other)));
        // What was lost on the way makes the connection end.
        self.break_link(one, other, Duration::from_millis(20));
        for (node, peer) in [(one, other), (other, one)] {
            if let Some(epoch) = self.sees[node][peer] {
                self.lost(node, peer, epoch);
            }
        }
    }

    pub(super) fn reach_etcd(&mut self, node: usize) {
        self.nodes[node].is_cut_off_etcd = false;
        self.tell_rest(node);
    }

    pub(super) fn go_on(&mut self, node: usize) {
        if self.nodes[node].is_alive && self.nodes[node].is_stopped {
            self.say(format!("{} goes on", self.name(node)));
            self.nodes[node].is_stopped = false;
            // Of connections that the others have given up it is told.
            for peer in 0..self.nodes.len() {
                if let Some(epoch) =
                    self.sees[node][peer].filter(|epoch| self.sees[peer][node] != Some(*epoch))
                {
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

    pub(super) fn etcd_is_back(&mut self) {
        if self.etcd.is_away {
            let now = self.now;
            self.etcd.come_back(now);
            self.tell_all();
        }
    }

    /// No more faults: all runs, and reaches all.
    pub(super) fn calm(&mut self, at: Instant) {
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
}
