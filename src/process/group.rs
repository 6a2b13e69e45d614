//! Children that are started again together, as those of OTP's `one_for_all` and `rest_for_one` (stdlib, `supervisor.erl`): decisions, without
//! a clock and without processes.
//!
//! ```text
//!              all run                 a child has ended, and is to be started again
//! Starting ---------------> Running ------------------------------------------------> Stopping, the last first
//!    ^  '---- a child could not be started: that is a restart, too ---------------------^   |
//!    |                                                                                      |
//!    |<---- the restart has room -----------------------------------------------------------|
//!    '----- the period has room again ---- Waiting <----------------------------------------'
//! ```
//!
//! - **Order.** Children are started in the order in which they were given, and stopped in the reverse order, each when the one before has ended. A
//!   child that does not end within [`STOP_MAX`] is killed.
//! - **What is started again.** With [`Strategy::OneForAll`] all children; with [`Strategy::RestForOne`] the child that has ended, and the children that
//!   were given behind that child. A transient child that has ended normally before is started with the others; a temporary child never is.
//! - **Intensity.** Restarts of a group are counted together. Where OTP gives up at the intensity, and takes the supervisor with it, a group
//!   stops its children and waits until the period has room again, as [`supervisor`](super::supervisor) does.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::ProcessId;
use super::supervisor::{Intensity, Restart, Restarts};

/// A child that is to end has so long for it (stdlib, `supervisor.erl`, `shutdown/0`: the default of workers).
pub(crate) const STOP_MAX: Duration = Duration::from_secs(5);

/// Which children are started again when a child has ended (stdlib, `supervisor.erl`, `strategy/0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Strategy {
    /// All children of the group.
    OneForAll,
    /// The child that has ended, and the children that were given behind that child.
    RestForOne,
}

/// What comes in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Input {
    /// The child that was to be started runs.
    Started(ProcessId),
    /// It does not. Nothing is tried again before `pause` is over.
    NotStarted { pause: Duration },
    /// A process of the node has ended, whatever it was of. That of a child comes behind its start.
    Ended { process: ProcessId, is_orderly: bool },
    /// The group is to end.
    End,
    /// What [`Group::poll_timeout`] has told has come.
    Time,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output<S> {
    /// The child is started; [`Input::Started`] or [`Input::NotStarted`] follows.
    Start(S),
    /// The process is asked to end, with the reason `shutdown`.
    Stop(ProcessId),
    /// It has not ended in time.
    Kill(ProcessId),
    /// A child has ended, or could not be started: so many children are started again, after so long.
    Restarts { restarted: usize, after: Duration },
}

#[derive(Debug)]
struct Child<S> {
    spec: S,
    restart: Restart,
    /// `None`: it does not run.
    process: Option<ProcessId>,
    /// A temporary child that has ended.
    is_gone: bool,
}

/// What follows when all is stopped that is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// It is started from this child on, when that time has come.
    Start { from: usize, at: Instant },
    /// The group has ended.
    End,
}

/// A process that is to end.
#[derive(Clone, Copy, Debug)]
struct Asked {
    process: ProcessId,
    /// It is killed then; `None`: it was.
    kill_at: Option<Instant>,
}

#[derive(Debug)]
enum Phase {
    /// The child with this number is being started; those before it run, or have ended.
    Starting { child: usize },
    /// All run that are to.
    Running,
    /// The children from `from` on are being stopped, one after the other.
    Stopping { from: usize, asked: Option<Asked>, then: Then },
    /// The children from this one on are started then.
    Waiting { from: usize, at: Instant },
    /// No child is started any more.
    Over,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Group<S> {
    strategy: Strategy,
    intensity: Intensity,
    restarts: Restarts,
    children: Vec<Child<S>>,
    phase: Phase,
    /// It is to end, when no child is being started.
    is_ending: bool,
    /// Children that have ended while others were started, in their order.
    ended: VecDeque<usize>,
    outputs: VecDeque<Output<S>>,
}

impl<S: Clone> Group<S> {
    /// Of these children, which were started in this order.
    pub(crate) fn new(
        strategy: Strategy,
        intensity: Intensity,
        children: Vec<(S, Restart, ProcessId)>,
    ) -> Self {
        let child =
            |(spec, restart, process)| Child { spec, restart, process: Some(process), is_gone: false };
        let children = children.into_iter().map(child).collect();
        let (restarts, ended, outputs) = Default::default();
        Self {
            strategy,
            intensity,
            restarts,
            children,
            phase: Phase::Running,
            is_ending: false,
            ended,
            outputs,
        }
    }

