//! Callers that want to read all that any process has written by now.
//!
//! One question to etcd serves all callers that came before it: the revision of the mark that was written last, which is
//! the revision of the last write of any process, a deletion too. The callers are answered when the table has come to that revision.

use std::time::Duration;

use super::ask::{Asked, Outcome};
use super::machine::PATIENCE;
use super::planted::{Rule, planted};
use crate::store::StoreError;

/// See the module.
#[derive(Default)]
pub(super) struct Looks {
    /// Callers that wait for the next question.
    waiting: Vec<Asked>,
    /// Callers that wait for the answer of the question under way.
    asked: Option<Vec<Asked>>,
    /// Callers that wait for the table to come to a revision.
    seen: Vec<(i64, Asked)>,
    failed: Vec<(Asked, StoreError)>,
}

impl Looks {
    pub(super) fn ask(&mut self, looks: Vec<Asked>) {
        if planted(Rule::CatchUp) {
            return self.seen.extend(looks.into_iter().map(|asked| (0, asked)));
        }
        self.waiting.extend(looks);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    fn all(&self) -> impl Iterator<Item = &Asked> {
        let asked = self.waiting.iter().chain(self.asked.iter().flatten());
        asked
            .chain(self.seen.iter().map(|(_, asked)| asked))
            .chain(self.failed.iter().map(|(asked, _)| asked))
    }

    /// How long a question may take that is to be asked now.
    pub(super) fn next(&mut self, now: Duration) -> Option<Duration> {
        if self.asked.is_some() {
            return None;
        }
        let last = self.waiting.last()?.at;
        self.asked = Some(std::mem::take(&mut self.waiting));
        Some((last + PATIENCE).saturating_sub(now))
    }

    /// The last write of any process has this revision.
    pub(super) fn answered(&mut self, result: Result<i64, StoreError>) {
        for asked in self.asked.take().into_iter().flatten() {
            match &result {
                Ok(revision) => self.seen.push((*revision, asked)),
                Err(error) => self.failed.push((asked, error.clone())),
            }
        }
    }

    /// Nothing is asked any more.
    pub(super) fn give_up(&mut self, error: &StoreError) {
        let all = self.waiting.drain(..).chain(self.asked.take().into_iter().flatten());
        let all = all.chain(self.seen.drain(..).map(|(_, asked)| asked));
        self.failed.extend(all.map(|asked| (asked, error.clone())));
    }

    /// The callers whose wait is over, where the table has come so far.
    pub(super) fn done(&mut self, applied: i64, now: Duration) -> Vec<(Asked, Result<Outcome, StoreError>)> {
        let failed = self.failed.drain(..).map(|(asked, error)| (asked, Err(error)));
        let mut done: Vec<_> = failed.collect();
        let here = self.seen.extract_if(.., |(revision, _)| *revision <= applied);
        done.extend(here.map(|(_, asked)| (asked, Ok(Outcome::Done))));
        let is_over = |asked: &Asked| asked.at + PATIENCE <= now;
        let mut over: Vec<Asked> = self.waiting.extract_if(.., |asked| is_over(asked)).collect();
        if let Some(asked) = &mut self.asked {
            over.extend(asked.extract_if(.., |asked| is_over(asked)));
        }
        over.extend(self.seen.extract_if(.., |(_, asked)| is_over(asked)).map(|(_, asked)| asked));
        done.extend(over.into_iter().map(|asked| (asked, Err(StoreError::Unavailable))));
        done
    }

    pub(super) fn wakes_at(&self) -> Option<Duration> {
        self.all().map(|asked| asked.at + PATIENCE).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::etcd::ask::Ask;

    fn look(number: u64, seconds: u64) -> Asked {
        let ask = Ask::CatchUp(Box::new(|_| {}));
        Asked { number, at: Duration::from_secs(seconds), keys: Vec::new(), ask }
    }

    fn numbers(done: Vec<(Asked, Result<Outcome, StoreError>)>) -> Vec<(u64, bool)> {
        done.into_iter().map(|(asked, result)| (asked.number, result.is_ok())).collect()
    }

    #[test]
    fn one_question_serves_those_that_were_there_before_it_and_no_later_one() {
        let (mut looks, now) = (Looks::default(), Duration::from_secs(1));
        assert_eq!((looks.next(now), looks.wakes_at()), (None, None));
        looks.ask(vec![look(1, 0), look(2, 1)]);
        assert_eq!(looks.next(now), Some(PATIENCE));
        looks.ask(vec![look(3, 1)]);
        assert_eq!((looks.next(now), looks.wakes_at()), (None, Some(PATIENCE)));
        looks.answered(Ok(7));
        assert_eq!(numbers(looks.done(6, now)), []);
        assert!(looks.next(now).is_some());
        assert_eq!(numbers(looks.done(7, now)), [(1, true), (2, true)]);
        looks.answered(Ok(9));
        assert_eq!(numbers(looks.done(8, now)), []);
        assert_eq!(numbers(looks.done(9, now)), [(3, true)]);
        assert!(looks.is_empty());
    }

    #[test]
    fn nobody_waits_longer_than_anybody_does() {
        let (mut looks, now) = (Looks::default(), PATIENCE + Duration::from_secs(1));
        looks.ask(vec![look(1, 0)]);
        looks.next(Duration::ZERO);
        looks.answered(Ok(9));
        looks.ask(vec![look(2, 0)]);
        looks.next(Duration::ZERO);
        looks.ask(vec![look(3, 1), look(4, 2)]);
        assert_eq!(numbers(looks.done(8, now)), [(3, false), (2, false), (1, false)]);
        looks.answered(Err(StoreError::Unavailable));
        looks.next(now);
        looks.answered(Err(StoreError::Unavailable));
        assert_eq!(numbers(looks.done(8, now)), [(4, false)]);
        assert!(looks.is_empty());
    }
}
