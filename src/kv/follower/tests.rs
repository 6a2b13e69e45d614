use super::*;
use crate::store::MemoryStore;

const OWN: u64 = 7;
/// Some store that was promoted once.
const PROMOTED: u64 = 5;
/// Nothing that would speak against a greeting.
const FREE: Own = Own { has_slaves: false, is_greeted_by_slave: false, is_empty: true };

fn greeting(term: u64, path: &[u64], session: u64) -> Greeting {
    let id = path.last().copied().unwrap_or(0) as u32;
    Greeting {
        session,
        lineage: Lineage { term, promoted: if term == 0 { 0 } else { PROMOTED }, path: path.to_vec() },
        seq: 10,
        started_empty: false,
        names: Vec::new(),
        slaves: Vec::new(),
        pid: Pid { node: "p@h".into(), id, serial: 0, creation: 1 },
    }
}

fn follower() -> Follower<MemoryStore> {
    Follower::new(OWN, false, true)
}

fn value(bytes: &[u8]) -> Value<'_> {
    Value { bytes, shared: None, traits: crate::etf::Traits::none() }
}

#[test]
fn itself_and_circles_are_refused_and_a_path_of_long_ago_is_not() {
    let mut follower = follower();
    let with_slaves = Own { has_slaves: true, ..FREE };
    assert_eq!(follower.greet(greeting(0, &[OWN], 1), FREE).err(), Some(Refusal::Itself));
    assert_eq!(follower.greet(greeting(0, &[OWN, 2], 1), with_slaves).err(), Some(Refusal::Cycle));
    assert!(follower.greet(greeting(0, &[OWN, 2], 1), FREE).is_ok(), "nothing goes on from here");
    assert_eq!(follower.lineage().path, [OWN, 2, OWN]);
}

#[test]
fn another_primary_is_taken_where_the_first_is_gone_or_the_term_is_higher() {
    let mut follower = follower();
    assert!(follower.greet(greeting(0, &[1], 1), FREE).is_ok_and(|greeted| !greeted.demoted));
    assert_eq!(follower.greet(greeting(0, &[2], 2), FREE).err(), Some(Refusal::HasPrimary));
    let gone = greeting(0, &[1], 1).pid;
    follower.gone(&gone);
    assert!(follower.greet(greeting(0, &[2], 2), FREE).is_ok());
    let greeted = follower.greet(greeting(3, &[1], 3), FREE).expect("its term is higher");
    assert!(!greeted.demoted);
    assert!(
        follower.greet(greeting(3, &[1], 4), FREE).is_ok_and(|greeted| !greeted.path_changed),
        "nothing is new to its own slaves"
    );
    assert!(
        follower.greet(greeting(4, &[1], 5), FREE).is_ok_and(|greeted| greeted.path_changed),
        "they are to know of the promotion"
    );
    assert_eq!(
        greeted.left,
        Some((greeting(0, &[2], 2).pid, 2)),
        "the one before is there, and knows nothing of it"
    );
    assert_eq!(follower.greet(greeting(2, &[2], 6), FREE).err(), Some(Refusal::Superseded));
    assert!(follower.promote().is_ok_and(|former| former.is_some()) && follower.promote().is_err());
    assert_eq!(follower.term(), 5);
    assert!(follower.greet(greeting(6, &[1], 7), FREE).is_ok_and(|greeted| greeted.demoted));
}

#[test]
fn a_primary_that_takes_back_one_of_two_names_is_told_of_the_session_of_the_other() {
    let mut follower = follower();
    assert!(follower.greet(greeting(0, &[1], 1), FREE).is_ok() && follower.replaced().is_none());
    assert!(follower.greet(greeting(0, &[1], 2), FREE).is_ok());
    assert_eq!(follower.replaced(), Some((greeting(0, &[1], 1).pid, 1)));
    assert!(follower.bye(2) && follower.replaced().is_none());
}

#[test]
fn a_former_primary_with_slaves_says_so_until_it_is_up_to_date() {
    let (mut follower, store) = (follower(), MemoryStore::default());
    let with_slaves = Own { has_slaves: true, ..FREE };
    assert!(follower.greet(greeting(1, &[1], 1), with_slaves).is_ok_and(|greeted| greeted.stepped_down));
    // The answer was lost, and its slaves are the new primary's by now.
    assert!(follower.greet(greeting(1, &[1], 2), FREE).is_ok_and(|greeted| greeted.stepped_down));
    follower.mark(CopyMark::Whole, &store);
    follower.marked(2, CopyMark::Whole, 10);
    assert!(follower.greet(greeting(1, &[1], 3), FREE).is_ok_and(|greeted| !greeted.stepped_down));
}

