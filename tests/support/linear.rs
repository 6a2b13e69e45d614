//! Whether a history of calls is linearizable: whether each call can be given one instant between its start and its end,
//! so that calls that are carried out one after another in the order of these instants answer what was answered.
//!
//! Keys do not know of each other, so each is judged by itself (Herlihy and Wing, "Linearizability", section 3.2:
//! locality). The search for one key is that of Wing and Gong ("Testing and verifying concurrent objects"), in the order
//! of events and with what was already seen left out, as in Lowe ("Testing for linearizability", sections 3 and 5): at
//! the end of a call each configuration that has it not carried out yet carries out others that are open until it has.
//!
//! A call that was never answered may have been carried out at any time after its start, or never.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

/// What a call asked for, and what it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A put of this value.
    Put(u64),
    /// A delete.
    Delete,
    /// A get that was answered with this value, or with none.
    Get(Option<u64>),
    /// A write that has put something in the place of what was there, both in one instant. One that was never answered was to do so where
    /// that is there, and else nothing.
    Swap {
        /// What was there.
        saw: Option<u64>,
        /// What is there now.
        puts: Option<u64>,
    },
    /// A sum that was never answered: so much was to be added to what is there, which counts as 0 where there is nothing. One that was
    /// answered is a swap.
    Add(u64),
}

/// A call of one key, with times on one clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The caller, for people.
    pub caller: String,
    /// What.
    pub act: Act,
    /// When the call began.
    pub start: u64,
    /// When it was answered; `None`: never. A get that was never answered says nothing, whatever its value here.
    pub end: Option<u64>,
}

/// All calls, by key.
pub type History = BTreeMap<u64, Vec<Call>>;

/// Why a history is not linearizable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The call that nothing explains.
    pub call: Box<Call>,
    /// The last values that the key may have had when it ended, each explained by all answers before.
    pub possible: Vec<Option<u64>>,
    /// Calls that were under way together with it.
    pub beside: Vec<Call>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "nothing explains {:?}\n  the key may have had {:?}\n  beside it:",
            self.call, self.possible
        )?;
        self.beside.iter().try_for_each(|call| write!(f, "\n    {call:?}"))
    }
}

/// Calls of one key that may be under way at one time: bits of a mask.
const OPEN_MAX: usize = 128;
/// Configurations that are searched at one event: more is a history that this is not made for.
const CONFIGURATIONS_MAX: usize = 1 << 20;
/// What unanswered calls that build on each other may come to, before it is taken for seen without a look.
const BUILT_MAX: usize = 4096;

/// Judges every key, and gives how many calls there were.
///
/// # Errors
/// The server's: the first key whose calls no order explains.
pub fn check(history: &History) -> Result<usize, (u64, Violation)> {
    for (key, calls) in history {
        check_key(calls).map_err(|violation| (*key, violation))?;
    }
    Ok(history.values().map(Vec::len).sum())
}

/// Judges the calls of one key, which begins without a value.
///
/// # Errors
/// The server's: no order explains them.
pub fn check_key(calls: &[Call]) -> Result<(), Violation> {
    let read: HashSet<u64> = calls
        .iter()
        .filter_map(|call| match call.act {
            Act::Get(value) if call.end.is_some() => value,
            // Also of one that was never answered: what it has put may have been seen.
            Act::Swap { saw, .. } => saw,
            _ => None,
        })
        .collect();
    // What was put may be read with something added to it.
    let adds = calls.iter().any(|call| matches!(call.act, Act::Add(_)));
    // An unanswered get says nothing, and an unanswered put that nobody read may as well never have been carried out.
    let counts = |call: &Call| {
        call.end.is_some()
            || match call.act {
                Act::Get(_) => false,
                Act::Put(value) | Act::Swap { puts: Some(value), .. } => adds || read.contains(&value),
                Act::Delete | Act::Swap { puts: None, .. } | Act::Add(_) => true,
            }
    };
    // Starts before ends of the same instant: then they overlap.
    let mut events: Vec<(u64, bool, usize)> = Vec::new();
    for (at, call) in calls.iter().enumerate().filter(|(_, call)| counts(call)) {
        events.push((call.start, false, at));
        events.extend(call.end.map(|end| (end.max(call.start), true, at)));
    }
    events.sort_unstable();
    let mut search = Search::new(calls);
    for (_, ends, at) in events {
        if ends {
            search.end(at)?;
        } else {
            search.start(at);
        }
    }
    Ok(())
}

