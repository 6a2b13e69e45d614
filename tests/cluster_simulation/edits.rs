//! Requests that look at what is there before they write, write several keys at once, or say when a key ends: what each is answered,
//! and what it leaves.
//!
//! A store in memory answers at once, so that both are known beforehand. Of a store that answers later the kind of the answer is
//! known, and what the keys have once the request is carried out, but for sums of what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kvnode::etf::{TermView, TermWriter, encode};

use super::clients::{Asked, Call, KEYS};
use super::drive::Drive;
use super::random::Random;
use super::shelf::{Data, term};
use super::world::{Edited, World};

/// How far two values that are put lie apart, where there are such requests: by what lies between, what was added to a value is told
/// from what was put behind it.
pub const STRIDE: u64 = 64;

/// What a write leaves of a key.
#[derive(Clone, Copy, Debug)]
pub struct Left {
    pub key: u64,
    /// `None`: nothing.
    pub value: Option<u64>,
    /// What was there before has values up to this one.
    pub number: u64,
}

impl Left {
    pub fn is_in(&self, data: &Data) -> bool {
        data.get(&self.key).copied() == self.value
    }

    /// Whether a key that has this now has had what was left, with the number of each key's last deletion.
    pub fn is_held(&self, has: Option<u64>, deleted: &BTreeMap<u64, u64>) -> bool {
        match (self.value, has) {
            (Some(value), Some(has)) => has >= value,
            (Some(value), None) => deleted.get(&self.key).is_some_and(|deleted| *deleted > value),
            (None, has) => has.is_none_or(|has| has > self.number),
        }
    }
}

/// What may end.
#[derive(Default)]
pub struct Ending {
    /// Values that were put for a while.
    put: BTreeSet<u64>,
    /// Keys with the values, from one to another, of which some got an end later.
    touched: BTreeSet<(u64, u64, u64)>,
    stride: Option<u64>,
}

impl Ending {
    pub fn put(&mut self, value: u64) {
        self.put.insert(value);
    }

    pub fn may_end(&self, key: u64, value: u64) -> bool {
        // What is added to ends when that does.
        let given = value - value % self.stride.unwrap_or(1);
        let is_touched = |&(of, from, to): &(u64, u64, u64)| of == key && value >= from && given <= to;
        self.put.contains(&given) || self.touched.iter().any(is_touched)
    }
}

/// A write of several keys, with what it leaves of each.
pub struct Group {
    /// The call that it is.
    pub call: u32,
    pub incarnation: u64,
    /// In the order of the write. `None`: that hangs on what is there.
    pub parts: Vec<Part>,
    /// All that was there before has values up to this one.
    number: u64,
}

/// A key, and what it has then.
type Part = (u64, Option<Option<u64>>);

impl Group {
    /// The parts that are known.
    fn left(&self) -> impl Iterator<Item = Left> {
        let known = self.parts.iter().filter_map(|&(key, value)| Some((key, value?)));
        known.map(|(key, value)| Left { key, value, number: self.number })
    }
}

/// Writes of several keys, by each value that they alone have put.
pub type Groups = BTreeMap<u64, Arc<Group>>;

/// What a store has.
struct There {
    now: u64,
    /// What a reader finds.
    present: Data,
    revisions: Data,
    /// When each key ends; 0: it stays.
    ends: Data,
}

/// What keys get: each a value, and when that ends.
type Written = BTreeMap<u64, Option<(u64, u64)>>;

#[derive(Clone, Copy, Debug)]
enum Guard {
    Equal(u64, u64),
    Revision(u64, u64),
    Absent(u64),
    Present(u64),
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Put(u64),
    Delete,
    Add(u64),
}

#[derive(Clone, Debug)]
enum Request {
    Transact {
        guards: Vec<Guard>,
        changes: Vec<(u64, Step)>,
    },
    PutMany(Vec<(u64, u64)>),
    DeleteMany(Vec<u64>),
    /// Adds 1, to the value before this one where nothing is there.
    Count(u64, u64),
    PutNew(u64, u64),
    Replace(u64, u64),
    GetAndPut(u64, u64),
    Pop(u64),
    Put(u64, u64),
    Delete(u64),
    Touch(u64, u64),
    Persist(u64),
    Clear,
}

