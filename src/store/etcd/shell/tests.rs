//! What callers share with the thread, without the thread.

use std::sync::mpsc;

use super::*;
use crate::etf::Traits;
use crate::store::{Value, WriteDone};

fn shared() -> Arc<Shared> {
    // Nobody is there: it is asked for nothing.
    let etcd =
        Etcd::connect(crate::etcd::Config::new(["http://127.0.0.1:1"])).expect("it is no wrong address");
    Arc::new(Shared::new(etcd, b"kvnode/a/".to_vec(), MemoryStore::default(), smol::channel::bounded(1).0))
}

fn put(shared: &Shared, key: &[u8], tell: &mpsc::Sender<Option<StoreError>>) {
    let tell = tell.clone();
    let done: WriteDone = Box::new(move |result| tell.send(result.err()).expect("it is awaited"));
    shared.ask(vec![Key::from(key)], Ask::Put(Value::of(b"v", Traits::none()).to_owned(), done));
}

#[test]
fn the_end_of_the_thread_answers_all_that_waits_and_later_reads_wait_for_nothing() {
    let (shared, (tell, told)) = (shared(), mpsc::channel());
    put(&shared, b"a", &tell);
    put(&shared, b"b", &tell);
    let panics: WriteDone = Box::new(|_| panic!("a completion of a test panics"));
    shared.ask(vec![Key::from(*b"c")], Ask::Delete(panics));
    // The machine has these, and lets go of them.
    let taken = std::mem::take(&mut shared.queue.lock().asked);
    put(&shared, b"d", &tell);
    let failed = |tell: &mpsc::Sender<Option<StoreError>>| {
        let tell = tell.clone();
        move |error: Option<StoreError>| tell.send(error).expect("it is awaited")
    };
    let (one, many) = (failed(&tell), failed(&tell));
    assert!(shared.read_later(b"a", || Box::new(move |read| one(read.err()))));
    assert!(shared.read_many_later(&[b"a", b"d"], || Box::new(move |read| many(read.err()))));
    let ends = Ends(Arc::clone(&shared));
    let ended = thread::spawn(move || {
        let (_taken, _ends) = (taken, ends);
        panic!("a thread of a test panics");
    });
    assert!(ended.join().is_err());
    drop(tell);
    assert_eq!(told.iter().collect::<Vec<_>>(), vec![Some(StoreError::Io("terminated")); 5]);
    assert!(!shared.read_later(b"a", || unreachable!("nothing is waited for")));
    assert_eq!((shared.waiting_keys(), shared.state()), (Vec::new(), EtcdState::Cut));
    let (tell, told) = mpsc::channel();
    put(&shared, b"a", &tell);
    assert_eq!(told.recv(), Ok(Some(StoreError::Io("terminated"))));
}

#[test]
fn a_writer_waits_for_room_for_half_a_second_and_those_behind_it_not_at_all() {
    let (shared, (tell, told)) = (shared(), mpsc::channel());
    shared.queue.lock().bytes = QUEUE_BYTES_MAX + 1;
    let begun = now();
    put(&shared, b"a", &tell);
    assert_eq!(told.try_recv(), Ok(Some(StoreError::Unavailable)));
    assert!(begun.elapsed() >= ROOM_PATIENCE, "{:?}", begun.elapsed());
    // However long the wait of the first was, none of these waits.
    let limit = begun.elapsed() + 20 * ROOM_PATIENCE;
    for _ in 0..100 {
        put(&shared, b"a", &tell);
        assert_eq!(told.try_recv(), Ok(Some(StoreError::Unavailable)));
    }
    assert!(begun.elapsed() < limit, "{:?}", begun.elapsed());
    assert!(!shared.read_later(b"a", || unreachable!("nothing waits")));
    shared.told(&[], 0, 1, None);
    put(&shared, b"a", &tell);
    assert!(shared.read_later(b"a", || Box::new(|_| {})));
    assert_eq!((shared.queue.lock().asked.len(), told.try_recv().is_err()), (1, true));
    // A writer that waits goes on when there is room.
    shared.queue.lock().bytes = QUEUE_BYTES_MAX + 1;
    thread::scope(|scope| {
        let waits = scope.spawn(|| put(&shared, b"b", &tell));
        shared.told(&[], 0, 1, None);
        assert!(waits.join().is_ok());
    });
    assert_eq!((shared.queue.lock().asked.len(), told.try_recv().is_err()), (2, true));
}

