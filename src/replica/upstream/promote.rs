//! A slave that becomes the primary, and a former primary that becomes its slave.

use super::{
    Answer, Changed, Event, Following, Greeting, Lacks, Output, Promotion, Role, Upstream, as_slave, kept,
};
use crate::distribution::ServerRef;
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};
use crate::replica::{KnownSlave, Lineage, TermRole};

/// Why this store may have another as its slave, unasked.
pub(super) enum Claim<'a> {
    /// It was the primary in whose place this store is promoted.
    Former,
    /// It finds a global name of its own with this store, and offers itself.
    Offered,
    /// It wanted to be the primary and was refused, as a newer term has begun.
    Refused {
        /// What it said of itself.
        lineage: &'a Lineage,
        /// It has a global name that this store has, too.
        shares_name: bool,
    },
    /// One of this store's slaves has refused it for that, and it belongs to this store's family.
    HandedUp,
}

impl Upstream {
    /// Whether this store has another as its slave, unasked: it owns its term, so it is the primary of the other one, which is of
    /// its family, has followed this term before a restart, or holds a global name that this store took over. A store of which
    /// none is true has nothing to do with it.
    pub(super) fn adopts(&self, claim: Claim<'_>) -> bool {
        self.is_owner()
            && match claim {
                Claim::Former | Claim::Offered | Claim::HandedUp => true,
                Claim::Refused { lineage, shares_name } => {
                    shares_name
                        || lineage.family == self.family()
                        || lineage.is_orphan() && lineage.rank() == self.durable.rank()
                }
            }
    }

    /// Why the store is not promoted now, as the answer says it; `None`: it can be.
    pub fn unpromotable(&self) -> Option<&'static str> {
        if self.following().is_some_and(|known| known.is_there && known.is_copying()) {
            return Some("copying");
        }
        (matches!(self.role, Role::Alone) && !self.durable.was_slave).then_some("not_a_slave")
    }

    /// The store takes the place of its primary, with the other slaves and the global names.
    pub(super) fn promoted(&mut self, reports: bool) {
        if let Some(why) = self.unpromotable() {
            return self.reply(Answer::Error(why));
        }
        self.promote_in(
            self.durable.term.saturating_add(u64::from(!planted(Rule::TermOfPromotion))),
            reports,
        );
    }

    pub(super) fn promote_in(&mut self, term: u64, reports: bool) {
        let lacks = Lacks::of(self.following(), self.durable.is_partial);
        let lag = self.following().map_or(0, Following::lag);
        let former = match std::mem::replace(&mut self.role, Role::Alone) {
            Role::Following(former) => Some(former),
            Role::Alone | Role::Orphan => None,
        };
        self.under_way.forget();
        self.started_empty = false;
        self.stepped_down = false;
        let durable = &mut self.durable;
        durable.term = term;
        durable.promoted = self.incarnation;
        durable.role = TermRole::Promoted;
        durable.was_slave = false;
        durable.must_export = false;
        durable.is_partial = false;
        // With writes of its own it has no place among another's.
        (durable.position, durable.settled) = (None, None);
        let names = former.iter().flat_map(|former| &former.primary.names);
        durable.names_taken = names.filter(|name| matches!(name, ServerRef::Global(_))).cloned().collect();
        let promotion = Promotion {
            term: self.durable.term,
            former: former.as_ref().map(|former| former.primary.pid.clone()),
            lacks,
            lag,
            slaves: Vec::new(),
            names: self.durable.names_taken.clone(),
        };
        if !matches!(lacks, Lacks::Nothing | Lacks::Unknown) {
            self.log(Event::Lacks(lacks, (lag > 0).then_some(lag)));
        }
        self.outputs.push_back(Output::RenewAll);
        self.log(Event::Promoted {
            former: promotion.former.clone(),
            term: promotion.term,
            seq: former.as_ref().map_or(0, |former| former.applied),
            // Then it has the names, and all others are its slaves.
            is_elected: self.floor.is_some(),
        });
        if let Some(former) = former {
            self.take_over(former);
        }
        // It is promoted once all of this is kept, whatever happens to its node.
        self.kept = kept(&self.durable);
        let answer = if reports { Answer::Promoted(promotion) } else { Answer::Ok };
        self.outputs.push_back(Output::Persist { changed: Changed::Promotion, then: Some(answer) });
    }

    /// What was the former primary's is this store's: its slaves, itself among them, and its global names.
    fn take_over(&mut self, former: Following) {
        let primary = former.primary;
        let replaced = std::mem::take(&mut self.replaced);
        if former.is_there {
            self.leave(&primary.pid, primary.session, replaced);
        }
        let itself = self.adopts(Claim::Former).then(|| as_slave(&primary.names, &primary.pid));
        let slaves = primary.slaves.into_iter().chain(itself);
        let slaves = slaves.filter(|_| !planted(Rule::SlavesTaken));
        self.outputs.extend(slaves.map(Output::AddDownstream));
        let names = self.durable.names_taken.iter().cloned();
        self.outputs.extend(names.map(Output::ClaimName));
    }

    /// A primary of an older term that this store has refused becomes the slave of the primary of this term: this store, or the
    /// one at the head of its chain, which is told.
    pub(super) fn superseded(&mut self, greeting: &Greeting, shares_name: bool) {
        let slave = as_slave(&greeting.names, &greeting.pid);
        let is_of_family = greeting.lineage.family == self.family();
        if self.adopts(Claim::Refused { lineage: &greeting.lineage, shares_name }) {
            self.adopt(slave);
        } else if is_of_family {
            self.hand_up(slave);
        }
    }

    /// A slave has refused a primary of an older term.
    pub(super) fn handed_up(&mut self, slave: KnownSlave) {
        if self.adopts(Claim::HandedUp) {
            self.adopt(slave);
        } else {
            self.hand_up(slave);
        }
    }

    fn adopt(&mut self, slave: KnownSlave) {
        if self.durable.slaves.iter().any(|known| known.name == slave.name) {
            return;
        }
        self.log(Event::Adopted(slave.name.clone()));
        self.outputs.push_back(Output::AddDownstream(slave));
    }

    fn hand_up(&mut self, superseded: KnownSlave) {
        if planted(Rule::HandedUp) {
            return;
        }
        if let Some(following) = self.following().filter(|following| following.is_there) {
            let (primary, session) = (following.primary.pid.clone(), following.primary.session);
            self.outputs.push_back(Output::HandUp { primary, session, superseded });
        }
    }

    /// A store finds its global name with this one. Where this one was promoted, that is the former primary, come back.
    pub(super) fn offered(&mut self, pid: Pid) {
        if !self.adopts(Claim::Offered) {
            return self.reply(Answer::Error("not_promoted"));
        }
        self.log(Event::Returned(pid.clone()));
        self.outputs.push_back(Output::AddDownstream(as_slave(&[], &pid)));
        self.reply(Answer::Ok);
    }
}
