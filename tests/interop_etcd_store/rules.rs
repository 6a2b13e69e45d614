//! What engines have to hold (`store/mod.rs`), and what this one promises beyond.

use std::collections::BTreeMap;

use kvnode::etcd::message::{Bytes, DeleteRangeRequest, PutRequest, RangeRequest};
use kvnode::store::scan::at_once;
use kvnode::store::{NoteDone, OpenError, Order, Page, PendingMany, Shows, UpdateMany, Visit};

use super::support::wait_until;
use super::*;

#[test]
fn what_is_written_is_read_at_once_and_by_others_and_after_a_restart() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let (here, there) = (first.open(&names("a")).unwrap(), second.open(&names("a")).unwrap());
    let told = others(&there);
    let (k, v) = (term(1), binary(b"v"));
    let wrote = put(&here, &k, &v).unwrap();
    let revision = wrote.changes[0].1.as_ref().unwrap().1;
    assert_eq!((wrote.seq, wrote.numbers.clone()), (2, vec![revision]));
    assert_eq!(wrote.changes, [(k.clone(), Some((v.clone(), revision)))]);
    assert_eq!(get(&here, &k), Some((v.clone(), revision)));
    assert!(here.revision() >= revision);
    wait_until("the other one has it", || !told.lock().is_empty());
    assert_eq!(get(&there, &k), Some((v.clone(), revision)), "the revision is the same everywhere");
    assert_eq!(told.lock()[0], wrote);
    assert_eq!((here.len(), here.bytes(), here.seq()), (1, (k.len() + v.len()) as u64, 2));
    assert_eq!(delete(&here, &k).unwrap().changes, [(k.clone(), None)]);
    assert_eq!(delete(&here, &k).unwrap().seq, 4, "a deletion of nothing has a number too");
    assert_eq!(get(&here, &k), None);
    wait_until("the other one has it", || get(&there, &k).is_none());
    let again = put(&there, &k, &v).unwrap().changes[0].1.clone().unwrap().1;
    assert!(again > revision, "also over deletions and processes");
    wait_until("it comes back", || get(&here, &k).is_some());
    first.close();
    assert_eq!(put(&here, &k, &v), Err(StoreError::Io("terminated")));
    let third = engine(&cluster);
    let third_store = third.open(&names("a")).unwrap();
    assert_eq!(get(&third_store, &k), Some((v, again)));
    assert_eq!(third_store.seq(), 1, "numbers are of the process");
}

#[test]
fn names_lead_to_one_store_from_everywhere_and_belong_to_no_two() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let both = vec!["global:a".to_owned(), "local:=/é".to_owned()];
    let here = first.open(&both).unwrap();
    put(&here, &term(1), &term(2)).unwrap();
    let there = second.open(&both[1..]).unwrap();
    assert_eq!(get(&there, &term(1)).unwrap().0, term(2));
    let other = second.open(&names("b")).unwrap();
    assert_eq!((get(&other, &term(1)), other.len()), (None, 0));
    put(&other, &term(1), &term(3)).unwrap();
    assert_eq!(get(&here, &term(1)).unwrap().0, term(2));
    let split = vec!["global:b".to_owned(), "global:a".to_owned()];
    assert!(matches!(first.open(&split), Err(OpenError::Names { .. })));
    let away = EtcdEngine::new(Etcd::connect(Config::new(["http://127.0.0.1:1"])).unwrap(), "kvnode");
    let refused = away.open(&names("a")).map(|_| ());
    assert!(matches!(&refused, Err(OpenError::EtcdAway { .. })), "{refused:?}");
}

/// A note as it is read.
fn note(store: &EtcdStore, name: &str) -> Option<Vec<u8>> {
    let read = |done: NoteDone| store.notes().unwrap().read(name, done);
    wait(read).unwrap().unwrap()
}

#[test]
fn notes_are_kept_behind_what_was_asked_before() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let here = first.open(&names("a")).unwrap();
    assert_eq!(note(&here, "slaves"), None);
    let answers: Vec<Answer> =
        (0..300).map(|number| asked(|done| _ = here.put(&term(number), value(&term(1)), || done))).collect();
    for text in [&b"one"[..], b"two"] {
        let written = |done: Done| here.notes().unwrap().write("slaves", text, done);
        assert_eq!(wait(written).unwrap(), Ok(()));
    }
    for answer in answers {
        assert!(answer.try_recv().unwrap().is_ok(), "what was asked before is done");
    }
    assert_eq!((note(&here, "slaves"), note(&here, "primary")), (Some(b"two".to_vec()), None));
    let there = second.open(&names("a")).unwrap();
    assert_eq!((note(&there, "slaves"), there.len()), (Some(b"two".to_vec()), 300));
}

