//! The door of `--http`: what is answered, what is refused, and how much of the node its clients can take.

#![cfg(feature = "program")]
#![allow(clippy::disallowed_methods, reason = "tests of real nodes live in real time")]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::http::{address, ask, connect, get, heard, say};
use support::{Epmd, KvNode, wait_until};

#[test]
fn each_path_is_answered_in_its_own_form_and_nothing_can_be_changed() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "paged", "--http 0 --global one --slave global:none --cookie TOPSECRET");
    let at = address(&node);
    assert!(at.ip().is_loopback(), "{at}");
    for (path, kind, part) in [
        ("/", "text/html; charset=utf-8", "<title>kvnode</title>"),
        ("/status.json", "application/json", "\"ready\":true"),
        (
            "/metrics",
            "text/plain; version=0.0.4; charset=utf-8",
            "kvnode_store_entries{store=\"global:one\"} 0\n",
        ),
        ("/health", "text/plain; charset=utf-8", "alive\n"),
        ("/ready", "text/plain; charset=utf-8", "ready\n"),
        ("/?x=1", "text/html; charset=utf-8", "<title>kvnode</title>"),
    ] {
        let answer = get(at, path);
        assert_eq!((answer.code, answer.header("content-type")), (200, kind), "{path}");
        assert!(answer.body.contains(part), "{path}: {}", answer.body);
        assert!(!answer.body.contains("TOPSECRET"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        assert_eq!(answer.header("cache-control"), "no-store");
        assert!(answer.header("content-security-policy").starts_with("default-src 'none';"), "{path}");
        let head = ask(at, "HEAD", path, "localhost");
        assert_eq!((head.code, head.body.as_str()), (200, ""), "{path}");
        assert_eq!(head.header("content-type"), kind);
    }
    for path in ["/nothing", "//", "/metrics/", "/../etc/passwd", "/%00"] {
        assert_eq!(get(at, path).code, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "FROB"] {
        let path = if method == "CONNECT" { "localhost:1" } else { "/status.json" };
        let answer = ask(at, method, path, "localhost");
        assert_eq!(answer.code, 405, "{method}");
        assert_eq!(answer.header("allow"), "GET, HEAD");
    }
    let status: serde_json::Value = serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
    assert_eq!(status["node"], node.name());
    assert_eq!(status["stores"][0]["slaves"][0]["state"], "seeking");
    wait_until("a moment is remembered", || {
        let status: serde_json::Value =
            serde_json::from_str(&get(at, "/status.json").body).expect("it is JSON");
        status["history"].as_array().is_some_and(|moments| !moments.is_empty())
    });
}

#[test]
fn a_name_from_elsewhere_does_not_reach_the_loopback() {
    let epmd = Epmd::start();
    let (near, far) =
        (KvNode::start(&epmd, "near", "--http :0"), KvNode::start(&epmd, "far", "--http 0.0.0.0:0"));
    assert_eq!(ask(address(&near), "GET", "/status.json", "evil.example").code, 403);
    assert_eq!(ask(address(&near), "GET", "/", "127.0.0.1.evil.example").code, 403);
    assert_eq!(ask(address(&near), "GET", "/", "127.0.0.1:1").code, 200);
    let far = format!("127.0.0.1:{}", address(&far).port()).parse().expect("an address");
    assert_eq!(ask(far, "GET", "/", "some.host.example").code, 200, "asked for with all interfaces");
}

#[test]
fn a_node_that_epmd_does_not_know_is_alive_and_not_ready() {
    let mut epmd = Epmd::start();
    let node = KvNode::start(&epmd, "unready", "--http 0 --no-epmd-start");
    let at = address(&node);
    assert_eq!(get(at, "/ready").code, 200);
    epmd.kill();
    wait_until("it is not ready", || get(at, "/ready").code == 503);
    assert_eq!(get(at, "/health").code, 200);
    assert!(get(at, "/metrics").body.contains("\nkvnode_ready 0\n"));
    epmd.start_again();
    wait_until("it is ready again", || get(at, "/ready").code == 200);
}

#[test]
fn what_is_no_request_ends_its_own_connection() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "pestered", "--http 0");
    let at = address(&node);
    let line = "x".repeat(100);
    let many: String = (0..200).map(|number| format!("a{number}: {line}\r\n")).collect();
    let lines: String = (0..90).map(|number| format!("a{number}: b\r\n")).collect();
    for (what, bytes) in [
        ("a large head", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{many}\r\n").into_bytes()),
        ("many lines", format!("GET / HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n").into_bytes()),
        (
            "a large target",
            format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "y".repeat(100_000)).into_bytes(),
        ),
        ("no HTTP", b"\x00\x00\x00\x7f\x83\x68\x01\r\n\r\n".to_vec()),
        ("TLS", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03".to_vec()),
    ] {
        let answer = say(at, &bytes);
        assert!(matches!(answer.code, 0 | 400 | 408 | 414 | 431), "{what}: {answer:?}");
    }
    // A body is not read, however long it says that it is.
    let answer = say(
        at,
        b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\nxxxx",
    );
    assert_eq!(answer.code, 405);
    assert_eq!(get(at, "/health").code, 200);
}

#[test]
fn who_says_nothing_is_let_go_and_the_oldest_makes_room() {
    let epmd = Epmd::start();
    let node = KvNode::start(&epmd, "crowded", "--http 0");
    let at = address(&node);
    let began = Instant::now();
    let mut slow = connect(at);
    slow.write_all(b"GET / HT").expect("it is open");
    assert!(matches!(heard(slow).code, 0 | 408));
    assert!((4..15).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());

    let mut first = connect(at);
    let idle: Vec<_> = (0..64).map(|_| connect(at)).collect();
    let began = Instant::now();
    assert_eq!(first.read(&mut [0; 1]).unwrap_or(0), 0, "closed");
    assert!(began.elapsed() < Duration::from_secs(4), "not because of the time: {:?}", began.elapsed());
    assert_eq!(get(at, "/health").code, 200, "there is always room for one more");
    drop(idle);
}

#[test]
fn a_port_that_is_taken_or_none_ends_the_node_with_the_reason() {
    let epmd = Epmd::start();
    let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
    let taken = holder.local_addr().expect("it is bound").port().to_string();
    let ended = KvNode::run_to_end(&epmd, "taken", &format!("--http {taken}"));
    assert_eq!(ended.status.code(), Some(1));
    assert!(
        ended.stderr.contains(&format!("--http 127.0.0.1:{taken}: cannot listen there")),
        "{}",
        ended.stderr
    );
    let ended = KvNode::run_to_end(&epmd, "taken", "--http myhost:80");
    assert!(ended.status.code() == Some(2) && ended.stderr.contains("0.0.0.0:8080"), "{}", ended.stderr);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let epmd = Epmd::start();
    let node = KvNode::start(
        &epmd,
        "measured",
        "--http 0 --global one --global two --slave global:a\"b --memory-max 1GiB",
    );
    let at = address(&node);
    let text = get(at, "/metrics").body;
    let metrics = parsed(&text);
    for (name, kind) in [
        ("kvnode_info", "gauge"),
        ("kvnode_ready", "gauge"),
        ("kvnode_store_entries", "gauge"),
        ("kvnode_store_bytes", "gauge"),
        ("kvnode_store_requests_total", "counter"),
        ("kvnode_store_refused_total", "counter"),
        ("kvnode_store_conflicts_total", "counter"),
        ("kvnode_store_failed_total", "counter"),
        ("kvnode_store_expired_total", "counter"),
        ("kvnode_store_deadlines", "gauge"),
        ("kvnode_slave_state", "gauge"),
        ("kvnode_slave_lag_writes", "gauge"),
        ("kvnode_peers", "gauge"),
        ("kvnode_answer_duration_seconds", "histogram"),
        ("kvnode_server_handled_total", "counter"),
        ("kvnode_server_answer_duration_seconds", "histogram"),
        ("kvnode_server_restarts_total", "counter"),
        ("kvnode_stored_bytes_limit", "gauge"),
        ("process_start_time_seconds", "gauge"),
        ("process_resident_memory_bytes", "gauge"),
    ] {
        assert_eq!(metrics.get(name).map(String::as_str), Some(kind), "{name}");
    }
    assert!(text.contains("kvnode_stored_bytes_limit 1073741824\n"), "{text}");
    // Those too that there were none of.
    for (name, reason) in [("refused", "slave_of"), ("conflicts", "guard_failed"), ("failed", "no_space")] {
        let line = format!("kvnode_store_{name}_total{{store=\"global:two\",reason=\"{reason}\"}} 0\n");
        assert!(text.contains(&line), "{line} is not in\n{text}");
    }
    let mut promtool = Command::new("promtool");
    let promtool = promtool
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut promtool) = promtool.spawn() else {
        eprintln!("not checked by promtool: there is none");
        return;
    };
    promtool.stdin.take().expect("it is piped").write_all(text.as_bytes()).expect("it reads");
    let said = promtool.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert_eq!(said, "");
}

