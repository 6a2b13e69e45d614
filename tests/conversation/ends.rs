//! Keys that end: for every reader at their time, and soon after in the store and at its slaves.

use kvnode::distribution::Outbound;

use crate::cluster::{Cluster, STARTED_MS, on_each_engine};
use crate::conversation::{frames_of, payload_of, send};
use crate::copies::{call, said_in};

#[track_caller]
fn check(cluster: &mut Cluster, request: &str, expected: &str) {
    assert_eq!(call(cluster, request), expected, "{request}");
}

/// A cast of the primary.
fn cast(cluster: &mut Cluster, request: &str) {
    let answers = cluster.say(&send("kv", format!("{{:\"$gen_cast\", {request}}}")));
    assert!(answers.is_empty(), "{answers:?}");
    cluster.steps();
}

#[test]
fn each_reader_finds_nothing_from_the_moment_on_in_which_a_key_ends() {
    on_each_engine(|mut cluster| {
        check(&mut cluster, "{:put, :k, 1, ttl: 100}", ":ok");
        check(&mut cluster, "{:put_many, [{:a, 1}, {:b, [2]}], ttl: 100}", ":ok");
        check(&mut cluster, "{:put, :stays, 1}", ":ok");
        check(&mut cluster, "{:ttl, :k}", "{:ok, 100}");
        check(&mut cluster, "{:ttl, :stays}", "{:ok, :infinity}");
        cluster.pass(99);
        check(&mut cluster, "{:ttl, :k}", "{:ok, 1}");
        check(&mut cluster, "{:get, :k}", "1");
        cluster.pass(1);
        // It is there still, as nobody has looked for it.
        check(&mut cluster, ":count", "4");
        for (request, expected) in [
            ("{:get, :k}", "nil"),
            ("{:fetch, :k}", ":error"),
            ("{:fetch_revision, :k}", ":error"),
            ("{:member, :k}", "false"),
            ("{:ttl, :k}", ":error"),
            ("{:get_many, [:k, :a, :stays]}", "%{stays: 1}"),
            ("{:replace, :k, 2}", "false"),
            ("{:touch, :k, 5}", "false"),
            ("{:persist, :k}", "false"),
            ("{:pop, :k}", "nil"),
            ("{:compare_and_put, :k, {:value, 1}, 2}", "{:error, {:conflict, :absent}}"),
            ("{:compare_and_delete, :k, {:revision, 2}}", "{:error, {:conflict, :absent}}"),
            ("{:update_counter, :k, 5}", "5"),
            ("{:ttl, :k}", "{:ok, :infinity}"),
            ("{:put_new, :a, 7, ttl: 50}", "true"),
            ("{:get_and_put, :b, 7}", "nil"),
        ] {
            check(&mut cluster, request, expected);
        }
        // Each is another key by now, and nothing of what is said of it is done to it.
        cluster.wake();
        check(&mut cluster, "{:get_many, [:k, :a, :b, :stays]}", "%{k: 5, a: 7, b: 7, stays: 1}");
    });
}

#[test]
fn what_a_caller_says_of_the_end_of_a_key_is_the_last_word() {
    on_each_engine(|mut cluster| {
        for (request, expected, left) in [
            ("{:put, :k, 1, ttl: 100}", ":ok", "{:ok, 100}"),
            ("{:put, :k, 1}", ":ok", "{:ok, :infinity}"),
            ("{:touch, :k, 70}", "true", "{:ok, 70}"),
            ("{:update_counter, :k, 1}", "2", "{:ok, 70}"),
            ("{:update_counter, :k, 1, ttl: 30}", "3", "{:ok, 30}"),
            ("{:update_counter, :k, 1, ttl: :infinity}", "4", "{:ok, :infinity}"),
            ("{:replace, :k, 1, ttl: 20}", "true", "{:ok, 20}"),
            ("{:replace, :k, 1}", "true", "{:ok, :infinity}"),
            ("{:get_and_put, :k, 2, ttl: 9}", "1", "{:ok, 9}"),
            ("{:persist, :k}", "true", "{:ok, :infinity}"),
            ("{:compare_and_put, :k, {:value, 2}, 3, ttl: 8}", ":ok", "{:ok, 8}"),
            ("{:put_new, :k, 2, ttl: 1000}", "false", "{:ok, 8}"),
            ("{:put_many, %{k: 1}, ttl: 18446744073709551615}", ":ok", "{:ok, 4611686018426387904}"),
            ("{:touch, :k, 1}", "true", "{:ok, 1}"),
        ] {
            check(&mut cluster, request, expected);
            let left = left.replace("4611686018426387904", &((1_u64 << 62) - STARTED_MS).to_string());
            check(&mut cluster, "{:ttl, :k}", &left);
        }
    });
}

