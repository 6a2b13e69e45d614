//! What a store counts: keys that end, and requests that are not done, each by its reason and once.

use std::sync::Arc;

use kvnode::distribution::DistributionFlags;
use kvnode::etf::text::{InspectLimits, inspect};
use kvnode::etf::{TermView, encode};
use kvnode::store::{MemoryStore, Room};

use crate::cluster::{Cluster, cluster_on, cluster_with, on_each_engine};
use crate::conversation::{payload_of, send};
use crate::copies::call;
use crate::deferred::{Deferred, Manner};
use crate::revisions::{cast, slave};
use crate::term::term_with;

/// What `:status` says of a figure.
#[track_caller]
fn figure(cluster: &mut Cluster, name: &str) -> String {
    let answers = cluster.call(":status");
    let answer = TermView::parse(payload_of(answers.last().expect("an answer"))).expect("a term");
    let status = inspect(answer, InspectLimits { text_bytes_max: usize::MAX });
    let (_, behind) = status.split_once(&format!("{name}: ")).expect("it is there");
    let ends = if behind.starts_with('%') { "}" } else { "," };
    let (figure, _) = behind.split_once(ends).expect("others follow");
    figure.to_owned()
}

#[test]
fn each_request_that_is_not_done_is_counted_by_its_reason() {
    on_each_engine(|mut cluster| {
        assert_eq!(figure(&mut cluster, "not_done"), "%{");
        for (request, expected) in [
            ("{:put, :n, 1}", ":ok"),
            ("{:put, :text, \"a\"}", ":ok"),
            ("{:put_new, :n, 2, bad: 1}", "{:error, {:unknown_option, :bad}}"),
            ("{:put, :n, 2, bad: 1}", "{:error, {:unknown_option, :bad}}"),
            ("{:scan, [nope: 1]}", "{:error, {:unknown_option, :nope}}"),
            ("{:watch, [nope: 1]}", "{:error, {:unknown_option, :nope}}"),
            ("{:watch, [from: 9_000]}", "{:error, :too_old}"),
            ("{:update_counter, :text, 1}", "{:error, :not_an_integer}"),
            ("{:update_counter, :n, :one}", "{:error, :not_an_integer}"),
            ("{:unwatch, #Reference<0.3.2.1>}", "{:error, :no_watch}"),
            ("{:compare_and_put, :n, {:value, 5}, 6}", "{:error, {:conflict, {:value, 1, 2}}}"),
            ("{:compare_and_delete, :gone, {:revision, 5}}", "{:error, {:conflict, :absent}}"),
            ("{:compare_and_put, :n, {:value, 1}, 1}", ":ok"),
            ("{:transact, [{:absent, :n}], [{:put, :n, 2}]}", "{:error, {:failed, {:absent, :n}}}"),
            ("{:transact, [{:present, :n}], []}", "{:ok, []}"),
            ("{:transact, [], [{:add, :text, 1}]}", "{:error, :not_an_integer}"),
            ("{:add_slave, :kv}", "{:error, :itself}"),
            ("{:remove_slave, :nobody}", "{:error, :no_slave}"),
            // What looks like a refusal, and is a value.
            ("{:put, :e, {:error, :no_space}}", ":ok"),
            ("{:get, :e}", "{:error, :no_space}"),
        ] {
            assert_eq!(call(&mut cluster, request), expected, "{request}");
        }
        // Calls that end.
        cluster.call("{:no_such, 1}");
        let twice = encode(|w| _ = w.map(2).integer(1).nil().integer(1).nil());
        cluster.call(term_with("{:put, $1, 1}", &[&twice]));
        // A caller that is no pid is not answered, and counted.
        for from in ["{#Reference<0.3.2.1>, [:alias | #Reference<0.3.2.1>]}", "{:name, 1}", "nil"] {
            let call = format!("{{:\"$gen_call\", {from}, {{:get, :n}}}}");
            assert!(cluster.say(&send("kv", call)).is_empty(), "{from}");
        }
        let counted = "bad_call: 4, badarg: 1, unknown_option: 4, not_an_integer: 3, too_old: 1, no_watch: 1, \
                       no_slave: 1, itself: 1, conflict: 2, guard_failed: 1";
        assert_eq!(figure(&mut cluster, "not_done"), format!("%{{{counted}"));
    });
}

#[test]
fn keys_with_a_deadline_are_counted_and_those_that_are_removed() {
    on_each_engine(|mut cluster| {
        for (request, deadlines) in [
            ("{:put, 1, 1, ttl: 100}", "1"),
            ("{:put, 1, 2, ttl: 200}", "1"),
            ("{:put_many, [{2, 1}, {3, 1}, {4, 1}], ttl: 5_000}", "4"),
            ("{:put, 2, 1}", "3"),
            ("{:delete, 3}", "2"),
            ("{:persist, 4}", "1"),
            ("{:update_counter, 1, 1}", "1"),
            (":clear", "0"),
            ("{:put, 1, 1, ttl: 200}", "1"),
            ("{:transact, [], [{:put, 5, 1}], ttl: 100}", "2"),
        ] {
            call(&mut cluster, request);
            assert_eq!(figure(&mut cluster, "deadlines"), deadlines, "{request}");
        }
        assert_eq!(figure(&mut cluster, "expired"), "0");
        cluster.pass(100);
        cluster.wake();
        assert_eq!(
            (figure(&mut cluster, "deadlines"), figure(&mut cluster, "expired")),
            ("1".into(), "1".into())
        );
        cluster.pass(100);
        cluster.wake();
        assert_eq!(
            (figure(&mut cluster, "deadlines"), figure(&mut cluster, "expired")),
            ("0".into(), "2".into())
        );
    });
}

/// Three writes of the primary to a slave which has none of them, two of these of several keys.
fn check_failures(mut cluster: Cluster, begin: impl FnOnce(), end: impl FnOnce()) {
    slave(&mut cluster);
    begin();
    let large = "x".repeat(2_000);
    for write in [
        format!("{{:replica_put, 1, 8, 51, :a, \"{large}\"}}"),
        format!("{{:replica_many, 1, 9, [{{52, :b, 1}}, {{53, :c, \"{large}\"}}]}}"),
        format!("{{:replica_many, 1, 10, [{{54, :d, \"{large}\"}}, {{:k}}]}}"),
    ] {
        cast(&mut cluster, &[&write]);
    }
    end();
    assert_eq!(call(&mut cluster, ":count"), "1");
    let counted = figure(&mut cluster, "not_done");
    let counts = counted.trim_start_matches("%{").split(", ").filter_map(|count| count.split_once(": "));
    let counts: Vec<(&str, u64)> =
        counts.map(|(reason, count)| (reason, count.parse().expect("a number"))).collect();
    assert!(counts.iter().all(|(reason, _)| ["no_space", "io"].contains(reason)), "{counted}");
    assert_eq!(counts.iter().map(|(_, count)| count).sum::<u64>(), 3, "{counted}");
}

#[test]
fn each_write_of_the_primary_that_fails_is_counted_once() {
    let full = MemoryStore::within(Arc::new(Room::new(1_000)));
    check_failures(cluster_with(full, DistributionFlags::OFFERED), || {}, || {});
    for seed in 0..4 {
        let failing = Deferred::new(Manner { fails_one_in: 1, ..Manner::wild(seed) });
        failing.let_fail(false);
        let cluster = cluster_on(failing.clone());
        check_failures(cluster, || failing.let_fail(true), || failing.let_fail(false));
    }
}
