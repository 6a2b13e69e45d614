//! The greeting of a [`Downstream`]: what a process is asked before it is a slave, and what becomes of the answers.

use std::time::{Duration, Instant};

use super::duplicates::{Merged, forget_previous_names, merge, other_at, outlives};
use super::phase::{End, Phase, Stage, Stream, Watch};
use super::{Around, Downstream, Event, Missing, Output, known_slaves};
use crate::distribution::RemoteProcess;
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};
use crate::replica::{GreetingAnswer, Hello, Lineage, Refusal, Said, Source};

/// A slave that is about to have a slave itself is greeted again after so long, and about as much again by chance.
const CROSSING_PAUSE_MILLIS: u32 = 10;

impl Downstream {
    /// Greets a slave that was found: writes are queued for it once it has taken that.
    pub(super) fn greet(&mut self, now: Instant, around: &mut Around<'_>) {
        let Phase::Found { watch, .. } = &self.phase else { return };
        let (watch, source) = (watch.clone(), around.source);
        // If another entry already replicates to this process, that session is kept: greeting again would restart it.
        // One that is only settled by the greeting's answer is told nothing until then: it is a slave all the time.
        let other = other_at(source, &self.slave, &watch.at, None);
        if other.is_some_and(|other| !outlives(&self.slave, &other)) && self.merge(&watch.at, None, source) {
            return self.end(End::Dropped, now, around);
        }
        // Before it is looked who the store is: that should not change from here on.
        self.note_greeting(true, source);
        let (question, at) = (self.next_question(), watch.at.clone());
        let stage = match source.lineage() {
            Some(lineage) => {
                self.outputs.push_back(Output::AskDialect { question, at });
                Stage::Dialect { question, lineage }
            }
            // It could be of no kvnode that knows of others.
            None if at.node == self.node => {
                self.enter(Phase::Greeting { watch, stage: Stage::Kind { question } }, source);
                return self.found_server(now, around);
            }
            None => {
                self.outputs.push_back(Output::AskKind { question, at });
                Stage::Kind { question }
            }
        };
        self.enter(Phase::Greeting { watch, stage }, source);
    }

    pub(super) fn dialect_known(
        &mut self,
        question: u64,
        is_kvnode: Result<bool, String>,
        now: Instant,
        around: &mut Around<'_>,
    ) {
        let Phase::Greeting { watch, stage } = &mut self.phase else { return };
        let Stage::Dialect { question: asked, lineage } = stage else { return };
        if *asked != question {
            return;
        }
        match is_kvnode {
            Ok(true) => {}
            Ok(false) => return self.found_no_kvnode(now, around),
            Err(why) => return self.end(End::Missing(Missing::Failed(why)), now, around),
        }
        let (source, lineage, at) = (around.source, lineage.clone(), watch.at.clone());
        let session = self.slave.next_session(lineage.incarnation());
        let hello = Hello {
            session,
            lineage: lineage.clone(),
            seq: source.seq(),
            slaves: known_slaves(&self.node, source),
            started_empty: self.slave.protects_data() && source.started_empty(),
        };
        self.questions += 1;
        let question = self.questions;
        *stage = Stage::Answer { question, lineage, session };
        self.outputs.push_back(Output::Greet { question, at, hello });
    }