    /// What is to be done next.
    pub(crate) fn poll_output(&mut self) -> Option<Output<S>> {
        self.outputs.pop_front()
    }

    /// When [`Input::Time`] is to come.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Stopping { asked, .. } => asked.and_then(|asked| asked.kill_at),
            Phase::Waiting { at, .. } => Some(at),
            Phase::Starting { .. } | Phase::Running | Phase::Over => None,
        }
    }

    /// Whether it has ended: nothing more comes of it.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// The processes that run, in the order of the children.
    pub(crate) fn processes(&self) -> impl Iterator<Item = ProcessId> {
        self.children.iter().filter_map(|child| child.process)
    }

    /// Something has come.
    pub(crate) fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Started(process) => self.started(process, now),
            Input::NotStarted { pause } => self.not_started(pause, now),
            Input::Ended { process, is_orderly } => self.ended(process, is_orderly, now),
            Input::End => self.end(now),
            Input::Time => self.time(now),
        }
    }

    /// Starts the first child from this one on that is to run, or finds that all do.
    fn start(&mut self, from: usize, now: Instant) {
        let waits = |child: &Child<S>| child.process.is_none() && !child.is_gone;
        if let Some(next) = self.children.iter().skip(from).position(waits) {
            let child = from + next;
            self.phase = Phase::Starting { child };
            return self
                .outputs
                .extend(self.children.get(child).map(|child| Output::Start(child.spec.clone())));
        }
        self.phase = Phase::Running;
        // Those that have ended while others were started. One may have been started again with another.
        while let Some(child) = self.ended.pop_front() {
            if self.children.get(child).is_some_and(waits) {
                return self.restart(child, Duration::ZERO, now);
            }
        }
    }

    fn started(&mut self, process: ProcessId, now: Instant) {
        let Phase::Starting { child } = self.phase else { return };
        if let Some(its) = self.children.get_mut(child) {
            its.process = Some(process);
        }
        if self.is_ending { self.stop_from(0, Then::End, now) } else { self.start(child + 1, now) }
    }

    fn not_started(&mut self, pause: Duration, now: Instant) {
        let Phase::Starting { child } = self.phase else { return };
        if self.is_ending { self.stop_from(0, Then::End, now) } else { self.restart(child, pause, now) }
    }

    fn ended(&mut self, process: ProcessId, is_orderly: bool, now: Instant) {
        let Some(child) = self.children.iter().position(|child| child.process == Some(process)) else {
            return;
        };
        let Some(its) = self.children.get_mut(child) else { return };
        its.process = None;
        its.is_gone = its.restart == Restart::Temporary;
        let is_wanted = its.restart.is_wanted_after(is_orderly);
        match self.phase {
            Phase::Stopping { from, .. } if child >= from => self.stop(now),
            _ if !is_wanted => {}
            Phase::Running => self.restart(child, Duration::ZERO, now),
            Phase::Starting { .. } => self.ended.push_back(child),
            // It is among those that run, before those that are stopped.
            Phase::Stopping { then: Then::Start { at, .. }, .. } | Phase::Waiting { at, .. } => {
                let from = self.first_with(child);
                self.stop_from(from, Then::Start { from, at }, now);
            }
            Phase::Stopping { .. } | Phase::Over => {}
        }
    }

    /// The first of those that are started again with a child.
    const fn first_with(&self, child: usize) -> usize {
        match self.strategy {
            Strategy::OneForAll => 0,
            Strategy::RestForOne => child,
        }
    }

    fn restart(&mut self, child: usize, pause: Duration, now: Instant) {
        let from = self.first_with(child);
        let at = self.restarts.next(self.intensity, now).max(now + pause);
        let restarted = self.children.iter().skip(from);
        let restarted = restarted.filter(|child| child.restart != Restart::Temporary).count();
        self.outputs.push_back(Output::Restarts { restarted, after: at.duration_since(now) });
        self.stop_from(from, Then::Start { from, at }, now);
    }

    fn end(&mut self, now: Instant) {
        let is_ending = std::mem::replace(&mut self.is_ending, true);
        // What is being started is waited for.
        if !is_ending && !matches!(self.phase, Phase::Starting { .. } | Phase::Over) {
            self.stop_from(0, Then::End, now);
        }
    }

    fn stop_from(&mut self, from: usize, then: Then, now: Instant) {
        let asked = match self.phase {
            Phase::Stopping { asked, .. } => asked,
            _ => None,
        };
        self.phase = Phase::Stopping { from, asked, then };
        self.stop(now);
    }

    /// Has the last one end that runs of those that are to end.
    fn stop(&mut self, now: Instant) {
        let Phase::Stopping { from, asked, then } = self.phase else { return };
        let last = self.children.iter().skip(from).rev().find_map(|child| child.process);
        if let Some(process) = last {
            if asked.is_none_or(|asked| asked.process != process) {
                let asked = Some(Asked { process, kill_at: Some(now + STOP_MAX) });
                self.phase = Phase::Stopping { from, asked, then };
                self.outputs.push_back(Output::Stop(process));
            }
            return;
        }
        match then {
            Then::End => self.phase = Phase::Over,
            Then::Start { from, at } if at <= now => self.start(from, now),
            Then::Start { from, at } => self.phase = Phase::Waiting { from, at },
        }
    }

    fn time(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Stopping { asked: Some(Asked { process, kill_at }), .. }
                if kill_at.is_some_and(|at| at <= now) =>
            {
                *kill_at = None;
                self.outputs.push_back(Output::Kill(*process));
            }
            Phase::Waiting { from, at } if *at <= now => {
                let from = *from;
                self.start(from, now);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "an instant to count from; no test waits")]

    use super::*;

    const PERIOD: Duration = Duration::from_secs(5);
    const CHILDREN: usize = 3;

    /// A group whose processes end when they are asked to, unless one hangs.
    struct World {
        group: Group<usize>,
        registry: super::super::Registry,
        now: Instant,
        /// The process of each child.
        running: [Option<ProcessId>; CHILDREN],
        hangs: Option<usize>,
        /// How often a child does not start.
        fails: usize,
        trace: Vec<String>,
    }

    impl World {
        fn new(strategy: Strategy, restart: [Restart; CHILDREN]) -> Self {
            let registry = super::super::Registry::new("k@h".into(), 1);
            let running = [(); CHILDREN].map(|()| registry.new_pid().0);
            let children = restart.iter().enumerate().map(|(at, restart)| (at, *restart, running[at]));
            let group =
                Group::new(strategy, Intensity { restarts_max: 3, period: PERIOD }, children.collect());
            let (running, now) = (running.map(Some), Instant::now());
            Self { group, registry, now, running, hangs: None, fails: 0, trace: Vec::new() }
        }

        fn hand(&mut self, input: Input) {
            self.group.handle(input, self.now);
            while let Some(output) = self.group.poll_output() {
                let of = |process: ProcessId| self.running.iter().position(|its| *its == Some(process));
                match output {
                    Output::Start(_) if self.fails > 0 => {
                        self.fails -= 1;
                        self.group.handle(Input::NotStarted { pause: Duration::from_secs(1) }, self.now);
                    }
                    Output::Start(child) => {
                        assert_eq!(self.running[child], None, "it runs");
                        let process = self.registry.new_pid().0;
                        self.running[child] = Some(process);
                        self.trace.push(format!("+{child}"));
                        self.group.handle(Input::Started(process), self.now);
                    }
                    Output::Stop(process) => {
                        let child = of(process).expect("it runs");
                        self.trace.push(format!("-{child}"));
                        if self.hangs != Some(child) {
                            self.running[child] = None;
                            self.group.handle(Input::Ended { process, is_orderly: true }, self.now);
                        }
                    }
                    Output::Kill(process) => {
                        let child = of(process).expect("it runs");
                        self.trace.push(format!("x{child}"));
                        (self.running[child], self.hangs) = (None, None);
                        self.group.handle(Input::Ended { process, is_orderly: false }, self.now);
                    }
                    Output::Restarts { restarted, after } => {
                        self.trace.push(format!("{restarted} in {}", after.as_millis()));
                    }
                }
            }
        }

        /// A child ends by itself; gives what follows.
        fn end(&mut self, child: usize, is_orderly: bool) -> String {
            let process = self.running[child].take().expect("it runs");
            self.hand(Input::Ended { process, is_orderly });
            std::mem::take(&mut self.trace).join(" ")
        }

        const fn is_running(&self) -> bool {
            matches!(self.group.phase, Phase::Running)
        }

        /// Time goes on to what is due; gives what follows.
        fn wait(&mut self) -> String {
            self.now = self.group.poll_timeout().expect("something is due");
            self.hand(Input::Time);
            std::mem::take(&mut self.trace).join(" ")
        }
    }

    const PERMANENT: [Restart; CHILDREN] = [Restart::Permanent; CHILDREN];

    #[test]
    fn those_behind_it_or_all_are_stopped_from_the_last_on_and_started_from_the_first_on() {
        let mut all = World::new(Strategy::OneForAll, PERMANENT);
        assert_eq!(all.end(1, false), "3 in 0 -2 -0 +0 +1 +2");
        assert_eq!(all.end(0, true), "3 in 0 -2 -1 +0 +1 +2");
        let mut rest = World::new(Strategy::RestForOne, PERMANENT);
        assert_eq!(rest.end(1, false), "2 in 0 -2 +1 +2");
        assert_eq!(rest.end(2, false), "1 in 0 +2");
        assert_eq!(rest.end(0, false), "3 in 0 -2 -1 +0 +1 +2");
        assert!(rest.is_running() && rest.group.processes().count() == CHILDREN);
    }

    #[test]
    fn who_is_not_to_be_started_again_disturbs_nobody_and_a_transient_one_comes_with_the_others() {
        let restart = [Restart::Permanent, Restart::Transient, Restart::Temporary];
        let mut all = World::new(Strategy::OneForAll, restart);
        assert_eq!(all.end(1, true), "");
        assert_eq!(all.end(0, false), "2 in 0 -2 +0 +1", "the temporary one is stopped, and gone");
        assert_eq!(all.end(1, false), "2 in 0 -0 +0 +1");
        let mut all = World::new(Strategy::OneForAll, restart);
        assert_eq!(all.end(2, false), "");
        assert_eq!(all.end(1, false), "2 in 0 -0 +0 +1");
    }

    #[test]
    fn where_restarts_have_no_room_all_are_stopped_and_wait() {
        let mut all = World::new(Strategy::OneForAll, PERMANENT);
        for _ in 0..3 {
            all.end(2, false);
        }
        assert_eq!(all.end(2, false), "3 in 5000 -1 -0");
        assert!(!all.is_running() && all.group.processes().count() == 0);
        assert_eq!(all.wait(), "+0 +1 +2");
    }

    #[test]
    fn a_child_that_does_not_end_is_killed_and_its_end_is_waited_for() {
        let mut rest = World::new(Strategy::RestForOne, PERMANENT);
        rest.hangs = Some(2);
        assert_eq!(rest.end(1, false), "2 in 0 -2");
        assert_eq!(rest.end(0, false), "", "it is started again with them");
        let before = rest.now;
        assert_eq!(rest.wait(), "x2 +0 +1 +2");
        assert_eq!(rest.now, before + STOP_MAX);
    }

    #[test]
    fn a_child_that_cannot_be_started_is_tried_again_with_the_others() {
        let mut all = World::new(Strategy::OneForAll, PERMANENT);
        all.fails = 1;
        assert_eq!(all.end(1, false), "3 in 0 -2 -0 3 in 1000");
        assert_eq!(all.wait(), "+0 +1 +2");
        let mut rest = World::new(Strategy::RestForOne, PERMANENT);
        rest.fails = 1;
        assert_eq!(rest.end(1, false), "2 in 0 -2 2 in 1000");
        assert_eq!(rest.end(0, false), "", "it waits with them");
        assert_eq!(rest.wait(), "+0 +1 +2");
    }

    #[test]
    fn one_that_ends_while_others_are_started_follows() {
        let mut rest = World::new(Strategy::RestForOne, PERMANENT);
        // Both ends are known before anything is done.
        let [first, second, third] = rest.running.map(|process| process.expect("it runs"));
        rest.running = [None, None, Some(third)];
        rest.group.handle(Input::Ended { process: second, is_orderly: false }, rest.now);
        rest.hand(Input::Ended { process: first, is_orderly: false });
        assert_eq!(rest.trace.join(" "), "2 in 0 -2 +0 +1 +2");
        // While the last one is being started.
        let mut all = World::new(Strategy::OneForAll, PERMANENT);
        let ended = all.running[2].take().expect("it runs");
        all.group.handle(Input::Ended { process: ended, is_orderly: false }, all.now);
        let stopped = all.running[1].take().expect("it runs");
        all.group.handle(Input::Ended { process: stopped, is_orderly: true }, all.now);
        assert!(all.group.processes().count() == 1);
    }

    #[test]
    fn a_group_that_is_to_end_stops_its_children_and_starts_none() {
        let mut all = World::new(Strategy::OneForAll, PERMANENT);
        all.hangs = Some(1);
        all.hand(Input::End);
        assert_eq!(std::mem::take(&mut all.trace).join(" "), "-2 -1");
        assert_eq!(all.wait(), "x1 -0");
        assert!(all.group.is_over() && all.group.poll_timeout().is_none());
    }
}
