//! Requests that look at what is there, and those of several keys, as a hostile peer asks.

use std::time::Instant;

use kvnode::etf::encode;
use kvnode::etf::tag::{
    INTEGER_EXT, LARGE_BIG_EXT, LARGE_TUPLE_EXT, LIST_EXT, MAP_EXT, NIL_EXT, SMALL_TUPLE_EXT, STRING_EXT,
};
use kvnode::kv::requests::{BYTES_MAX, INTEGER_BYTES_MAX, KEYS_MAX, PATTERN_BYTES_MAX};

use crate::scene::{STORE, Scene, memory};
use crate::support::{binary, term, term_with};

/// Bytes of the largest integer that any node reads.
const INTEGER_RECEIVED_MAX: usize = (4 << 20) - 8;

/// An integer of so many bytes.
fn integer(len: usize) -> Vec<u8> {
    [&[LARGE_BIG_EXT][..], &(len as u32).to_be_bytes(), &[0], &vec![255; len]].concat()
}

/// A list of so many integers.
fn list(len: u32) -> Vec<u8> {
    let elements = (0..len).flat_map(|number| [&[INTEGER_EXT][..], &(number + 1_000).to_be_bytes()].concat());
    let mut list = [&[LIST_EXT][..], &len.to_be_bytes()].concat();
    list.extend(elements);
    list.push(NIL_EXT);
    list
}

fn too_large(bound: usize) -> Vec<u8> {
    term(&format!("{{:error, {{:too_large, {bound}}}}}"))
}

#[test]
fn counters_of_any_size_are_bounded() {
    let mut scene = Scene::start("");
    let mut bad = scene.peer("bad@h");
    for len in [INTEGER_BYTES_MAX + 1, 1 << 20, INTEGER_RECEIVED_MAX] {
        for request in ["{:update_counter, 1, $1}", "{:update_counter, 1, 1, $1}"] {
            assert_eq!(bad.call(term_with(request, &[&integer(len)])), too_large(INTEGER_BYTES_MAX), "{len}");
        }
    }
    assert_eq!(bad.call(term_with("{:put, 1, $1}", &[&integer(INTEGER_RECEIVED_MAX)])), term(":ok"));
    // Each is a few bytes, and is to cost no more than a look.
    let frame: Vec<u8> =
        (0..1_000).flat_map(|_| bad.call_frame(STORE, 7, "{:update_counter, 1, 1}")).collect();
    let start = Instant::now();
    assert!(bad.send(&frame));
    (0..1_000).for_each(|_| assert_eq!(bad.answer(7), too_large(INTEGER_BYTES_MAX)));
    println!("1,000 calls of a counter of 4 MiB in {:?}", start.elapsed());
    scene.all_is_well(16 << 20);
    // Ten megabytes are no integer to any node.
    let frame = bad.call_frame(STORE, 8, term_with("{:update_counter, 2, $1}", &[&integer(10 << 20)]));
    bad.send(&frame);
    scene.must_end(bad, 16 << 20);
}

#[test]
fn a_million_keys_in_one_request_are_refused_with_the_bound() {
    let mut scene = Scene::start("");
    let mut bad = scene.peer("bad@h");
    let too_many = term(&format!("{{:error, {{:too_many, {KEYS_MAX}}}}}"));
    let keys = list(1_000_000);
    for request in [
        "{:get_many, $1}",
        "{:delete_many, $1}",
        "{:put_many, $1}",
        "{:delete_many, $1, confirm: 1}",
        "{:transact, $1, []}",
        "{:transact, [], $1}",
    ] {
        assert_eq!(bad.call(term_with(request, &[&keys])), too_many, "{request}");
    }
    let pairs = encode(|w| {
        w.map(1_000_000);
        (0..1_000_000).for_each(|number| _ = w.unsigned(number).unsigned(number));
    });
    assert_eq!(bad.call(term_with("{:put_many, $1}", &[&pairs])), too_many);
    assert_eq!(bad.call(":count"), term("1"), "what the good peer has put");
    // As many as are taken, again and again, from a hundred bytes of values.
    let most = list(KEYS_MAX as u32);
    for _ in 0..200 {
        assert_eq!(bad.call(term_with("{:get_many, $1}", &[&most])), term("%{}"));
        scene.good.use_the_store();
    }
    scene.all_is_well(32 << 20);
}

