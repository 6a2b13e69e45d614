//! A slave's name that goes to another store.

use super::*;
use crate::etf::TermView;

/// What waits for a slave is sent and acknowledged, up to its end; gives whether a copy of everything was among it.
fn is_copied_to(desk: &mut Desk<'_>) -> bool {
    let mut sent = Vec::new();
    while desk.machine.lock().standing() != (Standing::InStep { lag: 0 }) {
        let node = desk.machine.lock().followed_at().map(|at| Arc::clone(&at.node)).expect("it is followed");
        let send = |_: &RemoteProcess, message: &[u8]| {
            sent.push(format!("{:?}", TermView::parse(message).expect("our own term")));
            true
        };
        let taken = desk.machine.lock().take(&node, desk.now, |_| true, send);
        if let Acknowledge::Now(mark) = taken.acknowledge {
            desk.hand(Input::Acknowledged { mark, kept: Ok(()) });
        } else {
            desk.timeout();
        }
    }
    sent.iter().any(|message| message.contains("begin"))
}

/// It is found there, and has nine writes of the store.
fn find(desk: &mut Desk<'_>, at: &Pid, incarnation: u64) {
    desk.timeout();
    desk.located(at);
    desk.watched();
    desk.dialect(true);
    let said = Said { incarnation, had: Some(1_000), applied: 9, stepped_down: false };
    desk.greeted(GreetingAnswer::Taken(said));
}

#[test]
fn another_store_that_has_the_name_now_is_sent_everything() {
    let store = store();
    let mut desk = Desk::new(&store, remote(), false);
    desk.follow(&pid("b@h", 5), 9);
    assert!(is_copied_to(&mut desk));
    assert_eq!(desk.machine.lock().confirmed(), 7);
    desk.hand(Input::Renew);
    find(&mut desk, &pid("b@h", 5), 9);
    assert!(!is_copied_to(&mut desk), "it is sent what it lacks");
    // Another life of the store.
    desk.hand(Input::Renew);
    find(&mut desk, &Pid { creation: 2, ..pid("b@h", 5) }, 10);
    assert!(!is_copied_to(&mut desk), "it is sent what it lacks");
    // What that one was sent of a repair this one may not have, however much it has.
    desk.hand(Input::Renew);
    find(&mut desk, &pid("c@h", 6), 11);
    assert!(is_copied_to(&mut desk));
}