/// Puts, or deletes, several keys.
struct All {
    changes: Vec<Option<Vec<u8>>>,
    looks: bool,
    tell: mpsc::Sender<Result<Option<Wrote>, StoreError>>,
}

impl UpdateMany for All {
    fn looks(&self) -> bool {
        self.looks
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Change<'_>)) {
        assert!(self.looks || present.iter().all(Option::is_none));
        for (at, bytes) in self.changes.iter().enumerate() {
            change(at, bytes.as_ref().map_or(Change::Delete, |bytes| Change::Put(value(bytes))));
        }
    }
}

impl PendingMany for All {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        self.tell.send(result.map(|written| written.map(Wrote::from))).unwrap();
    }
}

fn change_all(store: &EtcdStore, keys: &[Vec<u8>], changes: Vec<Option<Vec<u8>>>, looks: bool) -> Answer {
    let (tell, told) = mpsc::channel();
    let keys: Vec<&[u8]> = keys.iter().map(Vec::as_slice).collect();
    let mut all = All { changes: changes.clone(), looks, tell: tell.clone() };
    let later = |_: &mut All| -> Box<dyn PendingMany> { Box::new(All { changes, looks, tell }) };
    assert_eq!(store.update_many(&keys, &mut all, later), None);
    told
}

#[test]
fn several_keys_change_together_under_one_number_here_and_there() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let (here, there) = (first.open(&names("a")).unwrap(), second.open(&names("a")).unwrap());
    let told = others(&there);
    let keys: Vec<Vec<u8>> = (0..119).map(term).collect();
    for looks in [true, false] {
        let some = vec![Some(term(7)); keys.len()];
        let wrote = change_all(&here, &keys, some, looks).recv().unwrap().unwrap().unwrap();
        assert_eq!(wrote.changes.len(), keys.len());
        let many: Vec<Vec<u8>> = (0..200).map(term).collect();
        let refused = change_all(&here, &many, vec![Some(term(7)); many.len()], looks).recv().unwrap();
        assert_eq!(refused, Err(StoreError::TooMany(119)));
    }
    wait_until("the other one has both", || told.lock().len() == 2);
    assert!(told.lock().iter().all(|wrote| wrote.changes.len() == keys.len()));
    let wrote =
        change_all(&here, &keys[..2], vec![None, Some(term(8))], true).recv().unwrap().unwrap().unwrap();
    let revision = wrote.changes[1].1.clone().unwrap().1;
    assert_eq!(wrote.changes, [(keys[0].clone(), None), (keys[1].clone(), Some((term(8), revision)))]);
    assert_eq!((get(&here, &keys[0]), get(&here, &keys[1])), (None, Some((term(8), revision))));
}

/// A change with its number; `None`: all keys went.
type Event = (u64, Option<(Vec<u8>, Found)>);

#[test]
fn each_change_has_the_number_that_it_has_at_its_writer_in_all_processes() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let (here, there) = (first.open(&names("a")).unwrap(), second.open(&names("a")).unwrap());
    let told = others(&there);
    let mut answers = Vec::new();
    for round in 0..40 {
        // In an order that is not that of the keys, some of them there and some not.
        for key in [7, 3, 5, 1] {
            let key = term(key + round % 3);
            answers.push(asked(|done| match round % 4 {
                0 => _ = here.delete(&key, || done),
                _ => _ = here.put(&key, value(&term(round)), || done),
            }));
        }
        let keys: Vec<Vec<u8>> = [9, 4, 8].map(|key| term(key + round % 2)).to_vec();
        let changes = vec![None, Some(term(round)), (round % 2 == 0).then(|| term(round))];
        answers.push(change_all(&here, &keys, changes, round % 3 == 0));
        if round % 16 == 9 {
            answers.push(asked(|done| assert!(here.clear(|| done).is_none())));
        }
    }
    let of = |wrote: &Wrote| -> Vec<Event> {
        let changes = wrote.changes.iter().cloned().map(Some);
        let changes = changes.chain(wrote.changes.is_empty().then_some(None));
        wrote.numbers.iter().copied().zip(changes).collect()
    };
    let written: Vec<Wrote> =
        answers.into_iter().map(|answer| answer.recv().unwrap().unwrap().unwrap()).collect();
    let written: Vec<_> = written.iter().flat_map(of).collect();
    assert!(written.is_sorted_by(|(one, _), (other, _)| one < other), "{written:?}");
    catch_up(&there);
    let shown: Vec<_> = told.lock().iter().flat_map(of).collect();
    assert!(shown.len() > 100 && shown.is_sorted_by(|(one, _), (other, _)| one < other), "{shown:?}");
    let written: BTreeMap<_, _> = written.into_iter().collect();
    assert!(shown.iter().all(|(number, change)| written.get(number) == Some(change)), "{shown:?}");
    // A process that is cut off behind any change at the writer goes on here.
    let held = |told: &mut dyn Iterator<Item = Event>| {
        told.fold(BTreeMap::new(), |mut held, (_, change)| {
            match change {
                None => held.clear(),
                Some((key, found)) => _ = held.insert(key, found),
            }
            held.retain(|_, found| found.is_some());
            held
        })
    };
    let all = held(&mut written.clone().into_iter());
    for cut in written.keys() {
        let before = written.range(..=cut).map(|(number, change)| (*number, change.clone()));
        let behind = shown.iter().filter(|(number, _)| number > cut).cloned();
        assert_eq!(held(&mut before.chain(behind)), all, "behind {cut}");
    }
}

