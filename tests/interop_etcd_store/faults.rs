//! Counters of two processes add up, whatever becomes of etcd: no step is lost that was answered, and none is done twice.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use kvnode::store::EtcdState;

use super::support::{Proxy, wait_until};
use super::*;

const KEYS: u64 = 4;

/// What became of the steps of one caller.
#[derive(Default)]
struct Steps {
    done: u64,
    unknown: u64,
    unavailable: u64,
    longest: Duration,
}

/// Counts one key after the other, until it is told to end; some at once.
fn counts(store: &EtcdStore, caller: u64, ends: &AtomicBool) -> Steps {
    let mut steps = Steps::default();
    for at in 0.. {
        if ends.load(Ordering::Acquire) {
            return steps;
        }
        let begun = Instant::now();
        let answers: Vec<Answer> =
            (0..2).map(|more| count(store, &term((at * caller + more) % KEYS))).collect();
        for answer in answers {
            match answer.recv().unwrap() {
                Ok(_) => steps.done += 1,
                Err(StoreError::Unknown) => steps.unknown += 1,
                Err(StoreError::Unavailable) => steps.unavailable += 1,
                Err(error) => panic!("{error:?}"),
            }
        }
        steps.longest = steps.longest.max(begun.elapsed());
    }
    unreachable!("it counts without end")
}

/// The sum of all counters.
fn sum(store: &EtcdStore) -> u64 {
    let number = |bytes: Vec<u8>| (0..).find(|number| term(*number) == bytes).unwrap();
    (0..KEYS).filter_map(|key| get(store, &term(key))).map(|(bytes, _)| number(bytes)).sum()
}

