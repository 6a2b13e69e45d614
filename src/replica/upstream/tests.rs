mod copies;
mod elected;
mod promotion;

use super::*;
use crate::etf::OwnedTerm;

const OWN: u64 = 7;
/// Some store that was promoted once.
const PROMOTED: u64 = 5;
/// That of all primaries.
const FAMILY: u64 = 1;
/// Nothing that would speak against a greeting.
const FREE: Around = Around {
    has_slaves: false,
    is_greeted_by_slave: false,
    is_empty: true,
    shares_name: false,
    is_shared: false,
};

fn greeting(term: u64, path: &[u64], session: u64) -> Greeting {
    let id = path.last().copied().unwrap_or(0) as u32;
    Greeting {
        session,
        lineage: Lineage {
            term,
            promoted: if term == 0 { 0 } else { PROMOTED },
            path: path.to_vec(),
            family: FAMILY,
        },
        seq: 10,
        started_empty: false,
        names: Vec::new(),
        slaves: Vec::new(),
        pid: Pid { node: "p@h".into(), id, serial: 0, creation: 1 },
    }
}

fn upstream() -> Upstream {
    Upstream::new(OWN, Membership::default(), true)
}

/// One that was a slave before it was started again.
fn started_again(durable: &Membership, incarnation: u64) -> Upstream {
    Upstream::new(incarnation, durable.clone(), false)
}

fn hand(upstream: &mut Upstream, input: Input) -> Vec<Output> {
    upstream.handle(input);
    outputs(upstream)
}

fn outputs(upstream: &mut Upstream) -> Vec<Output> {
    std::iter::from_fn(|| upstream.poll_output()).collect()
}

fn reply(outputs: &[Output]) -> Answer {
    let mut replies = outputs.iter().filter_map(|output| match output {
        Output::Reply(answer) | Output::Persist { then: Some(answer), .. } => Some(answer.clone()),
        _ => None,
    });
    let reply = replies.next().expect("an answer");
    assert_eq!(replies.next(), None, "it is answered once");
    reply
}

fn logs(outputs: &[Output]) -> Vec<&Event> {
    outputs
        .iter()
        .filter_map(|output| if let Output::Log(event) = output { Some(event) } else { None })
        .collect()
}

/// What is to be done after a greeting that is taken; or why it is refused.
fn greet(upstream: &mut Upstream, greeting: Greeting, around: Around) -> Result<Vec<Output>, &'static str> {
    let outputs = hand(upstream, Input::Hello(greeting, around));
    match reply(&outputs) {
        Answer::Error(why) => Err(why),
        Answer::Greeted { .. } => Ok(outputs),
        other => panic!("{other:?}"),
    }
}

fn had(outputs: &[Output]) -> (Option<u64>, u64) {
    let Answer::Greeted { had, applied, .. } = reply(outputs) else { panic!("it was taken") };
    (had, applied)
}

fn is_demoted(outputs: &[Output]) -> bool {
    outputs.iter().any(|output| matches!(output, Output::RemoveDownstreams { .. }))
}

fn down(upstream: &mut Upstream, greeting: &Greeting) {
    hand(upstream, Input::PrimaryDown(greeting.pid.clone(), OwnedTerm::atom("noconnection")));
}

fn mark(upstream: &mut Upstream, session: u64, mark: CopyMark, seq: u64) -> Vec<Output> {
    let outputs = hand(upstream, Input::Mark { session, seq, mark, can_put_aside: true });
    without_give_up(outputs, mark)
}

/// A copy drops what callers may wait for, at its beginning and its end.
fn without_give_up(mut outputs: Vec<Output>, mark: CopyMark) -> Vec<Output> {
    let gives_up = outputs.extract_if(.., |output| matches!(output, Output::GiveUp)).count();
    assert!(gives_up == 0 || matches!(mark, CopyMark::Begin | CopyMark::End), "{mark:?}");
    outputs
}

/// Asks, and is answered once all is kept.
fn ask(upstream: &mut Upstream, session: u64, seq: u64) -> Answer {
    let asked = hand(upstream, Input::Ask { session, seq });
    let [Output::Confirm(asked)] = asked[..] else { return reply(&asked) };
    reply(&hand(upstream, Input::Kept { asked, result: Ok(()) }))
}