#[test]
fn what_is_too_large_is_refused_with_the_bound_and_what_is_not_is_kept() {
    let cluster = EtcdCluster::start(1);
    let first = engine(&cluster);
    let store = first.open(&names("a")).unwrap();
    let large = binary(&vec![7; 2 << 20]);
    let Err(StoreError::TooLarge(bound)) = put(&store, &term(1), &large) else { panic!("it is too large") };
    // The head of a binary is five bytes, the key two, and it counts twice.
    let fits = binary(&vec![7; bound as usize - 9]);
    put(&store, &term(1), &fits).unwrap();
    assert_eq!(get(&store, &term(1)).unwrap().0, fits);
    let over = binary(&vec![7; bound as usize - 8]);
    assert_eq!(put(&store, &term(2), &over), Err(StoreError::TooLarge(bound)));
    // What else goes with it is not in its way.
    let answers =
        [&over, &fits, &over].map(|bytes| asked(|done| _ = store.put(&term(3), value(bytes), || done)));
    let answers = answers.map(|answer| answer.recv().unwrap().is_ok());
    assert_eq!(answers, [false, true, false]);
    let again = engine(&cluster);
    assert_eq!(get(&again.open(&names("a")).unwrap(), &term(3)).unwrap().0, fits);
}

#[test]
fn a_clear_is_one_write_here_and_there_and_what_comes_behind_it_stays() {
    let cluster = EtcdCluster::start(1);
    let (first, second) = (engine(&cluster), engine(&cluster));
    let (here, there) = (first.open(&names("a")).unwrap(), second.open(&names("a")).unwrap());
    let answers: Vec<Answer> =
        (0..1000).map(|number| asked(|done| _ = here.put(&term(number), value(&term(1)), || done))).collect();
    assert!(answers.into_iter().all(|answer| answer.recv().unwrap().is_ok()));
    wait_until("the other one has all", || there.len() == 1000);
    let told = others(&there);
    let cleared = asked(|done| assert!(here.clear(|| done).is_none()));
    let behind = asked(|done| _ = here.put(&term(1), value(&term(2)), || done));
    assert_eq!(get(&here, &term(2)), None, "a read behind it waits for it");
    assert_eq!(get(&here, &term(1)).unwrap().0, term(2));
    let wrote = cleared.recv().unwrap().unwrap().unwrap();
    assert_eq!((wrote.changes, behind.recv().unwrap().unwrap().unwrap().seq), (Vec::new(), wrote.seq + 1));
    wait_until("the other one has both", || told.lock().len() == 2);
    assert_eq!(told.lock()[0].changes, []);
    assert_eq!((there.len(), get(&there, &term(1)).unwrap().0), (1, term(2)));
}