#[test]
fn one_that_was_a_slave_before_a_restart_says_so_once() {
    let mut follower = follower().had(Some((1, 12)));
    assert_eq!(
        follower.greet(greeting(0, &[1], 1), FREE).map(|greeted| greeted.had).ok(),
        Some((Some(1), 12))
    );
    assert_eq!(follower.asked(1, 15).ok().map(|handled| handled.applied), Some(12), "what it had it has");
    follower.bye(1);
    assert_eq!(follower.greet(greeting(0, &[1], 2), FREE).map(|greeted| greeted.had).ok(), Some((None, 0)));
    let mut follower = self::follower().had(Some((1, 12)));
    assert_eq!(
        follower.greet(greeting(0, &[2], 1), FREE).map(|greeted| greeted.had).ok(),
        Some((Some(1), 12))
    );
    assert_eq!(
        follower.asked(1, 15).ok().map(|handled| handled.applied),
        Some(0),
        "of another's writes it has none"
    );
}

#[test]
fn one_that_is_promoted_after_a_restart_has_no_place_among_the_writes_of_its_former_primary() {
    let mut follower = Follower::<MemoryStore>::new(OWN, true, false).had(Some((1, 12)));
    assert!(follower.promote().is_ok_and(|former| former.is_none()));
    let greeted = follower.greet(greeting(7, &[1], 1), Own { is_empty: false, ..FREE });
    assert_eq!(
        greeted.map(|greeted| greeted.had).ok(),
        Some((None, 0)),
        "else what it has written would stay"
    );
}

#[test]
fn a_copy_is_put_aside_and_what_a_session_that_is_over_sends_is_of_no_use() {
    let (mut follower, store) = (follower(), MemoryStore::default());
    follower.greet(greeting(0, &[1], 1), FREE).expect("it is a slave");
    assert!(follower.session(2).is_none());
    assert_eq!(follower.asked(2, 11), Err(Refusal::OtherSession));
    assert!(matches!(follower.place(b"k", Some(value(b"v"))), Place::Store));
    assert!(matches!(follower.mark(CopyMark::Begin, &store), Copied::Nothing));
    assert!(matches!(follower.place(b"k", Some(value(b"v"))), Place::Done));
    assert!(follower.started_empty());
    let Copied::Replace(with) = follower.mark(CopyMark::End, &store) else { panic!("a whole copy") };
    assert!(!follower.started_empty(), "it has what its primary has");
    assert_eq!(with.len(), 1);
    follower.session(1).expect("it is this one").marked(CopyMark::End, 12);
    assert_eq!(follower.asked(1, 15), Ok(Handled { applied: 12, caught_up: true }));
    assert_eq!(follower.primary().map(Primary::lag), Some(3));
    // What comes before something that was left out is repaired does not count.
    let primary = follower.session(1).expect("it is this one");
    primary.marked(CopyMark::Repair, 12);
    primary.take_in(20);
    assert_eq!(primary.applied, 12);
    primary.marked(CopyMark::Whole, 21);
    assert_eq!(primary.applied, 21);
}

#[test]
fn what_is_not_kept_is_told_once_and_nothing_counts_until_it_was_sent_again() {
    let (mut follower, store) = (follower(), MemoryStore::default());
    follower.greet(greeting(0, &[1], 1), Own::default()).expect("it is a slave");
    let mark = |follower: &mut Follower<MemoryStore>, mark, seq| {
        follower.mark(mark, &store);
        follower.session(1).expect("it is this one").marked(mark, seq);
    };
    mark(&mut follower, CopyMark::Whole, 5);
    assert_eq!(follower.asked(1, 5), Ok(Handled { applied: 5, caught_up: true }));
    follower.kept().told(5, true);
    follower.session(1).expect("it is this one").take_in(6);
    assert!(follower.kept().refuse(&crate::store::StoreError::NoSpace));
    follower.session(1).expect("it is this one").take_in(8);
    assert_eq!(
        (follower.asked(1, 8), follower.write_error()),
        (Err(Refusal::NoSpace), Some(Refusal::NoSpace))
    );
    // A mark that was under way.
    mark(&mut follower, CopyMark::Whole, 8);
    assert_eq!(follower.asked(1, 9), Ok(Handled { applied: 5, caught_up: false }));
    mark(&mut follower, CopyMark::Repair, 9);
    mark(&mut follower, CopyMark::Whole, 10);
    assert_eq!(
        (follower.asked(1, 10), follower.write_error()),
        (Ok(Handled { applied: 10, caught_up: true }), None)
    );
}