#[test]
fn answers_that_are_larger_than_what_was_asked_by_much_are_bounded() {
    let mut scene = Scene::start("");
    let mut bad = scene.peer("bad@h");
    let value = encode(|w| _ = w.binary(&vec![7; 1 << 20]));
    for key in 0..100 {
        assert_eq!(bad.call(term_with(&format!("{{:put, {key}, $1}}"), &[&value])), term(":ok"));
    }
    let keys = [&[STRING_EXT, 0, 100][..], &(0..100).collect::<Vec<u8>>()].concat();
    let request = term_with("{:get_many, $1}", &[&keys]);
    for _ in 0..100 {
        assert_eq!(bad.call(request.clone()), too_large(BYTES_MAX));
    }
    scene.all_is_well(100 << 20);
    // Within the bound, and read by nobody: they wait, and the others are served.
    let keys = [&[STRING_EXT, 0, 60][..], &(0..60).collect::<Vec<u8>>()].concat();
    let mut deaf = scene.peer("deaf@h");
    let frame = deaf.call_frame(STORE, 1, term_with("{:get_many, $1}", &[&keys]));
    assert!(deaf.send(&frame.repeat(200)));
    for _ in 0..50 {
        scene.good.use_the_store();
    }
    // What waits for the deaf one is one answer and what is being written of another.
    scene.all_is_well((100 + 2 * 64) << 20);
    drop(deaf);
    scene.all_is_well((100 + 2 * 64) << 20);
}

/// What a store on disk would have to read is far more than what is asked: it is read up to the bound, and no values where none
/// are looked at.
#[test]
fn a_store_on_disk_reads_no_more_than_it_answers() {
    let dir = tempfile::tempdir().expect("a folder");
    let mut scene =
        Scene::start_with_blocks_apart(&format!("--data-dir {} --sync never", dir.path().display()));
    let mut bad = scene.peer("bad@h");
    let value = encode(|w| _ = w.binary(&vec![7; 1 << 20]));
    const KEYS: u8 = 250;
    for key in 0..KEYS {
        assert_eq!(bad.call(term_with(&format!("{{:put, {key}, $1}}"), &[&value])), term(":ok"));
    }
    let keys = [&[STRING_EXT, 0, KEYS][..], &(0..KEYS).collect::<Vec<u8>>()].concat();
    let of_each = |one: &str| {
        let each = (0..KEYS).filter(|_| !one.is_empty()).map(|key| one.replace('k', &key.to_string()));
        each.collect::<Vec<_>>().join(", ")
    };
    let transact =
        |guard: &str, change: &str| format!("{{:transact, [{}], [{}]}}", of_each(guard), of_each(change));
    let results = format!("{{:ok, [{}]}}", of_each(":oK").to_lowercase());
    // What the engine holds in memory of these writes, and of what it has read.
    let held = u64::from(KEYS) << 20;
    scene.all_is_well(held + (64 << 20));
    let before = memory(&scene.kv, "VmHWM");
    for _ in 0..10 {
        assert_eq!(bad.call(term_with("{:get_many, $1}", &[&keys])), too_large(BYTES_MAX));
        assert_eq!(bad.call(transact("{:present, k}", "")), term("{:ok, []}"));
        assert_eq!(bad.call(transact("{:equal, k, 1}", "")), too_large(BYTES_MAX));
        assert_eq!(bad.call(transact("", "{:add, k, 1}")), too_large(BYTES_MAX));
        scene.good.use_the_store();
    }
    let peak = memory(&scene.kv, "VmHWM");
    // What is found for one request, and what the engine keeps of what it has read.
    assert!(peak <= before + ((64 + 64 + 16) << 20), "{} MiB grew to {} MiB", before >> 20, peak >> 20);
    assert_eq!(bad.call(transact("{:present, k}", "{:delete, k}")), term(&results));
}

