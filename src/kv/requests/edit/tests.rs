use super::*;
use crate::etf::text::parse;
use crate::kv::Request;

/// What a call is read as, in short: an edit's or a lookup's name and the slaves that are to confirm it.
fn read(text: &str) -> Option<(String, Option<u32>)> {
    let term = parse(text, None).unwrap_or_else(|error| panic!("{text}: {error}"));
    let name = |debug: String| debug.split([' ', '(']).next().map(str::to_owned).unwrap_or_default();
    match Request::read(term.view())? {
        Request::Edit { edit, options } => Some((name(format!("{edit:?}")), options.confirm)),
        Request::Put { options, .. } => Some(("Put".into(), options.confirm)),
        Request::Delete { confirm, .. } => Some(("Delete".into(), confirm)),
        Request::Lookup { lookup, .. } => Some((name(format!("{lookup:?}")), None)),
        Request::UnknownOption { option } => Some((format!("not {option:?}"), None)),
        other => panic!("{text} is {other:?}"),
    }
}

const WRITES: &[(&str, &str)] = &[
    ("{:put, :k, 1", "Put"),
    ("{:delete, :k", "Delete"),
    ("{:put_new, :k, 1", "PutNew"),
    ("{:replace, :k, 1", "Replace"),
    ("{:pop, :k", "Pop"),
    ("{:get_and_put, :k, 1", "GetAndPut"),
    ("{:update_counter, :k, 1", "UpdateCounter"),
    ("{:update_counter, :k, 1, 2", "UpdateCounter"),
    ("{:compare_and_put, :k, :absent, 1", "CompareAndPut"),
    ("{:compare_and_delete, :k, {:value, 1}", "CompareAndDelete"),
    ("{:put_many, %{}", "PutMany"),
    ("{:touch, :k, 1", "Touch"),
    ("{:touch, :k, :infinity", "Touch"),
    ("{:persist, :k", "Touch"),
    ("{:delete_many, []", "DeleteMany"),
];

const LEAVE_NOTHING_NEW: &[&str] = &["Delete", "Pop", "CompareAndDelete", "DeleteMany", "Touch"];

#[test]
fn each_request_that_writes_takes_confirm_and_ttl_and_refuses_other_options_by_name() {
    for (begin, name) in WRITES {
        let known = |end: &str, confirm| {
            assert_eq!(read(&format!("{begin}{end}}}")), Some((name.to_string(), confirm)), "{begin}{end}");
        };
        known("", None);
        known(", []", None);
        known(", confirm: 2", Some(2));
        known(", confirm: 0, confirm: 7", Some(0));
        let unknown = |end: &str, option| {
            let refused = Some((format!("not {option}"), None));
            assert_eq!(read(&format!("{begin}{end}}}")), refused, "{begin}{end}");
        };
        unknown(", confirm: 1, sync: true", ":sync");
        // Of what is left by no request nothing can end.
        if LEAVE_NOTHING_NEW.contains(name) {
            unknown(", ttl: 1", ":ttl");
            unknown(", confirm: 1, ttl: 2", ":ttl");
        } else {
            known(", ttl: 1", None);
            known(", ttl: :infinity, confirm: 3", Some(3));
            known(", confirm: 4, ttl: 18446744073709551615, ttl: 1", Some(4));
            for ttl in ["0", "-1", "nil", "1.0", "18446744073709551616", "[]"] {
                assert_eq!(read(&format!("{begin}, ttl: {ttl}}}")), None, "{begin} {ttl}");
            }
        }
        for end in [
            ", [:confirm]",
            ", [{1, 2}]",
            ", confirm: -1",
            ", confirm: :one",
            ", confirm: 4294967296",
            ", [confirm: 1], 3",
            ", [{:confirm, 1} | 2]",
        ] {
            assert_eq!(read(&format!("{begin}{end}}}")), None, "{begin}{end}");
        }
    }
}

#[test]
fn what_is_no_request_is_none() {
    for text in [
        "{:fetch}",
        "{:fetch, 1, 2}",
        "{:fetch_revision}",
        "{:compare_and_put, 1, 2}",
        "{:compare_and_delete, 1}",
        "{:member}",
        "{:get_many, [], %{}}",
        "{:get_many, [], [], []}",
        "{:get, 1, consistency: :none}",
        "{:count, 1, []}",
        ":fetch",
        "{:count}",
        "{:put_new, 1}",
        "{:pop}",
        "{:replace, 1}",
        "{:get_and_put, 1}",
        "{:update_counter, 1}",
        "{:update_counter, 1, 2, 3, 4}",
        "{:update_counter, 1, 2, 3, [], []}",
        "{:put_many}",
        "{:delete_many}",
        "{:delete_many, [], 1}",
        "{:putnew, 1, 2}",
        "{:ttl}",
        "{:touch, 1}",
        "{:touch, 1, 0}",
        "{:touch, 1, -1}",
        "{:touch, 1, nil}",
        "{:persist}",
        "[:pop, 1]",
        "{\"pop\", 1}",
    ] {
        assert_eq!(read(text), None, "{text}");
    }
    for (text, name) in [
        ("{:fetch, :k}", "Fetch"),
        ("{:member, :k}", "Member"),
        ("{:ttl, :k}", "Ttl"),
        ("{:get_many, [1]}", "GetMany"),
        (":count", "Count"),
        ("{:count, []}", "Count"),
        ("{:get, :k, consistency: :session}", "Get"),
        ("{:get_many, [], consistency: :linearizable}", "GetMany"),
        ("{:get, :k, confirm: 1}", "not :confirm"),
    ] {
        assert_eq!(read(text), Some((name.into(), None)), "{text}");
    }
}

#[test]
fn the_list_of_requests_has_each_once() {
    let mut known: Vec<_> = Request::known().collect();
    let count = known.len();
    known.sort_unstable();
    known.dedup();
    assert_eq!(known.len(), count);
    for wanted in [
        ("get", 2),
        ("put", 4),
        ("status", 0),
        ("fetch", 2),
        ("update_counter", 5),
        ("delete_many", 3),
        ("count", 0),
    ] {
        assert!(known.contains(&wanted), "{wanted:?}");
    }
}

#[test]
fn integers_are_added_up_to_a_bound_and_nothing_else() {
    let sum = |present: Option<&[u8]>, by: i64| sum(present, &Integer::from(by), &Integer::from(10));
    assert_eq!(sum(None, 5), Ok(vec![97, 15]));
    assert_eq!(sum(Some(&[97, 1]), 5), Ok(vec![97, 6]));
    assert_eq!(sum(Some(&[97, 1]), -2), Ok(vec![98, 255, 255, 255, 255]));
    for other in [&[106][..], &[119, 1, b'a'], &[70, 0, 0, 0, 0, 0, 0, 0, 0], &[109, 0, 0, 0, 1, b'1']] {
        assert_eq!(sum(Some(other), 5), Err(Refusal::NotAnInteger), "{other:?}");
    }
    let all_ones =
        |len: usize| [&[LARGE_BIG_EXT][..], &(len as u32).to_be_bytes(), &[0], &vec![255; len]].concat();
    let most = all_ones(INTEGER_BYTES_MAX);
    assert_eq!(sum(Some(&most), 0), Ok(most.clone()));
    assert_eq!(sum(Some(&most), 1), Err(Refusal::TooLarge(INTEGER_BYTES_MAX)), "it would have one more");
    assert_eq!(sum(Some(&all_ones(INTEGER_BYTES_MAX + 1)), -1), Err(Refusal::TooLarge(INTEGER_BYTES_MAX)));
}