    pub(super) fn greeted(
        &mut self,
        question: u64,
        answer: GreetingAnswer,
        now: Instant,
        around: &mut Around<'_>,
    ) {
        let (watch, lineage, session) = match &self.phase {
            Phase::Greeting { watch, stage: Stage::Answer { question: asked, lineage, session } }
                if *asked == question || planted(Rule::LateAnswer) =>
            {
                (watch.clone(), lineage.clone(), *session)
            }
            _ => return,
        };
        match answer {
            GreetingAnswer::Taken(said) => self.taken(watch, &lineage, session, said, now, around),
            GreetingAnswer::NoStore => self.found_no_kvnode(now, around),
            GreetingAnswer::None(why) => self.end(End::Missing(Missing::Failed(why)), now, around),
            GreetingAnswer::Refused(refusal) => {
                if !planted(Rule::RefusedSession) {
                    self.slave.not_taken(session);
                }
                // Promoted meanwhile, say, the store is no longer what was refused.
                let is_as_it_was =
                    around.source.lineage().as_ref() == Some(&lineage) || planted(Rule::RefusalOfTheChanged);
                if refusal != Refusal::Crossing && is_as_it_was {
                    return self.end(End::Missing(Missing::Refused(refusal)), now, around);
                }
                let pause = CROSSING_PAUSE_MILLIS + (around.chance)(CROSSING_PAUSE_MILLIS);
                let greet_at = now + Duration::from_millis(pause.into());
                self.enter(Phase::Found { watch, greet_at }, around.source);
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
        now: Instant,
        around: &mut Around<'_>,
    ) {
        let (source, incarnation) = (around.source, Some(said.incarnation));
        if self.merge(&watch.at, incarnation, source) {
            return self.end(End::Dropped, now, around);
        }
        let at = RemoteProcess::Pid(watch.at.clone());
        self.slave.found_kvnode(at, session, lineage.incarnation(), said);
        forget_previous_names(source, &self.slave, &watch.at, incarnation);
        self.enter(Phase::Streaming { watch, stream: Stream::new() }, source);
        // What has changed since is told, as nobody knew yet that this slave was to be told of it.
        if source.lineage().as_ref() != Some(lineage) {
            return self.end(End::Renewed, now, around);
        }
        self.stream(now, around);
    }

    /// It is spoken to with the messages that every server of the protocol takes.
    fn found_no_kvnode(&mut self, now: Instant, around: &mut Around<'_>) {
        // Nothing goes on from a store that may lack what a primary has that does not follow it now. A kvnode's store
        // would say so itself.
        if around.source.lineage().is_some_and(|lineage| lineage.is_orphan()) {
            return self.end(End::Missing(Missing::Refused(Refusal::Superseded)), now, around);
        }
        let Phase::Greeting { watch, stage } = &mut self.phase else { return };
        if watch.at.node == self.node {
            return self.found_server(now, around);
        }
        self.questions += 1;
        let (question, at) = (self.questions, watch.at.clone());
        *stage = Stage::Kind { question };
        self.outputs.push_back(Output::AskKind { question, at });
    }

    pub(super) fn kind_known(
        &mut self,
        question: u64,
        foreign: Result<Option<String>, String>,
        now: Instant,
        around: &mut Around<'_>,
    ) {
        match &self.phase {
            Phase::Greeting { stage: Stage::Kind { question: asked }, .. } if *asked == question => {}
            _ => return,
        }
        match foreign {
            Ok(None) => self.found_server(now, around),
            Ok(Some(module)) => self.end(End::Missing(Missing::Foreign(module)), now, around),
            Err(why) => self.end(End::Missing(Missing::Failed(why)), now, around),
        }
    }

    fn found_server(&mut self, now: Instant, around: &mut Around<'_>) {
        let Some(watch) = self.phase.watch().cloned() else { return };
        let source = around.source;
        if self.merge(&watch.at, None, source) {
            return self.end(End::Dropped, now, around);
        }
        self.slave.found(RemoteProcess::Pid(watch.at.clone()));
        forget_previous_names(source, &self.slave, &watch.at, None);
        self.enter(Phase::Streaming { watch, stream: Stream::new() }, source);
        self.stream(now, around);
    }

    /// Where the process is followed under another name, it is one slave; gives whether this one is dropped.
    pub(super) fn merge(&mut self, at: &Pid, incarnation: Option<u64>, source: &dyn Source) -> bool {
        let (event, is_dropped) = match merge(source, &self.slave, at, incarnation) {
            Merged::No => return false,
            Merged::Kept(event) => (event, false),
            Merged::Dropped(event) => (event, true),
        };
        self.log(event);
        if is_dropped && incarnation.is_some() {
            // The kept one has taken the sessions over: the process stays a slave, by whichever pid it was found.
            self.watched = None;
        }
        is_dropped
    }
}
