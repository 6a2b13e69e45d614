//! Entries page by page.

use std::collections::BTreeMap;
use std::ops::{Deref, DerefMut};

use kvnode::distribution::DistributionFlags;
use kvnode::etf::{OwnedTerm, TermView};
use kvnode::kv::requests::{KEYS_MAX, PAGE_BYTES_MAX, PATTERN_BYTES_MAX};
use kvnode::store::MemoryStore;

use crate::cluster::{Cluster, answer, cluster, cluster_on, cluster_with};
use crate::conversation::{frames_of, payload_of};
use crate::deferred::{Deferred, Manner};
use crate::requests::check_is_none;
use crate::term::{Term, binary, term, term_with};

/// A cluster whose store may be one on disk.
pub struct Asker {
    pub cluster: Cluster,
    /// Waits until the store has done all that it was asked for.
    pub settle: Box<dyn Fn()>,
}

impl DerefMut for Asker {
    fn deref_mut(&mut self) -> &mut Cluster {
        &mut self.cluster
    }
}

impl Deref for Asker {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Asker {
    fn on(cluster: Cluster) -> Self {
        Self { cluster, settle: Box::new(|| {}) }
    }

    /// The answer to a call, also where others carry that out.
    #[track_caller]
    pub fn ask(&mut self, request: impl Term) -> OwnedTerm {
        let mut answers = self.cluster.call(request);
        if answers.is_empty() {
            let work = self.cluster.sent.4.lock().pop();
            work.into_iter().for_each(|mut work| while work.step() {});
            (self.settle)();
            let sent = std::mem::take(&mut *self.cluster.sent.0.lock());
            answers.extend(sent.iter().flat_map(|(_, frames)| frames_of(frames)));
        }
        let [answer] = &answers[..] else { panic!("{answers:?}") };
        Self::answer_in(answer)
    }

    /// The same, behind another call that has not been answered.
    #[cfg(feature = "disk")]
    fn ask_of_two(&mut self, request: String) -> OwnedTerm {
        let mut answers = self.cluster.call(request);
        let work = self.cluster.sent.4.lock().pop();
        work.into_iter().for_each(|mut work| while work.step() {});
        (self.settle)();
        let sent = std::mem::take(&mut *self.cluster.sent.0.lock());
        answers.extend(sent.iter().flat_map(|(_, frames)| frames_of(frames)));
        assert_eq!(answers.len(), 2);
        Self::answer_in(&answers[1])
    }

    pub fn answer_in(frame: &[u8]) -> OwnedTerm {
        let [_, answer] = TermView::parse(payload_of(frame)).expect("a term").as_tuple().expect("a pair");
        OwnedTerm::parse(answer.bytes().to_vec()).expect("a term")
    }

    /// Its cursors are keys of any length.
    pub const fn is_deferred(&self) -> bool {
        self.cluster.deferred.is_some()
    }

    /// The pages of a scan, each with its entries.
    #[track_caller]
    fn pages(&mut self, options: &str, mut between: impl FnMut(&mut Self)) -> Vec<Vec<String>> {
        let mut pages = Vec::new();
        let mut cursor = None;
        loop {
            let request = match &cursor {
                None => term(&format!("{{:scan, [{options}]}}")),
                Some(cursor) => term_with(&format!("{{:scan, [cursor: $1, {options}]}}"), &[cursor]),
            };
            let page = self.ask(request);
            let [entries, next] = page.view().as_tuple::<2>().unwrap_or_else(|| panic!("{page:?}"));
            let entries = entries.elements(KEYS_MAX).expect("a list");
            pages.push(entries.iter().map(|entry| format!("{entry:?}")).collect());
            if next.is_atom("done") {
                return pages;
            }
            cursor = Some(next.bytes().to_vec());
            between(self);
        }
    }

