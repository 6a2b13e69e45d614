//! A transaction: guards, and changes of which all are made where all guards hold, and else none.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use super::expected::Expected;
use super::keys::{Keys, Pieces};
use super::outcome::{Outcome, Reader};
use super::serve::{Asked, Changes};
use super::{BYTES_MAX, Refusal, SUMS_BYTES_MAX, Unserved, edit, listed, lookup};
use crate::etf::{Integer, TermView, Traits, encode};
use crate::kv::clock::Clock;
use crate::kv::reason::Reason;
use crate::kv::write::{Stamp, check_value};
use crate::process::Turn;
use crate::store::{Change, PendingMany, Store, StoreError, UpdateMany, Value, Written};

/// What is asked of several keys, and what has come of it.
pub(super) struct Transact<'a> {
    keys: Pieces,
    plan: Plan<'a>,
}

/// The same without the keys: they are told by their places.
struct Plan<'a> {
    guards: Vec<Guard>,
    steps: Vec<Step>,
    terms: Terms<'a>,
    /// What was noticed in each key.
    key_traits: Vec<Traits>,
    /// Whether the bytes that each key has are looked at, and not only whether it has some.
    needs_bytes: Vec<bool>,
    stamp: Stamp,
    /// What is added ends when the key did.
    keeps_end: bool,
    clock: Arc<Clock>,
    reader: Reader,
    /// What becomes of each key.
    became: Vec<Effect>,
    outcome: Outcome,
}

/// The two lists that the request is made of.
struct Terms<'a> {
    guards: Cow<'a, [u8]>,
    changes: Cow<'a, [u8]>,
}

/// What has to be so for anything to change.
#[derive(Clone)]
struct Guard {
    key: usize,
    condition: Condition,
    /// Where it stands in the list.
    term: Range<usize>,
}

#[derive(Clone)]
enum Condition {
    Is(Expected),
    Something,
}

/// One change.
#[derive(Clone)]
struct Step {
    key: usize,
    operation: Operation,
}

#[derive(Clone)]
enum Operation {
    /// The key gets the value that stands there in the list of changes.
    Put(Range<usize>, Traits),
    Delete,
    Add(Integer),
}

/// What a key has, once some of the changes are made.
#[derive(Clone)]
enum Effect {
    /// What it had.
    AsItWas,
    /// What stands there in the list of changes.
    Given(Range<usize>, Traits),
    /// A sum, and when that ends.
    Sum(Vec<u8>, u64),
    Nothing,
}

impl<'a> Transact<'a> {
    /// Reads the guards and the changes.
    pub(super) fn read(
        guards: TermView<'a>,
        changes: TermView<'a>,
        (stamp, keeps_end): (Stamp, bool),
        clock: &Arc<Clock>,
        turn: &Turn<'_>,
    ) -> Result<Self, Unserved> {
        if guards.bytes().len() + changes.bytes().len() > BYTES_MAX {
            return Err(Refusal::TooLarge(BYTES_MAX).into());
        }
        let (mut keys, mut key_traits, mut needs_bytes) = (Keys::default(), Vec::new(), Vec::new());
        let mut place = |key: TermView<'_>, needs: bool| -> Result<usize, Unserved> {
            let (at, is_new) = keys.insert(key)?;
            if is_new {
                key_traits.push(key.traits());
                needs_bytes.push(needs);
            } else if let Some(needs_bytes) = needs_bytes.get_mut(at) {
                *needs_bytes |= needs;
            }
            Ok(at)
        };
        let mut known = Vec::new();
        for guard in listed(guards)? {
            let (key, condition) = Condition::read(guard)?;
            let needs_bytes = matches!(condition, Condition::Is(Expected::Value(_)));
            known.push(Guard { key: place(key, needs_bytes)?, condition, term: range_in(guards, guard) });
        }
        let mut steps = Vec::new();
        for change in listed(changes)? {
            let (key, operation) = Operation::read(change, changes)?;
            let needs_bytes = matches!(operation, Operation::Add(_));
            steps.push(Step { key: place(key, needs_bytes)?, operation });
        }
        let plan = Plan {
            guards: known,
            steps,
            terms: Terms { guards: Cow::Borrowed(guards.bytes()), changes: Cow::Borrowed(changes.bytes()) },
            key_traits,
            needs_bytes,
            stamp,
            keeps_end,
            clock: Arc::clone(clock),
            reader: Reader::of(turn),
            became: Vec::new(),
            outcome: Outcome::NIL,
        };
        Ok(Self { keys: keys.into_pieces(), plan })
    }
}

