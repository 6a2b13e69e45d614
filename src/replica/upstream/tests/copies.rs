//! Copies into a store, and what they drop.

use super::*;

#[test]
fn a_store_that_cannot_put_a_copy_aside_knows_what_was_not_part_of_it() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    let begun = without_give_up(hand(&mut upstream, begin(10)), CopyMark::Begin);
    assert_eq!(begun.len(), 1, "what it holds is a mix");
    assert!(upstream.durable().is_partial);
    assert_eq!((upstream.copy(), upstream.durable().copies), (1, 1));
    write(&mut upstream, 1, 10);
    assert_eq!(
        hand(&mut upstream, Input::Promote { reports: false }),
        [Output::Reply(Answer::Error("copying"))]
    );
    let ended = mark(&mut upstream, 1, CopyMark::End, 11);
    assert_eq!(ended, [Output::DeleteRest { copy: 1, export: false }]);
    // While the rest is deleted, which takes a while, writes go on.
    assert_eq!(upstream.take_rest(2), None, "of another copy");
    let deleted = upstream.take_rest(1).expect("it is looked for what the primary has not");
    write(&mut upstream, 1, 12);
    assert_eq!(upstream.copy(), 1, "what comes meanwhile is not the rest");
    let asked = hand(&mut upstream, Input::Ask { session: 1, seq: 12 });
    assert_eq!(asked, [Output::PutOff], "a restart would leave what is not deleted");
    let is_in = hand(&mut upstream, Input::CopyIsIn { copy: 1 });
    let [Output::Persist { .. }, Output::ConfirmPutOff(asked)] = is_in[..] else { panic!("{is_in:?}") };
    assert_eq!((applied(&upstream), upstream.copy()), (0, 0), "the deletion is with the store");
    assert_eq!(upstream.durable().position, Some(Position { primary: 1, applied: 12 }), "and kept behind it");
    upstream.stored(deleted, Ok(()));
    assert_eq!((applied(&upstream), upstream.take_rest(1)), (12, None));
    let kept = hand(&mut upstream, Input::Kept { asked, result: Ok(()) });
    assert_eq!(reply(&kept), Answer::Applied(12));
    assert!(!upstream.durable().is_partial);
}

fn begin(seq: u64) -> Input {
    Input::Mark { session: 1, seq, mark: CopyMark::Begin, can_put_aside: false }
}

/// A slave with values of its own, into which a copy comes.
fn upstream_that_exports() -> Upstream {
    let mut upstream = upstream_behind_a_copy();
    upstream.durable.must_export = true;
    hand(&mut upstream, begin(12));
    upstream
}

#[test]
fn what_a_copy_drops_of_a_store_is_exported_until_the_store_is_done_with_it() {
    let mut upstream = upstream_that_exports();
    let Take::Exporting(ticket) = upstream.take(1, 12) else { panic!("it may come in its place") };
    upstream.stored(ticket, Ok(()));
    // Also where the copy has ended, and the store has not kept all of it: what is to go may still be there.
    mark(&mut upstream, 1, CopyMark::End, 12);
    let [deleted, late] =
        [(); 2].map(|()| upstream.take_rest(2).expect("it is looked for what the primary has not"));
    let stays = upstream.skipped(1, 13, true, "large").expect("what its key has stays");
    hand(&mut upstream, Input::CopyIsIn { copy: 2 });
    let Take::Exporting(ticket) = upstream.take(1, 14) else { panic!("it may come in its place") };
    upstream.stored(stays, Ok(()));
    upstream.stored(deleted, not_kept(Refusal::Disk));
    upstream.stored(ticket, Ok(()));
    assert_eq!(upstream.copy(), 2, "what the copy has brought is not the store's own");
    mark(&mut upstream, 1, CopyMark::Repair, 14);
    let Take::Exporting(ticket) = upstream.take(1, 14) else { panic!("it may come in its place") };
    upstream.stored(ticket, Ok(()));
    mark(&mut upstream, 1, CopyMark::Whole, 14);
    let Take::Exporting(ticket) = upstream.take(1, 15) else { panic!("a deletion may fail yet") };
    assert_eq!((upstream.copy(), applied(&upstream), upstream.durable().must_export), (2, 10, false));
    upstream.stored(ticket, not_kept(Refusal::Disk));
    assert!(!upstream.durable().must_export, "it is behind the copy");
    upstream.stored(late, Ok(()));
    assert_eq!(upstream.copy(), 0, "what the copy was to drop is dropped");
    mark(&mut upstream, 1, CopyMark::Repair, 15);
    write(&mut upstream, 1, 15);
    mark(&mut upstream, 1, CopyMark::Whole, 15);
    assert_eq!((upstream.copy(), applied(&upstream)), (0, 15), "all is here");
    assert!(matches!(upstream.take(1, 16), Take::Store(_)));
}

