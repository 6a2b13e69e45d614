//! Revisions on disk: they stay, and go on, over restarts, failures and restores.

use super::*;
use crate::store::revision::{LEAP, REVISION_RAISED_MAX, REVISION_UNKNOWN};

fn open(dir: &Path, sync: SyncPolicy) -> DiskStore {
    Disk::open(dir, sync, u64::MAX).unwrap().store(&names("kv")).unwrap()
}

fn put_of(store: &DiskStore, key: &[u8], revision: u64) {
    let value = Value { revision, ..value(b"brought") };
    written(|done| assert_eq!(store.put(key, value, || done), None)).unwrap();
}

#[test]
fn a_key_has_the_number_of_its_last_write_and_the_next_is_higher_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let long = vec![109; 70_000];
    {
        let store = open(dir.path(), SyncPolicy::Always);
        assert_eq!(store.revision(), REVISION_UNKNOWN);
        for key in [&b"a"[..], b"b", b"a", &long] {
            put(&store, key, b"1").unwrap();
        }
        append(&store, b"b").recv().unwrap();
        delete(&store, b"gone").unwrap();
        let revisions = [&b"a"[..], b"b", &long, b"gone"].map(|key| revision(&store, key));
        assert_eq!((revisions, store.revision()), ([Some(4), Some(6), Some(5), None], 7));
    }
    let store = open(dir.path(), SyncPolicy::Always);
    assert_eq!((store.seq(), store.revision()), (1, 7), "writes are counted anew");
    let revisions = [&b"a"[..], b"b", &long].map(|key| revision(&store, key));
    assert_eq!(revisions, [Some(4), Some(6), Some(5)]);
    put(&store, b"gone", b"1").unwrap();
    assert_eq!(revision(&store, b"gone"), Some(8), "behind its deletion");
}

#[test]
fn what_comes_with_a_revision_keeps_it_and_the_store_goes_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    {
        let store = open(dir.path(), SyncPolicy::Always);
        put_of(&store, b"a", 40);
        put_of(&store, b"b", 20);
        put(&store, b"c", b"1").unwrap();
        let revisions = [b"a", b"b", b"c"].map(|key| revision(&store, key));
        assert_eq!((revisions, store.revision()), ([Some(40), Some(20), Some(42)], 42));
    }
    let store = open(dir.path(), SyncPolicy::Always);
    assert_eq!((revision(&store, b"b"), store.revision()), (Some(20), 42));
}

#[test]
fn what_was_raised_is_kept_with_what_is_asked_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let raise = |above, ask: &dyn Fn(&DiskStore)| {
        let store = open(dir.path(), SyncPolicy::Always);
        let before = store.revision();
        store.raise_revision(above);
        assert_eq!(store.revision(), above.clamp(before, REVISION_RAISED_MAX));
        ask(&store);
        drop(store);
        open(dir.path(), SyncPolicy::Always).revision()
    };
    assert_eq!(raise(50, &|_| {}), REVISION_UNKNOWN, "nothing was asked");
    assert_eq!(raise(50, &|store| done(|done| assert_eq!(store.barrier(|| done), None)).unwrap()), 50);
    assert_eq!(raise(60, &|store| done(|done| Notes::write(store, "n", b"1", done)).unwrap()), 60);
    assert_eq!(raise(70, &|store| put(store, b"a", b"1").unwrap()), 71);
    assert_eq!(raise(20, &|store| delete(store, b"a").unwrap()), 72, "it never goes back");
    assert_eq!(raise(u64::MAX, &|store| delete(store, b"a").unwrap()), REVISION_RAISED_MAX + 1);
}

#[test]
fn a_folder_whose_writes_were_not_synced_goes_on_behind_all_that_a_power_cut_may_have_taken() {
    for sync in [SyncPolicy::Never, SyncPolicy::Interval(Duration::from_secs(60))] {
        let dir = tempfile::tempdir().unwrap();
        {
            let store = open(dir.path(), sync);
            put(&store, b"a", b"1").unwrap();
            assert_eq!(revision(&store, b"a"), Some(2));
        }
        for times in 1..3 {
            let store = open(dir.path(), if times == 1 { sync } else { SyncPolicy::Always });
            assert_eq!(revision(&store, b"a"), Some(2));
            put(&store, b"b", b"1").unwrap();
            assert_eq!(revision(&store, b"b"), Some(times * (LEAP + 1) + 2));
        }
        let store = open(dir.path(), SyncPolicy::Always);
        assert_eq!(store.revision(), 2 * (LEAP + 1) + 2, "everything was synced since");
    }
}

#[test]
fn a_restored_store_has_the_revisions_of_the_backup_and_leaps_over_those_that_came_behind() {
    let dir = tempfile::tempdir().unwrap();
    let (file, restored) = (dir.path().join("backup"), dir.path().join("restored"));
    let counted = {
        let store = open(&dir.path().join("first"), SyncPolicy::Always);
        put_of(&store, b"a", 40);
        put(&store, b"b", b"1").unwrap();
        delete(&store, b"b").unwrap();
        let empty = store.disk.store(&names("empty")).unwrap();
        delete(&empty, b"gone").unwrap();
        let counted = store.disk.backup(&file, &mut |_, _| true).unwrap();
        put(&store, b"b", b"late").unwrap();
        counted
    };
    assert_eq!(Disk::restore(&file, &restored, &mut |_, _| true).unwrap(), counted);
    let store = open(&restored, SyncPolicy::Always);
    assert_eq!(revision(&store, b"a"), Some(40));
    put(&store, b"b", b"1").unwrap();
    assert!(revision(&store, b"b").unwrap() > LEAP + 42, "{:?}", revision(&store, b"b"));
    assert!(store.disk.store(&names("empty")).unwrap().revision() > LEAP);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    /// Whatever is written, by whom, and however often the store is opened again in between.
    #[test]
    fn a_keys_revision_never_goes_back(steps in prop::collection::vec((0..6_u8, 0..3_u8), 0..60)) {
        let dir = tempfile::tempdir().unwrap();
        let mut store = open(dir.path(), SyncPolicy::Always);
        let mut highest = BTreeMap::new();
        for (what, key) in steps {
            let key = [key; 5];
            let before = store.revision();
            match what {
                0 | 1 => put(&store, &key, b"1").unwrap(),
                2 => delete(&store, &key).unwrap(),
                3 => _ = append(&store, &key).recv().unwrap(),
                // As a primary's write.
                4 => put_of(&store, &key, before + 3),
                _ => {
                    drop(store);
                    store = open(dir.path(), SyncPolicy::Always);
                    prop_assert_eq!(store.revision(), before);
                }
            }
            if let Some(now) = revision(&store, &key) {
                let highest = highest.entry(key).or_insert(0);
                prop_assert!(now >= *highest && now <= store.revision());
                prop_assert!(now > before || what == 3 || what >= 5, "it was written just now");
                *highest = now;
            }
        }
    }
}
