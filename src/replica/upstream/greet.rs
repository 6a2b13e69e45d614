//! A greeting: whether a primary is followed.

use super::{Answer, Around, Event, Following, Greeting, Output, Role, Upstream};
use crate::etf::Pid;
use crate::replica::planted::{Rule, planted};
use crate::replica::{Position, Refusal, TermRole};

/// Primaries that are watched at once, of which but one is followed: beyond it a greeting is refused.
const WATCHES_MAX: usize = 16;

/// Sessions of one primary that were in force one after the other and are known: one for each time that it greets this store by
/// one name while it takes the session of another for the one in force.
const REPLACED_MAX: usize = 64;

/// What a greeting changes.
struct Change {
    /// Whose writes the store has had, and the last of these.
    had: Option<Position>,
    /// Its own slaves are to be told of another chain.
    is_path_new: bool,
    /// It was a primary, or nobody's slave yet, and another was promoted in its place.
    is_demoted: bool,
    was_orphan: bool,
    /// The primary is to be watched.
    is_watch_new: bool,
    /// The primary that was followed until now, and is there: it is to know that it is left, as a primary without writes asks
    /// for nothing, and would show this slave as in step.
    left: Option<(Pid, u64)>,
    /// The session of the same primary, which is there, that this one takes the place of.
    replaced: Option<u64>,
}

impl Upstream {
    /// A primary wants this store as its slave.
    pub(super) fn greeted(&mut self, greeting: Greeting, around: Around) {
        match self.weigh(&greeting, around) {
            Ok(change) => self.follow(greeting, &change, around),
            Err(Refusal::Crossing) => {
                self.log(Event::PutOff(greeting.pid));
                self.reply(Refusal::Crossing);
            }
            Err(why) => {
                // It asks again and again.
                let refused = (greeting.lineage.incarnation(), why);
                if self.refused.replace(refused) != Some(refused) {
                    self.log(Event::Refused(greeting.pid.clone(), why));
                }
                if why == Refusal::Superseded && !around.is_greeted_by_slave {
                    self.superseded(&greeting, around.shares_name);
                }
                self.reply(why);
            }
        }
    }

    fn weigh(&self, greeting: &Greeting, around: Around) -> Result<Change, Refusal> {
        let lineage = &greeting.lineage;
        if lineage.incarnation() == self.incarnation {
            return Err(Refusal::Itself);
        }
        if around.is_shared {
            return Err(Refusal::KeptByEtcd);
        }
        if self.is_below_floor(lineage.term) {
            return Err(Refusal::Superseded);
        }
        // Without slaves nothing goes on from here, whatever the path said once.
        if around.has_slaves && lineage.path.contains(&self.incarnation) {
            return Err(Refusal::Cycle);
        }
        let own_rank = self.durable.rank();
        let same_rank = lineage.rank() == own_rank;
        // After a promotion of its own this store alone is the primary of the term: also of a slave that has forgotten its
        // primary in a restart. An orphan is no primary: its own primary may have writes that the orphan lacks.
        let is_older = lineage.rank() < own_rank && !planted(Rule::Superseded);
        if is_older || same_rank && self.is_owner() || lineage.is_orphan() {
            return Err(Refusal::Superseded);
        }
        let followed = self.following();
        let same = followed.is_some_and(|known| known.incarnation() == lineage.incarnation());
        if followed.is_some_and(|known| known.is_there) && !same && same_rank {
            return Err(Refusal::HasPrimary);
        }
        // Or the promotion alone, where the primary was told of as it stood before that.
        let is_path_new = followed.is_none_or(|known| known.primary.lineage != *lineage);
        // While a slave of this store is being told the chain of its primaries, the chain must not change. Where that slave is
        // the greeting primary, each would follow the other: of two that greet each other, the store with the higher
        // incarnation becomes the slave, and in a longer circle not every greeting succeeds. A store that an orphan greets
        // refuses the orphan.
        let was_orphan = matches!(self.role, Role::Orphan);
        let crosses = !was_orphan
            && (around.is_greeted_by_slave || self.greetings > 0 && lineage.incarnation() > self.incarnation);
        if is_path_new && same_rank && crosses && !planted(Rule::Crossing) {
            return Err(Refusal::Crossing);
        }
        if greeting.started_empty && !around.is_empty && !same && !planted(Rule::ProtectData) {
            return Err(Refusal::NotEmpty);
        }
        // Also a primary that has removed this store, or was left for another: it is watched until it is down.
        let is_watch_new = !self.watched.contains(&greeting.pid);
        if is_watch_new && self.watched.len() >= WATCHES_MAX {
            return Err(Refusal::HasPrimary);
        }
        let had = match followed {
            Some(known) => Some(Position { primary: known.incarnation(), applied: known.applied }),
            None => self.durable.position,
        };
        // Of a primary that has not brought it up to date it has nothing, whatever it holds of its own.
        let had = had.filter(|had| had.applied > 0);
        let left = followed.filter(|known| known.is_there && !same);
        Ok(Change {
            had,
            is_path_new,
            is_demoted: followed.is_none() && !same_rank,
            was_orphan,
            is_watch_new,
            left: left.map(|known| (known.primary.pid.clone(), known.primary.session)),
            replaced: followed.filter(|known| known.is_there && same).map(|known| known.primary.session),
        })
    }

