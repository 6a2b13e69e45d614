//! Writes and reads of several keys.

use super::*;
use crate::store::Change as Decision;

/// Appends to each key as [`appended`] does, where it looks; else puts the same under each. Tells what it was shown, and the write's
/// number.
struct Together {
    looks: bool,
    puts: Vec<Option<Option<Vec<u8>>>>,
    tell: mpsc::Sender<Result<Option<u64>, StoreError>>,
}

impl UpdateMany for Together {
    fn looks(&self) -> bool {
        self.looks
    }

    fn decide(&mut self, present: &[Option<Value<'_>>], change: &mut dyn FnMut(usize, Decision<'_>)) {
        if self.looks {
            self.puts =
                present.iter().map(|present| appended(present.map(|present| present.bytes))).collect();
        } else {
            assert!(present.iter().all(Option::is_none), "nothing is read for it");
        }
        for (at, decided) in self.puts.iter().enumerate() {
            match decided {
                None => change(at, Decision::Keep),
                Some(None) => change(at, Decision::Delete),
                Some(Some(bytes)) => change(at, Decision::Put(value(bytes))),
            }
        }
    }
}

impl PendingMany for Together {
    fn bytes(&self) -> usize {
        0
    }

    fn done(self: Box<Self>, result: Result<Option<Written<'_>>, StoreError>) {
        if let Ok(Some(written)) = &result {
            let of = |change: &Decision<'_>| match change {
                Decision::Put(value) => Some(value.bytes.to_vec()),
                _ => None,
            };
            let shown: Vec<_> = written.changes.iter().map(|(_, change)| of(change)).collect();
            let decided: Vec<_> = self.puts.iter().flatten().cloned().collect();
            assert_eq!(shown, decided, "what was written is what was decided");
        }
        self.tell.send(result.map(|written| written.map(|written| written.seq))).unwrap();
    }
}

type Told = mpsc::Receiver<Result<Option<u64>, StoreError>>;

fn together(store: &DiskStore, keys: &[&[u8]], put: Option<&[u8]>) -> Told {
    let (tell, told) = mpsc::channel();
    let puts = put.map_or_else(Vec::new, |bytes| vec![Some(Some(bytes.to_vec())); keys.len()]);
    let make = |tell| Together { looks: put.is_none(), puts, tell };
    let (mut update, tell) = (Together { looks: true, puts: Vec::new(), tell: tell.clone() }, tell);
    assert_eq!(store.update_many(keys, &mut update, |_| Box::new(make(tell))), None);
    told
}

fn get_many(store: &DiskStore, keys: &[&[u8]]) -> Result<Vec<Option<Vec<u8>>>, StoreError> {
    let shown = |found: &[Option<Value<'_>>]| -> Vec<Option<Vec<u8>>> {
        found.iter().map(|value| value.map(|value| value.bytes.to_vec())).collect()
    };
    let (tell, told) = mpsc::channel();
    let later = || -> ReadManyDone { Box::new(move |found| tell.send(found.map(shown)).unwrap()) };
    let now = store.get_many(keys, shown, later);
    now.map_or_else(|| told.recv().unwrap(), Ok)
}

fn open(dir: &Path) -> (Arc<Disk>, DiskStore) {
    let disk = Disk::open(dir, SyncPolicy::Always, u64::MAX).unwrap();
    let store = disk.store(&names("kv")).unwrap();
    (disk, store)
}

#[test]
fn a_write_of_several_keys_is_one_write_and_is_kept_as_a_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, store) = open(dir.path());
    let long = vec![109; 70_000];
    let keys: [&[u8]; 3] = [b"a", &long, b"c"];
    assert_eq!(together(&store, &keys, None).recv().unwrap(), Ok(Some(2)));
    let more = Some(b"more".to_vec());
    assert_eq!(get_many(&store, &keys), Ok(vec![more.clone(), more.clone(), more.clone()]));
    assert_eq!((store.len(), store.bytes()), (3, 70_002 + 12 + 3 * REVISION_BYTES));
    put(&store, b"a", b"long enough").unwrap();
    put(&store, b"c", &vec![7; 20_001]).unwrap();
    // One goes, one gets more, one stays.
    assert_eq!(together(&store, &keys, None).recv().unwrap(), Ok(Some(5)));
    let twice = Some(b"moremore".to_vec());
    let wanted = vec![None, twice, Some(vec![7; 20_001])];
    assert_eq!(get_many(&store, &keys), Ok(wanted.clone()));
    // What stays is no write.
    assert_eq!(together(&store, &[b"c"], None).recv().unwrap(), Ok(None));
    assert_eq!(store.seq(), 5);
    let copied = crashed(dir.path());
    let (_again, kept) = open(copied.path());
    assert_eq!((get_many(&kept, &keys), kept.len()), (Ok(wanted.clone()), 2));
    drop(store);
    disk.close();
    drop(disk);
    let (_disk, store) = open(dir.path());
    let bytes = 70_000 + 8 + 1 + 20_001 + 2 * REVISION_BYTES;
    assert_eq!((get_many(&store, &keys), store.bytes()), (Ok(wanted), bytes));
}

