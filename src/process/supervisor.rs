//! When a process that has ended is started again: the supervisor's decisions, without a clock and without processes.
//!
//! As in OTP (stdlib, `supervisor.erl`) a child has a restart type, and restarts have an intensity: so many in such a
//! period. Where OTP gives up at the intensity, and takes the supervisor with it, this one waits until the period has
//! room again: a node without its stores serves nobody. The intensity is each child's own, so that one that keeps
//! ending does not hold up the others.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use ahash::AHashMap;

use super::ProcessId;
use crate::etf::TermView;

/// Whether a child that has ended is started again (stdlib, `supervisor.erl`, `restart/0`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Always.
    Permanent,
    /// Only when it ended abnormally: for a reason that is not `normal`, `shutdown` or `{shutdown, _}`.
    Transient,
    /// Never.
    Temporary,
}

impl Restart {
    /// Whether what has ended so is started again.
    pub(super) const fn is_wanted_after(self, is_orderly: bool) -> bool {
        match self {
            Self::Permanent => true,
            Self::Transient => !is_orderly,
            Self::Temporary => false,
        }
    }
}

/// Whether a reason is that of an orderly end.
pub fn is_orderly(reason: TermView<'_>) -> bool {
    let shutdown = || reason.as_tuple::<2>().is_some_and(|[kind, _]| kind.is_atom("shutdown"));
    reason.is_atom("normal") || reason.is_atom("shutdown") || shutdown()
}

/// How many restarts of one child there may be in a period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intensity {
    /// So many.
    pub restarts_max: usize,
    /// In so long.
    pub period: Duration,
}

/// When something was, or will be, started again, oldest first; no more than count for the intensity.
#[derive(Clone, Debug, Default)]
pub(super) struct Restarts(VecDeque<Instant>);

impl Restarts {
    /// When it may be started again that has ended now: that counts.
    pub(super) fn next(&mut self, intensity: Intensity, now: Instant) -> Instant {
        let Intensity { restarts_max, period } = intensity;
        while self.0.len() > restarts_max {
            self.0.pop_front();
        }
        // With as many restarts as there may be, the oldest must be out of the period before the next.
        let room_at = match self.0.front() {
            Some(oldest) if self.0.len() >= restarts_max => *oldest + period,
            _ => now,
        };
        let at = room_at.max(now);
        self.0.push_back(at);
        if self.0.len() > restarts_max {
            self.0.pop_front();
        }
        at
    }
}

/// A child of a supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChildId(u64);

struct Child<S> {
    spec: S,
    restart: Restart,
    restarts: Restarts,
}

/// What follows from an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict<S> {
    /// Start it again after this long, mostly nothing.
    Restart {
        /// Which.
        child: ChildId,
        /// What was given for it.
        spec: S,
        /// How long to wait first.
        after: Duration,
    },
    /// It is not to be started again, and is forgotten.
    Forget(S),
}

/// The children of a node, each with what is needed to start it.
pub struct Supervisor<S> {
    intensity: Intensity,
    children: AHashMap<ChildId, Child<S>>,
    running: AHashMap<ProcessId, ChildId>,
    next_child: u64,
}

impl<S: Clone> Supervisor<S> {
    /// Without children.
    pub fn new(intensity: Intensity) -> Self {
        Self { intensity, children: AHashMap::default(), running: AHashMap::default(), next_child: 0 }
    }

    /// A new child, which is being started.
    pub fn add(&mut self, spec: S, restart: Restart) -> ChildId {
        let id = ChildId(self.next_child);
        self.next_child += 1;
        self.children.insert(id, Child { spec, restart, restarts: Restarts::default() });
        id
    }

    /// The child runs, as this process. `false`: there is no such child any more.
    pub fn started(&mut self, child: ChildId, process: ProcessId) -> bool {
        let known = self.children.contains_key(&child);
        if known {
            self.running.insert(process, child);
        }
        known
    }

    /// A process has ended. `None`: it is nobody's child.
    pub fn ended(&mut self, process: ProcessId, reason: TermView<'_>, now: Instant) -> Option<Verdict<S>> {
        let child = self.running.remove(&process)?;
        let wanted = self.children.get(&child)?.restart.is_wanted_after(is_orderly(reason));
        if wanted { self.again(child, now) } else { self.forget(child).map(Verdict::Forget) }
    }

