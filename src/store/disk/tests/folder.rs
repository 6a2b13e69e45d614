//! Folders as crashes, damage and older versions leave them: opened, mended or refused.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A store with three entries, each a batch, and its journal.
fn three(dir: &Path) -> PathBuf {
    let store = Disk::open(dir, SyncPolicy::Always, u64::MAX).unwrap().store(&names("a")).unwrap();
    for key in [b"1", b"2", b"3"] {
        put(&store, key, &[7; 5_000]).unwrap();
    }
    dir.join("engine/0.jnl")
}

#[test]
fn what_holds_values_is_its_owners_alone() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let around = tempfile::tempdir().unwrap();
    let dir = around.path().join("new/store");
    drop(three(&dir));
    assert_eq!([mode(&dir), mode(&dir.join("engine"))], [0o700; 2]);
    // As kvnode made it once, and as others make the folder around it.
    for path in [&dir, &dir.join("engine")] {
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }
    let backup = around.path().join("backup");
    let restored = around.path().join("restored");
    let disk = Disk::open(&dir, SyncPolicy::Always, u64::MAX).unwrap();
    assert_eq!([mode(&dir), mode(&dir.join("engine"))], [0o755, 0o700]);
    drop(disk);
    ReadOnlyDisk::open(&dir).unwrap().backup(&backup, &mut |_, _| true).unwrap();
    Disk::restore(&backup, &restored, &mut |_, _| true).unwrap();
    assert_eq!([mode(&backup), mode(&restored), mode(&restored.join("engine"))], [0o600, 0o700, 0o700]);
}

/// The length of the whole batches of the journal.
fn end_of(dir: &Path) -> usize {
    ledger::tests::whole_bytes(dir)
}

const POLICIES: [SyncPolicy; 3] =
    [SyncPolicy::Always, SyncPolicy::Never, SyncPolicy::Interval(Duration::from_millis(50))];

/// That the folder is refused, under every policy and by `check`, with this in what is said of it, and left as it was.
#[track_caller]
fn assert_refused(dir: &Path, journal: &Path, why: &str) {
    let before = fs::read(journal).ok();
    let mut said = POLICIES.map(|sync| open(dir, sync).map(|_| ()).unwrap_err()).to_vec();
    said.push(ReadOnlyDisk::open(dir).map(|_| ()).unwrap_err());
    for error in said {
        assert!(matches!(&error, OpenError::Damaged { .. }) && error.to_string().contains(why), "{error}");
    }
    assert!(fs::read(journal).ok() == before, "it is as it was");
}

#[test]
fn a_torn_end_is_told_of_by_check_and_cut_off_by_a_start() {
    let dir = tempfile::tempdir().unwrap();
    let journal = three(dir.path());
    let end = end_of(dir.path());
    let mut torn = fs::read(&journal).unwrap();
    torn.truncate(end);
    // A part of a batch that comes next.
    let part = [&[1, 2, 0, 0, 0][..], &[200; 900]].concat();
    torn.extend_from_slice(&part);
    fs::write(&journal, &torn).unwrap();
    for _ in 0..2 {
        let read_only = ReadOnlyDisk::open(dir.path()).unwrap();
        let expected = TornEnd {
            file: journal.clone(),
            offset: end as u64,
            bytes: part.len() as u64,
            batches_follow: false,
        };
        assert_eq!(read_only.torn_end(), Some(&expected));
        let counts = read_only.check(&mut |_, _| true).unwrap();
        assert_eq!(
            counts,
            [StoreCount { names: names("a"), entries: 3, bytes: 15_003 + 3 * REVISION_BYTES }]
        );
        assert!(
            matches!(open(dir.path(), SyncPolicy::Always), Err(OpenError::InUse { .. })),
            "while it is read"
        );
        let backup = dir.path().join("backup");
        assert_eq!(read_only.backup(&backup, &mut |_, _| true), Ok(counts));
        fs::remove_file(backup).unwrap();
        assert_eq!(fs::read(&journal).unwrap(), torn, "nothing was cut");
    }
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    assert_eq!((get(&store, b"3"), store.len()), (Ok(Some(vec![7; 5_000])), 3));
    assert!(matches!(ReadOnlyDisk::open(dir.path()), Err(OpenError::InUse { .. })));
    drop(store);
    assert_eq!(ReadOnlyDisk::open(dir.path()).unwrap().torn_end(), None);
}

