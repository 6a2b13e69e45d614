//! Which member is asked: the good ones in turn. A value without a clock; [`client`](super::client) carries out the checks.
//!
//! ```text
//!          a try fails            it is silent, or has no leader
//!   Good ---------------> Doubted -------------------------------> Away{until}
//!    ^ ^                     |                                        |    ^
//!    | '--- it is well ------'                                        |    | again: twice as long
//!    '------------------------- it is well -------------------- check after until
//! ```
//!
//! A good member that has said nothing for a while is checked too, and stays good meanwhile: so a member that is stopped, or cut
//! off, is noticed before it costs a caller a try. Callers ask good members alone; where there is none they wait.

use std::time::{Duration, Instant};

/// A member, by its place among the endpoints.
pub(super) type MemberId = usize;

/// How long a member without a leader is left alone: it costs little to ask again, and an election is a matter of a second.
const NO_LEADER_PAUSE: Duration = Duration::from_millis(100);

/// The members, and what is known of them.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    next: usize,
    pauses: Pauses,
}

/// The times of [`Config`](super::Config) that matter here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pauses {
    pub(super) check_interval: Duration,
    pub(super) away_pause: Duration,
    pub(super) away_pause_max: Duration,
}

#[derive(Debug)]
struct Member {
    standing: Standing,
    /// A check is on its way.
    checking: bool,
}

/// What is known of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is asked. When it was heard of last.
    Good {
        /// By any answer.
        heard: Instant,
    },
    /// A try has failed there: it is checked before it is asked again.
    Doubted,
    /// It is left alone.
    Away {
        /// As long as this.
        until: Instant,
        /// Checks that have failed one after the other.
        failures: u32,
    },
}

/// What happens.
#[derive(Clone, Copy, Debug)]
pub(super) enum Input {
    /// It has answered, whatever it said.
    Answered(MemberId),
    /// A try has failed there for a reason that may be the member's.
    Failed(MemberId),
    /// A check has ended.
    Checked(MemberId, Check),
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Check {
    /// It answers, and has a leader.
    Well,
    /// It answers, and has no leader.
    NoLeader,
    /// It does not answer.
    Silent,
}

impl Members {
    /// So many, all of them good until something else is known.
    pub(super) fn new(count: usize, pauses: Pauses, now: Instant) -> Self {
        let members = (0..count).map(|_| Member { standing: Standing::Good { heard: now }, checking: false });
        Self { members: members.collect(), next: 0, pauses }
    }

    /// Something has happened. Gives whether a member is good that was not: what waits for one may go on.
    pub(super) fn handle(&mut self, input: Input, now: Instant) -> bool {
        let (Input::Answered(id) | Input::Failed(id) | Input::Checked(id, _)) = input;
        let Some(member) = self.members.get_mut(id) else { return false };
        let was_good = member.is_good();
        member.standing = match (input, member.standing) {
            (Input::Answered(_), Standing::Good { .. }) => Standing::Good { heard: now },
            // What a check is to find out it finds out; an answer from before the fault says nothing.
            (Input::Answered(_), standing) => standing,
            (Input::Failed(_), Standing::Good { .. }) => Standing::Doubted,
            (Input::Failed(_), standing) => standing,
            (Input::Checked(_, check), standing) => {
                member.checking = false;
                let failures = if let Standing::Away { failures, .. } = standing { failures } else { 0 };
                match check {
                    Check::Well => Standing::Good { heard: now },
                    Check::NoLeader => Standing::Away { until: now + NO_LEADER_PAUSE, failures },
                    Check::Silent => {
                        let pause = self.pauses.away_pause.saturating_mul(1 << failures.min(10));
                        let until = now + pause.min(self.pauses.away_pause_max);
                        Standing::Away { until, failures: failures.saturating_add(1) }
                    }
                }
            }
        };
        member.is_good() && !was_good
    }

    /// The next good member in turn. `None`: there is none now.
    pub(super) fn choose(&mut self) -> Option<MemberId> {
        let count = self.members.len();
        let ids = (self.next..count).chain(0..self.next);
        let id = ids.into_iter().find(|id| self.members.get(*id).is_some_and(Member::is_good))?;
        self.next = if id + 1 == count { 0 } else { id + 1 };
        Some(id)
    }

    /// The members that are to be checked now, each until [`Checked`](Input::Checked) comes of it.
    pub(super) fn due(&mut self, now: Instant) -> Vec<MemberId> {
        let interval = self.pauses.check_interval;
        let mut due = Vec::new();
        for (id, member) in self.members.iter_mut().enumerate() {
            if !member.checking && member.check_at(interval).is_none_or(|at| at <= now) {
                member.checking = true;
                due.push(id);
            }
        }
        due
    }

