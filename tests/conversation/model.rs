//! Every request of a store against a plain map, on each engine: memory, disk, etcd, and the deferred one.

#[path = "model/pages.rs"]
mod pages;
#[path = "model/steps.rs"]
mod steps;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use kvnode::etf::TermView;
use proptest::prelude::*;

use crate::cluster::{Cluster, STARTED_MS, answer, cluster, cluster_on};
use crate::conversation::{frames_of, payload_of};
use crate::deferred::{Deferred, Manner};
use pages::Pages;
use steps::steps;

/// What a key has, as it is written in Elixir.
#[derive(Clone)]
struct Held {
    value: String,
    revision: u64,
    /// When it ends.
    end: Option<u64>,
}

/// Keys by their numbers, those that have ended among them until they are removed.
struct Model {
    data: BTreeMap<u8, Held>,
    /// The number of the last write.
    counted: u64,
    now: u64,
    /// How long what is put has.
    ttl: Option<u64>,
    /// The scan that is under way.
    pages: Option<Pages>,
    /// What the store says of the number of its last write, where it does not count by itself.
    number: Option<Box<dyn Fn() -> u64>>,
}

impl Held {
    fn has_ended(&self, now: u64) -> bool {
        self.end.is_some_and(|end| end <= now)
    }
}

impl Model {
    const fn new() -> Self {
        Self { data: BTreeMap::new(), counted: 1, now: STARTED_MS, ttl: None, pages: None, number: None }
    }

    fn present(&self, at: u8) -> Option<&Held> {
        self.data.get(&at).filter(|held| !held.has_ended(self.now))
    }

    fn get(&self, at: u8) -> Option<&String> {
        self.present(at).map(|held| &held.value)
    }

    /// One write: each of the keys gets a value, or goes, and each of them counts.
    fn write(&mut self, changes: impl IntoIterator<Item = (u8, Option<String>)>) {
        let revision = self.number.as_ref().map_or(self.counted + 1, |number| number());
        let mut keys = BTreeSet::new();
        let end = self.ttl.map(|ttl| self.now + ttl);
        for (at, value) in changes {
            keys.insert(at);
            if let Some(pages) = self.pages.as_mut()
                && (value.is_none() || self.data.get(&at).is_none_or(|held| held.has_ended(self.now)))
            {
                pages.gone(at);
            }
            match value {
                Some(value) => _ = self.data.insert(at, Held { value, revision, end }),
                None => _ = self.data.remove(&at),
            }
        }
        self.counted = revision + keys.len().max(1) as u64 - 1;
    }

    /// Keys that have ended are removed.
    fn sweep(&mut self) {
        let ended: Vec<u8> =
            self.data.iter().filter(|(_, held)| held.has_ended(self.now)).map(|(at, _)| *at).collect();
        ended.into_iter().for_each(|at| self.write([(at, None)]));
    }

    fn put(&mut self, at: u8, value: &str) {
        self.write([(at, Some(value.to_owned()))]);
    }

    fn transact(&mut self, guards: &[(u8, Guard)], changes: &[(u8, Made)]) -> String {
        let is_met = |at: u8, guard: &Guard| match guard {
            Guard::Present => self.present(at).is_some(),
            Guard::Has(guess) => guess.is_met(self.present(at)),
        };
        if let Some((at, guard)) = guards.iter().find(|(at, guard)| !is_met(*at, guard)) {
            return format!("{{:error, {{:failed, {}}}}}", guard.text(*at, self));
        }
        let end = self.ttl.map(|ttl| self.now + ttl);
        let mut became: BTreeMap<u8, Option<(String, Option<u64>)>> = BTreeMap::new();
        let mut results = Vec::new();
        for (at, made) in changes {
            let present = self.present(*at).map(|held| (held.value.clone(), held.end));
            let now = became.entry(*at).or_insert(present);
            results.push(":ok".to_owned());
            match made {
                Made::Put(value) => *now = Some((value.clone(), end)),
                Made::Delete => *now = None,
                Made::Add(by) => {
                    let before = now.clone().unwrap_or_else(|| ("0".into(), end));
                    let Ok(number) = before.0.parse::<i128>() else {
                        return "{:error, :not_an_integer}".into();
                    };
                    let sum = (number + by).to_string();
                    *results.last_mut().expect("it was pushed") = sum.clone();
                    *now = Some((sum, if self.ttl.is_some() { end } else { before.1 }));
                }
            }
        }
        if !became.is_empty() {
            let keys: Vec<_> = became.into_iter().collect();
            let ends: Vec<_> =
                keys.iter().filter_map(|(at, now)| now.as_ref().map(|(_, end)| (*at, *end))).collect();
            self.write(keys.into_iter().map(|(at, now)| (at, now.map(|(value, _)| value))));
            for (at, end) in ends {
                self.data.get_mut(&at).expect("it was put").end = end;
            }
        }
        format!("{{:ok, {}}}", listed(results.into_iter()))
    }
}

