//! Folders and backups as versions before have left them, byte by byte: read, taken over, written to.

use std::io::Read as _;

use super::cleared::{cleaned, clear};
use super::order::in_order;
use super::*;

/// Each file but the lock, with a backup of all of it beside: `length:32, path, length:64, stored:64, bytes`, where the bytes that
/// are not stored are zeros. Compressed by zlib.
const FOLDER_2: &[u8] = include_bytes!("folder_2.zlib");
/// The same of the format with numbers beside values, and without revisions; and a key that was written in a copy.
const FOLDER_3: &[u8] = include_bytes!("folder_3.zlib");
/// The folder alone, of the format in which nothing ended, as the program has left it: one store, with five writes.
const FOLDER_4: &[u8] = include_bytes!("folder_4.zlib");
/// The folder alone, of the format in which no store was emptied, as the program has left it when it was killed: two stores, of which the
/// first has `{:n, 1}` to `{:n, 300}`, every third until the year 2058.
const FOLDER_6: &[u8] = include_bytes!("folder_6.zlib");

fn unpack(folder: &[u8], into: &Path) {
    let mut packed = Vec::new();
    flate2::read::ZlibDecoder::new(folder).read_to_end(&mut packed).unwrap();
    let mut rest = &packed[..];
    let mut take = |len: u64| {
        let (taken, behind) = rest.split_at(usize::try_from(len).unwrap());
        rest = behind;
        taken
    };
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
    let end = packed.len();
    let mut at = 0;
    while at < end {
        let name_len = number(take(4));
        let path = into.join(str::from_utf8(take(name_len)).unwrap());
        let (len, stored) = (number(take(8)), number(take(8)));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let file = fs::File::create(&path).unwrap();
        io::Write::write_all(&mut &file, take(stored)).unwrap();
        file.set_len(len).unwrap();
        at += usize::try_from(20 + name_len + stored).unwrap();
    }
    fs::write(into.join("lock"), "").unwrap();
}

/// `more`: what each of the entries takes more.
fn counts(more: u64) -> [StoreCount; 2] {
    let of = |name, entries, bytes| StoreCount { names: names(name), entries, bytes: bytes + entries * more };
    [of("a", 3, 5 + 5 + 70_000 + 13 + 5 + 20_000), of("b", 2, 14 + 1 + 9 + 1)]
}

fn long() -> Vec<u8> {
    vec![109; 70_000]
}

/// What a store has under a key, with its traits and the number of its copy.
fn whole(store: &DiskStore, key: &[u8]) -> Option<(Vec<u8>, Traits, u32)> {
    let (tell, told) = mpsc::channel();
    let own = |found: Option<Value<'_>>| found.map(|found| (found.bytes.to_vec(), found.traits, found.copy));
    let later = || -> ReadDone { Box::new(move |found| tell.send(own(found.unwrap())).unwrap()) };
    store.get(key, own, later).unwrap_or_else(|| told.recv().unwrap())
}

#[track_caller]
fn assert_all(disk: &Arc<Disk>) -> [DiskStore; 2] {
    let [a, b] = ["a", "b"].map(|name| disk.store(&names(name)).unwrap());
    let known = |bytes: &[u8], traits| Some((bytes.to_vec(), traits, 0));
    assert_eq!(whole(&a, b"small"), known(b"value", Traits::V4_NC));
    assert_eq!(whole(&a, &long()), known(b"of a long key", Traits::V4_NC));
    assert_eq!(whole(&a, b"large"), known(&[7; 20_000], Traits::V4_NC));
    assert_eq!(whole(&b, b"gone"), None);
    assert_eq!(whole(&b, b"in the journal"), known(b"2", Traits::V4_NC));
    assert_eq!(whole(&b, b"no traits"), known(b"v", Traits::none()));
    assert_eq!(note(&a, "membership"), Ok(Some(b"kept".to_vec())));
    [a, b]
}

fn put_in_copy(store: &DiskStore, key: &[u8], copy: u32) {
    let value = Value { copy, ..value(b"brought") };
    written(|done| assert_eq!(store.put(key, value, || done), None)).unwrap();
}

