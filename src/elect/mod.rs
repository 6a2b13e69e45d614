//! Which of several processes of one store holds its global names: a candidate, as a value.
//!
//! A key in etcd, attached to a lease, names the holder. Each process of the store is a candidate: it watches the key, and takes it
//! where it is free. A store in etcd needs no holder to be safe, since each of its writes is a transaction: the names only route.
//!
//! ```text
//!              the key is free, or its holder is surely gone
//!   Waiting ---------------------------------------------------> Campaigning
//!    ^  ^  <------------- another was faster; not done ------------   |
//!    |  |                                                             | the key is this candidate's
//!    |  +---- the key is another's, or the lease may end -----+       v
//!    |                                                    CatchingUp: all that was written before is read
//!    |                                                                |
//!    +-- the same: the names are given up ------- Holding <-----------+ the names are registered
//!                                                    |
//!                  Over <------- GivingUp <------- Leaving: the lease is revoked, and the names stay until another holds
//! ```
//!
//! The key is free where it is not there, as its lease has ended or was revoked. It may be taken over by a comparison with its last
//! revision where its holder is surely gone: its node was connected to, that connection has ended, and the node does not answer
//! at its port any more, or its epmd does not know it; or another life of that node is there, which may be this candidate's own node: what has its
//! name, and was written before the candidate first read the key, is an earlier life's. A dial that takes long decides nothing: the lease
//! does. So it does of a node that has this one's name and lives, which is a fault of the set-up.
//!
//! **What is promised.** By its own clock a candidate holds no longer than its lease: it gives the names up [`MARGIN`] before the
//! end, and when it sees the key of another. So two hold at the same time only where one has taken over from a
//! node that was gone, and was not.
//!
//! **How it is driven.** [`handle`](Candidate::handle) an [`Input`] as it comes, and one by one carry out what
//! [`poll_output`](Candidate::poll_output) gives; at [`poll_timeout`](Candidate::poll_timeout) hand in [`Input::Time`]. Before any of
//! these, where there is a lease, [`Input::LeaseUntil`] says until when it is held.

mod contact;
mod face;
pub mod keys;
mod lease;
mod namesake;
pub mod succession;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use contact::Contact;
pub use face::{Campaign, Campaigned, Former, Held, Input, Output};
pub use keys::Life;
use lease::{Lease, PAUSE};
use namesake::Namesake;

use crate::etf::Pid;

/// So long before the end of its lease a holder gives the names up: the nodes that know them are told within this time.
pub const MARGIN: Duration = Duration::from_millis(300);
/// How long a holder that leaves keeps the names for the next one to take them over.
const HANDOVER: Duration = Duration::from_millis(300);
/// How long a holder may take to give the names up before it ends.
const GIVE_UP_MAX: Duration = Duration::from_secs(1);
/// How long names stay where another is about to register them for itself.
const PATIENCE: Duration = Duration::from_millis(500);

/// How a candidate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Phase {
    /// It does not hold.
    Waiting {
        /// It does not campaign before.
        not_before: Option<Instant>,
    },
    /// A transaction that takes the key is under way.
    Campaigning { question: u64, lease: i64, former: Vec<Life> },
    /// It has the key. The store reads what was written before.
    CatchingUp {
        /// `None`: it is asked again.
        question: Option<u64>,
        again_at: Instant,
    },
    /// It has the names.
    Holding,
    /// It ends, and its lease is revoked. It has the names until another holds, or until then.
    Leaving { until: Instant },
    /// It ends, and gives the names up, until then at most.
    GivingUp { question: u64, until: Instant },
    /// It has ended.
    Over,
}

/// One process of a store. See the [module](self).
#[derive(Debug)]
pub struct Candidate {
    me: Pid,
    phase: Phase,
    lease: Lease,
    /// `None`: nothing was told of it yet.
    held: Option<Option<Held>>,
    /// The revision of etcd that this was at.
    held_at: i64,
    namesake: Namesake,
    former: Option<Former>,
    former_at: i64,
    /// How it stands to the node of another that holds.
    contact: Option<Contact>,
    /// The holder that was told of last.
    told: Option<Option<Pid>>,
    questions: u64,
    now: Instant,
    outputs: VecDeque<Output>,
}

