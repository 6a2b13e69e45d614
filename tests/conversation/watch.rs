//! Processes that are told of each change.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{DistributionFlags, Outbound};
use kvnode::etf::{OwnedTerm, Reference, TermView};
use kvnode::kv::requests::PATTERN_BYTES_MAX;
use kvnode::process::{Effect, FedNode, Feed, Feeding, More};
use kvnode::store::revision::LEAP;

use crate::cluster::{TAG, answer, cluster, now, on_each_engine};
use crate::conversation::{control, frame, frames_of, gen_call, payload_of, send};
use crate::copies::greet;
use crate::requests::check_is_none;
use crate::scan::{Asker, on_each_store};
use crate::term::{PEER, binary, term_with};

/// A store, and what feeds its watchers.
struct Watched {
    asker: Asker,
    feed: Option<Arc<dyn Feed>>,
}

impl Deref for Watched {
    type Target = Asker;

    fn deref(&self) -> &Asker {
        &self.asker
    }
}

impl DerefMut for Watched {
    fn deref_mut(&mut self) -> &mut Asker {
        &mut self.asker
    }
}

impl Watched {
    const fn on(asker: Asker) -> Self {
        Self { asker, feed: None }
    }

    /// The answer to a watch, which comes at once.
    fn watch(&mut self, options: &str) -> OwnedTerm {
        let frames = self
            .asker
            .cluster
            .conversation
            .say(&send("kv", gen_call(TAG, format!("{{:watch, [{options}]}}"))));
        for effect in std::mem::take(&mut self.asker.cluster.conversation.later) {
            if let Effect::Feed(node, feed) = effect {
                assert_eq!(*node, *PEER);
                self.feed = Some(feed);
            }
        }
        Asker::answer_in(frames.last().expect("an answer"))
    }

    /// The same of one that is taken.
    fn begin(&mut self, options: &str) -> (Reference, u64) {
        let answer = self.watch(options);
        let [ok, reference, seq] = answer.view().as_tuple::<3>().unwrap_or_else(|| panic!("{answer:?}"));
        assert!(ok.is_atom("ok"));
        (reference.as_reference().expect("a reference").into(), seq.as_unsigned().expect("a number"))
    }

    /// What a node takes that has so much room, in bytes, and whether there is more; a page is read where one is wanted.
    fn take(&mut self, room: usize) -> (Vec<(Reference, OwnedTerm)>, More) {
        (self.asker.settle)();
        assert!(self.asker.cluster.answered_later().is_empty());
        let mut all = Vec::new();
        loop {
            let conversation = &self.asker.cluster.conversation;
            let (name, mut frames): (Arc<str>, _) = (PEER.into(), Outbound::default());
            let node = FedNode {
                name: &name,
                flags: DistributionFlags::OFFERED,
                frames_bytes_max: room,
                now: now(),
            };
            let feed = self.feed.as_ref().expect("somebody watches");
            let more =
                Feeding::new(node, &mut frames, &conversation.registry, &conversation.waiters).ask(&**feed);
            all.extend(frames_of(&frames).iter().filter_map(|frame| heard(frame)));
            let work = self.asker.cluster.sent.4.lock().pop();
            match work {
                Some(mut work) => {
                    while work.step() {}
                    assert!(self.asker.cluster.answered_later().is_empty());
                }
                None => return (all, more),
            }
        }
    }

    /// What the watchers are told, as text, without their references.
    fn told(&mut self) -> Vec<String> {
        let (told, more) = self.take(usize::MAX);
        assert_eq!(more, More::No);
        told.into_iter().map(|(_, told)| format!("{told:?}")).collect()
    }