/// What the key has after the calls that are carried out, and which of the open ones are among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Configuration {
    value: Option<u64>,
    done: u128,
}

/// What a key has after a write that finds this value; `None`: it writes nothing there.
fn written_by(call: &Call, value: Option<u64>) -> Option<Option<u64>> {
    match call.act {
        Act::Put(value) => Some(Some(value)),
        Act::Delete => Some(None),
        Act::Swap { saw, puts } => (saw == value).then_some(puts),
        Act::Add(more) => Some(Some(value.unwrap_or(0) + more)),
        Act::Get(_) => None,
    }
}

struct Search<'a> {
    calls: &'a [Call],
    /// Open calls; an answered call makes room for another.
    slots: Vec<Option<usize>>,
    configurations: HashSet<Configuration>,
}

impl<'a> Search<'a> {
    fn new(calls: &'a [Call]) -> Self {
        let configurations = HashSet::from([Configuration { value: None, done: 0 }]);
        Self { calls, slots: Vec::new(), configurations }
    }

    fn start(&mut self, at: usize) {
        let slot = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        assert!(slot < OPEN_MAX, "more than {OPEN_MAX} calls of one key at one time");
        self.slots[slot] = Some(at);
        let all = std::mem::take(&mut self.configurations);
        self.configurations = all.into_iter().map(|one| self.absorb(one)).collect();
    }

    fn end(&mut self, at: usize) -> Result<(), Violation> {
        let slot = self.slots.iter().position(|open| *open == Some(at)).expect("it has started");
        let mask = 1 << slot;
        let mut todo: Vec<Configuration> = self.configurations.iter().copied().collect();
        let mut seen = self.configurations.clone();
        let mut after = HashSet::new();
        while let Some(one) = todo.pop() {
            if one.done & mask != 0 {
                after.insert(Configuration { done: one.done & !mask, ..one });
                continue;
            }
            for next in self.writes_after(one) {
                if seen.insert(next) {
                    todo.push(next);
                }
            }
            assert!(seen.len() < CONFIGURATIONS_MAX, "too many calls overlap to be judged");
        }
        if after.is_empty() {
            let mut possible: Vec<Option<u64>> = seen.iter().map(|one| one.value).collect();
            possible.sort_unstable();
            possible.dedup();
            let beside = self.slots.iter().flatten().filter(|open| **open != at);
            return Err(Violation {
                call: Box::new(self.calls[at].clone()),
                possible,
                beside: beside.map(|open| self.calls[*open].clone()).collect(),
            });
        }
        self.slots[slot] = None;
        self.configurations = self.without_dominated(after);
        Ok(())
    }

    /// What one more open write makes of a configuration.
    fn writes_after(&self, one: Configuration) -> impl Iterator<Item = Configuration> {
        let mut lost_delete = false;
        self.open().filter_map(move |(slot, call)| {
            if one.done & (1 << slot) != 0 {
                return None;
            }
            let written = Configuration { value: written_by(call, one.value)?, done: one.done | 1 << slot };
            let next = self.absorb(written);
            // One that was never answered and that nobody sees now may as well be carried out later, or never. And
            // deletes of this kind are all alike.
            let lost = call.end.is_none();
            let is_unseen = || next == written && !self.is_seen(next);
            let is_alike = call.act == Act::Delete && lost && std::mem::replace(&mut lost_delete, true);
            if lost && (is_alike || is_unseen()) {
                return None;
            }
            Some(next)
        })
    }

