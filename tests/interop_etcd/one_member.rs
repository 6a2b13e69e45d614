//! Keys, transactions, pages, watches and leases of one member.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use kvnode::block_on;
use kvnode::etcd::message::{
    AlarmAction, AlarmRequest, Bytes, CompactionRequest, Compare, CompareResult, Compared,
    DeleteRangeRequest, Event, EventKind, LeaseTimeToLiveRequest, MemberListRequest, Op, OpResponse,
    PutRequest, RangeRequest, StatusRequest, TxnRequest, prefix_end,
};
use kvnode::etcd::{Config, Error, Etcd, WatchEvent, WatchOptions};

use super::support::wait_until;
use super::support::{EtcdCluster, etcd_versions, ports::Port};
use super::{client, event, get, put, value};

const SECOND: Duration = Duration::from_secs(1);

#[track_caller]
fn changes(event: Result<WatchEvent, Error>) -> Vec<Event> {
    match event {
        Ok(WatchEvent::Changes(events)) => events,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_written_is_read_here_and_by_etcdctl() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    block_on(async {
        let key = Bytes::from_static(b"a\0\xff");
        let first = etcd.call(&put(key.clone(), "one")).await.unwrap();
        let request = PutRequest { prev_kv: true, ..put(key.clone(), "two") };
        let second = etcd.call(&request).await.unwrap();
        assert_eq!(&second.prev_kv.unwrap().value[..], b"one");
        assert_eq!(second.header.unwrap().revision, first.header.unwrap().revision + 1);
        let found = etcd.call(&get(key.clone())).await.unwrap();
        assert_eq!((value(&found), found.kvs[0].version), (Some(&b"two"[..]), 2));
        let request = DeleteRangeRequest { key: key.clone(), prev_kv: true, ..DeleteRangeRequest::default() };
        let deleted = etcd.call(&request).await.unwrap();
        assert_eq!((deleted.deleted, &deleted.prev_kvs[0].value[..]), (1, &b"two"[..]));
        assert_eq!(value(&etcd.call(&get(key)).await.unwrap()), None);
        etcd.call(&put("seen", "by both")).await.unwrap();
        assert_eq!(cluster.ctl(&["get", "seen", "--print-value-only"]).trim(), "by both");
        cluster.ctl(&["put", "told", "by etcdctl"]);
        assert_eq!(value(&etcd.call(&get("told")).await.unwrap()), Some(&b"by etcdctl"[..]));
    });
}

#[test]
fn a_transaction_does_one_of_two_things_at_once() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    let put_new = |value: &'static str| TxnRequest {
        compare: vec![Compare::is_absent("k")],
        success: vec![Op::Put(put("k", value)).into(), Op::Put(put("other", value)).into()],
        failure: vec![Op::Range(get("k")).into()],
    };
    block_on(async {
        let first = etcd.call(&put_new("one")).await.unwrap();
        assert!(first.succeeded && first.responses.len() == 2);
        let second = etcd.call(&put_new("two")).await.unwrap();
        assert!(!second.succeeded);
        let Some(OpResponse::Range(found)) = &second.responses[0].response else { panic!("{second:?}") };
        assert_eq!(value(found), Some(&b"one"[..]));
        assert_eq!(found.kvs[0].mod_revision, first.header.unwrap().revision);
        // A key twice is what etcd refuses.
        let twice = TxnRequest { success: vec![Op::Put(put("k", "1")).into(); 2], ..TxnRequest::default() };
        assert!(matches!(etcd.call(&twice).await, Err(Error::Refused { code: 3, .. })));
        let greater = Compare::new("k", CompareResult::Greater, Compared::Version(0));
        let read = TxnRequest { compare: vec![greater], ..TxnRequest::default() };
        assert!(etcd.call(&read).await.unwrap().succeeded);
    });
}