    fn sorted(&mut self, options: &str) -> Vec<String> {
        let mut all = self.pages(options, |_| {}).concat();
        all.sort();
        all
    }
}

pub fn on_each_store(test: impl Fn(Asker)) {
    #[cfg(feature = "etcd")]
    if let Some(cluster) = crate::on_etcd::cluster() {
        return test(Asker::on(cluster));
    }
    test(Asker::on(cluster()));
    test(Asker::on(cluster_on(Deferred::new(Manner::wild(1)))));
    #[cfg(feature = "disk")]
    on_disk(test);
}

#[cfg(feature = "disk")]
fn on_disk(test: impl Fn(Asker)) {
    use kvnode::store::{Disk, Store, SyncPolicy, wait};

    let dir = tempfile::tempdir().expect("a folder");
    let disk = Disk::open(dir.path(), SyncPolicy::Never, 16 << 20).expect("it is new");
    let store = disk.store(&["kv".into()]).expect("it is new");
    let cluster = cluster_with(store.clone(), DistributionFlags::OFFERED);
    let settle = move || {
        let settled = wait(|done| {
            let mut done = Some(done);
            store.barrier(|| Box::new(done.take().expect("asked for once")));
        });
        assert_eq!(settled, Some(Ok(())));
    };
    test(Asker { cluster, settle: Box::new(settle) });
}

#[test]
fn all_entries_come_once_in_pages_of_any_size() {
    on_each_store(|mut cluster| {
        assert_eq!(cluster.pages("", |_| {}), [Vec::<String>::new()]);
        for number in 0..50 {
            cluster.ask(format!("{{:put, {{:k, {number}}}, {number}}}"));
        }
        let mut all: Vec<String> = (0..50).map(|number| format!("{{{{:k, {number}}}, {number}}}")).collect();
        all.sort();
        let mut keys: Vec<String> = (0..50).map(|number| format!("{{:k, {number}}}")).collect();
        keys.sort();
        for options in ["", "limit: 1", "limit: 7", "limit: 16384", "bytes: 1", "bytes: 100, keys: false"] {
            assert_eq!(cluster.sorted(options), all, "{options}");
            assert_eq!(cluster.sorted(&format!("keys: true, {options}").replace(", keys: false", "")), keys);
        }
        let pages = cluster.pages("limit: 7", |_| {});
        assert!(pages.iter().all(|page| page.len() <= 7) && pages.len() >= 8, "{pages:?}");
        assert!(cluster.pages("bytes: 1", |_| {}).iter().all(|page| page.len() <= 1));
        // What stays is shown once, whatever is written.
        let mut number = 1000;
        let pages = cluster.pages("limit: 3, keys: true", |cluster| {
            cluster.ask(format!("{{:put, {{{number}, :k}}, 1}}"));
            cluster.ask(format!("{{:put, {{:k, {}}}, :new}}", number % 50));
            cluster.ask(format!("{{:delete, {{:k, {}}}}}", number - 5));
            number += 1;
        });
        let mut counts = BTreeMap::new();
        for key in pages.concat() {
            *counts.entry(key).or_insert(0) += 1;
        }
        for key in &keys {
            assert_eq!(counts.get(key), Some(&1), "{key}");
        }
    });
}

#[test]
fn a_pattern_shows_the_keys_that_it_matches() {
    on_each_store(|mut cluster| {
        for key in [
            "{:user, 1}",
            "{:user, 2}",
            "{:user, 1, 2}",
            ":user",
            "[1, 2]",
            "[1, :a]",
            "%{a: 1, b: 2}",
            "1",
            "1.0",
        ] {
            cluster.ask(format!("{{:put, {key}, 0}}"));
        }
        for (pattern, keys) in [
            ("{:user, :_}", &["{:user, 1}", "{:user, 2}"][..]),
            ("{:_, 1, :_}", &["{:user, 1, 2}"]),
            ("[1 | :_]", &["[1, 2]", "[1, :a]"]),
            ("%{a: :_}", &["%{a: 1, b: 2}"]),
            ("%{a: 1}", &["%{a: 1, b: 2}"]),
            ("%{a: 2}", &[]),
            ("1", &["1"]),
            (":none", &[]),
        ] {
            let mut keys = keys.to_vec();
            keys.sort_unstable();
            assert_eq!(cluster.sorted(&format!("keys: true, limit: 1, match: {pattern}")), keys, "{pattern}");
        }
        assert_eq!(cluster.sorted("match: :_").len(), 9);
    });
}

#[test]
fn what_has_ended_is_not_shown() {
    on_each_store(|mut cluster| {
        cluster.ask("{:put, :short, 1, ttl: 10}");
        cluster.ask("{:put, :long, 1, ttl: 1000}");
        cluster.ask("{:put, :all, 1}");
        assert_eq!(cluster.sorted("keys: true"), [":all", ":long", ":short"]);
        cluster.pass(10);
        assert_eq!(cluster.sorted("keys: true"), [":all", ":long"]);
        assert_eq!(cluster.sorted(""), ["{:all, 1}", "{:long, 1}"]);
    });
}

#[test]
fn other_options_are_refused_by_name_and_bounds_are_told() {
    let mut cluster = cluster();
    let page = |options: &str| format!("{{:scan, [{options}]}}");
    for (options, expected) in [
        ("limit: 5, limits: 6", "{:error, {:unknown_option, :limits}}".to_owned()),
        ("limit: 16385", format!("{{:error, {{:too_many, {KEYS_MAX}}}}}")),
        ("bytes: 99999999999999999999999", String::new()),
        ("bytes: 4194305", format!("{{:error, {{:too_large, {PAGE_BYTES_MAX}}}}}")),
        ("reverse: true", "{:error, :unordered}".into()),
        ("from: 1", "{:error, :unordered}".into()),
        ("to: 1", "{:error, :unordered}".into()),
        ("prefix: {:user}", "{:error, :unordered}".into()),
        ("reverse: false", "{:error, :unordered}".into()),
        ("prefix: {:user}, to: 1", "{:error, :prefix_and_range}".into()),
        ("prefix: :user", "{:error, :bad_prefix}".into()),
        ("reverse: 1", String::new()),
        ("cursor: \"x\"", "{:error, :bad_cursor}".into()),
        ("cursor: \"\"", "{:error, :bad_cursor}".into()),
        ("limit: 1, limit: 0", String::new()),
        ("limit: 0", String::new()),
        ("limit: :all", String::new()),
        ("keys: 1", String::new()),
        ("cursor: :done", String::new()),
        ("match: :\"$1\"", String::new()),
        ("match: {:_, %{:_ => 1}}", String::new()),
        ("1", String::new()),
    ] {
        let request = page(options);
        if expected.is_empty() {
            check_is_none(&mut cluster, &request);
        } else {
            assert_eq!(cluster.call(request), [answer(expected.as_str())], "{options}");
        }
    }
    let large = binary(&vec![7; PATTERN_BYTES_MAX]);
    let too_large = format!("{{:error, {{:too_large, {PATTERN_BYTES_MAX}}}}}");
    for option in ["match", "from", "to", "prefix"] {
        let request = format!("{{:scan, [{option}: $1]}}");
        assert_eq!(cluster.call(term_with(&request, &[&large])), [answer(too_large.as_str())], "{option}");
    }
}

#[test]
fn pages_beyond_a_bound_that_wait_are_refused() {
    let mut cluster = cluster_with(Deferred::new(Manner::wild(1)), DistributionFlags::OFFERED);
    let answers: Vec<_> = (0..300).flat_map(|_| cluster.call("{:scan, []}")).collect();
    assert_eq!(answers.len(), 300 - 64);
    assert!(answers.iter().all(|refused| *refused == answer("{:error, :busy}")));
    let mut work = cluster.sent.4.lock().pop().expect("they are to be read");
    while work.step() {}
    assert!(cluster.sent.4.lock().is_empty(), "one reads all");
    assert_eq!(cluster.sent.0.lock().len(), 64);
    assert!(cluster.call("{:scan, []}").is_empty(), "and then the next");
    assert_eq!(cluster.sent.4.lock().len(), 1);
}

#[test]
fn a_cursor_that_no_store_gives_is_refused_and_others_go_on() {
    on_each_store(|mut asker| {
        asker.ask("{:put, 7, 1}");
        for tag in [b"m", b"d"] {
            for len in [0, 17, 60_002, 60_003, 65_535, 65_536, 65_537, 1 << 20] {
                let cursor = binary(&[&tag[..], &vec![1; len]].concat());
                let answer = asker.ask(term_with("{:scan, [cursor: $1]}", &[&cursor]));
                assert!(
                    len < 60_003 || format!("{answer:?}") == "{:error, :bad_cursor}" || asker.is_deferred()
                );
                assert_eq!(format!("{:?}", asker.ask("{:scan, []}")), "{[{7, 1}], :done}", "{len}");
            }
        }
    });
}

/// A reader of its own writes: what one process has asked for before is in its scan, though it has not waited for the answer.
#[test]
#[cfg(feature = "disk")]
fn a_scan_behind_a_put_of_the_same_caller_finds_it() {
    on_disk(|mut asker| {
        for number in 0..100 {
            assert!(asker.call(format!("{{:put, {{{number}, :k}}, 1}}")).is_empty(), "it is not done yet");
            let page = asker.ask_of_two(format!("{{:scan, [keys: true, match: {{{number}, :_}}]}}"));
            assert_eq!(format!("{page:?}"), format!("{{[{{{number}, :k}}], :done}}"));
        }
    });
}

#[test]
fn a_place_of_another_life_is_none_in_memory() {
    let mut cluster = Asker::on(cluster());
    for number in 0..9 {
        cluster.ask(format!("{{:put, {number}, 1}}"));
    }
    let page = cluster.ask("{:scan, [limit: 1]}");
    let [_, place] = page.view().as_tuple::<2>().expect("a page");
    let mut other = Asker::on(cluster_with(MemoryStore::default(), DistributionFlags::OFFERED));
    let asked = other.ask(term_with("{:scan, [cursor: $1]}", &[&place.bytes().to_vec()]));
    assert_eq!(format!("{asked:?}"), "{:error, :bad_cursor}");
}