/// What a request may be answered, where the store does not fail.
#[derive(Clone, Debug)]
pub struct Expects {
    /// This, where it is known.
    exactly: Option<String>,
    shape: Shape,
}

#[derive(Clone, Copy, Debug)]
enum Shape {
    Done,
    Bool,
    Number,
    NumberOrNil,
    /// `{:ok, results}` with so many, or a guard of these many does not hold.
    Results(usize, usize),
}

impl Expects {
    /// `:ok`
    pub const DONE: Self = Self { exactly: None, shape: Shape::Done };

    /// Looks at an answer. Gives whether it says that a guard has failed.
    pub fn check(&self, reply: TermView<'_>) -> bool {
        if let Some(exactly) = &self.exactly {
            assert_eq!(format!("{reply:?}"), *exactly);
        }
        let has_failed = |guards| {
            let [error, reason] = reply.as_tuple::<2>()?;
            let [failed, _] = reason.as_tuple::<2>()?;
            Some(guards > 0 && error.is_atom("error") && failed.is_atom("failed"))
        };
        let is_right = match self.shape {
            Shape::Done => reply.is_atom("ok"),
            Shape::Bool => reply.is_atom("true") || reply.is_atom("false"),
            Shape::Number => reply.as_unsigned().is_some(),
            Shape::NumberOrNil => reply.is_atom("nil") || reply.as_unsigned().is_some(),
            Shape::Results(_, guards) if has_failed(guards) == Some(true) => return true,
            Shape::Results(len, _) => {
                let results = reply.as_tuple::<2>().filter(|[ok, _]| ok.is_atom("ok"));
                let results = results.and_then(|[_, results]| results.elements(len));
                let is_one = |result: &TermView<'_>| result.is_atom("ok") || result.as_unsigned().is_some();
                results.is_some_and(|results| results.len() == len && results.iter().all(is_one))
            }
        };
        assert!(is_right, "{reply:?} is no answer: {self:?}");
        false
    }
}

impl Guard {
    const fn key(self) -> u64 {
        match self {
            Self::Equal(key, _) | Self::Revision(key, _) | Self::Absent(key) | Self::Present(key) => key,
        }
    }

    fn holds(self, there: &There) -> bool {
        let There { present, revisions, .. } = there;
        match self {
            Self::Equal(key, value) => present.get(&key) == Some(&value),
            Self::Revision(key, revision) => {
                present.contains_key(&key) && revisions.get(&key) == Some(&revision)
            }
            Self::Absent(key) => !present.contains_key(&key),
            Self::Present(key) => present.contains_key(&key),
        }
    }

    fn write(self, w: &mut TermWriter<'_>) {
        let key = term(self.key());
        match self {
            Self::Equal(_, value) => _ = w.tuple(3).atom("equal").raw(&key).unsigned(value),
            Self::Revision(_, revision) => _ = w.tuple(3).atom("revision").raw(&key).unsigned(revision),
            Self::Absent(_) => _ = w.tuple(2).atom("absent").raw(&key),
            Self::Present(_) => _ = w.tuple(2).atom("present").raw(&key),
        }
    }
}

/// A list of so many; what is in it comes from `write`.
fn write_list<T>(w: &mut TermWriter<'_>, all: &[T], write: impl Fn(&mut TermWriter<'_>, &T)) {
    if !all.is_empty() {
        w.list(all.len());
        all.iter().for_each(|one| write(w, one));
    }
    w.nil();
}

