//! The connections of the nodes to each other and to etcd, with what is lost and late on them.

use std::sync::Arc;
use std::time::Duration;

use super::world::{Event, Item, LOST, Message, Request, World};
use crate::elect::succession::{Input, Key, Transacted, Transaction};
use crate::etf::{OwnedTerm, Pid};
use crate::replica::downstream::Input as DownInput;

impl World {
    // Time and etcd.

    pub(super) fn reaches_etcd(&self, node: usize) -> bool {
        !self.nodes[node].is_cut_off_etcd && !self.etcd.is_away
    }

    pub(super) fn request(&mut self, node: usize, request: Request) {
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
    pub(super) fn lose(&mut self, node: usize, request: Request) {
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

    pub(super) fn serve(&mut self, node: usize, creation: u32, request: Request, is_late: bool) {
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
                let before = self.etcd.record();
                let answer = self.etcd.transact(transaction);
                let fence = self.etcd.record().map_or(0, |record| record.fence);
                if let Some(before) = before.filter(|before| before.fence != fence) {
                    self.chosen_by.insert(fence, before);
                }
                if let Some(record) = self.etcd.record().filter(|record| record.base.fence != self.base_at.0)
                {
                    self.base_at = (record.base.fence, now);
                }
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

    pub(super) fn tell_all(&mut self) {
        (0..self.nodes.len()).for_each(|node| self.tell_rest(node));
    }

    /// Sends a node the changes that it was not sent.
    pub(super) fn tell_rest(&mut self, node: usize) {
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

    pub(super) fn is_cut(&self, one: usize, other: usize) -> bool {
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
    pub(super) fn lost(&mut self, node: usize, peer: usize, epoch: u64) {
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
                let reason = OwnedTerm::atom("noconnection");
                self.down(node, index, DownInput::Down { question, reason });
            }
        }
        let name = self.name(peer);
        let watches: Vec<Pid> =
            self.nodes[node].watches.iter().filter(|pid| pid.node == name).cloned().collect();
        watches.iter().for_each(|pid| self.primary_down(node, pid));
        if let Some((question, to)) = self.nodes[node].dialled
            && to == peer
        {
            self.nodes[node].dialled = None;
            self.hand(node, Input::Disconnected { question });
        }
    }

    /// Both sides notice sooner or later that a connection is lost.
    pub(super) fn break_link(&mut self, one: usize, other: usize, within: Duration) {
        for (node, peer) in [(one, other), (other, one)] {
            if let Some(epoch) = self.sees[node][peer] {
                let after = self.random.millis(1, within.as_millis() as u64);
                self.message_in(after, node, Message::Lost { peer, epoch });
            }
        }
    }

    pub(super) fn dial(&mut self, node: usize, question: u64, to: &Arc<str>) {
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
}