#[test]
fn what_was_answered_and_is_not_there_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = three(dir.path());
    let (mut whole, end) = (fs::read(&journal).unwrap(), end_of(dir.path()));
    whole.truncate(end + 1_000);
    fs::write(&journal, &whole[..end - 1]).unwrap();
    let border = end_of(dir.path());
    let refused = |bytes: Option<&[u8]>, why: &str| {
        match bytes {
            Some(bytes) => fs::write(&journal, bytes).unwrap(),
            None => fs::remove_file(&journal).unwrap(),
        }
        assert_refused(dir.path(), &journal, why);
    };
    // The last batch has a bit that flipped; its end, or all of it, or another one more, is missing.
    let mut damaged = whole.clone();
    damaged[end - 3_000] ^= 1;
    refused(Some(&damaged), "1 are missing");
    refused(Some(&whole[..end - 1]), "1 are missing");
    refused(Some(&whole[..border]), "1 are missing");
    refused(Some(&whole[..border - 1]), "2 are missing");
    // One in the middle.
    let mut damaged = whole.clone();
    damaged[end - 9_000] ^= 1;
    refused(Some(&damaged), "byte ");
    // The journal is emptied, overwritten by zeros, or gone.
    refused(Some(&[]), "4 are missing");
    refused(Some(&vec![0; whole.len()]), "4 are missing");
    refused(None, "4 are missing");
    fs::write(&journal, &whole).unwrap();
    fs::remove_file(dir.path().join("reached")).unwrap();
    assert_refused(dir.path(), &journal, "reached");
}

/// The three entries' batches (and the names') in two journals, as the engine leaves them when the first is full: their
/// paths, and where each batch of the first ends.
fn two_journals(dir: &Path) -> ([PathBuf; 2], Vec<usize>) {
    let (first, second) = (three(dir), dir.join("engine/1.jnl"));
    let mut whole = fs::read(&first).unwrap();
    let mut ends = vec![end_of(dir)];
    while *ends.last().unwrap() > 0 {
        fs::write(&first, &whole[..ends.last().unwrap() - 1]).unwrap();
        ends.push(end_of(dir));
    }
    ends.reverse();
    whole.truncate(ends[4]);
    fs::write(&second, whole.split_off(ends[3])).unwrap();
    fs::write(&first, whole).unwrap();
    ([first, second], ends[1..4].to_vec())
}

#[test]
fn a_batch_that_failed_is_taken_back_out_of_each_journal() {
    let dir = tempfile::tempdir().unwrap();
    let ([first, second], ends) = two_journals(dir.path());
    let bytes = fs::read(&first).unwrap();
    assert_eq!(bytes.len(), ends[2]);
    // The third batch has the second entry.
    ledger::tests::take_back(dir.path(), 2);
    assert_eq!([&first, &second].map(|path| fs::metadata(path).unwrap().len()), [ends[1] as u64, 0]);
    ledger::tests::power_cut(dir.path(), 2);
    assert_eq!(open(dir.path(), SyncPolicy::Always).unwrap().len(), 1);

    let dir = tempfile::tempdir().unwrap();
    two_journals(dir.path());
    let store = open(dir.path(), SyncPolicy::Always).unwrap();
    assert_eq!(store.len(), 3, "the numbers go on from one to the other");
}