    fn follow(&mut self, greeting: Greeting, change: &Change, around: Around) {
        self.settle_before_another();
        let (pid, session) = (greeting.pid.clone(), greeting.session);
        let (names, slaves) = (greeting.names.clone(), greeting.slaves.clone());
        let incarnation = greeting.lineage.incarnation();
        // What of this primary's writes is here; what is not acknowledged is sent again.
        let here = change.had.filter(|had| had.primary == incarnation);
        (self.durable.term, self.durable.promoted) = greeting.lineage.rank();
        self.durable.role = TermRole::Follows;
        self.floor = self.floor.map(|floor| floor.max(greeting.lineage.term));
        self.durable.family = greeting.lineage.family;
        self.durable.must_export |=
            change.is_demoted || self.following().is_some_and(Following::may_hold_own_values);
        if self.following().is_none() {
            self.brought_from = None;
        }
        self.durable.position = here;
        self.refused = None;
        self.under_way.forget();
        let replaced = std::mem::take(&mut self.replaced);
        if let Some(session) = change.replaced {
            self.replaced.clone_from(&replaced);
            if self.replaced.len() >= REPLACED_MAX {
                self.replaced.remove(0);
            }
            self.replaced.push(session);
        }
        self.stepped_down |= change.is_demoted && around.has_slaves;
        self.role = Role::Following(Following::new(greeting, here.map_or(0, |here| here.applied)));
        // Before anything is dropped.
        self.persist();
        self.log(Event::Follows { primary: pid.clone(), session });
        self.outputs.push_back(Output::GiveUp);
        if change.is_watch_new {
            self.watched.push(pid.clone());
            self.outputs.push_back(Output::Watch(pid.clone()));
        }
        if let Some((primary, session)) = change.left.clone().filter(|_| !planted(Rule::Leave)) {
            self.leave(&primary, session, replaced);
        }
        if change.is_demoted && (around.has_slaves || !around.is_empty) {
            self.log(Event::Demoted(pid.clone()));
        }
        // Where elections choose the primary all are its slaves, and none another slave's.
        let is_elected = self.floor.is_some();
        if (change.is_demoted || change.was_orphan || is_elected) && !planted(Rule::SlavesLeft) {
            let own = self.durable.slaves.iter().filter(|_| is_elected);
            let slaves = slaves.iter().chain(own).map(|slave| &slave.name);
            let names = slaves.chain(&names).cloned().collect();
            self.outputs.push_back(Output::RemoveDownstreams { names, at: pid });
        }
        self.outputs.push_back(Output::ReleaseNames(names));
        if change.is_path_new && !planted(Rule::ChainTold) {
            self.outputs.push_back(Output::RenewAll);
        }
        self.reply(Answer::Greeted {
            incarnation: self.incarnation,
            had: change.had.map(|had| had.primary),
            applied: change.had.map_or(0, |had| had.applied),
            stepped_down: self.stepped_down && self.settled_in != self.durable.rank(),
        });
    }
}
