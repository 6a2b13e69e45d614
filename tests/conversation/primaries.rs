//! A store that is greeted as a slave, and the connection that the greeting came by.

use kvnode::distribution::control::ControlMessage;
use kvnode::etf::{Cursor, Pid};

use crate::cluster::{TAG, cluster};
use crate::conversation::{caller, send};
use crate::copies::{call, greet};
use crate::term::{PEER, term_with};

/// A slave waits for no primary for ever: also where there is another connection before anything else is done of what it has asked for.
#[test]
fn a_primary_is_lost_with_the_connection_that_its_greeting_came_by() {
    let mut cluster = cluster();
    let (watch, greeted) = greet(&mut cluster);
    assert!(greeted.starts_with("{:ok, "), "{greeted}");
    let watch = ControlMessage::parse(&mut Cursor::new(&watch[1..])).expect("a control message");
    assert!(matches!(watch, ControlMessage::MonitorP { .. }), "before the answer: {watch:?}");
    assert!(call(&mut cluster, ":status").contains("state: :repairing"));
    cluster.waiters.node_down(PEER);
    let status = call(&mut cluster, ":status");
    assert!(status.contains("state: :gone"), "{status}");
    assert_eq!(call(&mut cluster, "{:replica_ask, 1, 7, 7}"), "{:error, :other_session}");
}

/// As it is of one that waited for a suspended store while its connection was lost: the node's connection to itself delivers it.
#[test]
fn a_greeting_that_comes_by_another_connection_than_its_primarys_begins_no_session() {
    let mut cluster = cluster();
    let far = Pid { node: "far@h".into(), ..caller() };
    let hello = "{:\"$gen_call\", {$1, $2}, {:replica_hello, 1, {0, 0, [9], 9}, 7, 1000000, [], [], false}}";
    let hello = term_with(hello, &[&far, &TAG]);
    assert!(cluster.say(&send("kv", hello)).is_empty(), "it is answered elsewhere");
    let status = call(&mut cluster, ":status");
    assert!(status.contains("state: :gone"), "{status}");
    assert!(cluster.waiters.is_empty());
}