    /// When the next member is due, if nothing happens before. `None`: all are checked now.
    pub(super) fn next_check(&self, now: Instant) -> Option<Instant> {
        let waiting = self.members.iter().filter(|member| !member.checking);
        waiting.map(|member| member.check_at(self.pauses.check_interval).unwrap_or(now)).min()
    }

    /// What is known of each, in the order of the endpoints.
    pub(super) fn standings(&self) -> impl Iterator<Item = Standing> {
        self.members.iter().map(|member| member.standing)
    }
}

impl Member {
    fn is_good(&self) -> bool {
        matches!(self.standing, Standing::Good { .. })
    }

    /// `None`: at once.
    fn check_at(&self, interval: Duration) -> Option<Instant> {
        match self.standing {
            Standing::Good { heard } => Some(heard + interval),
            Standing::Doubted => None,
            Standing::Away { until, .. } => Some(until),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const PAUSES: Pauses =
        Pauses { check_interval: SECOND, away_pause: Duration::from_millis(250), away_pause_max: SECOND };

    #[expect(clippy::disallowed_methods, reason = "a time to begin with")]
    fn three() -> (Members, Instant) {
        let now = Instant::now();
        (Members::new(3, PAUSES, now), now)
    }

    fn turn(members: &mut Members) -> Vec<Option<MemberId>> {
        (0..4).map(|_| members.choose()).collect()
    }

    #[test]
    fn good_members_are_asked_in_turn_and_others_not_until_a_check_says_so() {
        let (mut members, now) = three();
        assert_eq!(turn(&mut members), [Some(0), Some(1), Some(2), Some(0)]);
        assert!(!members.handle(Input::Failed(1), now));
        assert_eq!(turn(&mut members), [Some(2), Some(0), Some(2), Some(0)]);
        assert_eq!((members.due(now), members.due(now)), (vec![1], vec![]), "one check at a time");
        assert!(!members.handle(Input::Answered(1), now), "that was asked before");
        assert!(members.handle(Input::Checked(1, Check::Well), now));
        assert_eq!(turn(&mut members), [Some(1), Some(2), Some(0), Some(1)]);
    }

    #[test]
    fn one_that_is_silent_is_left_alone_longer_each_time() {
        let (mut members, mut now) = three();
        members.handle(Input::Failed(0), now);
        for pause in [250, 500, 1000, 1000, 1000] {
            assert_eq!(members.due(now), [0]);
            assert!(!members.handle(Input::Checked(0, Check::Silent), now));
            for id in [1, 2] {
                members.handle(Input::Answered(id), now + SECOND);
            }
            let until = now + Duration::from_millis(pause);
            assert_eq!(
                (members.due(until - Duration::from_millis(1)), members.next_check(now)),
                (vec![], Some(until))
            );
            now = until;
        }
        assert_eq!(members.due(now), [0]);
        assert!(members.handle(Input::Checked(0, Check::Well), now));
        members.handle(Input::Failed(0), now);
        members.due(now);
        members.handle(Input::Checked(0, Check::Silent), now);
        assert_eq!(members.next_check(now), Some(now + PAUSES.away_pause), "from the beginning");
    }

    #[test]
    fn where_none_is_good_none_is_asked_and_a_leader_is_looked_for_often() {
        let (mut members, now) = three();
        for id in 0..3 {
            members.handle(Input::Failed(id), now);
        }
        assert_eq!(members.choose(), None);
        assert_eq!(members.due(now), [0, 1, 2]);
        for id in 0..3 {
            members.handle(Input::Checked(id, Check::NoLeader), now);
        }
        assert_eq!((members.choose(), members.next_check(now)), (None, Some(now + NO_LEADER_PAUSE)));
    }

    #[test]
    fn a_good_member_that_says_nothing_is_checked_and_asked_meanwhile() {
        let (mut members, now) = three();
        members.handle(Input::Answered(1), now + SECOND / 2);
        assert_eq!(members.due(now + SECOND), [0, 2]);
        assert_eq!(members.next_check(now), Some(now + SECOND * 3 / 2));
        assert_eq!(turn(&mut members), [Some(0), Some(1), Some(2), Some(0)]);
        assert!(!members.handle(Input::Checked(0, Check::Silent), now + SECOND));
        assert_eq!(turn(&mut members), [Some(1), Some(2), Some(1), Some(2)]);
    }
}