/// Where a part of a term stands in it.
fn range_in(whole: TermView<'_>, part: TermView<'_>) -> Range<usize> {
    let from = part.bytes().as_ptr() as usize - whole.bytes().as_ptr() as usize;
    from..from + part.bytes().len()
}

impl Condition {
    /// `{:equal, k, v}`, `{:revision, k, r}`, `{:absent, k}`, `{:present, k}`
    fn read(guard: TermView<'_>) -> Result<(TermView<'_>, Self), Unserved> {
        if let Some([kind, key]) = guard.as_tuple::<2>() {
            return match kind.as_atom() {
                Some(atom) if atom == "absent" => Ok((key, Self::Is(Expected::Absent))),
                Some(atom) if atom == "present" => Ok((key, Self::Something)),
                _ => Err(Unserved::Shape),
            };
        }
        let [kind, key, what] = guard.as_tuple::<3>().ok_or(Unserved::Shape)?;
        match kind.as_atom() {
            Some(atom) if atom == "equal" => Ok((key, Self::Is(Expected::value(what)?))),
            Some(atom) if atom == "revision" => Ok((key, Self::Is(Expected::revision(what)?))),
            _ => Err(Unserved::Shape),
        }
    }

    fn is_met(&self, present: Option<Value<'_>>) -> bool {
        match self {
            Self::Is(expected) => expected.is_met(present),
            Self::Something => present.is_some(),
        }
    }
}

impl Operation {
    /// `{:put, k, v}`, `{:delete, k}`, `{:add, k, n}`
    fn read<'a>(change: TermView<'a>, whole: TermView<'_>) -> Result<(TermView<'a>, Self), Unserved> {
        if let Some([kind, key]) = change.as_tuple::<2>() {
            return if kind.is_atom("delete") { Ok((key, Self::Delete)) } else { Err(Unserved::Shape) };
        }
        let [kind, key, what] = change.as_tuple::<3>().ok_or(Unserved::Shape)?;
        match kind.as_atom() {
            Some(atom) if atom == "put" => {
                let value = check_value(key, what)?;
                Ok((key, Self::Put(range_in(whole, value), value.traits())))
            }
            Some(atom) if atom == "add" => Ok((key, Self::Add(edit::integer(what.bytes())?))),
            _ => Err(Unserved::Shape),
        }
    }
}