    /// The watchers are told this behind `seq`, each with a number that is so much higher, or, of a store in etcd, higher than the one before.
    /// Gives the numbers.
    #[track_caller]
    fn check_told(&mut self, seq: u64, expected: &[(u64, &str)]) -> Vec<u64> {
        let told = self.told();
        let split = |told: &String| {
            let (number, told) = told.trim_start_matches('{').split_once(", ").expect("a number first");
            (number.parse::<u64>().expect("a number"), told.trim_end_matches('}').to_owned())
        };
        let (numbers, told): (Vec<u64>, Vec<String>) = told.iter().map(split).unzip();
        assert_eq!(told, expected.iter().map(|(_, told)| told.trim_end_matches('}')).collect::<Vec<_>>());
        if self.asker.cluster.settle.is_some() {
            assert!(numbers.is_sorted_by(|one, other| one < other) && numbers[0] > seq, "{numbers:?}");
        } else {
            assert_eq!(numbers, expected.iter().map(|(more, _)| seq + more).collect::<Vec<_>>());
        }
        numbers
    }

    fn written(&mut self, request: &str) {
        let answer = format!("{:?}", self.ask(request));
        assert!(!answer.starts_with("{:error"), "{request}: {answer}");
    }
}

/// A message to a watcher; `None`: another signal.
fn heard(frame: &[u8]) -> Option<(Reference, OwnedTerm)> {
    let control = TermView::parse(frame.get(1..)?).ok();
    let payload = if control.is_some() { return None } else { payload_of(frame) };
    let message = TermView::parse(payload).expect("a term");
    let [kvnode, reference, told] = message.as_tuple::<3>().expect("three");
    assert!(kvnode.is_atom("kvnode"));
    let told = OwnedTerm::parse(told.bytes().to_vec()).expect("a term");
    Some((reference.as_reference().expect("a reference").into(), told))
}

fn on_each(test: impl Fn(Watched)) {
    on_each_store(|asker| test(Watched::on(asker)));
}

#[test]
fn every_change_is_told_in_order_with_a_number_of_its_own() {
    on_each(|mut store| {
        store.written("{:put, :before, 1}");
        let (_, seq) = store.begin("");
        for request in [
            "{:put, :k, 1}",
            "{:put_many, [{:a, 1}, {:b, 2}, {:c, 3}]}",
            "{:delete, :k}",
            "{:update_counter, :a, 5}",
            "{:put_new, :a, 0}",
            "{:transact, [], [{:add, :n, 1}, {:delete, :b}, {:put, :before, :now}]}",
            "{:pop, :c}",
            "{:delete_many, [:a, :n]}",
            ":clear",
            "{:put, :last, [1]}",
        ] {
            store.written(request);
        }
        let expected = [
            (1, ":put, :k, 1"),
            (2, ":put, :a, 1"),
            (3, ":put, :b, 2"),
            (4, ":put, :c, 3"),
            (5, ":delete, :k"),
            (6, ":put, :a, 6"),
            (7, ":put, :n, 1"),
            (8, ":delete, :b"),
            (9, ":put, :before, :now"),
            (10, ":delete, :c"),
            (11, ":delete, :a"),
            (12, ":delete, :n"),
            (13, ":clear"),
            (14, ":put, :last, [1]"),
        ];
        let numbers = store.check_told(seq, &expected);
        assert!(store.told().is_empty());
        // A put at a primary has the revision of its value.
        let revision = store.ask("{:fetch_revision, :last}");
        assert_eq!(format!("{revision:?}"), format!("{{:ok, [1], {}}}", numbers[13]));
    });
}

#[test]
fn a_watcher_goes_on_behind_the_number_that_it_has_seen() {
    on_each(|mut store| {
        let (first, seq) = store.begin("");
        store.written("{:put, :a, 1}");
        store.written("{:put_many, [{:b, 2}, {:c, 3}]}");
        assert_eq!(store.told().len(), 3);
        let unwatch = term_with("{:unwatch, $1}", &[&first]);
        assert_eq!(
            format!("{:?}", Asker::answer_in(store.call(&unwatch[..]).last().expect("an answer"))),
            ":ok"
        );
        store.written("{:delete, :a}");
        let (_, from) = store.begin(&format!("from: {}", seq + 2));
        assert_eq!(from, seq + 2);
        assert_eq!(
            store.told(),
            [format!("{{{}, :put, :c, 3}}", seq + 3), format!("{{{}, :delete, :a}}", seq + 4)]
        );
        for wrong in [seq - 1, seq + 5, 0, u64::MAX] {
            assert_eq!(format!("{:?}", store.watch(&format!("from: {wrong}"))), "{:error, :too_old}");
        }
        let (_, last) = store.begin(&format!("from: {}", seq + 4));
        assert_eq!(last, seq + 4);
        assert!(store.told().is_empty());
    });
}

