//! A client of etcd: keys, transactions, watches, leases, on HTTP/2 by hyper over smol's sockets, with threads of its own.
//!
//! It is a room that could be a crate: it uses nothing of kvnode but the small `within`. Nothing in it knows stores.
//!
//! Released to users is how an etcd is told of ([`Config`], [`Etcd::connect`]), for [`EtcdEngine`](crate::store::EtcdEngine); requests,
//! watches and leases are for that engine and elections, and may change with any release.
//!
//! # What it promises
//!
//! - A request has an end within its deadline, 4 s unless it is told otherwise, over as many tries as that takes. A try that
//!   has failed is followed by another at the next member where the request surely was not done, or where that does no harm
//!   ([`Effect`](message::Effect)). Else [`Error::Unknown`] says that the outcome is unknown.
//! - A member that is killed, stopped or cut off is noticed within [`check_interval`](Config::check_interval) and
//!   [`check_duration_max`](Config::check_duration_max), and callers do not ask it until it is back: a check in the
//!   background finds that out.
//! - A [`Watch`] gives each change once and none left out, however often its stream is cut; or says that the revision that it
//!   would go on with is compacted.
//! - A [`Lease`] says until when it is surely held, by our clock. It is no mutual exclusion: a write that relies on it carries
//!   a condition.
//! - Whatever answers, nothing panics and nothing grows without bound: an answer is refused by its length or by the number of
//!   its entries before it is read.
//!
//! # The map
//!
//! - [`message`]: etcd's messages, and which is answered by which.
//! - `frame`, `status`, [`Error`]: gRPC, and what the end of a call means. `dates`: of pages and certificates.
//! - `members`: which member is asked. `following`: how far a watch has come. `term`: how long a lease is held.
//! - `client`: all that waits: sockets, TLS, tries, checks.
//!
//! All but `client` are values without sockets, tasks and clock.

mod client;
mod config;
mod dates;
mod error;
mod following;
mod frame;
mod members;
#[doc(hidden)]
pub mod message;
mod status;
mod term;

pub use client::Etcd;
#[doc(hidden)]
pub use client::{Ask, Lease, MemberPage, Pages, Watch, WatchEvent, own_certificate_end};
#[cfg(feature = "cli")]
pub(crate) use config::check_endpoint;
pub use config::{Config, ConfigError, TlsFiles, User};
pub use error::Error;

use message::Bytes;

/// What is watched.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchOptions {
    /// The key, or the first of the range.
    pub key: Bytes,
    /// The first key behind the range; empty: the key alone; `[0]`: all from the key on.
    pub range_end: Bytes,
    /// The first revision whose changes are wanted. `None`: from now on.
    pub from_revision: Option<i64>,
    /// The entries of before are wanted.
    pub prev_kv: bool,
}

impl WatchOptions {
    /// One key, from now on.
    pub fn key(key: impl Into<Bytes>) -> Self {
        Self { key: key.into(), range_end: Bytes::new(), from_revision: None, prev_kv: false }
    }

    /// All keys that begin so, from now on.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let range_end = message::prefix_end(&prefix).into();
        // An empty key is none: etcd reads [0] as the first there can be.
        let key = if prefix.is_empty() { Bytes::from_static(&[0]) } else { prefix };
        Self { range_end, ..Self::key(key) }
    }

    /// From this revision on.
    #[must_use]
    pub fn from_revision(self, revision: i64) -> Self {
        Self { from_revision: Some(revision), ..self }
    }

    /// With the entries of before.
    #[must_use]
    pub fn with_prev_kv(self) -> Self {
        Self { prev_kv: true, ..self }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::following::Following;
    use super::frame::{Frames, framed};
    use super::message::{Event, KeyValue, ResponseHeader, TxnResponse, WATCH, WatchResponse};
    use super::*;

    fn response() -> impl Strategy<Value = WatchResponse> {
        let revision = prop_oneof![0..20_i64, any::<i64>(), Just(i64::MAX), Just(i64::MIN)];
        let event = proptest::option::of(revision.clone()).prop_map(|revision| Event {
            kv: revision.map(|mod_revision| KeyValue { mod_revision, ..KeyValue::default() }),
            ..Event::default()
        });
        let events = proptest::collection::vec(event, 0..4);
        let flags = any::<[bool; 3]>();
        (revision.clone(), events, flags, -1..2_i64, revision).prop_map(
            |(header, events, [created, canceled, fragment], watch_id, compact_revision)| WatchResponse {
                header: Some(ResponseHeader { revision: header, ..ResponseHeader::default() }),
                watch_id,
                created,
                canceled,
                compact_revision,
                fragment,
                events,
                ..WatchResponse::default()
            },
        )
    }

    proptest! {
        #[test]
        fn whatever_comes_on_a_watch_no_revision_is_told_twice_and_none_goes_back(
            responses in proptest::collection::vec(response(), 0..20),
            from in proptest::option::of(-2..10_i64),
        ) {
            let options = WatchOptions { from_revision: from, ..WatchOptions::key("k") };
            let mut following = Following::new(options, 1 << 10);
            following.open();
            let mut told = 0;
            for response in responses {
                let before = following.next_revision();
                match following.handle(response) {
                    Ok(following::Output::Changes(events)) => {
                        let revisions: Vec<i64> = events.iter().map(Event::revision).collect();
                        prop_assert!(revisions.is_sorted() && revisions[0] > told && revisions[0] >= before);
                        told = revisions[revisions.len() - 1];
                        prop_assert_eq!(following.next_revision(), told + 1);
                    }
                    Ok(_) => prop_assert!(following.next_revision() >= before),
                    Err(_) => drop(following.open()),
                }
            }
        }

        #[test]
        fn whatever_bytes_come_they_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..300),
            response in response(),
            (at, byte) in (any::<prop::sample::Index>(), any::<u8>()),
        ) {
            let mut changed = framed(&response).expect("it is small").to_vec();
            let at = at.index(changed.len());
            changed[at] = byte;
            for bytes in [bytes, changed] {
                let mut frames = Frames::new(1 << 20);
                frames.push(&bytes);
                while let Ok(Some(message)) = frames.next() {
                    if WATCH.check(&message).is_ok() {
                        let _read_or_refused = WatchResponse::decode(message.clone());
                    }
                    let _read_or_refused = TxnResponse::decode(message);
                }
            }
        }
    }
}