#[test]
fn a_range_is_read_in_pages_of_one_revision() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    block_on(async {
        let batches: Vec<TxnRequest> = (0..20)
            .map(|batch| TxnRequest {
                success: (0..100)
                    .map(|at| Op::Put(put(format!("p/{batch:02}{at:02}"), "v")).into())
                    .collect(),
                ..TxnRequest::default()
            })
            .collect();
        for batch in &batches {
            etcd.call(batch).await.unwrap();
        }
        etcd.call(&put("p/large", vec![7; 1 << 20])).await.unwrap();
        let range = RangeRequest { range_end: prefix_end(b"p/").into(), ..get("p/") };
        let mut pages = etcd.pages(range);
        let (mut keys, mut count) = (Vec::new(), 0);
        while let Some(page) = pages.next().await.unwrap() {
            keys.extend(page.into_iter().map(|kv| kv.key));
            count += 1;
            // What is written meanwhile is of another revision.
            etcd.call(&put(format!("p/zz{count}"), "later")).await.unwrap();
        }
        assert!(keys.len() == 2001 && keys.is_sorted() && count == 3, "{} keys, {count} pages", keys.len());
        let one = etcd.pages(get("p/large")).next().await.unwrap().unwrap();
        assert_eq!(one[0].value.len(), 1 << 20);
    });
}

#[test]
fn what_is_too_large_is_refused_with_the_bound_here_and_there() {
    let cluster = EtcdCluster::start(1);
    let mut config = Config::new(cluster.endpoints());
    let etcd = Etcd::connect(config.clone()).unwrap();
    config.request_bytes_max = 8 << 20;
    config.message_bytes_max = 1 << 20;
    let careless = Etcd::connect(config).unwrap();
    block_on(async {
        let large = put("k", vec![0; 3 << 19]);
        let refused = etcd.call(&large).await.unwrap_err();
        assert!(matches!(refused, Error::TooLarge { bytes_max: Some(1_572_864), .. }), "{refused:?}");
        // By etcd's own bound, and by that of its gRPC.
        for bytes in [3 << 19, 3 << 20] {
            let refused = careless.call(&put("k", vec![0; bytes])).await.unwrap_err();
            assert!(matches!(refused, Error::TooLarge { bytes_max: None, .. }), "{refused:?}");
        }
        etcd.call(&put("k", vec![0; 1 << 20])).await.unwrap();
        let refused = careless.call(&get("k")).await.unwrap_err();
        assert_eq!(refused, Error::AnswerTooLarge { bytes_max: 1 << 20 });
        // The connection goes on.
        assert_eq!(careless.call(&get("none")).await.unwrap().count, 0);
    });
}