#[test]
fn a_write_that_was_skipped_is_missing_until_it_is_sent_again() {
    let (mut follower, store) = (follower(), MemoryStore::default());
    follower.greet(greeting(0, &[9], 1), FREE).expect("it is a slave");
    follower.marked(1, CopyMark::Whole, 5);
    assert!(!follower.skipped(2, 6, None), "of another session");
    assert_eq!(follower.asked(1, 6), Ok(Handled { applied: 5, caught_up: true }));
    assert!(follower.skipped(1, 7, Some(b"k")));
    // The next write has come, and says nothing about that.
    follower.session(1).expect("the session").take_in(8);
    assert_eq!(
        (follower.asked(1, 8), follower.write_error()),
        (Err(Refusal::TooLarge), Some(Refusal::TooLarge))
    );
    assert!(follower.primary().is_some_and(|primary| !primary.caught_up && primary.applied < 7));
    // A copy without it takes the place of nothing, whether it is put aside or not, unless its key is known there.
    for (in_place, key, is_copied) in
        [(false, Some(&b"k"[..]), false), (false, None, false), (true, Some(b"k"), true), (true, None, false)]
    {
        follower.mark(CopyMark::Begin, &store);
        follower.marked(1, CopyMark::Begin, 8);
        if in_place {
            follower.staging = Staging::InPlace(AHashSet::new());
        }
        follower.skipped(1, 9, key);
        assert_eq!(!matches!(follower.mark(CopyMark::End, &store), Copied::Nothing), is_copied);
        assert_eq!(follower.asked(1, 9), Err(Refusal::TooLarge));
        follower.staging = Staging::No;
    }
}

#[test]
fn what_is_half_done_is_known_until_it_is_done_also_after_a_restart() {
    let (mut follower, store) = (follower(), MemoryStore::default());
    assert_eq!(follower.rank_to_note(), None);
    follower.greet(greeting(1, &[PROMOTED], 1), FREE).expect("it is a slave");
    let noted = follower.rank_to_note().expect("that it stepped down, before anything is dropped");
    assert!(noted.must_export_dropped && !noted.is_partial);
    // A copy that is put aside leaves what is there as it was, and a repair does not.
    follower.mark(CopyMark::Begin, &store);
    follower.marked(1, CopyMark::Begin, 3);
    assert_eq!(follower.rank_to_note(), None);
    follower.mark(CopyMark::Repair, &store);
    follower.marked(1, CopyMark::Repair, 3);
    let noted = follower.rank_to_note().expect("what it holds is a mix");
    let mut again = Follower::<MemoryStore>::new(OWN + 1, false, false).ranked(noted);
    assert!(again.is_partial() && again.must_export_dropped() && again.rank_to_note().is_none());
    again.greet(greeting(1, &[PROMOTED], 2), FREE).expect("it is a slave");
    assert!(again.is_partial() && again.must_export_dropped(), "nothing has come yet");
    again.mark(CopyMark::Whole, &store);
    again.marked(1, CopyMark::Whole, 4);
    assert!(again.is_partial(), "of a session that is over");
    again.marked(2, CopyMark::Whole, 4);
    again.dropped_exported();
    assert!(again.rank_to_note().is_some_and(|noted| !noted.is_partial && !noted.must_export_dropped));
    // What is not kept makes a mix of it too.
    assert!(again.kept().refuse(&crate::store::StoreError::NoSpace));
    again.note_kept();
    assert!(again.is_partial());
    again.promote().expect("it is a slave");
    assert!(!again.is_partial(), "it is what its own are to have");
}