#[test]
fn what_is_there_is_shown_first_and_what_changes_meanwhile_once() {
    on_each(|mut store| {
        for number in 0..2000 {
            store.written(&format!("{{:put, {{:k, {number}}}, {number}}}"));
        }
        store.written("{:put, :other, 1}");
        let (_, seq) = store.begin("initial: true, match: {:k, :_}");
        // Before a page is read.
        store.written("{:put, {:k, 0}, :changed}");
        store.written("{:delete, {:k, 1}}");
        store.written("{:put, {:k, :new}, 1}");
        let told = store.told();
        let current = told.iter().position(|told| *told == format!("{{{seq}, :current}}"));
        let (shown, rest) = told.split_at(current.expect("it is said"));
        assert_eq!(shown.len(), 1998);
        assert!(shown.iter().all(|told| !told.contains(":other") && told.contains(":put")));
        assert_eq!(
            rest[1..],
            [
                format!("{{{}, :put, {{:k, 0}}, :changed}}", seq + 1),
                format!("{{{}, :delete, {{:k, 1}}}}", seq + 2),
                format!("{{{}, :put, {{:k, :new}}, 1}}", seq + 3),
            ]
        );
        let (_, seq) = store.begin("initial: true, match: :other, values: false");
        let revision = store.ask("{:fetch_revision, :other}");
        let [_, _, revision] = revision.view().as_tuple::<3>().expect("three");
        assert_eq!(store.told(), [format!("{{{revision:?}, :put, :other}}"), format!("{{{seq}, :current}}")]);
    });
}

#[test]
fn a_watcher_of_a_prefix_is_told_of_keys_that_begin_so() {
    on_each(|mut store| {
        for key in ["{:user, 1}", "{:user, 1.0, :a}", "{:user, 2}", "{:user}", "\"ab\""] {
            store.written(&format!("{{:put, {key}, 1}}"));
        }
        let (reference, seq) = store.begin("initial: true, values: false, prefix: {:user, 1}");
        let mut told = store.told();
        assert_eq!(told.pop(), Some(format!("{{{seq}, :current}}")));
        let mut shown: Vec<_> =
            told.iter().filter_map(|told| told.split_once(", ").map(|(_, shown)| shown)).collect();
        shown.sort_unstable();
        assert_eq!(shown, [":put, {:user, 1.0, :a}}", ":put, {:user, 1}}"]);
        store.written(
            "{:put_many, [{{:user, 1, 2, 3}, 1}, {{:user, 10}, 1}, {[:user, 1], 1}, {{:other, 1}, 1}]}",
        );
        store.written("{:delete_many, [{:user, 1}, \"ab\", {:user, 2}]}");
        store.written(":clear");
        let expected = [(1, ":put, {:user, 1, 2, 3}"), (5, ":delete, {:user, 1}"), (8, ":clear")];
        store.check_told(seq, &expected);
        let unwatch = term_with("{:unwatch, $1}", &[&reference]);
        store.call(&unwatch[..]);
        // Both are wanted where both are said.
        let (_, seq) = store.begin("prefix: \"a\"");
        store.begin("prefix: [1], match: [1, :_]");
        for key in ["\"b\"", "\"a\"", "[1]", "[1, 2]", "\"abc\"", "[1, 2, 3]", "<<97, 1::size(3)>>"] {
            store.written(&format!("{{:put, {key}, 1}}"));
        }
        let mut told = store.told();
        told.sort_by_key(|told| told[1..].split(',').next().and_then(|seq| seq.parse::<u64>().ok()));
        let expected = [(2, "\"a\""), (4, "[1, 2]"), (5, "\"abc\""), (7, "<<97, 1::size(3)>>")];
        let text = |at: u64, key: &str| format!("{{{}, :put, {key}, 1}}", seq + at);
        let behind = |told: &str| told.split_once(", ").map(|(_, told)| told.to_owned());
        if store.cluster.settle.is_some() {
            let behind_numbers: Vec<_> = told.iter().map(|told| behind(told)).collect();
            assert_eq!(behind_numbers, expected.map(|(at, key)| behind(&text(at, key))));
        } else {
            assert_eq!(told, expected.map(|(at, key)| text(at, key)));
        }
        assert_eq!(format!("{:?}", store.watch("prefix: :user")), "{:error, :bad_prefix}");
        let large = binary(&vec![7; PATTERN_BYTES_MAX]);
        let answer = store.ask(term_with("{:watch, [prefix: $1]}", &[&large]));
        assert_eq!(format!("{answer:?}"), format!("{{:error, {{:too_large, {PATTERN_BYTES_MAX}}}}}"));
    });
}

