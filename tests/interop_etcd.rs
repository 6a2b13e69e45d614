//! The client of etcd with real etcds: what it reads and writes, and what becomes of it when they end. `etcdctl` is the second
//! opinion.

#![cfg(feature = "etcd")]
#![allow(clippy::disallowed_methods, reason = "tests of real members live in real time")]
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by it, and shows what it has seen"
)]

mod support;

#[path = "interop_etcd/failover.rs"]
mod failover;
#[path = "interop_etcd/hostile.rs"]
mod hostile;
#[path = "interop_etcd/one_member.rs"]
mod one_member;
#[path = "interop_etcd/secured.rs"]
mod secured;

use kvnode::block_on;
use kvnode::etcd::message::{Bytes, PutRequest, RangeRequest, RangeResponse};
use kvnode::etcd::{Config, Error, Etcd, Watch, WatchEvent};

/// A client of these.
#[track_caller]
fn client(endpoints: Vec<String>) -> Etcd {
    Etcd::connect(Config::new(endpoints)).expect("the configuration is right")
}

fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

fn get(key: impl Into<Bytes>) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

/// The value of a key, where there is one.
fn value(response: &RangeResponse) -> Option<&[u8]> {
    response.kvs.first().map(|kv| &kv.value[..])
}

/// The next event that is not of the stream itself.
fn event(watch: &mut Watch) -> Result<WatchEvent, Error> {
    block_on(async {
        loop {
            match watch.next().await? {
                WatchEvent::Opened { .. } | WatchEvent::Cut { .. } => {}
                event => return Ok(event),
            }
        }
    })
}

/// What a client does with one member, and with users. (The files for TLS are outside of their roots.)
#[test]
fn the_same_on_each_other_etcd() {
    support::etcd_versions::run_on_others(&["one_member::", "secured::a_user_has_a_token"], 16);
}