#[test]
fn a_torn_batch_behind_which_only_empty_journals_come_is_cut_off() {
    let dir = tempfile::tempdir().unwrap();
    let ([first, second], _) = two_journals(dir.path());
    let mut torn = fs::read(&first).unwrap();
    torn.extend_from_slice(&[1, 9, 9]);
    fs::write(&first, &torn).unwrap();
    assert_refused(dir.path(), &first, "what was written later is there");
    fs::write(&second, "").unwrap();
    assert_refused(dir.path(), &first, "1 are missing");
    // Nobody was told of the last batch.
    ledger::tests::power_cut(dir.path(), 3);
    assert_eq!(open(dir.path(), SyncPolicy::Always).unwrap().len(), 2);
}

#[test]
fn after_a_power_cut_what_was_not_synced_may_be_missing_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), SyncPolicy::Never).unwrap();
    for key in [b"1", b"2"] {
        put(&store, key, &[7; 5_000]).unwrap();
    }
    store.disk.shared.sync_all().unwrap();
    let synced = end_of_open(dir.path());
    for key in [b"3", b"4", b"5"] {
        put(&store, key, &[7; 5_000]).unwrap();
    }
    let left = crashed(dir.path());
    let journal = left.path().join("engine/0.jnl");
    let whole = fs::read(&journal).unwrap();
    let mut damaged = whole.clone();
    damaged[synced + 2_000] ^= 1;
    fs::write(&journal, &damaged).unwrap();
    // The system runs on: it has what it was given.
    assert_refused(left.path(), &journal, "byte ");
    // It has run anew: batch 4 is there and 3 is not.
    ledger::tests::power_cut(left.path(), 3);
    let read_only = ReadOnlyDisk::open(left.path()).unwrap();
    let torn = read_only.torn_end().unwrap();
    assert!(torn.batches_follow && torn.offset == synced as u64, "{torn:?}");
    drop(read_only);
    // What was synced must be there all the same.
    let mut more = damaged.clone();
    more[synced - 2_000] ^= 1;
    fs::write(&journal, &more).unwrap();
    assert_refused(left.path(), &journal, "are missing");
    fs::write(&journal, &damaged).unwrap();
    let store = open(left.path(), SyncPolicy::Always).unwrap();
    assert_eq!((get(&store, b"2").unwrap().is_some(), get(&store, b"3")), (true, Ok(None)));
    assert_eq!(store.len(), 2);
    drop(store);
    assert_eq!(ReadOnlyDisk::open(left.path()).unwrap().torn_end(), None);
}

/// As [`end_of`], while the folder is in use.
fn end_of_open(dir: &Path) -> usize {
    end_of(crashed(dir).path())
}

#[test]
fn a_number_that_flipped_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let journal = three(dir.path());
    let whole = fs::read(&journal).unwrap()[..end_of(dir.path())].to_vec();
    // The first batch's, of the engine: a much lower or higher one had it left out, or be the newest.
    for at in 6..13 {
        let mut flipped = whole.clone();
        flipped[at] ^= 0x10;
        fs::write(&journal, &flipped).unwrap();
        assert_refused(dir.path(), &journal, "number");
    }
}

#[test]
fn a_folder_of_the_first_format_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    {
        let db = fjall::Database::builder(dir.path().join("engine")).open().unwrap();
        let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        let a = db.keyspace("s1", fjall::KeyspaceCreateOptions::default).unwrap();
        let mut batch = db.batch();
        batch.insert(&meta, [b's', 0, 0, 0, 1], "global:a");
        batch.insert(&meta, [b't', 0, 0, 0, 1], [1_u64.to_be_bytes(), 2_u64.to_be_bytes()].concat());
        batch.insert(&a, record::engine_key(b"k"), record::encode(b"k", value(b"v")));
        batch.commit().unwrap();
    }
    fs::write(dir.path().join("format"), "kvnode 1\n").unwrap();
    fs::write(dir.path().join("lock"), "").unwrap();
    let counts = ReadOnlyDisk::open(dir.path()).unwrap().check(&mut |_, _| true).unwrap();
    assert_eq!(counts, [StoreCount { names: names("a"), entries: 1, bytes: 2 }]);
    for round in 0..3 {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert_eq!(get(&store, b"k"), Ok(Some(b"v".to_vec())));
        put(&store, b"l", &[round; 10]).unwrap();
        assert_eq!((revision(&store, b"k"), revision(&store, b"l")), (Some(1), Some(2 + u64::from(round))));
    }
    assert_eq!(fs::read_to_string(dir.path().join("format")).unwrap(), "kvnode 7\n");
}

