//! The requests that decide by what is there, and those of several keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use kvnode::distribution::control::op;
use kvnode::distribution::{DistributionFlags, Room};
use kvnode::etf::TermView;
use kvnode::store::MemoryStore;

use crate::cluster::{Cluster, answer, cluster, cluster_on, cluster_with, now, on_each_engine};
use crate::conversation::{caller, control, frame, monitor, monitor_exit, payload_of, reference};
use crate::deferred::{Deferred, Manner};
use crate::store::{find, numbers};
use crate::term::{PEER, Term, binary, term, term_with};

#[track_caller]
pub fn check(cluster: &mut Cluster, request: impl Term, expected: impl Term) {
    let request = request.encoded();
    let shown = TermView::parse(&request).expect("a term");
    assert_eq!(cluster.call(request.clone()), [answer(expected)], "{shown:?}");
}

/// The call ends, with a reason that names the request.
#[track_caller]
pub fn check_is_none(cluster: &mut Cluster, request: &str) {
    assert!(cluster.say(&monitor(":kv", 1)).is_empty());
    let told = monitor_exit(":kv", 1, term_with("{:bad_call, $1}", &[&request]));
    assert_eq!(cluster.call(request), [told], "{request}");
}

#[test]
fn each_request_is_answered_as_the_page_says() {
    on_each_engine(|mut cluster| {
        for (request, expected) in [
            ("{:fetch, :k}", ":error"),
            ("{:member, :k}", "false"),
            (":count", "0"),
            ("{:get_many, [:k, 1]}", "%{}"),
            ("{:get_many, []}", "%{}"),
            ("{:replace, :k, 1}", "false"),
            ("{:pop, :k}", "nil"),
            ("{:put_new, :k, nil}", "true"),
            ("{:put_new, :k, 1}", "false"),
            ("{:fetch, :k}", "{:ok, nil}"),
            ("{:member, :k}", "true"),
            ("{:replace, :k, %{a: 1}}", "true"),
            ("{:get_and_put, :k, 2}", "%{a: 1}"),
            ("{:get_and_put, :new, [1, 2]}", "nil"),
            (":count", "2"),
            ("{:update_counter, :k, 3}", "5"),
            ("{:update_counter, :k, -6}", "-1"),
            ("{:update_counter, :n, 7}", "7"),
            ("{:update_counter, :i, 7, 100}", "107"),
            ("{:update_counter, :i, 7, 100}", "114"),
            ("{:update_counter, :i, 1180591620717411303424}", "1180591620717411303538"),
            ("{:fetch, :i}", "{:ok, 1180591620717411303538}"),
            ("{:update_counter, :i, -1180591620717411303538}", "0"),
            ("{:update_counter, :new, 1}", "{:error, :not_an_integer}"),
            ("{:update_counter, :i, 1.0}", "{:error, :not_an_integer}"),
            ("{:update_counter, :i, 1, :one}", "{:error, :not_an_integer}"),
            ("{:get, :i}", "0"),
            ("{:put_many, %{1 => :a, 1.0 => :b}}", ":ok"),
            ("{:put_many, [{1, :c}, {2, :d}, {1, :e}]}", ":ok"),
            ("{:put_many, []}", ":ok"),
            ("{:put_many, %{}}", ":ok"),
            // A list of small integers travels as a string.
            ("{:get_many, [2, 1, 7, 1]}", "%{2 => :d, 1 => :e}"),
            ("{:get_many, [1, 1.0, :new]}", "%{1 => :e, 1.0 => :b, new: [1, 2]}"),
            ("{:delete_many, [1, 2, 3]}", ":ok"),
            ("{:delete_many, []}", ":ok"),
            ("{:get_many, [1, 1.0, 2]}", "%{1.0 => :b}"),
            ("{:pop, 1.0}", ":b"),
            ("{:fetch, 1.0}", ":error"),
            ("{:update_counter, :i, 1, confirm: 0}", "1"),
            ("{:put_new, :o, 1, []}", "true"),
            (":clear", ":ok"),
            (":count", "0"),
            ("{:get_many, [:o, :i, :new]}", "%{}"),
            (":clear", ":ok"),
            ("{:put, :o, 1}", ":ok"),
            ("{:clear, confirm: 0}", ":ok"),
            ("{:fetch, :o}", ":error"),
            ("{:clear, []}", ":ok"),
        ] {
            check(&mut cluster, request, expected);
        }
    });
}