    /// Whether an open call sees what a configuration has, or what unanswered calls make of that which build on it.
    fn is_seen(&self, one: Configuration) -> bool {
        let (mut todo, mut seen) = (vec![one], HashSet::from([one]));
        while let Some(one) = todo.pop() {
            for (slot, call) in self.open().filter(|(slot, _)| one.done & (1 << slot) == 0) {
                let builds = call.end.is_none() && matches!(call.act, Act::Swap { .. } | Act::Add(_));
                match call.act {
                    Act::Get(value) | Act::Swap { saw: value, .. } if value == one.value && !builds => {
                        return true;
                    }
                    _ => {}
                }
                if builds && let Some(value) = written_by(call, one.value) {
                    let next = Configuration { value, done: one.done | 1 << slot };
                    if seen.insert(next) {
                        todo.push(next);
                    }
                }
            }
            if seen.len() > BUILT_MAX {
                return true;
            }
        }
        false
    }

    /// An open get that has the key's value is carried out at once: that changes nothing, so it is never worse.
    fn absorb(&self, mut one: Configuration) -> Configuration {
        for (slot, call) in self.open() {
            if call.act == Act::Get(one.value) {
                one.done |= 1 << slot;
            }
        }
        one
    }

    /// Leaves out each configuration that has carried out more of the unanswered calls than another that is otherwise
    /// the same: the other can do what it can, and need not.
    fn without_dominated(&self, all: HashSet<Configuration>) -> HashSet<Configuration> {
        let unanswered = self.open().filter(|(_, call)| call.end.is_none());
        let optional = unanswered.fold(0, |mask, (slot, _)| mask | 1 << slot);
        if optional == 0 {
            return all;
        }
        let mut groups: HashMap<(Option<u64>, u128), Vec<u128>> = HashMap::new();
        let mut sorted: Vec<Configuration> = all.into_iter().collect();
        sorted.sort_unstable_by_key(|one| (one.done & optional).count_ones());
        for one in sorted {
            let least = groups.entry((one.value, one.done & !optional)).or_default();
            let done = one.done & optional;
            if least.iter().all(|other| other & done != *other) {
                least.push(done);
            }
        }
        let kept = groups.into_iter().flat_map(|((value, must), least)| {
            least.into_iter().map(move |done| Configuration { value, done: must | done })
        });
        kept.collect()
    }

    fn open(&self) -> impl Iterator<Item = (usize, &'a Call)> {
        let calls = self.calls;
        self.slots.iter().enumerate().filter_map(move |(slot, at)| Some((slot, &calls[(*at)?])))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn call(act: Act, start: u64, end: impl Into<Option<u64>>) -> Call {
        Call { caller: String::new(), act, start, end: end.into() }
    }

    fn put(value: u64, start: u64, end: impl Into<Option<u64>>) -> Call {
        call(Act::Put(value), start, end)
    }

    fn delete(start: u64, end: impl Into<Option<u64>>) -> Call {
        call(Act::Delete, start, end)
    }

    fn get(value: impl Into<Option<u64>>, start: u64, end: impl Into<Option<u64>>) -> Call {
        call(Act::Get(value.into()), start, end)
    }

    fn accepted(calls: &[Call]) {
        assert_eq!(check_key(calls), Ok(()), "{calls:#?}");
    }

    fn refused(calls: &[Call], wrong: usize) {
        let violation = check_key(calls).expect_err("it is not linearizable");
        assert_eq!(*violation.call, calls[wrong], "{violation}");
    }

    #[test]
    fn calls_one_after_another_are_judged_as_they_come() {
        accepted(&[]);
        accepted(&[get(None, 0, 1), put(1, 2, 3), get(1, 4, 5), delete(6, 7), get(None, 8, 9)]);
        refused(&[get(1, 0, 1), put(1, 2, 3)], 0);
        refused(&[put(1, 0, 1), get(None, 2, 3)], 1);
        refused(&[put(1, 0, 1), delete(2, 3), get(1, 4, 5)], 2);
        refused(&[put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)], 2);
        refused(&[put(1, 0, 1), get(2, 2, 3)], 1);
    }