#[test]
fn a_deletion_that_fails_behind_the_end_of_its_copy_leaves_what_the_next_exports() {
    let mut upstream = upstream_that_exports();
    mark(&mut upstream, 1, CopyMark::End, 16);
    let deleted = upstream.take_rest(2).expect("it is looked for what the primary has not");
    hand(&mut upstream, Input::CopyIsIn { copy: 2 });
    assert!(!upstream.durable().must_export);
    upstream.stored(deleted, not_kept(Refusal::Disk));
    assert!(upstream.durable().must_export);
    hand(&mut upstream, begin(17));
    let Take::Exporting(ticket) = upstream.take(1, 17) else { panic!("it may come in its place") };
    upstream.stored(ticket, Ok(()));
    // Also where the next begins before the deletion has failed.
    mark(&mut upstream, 1, CopyMark::End, 17);
    let deleted = upstream.take_rest(3).expect("it is looked for what the primary has not");
    hand(&mut upstream, Input::CopyIsIn { copy: 3 });
    hand(&mut upstream, begin(18));
    assert!(upstream.durable().must_export);
    upstream.stored(deleted, Ok(()));
    // And where another session does.
    mark(&mut upstream, 1, CopyMark::End, 18);
    let _deleted = upstream.take_rest(4).expect("it is looked for what the primary has not");
    hand(&mut upstream, Input::CopyIsIn { copy: 4 });
    assert!(!upstream.durable().must_export);
    greet(&mut upstream, greeting(0, &[1], 2), FREE).expect("it is a slave");
    assert!(upstream.durable().must_export);
    assert_eq!(upstream.brought_from(), 1, "what the copies before have brought is not its own");
}

#[test]
fn a_question_that_waits_for_a_copy_is_answered_when_that_is_over() {
    let mut lost = upstream_behind_a_copy();
    mark(&mut lost, 1, CopyMark::End, 10);
    assert_eq!(hand(&mut lost, Input::Ask { session: 1, seq: 10 }), [Output::PutOff]);
    let primary = greeting(0, &[1], 1).pid;
    let down = hand(&mut lost, Input::PrimaryDown(primary, OwnedTerm::atom("noconnection")));
    assert_eq!(down.last(), Some(&Output::ReplyPutOff(Answer::Error("other_session"))));
    let mut again = upstream_behind_a_copy();
    mark(&mut again, 1, CopyMark::End, 10);
    assert_eq!(hand(&mut again, Input::Ask { session: 1, seq: 10 }), [Output::PutOff]);
    let begun = without_give_up(hand(&mut again, begin(10)), CopyMark::Begin);
    assert!(matches!(begun[..], [Output::Persist { .. }, Output::ConfirmPutOff(_)]), "{begun:?}");
}

#[test]
fn a_copy_whose_rest_is_deleted_when_another_begins_is_over() {
    let mut upstream = upstream_behind_a_copy();
    mark(&mut upstream, 1, CopyMark::End, 12);
    hand(&mut upstream, begin(12));
    assert_eq!(upstream.take_rest(1), None);
    assert!(hand(&mut upstream, Input::CopyIsIn { copy: 1 }).is_empty());
}

#[test]
fn no_two_copies_into_a_store_have_one_number_whatever_comes_between_them() {
    let begin = |session| Input::Mark { session, seq: 10, mark: CopyMark::Begin, can_put_aside: false };
    let mut upstream = upstream_behind_a_copy();
    let first = upstream.copy();
    // Left off: until the primary is known, what is written counts as before.
    down(&mut upstream, &greeting(0, &[1], 1));
    assert_eq!((upstream.copy(), upstream.take_rest(first)), (first, None));
    greet(&mut upstream, greeting(0, &[1], 2), FREE).expect("it is a slave");
    assert_eq!(upstream.copy(), 0);
    hand(&mut upstream, begin(2));
    assert_eq!(upstream.copy(), first + 1);
    // Its node is killed.
    let mut again = started_again(upstream.durable(), OWN + 1);
    greet(&mut again, greeting(0, &[1], 3), FREE).expect("it is a slave");
    assert_eq!(again.copy(), 0);
    let begun = hand(&mut again, begin(3));
    assert!(begun.contains(&Output::Persist { changed: Changed::Progress, then: None }), "{begun:?}");
    let next = again.durable().copies;
    assert!(again.copy() == next && next > first + 1);
    hand(&mut again, Input::Bye { session: 3 });
    assert_eq!((again.copy(), again.durable().copies), (0, next));
}