/// A key as it is written in Elixir.
fn key(number: u8) -> String {
    match number {
        0 => "0".into(),
        1 => "0.0".into(),
        2 => "%{b: 1, a: [1, 2]}".into(),
        3 => format!("\"{}\"", "long".repeat(20_000)),
        _ => format!("{{:k, {number}}}"),
    }
}

const KEYS: u8 = 7;

#[derive(Clone, Debug)]
enum Step {
    Get(u8),
    Fetch(u8),
    Member(u8),
    Count,
    GetMany(Vec<u8>),
    Put(u8, String),
    Delete(u8),
    PutNew(u8, String),
    Replace(u8, String),
    Pop(u8),
    GetAndPut(u8, String),
    Add(u8, i128, Option<i128>),
    FetchRevision(u8),
    /// `None`: it is to be deleted.
    Compare(u8, Guess, Option<String>),
    PutList(Vec<(u8, String)>),
    PutMap(BTreeMap<u8, String>),
    DeleteMany(Vec<u8>),
    Clear,
    Transact(Vec<(u8, Guard)>, Vec<(u8, Made)>),
    /// The same, of what has so long.
    For(u64, Box<Step>),
    Ttl(u8),
    /// `None`: it does not end.
    Touch(u8, Option<u64>),
    /// So many milliseconds pass.
    Pass(u64),
    /// Keys that have ended are removed.
    Sweep,
    /// The next page of a scan, of so many entries, or of keys alone.
    Page(u8, bool),
    /// The store ends, and is opened again.
    Reopen,
}

/// What has to be so for a transaction.
#[derive(Clone, Debug)]
enum Guard {
    Present,
    /// Of what is guessed: a value, a revision, or nothing.
    Has(Guess),
}

impl Guard {
    fn text(&self, at: u8, model: &Model) -> String {
        let key = key(at);
        let Self::Has(guess) = self else { return format!("{{:present, {key}}}") };
        let guessed = guess.text(model.present(at), model.counted);
        if let Some(value) = guessed.strip_prefix("{:value, ") {
            return format!("{{:equal, {key}, {value}");
        }
        guessed.strip_prefix("{:revision, ").map_or_else(
            || format!("{{:absent, {key}}}"),
            |revision| format!("{{:revision, {key}, {revision}"),
        )
    }
}

/// A change of a transaction.
#[derive(Clone, Debug)]
enum Made {
    Put(String),
    Delete,
    Add(i128),
}

impl Made {
    fn text(&self, at: u8) -> String {
        let key = key(at);
        match self {
            Self::Put(value) => format!("{{:put, {key}, {value}}}"),
            Self::Delete => format!("{{:delete, {key}}}"),
            Self::Add(by) => format!("{{:add, {key}, {by}}}"),
        }
    }
}

/// What a caller expects a key to have.
#[derive(Clone, Debug)]
enum Guess {
    Value(String),
    /// What it has.
    Same,
    /// Its revision and so much more, or the last of all where it has none.
    Revision(i64),
    Absent,
}

impl Guess {
    fn text(&self, present: Option<&Held>, counted: u64) -> String {
        match (self, present) {
            (Self::Value(value), _) | (Self::Same, Some(Held { value, .. })) => {
                format!("{{:value, {value}}}")
            }
            (Self::Same, None) | (Self::Absent, _) => ":absent".into(),
            (Self::Revision(more), present) => {
                let revision = present.map_or(counted, |held| held.revision);
                format!("{{:revision, {}}}", revision as i64 + more)
            }
        }
    }

    fn is_met(&self, present: Option<&Held>) -> bool {
        match (self, present) {
            (Self::Value(expected), Some(held)) => *expected == held.value,
            (Self::Revision(more), Some(_)) => *more == 0,
            (Self::Same, _) | (Self::Absent, None) => true,
            _ => false,
        }
    }
}

