//! The revisions of a slave: they are its primary's, and what comes behind a promotion is above all of them.

use kvnode::store::revision::{LEAP, REVISION_MAX, REVISION_RAISED_MAX};

use crate::cluster::{Cluster, answer, on_each_engine};
use crate::conversation::send;
use crate::copies::{call, greet};

/// Casts of the primary.
pub fn cast(cluster: &mut Cluster, casts: &[&str]) {
    for cast in casts {
        let answers = cluster.say(&send("kv", format!("{{:\"$gen_cast\", {cast}}}")));
        assert!(answers.is_empty(), "{answers:?}");
    }
    cluster.steps();
}

fn check(cluster: &mut Cluster, request: &str, expected: &str) {
    assert_eq!(call(cluster, request), expected, "{request}");
}

/// A slave with two pairs of its primary's, which has counted to 60.
pub fn slave(cluster: &mut Cluster) {
    for request in ["{:put, :own, 1}", "{:put, :k, 1}"] {
        check(cluster, request, ":ok");
    }
    let (_watch, greeted) = greet(cluster);
    assert!(greeted.starts_with("{:ok, "), "{greeted}");
    cast(
        cluster,
        &[
            "{:replica_copy, 1, 7, :begin}",
            "{:replica_put, 1, 7, 40, :k, :first}",
            "{:replica_put, 1, 7, 20, :other, :second}",
            "{:replica_copy, 1, 7, :end}",
        ],
    );
    check(cluster, "{:fetch_revision, :k}", "{:ok, :first, 40}");
    check(cluster, "{:fetch_revision, :other}", "{:ok, :second, 20}");
    check(cluster, "{:fetch_revision, :own}", ":error");
    cast(cluster, &["{:replica_put, 1, 8, 50, :k, :third}", "{:replica_delete, 1, 9, :other}"]);
    check(cluster, "{:fetch_revision, :k}", "{:ok, :third, 50}");
    check(cluster, "{:replica_ask, 1, 9, 60}", "{:ok, 9}");
}

#[test]
fn a_slave_has_the_revisions_of_its_primary_and_leaps_over_all_of_them_when_it_is_promoted() {
    on_each_engine(|mut cluster| {
        slave(&mut cluster);
        // Its primary is told that it is left.
        let answers = cluster.call("{:promote}");
        assert!(answers.iter().any(|frame| *frame == answer(":ok")), "{answers:?}");
        check(&mut cluster, "{:fetch_revision, :k}", "{:ok, :third, 50}");
        check(&mut cluster, "{:put, :other, 1}", ":ok");
        check(&mut cluster, "{:fetch_revision, :other}", &format!("{{:ok, 1, {}}}", LEAP + 61));
        // It is no slave any more, so it is not promoted again.
        check(&mut cluster, "{:promote}", "{:error, :not_a_slave}");
        check(&mut cluster, "{:compare_and_put, :k, {:revision, 50}, 2}", ":ok");
        check(&mut cluster, "{:fetch_revision, :k}", &format!("{{:ok, 2, {}}}", LEAP + 62));
    });
}

#[test]
fn a_store_that_is_removed_from_its_primary_goes_on_behind_what_that_has_counted() {
    on_each_engine(|mut cluster| {
        slave(&mut cluster);
        cast(&mut cluster, &["{:replica_bye, 1}"]);
        check(&mut cluster, "{:put, :k, 1}", ":ok");
        check(&mut cluster, "{:fetch_revision, :k}", "{:ok, 1, 61}");
    });
}

#[test]
fn a_write_of_several_keys_of_the_primary_is_one_of_the_slave() {
    on_each_engine(|mut cluster| {
        slave(&mut cluster);
        check(&mut cluster, ":count", "1");
        cast(&mut cluster, &["{:replica_many, 1, 11, [{52, :k, :fourth}, {53, :l, %{a: 1}}, {:other}]}"]);
        check(&mut cluster, "{:fetch_revision, :k}", "{:ok, :fourth, 52}");
        check(&mut cluster, "{:fetch_revision, :l}", "{:ok, %{a: 1}, 53}");
        check(&mut cluster, "{:replica_ask, 1, 11, 60}", "{:ok, 11}");
        cast(
            &mut cluster,
            &["{:replica_many, 1, 12, [{:k}, {:l}, {61, 4_000_000_000_000, :m, 1}, {62, :m, 2}]}"],
        );
        check(&mut cluster, "{:get_many, [:k, :l, :m]}", "%{m: 2}");
        // What is none changes nothing, and the store goes on.
        for changes in
            ["[{70, :k, 1}, :x]", "[{70, :k, 1} | :x]", ":x", "[{-1, :k, 1}]", "[{}]", "[{0, :k, 1}]"]
        {
            cast(&mut cluster, &[&format!("{{:replica_many, 1, 13, {changes}}}")]);
        }
        cast(
            &mut cluster,
            &["{:replica_many, 2, 13, [{70, :k, 1}, {71, :l, 1}]}", "{:replica_many, 1, 13, []}"],
        );
        check(&mut cluster, ":count", "1");
        check(&mut cluster, "{:replica_ask, 1, 13, 60}", "{:ok, 13}");
        // Into a copy too.
        cast(
            &mut cluster,
            &[
                "{:replica_copy, 1, 14, :begin}",
                "{:replica_many, 1, 15, [{70, :k, 1}, {:l}, {71, :n, 2}]}",
                "{:replica_copy, 1, 15, :end}",
            ],
        );
        check(&mut cluster, "{:get_many, [:k, :l, :m, :n]}", "%{k: 1, n: 2}");
        check(&mut cluster, "{:replica_ask, 1, 15, 71}", "{:ok, 15}");
    });
}

