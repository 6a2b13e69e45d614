//! The greeting of a [`Downstream`]: what a process is asked before it is a slave, and what becomes of the answers.

use std::time::{Duration, Instant};

use super::phase::{End, Phase, Stage, Watch};
use super::siblings::Kept;
use super::{Answer, Downstream, Event, Missing, Output, Standpoint};
use crate::etf::Pid;
use crate::replica::dialect::Dialect;
use crate::replica::planted::{Rule, planted};
use crate::replica::{GreetingAnswer, Hello, Lineage, Refusal, Said};

/// A slave that is about to have a slave itself is greeted again after so long, and about as much again by chance.
const CROSSING_PAUSE_MILLIS: u32 = 10;
/// Times that one slave is greeted, found and lost, before its sessions are another's.
const SESSIONS_BITS: u32 = 40;

impl Downstream {
    /// Greets a slave that was found: writes are queued for it once it has taken that.
    pub(super) fn greet(&mut self) {
        let Phase::Found { watch, .. } = &self.phase else { return };
        let (watch, at) = (watch.clone(), watch.at.clone());
        let question = self.next_question();
        // The store is told before it is looked up who it is: that should not change from there on.
        self.enter(Phase::Greeting { watch, stage: Stage::Dialect { question } });
        self.outputs.push_back(Output::AskDialect { question, at });
    }

    pub(super) fn answered(&mut self, question: u64, answer: Answer, store: &Standpoint, now: Instant) {
        let Phase::Greeting { watch, stage } = &self.phase else { return };
        match (stage, answer) {
            (Stage::Dialect { question: asked }, Answer::Dialect(is_kvnode)) if *asked == question => {
                self.dialect_known(is_kvnode, store, now);
            }
            (Stage::Answer { question: asked, lineage, session }, Answer::Greeting(answer))
                if *asked == question || planted(Rule::LateAnswer) =>
            {
                let (watch, lineage, session) = (watch.clone(), lineage.clone(), *session);
                self.greeted(watch, &lineage, session, answer, store, now);
            }
            (Stage::Kind { question: asked }, Answer::Kind(foreign)) if *asked == question => match foreign {
                Ok(None) => self.found_server(store, now),
                Ok(Some(module)) => self.end(End::Missing(Missing::Foreign(module)), now),
                Err(why) => self.end(End::Missing(Missing::Failed(why)), now),
            },
            _ => {}
        }
    }

    fn dialect_known(&mut self, is_kvnode: Result<bool, String>, store: &Standpoint, now: Instant) {
        let Phase::Greeting { watch, .. } = &self.phase else { return };
        let at = watch.at.clone();
        // What has changed before `store` was looked up is told now.
        self.renew = false;
        // If another entry already replicates to this process, that session is kept: greeting again would restart it.
        // One that is only settled by the greeting's answer is told nothing until then: it is a slave all the time.
        if let Kept::Other(_) = store.siblings.settle(&self.name, &at, None) {
            self.merge(&at, None, store);
            return self.end(End::Dropped, now);
        }
        match is_kvnode {
            Ok(true) => {}
            Ok(false) => return self.found_no_kvnode(store, now),
            Err(why) => return self.end(End::Missing(Missing::Failed(why)), now),
        }
        let session = self.next_session(store.lineage.incarnation());
        let hello = Hello {
            session,
            lineage: store.lineage.clone(),
            seq: store.seq,
            clock: store.clock,
            slaves: store.slaves.clone(),
            started_empty: self.protect_data && store.started_empty,
        };
        let question = self.next_question();
        if let Phase::Greeting { stage, .. } = &mut self.phase {
            *stage = Stage::Answer { question, lineage: store.lineage.clone(), session };
        }
        self.outputs.push_back(Output::Greet { question, at, hello });
    }

    /// The number of the session that a kvnode is greeted with, by a primary of this incarnation.
    fn next_session(&mut self, incarnation: u64) -> u64 {
        // Each greeting has one of its own: a slave that refuses the next may still be in the one before.
        self.times += 1;
        let session = incarnation.wrapping_add(self.number << SESSIONS_BITS).wrapping_add(self.times);
        self.note_greeted(session);
        session
    }