impl Request {
    fn write(&self, w: &mut TermWriter<'_>, options: &[(&str, u64)]) {
        let more = usize::from(!options.is_empty());
        let named = |w: &mut TermWriter<'_>, name: &str, rest: &[u64]| {
            w.tuple(1 + rest.len() + more).atom(name);
            rest.iter().for_each(|number| _ = w.raw(&term(*number)));
        };
        match self {
            Self::Transact { guards, changes } => {
                w.tuple(3 + more).atom("transact");
                write_list(w, guards, |w, guard| guard.write(w));
                write_list(w, changes, |w, (key, step)| match step {
                    Step::Put(value) => _ = w.tuple(3).atom("put").unsigned(*key).unsigned(*value),
                    Step::Delete => _ = w.tuple(2).atom("delete").unsigned(*key),
                    Step::Add(by) => _ = w.tuple(3).atom("add").unsigned(*key).unsigned(*by),
                });
            }
            Self::PutMany(pairs) => {
                w.tuple(2 + more).atom("put_many");
                write_list(w, pairs, |w, (key, value)| _ = w.tuple(2).unsigned(*key).unsigned(*value));
            }
            Self::DeleteMany(keys) => {
                w.tuple(2 + more).atom("delete_many");
                write_list(w, keys, |w, key| _ = w.unsigned(*key));
            }
            Self::Count(key, value) => named(w, "update_counter", &[*key, 1, value - 1]),
            Self::PutNew(key, value) => named(w, "put_new", &[*key, *value]),
            Self::Replace(key, value) => named(w, "replace", &[*key, *value]),
            Self::GetAndPut(key, value) => named(w, "get_and_put", &[*key, *value]),
            Self::Pop(key) => named(w, "pop", &[*key]),
            Self::Put(key, value) => named(w, "put", &[*key, *value]),
            Self::Delete(key) => named(w, "delete", &[*key]),
            Self::Touch(key, millis) => named(w, "touch", &[*key, *millis]),
            Self::Persist(key) => named(w, "persist", &[*key]),
            Self::Clear if options.is_empty() => _ = w.atom("clear"),
            Self::Clear => named(w, "clear", &[]),
        }
        if !options.is_empty() {
            write_list(w, options, |w, (name, number)| _ = w.tuple(2).atom(name).unsigned(*number));
        }
    }

    const fn shape(&self) -> Shape {
        match self {
            Self::Transact { guards, changes } => Shape::Results(changes.len(), guards.len()),
            Self::PutNew(..) | Self::Replace(..) | Self::Touch(..) | Self::Persist(_) => Shape::Bool,
            Self::Count(..) => Shape::Number,
            Self::GetAndPut(..) | Self::Pop(_) => Shape::NumberOrNil,
            Self::PutMany(_) | Self::DeleteMany(_) | Self::Put(..) | Self::Delete(_) | Self::Clear => {
                Shape::Done
            }
        }
    }

    /// Whether something can be left that ends.
    const fn takes_ttl(&self) -> bool {
        !matches!(
            self,
            Self::DeleteMany(_)
                | Self::Pop(_)
                | Self::Delete(_)
                | Self::Touch(..)
                | Self::Persist(_)
                | Self::Clear
        )
    }

    /// What it leaves where it changes anything, as far as that does not hang on what is there.
    fn parts(&self) -> Vec<Part> {
        match self {
            Self::Transact { guards, changes } => {
                let mut known: BTreeMap<u64, Option<Option<u64>>> = BTreeMap::new();
                let is_absent = |key: u64| {
                    guards.iter().any(|guard| matches!(guard, Guard::Absent(absent) if *absent == key))
                };
                for &(key, step) in changes {
                    let before = known.get(&key).copied().unwrap_or_else(|| is_absent(key).then_some(None));
                    let after = match step {
                        Step::Put(value) => Some(Some(value)),
                        Step::Delete => Some(None),
                        Step::Add(by) => before.map(|before| Some(before.unwrap_or(0) + by)),
                    };
                    known.insert(key, after);
                }
                // As they are named first.
                let named = guards.iter().map(|guard| guard.key()).chain(changes.iter().map(|(key, _)| *key));
                named.filter_map(|key| Some((key, known.remove(&key)?))).collect()
            }
            Self::PutMany(pairs) => pairs.iter().map(|(key, value)| (*key, Some(Some(*value)))).collect(),
            Self::DeleteMany(keys) => keys.iter().map(|key| (*key, Some(None))).collect(),
            Self::Count(key, _) | Self::Touch(key, _) | Self::Persist(key) => vec![(*key, None)],
            Self::PutNew(key, value)
            | Self::Replace(key, value)
            | Self::GetAndPut(key, value)
            | Self::Put(key, value) => vec![(*key, Some(Some(*value)))],
            Self::Pop(key) | Self::Delete(key) => vec![(*key, Some(None))],
            Self::Clear => (0..KEYS).map(|key| (key, Some(None))).collect(),
        }
    }

    /// What it is answered, and what the keys have that it writes. What it puts ends at `end`, if something was said.
    fn outcome(&self, there: &There, end: Option<u64>) -> (Vec<u8>, Written) {
        let has = |key: &u64| there.present.get(key).copied();
        let ends = |key: &u64| there.ends.get(key).copied().unwrap_or(0);
        let given = end.unwrap_or(0);
        let atom = |name: &str| encode(|w| _ = w.atom(name));
        let one = |key: u64, value: u64, end: u64| Written::from([(key, Some((value, end)))]);
        let when = |is: bool, key: u64, value: u64, end: u64| match is {
            true => (atom("true"), one(key, value, end)),
            false => (atom("false"), Written::new()),
        };
        let value_of = |key: &u64| has(key).map_or_else(|| atom("nil"), term);
        match self {
            Self::Transact { guards, changes } => {
                if let Some(failed) = guards.iter().find(|guard| !guard.holds(there)) {
                    let answer = encode(|w| {
                        w.tuple(2).atom("error").tuple(2).atom("failed");
                        failed.write(w);
                    });
                    return (answer, Written::new());
                }
                let (mut after, mut results) = (Written::new(), Vec::new());
                for (key, step) in changes {
                    let is_there = || has(key).map(|value| (value, ends(key)));
                    let before = after.get(key).copied().unwrap_or_else(is_there);
                    let (now, result) = match step {
                        Step::Put(value) => (Some((*value, given)), None),
                        Step::Delete => (None, None),
                        Step::Add(by) => {
                            let (value, ends) = before.unwrap_or((0, given));
                            (Some((value + by, end.unwrap_or(ends))), Some(value + by))
                        }
                    };
                    after.insert(*key, now);
                    results.push(result);
                }
                let answer = encode(|w| {
                    w.tuple(2).atom("ok");
                    write_list(w, &results, |w, result| match result {
                        Some(sum) => _ = w.unsigned(*sum),
                        None => _ = w.atom("ok"),
                    });
                });
                (answer, after)
            }
            Self::PutMany(pairs) => {
                let after = pairs.iter().map(|(key, value)| (*key, Some((*value, given))));
                (atom("ok"), after.collect())
            }
            Self::DeleteMany(keys) => (atom("ok"), keys.iter().map(|key| (*key, None)).collect()),
            Self::Put(key, value) => (atom("ok"), one(*key, *value, given)),
            Self::Delete(key) => (atom("ok"), Written::from([(*key, None)])),
            Self::Clear => (atom("ok"), (0..KEYS).map(|key| (key, None)).collect()),
            Self::Count(key, value) => {
                let sum = has(key).map_or(*value, |has| has + 1);
                let kept = has(key).map_or(given, |_| ends(key));
                (term(sum), one(*key, sum, end.unwrap_or(kept)))
            }
            Self::PutNew(key, value) => when(has(key).is_none(), *key, *value, given),
            Self::Replace(key, value) => when(has(key).is_some(), *key, *value, given),
            Self::Touch(key, millis) => {
                when(has(key).is_some(), *key, has(key).unwrap_or(0), there.now + millis)
            }
            Self::Persist(key) => when(has(key).is_some(), *key, has(key).unwrap_or(0), 0),
            Self::GetAndPut(key, value) => (value_of(key), one(*key, *value, given)),
            Self::Pop(key) => (value_of(key), has(key).map(|_| (*key, None)).into_iter().collect()),
        }
    }
}