    #[test]
    fn writes_that_overlap_come_in_either_order_and_in_one_only() {
        let writes = [put(1, 0, 10), put(2, 0, 10)];
        for value in [1, 2] {
            accepted(&[&writes[..], &[get(value, 11, 12)]].concat());
        }
        refused(&[&writes[..], &[get(None, 11, 12)]].concat(), 2);
        refused(&[&writes[..], &[get(1, 11, 12), get(2, 13, 14)]].concat(), 3);
        accepted(&[put(1, 0, 10), delete(0, 10), get(1, 3, 4), get(None, 5, 6), get(None, 11, 12)]);
        refused(&[put(1, 0, 10), delete(0, 10), get(1, 3, 4), get(None, 5, 6), get(1, 11, 12)], 4);
    }

    #[test]
    fn a_value_that_was_seen_is_not_unseen_again() {
        // New, then old, by two readers, while the write is under way.
        refused(&[put(1, 0, 1), put(2, 2, 20), get(2, 3, 4), get(1, 5, 6)], 3);
        // Readers that overlap may see either.
        accepted(&[put(1, 0, 1), put(2, 2, 20), get(2, 3, 6), get(1, 4, 5)]);
        // Touching intervals overlap.
        accepted(&[put(1, 0, 1), put(2, 2, 20), get(2, 3, 5), get(1, 5, 6)]);
    }

    #[test]
    fn unanswered_writes_may_happen_at_any_time_or_never_but_once() {
        accepted(&[put(1, 0, None), get(None, 1, 2), get(None, 100, 101)]);
        accepted(&[put(1, 0, None), get(None, 1, 2), get(1, 100, 101)]);
        refused(&[put(1, 0, None), get(1, 1, 2), get(None, 3, 4)], 2);
        refused(&[get(1, 0, 1), put(1, 2, None)], 0);
        accepted(&[put(1, 0, 1), delete(2, None), put(2, 3, 4), get(None, 5, 6)]);
        refused(&[put(1, 0, 1), delete(2, None), get(None, 3, 4), put(2, 5, 6), get(None, 7, 8)], 4);
        let two = [put(1, 0, 1), delete(2, None), delete(2, None), get(None, 3, 4), put(2, 5, 6)];
        accepted(&[&two[..], &[get(None, 7, 8)]].concat());
        refused(&[&two[..], &[get(None, 7, 8), put(3, 9, 10), get(None, 11, 12)]].concat(), 7);
        // Of one that overwrites what came long after its start.
        accepted(&[put(1, 0, None), put(2, 1, 2), get(2, 3, 4), get(1, 5, 6)]);
        refused(&[put(1, 0, None), put(2, 1, 2), get(1, 3, 4), get(2, 5, 6)], 3);
    }

    #[test]
    fn what_is_seen_and_put_in_its_place_is_one_instant() {
        let swap =
            |saw: Option<u64>, puts: Option<u64>, start, end| call(Act::Swap { saw, puts }, start, end);
        accepted(&[put(1, 0, 1), swap(Some(1), Some(2), 2, 3), swap(Some(2), None, 4, 5), get(None, 6, 7)]);
        // Two that have seen the same, though that was put once.
        refused(&[put(1, 0, 1), swap(Some(1), Some(2), 2, 9), swap(Some(1), Some(3), 2, 9)], 2);
        refused(&[put(1, 0, 1), swap(None, Some(2), 2, 9)], 1);
        accepted(&[put(1, 0, 1), swap(Some(1), Some(2), 2, 9), swap(Some(2), Some(3), 2, 9), get(3, 10, 11)]);
        refused(
            &[put(1, 0, 1), swap(Some(1), Some(2), 2, 9), swap(Some(2), Some(3), 2, 9), get(2, 10, 11)],
            3,
        );
    }

