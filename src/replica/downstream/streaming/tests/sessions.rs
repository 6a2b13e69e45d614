//! Greetings and sessions: whom a session is with, which are in force, and what ends them.

use super::*;

#[test]
fn a_former_primary_is_known_as_one_until_it_is_in_step() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(Said { stepped_down: true, ..said() }));
    assert_eq!(line.copies, 0, "it is copied to");
    // Also when it is greeted again meanwhile.
    line.gone();
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    assert_eq!(line.copies, 1);
    line.repair();
    assert_eq!(line.copies, 1);
}

#[test]
fn one_that_is_removed_is_told_of_every_session_that_it_may_be_in() {
    let source = OneKey(atom("k"));
    let lost = || GreetingAnswer::None("it does not answer".into());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Refused(Refusal::HasPrimary));
    assert!(line.slave.sessions().is_empty());
    // One that was not answered may be in force when the next is put off.
    line.greeted(1, lost());
    line.greeted(1, GreetingAnswer::Refused(Refusal::Crossing));
    assert_eq!(line.slave.sessions(), line.greetings[1..2]);
    line.now += Duration::from_secs(1);
    line.hand(Input::Timeout);
    line.answered(Answer::Dialect(Ok(true)));
    line.answered(Answer::Greeting(GreetingAnswer::Taken(said())));
    line.gone();
    line.greeted(1, lost());
    let [_, _, _, first, second] = line.greetings[..] else { panic!("{:?}", line.greetings) };
    assert_eq!(line.slave.sessions(), [second, first], "it may have taken the second");
    // Greeted once more under another name, which is dropped then.
    line.hand(Input::TakenOver { sessions: vec![3] });
    line.hand(Input::Removed);
    assert_eq!(line.byes, [[second, 3, first]]);
    assert_eq!(line.slave.standing(), Standing::Dropped);
    let mut line = Line::new(&source, 1 << 20);
    (0..100).for_each(|_| line.greeted(1, lost()));
    assert!(line.slave.sessions().len() < 20, "bounded");
}

#[test]
fn what_a_process_has_counts_for_the_slave_that_is_followed_there_alone() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    line.hand(Input::Elsewhere { at: at(1), incarnation: Some(9) });
    assert_eq!(line.slave.confirmed(), 7, "it is followed");
    line.gone();
    line.hand(Input::Elsewhere { at: at(2), incarnation: Some(8) });
    assert_eq!(line.slave.confirmed(), 7, "as it lives, for all that is known");
    line.hand(Input::Elsewhere { at: at(2), incarnation: Some(9) });
    assert_eq!((line.slave.confirmed(), line.slave.standing()), (0, Standing::Seeking));
}

#[test]
fn one_that_is_in_no_session_is_greeted_anew_and_one_that_leads_is_a_slave_no_more() {
    let source = OneKey(atom("k"));
    for (why, standing) in [
        (Refusal::OtherSession, Standing::Refused(Refusal::OtherSession)),
        (Refusal::Cycle, Standing::Dropped),
    ] {
        let mut line = Line::new(&source, 1 << 20);
        line.greeted(1, GreetingAnswer::Taken(said()));
        line.repair();
        let mark = line.taken().1.expect("asked");
        line.hand(Input::Acknowledged { mark, kept: Err(why) });
        assert!(line.events.contains(&Event::NoSession(why)));
        assert_eq!(line.slave.standing(), standing);
        // What is answered twice says nothing.
        let events = line.events.len();
        line.hand(Input::Acknowledged { mark, kept: Err(why) });
        assert_eq!(line.events.len(), events);
    }
}

#[test]
fn no_two_slaves_have_the_same_session() {
    let source = OneKey(atom("k"));
    let mut sessions: Vec<u64> = (0..2)
        .flat_map(|number| {
            let mut line = Line::numbered(&source, 10, number);
            for id in 1..4 {
                line.greeted(id, GreetingAnswer::Taken(said()));
                line.gone();
            }
            line.greetings
        })
        .collect();
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 6);
}