#[test]
fn a_folder_of_the_format_before_is_read_as_it_is_and_taken_over_when_it_is_written_to() {
    let dir = tempfile::tempdir().unwrap();
    unpack(FOLDER_2, dir.path());
    fs::remove_file(dir.path().join("backup")).unwrap();
    let format = || fs::read_to_string(dir.path().join("format")).unwrap();
    assert_eq!(ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap(), counts(0));
    assert_eq!(format(), "kvnode 2\n", "nothing is written");
    let open = || Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
    {
        let disk = open();
        assert_eq!(format(), "kvnode 7\n");
        let [a, b] = assert_all(&disk);
        assert_eq!(
            [revision(&a, b"small"), revision(&a, &long()), revision(&b, b"new")],
            [Some(1), Some(1), None]
        );
        for (store, key) in [(&a, &b"small"[..]), (&a, &long()), (&b, b"new")] {
            put_in_copy(store, key, 7);
        }
        assert_eq!((a.len(), a.bytes()), (3, 70_000 + 20_000 + 5 + 5 + 2 * (7 + 4 + 9)), "with the numbers");
        let revisions = [revision(&a, b"small"), revision(&a, &long()), revision(&b, b"new")];
        assert_eq!(revisions, [Some(2), Some(3), Some(2)]);
    }
    let disk = open();
    let [a, b] = ["a", "b"].map(|name| disk.store(&names(name)).unwrap());
    for (store, key) in [(&a, &b"small"[..]), (&a, &long()), (&b, b"new")] {
        assert_eq!(whole(store, key), Some((b"brought".to_vec(), Traits::V4_NC, 7)));
    }
    let mut copies = BTreeMap::new();
    let mut scan = a.scan(None, Shows::Copies);
    loop {
        let batch = at_once(&mut *scan).unwrap().unwrap();
        copies.extend(batch.copies().map(|(key, copy)| (key.to_vec(), copy)));
        if batch.is_last {
            break;
        }
    }
    let expected = [(b"small".to_vec(), Some(7)), (long(), Some(7)), (b"large".to_vec(), Some(0))];
    assert_eq!(copies, BTreeMap::from(expected));
    disk.check(&mut |_, _| true).unwrap();
}