    #[test]
    fn an_unanswered_comparison_or_sum_may_happen_once_and_where_it_can() {
        let swap = |saw: Option<u64>, puts: Option<u64>, start| call(Act::Swap { saw, puts }, start, None);
        let add = |more, start| call(Act::Add(more), start, None);
        for read in [1, 2] {
            accepted(&[put(1, 0, 1), swap(Some(1), Some(2), 2), get(read, 3, 4)]);
        }
        refused(&[put(1, 0, 1), swap(Some(3), Some(2), 2), get(2, 3, 4)], 2);
        refused(&[put(1, 0, 1), swap(Some(1), Some(2), 2), get(2, 3, 4), get(1, 5, 6)], 3);
        // It finds what was put long after its start.
        accepted(&[put(1, 0, 1), swap(Some(5), None, 2), get(1, 3, 4), put(5, 5, 6), get(None, 7, 8)]);
        accepted(&[put(1, 0, 1), add(10, 2), get(1, 3, 4), get(11, 5, 6)]);
        accepted(&[add(10, 2), get(None, 3, 4), get(10, 5, 6)]);
        refused(&[put(1, 0, 1), add(10, 2), get(11, 5, 6), get(21, 7, 8)], 3);
        // Two that build on each other, and on a put, none of which was answered.
        accepted(&[put(1, 0, None), add(10, 1), add(100, 1), get(111, 5, 6), get(111, 7, 8)]);
        accepted(&[put(1, 0, None), add(10, 1), swap(Some(11), Some(7), 1), get(7, 5, 6)]);
        // A put that is seen by nothing that was answered, but by a comparison that may have happened.
        accepted(&[put(1, 0, None), swap(Some(1), Some(2), 1), get(2, 5, 6)]);
        refused(&[put(1, 0, None), add(10, 1), add(100, 1), get(111, 5, 6), get(101, 7, 8)], 4);
    }

    #[test]
    fn an_unanswered_get_says_nothing() {
        accepted(&[put(1, 0, 1), get(None, 2, None), get(7, 2, None), get(1, 3, 4)]);
    }

    #[test]
    fn keys_are_judged_by_themselves_and_the_wrong_one_is_named() {
        let good = vec![put(1, 0, 1), get(1, 2, 3)];
        let history = History::from([(1, good.clone()), (2, vec![get(None, 5, 6)])]);
        assert_eq!(check(&history), Ok(3));
        let history = History::from([(1, good), (2, vec![get(1, 5, 6)])]);
        assert_eq!(check(&history).expect_err("2 was never put").0, 2);
    }

    #[test]
    fn many_unanswered_calls_do_not_take_for_ever() {
        let mut calls: Vec<Call> = (0..30).map(|at| delete(at, None)).collect();
        calls.extend((0..30).map(|at| put(1_000 + at, at, None)));
        for at in 0..300 {
            let time = 100 + at * 10;
            calls.push(put(at, time, time + 1));
            calls.push(get(if at % 20 == 0 { None } else { Some(at) }, time + 2, time + 3));
        }
        calls.extend((0..30).map(|at| get(1_000 + at, 10_000 + at * 10, 10_001 + at * 10)));
        accepted(&calls);
    }

    #[test]
    fn what_an_atomic_register_answers_is_accepted_and_one_value_changed_is_not() {
        proptest!(ProptestConfig::with_cases(64), |(seed in any::<u64>(), at in 0..usize::MAX)| {
            let mut calls = of_a_register(seed, 8, 60);
            prop_assert_eq!(check_key(&calls), Ok(()));
            let gets: Vec<usize> = (0..calls.len())
                .filter(|at| calls[*at].end.is_some() && matches!(calls[*at].act, Act::Get(_)))
                .collect();
            let at = gets[at % gets.len()];
            // Nobody has written that.
            calls[at].act = Act::Get(Some(u64::MAX));
            prop_assert!(check_key(&calls).is_err());
        });
    }