fn counters_add_up_while(what: &str, cluster: &mut EtcdCluster, strike: impl FnOnce(&mut EtcdCluster)) {
    let engines = [engine(cluster), engine(cluster)];
    let stores = engines.each_ref().map(|engine| engine.open(&names("a")).unwrap());
    let ends = AtomicBool::new(false);
    let steps: Vec<Steps> = std::thread::scope(|scope| {
        let callers: Vec<_> = (1..=4)
            .map(|caller| {
                let (store, ends) = (&stores[caller as usize % 2], &ends);
                scope.spawn(move || counts(store, caller, ends))
            })
            .collect();
        wait_until("counters move", || sum(&stores[0]) > 40);
        strike(cluster);
        ends.store(true, Ordering::Release);
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    for store in &stores {
        wait_until("all is settled", || settle(store) == Ok(()));
    }
    wait_until("both have all", || sum(&stores[0]) == sum(&stores[1]));
    let of = |count: fn(&Steps) -> u64| steps.iter().map(count).sum::<u64>();
    let (done, unknown) = (of(|steps| steps.done), of(|steps| steps.unknown));
    let longest = steps.iter().map(|steps| steps.longest).max().unwrap();
    let counted = sum(&stores[0]);
    println!(
        "{what}: {done} done, {unknown} unknown, {} unavailable, {counted} counted, longest {longest:?}",
        of(|steps| steps.unavailable)
    );
    assert!((done..=done + unknown).contains(&counted), "{done} done, {unknown} unknown, {counted} counted");
    assert!(longest < Duration::from_millis(4900), "{longest:?}");
    // What is there is what etcd has.
    let fresh = engine(cluster);
    assert_eq!(sum(&fresh.open(&names("a")).unwrap()), counted);
    engines.iter().chain([&fresh]).for_each(Engine::close);
}

fn wait_for_more(store: &EtcdStore) {
    let before = sum(store);
    wait_until("counters move again", || sum(store) > before + 20);
}

/// Where no member takes a connection it is certain that nothing was sent: no write ends as unknown, however its patience and that of the client meet.
#[test]
fn what_is_written_while_all_of_etcd_is_away_was_surely_not_done() {
    let mut cluster = EtcdCluster::start(3);
    let engine = engine(&cluster);
    let store = engine.open(&names("a")).unwrap();
    put(&store, &term(0), &term(0)).unwrap();
    (0..3).for_each(|member| cluster.kill(member));
    wait_until("it is noticed", || store.state() == EtcdState::Cut);
    let begun = Instant::now();
    let answers: Vec<Answer> = (1..=20)
        .map(|key| {
            std::thread::sleep(Duration::from_millis(53));
            asked(|done| assert_eq!(store.put(&term(key), value(&term(1)), || done), None))
        })
        .collect();
    let answers: Vec<_> = answers.into_iter().map(|answer| answer.recv().unwrap()).collect();
    println!("all of etcd is away: the last answer after {:?}", begun.elapsed());
    assert_eq!(answers, vec![Err(StoreError::Unavailable); 20]);
    (0..3).for_each(|member| cluster.run(member));
    wait_until("it takes writes", || put(&store, &term(0), &term(1)).is_ok());
    assert_eq!(store.len(), 1);
    engine.close();
}

#[test]
fn counters_of_two_processes_add_up() {
    let mut cluster = EtcdCluster::start(1);
    let watcher = engine(&cluster);
    let store = watcher.open(&names("a")).unwrap();
    counters_add_up_while("quiet", &mut cluster, |_| wait_for_more(&store));
    watcher.close();
}

#[test]
fn so_they_do_while_etcd_is_killed_and_started_again() {
    let mut cluster = EtcdCluster::start(1);
    let watcher = engine(&cluster);
    let store = watcher.open(&names("a")).unwrap();
    counters_add_up_while("killed", &mut cluster, |cluster| {
        for _ in 0..3 {
            cluster.kill(0);
            cluster.run(0);
            cluster.wait_until_healthy(0);
            wait_for_more(&store);
        }
    });
    watcher.close();
}

#[test]
fn so_they_do_while_etcd_is_stopped_for_longer_than_anybody_waits() {
    let mut cluster = EtcdCluster::start(1);
    let watcher = engine(&cluster);
    let store = watcher.open(&names("a")).unwrap();
    counters_add_up_while("stopped", &mut cluster, |cluster| {
        cluster.stop(0);
        let answer = count(&store, &term(0));
        let answered = answer.recv().unwrap();
        assert!(matches!(answered, Err(StoreError::Unknown | StoreError::Unavailable)), "{answered:?}");
        cluster.go_on(0);
        cluster.wait_until_healthy(0);
        wait_for_more(&store);
    });
    watcher.close();
}

fn they_do_without_the_leader(
    what: &str,
    strike: fn(&mut EtcdCluster, usize),
    heal: fn(&mut EtcdCluster, usize),
) {
    let mut cluster = EtcdCluster::start(3);
    let watcher = engine(&cluster);
    let store = watcher.open(&names("a")).unwrap();
    counters_add_up_while(what, &mut cluster, |cluster| {
        for _ in 0..2 {
            let leader = cluster.leader();
            strike(cluster, leader);
            wait_for_more(&store);
            heal(cluster, leader);
            cluster.wait_until_healthy(leader);
            wait_for_more(&store);
        }
    });
    watcher.close();
}

#[test]
fn so_they_do_while_the_leader_of_three_is_killed() {
    they_do_without_the_leader("leader killed", EtcdCluster::kill, EtcdCluster::run);
}

#[test]
fn so_they_do_while_the_leader_of_three_is_stopped() {
    they_do_without_the_leader(
        "leader stopped",
        |cluster, at| cluster.stop(at),
        |cluster, at| cluster.go_on(at),
    );
}

#[test]
fn a_full_etcd_takes_no_writes_and_says_so_and_goes_on_when_it_has_room() {
    let cluster = EtcdCluster::start_with(1, &["--quota-backend-bytes", "100000"]);
    let engine = engine(&cluster);
    let store = engine.open(&names("a")).unwrap();
    let bytes = binary(&[7; 20_000]);
    let full = loop {
        if let Err(error) = put(&store, &term(1), &bytes) {
            break error;
        }
    };
    assert_eq!(full, StoreError::NoSpace);
    let (first, second) =
        (count(&store, &term(2)), asked(|done| _ = store.put(&term(3), value(&bytes), || done)));
    assert_eq!(first.recv().unwrap(), Err(StoreError::NoSpace));
    assert_eq!(second.recv().unwrap(), Err(StoreError::NoSpace));
    assert_eq!((get(&store, &term(1)).unwrap().0, get(&store, &term(3))), (bytes.clone(), None));
    let revision = store.revision() >> 8;
    cluster.ctl(&["compaction", &revision.to_string()]);
    cluster.ctl(&["defrag"]);
    cluster.ctl(&["alarm", "disarm"]);
    put(&store, &term(3), &term(3)).unwrap();
    assert_eq!(get(&store, &term(3)).unwrap().0, term(3));
    engine.close();
}

#[test]
fn what_is_asked_while_etcd_is_away_is_answered_in_time_and_reads_go_on() {
    let mut cluster = EtcdCluster::start(1);
    let engine = engine(&cluster);
    let store = engine.open(&names("a")).unwrap();
    let told = others(&store);
    put(&store, &term(1), &term(1)).unwrap();
    cluster.kill(0);
    let begun = Instant::now();
    let away = put(&store, &term(2), &term(2));
    assert!(matches!(away, Err(StoreError::Unavailable | StoreError::Unknown)), "{away:?}");
    assert!(begun.elapsed() < Duration::from_millis(4500), "{:?}", begun.elapsed());
    assert_eq!(get(&store, &term(1)).unwrap().0, term(1));
    assert_eq!(get(&store, &term(2)), None);
    cluster.run(0);
    cluster.wait_until_healthy(0);
    wait_until("it writes again", || put(&store, &term(3), &term(3)).is_ok());
    // What was answered by an error is there where it was told of as another's, and else not.
    assert_eq!(get(&store, &term(2)).is_some(), !told.lock().is_empty());
    engine.close();
}

#[test]
fn a_watch_that_was_cut_goes_on_and_where_etcd_has_compacted_a_fresh_load_follows() {
    let cluster = EtcdCluster::start(1);
    let proxy = Proxy::before(&cluster.endpoint(0));
    let first = engine(&cluster);
    let etcd = Etcd::connect(Config::new([format!("http://127.0.0.1:{}", proxy.port())])).unwrap();
    let second = EtcdEngine::new(etcd, "kvnode");
    let (here, there) = (first.open(&names("a")).unwrap(), second.open(&names("a")).unwrap());
    let told = others(&there);
    for compacts in [false, true] {
        for number in 0..4 {
            put(&here, &term(number), &term(1)).unwrap();
        }
        wait_until("the other one has all", || (0..4).all(|key| get(&there, &term(key)).is_some()));
        let before = told.lock().len();
        proxy.cut();
        let away = put(&there, &term(9), &term(9));
        assert!(matches!(away, Err(StoreError::Unavailable | StoreError::Unknown)), "{away:?}");
        put(&here, &term(0), &term(2)).unwrap();
        delete(&here, &term(1)).unwrap();
        put(&here, &term(7), &term(2)).unwrap();
        let revision = put(&here, &term(7), &term(3)).unwrap().changes[0].1.as_ref().unwrap().1;
        if compacts {
            cluster.ctl(&["compaction", &(revision >> 8).to_string()]);
        }
        assert_eq!(get(&there, &term(0)).unwrap().0, term(1), "what it has it shows");
        assert_eq!((here.state(), there.state()), (EtcdState::Following, EtcdState::Cut));
        proxy.mend();
        wait_until("it comes up", || get(&there, &term(7)) == get(&here, &term(7)));
        wait_until("it follows", || there.state() == EtcdState::Following);
        for key in 0..10 {
            assert_eq!(get(&there, &term(key)), get(&here, &term(key)), "{key}");
        }
        assert_eq!(settle(&there), Ok(()));
        let new: Vec<Wrote> = told.lock()[before..].to_vec();
        let times = |key: u64| {
            let of = |wrote: &&Wrote| wrote.changes.iter().any(|(changed, _)| *changed == term(key));
            new.iter().filter(of).count()
        };
        // A load tells the differences, and not the changes between.
        let expected = if compacts { [1, 1, 0, 0, 1] } else { [1, 1, 0, 0, 2] };
        assert_eq!([0, 1, 2, 3, 7].map(times), expected, "{new:?}");
        assert!(told.lock().is_sorted_by(|one, other| one.seq < other.seq));
        put(&there, &term(5), &term(5)).unwrap();
        delete(&there, &term(7)).unwrap();
    }
    first.close();
    second.close();
}