#[test]
fn a_key_whose_time_is_over_is_told_so() {
    on_each(|mut store| {
        let (_, seq) = store.begin("values: false");
        store.written("{:put, :short, 1, ttl: 10}");
        store.written("{:touch, :short, 20}");
        store.pass(30);
        for _ in 0..4 {
            store.wake();
            (store.settle)();
        }
        store.check_told(seq, &[(1, ":put, :short"), (2, ":put, :short"), (3, ":expire, :short")]);
    });
}

#[test]
fn a_node_that_takes_little_gets_all_in_pieces() {
    let mut store = Watched::on(Asker { cluster: cluster(), settle: Box::new(|| {}) });
    store.begin("");
    store.begin("match: {:k, 7}");
    let large = binary(&vec![7; 100_000]);
    for number in 0..50 {
        store.written(&format!("{{:put, {{:k, {number}}}, 1}}"));
    }
    let answer = store.ask(term_with("{:put, {:k, 7}, $1}", &[&large]));
    assert!(answer.view().is_atom("ok"));
    let mut told = Vec::new();
    loop {
        let (some, more) = store.take(200);
        assert!(some.len() < 10);
        told.extend(some);
        if more == More::No {
            break;
        }
    }
    assert_eq!(told.len(), 51 + 2);
    let is_large = |told: &OwnedTerm| told.view().bytes().len() > 100_000;
    assert_eq!(told.iter().filter(|(_, told)| is_large(told)).count(), 2);
}

#[test]
fn a_watch_is_over_with_its_process_and_with_another_ones_word_it_is_not() {
    on_each(|mut store| {
        let (first, _) = store.begin("");
        let pid = store.cluster.store.pid.clone();
        let unwatch = term_with("{:unwatch, $1}", &[&first]);
        let elsewhere = term_with("{:\"$gen_call\", {#PID<0.91.1>, #Reference<0.3.2.1>}, $1}", &[&unwatch]);
        let refused = store.say(&send("kv", elsewhere));
        let told = Asker::answer_in(refused.last().expect("an answer"));
        assert_eq!(format!("{told:?}"), "{:error, :no_watch}");
        for made_up in ["#Reference<0.1.2.3>", "#Reference<0.0.0.0>"] {
            let answer = store.call(format!("{{:unwatch, {made_up}}}"));
            assert_eq!(format!("{:?}", Asker::answer_in(&answer[0])), "{:error, :no_watch}");
        }
        store.written("{:put, :k, 1}");
        assert_eq!(store.told().len(), 1);
        // Its process ends.
        let control = control(op::PAYLOAD_MONITOR_P_EXIT, "#PID<0.90.1>, $1, $2", &[&pid, &first]);
        store.say(&frame(control, ":normal"));
        store.written("{:put, :k, 2}");
        assert!(store.told().is_empty());
        assert!(store.waiters.is_empty(), "and nothing waits for its end");
    });
}

