//! The connections between virtual nodes: in each direction the messages arrive in the order sent, some time. One that breaks
//! is noticed on each side for itself, behind some of what was under way; the rest is lost.

use std::collections::VecDeque;
use std::sync::Arc;

use kvnode::distribution::{DistributionFlags, FrameForm, Outbound, RemoteProcess};
use kvnode::etf::{OwnedTerm, Pid};
use kvnode::process::peer::Frame;
use kvnode::process::{MonitorRequest, Outcome, Peer};

use super::world::World;

/// What is on its way to a node.
pub enum Item {
    /// A signal.
    Frame(Vec<u8>),
    /// Who has this name?
    WhereIs { name: Arc<str>, question: (usize, u64) },
    /// This process, if any.
    IsAt { question: (usize, u64), at: Option<Pid> },
}

/// One side of a connection.
pub struct End {
    peer: Peer,
    inbox: VecDeque<Item>,
    /// The other side is gone, which this one has not noticed.
    broken: bool,
}

impl World {
    pub fn is_up(&self, node: usize, other: usize) -> bool {
        self.ends[node][other].is_some()
    }

    /// Whether there is something to deliver.
    pub fn has_news(&self, node: usize, from: usize) -> bool {
        self.ends[node][from].as_ref().is_some_and(|end| end.broken || !end.inbox.is_empty())
    }

    /// Has two nodes connected, where they are not and can be.
    pub fn connect(&mut self, node: usize, other: usize) -> bool {
        assert_ne!(node, other);
        if self.is_up(node, other) {
            return true;
        }
        if self.cut[node][other] || self.nodes[other].life.is_none() {
            self.life(node).waiters.node_down(&self.nodes[other].name);
            return false;
        }
        // The other side learns by this that the connection before is lost.
        self.lose(other, node);
        for (node, other) in [(node, other), (other, node)] {
            let peer = Peer::new(Arc::clone(&self.nodes[other].name), DistributionFlags::OFFERED);
            self.ends[node][other] = Some(End { peer, inbox: VecDeque::new(), broken: false });
            self.arrival(node);
        }
        true
    }

    /// What is sent into a connection whose other side is gone is lost.
    pub fn send(&mut self, node: usize, other: usize, item: Item) {
        match &self.ends[node][other] {
            Some(end) if end.broken => {}
            Some(_) => {
                let there = self.ends[other][node].as_mut().expect("the other side of what is not broken");
                there.inbox.push_back(item);
            }
            None => {
                if self.connect(node, other) {
                    self.send(node, other, item);
                }
            }
        }
    }

    /// The next message arrives, or the loss is noticed.
    pub fn deliver(&mut self, node: usize, from: usize) {
        let Some(mut end) = self.ends[node][from].take() else { return };
        let Some(item) = end.inbox.pop_front() else {
            let broken = end.broken;
            self.ends[node][from] = Some(end);
            if broken {
                self.lose(node, from);
            }
            return;
        };
        match item {
            Item::Frame(frame) => {
                let (life, mut out) = (self.life_mut(node), Outbound::default());
                let mut later = std::mem::take(&mut life.later);
                let handled = end.peer.handle(
                    Frame::small(&frame, FrameForm::PassThrough),
                    life.surroundings(),
                    &mut out,
                    &mut later,
                );
                handled.expect("a good frame");
                life.later = later;
                self.ends[node][from] = Some(end);
                self.send_frames(node, from, &mut out);
            }
            Item::WhereIs { name, question } => {
                self.ends[node][from] = Some(end);
                let at = self.life(node).registry.by_name(&name).map(|(_, process)| process.pid.clone());
                self.send(node, from, Item::IsAt { question, at });
            }
            Item::IsAt { question, at } => {
                self.ends[node][from] = Some(end);
                self.is_at(node, question, at);
            }
        }
        self.carry_out(node);
    }

    /// A node notices that a connection is lost.
    pub fn lose(&mut self, node: usize, other: usize) {
        let Some(mut end) = self.ends[node][other].take() else { return };
        tracing::debug!(node, other, "connection lost");
        let name = Arc::clone(&self.nodes[other].name);
        let life = self.life_mut(node);
        life.waiters.node_down(&name);
        let mut later = std::mem::take(&mut life.later);
        end.peer.connection_lost(life.surroundings(), &mut later);
        life.later = later;
        self.not_said(node, other);
        self.carry_out(node);
    }

    /// The connection between two nodes breaks, if there is one.
    pub fn break_connection(&mut self, node: usize, other: usize) {
        for (node, other) in [(node, other), (other, node)] {
            if let Some(end) = &mut self.ends[node][other]
                && !end.broken
            {
                end.inbox.truncate(self.random.index(end.inbox.len() + 1));
                end.broken = true;
            }
        }
    }

    /// A process of ours monitors another: some time after it has wanted to.
    pub fn monitor(&mut self, node: usize, request: MonitorRequest) {
        let MonitorRequest { from, process, done } = request;
        let other = self.node_named(process.node());
        if !self.connect(node, other) {
            return done(OwnedTerm::atom("noconnection"));
        }
        let life = self.life(node);
        let reference = life.registry.new_reference();
        life.waiters.expect(&reference, process.node(), |outcome| {
            done(match outcome {
                Outcome::Down(reason) => OwnedTerm::parse(reason).expect("it was checked when it came"),
                _ => OwnedTerm::atom("noconnection"),
            });
        });
        let mut frames = Outbound::default();
        frames.monitor(&from, &process, &reference);
        self.send_frames(node, other, &mut frames);
    }

    /// The node of a process.
    pub fn node_of(&self, process: &RemoteProcess) -> usize {
        self.node_named(process.node())
    }
}