#[test]
fn careful_reads_that_wait_are_bounded_and_one_too_many_is_answered() {
    let store = crate::store::etcd::EtcdStore(shared());
    store.read_carefully(true);
    let (tell, told) = mpsc::channel();
    let read = |key: &[u8]| {
        let tell = tell.clone();
        let done = || -> ReadDone { Box::new(move |result| tell.send(result.err()).expect("it is awaited")) };
        assert_eq!(store.get(key, |_| (), done), None);
    };
    let key = [7; 1024];
    let fit = CAREFUL_BYTES_MAX / (key.len() + 256);
    (0..fit).for_each(|_| read(&key));
    assert!(told.try_recv().is_err(), "nobody is asked yet");
    read(&key);
    assert_eq!(told.try_recv(), Ok(Some(StoreError::Io("system_limit"))));
    // What is answered makes room.
    let asked = std::mem::take(&mut store.0.queue.lock().asked);
    assert_eq!(asked.len(), fit);
    asked.into_iter().for_each(|asked| asked.tell(Err(StoreError::Unavailable)));
    assert_eq!(told.try_iter().filter(|error| *error == Some(StoreError::Unavailable)).count(), fit);
    read(&key);
    assert!(told.try_recv().is_err());
    store.0.queue.lock().asked.clear();
}

#[test]
fn a_reader_that_has_caught_up_asks_nothing_more_of_a_careful_store() {
    let store = crate::store::etcd::EtcdStore(shared());
    store.read_carefully(true);
    let (tell, told) = mpsc::channel();
    let (its, again) = (store.clone(), tell.clone());
    let later = || -> crate::store::Done {
        Box::new(move |caught_up| {
            assert_eq!(caught_up, Ok(()));
            let shown =
                its.get_caught_up(b"a", |value| value.is_none(), || unreachable!("nothing is written"));
            let keys: [&[u8]; 2] = [b"a", b"b"];
            let many = || unreachable!("nothing is written");
            let found = its.get_many_caught_up(&keys, |found| found.len(), many);
            tell.send((shown, found)).expect("it is awaited");
            // Any other reader does.
            assert_eq!(its.get(b"a", |_| (), || Box::new(move |_| drop(again))), None);
        })
    };
    assert_eq!(store.catch_up_holding(0, later), None);
    let asked = std::mem::take(&mut store.0.queue.lock().asked);
    asked.into_iter().for_each(|asked| asked.tell(Ok(Outcome::Done)));
    assert_eq!(told.try_recv(), Ok((Some(true), Some(2))));
    assert_eq!(std::mem::take(&mut store.0.queue.lock().asked).len(), 1);
}

#[test]
fn what_waits_for_the_newest_is_bounded_by_all_that_it_holds_and_one_too_many_is_answered() {
    let store = crate::store::etcd::EtcdStore(shared());
    let (tell, told) = mpsc::channel();
    let ask = |bytes: usize| {
        let tell = tell.clone();
        let done = || -> crate::store::Done {
            Box::new(move |result| tell.send((bytes, result.err())).expect("it is awaited"))
        };
        assert_eq!(store.catch_up_holding(bytes, done), None);
    };
    let half = CAREFUL_BYTES_MAX / 2 - 512;
    [half, half].iter().for_each(|bytes| ask(*bytes));
    assert!(told.try_recv().is_err(), "nobody is asked yet");
    ask(1024);
    assert_eq!(told.try_recv(), Ok((1024, Some(StoreError::Io("system_limit")))));
    // A small one still has room; a get waits for none of them.
    ask(0);
    assert!(told.try_recv().is_err());
    assert_eq!(store.get(b"k", |value| value.is_none(), || unreachable!("nothing is written")), Some(true));
    let asked = std::mem::take(&mut store.0.queue.lock().asked);
    assert_eq!(asked.len(), 3);
    asked.into_iter().for_each(|asked| asked.tell(Ok(Outcome::Done)));
    assert_eq!(told.try_iter().collect::<Vec<_>>(), vec![(half, None), (half, None), (0, None)]);
    // What is answered makes room.
    ask(half);
    assert!(told.try_recv().is_err());
    store.0.close();
    ask(1);
    assert_eq!(told.try_recv(), Ok((1, Some(StoreError::Io("terminated")))));
    store.0.queue.lock().asked.clear();
}
