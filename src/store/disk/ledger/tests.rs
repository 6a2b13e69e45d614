//! The ledger through lives and crashes, beside journals that the engine wrote.

use fjall::{Database, KeyspaceCreateOptions, PersistMode};

use super::slots::SECOND_AT;
use super::*;

/// What a power cut leaves: the system has run anew since, and of what was not synced it knows nothing.
pub(in crate::store::disk) fn power_cut(dir: &Path, synced: u64) {
    let ledger = Ledger::read(dir, Access::Write { always: true }).unwrap();
    let mut state = ledger.state.lock();
    state.known = Known { boot: 1, synced, ..state.known };
    state.write().unwrap();
}

/// The length of the whole batches of a folder's first journal.
pub(in crate::store::disk) fn whole_bytes(dir: &Path) -> usize {
    let folder = Ledger::read(dir, Access::Read).unwrap().state.lock().known.folder;
    let looked = Chain::new(folder).look(&dir.join("engine/0.jnl"), &mut |_| {});
    looked.unwrap().whole_bytes as usize
}

/// Takes back what comes behind batch `last`.
pub(in crate::store::disk) fn take_back(dir: &Path, last: u64) {
    let ledger = Ledger::read(dir, Access::Write { always: true }).unwrap();
    ledger.state.lock().known.written = last;
    ledger.take_back().unwrap();
}

/// Batches of one folder, as the engine writes them, and the folder's ledger when it was made.
struct Written {
    reached: Vec<u8>,
    /// The journal, to its last batch.
    journal: Vec<u8>,
    /// Where each batch ends; the first is where none does.
    ends: Vec<usize>,
}

const NONE_IN_TABLES: InTables<'_> = &|_| Ok(0);
const ALWAYS: Access = Access::Write { always: true };
const SOMETIMES: Access = Access::Write { always: false };

impl Written {
    fn new(batches: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        Ledger::make(dir.path()).unwrap();
        let reached = fs::read(dir.path().join(NAME)).unwrap();
        let ledger = begun(dir.path(), ALWAYS);
        let engine = dir.path().join("engine");
        let db = Database::builder(&engine).open().unwrap();
        let meta = db.keyspace("meta", KeyspaceCreateOptions::default).unwrap();
        let mut ends = vec![0];
        for number in 0..batches {
            let mut batch = db.batch().durability(Some(PersistMode::SyncData));
            batch.insert(&meta, format!("k{number}"), vec![number as u8; 200]);
            batch.insert(&meta, KEY, ledger.stamp(db.seqno()).unwrap());
            batch.commit().unwrap();
            ledger.wrote(true);
            ends.push(whole_bytes(dir.path()));
        }
        let mut journal = fs::read(engine.join("0.jnl")).unwrap();
        journal.truncate(ends[batches]);
        Self { reached, journal, ends }
    }

    /// A folder with the ledger as it was made, and no journal.
    fn folder(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), &self.reached).unwrap();
        fs::create_dir(dir.path().join("engine")).unwrap();
        dir
    }

    /// The batch with this number has a bit that flipped.
    fn spoilt(&self, number: usize) -> Vec<u8> {
        let mut journal = self.journal.clone();
        journal[self.ends[number] - 20] ^= 1;
        journal
    }
}

fn journal(dir: &Path) -> PathBuf {
    dir.join("engine/0.jnl")
}

/// A ledger of a folder that has no batch yet, whose engine is open.
fn begun(dir: &Path, access: Access) -> Ledger {
    let (ledger, verdict, _) = Ledger::open(dir, access, NONE_IN_TABLES).unwrap();
    assert_eq!(verdict, Verdict::Whole);
    ledger.opened(0).unwrap();
    ledger
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Crash {
    /// The process ends; the system has what it was given.
    Kill,
    /// The system goes down too.
    PowerCut,
}

/// What is expected of a folder, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Whole,
    Torn { batches_follow: bool },
    Lost,
}