impl World {
    /// The value of the next write.
    pub fn next_value(&mut self) -> u64 {
        self.writes += self.stride;
        self.writes
    }

    /// There are such requests.
    pub fn begin_edits(&mut self, random: Random) {
        (self.editing, self.stride, self.ending.stride) = (Some(random), STRIDE, Some(STRIDE));
    }

    /// One of these requests now and then.
    pub fn edit_some(&mut self) {
        let Some(mut random) = self.editing.take() else { return };
        let primaries = self.primaries();
        if random.one_in(10) && !primaries.is_empty() {
            let node = random.pick(&primaries);
            self.edit(node, &mut random);
        }
        self.editing = Some(random);
    }

    fn edit(&mut self, node: usize, random: &mut Random) {
        let is_at_once = self.nodes[node].drive.is_none();
        let is_idle = self.nodes[node].drive.as_ref().is_none_or(|drive| Drive::waiting(drive) == 0);
        let server = &self.life(node).server;
        let (before, revisions, ends) = (server.data(), server.revisions(), server.ends());
        let now = self.life(node).posts.store_ms();
        let mut present = before.clone();
        present.retain(|key, _| ends.get(key).is_none_or(|ends| !is_at_once || *ends == 0 || *ends > now));
        let there = There { now, present, revisions, ends };
        let request = self.draw_request(random, &there);
        let parts = request.parts();
        let ttl = (request.takes_ttl() && random.one_in(4)).then(|| 1 + random.below(4_000));
        self.note_edit(&request, &parts, ttl.is_some(), &before);
        // Of a store that answers later it is to be seen in what it holds when this is done.
        let (is_known, is_put) = (
            parts.iter().all(|(_, known)| known.is_some()),
            parts.iter().any(|(_, known)| matches!(known, Some(Some(_)))),
        );
        let is_plain = matches!(request.shape(), Shape::Done | Shape::Results(..));
        let deletes = is_idle && parts.iter().any(|(key, _)| before.contains_key(key));
        let is_seen = is_at_once || is_plain && is_known && (is_put || deletes);
        let want = Some(1 + random.below(2)).filter(|_| random.one_in(4) && is_seen);

        let (answer, written) = request.outcome(&there, ttl.map(|ttl| now + ttl));
        let text = format!("{:?}", TermView::parse(&answer).expect("a term"));
        let expects = Expects { exactly: is_at_once.then_some(text), shape: request.shape() };
        let (number, incarnation) = (self.writes + STRIDE - 1, self.life(node).incarnation);
        let call = self.next_call;
        if matches!(request, Request::Transact { .. } | Request::PutMany(_)) && parts.len() > 1 {
            let group = Arc::new(Group { call, incarnation, parts: parts.clone(), number });
            let values = parts.iter().filter_map(|(_, known)| known.flatten());
            self.groups.extend(values.map(|value| (value, Arc::clone(&group))));
        }
        let known = parts.iter().filter_map(|&(key, known)| Some(Left { key, value: known?, number }));
        let asked = match want {
            None => Asked::Edit(expects),
            Some(want) => {
                // What a store that answers at once has written is known below, once it has answered.
                let left = if is_at_once { Vec::new() } else { known.collect() };
                Asked::Confirmed { incarnation, seq: None, left, want, had: Vec::new(), expects }
            }
        };
        let options: Vec<(&str, u64)> =
            [want.map(|want| ("confirm", want)), ttl.map(|ttl| ("ttl", ttl))].into_iter().flatten().collect();
        self.counts.edits += 1;
        self.counts.transacts += u64::from(matches!(request, Request::Transact { .. }));
        self.counts.clears_confirmed += u64::from(matches!(request, Request::Clear) && want.is_some());
        self.counts.ending += u64::from(ttl.is_some());
        tracing::debug!(node, ?request, ?options, "edits");
        let seq = self.life(node).source().seq();
        self.edited = None;
        self.call(node, asked, |w| request.write(w, &options));
        if is_at_once {
            let before = (before, there.ends);
            self.check_edited(node, (call, seq, number), before, &written);
        }
    }