/// A write that the store does at once.
fn write(upstream: &mut Upstream, session: u64, seq: u64) {
    let Take::Store(ticket) = upstream.take(session, seq) else { panic!("it is for the store") };
    upstream.stored(ticket, Ok(()));
}

fn not_kept(why: Refusal) -> Result<(), NotKept> {
    Err(NotKept { why, error: "why".into() })
}

fn applied(upstream: &Upstream) -> u64 {
    upstream.primary().expect("it is a slave").applied
}

#[test]
fn what_a_primary_has_not_brought_up_to_date_has_nothing_of_it() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(1, &[1], 1), FREE).expect("it is taken");
    assert_eq!(had(&greet(&mut upstream, greeting(1, &[1], 2), FREE).expect("it is taken")), (None, 0));
    mark(&mut upstream, 2, CopyMark::Whole, 10);
    assert_eq!(had(&greet(&mut upstream, greeting(1, &[1], 3), FREE).expect("it is taken")), (Some(1), 10));
}

#[test]
fn a_primary_that_takes_back_one_of_two_names_is_told_of_the_sessions_of_the_other() {
    let mut upstream = upstream();
    let left = |outputs: &[Output]| -> Vec<u64> {
        let session = |output: &Output| match output {
            Output::Leave { session, .. } => Some(*session),
            _ => None,
        };
        outputs.iter().filter_map(session).collect()
    };
    // By the second name it is greeted again and again, and no answer comes there.
    for session in 1..=4 {
        greet(&mut upstream, greeting(0, &[1], session), FREE).expect("it is taken");
    }
    assert_eq!(left(&hand(&mut upstream, Input::Bye { session: 4 })), [1, 2, 3]);
    // By one name there is no other.
    greet(&mut upstream, greeting(0, &[1], 5), FREE).expect("it is taken");
    assert!(left(&hand(&mut upstream, Input::Bye { session: 5 })).is_empty());
    // The same where another is promoted in the place of the primary; and there is a bound.
    for session in 1..=200 {
        greet(&mut upstream, greeting(0, &[1], session), FREE).expect("it is taken");
    }
    let outputs = greet(&mut upstream, greeting(1, &[2], 201), FREE).expect("its term is higher");
    assert_eq!(left(&outputs), (136..=200).collect::<Vec<u64>>());
    assert!(
        left(&hand(&mut upstream, Input::Bye { session: 201 })).is_empty(),
        "those are another primary's"
    );
}

#[test]
fn a_primary_that_adds_and_removes_a_store_again_and_again_is_watched_once() {
    let mut upstream = upstream();
    let is_watched = |outputs: &[Output]| outputs.iter().any(|output| matches!(output, Output::Watch(_)));
    for session in 1..=40 {
        let outputs = greet(&mut upstream, greeting(0, &[1], session), FREE).expect("it is taken");
        assert_eq!(is_watched(&outputs), session == 1);
        hand(&mut upstream, Input::Bye { session });
    }
    // Two primaries that are promoted by turns.
    for term in 1..=40 {
        let primary = 1 + term % 2;
        let outputs = greet(&mut upstream, greeting(term, &[primary], 40 + term), FREE).expect("it is taken");
        assert_eq!(is_watched(&outputs), term == 1);
    }
    down(&mut upstream, &greeting(0, &[1], 1));
    let outputs = greet(&mut upstream, greeting(41, &[1], 81), FREE).expect("it is taken");
    assert!(is_watched(&outputs), "it was down");
}

#[test]
fn itself_and_circles_are_refused_and_a_path_of_long_ago_is_not() {
    let mut upstream = upstream();
    let with_slaves = Around { has_slaves: true, ..FREE };
    assert_eq!(greet(&mut upstream, greeting(0, &[OWN], 1), FREE), Err("itself"));
    assert_eq!(greet(&mut upstream, greeting(0, &[OWN, 2], 1), with_slaves), Err("cycle"));
    assert!(greet(&mut upstream, greeting(0, &[OWN, 2], 1), FREE).is_ok(), "nothing goes on from here");
    assert_eq!(upstream.lineage().path, [OWN, 2, OWN]);
}