/// What a folder of this format is made of, byte by byte: what is written today has to be read by what comes.
#[test]
fn a_folder_is_read_as_it_is_spelled_here_and_left_so() {
    let dir = tempfile::tempdir().unwrap();
    let big_endian =
        |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_be_bytes()).collect::<Vec<_>>();
    let (folder, batches) = (0x0123_4567_89ab_cdef, 2);
    {
        let db = fjall::Database::builder(dir.path().join("engine")).open().unwrap();
        let meta = db.keyspace("meta", fjall::KeyspaceCreateOptions::default).unwrap();
        let a = db.keyspace("s1", fjall::KeyspaceCreateOptions::default).unwrap();
        let order = db.keyspace("order", fjall::KeyspaceCreateOptions::default).unwrap();
        for number in 1..=batches {
            let mut batch = db.batch();
            if number == 1 {
                batch.insert(&meta, [b's', 0, 0, 0, 1], "global:a");
                batch.insert(&meta, [b'o', 0, 0, 0, 1], [1]);
            } else {
                batch.insert(&meta, *b"n\0\0\0\x01slaves", "s");
                batch.insert(&meta, [b't', 0, 0, 0, 1], big_endian(&[1, 2 + 9, 7]));
                let entry = [&[0x82, 2][..], &big_endian(&[5]), b"v"].concat();
                batch.insert(&a, record::engine_key(b"k"), entry);
                // It is no term.
                batch.insert(&order, *b"\0\0\0\x01\xffk", record::engine_key(b"k"));
            }
            batch.insert(&meta, "b", big_endian(&[number, db.seqno(), folder]));
            batch.commit().unwrap();
        }
    }
    // Its older slot says less, and is torn.
    let slot = |serial: u64, written: u64| {
        let mut slot = big_endian(&[serial, folder, 1, 1, written, written]);
        slot.extend_from_slice(&xxhash_rust::xxh3::xxh3_64(&slot).to_be_bytes());
        slot
    };
    let mut reached = slot(8, batches);
    reached[50] ^= 1;
    reached.resize(4096, 0);
    reached.extend_from_slice(&slot(7, batches));
    fs::write(dir.path().join("reached"), &reached).unwrap();
    fs::write(dir.path().join("format"), "kvnode 7\n").unwrap();
    fs::write(dir.path().join("lock"), "").unwrap();
    let read_only = ReadOnlyDisk::open(dir.path()).unwrap();
    let counts = read_only.check(&mut |_, _| true).unwrap();
    assert_eq!(counts, [StoreCount { names: names("a"), entries: 1, bytes: 2 + 9 }]);
    drop(read_only);
    for round in 1..3 {
        let store = open(dir.path(), SyncPolicy::Always).unwrap();
        assert_eq!((revision(&store, b"k"), store.revision()), (Some(5), 6 + round));
        assert_eq!(
            (get(&store, b"k"), note(&store, "slaves")),
            (Ok(Some(b"v".to_vec())), Ok(Some(b"s".to_vec())))
        );
        put(&store, b"l", b"1").unwrap();
        drop(store);
        let reached = fs::read(dir.path().join("reached")).unwrap();
        let slots = [&reached[..56], &reached[4096..4096 + 56]];
        let newest =
            slots.iter().max_by_key(|slot| u64::from_be_bytes(slot[..8].try_into().unwrap())).unwrap();
        assert_eq!(newest[8..16], big_endian(&[folder]));
        assert_eq!(newest[24..48], big_endian(&[1, batches + round, batches + round]));
    }
    // One number more than there are batches.
    fs::write(dir.path().join("reached"), slot(100, batches + 3)).unwrap();
    assert_refused(dir.path(), &dir.path().join("engine/0.jnl"), "1 are missing");
}