    /// A store that answers at once has done a request, with the number of its last write before.
    fn check_edited(
        &mut self,
        node: usize,
        (call, seq, number): (u32, u64, u64),
        before: (Data, Data),
        written: &Written,
    ) {
        let mut after = before.clone();
        for (key, value) in written {
            match value {
                Some((value, end)) => _ = (after.0.insert(*key, *value), after.1.insert(*key, *end)),
                None => _ = (after.0.remove(key), after.1.remove(key)),
            }
        }
        let (server, done) = (&self.life(node).server, self.life(node).source().seq());
        let now = (server.data(), server.ends());
        let had_no_room = self.edited == Some(Edited::NoRoom) && now == before;
        assert!(now == after || had_no_room, "{node} held {before:?}, and holds {now:?}, not {after:?}");
        assert!(
            done == seq || self.edited != Some(Edited::Done),
            "{node} was to wait for slaves to have what it has written, and did not"
        );
        // A call that still waits is told of the slaves that have the write from here on: nothing has come from slaves by now.
        if let Some(Call { asked: Asked::Confirmed { seq: at, left, .. }, .. }) = self.calls.get_mut(&call) {
            assert!(done > seq, "{node} waits for slaves to have what it has not written");
            let of = |(&key, &value): (&u64, &Option<(u64, u64)>)| Left {
                key,
                value: value.map(|(value, _)| value),
                number,
            };
            let now = written.iter().map(of);
            (*at, *left) = (Some(done), now.collect());
        }
    }