#[test]
fn another_primary_is_taken_where_the_first_is_gone_or_the_term_is_higher() {
    let mut upstream = upstream();
    let first = greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    assert!(!is_demoted(&first) && first.contains(&Output::Watch(greeting(0, &[1], 1).pid)));
    assert_eq!(greet(&mut upstream, greeting(0, &[2], 2), FREE), Err("has_primary"));
    down(&mut upstream, &greeting(0, &[1], 1));
    assert!(greet(&mut upstream, greeting(0, &[2], 2), FREE).is_ok());
    let higher = greet(&mut upstream, greeting(3, &[1], 3), FREE).expect("its term is higher");
    assert!(!is_demoted(&higher));
    let left = Output::Leave { primary: greeting(0, &[2], 2).pid, session: 2 };
    assert!(higher.contains(&left), "the one before is there, and knows nothing of it");
    let again = greet(&mut upstream, greeting(3, &[1], 4), FREE).expect("the same");
    assert!(!again.contains(&Output::RenewAll), "nothing is new to its own slaves");
    let promoted = greet(&mut upstream, greeting(4, &[1], 5), FREE).expect("the same");
    assert!(promoted.contains(&Output::RenewAll), "they are to know of the promotion");
    assert_eq!(greet(&mut upstream, greeting(2, &[2], 6), FREE), Err("superseded"));
    assert_eq!(reply(&hand(&mut upstream, Input::Promote { reports: false })), Answer::Ok);
    assert_eq!(reply(&hand(&mut upstream, Input::Promote { reports: false })), Answer::Error("not_a_slave"));
    assert_eq!(upstream.durable().term, 5);
    let demoted = greet(&mut upstream, greeting(6, &[1], 7), FREE).expect("its term is higher");
    assert!(is_demoted(&demoted));
}

#[test]
fn a_refusal_is_said_once_and_watches_have_a_bound() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    for (term, count) in [(0, 1), (0, 0)] {
        let refused = hand(&mut upstream, Input::Hello(greeting(term, &[2], 2), FREE));
        assert_eq!(logs(&refused).len(), count);
    }
    for primary in 2..17 {
        assert!(greet(&mut upstream, greeting(primary, &[100 + primary], primary), FREE).is_ok());
    }
    assert_eq!(greet(&mut upstream, greeting(17, &[117], 17), FREE), Err("has_primary"));
    down(&mut upstream, &greeting(3, &[103], 3));
    assert!(greet(&mut upstream, greeting(17, &[117], 17), FREE).is_ok());
}

#[test]
fn one_that_was_a_slave_before_a_restart_says_so_once() {
    let before = Membership { position: Some(Position { primary: 1, applied: 12 }), ..Membership::default() };
    let mut upstream = started_again(&before, OWN);
    let greeted = greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    assert_eq!(had(&greeted), (Some(1), 12));
    assert_eq!(ask(&mut upstream, 1, 15), Answer::Applied(12), "what it had it has");
    hand(&mut upstream, Input::Bye { session: 1 });
    assert_eq!(upstream.durable().position, None, "nor after a restart");
    let greeted = greet(&mut upstream, greeting(0, &[1], 2), FREE).expect("it is a slave");
    assert_eq!(had(&greeted), (None, 0));
    let mut upstream = started_again(&before, OWN);
    let greeted = greet(&mut upstream, greeting(0, &[2], 1), FREE).expect("it is a slave");
    assert_eq!(had(&greeted), (Some(1), 12));
    assert_eq!(upstream.durable().position, None, "of another's writes it has none");
    assert_eq!(ask(&mut upstream, 1, 15), Answer::Applied(0));
}

