//! What is to hold at each moment, and in the end.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::node::{Data, Node, Waiting};
use super::world::{RUN, SOON, World};
use crate::elect::succession::{Holds, Input};
use crate::elect::tests::start;
use crate::etf::encode;

impl World {
    pub(super) fn keep_what_is_at(&mut self, node: usize) {
        let data = &self.nodes[node].data;
        let is_there = |write: &u64| data.contains_key(&*encode(|w| _ = w.unsigned(*write)));
        self.confirmed.retain(is_there);
    }

    pub(super) fn check_has_all(&mut self, node: usize) {
        let data = &self.nodes[node].data;
        let is_lost = |write: &&u64| !data.contains_key(&*encode(|w| _ = w.unsigned(**write)));
        let lost: Vec<u64> = self.confirmed.iter().filter(is_lost).copied().collect();
        if !lost.is_empty() {
            let name = self.name(node);
            self.fail(format!("{name} is the primary without confirmed writes: {lost:?}"));
        }
    }

    pub(super) fn confirm(&mut self, node: usize) {
        let now = self.local(node);
        while let Some(Waiting { write, seq }) = self.nodes[node].waiting.front().copied() {
            let its = &self.nodes[node];
            let names: Vec<Arc<str>> = its.downs.iter().map(|down| self.name(down.node)).collect();
            let has = its.downs.iter().zip(&names);
            let has =
                has.filter(|(down, name)| its.counting.contains(name) && down.machine.confirmed() >= seq);
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

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &usize| {
            self.runs(*node)
                && self.nodes[*node].succession.leads_until().is_some_and(|until| until > self.local(*node))
        };
        (0..self.nodes.len()).find(leads)
    }

    /// Where no election can be sure, in a calm world, a person has one node be the primary.
    pub(super) fn force(&mut self) {
        if self.leader().is_some() {
            return;
        }
        // Only where the last primary that has confirmed has lost its data, and so have as many slaves as a confirmed write is with.
        let base = self.etcd.record().expect("there was a primary").base;
        // And none of its slaves has all that a primary had that has ended in good order.
        let has_all = |its: &&Node| match Holds::of(&its.upstream) {
            Holds::Copy { fence, applied, .. } => {
                fence == base.fence && base.end.is_some_and(|end| applied >= end)
            }
            _ => false,
        };
        if let Some(its) = self.nodes.iter().find(has_all) {
            let me = its.me.clone();
            return self.fail(format!("no primary, and {me:?} has all that the last one had: {base:?}"));
        }
        let has_lost = |node: &Arc<str>| self.nodes[self.node_of(node)].lost_at > Some(self.base_at.1);
        let lost = base.members.iter().filter(|node| has_lost(node)).count();
        if !has_lost(&base.node) || lost < base.confirm.max(1) as usize {
            let lost = (has_lost(&base.node), lost);
            return self.fail(format!("no primary, where enough have their data: {base:?} {lost:?}"));
        }
        self.is_forced = true;
        self.counts.forced += 1;
        let node = (0..self.nodes.len()).max_by_key(|node| self.nodes[*node].data.len()).expect("one");
        self.say(format!("a person forces {}", self.name(node)));
        self.hand(node, Input::Force);
    }

    /// All stores, for a failure.
    pub(super) fn describe(&self) -> String {
        let node = |node: &Node| {
            let downs: Vec<_> = node.downs.iter().map(|down| (down.node, down.machine.standing())).collect();
            let up = node.upstream.primary().map(|up| (up.greeting.pid.clone(), up.standing, up.applied));
            format!(
                "\n{:?} {:?} {:?} up {up:?} downs {downs:?} pairs {} {:?}",
                node.me,
                node.upstream.lineage(),
                node.succession.view().role,
                node.data.len(),
                node.upstream
            )
        };
        self.nodes.iter().map(node).collect()
    }

    pub(super) fn check_end(&mut self) -> Result<(), String> {
        let Some(leader) = self.leader() else { return Err("no primary in the end".to_owned()) };
        let others =
            (0..self.nodes.len()).filter(|node| self.nodes[*node].succession.leads().is_some()).count();
        if others > 1 {
            return Err(format!("{others} primaries in the end"));
        }
        if !self.is_forced && self.last_led > start() + RUN + SOON {
            return Err("the last primary came late".to_owned());
        }
        let all: Vec<u64> = self.nodes[leader].data.values().copied().collect();
        let is_lost =
            |write: &&u64| !self.nodes[leader].data.contains_key(&*encode(|w| _ = w.unsigned(**write)));
        let lost: Vec<&u64> = self.confirmed.iter().filter(is_lost).collect();
        if !lost.is_empty() {
            return Err(format!("confirmed writes are lost: {lost:?}"));
        }
        // What was written last is on its way.
        let newest = |data: &Data| {
            data.values().filter(|write| **write + 5 < self.writes).copied().collect::<BTreeSet<_>>()
        };
        for node in &self.nodes {
            if newest(&node.data) != newest(&self.nodes[leader].data) {
                return Err(format!(
                    "{:?} holds {} pairs, and the primary {} {:?}",
                    node.me,
                    node.data.len(),
                    all.len(),
                    self.describe()
                ));
            }
        }
        let members = self.etcd.record().map_or(0, |record| record.base.members.len());
        if members + 1 != self.nodes.len() {
            return Err(format!("{members} members in the end"));
        }
        Ok(())
    }
}