#[test]
fn deadlines_scans_and_pages_show_what_is_there() {
    let cluster = EtcdCluster::start(1);
    let first = engine(&cluster).ordered(true);
    let store = first.open(&names("a")).unwrap();
    for number in 0..50 {
        let bytes = term(number);
        let value = Value { deadline: if number < 10 { 100 + number } else { 0 }, ..value(&bytes) };
        asked(|done| _ = store.put(&term(number), value, || done)).recv().unwrap().unwrap();
    }
    let again = engine(&cluster).ordered(true);
    for store in [store, again.open(&names("a")).unwrap()] {
        assert_eq!((store.deadlines(), store.next_due().is_some_and(|due| due <= 100)), (10, true));
        let due = store.due(104, 100, || unreachable!("at once")).unwrap();
        assert_eq!(due.keys.len(), 5);
        let mut seen = BTreeMap::new();
        for part in 0..store.parts() {
            let mut scan = store.scan(Some(part), Shows::Pairs);
            loop {
                let batch = at_once(&mut *scan).unwrap().unwrap();
                seen.extend(batch.iter().map(|(key, value)| (key.to_vec(), value.unwrap().bytes.to_vec())));
                if batch.is_last {
                    break;
                }
            }
        }
        assert_eq!(seen, (0..50).map(|number| (term(number), term(number))).collect());
        let range = kvnode::etf::order::TermRange::default();
        let order = Order::OfTerms { range: &range, reverse: false };
        let mut keys = Vec::new();
        let page = store.page(order, None, Shows::Keys, &mut |key, _| {
            keys.push(key.to_vec());
            Visit::Next
        });
        assert_eq!((page, keys), (Ok(Page::Last), (0..50).map(term).collect()));
    }
}

#[test]
fn a_reader_that_catches_up_finds_what_another_process_was_answered() {
    let cluster = EtcdCluster::start(1);
    let engines = [engine(&cluster), engine(&cluster)];
    let stores = engines.each_ref().map(|engine| engine.open(&names("a")).unwrap());
    let catch_up = |store: &EtcdStore| wait(|done: Done| store.catch_up(done)).unwrap();
    assert_eq!(catch_up(&stores[0]), Ok(()), "of nothing");
    for round in 0..100 {
        let (here, there) = (&stores[round % 2], &stores[(round + 1) % 2]);
        let key = term(round as u64 % 3);
        let wrote = if round % 4 == 3 { delete(here, &key) } else { put(here, &key, &term(round as u64)) };
        let written = wrote.unwrap().changes[0].1.clone();
        assert_eq!(catch_up(there), Ok(()));
        assert_eq!(get(there, &key), written, "round {round}");
        // What others do to the same etcd is not waited for.
        if round % 10 == 0 {
            cluster.ctl(&["put", "elsewhere", "1"]);
        }
    }
    engines.iter().for_each(Engine::close);
}

#[test]
fn what_others_put_there_is_shown_where_it_can_be_and_does_no_harm_where_not() {
    let cluster = EtcdCluster::start(1);
    let first = engine(&cluster);
    let store = first.open(&names("a")).unwrap();
    let told = others(&store);
    put(&store, &term(1), &term(2)).unwrap();
    let etcd = Etcd::connect(Config::new(cluster.endpoints())).unwrap();
    let at = |key: &[u8]| Bytes::from([b"kvnode/global:a/e/", key].concat());
    let foreign = |key: &[u8], value: &[u8]| {
        let request =
            PutRequest { key: at(key), value: Bytes::copy_from_slice(value), ..PutRequest::default() };
        kvnode::block_on(etcd.call(&request)).unwrap();
    };
    foreign(b"no term", &[&[0][..], &term(1)].concat());
    foreign(&term(3), b"no head of ours");
    foreign(&term(1), &[0x83]);
    foreign(&term(4), &[&[0][..], &term(5)].concat());
    wait_until("what can be read is there", || get(&store, &term(4)).is_some_and(|found| found.0 == term(5)));
    assert_eq!((get(&store, &term(1)), get(&store, &term(3)), store.len()), (None, None, 1));
    // Nobody decides on what cannot be read.
    let decided = count(&store, &term(3)).recv().unwrap();
    assert_eq!(decided, Err(StoreError::Io("damaged")));
    put(&store, &term(3), &term(6)).unwrap();
    assert_eq!(
        count(&store, &term(3)).recv().unwrap().unwrap().unwrap().changes[0].1.as_ref().unwrap().0,
        term(7)
    );
    // The mark of a writer goes: it writes on.
    let marks = DeleteRangeRequest {
        key: Bytes::from_static(b"kvnode/global:a/w/"),
        range_end: Bytes::from_static(b"kvnode/global:a/w0"),
        ..DeleteRangeRequest::default()
    };
    assert_eq!(kvnode::block_on(etcd.call(&marks)).unwrap().deleted, 1);
    put(&store, &term(8), &term(9)).unwrap();
    let read = RangeRequest { key: at(&term(8)), ..RangeRequest::default() };
    assert_eq!(kvnode::block_on(etcd.call(&read)).unwrap().kvs.len(), 1);
    assert!(told.lock().iter().all(|wrote| wrote.changes.len() == 1));
}