#[test]
fn a_watch_tells_each_change_and_a_transaction_as_a_whole() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    let first = block_on(etcd.call(&put("w/0", "0"))).unwrap().header.unwrap().revision;
    let mut watch = etcd.watch(WatchOptions::prefix("w/").from_revision(first).with_prev_kv());
    assert_eq!(block_on(watch.next()), Ok(WatchEvent::Opened { next_revision: first }));
    assert_eq!(changes(event(&mut watch))[0].kv.as_ref().unwrap().value, "0");
    let txn = TxnRequest {
        success: ["w/0", "w/1", "x"].map(|key| Op::Put(put(key, "1")).into()).to_vec(),
        ..TxnRequest::default()
    };
    block_on(etcd.call(&txn)).unwrap();
    let events = changes(event(&mut watch));
    let keys: Vec<&[u8]> = events.iter().map(|event| &event.kv.as_ref().unwrap().key[..]).collect();
    assert_eq!(keys, [b"w/0", b"w/1"]);
    assert_eq!(events[0].prev_kv.as_ref().unwrap().value, "0");
    block_on(etcd.call(&DeleteRangeRequest { key: "w/1".into(), ..DeleteRangeRequest::default() })).unwrap();
    let events = changes(event(&mut watch));
    assert_eq!((events[0].r#type(), events[0].revision()), (EventKind::Delete, first + 2));
    assert_eq!(watch.next_revision(), first + 3);
}

#[test]
fn a_watch_that_is_behind_by_more_than_a_message_gets_all_of_it_in_order() {
    let cluster = EtcdCluster::start(1);
    let mut config = Config::new(cluster.endpoints());
    // Less than two of its values together, so that only parts can come.
    config.message_bytes_max = 5 << 19;
    let etcd = Etcd::connect(config).unwrap();
    let mut written = Vec::new();
    for at in 0..12_u8 {
        let answer = block_on(etcd.call(&put("large", vec![at; 1 << 20]))).unwrap();
        written.push((answer.header.unwrap().revision, at));
    }
    let mut watch = etcd.watch(WatchOptions::key("large").from_revision(written[0].0));
    let mut seen = Vec::new();
    while seen.len() < written.len() {
        let events = changes(event(&mut watch));
        seen.extend(events.iter().map(|event| (event.revision(), event.kv.as_ref().unwrap().value[0])));
    }
    assert_eq!(seen, written);
}

#[test]
fn a_watch_tells_how_far_it_has_come_when_nothing_changes() {
    // An etcd before 3.4 tells it every ten minutes, and has no flag for that.
    if etcd_versions::version().starts_with("3.3.") {
        return;
    }
    let cluster = EtcdCluster::start_with(1, &["--experimental-watch-progress-notify-interval", "200ms"]);
    let etcd = client(cluster.endpoints());
    let revision = block_on(etcd.call(&put("w", "1"))).unwrap().header.unwrap().revision;
    let mut watch = etcd.watch(WatchOptions::key("w").from_revision(revision));
    assert_eq!(changes(event(&mut watch)).len(), 1);
    let elsewhere = block_on(etcd.call(&put("elsewhere", "1"))).unwrap().header.unwrap().revision;
    loop {
        match event(&mut watch).unwrap() {
            WatchEvent::Progress { revision } if revision >= elsewhere => break,
            WatchEvent::Progress { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(watch.next_revision(), elsewhere + 1);
}

#[test]
fn a_watch_from_a_compacted_revision_is_told_the_oldest_that_there_is() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    let revisions: Vec<i64> =
        (0..3).map(|_| block_on(etcd.call(&put("c", "1"))).unwrap().header.unwrap().revision).collect();
    let compaction = CompactionRequest { revision: revisions[2], physical: true };
    block_on(etcd.call(&compaction)).unwrap();
    let mut watch = etcd.watch(WatchOptions::key("c").from_revision(revisions[0]));
    for _ in 0..2 {
        assert_eq!(event(&mut watch), Err(Error::Compacted { revision: Some(revisions[2]) }));
    }
    let old = RangeRequest { revision: revisions[0], ..get("c") };
    assert_eq!(block_on(etcd.call(&old)), Err(Error::Compacted { revision: None }));
    assert_eq!(block_on(etcd.call(&compaction)), Err(Error::Compacted { revision: None }), "once is all");
}

#[test]
fn a_lease_is_kept_as_long_as_somebody_has_it() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    block_on(async {
        let lease = etcd.lease(2 * SECOND).await.unwrap();
        let request = PutRequest { lease: lease.id(), ..put("leased", "1") };
        etcd.call(&request).await.unwrap();
        let (begun, first) = (Instant::now(), lease.held_until().unwrap());
        assert!(first > begun + SECOND && first < begun + 2 * SECOND, "{:?}", first - begun);
        while begun.elapsed() < 5 * SECOND {
            assert!(lease.held_until().unwrap() > Instant::now());
            assert_eq!(value(&etcd.call(&get("leased")).await.unwrap()), Some(&b"1"[..]));
        }
        assert!(cluster.ctl(&["lease", "list"]).contains(&format!("{:x}", lease.id())));
        let ask = LeaseTimeToLiveRequest { id: lease.id(), keys: true };
        let found = etcd.call(&ask).await.unwrap();
        assert_eq!((found.granted_ttl, &found.keys[..]), (2, &[Bytes::from_static(b"leased")][..]));
        let forgotten = etcd.lease(2 * SECOND).await.unwrap();
        etcd.call(&PutRequest { lease: forgotten.id(), ..put("forgotten", "1") }).await.unwrap();
        lease.revoke().await.unwrap();
        assert_eq!(value(&etcd.call(&get("leased")).await.unwrap()), None);
        let id = forgotten.id();
        drop(forgotten);
        wait_until("a lease that nobody keeps ends", || {
            block_on(etcd.call(&LeaseTimeToLiveRequest { id, keys: false })).unwrap().ttl == -1
        });
        assert_eq!(value(&etcd.call(&get("forgotten")).await.unwrap()), None);
    });
}

#[test]
fn a_lease_that_cannot_be_renewed_is_given_up_before_it_ends_at_etcd() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    let lease = block_on(etcd.lease(3 * SECOND)).unwrap();
    cluster.stop(0);
    let until = lease.held_until().unwrap();
    block_on(lease.lost());
    let lost = Instant::now();
    assert!(lost < until + SECOND && lost > until - SECOND, "{:?} {:?}", lost - until, until - lost);
    assert_eq!(lease.held_until(), None);
    cluster.go_on(0);
    block_on(etcd.call(&get("k"))).unwrap();
    assert_eq!(lease.held_until(), None, "what is lost stays lost");
}

#[test]
fn members_status_and_alarms_are_read() {
    let cluster = EtcdCluster::start(1);
    let etcd = client(cluster.endpoints());
    block_on(async {
        let status = etcd.call(&StatusRequest {}).await.unwrap();
        assert!(status.leader != 0 && status.version.starts_with("3.") && status.db_size > 0, "{status:?}");
        let members = etcd.call(&MemberListRequest::default()).await.unwrap().members;
        assert_eq!(members[0].client_urls, cluster.endpoints());
        let alarms = AlarmRequest { action: AlarmAction::Get.into(), ..AlarmRequest::default() };
        assert_eq!(etcd.call(&alarms).await.unwrap().alarms, []);
    });
}

#[test]
fn a_full_etcd_says_so_and_reads_go_on() {
    // 64 KiB more than an empty file has.
    let cluster = EtcdCluster::start_with(1, &["--quota-backend-bytes", "100000"]);
    let etcd = client(cluster.endpoints());
    block_on(async {
        let full = loop {
            if let Err(error) = etcd.call(&put("k", vec![1; 20_000])).await {
                break error;
            }
        };
        assert_eq!(full, Error::NoSpace);
        assert!(cluster.ctl(&["alarm", "list"]).contains("NOSPACE"));
        assert_eq!(etcd.call(&get("none")).await.unwrap().count, 0);
    });
}

#[test]
fn where_nobody_answers_callers_are_told_in_time() {
    let port = Port::take();
    let etcd = client(vec![format!("http://127.0.0.1:{}", port.number())]);
    let begun = Instant::now();
    let error = block_on(etcd.call(&put("k", "v"))).unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < 5 * SECOND, "{:?}", begun.elapsed());
}