fn listed(elements: impl Iterator<Item = String>) -> String {
    format!("[{}]", elements.collect::<Vec<_>>().join(", "))
}

fn mapped(pairs: impl Iterator<Item = (String, String)>) -> String {
    let mut text = String::from("%{");
    for (at, (key, value)) in pairs.enumerate() {
        let comma = if at > 0 { ", " } else { "" };
        write!(text, "{comma}{key} => {value}").expect("memory");
    }
    text + "}"
}

impl Step {
    fn request(&self, model: &Model) -> String {
        match self {
            Self::FetchRevision(at) => format!("{{:fetch_revision, {}}}", key(*at)),
            Self::Compare(at, guess, then) => {
                let (key, expected) = (key(*at), guess.text(model.present(*at), model.counted));
                match then {
                    Some(value) => format!("{{:compare_and_put, {key}, {expected}, {value}}}"),
                    None => format!("{{:compare_and_delete, {key}, {expected}}}"),
                }
            }
            Self::Get(at) => format!("{{:get, {}}}", key(*at)),
            Self::Fetch(at) => format!("{{:fetch, {}}}", key(*at)),
            Self::Member(at) => format!("{{:member, {}}}", key(*at)),
            Self::Count => ":count".into(),
            Self::GetMany(keys) => format!("{{:get_many, {}}}", listed(keys.iter().map(|at| key(*at)))),
            Self::Put(at, value) => format!("{{:put, {}, {value}}}", key(*at)),
            Self::Delete(at) => format!("{{:delete, {}}}", key(*at)),
            Self::PutNew(at, value) => format!("{{:put_new, {}, {value}}}", key(*at)),
            Self::Replace(at, value) => format!("{{:replace, {}, {value}}}", key(*at)),
            Self::Pop(at) => format!("{{:pop, {}}}", key(*at)),
            Self::GetAndPut(at, value) => format!("{{:get_and_put, {}, {value}}}", key(*at)),
            Self::Add(at, by, None) => format!("{{:update_counter, {}, {by}}}", key(*at)),
            Self::Add(at, by, Some(initial)) => format!("{{:update_counter, {}, {by}, {initial}}}", key(*at)),
            Self::PutList(pairs) => {
                let pairs = pairs.iter().map(|(at, value)| format!("{{{}, {value}}}", key(*at)));
                format!("{{:put_many, {}}}", listed(pairs))
            }
            Self::PutMap(pairs) => {
                let pairs = pairs.iter().map(|(at, value)| (key(*at), value.clone()));
                format!("{{:put_many, {}}}", mapped(pairs))
            }
            Self::DeleteMany(keys) => format!("{{:delete_many, {}}}", listed(keys.iter().map(|at| key(*at)))),
            Self::Clear => ":clear".into(),
            Self::Transact(guards, changes) => {
                let guards = listed(guards.iter().map(|(at, guard)| guard.text(*at, model)));
                let changes = listed(changes.iter().map(|(at, made)| made.text(*at)));
                format!("{{:transact, {guards}, {changes}}}")
            }
            Self::For(ttl, step) => {
                let request = step.request(model);
                format!("{}, ttl: {ttl}}}", request.strip_suffix('}').expect("a tuple"))
            }
            Self::Ttl(at) => format!("{{:ttl, {}}}", key(*at)),
            Self::Touch(at, Some(ttl)) => format!("{{:touch, {}, {ttl}}}", key(*at)),
            Self::Touch(at, None) if model.counted.is_multiple_of(2) => format!("{{:persist, {}}}", key(*at)),
            Self::Touch(at, None) => format!("{{:touch, {}, :infinity}}", key(*at)),
            Self::Pass(_) | Self::Sweep | Self::Page(..) | Self::Reopen => {
                unreachable!("it is told apart before")
            }
        }
    }