#[test]
fn a_store_that_cannot_put_a_copy_aside_knows_what_was_not_part_of_it() {
    let mut follower = follower();
    follower.staging = Staging::InPlace(AHashSet::new());
    assert!(matches!(follower.place(b"a", Some(value(b"v"))), Place::Store));
    assert!(matches!(follower.place(b"b", Some(value(b"v"))), Place::Store));
    assert!(matches!(follower.place(b"b", None), Place::Store));
    let Copied::Keep(seen) = follower.mark(CopyMark::End, &MemoryStore::default()) else {
        panic!("a copy in place")
    };
    assert!(seen.contains(b"a") && !seen.contains(b"b"));
    // What was there is told of when something comes in its place first.
    follower.must_export_dropped = true;
    follower.staging = Staging::InPlace(AHashSet::new());
    assert!(matches!(follower.place(b"a", Some(value(b"v"))), Place::Overwrite));
    assert!(matches!(follower.place(b"a", Some(value(b"w"))), Place::Store));
    assert!(matches!(follower.place(b"b", None), Place::Overwrite));
}

#[test]
fn nothing_is_taken_in_a_session_whose_connection_is_lost() {
    let mut follower = follower();
    let primary = greeting(0, &[1], 1);
    assert!(follower.greet(primary.clone(), FREE).is_ok());
    assert!(follower.session(1).is_some() && follower.asked(1, 0).is_ok());
    follower.gone(&primary.pid);
    // What is asked there may be behind writes that were lost.
    assert!(follower.session(1).is_none());
    assert_eq!(follower.asked(1, 0).err(), Some(Refusal::OtherSession));
    assert!(follower.greet(greeting(0, &[1], 2), FREE).is_ok());
    assert!(follower.session(2).is_some());
    follower.gone(&primary.pid);
    assert!(follower.bye(2), "that it is removed it is told all the same");
}

#[test]
fn of_two_that_greet_each_other_one_becomes_the_slave() {
    let mut follower = follower();
    let by_slave = Own { has_slaves: true, is_greeted_by_slave: true, ..FREE };
    assert_eq!(follower.greet(greeting(0, &[OWN - 1], 1), by_slave).err(), Some(Refusal::Crossing));
    follower.greeting(true);
    assert_eq!(follower.greet(greeting(0, &[OWN + 1], 1), FREE).err(), Some(Refusal::Crossing));
    assert!(follower.greet(greeting(0, &[OWN - 1], 1), FREE).is_ok(), "the one with the higher incarnation");
    // What changes nothing above it is no matter.
    assert!(follower.greet(greeting(0, &[OWN - 1], 2), FREE).is_ok());
    let gone = greeting(0, &[OWN - 1], 2).pid;
    follower.gone(&gone);
    assert_eq!(follower.greet(greeting(0, &[OWN + 1], 3), FREE).err(), Some(Refusal::Crossing));
    assert!(follower.greet(greeting(1, &[OWN + 1], 3), FREE).is_ok(), "a promotion waits for nobody");
    follower.greeting(false);
    let gone = greeting(1, &[OWN + 1], 3).pid;
    follower.gone(&gone);
    assert!(follower.greet(greeting(1, &[OWN + 2], 4), FREE).is_ok());
}

#[test]
fn of_two_that_were_promoted_apart_from_each_other_one_yields() {
    let promoted = |incarnation| {
        let mut follower = Follower::<MemoryStore>::new(incarnation, false, false);
        follower.greet(greeting(0, &[1], 1), Own { is_empty: false, ..FREE }).expect("it is a slave");
        assert!(!follower.must_export_dropped());
        follower.promote().expect("it was a slave");
        follower
    };
    let hello = |of: &Follower<MemoryStore>| Greeting {
        lineage: of.lineage(),
        ..greeting(0, &[of.incarnation()], 2)
    };
    let (mut low, mut high) = (promoted(3), promoted(4));
    let own = Own { has_slaves: true, ..FREE };
    assert_eq!(high.greet(hello(&low), own).err(), Some(Refusal::Superseded));
    low.greeting(true);
    assert!(low.greet(hello(&high), own).is_ok_and(|greeted| greeted.demoted));
    assert!(low.must_export_dropped(), "it may have writes that the other has not");
    assert_eq!(low.lineage(), Lineage { term: 1, promoted: 4, path: vec![4, 3] });
    // Their slaves follow, though the primary that they have is there.
    let mut slave = follower();
    slave.greet(greeting(0, &[1], 1), FREE).expect("it is a slave");
    slave.greet(hello(&promoted(3)), FREE).expect("it is a slave");
    assert!(slave.greet(hello(&high), FREE).is_ok_and(|greeted| !greeted.demoted));
    assert_eq!(slave.greet(hello(&promoted(3)), FREE).err(), Some(Refusal::Superseded));
    assert!(!slave.must_export_dropped());
}