#[test]
fn a_key_is_compared_by_its_value_or_by_the_write_that_it_is_of() {
    on_each_engine(|mut cluster| {
        for (request, expected) in [
            ("{:fetch_revision, :k}", ":error"),
            ("{:compare_and_put, :k, {:value, nil}, 1}", "{:error, {:conflict, :absent}}"),
            ("{:compare_and_put, :k, {:revision, 1}, 1}", "{:error, {:conflict, :absent}}"),
            ("{:compare_and_delete, :k, {:revision, 1}}", "{:error, {:conflict, :absent}}"),
            ("{:compare_and_delete, :k, :absent}", ":ok"),
            ("{:compare_and_put, :k, :absent, %{a: 1, b: 2}}", ":ok"),
            ("{:fetch_revision, :k}", "{:ok, %{a: 1, b: 2}, 2}"),
            ("{:compare_and_put, :k, :absent, 1}", "{:error, {:conflict, {:value, %{a: 1, b: 2}, 2}}}"),
            (
                "{:compare_and_put, :k, {:value, %{a: 1}}, 1}",
                "{:error, {:conflict, {:value, %{a: 1, b: 2}, 2}}}",
            ),
            ("{:compare_and_put, :k, {:value, %{b: 2, a: 1}}, 1}", ":ok"),
            ("{:compare_and_put, :k, {:value, 1.0}, 2}", "{:error, {:conflict, {:value, 1, 3}}}"),
            ("{:compare_and_put, :k, {:revision, 2}, 2}", "{:error, {:conflict, {:value, 1, 3}}}"),
            ("{:compare_and_put, :k, {:revision, -3}, 2}", "{:error, {:conflict, {:value, 1, 3}}}"),
            (
                "{:compare_and_put, :k, {:revision, 1180591620717411303424}, 2}",
                "{:error, {:conflict, {:value, 1, 3}}}",
            ),
            ("{:compare_and_put, :k, {:revision, 3}, 2, confirm: 0}", ":ok"),
            // A write of another key is one more, and a put of the same value too.
            ("{:put, :other, 1}", ":ok"),
            ("{:put, :k, 2}", ":ok"),
            ("{:fetch_revision, :k}", "{:ok, 2, 6}"),
            ("{:put_many, [{:a, 1}, {:b, 2}]}", ":ok"),
            ("{:fetch_revision, :a}", "{:ok, 1, 7}"),
            ("{:fetch_revision, :b}", "{:ok, 2, 7}"),
            ("{:compare_and_delete, :k, {:value, 3}}", "{:error, {:conflict, {:value, 2, 6}}}"),
            ("{:compare_and_delete, :k, {:revision, 6}}", ":ok"),
            // What was deleted and is put again is not what it was.
            ("{:put, :k, 2}", ":ok"),
            ("{:fetch_revision, :k}", "{:ok, 2, 10}"),
            ("{:update_counter, :k, 1}", "3"),
            ("{:compare_and_delete, :k, {:value, 3}}", ":ok"),
            ("{:delete, :k}", ":ok"),
            ("{:put, :k, 2}", ":ok"),
            ("{:fetch_revision, :k}", "{:ok, 2, 14}"),
        ] {
            check(&mut cluster, request, expected);
        }
    });
}

#[test]
fn an_option_that_there_is_not_is_refused_by_name_and_nothing_is_written() {
    on_each_engine(|mut cluster| {
        check(&mut cluster, "{:put, :k, 1}", ":ok");
        for request in [
            "{:put, :k, 2, sync: 1}",
            "{:delete, :k, sync: 1}",
            "{:put_new, :new, 2, sync: 1}",
            "{:replace, :k, 2, confirm: 0, sync: 1}",
            "{:pop, :k, sync: 1}",
            "{:get_and_put, :k, 2, sync: 1}",
            "{:update_counter, :k, 2, sync: 1}",
            "{:update_counter, :k, 2, 5, sync: 1}",
            "{:put_many, [{:k, 2}], sync: 1}",
            "{:delete_many, [:k], sync: 1}",
            "{:clear, confirm: 0, sync: 1}",
            "{:clear, ttl: 1}",
            "{:compare_and_put, :k, {:value, 1}, 2, sync: 1}",
            "{:compare_and_delete, :k, {:value, 1}, sync: 1}",
            "{:promote, report: true, sync: 1}",
        ] {
            let option = if request.contains("sync") { "sync" } else { "ttl" };
            check(&mut cluster, request, format!("{{:error, {{:unknown_option, :{option}}}}}"));
        }
        check(&mut cluster, "{:get_many, [:k, :new]}", "%{k: 1}");
    });
}