impl Candidate {
    /// A candidate that is this process. It asks for a lease at once.
    pub fn new(me: Pid, now: Instant) -> Self {
        let mut candidate = Self {
            me,
            phase: Phase::Waiting { not_before: None },
            lease: Lease::None { ask_at: Some(now) },
            held: None,
            held_at: 0,
            namesake: Namesake::default(),
            former: None,
            former_at: 0,
            contact: None,
            told: None,
            questions: 0,
            now,
            outputs: VecDeque::new(),
        };
        candidate.decide(now);
        candidate
    }

    /// Whether it has the names, as far as it knows at the time of its last input.
    pub fn holds(&self) -> bool {
        matches!(self.phase, Phase::Holding | Phase::Leaving { .. })
    }

    /// Until when it holds by its own clock, if nothing more is heard of its lease; `None`: it does not.
    pub fn holds_until(&self) -> Option<Instant> {
        match (&self.phase, self.lease) {
            (Phase::Holding, Lease::Held { until, .. }) => Some(until),
            _ => None,
        }
    }

    /// Whether it has ended: there is nothing more to be done.
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Time`] is to be handed in, if nothing comes before.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let lease = self.lease.due();
        let phase = match self.phase {
            Phase::Waiting { not_before } => not_before,
            Phase::CatchingUp { question: None, again_at } => Some(again_at),
            Phase::Leaving { until } | Phase::GivingUp { until, .. } => Some(until),
            Phase::Campaigning { .. } | Phase::CatchingUp { .. } | Phase::Holding | Phase::Over => None,
        };
        let contact = self.contact.as_ref().and_then(Contact::due);
        let all = lease.into_iter().chain([phase, contact]).flatten();
        // What was due before is done.
        all.filter(|at| *at > self.now).min().filter(|_| !self.is_over())
    }

    /// Something has come.
    pub fn handle(&mut self, input: Input, now: Instant) {
        self.now = now;
        if self.is_over() {
            return;
        }
        match input {
            Input::Keys { revision, held, former } => {
                self.told_held(revision, held);
                self.told_former(revision, former);
            }
            Input::Held { revision, held } => self.told_held(revision, held),
            Input::Former { revision, former } => self.told_former(revision, former),
            Input::Granted { question, lease } => {
                lease.iter().for_each(|(lease, _)| self.namesake.leased(*lease));
                self.lease.granted(question, lease, now);
            }
            Input::LeaseUntil(until) => self.lease.told(until, now),
            Input::Campaigned { question, answer } => self.campaigned(question, answer, now),
            Input::CaughtUp { question, is_done } => {
                if matches!(self.phase, Phase::CatchingUp { question: asked, .. } if asked == Some(question))
                {
                    if is_done && self.has_key(now) {
                        self.hold();
                    } else {
                        self.phase = Phase::CatchingUp { question: None, again_at: now + PAUSE };
                    }
                }
            }
            Input::Connected { question, creation } => {
                self.contact.iter_mut().for_each(|contact| contact.connected(question, creation));
            }
            Input::NotConnected { question, is_gone } => {
                self.contact.iter_mut().for_each(|contact| contact.not_connected(question, is_gone, now));
            }
            Input::Disconnected { question } => {
                self.contact.iter_mut().for_each(|contact| contact.disconnected(question, now));
            }
            Input::GivenUp { question } => {
                if matches!(self.phase, Phase::GivingUp { question: asked, .. } if asked == question) {
                    self.end();
                }
            }
            Input::Leave => self.leave(now),
            Input::Time => {}
        }
        self.decide(now);
    }

    fn told_held(&mut self, revision: i64, held: Option<Held>) {
        if revision >= self.held_at {
            if self.held.is_none() {
                self.namesake.first_read(revision);
            }
            (self.held_at, self.held) = (revision, Some(held));
        }
    }

    fn told_former(&mut self, revision: i64, former: Former) {
        if revision >= self.former_at {
            (self.former_at, self.former) = (revision, Some(former));
        }
    }

    fn campaigned(&mut self, question: u64, answer: Campaigned, now: Instant) {
        let Phase::Campaigning { question: asked, lease, former } = &mut self.phase else { return };
        if *asked != question {
            return;
        }
        let (lease, lives) = (*lease, std::mem::take(former));
        let mut not_before = None;
        match answer {
            Campaigned::Won { revision } => {
                let by = Some(self.me.clone());
                self.told_held(revision, Some(Held { mod_revision: revision, by, lease }));
                self.told_former(revision, Former { mod_revision: revision, lives });
            }
            Campaigned::Lost { revision, held, former } => {
                self.told_held(revision, held);
                self.told_former(revision, former);
            }
            // It may have been done, and the watch tells.
            Campaigned::Failed => not_before = Some(now + PAUSE),
        }
        self.phase = Phase::Waiting { not_before };
    }

    fn leave(&mut self, now: Instant) {
        match self.phase {
            Phase::Leaving { .. } | Phase::GivingUp { .. } | Phase::Over => return,
            Phase::Holding => self.phase = Phase::Leaving { until: now + HANDOVER },
            // A transaction that is under way takes the key with a lease that has ended, which etcd refuses.
            Phase::Waiting { .. } | Phase::Campaigning { .. } | Phase::CatchingUp { .. } => self.end(),
        }
        self.lease = Lease::None { ask_at: None };
        self.outputs.push_front(Output::Revoke);
    }

    fn end(&mut self) {
        self.phase = Phase::Over;
        self.outputs.push_back(Output::End);
    }

    /// Does what follows from what is known.
    fn decide(&mut self, now: Instant) {
        self.keep_lease(now);
        self.keep_contact(now);
        match self.phase {
            Phase::Waiting { not_before } => {
                if self.has_key(now) {
                    self.catch_up(now);
                } else if not_before.is_none_or(|at| at <= now) {
                    self.campaign(now);
                }
            }
            Phase::CatchingUp { question, again_at } => {
                if !self.has_key(now) {
                    self.phase = Phase::Waiting { not_before: None };
                } else if question.is_none() && again_at <= now {
                    self.catch_up(now);
                }
            }
            Phase::Holding if !self.has_key(now) => {
                self.phase = Phase::Waiting { not_before: None };
                self.give_up();
            }
            Phase::Leaving { until } => {
                if self.other().is_some() {
                    let question = self.give_up();
                    self.phase = Phase::GivingUp { question, until: now + GIVE_UP_MAX };
                } else if until <= now {
                    // The end of its process takes the names with it.
                    self.end();
                }
            }
            Phase::GivingUp { until, .. } if until <= now => self.end(),
            Phase::Campaigning { .. } | Phase::Holding | Phase::GivingUp { .. } | Phase::Over => {}
        }
        self.tell_of_namesake();
        self.tell_of_holder();
    }

    fn keep_lease(&mut self, now: Instant) {
        if self.lease.drop_ended(now) {
            let question = self.next_question();
            self.lease = Lease::Asked { question };
            self.outputs.push_back(Output::Lease { question });
        }
    }

    /// Looks after the connection to the node of another that holds.
    fn keep_contact(&mut self, now: Instant) {
        let is_leaving = matches!(self.phase, Phase::Leaving { .. } | Phase::GivingUp { .. } | Phase::Over);
        let held = self.held.as_ref().and_then(Option::as_ref).filter(|_| !is_leaving);
        let other = held.and_then(|held| Some((Life::of(held.by.as_ref()?), held.mod_revision)));
        let Some((life, revision)) = other.filter(|(life, _)| life.node != self.me.node) else {
            self.contact = None;
            return;
        };
        let contact = match self.contact.take().filter(|contact| contact.is_with(&life)) {
            Some(contact) => contact,
            None => Contact::new(life, revision, now),
        };
        let contact = self.contact.insert(contact);
        contact.seen(revision, now);
        if contact.wants_dial(now) {
            self.questions += 1;
            let (question, node) = contact.dial(self.questions);
            self.outputs.push_back(Output::Dial { question, node });
        }
    }

    /// Whether the key is this candidate's, with a lease that lasts.
    fn has_key(&self, now: Instant) -> bool {
        let Some(Some(held)) = &self.held else { return false };
        held.by.as_ref() == Some(&self.me) && self.lease.lasting(now) == Some(held.lease)
    }

    /// Another process that has the key.
    fn other(&self) -> Option<&Pid> {
        self.held.as_ref()?.as_ref()?.by.as_ref().filter(|by| **by != self.me)
    }

    /// Whether the key may be taken.
    fn is_free(&self, held: Option<&Held>) -> bool {
        let Some(held) = held else { return true };
        // No kvnode writes it without a lease, and it would stay for good.
        held.lease == 0
            || held.by.as_ref().is_some_and(|by| {
                // This candidate had it with another lease; or an earlier process of this node had, which has ended.
                by.node == self.me.node && !self.is_namesake(held)
                    || self.contact.as_ref().is_some_and(|contact| {
                        contact.is_with(&Life::of(by)) && contact.is_gone(held.mod_revision)
                    })
            })
    }

    /// Whether a node that has this one's name holds, and is no earlier life of it: it has written since this one is there.
    fn is_namesake(&self, held: &Held) -> bool {
        held.by.as_ref().is_some_and(|by| by.node == self.me.node)
            && self.namesake.has_written(held.lease, held.mod_revision)
    }

    fn campaign(&mut self, now: Instant) {
        let (Some(held), Some(known)) = (&self.held, &self.former) else { return };
        let Some(lease) = self.lease.lasting(now).filter(|_| self.is_free(held.as_ref())) else { return };
        let me = Life::of(&self.me);
        let others = known.lives.iter().filter(|life| **life != me).cloned();
        let former: Vec<Life> = std::iter::once(me.clone()).chain(others).take(keys::FORMER_MAX).collect();
        let (held_was, former_was) = (held.as_ref().map_or(0, |held| held.mod_revision), known.mod_revision);
        let question = self.next_question();
        let campaign = Campaign { question, lease, held_was, former_was, former: former.clone() };
        self.phase = Phase::Campaigning { question, lease, former };
        self.outputs.push_back(Output::Campaign(campaign));
    }

    fn catch_up(&mut self, now: Instant) {
        let question = self.next_question();
        self.phase = Phase::CatchingUp { question: Some(question), again_at: now };
        self.outputs.push_back(Output::CatchUp { question });
    }

    fn hold(&mut self) {
        self.phase = Phase::Holding;
        let me = Life::of(&self.me);
        let known = self.former.iter().flat_map(|former| &former.lives);
        let former = known.filter(|life| **life != me).cloned().collect();
        self.told = None;
        self.outputs.push_back(Output::Hold { former });
    }

    fn give_up(&mut self) -> u64 {
        let question = self.next_question();
        let to = self.other().cloned();
        let is_lease_over = self.lease.lasting(self.now).is_none();
        // Another that has the key registers the names for itself, and nobody is to miss them meanwhile.
        let patience = if to.is_some() { PATIENCE } else { Duration::ZERO };
        self.told = Some(to.clone());
        self.outputs.push_back(Output::GiveUp { question, to, is_lease_over, patience });
        question
    }

    fn tell_of_namesake(&mut self) {
        let held = self.held.iter().flatten().find(|held| self.is_namesake(held));
        let found = held.and_then(|held| held.by.as_ref());
        self.outputs.extend(self.namesake.found(found).map(Output::Namesake));
    }

    fn tell_of_holder(&mut self) {
        if self.holds() || self.held.is_none() || matches!(self.phase, Phase::GivingUp { .. } | Phase::Over) {
            return;
        }
        let holder = self.held.iter().flatten().find_map(|held| held.by.clone());
        if self.told.as_ref() != Some(&holder) {
            self.told = Some(holder.clone());
            self.outputs.push_back(Output::HeldBy(holder));
        }
    }

    const fn next_question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }
}

#[cfg(test)]
mod tests;