/// Reads the text format strictly: each metric has HELP and TYPE once and before its values, which stand together; names, labels
/// and numbers are of their form; no series is there twice; a histogram's classes go up, and its last is its count.
#[track_caller]
fn parsed(text: &str) -> BTreeMap<String, String> {
    assert!(text.ends_with('\n'));
    let word = |text: &str| {
        let mut characters = text.chars();
        characters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
            && characters.all(|other| other.is_ascii_alphanumeric() || other == '_')
    };
    let mut types: BTreeMap<String, String> = BTreeMap::new();
    let mut series: BTreeSet<String> = BTreeSet::new();
    let (mut current, mut helped) = (String::new(), String::new());
    let mut classes: Vec<(f64, f64)> = Vec::new();
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(word(name) && !help.is_empty(), "{line}");
            helped = name.to_owned();
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a type");
            assert_eq!(name, helped, "HELP stands before");
            assert!(["gauge", "counter", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            current = name.to_owned();
            continue;
        }
        let (head, value) = line.rsplit_once(' ').expect("a value");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(series.insert(head.to_owned()), "{head} twice");
        let (name, labels) = head.split_once('{').unwrap_or((head, ""));
        assert!(word(name), "{line}");
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} stands under {current}"));
        let histogram = types[&current] == "histogram";
        assert!(
            if histogram { ["_bucket", "_sum", "_count"].contains(&suffix) } else { suffix.is_empty() },
            "{line}"
        );
        let mut rest = labels;
        while !rest.is_empty() && rest != "}" {
            let (label, behind) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(word(label.trim_start_matches(',')), "{line}");
            let mut escaped = false;
            let end = behind.char_indices().find(|(_, character)| {
                let ends = *character == '"' && !escaped;
                escaped = *character == '\\' && !escaped;
                ends
            });
            let (end, _) = end.unwrap_or_else(|| panic!("{line}"));
            if label.trim_start_matches(',') == "le" {
                classes.push((behind[..end].parse().expect("a bound"), value));
            }
            rest = &behind[end + 1..];
        }
        if histogram && suffix == "_count" {
            assert!(classes.is_sorted() && classes.iter().map(|class| class.1).is_sorted(), "{classes:?}");
            assert_eq!(classes.pop().map(|class| (class.0.is_infinite(), class.1)), Some((true, value)));
            classes.clear();
        }
    }
    types
}