#[test]
fn a_read_says_how_new_it_is_to_be_and_a_primary_misses_nothing_anyway() {
    on_each_engine(|mut cluster| {
        check(&mut cluster, "{:put, :k, 1}", ":ok");
        for (begin, expected) in [
            ("{:get, :k", "1"),
            ("{:get, :none", "nil"),
            ("{:fetch, :k", "{:ok, 1}"),
            ("{:fetch, :none", ":error"),
            ("{:fetch_revision, :k", "{:ok, 1, 2}"),
            ("{:member, :k", "true"),
            ("{:ttl, :k", "{:ok, :infinity}"),
            ("{:get_many, [:k, :none]", "%{k: 1}"),
            ("{:count", "1"),
        ] {
            let end = |options: &str| format!("{begin}, {options}}}");
            for options in ["consistency: :linearizable", "consistency: :session", "[]"] {
                check(&mut cluster, end(options), expected);
            }
            // The first counts, as in `Keyword.get/2`.
            check(&mut cluster, end("consistency: :session, consistency: :linearizable"), expected);
            let unknown = end("consistency: :linearizable, colour: :red");
            check(&mut cluster, unknown, "{:error, {:unknown_option, :colour}}");
        }
        for request in ["{:get, :k, confirm: 1}", "{:count, confirm: 1}", "{:member, :k, confirm: 1}"] {
            check(&mut cluster, request, "{:error, {:unknown_option, :confirm}}");
        }
        check(&mut cluster, "{:watch, consistency: :session}", "{:error, {:unknown_option, :consistency}}");
    });
}

#[test]
fn a_consistency_that_there_is_not_is_no_request() {
    let mut cluster = cluster();
    for known in ["linearizable", "session"] {
        check(&mut cluster, format!("{{:scan, consistency: :{known}}}"), "{[], :done}");
    }
    for request in [
        "{:get, :k, consistency: :strong}",
        "{:get, :k, consistency: \"linearizable\"}",
        "{:get, :k, :linearizable}",
        "{:get, :k, [:linearizable]}",
        "{:get, :k, 1, consistency: :session}",
        "{:fetch, :k, consistency: nil}",
        "{:fetch_revision, :k, consistency: true}",
        "{:member, :k, consistency: 1}",
        "{:ttl, :k, consistency: []}",
        "{:get_many, :k, consistency: :session}",
        "{:get_many, [:k], consistency: :stale}",
        "{:count, consistency: :stale}",
        "{:count, 1}",
        "{:scan, consistency: :stale}",
    ] {
        check_is_none(&mut cluster, request);
    }
}

#[test]
fn what_has_another_shape_is_no_request() {
    let mut cluster = cluster();
    check(&mut cluster, "{:put, 1, 1}", ":ok");
    for request in [
        "{:get_many, 1}",
        "{:get_many, %{}}",
        "{:get_many, [1 | 2]}",
        "{:put_many, [1]}",
        "{:put_many, [1, 2, 3]}",
        "{:put_many, [{1, 2}, {1}]}",
        "{:put_many, [{1, 2, 3}]}",
        "{:put_many, {1, 2}}",
        "{:put_many, [{1, 2} | {3, 4}]}",
        "{:delete_many, %{1 => 2}}",
        "{:clear, 1}",
        "{:clear}",
        "{:clear, 1, confirm: 1}",
        "{:clear, [:confirm]}",
        "{:delete_many, [1 | 1]}",
        "{:pop, 1, 2}",
        "{:update_counter, 1, 2, 3, 4}",
        "{:put_new, 1, 2, [:confirm]}",
        "{:compare_and_put, 1, {:value, 1}}",
        "{:compare_and_put, 1, 1, 2}",
        "{:compare_and_put, 1, :present, 2}",
        "{:compare_and_put, 1, {:revision, 2.0}, 2}",
        "{:compare_and_delete, 1}",
        "{:compare_and_delete, 1, {:value, 1, 2}}",
    ] {
        check_is_none(&mut cluster, request);
    }
    check(&mut cluster, "{:get_many, [1, 2, 3]}", "%{1 => 1}");
}