/// Opens the folder after a crash, to read and then to write, with this in its journal.
#[track_caller]
fn assert_verdict(dir: &Path, crash: Crash, bytes: &[u8], expected: Expected, what: &str) {
    let synced = Ledger::read(dir, Access::Read).unwrap().state.lock().known.synced;
    if crash == Crash::PowerCut {
        power_cut(dir, synced);
    }
    fs::write(journal(dir), bytes).unwrap();
    for access in [Access::Read, SOMETIMES] {
        let (_, verdict, journals) = Ledger::open(dir, access, NONE_IN_TABLES).unwrap();
        let left = fs::read(journal(dir)).unwrap();
        let found = match &verdict {
            Verdict::Whole => Expected::Whole,
            Verdict::Torn(torn) => {
                assert_eq!(journals, [(journal(dir), torn.offset)]);
                let is_cut = access == SOMETIMES;
                assert_eq!(left.len(), if is_cut { torn.offset as usize } else { bytes.len() });
                Expected::Torn { batches_follow: torn.batches_follow }
            }
            Verdict::Lost(_) => Expected::Lost,
        };
        assert_eq!(found, expected, "{what}, {crash:?}, {access:?}: {verdict:?}");
        assert!(bytes.starts_with(&left), "nothing else is changed");
        if !matches!(verdict, Verdict::Torn(_)) {
            assert_eq!(left, bytes, "{what}");
        }
        assert_eq!(verdict.torn().is_err(), expected == Expected::Lost);
    }
    if matches!(expected, Expected::Torn { .. }) {
        let (_, verdict, _) = Ledger::open(dir, Access::Read, NONE_IN_TABLES).unwrap();
        assert_eq!(verdict, Verdict::Whole, "it was cut off");
    }
}

/// What a life of the ledger is told, before it crashes.
#[derive(Clone, Copy, Debug)]
enum Told {
    Wrote,
    WroteSynced,
    Synced(u64),
}

#[test]
fn after_each_order_of_writes_syncs_and_a_crash_what_must_be_there_is_known() {
    use Told::{Synced, Wrote, WroteSynced};
    let written = Written::new(3);
    let lives: [(&[Told], [usize; 2]); 11] = [
        // With the last batch that was given to the system, and the last that was synced.
        (&[], [0, 0]),
        (&[Wrote], [1, 0]),
        (&[WroteSynced], [1, 1]),
        (&[Wrote, Wrote, Wrote], [3, 0]),
        (&[Wrote, Synced(1), Wrote, Wrote], [3, 1]),
        (&[Wrote, Wrote, Synced(1), Wrote], [3, 1]),
        (&[Wrote, Wrote, Wrote, Synced(2)], [3, 2]),
        (&[Wrote, WroteSynced, Wrote], [3, 2]),
        // A sync that began before is told of later.
        (&[Wrote, WroteSynced, Synced(1), Wrote], [3, 2]),
        (&[WroteSynced, WroteSynced, WroteSynced], [3, 3]),
        (&[Wrote, Wrote, Wrote, Synced(3), Synced(0)], [3, 3]),
    ];
    for (told, [given, synced]) in lives {
        for (access, crash) in [
            (ALWAYS, Crash::Kill),
            (SOMETIMES, Crash::Kill),
            (ALWAYS, Crash::PowerCut),
            (SOMETIMES, Crash::PowerCut),
        ] {
            let after = |bytes: &[u8], expected: Expected, what: &str| {
                let dir = written.folder();
                let ledger = begun(dir.path(), access);
                for told in told {
                    match told {
                        Wrote => ledger.wrote(false),
                        WroteSynced => ledger.wrote(true),
                        Synced(number) => ledger.synced(*number),
                    }
                }
                assert_eq!(ledger.last(), given as u64);
                drop(ledger);
                assert_verdict(dir.path(), crash, bytes, expected, &format!("{told:?}, {access:?}, {what}"));
            };
            // (Where the system does not say which run of it this is, a kill is as a power cut.)
            let least = if crash == Crash::Kill && boot() != 0 { given } else { synced };
            for last in 0..=3 {
                // One more than the ledger was told of may be there: the crash came between.
                let is_kept = last >= least;
                let expected = if is_kept { Expected::Whole } else { Expected::Lost };
                if last > 0 || is_kept {
                    after(&written.journal[..written.ends[last]], expected, &format!("{last} are there"));
                }
            }
            for last in 1..3 {
                let torn = &written.journal[..written.ends[last] + 30];
                let is_kept = last >= least;
                let expected =
                    if is_kept { Expected::Torn { batches_follow: false } } else { Expected::Lost };
                after(torn, expected, &format!("{last} are there, and a part"));
            }
            for damaged in 2..3 {
                let is_kept = damaged > least && access == SOMETIMES;
                let expected = if is_kept { Expected::Torn { batches_follow: true } } else { Expected::Lost };
                after(&written.spoilt(damaged), expected, &format!("{damaged} is damaged, and 3 is there"));
            }
        }
    }
}