#[test]
fn a_copy_is_put_aside_and_what_a_session_that_is_over_sends_is_of_no_use() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    assert_eq!(upstream.take(2, 11), Take::Nowhere);
    assert_eq!(ask(&mut upstream, 2, 11), Answer::Error("other_session"));
    write(&mut upstream, 1, 11);
    let begun = mark(&mut upstream, 1, CopyMark::Begin, 11);
    assert_eq!(begun, [Output::Persist { changed: Changed::Progress, then: None }], "it is counted");
    assert_eq!(upstream.take(1, 11), Take::Aside);
    assert_eq!((upstream.take(2, 11), upstream.copy()), (Take::Nowhere, 0));
    assert!(upstream.started_empty());
    let ended = mark(&mut upstream, 1, CopyMark::End, 12);
    assert_eq!(ended, [Output::SwapIn { copy: 1, export: false }]);
    assert_eq!(ask(&mut upstream, 1, 12), Answer::Applied(0), "it is not in yet");
    assert!(hand(&mut upstream, Input::CopyIsIn { copy: 0 }).is_empty(), "of another copy");
    let kept = hand(&mut upstream, Input::CopyIsIn { copy: 1 });
    assert_eq!(
        kept,
        [Output::Persist { changed: Changed::Promotion, then: None }],
        "it is a slave from here on"
    );
    assert!(!upstream.started_empty(), "it has what its primary has");
    assert_eq!(ask(&mut upstream, 1, 15), Answer::Applied(12));
    assert_eq!(upstream.primary().map(|primary| primary.lag), Some(3));
    // What comes before something that was left out is repaired does not count.
    mark(&mut upstream, 1, CopyMark::Repair, 12);
    write(&mut upstream, 1, 20);
    assert_eq!(applied(&upstream), 12);
    mark(&mut upstream, 1, CopyMark::Whole, 21);
    assert_eq!(applied(&upstream), 21);
}

#[test]
fn what_was_applied_is_never_ahead_of_the_store() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Whole, 10);
    let tickets = [11, 12].map(|seq| match upstream.take(1, seq) {
        Take::Store(ticket) => ticket,
        other => panic!("{other:?}"),
    });
    let asked = hand(&mut upstream, Input::Ask { session: 1, seq: 12 });
    let [Output::Confirm(asked)] = asked[..] else { panic!("{asked:?}") };
    assert_eq!(applied(&upstream), 10);
    // It is kept behind the two.
    assert_eq!(upstream.durable().position, Some(Position { primary: 1, applied: 12 }));
    upstream.stored(tickets[1], Ok(()));
    assert_eq!(applied(&upstream), 10, "the one before is not done");
    upstream.stored(tickets[0], Ok(()));
    assert_eq!(applied(&upstream), 12);
    let answer = reply(&hand(&mut upstream, Input::Kept { asked, result: Ok(()) }));
    assert_eq!(answer, Answer::Applied(12));
    // A mark waits for what is before it, and what fails stops it, as it does the answer that is awaited.
    mark(&mut upstream, 1, CopyMark::Repair, 12);
    let Take::Store(ticket) = upstream.take(1, 13) else { panic!("it is for the store") };
    mark(&mut upstream, 1, CopyMark::Whole, 13);
    let asked = hand(&mut upstream, Input::Ask { session: 1, seq: 13 });
    let [Output::Confirm(asked)] = asked[..] else { panic!("{asked:?}") };
    upstream.stored(ticket, not_kept(Refusal::Disk));
    assert!(matches!(logs(&outputs(&mut upstream))[..], [Event::NotKept(_)]));
    assert_eq!(applied(&upstream), 12);
    let answer = reply(&hand(&mut upstream, Input::Kept { asked, result: Ok(()) }));
    assert_eq!(answer, Answer::Error("io"));
    // Of a session that is over nothing is known any more.
    let Take::Store(late) = upstream.take(1, 14) else { panic!("it is for the store") };
    greet(&mut upstream, greeting(0, &[1], 2), FREE).expect("the same");
    upstream.stored(late, not_kept(Refusal::Disk));
    assert_eq!((ask(&mut upstream, 2, 14), upstream.poll_output()), (Answer::Applied(12), None));
}