#[test]
fn what_a_caller_cannot_decode_ends_its_call_and_stays_where_it_is() {
    let old = DistributionFlags::OFFERED.difference(DistributionFlags::V4_NC);
    let alias = "#Reference<0.5.4.3.2.1>";
    for request in [
        "{:fetch, 1}",
        "{:fetch_revision, 1}",
        "{:pop, 1}",
        "{:get_and_put, 1, 2}",
        "{:get_many, [2, 1]}",
        "{:compare_and_put, 1, :absent, 2}",
        "{:compare_and_delete, 1, {:revision, 1}}",
    ] {
        let mut cluster = cluster_with(MemoryStore::default(), old);
        check(&mut cluster, format!("{{:put_many, [{{1, {alias}}}, {{2, 2}}]}}"), ":ok");
        cluster.say(&monitor(":kv", 1));
        let answers = cluster.call(request);
        assert!(answers[0].starts_with(&[131, 104, 4, 97, 28]), "a MONITOR_P_EXIT: {answers:?}");
        check(&mut cluster, "{:member, 1}", "true");
        check(&mut cluster, "{:get_many, [2, 3]}", "%{2 => 2}");

        // The same of a store that answers later, whose answers are fetched by hand: one is none.
        let store = Deferred::new(Manner::wild(1));
        let cluster = cluster_with(store.clone(), old);
        let mut cluster = Cluster { deferred: Some(store.clone()), ..cluster };
        check(&mut cluster, format!("{{:put_many, [{{1, {alias}}}, {{2, 2}}]}}"), ":ok");
        cluster.deferred = None;
        assert!(cluster.call(request).is_empty(), "{request}");
        while store.step() {}
        assert!(cluster.sent.0.lock().is_empty(), "nothing is sent that costs the connection");
        let ended = cluster.sent.3.lock().pop().expect("the call ends");
        let reason = format!("{:?}", TermView::parse(&ended.reason).expect("a term"));
        assert_eq!(reason, "{:system_limit, \"this OTP version cannot decode the value\"}");
        cluster.deferred = Some(store);
        check(&mut cluster, "{:member, 1}", "true");
    }
}

#[test]
fn what_has_no_room_is_asked_again_and_changes_nothing_before() {
    for request in [
        "{:fetch, 1}",
        "{:fetch_revision, 1}",
        "{:pop, 1}",
        "{:get_and_put, 1, 2}",
        "{:get_many, [1, 2]}",
        "{:compare_and_put, 1, :absent, 2}",
    ] {
        let mut cluster = cluster();
        let large = binary(&vec![7; 100 << 10]);
        check(&mut cluster, term_with("{:put, 1, $1}", &[&large]), ":ok");
        cluster.room = Room { large: false, ..Room::FREE };
        assert!(cluster.call(request).is_empty(), "{request} waits");
        // Others go on, and find what is there.
        for (number, request, expected) in [(5, "{:member, 1}", "true"), (6, "{:update_counter, 3, 1}", "1")]
        {
            let tag = reference(number);
            let call = term_with(&format!("{{:\"$gen_call\", {{#PID<0.91.1>, $1}}, {request}}}"), &[&tag]);
            let answers = cluster.say(&frame(control(op::REG_SEND, "#PID<0.91.1>, :\"\", :kv", &[]), call));
            let [answer] = &answers[..] else { panic!("{request}: {answers:?}") };
            assert_eq!(payload_of(answer), term_with(&format!("{{$1, {expected}}}"), &[&tag]), "{request}");
        }
        cluster.room = Room::FREE;
        let answers = cluster.go_on();
        assert_eq!(answers.len(), 1, "{request}");
        assert!(payload_of(&answers[0]).len() > 100 << 10, "{request}");
    }
}

#[test]
fn a_batch_that_has_no_room_changes_nothing() {
    let room = Arc::new(kvnode::store::Room::new(400));
    let mut cluster = cluster_with(MemoryStore::within(room), DistributionFlags::OFFERED);
    check(&mut cluster, "{:put_many, [{1, 1}, {2, 2}]}", ":ok");
    let large = "x".repeat(200);
    check(
        &mut cluster,
        format!("{{:put_many, [{{1, 5}}, {{3, 5}}, {{2, \"{large}\"}}, {{4, \"{large}\"}}]}}"),
        "{:error, :no_space}",
    );
    check(&mut cluster, format!("{{:put_new, 3, \"{large}{large}\"}}"), "{:error, :no_space}");
    check(&mut cluster, format!("{{:get_and_put, 1, \"{large}{large}\"}}"), "{:error, :no_space}");
    check(&mut cluster, "{:get_many, [1, 2, 3, 4]}", "%{1 => 1, 2 => 2}");
    check(&mut cluster, "{:pop, 1}", "1");
}