#[test]
fn where_no_journal_has_a_batch_tables_must_have_the_last() {
    let written = Written::new(1);
    for bytes in [Some(&[][..]), Some(&[0; 5_000]), None] {
        let dir = written.folder();
        let ledger = begun(dir.path(), ALWAYS);
        (0..3).for_each(|_| ledger.wrote(true));
        ledger.close();
        if let Some(bytes) = bytes {
            fs::write(journal(dir.path()), bytes).unwrap();
        }
        let opened = |number| Ledger::open(dir.path(), Access::Read, &move |_| Ok(number)).unwrap();
        assert_eq!(opened(3).1, Verdict::Whole);
        let (_, Verdict::Lost(error), _) = opened(2) else { unreachable!("one is missing") };
        assert!(error.to_string().contains("up to number 3 they had been written: 1 are missing"));
        let unreadable = OpenError::NotOurs { dir: dir.path().into() };
        let refused = Ledger::open(dir.path(), Access::Read, &|_| Err(unreadable.clone()));
        assert_eq!(refused.unwrap_err(), unreadable);
    }
}

#[test]
fn an_engine_that_has_not_read_to_the_last_batch_is_refused_and_another_goes_on_behind_its_own() {
    let written = Written::new(3);
    let dir = written.folder();
    let ledger = begun(dir.path(), ALWAYS);
    (0..3).for_each(|_| ledger.wrote(true));
    fs::write(journal(dir.path()), &written.journal).unwrap();
    let open = || Ledger::open(dir.path(), ALWAYS, NONE_IN_TABLES).unwrap().0;
    let refused = open().opened(2).unwrap_err();
    assert!(refused.to_string().contains("1 are missing"), "{refused}");
    for number in [3, 4] {
        let ledger = open();
        // One that nobody was told of may be there.
        ledger.opened(number).unwrap();
        assert_eq!((ledger.last(), number_of(&ledger.stamp(100).unwrap())), (number, Some(number + 1)));
    }
    assert_eq!(open().state.lock().known.least(), 4);
    assert_eq!(number_of(b"no stamp"), None);
}

#[test]
fn what_was_not_told_of_is_taken_back_and_nothing_before() {
    let written = Written::new(3);
    let after = |told: usize, bytes: &[u8]| {
        let dir = written.folder();
        let ledger = begun(dir.path(), ALWAYS);
        (0..told).for_each(|_| ledger.wrote(true));
        fs::write(journal(dir.path()), bytes).unwrap();
        let taken_back = ledger.take_back();
        let (verdict, _) = ledger.look(NONE_IN_TABLES).unwrap();
        let left = fs::read(journal(dir.path())).unwrap();
        (taken_back.is_ok(), verdict, left.len(), ledger)
    };
    let (journal, ends) = (&written.journal, &written.ends);
    let zeros = [journal, &[0; 500][..]].concat();
    for (told, bytes, end) in [
        // Whole, as the engine leaves it ahead, and by half; none, or more than one.
        (3, &journal[..], ends[3]),
        (3, &zeros[..], zeros.len()),
        (2, &zeros[..], ends[2]),
        (2, &journal[..ends[3] - 1], ends[2]),
        (1, &journal[..], ends[1]),
        (0, &journal[..], 0),
    ] {
        let (is_done, verdict, left, ledger) = after(told, bytes);
        assert_eq!((is_done, verdict, left), (true, Verdict::Whole, end), "{told} of {} bytes", bytes.len());
        // It goes on with the number that was taken back.
        ledger.opened(told as u64).unwrap();
        assert_eq!(number_of(&ledger.stamp(100).unwrap()), Some(told as u64 + 1));
    }
    let spoilt = written.spoilt(1);
    let (is_done, verdict, left, _) = after(2, &spoilt);
    assert!(!is_done && matches!(verdict, Verdict::Lost(_)) && left == spoilt.len(), "{verdict:?}");
}