#[test]
fn keys_that_have_ended_are_removed_and_it_is_looked_for_them_while_there_are_any() {
    on_each_engine(|mut cluster| {
        assert_eq!(cluster.wake(), 0);
        for key in 0..1_000 {
            check(&mut cluster, &format!("{{:put, {key}, 1, ttl: {}}}", 1_000 + key), ":ok");
        }
        assert_eq!(cluster.wake(), 1, "one timer");
        check(&mut cluster, ":count", "1000");
        cluster.pass(1_500);
        assert_eq!(cluster.wake(), 1);
        check(&mut cluster, ":count", "499");
        check(&mut cluster, "{:fetch_revision, 600}", "{:ok, 1, 602}");
        check(&mut cluster, "{:fetch_revision, 500}", ":error");
        cluster.pass(1_000);
        cluster.wake();
        check(&mut cluster, ":count", "0");
        // What is listed of them goes, and then the timer.
        cluster.pass(10_000);
        (0..3).for_each(|_| _ = cluster.wake());
        assert_eq!(cluster.wake(), 0);
        check(&mut cluster, "{:put, :k, 1, ttl: 1}", ":ok");
        assert_eq!(cluster.wake(), 1);
        cluster.pass(1);
        cluster.wake();
        check(&mut cluster, ":count", "0");
    });
}

fn greet_at(cluster: &mut Cluster, clock: u64) {
    let hello = format!("{{:replica_hello, 1, {{0, 0, [9], 9}}, 7, {clock}, [], [], false}}");
    let frames = cluster.call(hello);
    assert!(said_in(frames.last().expect("an answer")).starts_with("{:ok, "));
}

/// What was sent by the way, as text.
fn sent(cluster: &Cluster) -> Vec<String> {
    let texts = |frames: &Outbound| -> Vec<String> {
        let text = |frame: &Vec<u8>| {
            let payload = kvnode::etf::TermView::parse(payload_of(frame)).expect("a term");
            format!("{payload:?}")
        };
        frames_of(frames).iter().map(text).collect()
    };
    cluster.sent.0.lock().drain(..).flat_map(|(_, frames)| texts(&frames)).collect()
}

#[test]
fn a_slave_goes_by_its_own_clock_waits_for_its_primary_and_removes_once_it_is_promoted() {
    for clock in [0, STARTED_MS, 10 * STARTED_MS, u64::MAX >> 1] {
        on_each_engine(|mut cluster| {
            // The machines' clocks differ by much.
            greet_at(&mut cluster, clock);
            cast(&mut cluster, "{:replica_copy, 1, 7, :begin}");
            cast(&mut cluster, &format!("{{:replica_put, 1, 7, 40, {}, :k, :first}}", clock + 100));
            cast(&mut cluster, &format!("{{:replica_put, 1, 7, 41, {}, :l, :first}}", clock + 500));
            cast(&mut cluster, "{:replica_put, 1, 7, 42, :m, :first}");
            cast(&mut cluster, "{:replica_copy, 1, 7, :end}");
            check(&mut cluster, "{:ttl, :k}", "{:ok, 100}");
            cluster.pass(100);
            check(&mut cluster, "{:get, :k}", "nil");
            check(&mut cluster, "{:fetch_revision, :l}", "{:ok, :first, 41}");
            cluster.wake();
            check(&mut cluster, ":count", "3");
            cast(&mut cluster, "{:replica_delete, 1, 8, :k}");
            check(&mut cluster, ":count", "2");
            cast(&mut cluster, &format!("{{:replica_put, 1, 9, 50, {}, :m, :second}}", clock + 1_000));
            check(&mut cluster, "{:ttl, :m}", "{:ok, 900}");
            cluster.call("{:promote}");
            sent(&cluster);
            cluster.pass(400);
            cluster.wake();
            check(&mut cluster, ":count", "1");
            check(&mut cluster, "{:get_many, [:k, :l, :m]}", "%{m: :second}");
        });
    }
}

#[test]
fn a_deadline_that_no_clock_has_is_as_good_as_none() {
    on_each_engine(|mut cluster| {
        greet_at(&mut cluster, STARTED_MS);
        cast(&mut cluster, "{:replica_copy, 1, 7, :whole}");
        for deadline in [u64::MAX, 1 << 63, (1 << 63) - 1] {
            cast(&mut cluster, &format!("{{:replica_put, 1, 8, 40, {deadline}, :k, 1}}"));
            check(&mut cluster, "{:get, :k}", "1");
        }
        for deadline in ["-1", "1.0", ":never", "18446744073709551616"] {
            let put = format!("{{:\"$gen_cast\", {{:replica_put, 1, 9, 40, {deadline}, :k, 2}}}}");
            assert!(cluster.say(&send("kv", put)).is_empty());
            check(&mut cluster, "{:get, :k}", "1");
        }
    });
}
