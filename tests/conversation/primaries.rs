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

#[test]
fn a_slave_refuses_what_is_to_miss_nothing_and_names_its_primary() {
    let mut cluster = cluster();
    assert_eq!(call(&mut cluster, "{:get, 1, consistency: :linearizable}"), "nil");
    greet(&mut cluster);
    let requests = [
        "{:get, 1, consistency: :linearizable}",
        "{:fetch, 1, consistency: :linearizable}",
        "{:get_many, [1], consistency: :linearizable}",
        "{:count, consistency: :linearizable}",
        "{:scan, consistency: :linearizable}",
    ];
    let primary = call(&mut cluster, "{:put, 1, 2}");
    assert!(primary.starts_with("{:error, {:slave_of, "), "{primary}");
    for request in requests {
        assert_eq!(call(&mut cluster, request), primary, "{request}");
    }
    assert_eq!(call(&mut cluster, "{:get, 1, consistency: :session}"), "nil");
    assert_eq!(call(&mut cluster, "{:get_many, [1], consistency: :session}"), "%{}");
    // Lost, it may have gone on.
    cluster.waiters.node_down(PEER);
    assert_eq!(call(&mut cluster, requests[0]), primary);
    cluster.call("{:promote}");
    assert_eq!(call(&mut cluster, requests[0]), "nil");
}

#[test]
fn a_store_that_an_elixir_server_writes_to_may_lack_what_that_one_has() {
    let mut cluster = cluster();
    assert!(cluster.say(&send("kv", "{:\"$gen_cast\", {:replicate_put, 1, 2}}")).is_empty());
    assert_eq!(call(&mut cluster, "{:get, 1}"), "2");
    assert_eq!(call(&mut cluster, "{:get, 1, consistency: :linearizable}"), "{:error, {:slave_of, nil}}");
    assert_eq!(call(&mut cluster, "{:get, 1, consistency: :session}"), "2");
}
