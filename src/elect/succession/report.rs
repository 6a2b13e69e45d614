//! How a node says that it is there, and finds that another has its name.

use std::sync::Arc;

use super::Succession;
use super::event::Event;
use super::face::Output;
use super::keys::{Holds, Key, Report};
use crate::etf::Pid;

impl Succession {
    /// Whether a process is of a node that has this one's name, and is no earlier one of it: it has written since this one is there.
    pub(super) fn is_namesake(&self, pid: &Pid, lease: i64, mod_revision: i64) -> bool {
        pid.node == self.config.me.node && self.namesake.has_written(lease, mod_revision)
    }

    pub(super) fn say_namesake(&mut self) {
        let Some(known) = &self.known else { return };
        let leader = known
            .leader
            .iter()
            .filter_map(|key| Some((&key.leader.as_ref()?.pid, key.lease, key.mod_revision)));
        let report = known.reports.get(&self.config.me.node);
        let report = report.map(|key| (&key.report.pid, key.lease, key.mod_revision));
        let found = leader.chain(report).find(|(pid, lease, at)| self.is_namesake(pid, *lease, *at));
        let found = self.namesake.found(found.map(|(pid, ..)| pid));
        self.outputs.extend(found.map(|pid| Output::Log(Event::Namesake(pid))));
    }

    /// Says that this process is there, and in a round what its store holds.
    pub(super) fn report(&mut self, lease: i64) -> bool {
        let Some(known) = &self.known else { return false };
        let is_fit = self.unfit_until.is_none();
        let round = self.round.as_ref().and_then(|round| Some((round.after, round.sealed?.0)));
        let sealed = round.map(|(after, holds)| (after, if is_fit { holds } else { Holds::Other }));
        let report = Report { pid: self.config.me.clone(), sealed };
        let is_said = known.reports.get(&self.config.me.node).is_some_and(|said| {
            let is_enough = sealed.is_none() || said.report.sealed == sealed;
            said.lease == lease && said.report.pid == report.pid && is_enough
                // Its own would be overwritten again, without end.
                || self.is_namesake(&said.report.pid, said.lease, said.mod_revision)
        });
        if is_said {
            return false;
        }
        let key = Key::Report(Arc::clone(&self.config.me.node));
        self.begin(Vec::new(), vec![(key, report.write(), lease)], Vec::new());
        true
    }
}