#[test]
fn no_batch_gets_a_number_while_the_one_before_is_out() {
    let written = Written::new(2);
    let dir = written.folder();
    fs::write(journal(dir.path()), &written.journal).unwrap();
    let (ledger, _, _) = Ledger::open(dir.path(), ALWAYS, NONE_IN_TABLES).unwrap();
    ledger.opened(2).unwrap();
    let stamped = || ledger.stamp(100).map(|stamp| number_of(&stamp).unwrap());
    assert_eq!((stamped(), stamped(), stamped()), (Some(3), None, None));
    // A sync tells of those before it alone.
    ledger.synced(2);
    assert_eq!(stamped(), None);
    ledger.wrote(true);
    assert_eq!((stamped(), stamped()), (Some(4), None));
    // What cannot be cut stays out.
    fs::write(journal(dir.path()), written.spoilt(1)).unwrap();
    ledger.take_back().unwrap_err();
    assert_eq!(stamped(), None);
    fs::write(journal(dir.path()), &written.journal).unwrap();
    ledger.take_back().unwrap();
    assert_eq!((stamped(), stamped()), (Some(4), None));
}

#[test]
fn a_system_that_runs_on_has_what_it_was_given_and_another_what_was_synced() {
    let dir = tempfile::tempdir().unwrap();
    Ledger::make(dir.path()).unwrap();
    let known = || Ledger::read(dir.path(), Access::Read).unwrap().state.lock().known;
    let ledger = Ledger::read(dir.path(), SOMETIMES).unwrap();
    assert_eq!(known().least(), 0);
    ledger.opened(5).unwrap();
    for number in 6..=9 {
        ledger.wrote(number == 7);
    }
    assert_eq!((known().written, known().synced, known().always), (9, 7, false));
    // Where the system does not say which run it is, nothing is expected that was not synced.
    assert_eq!(known().least(), if boot() == 0 { 7 } else { 9 });
    power_cut(dir.path(), 7);
    assert_eq!((known().least(), known().folder), (7, ledger.state.lock().known.folder));
    ledger.close();
    assert_eq!((known().written, known().synced), (9, 9));
}

#[test]
fn a_torn_slot_leaves_the_other_and_without_both_it_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    let missing = Ledger::read(dir.path(), ALWAYS);
    assert!(matches!(missing, Err(OpenError::Damaged { .. })), "{missing:?}");
    Ledger::make(dir.path()).unwrap();
    let ledger = Ledger::read(dir.path(), ALWAYS).unwrap();
    ledger.wrote(true);
    ledger.wrote(true);
    let path = dir.path().join(NAME);
    let whole = fs::read(&path).unwrap();
    for (torn, synced) in [(&[0][..], [1, 2]), (&[SECOND_AT], [1, 2]), (&[0, SECOND_AT], [0, 0])] {
        let mut bytes = whole.clone();
        for at in torn {
            bytes[*at as usize + 30] ^= 1;
        }
        fs::write(&path, bytes).unwrap();
        match Ledger::read(dir.path(), Access::Read) {
            Ok(ledger) => assert!(synced.contains(&ledger.state.lock().known.synced), "{torn:?}"),
            Err(error) => assert!(torn.len() == 2, "{error}"),
        }
    }
}

#[test]
fn what_is_only_read_is_told_nothing() {
    let written = Written::new(2);
    let dir = written.folder();
    fs::write(journal(dir.path()), &written.journal).unwrap();
    let ledger = Ledger::open(dir.path(), Access::Read, NONE_IN_TABLES).unwrap().0;
    ledger.opened(2).unwrap();
    ledger.wrote(true);
    ledger.close();
    assert!(fs::read(dir.path().join(NAME)).unwrap() == written.reached);
    // A folder of the first format has no ledger, and nothing must be in it.
    fs::remove_file(dir.path().join(NAME)).unwrap();
    fs::write(journal(dir.path()), []).unwrap();
    let (ledger, verdict, _) = Ledger::open(dir.path(), Access::ReadFirst, NONE_IN_TABLES).unwrap();
    assert_eq!((verdict, ledger.opened(0)), (Verdict::Whole, Ok(())));
    assert!(!dir.path().join(NAME).exists());
}