    /// Changes the model, and gives what a store answers.
    fn apply(&self, model: &mut Model) -> String {
        let nil = |value: Option<String>| value.unwrap_or_else(|| "nil".into());
        let ok = ":ok".to_owned();
        match self {
            Self::Get(at) => nil(model.get(*at).cloned()),
            Self::Fetch(at) => model.get(*at).map_or(":error".into(), |value| format!("{{:ok, {value}}}")),
            Self::FetchRevision(at) => {
                let shown = |Held { value, revision, .. }: &Held| format!("{{:ok, {value}, {revision}}}");
                model.present(*at).map_or(":error".into(), shown)
            }
            Self::Member(at) => model.present(*at).is_some().to_string(),
            Self::Count => model.data.len().to_string(),
            Self::GetMany(keys) => {
                let mut seen = Vec::new();
                let mut first = |at: &&u8| {
                    !seen.contains(*at) && {
                        seen.push(**at);
                        true
                    }
                };
                let keys: Vec<&u8> = keys.iter().filter(|at| first(at)).collect();
                mapped(keys.into_iter().filter_map(|at| Some((key(*at), model.get(*at)?.clone()))))
            }
            Self::Put(at, value) => {
                model.put(*at, value);
                ok
            }
            Self::Delete(at) => {
                model.write([(*at, None)]);
                ok
            }
            Self::PutNew(at, value) | Self::Replace(at, value) => {
                let is_new = model.present(*at).is_none();
                let puts = is_new == matches!(self, Self::PutNew(..));
                if puts {
                    model.put(*at, value);
                }
                puts.to_string()
            }
            Self::Pop(at) => {
                let present = model.get(*at).cloned();
                if present.is_some() {
                    model.write([(*at, None)]);
                }
                nil(present)
            }
            Self::GetAndPut(at, value) => {
                let present = model.get(*at).cloned();
                model.put(*at, value);
                nil(present)
            }
            Self::Add(at, by, initial) => {
                let present = model.get(*at).map_or(Ok(initial.unwrap_or(0)), |value| value.parse::<i128>());
                match present {
                    Ok(number) => {
                        let sum = (number + by).to_string();
                        // It ends when it did, where nothing else is said.
                        let end =
                            model.present(*at).and_then(|held| held.end).filter(|_| model.ttl.is_none());
                        model.put(*at, &sum);
                        let held = model.data.get_mut(at).expect("it was put");
                        held.end = end.or(held.end);
                        sum
                    }
                    Err(_) => "{:error, :not_an_integer}".into(),
                }
            }
            Self::Compare(at, guess, then) => match (guess.is_met(model.present(*at)), model.present(*at)) {
                (true, present) => {
                    if then.is_some() || present.is_some() {
                        model.write([(*at, then.clone())]);
                    }
                    ok
                }
                (false, None) => "{:error, {:conflict, :absent}}".into(),
                (false, Some(Held { value, revision, .. })) => {
                    format!("{{:error, {{:conflict, {{:value, {value}, {revision}}}}}}}")
                }
            },
            Self::PutList(pairs) => {
                if !pairs.is_empty() {
                    model.write(pairs.iter().map(|(at, value)| (*at, Some(value.clone()))));
                }
                ok
            }
            Self::PutMap(pairs) => {
                if !pairs.is_empty() {
                    model.write(pairs.iter().map(|(at, value)| (*at, Some(value.clone()))));
                }
                ok
            }
            Self::DeleteMany(keys) => {
                if !keys.is_empty() {
                    model.write(keys.iter().map(|at| (*at, None)));
                }
                ok
            }
            Self::Clear => {
                model.data.clear();
                (0..KEYS).for_each(|at| _ = model.pages.as_mut().map(|pages| pages.gone(at)));
                model.counted += 1;
                ok
            }
            Self::Transact(guards, changes) => model.transact(guards, changes),
            Self::For(ttl, step) => {
                model.ttl = Some(*ttl);
                let answer = step.apply(model);
                model.ttl = None;
                answer
            }
            Self::Ttl(at) => model.present(*at).map_or(":error".into(), |held| {
                let left = held.end.map(|end| (end - model.now).to_string());
                format!("{{:ok, {}}}", left.unwrap_or_else(|| ":infinity".into()))
            }),
            Self::Touch(at, ttl) => {
                let Some(value) = model.get(*at).cloned() else { return "false".into() };
                model.ttl = *ttl;
                model.put(*at, &value);
                model.ttl = None;
                "true".into()
            }
            Self::Pass(_) | Self::Sweep | Self::Page(..) | Self::Reopen => {
                unreachable!("it is told apart before")
            }
        }
    }
}