#[test]
fn more_than_the_bounds_is_refused_with_the_bound() {
    use kvnode::kv::requests::{BYTES_MAX, INTEGER_BYTES_MAX, KEYS_MAX};
    let mut cluster = cluster();
    let too_many = format!("{{:error, {{:too_many, {KEYS_MAX}}}}}");
    let list = |len: usize, element: &str| format!("[{}]", vec![element; len].join(", "));
    for (name, element) in
        [("get_many", ":k"), ("delete_many", ":k"), ("put_many", "{:k, 1}"), ("get_many", "1")]
    {
        check(&mut cluster, format!("{{:{name}, {}}}", list(KEYS_MAX + 1, element)), too_many.as_str());
    }
    check(&mut cluster, ":count", "0");
    check(&mut cluster, format!("{{:put_many, {}}}", list(KEYS_MAX, "{:k, 1}")), ":ok");
    check(&mut cluster, format!("{{:get_many, {}}}", list(KEYS_MAX, ":k")), "%{k: 1}");
    let integer = binary(&vec![255; INTEGER_BYTES_MAX + 1]);
    // BINARY_EXT, as a LARGE_BIG_EXT of the same bytes.
    let integer = [&[111][..], &integer[1..5], &[0], &integer[5..]].concat();
    let too_large = format!("{{:error, {{:too_large, {INTEGER_BYTES_MAX}}}}}");
    check(&mut cluster, term_with("{:update_counter, :n, $1}", &[&integer]), too_large.as_str());
    check(&mut cluster, term_with("{:update_counter, :n, 1, $1}", &[&integer]), too_large.as_str());
    check(&mut cluster, term_with("{:put, :n, $1}", &[&integer]), ":ok");
    check(&mut cluster, "{:update_counter, :n, -1}", too_large.as_str());
    let half = binary(&vec![7; BYTES_MAX / 2]);
    check(&mut cluster, term_with("{:put, 1, $1}", &[&half]), ":ok");
    check(&mut cluster, term_with("{:put, 2, $1}", &[&half]), ":ok");
    let too_large = format!("{{:error, {{:too_large, {BYTES_MAX}}}}}");
    check(&mut cluster, "{:get_many, [1, 2]}", too_large.as_str());
    check(&mut cluster, term_with("{:put_many, [{3, $1}, {4, $1}]}", &[&half]), too_large.as_str());
    check(&mut cluster, "{:member, 3}", "false");
}

/// A request of a seed, of six keys.
fn request(below: &mut dyn FnMut(u64) -> u64) -> String {
    let (key, value) = (below(6), below(9));
    let other = below(6);
    match below(12) {
        11 => format!(
            "{{:transact, [{{:equal, {key}, {value}}}], [{{:put, {key}, {other}}}, {{:delete, {other}}}, {{:add, {key}, 1}}]}}"
        ),
        9 => format!("{{:compare_and_put, {key}, {{:value, {value}}}, {other}}}"),
        10 => format!("{{:compare_and_delete, {key}, {{:value, {value}}}}}"),
        0 => format!("{{:put_new, {key}, {value}}}"),
        1 => format!("{{:replace, {key}, {value}}}"),
        2 => format!("{{:pop, {key}}}"),
        3 => format!("{{:get_and_put, {key}, {value}}}"),
        4 => format!("{{:update_counter, {key}, {value}}}"),
        5 => format!("{{:put_many, [{{{key}, {value}}}, {{{other}, {value}}}]}}"),
        6 => format!("{{:delete_many, [{key}, {other}]}}"),
        7 => format!("{{:delete, {key}}}"),
        _ => format!("{{:put, {key}, {value}}}"),
    }
}

/// What a slave is told of, in its order: the key, and its value unless that is deleted.
fn replicated(slave: &kvnode::kv::SlaveEntry) -> Vec<(u64, Option<u64>)> {
    let mut writes = Vec::new();
    slave.machine().take(
        PEER,
        now(),
        |_| true,
        |_, message| {
            writes.push(crate::store::write_of(message));
            true
        },
    );
    writes
}

/// A cluster with a slave, an Elixir server, that has all but for what is written from now on.
fn with_slave(mut cluster: Cluster) -> (Cluster, Arc<kvnode::kv::SlaveEntry>) {
    cluster.call("{:add_slave, {:global, :s}}");
    let follow = cluster.sent.2.lock().pop().expect("it is to be followed");
    // Its keys are not read, so that nothing is repaired.
    find(&follow, &caller());
    (cluster, Arc::clone(&follow.slave))
}