#[test]
fn a_backup_of_the_version_before_is_restored_and_the_next_one_has_the_numbers() {
    let (old, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    unpack(FOLDER_2, old.path());
    let (first, second) = (old.path().join("backup"), old.path().join("next"));
    assert_eq!(fs::read(&first).unwrap()[14..18], [0, 0, 0, 1]);
    let restored = dir.path().join("restored");
    assert_eq!(Disk::restore(&first, &restored, &mut |_, _| true).unwrap(), counts(REVISION_BYTES));
    let counted = {
        let disk = Disk::open(&restored, SyncPolicy::Always, u64::MAX).unwrap();
        let [a, _] = assert_all(&disk);
        put_in_copy(&a, b"small", u32::MAX);
        put_in_copy(&a, &long(), 1);
        disk.backup(&second, &mut |_, _| true).unwrap()
    };
    assert_eq!(fs::read(&second).unwrap()[14..18], [0, 0, 0, 3]);
    let again = dir.path().join("again");
    assert_eq!(Disk::restore(&second, &again, &mut |_, _| true).unwrap(), counted);
    let disk = Disk::open(&again, SyncPolicy::Always, u64::MAX).unwrap();
    let a = disk.store(&names("a")).unwrap();
    let brought = |copy| Some((b"brought".to_vec(), Traits::V4_NC, copy));
    assert_eq!((whole(&a, b"small"), whole(&a, &long())), (brought(u32::MAX), brought(1)));
    assert_eq!(whole(&a, b"large"), Some((vec![7; 20_000], Traits::V4_NC, 0)));
}

#[test]
fn a_folder_and_a_backup_without_revisions_are_taken_over_and_numbered_from_there_on() {
    let (old, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    unpack(FOLDER_3, old.path());
    let (backup, restored) = (dir.path().join("backup"), dir.path().join("restored"));
    fs::rename(old.path().join("backup"), &backup).unwrap();
    assert_eq!(fs::read(&backup).unwrap()[14..18], [0, 0, 0, 2]);
    let format = || fs::read_to_string(old.path().join("format")).unwrap();
    // With a key that has the number of its copy.
    let counts = |more| {
        let [mut a, b] = counts(more);
        a.entries += 1;
        a.bytes += 6 + 7 + 5 + if more == 0 { 0 } else { 8 };
        [a, b]
    };
    assert_eq!(ReadOnlyDisk::open(old.path()).unwrap().check(&mut |_, _| true).unwrap(), counts(0));
    assert_eq!(format(), "kvnode 3\n", "nothing is written");
    let copied = Some((b"brought".to_vec(), Traits::V4_NC, 7));
    {
        let disk = Disk::open(old.path(), SyncPolicy::Always, u64::MAX).unwrap();
        assert_eq!(format(), "kvnode 7\n");
        let [a, _] = assert_all(&disk);
        assert_eq!(
            (whole(&a, b"copied"), revision(&a, b"copied"), a.revision()),
            (copied.clone(), Some(1), 1)
        );
        put(&a, b"small", b"value").unwrap();
        delete(&a, b"copied").unwrap();
        assert_eq!((revision(&a, b"small"), a.revision()), (Some(2), 3));
        disk.check(&mut |_, _| true).unwrap();
    }
    let disk = Disk::open(old.path(), SyncPolicy::Always, u64::MAX).unwrap();
    let a = disk.store(&names("a")).unwrap();
    assert_eq!((revision(&a, b"small"), revision(&a, b"large"), a.revision()), (Some(2), Some(1), 3));
    assert_eq!(Disk::restore(&backup, &restored, &mut |_, _| true).unwrap(), counts(REVISION_BYTES));
    let disk = Disk::open(&restored, SyncPolicy::Always, u64::MAX).unwrap();
    let [a, _] = assert_all(&disk);
    assert_eq!(whole(&a, b"copied"), copied);
    assert!(revision(&a, b"copied") > Some(1) && revision(&a, b"copied") != revision(&a, b"small"));
}

#[test]
fn a_folder_in_which_nothing_ended_is_taken_over_and_its_entries_end_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    unpack(FOLDER_4, dir.path());
    let format = || fs::read_to_string(dir.path().join("format")).unwrap();
    let counts = ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap();
    assert_eq!((counts.len(), counts[0].entries, format()), (1, 3, "kvnode 4\n".into()));
    let small = crate::etf::encode(|w| _ = w.atom("small"));
    for round in 0..2 {
        let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
        assert_eq!(format(), "kvnode 7\n");
        let store = disk.store(&counts[0].names).unwrap();
        assert_eq!((store.len(), store.next_due()), (3, (round > 0).then_some(20)));
        assert_eq!(revision(&store, &small), Some(6 + 3 * round));
        assert_eq!(whole(&store, &small).map(|(value, ..)| value), Some(vec![97, 7]));
        for deadline in [10, 20] {
            let value = Value { deadline, ..Value::of(&[97, 7], Traits::V4_NC) };
            written(|done| assert_eq!(store.put(&small, value, || done), None)).unwrap();
        }
        let due = store.due(30, 9, || unreachable!("at once")).expect("at once");
        assert_eq!((due.keys, store.next_due()), (vec![small.clone().into()], Some(20)));
        disk.check(&mut |_, _| true).unwrap();
    }
}

#[test]
fn a_folder_in_which_no_store_was_emptied_is_taken_over_and_emptied_from_there_on() {
    let dir = tempfile::tempdir().unwrap();
    unpack(FOLDER_6, dir.path());
    let format = || fs::read_to_string(dir.path().join("format")).unwrap();
    let counts = ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap();
    let entries: Vec<_> = counts.iter().map(|store| (store.names[0].as_str(), store.entries)).collect();
    assert_eq!((entries, format()), (vec![("global:a", 300), ("global:b", 2)], "kvnode 6\n".into()));
    let key = |number: u64| crate::etf::encode(|w| _ = w.tuple(2).atom("n").unsigned(number));
    let large = crate::etf::encode(|w| _ = w.atom("large"));
    let shown = |store: &DiskStore| {
        settle(store);
        let mut count = 0;
        scanned(store, None, Shows::Pairs, |_, value| count += usize::from(value.is_some()));
        count
    };
    for round in 0..3 {
        let disk = Disk::open(dir.path(), SyncPolicy::Always, u64::MAX).unwrap();
        assert_eq!(format(), "kvnode 7\n");
        let [a, b] = ["a", "b"].map(|name| disk.store(&names(name)).unwrap());
        if round == 0 {
            assert_eq!((a.len(), shown(&a)), (300, 300));
            assert_eq!(in_order(&a, 40), (1..=300).map(key).collect::<Vec<_>>());
            assert!(a.next_due().is_some_and(|due| due > 2_700_000_000_000), "{:?}", a.next_due());
            let before = a.revision();
            assert!(
                revision(&a, &key(300)) > revision(&a, &key(1)) && revision(&a, &key(300)) <= Some(before)
            );
            clear(&a).unwrap();
            assert_eq!((a.revision(), a.next_due()), (before + 1, None));
            cleaned(&a);
        }
        // What follows the last opening is there at the next.
        assert_eq!((a.len(), shown(&a), in_order(&a, 40).len()), (round, round, round));
        assert_eq!((b.len(), shown(&b), in_order(&b, 1).len()), (2, 2, 2));
        assert_eq!(whole(&b, &large).map(|(value, ..)| value.len()), Some(5 + 20_000));
        assert_eq!(a.next_due(), (round > 0).then_some(7));
        let value = Value { deadline: 7, ..value(b"v") };
        written(|done| assert_eq!(a.put(&key(round as u64), value, || done), None)).unwrap();
        disk.check(&mut |_, _| true).unwrap();
    }
}