#[test]
fn what_is_no_etcd_is_refused_whatever_it_says() {
    let http1 = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n".to_vec();
    // SETTINGS, and then frames of kinds, lengths and streams that nobody may send.
    let settings = vec![0, 0, 0, 4, 0, 0, 0, 0, 0];
    let strange = [settings.clone(), vec![0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 9]].concat();
    let go_away = [settings.clone(), vec![0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 11]].concat();
    // HEADERS for stream 1 that cannot be unpacked.
    let bad_headers = [settings, vec![0, 0, 3, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff]].concat();
    for said in [http1, strange, go_away, bad_headers, Vec::new()] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                let said = said.clone();
                std::thread::spawn(move || {
                    let mut theirs = [0; 4096];
                    let _heard = stream.read(&mut theirs);
                    let _gone = stream.write_all(&said);
                    if !said.is_empty() {
                        while matches!(stream.read(&mut theirs), Ok(1..)) {}
                    }
                });
            }
        });
        let mut config = Config::new([endpoint]);
        config.deadline = SECOND;
        let etcd = Etcd::connect(config).unwrap();
        let begun = Instant::now();
        let error = block_on(etcd.call(&put("k", "v"))).unwrap_err();
        assert!(
            matches!(error, Error::Unavailable { .. } | Error::Unknown { .. } | Error::Malformed { .. }),
            "{error:?}"
        );
        assert!(begun.elapsed() < 3 * SECOND);
    }
}

#[test]
fn members_of_two_clusters_are_told_apart() {
    let (one, other) = (EtcdCluster::start(1), EtcdCluster::start(1));
    let etcd = client([one.endpoints(), other.endpoints()].concat());
    let found = block_on(async { [etcd.call(&get("k")).await, etcd.call(&get("k")).await] });
    assert!(found[0].is_ok(), "{found:?}");
    assert!(matches!(found[1], Err(Error::OtherCluster { .. })), "{found:?}");
}