#[test]
fn what_is_not_kept_is_told_once_and_nothing_counts_until_it_was_sent_again() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    let standing = |upstream: &Upstream| upstream.primary().expect("it is a slave").standing.code();
    mark(&mut upstream, 1, CopyMark::Whole, 5);
    assert_eq!((ask(&mut upstream, 1, 5), standing(&upstream)), (Answer::Applied(5), "following"));
    write(&mut upstream, 1, 6);
    let Take::Store(ticket) = upstream.take(1, 7) else { panic!("it is for the store") };
    upstream.stored(ticket, not_kept(Refusal::NoSpace));
    write(&mut upstream, 1, 8);
    assert_eq!(logs(&outputs(&mut upstream)).len(), 1);
    assert_eq!((ask(&mut upstream, 1, 8), standing(&upstream)), (Answer::Error("no_space"), "full"));
    // A mark that was under way.
    mark(&mut upstream, 1, CopyMark::Whole, 8);
    assert_eq!((ask(&mut upstream, 1, 9), applied(&upstream)), (Answer::Applied(6), 6));
    mark(&mut upstream, 1, CopyMark::Repair, 9);
    assert_eq!(standing(&upstream), "full", "until everything is here");
    let Take::Store(ticket) = upstream.take(1, 9) else { panic!("it is for the store") };
    upstream.stored(ticket, not_kept(Refusal::NoSpace));
    assert!(outputs(&mut upstream).is_empty(), "said once, until all is well");
    mark(&mut upstream, 1, CopyMark::Repair, 9);
    mark(&mut upstream, 1, CopyMark::Whole, 10);
    let asked = hand(&mut upstream, Input::Ask { session: 1, seq: 10 });
    let [Output::Confirm(asked)] = asked[..] else { panic!("{asked:?}") };
    let kept = hand(&mut upstream, Input::Kept { asked, result: Ok(()) });
    assert_eq!(kept, [Output::Log(Event::KeptAgain), Output::Reply(Answer::Applied(10))]);
    assert_eq!(standing(&upstream), "following");
    // What the store does not confirm it has not kept.
    let asked = hand(&mut upstream, Input::Ask { session: 1, seq: 10 });
    let [Output::Confirm(asked)] = asked[..] else { panic!("{asked:?}") };
    let kept = hand(&mut upstream, Input::Kept { asked, result: not_kept(Refusal::Disk) });
    assert_eq!((reply(&kept), standing(&upstream)), (Answer::Error("io"), "failing"));
}

#[test]
fn a_write_that_was_skipped_is_missing_until_it_is_sent_again() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[9], 1), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Whole, 5);
    assert_eq!(upstream.skipped(2, 6, false, "too large"), None);
    assert!(outputs(&mut upstream).is_empty(), "of another session");
    assert_eq!(ask(&mut upstream, 1, 6), Answer::Applied(5));
    assert_eq!(upstream.skipped(1, 7, true, "too large"), None);
    // The next write has come, and says nothing about that.
    write(&mut upstream, 1, 8);
    assert_eq!(ask(&mut upstream, 1, 8), Answer::Error("too_large"));
    assert_eq!(applied(&upstream), 5);
    // A copy without it takes the place of nothing, whether it is put aside or not, unless its key is known there.
    for (can_put_aside, has_key, is_copied) in
        [(true, true, false), (true, false, false), (false, true, true), (false, false, false)]
    {
        hand(&mut upstream, Input::Mark { session: 1, seq: 8, mark: CopyMark::Begin, can_put_aside });
        if let Some(stays) = upstream.skipped(1, 9, has_key, "too large") {
            upstream.stored(stays, Ok(()));
        }
        let ended = mark(&mut upstream, 1, CopyMark::End, 9);
        let copy = ended.iter().find_map(|output| match output {
            Output::DeleteRest { copy, .. } | Output::SwapIn { copy, .. } => Some(*copy),
            _ => None,
        });
        assert_eq!(copy.is_some(), is_copied);
        if let Some(copy) = copy {
            hand(&mut upstream, Input::CopyIsIn { copy });
            assert_eq!(applied(&upstream), 5, "something is missing in it");
        }
        assert_eq!(ask(&mut upstream, 1, 9), Answer::Error("too_large"));
    }
}