    /// A child could not be started: it is tried again by the same rule. `None`: there is no such child.
    pub fn again(&mut self, id: ChildId, now: Instant) -> Option<Verdict<S>> {
        let child = self.children.get_mut(&id)?;
        let at = child.restarts.next(self.intensity, now);
        Some(Verdict::Restart { child: id, spec: child.spec.clone(), after: at.duration_since(now) })
    }

    /// Takes a child out.
    pub fn forget(&mut self, id: ChildId) -> Option<S> {
        self.running.retain(|_, child| *child != id);
        self.children.remove(&id).map(|child| child.spec)
    }

    /// Children, running or about to.
    pub fn len(&self) -> usize {
        self.children.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.children.is_empty()
    }
}

impl<S> std::fmt::Debug for Supervisor<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervisor").field("children", &self.children.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "an instant to count from; no test waits")]

    use super::super::exits::atom;
    use super::*;
    use crate::etf::encode;

    const PERIOD: Duration = Duration::from_secs(5);

    fn supervisor() -> Supervisor<&'static str> {
        Supervisor::new(Intensity { restarts_max: 3, period: PERIOD })
    }

    fn process(number: u32) -> ProcessId {
        let registry = super::super::Registry::new("k@h".into(), 1);
        (1..number).for_each(|_| _ = registry.new_pid());
        registry.new_pid().0
    }

    fn delay(verdict: Option<Verdict<&'static str>>) -> Duration {
        match verdict {
            Some(Verdict::Restart { after, .. }) => after,
            other => panic!("not started again: {other:?}"),
        }
    }

    #[test]
    fn three_restarts_in_five_seconds_come_at_once_and_the_fourth_waits() {
        let (mut supervisor, start) = (supervisor(), Instant::now());
        let child = supervisor.add("kv", Restart::Permanent);
        let killed = atom("killed");
        let killed = TermView::parse(&killed).expect("an atom");
        let mut number = 0;
        let mut end_at = |ms: u64| {
            number += 1;
            assert!(supervisor.started(child, process(number)));
            delay(supervisor.ended(process(number), killed, start + Duration::from_millis(ms)))
        };
        assert_eq!(end_at(0), Duration::ZERO);
        assert_eq!(end_at(100), Duration::ZERO);
        assert_eq!(end_at(200), Duration::ZERO);
        // Three at 0, 100 and 200 ms: the fourth at 5 s, the fifth at 5.1 s.
        assert_eq!(end_at(300), Duration::from_millis(4_700));
        assert_eq!(end_at(5_000), Duration::from_millis(100));
        assert_eq!(end_at(60_000), Duration::ZERO);
    }

    #[test]
    fn the_restart_type_and_the_reason_decide() {
        let shutdown = encode(|w| {
            w.tuple(2).atom("shutdown").integer(1);
        });
        let reasons = [atom("normal"), atom("shutdown"), shutdown, atom("killed")];
        let restarts = |restart: Restart| {
            reasons.each_ref().map(|reason| {
                let mut supervisor = supervisor();
                let child = supervisor.add("kv", restart);
                supervisor.started(child, process(1));
                let reason = TermView::parse(reason).expect("a term");
                let verdict = supervisor.ended(process(1), reason, Instant::now()).expect("a child");
                matches!(verdict, Verdict::Restart { .. }) && supervisor.len() == 1
            })
        };
        assert_eq!(restarts(Restart::Permanent), [true; 4]);
        assert_eq!(restarts(Restart::Transient), [false, false, false, true]);
        assert_eq!(restarts(Restart::Temporary), [false; 4]);
    }

    #[test]
    fn a_child_that_ends_again_and_again_does_not_hold_up_another() {
        let (mut supervisor, now) = (supervisor(), Instant::now());
        let (one, other) =
            (supervisor.add("one", Restart::Permanent), supervisor.add("other", Restart::Permanent));
        for _ in 0..4 {
            supervisor.again(one, now);
        }
        assert_eq!(delay(supervisor.again(one, now)), PERIOD);
        assert_eq!(delay(supervisor.again(other, now)), Duration::ZERO);
        assert_eq!(supervisor.forget(one), Some("one"));
        assert_eq!(supervisor.again(one, now), None);
        let normal = atom("normal");
        assert_eq!(supervisor.ended(process(9), TermView::parse(&normal).expect("an atom"), now), None);
    }
}