#[test]
fn readers_see_a_write_of_several_keys_whole_while_others_are_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let (_disk, store) = open(dir.path());
    let keys: [&[u8]; 3] = [b"a", b"b", b"c"];
    together(&store, &keys, Some(b"0")).recv().unwrap().unwrap();
    let told: Vec<Told> = (0..200_u8).map(|number| together(&store, &keys, Some(&[number]))).collect();
    for _ in 0..100 {
        let seen = get_many(&store, &keys).unwrap();
        assert!(seen.iter().all(|value| *value == seen[0]), "{seen:?}");
    }
    told.iter().for_each(|told| _ = told.recv().unwrap().unwrap());
    // This thread's own writes are found, whatever waits.
    let _told = together(&store, &[b"b", b"c"], Some(b"last"));
    let last = Some(b"last".to_vec());
    assert_eq!(get_many(&store, &keys), Ok(vec![Some(vec![199]), last.clone(), last]));
}

/// Two blocks with one MD5 (Wang, Feng, Lai and Yu, 2004): the second has other bits at these places.
const BLOCK: &str = "d131dd02c5e6eec4693d9a0698aff95c2fcab58712467eab4004583eb8fb7f8955ad340609f4b30283e488832571415a\
    085125e8f7cdc99fd91dbdf280373c5bd8823e3156348f5bae6dacd436c919c6dd53e2b487da03fd02396306d248cda0\
    e99f33420f577ee8ce54b67080a80d1ec69821bcb6a8839396f9652b6ff72a70";
const CHANGED: [usize; 6] = [19, 45, 59, 83, 109, 123];

/// Two long keys that stand in one place of the engine: with one digest, and a hash that begins alike.
fn twins() -> [Vec<u8>; 2] {
    let digit = |at: usize| u8::from_str_radix(&BLOCK[at * 2..at * 2 + 2], 16).unwrap();
    let one: Vec<u8> = (0..128).map(digit).collect();
    let mut other = one.clone();
    CHANGED.iter().for_each(|at| other[*at] ^= 0x80);
    let long = |block: Vec<u8>| [block, vec![7; 60_000]].concat();
    let keys = [long(one), long(other)];
    let hashes = keys.each_ref().map(|key| {
        let mut hash = xxhash_rust::xxh3::Xxh3::new();
        hash.update(key);
        hash
    });
    let begins = |end: u32| {
        hashes.each_ref().map(|hash| {
            let mut hash = hash.clone();
            hash.update(&end.to_be_bytes());
            hash.digest() >> 48
        })
    };
    let is_one = |end: &u32| {
        let [one, other] = begins(*end);
        one == other
    };
    let end = (0..u32::MAX).find(is_one).unwrap();
    keys.map(|key| [key, end.to_be_bytes().to_vec()].concat())
}

#[test]
fn a_write_of_which_one_key_is_refused_changes_none() {
    let dir = tempfile::tempdir().unwrap();
    let (_disk, store) = open(dir.path());
    let [one, other] = twins();
    assert!(one != other && record::engine_key(&one) == record::engine_key(&other));
    let refused = Err(StoreError::Io("eexist"));
    assert_eq!(together(&store, &[b"a", &one, &other], Some(b"1")).recv().unwrap(), refused);
    assert_eq!(store.len(), 0, "neither was there");
    put(&store, &one, b"1").unwrap();
    assert_eq!(together(&store, &[b"a", &other], Some(b"2")).recv().unwrap(), refused);
    assert_eq!(get_many(&store, &[b"a", &one, &other]), Ok(vec![None, Some(b"1".to_vec()), None]));
    assert_eq!((store.len(), store.seq()), (1, 2));
    // The next is behind it as if it had not been.
    assert_eq!(together(&store, &[b"a", &one], Some(b"3")).recv().unwrap(), Ok(Some(3)));
}