#[test]
fn a_slave_gets_what_requests_come_to_and_nothing_of_what_stays() {
    let engines = (0..100).map(|seed| {
        let manner = Manner { fails_one_in: if seed % 3 == 0 { 10 } else { 0 }, ..Manner::wild(seed) };
        cluster_on(Deferred::new(manner))
    });
    for (seed, engine) in engines.chain((0..20).map(|_| cluster())).enumerate() {
        let (mut cluster, slave) = with_slave(engine);
        let mut below = numbers(seed as u64);
        for _ in 0..60 {
            let request = request(&mut below);
            assert_eq!(cluster.call(request.as_str()).len(), 1, "{request}");
        }
        let mut data = BTreeMap::new();
        for (key, value) in replicated(&slave) {
            match value {
                Some(value) => _ = data.insert(key, value),
                None => _ = data.remove(&key),
            }
        }
        // Reads fail too where writes do.
        let keep_failing = cluster.deferred.as_ref();
        keep_failing.inspect(|store| store.let_fail(false));
        let pairs: Vec<String> = data.iter().map(|(key, value)| format!("{key} => {value}")).collect();
        check(&mut cluster, "{:get_many, [0, 1, 2, 3, 4, 5]}", format!("%{{{}}}", pairs.join(", ")));
        for request in ["{:put, 0, 1}", "{:delete_many, [1, 2, 3, 4, 5]}"] {
            check(&mut cluster, request, ":ok");
        }
        replicated(&slave);
        for request in [
            "{:put_new, 0, 2}",
            "{:replace, 1, 2}",
            "{:pop, 1}",
            "{:update_counter, 0, :x}",
            "{:put_many, []}",
            "{:compare_and_put, 0, :absent, 2}",
            "{:compare_and_delete, 0, {:value, 7}}",
            "{:compare_and_delete, 1, :absent}",
            "{:transact, [{:present, 0}, {:absent, 0}], [{:put, 0, 1}]}",
            "{:transact, [], [{:put, 0, 1}, {:add, 0, :x}]}",
            "{:transact, [{:present, 0}], []}",
        ] {
            cluster.call(request);
        }
        assert_eq!(replicated(&slave), [], "nothing has changed");
        for request in ["{:pop, 0}", "{:put_many, [{1, 1}, {2, 2}]}", "{:update_counter, 1, 4}"] {
            cluster.call(request);
        }
        assert_eq!(replicated(&slave), [(0, None), (1, Some(1)), (2, Some(2)), (1, Some(5))]);
    }
}

#[test]
fn what_cannot_be_kept_is_refused_in_every_request() {
    let mut cluster = cluster();
    let fun = [&[117, 0, 0, 0, 0], &term("#PID<0.90.1>")[..], &term(":m"), &term("0"), &term("0")].concat();
    let twice = kvnode::etf::encode(|w| _ = w.map(2).integer(1).nil().integer(1).nil());
    for bad in [&fun, &twice] {
        for request in [
            "{:put_new, 1, $1}",
            "{:replace, 1, $1}",
            "{:get_and_put, 1, $1}",
            "{:put_many, [{1, 1}, {2, $1}]}",
            "{:compare_and_put, 1, :absent, $1}",
            "{:transact, [], [{:put, 2, 1}, {:put, 1, $1}]}",
        ] {
            cluster.say(&monitor(":kv", 1));
            let answers = cluster.call(term_with(request, &[bad]));
            assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
        }
    }
    for request in [
        "{:fetch, $1}",
        "{:pop, $1}",
        "{:get_many, [1, $1]}",
        "{:delete_many, [$1]}",
        "{:put_many, [{$1, 1}]}",
        "{:fetch_revision, $1}",
        "{:compare_and_put, $1, :absent, 1}",
        "{:compare_and_delete, $1, :absent}",
        "{:compare_and_delete, 1, {:value, $1}}",
        "{:transact, [{:absent, $1}], []}",
        "{:transact, [{:equal, 1, $1}], []}",
        "{:transact, [], [{:delete, $1}]}",
    ] {
        cluster.say(&monitor(":kv", 1));
        let answers = cluster.call(term_with(request, &[&twice]));
        assert!(payload_of(&answers[0]).starts_with(&[104, 2, 119, 6]), "{{badarg, why}}: {answers:?}");
    }
    check(&mut cluster, ":count", "0");
}