#[test]
fn keys_and_pairs_that_are_nested_deep_are_walked_without_a_stack() {
    let mut scene = Scene::start_with_blocks_apart("");
    let mut bad = scene.peer("bad@h");
    const DEPTH: usize = 1_000_000;
    let nested = [[&[LIST_EXT, 0, 0, 0, 1][..]].concat().repeat(DEPTH), vec![NIL_EXT; DEPTH + 1]].concat();
    for (request, answer) in [
        ("{:fetch, $1}", ":error"),
        ("{:put_new, $1, 1}", "true"),
        ("{:update_counter, $1, 1}", "2"),
        ("{:delete_many, [$1]}", ":ok"),
        ("{:put_many, [{$1, 1}]}", ":ok"),
        ("{:pop, $1}", "1"),
        ("{:compare_and_put, $1, :absent, 1}", ":ok"),
        ("{:compare_and_put, $1, {:value, 1}, $1}", ":ok"),
        ("{:compare_and_delete, $1, {:value, $1}}", ":ok"),
        ("{:transact, [{:absent, $1}], [{:put, $1, $1}]}", "{:ok, [:ok]}"),
        ("{:transact, [{:equal, $1, $1}], [{:delete, $1}]}", "{:ok, [:ok]}"),
    ] {
        assert_eq!(bad.call(term_with(request, &[&nested])), term(answer), "{request}");
    }
    // A list whose only element is such a list, and no pair.
    let frame = bad.call_frame(STORE, 9, term_with("{:put_many, $1}", &[&nested]));
    assert!(bad.send(&frame));
    let frame = bad.call_frame(STORE, 9, term_with("{:update_counter, 1, $1}", &[&nested]));
    assert!(bad.send(&frame));
    assert_eq!(bad.answer(9), term("{:error, :not_an_integer}"));
    scene.all_is_well(2 * nested.len() as u64);
}

#[test]
fn scans_of_any_shape_and_cursors_that_were_made_up_are_answered_or_refused() {
    let mut scene = Scene::start("");
    let mut bad = scene.peer("bad@h");
    let deep = |depth: usize| [[LIST_EXT, 0, 0, 0, 1].repeat(depth), vec![NIL_EXT; depth + 1]].concat();
    let too_large = term(&format!("{{:error, {{:too_large, {PATTERN_BYTES_MAX}}}}}"));
    assert_eq!(bad.call(term_with("{:scan, [match: $1]}", &[&deep(1_000_000)])), too_large);
    // As deep as a pattern may be, and deeper keys than it.
    let most = deep(PATTERN_BYTES_MAX / 6 - 1);
    assert_eq!(bad.call(term_with("{:put_many, [{$1, 1}, {$2, 2}]}", &[&most, &deep(500_000)])), term(":ok"));
    let found = term_with("{[$1], :done}", &[&most]);
    assert_eq!(bad.call(term_with("{:scan, [keys: true, match: $1]}", &[&most])), found);
    let open = [[LIST_EXT, 0, 0, 0, 1].repeat(9_000), term(":_"), vec![NIL_EXT; 9_000]].concat();
    let both = bad.call(term_with("{:scan, [keys: true, bytes: 4194304, match: $1]}", &[&open]));
    assert!(both.len() > 3_000_000, "{}", both.len());
    // Keys that are long are looked at by few in one page.
    for number in 0..20 {
        let key = binary(&vec![number; 1 << 20]);
        assert_eq!(bad.call(term_with("{:put, $1, 1}", &[&key])), term(":ok"));
    }
    let page = bad.call("{:scan, [keys: true, match: {:_, :none}]}");
    assert!(page.starts_with(&[104, 2, 106, 109]), "none, and a cursor: {:?}", &page[..8]);
    // A cursor is some bytes; those of a real one are changed.
    let page = bad.call("{:scan, [keys: true, limit: 1, bytes: 1]}");
    let at = page.windows(2).rposition(|pair| *pair == [109, 0]).expect("a cursor");
    let cursor = page[at + 5..].to_vec();
    for at in 0..cursor.len().min(40) {
        for change in [1, 128, 255] {
            let mut cursor = cursor.clone();
            cursor[at] ^= change;
            let answer = bad.call(term_with("{:scan, [limit: 1, cursor: $1]}", &[&binary(&cursor)]));
            assert!(answer == term("{:error, :bad_cursor}") || answer.starts_with(&[104, 2]));
        }
        let answer = bad.call(term_with("{:scan, [cursor: $1]}", &[&binary(&cursor[..at])]));
        assert!(answer == term("{:error, :bad_cursor}") || answer.starts_with(&[104, 2]));
    }
    assert_eq!(
        bad.call(term_with("{:scan, [cursor: $1]}", &[&binary(&vec![109; 1 << 20])])),
        term("{:error, :bad_cursor}")
    );
    // By the thousand, from a peer that reads none of the pages.
    let mut deaf = scene.peer("deaf@h");
    let frame = deaf.call_frame(STORE, 1, "{:scan, [bytes: 4194304]}");
    assert!(deaf.send(&frame.repeat(2_000)));
    for _ in 0..50 {
        scene.good.use_the_store();
    }
    scene.all_is_well(128 << 20);
    drop(deaf);
    scene.all_is_well(128 << 20);
}