    #[test]
    fn small_histories_are_judged_as_by_trying_every_order() {
        let act = prop_oneof![
            (1_u64..4).prop_map(Act::Put),
            Just(Act::Delete),
            prop::option::of(1_u64..4).prop_map(Act::Get),
            (prop::option::of(1_u64..4), prop::option::of(1_u64..4))
                .prop_map(|(saw, puts)| Act::Swap { saw, puts }),
            (1_u64..3).prop_map(Act::Add),
        ];
        let one = (act, 0_u64..12, prop::option::weighted(0.75, 0_u64..6)).prop_map(|(act, start, took)| {
            let took = took.filter(|_| !matches!(act, Act::Add(_)));
            call(act, start, took.map(|took| start + took))
        });
        proptest!(ProptestConfig::with_cases(4_000), |(calls in prop::collection::vec(one, 1..7))| {
            prop_assert_eq!(check_key(&calls).is_ok(), any_order_explains(&calls, None));
        });
    }

    /// Wing and Gong's definition as it stands: some order of all answered and any unanswered calls, in which none comes
    /// before one that had ended when it began.
    fn any_order_explains(left: &[Call], value: Option<u64>) -> bool {
        if left.iter().all(|call| call.end.is_none()) {
            return true;
        }
        (0..left.len()).any(|at| {
            let call = &left[at];
            let first = left.iter().all(|other| other.end.is_none_or(|end| end >= call.start));
            let after = match call.act {
                Act::Put(value) => Some(value),
                Act::Delete => None,
                Act::Get(seen) if call.end.is_none() || seen == value => value,
                Act::Swap { saw, puts } if saw == value => puts,
                Act::Add(more) => Some(value.unwrap_or(0) + more),
                Act::Swap { .. } | Act::Get(_) => return false,
            };
            let rest = [&left[..at], &left[at + 1..]].concat();
            first && any_order_explains(&rest, after)
        })
    }

    /// The calls of some clients to a register that carries each out at one instant between its start and its end.
    fn of_a_register(seed: u64, clients: u64, calls_each: u64) -> Vec<Call> {
        let mut state = seed | 1;
        // xorshift64, Marsaglia.
        let mut random = move |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 11) % below
        };
        let mut planned = Vec::new();
        for client in 0..clients {
            let mut time = 0;
            for number in 0..calls_each {
                let start = time + random(10);
                let instant = start + random(30);
                let end = instant + random(30);
                let act = match random(6) {
                    0 => Act::Delete,
                    4 => Act::Swap { saw: None, puts: Some(client * 1_000 + number) },
                    5 => Act::Swap { saw: None, puts: None },
                    1 => Act::Put(client * 1_000 + number),
                    _ => Act::Get(None),
                };
                planned.push((instant, call(act, start, end)));
                time = end + 1;
                if random(20) == 0 && !matches!(act, Act::Swap { .. }) {
                    planned.last_mut().expect("it was pushed just now").1.end = None;
                }
            }
        }
        planned.sort_by_key(|(instant, _)| *instant);
        let mut value = None;
        for (_, call) in &mut planned {
            match &mut call.act {
                // Some are never carried out.
                _ if call.end.is_none() && random(2) == 0 => {}
                Act::Put(put) => value = Some(*put),
                Act::Delete => value = None,
                Act::Swap { saw, puts } => *saw = std::mem::replace(&mut value, *puts),
                Act::Add(more) => value = Some(value.unwrap_or(0) + *more),
                Act::Get(seen) => *seen = value,
            }
        }
        planned.into_iter().map(|(_, call)| call).collect()
    }
}