impl Plan<'_> {
    fn kept(&self) -> Plan<'static> {
        let Terms { guards, changes } = &self.terms;
        Plan {
            guards: self.guards.clone(),
            steps: self.steps.clone(),
            terms: Terms { guards: Cow::Owned(guards.to_vec()), changes: Cow::Owned(changes.to_vec()) },
            key_traits: self.key_traits.clone(),
            needs_bytes: self.needs_bytes.clone(),
            stamp: self.stamp,
            keeps_end: self.keeps_end,
            clock: Arc::clone(&self.clock),
            reader: self.reader.later(),
            became: Vec::new(),
            outcome: Outcome::NIL,
        }
    }

    /// What becomes of the keys, and what the caller is answered.
    fn weigh(&self, present: &[Option<Value<'_>>]) -> (Vec<Effect>, Outcome) {
        let present = &lookup::shown(present, &self.clock);
        let has = |key: usize| present.get(key).copied().flatten();
        if let Some(guard) = self.guards.iter().find(|guard| !guard.condition.is_met(has(guard.key))) {
            let term = self.terms.guards.get(guard.term.clone()).unwrap_or_default();
            let reason = Reason::GuardFailed;
            let failed = encode(|w| _ = w.tuple(2).atom("error").tuple(2).atom(reason.code()).raw(term));
            let told = match self.reader.fits(failed) {
                Outcome::Term(failed) => Outcome::Conflict(reason, failed),
                none => none,
            };
            return (Vec::new(), told);
        }
        match self.made(has) {
            Ok((became, results)) => match self.reader.fits(results) {
                results @ Outcome::Term(_) => (became, results),
                none => (Vec::new(), none),
            },
            Err(refusal) => (Vec::new(), Outcome::Refused(refusal)),
        }
    }

    /// The changes, one after the other, and `{:ok, results}`.
    fn made<'v>(&self, has: impl Fn(usize) -> Option<Value<'v>>) -> Result<(Vec<Effect>, Vec<u8>), Refusal> {
        let mut became = vec![Effect::AsItWas; self.key_traits.len()];
        let (mut results, mut sums) = (Vec::new(), 0);
        for Step { key, operation } in &self.steps {
            let Some(now) = became.get_mut(*key) else { continue };
            *now = match operation {
                Operation::Put(range, traits) => Effect::Given(range.clone(), *traits),
                Operation::Delete => Effect::Nothing,
                Operation::Add(by) => {
                    let before = match now {
                        Effect::AsItWas => has(*key).map(|value| (value.bytes, value.deadline)),
                        Effect::Given(range, _) => Some((self.given(range), self.stamp.deadline)),
                        Effect::Sum(sum, ends) => Some((sum.as_slice(), *ends)),
                        Effect::Nothing => None,
                    };
                    let sum = edit::sum(before.map(|(bytes, _)| bytes), by, &Integer::from(0))?;
                    let kept = before.filter(|_| self.keeps_end).map(|(_, ends)| ends);
                    Effect::Sum(sum, kept.unwrap_or(self.stamp.deadline))
                }
            };
            match now {
                Effect::Sum(sum, _) => {
                    sums += sum.len();
                    results.extend_from_slice(sum);
                }
                _ => results.extend_from_slice(&encode(|w| _ = w.atom("ok"))),
            }
            if sums > SUMS_BYTES_MAX {
                return Err(Refusal::TooLarge(SUMS_BYTES_MAX));
            }
        }
        let answer = encode(|w| {
            w.tuple(2).atom("ok");
            if !self.steps.is_empty() {
                w.list(self.steps.len()).raw(&results);
            }
            w.nil();
        });
        Ok((became, answer))
    }

    fn given(&self, range: &Range<usize>) -> &[u8] {
        self.terms.changes.get(range.clone()).unwrap_or_default()
    }

    fn change(&self, at: usize) -> Change<'_> {
        match self.became.get(at) {
            None | Some(Effect::AsItWas) => Change::Keep,
            Some(Effect::Nothing) => Change::Delete,
            Some(Effect::Given(range, traits)) => {
                Change::Put(self.stamp.put_into(Value::of(self.given(range), *traits)))
            }
            Some(Effect::Sum(sum, ends)) => {
                let stamp = Stamp { deadline: *ends, ..self.stamp };
                let traits = self.key_traits.get(at).copied().unwrap_or(Traits::none());
                Change::Put(stamp.put_into(Value::of(sum, traits)))
            }
        }
    }

    /// What a slave's node has to decode to have what was decided.
    fn needs(&self) -> Traits {
        let puts = (0..self.became.len()).filter_map(|at| match self.change(at) {
            Change::Put(value) => Some(value.traits),
            Change::Keep | Change::Delete => None,
        });
        puts.fold(Traits::none(), Traits::union)
    }
}

impl UpdateMany for Plan<'_> {
    fn needs_bytes(&self, at: usize) -> bool {
        self.needs_bytes.get(at).copied().unwrap_or(true)
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        (self.became, self.outcome) = self.weigh(present);
        for at in 0..self.became.len() {
            change(at, self.change(at));
        }
    }
}

impl Changes for Transact<'_> {
    fn hand_to<S: Store>(
        &mut self,
        store: &S,
        asked: impl FnOnce() -> Asked,
    ) -> Option<Result<Option<u64>, StoreError>> {
        let Self { keys, plan } = self;
        store.update_many(&keys.slices(), plan, |plan| Box::new(Later { plan: plan.kept(), asked: asked() }))
    }

    fn with_changes<R>(&self, with: impl FnOnce(&[(&[u8], Change<'_>)]) -> R) -> R {
        let changes = self.keys.iter().enumerate().map(|(at, key)| (key, self.plan.change(at)));
        with(&changes.filter(|(_, change)| !matches!(change, Change::Keep)).collect::<Vec<_>>())
    }

    fn traits(&self) -> Traits {
        Traits::none()
    }

    fn needs(&self) -> Traits {
        self.plan.needs()
    }

    fn into_outcome(self) -> Outcome {
        self.plan.outcome
    }
}

/// The same for a store that carries it out later.
struct Later {
    plan: Plan<'static>,
    asked: Asked,
}

impl UpdateMany for Later {
    fn needs_bytes(&self, at: usize) -> bool {
        self.plan.needs_bytes(at)
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        self.plan.decide(present, change);
    }
}

impl PendingMany for Later {
    fn bytes(&self) -> usize {
        self.plan.terms.guards.len() + self.plan.terms.changes.len()
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        let needs = self.plan.needs();
        self.asked.done(result, needs, self.plan.outcome);
    }
}