/// Asks a store each step's request, and compares the answer with the model's. An error of the store's own changes nothing.
fn compare(
    step: &Step,
    model: &mut Model,
    answers: impl FnOnce(String) -> Vec<Vec<u8>>,
) -> Result<bool, TestCaseError> {
    let answers = answers(step.request(model));
    prop_assert_eq!(answers.len(), 1);
    let shown = format!("{:?}", TermView::parse(payload_of(&answers[0])).expect("a term"));
    if shown.contains("{:error, :no_space}") || shown.contains("{:error, {:io, :eio}}") {
        return Ok(false);
    }
    let expected = step.apply(model);
    prop_assert!(answers[0] == answer(expected.as_str()), "{:?} is {} and not {}", step, shown, expected);
    Ok(true)
}

/// Where the step is one of time it passes; gives whether it was.
fn pass(step: &Step, model: &mut Model, cluster: &mut Cluster) -> bool {
    match step {
        Step::Pass(millis) => {
            cluster.pass(*millis);
            model.now += millis;
        }
        Step::Sweep => {
            let let_fail = |may| cluster.deferred.iter().for_each(|store| store.let_fail(may));
            let_fail(false);
            cluster.wake();
            cluster.deferred.iter().for_each(|store| store.let_fail(true));
            model.sweep();
        }
        _ => return false,
    }
    true
}

/// Where the step is a page it is asked for; gives whether it was.
fn page(
    step: &Step,
    model: &mut Model,
    ask: impl FnOnce(Vec<u8>) -> Vec<Vec<u8>>,
) -> Result<bool, TestCaseError> {
    let Step::Page(limit, keys_only) = step else { return Ok(false) };
    model.page(*limit, *keys_only, ask)?;
    Ok(true)
}

/// The scan that is under way is brought to its end.
fn all_pages(model: &mut Model, mut ask: impl FnMut(Vec<u8>) -> Vec<Vec<u8>>) -> Result<(), TestCaseError> {
    // As many as there are keys, and one that has none.
    for _ in 0..=KEYS {
        if model.page(3, false, &mut ask)? {
            return Ok(());
        }
    }
    prop_assert!(false, "the scan has no end");
    Ok(())
}

/// Calls, and carries out what the store has done step by step.
fn call(cluster: &mut Cluster, request: Vec<u8>) -> Vec<Vec<u8>> {
    let mut answers = cluster.call(request);
    if answers.is_empty() {
        work(cluster);
        let sent = std::mem::take(&mut *cluster.sent.0.lock());
        answers.extend(sent.iter().flat_map(|(_, frames)| frames_of(frames)));
    }
    answers
}

fn work(cluster: &Cluster) {
    let work = cluster.sent.4.lock().pop();
    work.into_iter().for_each(|mut work| while work.step() {});
}

fn small_cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(small_cases(64))]

    #[test]
    fn a_store_in_memory_is_a_map(steps in steps(false)) {
        let (mut cluster, mut model) = (cluster(), Model::new());
        for step in &steps {
            if pass(step, &mut model, &mut cluster) || page(step, &mut model, |request| call(&mut cluster, request))? {
                continue;
            }
            let answered = compare(step, &mut model, |request| cluster.call(request))?;
            prop_assert!(answered);
        }
        all_pages(&mut model, |request| call(&mut cluster, request))?;
    }

    #[test]
    fn a_store_that_answers_later_is_a_map_also_where_it_fails_now_and_then(
        steps in steps(false), seed: u64, fails: bool,
    ) {
        let fails_one_in = if fails { 4 } else { 0 };
        let manner = Manner { fails_one_in, fails_to_read: true, ..Manner::wild(seed) };
        let (mut cluster, mut model) = (cluster_on(Deferred::new(manner)), Model::new());
        for step in &steps {
            if pass(step, &mut model, &mut cluster) || page(step, &mut model, |request| call(&mut cluster, request))? {
                continue;
            }
            let answered = compare(step, &mut model, |request| cluster.call(request))?;
            prop_assert!(answered || fails);
        }
        let all = Step::GetMany((0..KEYS).collect());
        cluster.deferred.as_ref().expect("it is one").let_fail(false);
        all_pages(&mut model, |request| call(&mut cluster, request))?;
        prop_assert!(compare(&all, &mut model, |request| cluster.call(request))?);
    }
}

#[cfg(feature = "disk")]
mod on_disk {
    use std::path::Path;
    use std::sync::Arc;