#[test]
fn a_slave_deletes_all_keys_at_once_as_its_primary_has() {
    on_each_engine(|mut cluster| {
        slave(&mut cluster);
        let ask = |cluster: &mut Cluster, request: &str| call(cluster, request);
        cast(
            &mut cluster,
            &[
                "{:replica_put, 1, 10, 60, :before, 1}",
                "{:replica_clear, 1, 11}",
                "{:replica_put, 1, 12, 62, :behind, 2}",
            ],
        );
        assert_eq!(ask(&mut cluster, "{:get_many, [:k, :before, :behind]}"), "%{behind: 2}");
        check(&mut cluster, ":count", "1");
        check(&mut cluster, "{:fetch_revision, :behind}", "{:ok, 2, 62}");
        check(&mut cluster, "{:replica_ask, 1, 12, 62}", "{:ok, 12}");
        // Of another session, and what is none.
        cast(&mut cluster, &["{:replica_clear, 2, 13}", "{:replica_clear, 1}", "{:replica_clear, 1, :now}"]);
        check(&mut cluster, ":count", "1");
        // No primary sends it within a copy: it is told that this slave has not all of it.
        cast(
            &mut cluster,
            &["{:replica_copy, 1, 13, :begin}", "{:replica_clear, 1, 13}", "{:replica_copy, 1, 13, :end}"],
        );
        check(&mut cluster, "{:replica_ask, 1, 13, 62}", "{:error, :io}");
        check(&mut cluster, "{:fetch, :behind}", "{:ok, 2}");
    });
}

#[test]
fn what_an_elixir_server_sends_is_numbered_by_its_slave() {
    on_each_engine(|mut cluster| {
        cast(&mut cluster, &["{:replicate_put, 1, :a}", "{:replicate_put, 2, :b}", "{:replicate_delete, 1}"]);
        check(&mut cluster, "{:fetch_revision, 2}", "{:ok, :b, 3}");
        cast(&mut cluster, &["{:replicate_put, 1, :a}"]);
        check(&mut cluster, "{:fetch_revision, 1}", "{:ok, :a, 5}");
    });
}

#[test]
fn what_is_no_revision_is_not_taken_and_none_takes_all_that_come() {
    on_each_engine(|mut cluster| {
        slave(&mut cluster);
        let put = format!("{{:replica_put, 1, 10, {}, :k, :never}}", REVISION_MAX + 1);
        cast(
            &mut cluster,
            &[&put, "{:replica_put, 1, 10, 0, :k, :never}", "{:replica_put, 1, 10, :k, :never}"],
        );
        check(&mut cluster, "{:fetch_revision, :k}", "{:ok, :third, 50}");
        // Of another session.
        check(&mut cluster, "{:replica_ask, 2, 9, 1000}", "{:error, :other_session}");
        check(&mut cluster, "{:replica_ask, 1, 9, 0}", "{:ok, 9}");
        cast(&mut cluster, &[&format!("{{:replica_put, 1, 10, {REVISION_MAX}, :k, :far}}")]);
        check(&mut cluster, "{:fetch_revision, :k}", &format!("{{:ok, :far, {REVISION_MAX}}}"));
        check(&mut cluster, &format!("{{:replica_ask, 1, 10, {}}}", u64::MAX), "{:ok, 10}");
        cast(&mut cluster, &["{:replica_bye, 1}"]);
        for more in 1..3 {
            check(&mut cluster, "{:put, :k, 1}", ":ok");
            check(
                &mut cluster,
                "{:fetch_revision, :k}",
                &format!("{{:ok, 1, {}}}", REVISION_RAISED_MAX + more),
            );
        }
    });
}