#[test]
fn a_copy_that_no_record_knows_has_a_number_that_no_later_life_gives() {
    let mut upstream = upstream_behind_a_copy();
    let kept = upstream.durable().clone();
    let mut numbers = vec![upstream.copy()];
    // The disk takes no record, and what the store holds has been written with these numbers.
    for session in 2..6 {
        greet(&mut upstream, greeting(0, &[1], session), FREE).expect("it is a slave");
        hand(&mut upstream, Input::Mark { session, seq: 10, mark: CopyMark::Begin, can_put_aside: false });
        numbers.push(upstream.copy());
    }
    let mut again = started_again(&kept, OWN + 1);
    greet(&mut again, greeting(0, &[1], 9), FREE).expect("it is a slave");
    hand(&mut again, Input::Mark { session: 9, seq: 10, mark: CopyMark::Begin, can_put_aside: false });
    assert!(!numbers.contains(&again.copy()), "{} is one of {numbers:?}", again.copy());
}

#[test]
fn a_copy_whose_number_is_not_kept_or_whose_rest_is_not_found_is_told_to_the_primary() {
    for is_ended in [false, true] {
        let mut upstream = upstream_behind_a_copy();
        if is_ended {
            mark(&mut upstream, 1, CopyMark::End, 10);
        }
        let failed = |copy| {
            let error = NotKept { why: Refusal::Disk, error: "why".into() };
            Input::CopyFailed { copy, error }
        };
        assert!(hand(&mut upstream, failed(2)).is_empty(), "of another copy");
        let said = hand(&mut upstream, failed(1));
        assert_eq!(logs(&said), [&Event::NotKept("why".into())]);
        assert_eq!((upstream.take(1, 11), upstream.take_rest(1)), (Take::Nowhere, None));
        assert!(hand(&mut upstream, Input::CopyIsIn { copy: 1 }).is_empty());
        assert_eq!(ask(&mut upstream, 1, 11), Answer::Error("io"), "until it begins again");
        assert!(upstream.durable().is_partial);
    }
}

#[test]
fn what_is_too_large_leaves_what_a_copy_in_place_finds_under_its_key() {
    let mut upstream = upstream_behind_a_copy();
    let stays = upstream.skipped(1, 10, true, "too large").expect("it is to carry the number");
    upstream.stored(stays, Ok(()));
    assert!(matches!(upstream.take(1, 10), Take::Store(_)), "the copy goes on");
    assert_eq!(upstream.skipped(1, 10, false, "too large"), None);
    assert_eq!(upstream.take(1, 10), Take::Nowhere, "it may be any key");
}

/// A slave that had everything, and into which a copy has come.
fn upstream_behind_a_copy() -> Upstream {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Whole, 10);
    hand(&mut upstream, begin(10));
    upstream
}

#[test]
fn a_copy_that_does_not_fit_aside_leaves_what_is_there() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Begin, 3);
    assert_eq!(upstream.take(1, 3), Take::Aside);
    upstream.put_aside(not_kept(Refusal::NoSpace));
    assert!(matches!(logs(&outputs(&mut upstream))[..], [Event::CopyNotKept(_)]));
    assert_eq!(upstream.take(1, 3), Take::Nowhere);
    let ended = mark(&mut upstream, 1, CopyMark::End, 4);
    assert!(!ended.iter().any(|output| matches!(output, Output::SwapIn { .. })));
    assert!(upstream.started_empty() && !upstream.durable().was_slave);
    for _ in 0..2 {
        assert_eq!(ask(&mut upstream, 1, 4), Answer::Error("no_space"), "until it begins again");
    }
    mark(&mut upstream, 1, CopyMark::Begin, 5);
    assert_eq!(ask(&mut upstream, 1, 5), Answer::Applied(0));
}
