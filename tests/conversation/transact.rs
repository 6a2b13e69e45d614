//! Transactions: all of the changes, or none.

use kvnode::etf::encode;

use crate::cluster::{cluster, on_each_engine};
use crate::requests::{check, check_is_none};
use crate::term::{binary, term_with};

#[test]
fn changes_are_made_where_all_guards_hold_and_else_none_is() {
    on_each_engine(|mut cluster| {
        for (request, expected) in [
            ("{:transact, [], []}", "{:ok, []}"),
            ("{:transact, [{:absent, :a}], []}", "{:ok, []}"),
            ("{:transact, [{:present, :a}], []}", "{:error, {:failed, {:present, :a}}}"),
            (
                "{:transact, [], [{:put, :a, 1}, {:put, :b, %{c: 2}}, {:delete, :c}]}",
                "{:ok, [:ok, :ok, :ok]}",
            ),
            ("{:get_many, [:a, :b, :c]}", "%{a: 1, b: %{c: 2}}"),
            // One write.
            ("{:fetch_revision, :a}", "{:ok, 1, 2}"),
            ("{:fetch_revision, :b}", "{:ok, %{c: 2}, 2}"),
            ("{:transact, [{:equal, :a, 1.0}], [{:delete, :a}]}", "{:error, {:failed, {:equal, :a, 1.0}}}"),
            ("{:transact, [{:equal, :c, nil}], [{:delete, :a}]}", "{:error, {:failed, {:equal, :c, nil}}}"),
            (
                "{:transact, [{:revision, :a, 2}, {:revision, :b, 3}, {:absent, :a}], [{:delete, :a}]}",
                "{:error, {:failed, {:revision, :b, 3}}}",
            ),
            ("{:transact, [{:absent, :a}], [{:delete, :a}]}", "{:error, {:failed, {:absent, :a}}}"),
            ("{:fetch_revision, :a}", "{:ok, 1, 2}"),
            (
                "{:transact, [{:revision, :a, 2}, {:equal, :b, %{c: 2}}, {:present, :b}, {:absent, :c}],
                  [{:add, :a, 41}, {:add, :c, -1}, {:delete, :b}]}",
                "{:ok, [42, -1, :ok]}",
            ),
            ("{:get_many, [:a, :b, :c]}", "%{a: 42, c: -1}"),
            // One change after the other.
            (
                "{:transact, [{:equal, :a, 42}], [{:put, :a, 5}, {:add, :a, 1}, {:add, :a, 1}, {:delete, :c},
                  {:add, :c, 9}, {:put, :d, 1}, {:delete, :d}]}",
                "{:ok, [:ok, 6, 7, :ok, 9, :ok, :ok]}",
            ),
            ("{:get_many, [:a, :c, :d]}", "%{a: 7, c: 9}"),
            ("{:transact, [], [{:put, :a, 1}, {:put, :b, :x}, {:add, :b, 1}]}", "{:error, :not_an_integer}"),
            ("{:transact, [], [{:put, :a, 1}, {:add, :b, 1.5}]}", "{:error, :not_an_integer}"),
            ("{:get_many, [:a, :b]}", "%{a: 7}"),
            (
                "{:transact, [], [{:add, :a, 1180591620717411303424}], confirm: 0}",
                "{:ok, [1180591620717411303431]}",
            ),
            ("{:transact, [], [{:put, :a, 1}], sync: 1}", "{:error, {:unknown_option, :sync}}"),
            (
                "{:transact, [], [{:put, :t, 1}, {:add, :u, 1}, {:add, :c, 1}], ttl: 60000}",
                "{:ok, [:ok, 1, 10]}",
            ),
            ("{:transact, [{:equal, :t, 1}], [{:add, :t, 1}, {:put, :u, 5}]}", "{:ok, [2, :ok]}"),
            ("{:ttl, :t}", "{:ok, 60000}"),
            ("{:ttl, :u}", "{:ok, :infinity}"),
            ("{:ttl, :c}", "{:ok, 60000}"),
        ] {
            check(&mut cluster, request, expected);
        }
    });
}

#[test]
fn what_has_another_shape_is_no_transaction() {
    let mut cluster = cluster();
    for request in [
        "{:transact, []}",
        "{:transact, 1, []}",
        "{:transact, [], %{}}",
        "{:transact, [1], []}",
        "{:transact, [{:here, 1}], []}",
        "{:transact, [{:equal, 1}], []}",
        "{:transact, [{:absent, 1, 2}], []}",
        "{:transact, [{:revision, 1, :one}], []}",
        "{:transact, [{:present, 1} | {:present, 1}], []}",
        "{:transact, [], [{:put, 1, 2}, {:put, 1}]}",
        "{:transact, [], [{:put, 1, 2}, {:delete, 1, 2}]}",
        "{:transact, [], [{:put, 1, 2}, {:pop, 1}]}",
        "{:transact, [], [{:put, 1, 2}], 5}",
    ] {
        check_is_none(&mut cluster, request);
    }
    check(&mut cluster, ":count", "0");
}

#[test]
fn more_than_the_bounds_is_refused_and_changes_nothing() {
    use kvnode::kv::requests::{BYTES_MAX, INTEGER_BYTES_MAX, KEYS_MAX, SUMS_BYTES_MAX};
    let mut cluster = cluster();
    let list = |len: usize, element: &str| format!("[{}]", vec![element; len].join(", "));
    let too_many = format!("{{:error, {{:too_many, {KEYS_MAX}}}}}");
    let (guards, changes) = (list(KEYS_MAX + 1, "{:absent, 1}"), list(KEYS_MAX + 1, "{:add, 1, 1}"));
    check(&mut cluster, format!("{{:transact, {guards}, []}}"), too_many.as_str());
    check(&mut cluster, format!("{{:transact, [], {changes}}}"), too_many.as_str());
    let half = binary(&vec![7; BYTES_MAX / 2]);
    let too_large = format!("{{:error, {{:too_large, {BYTES_MAX}}}}}");
    check(
        &mut cluster,
        term_with("{:transact, [{:equal, 1, $1}], [{:put, 1, $1}]}", &[&half]),
        too_large.as_str(),
    );
    // Sums of 63 KiB each.
    let bytes = binary(&vec![7; INTEGER_BYTES_MAX - 1024]);
    let integer = [&[111][..], &bytes[1..5], &[0], &bytes[5..]].concat();
    check(&mut cluster, term_with("{:put, :n, $1}", &[&integer]), ":ok");
    let adds = encode(|w| {
        w.list(2000);
        (0..2000).for_each(|_| _ = w.tuple(3).atom("add").atom("n").integer(1));
        w.nil();
    });
    let sums = format!("{{:error, {{:too_large, {SUMS_BYTES_MAX}}}}}");
    check(&mut cluster, term_with("{:transact, [], $1}", &[&adds]), sums.as_str());
    check(&mut cluster, term_with("{:transact, [{:equal, :n, $1}], []}", &[&integer]), "{:ok, []}");
}
