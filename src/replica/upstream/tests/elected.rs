//! A store whose primary elections choose.

use super::*;
use crate::replica::Settled;

/// A slave of the primary with this term, which has brought it up to date.
fn slave_of(term: u64) -> Upstream {
    let mut slave = upstream();
    assert_eq!(hand(&mut slave, Input::Seal { floor: u64::MAX }), []);
    assert_eq!(greet(&mut slave, greeting(term, &[1], 1), FREE), Err("superseded"), "nothing is known yet");
    hand(&mut slave, Input::Seal { floor: term });
    greet(&mut slave, greeting(term, &[1], 1), FREE).expect("it is a slave");
    assert_eq!(slave.settled(), None, "nothing has come");
    mark(&mut slave, 1, CopyMark::Whole, 10);
    slave
}

fn settled(term: u64, applied: u64) -> Settled {
    Settled { term, applied }
}

#[test]
fn below_the_floor_no_primary_is_followed_and_nothing_is_acknowledged() {
    let mut slave = slave_of(3);
    write(&mut slave, 1, 11);
    assert_eq!(ask(&mut slave, 1, 11), Answer::Applied(11));
    // It is asked, and sealed before what came is kept.
    let outputs = hand(&mut slave, Input::Ask { session: 1, seq: 11 });
    let [Output::Confirm(asked)] = outputs[..] else { panic!("{outputs:?}") };
    assert_eq!(hand(&mut slave, Input::Seal { floor: 4 }), []);
    let kept = hand(&mut slave, Input::Kept { asked, result: Ok(()) });
    assert_eq!(reply(&kept), Answer::Error("other_session"));
    assert_eq!(ask(&mut slave, 1, 11), Answer::Error("other_session"));
    assert_eq!(slave.take(1, 12), Take::Nowhere);
    assert_eq!(greet(&mut slave, greeting(3, &[1], 2), FREE), Err("superseded"));
    // A lower floor changes nothing, and what the primary says of the session neither.
    hand(&mut slave, Input::Seal { floor: 2 });
    hand(&mut slave, Input::Bye { session: 1 });
    assert_eq!(greet(&mut slave, greeting(3, &[1], 2), FREE), Err("superseded"));
    assert_eq!(slave.settled(), Some((settled(3, 11), true)));
    greet(&mut slave, greeting(4, &[1], 3), FREE).expect("it leads again");
    // It takes none of a lower term from then on.
    assert_eq!(greet(&mut slave, greeting(3, &[2], 4), FREE), Err("superseded"));
}

#[test]
fn what_is_settled_stays_until_the_next_primary_has_brought_all() {
    let mut slave = slave_of(3);
    write(&mut slave, 1, 11);
    greet(&mut slave, greeting(4, &[2], 2), FREE).expect("it is chosen");
    assert_eq!(slave.settled(), Some((settled(3, 11), false)));
    mark(&mut slave, 2, CopyMark::Repair, 10);
    write(&mut slave, 2, 40);
    assert_eq!(slave.settled(), Some((settled(3, 11), false)), "what comes is newer");
    // Over a restart too.
    assert_eq!(started_again(slave.durable(), 8).settled(), Some((settled(3, 11), false)));
    mark(&mut slave, 2, CopyMark::Whole, 41);
    assert_eq!(slave.settled(), Some((settled(4, 41), true)));
    assert_eq!(ask(&mut slave, 2, 41), Answer::Applied(41));
    assert_eq!(started_again(slave.durable(), 8).settled(), Some((settled(4, 41), true)));
}

#[test]
fn a_store_that_is_chosen_leads_with_the_term_whatever_it_was() {
    let mut never = upstream();
    hand(&mut never, Input::Seal { floor: u64::MAX });
    let mut slaves = [slave_of(3), never];
    for slave in &mut slaves {
        let outputs = hand(slave, Input::Lead { term: 9 });
        assert!(matches!(reply(&outputs), Answer::Promoted(Promotion { term: 9, .. })), "{outputs:?}");
        assert!(slave.is_owner() && slave.settled().is_none() && !slave.started_empty());
        assert_eq!(slave.lineage().rank(), (9, OWN));
        assert_eq!(greet(slave, greeting(8, &[2], 5), FREE), Err("superseded"));
    }
    // Its own slaves are those of the next primary.
    let [mut store, _] = slaves;
    let mine = as_slave(&[], &Pid { node: "s@h".into(), id: 9, serial: 0, creation: 1 });
    hand(&mut store, Input::SlavesAre(vec![mine.clone()]));
    let has_slaves = Around { has_slaves: true, ..FREE };
    let outputs = greet(&mut store, greeting(10, &[3], 6), has_slaves).expect("it is demoted");
    let removed = outputs.iter().find_map(|output| match output {
        Output::RemoveDownstreams { names, .. } => Some(names.clone()),
        _ => None,
    });
    assert_eq!(removed, Some(vec![mine.name]));
}