#[test]
fn a_slave_tells_what_its_primary_sends_by_numbers_of_its_own() {
    on_each_engine(|cluster| {
        let mut store = Watched::on(Asker { cluster, settle: Box::new(|| {}) });
        let cast = |store: &mut Watched, casts: &[&str]| {
            for cast in casts {
                let answers = store.say(&send("kv", format!("{{:\"$gen_cast\", {cast}}}")));
                assert!(answers.is_empty(), "{answers:?}");
            }
            store.steps();
        };
        store.written("{:put, :own, 1}");
        store.written("{:put, :k, 1}");
        let (_, before) = store.begin("");
        let (_watch, greeted) = greet(&mut store);
        assert!(greeted.starts_with("{:ok, "), "{greeted}");
        cast(
            &mut store,
            &[
                "{:replica_copy, 1, 7, :begin}",
                "{:replica_put, 1, 7, 40, :k, :first}",
                "{:replica_put, 1, 7, 20, :other, :second}",
                "{:replica_copy, 1, 7, :end}",
            ],
        );
        let told = store.told();
        if store.is_deferred() {
            let [k, other, own] = &told[..] else { panic!("{told:?}") };
            assert!(
                k.ends_with(":put, :k, :first}") && other.ends_with(":put, :other, :second}"),
                "{told:?}"
            );
            assert!(own.ends_with(":delete, :own}"), "{own}");
        } else {
            assert_eq!(told, [":overrun"], "all of it at once");
            // What was seen before is no beginning any more.
            assert_eq!(format!("{:?}", store.watch(&format!("from: {before}"))), "{:error, :too_old}");
        }
        let (_, seq) = store.begin("initial: true, match: :_");
        assert!(seq > before + LEAP / 2, "{seq} is none of its primary's numbers");
        assert_eq!(store.told().len(), 3);
        let (_, seq) = store.begin("initial: true, values: true, match: {:_}");
        assert_eq!(store.told(), [format!("{{{seq}, :current}}")]);
        let (watch, seq) = store.begin("initial: true");
        // Before a page is read.
        cast(&mut store, &["{:replica_put, 1, 8, 50, :k, :third}", "{:replica_delete, 1, 9, :other}"]);
        let (told, _) = store.take(usize::MAX);
        let told: Vec<String> =
            told.into_iter().filter(|(of, _)| *of == watch).map(|(_, told)| format!("{told:?}")).collect();
        let expected = [
            format!("{{{seq}, :current}}"),
            format!("{{{}, :put, :k, :third}}", seq + 1),
            format!("{{{}, :delete, :other}}", seq + 2),
        ];
        assert_eq!(told, expected);
        let (_, after) = store.begin(&format!("match: {{:_}}, from: {}", seq + 1));
        assert_eq!(after, seq + 1);
    });
}

#[test]
fn what_is_no_watch_is_refused() {
    let mut cluster = cluster();
    for (options, expected) in [
        ("form: 1", "{:error, {:unknown_option, :form}}"),
        ("prefix: :k", "{:error, :bad_prefix}"),
        ("from: 1, initial: true", ""),
        ("from: -1", ""),
        ("from: :last", ""),
        ("initial: 1", ""),
        ("values: nil", ""),
        ("match: :\"$1\"", ""),
        (":initial", ""),
    ] {
        let request = format!("{{:watch, [{options}]}}");
        if expected.is_empty() {
            check_is_none(&mut cluster, &request);
        } else {
            assert_eq!(cluster.call(request), [answer(expected)], "{options}");
        }
    }
    check_is_none(&mut cluster, "{:unwatch, :ref}");
    let large = binary(&vec![7; PATTERN_BYTES_MAX]);
    let too_large = format!("{{:error, {{:too_large, {PATTERN_BYTES_MAX}}}}}");
    let asked = cluster.call(term_with("{:watch, [match: $1]}", &[&large]));
    assert_eq!(asked, [answer(too_large.as_str())]);
}
