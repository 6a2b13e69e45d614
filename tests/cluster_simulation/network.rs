//! The connections between virtual nodes: in each direction the messages arrive in the order sent, some time. One that breaks
//! is noticed on each side for itself, behind some of what was under way; the rest is lost.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use kvnode::distribution::{Bound, DistributionFlags, FrameForm, Outbound, RemoteProcess, Skipped, TooLarge};
use kvnode::etf::Pid;
use kvnode::process::Peer;
use kvnode::process::peer::Frame;

use super::world::World;

/// What is on its way to a node.
pub enum Item {
    /// A signal.
    Frame(Vec<u8>),
    /// Who has this name?
    WhereIs { name: Arc<str>, question: (usize, u64) },
    /// This process, if any.
    IsAt { question: (usize, u64), at: Option<Pid> },
    /// Which keys have you?
    ReadKeys { question: (usize, u64) },
    /// These.
    Keys { question: (usize, u64), keys: Vec<u64> },
}

/// One side of a connection.
pub struct End {
    peer: Peer,
    inbox: VecDeque<Item>,
    /// The other side is gone, which this one has not noticed.
    broken: bool,
}

/// The session of a write or a mark, as it is encoded. Those for Elixir servers have none.
fn stream_of(frame: &[u8]) -> Option<&[u8]> {
    // Each kind stands behind the length of its atom, and before the session.
    let behind = |kind: &[u8]| {
        let at = frame.windows(kind.len()).position(|window| window == kind)?;
        Some(&frame[at + kind.len()..])
    };
    let kinds = [&b"replica_put"[..], b"replica_delete", b"replica_many", b"replica_clear", b"replica_copy"];
    let numbered = kinds.into_iter().find_map(behind);
    numbered.and_then(|rest| rest.get(..11))
}

impl World {
    pub fn is_up(&self, node: usize, other: usize) -> bool {
        self.ends[node][other].is_some()
    }

    /// Whether nothing is under way to a node, and its connection is there.
    pub fn is_idle(&self, node: usize, from: usize) -> bool {
        self.ends[node][from].as_ref().is_some_and(|end| !end.broken && end.inbox.is_empty())
    }

    /// Whatever is under way to a node.
    pub fn waiting(&self, node: usize, from: usize) -> usize {
        self.ends[node][from].as_ref().map_or(0, |end| end.inbox.len())
    }

    /// The most messages of one stream of writes that are under way to a node.
    pub fn under_way(&self, node: usize, from: usize) -> usize {
        let Some(end) = &self.ends[node][from] else { return 0 };
        let mut streams: BTreeMap<&[u8], usize> = BTreeMap::new();
        for item in &end.inbox {
            if let Item::Frame(frame) = item
                && let Some(stream) = stream_of(frame)
            {
                *streams.entry(stream).or_default() += 1;
            }
        }
        streams.into_values().max().unwrap_or(0)
    }

    /// Whether there is something to deliver.
    pub fn has_news(&self, node: usize, from: usize) -> bool {
        !self.slow[node][from] && self.has_frames(node, from)
    }

    /// The same, however slow it is.
    pub fn has_frames(&self, node: usize, from: usize) -> bool {
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

    /// Draws whether a node whose store fails is to refuse a write of its primary for its size.
    fn draw_too_large(&mut self, node: usize, frame: &[u8]) -> bool {
        let is_put =
            || frame.windows(12).any(|part| part.starts_with(b"replica_put") || part == b"replica_many");
        self.nodes[node].fails && !self.nodes[node].is_beam && is_put() && self.random.one_in(4)
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
                let is_skipped = self.draw_too_large(node, &frame);
                self.counts.skipped += u64::from(is_skipped);
                let (life, mut out) = (self.life_mut(node), Outbound::default());
                let mut later = std::mem::take(&mut life.later);
                let (form, around) = (FrameForm::PassThrough, life.surroundings());
                let handled = if is_skipped {
                    let size = TooLarge { bytes: 1 << 20, bound: Bound::Frame(1 << 16) };
                    let skipped = Skipped { head: frame, size };
                    end.peer.settle_skipped(&skipped, form, around, &mut out, &mut later)
                } else {
                    end.peer.handle(Frame::small(&frame, form), around, &mut out, &mut later)
                };
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
            Item::ReadKeys { question } => {
                self.ends[node][from] = Some(end);
                let keys = self.life(node).server.data().into_keys().collect();
                self.send(node, from, Item::Keys { question, keys });
            }
            Item::Keys { question, keys } => {
                self.ends[node][from] = Some(end);
                self.keys_read(node, question, &keys);
            }
            Item::IsAt { question, at } => {
                self.ends[node][from] = Some(end);
                self.located(node, question, at);
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

    /// The node of a process.
    pub fn node_of(&self, process: &RemoteProcess) -> usize {
        self.node_named(process.node())
    }
}