    use kvnode::distribution::DistributionFlags;
    use kvnode::store::revision::LEAP;
    use kvnode::store::{Disk, DiskStore, Store, SyncPolicy, wait};

    use super::*;
    use crate::cluster::cluster_with;
    use crate::term::Term;

    fn open(dir: &Path) -> (Arc<Disk>, DiskStore, Cluster) {
        let disk = Disk::open(dir, SyncPolicy::Never, 16 << 20).expect("a folder");
        let store = disk.store(&["kv".into()]).expect("a name");
        let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
        (disk, store, cluster)
    }

    /// The answer to a call, which comes from the disk's thread.
    fn call(cluster: &mut Cluster, store: &DiskStore, request: impl Term) -> Vec<Vec<u8>> {
        let mut answers = cluster.call(request);
        work(cluster);
        answers.extend(settle(cluster, store));
        answers
    }

    /// The disk's thread does all that it was asked for.
    fn settle(cluster: &mut Cluster, store: &DiskStore) -> Vec<Vec<u8>> {
        let settled = wait(|done| {
            let mut done = Some(done);
            store.barrier(|| Box::new(done.take().expect("asked for once")));
        });
        assert_eq!(settled, Some(Ok(())));
        cluster.sent.0.lock().drain(..).flat_map(|(_, frames)| frames_of(&frames)).collect()
    }

    proptest! {
        #![proptest_config(small_cases(24))]

        #[test]
        fn a_store_on_disk_is_a_map_that_is_kept(steps in steps(true)) {
            let dir = tempfile::tempdir().expect("a folder");
            let (mut disk, mut store, mut cluster) = open(dir.path());
            let mut model = Model::new();
            for step in steps.iter().chain([&Step::Reopen, &Step::GetMany((0..KEYS).collect()), &Step::Count]) {
                if let Step::Reopen = step {
                    drop((store, cluster));
                    disk.close();
                    drop(disk);
                    (disk, store, cluster) = open(dir.path());
                    cluster.pass(model.now - STARTED_MS);
                    // A power cut may have taken writes: nothing here was synced before it was answered.
                    model.counted += LEAP;
                    continue;
                }
                if pass(step, &mut model, &mut cluster) {
                    settle(&mut cluster, &store);
                    continue;
                }
                if page(step, &mut model, |request| call(&mut cluster, &store, request))? {
                    continue;
                }
                let answered = compare(step, &mut model, |request| call(&mut cluster, &store, request))?;
                prop_assert!(answered);
            }
            all_pages(&mut model, |request| call(&mut cluster, &store, request))?;
        }
    }
}

#[cfg(feature = "etcd")]
mod in_etcd {
    use kvnode::store::EtcdStore;

    use super::*;
    use crate::support::EtcdCluster;

    fn open(etcd: &EtcdCluster, prefix: &str, model: &mut Model) -> Cluster {
        let (store, cluster) = crate::on_etcd::open(etcd.endpoint(0), prefix);
        cluster.pass(model.now - STARTED_MS);
        model.number = Some(Box::new(move || number(&store)));
        // A place in memory is none of the next life.
        model.pages = None;
        cluster
    }

    /// That of the first write of the last transaction: requests that come one by one are each in one of their own.
    fn number(store: &EtcdStore) -> u64 {
        (store.etcd_revision() as u64) << 8
    }

    #[test]
    fn a_store_in_etcd_is_a_map_that_is_kept() {
        let etcd = EtcdCluster::start_in_memory(1);
        let cases = std::cell::Cell::new(0);
        proptest!(small_cases(24), |(steps in steps(true))| {
            cases.set(cases.get() + 1);
            let prefix = format!("model/{}", cases.get());
            let mut model = Model::new();
            let mut cluster = open(&etcd, &prefix, &mut model);
            for step in steps.iter().chain([&Step::Reopen, &Step::GetMany((0..KEYS).collect()), &Step::Count]) {
                if let Step::Reopen = step {
                    drop(cluster);
                    cluster = open(&etcd, &prefix, &mut model);
                    continue;
                }
                if pass(step, &mut model, &mut cluster)
                    || page(step, &mut model, |request| call(&mut cluster, request))?
                {
                    continue;
                }
                let answered = compare(step, &mut model, |request| cluster.call(request))?;
                prop_assert!(answered);
            }
            all_pages(&mut model, |request| call(&mut cluster, request))?;
        });
    }
}