#[test]
fn of_an_own_promotion_nobody_else_is_the_primary_and_of_anothers_not_who_has_followed_it() {
    let mut owner = Follower::<MemoryStore>::new(OWN, true, false);
    owner.promote().expect("it was a slave");
    let own = Own { is_empty: false, ..FREE };
    // It is kept who it is over a restart, which gives another incarnation.
    let rank = owner.rank();
    let mut owner = Follower::<MemoryStore>::new(OWN + 1, false, false).ranked(rank);
    assert!(owner.is_owner() && !owner.is_orphan());
    let of = |lineage: Lineage| Greeting { lineage, ..greeting(1, &[9], 1) };
    let mut slave = follower();
    slave.greet(of(owner.lineage()), FREE).expect("it is a slave");
    let path = slave.lineage().path;
    assert_eq!(path, [OWN + 1, OWN]);
    // The slave is started again: it is the primary of nobody, neither of the owner nor of others.
    let (rank, started) = (slave.rank(), OWN + 2);
    let restarted = || Follower::<MemoryStore>::new(started, false, false).ranked(rank);
    let mut slave = restarted();
    assert!(slave.is_orphan() && slave.lineage().is_orphan());
    assert_eq!(slave.lineage().incarnation(), started);
    assert_eq!(owner.greet(of(slave.lineage()), own).err(), Some(Refusal::Superseded));
    assert_eq!(follower().greet(of(slave.lineage()), FREE).err(), Some(Refusal::Superseded));
    // Also while it greets others itself, it takes who is above it.
    slave.greeting(true);
    let higher = Lineage { path: vec![started + 1], ..owner.lineage() };
    slave.greet(of(higher), own).expect("it is a slave again");
    assert!(!slave.is_orphan() && !slave.lineage().is_orphan());
    // Who has removed it has no claim to it any more.
    assert!(slave.bye(1) && !slave.is_orphan());
    assert_eq!(slave.rank().role, TermRole::None);
    assert_eq!(owner.greet(of(slave.lineage()), own).err(), Some(Refusal::Superseded));
    // An orphan can be promoted, whatever it has, and is the primary then.
    let mut orphan = restarted();
    assert!(orphan.promote().is_ok_and(|former| former.is_none()) && orphan.is_owner());
    assert!(owner.greet(of(orphan.lineage()), own).is_ok_and(|greeted| greeted.demoted));
    assert!(!owner.is_owner());
}

#[test]
fn who_was_started_without_data_does_not_empty_one_that_has_some() {
    let mut follower = follower();
    let full = Own { is_empty: false, ..FREE };
    let started_empty =
        |incarnation, session| Greeting { started_empty: true, ..greeting(0, &[incarnation], session) };
    assert_eq!(follower.greet(started_empty(1, 1), full).err(), Some(Refusal::NotEmpty));
    assert!(follower.primary().is_none());
    assert!(follower.greet(started_empty(1, 1), FREE).is_ok());
    assert!(follower.greet(started_empty(1, 2), full).is_ok(), "it has what that one sent");
    let gone = started_empty(1, 2).pid;
    follower.gone(&gone);
    assert_eq!(follower.greet(started_empty(2, 3), full).err(), Some(Refusal::NotEmpty));
    assert!(follower.greet(greeting(0, &[2], 3), full).is_ok(), "by hand");
}

#[test]
fn what_a_slave_that_was_started_again_drops_after_a_promotion_is_told() {
    for was_slave in [false, true] {
        let mut follower = Follower::<MemoryStore>::new(OWN, was_slave, false);
        let greeted = follower.greet(greeting(1, &[PROMOTED], 1), FREE).expect("it is a slave");
        assert!(greeted.demoted);
        // It may have been written to while it had no primary.
        assert!(follower.must_export_dropped());
        assert_eq!(
            (follower.mark_caught_up(), follower.mark_caught_up()),
            (!was_slave, false),
            "to be kept once"
        );
    }
}