/// Keys of any size and shape have their place in the order of keys, and cost about what they are long.
#[test]
fn scans_in_order_beside_keys_of_any_size_are_answered_or_refused() {
    let dir = tempfile::tempdir().expect("a folder");
    for args in ["--ordered".to_owned(), format!("--data-dir {}", dir.path().display())] {
        let mut scene = Scene::start(&args);
        let mut bad = scene.peer("bad@h");
        let tuples = |depth: usize| [[SMALL_TUPLE_EXT, 1].repeat(depth), term(":a")].concat();
        let bits = |byte: u8| binary(&vec![byte; 10 << 20]);
        // Of each element of a list, and each pair of a map, the order has some bytes and allocations more.
        let bytes = [&[STRING_EXT][..], &u16::MAX.to_be_bytes(), &vec![7; usize::from(u16::MAX)]].concat();
        let map = {
            let pairs = (0..500_000_u32)
                .flat_map(|key| [&[INTEGER_EXT][..], &(key + 1_000).to_be_bytes(), &[97, 1]].concat());
            [&[MAP_EXT][..], &500_000_u32.to_be_bytes(), &pairs.collect::<Vec<_>>()].concat()
        };
        for key in
            [bits(0), bits(1), tuples(1_000_000), list(1_000_000), integer(INTEGER_BYTES_MAX), bytes, map]
        {
            assert_eq!(bad.call(term_with("{:put, $1, 1}", &[&key])), term(":ok"));
        }
        scene.all_is_well(256 << 20);
        let too_large = term(&format!("{{:error, {{:too_large, {PATTERN_BYTES_MAX}}}}}"));
        for option in ["from", "to", "prefix"] {
            let request = format!("{{:scan, [{option}: $1]}}");
            assert_eq!(bad.call(term_with(&request, &[&tuples(1_000_000)])), too_large);
            // As deep as they may be.
            let answer = bad.call(term_with(&request, &[&tuples(PATTERN_BYTES_MAX / 2 - 2)]));
            assert!(answer.starts_with(&[104, 2]), "{option}");
        }
        assert_eq!(bad.call("{:scan, [prefix: :a]}"), term("{:error, :bad_prefix}"));
        assert_eq!(bad.call("{:scan, [prefix: {}, to: 1]}"), term("{:error, :prefix_and_range}"));
        for cursor in [
            vec![],
            vec![b'o'],
            vec![b'o'; 60_017],
            vec![255; 60_000],
            [&b"o"[..], &[255; 60_016]].concat(),
            vec![b'o'; 1 << 20],
        ] {
            for reverse in ["true", "false"] {
                let request = format!("{{:scan, [keys: true, bytes: 1, reverse: {reverse}, cursor: $1]}}");
                let answer = bad.call(term_with(&request, &[&binary(&cursor)]));
                assert!(answer == term("{:error, :bad_cursor}") || answer.starts_with(&[104, 2]));
            }
        }
        // Tuples of thousands of sizes, of which none begins with what is asked for: a page has an end.
        for from in (1..4_000_u32).step_by(500) {
            let pairs = (from..from + 500).map(|size| {
                let key =
                    [&[LARGE_TUPLE_EXT][..], &size.to_be_bytes(), &[97, 1].repeat(size as usize)].concat();
                [&[104, 2][..], &key, &[97, 1]].concat()
            });
            let pairs =
                [&[LIST_EXT][..], &500_u32.to_be_bytes(), &pairs.flatten().collect::<Vec<_>>(), &[NIL_EXT]]
                    .concat();
            assert_eq!(bad.call(term_with("{:put_many, $1}", &[&pairs])), term(":ok"));
        }
        let start = Instant::now();
        let page = bad.call("{:scan, [prefix: {:none}]}");
        assert!(page.starts_with(&[104, 2, 106]), "{:?}", &page[..8]);
        println!("{args}: a page over tuples of 4,000 sizes in {:?}", start.elapsed());
        scene.all_is_well(384 << 20);
    }
}

