//! A slave that does not keep what it is sent.

use super::*;

#[test]
fn one_that_is_full_is_sent_deletions_and_after_a_while_what_it_did_not_keep() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    let session = line.greetings[0];
    line.settled();
    assert_eq!(line.slave.confirmed(), 7);
    assert_eq!(line.slave.push(8, put(&key, &key)), Pushed::Ready);
    line.pass();
    let mark = line.taken().1.expect("asked");
    let full = || Input::Acknowledged { mark, kept: Err(Refusal::NoSpace) };
    line.hand(full());
    assert_eq!(line.events.last(), Some(&Event::NotKept(Refusal::NoSpace)));
    assert!(!line.slave.has(8, Traits::none()));
    assert_eq!(line.slave.standing(), Standing::Full { why: Refusal::NoSpace, missed: Some(1) });
    assert_eq!(line.slave.push(9, put(&atom("l"), &key)), Pushed::Kept);
    assert_eq!(line.slave.push(10, delete(&key)), Pushed::Ready);
    let until = line.slave.poll_timeout().expect("it is tried again");
    line.pass();
    line.repair();
    let (sent, mark) = line.taken();
    assert_eq!(sent, [format!("{{:\"$gen_cast\", {{:replica_delete, {session}, 10, :k}}}}")]);
    line.acknowledged(mark.expect("asked"));
    assert_eq!((line.slave.confirmed(), line.slave.poll_timeout()), (7, Some(until)));
    assert!(!line.events.contains(&Event::TakesAgain));
    line.now = until;
    line.repair();
    assert!(line.events.contains(&Event::TakesAgain));
    let (sent, mark) = line.taken();
    assert_eq!(sent.len(), 4, "{sent:?}");
    assert!(matches!(line.slave.standing(), Standing::Full { .. }));
    line.acknowledged(mark.expect("asked"));
    assert_eq!((line.slave.standing(), line.slave.confirmed()), (Standing::InStep { lag: 0 }, 7));
}

#[test]
fn what_was_sent_behind_a_question_is_missed_too_where_the_answer_tells_of_a_failure() {
    let (key, other) = (atom("k"), atom("l"));
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    line.slave.push(8, put(&key, &key));
    line.pass();
    let mark = line.taken().1.expect("asked");
    // It fails there while the question is answered, which is the first chance to tell of it.
    line.slave.push(9, put(&other, &key));
    let (sent, asked) = line.taken();
    assert_eq!((sent.len(), asked), (1, None));
    let why = Refusal::TooLarge;
    line.hand(Input::Acknowledged { mark, kept: Err(why) });
    assert_eq!(line.slave.standing(), Standing::Full { why, missed: Some(2) });
    // It is asked when that has come, which takes room in the window until then.
    line.pass();
    let mark = line.taken().1.expect("asked");
    line.acknowledged(mark);
    assert_eq!(line.slave.standing(), Standing::Full { why, missed: Some(2) });
    assert!(!line.slave.has(8, Traits::none()));
}

#[test]
fn one_that_fails_late_is_told_that_something_is_missing_before_it_is_sent_a_deletion() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    let session = line.greetings[0];
    line.settled();
    line.slave.push(8, put(&key, &key));
    line.pass();
    let mark = line.taken().1.expect("asked");
    line.slave.push(9, put(&key, &key));
    line.taken();
    let why = Refusal::NoSpace;
    line.hand(Input::Acknowledged { mark, kept: Err(why) });
    // What was on its way fails too, and is told with the answer to the next question. Before that comes it is sent what it lacks.
    line.pass();
    let mark = line.taken().1.expect("asked");
    line.now = line.slave.poll_timeout().expect("it is tried again");
    line.repair();
    let sent = line.taken().0;
    assert!(sent.first().is_some_and(|first| first.contains(":repair")), "{sent:?}");
    assert!(sent.last().is_some_and(|last| last.contains(":whole")), "{sent:?}");
    line.hand(Input::Acknowledged { mark, kept: Err(why) });
    // Of which it knows nothing.
    assert_eq!(line.slave.push(10, put(&atom("l"), &key)), Pushed::Kept);
    assert_eq!(line.slave.push(11, delete(&key)), Pushed::Ready);
    let (sent, _) = line.taken();
    let cast = |message: &str| format!("{{:\"$gen_cast\", {message}}}");
    let repair = cast(&format!("{{:replica_copy, {session}, 7, :repair}}"));
    assert_eq!(sent, [repair, cast(&format!("{{:replica_delete, {session}, 11, :k}}"))]);
}

#[test]
fn one_that_stays_full_is_tried_less_and_less_often_and_said_to_be_so_once() {
    let key = atom("k");
    let source = OneKey(key.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    line.slave.push(8, put(&key, &key));
    let mut pauses = Vec::new();
    for _ in 0..7 {
        line.pass();
        line.repair();
        let mark = line.taken().1.expect("asked");
        line.hand(Input::Acknowledged { mark, kept: Err(Refusal::NoSpace) });
        let Phase::Held { until, .. } = line.slave.phase else { panic!("it is tried later") };
        pauses.push(until.duration_since(line.now).as_millis());
        line.now = until;
    }
    assert_eq!(pauses, [500, 1_000, 2_000, 4_000, 8_000, 8_000, 8_000]);
    assert_eq!(line.events.iter().filter(|event| matches!(event, Event::NotKept(_))).count(), 1);
}
