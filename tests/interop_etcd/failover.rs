//! Three members: the leader is killed, or stopped, while writes and a watch go on. Nothing that was acknowledged is lost, and the
//! watch has neither gap nor repeat.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvnode::block_on;
use kvnode::etcd::message::{Bytes, Compare, Effect, Op, PutRequest, RangeRequest, TxnRequest, prefix_end};
use kvnode::etcd::{Ask, Error, Etcd, Watch, WatchEvent, WatchOptions};

use super::support::{EtcdCluster, wait_until};
use super::{client, get, put, value};

const WRITERS: usize = 8;
const SECOND: Duration = Duration::from_secs(1);

/// What writers have seen.
#[derive(Default)]
struct Seen {
    /// The keys that were acknowledged, each with its revision.
    acknowledged: BTreeMap<Bytes, i64>,
    /// How often nobody could say.
    unknown: usize,
    longest: Duration,
}

/// Writes new keys one after the other until it is told to end.
fn write(etcd: &Etcd, writer: usize, ends: &AtomicBool, done: &AtomicU64) -> Seen {
    let mut seen = Seen::default();
    for at in 0.. {
        if ends.load(Ordering::Acquire) {
            break;
        }
        let key = Bytes::from(format!("f/{writer}/{at:06}"));
        let begun = Instant::now();
        let answer = block_on(etcd.call(&put(key.clone(), "v")));
        seen.longest = seen.longest.max(begun.elapsed());
        match answer {
            Ok(answer) => {
                seen.acknowledged.insert(key, answer.header.unwrap().revision);
                done.fetch_add(1, Ordering::AcqRel);
            }
            Err(Error::Unknown { .. }) => seen.unknown += 1,
            Err(Error::Unavailable { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    seen
}

/// What a watch tells, until it has told of the last key.
fn follow(mut watch: Watch, cuts: &AtomicU64) -> Vec<(Bytes, i64)> {
    let mut told = Vec::new();
    loop {
        match block_on(watch.next()).unwrap() {
            WatchEvent::Changes(events) => {
                let entries = events.into_iter().map(|event| event.kv.unwrap());
                told.extend(entries.map(|kv| (kv.key, kv.mod_revision)));
                if told.last().is_some_and(|(key, _)| key == "f/last") {
                    return told;
                }
            }
            WatchEvent::Cut { .. } => drop(cuts.fetch_add(1, Ordering::AcqRel)),
            _ => {}
        }
    }
}

fn writes_and_watch_outlive(
    what: &str,
    strike: fn(&mut EtcdCluster, usize),
    heal: fn(&mut EtcdCluster, usize),
) {
    let mut cluster = EtcdCluster::start(3);
    let etcd = client(cluster.endpoints());
    let from = block_on(etcd.call(&put("f/first", "v"))).unwrap().header.unwrap().revision;
    // Members are asked in turn: one of these is the leader's.
    let watches: Vec<Watch> = (0..3)
        .map(|_| {
            let mut watch = etcd.watch(WatchOptions::prefix("f/").from_revision(from));
            assert_eq!(block_on(watch.next()), Ok(WatchEvent::Opened { next_revision: from }));
            watch
        })
        .collect();
    let (ends, done, cuts) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let wait_for_more = |what: &str| {
        let goal = done.load(Ordering::Acquire) + 200;
        wait_until(what, || done.load(Ordering::Acquire) >= goal);
    };
    let (seen, told) = std::thread::scope(|scope| {
        let followers: Vec<_> =
            watches.into_iter().map(|watch| scope.spawn(|| follow(watch, &cuts))).collect();
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (etcd, ends, done) = (&etcd, &ends, &done);
                scope.spawn(move || write(etcd, writer, ends, done))
            })
            .collect();
        wait_for_more("writes begin");
        for _ in 0..2 {
            let leader = cluster.leader();
            strike(&mut cluster, leader);
            wait_until("the leader's watch is cut", || cuts.load(Ordering::Acquire) > 0);
            wait_for_more("writes go on without the leader");
            heal(&mut cluster, leader);
            cluster.wait_until_healthy(leader);
            wait_for_more("writes go on with all");
        }
        ends.store(true, Ordering::Release);
        let seen: Vec<Seen> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        wait_until("the last is written", || block_on(etcd.call(&put("f/last", "v"))).is_ok());
        let told: Vec<_> = followers.into_iter().map(|follower| follower.join().unwrap()).collect();
        (seen, told)
    });
    let range = RangeRequest { range_end: prefix_end(b"f/").into(), ..get("f/") };
    let mut pages = etcd.pages(range);
    let mut kept = BTreeMap::new();
    while let Some(page) = block_on(pages.next()).unwrap() {
        kept.extend(page.into_iter().map(|kv| (kv.key, kv.mod_revision)));
    }
    let acknowledged: usize = seen.iter().map(|seen| seen.acknowledged.len()).sum();
    for (key, revision) in seen.iter().flat_map(|seen| &seen.acknowledged) {
        assert_eq!(kept.get(key), Some(revision), "{key:?} was acknowledged");
    }
    // Each key was written once, but for the last.
    kept.remove(&b"f/last"[..]);
    for told in told {
        let told: Vec<(Bytes, i64)> = told.into_iter().filter(|(key, _)| key != "f/last").collect();
        assert!(told.is_sorted_by_key(|(_, revision)| *revision), "in order");
        let once: BTreeSet<&Bytes> = told.iter().map(|(key, _)| key).collect();
        assert_eq!(once.len(), told.len(), "nothing twice");
        assert_eq!(told.into_iter().collect::<BTreeMap<_, _>>(), kept, "no gap");
    }
    let longest = seen.iter().map(|seen| seen.longest).max().unwrap();
    let unknown: usize = seen.iter().map(|seen| seen.unknown).sum();
    println!("{what}: {acknowledged} acknowledged, {unknown} unknown, longest {longest:?}, {cuts:?} cuts");
    assert!(longest < 5 * SECOND, "a caller's deadline is 4 s: {longest:?}");
}

#[test]
fn nothing_is_lost_when_the_leader_is_killed() {
    writes_and_watch_outlive("killed", EtcdCluster::kill, EtcdCluster::run);
}

#[test]
fn nothing_is_lost_when_the_leader_is_stopped() {
    writes_and_watch_outlive("stopped", |cluster, at| cluster.stop(at), |cluster, at| cluster.go_on(at));
}

#[test]
fn a_lease_outlives_the_leader_and_is_never_believed_longer_than_etcd_has_it() {
    let mut cluster = EtcdCluster::start(3);
    let etcd = client(cluster.endpoints());
    let lease = block_on(etcd.lease(5 * SECOND)).unwrap();
    let leased = PutRequest { lease: lease.id(), ..put("leased", "v") };
    block_on(etcd.call(&leased)).unwrap();
    let begun = Instant::now();
    let (mut leaders, mut reads) = (vec![cluster.leader()], 0);
    cluster.kill(leaders[0]);
    // Past the time of two leases, so that several renewals were heard of.
    while begun.elapsed() < 11 * SECOND {
        let until = lease.held_until().expect("it is renewed elsewhere");
        let found = block_on(etcd.call(&get("leased")));
        // A read is as of a moment before its answer.
        if Instant::now() < until
            && let Ok(found) = found
        {
            assert_eq!(value(&found), Some(&b"v"[..]), "held for {:?} more", until - Instant::now());
            reads += 1;
        }
    }
    leaders.push(cluster.leader());
    assert!(reads > 10 && leaders[0] != leaders[1], "{reads} reads, {leaders:?}");
    // Nobody can renew it now: it is given up, and only then ends at etcd.
    (0..3).filter(|at| *at != leaders[0]).for_each(|at| cluster.stop(at));
    block_on(lease.lost());
    assert_eq!(lease.held_until(), None);
}

#[test]
fn a_member_that_is_down_costs_callers_nothing_and_is_asked_again_when_it_is_back() {
    let mut cluster = EtcdCluster::start(3);
    let etcd = client(cluster.endpoints());
    let follower = (cluster.leader() + 1) % 3;
    block_on(etcd.call(&put("k", "v"))).unwrap();
    cluster.stop(follower);
    wait_until("it is noticed", || !etcd.good_members()[follower]);
    for _ in 0..30 {
        let begun = Instant::now();
        assert_eq!(value(&block_on(etcd.call(&get("k"))).unwrap()), Some(&b"v"[..]));
        assert!(begun.elapsed() < SECOND, "{:?}", begun.elapsed());
    }
    cluster.go_on(follower);
    wait_until("it is back", || etcd.good_members()[follower]);
    cluster.kill(follower);
    wait_until("it is noticed", || !etcd.good_members()[follower]);
    cluster.run(follower);
    wait_until("it is back", || etcd.good_members()[follower]);
}

#[test]
fn without_a_majority_nothing_is_written_and_a_guarded_write_is_done_once_when_it_is_back() {
    let mut cluster = EtcdCluster::start(3);
    let etcd = client(cluster.endpoints());
    block_on(etcd.call(&put("k", "v"))).unwrap();
    let leader = cluster.leader();
    let others: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
    others.iter().for_each(|at| cluster.kill(*at));
    let begun = Instant::now();
    let error = block_on(etcd.call(&put("k", "w"))).unwrap_err();
    assert!(matches!(error, Error::Unknown { .. } | Error::Unavailable { .. }), "{error:?}");
    assert!(begun.elapsed() < 5 * SECOND);
    let guarded = TxnRequest {
        compare: vec![Compare::is_absent("once")],
        success: vec![Op::Put(put("once", "1")).into()],
        ..TxnRequest::default()
    };
    let ask = Ask { effect: Some(Effect::Guarded), deadline: Some(20 * SECOND) };
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| block_on(etcd.call_with(&guarded, ask)));
        wait_until("nobody is asked", || !etcd.good_members().contains(&true));
        others.iter().for_each(|at| cluster.run(*at));
        // The first try that was done may not have been heard of: then a later one finds the key.
        writer.join().unwrap().unwrap();
    });
    let found = block_on(etcd.call(&get("once"))).unwrap();
    assert_eq!((value(&found), found.kvs[0].version), (Some(&b"1"[..]), 1));
}
