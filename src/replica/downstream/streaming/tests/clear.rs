//! Deletions of all keys.

use super::*;
use crate::replica::downstream::event::Level;

fn in_step<'a>(source: &'a OneKey) -> Line<'a> {
    let mut line = Line::new(source, 1 << 20);
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    line
}

#[test]
fn a_kvnode_that_has_everything_is_told_of_it_in_its_turn() {
    let k = atom("k");
    let source = OneKey(k.clone());
    let mut line = in_step(&source);
    let session = line.greetings[0];
    line.slave.push(8, put(&k, &k));
    assert_eq!(line.slave.push_clear(9), Some(Pushed::Ready));
    line.slave.push(10, put(&k, &k));
    line.pass();
    let (sent, mark) = line.taken();
    let expected = [
        format!("{{:\"$gen_cast\", {{:replica_put, {session}, 8, 5, :k, :k}}}}"),
        format!("{{:\"$gen_cast\", {{:replica_clear, {session}, 9}}}}"),
        format!("{{:\"$gen_cast\", {{:replica_put, {session}, 10, 5, :k, :k}}}}"),
    ];
    assert_eq!(sent, expected);
    line.acknowledged(mark.expect("it is asked"));
    assert_eq!(line.slave.confirmed(), 10);
}

#[test]
fn in_the_middle_of_a_copy_and_to_other_servers_it_is_not_told() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 1 << 20);
    assert_eq!(line.slave.push_clear(7), None, "nobody is there");
    line.greeted(1, GreetingAnswer::Taken(said()));
    assert_eq!(line.slave.push_clear(7), None, "a copy is due");
    line.repair();
    let (_, mark) = line.taken();
    assert_eq!(line.slave.push_clear(7), None, "it may still delete what the copy has not brought");
    line.acknowledged(mark.expect("it is asked"));
    assert_eq!(line.slave.push_clear(7), Some(Pushed::Ready));

    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.settled();
    assert_eq!(line.slave.push_clear(8), None);
}

#[test]
fn where_it_is_lost_everything_is_missed() {
    let k = atom("k");
    let source = OneKey(k.clone());
    for is_sent in [false, true] {
        let mut line = in_step(&source);
        line.slave.push_clear(8);
        line.slave.push(9, put(&k, &k));
        if is_sent {
            line.taken();
        }
        line.gone();
        assert_eq!(line.slave.standing(), Standing::Gone { missed: None });
    }
    // Past the bound too.
    let mut line = Line::new(&source, 150);
    line.greeted(1, GreetingAnswer::Taken(said()));
    line.settled();
    assert_eq!(line.slave.push_clear(8), Some(Pushed::Ready), "one always fits");
    assert!((9..20).any(|seq| line.slave.push(seq, put(&k, &k)) == Pushed::Behind));
    assert!(line.slave.lacks.is_all());
}

#[test]
fn a_full_slave_is_still_told_of_it_as_it_makes_room() {
    let k = atom("k");
    let source = OneKey(k.clone());
    let mut line = in_step(&source);
    line.slave.push(8, put(&k, &k));
    line.pass();
    let (_, mark) = line.taken();
    line.slave.push_clear(9);
    line.hand(Input::Acknowledged { mark: mark.expect("it is asked"), kept: Err(Refusal::NoSpace) });
    let sent = line.taken().0;
    assert!(sent.iter().any(|sent| sent.contains("replica_clear")), "{sent:?}");
    assert_eq!(line.slave.push_clear(10), None, "it lacks something");
}

#[test]
fn an_elixir_server_whose_keys_cannot_be_read_has_no_deletion_of_all_keys() {
    let k = atom("k");
    let source = OneKey(k.clone());
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    line.swept(None);
    line.settled();
    assert_eq!(line.slave.confirmed(), 7);
    let settled = |line: &mut Line<'_>| {
        for _ in 0..5 {
            line.pass();
            line.repair();
            if let Some(mark) = line.taken().1 {
                line.acknowledged(mark);
            }
        }
    };
    let clear = |line: &mut Line<'_>, seq: u64, error: Option<&str>| {
        assert_eq!(line.slave.push_clear(seq), None);
        line.hand(Input::CopyAll);
        line.repair();
        assert!(line.swept(error));
        settled(line);
        line.slave.push(seq + 1, put(&k, &k));
        settled(line);
    };
    clear(&mut line, 8, Some("too large"));
    assert_eq!(line.slave.confirmed(), 7);
    clear(&mut line, 10, Some("too large"));
    assert_eq!(line.slave.confirmed(), 7, "the first one it still lacks");
    clear(&mut line, 12, None);
    assert_eq!(line.slave.confirmed(), 13);
}

/// They are no fault of anybody, as keys that a slave has by itself are.
#[test]
fn keys_of_an_elixir_server_from_before_a_clear_are_nothing_to_warn_of() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 1 << 20);
    line.found(1);
    let read_two = |line: &mut Line<'_>| {
        let question = line.sweep.take().expect("they are asked for");
        line.hand(Input::KeysRead { question, read: KeysRead { foreign: 2, ..KeysRead::default() } });
    };
    read_two(&mut line);
    line.settled();
    line.slave.push_clear(8);
    line.hand(Input::CopyAll);
    line.repair();
    read_two(&mut line);
    let swept = line.events.iter().filter_map(|event| Some((event.keys()?, event.level())));
    assert_eq!(swept.collect::<Vec<_>>(), [(2, Level::Warn), (2, Level::Info)]);

    // But keys that the slave had before it was sent anything are its own, whether the store was cleared or not.
    let mut line = Line::new(&source, 1 << 20);
    assert_eq!(line.slave.push_clear(8), None);
    line.found(1);
    read_two(&mut line);
    assert_eq!(line.events.iter().find_map(|event| event.keys().map(|_| event.level())), Some(Level::Warn));
}

/// A slave that takes nothing is told of each copy that begins.
#[test]
fn copies_that_begin_again_and_again_wait_within_the_bound_of_writes() {
    let source = OneKey(atom("k"));
    let mut line = Line::new(&source, 1 << 10);
    line.greeted(1, GreetingAnswer::Taken(said()));
    for seq in 8..1_000 {
        assert_eq!(line.slave.push_clear(seq), None);
        line.hand(Input::CopyAll);
    }
    assert!(line.events.iter().any(|event| matches!(event, Event::FellBehind { .. })), "{:?}", line.events);
    let waits = line.slave.phase.stream_mut().map_or(0, |(_, stream)| stream.log.bytes());
    assert!(waits <= 1 << 11, "{waits}");
}