#[test]
fn all_keys_are_deleted_where_everything_is_here_and_nowhere_in_a_copy() {
    let mut upstream = upstream();
    greet(&mut upstream, greeting(0, &[1], 1), FREE).expect("it is a slave");
    mark(&mut upstream, 1, CopyMark::Whole, 5);
    assert!(upstream.take_clear(2, 6).is_none() && outputs(&mut upstream).is_empty(), "of another session");
    let ticket = upstream.take_clear(1, 6).expect("it is for the store");
    assert_eq!(applied(&upstream), 5);
    upstream.stored(ticket, Ok(()));
    assert_eq!((ask(&mut upstream, 1, 6), applied(&upstream)), (Answer::Applied(6), 6));
    // No primary of ours does this.
    for can_put_aside in [true, false] {
        hand(&mut upstream, Input::Mark { session: 1, seq: 6, mark: CopyMark::Begin, can_put_aside });
        assert!(upstream.take_clear(1, 7).is_none());
        mark(&mut upstream, 1, CopyMark::End, 8);
        assert_eq!((ask(&mut upstream, 1, 8), applied(&upstream)), (Answer::Error("io"), 6));
    }
}

#[test]
fn what_is_half_done_is_known_until_it_is_done_also_after_a_restart() {
    let mut upstream = upstream();
    let greeted = greet(&mut upstream, greeting(1, &[PROMOTED], 1), FREE).expect("it is a slave");
    let persist = Output::Persist { changed: Changed::Promotion, then: None };
    assert_eq!(greeted[0], persist, "before anything is dropped");
    assert!(upstream.durable().must_export && !upstream.durable().is_partial);
    // A copy that is put aside leaves what is there as it was, and a repair does not.
    mark(&mut upstream, 1, CopyMark::Begin, 3);
    assert!(!upstream.durable().is_partial);
    let repair = mark(&mut upstream, 1, CopyMark::Repair, 3);
    assert_eq!(repair, [Output::Persist { changed: Changed::Progress, then: None }]);
    let mut again = started_again(upstream.durable(), OWN + 1);
    assert!(again.durable().is_partial && again.durable().must_export);
    greet(&mut again, greeting(1, &[PROMOTED], 2), FREE).expect("it is a slave");
    assert!(again.durable().is_partial && again.durable().must_export, "nothing has come yet");
    assert!(mark(&mut again, 1, CopyMark::Whole, 4).is_empty(), "of a session that is over");
    assert_eq!(mark(&mut again, 2, CopyMark::Whole, 4).len(), 1);
    assert!(!again.durable().is_partial && !again.durable().must_export);
    // What is not kept makes a mix of it too, which is noted at the next occasion.
    let Take::Store(ticket) = again.take(2, 5) else { panic!("it is for the store") };
    again.stored(ticket, not_kept(Refusal::NoSpace));
    assert!(again.durable().is_partial);
    let asked = hand(&mut again, Input::Ask { session: 2, seq: 5 });
    assert!(asked.contains(&Output::Persist { changed: Changed::Progress, then: None }), "{asked:?}");
    let promoted = hand(&mut again, Input::Promote { reports: false });
    assert!(logs(&promoted).contains(&&Event::Lacks(Lacks::NotKept(Refusal::NoSpace), Some(6))));
    assert!(!again.durable().is_partial, "it is what its own are to have");
}

#[test]
fn nothing_is_taken_in_a_session_whose_connection_is_lost() {
    let mut upstream = upstream();
    let primary = greeting(0, &[1], 1);
    assert!(greet(&mut upstream, primary.clone(), FREE).is_ok());
    write(&mut upstream, 1, 1);
    assert_eq!(ask(&mut upstream, 1, 0), Answer::Applied(0));
    down(&mut upstream, &primary);
    // What is asked there may be behind writes that were lost.
    assert_eq!(upstream.take(1, 2), Take::Nowhere);
    assert_eq!(ask(&mut upstream, 1, 0), Answer::Error("other_session"));
    assert!(greet(&mut upstream, greeting(0, &[1], 2), FREE).is_ok());
    write(&mut upstream, 2, 3);
    down(&mut upstream, &primary);
    let removed = hand(&mut upstream, Input::Bye { session: 2 });
    assert!(removed.contains(&Output::Log(Event::Removed)), "that it is removed it is told all the same");
}