    fn greeted(
        &mut self,
        watch: Watch,
        lineage: &Lineage,
        session: u64,
        answer: GreetingAnswer,
        store: &Standpoint,
        now: Instant,
    ) {
        match answer {
            GreetingAnswer::Taken(said) => self.taken(watch, lineage, session, said, store, now),
            GreetingAnswer::NoStore => self.found_no_kvnode(store, now),
            GreetingAnswer::None(why) => self.end(End::Missing(Missing::Failed(why)), now),
            GreetingAnswer::Refused(refusal) => {
                self.greeted.retain(|greeted| *greeted != session || planted(Rule::RefusedSession));
                // Promoted meanwhile, say, the store is no longer what was refused.
                let is_as_it_was = store.lineage == *lineage || planted(Rule::RefusalOfTheChanged);
                if refusal != Refusal::Crossing && is_as_it_was {
                    return self.end(End::Missing(Missing::Refused(refusal)), now);
                }
                let pause = CROSSING_PAUSE_MILLIS + (self.chance.0)(CROSSING_PAUSE_MILLIS);
                let greet_at = now + Duration::from_millis(pause.into());
                self.enter(Phase::Found { watch, greet_at });
                self.log(Event::Crossing);
            }
        }
    }

    /// A kvnode's store has taken a greeting.
    fn taken(
        &mut self,
        watch: Watch,
        lineage: &Lineage,
        session: u64,
        said: Said,
        store: &Standpoint,
        now: Instant,
    ) {
        let (at, incarnation) = (watch.at.clone(), Some(said.incarnation));
        self.watched = Some((at.clone(), incarnation));
        if self.merge(&at, incarnation, store) {
            return self.end(End::Dropped, now);
        }
        let knows = said.had == Some(lineage.incarnation()) && said.applied >= self.confirmed();
        self.stepped_down |= said.stepped_down;
        self.follow(watch, Dialect::Kvnode { session }, incarnation, knows);
        self.outputs.push_back(Output::Forget { at, incarnation });
        // What has changed since is told, as nobody knew yet that this slave was to be told of it.
        if store.lineage != *lineage {
            return self.end(End::Renewed, now);
        }
        self.stream(now);
    }

    /// It is spoken to with the messages that every server of the protocol takes.
    fn found_no_kvnode(&mut self, store: &Standpoint, now: Instant) {
        // Nothing goes on from a store that may lack what a primary has that does not follow it now. A kvnode's store
        // would say so itself.
        if store.lineage.is_orphan() {
            return self.end(End::Missing(Missing::Refused(Refusal::Superseded)), now);
        }
        let question = self.next_question();
        let Phase::Greeting { watch, stage } = &mut self.phase else { return };
        *stage = Stage::Kind { question };
        self.outputs.push_back(Output::AskKind { question, at: watch.at.clone() });
    }

    fn found_server(&mut self, store: &Standpoint, now: Instant) {
        let Some(watch) = self.phase.watch().cloned() else { return };
        let at = watch.at.clone();
        if self.merge(&at, None, store) {
            return self.end(End::Dropped, now);
        }
        self.follow(watch, Dialect::Elixir, None, true);
        self.outputs.push_back(Output::Forget { at, incarnation: None });
        self.stream(now);
    }

    /// Where the process is followed under another name, it is one slave; gives whether this one is dropped.
    fn merge(&mut self, at: &Pid, incarnation: Option<u64>, store: &Standpoint) -> bool {
        match store.siblings.settle(&self.name, at, incarnation) {
            Kept::Only => false,
            Kept::This(other) => {
                self.outputs.push_back(Output::Drop { name: other.clone() });
                self.outputs.push_back(Output::SlavesChanged);
                self.log(Event::Merged { dropped: other.clone(), kept: self.name.clone() });
                false
            }
            Kept::Other(other) => {
                // What is kept of the slaves has its name still: a store that is known there is not taken over again.
                self.outputs.push_back(Output::SlavesChanged);
                self.log(Event::Merged { dropped: self.name.clone(), kept: other.clone() });
                true
            }
        }
    }
}