/// What is there is walked where a caller expects something else: of the size of what was received.
#[test]
fn what_is_expected_and_what_is_there_may_be_large_and_in_any_form() {
    let mut scene = Scene::start("");
    let mut bad = scene.peer("bad@h");
    // Maps of one pair that hold each other, and a long map: neither is known to be canonical before it is rewritten.
    let nested = [[&[116, 0, 0, 0, 1, 97, 1][..]].concat().repeat(100_000), vec![NIL_EXT]].concat();
    let long = encode(|w| {
        w.map(200_000);
        (0..200_000).rev().for_each(|number| _ = w.unsigned(number).unsigned(number));
    });
    for (key, value, other) in [(1, &nested, &long), (2, &long, &nested)] {
        let ask = |request: &str| term_with(&format!("{{{request}}}"), &[value]);
        assert_eq!(bad.call(ask(&format!(":put, {key}, $1"))), term(":ok"));
        let start = Instant::now();
        for _ in 0..10 {
            let request = term_with(&format!("{{:compare_and_put, {key}, {{:value, $1}}, 1}}"), &[other]);
            let answer = bad.call(request);
            assert!(answer.len() > value.len(), "the value that is there comes back");
        }
        println!("10 comparisons in {:?}", start.elapsed());
        for expected in ["{:revision, -1}", "{:revision, 340282366920938463463374607431768211456}", ":absent"]
        {
            let answer = bad.call(term(&format!("{{:compare_and_delete, {key}, {expected}}}")));
            assert!(answer.len() > value.len(), "{expected}");
        }
        assert_eq!(bad.call(ask(&format!(":compare_and_put, {key}, {{:value, $1}}, 1"))), term(":ok"));
        scene.good.use_the_store();
    }
    // What is no expectation ends the call, and nothing else.
    for expected in ["1", "{:value}", "{:revision, :one}", "{:revision, 1.5}"] {
        let request = term(&format!("{{:compare_and_put, 1, {expected}, 1}}"));
        let frame = bad.call_frame(STORE, 9, request);
        assert!(bad.send(&frame));
    }
    assert_eq!(bad.call("{:compare_and_put, 1, {:value, 1}, 2}"), term(":ok"));
    scene.all_is_well(64 << 20);
}

/// A thousand at once, each of a store that has something again: they cost what they delete.
#[test]
fn clears_by_the_thousand_beside_puts_are_carried_out_in_their_order() {
    let dir = tempfile::tempdir().expect("a folder");
    for args in [String::new(), "--ordered".to_owned(), format!("--data-dir {}", dir.path().display())] {
        let mut scene = Scene::start(&args);
        let (mut bad, mut other) = (scene.peer("bad@h"), scene.peer("other@h"));
        let asked = |number: u32| match number % 4 {
            0 => ":clear".to_owned(),
            1 => "{:clear, confirm: 0}".to_owned(),
            2 => format!("{{:put_many, [{{{number}, 1}}, {{:more, {number}}}], ttl: 60000}}"),
            _ => format!("{{:delete, {number}}}"),
        };
        // Each is synced there, and makes and removes files.
        let count = if args.contains("--data-dir") { 400 } else { 4_000 };
        let frames: Vec<u8> =
            (1..=count).flat_map(|number| bad.call_frame(STORE, number, asked(number))).collect();
        // Another that does the same, and reads nothing meanwhile.
        let others: Vec<u8> =
            (1..=count).flat_map(|number| other.call_frame(STORE, number, ":clear")).collect();
        let start = Instant::now();
        assert!(bad.send(&frames) && other.send(&others));
        for number in 1..=count {
            assert_eq!(bad.answer(number), term(":ok"), "{number}");
        }
        println!("{args}: {} clears in {:?}", count / 2, start.elapsed());
        (1..=count).for_each(|number| assert_eq!(other.answer(number), term(":ok")));
        assert_eq!(bad.call(":clear"), term(":ok"));
        assert_eq!(bad.call(":count"), term("0"));
        // Options that there are not, and what is no list of any.
        for (options, name) in [("[sync: 1]", "sync"), ("[confirm: 0, ttl: 1]", "ttl"), ("[{:x, 1}]", "x")] {
            let answer = bad.call(format!("{{:clear, {options}}}"));
            assert_eq!(answer, term(&format!("{{:error, {{:unknown_option, :{name}}}}}")));
        }
        assert_eq!(bad.call("{:put, 1, 1}"), term(":ok"));
        let nested = [[LIST_EXT, 0, 0, 0, 1].repeat(100_000), vec![NIL_EXT; 100_001]].concat();
        for options in
            [nested, list(1_000_000), integer(1 << 20), term("[confirm: -1]"), term("[confirm: :all]")]
        {
            let frame = bad.call_frame(STORE, 9, term_with("{:clear, $1}", &[&options]));
            assert!(bad.send(&frame));
        }
        assert_eq!(bad.call("{:get, 1}"), term("1"), "what is no request deletes nothing");
        scene.all_is_well(64 << 20);
    }
}