#[test]
fn of_two_that_greet_each_other_one_becomes_the_slave() {
    let mut upstream = upstream();
    let by_slave = Around { has_slaves: true, is_greeted_by_slave: true, ..FREE };
    assert_eq!(greet(&mut upstream, greeting(0, &[OWN - 1], 1), by_slave), Err("crossing"));
    upstream.greeting(true);
    assert_eq!(greet(&mut upstream, greeting(0, &[OWN + 1], 1), FREE), Err("crossing"));
    assert!(
        greet(&mut upstream, greeting(0, &[OWN - 1], 1), FREE).is_ok(),
        "the one with the higher incarnation"
    );
    // What changes nothing above it is no matter.
    assert!(greet(&mut upstream, greeting(0, &[OWN - 1], 2), FREE).is_ok());
    down(&mut upstream, &greeting(0, &[OWN - 1], 2));
    assert_eq!(greet(&mut upstream, greeting(0, &[OWN + 1], 3), FREE), Err("crossing"));
    assert!(greet(&mut upstream, greeting(1, &[OWN + 1], 3), FREE).is_ok(), "a promotion waits for nobody");
    upstream.greeting(false);
    down(&mut upstream, &greeting(1, &[OWN + 1], 3));
    assert!(greet(&mut upstream, greeting(1, &[OWN + 2], 4), FREE).is_ok());
}

#[test]
fn who_was_started_without_data_does_not_empty_one_that_has_some() {
    let mut upstream = upstream();
    let full = Around { is_empty: false, ..FREE };
    let started_empty =
        |incarnation, session| Greeting { started_empty: true, ..greeting(0, &[incarnation], session) };
    assert_eq!(greet(&mut upstream, started_empty(1, 1), full), Err("not_empty"));
    assert!(upstream.primary().is_none());
    assert!(greet(&mut upstream, started_empty(1, 1), FREE).is_ok());
    assert!(greet(&mut upstream, started_empty(1, 2), full).is_ok(), "it has what that one sent");
    down(&mut upstream, &started_empty(1, 2));
    assert_eq!(greet(&mut upstream, started_empty(2, 3), full), Err("not_empty"));
    assert!(greet(&mut upstream, greeting(0, &[2], 3), full).is_ok(), "by hand");
}

#[test]
fn what_a_caller_writes_to_a_slave_that_has_not_been_found_again_is_exported() {
    let mut slave = upstream();
    greet(&mut slave, greeting(0, &[1], 3), FREE).expect("it is taken");
    hand(&mut slave, Input::Mark { session: 3, seq: 10, mark: CopyMark::Whole, can_put_aside: false });
    // While it follows, a write here is another matter.
    assert!(slave.minds_writes());
    assert!(hand(&mut slave, Input::OwnWrite).is_empty());
    let durable =
        Membership { position: Some(Position { primary: 1, applied: 10 }), ..slave.durable().clone() };
    let mut again = started_again(&durable, OWN + 1);
    assert!(again.minds_writes());
    let outputs = hand(&mut again, Input::OwnWrite);
    assert!(matches!(outputs[0], Output::Persist { then: None, .. }), "{outputs:?}");
    assert_eq!(logs(&outputs), [&Event::WrittenTo]);
    // Said once.
    assert!(!again.minds_writes() && hand(&mut again, Input::OwnWrite).is_empty());
    assert!(again.durable().must_export);
    // It is copied to, whatever it had of that primary.
    let outputs = greet(&mut again, greeting(0, &[1], 4), FREE).expect("it is taken");
    let answer = reply(&outputs);
    assert!(matches!(answer, Answer::Greeted { had: None, stepped_down: false, .. }), "{answer:?}");
    hand(&mut again, Input::Mark { session: 4, seq: 10, mark: CopyMark::Begin, can_put_aside: false });
    let taken = again.take(4, 11);
    assert!(matches!(taken, Take::Exporting(_)), "{taken:?}");
    // Promoted, it keeps what it has.
    let mut promoted = started_again(&durable, OWN + 2);
    hand(&mut promoted, Input::OwnWrite);
    hand(&mut promoted, Input::Promote { reports: false });
    assert!(!promoted.durable().must_export && !promoted.minds_writes());
}