    /// Notes what a request may delete, or have end.
    fn note_edit(&mut self, request: &Request, parts: &[Part], ends: bool, before: &Data) {
        let number = self.writes + STRIDE - 1;
        let ends = ends || matches!(request, Request::Touch(..));
        for &(key, known) in parts {
            match known {
                Some(None) => {}
                _ if !ends => continue,
                Some(Some(value)) => self.ending.put(value - value % STRIDE),
                // What is there, or comes before it.
                None => {
                    let from = before.get(&key).copied().unwrap_or(0);
                    self.ending.touched.insert((key, from, self.writes));
                }
            }
            self.deleted.insert(key, number);
        }
    }

    fn draw_request(&mut self, random: &mut Random, there: &There) -> Request {
        let key = random.below(KEYS);
        let several = |len: u64| (0..len).map(move |more| (key + more) % KEYS);
        match random.below(14) {
            0..5 => self.draw_transact(random, key, there),
            5 => {
                let len = 2 + random.below(3);
                Request::PutMany(several(len).map(|key| (key, self.next_value())).collect())
            }
            6 => Request::DeleteMany(several(1 + random.below(4)).collect()),
            7 => Request::Count(key, self.next_value()),
            8 if random.one_in(2) => Request::PutNew(key, self.next_value()),
            8 => Request::Replace(key, self.next_value()),
            9 if random.one_in(2) => Request::Pop(key),
            9 => Request::GetAndPut(key, self.next_value()),
            10 => Request::Touch(key, 1 + random.below(4_000)),
            11 => Request::Persist(key),
            12 if random.one_in(2) => Request::Clear,
            12 => Request::Delete(key),
            _ => Request::Put(key, self.next_value()),
        }
    }

    fn draw_transact(&mut self, random: &mut Random, key: u64, there: &There) -> Request {
        let (mut guards, mut changes) = (Vec::new(), Vec::new());
        if random.one_in(2) {
            // One that holds, as far as is known, or not.
            let of = random.below(KEYS);
            let [value, revision] = [&there.present, &there.revisions].map(|known| known.get(&of).copied());
            guards.push(match (random.below(4), value, revision) {
                (0, Some(value), _) => Guard::Equal(of, value),
                (1, _, Some(revision)) => Guard::Revision(of, revision),
                (2, ..) => Guard::Absent(of),
                (3, ..) => Guard::Present(of),
                _ => Guard::Equal(of, self.writes),
            });
        }
        for key in (0..1 + random.below(4)).map(|more| (key + more) % KEYS) {
            match random.below(7) {
                0 => changes.push((key, Step::Delete)),
                1 => {
                    guards.push(Guard::Present(key));
                    changes.push((key, Step::Add(1)));
                }
                2 => changes.extend([(key, Step::Put(self.next_value())), (key, Step::Add(1))]),
                3 => changes.extend([(key, Step::Delete), (key, Step::Add(self.next_value()))]),
                4 => {
                    guards.push(Guard::Absent(key));
                    changes.push((key, Step::Add(self.next_value())));
                }
                _ => changes.push((key, Step::Put(self.next_value()))),
            }
        }
        Request::Transact { guards, changes }
    }

    /// What a store holds that has never had anything from another has each write of several keys whole, or nothing of it: these keys
    /// have what it has left, or what came later.
    pub fn check_groups(&self, node: usize, data: &Data) {
        for group in data.values().filter_map(|value| self.groups.get(value)) {
            let is_held = |left: &Left| left.is_held(data.get(&left.key).copied(), &self.deleted);
            let half = group.left().find(|left| !is_held(left));
            assert!(half.is_none(), "{node} holds {data:?}, a half of {:?}: {half:?}", group.parts);
        }
    }
}
